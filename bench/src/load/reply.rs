//! Counts replies in what a server sends, without keeping them: values are skipped, only headers are looked at.
//!
//! The reader takes input split anywhere. It keeps the number of bytes still to skip, the elements an aggregate still owes,
//! and at most one cut header line.

use std::str::FromStr;

use crate::Result;

/// Longest header line accepted; error texts are short, anything longer means that the reply is not understood.
const MAX_LINE: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Resp,
    Memcached,
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "resp" => Ok(Self::Resp),
            "memcached" => Ok(Self::Memcached),
            _ => Err("expected resp or memcached".into()),
        }
    }
}

/// What the replies said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Values asked for that were not there.
    pub(crate) misses: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.misses += other.misses;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    fn error(&mut self, line: &[u8]) {
        self.errors += 1;
        if self.first_error.is_none() {
            self.first_error = Some(String::from_utf8_lossy(line).into_owned());
        }
    }
}

pub(crate) struct ReplyReader {
    protocol: Protocol,
    /// Bytes of the current value and its line end that have not arrived.
    skip: usize,
    /// RESP: elements the current reply still owes, the one being read included. 0 between replies.
    owed: u64,
    /// Memcached: whether the bytes being skipped end the reply, and whether a value came before `END`.
    skip_ends_reply: bool,
    found: bool,
    /// The beginning of a header line that was cut by the end of the input.
    cut_line: Vec<u8>,
}

impl ReplyReader {
    pub(crate) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            skip: 0,
            owed: 0,
            skip_ends_reply: false,
            found: false,
            cut_line: Vec::new(),
        }
    }

    /// Consumes `input` and returns how many replies ended in it.
    pub(crate) fn feed(&mut self, mut input: &[u8], tally: &mut Tally) -> Result<u64> {
        let mut replies = 0;
        while !input.is_empty() {
            if self.skip > 0 {
                let taken = self.skip.min(input.len());
                self.skip -= taken;
                input = &input[taken..];
                if self.skip == 0 {
                    replies += self.value_ended();
                }
                continue;
            }
            let Some(end) = memchr::memchr(b'\n', input) else {
                self.keep_cut(input)?;
                break;
            };
            let (line, rest) = (&input[..end], &input[end + 1..]);
            input = rest;
            if self.cut_line.is_empty() {
                replies += self.line(line.strip_suffix(b"\r").unwrap_or(line), tally)?;
            } else {
                self.keep_cut(line)?;
                let whole = std::mem::take(&mut self.cut_line);
                replies += self.line(whole.strip_suffix(b"\r").unwrap_or(&whole), tally)?;
            }
        }
        Ok(replies)
    }

    fn keep_cut(&mut self, part: &[u8]) -> Result<()> {
        if self.cut_line.len() + part.len() > MAX_LINE {
            return Err("the server sent a header line without end".into());
        }
        self.cut_line.extend_from_slice(part);
        Ok(())
    }

    fn line(&mut self, line: &[u8], tally: &mut Tally) -> Result<u64> {
        match self.protocol {
            Protocol::Resp => self.resp_line(line, tally),
            Protocol::Memcached => self.memcached_line(line, tally),
        }
    }

    fn value_ended(&mut self) -> u64 {
        match self.protocol {
            Protocol::Resp => self.element_ended(),
            Protocol::Memcached => u64::from(self.skip_ends_reply),
        }
    }

    fn resp_line(&mut self, line: &[u8], tally: &mut Tally) -> Result<u64> {
        let (&kind, rest) = line.split_first().ok_or("the server sent an empty line")?;
        self.owed = self.owed.max(1);
        match kind {
            b'$' | b'=' | b'!' => match parse_length(rest) {
                Some(Length::Bytes(length)) => {
                    self.skip = length + 2;
                    return Ok(0);
                }
                Some(Length::Null) => tally.misses += 1,
                None => return Err(not_understood(line)),
            },
            b'*' | b'~' | b'>' | b'%' => match parse_length(rest) {
                Some(Length::Bytes(length)) => {
                    self.owed += length as u64 * if kind == b'%' { 2 } else { 1 }
                }
                Some(Length::Null) => tally.misses += 1,
                None => return Err(not_understood(line)),
            },
            b'_' => tally.misses += 1,
            b'-' => tally.error(line),
            b'+' | b':' | b',' | b'#' | b'(' => {}
            _ => return Err(not_understood(line)),
        }
        Ok(self.element_ended())
    }

    fn element_ended(&mut self) -> u64 {
        self.owed -= 1;
        u64::from(self.owed == 0)
    }

    fn memcached_line(&mut self, line: &[u8], tally: &mut Tally) -> Result<u64> {
        let mut words = line.split(|&byte| byte == b' ');
        let first = words.next().unwrap_or(line);
        match first {
            b"VALUE" | b"VA" => {
                let size = if first == b"VA" {
                    words.next()
                } else {
                    words.nth(2)
                };
                let Some(Length::Bytes(size)) = size.and_then(parse_length) else {
                    return Err(not_understood(line));
                };
                self.skip = size + 2;
                self.skip_ends_reply = first == b"VA";
                self.found = true;
                return Ok(0);
            }
            b"STAT" | b"ITEM" => return Ok(0),
            b"END" => {
                tally.misses += u64::from(!self.found);
                self.found = false;
            }
            b"EN" | b"NF" | b"NOT_FOUND" => tally.misses += 1,
            b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR" => tally.error(line),
            _ => {}
        }
        Ok(1)
    }
}

