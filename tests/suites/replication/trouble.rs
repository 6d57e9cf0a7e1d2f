//! Links to those who send nonsense or lie: dropped and logged, the old data kept, tried again after a pause.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use tests::{
    random::Random,
    server::{Server, missing},
    wire::encode,
};

use super::{
    PROGRAMS, ask, eventually, ferrites, field, follow, follow_at, in_step, is_up, load, options,
    start,
};

const ID: &str = "0123456789012345678901234567890123456789";

/// What a primary sends after PSYNC, and how the replica's log tells what is wrong with it.
struct Case {
    name: &'static str,
    answer: Vec<u8>,
    /// Goes on for as long as the link holds.
    forever: &'static [u8],
    /// The replica has followed another server before.
    follows_on: bool,
    log: &'static str,
}

fn case(name: &'static str, answer: impl Into<Vec<u8>>, log: &'static str) -> Case {
    Case {
        name,
        answer: answer.into(),
        forever: b"",
        follows_on: false,
        log,
    }
}

/// What is sent to a replica that asks for a stream it has a part of.
fn case_later(name: &'static str, answer: impl Into<Vec<u8>>, log: &'static str) -> Case {
    Case {
        follows_on: true,
        ..case(name, answer, log)
    }
}

/// A sound copy in the way a primary sends it, of a server with some data.
fn sound_copy() -> Vec<u8> {
    let mut server = Server::ferrite(&options());
    let mut random = Random::new(1);
    load(&server, &mut random, 300);
    ask(&server, "SAVE");
    let file = std::fs::read(server.directory().join("dump.rdb")).expect("SAVE wrote it");
    server.kill();
    file
}

fn with_length(copy: &[u8]) -> Vec<u8> {
    let head = format!("+FULLRESYNC {ID} 100\r\n${}\r\n", copy.len());
    [head.as_bytes(), copy].concat()
}

fn with_mark(copy: &[u8], mark: &str) -> Vec<u8> {
    let head = format!("+FULLRESYNC {ID} 100\r\n$EOF:{ID}\r\n");
    [head.as_bytes(), copy, mark.as_bytes()].concat()
}

fn cases() -> Vec<Case> {
    let copy = sound_copy();
    let mut changed = copy.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 0x55;
    let cut = &copy[..copy.len() / 2];
    let wrong_mark = "9876543210987654321098765432109876543210";
    let mut cases = vec![
        case(
            "a negative length",
            format!("+FULLRESYNC {ID} 0\r\n$-5\r\n"),
            "length is no number",
        ),
        case(
            "an offset that is none",
            format!("+FULLRESYNC {ID} x\r\n"),
            "makes no sense",
        ),
        case(
            "an offset beyond all numbers",
            format!("+FULLRESYNC {ID} 99999999999999999999999\r\n"),
            "makes no sense",
        ),
        case(
            "a name that is too short",
            "+FULLRESYNC abc 0\r\n",
            "makes no sense",
        ),
        case(
            "no copy at all",
            format!("+FULLRESYNC {ID} 0\r\n:1\r\n"),
            "Bad protocol",
        ),
        case(
            "garbage for a copy",
            format!("+FULLRESYNC {ID} 0\r\n$20\r\nREDIS0011garbagegarb"),
            "MASTER <-> REPLICA sync: ",
        ),
        case(
            "garbage up to a mark",
            format!("+FULLRESYNC {ID} 0\r\n$EOF:{ID}\r\nnothing of the kind"),
            "MASTER <-> REPLICA sync: ",
        ),
        case(
            "a copy that ends too soon",
            with_length(&copy)[..copy.len() / 2].to_vec(),
            "short read",
        ),
        case(
            "a copy that ends too soon for its mark",
            with_mark(cut, ""),
            "short read",
        ),
        case(
            "a copy with a changed byte",
            with_length(&changed),
            "MASTER <-> REPLICA sync: ",
        ),
        case(
            "a copy with a changed byte and a mark",
            with_mark(&changed, ID),
            "MASTER <-> REPLICA sync: ",
        ),
        case(
            "a copy that ends with another mark",
            with_mark(&copy, wrong_mark),
            "does not end with its mark",
        ),
        case(
            "the rest of a stream of which the replica has nothing",
            format!("+CONTINUE {ID}\r\n*1\r\n$8\r\nFLUSHALL\r\n"),
            "of which this server has nothing",
        ),
        case_later(
            "a stream that is no request",
            "+CONTINUE\r\n*1\r\n$-7\r\n",
            "malformed",
        ),
        case_later("a stream of words", "+CONTINUE\r\nSET a b\r\n", "malformed"),
        case("an unknown answer", "+MAYBE\r\n", "the primary refuses"),
        case(
            "a line without end",
            vec![b'x'; 100_000],
            "ends within a line",
        ),
    ];
    cases.push(Case {
        name: "empty lines without end",
        answer: Vec::new(),
        forever: b"\n",
        follows_on: false,
        log: "nothing but empty lines",
    });
    cases
}

