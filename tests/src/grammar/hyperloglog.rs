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
    Step::new("PFDEBUG").arg(g.word(what)).arg(g.key()).plain()
}

/// What cannot be a HyperLogLog any more, or is another one: another byte in the header, codes behind the last, or
/// codes of our own.
///
/// Every code is whole: Valkey reads, and later writes, beyond the end of a string that ends within one. So the byte
/// for the encoding is never that of a sparse string, which would turn registers into codes.
fn spoil(g: &mut Generator) -> Step {
    match g.random.below(4) {
        0 => {
            let offset = *g.random.pick(&[&0, &3, &8, &14, &15]);
            let byte = *g.random.pick(&[&0_u8, &1, &2, &0x80, &0xff, &b'H']);
            Step::new("SETRANGE").arg(g.key()).int(offset).arg([byte])
        }
        1 => {
            let byte = *g.random.pick(&[&0_u8, &2, &0xff]);
            Step::new("SETRANGE").arg(g.key()).int(4).arg([byte])
        }
        2 => Step::new("APPEND").arg(g.key()).arg(codes(g)),
        _ => {
            let mut bytes = b"HYLL\x01\0\0\0".to_vec();
            bytes.extend_from_slice(g.random.pick(&[&[0; 8], &[1, 0, 0, 0, 0, 0, 0, 0x80]]));
            bytes.extend(codes(g));
            Step::new("SET").arg(g.key()).arg(bytes)
        }
    }
    .plain()
}

/// Some runs, mostly for fewer registers than there are, sometimes for more.
fn codes(g: &mut Generator) -> Vec<u8> {
    let mut codes = Vec::new();
    for _ in 0..g.random.below(12) {
        let byte = g.random.below(256) as u8;
        match g.random.below(4) {
            0 => codes.push(byte & 0x3f),
            1 => codes.extend([0x40 | byte & 0x0f, g.random.below(256) as u8]),
            _ => codes.push(0x80 | byte),
        }
    }
    if g.chance(50) {
        codes.extend([0x7f, 0xff]);
    }
    codes
}
