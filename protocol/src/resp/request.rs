//! Reads the requests of RESP clients.
//!
//! ```text
//! *2 CRLF  $3 CRLF GET CRLF  $1 CRLF k CRLF        an array of bulk strings
//! GET k CRLF                                       or a plain line (`inline`)
//! ```
//!
//! A request that is there as a whole, which nearly all are, takes one pass without state or allocation: some 30
//! instructions per argument. Only when its end is missing is there a `Box` that remembers how far reading came, so
//! that a request dripping in byte by byte still costs O(its length).

use memchr::memchr;

use crate::error::Error;
use crate::limits::{Limits, UNAUTHENTICATED_MAX_BULK_LEN};
use crate::number::parse_i64;
use crate::resp::inline;

/// Where an argument is, counted from the first byte of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// The argument's bytes.
    ///
    /// `input` is the slice the span was read from, or a longer one that begins with it. Spans of other inputs give
    /// wrong bytes or none.
    #[inline]
    pub fn of(self, input: &[u8]) -> &[u8] {
        input
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

/// What [`RequestParser::parse`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A request of `consumed` bytes whose arguments' spans were appended. None appended: an empty request, ignored.
    Request { consumed: usize },
    /// A plain line. Its arguments are their own bytes, since quoted ones do not appear in the input as they are.
    Inline { consumed: usize, args: Vec<Vec<u8>> },
    /// The request ends beyond the input; call again with at least `needed` bytes more. Within an argument that is
    /// what the client announced, so that the buffer can grow once.
    Incomplete { needed: usize },
}

/// Reads one request after another.
#[derive(Debug, Default)]
pub struct RequestParser {
    pending: Option<Box<Pending>>,
}

impl RequestParser {
    pub const fn new() -> Self {
        RequestParser { pending: None }
    }

    /// Whether the last call ended within a request. If not, the parser holds no memory.
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Reads the request at the start of `input`.
    ///
    /// After [`Step::Incomplete`] the next call wants the same bytes and more. `args` is appended to only by
    /// [`Step::Request`].
    ///
    /// # Errors
    /// The request is malformed or beyond `limits`. There is no next request after that.
    #[inline]
    pub fn parse(
        &mut self,
        input: &[u8],
        limits: &Limits,
        args: &mut Vec<Span>,
    ) -> Result<Step, Error> {
        if self.pending.is_none() {
            let base = args.len();
            match parse_whole(input, limits, args) {
                Some(consumed) => return Ok(Step::Request { consumed }),
                None => args.truncate(base),
            }
        }
        self.parse_in_steps(input, limits, args)
    }

    /// As [`RequestParser::parse`], for a request that begins with `lead` and is there as a whole: its length. `None`
    /// if it is not such a one, and nothing was read.
    #[inline(always)]
    pub fn parse_led(
        &self,
        lead: &Lead,
        input: &[u8],
        limits: &Limits,
        args: &mut Vec<Span>,
    ) -> Option<usize> {
        if !lead.begins(input) || self.pending.is_some() || !limits.authenticated {
            return None;
        }
        let base = args.len();
        args.push(lead.name);
        let position = lead.name.end as usize + 2;
        let end = parse_arguments(input, limits, args, lead.count - 1, position);
        if end.is_none() {
            args.truncate(base);
        }
        end
    }

    /// Everything that is not a whole and ordinary request: the rest of it, plain lines, mistakes.
    #[cold]
    fn parse_in_steps(
        &mut self,
        input: &[u8],
        limits: &Limits,
        args: &mut Vec<Span>,
    ) -> Result<Step, Error> {
        let mut pending = self.pending.take().unwrap_or_default();
        let step = pending.advance(input, limits)?;
        match step {
            Step::Request { .. } => args.extend_from_slice(&pending.spans),
            Step::Inline { .. } => {}
            Step::Incomplete { .. } => self.pending = Some(pending),
        }
        Ok(step)
    }
}

/// How a request begins: the number of its words and the first of them, as bytes that are compared at once.
///
/// Requests of one connection, and of one kind of client, mostly begin like the one before.
#[derive(Clone, Copy, Debug)]
pub struct Lead {
    bytes: [u64; LEAD_WORDS],
    mask: [u64; LEAD_WORDS],
    count: usize,
    name: Span,
}

