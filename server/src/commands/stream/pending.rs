//! Commands on what was delivered and not acknowledged: XACK, XPENDING, XCLAIM and XAUTOCLAIM.

use std::collections::BTreeMap;

use storage::{
    db::Db,
    keyspace::Key,
    value::{
        number,
        stream::{Id, MIN_ID, Stream},
    },
};

use super::{id, no_group, read::create_consumer, require_group, write_entry, write_id};
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
    error::Error,
};

const INVALID_COUNT: Error = Error::from_static("ERR COUNT must be > 0");

/// XAUTOCLAIM looks at so many pending entries for each that it may claim.
const LOOKS_PER_CLAIM: usize = 10;
const CLAIM_MAX: i64 = i64::MAX / 64;

pub(super) const XACK: Command = Command {
    name: "XACK",
    syntax: "key group id [id ...]",
    summary: "Acknowledges pending entries of a group and returns how many.",
    since: "5.0.0",
    complexity: "O(1) for each ID",
    group: Group::Stream,
    arity: AtLeast(4),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(xack),
    subcommands: &[],
};

fn xack(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let name = args.word(2);
    db.read::<Stream>(args.key(1))?;
    let Some(mut stream) = db
        .write::<Stream>(args.key(1))?
        .filter(|stream| stream.group(name).is_some())
    else {
        reply.integer(0);
        return Ok(());
    };
    let ids = args.from(3).map(id::parse).collect::<Result<Vec<Id>>>()?;
    let acknowledged = stream
        .change_group(name, |group| {
            ids.into_iter().filter(|&id| group.acknowledge(id)).count()
        })
        .unwrap_or_default();
    drop(stream);
    db.changes.dirty += acknowledged as u64;
    reply.integer(acknowledged as i64);
    Ok(())
}

pub(super) const XPENDING: Command = Command {
    name: "XPENDING",
    syntax: "key group [[IDLE min-idle-time] start end count [consumer]]",
    summary: "Tells about the pending entries of a group.",
    since: "5.0.0",
    complexity: "O(N) with N the number of entries returned",
    group: Group::Stream,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(xpending),
    subcommands: &[],
};

fn xpending(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (key, name) = (args.key(1), args.word(2));
    if args.len() == 3 {
        let stream = require_group(db.read::<Stream>(key)?, key.bytes, name)?;
        summarize(stream, name, reply);
        return Ok(());
    }
    if args.len() < 6 || args.len() > 9 {
        return Err(Error::SYNTAX);
    }
    let (mut at, mut min_idle) = (3, 0);
    if args.is(3, "IDLE") {
        min_idle = args.integer(4)?;
        if args.len() < 8 {
            return Err(Error::SYNTAX);
        }
        at = 5;
    }
    let count = usize::try_from(args.integer(at + 2)?).unwrap_or_default();
    let start = id::parse_start(args.word(at))?;
    let end = id::parse_end(args.word(at + 1))?;
    let stream = require_group(db.read::<Stream>(key)?, key.bytes, name)?;
    let group = stream
        .group(name)
        .ok_or_else(|| no_group(key.bytes, name))?;
    let now = db.now().millis();
    let slot = reply.array_deferred();
    let mut len = 0;
    let mut write = |id: Id| {
        let Some(pending) = group.pending(id) else {
            return false;
        };
        let idle = now.saturating_sub(pending.delivered_ms);
        if idle < min_idle {
            return false;
        }
        reply.array(4);
        write_id(reply, id);
        reply.bulk(&pending.consumer);
        reply.integer(idle.max(0));
        reply.integer(pending.deliveries as i64);
        len += 1;
        len == count
    };
    if count > 0 {
        match args.get(at + 3) {
            Some(name) => {
                if let Some(consumer) = group.consumer(name) {
                    consumer
                        .pending_from(start)
                        .take_while(|&id| id <= end)
                        .any(&mut write);
                }
            }
            None => {
                group
                    .pending_from(start)
                    .map(|(id, _)| id)
                    .take_while(|&id| id <= end)
                    .any(&mut write);
            }
        }
    }
    reply.set_array_len(slot, len);
    Ok(())
}

/// How many entries are pending, which first and last, and how many for each consumer.
fn summarize(stream: &Stream, name: &[u8], reply: &mut Reply) {
    let bounds = stream.group(name).and_then(|group| {
        let first = group.pending_from(MIN_ID).next()?.0;
        Some((group, first, group.last_pending()?))
    });
    reply.array(4);
    let Some((group, first, last)) = bounds else {
        reply.integer(0);
        reply.null();
        reply.null();
        reply.null_array();
        return;
    };
    reply.integer(group.pending_len() as i64);
    write_id(reply, first);
    write_id(reply, last);
    let slot = reply.array_deferred();
    let mut len = 0;
    for (name, consumer) in group.consumers() {
        if consumer.pending_len() > 0 {
            reply.array(2);
            reply.bulk(name);
            reply.bulk_integer(consumer.pending_len() as i64);
            len += 1;
        }
    }
    reply.set_array_len(slot, len);
}

