//! Functions: FCALL, and the libraries that have them.

use std::{sync::Arc, time::Instant};

use storage::db::Db;

use super::scripting::{EVAL, EVAL_RO, MAY_WRITE, counted_keys, kill_running};
use crate::{
    dispatch::{
        args::Args,
        command::{Access, Arity::*, Category, Command, Flag, Group, Reply, Result, Run},
        error::Error,
    },
    glob,
    scripting::{
        self, Call, Program,
        functions::{Library, Policy},
    },
    session::Session,
};

pub const COMMANDS: &[&Command] = &[&FCALL, &FCALL_RO, &FUNCTION];

const FCALL: Command = Command {
    name: "FCALL",
    syntax: "function numkeys [key [key ...]] [arg [arg ...]]",
    summary: "Invokes a function.",
    since: "7.0.0",
    complexity: "Depends on the function that is executed.",
    group: Group::Scripting,
    arity: AtLeast(3),
    keys: &[counted_keys(Access::Update)],
    flags: EVAL.flags,
    categories: &[],
    run: Run::Script(|session, db, args, reply| fcall(session, db, args, reply, false)),
    subcommands: &[],
};

const FCALL_RO: Command = Command {
    name: "FCALL_RO",
    syntax: "function numkeys [key [key ...]] [arg [arg ...]]",
    summary: "Invokes a read-only function.",
    since: "7.0.0",
    complexity: "Depends on the function that is executed.",
    group: Group::Scripting,
    arity: AtLeast(3),
    keys: &[counted_keys(Access::Read)],
    flags: EVAL_RO.flags,
    categories: &[],
    run: Run::Script(|session, db, args, reply| fcall(session, db, args, reply, true)),
    subcommands: &[],
};

fn fcall(
    session: &mut Session,
    db: &mut Db<'_>,
    args: &Args<'_>,
    reply: &mut Reply,
    read_only: bool,
) -> Result {
    let libraries = session.libraries.clone();
    let libraries = libraries.unwrap_or_else(|| session.server.scripting.functions.current());
    let (library, described) = libraries
        .find(args.word(1))
        .ok_or(Error::from_static("ERR Function not found"))?;
    let count = storage::value::number::parse_i64(args.word(2))
        .ok_or(Error::from_static("ERR Bad number of keys provided"))?;
    if count > (args.len() - 3) as i64 {
        return Err(Error::from_static(
            "ERR Number of keys can't be greater than number of args",
        ));
    }
    let keys = usize::try_from(count)
        .map_err(|_| Error::from_static("ERR Number of keys can't be negative"))?;
    if read_only && !described.flags.no_writes {
        return Err(MAY_WRITE);
    }
    let call = Call {
        program: Program::Function(&library, &described.name),
        args,
        first_key: 3,
        keys,
        read_only: described.flags.no_writes,
        allow_oom: described.flags.allow_oom,
        allow_stale: described.flags.allow_stale,
    };
    scripting::run(session, db, &call, reply)
}

const FUNCTION: Command = Command {
    name: "FUNCTION",
    syntax: "",
    summary: "A container for function commands.",
    since: "7.0.0",
    complexity: "Depends on subcommand.",
    group: Group::Scripting,
    arity: AtLeast(2),
    keys: &[],
    flags: &[],
    categories: &[],
    run: Run::Container,
    subcommands: &[
        &DELETE, &DUMP, &FLUSH, &HELP, &KILL, &LIST, &LOAD, &RESTORE, &STATS,
    ],
};

const DELETE: Command = Command {
    name: "DELETE",
    syntax: "library-name",
    summary: "Deletes a library and its functions.",
    since: "7.0.0",
    complexity: "O(1)",
    group: Group::Scripting,
    arity: Exactly(3),
    keys: &[],
    flags: &[Flag::NoScript, Flag::Write],
    categories: &[Category::Scripting],
    run: Run::Server(delete),
    subcommands: &[],
};

fn delete(session: &mut Session, db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    if !session.server.scripting.functions.delete(args.word(2)) {
        return Err(Error::from_static("ERR Library not found"));
    }
    session.libraries = None;
    db.changes.dirty += 1;
    reply.ok();
    Ok(())
}

