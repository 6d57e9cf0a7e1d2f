//! Writes replies, in RESP2 or RESP3 as the client asked with HELLO.
//!
//! Handlers say what they mean (`map`, `null`, `double`); this turns it into what the client's version has for it.
//! Replies are written by these methods alone: nothing in a value can break out of its frame, since lengths are
//! computed here and the line types have their line ends taken out.

use bytes::Bytes;

use crate::error::Error;
use crate::output::{Mark, Output};
use crate::resp::double::format_double;

/// Which RESP a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    #[default]
    Resp2,
    Resp3,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct ReplyWriter {
    output: Output,
    version: Version,
}

/// An array header whose length follows.
#[derive(Debug)]
#[must_use = "without set_array_len the elements have no header"]
pub struct ArraySlot {
    mark: Mark,
}

impl ReplyWriter {
    pub const fn new(version: Version) -> Self {
        ReplyWriter {
            output: Output::new(),
            version,
        }
    }

    /// Goes on writing to `output`.
    pub fn with_output(version: Version, output: Output) -> Self {
        ReplyWriter { output, version }
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    #[inline]
    fn is_resp3(&self) -> bool {
        self.version == Version::Resp3
    }

    /// `+OK`
    #[inline]
    pub fn ok(&mut self) {
        self.output.push(b"+OK\r\n");
    }

    /// `+QUEUED`
    pub fn queued(&mut self) {
        self.output.push(b"+QUEUED\r\n");
    }

    /// `+PONG`
    pub fn pong(&mut self) {
        self.output.push(b"+PONG\r\n");
    }

    /// A status word. Line ends in it become spaces.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error, with its code: `ERR no such key`. Line ends and NUL in it become spaces; line ends behind it are dropped.
    pub fn error(&mut self, text: &str) {
        self.error_bytes(text.as_bytes());
    }

    /// As [`ReplyWriter::error`], for text that quotes what a client sent.
    pub fn error_bytes(&mut self, text: &[u8]) {
        let is_line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let len = text.iter().rposition(|byte| !is_line_end(byte));
        self.line(b'-', &text[..len.map_or(0, |last| last + 1)]);
    }

    /// The last reply on a connection whose input cannot be read.
    pub fn protocol_error(&mut self, error: &Error) {
        let mut text = b"ERR ".to_vec();
        error.write_message(&mut text);
        self.error_bytes(&text);
    }

    #[inline]
    pub fn integer(&mut self, value: i64) {
        if (0..10).contains(&value) {
            self.output.push(&[b':', b'0' + value as u8, b'\r', b'\n']);
        } else {
            self.signed_line(b':', value);
        }
    }

    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        let buf = self.output.buffer();
        buf.reserve(bytes.len() + BULK_OVERHEAD);
        write_header(buf, b'$', bytes.len());
        buf.extend_from_slice(bytes);
        buf.extend_from_slice(b"\r\n");
    }

    /// A bulk string that is not copied if it is large.
    pub fn bulk_shared(&mut self, bytes: Bytes) {
        write_header(self.output.buffer(), b'$', bytes.len());
        self.output.push_shared(bytes);
        self.output.push(b"\r\n");
    }

    /// An integer as a bulk string.
    pub fn bulk_integer(&mut self, value: i64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    /// The absent value where there could be a string.
    #[inline]
    pub fn null(&mut self) {
        self.output.push(match self.version {
            Version::Resp2 => b"$-1\r\n",
            Version::Resp3 => b"_\r\n",
        });
    }

    /// The absent value where there could be an array.
    pub fn null_array(&mut self) {
        self.output.push(match self.version {
            Version::Resp2 => b"*-1\r\n",
            Version::Resp3 => b"_\r\n",
        });
    }

    /// Announces `len` elements.
    #[inline]
    pub fn array(&mut self, len: usize) {
        write_header(self.output.buffer(), b'*', len);
    }

    /// Announces `len` pairs.
    pub fn map(&mut self, len: usize) {
        self.pairs(b'%', len);
    }

    /// Announces `len` distinct elements.
    pub fn set(&mut self, len: usize) {
        self.elements(b'~', len);
    }

    /// Announces `len` elements that answer no request.
    pub fn push(&mut self, len: usize) {
        self.elements(b'>', len);
    }

    /// Announces `len` pairs about the reply that follows. RESP2 has nothing for it: leave the pairs out there.
    pub fn attribute(&mut self, len: usize) {
        debug_assert!(
            self.is_resp3(),
            "RESP2 clients would take attributes for replies"
        );
        write_header(self.output.buffer(), b'|', len);
    }

    /// A number with fraction: its own type, or its text.
    pub fn double(&mut self, value: f64) {
        let mut text = Vec::with_capacity(32);
        format_double(value, &mut text);
        match self.version {
            Version::Resp2 => self.bulk(&text),
            Version::Resp3 => self.line(b',', &text),
        }
    }

    /// An integer of any size, given as its digits.
    pub fn big_number(&mut self, digits: &str) {
        match self.version {
            Version::Resp2 => self.bulk(digits.as_bytes()),
            Version::Resp3 => self.line(b'(', digits.as_bytes()),
        }
    }

    pub fn boolean(&mut self, value: bool) {
        self.output.push(match (self.version, value) {
            (Version::Resp2, false) => b":0\r\n",
            (Version::Resp2, true) => b":1\r\n",
            (Version::Resp3, false) => b"#f\r\n",
            (Version::Resp3, true) => b"#t\r\n",
        });
    }

    /// Text for people; `format` is three letters such as `txt`.
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        if !self.is_resp3() {
            self.bulk(text);
            return;
        }
        // Exactly three bytes, or a reader would take text for the format.
        let mut tag = *b"txt:";
        for (to, from) in tag[..3].iter_mut().zip(format.bytes()) {
            *to = from;
        }
        let buf = self.output.buffer();
        write_header(buf, b'=', text.len() + tag.len());
        buf.extend_from_slice(&tag);
        buf.extend_from_slice(text);
        buf.extend_from_slice(b"\r\n");
    }

