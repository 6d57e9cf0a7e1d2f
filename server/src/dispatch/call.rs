//! Calls of handlers: under which locks, and what follows a handler before they are released.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

use storage::{
    Held,
    db::{Db, Touch},
};

use super::{
    args::Args,
    blocking,
    command::{Command, Place, Progress, Reply, Result, Run},
    error::Error,
    keys,
    table::{OneKey, Registered},
    transaction,
};
use crate::{memcache::note::Note, server::Server, session::Session, tracking};

/// Runs the handler of a command on one key under the key's lock, then settles what it changed.
///
/// # Errors
/// Outside, `BUSY`: the lock is held for long, and nothing ran. Inside, the command's own.
#[inline(always)]
pub(super) fn run_on_key(
    session: &Session,
    db: &mut Db<'_>,
    registered: &'static Registered,
    handler: OneKey,
    args: &Args<'_>,
    reply: &mut Reply,
) -> Result<Result> {
    let server = &session.server;
    db.try_lock(args.key(1).hash)?;
    if matches!(handler, OneKey::Write(_)) && server.has_waiting() {
        blocking::expand_for(server, db, registered.command, args)?;
    }
    db.set_touch(Touch::Yes);
    let result = guarded(server, db, args, reply, |db, reply| match handler {
        OneKey::Read(handler) => handler(db, args, reply),
        OneKey::Write(handler) => handler(db, args, reply),
    });
    release(server, db);
    Ok(result)
}

/// Runs a command's handler under the locks of its keys, then settles what it changed.
#[inline]
pub(super) fn run(
    session: &mut Session,
    db: &mut Db<'_>,
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
            release(&session.server, db);
            result
        }
        Run::Exec => {
            // What a queued command is denied now is denied to EXEC.
            session.client.note_command(registered.id);
            transaction::exec(session, db, reply)
        }
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
            if session.flags.tracks_reads {
                tracking::remember(session, db, command, args);
            }
            release(&session.server, db);
            result
        }
    }
}

/// Serves those who wait for what a command changed, releases its locks, and tells everybody else what it did.
#[inline(always)]
pub fn release(server: &Server, db: &mut Db<'_>) {
    if !db.changes.ready.is_empty() {
        blocking::serve(server, db);
    }
    db.unlock();
    if !db.changes.is_quiet() {
        server.settle(&mut db.changes);
    }
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
            db.try_lock_each(hashes.iter().copied())?;
            db.prefetch_each(&hashes);
        }
    }
    Ok(())
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
    Err(Error::BUSY)
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
            let result = survived(session, |session| handler(session, args, reply));
            db.select(session.database);
            result
        }
        Run::Server(handler) | Run::Script(handler) => {
            if session.server.monitors.is_on() && matches!(command.run, Run::Script(_)) {
                let (monitors, database) = (&session.server.monitors, session.database);
                monitors.show_script(args, database, &session.client);
            }
            let result = survived(session, |session| handler(session, db, args, reply));
            db.collect_effects(result.is_ok().then(|| args.from(0)));
            db.select(session.database);
            result
        }
        Run::Exec | Run::Container => Err(Error::wrong_arity(&command.name.to_ascii_lowercase())),
    }
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
    guarded(server, db, args, reply, |db, reply| match command.run {
        Run::Read(handler) => handler(db, args, reply).map(|()| Progress::Done),
        Run::Write(handler) => handler(db, args, reply).map(|()| Progress::Done),
        Run::Blocking(handler) => {
            reply.replaced_words.clear();
            handler(db, args, reply)
        }
        Run::Session(_) | Run::Server(_) | Run::Script(_) | Run::Exec | Run::Container => {
            Err(Error::general("this command is not allowed here"))
        }
    })
}

/// Calls a handler of data that may panic, then deletes what it met expired and collects what it has for the log.
#[inline(always)]
fn guarded<R>(
    server: &Server,
    db: &mut Db<'_>,
    args: &Args<'_>,
    reply: &mut Reply,
    handler: impl FnOnce(&mut Db<'_>, &mut Reply) -> Result<R>,
) -> Result<R> {
    let outcome = catch_unwind(AssertUnwindSafe(|| handler(db, reply)));
    let result = outcome.unwrap_or_else(|_| Err(panicked(server)));
    // A command that runs again looks again.
    if !reply.wants_preparation() {
        db.settle_met();
    }
    debug_assert!(
        result.is_ok() || db.changes.tells_all(),
        "{} fails after a change that nobody is told of",
        args.word(0).escape_ascii()
    );
    db.collect_effects(result.is_ok().then(|| args.from(0)));
    result
}

/// Calls a handler of no data that may panic.
fn survived(session: &mut Session, work: impl FnOnce(&mut Session) -> Result) -> Result {
    let outcome = catch_unwind(AssertUnwindSafe(|| work(session)));
    outcome.unwrap_or_else(|_| Err(panicked(&session.server)))
}

/// One bad command must not take the worker down: it answers an error and is counted.
#[cold]
fn panicked(server: &Server) -> Error {
    server.metrics.panics.fetch_add(1, Ordering::Relaxed);
    Error::general("internal error: the command was abandoned")
}
