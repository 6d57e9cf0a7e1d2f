//! The sorted set commands.
//!
//! Ranges of members are only asked of keys whose scores are all equal: elsewhere what is in them is not defined.

use super::{Compare, Generator, Step};

/// Small limits in some epochs, so that both encodings are met.
pub(super) fn prelude(g: &mut Generator) -> Vec<Step> {
    let set = |name: &str, value: &str| {
        let step = Step::new("CONFIG").arg("SET");
        step.arg(name).arg(value).plain()
    };
    vec![
        set(
            "zset-max-listpack-entries",
            g.random.pick(&["128", "128", "8", "1"]),
        ),
        set("zset-max-listpack-value", g.random.pick(&["64", "8"])),
    ]
}

pub(super) fn next(g: &mut Generator) -> Step {
    match g.random.below(100) {
        0..16 => add(g),
        16..19 => Step::new("ZINCRBY")
            .arg(g.key())
            .arg(score(g))
            .arg(g.member()),
        19..22 => {
            let members = some_members(g, 5);
            Step::new("ZREM").arg(g.key()).args(members)
        }
        22..24 => Step::new("ZSCORE").arg(g.key()).arg(g.member()),
        24..26 => {
            let members = some_members(g, 5);
            Step::new("ZMSCORE").arg(g.key()).args(members)
        }
        26..28 => Step::new("ZCARD").arg(g.key()),
        28..32 => rank(g),
        32..35 => Step::new("ZCOUNT")
            .arg(g.key())
            .arg(score_bound(g))
            .arg(score_bound(g)),
        35..50 => range(g),
        50..53 => range_store(g),
        53..56 => remove_range(g),
        56..62 => pop(g),
        62..66 => wait(g),
        66..74 => combine(g),
        74..78 => combine_and_store(g),
        78..80 => count_intersection(g),
        80..88 => members(g),
        88..91 => random_member(g),
        91..94 => scan(g),
        94 => big(g),
        95 => Step::new("SADD").arg(g.key()).args(some_members(g, 6)),
        96 => Step::new("DEL").arg(g.key()),
        _ => Step::new("OBJECT").arg("ENCODING").arg(g.key()),
    }
}

fn some_members(g: &mut Generator, most: usize) -> Vec<Vec<u8>> {
    let count = g.random.below(most) + 1;
    (0..count).map(|_| g.member()).collect()
}

/// A score: mostly one that others have, sometimes one that is hard to print, to add or to read.
fn score(g: &mut Generator) -> Vec<u8> {
    match g.random.below(20) {
        0..11 => g.random.between(-5, 20).to_string().into_bytes(),
        11..15 => g.float(),
        15 => g.one_of(&["inf", "-inf", "+inf", "-0", "0", "infinity"]),
        16 | 17 => g.limit_integer(),
        18 => {
            let bits = u64::from_le_bytes(
                g.random
                    .bytes(8)
                    .try_into()
                    .expect("eight bytes were asked for"),
            );
            let number = f64::from_bits(bits);
            if number.is_finite() {
                format!("{number:e}").into_bytes()
            } else {
                b"17".to_vec()
            }
        }
        _ => g.odd_number(),
    }
}

fn add(g: &mut Generator) -> Step {
    let mut step = Step::new("ZADD").arg(g.key());
    if g.chance(50) {
        for word in ["NX", "XX", "GT", "LT", "CH", "INCR"] {
            if g.chance(16) {
                step = step.arg(g.word(word));
            }
        }
    }
    let pairs = if g.chance(40) {
        1
    } else {
        g.random.below(8) + 1
    };
    for _ in 0..pairs {
        step = step.arg(score(g)).arg(g.member());
    }
    step
}

/// Many members at once, past what one piece of memory holds.
fn big(g: &mut Generator) -> Step {
    let mut step = Step::new("ZADD").arg(g.key());
    for _ in 0..g.random.between(100, 400) {
        let member = format!("big{}", g.random.below(3000));
        step = step.int(g.random.between(-50, 50)).arg(member);
    }
    step.plain()
}

