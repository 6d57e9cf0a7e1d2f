//! From a request to its reply: the gates, the locks, the handler, and what follows a change.
//!
//! A batch of pipelined requests is executed in three passes: parse and find the command, bring the keys' table
//! buckets and then their entries towards the cache, execute. The memory accesses of a batch overlap, which is what a
//! big keyspace gains most from.

pub mod args;
pub mod blocking;
pub mod command;
pub mod error;
pub mod keys;
pub mod memory;
pub mod preparation;
pub mod table;
pub mod transaction;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

use protocol::resp::reply::Version;
use storage::{
    Held,
    clock::Moment,
    db::{Db, Touch},
};

use self::{
    args::Args,
    command::{Command, Flag, Group, Place, Progress, Reply, Result, Run},
    error::Error,
    table::{OneKey, Registered},
};
use crate::{
    commands::acl,
    memcache::note::Note,
    metrics::{WorkerMetrics, command_log::Outcome},
    persistence::{snapshot, trouble::Trouble},
    scripting::stack,
    server::{self, Server},
    session::Session,
    tracking,
};

/// What the connection does after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Goes on with the next one.
    Go,
    /// Writes the rest of the reply first.
    Later,
    /// Does the work that is left, then runs the command again.
    Prepare,
    /// Runs the command again at this time (milliseconds since the epoch).
    Wait(i64),
    /// Does nothing until the command is served.
    Blocked,
    /// Runs the command again on a stack that can be left.
    Stack,
}

/// A request found in the input, before it runs.
#[derive(Clone, Copy)]
pub struct Found<'t> {
    pub registered: &'t Registered,
    /// The word that is the first key, and its hash.
    pub first_key: (usize, u64),
}

/// Finds the command of a request and hashes its first key, for the passes that prefetch.
#[inline]
pub fn find(args: &Args<'_>) -> Option<Found<'static>> {
    let registered = table::table().find(args.get(0)?)?;
    let first_key = registered
        .first_key
        .and_then(|index| Some((index, storage::hash::hash(args.get(index)?))))
        .unwrap_or(args::NO_KEY);
    Some(Found {
        registered,
        first_key,
    })
}

/// Executes one request and writes its reply. It is timed from the end of the one before, which is `clock`'s moment.
#[inline]
pub fn execute(
    session: &mut Session,
    db: &mut Db<'_>,
    metrics: &WorkerMetrics,
    clock: &mut Moment,
    found: Option<Found<'static>>,
    args: &Args<'_>,
    reply: &mut Reply,
) -> Next {
    let Some(found) = found else {
        let error = Error::unknown_command(args.word(0), args.from(1));
        fail(session, reply, &error);
        return Next::Go;
    };
    if let Some(handler) = found.registered.one_key
        && session.flags.are_plain()
        && session.user.is_unrestricted()
        && session.server.is_calm()
        && found.registered.command.arity.accepts(args.len())
    {
        let args = args.with_first_key(found.first_key);
        return execute_on_key(
            session,
            db,
            metrics,
            clock,
            found.registered,
            handler,
            &args,
            reply,
        );
    }
    execute_any(session, db, metrics, clock, found, args, reply)
}

/// Executes a command on one key that nothing stands in the way of: no gate is closed, and nobody is shown it. It does
/// what [`execute_any`] comes to then.
#[inline]
#[expect(
    clippy::too_many_arguments,
    reason = "a part of `execute`, apart to be read by itself"
)]
fn execute_on_key(
    session: &mut Session,
    db: &mut Db<'_>,
    metrics: &WorkerMetrics,
    clock: &mut Moment,
    registered: &'static Registered,
    handler: OneKey,
    args: &Args<'_>,
    reply: &mut Reply,
) -> Next {
    let command = registered.command;
    let metrics = &metrics.commands[registered.id];
    if session.server.keyspace.eviction.is_limited()
        && let Err(error) = memory::gate(session, db, command, args)
    {
        metrics.rejected.add(1);
        fail(session, reply, &error);
        return Next::Go;
    }
    let writes = matches!(handler, OneKey::Write(_));
    if writes && disk_is_behind(&session.server) {
        return Next::Wait(server::now().millis() + DISK_WAIT_MS);
    }
    let (mark, written) = (reply.mark(), reply.len());
    if let Err(error) = lock_key(session, db, registered, args, writes) {
        metrics.rejected.add(1);
        fail(session, reply, &error);
        return Next::Go;
    }
    db.set_touch(Touch::Yes);
    let outcome = catch_unwind(AssertUnwindSafe(|| match handler {
        OneKey::Read(handler) => handler(db, args, reply),
        OneKey::Write(handler) => handler(db, args, reply),
    }));
    let result = outcome.unwrap_or_else(|_| Err(panicked(&session.server)));
    // A command that runs again looks again.
    if !reply.wants_preparation() {
        db.settle_met();
    }
    db.collect_effects(|| result.is_ok().then(|| args.to_vec()));
    if !db.changes.ready.is_empty() {
        blocking::serve(&session.server, db);
    }
    db.unlock();
    db.count_changes();
    if !db.changes.is_quiet() {
        session.server.settle(&mut db.changes);
    }
    if reply.wants_preparation() {
        return Next::Prepare;
    }
    let outcome = Outcome {
        nanoseconds: clock.lap(),
        reply_bytes: reply.len().saturating_sub(written),
    };
    metrics.record(outcome.nanoseconds);
    let command_log = &session.server.command_log;
    command_log.note(command, args, &session.client, outcome);
    if let Err(error) = result {
        metrics.failed.add(1);
        reply.truncate(mark);
        reply.later = None;
        fail(session, reply, &error);
        return Next::Go;
    }
    if reply.later.is_some() {
        Next::Later
    } else {
        Next::Go
    }
}

