//! The log's base: an RDB file of all data at one moment.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Cursor, Read},
    path::Path,
};

use storage::{
    db::Db,
    entry::Meta,
    keyspace::Key,
    rdb::{
        Limits, VersionCheck,
        file::{ChecksumCheck, EntryToWrite, FileDialect, FileReader, FileWriter, Record},
    },
    value::ValueRef,
};

use crate::server::{self, Server};

/// Loads a base. Returns what follows it in the file, and its length.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn load(server: &Server, file: File) -> Result<(Box<dyn Read>, u64), String> {
    let now = server::now();
    let limits = Limits::from(&server.keyspace.settings);
    let input = BufReader::with_capacity(1 << 20, file);
    let mut reader = FileReader::new(input, limits, now, VersionCheck::Relaxed, ChecksumCheck::On)
        .map_err(|error| error.to_string())?;
    let mut db = Db::new(&server.keyspace, 0, now);
    loop {
        let record = reader
            .next_record()
            .map_err(|error| format!("{error} at byte {}", reader.position()))?;
        match record {
            Record::Database(number) => {
                let index = usize::try_from(number).ok();
                let index = index.filter(|&index| index < server.keyspace.databases());
                db.select(index.ok_or_else(|| format!("database {number} does not exist"))?);
            }
            Record::Entry(entry) => {
                let key = Key::new(&entry.key);
                db.lock(key.hash);
                let meta = Meta {
                    deadline: entry.deadline,
                    item: entry.item,
                    access: 0,
                };
                db.put(key, entry.value, meta);
                db.unlock();
            }
            Record::End => break,
            Record::Note { .. }
            | Record::Sizes { .. }
            | Record::Function(_)
            | Record::EmptyEntry { .. } => {}
        }
    }
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
    let settings = server.config.settings();
    let output = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut db = Db::new(&server.keyspace, 0, server::now());
    db.lock_all();
    at_cut();
    let mut has_field_deadlines = false;
    db.each_entry(|_, entry| {
        has_field_deadlines |= matches!(entry.value(), ValueRef::Hash(hash) if hash.expiring() > 0);
        Ok::<(), io::Error>(())
    })?;
    let dialect = if has_field_deadlines {
        FileDialect::Valkey
    } else {
        FileDialect::Common
    };
    let mut file = FileWriter::new(output, dialect, settings.rdbcompression)?;
    file.note(b"aof-base", b"1")?;
    let mut current = None;
    db.each_entry(|database, entry| {
        if current != Some(database) {
            current = Some(database);
            file.database(database as u64, 0, 0)?;
        }
        file.entry(EntryToWrite {
            key: entry.key(),
            value: entry.value(),
            deadline: entry.deadline(),
            idle_seconds: None,
            frequency: None,
            item: entry.item(),
        })
    })?;
    db.unlock();
    let checksum = if settings.rdbchecksum {
        ChecksumCheck::On
    } else {
        ChecksumCheck::Off
    };
    let output = file.finish(checksum)?;
    output
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()
}
