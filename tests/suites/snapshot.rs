//! Snapshot files: their moment, their exchange with the real server, what happens when they are broken.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use tests::{
    ending::Ending,
    server::{Options, Program, Server, locate_peer, missing, new_directory},
    wire::{Wire, find},
};

const ACCOUNTS: usize = 3000;
const START: i64 = 1000;
const LISTS: usize = 8;
const ITEMS: usize = 4000;
const TELLERS: usize = 3;
const SAVES: usize = 6;
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory of its own with a copy of a server's snapshot file.
fn copy_of_snapshot(server: &Server) -> PathBuf {
    let directory = new_directory();
    let from = server.directory().join("dump.rdb");
    fs::copy(from, directory.join("dump.rdb")).expect("the file is there");
    directory
}

/// Waits until nothing is saved in the background.
fn wait_until_saved(wire: &mut Wire) {
    let deadline = Instant::now() + PATIENCE;
    while !wire
        .line("INFO persistence")
        .contains("rdb_bgsave_in_progress:0")
    {
        assert!(Instant::now() < deadline, "the snapshot ends in time");
        thread::sleep(Duration::from_millis(5));
    }
}

fn integer(reply: &str) -> i64 {
    let digits = reply.trim_start_matches(':').trim_end();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("not an integer: {reply}"))
}

/// Small steps of a random walk; each thread has its own.
fn next(seed: &mut u64) -> usize {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) as usize
}

/// Moves money between accounts and items between lists, of which no snapshot may see half.
fn transfer(server: &Server, teller: usize, stop: &AtomicBool) {
    let mut wire = server.connect();
    let mut seed = teller as u64 + 1;
    while !stop.load(Ordering::Relaxed) {
        let (from, to) = (next(&mut seed) % ACCOUNTS, next(&mut seed) % ACCOUNTS);
        let amount = next(&mut seed) % 50;
        let (source, target) = (next(&mut seed) % LISTS, next(&mut seed) % LISTS);
        for line in [
            "MULTI".to_owned(),
            format!("DECRBY account:{from} {amount}"),
            format!("RPOPLPUSH list:{source} list:{target}"),
            format!("INCRBY account:{to} {amount}"),
        ] {
            wire.line(&line);
        }
        assert!(wire.line("EXEC").starts_with("*3"));
    }
}

/// The sums that transfers leave alone.
fn sums(server: &Server) -> (i64, i64) {
    let mut wire = server.connect();
    let mut money = 0;
    for account in 0..ACCOUNTS {
        let reply = wire.line(&format!("INCRBY account:{account} 0"));
        money += integer(&reply);
    }
    let items = (0..LISTS)
        .map(|list| integer(&wire.line(&format!("LLEN list:{list}"))))
        .sum();
    (money, items)
}

#[test]
fn class_33_a_snapshot_is_of_one_instant() {
    let server = Server::ferrite(&Options::new());
    let mut wire = server.connect();
    for account in 0..ACCOUNTS {
        wire.line(&format!("SET account:{account} {START}"));
    }
    for item in 0..ITEMS {
        wire.line(&format!("RPUSH list:{} item:{item}", item % LISTS));
    }
    // So that a walk takes a while, in which much changes.
    wire.line("CONFIG SET rdb-key-save-delay 20");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ending = Ending(&stop);
        for teller in 0..TELLERS {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || transfer(server, teller, stop));
        }
        for save in 0..SAVES {
            assert_eq!(wire.line("BGSAVE"), "+Background saving started\r\n");
            wait_until_saved(&mut wire);
            let directory = copy_of_snapshot(&server);
            let options = Options::new().set("dir", &directory.to_string_lossy());
            let reader = if save % 2 == 0 {
                Some(Server::ferrite(&options))
            } else {
                Server::valkey(&options)
            };
            let Some(reader) = reader else {
                missing("valkey-server");
                continue;
            };
            let expected = (ACCOUNTS as i64 * START, ITEMS as i64);
            assert_eq!(sums(&reader), expected, "snapshot {save}");
        }
    });
    assert!(
        wire.line("INFO persistence")
            .contains("rdb_last_bgsave_status:ok")
    );
}