    /// Bytes that are replies already.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.output.push(bytes);
    }

    /// As [`ReplyWriter::raw`], without copying if they are many: one message for many subscribers.
    pub fn raw_shared(&mut self, bytes: Bytes) {
        self.output.push_shared(bytes);
    }

    /// Begins an array whose length is known later, see [`ReplyWriter::set_array_len`].
    pub fn array_deferred(&mut self) -> ArraySlot {
        ArraySlot { mark: self.mark() }
    }

    /// Puts the header before the elements written since. Nested slots are filled from the inside out.
    pub fn set_array_len(&mut self, slot: ArraySlot, len: usize) {
        self.set_deferred(b'*', slot, len);
    }

    /// As [`ReplyWriter::set_array_len`], of `len` distinct elements.
    pub fn set_set_len(&mut self, slot: ArraySlot, len: usize) {
        let sign = if self.is_resp3() { b'~' } else { b'*' };
        self.set_deferred(sign, slot, len);
    }

    /// As [`ReplyWriter::set_array_len`], of `len` pairs.
    pub fn set_map_len(&mut self, slot: ArraySlot, len: usize) {
        match self.version {
            Version::Resp2 => self.set_deferred(b'*', slot, len * 2),
            Version::Resp3 => self.set_deferred(b'%', slot, len),
        }
    }

    /// Bytes written in all.
    #[inline]
    pub fn len(&self) -> usize {
        self.output.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.output.is_empty()
    }

    #[inline]
    pub fn mark(&self) -> Mark {
        self.output.mark()
    }

    /// Takes back what was written since `mark`.
    pub fn truncate(&mut self, mark: Mark) {
        self.output.truncate(mark);
    }

    /// The pieces to send, in order.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.output.segments()
    }

    /// Everything, when no value is shared.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        self.output.as_bytes()
    }

    /// Forgets what was written; see [`Output::clear`] for what becomes of the buffer.
    pub fn clear(&mut self) {
        self.output.clear();
    }

    pub fn output(&self) -> &Output {
        &self.output
    }

    pub fn output_mut(&mut self) -> &mut Output {
        &mut self.output
    }

    pub fn into_output(self) -> Output {
        self.output
    }

    fn elements(&mut self, sign: u8, len: usize) {
        let sign = if self.is_resp3() { sign } else { b'*' };
        write_header(self.output.buffer(), sign, len);
    }

    fn pairs(&mut self, sign: u8, len: usize) {
        match self.version {
            Version::Resp2 => self.array(len * 2),
            Version::Resp3 => write_header(self.output.buffer(), sign, len),
        }
    }

    fn set_deferred(&mut self, sign: u8, slot: ArraySlot, len: usize) {
        let mut header = Vec::with_capacity(BULK_OVERHEAD);
        write_header(&mut header, sign, len);
        self.output.insert(slot.mark, &header);
    }

    fn signed_line(&mut self, sign: u8, value: i64) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(value).as_bytes();
        let buf = self.output.buffer();
        buf.reserve(digits.len() + 3);
        buf.push(sign);
        buf.extend_from_slice(digits);
        buf.extend_from_slice(b"\r\n");
    }

    /// One line, in which nothing may look like its end.
    fn line(&mut self, sign: u8, text: &[u8]) {
        let buf = self.output.buffer();
        buf.reserve(text.len() + 3);
        buf.push(sign);
        buf.extend(text.iter().map(|byte| match byte {
            b'\r' | b'\n' | 0 => b' ',
            other => *other,
        }));
        buf.extend_from_slice(b"\r\n");
    }
}

/// `$`, up to twenty digits, and two line ends.
const BULK_OVERHEAD: usize = 25;

#[inline]
fn write_header(buf: &mut Vec<u8>, sign: u8, len: usize) {
    match len {
        0..10 => buf.extend_from_slice(&[sign, b'0' + len as u8, b'\r', b'\n']),
        10..100 => {
            let (tens, ones) = (len as u8 / 10, len as u8 % 10);
            buf.extend_from_slice(&[sign, b'0' + tens, b'0' + ones, b'\r', b'\n']);
        }
        _ => write_long_header(buf, sign, len),
    }
}

