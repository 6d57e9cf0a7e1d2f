//! The server as a whole: its clock, role, memory and end.

use std::{
    num::NonZero,
    sync::atomic::Ordering,
    time::{SystemTime, UNIX_EPOCH},
};

use storage::{alloc, db::Db};

use super::{advice::ADVICE, help::help};
use crate::{
    config::VALKEY_VERSION,
    dispatch::{
        args::Args,
        command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
        error::Error,
    },
    log,
    metrics::process,
    persistence::aof,
    server::{ShutdownRequest, now},
    session::{Patience, Session},
};

pub const COMMANDS: &[&Command] = &[&BGREWRITEAOF, &LOLWUT, &MEMORY, &SHUTDOWN, &TIME];

const BGREWRITEAOF: Command = Command {
    name: "BGREWRITEAOF",
    syntax: "",
    summary: "Rewrites the append-only file to a shorter one, in the background.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(1),
    keys: &[],
    flags: &[Flag::NoAsyncLoading, Flag::Admin, Flag::NoScript],
    categories: &[],
    run: Run::Session(bgrewriteaof),
    subcommands: &[],
};

fn bgrewriteaof(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    let server = &session.server;
    if !server.aof.is_enabled() {
        aof::prepare(server).map_err(Error::general)?;
    }
    let status = &server.aof.status;
    let waits = session.flags.in_exec || server.snapshots.in_background.load(Ordering::Relaxed);
    if waits && !status.rewriting.load(Ordering::Relaxed) {
        status.rewrite_scheduled.store(true, Ordering::Relaxed);
        reply.simple("Background append only file rewriting scheduled");
        return Ok(());
    }
    if !aof::start_rewrite(server) {
        return Err(Error::general(
            "Background append only file rewriting already in progress",
        ));
    }
    reply.simple("Background append only file rewriting started");
    Ok(())
}

const TIME: Command = Command {
    name: "TIME",
    syntax: "",
    summary: "Returns the server's time: seconds and microseconds.",
    since: "2.6.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(1),
    keys: &[],
    flags: &[Flag::Fast, Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(time),
    subcommands: &[],
};

fn time(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    let now = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        NonZero::new(since.unwrap_or_default().as_micros() as u64).unwrap_or(NonZero::<u64>::MIN)
    };
    let micros = match session.flags.in_exec || session.flags.in_script {
        true => *session.frozen_time.get_or_insert_with(now),
        false => now(),
    };
    reply.array(2);
    reply.bulk_integer((micros.get() / 1_000_000) as i64);
    reply.bulk_integer((micros.get() % 1_000_000) as i64);
    Ok(())
}

const LOLWUT: Command = Command {
    name: "LOLWUT",
    syntax: "[VERSION version]",
    summary: "Draws something and tells the version.",
    since: "5.0.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: AtLeast(1),
    keys: &[],
    flags: &[Flag::Fast, Flag::ReadOnly],
    categories: &[],
    run: Run::Session(lolwut),
    subcommands: &[],
};

fn lolwut(_session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    const SIZE: u32 = 16;
    let mut text = String::new();
    // Pascal's triangle, odd numbers only: a Sierpinski triangle.
    for row in 0..SIZE {
        text.extend(std::iter::repeat_n(' ', (SIZE - row) as usize));
        for column in 0..=row {
            text.push_str(if column & (row - column) == 0 {
                "* "
            } else {
                "  "
            });
        }
        text.push('\n');
    }
    // Clients tell by these words that it is what they know.
    let version = env!("CARGO_PKG_VERSION");
    text.push_str(&format!(
        "\nValkey ver. {VALKEY_VERSION}, Ferrite ver. {version}\n"
    ));
    reply.verbatim("txt", text.as_bytes());
    Ok(())
}

const SHUTDOWN: Command = Command {
    name: "SHUTDOWN",
    syntax: "[[NOSAVE | SAVE] [NOW] [FORCE] | ABORT]",
    summary: "Ends the server.",
    since: "1.0.0",
    complexity: "O(N) when saving, where N is the total number of keys in all databases, otherwise O(1)",
    group: Group::Server,
    arity: AtLeast(1),
    keys: &[],
    flags: &[
        Flag::Admin,
        Flag::AllowBusy,
        Flag::Loading,
        Flag::NoMulti,
        Flag::NoScript,
        Flag::Stale,
    ],
    categories: &[],
    run: Run::Session(shutdown),
    subcommands: &[],
};

