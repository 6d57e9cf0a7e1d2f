//! Snapshot files: SAVE, BGSAVE, the save points, the last save before the end.
//!
//! The data is that of one instant, the cut of a [`storage::snapshot`]; clients go on meanwhile. A file is written beside
//! the old one, forced to disk and then renamed, so that at any moment there is a whole one.

use std::{
    cell::Cell,
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use storage::{
    db::Db,
    snapshot::{Ready, Size},
};

use super::data_file::{Courtesy, DataFile, Portion};
use crate::{
    config::Settings,
    log,
    persistence::trouble::reason,
    replication::Standing,
    server::{self, Server},
};

/// Threads beyond which writing the file is what takes the time.
const MAX_THREADS: usize = 8;
/// Which part of the memory in use the entries may take that have changed since the cut and wait to be written: so
/// that with what the allocator needs for them it is a tenth.
const BACKLOG_SHARE: usize = 12;
/// As much may wait in any case.
const MIN_BACKLOG: usize = 16 << 20;
/// How often somebody looks whether another snapshot has ended.
const PATIENCE: Duration = Duration::from_millis(5);
/// Seconds until the save points try again after a failure.
const RETRY_SECONDS: i64 = 5;

/// What INFO tells, and what those who save agree on.
pub struct Snapshots {
    /// A file is being written.
    saving: AtomicBool,
    /// In the background.
    pub in_background: AtomicBool,
    /// Bytes of changed entries that may wait for the file that is written.
    backlog_limit: AtomicUsize,
    /// Most that waited for the file that is written, for the last snapshot, and for the last base of a log.
    pub peak_bytes: AtomicUsize,
    pub snapshot_peak_bytes: AtomicUsize,
    pub base_peak_bytes: AtomicUsize,
    scheduled: AtomicBool,
    cancelled: AtomicBool,
    /// How many FLUSHALLs the save points know of.
    flushes: AtomicU64,
    pub started_ms: AtomicI64,
    /// Seconds since the epoch.
    pub last_save: AtomicI64,
    last_try: AtomicI64,
    last_ok: AtomicBool,
    /// How long the last one took; -1 before the first.
    pub last_seconds: AtomicI64,
    pub saves: AtomicU64,
    pub keys_total: AtomicU64,
    pub keys_written: AtomicU64,
    pub keys_loaded: AtomicU64,
    pub keys_expired: AtomicU64,
}

impl Default for Snapshots {
    fn default() -> Snapshots {
        Snapshots {
            saving: AtomicBool::new(false),
            in_background: AtomicBool::new(false),
            backlog_limit: AtomicUsize::new(usize::MAX),
            peak_bytes: AtomicUsize::new(0),
            snapshot_peak_bytes: AtomicUsize::new(0),
            base_peak_bytes: AtomicUsize::new(0),
            scheduled: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            flushes: AtomicU64::new(0),
            started_ms: AtomicI64::new(0),
            last_save: AtomicI64::new(server::now().seconds()),
            last_try: AtomicI64::new(0),
            last_ok: AtomicBool::new(true),
            last_seconds: AtomicI64::new(-1),
            saves: AtomicU64::new(0),
            keys_total: AtomicU64::new(0),
            keys_written: AtomicU64::new(0),
            keys_loaded: AtomicU64::new(0),
            keys_expired: AtomicU64::new(0),
        }
    }
}

impl Snapshots {
    /// Whether the last snapshot succeeded.
    #[inline]
    pub fn last_ok(&self) -> bool {
        self.last_ok.load(Ordering::Relaxed)
    }

    pub fn schedule(&self) {
        self.scheduled.store(true, Ordering::Relaxed);
    }

    /// Gives up the snapshot that runs in the background. False if none does.
    pub fn cancel(&self) -> bool {
        let runs = self.in_background.load(Ordering::Acquire);
        if runs {
            self.cancelled.store(true, Ordering::Relaxed);
        }
        runs
    }

    /// Takes back what was scheduled. False if nothing was.
    pub fn unschedule(&self) -> bool {
        self.scheduled.swap(false, Ordering::Relaxed)
    }

    /// The right to write the file; there is one at a time.
    fn begin(&self) -> bool {
        if self.saving.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.cancelled.store(false, Ordering::Relaxed);
        self.scheduled.store(false, Ordering::Relaxed);
        let now = server::now();
        self.started_ms.store(now.millis(), Ordering::Relaxed);
        self.last_try.store(now.seconds(), Ordering::Relaxed);
        self.keys_written.store(0, Ordering::Relaxed);
        true
    }

    fn end(&self) {
        self.saving.store(false, Ordering::Release);
    }
}

/// Whether so much has changed since a file's cut that commands that write should wait for the disk. Not for a replica
/// that is sent a copy: nobody waits for those.
#[inline]
pub fn is_behind(server: &Server) -> bool {
    server.keyspace.snapshot_bytes() > server.snapshots.backlog_limit.load(Ordering::Relaxed)
}

/// What a file is for, which it says in a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Snapshot,
    /// The base of an append-only file.
    LogBase,
}

