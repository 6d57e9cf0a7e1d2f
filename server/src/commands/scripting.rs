//! Scripts: EVAL and its like, and the cache of scripts.

use std::sync::Arc;

use storage::db::Db;

use crate::{
    dispatch::{
        args::Args,
        command::{
            Access, Arity::*, Category, Command, Flag, Group, Keys, Place, Reply, Result, Run,
        },
        error::Error,
    },
    scripting::{self, Call, Kill, Origin, Program, Script, parse_sha},
    session::Session,
};

pub const COMMANDS: &[&Command] = &[&EVAL, &EVALSHA, &EVALSHA_RO, &EVAL_RO, &SCRIPT];

const NO_SCRIPT: Error = Error::from_static("NOSCRIPT No matching script.");
pub(super) const MAY_WRITE: Error =
    Error::from_static("ERR Can not execute a script with write flag using *_ro command.");
const NOT_BUSY: Error = Error::from_static("NOTBUSY No scripts in execution right now.");
const UNKILLABLE: Error = Error::from_static(
    "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the \
     script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
);

pub(super) const fn counted_keys(access: Access) -> Keys {
    Keys {
        place: Place::Count { at: 2 },
        access,
    }
}

pub(super) const EVAL: Command = Command {
    name: "EVAL",
    syntax: "script numkeys [key [key ...]] [arg [arg ...]]",
    summary: "Executes a server-side Lua script.",
    since: "2.6.0",
    complexity: "Depends on the script that is executed.",
    group: Group::Scripting,
    arity: AtLeast(3),
    keys: &[counted_keys(Access::Update)],
    flags: &[
        Flag::NoScript,
        Flag::SkipMonitor,
        Flag::NoMandatoryKeys,
        Flag::Stale,
        Flag::MovableKeys,
        Flag::MayReplicate,
    ],
    categories: &[],
    run: Run::Script(|session, db, args, reply| eval(session, db, args, reply, Promise::None)),
    subcommands: &[],
};

const EVALSHA: Command = Command {
    name: "EVALSHA",
    syntax: "sha1 numkeys [key [key ...]] [arg [arg ...]]",
    summary: "Executes a server-side Lua script by SHA1 digest.",
    since: "2.6.0",
    complexity: "Depends on the script that is executed.",
    group: Group::Scripting,
    arity: AtLeast(3),
    keys: &[counted_keys(Access::Update)],
    flags: EVAL.flags,
    categories: &[],
    run: Run::Script(|session, db, args, reply| evalsha(session, db, args, reply, Promise::None)),
    subcommands: &[],
};

pub(super) const EVAL_RO: Command = Command {
    name: "EVAL_RO",
    syntax: "script numkeys [key [key ...]] [arg [arg ...]]",
    summary: "Executes a read-only server-side Lua script.",
    since: "7.0.0",
    complexity: "Depends on the script that is executed.",
    group: Group::Scripting,
    arity: AtLeast(3),
    keys: &[counted_keys(Access::Read)],
    flags: &[
        Flag::NoScript,
        Flag::SkipMonitor,
        Flag::NoMandatoryKeys,
        Flag::Stale,
        Flag::ReadOnly,
        Flag::MovableKeys,
    ],
    categories: &[],
    run: Run::Script(|session, db, args, reply| eval(session, db, args, reply, Promise::ReadOnly)),
    subcommands: &[],
};

const EVALSHA_RO: Command = Command {
    name: "EVALSHA_RO",
    syntax: "sha1 numkeys [key [key ...]] [arg [arg ...]]",
    summary: "Executes a read-only server-side Lua script by SHA1 digest.",
    since: "7.0.0",
    complexity: "Depends on the script that is executed.",
    group: Group::Scripting,
    arity: AtLeast(3),
    keys: &[counted_keys(Access::Read)],
    flags: EVAL_RO.flags,
    categories: &[],
    run: Run::Script(|session, db, args, reply| {
        evalsha(session, db, args, reply, Promise::ReadOnly)
    }),
    subcommands: &[],
};

