//! How a link begins: the connection, what the two sides tell each other, and what the primary answers.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use super::{ACK_INTERVAL, CHUNK, Link, LinkState, MARK_LEN, is_timeout, trouble};
use crate::{config, log, propagation::encode, server::Server};

/// Longest line in a handshake.
const MAX_LINE: u64 = 4096;
/// Empty lines in a row: a primary that prepares a copy sends some in a second.
const MAX_EMPTY_LINES: usize = 100_000;
/// What a replica without data of a primary asks for.
const NO_HISTORY: &str = "?";

/// Connects to the first of the primary's addresses that answers, from an address of this machine if one is named and can
/// be had.
pub(super) fn connect(link: &Link, source: &str, patience: Duration) -> io::Result<TcpStream> {
    let mut sources: Vec<SocketAddr> = Vec::new();
    if !source.is_empty() {
        sources.extend((source, 0).to_socket_addrs()?);
    }
    let mut last = trouble("the primary's name has no address");
    for address in (link.host.as_str(), link.port).to_socket_addrs()? {
        let source = sources
            .iter()
            .find(|source| source.is_ipv4() == address.is_ipv4());
        match connect_from(source, &address, patience) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect_from(
    source: Option<&SocketAddr>,
    address: &SocketAddr,
    patience: Duration,
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
    if let Some(source) = source
        && let Err(error) = socket.bind(&(*source).into())
    {
        log::warning(format!("Connecting from any address: {source}: {error}"));
    }
    socket.connect_timeout(&(*address).into(), patience)?;
    Ok(socket.into())
}

/// The connection.
pub(super) struct Wire {
    pub(super) server: Arc<Server>,
    pub(super) output: TcpStream,
    pub(super) input: BufReader<Box<dyn Read>>,
}

impl Wire {
    fn say(&mut self, words: &[&[u8]]) -> io::Result<()> {
        let mut bytes = Vec::new();
        encode(&mut bytes, words.iter().copied());
        self.output.write_all(&bytes)
    }

    /// The next line that is not empty. Empty ones say that the primary is busy and lives.
    pub(super) fn line(&mut self) -> io::Result<String> {
        let mut heard = Instant::now();
        let mut line = Vec::new();
        for _ in 0..MAX_EMPTY_LINES {
            let room = MAX_LINE - line.len() as u64;
            let read = (&mut self.input).take(room).read_until(b'\n', &mut line);
            match read {
                Err(error) if is_timeout(&error) => {
                    let patience = self.server.config.settings().repl_timeout;
                    if heard.elapsed() > Duration::from_secs(patience.into()) {
                        return Err(trouble("Timeout connecting to the PRIMARY..."));
                    }
                    continue;
                }
                Err(error) => return Err(error),
                Ok(_) if line.last() != Some(&b'\n') => {
                    return Err(trouble("the primary's answer ends within a line"));
                }
                Ok(_) => heard = Instant::now(),
            }
            let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
            if !text.is_empty() {
                return Ok(text);
            }
            line.clear();
        }
        Err(trouble("the primary sends nothing but empty lines"))
    }

    /// From now on the primary hears, as its copy is read, that this replica lives.
    pub(super) fn show_life(&mut self, link: &Arc<Link>) -> io::Result<()> {
        let empty: Box<dyn Read> = Box::new(io::empty());
        let rest = std::mem::replace(&mut self.input, BufReader::new(empty));
        let input: Box<dyn Read> = Box::new(ShowingLife {
            input: rest,
            output: self.output.try_clone()?,
            link: link.clone(),
            shown: Instant::now(),
        });
        self.input = BufReader::with_capacity(CHUNK, input);
        Ok(())
    }

    /// Bytes that were read too many come first from now on.
    pub(super) fn put_back(&mut self, ahead: Vec<u8>) {
        let empty: Box<dyn Read> = Box::new(io::empty());
        let rest = std::mem::replace(&mut self.input, BufReader::new(empty));
        let input: Box<dyn Read> = Box::new(io::Cursor::new(ahead).chain(rest));
        self.input = BufReader::with_capacity(CHUNK, input);
    }

    fn ask(&mut self, words: &[&[u8]]) -> io::Result<String> {
        self.say(words)?;
        self.line()
    }
}

/// A copy on its way in.
struct ShowingLife {
    input: BufReader<Box<dyn Read>>,
    output: TcpStream,
    link: Arc<Link>,
    shown: Instant,
}

impl Read for ShowingLife {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.link.hear();
        self.link
            .copied_bytes
            .fetch_add(read as u64, Ordering::Relaxed);
        if self.link.state() == LinkState::Sync && self.shown.elapsed() >= ACK_INTERVAL {
            self.shown = Instant::now();
            self.output.write_all(b"\n")?;
        }
        Ok(read)
    }
}

/// What the primary answers to PSYNC.
pub(super) enum Answer {
    Continue { id: Option<String> },
    Full { id: String, offset: u64 },
}

pub(super) fn shake_hands(server: &Server, link: &Link, wire: &mut Wire) -> io::Result<Answer> {
    let settings = server.config.settings();
    let pong = wire.ask(&[b"PING"])?;
    let lives = pong.starts_with("+PONG")
        || pong.starts_with("-NOAUTH")
        || pong.starts_with("-NOPERM")
        || pong.starts_with("-ERR operation not permitted");
    if !lives {
        return Err(trouble(format!(
            "Error reply to PING from primary: '{pong}'"
        )));
    }
    if !settings.primaryauth.is_empty() {
        let user = settings.primaryuser.as_bytes();
        let answer = if user.is_empty() {
            wire.ask(&[b"AUTH", &settings.primaryauth])?
        } else {
            wire.ask(&[b"AUTH", user, &settings.primaryauth])?
        };
        if answer.starts_with('-') {
            return Err(trouble(format!("Unable to AUTH to PRIMARY: {answer}")));
        }
    }
    let port = match settings.replica_announce_port {
        0 => settings.port,
        port => port,
    };
    // Older primaries do not know all of these, which does not matter.
    wire.ask(&[b"REPLCONF", b"listening-port", port.to_string().as_bytes()])?;
    if !settings.replica_announce_ip.is_empty() {
        wire.ask(&[
            b"REPLCONF",
            b"ip-address",
            settings.replica_announce_ip.as_bytes(),
        ])?;
    }
    wire.ask(&[b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"])?;
    wire.ask(&[b"REPLCONF", b"version", config::VALKEY_VERSION.as_bytes()])?;
    let (id, next) = {
        // Another link may still be at work.
        let _applying = server.replication.applying.lock();
        let backlog = server.replication.stream.lock();
        if server.replication.is_active() {
            (backlog.id.clone(), (backlog.end() + 1).to_string())
        } else {
            (NO_HISTORY.to_owned(), "-1".to_owned())
        }
    };
    let mut request = vec![b"PSYNC".as_slice(), id.as_bytes(), next.as_bytes()];
    if link.take_over.load(Ordering::Relaxed) {
        request.push(b"FAILOVER");
    }
    let answer = wire.ask(&request)?;
    let mut words = answer.split(' ');
    match words.next() {
        Some("+CONTINUE") if id == NO_HISTORY => Err(trouble(
            "the primary goes on with a stream of which this server has nothing",
        )),
        Some("+CONTINUE") => Ok(Answer::Continue {
            id: words
                .next()
                .filter(|id| id.len() == MARK_LEN)
                .map(str::to_owned),
        }),
        Some("+FULLRESYNC") => {
            let id = words.next().filter(|id| id.len() == MARK_LEN);
            let offset = words.next().and_then(|offset| offset.parse().ok());
            match (id, offset) {
                (Some(id), Some(offset)) => Ok(Answer::Full {
                    id: id.to_owned(),
                    offset,
                }),
                _ => Err(trouble(format!(
                    "the primary's answer makes no sense: {answer}"
                ))),
            }
        }
        _ => {
            link.refused.store(true, Ordering::Relaxed);
            Err(trouble(format!("the primary refuses: {answer}")))
        }
    }
}
