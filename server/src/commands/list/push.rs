//! LPUSH and RPUSH, and their twins that want the list to exist.

use storage::{
    changes::EventClass,
    db::Db,
    keyspace::Key,
    value::list::{End, List},
};

use super::{limits, pushed};
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
};

pub(super) const LPUSH: Command = Command {
    name: "LPUSH",
    syntax: "key element [element ...]",
    summary: "Adds elements at the front of a list, which is created if it does not exist.",
    since: "1.0.0",
    complexity: "O(1) for each element",
    group: Group::List,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Insert)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(lpush),
    subcommands: &[],
};

fn lpush(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    push(db, args, End::Front, reply)
}

pub(super) const RPUSH: Command = Command {
    name: "RPUSH",
    syntax: "key element [element ...]",
    summary: "Adds elements at the back of a list, which is created if it does not exist.",
    since: "1.0.0",
    complexity: "O(1) for each element",
    group: Group::List,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Insert)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(rpush),
    subcommands: &[],
};

fn rpush(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    push(db, args, End::Back, reply)
}

fn push(db: &mut Db<'_>, args: &Args<'_>, end: End, reply: &mut Reply) -> Result {
    let key = args.key(1);
    let limits = limits(db);
    let mut list = db.write_or_create(key, List::new)?;
    list.push_all(end, args.from(2), limits);
    let len = list.len();
    drop(list);
    tell(db, key, end, args.len() - 2);
    reply.integer(len as i64);
    Ok(())
}

pub(super) const LPUSHX: Command = Command {
    name: "LPUSHX",
    syntax: "key element [element ...]",
    summary: "Adds elements at the front of a list if it exists.",
    since: "2.2.0",
    complexity: "O(1) for each element",
    group: Group::List,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Insert)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(lpushx),
    subcommands: &[],
};

fn lpushx(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    push_existing(db, args, End::Front, reply)
}

pub(super) const RPUSHX: Command = Command {
    name: "RPUSHX",
    syntax: "key element [element ...]",
    summary: "Adds elements at the back of a list if it exists.",
    since: "2.2.0",
    complexity: "O(1) for each element",
    group: Group::List,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Insert)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(rpushx),
    subcommands: &[],
};

fn rpushx(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    push_existing(db, args, End::Back, reply)
}

fn push_existing(db: &mut Db<'_>, args: &Args<'_>, end: End, reply: &mut Reply) -> Result {
    let key = args.key(1);
    let limits = limits(db);
    let Some(mut list) = db.write::<List>(key)? else {
        reply.integer(0);
        return Ok(());
    };
    list.push_all(end, args.from(2), limits);
    let len = list.len();
    drop(list);
    tell(db, key, end, args.len() - 2);
    reply.integer(len as i64);
    Ok(())
}

fn tell(db: &mut Db<'_>, key: Key<'_>, end: End, added: usize) {
    db.changed(key, EventClass::List, pushed(end));
    db.changes.dirty += added as u64 - 1;
}
