//! A snapshot file on its way to the disk, which several threads write at once.
//!
//! ```text
//! thread 1   entry entry ...  ─┐
//! thread 2   entry entry ...  ─┼─ portions ─> file: head | portions in any order | end
//! ```
//!
//! Entries have no order among them. A thread encodes entries until they are worth taking the file's lock for; an entry
//! larger than that takes it until it is written, so that nothing large is kept in memory.

use std::{
    fs::{self, File},
    io::{self, Seek, Write},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use storage::{
    entry::EntryRef,
    eviction,
    keyspace::Keyspace,
    rdb::file::{ChecksumCheck, EntryToWrite, FileDialect, FileWriter},
    snapshot::Size,
    time::Timestamp,
};

use super::snapshot::Purpose;
use crate::{
    config,
    replication::Standing,
    server::{self, Server},
};

/// Bytes after which a file is forced to disk while it is written, so that the last fsync is short.
const SYNC_STEP: u64 = 4 << 20;
/// Bytes of entries that are worth taking the file's lock for.
const PORTION_BYTES: usize = 128 * 1024;

/// What a file tells of an entry's last use: what the eviction policy needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Idle,
    Frequency,
    Untold,
}

impl Access {
    fn of(policy: &str) -> Access {
        if policy.ends_with("-lru") {
            Access::Idle
        } else if policy.ends_with("-lfu") && !policy.ends_with("-tinylfu") {
            Access::Frequency
        } else {
            Access::Untold
        }
    }
}

/// How entries are written.
#[derive(Clone, Copy)]
struct Manner {
    access: Access,
    now: Timestamp,
    compress: bool,
}

/// A file on its way to the disk.
pub(super) struct DataFile {
    writer: FileWriter<Syncing>,
    database: Option<usize>,
    manner: Manner,
    checksum: ChecksumCheck,
}

impl DataFile {
    pub(super) fn begin(
        server: &Server,
        output: File,
        purpose: Purpose,
        standing: Option<Standing>,
        sizes: &[Size],
    ) -> io::Result<DataFile> {
        let settings = server.config.settings();
        let sink = Syncing {
            file: output,
            in_steps: settings.rdb_save_incremental_fsync,
            unsynced: 0,
        };
        let mut writer = FileWriter::new(sink, FileDialect::Oldest, settings.rdbcompression)?;
        let now = server::now();
        let base = u8::from(purpose == Purpose::LogBase).to_string();
        let bits = usize::BITS.to_string();
        let notes: [(&str, &str); 5] = [
            ("valkey-ver", config::VALKEY_VERSION),
            ("redis-bits", &bits),
            ("ctime", &now.seconds().to_string()),
            ("used-mem", &storage::alloc::allocated_bytes().to_string()),
            ("aof-base", &base),
        ];
        for (key, value) in notes {
            writer.note(key.as_bytes(), value.as_bytes())?;
        }
        if let Some(standing) = standing {
            standing.note_in(&mut writer)?;
        }
        for library in server.scripting.functions.all() {
            writer.function(&library.code)?;
        }
        if purpose == Purpose::Snapshot {
            let total: usize = sizes.iter().map(|size| size.entries).sum();
            let counter = &server.snapshots.keys_total;
            counter.store(total as u64, Ordering::Relaxed);
        }
        let mut database = None;
        for (number, size) in sizes.iter().enumerate() {
            if size.entries > 0 {
                let (entries, deadlines) = (size.entries as u64, size.deadlines as u64);
                writer.database(number as u64, entries, deadlines)?;
                database = Some(number);
            }
        }
        Ok(DataFile {
            writer,
            database,
            manner: Manner {
                access: Access::of(settings.maxmemory_policy.name()),
                now,
                compress: settings.rdbcompression,
            },
            checksum: if settings.rdbchecksum {
                ChecksumCheck::On
            } else {
                ChecksumCheck::Off
            },
        })
    }

    pub(super) fn entry(
        &mut self,
        keyspace: &Keyspace,
        database: usize,
        entry: EntryRef<'_>,
    ) -> io::Result<()> {
        let Self {
            writer,
            database: current,
            manner,
            ..
        } = self;
        write_entry(writer, current, *manner, keyspace, database, entry)
    }

    /// Adds what another thread wrote, which says itself what database it is in.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.database = None;
        self.writer.append(bytes)
    }

    pub(super) fn finish(self) -> io::Result<()> {
        let head = self.writer.head();
        let mut file = self.writer.finish(self.checksum)?.file;
        file.rewind()?;
        file.write_all(head)?;
        file.sync_all()
    }
}

