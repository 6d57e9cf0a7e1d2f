//! Commands on keys whatever they hold: whether they are there, what they are called, what becomes of them.

use storage::{
    changes::EventClass,
    db::Db,
    entry::{EntryRef, Meta},
    keyspace::Key,
    value::Value,
};

use super::{database::database_index, object::encoding};
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
    error::Error,
};

pub const COMMANDS: &[&Command] = &[
    &COPY, &DEL, &EXISTS, &RENAME, &RENAMENX, &TOUCH, &TYPE, &UNLINK,
];

const DEL: Command = Command {
    name: "DEL",
    syntax: "key [key ...]",
    summary: "Deletes keys.",
    since: "1.0.0",
    complexity: "O(N) for N keys",
    group: Group::Generic,
    arity: AtLeast(2),
    keys: &[Keys::all(1, Access::Remove)],
    flags: &[Flag::Write],
    categories: &[],
    run: Run::Write(del),
    subcommands: &[],
};

fn del(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let mut deleted = 0;
    for index in 1..args.len() {
        let key = args.key(index);
        if db.delete(key) {
            db.changed(key, EventClass::Generic, "del");
            deleted += 1;
        }
    }
    reply.integer(deleted);
    Ok(())
}

const UNLINK: Command = Command {
    name: "UNLINK",
    syntax: "key [key ...]",
    summary: "Deletes keys; big values are freed in the background, as with DEL.",
    since: "4.0.0",
    complexity: "O(N) for N keys",
    group: Group::Generic,
    arity: AtLeast(2),
    keys: &[Keys::all(1, Access::Remove)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(del),
    subcommands: &[],
};

const EXISTS: Command = Command {
    name: "EXISTS",
    syntax: "key [key ...]",
    summary: "Counts how many of the keys exist.",
    since: "1.0.0",
    complexity: "O(N) for N keys",
    group: Group::Generic,
    arity: AtLeast(2),
    keys: &[Keys::all(1, Access::Inspect)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(exists),
    subcommands: &[],
};

fn exists(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let count = (1..args.len())
        .filter(|&index| db.get(args.key(index)).is_some())
        .count();
    reply.integer(count as i64);
    Ok(())
}

const TOUCH: Command = Command {
    name: "TOUCH",
    syntax: "key [key ...]",
    summary: "Counts how many of the keys exist, noting that they are used.",
    since: "3.2.1",
    complexity: "O(N) for N keys",
    group: Group::Generic,
    arity: AtLeast(2),
    keys: &[Keys::all(1, Access::Inspect)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(exists),
    subcommands: &[],
};

const TYPE: Command = Command {
    name: "TYPE",
    syntax: "key",
    summary: "Names the type of a key's value.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Inspect)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(type_of),
    subcommands: &[],
};

fn type_of(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    reply.simple(
        db.inspect(args.key(1))
            .map_or("none", |entry| entry.value_type().name()),
    );
    Ok(())
}

const RENAME: Command = Command {
    name: "RENAME",
    syntax: "key newkey",
    summary: "Renames a key, over another if need be.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Take), Keys::at(2, Access::Overwrite)],
    flags: &[Flag::Write],
    categories: &[],
    run: Run::Write(rename),
    subcommands: &[],
};

fn rename(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    move_key(db, args, true)?;
    reply.ok();
    Ok(())
}

const RENAMENX: Command = Command {
    name: "RENAMENX",
    syntax: "key newkey",
    summary: "Renames a key unless the new name exists.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Take), Keys::at(2, Access::Create)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(renamenx),
    subcommands: &[],
};

fn renamenx(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let renamed = move_key(db, args, false)?;
    reply.integer(i64::from(renamed));
    Ok(())
}

fn move_key(db: &mut Db<'_>, args: &Args<'_>, overwrite: bool) -> Result<bool> {
    let (from, to) = (args.key(1), args.key(2));
    if db.entry_mut(from).is_none() {
        return Err(Error::NO_SUCH_KEY);
    }
    if from.bytes == to.bytes {
        return Ok(overwrite);
    }
    if db.entry_mut(to).is_some() {
        if !overwrite {
            return Ok(false);
        }
        db.delete(to);
    }
    Content::take(db, from).put(db, to);
    db.touch_key(from);
    db.touch_key(to);
    db.changed_inside(from, EventClass::Generic, "rename_from");
    db.changed_inside(to, EventClass::Generic, "rename_to");
    Ok(true)
}

const COPY: Command = Command {
    name: "COPY",
    syntax: "source destination [DB destination-db] [REPLACE]",
    summary: "Copies a key's value and deadline to another key.",
    since: "6.2.0",
    complexity: "O(1) for the value's handle",
    group: Group::Generic,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Read), Keys::at(2, Access::Overwrite)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(copy),
    subcommands: &[],
};

fn copy(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (mut replace, mut target) = (false, db.index());
    let mut index = 3;
    while index < args.len() {
        if args.is(index, "REPLACE") {
            replace = true;
        } else if args.is(index, "DB") && index + 1 < args.len() {
            target = database_index(db, args.word(index + 1))?;
            index += 1;
        } else {
            return Err(Error::SYNTAX);
        }
        index += 1;
    }
    let (from, to) = (args.key(1), args.key(2));
    if from.bytes == to.bytes && target == db.index() {
        return Err(Error::SAME_OBJECT);
    }
    let copied = copy_entry(db, from, to, target, replace);
    reply.integer(i64::from(copied));
    Ok(())
}

fn copy_entry(db: &mut Db<'_>, from: Key<'_>, to: Key<'_>, target: usize, replace: bool) -> bool {
    let Some(content) = db.get(from).map(Content::of) else {
        return false;
    };
    let source = db.select(target);
    let taken = db.entry_mut(to).is_some();
    let copies = replace || !taken;
    if copies {
        if taken {
            db.delete(to);
        }
        content.put(db, to);
        db.changed(to, EventClass::Generic, "copy_to");
    }
    db.select(source);
    copies
}

/// What an entry holds beside its key, on its way to another.
pub(super) struct Content {
    value: Value,
    meta: Meta,
    is_raw: bool,
}

impl Content {
    /// A copy of what the entry holds.
    fn of(entry: EntryRef<'_>) -> Content {
        Content {
            value: entry.value().to_value(),
            meta: entry.meta(),
            is_raw: encoding(entry) == "raw",
        }
    }

    /// Takes the key, which is there, out of the database.
    pub(super) fn take(db: &mut Db<'_>, key: Key<'_>) -> Content {
        let entry = db
            .take(key)
            .expect("the caller saw it, under the same lock");
        let (meta, is_raw) = (entry.look().meta(), encoding(entry.look()) == "raw");
        Content {
            value: entry.into_value(),
            meta,
            is_raw,
        }
    }

    pub(super) fn put(self, db: &mut Db<'_>, key: Key<'_>) {
        db.put(key, self.value, self.meta);
        if self.is_raw {
            db.mark_raw(key);
        }
    }
}
