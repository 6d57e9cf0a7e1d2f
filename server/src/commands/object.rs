//! OBJECT: how values are held, and how they are used.

use storage::{
    db::Db,
    entry::EntryRef,
    eviction,
    value::{ValueRef, hash, list::ListEncoding, set, sorted_set},
};

use crate::{
    dispatch::{
        args::Args,
        command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
        error::Error,
    },
    session::Session,
};

pub const COMMANDS: &[&Command] = &[&OBJECT];

const OBJECT: Command = Command {
    name: "OBJECT",
    syntax: "",
    summary: "Tells how values are held.",
    since: "2.2.3",
    complexity: "Depends on subcommand.",
    group: Group::Generic,
    arity: AtLeast(2),
    keys: &[],
    flags: &[],
    categories: &[],
    run: Run::Container,
    subcommands: &[
        &OBJECT_ENCODING,
        &OBJECT_FREQ,
        &OBJECT_HELP,
        &OBJECT_IDLETIME,
        &OBJECT_REFCOUNT,
    ],
};

const OBJECT_ENCODING: Command = Command {
    name: "ENCODING",
    syntax: "key",
    summary: "Names how a value is held.",
    since: "2.2.3",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(3),
    keys: &[Keys::at(2, Access::Inspect)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(object_encoding),
    subcommands: &[],
};

fn object_encoding(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    match db.inspect_quietly(args.key(2)) {
        Some(entry) => reply.bulk(encoding(entry).as_bytes()),
        None => reply.null(),
    }
    Ok(())
}

/// Bytes of key and value that the original keeps in one allocation: longer strings are `raw` there.
const EMBEDDED_MAX: usize = 113;
/// Keys from this length on take more of them.
const LONG_KEY: usize = 32;
const LONG_KEY_BYTES: usize = 2;
const DEADLINE_BYTES: usize = 8;

/// The encoding's name as clients know it from the original.
pub fn encoding(entry: EntryRef<'_>) -> &'static str {
    match entry.value() {
        ValueRef::Int(_) => "int",
        ValueRef::Bytes(_) if entry.is_raw() => "raw",
        ValueRef::Bytes(bytes) => {
            let key = entry.key().len();
            let used = bytes.len()
                + key
                + if key >= LONG_KEY { LONG_KEY_BYTES } else { 0 }
                + if entry.deadline().is_some() {
                    DEADLINE_BYTES
                } else {
                    0
                };
            if used <= EMBEDDED_MAX {
                "embstr"
            } else {
                "raw"
            }
        }
        ValueRef::Shared(_) => "raw",
        ValueRef::List(list) => match list.encoding() {
            ListEncoding::Listpack => "listpack",
            ListEncoding::Quicklist => "quicklist",
        },
        ValueRef::Set(set) => match set.encoding() {
            set::Encoding::IntSet => "intset",
            set::Encoding::ListPack => "listpack",
            set::Encoding::HashTable => "hashtable",
        },
        ValueRef::Hash(hash) => match hash.encoding() {
            hash::Encoding::ListPack => "listpack",
            hash::Encoding::HashTable => "hashtable",
        },
        ValueRef::SortedSet(set) => match set.encoding() {
            sorted_set::Encoding::ListPack => "listpack",
            sorted_set::Encoding::SkipList => "skiplist",
        },
        ValueRef::Stream(_) => "stream",
    }
}

const OBJECT_FREQ: Command = Command {
    name: "FREQ",
    syntax: "key",
    summary: "Tells how often a key is used, under an LFU policy.",
    since: "4.0.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(3),
    keys: &[Keys::at(2, Access::Inspect)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(object_freq),
    subcommands: &[],
};

fn object_freq(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    match db.inspect_quietly(args.key(2)) {
        Some(entry) => match eviction::frequency(db.keyspace(), entry, db.now()) {
            Some(frequency) => {
                reply.integer(frequency.into());
                Ok(())
            }
            None => Err(Error::general(
                "An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
                 switching between policies at runtime LRU and LFU data will take some time to adjust.",
            )),
        },
        None => {
            reply.null();
            Ok(())
        }
    }
}

const OBJECT_IDLETIME: Command = Command {
    name: "IDLETIME",
    syntax: "key",
    summary: "Tells for how many seconds a key was not used.",
    since: "2.2.3",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(3),
    keys: &[Keys::at(2, Access::Inspect)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(object_idletime),
    subcommands: &[],
};

fn object_idletime(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    match db.inspect_quietly(args.key(2)) {
        Some(entry) => match eviction::idle_seconds(db.keyspace(), entry.access(), db.now()) {
            Some(seconds) => reply.integer(seconds.into()),
            None => {
                return Err(Error::general(
                    "An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching \
                     between policies at runtime LRU and LFU data will take some time to adjust.",
                ));
            }
        },
        None => reply.null(),
    }
    Ok(())
}

const OBJECT_REFCOUNT: Command = Command {
    name: "REFCOUNT",
    syntax: "key",
    summary: "Tells how many owners a value has, which is one.",
    since: "2.2.3",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(3),
    keys: &[Keys::at(2, Access::Inspect)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(object_refcount),
    subcommands: &[],
};

fn object_refcount(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    match db.inspect_quietly(args.key(2)) {
        Some(_) => reply.integer(1),
        None => reply.null(),
    }
    Ok(())
}

const OBJECT_HELP: Command = super::help::subcommand("6.2.0", Group::Generic, &[], object_help);

fn object_help(_session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    super::help(reply, "OBJECT", OBJECT_HELP_LINES);
    Ok(())
}

const OBJECT_HELP_LINES: &[&str] = &[
    "ENCODING <key>",
    "    Name how the value is held.",
    "FREQ <key>",
    "    Tell the access frequency index of the key, under an LFU policy.",
    "IDLETIME <key>",
    "    Tell for how many seconds the key was not used.",
    "REFCOUNT <key>",
    "    Tell how many owners the value has.",
];
