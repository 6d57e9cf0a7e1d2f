//! Errors on their way through Lua.
//!
//! A function of the server cannot throw a Lua value: it returns a [`Problem`], which travels as an object of mlua's
//! and is turned into what scripts expect (a table with `err`, or a string with its position) wherever a script can
//! get hold of it.

use std::fmt;

use mlua::{Error, Lua, Table, Value};

/// An error that a function of the server raises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// An error reply: scripts see a table whose `err` is this text.
    Reply(Vec<u8>),
    /// The error reply of a command, which the statistics have: scripts see a table that says so, too.
    Command(Vec<u8>),
    /// A misuse of a function: scripts see a string, the position before it.
    Misuse(Vec<u8>),
    /// The script must end, whatever it does to go on: by SCRIPT KILL, or by FUNCTION KILL.
    Killed(Killed),
}

/// What was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Killed {
    Script,
    Function,
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

    /// As Lua's own functions say that an argument is wrong.
    pub(super) fn argument(number: usize, function: &str, why: impl fmt::Display) -> Problem {
        Problem::misuse(format!("bad argument #{number} to '{function}' ({why})"))
    }

    pub(super) fn text(&self) -> &[u8] {
        match self {
            Problem::Reply(text) | Problem::Command(text) | Problem::Misuse(text) => text,
            Problem::Killed(Killed::Script) => b"ERR Script killed by user with SCRIPT KILL.",
            Problem::Killed(Killed::Function) => b"ERR Script killed by user with FUNCTION KILL.",
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

/// Where the function that is running was called from, as Lua writes it before an error: `user_script:1: `.
fn caller_position(lua: &Lua) -> Option<String> {
    lua.inspect_stack(1, |frame| {
        let source = frame.source();
        let line = frame.current_line()?;
        Some(format!("{}:{line}: ", source.short_src?))
    })?
}

/// Turns a problem into what the function that is running returns to mlua.
pub(super) fn raise(lua: &Lua, problem: Problem) -> Error {
    let problem = match problem {
        Problem::Misuse(text) => {
            let position = caller_position(lua).unwrap_or_default();
            Problem::Misuse([position.as_bytes(), &text].concat())
        }
        other => other,
    };
    Error::external(problem)
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
        Some(Problem::Misuse(text)) => Ok(Value::String(lua.create_string(text)?)),
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
        other => error_table(lua, format!("ERR {}", other.to_string()?).as_bytes())?,
    };
    let found = (1..FRAMES_SEARCHED).find_map(|level| {
        lua.inspect_stack(level, |frame| {
            let source = frame.source().source?.into_owned();
            let line = frame.current_line()?;
            source.starts_with('@').then_some((source, line))
        })?
    });
    if let Some((source, line)) = found {
        table.raw_set("source", source)?;
        table.raw_set("line", line)?;
    }
    Ok(Value::Table(table))
}

/// The text of an uncaught error without its place.
pub(super) fn message(problem: &Value) -> Vec<u8> {
    let text = match problem {
        Value::Table(table) => table.raw_get::<Value>("err").ok(),
        _ => None,
    };
    match text {
        Some(Value::String(text)) => text.as_bytes().to_vec(),
        _ => b"ERR unknown error".to_vec(),
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
