//! Replication: whom this server follows, who follows it, and waiting for those.

use std::{num::NonZero, sync::Arc, time::Duration};

use storage::value::number;

use crate::{
    dispatch::{
        args::Args,
        command::{Arity::*, Category, Command, Flag, Group, Reply, Result, Run},
        error::Error,
    },
    log,
    replication::{failover, primary::LeftOut, replica::LinkState},
    server::{Server, now},
    session::{Patience, Session, registry::WaitState},
};

pub const COMMANDS: &[&Command] = &[
    &FAILOVER, &PSYNC, &REPLCONF, &REPLICAOF, &ROLE, &SLAVEOF, &SYNC, &WAIT, &WAITAOF,
];

const ADMIN: &[Flag] = &[
    Flag::Admin,
    Flag::NoAsyncLoading,
    Flag::NoScript,
    Flag::Stale,
];
const SYNCING: &[Flag] = &[
    Flag::Admin,
    Flag::NoAsyncLoading,
    Flag::NoMulti,
    Flag::NoScript,
];

const REPLICAOF: Command = Command {
    name: "REPLICAOF",
    syntax: "<host port | NO ONE>",
    summary: "Follows a primary, or none any more.",
    since: "5.0.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(3),
    keys: &[],
    flags: ADMIN,
    categories: &[],
    run: Run::Session(replica_of),
    subcommands: &[],
};

const SLAVEOF: Command = Command {
    name: "SLAVEOF",
    syntax: "<host port | NO ONE>",
    summary: "Follows a primary, or none any more.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(3),
    keys: &[],
    flags: ADMIN,
    categories: &[],
    run: Run::Session(replica_of),
    subcommands: &[],
};

fn replica_of(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let server = session.server.clone();
    if args.is(1, "NO") && args.is(2, "ONE") {
        if server.replication.promote(&server) {
            log::notice("PRIMARY MODE enabled (user request)");
            server.config.change(|settings| settings.replicaof = None);
        }
        reply.ok();
        return Ok(());
    }
    let port = number::parse_i64(args.word(2))
        .and_then(|port| u16::try_from(port).ok())
        .ok_or_else(|| Error::general("Invalid master port"))?;
    let host = String::from_utf8_lossy(args.word(1)).into_owned();
    let link = server.replication.link();
    if link.is_some_and(|link| link.host == host && link.port == port) {
        reply.simple("OK Already connected to specified master");
        return Ok(());
    }
    follow(&server, &host, port);
    reply.ok();
    Ok(())
}

/// Follows a primary and remembers it in the settings.
pub fn follow(server: &Arc<Server>, host: &str, port: u16) {
    server.replication.follow(server, host, port);
    log::notice(format!("REPLICAOF {host}:{port} enabled"));
    server
        .config
        .change(|settings| settings.replicaof = Some((host.to_owned(), port)));
}

const REPLCONF: Command = Command {
    name: "REPLCONF",
    syntax: "[option value ...]",
    summary: "Configures a link between a primary and its replica.",
    since: "3.0.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: AtLeast(1),
    keys: &[],
    flags: &[
        Flag::Admin,
        Flag::AllowBusy,
        Flag::Loading,
        Flag::NoScript,
        Flag::Stale,
    ],
    categories: &[],
    run: Run::Session(replconf),
    subcommands: &[],
};

fn replconf(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    if args.len().is_multiple_of(2) {
        return Err(Error::SYNTAX);
    }
    let announced = &mut session.wanted.get_or_insert_default().announced;
    for index in (1..args.len()).step_by(2) {
        let value = args.word(index + 1);
        match args.word(index).to_ascii_lowercase().as_slice() {
            b"listening-port" => {
                let port = number::parse_i64(value).ok_or(Error::NOT_AN_INTEGER)?;
                announced.port = u16::try_from(port).unwrap_or_default();
            }
            b"ip-address" => announced.address = String::from_utf8_lossy(value).into_owned(),
            b"capa" => announced.eof |= value.eq_ignore_ascii_case(b"eof"),
            b"version" => announced.version = major_version(value),
            b"rdb-filter-only" => announced.leaves_out = read_parts(value)?,
            b"rdb-only" | b"rdb-channel" | b"set-rdb-client-id" | b"set-cluster-node-id" => {}
            // The replica says how far it is: no answer.
            b"ack" | b"fack" => return Ok(()),
            b"getack" => return Ok(()),
            _ => {
                let mut text = b"Unrecognized REPLCONF option: ".to_vec();
                text.extend_from_slice(args.word(index));
                return Err(Error::general(text));
            }
        }
    }
    reply.ok();
    Ok(())
}

