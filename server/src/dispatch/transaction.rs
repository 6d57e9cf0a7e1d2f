//! MULTI, EXEC and WATCH: commands that are queued, then run under the locks of all their keys at once.
//!
//! EXEC locks the union of the shards that its commands and watched keys fall in, so that a transaction costs others
//! no more than its own shards. A command that walks the keyspace or looks at the server as a whole locks all.

use std::sync::{Arc, atomic::Ordering};

use hashbrown::HashSet;
use protocol::{
    output::Output,
    resp::{reply::ReplyWriter, request::Span},
};
use smallvec::SmallVec;
use storage::{Held, changes::Changes, clock::Moment, db::Db, keyspace::Key, shard::WatchMark};

use super::{
    Begun,
    args::{Args, NO_KEY},
    blocking,
    call::{call_any, release, stand_back},
    command::{Command, Later, Reply, Result, Run},
    conclude,
    error::Error,
    keys::{each_key, wants_all_shards},
    table::Registered,
};
use crate::{
    commands::acl,
    memcache::note::Note,
    notify::{self, Teller},
    scripting::{Libraries, Scripting, keys_of},
    server::Server,
    session::Session,
    tracking,
};

/// A command as it was sent, kept until EXEC.
pub struct Queued {
    pub registered: &'static Registered,
    bytes: Box<[u8]>,
    spans: SmallVec<[Span; 4]>,
    first_key: (usize, u64),
}

impl Queued {
    pub fn new(registered: &'static Registered, args: &Args<'_>) -> Queued {
        Queued::replaced(registered, args, &[])
    }

    /// The request with some of its words replaced, by their numbers.
    pub fn replaced(
        registered: &'static Registered,
        args: &Args<'_>,
        words: &[(usize, Box<[u8]>)],
    ) -> Queued {
        let word = |index: usize| {
            let replaced = words.iter().find(|(replaced, _)| *replaced == index);
            replaced.map_or_else(|| args.word(index), |(_, word)| word)
        };
        let len = (0..args.len()).map(|index| word(index).len()).sum();
        // Nothing grows.
        let mut bytes = Vec::with_capacity(len);
        let mut spans = SmallVec::with_capacity(args.len());
        for index in 0..args.len() {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(word(index));
            let end = bytes.len() as u32;
            spans.push(Span { start, end });
        }
        Queued {
            registered,
            bytes: bytes.into(),
            spans,
            first_key: match words {
                [] => args.first_key(),
                _ => NO_KEY,
            },
        }
    }

    pub fn args(&self) -> Args<'_> {
        Args::new(&self.bytes, &self.spans).with_first_key(self.first_key)
    }

    fn memory_bytes(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.spans) + size_of::<Queued>()
    }
}

/// Queued commands and watched keys of one connection.
#[derive(Default)]
pub struct Transaction {
    queued: Vec<Queued>,
    queued_bytes: usize,
    /// A command was refused while queueing: EXEC will refuse all.
    pub failed: bool,
    pub mark: Arc<WatchMark>,
    pub watched: HashSet<(usize, Box<[u8]>)>,
}

/// Bytes that may be queued whatever the limit is: the least that it can be set to.
const ALWAYS_QUEUED: usize = 1 << 20;

impl Transaction {
    /// Keeps a command for EXEC.
    ///
    /// # Errors
    /// The queue would hold more than `limit` bytes, which is asked for queues that are not small.
    pub fn push(&mut self, queued: Queued, limit: impl FnOnce() -> u64) -> Result<usize> {
        self.queued_bytes += queued.memory_bytes();
        if self.queued_bytes > ALWAYS_QUEUED && self.queued_bytes as u64 > limit() {
            return Err(Error::general(
                "transaction is larger than client-query-buffer-limit",
            ));
        }
        self.queued.push(queued);
        Ok(self.queued.len())
    }

    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// What is queued, in order.
    pub fn queued(&self) -> impl Iterator<Item = &Queued> {
        self.queued.iter()
    }

    /// Whether something is so of a queued command.
    pub fn any(&self, is_so: impl Fn(&Command) -> bool) -> bool {
        self.queued
            .iter()
            .any(|queued| is_so(queued.registered.command))
    }

