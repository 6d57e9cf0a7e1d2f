//! MIGRATE: keys move to another server, Ferrite or Valkey, as from Valkey, while other clients go on.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tests::server::{Options, Program, Server, free_port, missing};
use tests::wire::{Wire, show_raw};

/// Conditions are waited for that long at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// Keys of every type, some with deadlines.
const KEYS: [&str; 9] = [
    "SET a 1",
    "SET s text PX 100000000",
    "RPUSH l a b c",
    "SADD set 1 2 3",
    "SADD words x y z",
    "HSET h f v g w",
    "ZADD z 1 a 2.5 b",
    "XADD x 1-1 f v",
    "SET \"bin\\x00\\xff\\r\\n\" \"\\x00\\xff\"",
];

fn all_keys(connection: &mut Wire) -> Vec<String> {
    let client_view = connection.command(&["KEYS", "*"]);
    let (_, elements) = tests::wire::parts(&client_view);
    let mut keys: Vec<String> = elements.iter().map(|key| tests::wire::show(key)).collect();
    keys.sort();
    keys
}

/// A server and one beside it that keys go to.
struct Pair {
    source: Server,
    target: Server,
}

impl Pair {
    fn new(source: Program, target: Program, of_target: &Options) -> Option<Pair> {
        let start = |program, options: &Options| match program {
            Program::Valkey => Server::valkey(options),
            _ => Some(Server::ferrite(options)),
        };
        Some(Pair {
            source: start(source, &Options::new())?,
            target: start(target, of_target)?,
        })
    }

    /// MIGRATE with `PORT` for the target's port.
    fn line(&self, line: &str) -> String {
        line.replace("PORT", &self.target.resp_address().port().to_string())
    }
}

/// Setups at the source and (behind `T `) at the target, separated by `;`, and then what is asked of the source.
const CASES: [(&str, &str); 30] = [
    ("", "MIGRATE 127.0.0.1 PORT k 0 1000"),
    ("SET k v", "MIGRATE 127.0.0.1 PORT k 0 1000"),
    ("SET k v PX 10000000", "MIGRATE 127.0.0.1 PORT k 0 1000"),
    ("SET k v", "MIGRATE 127.0.0.1 PORT k 3 -1"),
    ("SET k v", "MIGRATE 127.0.0.1 PORT k x 1000"),
    ("SET k v", "MIGRATE 127.0.0.1 PORT k 0 x"),
    ("SET k v", "MIGRATE 127.0.0.1 1 k 0 1000"),
    ("SET k v", "MIGRATE 127.0.0.1 x k 0 1000"),
    ("SET k v", "MIGRATE 127.0.0.1 PORT k 0 1000 FOO"),
    ("SET k v", "MIGRATE 127.0.0.1 PORT k 0 1000 AUTH"),
    ("SET k v", "MIGRATE 127.0.0.1 PORT k 0 1000 AUTH2 a"),
    ("SET k v", "MIGRATE 127.0.0.1 PORT k 0 1000 KEYS a"),
    ("SET k v", "MIGRATE 127.0.0.1 PORT \"\" 0 1000"),
    ("SET \"\" v", "MIGRATE 127.0.0.1 PORT \"\" 0 1000"),
    ("SET k v", "MIGRATE 127.0.0.1 PORT \"\" 0 1000 KEYS"),
    ("SET k v", "MIGRATE 127.0.0.1 PORT \"\" 0 1000 KEYS a b"),
    ("SET k v", "MIGRATE 127.0.0.1 PORT k 0"),
    (
        "SET a 1;SET b 2",
        "MIGRATE 127.0.0.1 PORT \"\" 0 1000 KEYS a b c",
    ),
    (
        "SET a 1;SET b 2;T SET a x",
        "MIGRATE 127.0.0.1 PORT \"\" 0 1000 KEYS a b c",
    ),
    (
        "SET a 1;SET b 2;T SET b x",
        "MIGRATE 127.0.0.1 PORT \"\" 0 1000 KEYS a b c",
    ),
    (
        "SET a 1;SET b 2;T SET a x;T SET b x",
        "MIGRATE 127.0.0.1 PORT \"\" 0 1000 KEYS a b",
    ),
    (
        "SET a 1;SET b 2;T SET a x",
        "MIGRATE 127.0.0.1 PORT \"\" 0 1000 REPLACE KEYS a b",
    ),
    (
        "SET a 1;SET b 2",
        "MIGRATE 127.0.0.1 PORT \"\" 0 1000 COPY KEYS a b",
    ),
    ("SET a 1;T SET a x", "MIGRATE 127.0.0.1 PORT a 0 1000 COPY"),
    (
        "SET a 1;T SET a x",
        "MIGRATE 127.0.0.1 PORT a 0 1000 copy replace",
    ),
    ("SET a 1", "MIGRATE 127.0.0.1 PORT a 0 1000 AUTH pw"),
    ("SET a 1", "MIGRATE 127.0.0.1 PORT a 0 1000 AUTH2 nobody pw"),
    (
        "SET a 1",
        "MIGRATE 127.0.0.1 PORT \"\" 0 1000 AUTH KEYS KEYS a",
    ),
    ("SELECT 2;SET a 1", "MIGRATE 127.0.0.1 PORT a 5 1000"),
    ("SET k v", "MIGRATE nosuch.invalid PORT k 0 1000"),
];

