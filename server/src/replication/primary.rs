//! The primary's side of a link: a thread per replica that sends a full copy or what it missed, then the stream.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use protocol::{
    limits::Limits,
    resp::request::{RequestParser, Step},
};

use super::{Replication, copy};
use crate::{
    log,
    server::{self, Server},
    session::registry::{Address, Client},
};

/// Bytes copied from the stream at once.
const CHUNK: usize = 256 * 1024;
/// How long a feeding thread sleeps before it looks whether its replica is still wanted.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);
/// Bytes of what a replica says that are kept unread.
const MAX_INPUT: usize = 64 * 1024;

/// What a replica says of itself before it asks for the stream.
#[derive(Clone, Debug, Default)]
pub struct Announced {
    pub port: u16,
    pub address: String,
    /// Takes a copy whose length is not known beforehand.
    pub eof: bool,
    /// Valkey's version, which tells which files it reads.
    pub version: u32,
    pub leaves_out: LeftOut,
}

/// What a copy is made without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    pub data: bool,
    pub functions: bool,
}

/// The stream that a replica asks for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub announced: Announced,
    /// The history it has and the first byte it lacks; `None` wants everything.
    pub from: Option<(String, u64)>,
    /// SYNC, which knows no offsets.
    pub is_old: bool,
}

/// A replica of this server.
pub struct Replica {
    pub client: Arc<Client>,
    pub announced: Announced,
    stream: TcpStream,
    /// Tells how far it is, as all do but those that know no offsets.
    acknowledges: bool,
    /// Up to where the stream was sent; [`UNSET`] before it is known where it begins.
    sent: AtomicU64,
    /// Up to where the stream was given to the socket: no replica can have more.
    given: AtomicU64,
    acknowledged: AtomicU64,
    /// Up to where the replica has the stream on disk; [`UNSET`] if it does not say.
    on_disk: AtomicU64,
    heard_ms: AtomicI64,
    stage: AtomicU8,
    closed: AtomicBool,
}

/// An offset that nobody has told.
const UNSET: u64 = u64::MAX;

/// How far a link has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    Waiting,
    /// It is sent the data as of an instant.
    Copying,
    /// It is sent a file that has been written.
    Sending,
    /// It has been sent all data and takes it in.
    Loading,
    Online,
}

impl Replica {
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Waiting,
            1 => Stage::Copying,
            2 => Stage::Sending,
            3 => Stage::Loading,
            _ => Stage::Online,
        }
    }

    /// The stream begins here for it.
    pub(super) fn begin_at(&self, offset: u64) {
        self.sent.store(offset, Ordering::Relaxed);
        self.given.store(offset, Ordering::Release);
    }

    pub(super) fn enter(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::Relaxed);
    }

    /// Whether its link counts as broken when it says nothing for long.
    pub(super) fn should_speak(&self) -> bool {
        self.acknowledges && self.stage() >= Stage::Loading
    }

    /// Whether data as of the cut is kept for it.
    pub(super) fn is_being_copied(&self) -> bool {
        self.stage() == Stage::Copying
    }

    /// Up to where the stream was sent, once that is known.
    pub(super) fn sent(&self) -> Option<u64> {
        told(&self.sent)
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Up to where the replica has the stream on disk, if it says so.
    pub fn on_disk(&self) -> Option<u64> {
        told(&self.on_disk)
    }

    pub fn heard_ms(&self) -> i64 {
        self.heard_ms.load(Ordering::Relaxed)
    }

    /// Whether it has its copy and follows the stream.
    pub fn is_online(&self) -> bool {
        self.stage() == Stage::Online
    }

    /// Where it says it listens, or else where it comes from.
    pub fn place(&self) -> (String, u16) {
        let address = if self.announced.address.is_empty() {
            match &self.client.address {
                Address::Tcp(address) => address.ip().to_canonical().to_string(),
                Address::Unix(path) => path.to_string(),
            }
        } else {
            self.announced.address.clone()
        };
        (address, self.announced.port)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    pub(super) fn note_heard(&self) {
        let now = server::now().millis();
        self.heard_ms.store(now, Ordering::Relaxed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed) || self.client.is_killed()
    }
}

fn told(offset: &AtomicU64) -> Option<u64> {
    Some(offset.load(Ordering::Relaxed)).filter(|&offset| offset != UNSET)
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, port) = self.place();
        write!(f, "{address}:{port}")
    }
}

