//! HyperLogLogs: how many different elements were seen. They live in strings, which clients may write to as well.

use std::sync::atomic::Ordering;

use storage::{
    changes::EventClass,
    db::Db,
    keyspace::Key,
    value::{
        Text,
        hyperloglog::{self, Encoding, Union},
    },
};

use crate::{
    dispatch::{
        args::Args,
        command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
        error::Error,
    },
    session::Session,
};

pub const COMMANDS: &[&Command] = &[&PFADD, &PFCOUNT, &PFDEBUG, &PFMERGE, &PFSELFTEST];

/// Registers written per slice of a reply.
const SLICE: usize = 1024;

const PFADD: Command = Command {
    name: "PFADD",
    syntax: "key [element [element ...]]",
    summary: "Adds elements to a HyperLogLog.",
    since: "2.8.9",
    complexity: "O(N) for N elements",
    group: Group::HyperLogLog,
    arity: AtLeast(2),
    keys: &[Keys::at(1, Access::Insert)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(pfadd),
    subcommands: &[],
};

fn pfadd(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    let is_new = ensure(db, key)?;
    let limit = sparse_limit(db);
    let added = db.edit_text(key, 0, |bytes| hyperloglog::add(bytes, args.from(2), limit))?;
    if added.is_err() {
        keep_part(db, key);
    }
    let changed = added.map_err(refusal)? || is_new;
    if changed {
        db.changed(key, EventClass::String, "pfadd");
    }
    reply.integer(i64::from(changed));
    Ok(())
}

/// Elements before a faulty run may have been added: who repeats this gets the string as it is now.
fn keep_part(db: &mut Db<'_>, key: Key<'_>) {
    let text = db.peek(key).and_then(|entry| Text::of(entry.value()));
    let Some(bytes) = text.map(|text| text.as_bytes(&mut itoa::Buffer::new()).to_vec()) else {
        return;
    };
    db.changes.dirty += 1;
    db.changes
        .log_instead(&[b"SET", key.bytes, &bytes, b"KEEPTTL"]);
}

const PFCOUNT: Command = Command {
    name: "PFCOUNT",
    syntax: "key [key ...]",
    summary: "Estimates how many different elements were added to HyperLogLogs.",
    since: "2.8.9",
    complexity: "O(N) for N keys",
    group: Group::HyperLogLog,
    arity: AtLeast(2),
    keys: &[Keys::all(1, Access::Repack)],
    flags: &[Flag::ReadOnly, Flag::MayReplicate],
    categories: &[],
    run: Run::Write(pfcount),
    subcommands: &[],
};

fn pfcount(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let count = if args.len() == 2 {
        count_one(db, args.key(1))?
    } else {
        let mut union = Union::new();
        for index in 1..args.len() {
            read(db, args.key(index), |bytes| union.add(bytes))?;
        }
        union.count()
    };
    reply.integer(count as i64);
    Ok(())
}

/// The count that is stored with the registers, brought up to date if they changed.
fn count_one(db: &mut Db<'_>, key: Key<'_>) -> Result<u64> {
    let Some(cached) = read(db, key, hyperloglog::cached_count)? else {
        return Ok(0);
    };
    // The count may be stored in the string: clients see one that can be written to.
    db.mark_raw(key);
    match cached {
        Some(count) => Ok(count),
        None => {
            let count = db.edit_text(key, 0, |bytes| hyperloglog::refresh_count(bytes))?;
            let count = count.map_err(refusal)?;
            // The string is another one, though it stands for the same elements.
            db.touch_key(key);
            db.changes.dirty += 1;
            Ok(count)
        }
    }
}

const PFMERGE: Command = Command {
    name: "PFMERGE",
    syntax: "destkey [sourcekey [sourcekey ...]]",
    summary: "Merges HyperLogLogs into one.",
    since: "2.8.9",
    complexity: "O(N) for N keys",
    group: Group::HyperLogLog,
    arity: AtLeast(2),
    keys: &[Keys::at(1, Access::Merge), Keys::all(2, Access::Read)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(pfmerge),
    subcommands: &[],
};

fn pfmerge(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let mut union = Union::new();
    for index in 1..args.len() {
        read(db, args.key(index), |bytes| union.add(bytes))?;
    }
    let key = args.key(1);
    ensure(db, key)?;
    let limit = sparse_limit(db);
    let stored = db.edit_text(key, 0, |bytes| union.store(bytes, limit))?;
    stored.map_err(refusal)?;
    db.changed(key, EventClass::String, "pfadd");
    reply.ok();
    Ok(())
}

const PFDEBUG: Command = Command {
    name: "PFDEBUG",
    syntax: "subcommand key",
    summary: "Looks into a HyperLogLog.",
    since: "2.8.9",
    complexity: "O(1)",
    group: Group::HyperLogLog,
    arity: Exactly(3),
    keys: &[Keys::at(2, Access::Repack)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Admin],
    categories: &[],
    run: Run::Write(pfdebug),
    subcommands: &[],
};

fn pfdebug(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    if args.is(1, "SIMD") {
        return answer_simd(args, reply);
    }
    const NO_KEY: Error = Error::from_static("ERR The specified key does not exist");
    let key = args.key(2);
    let text = db.text_to_change(key)?;
    let encoding = look_at(text, hyperloglog::encoding)?.ok_or(NO_KEY)?;
    db.mark_raw(key);
    if args.is(1, "GETREG") {
        make_dense(db, key)?;
        let registers = look_at(db.text_to_change(key)?, hyperloglog::registers)?.ok_or(NO_KEY)?;
        write_registers(registers, reply);
    } else if args.is(1, "DECODE") {
        const DENSE: Error = Error::from_static("ERR HLL encoding is not sparse");
        let text = look_at(db.text_to_change(key)?, hyperloglog::describe_sparse)?;
        let text = text.ok_or(NO_KEY)?;
        reply.bulk(text.ok_or(DENSE)?.as_bytes());
    } else if args.is(1, "ENCODING") {
        reply.simple(match encoding {
            Encoding::Sparse => "sparse",
            Encoding::Dense => "dense",
        });
    } else if args.is(1, "TODENSE") {
        let converted = make_dense(db, key)?;
        reply.integer(i64::from(converted));
    } else {
        let mut text = b"Unknown PFDEBUG subcommand '".to_vec();
        text.extend_from_slice(args.word(1));
        text.push(b'\'');
        return Err(Error::general(text));
    }
    Ok(())
}

/// There is one implementation here, so that nothing is switched.
fn answer_simd(args: &Args<'_>, reply: &mut Reply) -> Result {
    if args.is(2, "ON") {
        reply.simple("enabled");
    } else if args.is(2, "OFF") {
        reply.simple("disabled");
    } else {
        return Err(Error::general("Argument must be ON or OFF"));
    }
    Ok(())
}

/// Whether the key was sparse.
fn make_dense(db: &mut Db<'_>, key: Key<'_>) -> Result<bool> {
    let converted = db.edit_text(key, 0, hyperloglog::to_dense)?;
    let converted = converted.map_err(refusal)?;
    if converted {
        db.changes.dirty += 1;
        db.changes.log_instead(&[b"PFDEBUG", b"TODENSE", key.bytes]);
    }
    Ok(converted)
}

fn write_registers(registers: Vec<u8>, reply: &mut Reply) {
    reply.array(registers.len());
    let mut written = 0;
    reply.later(move |writer| {
        let end = (written + SLICE).min(registers.len());
        for &register in &registers[written..end] {
            writer.integer(i64::from(register));
        }
        written = end;
        written == registers.len()
    });
}

const PFSELFTEST: Command = Command {
    name: "PFSELFTEST",
    syntax: "",
    summary: "Tests the HyperLogLog implementation.",
    since: "2.8.9",
    complexity: "O(1)",
    group: Group::HyperLogLog,
    arity: Exactly(1),
    keys: &[],
    flags: &[Flag::Admin],
    categories: &[],
    run: Run::Session(pfselftest),
    subcommands: &[],
};

fn pfselftest(_session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    hyperloglog::self_test().map_err(Error::new)?;
    reply.ok();
    Ok(())
}

/// Makes an empty HyperLogLog unless the key exists; whether it did. One that exists must be sound.
fn ensure(db: &mut Db<'_>, key: Key<'_>) -> Result<bool> {
    if look_at(db.text_to_change(key)?, hyperloglog::encoding)?.is_some() {
        return Ok(false);
    }
    db.edit_text(key, 0, |bytes| *bytes = hyperloglog::create())?;
    Ok(true)
}

/// What `look` finds in the string of a key, if there is one.
fn read<R>(
    db: &Db<'_>,
    key: Key<'_>,
    look: impl FnOnce(&[u8]) -> std::result::Result<R, hyperloglog::Error>,
) -> Result<Option<R>> {
    look_at(db.text(key)?, look)
}

fn look_at<R>(
    text: Option<Text<'_>>,
    look: impl FnOnce(&[u8]) -> std::result::Result<R, hyperloglog::Error>,
) -> Result<Option<R>> {
    match text {
        None => Ok(None),
        Some(text) => look(text.as_bytes(&mut itoa::Buffer::new()))
            .map(Some)
            .map_err(refusal),
    }
}

fn refusal(error: hyperloglog::Error) -> Error {
    match error {
        hyperloglog::Error::NotHyperLogLog => {
            Error::from_static("WRONGTYPE Key is not a valid HyperLogLog string value.")
        }
        hyperloglog::Error::Corrupted => {
            Error::from_static("INVALIDOBJ Corrupted HLL object detected")
        }
    }
}

/// `hll-sparse-max-bytes`
fn sparse_limit(db: &Db<'_>) -> usize {
    let limit = db.settings().hll_sparse_max_bytes.load(Ordering::Relaxed);
    usize::try_from(limit).unwrap_or(usize::MAX)
}