fn write_long_header(buf: &mut Vec<u8>, sign: u8, len: usize) {
    buf.push(sign);
    buf.extend_from_slice(itoa::Buffer::new().format(len).as_bytes());
    buf.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `write` writes, in RESP2 and RESP3.
    #[track_caller]
    fn check(write: impl Fn(&mut ReplyWriter), resp2: &str, resp3: &str) {
        for (version, expected) in [(Version::Resp2, resp2), (Version::Resp3, resp3)] {
            let mut writer = ReplyWriter::new(version);
            write(&mut writer);
            assert_eq!(String::from_utf8_lossy(&writer.output().to_vec()), expected);
        }
    }

    #[test]
    fn every_type_has_its_form_in_both_versions() {
        check(|w| w.ok(), "+OK\r\n", "+OK\r\n");
        check(|w| w.integer(-12), ":-12\r\n", ":-12\r\n");
        check(|w| w.integer(7), ":7\r\n", ":7\r\n");
        check(
            |w| w.integer(i64::MIN),
            ":-9223372036854775808\r\n",
            ":-9223372036854775808\r\n",
        );
        check(
            |w| w.bulk(b"a\r\nb"),
            "$4\r\na\r\nb\r\n",
            "$4\r\na\r\nb\r\n",
        );
        check(|w| w.bulk(b""), "$0\r\n\r\n", "$0\r\n\r\n");
        check(|w| w.bulk_integer(105), "$3\r\n105\r\n", "$3\r\n105\r\n");
        check(|w| w.null(), "$-1\r\n", "_\r\n");
        check(|w| w.null_array(), "*-1\r\n", "_\r\n");
        check(|w| w.array(0), "*0\r\n", "*0\r\n");
        check(|w| w.map(12), "*24\r\n", "%12\r\n");
        check(|w| w.set(123), "*123\r\n", "~123\r\n");
        check(|w| w.push(3), "*3\r\n", ">3\r\n");
        check(|w| w.double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n");
        check(|w| w.big_number("123"), "$3\r\n123\r\n", "(123\r\n");
        check(|w| w.boolean(true), ":1\r\n", "#t\r\n");
        check(|w| w.boolean(false), ":0\r\n", "#f\r\n");
        check(
            |w| w.verbatim("txt", b"hi"),
            "$2\r\nhi\r\n",
            "=6\r\ntxt:hi\r\n",
        );
        check(
            |w| w.verbatim("markdown", b"hi"),
            "$2\r\nhi\r\n",
            "=6\r\nmar:hi\r\n",
        );
    }

    #[test]
    fn header_lengths_have_all_their_digits() {
        for len in [0, 9, 10, 99, 100, 999, 1000, 65_536] {
            let mut writer = ReplyWriter::default();
            writer.bulk(&vec![b'x'; len]);
            let expected = format!("${len}\r\n{}\r\n", "x".repeat(len));
            assert_eq!(writer.as_bytes(), Some(expected.as_bytes()));
        }
    }

    #[test]
    fn errors_cannot_end_their_line() {
        let text = "ERR a\r\n+OK\0b";
        check(|w| w.error(text), "-ERR a  +OK b\r\n", "-ERR a  +OK b\r\n");
        check(|w| w.simple("a\nb"), "+a b\r\n", "+a b\r\n");
        check(
            |w| w.error("-WRONGTYPE x\r\n\n"),
            "--WRONGTYPE x\r\n",
            "--WRONGTYPE x\r\n",
        );
        let expected = "-ERR Protocol error: expected '$', got ' '\r\n";
        check(
            |w| w.protocol_error(&Error::ExpectedBulk(b'\r')),
            expected,
            expected,
        );
    }

    #[test]
    fn deferred_lengths_nest() {
        let write = |w: &mut ReplyWriter| {
            let outer = w.array_deferred();
            w.integer(1);
            let inner = w.array_deferred();
            w.integer(2);
            w.integer(3);
            w.set_map_len(inner, 1);
            let empty = w.array_deferred();
            w.set_set_len(empty, 0);
            w.set_array_len(outer, 3);
        };
        check(
            write,
            "*3\r\n:1\r\n*2\r\n:2\r\n:3\r\n*0\r\n",
            "*3\r\n:1\r\n%1\r\n:2\r\n:3\r\n~0\r\n",
        );
    }

    #[test]
    fn large_values_are_spliced() {
        let mut writer = ReplyWriter::default();
        let value = Bytes::from(vec![b'v'; 10_000]);
        let slot = writer.array_deferred();
        writer.bulk_shared(value.clone());
        writer.bulk_shared(Bytes::from_static(b"small"));
        writer.set_array_len(slot, 2);
        let segments: Vec<&[u8]> = writer.segments().collect();
        let expected = [b"*2\r\n$10000\r\n", &value[..], b"\r\n$5\r\nsmall\r\n"];
        assert_eq!(segments, expected);
        assert_eq!(segments[1].as_ptr(), value.as_ptr());
    }
}