/// Locks the key of a command on one, and what those need who wait for it.
#[inline]
fn lock_key(
    session: &Session,
    db: &mut Db<'_>,
    registered: &'static Registered,
    args: &Args<'_>,
    writes: bool,
) -> Result {
    let mut locked = db.try_lock(args.key(1).hash);
    if writes && locked.is_ok() && session.server.has_waiting() {
        locked = blocking::expand_for(&session.server, db, registered.command, args);
    }
    locked.map_err(|Held| session.server.scripting.slow.busy())
}

/// Executes any command, whatever state the connection and the server are in.
fn execute_any(
    session: &mut Session,
    db: &mut Db<'_>,
    metrics: &WorkerMetrics,
    clock: &mut Moment,
    found: Found<'static>,
    args: &Args<'_>,
    reply: &mut Reply,
) -> Next {
    let mark = reply.mark();
    let registered = match resolve(found.registered, args) {
        Ok(registered) => registered,
        Err((registered, error)) => {
            metrics.commands[registered.id].rejected.add(1);
            let error = refuse_exec(session, registered, error);
            fail(session, reply, &error);
            return Next::Go;
        }
    };
    let args = args.with_first_key(found.first_key);
    match admit(session, db, registered, &args, reply) {
        Ok(Gate::Open) => {}
        Ok(Gate::Queued) => {
            if session.flags.replies_off || session.flags.skip_next {
                skip_reply(session, registered.command, reply, mark);
            }
            return Next::Go;
        }
        Ok(Gate::Wait(until)) => return Next::Wait(until),
        Err(error) => {
            metrics.commands[registered.id].rejected.add(1);
            let error = refuse_exec(session, registered, error);
            fail(session, reply, &error);
            return Next::Go;
        }
    }
    if !found.registered.subcommands.is_empty() {
        session.client.note_command(registered.id);
    }
    if wants_stack(session, registered.command) {
        return Next::Stack;
    }
    let written = reply.len();
    let result = run(session, db, metrics, registered, &args, reply);
    if reply.wants_preparation() {
        return Next::Prepare;
    }
    let metrics = &metrics.commands[registered.id];
    let nanoseconds = clock.lap();
    metrics.record(nanoseconds);
    let outcome = Outcome {
        nanoseconds,
        reply_bytes: reply.len().saturating_sub(written),
    };
    let command_log = &session.server.command_log;
    command_log.note(registered.command, &args, &session.client, outcome);
    if session.server.monitors.is_on() {
        let (monitors, database) = (&session.server.monitors, session.database);
        monitors.show(registered.command, &args, database, &session.client);
    }
    if session.flags.caching && !session.flags.in_transaction {
        session.flags.caching = found.registered.command.name == "CLIENT";
    }
    if let Err(mut error) = result {
        if error == Error::BUSY {
            error = session.server.scripting.slow.busy();
        }
        metrics.failed.add(1);
        reply.truncate(mark);
        reply.later = None;
        fail(session, reply, &error);
        return Next::Go;
    }
    if session.waiter.is_some() {
        return Next::Blocked;
    }
    if let Some(at) = session.retry_at.take() {
        reply.truncate(mark);
        return Next::Wait(at);
    }
    if session.flags.replies_off || session.flags.skip_next {
        skip_reply(session, registered.command, reply, mark);
    }
    if reply.later.is_some() {
        Next::Later
    } else {
        Next::Go
    }
}

