//! COMMAND: what commands there are and how they are used, all of it derived from their declarations.

mod docs;
pub(crate) mod facts;
mod syntax;
mod tips;

use super::help::help;
use crate::{
    acl::check::actual_access,
    dispatch::{
        args::Args,
        command::{Access, Arity::*, Category, Command, Flag, Group, Reply, Result, Run},
        error::Error,
        keys,
        table::{self, Registered},
    },
    glob::{Case, Glob},
    session::Session,
};

pub const COMMANDS: &[&Command] = &[&COMMAND];

const COMMAND: Command = Command {
    name: "COMMAND",
    syntax: "",
    summary: "Describes commands.",
    since: "2.8.13",
    complexity: "O(N) where N is the total number of commands",
    group: Group::Server,
    arity: AtLeast(1),
    keys: &[],
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Connection],
    run: Run::Session(all),
    subcommands: &[
        &COUNT,
        &DOCS,
        &GET_KEYS,
        &GET_KEYS_AND_FLAGS,
        &HELP,
        &INFO,
        &LIST,
    ],
};
const HELP: Command =
    crate::commands::help::subcommand("5.0.0", Group::Server, &[Category::Connection], help);

const COUNT: Command = Command {
    name: "COUNT",
    syntax: "",
    summary: "Returns how many commands there are.",
    since: "2.8.13",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Connection],
    run: Run::Session(count),
    subcommands: &[],
};

fn count(_session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    reply.integer(table::table().commands().len() as i64);
    Ok(())
}

const INFO: Command = Command {
    name: "INFO",
    syntax: "[command-name [command-name ...]]",
    summary: "Describes commands as programs want to know them.",
    since: "2.8.13",
    complexity: "O(N) where N is the number of commands to look up",
    group: Group::Server,
    arity: AtLeast(2),
    keys: &[],
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Connection],
    run: Run::Session(info),
    subcommands: &[],
};

fn info(_session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    if args.len() == 2 {
        return all(_session, args, reply);
    }
    reply.array(args.len() - 2);
    for name in args.from(2) {
        match table::table().find_full(name) {
            Some(registered) => facts::write(registered, reply),
            None => reply.null(),
        }
    }
    Ok(())
}

/// COMMAND without a subcommand.
fn all(_session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    let commands = table::table().commands();
    reply.array(commands.len());
    for registered in commands {
        facts::write(registered, reply);
    }
    Ok(())
}

const DOCS: Command = Command {
    name: "DOCS",
    syntax: "[command-name [command-name ...]]",
    summary: "Describes commands as people want to know them.",
    since: "7.0.0",
    complexity: "O(N) where N is the number of commands to look up",
    group: Group::Server,
    arity: AtLeast(2),
    keys: &[],
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Connection],
    run: Run::Session(document),
    subcommands: &[],
};

fn document(_session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let found: Vec<&Registered> = if args.len() == 2 {
        table::table().commands().iter().collect()
    } else {
        let names = args.from(2);
        names
            .filter_map(|name| table::table().find_full(name))
            .collect()
    };
    reply.map(found.len());
    for registered in found {
        docs::write(registered, reply);
    }
    Ok(())
}

const LIST: Command = Command {
    name: "LIST",
    syntax: "[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]",
    summary: "Returns the names of commands.",
    since: "7.0.0",
    complexity: "O(N) where N is the total number of commands",
    group: Group::Server,
    arity: AtLeast(2),
    keys: &[],
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Connection],
    run: Run::Session(list),
    subcommands: &[],
};

fn list(_session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let wanted: Box<dyn Fn(&Registered) -> bool> = match args.len() {
        2 => Box::new(|_| true),
        5 if args.is(2, "FILTERBY") => {
            let value = args.word(4);
            if args.is(3, "MODULE") {
                Box::new(|_| false)
            } else if args.is(3, "ACLCAT") {
                let category = facts::category(value);
                Box::new(move |registered| {
                    category.is_some_and(|category| {
                        facts::categories(registered.command).contains(&category)
                    })
                })
            } else if args.is(3, "PATTERN") {
                let glob = Glob::new(value, Case::Ignored);
                Box::new(move |registered| glob.matches(registered.full_name.as_bytes()))
            } else {
                return Err(Error::SYNTAX);
            }
        }
        _ => return Err(Error::SYNTAX),
    };
    let names: Vec<&str> = table::table()
        .all()
        .filter(|registered| wanted(registered))
        .map(|registered| registered.full_name.as_str())
        .collect();
    reply.array(names.len());
    for name in names {
        reply.bulk(name.as_bytes());
    }
    Ok(())
}

const GET_KEYS: Command = Command {
    name: "GETKEYS",
    syntax: "command [arg [arg ...]]",
    summary: "Returns the keys among the words of a command.",
    since: "2.8.13",
    complexity: "O(N) where N is the number of arguments to the command",
    group: Group::Server,
    arity: AtLeast(3),
    keys: &[],
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Connection],
    run: Run::Session(get_keys),
    subcommands: &[],
};

fn get_keys(_session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let found = keys_of(&args.skip(2))?;
    reply.array(found.len());
    for (key, _) in found {
        reply.bulk(key);
    }
    Ok(())
}

const GET_KEYS_AND_FLAGS: Command = Command {
    name: "GETKEYSANDFLAGS",
    syntax: "command [arg [arg ...]]",
    summary: "Returns the keys among the words of a command, and what it does with each.",
    since: "7.0.0",
    complexity: "O(N) where N is the number of arguments to the command",
    group: Group::Server,
    arity: AtLeast(3),
    keys: &[],
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Connection],
    run: Run::Session(get_keys_and_flags),
    subcommands: &[],
};

fn get_keys_and_flags(_session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let found = keys_of(&args.skip(2))?;
    reply.array(found.len());
    for (key, access) in found {
        reply.array(2);
        reply.bulk(key);
        facts::write_access(access, reply);
    }
    Ok(())
}

/// The keys of a request that is itself the argument of one.
fn keys_of<'a>(request: &Args<'a>) -> Result<Vec<(&'a [u8], Access)>> {
    let mut registered = table::table()
        .find(request.word(0))
        .ok_or(Error::general("Invalid command specified"))?;
    if let Some(subcommand) = request.get(1).and_then(|name| registered.subcommand(name)) {
        registered = subcommand;
    }
    let command = registered.command;
    if command.keys.is_empty() {
        return Err(Error::general("The command has no key arguments"));
    }
    if !command.arity.accepts(request.len()) {
        return Err(Error::general(
            "Invalid number of arguments specified for command",
        ));
    }
    let mut found = Vec::new();
    let sound = keys::each_key(command, request, |index, access| {
        let access = actual_access(command, request, access);
        found.push((request.word(index), access));
    });
    if command.has(Flag::NoMandatoryKeys) {
        // Scripts may do without keys; how many they are told to have is theirs to check.
        return Ok(found);
    }
    if !sound {
        return Err(Error::general("Invalid arguments specified for command"));
    }
    if found.is_empty() {
        return Err(Error::general("The command has no key arguments"));
    }
    Ok(found)
}
