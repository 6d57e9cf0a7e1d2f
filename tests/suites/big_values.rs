//! Commands on values so big that they are worked on without locks, in slices: the answers are those of one instant all
//! the same, in the order of the requests, also while others change the values.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tests::server::{Options, Server};
use tests::table::check_on;
use tests::wire::{Wire, parts};

/// Elements of each value: several slices' worth.
const BIG: usize = 4000;

/// Sends `command` with `words(n)` for each n up to [`BIG`], some dozens at a time.
fn fill(wire: &mut Wire, command: &str, words: impl Fn(usize) -> String) {
    for chunk in (0..BIG).collect::<Vec<_>>().chunks(50) {
        let words: Vec<String> = chunk.iter().map(|&n| words(n)).collect();
        let reply = wire.line(&format!("{command} {}", words.join(" ")));
        assert!(reply.starts_with(':'), "{command}: {reply}");
    }
}

/// Sets `a` and `b` have nothing in common, sorted sets `za` and `zb` neither; the list `l` counts down, the stream `s`
/// up.
fn server_with_big_values() -> Server {
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    fill(&mut wire, "SADD a", |n| format!("a{n}"));
    fill(&mut wire, "SADD b", |n| format!("b{n}"));
    fill(&mut wire, "SADD numbers", |n| n.to_string());
    fill(&mut wire, "ZADD za", |n| format!("{n} a{n}"));
    fill(&mut wire, "ZADD zb", |n| format!("{n} b{n}"));
    fill(&mut wire, "RPUSH l", |n| (BIG - n).to_string());
    for n in 1..=BIG {
        wire.send(format!("XADD s {n} n {n}\r\n").as_bytes());
    }
    for _ in 0..BIG {
        wire.reply().expect("an ID");
    }
    server
}

