//! Commands that wait: who is served when, with what, and that nothing is lost or given twice.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use tests::{
    server::{Options, Server},
    wire::{Wire, split_line},
};

/// Sends a command that will wait, and returns once the server counts so many that do.
#[track_caller]
fn block(server: &Server, wire: &mut Wire, line: &str, blocked: usize) {
    wire.send_command(&split_line(line));
    await_blocked(server, blocked);
}

#[track_caller]
fn await_blocked(server: &Server, blocked: usize) {
    let mut observer = server.connect();
    let wanted = format!("blocked_clients:{blocked}\r\n");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !observer.line("INFO clients").contains(&wanted) {
        assert!(Instant::now() < deadline, "never {blocked} blocked clients");
    }
}

#[track_caller]
fn expect(wire: &mut Wire, expected: &str) {
    let received = wire.exactly(expected.len()).expect("the reply");
    assert_eq!(String::from_utf8_lossy(&received), expected);
}

#[test]
fn clients_are_served_in_the_order_they_came() {
    let server = Server::start(&Options::new());
    let (mut first, mut second, mut writer) =
        (server.connect(), server.connect(), server.connect());
    block(&server, &mut first, "BLPOP a b 0", 1);
    block(&server, &mut second, "BRPOP b 0", 2);
    assert_eq!(writer.line("RPUSH b 1 2 3"), ":3\r\n");
    expect(&mut first, "*2\r\n$1\r\nb\r\n$1\r\n1\r\n");
    expect(&mut second, "*2\r\n$1\r\nb\r\n$1\r\n3\r\n");
    assert_eq!(writer.line("LRANGE b 0 -1"), "*1\r\n$1\r\n2\r\n");
    await_blocked(&server, 0);
    assert!(
        writer
            .line("INFO clients")
            .contains("total_blocking_keys:0\r\n")
    );
}

#[test]
fn chains_of_moves_are_served_by_one_write() {
    let server = Server::start(&Options::new());
    let mut clients: Vec<Wire> = (0..8).map(|_| server.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let line = format!("BLMOVE list:{number} list:{} LEFT RIGHT 0", number + 1);
        block(&server, client, &line, number + 1);
    }
    let mut writer = server.connect();
    writer.send_command(&["RPUSH", "list:0", "x"]);
    writer.send_command(&["LRANGE", "list:8", "0", "-1"]);
    expect(&mut writer, ":1\r\n*1\r\n$1\r\nx\r\n");
    clients
        .iter_mut()
        .for_each(|client| expect(client, "$1\r\nx\r\n"));
}

#[test]
fn transactions_serve_at_their_end_and_never_wait() {
    let server = Server::start(&Options::new());
    let (mut waiter, mut writer) = (server.connect(), server.connect());
    block(&server, &mut waiter, "BLPOP k 0", 1);
    for line in ["MULTI", "RPUSH k 1 2", "LPOP k", "BLPOP none 0"] {
        writer.line(line);
    }
    assert_eq!(writer.line("EXEC"), "*3\r\n:2\r\n$1\r\n1\r\n*-1\r\n");
    expect(&mut waiter, "*2\r\n$1\r\nk\r\n$1\r\n2\r\n");
}

#[test]
fn waiting_ends_by_time_unblock_or_hanging_up() {
    let server = Server::start(&Options::new());
    let (mut waiter, mut other) = (server.connect(), server.connect());
    let started = Instant::now();
    assert_eq!(waiter.line("BLPOP k 0.1"), "*-1\r\n");
    assert!(started.elapsed() >= Duration::from_millis(100));
    let id = waiter.line("CLIENT ID");
    let id = id.trim_start_matches(':').trim_end();
    block(&server, &mut waiter, "BLMOVE k l LEFT LEFT 0", 1);
    waiter.send_command(&["PING"]);
    assert_eq!(other.line(&format!("CLIENT UNBLOCK {id}")), ":1\r\n");
    expect(&mut waiter, "*-1\r\n+PONG\r\n");
    block(&server, &mut waiter, "BLPOP k 0", 1);
    assert_eq!(other.line(&format!("CLIENT UNBLOCK {id} ERROR")), ":1\r\n");
    expect(
        &mut waiter,
        "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n",
    );
    assert_eq!(other.line(&format!("CLIENT UNBLOCK {id}")), ":0\r\n");
    block(&server, &mut waiter, "BLPOP k 0", 1);
    drop(waiter);
    await_blocked(&server, 0);
    assert_eq!(other.line("RPUSH k v"), ":1\r\n");
    assert_eq!(other.line("LLEN k"), ":1\r\n");
}

