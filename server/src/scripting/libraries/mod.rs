//! The libraries that scripts find beside Lua's own: `cjson`, `cmsgpack`, `struct` and `bit`.

mod arguments;
mod bit;
pub(super) mod format;
mod json;
mod json_decode;
mod message_pack;
mod structure;

use mlua::{Lua, Table};

/// Adds the libraries to a table.
pub(super) fn add(lua: &Lua, table: &Table) -> mlua::Result<()> {
    table.raw_set("bit", bit::table(lua)?)?;
    table.raw_set("cjson", json::table(lua)?)?;
    table.raw_set("cmsgpack", message_pack::table(lua)?)?;
    table.raw_set("struct", structure::table(lua)?)
}