#[test]
fn what_was_saved_is_there_after_a_restart() {
    let mut server = Server::start(&Options::new());
    let mut wire = server.connect();
    wire.line("SET key value");
    wire.line("RPUSH list a b c");
    wire.line("SADD set 1 2 3");
    wire.line("PSETEX soon 1000000 value");
    wire.line("PSETEX gone 1 value");
    wire.line("SELECT 5");
    wire.line("SET other 5");
    assert_eq!(wire.line("SAVE"), "+OK\r\n");
    assert!(
        wire.line("INFO persistence")
            .contains("rdb_changes_since_last_save:0\r\n")
    );
    wire.line("SELECT 0");
    wire.line("SET key lost");
    wire.send_command(&["SHUTDOWN", "NOSAVE"]);
    assert!(server.wait(PATIENCE).expect("it ends").success());
    let directory = copy_of_snapshot(&server);
    let again = Server::start(&Options::new().set("dir", &directory.to_string_lossy()));
    let mut wire = again.connect();
    for (line, reply) in [
        ("GET key", "$5\r\nvalue\r\n"),
        (
            "LRANGE list 0 -1",
            "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n",
        ),
        ("SCARD set", ":3\r\n"),
        ("EXISTS soon gone", ":1\r\n"),
        ("TTL soon", ":1000\r\n"),
        ("DBSIZE", ":4\r\n"),
    ] {
        let got = wire.line(line);
        if line == "TTL soon" {
            assert!((990..=1000).contains(&integer(&got)), "{got}");
        } else {
            assert_eq!(got, reply, "{line}");
        }
    }
    wire.line("SELECT 5");
    assert_eq!(wire.line("GET other"), "$1\r\n5\r\n");
}

#[test]
fn the_end_saves_if_there_are_save_points() {
    for (signal, save, kept) in [
        (true, "3600 1", true),
        (false, "3600 1", true),
        (true, "", false),
    ] {
        let mut server = Server::start(&Options::new().set("save", save));
        let mut wire = server.connect();
        wire.line("SET key value");
        if signal {
            server.signal("TERM");
        } else {
            wire.send_command(&["SHUTDOWN"]);
        }
        assert!(server.wait(PATIENCE).expect("it ends").success());
        assert_eq!(server.directory().join("dump.rdb").exists(), kept);
    }
}

#[test]
fn save_points_save_and_failures_stop_writes() {
    let server = Server::start(&Options::new().set("save", "1 1"));
    let mut wire = server.connect();
    wire.line("SET key value");
    let file = server.directory().join("dump.rdb");
    let deadline = Instant::now() + PATIENCE;
    while !file.exists() {
        assert!(Instant::now() < deadline, "the save point saves in time");
        thread::sleep(Duration::from_millis(20));
    }
    wait_until_saved(&mut wire);
    // A directory in the place of the file cannot be replaced.
    fs::remove_file(&file).expect("it is there");
    fs::create_dir_all(file.join("in the way")).expect("the directory is writable");
    wire.line("BGSAVE");
    wait_until_saved(&mut wire);
    assert!(
        wire.line("INFO persistence")
            .contains("rdb_last_bgsave_status:err")
    );
    assert!(wire.line("SET key other").starts_with("-MISCONF "));
    assert!(wire.line("PING").starts_with("-MISCONF "));
    assert_eq!(wire.line("GET key"), "$5\r\nvalue\r\n");
    wire.line("CONFIG SET stop-writes-on-bgsave-error no");
    assert_eq!(wire.line("SET key other"), "+OK\r\n");
    fs::remove_dir_all(&file).expect("it is there");
    wire.line("CONFIG SET stop-writes-on-bgsave-error yes");
    wire.line("BGSAVE");
    wait_until_saved(&mut wire);
    assert_eq!(wire.line("SET key other"), "+OK\r\n");
}

