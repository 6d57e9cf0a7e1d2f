//! Files that are torn or changed at any place: they load up to the last whole record, or are refused with a reason.
//! Nothing panics.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use storage::{
    db::Db,
    keyspace::{Key, Keyspace},
    value::Text,
};

use super::{aof, recovery, snapshot};
use crate::{
    config::Config,
    dispatch::{command::Flag, table::table},
    server::{self, Server},
};

/// What is done to a byte.
const FLIPS: [u8; 2] = [0x01, 0x80];

/// Commands that make something of every type.
const COMMANDS: [&str; 24] = [
    "SET text hello",
    "SET number 12345",
    "SET soon value PXAT 4102444800000",
    "APPEND long aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "RPUSH list a 1 -5 1099511627776 bbbbbbbbbbbb",
    "SADD numbers 1 2 300 70000",
    "SADD set a b 5",
    "HSET hash field value other 7",
    "HSET expiring field value other 8",
    "HPEXPIREAT expiring 4102444800000 FIELDS 1 field",
    "ZADD ranking 1 a 2.5 b -inf c",
    "XADD stream 1-1 field value",
    "XADD stream 1-2 field value",
    "XADD stream 2-1 other value",
    "XDEL stream 1-2",
    "XGROUP CREATE stream group 0 ENTRIESREAD 1",
    "XREADGROUP GROUP group reader COUNT 1 STREAMS stream >",
    "PFADD counted a b c",
    "SELECT 3",
    "MULTI",
    "SET inner 1",
    "LPUSH inside a",
    "EXEC",
    "SELECT 0",
];

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("ferrite-files-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn server(directory: &Path, settings: &str) -> Arc<Server> {
    let text = format!(
        "dir {}\nloglevel nothing\nio-threads 2\n{settings}",
        directory.display()
    );
    Server::new(Config::from_text(text.as_bytes()).unwrap())
}

fn encode(line: &str) -> Vec<u8> {
    let words: Vec<&str> = line.split(' ').collect();
    let mut bytes = format!("*{}\r\n", words.len());
    for word in words {
        bytes += &format!("${}\r\n{word}\r\n", word.len());
    }
    bytes.into_bytes()
}

/// Writes a log of these bytes, and loads it.
fn load_log(server: &Arc<Server>, bytes: &[u8]) -> Result<(), String> {
    let directory = server.config.settings().dir.join("appendonlydir");
    fs::create_dir_all(&directory).unwrap();
    let manifest = "file appendonly.aof.1.incr.aof seq 1 type i\n";
    fs::write(directory.join("appendonly.aof.manifest"), manifest).unwrap();
    fs::write(directory.join("appendonly.aof.1.incr.aof"), bytes).unwrap();
    let mut db = Db::new(&server.keyspace, 0, server::now());
    db.lock_all();
    db.flush(None);
    db.begin();
    db.unlock();
    aof::load(server)
}

fn number(server: &Server, key: &str) -> i64 {
    let mut db = Db::new(&server.keyspace, 0, server::now());
    let key = Key::new(key.as_bytes());
    db.lock(key.hash);
    match db.text(key).unwrap() {
        Some(Text::Int(number)) => number,
        _ => 0,
    }
}

/// A snapshot file of everything.
fn sample_snapshot(settings: &str) -> Vec<u8> {
    let directory = Directory::new();
    let server = server(&directory.0, settings);
    let log: Vec<u8> = COMMANDS.iter().flat_map(|line| encode(line)).collect();
    load_log(&server, &log).unwrap();
    snapshot::save(&server).unwrap().unwrap();
    fs::read(directory.0.join("dump.rdb")).unwrap()
}

fn load_snapshot(server: &Arc<Server>, bytes: &[u8]) -> Result<usize, String> {
    let keyspace = Keyspace::new(4, 16, None);
    recovery::load_copy(server, &keyspace, bytes)?;
    let keys: Result<usize, _> = (0..16).map(|database| keyspace.len(database)).sum();
    Ok(keys.expect("nobody holds anything"))
}

#[test]
fn a_changed_snapshot_is_refused_wherever_the_change_is() {
    for compression in ["yes", "no"] {
        let bytes = sample_snapshot(&format!("rdbcompression {compression}"));
        let directory = Directory::new();
        let server = server(&directory.0, "");
        assert_eq!(load_snapshot(&server, &bytes), Ok(14));
        for at in 0..bytes.len() {
            for flip in FLIPS {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                let outcome = load_snapshot(&server, &changed);
                // A file of another version may be sound: old ones have no checksum.
                let is_version = (5..9).contains(&at);
                assert!(
                    outcome.is_err() || is_version,
                    "byte {at} flipped {flip:#x}"
                );
            }
            assert!(load_snapshot(&server, &bytes[..at]).is_err(), "{at} bytes");
        }
    }
}

