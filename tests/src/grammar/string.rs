//! The string commands.

use super::{Generator, Step};

pub(super) fn next(g: &mut Generator) -> Step {
    match g.random.below(100) {
        0..20 => set(g),
        20..25 => Step::new("GET").arg(g.key()),
        25..28 => Step::new("GETSET").arg(g.key()).arg(g.value()),
        28..31 => Step::new("GETDEL").arg(g.key()),
        31..36 => getex(g),
        36..38 => Step::new("SETNX").arg(g.key()).arg(g.value()),
        38..40 => Step::new("SETEX")
            .arg(g.key())
            .arg(g.seconds())
            .arg(g.value()),
        40..42 => Step::new("PSETEX")
            .arg(g.key())
            .arg(g.milliseconds())
            .arg(g.value()),
        42..44 => Step::new("DELIFEQ").arg(g.key()).arg(g.value()),
        44..50 => Step::new("APPEND").arg(g.key()).arg(g.value()),
        50..53 => Step::new("STRLEN").arg(g.key()),
        53..56 => Step::new("INCR").arg(g.key()),
        56..58 => Step::new("DECR").arg(g.key()),
        58..61 => Step::new("INCRBY").arg(g.key()).arg(g.integer()),
        61..64 => Step::new("DECRBY").arg(g.key()).arg(g.integer()),
        64..69 => incrbyfloat(g),
        69..74 => setrange(g),
        74..79 => range(g),
        79..82 => {
            let keys = g.some_keys(5);
            Step::new("MGET").args(keys)
        }
        82..85 => many(g, "MSET"),
        85..87 => many(g, "MSETNX"),
        87..92 => msetex(g),
        92..97 => lcs(g),
        97 => Step::new("DEL").arg(g.key()),
        98 => Step::new("OBJECT").arg("ENCODING").arg(g.key()),
        _ => Step::new("TTL")
            .arg(g.key())
            .compare(super::Compare::Near(3)),
    }
}

fn set(g: &mut Generator) -> Step {
    let step = Step::new("SET").arg(g.key()).arg(g.value());
    if g.chance(40) {
        return step;
    }
    let mut options = Vec::new();
    if g.chance(50) {
        options.push(match g.random.below(4) {
            0 => vec![g.word("NX")],
            1 => vec![g.word("XX")],
            _ => vec![g.word("IFEQ"), g.value()],
        });
    }
    if g.chance(40) {
        options.push(vec![g.word("GET")]);
    }
    if g.chance(50) {
        options.push(if g.chance(30) {
            vec![g.word("KEEPTTL")]
        } else {
            g.expiry()
        });
    }
    if g.chance(5) {
        options.push(vec![
            g.one_of(&["NX", "XX", "KEEPTTL", "PERSIST", "FNX", "GET"]),
        ]);
    }
    g.options(step, options)
}

fn getex(g: &mut Generator) -> Step {
    let step = Step::new("GETEX").arg(g.key());
    match g.random.below(10) {
        0..2 => step,
        2..4 => step.arg(g.word("PERSIST")),
        4 => step.args(g.expiry()).arg(g.word("PERSIST")),
        _ => step.args(g.expiry()),
    }
}

/// Both numbers often have few digits, so that most sums are exact in any arithmetic.
fn incrbyfloat(g: &mut Generator) -> Step {
    let step = Step::new("INCRBYFLOAT").arg(g.key());
    let amount = match g.random.below(10) {
        0..6 => format!(
            "{}.{}",
            g.random.between(-20, 20),
            g.random.pick(&["5", "25", "75", "125", "0", "50"])
        )
        .into_bytes(),
        6 => g.odd_number(),
        7 => g.limit_integer(),
        _ => g.float(),
    };
    step.arg(amount)
}

fn setrange(g: &mut Generator) -> Step {
    let step = Step::new("SETRANGE").arg(g.key());
    let offset = match g.random.below(20) {
        0..15 => g.random.between(0, 60),
        15 => g.random.between(60, 3000),
        16 => -1,
        17 => 536_870_912,
        18 => i64::MAX,
        _ => i64::MIN,
    };
    step.int(offset).arg(g.value()).plain()
}

fn range(g: &mut Generator) -> Step {
    let name = g.random.pick(&["GETRANGE", "GETRANGE", "SUBSTR"]);
    Step::new(name).arg(g.key()).arg(g.index()).arg(g.index())
}

fn many(g: &mut Generator, name: &str) -> Step {
    let mut step = Step::new(name);
    for _ in 0..=g.random.below(4) {
        step = step.arg(g.key()).arg(g.value());
    }
    step
}

fn msetex(g: &mut Generator) -> Step {
    let pairs = g.random.below(4) + 1;
    let announced = if g.chance(92) {
        pairs.to_string().into_bytes()
    } else {
        g.count()
    };
    let mut step = Step::new("MSETEX").arg(announced);
    for _ in 0..pairs {
        step = step.arg(g.key()).arg(g.value());
    }
    let mut options = Vec::new();
    if g.chance(40) {
        options.push(vec![g.one_of(&["NX", "XX"])]);
    }
    if g.chance(70) {
        options.push(if g.chance(25) {
            vec![g.word("KEEPTTL")]
        } else {
            g.expiry()
        });
    }
    g.options(step, options)
}

/// Keys of its own with short values, since the work grows with the product of the lengths.
fn lcs(g: &mut Generator) -> Step {
    let mut key = || format!("lcs{}", g.random.below(4)).into_bytes();
    let (first, second) = (key(), key());
    if g.chance(40) {
        let len = g.random.below(40);
        let text: Vec<u8> = (0..len).map(|_| b"abcx"[g.random.below(4)]).collect();
        return Step::new("SET").arg(first).arg(text).plain();
    }
    let mut options = Vec::new();
    if g.chance(25) {
        options.push(vec![g.word("LEN")]);
    }
    if g.chance(50) {
        options.push(vec![g.word("IDX")]);
    }
    if g.chance(30) {
        options.push(vec![g.word("MINMATCHLEN"), g.count()]);
    }
    if g.chance(40) {
        options.push(vec![g.word("WITHMATCHLEN")]);
    }
    let step = Step::new("LCS").arg(first).arg(second);
    g.options(step, options)
}
