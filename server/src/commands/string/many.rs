//! Strings of many keys at once: MGET, MSET and its relatives.

use storage::{
    changes::EventClass,
    db::Db,
    entry::Meta,
    value::{Text, number},
};

use super::{
    options::{Allowed, Condition, Expiry, SetOptions},
    put_until, store, write_text,
};
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Place, Reply, Result, Run},
    error::Error,
};

pub(super) const MGET: Command = Command {
    name: "MGET",
    syntax: "key [key ...]",
    summary: "Returns the string values of several keys.",
    since: "1.0.0",
    complexity: "O(N) for N keys",
    group: Group::String,
    arity: AtLeast(2),
    keys: &[Keys::all(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(mget),
    subcommands: &[],
};

fn mget(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    reply.array(args.len() - 1);
    for index in 1..args.len() {
        // A key of another type reads as missing here.
        let text = db
            .get(args.key(index))
            .and_then(|entry| Text::of(entry.value()));
        write_text(text, reply);
    }
    Ok(())
}

pub(super) const MSET: Command = Command {
    name: "MSET",
    syntax: "key value [key value ...]",
    summary: "Sets several keys to strings, all at once.",
    since: "1.0.1",
    complexity: "O(N) for N keys",
    group: Group::String,
    arity: AtLeast(3),
    keys: &[Keys {
        place: Place::Range {
            first: 1,
            last: 0,
            step: 2,
        },
        access: Access::Overwrite,
    }],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(mset),
    subcommands: &[],
};

fn mset(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    if args.len().is_multiple_of(2) {
        return Err(Error::wrong_arity("mset"));
    }
    set_pairs(db, args, 1, (args.len() - 1) / 2);
    reply.ok();
    Ok(())
}

/// Sets `count` keys to the words after them, from word `first` on.
fn set_pairs(db: &mut Db<'_>, args: &Args<'_>, first: usize, count: usize) {
    for index in (first..).step_by(2).take(count) {
        let key = args.key(index);
        store(db, key, args.word(index + 1), Meta::default());
        db.changed(key, EventClass::String, "set");
    }
}

pub(super) const MSETNX: Command = Command {
    name: "MSETNX",
    syntax: "key value [key value ...]",
    summary: "Sets several keys to strings if none of them exists.",
    since: "1.0.1",
    complexity: "O(N) for N keys",
    group: Group::String,
    arity: AtLeast(3),
    keys: &[Keys {
        place: Place::Range {
            first: 1,
            last: 0,
            step: 2,
        },
        access: Access::Create,
    }],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(msetnx),
    subcommands: &[],
};

fn msetnx(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    if args.len().is_multiple_of(2) {
        return Err(Error::wrong_arity("msetnx"));
    }
    let none_exists = (1..args.len())
        .step_by(2)
        .all(|index| db.peek(args.key(index)).is_none());
    if none_exists {
        set_pairs(db, args, 1, (args.len() - 1) / 2);
    }
    reply.integer(i64::from(none_exists));
    Ok(())
}

pub(super) const MSETEX: Command = Command {
    name: "MSETEX",
    syntax: "numkeys key value [key value ...] [NX | XX] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]",
    summary: "Sets several keys to strings with one deadline, if all or none of them exist where asked.",
    since: "9.1.0",
    complexity: "O(N) for N keys",
    group: Group::String,
    arity: AtLeast(4),
    keys: &[Keys {
        place: Place::CountPairs { at: 1 },
        access: Access::Overwrite,
    }],
    flags: &[Flag::Write, Flag::DenyOom, Flag::MovableKeys],
    categories: &[],
    run: Run::Write(msetex),
    subcommands: &[],
};

fn msetex(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    const BAD_COUNT: Error = Error::from_static("ERR invalid numkeys value or out of range");
    let count =
        number::parse_i64(args.word(1)).filter(|&count| count > 0 && count <= i64::from(i32::MAX));
    let count = count.ok_or(BAD_COUNT)? as usize;
    let end = 2 + 2 * count;
    if end > args.len() {
        return Err(Error::SYNTAX);
    }
    let options = SetOptions::read_from(args, end, db.now(), "msetex", Allowed::ManyKeys)?;
    let keys = || (2..end).step_by(2);
    let passes = match options.condition {
        Condition::Missing => keys().all(|index| db.peek(args.key(index)).is_none()),
        Condition::Present => keys().all(|index| db.peek(args.key(index)).is_some()),
        Condition::Always | Condition::Equal(_) => true,
    };
    if passes {
        for index in keys() {
            let key = args.key(index);
            let deadline = match options.expiry {
                Expiry::None => None,
                Expiry::Keep => db.peek(key).and_then(|entry| entry.deadline()),
                Expiry::At(deadline) => Some(deadline),
            };
            // One in the past is as good as any: the key expires when somebody looks.
            put_until(db, key, args.word(index + 1), deadline, "set");
            if matches!(options.expiry, Expiry::At(_)) {
                db.notify(key, EventClass::Generic, "expire");
            }
        }
    }
    reply.integer(i64::from(passes));
    Ok(())
}
