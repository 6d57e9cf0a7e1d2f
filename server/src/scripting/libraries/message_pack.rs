//! `cmsgpack`: values as MessagePack.

use mlua::{Lua, MultiValue, Table, Value};

use super::arguments::Arguments;
use crate::scripting::{
    api::one,
    interpreter::{Failure, native},
    problem::Problem,
};

/// Tables nested deeper than this are packed as nil.
const MAX_PACKED_DEPTH: usize = 16;
/// Values nested deeper than this are bad data.
const MAX_UNPACKED_DEPTH: usize = 1000;

pub(super) fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("_NAME", "cmsgpack")?;
    table.raw_set("_VERSION", "lua-cmsgpack 0.4.0")?;
    table.raw_set("_COPYRIGHT", "Copyright (C) 2012, Redis Ltd.")?;
    table.raw_set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    table.raw_set("pack", native(lua, |lua, args| pack(lua, &args))?)?;
    table.raw_set(
        "unpack",
        native(lua, |lua, args| unpack(lua, &args, "unpack"))?,
    )?;
    table.raw_set(
        "unpack_one",
        native(lua, |lua, args| unpack(lua, &args, "unpack_one"))?,
    )?;
    table.raw_set(
        "unpack_limit",
        native(lua, |lua, args| unpack(lua, &args, "unpack_limit"))?,
    )?;
    Ok(table)
}

fn pack(lua: &Lua, args: &MultiValue) -> Result<MultiValue, Failure> {
    if args.is_empty() {
        return Err(Problem::argument(0, "MessagePack pack needs input.").into());
    }
    let mut packed = Vec::new();
    for value in args {
        pack_value(value, 0, &mut packed)?;
    }
    one(Value::String(lua.create_string(&packed)?))
}

fn pack_value(value: &Value, depth: usize, out: &mut Vec<u8>) -> mlua::Result<()> {
    match value {
        Value::String(text) => pack_text(&text.as_bytes(), out),
        Value::Boolean(value) => out.push(if *value { 0xc3 } else { 0xc2 }),
        Value::Integer(number) => pack_integer(*number, out),
        Value::Number(number) => pack_number(*number, out),
        Value::Table(_) if depth == MAX_PACKED_DEPTH => out.push(0xc0),
        Value::Table(table) => pack_table(table, depth, out)?,
        _ => out.push(0xc0),
    }
    Ok(())
}

fn pack_text(text: &[u8], out: &mut Vec<u8>) {
    pack_len(
        text.len(),
        &[(31, 0xa0), (0xff, 0xd9), (0xffff, 0xda)],
        0xdb,
        out,
    );
    out.extend_from_slice(text);
}

