//! Input that means harm, on both ports: each class of attack on parsers, limits and numbers, by its number in the
//! checklist of known vulnerabilities.

use std::net::UdpSocket;
use std::time::Duration;

use tests::random::Random;
use tests::server::{Options, Server, missing};
use tests::table::{check_memcached_on, check_on, memcached};
use tests::wire::{Wire, encode, show, split_line};

/// Where numbers go wrong: limits of types, and what is no number at all.
const EDGES: &[&str] = &[
    "-2147483649",
    "-2147483648",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "-0",
    "+1",
    "01",
    "1e3",
    "nan",
    "inf",
    "-inf",
    "0x10",
    "",
    " 1",
];

/// Commands with a number for `#`. Those that answer with something of that size are not among them.
const NUMBERS: &[&str] = &[
    "SETRANGE string # x",
    "GETRANGE string # -1",
    "GETRANGE string 0 #",
    "SETBIT string # 1",
    "GETBIT string #",
    "BITCOUNT string # -1",
    "BITCOUNT string 0 # BIT",
    "BITPOS string 1 # -1",
    "BITFIELD string SET u8 # 1",
    "BITFIELD string SET u8 0 #",
    "BITFIELD string INCRBY i64 0 #",
    "BITFIELD string GET u# 0",
    "INCRBY number #",
    "DECRBY number #",
    "INCRBYFLOAT float #",
    "EXPIRE number #",
    "PEXPIRE number #",
    "EXPIREAT number #",
    "PEXPIREAT number #",
    "SET number 1 EX #",
    "SET number 1 PXAT #",
    "GETEX number EX #",
    "LINDEX list #",
    "LRANGE list # -1",
    "LRANGE list 0 #",
    "LTRIM spare # -1",
    "LREM list # nothing",
    "LSET list # x",
    "LPOP nolist #",
    "LPOS list a RANK #",
    "LPOS list a COUNT #",
    "SPOP noset #",
    "SRANDMEMBER noset #",
    "ZRANDMEMBER nozset #",
    "HRANDFIELD nohash #",
    "ZRANGE zset # -1",
    "ZRANGE zset 0 #",
    "ZRANGEBYSCORE zset # +inf",
    "ZRANGEBYSCORE zset -inf +inf LIMIT # 1",
    "ZRANGEBYSCORE zset -inf +inf LIMIT 0 #",
    "ZADD scores # m",
    "ZINCRBY scores # m",
    "ZPOPMIN nozset #",
    "ZUNION # zset",
    "HINCRBY hash f #",
    "HINCRBYFLOAT hash g #",
    "HEXPIRE hash # FIELDS 1 f",
    "HPEXPIREAT hash # FIELDS 1 f",
    "XADD stream # f v",
    "XRANGE stream # +",
    "XRANGE stream - + COUNT #",
    "XTRIM stream MAXLEN #",
    "XREAD COUNT # STREAMS stream 0",
    "SCAN # COUNT 1 MATCH nothing",
    "SORT list LIMIT # 1",
    "SORT list LIMIT 0 #",
    "SINTERCARD 1 set LIMIT #",
    "LMPOP # list LEFT",
    "EVAL return # 0",
    "EVAL 'return 1' #",
    "SELECT #",
    "MOVE number #",
    "COPY number other DB #",
    "GEOADD geo # 10 m",
    "GEOSEARCH geo FROMLONLAT 1 1 BYRADIUS # km",
    "WAIT # 1",
    "OBJECT FREQ #",
    "CLIENT KILL ID #",
    "CLIENT UNBLOCK #",
    "RESTORE restored # x",
    "LCS string float MINMATCHLEN # IDX",
];

/// Where docs/compatibility.md says so.
const DIFFERENT_ON_PURPOSE: &[&str] = &["LSET list # x", "SCAN # COUNT 1 MATCH nothing"];