const LEAD_WORDS: usize = 3;
const LEAD_BYTES: usize = LEAD_WORDS * size_of::<u64>();

impl Lead {
    /// Of a request with these words, if it begins in the ordinary way and briefly: `*` and `$` with a digit each.
    pub fn of(input: &[u8], words: &[Span]) -> Option<Lead> {
        let name = *words.first()?;
        let end = name.end as usize + 2;
        if input.len() < LEAD_BYTES || input[0] != b'*' || name.start != 8 || end > LEAD_BYTES {
            return None;
        }
        let (mut bytes, mut mask) = ([0; LEAD_WORDS], [0; LEAD_WORDS]);
        for (index, byte) in input[..end].iter().enumerate() {
            let (word, shift) = (index / 8, 8 * (index % 8));
            bytes[word] |= u64::from(*byte) << shift;
            mask[word] |= 0xff << shift;
        }
        Some(Lead {
            bytes,
            mask,
            count: words.len(),
            name,
        })
    }

    #[inline(always)]
    fn begins(&self, input: &[u8]) -> bool {
        let Some(first) = input.first_chunk::<LEAD_BYTES>() else {
            return false;
        };
        let mut difference = 0;
        for (index, word) in first.as_chunks().0.iter().enumerate() {
            difference |= (u64::from_le_bytes(*word) & self.mask[index]) ^ self.bytes[index];
        }
        difference == 0
    }
}

/// Lengths of up to this many digits are read by [`parse_whole`].
const WHOLE_MAX_DIGITS: usize = 9;

/// Reads a request that is complete, well-formed and within the limits; returns its length, or `None` without saying
/// why.
#[inline]
fn parse_whole(input: &[u8], limits: &Limits, args: &mut Vec<Span>) -> Option<usize> {
    let (count, position) = read_length(input, b'*')?;
    // A length that is announced is not yet there: beyond what is ordinary, space is taken as arguments arrive.
    if count > limits.max_args {
        return None;
    }
    parse_arguments(input, limits, args, count, position)
}

/// The `count` arguments that begin at `position`; returns where they end.
#[inline(always)]
fn parse_arguments(
    input: &[u8],
    limits: &Limits,
    args: &mut Vec<Span>,
    count: usize,
    mut position: usize,
) -> Option<usize> {
    if input.len() > u32::MAX as usize {
        return None;
    }
    let max_bulk_len = if limits.authenticated {
        limits.max_bulk_len
    } else {
        limits.max_bulk_len.min(UNAUTHENTICATED_MAX_BULK_LEN)
    };
    for _ in 0..count {
        let (len, header_len) = read_length(&input[position..], b'$')?;
        let start = position + header_len;
        // No overflow: nine digits are far below what an index holds.
        let end = start + len;
        if len > max_bulk_len || input.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        args.push(Span {
            start: start as u32,
            end: end as u32,
        });
        position = end + 2;
    }
    Some(position)
}

/// Reads `sign`, a canonical number of few digits and the line end; returns the number and the line's length.
#[inline(always)]
fn read_length(line: &[u8], sign: u8) -> Option<(usize, usize)> {
    // Nearly all numbers have one or two digits: a word shows sign, digits and line end at once.
    if let Some(word) = line.first_chunk().map(|word| u64::from_le_bytes(*word)) {
        const LINE_END: u64 = 0x0a0d;
        let digit = |index: u32| (word >> (8 * index) & 0xff) ^ u64::from(b'0');
        let sign = u64::from(sign);
        if word & 0xffff_00ff == LINE_END << 16 | sign && digit(1) < 10 {
            return Some((digit(1) as usize, 4));
        }
        if word & 0x00ff_ff00_00ff == LINE_END << 24 | sign
            && (1..10).contains(&digit(1))
            && digit(2) < 10
        {
            return Some(((digit(1) * 10 + digit(2)) as usize, 5));
        }
    }
    read_any_length(line, sign)
}

