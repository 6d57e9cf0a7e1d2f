//! When fields expire: setting it, telling it, taking it away.

use storage::{changes::EventClass, db::Db, keyspace::Key, time::Timestamp, value::hash::Hash};

use super::{
    fields::{self, FieldWords},
    log_words,
};
use crate::{
    commands::{
        deadline::{self, Base, Unit},
        expiry::Conditions,
    },
    dispatch::{
        args::Args,
        command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
        error::Error,
    },
};

/// No such field, or no such key.
const NO_FIELD: i64 = -2;
/// The field never expires.
const NO_DEADLINE: i64 = -1;

pub(super) const HEXPIRE: Command = Command {
    name: "HEXPIRE",
    syntax: "key seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
    summary: "Sets when fields of a hash expire.",
    since: "9.0.0",
    complexity: "O(N) for N fields",
    group: Group::Hash,
    arity: AtLeast(6),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(hexpire),
    subcommands: &[],
};

fn hexpire(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    set_deadlines(db, args, (Unit::Seconds, Base::Now), "hexpire", reply)
}

pub(super) const HPEXPIRE: Command = Command {
    name: "HPEXPIRE",
    syntax: "key milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
    summary: "Sets when fields of a hash expire.",
    since: "9.0.0",
    complexity: "O(N) for N fields",
    group: Group::Hash,
    arity: AtLeast(6),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(hpexpire),
    subcommands: &[],
};

fn hpexpire(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    set_deadlines(db, args, (Unit::Milliseconds, Base::Now), "hpexpire", reply)
}

pub(super) const HEXPIREAT: Command = Command {
    name: "HEXPIREAT",
    syntax: "key unix-time-seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
    summary: "Sets when fields of a hash expire.",
    since: "9.0.0",
    complexity: "O(N) for N fields",
    group: Group::Hash,
    arity: AtLeast(6),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(hexpireat),
    subcommands: &[],
};

fn hexpireat(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    set_deadlines(db, args, (Unit::Seconds, Base::Epoch), "hexpireat", reply)
}

pub(super) const HPEXPIREAT: Command = Command {
    name: "HPEXPIREAT",
    syntax: "key unix-time-milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
    summary: "Sets when fields of a hash expire.",
    since: "9.0.0",
    complexity: "O(N) for N fields",
    group: Group::Hash,
    arity: AtLeast(6),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(hpexpireat),
    subcommands: &[],
};

fn hpexpireat(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    set_deadlines(
        db,
        args,
        (Unit::Milliseconds, Base::Epoch),
        "hpexpireat",
        reply,
    )
}

fn set_deadlines(
    db: &mut Db<'_>,
    args: &Args<'_>,
    (unit, base): (Unit, Base),
    name: &str,
    reply: &mut Reply,
) -> Result {
    let (key, now) = (args.key(1), db.expired_by());
    let keyword = fields::keyword(args, 3)?;
    let conditions = Conditions::read(args.from(3).take(keyword - 3))?;
    let fields = FieldWords::read(args, keyword + 1, 1)?;
    let deadline = deadline::read_not_negative(args.word(2), unit, base, db.now(), name)?;
    let passed = fields::is_past(db, deadline);
    reply.array(fields.len());
    let mut changed = Vec::new();
    match db.write::<Hash>(key)? {
        None => (0..fields.len()).for_each(|_| reply.integer(NO_FIELD)),
        Some(mut hash) => {
            for field in fields.iter(args) {
                reply.integer(match hash.deadline(field, now) {
                    None => NO_FIELD,
                    Some(old) if !conditions.allow(old, deadline) => 0,
                    Some(_) => {
                        changed.push(field);
                        if passed {
                            hash.remove(field, now);
                            2
                        } else {
                            hash.set_deadline(field, deadline, now);
                            1
                        }
                    }
                });
            }
        }
    }
    tell_deadline_set(db, key, deadline, &changed);
    Ok(())
}

/// Says that fields have a deadline now, or are gone since it has passed, if there are any.
pub(super) fn tell_deadline_set(
    db: &mut Db<'_>,
    key: Key<'_>,
    deadline: Timestamp,
    changed: &[&[u8]],
) {
    if changed.is_empty() {
        return;
    }
    if fields::is_past(db, deadline) {
        fields::count_expired(db, changed.len());
        db.changed_before_gone(key, EventClass::Hash, "hexpired");
        log_words(db, &[b"HDEL", key.bytes], changed);
    } else {
        db.changed_after_event(key, EventClass::Hash, "hexpire");
        log_words(
            db,
            &[
                b"HPEXPIREAT",
                key.bytes,
                deadline.millis().to_string().as_bytes(),
                b"FIELDS",
                changed.len().to_string().as_bytes(),
            ],
            changed,
        );
    }
    db.changes.dirty += changed.len() as u64 - 1;
}

