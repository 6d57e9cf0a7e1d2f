//! XGROUP: creating, moving and deleting groups and their consumers.

use storage::{
    changes::EventClass,
    db::Db,
    keyspace::Key,
    value::stream::{Group as StreamGroup, MIN_ID, Stream},
};

use super::{id, no_group_for_key, subcommand_syntax};
use crate::{
    dispatch::{
        args::Args,
        command::{Access, Arity::*, Category, Command, Flag, Group, Keys, Reply, Result, Run},
        error::Error,
    },
    session::Session,
};

const NO_KEY: Error = Error::from_static(
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically.",
);

pub(super) const XGROUP: Command = Command {
    name: "XGROUP",
    syntax: "",
    summary: "Commands about consumer groups.",
    since: "5.0.0",
    complexity: "Depends on the subcommand.",
    group: Group::Stream,
    arity: AtLeast(2),
    keys: &[],
    flags: &[],
    categories: &[],
    run: Run::Container,
    subcommands: &[
        &CREATE,
        &CREATECONSUMER,
        &DELCONSUMER,
        &DESTROY,
        &GROUP_HELP,
        &SETID,
    ],
};

const CREATE: Command = Command {
    name: "CREATE",
    syntax: "key group <id | $> [MKSTREAM] [ENTRIESREAD entries-read]",
    summary: "Creates a consumer group.",
    since: "5.0.0",
    complexity: "O(1)",
    group: Group::Stream,
    arity: AtLeast(5),
    keys: &[Keys::at(2, Access::Insert)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(create),
    subcommands: &[],
};

#[derive(Default)]
struct Options {
    make_stream: bool,
    entries_read: Option<u64>,
}

impl Options {
    fn read(args: &Args<'_>, may_make_stream: bool) -> Result<Options> {
        let mut options = Options::default();
        let mut at = 5;
        while at < args.len() {
            if may_make_stream && args.is(at, "MKSTREAM") {
                options.make_stream = true;
            } else if args.is(at, "ENTRIESREAD") && at + 1 < args.len() {
                at += 1;
                options.entries_read = match args.integer(at)? {
                    ..-1 => {
                        return Err(Error::from_static(
                            "ERR value for ENTRIESREAD must be positive or -1",
                        ));
                    }
                    read => u64::try_from(read).ok(),
                };
            } else {
                return Err(subcommand_syntax("XGROUP", args.word(1)));
            }
            at += 1;
        }
        Ok(options)
    }
}

fn create(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let options = Options::read(args, true)?;
    let (key, name) = (args.key(2), args.word(3));
    let stream = db.read_to_change::<Stream>(key)?;
    if stream.is_none() && !options.make_stream {
        return Err(NO_KEY);
    }
    let last_id = match args.word(4) {
        b"$" => stream.map_or(MIN_ID, |stream| stream.last_id),
        word => id::parse(word)?,
    };
    let is_new = stream.is_none();
    let mut stream = db.write_or_create(key, Stream::new)?;
    if !stream.create_group(name, StreamGroup::new(last_id, options.entries_read)) {
        return Err(Error::from_static(
            "BUSYGROUP Consumer Group name already exists",
        ));
    }
    drop(stream);
    if is_new {
        db.touch_key(key);
    }
    db.changed_inside(key, EventClass::Stream, "xgroup-create");
    reply.ok();
    Ok(())
}

const SETID: Command = Command {
    name: "SETID",
    syntax: "key group <id | $> [ENTRIESREAD entries-read]",
    summary: "Sets the last delivered ID of a group.",
    since: "5.0.0",
    complexity: "O(1)",
    group: Group::Stream,
    arity: AtLeast(5),
    keys: &[Keys::at(2, Access::Alter)],
    flags: &[Flag::Write],
    categories: &[],
    run: Run::Write(set_id),
    subcommands: &[],
};

fn set_id(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let options = Options::read(args, false)?;
    let (key, name) = (args.key(2), args.word(3));
    let last = require(db, key, name)?.last_id;
    let last_id = match args.word(4) {
        b"$" => last,
        word => id::parse_or_edge(word, 0)?,
    };
    change(db, key, name, |group| {
        group.last_id = last_id;
        group.entries_read = options.entries_read;
    })?;
    db.changed_inside(key, EventClass::Stream, "xgroup-setid");
    reply.ok();
    Ok(())
}

/// The stream, which must have the group.
fn require<'d>(db: &'d Db<'_>, key: Key<'_>, name: &[u8]) -> Result<&'d Stream> {
    let stream = db.read_to_change::<Stream>(key)?.ok_or(NO_KEY)?;
    match stream.group(name) {
        Some(_) => Ok(stream),
        None => Err(no_group_for_key(name, key.bytes)),
    }
}

