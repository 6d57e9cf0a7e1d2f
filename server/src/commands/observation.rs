//! SLOWLOG, COMMANDLOG and LATENCY: which commands stood out, and how long commands take.

use super::help::help;
use crate::{
    dispatch::{
        args::Args,
        command::{Arity::*, Command, Flag, Group, Reply, Result, Run},
        error::Error,
        table::{self, Registered},
    },
    metrics::{
        command_log::{Kind, Record},
        graph,
    },
    server::now,
    session::Session,
};

pub const COMMANDS: &[&Command] = &[&COMMANDLOG, &LATENCY, &MONITOR, &SLOWLOG];

const MONITOR: Command = Command {
    name: "MONITOR",
    syntax: "",
    summary: "Shows every command that the server runs.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(1),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(monitor),
    subcommands: &[],
};

fn monitor(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    if session.flags.in_exec {
        return Err(Error::general(
            "MONITOR isn't allowed for DENY BLOCKING client",
        ));
    }
    // Who monitors already gets no reply, only what is shown.
    if !session.flags.monitors {
        session.flags.monitors = true;
        session.server.monitors.add(&session.client);
        reply.ok();
    }
    Ok(())
}

const SLOWLOG: Command = Command {
    name: "SLOWLOG",
    syntax: "",
    summary: "Shows which commands were slow.",
    since: "2.2.12",
    complexity: "Depends on subcommand.",
    group: Group::Server,
    arity: AtLeast(2),
    keys: &[],
    flags: &[],
    categories: &[],
    run: Run::Container,
    subcommands: &[&SLOWLOG_GET, &SLOWLOG_HELP, &SLOWLOG_LEN, &SLOWLOG_RESET],
};
const SLOWLOG_HELP: Command = super::help::subcommand("6.2.0", Group::Server, &[], help);
const SLOWLOG_GET: Command = Command {
    name: "GET",
    syntax: "[count]",
    summary: "Returns the latest slow commands.",
    since: "2.2.12",
    complexity: "O(N) where N is the number of entries returned",
    group: Group::Server,
    arity: AtLeast(2),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(slowlog_get),
    subcommands: &[],
};

fn slowlog_get(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    if args.len() > 3 {
        return Err(Error::wrong_arity("slowlog|get"));
    }
    let count = if args.len() == 3 { count(args)? } else { 10 };
    write_records(&session.server.command_log.latest(Kind::Slow, count), reply);
    Ok(())
}

const SLOWLOG_LEN: Command = Command {
    name: "LEN",
    syntax: "",
    summary: "Returns how many slow commands are kept.",
    since: "2.2.12",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(slowlog_len),
    subcommands: &[],
};

fn slowlog_len(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    reply.integer(session.server.command_log.len(Kind::Slow) as i64);
    Ok(())
}

const SLOWLOG_RESET: Command = Command {
    name: "RESET",
    syntax: "",
    summary: "Forgets the slow commands.",
    since: "2.2.12",
    complexity: "O(N) where N is the number of entries",
    group: Group::Server,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(slowlog_reset),
    subcommands: &[],
};

fn slowlog_reset(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    session.server.command_log.clear(Kind::Slow);
    reply.ok();
    Ok(())
}

const COMMANDLOG: Command = Command {
    name: "COMMANDLOG",
    syntax: "",
    summary: "Shows which commands were slow or large.",
    since: "8.1.0",
    complexity: "Depends on subcommand.",
    group: Group::Server,
    arity: AtLeast(2),
    keys: &[],
    flags: &[],
    categories: &[],
    run: Run::Container,
    subcommands: &[
        &COMMANDLOG_GET,
        &COMMANDLOG_HELP,
        &COMMANDLOG_LEN,
        &COMMANDLOG_RESET,
    ],
};
const COMMANDLOG_HELP: Command = super::help::subcommand("8.1.0", Group::Server, &[], help);
const COMMANDLOG_GET: Command = Command {
    name: "GET",
    syntax: "count <SLOW | LARGE-REQUEST | LARGE-REPLY>",
    summary: "Returns the latest commands of a kind.",
    since: "8.1.0",
    complexity: "O(N) where N is the number of entries returned",
    group: Group::Server,
    arity: Exactly(4),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(commandlog_get),
    subcommands: &[],
};

fn commandlog_get(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let kind = kind(args, 3)?;
    let count = count(args)?;
    write_records(&session.server.command_log.latest(kind, count), reply);
    Ok(())
}

