//! Commands on keys of any type: existence, deadlines, renames, copies, patterns, sorting.

use super::{Compare, Generator, Step};

/// SORT turns a sorted set of Valkey's into a skiplist for good, which Ferrite does not imitate: here all are skiplists.
pub(super) fn prelude(_: &mut Generator) -> Vec<Step> {
    let setting = Step::new("CONFIG")
        .arg("SET")
        .arg("zset-max-listpack-entries")
        .arg("0");
    vec![setting.plain()]
}

pub(super) fn next(g: &mut Generator) -> Step {
    match g.random.below(100) {
        0..14 => create(g),
        14..17 => {
            let keys = g.some_keys(4);
            Step::new("DEL").args(keys)
        }
        17 => {
            let keys = g.some_keys(4);
            Step::new("UNLINK").args(keys)
        }
        18..20 => {
            let keys = g.some_keys(4);
            Step::new("EXISTS").args(keys)
        }
        20..22 => {
            let keys = g.some_keys(4);
            Step::new("TOUCH").args(keys)
        }
        22..25 => Step::new("TYPE").arg(g.key()),
        25..45 => expire(g),
        45..48 => Step::new("TTL").arg(g.key()).compare(Compare::Near(3)),
        48..50 => Step::new("PTTL").arg(g.key()).compare(Compare::Near(3000)),
        50..52 => Step::new("EXPIRETIME")
            .arg(g.key())
            .compare(Compare::Near(3)),
        52..54 => Step::new("PEXPIRETIME")
            .arg(g.key())
            .compare(Compare::Near(3000)),
        54..57 => Step::new("PERSIST").arg(g.key()),
        57..61 => Step::new("RENAME").arg(g.key()).arg(g.key()),
        61..64 => Step::new("RENAMENX").arg(g.key()).arg(g.key()),
        64..70 => copy(g),
        70..72 => Step::new("MOVE").arg(g.key()).arg(database(g)),
        72 => Step::new("SELECT").arg(database(g)),
        73..75 => Step::new("KEYS")
            .arg(g.pattern())
            .compare(Compare::Unordered),
        75..78 => scan(g),
        78 => Step::new("DBSIZE"),
        79 => Step::new("RANDOMKEY").compare(Compare::Shape),
        80..85 => object(g),
        85..96 => sort(g),
        96 if g.chance(10) => Step::new("SWAPDB").arg(database(g)).arg(database(g)),
        96 if g.chance(5) => Step::new(if g.chance(50) { "FLUSHDB" } else { "FLUSHALL" }).plain(),
        97 if g.chance(10) => Step::new("FLUSHDB").arg(g.one_of(&["SYNC", "ASYNC", "NOW"])),
        97 => Step::new("DUMP").arg(g.key()).compare(Compare::Shape),
        98 => Step::new("RESTORE")
            .arg(g.key())
            .arg(g.milliseconds())
            .arg("not a payload"),
        _ => Step::new("WAIT").arg("0").arg("1").plain(),
    }
}

fn database(g: &mut Generator) -> Vec<u8> {
    if g.chance(90) {
        g.random.below(3).to_string().into_bytes()
    } else {
        g.random
            .pick(&[
                "15",
                "16",
                "-1",
                "abc",
                "",
                "9223372036854775807",
                "4294967296",
                "01",
                "1.5",
            ])
            .as_bytes()
            .to_vec()
    }
}

/// Keys of every type, with numbers among the elements so that SORT has something to do.
fn create(g: &mut Generator) -> Step {
    let key = g.key();
    let mut elements: Vec<Vec<u8>> = Vec::new();
    for _ in 0..=g.random.below(5) {
        elements.push(if g.chance(80) {
            g.random.between(-20, 40).to_string().into_bytes()
        } else {
            g.member()
        });
    }
    match g.random.below(12) {
        0..4 => Step::new("SET").arg(key).arg(g.value()),
        4..6 => Step::new("RPUSH").arg(key).args(elements),
        6..8 => Step::new("SADD").arg(key).args(elements),
        8..10 => {
            let mut step = Step::new("ZADD").arg(key);
            for element in elements {
                step = step.int(g.random.between(-9, 9)).arg(element);
            }
            step
        }
        _ => {
            let mut step = Step::new("HSET").arg(key);
            for element in elements {
                step = step.arg(element).arg(g.value());
            }
            step
        }
    }
}

