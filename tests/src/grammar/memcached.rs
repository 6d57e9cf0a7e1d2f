//! The memcached text protocol: classic and meta commands.
//!
//! CAS values that a server chooses are masked before comparing, so the grammar sets and tests explicit ones, far above
//! any server's counter. Invalidated and to-be-recached items depend on nothing but the commands, so those states are
//! explored too.
//!
//! Left out is what memcached does by accident of its insides, which docs/compatibility.md tells: how it shows a key that
//! was stored in base64 and is fetched without or the other way round, remaining times of what has expired, an opaque
//! that is too long for a request that has changed something already, E and T of a number that has grown, and E of an
//! `ms` that is refused for its data.
//!
//! Arithmetic is apart and runs without pipelining: memcached pads a shrinking number with spaces, or not if an earlier
//! reply still refers to the item, which in a pipeline is a matter of chance.

use super::{Compare, Generator, Step};

pub(super) fn next(g: &mut Generator) -> Step {
    let request = match g.random.below(100) {
        0..20 => store(g),
        20..28 => get(g),
        28..34 => get_and_touch(g),
        34..39 => line(g, "delete"),
        39..42 => format!("touch {} {}{}\r\n", text_key(g), exptime(g), noreply(g)).into_bytes(),
        42..62 => meta_get(g),
        62..84 => meta_set(g),
        84..94 => meta_delete(g),
        94..96 => format!("me {}\r\n", text_key(g)).into_bytes(),
        96 => administration(g),
        _ => nonsense(g),
    };
    step(request)
}

/// Numbers, and whatever else may have been stored before.
pub(super) fn next_arithmetic(g: &mut Generator) -> Step {
    let request = match g.random.below(100) {
        0..35 => arithmetic(g),
        35..75 => meta_arithmetic(g),
        75..80 => meta_get(g),
        _ => return next(g),
    };
    step(request)
}

fn step(request: Vec<u8>) -> Step {
    Step {
        args: vec![request],
        compare: Compare::Exact,
        mutable: false,
    }
}

/// For the classic commands that read: to one with a key that is too long memcached says one line end too many.
fn short_key(g: &mut Generator) -> String {
    loop {
        let key = String::from_utf8(g.key()).expect("the keys are text");
        if !is_binary(&key) {
            return key;
        }
    }
}

/// memcached remembers of each item whether its key came in base64 last time it was stored, and shows it so; here some
/// keys always come so, the others never.
fn is_binary(key: &str) -> bool {
    key.ends_with(['3', '6'])
}

fn text_key(g: &mut Generator) -> String {
    if g.chance(98) {
        return short_key(g);
    }
    let len = g.random.pick(&[&249_usize, &250, &251, &300]);
    "l".repeat(*len)
}

fn noreply(g: &mut Generator) -> &'static str {
    if g.chance(10) { " noreply" } else { "" }
}

fn exptime(g: &mut Generator) -> String {
    let times = [
        "0",
        "0",
        "0",
        "5500",
        "55000",
        "550000",
        "-1",
        "2592000",
        "1999999999",
        "abc",
        "",
        "-2147483648",
        "4294967295",
        "4295022296",
    ];
    g.random.pick(&times).to_owned()
}

fn client_flags(g: &mut Generator) -> String {
    let flags = [
        "0",
        "0",
        "100000",
        "5",
        "65535",
        "65536",
        "4294967295",
        "4294967296",
        "-1",
        "abc",
    ];
    let bound = if g.chance(95) { 7 } else { flags.len() };
    flags[g.random.below(bound)].to_owned()
}

/// A data block without line feeds that could pass for the end of an exchange.
fn data(g: &mut Generator) -> Vec<u8> {
    match g.random.below(20) {
        0..8 => g.random.between(0, 30).to_string().into_bytes(),
        8 => g
            .random
            .pick(&[
                "18446744073709551615",
                "18446744073709551614",
                "18446744073709551616",
                "99999999999999999999",
            ])
            .as_bytes()
            .to_vec(),
        9 => g
            .random
            .pick(&["9 ", " 9", "-5", "1.5", "007", "12abc", "0", "100", "1000"])
            .as_bytes()
            .to_vec(),
        10..15 => g
            .random
            .pick(&["a", "bb", "some text", "VALUE x 0 0", "END", "get a"])
            .as_bytes()
            .to_vec(),
        15 => Vec::new(),
        16 => b"a\r\nb\0c\r\n".to_vec(),
        17 => vec![b'v'; g.random.between(30, 1500) as usize],
        _ => vec![b'x'; g.random.below(60)],
    }
}

