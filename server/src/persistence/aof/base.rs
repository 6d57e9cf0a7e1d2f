//! The log's base: all data at one moment, as a snapshot file or as commands.

use std::{
    fs::File,
    io::{self, BufWriter, Cursor, Read},
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use storage::{db::Db, snapshot::Ready};

use super::commands::CommandWriter;
use crate::{
    persistence::{
        recovery,
        snapshot::{self, Purpose},
    },
    server::{self, Server},
};

/// Bytes written at once.
const BUFFER: usize = 256 * 1024;

/// Loads a base that is a snapshot, into the view if there is one, which has all shards locked. Returns what follows it in the file, and
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

/// How a base holds the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A snapshot file.
    Snapshot,
    Commands,
}

impl Form {
    /// What the settings ask for.
    pub(super) fn wanted(server: &Server) -> Form {
        match server.config.settings().aof_use_rdb_preamble {
            true => Form::Snapshot,
            false => Form::Commands,
        }
    }

    pub(super) fn suffix(self) -> &'static str {
        match self {
            Form::Snapshot => "rdb",
            Form::Commands => "aof",
        }
    }
}

/// Writes a base to `path` and forces it to disk. `at_cut` runs at the moment that the base describes, with every
/// shard locked.
///
/// # Errors
/// The disk's, or that it was cancelled.
pub(super) fn write(
    server: &Server,
    path: &Path,
    form: Form,
    at_cut: impl FnOnce(),
) -> io::Result<()> {
    let cancelled = &server.aof.status.cancelled;
    let progress = || snapshot::go_on(server, || cancelled.load(Ordering::Relaxed));
    match form {
        Form::Snapshot => snapshot::write(server, path, Purpose::LogBase, at_cut, progress),
        Form::Commands => write_commands(server, path, at_cut, progress),
    }
}

fn write_commands(
    server: &Server,
    path: &Path,
    at_cut: impl FnOnce(),
    progress: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    let output = BufWriter::with_capacity(BUFFER, File::create(path)?);
    let ready = Ready::wait(&server.keyspace);
    let mut libraries = Vec::new();
    let applying = server.replication.applying.lock();
    let cut = ready.cut(usize::MAX, || {
        libraries = server.scripting.functions.all();
        at_cut();
    });
    drop(applying);
    let mut writer = CommandWriter::new(output);
    if server.config.settings().aof_timestamp_enabled {
        writer.time(server::now().seconds())?;
    }
    for library in libraries {
        writer.function(&library.code)?;
    }
    snapshot::walking(server, Purpose::LogBase, || {
        cut.walk(|database, entry| {
            writer.entry(database, entry)?;
            snapshot::note_backlog(server);
            progress()
        })
    })?;
    let output = writer.finish()?;
    output.get_ref().sync_all()
}
