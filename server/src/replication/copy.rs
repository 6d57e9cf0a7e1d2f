//! Full copies: one cut for all replicas that wait for one.
//!
//! ```text
//! replica's thread   joins, waits, sends what it is handed to its socket ─┐
//! replica's thread   the same                                             ├─ pieces, each encoded once
//! copying thread     makes a cut for all that wait, walks it ─────────────┘
//! ```
//!
//! Whoever comes while a copy is on its way waits for the next, with all others that do. A replica that takes nothing
//! while others wait is left behind; what has changed since the cut is kept up to what `client-output-buffer-limit`
//! grants a replica, then the copy is given up.

use std::{
    io::{self, BufWriter, Write},
    mem,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crossbeam::channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use storage::{
    rdb::file::{ChecksumCheck, EntryToWrite, FileDialect, FileWriter},
    snapshot::{GivenUp, Ready},
};

use super::{
    Standing,
    primary::{LeftOut, PATIENCE, Replica, Stage, Wanted},
};
use crate::{
    config, log,
    persistence::snapshot::go_on,
    server::{self, Server},
};

/// Bytes handed over at once.
const CHUNK: usize = 256 * 1024;
/// Pieces that wait for each replica.
const QUEUED: usize = 4;
/// How long the first waits for others, which come at the same time when a primary has been replaced.
const GATHERING: Duration = Duration::from_millis(50);
/// How long a replica may keep others waiting.
const LAG: Duration = Duration::from_secs(5);
/// Valkey's major version, as REPLCONF VERSION says it, in which fields of hashes got deadlines.
const FIRST_WITH_FIELD_DEADLINES: u32 = 9;

/// Replicas that wait for a copy.
#[derive(Default)]
pub(super) struct Copies {
    waiting: Mutex<Waiting>,
    /// A copy is on its way.
    underway: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    members: Vec<Member>,
    /// The copying thread runs.
    served: bool,
}

struct Member {
    replica: Arc<Replica>,
    form: Form,
    pieces: Sender<Piece>,
}

/// Which file a replica wants.
#[derive(Clone, Copy, PartialEq)]
struct Form {
    dialect: FileDialect,
    leaves_out: LeftOut,
}

/// What a replica's thread is handed, in this order.
#[derive(Clone)]
enum Piece {
    /// Where the data stands that follows.
    Begin(Arc<Standing>),
    Bytes(Arc<[u8]>),
    End,
}

impl Copies {
    /// Takes part in the next copy.
    fn join(
        &self,
        server: &Arc<Server>,
        replica: &Arc<Replica>,
        form: Form,
    ) -> io::Result<Receiver<Piece>> {
        let (pieces, receiver) = bounded(QUEUED);
        let mut waiting = self.waiting.lock();
        if !waiting.served {
            let server = server.clone();
            let work = move || serve(&server);
            thread::Builder::new().name("copies".into()).spawn(work)?;
            waiting.served = true;
        }
        waiting.members.push(Member {
            replica: replica.clone(),
            form,
            pieces,
        });
        Ok(receiver)
    }

    pub(super) fn are_underway(&self) -> bool {
        self.underway.load(Ordering::Relaxed)
    }

    fn is_awaited(&self) -> bool {
        let mut waiting = self.waiting.lock();
        waiting.served = !waiting.members.is_empty();
        waiting.served
    }

    /// Those who want the same file as the first.
    fn take(&self) -> Vec<Member> {
        let mut waiting = self.waiting.lock();
        let form = waiting.members.first().map(|first| first.form);
        let (taken, left) = mem::take(&mut waiting.members)
            .into_iter()
            .partition(|member| Some(member.form) == form);
        waiting.members = left;
        taken
    }
}

/// Makes copies as long as somebody waits for one.
fn serve(server: &Arc<Server>) {
    let copies = &server.replication.copies;
    while copies.is_awaited() {
        thread::sleep(GATHERING);
        let ready = Ready::wait(&server.keyspace);
        copies.underway.store(true, Ordering::Relaxed);
        let made = make(server, ready, copies.take());
        copies.underway.store(false, Ordering::Relaxed);
        if let Err(error) = made {
            log::warning(format!("The copy for replicas was not completed: {error}"));
        }
    }
}

/// Makes a cut and hands it to all members.
fn make(server: &Arc<Server>, ready: Ready<'_>, members: Vec<Member>) -> io::Result<()> {
    let replication = &server.replication;
    let Some(form) = members.first().map(|first| first.form) else {
        return Ok(());
    };
    let Form {
        dialect,
        leaves_out,
    } = form;
    let replicas: Vec<_> = members
        .iter()
        .map(|member| member.replica.clone())
        .collect();
    let (mut standing, mut libraries) = (None, Vec::new());
    // Nobody waits for a replica; it waits for another copy.
    let limit = server.clients.limits.output.replica_bytes() as usize;
    let applying = replication.applying.lock();
    let snapshot = ready.cut(limit, || {
        let is_own = !replication.is_replica();
        if is_own {
            replication.activate(server);
        }
        let mut backlog = replication.stream.lock();
        if is_own {
            // The next effect says its database, for these replicas too.
            backlog.database = None;
        }
        libraries = server.scripting.functions.all();
        for replica in &replicas {
            replica.begin_at(backlog.end());
            replica.enter(Stage::Copying);
        }
        drop(backlog);
        standing = replication.standing();
    });
    drop(applying);
    replication.note_needed();
    let standing = standing.ok_or_else(|| io::Error::other("there is no stream yet"))?;
    let standing = Arc::new(standing);
    let mut group = Group {
        members,
        buffer: Vec::with_capacity(CHUNK),
    };
    group.hand_out(&Piece::Begin(standing.clone()))?;
    let mut writer = FileWriter::new(group, dialect, false)?;
    writer.note(b"valkey-ver", config::VALKEY_VERSION.as_bytes())?;
    standing.note_in(&mut writer)?;
    for library in libraries.iter().filter(|_| !leaves_out.functions) {
        writer.function(&library.code)?;
    }
    let mut current = None;
    let are_gone = || replicas.iter().all(|replica| replica.is_closed());
    let walked = snapshot.walk(|number, entry| {
        go_on(server, are_gone)?;
        if leaves_out.data {
            return Ok(());
        }
        if current != Some(number) {
            current = Some(number);
            writer.select(number as u64)?;
        }
        writer.entry(EntryToWrite {
            key: entry.key(),
            value: entry.value(),
            deadline: entry.deadline(),
            idle_seconds: None,
            frequency: None,
            item: entry.item(),
        })
    });
    if walked.as_ref().is_err_and(GivenUp::is) {
        let copied = replicas.iter().filter(|replica| replica.is_being_copied());
        copied.for_each(|replica| replica.client.close_for_unsent(limit));
    }
    walked?;
    let mut group = writer.finish(ChecksumCheck::On)?;
    group.flush()?;
    group.hand_out(&Piece::End)
}

/// Those whom a copy is handed to.
struct Group {
    members: Vec<Member>,
    buffer: Vec<u8>,
}

impl Group {
    /// # Errors
    /// Nobody is left.
    fn hand_out(&mut self, piece: &Piece) -> io::Result<()> {
        let others_wait = self.members.len() > 1;
        self.members
            .retain(|member| member.is_handed(piece.clone(), others_wait));
        match self.members.is_empty() {
            true => Err(io::Error::other("the replicas are gone")),
            false => Ok(()),
        }
    }
}

impl Write for Group {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > CHUNK {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            let piece = Piece::Bytes(self.buffer.as_slice().into());
            self.buffer.clear();
            self.hand_out(&piece)?;
        }
        Ok(())
    }
}

