//! Sets: members in no order that clients may rely on.

mod algebra;

use std::sync::atomic::Ordering;

use protocol::resp::reply::ReplyWriter;
use storage::{
    changes::{EventClass, Listeners},
    db::Db,
    entry::Meta,
    keyspace::Key,
    removal::Removal,
    value::{
        Collection, Settings,
        element::Element,
        number,
        set::{Limits, Set},
    },
};

use super::scan::{ScanOptions, read_cursor};
use crate::{
    dispatch::{
        args::Args,
        command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
        error::Error,
    },
    server,
};

pub const COMMANDS: &[&Command] = &[
    &SADD,
    &SCARD,
    &algebra::SDIFF,
    &algebra::SDIFFSTORE,
    &algebra::SINTER,
    &algebra::SINTERCARD,
    &algebra::SINTERSTORE,
    &SISMEMBER,
    &SMEMBERS,
    &SMISMEMBER,
    &SMOVE,
    &SPOP,
    &SRANDMEMBER,
    &SREM,
    &SSCAN,
    &algebra::SUNION,
    &algebra::SUNIONSTORE,
];

/// Sets with more members are written in slices after the locks are released.
const WRITE_HERE: usize = 1000;
/// Members written per slice.
const SLICE: usize = 500;
/// Members that one logged SREM names at most.
const LOGGED_MEMBERS: usize = 1024;

const SADD: Command = Command {
    name: "SADD",
    syntax: "key member [member ...]",
    summary: "Adds members to a set.",
    since: "1.0.0",
    complexity: "O(N) for N members",
    group: Group::Set,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Insert)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(sadd),
    subcommands: &[],
};

fn sadd(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    let limits = limits(db.settings());
    let members = args.from(2);
    let (first, count) = (args.word(2), members.len());
    let mut opened = db.write_or_create(key, || Set::with_hint(first, count, &limits))?;
    let set = &mut *opened;
    set.expect_members(count, &limits);
    let added = members.filter(|&member| set.add(member, &limits)).count();
    drop(opened);
    changed_members(db, key, added, "sadd");
    reply.integer(added as i64);
    Ok(())
}

/// Tells that members were added or removed, if any were.
fn changed_members(db: &mut Db<'_>, key: Key<'_>, count: usize, event: &'static str) {
    if count > 0 {
        db.changed(key, EventClass::Set, event);
        db.changes.dirty += count as u64 - 1;
    }
}

const SREM: Command = Command {
    name: "SREM",
    syntax: "key member [member ...]",
    summary: "Removes members from a set.",
    since: "1.0.0",
    complexity: "O(N) for N members",
    group: Group::Set,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Delete)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(srem),
    subcommands: &[],
};

fn srem(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    let removed = match db.write::<Set>(key)? {
        None => 0,
        Some(mut set) => args.from(2).filter(|&member| set.remove(member)).count(),
    };
    changed_members(db, key, removed, "srem");
    reply.integer(removed as i64);
    Ok(())
}

const SMOVE: Command = Command {
    name: "SMOVE",
    syntax: "source destination member",
    summary: "Moves a member from one set to another.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Set,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Take), Keys::at(2, Access::Insert)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(smove),
    subcommands: &[],
};

fn smove(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (from, to, member) = (args.key(1), args.key(2), args.word(3));
    let has = |db: &mut Db<'_>, key| {
        db.write::<Set>(key)
            .map(|set| set.map(|set| set.contains(member)))
    };
    let moves = match has(db, from)? {
        None => false,
        Some(moves) => {
            has(db, to)?;
            moves
        }
    };
    if moves && from.bytes != to.bytes {
        move_member(db, from, to, member)?;
    }
    reply.integer(i64::from(moves));
    Ok(())
}

fn move_member(db: &mut Db<'_>, from: Key<'_>, to: Key<'_>, member: &[u8]) -> Result {
    let limits = limits(db.settings());
    if let Some(mut set) = db.write::<Set>(from)? {
        set.remove(member);
    }
    db.changed_after_event(from, EventClass::Set, "srem");
    let added = db
        .write_or_create(to, || Set::with_hint(member, 1, &limits))?
        .add(member, &limits);
    changed_members(db, to, usize::from(added), "sadd");
    Ok(())
}

const SISMEMBER: Command = Command {
    name: "SISMEMBER",
    syntax: "key member",
    summary: "Tells whether a set has a member.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Set,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Inspect)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(sismember),
    subcommands: &[],
};

fn sismember(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let set = db.read::<Set>(args.key(1))?;
    reply.integer(i64::from(set.is_some_and(|set| set.contains(args.word(2)))));
    Ok(())
}

