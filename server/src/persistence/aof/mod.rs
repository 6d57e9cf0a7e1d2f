//! The append-only file: every change, as commands, in the order of execution.
//!
//! A worker appends its command's effects to a buffer under the locks of the shards it changed; one thread writes the
//! buffer to the current increment and forces it to disk. With `appendfsync always` a connection holds its replies
//! back until the fsync that covers them: everything that waits meanwhile shares the next one. The log is a base (an
//! RDB file, or commands) and increments, listed in a manifest.

mod base;
mod commands;
mod locked;
mod manifest;
mod replay;
mod rewrite;
mod writer;

use std::{
    cell::Cell,
    fs::File,
    num::NonZero,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
    task::Waker,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use storage::{changes::Readers, effects::Effects};

use self::manifest::Manifest;
use crate::{
    config::{AppendFsync, Settings},
    persistence::trouble::reason,
    propagation::each_piece,
    server,
    session::registry::Client,
};

pub use self::{
    replay::{load, load_again, prepare},
    rewrite::{cancel_rewrite, rewrite_when_grown, start_rewrite, turn_off, turn_on},
    writer::start,
};

/// Buffered bytes from which the writing thread is woken at once instead of at its next round.
const WAKE_BYTES: usize = 64 * 1024;
/// Buffered bytes beyond which commands that write wait for the disk.
const BACKLOG_LIMIT: usize = 64 << 20;

/// How often somebody looks whether the buffer has been written.
const DRAIN_STEP: Duration = Duration::from_millis(1);

thread_local! {
    /// Where this thread's last append ended.
    static APPENDED: Cell<u64> = const { Cell::new(0) };
}

/// The log's buffer, and how far it is on disk.
pub struct Aof {
    buffer: Mutex<Buffer>,
    /// There is something to write, or `always` wants it written now.
    more: Condvar,
    /// Whether every append wakes the writing thread.
    always: AtomicBool,
    /// Whether the stream says what time it is, each second.
    timestamps: AtomicBool,
    enabled: AtomicBool,
    buffered_bytes: AtomicUsize,
    /// Bytes of the stream that are on disk for certain.
    synced: AtomicU64,
    /// Bytes of the stream up to which what is not on disk never will be.
    lost: AtomicU64,
    /// How often an fsync failed that left a part of which nobody knows whether it is on disk, in a log that has not been
    /// made anew since.
    uncertain: AtomicU64,
    waiting: Mutex<Vec<(u64, Waker)>>,
    /// Microseconds that every write waits, for tests.
    write_delay: AtomicU64,
    files: Mutex<Files>,
    thread: Mutex<Option<JoinHandle<()>>>,
    pub status: Status,
}

#[derive(Default)]
struct Buffer {
    segments: Vec<Segment>,
    /// The database that the stream's last effect was in.
    database: Option<usize>,
    /// The second that was noted last.
    stamped: i64,
    /// Bytes of the stream up to the end of the buffer.
    end: u64,
    stopping: bool,
}

/// What became of a part of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// On disk, or nobody asked for that.
    Settled,
    Waiting,
    /// The disk failed to the end: nobody may be told that it is there.
    Lost,
}

/// Bytes for one file.
struct Segment {
    /// The file to go on in; `None` stays with the one before.
    file: Option<File>,
    bytes: Vec<u8>,
}

/// What is in the directory.
#[derive(Clone, Default)]
struct Files {
    manifest: Manifest,
    directory: PathBuf,
    prefix: String,
}

/// What INFO tells.
pub struct Status {
    pub rewriting: AtomicBool,
    /// The one that runs is to be given up.
    cancelled: AtomicBool,
    /// The one that runs makes a log where there was none: there is none until it is done.
    pub first_base: AtomicBool,
    pub rewrite_scheduled: AtomicBool,
    pub rewrite_started_ms: AtomicI64,
    pub last_rewrite_seconds: AtomicI64,
    pub last_rewrite_ok: AtomicBool,
    pub rewrites: AtomicU64,
    pub rewrite_failures: AtomicU64,
    pub last_write_ok: AtomicBool,
    /// How often an fsync took so long that a second one was due.
    pub delayed_fsyncs: AtomicU64,
    /// Bytes of base and increments, and of the same when the last rewrite ended.
    pub current_size: AtomicU64,
    pub base_size: AtomicU64,
    pub last_error: Mutex<String>,
}

impl Default for Aof {
    fn default() -> Aof {
        Aof {
            buffer: Mutex::default(),
            more: Condvar::new(),
            always: AtomicBool::new(false),
            timestamps: AtomicBool::new(false),
            enabled: AtomicBool::new(false),
            buffered_bytes: AtomicUsize::new(0),
            synced: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            uncertain: AtomicU64::new(0),
            waiting: Mutex::default(),
            write_delay: AtomicU64::new(0),
            files: Mutex::default(),
            thread: Mutex::default(),
            status: Status {
                rewriting: AtomicBool::new(false),
                cancelled: AtomicBool::new(false),
                first_base: AtomicBool::new(false),
                rewrite_scheduled: AtomicBool::new(false),
                rewrite_started_ms: AtomicI64::new(0),
                last_rewrite_seconds: AtomicI64::new(-1),
                last_rewrite_ok: AtomicBool::new(true),
                rewrites: AtomicU64::new(0),
                rewrite_failures: AtomicU64::new(0),
                last_write_ok: AtomicBool::new(true),
                delayed_fsyncs: AtomicU64::new(0),
                current_size: AtomicU64::new(0),
                base_size: AtomicU64::new(0),
                last_error: Mutex::default(),
            },
        }
    }
}