impl Member {
    /// False if it is gone, or was given up.
    fn is_handed(&self, mut piece: Piece, others_wait: bool) -> bool {
        let mut waited = Duration::ZERO;
        while !self.replica.is_closed() {
            match self.pieces.send_timeout(piece, PATIENCE) {
                Ok(()) => return true,
                Err(SendTimeoutError::Disconnected(_)) => return false,
                Err(SendTimeoutError::Timeout(back)) => piece = back,
            }
            waited += PATIENCE;
            if others_wait && waited >= LAG {
                log::warning(format!(
                    "Replica {} keeps others waiting and is left behind",
                    self.replica
                ));
                self.replica.close();
            }
        }
        false
    }
}

/// Sends a replica all data as of one instant, from which on the stream is kept for it.
pub(super) fn send(
    server: &Arc<Server>,
    replica: &Arc<Replica>,
    stream: &TcpStream,
    wanted: &Wanted,
) -> io::Result<()> {
    log::notice(format!(
        "Replica {replica} asks for synchronization, full resync"
    ));
    let dialect = match wanted.announced.version >= FIRST_WITH_FIELD_DEADLINES {
        true => FileDialect::Valkey,
        false => FileDialect::Common,
    };
    let form = Form {
        dialect,
        leaves_out: wanted.announced.leaves_out,
    };
    let pieces = server.replication.copies.join(server, replica, form)?;
    let mut plain = stream;
    let standing = loop {
        match pieces.recv_timeout(PATIENCE) {
            Ok(Piece::Begin(standing)) => break standing,
            // An empty line keeps the link alive.
            Err(RecvTimeoutError::Timeout) => plain.write_all(b"\n")?,
            Ok(Piece::Bytes(_) | Piece::End) | Err(RecvTimeoutError::Disconnected) => {
                return Err(given_up());
            }
        }
    };
    if !wanted.is_old {
        let Standing { id, offset, .. } = &*standing;
        plain.write_all(format!("+FULLRESYNC {id} {offset}\r\n").as_bytes())?;
    }
    if wanted.announced.eof && !wanted.is_old {
        let mark = server::random_hex();
        plain.write_all(format!("$EOF:{mark}\r\n").as_bytes())?;
        pass(replica, &pieces, plain)?;
        plain.write_all(mark.as_bytes())?;
    } else {
        send_with_length(server, replica, &pieces, plain)?;
        // It knows where the copy ends.
        replica.enter(Stage::Online);
    }
    replica.note_heard();
    replica.enter(Stage::Loading);
    log::notice(format!("Synchronization with replica {replica} succeeded"));
    Ok(())
}

