//! The replica's side of a link: a thread that connects, takes over a copy if it must, and applies the stream.
//!
//! A copy is loaded into a keyspace of its own while clients still see the old data, then put in its place at once. A
//! copy that turns out to be broken changes nothing.

mod apply;
mod handshake;

use std::{
    io::{self, BufReader, Read},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use storage::{keyspace::Keyspace, snapshot::Ready};

use self::handshake::{Answer, Wire, connect, shake_hands};
use crate::{
    log,
    persistence::recovery,
    scripting::functions::Prepared,
    server::{self, Server},
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
/// Characters of a history's name, and of the mark that ends a copy of unknown length.
const MARK_LEN: usize = 40;

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
    apply::apply(server, link, wire, offset)
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
}
