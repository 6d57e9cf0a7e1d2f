//! DUMP and RESTORE: payloads of a real server, whole and damaged, with every option.

use super::{Compare, Generator, Step};

/// What a real server returned for values in each of its encodings.
const PAYLOADS: &[&[u8]] = &[
    // c
    b"\x00\xc3\x0d\x41\x90\x02\x61\x62\x61\xe0\xff\x01\xe0\x7a\x01\x01\x61\x62\x50\x00\xf0\x29\xa8\x05\xad\x8f\xea\x6e",
    // h
    b"\x10\x0c\x0c\x00\x00\x00\x02\x00\x81\x61\x02\x01\x01\xff\x50\x00\x4b\x8c\x5a\x79\x34\x45\x83\x2f",
    // h2
    b"\x04\x01\x01\x66\xc3\x09\x40\x64\x01\x78\x78\xe0\x57\x00\x01\x78\x78\x50\x00\x9d\x3b\xb1\x40\xeb\xfb\xc8\xe7",
    // hx
    b"\x16\x02\x01\x61\xc0\x01\x00\x40\x94\x52\xa3\x03\x00\x00\x01\x62\xc0\x02\xff\xff\xff\xff\xff\xff\xff\xff\x50\x00\xd7\xc8\xef\xad\x4b\x63\x2b\xce",
    // i
    b"\x0b\x0e\x02\x00\x00\x00\x03\x00\x00\x00\x01\x00\x02\x00\x03\x00\x50\x00\x6a\x28\x95\x73\xf3\x3c\x2a\xef",
    // l
    b"\x12\x01\x02\x0f\x0f\x00\x00\x00\x03\x00\x81\x61\x02\x01\x01\xdf\xfb\x02\xff\x50\x00\x60\x1d\x89\xaa\x1b\xac\x32\xcd",
    // n
    b"\x00\xc0\x0c\x50\x00\xf3\x00\x31\xc0\xc2\x56\xdb\x21",
    // s
    b"\x00\x05\x68\x65\x6c\x6c\x6f\x50\x00\xac\x58\x16\xe7\xfb\x66\x47\xfe",
    // t
    b"\x14\x0d\x0d\x00\x00\x00\x02\x00\x81\x61\x02\x81\x62\x02\xff\x50\x00\xac\x19\x7e\x56\x2a\x6e\x58\x29",
    // t2
    b"\x02\x04\xc0\x00\xc0\x01\xc0\x02\xc3\x09\x40\x46\x01\x7a\x7a\xe0\x39\x00\x01\x7a\x7a\x50\x00\x9d\x7e\x98\xe5\x52\xc0\xec\x21",
    // z
    b"\x11\x14\x14\x00\x00\x00\x04\x00\x81\x61\x02\x01\x01\x81\x62\x02\x83\x32\x2e\x35\x04\xff\x50\x00\x1b\x66\xa7\x35\x68\x16\xbe\x23",
    // z2
    b"\x05\x01\xc3\x09\x40\x46\x01\x78\x78\xe0\x39\x00\x01\x78\x78\x00\x00\x00\x00\x00\x00\xf0\x3f\x50\x00\x46\x3f\x90\xac\x5c\xba\xe6\x55",
];

/// Bytes of version and checksum at a payload's end.
const FOOT: usize = 10;

pub(super) fn next(g: &mut Generator) -> Step {
    match g.random.below(100) {
        0..60 => restore(g),
        60..70 => Step::new("DUMP").arg(g.key()).compare(Compare::Shape),
        70..75 => Step::new("TYPE").arg(g.key()),
        75..80 => Step::new("PEXPIRETIME")
            .arg(g.key())
            .compare(Compare::Near(3000)),
        80..85 => Step::new("OBJECT")
            .arg("IDLETIME")
            .arg(g.key())
            .compare(Compare::Near(30))
            .plain(),
        85..90 => Step::new("SET").arg(g.key()).arg(g.value()),
        _ => Step::new("DEL").arg(g.key()),
    }
}

fn restore(g: &mut Generator) -> Step {
    let payload = payload(g);
    let ttl = match g.random.below(10) {
        0..4 => b"0".to_vec(),
        4..7 => g.milliseconds(),
        7..9 => g.unix_milliseconds(),
        _ => g.one_of(&["9223372036854775807", "-1", "1.5", "abc", ""]),
    };
    let name = if g.chance(95) {
        "RESTORE"
    } else {
        "RESTORE-ASKING"
    };
    let step = Step::new(name).arg(g.key()).arg(ttl).arg(payload);
    let mut options = Vec::new();
    if g.chance(60) {
        options.push(vec![g.word("REPLACE")]);
    }
    if g.chance(30) {
        options.push(vec![g.word("ABSTTL")]);
    }
    if g.chance(15) {
        let seconds = g.one_of(&["0", "1000", "30000", "-1", "abc", "", "9223372036854775808"]);
        options.push(vec![g.word("IDLETIME"), seconds]);
    }
    if g.chance(10) {
        let frequency = g.one_of(&["0", "1", "255", "256", "-1", "abc", "1.5"]);
        options.push(vec![g.word("FREQ"), frequency]);
    }
    if g.chance(3) {
        options.push(vec![g.one_of(&["KEEPTTL", "IDLETIME", "FREQ", ""])]);
    }
    g.options(step, options).plain()
}

fn payload(g: &mut Generator) -> Vec<u8> {
    let mut payload = g.random.pick(PAYLOADS).to_vec();
    let len = payload.len();
    match g.random.below(20) {
        // A bit changed on the way.
        0 | 1 => payload[g.random.below(len)] ^= 1 << g.random.below(8),
        // The end missing.
        2 => payload.truncate(g.random.below(len)),
        // Another version, and a checksum that does not count.
        3 | 4 => {
            payload[len - FOOT] = [0, 1, 6, 11, 12, 13, 79, 80, 81, 255][g.random.below(10)];
            payload[len - 8..].fill(0);
        }
        _ => {}
    }
    payload
}