/// What there is before each of them.
const BEFORE: &[&str] = &[
    "FLUSHALL",
    "SELECT 0",
    "CONFIG SET proto-max-bulk-len 1mb",
    "SET string hello",
    "SET number 10",
    "SET float 1.5",
    "RPUSH list a b c",
    "RPUSH spare a b c",
    "SADD set a b c",
    "HSET hash f 1 g 1.5",
    "ZADD zset 1 a 2 b 3 c",
    "XADD stream 1-1 f v",
    "GEOADD geo 1 1 a",
];

#[test]
fn class_01_numbers_at_their_limits_are_answered_as_by_valkey() {
    let Some(valkey) = Server::valkey(&Options::new()) else {
        return missing("valkey-server");
    };
    let server = Server::start(&Options::new());
    let mut wires = [&server, &valkey].map(Server::connect);
    let mut differences = Vec::new();
    for template in NUMBERS {
        for edge in EDGES {
            let words = split_line(&template.replace('#', &format!("\"{edge}\"")));
            let mut request = Vec::new();
            for line in BEFORE {
                encode(&split_line(line), &mut request);
            }
            encode(&words, &mut request);
            // What became of it.
            encode(&["MGET", "string", "number", "float"], &mut request);
            let answers = wires.each_mut().map(|wire| {
                wire.send(&request);
                let mut reply = || show(&wire.reply().expect("a reply"));
                for line in BEFORE {
                    let answer = reply();
                    assert!(!answer.starts_with('-'), "{line}: {answer}");
                }
                [reply(), reply()]
            });
            let [own, other] = answers;
            if own != other && !DIFFERENT_ON_PURPOSE.contains(template) {
                differences.push(format!("{template} with {edge:?}: {own:?}, not {other:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn class_02_encodings_keep_their_bounds_whatever_the_settings() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    for setting in [
        "hash-max-listpack-entries",
        "hash-max-listpack-value",
        "zset-max-listpack-entries",
        "zset-max-listpack-value",
        "set-max-intset-entries",
        "set-max-listpack-entries",
        "set-max-listpack-value",
    ] {
        let set = format!("CONFIG SET {setting} 9223372036854775807");
        assert_eq!(wire.line(&set), "+OK\r\n");
    }
    assert_eq!(
        wire.line("CONFIG SET list-max-listpack-size 32767"),
        "+OK\r\n"
    );
    // More bytes than 16 bits count; of the list, which looks at no others when one is added, elements too.
    let long = "l".repeat(70_000);
    for (add, count, last, len) in [
        ("HSET h", 5_000, &["HGET", "h", "4999"][..], "HLEN h"),
        ("ZADD z", 5_000, &["ZSCORE", "z", "4999"], "ZCARD z"),
        ("SADD s", 5_000, &["SISMEMBER", "s", "4999"], "SCARD s"),
        ("RPUSH l", 70_000, &["LINDEX", "l", "4999"], "LLEN l"),
    ] {
        let head = split_line(add);
        let pairs = matches!(add, "HSET h" | "ZADD z");
        for numbers in (0..count).collect::<Vec<_>>().chunks(1000) {
            let mut words = head.clone();
            for number in numbers {
                let number = number.to_string().into_bytes();
                if pairs {
                    words.push(number.clone());
                }
                words.push(number);
            }
            let answer = wire.command(&words);
            assert!(!answer.starts_with(b"-"), "{}", show(&answer));
        }
        let mut words = head;
        if add == "ZADD z" {
            words.push(b"0".to_vec());
        }
        words.push(long.clone().into_bytes());
        if add == "HSET h" {
            words.push(long.clone().into_bytes());
        }
        wire.command(&words);
        let expected = if add == "SADD s" {
            ":1\r\n"
        } else {
            "$4\r\n4999\r\n"
        };
        assert_eq!(
            show(&wire.command(last)),
            show(expected.as_bytes()),
            "{add}"
        );
        assert_eq!(wire.line(len), format!(":{}\r\n", count + 1), "{add}");
    }
}

#[test]
fn class_06_strangers_get_no_buffers() {
    let server = Server::start(&Options::new().set("requirepass", "secret"));
    for (request, expected) in [
        (
            "*2\r\n$4\r\nAUTH\r\n$100000000\r\n",
            "-ERR Protocol error: unauthenticated bulk length\r\n",
        ),
        (
            "*1000000000\r\n",
            "-ERR Protocol error: unauthenticated multibulk length\r\n",
        ),
    ] {
        let mut wire = server.connect();
        wire.send(request.as_bytes());
        let end = wire.until_closed().expect("the end");
        assert_eq!(String::from_utf8_lossy(&end), expected);
    }
    let mut wire = server.connect();
    wire.send(&[b'a'; 100_000]);
    let end = wire.until_closed().expect("the end");
    // What was sent beyond the end may take the answer with it.
    let expected = "-ERR Protocol error: too big inline request\r\n";
    assert!(
        end.is_empty() || show(&end) == show(expected.as_bytes()),
        "{}",
        show(&end)
    );
    // Replies to one who does not read them are bounded, too.
    let before = server.resident_bytes();
    let mut deaf: Vec<Wire> = (0..20).map(|_| server.connect()).collect();
    for wire in &mut deaf {
        wire.stream().set_nonblocking(true).expect("a socket may");
        let unread = b"GET key\r\n".repeat(200_000);
        wire.send(&unread);
    }
    let mut wire = server.connect();
    assert_eq!(wire.line("AUTH secret"), "+OK\r\n");
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 20 * (1 << 20), "{grown} bytes for 20 strangers");
}

#[test]
fn class_07_empty_requests_leave_nothing_behind() {
    let server = Server::start(&Options::new());
    let request = b"\r\n*0\r\n*-1\r\n\r\nPING\r\n*1\r\n$4\r\nPING\r\n*0\r\nGET\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n";
    let expected = b"+PONG\r\n+PONG\r\n-ERR wrong number of arguments for 'get' command\r\n$-1\r\n";
    for cut in 0..request.len() {
        let mut wire = server.connect();
        wire.send(&request[..cut]);
        // The second half comes alone.
        std::thread::sleep(Duration::from_millis(1));
        wire.send(&request[cut..]);
        let answer = wire.exactly(expected.len()).expect("answers");
        assert_eq!(show(&answer), show(expected), "cut at {cut}");
    }
}

#[test]
fn class_07_pipelines_of_short_commands_are_refused_one_by_one() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    let short = [
        "GET", "SET", "MSET", "EVAL", "XREAD", "ZUNION", "OBJECT", "LMPOP",
    ];
    let request: String = short.iter().map(|name| format!("{name}\r\n")).collect();
    wire.send(request.repeat(50).as_bytes());
    for _ in 0..50 {
        for name in short {
            let answer = wire.reply().expect("a reply");
            let expected = format!(
                "-ERR wrong number of arguments for '{}' command\r\n",
                name.to_lowercase()
            );
            assert_eq!(show(&answer), show(expected.as_bytes()));
        }
    }
}

#[test]
fn class_10_patterns_that_branch_without_end_are_answered() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    let name = "a".repeat(5_000);
    assert_eq!(wire.command(&["SET", &name, "1"]), b"+OK\r\n");
    let bomb = format!("{}b", "a*".repeat(2_000));
    assert_eq!(wire.command(&["KEYS", &bomb]), b"*0\r\n");
    let bomb = format!("{}b", "*a?[a-z]".repeat(200));
    let scanned = wire.command(&["SCAN", "0", "MATCH", &bomb, "COUNT", "10"]);
    assert_eq!(scanned, b"*2\r\n$1\r\n0\r\n*0\r\n");
    let unclosed = "[".repeat(50_000);
    assert_eq!(wire.command(&["KEYS", &unclosed]), b"*0\r\n");
}

#[test]
fn class_15_requests_of_browsers_end_connections_on_both_ports() {
    let server = Server::start(&Options::new());
    for request in [
        "POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET k v\r\n",
        "Host: localhost:6379\r\nSET k v\r\n",
        "post / HTTP/1.1\r\n\r\nSET k v\r\n",
    ] {
        let mut wire = server.connect();
        wire.send(request.as_bytes());
        assert_eq!(wire.until_closed().expect("the end"), b"", "{request}");
    }
    for request in [
        "GET / HTTP/1.1\r\nset k 0 0 1\r\nv\r\n",
        "POST /set HTTP/1.0\r\nset k 0 0 1\r\nv\r\n",
    ] {
        let mut wire = server.connect_memcached();
        wire.send(request.as_bytes());
        assert_eq!(wire.until_closed().expect("the end"), b"", "{request}");
    }
    assert_eq!(server.connect().line("EXISTS k"), ":0\r\n");
}

#[test]
fn class_21_nobody_listens_for_datagrams() {
    let server = Server::start(&Options::new());
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket
        .connect(server.memcached_address())
        .expect("an address");
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a timeout");
    let frame = b"\0\x01\0\0\0\x01\0\0stats\r\n";
    let _ = socket.send(frame);
    // The system says that nobody is there, or nobody says anything.
    assert!(socket.recv(&mut [0; 2048]).is_err());
}

#[test]
fn class_23_lines_of_any_shape_keep_the_connection_in_step() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect_memcached();
    let spaces = " ".repeat(100_000);
    let format = "CLIENT_ERROR bad command line format\r\n";
    let long = "k".repeat(251);
    check_memcached_on(
        &mut wire,
        &[
            (&format!("get{spaces}a{spaces}b{spaces}\r\n"), "END\r\n"),
            (&format!("get{spaces}\r\n"), format),
            ("get a\n", "END\r\n"),
            ("set a 0 0 1\nx\r\n", "STORED\r\n"),
            (&format!("get {long}\r\n"), format),
            (&format!("get {}{long}\r\n", "a ".repeat(50)), format),
            ("get a\tb\r\n", "END\r\n"),
            ("set a\0b 0 0 1\r\nx\r\n", "STORED\r\n"),
            ("get a\0b\r\n", "VALUE a\0b 0 1\r\nx\r\nEND\r\n"),
            ("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n"),
            (&format!("{}\r\n", "t".repeat(2000)), "ERROR\r\n"),
        ],
    );
    // Nothing without an end is kept for long.
    for endless in ["x", "set ", "mg ", " "] {
        let mut wire = server.connect_memcached();
        wire.send(endless.repeat(4096).as_bytes());
        assert_eq!(wire.until_closed().expect("the end"), b"", "{endless}");
    }
}

