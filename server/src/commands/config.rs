//! CONFIG: looks at the settings and changes them while the server runs.

use std::sync::{Arc, atomic::Ordering};

use super::help::help;
use crate::{
    config::{Peer, SetError, Settings},
    dispatch::{
        args::Args,
        command::{Arity::*, Command, Flag, Group, Reply, Result, Run},
        error::Error,
    },
    log,
    net::descriptors,
    persistence::aof,
    server::Server,
    session::{
        Session,
        registry::{Address, Client, Wire},
    },
};

pub const COMMANDS: &[&Command] = &[&CONFIG];

const CONFIG: Command = Command {
    name: "CONFIG",
    syntax: "",
    summary: "Looks at settings and changes them.",
    since: "2.0.0",
    complexity: "Depends on subcommand.",
    group: Group::Server,
    arity: AtLeast(2),
    keys: &[],
    flags: &[],
    categories: &[],
    run: Run::Container,
    subcommands: &[&GET, &HELP, &RESETSTAT, &REWRITE, &SET],
};
const HELP: Command = super::help::subcommand("5.0.0", Group::Server, &[], help);

const GET: Command = Command {
    name: "GET",
    syntax: "parameter [parameter ...]",
    summary: "Returns the settings of these names or patterns.",
    since: "2.0.0",
    complexity: "O(N) where N is the number of configuration parameters provided",
    group: Group::Server,
    arity: AtLeast(3),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(get),
    subcommands: &[],
};

fn get(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let patterns: Vec<&[u8]> = args.from(2).collect();
    let found = session.server.config.get(&patterns);
    reply.map(found.len());
    for (name, value) in found {
        reply.bulk(name.as_bytes());
        reply.bulk(&value);
    }
    Ok(())
}

const SET: Command = Command {
    name: "SET",
    syntax: "<parameter value [parameter value ...]>",
    summary: "Changes settings, all of those named or none.",
    since: "2.0.0",
    complexity: "O(N) where N is the number of configuration parameters provided",
    group: Group::Server,
    arity: AtLeast(4),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(set),
    subcommands: &[],
};

fn set(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    if !args.len().is_multiple_of(2) {
        return Err(Error::SYNTAX);
    }
    let words: Vec<&[u8]> = args.from(2).collect();
    let pairs: Vec<(&[u8], &[u8])> = words
        .chunks_exact(2)
        .map(|pair| (pair[0], pair[1]))
        .collect();
    let server = &session.server;
    let before = server.config.settings();
    let changes = server
        .config
        .set(&pairs, peer(&session.client))
        .map_err(refused)?;
    if let Err((name, reason)) = exchange_sockets(server, &before, &|name| changes.contains(name)) {
        server.config.rollback(&changes);
        return Err(refused(SetError::not_applied(name, reason)));
    }
    if changes.contains("maxclients")
        && let Err(reason) = descriptors::allow(&server.config.settings())
    {
        server.config.rollback(&changes);
        return Err(refused(SetError::not_applied("maxclients", &reason)));
    }
    let adjusts = ["oom-score-adj", "oom-score-adj-values"];
    let adjusted = adjusts.into_iter().find(|name| changes.contains(name));
    if let Some(name) = adjusted
        && let Err(reason) = server.adjust_oom_score()
    {
        server.config.rollback(&changes);
        return Err(refused(SetError::not_applied(name, &reason)));
    }
    server.apply_settings();
    if changes.contains("requirepass") {
        let settings = server.config.settings();
        server.acl.set_default_password(&settings.requirepass);
    }
    if changes.contains("appendonly")
        && let Err(reason) = switch_append_only_file(server)
    {
        server.config.rollback(&changes);
        return Err(refused(SetError::not_applied("appendonly", &reason)));
    }
    reply.ok();
    Ok(())
}

