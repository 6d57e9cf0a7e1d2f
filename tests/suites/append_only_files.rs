//! The append-only file's directory: names, manifests, bases of either kind, and what a server that ended half way leaves.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use tests::{
    server::{Options, Server, missing, new_directory},
    wire::Wire,
};

use crate::append_only::{end, fingerprint, wait_until_rewritten, write_every_type};

fn options(directory: &Path) -> Options {
    Options::new()
        .set("appendonly", "yes")
        .set("enable-debug-command", "yes")
        .set("dir", &directory.display().to_string())
}

fn manifest(directory: &Path, prefix: &str) -> String {
    let path = directory.join(format!("appendonlydir/{prefix}.manifest"));
    fs::read_to_string(path).expect("a manifest")
}

/// The file of the log that the manifest calls its base.
fn base(directory: &Path) -> PathBuf {
    let manifest = manifest(directory, "appendonly.aof");
    let line = manifest.lines().find(|line| line.ends_with("type b"));
    let name = line.and_then(|line| line.split(' ').nth(1));
    directory
        .join("appendonlydir")
        .join(name.expect("the manifest names a base"))
}

/// Before there were manifests the log was one file. A server that ends after it has written the manifest and before it
/// has moved the file leaves the two apart.
#[test]
fn a_log_of_one_file_is_taken_over_wherever_that_ended_before() {
    const LOG: &str = "*3\r\n$3\r\nSET\r\n$3\r\nold\r\n$3\r\nlog\r\n";
    const MANIFEST: &str = "file appendonly.aof seq 1 type b\n";
    for (has_directory, has_manifest) in [(false, false), (true, false), (true, true)] {
        let directory = new_directory();
        let inside = directory.join("appendonlydir");
        fs::write(directory.join("appendonly.aof"), LOG).expect("a writable directory");
        if has_directory {
            fs::create_dir(&inside).expect("a writable directory");
        }
        if has_manifest {
            fs::write(inside.join("appendonly.aof.manifest"), MANIFEST).expect("writable");
        }
        let server = Server::ferrite(&options(&directory));
        assert_eq!(server.connect().line("GET old"), "$3\r\nlog\r\n");
        assert!(
            inside.join("appendonly.aof").exists() && !directory.join("appendonly.aof").exists()
        );
        assert!(manifest(&directory, "appendonly.aof").starts_with(MANIFEST));
        end(server);
        let server = Server::ferrite(&options(&directory));
        assert_eq!(server.connect().line("GET old"), "$3\r\nlog\r\n");
        drop(server);
        let _ = fs::remove_dir_all(&directory);
    }
}

/// Names with blanks and line ends are in the manifest as Valkey writes them.
#[test]
fn odd_names_are_quoted_in_the_manifest() {
    const NAME: &str = " file seq \n\t.aof ";
    let directory = new_directory();
    let settings = options(&directory).set("appendfilename", NAME);
    let server = Server::ferrite(&settings);
    server.connect().line("SET a 1");
    end(server);
    let ours = manifest(&directory, NAME);
    let server = Server::ferrite(&settings);
    assert_eq!(server.connect().line("GET a"), "$1\r\n1\r\n");
    end(server);
    match Server::valkey(&settings) {
        Some(valkey) => {
            assert_eq!(valkey.connect().line("GET a"), "$1\r\n1\r\n");
            valkey.connect().line("BGREWRITEAOF");
            wait_until_rewritten(&mut valkey.connect());
            drop(valkey);
            let theirs = manifest(&directory, NAME);
            assert_eq!(
                ours.replace("seq 1 type", "seq 2 type")
                    .replace(".1.", ".2."),
                theirs
            );
            let server = Server::ferrite(&settings);
            assert_eq!(server.connect().line("GET a"), "$1\r\n1\r\n");
        }
        None => missing("valkey-server"),
    }
    let _ = fs::remove_dir_all(&directory);
}

/// With `aof-use-rdb-preamble no` the base is commands, from which both servers make the same data.
#[test]
fn a_base_of_commands_has_all_data() {
    let directory = new_directory();
    let settings = options(&directory).set("aof-use-rdb-preamble", "no");
    let server = Server::ferrite(&settings);
    assert_eq!(fs::read(base(&directory)).expect("the base"), b"");
    write_every_type(&server);
    let mut wire = server.connect();
    for line in [
        "XADD drained 5-5 a b",
        "XDEL drained 5-5",
        "XGROUP CREATE drained group $ ENTRIESREAD 1",
        "XGROUP CREATECONSUMER drained group idle",
        "XADD void MAXLEN 0 1-1 a b",
        "XADD stream 99999999999999-1 a b c d",
        "XREADGROUP GROUP group other COUNT 9 STREAMS stream >",
        "ZADD sorted -0.1 negative 1e300 large",
    ] {
        let reply = wire.line(line);
        assert!(!reply.starts_with('-'), "{line}: {reply}");
    }
    let data = fingerprint(&server);
    wire.line("BGREWRITEAOF");
    wait_until_rewritten(&mut wire);
    assert_eq!(wire.line("DEBUG LOADAOF"), "+OK\r\n");
    assert_eq!(fingerprint(&server), data);
    end(server);
    let base = base(&directory);
    assert!(
        base.display()
            .to_string()
            .ends_with("appendonly.aof.2.base.aof")
    );
    assert!(
        fs::read(base)
            .expect("the base")
            .starts_with(b"*3\r\n$8\r\nFUNCTION\r\n")
    );
    let server = Server::ferrite(&settings);
    assert_eq!(fingerprint(&server), data);
    end(server);
    match Server::valkey(&settings) {
        Some(valkey) => assert_eq!(fingerprint(&valkey), data),
        None => missing("valkey-server"),
    }
    let _ = fs::remove_dir_all(&directory);
}

