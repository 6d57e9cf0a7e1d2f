//! Loading snapshot files: at the start, and when DEBUG RELOAD asks.

use std::{
    fs::File,
    io::{self, Read},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use storage::{
    db::Db,
    entry::Meta,
    eviction,
    keyspace::{Key, Keyspace},
    rdb::{
        self, Limits, VersionCheck,
        file::{ChecksumCheck, FileEntry, FileReader, Record},
    },
    time::Timestamp,
    value::number,
};

use crate::{
    log,
    server::{self, Server},
};

/// What to do with a key that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// A file that has a key twice is broken.
    Refuse,
    Replace,
}

/// What came of loading.
#[derive(Debug, Default)]
struct Loaded {
    keys: u64,
    expired: u64,
    empty: u64,
    /// Sources of libraries of functions.
    functions: Vec<Vec<u8>>,
}

/// Loads the snapshot file that the settings name. None there is no data.
///
/// # Errors
/// What is wrong with it: the server must not start on half the data.
pub fn load_snapshot(server: &Arc<Server>) -> Result<(), String> {
    let started = Instant::now();
    let mut db = Db::new(&server.keyspace, 0, server::now());
    if load_file(server, &mut db, Existing::Refuse)? {
        log::notice(format!(
            "DB loaded from disk: {:.3} seconds",
            started.elapsed().as_secs_f64()
        ));
    }
    server.keyspace.statistics.dirty.store(0, Ordering::Relaxed);
    Ok(())
}

/// Loads the snapshot file into a view with all shards locked, or none. False if there is no file.
///
/// # Errors
/// What is wrong with it. Whatever stands before that is loaded.
pub fn load_file(
    server: &Arc<Server>,
    db: &mut Db<'_>,
    existing: Existing,
) -> Result<bool, String> {
    let settings = server.config.settings();
    let path = settings.dir.join(&settings.dbfilename);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => {
            return Err(format!(
                "Fatal error: can't open the RDB file {} for reading: {error}",
                path.display()
            ));
        }
    };
    let selected = db.index();
    let loaded = open(server, db.now(), file)
        .and_then(|mut reader| load_records(server, db, &mut reader, existing));
    db.select(selected);
    let loaded = loaded.map_err(|reason| {
        format!(
            "Fatal error loading the DB from {}: {reason}. Exiting.",
            path.display()
        )
    })?;
    loaded.settle(server)?;
    Ok(true)
}

impl Loaded {
    /// Says what was loaded, and loads the functions, each in place of one of the same name.
    fn settle(self, server: &Arc<Server>) -> Result<(), String> {
        let Loaded {
            keys,
            expired,
            empty,
            functions,
        } = self;
        log::notice(format!(
            "Done loading RDB, keys loaded: {keys}, keys expired: {expired}, empty keys skipped: {empty}."
        ));
        let snapshots = &server.snapshots;
        snapshots.keys_loaded.store(keys, Ordering::Relaxed);
        snapshots.keys_expired.store(expired, Ordering::Relaxed);
        for source in functions {
            let loaded = server.scripting.functions.load(server, &source, true);
            loaded.map_err(|error| {
                let reason = String::from_utf8_lossy(error.as_bytes()).into_owned();
                format!("Failed creating a function library: {reason}")
            })?;
        }
        Ok(())
    }
}

/// Loads the snapshot that an append-only file begins with; the reader stands behind it then.
///
/// # Errors
/// What is wrong with it.
pub fn load_base<R: Read>(server: &Arc<Server>, input: R) -> Result<FileReader<R>, String> {
    let mut db = Db::new(&server.keyspace, 0, server::now());
    let mut reader = open(server, db.now(), input)?;
    let loaded = load_records(server, &mut db, &mut reader, Existing::Refuse)?;
    loaded.settle(server)?;
    Ok(reader)
}

/// Loads a primary's copy into a keyspace of its own. Returns what was read beyond its end.
///
/// # Errors
/// What is wrong with it.
pub fn load_copy(
    server: &Arc<Server>,
    keyspace: &Keyspace,
    input: impl Read,
) -> Result<Vec<u8>, String> {
    let mut db = Db::new(keyspace, 0, server::now());
    let mut reader = open(server, db.now(), input)?;
    let loaded = load_records(server, &mut db, &mut reader, Existing::Replace)?;
    loaded.settle(server)?;
    Ok(reader.into_parts().1)
}

