//! The hash commands. Deadlines are far away or long past, so that no field expires during the run.

use super::{Compare, Generator, Step};

pub(super) fn next(g: &mut Generator) -> Step {
    match g.random.below(100) {
        0..14 => set(g, "HSET"),
        14..16 => set(g, "HMSET"),
        16..19 => field(g, "HSETNX").arg(g.value()),
        19..22 => field(g, "HGET"),
        22..25 => several(g, "HMGET"),
        25..27 => Step::new("HGETALL")
            .arg(g.key())
            .compare(Compare::UnorderedPairs),
        27..29 => Step::new("HKEYS").arg(g.key()).compare(Compare::Unordered),
        29..31 => Step::new("HVALS").arg(g.key()).compare(Compare::Unordered),
        31..37 => several(g, "HDEL"),
        37..39 => Step::new("HLEN").arg(g.key()),
        39..41 => field(g, "HSTRLEN"),
        41..43 => field(g, "HEXISTS"),
        43..48 => field(g, "HINCRBY").arg(g.integer()),
        48..52 => increment(g),
        52..56 => random(g),
        56..60 => scan(g),
        60..70 => expire(g),
        70..76 => tell(g),
        76..79 => {
            let step = Step::new("HPERSIST").arg(g.key());
            fields(g, step)
        }
        79..85 => get_and_expire(g),
        85..92 => set_and_expire(g),
        92..95 => {
            let step = Step::new("HGETDEL").arg(g.key());
            fields(g, step)
        }
        95 => Step::new("DEL").arg(g.key()),
        96 => Step::new("EXISTS").arg(g.key()),
        97 => many(g),
        _ => Step::new("OBJECT").arg("ENCODING").arg(g.key()),
    }
}

fn field(g: &mut Generator, name: &str) -> Step {
    Step::new(name).arg(g.key()).arg(g.member())
}

fn several(g: &mut Generator, name: &str) -> Step {
    let mut step = Step::new(name).arg(g.key());
    for _ in 0..=g.random.below(6) {
        step = step.arg(g.member());
    }
    step
}

fn set(g: &mut Generator, name: &str) -> Step {
    let mut step = Step::new(name).arg(g.key());
    for _ in 0..=g.random.below(5) {
        step = step.arg(g.member()).arg(g.value());
    }
    step
}

/// More fields than a listpack holds, now and then.
fn many(g: &mut Generator) -> Step {
    let mut step = Step::new("HSET").arg(g.key());
    let count = *g.random.pick(&[&100_usize, &511, &512, &513, &600]);
    for number in 0..count {
        step = step.arg(format!("f{number}")).int(number as i64);
    }
    step.plain()
}

fn increment(g: &mut Generator) -> Step {
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
    field(g, "HINCRBYFLOAT").arg(amount)
}

/// What is drawn differs, how much of it does not.
fn random(g: &mut Generator) -> Step {
    let step = Step::new("HRANDFIELD").arg(g.key());
    let count = match g.random.below(12) {
        0 => return step.compare(Compare::Shape),
        1 => g.odd_number(),
        2..5 => b"100000".to_vec(),
        5 => b"0".to_vec(),
        6..9 => g.random.between(-20, -1).to_string().into_bytes(),
        9 => b"-9223372036854775808".to_vec(),
        _ => g.random.between(1, 5).to_string().into_bytes(),
    };
    let all = count == b"100000";
    let step = step.arg(count).plain();
    match g.random.below(4) {
        0 | 1 if all => step.compare(Compare::Unordered),
        0 | 1 => step.compare(Compare::Shape),
        2 if all => step.arg(g.word("WITHVALUES")).compare(Compare::Shape),
        2 => step.arg(g.word("WITHVALUES")).compare(Compare::Shape),
        _ => step
            .arg(g.one_of(&["WITHVALUES", "WITHSCORES", "1"]))
            .compare(Compare::Shape),
    }
}

