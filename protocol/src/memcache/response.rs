//! Writes responses, classic and meta.
//!
//! As with RESP replies, everything goes through typed methods: text that could end its line has the line ends taken
//! out, large values are spliced in without copying.

use bytes::Bytes;

use super::base64;
use super::meta::MetaKey;
use crate::output::Output;

/// Appends to an [`Output`].
#[derive(Debug)]
pub struct ResponseWriter<'o> {
    output: &'o mut Output,
}

/// The lines that are always the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Stored,
    NotStored,
    Exists,
    NotFound,
    Deleted,
    Touched,
    Ok,
    End,
    Reset,
    Error,
    MetaNoop,
    /// `EN`, of `me`; `mg` writes it with flags.
    MetaMiss,
}

impl Answer {
    fn line(self) -> &'static [u8] {
        match self {
            Answer::Stored => b"STORED\r\n",
            Answer::NotStored => b"NOT_STORED\r\n",
            Answer::Exists => b"EXISTS\r\n",
            Answer::NotFound => b"NOT_FOUND\r\n",
            Answer::Deleted => b"DELETED\r\n",
            Answer::Touched => b"TOUCHED\r\n",
            Answer::Ok => b"OK\r\n",
            Answer::End => b"END\r\n",
            Answer::Reset => b"RESET\r\n",
            Answer::Error => b"ERROR\r\n",
            Answer::MetaNoop => b"MN\r\n",
            Answer::MetaMiss => b"EN\r\n",
        }
    }
}

/// How a meta command went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaStatus {
    /// `HD`: done, or found and its value not asked for.
    Done,
    /// `EN`: `mg` found nothing.
    Miss,
    /// `NF`: nothing there to change.
    NotFound,
    /// `NS`: not stored.
    NotStored,
    /// `EX`: the CAS is another.
    Exists,
}

/// What `me` and the dumps say of an item.
#[derive(Clone, Copy, Debug)]
pub struct ItemFacts {
    /// For `me` in seconds from now, for dumps as Unix time; `None` is never.
    pub exptime: Option<i64>,
    /// For `me` seconds ago, for dumps as Unix time.
    pub last_access: i64,
    pub cas: u64,
    pub fetched: bool,
    pub class: u32,
    pub size: usize,
}

impl<'o> ResponseWriter<'o> {
    pub fn new(output: &'o mut Output) -> Self {
        ResponseWriter { output }
    }

    #[inline]
    pub fn answer(&mut self, answer: Answer) {
        self.output.push(answer.line());
    }

    /// A line as it is, such as [`super::Rejection::response`]; line ends in it become spaces.
    pub fn line(&mut self, text: &str) {
        self.text(text.as_bytes());
        self.end_line();
    }

    /// `CLIENT_ERROR text`
    pub fn client_error(&mut self, text: &str) {
        self.output.push(b"CLIENT_ERROR ");
        self.line(text);
    }

    /// `SERVER_ERROR text`
    pub fn server_error(&mut self, text: &str) {
        self.output.push(b"SERVER_ERROR ");
        self.line(text);
    }

    /// `VERSION text`
    pub fn version(&mut self, text: &str) {
        self.output.push(b"VERSION ");
        self.line(text);
    }

    /// The new value after `incr` or `decr`.
    pub fn number(&mut self, value: u64) {
        self.digits(value);
        self.end_line();
    }

    /// `VALUE key flags bytes [cas]` and the data block. [`Answer::End`] follows the last one.
    #[inline]
    pub fn value(&mut self, key: &[u8], flags: u32, value: &[u8], cas: Option<u64>) {
        self.value_header(key, flags, value.len(), cas);
        self.output.push(value);
        self.end_line();
    }

    /// As [`ResponseWriter::value`], not copying large values.
    pub fn value_shared(&mut self, key: &[u8], flags: u32, value: Bytes, cas: Option<u64>) {
        self.value_header(key, flags, value.len(), cas);
        self.output.push_shared(value);
        self.end_line();
    }

