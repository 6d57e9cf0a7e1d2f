//! The HyperLogLog commands; the strings are compared byte for byte.

use super::{Generator, Step};

pub(super) fn next(g: &mut Generator) -> Step {
    match g.random.below(100) {
        0..35 => add(g),
        35..40 => many(g),
        40..52 => Step::new("PFCOUNT").arg(g.key()),
        52..58 => {
            let keys = g.some_keys(4);
            Step::new("PFCOUNT").args(keys)
        }
        58..68 => {
            let keys = g.some_keys(4);
            Step::new("PFMERGE").args(keys)
        }
        68..76 => Step::new("GET").arg(g.key()),
        76..90 => debug(g),
        90..93 => spoil(g),
        93..96 => Step::new("DEL").arg(g.key()),
        96 => Step::new("STRLEN").arg(g.key()),
        97 => Step::new("COPY").arg(g.key()).arg(g.key()).arg("REPLACE"),
        _ => Step::new("OBJECT").arg("ENCODING").arg(g.key()),
    }
}

fn add(g: &mut Generator) -> Step {
    let mut step = Step::new("PFADD").arg(g.key());
    for _ in 0..g.random.below(6) {
        step = step.arg(g.value());
    }
    step
}

/// Enough elements to leave the sparse form.
fn many(g: &mut Generator) -> Step {
    let mut step = Step::new("PFADD").arg(g.key());
    let start = g.random.below(100_000);
    for number in 0..*g.random.pick(&[&50, &500, &2000]) {
        step = step.arg(format!("element:{}", start + number));
    }
    step.plain()
}

fn debug(g: &mut Generator) -> Step {
    let what = g.random.pick(&[
        "ENCODING", "ENCODING", "DECODE", "DECODE", "DECODE", "GETREG", "TODENSE", "nothing",
    ]);
    let key = key(g, false);
    Step::new("PFDEBUG").arg(g.word(what)).arg(key).plain()
}

/// Some keys may be spoilt, and others looked into: PFDEBUG DECODE of Valkey's does not tell that registers are missing.
fn key(g: &mut Generator, spoilt: bool) -> Vec<u8> {
    loop {
        let key = g.key();
        if key.ends_with(b"0") == spoilt {
            return key;
        }
    }
}

/// Another byte somewhere in the string: what cannot be a HyperLogLog any more must be refused.
fn spoil(g: &mut Generator) -> Step {
    let offset = *g
        .random
        .pick(&[&0, &3, &4, &8, &15, &16, &17, &18, &20, &30]);
    let byte = *g.random.pick(&[&0_u8, &1, &2, &0x80, &0xff, &b'H']);
    Step::new("SETRANGE")
        .arg(key(g, true))
        .int(offset)
        .arg([byte])
        .plain()
}