fn scan(g: &mut Generator) -> Step {
    let key = g.key();
    if g.chance(10) {
        let cursor = g.odd_number();
        return Step::new("HSCAN")
            .arg(key)
            .arg(cursor)
            .arg("COUNT")
            .arg("100000")
            .compare(Compare::Shape)
            .plain();
    }
    let step = Step::new("HSCAN").arg(key).arg("0");
    let mut options = vec![vec![g.word("COUNT"), b"100000".to_vec()]];
    let mut group = 2;
    if g.chance(40) {
        options.push(vec![g.word("MATCH"), g.pattern()]);
    }
    if g.chance(30) {
        options.push(vec![g.word("NOVALUES")]);
        group = 1;
    }
    if g.chance(10) {
        options.push(vec![g.one_of(&["NOSCORES", "TYPE", "COUNT", "MATCH", "x"])]);
    }
    g.options(step, options)
        .compare(Compare::Scan(group))
        .plain()
}

/// FIELDS, a count that is mostly right, and fields.
fn fields(g: &mut Generator, step: Step) -> Step {
    let count = g.random.below(5) + 1;
    let mut step = step.arg(g.word("FIELDS")).arg(announced(g, count));
    for _ in 0..count {
        step = step.arg(g.member());
    }
    step
}

fn announced(g: &mut Generator, count: usize) -> Vec<u8> {
    if g.chance(94) {
        count.to_string().into_bytes()
    } else {
        g.count()
    }
}

fn expire(g: &mut Generator) -> Step {
    let (name, time) = match g.random.below(4) {
        0 => ("HEXPIRE", g.seconds()),
        1 => ("HPEXPIRE", g.milliseconds()),
        2 => ("HEXPIREAT", g.unix_seconds()),
        _ => ("HPEXPIREAT", g.unix_milliseconds()),
    };
    let mut step = Step::new(name).arg(g.key()).arg(time);
    while g.chance(35) {
        step = step.arg(g.one_of(&["NX", "XX", "GT", "LT"]));
    }
    fields(g, step)
}

fn tell(g: &mut Generator) -> Step {
    let (name, near) = *g.random.pick(&[
        &("HTTL", 3),
        &("HPTTL", 3000),
        &("HEXPIRETIME", 3),
        &("HPEXPIRETIME", 3000),
    ]);
    let step = Step::new(name).arg(g.key());
    fields(g, step).compare(Compare::Near(near))
}

fn get_and_expire(g: &mut Generator) -> Step {
    let step = Step::new("HGETEX").arg(g.key());
    let mut options = Vec::new();
    if g.chance(60) {
        options.push(g.expiry());
    }
    if g.chance(25) {
        options.push(vec![g.word("PERSIST")]);
    }
    if g.chance(4) {
        options.push(vec![g.one_of(&["KEEPTTL", "NX", "EX", "FNX"])]);
    }
    if g.chance(4) {
        options.push(g.expiry());
    }
    let step = g.options(step, options);
    fields(g, step)
}

fn set_and_expire(g: &mut Generator) -> Step {
    let step = Step::new("HSETEX").arg(g.key());
    let mut options = Vec::new();
    if g.chance(20) {
        options.push(vec![g.one_of(&["NX", "XX"])]);
    }
    if g.chance(20) {
        options.push(vec![g.one_of(&["FNX", "FXX"])]);
    }
    if g.chance(60) {
        options.push(if g.chance(30) {
            vec![g.word("KEEPTTL")]
        } else {
            g.expiry()
        });
    }
    if g.chance(4) {
        options.push(vec![
            g.one_of(&["NX", "XX", "FNX", "FXX", "KEEPTTL", "PERSIST", "EX"]),
        ]);
    }
    let count = g.random.below(4) + 1;
    let step = g.options(step, options);
    let mut step = step.arg(g.word("FIELDS")).arg(announced(g, count));
    for _ in 0..count {
        step = step.arg(g.member()).arg(g.value());
    }
    step
}
