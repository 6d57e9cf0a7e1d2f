//! Replication, as PSYNC2 has it: one stream of effects with a name and an offset, kept for a while so that a replica
//! whose link broke can go on where it was.
//!
//! The stream is written under the shards' locks into the [`Backlog`]; a thread per replica copies from there to its
//! socket, so that no client waits for a replica. A replica applies its primary's stream and keeps the same bytes under
//! the same offsets in its own backlog, for replicas of its own and for the day it is promoted.

mod backlog;
mod copy;
pub mod failover;
mod maintenance;
pub mod own_keys;
pub mod primary;
pub mod replica;

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use storage::{
    changes::{Listeners, Readers},
    db::Db,
    effects::Effects,
    rdb::file::FileWriter,
    removal::Removal,
};

pub use self::maintenance::{enforce_limits, finish, maintain, tell_lagging, wait_for_replicas};
use self::{
    backlog::Backlog, copy::Copies, failover::Failover, own_keys::OwnKeys, primary::Replica,
    replica::Link,
};
use crate::{
    config::Settings,
    dispatch::{blocking, error::Error},
    propagation::{each_piece, encode},
    server::{self, Server},
};

/// How long a promotion waits for the commands that a replica has read already.
const APPLY_PATIENCE: Duration = Duration::from_secs(1);

/// The server's part in replication.
pub struct Replication {
    pub(crate) stream: Mutex<Backlog>,
    /// There is more in the stream, or a replica has said something.
    more: Condvar,
    /// Somebody follows, or did: effects are kept.
    active: AtomicBool,
    pub(crate) replicas: Mutex<Vec<Arc<Replica>>>,
    copies: Copies,
    link: Mutex<Option<Arc<Link>>>,
    is_replica: AtomicBool,
    /// The stream is of what this server's clients do, not of what a primary sends.
    is_own: AtomicBool,
    pub failover: Failover,
    pub own_keys: OwnKeys,
    /// Held while a replica applies its primary's commands and keeps their bytes, so that a cut for a replica of its
    /// own falls between two commands, where data and offset agree.
    pub(crate) applying: Mutex<()>,
    /// `min-replicas-to-write` asks for some.
    wants_replicas: AtomicBool,
    /// Since when there has been no replica; 0 while there are some.
    alone_since_ms: AtomicI64,
}

/// Where data stands in a history: what a snapshot file says of itself, so that whoever loads it can go on from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The history's name, 40 hexadecimal digits.
    pub id: String,
    /// How much of it the data has.
    pub offset: u64,
    /// The database that the stream is in.
    pub database: usize,
}

impl Standing {
    /// Writes it into a snapshot file's head, as other servers do.
    ///
    /// # Errors
    /// The file's.
    pub fn note_in<W: Write>(&self, writer: &mut FileWriter<W>) -> io::Result<()> {
        let (database, offset) = (self.database.to_string(), self.offset.to_string());
        writer.note(b"repl-stream-db", database.as_bytes())?;
        writer.note(b"repl-id", self.id.as_bytes())?;
        writer.note(b"repl-offset", offset.as_bytes())
    }
}

/// What a server is to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Primary,
    Replica,
}

impl Default for Replication {
    fn default() -> Replication {
        Replication {
            stream: Mutex::new(Backlog::new(server::random_hex())),
            more: Condvar::new(),
            active: AtomicBool::new(false),
            replicas: Mutex::default(),
            copies: Copies::default(),
            link: Mutex::default(),
            is_replica: AtomicBool::new(false),
            is_own: AtomicBool::new(true),
            failover: Failover::default(),
            own_keys: OwnKeys::default(),
            applying: Mutex::default(),
            wants_replicas: AtomicBool::new(false),
            alone_since_ms: AtomicI64::new(0),
        }
    }
}

impl Replication {
    /// Whether this server follows another.
    #[inline]
    pub fn is_replica(&self) -> bool {
        self.is_replica.load(Ordering::Relaxed)
    }

    /// Whether some commands may have to be refused.
    #[inline]
    pub fn concerns_writes(&self) -> bool {
        self.is_replica() || self.wants_replicas.load(Ordering::Relaxed)
    }

