//! Commands that wait for replicas or the disk, and what replicas are sent and from where they come.

use std::time::{Duration, Instant};

use tests::{server::Server, wire::Wire};

use super::{ask, eventually, follow, in_step, is_up, options};

fn pair(primary: &[(&str, &str)], replica: &[(&str, &str)]) -> (Server, Server) {
    let with = |settings: &[(&str, &str)]| {
        let all = settings.iter();
        Server::ferrite(&all.fold(options(), |options, (name, value)| options.set(name, value)))
    };
    let (primary, replica) = (with(primary), with(replica));
    follow(&replica, &primary);
    eventually("the link is up", || is_up(&replica));
    in_step(&primary, &replica);
    (primary, replica)
}

#[test]
fn who_waits_for_replicas_or_the_disk_goes_on_at_once() {
    let logged = [("appendonly", "yes"), ("appendfsync", "everysec")];
    let (primary, replica) = pair(&logged, &[]);
    let mut client = primary.connect();
    for line in ["WAIT 1 0", "WAITAOF 1 0 0"] {
        client.line("SET k v");
        let begun = Instant::now();
        let reply = client.line(line);
        assert!(
            reply == ":1\r\n" || reply.starts_with("*2\r\n:1\r\n"),
            "{reply}"
        );
        assert!(begun.elapsed() < Duration::from_secs(5), "{line}");
    }
    // One that nobody answers is ended from outside.
    let mut waiting = primary.connect();
    waiting.send_command(&["WAIT", "2", "0"]);
    eventually("it waits", || {
        ask(&primary, "INFO clients").contains("blocked_clients:1\r\n")
    });
    ask(
        &primary,
        &format!("REPLICAOF 127.0.0.1 {}", replica.resp_address().port()),
    );
    let said = String::from_utf8_lossy(&waiting.reply().expect("a reply")).into_owned();
    assert!(said.starts_with('-'), "{said}");
    // Nothing of it is left.
    eventually("it waits no more", || {
        ask(&primary, "INFO clients").contains("blocked_clients:0\r\n")
    });
}

#[test]
fn a_timeout_beyond_the_end_of_time_is_refused() {
    let server = Server::start(&options());
    let refused = "-ERR timeout is out of range\r\n";
    assert_eq!(ask(&server, "WAIT 2 9223372036854775807"), refused);
    assert_eq!(ask(&server, "WAITAOF 0 2 9223372036854775807"), refused);
}

#[test]
fn a_replica_comes_from_the_address_that_it_is_told() {
    let open = [("protected-mode", "no"), ("bind", "127.0.0.1")];
    let (primary, _replica) = pair(&open, &[("bind-source-addr", "127.0.0.2")]);
    let told = ask(&primary, "INFO replication");
    assert!(told.contains("slave0:ip=127.0.0.2,"), "{told}");
}

#[test]
fn a_paused_replica_reads_on_and_applies_later() {
    let (primary, replica) = pair(&[], &[]);
    let field = |name| super::field(&replica, "replication", name);
    let before = field("slave_repl_offset");
    ask(&replica, "CLIENT PAUSE 100000 WRITE");
    ask(&primary, "SET k v");
    eventually("it reads", || field("slave_read_repl_offset") > before);
    assert_eq!(ask(&replica, "GET k"), "$-1\r\n");
    ask(&replica, "CLIENT UNPAUSE");
    eventually("it applies", || ask(&replica, "GET k") == "$1\r\nv\r\n");
}

#[test]
fn a_transaction_begins_before_its_database_is_selected() {
    let server = Server::start(&options());
    let mut stream: Wire = server.connect();
    stream.send_command(&["SYNC"]);
    let head = stream.until(b"\r\n").expect("the copy's length");
    let digits = String::from_utf8_lossy(&head[1..head.len() - 2]).into_owned();
    stream
        .exactly(digits.parse().expect("a length"))
        .expect("the copy");
    let mut client = server.connect();
    for line in [
        "SELECT 3", "MULTI", "SET a 1", "SELECT 4", "SET b 1", "EXEC",
    ] {
        client.line(line);
    }
    let mut said = Vec::new();
    while said.last().is_none_or(|word| word != "EXEC") {
        let request = stream.reply().expect("a command");
        let (_, words) = tests::wire::parts(&request);
        let name = String::from_utf8_lossy(words[0]).into_owned();
        let name = name.split("\r\n").nth(1).unwrap_or_default().to_uppercase();
        if name != "PING" {
            said.push(name);
        }
    }
    assert_eq!(said, ["MULTI", "SELECT", "SET", "SELECT", "SET", "EXEC"]);
}

#[test]
fn a_copy_of_functions_alone_has_no_data() {
    let server = Server::start(&options());
    let mut client = server.connect();
    client.line("SET akey avalue");
    client.command(&[
        "FUNCTION",
        "LOAD",
        "#!lua name=alib\nredis.register_function('afunction', function() end)",
    ]);
    assert_eq!(
        client.line("REPLCONF rdb-filter-only nosuch"),
        "-ERR Unsupported rdb-filter-only option: nosuch\r\n"
    );
    for (filter, has_data, has_functions) in [
        (None, true, true),
        (Some("functions"), false, true),
        (Some(""), false, false),
    ] {
        let mut replica = server.connect();
        if let Some(filter) = filter {
            let said = replica.command(&["REPLCONF", "rdb-filter-only", filter]);
            assert_eq!(said, b"+OK\r\n");
        }
        replica.send_command(&["SYNC"]);
        let head = loop {
            let line = replica.until(b"\r\n").expect("the copy's length");
            let text = String::from_utf8_lossy(&line).trim().to_owned();
            if let Some(digits) = text.strip_prefix('$') {
                break digits.parse().expect("a length");
            }
        };
        let copy = replica.exactly(head).expect("the copy");
        let has = |word: &[u8]| tests::wire::find(&copy, word).is_some();
        assert_eq!(has(b"akey"), has_data, "{filter:?}");
        assert_eq!(has(b"afunction"), has_functions, "{filter:?}");
    }
}
