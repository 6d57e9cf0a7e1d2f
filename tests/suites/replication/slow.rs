//! Replicas that do not read, and links that stall: they cost the primary what `client-output-buffer-limit` grants, and
//! then they are dropped.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use tests::{
    proxy::Proxy,
    server::{Options, Server, missing},
    wire::{Wire, encode},
};

use super::{ask, eventually, ferrites, field, follow_at, in_step, is_up, options};

const MEBIBYTE: u64 = 1 << 20;
/// What a replica may make the primary keep, of the stream, and of what has changed since its copy's cut.
const LIMIT: u64 = 6 * MEBIBYTE;
/// Keys of about a kilobyte.
const KEYS: usize = 24_000;
/// Beside what is measured: buffers in the sockets' neighbourhood, tables, statistics.
const SLACK: u64 = 8 * MEBIBYTE;

fn strict() -> Options {
    options()
        .set("repl-backlog-size", "1mb")
        .set("client-output-buffer-limit", "replica 6mb 0 0")
}

/// A connection that has asked for a full sync, and reads what it is told to.
fn ask_for_all(primary: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(primary.resp_address()).expect("the primary listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout can be set");
    for words in [
        &["REPLCONF", "listening-port", "7"][..],
        &["REPLCONF", "capa", "eof", "capa", "psync2"],
        &["REPLCONF", "version", "9.1.2"],
    ] {
        let mut request = Vec::new();
        encode(words, &mut request);
        stream.write_all(&request).expect("the primary reads");
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"+OK\r\n");
    }
    stream
        .write_all(b"PSYNC ? -1\r\n")
        .expect("the primary reads");
    stream
}

/// Sets keys again, each to as much as before.
fn overwrite(wire: &mut Wire, keys: usize, round: usize) {
    let value = format!("{round:01000}");
    for first in (0..keys).step_by(500) {
        let mut request = Vec::new();
        for key in first..first + 500 {
            encode(&["SET", &format!("key:{key}"), &value], &mut request);
        }
        wire.send(&request);
        for _ in 0..500 {
            assert_eq!(wire.reply().expect("a reply"), b"+OK\r\n");
        }
    }
}

fn used_memory(primary: &Server) -> u64 {
    field(primary, "memory", "used_memory")
}

fn is_dropped(primary: &Server) -> bool {
    field(primary, "replication", "connected_slaves") == 0
        && field(
            primary,
            "stats",
            "client_output_buffer_limit_disconnections",
        ) > 0
}

/// Overwrites all data while a replica reads nothing: memory stays where it was, but for what is granted.
fn check_bounded(primary: &Server) {
    let before = used_memory(primary);
    let mut wire = primary.connect();
    let mut highest = 0;
    for round in 0..3 {
        overwrite(&mut wire, KEYS, round);
        highest = highest.max(used_memory(primary));
    }
    eventually("the replica is dropped", || is_dropped(primary));
    let granted = 2 * LIMIT + SLACK;
    assert!(
        highest < before + granted,
        "{before} bytes before, {highest} with a replica that does not read"
    );
    let log = primary.log();
    assert!(log.contains("closed for overcoming of output buffer limits"));
}

#[test]
fn a_replica_that_never_reads_its_copy_is_dropped() {
    let primary = Server::ferrite(&strict());
    overwrite(&mut primary.connect(), KEYS, 0);
    let stalled = ask_for_all(&primary);
    eventually("the copy has begun", || {
        ask(&primary, "INFO replication").contains("state=send_bulk")
    });
    check_bounded(&primary);
    drop(stalled);
    // The next one is served as if nothing had been.
    let replica = Server::ferrite(&options());
    follow_at(&replica, primary.resp_address());
    in_step(&primary, &replica);
}

/// Replicas that are being sent a copy.
fn copied(primary: &Server) -> usize {
    let told = ask(primary, "INFO replication");
    told.matches("state=send_bulk").count()
}

#[test]
fn replicas_that_wait_share_one_copy_and_none_holds_up_another_for_long() {
    let primary = Server::ferrite(&options());
    overwrite(&mut primary.connect(), KEYS, 0);
    let first = ask_for_all(&primary);
    eventually("the first copy has begun", || copied(&primary) == 1);
    // These wait for the next copy, which begins when the first has ended.
    let stalled = ask_for_all(&primary);
    let mut reading = ask_for_all(&primary);
    let waits = || {
        ask(&primary, "INFO replication")
            .matches("state=wait_bgsave")
            .count()
            == 2
    };
    eventually("two wait", waits);
    drop(first);
    eventually("two are sent the same", || copied(&primary) == 2);
    let mut buffer = vec![0; 1 << 20];
    let mut seen = 0;
    while seen < KEYS * 1000 {
        let read = reading.read(&mut buffer).expect("the copy comes");
        assert!(read > 0, "the copy ended after {seen} bytes");
        seen += read;
    }
    assert!(primary.log().contains("keeps others waiting"));
    drop(stalled);
}

#[test]
fn a_replica_that_stops_reading_the_stream_is_dropped() {
    let primary = Server::ferrite(&strict());
    let mut stalled = ask_for_all(&primary);
    // The copy of an empty server is short: it ends with the mark that it began with.
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    let mark_len = 40;
    loop {
        let read = stalled.read(&mut buffer).expect("the copy comes");
        seen.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&seen).into_owned();
        if let Some((_, rest)) = text.split_once("$EOF:")
            && rest.len() > mark_len
            && rest[mark_len..].contains(&rest[..mark_len])
        {
            break;
        }
    }
    stalled
        .write_all(b"*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n$1\r\n0\r\n")
        .expect("the primary reads");
    eventually("it is online", || {
        ask(&primary, "INFO replication").contains("state=online")
    });
    overwrite(&mut primary.connect(), KEYS, 0);
    check_bounded(&primary);
}

