//! Lines and what they mean, checked against memcached 1.6.45.

use std::borrow::Cow;

use bytes::Bytes;

use protocol::memcache::meta::{ArithmeticMode, Flag, MetaKey, SetMode};
use protocol::memcache::response::{Answer, ItemFacts, MetaStatus, ResponseWriter};
use protocol::memcache::{
    Cas, Limits, Lru, LruCrawler, Parser, Rejection, Reply, Request, Slabs, Step, StoreVerb, Then,
};
use protocol::output::Output;

const OK: &str = "ok";
const QUIET: &str = "quiet";
const CLOSE: &str = "close";
const ERROR: &str = "ERROR";
const FORMAT: &str = "CLIENT_ERROR bad command line format";
const CHUNK: &str = "CLIENT_ERROR bad data chunk";
const EXPTIME: &str = "CLIENT_ERROR invalid exptime argument";
const DELTA: &str = "CLIENT_ERROR invalid numeric delta argument";
const TOKEN: &str = "CLIENT_ERROR bad token in command line format";
const DUPLICATE: &str = "CLIENT_ERROR duplicate flag";
const INVALID: &str = "CLIENT_ERROR invalid flag";
const INVALID_OR_DUPLICATE: &str = "CLIENT_ERROR invalid or duplicate flag";
const DECODING: &str = "CLIENT_ERROR error decoding key";
const OPAQUE: &str = "CLIENT_ERROR opaque token too long";
const TOO_MANY: &str = "CLIENT_ERROR options flags are too long";
const TOO_LARGE: &str = "SERVER_ERROR object too large for cache";

/// What becomes of each request in `input`; skipped bytes do not show.
fn outcomes(input: &[u8]) -> Vec<&'static str> {
    let mut parser = Parser::new();
    let mut start = 0;
    let mut found = Vec::new();
    loop {
        match parser.parse(&input[start..], &Limits::default()) {
            Step::Request { consumed, .. } => {
                start += consumed;
                found.push(OK);
            }
            Step::Reject {
                consumed,
                rejection,
            } => {
                start += consumed;
                if rejection.then == Then::Close {
                    found.push(CLOSE);
                    return found;
                }
                found.push(rejection.response.unwrap_or(QUIET));
            }
            Step::Skip { consumed } => start += consumed,
            Step::Incomplete { .. } => {
                assert_eq!(start, input.len(), "bytes are left over");
                return found;
            }
        }
    }
}

#[track_caller]
fn check(cases: &[(&str, &[&str])]) {
    for (input, expected) in cases {
        let input = input.replace('~', "\r\n");
        assert_eq!(outcomes(input.as_bytes()), *expected, "{input:?}");
    }
}

#[track_caller]
fn request(input: &str) -> Request<'_> {
    match Parser::new().parse(input.as_bytes(), &Limits::default()) {
        Step::Request { consumed, request } => {
            assert_eq!(consumed, input.len());
            request
        }
        other => panic!("{input:?} is {other:?}"),
    }
}

#[track_caller]
fn rejection(input: &str) -> Rejection<'_> {
    match Parser::new().parse(input.as_bytes(), &Limits::default()) {
        Step::Reject { rejection, .. } => rejection,
        other => panic!("{input:?} is {other:?}"),
    }
}

#[test]
fn retrieval_lines() {
    let longest = "k".repeat(250);
    check(&[
        ("get a~", &[OK]),
        ("get a\n", &[OK]),
        ("get  a   b ~", &[OK]),
        (&format!("get {longest}~"), &[OK]),
        (&format!("get a {longest}k b~get a~"), &[FORMAT, OK]),
        ("get~gets ~gat~gat 0~", &[FORMAT, FORMAT, FORMAT, FORMAT]),
        ("gat 0 a~gats -1 a b~", &[OK, OK]),
        (
            "gat x a~gat +1 a~gat 2147483648 a~",
            &[EXPTIME, EXPTIME, EXPTIME],
        ),
        ("get a\tb~get a\u{1}b~get a\0b~", &[OK, OK, OK]),
        ("GET a~ get a~get\ta~", &[ERROR, ERROR, ERROR]),
    ]);
    let Request::Get { keys, cas } = request("gets a  bb c \r\n") else {
        panic!("not a get");
    };
    assert_eq!(keys.collect::<Vec<_>>(), [&b"a"[..], b"bb", b"c"]);
    assert_eq!(cas, Cas::Shown);
    let Request::GetAndTouch { exptime, keys, cas } = request("gat -1 a\r\n") else {
        panic!("not a gat");
    };
    assert_eq!((exptime, keys.count(), cas), (-1, 1, Cas::Omitted));
}

