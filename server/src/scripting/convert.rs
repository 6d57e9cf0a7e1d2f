//! Between Lua's values and replies.

use mlua::{Lua, Table, Value};
use protocol::resp::{
    double::format_double,
    reply::{ReplyWriter, Version},
};

use crate::dispatch::{
    command::{Reply, Result},
    error::Error,
};

/// Tables nested deeper than this are no reply.
const MAX_DEPTH: usize = 1000;

/// Writes what a script returned.
///
/// # Errors
/// The value is an error reply, or nested too deeply.
pub(super) fn write(value: &Value, reply: &mut Reply, script: Version) -> Result {
    if let Value::Table(table) = value
        && let Some(text) = text_field(table, "err")
    {
        return Err(Error::new(until_zero(&text)));
    }
    write_value(value, &mut reply.writer, script, 0)
}

fn write_value(value: &Value, reply: &mut ReplyWriter, script: Version, depth: usize) -> Result {
    if depth > MAX_DEPTH {
        return Err(Error::from_static("ERR reached lua stack limit"));
    }
    match value {
        Value::String(text) => reply.bulk(&text.as_bytes()),
        Value::Integer(number) => reply.integer(*number),
        Value::Number(number) => reply.integer(to_integer(*number)),
        Value::Boolean(true) if script == Version::Resp2 => reply.integer(1),
        Value::Boolean(false) if script == Version::Resp2 => reply.null(),
        Value::Boolean(value) => reply.boolean(*value),
        Value::Table(table) => write_table(table, reply, script, depth)?,
        _ => reply.null(),
    }
    Ok(())
}

fn write_table(table: &Table, reply: &mut ReplyWriter, script: Version, depth: usize) -> Result {
    if let Some(text) = text_field(table, "err") {
        reply.error_bytes(until_zero(&text));
        return Ok(());
    }
    if let Some(text) = text_field(table, "ok") {
        reply.simple(&String::from_utf8_lossy(until_zero(&text)));
        return Ok(());
    }
    match field(table, "double") {
        Value::Number(number) => {
            reply.double(number);
            return Ok(());
        }
        Value::Integer(number) => {
            reply.double(number as f64);
            return Ok(());
        }
        _ => {}
    }
    if let Value::Table(map) = field(table, "map") {
        reply.map(pairs(&map).count());
        for (key, value) in pairs(&map) {
            write_value(&key, reply, script, depth + 1)?;
            write_value(&value, reply, script, depth + 1)?;
        }
        return Ok(());
    }
    if let Value::Table(set) = field(table, "set") {
        reply.set(pairs(&set).count());
        for (member, _) in pairs(&set) {
            write_value(&member, reply, script, depth + 1)?;
        }
        return Ok(());
    }
    if let Some(digits) = text_field(table, "big_number") {
        let digits = String::from_utf8_lossy(&digits).replace(['\r', '\n'], " ");
        reply.big_number(&digits);
        return Ok(());
    }
    if let Value::Table(verbatim) = field(table, "verbatim_string")
        && let (Some(format), Some(text)) = (
            text_field(&verbatim, "format"),
            text_field(&verbatim, "string"),
        )
    {
        reply.verbatim(&String::from_utf8_lossy(&format), &text);
        return Ok(());
    }
    let slot = reply.array_deferred();
    let mut len = 0;
    loop {
        let element = table.raw_get::<Value>(len + 1).unwrap_or(Value::Nil);
        if element.is_nil() {
            break;
        }
        write_value(&element, reply, script, depth + 1)?;
        len += 1;
    }
    reply.set_array_len(slot, len);
    Ok(())
}

/// What a table holds. Not to be collected: no more than some thousand values can be held at once.
fn pairs(table: &Table) -> impl Iterator<Item = (Value, Value)> {
    table.pairs().filter_map(mlua::Result::ok)
}

fn field(table: &Table, name: &str) -> Value {
    table.raw_get(name).unwrap_or(Value::Nil)
}

fn text_field(table: &Table, name: &str) -> Option<Vec<u8>> {
    match field(table, name) {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        _ => None,
    }
}

/// As C reads text.
pub(super) fn until_zero(text: &[u8]) -> &[u8] {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    &text[..end]
}

/// As C converts a double to a 64-bit integer on the machines that matter: what does not fit is the least one.
pub(super) fn to_integer(number: f64) -> i64 {
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number) {
        number as i64
    } else {
        i64::MIN
    }
}

