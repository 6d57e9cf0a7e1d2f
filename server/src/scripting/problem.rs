//! Errors on their way through Lua.
//!
//! A function of the server cannot throw a Lua value: it returns a [`Problem`], which travels as an object of mlua's
//! and is turned into what scripts expect (a table with `err`, or a string with its position) wherever a script can
//! get hold of it.

use std::fmt;

use mlua::{Error, Lua, Table, Value};

use super::{api::text_of as text_of_value, convert::until_zero};

/// An error that a function of the server raises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// An error reply: scripts see a table whose `err` is this text.
    Reply(Vec<u8>),
    /// The error reply of a command, which the statistics have: scripts see a table that says so, too.
    Command(Vec<u8>),
    /// A misuse of a function: scripts see a string, the position before it.
    Misuse(Vec<u8>),
    /// An argument, by its number, that a function cannot use, and why.
    Argument(usize, String),
    /// The script must end, whatever it does to go on: by SCRIPT KILL, by FUNCTION KILL, or for its time.
    Killed(Killed),
}

/// What was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Killed {
    Script,
    Function,
    /// A library that takes too long to register its functions.
    Library,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&String::from_utf8_lossy(self.text()))
    }
}

impl std::error::Error for Problem {}

impl Problem {
    pub(super) fn reply(text: impl Into<Vec<u8>>) -> Problem {
        Problem::Reply(text.into())
    }

    pub(super) fn misuse(text: impl Into<Vec<u8>>) -> Problem {
        Problem::Misuse(text.into())
    }

    pub(super) fn argument(number: usize, why: impl fmt::Display) -> Problem {
        Problem::Argument(number, why.to_string())
    }

    pub(super) fn text(&self) -> &[u8] {
        match self {
            Problem::Reply(text) | Problem::Command(text) | Problem::Misuse(text) => text,
            Problem::Argument(_, why) => why.as_bytes(),
            Problem::Killed(Killed::Script) => b"ERR Script killed by user with SCRIPT KILL.",
            Problem::Killed(Killed::Function) => b"ERR Script killed by user with FUNCTION KILL.",
            Problem::Killed(Killed::Library) => b"ERR FUNCTION LOAD timeout",
        }
    }

    /// The problem inside one of mlua's errors.
    pub(super) fn of(error: &Error) -> Option<&Problem> {
        match error {
            Error::CallbackError { cause, .. } => Problem::of(cause),
            Error::ExternalError(inner) => inner.downcast_ref::<Problem>(),
            _ => None,
        }
    }
}

/// Where the function at this level of the stack was called from, as Lua writes it before an error: `user_script:1: `.
fn caller_position(lua: &Lua, level: usize) -> Option<String> {
    lua.inspect_stack(level + 1, |frame| {
        let source = frame.source();
        let line = frame.current_line()?;
        Some(format!("{}:{line}: ", source.short_src?))
    })?
}

/// As Lua's own functions say that an argument is wrong, with the name that the function at this level was called by.
fn bad_argument(lua: &Lua, level: usize, number: usize, why: &str) -> String {
    let called = lua.inspect_stack(level, |frame| {
        let names = frame.names();
        let is_method = names.name_what == Some("method");
        (names.name.map(Into::into), is_method)
    });
    let (name, is_method) = called.unwrap_or((None, false));
    let name: String = name.unwrap_or_else(|| "?".to_owned());
    match number.saturating_sub(is_method.into()) {
        0 if is_method => format!("calling '{name}' on bad self ({why})"),
        number => format!("bad argument #{number} to '{name}' ({why})"),
    }
}

/// Turns a problem into what the function that is running returns to mlua.
pub(super) fn raise(lua: &Lua, problem: Problem) -> Error {
    raise_at(lua, 0, problem)
}

/// As [`raise`], for the function at a level of the stack.
fn raise_at(lua: &Lua, level: usize, problem: Problem) -> Error {
    let text = match problem {
        Problem::Misuse(text) => text,
        Problem::Argument(number, why) => bad_argument(lua, level, number, &why).into_bytes(),
        other => return Error::external(other),
    };
    let position = caller_position(lua, level).unwrap_or_default();
    Error::external(Problem::Misuse([position.as_bytes(), &text].concat()))
}

/// For the sandbox: says that an argument of the function at a level of the stack is wrong.
pub(super) fn complain(
    lua: &Lua,
    (level, number, why): (usize, usize, String),
) -> mlua::Result<()> {
    Err(raise_at(lua, level, Problem::Argument(number, why)))
}

/// A table with `err`.
pub(super) fn error_table(lua: &Lua, text: &[u8]) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set("err", lua.create_string(text)?)?;
    Ok(table)
}

