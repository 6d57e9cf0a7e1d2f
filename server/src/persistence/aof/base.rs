//! The log's base: a snapshot file of all data at one moment.

use std::{
    fs::File,
    io::{self, Cursor, Read},
    path::Path,
    sync::Arc,
};

use storage::db::Db;

use crate::{
    persistence::{
        recovery,
        snapshot::{self, Purpose},
    },
    server::Server,
};

/// Loads a base, into the view if there is one, which has all shards locked. Returns what follows it in the file, and
/// its length.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn load(
    server: &Arc<Server>,
    db: Option<&mut Db<'_>>,
    file: File,
) -> Result<(Box<dyn Read>, u64), String> {
    let reader = recovery::load_base(server, db, file)?;
    let length = reader.position();
    let (rest, ahead) = reader.into_parts();
    Ok((Box::new(Cursor::new(ahead).chain(rest)), length))
}

/// Writes a base to `path` and forces it to disk. `at_cut` runs at the moment that the base describes, with every
/// shard locked.
///
/// # Errors
/// The disk's.
pub(super) fn write(server: &Server, path: &Path, at_cut: impl FnOnce()) -> io::Result<()> {
    snapshot::write(server, path, Purpose::LogBase, at_cut, || Ok(()))
}
