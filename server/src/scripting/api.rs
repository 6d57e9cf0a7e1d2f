//! The `redis` table, also called `server`: what scripts ask of the server beside running commands.

use std::{rc::Rc, sync::Arc};

use mlua::{Lua, MultiValue, Table, Value};
use protocol::resp::reply::Version;
use storage::changes::Readers;

use super::{
    convert::to_integer,
    interpreter::{Failure, State, native},
    libraries::format::general,
    problem::{Problem, counted_error_table, error_table},
    random::Random,
    run::{NO_ARGUMENTS, NOT_TEXT},
    sha1_hex,
};
use crate::{
    commands::connection::REDIS_VERSION,
    config::VALKEY_VERSION,
    dispatch::{self, args::Args, table},
    log,
    net::resp::join,
    server::Server,
};

type Returned = Result<MultiValue, Failure>;

const LEVELS: [(&str, log::Level); 4] = [
    ("LOG_DEBUG", log::Level::Debug),
    ("LOG_VERBOSE", log::Level::Verbose),
    ("LOG_NOTICE", log::Level::Notice),
    ("LOG_WARNING", log::Level::Warning),
];

/// Where effects go: to the append-only file, to replicas. The numbers are the bits of [`Readers`].
const REPLICATION: [(&str, u8); 5] = [
    ("REPL_NONE", 0),
    ("REPL_AOF", 1),
    ("REPL_REPLICA", 2),
    ("REPL_SLAVE", 2),
    ("REPL_ALL", 3),
];

pub(super) fn table(lua: &Lua, server: &Arc<Server>, state: &Rc<State>) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    for (name, number) in REPLICATION {
        table.raw_set(name, number)?;
    }
    for (number, (name, _)) in LEVELS.iter().enumerate() {
        table.raw_set(*name, number)?;
    }
    table.raw_set("REDIS_VERSION", REDIS_VERSION)?;
    table.raw_set("REDIS_VERSION_NUM", version_number(REDIS_VERSION))?;
    table.raw_set("SERVER_NAME", "valkey")?;
    table.raw_set("VALKEY_VERSION", VALKEY_VERSION)?;
    table.raw_set("VALKEY_VERSION_NUM", version_number(VALKEY_VERSION))?;
    let caller = state.clone();
    table.raw_set("call", native(lua, move |_, args| call(&caller, args))?)?;
    let caller = state.clone();
    let pcall = native(lua, move |lua, args| protected_call(lua, &caller, args))?;
    table.raw_set("pcall", pcall)?;
    let server = server.clone();
    table.raw_set("log", native(lua, move |_, args| log(&server, &args))?)?;
    table.raw_set("sha1hex", native(lua, sha1hex)?)?;
    table.raw_set("error_reply", native(lua, error_reply)?)?;
    table.raw_set("status_reply", native(lua, status_reply)?)?;
    let replies = state.clone();
    table.raw_set(
        "setresp",
        native(lua, move |_, args| set_resp(&replies, &args))?,
    )?;
    let effects = state.clone();
    table.raw_set(
        "set_repl",
        native(lua, move |_, args| set_repl(&effects, &args))?,
    )?;
    table.raw_set(
        "replicate_commands",
        native(lua, |_, _| one(Value::Boolean(true)))?,
    )?;
    let callers = state.clone();
    table.raw_set(
        "acl_check_cmd",
        native(lua, move |_, args| acl_check_cmd(&callers, &args))?,
    )?;
    table.raw_set(
        "breakpoint",
        native(lua, |_, _| one(Value::Boolean(false)))?,
    )?;
    table.raw_set("debug", native(lua, |_, _| Ok(MultiValue::new()))?)?;
    Ok(table)
}

/// `9.1.2` as 0x00090102.
fn version_number(version: &str) -> u32 {
    version
        .split('.')
        .map(|part| part.parse().unwrap_or(0))
        .take(3)
        .fold(0, |number, part: u32| number << 8 | part & 0xff)
}

pub(super) fn one(value: Value) -> Returned {
    Ok(MultiValue::from_iter([value]))
}

/// An argument is not of the type that a function wants.
pub(super) fn expected(args: &MultiValue, number: usize, wanted: &str) -> Problem {
    let got = args.get(number - 1).map_or("no value", type_name);
    Problem::argument(number, format_args!("{wanted} expected, got {got}"))
}

/// The type as Lua 5.1 names it.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Integer(_) => "number",
        Value::LightUserData(_) => "userdata",
        other => other.type_name(),
    }
}

/// Runs a command: whether it succeeded, and its reply or the error's text.
fn command(state: &State, args: MultiValue) -> Result<(bool, Value), Failure> {
    state.words.replace(args);
    let outcome = state.command.call();
    let none = || Problem::reply("ERR no script is running");
    Ok(outcome.ok_or_else(none)??)
}

fn call(state: &State, args: MultiValue) -> Result<Value, Failure> {
    match command(state, args)? {
        (true, value) => Ok(value),
        (false, Value::String(text)) => Err(Problem::Command(text.as_bytes().to_vec()).into()),
        (false, _) => Err(Problem::reply("ERR unknown error").into()),
    }
}

fn protected_call(lua: &Lua, state: &State, args: MultiValue) -> Result<Value, Failure> {
    match command(state, args)? {
        (true, value) => Ok(value),
        (false, Value::String(text)) => {
            let text = text.as_bytes();
            let errors = [NO_ARGUMENTS, NOT_TEXT];
            let is_no_commands = errors.iter().any(|error| error.as_bytes() == &*text);
            Ok(Value::Table(match is_no_commands {
                true => error_table(lua, &text)?,
                false => counted_error_table(lua, &text)?,
            }))
        }
        (false, other) => Ok(other),
    }
}

