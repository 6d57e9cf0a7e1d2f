//! The gates: whether a command may run now, where it is sent in a transaction it is queued.
//!
//! EXEC runs what is queued, so it may run only if each of those may.

use std::sync::atomic::Ordering;

use protocol::resp::reply::Version;
use storage::db::Db;

use super::{
    args::Args,
    command::{Command, Flag, Reply, Result, Run},
    error::Error,
    memory,
    table::Registered,
    transaction,
};
use crate::{
    commands::{acl, debug},
    persistence::{snapshot, trouble::Trouble},
    replication::failover,
    server::{self, Server},
    session::Session,
};

/// How long a command that writes waits for a disk that is behind, before it asks again.
pub const DISK_WAIT_MS: i64 = 10;
/// Whether so much waits to be written that who changes data should wait.
#[inline]
pub fn disk_is_behind(server: &Server) -> bool {
    server.aof.is_behind() || snapshot::is_behind(server)
}

/// What the gates say.
pub(super) enum Gate {
    Open,
    /// The transaction keeps it.
    Queued,
    /// It may not run before this time.
    Wait(i64),
}

/// May the command run now?
#[inline]
pub(super) fn admit(
    session: &mut Session,
    db: &mut Db<'_>,
    registered: &'static Registered,
    args: &Args<'_>,
    reply: &mut Reply,
) -> Result<Gate> {
    let command = registered.command;
    session.end_pause();
    if session.flags.loads {
        // It was let in when it was logged.
        return match session.flags.in_transaction {
            true => commands_in_transaction(session, registered, args, reply),
            false => Ok(Gate::Open),
        };
    }
    if registered.full_name == "debug" {
        debug::check_allowed(session)?;
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
        return Err(Error::BUSY);
    }
    if session.flags.subscribed && session.version == Version::Resp2 {
        subscribers_may(registered)?;
    }
    if session.server.replication.is_replica()
        && let Some(gate) = redirect(session, command)?
    {
        return Ok(gate);
    }
    if session.server.pause.is_on()
        && let Some(until) = paused(session, db, command, args)
    {
        session.begin_pause();
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

/// Whether something is so of a command or, if that is EXEC, of one that it would run.
#[inline]
pub(super) fn concerns(
    session: &Session,
    command: &Command,
    is_so: impl Fn(&Command) -> bool,
) -> bool {
    is_so(command)
        || matches!(command.run, Run::Exec)
            && session
                .transaction
                .as_ref()
                .is_some_and(|queue| queue.any(is_so))
}

/// Whether a command may not run since its data is being loaded.
#[inline]
fn refused_while_loading(session: &Session, command: &Command) -> bool {
    let loading = &session.server.loading;
    loading.is_active() && concerns(session, command, |command| !command.has(Flag::Loading))
        || loading.is_beside()
            && concerns(session, command, |command| {
                command.has(Flag::NoAsyncLoading)
            })
}

/// Whether a command may not run since a script runs for too long. Commands on keys may: they find out whether the
/// script holds the locks of these. Others wait for all of it to end, as all clients of the reference server do.
#[cold]
fn refused_while_busy(session: &Session, command: &Command) -> bool {
    let must_wait = |command: &Command| {
        let works_on_keys = match command.run {
            Run::Read(_) | Run::Write(_) | Run::Blocking(_) => !command.keys.is_empty(),
            // What it runs is looked at by itself.
            Run::Exec => session.flags.in_transaction,
            Run::Session(_) | Run::Server(_) | Run::Script(_) | Run::Container => false,
        };
        !works_on_keys && !command.has(Flag::AllowBusy)
    };
    concerns(session, command, must_wait) && !session.repeats()
}

/// Whether the session's user may run the command.
#[cold]
fn check_permissions(
    session: &Session,
    db: &Db<'_>,
    registered: &Registered,
    args: &Args<'_>,
) -> Result {
    // A denial shows the client with this command.
    session.client.note_command(registered.id);
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

/// Sends clients that can be sent (CLIENT CAPA REDIRECT) to the primary, with whatever needs data; those that asked for
/// a replica's data by READONLY only with what writes. While a failover is under way nobody knows yet who the primary
/// is, so that they wait.
///
/// # Errors
/// Where the primary is.
#[cold]
fn redirect(session: &mut Session, command: &Command) -> Result<Option<Gate>> {
    let client = &session.client;
    if !client.can_redirect.load(Ordering::Relaxed) || session.flags.from_primary {
        return Ok(None);
    }
    let reads = !client.readonly.load(Ordering::Relaxed);
    let is_sent = |command: &Command| command.is_write() || reads && command.has(Flag::ReadOnly);
    if !concerns(session, command, is_sent) {
        return Ok(None);
    }
    let replication = &session.server.replication;
    if replication.failover.state() == failover::State::InProgress {
        return Ok(Some(Gate::Wait(server::now().millis() + DISK_WAIT_MS)));
    }
    match replication.link() {
        Some(link) => Err(Error::redirect(&link.host, link.port)),
        None => Ok(None),
    }
}

/// What a replica, and a primary that wants replicas, refuse.
#[cold]
fn check_replication(session: &Session, command: &Command) -> Result {
    if concerns(session, command, Command::is_write) {
        return check_writes(session);
    }
    if concerns(session, command, |command| !command.has(Flag::Stale)) {
        return check_fresh(session);
    }
    Ok(())
}

/// Whether the session may see data that may be old.
///
/// # Errors
/// This server is a replica out of touch with its primary, and it may not.
pub fn check_fresh(session: &Session) -> Result {
    let server = &session.server;
    if server.replication.is_stale()
        && !session.repeats()
        && !server.config.settings().replica_serve_stale_data
    {
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
    let refuses = command.name == "PING" || concerns(session, command, Command::is_write);
    refuses && !session.repeats()
}

/// Until when CLIENT PAUSE holds a command back.
#[cold]
fn paused(session: &Session, db: &Db<'_>, command: &Command, args: &Args<'_>) -> Option<i64> {
    let scripting = &session.server.scripting;
    let may_change = |command: &Command, args: &Args<'_>| {
        let calls = matches!(command.run, Run::Script(_));
        command.is_write()
            || command.has(Flag::MayReplicate)
                && !(calls && scripting.promises_no_writes(command, args))
    };
    let queue = session
        .transaction
        .as_ref()
        .filter(|_| matches!(command.run, Run::Exec));
    let writes =
        may_change(command, args) || queue.is_some_and(|queue| queue.any_request(may_change));
    session.server.pause.until(db.now().millis(), writes)
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
    let (server, repeats) = (&session.server, session.repeats());
    let limit = || match repeats {
        true => u64::MAX,
        false => server.config.settings().client_query_buffer_limit,
    };
    let queued = transaction::Queued::new(registered, args);
    let transaction = session.transaction.get_or_insert_default();
    let count = transaction.push(queued, limit)?;
    let client = &session.client;
    client.queued.store(count as i32, Ordering::Relaxed);
    // Its part in the sum of all clients is brought up to date as the reply leaves.
    let queued_bytes = transaction.queued_bytes();
    client
        .held
        .queued_bytes
        .store(queued_bytes, Ordering::Relaxed);
    reply.queued();
    Ok(Gate::Queued)
}
