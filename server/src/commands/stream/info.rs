//! XINFO: what streams, groups and consumers are like.

use storage::{
    db::Db,
    value::stream::{Consumer, Entry, Group as StreamGroup, Id, MAX_ID, MIN_ID, Stream},
};

use super::{no_group_for_key, subcommand_syntax, write_entry, write_id};
use crate::{
    dispatch::{
        args::Args,
        command::{Access, Arity::*, Category, Command, Flag, Group, Keys, Reply, Result, Run},
        error::Error,
    },
    session::Session,
};

/// Entries that XINFO STREAM FULL shows of each list unless told otherwise.
const SHOWN: usize = 10;

pub(super) const XINFO: Command = Command {
    name: "XINFO",
    syntax: "",
    summary: "Commands that tell about streams.",
    since: "5.0.0",
    complexity: "Depends on the subcommand.",
    group: Group::Stream,
    arity: AtLeast(2),
    keys: &[],
    flags: &[],
    categories: &[],
    run: Run::Container,
    subcommands: &[&CONSUMERS, &GROUPS, &INFO_HELP, &STREAM],
};

const STREAM: Command = Command {
    name: "STREAM",
    syntax: "key [FULL [COUNT count]]",
    summary: "Tells about a stream.",
    since: "5.0.0",
    complexity: "O(1), O(N) for FULL",
    group: Group::Stream,
    arity: AtLeast(3),
    keys: &[Keys::at(2, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(stream),
    subcommands: &[],
};

fn stream(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let stream = db.read::<Stream>(args.key(2))?.ok_or(Error::NO_SUCH_KEY)?;
    let full = match args.len() {
        3 => false,
        4 | 6 if args.is(3, "FULL") => true,
        _ => return Err(subcommand_syntax("XINFO", args.word(1))),
    };
    let mut shown = SHOWN;
    if args.len() == 6 {
        if !args.is(4, "COUNT") {
            return Err(subcommand_syntax("XINFO", args.word(1)));
        }
        shown = match args.integer(5)? {
            0 => usize::MAX,
            ..0 => SHOWN,
            count => usize::try_from(count).unwrap_or(usize::MAX),
        };
    }
    reply.map(if full { 9 } else { 10 });
    reply.bulk(b"length");
    reply.integer(stream.len() as i64);
    reply.bulk(b"radix-tree-keys");
    reply.integer(stream.block_count() as i64);
    reply.bulk(b"radix-tree-nodes");
    reply.integer(radix_nodes(stream) as i64);
    reply.bulk(b"last-generated-id");
    write_id(reply, stream.last_id);
    reply.bulk(b"max-deleted-entry-id");
    write_id(reply, stream.max_deleted_id);
    reply.bulk(b"entries-added");
    reply.integer(stream.entries_added as i64);
    reply.bulk(b"recorded-first-entry-id");
    write_id(reply, stream.first_id());
    if full {
        write_full(stream, shown, reply);
        return Ok(());
    }
    reply.bulk(b"groups");
    reply.integer(stream.groups_len() as i64);
    reply.bulk(b"first-entry");
    write_entry_or_null(stream.range(MIN_ID, MAX_ID).next(), reply);
    reply.bulk(b"last-entry");
    write_entry_or_null(stream.last_entry(), reply);
    Ok(())
}

fn write_entry_or_null(entry: Option<Entry<'_>>, reply: &mut Reply) {
    match entry {
        Some(entry) => write_entry(reply, &entry),
        None => reply.null(),
    }
}

/// Nodes of the radix tree that Valkey would have: one for each run of bytes without a fork, and each fork and leaf.
fn radix_nodes(stream: &Stream) -> usize {
    let keys: Vec<[u8; 16]> = stream
        .block_ids()
        .map(|(ms, seq)| (u128::from(ms) << 64 | u128::from(seq)).to_be_bytes())
        .collect();
    if keys.is_empty() {
        return 1;
    }
    nodes_below(&keys, 0)
}

/// Nodes for ascending keys whose first `depth` bytes agree.
fn nodes_below(keys: &[[u8; 16]], depth: usize) -> usize {
    let (first, last) = (&keys[0], &keys[keys.len() - 1]);
    let common = first[depth..]
        .iter()
        .zip(&last[depth..])
        .take_while(|(one, other)| one == other)
        .count();
    let fork = depth + common;
    let run = usize::from(common > 0);
    if fork == first.len() {
        return run + 1;
    }
    let branches = keys.chunk_by(|one, other| one[fork] == other[fork]);
    run + 1
        + branches
            .map(|keys| nodes_below(keys, fork + 1))
            .sum::<usize>()
}

fn write_full(stream: &Stream, shown: usize, reply: &mut Reply) {
    reply.bulk(b"entries");
    reply.array(stream.len().min(shown));
    stream
        .range(MIN_ID, MAX_ID)
        .take(shown)
        .for_each(|entry| write_entry(reply, &entry));
    reply.bulk(b"groups");
    reply.array(stream.groups_len());
    for (name, group) in stream.groups() {
        reply.map(7);
        reply.bulk(b"name");
        reply.bulk(name);
        write_progress(stream, group, reply);
        reply.bulk(b"pel-count");
        reply.integer(group.pending_len() as i64);
        reply.bulk(b"pending");
        reply.array(group.pending_len().min(shown));
        for (id, pending) in group.pending_from(MIN_ID).take(shown) {
            reply.array(4);
            write_id(reply, id);
            reply.bulk(&pending.consumer);
            reply.integer(pending.delivered_ms);
            reply.integer(pending.deliveries as i64);
        }
        reply.bulk(b"consumers");
        reply.array(group.consumers_len());
        for (name, consumer) in group.consumers() {
            write_full_consumer(group, name, consumer, shown, reply);
        }
    }
}

fn write_full_consumer(
    group: &StreamGroup,
    name: &[u8],
    consumer: &Consumer,
    shown: usize,
    reply: &mut Reply,
) {
    reply.map(5);
    reply.bulk(b"name");
    reply.bulk(name);
    reply.bulk(b"seen-time");
    reply.integer(consumer.seen_ms);
    reply.bulk(b"active-time");
    reply.integer(consumer.active_ms.unwrap_or(-1));
    reply.bulk(b"pel-count");
    reply.integer(consumer.pending_len() as i64);
    reply.bulk(b"pending");
    let own: Vec<Id> = consumer.pending_from(MIN_ID).take(shown).collect();
    reply.array(own.len());
    for id in own {
        let pending = group.pending(id);
        reply.array(3);
        write_id(reply, id);
        reply.integer(pending.map_or(0, |pending| pending.delivered_ms));
        reply.integer(pending.map_or(0, |pending| pending.deliveries) as i64);
    }
}

/// How far a group has read.
fn write_progress(stream: &Stream, group: &StreamGroup, reply: &mut Reply) {
    reply.bulk(b"last-delivered-id");
    write_id(reply, group.last_id);
    reply.bulk(b"entries-read");
    match group.entries_read {
        Some(read) => reply.integer(read as i64),
        None => reply.null(),
    }
    reply.bulk(b"lag");
    match lag(stream, group) {
        Some(lag) => reply.integer(lag),
        None => reply.null(),
    }
}

/// How many entries the group has yet to read, if that can be told.
fn lag(stream: &Stream, group: &StreamGroup) -> Option<i64> {
    if stream.entries_added == 0 {
        return Some(0);
    }
    let read = group
        .entries_read
        .filter(|_| !stream.has_gaps_from(group.last_id))
        .or_else(|| stream.entries_until(group.last_id))?;
    Some((stream.entries_added as i64).wrapping_sub(read as i64))
}

const GROUPS: Command = Command {
    name: "GROUPS",
    syntax: "key",
    summary: "Tells about the groups of a stream.",
    since: "5.0.0",
    complexity: "O(N) with N the number of groups",
    group: Group::Stream,
    arity: Exactly(3),
    keys: &[Keys::at(2, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(groups),
    subcommands: &[],
};

fn groups(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let stream = db.read::<Stream>(args.key(2))?.ok_or(Error::NO_SUCH_KEY)?;
    reply.array(stream.groups_len());
    for (name, group) in stream.groups() {
        reply.map(6);
        reply.bulk(b"name");
        reply.bulk(name);
        reply.bulk(b"consumers");
        reply.integer(group.consumers_len() as i64);
        reply.bulk(b"pending");
        reply.integer(group.pending_len() as i64);
        write_progress(stream, group, reply);
    }
    Ok(())
}

const CONSUMERS: Command = Command {
    name: "CONSUMERS",
    syntax: "key group",
    summary: "Tells about the consumers of a group.",
    since: "5.0.0",
    complexity: "O(N) with N the number of consumers",
    group: Group::Stream,
    arity: Exactly(4),
    keys: &[Keys::at(2, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(consumers),
    subcommands: &[],
};

fn consumers(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (key, name) = (args.key(2), args.word(3));
    let stream = db.read::<Stream>(key)?.ok_or(Error::NO_SUCH_KEY)?;
    let group = stream
        .group(name)
        .ok_or_else(|| no_group_for_key(name, key.bytes))?;
    let now = db.now().millis();
    reply.array(group.consumers_len());
    for (name, consumer) in group.consumers() {
        reply.map(4);
        reply.bulk(b"name");
        reply.bulk(name);
        reply.bulk(b"pending");
        reply.integer(consumer.pending_len() as i64);
        reply.bulk(b"idle");
        reply.integer(now.saturating_sub(consumer.seen_ms).max(0));
        reply.bulk(b"inactive");
        let inactive = consumer
            .active_ms
            .map_or(-1, |active| now.saturating_sub(active).max(0));
        reply.integer(inactive);
    }
    Ok(())
}

const INFO_HELP: Command =
    crate::commands::help::subcommand("5.0.0", Group::Stream, &[Category::Stream], help);

fn help(_session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    crate::commands::help(reply, "XINFO", HELP_LINES);
    Ok(())
}

const HELP_LINES: &[&str] = &[
    "CONSUMERS <key> <groupname>",
    "    Show consumers of <groupname>.",
    "GROUPS <key>",
    "    Show the stream consumer groups.",
    "STREAM <key> [FULL [COUNT <count>]",
    "    Show information about the stream.",
];
