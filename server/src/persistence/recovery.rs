//! Loading snapshot files: at the start, and when DEBUG RELOAD asks.

use std::{
    fs::File,
    io::{self, Read},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use storage::{
    db::Db,
    keyspace::Keyspace,
    rdb::{
        Limits, VersionCheck,
        file::{ChecksumCheck, FileReader},
    },
    time::Timestamp,
};

pub use super::loader::Origin;
use super::loader::{Existing, Loaded, Loader, explain};
use crate::{
    dispatch, log,
    replication::Part,
    scripting::functions::{Functions, Prepared},
    server::{self, Server},
};

/// What a primary's copy was, beside its entries.
pub struct Copied {
    /// Bytes that were read beyond its end.
    pub ahead: Vec<u8>,
    pub origin: Origin,
    pub functions: Prepared,
}

/// Loads the snapshot file that the settings name. None there is no data.
///
/// # Errors
/// What is wrong with it: the server must not start on half the data.
pub fn load_snapshot(server: &Arc<Server>) -> Result<(), String> {
    let started = Instant::now();
    let part = match server.config.settings().replicaof {
        None => Part::Primary,
        // What has expired is its primary's to delete.
        Some(_) => Part::Replica,
    };
    server.keyspace.set_deletes_expired(part == Part::Primary);
    if let Some(found) = load_file(server, None, Existing::Refuse)? {
        log::notice(format!(
            "DB loaded from disk: {:.3} seconds",
            started.elapsed().as_secs_f64()
        ));
        if let Some(standing) = found.origin.standing(server.keyspace.databases()) {
            server
                .replication
                .restore(server, standing, part, found.lost);
        }
    }
    server.keyspace.statistics.dirty.store(0, Ordering::Relaxed);
    Ok(())
}

/// What a snapshot file told beside its entries.
pub struct Found {
    pub origin: Origin,
    /// Keys that had expired and are not there therefore.
    pub lost: Vec<(usize, Box<[u8]>)>,
}

/// Loads the snapshot file into the view, which has all shards locked; without one, on several threads. `None` if there
/// is no file.
///
/// # Errors
/// What is wrong with it. Whatever stands before that is loaded.
pub fn load_file(
    server: &Arc<Server>,
    db: Option<&mut Db<'_>>,
    existing: Existing,
) -> Result<Option<Found>, String> {
    let settings = server.config.settings();
    let path = settings.dir.join(&settings.dbfilename);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(format!(
                "Fatal error: can't open the RDB file {} for reading: {error}",
                path.display()
            ));
        }
    };
    if server.loading.is_active() {
        let facts = file.metadata().map_err(|error| {
            format!(
                "Fatal error: can't read the RDB file {}: {error}",
                path.display()
            )
        })?;
        server.loading.set_total(facts.len());
    }
    let loader = Loader {
        server,
        keyspace: &server.keyspace,
        existing,
        now: server::now(),
        notes_lost: db.is_none(),
    };
    let loaded = open(server, loader.expired_by(), file)
        .and_then(|mut reader| loader.load_into(db, &mut reader));
    let loaded = loaded.map_err(|reason| {
        format!(
            "Fatal error loading the DB from {}: {reason}. Exiting.",
            path.display()
        )
    })?;
    loaded.settle(server, existing).map(Some)
}

impl Loaded {
    /// Says what was loaded, and loads the functions.
    fn settle(self, server: &Arc<Server>, existing: Existing) -> Result<Found, String> {
        let Loaded {
            keys,
            expired,
            empty,
            functions,
            origin,
            lost,
        } = self;
        note_done(server, keys, expired, empty);
        let replaces = existing == Existing::Replace;
        for source in functions {
            let loaded = server.scripting.functions.load(server, &source, replaces);
            loaded.map_err(|error| unsound(&error))?;
        }
        Ok(Found { origin, lost })
    }
}

fn note_done(server: &Server, keys: u64, expired: u64, empty: u64) {
    log::notice(format!(
        "Done loading RDB, keys loaded: {keys}, keys expired: {expired}, empty keys skipped: {empty}."
    ));
    let snapshots = &server.snapshots;
    snapshots.keys_loaded.store(keys, Ordering::Relaxed);
    snapshots.keys_expired.store(expired, Ordering::Relaxed);
}

fn unsound(error: &dispatch::error::Error) -> String {
    let reason = String::from_utf8_lossy(error.as_bytes()).into_owned();
    format!("Failed creating a function library: {reason}")
}

/// Loads the snapshot that an append-only file begins with, into the view if there is one, which has all shards locked;
/// the reader stands behind it then.
///
/// # Errors
/// What is wrong with it.
pub fn load_base<R: Read>(
    server: &Arc<Server>,
    db: Option<&mut Db<'_>>,
    input: R,
) -> Result<FileReader<R>, String> {
    let loader = Loader {
        server,
        keyspace: &server.keyspace,
        existing: Existing::Refuse,
        now: server::now(),
        notes_lost: false,
    };
    let mut reader = open(server, loader.expired_by(), input)?;
    let loaded = loader.load_into(db, &mut reader)?;
    loaded.settle(server, loader.existing)?;
    Ok(reader)
}

/// Loads a primary's copy into a keyspace of its own; its functions are returned and do not serve yet.
///
/// # Errors
/// What is wrong with it.
pub fn load_copy(
    server: &Arc<Server>,
    keyspace: &Keyspace,
    input: impl Read,
) -> Result<Copied, String> {
    let loader = Loader {
        server,
        keyspace,
        existing: Existing::Replace,
        now: server::now(),
        notes_lost: false,
    };
    let mut reader = open(server, loader.expired_by(), input)?;
    let loaded = loader.load(&mut reader)?;
    let functions =
        Functions::prepare(server, &loaded.functions).map_err(|error| unsound(&error))?;
    note_done(server, loaded.keys, loaded.expired, loaded.empty);
    Ok(Copied {
        ahead: reader.into_parts().1,
        origin: loaded.origin,
        functions,
    })
}

fn open<R: Read>(
    server: &Server,
    expired_by: Timestamp,
    input: R,
) -> Result<FileReader<R>, String> {
    let settings = &server.keyspace.settings;
    let versions = if settings.rdb_version_check_relaxed.load(Ordering::Relaxed) {
        VersionCheck::Relaxed
    } else {
        VersionCheck::Strict
    };
    let checksum = if server.config.settings().rdbchecksum {
        ChecksumCheck::On
    } else {
        ChecksumCheck::Off
    };
    let limits = Limits::from(settings);
    FileReader::new(input, limits, expired_by, versions, checksum)
        .map_err(|error| explain(error, 0))
}