    /// Takes over what settings say.
    pub fn configure(&self, settings: &Settings) {
        let wants = settings.min_replicas_to_write > 0;
        self.wants_replicas.store(wants, Ordering::Relaxed);
        let limit = match settings.client_output_buffer_limit.replica.hard_bytes {
            0 => u64::MAX,
            hard => hard,
        };
        self.stream
            .lock()
            .set_size(settings.repl_backlog_size, limit);
    }

    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Whether a full copy is on its way to replicas.
    pub fn is_copying(&self) -> bool {
        self.copies.are_underway()
    }

    pub fn link(&self) -> Option<Arc<Link>> {
        self.link.lock().clone()
    }

    /// Whether a primary is followed and out of reach, or its data not there yet.
    pub fn is_stale(&self) -> bool {
        self.is_replica() && self.link().is_none_or(|link| !link.is_up())
    }

    /// The stream's end, in bytes since it began.
    pub fn offset(&self) -> u64 {
        self.stream.lock().end()
    }

    /// Adds what a command did to the stream, unless the stream is another server's. Feeders are told apart, by
    /// [`Replication::tell_feeders`].
    pub fn append(&self, effects: &Effects) {
        if !self.is_active() {
            return;
        }
        let mut stream = self.stream.lock();
        if !self.is_own.load(Ordering::Relaxed) {
            return;
        }
        let mut database = stream.database;
        each_piece(effects, &mut database, Readers::REPLICAS, |piece| {
            stream.push_effects(piece);
        });
        stream.database = database;
    }

    /// Wakes the threads that feed replicas, if there are any: there is more in the stream.
    pub fn tell_feeders(&self) {
        if self.is_active() {
            self.more.notify_all();
        }
    }

    /// The stream is the primary's from here on: what clients were still doing is in it, more does not come.
    pub(crate) fn give_up_stream(&self, server: &Server, link: &Link) {
        let mut db = Db::new(&server.keyspace, 0, server::now());
        db.lock_all();
        let stream = self.stream.lock();
        if !link.is_stopped() {
            self.is_own.store(false, Ordering::Relaxed);
        }
        drop(stream);
        db.unlock();
    }

    /// Adds a command that is about no data: PING, REPLCONF GETACK.
    pub(crate) fn append_plain(&self, words: &[&[u8]]) {
        let mut bytes = Vec::new();
        encode(&mut bytes, words.iter().copied());
        let mut stream = self.stream.lock();
        if !stream.ended && self.is_own.load(Ordering::Relaxed) {
            stream.push(&bytes);
        }
        drop(stream);
        self.more.notify_all();
    }

    /// Keeps effects from here on. All shards are locked.
    pub(crate) fn activate(&self, server: &Server) {
        self.settle_log(server, true, || self.active.store(true, Ordering::Relaxed));
    }

    /// Runs `change`, after which the keyspace tells what commands do if the append-only file (`logs`) or a stream
    /// wants it.
    pub fn settle_log(&self, server: &Server, logs: bool, change: impl FnOnce()) {
        // Whoever changes one of the two sees the other.
        let _stream = self.stream.lock();
        change();
        if logs || self.is_active() {
            server.keyspace.add_listener(Listeners::LOG);
        } else {
            server.keyspace.remove_listener(Listeners::LOG);
        }
    }

    /// Adds nothing any more, for the process is about to end; or goes on, since it is not.
    pub fn end_stream(&self, ended: bool) {
        self.stream.lock().ended = ended;
    }

    /// Where the data stands, if there is a stream. All shards are locked, and nothing is being applied.
    pub fn standing(&self) -> Option<Standing> {
        let stream = self.stream.lock();
        self.is_active().then(|| Standing {
            id: stream.id.clone(),
            offset: stream.end(),
            database: stream.database.unwrap_or(0),
        })
    }

