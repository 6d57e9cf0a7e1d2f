//! LSET, LINSERT, LREM and LTRIM: changes that may be in the middle of a list.

use storage::{
    changes::EventClass,
    db::Db,
    value::list::{List, Side},
};

use super::{limits, resolve};
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
    error::Error,
};

pub(super) const LSET: Command = Command {
    name: "LSET",
    syntax: "key index element",
    summary: "Replaces an element of a list by its index.",
    since: "1.0.0",
    complexity: "O(log(N)) where N is the length of the list",
    group: Group::List,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(lset),
    subcommands: &[],
};

fn lset(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    let limits = limits(db);
    let mut list = db.write::<List>(key)?.ok_or(Error::NO_SUCH_KEY)?;
    let index = args.integer(2)?;
    let index = if index < 0 {
        index + list.len() as i64
    } else {
        index
    };
    // Out of range is for the list to say, since it may change its form all the same.
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    if !list.set(index, args.word(3), limits) {
        return Err(Error::INDEX_RANGE);
    }
    drop(list);
    db.changed(key, EventClass::List, "lset");
    reply.ok();
    Ok(())
}

pub(super) const LINSERT: Command = Command {
    name: "LINSERT",
    syntax: "key BEFORE | AFTER pivot element",
    summary: "Inserts an element before or after the first one that equals the pivot.",
    since: "2.2.0",
    complexity: "O(N) where N is the number of elements before the pivot",
    group: Group::List,
    arity: Exactly(5),
    keys: &[Keys::at(1, Access::Insert)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(linsert),
    subcommands: &[],
};

fn linsert(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    let side = if args.is(2, "AFTER") {
        Side::After
    } else if args.is(2, "BEFORE") {
        Side::Before
    } else {
        return Err(Error::SYNTAX);
    };
    let limits = limits(db);
    let Some(mut list) = db.write::<List>(key)? else {
        reply.integer(0);
        return Ok(());
    };
    if !list.insert(side, args.word(3), args.word(4), limits) {
        reply.integer(-1);
        return Ok(());
    }
    let len = list.len();
    drop(list);
    db.changed(key, EventClass::List, "linsert");
    reply.integer(len as i64);
    Ok(())
}

pub(super) const LREM: Command = Command {
    name: "LREM",
    syntax: "key count element",
    summary: "Removes elements that equal the given one: from the front, from the back, or all.",
    since: "1.0.0",
    complexity: "O(N+M) where N is the length of the list and M the number of elements removed",
    group: Group::List,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Delete)],
    flags: &[Flag::Write],
    categories: &[],
    run: Run::Write(lrem),
    subcommands: &[],
};

fn lrem(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    let count = args.integer(2)?;
    if count == i64::MIN {
        return Err(Error::OUTSIDE_SYMMETRIC);
    }
    let limits = limits(db);
    let Some(mut list) = db.write::<List>(key)? else {
        reply.integer(0);
        return Ok(());
    };
    let removed = list.remove(count, args.word(3), limits);
    drop(list);
    if removed > 0 {
        db.changed_after_event(key, EventClass::List, "lrem");
        db.changes.dirty += removed as u64 - 1;
    }
    reply.integer(removed as i64);
    Ok(())
}

pub(super) const LTRIM: Command = Command {
    name: "LTRIM",
    syntax: "key start stop",
    summary: "Removes all elements of a list but those in a range.",
    since: "1.0.0",
    complexity: "O(log(N)) where N is the length of the list; what was removed is freed in the background",
    group: Group::List,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Delete)],
    flags: &[Flag::Write],
    categories: &[],
    run: Run::Write(ltrim),
    subcommands: &[],
};

fn ltrim(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    let (first, last) = (args.integer(2)?, args.integer(3)?);
    let limits = limits(db);
    let Some(mut list) = db.write::<List>(key)? else {
        reply.ok();
        return Ok(());
    };
    let keep = resolve(first, last, list.len());
    let removed = list.trim(keep, limits);
    drop(list);
    let len = removed.len as u64;
    removed
        .into_values()
        .for_each(|part| db.keyspace().free(part));
    if len == 0 {
        // Nothing to log, yet subscribers are told.
        db.notify(key, EventClass::List, "ltrim");
    } else {
        db.changed_after_event(key, EventClass::List, "ltrim");
        db.changes.dirty += len - 1;
    }
    reply.ok();
    Ok(())
}
