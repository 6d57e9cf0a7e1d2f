//! Reads replies: for our own clients, and for what a primary says before its stream begins.
//!
//! Every type of RESP2 and RESP3, except streamed strings and aggregates, which no server sends. Nested values are built
//! on an explicit stack: depth is limited by a number rather than by the thread's stack, and a reply that drips in is
//! never read twice.

use memchr::memchr;

use crate::error::Error;
use crate::number::parse_i64;

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `+OK`
    Simple(Vec<u8>),
    /// `-ERR text`, with its code.
    Error(Vec<u8>),
    /// `:1`
    Integer(i64),
    /// `$3 foo`
    Bulk(Vec<u8>),
    /// `$-1`
    NullBulk,
    /// `*-1`
    NullArray,
    /// `_`
    Null,
    /// `*2 ...`
    Array(Vec<Value>),
    /// `%1 ...`, in the order of arrival.
    Map(Vec<(Value, Value)>),
    /// `~2 ...`
    Set(Vec<Value>),
    /// `>2 ...`: a message, no answer.
    Push(Vec<Value>),
    /// `,1.5`
    Double(f64),
    /// `(123`
    BigNumber(Vec<u8>),
    /// `#t`
    Boolean(bool),
    /// `!5 ERR x`
    BulkError(Vec<u8>),
    /// `=7 txt:abc`
    Verbatim { format: [u8; 3], text: Vec<u8> },
    /// `|1 ...`: pairs about the value that follows them.
    Attributed(Box<Attributed>),
}

/// A value and what is said about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Attributed {
    pub attributes: Vec<(Value, Value)>,
    pub value: Value,
}

impl Value {
    /// Whether this is any of the three ways to say "nothing".
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null | Value::NullBulk | Value::NullArray)
    }

    /// The bytes of any kind of string, errors excluded.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Simple(text)
            | Value::Bulk(text)
            | Value::BigNumber(text)
            | Value::Verbatim { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The error's text, with its code.
    pub fn as_error(&self) -> Option<&[u8]> {
        match self {
            Value::Error(text) | Value::BulkError(text) => Some(text),
            _ => None,
        }
    }
}

/// Bounds on what one reply may contain.
#[derive(Clone, Copy, Debug)]
pub struct ValueLimits {
    /// Aggregates within each other.
    pub max_depth: usize,
    /// Bytes of one string.
    pub max_bulk_len: usize,
    /// Elements of one aggregate, a pair counting twice.
    pub max_elements: usize,
    /// Bytes of one line.
    pub max_line_len: usize,
}

impl Default for ValueLimits {
    fn default() -> Self {
        ValueLimits {
            max_depth: 128,
            max_bulk_len: 1024 * 1024 * 1024,
            max_elements: 256 * 1024 * 1024,
            max_line_len: 64 * 1024,
        }
    }
}

/// Reads one reply after another.
#[derive(Debug, Default)]
pub struct ValueParser {
    limits: ValueLimits,
    /// Aggregates that are being filled, outermost first.
    open: Vec<Aggregate>,
    /// Where the next line begins, counted from the start of the reply.
    position: usize,
    /// Before this there is no end of that line.
    searched: usize,
    /// A string whose line has been read.
    string: Option<PendingString>,
}

#[derive(Clone, Copy, Debug)]
struct PendingString {
    sign: u8,
    len: usize,
}

#[derive(Debug)]
struct Aggregate {
    sign: u8,
    missing: usize,
    elements: Vec<Value>,
}

impl ValueParser {
    pub fn new(limits: ValueLimits) -> Self {
        ValueParser {
            limits,
            ..ValueParser::default()
        }
    }

    /// Reads the reply at the start of `input`; returns it with its length, or `None` if its end is missing. Then the
    /// next call wants the same bytes and more.
    ///
    /// # Errors
    /// [`Error::InvalidReply`] if this is not RESP or beyond the limits. There is no next reply after that.
    pub fn parse(&mut self, input: &[u8]) -> Result<Option<(Value, usize)>, Error> {
        while let Some(value) = self.read_element(input)? {
            if let Some(whole) = self.close(value) {
                let consumed = std::mem::take(&mut self.position);
                self.searched = 0;
                return Ok(Some((whole, consumed)));
            }
        }
        Ok(None)
    }