#[test]
fn class_24_data_never_runs_as_commands() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect_memcached();
    check_memcached_on(&mut wire, &[("set kept 0 0 1\r\nx\r\n", "STORED\r\n")]);
    let data = "flush_all\r\ndelete kept\r\n";
    let len = data.len();
    let long = "k".repeat(251);
    for line in [
        &format!("set {long} 0 0 {len}"),
        &format!("set a x 0 {len}"),
        &format!("set a 0 x {len}"),
        &format!("set a 0 x {len} noreply"),
        &format!("add a -1 0 {len}"),
        &format!("cas a 0 0 {len}"),
        &format!("cas a 0 0 {len} x"),
        &format!("append {long} 0 0 {len} noreply"),
        &format!("replace a 0 0 {len}"),
        &format!("ms {long} {len}"),
        &format!("ms a {len} MX"),
        &format!("ms a {len} F F"),
        &format!("ms a {len} Tx"),
        &format!("ms !! {len} b"),
        &format!("config set c x {len}"),
    ] {
        memcached(&mut wire, format!("{line}\r\n{data}\r\n").as_bytes());
        check_memcached_on(
            &mut wire,
            &[("get kept\r\n", "VALUE kept 0 1\r\nx\r\nEND\r\n")],
        );
    }
}

#[test]
fn class_25_no_name_of_a_key_can_write_a_line_of_its_own() {
    let server = Server::start(&Options::new());
    let mut resp = server.connect();
    let mut wire = server.connect_memcached();
    let names: [&[u8]; 4] = [
        b"a\r\nEND\r\nset b 0 0 1",
        b"a b c",
        b"\xff\x00\n",
        b"x\rEND",
    ];
    for name in names {
        assert_eq!(resp.command(&[b"SET", name, b"1"]), b"+OK\r\n");
    }
    for request in [
        "lru_crawler metadump all\r\n",
        "lru_crawler mgdump all\r\n",
        "stats cachedump 1 0\r\n",
    ] {
        let said = memcached(&mut wire, request.as_bytes());
        let ends = ["END\r\n", "EN\r\n"].map(|end| {
            let text = String::from_utf8_lossy(&said);
            let lines = text.split_inclusive('\n').filter(|line| *line == end);
            lines.count()
        });
        assert_eq!(ends.iter().sum::<usize>(), 1, "{request}: {}", show(&said));
        let names = said.iter().filter(|&&byte| byte == b'\n').count();
        assert!(names >= 4, "{request}: {}", show(&said));
        assert!(
            !said.windows(5).any(|bytes| bytes == b"\nset "),
            "{}",
            show(&said)
        );
    }
    check_memcached_on(&mut wire, &[("get b\r\n", "END\r\n")]);
    // In base64 each of them is there.
    check_memcached_on(
        &mut wire,
        &[("mg YSBiIGM= b k v\r\n", "VA 1 kYSBiIGM= b\r\n1\r\n")],
    );
}

