//! Strings: values of bytes, counters included.

use std::sync::atomic::Ordering;

use storage::{
    changes::EventClass,
    db::Db,
    entry::Meta,
    keyspace::Key,
    time::Timestamp,
    value::{
        Text, lcs,
        number::{self, LongDouble},
    },
};

use super::deadline::{self, Base, Unit};
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Place, Reply, Result, Run},
    error::Error,
};

pub const COMMANDS: &[&Command] = &[
    &APPEND,
    &DECR,
    &DECRBY,
    &DELIFEQ,
    &GET,
    &GETDEL,
    &GETEX,
    &GETRANGE,
    &GETSET,
    &INCR,
    &INCRBY,
    &INCRBYFLOAT,
    &LCS,
    &MGET,
    &MSET,
    &MSETEX,
    &MSETNX,
    &PSETEX,
    &SET,
    &SETEX,
    &SETNX,
    &SETRANGE,
    &STRLEN,
    &SUBSTR,
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
            db.changes.log_instead(&[b"DEL", key.bytes]);
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

const MGET: Command = Command {
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

const MSET: Command = Command {
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

const MSETNX: Command = Command {
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

const MSETEX: Command = Command {
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

const STRLEN: Command = Command {
    name: "STRLEN",
    syntax: "key",
    summary: "Returns the length of a string in bytes.",
    since: "2.2.0",
    complexity: "O(1)",
    group: Group::String,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Inspect)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(strlen),
    subcommands: &[],
};

fn strlen(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    reply.integer(db.text(args.key(1))?.map_or(0, |text| text.len() as i64));
    Ok(())
}

const APPEND: Command = Command {
    name: "APPEND",
    syntax: "key value",
    summary: "Appends bytes to a string.",
    since: "2.0.0",
    complexity: "O(1) amortised",
    group: Group::String,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Insert)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(append),
    subcommands: &[],
};

fn append(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (key, tail) = (args.key(1), args.word(2));
    let len = match db.text_to_change(key)?.map(|text| text.len()) {
        None => {
            store(db, key, tail, Meta::default());
            tail.len()
        }
        Some(len) => {
            check_len(db, len, tail.len())?;
            db.edit_text(key, 0, |bytes| bytes.extend_from_slice(tail))?;
            len + tail.len()
        }
    };
    db.changed(key, EventClass::String, "append");
    reply.integer(len as i64);
    Ok(())
}

const GETRANGE: Command = Command {
    name: "GETRANGE",
    syntax: "key start end",
    summary: "Returns a part of a string.",
    since: "2.4.0",
    complexity: "O(N) for N bytes returned",
    group: Group::String,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(getrange),
    subcommands: &[],
};

fn getrange(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (start, end) = (args.integer(2)?, args.integer(3)?);
    let text = db.text(args.key(1))?;
    let mut buffer = itoa::Buffer::new();
    let bytes = text
        .as_ref()
        .map_or(&b""[..], |text| text.as_bytes(&mut buffer));
    reply.bulk(slice(bytes, start, end));
    Ok(())
}

/// The bytes from `start` to `end`, both included and counted from the end when negative.
fn slice(bytes: &[u8], start: i64, end: i64) -> &[u8] {
    let len = bytes.len() as i64;
    if len == 0 || (start < 0 && end < 0 && start > end) {
        return &[];
    }
    let from_end = |index: i64| {
        if index < 0 {
            (len + index).max(0)
        } else {
            index
        }
    };
    let (start, end) = (from_end(start), from_end(end).min(len - 1));
    if start > end {
        &[]
    } else {
        &bytes[start as usize..=end as usize]
    }
}

const SUBSTR: Command = Command {
    name: "SUBSTR",
    syntax: "key start end",
    summary: "Returns a part of a string; GETRANGE under its first name.",
    since: "1.0.0",
    complexity: "O(N) for N bytes returned",
    group: Group::String,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(getrange),
    subcommands: &[],
};

const SETRANGE: Command = Command {
    name: "SETRANGE",
    syntax: "key offset value",
    summary: "Overwrites a part of a string, extending it with zeros as needed.",
    since: "2.2.0",
    complexity: "O(N) for a value of N bytes",
    group: Group::String,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(setrange),
    subcommands: &[],
};

fn setrange(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (key, offset, patch) = (args.key(1), args.integer(2)?, args.word(3));
    let offset = usize::try_from(offset).map_err(|_| Error::OFFSET_RANGE)?;
    let len = db.text_to_change(key)?.map_or(0, |text| text.len());
    if patch.is_empty() {
        reply.integer(len as i64);
        return Ok(());
    }
    check_len(db, offset, patch.len())?;
    let end = offset + patch.len();
    let len = db.edit_text(key, end, |bytes| {
        bytes[offset..end].copy_from_slice(patch);
        bytes.len()
    })?;
    db.changed(key, EventClass::String, "setrange");
    reply.integer(len as i64);
    Ok(())
}

/// May a string be `len` and `more` bytes long?
fn check_len(db: &Db<'_>, len: usize, more: usize) -> Result {
    let limit = db.settings().proto_max_bulk_len.load(Ordering::Relaxed);
    match (len as u64).checked_add(more as u64) {
        Some(total) if total <= limit => Ok(()),
        _ => Err(Error::TOO_LARGE),
    }
}

const INCR: Command = Command {
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

const DECR: Command = Command {
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

const INCRBY: Command = Command {
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

const DECRBY: Command = Command {
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

const INCRBYFLOAT: Command = Command {
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

const LCS: Command = Command {
    name: "LCS",
    syntax: "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]",
    summary: "Finds the longest common subsequence of two strings.",
    since: "7.0.0",
    complexity: "O(N*M) for strings of N and M bytes",
    group: Group::String,
    arity: AtLeast(3),
    keys: &[Keys {
        place: Place::Pair { first: 1 },
        access: Access::Read,
    }],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(lcs),
    subcommands: &[],
};

fn lcs(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    const NOT_STRINGS: Error =
        Error::from_static("ERR The specified keys must contain string values");
    let (left, right) = (db.text(args.key(1)), db.text(args.key(2)));
    let (left, right) = (
        left.map_err(|_| NOT_STRINGS)?,
        right.map_err(|_| NOT_STRINGS)?,
    );
    let (mut len_only, mut with_index, mut with_len, mut min_len) = (false, false, false, 0);
    let mut index = 3;
    while index < args.len() {
        if args.is(index, "LEN") {
            len_only = true;
        } else if args.is(index, "IDX") {
            with_index = true;
        } else if args.is(index, "WITHMATCHLEN") {
            with_len = true;
        } else if args.is(index, "MINMATCHLEN") && index + 1 < args.len() {
            min_len = args.integer(index + 1)?.max(0);
            index += 1;
        } else {
            return Err(Error::SYNTAX);
        }
        index += 1;
    }
    if len_only && with_index {
        return Err(Error::general(
            "If you want both the length and indexes, please just use IDX.",
        ));
    }
    let (mut left_digits, mut right_digits) = (itoa::Buffer::new(), itoa::Buffer::new());
    let left = left
        .as_ref()
        .map_or(&b""[..], |text| text.as_bytes(&mut left_digits));
    let right = right
        .as_ref()
        .map_or(&b""[..], |text| text.as_bytes(&mut right_digits));
    let found = lcs::find(left, right).ok_or(Error::from_static(
        "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
    ))?;
    if len_only {
        reply.integer(found.len() as i64);
    } else if with_index {
        let matches: Vec<_> = found
            .matches()
            .filter(|range| range.len as i64 >= min_len)
            .collect();
        reply.map(2);
        reply.bulk(b"matches");
        reply.array(matches.len());
        for range in matches {
            reply.array(if with_len { 3 } else { 2 });
            for start in [range.left, range.right] {
                reply.array(2);
                reply.integer(start as i64);
                reply.integer((start + range.len - 1) as i64);
            }
            if with_len {
                reply.integer(range.len as i64);
            }
        }
        reply.bulk(b"len");
        reply.integer(found.len() as i64);
    } else {
        reply.bulk(&found.text(left));
    }
    Ok(())
}

/// SET's words after the value.
struct SetOptions<'a> {
    condition: Condition<'a>,
    get: bool,
    expiry: Expiry,
}

enum Condition<'a> {
    Always,
    Missing,
    Present,
    Equal(&'a [u8]),
}

enum Expiry {
    None,
    Keep,
    At(Timestamp),
}

/// Which of SET's options a command has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Allowed {
    All,
    /// Neither GET nor IFEQ, which are about one key.
    ManyKeys,
    /// The deadline alone, with PERSIST in KEEPTTL's place.
    Deadline,
}

impl<'a> SetOptions<'a> {
    fn read(args: &Args<'a>, now: Timestamp) -> Result<SetOptions<'a>> {
        SetOptions::read_from(args, 3, now, "set", Allowed::All)
    }

    fn read_from(
        args: &Args<'a>,
        first: usize,
        now: Timestamp,
        name: &str,
        allowed: Allowed,
    ) -> Result<SetOptions<'a>> {
        let mut options = SetOptions {
            condition: Condition::Always,
            get: false,
            expiry: Expiry::None,
        };
        // The number is looked at last: a syntax error further on comes first.
        let mut relative: Option<((Unit, Base), &[u8])> = None;
        let mut index = first;
        while let Some(word) = args.get(index) {
            let next = args.get(index + 1);
            let conditional = allowed != Allowed::Deadline;
            let keep = if conditional { "KEEPTTL" } else { "PERSIST" };
            match (&options.condition, &options.expiry, deadline::option(word)) {
                // Said twice, a word is meant once; two that contradict each other are an error.
                (Condition::Always | Condition::Missing, _, _)
                    if conditional && args.is(index, "NX") =>
                {
                    options.condition = Condition::Missing;
                }
                (Condition::Always | Condition::Present, _, _)
                    if conditional && args.is(index, "XX") =>
                {
                    options.condition = Condition::Present;
                }
                (Condition::Always, _, _)
                    if allowed == Allowed::All && args.is(index, "IFEQ") && next.is_some() =>
                {
                    options.condition = Condition::Equal(next.unwrap_or_default());
                    index += 1;
                }
                _ if allowed == Allowed::All && args.is(index, "GET") => options.get = true,
                _ if args.is(index, keep) && relative.is_none() => options.expiry = Expiry::Keep,
                (_, Expiry::None, Some(option))
                    if next.is_some() && relative.is_none_or(|(said, _)| said == option) =>
                {
                    relative = Some((option, next.unwrap_or_default()));
                    index += 1;
                }
                _ => return Err(Error::SYNTAX),
            }
            index += 1;
        }
        if let Some(((unit, base), value)) = relative {
            options.expiry = Expiry::At(deadline::read(value, unit, base, now, name)?);
        }
        Ok(options)
    }
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
            db.changes.log_instead(&[b"DEL", key.bytes]);
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
#[inline]
pub fn store(db: &mut Db<'_>, key: Key<'_>, value: &[u8], meta: Meta) {
    match number::parse_i64(value) {
        Some(number) => db.put_integer(key, number, meta),
        None => db.put_bytes(key, value, meta),
    }
}

/// Writes a string as a bulk string, null if there is none; long ones are not copied.
#[inline]
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