fn expire(g: &mut Generator) -> Step {
    let (name, time) = match g.random.below(4) {
        0 => ("EXPIRE", g.seconds()),
        1 => ("PEXPIRE", g.milliseconds()),
        2 => ("EXPIREAT", g.unix_seconds()),
        _ => ("PEXPIREAT", g.unix_milliseconds()),
    };
    let mut step = Step::new(name).arg(g.key()).arg(time);
    while g.chance(35) {
        step = step.arg(g.one_of(&["NX", "XX", "GT", "LT", "GT", "LT", "AB"]));
    }
    step
}

fn copy(g: &mut Generator) -> Step {
    let step = Step::new("COPY").arg(g.key()).arg(g.key());
    let mut options = Vec::new();
    if g.chance(30) {
        options.push(vec![g.word("DB"), database(g)]);
    }
    if g.chance(50) {
        options.push(vec![g.word("REPLACE")]);
    }
    g.options(step, options)
}

/// One pass over everything: the cursors in between are each server's own.
fn scan(g: &mut Generator) -> Step {
    if g.chance(10) {
        let cursor = g
            .random
            .pick(&["abc", "-1", "", "18446744073709551616", "1.5"]);
        return Step::new("SCAN").arg(cursor).plain();
    }
    let mut options = vec![vec![g.word("COUNT"), b"100000".to_vec()]];
    if g.chance(50) {
        options.push(vec![g.word("MATCH"), g.pattern()]);
    }
    if g.chance(40) {
        options.push(vec![
            g.word("TYPE"),
            g.one_of(&["string", "list", "set", "hash", "zset", "stream", "nothing"]),
        ]);
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
    if g.chance(3) {
        options.push(vec![
            g.random
                .pick(&["NOVALUES", "MATCH", "ABC"])
                .as_bytes()
                .to_vec(),
        ]);
    }
    let step = Step::new("SCAN").arg("0").compare(Compare::Scan(1)).plain();
    g.options(step, options)
}

fn object(g: &mut Generator) -> Step {
    let key = g.key();
    match g.random.below(10) {
        0..5 => Step::new("OBJECT").arg(g.word("ENCODING")).arg(key),
        5 => Step::new("OBJECT").arg(g.word("FREQ")).arg(key),
        6 => Step::new("OBJECT")
            .arg(g.word("REFCOUNT"))
            .arg(key)
            .compare(Compare::Shape),
        7 => Step::new("OBJECT").arg("NONSENSE").arg(key),
        _ => Step::new("OBJECT")
            .arg(g.word("IDLETIME"))
            .arg(key)
            .compare(Compare::Near(30)),
    }
}

/// Where the order is not defined (`BY nosort` on sets, equal weights under ALPHA), elements are compared in any order
/// and neither limited nor stored.
fn sort(g: &mut Generator) -> Step {
    let name = if g.chance(80) { "SORT" } else { "SORT_RO" };
    let step = Step::new(name).arg(g.key());
    let mut options = Vec::new();
    let alpha = g.chance(40);
    if alpha {
        options.push(vec![g.word("ALPHA")]);
    }
    let mut ordered = true;
    if g.chance(30) {
        let by = g.random.pick(&["nosort", "k*", "k*->1", "w_*", "k1", "*"]);
        ordered = !alpha && *by != *"nosort";
        options.push(vec![g.word("BY"), by.as_bytes().to_vec()]);
    }
    let gets = if g.chance(30) {
        g.random.below(3) + 1
    } else {
        0
    };
    let mut get_words = Vec::new();
    for _ in 0..gets {
        get_words.push(g.word("GET"));
        get_words.push(
            g.random
                .pick(&["#", "k*", "k*->1", "w_*", "k1", "k*->"])
                .as_bytes()
                .to_vec(),
        );
    }
    if !get_words.is_empty() {
        options.push(get_words);
    }
    if g.chance(40) {
        options.push(vec![g.one_of(&["ASC", "DESC"])]);
    }
    if ordered && g.chance(30) {
        options.push(vec![g.word("LIMIT"), g.index(), g.index()]);
    }
    if ordered && g.chance(25) {
        options.push(vec![g.word("STORE"), g.key()]);
    }
    let compare = match (ordered, gets) {
        (true, _) => Compare::Exact,
        (false, 0 | 1) => Compare::Unordered,
        (false, 2) => Compare::UnorderedPairs,
        (false, _) => Compare::Shape,
    };
    let step = g.options(step, options).compare(compare);
    if ordered { step } else { step.plain() }
}
