//! What clients make the server hold is bounded: by limits per client and for all of them together.

use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::server::{Options, Server};
use tests::wire::Wire;

/// Longest wait for an effect.
const PATIENCE: Duration = Duration::from_secs(20);
const MEBIBYTE: usize = 1 << 20;

fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(5));
    }
}

/// A number of INFO's.
fn info(wire: &mut Wire, field: &str) -> i64 {
    let text = wire.line("INFO everything");
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or_else(|| panic!("INFO has {field}"))
}

/// A connection with its number.
fn client(server: &Server) -> (Wire, String) {
    let mut wire = server.connect();
    let id = wire.line("CLIENT ID");
    (wire, id.trim_start_matches(':').trim().to_owned())
}

/// A field of a client's line in CLIENT LIST, if the client is there.
fn field(watcher: &mut Wire, id: &str, name: &str) -> Option<String> {
    let list = watcher.line(&format!("CLIENT LIST ID {id}"));
    let line = list
        .lines()
        .find(|line| line.contains(&format!("id={id} ")))?;
    let value = line
        .split(' ')
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.map(str::to_owned)
}

fn number(watcher: &mut Wire, id: &str, name: &str) -> usize {
    let value = field(watcher, id, name).unwrap_or_else(|| panic!("client {id} has {name}"));
    value.parse().expect("a number")
}

/// Begins a request and leaves out its end.
fn send_unfinished(wire: &mut Wire, len: usize) {
    wire.send(format!("*2\r\n$4\r\nECHO\r\n${}\r\n", 2 * len).as_bytes());
    wire.send(&vec![b'x'; len]);
}

#[test]
fn unfinished_requests_replies_and_queues_are_counted() {
    let server = Server::start(&Options::new());
    let mut watcher = server.connect();
    watcher.line("SET big 0123456789");
    watcher.command(&[&b"SETRANGE"[..], b"big", b"20000000", b"x"]);

    let (mut reading, id) = client(&server);
    send_unfinished(&mut reading, MEBIBYTE);
    until("the request is counted", || {
        number(&mut watcher, &id, "qbuf") >= MEBIBYTE
            && number(&mut watcher, &id, "tot-mem") >= MEBIBYTE
    });

    let (mut queueing, id) = client(&server);
    queueing.line("MULTI");
    queueing.command(&[&b"SET"[..], b"a", &vec![b'x'; 100_000]]);
    assert!(number(&mut watcher, &id, "multi-mem") >= 100_000);
    assert!(number(&mut watcher, &id, "tot-mem") >= 100_000);
    queueing.line("DISCARD");
    assert_eq!(number(&mut watcher, &id, "multi-mem"), 0);

    let (mut silent, id) = client(&server);
    silent.send(&b"GET big\r\n".repeat(2));
    until("unread replies are counted", || {
        number(&mut watcher, &id, "omem") > MEBIBYTE
    });
    assert!(info(&mut watcher, "mem_clients_normal") > MEBIBYTE as i64);
}

#[test]
fn the_largest_client_is_closed_first_and_those_that_may_not_be_stay() {
    let server = Server::start(&Options::new());
    let mut watcher = server.connect();
    watcher.line("CLIENT NO-EVICT on");
    let (mut small, small_id) = client(&server);
    let (mut large, large_id) = client(&server);
    let (mut kept, kept_id) = client(&server);
    kept.line("CLIENT NO-EVICT on");
    send_unfinished(&mut small, MEBIBYTE);
    send_unfinished(&mut large, 3 * MEBIBYTE);
    send_unfinished(&mut kept, 4 * MEBIBYTE);
    for (id, len) in [(&small_id, 1), (&large_id, 3), (&kept_id, 4)] {
        until("the request arrives", || {
            number(&mut watcher, id, "qbuf") >= len * MEBIBYTE
        });
    }
    let stay: usize = [&small_id, &kept_id]
        .map(|id| number(&mut watcher, id, "tot-mem"))
        .iter()
        .sum();
    let limit = stay + MEBIBYTE;
    assert_eq!(
        watcher.line(&format!("CONFIG SET maxmemory-clients {limit}")),
        "+OK\r\n"
    );
    until("the largest is closed", || {
        info(&mut watcher, "evicted_clients") == 1
    });
    assert_eq!(field(&mut watcher, &large_id, "qbuf"), None);
    assert!(field(&mut watcher, &small_id, "qbuf").is_some());
    assert!(field(&mut watcher, &kept_id, "qbuf").is_some());
    large.until_closed().expect("the connection is closed");
}

