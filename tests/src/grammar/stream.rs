//! The stream commands, with IDs that meet again and groups that read, forget and claim.

use super::{Compare, Generator, Step};

/// Limits of blocks as each epoch has them.
pub(super) fn prelude(g: &mut Generator) -> Vec<Step> {
    let entries = g.random.pick(&["100", "3", "1", "5", "0"]);
    let bytes = g.random.pick(&["4096", "120", "0", "300", "1000"]);
    [
        ("stream-node-max-entries", entries),
        ("stream-node-max-bytes", bytes),
    ]
    .into_iter()
    .map(|(name, value)| Step::new("CONFIG").arg("SET").arg(name).arg(value).plain())
    .collect()
}

pub(super) fn next(g: &mut Generator) -> Step {
    match g.random.below(100) {
        0..30 => add(g),
        30..32 => Step::new("XLEN").arg(key(g)),
        32..40 => range(g),
        40..44 => {
            let step = Step::new("XDEL").arg(key(g));
            some_ids(g, step)
        }
        44..49 => trim(g),
        49..51 => set_id(g),
        51..57 => read(g),
        57..67 => read_group(g),
        67..71 => {
            let step = Step::new("XACK").arg(key(g)).arg(group(g));
            some_ids(g, step)
        }
        71..76 => pending(g),
        76..81 => claim(g),
        81..84 => auto_claim(g),
        84..93 => manage(g),
        93..99 => info(g),
        _ => match g.random.below(4) {
            0 => Step::new("DEL").arg(key(g)),
            1 => Step::new("COPY").arg(key(g)).arg(key(g)).arg("REPLACE"),
            2 => Step::new("TYPE").arg(key(g)),
            _ => Step::new("OBJECT").arg("ENCODING").arg(key(g)),
        },
    }
}

/// Few keys, so that streams grow.
fn key(g: &mut Generator) -> Vec<u8> {
    if g.chance(90) {
        let index = g.random.below(4);
        g.keys()[index].clone()
    } else {
        g.key()
    }
}

fn group(g: &mut Generator) -> &'static str {
    g.random.pick(&["g", "g", "g", "h", "7"])
}

fn consumer(g: &mut Generator) -> &'static str {
    g.random.pick(&["alice", "bob", "3"])
}

/// A complete ID of those that are added most.
fn plain_id(g: &mut Generator) -> String {
    let ms = g.random.below(60);
    match g.random.below(4) {
        0 => format!("{ms}"),
        _ => format!("{ms}-{}", g.random.below(4)),
    }
}

fn id(g: &mut Generator) -> String {
    if g.chance(93) {
        return plain_id(g);
    }
    let odd = g.random.pick(&[
        "0-0",
        "0",
        "0-1",
        "-",
        "+",
        "$",
        ">",
        "18446744073709551615-18446744073709551615",
        "18446744073709551614-18446744073709551615",
        "18446744073709551615",
        "18446744073709551616",
        "1-18446744073709551615",
        "01-02",
        "+1-+2",
        " 1",
        "1-",
        "-1",
        "1--1",
        "1--01",
        "5-*",
        "abc",
        "1-2-3",
        "",
    ]);
    odd.to_owned()
}

fn some_ids(g: &mut Generator, mut step: Step) -> Step {
    for _ in 0..g.random.below(4) + 1 {
        step = step.arg(id(g));
    }
    step
}

fn strategy(g: &mut Generator) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let is_len = g.chance(60);
    words.push(g.word(if is_len { "MAXLEN" } else { "MINID" }));
    match g.random.below(3) {
        0 => words.push(b"~".to_vec()),
        1 => words.push(b"=".to_vec()),
        _ => {}
    }
    words.push(if is_len {
        let len = g.random.between(-1, 40);
        len.to_string().into_bytes()
    } else {
        id(g).into_bytes()
    });
    if g.chance(25) {
        words.push(g.word("LIMIT"));
        let limit = g.random.between(-1, 12);
        words.push(limit.to_string().into_bytes());
    }
    words
}

fn add(g: &mut Generator) -> Step {
    let mut step = Step::new("XADD").arg(key(g));
    if g.chance(6) {
        step = step.arg(g.word("NOMKSTREAM"));
    }
    if g.chance(15) {
        step = step.args(strategy(g));
    }
    // Rising milliseconds find their place more often than not.
    step = match g.random.below(20) {
        0..8 => step.arg(format!("{}-*", g.random.below(60))),
        8..19 => step.arg(plain_id(g)),
        _ => step.arg(id(g)),
    };
    let pairs = match g.random.below(10) {
        0..6 => 1,
        6..9 => 2,
        _ => g.random.below(6) + 1,
    };
    for number in 0..pairs {
        step = if g.chance(80) {
            step.arg(["f", "name", "12"][number % 3])
        } else {
            step.arg(g.value())
        };
        step = step.arg(g.value());
    }
    if g.chance(2) {
        step = step.arg("odd");
    }
    step.plain()
}

fn bound(g: &mut Generator) -> String {
    match g.random.below(10) {
        0..3 => "-".to_owned(),
        3..6 => "+".to_owned(),
        6 => format!("({}", id(g)),
        _ => id(g),
    }
}

fn count(g: &mut Generator, step: Step) -> Step {
    if g.chance(40) {
        let word = g.word("COUNT");
        let count = g.random.between(-1, 8);
        step.arg(word).int(count)
    } else {
        step
    }
}

