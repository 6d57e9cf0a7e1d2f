//! SORT over lists, sets and sorted sets, with weights and details in strings and hashes.
//!
//! Equal weights leave the order open, so that sorting by the texts of keys is compared in any order.

use super::{Compare, Generator, Step};

pub(super) fn next(g: &mut Generator) -> Step {
    match g.random.below(100) {
        0..10 => filled(g, "RPUSH", "list"),
        10..15 => filled(g, "SADD", "set"),
        15..20 => ranked(g),
        20..28 => Step::new("SET").arg(named(g, "w_")).arg(weight(g)).plain(),
        28..36 => Step::new("HSET")
            .arg(named(g, "h_"))
            .arg(g.random.pick(&["f", "f", "->"]))
            .arg(weight(g))
            .plain(),
        36..39 => Step::new("DEL").arg(named(g, "w_")).plain(),
        39..42 => Step::new("DEL").arg(source(g)).plain(),
        42..46 => Step::new("LRANGE").arg(target(g)).arg("0").arg("-1"),
        46..49 => Step::new("OBJECT").arg("ENCODING").arg(target(g)),
        49..52 => Step::new("COMMAND")
            .arg("GETKEYS")
            .args(sort(g).args)
            .compare(Compare::Exact)
            .plain(),
        _ => sort(g),
    }
}

/// Without zero bytes: the original compares texts up to the first one.
fn element(g: &mut Generator) -> Vec<u8> {
    if g.chance(95) {
        return g.random.below(30).to_string().into_bytes();
    }
    let value = g.value();
    value.into_iter().filter(|&byte| byte != 0).collect()
}

fn filled(g: &mut Generator, name: &str, keys: &str) -> Step {
    let mut step = Step::new(name).arg(format!("{keys}{}", g.random.below(3)));
    for _ in 0..=g.random.below(12) {
        step = step.arg(element(g));
    }
    step.plain()
}

fn ranked(g: &mut Generator) -> Step {
    let mut step = Step::new("ZADD").arg(format!("zset{}", g.random.below(3)));
    for _ in 0..=g.random.below(6) {
        step = step.int(g.random.between(-5, 5)).arg(element(g));
    }
    step.plain()
}

fn named(g: &mut Generator, prefix: &str) -> Vec<u8> {
    format!("{prefix}{}", g.random.below(30)).into_bytes()
}

/// Mostly numbers, and mostly different ones.
fn weight(g: &mut Generator) -> Vec<u8> {
    match g.random.below(40) {
        0..25 => g.random.between(-1000, 1000).to_string().into_bytes(),
        25..38 => format!("{}.{}", g.random.between(-9, 9), g.random.below(1000)).into_bytes(),
        _ => g.value(),
    }
}

fn source(g: &mut Generator) -> Vec<u8> {
    let kind = g
        .random
        .pick(&["list", "list", "list", "set", "zset", "w_", "target"]);
    format!("{kind}{}", g.random.below(3)).into_bytes()
}

fn target(g: &mut Generator) -> Vec<u8> {
    format!("target{}", g.random.below(3)).into_bytes()
}

fn sort(g: &mut Generator) -> Step {
    let name = g.random.pick(&["SORT", "SORT", "SORT", "SORT_RO"]);
    let source = source(g);
    let (mut options, mut open, mut unsorted) = (Vec::new(), false, false);
    let alpha = g.chance(40);
    if alpha {
        options.push(vec![g.word("ALPHA")]);
    }
    if g.chance(50) {
        let pattern = g
            .random
            .pick(&["w_*", "w_*", "h_*->f", "h_*->", "nosort", "missing_*", "#"]);
        unsorted = !pattern.contains('*');
        open = alpha && !unsorted;
        options.push(vec![g.word("BY"), pattern.as_bytes().to_vec()]);
    }
    // With the order open, a limit would leave the elements open too.
    let sets_order = unsorted && source.starts_with(b"set");
    if !open && !sets_order && g.chance(40) {
        options.push(vec![g.word("LIMIT"), g.index(), g.index()]);
    }
    if !open {
        for _ in 0..g.random.below(3) {
            let pattern = g
                .random
                .pick(&["#", "w_*", "h_*->f", "h_*->->", "constant", "*", "x*y->z"]);
            options.push(vec![g.word("GET"), pattern.as_bytes().to_vec()]);
        }
        if name == "SORT" && g.chance(30) {
            options.push(vec![g.word("STORE"), target(g)]);
        }
    }
    if g.chance(40) {
        options.push(vec![g.one_of(&["ASC", "DESC"])]);
    }
    let step = Step::new(name).arg(source);
    let mut step = g.options(step, options);
    if g.chance(3) {
        step = step.arg(g.one_of(&["BY", "GET", "STORE", "LIMIT", "WITHSCORES"]));
    }
    if open || sets_order {
        step.compare(Compare::Unordered).plain()
    } else {
        step.plain()
    }
}