/// Writes all pieces, unless the replica leaves before.
fn pass(replica: &Replica, pieces: &Receiver<Piece>, mut sink: impl Write) -> io::Result<()> {
    loop {
        match pieces.recv_timeout(PATIENCE) {
            Ok(Piece::Bytes(bytes)) => sink.write_all(&bytes)?,
            Ok(Piece::End) => return sink.flush(),
            Err(RecvTimeoutError::Timeout) if !replica.is_closed() => {}
            Ok(Piece::Begin(_)) | Err(_) => return Err(given_up()),
        }
    }
}

/// For those that want to know the length beforehand, which nobody does before the end: by way of a file.
fn send_with_length(
    server: &Server,
    replica: &Replica,
    pieces: &Receiver<Piece>,
    mut plain: &TcpStream,
) -> io::Result<()> {
    let path = server.config.settings().dir.join(format!(
        "temp-sync-{}-{}.rdb",
        std::process::id(),
        replica.client.id
    ));
    let outcome = std::fs::File::create(&path).and_then(|file| {
        pass(replica, pieces, BufWriter::with_capacity(CHUNK, &file))?;
        replica.enter(Stage::Sending);
        let mut file = std::fs::File::open(&path)?;
        let len = file.metadata()?.len();
        plain.write_all(format!("${len}\r\n").as_bytes())?;
        io::copy(&mut file, &mut plain)
    });
    // What stays is overwritten or removed by hand.
    let _ = std::fs::remove_file(&path);
    outcome.map(drop)
}

fn given_up() -> io::Error {
    io::Error::other("its copy was given up")
}
