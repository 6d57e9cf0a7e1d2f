//! Hashes: fields with values, some of which may expire on their own.
//!
//! A field that has expired is seen by nobody, though it counts in HLEN until maintenance has removed it. What depends on
//! the time, as whether a field is new, enters the command log as what came of it.

mod deadlines;
mod fields;
mod walk;

use std::sync::atomic::{AtomicU64, Ordering};

use protocol::resp::reply::ReplyWriter;
use storage::{
    changes::{EventClass, Listeners},
    db::Db,
    keyspace::Key,
    time::Timestamp,
    value::{
        Settings,
        element::Element,
        hash::{FieldDeadline, Hash, Limits},
        number::LongDouble,
    },
};

use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
    error::Error,
};

pub const COMMANDS: &[&Command] = &[
    &HDEL,
    &HEXISTS,
    &deadlines::HEXPIRE,
    &deadlines::HEXPIREAT,
    &deadlines::HEXPIRETIME,
    &HGET,
    &walk::HGETALL,
    &fields::HGETDEL,
    &fields::HGETEX,
    &HINCRBY,
    &HINCRBYFLOAT,
    &walk::HKEYS,
    &HLEN,
    &HMGET,
    &HMSET,
    &deadlines::HPERSIST,
    &deadlines::HPEXPIRE,
    &deadlines::HPEXPIREAT,
    &deadlines::HPEXPIRETIME,
    &deadlines::HPTTL,
    &walk::HRANDFIELD,
    &walk::HSCAN,
    &HSET,
    &fields::HSETEX,
    &HSETNX,
    &HSTRLEN,
    &deadlines::HTTL,
    &walk::HVALS,
];

const HSET: Command = Command {
    name: "HSET",
    syntax: "key field value [field value ...]",
    summary: "Sets fields of a hash.",
    since: "2.0.0",
    complexity: "O(N) for N fields",
    group: Group::Hash,
    arity: AtLeast(4),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(hset),
    subcommands: &[],
};

fn hset(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let added = set_pairs(db, args, "hset")?;
    reply.integer(added as i64);
    Ok(())
}

const HMSET: Command = Command {
    name: "HMSET",
    syntax: "key field value [field value ...]",
    summary: "Sets fields of a hash; HSET with another reply.",
    since: "2.0.0",
    complexity: "O(N) for N fields",
    group: Group::Hash,
    arity: AtLeast(4),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(hmset),
    subcommands: &[],
};

fn hmset(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    set_pairs(db, args, "hmset")?;
    reply.ok();
    Ok(())
}

/// Sets the fields to the values that follow them; how many fields are new.
fn set_pairs(db: &mut Db<'_>, args: &Args<'_>, command: &str) -> Result<usize> {
    if !args.len().is_multiple_of(2) {
        return Err(Error::wrong_arity(command));
    }
    let key = args.key(1);
    let (limits, now) = (limits(db.settings()), db.expired_by());
    let pairs = (args.len() - 2) / 2;
    let mut opened = db.write_or_create(key, Hash::new)?;
    let hash = &mut *opened;
    if pairs > 1 {
        hash.prepare(pairs, text_bytes(args.from(2)), &limits);
    }
    let len = hash.len();
    let added = (2..args.len())
        .step_by(2)
        .filter(|&at| {
            let value = args.word(at + 1);
            hash.set(args.word(at), value, FieldDeadline::Clear, now, &limits)
        })
        .count();
    let replaced = added - (hash.len() - len);
    drop(opened);
    tell_replaced(db, key, replaced);
    changed_fields(db, key, pairs, "hset");
    Ok(added)
}

/// Bytes of all these words.
fn text_bytes<'a>(words: impl Iterator<Item = &'a [u8]>) -> usize {
    words.map(<[u8]>::len).sum()
}

const HSETNX: Command = Command {
    name: "HSETNX",
    syntax: "key field value",
    summary: "Sets a field of a hash if there is no such field.",
    since: "2.0.0",
    complexity: "O(1)",
    group: Group::Hash,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Insert)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(hsetnx),
    subcommands: &[],
};

fn hsetnx(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (key, field, value) = (args.key(1), args.word(2), args.word(3));
    let (limits, now) = (limits(db.settings()), db.expired_by());
    let exists = db
        .write::<Hash>(key)?
        .is_some_and(|hash| hash.contains(field, now));
    if !exists {
        let mut hash = db.write_or_create(key, Hash::new)?;
        let len = hash.len();
        hash.set(field, value, FieldDeadline::Clear, now, &limits);
        let replaced = usize::from(hash.len() == len);
        drop(hash);
        tell_replaced(db, key, replaced);
        db.changed(key, EventClass::Hash, "hset");
        db.changes.log_instead(&[b"HSET", key.bytes, field, value]);
    }
    reply.integer(i64::from(!exists));
    Ok(())
}