#[test]
fn class_27_administration_is_refused_or_harmless() {
    let options = Options::new()
        .set("memcached-disable-flush-all", "yes")
        .set("memcached-disable-dumping", "yes")
        .set("memcached-disable-watch", "yes");
    let mut server = Server::ferrite(&options);
    let mut wire = server.connect_memcached();
    for (request, expected) in [
        ("shutdown\r\n", "SERVER_ERROR: shutdown not enabled\r\n"),
        ("flush_all\r\n", "CLIENT_ERROR flush_all not allowed\r\n"),
        (
            "stats cachedump 1 0\r\n",
            "CLIENT_ERROR stats cachedump not allowed\r\n",
        ),
        (
            "lru_crawler metadump all\r\n",
            "ERROR metadump not allowed\r\n",
        ),
        ("lru mode\r\n", "ERROR\r\n"),
        ("lru\r\n", "ERROR\r\n"),
        ("lru mode flat segmented flat\r\n", "OK\r\n"),
        (
            "slabs reassign 4294967295 -1\r\n",
            "CLIENT_ERROR slab reassignment disabled\r\n",
        ),
        (
            "slabs automove 99999999999999999999\r\n",
            "CLIENT_ERROR bad command line format\r\n",
        ),
        (
            "lru_crawler crawl 999999\r\n",
            "BADCLASS invalid class id\r\n",
        ),
        (
            "lru_crawler tocrawl 4294967296\r\n",
            "CLIENT_ERROR bad command line format\r\n",
        ),
        (
            "verbosity 99999999999\r\n",
            "CLIENT_ERROR bad command line format\r\n",
        ),
    ] {
        assert_eq!(
            show(&memcached(&mut wire, request.as_bytes())),
            show(expected.as_bytes()),
            "{request}"
        );
    }
    wire.send(b"watch\r\n");
    let refused = wire.until(b"\r\n").expect("an answer");
    assert_eq!(refused, b"CLIENT_ERROR watch commands not allowed\r\n");
    assert!(server.is_running());
}