/// The announced length is sometimes wrong by one, or no length at all; data then becomes commands, on both servers
/// alike. The padding keeps the command after it out of this.
fn with_data(g: &mut Generator, head: &str, tail: &str) -> Vec<u8> {
    let fault = g.random.below(NO_FAULT + 1);
    with_data_and_fault(g, head, tail, fault)
}

/// A fault of [`with_data_and_fault`] that is none.
const NO_FAULT: usize = 99;

fn with_data_and_fault(g: &mut Generator, head: &str, tail: &str, fault: usize) -> Vec<u8> {
    let data = data(g);
    let (len, padding) = match fault {
        0 => ((data.len() + 1).to_string(), "padding\r\n"),
        1 => (data.len().saturating_sub(1).to_string(), "padding\r\n"),
        2 => (
            g.random
                .pick(&["-1", "abc", "", "4294967296", "18446744073709551616"])
                .to_owned(),
            "padding\r\n",
        ),
        _ => (data.len().to_string(), ""),
    };
    let mut request = format!("{head} {len}{tail}\r\n").into_bytes();
    request.extend_from_slice(&data);
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(padding.as_bytes());
    request
}

fn store(g: &mut Generator) -> Vec<u8> {
    if g.random.below(300) == 0 {
        return large(g);
    }
    let verb = g.random.pick(&[
        "set", "set", "set", "add", "replace", "append", "prepend", "cas",
    ]);
    let head = format!("{verb} {} {} {}", text_key(g), client_flags(g), exptime(g));
    let tail = if *verb == *"cas" {
        format!(" {}", cas(g))
    } else {
        String::new()
    };
    let tail = format!("{tail}{}", noreply(g));
    with_data(g, &head, &tail)
}

/// Nothing wrong with the line: a long data block that is not taken as one would be an endless line, whose fate depends
/// on how much of it the server happens to read at once.
fn large(g: &mut Generator) -> Vec<u8> {
    // Two of the fourth kind, one appended to the other, are no item any more.
    let len = *g
        .random
        .pick(&[&70_000, &20_000, &4_000, &600_000, &(1024 * 1024 + 1)]);
    let key = short_key(g);
    let head = match g.random.below(4) {
        0 => format!("append {key} 0 0 {len}\r\n"),
        1 => format!("prepend {key} 0 0 {len}\r\n"),
        2 => format!("ms {key} {len} M{} s\r\n", g.random.pick(&["A", "P"])),
        _ => format!("set {key} 0 0 {len}\r\n"),
    };
    [head.as_bytes(), &vec![b'w'; len], b"\r\n"].concat()
}

fn cas(g: &mut Generator) -> String {
    if g.chance(95) {
        (1_000_000_000_000_000_000 + g.random.below(4)).to_string()
    } else {
        g.random
            .pick(&["18446744073709551615", "18446744073709551616", "abc", "-1"])
            .to_owned()
    }
}

fn get(g: &mut Generator) -> Vec<u8> {
    let mut line = g.random.pick(&["get", "gets"]).to_owned();
    for _ in 0..=g.random.below(6) {
        line.push(' ');
        line.push_str(&short_key(g));
    }
    line.push_str("\r\n");
    line.into_bytes()
}

fn get_and_touch(g: &mut Generator) -> Vec<u8> {
    let mut line = format!("{} {}", g.random.pick(&["gat", "gats"]), exptime(g));
    for _ in 0..=g.random.below(3) {
        line.push(' ');
        line.push_str(&short_key(g));
    }
    line.push_str("\r\n");
    line.into_bytes()
}