fn rank(g: &mut Generator) -> Step {
    let name = g.random.pick(&["ZRANK", "ZREVRANK"]);
    let step = Step::new(name).arg(g.key()).arg(g.member());
    match g.random.below(10) {
        0..4 => step.arg(g.word("WITHSCORE")),
        4 => step.arg(g.one_of(&["WITHSCORES", "WITHSCORE"])),
        _ => step,
    }
}

fn score_bound(g: &mut Generator) -> Vec<u8> {
    match g.random.below(20) {
        0..4 => g.one_of(&["-inf", "+inf", "inf"]),
        4 => g.one_of(&["(-inf", "(+inf", "(inf", "(", "((1", "( 1", "(nan", ""]),
        5..9 => [b"(".to_vec(), score(g)].concat(),
        _ => score(g),
    }
}

fn member_bound(g: &mut Generator) -> Vec<u8> {
    match g.random.below(20) {
        0..3 => b"-".to_vec(),
        3..6 => b"+".to_vec(),
        6..12 => [b"[".to_vec(), g.member()].concat(),
        12..18 => [b"(".to_vec(), g.member()].concat(),
        18 => g
            .random
            .pick(&["[", "(", "-a", "+a", "a", "", "[[", "-inf", "1"])
            .as_bytes()
            .to_vec(),
        _ => g.member(),
    }
}

fn limit(g: &mut Generator) -> Vec<Vec<u8>> {
    let offset = match g.random.below(12) {
        0..9 => g.random.between(0, 8).to_string().into_bytes(),
        9 => g.random.between(0, 300).to_string().into_bytes(),
        _ => g.index(),
    };
    vec![g.word("LIMIT"), offset, g.index()]
}

fn range(g: &mut Generator) -> Step {
    let mut options = Vec::new();
    if g.chance(45) {
        options.push(vec![g.word("WITHSCORES")]);
    }
    match g.random.below(10) {
        0..2 => {
            let step = Step::new("ZRANGE")
                .arg(g.key())
                .arg(g.index())
                .arg(g.index());
            if g.chance(40) {
                options.push(vec![g.word("REV")]);
            }
            if g.chance(8) {
                options.push(limit(g));
            }
            g.options(step, options)
        }
        2..5 => {
            let step = Step::new("ZRANGE").arg(g.key());
            let step = step.arg(score_bound(g)).arg(score_bound(g));
            options.push(vec![g.word("BYSCORE")]);
            if g.chance(40) {
                options.push(vec![g.word("REV")]);
            }
            if g.chance(50) {
                options.push(limit(g));
            }
            if g.chance(3) {
                options.push(vec![g.one_of(&["BYSCORE", "BYLEX", "REV"])]);
            }
            g.options(step, options)
        }
        5 | 6 => {
            let step = Step::new("ZREVRANGE").arg(g.key());
            let step = step.arg(g.index()).arg(g.index());
            g.options(step, options)
        }
        _ => {
            let name = g.random.pick(&["ZRANGEBYSCORE", "ZREVRANGEBYSCORE"]);
            let step = Step::new(name).arg(g.key());
            let step = step.arg(score_bound(g)).arg(score_bound(g));
            if g.chance(50) {
                options.push(limit(g));
            }
            g.options(step, options)
        }
    }
}

fn range_store(g: &mut Generator) -> Step {
    let step = Step::new("ZRANGESTORE").arg(g.key()).arg(g.key());
    let mut options = Vec::new();
    if g.chance(40) {
        options.push(vec![g.word("REV")]);
    }
    if g.chance(3) {
        options.push(vec![g.word("WITHSCORES")]);
    }
    if g.chance(50) {
        let step = step.arg(g.index()).arg(g.index());
        return g.options(step, options);
    }
    let step = step.arg(score_bound(g)).arg(score_bound(g));
    options.push(vec![g.word("BYSCORE")]);
    if g.chance(50) {
        options.push(limit(g));
    }
    g.options(step, options)
}

fn remove_range(g: &mut Generator) -> Step {
    if g.chance(50) {
        let step = Step::new("ZREMRANGEBYRANK").arg(g.key());
        return step.arg(g.index()).arg(g.index());
    }
    let step = Step::new("ZREMRANGEBYSCORE").arg(g.key());
    step.arg(score_bound(g)).arg(score_bound(g))
}

