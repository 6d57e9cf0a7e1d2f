//! Waiting: clients whose command found nothing yet, and how they are served.
//!
//! A client waits on the keys that its command reads, noted under their locks by the failed attempt, so that no change
//! goes unseen. Whoever changes such a key runs the waiting command itself, right after its own and under the same
//! locks, in the order in which the clients came: nobody overtakes them. What a waiting command needs beside the key
//! (BLMOVE's destination) is locked beforehand, see [`expand`]. The reply goes by mail to the client's own worker, which
//! takes the client out of the lists of its other keys.
//!
//! A waiter ends once: by being served, its timeout, CLIENT UNBLOCK or the end of its connection, whichever takes the
//! waiter's own lock first. That lock comes after those of shards.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use protocol::resp::reply::{ReplyWriter, Version};
use storage::{
    Held,
    changes::{ChangedKey, Changes},
    db::Db,
    keyspace::Key,
    shard::Waiting,
    value::Type,
};

use super::{
    args::Args,
    call::attempt,
    command::{Access, Command, Group, Progress, Reply},
    error::Error,
    keys::each_key,
    table::Registered,
    transaction::Queued,
};
use crate::{
    acl::User,
    commands::acl,
    metrics::command_log::Outcome,
    notify::{self, Teller},
    server::{self, Server},
    session::{Session, registry::Client},
    tracking,
};

/// A client's command that waits.
pub struct Waiter {
    request: Queued,
    database: usize,
    version: Version,
    no_touch: bool,
    /// Whose rights it has when it runs again.
    user: Arc<User>,
    /// What it reads is noted, see [`tracking`].
    tracks: bool,
    /// CLIENT REPLY OFF or SKIP.
    silent: bool,
    /// Milliseconds since the epoch; `None` waits for ever.
    pub deadline_ms: Option<i64>,
    /// The keys in whose lists it stands.
    keys: Vec<Box<[u8]>>,
    /// The hashes of all keys that the command declares.
    hashes: Vec<u64>,
    end: Mutex<Option<End>>,
    /// The connection ends with its waiting.
    closes: AtomicBool,
    /// How long the command ran before it waited.
    attempt_nanoseconds: AtomicU64,
}

/// How waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With a reply of so many bytes, be it that there is nothing.
    Answered(usize),
    /// The command failed when it ran again.
    Failed,
    /// The user may not run the command any more.
    Refused,
    /// By CLIENT UNBLOCK with an error.
    Interrupted,
    /// Nobody is there any more.
    Left,
}

impl Waiter {
    pub fn closes(&self) -> bool {
        self.closes.load(Ordering::Relaxed)
    }

    pub fn is_over(&self) -> bool {
        self.end.lock().is_some()
    }

    /// Notes how long the command ran that waits now.
    pub(super) fn note_attempt(&self, nanoseconds: u64) {
        self.attempt_nanoseconds
            .store(nanoseconds, Ordering::Relaxed);
    }

    /// Ends the waiting with a reply. False if it is over already.
    fn end(
        &self,
        client: &Arc<Client>,
        how: impl FnOnce(usize) -> End,
        write: impl FnOnce(&mut ReplyWriter),
    ) -> bool {
        let mut end = self.end.lock();
        if end.is_some() {
            return false;
        }
        let mut writer = ReplyWriter::new(self.version);
        if !self.silent {
            write(&mut writer);
        }
        *end = Some(how(writer.len()));
        client.leave_reply(writer.into_output(), None);
        true
    }

    /// Ends the waiting as if its time were up: with the null array, whatever the command else says for nothing. False
    /// if it is over already.
    pub fn time_out(&self, client: &Arc<Client>) -> bool {
        self.end(client, End::Answered, ReplyWriter::null_array)
    }

    /// Ends the waiting with an error, for CLIENT UNBLOCK. False if it is over already.
    pub fn interrupt(&self, server: &Server, client: &Arc<Client>, error: &Error) -> bool {
        let interrupted = self.end(
            client,
            |_| End::Interrupted,
            |writer| {
                writer.error_bytes(error.as_bytes());
            },
        );
        if interrupted {
            server.metrics.count_error(error.code());
        }
        interrupted
    }

    /// Whether the command has an answer also when the key is gone or of another type.
    fn wants_missing(&self) -> bool {
        self.request.registered.command.name == "XREADGROUP"
    }
}

