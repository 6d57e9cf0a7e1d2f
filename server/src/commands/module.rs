//! MODULE: there are no modules, and none can be loaded; clients that ask are told so.

use crate::{
    dispatch::{
        args::Args,
        command::{Arity::*, Command, Flag, Group, Reply, Result, Run},
        error::Error,
    },
    session::Session,
};

pub const COMMANDS: &[&Command] = &[&MODULE];

const MODULE: Command = Command {
    name: "MODULE",
    syntax: "",
    summary: "A container for module commands.",
    since: "4.0.0",
    complexity: "Depends on subcommand.",
    group: Group::Server,
    arity: AtLeast(2),
    keys: &[],
    flags: &[],
    categories: &[],
    run: Run::Container,
    subcommands: &[&HELP, &LIST, &LOAD, &LOADEX, &UNLOAD],
};

const HELP: Command = Command {
    name: "HELP",
    syntax: "",
    summary: "Returns helpful text about the different subcommands.",
    since: "5.0.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(super::help::help),
    subcommands: &[],
};

const LIST: Command = Command {
    name: "LIST",
    syntax: "",
    summary: "Returns all loaded modules.",
    since: "4.0.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::Admin, Flag::NoScript],
    categories: &[],
    run: Run::Session(list),
    subcommands: &[],
};

fn list(_session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    reply.array(0);
    Ok(())
}

const LOAD: Command = Command {
    name: "LOAD",
    syntax: "path [arg [arg ...]]",
    summary: "Loads a module.",
    since: "4.0.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: AtLeast(3),
    keys: &[],
    flags: CHANGE,
    categories: &[],
    run: Run::Session(refuse),
    subcommands: &[],
};

const LOADEX: Command = Command {
    name: "LOADEX",
    syntax: "path [CONFIG name value [CONFIG name value ...]] [ARGS arg [arg ...]]",
    summary: "Loads a module with its configuration.",
    since: "7.0.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: AtLeast(3),
    keys: &[],
    flags: CHANGE,
    categories: &[],
    run: Run::Session(refuse),
    subcommands: &[],
};

const UNLOAD: Command = Command {
    name: "UNLOAD",
    syntax: "name",
    summary: "Unloads a module.",
    since: "4.0.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(3),
    keys: &[],
    flags: CHANGE,
    categories: &[],
    run: Run::Session(refuse),
    subcommands: &[],
};

const CHANGE: &[Flag] = &[Flag::Admin, Flag::NoScript, Flag::NoAsyncLoading];

/// As a server whose configuration does not allow modules, which is the default of Valkey.
fn refuse(_session: &mut Session, _args: &Args<'_>, _reply: &mut Reply) -> Result {
    Err(Error::from_static(
        "ERR MODULE command not allowed. If the enable-module-command option is set to \"local\", you can run it \
         from a local connection, otherwise you need to set this option in the configuration file, and then restart \
         the server.",
    ))
}
