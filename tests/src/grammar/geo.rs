//! Positions: geo commands over sorted sets, some of whose scores are no positions.

use super::{Generator, Step};

pub(super) fn next(g: &mut Generator) -> Step {
    match g.random.below(100) {
        0..22 => add(g),
        22..30 => {
            let step = Step::new("GEODIST")
                .arg(g.key())
                .arg(place(g))
                .arg(place(g));
            if g.chance(50) {
                step.arg(unit(g))
            } else {
                step
            }
        }
        30..36 => places(g, "GEOHASH"),
        36..43 => places(g, "GEOPOS"),
        43..63 => search(g, false),
        63..72 => search(g, true),
        72..81 => radius(g),
        81..90 => radius_of_member(g),
        90..92 => Step::new("ZADD").arg(g.key()).arg(g.float()).arg(place(g)),
        92 => Step::new("ZREM").arg(g.key()).arg(place(g)),
        93..95 => Step::new("ZSCORE").arg(g.key()).arg(place(g)),
        95..98 => Step::new("ZRANGE")
            .arg(g.key())
            .arg("0")
            .arg("-1")
            .arg("WITHSCORES"),
        98 => Step::new("OBJECT").arg("ENCODING").arg(g.key()),
        _ => Step::new("DEL").arg(g.key()),
    }
}

fn place(g: &mut Generator) -> Vec<u8> {
    match g.random.below(20) {
        19 => g.member(),
        _ => format!("p{}", g.random.below(60)).into_bytes(),
    }
}

fn places(g: &mut Generator, name: &str) -> Step {
    let mut step = Step::new(name).arg(g.key());
    for _ in 0..g.random.below(4) {
        step = step.arg(place(g));
    }
    step
}

/// A number of degrees with a few decimals, of this many at most.
fn degrees(g: &mut Generator, most: i64) -> Vec<u8> {
    match g.random.below(30) {
        0 => g
            .random
            .pick(&[
                "180",
                "-180",
                "85.05112878",
                "-85.05112878",
                "85.05112879",
                "180.0001",
                "0",
                "-0",
                "90",
            ])
            .as_bytes()
            .to_vec(),
        1 => g.odd_number(),
        2..12 => {
            // Close together, so that small areas hold several.
            let degrees = 13.0 + g.random.below(2_000_000) as f64 / 1e6;
            format!("{degrees}").into_bytes()
        }
        _ => {
            let micro = g.random.between(-most * 1_000_000, most * 1_000_000);
            format!("{}", micro as f64 / 1e6).into_bytes()
        }
    }
}

fn position(g: &mut Generator) -> Vec<Vec<u8>> {
    vec![degrees(g, 180), degrees(g, 85)]
}

fn unit(g: &mut Generator) -> Vec<u8> {
    match g.random.below(20) {
        0 => g.one_of(&["cm", "", "meters", "k"]),
        _ => g.one_of(&["m", "km", "ft", "mi", "km", "mi"]),
    }
}

fn length(g: &mut Generator) -> Vec<u8> {
    match g.random.below(20) {
        0 => g.odd_number(),
        1 => b"0".to_vec(),
        2 => g.random.between(-50, -1).to_string().into_bytes(),
        3..8 => format!("{}.{}", g.random.below(300), g.random.below(100)).into_bytes(),
        8..14 => g.random.between(1, 3_000).to_string().into_bytes(),
        _ => g.random.between(1, 30_000_000).to_string().into_bytes(),
    }
}

fn add(g: &mut Generator) -> Step {
    let mut step = Step::new("GEOADD").arg(g.key());
    if g.chance(30) {
        for word in ["NX", "XX", "CH"] {
            if g.chance(35) {
                step = step.arg(g.word(word));
            }
        }
    }
    for _ in 0..=g.random.below(8) {
        step = step.args(position(g)).arg(place(g));
    }
    step
}

fn circle(g: &mut Generator) -> Vec<Vec<u8>> {
    vec![length(g), unit(g)]
}

