//! What a connection does with good and bad input.

use tests::{
    server::{Options, Server},
    table::{check, check_raw},
};

#[test]
fn unknown_commands_and_wrong_numbers_of_words_are_refused() {
    check(&[
        (
            "NOSUCH a b",
            "-ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' \r\n",
        ),
        (
            "GET",
            "-ERR wrong number of arguments for 'get' command\r\n",
        ),
        ("PING", "+PONG\r\n"),
    ]);
}

#[test]
fn transactions_run_as_a_whole() {
    check(&[
        ("MULTI", "+OK\r\n"),
        ("SET a 1", "+QUEUED\r\n"),
        ("INCR a", "+QUEUED\r\n"),
        ("EXEC", "*2\r\n+OK\r\n:2\r\n"),
        ("MULTI", "+OK\r\n"),
        (
            "NOSUCH",
            "-ERR unknown command 'NOSUCH', with args beginning with: \r\n",
        ),
        (
            "EXEC",
            "-EXECABORT Transaction discarded because of previous errors.\r\n",
        ),
    ]);
}

#[test]
fn a_name_with_something_behind_it_is_another() {
    check(&[
        (
            "\"PING \"",
            "-ERR unknown command 'PING ', with args beginning with: \r\n",
        ),
        (
            "\"get \" k",
            "-ERR unknown command 'get ', with args beginning with: 'k' \r\n",
        ),
        ("ping", "+PONG\r\n"),
        ("COMMAND INFO nosuch", "*1\r\n$-1\r\n"),
    ]);
}

#[test]
fn requests_may_be_split_anywhere_and_pipelined() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    let request = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n";
    for byte in request {
        wire.send(&[*byte]);
    }
    assert_eq!(wire.reply().expect("a reply"), b"+OK\r\n");
    check_raw(
        &mut wire,
        &[
            (
                b"PING\r\nGET k\r\n*1\r\n$4\r\nPING\r\n",
                b"+PONG\r\n$5\r\nvalue\r\n+PONG\r\n",
            ),
            (b"\r\n*0\r\nPING\r\n", b"+PONG\r\n"),
        ],
    );
}

#[test]
fn class_07_malformed_requests_end_the_connection() {
    let server = Server::start(&Options::new());
    for (request, answer) in [
        (
            &b"*1\r\n!3\r\n"[..],
            &b"-ERR Protocol error: expected '$', got '!'\r\n"[..],
        ),
        (
            b"*x\r\n",
            b"-ERR Protocol error: invalid multibulk length\r\n",
        ),
        (
            b"*1\r\n$-1\r\n",
            b"-ERR Protocol error: invalid bulk length\r\n",
        ),
    ] {
        let mut wire = server.connect();
        wire.send(request);
        assert_eq!(wire.until_closed().expect("the end"), answer);
    }
}

#[test]
fn class_15_requests_of_web_browsers_end_the_connection() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    wire.send(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET k v\r\n");
    assert_eq!(wire.until_closed().expect("the end"), b"");
    assert_eq!(server.connect().line("EXISTS k"), ":0\r\n");
}

#[test]
fn class_06_strangers_may_only_say_who_they_are() {
    let server = Server::start(&Options::new().set("requirepass", "secret"));
    let mut wire = server.connect();
    assert_eq!(wire.line("GET k"), "-NOAUTH Authentication required.\r\n");
    assert_eq!(wire.line("AUTH secret"), "+OK\r\n");
    assert_eq!(wire.line("GET k"), "$-1\r\n");
    let mut stranger = server.connect();
    stranger.send(b"*11\r\n");
    let end = stranger.until_closed().expect("the end");
    assert_eq!(
        end,
        b"-ERR Protocol error: unauthenticated multibulk length\r\n"
    );
}

#[test]
fn there_are_no_modules_and_no_cluster() {
    check(&[
        ("MODULE LIST", "*0\r\n"),
        (
            "CLUSTER INFO",
            "-ERR This instance has cluster support disabled\r\n",
        ),
        ("CLUSTER KEYSLOT {foo}bar", ":12182\r\n"),
        (
            "CLUSTER NOSUCH",
            "-ERR unknown subcommand 'NOSUCH'. Try CLUSTER HELP.\r\n",
        ),
        ("READONLY", "+OK\r\n"),
        ("READWRITE", "+OK\r\n"),
    ]);
}

