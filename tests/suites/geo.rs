//! Positions, byte for byte.

use tests::table::{check, check_resp3};

const ADD: (&str, &str) = (
    "GEOADD italy 13.361389 38.115556 palermo 15.087269 37.502669 catania",
    ":2\r\n",
);

#[test]
fn positions_are_stored_and_told() {
    check(&[
        ADD,
        ("GEODIST italy palermo catania km", "$8\r\n166.2742\r\n"),
        ("GEODIST italy palermo rome", "$-1\r\n"),
        (
            "GEOHASH italy palermo rome",
            "*2\r\n$11\r\nsqc8b49rny0\r\n$-1\r\n",
        ),
        (
            "GEOPOS italy catania rome",
            "*2\r\n*2\r\n$20\r\n15.08726745843887329\r\n$20\r\n37.50266842333162032\r\n*-1\r\n",
        ),
        ("ZSCORE italy palermo", "$16\r\n3479099956230698\r\n"),
        (
            "GEOADD italy 200 10 nowhere",
            "-ERR invalid longitude,latitude pair 200.000000,10.000000\r\n",
        ),
        ("GEOADD italy NX CH 14 38 palermo", ":0\r\n"),
        ("GEOADD italy XX CH 14 38 palermo", ":1\r\n"),
    ]);
}

#[test]
fn areas_are_searched() {
    check(&[
        ADD,
        (
            "GEOSEARCH italy FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHDIST",
            "*2\r\n*2\r\n$7\r\ncatania\r\n$7\r\n56.4413\r\n*2\r\n$7\r\npalermo\r\n$8\r\n190.4424\r\n",
        ),
        (
            "GEOSEARCH italy FROMMEMBER palermo BYBOX 400 400 km DESC COUNT 1",
            "*1\r\n$7\r\ncatania\r\n",
        ),
        (
            "GEOSEARCH italy BYPOLYGON 4 14 37 16 37 16 38 14 38",
            "*1\r\n$7\r\ncatania\r\n",
        ),
        (
            "GEOSEARCH italy FROMMEMBER rome BYRADIUS 1 km",
            "-ERR member rome does not exist\r\n",
        ),
        (
            "GEORADIUS italy 15 37 100 km WITHHASH",
            "*1\r\n*2\r\n$7\r\ncatania\r\n:3479447370796909\r\n",
        ),
        (
            "GEORADIUSBYMEMBER_RO italy palermo 10 m",
            "*1\r\n$7\r\npalermo\r\n",
        ),
    ]);
}

#[test]
fn results_are_stored() {
    check(&[
        ADD,
        (
            "GEOSEARCHSTORE near italy FROMLONLAT 15 37 BYRADIUS 100 km",
            ":1\r\n",
        ),
        ("ZSCORE near catania", "$16\r\n3479447370796909\r\n"),
        (
            "GEORADIUSBYMEMBER italy palermo 500 km STOREDIST near",
            ":2\r\n",
        ),
        ("ZSCORE near palermo", "$1\r\n0\r\n"),
        ("GEORADIUS italy 0 0 1 m STORE near", ":0\r\n"),
        ("EXISTS near", ":0\r\n"),
    ]);
}

#[test]
fn coordinates_are_doubles_in_resp3_and_distances_are_text() {
    check_resp3(&[
        ADD,
        (
            "GEOSEARCH italy FROMMEMBER catania BYRADIUS 1 m WITHCOORD WITHDIST",
            "*1\r\n*3\r\n$7\r\ncatania\r\n$6\r\n0.0000\r\n*2\r\n,15.08726745843887329\r\n,37.50266842333162032\r\n",
        ),
    ]);
}