#[test]
fn storage_lines_and_their_blocks() {
    check(&[
        ("set a 0 0 1~x~", &[OK]),
        ("set a 0 0 1\nx~", &[OK]),
        ("set a 0 0 0~~get a~", &[OK, OK]),
        ("set a 0 0 4~get ~get a~", &[OK, OK]),
        ("set a +1 +5 01 foo bar~x~", &[OK]),
        ("set~set a~set a 0 0~", &[FORMAT, FORMAT, FORMAT]),
        // Without a length there is no block to skip.
        ("set a 0 0 -1~get a~", &[FORMAT, OK]),
        ("set a 0 0 x noreply~get a~", &[FORMAT, OK]),
        ("set a 0 0 +1~get a~", &[FORMAT, OK]),
        ("set a 0 0 2147483646~get a~", &[FORMAT, OK]),
        ("set a 0 0 4294967297~get a~", &[FORMAT, OK]),
        // With it there is, whatever else is wrong.
        ("set a x 0 5~get a~get a~", &[FORMAT, OK]),
        ("set a -1 0 1~x~get a~", &[FORMAT, OK]),
        ("set a 0 5x 1~x~get a~", &[FORMAT, OK]),
        ("set a 0 x 1 noreply~x~get a~", &[QUIET, OK]),
        ("set a 18446744073709551616 0 1~x~get a~", &[FORMAT, OK]),
        ("cas a 0 0 1 5~x~", &[OK]),
        ("cas a 0 0 1~x~get a~", &[FORMAT, OK]),
        ("cas a 0 0 1 noreply~x~get a~", &[QUIET, OK]),
        ("cas a 0 0 1 -1~x~get a~", &[FORMAT, OK]),
        ("cas a 0 0 1 18446744073709551616~x~get a~", &[FORMAT, OK]),
        (
            &format!("set {} 0 0 1~x~get a~", "k".repeat(251)),
            &[FORMAT, OK],
        ),
        // A block is as long as announced, right or wrong.
        ("set a 0 0 2~xyz~get a~", &[CHUNK, FORMAT, OK]),
        ("set a 0 0 2~xyzzzzz~get a~", &[CHUNK, ERROR, OK]),
        ("set a 0 0 2 noreply~xyz~get a~", &[QUIET, FORMAT, OK]),
        ("set a 0 0 2~xy\nget a~", &[CHUNK, ERROR]),
        ("set a 0 0 3~a~get a~", &[CHUNK, ERROR]),
    ]);
    assert_eq!(
        request("set a 4294967297 99999999999 1 noreply\r\nx\r\n"),
        Request::Store {
            verb: StoreVerb::Set,
            key: b"a",
            flags: 1,
            exptime: 1_215_752_191,
            value: b"x",
            reply: Reply::Suppressed,
        }
    );
    assert_eq!(
        request("cas a 7 -1 2 18446744073709551615\r\nxy\r\n"),
        Request::Store {
            verb: StoreVerb::Cas(u64::MAX),
            key: b"a",
            flags: 7,
            exptime: -1,
            value: b"xy",
            reply: Reply::Wanted,
        }
    );
}

