//! A server that stores nothing: frames requests and answers constants.
//!
//! What it costs is what the sockets, the system calls and the framing cost, the floor under every real server with the same
//! way of reading and writing: epoll, one read of all that is there, one write of all replies.
//! A connection speaks RESP or memcached's text protocol, as its first byte tells.
//!
//! | request | answer |
//! |---|---|
//! | GET, get | the constant value |
//! | MGET, get with several keys | that many values |
//! | INCR, EXPIRE, incr | 1 |
//! | PING | PONG |
//! | anything else | OK, STORED |

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};

use clap::Args;

use crate::epoll::{Epoll, Interest};
use crate::{Result, affinity};

const INPUT_BYTES: usize = 64 * 1024;

/// A value this large is not gathered in the output buffer but written from where it stands.
const LARGE_VALUE: usize = 8 * 1024;

const LISTENER: usize = usize::MAX;

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long, default_value_t = 7000)]
    port: u16,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Size of the value every GET is answered with
    #[arg(long, default_value_t = 64)]
    value_size: usize,
    /// Cores to run on
    #[arg(long, value_delimiter = ',')]
    cores: Vec<usize>,
}

pub(crate) fn command(options: &Options) -> Result<()> {
    crate::process::raise_file_limit();
    affinity::pin(&options.cores)?;
    let replies = Replies::new(options.value_size);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads.max(1))
            .map(|_| scope.spawn(|| Server::listen(options.port, &replies)?.run()))
            .collect();
        for thread in threads {
            thread.join().map_err(|_| "a floor thread panicked")??;
        }
        Ok(())
    })
}

/// The answers, ready to send.
struct Replies {
    value: Vec<u8>,
    memcached_value: Vec<u8>,
}

impl Replies {
    fn new(value_size: usize) -> Self {
        let filler = "x".repeat(value_size);
        Self {
            value: format!("${value_size}\r\n{filler}\r\n").into_bytes(),
            memcached_value: format!("VALUE k 0 {value_size}\r\n{filler}\r\n").into_bytes(),
        }
    }
}

struct Server<'replies> {
    epoll: Epoll,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    replies: &'replies Replies,
    input: Vec<u8>,
    output: Output,
}

struct Connection {
    stream: TcpStream,
    /// The beginning of a request whose end has not arrived.
    cut: Vec<u8>,
    /// Output the kernel has not taken yet; input is not read until it has.
    unsent: Output,
}

/// What is to be written: bytes, then so many bytes of repeated large values.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    taken: usize,
    large_left: usize,
}

impl<'replies> Server<'replies> {
    /// Every thread listens on the port; the kernel spreads the connections.
    fn listen(port: u16, replies: &'replies Replies) -> Result<Self> {
        use rustix::net::{
            AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
            .map_err(|error| format!("port {port}: {error}"))?;
        listen(&socket, 1024)?;
        let epoll = Epoll::new()?;
        epoll.add(&socket, LISTENER, Interest::Read)?;
        Ok(Self {
            epoll,
            listener: TcpListener::from(socket),
            connections: Vec::new(),
            free: Vec::new(),
            replies,
            input: vec![0; INPUT_BYTES],
            output: Output::default(),
        })
    }

    fn run(mut self) -> Result<()> {
        loop {
            for index in 0..self.epoll.wait(None)? {
                let ready = self.epoll.ready(index);
                if ready.token == LISTENER {
                    self.accept()?;
                } else if !self.serve(ready.token, ready.writable) {
                    self.connections[ready.token] = None;
                    self.free.push(ready.token);
                }
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The client is gone already, or files are short: the next one may be luckier.
                Err(_) => return Ok(()),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let token = self.free.pop().unwrap_or(self.connections.len());
            self.epoll.add(&stream, token, Interest::Read)?;
            let connection = Some(Connection {
                stream,
                cut: Vec::new(),
                unsent: Output::default(),
            });
            if token == self.connections.len() {
                self.connections.push(connection);
            } else {
                self.connections[token] = connection;
            }
        }
    }

    /// Returns whether the connection is still open.
    fn serve(&mut self, token: usize, writable: bool) -> bool {
        let Some(connection) = self.connections[token].as_mut() else {
            return true;
        };
        if writable {
            let value = &self.replies.value;
            return match connection.unsent.write(&mut connection.stream, value) {
                Ok(true) => self
                    .epoll
                    .change(&connection.stream, token, Interest::Read)
                    .is_ok(),
                Ok(false) => true,
                Err(_) => false,
            };
        }
        let read = match connection.stream.read(&mut self.input) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(error) => {
                return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted);
            }
        };
        let consumed = if connection.cut.is_empty() {
            let consumed = answer_all(&self.input[..read], self.replies, &mut self.output);
            connection
                .cut
                .extend_from_slice(&self.input[consumed..read]);
            consumed
        } else {
            connection.cut.extend_from_slice(&self.input[..read]);
            let consumed = answer_all(&connection.cut, self.replies, &mut self.output);
            connection.cut.drain(..consumed);
            consumed
        };
        if consumed == 0 {
            return true;
        }
        match self
            .output
            .write(&mut connection.stream, &self.replies.value)
        {
            Ok(true) => true,
            Ok(false) => {
                std::mem::swap(&mut self.output, &mut connection.unsent);
                self.epoll
                    .change(&connection.stream, token, Interest::Write)
                    .is_ok()
            }
            Err(_) => false,
        }
    }
}

impl Output {
    /// Adds one value, without copying it if it is large and only values like it follow.
    fn value(&mut self, value: &[u8]) {
        if value.len() >= LARGE_VALUE {
            self.large_left += value.len();
        } else {
            self.bytes.extend_from_slice(value);
        }
    }

