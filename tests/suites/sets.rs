//! Sets, byte for byte where their order is known.

use tests::table::{check, check_resp3};

#[test]
fn members_are_added_found_and_removed() {
    check(&[
        ("SADD s a b a", ":2\r\n"),
        ("SADD s b c", ":1\r\n"),
        ("SCARD s", ":3\r\n"),
        ("SISMEMBER s a", ":1\r\n"),
        ("SMISMEMBER s a x b", "*3\r\n:1\r\n:0\r\n:1\r\n"),
        ("SMISMEMBER missing a b", "*2\r\n:0\r\n:0\r\n"),
        ("SREM s a b x", ":2\r\n"),
        ("SMEMBERS s", "*1\r\n$1\r\nc\r\n"),
        ("SREM s c", ":1\r\n"),
        ("EXISTS s", ":0\r\n"),
        ("SET t 1", "+OK\r\n"),
        (
            "SADD t a",
            "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
        ),
    ]);
}

#[test]
fn encodings_change_with_the_limits() {
    check(&[
        ("CONFIG SET set-max-intset-entries 3", "+OK\r\n"),
        ("CONFIG SET set-max-listpack-entries 5", "+OK\r\n"),
        ("SADD s 1 2 3", ":3\r\n"),
        ("OBJECT ENCODING s", "$6\r\nintset\r\n"),
        ("SMEMBERS s", "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n"),
        ("SADD s a", ":1\r\n"),
        ("OBJECT ENCODING s", "$8\r\nlistpack\r\n"),
        ("SADD s b c", ":2\r\n"),
        ("OBJECT ENCODING s", "$9\r\nhashtable\r\n"),
        ("SADD n 1 2 3 4", ":4\r\n"),
        ("OBJECT ENCODING n", "$8\r\nlistpack\r\n"),
        ("SADD m 1 2 3", ":3\r\n"),
        ("SADD m 4", ":1\r\n"),
        ("OBJECT ENCODING m", "$9\r\nhashtable\r\n"),
    ]);
}

#[test]
fn members_move_and_pop() {
    check(&[
        ("SADD from a b", ":2\r\n"),
        ("SMOVE from to a", ":1\r\n"),
        ("SMOVE from to a", ":0\r\n"),
        ("SMEMBERS to", "*1\r\n$1\r\na\r\n"),
        ("SPOP from", "$1\r\nb\r\n"),
        ("SPOP from", "$-1\r\n"),
        ("EXISTS from", ":0\r\n"),
        (
            "SRANDMEMBER to -3",
            "*3\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n",
        ),
        (
            "SPOP to -1",
            "-ERR value is out of range, must be positive\r\n",
        ),
        ("SPOP to 10", "*1\r\n$1\r\na\r\n"),
        ("SPOP to 10", "*0\r\n"),
    ]);
}

#[test]
fn sets_are_combined() {
    check(&[
        ("SADD a 1 2 3", ":3\r\n"),
        ("SADD b 2 3 4", ":3\r\n"),
        ("SINTER a b", "*2\r\n$1\r\n2\r\n$1\r\n3\r\n"),
        ("SINTER a missing", "*0\r\n"),
        ("SDIFF a b", "*1\r\n$1\r\n1\r\n"),
        (
            "SUNION a b missing",
            "*4\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n4\r\n",
        ),
        ("SINTERCARD 2 a b", ":2\r\n"),
        ("SINTERCARD 2 a b LIMIT 1", ":1\r\n"),
        (
            "SINTERCARD 0 a",
            "-ERR numkeys should be greater than 0\r\n",
        ),
        ("SUNIONSTORE u a b", ":4\r\n"),
        ("SDIFFSTORE a a b", ":1\r\n"),
        ("SINTERSTORE u a b", ":0\r\n"),
        ("EXISTS u", ":0\r\n"),
    ]);
}

#[test]
fn sets_are_sets_in_resp3() {
    check_resp3(&[
        ("SADD s 1", ":1\r\n"),
        ("SMEMBERS s", "~1\r\n$1\r\n1\r\n"),
        ("SINTER s s", "~1\r\n$1\r\n1\r\n"),
        ("SRANDMEMBER s 1", "*1\r\n$1\r\n1\r\n"),
        ("SPOP s 1", "~1\r\n$1\r\n1\r\n"),
        ("SPOP s", "_\r\n"),
    ]);
}

#[test]
fn big_results_come_whole() {
    let mut server_checks: Vec<(String, String)> = Vec::new();
    for batch in 0..50 {
        let members: Vec<String> = (0..100).map(|n| format!("m{}", batch * 100 + n)).collect();
        server_checks.push((format!("SADD big {}", members.join(" ")), ":100\r\n".into()));
    }
    server_checks.push(("SADD odd m4999 x".into(), ":2\r\n".into()));
    server_checks.push(("SINTERCARD 2 big big LIMIT 3000".into(), ":3000\r\n".into()));
    server_checks.push(("SINTER big odd big".into(), "*1\r\n$5\r\nm4999\r\n".into()));
    server_checks.push(("SDIFF odd big".into(), "*1\r\n$1\r\nx\r\n".into()));
    server_checks.push(("SDIFF big big".into(), "*0\r\n".into()));
    server_checks.push(("SUNIONSTORE all big odd".into(), ":5001\r\n".into()));
    let checks: Vec<(&str, &str)> = server_checks
        .iter()
        .map(|(command, reply)| (command.as_str(), reply.as_str()))
        .collect();
    check(&checks);
}
