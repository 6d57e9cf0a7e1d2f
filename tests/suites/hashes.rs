//! Hashes, byte for byte where their order is known; fields that expire.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use tests::{
    server::{Options, Server},
    table::{check, check_on, check_resp3},
    wire::Wire,
};

const BAD_COUNT: &str =
    "-ERR numfields should be greater than 0 and match the provided number of fields\r\n";

#[test]
fn fields_are_set_read_and_removed() {
    check(&[
        ("HSET h a 1 b 2 a 3", ":2\r\n"),
        ("HSET h a 1", ":0\r\n"),
        (
            "HSET h a",
            "-ERR wrong number of arguments for 'hset' command\r\n",
        ),
        ("HSETNX h a 5", ":0\r\n"),
        ("HSETNX h c 5", ":1\r\n"),
        ("HMGET h a x c", "*3\r\n$1\r\n1\r\n$-1\r\n$1\r\n5\r\n"),
        ("HLEN h", ":3\r\n"),
        ("HDEL h a c x", ":2\r\n"),
        ("HGETALL h", "*2\r\n$1\r\nb\r\n$1\r\n2\r\n"),
        ("HDEL h b", ":1\r\n"),
        ("EXISTS h", ":0\r\n"),
        ("SET s 1", "+OK\r\n"),
        (
            "HGET s a",
            "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
        ),
    ]);
}

#[test]
fn numbers_are_added_to() {
    check(&[
        ("HINCRBY h n 5", ":5\r\n"),
        (
            "HINCRBY h n 9223372036854775807",
            "-ERR increment or decrement would overflow\r\n",
        ),
        ("HINCRBYFLOAT h n 0.1", "$3\r\n5.1\r\n"),
        ("HINCRBYFLOAT h n 0.2", "$3\r\n5.3\r\n"),
        ("HINCRBY h n 1", "-ERR hash value is not an integer\r\n"),
        ("HSET h t text", ":1\r\n"),
        ("HINCRBYFLOAT h t 1", "-ERR hash value is not a float\r\n"),
        ("HINCRBYFLOAT h n inf", "-ERR value is NaN or Infinity\r\n"),
    ]);
}

#[test]
fn resp3_has_maps_and_pairs() {
    check_resp3(&[
        ("HSET h a 1", ":1\r\n"),
        ("HGETALL h", "%1\r\n$1\r\na\r\n$1\r\n1\r\n"),
        ("HGETALL missing", "%0\r\n"),
        (
            "HRANDFIELD h 5 WITHVALUES",
            "*1\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n",
        ),
        ("HRANDFIELD missing", "_\r\n"),
        ("HSCAN h 0 NOVALUES", "*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n"),
    ]);
}

#[test]
fn fields_have_deadlines() {
    check(&[
        ("HSET h a 1 b 2", ":2\r\n"),
        ("OBJECT ENCODING h", "$8\r\nlistpack\r\n"),
        ("HEXPIRE h 100 FIELDS 2 a x", "*2\r\n:1\r\n:-2\r\n"),
        ("OBJECT ENCODING h", "$9\r\nhashtable\r\n"),
        ("HTTL h FIELDS 3 a b x", "*3\r\n:100\r\n:-1\r\n:-2\r\n"),
        ("HEXPIRE h 50 NX FIELDS 1 a", "*1\r\n:0\r\n"),
        ("HEXPIRE h 50 LT FIELDS 1 a", "*1\r\n:1\r\n"),
        ("HINCRBY h a 1", ":2\r\n"),
        ("HTTL h FIELDS 1 a", "*1\r\n:50\r\n"),
        ("HSET h a 1", ":0\r\n"),
        ("HTTL h FIELDS 1 a", "*1\r\n:-1\r\n"),
        ("HPEXPIREAT h 4000000000000 FIELDS 1 a", "*1\r\n:1\r\n"),
        ("HEXPIRETIME h FIELDS 1 a", "*1\r\n:4000000000\r\n"),
        ("HPERSIST h FIELDS 2 a b", "*2\r\n:1\r\n:-1\r\n"),
        ("HEXPIRE h 100 FIELDS 2 a", BAD_COUNT),
        ("HTTL h FIELDS 2 a", "-ERR syntax error\r\n"),
        ("HEXPIRE h 0 FIELDS 2 a b", "*2\r\n:2\r\n:2\r\n"),
        ("EXISTS h", ":0\r\n"),
    ]);
}

