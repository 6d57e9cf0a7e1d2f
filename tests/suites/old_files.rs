//! Snapshot files as Redis 2.2 to 7.2 wrote them: every old form of every type, made here byte by byte, with the values that
//! must come of it.

use std::fs;

use tests::server::{Options, Program, Server, locate, missing, new_directory};

/// Writes the primitives of the format.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn raw(mut self, bytes: &[u8]) -> Bytes {
        self.0.extend_from_slice(bytes);
        self
    }

    fn length(self, len: usize) -> Bytes {
        match len {
            0..64 => self.raw(&[len as u8]),
            64..16_384 => self.raw(&(0x4000 | len as u16).to_be_bytes()),
            _ => self.raw(&[0x80]).raw(&(len as u32).to_be_bytes()),
        }
    }

    fn text(self, text: impl AsRef<[u8]>) -> Bytes {
        self.length(text.as_ref().len()).raw(text.as_ref())
    }

    fn texts<T: AsRef<[u8]>>(self, texts: &[T]) -> Bytes {
        texts.iter().fold(self, Bytes::text)
    }

    /// An entry up to where its value begins.
    fn key(self, kind: u8, key: &str) -> Bytes {
        self.raw(&[kind]).text(key)
    }
}

/// The integer that a text is the usual form of: only those are packed as one.
fn integer(text: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}

/// `total bytes | offset of the last entry | count | entries | 0xff`, each entry with the length of the one before.
fn ziplist<T: AsRef<[u8]>>(elements: &[T]) -> Vec<u8> {
    let (mut entries, mut previous, mut last) = (Vec::new(), 0, 10);
    for element in elements {
        last = 10 + entries.len();
        let mut entry = match previous {
            0..254 => vec![previous as u8],
            _ => [&[0xfe], &(previous as u32).to_le_bytes()[..]].concat(),
        };
        let text = element.as_ref();
        match integer(text) {
            Some(number @ 0..13) => entry.push(0xf1 + number as u8),
            Some(number) => {
                let (mark, width) = match number {
                    -128..128 => (0xfe, 1),
                    -32_768..32_768 => (0xc0, 2),
                    -8_388_608..8_388_608 => (0xf0, 3),
                    -2_147_483_648..2_147_483_648 => (0xd0, 4),
                    _ => (0xe0, 8),
                };
                entry.push(mark);
                entry.extend_from_slice(&number.to_le_bytes()[..width]);
            }
            None => {
                match text.len() {
                    len @ 0..64 => entry.push(len as u8),
                    len @ 64..16_384 => entry.extend((0x4000 | len as u16).to_be_bytes()),
                    len => {
                        entry.push(0x80);
                        entry.extend((len as u32).to_be_bytes());
                    }
                }
                entry.extend_from_slice(text);
            }
        }
        previous = entry.len();
        entries.extend(entry);
    }
    Bytes::default()
        .raw(&(entries.len() as u32 + 11).to_le_bytes())
        .raw(&(last as u32).to_le_bytes())
        .raw(&(elements.len() as u16).to_le_bytes())
        .raw(&entries)
        .raw(&[0xff])
        .0
}

/// `count | (length, key, length, unused bytes, value, unused bytes)... | 0xff`
fn zipmap(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = vec![pairs.len() as u8];
    let length = |bytes: &mut Vec<u8>, len: usize| match len {
        0..254 => bytes.push(len as u8),
        _ => {
            bytes.push(0xfe);
            bytes.extend((len as u32).to_le_bytes());
        }
    };
    for (index, (key, value)) in pairs.iter().enumerate() {
        let unused = index % 3;
        length(&mut bytes, key.len());
        bytes.extend_from_slice(key.as_bytes());
        length(&mut bytes, value.len());
        bytes.push(unused as u8);
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend(vec![b'?'; unused]);
    }
    bytes.push(0xff);
    bytes
}

fn intset(width: usize, integers: &[i64]) -> Vec<u8> {
    let head = [width as u32, integers.len() as u32]
        .map(u32::to_le_bytes)
        .concat();
    let integers = integers
        .iter()
        .flat_map(|integer| integer.to_le_bytes()[..width].to_vec());
    head.into_iter().chain(integers).collect()
}

