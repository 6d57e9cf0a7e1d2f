//! The primary's stream: its commands are run, its bytes kept, and it is told how far that has come.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::TcpStream,
    os::fd::AsRawFd,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use protocol::{
    limits::Limits,
    resp::request::{RequestParser, Span, Step},
};

use super::{ACK_INTERVAL, CHUNK, Link, given_up, handshake::Wire, is_timeout, trouble};
use crate::{
    config::PropagationError,
    dispatch::{self, args::Args, command::Reply},
    lanes::{Executor, Lanes, Source, Unfinished},
    log,
    propagation::encode,
    replication::Replication,
    server::{self, Server},
    session::{
        Session,
        registry::{self, Address, Arrival, Client},
    },
};

/// How long the disk is looked at, and how often, for somebody who waits for it.
const OWED_FOR: Duration = Duration::from_secs(3);
const LOOK_AT_DISK: Duration = Duration::from_millis(10);
/// Steps remembered of what is on its way to the disk.
const MAX_PENDING: usize = 1024;

/// Applies the stream until the link breaks.
pub(super) fn apply(server: &Arc<Server>, link: &Link, wire: Wire, offset: u64) -> io::Result<()> {
    link.read_to.store(offset, Ordering::Relaxed);
    let client = register(server, &wire.output)?;
    let stream = Stream {
        server,
        link,
        client,
        given_up: AtomicBool::new(false),
    };
    let unfinished = Unfinished::default();
    let count = server.metrics.workers.len();
    thread::scope(|scope| {
        let mut lanes = Lanes::start(scope, server, &stream, &unfinished, count)?;
        lanes.select(server.replication.stream.lock().database.unwrap_or(0));
        let applier = Applier {
            server,
            stream: &stream,
            lanes,
            offset,
            held: Vec::new(),
        };
        follow_stream(applier, wire)
    })
}

