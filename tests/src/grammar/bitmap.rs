//! The bitmap commands.

use super::{Generator, Step};

pub(super) fn next(g: &mut Generator) -> Step {
    match g.random.below(100) {
        0..20 => Step::new("SETBIT")
            .arg(g.key())
            .arg(offset(g))
            .arg(bit(g))
            .plain(),
        20..30 => Step::new("GETBIT").arg(g.key()).arg(offset(g)),
        30..42 => bitcount(g),
        42..54 => bitpos(g),
        54..66 => bitop(g),
        66..86 => bitfield(g),
        86..90 => bitfield_ro(g),
        90..93 => Step::new("SET").arg(g.key()).arg(g.value()),
        93 => Step::new("APPEND").arg(g.key()).arg(g.value()),
        94 => Step::new("DEL").arg(g.key()),
        95 => Step::new("STRLEN").arg(g.key()),
        96 => Step::new("GET").arg(g.key()),
        97 => Step::new("OBJECT").arg("ENCODING").arg(g.key()),
        _ => {
            let len = g.random.below(40);
            let bytes = g.random.bytes(len);
            Step::new("SET").arg(g.key()).arg(bytes)
        }
    }
}

fn offset(g: &mut Generator) -> Vec<u8> {
    match g.random.below(40) {
        0..33 => g.random.between(0, 200).to_string().into_bytes(),
        33..36 => g.random.between(200, 20_000).to_string().into_bytes(),
        36 => b"-1".to_vec(),
        37 => b"4294967296".to_vec(),
        38 => b"9223372036854775807".to_vec(),
        _ => g
            .random
            .pick(&["abc", "", "1.5", " 1", "#1", "01", "18446744073709551616"])
            .as_bytes()
            .to_vec(),
    }
}

fn bit(g: &mut Generator) -> Vec<u8> {
    if g.chance(95) {
        g.random.pick(&["0", "1", "1"]).as_bytes().to_vec()
    } else {
        g.random
            .pick(&["2", "-1", "01", "x", ""])
            .as_bytes()
            .to_vec()
    }
}

fn bitcount(g: &mut Generator) -> Step {
    let step = Step::new("BITCOUNT").arg(g.key());
    match g.random.below(10) {
        0..3 => step,
        3 => step.arg(g.index()),
        4..7 => step.arg(g.index()).arg(g.index()),
        _ => step
            .arg(g.index())
            .arg(g.index())
            .arg(g.one_of(&["BYTE", "BIT", "BIT", "BITS"])),
    }
}

fn bitpos(g: &mut Generator) -> Step {
    let step = Step::new("BITPOS").arg(g.key()).arg(bit(g));
    match g.random.below(10) {
        0..3 => step,
        3..5 => step.arg(g.index()),
        5..7 => step.arg(g.index()).arg(g.index()),
        _ => step
            .arg(g.index())
            .arg(g.index())
            .arg(g.one_of(&["BYTE", "BIT", "BIT", "BITS"])),
    }
}

fn bitop(g: &mut Generator) -> Step {
    let operation = g.one_of(&["AND", "OR", "XOR", "NOT", "NOT", "DIFF", "ONE", "NAND"]);
    let sources = if operation.eq_ignore_ascii_case(b"NOT") && g.chance(85) {
        vec![g.key()]
    } else {
        g.some_keys(5)
    };
    Step::new("BITOP").arg(operation).arg(g.key()).args(sources)
}

fn encoding(g: &mut Generator) -> Vec<u8> {
    match g.random.below(12) {
        0..5 => format!("u{}", g.random.between(1, 63)).into_bytes(),
        5..10 => format!("i{}", g.random.between(1, 64)).into_bytes(),
        10 => g
            .random
            .pick(&["u8", "i8", "u16", "i64", "u63", "U8", "I8"])
            .as_bytes()
            .to_vec(),
        _ => g
            .random
            .pick(&[
                "u64",
                "i65",
                "u0",
                "i0",
                "x8",
                "u",
                "",
                "8",
                "u-1",
                "i08",
                "u8 ",
                "i9999999999",
            ])
            .as_bytes()
            .to_vec(),
    }
}

fn field_offset(g: &mut Generator) -> Vec<u8> {
    match g.random.below(20) {
        0..12 => g.random.between(0, 200).to_string().into_bytes(),
        12..18 => format!("#{}", g.random.between(0, 20)).into_bytes(),
        18 => g
            .random
            .pick(&[
                "4294967295",
                "4294967296",
                "-1",
                "#-1",
                "9223372036854775807",
                "#9223372036854775807",
            ])
            .as_bytes()
            .to_vec(),
        _ => g
            .random
            .pick(&["", "#", "abc", "1.5", "##1", " 1", "#288230376151711744"])
            .as_bytes()
            .to_vec(),
    }
}

/// Near the end of what may be addressed only for reading: writing there would really take the memory.
fn safe_field_offset(g: &mut Generator) -> Vec<u8> {
    let offset = field_offset(g);
    if offset == b"4294967295" {
        b"4294967296".to_vec()
    } else {
        offset
    }
}

fn bitfield(g: &mut Generator) -> Step {
    let mut step = Step::new("BITFIELD").arg(g.key());
    for _ in 0..g.random.below(5) {
        step = match g.random.below(10) {
            0..3 => step
                .arg(g.word("GET"))
                .arg(encoding(g))
                .arg(safe_field_offset(g)),
            3..6 => step
                .arg(g.word("SET"))
                .arg(encoding(g))
                .arg(safe_field_offset(g))
                .arg(g.integer()),
            6..9 => step
                .arg(g.word("INCRBY"))
                .arg(encoding(g))
                .arg(safe_field_offset(g))
                .arg(g.integer()),
            _ => step
                .arg(g.word("OVERFLOW"))
                .arg(g.one_of(&["WRAP", "SAT", "FAIL", "FAIL", "NONE"])),
        };
    }
    step.plain()
}

fn bitfield_ro(g: &mut Generator) -> Step {
    let mut step = Step::new("BITFIELD_RO").arg(g.key());
    for _ in 0..g.random.below(4) {
        step = step
            .arg(g.word("GET"))
            .arg(encoding(g))
            .arg(field_offset(g));
    }
    if g.chance(5) {
        step.arg("SET").arg("u8").arg("0").arg("1")
    } else {
        step
    }
}