const COMMANDLOG_LEN: Command = Command {
    name: "LEN",
    syntax: "<SLOW | LARGE-REQUEST | LARGE-REPLY>",
    summary: "Returns how many commands of a kind are kept.",
    since: "8.1.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(3),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(commandlog_len),
    subcommands: &[],
};

fn commandlog_len(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let kind = kind(args, 2)?;
    reply.integer(session.server.command_log.len(kind) as i64);
    Ok(())
}

const COMMANDLOG_RESET: Command = Command {
    name: "RESET",
    syntax: "<SLOW | LARGE-REQUEST | LARGE-REPLY>",
    summary: "Forgets the commands of a kind.",
    since: "8.1.0",
    complexity: "O(N) where N is the number of entries",
    group: Group::Server,
    arity: Exactly(3),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(commandlog_reset),
    subcommands: &[],
};

fn commandlog_reset(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    session.server.command_log.clear(kind(args, 2)?);
    reply.ok();
    Ok(())
}

fn kind(args: &Args<'_>, index: usize) -> Result<Kind> {
    let kinds = [
        ("slow", Kind::Slow),
        ("large-request", Kind::LargeRequest),
        ("large-reply", Kind::LargeReply),
    ];
    kinds
        .iter()
        .find(|(name, _)| args.is(index, name))
        .map(|(_, kind)| *kind)
        .ok_or(Error::from_static(
            "ERR type should be one of the following: slow, large-request, large-reply",
        ))
}

/// How many records are asked for: -1 for all.
fn count(args: &Args<'_>) -> Result<usize> {
    match storage::value::number::parse_i64(args.word(2)) {
        Some(-1) => Ok(usize::MAX),
        Some(count) if count >= 0 => Ok(count as usize),
        _ => Err(Error::from_static(
            "ERR count should be greater than or equal to -1",
        )),
    }
}

fn write_records(records: &[Record], reply: &mut Reply) {
    reply.array(records.len());
    for record in records {
        reply.array(6);
        reply.integer(record.id);
        reply.integer(record.at_seconds);
        reply.integer(record.value as i64);
        reply.array(record.words.len());
        for word in &record.words {
            reply.bulk(word);
        }
        reply.bulk(record.address.as_bytes());
        reply.bulk(&record.name);
    }
}

const LATENCY: Command = Command {
    name: "LATENCY",
    syntax: "",
    summary: "Shows how long commands take.",
    since: "2.8.13",
    complexity: "Depends on subcommand.",
    group: Group::Server,
    arity: AtLeast(2),
    keys: &[],
    flags: &[],
    categories: &[],
    run: Run::Container,
    subcommands: &[
        &DOCTOR,
        &GRAPH,
        &HISTOGRAM,
        &HISTORY,
        &LATENCY_HELP,
        &LATEST,
        &RESET,
    ],
};
const LATENCY_HELP: Command = super::help::subcommand("2.8.13", Group::Server, &[], help);
const LATEST: Command = Command {
    name: "LATEST",
    syntax: "",
    summary: "Returns the latest sample of every latency event.",
    since: "2.8.13",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(latest),
    subcommands: &[],
};

fn latest(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    let events = session.server.command_log.events();
    reply.array(events.len());
    for (name, event) in events {
        let (at, millis) = event.samples.back().copied().unwrap_or_default();
        reply.array(4);
        reply.bulk(name.as_bytes());
        reply.integer(at);
        reply.integer(millis as i64);
        reply.integer(event.worst_ms as i64);
    }
    Ok(())
}

const HISTORY: Command = Command {
    name: "HISTORY",
    syntax: "event",
    summary: "Returns the samples of a latency event.",
    since: "2.8.13",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(3),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(history),
    subcommands: &[],
};

fn history(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let events = session.server.command_log.events();
    let event = events.iter().find(|(name, _)| args.is(2, name));
    let samples = event.map(|(_, event)| &event.samples);
    reply.array(samples.map_or(0, |samples| samples.len()));
    for &(at, millis) in samples.into_iter().flatten() {
        reply.array(2);
        reply.integer(at);
        reply.integer(millis as i64);
    }
    Ok(())
}

const RESET: Command = Command {
    name: "RESET",
    syntax: "[event [event ...]]",
    summary: "Forgets the samples of latency events.",
    since: "2.8.13",
    complexity: "O(1)",
    group: Group::Server,
    arity: AtLeast(2),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(reset),
    subcommands: &[],
};

fn reset(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let gone = session.server.command_log.forget_events(|name| {
        args.len() == 2
            || args
                .from(2)
                .any(|word| word.eq_ignore_ascii_case(name.as_bytes()))
    });
    reply.integer(gone as i64);
    Ok(())
}