    /// As [`Transaction::any`], with the words that were queued.
    pub fn any_request(&self, is_so: impl Fn(&Command, &Args<'_>) -> bool) -> bool {
        self.queued
            .iter()
            .any(|queued| is_so(queued.registered.command, &queued.args()))
    }

    /// Stops watching. Takes each key's lock in turn.
    pub fn unwatch(&self, server: &Server) {
        for (database, key) in &self.watched {
            forget_watch(server, *database, key, &self.mark);
        }
    }

    /// Locks what the commands and the watched keys need, if these are the functions.
    fn lock(
        &self,
        scripting: &Scripting,
        libraries: &Libraries,
        db: &mut Db<'_>,
    ) -> std::result::Result<(), Held> {
        let mut hashes: Vec<u64> = self
            .watched
            .iter()
            .map(|(_, key)| Key::new(key).hash)
            .collect();
        for queued in &self.queued {
            let command = queued.registered.command;
            let args = queued.args();
            let whole = match command.run {
                Run::Session(_) => {
                    hashes.extend(Note::read(&args).map(|note| note.key.hash));
                    continue;
                }
                Run::Exec | Run::Container => continue,
                Run::Script(_) => match keys_of(scripting, libraries, command, &args) {
                    Some(keys) => {
                        hashes.extend(keys.map(|index| args.key(index).hash));
                        continue;
                    }
                    None => true,
                },
                Run::Server(_) => true,
                Run::Read(_) | Run::Write(_) | Run::Blocking(_) => {
                    command.keys.is_empty() || wants_all_shards(command, &args)
                }
            };
            if whole {
                return db.try_lock_all();
            }
            each_key(command, &args, |index, _| hashes.push(args.key(index).hash));
        }
        db.try_lock_each(hashes.iter().copied())?;
        db.prefetch_each(&hashes);
        Ok(())
    }

    /// Locks what those need who wait for keys of the commands.
    #[cold]
    fn expand(&self, server: &Server, db: &mut Db<'_>) -> std::result::Result<(), Held> {
        let args: Vec<_> = self
            .queued
            .iter()
            .map(|queued| (queued.registered.command, queued.args()))
            .collect();
        let mut keys = Vec::new();
        for (command, args) in &args {
            each_key(command, args, |index, _| keys.push(args.key(index)));
        }
        // The watched keys stay locked too.
        keys.extend(self.watched.iter().map(|(_, key)| Key::new(key)));
        blocking::expand(server, db, &keys)
    }

    /// Whether a watched key changed or expired. Its shard is locked.
    fn is_touched(&self, db: &Db<'_>) -> bool {
        let expired = |(database, key): &(usize, Box<[u8]>)| {
            let key = Key::new(key);
            let table = &db.shard(key.hash).tables[*database];
            table
                .get(key.hash, key.bytes)
                .is_some_and(|entry| entry.is_expired(db.expired_by()))
        };
        self.mark.is_touched() || self.watched.iter().any(expired)
    }
}

/// Takes a mark off a key.
pub(crate) fn forget_watch(server: &Server, database: usize, key: &[u8], mark: &Arc<WatchMark>) {
    let keyspace = &server.keyspace;
    match keyspace.try_lock(keyspace.shard_of(Key::new(key).hash)) {
        Ok(mut shard) => shard
            .watched
            .remove(database, key, |known| Arc::ptr_eq(known, mark)),
        Err(Held) => {
            let (key, mark) = (Box::<[u8]>::from(key), mark.clone());
            server
                .postponed
                .add(move |server| forget_watch(server, database, &key, &mark));
        }
    }
}

/// EXEC: runs the queued commands under one set of locks.
pub fn exec(session: &mut Session, db: &mut Db<'_>, reply: &mut Reply) -> Result {
    if !session.flags.in_transaction {
        return Err(Error::EXEC_WITHOUT_MULTI);
    }
    let transaction = session.take_transaction().unwrap_or_default();
    if transaction.failed {
        transaction.unwatch(&session.server);
        return Err(Error::EXEC_ABORT);
    }
    if let Err(error) = lock(session, db, &transaction) {
        transaction.unwatch(&session.server);
        return Err(error);
    }
    let mut all = Changes::default();
    if transaction.is_touched(db) {
        reply.null_array();
    } else {
        run_all(session, db, &transaction, reply, &mut all);
    }
    db.changes = all;
    release(&session.server, db);
    session.libraries = None;
    transaction.unwatch(&session.server);
    Ok(())
}

/// Locks what the transaction needs, and settles which functions it calls.
///
/// # Errors
/// `BUSY` if a script that runs for too long holds some of it.
fn lock(session: &mut Session, db: &mut Db<'_>, transaction: &Transaction) -> Result {
    let scripting = &session.server.scripting;
    let runs_scripts = transaction.any(|command| matches!(command.run, Run::Script(_)));
    let libraries = match runs_scripts {
        true => scripting.functions.current(),
        false => Libraries::default(),
    };
    while transaction.lock(scripting, &libraries, db).is_err() {
        stand_back(session)?;
    }
    session.libraries = runs_scripts.then_some(libraries);
    if session.server.has_waiting() {
        while transaction.expand(&session.server, db).is_err() {
            stand_back(session)?;
            db.lock_all();
        }
    }
    Ok(())
}

fn run_all(
    session: &mut Session,
    db: &mut Db<'_>,
    transaction: &Transaction,
    reply: &mut Reply,
    all: &mut Changes,
) {
    session.flags.in_exec = true;
    let may_prepare = std::mem::replace(&mut reply.may_prepare, false);
    reply.array(transaction.queued.len());
    let mut parts = Parts::default();
    let mut clock = Moment::now();
    for queued in &transaction.queued {
        let (registered, args) = (queued.registered, &queued.args());
        if matches!(registered.command.run, Run::Session(_)) && !all.notices.is_empty() {
            // Whoever listens from now on has not heard of what was before.
            notify::tell_locked(&session.server, db, &mut all.notices, Teller::Command);
        }
        let begun = Begun::at(reply);
        db.begin();
        let result = still_allowed(session, db, queued)
            .and_then(|()| call_any(session, db, registered.command, args, reply));
        conclude(session, &mut clock, registered, args, reply, begun, result);
        if db.changes.is_quiet() {
            all.dirty += std::mem::take(&mut db.changes.dirty);
        } else {
            let changes = std::mem::take(&mut db.changes);
            let stale = changes.has_stale();
            all.absorb(changes);
            if stale {
                notify::tell_locked(&session.server, db, &mut all.notices, Teller::Command);
            }
        }
        if session.flags.tracks_reads {
            tracking::remember(session, db, registered.command, args);
        }
        parts.cut(reply);
    }
    parts.join(reply);
    reply.may_prepare = may_prepare;
    session.flags.in_exec = false;
    session.frozen_time = None;
}

/// Whether the user may run a queued command as the rules are now.
fn still_allowed(session: &Session, db: &Db<'_>, queued: &Queued) -> Result {
    if session.user.is_unrestricted() {
        return Ok(());
    }
    acl::check(session, db, queued.registered, &queued.args(), "multi")
        .map_err(|denial| Error::acl_changed(denial.reason.sentence()))
}

/// Replies of which some are written in slices after the locks are released, put back in order.
#[derive(Default)]
struct Parts {
    /// What precedes each sliced reply, and that reply.
    cut: Vec<(Output, Box<dyn Later>)>,
}

impl Parts {
    /// If the last command left a reply to be written later, what was written so far ends before it.
    fn cut(&mut self, reply: &mut Reply) {
        if let Some(later) = reply.later.take() {
            let version = reply.version();
            let writer = std::mem::replace(&mut reply.writer, ReplyWriter::new(version));
            self.cut.push((writer.into_output(), later));
        }
    }

