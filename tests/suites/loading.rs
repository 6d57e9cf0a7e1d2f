//! What clients see of a server that loads its data.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use tests::server::{Options, Server, new_directory};

const LOADING: &str = "-LOADING Valkey is loading the dataset in memory\r\n";
const KEYS: usize = 5000;

fn options(directory: &Path) -> Options {
    Options::new().set("dir", &directory.display().to_string())
}

/// A directory with a snapshot of some keys of every type.
fn directory_with_snapshot() -> std::path::PathBuf {
    let directory = new_directory();
    let server = Server::ferrite(&options(&directory).set("enable-debug-command", "yes"));
    let mut wire = server.connect();
    wire.line(&format!("DEBUG POPULATE {KEYS} key 50"));
    for number in 0..100 {
        wire.line(&format!("RPUSH list:{number} a b {number}"));
        wire.line(&format!("SADD set:{number} a b {number}"));
        wire.line(&format!("HSET hash:{number} field {number}"));
        wire.line(&format!("ZADD ranking:{number} {number} a 2 b"));
        wire.line(&format!("XADD stream:{number} 1-1 field {number}"));
    }
    wire.line("SELECT 3");
    wire.line("SET other value");
    wire.line("SAVE");
    directory
}

#[test]
fn commands_are_refused_until_all_data_is_there() {
    let directory = directory_with_snapshot();
    let slow = options(&directory).set("key-load-delay", "300");
    let mut server = Server::ferrite_loading(&slow);
    let mut wire = server.connect();
    for line in [
        "PING",
        "GET key:1",
        "SET key:1 x",
        "FLUSHALL",
        "DBSIZE",
        "SAVE",
        "EVAL x 0",
    ] {
        assert_eq!(wire.line(line), LOADING, "{line}");
    }
    for (line, start) in [
        ("SELECT 1", "+OK"),
        ("LASTSAVE", ":"),
        ("CONFIG GET dir", "*2"),
        ("CLIENT ID", ":"),
        ("MULTI", "+OK"),
        ("GET key:1", "-LOADING"),
        ("EXEC", "-EXECABORT"),
        ("NOSUCH", "-ERR unknown command"),
    ] {
        let reply = wire.line(line);
        assert!(reply.starts_with(start), "{line}: {reply}");
    }
    let facts = wire.line("INFO persistence");
    for part in [
        "loading:1\r\n",
        "async_loading:0\r\n",
        "loading_start_time:",
        "loading_total_bytes:",
        "loading_rdb_used_mem:",
        "loading_loaded_bytes:",
        "loading_loaded_perc:",
        "loading_eta_seconds:",
    ] {
        assert!(facts.contains(part), "{part} in {facts}");
    }
    let mut memcached = server.connect_memcached();
    memcached.send(b"get key:1\r\nversion\r\n");
    let said = memcached.until(b"VERSION").expect("an answer");
    assert!(said.starts_with(b"SERVER_ERROR loading the dataset in memory\r\n"));
    wire.line("CONFIG SET key-load-delay 0");
    server.wait_until_loaded().expect("it loads");
    let facts = server.connect().line("INFO persistence");
    assert!(facts.contains("loading:0\r\n") && !facts.contains("loading_total_bytes"));
    let mut wire = server.connect();
    assert_eq!(wire.line("DBSIZE"), format!(":{}\r\n", KEYS + 500));
    assert!(wire.line("GET key:1").contains("value:1"));
    let _ = fs::remove_dir_all(directory);
}

#[test]
fn a_server_that_loads_can_be_ended_and_leaves_its_files_alone() {
    let directory = directory_with_snapshot();
    let before = fs::read(directory.join("dump.rdb")).expect("it was saved");
    for way in ["TERM", "SHUTDOWN", "SHUTDOWN SAVE"] {
        let slow = options(&directory)
            .set("key-load-delay", "2000")
            .set("save", "3600 1");
        let mut server = Server::ferrite_loading(&slow);
        match way {
            "TERM" => server.signal("TERM"),
            line => {
                let mut wire = server.connect();
                wire.send(format!("{line}\r\n").as_bytes());
            }
        }
        let status = server.wait(Duration::from_secs(5)).expect("it ends");
        assert!(status.success(), "{way}");
        let after = fs::read(directory.join("dump.rdb")).expect("it is still there");
        assert!(before == after, "{way}");
    }
    let _ = fs::remove_dir_all(directory);
}

#[test]
fn an_append_only_file_is_loaded_while_clients_are_told_so() {
    let directory = new_directory();
    let logged = options(&directory).set("appendonly", "yes");
    {
        let mut server = Server::ferrite(&logged);
        let mut wire = server.connect();
        for number in 0..1000 {
            wire.line(&format!("SET key:{number} {number}"));
        }
        wire.send(b"SHUTDOWN\r\n");
        assert!(server.wait(Duration::from_secs(5)).is_some());
    }
    let mut server = Server::ferrite_loading(&logged.clone().set("key-load-delay", "500"));
    let mut wire = server.connect();
    assert_eq!(wire.line("GET key:1"), LOADING);
    assert_eq!(wire.line("CONFIG SET key-load-delay 0"), "+OK\r\n");
    server.wait_until_loaded().expect("it loads");
    assert_eq!(wire.line("DBSIZE"), ":1000\r\n");
    let _ = fs::remove_dir_all(directory);
}

#[test]
fn a_broken_file_ends_the_server_with_the_place_and_the_reason() {
    let directory = directory_with_snapshot();
    let path = directory.join("dump.rdb");
    let whole = fs::read(&path).expect("it was saved");
    // From the middle on what no type of value is.
    let mut broken = whole.clone();
    let middle = broken.len() / 2;
    broken[middle..].fill(0x60);
    fs::write(&path, broken).expect("it is writable");
    let binary = tests::server::locate(tests::server::Program::Ferrite).expect("it was built");
    let output = std::process::Command::new(binary)
        .args(["--port", "0", "--memcached-port", "0", "--dir"])
        .arg(&directory)
        .output()
        .expect("it can be run");
    let log = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(
        log.contains("Fatal error loading the DB from") && log.contains("at byte"),
        "{log}"
    );
    let _ = fs::remove_dir_all(directory);
}

/// What may not run while a primary's copy is loaded may not run in a transaction that was queued before either.
#[test]
fn a_transaction_queued_before_loading_is_refused_as_its_commands_are() {
    let primary = Server::ferrite(&Options::new().set("enable-debug-command", "yes"));
    primary.connect().line("DEBUG POPULATE 5000");
    let server = Server::ferrite(&Options::new().set("key-load-delay", "10000"));
    let (mut harmless, mut wire) = (server.connect(), server.connect());
    for (wire, line) in [(&mut harmless, "GET key:1"), (&mut wire, "BGSAVE")] {
        wire.line("MULTI");
        assert_eq!(wire.line(line), "+QUEUED\r\n");
    }
    let mut other = server.connect();
    let address = primary.resp_address();
    other.line(&format!("REPLICAOF {} {}", address.ip(), address.port()));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !other.line("INFO persistence").contains("async_loading:1") {
        assert!(Instant::now() < deadline, "loading begins in time");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(harmless.line("EXEC"), "*1\r\n$-1\r\n");
    let reply = wire.line("EXEC");
    let reason = format!(
        "-EXECABORT Transaction discarded because of: {}",
        &LOADING[1..]
    );
    assert_eq!(reply, reason);
    assert_eq!(wire.line("EXEC"), "-ERR EXEC without MULTI\r\n");
}
