//! A plain blocking client: what goes out and what comes in are exact bytes.
//!
//! The framer finds where one reply ends and leaves its bytes untouched, since the bytes are what the tests compare.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longest wait for a reply; generous, since test machines are busy.
const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// What stopped a read before its reply was complete.
#[derive(Debug)]
pub enum Failure {
    /// The server closed the connection; the bytes of an unfinished reply, if any.
    Closed(Vec<u8>),
    /// Nothing more came in time; the bytes received so far.
    TimedOut(Vec<u8>),
    /// The bytes are no RESP.
    Malformed(Vec<u8>),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Closed(rest) => write!(formatter, "<connection closed after {}>", show(rest)),
            Failure::TimedOut(rest) => write!(formatter, "<no reply in time after {}>", show(rest)),
            Failure::Malformed(rest) => write!(formatter, "<not RESP: {}>", show(rest)),
        }
    }
}

/// One connection to a server.
pub struct Wire {
    stream: TcpStream,
    /// Bytes received and not yet consumed start at `consumed`.
    input: Vec<u8>,
    consumed: usize,
}

impl Wire {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).expect("the server accepts connections")
    }

    /// # Errors
    /// Nobody listens, or who does is overwhelmed.
    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, REPLY_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
        Ok(Self {
            stream,
            input: Vec::new(),
            consumed: 0,
        })
    }

    /// Sends bytes as they are. A server that has closed already is noticed by the next read.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends a command as an array of bulk strings.
    pub fn send_command<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        let mut request = Vec::new();
        encode(args, &mut request);
        self.send(&request);
    }

    /// Sends a command and returns the bytes of its reply.
    pub fn command<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Vec<u8> {
        self.send_command(args);
        self.reply()
            .unwrap_or_else(|failure| panic!("a reply to {}: {failure}", show_command(args)))
    }

    /// Sends a command line in the quoting of [`split_line`] and returns the reply's bytes as text.
    pub fn line(&mut self, line: &str) -> String {
        show_raw(&self.command(&split_line(line)))
    }

    /// Waits for one complete RESP reply and returns its bytes.
    ///
    /// # Errors
    /// When the connection ends, nothing comes in time or the bytes are no RESP.
    pub fn reply(&mut self) -> Result<Vec<u8>, Failure> {
        loop {
            match frame(&self.input[self.consumed..]) {
                Ok(Some(len)) => return Ok(self.consume(len)),
                Ok(None) => self.receive()?,
                Err(NotResp) => return Err(Failure::Malformed(self.rest())),
            }
        }
    }

    /// Waits for exactly `len` bytes.
    ///
    /// # Errors
    /// When fewer come.
    pub fn exactly(&mut self, len: usize) -> Result<Vec<u8>, Failure> {
        while self.input.len() - self.consumed < len {
            self.receive()?;
        }
        Ok(self.consume(len))
    }

    /// Waits until the unread bytes contain `end` and returns everything up to and including it.
    ///
    /// # Errors
    /// When `end` does not come.
    pub fn until(&mut self, end: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut searched = 0;
        loop {
            let unread = &self.input[self.consumed..];
            let from = searched.min(unread.len());
            if let Some(found) = find(&unread[from..], end) {
                return Ok(self.consume(from + found + end.len()));
            }
            searched = unread.len().saturating_sub(end.len());
            self.receive()?;
        }
    }

    /// Everything the server says until it closes the connection.
    ///
    /// # Errors
    /// When it keeps the connection open.
    pub fn until_closed(&mut self) -> Result<Vec<u8>, Failure> {
        loop {
            match self.receive() {
                Ok(()) => {}
                Err(Failure::Closed(rest)) => return Ok(rest),
                Err(failure) => return Err(failure),
            }
        }
    }

    /// What arrives within `patience`, for asserting that nothing does.
    pub fn within(&mut self, patience: Duration) -> Vec<u8> {
        let deadline = Instant::now() + patience;
        while let Some(left) = deadline
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
        {
            self.stream
                .set_read_timeout(Some(left))
                .expect("a timeout can be set");
            if self.receive().is_err() {
                break;
            }
        }
        self.stream
            .set_read_timeout(Some(REPLY_TIMEOUT))
            .expect("a timeout can be set");
        self.rest()
    }

    /// Says that nothing more will be sent, while replies can still be read.
    pub fn finish_sending(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn receive(&mut self) -> Result<(), Failure> {
        if self.consumed == self.input.len() {
            self.input.clear();
            self.consumed = 0;
        }
        let mut chunk = [0_u8; 64 * 1024];
        loop {
            return match self.stream.read(&mut chunk) {
                Ok(0) => Err(Failure::Closed(self.rest())),
                Ok(len) => {
                    self.input.extend_from_slice(&chunk[..len]);
                    Ok(())
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    Err(Failure::TimedOut(self.input[self.consumed..].to_vec()))
                }
                Err(_) => Err(Failure::Closed(self.rest())),
            };
        }
    }

    fn consume(&mut self, len: usize) -> Vec<u8> {
        let bytes = self.input[self.consumed..self.consumed + len].to_vec();
        self.consumed += len;
        bytes
    }

    fn rest(&mut self) -> Vec<u8> {
        self.consume(self.input.len() - self.consumed)
    }
}

