//! The libraries that scripts find beside Lua's own: `cjson`, `cmsgpack`, `struct` and `bit`.

pub(super) mod format;

use mlua::{Lua, Table};

/// Adds the libraries to a table.
pub(super) fn add(lua: &Lua, table: &Table) -> mlua::Result<()> {
    for name in ["bit", "cjson", "cmsgpack", "struct"] {
        table.raw_set(name, lua.create_table()?)?;
    }
    Ok(())
}