/// Keys of their own, whose members all have the score 0.
fn members(g: &mut Generator) -> Step {
    let key = |g: &mut Generator| format!("lex{}", g.random.below(4));
    match g.random.below(20) {
        0..6 => {
            let mut step = Step::new("ZADD").arg(key(g));
            for _ in 0..=g.random.below(8) {
                step = step.arg("0").arg(g.member());
            }
            step.plain()
        }
        6 => {
            let mut step = Step::new("ZADD").arg(key(g));
            for _ in 0..g.random.between(100, 300) {
                step = step.arg("0").arg(format!("m{}", g.random.below(1000)));
            }
            step.plain()
        }
        7 | 8 => Step::new("ZLEXCOUNT")
            .arg(key(g))
            .arg(member_bound(g))
            .arg(member_bound(g)),
        9 => Step::new("ZREMRANGEBYLEX")
            .arg(key(g))
            .arg(member_bound(g))
            .arg(member_bound(g)),
        10..14 => {
            let name = g.random.pick(&["ZRANGEBYLEX", "ZREVRANGEBYLEX"]);
            let step = Step::new(name).arg(key(g));
            let step = step.arg(member_bound(g)).arg(member_bound(g));
            let mut options = Vec::new();
            if g.chance(50) {
                options.push(limit(g));
            }
            if g.chance(3) {
                options.push(vec![g.word("WITHSCORES")]);
            }
            g.options(step, options)
        }
        14..18 => {
            let step = Step::new("ZRANGE").arg(key(g));
            let step = step.arg(member_bound(g)).arg(member_bound(g));
            let mut options = vec![vec![g.word("BYLEX")]];
            if g.chance(50) {
                options.push(limit(g));
            }
            if g.chance(40) {
                options.push(vec![g.word("REV")]);
            }
            if g.chance(5) {
                options.push(vec![g.word("WITHSCORES")]);
            }
            g.options(step, options)
        }
        18 => Step::new("ZPOPMIN").arg(key(g)).arg(g.count()),
        _ => {
            let step = Step::new("ZRANGESTORE").arg("lexresult").arg(key(g));
            let step = step.arg(member_bound(g)).arg(member_bound(g));
            step.arg(g.word("BYLEX"))
        }
    }
}

fn pop(g: &mut Generator) -> Step {
    let name = g.random.pick(&["ZPOPMIN", "ZPOPMAX", "ZMPOP"]);
    if *name != *"ZMPOP" {
        let step = Step::new(name).arg(g.key());
        return if g.chance(50) {
            step.arg(g.count())
        } else {
            step
        };
    }
    let step = Step::new(name);
    pop_many(g, step)
}

/// The words of ZMPOP after its name.
fn pop_many(g: &mut Generator, step: Step) -> Step {
    let keys = g.some_keys(3);
    let step = step.args(numbered(g, keys)).arg(g.one_of(&["MIN", "MAX"]));
    if g.chance(50) {
        step.arg(g.word("COUNT")).arg(g.count())
    } else {
        step
    }
}

/// How many keys, mostly truthfully, and the keys.
fn numbered(g: &mut Generator, keys: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let count = if g.chance(95) {
        keys.len().to_string().into_bytes()
    } else {
        g.count()
    };
    [vec![count], keys].concat()
}

/// Commands that wait, with timeouts that are refused: a pipeline must not stop.
fn wait(g: &mut Generator) -> Step {
    let bad = ["-1", "abc", "", "nan", "1e400", "-0.1", "inf"];
    let timeout = g.random.pick(&bad).as_bytes().to_vec();
    match g.random.below(3) {
        0 => Step::new("BZPOPMIN").args(g.some_keys(3)).arg(timeout),
        1 => Step::new("BZPOPMAX").args(g.some_keys(3)).arg(timeout),
        _ => pop_many(g, Step::new("BZMPOP").arg(timeout)),
    }
    .plain()
}