/// Sorting, COUNT and what is shown.
fn options(g: &mut Generator, shows: bool) -> Vec<Vec<Vec<u8>>> {
    let mut options = Vec::new();
    if shows {
        for word in ["WITHDIST", "WITHHASH", "WITHCOORD"] {
            if g.chance(30) {
                options.push(vec![g.word(word)]);
            }
        }
    }
    if g.chance(60) {
        options.push(vec![g.one_of(&["ASC", "DESC"])]);
    }
    if g.chance(35) {
        let mut count = vec![g.word("COUNT"), g.count()];
        if g.chance(40) {
            count.push(g.word("ANY"));
        }
        options.push(count);
    }
    if g.chance(2) {
        options.push(vec![g.one_of(&[
            "ANY",
            "STORE",
            "STOREDIST",
            "BYBOX",
            "BYRADIUS",
        ])]);
    }
    options
}

fn search(g: &mut Generator, stores: bool) -> Step {
    let step = if stores {
        Step::new("GEOSEARCHSTORE").arg(g.key()).arg(g.key())
    } else {
        Step::new("GEOSEARCH").arg(g.key())
    };
    let shows = !stores || g.chance(3);
    let mut options = options(g, shows);
    if stores && g.chance(40) {
        options.push(vec![g.word("STOREDIST")]);
    }
    let shape = g.random.below(10);
    if shape >= 8 {
        options.push(polygon(g));
        return g.options(step, options);
    }
    if g.chance(97) {
        options.push(if g.chance(40) {
            vec![g.word("FROMMEMBER"), place(g)]
        } else {
            [vec![g.word("FROMLONLAT")], position(g)].concat()
        });
    }
    if g.chance(97) {
        options.push(if shape < 4 {
            [vec![g.word("BYRADIUS")], circle(g)].concat()
        } else {
            vec![g.word("BYBOX"), length(g), length(g), unit(g)]
        });
    }
    if g.chance(2) {
        options.push(polygon(g));
    }
    g.options(step, options)
}

fn polygon(g: &mut Generator) -> Vec<Vec<u8>> {
    let vertices = g.random.below(5) + 3;
    let count = if g.chance(95) {
        vertices.to_string().into_bytes()
    } else {
        g.count()
    };
    let mut words = vec![g.word("BYPOLYGON"), count];
    if g.chance(50) {
        // Around where members are close together.
        for _ in 0..vertices {
            let mut degrees = || format!("{}", 12.0 + g.random.below(4_000_000) as f64 / 1e6);
            words.extend([degrees().into_bytes(), degrees().into_bytes()]);
        }
        return words;
    }
    // Away from the poles: a polygon whose centre is off the map finds nothing at the reference server.
    for _ in 0..vertices {
        let mut degrees = |most: i64| {
            if g.chance(1) {
                return g.odd_number();
            }
            let micro = g.random.between(-most * 1_000_000, most * 1_000_000);
            format!("{}", micro as f64 / 1e6).into_bytes()
        };
        words.extend([degrees(75), degrees(60)]);
    }
    words
}

fn radius(g: &mut Generator) -> Step {
    let name = g.random.pick(&["GEORADIUS", "GEORADIUS_RO"]);
    let step = Step::new(name).arg(g.key());
    let step = step.args(position(g)).args(circle(g));
    radius_options(g, step, name == "GEORADIUS")
}

fn radius_of_member(g: &mut Generator) -> Step {
    let name = g
        .random
        .pick(&["GEORADIUSBYMEMBER", "GEORADIUSBYMEMBER_RO"]);
    let step = Step::new(name).arg(g.key()).arg(place(g));
    let step = step.args(circle(g));
    radius_options(g, step, name == "GEORADIUSBYMEMBER")
}

fn radius_options(g: &mut Generator, step: Step, may_store: bool) -> Step {
    let stores = may_store && g.chance(35);
    let shows = !stores || g.chance(4);
    let mut options = options(g, shows);
    if stores {
        options.push(vec![g.one_of(&["STORE", "STOREDIST"]), g.key()]);
    }
    g.options(step, options)
}
