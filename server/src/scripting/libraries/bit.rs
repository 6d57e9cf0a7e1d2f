//! `bit`: operations on 32-bit integers.

use mlua::{Lua, MultiValue, Table, Value};

use super::arguments::Arguments;
use crate::scripting::{
    api::one,
    interpreter::{Failure, native},
    problem::Problem,
};

pub(super) fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    unary(lua, &table, "tobit", |a| a)?;
    unary(lua, &table, "bnot", |a| !a)?;
    unary(lua, &table, "bswap", u32::swap_bytes)?;
    fold(lua, &table, "band", |a, b| a & b)?;
    fold(lua, &table, "bor", |a, b| a | b)?;
    fold(lua, &table, "bxor", |a, b| a ^ b)?;
    shift(lua, &table, "lshift", |a, by| a << by)?;
    shift(lua, &table, "rshift", |a, by| a >> by)?;
    shift(lua, &table, "arshift", |a, by| (a as i32 >> by) as u32)?;
    shift(lua, &table, "rol", u32::rotate_left)?;
    shift(lua, &table, "ror", u32::rotate_right)?;
    table.raw_set("tohex", native(lua, |lua, args| hexadecimal(lua, &args))?)?;
    Ok(table)
}

/// The bits of a number, modulo 2^32.
fn bits(args: &Arguments<'_>, number: usize) -> Result<u32, Problem> {
    let number = args.number(number)?;
    // Adding and dropping 2^52 + 2^51 rounds to the nearest integer, ties to even, as the original does.
    let rounded = number.round_ties_even();
    if !rounded.is_finite() {
        return Ok(0);
    }
    Ok(rounded.rem_euclid(4_294_967_296.0) as u32)
}

fn returned(bits: u32) -> Result<MultiValue, Failure> {
    one(Value::Number(f64::from(bits as i32)))
}

fn unary(lua: &Lua, table: &Table, name: &'static str, work: fn(u32) -> u32) -> mlua::Result<()> {
    let function = native(lua, move |_, args| {
        returned(work(bits(&Arguments::new(&args), 1)?))
    })?;
    table.raw_set(name, function)
}

fn fold(
    lua: &Lua,
    table: &Table,
    name: &'static str,
    work: fn(u32, u32) -> u32,
) -> mlua::Result<()> {
    let function = native(lua, move |_, args| {
        let args = Arguments::new(&args);
        let mut result = bits(&args, 1)?;
        for number in 2..=args.len() {
            result = work(result, bits(&args, number)?);
        }
        returned(result)
    })?;
    table.raw_set(name, function)
}

fn shift(
    lua: &Lua,
    table: &Table,
    name: &'static str,
    work: fn(u32, u32) -> u32,
) -> mlua::Result<()> {
    let function = native(lua, move |_, args| {
        let args = Arguments::new(&args);
        returned(work(bits(&args, 1)?, bits(&args, 2)? & 31))
    })?;
    table.raw_set(name, function)
}

fn hexadecimal(lua: &Lua, args: &MultiValue) -> Result<MultiValue, Failure> {
    let args = Arguments::new(args);
    let number = bits(&args, 1)?;
    let wanted = if args.len() < 2 {
        8
    } else {
        bits(&args, 2)? as i32
    };
    let digits = wanted.unsigned_abs().min(8) as usize;
    let text = if wanted < 0 {
        format!("{number:08X}")
    } else {
        format!("{number:08x}")
    };
    one(Value::String(lua.create_string(&text[8 - digits..])?))
}
