//! The append-only file: what was acknowledged survives a kill at any moment, and the files are Valkey's.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use tests::{
    random::Random,
    server::{Options, Server, in_ci, missing, new_directory},
};

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
}

/// Clients count up keys of their own as fast as they are acknowledged; the server is killed; no count may be missing.
#[test]
fn always_loses_no_acknowledged_write_when_killed() {
    const CLIENTS: usize = 4;
    let directory = new_directory();
    let rounds = if in_ci() { 200 } else { 20 };
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
        while server
            .connect()
            .line("INFO persistence")
            .contains("aof_rewrite_in_progress:1")
        {
            thread::sleep(Duration::from_millis(5));
        }
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