/// Answers the handshake up to PSYNC as a primary does. False if the replica hangs up before.
fn shake_hands(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).unwrap_or(0);
        let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
        if read == 0 || text.contains("PSYNC") {
            return read > 0;
        }
        let reply: &[u8] = match text.contains("PING") {
            true => b"+PONG\r\n",
            false => b"+OK\r\n",
        };
        if stream.write_all(reply).is_err() {
            return false;
        }
    }
}

#[test]
fn a_primary_that_sends_nonsense_changes_nothing_and_is_asked_again() {
    let first = Server::ferrite(&options());
    ask(&first, "SET old data");
    for case in cases() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let forever = case.forever;
        let answer = case.answer;
        // Twice, since it is asked again.
        let primary = thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().expect("a replica");
                if !shake_hands(&mut stream) || stream.write_all(&answer).is_err() {
                    continue;
                }
                let more = forever.repeat(10_000);
                while !more.is_empty() && stream.write_all(&more).is_ok() {}
            }
        });
        let mut replica = Server::ferrite(&options());
        if case.follows_on {
            follow(&replica, &first);
            in_step(&first, &replica);
        } else {
            ask(&replica, "SET old data");
        }
        follow_at(&replica, address);
        eventually(case.name, || primary.is_finished());
        assert_eq!(ask(&replica, "GET old"), "$4\r\ndata\r\n", "{}", case.name);
        eventually(case.name, || replica.log().contains(case.log));
        // A stream that begins well makes the link come up for a moment.
        eventually(case.name, || {
            ask(&replica, "INFO replication").contains("master_link_status:down")
        });
        assert!(replica.is_running(), "{}", case.name);
        // It still is a server like any other.
        // Half a copy may still be on its way out.
        for line in ["REPLICAOF NO ONE", "SET old new"] {
            eventually(case.name, || ask(&replica, line) == "+OK\r\n");
        }
    }
}

/// The replica is told where the stream begins and is then sent what does not fit: what it has is no copy any more, and
/// the real primary sends another.
#[test]
fn a_stream_that_breaks_off_within_a_command_is_asked_for_again() {
    let primary = Server::ferrite(&options());
    let replica = Server::ferrite(&options());
    let proxy = tests::proxy::Proxy::start(primary.resp_address());
    follow_at(&replica, proxy.address());
    in_step(&primary, &replica);
    let value = "x".repeat(3_000_000);
    for round in 0..5 {
        // Some of it is on its way when the link breaks.
        let mut request = Vec::new();
        encode(&["SET", &format!("big:{round}"), &value], &mut request);
        let mut wire = primary.connect();
        wire.send(&request);
        proxy.cut();
        assert_eq!(wire.reply().expect("a reply"), b"+OK\r\n");
        in_step(&primary, &replica);
    }
    assert_eq!(field(&primary, "stats", "sync_full"), 1);
}

