//! The append-only file: what was acknowledged survives a kill at any moment, and the files are Valkey's.

use std::{
    fs,
    io::Write,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use tests::{
    random::Random,
    server::{Options, Server, in_ci, locate_peer, missing, new_directory},
    table::{check_memcached_on, memcached},
    wire::Wire,
};

use crate::crash::rounds;

fn options(directory: &Path, fsync: &str) -> Options {
    Options::new()
        .set("appendonly", "yes")
        .set("appendfsync", fsync)
        .set("dir", &directory.display().to_string())
}

fn integer(server: &Server, command: &str) -> i64 {
    let reply = server.connect().line(command);
    reply
        .trim_start_matches([':', '$'])
        .lines()
        .last()
        .and_then(|line| line.trim().parse().ok())
        .unwrap_or(0)
        // No key yet.
        .max(0)
}

/// Clients count up keys of their own as fast as they are acknowledged; the server is killed; no count may be missing.
#[test]
fn always_loses_no_acknowledged_write_when_killed() {
    const CLIENTS: usize = 16;
    let directory = new_directory();
    let rounds = rounds(20, 200);
    let mut random = Random::new(Random::seed_of_this_run());
    let acknowledged: Vec<AtomicU64> = (0..CLIENTS).map(|_| AtomicU64::new(0)).collect();
    for round in 0..rounds {
        let mut server = Server::ferrite(&options(&directory, "always"));
        for (number, last) in acknowledged.iter().enumerate() {
            let found = integer(&server, &format!("GET counter:{number}")) as u64;
            let promised = last.load(Ordering::Relaxed);
            assert!(found >= promised, "round {round}: {found} of {promised}");
            last.store(found, Ordering::Relaxed);
        }
        let pause = Duration::from_micros(random.between(1_000, 40_000) as u64);
        thread::scope(|scope| {
            for (number, last) in acknowledged.iter().enumerate() {
                let mut connection = server.connect();
                scope.spawn(move || {
                    let name = format!("counter:{number}");
                    connection.send_command(&["INCR", &name]);
                    while let Ok(reply) = connection.reply() {
                        let text = String::from_utf8_lossy(&reply);
                        let count = text.trim_start_matches(':').trim().parse();
                        last.store(count.expect("a count"), Ordering::Relaxed);
                        connection.send_command(&["INCR", &name]);
                    }
                });
            }
            thread::sleep(pause);
            server.signal("KILL");
            assert!(server.wait(Duration::from_secs(5)).is_some());
        });
        if round % 25 == 24 {
            let server = Server::ferrite(&options(&directory, "always"));
            server.connect().line("BGREWRITEAOF");
        }
    }
    let _ = fs::remove_dir_all(&directory);
}

pub(crate) fn wait_until_rewritten(wire: &mut Wire) {
    const DONE: &str = "aof_rewrite_in_progress:0\r\naof_rewrite_scheduled:0";
    let deadline = Instant::now() + Duration::from_secs(60);
    while !wire.line("INFO persistence").contains(DONE) {
        assert!(Instant::now() < deadline, "the rewrite ends in time");
        thread::sleep(Duration::from_millis(5));
    }
}

fn write_sample(server: &Server) {
    let mut connection = server.connect();
    for line in [
        "SET a 1",
        "SET b 2 PX 10000000",
        "SELECT 5",
        "APPEND c 3",
        "MULTI",
        "SET d 4",
        "SET e 5",
        "EXEC",
    ] {
        connection.line(line);
    }
}

/// A file cut at any offset loads up to its last whole command; a transaction is there as a whole or not at all.
#[test]
fn a_file_cut_anywhere_loads_up_to_the_last_whole_command() {
    let directory = new_directory();
    let server = Server::ferrite(&options(&directory, "always"));
    write_sample(&server);
    drop(server);
    let path = directory.join("appendonlydir/appendonly.aof.1.incr.aof");
    let whole = fs::read(&path).expect("the increment");
    let step = if in_ci() { 1 } else { 7 };
    for len in (0..=whole.len()).step_by(step) {
        fs::write(&path, &whole[..len]).expect("a writable directory");
        let server = Server::ferrite(&options(&directory, "always"));
        let mut connection = server.connect();
        connection.line("SELECT 5");
        let together = connection.line("EXISTS d e");
        assert!(together.starts_with(":0") || together.starts_with(":2"));
        if len == whole.len() {
            assert_eq!(integer(&server, "GET a"), 1);
            assert!(together.starts_with(":2"));
        }
    }
    let _ = fs::remove_dir_all(&directory);
}

/// Real Valkey goes on with our files, and we with its.
#[test]
fn a_directory_moves_to_valkey_and_back() {
    let directory = new_directory();
    let settings = options(&directory, "everysec");
    let mut server = Server::ferrite(&settings);
    write_sample(&server);
    server.signal("TERM");
    assert!(server.wait(Duration::from_secs(5)).is_some());
    let Some(mut valkey) = Server::valkey(&settings) else {
        missing("valkey-server");
        return;
    };
    let mut connection = valkey.connect();
    assert_eq!(connection.line("GET a"), "$1\r\n1\r\n");
    assert_eq!(connection.line("EXISTS b"), ":1\r\n");
    connection.line("SELECT 5");
    assert_eq!(
        connection.line("MGET c d e"),
        "*3\r\n$1\r\n3\r\n$1\r\n4\r\n$1\r\n5\r\n"
    );
    connection.line("SET f 6");
    valkey.signal("TERM");
    assert!(valkey.wait(Duration::from_secs(5)).is_some());
    let server = Server::ferrite(&settings);
    let mut connection = server.connect();
    connection.line("SELECT 5");
    assert_eq!(connection.line("MGET d f"), "*2\r\n$1\r\n4\r\n$1\r\n6\r\n");
    let _ = fs::remove_dir_all(&directory);
}

/// Writes go on while the log is rewritten, and the new files hold everything.
#[test]
fn a_rewrite_loses_nothing_that_is_written_meanwhile() {
    let directory = new_directory();
    let mut server = Server::ferrite(&options(&directory, "everysec"));
    for round in 0..5 {
        let mut connection = server.connect();
        for number in 0..2000 {
            connection.send_command(&["SET", &format!("key:{round}:{number}"), "value"]);
            if number == 1000 {
                server.connect().line("BGREWRITEAOF");
            }
        }
        for _ in 0..2000 {
            connection.reply().expect("a reply");
        }
        wait_until_rewritten(&mut server.connect());
    }
    server.signal("TERM");
    assert!(server.wait(Duration::from_secs(5)).is_some());
    let server = Server::ferrite(&options(&directory, "everysec"));
    assert_eq!(integer(&server, "DBSIZE"), 10_000);
    let _ = fs::remove_dir_all(&directory);
}

/// A deadline that was taken back before it passed does not cost the key when the log is loaded after it.
#[test]
fn deadlines_taken_back_stay_taken_back() {
    let directory = new_directory();
    let settings = options(&directory, "always");
    let mut server = Server::ferrite(&settings);
    let mut connection = server.connect();
    for line in [
        "SET kept 1 PX 700",
        "PERSIST kept",
        "RPUSH list a b",
        "PEXPIRE list 700",
        "RPUSH list c",
        "PERSIST list",
        "SET gone 1 PX 700",
    ] {
        connection.line(line);
    }
    server.signal("KILL");
    assert!(server.wait(Duration::from_secs(5)).is_some());
    // The deadlines must have passed: what is waited for is the clock.
    thread::sleep(Duration::from_millis(800));
    let server = Server::ferrite(&settings);
    let mut connection = server.connect();
    assert_eq!(connection.line("GET kept"), "$1\r\n1\r\n");
    assert_eq!(connection.line("LLEN list"), ":3\r\n");
    assert_eq!(connection.line("EXISTS gone"), ":0\r\n");
    let _ = fs::remove_dir_all(&directory);
}

/// A value of every type and encoding, deadlines, functions, several databases.
pub(crate) fn write_every_type(server: &Server) {
    let mut wire = server.connect();
    let numbered = |count: usize, word: &str| -> String {
        let words: Vec<String> = (0..count).map(|n| format!("{word}{n}")).collect();
        words.join(" ")
    };
    let paired = |count: usize| -> String {
        let pairs: Vec<String> = (0..count).map(|n| format!("{n}.5 member{n}")).collect();
        pairs.join(" ")
    };
    for line in [
        "SET text hello".to_owned(),
        "SET number 1000000".to_owned(),
        format!("SET long {}", "xyz".repeat(5000)),
        "SET bits 0".to_owned(),
        "SETBIT bits 1000 1".to_owned(),
        "APPEND text \"\\x00\\xff\"".to_owned(),
        "PEXPIREAT text 99999999999999".to_owned(),
        "INCRBYFLOAT float 0.1".to_owned(),
        format!("RPUSH list {}", numbered(3, "a")),
        format!("RPUSH large-list {}", numbered(600, "element")),
        "LPOP large-list 5".to_owned(),
        "SADD numbers 3 1 2".to_owned(),
        format!("SADD set {}", numbered(5, "m")),
        format!("SADD large-set {}", numbered(600, "m")),
        "SPOP large-set 3".to_owned(),
        format!("HSET hash {}", numbered(6, "f")),
        format!("HSET large-hash {}", numbered(1200, "f")),
        "HSET fading a 1 b 2 c 3".to_owned(),
        "HPEXPIREAT fading 99999999999999 FIELDS 1 a".to_owned(),
        format!("ZADD sorted {}", paired(5)),
        format!("ZADD large-sorted {} -inf low +inf high", paired(400)),
        "XADD stream 1-1 field one".to_owned(),
        "XADD stream * field two other three".to_owned(),
        "XGROUP CREATE stream group 0".to_owned(),
        "XREADGROUP GROUP group reader COUNT 1 STREAMS stream >".to_owned(),
        "PFADD visitors a b c d".to_owned(),
        "PFCOUNT visitors".to_owned(),
        "GEOADD places 13.361389 38.115556 Palermo".to_owned(),
        "FUNCTION LOAD \"#!lua name=shelf\\nredis.register_function('one', function() return 1 end)\"".to_owned(),
        "SET gone 1".to_owned(),
        "DEL gone".to_owned(),
        "COPY list copied".to_owned(),
        "RENAME set renamed".to_owned(),
        "SELECT 9".to_owned(),
        "MULTI".to_owned(),
        "SET a 1".to_owned(),
        "INCR a".to_owned(),
        "EXEC".to_owned(),
        "EVAL \"redis.call('SET', KEYS[1], 1) redis.call('INCR', KEYS[1])\" 1 scripted".to_owned(),
        "MOVE a 3".to_owned(),
        "SET b 2".to_owned(),
    ] {
        let reply = wire.line(&line);
        assert!(!reply.starts_with('-'), "{line}: {reply}");
    }
}

/// What tells whether two servers have the same data.
pub(crate) fn fingerprint(server: &Server) -> Vec<String> {
    let mut wire = server.connect();
    let mut seen = vec![wire.line("DEBUG DIGEST"), wire.line("FCALL one 0")];
    for line in [
        "XINFO GROUPS stream",
        "XPENDING stream group",
        "PEXPIRETIME text",
        "HPEXPIRETIME fading FIELDS 2 a b",
        "PFCOUNT visitors",
        "DBSIZE",
    ] {
        seen.push(wire.line(line));
    }
    seen
}

pub(crate) fn end(mut server: Server) {
    server.signal("TERM");
    assert!(server.wait(Duration::from_secs(10)).is_some());
}

/// The real checker's verdict on a log.
fn checker(directory: &Path, options: &[&str]) -> Option<std::process::Output> {
    let program = locate_peer("valkey-check-aof")?;
    let output = Command::new(program)
        .args(options)
        .arg(directory.join("appendonlydir/appendonly.aof.manifest"))
        .output();
    Some(output.expect("it can be run"))
}

/// Values of every type move with the log to Valkey, which rewrites it as commands or as a snapshot, and back.
#[test]
fn every_type_moves_to_valkey_and_back() {
    for (stamped, preamble) in [("yes", "no"), ("no", "yes")] {
        let directory = new_directory();
        let settings = options(&directory, "everysec")
            .set("enable-debug-command", "yes")
            .set("aof-timestamp-enabled", stamped)
            .set("aof-use-rdb-preamble", preamble);
        let server = Server::ferrite(&settings);
        write_every_type(&server);
        let ours = fingerprint(&server);
        end(server);
        let Some(checked) = checker(&directory, &[]) else {
            missing("valkey-check-aof");
            return;
        };
        assert!(checked.status.success(), "{checked:?}");
        let Some(valkey) = Server::valkey(&settings) else {
            missing("valkey-server");
            return;
        };
        assert_eq!(fingerprint(&valkey), ours);
        let mut wire = valkey.connect();
        wire.line("BGREWRITEAOF");
        while !wire
            .line("INFO persistence")
            .contains("aof_rewrite_in_progress:0\r\naof_rewrite_scheduled:0")
        {
            thread::sleep(Duration::from_millis(10));
        }
        wire.line("SET after 1");
        wire.line("XADD stream * field four");
        let theirs = fingerprint(&valkey);
        end(valkey);
        let server = Server::ferrite(&settings);
        assert_eq!(fingerprint(&server), theirs, "preamble {preamble}");
        let _ = fs::remove_dir_all(&directory);
    }
}

/// With times in it the real checker cuts a log at one, and both servers load what was there then.
#[test]
fn a_log_with_times_is_cut_at_one_of_them() {
    let directory = new_directory();
    let settings = options(&directory, "everysec").set("aof-timestamp-enabled", "yes");
    let server = Server::ferrite(&settings);
    let mut wire = server.connect();
    let seconds = |wire: &mut Wire| -> u64 {
        let reply = wire.line("TIME");
        let digits = reply.lines().nth(2).expect("two parts");
        digits.parse().expect("a number")
    };
    wire.line("SET early 1");
    let moment = seconds(&mut wire);
    while seconds(&mut wire) == moment {
        thread::sleep(Duration::from_millis(10));
    }
    wire.line("SET late 1");
    wire.line("SET later 1");
    end(server);
    let path = directory.join("appendonlydir/appendonly.aof.1.incr.aof");
    let whole = fs::read(&path).expect("the increment");
    assert!(whole.starts_with(format!("#TS:{moment}\r\n").as_bytes()));
    let at = moment.to_string();
    let Some(cut) = checker(&directory, &["--truncate-to-timestamp", &at]) else {
        missing("valkey-check-aof");
        return;
    };
    assert!(cut.status.success(), "{cut:?}");
    assert!(fs::read(&path).expect("the increment").len() < whole.len());
    for valkey in [true, false] {
        let server = match valkey {
            true => Server::valkey(&settings),
            false => Some(Server::ferrite(&settings)),
        };
        let Some(server) = server else {
            missing("valkey-server");
            return;
        };
        let mut wire = server.connect();
        assert_eq!(wire.line("EXISTS early late later"), ":1\r\n");
        end(server);
    }
    let _ = fs::remove_dir_all(&directory);
}

/// A random command of a client that shares its keys with others, across databases.
fn random_line(random: &mut Random) -> String {
    let mut key = |word: &str| format!("{word}:{}", random.below(20));
    let (text, list, set, other) = (key("text"), key("list"), key("set"), key("set"));
    let (number, target) = (key("number"), key("list"));
    let value = random.below(1000);
    match random.below(24) {
        0 | 1 => format!("SET {text} {value}"),
        2 => format!("APPEND {text} {value}"),
        3 => format!("INCRBY {number} {value}"),
        4 => format!("MSET {text} {value} {number} {value}"),
        5 | 6 => format!("RPUSH {list} {value}"),
        7 => format!("LPOP {list}"),
        8 => format!("LMOVE {list} {target} LEFT RIGHT"),
        9 => format!("RENAME {list} {target}"),
        10 => format!("SADD {set} {value}"),
        11 => format!("SPOP {set}"),
        12 => format!("SUNIONSTORE {set} {set} {other}"),
        13 => format!("SMOVE {set} {other} {value}"),
        14 => format!("HSET hash:{value} a {value}"),
        15 => format!("DEL {text} {list}"),
        16 => format!(
            "EVAL \"redis.call('INCR', KEYS[1]) redis.call('APPEND', KEYS[2], 'x')\" 2 {number} {text}"
        ),
        17 => format!("MOVE {text} {}", value % 3),
        18 => format!("COPY {text} {text}:copy DB {} REPLACE", value % 3),
        19 => format!("SORT {list} BY nosort STORE {target}"),
        20 => format!("EXPIRE {text} 100000"),
        21 => format!("SELECT {}", value % 3),
        22 if value < 20 => format!("SWAPDB {} {}", value % 3, value % 2),
        22 if value < 25 => "FLUSHDB".to_owned(),
        _ => format!("GETDEL {text}"),
    }
}

/// A random request of a memcached client that shares its keys with others.
fn random_item(random: &mut Random) -> String {
    let key = format!("text:{}", random.below(20));
    let (flags, value) = (random.below(100), random.below(1000));
    let len = value.to_string().len();
    match random.below(4) {
        0 => format!("set {key} {flags} 0 {len}\r\n{value}\r\n"),
        1 => format!("append {key} 0 0 {len}\r\n{value}\r\n"),
        2 => format!("ms {key} {len} F{flags}\r\n{value}\r\n"),
        _ => format!("delete {key}\r\n"),
    }
}

/// All items with their flags and CAS.
fn items(server: &Server) -> Vec<String> {
    let mut wire = server.connect_memcached();
    let keys = 0..20;
    keys.map(|number| memcached(&mut wire, format!("gets text:{number}\r\n").as_bytes()))
        .map(|reply| String::from_utf8_lossy(&reply).into_owned())
        .collect()
}

/// What several threads replay is what one does, and what was there.
#[test]
fn a_log_of_concurrent_commands_is_replayed_in_order_by_several_threads() {
    let directory = new_directory();
    let logged = options(&directory, "no").set("enable-debug-command", "yes");
    let server = Server::ferrite(&logged);
    let seed = Random::seed_of_this_run();
    // A small log is not worth several threads.
    let long = "x".repeat(100_000);
    let mut wire = server.connect();
    for number in 0..60 {
        wire.line(&format!("SET long:{number} {long}"));
    }
    let rounds = if in_ci() { 1000 } else { 300 };
    thread::scope(|scope| {
        for client in 0..4 {
            let mut wire = server.connect();
            scope.spawn(move || {
                let mut random = Random::new(seed.wrapping_add(client));
                for _ in 0..rounds {
                    let in_transaction = random.below(8) == 0;
                    let count = if in_transaction {
                        random.between(1, 4)
                    } else {
                        1
                    };
                    let mut lines: Vec<String> =
                        (0..count).map(|_| random_line(&mut random)).collect();
                    if in_transaction {
                        lines.insert(0, "MULTI".to_owned());
                        lines.push("EXEC".to_owned());
                    }
                    for line in lines {
                        wire.line(&line);
                    }
                }
            });
        }
        for client in 4..6 {
            let mut wire = server.connect_memcached();
            scope.spawn(move || {
                let mut random = Random::new(seed.wrapping_add(client));
                for _ in 0..rounds {
                    memcached(&mut wire, random_item(&mut random).as_bytes());
                }
            });
        }
    });
    let data = (server.connect().line("DEBUG DIGEST"), items(&server));
    end(server);
    for threads in ["1", "2", "5"] {
        let server = Server::ferrite(&logged.clone().set("io-threads", threads));
        let replayed = (server.connect().line("DEBUG DIGEST"), items(&server));
        assert_eq!(replayed, data, "{threads} threads, FERRITE_SEED={seed}");
        if threads == "2" {
            assert_eq!(server.connect().line("DEBUG LOADAOF"), "+OK\r\n");
            let replayed = (server.connect().line("DEBUG DIGEST"), items(&server));
            assert_eq!(replayed, data, "under all locks, FERRITE_SEED={seed}");
        }
        end(server);
    }
    let _ = fs::remove_dir_all(&directory);
}

/// DEBUG LOADAOF puts what the log makes in the place of the data; it is not logged itself, and the log goes on.
#[test]
fn the_log_is_loaded_on_demand() {
    let directory = new_directory();
    let logged = options(&directory, "everysec").set("enable-debug-command", "yes");
    let server = Server::ferrite(&logged);
    write_every_type(&server);
    let data = fingerprint(&server);
    let mut wire = server.connect();
    assert_eq!(wire.line("DEBUG LOADAOF"), "+OK\r\n");
    assert_eq!(fingerprint(&server), data);
    let mut other = server.connect();
    for (line, reply) in [
        ("WATCH text", "+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        ("GET text", "+QUEUED\r\n"),
    ] {
        assert_eq!(other.line(line), reply);
    }
    for (line, reply) in [
        ("MULTI", "+OK\r\n"),
        ("DEBUG LOADAOF", "+QUEUED\r\n"),
        ("GET number", "+QUEUED\r\n"),
        ("EXEC", "*2\r\n+OK\r\n$7\r\n1000000\r\n"),
        (
            "BGREWRITEAOF",
            "+Background append only file rewriting started\r\n",
        ),
        ("DEBUG LOADAOF", "+OK\r\n"),
    ] {
        assert_eq!(wire.line(line), reply, "{line}");
    }
    assert_eq!(other.line("EXEC"), "*-1\r\n");
    assert_eq!(fingerprint(&server), data);
    assert_eq!(wire.line("SET later 1"), "+OK\r\n");
    assert_eq!(wire.line("DEL later"), ":1\r\n");
    end(server);
    let server = Server::ferrite(&logged);
    assert_eq!(fingerprint(&server), data);
    let mut wire = server.connect();
    assert_eq!(wire.line("CONFIG SET appendonly no"), "+OK\r\n");
    assert_eq!(wire.line("SET unlogged 1"), "+OK\r\n");
    assert_eq!(wire.line("DEBUG LOADAOF and more words"), "+OK\r\n");
    assert_eq!(fingerprint(&server), data);
    drop(server);
    let _ = fs::remove_dir_all(&directory);
}

/// As in Valkey, the data is gone then.
#[test]
fn a_log_that_is_not_there_or_not_sound_is_not_loaded_on_demand() {
    const REFUSED: &str = "-ERR Error trying to load the AOF files, check server logs.\r\n";
    let directory = new_directory();
    let settings = [
        ("appendonly", "no"),
        ("enable-debug-command", "yes"),
        ("dir", &*directory.display().to_string()),
    ];
    let options = settings
        .into_iter()
        .fold(Options::new(), |options, (name, value)| {
            options.set(name, value)
        });
    let mut servers = vec![Server::ferrite(&options)];
    servers.extend(Server::valkey(&options));
    for server in servers {
        let mut wire = server.connect();
        for (line, reply) in [
            ("SET a 1", "+OK\r\n"),
            ("DEBUG LOADAOF", REFUSED),
            ("DBSIZE", ":0\r\n"),
            ("CONFIG SET appendonly yes", "+OK\r\n"),
        ] {
            assert_eq!(wire.line(line), reply, "{line}");
        }
        wait_until_rewritten(&mut wire);
        assert_eq!(wire.line("SET b 2"), "+OK\r\n");
        assert_eq!(wire.line("DEBUG LOADAOF"), "+OK\r\n");
        let path = directory.join("appendonlydir/appendonly.aof.1.incr.aof");
        let mut log = fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .expect("the increment");
        log.write_all(b"neither a command nor a note")
            .expect("it is writable");
        for (line, reply) in [
            ("DEBUG LOADAOF", REFUSED),
            ("GET b", "$1\r\n2\r\n"),
            ("CONFIG SET appendonly no", "+OK\r\n"),
        ] {
            assert_eq!(wire.line(line), reply, "{line}");
        }
        drop(wire);
        drop(server);
        let _ = fs::remove_dir_all(directory.join("appendonlydir"));
    }
    let _ = fs::remove_dir_all(&directory);
}

/// What clients would be refused now was acknowledged when it was logged.
#[test]
fn everything_is_replayed_whatever_is_refused_now() {
    let directory = new_directory();
    let server = Server::ferrite(&options(&directory, "no"));
    let mut wire = server.connect();
    let value = "x".repeat(1000);
    wire.line("MULTI");
    for number in 0..2000 {
        wire.line(&format!("SET key:{number} {value}"));
    }
    wire.line("EXEC");
    end(server);
    for (name, setting) in [
        ("min-replicas-to-write", "1"),
        ("maxmemory", "1mb"),
        ("client-query-buffer-limit", "1mb"),
    ] {
        let server = Server::ferrite(&options(&directory, "no").set(name, setting));
        assert_eq!(server.connect().line("DBSIZE"), ":2000\r\n", "{name}");
        end(server);
    }
    let _ = fs::remove_dir_all(&directory);
}

#[test]
fn what_memcached_flushes_stays_flushed() {
    let directory = new_directory();
    let logged = options(&directory, "always");
    let server = Server::ferrite(&logged);
    let mut wire = server.connect();
    let mut memcached = server.connect_memcached();
    wire.line("MSET a 1 b 2");
    check_memcached_on(&mut memcached, &[("flush_all\r\n", "OK\r\n")]);
    let changes = wire.line("INFO persistence");
    assert!(
        changes.contains("rdb_changes_since_last_save:4\r\n"),
        "{changes}"
    );
    wire.line("SELECT 1");
    wire.line("SET other 3");
    wire.line("SELECT 0");
    wire.line("SET c 3");
    check_memcached_on(&mut memcached, &[("flush_all 1\r\n", "OK\r\n")]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while wire.line("DBSIZE") != ":0\r\n" {
        assert!(Instant::now() < deadline, "it is flushed in time");
        thread::sleep(Duration::from_millis(10));
    }
    end(server);
    let server = Server::ferrite(&logged);
    let mut wire = server.connect();
    assert_eq!(wire.line("DBSIZE"), ":0\r\n");
    wire.line("SELECT 1");
    assert_eq!(wire.line("DBSIZE"), ":1\r\n");
    let _ = fs::remove_dir_all(directory);
}

#[test]
fn replies_that_wait_for_the_disk_are_counted() {
    let directory = new_directory();
    let server = Server::ferrite(&options(&directory, "always"));
    let mut wire = server.connect();
    let sent = |info: &str| -> usize {
        let mut lines = info.lines();
        let line = lines.find_map(|line| line.strip_prefix("total_net_output_bytes:"));
        line.and_then(|number| number.parse().ok())
            .expect("a number")
    };
    let before = wire.line("INFO stats");
    for number in 0..100 {
        assert_eq!(wire.line(&format!("SET k {number}")), "+OK\r\n");
    }
    let after = wire.line("INFO stats");
    assert_eq!(sent(&after), sent(&before) + before.len() + 100 * 5);
    let _ = fs::remove_dir_all(directory);
}

#[test]
fn an_entry_that_its_own_trim_takes_is_logged_as_gone() {
    let directory = new_directory();
    let options = options(&directory, "no").set("enable-debug-command", "yes");
    let server = Server::ferrite(&options);
    let mut wire = server.connect();
    wire.line("XADD s MINID ~ 5 1-1 f v");
    wire.line("XADD s MINID ~ 5 6-1 f v");
    assert_eq!(wire.line("XLEN s"), ":1\r\n");
    assert_eq!(wire.line("DEBUG LOADAOF"), "+OK\r\n");
    assert_eq!(wire.line("XLEN s"), ":1\r\n");
}

/// As in Valkey: a HyperLogLog that somebody has written into takes elements until one of them is not in any run.
#[test]
fn what_a_command_changed_before_it_failed_is_logged() {
    let directory = new_directory();
    let options = options(&directory, "no").set("enable-debug-command", "yes");
    let server = Server::ferrite(&options);
    let mut wire = server.connect();
    // One run, of 16,000 registers instead of 16,384.
    wire.line(r#"SET h "HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x7e\x7f""#);
    let elements: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    let added = wire.line(&format!("PFADD h {}", elements.join(" ")));
    assert!(added.starts_with("-INVALIDOBJ"), "{added}");
    let before = wire.line("GET h");
    assert!(before.len() > 100, "some were added");
    assert_eq!(wire.line("DEBUG LOADAOF"), "+OK\r\n");
    assert_eq!(wire.line("GET h"), before);
}