fn follow_stream(mut applier: Applier<'_>, wire: Wire) -> io::Result<()> {
    let Wire {
        mut output, input, ..
    } = wire;
    let Applier { server, stream, .. } = applier;
    let link = stream.link;
    let patience = Duration::from_secs(server.config.settings().repl_timeout.into());
    let mut disk = Disk::new(server);
    acknowledge(&mut output, applier.offset, disk.offset(server))?;
    let mut last_ack = Instant::now();
    let mut last_heard = Instant::now();
    // Somebody waits for this to be on disk.
    let mut owed: Option<(u64, Instant)> = None;
    let mut bytes = input.buffer().to_vec();
    let mut input = input.into_inner();
    // Both ends are one socket.
    output.set_read_timeout(Some(ACK_INTERVAL))?;
    loop {
        server.sleep_when_told();
        let wants_ack = applier.run(&mut bytes)?;
        disk.note(server, applier.offset);
        let on_disk = disk.offset(server);
        let pays = owed.is_some_and(|(wanted, _)| on_disk >= Some(wanted));
        if wants_ack || pays || last_ack.elapsed() >= ACK_INTERVAL {
            acknowledge(&mut output, applier.offset, on_disk)?;
            last_ack = Instant::now();
        }
        let was_owed = owed.is_some();
        if wants_ack && on_disk.is_some_and(|on_disk| on_disk < applier.offset) {
            owed = Some((applier.offset, Instant::now()));
        }
        owed = owed.filter(|(_, since)| !pays && since.elapsed() < OWED_FOR);
        if owed.is_some() != was_owed {
            let interval = owed.map_or(ACK_INTERVAL, |_| LOOK_AT_DISK);
            output.set_read_timeout(Some(interval))?;
        }
        let have = bytes.len();
        bytes.resize(have + CHUNK, 0);
        let read = input.read(&mut bytes[have..]);
        bytes.truncate(have + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => return Err(trouble("Connection with primary lost.")),
            Ok(read) => {
                stream.note_read(read);
                let read_to = applier.offset + bytes.len() as u64;
                link.read_to.store(read_to, Ordering::Relaxed);
                link.hear();
                last_heard = Instant::now();
            }
            // A process that was stopped and goes on finds its reads interrupted.
            Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if link.is_stopped() {
            return Ok(());
        }
        if stream
            .client
            .as_ref()
            .is_some_and(|client| client.is_killed())
        {
            return Err(trouble("the connection to the primary was killed"));
        }
        if last_heard.elapsed() > patience {
            return Err(trouble("PRIMARY timeout: no data nor PING received..."));
        }
    }
}

/// Shows the primary among the clients, where it can be killed.
fn register(server: &Server, stream: &TcpStream) -> io::Result<Option<Arc<Client>>> {
    let arrival = Arrival {
        wire: registry::Wire::Primary,
        address: Address::Tcp(stream.peer_addr()?),
        local_address: Address::Tcp(stream.local_addr()?),
        descriptor: stream.as_raw_fd(),
        now_ms: server::now().millis(),
        post: Arc::default(),
    };
    Ok(server.clients.add(usize::MAX, arrival))
}

/// Says up to where the stream has been applied, and is on disk if there is an append-only file.
fn acknowledge(output: &mut TcpStream, offset: u64, on_disk: Option<u64>) -> io::Result<()> {
    let (offset, on_disk) = (offset.to_string(), on_disk.map(|offset| offset.to_string()));
    let mut words = vec![b"REPLCONF".as_slice(), b"ACK", offset.as_bytes()];
    if let Some(on_disk) = &on_disk {
        words.extend([b"FACK".as_slice(), on_disk.as_bytes()]);
    }
    let mut bytes = Vec::new();
    encode(&mut bytes, words.into_iter());
    output.write_all(&bytes)
}

/// How much of the primary's stream is on this replica's disk.
///
/// What was applied up to an offset has left its effects in the append-only file before some end of that; when the file
/// is on disk up to there, so is the stream up to the offset.
struct Disk {
    /// Pairs of the file's end and the stream's offset, both rising.
    pending: VecDeque<(u64, u64)>,
    reached: Option<u64>,
    /// As many rewrites must have ended for the file to have the data that a copy brought.
    rewrites: u64,
}

impl Disk {
    fn new(server: &Server) -> Disk {
        let status = &server.aof.status;
        let pending = status.rewriting.load(Ordering::Relaxed)
            || status.rewrite_scheduled.load(Ordering::Relaxed);
        let ended = status.rewrites.load(Ordering::Relaxed);
        let running = u64::from(status.rewriting.load(Ordering::Relaxed));
        Disk {
            pending: VecDeque::new(),
            reached: None,
            // One that runs may have begun before the copy came.
            rewrites: ended + u64::from(pending) + running,
        }
    }

    /// Everything up to `offset` has been applied.
    fn note(&mut self, server: &Server, offset: u64) {
        if !server.aof.is_enabled() {
            self.pending.clear();
            self.reached = None;
            return;
        }
        let last = self.pending.back().map(|&(_, offset)| offset);
        if last.or(self.reached) == Some(offset) {
            return;
        }
        if self.pending.len() == MAX_PENDING {
            self.pending.pop_back();
        }
        self.pending.push_back((server.aof.end(), offset));
    }

    /// `None` while there is no append-only file that has all data.
    fn offset(&mut self, server: &Server) -> Option<u64> {
        if !server.aof.is_enabled() {
            return None;
        }
        let on_disk = server.aof.on_disk();
        while let Some(&(end, offset)) = self.pending.front()
            && end <= on_disk
        {
            self.pending.pop_front();
            self.reached = Some(offset);
        }
        let ended = server.aof.status.rewrites.load(Ordering::Relaxed);
        self.reached.filter(|_| ended >= self.rewrites)
    }
}

/// The primary's stream as a source of commands.
struct Stream<'s> {
    server: &'s Arc<Server>,
    link: &'s Link,
    client: Option<Arc<Client>>,
    /// A command that had to wait was not run.
    given_up: AtomicBool,
}

impl Stream<'_> {
    fn note_read(&self, bytes: usize) {
        if let Some(client) = &self.client {
            client.note_turn(server::now().millis(), bytes, 0, 0, None);
        }
    }

    fn failed(&self, name: &[u8], reply: &[u8]) {
        log::warning(format!(
            "== CRITICAL == This replica is sending an error to its primary: '{}' after processing the command '{}'",
            reply.escape_ascii(),
            name.escape_ascii()
        ));
        if self.server.config.settings().propagation_error_behavior != PropagationError::Ignore {
            log::warning("This replica ends, as it no longer has its primary's data.");
            process::abort();
        }
    }
}