pub(super) const HTTL: Command = Command {
    name: "HTTL",
    syntax: "key FIELDS numfields field [field ...]",
    summary: "Tells in how many seconds fields of a hash expire: -1 for never, -2 if there is no such field.",
    since: "9.0.0",
    complexity: "O(N) for N fields",
    group: Group::Hash,
    arity: AtLeast(5),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(httl),
    subcommands: &[],
};

fn httl(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    tell_deadlines(db, args, Unit::Seconds, Base::Now, reply)
}

pub(super) const HPTTL: Command = Command {
    name: "HPTTL",
    syntax: "key FIELDS numfields field [field ...]",
    summary: "Tells in how many milliseconds fields of a hash expire: -1 for never, -2 if there is no such field.",
    since: "9.0.0",
    complexity: "O(N) for N fields",
    group: Group::Hash,
    arity: AtLeast(5),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(hpttl),
    subcommands: &[],
};

fn hpttl(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    tell_deadlines(db, args, Unit::Milliseconds, Base::Now, reply)
}

pub(super) const HEXPIRETIME: Command = Command {
    name: "HEXPIRETIME",
    syntax: "key FIELDS numfields field [field ...]",
    summary: "Tells at which Unix second fields of a hash expire: -1 for never, -2 if there is no such field.",
    since: "9.0.0",
    complexity: "O(N) for N fields",
    group: Group::Hash,
    arity: AtLeast(5),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(hexpiretime),
    subcommands: &[],
};

fn hexpiretime(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    tell_deadlines(db, args, Unit::Seconds, Base::Epoch, reply)
}

pub(super) const HPEXPIRETIME: Command = Command {
    name: "HPEXPIRETIME",
    syntax: "key FIELDS numfields field [field ...]",
    summary: "Tells at which Unix millisecond fields of a hash expire: -1 for never, -2 if there is no such field.",
    since: "9.0.0",
    complexity: "O(N) for N fields",
    group: Group::Hash,
    arity: AtLeast(5),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(hpexpiretime),
    subcommands: &[],
};

fn hpexpiretime(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    tell_deadlines(db, args, Unit::Milliseconds, Base::Epoch, reply)
}

fn tell_deadlines(
    db: &Db<'_>,
    args: &Args<'_>,
    unit: Unit,
    base: Base,
    reply: &mut Reply,
) -> Result {
    // These alone do not say what is wrong with the number.
    let plainer = |error| {
        if error == fields::BAD_COUNT {
            Error::SYNTAX
        } else {
            error
        }
    };
    let fields = fields::after_keyword(args).map_err(plainer)?;
    let hash = db.read::<Hash>(args.key(1))?;
    reply.array(fields.len());
    for field in fields.iter(args) {
        let deadline = hash.and_then(|hash| hash.deadline(field, db.expired_by()));
        reply.integer(match deadline {
            None => NO_FIELD,
            Some(None) => NO_DEADLINE,
            Some(Some(at)) => deadline::tell(at, unit, base, db.now()),
        });
    }
    Ok(())
}

pub(super) const HPERSIST: Command = Command {
    name: "HPERSIST",
    syntax: "key FIELDS numfields field [field ...]",
    summary: "Takes away the deadlines of fields of a hash.",
    since: "9.0.0",
    complexity: "O(N) for N fields",
    group: Group::Hash,
    arity: AtLeast(5),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(hpersist),
    subcommands: &[],
};

fn hpersist(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (key, now) = (args.key(1), db.expired_by());
    let fields = fields::after_keyword(args)?;
    reply.array(fields.len());
    let mut persisted = Vec::new();
    match db.write::<Hash>(key)? {
        None => (0..fields.len()).for_each(|_| reply.integer(NO_FIELD)),
        Some(mut hash) => {
            for field in fields.iter(args) {
                reply.integer(match hash.deadline(field, now) {
                    None => NO_FIELD,
                    Some(None) => NO_DEADLINE,
                    Some(Some(_)) => {
                        hash.persist(field, now);
                        persisted.push(field);
                        1
                    }
                });
            }
        }
    }
    tell_persisted(db, key, &persisted);
    Ok(())
}

/// Says that fields have no deadline any more, if there are any.
pub(super) fn tell_persisted(db: &mut Db<'_>, key: Key<'_>, persisted: &[&[u8]]) {
    if persisted.is_empty() {
        return;
    }
    db.changed_after_event(key, EventClass::Hash, "hpersist");
    db.changes.dirty += persisted.len() as u64 - 1;
    let count = persisted.len().to_string();
    log_words(
        db,
        &[b"HPERSIST", key.bytes, b"FIELDS", count.as_bytes()],
        persisted,
    );
}
