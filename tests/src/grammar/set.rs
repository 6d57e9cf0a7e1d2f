//! The set commands.

use super::{Compare, Generator, Step};

/// Small limits in some epochs, so that every encoding is met. The limit for integers is not below the other one: then
/// the encoding of a stored result would depend on the order in which a table gives its members.
pub(super) fn prelude(g: &mut Generator) -> Vec<Step> {
    let set = |name: &str, value: &str| {
        let step = Step::new("CONFIG").arg("SET");
        step.arg(name).arg(value).plain()
    };
    let (integers, members) = match g.random.below(4) {
        0 | 1 => ("512", "128"),
        2 => ("16", "12"),
        _ => ("0", "0"),
    };
    vec![
        set("set-max-intset-entries", integers),
        set("set-max-listpack-entries", members),
        set("set-max-listpack-value", g.random.pick(&["64", "8"])),
    ]
}

pub(super) fn next(g: &mut Generator) -> Step {
    match g.random.below(100) {
        0..20 => add(g),
        20..28 => {
            let members = some_members(g, 6);
            Step::new("SREM").arg(g.key()).args(members)
        }
        28..32 => Step::new("SISMEMBER").arg(g.key()).arg(g.member()),
        32..36 => {
            let members = some_members(g, 6);
            Step::new("SMISMEMBER").arg(g.key()).args(members)
        }
        36..39 => Step::new("SCARD").arg(g.key()),
        39..44 => Step::new("SMEMBERS")
            .arg(g.key())
            .compare(Compare::Unordered),
        44..50 => pop(g),
        50..55 => random_member(g),
        55..61 => Step::new("SMOVE").arg(g.key()).arg(g.key()).arg(g.member()),
        61..66 => combine(g, "SINTER"),
        66..70 => store(g, "SINTERSTORE"),
        70..76 => intersection_size(g),
        76..79 => combine(g, "SUNION"),
        79..82 => store(g, "SUNIONSTORE"),
        82..85 => combine(g, "SDIFF"),
        85..88 => store(g, "SDIFFSTORE"),
        88..93 => scan(g),
        93 => Step::new("DEL").arg(g.key()),
        94 | 95 => Step::new("EXISTS").arg(g.key()),
        _ => Step::new("OBJECT").arg("ENCODING").arg(g.key()),
    }
}

fn some_members(g: &mut Generator, most: usize) -> Vec<Vec<u8>> {
    let count = g.random.below(most) + 1;
    (0..count).map(|_| g.member()).collect()
}

/// Integers only, in most cases few, sometimes enough to leave an encoding in one go.
fn add(g: &mut Generator) -> Step {
    let step = Step::new("SADD").arg(g.key());
    match g.random.below(10) {
        0..6 => {
            let members = some_members(g, 8);
            step.args(members)
        }
        6..9 => {
            let count = g.random.below(12) + 1;
            let members: Vec<_> = (0..count)
                .map(|_| g.random.between(-40, 40).to_string().into_bytes())
                .collect();
            step.args(members)
        }
        _ => {
            let count = g.random.below(200) + 1;
            let start = g.random.between(-100, 100);
            let prefix = if g.chance(50) { "" } else { "m" };
            let members: Vec<_> = (0..count as i64)
                .map(|number| format!("{prefix}{}", start + number).into_bytes())
                .collect();
            step.args(members)
        }
    }
}

/// Which members go is random, so the set goes as a whole, or nothing goes.
fn pop(g: &mut Generator) -> Step {
    let step = Step::new("SPOP").arg(g.key());
    match g.random.below(10) {
        0..4 => step.arg("100000").compare(Compare::Unordered).plain(),
        4..6 => step.arg("0").plain(),
        6..8 => step
            .arg(
                g.random
                    .pick(&["-1", "abc", "", "1.5", "9223372036854775808", "-0", " 1"]),
            )
            .plain(),
        8 => step.arg("1").arg("1").plain(),
        _ => step
            .arg("9223372036854775807")
            .compare(Compare::Unordered)
            .plain(),
    }
}

fn random_member(g: &mut Generator) -> Step {
    let step = Step::new("SRANDMEMBER")
        .arg(g.key())
        .compare(Compare::Shape);
    match g.random.below(10) {
        0..3 => step.plain(),
        3..5 => step.int(g.random.between(-2000, 20)).plain(),
        5..7 => step.arg("100000").compare(Compare::Unordered).plain(),
        7 => step.arg("0").compare(Compare::Exact).plain(),
        8 => step
            .arg(g.random.pick(&[
                "abc",
                "",
                "1.5",
                "9223372036854775808",
                "-9223372036854775808",
                " 1",
            ]))
            .compare(Compare::Exact)
            .plain(),
        _ => step.arg("1").arg("1").compare(Compare::Exact).plain(),
    }
}

fn combine(g: &mut Generator, name: &str) -> Step {
    let keys = g.some_keys(5);
    Step::new(name).args(keys).compare(Compare::Unordered)
}

fn store(g: &mut Generator, name: &str) -> Step {
    let keys = g.some_keys(5);
    Step::new(name).arg(g.key()).args(keys)
}

fn intersection_size(g: &mut Generator) -> Step {
    let keys = g.some_keys(4);
    let announced = if g.chance(90) {
        keys.len().to_string().into_bytes()
    } else {
        g.count()
    };
    let mut step = Step::new("SINTERCARD").arg(announced).args(keys);
    while g.chance(40) {
        step = step.arg(g.word("LIMIT")).arg(g.count());
    }
    step
}

/// One pass over everything: the cursors in between are each server's own.
fn scan(g: &mut Generator) -> Step {
    let step = Step::new("SSCAN").arg(g.key());
    if g.chance(10) {
        let cursor = g
            .random
            .pick(&["abc", "-1", "", "18446744073709551616", "1.5", " 0"]);
        let step = step.arg(cursor).arg("COUNT").arg("100000");
        return step.compare(Compare::Scan(1)).plain();
    }
    let mut options = vec![vec![g.word("COUNT"), b"100000".to_vec()]];
    if g.chance(50) {
        let pattern = if g.chance(50) {
            g.pattern()
        } else {
            g.random
                .pick(&["m*", "[0-9]*", "-*", "m1?"])
                .as_bytes()
                .to_vec()
        };
        options.push(vec![g.word("MATCH"), pattern]);
    }
    if g.chance(5) {
        options.push(vec![
            g.word("COUNT"),
            g.random
                .pick(&["0", "-1", "abc", "1.5"])
                .as_bytes()
                .to_vec(),
        ]);
    }
    if g.chance(8) {
        options.push(vec![
            g.random
                .pick(&["NOVALUES", "NOSCORES", "MATCH", "TYPE", "ABC"])
                .as_bytes()
                .to_vec(),
        ]);
    }
    let step = step.arg("0").compare(Compare::Scan(1)).plain();
    g.options(step, options)
}