/// The field of an error's table that says that the statistics have it.
const COUNTED: &str = "ignore_error_stats_update";

/// A table with `err`, for an error that the statistics have.
pub(super) fn counted_error_table(lua: &Lua, text: &[u8]) -> mlua::Result<Table> {
    let table = error_table(lua, text)?;
    table.raw_set(COUNTED, true)?;
    Ok(table)
}

/// Whether an error that a script ends with is in the statistics.
pub(super) fn is_counted(problem: &Value) -> bool {
    match problem {
        Value::Table(table) => table.raw_get::<bool>(COUNTED).unwrap_or(false),
        _ => false,
    }
}

/// What a script's handler gets: a table for error replies, else a string.
pub(super) fn value(lua: &Lua, problem: Value) -> mlua::Result<Value> {
    let Value::Error(error) = problem else {
        return Ok(problem);
    };
    match Problem::of(&error) {
        Some(Problem::Reply(text)) => Ok(Value::Table(error_table(lua, text)?)),
        Some(Problem::Command(text)) => Ok(Value::Table(counted_error_table(lua, text)?)),
        Some(problem @ (Problem::Misuse(_) | Problem::Argument(..))) => {
            Ok(Value::String(lua.create_string(problem.text())?))
        }
        Some(Problem::Killed(what)) => Err(Error::external(Problem::Killed(*what))),
        None => Ok(Value::String(lua.create_string(error.to_string())?)),
    }
}

/// What pcall returns: error replies as their text.
pub(super) fn shown(lua: &Lua, problem: Value) -> mlua::Result<Value> {
    let value = value(lua, problem)?;
    if let Value::Table(table) = &value
        && let text @ Value::String(_) = table.raw_get::<Value>("err")?
    {
        return Ok(text);
    }
    Ok(value)
}

/// Frames of the stack that are searched for the script's own.
const FRAMES_SEARCHED: usize = 8;
/// The source of `sandbox.lua`, which scripts must not see.
pub(super) const SANDBOX: &str = "=server";

/// The last word on an error that nobody caught: a table with `err`, and where it happened.
pub(super) fn handler(lua: &Lua, problem: Value) -> mlua::Result<Value> {
    let table = match problem {
        Value::Table(table) => table,
        Value::Error(error) => match Problem::of(&error) {
            Some(Problem::Misuse(text)) => error_table(lua, &[b"ERR ", &**text].concat())?,
            Some(Problem::Command(text)) => counted_error_table(lua, text)?,
            Some(problem) => error_table(lua, problem.text())?,
            None => error_table(lua, format!("ERR {error}").as_bytes())?,
        },
        Value::String(text) => error_table(lua, &[b"ERR ", &*text.as_bytes()].concat())?,
        number @ (Value::Integer(_) | Value::Number(_)) => {
            let text = text_of_value(&number).unwrap_or_default();
            error_table(lua, &[b"ERR ", &*text].concat())?
        }
        Value::LightUserData(_) => error_table(lua, b"ERR userdata: (nil)")?,
        other => error_table(lua, format!("ERR {}", other.to_string()?).as_bytes())?,
    };
    let frames = (1..FRAMES_SEARCHED).filter_map(|level| {
        lua.inspect_stack(level, |frame| {
            let source = frame.source();
            let is_native = source.what == "C";
            let line = frame.current_line().map_or(-1, |line| line as i64);
            (source.source? != SANDBOX).then_some(())?;
            Some((is_native, frame.source().source?.into_owned(), line))
        })?
    });
    // Where a function of C failed its caller is told.
    let mut frames = frames.peekable();
    let skipped = usize::from(frames.peek().is_some_and(|(is_native, ..)| *is_native));
    if let Some((_, source, line)) = frames.nth(skipped) {
        table.raw_set("source", source)?;
        table.raw_set("line", line)?;
    }
    Ok(Value::Table(table))
}

/// The text of an uncaught error without its place.
pub(super) fn message(problem: &Value) -> Vec<u8> {
    let text = match problem {
        Value::Table(table) => table.get::<Value>("err").ok(),
        _ => None,
    };
    match text.as_ref().and_then(text_of_value) {
        Some(text) => until_zero(&text).to_vec(),
        None => b"ERR unknown error".to_vec(),
    }
}

/// The text of an uncaught error, as clients read it.
pub(super) fn text_of(problem: &Value) -> Vec<u8> {
    let mut text = message(problem);
    let Value::Table(table) = problem else {
        return text;
    };
    let source = table.raw_get::<Option<String>>("source").ok().flatten();
    let line = table.raw_get::<Option<i64>>("line").ok().flatten();
    if let (Some(source), Some(line)) = (source, line) {
        text.extend_from_slice(format!(" script: on {source}:{line}.").as_bytes());
    }
    text
}
