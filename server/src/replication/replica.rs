//! The replica's side of a link: a thread that connects, takes over a copy if it must, and applies the stream.
//!
//! A copy is loaded into a keyspace of its own while clients still see the old data, then put in its place at once. A
//! copy that turns out to be broken changes nothing.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs},
    os::fd::AsRawFd,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use protocol::{
    limits::Limits,
    resp::request::{RequestParser, Span, Step},
};
use socket2::{Domain, Socket, Type};
use storage::{keyspace::Keyspace, snapshot::Ready};

use crate::{
    config::{self, PropagationError},
    dispatch::{self, args::Args, command::Reply},
    lanes::{Executor, Lanes, Source, Unfinished},
    log,
    persistence::recovery,
    propagation::encode,
    scripting::functions::Prepared,
    server::{self, Server},
    session::{
        Session,
        registry::{self, Address, Arrival, Client},
    },
};

/// How often the primary hears how far this replica is.
const ACK_INTERVAL: Duration = Duration::from_secs(1);
/// Time between tries to connect: from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often it is looked at how long a primary may be silent.
const LOOK_AT_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes read at once.
const CHUNK: usize = 256 * 1024;
/// Longest line in a handshake.
const MAX_LINE: u64 = 4096;
/// How long the disk is looked at, and how often, for somebody who waits for it.
const OWED_FOR: Duration = Duration::from_secs(3);
const LOOK_AT_DISK: Duration = Duration::from_millis(10);
/// Steps remembered of what is on its way to the disk.
const MAX_PENDING: usize = 1024;
/// Empty lines in a row: a primary that prepares a copy sends some in a second.
const MAX_EMPTY_LINES: usize = 100_000;
/// Characters of the mark that ends a copy of unknown length.
const MARK_LEN: usize = 40;
/// What a replica without data of a primary asks for.
const NO_HISTORY: &str = "?";

/// Where a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    Connect,
    Handshake,
    Sync,
    Connected,
}

/// The link to a primary.
pub struct Link {
    pub host: String,
    pub port: u16,
    stopped: AtomicBool,
    state: Mutex<LinkState>,
    stream: Mutex<Option<TcpStream>>,
    heard_ms: AtomicI64,
    down_since_ms: AtomicI64,
    /// The other side is a replica that is asked to become the primary.
    take_over: AtomicBool,
    /// It was asked for the stream so, and refused.
    refused: AtomicBool,
    /// Bytes of the copy that is being read, and of all of it; 0 if that is not known.
    copied_bytes: AtomicU64,
    copy_bytes: AtomicU64,
    /// Up to where the stream was read, be it that it has not been applied.
    read_to: AtomicU64,
}

impl Link {
    pub(super) fn new(host: &str, port: u16) -> Arc<Link> {
        Arc::new(Link {
            host: host.to_owned(),
            port,
            stopped: AtomicBool::new(false),
            state: Mutex::new(LinkState::Connect),
            stream: Mutex::new(None),
            heard_ms: AtomicI64::new(0),
            down_since_ms: AtomicI64::new(server::now().millis()),
            take_over: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            copied_bytes: AtomicU64::new(0),
            copy_bytes: AtomicU64::new(0),
            read_to: AtomicU64::new(0),
        })
    }

    pub(super) fn ask_to_take_over(&self) {
        self.take_over.store(true, Ordering::Relaxed);
    }

    pub(super) fn was_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    pub fn state(&self) -> LinkState {
        *self.state.lock()
    }

    pub fn is_up(&self) -> bool {
        self.state() == LinkState::Connected
    }

    /// Milliseconds since something came from the primary.
    pub fn heard_ms(&self) -> i64 {
        self.heard_ms.load(Ordering::Relaxed)
    }

    pub fn down_since_ms(&self) -> i64 {
        self.down_since_ms.load(Ordering::Relaxed)
    }