const HGET: Command = Command {
    name: "HGET",
    syntax: "key field",
    summary: "Returns the value of a field of a hash.",
    since: "2.0.0",
    complexity: "O(1)",
    group: Group::Hash,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(hget),
    subcommands: &[],
};

fn hget(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let hash = db.read::<Hash>(args.key(1))?;
    write_value(
        hash.and_then(|hash| hash.get(args.word(2), db.expired_by())),
        reply,
    );
    Ok(())
}

const HMGET: Command = Command {
    name: "HMGET",
    syntax: "key field [field ...]",
    summary: "Returns the values of several fields of a hash.",
    since: "2.0.0",
    complexity: "O(N) for N fields",
    group: Group::Hash,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(hmget),
    subcommands: &[],
};

fn hmget(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let hash = db.read::<Hash>(args.key(1))?;
    reply.array(args.len() - 2);
    for field in args.from(2) {
        write_value(
            hash.and_then(|hash| hash.get(field, db.expired_by())),
            reply,
        );
    }
    Ok(())
}

const HDEL: Command = Command {
    name: "HDEL",
    syntax: "key field [field ...]",
    summary: "Removes fields from a hash.",
    since: "2.0.0",
    complexity: "O(N) for N fields",
    group: Group::Hash,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Delete)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(hdel),
    subcommands: &[],
};

fn hdel(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (key, now) = (args.key(1), db.expired_by());
    let removed = match db.write::<Hash>(key)? {
        None => 0,
        Some(mut hash) => args
            .from(2)
            .filter(|&field| hash.remove(field, now))
            .count(),
    };
    changed_fields(db, key, removed, "hdel");
    reply.integer(removed as i64);
    Ok(())
}

const HLEN: Command = Command {
    name: "HLEN",
    syntax: "key",
    summary: "Counts the fields of a hash.",
    since: "2.0.0",
    complexity: "O(1)",
    group: Group::Hash,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Inspect)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(hlen),
    subcommands: &[],
};

fn hlen(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let hash = db.read::<Hash>(args.key(1))?;
    reply.integer(hash.map_or(0, |hash| hash.len() as i64));
    Ok(())
}

const HSTRLEN: Command = Command {
    name: "HSTRLEN",
    syntax: "key field",
    summary: "Returns the length of the value of a field.",
    since: "3.2.0",
    complexity: "O(1)",
    group: Group::Hash,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Inspect)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(hstrlen),
    subcommands: &[],
};

fn hstrlen(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let hash = db.read::<Hash>(args.key(1))?;
    let value = hash.and_then(|hash| hash.get(args.word(2), db.expired_by()));
    reply.integer(value.map_or(0, |value| value.text_len() as i64));
    Ok(())
}

const HEXISTS: Command = Command {
    name: "HEXISTS",
    syntax: "key field",
    summary: "Tells whether a hash has a field.",
    since: "2.0.0",
    complexity: "O(1)",
    group: Group::Hash,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Inspect)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(hexists),
    subcommands: &[],
};

fn hexists(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let hash = db.read::<Hash>(args.key(1))?;
    let exists = hash.is_some_and(|hash| hash.contains(args.word(2), db.expired_by()));
    reply.integer(i64::from(exists));
    Ok(())
}

const HINCRBY: Command = Command {
    name: "HINCRBY",
    syntax: "key field increment",
    summary: "Adds to the integer of a field.",
    since: "2.0.0",
    complexity: "O(1)",
    group: Group::Hash,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Update)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(hincrby),
    subcommands: &[],
};

fn hincrby(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    const NOT_AN_INTEGER: Error = Error::from_static("ERR hash value is not an integer");
    let (key, field, by) = (args.key(1), args.word(2), args.integer(3)?);
    let now = db.expired_by();
    let old = match db.write::<Hash>(key)? {
        Some(hash) => match hash.get(field, now) {
            Some(value) => value.integer().ok_or(NOT_AN_INTEGER)?,
            None => 0,
        },
        None => 0,
    };
    let sum = old.checked_add(by).ok_or(Error::OVERFLOW)?;
    let mut text = itoa::Buffer::new();
    store_sum(db, key, field, text.format(sum).as_bytes(), "hincrby")?;
    reply.integer(sum);
    Ok(())
}