/// The subcommand, if the command has any, with its words' number checked.
#[inline]
pub fn resolve<'t>(
    registered: &'t Registered,
    args: &Args<'_>,
) -> std::result::Result<&'t Registered, (&'t Registered, Error)> {
    let mut resolved = registered;
    if !registered.subcommands.is_empty() && args.len() > 1 {
        resolved = registered.subcommand(args.word(1)).ok_or_else(|| {
            (
                registered,
                Error::unknown_subcommand(registered.command.name, args.word(1)),
            )
        })?;
    }
    if resolved.command.arity.accepts(args.len()) && !matches!(resolved.command.run, Run::Container)
    {
        Ok(resolved)
    } else {
        Err((resolved, Error::wrong_arity(&resolved.full_name)))
    }
}

/// How long a command that writes waits for a disk that is behind, before it asks again.
pub const DISK_WAIT_MS: i64 = 10;
/// Whether so much waits to be written that who changes data should wait.
#[inline]
pub fn disk_is_behind(server: &Server) -> bool {
    server.aof.is_behind() || snapshot::is_behind(server)
}

enum Gate {
    Open,
    /// The transaction keeps it.
    Queued,
    /// It may not run before this time.
    Wait(i64),
}

/// May the command run now?
#[inline]
fn admit(
    session: &mut Session,
    db: &mut Db<'_>,
    registered: &'static Registered,
    args: &Args<'_>,
    reply: &mut Reply,
) -> Result<Gate> {
    let command = registered.command;
    if session.flags.loads {
        // It was let in when it was logged.
        return match session.flags.in_transaction {
            true => commands_in_transaction(session, registered, args, reply),
            false => Ok(Gate::Open),
        };
    }
    if !session.flags.authenticated && !command.has(Flag::NoAuth) {
        return Err(Error::NO_AUTH);
    }
    if !session.user.is_unrestricted() {
        check_permissions(session, db, registered, args)?;
    }
    if session.flags.monitors && touches_data(command) {
        return Err(Error::general("Replica can't interact with the keyspace"));
    }
    if refused_while_loading(session, command) {
        return Err(Error::LOADING);
    }
    if session.server.scripting.slow.any() && refused_while_busy(session, command) {
        return Err(session.server.scripting.slow.busy());
    }
    if session.flags.subscribed && session.version == Version::Resp2 {
        subscribers_may(registered)?;
    }
    if session.server.pause.is_on()
        && let Some(until) = paused(session, db, command)
    {
        return Ok(Gate::Wait(until));
    }
    if let Some(trouble) = Trouble::now(&session.server)
        && refused_unsaved(session, command)
    {
        return Err(trouble.error());
    }
    if session.server.keyspace.eviction.is_limited() {
        memory::gate(session, db, command, args)?;
    }
    if session.server.replication.concerns_writes() {
        check_replication(session, command)?;
    }
    if session.flags.in_transaction {
        return commands_in_transaction(session, registered, args, reply);
    }
    if command.is_write() && disk_is_behind(&session.server) {
        // The disk is slow: who writes waits for it, so that what waits for it stays bounded.
        return Ok(Gate::Wait(server::now().millis() + DISK_WAIT_MS));
    }
    Ok(Gate::Open)
}