    /// Goes on from where loaded data stands: a replica asks its primary for the rest, and a primary's replicas need
    /// not be sent everything. `lost` are keys that have expired meanwhile and were not loaded.
    pub fn restore(
        &self,
        server: &Server,
        standing: Standing,
        part: Part,
        lost: Vec<(usize, Box<[u8]>)>,
    ) {
        self.activate(server);
        let mut stream = self.stream.lock();
        match part {
            Part::Primary => {
                stream.go_on_from(standing.id, standing.offset);
                drop(stream);
                for (database, key) in lost {
                    self.append(&Effects::of(
                        database,
                        [server.keyspace.removals.command(Removal::Expired), &key].into_iter(),
                    ));
                }
            }
            Part::Replica => {
                stream.restart(standing.id, standing.offset);
                stream.database = Some(standing.database);
            }
        }
    }

    /// Names the history anew, so that no replica can go on from where it is.
    pub fn change_id(&self) {
        let mut stream = self.stream.lock();
        let end = stream.end();
        stream.restart(server::random_hex(), end);
    }

    /// Follows the primary at this address from now on.
    pub fn follow(&self, server: &Arc<Server>, host: &str, port: u16) {
        self.follow_link(server, Link::new(host, port));
    }

    /// Follows a replica of this server, which is to become the primary when it is asked for the stream.
    pub(crate) fn ask_to_take_over(
        &self,
        server: &Arc<Server>,
        host: &str,
        port: u16,
    ) -> Arc<Link> {
        let link = Link::new(host, port);
        link.ask_to_take_over();
        self.follow_link(server, link.clone());
        link
    }

    fn follow_link(&self, server: &Arc<Server>, link: Arc<Link>) {
        let mut current = self.link.lock();
        if let Some(link) = current.take() {
            link.stop();
        }
        self.is_replica.store(true, Ordering::Relaxed);
        server.keyspace.set_deletes_expired(false);
        // If the kernel does not let it the log says so.
        let _ = server.adjust_oom_score();
        blocking::interrupt_all(server, &Error::ROLE_CHANGED);
        self.drop_replicas();
        replica::start(server, link.clone());
        *current = Some(link);
    }

    /// Follows nobody: this server's own history begins where the primary's ended.
    pub fn promote(&self, server: &Server) -> bool {
        let Some(link) = self.link.lock().take() else {
            return false;
        };
        link.stop();
        // What is being applied is finished first. Not waited for without end, since a transaction may hold its keys.
        let applying = self.applying.try_lock_for(APPLY_PATIENCE);
        let mut stream = self.stream.lock();
        if applying.is_some() {
            stream.rename(server::random_hex());
        } else {
            // Of what is still being applied the stream has no part.
            let end = stream.end();
            stream.restart(server::random_hex(), end);
        }
        // What this server does itself says its database; what a primary had sent goes on in the one it was in.
        stream.database = None;
        self.is_own.store(true, Ordering::Relaxed);
        drop(stream);
        // Before clients may write: what they find expired is gone, here and at replicas.
        server.keyspace.set_deletes_expired(true);
        self.is_replica.store(false, Ordering::Relaxed);
        self.own_keys.forget();
        let _ = server.adjust_oom_score();
        drop(applying);
        // Replicas ask again, and learn the new name.
        self.drop_replicas();
        true
    }

    /// Ends the links to this server's replicas.
    pub(crate) fn drop_replicas(&self) {
        for replica in self.replicas.lock().iter() {
            replica.close();
        }
        self.more.notify_all();
    }

    /// How many replicas have acknowledged the stream up to `offset`.
    pub fn acknowledged(&self, offset: u64) -> usize {
        self.count(|replica| replica.is_online() && replica.acknowledged() >= offset)
    }

    /// How many replicas have the stream up to `offset` on disk.
    pub fn on_disk(&self, offset: u64) -> usize {
        self.count(|replica| replica.is_online() && replica.on_disk() >= Some(offset))
    }

    fn count(&self, is_meant: impl Fn(&Replica) -> bool) -> usize {
        let replicas = self.replicas.lock();
        replicas.iter().filter(|replica| is_meant(replica)).count()
    }

    /// How many replicas were heard of within so many seconds.
    pub fn good_replicas(&self, max_lag_seconds: i64) -> usize {
        let now = server::now().millis();
        self.count(|replica| {
            replica.is_online() && now - replica.heard_ms() <= max_lag_seconds.saturating_mul(1000)
        })
    }
}
