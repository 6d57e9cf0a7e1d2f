//! What holds for every input: the outcome does not depend on how it is split, garbage is answered rather than
//! panicked on, and what is written can be read.

use proptest::collection::vec;
use proptest::prelude::*;

use protocol::memcache;
use protocol::output::Output;
use protocol::resp::reply::{ReplyWriter, Version};
use protocol::resp::request::{RequestParser, Span, Step};
use protocol::resp::value::{Value, ValueLimits, ValueParser, encode_command};
use protocol::{Error, Limits};

/// Hands out ever longer prefixes of an input: pieces of the given sizes, over and over.
struct Drip<'a> {
    input: &'a [u8],
    pieces: &'a [usize],
    start: usize,
    available: usize,
    next: usize,
}

impl<'a> Drip<'a> {
    fn new(input: &'a [u8], pieces: &'a [usize]) -> Self {
        Drip {
            input,
            pieces,
            start: 0,
            available: 0,
            next: 0,
        }
    }

    fn window(&self) -> &'a [u8] {
        &self.input[self.start..self.available]
    }

    fn consume(&mut self, len: usize) {
        self.start += len;
        assert!(
            self.start <= self.available,
            "more was consumed than was there"
        );
    }

    /// Whether there was more.
    fn grow(&mut self) -> bool {
        let grown = self.available < self.input.len();
        let piece = self.pieces[self.next % self.pieces.len()];
        self.next += 1;
        self.available = (self.available + piece).min(self.input.len());
        grown
    }
}

fn requests(input: &[u8], pieces: &[usize], limits: &Limits) -> Vec<Result<Vec<Vec<u8>>, Error>> {
    let mut drip = Drip::new(input, pieces);
    let mut parser = RequestParser::new();
    let mut found = Vec::new();
    // Spans of earlier requests stay where they are.
    let mut spans = vec![Span { start: 1, end: 2 }];
    loop {
        spans.truncate(1);
        match parser.parse(drip.window(), limits, &mut spans) {
            Ok(Step::Request { consumed }) => {
                let args = spans[1..]
                    .iter()
                    .map(|span| span.of(drip.window()).to_vec());
                found.push(Ok(args.collect()));
                drip.consume(consumed);
            }
            Ok(Step::Inline { consumed, args }) => {
                found.push(Ok(args));
                drip.consume(consumed);
            }
            Ok(Step::Incomplete { needed }) => {
                assert!(needed > 0 && spans.len() == 1);
                if !drip.grow() {
                    return found;
                }
            }
            Err(error) => {
                found.push(Err(error));
                return found;
            }
        }
    }
}

fn values(input: &[u8], pieces: &[usize]) -> String {
    let mut drip = Drip::new(input, pieces);
    let mut parser = ValueParser::new(ValueLimits {
        max_depth: 4,
        ..ValueLimits::default()
    });
    let mut found = Vec::new();
    loop {
        match parser.parse(drip.window()) {
            Ok(Some((value, consumed))) => {
                drip.consume(consumed);
                found.push(value);
            }
            Ok(None) if drip.grow() => {}
            Ok(None) => return format!("{found:?}"),
            // As text, since NaN is not equal to itself.
            Err(error) => return format!("{found:?} {error}"),
        }
    }
}

fn memcache_steps(input: &[u8], pieces: &[usize], limits: &memcache::Limits) -> Vec<String> {
    let mut drip = Drip::new(input, pieces);
    let mut parser = memcache::Parser::new();
    let mut found = Vec::new();
    loop {
        match parser.parse(drip.window(), limits) {
            memcache::Step::Request { consumed, request } => {
                found.push(format!("{request:?}"));
                drip.consume(consumed);
            }
            memcache::Step::Reject {
                consumed,
                rejection,
            } => {
                found.push(format!("{rejection:?}"));
                drip.consume(consumed);
                if rejection.then == memcache::Then::Close {
                    return found;
                }
            }
            memcache::Step::Skip { consumed } => {
                assert!(consumed > 0);
                drip.consume(consumed);
            }
            memcache::Step::Incomplete { needed } => {
                assert!(needed > 0);
                if !drip.grow() {
                    return found;
                }
            }
        }
    }
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    vec(1_usize..9, 1..6)
}