/// What is left out of a copy of these parts only.
fn read_parts(parts: &[u8]) -> Result<LeftOut> {
    let mut left_out = LeftOut {
        data: true,
        functions: true,
    };
    let words = parts.split(|&byte| byte == b' ');
    for part in words.filter(|part| !part.is_empty()) {
        if !part.eq_ignore_ascii_case(b"functions") {
            let text = [b"Unsupported rdb-filter-only option: ", part].concat();
            return Err(Error::general(text));
        }
        left_out.functions = false;
    }
    Ok(left_out)
}

/// The number before the first dot.
fn major_version(text: &[u8]) -> u32 {
    let end = text.iter().position(|&byte| byte == b'.');
    let major = number::parse_u64(&text[..end.unwrap_or(text.len())]);
    major
        .and_then(|major| u32::try_from(major).ok())
        .unwrap_or(0)
}

const PSYNC: Command = Command {
    name: "PSYNC",
    syntax: "replicationid offset",
    summary: "Makes the connection a replica's, which goes on from an offset.",
    since: "2.8.0",
    complexity: "O(N) where N is the number of keys, when they must all be sent",
    group: Group::Server,
    arity: AtLeast(3),
    keys: &[],
    flags: SYNCING,
    categories: &[],
    run: Run::Session(psync),
    subcommands: &[],
};

fn psync(session: &mut Session, args: &Args<'_>, _reply: &mut Reply) -> Result {
    let next = args.integer(2)?;
    let id = String::from_utf8_lossy(args.word(1)).into_owned();
    if args.is(3, "FAILOVER") {
        take_over(&session.server, &id)?;
    }
    let from = u64::try_from(next)
        .ok()
        .filter(|&next| next > 0 && id != "?")
        .map(|next| (id, next - 1));
    become_replica(session, from, false)
}

/// The primary wants this replica to take its place.
fn take_over(server: &Arc<Server>, id: &str) -> Result {
    if !server.replication.is_replica() {
        return Err(Error::general("PSYNC FAILOVER can't be sent to a master."));
    }
    if server.replication.stream.lock().id != id {
        return Err(Error::general(
            "PSYNC FAILOVER replid must match my replid.",
        ));
    }
    log::notice("Failover request received, taking over as the primary");
    server.replication.promote(server);
    server.config.change(|settings| settings.replicaof = None);
    Ok(())
}