/// Writes all data as of one instant to `path` and forces it to disk. `at_cut` runs at that instant, with every shard
/// locked; `progress` runs after each entry and may end it all. Threads that find a processor free help.
///
/// Waits for another snapshot that runs.
///
/// # Errors
/// The disk's, and `progress`'s.
pub fn write(
    server: &Server,
    path: &Path,
    purpose: Purpose,
    at_cut: impl FnOnce(),
    progress: impl Fn() -> io::Result<()> + Sync,
) -> io::Result<()> {
    let output = File::create(path)?;
    let ready = Ready::wait(&server.keyspace);
    let mut standing = None;
    // Between two commands of the primary's stream, where data and offset agree.
    let applying = server.replication.applying.lock();
    let snapshot = ready.cut(usize::MAX, || {
        standing = server.replication.standing();
        at_cut();
    });
    drop(applying);
    let standing = standing.filter(|_| purpose == Purpose::Snapshot);
    let file = DataFile::begin(server, output, purpose, standing, snapshot.sizes())?;
    let file = Mutex::new(file);
    walking(server, purpose, || {
        snapshot.walk_together(threads(server), |number, part| {
            let mut portion = Portion::of(&file);
            let mut courtesy = if number > 0 { Courtesy::begin() } else { None };
            part.walk(|database, entry| {
                portion.entry(&server.keyspace, database, entry)?;
                note_backlog(server);
                courtesy.iter_mut().for_each(Courtesy::yield_if_due);
                progress()
            })?;
            portion.hand_over()
        })
    })?;
    file.into_inner().finish()
}

/// Runs `walk`, which writes the data of a cut to a file, and bounds what changes meanwhile.
pub(super) fn walking<R>(server: &Server, purpose: Purpose, walk: impl FnOnce() -> R) -> R {
    let snapshots = &server.snapshots;
    let limit = (storage::alloc::allocated_bytes() / BACKLOG_SHARE).max(MIN_BACKLOG);
    snapshots.backlog_limit.store(limit, Ordering::Relaxed);
    snapshots.peak_bytes.store(0, Ordering::Relaxed);
    let walked = walk();
    snapshots.backlog_limit.store(usize::MAX, Ordering::Relaxed);
    let last_peak = match purpose {
        Purpose::Snapshot => &snapshots.snapshot_peak_bytes,
        Purpose::LogBase => &snapshots.base_peak_bytes,
    };
    last_peak.store(
        snapshots.peak_bytes.swap(0, Ordering::Relaxed),
        Ordering::Relaxed,
    );
    walked
}

/// Notes how much waits to be written, after each entry of a walk.
pub(super) fn note_backlog(server: &Server) {
    let waiting = server.keyspace.snapshot_bytes();
    let peak = &server.snapshots.peak_bytes;
    peak.fetch_max(waiting, Ordering::Relaxed);
}

/// To be called after each key: holds up writing for `rdb-key-save-delay`, which is for tests.
///
/// # Errors
/// It was given up.
pub(crate) fn go_on(server: &Server, is_given_up: impl Fn() -> bool) -> io::Result<()> {
    let delay = server.config.settings().rdb_key_save_delay;
    let until = Instant::now() + Duration::from_micros(u64::try_from(delay).unwrap_or(0));
    loop {
        if is_given_up() {
            return Err(io::Error::other("cancelled"));
        }
        let left = until.saturating_duration_since(Instant::now());
        if delay <= 0 || left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(PATIENCE));
    }
}

/// How many threads write a file.
fn threads(server: &Server) -> usize {
    let is_delayed = server.config.settings().rdb_key_save_delay != 0;
    let is_told = Courtesy::begin().is_some();
    match is_told && !is_delayed {
        true => server.metrics.workers.len().min(MAX_THREADS),
        false => 1,
    }
}