/// A number as an argument of a command.
pub(super) fn number_text(number: f64) -> Vec<u8> {
    let mut text = Vec::new();
    if number == 0.0 {
        text.push(b'0');
    } else if number.is_nan() {
        text.extend_from_slice(if number.is_sign_negative() {
            b"-nan"
        } else {
            b"nan"
        });
    } else {
        format_double(number, &mut text);
    }
    text
}

/// Reads a reply that this server wrote as a Lua value.
pub(super) fn read(lua: &Lua, bytes: &[u8]) -> mlua::Result<Value> {
    Reader { lua, bytes }.value()
}

struct Reader<'a> {
    lua: &'a Lua,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn value(&mut self) -> mlua::Result<Value> {
        let line = self.line();
        let Some((&sign, line)) = line.split_first() else {
            return Ok(Value::Nil);
        };
        let text = || String::from_utf8_lossy(line);
        Ok(match sign {
            b'+' => self.tagged("ok", line)?,
            b'-' => Value::Table(super::problem::counted_error_table(self.lua, line)?),
            b':' => Value::Number(text().parse().unwrap_or_default()),
            b'$' => match number(line) {
                None => Value::Boolean(false),
                Some(len) => Value::String(self.lua.create_string(self.take(len))?),
            },
            b'=' => {
                let bytes = self.take(number(line).unwrap_or_default());
                let (format, string) = bytes.split_at(4.min(bytes.len()));
                let verbatim = self.lua.create_table()?;
                let format = format.get(..3).unwrap_or_default();
                verbatim.raw_set("format", self.lua.create_string(format)?)?;
                verbatim.raw_set("string", self.lua.create_string(string)?)?;
                let table = self.lua.create_table()?;
                table.raw_set("verbatim_string", verbatim)?;
                Value::Table(table)
            }
            b'*' | b'>' => match number(line) {
                None => Value::Boolean(false),
                Some(len) => {
                    let table = self.lua.create_table_with_capacity(len, 0)?;
                    for index in 1..=len {
                        let element = self.value()?;
                        table.raw_set(index, element)?;
                    }
                    Value::Table(table)
                }
            },
            b'%' => {
                let map = self.lua.create_table()?;
                for _ in 0..number(line).unwrap_or_default() {
                    let key = self.value()?;
                    let value = self.value()?;
                    if !key.is_nil() {
                        map.raw_set(key, value)?;
                    }
                }
                let table = self.lua.create_table()?;
                table.raw_set("map", map)?;
                Value::Table(table)
            }
            b'~' => {
                let set = self.lua.create_table()?;
                for _ in 0..number(line).unwrap_or_default() {
                    let member = self.value()?;
                    if !member.is_nil() {
                        set.raw_set(member, true)?;
                    }
                }
                let table = self.lua.create_table()?;
                table.raw_set("set", set)?;
                Value::Table(table)
            }
            b',' => {
                let table = self.lua.create_table()?;
                table.raw_set("double", text().parse::<f64>().unwrap_or(f64::NAN))?;
                Value::Table(table)
            }
            b'(' => self.tagged("big_number", line)?,
            b'#' => Value::Boolean(line == b"t"),
            b'|' => {
                for _ in 0..2 * number(line).unwrap_or_default() {
                    self.value()?;
                }
                self.value()?
            }
            _ => Value::Nil,
        })
    }

    fn tagged(&self, name: &str, text: &[u8]) -> mlua::Result<Value> {
        let table = self.lua.create_table_with_capacity(0, 1)?;
        table.raw_set(name, self.lua.create_string(text)?)?;
        Ok(Value::Table(table))
    }

    fn line(&mut self) -> &'a [u8] {
        let end = memchr::memchr(b'\r', self.bytes).unwrap_or(self.bytes.len());
        let line = &self.bytes[..end];
        self.bytes = self.bytes.get(end + 2..).unwrap_or_default();
        line
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let bytes = &self.bytes[..len.min(self.bytes.len())];
        self.bytes = self.bytes.get(len + 2..).unwrap_or_default();
        bytes
    }
}

/// A length; `None` for -1.
fn number(line: &[u8]) -> Option<usize> {
    storage::value::number::parse_i64(line).and_then(|number| usize::try_from(number).ok())
}