fn open<R: Read>(server: &Server, now: Timestamp, input: R) -> Result<FileReader<R>, String> {
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
    FileReader::new(input, limits, now, versions, checksum).map_err(|error| explain(error, 0))
}

fn load_records<R: Read>(
    server: &Server,
    db: &mut Db<'_>,
    reader: &mut FileReader<R>,
    existing: Existing,
) -> Result<Loaded, String> {
    let mut loaded = Loaded::default();
    db.select(0);
    loop {
        let record = reader
            .next_record()
            .map_err(|error| explain(error, reader.position()))?;
        match record {
            Record::Note { key, value } => tell(&key, &value),
            Record::Sizes { .. } => {}
            Record::Database(number) => {
                let databases = server.keyspace.databases();
                let index = usize::try_from(number).ok();
                let index = index.filter(|&index| index < databases).ok_or_else(|| {
                    format!("it was made by a server with more than {databases} databases")
                })?;
                db.select(index);
            }
            Record::Function(source) => loaded.functions.push(source),
            Record::EmptyEntry { .. } => loaded.empty += 1,
            Record::Entry(entry) => {
                let now = db.now();
                // A replica keeps what its primary has not deleted yet.
                if entry.deadline.is_some_and(|deadline| deadline <= now)
                    && server.keyspace.deletes_expired()
                {
                    loaded.expired += 1;
                    continue;
                }
                put(db, entry, existing)?;
                loaded.keys += 1;
            }
            Record::End => return Ok(loaded),
        }
    }
}

fn put(db: &mut Db<'_>, entry: FileEntry, existing: Existing) -> Result<(), String> {
    let key = Key::new(&entry.key);
    let held = db.is_locked();
    if !held {
        db.lock(key.hash);
    }
    let is_new = existing == Existing::Replace || db.entry_mut(key).is_none();
    if is_new {
        if let Some(item) = entry.item {
            db.keyspace().note_cas(item.cas);
        }
        let meta = Meta {
            deadline: entry.deadline,
            item: entry.item,
            access: 0,
        };
        db.put(key, entry.value, meta);
        let (idle, frequency) = (entry.idle_seconds, entry.frequency);
        if let Some(access) = eviction::restored(db.keyspace(), idle, frequency, db.now())
            && let Some(entry) = db.peek(key)
        {
            entry.set_access(access);
        }
    }
    if !held {
        db.unlock();
    }
    if is_new {
        Ok(())
    } else {
        Err(format!(
            "it has the key '{}' twice in database {}",
            entry.key.escape_ascii(),
            db.index()
        ))
    }
}

/// Logs what a file says of its origin.
fn tell(key: &[u8], value: &[u8]) {
    let text = value.escape_ascii();
    match key {
        b"valkey-ver" => log::notice(format!("Loading RDB produced by Valkey version {text}")),
        b"redis-ver" => log::notice(format!("Loading RDB produced by Redis version {text}")),
        b"ctime" => {
            if let Some(made) = number::parse_i64(value) {
                let age = server::now().seconds().saturating_sub(made).max(0);
                log::notice(format!("RDB age {age} seconds"));
            }
        }
        b"used-mem" => {
            if let Some(bytes) = number::parse_u64(value) {
                let megabytes = bytes as f64 / f64::from(1 << 20);
                log::notice(format!("RDB memory usage when created {megabytes:.2} Mb"));
            }
        }
        _ => {}
    }
}

/// Says what is wrong in the words of other servers' logs.
fn explain(error: rdb::Error, position: u64) -> String {
    match error {
        rdb::Error::Truncated => {
            format!("short read at byte {position}, the file ends too soon")
        }
        rdb::Error::Version(version) => format!("can't handle RDB format version {version}"),
        rdb::Error::Checksum => "wrong RDB checksum".into(),
        rdb::Error::Corrupt("file's head") => "wrong signature, it is no RDB file".into(),
        other => format!("{other} at byte {position}"),
    }
}