#[test]
fn results_that_are_stored_are_complete_and_encoded_as_small_ones() {
    let server = server_with_big_values();
    let mut wire = server.connect();
    check_on(
        &mut wire,
        &[
            ("SUNIONSTORE u a b", ":8000\r\n"),
            ("SCARD u", ":8000\r\n"),
            ("OBJECT ENCODING u", "$9\r\nhashtable\r\n"),
            ("SINTERSTORE i u a", ":4000\r\n"),
            ("SADD a b17 x", ":2\r\n"),
            ("SINTERSTORE i a b", ":1\r\n"),
            ("SMEMBERS i", "*1\r\n$3\r\nb17\r\n"),
            ("OBJECT ENCODING i", "$8\r\nlistpack\r\n"),
            ("SADD three 3999 2 5000 x", ":4\r\n"),
            ("SINTERSTORE i numbers three numbers", ":2\r\n"),
            (
                "SINTER numbers numbers three",
                "*2\r\n$1\r\n2\r\n$4\r\n3999\r\n",
            ),
            ("SDIFFSTORE d a u", ":1\r\n"),
            ("SMEMBERS d", "*1\r\n$1\r\nx\r\n"),
            ("SDIFFSTORE a a b", ":4001\r\n"),
            ("SINTERSTORE a a b", ":0\r\n"),
            ("EXISTS a", ":0\r\n"),
            ("SINTERCARD 2 u b LIMIT 3000", ":3000\r\n"),
            ("SINTERCARD 2 u b", ":4000\r\n"),
            ("ZUNIONSTORE zu 2 za zb WEIGHTS 1 2", ":8000\r\n"),
            ("ZSCORE zu b3999", "$4\r\n7998\r\n"),
            ("ZRANGE zu -1 -1", "*1\r\n$5\r\nb3999\r\n"),
            ("ZINTERSTORE zi 2 zu za AGGREGATE MIN", ":4000\r\n"),
            ("ZDIFFSTORE zd 2 zu za", ":4000\r\n"),
            ("ZADD za 5 b5", ":1\r\n"),
            ("ZINTERSTORE zi 2 za zb", ":1\r\n"),
            (
                "ZRANGE zi 0 -1 WITHSCORES",
                "*2\r\n$2\r\nb5\r\n$2\r\n10\r\n",
            ),
            ("OBJECT ENCODING zi", "$8\r\nlistpack\r\n"),
            (
                "ZINTER 2 za zb WITHSCORES",
                "*2\r\n$2\r\nb5\r\n$2\r\n10\r\n",
            ),
            ("ZINTERCARD 2 zu za", ":4001\r\n"),
            ("ZINTERCARD 2 zu za LIMIT 2500", ":2500\r\n"),
            ("ZRANGESTORE zr zb 1000 -1", ":3000\r\n"),
            ("ZRANGE zr 0 0", "*1\r\n$5\r\nb1000\r\n"),
            (
                "ZRANGESTORE zb zb (10 +inf BYSCORE LIMIT 1 2000",
                ":2000\r\n",
            ),
            ("ZRANGE zb 0 0", "*1\r\n$3\r\nb12\r\n"),
            ("SORT l STORE sorted", ":4000\r\n"),
            ("LRANGE sorted 0 1", "*2\r\n$1\r\n1\r\n$1\r\n2\r\n"),
            ("LINDEX sorted -1", "$4\r\n4000\r\n"),
            ("SORT l LIMIT 10 2", "*2\r\n$2\r\n11\r\n$2\r\n12\r\n"),
            ("SORT l DESC LIMIT 3998 5", "*2\r\n$1\r\n2\r\n$1\r\n1\r\n"),
            (
                "SORT l ALPHA LIMIT 0 3",
                "*3\r\n$1\r\n1\r\n$2\r\n10\r\n$3\r\n100\r\n",
            ),
            (
                "SORT l BY nosort LIMIT 2000 1 GET # GET fixed",
                "*2\r\n$4\r\n2000\r\n$-1\r\n",
            ),
            ("SORT l BY nosort DESC LIMIT 1 1", "*1\r\n$1\r\n2\r\n"),
            ("SORT l BY nosort LIMIT 1 1500 STORE l", ":1500\r\n"),
            ("LRANGE l 0 0", "*1\r\n$4\r\n3999\r\n"),
            ("RPUSH l x", ":1501\r\n"),
            (
                "SORT l",
                "-ERR One or more scores can't be converted into double\r\n",
            ),
            (
                "SORT l STORE sorted",
                "-ERR One or more scores can't be converted into double\r\n",
            ),
            ("LLEN sorted", ":4000\r\n"),
            ("SORT l STORE sorted ALPHA DESC LIMIT 0 1", ":1\r\n"),
            ("LRANGE sorted 0 -1", "*1\r\n$1\r\nx\r\n"),
        ],
    );
}

#[test]
fn long_replies_have_all_elements() {
    let server = server_with_big_values();
    let mut wire = server.connect();
    let mut count = |command: &str| {
        let words: Vec<&str> = command.split(' ').collect();
        parts(&wire.command(&words)).1.len()
    };
    for (command, expected) in [
        ("SUNION a b", 2 * BIG),
        ("SDIFF a b", BIG),
        ("ZUNION 2 za zb", 2 * BIG),
        ("ZUNION 2 za zb WITHSCORES", 4 * BIG),
        ("ZDIFF 2 za zb", BIG),
        ("SORT l", BIG),
        ("SORT a BY nosort", BIG),
        ("SORT a ALPHA LIMIT 1 2000", 2000),
        ("XRANGE s - +", BIG),
        ("XREVRANGE s + -", BIG),
        ("XRANGE s 100 + COUNT 3000", 3000),
        ("XREVRANGE s + 3000", 1001),
    ] {
        assert_eq!(count(command), expected, "{command}");
    }
    let sorted = wire.command(&["SORT", "l", "DESC"]);
    let expected = (1..=BIG)
        .rev()
        .map(|n| format!("${}\r\n{n}\r\n", n.to_string().len()));
    let expected: Vec<u8> = expected.flat_map(String::into_bytes).collect();
    assert_eq!(sorted[b"*4000\r\n".len()..], expected);
    let reversed = wire.command(&["XREVRANGE", "s", "+", "-"]);
    let ids: Vec<&[u8]> = parts(&reversed)
        .1
        .iter()
        .map(|entry| parts(entry).1[0])
        .collect();
    assert_eq!(
        (ids[0], ids[BIG - 1]),
        (&b"$6\r\n4000-0\r\n"[..], &b"$3\r\n1-0\r\n"[..])
    );

    wire.line("XADD few 7 a 1");
    let read = wire.command(&[
        "XREAD", "STREAMS", "few", "s", "missing", "few", "0", "0", "0", "0",
    ]);
    let streams = parts(&read).1;
    let lens: Vec<usize> = streams
        .iter()
        .map(|stream| parts(parts(stream).1[1]).1.len())
        .collect();
    assert_eq!(
        lens,
        [1, BIG, 1],
        "one after the other, also those behind a big one"
    );
}