fn read_any_length(line: &[u8], sign: u8) -> Option<(usize, usize)> {
    match line {
        [found, digit @ b'0'..=b'9', b'\r', b'\n', ..] if *found == sign => {
            Some((usize::from(digit - b'0'), 4))
        }
        [found, b'1'..=b'9', digits @ ..] if *found == sign => {
            let mut value = usize::from(line[1] - b'0');
            for (index, byte) in digits.iter().take(WHOLE_MAX_DIGITS).enumerate() {
                let digit = byte.wrapping_sub(b'0');
                if digit > 9 {
                    let whole = *byte == b'\r' && digits.get(index + 1) == Some(&b'\n');
                    return whole.then_some((value, index + 4));
                }
                value = value * 10 + usize::from(digit);
            }
            None
        }
        _ => None,
    }
}

/// How far the reading of an incomplete request came.
#[derive(Debug, Default)]
struct Pending {
    stage: Stage,
    /// Where the current line or argument begins.
    position: usize,
    /// Before this there is no end of the current line.
    searched: usize,
    /// Arguments that are not complete yet.
    remaining: usize,
    /// Those that are.
    spans: Vec<Span>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    /// Nothing is known yet.
    #[default]
    Start,
    /// In the line `*count`.
    Count,
    /// In the line `$length`.
    Length,
    /// In an argument of so many bytes.
    Argument(usize),
    /// In a plain line.
    Inline,
}

impl Pending {
    fn advance(&mut self, input: &[u8], limits: &Limits) -> Result<Step, Error> {
        loop {
            let (next, needed) = match self.stage {
                Stage::Start => (self.start(input), 1),
                Stage::Inline => {
                    let step = self.finish_inline(input, limits)?;
                    return Ok(step.unwrap_or(Step::Incomplete { needed: 1 }));
                }
                Stage::Count => (self.read_count(input, limits)?, 1),
                Stage::Length if self.remaining == 0 => {
                    return Ok(Step::Request {
                        consumed: self.position,
                    });
                }
                Stage::Length => (self.read_length(input, limits)?, 1),
                Stage::Argument(len) => {
                    let needed = (self.position + len + 2).saturating_sub(input.len());
                    (self.read_argument(input, len)?, needed)
                }
            };
            match next {
                Some(stage) => self.stage = stage,
                None => return Ok(Step::Incomplete { needed }),
            }
        }
    }

    /// The first byte decides between the two forms.
    fn start(&mut self, input: &[u8]) -> Option<Stage> {
        match input.first()? {
            b'*' => Some(Stage::Count),
            _ => Some(Stage::Inline),
        }
    }

    fn finish_inline(&mut self, input: &[u8], limits: &Limits) -> Result<Option<Step>, Error> {
        let Some(end) = self.find(b'\n', input, limits, Error::TooBigInline)? else {
            return Ok(None);
        };
        let line = &input[..end];
        let args = inline::split(line.strip_suffix(b"\r").unwrap_or(line))?;
        let consumed = end + 1;
        Ok(Some(match args.is_empty() {
            true => Step::Request { consumed },
            false => Step::Inline { consumed, args },
        }))
    }

    fn read_count(&mut self, input: &[u8], limits: &Limits) -> Result<Option<Stage>, Error> {
        let Some(line) = self.take_line(input, limits, Error::TooBigMultibulkCount)? else {
            return Ok(None);
        };
        let count = parse_i64(&line[1..])
            .filter(|count| *count <= i64::from(i32::MAX))
            .ok_or(Error::InvalidMultibulkLength)?;
        // Negative counts are as empty as zero.
        self.remaining = usize::try_from(count).unwrap_or(0);
        if self.remaining > limits.max_args {
            return Err(match limits.authenticated {
                true => Error::InvalidMultibulkLength,
                false => Error::UnauthenticatedMultibulkLength,
            });
        }
        Ok(Some(Stage::Length))
    }