const HINCRBYFLOAT: Command = Command {
    name: "HINCRBYFLOAT",
    syntax: "key field increment",
    summary: "Adds to the number of a field.",
    since: "2.6.0",
    complexity: "O(1)",
    group: Group::Hash,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Update)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(hincrbyfloat),
    subcommands: &[],
};

fn hincrbyfloat(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    const NOT_A_FLOAT: Error = Error::from_static("ERR hash value is not a float");
    const NOT_FINITE: Error = Error::from_static("ERR value is NaN or Infinity");
    let (key, field, now) = (args.key(1), args.word(2), db.expired_by());
    let by = LongDouble::parse(args.word(3)).ok_or(Error::NOT_A_FLOAT)?;
    if !by.is_finite() {
        return Err(NOT_FINITE);
    }
    let old = match db.write::<Hash>(key)? {
        Some(hash) => match hash.get(field, now) {
            Some(value) => {
                LongDouble::parse(value.bytes(&mut itoa::Buffer::new())).ok_or(NOT_A_FLOAT)?
            }
            None => LongDouble::ZERO,
        },
        None => LongDouble::ZERO,
    };
    let mut sum = Vec::new();
    old.checked_add(by)
        .filter(|sum| sum.is_finite())
        .ok_or(Error::NAN_OR_INFINITY)?
        .write(&mut sum);
    store_sum(db, key, field, &sum, "hincrbyfloat")?;
    reply.bulk(&sum);
    Ok(())
}

/// Sets a field that keeps its deadline, and logs the outcome.
fn store_sum(
    db: &mut Db<'_>,
    key: Key<'_>,
    field: &[u8],
    sum: &[u8],
    event: &'static str,
) -> Result {
    let (limits, now) = (limits(db.settings()), db.expired_by());
    let mut hash = db.write_or_create(key, Hash::new)?;
    let len = hash.len();
    let is_new = hash.set(field, sum, FieldDeadline::Keep, now, &limits);
    let replaced = usize::from(is_new && hash.len() == len);
    let deadline = hash.deadline(field, now).flatten();
    drop(hash);
    tell_replaced(db, key, replaced);
    db.changed(key, EventClass::Hash, event);
    log_pairs(db, key, deadline, &[field, sum]);
    Ok(())
}

/// Tells that so many of the fields just set were there, but had expired, if any were.
fn tell_replaced(db: &mut Db<'_>, key: Key<'_>, expired: usize) {
    if expired > 0 {
        fields::count_expired(db, expired);
        db.notify(key, EventClass::Hash, "hexpired");
    }
}

/// Tells that so many fields were set or removed, if any were.
fn changed_fields(db: &mut Db<'_>, key: Key<'_>, count: usize, event: &'static str) {
    if count > 0 {
        db.changed(key, EventClass::Hash, event);
        db.changes.dirty += count as u64 - 1;
    }
}

/// Logs fields with their values in turns, and the one deadline they have.
fn log_pairs(db: &mut Db<'_>, key: Key<'_>, deadline: Option<Timestamp>, pairs: &[&[u8]]) {
    match deadline {
        None => log_words(db, &[b"HSET", key.bytes], pairs),
        Some(at) => log_words(
            db,
            &[
                b"HSETEX",
                key.bytes,
                b"PXAT",
                at.millis().to_string().as_bytes(),
                b"FIELDS",
                (pairs.len() / 2).to_string().as_bytes(),
            ],
            pairs,
        ),
    }
}

/// Logs a command instead of what the client sent: its beginning, and the words it ends with.
fn log_words(db: &mut Db<'_>, head: &[&[u8]], rest: &[&[u8]]) {
    if db.changes.listeners.contains(Listeners::LOG) {
        db.changes.log_instead(&[head, rest].concat());
    }
}

/// Writes the value of a field, null if there is no such field.
#[inline]
fn write_value(value: Option<Element<'_>>, reply: &mut Reply) {
    match value {
        Some(value) => write_element(reply, value),
        None => reply.null(),
    }
}

#[inline]
fn write_element(writer: &mut ReplyWriter, element: Element<'_>) {
    match element {
        Element::Text(text) => writer.bulk(text),
        Element::Integer(integer) => writer.bulk_integer(integer),
    }
}

/// When hashes change their encoding, by the settings of this moment.
pub fn limits(settings: &Settings) -> Limits {
    let read =
        |limit: &AtomicU64| usize::try_from(limit.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
    Limits {
        max_listpack_entries: read(&settings.hash_max_listpack_entries),
        max_listpack_value: read(&settings.hash_max_listpack_value),
    }
}