const DUMP: Command = Command {
    name: "DUMP",
    syntax: "",
    summary: "Dumps all libraries into a serialized binary payload.",
    since: "7.0.0",
    complexity: "O(N) where N is the number of functions",
    group: Group::Scripting,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::NoScript],
    categories: &[Category::Scripting],
    run: Run::Session(dump),
    subcommands: &[],
};

fn dump(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    reply.bulk(&session.server.scripting.functions.dump());
    Ok(())
}

const FLUSH: Command = Command {
    name: "FLUSH",
    syntax: "[ASYNC | SYNC]",
    summary: "Deletes all libraries and functions.",
    since: "7.0.0",
    complexity: "O(N) where N is the number of functions deleted",
    group: Group::Scripting,
    arity: AtLeast(2),
    keys: &[],
    flags: &[Flag::NoScript, Flag::Write],
    categories: &[Category::Scripting],
    run: Run::Server(flush),
    subcommands: &[],
};

fn flush(session: &mut Session, db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    if args.len() > 3 {
        return Err(too_many(args));
    }
    if args.len() == 3 && !args.is(2, "SYNC") && !args.is(2, "ASYNC") {
        return Err(Error::from_static(
            "ERR FUNCTION FLUSH only supports SYNC|ASYNC option",
        ));
    }
    session.server.scripting.functions.flush();
    session.libraries = None;
    db.changes.dirty += 1;
    reply.ok();
    Ok(())
}

/// There are more words than the subcommand knows.
fn too_many(args: &Args<'_>) -> Error {
    let text = [
        b"unknown subcommand or wrong number of arguments for '".as_slice(),
        args.word(1),
        b"'. Try FUNCTION HELP.",
    ];
    Error::general(text.concat())
}

const HELP: Command = Command {
    name: "HELP",
    syntax: "",
    summary: "Returns helpful text about the different subcommands.",
    since: "7.0.0",
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
    summary: "Terminates a function during execution.",
    since: "7.0.0",
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
    kill_running(session, true, reply)
}

const LIST: Command = Command {
    name: "LIST",
    syntax: "[LIBRARYNAME library-name-pattern] [WITHCODE]",
    summary: "Returns information about all libraries.",
    since: "7.0.0",
    complexity: "O(N) where N is the number of functions",
    group: Group::Scripting,
    arity: AtLeast(2),
    keys: &[],
    flags: &[Flag::NoScript],
    categories: &[Category::Scripting],
    run: Run::Session(list),
    subcommands: &[],
};

fn list(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (mut pattern, mut with_code) = (None, false);
    let mut at = 2;
    while at < args.len() {
        if !with_code && args.is(at, "WITHCODE") {
            with_code = true;
        } else if pattern.is_none() && args.is(at, "LIBRARYNAME") {
            at += 1;
            let given = args.get(at).ok_or(Error::from_static(
                "ERR library name argument was not given",
            ))?;
            pattern = Some(given);
        } else {
            return Err(Error::general(
                [b"Unknown argument ", args.word(at)].concat(),
            ));
        }
        at += 1;
    }
    let mut libraries = session.server.scripting.functions.all();
    if let Some(pattern) = pattern {
        libraries.retain(|library| glob::matches(pattern, &library.name, glob::Case::Ignored));
    }
    reply.array(libraries.len());
    for library in libraries {
        describe(&library, with_code, reply);
    }
    Ok(())
}

fn describe(library: &Arc<Library>, with_code: bool, reply: &mut Reply) {
    reply.map(3 + usize::from(with_code));
    reply.bulk(b"library_name");
    reply.bulk(&library.name);
    reply.bulk(b"engine");
    reply.bulk(b"LUA");
    reply.bulk(b"functions");
    reply.array(library.functions.len());
    for function in &library.functions {
        reply.map(3);
        reply.bulk(b"name");
        reply.bulk(&function.name);
        reply.bulk(b"description");
        match &function.description {
            Some(description) => reply.bulk(description),
            None => reply.null(),
        }
        reply.bulk(b"flags");
        let flags = function.flags.names();
        reply.set(flags.len());
        flags.iter().for_each(|flag| reply.simple(flag));
    }
    if with_code {
        reply.bulk(b"library_code");
        reply.bulk(&library.code);
    }
}

