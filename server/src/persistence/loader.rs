//! Puts a snapshot file's entries into a keyspace, on several threads.
//!
//! One thread splits the file into batches of entries, which takes a look at lengths only, and keeps the checksum; others
//! read the batches' values and put them in. Entries have no order among them, so none is kept.

use std::{
    io::Read,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::Duration,
};

use storage::{
    db::Db,
    entry::Meta,
    eviction,
    keyspace::{Key, Keyspace},
    rdb::{
        self, Limits,
        file::{Batch, BatchError, FileEntry, FileReader, Part, Record},
    },
    time::Timestamp,
    value::number,
};

use crate::{
    log,
    replication::Standing,
    server::{self, Server},
};

/// Batches that wait for each thread, at most.
const QUEUED: usize = 4;

/// Batches that are put in before threads are started for more.
const FEW: usize = 8;

/// Empty keys that a thread tells of.
const TOLD_EMPTY: u64 = 10;

/// Entries that are read before they are put in, some for each shard.
const AHEAD: usize = 2048;

/// What to do with a key that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// A file that has a key twice is broken.
    Refuse,
    Replace,
}

/// Where a file's data stands in the history of whose it is.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The history's name and how much of it the data has.
    pub id: Option<String>,
    pub offset: Option<u64>,
    /// The database that the stream is in.
    pub database: usize,
}

impl Origin {
    fn note(&mut self, key: &[u8], value: &[u8]) {
        match key {
            b"repl-id" => self.id = String::from_utf8(value.to_vec()).ok(),
            b"repl-offset" => self.offset = number::parse_u64(value),
            b"repl-stream-db" => {
                let number = number::parse_u64(value);
                self.database = number
                    .and_then(|number| usize::try_from(number).ok())
                    .unwrap_or(0);
            }
            _ => {}
        }
    }
}

impl Origin {
    /// Where the data stands in a history, if the file says so in full.
    pub fn standing(self, databases: usize) -> Option<Standing> {
        let id = self.id.filter(|id| {
            id.len() == HISTORY_NAME_LEN && id.bytes().all(|byte| byte.is_ascii_hexdigit())
        })?;
        Some(Standing {
            id,
            offset: self.offset?,
            database: self.database.min(databases - 1),
        })
    }
}

/// Hexadecimal digits of a history's name.
const HISTORY_NAME_LEN: usize = 40;

/// What came of loading.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) keys: u64,
    pub(super) expired: u64,
    pub(super) empty: u64,
    pub(super) origin: Origin,
    /// Keys that had expired, where somebody wants to know.
    pub(super) lost: Vec<(usize, Box<[u8]>)>,
    /// Sources of libraries of functions.
    pub(super) functions: Vec<Vec<u8>>,
}

/// What is needed to put entries in.
#[derive(Clone, Copy)]
pub(super) struct Loader<'s> {
    pub(super) server: &'s Server,
    /// The server's, or one that will take its place.
    pub(super) keyspace: &'s Keyspace,
    pub(super) existing: Existing,
    pub(super) now: Timestamp,
    /// Whether the keys that had expired are wanted.
    pub(super) notes_lost: bool,
}

