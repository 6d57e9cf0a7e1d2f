//! Those who watch what others do: keyspace notifications, MONITOR, client-side caching.

use tests::{
    server::{Options, Server},
    wire::{Wire, show_raw, split_line},
};

/// Sends lines in one piece and compares all that comes back, blanks standing for line ends.
#[track_caller]
fn exchange(wire: &mut Wire, lines: &[&str], expected: &str) {
    for line in lines {
        wire.send_command(&split_line(line));
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
fn events_are_published_as_configured() {
    let server = Server::start(&Options::new());
    let (mut listener, mut writer) = (server.connect(), server.connect());
    listener.line("PSUBSCRIBE __key*");
    exchange(
        &mut writer,
        &[
            "SET unseen v",
            "CONFIG SET notify-keyspace-events KEg$xn",
            "SET k v",
            "LPUSH l v",
            "DEL k",
            "CONFIG SET notify-keyspace-events \"\"",
            "SET unseen v",
            "CONFIG SET notify-keyspace-events Km",
            "GET nothing",
        ],
        "+OK +OK +OK :1 :1 +OK +OK +OK $-1 ",
    );
    for (channel, message) in [
        ("__keyspace@0__:k", "new"),
        ("__keyevent@0__:new", "k"),
        ("__keyspace@0__:k", "set"),
        ("__keyevent@0__:set", "k"),
        ("__keyspace@0__:l", "new"),
        ("__keyevent@0__:new", "l"),
        ("__keyspace@0__:k", "del"),
        ("__keyevent@0__:del", "k"),
        ("__keyspace@0__:nothing", "keymiss"),
    ] {
        let (channel_len, message_len) = (channel.len(), message.len());
        expect(
            &mut listener,
            &format!("*4 $8 pmessage $6 __key* ${channel_len} {channel} ${message_len} {message} "),
        );
    }
}

#[test]
fn expired_keys_are_told_without_anyone_looking() {
    let server = Server::start(&Options::new().set("notify-keyspace-events", "Ex"));
    let mut listener = server.connect();
    listener.line("SUBSCRIBE __keyevent@0__:expired");
    server.connect().line("SET k v PX 50");
    expect(
        &mut listener,
        "*3 $7 message $22 __keyevent@0__:expired $1 k ",
    );
}

#[test]
fn monitors_see_commands_but_no_secrets() {
    let server = Server::start(&Options::new());
    let (mut monitor, mut other) = (server.connect(), server.connect());
    assert_eq!(monitor.line("MONITOR"), "+OK\r\n");
    for line in [
        "SET k \"a b\\r\\n\\x01\\\"\"",
        "CONFIG GET save",
        "AUTH user secret",
        "MIGRATE 127.0.0.1 1 k 0 10 AUTH2 user secret",
        "MULTI",
        "INCR n",
        "EXEC",
    ] {
        other.line(line);
    }
    for shown in [
        r#""SET" "k" "a b\r\n\x01\"""#,
        r#""AUTH" "(redacted)" "(redacted)""#,
        r#""MIGRATE" "127.0.0.1" "1" "k" "0" "10" "AUTH2" "(redacted)" "(redacted)""#,
        r#""MULTI""#,
        r#""INCR" "n""#,
        r#""EXEC""#,
    ] {
        let line = show_raw(&monitor.reply().expect("a command"));
        let (head, words) = line.split_once("] ").expect("a time and a client");
        assert!(
            head.starts_with('+') && head.contains(" [0 127.0.0.1:"),
            "{line}"
        );
        assert_eq!(words.trim_end(), shown);
    }
    assert_eq!(
        monitor.line("GET k"),
        "-ERR Replica can't interact with the keyspace\r\n"
    );
}

#[test]
fn cached_keys_are_invalidated_once() {
    let server = Server::start(&Options::new());
    let (mut cache, mut writer) = (server.connect(), server.connect());
    cache.line("HELLO 3");
    exchange(
        &mut cache,
        &["CLIENT TRACKING on", "GET k", "GET other"],
        "+OK _ _ ",
    );
    exchange(
        &mut writer,
        &["SET k 1", "SET k 2", "SET unread 1"],
        "+OK +OK +OK ",
    );
    exchange(
        &mut cache,
        &["PING", "MULTI", "SET k 3", "GET k", "EXEC", "PING"],
        ">2 $10 invalidate *1 $1 k +PONG +OK +QUEUED +QUEUED *2 +OK $1 3 +PONG ",
    );
    writer.line("SET k 4");
    expect(&mut cache, ">2 $10 invalidate *1 $1 k ");
    writer.line("FLUSHALL");
    expect(&mut cache, ">2 $10 invalidate _ ");
    let statistics = writer.line("INFO stats");
    assert!(statistics.contains("tracking_total_keys:0\r\n"));
}

#[test]
fn tracking_modes_choose_what_is_told() {
    let server = Server::start(&Options::new());
    let (mut cache, mut writer) = (server.connect(), server.connect());
    cache.line("HELLO 3");
    exchange(
        &mut cache,
        &[
            "CLIENT TRACKING on OPTIN",
            "GET a",
            "CLIENT CACHING yes",
            "GET b",
            "GET c",
        ],
        "+OK _ +OK _ _ ",
    );
    exchange(&mut writer, &["MSET a 1 b 1 c 1"], "+OK ");
    expect(&mut cache, ">2 $10 invalidate *1 $1 b ");
    exchange(
        &mut cache,
        &[
            "CLIENT TRACKING off",
            "CLIENT TRACKING on BCAST PREFIX p: NOLOOP",
            "SET p:own 1",
        ],
        "+OK +OK +OK ",
    );
    exchange(&mut writer, &["MSET p:1 x q:1 x p:2 x"], "+OK ");
    expect(&mut cache, ">2 $10 invalidate *2 $3 p:1 $3 p:2 ");
    // The keys of a pipeline make one message, in their order.
    writer.send(b"SET p:c x\r\nSET p:a x\r\nDEL p:c\r\nSET p:b x\r\n");
    (0..4).for_each(|_| drop(writer.reply().expect("a reply")));
    expect(&mut cache, ">2 $10 invalidate *3 $3 p:a $3 p:b $3 p:c ");
}

#[test]
fn redirected_invalidations_reach_resp2() {
    let server = Server::start(&Options::new());
    let (mut cache, mut target, mut writer) =
        (server.connect(), server.connect(), server.connect());
    let id = target.line("CLIENT ID");
    let id = id.trim_start_matches(':').trim_end();
    target.line("SUBSCRIBE __redis__:invalidate");
    exchange(
        &mut cache,
        &[
            &format!("CLIENT TRACKING on REDIRECT {id}"),
            "GET k",
            "CLIENT GETREDIR",
        ],
        &format!("+OK $-1 :{id} "),
    );
    writer.line("SET k 1");
    expect(
        &mut target,
        "*3 $7 message $20 __redis__:invalidate *1 $1 k ",
    );
}

#[test]
fn class_10_the_tracking_table_is_bounded() {
    let server = Server::start(&Options::new().set("tracking-table-max-keys", "10"));
    let mut cache = server.connect();
    cache.line("HELLO 3");
    cache.line("CLIENT TRACKING on");
    let mut told = 0;
    for number in 0..100 {
        cache.send_command(&["GET", &format!("k{number}")]);
        while cache.reply().expect("a reply")[0] == b'>' {
            told += 1;
        }
    }
    cache.send_command(&["INFO", "stats"]);
    let statistics = loop {
        let reply = cache.reply().expect("a reply");
        match reply[0] {
            b'>' => told += 1,
            _ => break show_raw(&reply),
        }
    };
    assert!(statistics.contains("tracking_total_keys:10\r\n"));
    assert_eq!(told, 90);
}

#[test]
fn stale_copies_are_told_of_before_or_after_the_event_as_valkey_has_it() {
    let server = Server::start(&Options::new());
    let mut writer = server.connect();
    writer.line("CONFIG SET notify-keyspace-events EA");
    for (setup, command, told) in [
        ("SET k v", "APPEND k w", "invalidate append"),
        ("RPUSH k a b", "LPOP k", "lpop invalidate"),
        ("RPUSH k a", "LPOP k", "lpop del invalidate"),
        ("RPUSH k a", "RPUSH k b", "invalidate rpush"),
        ("SADD k a", "SPOP k", "spop del invalidate"),
        ("SADD k a b", "SREM k a", "invalidate srem"),
        ("ZADD k 1 a 2 b", "ZREM k a", "zrem invalidate"),
        (
            "ZADD k 1 a 2 b",
            "ZREMRANGEBYRANK k 0 0",
            "invalidate zremrangebyrank",
        ),
        ("ZADD k 1 a", "ZPOPMIN k", "zpopmin del invalidate"),
        (
            "HSET k f v",
            "HEXPIRE k 100 FIELDS 1 f",
            "hexpire invalidate",
        ),
        (
            "HSET k f v",
            "HEXPIRE k 0 FIELDS 1 f",
            "hexpired invalidate del",
        ),
        ("XADD k 1-1 f v", "XADD k 2-1 f v", "xadd invalidate"),
        ("SET k v", "RENAME k l", "invalidate rename_from rename_to"),
    ] {
        writer.line("FLUSHALL");
        writer.line(setup);
        let mut listener = server.connect();
        listener.line("HELLO 3");
        listener.line("CLIENT TRACKING ON");
        listener.line("PSUBSCRIBE __keyevent@*");
        listener.line("EXISTS k");
        writer.line(command);
        let told: Vec<&str> = told.split(' ').collect();
        let heard: Vec<String> = told
            .iter()
            .map(|_| {
                let push = show_raw(&listener.reply().expect("a message"));
                let of_event = push.split("__keyevent@0__:").nth(1);
                let name = of_event.unwrap_or("invalidate");
                name.split(['\\', '\r', ' '])
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect();
        assert_eq!(heard, told, "{command}");
    }
}

#[test]
fn those_who_listen_to_prefixes_are_told_of_what_was_changed_since() {
    let server = Server::start(&Options::new());
    let mut client = server.connect();
    client.line("HELLO 3");
    let told = |client: &mut Wire, line: &str| {
        client.send_command(&split_line(line));
        show_raw(&client.reply().expect("a reply"))
    };
    told(&mut client, "CLIENT TRACKING ON BCAST PREFIX k NOLOOP");
    // A script's changes are nobody's own.
    told(
        &mut client,
        "EVAL \"return redis.call('SET', KEYS[1], 1)\" 1 key",
    );
    assert!(show_raw(&client.reply().expect("a push")).contains("key"));
    // Without a prefix all keys are added to those from before.
    told(&mut client, "CLIENT TRACKING ON BCAST");
    let prefixes = told(&mut client, "CLIENT TRACKINGINFO");
    assert!(prefixes.contains("*2"), "{prefixes}");
    let refused = told(&mut client, "CLIENT TRACKING ON BCAST PREFIX k1");
    assert!(refused.contains("an existing prefix ''"), "{refused}");
}

#[test]
fn replies_that_are_off_stay_off_in_transactions() {
    let server = Server::start(&Options::new());
    let mut client = server.connect();
    exchange(
        &mut client,
        &[
            "CLIENT REPLY OFF",
            "MULTI",
            "SUBSCRIBE c",
            "DISCARD",
            "CLIENT REPLY ON",
            "CLIENT REPLY SKIP",
            "RESET",
            "PING",
        ],
        "+OK +PONG ",
    );
}

#[test]
fn what_a_waiting_command_reads_when_it_is_woken_is_tracked() {
    let server = Server::start(&Options::new());
    let (mut tracking, mut writer) = (server.connect(), server.connect());
    tracking.line("HELLO 3");
    tracking.line("CLIENT TRACKING ON");
    writer.line("XADD s 5-1 f v");
    tracking.send_command(&["XREAD", "BLOCK", "0", "STREAMS", "s", "9-9"]);
    while !writer
        .line("INFO clients")
        .contains("blocked_clients:1\r\n")
    {}
    // Woken in vain, once more, and then with an entry to read.
    for id in ["6-1", "7-1", "10-1"] {
        writer.line(&format!("XADD s {id} f v"));
        let told = show_raw(&tracking.reply().expect("a push"));
        assert!(told.contains("invalidate"), "{told}");
    }
    assert!(show_raw(&tracking.reply().expect("the entry")).contains("10-1"));
    writer.line("DEL s");
    let told = show_raw(&tracking.reply().expect("a push"));
    assert!(told.contains("invalidate"), "{told}");
}

#[test]
fn a_smaller_tracking_table_forgets_keys_at_once() {
    let server = Server::start(&Options::new());
    let (mut tracking, mut admin) = (server.connect(), server.connect());
    tracking.line("HELLO 3");
    tracking.line("CLIENT TRACKING ON");
    tracking.line("MGET a b c d");
    admin.line("CONFIG SET tracking-table-max-keys 1");
    for _ in 0..3 {
        let told = show_raw(&tracking.reply().expect("a push"));
        assert!(told.contains("invalidate"), "{told}");
    }
    assert!(
        admin
            .line("INFO stats")
            .contains("tracking_total_keys:1\r\n")
    );
}