/// More than the soft limit, for longer than it may be.
#[test]
fn a_stalled_link_is_dropped_by_the_soft_limit_and_goes_on_afterwards() {
    let limits = options()
        .set("repl-backlog-size", "16kb")
        .set("client-output-buffer-limit", "replica 0 1mb 1");
    let primary = Server::ferrite(&limits);
    let proxy = Proxy::start(primary.resp_address());
    let replicas = [
        Some(Server::ferrite(&options())),
        Server::valkey(&options()),
    ];
    if replicas[1].is_none() {
        missing("valkey-server");
    }
    for replica in replicas.iter().flatten() {
        follow_at(replica, proxy.address());
        in_step(&primary, replica);
    }
    proxy.stall();
    overwrite(&mut primary.connect(), KEYS / 2, 1);
    eventually("the replicas are dropped", || is_dropped(&primary));
    assert!(field(&primary, "memory", "mem_replication_backlog") < MEBIBYTE);
    proxy.resume();
    proxy.cut();
    for replica in replicas.iter().flatten() {
        eventually("the link is up again", || is_up(replica));
        in_step(&primary, replica);
    }
}

/// A process that is stopped and goes on keeps its links, on either side.
#[test]
fn a_process_that_was_stopped_keeps_its_link() {
    let (primary, replica) = ferrites(&options(), &options());
    let links = || {
        let told = ask(&primary, "CLIENT LIST TYPE replica");
        let id = told.split_once("id=").map(|(_, rest)| rest);
        id.and_then(|rest| rest.split(' ').next().map(str::to_owned))
    };
    let link = links();
    for stopped in [&replica, &primary, &replica] {
        stopped.signal("STOP");
        std::thread::sleep(Duration::from_millis(50));
        stopped.signal("CONT");
        for _ in 0..20 {
            assert_eq!(ask(&primary, "INCR number").as_bytes()[0], b':');
        }
        in_step(&primary, &replica);
    }
    assert_eq!(links(), link);
    assert_eq!(field(&primary, "stats", "sync_partial_ok"), 0);
}

/// DEBUG SLEEP stops the links too, as it does where one thread does everything.
#[test]
fn a_server_that_sleeps_neither_applies_nor_sends_the_stream() {
    for sleeper in ["the replica", "the primary"] {
        let (primary, replica) = ferrites(&options(), &options());
        let mut sleeping = match sleeper {
            "the replica" => replica.connect(),
            _ => primary.connect(),
        };
        let mut writer = primary.connect();
        sleeping.send(b"DEBUG SLEEP 1.5\r\n");
        if sleeper == "the replica" {
            std::thread::sleep(Duration::from_millis(500));
            assert_eq!(writer.line("SET a 1"), "+OK\r\n");
            assert_eq!(writer.line("WAIT 1 300"), ":0\r\n", "{sleeper}");
        }
        assert_eq!(sleeping.reply().expect("it wakes up"), b"+OK\r\n");
        assert_eq!(writer.line("SET a 2"), "+OK\r\n");
        assert_eq!(writer.line("WAIT 1 10000"), ":1\r\n", "{sleeper}");
    }
}

/// Whoever was killed is sent nothing more: what is done in the same transaction comes only with the next link.
#[test]
fn a_replica_that_is_killed_is_sent_nothing_of_what_follows() {
    let (primary, replica) = ferrites(&options().set("repl-backlog-size", "16384"), &options());
    let value = "x".repeat(16384);
    let mut wire = primary.connect();
    for line in ["MULTI", "CLIENT KILL TYPE replica"] {
        wire.line(line);
    }
    for key in 0..10 {
        wire.command(&["SET", &format!("key:{key}"), &value]);
    }
    assert!(wire.line("EXEC").starts_with("*11\r\n:1\r\n"));
    in_step(&primary, &replica);
    assert_eq!(field(&primary, "stats", "sync_full"), 2);
}

/// What is kept for a replica that is being sent a copy stays, whoever else comes back and goes on where it was.
#[test]
fn a_replica_that_comes_back_takes_nothing_from_one_that_is_being_copied() {
    let (primary, replica) = ferrites(&options().set("repl-backlog-size", "16384"), &options());
    let mut wire = primary.connect();
    overwrite(&mut wire, 2_000, 0);
    in_step(&primary, &replica);
    // Each key of the copy takes a second.
    ask(&primary, "CONFIG SET rdb-key-save-delay 1000000");
    let copied_to = ask_for_all(&primary);
    eventually("the copy has begun", || copied(&primary) == 1);
    assert_eq!(field(&primary, "persistence", "rdb_bgsave_in_progress"), 1);
    overwrite(&mut wire, 2_000, 1);
    in_step(&primary, &replica);
    let kept = || field(&primary, "replication", "repl_backlog_histlen");
    let before = kept();
    assert!(before > 2_000_000, "{before}");
    ask(&replica, "CLIENT KILL TYPE primary");
    eventually("the replica comes back", || {
        field(&primary, "stats", "sync_partial_ok") == 1
    });
    overwrite(&mut wire, 500, 2);
    in_step(&primary, &replica);
    assert!(kept() > before);
    // Whoever leaves while it waits for a slow copy is missed.
    drop(copied_to);
    eventually("the one that is copied to has gone", || {
        field(&primary, "replication", "connected_slaves") == 1
    });
    eventually("nothing is kept for it", || kept() < 200_000);
}