/// Whether a command may not run since its data is being loaded.
#[inline]
fn refused_while_loading(session: &Session, command: &Command) -> bool {
    let loading = &session.server.loading;
    loading.is_active() && !command.has(Flag::Loading)
        || loading.is_beside() && has_or_queues(session, command, Flag::NoAsyncLoading)
}

/// Whether a command may not run since a script runs for too long. Commands on keys may: they find out whether the
/// script holds the locks of these. Others wait for all of it to end, as all clients of the reference server do.
#[cold]
fn refused_while_busy(session: &Session, command: &Command) -> bool {
    let works_on_keys = match command.run {
        Run::Read(_) | Run::Write(_) | Run::Blocking(_) => !command.keys.is_empty(),
        Run::Exec => session
            .transaction
            .as_ref()
            .is_some_and(|queue| !queue.has_scripts()),
        Run::Session(_) | Run::Server(_) | Run::Script(_) | Run::Container => false,
    };
    !works_on_keys && !command.has(Flag::AllowBusy) && !session.repeats()
}

/// Whether the session's user may run the command.
#[cold]
fn check_permissions(
    session: &Session,
    db: &Db<'_>,
    registered: &Registered,
    args: &Args<'_>,
) -> Result {
    let context = if session.flags.in_transaction {
        "multi"
    } else {
        "toplevel"
    };
    acl::check(session, db, registered, args, context)
        .map_err(|denial| denial.error(&session.user))?;
    if registered.command.name.starts_with("SORT") {
        acl::check_sort_patterns(session, args)?;
    }
    Ok(())
}

fn touches_data(command: &Command) -> bool {
    command.is_write() || command.has(Flag::ReadOnly) || command.has(Flag::MayReplicate)
}

/// What a replica, and a primary that wants replicas, refuse.
#[cold]
fn check_replication(session: &Session, command: &Command) -> Result {
    if command.is_write() {
        return check_writes(session);
    }
    let server = &session.server;
    let stale = server.replication.is_stale() && !session.flags.from_primary;
    if stale && !command.has(Flag::Stale) && !server.config.settings().replica_serve_stale_data {
        return Err(Error::PRIMARY_DOWN);
    }
    Ok(())
}

/// Whether the session may write, as far as replication goes.
///
/// # Errors
/// This server is a replica, or has too few.
#[cold]
pub fn check_writes(session: &Session) -> Result {
    let server = &session.server;
    let replication = &server.replication;
    let settings = server.config.settings();
    if session.flags.from_primary {
        return Ok(());
    }
    if replication.is_replica() {
        return match settings.replica_read_only {
            true => Err(Error::READ_ONLY),
            false => Ok(()),
        };
    }
    let wanted = settings.min_replicas_to_write as usize;
    let lag = i64::from(settings.min_replicas_max_lag);
    if wanted > 0 && lag > 0 && replication.good_replicas(lag) < wanted {
        return Err(Error::NO_REPLICAS);
    }
    Ok(())
}

/// In RESP2 a subscriber could not tell replies from messages, so few commands are allowed.
#[cold]
fn subscribers_may(registered: &Registered) -> Result {
    const ALLOWED: [&str; 9] = [
        "PING",
        "SUBSCRIBE",
        "SSUBSCRIBE",
        "UNSUBSCRIBE",
        "SUNSUBSCRIBE",
        "PSUBSCRIBE",
        "PUNSUBSCRIBE",
        "QUIT",
        "RESET",
    ];
    if ALLOWED.contains(&registered.command.name) {
        return Ok(());
    }
    Err(Error::general(format!(
        "Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
        registered.full_name
    )))
}