/// Writes all data while every shard is locked, so that nothing changes after it.
fn write_locked(
    server: &Server,
    db: &Db<'_>,
    standing: Option<Standing>,
    path: &Path,
) -> io::Result<()> {
    let output = File::create(path)?;
    let sizes = vec![Size::default(); server.keyspace.databases()];
    let mut file = DataFile::begin(server, output, Purpose::Snapshot, standing, &sizes)?;
    db.each_entry(|database, entry| file.entry(&server.keyspace, database, entry))?;
    file.finish()
}

/// Puts a whole file in the place of the one that was there.
///
/// # Errors
/// The file system's.
pub fn publish(beside: &Path, path: &Path) -> io::Result<()> {
    fs::rename(beside, path)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// The snapshot file, and where it is written first.
fn paths(settings: &Settings) -> (PathBuf, PathBuf) {
    // DEBUG RELOAD may write one while another is being written.
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let beside = format!("temp-{}-{number}.rdb", std::process::id());
    (
        settings.dir.join(&settings.dbfilename),
        settings.dir.join(beside),
    )
}

/// Writes the snapshot file by `work`, which is given the place beside it, and settles the outcome.
fn save_by(server: &Server, work: impl FnOnce(&Path) -> io::Result<u64>) -> io::Result<()> {
    let started = Instant::now();
    let (path, beside) = paths(&server.config.settings());
    // A value that cannot be written must not end saving for good.
    let outcome = catch_unwind(AssertUnwindSafe(|| work(&beside)));
    let result = outcome
        .unwrap_or_else(|_| Err(io::Error::other("internal error")))
        .and_then(|changes| publish(&beside, &path).map(|()| changes));
    let snapshots = &server.snapshots;
    match result {
        Ok(changes) => {
            let dirty = &server.keyspace.statistics.dirty;
            // Changes since the cut are not saved.
            let _ = dirty.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |dirty| {
                Some(dirty.saturating_sub(changes))
            });
            let seconds = started.elapsed().as_secs() as i64;
            snapshots.last_seconds.store(seconds, Ordering::Relaxed);
            let now = server::now().seconds();
            snapshots.last_save.store(now, Ordering::Relaxed);
            snapshots.last_ok.store(true, Ordering::Relaxed);
            snapshots.saves.fetch_add(1, Ordering::Relaxed);
            log::notice("DB saved on disk");
            Ok(())
        }
        Err(error) => {
            // Half a file that stays harms nobody.
            let _ = fs::remove_file(&beside);
            if !snapshots.cancelled.load(Ordering::Relaxed) {
                snapshots.last_ok.store(false, Ordering::Relaxed);
                log::warning(format!(
                    "Error saving DB to disk (in server root dir {}): {}",
                    path.parent().unwrap_or(Path::new(".")).display(),
                    reason(&error)
                ));
            }
            Err(error)
        }
    }
}

/// Writes the snapshot while clients go on. `at_cut` runs once the data is fixed.
fn save_while_serving(server: &Server, at_cut: impl FnOnce()) -> io::Result<()> {
    save_by(server, |beside| {
        let (changes, flushes) = (Cell::new(0), AtomicU64::new(0));
        let statistics = &server.keyspace.statistics;
        let snapshots = &server.snapshots;
        let at_cut = || {
            changes.set(statistics.dirty.load(Ordering::Relaxed));
            flushes.store(
                statistics.flushes.load(Ordering::Relaxed),
                Ordering::Relaxed,
            );
            at_cut();
        };
        let progress = || {
            snapshots.keys_written.fetch_add(1, Ordering::Relaxed);
            if statistics.flushes.load(Ordering::Relaxed) != flushes.load(Ordering::Relaxed) {
                // Nobody wants back what FLUSHALL has deleted.
                snapshots.cancelled.store(true, Ordering::Relaxed);
            }
            go_on(server, || snapshots.cancelled.load(Ordering::Relaxed))
        };
        write(server, beside, Purpose::Snapshot, at_cut, progress)?;
        Ok(changes.get())
    })
}

/// Saves and returns when it is done. `None` if a snapshot is being written.
pub fn save(server: &Server) -> Option<io::Result<()>> {
    let snapshots = &server.snapshots;
    if !snapshots.begin() {
        return None;
    }
    let result = save_while_serving(server, || ());
    snapshots.end();
    Some(result)
}