const SMISMEMBER: Command = Command {
    name: "SMISMEMBER",
    syntax: "key member [member ...]",
    summary: "Tells of each of several members whether a set has it.",
    since: "6.2.0",
    complexity: "O(N) for N members",
    group: Group::Set,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(smismember),
    subcommands: &[],
};

fn smismember(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let set = db.read::<Set>(args.key(1))?;
    let members = args.from(2);
    reply.array(members.len());
    for member in members {
        reply.integer(i64::from(set.is_some_and(|set| set.contains(member))));
    }
    Ok(())
}

const SCARD: Command = Command {
    name: "SCARD",
    syntax: "key",
    summary: "Counts the members of a set.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Set,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Inspect)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(scard),
    subcommands: &[],
};

fn scard(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let set = db.read::<Set>(args.key(1))?;
    reply.integer(set.map_or(0, Set::len) as i64);
    Ok(())
}

const SMEMBERS: Command = Command {
    name: "SMEMBERS",
    syntax: "key",
    summary: "Returns all members of a set.",
    since: "1.0.0",
    complexity: "O(N) for N members",
    group: Group::Set,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(smembers),
    subcommands: &[],
};

fn smembers(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    match db.read::<Set>(args.key(1))? {
        None => reply.set(0),
        Some(set) => {
            reply.set(set.len());
            write_members(set, reply);
        }
    }
    Ok(())
}

/// Writes all members, in slices if they are many.
fn write_members(set: &Set, reply: &mut Reply) {
    if set.len() <= WRITE_HERE {
        set.iter().for_each(|member| write_member(reply, member));
    } else {
        write_members_later(set.clone(), reply);
    }
}

fn write_members_later(set: Set, reply: &mut Reply) {
    let mut cursor = 0;
    reply.later(move |writer| {
        cursor = set.scan(cursor, SLICE, |member| write_member(writer, member));
        cursor == 0
    });
}

#[inline]
fn write_member(writer: &mut ReplyWriter, member: Element<'_>) {
    match member {
        Element::Text(text) => writer.bulk(text),
        Element::Integer(integer) => writer.bulk_integer(integer),
    }
}