/// Takes away how far this thread's turn must wait for the disk, while others have theirs.
pub fn put_aside() -> u64 {
    APPENDED.take()
}

/// Goes on with what was put aside.
pub fn take_up(appended: u64) {
    APPENDED.set(appended);
}

impl Aof {
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Takes over what settings say.
    pub fn configure(&self, settings: &Settings) {
        let always = settings.appendfsync == AppendFsync::Always;
        if self.always.swap(always, Ordering::Relaxed) && !always {
            self.wake_all();
        }
        self.timestamps
            .store(settings.aof_timestamp_enabled, Ordering::Relaxed);
    }

    /// Whether the disk is so far behind that commands that write should wait.
    #[inline]
    pub fn is_behind(&self) -> bool {
        self.buffered_bytes.load(Ordering::Relaxed) > BACKLOG_LIMIT
    }

    /// Holds up every write from now on, for tests.
    pub fn delay_writes(&self, microseconds: u64) {
        self.write_delay.store(microseconds, Ordering::Relaxed);
    }

    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes.load(Ordering::Relaxed)
    }

    /// Makes this thread's turn wait for everything so far, also for what others appended.
    pub fn cover_all(&self) {
        if self.always.load(Ordering::Relaxed) && self.is_enabled() {
            APPENDED.set(self.buffer.lock().end);
        }
    }

    /// Up to where the stream must be on disk before replies of this thread's turn may leave. `None`: they may.
    #[inline]
    pub fn must_wait(&self) -> Option<NonZero<u64>> {
        let appended = APPENDED.get();
        let appended = NonZero::new(appended)?;
        APPENDED.set(0);
        (self.fate(appended.get()) != Fate::Settled).then_some(appended)
    }

    /// What became of the stream up to `end`; while it waits, `waker` is woken when that changes.
    pub fn settle(&self, end: u64, waker: &Waker) -> Fate {
        let fate = self.fate(end);
        if fate != Fate::Waiting {
            return fate;
        }
        let mut waiting = self.waiting.lock();
        // Again, now that whoever syncs next will look at the list.
        let fate = self.fate(end);
        if fate == Fate::Waiting {
            waiting.push((end, waker.clone()));
        }
        fate
    }

    /// Wakes the client once the stream is on disk up to `end`, or was by now.
    pub fn wake_when_synced(&self, end: u64, client: &Client) {
        let Some(waker) = client.waker() else {
            return;
        };
        let mut waiting = self.waiting.lock();
        if self.on_disk() >= end {
            waker.wake();
        } else if !waiting.iter().any(|(_, known)| known.will_wake(&waker)) {
            waiting.push((end, waker));
        }
    }

    fn fate(&self, end: u64) -> Fate {
        if self.synced.load(Ordering::Acquire) >= end || !self.always.load(Ordering::Relaxed) {
            Fate::Settled
        } else if self.lost.load(Ordering::Acquire) >= end {
            Fate::Lost
        } else {
            Fate::Waiting
        }
    }

    /// The stream's end.
    pub fn end(&self) -> u64 {
        self.buffer.lock().end
    }

    /// Waits until the files have all that was appended. False if the disk does not take it.
    pub fn drain(&self) -> bool {
        while self.is_enabled() && self.buffered_bytes() > 0 {
            if !self.status.last_write_ok.load(Ordering::Relaxed) {
                return false;
            }
            self.more.notify_one();
            thread::sleep(DRAIN_STEP);
        }
        true
    }

    /// Up to where the stream is on disk for certain.
    pub fn on_disk(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Everything up to `end` is on disk.
    fn note_synced(&self, end: u64) {
        self.synced.store(end, Ordering::Release);
        let mut waiting = self.waiting.lock();
        waiting.retain(|(wanted, waker)| {
            let served = *wanted <= end;
            if served {
                waker.wake_by_ref();
            }
            !served
        });
    }

    fn wake_all(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.iter().for_each(|(_, waker)| waker.wake_by_ref());
    }

    /// Goes on in another file from here. The caller holds all shards' locks, so that what precedes is complete.
    fn switch_to(&self, file: File) {
        let mut buffer = self.buffer.lock();
        buffer.database = None;
        buffer.segments.push(Segment {
            file: Some(file),
            bytes: Vec::new(),
        });
    }

    fn note_error(&self, error: &std::io::Error) {
        *self.status.last_error.lock() = reason(error);
        self.status.last_write_ok.store(false, Ordering::Relaxed);
    }
}

impl Aof {
    /// Adds what a command or transaction did.
    pub fn append(&self, effects: &Effects) {
        let mut buffer = self.buffer.lock();
        let Buffer {
            segments,
            database,
            stamped,
            ..
        } = &mut *buffer;
        if segments.is_empty() {
            segments.push(Segment {
                file: None,
                bytes: Vec::new(),
            });
        }
        let bytes = &mut segments.last_mut().expect("pushed above").bytes;
        let before = bytes.len();
        if self.timestamps.load(Ordering::Relaxed) {
            let seconds = server::now().seconds();
            if seconds > *stamped {
                *stamped = seconds;
                bytes.extend_from_slice(format!("#TS:{seconds}\r\n").as_bytes());
            }
        }
        each_piece(effects, database, Readers::FILE, |piece| {
            bytes.extend_from_slice(piece);
        });
        let added = bytes.len() - before;
        buffer.end += added as u64;
        APPENDED.set(buffer.end);
        let buffered = self.buffered_bytes.fetch_add(added, Ordering::Relaxed) + added;
        drop(buffer);
        if buffered >= WAKE_BYTES || self.always.load(Ordering::Relaxed) {
            self.more.notify_one();
        }
    }
}
