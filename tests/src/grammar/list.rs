//! The list commands, blocking ones as they are when something is there or nobody may wait.

use super::{Generator, Step};

/// Limits of chunks as each epoch has them.
pub(super) fn prelude(g: &mut Generator) -> Vec<Step> {
    let limit = g
        .random
        .pick(&["-2", "-2", "-1", "-5", "0", "1", "3", "16", "128", "-3"]);
    vec![
        Step::new("CONFIG")
            .arg("SET")
            .arg("list-max-listpack-size")
            .arg(limit)
            .plain(),
    ]
}

pub(super) fn next(g: &mut Generator) -> Step {
    match g.random.below(100) {
        0..22 => push(g),
        22..30 => pop(g),
        30..34 => Step::new("LLEN").arg(g.key()),
        34..39 => Step::new("LINDEX").arg(g.key()).arg(g.index()),
        39..46 => range(g, "LRANGE"),
        46..50 => range(g, "LTRIM"),
        50..55 => set(g),
        55..61 => insert(g),
        61..66 => Step::new("LREM").arg(g.key()).arg(g.index()).arg(g.value()),
        66..73 => pos(g),
        73..79 => transfer(g),
        79..84 => multi_pop(g),
        84..91 => waiting(g),
        91..97 => Step::new("OBJECT").arg("ENCODING").arg(g.key()),
        97 => Step::new("DEL").arg(g.key()),
        98 => copy(g),
        _ => Step::new("TYPE").arg(g.key()),
    }
}

fn push(g: &mut Generator) -> Step {
    let name = g
        .random
        .pick(&["LPUSH", "RPUSH", "RPUSH", "LPUSHX", "RPUSHX"]);
    let mut step = Step::new(name).arg(g.key());
    let count = match g.random.below(20) {
        0..12 => 1,
        12..19 => g.random.below(5) + 1,
        _ => g.random.below(150) + 1,
    };
    for _ in 0..count {
        step = step.arg(g.value());
    }
    step
}

fn pop(g: &mut Generator) -> Step {
    let name = g.random.pick(&["LPOP", "RPOP"]);
    let step = Step::new(name).arg(g.key());
    if g.chance(60) {
        step
    } else {
        step.arg(g.count())
    }
}

fn range(g: &mut Generator, name: &str) -> Step {
    let step = Step::new(name).arg(g.key());
    if g.chance(30) {
        step.arg("0").arg("-1")
    } else {
        step.arg(g.index()).arg(g.index())
    }
}

/// No index beyond 32 bits: the original takes those modulo 2^32.
fn set(g: &mut Generator) -> Step {
    let index = g.index();
    let number: Option<i64> = std::str::from_utf8(&index)
        .ok()
        .and_then(|text| text.parse().ok());
    let index = match number {
        Some(number) if i32::try_from(number).is_err() => b"2147483647".to_vec(),
        _ => index,
    };
    let step = Step::new("LSET").arg(g.key()).arg(index).arg(g.value());
    step.plain()
}

/// Between short keys, since a key's length shows in the encoding of a string.
fn copy(g: &mut Generator) -> Step {
    let mut key = || format!("k{}", g.random.below(8));
    let (source, target) = (key(), key());
    Step::new("COPY")
        .arg(source)
        .arg(target)
        .arg("REPLACE")
        .plain()
}

fn insert(g: &mut Generator) -> Step {
    let side = if g.chance(95) {
        g.one_of(&["BEFORE", "AFTER"])
    } else {
        g.one_of(&["LEFT", "", "BEFOR"])
    };
    Step::new("LINSERT")
        .arg(g.key())
        .arg(side)
        .arg(g.value())
        .arg(g.value())
}

fn pos(g: &mut Generator) -> Step {
    let step = Step::new("LPOS").arg(g.key()).arg(g.value());
    let mut options = Vec::new();
    if g.chance(50) {
        options.push(vec![g.word("RANK"), rank(g)]);
    }
    if g.chance(50) {
        options.push(vec![g.word("COUNT"), g.count()]);
    }
    if g.chance(30) {
        options.push(vec![g.word("MAXLEN"), g.count()]);
    }
    if g.chance(3) {
        options.push(vec![g.one_of(&["RANK", "COUNT", "MAXLEN", "NX"])]);
    }
    g.options(step, options)
}

fn rank(g: &mut Generator) -> Vec<u8> {
    if g.chance(70) {
        g.random.between(-3, 3).to_string().into_bytes()
    } else {
        g.integer()
    }
}

fn end(g: &mut Generator) -> Vec<u8> {
    if g.chance(96) {
        g.one_of(&["LEFT", "RIGHT"])
    } else {
        g.one_of(&["UP", "BEFORE", ""])
    }
}

fn transfer(g: &mut Generator) -> Step {
    if g.chance(30) {
        return Step::new("RPOPLPUSH").arg(g.key()).arg(g.key());
    }
    let step = Step::new("LMOVE").arg(g.key()).arg(g.key());
    let (from, to) = (end(g), end(g));
    step.arg(from).arg(to)
}

fn multi_pop(g: &mut Generator) -> Step {
    let step = Step::new("LMPOP");
    keys_end_count(g, step)
}

/// A number of keys, the keys, an end, a count.
fn keys_end_count(g: &mut Generator, step: Step) -> Step {
    let keys = g.some_keys(4);
    let announced = if g.chance(92) {
        keys.len().to_string().into_bytes()
    } else {
        g.count()
    };
    let step = step.arg(announced).args(keys).arg(end(g));
    if g.chance(50) {
        step.arg(g.word("COUNT")).arg(g.count())
    } else {
        step
    }
}

/// Waits are short, and one of the keys has something more often than not.
fn waiting(g: &mut Generator) -> Step {
    let timeout = timeout(g);
    match g.random.below(5) {
        0 => Step::new("BLMOVE")
            .arg(g.key())
            .arg(g.key())
            .arg(end(g))
            .arg(end(g))
            .arg(timeout)
            .plain(),
        1 => Step::new("BRPOPLPUSH")
            .arg(g.key())
            .arg(g.key())
            .arg(timeout)
            .plain(),
        2 => {
            let step = Step::new("BLMPOP").arg(timeout);
            keys_end_count(g, step).plain()
        }
        _ => {
            let name = g.random.pick(&["BLPOP", "BRPOP"]);
            let keys = g.some_keys(5);
            Step::new(name).args(keys).arg(timeout).plain()
        }
    }
}

fn timeout(g: &mut Generator) -> Vec<u8> {
    if g.chance(80) {
        return b"0.001".to_vec();
    }
    let refused = [
        "",
        "abc",
        "-1",
        "-0.5",
        "1e400",
        "-1e400",
        "inf",
        "-inf",
        "nan",
        "9223372036854775807",
        "9223372036854775",
        "1e18",
        " 1",
        "0x",
        "1s",
    ];
    g.random.pick(&refused).as_bytes().to_vec()
}