impl Loader<'_> {
    /// What has a deadline up to here is left out: nothing on a replica, which keeps what its primary has not deleted
    /// yet.
    pub(super) fn expired_by(&self) -> Timestamp {
        match self.server.keyspace.deletes_expired() {
            true => self.now,
            false => Timestamp::MIN,
        }
    }

    /// Loads all records: into the view, which has all shards locked; without one, on several threads.
    ///
    /// # Errors
    /// What is wrong and where. Some of what stands before and behind that is loaded then.
    pub(super) fn load_into<R: Read>(
        &self,
        db: Option<&mut Db<'_>>,
        reader: &mut FileReader<R>,
    ) -> Result<Loaded, String> {
        let Some(db) = db else {
            return self.load(reader);
        };
        let selected = db.index();
        let loaded = self.load_here(db, reader);
        db.select(selected);
        loaded
    }

    /// Loads all records, on as many threads as there are workers unless the file is small.
    ///
    /// # Errors
    /// What is wrong and where. Some of what stands before and behind that is loaded then.
    pub(super) fn load<R: Read>(&self, reader: &mut FileReader<R>) -> Result<Loaded, String> {
        let threads = self.server.metrics.workers.len();
        // A delay is per key, of which there are several at a time otherwise.
        if threads == 1 || self.server.config.settings().key_load_delay != 0 {
            let mut db = Db::new(self.keyspace, 0, self.now);
            return self.load_here(&mut db, reader);
        }
        let (sender, receiver) = sync_channel(threads * QUEUED);
        let receiver = Mutex::new(receiver);
        let failure = Failure::default();
        let mut loaded = Loaded::default();
        thread::scope(|scope| {
            let work = || self.load_batches(&receiver, &failure);
            let mut workers = Vec::new();
            let mut few = 0..FEW;
            let mut db = Db::new(self.keyspace, 0, self.now);
            let split = self.split(
                &mut db,
                reader,
                &mut loaded,
                |db, database, batch, loaded| {
                    if few.next().is_some() {
                        return self.put_in(db, database, &batch, loaded);
                    }
                    if workers.is_empty() {
                        workers.extend((0..threads).map(|_| scope.spawn(work)));
                    }
                    // A thread that has ended left its reason.
                    let _ = sender.send((database, batch));
                    match failure.has_happened() {
                        true => Err(failure.reason()),
                        false => Ok(()),
                    }
                },
            );
            drop(sender);
            for worker in workers {
                match worker.join() {
                    Ok(part) => loaded.add(part),
                    Err(_) => failure.note(0, "internal error".into()),
                }
            }
            // The first thing that is wrong in the file is what is told.
            match failure.has_happened() {
                true => Err(failure.reason()),
                false => split,
            }
        })?;
        Ok(loaded)
    }

    /// Loads all records on this thread, into a view with all shards locked, or none.
    ///
    /// # Errors
    /// What is wrong and where. Whatever stands before that is loaded.
    fn load_here<R: Read>(
        &self,
        db: &mut Db<'_>,
        reader: &mut FileReader<R>,
    ) -> Result<Loaded, String> {
        let mut loaded = Loaded::default();
        self.split(db, reader, &mut loaded, |db, database, batch, loaded| {
            self.put_in(db, database, &batch, loaded)
        })?;
        Ok(loaded)
    }

    fn put_in(
        &self,
        db: &mut Db<'_>,
        database: usize,
        batch: &Batch,
        loaded: &mut Loaded,
    ) -> Result<(), String> {
        db.select(database);
        self.put_batch(db, batch, loaded)
            .map_err(|(_, reason)| reason)
    }

    /// Reads all of the file; hands over batches of entries with their database.
    fn split<R: Read>(
        &self,
        db: &mut Db<'_>,
        reader: &mut FileReader<R>,
        loaded: &mut Loaded,
        mut hand_over: impl FnMut(&mut Db<'_>, usize, Batch, &mut Loaded) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut database = 0;
        loop {
            let part = reader
                .next_part()
                .map_err(|error| explain(error, reader.position()))?;
            match part {
                Part::Batch(batch) => hand_over(db, database, batch, loaded)?,
                Part::Record(Record::End) => return Ok(()),
                Part::Record(Record::Database(number)) => database = self.database(number)?,
                Part::Record(Record::Note { key, value }) => {
                    self.tell(&key, &value);
                    loaded.origin.note(&key, &value);
                }
                Part::Record(Record::Function(source)) => loaded.functions.push(source),
                Part::Record(record) => {
                    db.select(database);
                    self.put_record(db, record, loaded)?;
                }
            }
            self.server.loading.note_position(reader.position());
        }
    }

    fn database(&self, number: u64) -> Result<usize, String> {
        let databases = self.keyspace.databases();
        let index = usize::try_from(number).ok();
        index
            .filter(|&index| index < databases)
            .ok_or_else(|| format!("it was made by a server with more than {databases} databases"))
    }

    /// Puts batches in until there are no more.
    fn load_batches(&self, batches: &Mutex<Receiver<(usize, Batch)>>, failure: &Failure) -> Loaded {
        let mut loaded = Loaded::default();
        let mut db = Db::new(self.keyspace, 0, self.now);
        loop {
            let next = match batches.lock() {
                Ok(batches) => batches.recv(),
                // Another thread panicked, which is noticed by who waits for it.
                Err(_) => return loaded,
            };
            let Ok((database, batch)) = next else {
                return loaded;
            };
            // Batches before the one that is wrong are read, to find whatever is wrong first; those behind it are not.
            if failure.is_before(batch.position()) {
                continue;
            }
            db.select(database);
            // A thread that ends early would leave nobody to take what is sent.
            let put = || self.put_batch(&mut db, &batch, &mut loaded);
            match catch_unwind(AssertUnwindSafe(put)) {
                Ok(Ok(())) => {}
                Ok(Err((position, reason))) => failure.note(position, reason),
                Err(_) => failure.note(batch.position(), "internal error".into()),
            }
        }
    }

    fn put_batch(
        &self,
        db: &mut Db<'_>,
        batch: &Batch,
        loaded: &mut Loaded,
    ) -> Result<(), (u64, String)> {
        let limits = Limits::from(&self.server.keyspace.settings);
        let mut waiting = Waiting::new(self.keyspace);
        let read = batch.read(limits, self.expired_by(), |record| {
            let Some(entry) = self.let_in(db, record, loaded) else {
                return Ok(());
            };
            waiting.add(self.keyspace, entry);
            if waiting.len < AHEAD {
                return Ok(());
            }
            self.put_waiting(db, &mut waiting, loaded)
        });
        if let Err(BatchError::Refused(reason)) = read {
            return Err((batch.position(), reason));
        }
        self.put_waiting(db, &mut waiting, loaded)
            .map_err(|reason| (batch.position(), reason))?;
        read.map_err(|error| match error {
            BatchError::Unsound { error, position } => (position, explain(error, position)),
            BatchError::Refused(reason) => (batch.position(), reason),
        })
    }

    fn put_waiting(
        &self,
        db: &mut Db<'_>,
        waiting: &mut Waiting,
        loaded: &mut Loaded,
    ) -> Result<(), String> {
        waiting.len = 0;
        let groups = waiting.shards.iter_mut();
        groups
            .filter(|group| !group.is_empty())
            .try_for_each(|group| self.put_group(db, group, loaded))
    }

    /// Puts in entries of one shard, under its lock, and empties the list.
    fn put_group(
        &self,
        db: &mut Db<'_>,
        group: &mut Vec<(u64, FileEntry)>,
        loaded: &mut Loaded,
    ) -> Result<(), String> {
        let held = db.is_locked();
        let before = loaded.keys;
        if let Some((hash, _)) = group.first()
            && !held
        {
            db.lock(*hash);
        }
        // All places come into the cache at the same time.
        group.iter().for_each(|(hash, _)| db.prefetch(*hash));
        let mut entries = group.drain(..);
        let outcome = entries.try_for_each(|(hash, entry)| {
            put(db, hash, entry, self.existing)?;
            loaded.keys += 1;
            Ok(())
        });
        if !held {
            db.unlock();
        }
        (before..loaded.keys).for_each(|number| delay_key(self.server, number + 1));
        outcome
    }

    fn put_record(
        &self,
        db: &mut Db<'_>,
        record: Record,
        loaded: &mut Loaded,
    ) -> Result<(), String> {
        let Some(entry) = self.let_in(db, record, loaded) else {
            return Ok(());
        };
        let mut group = vec![(storage::hash::hash(&entry.key), entry)];
        self.put_group(db, &mut group, loaded)
    }

    /// The entry to be put in, if the record is one; counts those that are left out.
    fn let_in(&self, db: &Db<'_>, record: Record, loaded: &mut Loaded) -> Option<FileEntry> {
        let entry = match record {
            Record::Entry(entry) => entry,
            Record::EmptyEntry { key } => {
                loaded.empty += 1;
                if loaded.empty <= TOLD_EMPTY {
                    let key = key.escape_ascii();
                    log::notice(format!("rdbLoadObject skipping empty key: {key}"));
                }
                return None;
            }
            _ => return None,
        };
        let expired_by = self.expired_by();
        let is_over = entry.deadline.is_some_and(|at| at <= expired_by);
        if is_over {
            loaded.expired += 1;
            if self.notes_lost {
                loaded.lost.push((db.index(), entry.key.into()));
            }
            return None;
        }
        Some(entry)
    }

    /// Logs what a file says of its origin.
    fn tell(&self, key: &[u8], value: &[u8]) {
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
                    self.server.loading.note_used_memory(bytes);
                    let megabytes = bytes as f64 / f64::from(1 << 20);
                    log::notice(format!("RDB memory usage when created {megabytes:.2} Mb"));
                }
            }
            _ => {}
        }
    }
}