/// Bytes and fragments that make parsers turn.
fn resp_like() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        3 => (0_usize..6).prop_map(|n| format!("*{n}\r\n").into_bytes()),
        6 => vec(any::<u8>(), 0..12).prop_map(|arg| {
            [format!("${}\r\n", arg.len()).as_bytes(), &arg, b"\r\n"].concat()
        }),
        1 => Just(b"PING 'a b' \"\\x41\"\r\n".to_vec()),
        1 => vec(any::<u8>(), 0..4),
        1 => prop::sample::select(vec![
            "*-1\r\n", "$-1\r\n", ":5\r\n", "+OK\r\n", "%1\r\n", "|1\r\n", "~2\r\n", ",nan\r\n", "#t\r\n", "_\r\n",
            "=6\r\ntxt:hi\r\n", "(12\r\n", "!1\r\nx\r\n", "\r\n", "*99999999999\r\n", "$3\rx", "\n", "\r", "*", "$",
        ]).prop_map(|text| text.as_bytes().to_vec()),
    ];
    vec(fragment, 0..12).prop_map(|fragments| fragments.concat())
}

fn memcache_like() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "get",
        "gets",
        "gat",
        "set",
        "add",
        "cas",
        "ms",
        "mg",
        "md",
        "ma",
        "mn",
        "me",
        "incr",
        "delete",
        "touch",
        "flush_all",
        "config",
        "slabs",
        "lru",
        "key",
        "0",
        "1",
        "2",
        "-1",
        "noreply",
        "b",
        "k",
        "v",
        "O1",
        "T30",
        "q",
        "YQ==",
        "x",
        "HTTP/1.1",
        "\r\n",
        "\r\n",
        "\r\n",
        "\n",
        "xy\r\n",
        "\0",
        "99999999999",
    ]);
    let fragment = prop_oneof![
        9 => (word, any::<bool>()).prop_map(|(word, space)| {
            let space = if space { " " } else { "" };
            format!("{word}{space}").into_bytes()
        }),
        2 => (vec(any::<u8>(), 0..8), prop::sample::select(vec!["set k 0 0", "ms k", "cas k 1 2", "ms YQ=="])).prop_map(
            |(data, line)| [format!("{line} {}\r\n", data.len()).as_bytes(), &data, b"\r\n"].concat()
        ),
        1 => vec(any::<u8>(), 0..4),
    ];
    vec(fragment, 0..24).prop_map(|fragments| fragments.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn requests_do_not_depend_on_the_split(input in resp_like(), pieces in pieces()) {
        for limits in [Limits::authenticated(), Limits::unauthenticated(), Limits { max_inline_len: 6, ..Limits::default() }] {
            let whole = requests(&input, &[input.len().max(1)], &limits);
            prop_assert_eq!(requests(&input, &pieces, &limits), whole);
        }
    }

    #[test]
    fn commands_are_read_as_they_were_encoded(
        commands in vec(vec(vec(any::<u8>(), 0..40), 1..20), 1..5),
        pieces in pieces(),
    ) {
        let mut input = Vec::new();
        for command in &commands {
            encode_command(command, &mut input);
        }
        let expected: Vec<_> = commands.into_iter().map(Ok).collect();
        prop_assert_eq!(requests(&input, &pieces, &Limits::default()), expected);
    }

    #[test]
    fn replies_do_not_depend_on_the_split(input in resp_like(), pieces in pieces()) {
        prop_assert_eq!(values(&input, &pieces), values(&input, &[input.len().max(1)]));
    }

    #[test]
    fn replies_are_read_as_they_were_written(reply in reply()) {
        let mut writer = ReplyWriter::new(Version::Resp3);
        write(&mut writer, &reply);
        let bytes = writer.output().to_vec();
        let parsed = ValueParser::default().parse(&bytes);
        prop_assert_eq!(parsed, Ok(Some((reply, bytes.len()))));
    }

    #[test]
    fn memcache_requests_do_not_depend_on_the_split(input in memcache_like(), pieces in pieces()) {
        let short = memcache::Limits { max_item_size: 64, max_line_len: 20, max_get_line_len: 30 };
        for limits in [memcache::Limits::default(), short] {
            let whole = memcache_steps(&input, &[input.len().max(1)], &limits);
            prop_assert_eq!(memcache_steps(&input, &pieces, &limits), whole);
        }
    }

    #[test]
    fn memcache_data_is_never_taken_for_commands(data in vec(any::<u8>(), 0..200), noise in memcache_like()) {
        // Whatever the block holds, and whether it is accepted or too large, the next line is the next request.
        for max_item_size in [100, 1000] {
            let limits = memcache::Limits::new(max_item_size);
            let block = [&data[..], &noise].concat();
            let mut input = format!("set k 0 0 {}\r\n", block.len()).into_bytes();
            input.extend_from_slice(&block);
            input.extend_from_slice(b"\r\nversion\r\n");
            let steps = memcache_steps(&input, &[7], &limits);
            prop_assert_eq!(steps.len(), 2);
            prop_assert_eq!(&steps[1], "Version");
        }
    }

    #[test]
    fn text_cannot_break_out_of_its_line(text in ".*", bytes in vec(any::<u8>(), 0..40)) {
        let mut writer = ReplyWriter::default();
        writer.error(&text);
        writer.error_bytes(&bytes);
        writer.simple(&text);
        let replies = writer.output().to_vec();
        prop_assert_eq!(replies.iter().filter(|byte| **byte == b'\n').count(), 3);
        let mut output = Output::new();
        let mut writer = memcache::response::ResponseWriter::new(&mut output);
        writer.server_error(&text);
        writer.stat(&text, &text);
        prop_assert_eq!(output.to_vec().iter().filter(|byte| **byte == b'\n').count(), 2);
    }
}