const SPOP: Command = Command {
    name: "SPOP",
    syntax: "key [count]",
    summary: "Removes random members from a set and returns them.",
    since: "1.0.0",
    complexity: "O(N) for N members popped",
    group: Group::Set,
    arity: AtLeast(2),
    keys: &[Keys::at(1, Access::Take)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(spop),
    subcommands: &[],
};

fn spop(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    match args.len() {
        2 => spop_one(db, key, reply),
        3 => {
            let count =
                number::parse_i64(args.word(2)).and_then(|count| usize::try_from(count).ok());
            spop_many(db, key, count.ok_or(Error::NOT_POSITIVE)?, reply)
        }
        _ => Err(Error::SYNTAX),
    }
}

/// Tells that members were popped.
fn popped_members(db: &mut Db<'_>, key: Key<'_>, count: usize) {
    db.changed_after_event(key, EventClass::Set, "spop");
    db.changes.dirty += count as u64 - 1;
}

fn spop_one(db: &mut Db<'_>, key: Key<'_>, reply: &mut Reply) -> Result {
    let popped = db
        .write::<Set>(key)?
        .and_then(|mut set| set.pop(&mut server::random_word));
    match popped {
        None => reply.null(),
        Some(member) => {
            db.changed_after_event(key, EventClass::Set, "spop");
            db.changes.log_instead(&[b"SREM", key.bytes, &member]);
            reply.bulk(&member);
        }
    }
    Ok(())
}

fn spop_many(db: &mut Db<'_>, key: Key<'_>, count: usize, reply: &mut Reply) -> Result {
    let limits = limits(db.settings());
    let logs = db.changes.listeners.contains(Listeners::LOG);
    let Some(mut set) = db.write::<Set>(key)? else {
        reply.set(0);
        return Ok(());
    };
    if count == 0 {
        reply.set(0);
        return Ok(());
    }
    let popped = count.min(set.len());
    reply.set(popped);
    if popped == set.len() {
        let all = std::mem::take(&mut *set);
        drop(set);
        write_members(&all, reply);
        popped_members(db, key, popped);
        db.log_removal_instead(key, Removal::Implicit);
        db.keyspace().free(all.into_value());
        return Ok(());
    }
    let mut logged: Vec<Vec<u8>> = Vec::new();
    set.pop_many(popped, &mut server::random_word, &limits, |member| {
        write_member(reply, member);
        if logs {
            logged.push(member.to_vec());
        }
    });
    drop(set);
    popped_members(db, key, popped);
    for members in logged.chunks(LOGGED_MEMBERS) {
        let mut effect: Vec<&[u8]> = vec![b"SREM", key.bytes];
        effect.extend(members.iter().map(Vec::as_slice));
        db.changes.log_instead(&effect);
    }
    Ok(())
}

const SRANDMEMBER: Command = Command {
    name: "SRANDMEMBER",
    syntax: "key [count]",
    summary: "Returns random members of a set; a negative count may return one several times.",
    since: "1.0.0",
    complexity: "O(N) for N members returned",
    group: Group::Set,
    arity: AtLeast(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(srandmember),
    subcommands: &[],
};

fn srandmember(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let count = match args.len() {
        2 => None,
        3 => Some(read_random_count(args)?),
        _ => return Err(Error::SYNTAX),
    };
    let set = db.read::<Set>(args.key(1))?;
    let Some(count) = count else {
        match set.and_then(|set| set.random(&mut server::random_word)) {
            Some(member) => write_member(reply, member),
            None => reply.null(),
        }
        return Ok(());
    };
    let Some(set) = set.filter(|_| count != 0) else {
        reply.array(0);
        return Ok(());
    };
    if count > 0 {
        let count = set.len().min(count as usize);
        reply.array(count);
        if count == set.len() {
            write_members(set, reply);
        } else {
            set.sample(count, &mut server::random_word, |member| {
                write_member(reply, member);
            });
        }
    } else {
        reply.array(count.unsigned_abs() as usize);
        write_draws(set, count.unsigned_abs(), reply);
    }
    Ok(())
}

fn read_random_count(args: &Args<'_>) -> Result<i64> {
    const OUT_OF_RANGE: Error = Error::from_static(
        "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
    );
    let count = args.integer(2)?;
    if count == i64::MIN {
        return Err(OUT_OF_RANGE);
    }
    Ok(count)
}

/// Writes `count` members drawn one by one, in slices if they are many: a client may ask for any number.
fn write_draws(set: &Set, count: u64, reply: &mut Reply) {
    fn draw(writer: &mut ReplyWriter, set: &Set) {
        if let Some(member) = set.random(&mut server::random_word) {
            write_member(writer, member);
        }
    }
    if count <= WRITE_HERE as u64 {
        (0..count).for_each(|_| draw(reply, set));
        return;
    }
    let set = set.clone();
    let mut left = count;
    reply.later(move |writer| {
        let slice = left.min(SLICE as u64);
        (0..slice).for_each(|_| draw(writer, &set));
        left -= slice;
        left == 0
    });
}

const SSCAN: Command = Command {
    name: "SSCAN",
    syntax: "key cursor [MATCH pattern] [COUNT count]",
    summary: "Walks the members of a set, some at a time.",
    since: "2.8.0",
    complexity: "O(COUNT) for each call",
    group: Group::Set,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(sscan),
    subcommands: &[],
};

fn sscan(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let cursor = read_cursor(args.word(2))?;
    let Some(set) = db.read::<Set>(args.key(1))? else {
        reply.array(2);
        reply.bulk(b"0");
        reply.array(0);
        return Ok(());
    };
    let options = ScanOptions::read(args, 3)?;
    reply.array(2);
    let mut found: Vec<Vec<u8>> = Vec::new();
    let next = set.scan(cursor, options.count, |member| {
        let member = member.to_vec();
        if options.matches(&member) {
            found.push(member);
        }
    });
    reply.bulk(next.to_string().as_bytes());
    reply.array(found.len());
    found.iter().for_each(|member| reply.bulk(member));
    Ok(())
}

/// Stores a set that a command made, or deletes the key if it has no members.
pub fn store(db: &mut Db<'_>, key: Key<'_>, set: Set, event: &'static str) -> usize {
    let len = set.len();
    if len > 0 {
        db.put(key, set.into_value(), Meta::default());
        db.changed(key, EventClass::Set, event);
    } else if db.delete(key) {
        db.changed(key, EventClass::Generic, "del");
    }
    len
}

/// When sets change their encoding, by the settings of this moment.
pub fn limits(settings: &Settings) -> Limits {
    let read = |limit: &std::sync::atomic::AtomicU64| {
        usize::try_from(limit.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    };
    Limits {
        max_intset_entries: read(&settings.set_max_intset_entries),
        max_listpack_entries: read(&settings.set_max_listpack_entries),
        max_listpack_value: read(&settings.set_max_listpack_value),
    }
}