/// A primary that accepts and says nothing is left after `repl-timeout`, also if that is shortened meanwhile.
#[test]
fn a_silent_primary_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let replica = Server::ferrite(&options());
    follow_at(&replica, listener.local_addr().expect("it has an address"));
    eventually("it waits for an answer", || {
        ask(&replica, "ROLE").contains("handshake")
    });
    ask(&replica, "CONFIG SET repl-timeout 1");
    eventually("it does not wait for ever", || {
        replica
            .log()
            .contains("Timeout connecting to the PRIMARY...")
    });
}

/// What fails on a replica is logged, and ends it if that is wanted.
#[test]
fn what_fails_on_a_replica_is_logged_and_may_end_it() {
    let (primary, mut replica) = ferrites(&options(), &options());
    assert_eq!(ask(&primary, "DEBUG REPLICATE no-command one"), "+OK\r\n");
    ask(&primary, "SET a 1");
    in_step(&primary, &replica);
    let log = replica.log();
    assert!(
        log.contains("== CRITICAL ==") && log.contains("'no-command'"),
        "{log}"
    );
    ask(&replica, "CONFIG SET propagation-error-behavior panic");
    ask(&primary, "DEBUG REPLICATE no-command two");
    assert!(replica.wait(Duration::from_secs(20)).is_some());
}

#[test]
fn a_wrong_password_is_tried_with_pauses_until_it_is_right() {
    for &program in PROGRAMS {
        let Some(primary) = start(program, &options().set("requirepass", "secret")) else {
            missing("a server");
            continue;
        };
        let replica = Server::ferrite(&options());
        ask(&replica, "SET old data");
        let refusals = |text: &str| replica.log().matches(text).count();
        follow_at(&replica, primary.resp_address());
        eventually("it is refused without a password", || {
            refusals("NOAUTH") >= 1
        });
        ask(&replica, "CONFIG SET primaryauth wrong");
        eventually("it is refused", || {
            refusals("Unable to AUTH to PRIMARY") >= 2
        });
        let (before, started) = (refusals("Unable to AUTH to PRIMARY"), Instant::now());
        eventually("it is tried again", || {
            refusals("Unable to AUTH to PRIMARY") >= before + 2
        });
        // The first pause is 200 ms, and they become longer.
        assert!(started.elapsed() > Duration::from_millis(400));
        assert_eq!(ask(&replica, "GET old"), "$4\r\ndata\r\n");
        ask(&replica, "CONFIG SET primaryauth secret");
        eventually("the right password is taken", || is_up(&replica));
        assert_eq!(ask(&replica, "GET old"), "$-1\r\n");
    }
}

#[test]
fn a_user_of_the_primary_is_named() {
    let primary = Server::ferrite(&options());
    ask(
        &primary,
        "ACL SETUSER copier on >secret +psync +replconf +ping",
    );
    ask(&primary, "CONFIG SET requirepass other");
    let replica = Server::ferrite(
        &options()
            .set("primaryuser", "copier")
            .set("primaryauth", "secret"),
    );
    follow(&replica, &primary);
    eventually("the user may copy", || is_up(&replica));
}

/// What the users of a replica may do is no matter of its primary's stream.
#[test]
fn the_stream_is_applied_whatever_the_rules_are() {
    let (primary, replica) = ferrites(&options(), &options());
    ask(
        &replica,
        "ACL SETUSER default -set -multi -exec resetkeys ~none",
    );
    ask(&primary, "SET a 1");
    let mut client = primary.connect();
    for line in ["MULTI", "SET b 1", "SET c 1", "EXEC"] {
        client.line(line);
    }
    in_step(&primary, &replica);
    assert_eq!(ask(&replica, "DBSIZE"), ":3\r\n");
}

/// A script that does not end on a replica holds the stream up, but nothing is lost.
#[test]
fn a_slow_script_on_a_replica_loses_nothing() {
    let (primary, replica) = ferrites(&options(), &options().set("busy-reply-threshold", "100"));
    let address = replica.resp_address();
    let script = thread::spawn(move || {
        let mut client = tests::wire::Wire::connect(address);
        client.line("EVAL_RO \"local n = 0 while n < 30000000 do n = n + 1 end return n\" 0")
    });
    let mut client = primary.connect();
    let mut count = 0;
    while !script.is_finished() {
        client.line("INCR counted");
        count += 1;
    }
    assert!(count > 0);
    script.join().expect("the script ends");
    in_step(&primary, &replica);
}

