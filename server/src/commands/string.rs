//! Strings: values of bytes, counters included.

use storage::{changes::EventClass, db::Db, entry::Meta, value::Text};

use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
};

pub const COMMANDS: &[&Command] = &[&GET, &SET];

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
    match db.text(args.key(1))? {
        Some(text) => write_text(text, reply),
        None => reply.null(),
    }
    Ok(())
}

const SET: Command = Command {
    name: "SET",
    syntax: "key value",
    summary: "Sets a key to a string.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::String,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Overwrite)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(set),
    subcommands: &[],
};

fn set(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    db.put_bytes(key, args.word(2), Meta::default());
    db.changed(key, EventClass::String, "set");
    reply.ok();
    Ok(())
}

/// Writes a string as a bulk string; long ones are not copied.
pub fn write_text(text: Text<'_>, reply: &mut Reply) {
    match text {
        Text::Bytes(bytes) => reply.bulk(bytes),
        Text::Int(number) => reply.bulk_integer(number),
        Text::Shared(buffer) => reply.bulk_shared(bytes::Bytes::from_owner(Shared(buffer.clone()))),
    }
}

/// A stored buffer as the owner of a reply's bytes.
struct Shared(triomphe::Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
