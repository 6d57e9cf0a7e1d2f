//! Strings: values of bytes, counters included.

mod counter;
mod lcs;
mod many;
mod options;
mod part;

use storage::{
    changes::EventClass,
    db::Db,
    entry::Meta,
    keyspace::Key,
    removal::Removal,
    time::Timestamp,
    value::{Text, number},
};

use self::options::{Allowed, Condition, Expiry, SetOptions};
use super::deadline::{self, Base, Unit};
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
    error::Error,
};

pub const COMMANDS: &[&Command] = &[
    &part::APPEND,
    &counter::DECR,
    &counter::DECRBY,
    &DELIFEQ,
    &GET,
    &GETDEL,
    &GETEX,
    &part::GETRANGE,
    &GETSET,
    &counter::INCR,
    &counter::INCRBY,
    &counter::INCRBYFLOAT,
    &lcs::LCS,
    &many::MGET,
    &many::MSET,
    &many::MSETEX,
    &many::MSETNX,
    &PSETEX,
    &SET,
    &SETEX,
    &SETNX,
    &part::SETRANGE,
    &part::STRLEN,
    &part::SUBSTR,
];

const GET: Command = Command {
    name: "GET",
    syntax: "key",
    summary: "Returns the string value of a key.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::String,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(get),
    subcommands: &[],
};

fn get(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    write_text(db.text(args.key(1))?, reply);
    Ok(())
}

const SET: Command = Command {
    name: "SET",
    syntax: "key value [NX | XX | IFEQ comparison-value] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]",
    summary: "Sets a key to a string, whatever it held before.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::String,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Update)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(set),
    subcommands: &[],
};

fn set(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    if args.len() == 3 {
        store(db, key, args.word(2), Meta::default());
        db.changed(key, EventClass::String, "set");
        reply.ok();
        return Ok(());
    }
    let options = SetOptions::read(args, db.now())?;
    let old = if options.get {
        db.get(key)
    } else {
        db.get_to_change(key)
    };
    let old = old.map(|entry| (Text::of(entry.value()), entry.meta()));
    if options.get {
        match old {
            Some((None, _)) => return Err(Error::WRONG_TYPE),
            Some((Some(text), _)) => write_text(Some(text), reply),
            None => reply.null(),
        }
    }
    let passes = match options.condition {
        Condition::Always => true,
        Condition::Missing => old.is_none(),
        Condition::Present => old.is_some(),
        Condition::Equal(wanted) => match old {
            Some((None, _)) => return Err(Error::WRONG_TYPE),
            Some((Some(text), _)) => text.as_bytes(&mut itoa::Buffer::new()) == wanted,
            None => false,
        },
    };
    if !passes {
        if !options.get {
            reply.null();
        }
        return Ok(());
    }
    let deadline = match options.expiry {
        Expiry::None => None,
        Expiry::Keep => old.and_then(|(_, meta)| meta.deadline),
        Expiry::At(deadline) => Some(deadline),
    };
    store_until(db, key, args.word(2), deadline, "set");
    if matches!(options.expiry, Expiry::At(_)) && !deleted_by_deadline(db, deadline) {
        db.notify(key, EventClass::Generic, "expire");
        if args.len() == 5 && args.is(3, "PXAT") {
            db.changes.log_verbatim();
        }
    }
    if args.len() == 4 && args.is(3, "KEEPTTL") {
        db.changes.log_verbatim();
    }
    if !options.get {
        reply.ok();
    }
    Ok(())
}

const SETNX: Command = Command {
    name: "SETNX",
    syntax: "key value",
    summary: "Sets a key to a string if it does not exist.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::String,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Create)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(setnx),
    subcommands: &[],
};

fn setnx(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    let missing = db.peek(key).is_none();
    if missing {
        store(db, key, args.word(2), Meta::default());
        db.changed(key, EventClass::String, "set");
    }
    reply.integer(i64::from(missing));
    Ok(())
}

const SETEX: Command = Command {
    name: "SETEX",
    syntax: "key seconds value",
    summary: "Sets a key to a string that expires.",
    since: "2.0.0",
    complexity: "O(1)",
    group: Group::String,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Overwrite)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(setex),
    subcommands: &[],
};

fn setex(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    set_expiring(db, args, Unit::Seconds, "setex", reply)
}

const PSETEX: Command = Command {
    name: "PSETEX",
    syntax: "key milliseconds value",
    summary: "Sets a key to a string that expires, to the millisecond.",
    since: "2.6.0",
    complexity: "O(1)",
    group: Group::String,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Overwrite)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(psetex),
    subcommands: &[],
};

fn psetex(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    set_expiring(db, args, Unit::Milliseconds, "psetex", reply)
}

fn set_expiring(
    db: &mut Db<'_>,
    args: &Args<'_>,
    unit: Unit,
    name: &str,
    reply: &mut Reply,
) -> Result {
    let key = args.key(1);
    let deadline = deadline::read(args.word(2), unit, Base::Now, db.now(), name)?;
    store_until(db, key, args.word(3), Some(deadline), "set");
    db.notify(key, EventClass::Generic, "expire");
    reply.ok();
    Ok(())
}

const GETSET: Command = Command {
    name: "GETSET",
    syntax: "key value",
    summary: "Sets a key to a string and returns what it held.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::String,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Update)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(getset),
    subcommands: &[],
};

fn getset(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    write_text(db.text(key)?, reply);
    store(db, key, args.word(2), Meta::default());
    db.changed(key, EventClass::String, "set");
    db.changes.log_instead(&[b"SET", key.bytes, args.word(2)]);
    Ok(())
}

