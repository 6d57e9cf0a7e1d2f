//! From a request to its reply: the gates, the locks, the handler, and what follows a change.
//!
//! A batch of pipelined requests is executed in three passes: parse and find the command, bring the keys' table
//! buckets and then their entries towards the cache, execute. The memory accesses of a batch overlap, which is what a
//! big keyspace gains most from.

pub mod args;
pub mod blocking;
pub mod call;
pub mod command;
pub mod error;
pub mod gates;
pub mod keys;
pub mod memory;
pub mod preparation;
pub mod table;
pub mod transaction;

use protocol::{output::Mark, resp::request::Span};
use storage::{clock::Moment, db::Db};

use self::{
    args::Args,
    command::{Command, Group, Reply, Result, Run},
    error::Error,
    gates::Gate,
    table::{OneKey, Registered},
};
use crate::{
    metrics::command_log::Outcome, replication::own_keys, scripting::stack, server,
    session::Session,
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

impl Found<'_> {
    /// The words of the request, of which the first key is hashed.
    #[inline(always)]
    pub fn args<'a>(self, input: &'a [u8], spans: &'a [Span]) -> Args<'a> {
        Args::new(input, spans).with_first_key(self.first_key)
    }

    /// The hash of the first key, if there is one.
    #[inline(always)]
    pub fn first_hash(self) -> Option<u64> {
        (self.first_key != args::NO_KEY).then_some(self.first_key.1)
    }
}

/// Finds the command of a request and hashes its first key, for the passes that prefetch.
#[inline]
pub fn find(args: &Args<'_>) -> Option<Found<'static>> {
    Some(found_as(table::table().find(args.get(0)?)?, args))
}

/// As [`find`], of a request whose command is known.
#[inline(always)]
pub fn found_as(registered: &'static Registered, args: &Args<'_>) -> Found<'static> {
    let first_key = registered
        .first_key
        .and_then(|index| Some((index, storage::hash::hash(args.get(index)?))))
        .unwrap_or(args::NO_KEY);
    Found {
        registered,
        first_key,
    }
}

/// Executes one request, whose words know the first key that was found with it, and writes its reply. It is timed from the
/// end of the one before, which is `clock`'s moment.
#[inline]
pub fn execute(
    session: &mut Session,
    db: &mut Db<'_>,
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
        return execute_on_key(session, db, clock, found.registered, handler, args, reply);
    }
    execute_any(session, db, clock, found, args, reply)
}

/// Executes a command on one key that nothing stands in the way of: no gate is closed, and nobody is shown it. It does
/// what [`execute_any`] comes to then.
#[inline]
fn execute_on_key(
    session: &mut Session,
    db: &mut Db<'_>,
    clock: &mut Moment,
    registered: &'static Registered,
    handler: OneKey,
    args: &Args<'_>,
    reply: &mut Reply,
) -> Next {
    if session.server.keyspace.eviction.is_limited()
        && let Err(error) = memory::gate(session, db, registered.command, args)
    {
        return reject(session, registered, reply, error);
    }
    if matches!(handler, OneKey::Write(_)) && gates::disk_is_behind(&session.server) {
        return Next::Wait(server::now().millis() + gates::DISK_WAIT_MS);
    }
    let begun = Begun::at(reply);
    match call::run_on_key(session, db, registered, handler, args, reply) {
        Ok(result) => conclude(session, clock, registered, args, reply, begun, result),
        Err(error) => reject(session, registered, reply, error),
    }
}

/// Executes any command, whatever state the connection and the server are in.
fn execute_any(
    session: &mut Session,
    db: &mut Db<'_>,
    clock: &mut Moment,
    found: Found<'static>,
    args: &Args<'_>,
    reply: &mut Reply,
) -> Next {
    let begun = Begun::at(reply);
    let registered = match resolve(found.registered, args) {
        Ok(registered) => registered,
        Err((Some(registered), error)) => {
            session.client.note_command(registered.id);
            return reject(session, registered, reply, error);
        }
        Err((None, error)) => {
            session.client.note_no_command();
            fail(session, reply, &error);
            return Next::Go;
        }
    };
    if !found.registered.subcommands.is_empty() {
        session.client.note_command(registered.id);
    }
    match gates::admit(session, db, registered, args, reply) {
        Ok(Gate::Open) => {}
        Ok(Gate::Queued) => {
            skip_reply(session, registered.command, reply, begun);
            return Next::Go;
        }
        Ok(Gate::Wait(until)) => return Next::Wait(until),
        Err(error) => return reject(session, registered, reply, error),
    }
    if wants_stack(session, registered.command) {
        return Next::Stack;
    }
    let own = own_keys::touched(session, registered.command, args);
    let result = call::run(session, db, registered, args, reply);
    if !own.is_empty() {
        let noted = &session.server.replication.own_keys;
        noted.note(&session.server, own);
    }
    if result == Err(Error::BUSY) {
        begun.undo(reply);
        return reject(session, registered, reply, Error::BUSY);
    }
    if let Some(at) = session.retry_at.take() {
        begun.undo(reply);
        return Next::Wait(at.get());
    }
    let next = conclude(session, clock, registered, args, reply, begun, result);
    if next == Next::Prepare {
        return next;
    }
    if session.flags.caching && !session.flags.in_transaction {
        session.flags.caching = found.registered.command.name == "CLIENT";
    }
    if session.waiter.is_some() {
        return Next::Blocked;
    }
    match skip_reply(session, registered.command, reply, begun) {
        true => Next::Go,
        false => next,
    }
}

