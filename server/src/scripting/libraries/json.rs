//! `cjson`: values as JSON.

use std::{cell::Cell, rc::Rc};

use mlua::{Lua, MultiValue, Table, Value};

use super::{arguments::Arguments, format::general, json_decode::decode};
use crate::scripting::{
    api::{one, type_name},
    interpreter::{Failure, native},
    problem::Problem,
};

/// What the functions named like these set.
pub(super) struct Settings {
    sparse_convert: Cell<bool>,
    sparse_ratio: Cell<i64>,
    sparse_safe: Cell<i64>,
    encode_max_depth: Cell<i64>,
    pub(super) decode_max_depth: Cell<i64>,
    encode_invalid_numbers: Cell<Invalid>,
    pub(super) decode_invalid_numbers: Cell<bool>,
    number_precision: Cell<i64>,
    keep_buffer: Cell<bool>,
}

/// What becomes of numbers that JSON does not have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Invalid {
    Refused,
    Written,
    Null,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            sparse_convert: Cell::new(false),
            sparse_ratio: Cell::new(2),
            sparse_safe: Cell::new(10),
            encode_max_depth: Cell::new(1000),
            decode_max_depth: Cell::new(1000),
            encode_invalid_numbers: Cell::new(Invalid::Refused),
            decode_invalid_numbers: Cell::new(true),
            number_precision: Cell::new(14),
            keep_buffer: Cell::new(true),
        }
    }
}

pub(super) fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let settings = Rc::new(Settings::default());
    table.raw_set("_NAME", "cjson")?;
    table.raw_set("_VERSION", "2.1.0")?;
    table.raw_set("null", Value::NULL)?;
    add(lua, &table, "encode", &settings, encode)?;
    add(lua, &table, "decode", &settings, decode)?;
    add(
        lua,
        &table,
        "encode_sparse_array",
        &settings,
        encode_sparse_array,
    )?;
    add(
        lua,
        &table,
        "encode_max_depth",
        &settings,
        |_, settings, args| depth(&Arguments::new(args), &settings.encode_max_depth),
    )?;
    add(
        lua,
        &table,
        "decode_max_depth",
        &settings,
        |_, settings, args| depth(&Arguments::new(args), &settings.decode_max_depth),
    )?;
    add(
        lua,
        &table,
        "encode_number_precision",
        &settings,
        |_, settings, args| {
            let args = Arguments::new(args);
            integer_setting(&args, 1, &settings.number_precision, 1, 17)?;
            one(Value::Number(settings.number_precision.get() as f64))
        },
    )?;
    add(
        lua,
        &table,
        "encode_keep_buffer",
        &settings,
        |_, settings, args| {
            boolean_setting(args, 1, &settings.keep_buffer);
            one(Value::Boolean(settings.keep_buffer.get()))
        },
    )?;
    add(
        lua,
        &table,
        "encode_invalid_numbers",
        &settings,
        encode_invalid_numbers,
    )?;
    add(
        lua,
        &table,
        "decode_invalid_numbers",
        &settings,
        |_, settings, args| {
            boolean_setting(args, 1, &settings.decode_invalid_numbers);
            one(Value::Boolean(settings.decode_invalid_numbers.get()))
        },
    )?;
    table.raw_set(
        "new",
        native(lua, |lua, _| one(Value::Table(self::table(lua)?)))?,
    )?;
    Ok(table)
}

type Work = fn(&Lua, &Settings, &MultiValue) -> Result<MultiValue, Failure>;

fn add(
    lua: &Lua,
    table: &Table,
    name: &str,
    settings: &Rc<Settings>,
    work: Work,
) -> mlua::Result<()> {
    let settings = settings.clone();
    table.raw_set(
        name,
        native(lua, move |lua, args| work(lua, &settings, &args))?,
    )
}

fn boolean_setting(args: &MultiValue, number: usize, setting: &Cell<bool>) {
    if let Some(Value::Boolean(value)) = args.get(number - 1) {
        setting.set(*value);
    }
}