const GETDEL: Command = Command {
    name: "GETDEL",
    syntax: "key",
    summary: "Returns the string value of a key and deletes the key.",
    since: "6.2.0",
    complexity: "O(1)",
    group: Group::String,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Take)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(getdel),
    subcommands: &[],
};

fn getdel(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    write_text(db.text(key)?, reply);
    if db.delete(key) {
        db.changed(key, EventClass::Generic, "del");
        db.changes.log_instead(&[b"DEL", key.bytes]);
    }
    Ok(())
}

const GETEX: Command = Command {
    name: "GETEX",
    syntax: "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]",
    summary: "Returns the string value of a key and sets or removes its deadline.",
    since: "6.2.0",
    complexity: "O(1)",
    group: Group::String,
    arity: AtLeast(2),
    keys: &[Keys::at(1, Access::Update)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(getex),
    subcommands: &[],
};

fn getex(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    let change = read_getex(args, db.now())?;
    let text = db.text(key)?;
    let exists = text.is_some();
    write_text(text, reply);
    match change {
        Some(Some(deadline)) if exists && deleted_by_deadline(db, Some(deadline)) => {
            db.delete(key);
            db.changed(key, EventClass::Expired, "expired");
            db.log_removal_instead(key, Removal::Expired);
        }
        Some(Some(deadline)) if exists => {
            db.set_deadline(key, Some(deadline));
            db.changed(key, EventClass::Generic, "expire");
            db.changes.log_instead(&[
                b"PEXPIREAT",
                key.bytes,
                itoa::Buffer::new().format(deadline.millis()).as_bytes(),
            ]);
        }
        Some(None) if db.peek(key).is_some_and(|entry| entry.deadline().is_some()) => {
            db.set_deadline(key, None);
            db.changed(key, EventClass::Generic, "persist");
            db.changes.log_instead(&[b"PERSIST", key.bytes]);
        }
        _ => {}
    }
    Ok(())
}

/// What GETEX is to do with the deadline: nothing, take it away, or set it.
fn read_getex(args: &Args<'_>, now: Timestamp) -> Result<Option<Option<Timestamp>>> {
    let options = SetOptions::read_from(args, 2, now, "getex", Allowed::Deadline)?;
    Ok(match options.expiry {
        Expiry::None => None,
        Expiry::Keep => Some(None),
        Expiry::At(deadline) => Some(Some(deadline)),
    })
}

const DELIFEQ: Command = Command {
    name: "DELIFEQ",
    syntax: "key value",
    summary: "Deletes a key if it holds this string.",
    since: "9.0.0",
    complexity: "O(1)",
    group: Group::String,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Remove)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(delifeq),
    subcommands: &[],
};

fn delifeq(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    let equal = db
        .text_to_change(key)?
        .is_some_and(|text| text.as_bytes(&mut itoa::Buffer::new()) == args.word(2));
    if equal {
        db.delete(key);
        db.changed(key, EventClass::Generic, "del");
        db.changes.log_instead(&[b"DEL", key.bytes]);
    }
    reply.integer(i64::from(equal));
    Ok(())
}

/// A deadline that has passed already deletes the key, unless this server leaves that to its primary.
fn deleted_by_deadline(db: &Db<'_>, deadline: Option<Timestamp>) -> bool {
    db.keyspace().deletes_expired() && deadline.is_some_and(|deadline| deadline <= db.expired_by())
}

/// Sets a key to a string that may have a deadline, and says so; a deadline in the past deletes it.
fn store_until(
    db: &mut Db<'_>,
    key: Key<'_>,
    value: &[u8],
    deadline: Option<Timestamp>,
    event: &'static str,
) {
    if deleted_by_deadline(db, deadline) {
        if db.delete(key) {
            db.changed(key, EventClass::Expired, "expired");
            db.log_removal_instead(key, Removal::Expired);
        }
        return;
    }
    put_until(db, key, value, deadline, event);
}

/// Sets a key to a string that may have a deadline, and says so.
fn put_until(
    db: &mut Db<'_>,
    key: Key<'_>,
    value: &[u8],
    deadline: Option<Timestamp>,
    event: &'static str,
) {
    store(
        db,
        key,
        value,
        Meta {
            deadline,
            ..Meta::default()
        },
    );
    db.changed(key, EventClass::String, event);
    match deadline {
        Some(at) => {
            db.changes.log_instead(&[
                b"SET",
                key.bytes,
                value,
                b"PXAT",
                itoa::Buffer::new().format(at.millis()).as_bytes(),
            ]);
        }
        None => db.changes.log_instead(&[b"SET", key.bytes, value]),
    }
}

/// Sets a key to a string: as an integer if it reads as one.
#[inline(always)]
pub fn store(db: &mut Db<'_>, key: Key<'_>, value: &[u8], meta: Meta) {
    match number::parse_i64(value) {
        Some(number) => db.put_integer(key, number, meta),
        None => db.put_bytes(key, value, meta),
    }
}

/// Writes a string as a bulk string, null if there is none; long ones are not copied.
#[inline(always)]
pub fn write_text(text: Option<Text<'_>>, reply: &mut Reply) {
    match text {
        None => reply.null(),
        Some(Text::Bytes(bytes)) => reply.bulk(bytes),
        Some(Text::Int(number)) => reply.bulk_integer(number),
        Some(Text::Shared(buffer)) => {
            reply.bulk_shared(bytes::Bytes::from_owner(SharedText(buffer.clone())))
        }
    }
}

/// A stored buffer as the owner of a reply's bytes.
pub struct SharedText(pub triomphe::Arc<Vec<u8>>);

impl AsRef<[u8]> for SharedText {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