/// Whether a command may not run while the disk fails: it would change what may get lost. PING tells health checks so.
#[cold]
fn refused_unsaved(session: &Session, command: &Command) -> bool {
    let refuses = command.is_write() || command.name == "PING" || exec_writes(session, command);
    refuses && !session.repeats()
}

/// Whether it is such a command, or the EXEC of a transaction with one.
fn has_or_queues(session: &Session, command: &Command, flag: Flag) -> bool {
    let transaction = session.transaction.as_ref();
    command.has(flag)
        || matches!(command.run, Run::Exec) && transaction.is_some_and(|queue| queue.has(flag))
}

/// Whether it is the EXEC of a transaction that changes data.
fn exec_writes(session: &Session, command: &Command) -> bool {
    let transaction = session.transaction.as_ref();
    matches!(command.run, Run::Exec) && transaction.is_some_and(|queue| queue.writes())
}

/// Whether the command may run for long, and so has to run where it can make way for others.
#[inline]
fn wants_stack(session: &Session, command: &Command) -> bool {
    let runs_scripts = match command.run {
        Run::Script(_) => true,
        Run::Exec => session
            .transaction
            .as_ref()
            .is_some_and(|queue| queue.has_scripts()),
        _ => return false,
    };
    runs_scripts && stack::is_missing()
}

/// Until when CLIENT PAUSE holds a command back.
#[cold]
fn paused(session: &Session, db: &Db<'_>, command: &Command) -> Option<i64> {
    let writes =
        command.is_write() || command.has(Flag::MayReplicate) || exec_writes(session, command);
    session.server.pause.until(db.now().millis(), writes)
}

/// EXEC that is refused ends its transaction all the same.
#[cold]
fn refuse_exec(session: &mut Session, registered: &Registered, error: Error) -> Error {
    if !matches!(registered.command.run, Run::Exec) {
        return error;
    }
    session.leave_transaction();
    Error::exec_refused(&error)
}

/// Between MULTI and EXEC commands are queued, but for those that end or steer the transaction.
#[cold]
fn commands_in_transaction(
    session: &mut Session,
    registered: &'static Registered,
    args: &Args<'_>,
    reply: &mut Reply,
) -> Result<Gate> {
    if ["EXEC", "DISCARD", "QUIT", "RESET"].contains(&registered.command.name) {
        return Ok(Gate::Open);
    }
    if registered.command.has(Flag::NoMulti) {
        return Err(Error::not_in_transaction(&registered.full_name));
    }
    let limit = match session.repeats() {
        true => u64::MAX,
        false => session.server.config.settings().client_query_buffer_limit,
    };
    let queued = transaction::Queued::new(registered, args);
    let transaction = session.transaction.get_or_insert_default();
    let count = transaction.push(queued, limit)?;
    let client = &session.client;
    client.queued.store(count as i32, Ordering::Relaxed);
    let queued_bytes = transaction.queued_bytes();
    client
        .held
        .queued_bytes
        .store(queued_bytes, Ordering::Relaxed);
    client.account();
    reply.queued();
    Ok(Gate::Queued)
}

