//! `struct`: values as bytes, laid out as a format string says.
//!
//! ```text
//! > <      big, little byte order                ! !n     align to n (8)
//! b B h H l L T i In f d                         x        a zero byte
//! s        a string up to a zero byte            c cn     one byte, n bytes; c0 takes its length from the stack
//! ```

use mlua::{Lua, MultiValue, Table, Value};

use super::arguments::Arguments;
use crate::scripting::{
    api::number_of,
    interpreter::{Failure, native},
    problem::Problem,
};

/// Bytes of the largest integer.
const MAX_INTEGER: usize = 32;
/// Alignment that `!` alone asks for.
const NATIVE_ALIGNMENT: usize = 8;
/// Bytes that one call may pack.
const MAX_PACKED: usize = 512 << 20;

pub(super) fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pack", native(lua, |lua, args| pack(lua, &args))?)?;
    table.raw_set("unpack", native(lua, |lua, args| unpack(lua, &args))?)?;
    table.raw_set("size", native(lua, |_, args| size(&args))?)?;
    Ok(table)
}

/// One option of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Integer { bytes: usize, signed: bool },
    Float,
    Double,
    Zero,
    Text,
    Bytes(usize),
}

/// Reads a format option by option; the layout changes on the way.
struct Format<'a> {
    rest: &'a [u8],
    big_endian: bool,
    alignment: usize,
    /// Letters that mean nothing are passed over.
    lenient: bool,
}