    /// `STAT name value`
    pub fn stat(&mut self, name: &str, value: &str) {
        self.output.push(b"STAT ");
        self.text(name.as_bytes());
        self.output.push(b" ");
        self.line(value);
    }

    /// `STAT name number`
    pub fn stat_number(&mut self, name: &str, value: u64) {
        self.stat(name, itoa::Buffer::new().format(value));
    }

    /// `ITEM key [bytes b; exptime s]`, of `stats cachedump`.
    pub fn cached_item(&mut self, key: &[u8], len: usize, exptime: i64) {
        self.output.push(b"ITEM ");
        self.text(key);
        self.output.push(b" [");
        self.digits(len as u64);
        self.output.push(b" b; ");
        self.signed(exptime);
        self.output.push(b" s]\r\n");
    }

    /// `CONFIG name 0 bytes`, the data block and `END`.
    pub fn config(&mut self, name: &[u8], value: &[u8]) {
        self.output.push(b"CONFIG ");
        self.text(name);
        self.output.push(b" 0 ");
        self.digits(value.len() as u64);
        self.end_line();
        self.output.push(value);
        self.output.push(b"\r\nEND\r\n");
    }

    /// `ME key exp=... `
    pub fn meta_debug(&mut self, key: &MetaKey<'_>, facts: &ItemFacts) {
        self.output.push(b"ME ");
        self.text(key.wire);
        self.facts(facts);
        self.end_line();
    }

    /// A line of `lru_crawler metadump`.
    pub fn metadump(&mut self, key: &[u8], facts: &ItemFacts, flags: u32) {
        self.output.push(b"key=");
        write_uri_encoded(key, self.output.buffer());
        self.facts(facts);
        self.output.push(b" flags=");
        self.digits(flags.into());
        // A space ends the last field and a lone line feed the line.
        self.output.push(b" \n");
    }

    /// A line of `lru_crawler mgdump`: a request that fetches the item.
    pub fn mgdump(&mut self, key: &[u8]) {
        self.output.push(b"mg ");
        if is_text_key(key) {
            self.output.push(key);
        } else {
            base64::encode(key, self.output.buffer());
            self.output.push(b" b");
        }
        self.end_line();
    }

    /// Begins the line of a meta command's response; flags follow.
    #[inline]
    pub fn meta(&mut self, status: MetaStatus) -> MetaLine<'_> {
        self.output.push(match status {
            MetaStatus::Done => b"HD",
            MetaStatus::Miss => b"EN",
            MetaStatus::NotFound => b"NF",
            MetaStatus::NotStored => b"NS",
            MetaStatus::Exists => b"EX",
        });
        MetaLine {
            output: self.output,
        }
    }

    /// Begins the line of a response with a value of `len` bytes: flags follow, then [`MetaLine::end_with`].
    #[inline]
    pub fn meta_value(&mut self, len: usize) -> MetaLine<'_> {
        self.output.push(b"VA ");
        self.digits(len as u64);
        MetaLine {
            output: self.output,
        }
    }

    fn value_header(&mut self, key: &[u8], flags: u32, len: usize, cas: Option<u64>) {
        // "VALUE ", two numbers of ten digits, one of twenty, blanks and line ends.
        self.output.buffer().reserve(key.len() + len + 56);
        self.output.push(b"VALUE ");
        self.text(key);
        self.output.push(b" ");
        self.digits(flags.into());
        self.output.push(b" ");
        self.digits(len as u64);
        if let Some(cas) = cas {
            self.output.push(b" ");
            self.digits(cas);
        }
        self.end_line();
    }

    fn facts(&mut self, facts: &ItemFacts) {
        self.output.push(b" exp=");
        self.signed(facts.exptime.unwrap_or(-1));
        self.output.push(b" la=");
        self.signed(facts.last_access);
        self.output.push(b" cas=");
        self.digits(facts.cas);
        self.output.push(match facts.fetched {
            true => b" fetch=yes cls=",
            false => b" fetch=no cls=",
        });
        self.digits(facts.class.into());
        self.output.push(b" size=");
        self.digits(facts.size as u64);
    }

    /// Bytes within a line.
    fn text(&mut self, text: &[u8]) {
        push_text(self.output, text);
    }

    fn digits(&mut self, value: u64) {
        self.output
            .push(itoa::Buffer::new().format(value).as_bytes());
    }

    fn signed(&mut self, value: i64) {
        self.output
            .push(itoa::Buffer::new().format(value).as_bytes());
    }

    fn end_line(&mut self) {
        self.output.push(b"\r\n");
    }
}