/// Makes the session wait on the keys of a command that found nothing. Their shards are locked. When it runs again, it
/// says `replaced_words` at their places.
pub fn wait(
    session: &mut Session,
    db: &mut Db<'_>,
    registered: &'static Registered,
    args: &Args<'_>,
    timeout_ms: u64,
    replaced_words: &[(usize, Box<[u8]>)],
) {
    let command = registered.command;
    let (mut keys, mut hashes) = (Vec::<Box<[u8]>>::new(), Vec::new());
    each_key(command, args, |index, access| {
        let key = args.key(index);
        hashes.push(key.hash);
        let awaited = !matches!(access, Access::Insert | Access::Overwrite | Access::Create);
        if awaited && !keys.iter().any(|known| **known == *key.bytes) {
            keys.push(key.bytes.into());
        }
    });
    let tracks = tracking::is_wanted(&session.client, command, session.flags.caching);
    let flags = &mut session.flags;
    let waiter = Arc::new(Waiter {
        request: Queued::replaced(registered, args, replaced_words),
        database: db.index(),
        version: session.version,
        no_touch: flags.no_touch,
        user: session.user.clone(),
        tracks,
        silent: flags.replies_off || std::mem::take(&mut flags.skip_next),
        deadline_ms: (timeout_ms > 0).then(|| {
            let timeout = i64::try_from(timeout_ms).unwrap_or(i64::MAX);
            db.now().millis().saturating_add(timeout)
        }),
        keys,
        hashes,
        end: Mutex::new(None),
        closes: AtomicBool::new(false),
        attempt_nanoseconds: AtomicU64::new(0),
    });
    // Before it can be found by its keys.
    session.client.set_waiter(Some(waiter.clone()));
    session.server.waiting.fetch_add(1, Ordering::Relaxed);
    for key in &waiter.keys {
        let waiting = Waiting {
            client: session.client.id,
            wants_missing: waiter.wants_missing(),
        };
        let (database, key) = (db.index(), Key::new(key));
        db.shard_mut(key.hash)
            .waiting
            .add(database, key.bytes, waiting);
    }
    session.waiter = Some(waiter);
}

impl Session {
    /// Counts the command whose waiting has ended, and leaves.
    pub fn end_waiting(&mut self) {
        if let Some(waiter) = self.waiter.clone() {
            let registered = waiter.request.registered;
            let end = *waiter.end.lock();
            if end != Some(End::Refused) {
                let nanoseconds = waiter.attempt_nanoseconds.load(Ordering::Relaxed);
                self.count_command(registered, nanoseconds);
                let reply_bytes = match end {
                    Some(End::Answered(bytes)) => bytes,
                    _ => 0,
                };
                let outcome = Outcome {
                    nanoseconds,
                    reply_bytes,
                };
                let (log, args) = (&self.server.command_log, waiter.request.args());
                log.note(registered.command, &args, &self.client, outcome);
            }
            let metrics = &self.metrics.commands[registered.id];
            match end {
                Some(End::Failed) => metrics.failed.add(1),
                Some(End::Interrupted | End::Refused) => metrics.rejected.add(1),
                Some(End::Answered(_) | End::Left) | None => {}
            }
        }
        self.leave_waiting();
    }