fn integer_setting(
    args: &Arguments<'_>,
    number: usize,
    setting: &Cell<i64>,
    least: i64,
    most: i64,
) -> Result<(), Problem> {
    if matches!(args.get(number), None | Some(Value::Nil)) {
        return Ok(());
    }
    let value = args.integer(number)?;
    if !(least..=most).contains(&value) {
        let why = format_args!("expected integer between {least} and {most}");
        return Err(args.wrong(number, why));
    }
    setting.set(value);
    Ok(())
}

/// Nesting that the worker's stack is sure to hold.
const MAX_DEPTH: i64 = 4000;

fn depth(args: &Arguments<'_>, setting: &Cell<i64>) -> Result<MultiValue, Failure> {
    integer_setting(args, 1, setting, 1, i32::MAX.into())?;
    let shown = setting.get();
    setting.set(shown.min(MAX_DEPTH));
    one(Value::Number(shown as f64))
}

fn encode_sparse_array(
    _: &Lua,
    settings: &Settings,
    args: &MultiValue,
) -> Result<MultiValue, Failure> {
    boolean_setting(args, 1, &settings.sparse_convert);
    let args = Arguments::new(args);
    integer_setting(&args, 2, &settings.sparse_ratio, 0, i32::MAX.into())?;
    integer_setting(&args, 3, &settings.sparse_safe, 0, i32::MAX.into())?;
    Ok(MultiValue::from_iter([
        Value::Boolean(settings.sparse_convert.get()),
        Value::Number(settings.sparse_ratio.get() as f64),
        Value::Number(settings.sparse_safe.get() as f64),
    ]))
}

fn encode_invalid_numbers(
    lua: &Lua,
    settings: &Settings,
    args: &MultiValue,
) -> Result<MultiValue, Failure> {
    let setting = &settings.encode_invalid_numbers;
    match args.front() {
        Some(Value::Boolean(true)) => setting.set(Invalid::Written),
        Some(Value::Boolean(false)) => setting.set(Invalid::Refused),
        Some(Value::String(text)) if *text.as_bytes() == *b"null" => setting.set(Invalid::Null),
        Some(Value::String(text)) if *text.as_bytes() == *b"on" => setting.set(Invalid::Written),
        Some(Value::String(text)) if *text.as_bytes() == *b"off" => setting.set(Invalid::Refused),
        _ => {}
    }
    one(match setting.get() {
        Invalid::Refused => Value::Boolean(false),
        Invalid::Written => Value::Boolean(true),
        Invalid::Null => Value::String(lua.create_string("null")?),
    })
}

fn encode(lua: &Lua, settings: &Settings, args: &MultiValue) -> Result<MultiValue, Failure> {
    if args.len() != 1 {
        return Err(Problem::argument(1, "expected 1 argument").into());
    }
    let mut encoder = Encoder {
        settings,
        out: Vec::new(),
    };
    encoder.value(&args[0], 0)?;
    one(Value::String(lua.create_string(&encoder.out)?))
}

/// Bytes that one call may write.
const MAX_ENCODED: usize = 1 << 30;

struct Encoder<'a> {
    settings: &'a Settings,
    out: Vec<u8>,
}