#[test]
fn class_30_flags_of_meta_commands_are_checked_and_the_connection_stays_in_step() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect_memcached();
    check_memcached_on(&mut wire, &[("set a 0 0 1\r\nx\r\n", "STORED\r\n")]);
    let [opaque, longer] = [31, 32].map(|len| "o".repeat(len));
    // Decodes to more bytes than a key may have.
    let wide = "A".repeat(340);
    let many = " P".repeat(100);
    for request in [
        "mg a v v",
        "mg a ~",
        "mg a y",
        "mg a T",
        "mg a Tx",
        "mg a T99999999999",
        "mg a R N",
        "mg a C-1",
        "mg a E18446744073709551616",
        &format!("mg a O{longer}"),
        &format!("mg {wide} b"),
        "mg a b",
        "mg YQ b",
        &format!("mg a{many}"),
        "mg",
        "md a q q",
        "md a Cx",
        "ma a Dx",
        "ma a MX",
        "ma a J-1",
        "ma a D18446744073709551616",
        "ms a",
        "ms a x",
        "ms a -1",
        "ms a 4294967296",
        "ms a 99999999999999999999",
    ] {
        let said = memcached(&mut wire, format!("{request}\r\n").as_bytes());
        assert!(
            said.starts_with(b"CLIENT_ERROR "),
            "{request}: {}",
            show(&said)
        );
        let lines = said.iter().filter(|&&byte| byte == b'\n').count();
        assert_eq!(lines, 1, "{request}: {}", show(&said));
        check_memcached_on(&mut wire, &[("mg a v\r\n", "VA 1\r\nx\r\n")]);
    }
    let echoed = format!("HD O{opaque}\r\n");
    check_memcached_on(&mut wire, &[(&format!("mg a O{opaque}\r\n"), &echoed)]);
}