impl<'a> Format<'a> {
    fn new(text: &'a [u8]) -> Format<'a> {
        Format {
            rest: text,
            big_endian: cfg!(target_endian = "big"),
            alignment: 1,
            lenient: false,
        }
    }

    /// The next field, with the zeros that must precede it at `at`.
    fn next(&mut self, at: usize, args: &Arguments<'_>) -> Result<Option<(Field, usize)>, Problem> {
        while let Some((&option, rest)) = self.rest.split_first() {
            self.rest = rest;
            let integer = |bytes, signed| Field::Integer { bytes, signed };
            let field = match option {
                b' ' => continue,
                b'>' => {
                    self.big_endian = true;
                    continue;
                }
                b'<' => {
                    self.big_endian = false;
                    continue;
                }
                b'!' => {
                    let alignment = self.number(NATIVE_ALIGNMENT, args)?;
                    if !alignment.is_power_of_two() {
                        let why = format!("alignment {alignment} is not a power of 2");
                        return Err(Problem::misuse(why));
                    }
                    self.alignment = alignment;
                    continue;
                }
                b'b' => integer(1, true),
                b'B' => integer(1, false),
                b'h' => integer(2, true),
                b'H' => integer(2, false),
                b'l' => integer(8, true),
                b'L' | b'T' => integer(8, false),
                b'i' | b'I' => {
                    let bytes = self.number(4, args)?;
                    if bytes > MAX_INTEGER {
                        return Err(Problem::misuse(format!(
                            "integral size {bytes} is larger than limit of {MAX_INTEGER}"
                        )));
                    }
                    integer(bytes, option == b'i')
                }
                b'f' => Field::Float,
                b'd' => Field::Double,
                b'x' => Field::Zero,
                b's' => Field::Text,
                b'c' => Field::Bytes(self.number(1, args)?),
                other if self.lenient && other.is_ascii_alphanumeric() => continue,
                other => {
                    let shown = char::from(other);
                    return Err(args.wrong(1, format_args!("invalid format option '{shown}'")));
                }
            };
            return Ok(Some((field, self.padding(field, at))));
        }
        Ok(None)
    }

    /// The digits that follow an option.
    fn number(&mut self, default: usize, args: &Arguments<'_>) -> Result<usize, Problem> {
        let digits = self
            .rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if digits == 0 {
            return Ok(default);
        }
        let (text, rest) = self.rest.split_at(digits);
        self.rest = rest;
        let number = storage::value::number::parse_i64(text).or_else(|| {
            // Leading zeros are fine here.
            std::str::from_utf8(text).ok()?.parse().ok()
        });
        match number {
            Some(number) if number <= i64::from(i32::MAX) => Ok(number as usize),
            _ => Err(args.wrong(1, "integral size overflow")),
        }
    }

    fn padding(&self, field: Field, at: usize) -> usize {
        let natural = match field {
            Field::Integer { bytes, .. } => bytes,
            Field::Float => 4,
            Field::Double => 8,
            Field::Zero | Field::Text | Field::Bytes(_) => return 0,
        };
        let alignment = natural.min(self.alignment);
        if alignment > 1 && alignment.is_power_of_two() {
            at.next_multiple_of(alignment) - at
        } else {
            0
        }
    }
}

fn pack(lua: &Lua, args: &MultiValue) -> Result<MultiValue, Failure> {
    let mut args = args.clone();
    // What is missing is nil, not nothing.
    args.push_back(Value::Nil);
    let args = Arguments::new(&args);
    let text = args.text(1)?;
    let mut format = Format::new(&text);
    let mut packed: Vec<u8> = Vec::new();
    let mut next = 2;
    while let Some((field, padding)) = format.next(packed.len(), &args)? {
        packed.resize(packed.len() + padding, 0);
        match field {
            Field::Integer { bytes, .. } => {
                let number = args.number(next)?;
                push_integer(&mut packed, integer_bits(number), bytes, format.big_endian);
                next += 1;
            }
            Field::Float => {
                let bytes = (args.number(next)? as f32).to_le_bytes();
                push_ordered(&mut packed, bytes, format.big_endian);
                next += 1;
            }
            Field::Double => {
                push_ordered(
                    &mut packed,
                    args.number(next)?.to_le_bytes(),
                    format.big_endian,
                );
                next += 1;
            }
            Field::Zero => packed.push(0),
            Field::Text => {
                packed.extend_from_slice(&args.text(next)?);
                packed.push(0);
                next += 1;
            }
            Field::Bytes(len) => {
                let bytes = args.text(next)?;
                let len = if len == 0 { bytes.len() } else { len };
                let taken = bytes.get(..len);
                // The number is that of the next argument there, too.
                let short = || args.wrong(next + 1, "string too short");
                packed.extend_from_slice(taken.ok_or_else(short)?);
                next += 1;
            }
        }
        if packed.len() > MAX_PACKED {
            return Err(Problem::misuse("result is too large").into());
        }
    }
    Ok(MultiValue::from_iter([Value::String(
        lua.create_string(&packed)?,
    )]))
}

/// The 64 bits of a number, negative ones in two's complement.
fn integer_bits(number: f64) -> u64 {
    if number < 0.0 {
        crate::scripting::convert::to_integer(number) as u64
    } else {
        number as u64
    }
}

fn push_integer(packed: &mut Vec<u8>, bits: u64, bytes: usize, big_endian: bool) {
    let start = packed.len();
    let low = bits.to_le_bytes();
    // Beyond 64 bits the value is shifted out, as the original does.
    packed.extend((0..bytes).map(|index| low.get(index).copied().unwrap_or(0)));
    if big_endian {
        packed[start..].reverse();
    }
}

fn push_ordered<const N: usize>(packed: &mut Vec<u8>, mut bytes: [u8; N], big_endian: bool) {
    if big_endian {
        bytes.reverse();
    }
    packed.extend_from_slice(&bytes);
}

fn unpack(lua: &Lua, args: &MultiValue) -> Result<MultiValue, Failure> {
    let args = Arguments::new(args);
    let text = args.text(1)?;
    let data = args.text(2)?;
    let from = match args.get(3) {
        None | Some(Value::Nil) => 1,
        Some(_) => args.integer(3)?,
    };
    if from == 0 {
        return Err(args.wrong(3, "offset must be 1 or greater").into());
    }
    let mut at = from.wrapping_sub(1) as usize;
    let mut format = Format::new(&text);
    let mut values: Vec<Value> = Vec::new();
    let short = || args.wrong(2, "data string too short");
    if at > data.len() && !text.is_empty() {
        return Err(short().into());
    }
    while let Some((field, padding)) = format.next(at, &args)? {
        at += padding;
        let taken = |len: usize| {
            let end = at.checked_add(len).ok_or_else(short)?;
            data.get(at..end).ok_or_else(short)
        };
        let value = match field {
            Field::Integer { bytes, signed } => {
                let raw = taken(bytes)?;
                at += bytes;
                Value::Number(read_integer(raw, signed, format.big_endian))
            }
            Field::Float => {
                let bytes = ordered(taken(4)?, format.big_endian);
                at += 4;
                Value::Number(f32::from_le_bytes(bytes).into())
            }
            Field::Double => {
                let bytes = ordered(taken(8)?, format.big_endian);
                at += 8;
                Value::Number(f64::from_le_bytes(bytes))
            }
            Field::Zero => {
                taken(1)?;
                at += 1;
                continue;
            }
            Field::Text => {
                let rest = data.get(at..).unwrap_or_default();
                let len = memchr::memchr(0, rest)
                    .ok_or_else(|| Problem::misuse("unfinished string in data"))?;
                at += len + 1;
                Value::String(lua.create_string(&rest[..len])?)
            }
            Field::Bytes(0) => {
                let last = values.pop().or_else(|| args.get(args.len()).cloned());
                let len = match last.as_ref().and_then(number_of) {
                    Some(len) if len >= 0.0 => len as usize,
                    _ => {
                        return Err(Problem::misuse("format 'c0' needs a previous size").into());
                    }
                };
                let bytes = taken(len)?;
                at += len;
                Value::String(lua.create_string(bytes)?)
            }
            Field::Bytes(len) => {
                let bytes = taken(len)?;
                at += len;
                Value::String(lua.create_string(bytes)?)
            }
        };
        values.push(value);
    }
    values.push(Value::Number((at as i64).wrapping_add(1) as f64));
    Ok(MultiValue::from_iter(values))
}

fn ordered<const N: usize>(raw: &[u8], big_endian: bool) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&raw[..N]);
    if big_endian {
        bytes.reverse();
    }
    bytes
}