impl Encoder<'_> {
    fn value(&mut self, value: &Value, depth: i64) -> Result<(), Failure> {
        match value {
            Value::String(text) => self.text(&text.as_bytes()),
            Value::Integer(number) => self.number(*number as f64)?,
            Value::Number(number) => self.number(*number)?,
            Value::Boolean(true) => self.out.extend_from_slice(b"true"),
            Value::Boolean(false) => self.out.extend_from_slice(b"false"),
            Value::Nil => self.out.extend_from_slice(b"null"),
            Value::Table(table) => self.table(table, depth + 1)?,
            null if *null == Value::NULL => self.out.extend_from_slice(b"null"),
            other => return Err(refused(type_name(other), "type not supported").into()),
        }
        if self.out.len() > MAX_ENCODED {
            return Err(Problem::misuse("result is too large").into());
        }
        Ok(())
    }

    fn number(&mut self, number: f64) -> Result<(), Problem> {
        if !number.is_finite() {
            match self.settings.encode_invalid_numbers.get() {
                Invalid::Refused => return Err(refused("number", "must not be NaN or Inf")),
                Invalid::Null => {
                    self.out.extend_from_slice(b"null");
                    return Ok(());
                }
                Invalid::Written if number.is_nan() => {
                    self.out.extend_from_slice(b"nan");
                    return Ok(());
                }
                Invalid::Written => {}
            }
        }
        let digits = self.settings.number_precision.get() as usize;
        self.out
            .extend_from_slice(general(number, digits).as_bytes());
        Ok(())
    }

    fn text(&mut self, text: &[u8]) {
        self.out.push(b'"');
        for &byte in text {
            let escaped = match byte {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'/' => b"\\/",
                8 => b"\\b",
                9 => b"\\t",
                10 => b"\\n",
                12 => b"\\f",
                13 => b"\\r",
                0..=31 | 127 => {
                    self.out
                        .extend_from_slice(format!("\\u{byte:04x}").as_bytes());
                    continue;
                }
                _ => {
                    self.out.push(byte);
                    continue;
                }
            };
            self.out.extend_from_slice(escaped);
        }
        self.out.push(b'"');
    }

    fn table(&mut self, table: &Table, depth: i64) -> Result<(), Failure> {
        if depth > self.settings.encode_max_depth.get().min(MAX_DEPTH) {
            let text = format!("Cannot serialise, excessive nesting ({depth})");
            return Err(Problem::misuse(text).into());
        }
        match self.array_len(table)? {
            Some(len) => self.array(table, len, depth),
            None => self.object(table, depth),
        }
    }

    /// The length, if the table is an array.
    fn array_len(&self, table: &Table) -> Result<Option<i64>, Failure> {
        let (mut count, mut most) = (0_i64, 0_i64);
        for pair in table.pairs::<Value, Value>() {
            let number = match pair?.0 {
                Value::Integer(number) => number as f64,
                Value::Number(number) => number,
                _ => return Ok(None),
            };
            if number < 1.0 || number != number.floor() {
                return Ok(None);
            }
            most = most.max(crate::scripting::convert::to_integer(number));
            count += 1;
        }
        if count == 0 {
            return Ok(None);
        }
        let ratio = self.settings.sparse_ratio.get();
        if ratio > 0 && most > count.saturating_mul(ratio) && most > self.settings.sparse_safe.get()
        {
            if !self.settings.sparse_convert.get() {
                return Err(refused("table", "excessively sparse array").into());
            }
            return Ok(None);
        }
        Ok(Some(most))
    }

    fn array(&mut self, table: &Table, len: i64, depth: i64) -> Result<(), Failure> {
        self.out.push(b'[');
        for index in 1..=len {
            if index > 1 {
                self.out.push(b',');
            }
            self.value(&table.raw_get::<Value>(index)?, depth)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn object(&mut self, table: &Table, depth: i64) -> Result<(), Failure> {
        self.out.push(b'{');
        let mut first = true;
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair?;
            if !std::mem::take(&mut first) {
                self.out.push(b',');
            }
            match key {
                Value::String(text) => self.text(&text.as_bytes()),
                Value::Integer(_) | Value::Number(_) => {
                    self.out.push(b'"');
                    self.number(crate::scripting::api::number_of(&key).unwrap_or_default())?;
                    self.out.push(b'"');
                }
                other => {
                    let why = "table key must be a number or string";
                    return Err(refused(type_name(&other), why).into());
                }
            }
            self.out.push(b':');
            self.value(&value, depth)?;
        }
        self.out.push(b'}');
        Ok(())
    }
}

fn refused(what: &str, why: &str) -> Problem {
    Problem::misuse(format!("Cannot serialise {what}: {why}"))
}