/// What changes nothing but the items, and is answered the same whatever went before.
fn administration(g: &mut Generator) -> Vec<u8> {
    let lines = [
        "verbosity 0",
        "verbosity",
        "verbosity x",
        "flush_all",
        "flush_all 0",
        "flush_all x",
        "cache_memlimit 7",
        "cache_memlimit x",
        "cache_memlimit 4294967296",
        "cache_memlimit 1000000001",
        "cache_memlimit 64",
        "lru tune 40 41 1 1",
        "lru tune 10 10 0 1",
        "lru tune 10 10 1",
        "lru bogus",
        "lru_crawler sleep 1000001",
        "lru_crawler sleep x",
        "lru_crawler tocrawl x",
        "lru_crawler bogus",
        "slabs automove 3",
        "slabs automove x",
        "slabs automove window 2",
        "slabs automove window 10000",
        "slabs bogus",
        "stats bogus",
        "stats detail bogus",
    ];
    let line = g.random.pick(&lines).to_owned();
    // `stats` knows no `noreply`.
    let noreply = if line.starts_with("stats") {
        ""
    } else {
        noreply(g)
    };
    format!("{line}{noreply}\r\n").into_bytes()
}

fn line(g: &mut Generator, verb: &str) -> Vec<u8> {
    let extra = g
        .random
        .pick(&["", "", "", "", " 0", " 1", " noreply", " 0 noreply", " abc"]);
    format!("{verb} {}{extra}\r\n", text_key(g)).into_bytes()
}

fn delta(g: &mut Generator) -> String {
    if g.chance(85) {
        g.random.below(30).to_string()
    } else {
        g.random
            .pick(&[
                "18446744073709551615",
                "18446744073709551616",
                "-1",
                "abc",
                "9223372036854775808",
                "",
            ])
            .to_owned()
    }
}

fn arithmetic(g: &mut Generator) -> Vec<u8> {
    let verb = g.random.pick(&["incr", "decr"]);
    format!("{verb} {} {}{}\r\n", text_key(g), delta(g), noreply(g)).into_bytes()
}

/// Flags common to all meta commands, in any order, some twice, some unknown.
fn flags(g: &mut Generator, own: &[&str]) -> String {
    flags_with_opaques(g, own, &["abc", "12345", "", TOO_LONG, TOO_LONGER])
}

const SHORT_OPAQUES: &[&str] = &["abc", "12345", ""];
const TOO_LONG: &str = "12345678901234567890123456789012";
const TOO_LONGER: &str = "123456789012345678901234567890123";

fn flags_with_opaques(g: &mut Generator, own: &[&str], opaques: &[&str]) -> String {
    let mut line = String::new();
    for _ in 0..g.random.below(5) {
        let flag = match g.random.below(12) {
            0 => "k".to_owned(),
            1 => format!("O{}", g.random.pick(opaques)),
            2 => "q".to_owned(),
            3 if g.chance(20) => g
                .random
                .pick(&["P", "Lhint", "Pabc", "@", "W1", "", "w", "S10", "y"])
                .to_owned(),
            _ => g.random.pick(own).to_owned(),
        };
        let flag = match flag.as_str() {
            "T" => format!("T{}", exptime(g)),
            "N" => format!("N{}", exptime(g)),
            "C" => format!("C{}", cas(g)),
            "E" => format!("E{}", cas(g)),
            "F" => format!("F{}", client_flags(g)),
            "D" => format!("D{}", delta(g)),
            "J" => format!("J{}", delta(g)),
            "R" => format!("R{}", g.random.pick(&["0", "30", "1000000", "-1", "abc"])),
            _ => flag,
        };
        line.push(' ');
        line.push_str(&flag);
    }
    line
}

/// A key, in base64 with its flag now and then.
fn meta_key(g: &mut Generator) -> (String, &'static str) {
    let key = String::from_utf8(g.key()).expect("the keys are text");
    if is_binary(&key) {
        return (base64(key.as_bytes()), " b");
    }
    let key = text_key(g);
    match g.random.below(20) {
        2 => (
            g.random
                .pick(&["====", "a", "YQ", "YQ==", "Y Q==", "AAAA", "/w=="])
                .to_owned(),
            " b",
        ),
        _ => (key, ""),
    }
}

/// The flags but those that begin with a letter.
fn without(flags: &str, letter: char) -> String {
    let words = flags.split(' ').filter(|word| !word.starts_with(letter));
    words.collect::<Vec<_>>().join(" ")
}

/// Whether T or N gives a deadline that has passed.
fn expires_at_once(flags: &str) -> bool {
    flags.contains("T-") || flags.contains("N-")
}

