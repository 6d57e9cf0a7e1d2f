//! A plain blocking client for preparing data, probing, and whatever needs no speed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::reply::{Protocol, ReplyReader, Tally};
use crate::Result;

/// A reply that takes longer means that the server hangs; sorting or listing a million elements under load takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// When local ports are used up, those of closed connections come back within a second.
const PORTS_COME_BACK: Duration = Duration::from_secs(5);

/// Connects without delay for small writes. Waits a little when all local ports are taken.
pub(crate) fn connect(target: SocketAddr) -> Result<TcpStream> {
    let deadline = Instant::now() + PORTS_COME_BACK;
    loop {
        match TcpStream::connect(target) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrNotAvailable
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(format!("connecting to {target}: {error}").into()),
        }
    }
}

pub(crate) struct Client {
    stream: TcpStream,
    reader: ReplyReader,
    tally: Tally,
    /// Replies that arrived before they were asked for.
    early: u64,
    input: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(target: SocketAddr, protocol: Protocol) -> Result<Self> {
        Self::over(connect(target)?, protocol, 64 * 1024)
    }

    /// With a small input buffer, for those who hold thousands.
    pub(crate) fn connect_small(target: SocketAddr, protocol: Protocol) -> Result<Self> {
        Self::over(connect(target)?, protocol, 512)
    }

    fn over(stream: TcpStream, protocol: Protocol, input_bytes: usize) -> Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let reader = ReplyReader::new(protocol);
        Ok(Self {
            stream,
            reader,
            tally: Tally::default(),
            early: 0,
            input: vec![0; input_bytes],
        })
    }

    pub(crate) fn send(&mut self, request: &[u8]) -> Result<()> {
        self.stream
            .write_all(request)
            .map_err(|error| format!("sending a request: {error}").into())
    }

    /// Waits for `replies` replies. An error reply is an error here.
    pub(crate) fn receive(&mut self, replies: u64) -> Result<()> {
        while self.early < replies {
            let read = self
                .stream
                .read(&mut self.input)
                .map_err(|error| format!("reading a reply: {error}"))?;
            if read == 0 {
                return Err("the server closed the connection".into());
            }
            self.early += self.reader.feed(&self.input[..read], &mut self.tally)?;
        }
        self.early -= replies;
        match self.tally.first_error.take() {
            Some(error) => Err(format!("the server answered {error}").into()),
            None => Ok(()),
        }
    }

    pub(crate) fn call(&mut self, request: &[u8]) -> Result<()> {
        self.send(request)?;
        self.receive(1)
    }

    /// Sends a RESP command written as words.
    pub(crate) fn command(&mut self, words: &str) -> Result<()> {
        self.call(&resp(words))
    }
}

/// A RESP request of the words of `text`.
pub(crate) fn resp(text: &str) -> Vec<u8> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    request.into_bytes()
}

/// A request for one key that need not exist, in either protocol.
pub(crate) fn get_request(protocol: Protocol, key: &str) -> Vec<u8> {
    match protocol {
        Protocol::Resp => resp(&format!("GET {key}")),
        Protocol::Memcached => format!("get {key}\r\n").into_bytes(),
    }
}

/// The cheapest request there is, to see whether the server answers.
pub(crate) fn ping_request(protocol: Protocol) -> Vec<u8> {
    match protocol {
        Protocol::Resp => resp("PING"),
        Protocol::Memcached => b"version\r\n".to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_a_request() {
        assert_eq!(resp(" GET  key"), b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n");
        assert_eq!(get_request(Protocol::Memcached, "key"), b"get key\r\n");
    }
}