#[test]
fn values_that_do_not_fit_are_skipped_and_take_the_old_ones_with_them() {
    // Where memcached with its default item size draws the line.
    let limits = Limits::default();
    assert_eq!(limits.max_value_len(b"k", 0), 1_048_516);
    assert_eq!(limits.max_value_len(b"k", 5), 1_048_512);
    assert_eq!(limits.max_value_len(&[b'k'; 200], 0), 1_048_317);

    let large = "z".repeat(1_048_577);
    for (line, expected) in [
        ("set a 0 0 1048577", TOO_LARGE),
        ("set a 0 0 1048577 noreply", QUIET),
        ("ms a 1048577", TOO_LARGE),
        ("ms a 1048577 q", TOO_LARGE),
    ] {
        check(&[(&format!("{line}~{large}~get a~"), &[expected, OK])]);
    }
    for (line, stale) in [
        ("set a 0 0 1048577\r\n", true),
        ("add a 0 0 1048577\r\n", false),
        ("cas a 0 0 1048577 1\r\n", false),
        ("ms a 1048577\r\n", true),
        ("ms a 1048577 MA\r\n", true),
    ] {
        assert_eq!(rejection(line).stale.is_some(), stale, "{line:?}");
    }
    let key = rejection("ms YQ== 1048577 b\r\n").stale.expect("a set");
    assert_eq!(key.bytes, Cow::Borrowed(b"a"));
}

#[test]
fn other_classic_lines() {
    let oversized = "k".repeat(251);
    check(&[
        ("delete a~delete a 0~delete a x y~", &[OK, OK, OK]),
        ("delete~", &[FORMAT]),
        (
            &format!("delete {oversized}~delete {oversized} noreply~"),
            &[FORMAT, QUIET],
        ),
        ("incr a 1~decr a 01~incr a 1 foo~", &[OK, OK, OK]),
        ("incr~incr a~incr noreply~", &[FORMAT, FORMAT, FORMAT]),
        (
            "incr a x~incr a -1~incr a +1~incr a 18446744073709551616~",
            &[DELTA; 4],
        ),
        ("incr a x noreply~incr a noreply~", &[QUIET, QUIET]),
        ("touch a 0~touch a 0 foo~", &[OK, OK]),
        (
            "touch a x~touch a 2147483648~touch~touch a~",
            &[EXPTIME, EXPTIME, FORMAT, FORMAT],
        ),
        (
            "flush_all~flush_all 0~flush_all -1 noreply~flush_all noreply~",
            &[OK; 4],
        ),
        (
            "flush_all x~flush_all 1x noreply~flush_all noreply 0~",
            &[EXPTIME, QUIET, EXPTIME],
        ),
        ("version~version x~quit~mn x~", &[OK; 4]),
        (
            "verbosity 1~verbosity~verbosity x~verbosity noreply~",
            &[OK, FORMAT, FORMAT, QUIET],
        ),
        (
            "foo~foo noreply~foo noreply x~xy~",
            &[ERROR, QUIET, ERROR, ERROR],
        ),
        ("x~~\n", &[FORMAT, FORMAT, FORMAT]),
        ("mn\n", &[FORMAT]),
    ]);
    assert_eq!(
        request("delete noreply\r\n"),
        Request::Delete {
            key: b"noreply",
            reply: Reply::Suppressed
        }
    );
    assert_eq!(
        request("decr a 5 noreply \r\n"),
        Request::Decrement {
            key: b"a",
            delta: 5,
            reply: Reply::Suppressed
        }
    );
    assert_eq!(
        request("flush_all 10\r\n"),
        Request::FlushAll {
            delay: 10,
            reply: Reply::Wanted
        }
    );
}