#[test]
fn who_waits_is_sent_away_by_a_server_that_becomes_a_replica() {
    let server = Server::start(&Options::new());
    let mut waiter = server.connect();
    block(&server, &mut waiter, "BLPOP k 0", 1);
    assert_eq!(server.connect().line("REPLICAOF 127.0.0.1 1"), "+OK\r\n");
    let end = waiter.until_closed().expect("the end");
    assert!(
        end.starts_with(b"-UNBLOCKED "),
        "{}",
        String::from_utf8_lossy(&end)
    );
}

#[test]
fn a_key_of_another_type_keeps_clients_waiting() {
    let server = Server::start(&Options::new());
    let (mut waiter, mut writer) = (server.connect(), server.connect());
    block(&server, &mut waiter, "BLPOP k 0", 1);
    for line in ["SET k text", "DEL k", "RPUSH other v", "RENAME other k"] {
        writer.line(line);
    }
    expect(&mut waiter, "*2\r\n$1\r\nk\r\n$1\r\nv\r\n");
}

/// Producers push distinct elements onto many lists; movers pass them on, consumers take them from several lists at
/// once. Every element arrives exactly once.
#[test]
fn nothing_is_lost_or_served_twice() {
    const PRODUCERS: usize = 4;
    const EACH: usize = 400;
    const CONSUMERS: usize = 4;
    const LISTS: usize = 5;
    let server = Server::start(&Options::new());
    let taken = std::thread::scope(|scope| {
        for mover in 0..3 {
            let mut wire = server.connect();
            scope.spawn(move || {
                // Round and round, so that elements cross shards while others are served.
                let (from, to) = (mover % LISTS, (mover + 1) % LISTS);
                loop {
                    let line = format!("BLMOVE l:{from} l:{to} LEFT RIGHT 1");
                    if wire.line(&line) == "*-1\r\n" {
                        break;
                    }
                }
            });
        }
        let consumers: Vec<_> = (0..CONSUMERS)
            .map(|_| {
                let mut wire = server.connect();
                scope.spawn(move || {
                    let lists: Vec<String> = (0..LISTS).map(|list| format!("l:{list}")).collect();
                    let line = format!("BLPOP {} 2", lists.join(" "));
                    let mut taken = Vec::new();
                    loop {
                        let reply = wire.line(&line);
                        match reply.split("\r\n").nth(4) {
                            Some(element) => taken.push(element.to_owned()),
                            None => break taken,
                        }
                    }
                })
            })
            .collect();
        for producer in 0..PRODUCERS {
            let mut wire = server.connect();
            scope.spawn(move || {
                for number in 0..EACH {
                    let list = (producer + number) % LISTS;
                    let element = format!("{producer}-{number}");
                    if number % 3 == 0 {
                        wire.line("MULTI");
                        wire.command(&["RPUSH", &format!("l:{list}"), &element]);
                        assert_eq!(wire.line("EXEC").split("\r\n").next(), Some("*1"));
                    } else {
                        wire.command(&["LPUSH", &format!("l:{list}"), &element]);
                    }
                }
            });
        }
        let taken: Vec<Vec<String>> = consumers
            .into_iter()
            .map(|consumer| consumer.join().expect("a consumer ends"))
            .collect();
        taken.concat()
    });
    let distinct: HashSet<&String> = taken.iter().collect();
    assert_eq!(distinct.len(), taken.len(), "an element was served twice");
    let mut observer = server.connect();
    let mut left = 0;
    for list in 0..LISTS {
        let len = observer.line(&format!("LLEN l:{list}"));
        left += len
            .trim_start_matches(':')
            .trim_end()
            .parse::<usize>()
            .expect("a length");
    }
    assert_eq!(taken.len() + left, PRODUCERS * EACH, "an element was lost");
    await_blocked(&server, 0);
}

#[test]
fn what_has_expired_when_a_transaction_ends_serves_nobody() {
    let server = Server::start(&Options::new().set("enable-debug-command", "yes"));
    for (pop, add) in [("BLPOP k 1", "RPUSH k a"), ("BZPOPMIN k 1", "ZADD k 1 a")] {
        let (mut waiting, mut writer) = (server.connect(), server.connect());
        block(&server, &mut waiting, pop, 1);
        for line in ["MULTI", add, "PEXPIRE k 20", "DEBUG SLEEP 0.1", "EXEC"] {
            writer.line(line);
        }
        await_blocked(&server, 1);
        expect(&mut waiting, "*-1\r\n");
        assert_eq!(writer.line("EXISTS k"), ":0\r\n");
    }
}

#[test]
fn a_script_does_not_wait_for_replicas() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    assert_eq!(
        wire.line("EVAL \"return redis.call('WAIT','1','0')\" 0"),
        ":0\r\n"
    );
    assert_eq!(
        wire.line("EVAL \"return redis.call('WAITAOF','0','1','0')\" 0"),
        "*2\r\n:0\r\n:0\r\n"
    );
}