/// `total bytes | count | entries | 0xff`, each entry followed by its length, to be read backwards.
fn listpack<T: AsRef<[u8]>>(elements: &[T]) -> Vec<u8> {
    let mut entries = Vec::new();
    for element in elements {
        let text = element.as_ref();
        let mut entry = Vec::new();
        match integer(text) {
            Some(number @ 0..128) => entry.push(number as u8),
            Some(number @ -4096..4096) => {
                entry.extend((0xc000 | (number as u16 & 0x1fff)).to_be_bytes());
            }
            Some(number) => {
                let (mark, width) = match number {
                    -32_768..32_768 => (0xf1, 2),
                    -8_388_608..8_388_608 => (0xf2, 3),
                    -2_147_483_648..2_147_483_648 => (0xf3, 4),
                    _ => (0xf4, 8),
                };
                entry.push(mark);
                entry.extend_from_slice(&number.to_le_bytes()[..width]);
            }
            None => {
                match text.len() {
                    len @ 0..64 => entry.push(0x80 | len as u8),
                    len @ 64..4096 => entry.extend((0xe000 | len as u16).to_be_bytes()),
                    len => {
                        entry.push(0xf0);
                        entry.extend((len as u32).to_le_bytes());
                    }
                }
                entry.extend_from_slice(text);
            }
        }
        let mut len = entry.len();
        let mut back = vec![(len & 0x7f) as u8];
        while len > 0x7f {
            len >>= 7;
            back.push((len & 0x7f) as u8 | 0x80);
        }
        // The first byte has the highest bits; all behind it are marked.
        back.reverse();
        for (index, byte) in back.iter_mut().enumerate() {
            *byte = *byte & 0x7f | if index == 0 { 0 } else { 0x80 };
        }
        entries.extend(entry);
        entries.extend(back);
    }
    Bytes::default()
        .raw(&(entries.len() as u32 + 7).to_le_bytes())
        .raw(&(elements.len() as u16).to_le_bytes())
        .raw(&entries)
        .raw(&[0xff])
        .0
}

fn raw_id(ms: u64, seq: u64) -> Vec<u8> {
    [ms.to_be_bytes(), seq.to_be_bytes()].concat()
}

/// A stream with two entries, the first with the fields of its block, the second with others, one deleted between them, and
/// a group with a pending entry; `form` is 1 to 3.
fn stream(form: u8) -> Vec<u8> {
    let block = listpack(&[
        "2", "1", "1", "name", "0", // the block's entries, deleted ones, fields
        "2", "0", "0", "one", "4", // same fields
        "3", "0", "1", "gone", "4", // deleted
        "0", "5", "2", "2", "name", "two", "age", "7", "8", // its own fields
    ]);
    let mut bytes = Bytes::default()
        .length(1)
        .text(raw_id(1000, 1))
        .text(&block)
        .length(2)
        .length(1005)
        .length(3);
    if form >= 2 {
        bytes = bytes
            .length(1000)
            .length(1)
            .length(1000)
            .length(2)
            .length(3);
    }
    bytes = bytes.length(1).text("group").length(1000).length(1);
    if form >= 2 {
        bytes = bytes.length(1);
    }
    let time = 1_700_000_000_000_u64.to_le_bytes();
    bytes = bytes
        .length(1)
        .raw(&raw_id(1000, 1))
        .raw(&time)
        .length(4)
        .length(1)
        .text("reader")
        .raw(&time);
    if form >= 3 {
        bytes = bytes.raw(&time);
    }
    bytes.length(1).raw(&raw_id(1000, 1)).0
}

const FAR_SECONDS: u32 = 2_147_000_000;
const FAR_MS: u64 = 99_999_999_999_999;

/// Elements that take every form of the packed lists.
fn elements() -> Vec<String> {
    let numbers = [
        "0",
        "12",
        "13",
        "-1",
        "127",
        "-128",
        "4095",
        "-4096",
        "32767",
        "-32768",
        "8388607",
        "-8388608",
        "2147483647",
        "-2147483648",
        "9223372036854775807",
        "-9223372036854775808",
    ];
    let texts = ["", "a", "007", "+1", "99999999999999999999"].map(str::to_owned);
    let long = [63, 64, 300, 4095, 4096, 16_383, 16_384].map(|len| "x".repeat(len));
    numbers
        .map(str::to_owned)
        .into_iter()
        .chain(texts)
        .chain(long)
        .collect()
}