#[test]
fn administration_lines() {
    check(&[
        (
            "stats~stats items 1~stats noreply~watch~watch fetchers~",
            &[OK; 5],
        ),
        (
            "slabs~slabs reassign 1~slabs automove~slabs automove 9~slabs foo~",
            &[ERROR; 5],
        ),
        (
            "verbosity x~slabs automove x~slabs automove ratio~",
            &[FORMAT, FORMAT, ERROR],
        ),
        (
            "lru~lru tune~lru tune x~lru mode x~lru temp_ttl x~lru foo bar~",
            &[ERROR; 6],
        ),
        (
            "lru_crawler~lru_crawler sleep~lru_crawler crawl~lru_crawler foo x~",
            &[ERROR; 4],
        ),
        (
            "lru_crawler sleep x~lru_crawler tocrawl x~",
            &[FORMAT, FORMAT],
        ),
        (
            "cache_memlimit~cache_memlimit x~cache_memlimit 4294967296~cache_memlimit 64~",
            &[ERROR, ERROR, ERROR, OK],
        ),
        (
            "cache_memlimit 7~cache_memlimit 8~cache_memlimit 1000000001~",
            &[
                "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m",
                OK,
                "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes",
            ],
        ),
        (
            "lru tune 40 41 1 2~lru tune 40 40 0 2~lru tune 40 40 1 2~",
            &[
                "ERROR hot and warm pcts must not exceed 80",
                "ERROR hot/warm age factors must be greater than 0",
                OK,
            ],
        ),
        (
            "lru_crawler sleep 1000001~lru_crawler sleep 1000000~slabs reassign 1 2~",
            &[
                "CLIENT_ERROR sleep must be one second or less",
                OK,
                "CLIENT_ERROR slab reassignment disabled",
            ],
        ),
        (
            "slabs automove window~slabs automove window 2~slabs automove window 3~",
            &[
                FORMAT,
                "CLIENT_ERROR automove window too low or too high",
                OK,
            ],
        ),
        (
            "extstore~extstore foo~extstore item_size 5~",
            &[ERROR, ERROR, OK],
        ),
        (
            "slabs foo noreply~lru foo noreply~lru_crawler foo noreply~",
            &[QUIET; 3],
        ),
        ("shutdown~shutdown graceful~refresh_certs~", &[OK, OK, OK]),
        (
            "config~config foo~config get cluster~config set c 0 3~get~get a~",
            &[ERROR, ERROR, OK, OK, OK],
        ),
    ]);
    for (line, command) in [
        ("slabs automove 2\r\n", Slabs::Automove(2)),
        (
            "slabs automove freeratio 0.1\r\n",
            Slabs::AutomoveFreeRatio(0.1),
        ),
        ("slabs automove window 5\r\n", Slabs::AutomoveWindow(5)),
    ] {
        assert_eq!(
            request(line),
            Request::Slabs {
                command,
                reply: Reply::Wanted
            }
        );
    }
    let tune = Lru::Tune {
        hot_percent: 10,
        warm_percent: 25,
        hot_age_ratio: 0.1,
        warm_age_ratio: 2.0,
    };
    assert_eq!(
        request("lru tune 10 25 0.1 2.0\r\n"),
        Request::Lru {
            command: tune,
            reply: Reply::Wanted
        }
    );
    assert_eq!(
        request("lru_crawler metadump 1,2\r\n"),
        Request::LruCrawler {
            command: LruCrawler::Metadump { classes: b"1,2" },
            reply: Reply::Wanted
        }
    );
    assert_eq!(
        request("config set cluster 0 2\r\nhi\r\n"),
        Request::ConfigSet {
            name: b"cluster",
            flags: 0,
            value: b"hi"
        }
    );
}