fn range(g: &mut Generator) -> Step {
    let name = g.random.pick(&["XRANGE", "XREVRANGE"]);
    let step = Step::new(name).arg(key(g)).arg(bound(g)).arg(bound(g));
    count(g, step)
}

fn trim(g: &mut Generator) -> Step {
    Step::new("XTRIM").arg(key(g)).args(strategy(g))
}

fn set_id(g: &mut Generator) -> Step {
    let mut step = Step::new("XSETID").arg(key(g)).arg(id(g));
    if g.chance(40) {
        step = step
            .arg("ENTRIESADDED")
            .int(g.random.between(-1, 100))
            .arg("MAXDELETEDID")
            .arg(id(g));
    }
    step
}

fn streams(g: &mut Generator, mut step: Step, special: &str) -> Step {
    let streams = g.random.below(3) + 1;
    step = step.arg(g.word("STREAMS"));
    for _ in 0..streams {
        step = step.arg(key(g));
    }
    for _ in 0..streams {
        step = if g.chance(60) {
            step.arg(special)
        } else {
            step.arg(id(g))
        };
    }
    step
}

fn read(g: &mut Generator) -> Step {
    let step = count(g, Step::new("XREAD"));
    let special = g.random.pick(&["0", "$", "+", "0-0", "20"]);
    streams(g, step, special)
}

fn read_group(g: &mut Generator) -> Step {
    let step = Step::new("XREADGROUP")
        .arg("GROUP")
        .arg(group(g))
        .arg(consumer(g));
    let mut step = count(g, step);
    if g.chance(15) {
        step = step.arg(g.word("NOACK"));
    }
    streams(g, step, ">")
}

fn pending(g: &mut Generator) -> Step {
    let mut step = Step::new("XPENDING").arg(key(g)).arg(group(g));
    if g.chance(50) {
        return step;
    }
    if g.chance(20) {
        step = step
            .arg("IDLE")
            .arg(g.random.pick(&["0", "1000000000", "x"]));
    }
    step = step
        .arg(bound(g))
        .arg(bound(g))
        .int(g.random.between(-1, 8));
    if g.chance(40) {
        step = step.arg(consumer(g));
    }
    step.compare(Compare::Near(5000))
}

fn claim(g: &mut Generator) -> Step {
    let mut step = Step::new("XCLAIM")
        .arg(key(g))
        .arg(group(g))
        .arg(consumer(g))
        .arg(g.random.pick(&["0", "0", "0", "100000000", "-5", "x"]));
    step = some_ids(g, step);
    let mut groups = Vec::new();
    for (option, value) in [
        ("FORCE", None),
        ("JUSTID", None),
        ("IDLE", Some("100")),
        ("TIME", Some("1000000")),
        ("RETRYCOUNT", Some("4")),
        ("LASTID", Some("9-1")),
    ] {
        if g.chance(15) {
            let mut words = vec![g.word(option)];
            words.extend(value.map(|value| value.as_bytes().to_vec()));
            groups.push(words);
        }
    }
    g.options(step, groups)
}

fn auto_claim(g: &mut Generator) -> Step {
    let mut step = Step::new("XAUTOCLAIM")
        .arg(key(g))
        .arg(group(g))
        .arg(consumer(g))
        .arg(g.random.pick(&["0", "0", "0", "100000000", "-5", "x"]))
        .arg(bound(g));
    step = count(g, step);
    if g.chance(30) {
        step = step.arg("JUSTID");
    }
    step
}

fn manage(g: &mut Generator) -> Step {
    let step = Step::new("XGROUP");
    let position = |g: &mut Generator| {
        if g.chance(60) {
            g.random.pick(&["$", "0"]).to_owned()
        } else {
            id(g)
        }
    };
    let entries_read = |g: &mut Generator, step: Step| {
        if g.chance(25) {
            step.arg(g.word("ENTRIESREAD"))
                .int(g.random.between(-2, 50))
        } else {
            step
        }
    };
    match g.random.below(12) {
        0..4 => {
            let mut step = step
                .arg("CREATE")
                .arg(key(g))
                .arg(group(g))
                .arg(position(g));
            if g.chance(30) {
                step = step.arg(g.word("MKSTREAM"));
            }
            entries_read(g, step)
        }
        4..7 => {
            let step = step.arg("SETID").arg(key(g)).arg(group(g)).arg(position(g));
            entries_read(g, step)
        }
        7 => step.arg("DESTROY").arg(key(g)).arg(group(g)),
        8 | 9 => step
            .arg("CREATECONSUMER")
            .arg(key(g))
            .arg(group(g))
            .arg(consumer(g)),
        10 => step
            .arg("DELCONSUMER")
            .arg(key(g))
            .arg(group(g))
            .arg(consumer(g)),
        _ => step.arg(g.word("HELP")),
    }
}

fn info(g: &mut Generator) -> Step {
    let step = Step::new("XINFO");
    match g.random.below(8) {
        0..3 => step.arg("STREAM").arg(key(g)),
        3..5 => {
            let step = step.arg("STREAM").arg(key(g)).arg("FULL");
            count(g, step).compare(Compare::Near(5000))
        }
        5 | 6 => step.arg("GROUPS").arg(key(g)),
        _ => step
            .arg("CONSUMERS")
            .arg(key(g))
            .arg(group(g))
            .compare(Compare::Near(5000)),
    }
}