/// A file of a version with all that its server wrote, and what must be found in it.
fn file(version: u32) -> (Vec<u8>, Vec<(String, String)>) {
    let mut expected: Vec<(String, String)> = Vec::new();
    let mut expect = |line: &str, reply: String| expected.push((line.to_owned(), reply));
    let all = elements();
    let words: Vec<&str> = all.iter().map(String::as_str).collect();
    let pairs = [
        ("a", "1"),
        ("b", "two"),
        ("long", &"y".repeat(300)),
        ("", "empty"),
    ];
    let flat: Vec<&str> = pairs
        .iter()
        .flat_map(|&(field, value)| [field, value])
        .collect();
    let mut bytes = Bytes::default().raw(format!("REDIS{version:04}").as_bytes());
    if version >= 7 {
        bytes = bytes.raw(&[0xfa]).text("redis-ver").text("3.2.0");
        bytes = bytes.raw(&[0xfa]).text("redis-bits").raw(&[0xc0, 64]);
    }
    if version >= 10 {
        let source = "#!lua name=shelf\nredis.register_function('one', function() return 1 end)";
        bytes = bytes.raw(&[0xf5]).text(source);
        expect("FCALL one 0", ":1\r\n".into());
    }
    bytes = bytes.raw(&[0xfe]).length(0);
    if version >= 7 {
        bytes = bytes.raw(&[0xfb]).length(20).length(2);
    }
    // Strings: plain, as integers of every width, compressed.
    bytes = bytes
        .key(0, "text")
        .text("hello")
        .key(0, "tiny")
        .raw(&[0xc0, 0xfb])
        .key(0, "small")
        .raw(&[0xc1, 0x39, 0x30])
        .key(0, "large")
        .raw(&[0xc2, 0x15, 0xcd, 0x5b, 0x07])
        .key(0, "packed")
        .raw(&[0xc3, 5, 30, 0x00, b'a', 0xe0, 20, 0x00]);
    for (key, value) in [
        ("text", "hello"),
        ("tiny", "-5"),
        ("small", "12345"),
        ("large", "123456789"),
        ("packed", &"a".repeat(30)),
    ] {
        expect(&format!("GET {key}"), bulk(value));
    }
    // Deadlines, in seconds and since 2.6 in milliseconds.
    bytes = bytes
        .raw(&[0xfd])
        .raw(&FAR_SECONDS.to_le_bytes())
        .key(0, "far")
        .text("1");
    bytes = bytes
        .raw(&[0xfd])
        .raw(&1u32.to_le_bytes())
        .key(0, "over")
        .text("1");
    expect("PEXPIRETIME far", format!(":{FAR_SECONDS}000\r\n"));
    expect("EXISTS over", ":0\r\n".into());
    if version >= 3 {
        bytes = bytes
            .raw(&[0xfc])
            .raw(&FAR_MS.to_le_bytes())
            .key(0, "farther")
            .text("1");
        expect("PEXPIRETIME farther", format!(":{FAR_MS}\r\n"));
    }
    if version >= 9 {
        bytes = bytes.raw(&[0xf8]).length(1000).key(0, "idle").text("1");
        bytes = bytes.raw(&[0xf9, 7]).key(0, "frequent").text("1");
        expect("GET idle", bulk("1"));
        expect("GET frequent", bulk("1"));
    }
    // Collections, element by element.
    bytes = bytes.key(1, "list").length(words.len()).texts(&words);
    bytes = bytes.key(2, "set").length(words.len()).texts(&words);
    bytes = bytes.key(4, "hash").length(pairs.len()).texts(&flat);
    bytes = bytes
        .key(3, "ranking")
        .length(4)
        .text("low")
        .raw(&[255])
        .text("a")
        .raw(b"\x031.5")
        .text("b")
        .raw(b"\x182.2000000000000002220446")
        .text("high")
        .raw(&[254]);
    expect(
        "ZRANGE ranking 0 -1 WITHSCORES",
        array(&["low", "-inf", "a", "1.5", "b", "2.2", "high", "inf"]),
    );
    let mut lists = vec!["list"];
    let mut sets = vec![];
    let mut hashes = vec!["hash"];
    let mut rankings = vec![];
    if version >= 2 {
        bytes = bytes.key(9, "hash:zipmap").text(zipmap(&pairs));
        hashes.push("hash:zipmap");
        bytes = bytes.key(10, "list:ziplist").text(ziplist(&words));
        lists.push("list:ziplist");
        for (width, integers) in [
            (2, [-32_768, -1, 32_767]),
            (4, [-2_147_483_648, 0, 2_147_483_647]),
            (8, [i64::MIN, 1, i64::MAX]),
        ] {
            let key = format!("integers:{width}");
            bytes = bytes.key(11, &key).text(intset(width, &integers));
            let texts = integers.map(|integer| integer.to_string());
            expect(&format!("SORT {key}"), array(&texts));
            expect(&format!("OBJECT ENCODING {key}"), bulk("intset"));
        }
        bytes = bytes
            .key(12, "ranking:ziplist")
            .text(ziplist(&["one", "-1", "two", "2.5"]));
        rankings.push("ranking:ziplist");
    }
    if version >= 4 {
        bytes = bytes.key(13, "hash:ziplist").text(ziplist(&flat));
        hashes.push("hash:ziplist");
    }
    if version >= 7 {
        bytes = bytes
            .key(14, "list:quicklist")
            .length(2)
            .text(ziplist(&words[..9]))
            .text(ziplist(&words[9..]));
        lists.push("list:quicklist");
    }
    if version >= 8 {
        bytes = bytes
            .key(5, "ranking:doubles")
            .length(2)
            .text("one")
            .raw(&(-1f64).to_le_bytes())
            .text("two")
            .raw(&2.5f64.to_le_bytes());
        rankings.push("ranking:doubles");
    }
    let mut streams = vec![];
    if version >= 9 {
        bytes = bytes.key(15, "stream:1").raw(&stream(1));
        streams.push("stream:1");
    }
    if version >= 10 {
        bytes = bytes.key(16, "hash:listpack").text(listpack(&flat));
        hashes.push("hash:listpack");
        bytes = bytes
            .key(17, "ranking:listpack")
            .text(listpack(&["one", "-1", "two", "2.5"]));
        rankings.push("ranking:listpack");
        let (plain, packed) = words.split_last().expect("there are elements");
        bytes = bytes
            .key(18, "list:quicklist2")
            .length(2)
            .length(2)
            .text(listpack(packed))
            .length(1)
            .text(plain);
        lists.push("list:quicklist2");
        bytes = bytes.key(19, "stream:2").raw(&stream(2));
        streams.push("stream:2");
    }
    if version >= 11 {
        bytes = bytes.key(20, "set:listpack").text(listpack(&words[16..20]));
        sets.push("set:listpack");
        bytes = bytes.key(21, "stream:3").raw(&stream(3));
        streams.push("stream:3");
    }
    for key in lists {
        expect(&format!("LRANGE {key} 0 -1"), array(&words));
    }
    let mut sorted = words.clone();
    sorted.sort_unstable();
    expect("SORT set ALPHA", array(&sorted));
    for key in sets {
        let mut sorted = words[16..20].to_vec();
        sorted.sort_unstable();
        expect(&format!("SORT {key} ALPHA"), array(&sorted));
    }
    for key in hashes {
        expect(&format!("HLEN {key}"), format!(":{}\r\n", pairs.len()));
        for (field, value) in pairs {
            expect(&format!("HGET {key} \"{field}\""), bulk(value));
        }
    }
    for key in rankings {
        expect(
            &format!("ZRANGE {key} 0 -1 WITHSCORES"),
            array(&["one", "-1", "two", "2.5"]),
        );
    }
    for key in streams {
        let entries = "*2\r\n*2\r\n$6\r\n1000-1\r\n*2\r\n$4\r\nname\r\n$3\r\none\r\n\
                       *2\r\n$6\r\n1005-3\r\n*4\r\n$4\r\nname\r\n$3\r\ntwo\r\n$3\r\nage\r\n$1\r\n7\r\n";
        expect(&format!("XRANGE {key} - +"), entries.into());
        let pending =
            "*4\r\n:1\r\n$6\r\n1000-1\r\n$6\r\n1000-1\r\n*1\r\n*2\r\n$6\r\nreader\r\n$1\r\n1\r\n";
        expect(&format!("XPENDING {key} group"), pending.into());
    }
    bytes = bytes.raw(&[0xfe]).length(3).key(0, "other").text("3");
    expect("SELECT 3", "+OK\r\n".into());
    expect("GET other", bulk("3"));
    expect("DBSIZE", ":1\r\n".into());
    bytes = bytes.raw(&[0xff]);
    if version >= 5 {
        bytes = bytes.raw(&[0; 8]);
    }
    (bytes.0, expected)
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn array<T: AsRef<str>>(texts: &[T]) -> String {
    let texts: String = texts.iter().map(|text| bulk(text.as_ref())).collect();
    format!("*{}\r\n{texts}", texts.matches("\r\n").count() / 2)
}

fn directory_with(bytes: &[u8]) -> std::path::PathBuf {
    let directory = new_directory();
    fs::write(directory.join("dump.rdb"), bytes).expect("the directory is writable");
    directory
}

/// The reference server says whether the bytes are what they are meant to be.
#[test]
fn files_of_every_old_version_are_read() {
    for version in 1..=11 {
        let (bytes, expected) = file(version);
        let directory = directory_with(&bytes);
        let options = Options::new()
            .set("dir", &directory.display().to_string())
            .set("enable-debug-command", "yes");
        let mut digests = Vec::new();
        for server in [Some(Server::ferrite(&options)), Server::valkey(&options)] {
            let Some(server) = server else {
                missing("valkey-server");
                continue;
            };
            let mut wire = server.connect();
            for (line, reply) in &expected {
                assert_eq!(&wire.line(line), reply, "version {version}: {line}");
            }
            digests.push(wire.line("DEBUG DIGEST"));
        }
        assert_eq!(digests.first(), digests.last(), "version {version}");
        let _ = fs::remove_dir_all(directory);
    }
}

/// What ends the server when it is given such a file.
fn refusal(bytes: &[u8]) -> String {
    let directory = directory_with(bytes);
    let binary = locate(Program::Ferrite).expect("it is built");
    let output = std::process::Command::new(binary)
        .args(["--port", "0", "--memcached-port", "0", "--dir"])
        .arg(&directory)
        .output()
        .expect("it can be run");
    let _ = fs::remove_dir_all(directory);
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The type number of a JSON module's values: nine letters of six bits, and a version of ten.
const JSON: u64 = {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let name = b"ReJSON-RL";
    let (mut number, mut at) = (0, 0);
    while at < name.len() {
        let mut letter = 0;
        while LETTERS[letter] != name[at] {
            letter += 1;
        }
        number = number << 6 | letter as u64;
        at += 1;
    }
    number << 10 | 3
};

#[test]
fn values_of_modules_are_refused_by_name_and_their_notes_passed_over() {
    let head = Bytes::default().raw(b"REDIS0009\xfe\x00");
    let number = [&[0x81][..], &JSON.to_be_bytes()].concat();
    let value = head
        .key(7, "document")
        .raw(&number)
        .raw(b"\x02\x05\x00\xff")
        .raw(&[0; 8]);
    let log = refusal(&value.0);
    assert!(log.contains("type 'ReJSON-RL' of version 3"), "{log}");

    let note = Bytes::default()
        .raw(b"REDIS0009\xf7")
        .raw(&number)
        .raw(b"\x02\x02\x01\x07\x03\0\0\0\0\x04\0\0\0\0\0\0\0\0\x05\x02hi\x00\xfe\x00")
        .key(0, "text")
        .text("hello")
        .raw(&[0xff; 1])
        .raw(&[0; 8]);
    let directory = directory_with(&note.0);
    let server = Server::ferrite(&Options::new().set("dir", &directory.display().to_string()));
    assert_eq!(server.connect().line("GET text"), bulk("hello"));
    let _ = fs::remove_dir_all(directory);
}