#[test]
fn meta_lines() {
    let longest_opaque = format!("O{}", "o".repeat(31));
    let many = " P1".repeat(20);
    check(&[
        (
            "mg a~mg a v t f s k c l h O123 q~mg a   v  ~mg a v1 k1~",
            &[OK; 4],
        ),
        ("mg~mg ~md~ma~ms~ms a~me~", &[FORMAT; 7]),
        ("mg a P1 Lx D5 MX I J1 F1~", &[OK]),
        ("mg a v v~mg a T1 T2~md a k k~", &[DUPLICATE; 3]),
        ("mg a z~mg a S~mg a 1~mg a noreply~", &[INVALID; 4]),
        ("mg a \u{1}~mg a !~mg a z ;~", &[FORMAT; 3]),
        (
            "mg a T~mg a Tx~mg a T+5~mg a T2147483648~mg a N~mg a R~mg a E~mg a Cx~",
            &[TOKEN; 8],
        ),
        ("mg a Fx~mg a F-1~mg a F4294967296~", &[FORMAT; 3]),
        (
            "mg a D~mg a J~",
            &[
                "CLIENT_ERROR invalid numeric delta value",
                "CLIENT_ERROR invalid numeric initial value",
            ],
        ),
        (
            &format!("mg a {longest_opaque}~mg a {longest_opaque}o~mg a O~"),
            &[OK, OPAQUE, OK],
        ),
        (
            &format!("mg a{}~mg a{}~", &many[..18 * 3], &many[..19 * 3]),
            &[DUPLICATE, TOO_MANY],
        ),
        (
            &format!("mg {0}~md {0}~me {0}~", "k".repeat(251)),
            &[FORMAT; 3],
        ),
        (
            "mg YQ== b~mg a b~mg YQ b~mg !!!! b~",
            &[OK, DECODING, DECODING, DECODING],
        ),
        // Of several bad values the last counts; client flags, mode and opaque come afterwards.
        (
            "mg a s T b h~mg !! b Nx~mg a J D~",
            &[DECODING, TOKEN, "CLIENT_ERROR invalid numeric delta value"],
        ),
        ("mg a Cx F~ms a 1 Fx Mx~x~", &[TOKEN, FORMAT]),
        (
            &format!("ms a 1 {longest_opaque}o Mx~x~"),
            &["CLIENT_ERROR invalid mode for ms M token"],
        ),
        (
            "ma a~ma a MI~ma a M+~ma a MD~ma a M- N0 J13 D5 v~",
            &[OK; 5],
        ),
        (
            "ma a z~ma a k k~ma a D~ma a D-1~ma a Jx~ma a Tx~ma a b~",
            &[INVALID_OR_DUPLICATE; 7],
        ),
        (
            "ma a M~ma a Mi~ma a Mincr~",
            &["CLIENT_ERROR invalid mode for ma M token"; 3],
        ),
        ("me a~me a x~me YQ== b~mn~", &[OK; 4]),
        ("mx~mga~mz a~MG a~", &[ERROR; 4]),
    ]);
}

#[test]
fn meta_set_stays_in_step() {
    check(&[
        ("ms a 1~x~ms a 01 T0 F5 c~x~", &[OK, OK]),
        (
            "ms a 1 MS~x~ms a 1 MA~x~ms a 1 ME~x~ms a 1 MP~x~ms a 1 MR~x~",
            &[OK; 5],
        ),
        ("ms a x~ms a -1~ms a S1~ms a 2147483646~", &[FORMAT; 4]),
        ("ms a 1 z~x~get a~", &[INVALID, OK]),
        ("ms a 1 k k~x~get a~", &[DUPLICATE, OK]),
        ("ms a 1 T~x~get a~", &[TOKEN, OK]),
        ("ms !! 1 b~x~get a~", &[DECODING, OK]),
        (
            "ms a 1 Ms~x~get a~",
            &["CLIENT_ERROR invalid mode for ms M token", OK],
        ),
        (
            &format!("ms {} 1 q~x~get a~", "k".repeat(251)),
            &[FORMAT, OK],
        ),
        (
            &format!("ms a 1{}~x~get a~", " P".repeat(18)),
            &[TOO_MANY, OK],
        ),
        // What does not even look like flags announces nothing.
        ("ms a 1 ;~get a~", &[FORMAT, OK]),
        ("ms a 1 q~xyz~get a~", &[CHUNK, FORMAT, OK]),
    ]);
}