/// Replies of every type.
fn reply() -> impl Strategy<Value = Value> {
    let line = || "[a-zA-Z ]{0,20}".prop_map(String::into_bytes);
    let leaf = prop_oneof![
        line().prop_map(Value::Simple),
        line().prop_map(Value::Error),
        any::<i64>().prop_map(Value::Integer),
        vec(any::<u8>(), 0..120).prop_map(Value::Bulk),
        Just(Value::Null),
        any::<bool>().prop_map(Value::Boolean),
        any::<f64>()
            .prop_filter("NaN is not itself", |value| !value.is_nan())
            .prop_map(Value::Double),
        "[0-9]{1,40}".prop_map(|digits| Value::BigNumber(digits.into_bytes())),
        line().prop_map(|text| Value::Verbatim {
            format: *b"txt",
            text
        }),
    ];
    leaf.prop_recursive(4, 64, 12, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..12).prop_map(Value::Array),
            vec(inner.clone(), 0..12).prop_map(Value::Set),
            vec(inner.clone(), 0..12).prop_map(Value::Push),
            vec((inner.clone(), inner), 0..12).prop_map(Value::Map),
        ]
    })
}

/// Arrays are written both ways: their length first, and last.
fn write(writer: &mut ReplyWriter, reply: &Value) {
    match reply {
        Value::Simple(text) => writer.simple(str(text)),
        Value::Error(text) => writer.error_bytes(text),
        Value::Integer(value) => writer.integer(*value),
        Value::Bulk(bytes) => writer.bulk(bytes),
        Value::Null => writer.null(),
        Value::Boolean(value) => writer.boolean(*value),
        Value::Double(value) => writer.double(*value),
        Value::BigNumber(digits) => writer.big_number(str(digits)),
        Value::Verbatim { text, .. } => writer.verbatim("txt", text),
        Value::Array(elements) => {
            let slot = writer.array_deferred();
            elements.iter().for_each(|element| write(writer, element));
            writer.set_array_len(slot, elements.len());
        }
        Value::Set(elements) => {
            writer.set(elements.len());
            elements.iter().for_each(|element| write(writer, element));
        }
        Value::Push(elements) => {
            writer.push(elements.len());
            elements.iter().for_each(|element| write(writer, element));
        }
        Value::Map(pairs) => {
            writer.map(pairs.len());
            for (key, value) in pairs {
                write(writer, key);
                write(writer, value);
            }
        }
        other => panic!("{other:?} is not among the replies"),
    }
}

fn str(ascii: &[u8]) -> &str {
    std::str::from_utf8(ascii).expect("the strategy makes ASCII")
}