#[test]
fn keys_tells_all_keys_of_a_big_database() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    let names = |n: usize| format!("key:{n} {n}");
    for chunk in (0..5 * BIG).collect::<Vec<_>>().chunks(50) {
        let words: Vec<String> = chunk.iter().map(|&n| names(n)).collect();
        assert_eq!(wire.line(&format!("MSET {}", words.join(" "))), "+OK\r\n");
    }
    for pattern in ["*", "key:*"] {
        let reply = wire.command(&["KEYS", pattern]);
        let mut found = parts(&reply).1;
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), 5 * BIG, "each of them, once");
    }
    check_on(
        &mut wire,
        &[
            ("KEYS key:1234", "*1\r\n$8\r\nkey:1234\r\n"),
            ("KEYS nothing", "*0\r\n"),
            ("MULTI", "+OK\r\n"),
            ("KEYS key:777", "+QUEUED\r\n"),
            ("DBSIZE", "+QUEUED\r\n"),
            ("EXEC", "*2\r\n*1\r\n$7\r\nkey:777\r\n:20000\r\n"),
        ],
    );
    wire.send(b"KEYS *0*\r\nFLUSHALL\r\nKEYS *\r\n");
    let found = wire.reply().expect("KEYS' reply");
    assert!(parts(&found).1.len() > 1000);
    assert_eq!(
        wire.exactly(9).expect("the other replies"),
        b"+OK\r\n*0\r\n"
    );
}

#[test]
fn payloads_of_big_values_are_restored() {
    let server = server_with_big_values();
    let mut wire = server.connect();
    for key in ["a", "za", "s"] {
        let dumped = wire.command(&["DUMP", key]);
        let start = dumped
            .iter()
            .position(|&byte| byte == b'\n')
            .expect("a header")
            + 1;
        let mut payload = dumped[start..dumped.len() - 2].to_vec();
        assert!(payload.len() > 16 * 1024, "{key} is big");
        let restore = |wire: &mut Wire, payload: &[u8], option: &str| {
            wire.command(&[
                b"RESTORE".as_slice(),
                b"copy",
                b"0",
                payload,
                option.as_bytes(),
            ])
        };
        assert_eq!(restore(&mut wire, &payload, "REPLACE"), b"+OK\r\n");
        assert_eq!(wire.command(&["DUMP", "copy"]).len(), dumped.len());
        assert!(restore(&mut wire, &payload, "ABSTTL").starts_with(b"-BUSYKEY"));
        payload[5000] ^= 1;
        let refused = restore(&mut wire, &payload, "REPLACE");
        assert_eq!(
            refused,
            b"-ERR DUMP payload version or checksum are wrong\r\n"
        );
        assert_eq!(wire.command(&["DUMP", "copy"]).len(), dumped.len());
    }
}