#[test]
fn fields_are_read_or_set_together_with_their_deadlines() {
    check(&[
        ("HSETEX h XX FIELDS 1 a 1", ":0\r\n"),
        ("HSETEX h NX FNX EX 100 FIELDS 2 a 1 b 2", ":1\r\n"),
        ("HSETEX h FNX FIELDS 2 b 1 c 2", ":0\r\n"),
        ("HSETEX h KEEPTTL FIELDS 1 a 3", ":1\r\n"),
        ("HTTL h FIELDS 2 a b", "*2\r\n:100\r\n:100\r\n"),
        ("HGETEX h PERSIST FIELDS 2 a x", "*2\r\n$1\r\n3\r\n$-1\r\n"),
        ("HTTL h FIELDS 1 a", "*1\r\n:-1\r\n"),
        ("HGETDEL h FIELDS 2 a x", "*2\r\n$1\r\n3\r\n$-1\r\n"),
        ("HGETEX h EX 0 FIELDS 1 b", "*1\r\n$1\r\n2\r\n"),
        ("EXISTS h", ":0\r\n"),
        ("HSETEX h EX 1 PX 1 FIELDS 1 a 1", "-ERR syntax error\r\n"),
    ]);
}

/// Repeats a command until it answers what is expected.
#[track_caller]
fn wait_for(wire: &mut Wire, line: &str, expected: &str) {
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = wire.line(line);
        if answer == expected {
            return;
        }
        assert!(Instant::now() < patience, "{line} still answers {answer}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn expired_fields_are_removed_and_the_key_with_the_last() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    wire.line("HSETEX h PX 1 FIELDS 2 a 1 b 2");
    wait_for(&mut wire, "EXISTS h", ":0\r\n");
    wire.line("HSET h a 1 b 2 c 3");
    wire.line("HPEXPIRE h 1 FIELDS 2 a b");
    wait_for(&mut wire, "HLEN h", ":1\r\n");
    wire.line("HPEXPIRE h 1 FIELDS 1 c");
    wire.line("RENAME h i");
    wait_for(&mut wire, "EXISTS i", ":0\r\n");
}

#[test]
fn expired_fields_are_never_served() {
    let server = Server::start(&Options::new().set("enable-debug-command", "yes"));
    let mut wire = server.connect();
    check_on(
        &mut wire,
        &[
            ("DEBUG SET-ACTIVE-EXPIRE 0", "+OK\r\n"),
            ("HSET h a 1 b 2", ":2\r\n"),
            ("HPEXPIRE h 1 FIELDS 1 a", "*1\r\n:1\r\n"),
        ],
    );
    wait_for(&mut wire, "HEXISTS h a", ":0\r\n");
    check_on(
        &mut wire,
        &[
            ("HLEN h", ":2\r\n"),
            ("HGET h a", "$-1\r\n"),
            ("HGETALL h", "*2\r\n$1\r\nb\r\n$1\r\n2\r\n"),
            ("HKEYS h", "*1\r\n$1\r\nb\r\n"),
            ("HSCAN h 0", "*2\r\n$1\r\n0\r\n*2\r\n$1\r\nb\r\n$1\r\n2\r\n"),
            ("HRANDFIELD h -2", "*2\r\n$1\r\nb\r\n$1\r\nb\r\n"),
            ("HRANDFIELD h 5", "*1\r\n$1\r\nb\r\n"),
            ("HTTL h FIELDS 1 a", "*1\r\n:-2\r\n"),
            ("HDEL h a", ":0\r\n"),
            ("HGETDEL h FIELDS 1 a", "*1\r\n$-1\r\n"),
            ("HINCRBY h a 5", ":5\r\n"),
            ("HTTL h FIELDS 1 a", "*1\r\n:-1\r\n"),
        ],
    );
}

#[test]
fn big_hashes_are_told_completely() {
    const FIELDS: usize = 20_000;
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    let mut command = vec!["HSET".to_owned(), "h".to_owned()];
    for number in 0..FIELDS {
        command.extend([format!("f{number}"), number.to_string()]);
    }
    assert_eq!(wire.command(&command), format!(":{FIELDS}\r\n").as_bytes());
    let count = |reply: &[u8], word: &str| {
        let text = String::from_utf8_lossy(reply).into_owned();
        text.split("\r\n").filter(|line| *line == word).count()
    };
    let all = wire.command(&["HGETALL", "h"]);
    assert!(all.starts_with(format!("*{}\r\n", FIELDS * 2).as_bytes()));
    for number in [0, 1, 999, FIELDS - 1] {
        assert_eq!(count(&all, &format!("f{number}")), 1);
    }
    let draws = wire.command(&["HRANDFIELD", "h", "-30000"]);
    assert!(draws.starts_with(b"*30000\r\n"));
    assert_eq!(wire.line("PING"), "+PONG\r\n");
    let mut cursor = "0".to_owned();
    let mut seen = HashSet::new();
    loop {
        let reply = wire.command(&["HSCAN", "h", &cursor, "COUNT", "700", "NOVALUES"]);
        let text = String::from_utf8_lossy(&reply).into_owned();
        let mut lines = text.split("\r\n");
        cursor = lines.nth(2).expect("a cursor").to_owned();
        seen.extend(
            lines
                .filter(|line| line.starts_with('f'))
                .map(str::to_owned),
        );
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), FIELDS);
}