    /// Bytes of the copy that is being read, and of all of it; 0 if that is not known.
    pub fn copy_progress(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.copied_bytes), read(&self.copy_bytes))
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.hang_up();
    }

    /// Breaks the connection, which is then made again unless the link was stopped.
    pub fn hang_up(&self) {
        if let Some(stream) = self.stream.lock().as_ref() {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn set_state(&self, state: LinkState) {
        *self.state.lock() = state;
    }

    /// Up to where the stream was read.
    pub fn read_to(&self) -> u64 {
        self.read_to.load(Ordering::Relaxed)
    }

    fn hear(&self) {
        self.heard_ms
            .store(server::now().millis(), Ordering::Relaxed);
    }
}

/// Follows the primary on a thread of its own until the link is stopped.
pub(super) fn start(server: &Arc<Server>, link: Arc<Link>) {
    let server = server.clone();
    let work = move || {
        let mut pause = FIRST_PAUSE;
        server.replication.give_up_stream(&server, &link);
        while !link.is_stopped() {
            server.sleep_when_told();
            let Err(error) = follow(&server, &link) else {
                continue;
            };
            *link.stream.lock() = None;
            if link.is_up() {
                let now = server::now().millis();
                link.down_since_ms.store(now, Ordering::Relaxed);
                pause = FIRST_PAUSE;
            }
            link.set_state(LinkState::Connect);
            if !link.is_stopped() {
                log::warning(format!("MASTER <-> REPLICA sync: {error}"));
                thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("primary".into()).spawn(work) {
        log::warning(format!(
            "The link to the primary cannot be started: {error}"
        ));
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

fn trouble(text: impl Into<String>) -> io::Error {
    io::Error::other(text.into())
}

fn follow(server: &Arc<Server>, link: &Arc<Link>) -> io::Result<()> {
    let settings = server.config.settings();
    let patience = Duration::from_secs(settings.repl_timeout.into());
    log::notice(format!("Connecting to PRIMARY {}:{}", link.host, link.port));
    let stream = connect(link, &settings.bind_source_addr, patience)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    *link.stream.lock() = Some(stream.try_clone()?);
    if link.is_stopped() {
        return Ok(());
    }
    link.set_state(LinkState::Handshake);
    log::notice("PRIMARY <-> REPLICA sync started");
    log::notice("MASTER <-> REPLICA sync started");
    // How long the primary may be silent is looked at again each time.
    stream.set_read_timeout(Some(LOOK_AT_PATIENCE))?;
    let mut wire = Wire {
        server: server.clone(),
        output: stream.try_clone()?,
        input: BufReader::with_capacity(CHUNK, Box::new(stream)),
    };
    let first = shake_hands(server, link, &mut wire)?;
    link.take_over.store(false, Ordering::Relaxed);
    let offset = match first {
        Answer::Continue { id } => {
            let mut backlog = server.replication.stream.lock();
            let new_id = id.filter(|id| *id != backlog.id);
            let is_renamed = new_id.is_some();
            new_id.into_iter().for_each(|id| backlog.rename(id));
            let end = backlog.end();
            drop(backlog);
            if is_renamed {
                // Who follows this server asks again, and learns the new name.
                server.replication.drop_replicas();
            }
            log::notice("Successful partial resynchronization with master.");
            end
        }
        Answer::Full { id, offset } => {
            link.set_state(LinkState::Sync);
            log::notice(format!("Full resync from primary: {id}:{offset}"));
            let copy = load_copy(server, link, &mut wire)?;
            server
                .replication
                .take_over(server, link, copy, id, offset)?;
            log::notice("MASTER <-> REPLICA sync: Finished with success");
            offset
        }
    };
    link.hear();
    link.set_state(LinkState::Connected);
    apply(server, link, wire, offset)
}

/// Connects to the first of the primary's addresses that answers, from an address of this machine if one is named and can
/// be had.
fn connect(link: &Link, source: &str, patience: Duration) -> io::Result<TcpStream> {
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

struct Wire {
    server: Arc<Server>,
    output: TcpStream,
    input: BufReader<Box<dyn Read>>,
}

impl Wire {
    fn say(&mut self, words: &[&[u8]]) -> io::Result<()> {
        let mut bytes = Vec::new();
        encode(&mut bytes, words.iter().copied());
        self.output.write_all(&bytes)
    }

    /// The next line that is not empty. Empty ones say that the primary is busy and lives.
    fn line(&mut self) -> io::Result<String> {
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
    fn show_life(&mut self, link: &Arc<Link>) -> io::Result<()> {
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
    fn put_back(&mut self, ahead: Vec<u8>) {
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
enum Answer {
    Continue { id: Option<String> },
    Full { id: String, offset: u64 },
}

fn shake_hands(server: &Server, link: &Link, wire: &mut Wire) -> io::Result<Answer> {
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

/// A primary's data that has come whole.
struct Copy {
    keyspace: Keyspace,
    functions: Prepared,
    /// The one that the stream is in.
    database: usize,
}

/// Loads the copy that the primary sends, beside the data that is there.
fn load_copy(server: &Arc<Server>, link: &Arc<Link>, wire: &mut Wire) -> io::Result<Copy> {
    let head = wire.line()?;
    let head = head
        .strip_prefix('$')
        .ok_or_else(|| trouble(format!("Bad protocol from PRIMARY: '{head}'")))?;
    let keyspace = Keyspace::new(
        server.keyspace.shard_count(),
        server.keyspace.databases(),
        None,
    );
    keyspace.set_deletes_expired(false);
    keyspace.settings.copy_from(&server.keyspace.settings);
    link.hear();
    link.copied_bytes.store(0, Ordering::Relaxed);
    let patience = server.config.settings().repl_timeout;
    let patience = Duration::from_secs(patience.into());
    wire.output.set_read_timeout(Some(patience))?;
    let length = head.parse().unwrap_or(0);
    link.copy_bytes.store(length, Ordering::Relaxed);
    let _loading = server.loading.begin_beside();
    wire.show_life(link)?;
    let copy = if let Some(mark) = head.strip_prefix("EOF:") {
        let mut copy = recovery::load_copy(server, &keyspace, &mut wire.input).map_err(trouble)?;
        wire.put_back(std::mem::take(&mut copy.ahead));
        let mut end = [0; MARK_LEN];
        wire.input.read_exact(&mut end)?;
        if end != *mark.as_bytes() {
            return Err(trouble("the copy does not end with its mark"));
        }
        copy
    } else {
        let length: u64 = head
            .parse()
            .map_err(|_| trouble("the copy's length is no number"))?;
        let mut limited = (&mut wire.input).take(length);
        let copy = recovery::load_copy(server, &keyspace, &mut limited).map_err(trouble)?;
        io::copy(&mut limited, &mut io::sink())?;
        copy
    };
    Ok(Copy {
        keyspace,
        functions: copy.functions,
        database: copy.origin.database.min(server.keyspace.databases() - 1),
    })
}

fn given_up() -> io::Error {
    trouble("the link was given up")
}

/// Applies the stream until the link breaks.
fn apply(server: &Arc<Server>, link: &Link, wire: Wire, offset: u64) -> io::Result<()> {
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

impl super::Replication {
    /// The data is the primary's now, up to this offset of its history. Whoever makes a cut finds both changed, or
    /// neither.
    ///
    /// # Errors
    /// The link was given up meanwhile; nothing has changed.
    fn take_over(
        &self,
        server: &Server,
        link: &Link,
        copy: Copy,
        id: String,
        offset: u64,
    ) -> io::Result<()> {
        let ready = Ready::wait(&server.keyspace);
        let applying = self.applying.lock();
        if link.is_stopped() {
            return Err(given_up());
        }
        ready.take_over(copy.keyspace);
        self.own_keys.forget();
        server.scripting.functions.take_over(copy.functions);
        self.activate(server);
        let mut stream = self.stream.lock();
        stream.restart(id, offset);
        stream.database = Some(copy.database);
        drop(stream);
        drop(applying);
        drop(ready);
        self.drop_replicas();
        if server.aof.is_enabled() {
            // The log is of other data.
            server
                .aof
                .status
                .rewrite_scheduled
                .store(true, Ordering::Relaxed);
        }
        Ok(())
    }

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