fn change<R>(
    db: &mut Db<'_>,
    key: Key<'_>,
    name: &[u8],
    change: impl FnOnce(&mut StreamGroup) -> R,
) -> Result<R> {
    let mut stream = db.write::<Stream>(key)?.ok_or(NO_KEY)?;
    stream
        .change_group(name, change)
        .ok_or_else(|| no_group_for_key(name, key.bytes))
}

const DESTROY: Command = Command {
    name: "DESTROY",
    syntax: "key group",
    summary: "Deletes a consumer group.",
    since: "5.0.0",
    complexity: "O(N) with N the number of pending entries",
    group: Group::Stream,
    arity: Exactly(4),
    keys: &[Keys::at(2, Access::Delete)],
    flags: &[Flag::Write],
    categories: &[],
    run: Run::Write(destroy),
    subcommands: &[],
};

fn destroy(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(2);
    let mut stream = db.write::<Stream>(key)?.ok_or(NO_KEY)?;
    let deleted = stream.delete_group(args.word(3));
    drop(stream);
    if deleted {
        db.changed_inside(key, EventClass::Stream, "xgroup-destroy");
        // Who waits for news of the group is told that it is gone.
        db.wake_waiting(key);
    }
    reply.integer(i64::from(deleted));
    Ok(())
}

const CREATECONSUMER: Command = Command {
    name: "CREATECONSUMER",
    syntax: "key group consumer",
    summary: "Creates a consumer in a group.",
    since: "6.2.0",
    complexity: "O(1)",
    group: Group::Stream,
    arity: Exactly(5),
    keys: &[Keys::at(2, Access::Insert)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(create_consumer),
    subcommands: &[],
};

fn create_consumer(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (key, now) = (args.key(2), db.now().millis());
    let created = change(db, key, args.word(3), |group| {
        group.create_consumer(args.word(4), now)
    })?;
    if created {
        db.changed_inside(key, EventClass::Stream, "xgroup-createconsumer");
    }
    reply.integer(i64::from(created));
    Ok(())
}

const DELCONSUMER: Command = Command {
    name: "DELCONSUMER",
    syntax: "key group consumer",
    summary: "Deletes a consumer and returns how many entries it had pending.",
    since: "5.0.0",
    complexity: "O(1)",
    group: Group::Stream,
    arity: Exactly(5),
    keys: &[Keys::at(2, Access::Delete)],
    flags: &[Flag::Write],
    categories: &[],
    run: Run::Write(delete_consumer),
    subcommands: &[],
};

fn delete_consumer(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(2);
    let deleted = change(db, key, args.word(3), |group| {
        group.delete_consumer(args.word(4))
    })?;
    if deleted.is_some() {
        db.changed_inside(key, EventClass::Stream, "xgroup-delconsumer");
    }
    reply.integer(deleted.unwrap_or_default() as i64);
    Ok(())
}

const GROUP_HELP: Command =
    crate::commands::help::subcommand("5.0.0", Group::Stream, &[Category::Stream], help);

fn help(_session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    crate::commands::help(reply, "XGROUP", HELP_LINES);
    Ok(())
}

const HELP_LINES: &[&str] = &[
    "CREATE <key> <groupname> <id|$> [option]",
    "    Create a new consumer group. Options are:",
    "    * MKSTREAM",
    "      Create the empty stream if it does not exist.",
    "    * ENTRIESREAD entries_read",
    "      Set the group's entries_read counter (internal use).",
    "CREATECONSUMER <key> <groupname> <consumer>",
    "    Create a new consumer in the specified group.",
    "DELCONSUMER <key> <groupname> <consumer>",
    "    Remove the specified consumer.",
    "DESTROY <key> <groupname>",
    "    Remove the specified group.",
    "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
    "    Set the current group ID and entries_read counter.",
];