#[test]
fn meta_flags_have_values_and_order() {
    let line = "mg YQ== b t O12 k C1 E2 T30 N-1 R5 q\r\n";
    let Request::MetaGet { key, flags } = request(line) else {
        panic!("not an mg");
    };
    assert_eq!(
        (&key.bytes[..], key.wire, key.is_base64()),
        (&b"a"[..], &b"YQ=="[..], true)
    );
    assert_eq!(
        (
            flags.compare_cas(),
            flags.new_cas(),
            flags.exptime(),
            flags.vivify(),
            flags.recache()
        ),
        (Some(1), Some(2), Some(30), Some(-1), Some(5))
    );
    assert_eq!(flags.opaque(), Some(&b"12"[..]));
    assert_eq!(
        (flags.delta(), flags.client_flags(), flags.initial()),
        (None, None, None)
    );
    assert!(flags.has(Flag::Quiet) && !flags.has(Flag::Value));
    let order: Vec<Flag> = flags.in_order().take(4).collect();
    assert_eq!(order, [Flag::Base64, Flag::Ttl, Flag::Opaque, Flag::Key]);

    let Request::MetaSet {
        mode, value, flags, ..
    } = request("ms a 2 F7 MA\r\nhi\r\n")
    else {
        panic!("not an ms");
    };
    assert_eq!(
        (mode, value, flags.client_flags()),
        (SetMode::Append, &b"hi"[..], Some(7))
    );
    let Request::MetaArithmetic { mode, flags, .. } = request("ma a MD D5 J13\r\n") else {
        panic!("not an ma");
    };
    assert_eq!(mode, ArithmeticMode::Decrement);
    assert_eq!((flags.delta(), flags.initial()), (Some(5), Some(13)));
}

#[test]
fn lines_of_http_close() {
    check(&[
        ("GET / HTTP/1.1~set a 0 0 1~x~", &[CLOSE]),
        ("POST / HTTP/1.0~", &[CLOSE]),
        (
            "HTTP/1.1~get / HTTP/1.1~delete / HTTP/1.1~",
            &[ERROR, OK, OK],
        ),
    ]);
}

#[test]
fn requests_of_the_binary_protocol_close() {
    let binary_get = "\u{80}\0\0\u{1}\0\0\0\0\0\0\0\u{1}";
    let bytes: Vec<u8> = binary_get.chars().map(|byte| byte as u8).collect();
    assert_eq!(outcomes(&bytes), [CLOSE]);
    assert_eq!(outcomes(&[b"get a\r\n", &bytes[..1]].concat()), [OK, CLOSE]);
}

#[test]
fn strangers_have_little_room() {
    let limits = Limits::unauthenticated();
    let large = format!("set a 0 0 {}\r\n", 16 * 1024);
    assert!(matches!(
        Parser::new().parse(large.as_bytes(), &limits),
        Step::Reject { rejection, .. } if rejection.response == Some(TOO_LARGE)
    ));
    let keys = format!("get{}", " a".repeat(1024));
    assert!(matches!(
        Parser::new().parse(keys.as_bytes(), &limits),
        Step::Reject { rejection, .. } if rejection.then == Then::Close
    ));
}

#[test]
fn lines_end_somewhere() {
    let long = |start: &str, len: usize| format!("{start}{}", "x".repeat(len - start.len()));
    check(&[
        (&format!("{}\n", long("x", 2048)), &[ERROR]),
        (&long("x", 2049), &[CLOSE]),
        (&long("mg ", 2049), &[CLOSE]),
        (&format!("get{}~", " a".repeat(40_000)), &[OK]),
        (&format!("gets{}~", " a".repeat(40_000)), &[OK]),
        (&format!("gat 0{}~", " a".repeat(40_000)), &[OK]),
    ]);
    let limits = Limits {
        max_get_line_len: 100,
        ..Limits::default()
    };
    let line = long("get ", 101);
    let step = Parser::new().parse(line.as_bytes(), &limits);
    assert!(matches!(
        step,
        Step::Reject {
            rejection: Rejection {
                then: Then::Close,
                ..
            },
            ..
        }
    ));
}