    /// The next value that is not an unfinished aggregate.
    fn read_element(&mut self, input: &[u8]) -> Result<Option<Value>, Error> {
        loop {
            if let Some(string) = self.string {
                return self.read_string(input, string);
            }
            let Some((sign, line)) = self.take_line(input)? else {
                return Ok(None);
            };
            match sign {
                b'$' | b'!' | b'=' => {
                    let Some(len) = announced(line, self.limits.max_bulk_len)? else {
                        return Ok(Some(Value::NullBulk));
                    };
                    self.string = Some(PendingString { sign, len });
                }
                b'*' | b'~' | b'>' | b'%' | b'|' => {
                    let Some(len) = announced(line, self.limits.max_elements)? else {
                        return Ok(Some(Value::NullArray));
                    };
                    if let Some(empty) = self.open(sign, len)? {
                        return Ok(Some(empty));
                    }
                }
                _ => return line_value(sign, line).map(Some),
            }
        }
    }

    /// Begins an aggregate; one without elements is returned at once.
    fn open(&mut self, sign: u8, len: usize) -> Result<Option<Value>, Error> {
        let missing = match sign {
            b'%' => len.checked_mul(2),
            // The value that the attributes are about belongs to them.
            b'|' => len.checked_mul(2).and_then(|len| len.checked_add(1)),
            _ => Some(len),
        }
        .filter(|missing| *missing <= self.limits.max_elements)
        .ok_or(Error::InvalidReply("too many elements"))?;
        let aggregate = Aggregate {
            sign,
            missing,
            elements: Vec::new(),
        };
        if missing == 0 {
            return Ok(Some(aggregate.finish()));
        }
        if self.open.len() == self.limits.max_depth {
            return Err(Error::InvalidReply("too deeply nested"));
        }
        self.open.push(aggregate);
        Ok(None)
    }

    /// Puts `value` where it belongs; returns the whole reply if that was its last part.
    fn close(&mut self, mut value: Value) -> Option<Value> {
        while let Some(mut aggregate) = self.open.pop() {
            aggregate.elements.push(value);
            aggregate.missing -= 1;
            if aggregate.missing > 0 {
                self.open.push(aggregate);
                return None;
            }
            value = aggregate.finish();
        }
        Some(value)
    }

    fn read_string(&mut self, input: &[u8], string: PendingString) -> Result<Option<Value>, Error> {
        let end = self.position.saturating_add(string.len);
        let Some(line_end) = input.get(end..end.saturating_add(2)) else {
            return Ok(None);
        };
        if line_end != b"\r\n" {
            return Err(Error::InvalidReply("string without line end"));
        }
        let bytes = input[self.position..end].to_vec();
        self.begin_at(end + 2);
        self.string = None;
        Ok(Some(match string.sign {
            b'$' => Value::Bulk(bytes),
            b'!' => Value::BulkError(bytes),
            _ => verbatim(&bytes)?,
        }))
    }

    /// The next line's first byte and the rest of it.
    fn take_line<'a>(&mut self, input: &'a [u8]) -> Result<Option<(u8, &'a [u8])>, Error> {
        let limit = self.position.saturating_add(self.limits.max_line_len);
        let window = &input[..input.len().min(limit)];
        let Some(index) = memchr(b'\n', window.get(self.searched..).unwrap_or_default()) else {
            if window.len() == limit {
                return Err(Error::InvalidReply("line without end"));
            }
            self.searched = window.len();
            return Ok(None);
        };
        let end = self.searched + index;
        let line = &input[self.position..end];
        self.begin_at(end + 1);
        match line {
            [sign, text @ .., b'\r'] if !text.contains(&b'\r') => Ok(Some((*sign, text))),
            _ => Err(Error::InvalidReply("invalid line")),
        }
    }

    fn begin_at(&mut self, position: usize) {
        self.position = position;
        self.searched = position;
    }
}

impl Aggregate {
    fn finish(mut self) -> Value {
        match self.sign {
            b'*' => Value::Array(self.elements),
            b'~' => Value::Set(self.elements),
            b'>' => Value::Push(self.elements),
            b'%' => Value::Map(pairs(self.elements)),
            _ => {
                let value = self.elements.pop().unwrap_or(Value::Null);
                let attributes = pairs(self.elements);
                Value::Attributed(Box::new(Attributed { attributes, value }))
            }
        }
    }
}