const LOAD: Command = Command {
    name: "LOAD",
    syntax: "[REPLACE] function-code",
    summary: "Creates a library.",
    since: "7.0.0",
    complexity: "O(1) (considering compilation time is redundant)",
    group: Group::Scripting,
    arity: AtLeast(3),
    keys: &[],
    flags: &[Flag::DenyOom, Flag::NoScript, Flag::Write],
    categories: &[Category::Scripting],
    run: Run::Server(load),
    subcommands: &[],
};

fn load(session: &mut Session, db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let last = args.len() - 1;
    for at in 2..last {
        if !args.is(at, "REPLACE") {
            return Err(Error::general(
                [b"Unknown option given: ", args.word(at)].concat(),
            ));
        }
    }
    let server = session.server.clone();
    let functions = &server.scripting.functions;
    let name = functions.load(&server, args.word(last), last > 2)?;
    session.libraries = None;
    db.changes.dirty += 1;
    reply.bulk(&name);
    Ok(())
}

const RESTORE: Command = Command {
    name: "RESTORE",
    syntax: "serialized-value [FLUSH | APPEND | REPLACE]",
    summary: "Restores all libraries from a payload.",
    since: "7.0.0",
    complexity: "O(N) where N is the number of functions on the payload",
    group: Group::Scripting,
    arity: AtLeast(3),
    keys: &[],
    flags: &[Flag::DenyOom, Flag::NoScript, Flag::Write],
    categories: &[Category::Scripting],
    run: Run::Server(restore),
    subcommands: &[],
};

fn restore(session: &mut Session, db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    if args.len() > 4 {
        return Err(too_many(args));
    }
    let policies = [
        ("APPEND", Policy::Append),
        ("REPLACE", Policy::Replace),
        ("FLUSH", Policy::Flush),
    ];
    let policy = match args.get(3) {
        None => Policy::Append,
        Some(_) => {
            let found = policies.iter().find(|(name, _)| args.is(3, name));
            let wrong =
                "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.";
            found.ok_or(Error::from_static(wrong))?.1
        }
    };
    let server = session.server.clone();
    let functions = &server.scripting.functions;
    functions.restore(&server, args.word(2), policy)?;
    session.libraries = None;
    db.changes.dirty += 1;
    reply.ok();
    Ok(())
}

const STATS: Command = Command {
    name: "STATS",
    syntax: "",
    summary: "Returns information about a function during execution.",
    since: "7.0.0",
    complexity: "O(1)",
    group: Group::Scripting,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::NoScript, Flag::AllowBusy],
    categories: &[Category::Scripting],
    run: Run::Session(stats),
    subcommands: &[],
};

fn stats(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    let scripting = &session.server.scripting;
    let running = scripting.slow.first();
    if running
        .as_ref()
        .is_some_and(|script| script.function.is_none())
    {
        return Err(scripting.slow.busy());
    }
    reply.map(2);
    reply.bulk(b"running_script");
    match running {
        None => reply.null(),
        Some(script) => {
            reply.map(3);
            reply.bulk(b"name");
            reply.bulk(script.function.as_deref().unwrap_or_default());
            reply.bulk(b"command");
            reply.array(script.command.len());
            script.command.iter().for_each(|word| reply.bulk(word));
            reply.bulk(b"duration_ms");
            reply.integer(Instant::now().duration_since(script.started).as_millis() as i64);
        }
    }
    let libraries = scripting.functions.all();
    let functions: usize = libraries
        .iter()
        .map(|library| library.functions.len())
        .sum();
    reply.bulk(b"engines");
    reply.map(1);
    reply.bulk(b"LUA");
    reply.map(2);
    reply.bulk(b"libraries_count");
    reply.integer(libraries.len() as i64);
    reply.bulk(b"functions_count");
    reply.integer(functions as i64);
    Ok(())
}