/// What the command says of the script.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Promise {
    None,
    ReadOnly,
}

fn eval(
    session: &mut Session,
    db: &mut Db<'_>,
    args: &Args<'_>,
    reply: &mut Reply,
    promise: Promise,
) -> Result {
    let keys = key_count(args)?;
    let sha = scripting::sha1_hex(args.word(1));
    let script = match session.server.scripting.find(&sha) {
        Some(script) => script,
        None => {
            let script = Arc::new(Script::new(args.word(1))?);
            scripting::load(session, &script, Origin::Eval)?;
            script
        }
    };
    run(session, db, args, reply, &script, keys, promise)
}

fn evalsha(
    session: &mut Session,
    db: &mut Db<'_>,
    args: &Args<'_>,
    reply: &mut Reply,
    promise: Promise,
) -> Result {
    let sha = parse_sha(args.word(1)).ok_or(NO_SCRIPT)?;
    let keys = key_count(args)?;
    let script = session.server.scripting.find(&sha).ok_or(NO_SCRIPT)?;
    run(session, db, args, reply, &script, keys, promise)
}

fn run(
    session: &mut Session,
    db: &mut Db<'_>,
    args: &Args<'_>,
    reply: &mut Reply,
    script: &Arc<Script>,
    keys: usize,
    promise: Promise,
) -> Result {
    if promise == Promise::ReadOnly && script.body.starts_with(b"#!") && !script.flags.no_writes {
        return Err(MAY_WRITE);
    }
    let call = Call {
        program: Program::Script(script),
        args,
        first_key: 3,
        keys,
        read_only: promise == Promise::ReadOnly || script.flags.no_writes,
        allow_oom: script.flags.allow_oom,
        allow_stale: script.flags.allow_stale,
    };
    scripting::run(session, db, &call, reply)
}

/// How many keys follow.
fn key_count(args: &Args<'_>) -> Result<usize> {
    let count = args.integer(2)?;
    if count > (args.len() - 3) as i64 {
        return Err(Error::from_static(
            "ERR Number of keys can't be greater than number of args",
        ));
    }
    usize::try_from(count).map_err(|_| Error::from_static("ERR Number of keys can't be negative"))
}

const SCRIPT: Command = Command {
    name: "SCRIPT",
    syntax: "",
    summary: "A container for Lua scripts management commands.",
    since: "2.6.0",
    complexity: "Depends on subcommand.",
    group: Group::Scripting,
    arity: AtLeast(2),
    keys: &[],
    flags: &[],
    categories: &[],
    run: Run::Container,
    subcommands: &[&DEBUG_MODE, &EXISTS, &FLUSH, &HELP, &KILL, &LOAD, &SHOW],
};

const DEBUG_MODE: Command = Command {
    name: "DEBUG",
    syntax: "YES | SYNC | NO",
    summary: "Sets the debug mode of server-side Lua scripts.",
    since: "3.2.0",
    complexity: "O(1)",
    group: Group::Scripting,
    arity: AtLeast(3),
    keys: &[],
    flags: &[Flag::NoScript],
    categories: &[Category::Scripting],
    run: Run::Session(debug_mode),
    subcommands: &[],
};

/// There is no debugger: the mode is taken and scripts run as ever.
fn debug_mode(_session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    if !["YES", "SYNC", "NO"].iter().any(|mode| args.is(2, mode)) {
        return Err(Error::from_static("ERR Use SCRIPT DEBUG YES/SYNC/NO"));
    }
    reply.ok();
    Ok(())
}

const EXISTS: Command = Command {
    name: "EXISTS",
    syntax: "sha1 [sha1 ...]",
    summary: "Determines whether server-side Lua scripts exist in the script cache.",
    since: "2.6.0",
    complexity: "O(N) with N being the number of scripts to check.",
    group: Group::Scripting,
    arity: AtLeast(3),
    keys: &[],
    flags: &[Flag::NoScript, Flag::Stale],
    categories: &[Category::Scripting],
    run: Run::Session(exists),
    subcommands: &[],
};