#[test]
fn unfinished_blocks_say_how_much_is_missing() {
    let mut parser = Parser::new();
    let limits = Limits::default();
    let input = b"set a 0 0 1000\r\nabc";
    assert_eq!(
        parser.parse(&input[..5], &limits),
        Step::Incomplete { needed: 1 }
    );
    assert_eq!(
        parser.parse(input, &limits),
        Step::Incomplete { needed: 999 }
    );
    assert_eq!(
        parser.parse(input, &limits),
        Step::Incomplete { needed: 999 }
    );
}

#[track_caller]
fn written(write: impl FnOnce(&mut ResponseWriter<'_>), expected: &str) {
    let mut output = Output::new();
    write(&mut ResponseWriter::new(&mut output));
    assert_eq!(String::from_utf8_lossy(&output.to_vec()), expected);
}

#[test]
fn classic_responses() {
    written(|w| w.value(b"a", 5, b"xy", None), "VALUE a 5 2\r\nxy\r\n");
    written(
        |w| w.value(b"a", u32::MAX, b"", Some(7)),
        "VALUE a 4294967295 0 7\r\n\r\n",
    );
    written(|w| w.answer(Answer::NotStored), "NOT_STORED\r\n");
    written(|w| w.number(u64::MAX), "18446744073709551615\r\n");
    written(|w| w.version("1.6.45"), "VERSION 1.6.45\r\n");
    written(|w| w.server_error("a\r\nb"), "SERVER_ERROR a  b\r\n");
    written(|w| w.stat("pid", "1"), "STAT pid 1\r\n");
    written(|w| w.cached_item(b"a", 1, 0), "ITEM a [1 b; 0 s]\r\n");
    written(
        |w| w.config(b"cluster", b"1\nh|i|1\n"),
        "CONFIG cluster 0 8\r\n1\nh|i|1\n\r\nEND\r\n",
    );
    let mut output = Output::new();
    let value = Bytes::from(vec![b'v'; 100_000]);
    ResponseWriter::new(&mut output).value_shared(b"a", 0, value.clone(), None);
    let segments: Vec<&[u8]> = output.segments().collect();
    assert_eq!(segments, [b"VALUE a 0 100000\r\n", &value[..], b"\r\n"]);
    assert_eq!(segments[1].as_ptr(), value.as_ptr());
}

#[test]
fn meta_responses() {
    let plain = MetaKey {
        bytes: Cow::Borrowed(b"a"),
        wire: b"a",
    };
    let coded = MetaKey {
        bytes: Cow::Owned(b"a".to_vec()),
        wire: b"YQ==",
    };
    written(
        |w| {
            let mut line = w.meta_value(1);
            line.key(&plain);
            line.opaque(b"123");
            line.cas(51);
            line.client_flags(5);
            line.hit_before(true);
            line.last_access(0);
            line.size(1);
            line.ttl(None);
            line.already_won();
            line.stale();
            line.won();
            line.end_with(b"x");
        },
        "VA 1 ka O123 c51 f5 h1 l0 s1 t-1 Z X W\r\nx\r\n",
    );
    written(
        |w| {
            let mut line = w.meta(MetaStatus::Done);
            line.key(&coded);
            line.ttl(Some(30));
            line.end();
        },
        "HD kYQ== b t30\r\n",
    );
    written(|w| w.meta(MetaStatus::Miss).end(), "EN\r\n");
    written(|w| w.answer(Answer::MetaNoop), "MN\r\n");
    let facts = ItemFacts {
        exptime: None,
        last_access: 1,
        cas: 52,
        fetched: true,
        class: 1,
        size: 65,
    };
    written(
        |w| w.meta_debug(&plain, &facts),
        "ME a exp=-1 la=1 cas=52 fetch=yes cls=1 size=65\r\n",
    );
    written(
        |w| w.metadump(b"a\tb", &facts, 0),
        "key=a%09b exp=-1 la=1 cas=52 fetch=yes cls=1 size=65 flags=0 \n",
    );
    written(|w| w.mgdump(b"a"), "mg a\r\n");
    written(|w| w.mgdump(b"a b"), "mg YSBi b\r\n");
}
