//! While data is loaded: what clients are told meanwhile, and how far it is.
//!
//! The server listens before it loads, so that whoever watches it sees it live. Commands answer an error until all data
//! is there, but for those that say nothing about data ([`crate::dispatch::command::Flag::Loading`]).

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use crate::server;

/// How far loading is.
#[derive(Default)]
pub struct Loading {
    /// Data is loaded into the keyspace that clients use.
    active: AtomicBool,
    /// Data is loaded beside it, from a primary.
    beside: AtomicBool,
    started_seconds: AtomicI64,
    total_bytes: AtomicU64,
    /// Bytes of the files that are done with.
    done_bytes: AtomicU64,
    /// Bytes of the file at hand that are done with.
    file_bytes: AtomicU64,
    /// What the file's writer used, as it noted.
    used_memory: AtomicU64,
}

/// Data is being loaded beside what serves.
pub struct Beside<'l>(&'l Loading);

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        self.0.beside.store(false, Ordering::Relaxed);
    }
}

/// A moment of loading, as INFO tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub started_seconds: i64,
    pub total_bytes: u64,
    pub loaded_bytes: u64,
    pub used_memory: u64,
    pub eta_seconds: i64,
}

impl Loading {
    /// Whether commands that need data must be refused.
    #[inline]
    pub fn is_active(&self) -> bool {
        // Acquire: whoever sees the end sees the data, which locks would show them anyway.
        self.active.load(Ordering::Acquire)
    }

    /// Whether a primary's data is being loaded while the old data serves.
    pub fn is_beside(&self) -> bool {
        self.beside.load(Ordering::Relaxed)
    }

    /// Begins; what there is to load is told later.
    pub fn begin(&self) {
        let now = server::now().seconds();
        self.started_seconds.store(now, Ordering::Relaxed);
        self.total_bytes.store(0, Ordering::Relaxed);
        self.done_bytes.store(0, Ordering::Relaxed);
        self.file_bytes.store(0, Ordering::Relaxed);
        self.used_memory.store(0, Ordering::Relaxed);
        self.active.store(true, Ordering::Release);
    }

    /// So many bytes are to be loaded.
    pub fn set_total(&self, bytes: u64) {
        self.total_bytes.store(bytes, Ordering::Relaxed);
    }

    pub fn end(&self) {
        self.active.store(false, Ordering::Release);
    }

    /// Begins loading beside the data, until what is returned is dropped.
    pub fn begin_beside(&self) -> Beside<'_> {
        self.beside.store(true, Ordering::Relaxed);
        Beside(self)
    }

    /// The file at hand is done with up to here.
    pub fn note_position(&self, bytes: u64) {
        self.file_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The file at hand, of so many bytes, is done with.
    pub fn note_file(&self, bytes: u64) {
        self.file_bytes.store(0, Ordering::Relaxed);
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn note_used_memory(&self, bytes: u64) {
        self.used_memory.store(bytes, Ordering::Relaxed);
    }

    /// How far it is, if data is loaded.
    pub fn progress(&self) -> Option<Progress> {
        if !self.is_active() {
            return None;
        }
        let started_seconds = self.started_seconds.load(Ordering::Relaxed);
        let loaded = self.done_bytes.load(Ordering::Relaxed);
        let loaded_bytes = loaded + self.file_bytes.load(Ordering::Relaxed);
        // A file that grows while it is read is no reason to show more than everything.
        let total_bytes = self.total_bytes.load(Ordering::Relaxed).max(loaded_bytes);
        let elapsed = (server::now().seconds() - started_seconds).max(0);
        Some(Progress {
            started_seconds,
            total_bytes,
            loaded_bytes,
            used_memory: self.used_memory.load(Ordering::Relaxed),
            eta_seconds: eta_seconds(elapsed, total_bytes, loaded_bytes),
        })
    }
}

impl Progress {
    pub fn percentage(&self) -> f64 {
        match self.total_bytes {
            0 => 0.0,
            total => self.loaded_bytes as f64 * 100.0 / total as f64,
        }
    }
}

/// Seconds that the rest takes at the speed so far; 1 as long as nothing is known.
fn eta_seconds(elapsed: i64, total_bytes: u64, loaded_bytes: u64) -> i64 {
    if elapsed == 0 || loaded_bytes == 0 {
        return 1;
    }
    let rest = total_bytes.saturating_sub(loaded_bytes);
    (elapsed as f64 * rest as f64 / loaded_bytes as f64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_estimated_from_what_was_loaded() {
        assert_eq!(eta_seconds(0, 100, 0), 1);
        assert_eq!(eta_seconds(5, 100, 0), 1);
        assert_eq!(eta_seconds(5, 100, 50), 5);
        assert_eq!(eta_seconds(5, 100, 100), 0);
    }

    #[test]
    fn files_add_up() {
        let loading = Loading::default();
        assert_eq!(loading.progress(), None);
        loading.begin();
        loading.set_total(100);
        loading.note_position(10);
        loading.note_file(40);
        loading.note_position(10);
        let progress = loading.progress().expect("it is loading");
        assert_eq!((progress.loaded_bytes, progress.total_bytes), (50, 100));
        loading.end();
        assert_eq!(loading.progress(), None);
    }
}