fn exists(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let scripting = &session.server.scripting;
    reply.array(args.len() - 2);
    for word in args.from(2) {
        let known = parse_sha(word).is_some_and(|sha| scripting.knows(&sha));
        reply.integer(known.into());
    }
    Ok(())
}

const FLUSH: Command = Command {
    name: "FLUSH",
    syntax: "[ASYNC | SYNC]",
    summary: "Removes all server-side Lua scripts from the script cache.",
    since: "2.6.0",
    complexity: "O(N) with N being the number of scripts in cache",
    group: Group::Scripting,
    arity: AtLeast(2),
    keys: &[],
    flags: &[Flag::NoScript, Flag::Stale],
    categories: &[Category::Scripting],
    run: Run::Session(flush),
    subcommands: &[],
};

fn flush(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let known = args.is(2, "SYNC") || args.is(2, "ASYNC");
    if args.len() > 3 || args.len() == 3 && !known {
        return Err(Error::from_static(
            "ERR SCRIPT FLUSH only support SYNC|ASYNC option",
        ));
    }
    session.server.scripting.flush();
    reply.ok();
    Ok(())
}

const HELP: Command = Command {
    name: "HELP",
    syntax: "",
    summary: "Returns helpful text about the different subcommands.",
    since: "5.0.0",
    complexity: "O(1)",
    group: Group::Scripting,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Scripting],
    run: Run::Session(super::help::help),
    subcommands: &[],
};

const KILL: Command = Command {
    name: "KILL",
    syntax: "",
    summary: "Terminates a server-side Lua script during execution.",
    since: "2.6.0",
    complexity: "O(1)",
    group: Group::Scripting,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::NoScript, Flag::AllowBusy],
    categories: &[Category::Scripting],
    run: Run::Session(kill),
    subcommands: &[],
};

fn kill(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    kill_running(session, false, reply)
}

/// Ends the function, or else the script, that runs for too long.
pub(super) fn kill_running(session: &Session, functions: bool, reply: &mut Reply) -> Result {
    match session.server.scripting.slow.kill(functions) {
        Kill::Killed => reply.ok(),
        Kill::NoneRuns => return Err(NOT_BUSY),
        Kill::Wrote => return Err(UNKILLABLE),
        Kill::OtherKind => return Err(session.server.scripting.slow.busy()),
    }
    Ok(())
}

const LOAD: Command = Command {
    name: "LOAD",
    syntax: "script",
    summary: "Loads a server-side Lua script to the script cache.",
    since: "2.6.0",
    complexity: "O(N) with N being the length in bytes of the script body.",
    group: Group::Scripting,
    arity: Exactly(3),
    keys: &[],
    flags: &[Flag::NoScript, Flag::Stale],
    categories: &[Category::Scripting],
    run: Run::Session(load),
    subcommands: &[],
};

fn load(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let script = Arc::new(Script::new(args.word(2))?);
    scripting::load(session, &script, Origin::Load)?;
    reply.bulk(&script.sha);
    Ok(())
}

const SHOW: Command = Command {
    name: "SHOW",
    syntax: "sha1",
    summary: "Shows a server-side Lua script from the script cache.",
    since: "8.0.0",
    complexity: "O(1).",
    group: Group::Scripting,
    arity: Exactly(3),
    keys: &[],
    flags: &[Flag::NoScript, Flag::Stale],
    categories: &[Category::Scripting],
    run: Run::Session(show),
    subcommands: &[],
};

fn show(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let sha = parse_sha(args.word(2)).ok_or(NO_SCRIPT)?;
    let script = session.server.scripting.find(&sha).ok_or(NO_SCRIPT)?;
    reply.bulk(&script.body);
    Ok(())
}