/// Appends a command as an array of bulk strings.
pub fn encode<A: AsRef<[u8]>>(args: &[A], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// The bytes cannot be the start of a reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotResp;

/// The length of the one complete reply that `bytes` starts with, `None` if it is not all there yet.
///
/// # Errors
/// If the bytes cannot be the start of a reply.
pub fn frame(bytes: &[u8]) -> Result<Option<usize>, NotResp> {
    let mut position = 0;
    let mut missing = 1_usize;
    while missing > 0 {
        let Some(head) = Head::read(&bytes[position..])? else {
            return Ok(None);
        };
        position += head.len;
        if position > bytes.len() {
            return Ok(None);
        }
        missing = missing - 1 + head.children;
    }
    Ok(Some(position))
}

/// A reply, taken apart one level: the first line (or the whole scalar) and its elements, each with its own bytes.
pub fn parts(reply: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let Ok(Some(head)) = Head::read(reply) else {
        return (reply, Vec::new());
    };
    let mut elements = Vec::with_capacity(head.children);
    let mut position = head.len;
    while position < reply.len() {
        let Ok(Some(len)) = frame(&reply[position..]) else {
            break;
        };
        elements.push(&reply[position..position + len]);
        position += len;
    }
    (&reply[..head.len.min(reply.len())], elements)
}

/// The start of a reply: the bytes that belong to it alone (a scalar: all of them), and how many replies follow inside.
struct Head {
    len: usize,
    children: usize,
}

impl Head {
    fn read(bytes: &[u8]) -> Result<Option<Self>, NotResp> {
        let Some(&kind) = bytes.first() else {
            return Ok(None);
        };
        if !b"+-:_#,($!=*~>%|".contains(&kind) {
            return Err(NotResp);
        }
        let Some(line_len) = find(bytes, b"\r\n") else {
            return Ok(None);
        };
        let after_line = line_len + 2;
        let count = || -> Result<Option<usize>, NotResp> {
            let text = std::str::from_utf8(&bytes[1..line_len]).map_err(|_| NotResp)?;
            let number: i64 = text.parse().map_err(|_| NotResp)?;
            Ok(usize::try_from(number).ok())
        };
        let (len, children) = match kind {
            b'$' | b'!' | b'=' => (count()?.map_or(after_line, |size| after_line + size + 2), 0),
            b'*' | b'~' | b'>' => (after_line, count()?.unwrap_or(0)),
            b'%' => (after_line, count()?.unwrap_or(0) * 2),
            // Attributes come before the reply they describe.
            b'|' => (after_line, count()?.unwrap_or(0) * 2 + 1),
            _ => (after_line, 0),
        };
        Ok(Some(Self { len, children }))
    }
}

/// Where `needle` first occurs in `haystack`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}

/// Splits a command line at spaces. `"..."` holds `\r \n \t \" \\ \xHH`, so that any byte can be written.
pub fn split_line(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut bytes = line.bytes().peekable();
    loop {
        while bytes.next_if(|&byte| byte == b' ').is_some() {}
        let Some(first) = bytes.next() else {
            return words;
        };
        let mut word = Vec::new();
        if first == b'"' {
            while let Some(byte) = bytes.next().filter(|&byte| byte != b'"') {
                word.push(if byte == b'\\' {
                    unescape(&mut bytes)
                } else {
                    byte
                });
            }
        } else {
            word.push(first);
            while let Some(byte) = bytes.next_if(|&byte| byte != b' ') {
                word.push(byte);
            }
        }
        words.push(word);
    }
}

fn unescape(bytes: &mut impl Iterator<Item = u8>) -> u8 {
    match bytes.next().expect("an escape has a second character") {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'x' => {
            let digits =
                [bytes.next(), bytes.next()].map(|digit| digit.expect("\\x has two digits"));
            let text = std::str::from_utf8(&digits).expect("hexadecimal digits are ASCII");
            u8::from_str_radix(text, 16).expect("\\x is followed by hexadecimal digits")
        }
        other => other,
    }
}

/// Bytes as readable text for messages; long ones are cut in the middle.
pub fn show(bytes: &[u8]) -> String {
    show_up_to(bytes, 1200)
}

fn show_up_to(bytes: &[u8], limit: usize) -> String {
    if bytes.len() <= limit {
        return escape(bytes);
    }
    let half = limit / 2;
    let cut = bytes.len() - 2 * half;
    format!(
        "{}[... {cut} bytes ...]{}",
        escape(&bytes[..half]),
        escape(&bytes[bytes.len() - half..])
    )
}

/// A command in the quoting of [`split_line`], cut after some 300 bytes.
pub fn show_command<A: AsRef<[u8]>>(args: &[A]) -> String {
    const LIMIT: usize = 300;
    let mut shown = 0;
    let whole = |arg: &&A| {
        let is_whole = shown < LIMIT;
        shown += arg.as_ref().len() + 1;
        is_whole
    };
    let mut words: Vec<String> = args
        .iter()
        .take_while(whole)
        .map(|arg| {
            let arg = arg.as_ref();
            let plain = !arg.is_empty()
                && arg
                    .iter()
                    .all(|byte| byte.is_ascii_graphic() && !b"\"\\'".contains(byte));
            if plain && arg.len() < LIMIT {
                show_raw(arg)
            } else {
                format!("\"{}\"", show_up_to(arg, LIMIT))
            }
        })
        .collect();
    if words.len() < args.len() {
        words.push(format!("... {} more words", args.len() - words.len()));
    }
    words.join(" ")
}

/// Text as it is where it is UTF-8, with escapes for what is not.
pub fn show_raw(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap_or_else(|error| escape(error.as_bytes()))
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            32..=126 => text.push(byte as char),
            _ => write!(text, "\\x{byte:02x}").expect("writing to a string succeeds"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_reply_is_framed_and_every_prefix_is_incomplete() {
        let replies: [&[u8]; 14] = [
            b"+OK\r\n",
            b"-ERR no\r\n",
            b":12\r\n",
            b"$-1\r\n",
            b"$0\r\n\r\n",
            b"$4\r\na\r\nb\r\n",
            b"*-1\r\n",
            b"*2\r\n*1\r\n:1\r\n$1\r\nx\r\n",
            b"%1\r\n+a\r\n_\r\n",
            b"~2\r\n#t\r\n,1.5\r\n",
            b"=7\r\ntxt:abc\r\n",
            b">2\r\n+message\r\n+x\r\n",
            b"|1\r\n+ttl\r\n:1\r\n+OK\r\n",
            b"(12345678901234567890\r\n",
        ];
        for reply in replies {
            assert_eq!(frame(reply), Ok(Some(reply.len())), "{}", show(reply));
            for end in 0..reply.len() {
                assert_eq!(
                    frame(&reply[..end]),
                    Ok(None),
                    "{} cut at {end}",
                    show(reply)
                );
            }
        }
    }

    #[test]
    fn what_is_no_resp_is_refused() {
        assert_eq!(frame(b"hello\r\n"), Err(NotResp));
        assert_eq!(frame(b"$x\r\n"), Err(NotResp));
    }

    #[test]
    fn lines_split_at_spaces_and_keep_quoted_bytes() {
        assert_eq!(
            split_line("SET  a \"x \\x00\\r\\\"\" \"\""),
            [&b"SET"[..], b"a", b"x \0\r\"", b""]
        );
    }
}
