//! Parts of strings: lengths, ranges, bytes at the end.

use std::sync::atomic::Ordering;

use storage::{changes::EventClass, db::Db, entry::Meta};

use super::store;
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
    error::Error,
};

pub(super) const STRLEN: Command = Command {
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

pub(super) const APPEND: Command = Command {
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

pub(super) const GETRANGE: Command = Command {
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

pub(super) const SUBSTR: Command = Command {
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

pub(super) const SETRANGE: Command = Command {
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