    fn read_length(&mut self, input: &[u8], limits: &Limits) -> Result<Option<Stage>, Error> {
        let Some(line) = self.take_line(input, limits, Error::TooBigBulkCount)? else {
            return Ok(None);
        };
        // An empty line shows its carriage return.
        let sign = line.first().copied().unwrap_or(b'\r');
        if sign != b'$' {
            return Err(Error::ExpectedBulk(sign));
        }
        let len = parse_i64(&line[1..])
            .and_then(|len| usize::try_from(len).ok())
            .filter(|len| *len <= limits.max_bulk_len)
            .ok_or(Error::InvalidBulkLength)?;
        if !limits.authenticated && len > UNAUTHENTICATED_MAX_BULK_LEN {
            return Err(Error::UnauthenticatedBulkLength);
        }
        // Spans hold 32 bits: a request may have 4 GiB, whatever the limit of an argument.
        match self.position.checked_add(len) {
            Some(end) if end < u32::MAX as usize - 2 => Ok(Some(Stage::Argument(len))),
            _ => Err(Error::InvalidBulkLength),
        }
    }

    fn read_argument(&mut self, input: &[u8], len: usize) -> Result<Option<Stage>, Error> {
        let end = self.position + len;
        let Some(line_end) = input.get(end..end + 2) else {
            return Ok(None);
        };
        if line_end != b"\r\n" {
            return Err(Error::InvalidLineEnding);
        }
        self.spans.push(Span {
            start: self.position as u32,
            end: end as u32,
        });
        self.remaining -= 1;
        self.begin_at(end + 2);
        Ok(Some(Stage::Length))
    }