#[test]
fn keys_move_and_are_refused_as_from_valkey() {
    let [Some(ours), Some(theirs)] = [Program::Ferrite, Program::Valkey]
        .map(|program| Pair::new(program, Program::Valkey, &Options::new()))
    else {
        return missing("valkey-server");
    };
    for (setup, migrate) in CASES {
        let outcomes = [&ours, &theirs].map(|pair| {
            let (mut source, mut target) = (pair.source.connect(), pair.target.connect());
            source.line("FLUSHALL");
            target.line("FLUSHALL");
            for line in setup.split(';').filter(|line| !line.is_empty()) {
                match line.strip_prefix("T ") {
                    Some(line) => target.line(line),
                    None => source.line(line),
                };
            }
            let reply = source.line(&pair.line(migrate));
            let left = all_keys(&mut source);
            let there = ["0", "3", "5"].map(|database| {
                target.line(&format!("SELECT {database}"));
                let values = target.line("GET k") + &target.line("GET a") + &target.line("GET b");
                let has_deadline = !target.line("PTTL k").starts_with(":-");
                (all_keys(&mut target), values, has_deadline)
            });
            // Valkey sends the keys before it reads that it was refused, and leaves copies there.
            let there = (!migrate.contains("AUTH")).then_some(there);
            (reply, left, there)
        });
        let [ours, theirs] = outcomes;
        assert_eq!(ours, theirs, "{setup} | {migrate}");
    }
}

#[test]
fn values_of_all_types_arrive_whole() {
    for target in [Program::Ferrite, Program::Valkey] {
        let protected = Options::new().set("requirepass", "secret");
        let Some(pair) = Pair::new(Program::Ferrite, target, &protected) else {
            return missing("valkey-server");
        };
        let (mut source, mut there) = (pair.source.connect(), pair.target.connect());
        there.line("AUTH secret");
        KEYS.iter().for_each(|line| drop(source.line(line)));
        source.line("EVAL \"for i=1,3000 do redis.call('zadd','big',i,'member'..i) end\" 0");
        let names = source.command(&["KEYS", "*"]);
        let (_, names) = tests::wire::parts(&names);
        let names: Vec<Vec<u8>> = names
            .iter()
            .map(|name| {
                let body = tests::wire::find(name, b"\r\n").expect("a bulk string") + 2;
                name[body..name.len() - 2].to_vec()
            })
            .collect();
        let payloads = |connection: &mut Wire| -> Vec<Vec<u8>> {
            // SORT gives an order to what has none.
            let contents = [
                "LRANGE l 0 -1",
                "SORT set",
                "SORT words ALPHA",
                "HGET h f",
                "HLEN h",
                "ZRANGE z 0 -1 WITHSCORES",
                "XRANGE x - +",
                "GET a",
                "GET s",
                "ZCARD big",
                "ZSCORE big member2999",
            ];
            let mut replies: Vec<Vec<u8>> = contents
                .iter()
                .map(|line| connection.line(line).into_bytes())
                .collect();
            replies.push(connection.command(&[&b"GET"[..], b"bin\x00\xff\r\n"]));
            replies
        };
        let before = payloads(&mut source);
        let port = pair.target.resp_address().port().to_string();
        let mut words: Vec<&[u8]> = vec![
            b"MIGRATE",
            b"127.0.0.1",
            port.as_bytes(),
            b"",
            b"0",
            b"20000",
            b"AUTH2",
            b"default",
            b"secret",
            b"KEYS",
        ];
        words.extend(names.iter().map(Vec::as_slice));
        assert_eq!(show_raw(&source.command(&words)), "+OK\r\n");
        assert_eq!(source.line("DBSIZE"), ":0\r\n");
        assert_eq!(before, payloads(&mut there));
        let ttl = there.line("PTTL s");
        assert!(ttl.starts_with(":99"), "{ttl}");
    }
}

/// A server that takes connections and says nothing.
fn silent() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener
        .local_addr()
        .expect("a bound socket has an address")
        .port();
    (listener, port)
}

#[test]
fn others_go_on_while_a_target_says_nothing() {
    let server = Server::ferrite(&Options::new());
    let (_listener, port) = silent();
    let (mut moving, mut other) = (server.connect(), server.connect());
    other.line("SET k 1");
    let started = Instant::now();
    moving.send_command(&["MIGRATE", "127.0.0.1", &port.to_string(), "k", "0", "3000"]);
    for number in 2..200 {
        assert_eq!(other.line("INCR k"), format!(":{number}\r\n"));
    }
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "the others were not held up"
    );
    assert_eq!(
        show_raw(&moving.reply().expect("a reply")),
        "-IOERR error or timeout reading to target instance\r\n"
    );
    assert_eq!(other.line("GET k"), "$3\r\n199\r\n");
}