/// The first line of a meta response, whose flags are appended in the order in which the request has them.
#[derive(Debug)]
#[must_use = "the line has no end yet"]
pub struct MetaLine<'o> {
    output: &'o mut Output,
}

impl MetaLine<'_> {
    /// `O`
    pub fn opaque(&mut self, value: &[u8]) {
        self.letter(b'O');
        push_text(self.output, value);
    }

    /// `k`, and `b` if the key is in base64.
    pub fn key(&mut self, key: &MetaKey<'_>) {
        self.letter(b'k');
        push_text(self.output, key.wire);
        if key.is_base64() {
            self.letter(b'b');
        }
    }

    /// `c`
    pub fn cas(&mut self, cas: u64) {
        self.number(b'c', cas);
    }

    /// `f`
    pub fn client_flags(&mut self, flags: u32) {
        self.number(b'f', flags.into());
    }

    /// `h`
    pub fn hit_before(&mut self, hit: bool) {
        self.number(b'h', hit.into());
    }

    /// `l`
    pub fn last_access(&mut self, seconds_ago: u64) {
        self.number(b'l', seconds_ago);
    }

    /// `s`
    pub fn size(&mut self, value_len: usize) {
        self.number(b's', value_len as u64);
    }

    /// `t`: the seconds left, `None` for ever.
    pub fn ttl(&mut self, seconds: Option<u64>) {
        match seconds {
            Some(seconds) => self.number(b't', seconds),
            None => self.output.push(b" t-1"),
        }
    }

    /// `Z`: another client has been told to recache. Goes before `X` and `W`.
    pub fn already_won(&mut self) {
        self.letter(b'Z');
    }

    /// `X`: the item is stale.
    pub fn stale(&mut self) {
        self.letter(b'X');
    }

    /// `W`: this client is to recache. Goes last.
    pub fn won(&mut self) {
        self.letter(b'W');
    }

    /// Ends the line of a response without value.
    #[inline]
    pub fn end(self) {
        self.output.push(b"\r\n");
    }

    /// Ends the line and appends the data block that it announced.
    #[inline]
    pub fn end_with(self, value: &[u8]) {
        self.output.push(b"\r\n");
        self.output.push(value);
        self.output.push(b"\r\n");
    }

    /// As [`MetaLine::end_with`], not copying large values.
    pub fn end_with_shared(self, value: Bytes) {
        self.output.push(b"\r\n");
        self.output.push_shared(value);
        self.output.push(b"\r\n");
    }

    fn letter(&mut self, letter: u8) {
        self.output.push(&[b' ', letter]);
    }

    fn number(&mut self, letter: u8, value: u64) {
        self.letter(letter);
        self.output
            .push(itoa::Buffer::new().format(value).as_bytes());
    }
}

/// Appends bytes to a line, none of which may end it.
fn push_text(output: &mut Output, text: &[u8]) {
    let buf = output.buffer();
    let start = buf.len();
    buf.extend_from_slice(text);
    if memchr::memchr2(b'\n', b'\r', text).is_some() {
        for byte in &mut buf[start..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
    }
}

/// Whether a key can be written in a line. Others may have come in through base64 or another protocol.
pub fn is_text_key(key: &[u8]) -> bool {
    !key.is_empty() && !key.iter().any(|byte| *byte <= b' ' || *byte == 0x7f)
}

/// Appends a key with everything but letters, digits and `-._~` as `%XX`.
pub fn write_uri_encoded(key: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in key {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(&[
                b'%',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]);
        }
    }
}