enum Length {
    Bytes(usize),
    Null,
}

fn parse_length(digits: &[u8]) -> Option<Length> {
    if digits == b"-1" {
        return Some(Length::Null);
    }
    if digits.is_empty() || digits.len() > 10 {
        return None;
    }
    let mut length = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        length = length * 10 + usize::from(digit - b'0');
    }
    Some(Length::Bytes(length))
}

fn not_understood(line: &[u8]) -> crate::Error {
    let start = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
    format!("reply not understood: {start:?}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the input whole, byte by byte and in every two-way split: all must count the same.
    fn count(protocol: Protocol, input: &str) -> (u64, u64, u64) {
        let run = |parts: &[&[u8]]| {
            let (mut reader, mut tally) = (ReplyReader::new(protocol), Tally::default());
            let replies: u64 = parts
                .iter()
                .map(|part| reader.feed(part, &mut tally).unwrap())
                .sum();
            (replies, tally.misses, tally.errors)
        };
        let bytes = input.as_bytes();
        let whole = run(&[bytes]);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(run(&single), whole);
        for at in 0..bytes.len() {
            assert_eq!(run(&[&bytes[..at], &bytes[at..]]), whole, "split at {at}");
        }
        whole
    }

    #[test]
    fn resp_replies_are_counted_whatever_they_hold() {
        assert_eq!(
            count(Protocol::Resp, "+OK\r\n:1\r\n$3\r\na\nb\r\n$0\r\n\r\n"),
            (4, 0, 0)
        );
        assert_eq!(
            count(Protocol::Resp, "$-1\r\n-ERR no\r\n*-1\r\n_\r\n"),
            (4, 3, 1)
        );
        assert_eq!(
            count(Protocol::Resp, "*2\r\n*1\r\n$1\r\nx\r\n*0\r\n+OK\r\n"),
            (2, 0, 0)
        );
        assert_eq!(
            count(Protocol::Resp, "*0\r\n%1\r\n+a\r\n:1\r\n>2\r\n+a\r\n+b\r\n"),
            (3, 0, 0)
        );
        assert_eq!(count(Protocol::Resp, "*2\r\n$-1\r\n"), (0, 1, 0));
    }

    #[test]
    fn memcached_replies_are_counted_whatever_they_hold() {
        assert_eq!(
            count(
                Protocol::Memcached,
                "VALUE k 0 5\r\nEND\r\n\r\nEND\r\nEND\r\nSTORED\r\n"
            ),
            (3, 1, 0)
        );
        assert_eq!(
            count(
                Protocol::Memcached,
                "VALUE a 0 1\r\nx\r\nVALUE b 0 0 7\r\n\r\nEND\r\n12\r\n"
            ),
            (2, 0, 0)
        );
        assert_eq!(
            count(
                Protocol::Memcached,
                "VA 2 t0\r\nxy\r\nHD\r\nEN\r\nMN\r\nSERVER_ERROR x\r\n"
            ),
            (5, 1, 1)
        );
    }

    #[test]
    fn the_first_error_is_kept() {
        let mut tally = Tally::default();
        ReplyReader::new(Protocol::Resp)
            .feed(b"-ERR one\r\n-ERR two\r\n", &mut tally)
            .unwrap();
        assert_eq!(
            (tally.errors, tally.first_error.as_deref()),
            (2, Some("-ERR one"))
        );
    }

    #[test]
    fn nonsense_is_an_error() {
        for input in ["$x\r\n", "hello\r\n", "\r\n", "$99999999999\r\n"] {
            assert!(
                ReplyReader::new(Protocol::Resp)
                    .feed(input.as_bytes(), &mut Tally::default())
                    .is_err(),
                "{input}"
            );
        }
    }
}
