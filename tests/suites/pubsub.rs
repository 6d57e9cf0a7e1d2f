//! Publish and subscribe: who gets which message, and in which order beside the replies.

use std::time::Duration;

use tests::{
    server::{Options, Server},
    wire::Wire,
};

/// Sends command lines in one piece and compares all that comes back.
#[track_caller]
fn exchange(wire: &mut Wire, lines: &[&str], expected: &str) {
    for line in lines {
        wire.send_command(&line.split(' ').collect::<Vec<_>>());
    }
    expect(wire, expected);
}

#[track_caller]
fn expect(wire: &mut Wire, expected: &str) {
    let expected = expected.replace(' ', "\r\n");
    let received = wire.exactly(expected.len()).expect("what was expected");
    assert_eq!(String::from_utf8_lossy(&received), expected);
}

#[test]
fn messages_reach_channels_patterns_and_shard_channels() {
    let server = Server::start(&Options::new());
    let (mut listener, mut speaker) = (server.connect(), server.connect());
    exchange(
        &mut listener,
        &["SUBSCRIBE news", "PSUBSCRIBE n*", "SSUBSCRIBE news"],
        "*3 $9 subscribe $4 news :1 *3 $10 psubscribe $2 n* :2 *3 $10 ssubscribe $4 news :1 ",
    );
    exchange(
        &mut speaker,
        &[
            "PUBLISH news a",
            "PUBLISH now b",
            "PUBLISH x c",
            "SPUBLISH news d",
        ],
        ":2 :1 :0 :1 ",
    );
    expect(
        &mut listener,
        "*3 $7 message $4 news $1 a *4 $8 pmessage $2 n* $4 news $1 a \
         *4 $8 pmessage $2 n* $3 now $1 b *3 $8 smessage $4 news $1 d ",
    );
    exchange(
        &mut speaker,
        &[
            "PUBSUB NUMSUB news x",
            "PUBSUB NUMPAT",
            "PUBSUB CHANNELS",
            "PUBSUB SHARDCHANNELS n*",
        ],
        "*4 $4 news :1 $1 x :0 :1 *1 $4 news *1 $4 news ",
    );
    drop(listener);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while speaker.line("PUBSUB NUMPAT") != ":0\r\n" {
        assert!(
            std::time::Instant::now() < deadline,
            "the subscriptions stay"
        );
    }
    assert_eq!(speaker.line("PUBLISH news e"), ":0\r\n");
}

#[test]
fn a_subscriber_of_resp2_may_do_little_else() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    exchange(
        &mut wire,
        &["SUBSCRIBE c", "PING", "PING hi"],
        "*3 $9 subscribe $1 c :1 *2 $4 pong $0  *2 $4 pong $2 hi ",
    );
    assert_eq!(
        wire.line("GET k"),
        "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this \
         context\r\n"
    );
    exchange(&mut wire, &["RESET", "GET k"], "+RESET $-1 ");
    assert_eq!(server.connect().line("PUBSUB CHANNELS"), "*0\r\n");
}

#[test]
fn pushes_of_resp3_come_between_whole_replies() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    wire.line("HELLO 3");
    exchange(
        &mut wire,
        &[
            "SUBSCRIBE c",
            "PUBLISH c one",
            "PING",
            "UNSUBSCRIBE",
            "PUBLISH c two",
        ],
        ">3 $9 subscribe $1 c :1 :1 >3 $7 message $1 c $3 one +PONG >3 $11 unsubscribe $1 c :0 :0 ",
    );
    // While a reply of many slices is written, none comes inside.
    let mut speaker = server.connect();
    let value = "v".repeat(1000);
    let pairs: Vec<String> = (0..3000).map(|n| format!("k{n}")).collect();
    let mut request = vec!["MSET".to_owned()];
    request.extend(pairs.iter().flat_map(|key| [key.clone(), value.clone()]));
    assert_eq!(speaker.command(&request), b"+OK\r\n");
    exchange(&mut wire, &["SUBSCRIBE c"], ">3 $9 subscribe $1 c :1 ");
    for _ in 0..20 {
        let mut request = vec!["MGET".to_owned()];
        request.extend(pairs.iter().cloned());
        wire.send_command(&request);
        for _ in 0..10 {
            speaker.line("PUBLISH c message");
        }
        let mut messages = 0;
        let mut replied = false;
        while messages < 10 || !replied {
            let reply = wire.reply().expect("whole replies and messages");
            match reply[0] {
                b'>' => messages += 1,
                _ => replied = true,
            }
        }
    }
}

#[test]
fn class_09_subscribers_who_do_not_read_are_closed() {
    let server =
        Server::start(&Options::new().set("client-output-buffer-limit", "pubsub 1mb 256kb 1"));
    let (mut slow, mut speaker) = (server.connect(), server.connect());
    exchange(&mut slow, &["SUBSCRIBE c"], "*3 $9 subscribe $1 c :1 ");
    let payload = "x".repeat(100_000);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while speaker.command(&["PUBLISH", "c", &payload]) != b":0\r\n" {
        assert!(std::time::Instant::now() < deadline, "the subscriber stays");
    }
    let statistics = speaker.line("INFO stats");
    assert!(statistics.contains("client_output_buffer_limit_disconnections:1"));
}

#[test]
fn all_subscribers_see_one_order_per_channel() {
    let server = Server::start(&Options::new());
    let mut listeners: Vec<Wire> = (0..4).map(|_| server.connect()).collect();
    for (number, listener) in listeners.iter_mut().enumerate() {
        let line = if number % 2 == 0 {
            "SUBSCRIBE c"
        } else {
            "PSUBSCRIBE c"
        };
        listener.line(line);
    }
    const MESSAGES: usize = 300;
    std::thread::scope(|scope| {
        for speaker in 0..3 {
            let mut wire = server.connect();
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    wire.command(&["PUBLISH", "c", &format!("{speaker}:{number:03}")]);
                }
            });
        }
    });
    let mut seen: Vec<Vec<Vec<u8>>> = Vec::new();
    for listener in &mut listeners {
        let payload = |reply: Vec<u8>| reply[reply.len() - 7..].to_vec();
        seen.push(
            (0..3 * MESSAGES)
                .map(|_| payload(listener.reply().expect("a message")))
                .collect(),
        );
    }
    assert!(seen.iter().all(|order| *order == seen[0]));
}