/// A transaction of the stream is as large as the primary made it.
#[test]
fn a_transaction_beyond_the_replica_s_own_limit_is_applied() {
    let (primary, replica) = ferrites(
        &options(),
        &options().set("client-query-buffer-limit", "1mb"),
    );
    let mut client = primary.connect();
    let value = "x".repeat(300_000);
    client.line("MULTI");
    for key in 0..8 {
        client.command(&["SET", &format!("big:{key}"), &value]);
    }
    client.line("EXEC");
    in_step(&primary, &replica);
    assert_eq!(ask(&replica, "DBSIZE"), ":8\r\n");
}

/// A connection that speaks as a replica does.
struct Pretender(TcpStream);

impl Pretender {
    fn connect(primary: &Server) -> Pretender {
        let stream = TcpStream::connect(primary.resp_address()).expect("the primary listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout can be set");
        Pretender(stream)
    }

    fn say(&mut self, words: &[&str]) {
        let mut request = Vec::new();
        encode(words, &mut request);
        self.0.write_all(&request).expect("the primary reads");
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        // Empty lines say that the primary is busy.
        while self.0.read(&mut byte).expect("an answer") == 1 {
            match byte[0] {
                b'\n' if line.is_empty() => {}
                b'\n' => break,
                byte => line.push(byte),
            }
        }
        String::from_utf8_lossy(&line).trim().to_owned()
    }

    fn is_closed(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }
}

#[test]
fn a_replica_that_acknowledges_what_it_was_not_sent_is_dropped() {
    let (primary, replica) = ferrites(&options(), &options());
    let id = ask(&primary, "INFO replication");
    let id = id
        .lines()
        .find_map(|line| line.strip_prefix("master_replid:"))
        .expect("there is a name")
        .to_owned();
    ask(&primary, "SET a 1");
    let next = field(&primary, "replication", "master_repl_offset") + 1;
    for ack in ["ACK", "FACK"] {
        let mut liar = Pretender::connect(&primary);
        liar.say(&["PSYNC", &id, &next.to_string()]);
        assert!(liar.line().starts_with("+CONTINUE"));
        liar.say(&["REPLCONF", ack, "999999999"]);
        assert!(liar.is_closed());
    }
    assert!(primary.log().contains("it acknowledges offset 999999999"));
    let mut client = primary.connect();
    client.line("SET a 2");
    assert_eq!(client.line("WAIT 2 300"), ":1\r\n");
    in_step(&primary, &replica);
}

#[test]
fn a_replica_that_asks_for_what_there_is_not_is_sent_everything() {
    let primary = Server::ferrite(&options());
    ask(&primary, "SET a 1");
    let replica = Server::ferrite(&options());
    follow(&replica, &primary);
    in_step(&primary, &replica);
    let info = ask(&primary, "INFO replication");
    let id = info
        .lines()
        .find_map(|line| line.strip_prefix("master_replid:"))
        .expect("there is a name");
    for (id, offset) in [
        (id, "999999999"),
        (id, "9223372036854775807"),
        (id, "0"),
        (id, "-7"),
        (ID, "1"),
        ("", "1"),
        ("?", "5"),
    ] {
        let mut liar = Pretender::connect(&primary);
        liar.say(&["PSYNC", id, offset]);
        let answer = liar.line();
        assert!(
            answer.starts_with("+FULLRESYNC "),
            "{id} {offset}: {answer}"
        );
    }
    let mut liar = Pretender::connect(&primary);
    liar.say(&["PSYNC", id, "x"]);
    assert!(liar.line().starts_with("-ERR value is not an integer"));
    assert!(
        primary
            .log()
            .contains("Partial resynchronization not accepted")
    );
    in_step(&primary, &replica);
}