fn meta_get(g: &mut Generator) -> Vec<u8> {
    let (key, base64) = meta_key(g);
    let mut flags = flags_with_opaques(
        g,
        &[
            "v", "v", "v", "f", "s", "t", "c", "T", "N", "R", "E", "h", "l", "u", "x", "C",
        ],
        SHORT_OPAQUES,
    );
    if !base64.is_empty() {
        flags = without(&flags, 'k');
    }
    if expires_at_once(&flags) {
        flags = without(&flags, 't');
    }
    format!("mg {key}{base64}{flags}\r\n").into_bytes()
}

fn meta_set(g: &mut Generator) -> Vec<u8> {
    let (key, base64) = meta_key(g);
    let mode = if g.chance(30) {
        format!(
            " M{}",
            g.random.pick(&[
                "S", "s", "set", "E", "e", "A", "a", "P", "p", "R", "r", "", "X"
            ])
        )
    } else {
        String::new()
    };
    let flags = flags(
        g,
        &["T", "T", "F", "F", "C", "E", "E", "I", "c", "N", "s", "b"],
    );
    let flags = if base64.is_empty() {
        flags
    } else {
        without(&flags, 'k')
    };
    let head = format!("ms {key}");
    // The E of a refused `ms` is the CAS of the connection's next item in memcached.
    let (flags, fault) = if flags.contains('E') {
        (without(&flags, 'O'), NO_FAULT)
    } else {
        (flags, g.random.below(NO_FAULT + 1))
    };
    with_data_and_fault(g, &head, &format!("{base64}{mode}{flags}"), fault)
}

fn meta_delete(g: &mut Generator) -> Vec<u8> {
    let (key, base64) = meta_key(g);
    let flags = flags(g, &["C", "E", "I", "I", "T", "x"]);
    format!("md {key}{base64}{flags}\r\n").into_bytes()
}

fn meta_arithmetic(g: &mut Generator) -> Vec<u8> {
    let (key, base64) = meta_key(g);
    let mode = if g.chance(40) {
        format!(
            " M{}",
            g.random
                .pick(&["I", "i", "incr", "+", "D", "d", "decr", "-", "", "X"])
        )
    } else {
        String::new()
    };
    let mut flags = flags_with_opaques(
        g,
        &[
            "N", "N", "J", "J", "D", "D", "T", "v", "v", "t", "c", "C", "E",
        ],
        SHORT_OPAQUES,
    );
    if expires_at_once(&flags) {
        flags = without(&flags, 't');
    }
    let mode = if flags.contains(['E', 'T']) && !mode.contains('D') {
        " MD".to_owned()
    } else {
        mode
    };
    format!("ma {key}{base64}{mode}{flags}\r\n").into_bytes()
}

fn nonsense(g: &mut Generator) -> Vec<u8> {
    let lines = [
        "\r\n",
        "get\r\n",
        "gets \r\n",
        "set a\r\n",
        "set a 0 0\r\n",
        "bogus a b c\r\n",
        "GET a\r\n",
        "delete\r\n",
        "incr a\r\n",
        "touch a\r\n",
        "mg\r\n",
        "mg \r\n",
        "ms\r\n",
        "ms a\r\n",
        "ma\r\n",
        "md\r\n",
        "me\r\n",
        "cas a 0 0 1\r\nx\r\n",
        "version\r\n",
        "gat 0\r\n",
        "gat\r\n",
        "add a 0 0 abc\r\n",
        " get a\r\n",
        "get  k1   k2\r\n",
        "get k1\n",
        "mg k1 v\n",
        "verbosity\r\n",
        "incr k1 1 2 3 4\r\n",
        "mx k1\r\n",
        "mg missing O1234567890123456789012345678901\r\n",
        "mg missing O12345678901234567890123456789012\r\n",
        "ma missing v O12345678901234567890123456789012\r\n",
    ];
    g.random.pick(&lines).as_bytes().to_vec()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, &byte| (bits << 8) | u32::from(byte))
            << (8 * (3 - chunk.len()));
        for position in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * position)) as usize & 63];
            text.push(if position <= chunk.len() {
                digit as char
            } else {
                '='
            });
        }
    }
    text
}
