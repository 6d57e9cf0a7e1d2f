//! A command as COMMAND DOCS shows it.

use super::{
    facts::specifications,
    syntax::{self, Argument, Kind},
};
use crate::dispatch::{
    command::{Group, Reply},
    table::Registered,
};

/// Writes a command's name and the map of what is said of it.
pub(super) fn write(registered: &Registered, reply: &mut Reply) {
    let command = registered.command;
    let arguments = syntax::arguments(command.syntax);
    reply.bulk(registered.full_name.as_bytes());
    let entries =
        4 + usize::from(!arguments.is_empty()) + usize::from(!registered.subcommands.is_empty());
    reply.map(entries);
    for (name, text) in [
        ("summary", command.summary),
        ("since", command.since),
        ("group", group_name(command.group)),
        ("complexity", command.complexity),
    ] {
        reply.bulk(name.as_bytes());
        reply.bulk(text.as_bytes());
    }
    if !arguments.is_empty() {
        let mut keys = KeyNumbers {
            next: 0,
            count: specifications(command).count(),
        };
        reply.bulk(b"arguments");
        write_arguments(&arguments, &mut keys, reply);
    }
    if !registered.subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(registered.subcommands.len());
        for subcommand in &registered.subcommands {
            write(subcommand, reply);
        }
    }
}

/// Numbers the arguments that are keys by the key specifications they are found by.
struct KeyNumbers {
    next: usize,
    count: usize,
}

impl KeyNumbers {
    fn take(&mut self) -> Option<usize> {
        let number = self.next.min(self.count.checked_sub(1)?);
        self.next += 1;
        Some(number)
    }
}

fn write_arguments(arguments: &[Argument], keys: &mut KeyNumbers, reply: &mut Reply) {
    reply.array(arguments.len());
    for argument in arguments {
        write_argument(argument, keys, reply);
    }
}

fn write_argument(argument: &Argument, keys: &mut KeyNumbers, reply: &mut Reply) {
    let nested = matches!(argument.kind, Kind::OneOf | Kind::Block);
    let key = if argument.kind == Kind::Key {
        keys.take()
    } else {
        None
    };
    let flags: Vec<&str> = [
        (argument.optional, "optional"),
        (argument.multiple, "multiple"),
        (argument.multiple_token, "multiple_token"),
    ]
    .into_iter()
    .filter_map(|(set, name)| set.then_some(name))
    .collect();
    let entries = 2
        + usize::from(!nested)
        + usize::from(key.is_some())
        + usize::from(argument.token.is_some())
        + usize::from(!flags.is_empty())
        + usize::from(nested);
    reply.map(entries);
    let mut text = |name: &str, value: &str| {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    };
    text("name", &argument.name);
    text("type", argument.kind.name());
    if !nested {
        text("display_text", &argument.name);
    }
    if let Some(number) = key {
        reply.bulk(b"key_spec_index");
        reply.integer(number as i64);
    }
    if let Some(token) = &argument.token {
        reply.bulk(b"token");
        reply.bulk(token.as_bytes());
    }
    if !flags.is_empty() {
        reply.bulk(b"flags");
        reply.set(flags.len());
        for flag in flags {
            reply.simple(flag);
        }
    }
    if nested {
        reply.bulk(b"arguments");
        write_arguments(&argument.arguments, keys, reply);
    }
}

fn group_name(group: Group) -> &'static str {
    match group {
        Group::Bitmap => "bitmap",
        Group::Cluster => "cluster",
        Group::Connection => "connection",
        Group::Generic => "generic",
        Group::Geo => "geo",
        Group::Hash => "hash",
        Group::HyperLogLog => "hyperloglog",
        Group::List => "list",
        Group::PubSub => "pubsub",
        Group::Scripting => "scripting",
        Group::Server => "server",
        Group::Set => "set",
        Group::SortedSet => "sorted-set",
        Group::Stream => "stream",
        Group::String => "string",
        Group::Transactions => "transactions",
    }
}