pub(super) const XCLAIM: Command = Command {
    name: "XCLAIM",
    syntax: "key group consumer min-idle-time id [id ...] [IDLE ms] [TIME unix-time-milliseconds] [RETRYCOUNT count] [FORCE] [JUSTID] [LASTID lastid]",
    summary: "Makes a consumer the owner of pending entries.",
    since: "5.0.0",
    complexity: "O(log N) with N the number of pending entries",
    group: Group::Stream,
    arity: AtLeast(6),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(xclaim),
    subcommands: &[],
};

struct Claim {
    ids: Vec<Id>,
    min_idle: i64,
    delivered_ms: i64,
    deliveries: Option<u64>,
    force: bool,
    only_ids: bool,
    last_id: Id,
}

impl Claim {
    fn read(args: &Args<'_>, now: i64) -> Result<Claim> {
        let mut ids = Vec::new();
        let mut at = 5;
        while let Some(id) = args.get(at).and_then(|word| id::parse(word).ok()) {
            ids.push(id);
            at += 1;
        }
        let mut claim = Claim {
            ids,
            min_idle: min_idle(args, "XCLAIM")?,
            delivered_ms: now,
            deliveries: None,
            force: false,
            only_ids: false,
            last_id: MIN_ID,
        };
        let mut delivered = None;
        while at < args.len() {
            let has_more = at + 1 < args.len();
            if args.is(at, "FORCE") {
                claim.force = true;
            } else if args.is(at, "JUSTID") {
                claim.only_ids = true;
            } else if args.is(at, "IDLE") && has_more {
                at += 1;
                delivered = Some(now.saturating_sub(option(args, at, "IDLE")?));
            } else if args.is(at, "TIME") && has_more {
                at += 1;
                delivered = Some(option(args, at, "TIME")?);
            } else if args.is(at, "RETRYCOUNT") && has_more {
                at += 1;
                claim.deliveries = u64::try_from(option(args, at, "RETRYCOUNT")?).ok();
            } else if args.is(at, "LASTID") && has_more {
                at += 1;
                claim.last_id = id::parse(args.word(at))?;
            } else {
                let text = [b"Unrecognized XCLAIM option '", args.word(at), b"'"].concat();
                return Err(Error::general(text));
            }
            at += 1;
        }
        claim.delivered_ms = delivered
            .filter(|time| (0..=now).contains(time))
            .unwrap_or(now);
        Ok(claim)
    }
}

fn option(args: &Args<'_>, at: usize, name: &str) -> Result<i64> {
    number::parse_i64(args.word(at))
        .ok_or_else(|| Error::general(format!("Invalid {name} option argument for XCLAIM")))
}

fn min_idle(args: &Args<'_>, command: &str) -> Result<i64> {
    match number::parse_i64(args.word(4)) {
        Some(min_idle) => Ok(min_idle.max(0)),
        None => Err(Error::general(format!(
            "Invalid min-idle-time argument for {command}"
        ))),
    }
}

fn xclaim(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (key, name, consumer) = (args.key(1), args.word(2), args.word(3));
    require_group(db.read::<Stream>(key)?, key.bytes, name)?;
    let now = db.now().millis();
    let claim = Claim::read(args, now)?;
    create_consumer(db, key, name, consumer, now)?;
    let Some(mut stream) = db.write::<Stream>(key)? else {
        return Err(no_group(key.bytes, name));
    };
    let entries = stream.clone();
    let slot = reply.array_deferred();
    let outcome = stream.change_group(name, |group| {
        let moved_on = claim.last_id > group.last_id;
        group.last_id = group.last_id.max(claim.last_id);
        let (mut claimed, mut gone) = (Vec::new(), Vec::new());
        for &id in &claim.ids {
            let pending = group.pending(id).cloned();
            let Some(entry) = entries.get(id) else {
                if pending.is_some() {
                    group.acknowledge(id);
                    gone.push(id);
                }
                continue;
            };
            let before = match pending {
                Some(pending) => {
                    let idle = now.saturating_sub(pending.delivered_ms);
                    if claim.min_idle > 0 && idle < claim.min_idle {
                        continue;
                    }
                    pending.deliveries
                }
                None if claim.force => 1,
                None => continue,
            };
            let deliveries = match claim.deliveries {
                Some(deliveries) => deliveries,
                None => before.saturating_add(u64::from(!claim.only_ids)),
            };
            group.assign(id, consumer, claim.delivered_ms, deliveries);
            group.saw(consumer, now, true);
            if claim.only_ids {
                write_id(reply, id);
            } else {
                write_entry(reply, &entry);
            }
            claimed.push(id);
        }
        (claimed, gone, moved_on.then_some(group.last_id))
    });
    drop(stream);
    let Some((claimed, gone, moved_to)) = outcome else {
        return Err(no_group(key.bytes, name));
    };
    reply.set_array_len(slot, claimed.len());
    settle(db, key, name, &claimed, &gone);
    if let Some(last) = moved_to {
        db.changes.dirty += 1;
        db.changes
            .log_instead(&[b"XGROUP", b"SETID", key.bytes, name, &id::text(last)]);
    }
    Ok(())
}