    /// Ends the waiting, if it has not ended, and takes the client out of the lists of its keys. Nothing is locked.
    pub fn leave_waiting(&mut self) {
        let Some(waiter) = self.waiter.take() else {
            return;
        };
        waiter.end.lock().get_or_insert(End::Left);
        self.client.set_waiter(None);
        for index in 0..waiter.keys.len() {
            leave(&self.server, &self.client, &waiter, index);
        }
        self.server.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes a client that waits no more out of the list of one of its keys, unless it has come to wait there again.
fn leave(server: &Server, client: &Arc<Client>, waiter: &Arc<Waiter>, index: usize) {
    let (keyspace, id) = (&server.keyspace, client.id);
    let key = &waiter.keys[index];
    match keyspace.try_lock(keyspace.shard_of(Key::new(key).hash)) {
        Ok(mut shard) => {
            let again = |now: Arc<Waiter>| {
                now.database == waiter.database && now.keys.iter().any(|known| known == key)
            };
            if !client.waiter().is_some_and(again) {
                shard
                    .waiting
                    .remove(waiter.database, key, |waiting| waiting.client == id);
            }
        }
        Err(Held) => {
            let (client, waiter) = (client.clone(), waiter.clone());
            server
                .postponed
                .add(move |server| leave(server, &client, &waiter, index));
        }
    }
}

/// Ends the waiting of all clients with an error, and their connections.
pub fn interrupt_all(server: &Server, error: &Error) {
    for client in server.clients.all() {
        if let Some(waiter) = client.waiter() {
            // Relaxed: whoever sees that the waiting is over has taken the lock that is taken here next.
            waiter.closes.store(true, Ordering::Relaxed);
            waiter.interrupt(server, &client, error);
        }
    }
    server.wake_patient();
}

/// How often [`expand`] looks again, as others may come to wait while it locks. What it misses is served later.
const EXPANSIONS: usize = 8;

/// Locks, besides the shards of these keys, those that clients waiting for them need to be served, and those waiting
/// for what these would change, as far as they are not held for long: those are served later. The shards of the keys are
/// locked.
///
/// # Errors
/// The locks of the keys were released for this, and now one of them is held for long. Nothing is locked then.
#[cold]
pub fn expand<'k>(server: &Server, db: &mut Db<'_>, keys: &[Key<'k>]) -> Result<(), Held> {
    let declared: Vec<u64> = keys.iter().map(|key| key.hash).collect();
    for _ in 0..EXPANSIONS {
        let mut wanted = declared.clone();
        let mut look: Vec<Box<[u8]>> = keys.iter().map(|key| key.bytes.into()).collect();
        let mut at = 0;
        while at < look.len() {
            let key = Key::new(&look[at]);
            at += 1;
            if !db.holds(key.hash) || db.shard(key.hash).waiting.is_empty() {
                continue;
            }
            let waiting = db.shard(key.hash).waiting.get(db.index(), key.bytes);
            let waiters: Vec<Arc<Waiter>> = waiting
                .iter()
                .filter_map(|waiting| server.clients.get(waiting.client)?.waiter())
                .collect();
            for waiter in waiters {
                wanted.extend_from_slice(&waiter.hashes);
                let args = waiter.request.args();
                each_key(waiter.request.registered.command, &args, |index, _| {
                    let word = args.word(index);
                    if !look.iter().any(|known| **known == *word) {
                        look.push(word.into());
                    }
                });
            }
        }
        if wanted.iter().all(|&hash| db.holds(hash)) {
            break;
        }
        db.unlock();
        if db.try_lock_each(wanted.into_iter()).is_err() {
            return db.try_lock_each(declared.into_iter());
        }
    }
    Ok(())
}

/// As [`expand`], for the keys of a command.
#[cold]
pub fn expand_for(
    server: &Server,
    db: &mut Db<'_>,
    command: &Command,
    args: &Args<'_>,
) -> Result<(), Held> {
    let mut keys = Vec::new();
    each_key(command, args, |index, _| keys.push(args.key(index)));
    let awaited = |key: &Key<'_>| db.holds(key.hash) && !db.shard(key.hash).waiting.is_empty();
    if keys.iter().any(awaited) {
        return expand(server, db, &keys);
    }
    Ok(())
}

/// Serves those who wait for the keys that just changed, under the locks that are held. Keys whose waiters need other
/// locks stay in `db.changes.ready`.
#[cold]
pub fn serve(server: &Server, db: &mut Db<'_>) {
    let selected = db.index();
    // A transaction may have taken long. What is served is logged apart, as commands of their own.
    db.set_now(db.now().max(server::now()));
    let mut all = std::mem::take(&mut db.changes);
    let mut ready: VecDeque<ChangedKey> = all.ready.drain(..).collect();
    let mut unserved: Vec<ChangedKey> = Vec::new();
    while let Some(changed) = ready.pop_front() {
        if ready.contains(&changed) || unserved.contains(&changed) {
            continue;
        }
        db.select(changed.database);
        if serve_key(server, db, &changed, &mut all) {
            ready.extend(all.ready.drain(..));
        } else {
            unserved.push(changed);
        }
    }
    all.ready.extend(unserved);
    db.select(selected);
    db.changes = all;
}

/// Serves those who wait for a key, as far as there is something. False if locks are missing.
fn serve_key(server: &Server, db: &mut Db<'_>, changed: &ChangedKey, all: &mut Changes) -> bool {
    let key = Key::new(&changed.key);
    if !db.holds(key.hash) {
        return false;
    }
    let waiting = db.shard(key.hash).waiting.get(changed.database, key.bytes);
    let waiting = waiting.to_vec();
    let wanted_missing = waiting.iter().any(|waiting| waiting.wants_missing);
    for Waiting { client, .. } in waiting {
        db.begin();
        let there = db.peek(key).map(|entry| entry.value_type());
        if there.is_none() && !wanted_missing {
            break;
        }
        let Some(client) = server.clients.get(client) else {
            continue;
        };
        let Some(waiter) = client.waiter() else {
            continue;
        };
        let fits = there.is_some_and(|kind| kind == awaited_type(&waiter));
        if !fits && !waiter.wants_missing() {
            continue;
        }
        if !waiter.hashes.iter().all(|&hash| db.holds(hash)) {
            return false;
        }
        if serve_one(server, db, &client, &waiter, all) {
            let id = client.id;
            db.shard_mut(key.hash)
                .waiting
                .remove(changed.database, key.bytes, |waiting| waiting.client == id);
        }
    }
    true
}

/// What a command waits for, by its family.
fn awaited_type(waiter: &Waiter) -> Type {
    match waiter.request.registered.command.group {
        Group::SortedSet => Type::SortedSet,
        Group::Stream => Type::Stream,
        _ => Type::List,
    }
}

/// Runs a waiting command. True if that ended its waiting.
fn serve_one(
    server: &Server,
    db: &mut Db<'_>,
    client: &Arc<Client>,
    waiter: &Waiter,
    all: &mut Changes,
) -> bool {
    let mut end = waiter.end.lock();
    if end.is_some() {
        return true;
    }
    // What is told so far comes before what the client says about itself.
    notify::tell_locked(server, db, &mut all.notices, Teller::Command);
    let mut reply = Reply::new(ReplyWriter::new(waiter.version));
    let command = waiter.request.registered.command;
    let changer = db.set_client(client.id);
    db.log_effects();
    db.begin();
    let args = waiter.request.args();
    let (outcome, failure) = match still_allowed(server, db, client, waiter, &args) {
        Ok(()) => {
            let outcome = attempt(server, waiter.no_touch, db, command, &args, &mut reply);
            if waiter.tracks {
                tracking::remember_for(server, client.id, db, command, &args);
            }
            (outcome, End::Failed)
        }
        Err(error) => (Err(error), End::Refused),
    };
    db.set_client(changer);
    all.absorb(std::mem::take(&mut db.changes));
    let how = match outcome {
        Ok(Progress::Wait { .. }) => return false,
        Ok(Progress::Done) => End::Answered(reply.len()),
        Err(error) => {
            reply.clear();
            reply.later = None;
            reply.error_bytes(error.as_bytes());
            server.metrics.count_error(error.code());
            failure
        }
    };
    if waiter.silent {
        reply.clear();
        reply.later = None;
    }
    *end = Some(how);
    client.leave_reply(reply.writer.into_output(), reply.later);
    true
}

/// Whether the waiting client's user may still run the command.
fn still_allowed(
    server: &Server,
    db: &Db<'_>,
    client: &Client,
    waiter: &Waiter,
    args: &Args<'_>,
) -> Result<(), Error> {
    let user = &waiter.user;
    user.may(waiter.request.registered, args, db.index())
        .map_err(|denial| {
            let (reason, object) = (denial.reason, &denial.object);
            acl::note_denial(server, client, reason, object, &user.name, "toplevel");
            denial.error(user)
        })
}

/// Serves those who wait for keys that changed where the dispatcher did not see it, or without the locks that the
/// waiters need. Nothing is locked.
#[cold]
pub fn serve_later(server: &Server, changes: &mut Changes) {
    for changed in std::mem::take(&mut changes.ready) {
        let unserved = serve_waiting(server, changes, changed);
        if !unserved.is_empty() {
            server.postponed.add(move |server| {
                let mut changes = Changes {
                    ready: unserved,
                    ..Changes::default()
                };
                server.settle(&mut changes);
            });
        }
    }
}

/// Serves those who wait for one key, and then those who wait for what that changed. Returns the keys for which it takes
/// locks that are held for long.
fn serve_waiting(server: &Server, changes: &mut Changes, changed: ChangedKey) -> Vec<ChangedKey> {
    let key = Key::new(&changed.key);
    let mut db = Db::new(&server.keyspace, changed.database, server::now());
    if db.try_lock(key.hash).is_err() || expand(server, &mut db, &[key]).is_err() {
        return vec![changed];
    }
    let mut serve_all = |db: &mut Db<'_>, ready| {
        db.changes.ready = ready;
        serve(server, db);
        db.unlock();
        changes.absorb(std::mem::take(&mut db.changes));
        std::mem::take(&mut changes.ready)
    };
    let left = serve_all(&mut db, vec![changed]);
    // If too many came and went meanwhile: all locks are always enough.
    if left.is_empty() || db.try_lock_all().is_err() {
        return left;
    }
    serve_all(&mut db, left)
}