fn pairs(elements: Vec<Value>) -> Vec<(Value, Value)> {
    let mut pairs = Vec::with_capacity(elements.len() / 2);
    let mut elements = elements.into_iter();
    while let (Some(key), Some(value)) = (elements.next(), elements.next()) {
        pairs.push((key, value));
    }
    pairs
}

/// A length; `None` for -1.
fn announced(line: &[u8], limit: usize) -> Result<Option<usize>, Error> {
    match parse_i64(line) {
        Some(-1) => Ok(None),
        len => len
            .and_then(|len| usize::try_from(len).ok())
            .filter(|len| *len <= limit)
            .map(Some)
            .ok_or(Error::InvalidReply("invalid length")),
    }
}

/// The types that are one line.
fn line_value(sign: u8, line: &[u8]) -> Result<Value, Error> {
    match (sign, line) {
        (b'+', _) => Ok(Value::Simple(line.to_vec())),
        (b'-', _) => Ok(Value::Error(line.to_vec())),
        (b'(', _) if is_integer(line) => Ok(Value::BigNumber(line.to_vec())),
        (b'_', []) => Ok(Value::Null),
        (b'#', b"t") => Ok(Value::Boolean(true)),
        (b'#', b"f") => Ok(Value::Boolean(false)),
        (b':', _) => parse_i64(line.strip_prefix(b"+").unwrap_or(line))
            .map(Value::Integer)
            .ok_or(Error::InvalidReply("invalid integer")),
        (b',', _) => std::str::from_utf8(line)
            .ok()
            .and_then(|text| text.parse().ok())
            .map(Value::Double)
            .ok_or(Error::InvalidReply("invalid double")),
        _ => Err(Error::InvalidReply("unknown type")),
    }
}