/// A base is of the kind that was asked for when its rewrite began.
#[test]
fn settings_that_change_during_a_rewrite_are_those_of_the_next() {
    let directory = new_directory();
    let server = Server::ferrite(&options(&directory).set("aof-use-rdb-preamble", "no"));
    let mut wire = server.connect();
    wire.line("SET a 1");
    wire.line("CONFIG SET rdb-key-save-delay 100000");
    wire.line("BGREWRITEAOF");
    assert_eq!(wire.line("CONFIG SET aof-use-rdb-preamble yes"), "+OK\r\n");
    wait_until_rewritten(&mut wire);
    assert!(manifest(&directory, "appendonly.aof").contains(".2.base.aof "));
    wire.line("BGREWRITEAOF");
    wait_until_rewritten(&mut wire);
    assert!(manifest(&directory, "appendonly.aof").contains(".3.base.rdb "));
    drop(server);
    let _ = fs::remove_dir_all(&directory);
}

/// A rewrite that is asked for while a snapshot is written, or in a transaction, waits for its end.
#[test]
fn a_rewrite_is_scheduled_behind_a_snapshot() {
    const SCHEDULED: &str = "+Background append only file rewriting scheduled\r\n";
    let directory = new_directory();
    let mut servers = vec![Server::ferrite(&options(&directory))];
    servers.extend(Server::valkey(&options(&new_directory())));
    for server in servers {
        let mut wire = server.connect();
        wire.line("SET a 1");
        wire.line("CONFIG SET rdb-key-save-delay 300000");
        assert_eq!(wire.line("BGSAVE"), "+Background saving started\r\n");
        assert_eq!(wire.line("BGREWRITEAOF"), SCHEDULED);
        let info = wire.line("INFO persistence");
        assert!(info.contains("aof_rewrite_scheduled:1"), "{info}");
        wire.line("CONFIG SET rdb-key-save-delay 0");
        wait_until_rewritten(&mut wire);
        for line in ["MULTI", "BGREWRITEAOF"] {
            wire.line(line);
        }
        assert_eq!(wire.line("EXEC"), format!("*1\r\n{SCHEDULED}"));
        wait_until_rewritten(&mut wire);
    }
    let _ = fs::remove_dir_all(&directory);
}

/// What memcached clients attach is in a base of commands too.
#[test]
fn a_base_of_commands_has_flags_and_cas() {
    let directory = new_directory();
    let settings = options(&directory).set("aof-use-rdb-preamble", "no");
    let server = Server::ferrite(&settings);
    let seen = |server: &Server| {
        let mut wire = server.connect_memcached();
        wire.send(b"gets item\r\n");
        let reply = wire.until(b"END\r\n").expect("an answer");
        String::from_utf8_lossy(&reply).into_owned()
    };
    let mut wire = server.connect_memcached();
    wire.send(b"set item 77 0 5\r\nhello\r\n");
    wire.until(b"STORED\r\n").expect("an answer");
    let stored = seen(&server);
    assert!(stored.starts_with("VALUE item 77 5 "), "{stored}");
    server.connect().line("BGREWRITEAOF");
    wait_until_rewritten(&mut server.connect());
    end(server);
    let server = Server::ferrite(&settings);
    assert_eq!(seen(&server), stored);
    drop(server);
    let _ = fs::remove_dir_all(&directory);
}

fn is_rewriting(wire: &mut Wire) -> bool {
    wire.line("INFO persistence")
        .contains("aof_rewrite_in_progress:1")
}

/// Turning the log off gives up the rewrite that runs, so that it can be turned on again.
#[test]
fn a_rewrite_ends_when_the_log_is_turned_off() {
    let directory = new_directory();
    let server = Server::ferrite(&options(&directory));
    let mut wire = server.connect();
    wire.line("DEBUG POPULATE 100");
    // A rewrite would take more than a minute.
    wire.line("CONFIG SET rdb-key-save-delay 1000000");
    wire.line("BGREWRITEAOF");
    assert!(is_rewriting(&mut wire));
    let started = Instant::now();
    for line in ["CONFIG SET appendonly no", "CONFIG SET appendonly yes"] {
        assert_eq!(wire.line(line), "+OK\r\n");
    }
    assert!(is_rewriting(&mut wire), "the log begins anew");
    let info = wire.line("INFO persistence");
    assert!(info.contains("aof_last_bgrewrite_status:ok"), "{info}");
    // The end does not come before the new log is there, unless it is forced.
    assert_eq!(
        wire.line("SHUTDOWN NOSAVE"),
        "-ERR Errors trying to SHUTDOWN. Check logs.\r\n"
    );
    assert!(server.log().contains("Writing initial AOF, can't exit."));
    for line in [
        "CONFIG SET appendonly no",
        "CONFIG SET rdb-key-save-delay 0",
    ] {
        assert_eq!(wire.line(line), "+OK\r\n");
    }
    while is_rewriting(&mut wire) {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(wire.line("CONFIG SET appendonly yes"), "+OK\r\n");
    wait_until_rewritten(&mut wire);
    assert!(started.elapsed() < Duration::from_secs(50));
    end(server);
    let server = Server::ferrite(&options(&directory));
    assert_eq!(server.connect().line("DBSIZE"), ":100\r\n");
    drop(server);
    let _ = fs::remove_dir_all(&directory);
}