#[test]
fn a_changed_snapshot_without_checksum_is_loaded_or_refused() {
    let bytes = sample_snapshot("rdbchecksum no");
    let directory = Directory::new();
    let server = server(&directory.0, "rdbchecksum no");
    let (mut loaded, mut refused) = (0, 0);
    for at in 0..bytes.len() {
        for flip in FLIPS {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            match load_snapshot(&server, &changed) {
                Ok(_) => loaded += 1,
                Err(reason) => {
                    assert!(!reason.contains("internal"), "byte {at}: {reason}");
                    refused += 1;
                }
            }
        }
    }
    assert!(loaded > 0 && refused > 0, "{loaded} {refused}");
}

#[test]
fn a_torn_log_is_loaded_up_to_the_last_whole_command_or_transaction() {
    let directory = Directory::new();
    let server = server(&directory.0, "appendonly yes");
    let mut bytes = Vec::new();
    // Up to where the log is whole, with how often it counted by then.
    let mut ends = vec![(0, 0)];
    let mut in_transaction = false;
    for line in COMMANDS {
        bytes.extend(encode(line));
        in_transaction = (in_transaction || line == "MULTI") && line != "EXEC";
        if !in_transaction {
            bytes.extend(b"#TS:1700000000\r\n");
            bytes.extend(encode("SELECT 0"));
            bytes.extend(encode("INCR counted"));
            ends.push((bytes.len(), ends.len() as i64));
        }
    }
    let bytes = String::from_utf8(bytes).unwrap();
    // PFADD has the name in the list of commands.
    let bytes = bytes.replace("PFADD\r\n$7\r\ncounted", "PFADD\r\n$7\r\nuniques");
    let bytes = bytes.as_bytes();
    for len in 0..=bytes.len() {
        assert_eq!(load_log(&server, &bytes[..len]), Ok(()), "{len} bytes");
        let (_, expected) = ends.iter().rev().find(|(end, _)| *end <= len).unwrap();
        assert_eq!(number(&server, "counted"), *expected, "{len} bytes");
    }
}

#[test]
fn a_changed_log_is_loaded_or_refused() {
    let directory = Directory::new();
    let server = server(&directory.0, "appendonly yes");
    let bytes: Vec<u8> = COMMANDS.iter().flat_map(|line| encode(line)).collect();
    let (mut loaded, mut refused) = (0, 0);
    for at in 0..bytes.len() {
        for flip in FLIPS {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            match load_log(&server, &changed) {
                Ok(()) => loaded += 1,
                Err(reason) => {
                    assert!(!reason.is_empty());
                    refused += 1;
                }
            }
        }
    }
    assert!(loaded > 0 && refused > 0, "{loaded} {refused}");
}

/// Words that commands may have, and that they may not.
const WORDS: [&str; 36] = [
    "text",
    "number",
    "long",
    "list",
    "set",
    "hash",
    "ranking",
    "stream",
    "counted",
    "field",
    "a",
    "b",
    "",
    "0",
    "1",
    "2",
    "-1",
    "5",
    "9223372036854775807",
    "-9223372036854775808",
    "4102444800000",
    "1.5",
    "inf",
    "nan",
    "1-1",
    "-",
    "+",
    "(1",
    "[a",
    "*",
    "NX",
    "GT",
    "COUNT",
    "LEFT",
    "STREAMS",
    "group",
];

/// Logs of commands that change data, with words that may be anything.
#[test]
fn a_log_of_any_words_is_loaded_or_refused() {
    let directory = Directory::new();
    let server = server(&directory.0, "appendonly yes");
    let mut seed = 1u64;
    let mut below = |bound: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % bound
    };
    let writes: Vec<&str> = table()
        .commands()
        .iter()
        .map(|registered| registered.command)
        .filter(|command| command.is_write() && !command.has(Flag::Admin))
        .map(|command| command.name)
        .collect();
    assert!(writes.len() > 80, "{}", writes.len());
    let sample: Vec<u8> = COMMANDS.iter().flat_map(|line| encode(line)).collect();
    let mut changed = 0;
    for _ in 0..if std::env::var("CI").is_ok() {
        2000
    } else {
        300
    } {
        let mut bytes = sample.clone();
        for _ in 0..40 {
            let mut line = writes[below(writes.len())].to_owned();
            for _ in 0..below(7) {
                line = format!("{line} {}", WORDS[below(WORDS.len())]);
            }
            bytes.extend(encode(&line));
        }
        assert_eq!(load_log(&server, &bytes), Ok(()));
        let keys: usize = (0..16)
            .map(|database| server.keyspace.len(database).unwrap())
            .sum();
        changed += usize::from(keys != 14);
        assert_eq!(server.metrics.panics.load(Ordering::Relaxed), 0);
    }
    assert!(changed > 100, "{changed}");
}