/// Listens where the settings say now, if that is elsewhere than before.
///
/// # Errors
/// Which setting cannot be met, and why; then all is listened on as before.
fn exchange_sockets(
    server: &Server,
    before: &Settings,
    changed: &dyn Fn(&str) -> bool,
) -> std::result::Result<(), (&'static str, &'static str)> {
    const PORT: &str = "Unable to listen on this port. Check server logs.";
    const ADDRESSES: &str = "Failed to bind to specified addresses.";
    let now = server.config.settings();
    let exchange = |wire, addresses: &[String], port| {
        let exchanged = server
            .listeners
            .exchange(wire, addresses, port, now.tcp_backlog);
        exchanged.map_err(|(address, error)| {
            log::warning(format!(
                "Could not create a listening socket on {address}, port {port}: {error}"
            ));
        })
    };
    let (port, bind) = (changed("port"), changed("bind"));
    if port || bind {
        let reason = if port {
            ("port", PORT)
        } else {
            ("bind", ADDRESSES)
        };
        exchange(Wire::Resp, &now.bind, now.port).map_err(|()| reason)?;
    }
    let port = changed("memcached-port");
    if port || now.bind_of_memcached() != before.bind_of_memcached() {
        let outcome = exchange(Wire::Memcached, now.bind_of_memcached(), now.memcached_port);
        if outcome.is_err() {
            if now.port != before.port || now.bind != before.bind {
                let _ = exchange(Wire::Resp, &before.bind, before.port);
            }
            return Err(match port {
                true => ("memcached-port", PORT),
                false if changed("memcached-bind") => ("memcached-bind", ADDRESSES),
                false => ("bind", ADDRESSES),
            });
        }
    }
    Ok(())
}

/// Begins or ends the append-only file. Ending waits for the disk, so that what was acknowledged is there.
fn switch_append_only_file(server: &Arc<Server>) -> std::result::Result<(), String> {
    match server.config.settings().appendonly {
        // Whoever loads looks at the setting in the end.
        _ if server.loading.is_active() => Ok(()),
        wanted if wanted == server.aof.is_enabled() => Ok(()),
        true => aof::turn_on(server),
        false => {
            aof::turn_off(server);
            Ok(())
        }
    }
}

fn refused(error: SetError) -> Error {
    Error::general(error.to_string())
}

/// Where a client is, for permissions that distinguish.
pub(super) fn peer(client: &Client) -> Peer {
    match &client.address {
        Address::Unix(_) => Peer::ThisMachine,
        Address::Tcp(address) if address.ip().to_canonical().is_loopback() => Peer::ThisMachine,
        Address::Tcp(_) => Peer::Elsewhere,
    }
}

const REWRITE: Command = Command {
    name: "REWRITE",
    syntax: "",
    summary: "Writes the settings into the configuration file.",
    since: "2.8.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(rewrite),
    subcommands: &[],
};

fn rewrite(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    let server = &session.server;
    // With an ACL file, users are kept there.
    let users = server
        .config
        .settings()
        .aclfile
        .as_os_str()
        .is_empty()
        .then(|| {
            let users = server.acl.users();
            let lines = users
                .iter()
                .map(|user| user.describe()["user ".len()..].to_vec());
            lines.collect::<Vec<_>>()
        });
    match server.config.rewrite(users.as_deref()) {
        Ok(()) => {
            log::notice("CONFIG REWRITE executed with success.");
            reply.ok();
            Ok(())
        }
        Err(error) => {
            log::warning(format!("CONFIG REWRITE failed: {error}"));
            Err(Error::general(error.to_string()))
        }
    }
}

const RESETSTAT: Command = Command {
    name: "RESETSTAT",
    syntax: "",
    summary: "Sets the statistics that INFO shows back to zero.",
    since: "2.0.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(reset_statistics),
    subcommands: &[],
};

fn reset_statistics(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    let Server {
        metrics, keyspace, ..
    } = &*session.server;
    metrics.reset();
    let statistics = &keyspace.statistics;
    for counter in [
        &statistics.hits,
        &statistics.misses,
        &statistics.expired,
        &statistics.expired_fields,
        &statistics.evicted,
        &statistics.freed,
    ] {
        counter.store(0, Ordering::Relaxed);
    }
    session.server.scripting.evicted.store(0, Ordering::Relaxed);
    keyspace.eviction.advice.reset();
    reply.ok();
    Ok(())
}