impl Source for Stream<'_> {
    fn session(&self, worker: usize) -> Session {
        let mut session = Session::internal(self.server.clone(), worker);
        if let Some(client) = &self.client {
            session.client = client.clone();
        }
        session.flags.from_primary = true;
        session
    }

    fn ran(&self, args: &Args<'_>, reply: &mut Reply) {
        if let Some(bytes) = reply.writer.output_mut().as_bytes()
            && bytes.starts_with(b"-")
        {
            self.failed(args.word(0), bytes);
        }
    }

    fn waits(&self, until_ms: i64) -> bool {
        if self.link.is_stopped() {
            self.given_up.store(true, Ordering::Relaxed);
            return false;
        }
        let left = until_ms.saturating_sub(server::now().millis());
        thread::sleep(Duration::from_millis(left.clamp(1, 100) as u64));
        true
    }
}

/// Has the primary's commands run.
struct Applier<'s> {
    server: &'s Arc<Server>,
    stream: &'s Stream<'s>,
    lanes: Lanes<'s>,
    /// Up to where the stream has been applied.
    offset: u64,
    /// A transaction that has begun: its bytes enter the backlog together.
    held: Vec<u8>,
}

impl Applier<'_> {
    /// Applies the complete commands at the start of `bytes` and takes them out. Whether the primary wants to know how
    /// far this replica is.
    fn run(&mut self, bytes: &mut Vec<u8>) -> io::Result<bool> {
        let limits = Limits {
            max_bulk_len: usize::MAX >> 1,
            ..Limits::authenticated()
        };
        let mut parser = RequestParser::new();
        let mut spans = Vec::new();
        let mut at = 0;
        let mut wants_ack = false;
        let mut complete = 0;
        // What is applied and what is kept agree whenever somebody else looks.
        let replication = &self.server.replication;
        let _applying = replication.applying.lock();
        if self.stream.link.is_stopped() {
            return Err(given_up());
        }
        let malformed = loop {
            spans.clear();
            let consumed = match parser.parse(&bytes[at..], &limits, &mut spans) {
                Ok(Step::Request { consumed }) => {
                    let bytes = &bytes[at..at + consumed];
                    let args = Args::new(bytes, &spans);
                    if args.is(0, "REPLCONF") {
                        wants_ack |= args.is(1, "GETACK");
                    } else if !args.is_empty() {
                        self.take(bytes, &spans, &args);
                    }
                    consumed
                }
                // A line end that keeps the link alive is part of no stream, but counted by nobody either.
                Ok(Step::Inline { consumed, args }) if args.is_empty() => {
                    at += consumed;
                    continue;
                }
                Ok(Step::Incomplete { .. }) => break None,
                Ok(Step::Inline { .. }) => break Some(String::new()),
                Err(error) => break Some(format!(": {error:?}")),
            };
            self.held.extend_from_slice(&bytes[at..at + consumed]);
            at += consumed;
            if !self.lanes.in_transaction() {
                complete = self.held.len();
            }
        };
        self.lanes.finish();
        if self.stream.given_up.load(Ordering::Relaxed) {
            // Some of it has been applied, which is no place in the primary's history.
            replication.change_id();
            return Err(given_up());
        }
        self.offset += complete as u64;
        replication.pass_on(&self.held[..complete], self.lanes.database());
        self.held.drain(..complete);
        bytes.drain(..at);
        match malformed {
            None => Ok(wants_ack),
            Some(how) => Err(trouble(format!("the primary's stream is malformed{how}"))),
        }
    }

    fn take(&mut self, bytes: &[u8], spans: &[Span], args: &Args<'_>) {
        match dispatch::find(args) {
            Some(found) => self.lanes.take(bytes, spans, found),
            None => self.stream.failed(args.word(0), b"-ERR unknown command"),
        }
    }
}

impl Replication {
    /// Keeps the primary's bytes for this server's own replicas.
    fn pass_on(&self, bytes: &[u8], database: usize) {
        let mut stream = self.stream.lock();
        if self.is_own.load(Ordering::Relaxed) {
            // It was promoted without waiting for this, and nobody goes on from there.
            return;
        }
        stream.push_effects(bytes);
        stream.database = Some(database);
        drop(stream);
        self.more.notify_all();
    }
}