fn combine(g: &mut Generator) -> Step {
    let name = g.random.pick(&["ZUNION", "ZINTER", "ZDIFF"]);
    let keys = g.some_keys(4);
    let count = keys.len();
    let step = Step::new(name).args(numbered(g, keys));
    let mut options = weights(g, name, count);
    if g.chance(60) {
        options.push(vec![g.word("WITHSCORES")]);
    }
    g.options(step, options)
}

fn combine_and_store(g: &mut Generator) -> Step {
    let name = g.random.pick(&["ZUNIONSTORE", "ZINTERSTORE", "ZDIFFSTORE"]);
    let keys = g.some_keys(4);
    let count = keys.len();
    let step = Step::new(name).arg(g.key()).args(numbered(g, keys));
    let mut options = weights(g, name, count);
    if g.chance(2) {
        options.push(vec![g.word("WITHSCORES")]);
    }
    g.options(step, options)
}

/// WEIGHTS and AGGREGATE, where the command takes them and now and then where not.
fn weights(g: &mut Generator, name: &str, count: usize) -> Vec<Vec<Vec<u8>>> {
    let mut options = Vec::new();
    if name.starts_with("ZDIFF") && !g.chance(4) {
        return options;
    }
    if g.chance(45) {
        let mut words = vec![g.word("WEIGHTS")];
        words.extend((0..count).map(|_| {
            if g.chance(80) {
                g.random.between(-3, 4).to_string().into_bytes()
            } else {
                score(g)
            }
        }));
        options.push(words);
    }
    if g.chance(45) {
        options.push(vec![
            g.word("AGGREGATE"),
            g.one_of(&["SUM", "MIN", "MAX", "MIN", "MAX", "AVG"]),
        ]);
    }
    options
}

fn count_intersection(g: &mut Generator) -> Step {
    let keys = g.some_keys(3);
    let step = Step::new("ZINTERCARD").args(numbered(g, keys));
    if g.chance(50) {
        step.arg(g.word("LIMIT")).arg(g.count())
    } else {
        step
    }
}

fn random_member(g: &mut Generator) -> Step {
    let step = Step::new("ZRANDMEMBER").arg(g.key());
    match g.random.below(10) {
        0..3 => step.compare(Compare::Shape).plain(),
        3..6 => {
            let step = step.int(g.random.between(-8, 8));
            if g.chance(50) {
                step.arg(g.word("WITHSCORES"))
            } else {
                step
            }
            .compare(Compare::Shape)
            .plain()
        }
        6 | 7 => {
            // More than there are: all of them, in any order.
            let step = step.int(1_000_000);
            step.compare(Compare::Unordered).plain()
        }
        _ => {
            let step = step.arg(g.one_of(&[
                "abc",
                "-9223372036854775808",
                "9223372036854775808",
                "0",
                "",
            ]));
            match g.random.below(3) {
                0 => step.arg(g.one_of(&["WITHSCORES", "WITHSCORE", "COUNT"])),
                1 => step.arg(g.word("WITHSCORES")).arg("1"),
                _ => step,
            }
            .plain()
        }
    }
}

/// Whole scans: a small set answers all its members at once, a large one when asked for enough.
fn scan(g: &mut Generator) -> Step {
    let step = Step::new("ZSCAN").arg(g.key());
    let step = match g.random.below(12) {
        0 => step.arg(g.one_of(&[
            "abc",
            "-1",
            "",
            "1.5",
            "18446744073709551616",
            " 0",
            "+0",
            "00",
        ])),
        _ => step.arg("0"),
    };
    let mut options = vec![vec![g.word("COUNT"), b"1000000".to_vec()]];
    if g.chance(40) {
        options.push(vec![g.word("MATCH"), g.pattern()]);
    }
    let bare = g.chance(40);
    if bare {
        options.push(vec![g.word("NOSCORES")]);
    }
    if g.chance(5) {
        options.push(vec![g.one_of(&["NOVALUES", "COUNT", "TYPE"])]);
    }
    if g.chance(5) {
        options.push(vec![g.word("COUNT"), b"0".to_vec()]);
    }
    g.options(step, options)
        .compare(Compare::Scan(if bare { 1 } else { 2 }))
        .plain()
}
