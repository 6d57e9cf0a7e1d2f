//! Strings that are numbers: INCR and its relatives.

use storage::{
    changes::EventClass,
    db::Db,
    entry::Meta,
    value::{
        Text,
        number::{self, LongDouble},
    },
};

use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
    error::Error,
};

pub(super) const INCR: Command = Command {
    name: "INCR",
    syntax: "key",
    summary: "Adds one to the integer of a key.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::String,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Update)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(incr),
    subcommands: &[],
};

fn incr(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    add(db, args, 1, reply)
}

pub(super) const DECR: Command = Command {
    name: "DECR",
    syntax: "key",
    summary: "Subtracts one from the integer of a key.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::String,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Update)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(decr),
    subcommands: &[],
};

fn decr(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    add(db, args, -1, reply)
}

pub(super) const INCRBY: Command = Command {
    name: "INCRBY",
    syntax: "key increment",
    summary: "Adds to the integer of a key.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::String,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Update)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(incrby),
    subcommands: &[],
};

fn incrby(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    add(db, args, args.integer(2)?, reply)
}

pub(super) const DECRBY: Command = Command {
    name: "DECRBY",
    syntax: "key decrement",
    summary: "Subtracts from the integer of a key.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::String,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Update)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(decrby),
    subcommands: &[],
};

fn decrby(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let by = args.integer(2)?.checked_neg();
    add(
        db,
        args,
        by.ok_or(Error::from_static("ERR decrement would overflow"))?,
        reply,
    )
}

fn add(db: &mut Db<'_>, args: &Args<'_>, by: i64, reply: &mut Reply) -> Result {
    let key = args.key(1);
    let old = match db.text_to_change(key)? {
        None => None,
        Some(Text::Int(number)) => Some(number),
        Some(text) => Some(
            number::parse_i64(text.as_bytes(&mut itoa::Buffer::new()))
                .ok_or(Error::NOT_AN_INTEGER)?,
        ),
    };
    let sum = old.unwrap_or(0).checked_add(by).ok_or(Error::OVERFLOW)?;
    match old {
        Some(_) => db.set_integer(key, sum),
        None => db.put_integer(key, sum, Meta::default()),
    }
    db.changed(key, EventClass::String, "incrby");
    reply.integer(sum);
    Ok(())
}

pub(super) const INCRBYFLOAT: Command = Command {
    name: "INCRBYFLOAT",
    syntax: "key increment",
    summary: "Adds to the number of a key.",
    since: "2.6.0",
    complexity: "O(1)",
    group: Group::String,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Update)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(incrbyfloat),
    subcommands: &[],
};

fn incrbyfloat(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    let old = match db.text_to_change(key)? {
        None => LongDouble::ZERO,
        Some(text) => {
            LongDouble::parse(text.as_bytes(&mut itoa::Buffer::new())).ok_or(Error::NOT_A_FLOAT)?
        }
    };
    let by = LongDouble::parse(args.word(2)).ok_or(Error::NOT_A_FLOAT)?;
    let mut sum = Vec::new();
    old.checked_add(by)
        .filter(|sum| sum.is_finite())
        .ok_or(Error::NAN_OR_INFINITY)?
        .write(&mut sum);
    db.set_text(key, &sum);
    db.changed(key, EventClass::String, "incrbyfloat");
    db.changes
        .log_instead(&[b"SET", key.bytes, &sum, b"KEEPTTL"]);
    reply.bulk(&sum);
    Ok(())
}