#[test]
fn a_target_that_hangs_up_leaves_the_keys_where_they_were() {
    let server = Server::ferrite(&Options::new());
    let (listener, port) = silent();
    let closing = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let _ = stream.read(&mut [0; 8]);
    });
    let mut connection = server.connect();
    connection.line("SET k v");
    let reply = connection.line(&format!("MIGRATE 127.0.0.1 {port} k 0 20000"));
    assert!(reply.starts_with("-IOERR error or timeout "), "{reply}");
    assert_eq!(connection.line("GET k"), "$1\r\nv\r\n");
    closing.join().expect("the thread ends");
    assert_eq!(
        connection.line(&format!("MIGRATE 127.0.0.1 {} k 0 1000", free_port())),
        "-IOERR error or timeout writing to target instance\r\n"
    );
}

/// Says at its end that all is over, also when an assertion fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn keys_that_change_meanwhile_arrive_as_they_are_last() {
    let Some(pair) = Pair::new(Program::Ferrite, Program::Ferrite, &Options::new()) else {
        return missing("ferrite");
    };
    let over = AtomicBool::new(false);
    let line = pair.line("MIGRATE 127.0.0.1 PORT counter 0 20000 REPLACE");
    std::thread::scope(|scope| {
        // Counts while the counter is here; what is counted must never get lost.
        let counting = scope.spawn(|| {
            let mut here = pair.source.connect();
            let mut counted = 0_u64;
            while !over.load(Ordering::Relaxed) {
                // INCR would make the key anew where it is not.
                let script =
                    "return redis.call('exists',KEYS[1]) == 1 and redis.call('incr',KEYS[1]) or 0";
                let reply = here.command(&["EVAL", script, "1", "counter"]);
                counted += u64::from(reply != b":0\r\n");
            }
            counted
        });
        let end = Over(&over);
        let (mut here, mut there) = (pair.source.connect(), pair.target.connect());
        let mut moves = 0;
        here.line("SET counter 0");
        let deadline = Instant::now() + PATIENCE;
        while moves < 20 && Instant::now() < deadline {
            let reply = here.line(&line);
            if reply.starts_with("-TRYAGAIN") {
                continue;
            }
            assert_eq!(reply, "+OK\r\n");
            assert_eq!(here.line("EXISTS counter"), ":0\r\n");
            moves += 1;
            // And back by hand, which nobody disturbs as nobody counts there.
            let value = there.line("GETDEL counter");
            let value = value.lines().nth(1).expect("a value").to_owned();
            here.line(&format!("SET counter {value}"));
        }
        assert!(moves > 0, "sometimes nobody counts");
        drop(end);
        let counted = counting.join().expect("the thread ends");
        assert_eq!(
            here.line("GET counter"),
            format!("${}\r\n{counted}\r\n", counted.to_string().len())
        );
    });
}

#[test]
fn a_move_is_an_event_and_in_the_log() {
    let Some(pair) = Pair::new(Program::Ferrite, Program::Ferrite, &Options::new()) else {
        return missing("ferrite");
    };
    let replica = Server::ferrite(&Options::new().set(
        "replicaof",
        &format!("127.0.0.1 {}", pair.source.resp_address().port()),
    ));
    let (mut source, mut listener, mut copy) = (
        pair.source.connect(),
        pair.source.connect(),
        replica.connect(),
    );
    source.line("CONFIG SET notify-keyspace-events KEA");
    source.line("SET k v");
    let deadline = Instant::now() + PATIENCE;
    while copy.line("GET k") != "$1\r\nv\r\n" {
        assert!(Instant::now() < deadline, "the replica has the key");
        std::thread::sleep(Duration::from_millis(5));
    }
    listener.line("SUBSCRIBE __keyevent@0__:del");
    assert_eq!(
        source.line(&pair.line("MIGRATE 127.0.0.1 PORT k 0 20000")),
        "+OK\r\n"
    );
    let event = listener.reply().expect("an event");
    assert!(
        show_raw(&event).ends_with("$1\r\nk\r\n"),
        "{}",
        show_raw(&event)
    );
    while copy.line("EXISTS k") != ":0\r\n" {
        assert!(Instant::now() < deadline, "the replica deletes the key");
        std::thread::sleep(Duration::from_millis(5));
    }
    let refused = copy.line(&pair.line("MIGRATE 127.0.0.1 PORT k 0 20000"));
    assert!(refused.starts_with("-READONLY"), "{refused}");
    for line in ["MULTI", "MIGRATE 127.0.0.1 1 k 0 1"] {
        source.line(line);
    }
    assert!(
        source
            .line("EXEC")
            .contains("-ERR MIGRATE waits for another server")
    );
}