/// What FLUSHALL deletes is not to come back: a snapshot of it that is being written is given up, and with save points an
/// empty one takes the old one's place.
#[test]
fn flushall_gives_up_the_snapshot_of_what_it_deletes() {
    let server = Server::start(&Options::new().set("save", "3600 1000000"));
    let mut wire = server.connect();
    for key in 0..100 {
        wire.line(&format!("SET key:{key} value"));
    }
    assert_eq!(wire.line("SAVE"), "+OK\r\n");
    let size = || fs::metadata(server.directory().join("dump.rdb")).map_or(0, |facts| facts.len());
    let full = size();
    wire.line("CONFIG SET rdb-key-save-delay 1000000");
    assert_eq!(wire.line("BGSAVE"), "+Background saving started\r\n");
    assert_eq!(wire.line("FLUSHALL"), "+OK\r\n");
    let deadline = Instant::now() + Duration::from_secs(20);
    while size() >= full / 2 {
        assert!(Instant::now() < deadline, "an empty file is written");
        thread::sleep(Duration::from_millis(10));
    }
    let info = wire.line("INFO persistence");
    assert!(info.contains("rdb_last_bgsave_status:ok"), "{info}");
}

#[test]
fn bgsave_is_cancelled_and_scheduled() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    for key in 0..1000 {
        wire.line(&format!("SET key:{key} value"));
    }
    assert_eq!(
        wire.line("BGSAVE CANCEL"),
        "-ERR Background saving is currently not in progress or scheduled\r\n"
    );
    assert_eq!(wire.line("BGSAVE NOW"), "-ERR syntax error\r\n");
    wire.line("CONFIG SET rdb-key-save-delay 100000");
    assert_eq!(wire.line("BGSAVE"), "+Background saving started\r\n");
    let busy = "-ERR Background save already in progress\r\n";
    assert_eq!(wire.line("BGSAVE"), busy);
    assert_eq!(wire.line("SAVE"), busy);
    assert_eq!(
        wire.line("BGSAVE CANCEL"),
        "+Background saving cancelled\r\n"
    );
    wait_until_saved(&mut wire);
    assert!(!server.directory().join("dump.rdb").exists());
    wire.line("CONFIG SET rdb-key-save-delay 0");
    wire.line("MULTI");
    wire.line("BGSAVE");
    assert_eq!(wire.line("EXEC"), "*1\r\n+Background saving scheduled\r\n");
}

#[test]
fn broken_files_are_refused_with_a_word() {
    let server = Server::ferrite(&Options::new());
    let mut wire = server.connect();
    for key in 0..100 {
        wire.line(&format!("SET key:{key} value:{key}"));
    }
    wire.line("SAVE");
    let whole = fs::read(server.directory().join("dump.rdb")).expect("it was saved");
    let binary = tests::server::locate(Program::Ferrite).expect("it runs above");
    let mut changed = whole.clone();
    // Within a value, so that nothing but the checksum tells.
    let at = find(&whole, b"value:50").expect("it was saved");
    changed[at] ^= 1;
    let cases = [
        (changed, "checksum"),
        (whole[..whole.len() - 30].to_vec(), "short read"),
        ([b"NOTRDB", &whole[6..]].concat(), "signature"),
        ([b"REDIS9999", &whole[9..]].concat(), "version 9999"),
    ];
    for (bytes, word) in cases {
        let directory = new_directory();
        fs::write(directory.join("dump.rdb"), bytes).expect("the directory is writable");
        let output = Command::new(&binary)
            .args(["--port", "0", "--memcached-port", "0", "--dir"])
            .arg(&directory)
            .output()
            .expect("it can be run");
        let log = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(log.contains(word), "{word}: {log}");
    }
}