const FAILOVER: Command = Command {
    name: "FAILOVER",
    syntax: "[TO host port [FORCE]] [ABORT] [TIMEOUT milliseconds]",
    summary: "Hands the part of the primary to a replica that has everything.",
    since: "6.2.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: AtLeast(1),
    keys: &[],
    flags: &[Flag::Admin, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(fail_over),
    subcommands: &[],
};

fn fail_over(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let server = session.server.clone();
    let replication = &server.replication;
    let (mut request, mut abort) = (failover::Request::default(), false);
    let mut index = 1;
    while index < args.len() {
        if args.is(index, "TIMEOUT") && index + 1 < args.len() && request.timeout.is_none() {
            let timeout = args.integer(index + 1)?;
            if timeout <= 0 {
                return Err(Error::general("FAILOVER timeout must be greater than 0"));
            }
            request.timeout = Some(Duration::from_millis(timeout as u64));
            index += 2;
        } else if args.is(index, "ABORT") && args.len() == 2 {
            abort = true;
            index += 1;
        } else if args.is(index, "TO") && index + 2 < args.len() && request.target.is_none() {
            let host = String::from_utf8_lossy(args.word(index + 1)).into_owned();
            let port =
                u16::try_from(args.integer(index + 2)?).map_err(|_| Error::NOT_AN_INTEGER)?;
            request.target = Some((host, port));
            index += 3;
        } else if args.is(index, "FORCE") && !request.force {
            request.force = true;
            index += 1;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    if abort {
        if !replication.failover.abort() {
            return Err(Error::general("No failover in progress."));
        }
        reply.ok();
        return Ok(());
    }
    if replication.failover.state() != failover::State::None {
        return Err(Error::general("FAILOVER already in progress."));
    }
    if replication.is_replica() {
        return Err(Error::general(
            "FAILOVER is not valid when server is a replica.",
        ));
    }
    check_target(&server, &request)?;
    failover::start(&server, request);
    reply.ok();
    Ok(())
}

fn check_target(server: &Server, request: &failover::Request) -> Result {
    if request.force && (request.timeout.is_none() || request.target.is_none()) {
        return Err(Error::general(
            "FAILOVER with force option requires both a timeout and target HOST and IP.",
        ));
    }
    let replicas = server.replication.replicas.lock();
    if replicas.is_empty() {
        return Err(Error::general("FAILOVER requires connected replicas."));
    }
    let Some(target) = &request.target else {
        return Ok(());
    };
    match replicas.iter().find(|replica| replica.place() == *target) {
        None => Err(Error::general(
            "FAILOVER target HOST and PORT is not a replica.",
        )),
        Some(replica) if !replica.is_online() => {
            Err(Error::general("FAILOVER target replica is not online."))
        }
        Some(_) => Ok(()),
    }
}

const SYNC: Command = Command {
    name: "SYNC",
    syntax: "",
    summary: "Makes the connection a replica's, which gets all data.",
    since: "1.0.0",
    complexity: "O(N) where N is the number of keys",
    group: Group::Server,
    arity: Exactly(1),
    keys: &[],
    flags: SYNCING,
    categories: &[],
    run: Run::Session(sync),
    subcommands: &[],
};

fn sync(session: &mut Session, _args: &Args<'_>, _reply: &mut Reply) -> Result {
    become_replica(session, None, true)
}

fn become_replica(session: &mut Session, from: Option<(String, u64)>, is_old: bool) -> Result {
    let server = &session.server;
    if server.replication.is_stale() {
        return Err(Error::from_static(
            "NOMASTERLINK Can't SYNC while not connected with my master",
        ));
    }
    let wanted = session.wanted.get_or_insert_default();
    (wanted.from, wanted.is_old) = (from, is_old);
    session.flags.handed_over = true;
    Ok(())
}

const ROLE: Command = Command {
    name: "ROLE",
    syntax: "",
    summary: "Returns the server's part in replication.",
    since: "2.8.12",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(1),
    keys: &[],
    flags: &[Flag::Fast, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[Category::Admin, Category::Dangerous],
    run: Run::Session(role),
    subcommands: &[],
};

fn role(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    let replication = &session.server.replication;
    if let Some(link) = replication.link() {
        let state = match link.state() {
            LinkState::Connect => "connect",
            LinkState::Handshake => "handshake",
            LinkState::Sync => "sync",
            LinkState::Connected => "connected",
        };
        let offset = if link.is_up() {
            replication.offset() as i64
        } else {
            -1
        };
        reply.array(5);
        reply.bulk(b"slave");
        reply.bulk(link.host.as_bytes());
        reply.integer(link.port.into());
        reply.bulk(state.as_bytes());
        reply.integer(offset);
        return Ok(());
    }
    let replicas = replication.replicas.lock();
    let online: Vec<_> = replicas
        .iter()
        .filter(|replica| replica.is_online())
        .collect();
    reply.array(3);
    reply.bulk(b"master");
    reply.integer(replication.offset() as i64);
    reply.array(online.len());
    for replica in online {
        let (address, port) = replica.place();
        reply.array(3);
        reply.bulk(address.as_bytes());
        reply.bulk(port.to_string().as_bytes());
        reply.bulk(replica.acknowledged().to_string().as_bytes());
    }
    Ok(())
}

/// How often a command that waits for the disk looks again, should nobody tell it, in milliseconds.
const LOOK_AGAIN_MS: i64 = 100;

const WAIT: Command = Command {
    name: "WAIT",
    syntax: "numreplicas timeout",
    summary: "Waits until so many replicas have what was written before.",
    since: "3.0.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(3),
    keys: &[],
    flags: &[Flag::Blocking],
    categories: &[Category::Connection],
    run: Run::Session(|session, args, reply| until_done(session, args, reply, wait)),
    subcommands: &[],
};

/// Looks whether what a client waits for is there, and ends its patience unless it is to look again.
fn until_done(
    session: &mut Session,
    args: &Args<'_>,
    reply: &mut Reply,
    look: fn(&mut Session, &Args<'_>, &mut Reply) -> Result,
) -> Result {
    let result = look(session, args, reply);
    if session.retry_at.is_none() {
        session.end_patience();
    }
    result
}

fn wait(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    if session.server.replication.is_replica() {
        return Err(Error::general(
            "WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is \
             configured to be writable (which is not the default) writes to replicas are just local and are not \
             propagated.",
        ));
    }
    let wanted = args.integer(1)?;
    let timeout = read_timeout(args, 2)?;
    let replication = session.server.replication.clone();
    let offset = session
        .patience
        .as_ref()
        .map_or_else(|| replication.offset(), |patience| patience.offset);
    let reached = replication.acknowledged(offset) as i64;
    if reached < wanted
        && go_on_waiting(session, timeout, || {
            replication.append_plain(&[b"REPLCONF", b"GETACK", b"*"]);
        })?
    {
        return Ok(());
    }
    reply.integer(reached);
    Ok(())
}

fn read_timeout(args: &Args<'_>, index: usize) -> Result<i64> {
    let timeout = number::parse_i64(args.word(index))
        .ok_or_else(|| Error::general("timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(Error::general("timeout is negative"));
    }
    if timeout.checked_add(now().millis()).is_none() {
        return Err(Error::general("timeout is out of range"));
    }
    Ok(timeout)
}

/// Whether to look again later: there is time left, and the connection may wait. `first` runs at the first look.
///
/// # Errors
/// CLIENT UNBLOCK ended the waiting so.
fn go_on_waiting(session: &mut Session, timeout_ms: i64, first: impl FnOnce()) -> Result<bool> {
    let flags = &session.flags;
    if flags.in_exec || flags.in_script || flags.from_primary {
        return Ok(false);
    }
    if session.client.patience_is(WaitState::Interrupted) {
        return Err(Error::UNBLOCKED);
    }
    let now = now().millis();
    let until = match &session.patience {
        Some(patience) => patience.until_ms,
        None => {
            let until_ms = match timeout_ms {
                0 => i64::MAX,
                timeout => now.saturating_add(timeout),
            };
            session.begin_patience(Patience {
                until_ms,
                offset: session.server.replication.offset(),
                logged: session.server.aof.end(),
                failures: 0,
            });
            first();
            until_ms
        }
    };
    if now >= until || session.client.patience_is(WaitState::TimedOut) {
        return Ok(false);
    }
    session.retry_at = NonZero::new(until);
    Ok(true)
}

const WAITAOF: Command = Command {
    name: "WAITAOF",
    syntax: "numlocal numreplicas timeout",
    summary: "Waits until what was written before is on disk here and at so many replicas.",
    since: "7.2.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(4),
    keys: &[],
    flags: &[Flag::Blocking],
    categories: &[Category::Connection],
    run: Run::Session(|session, args, reply| until_done(session, args, reply, wait_aof)),
    subcommands: &[],
};

fn wait_aof(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let local = args.integer(1)?;
    if !(0..=1).contains(&local) {
        return Err(Error::general(
            "value is out of range, must be between 0 and 1",
        ));
    }
    let replicas = args.integer(2)?;
    if replicas < 0 {
        return Err(Error::NOT_POSITIVE);
    }
    let timeout = read_timeout(args, 3)?;
    let server = session.server.clone();
    if server.replication.is_replica() {
        return Err(Error::general(
            "WAITAOF cannot be used with replica instances. Please also note that writes to replicas are just local \
             and are not propagated.",
        ));
    }
    if local > 0 && !server.aof.is_enabled() {
        return Err(Error::general(
            "WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ));
    }
    let (offset, logged) = session.patience.as_ref().map_or_else(
        || (server.replication.offset(), server.aof.end()),
        |patience| (patience.offset, patience.logged),
    );
    let synced = i64::from(server.aof.is_enabled() && server.aof.on_disk() >= logged);
    let reached = server.replication.on_disk(offset) as i64;
    if (synced < local || reached < replicas)
        && go_on_waiting(session, timeout, || {
            server
                .replication
                .append_plain(&[b"REPLCONF", b"GETACK", b"*"]);
        })?
    {
        if synced < local {
            server.aof.wake_when_synced(logged, &session.client);
            let soon = NonZero::new(now().millis() + LOOK_AGAIN_MS);
            session.retry_at = session.retry_at.min(soon);
        }
        return Ok(());
    }
    reply.array(2);
    reply.integer(synced);
    reply.integer(reached);
    Ok(())
}