fn log(server: &Server, args: &MultiValue) -> Returned {
    if args.len() < 2 {
        return Err(Problem::reply("ERR server.log() requires two arguments or more.").into());
    }
    let Some(level) = args.front().and_then(number_of) else {
        return Err(Problem::reply("ERR First argument must be a number (log level).").into());
    };
    let level = usize::try_from(to_integer(level)).ok();
    let Some((_, level)) = level.and_then(|level| LEVELS.get(level)) else {
        return Err(Problem::reply("ERR Invalid log level.").into());
    };
    let words: Vec<String> = args
        .iter()
        .skip(1)
        .filter_map(text_of)
        .map(|word| String::from_utf8_lossy(&word).into_owned())
        .collect();
    let _ = server;
    log::log(*level, &words.join(" "));
    Ok(MultiValue::new())
}

/// The number that a value is, or whose text it is.
pub(super) fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Number(number) => Some(*number),
        Value::String(text) => std::str::from_utf8(&text.as_bytes())
            .ok()?
            .trim()
            .parse()
            .ok(),
        _ => None,
    }
}

/// The bytes of a string, or of a number as Lua writes it.
pub(super) fn text_of(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Integer(number) => Some(general(*number as f64, 14).into_bytes()),
        Value::Number(number) => Some(general(*number, 14).into_bytes()),
        _ => None,
    }
}

fn sha1hex(lua: &Lua, args: MultiValue) -> Returned {
    if args.len() != 1 {
        return Err(Problem::reply("ERR wrong number of arguments").into());
    }
    let text = args.front().and_then(text_of).unwrap_or_default();
    one(Value::String(lua.create_string(sha1_hex(&text))?))
}

fn error_reply(lua: &Lua, args: MultiValue) -> Returned {
    let text = match (args.len(), args.front()) {
        (1, Some(Value::String(text))) => text.as_bytes().to_vec(),
        _ => b"ERR wrong number or type of arguments".to_vec(),
    };
    let text = text.strip_prefix(b"-").map_or(text.clone(), <[u8]>::to_vec);
    // One word is no code.
    let text = if text.contains(&b' ') {
        text
    } else {
        [b"ERR ", &*text].concat()
    };
    one(Value::Table(error_table(lua, &text)?))
}

fn status_reply(lua: &Lua, args: MultiValue) -> Returned {
    let (1, Some(Value::String(text))) = (args.len(), args.front()) else {
        let table = error_table(lua, b"ERR wrong number or type of arguments")?;
        return one(Value::Table(table));
    };
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set("ok", text)?;
    one(Value::Table(table))
}

fn set_resp(state: &State, args: &MultiValue) -> Returned {
    if args.len() != 1 {
        return Err(Problem::reply("ERR server.setresp() requires one argument.").into());
    }
    let version = match args.front().and_then(number_of) {
        Some(2.0) => Version::Resp2,
        Some(3.0) => Version::Resp3,
        _ => return Err(Problem::reply("ERR RESP version must be 2 or 3.").into()),
    };
    state.version.set(version);
    Ok(MultiValue::new())
}

fn set_repl(state: &State, args: &MultiValue) -> Returned {
    if args.len() != 1 {
        return Err(Problem::reply("ERR server.set_repl() requires one argument.").into());
    }
    // What is no number counts as 0.
    let flags = args.front().and_then(number_of).unwrap_or_default();
    let bits @ 0..=3 = to_integer(flags) else {
        return Err(Problem::reply(
            "ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.",
        )
        .into());
    };
    state.readers.set(Readers::from_bits(bits as u8));
    Ok(MultiValue::new())
}

/// Whether the caller may run a command.
fn acl_check_cmd(state: &State, args: &MultiValue) -> Returned {
    if args.is_empty() {
        return Err(
            Problem::reply("ERR Please specify at least one argument for this call").into(),
        );
    }
    let Some(words) = args.iter().map(text_of).collect::<Option<Vec<_>>>() else {
        return Err(Problem::reply("ERR Command arguments must be strings or integers").into());
    };
    let (joined, spans) = join(&words);
    let words = Args::new(&joined, &spans);
    let found = table::table().find(words.word(0));
    // How many words there are is not what was asked.
    let registered = found.and_then(|found| {
        dispatch::resolve(found, &words).map_or_else(|(registered, _)| registered, Some)
    });
    let Some(registered) = registered else {
        return Err(Problem::reply("ERR Invalid command passed to server.acl_check_cmd()").into());
    };
    let allowed = match &*state.caller.borrow() {
        Some((user, database)) => user.may(registered, &words, *database).is_ok(),
        None => false,
    };
    one(Value::Boolean(allowed))
}

/// `math.random`, with the limits that Lua's has.
pub(super) fn random(random: &Random, args: &MultiValue) -> Result<MultiValue, Problem> {
    let number = |index: usize| {
        let value = args.get(index - 1).and_then(number_of).map(to_integer);
        value.ok_or_else(|| expected(args, index, "number"))
    };
    let drawn = random.next();
    let within =
        |least: i64, most: i64| (drawn * (most as f64 - least as f64 + 1.0)).floor() + least as f64;
    let value = match args.len() {
        0 => drawn,
        1 => {
            let most = number(1)?;
            if most < 1 {
                return Err(Problem::argument(1, "interval is empty"));
            }
            within(1, most)
        }
        2 => {
            let (least, most) = (number(1)?, number(2)?);
            if least > most {
                return Err(Problem::argument(2, "interval is empty"));
            }
            within(least, most)
        }
        _ => return Err(Problem::misuse("wrong number of arguments")),
    };
    Ok(MultiValue::from_iter([Value::Number(value)]))
}