    /// What precedes the first sliced reply is the reply; the rest is written later.
    fn join(self, reply: &mut Reply) {
        if self.cut.is_empty() {
            return;
        }
        let mut outputs = Vec::new();
        let mut laters = Vec::new();
        for (output, later) in self.cut {
            outputs.push(output);
            laters.push(later);
        }
        let version = reply.version();
        let first = ReplyWriter::with_output(version, outputs.remove(0));
        let tail = std::mem::replace(&mut reply.writer, first).into_output();
        outputs.push(tail);
        let mut rest = laters.into_iter().zip(outputs).peekable();
        reply.later(move |writer: &mut ReplyWriter| {
            if let Some((later, after)) = rest.peek_mut() {
                if !later.write(writer) {
                    return false;
                }
                writer.output_mut().append(after);
                rest.next();
            }
            rest.peek().is_none()
        });
    }
}

impl Session {
    /// Ends the queueing and hands out what was queued.
    fn take_transaction(&mut self) -> Option<Box<Transaction>> {
        self.flags.in_transaction = false;
        self.client.in_transaction.store(false, Ordering::Relaxed);
        self.client.watched_keys.store(0, Ordering::Relaxed);
        let transaction = self.transaction.take()?;
        self.client.queued.store(0, Ordering::Relaxed);
        let held = &self.client.held;
        held.queued_bytes.store(0, Ordering::Relaxed);
        let watched = transaction.watched.iter();
        watched.for_each(|(_, key)| held.remove_name(key));
        if !transaction.watched.is_empty() {
            self.client.set_details(|details| details.watch = None);
        }
        Some(transaction)
    }

    /// Forgets queued commands and watched keys.
    pub fn leave_transaction(&mut self) {
        if let Some(transaction) = self.take_transaction() {
            transaction.unwatch(&self.server);
        }
    }
}