/// Saves on a thread of its own; the data is that of the moment of the call. False if a snapshot is being written.
pub fn save_in_background(server: &Arc<Server>) -> bool {
    if !server.snapshots.begin() {
        return false;
    }
    server
        .snapshots
        .in_background
        .store(true, Ordering::Release);
    let (cut, is_cut) = mpsc::channel();
    let working = server.clone();
    let work = move || {
        let result = save_while_serving(&working, || {
            // Whoever waits for the cut may be gone.
            let _ = cut.send(());
        });
        let snapshots = &working.snapshots;
        match result {
            Ok(()) => log::notice("Background saving terminated with success"),
            Err(_) if snapshots.cancelled.load(Ordering::Relaxed) => {
                log::warning("Background saving terminated by user request");
            }
            Err(_) => log::warning("Background saving error"),
        }
        snapshots.in_background.store(false, Ordering::Release);
        snapshots.end();
    };
    log::notice(format!(
        "Background saving started by pid {}",
        std::process::id()
    ));
    if let Err(error) = thread::Builder::new().name("snapshot".into()).spawn(work) {
        log::warning(format!("Can't save in background: {error}"));
        server.snapshots.last_ok.store(false, Ordering::Relaxed);
        server
            .snapshots
            .in_background
            .store(false, Ordering::Release);
        server.snapshots.end();
        return true;
    }
    // An error instead says that the file could not even be opened, which is told by the log.
    let _ = is_cut.recv();
    true
}

/// Starts what was scheduled, or what a save point asks for.
pub fn save_when_due(server: &Arc<Server>) {
    let snapshots = &server.snapshots;
    let flushes = server.keyspace.statistics.flushes.load(Ordering::Relaxed);
    let flushed = snapshots.flushes.swap(flushes, Ordering::Relaxed) != flushes;
    if flushed && !server.config.settings().save.is_empty() {
        // The file must not bring back what was deleted on purpose.
        snapshots.schedule();
    }
    let rewriting = server.aof.status.rewriting.load(Ordering::Relaxed);
    if snapshots.saving.load(Ordering::Relaxed) || rewriting {
        return;
    }
    if snapshots.scheduled.load(Ordering::Relaxed) {
        save_in_background(server);
        return;
    }
    let now = server::now().seconds();
    let dirty = server.keyspace.statistics.dirty.load(Ordering::Relaxed);
    let since = now - snapshots.last_save.load(Ordering::Relaxed);
    let rested = now - snapshots.last_try.load(Ordering::Relaxed) > RETRY_SECONDS;
    let may_try = rested || snapshots.last_ok.load(Ordering::Relaxed);
    let settings = server.config.settings();
    let due = settings.save.iter().find(|point| {
        dirty >= point.changes && i64::try_from(point.seconds).is_ok_and(|limit| since > limit)
    });
    if let Some(point) = due.filter(|_| may_try) {
        log::notice(format!(
            "{} changes in {} seconds. Saving...",
            point.changes, point.seconds
        ));
        save_in_background(server);
    }
}

/// Saves for the last time, and lets nobody change anything after that, for the process is about to end.
///
/// # Errors
/// The disk's; then everything goes on.
pub fn save_finally(server: &Server) -> io::Result<()> {
    server.snapshots.cancel();
    while !server.snapshots.begin() {
        thread::sleep(PATIENCE);
    }
    // What a replica applies must not end between a command and its offset.
    let applying = server.replication.applying.lock();
    let mut db = Db::new(&server.keyspace, 0, server::now());
    db.lock_all();
    // Whoever goes on from the file's offset must not have been sent more.
    server.replication.end_stream(true);
    let standing = server.replication.standing();
    let result = save_by(server, |beside| {
        write_locked(server, &db, standing, beside)?;
        Ok(u64::MAX)
    });
    if result.is_ok() {
        // What is acknowledged is saved: so nothing is acknowledged any more.
        std::mem::forget((db, applying));
    } else {
        server.replication.end_stream(false);
        db.unlock();
        server.snapshots.end();
    }
    result
}

/// Writes the snapshot file under all locks, which the caller holds. Nobody can go on from it, since a stream that is
/// being applied may be within a command.
///
/// # Errors
/// The disk's.
pub fn save_locked(server: &Server, db: &Db<'_>) -> io::Result<()> {
    save_by(server, |beside| {
        write_locked(server, db, None, beside)?;
        Ok(u64::MAX)
    })
}