/// Serves a replica on a thread of its own until its link ends.
pub fn serve(server: &Arc<Server>, stream: TcpStream, client: Arc<Client>, wanted: Wanted) {
    let server = server.clone();
    let work = move || {
        let id = client.id;
        let outcome = feed(&server, stream, client, &wanted);
        server.clients.remove(id);
        if let Err(error) = outcome {
            log::notice(format!(
                "Connection with replica client id #{id} lost: {error}"
            ));
        }
    };
    // Without a thread the connection is dropped, and the replica tries again.
    let _ = thread::Builder::new().name("replica".into()).spawn(work);
}

fn feed(
    server: &Arc<Server>,
    stream: TcpStream,
    client: Arc<Client>,
    wanted: &Wanted,
) -> io::Result<()> {
    let patience = Duration::from_secs(server.config.settings().repl_timeout.into());
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(patience))?;
    client.is_replica.store(true, Ordering::Relaxed);
    let replica = Arc::new(Replica {
        client,
        announced: wanted.announced.clone(),
        stream: stream.try_clone()?,
        acknowledges: !wanted.is_old,
        sent: AtomicU64::new(UNSET),
        given: AtomicU64::new(0),
        acknowledged: AtomicU64::new(0),
        on_disk: AtomicU64::new(UNSET),
        heard_ms: AtomicI64::new(server::now().millis()),
        stage: AtomicU8::new(Stage::Waiting as u8),
        closed: AtomicBool::new(false),
    });
    let replication = &server.replication;
    replication.replicas.lock().push(replica.clone());
    let listening = listen(server, &replica);
    let outcome = listening.and_then(|()| send_all(server, &replica, stream, wanted));
    replica.close();
    replication
        .replicas
        .lock()
        .retain(|known| !Arc::ptr_eq(known, &replica));
    replication.note_needed();
    outcome
}

/// Reads what the replica says, on a thread of its own.
fn listen(server: &Arc<Server>, replica: &Arc<Replica>) -> io::Result<()> {
    let (server, replica) = (server.clone(), replica.clone());
    let mut stream = replica.stream.try_clone()?;
    let work = move || {
        let mut parser = RequestParser::new();
        let (mut input, mut spans) = (Vec::new(), Vec::new());
        let mut buffer = [0; 4096];
        let limits = Limits::authenticated();
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            replica.note_heard();
            let now = server::now().millis();
            replica.client.note_turn(now, read, 0, 0, None);
            input.extend_from_slice(&buffer[..read]);
            let mut at = 0;
            while at < input.len() {
                spans.clear();
                let Ok(step) = parser.parse(&input[at..], &limits, &mut spans) else {
                    replica.close();
                    return;
                };
                match step {
                    Step::Request { consumed } => {
                        let words: Vec<&[u8]> =
                            spans.iter().map(|span| span.of(&input[at..])).collect();
                        if let Err(lie) = hear(&replica, &words) {
                            log::warning(format!("Closing the link to replica {replica}: {lie}"));
                            replica.close();
                            return;
                        }
                        at += consumed;
                    }
                    // An empty line says that it lives, while it takes in its copy.
                    Step::Inline { consumed, .. } => at += consumed,
                    Step::Incomplete { .. } => break,
                }
            }
            input.drain(..at);
            if input.len() > MAX_INPUT {
                break;
            }
            server.replication.more.notify_all();
            server.wake_patient();
        }
        replica.close();
        server.replication.more.notify_all();
    };
    thread::Builder::new()
        .name("replica-acks".into())
        .spawn(work)?;
    Ok(())
}

/// Takes in what a replica says of its progress.
///
/// # Errors
/// It says that it has what it was not sent.
fn hear(replica: &Replica, words: &[&[u8]]) -> Result<(), String> {
    let [name, options @ ..] = words else {
        return Ok(());
    };
    if !name.eq_ignore_ascii_case(b"REPLCONF") {
        return Ok(());
    }
    for option in options.chunks_exact(2) {
        let told = match option[0].to_ascii_lowercase().as_slice() {
            b"ack" => &replica.acknowledged,
            b"fack" => &replica.on_disk,
            _ => continue,
        };
        let Some(offset) = storage::value::number::parse_u64(option[1]) else {
            continue;
        };
        let given = replica.given.load(Ordering::Acquire);
        if offset > given {
            return Err(format!(
                "it acknowledges offset {offset} and was sent {given}"
            ));
        }
        // What is not told yet reads as the highest number.
        let before = told.load(Ordering::Relaxed);
        if before == UNSET || before < offset {
            told.store(offset, Ordering::Relaxed);
        }
        replica.enter(Stage::Online);
    }
    Ok(())
}