#[test]
fn files_pass_the_real_checker() {
    let Some(checker) = locate_peer("valkey-check-rdb") else {
        missing("valkey-check-rdb");
        return;
    };
    let server = Server::ferrite(&Options::new());
    let mut wire = server.connect();
    for key in 0..500 {
        wire.line(&format!("SET key:{key} {}", "x".repeat(key)));
        wire.line(&format!("RPUSH list {key}"));
        wire.line(&format!("SADD set member:{key}"));
    }
    wire.line("SELECT 9");
    wire.line("SET key value PX 100000000");
    for setting in ["yes", "no"] {
        wire.line(&format!("CONFIG SET rdbcompression {setting}"));
        wire.line("SAVE");
        let output = Command::new(&checker)
            .arg(server.directory().join("dump.rdb"))
            .output()
            .expect("it can be run");
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn values_travel_by_dump_and_restore() {
    let ours = Server::ferrite(&Options::new().set("enable-debug-command", "yes"));
    let Some(theirs) = Server::valkey(&Options::new().set("enable-debug-command", "yes")) else {
        missing("valkey-server");
        return;
    };
    let (mut ours, mut theirs) = (ours.connect(), theirs.connect());
    let many = |word: &str| -> Vec<String> { (0..700).map(|n| format!("{word}{n}")).collect() };
    let scored = |count: usize| -> String {
        let pairs: Vec<String> = (0..count)
            .map(|n| format!("{}.5 member{n}", n * n))
            .collect();
        pairs.join(" ")
    };
    let creations = [
        "SET text hello".to_owned(),
        "SET number -12345".to_owned(),
        format!("SET long {}", "ab".repeat(9000)),
        "SET soon value PX 100000000".to_owned(),
        "RPUSH list a 1 -5 1099511627776".to_owned(),
        format!("RPUSH long-list {}", many("item").join(" ")),
        "SADD integers 1 2 300000 -9223372036854775808".to_owned(),
        "SADD set a b 1".to_owned(),
        format!("SADD large-set {}", many("member").join(" ")),
        "HSET hash a 1 b two".to_owned(),
        format!("HSET large-hash {}", many("word").join(" ")),
        "HSET fading a 1 b 2".to_owned(),
        "HEXPIRE fading 100000 FIELDS 1 a".to_owned(),
        "XADD stream 1-1 field one".to_owned(),
        "XADD stream 1-2 field two other three".to_owned(),
        "XADD stream 9-0 field four".to_owned(),
        "XDEL stream 1-2".to_owned(),
        "XGROUP CREATE stream group 0".to_owned(),
        "XREADGROUP GROUP group reader COUNT 1 STREAMS stream >".to_owned(),
        format!("ZADD sorted {}", scored(5)),
        format!("ZADD large-sorted {} -inf low inf high", scored(300)),
    ];
    for line in &creations {
        assert!(!theirs.line(line).starts_with('-'), "{line}");
    }
    for key in [
        "text",
        "number",
        "long",
        "soon",
        "list",
        "long-list",
        "integers",
        "set",
        "large-set",
        "hash",
        "large-hash",
        "fading",
        "stream",
        "sorted",
        "large-sorted",
    ] {
        // There and back: the deadline of a key does not travel.
        let payload = theirs.command(&["DUMP", key]);
        let restored = ours.command(&[b"RESTORE", key.as_bytes(), b"0", bulk(&payload)]);
        assert_eq!(restored, b"+OK\r\n", "{key}");
        let payload = ours.command(&["DUMP", key]);
        theirs.line("DEL copy");
        let restored = theirs.command(&[b"RESTORE".as_slice(), b"copy", b"0", bulk(&payload)]);
        assert_eq!(restored, b"+OK\r\n", "{key}");
        theirs.command(&["PERSIST", key]);
        let digests = theirs.line(&format!("DEBUG DIGEST-VALUE {key} copy"));
        let digests: Vec<&str> = digests.split("\r\n").collect();
        assert_eq!(digests[1], digests[2], "{key}");
        if key == "stream" {
            for question in ["XINFO GROUPS", "XPENDING"] {
                let group = if question == "XPENDING" { "group" } else { "" };
                let original = theirs.line(&format!("{question} stream {group}"));
                assert_eq!(theirs.line(&format!("{question} copy {group}")), original);
            }
        }
        let digest = ours.line(&format!("DEBUG DIGEST-VALUE {key}"));
        assert!(digest.contains(digests[1]), "{key}");
        let mut torn = bulk(&payload).to_vec();
        torn[0] ^= 64;
        assert_eq!(
            ours.command(&[b"RESTORE".as_slice(), b"torn", b"0", &torn]),
            b"-ERR DUMP payload version or checksum are wrong\r\n"
        );
    }
    // The same data has the same digest, whatever way it came.
    theirs.line("DEL copy");
    let digest = theirs.line("DEBUG DIGEST");
    assert_eq!(ours.line("DEBUG DIGEST"), digest);
    assert_eq!(ours.line("DEBUG RELOAD"), "+OK\r\n");
    assert_eq!(ours.line("DEBUG DIGEST"), digest);
}

/// The bytes of a bulk string.
fn bulk(reply: &[u8]) -> &[u8] {
    let start = find(reply, b"\r\n").expect("a bulk string") + 2;
    &reply[start..reply.len() - 2]
}

/// What DEBUG RELOAD keeps, replaces and forgets is what the reference server does.
#[test]
fn reloading_takes_the_options_of_the_reference_server() {
    const UNLOADABLE: &str = "-ERR Error trying to load the RDB dump, check server logs.\r\n";
    let options = Options::new()
        .set("enable-debug-command", "yes")
        .set("save", "");
    let mut servers = vec![Server::ferrite(&options)];
    servers.extend(Server::valkey(&options));
    let load = |name: &str| {
        format!(
            "FUNCTION LOAD \"#!lua name={name}\\nredis.register_function('{name}', function() return 1 end)\""
        )
    };
    for server in servers {
        let mut wire = server.connect();
        for (line, reply) in [
            ("DEBUG RELOAD NOSAVE", UNLOADABLE),
            ("SET a 1", "+OK\r\n"),
            (&load("one"), "$3\r\none\r\n"),
            ("DEBUG RELOAD", "+OK\r\n"),
            ("FCALL one 0", ":1\r\n"),
            ("SET a 2", "+OK\r\n"),
            ("SET b 3", "+OK\r\n"),
            (&load("two"), "$3\r\ntwo\r\n"),
            ("DEBUG RELOAD nosave NOFLUSH Merge", "+OK\r\n"),
            ("MGET a b", "*2\r\n$1\r\n1\r\n$1\r\n3\r\n"),
            ("FCALL two 0", ":1\r\n"),
            ("DEBUG RELOAD NOSAVE NOFLUSH", UNLOADABLE),
            ("DEBUG RELOAD NOSAVE NOSAVE NOSAVE NOSAVE", "+OK\r\n"),
            ("MGET a b", "*2\r\n$1\r\n1\r\n$-1\r\n"),
            ("FCALL two 0", "-ERR Function not found\r\n"),
            ("DEL a", ":1\r\n"),
            ("DEBUG RELOAD NOSAVE NOFLUSH", UNLOADABLE),
            (
                "DEBUG RELOAD NOSAVE and more than five words",
                "-ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.\r\n",
            ),
        ] {
            assert_eq!(wire.line(line), reply, "{:?}: {line}", server.program());
        }
    }
}

/// A reload fails the transactions that watch what was there.
#[test]
fn reloading_touches_watched_keys() {
    let options = Options::new()
        .set("enable-debug-command", "yes")
        .set("save", "");
    let mut servers = vec![Server::ferrite(&options)];
    servers.extend(Server::valkey(&options));
    for server in servers {
        let mut wire = server.connect();
        for (key, outcome) in [("a", "*-1\r\n"), ("missing", "*1\r\n+PONG\r\n")] {
            for (line, reply) in [
                ("SET a 1", "+OK\r\n"),
                (&*format!("WATCH {key}"), "+OK\r\n"),
                ("DEBUG RELOAD", "+OK\r\n"),
                ("MULTI", "+OK\r\n"),
                ("PING", "+QUEUED\r\n"),
                ("EXEC", outcome),
            ] {
                assert_eq!(wire.line(line), reply, "{:?}: {line}", server.program());
            }
        }
    }
}

#[test]
fn populated_data_is_the_reference_servers() {
    let options = Options::new().set("enable-debug-command", "yes");
    let ours = Server::ferrite(&options);
    let Some(theirs) = Server::valkey(&options) else {
        missing("valkey-server");
        return;
    };
    let (mut ours, mut theirs) = (ours.connect(), theirs.connect());
    for line in [
        "SET key:3 existing",
        "DEBUG POPULATE 10",
        "DEBUG POPULATE 10 sized 20",
        "DEBUG POPULATE 10 short 3",
        "DEBUG POPULATE 10 natural 0",
        "DEBUG POPULATE 10 bad -1",
        "DEBUG POPULATE 10 bad x",
        "DEBUG POPULATE -5",
        "DEBUG POPULATE x",
        "DEBUG POPULATE",
        "DEBUG POPULATE 5 a 5 6",
        "GET natural:1",
        "DBSIZE",
        "DEBUG DIGEST",
        "DEBUG DIGEST-VALUE key:1 missing key:2",
    ] {
        assert_eq!(ours.line(line), theirs.line(line), "{line}");
    }
}