#[test]
fn scripts_may_have_no_keys() {
    check(&[
        ("COMMAND GETKEYS EVAL x 0", "*0\r\n"),
        ("COMMAND GETKEYS EVALSHA_RO x -1", "*0\r\n"),
        ("COMMAND GETKEYSANDFLAGS FCALL f 0 a", "*0\r\n"),
        (
            "COMMAND GETKEYS EVAL x 2 a b c",
            "*2\r\n$1\r\na\r\n$1\r\nb\r\n",
        ),
    ]);
}

#[test]
fn a_transaction_is_refused_if_one_of_its_commands_would_be_by_now() {
    let server = Server::start(&Options::new());
    let (mut writing, mut reading) = (server.connect(), server.connect());
    let mut other = server.connect();
    for line in ["MULTI", "GET k", "SET k v"] {
        writing.line(line);
    }
    for line in ["MULTI", "GET k"] {
        reading.line(line);
    }
    // Nobody is there.
    assert_eq!(other.line("REPLICAOF 127.0.0.1 1"), "+OK\r\n");
    assert_eq!(
        writing.line("EXEC"),
        "-EXECABORT Transaction discarded because of: READONLY You can't write against a read only replica.\r\n"
    );
    assert_eq!(reading.line("EXEC"), "*1\r\n$-1\r\n");
    reading.line("MULTI");
    reading.line("GET k");
    other.line("CONFIG SET replica-serve-stale-data no");
    assert_eq!(
        reading.line("EXEC"),
        "-EXECABORT Transaction discarded because of: MASTERDOWN Link with MASTER is down and \
         replica-serve-stale-data is set to 'no'.\r\n"
    );
}

#[test]
fn a_swap_touches_what_one_of_the_databases_holds() {
    let server = Server::start(&Options::new().set("enable-debug-command", "yes"));
    let mut client = server.connect();
    client.line("DEBUG SET-ACTIVE-EXPIRE 0");
    for (setup, touched) in [
        ("", false),
        ("SET x 1", true),
        ("SET x 1 PX 1", false),
        ("SELECT 1;SET x 1;SELECT 0", true),
        ("SELECT 1;SET x 1 PX 1;SELECT 0", false),
        ("SET x 1 PX 1;SELECT 1;SET x 1 PX 1;SELECT 0", false),
    ] {
        client.line("FLUSHALL");
        setup
            .split(';')
            .filter(|line| !line.is_empty())
            .for_each(|line| {
                client.line(line);
            });
        std::thread::sleep(std::time::Duration::from_millis(3));
        for line in ["WATCH x", "SWAPDB 0 1", "MULTI", "PING"] {
            client.line(line);
        }
        let expected = if touched {
            "*-1\r\n"
        } else {
            "*1\r\n+PONG\r\n"
        };
        assert_eq!(client.line("EXEC"), expected, "{setup}");
    }
}

#[test]
fn connections_beyond_the_limit_are_told_so() {
    let server = Server::start(&Options::new().set("maxclients", "1"));
    let mut first = server.connect();
    // The server may not have seen yet that who waited for its start is gone.
    while first.line("PING") != "+PONG\r\n" {
        first = server.connect();
    }
    for _ in 0..50 {
        let mut refused = server.connect();
        refused.send(b"PING\r\n");
        let said = refused.until_closed().expect("the end");
        assert_eq!(
            String::from_utf8_lossy(&said),
            "-ERR max number of clients reached\r\n"
        );
    }
    drop(first);
}

#[test]
fn scripts_do_not_wait() {
    let server = Server::start(&Options::new());
    let mut client = server.connect();
    for (line, expected) in [
        ("EVAL \"return redis.call('WAIT', 2, 0)\" 0", ":0\r\n"),
        (
            "EVAL \"return redis.call('WAITAOF', 0, 2, 0)\" 0",
            "*2\r\n:0\r\n:0\r\n",
        ),
        (
            "EVAL \"return redis.call('BLPOP', KEYS[1], 0)\" 1 l",
            "$-1\r\n",
        ),
        ("PING", "+PONG\r\n"),
    ] {
        assert_eq!(client.line(line), expected, "{line}");
    }
}