/// A length: the first form that it fits; a form with a five-bit or four-bit length holds it in the tag itself.
fn pack_len(len: usize, forms: &[(usize, u8)], longest: u8, out: &mut Vec<u8>) {
    match forms.iter().find(|(most, _)| len <= *most) {
        Some((0xff, tag)) => out.extend_from_slice(&[*tag, len as u8]),
        Some((0xffff, tag)) => {
            out.push(*tag);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        Some((_, tag)) => out.push(tag | len as u8),
        None => {
            out.push(longest);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
}

fn pack_integer(number: i64, out: &mut Vec<u8>) {
    match number {
        0..=0x7f => out.push(number as u8),
        0x80..=0xff => out.extend_from_slice(&[0xcc, number as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend_from_slice(&(number as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend_from_slice(&(number as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            out.push(0xcf);
            out.extend_from_slice(&number.to_be_bytes());
        }
        -32..=-1 => out.push(number as u8),
        -128..=-33 => out.extend_from_slice(&[0xd0, number as u8]),
        -0x8000..=-129 => {
            out.push(0xd1);
            out.extend_from_slice(&(number as i16).to_be_bytes());
        }
        -0x8000_0000..=-0x8001 => {
            out.push(0xd2);
            out.extend_from_slice(&(number as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}

fn pack_number(number: f64, out: &mut Vec<u8>) {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if number == number.trunc() && (-LIMIT..LIMIT).contains(&number) {
        pack_integer(number as i64, out);
    } else if f64::from(number as f32) == number {
        out.push(0xca);
        out.extend_from_slice(&(number as f32).to_be_bytes());
    } else {
        out.push(0xcb);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn pack_table(table: &Table, depth: usize, out: &mut Vec<u8>) -> mlua::Result<()> {
    if let Some(len) = array_len(table)? {
        pack_len(len, &[(15, 0x90), (0xffff, 0xdc)], 0xdd, out);
        for index in 1..=len {
            pack_value(&table.raw_get(index)?, depth + 1, out)?;
        }
        return Ok(());
    }
    // Twice through it: no more than some thousand values can be held at once.
    let len = table.pairs::<Value, Value>().count();
    pack_len(len, &[(15, 0x80), (0xffff, 0xde)], 0xdf, out);
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        pack_value(&key, depth + 1, out)?;
        pack_value(&value, depth + 1, out)?;
    }
    Ok(())
}

/// The length, if the keys are 1 to n. An empty table is an array.
fn array_len(table: &Table) -> mlua::Result<Option<usize>> {
    let (mut count, mut most) = (0, 0);
    for pair in table.pairs::<Value, Value>() {
        let number = match pair?.0 {
            Value::Integer(number) => number as f64,
            Value::Number(number) => number,
            _ => return Ok(None),
        };
        if number < 1.0 || number != number.trunc() || number > f64::from(u32::MAX) {
            return Ok(None);
        }
        count += 1;
        most = most.max(number as usize);
    }
    Ok((count == most).then_some(count))
}

fn unpack(lua: &Lua, args: &MultiValue, function: &'static str) -> Result<MultiValue, Failure> {
    let args = Arguments::new(args);
    let data = args.text(1)?;
    let (limit, offset) = match function {
        "unpack" => (0, 0),
        "unpack_one" => (1, optional(&args, 2)?),
        _ => (args.integer(2)?, optional(&args, 3)?),
    };
    // As it is written, which holds 32 bits.
    let shown = offset as i32;
    if offset < 0 || limit < 0 {
        return Err(Problem::misuse(format!(
            "Invalid request to unpack with offset of {shown} and limit of {}.",
            data.len()
        ))
        .into());
    }
    if offset as u64 > data.len() as u64 {
        return Err(Problem::misuse(format!(
            "Start offset {shown} greater than input length {}.",
            data.len()
        ))
        .into());
    }
    let all = limit == 0 && offset == 0;
    let limit = if limit == 0 { i64::MAX } else { limit };
    let mut reader = Reader {
        lua,
        data: &data,
        at: offset as usize,
    };
    let mut values = Vec::new();
    while reader.at < data.len() && (values.len() as i64) < limit {
        values.push(reader.value(0)?);
    }
    if !all {
        let rest = if reader.at < data.len() {
            reader.at as f64
        } else {
            -1.0
        };
        values.insert(0, Value::Number(rest));
    }
    Ok(MultiValue::from_iter(values))
}

fn optional(args: &Arguments<'_>, number: usize) -> Result<i64, Problem> {
    match args.get(number) {
        None | Some(Value::Nil) => Ok(0),
        Some(_) => args.integer(number),
    }
}

struct Reader<'a> {
    lua: &'a Lua,
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Value, Failure> {
        if depth > MAX_UNPACKED_DEPTH {
            return Err(Problem::misuse("Bad data format in input.").into());
        }
        let tag = self.take(1)?[0];
        Ok(match tag {
            0x00..=0x7f => Value::Number(tag.into()),
            0xe0..=0xff => Value::Number((tag as i8).into()),
            0x80..=0x8f => self.map((tag & 15).into(), depth)?,
            0x90..=0x9f => self.array((tag & 15).into(), depth)?,
            0xa0..=0xbf => self.text((tag & 31).into())?,
            0xc0 => Value::Nil,
            0xc2 | 0xc3 => Value::Boolean(tag == 0xc3),
            0xd9 => {
                let len = self.unsigned(1)?;
                self.text(len)?
            }
            0xda => {
                let len = self.unsigned(2)?;
                self.text(len)?
            }
            0xdb => {
                let len = self.unsigned(4)?;
                self.text(len)?
            }
            0xca => Value::Number(f32::from_bits(self.unsigned(4)? as u32).into()),
            0xcb => Value::Number(f64::from_bits(self.unsigned(8)?)),
            0xcc..=0xcf => Value::Number(self.unsigned(1 << (tag - 0xcc))? as f64),
            0xd0..=0xd3 => {
                let bytes = 1 << (tag - 0xd0);
                let unused = 64 - 8 * bytes as u32;
                let bits = self.unsigned(bytes)?;
                Value::Number(((bits << unused) as i64 >> unused) as f64)
            }
            0xdc | 0xdd => {
                let len = self.unsigned(if tag == 0xdc { 2 } else { 4 })?;
                self.array(len, depth)?
            }
            0xde | 0xdf => {
                let len = self.unsigned(if tag == 0xde { 2 } else { 4 })?;
                self.map(len, depth)?
            }
            _ => return Err(Problem::misuse("Bad data format in input.").into()),
        })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Problem> {
        let end = self.at.checked_add(len);
        let bytes = end.and_then(|end| self.data.get(self.at..end));
        let bytes = bytes.ok_or_else(|| Problem::misuse("Missing bytes in input."))?;
        self.at += len;
        Ok(bytes)
    }

    fn unsigned(&mut self, bytes: usize) -> Result<u64, Problem> {
        let raw = self.take(bytes)?;
        Ok(raw
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn text(&mut self, len: u64) -> Result<Value, Failure> {
        let bytes = self.take(usize::try_from(len).unwrap_or(usize::MAX))?;
        Ok(Value::String(self.lua.create_string(bytes)?))
    }

    fn array(&mut self, len: u64, depth: usize) -> Result<Value, Failure> {
        let table = self.lua.create_table()?;
        for index in 1..=len {
            let value = self.value(depth + 1)?;
            table.raw_set(index, value)?;
        }
        Ok(Value::Table(table))
    }

    fn map(&mut self, len: u64, depth: usize) -> Result<Value, Failure> {
        let table = self.lua.create_table()?;
        for _ in 0..len {
            let key = self.value(depth + 1)?;
            let value = self.value(depth + 1)?;
            let nan = matches!(key, Value::Number(number) if number.is_nan());
            if key.is_nil() || nan {
                return Err(Problem::misuse("Bad data format in input.").into());
            }
            table.raw_set(key, value)?;
        }
        Ok(Value::Table(table))
    }
}