const GRAPH: Command = Command {
    name: "GRAPH",
    syntax: "event",
    summary: "Draws the samples of a latency event.",
    since: "2.8.13",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(3),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(draw),
    subcommands: &[],
};

fn draw(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let events = session.server.command_log.events();
    let Some((name, event)) = events.iter().find(|(name, _)| args.is(2, name)) else {
        let text = [b"No samples available for event '", args.word(2), b"'"].concat();
        return Err(Error::general(text));
    };
    let now = now().seconds();
    let samples: Vec<(u64, String)> = event
        .samples
        .iter()
        .map(|&(at, millis)| (millis, age(now - at)))
        .collect();
    let values = || samples.iter().map(|(millis, _)| *millis);
    let mut text = format!(
        "{name} - high {} ms, low {} ms (all time high {} ms)\n",
        values().max().unwrap_or(0),
        values().min().unwrap_or(0),
        event.worst_ms
    );
    text.push_str(&"-".repeat(80));
    text.push('\n');
    text.push_str(&graph::draw(&samples));
    reply.verbatim("txt", text.as_bytes());
    Ok(())
}

/// How long ago something was, in the largest unit that fits.
fn age(seconds: i64) -> String {
    let units = [(86_400, 'd'), (3600, 'h'), (60, 'm')];
    let unit = units.into_iter().find(|(size, _)| seconds >= *size);
    let (size, name) = unit.unwrap_or((1, 's'));
    format!("{}{name}", seconds / size)
}

const DOCTOR: Command = Command {
    name: "DOCTOR",
    syntax: "",
    summary: "Explains the latency events in words.",
    since: "2.8.13",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(doctor),
    subcommands: &[],
};

fn doctor(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    let events = session.server.command_log.events();
    let mut text = String::new();
    if session.server.config.settings().latency_monitor_threshold == 0 {
        text.push_str(
            "Latency monitoring is off: CONFIG SET latency-monitor-threshold <milliseconds> turns it on.\n",
        );
    }
    if events.is_empty() {
        text.push_str("No slow event was seen.\n");
    }
    for (name, event) in events {
        let total: u64 = event.samples.iter().map(|(_, millis)| *millis).sum();
        let count = event.samples.len().max(1) as u64;
        text.push_str(&format!(
            "{name}: {count} samples, {} ms on average, {} ms at worst. SLOWLOG GET shows which commands it were.\n",
            total / count,
            event.worst_ms
        ));
    }
    reply.verbatim("txt", text.as_bytes());
    Ok(())
}

const HISTOGRAM: Command = Command {
    name: "HISTOGRAM",
    syntax: "[command [command ...]]",
    summary: "Returns how many calls of commands stayed under which times.",
    since: "7.0.0",
    complexity: "O(N) where N is the number of commands with latency information",
    group: Group::Server,
    arity: AtLeast(2),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(histogram),
    subcommands: &[],
};

fn histogram(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let table = table::table();
    let asked: Vec<&Registered> = if args.len() == 2 {
        table.all().collect()
    } else {
        let mut asked = Vec::new();
        for registered in args.from(2).filter_map(|name| table.find_full(name)) {
            asked.push(registered);
            asked.extend(&registered.subcommands);
        }
        asked
    };
    let metrics = &session.server.metrics;
    let totals: Vec<_> = asked
        .into_iter()
        .map(|registered| (registered, metrics.command(registered.id)))
        .filter(|(_, total)| total.calls > 0)
        .collect();
    reply.map(totals.len());
    for (registered, total) in totals {
        reply.bulk(registered.full_name.as_bytes());
        reply.map(2);
        reply.bulk(b"calls");
        reply.integer(total.calls as i64);
        reply.bulk(b"histogram_usec");
        let slot = reply.array_deferred();
        let (mut buckets, mut below) = (0, 0);
        let mut counts = total.latency.iter().enumerate().peekable();
        while let Some((bucket, &count)) = counts.next() {
            below += count;
            // A bucket ends at a power of two of nanoseconds; 1024 of them pass for a microsecond.
            let same = counts
                .peek()
                .is_some_and(|(next, _)| *next <= NANOSECOND_BUCKETS);
            if (count > 0 || bucket == NANOSECOND_BUCKETS && below > 0) && !same {
                reply.integer(1 << bucket.saturating_sub(NANOSECOND_BUCKETS));
                reply.integer(below as i64);
                buckets += 1;
            }
        }
        reply.set_map_len(slot, buckets);
    }
    Ok(())
}

/// Buckets that end before or at the first microsecond.
const NANOSECOND_BUCKETS: usize = 10;