#[test]
fn class_31_no_beginning_of_a_connection_harms() {
    let mut server = Server::ferrite(&Options::new());
    let mut random = Random::new(Random::seed_of_this_run());
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let starts: [&[u8]; 8] = [
        hello,
        b"\x80\x00",
        b"*1\r\n$4\r\nPI",
        b"get ",
        b"mg k",
        b"GET / HT",
        b"PROXY TCP4",
        b"*-1",
    ];
    for round in 0..400 {
        let start = starts[random.below(starts.len())];
        let mut bytes = start[..random.below(start.len() + 1)].to_vec();
        for _ in 0..random.below(16) {
            bytes.push(random.below(256) as u8);
        }
        let mut wire = if round % 2 == 0 {
            server.connect()
        } else {
            server.connect_memcached()
        };
        wire.send(&bytes);
        // One half closed: the server answers what it has and closes the other.
        wire.finish_sending();
        assert!(wire.until_closed().is_ok(), "{} stays open", show(&bytes));
    }
    assert_eq!(server.connect().line("PING"), "+PONG\r\n");
    assert!(server.is_running());
    check_on(&mut server.connect(), &[("DBSIZE", ":0\r\n")]);
}

#[test]
fn class_32_memcached_verbs_refuse_other_types() {
    let server = Server::start(&Options::new());
    let mut resp = server.connect();
    resp.line("RPUSH list a");
    resp.line("ZADD zset 1 a");
    resp.line("HSET hash f v");
    let mut wire = server.connect_memcached();
    let refused = "SERVER_ERROR the key holds a value that is not a string\r\n";
    for key in ["list", "zset", "hash"] {
        for request in [
            format!("get {key}"),
            format!("gets {key}"),
            format!("gat 10 {key}"),
            format!("add {key} 0 0 1\r\nx"),
            format!("replace {key} 0 0 1\r\nx"),
            format!("append {key} 0 0 1\r\nx"),
            format!("cas {key} 0 0 1 1\r\nx"),
            format!("incr {key} 1"),
            format!("mg {key} v"),
            format!("md {key}"),
            format!("ma {key}"),
            format!("me {key}"),
        ] {
            let request = format!("{request}\r\n");
            check_memcached_on(&mut wire, &[(&request, refused)]);
        }
        assert_eq!(resp.line(&format!("EXISTS {key}")), ":1\r\n");
    }
}