fn read_integer(raw: &[u8], signed: bool, big_endian: bool) -> f64 {
    let append = |bits: u64, byte: &u8| bits << 8 | u64::from(*byte);
    let bits = if big_endian {
        raw.iter().fold(0, append)
    } else {
        raw.iter().rev().fold(0, append)
    };
    if !signed {
        return bits as f64;
    }
    let unused = 64_usize.saturating_sub(raw.len() * 8);
    if unused >= 64 {
        return 0.0;
    }
    ((bits << unused) as i64 >> unused) as f64
}

fn size(args: &MultiValue) -> Result<MultiValue, Failure> {
    let args = Arguments::new(args);
    let text = args.text(1)?;
    let mut format = Format {
        lenient: true,
        ..Format::new(&text)
    };
    let mut total: usize = 0;
    while let Some((field, padding)) = format.next(total, &args)? {
        let bytes = match field {
            Field::Integer { bytes, .. } => bytes,
            Field::Float => 4,
            Field::Double => 8,
            Field::Zero => 1,
            Field::Text => return Err(args.wrong(1, "option 's' has no fixed size").into()),
            Field::Bytes(0) => return Err(args.wrong(1, "option 'c0' has no fixed size").into()),
            Field::Bytes(len) => len,
        };
        total = total.saturating_add(padding).saturating_add(bytes);
        if total > i32::MAX as usize {
            return Err(args.wrong(1, "result is too large").into());
        }
    }
    Ok(MultiValue::from_iter([Value::Number(total as f64)]))
}