/// Runs a command's handler under the locks of its keys, then settles what it changed.
#[inline]
fn run(
    session: &mut Session,
    db: &mut Db<'_>,
    metrics: &WorkerMetrics,
    registered: &'static Registered,
    args: &Args<'_>,
    reply: &mut Reply,
) -> Result {
    let command = registered.command;
    if !matches!(command.run, Run::Read(_) | Run::Write(_)) {
        // It may be about what the commands before it counted.
        db.flush_statistics();
    }
    match command.run {
        Run::Session(_) | Run::Container => call_any(session, db, command, args, reply),
        Run::Server(_) | Run::Script(_) => {
            db.begin();
            let result = call_any(session, db, command, args, reply);
            db.unlock();
            session.server.settle(&mut db.changes);
            result
        }
        Run::Exec => transaction::exec(session, db, metrics, reply),
        Run::Read(_) | Run::Write(_) | Run::Blocking(_) => {
            while lock(db, command, args).is_err() {
                stand_back(session)?;
            }
            if session.server.has_waiting() && !matches!(command.run, Run::Read(_)) {
                while blocking::expand_for(&session.server, db, command, args).is_err() {
                    stand_back(session)?;
                    db.lock_all();
                }
            }
            let result = if matches!(command.run, Run::Blocking(_)) {
                call_or_wait(session, db, registered, args, reply)
            } else {
                call(session, db, command, args, reply)
            };
            if session.flags.tracks_reads && command.has(Flag::ReadOnly) {
                tracking::remember(session, db, command, args);
            }
            if !db.changes.ready.is_empty() {
                blocking::serve(&session.server, db);
            }
            db.unlock();
            if db.changes.dirty > 0 || !db.changes.is_quiet() {
                session.server.settle(&mut db.changes);
            }
            result
        }
    }
}

/// Calls a handler of any kind under the locks that are held.
pub(crate) fn call_any(
    session: &mut Session,
    db: &mut Db<'_>,
    command: &Command,
    args: &Args<'_>,
    reply: &mut Reply,
) -> Result {
    match command.run {
        Run::Read(_) | Run::Write(_) | Run::Blocking(_) => call(session, db, command, args, reply),
        Run::Session(_) if session.repeats() && Note::read(args).is_some() => {
            Note::read(args).into_iter().for_each(|note| note.apply(db));
            Ok(())
        }
        Run::Session(handler) => {
            let result = guarded(session, |session| handler(session, args, reply));
            db.select(session.database);
            result
        }
        Run::Server(handler) | Run::Script(handler) => {
            if session.server.monitors.is_on() && matches!(command.run, Run::Script(_)) {
                let (monitors, database) = (&session.server.monitors, session.database);
                monitors.show_script(command, args, database, &session.client);
            }
            let result = guarded(session, |session| handler(session, db, args, reply));
            db.collect_effects(|| result.is_ok().then(|| args.to_vec()));
            db.select(session.database);
            result
        }
        Run::Exec | Run::Container => Err(Error::wrong_arity(&command.name.to_ascii_lowercase())),
    }
}

/// How long who must obey waits for a lock that is held for long, before it tries again.
const STAND_BACK: Duration = Duration::from_millis(5);

/// Locks were held by a script that runs for too long. Who must obey tries again; this waits a little for that.
///
/// # Errors
/// `BUSY` for everybody else.
#[cold]
pub fn stand_back(session: &Session) -> Result {
    if session.repeats() {
        thread::sleep(STAND_BACK);
        return Ok(());
    }
    Err(session.server.scripting.slow.busy())
}

/// Locks the shards of the command's keys; none for commands without keys, which walk the shards one by one.
#[inline]
fn lock(db: &mut Db<'_>, command: &Command, args: &Args<'_>) -> std::result::Result<(), Held> {
    match command.keys {
        [] => db.begin(),
        [keys] if matches!(keys.place, Place::At(_)) => {
            let Place::At(index) = keys.place else {
                unreachable!("matched above")
            };
            db.try_lock(args.key(index).hash)?;
        }
        _ if keys::wants_all_shards(command, args) => db.try_lock_all()?,
        _ => {
            let mut hashes = smallvec::SmallVec::<[u64; 16]>::new();
            keys::each_key(command, args, |index, _| hashes.push(args.key(index).hash));
            db.try_lock_each(hashes.into_iter())?;
        }
    }
    Ok(())
}

/// Calls a handler that may find nothing yet; then the session waits.
fn call_or_wait(
    session: &mut Session,
    db: &mut Db<'_>,
    registered: &'static Registered,
    args: &Args<'_>,
    reply: &mut Reply,
) -> Result {
    let (server, no_touch) = (&session.server, session.flags.no_touch);
    match attempt(server, no_touch, db, registered.command, args, reply)? {
        Progress::Done => {}
        // What was logged waited for nothing.
        Progress::Wait { .. } if session.flags.loads => {}
        Progress::Wait { timeout_ms, .. } => {
            let words = std::mem::take(&mut reply.replaced_words);
            blocking::wait(session, db, registered, args, timeout_ms, &words);
        }
    }
    Ok(())
}