fn shutdown(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let mut request = ShutdownRequest::default();
    let mut abort = false;
    for index in 1..args.len() {
        if args.is(index, "SAVE") && request.save.is_none() {
            request.save = Some(true);
        } else if args.is(index, "NOSAVE") && request.save.is_none() {
            request.save = Some(false);
        } else if args.is(index, "NOW") {
            request.now = true;
        } else if args.is(index, "FORCE") {
            request.force = true;
        } else if args.is(index, "ABORT") {
            abort = true;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    if abort {
        if request != ShutdownRequest::default() {
            return Err(Error::SYNTAX);
        }
        if !session.server.shutdown.fail() {
            return Err(Error::general("No shutdown in progress."));
        }
        log::notice("Shutdown manually aborted.");
        reply.ok();
        return Ok(());
    }
    let server = session.server.clone();
    match session.patience.as_deref() {
        None => {
            if server.scripting.slow.any() && request.save != Some(false) {
                return Err(server.scripting.slow.busy());
            }
            session.begin_patience(Patience {
                until_ms: i64::MAX,
                offset: 0,
                logged: 0,
                failures: server.shutdown.failures(),
            });
            server.shutdown.request(request);
        }
        Some(Patience { failures, .. }) if *failures != server.shutdown.failures() => {
            session.end_patience();
            return Err(Error::general("Errors trying to SHUTDOWN. Check logs."));
        }
        Some(_) => {}
    }
    // The end of the connection is the answer.
    session.retry_at = NonZero::new(now().millis() + LOOK_AGAIN_MS);
    Ok(())
}

/// How often a client that asked for the end looks whether it has failed, in milliseconds.
const LOOK_AGAIN_MS: i64 = 5;

const MEMORY: Command = Command {
    name: "MEMORY",
    syntax: "",
    summary: "Shows what memory is used for.",
    since: "4.0.0",
    complexity: "Depends on subcommand.",
    group: Group::Server,
    arity: AtLeast(2),
    keys: &[],
    flags: &[],
    categories: &[],
    run: Run::Container,
    subcommands: &[
        &ADVICE,
        &DOCTOR,
        &HELP,
        &MALLOC_STATS,
        &PURGE,
        &STATS,
        &USAGE,
    ],
};
const HELP: Command = super::help::subcommand("4.0.0", Group::Server, &[], help);
const USAGE: Command = Command {
    name: "USAGE",
    syntax: "key [SAMPLES count]",
    summary: "Returns how many bytes a key and its value take.",
    since: "4.0.0",
    complexity: "O(N) where N is the number of samples",
    group: Group::Server,
    arity: AtLeast(3),
    keys: &[Keys::at(2, Access::Inspect)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(usage),
    subcommands: &[],
};

fn usage(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    // Sizes are known without sampling, so how many samples to take makes no difference.
    match args.len() {
        3 => {}
        5 if args.is(3, "SAMPLES") => {
            if args.integer(4)? < 0 {
                return Err(Error::SYNTAX);
            }
        }
        _ => return Err(Error::SYNTAX),
    }
    match db.peek(args.key(2)) {
        Some(entry) => reply.integer(entry.memory_bytes() as i64),
        None => reply.null(),
    }
    Ok(())
}

const DOCTOR: Command = Command {
    name: "DOCTOR",
    syntax: "",
    summary: "Says in words how the memory does.",
    since: "4.0.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(2),
    keys: &[],
    flags: &[],
    categories: &[],
    run: Run::Session(doctor),
    subcommands: &[],
};

fn doctor(_session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    const SMALL: usize = 5 << 20;
    let (used, resident) = (alloc::allocated_bytes(), process::resident_bytes());
    let text = if used < SMALL {
        "The server holds too little data for its memory to be judged."
    } else if resident > used / 2 * 3 {
        "The process holds over half as much again as is allocated: MEMORY PURGE may give some back to the system."
    } else {
        "Nothing unusual: what the process holds is near to what is allocated."
    };
    reply.verbatim("txt", text.as_bytes());
    Ok(())
}

const PURGE: Command = Command {
    name: "PURGE",
    syntax: "",
    summary: "Gives unused memory back to the system.",
    since: "4.0.0",
    complexity: "Depends on how much memory is allocated, could be slow",
    group: Group::Server,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::Loading],
    categories: &[],
    run: Run::Session(purge),
    subcommands: &[],
};

fn purge(_session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    alloc::purge();
    reply.ok();
    Ok(())
}

const MALLOC_STATS: Command = Command {
    name: "MALLOC-STATS",
    syntax: "",
    summary: "Describes the allocator's state.",
    since: "4.0.0",
    complexity: "Depends on how much memory is allocated, could be slow",
    group: Group::Server,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::Loading],
    categories: &[],
    run: Run::Session(malloc_stats),
    subcommands: &[],
};

fn malloc_stats(_session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    let text = format!(
        "allocator: mimalloc\nallocated: {}\nresident: {}\n",
        alloc::allocated_bytes(),
        process::resident_bytes()
    );
    reply.verbatim("txt", text.as_bytes());
    Ok(())
}

const STATS: Command = Command {
    name: "STATS",
    syntax: "",
    summary: "Returns what memory is used for.",
    since: "4.0.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(2),
    keys: &[],
    flags: &[],
    categories: &[],
    run: Run::Server(stats),
    subcommands: &[],
};

fn stats(session: &mut Session, db: &mut Db<'_>, _args: &Args<'_>, reply: &mut Reply) -> Result {
    let server = &session.server;
    let mut overheads = vec![(0, 0); db.keyspace().databases()];
    db.each_shard(0, |_, shard| {
        for (sum, table) in overheads.iter_mut().zip(&shard.tables) {
            sum.0 += table.len();
            sum.1 += table.overhead_bytes();
        }
        None::<()>
    })?;
    let keys: usize = overheads.iter().map(|(keys, _)| keys).sum();
    let tables: usize = overheads.iter().map(|(_, bytes)| bytes).sum();
    let (clients, replicas) = server.clients.memory_bytes();
    let used = alloc::allocated_bytes();
    let peak = server.metrics.memory_peak.load(Ordering::Relaxed).max(used);
    let resident = process::resident_bytes();
    let overhead = (server.startup_bytes + tables + clients + replicas).min(used);
    let dataset = used - overhead;
    let net = used.saturating_sub(server.startup_bytes).max(1);
    let filled: Vec<(usize, usize)> = overheads
        .iter()
        .enumerate()
        .filter(|(_, (keys, _))| *keys > 0)
        .map(|(index, (_, bytes))| (index, *bytes))
        .collect();
    let numbers = [
        ("peak.allocated", peak),
        ("total.allocated", used),
        ("startup.allocated", server.startup_bytes),
        ("replication.backlog", 0),
        ("replicas.repl.buffer", 0),
        ("clients.slaves", replicas),
        ("clients.normal", clients),
        ("cluster.links", 0),
        ("cluster.slot_import", 0),
        ("cluster.slot_export", 0),
        ("aof.buffer", 0),
        ("lua.caches", 0),
        ("functions.caches", 0),
    ];
    let totals = [
        ("overhead.db.hashtable.lut", tables),
        ("overhead.db.hashtable.rehashing", 0),
        ("overhead.total", overhead),
        ("db.dict.rehashing.count", 0),
        ("keys.count", keys),
        ("keys.bytes-per-key", net.checked_div(keys).unwrap_or(0)),
        ("dataset.bytes", dataset),
    ];
    let ratio = resident as f64 / used.max(1) as f64;
    let wasted = resident as i64 - used as i64;
    reply.map(numbers.len() + filled.len() + totals.len() + 14);
    let number = |reply: &mut Reply, name: &str, value: i64| {
        reply.bulk(name.as_bytes());
        reply.integer(value);
    };
    let double = |reply: &mut Reply, name: &str, value: f64| {
        reply.bulk(name.as_bytes());
        reply.double(value);
    };
    for (name, value) in numbers {
        number(reply, name, value as i64);
    }
    for (index, bytes) in filled {
        reply.bulk(format!("db.{index}").as_bytes());
        reply.map(2);
        number(reply, "overhead.hashtable.main", bytes as i64);
        number(reply, "overhead.hashtable.expires", 0);
    }
    for (name, value) in totals {
        number(reply, name, value as i64);
    }
    double(
        reply,
        "dataset.percentage",
        dataset as f64 * 100.0 / net as f64,
    );
    double(
        reply,
        "peak.percentage",
        used as f64 * 100.0 / peak.max(1) as f64,
    );
    number(reply, "allocator.allocated", used as i64);
    number(reply, "allocator.active", resident as i64);
    number(reply, "allocator.resident", resident as i64);
    number(reply, "allocator.muzzy", 0);
    double(reply, "allocator-fragmentation.ratio", ratio);
    number(reply, "allocator-fragmentation.bytes", wasted);
    double(reply, "allocator-rss.ratio", 1.0);
    number(reply, "allocator-rss.bytes", 0);
    double(reply, "rss-overhead.ratio", 1.0);
    number(reply, "rss-overhead.bytes", 0);
    double(reply, "fragmentation", ratio);
    number(reply, "fragmentation.bytes", wasted);
    Ok(())
}