/// The subcommand, if the command has any, with its words' number checked.
///
/// # Errors
/// The command that has too few words or too many, or none if there is no such subcommand, and what to answer.
#[inline]
pub fn resolve<'t>(
    registered: &'t Registered,
    args: &Args<'_>,
) -> std::result::Result<&'t Registered, (Option<&'t Registered>, Error)> {
    let mut resolved = registered;
    if !registered.subcommands.is_empty() && args.len() > 1 {
        resolved = registered.subcommand(args.word(1)).ok_or_else(|| {
            (
                None,
                Error::unknown_subcommand(registered.command.name, args.word(1)),
            )
        })?;
    }
    if resolved.command.arity.accepts(args.len()) && !matches!(resolved.command.run, Run::Container)
    {
        Ok(resolved)
    } else {
        Err((Some(resolved), Error::wrong_arity(&resolved.full_name)))
    }
}

/// Whether the command may run for long, and so has to run where it can make way for others.
#[inline]
fn wants_stack(session: &Session, command: &Command) -> bool {
    matches!(command.run, Run::Script(_) | Run::Exec)
        && stack::is_missing()
        && gates::concerns(session, command, |command| {
            matches!(command.run, Run::Script(_))
        })
}

/// Where a command's reply begins.
#[derive(Clone, Copy)]
struct Begun {
    mark: Mark,
    len: usize,
}

impl Begun {
    #[inline]
    fn at(reply: &Reply) -> Begun {
        Begun {
            mark: reply.mark(),
            len: reply.len(),
        }
    }

    /// Takes back what was written since.
    fn undo(self, reply: &mut Reply) {
        reply.truncate(self.mark);
        reply.later = None;
    }
}

/// Ends a command that ran: counts it, notes it where it stands out or is to be shown, and answers its error.
#[inline(always)]
fn conclude(
    session: &mut Session,
    clock: &mut Moment,
    registered: &Registered,
    args: &Args<'_>,
    reply: &mut Reply,
    begun: Begun,
    result: Result,
) -> Next {
    if reply.wants_preparation() {
        return Next::Prepare;
    }
    let outcome = Outcome {
        nanoseconds: clock.lap(),
        reply_bytes: reply.len().saturating_sub(begun.len),
    };
    match &session.waiter {
        None => {
            session.count_command(registered, outcome.nanoseconds);
            session
                .server
                .command_log
                .note(registered.command, args, &session.client, outcome);
        }
        // It is counted and noted when its waiting ends.
        Some(waiter) => waiter.note_attempt(outcome.nanoseconds),
    }
    let server = &session.server;
    if server.monitors.is_on() {
        let client = &session.client;
        server
            .monitors
            .show(registered.command, args, session.database, client);
    }
    if let Err(error) = result {
        session.metrics.commands[registered.id].failed.add(1);
        if matches!(registered.command.run, Run::Script(_)) && !reply.error_is_counted {
            server.metrics.count_invented_error(error.code());
            reply.error_is_counted = true;
        }
        begun.undo(reply);
        fail(session, reply, &error);
        return Next::Go;
    }
    match reply.later {
        Some(_) => Next::Later,
        None => Next::Go,
    }
}

/// Ends a command that did not run. An EXEC ends its transaction all the same.
#[cold]
fn reject(
    session: &mut Session,
    registered: &Registered,
    reply: &mut Reply,
    mut error: Error,
) -> Next {
    session.metrics.commands[registered.id].rejected.add(1);
    if error == Error::BUSY {
        error = session.server.scripting.slow.busy();
    }
    if matches!(registered.command.run, Run::Exec) {
        session.leave_transaction();
        if error.code() != b"REDIRECT" {
            error = Error::exec_refused(&error);
        }
    }
    fail(session, reply, &error);
    Next::Go
}

/// Writes an error reply, counts it, and spoils the transaction it happened in.
#[cold]
pub fn fail(session: &mut Session, reply: &mut Reply, error: &Error) {
    let mark = reply.mark();
    if !std::mem::take(&mut reply.error_is_counted) {
        session.server.metrics.count_error(error.code());
    }
    if session.flags.in_transaction
        && let Some(transaction) = session.transaction.as_mut()
        && !error.code().starts_with(b"EXECABORT")
    {
        transaction.failed = true;
    }
    // A MIGRATE that was refused when it ran again is not asked any more what came of it.
    session.migration = None;
    reply.error_bytes(error.as_bytes());
    if session.flags.replies_off || session.flags.skip_next {
        session.flags.skip_next = false;
        reply.truncate(mark);
    }
}

/// CLIENT REPLY OFF and SKIP: takes a reply back. Whether it did.
fn skip_reply(session: &mut Session, command: &Command, reply: &mut Reply, begun: Begun) -> bool {
    if !(session.flags.replies_off || session.flags.skip_next) {
        return false;
    }
    // CLIENT REPLY itself decides what it answers, and SKIP is for the command after it.
    if command.name == "REPLY" {
        return false;
    }
    session.flags.skip_next = false;
    // What confirms a subscription is a message like those that follow, not a reply.
    let confirms = !session.flags.in_transaction
        && command.name.ends_with("SUBSCRIBE")
        && command.group == Group::PubSub;
    if confirms {
        return false;
    }
    begun.undo(reply);
    true
}