impl Loaded {
    fn add(&mut self, part: Loaded) {
        self.lost.extend(part.lost);
        self.keys += part.keys;
        self.expired += part.expired;
        self.empty += part.empty;
    }
}

/// What is wrong with a file that several threads read: what stands first in it.
#[derive(Default)]
struct Failure {
    happened: AtomicBool,
    first: Mutex<Option<(u64, String)>>,
}

impl Failure {
    fn has_happened(&self) -> bool {
        self.happened.load(Ordering::Acquire)
    }

    /// Whether something is wrong before this place.
    fn is_before(&self, position: u64) -> bool {
        self.has_happened()
            && self.first.lock().map_or(true, |first| {
                first.as_ref().is_some_and(|(at, _)| *at < position)
            })
    }

    fn note(&self, position: u64, reason: String) {
        if let Ok(mut first) = self.first.lock()
            && first.as_ref().is_none_or(|(at, _)| position < *at)
        {
            *first = Some((position, reason));
        }
        self.happened.store(true, Ordering::Release);
    }

    fn reason(&self) -> String {
        let first = self.first.lock().ok().and_then(|first| first.clone());
        first.map_or_else(|| "internal error".into(), |(_, reason)| reason)
    }
}

/// Entries that were read and not put in yet, by shard: a lock is taken once for several, whose places come into the cache
/// together.
struct Waiting {
    /// With the keys' hashes.
    shards: Vec<Vec<(u64, FileEntry)>>,
    len: usize,
}