fn is_integer(text: &[u8]) -> bool {
    let digits = match text {
        [b'+' | b'-', digits @ ..] => digits,
        digits => digits,
    };
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

fn verbatim(bytes: &[u8]) -> Result<Value, Error> {
    match bytes {
        [a, b, c, b':', text @ ..] => Ok(Value::Verbatim {
            format: [*a, *b, *c],
            text: text.to_vec(),
        }),
        _ => Err(Error::InvalidReply("verbatim string without format")),
    }
}

/// Appends a command as clients send it: an array of bulk strings.
pub fn encode_command(args: &[impl AsRef<[u8]>], out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    let mut header = |sign: u8, len: usize, out: &mut Vec<u8>| {
        out.push(sign);
        out.extend_from_slice(digits.format(len).as_bytes());
        out.extend_from_slice(b"\r\n");
    };
    header(b'*', args.len(), out);
    for arg in args {
        let arg = arg.as_ref();
        header(b'$', arg.len(), out);
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses all of `input` in pieces; replies until the input or an error ends it.
    fn parse_all(input: &[u8], limits: ValueLimits, piece: usize) -> Result<Vec<Value>, Error> {
        let mut parser = ValueParser::new(limits);
        let mut values = Vec::new();
        let mut start = 0;
        let mut available = 0;
        loop {
            match parser.parse(&input[start..available])? {
                Some((value, consumed)) => {
                    values.push(value);
                    start += consumed;
                }
                None if available == input.len() => return Ok(values),
                None => available = (available + piece).min(input.len()),
            }
        }
    }

    #[track_caller]
    fn check(input: &str, expected: Result<Vec<Value>, Error>) {
        for piece in [1, 2, 5, input.len().max(1)] {
            let found = parse_all(input.as_bytes(), ValueLimits::default(), piece);
            assert_eq!(found, expected, "{input:?} in pieces of {piece}");
        }
    }

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.into())
    }

    #[test]
    fn every_type_is_read() {
        for (input, value) in [
            ("+OK\r\n", Value::Simple("OK".into())),
            ("-ERR no\r\n", Value::Error("ERR no".into())),
            (":-5\r\n", Value::Integer(-5)),
            (":+5\r\n", Value::Integer(5)),
            ("$4\r\na\r\nb\r\n", bulk("a\r\nb")),
            ("$0\r\n\r\n", bulk("")),
            ("$-1\r\n", Value::NullBulk),
            ("*-1\r\n", Value::NullArray),
            ("_\r\n", Value::Null),
            (",1.5e3\r\n", Value::Double(1500.0)),
            (",-inf\r\n", Value::Double(f64::NEG_INFINITY)),
            (
                "(12345678901234567890123\r\n",
                Value::BigNumber("12345678901234567890123".into()),
            ),
            ("#t\r\n", Value::Boolean(true)),
            ("!5\r\nERR x\r\n", Value::BulkError("ERR x".into())),
            (
                "=6\r\ntxt:hi\r\n",
                Value::Verbatim {
                    format: *b"txt",
                    text: "hi".into(),
                },
            ),
            ("*0\r\n", Value::Array(vec![])),
            ("~1\r\n:1\r\n", Value::Set(vec![Value::Integer(1)])),
            (">1\r\n+x\r\n", Value::Push(vec![Value::Simple("x".into())])),
            (
                "%1\r\n+k\r\n*1\r\n_\r\n",
                Value::Map(vec![(
                    Value::Simple("k".into()),
                    Value::Array(vec![Value::Null]),
                )]),
            ),
            (
                "|1\r\n+k\r\n:1\r\n$1\r\nv\r\n",
                Value::Attributed(Box::new(Attributed {
                    attributes: vec![(Value::Simple("k".into()), Value::Integer(1))],
                    value: bulk("v"),
                })),
            ),
        ] {
            check(input, Ok(vec![value]));
        }
        let mut nan = ValueParser::default();
        assert!(matches!(nan.parse(b",nan\r\n"), Ok(Some((Value::Double(x), 6))) if x.is_nan()));
    }

    #[test]
    fn replies_follow_each_other() {
        check(
            "*2\r\n*1\r\n:1\r\n*0\r\n+OK\r\n",
            Ok(vec![
                Value::Array(vec![
                    Value::Array(vec![Value::Integer(1)]),
                    Value::Array(vec![]),
                ]),
                Value::Simple("OK".into()),
            ]),
        );
    }

    #[test]
    fn unfinished_replies_wait() {
        for input in [
            "",
            "+OK",
            "+OK\r",
            "$3\r\nfoo",
            "$3\r\nfoo\r",
            "*2\r\n:1\r\n",
            "|1\r\n+a\r\n+b\r\n",
        ] {
            check(input, Ok(vec![]));
        }
    }

    #[test]
    fn what_is_not_resp_is_refused() {
        for (input, reason) in [
            ("?\r\n", "unknown type"),
            ("\r\n", "invalid line"),
            ("+OK\n", "invalid line"),
            ("+a\rb\r\n", "invalid line"),
            (":x\r\n", "invalid integer"),
            (",x\r\n", "invalid double"),
            ("(1.5\r\n", "unknown type"),
            ("#x\r\n", "unknown type"),
            ("$-2\r\n", "invalid length"),
            ("$x\r\n", "invalid length"),
            ("$99999999999\r\n", "invalid length"),
            ("*99999999999\r\n", "invalid length"),
            ("%200000000\r\n", "too many elements"),
            ("$3\r\nfooXX", "string without line end"),
            ("=2\r\nhi\r\n", "verbatim string without format"),
        ] {
            check(input, Err(Error::InvalidReply(reason)));
        }
    }

    #[test]
    fn depth_and_lines_are_limited() {
        let nested = "*1\r\n".repeat(129);
        check(&nested, Err(Error::InvalidReply("too deeply nested")));
        check(&"*1\r\n".repeat(128), Ok(vec![]));
        check(
            &"+".repeat(64 * 1024),
            Err(Error::InvalidReply("line without end")),
        );
    }

    #[test]
    fn announced_lengths_reserve_nothing() {
        let mut parser = ValueParser::default();
        assert_eq!(parser.parse(b"*100000000\r\n:1\r\n"), Ok(None));
        assert!(parser.open[0].elements.capacity() < 16);
    }

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        let mut out = Vec::new();
        encode_command(&["SET", "k", ""], &mut out);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n");
    }
}