/// Calls a handler of data under locks that are held. EXEC and scripts come in here: a command that finds nothing
/// answers so.
#[inline]
pub fn call(
    session: &Session,
    db: &mut Db<'_>,
    command: &Command,
    args: &Args<'_>,
    reply: &mut Reply,
) -> Result {
    let (server, no_touch) = (&session.server, session.flags.no_touch);
    if let Progress::Wait { nothing, .. } = attempt(server, no_touch, db, command, args, reply)? {
        nothing.write(reply);
    }
    Ok(())
}

/// Calls a handler of data, once, under locks that are held.
#[inline]
pub fn attempt(
    server: &Server,
    no_touch: bool,
    db: &mut Db<'_>,
    command: &Command,
    args: &Args<'_>,
    reply: &mut Reply,
) -> Result<Progress> {
    db.set_touch(if no_touch && command.name != "TOUCH" {
        Touch::No
    } else {
        Touch::Yes
    });
    let outcome = catch_unwind(AssertUnwindSafe(|| match command.run {
        Run::Read(handler) => handler(db, args, reply).map(|()| Progress::Done),
        Run::Write(handler) => handler(db, args, reply).map(|()| Progress::Done),
        Run::Blocking(handler) => {
            reply.replaced_words.clear();
            handler(db, args, reply)
        }
        Run::Session(_) | Run::Server(_) | Run::Script(_) | Run::Exec | Run::Container => {
            Err(Error::general("this command is not allowed here"))
        }
    }));
    let result = outcome.unwrap_or_else(|_| Err(panicked(server)));
    // A command that runs again looks again.
    if !reply.wants_preparation() {
        db.settle_met();
    }
    db.collect_effects(|| result.is_ok().then(|| args.to_vec()));
    result
}

fn guarded(session: &mut Session, work: impl FnOnce(&mut Session) -> Result) -> Result {
    let outcome = catch_unwind(AssertUnwindSafe(|| work(session)));
    outcome.unwrap_or_else(|_| Err(panicked(&session.server)))
}

/// One bad command must not take the worker down: it answers an error and is counted.
#[cold]
fn panicked(server: &Server) -> Error {
    server.metrics.panics.fetch_add(1, Ordering::Relaxed);
    Error::general("internal error: the command was abandoned")
}

/// Writes an error reply, counts it, and spoils the transaction it happened in.
#[cold]
pub fn fail(session: &mut Session, reply: &mut Reply, error: &Error) {
    let mark = reply.mark();
    session.server.metrics.count_error(error.code());
    if session.flags.in_transaction
        && let Some(transaction) = session.transaction.as_mut()
        && !error.code().starts_with(b"EXECABORT")
    {
        transaction.failed = true;
    }
    reply.error_bytes(error.as_bytes());
    if session.flags.replies_off || session.flags.skip_next {
        session.flags.skip_next = false;
        reply.truncate(mark);
    }
}

/// CLIENT REPLY OFF and SKIP: the reply is not sent.
#[cold]
fn skip_reply(
    session: &mut Session,
    command: &Command,
    reply: &mut Reply,
    mark: protocol::output::Mark,
) {
    // CLIENT REPLY itself decides what it answers, and SKIP is for the command after it.
    if command.name == "REPLY" {
        return;
    }
    session.flags.skip_next = false;
    // What confirms a subscription is a message like those that follow, not a reply.
    let confirms = command.name.ends_with("SUBSCRIBE") && command.group == Group::PubSub;
    if !confirms {
        reply.truncate(mark);
        reply.later = None;
    }
}

/// A view of the session's database at this moment.
pub fn open_db(server: &Server, database: usize) -> Db<'_> {
    Db::new(&server.keyspace, database, server::now())
}