    fn text(&mut self, text: &[u8], value: &[u8]) {
        // Something follows large values: only now they have to be gathered.
        while self.large_left > 0 {
            self.bytes.extend_from_slice(value);
            self.large_left -= value.len();
        }
        self.bytes.extend_from_slice(text);
    }

    /// Writes as much as the kernel takes; returns whether that was everything.
    fn write(&mut self, stream: &mut TcpStream, value: &[u8]) -> std::io::Result<bool> {
        while self.taken < self.bytes.len() {
            match stream.write(&self.bytes[self.taken..]) {
                Ok(taken) => self.taken += taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.taken = 0;
        while self.large_left > 0 {
            let place = (value.len() - self.large_left % value.len()) % value.len();
            match stream.write(&value[place..]) {
                Ok(taken) => self.large_left -= taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Answers the complete requests at the start of `input` and returns how many bytes they had.
fn answer_all(input: &[u8], replies: &Replies, output: &mut Output) -> usize {
    let mut consumed = 0;
    while consumed < input.len() {
        let rest = &input[consumed..];
        let length = if rest[0] == b'*' {
            answer_resp(rest, replies, output)
        } else {
            answer_text(rest, replies, output)
        };
        match length {
            Some(length) => consumed += length,
            None => break,
        }
    }
    consumed
}

fn answer_resp(input: &[u8], replies: &Replies, output: &mut Output) -> Option<usize> {
    let (arguments, mut at) = number_line(input, 1)?;
    let mut name = &input[..0];
    for index in 0..arguments {
        let (size, start) = number_line(input, at + 1)?;
        let end = start.checked_add(size)?;
        at = end.checked_add(2)?;
        if at > input.len() {
            return None;
        }
        if index == 0 {
            name = &input[start..end];
        }
    }
    match name {
        b"GET" => output.value(&replies.value),
        b"MGET" => {
            output.text(format!("*{}\r\n", arguments - 1).as_bytes(), &replies.value);
            for _ in 1..arguments {
                output.value(&replies.value);
            }
        }
        b"INCR" | b"EXPIRE" => output.text(b":1\r\n", &replies.value),
        b"PING" => output.text(b"+PONG\r\n", &replies.value),
        _ => output.text(b"+OK\r\n", &replies.value),
    }
    Some(at)
}

/// The number from `at` to the end of the line, and where the next line begins.
fn number_line(input: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let mut number = 0usize;
    while let Some(&byte) = input.get(at) {
        if byte == b'\r' {
            return Some((number, at + 2));
        }
        number = number
            .wrapping_mul(10)
            .wrapping_add(usize::from(byte.wrapping_sub(b'0')));
        at += 1;
    }
    None
}

fn answer_text(input: &[u8], replies: &Replies, output: &mut Output) -> Option<usize> {
    let end = memchr::memchr(b'\n', input)?;
    let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
    if let Some(keys) = line.strip_prefix(b"get ") {
        for _ in 0..keys.split(|&byte| byte == b' ').count() {
            output.bytes.extend_from_slice(&replies.memcached_value);
        }
        output.bytes.extend_from_slice(b"END\r\n");
        return Some(end + 1);
    }
    if line.starts_with(b"set ") {
        let digits = line.rsplit(|&byte| byte == b' ').next()?;
        let size = digits.iter().fold(0usize, |size, digit| {
            size.wrapping_mul(10)
                .wrapping_add(usize::from(digit.wrapping_sub(b'0')))
        });
        let whole = end.checked_add(3)?.checked_add(size)?;
        if whole > input.len() {
            return None;
        }
        output.bytes.extend_from_slice(b"STORED\r\n");
        return Some(whole);
    }
    output.bytes.extend_from_slice(match line {
        line if line.starts_with(b"incr ") => b"1\r\n",
        b"version" => b"VERSION 0\r\n",
        _ => b"OK\r\n",
    });
    Some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(input: &[u8]) -> (usize, String) {
        let (replies, mut output) = (Replies::new(3), Output::default());
        let consumed = answer_all(input, &replies, &mut output);
        (consumed, String::from_utf8(output.bytes).unwrap())
    }

    #[test]
    fn each_complete_request_is_answered_once() {
        let input = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n\r\n\r\n*3\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\nb\r\n";
        assert_eq!(
            answers(input),
            (
                input.len(),
                "$3\r\nxxx\r\n+OK\r\n*2\r\n$3\r\nxxx\r\n$3\r\nxxx\r\n".into()
            )
        );
        for cut in 0..input.len() {
            let (first, _) = answers(&input[..cut]);
            let (second, _) = answers(&input[first..]);
            assert_eq!(first + second, input.len(), "cut at {cut}");
        }
    }

    #[test]
    fn memcached_requests_are_answered() {
        let input = b"get a\r\nset a 0 0 4\r\n\r\n\r\n\r\nget a b\r\n";
        let value = "VALUE k 0 3\r\nxxx\r\n";
        assert_eq!(
            answers(input),
            (
                input.len(),
                format!("{value}END\r\nSTORED\r\n{value}{value}END\r\n")
            )
        );
        assert_eq!(answers(b"set a 0 0 4\r\nab").0, 0);
    }

    #[test]
    fn large_values_keep_their_place_before_other_replies() {
        let (replies, mut output) = (Replies::new(LARGE_VALUE), Output::default());
        answer_all(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", &replies, &mut output);
        assert_eq!(
            (output.bytes.len(), output.large_left),
            (0, replies.value.len())
        );
        answer_all(b"*1\r\n$4\r\nPING\r\n", &replies, &mut output);
        assert_eq!(
            (output.bytes.len(), output.large_left),
            (replies.value.len() + 7, 0)
        );
    }
}