    /// The current line without its end, once both bytes of that are there.
    fn take_line<'a>(
        &mut self,
        input: &'a [u8],
        limits: &Limits,
        too_big: Error,
    ) -> Result<Option<&'a [u8]>, Error> {
        let Some(end) = self.find(b'\r', input, limits, too_big)? else {
            return Ok(None);
        };
        match input.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => {
                let line = &input[self.position..end];
                self.begin_at(end + 2);
                Ok(Some(line))
            }
            Some(_) => Err(Error::InvalidLineEnding),
        }
    }

    /// Looks for the end of the current line where it was not looked for before.
    fn find(
        &mut self,
        end: u8,
        input: &[u8],
        limits: &Limits,
        too_big: Error,
    ) -> Result<Option<usize>, Error> {
        // Looking no further than the limit makes the outcome independent of how the input was split.
        let limit = self
            .position
            .saturating_add(limits.max_inline_len)
            .saturating_add(1);
        let window = &input[..input.len().min(limit)];
        let unsearched = window.get(self.searched..).unwrap_or_default();
        match memchr(end, unsearched) {
            Some(index) => {
                // A carriage return at the very end of the input is found again by the next call.
                let found = self.searched + index;
                self.searched = found;
                Ok(Some(found))
            }
            None if window.len() == limit => Err(too_big),
            None => {
                self.searched = window.len();
                Ok(None)
            }
        }
    }

    fn begin_at(&mut self, position: usize) {
        self.position = position;
        self.searched = position;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses all of `input`, given in pieces that end at multiples of `piece`; requests until the input or an error
    /// ends it.
    fn parse_all(
        input: &[u8],
        limits: &Limits,
        piece: usize,
    ) -> (Vec<Vec<Vec<u8>>>, Option<Error>) {
        let mut parser = RequestParser::new();
        let mut requests = Vec::new();
        let mut start = 0;
        let mut available = 0;
        let mut args = Vec::new();
        let mut lead = None;
        loop {
            args.clear();
            let led = lead.as_ref().and_then(|lead| {
                let whole = parser.parse_led(lead, &input[start..available], limits, &mut args);
                whole.map(|consumed| (consumed, std::mem::take(&mut args)))
            });
            let step = parser.parse(&input[start..available], limits, &mut args);
            if let Some((consumed, led)) = led {
                assert_eq!((&step, &led), (&Ok(Step::Request { consumed }), &args));
            }
            if let Ok(Step::Request { .. }) = step {
                lead = Lead::of(&input[start..available], &args).or(lead);
            }
            match step {
                Err(error) => return (requests, Some(error)),
                Ok(Step::Request { consumed }) => {
                    let request = &input[start..available];
                    requests.push(args.iter().map(|span| span.of(request).to_vec()).collect());
                    start += consumed;
                }
                Ok(Step::Inline { consumed, args }) => {
                    requests.push(args);
                    start += consumed;
                }
                Ok(Step::Incomplete { needed }) => {
                    assert!(needed > 0);
                    assert!(args.is_empty());
                    if available == input.len() {
                        return (requests, None);
                    }
                    available = (available + piece).min(input.len());
                }
            }
        }
    }

    #[track_caller]
    fn check(input: &[u8], limits: &Limits, expected: &[&[&str]], error: Option<Error>) {
        for piece in [1, 2, 3, 7, input.len().max(1)] {
            let (requests, found) = parse_all(input, limits, piece);
            let text = String::from_utf8_lossy(&input[..input.len().min(60)]).into_owned();
            assert_eq!(found, error, "{text:?} in pieces of {piece}");
            let expected: Vec<Vec<Vec<u8>>> = expected
                .iter()
                .map(|args| args.iter().map(|arg| arg.as_bytes().to_vec()).collect())
                .collect();
            assert_eq!(requests, expected, "{text:?} in pieces of {piece}");
        }
    }

    fn accepts(input: &[u8], expected: &[&[&str]]) {
        check(input, &Limits::default(), expected, None);
    }

    fn refuses(input: &[u8], error: Error) {
        check(input, &Limits::default(), &[], Some(error));
    }

    #[test]
    fn whole_requests_and_pipelines_are_read() {
        accepts(b"*1\r\n$4\r\nPING\r\n", &[&["PING"]]);
        accepts(
            b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\nhello\r\nworld\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n",
            &[&["SET", "k", "hello\r\nworld"], &["GET", ""]],
        );
    }

    #[test]
    fn empty_requests_are_empty() {
        for empty in [
            "*0\r\n",
            "*-1\r\n",
            "*-99999999999\r\n",
            "\r\n",
            "\n",
            "  \t\r\n",
        ] {
            let input = format!("{empty}*1\r\n$4\r\nPING\r\n");
            accepts(input.as_bytes(), &[&[], &["PING"]]);
        }
    }

    #[test]
    fn plain_lines_are_requests() {
        accepts(b"PING\n", &[&["PING"]]);
        accepts(b"PING\r\r\nGET \"a b\"\r\n", &[&["PING"], &["GET", "a b"]]);
        accepts(b"$4\r\nPING\r\n", &[&["$4"], &["PING"]]);
        refuses(b"GET \"a\r\n", Error::UnbalancedQuotes);
    }

    /// Each of these was sent to Valkey 9.1.2, which answers the same error and closes.
    #[test]
    fn malformed_requests_get_valkeys_errors() {
        for line in [
            "*01",
            "*+1",
            "*",
            "*-0",
            "*-99999999999999999999",
            "* 1",
            "*1 ",
            "*2147483648",
            "*abc",
            "*1\n$4",
        ] {
            refuses(
                format!("{line}\r\n").as_bytes(),
                Error::InvalidMultibulkLength,
            );
        }
        for line in [
            "$-1",
            "$",
            "$abc",
            "$04",
            "$536870913",
            "$99999999999999999999",
        ] {
            refuses(
                format!("*1\r\n{line}\r\n").as_bytes(),
                Error::InvalidBulkLength,
            );
        }
        for (line, found) in [
            ("4", b'4'),
            ("", b'\r'),
            (":1", b':'),
            ("\0", 0),
            ("*1", b'*'),
        ] {
            refuses(
                format!("*1\r\n{line}\r\n").as_bytes(),
                Error::ExpectedBulk(found),
            );
        }
        for input in [
            "*1\rX$4\r\nPING\r\n",
            "*1\r\n$4\rXPING\r\n",
            "*1\r\n$4\r\nPINGXX",
            "*1\r\n$4\r\nPING\rX",
            "*1\r\n$4\r\nPINGX\n",
        ] {
            refuses(input.as_bytes(), Error::InvalidLineEnding);
        }
    }

    #[test]
    fn unfinished_requests_wait() {
        for input in [
            "",
            "*",
            "*1",
            "*1\r",
            "*1\n$4\n",
            "*1\r\n4",
            "*1\r\n$4\r\nPING\r",
            "*2147483647\r\n",
            "*1\r\n$536870912\r\n",
        ] {
            accepts(input.as_bytes(), &[]);
        }
    }

    #[test]
    fn lines_without_end_are_refused_at_the_limit() {
        let fill = |prefix: &str, len: usize| [prefix.as_bytes(), &vec![b'1'; len]].concat();
        for (prefix, error) in [
            ("*", Error::TooBigMultibulkCount),
            ("*1\r\n$", Error::TooBigBulkCount),
            ("*1\r\n1", Error::TooBigBulkCount),
            ("1", Error::TooBigInline),
        ] {
            accepts(&fill(prefix, 65_535), &[]);
            refuses(&fill(prefix, 65_536), error);
        }
        let limits = Limits {
            max_inline_len: 8,
            ..Limits::default()
        };
        check(b"12345678\n", &limits, &[&["12345678"]], None);
        check(b"1234567\r\n", &limits, &[&["1234567"]], None);
        check(b"123456789\n", &limits, &[], Some(Error::TooBigInline));
    }

    #[test]
    fn strangers_get_less() {
        let limits = Limits::unauthenticated();
        check(b"*10\r\n", &limits, &[], None);
        check(
            b"*11\r\n",
            &limits,
            &[],
            Some(Error::UnauthenticatedMultibulkLength),
        );
        check(
            b"*2147483648\r\n",
            &limits,
            &[],
            Some(Error::InvalidMultibulkLength),
        );
        check(b"*1\r\n$16384\r\n", &limits, &[], None);
        check(
            b"*1\r\n$16385\r\n",
            &limits,
            &[],
            Some(Error::UnauthenticatedBulkLength),
        );
        check(
            b"*1\r\n$536870913\r\n",
            &limits,
            &[],
            Some(Error::InvalidBulkLength),
        );
        let whole = format!("*1\r\n$16385\r\n{}\r\n", "x".repeat(16_385));
        check(
            whole.as_bytes(),
            &limits,
            &[],
            Some(Error::UnauthenticatedBulkLength),
        );
    }

    #[test]
    fn limits_hold_for_whole_requests_too() {
        let limits = Limits {
            max_bulk_len: 3,
            max_args: 2,
            ..Limits::default()
        };
        check(
            b"*1\r\n$4\r\nPING\r\n",
            &limits,
            &[],
            Some(Error::InvalidBulkLength),
        );
        check(
            b"*3\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n",
            &limits,
            &[],
            Some(Error::InvalidMultibulkLength),
        );
    }

    #[test]
    fn the_rest_of_an_argument_is_announced() {
        let mut parser = RequestParser::new();
        let mut args = Vec::new();
        let limits = Limits::default();
        let step = parser.parse(b"*2\r\n$3\r\nGET\r\n$100\r\nabc", &limits, &mut args);
        assert_eq!(step, Ok(Step::Incomplete { needed: 99 }));
        assert!(parser.is_pending());
    }

    #[test]
    fn announcements_reserve_nothing() {
        let mut parser = RequestParser::new();
        let mut args = Vec::new();
        let input = b"*1000000000\r\n$1\r\na\r\n";
        let step = parser.parse(input, &Limits::default(), &mut args);
        assert_eq!(step, Ok(Step::Incomplete { needed: 1 }));
        assert!(args.capacity() < 16);
        assert!(
            parser
                .pending
                .is_some_and(|pending| pending.spans.capacity() < 16)
        );
    }

    #[test]
    fn spans_are_appended_behind_earlier_ones() {
        let mut parser = RequestParser::new();
        let earlier = Span { start: 7, end: 9 };
        let mut args = vec![earlier];
        let limits = Limits::default();
        let input = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
        let step = parser.parse(&input[..15], &limits, &mut args);
        assert_eq!(step, Ok(Step::Incomplete { needed: 1 }));
        assert_eq!(args, [earlier]);
        let step = parser.parse(input, &limits, &mut args);
        assert_eq!(step, Ok(Step::Request { consumed: 20 }));
        assert_eq!(args[0], earlier);
        assert_eq!(args[2].of(input), b"k");
    }

    #[test]
    fn the_parser_is_small() {
        assert!(size_of::<RequestParser>() <= 32);
    }
}