impl Waiting {
    fn new(keyspace: &Keyspace) -> Waiting {
        let shards = (0..keyspace.shard_count()).map(|_| Vec::new()).collect();
        Waiting { shards, len: 0 }
    }

    fn add(&mut self, keyspace: &Keyspace, entry: FileEntry) {
        let hash = storage::hash::hash(&entry.key);
        self.shards[keyspace.shard_of(hash)].push((hash, entry));
        self.len += 1;
    }
}

/// Puts in an entry whose shard is locked.
fn put(db: &mut Db<'_>, hash: u64, entry: FileEntry, existing: Existing) -> Result<(), String> {
    let key = Key {
        bytes: &entry.key,
        hash,
    };
    if let Some(item) = entry.item {
        db.keyspace().note_cas(item.cas);
    }
    let meta = Meta {
        deadline: entry.deadline,
        item: entry.item,
        access: 0,
    };
    match existing {
        Existing::Replace => db.put(key, entry.value, meta),
        Existing::Refuse => {
            if !db.add(key, entry.value, meta) {
                return Err(format!(
                    "RDB has duplicated key '{}' in DB {}",
                    entry.key.escape_ascii(),
                    db.index()
                ));
            }
        }
    }
    let (idle, frequency) = (entry.idle_seconds, entry.frequency);
    if let Some(access) = eviction::restored(db.keyspace(), idle, frequency, db.now())
        && let Some(entry) = db.peek(key)
    {
        entry.set_access(access);
    }
    Ok(())
}

/// Holds up loading after each key, or after one in so many: `key-load-delay`, for tests.
pub(super) fn delay_key(server: &Server, number: u64) {
    let delay = server.config.settings().key_load_delay;
    let microseconds = match delay {
        0 => return,
        1.. => u64::from(delay.unsigned_abs()),
        _ => u64::from(number.is_multiple_of(u64::from(delay.unsigned_abs()))),
    };
    if microseconds > 0 {
        thread::sleep(Duration::from_micros(microseconds));
    }
}

/// Says what is wrong in the words of other servers' logs.
pub(super) fn explain(error: rdb::Error, position: u64) -> String {
    match error {
        rdb::Error::Truncated => {
            format!("short read at byte {position}, the file ends too soon")
        }
        rdb::Error::Version(version) => format!("can't handle RDB format version {version}"),
        rdb::Error::Checksum => "wrong RDB checksum, RDB CRC error".into(),
        rdb::Error::Corrupt("file's head") => "wrong signature, it is no RDB file".into(),
        other => format!("{other} at byte {position}"),
    }
}