/// Counts and logs what was claimed and what was found deleted.
fn settle(db: &mut Db<'_>, key: Key<'_>, name: &[u8], claimed: &[Id], gone: &[Id]) {
    db.changes.dirty += (claimed.len() + gone.len()) as u64;
    for &id in claimed {
        log_claim(db, key.bytes, name, id);
    }
    for &id in gone {
        db.changes
            .log_instead(&[b"XACK", key.bytes, name, &id::text(id)]);
    }
    db.changes.log_nothing();
}

/// Logs a pending entry as it is now.
pub(super) fn log_claim(db: &mut Db<'_>, key: &[u8], name: &[u8], id: Id) {
    if !db
        .changes
        .listeners
        .contains(storage::changes::Listeners::LOG)
    {
        return;
    }
    let found = db.peek(Key::new(key)).and_then(|entry| {
        let storage::value::ValueRef::Stream(stream) = entry.value() else {
            return None;
        };
        let group = stream.group(name)?;
        Some((group.pending(id)?.clone(), group.last_id))
    });
    let Some((pending, last)) = found else {
        return;
    };
    let (mut time, mut count) = (itoa::Buffer::new(), itoa::Buffer::new());
    db.changes.log_instead(&[
        b"XCLAIM",
        key,
        name,
        &pending.consumer,
        b"0",
        &id::text(id),
        b"TIME",
        time.format(pending.delivered_ms).as_bytes(),
        b"RETRYCOUNT",
        count.format(pending.deliveries).as_bytes(),
        b"FORCE",
        b"JUSTID",
        b"LASTID",
        &id::text(last),
    ]);
}

pub(super) const XAUTOCLAIM: Command = Command {
    name: "XAUTOCLAIM",
    syntax: "key group consumer min-idle-time start [COUNT count] [JUSTID]",
    summary: "Makes a consumer the owner of pending entries that were idle for long.",
    since: "6.2.0",
    complexity: "O(1) if COUNT is small",
    group: Group::Stream,
    arity: AtLeast(6),
    keys: &[Keys::at(1, Access::Delete)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(xautoclaim),
    subcommands: &[],
};

fn xautoclaim(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (key, name, consumer) = (args.key(1), args.word(2), args.word(3));
    db.get(key);
    let min_idle = min_idle(args, "XAUTOCLAIM")?;
    let start = id::parse_start(args.word(5))?;
    let (mut count, mut only_ids) = (100, false);
    let mut at = 6;
    while at < args.len() {
        if args.is(at, "COUNT") && at + 1 < args.len() {
            at += 1;
            count = number::parse_i64(args.word(at))
                .filter(|count| (1..=CLAIM_MAX).contains(count))
                .and_then(|count| usize::try_from(count).ok())
                .ok_or(INVALID_COUNT)?;
        } else if args.is(at, "JUSTID") {
            only_ids = true;
        } else {
            return Err(Error::SYNTAX);
        }
        at += 1;
    }
    require_group(db.read_to_change::<Stream>(key)?, key.bytes, name)?;
    let now = db.now().millis();
    create_consumer(db, key, name, consumer, now)?;
    let Some(mut stream) = db.write::<Stream>(key)? else {
        return Err(no_group(key.bytes, name));
    };
    let entries = stream.clone();
    // What is claimed, with whether it still exists.
    let mut chosen: BTreeMap<Id, bool> = BTreeMap::new();
    let mut next = MIN_ID;
    let mut looks = count.saturating_mul(LOOKS_PER_CLAIM);
    for (id, pending) in entries
        .group(name)
        .into_iter()
        .flat_map(|group| group.pending_from(start))
    {
        if looks == 0 || chosen.len() == count {
            next = id;
            break;
        }
        looks -= 1;
        let exists = entries.contains(id);
        let idle = now.saturating_sub(pending.delivered_ms);
        if !exists || min_idle == 0 || idle >= min_idle {
            chosen.insert(id, exists);
        }
    }
    stream.change_group(name, |group| {
        for (&id, &exists) in &chosen {
            if exists {
                let before = group.pending(id).map_or(0, |pending| pending.deliveries);
                let deliveries = before.saturating_add(u64::from(!only_ids));
                group.assign(id, consumer, now, deliveries);
                group.saw(consumer, now, true);
            } else {
                group.acknowledge(id);
            }
        }
    });
    drop(stream);
    let pick = |wanted| chosen.iter().filter(move |(_, exists)| **exists == wanted);
    let claimed: Vec<Id> = pick(true).map(|(id, _)| *id).collect();
    let gone: Vec<Id> = pick(false).map(|(id, _)| *id).collect();
    reply.array(3);
    write_id(reply, next);
    reply.array(claimed.len());
    for &id in &claimed {
        match entries.get(id) {
            Some(entry) if !only_ids => write_entry(reply, &entry),
            _ => write_id(reply, id),
        }
    }
    reply.array(gone.len());
    gone.iter().for_each(|&id| write_id(reply, id));
    settle(db, key, name, &claimed, &gone);
    Ok(())
}