fn write_entry<W: Write>(
    writer: &mut FileWriter<W>,
    current: &mut Option<usize>,
    manner: Manner,
    keyspace: &Keyspace,
    database: usize,
    entry: EntryRef<'_>,
) -> io::Result<()> {
    if *current != Some(database) {
        *current = Some(database);
        writer.select(database as u64)?;
    }
    let (mut idle, mut frequency) = (None, None);
    match manner.access {
        Access::Idle => idle = eviction::idle_seconds(keyspace, entry.access(), manner.now),
        Access::Frequency => frequency = eviction::frequency(keyspace, entry, manner.now),
        Access::Untold => {}
    }
    writer.entry(EntryToWrite {
        key: entry.key(),
        value: entry.value(),
        deadline: entry.deadline(),
        idle_seconds: idle.map(u64::from),
        frequency,
        item: entry.item(),
    })
}

/// What one of several threads writes.
pub(super) struct Portion<'f> {
    writer: FileWriter<Share<'f>>,
    database: Option<usize>,
    manner: Manner,
    /// Bytes written up to the last time that the file was taken.
    begun: u64,
}

impl<'f> Portion<'f> {
    pub(super) fn of(file: &'f Mutex<DataFile>) -> Portion<'f> {
        let manner = file.lock().manner;
        let share = Share {
            file,
            held: None,
            waiting: Vec::new(),
        };
        Portion {
            writer: FileWriter::portion(share, FileDialect::Oldest, manner.compress),
            database: None,
            manner,
            begun: 0,
        }
    }

    pub(super) fn entry(
        &mut self,
        keyspace: &Keyspace,
        database: usize,
        entry: EntryRef<'_>,
    ) -> io::Result<()> {
        let Self {
            writer,
            database: current,
            manner,
            begun,
        } = self;
        write_entry(writer, current, *manner, keyspace, database, entry)?;
        if writer.position() - *begun >= PORTION_BYTES as u64 {
            self.hand_over()?;
        }
        Ok(())
    }

    /// Puts what was written into the file. Must be called at the end.
    pub(super) fn hand_over(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        let head = self.writer.head();
        let share = self.writer.sink();
        share.pass_on(&[])?.writer.raise_head(head);
        share.held = None;
        self.database = None;
        self.begun = self.writer.position();
        Ok(())
    }
}

/// Where a thread's entries wait until they are worth taking the file for.
struct Share<'f> {
    file: &'f Mutex<DataFile>,
    /// The file, while an entry is written that is longer than what may wait.
    held: Option<MutexGuard<'f, DataFile>>,
    waiting: Vec<u8>,
}

impl<'f> Share<'f> {
    /// Passes on what waits and these bytes; the file stays held.
    fn pass_on(&mut self, bytes: &[u8]) -> io::Result<&mut DataFile> {
        let file = self.held.get_or_insert_with(|| self.file.lock());
        file.append(&self.waiting)?;
        self.waiting.clear();
        file.append(bytes)?;
        Ok(file)
    }
}

impl Write for Share<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let may_wait = self.waiting.len() + bytes.len() <= 2 * PORTION_BYTES;
        if self.held.is_none() && may_wait {
            self.waiting.extend_from_slice(bytes);
        } else {
            self.pass_on(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has a thread rest that others want the processor from: it is to help where processors are free.
pub(super) struct Courtesy {
    entries: u32,
    since: Instant,
    delayed: Duration,
}

/// Entries between two looks at the clock: some milliseconds.
const COURTESY_PERIOD: u32 = 4096;
/// Which part of its time a thread may wait for a processor.
const PATIENT_SHARE: u32 = 10;
/// How much longer than it ran a thread rests that waited longer, and how long at most.
const REST_FACTOR: u32 = 10;
const LONGEST_REST: Duration = Duration::from_millis(200);

impl Courtesy {
    /// `None` if the system does not tell how long a thread waits for a processor.
    pub(super) fn begin() -> Option<Courtesy> {
        Some(Courtesy {
            entries: 0,
            since: Instant::now(),
            delayed: delay()?,
        })
    }

    /// To be called after every entry.
    pub(super) fn yield_if_due(&mut self) {
        self.entries += 1;
        if self.entries < COURTESY_PERIOD {
            return;
        }
        let ran = self.since.elapsed();
        let delayed = delay().unwrap_or(ran);
        if delayed.saturating_sub(self.delayed) * PATIENT_SHARE > ran {
            thread::sleep((ran * REST_FACTOR).min(LONGEST_REST));
        }
        *self = Courtesy {
            entries: 0,
            since: Instant::now(),
            delayed: delay().unwrap_or_default(),
        };
    }
}

/// How long this thread has waited for a processor so far, as Linux tells.
fn delay() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let mut numbers = text.split_ascii_whitespace().map(str::parse::<u64>);
    let ran = numbers.next()?.ok()?;
    let delayed = numbers.next()?.ok()?;
    // Zero for both is what a kernel says that does not count.
    (ran > 0).then(|| Duration::from_nanos(delayed))
}

/// A file that is forced to disk every now and then.
struct Syncing {
    file: File,
    in_steps: bool,
    unsynced: u64,
}

impl Write for Syncing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written as u64;
        if self.in_steps && self.unsynced >= SYNC_STEP {
            self.unsynced = 0;
            self.file.sync_data()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