#[test]
fn requests_behind_a_big_one_see_what_it_did() {
    let server = server_with_big_values();
    let mut wire = server.connect();
    wire.send(b"SADD a first\r\nSUNIONSTORE u a b\r\nSCARD u\r\nSADD a second\r\nSISMEMBER u second\r\nDEL u\r\n");
    let replies = wire.exactly(b":1\r\n:8001\r\n:8001\r\n:1\r\n:0\r\n:1\r\n".len());
    assert_eq!(
        replies.expect("replies"),
        b":1\r\n:8001\r\n:8001\r\n:1\r\n:0\r\n:1\r\n"
    );
    check_on(
        &mut wire,
        &[
            ("MULTI", "+OK\r\n"),
            ("SUNIONSTORE u a b", "+QUEUED\r\n"),
            ("SADD u x", "+QUEUED\r\n"),
            ("SORT l STORE sorted", "+QUEUED\r\n"),
            ("EXEC", "*3\r\n:8002\r\n:1\r\n:4000\r\n"),
            (
                "EVAL \"return {redis.call('ZUNIONSTORE', KEYS[1], 2, KEYS[2], KEYS[3]), redis.call('ZCARD', KEYS[1])}\" 3 zu za zb",
                "*2\r\n:8000\r\n:8000\r\n",
            ),
            ("WATCH u", "+OK\r\n"),
            ("SUNIONSTORE u a b", ":8002\r\n"),
            ("MULTI", "+OK\r\n"),
            ("PING", "+QUEUED\r\n"),
            ("EXEC", "*-1\r\n"),
        ],
    );
    // Who leaves in the middle of it disturbs nobody.
    for _ in 0..20 {
        server
            .connect()
            .send(b"SUNIONSTORE u a b\r\nSORT l STORE sorted\r\n");
    }
    assert_eq!(wire.line("PING"), "+PONG\r\n");
}

/// A member goes to and fro between two sets, so that together they always have the same, and nothing in common.
#[test]
fn stored_results_are_those_of_one_instant() {
    let server = server_with_big_values();
    let mut wire = server.connect();
    wire.line("SADD a token");
    wire.line("ZADD za 1 token");
    for pause in [Duration::ZERO, Duration::from_millis(3)] {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut wire = server.connect();
                let mut turn = 0;
                while !over.load(Ordering::Relaxed) {
                    let (from, to) = if turn % 2 == 0 {
                        ("a", "b")
                    } else {
                        ("b", "a")
                    };
                    let lines = [
                        "MULTI".to_owned(),
                        format!("SMOVE {from} {to} token"),
                        format!("ZREM z{from} token"),
                        format!("ZADD z{to} 1 token"),
                        "LMOVE l l LEFT RIGHT".to_owned(),
                        "EXEC".to_owned(),
                    ];
                    wire.send((lines.join("\r\n") + "\r\n").as_bytes());
                    for _ in 0..lines.len() {
                        wire.reply().expect("a reply");
                    }
                    turn += 1;
                    thread::sleep(pause);
                }
            });
            for _ in 0..15 {
                check_on(
                    &mut wire,
                    &[
                        ("SUNIONSTORE u a b", ":8001\r\n"),
                        ("SINTERSTORE i a b", ":0\r\n"),
                        ("ZUNIONSTORE zu 2 zb za", ":8001\r\n"),
                        ("ZINTERSTORE zi 2 za zb", ":0\r\n"),
                        ("SDIFFSTORE d u a b", ":0\r\n"),
                        ("ZDIFFSTORE zd 3 zu za zb", ":0\r\n"),
                        ("SORT l STORE sorted", ":4000\r\n"),
                    ],
                );
                let (first, last) = (wire.line("LINDEX sorted 0"), wire.line("LINDEX sorted -1"));
                assert_eq!(
                    (first.as_str(), last.as_str()),
                    ("$1\r\n1\r\n", "$4\r\n4000\r\n")
                );
            }
            over.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn a_command_that_runs_again_is_counted_once() {
    let server = server_with_big_values();
    let mut other = server.connect();
    other.line("SADD small 1");
    other.line("CONFIG RESETSTAT");
    let count = |line: &str| {
        let mut wire = server.connect();
        wire.line(line);
        let info = wire.line("CLIENT INFO");
        let mut words = info.split_whitespace();
        let commands = words.find(|word| word.starts_with("tot-cmds="));
        commands.expect("a number of commands").to_owned()
    };
    let once = count("SUNIONSTORE u small");
    assert_eq!(count("SUNIONSTORE u a b"), once);
    assert_eq!(count("WAIT 1 200"), once);
    let info = other.line("INFO all");
    for line in [
        "cmdstat_sunionstore:calls=2,",
        "cmdstat_wait:calls=1,",
        "keyspace_hits:3\r\n",
    ] {
        assert!(info.contains(line), "{line}: {info}");
    }
}