impl Replication {
    /// Keeps the stream as far back as the slowest replica needs it.
    pub(super) fn note_needed(&self) {
        let replicas = self.replicas.lock();
        let slowest = replicas.iter().filter_map(|replica| replica.sent()).min();
        drop(replicas);
        self.stream.lock().set_needed_from(slowest);
    }
}

fn send_all(
    server: &Arc<Server>,
    replica: &Arc<Replica>,
    mut stream: TcpStream,
    wanted: &Wanted,
) -> io::Result<()> {
    let replication = &server.replication;
    let partial = wanted.from.as_ref().filter(|(id, offset)| {
        let mut stream = replication.stream.lock();
        let continues = replication.is_active() && stream.continues(id, *offset);
        if continues {
            // Nothing of it may go before it is sent.
            replica.begin_at(*offset);
            stream.keep_from(*offset);
        }
        continues
    });
    match partial {
        Some((_, offset)) => {
            let id = replication.stream.lock().id.clone();
            stream.write_all(format!("+CONTINUE {id}\r\n").as_bytes())?;
            server.metrics.partial_syncs.fetch_add(1, Ordering::Relaxed);
            log::notice(format!(
                "Partial resynchronization request from {replica} accepted from offset {}.",
                offset + 1
            ));
            replica.enter(Stage::Online);
        }
        None => {
            if let Some((id, offset)) = &wanted.from {
                let stream = replication.stream.lock();
                let (start, end) = (stream.start(), stream.end());
                let reason = match replication.is_active() && stream.knows(id) {
                    true => format!("what is kept is {start} to {end}"),
                    false => format!("'{id}' is not this history's name"),
                };
                drop(stream);
                log::notice(format!(
                    "Partial resynchronization not accepted for replica {replica} from offset {offset}: {reason}"
                ));
                server
                    .metrics
                    .refused_partial_syncs
                    .fetch_add(1, Ordering::Relaxed);
            }
            server.metrics.full_syncs.fetch_add(1, Ordering::Relaxed);
            copy::send(server, replica, &stream, wanted)?;
            wait_until_loaded(server, replica)?;
        }
    }
    let mut chunk = Vec::new();
    let mut position = replica.sent.load(Ordering::Relaxed);
    while !replica.is_closed() {
        server.sleep_when_told();
        {
            let mut backlog = replication.stream.lock();
            if backlog.end() == position {
                replication.more.wait_for(&mut backlog, PATIENCE);
            }
            if replica.is_closed() {
                // What came after that is not for it.
                break;
            }
            if backlog.read(position, CHUNK, &mut chunk).is_none() {
                return Err(too_far_behind(replica, backlog.end()));
            }
        }
        if !chunk.is_empty() {
            position += chunk.len() as u64;
            // Release: whoever acknowledges it has been sent it.
            replica.given.store(position, Ordering::Release);
            stream.write_all(&chunk)?;
            replica.sent.store(position, Ordering::Relaxed);
            replication.note_needed();
        }
    }
    Ok(())
}

/// What it has not been sent yet, up to the stream's `end`, is not kept any more.
fn too_far_behind(replica: &Replica, end: u64) -> io::Error {
    let behind = end.saturating_sub(replica.sent.load(Ordering::Relaxed));
    replica.client.close_for_unsent(behind as usize);
    io::Error::other("it is too far behind")
}

/// A replica that reads up to a mark takes what comes right behind it for part of the copy: it says when it is ready.
fn wait_until_loaded(server: &Server, replica: &Replica) -> io::Result<()> {
    let replication = &server.replication;
    let mut backlog = replication.stream.lock();
    while !replica.is_online() {
        if replica.is_closed() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let kept = backlog.start() <= replica.sent.load(Ordering::Relaxed);
        if !kept {
            return Err(too_far_behind(replica, backlog.end()));
        }
        replication.more.wait_for(&mut backlog, PATIENCE);
    }
    Ok(())
}
