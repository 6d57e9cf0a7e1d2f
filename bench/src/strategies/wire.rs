//! Gets and sets over a blocking connection, in either protocol, with as many requests under way as a caller likes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Result;
use crate::load::client;
use crate::load::reply::Protocol;

/// A reply that takes longer means that the server hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer header lines are not understood.
const MAX_LINE: u64 = 64 * 1024;
/// The largest value that is read.
const MAX_VALUE: usize = 512 << 20;

pub(super) struct Wire {
    protocol: Protocol,
    input: BufReader<TcpStream>,
    output: Vec<u8>,
    line: Vec<u8>,
}

impl Wire {
    pub(super) fn connect(target: SocketAddr, protocol: Protocol) -> Result<Self> {
        let stream = client::connect(target)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            protocol,
            input: BufReader::with_capacity(64 * 1024, stream),
            output: Vec::new(),
            line: Vec::new(),
        })
    }

    /// Prepares a get; [`Wire::flush`] sends it.
    pub(super) fn get(&mut self, key: &[u8]) {
        match self.protocol {
            Protocol::Resp => self.command(&[b"GET", key]),
            Protocol::Memcached => self.words(&[b"get", key]),
        }
    }

    /// Prepares a set; `ttl` in seconds, 0 for ever.
    pub(super) fn set(&mut self, key: &[u8], value: &[u8], ttl: u32) {
        let ttl = ttl.to_string();
        match self.protocol {
            Protocol::Resp if ttl == "0" => self.command(&[b"SET", key, value]),
            Protocol::Resp => self.command(&[b"SET", key, value, b"EX", ttl.as_bytes()]),
            Protocol::Memcached => {
                let size = value.len().to_string();
                self.words(&[b"set", key, b"0", ttl.as_bytes(), size.as_bytes()]);
                self.output.extend_from_slice(value);
                self.output.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Prepares any RESP command.
    pub(super) fn command(&mut self, words: &[&[u8]]) {
        self.output
            .extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            self.output
                .extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            self.output.extend_from_slice(word);
            self.output.extend_from_slice(b"\r\n");
        }
    }

    /// Prepares any memcached line.
    pub(super) fn words(&mut self, words: &[&[u8]]) {
        self.output.extend_from_slice(&words.join(&b' '));
        self.output.extend_from_slice(b"\r\n");
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.input
            .get_mut()
            .write_all(&self.output)
            .map_err(|error| format!("sending requests: {error}"))?;
        self.output.clear();
        Ok(())
    }

    /// The value a get found.
    ///
    /// # Errors
    /// A server that answers with an error.
    pub(super) fn value(&mut self) -> Result<Option<Vec<u8>>> {
        self.read_line()?;
        match self.protocol {
            Protocol::Resp => match self.line.first() {
                Some(b'$') => self.bulk(),
                Some(b'_') => Ok(None),
                _ => Err(self.unexpected()),
            },
            Protocol::Memcached if self.line == b"END" => Ok(None),
            Protocol::Memcached => {
                let text = String::from_utf8_lossy(&self.line).into_owned();
                let size = text
                    .strip_prefix("VALUE ")
                    .and_then(|rest| rest.split(' ').nth(2))
                    .and_then(|size| size.parse().ok())
                    .ok_or_else(|| self.unexpected())?;
                let value = self.read_value(size)?;
                self.read_line()?;
                Ok(Some(value))
            }
        }
    }

    /// What `mg` found, and its flags.
    pub(super) fn meta_value(&mut self) -> Result<(Option<Vec<u8>>, String)> {
        self.read_line()?;
        let text = String::from_utf8_lossy(&self.line).into_owned();
        let Some(rest) = text.strip_prefix("VA ") else {
            let flags = text.strip_prefix("HD").unwrap_or_default().trim();
            return Ok((None, flags.to_owned()));
        };
        let (size, flags) = rest.split_once(' ').unwrap_or((rest, ""));
        let size = size.parse().map_err(|_| self.unexpected())?;
        let value = self.read_value(size)?;
        Ok((Some(value), flags.to_owned()))
    }

    /// Whether a set was taken; if not, the server's words.
    pub(super) fn stored(&mut self) -> Result<std::result::Result<(), String>> {
        self.read_line()?;
        let taken = self.line == b"+OK" || self.line == b"STORED";
        Ok(if taken {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&self.line).into_owned())
        })
    }

    /// One reply that is a line, or a bulk's text.
    pub(super) fn text(&mut self) -> Result<String> {
        self.read_line()?;
        if self.protocol == Protocol::Resp && self.line.first() == Some(&b'$') {
            let bulk = self.bulk()?.unwrap_or_default();
            return Ok(String::from_utf8_lossy(&bulk).into_owned());
        }
        Ok(String::from_utf8_lossy(&self.line).into_owned())
    }

    /// The process, as the server tells.
    pub(super) fn process(&mut self) -> Result<u32> {
        self.fact("server", "process_id:", "STAT pid ")
    }

    /// Resident bytes, as the server tells; memcached does not.
    pub(super) fn resident_bytes(&mut self) -> Result<u64> {
        self.fact("memory", "used_memory_rss:", "STAT rss ")
    }

    fn fact<T: std::str::FromStr>(&mut self, section: &str, resp: &str, stat: &str) -> Result<T> {
        let (text, name) = match self.protocol {
            Protocol::Resp => {
                self.command(&[b"INFO", section.as_bytes()]);
                self.flush()?;
                (self.text()?, resp)
            }
            Protocol::Memcached => {
                self.words(&[b"stats"]);
                self.flush()?;
                let mut text = String::new();
                loop {
                    let line = self.text()?;
                    if !line.starts_with("STAT ") {
                        break;
                    }
                    text += &line;
                    text.push('\n');
                }
                (text, stat)
            }
        };
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            .ok_or_else(|| format!("the server does not tell {}", name.trim()).into())
    }

    fn bulk(&mut self) -> Result<Option<Vec<u8>>> {
        let text = String::from_utf8_lossy(&self.line[1..]).into_owned();
        match text.parse::<i64>() {
            Ok(-1) => Ok(None),
            Ok(size) if size >= 0 => self.read_value(size as usize).map(Some),
            _ => Err(self.unexpected()),
        }
    }

    fn read_value(&mut self, size: usize) -> Result<Vec<u8>> {
        if size > MAX_VALUE {
            return Err("a value larger than any".into());
        }
        let mut value = vec![0; size + 2];
        self.input
            .read_exact(&mut value)
            .map_err(|error| format!("reading a value: {error}"))?;
        value.truncate(size);
        Ok(value)
    }

    fn read_line(&mut self) -> Result<()> {
        self.line.clear();
        (&mut self.input)
            .take(MAX_LINE)
            .read_until(b'\n', &mut self.line)
            .map_err(|error| format!("reading a reply: {error}"))?;
        let Some(line) = self.line.strip_suffix(b"\r\n") else {
            return Err("the server closed the connection".into());
        };
        self.line.truncate(line.len());
        Ok(())
    }

    fn unexpected(&self) -> crate::Error {
        format!(
            "the server answered {}",
            String::from_utf8_lossy(&self.line)
        )
        .into()
    }
}
