//! Keys whatever they hold.

use tests::table::check;

#[test]
fn keys_are_deleted_renamed_and_copied() {
    check(&[
        ("MSET a 1 b 2 c 3", "+OK\r\n"),
        ("DEL a missing", ":1\r\n"),
        ("RENAME b d", "+OK\r\n"),
        ("GET d", "$1\r\n2\r\n"),
        ("RENAMENX c d", ":0\r\n"),
        ("RENAME missing d", "-ERR no such key\r\n"),
        ("COPY c e", ":1\r\n"),
        ("COPY c e", ":0\r\n"),
        ("COPY c d REPLACE", ":1\r\n"),
        ("TYPE d", "+string\r\n"),
        ("TYPE missing", "+none\r\n"),
        ("DBSIZE", ":3\r\n"),
        ("MOVE c 1", ":1\r\n"),
        ("DBSIZE", ":2\r\n"),
        ("FLUSHALL", "+OK\r\n"),
        ("DBSIZE", ":0\r\n"),
    ]);
}

#[test]
fn deadlines_are_set_under_conditions() {
    check(&[
        ("SET k v", "+OK\r\n"),
        ("EXPIRE k 100 XX", ":0\r\n"),
        ("EXPIRE k 100 NX", ":1\r\n"),
        ("EXPIRE k 50 GT", ":0\r\n"),
        ("EXPIRE k 200 GT", ":1\r\n"),
        ("TTL k", ":200\r\n"),
        ("PERSIST k", ":1\r\n"),
        ("TTL k", ":-1\r\n"),
        ("PEXPIREAT k 4102444800000", ":1\r\n"),
        ("EXPIRETIME k", ":4102444800\r\n"),
        ("EXPIRE k -1", ":1\r\n"),
        ("EXISTS k", ":0\r\n"),
        ("TTL k", ":-2\r\n"),
    ]);
}

#[test]
fn one_call_of_scan_is_enough_for_a_small_database() {
    check(&[
        ("SCAN 0", "*2\r\n$1\r\n0\r\n*0\r\n"),
        ("SET k v", "+OK\r\n"),
        ("SCAN 0", "*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n"),
        ("SCAN 0 TYPE list", "*2\r\n$1\r\n0\r\n*0\r\n"),
    ]);
}