#[test]
fn a_share_of_maxmemory_limits_clients() {
    let server = Server::start(&Options::new().set("maxmemory-clients", "50%"));
    let mut watcher = server.connect();
    watcher.line("CLIENT NO-EVICT on");
    let (mut large, id) = client(&server);
    send_unfinished(&mut large, 4 * MEBIBYTE);
    until("there is no limit without maxmemory", || {
        number(&mut watcher, &id, "qbuf") >= 4 * MEBIBYTE
    });
    watcher.line("CONFIG SET maxmemory 8mb");
    until("the client is closed", || {
        field(&mut watcher, &id, "qbuf").is_none()
    });
    large.until_closed().expect("the connection is closed");
}

#[test]
fn a_subscriber_that_never_reads_is_closed_alone() {
    let server = Server::start(&Options::new().set("maxmemory-clients", "4mb"));
    let mut watcher = server.connect();
    watcher.line("CLIENT NO-EVICT on");
    let (mut silent, id) = client(&server);
    silent.line("SUBSCRIBE news");
    let (mut reading, reading_id) = client(&server);
    reading.line("SUBSCRIBE other");
    let message = vec![b'x'; 64 * 1024];
    until("it is closed", || {
        watcher.command(&[&b"PUBLISH"[..], b"news", &message]);
        field(&mut watcher, &id, "omem").is_none()
    });
    assert!(field(&mut watcher, &reading_id, "omem").is_some());
    until("it is no subscriber any more", || {
        watcher.line("PUBLISH news x") == ":0\r\n"
    });
}

#[test]
fn a_million_subscriptions_of_one_client_are_counted_and_forgotten() {
    const BATCH: usize = 1000;
    const BATCHES: usize = 1000;
    let server = Server::start(&Options::new());
    let mut watcher = server.connect();
    let (mut subscriber, id) = client(&server);
    for batch in 0..BATCHES {
        let mut words = vec!["SUBSCRIBE".to_owned()];
        words.extend((0..BATCH).map(|number| format!("channel:{batch}:{number}")));
        subscriber.send_command(&words);
        for _ in 0..BATCH {
            subscriber.reply().expect("a confirmation");
        }
    }
    let all = BATCH * BATCHES;
    assert_eq!(number(&mut watcher, &id, "sub"), all);
    assert!(number(&mut watcher, &id, "tot-mem") > all * "channel:1:1".len());
    assert_eq!(info(&mut watcher, "pubsub_channels"), all as i64);
    assert_eq!(watcher.line("PUBLISH channel:999:999 x"), ":1\r\n");
    watcher.line("CONFIG SET maxmemory-clients 1mb");
    until("the client is closed", || {
        info(&mut watcher, "pubsub_channels") == 0
    });
}

#[test]
fn a_request_beyond_the_query_buffer_limit_ends_the_connection() {
    let server = Server::start(&Options::new().set("client-query-buffer-limit", "1mb"));
    let mut watcher = server.connect();
    let mut wire = server.connect();
    wire.send(format!("*2\r\n$4\r\nECHO\r\n${}\r\n", 2 * MEBIBYTE).as_bytes());
    wire.send(&vec![b'x'; 2 * MEBIBYTE]);
    assert_eq!(wire.until_closed().expect("it is closed"), b"");
    let counted = info(&mut watcher, "client_query_buffer_limit_disconnections");
    assert_eq!(counted, 1);
    let mut wire = server.connect();
    let small = vec![b'x'; MEBIBYTE / 2];
    assert_eq!(wire.command(&[b"ECHO", &small[..]]).len(), small.len() + 11);
}

#[test]
fn the_table_of_tracked_keys_is_bounded() {
    const LIMIT: i64 = 100;
    let server = Server::start(&Options::new().set("tracking-table-max-keys", "100"));
    let mut watcher = server.connect();
    let mut wire = server.connect();
    wire.line("HELLO 3");
    wire.line("CLIENT TRACKING on");
    let mut evicted = 0;
    for number in 0..1000 {
        wire.send_command(&["GET".to_owned(), format!("key:{number}")]);
        // A reply, or before it the message that another key is no longer tracked.
        while wire.reply().expect("an answer").starts_with(b">") {
            evicted += 1;
        }
    }
    assert!(info(&mut watcher, "tracking_total_keys") <= LIMIT);
    assert!(evicted >= 1000 - LIMIT - 1, "{evicted}");
}
