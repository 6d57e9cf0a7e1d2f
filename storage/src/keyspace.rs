//! All shards and how they are locked.
//!
//! A key's hash picks its shard by its top bits. Locks are taken in ascending order, each once, and by the
//! dispatcher or maintenance only, so that no two threads can wait for each other.
//!
//! Locks are short, but for those of a script that does not end. It marks its shards as held; then `try_lock` and its
//! like give up with [`Held`], also those that have been waiting, while `lock` and its like wait for the end. Threads
//! that serve clients use the former.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering},
        mpsc::Sender,
    },
    thread,
    time::Duration,
};

use crossbeam::utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::{
    Held,
    changes::{CommandLog, Listeners},
    eviction::Eviction,
    hash,
    removal::Removals,
    shard::Shard,
    value::{Settings, Value},
};

/// How soon those who wait for a lock notice that it is held for long.
pub(crate) const LOOK_PERIOD: Duration = Duration::from_millis(5);

/// A key with its hash, computed once.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    pub bytes: &'a [u8],
    pub hash: u64,
}

impl<'a> Key<'a> {
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Key<'a> {
        Key {
            bytes,
            hash: hash::hash(bytes),
        }
    }
}

/// What happened to keys since the start, for INFO.
#[derive(Debug, Default)]
pub struct Statistics {
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    pub expired: AtomicU64,
    /// Fields of hashes.
    pub expired_fields: AtomicU64,
    pub evicted: AtomicU64,
    pub freed: AtomicU64,
    /// Values on their way to the freeing thread.
    pub freeing: AtomicUsize,
    /// About how many bytes they hold.
    pub freeing_bytes: AtomicUsize,
    /// Changes to data since the last save.
    pub dirty: AtomicU64,
    /// How often all data was deleted by FLUSHALL.
    pub flushes: AtomicU64,
}

/// Every key of every database.
pub struct Keyspace {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    /// Whose lock is kept for long.
    held: Box<[AtomicBool]>,
    shard_bits: u32,
    databases: usize,
    listeners: AtomicU32,
    next_cas: AtomicU64,
    /// Whether expired keys are deleted when met; a replica only hides them and waits for its primary.
    delete_expired: AtomicBool,
    deletions_paused: AtomicBool,
    flush_at: AtomicI64,
    beyond_cache: AtomicBool,
    pub statistics: Statistics,
    pub settings: Settings,
    pub removals: Removals,
    pub eviction: Eviction,
    freer: Option<Mutex<Sender<Garbage>>>,
    log: OnceLock<Box<dyn CommandLog>>,
    pub(crate) snapshot_running: AtomicBool,
    pub(crate) snapshot_bytes: Arc<AtomicUsize>,
}

/// Something big that is dropped elsewhere.
pub enum Garbage {
    Value(Value),
    Tables(Vec<crate::table::Table>),
    /// Whatever holds clones of values, the last ones perhaps by now.
    Clones(Box<dyn std::any::Any + Send>),
}

impl Garbage {
    /// About how many bytes dropping it frees. O(1) per value or table.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Garbage::Value(value) => value.memory_bytes(),
            Garbage::Tables(tables) => tables.iter().map(crate::table::Table::memory_bytes).sum(),
            Garbage::Clones(_) => 0,
        }
    }
}

/// Some shards, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shards {
    These(SmallVec<[usize; 4]>),
    All,
}

impl Default for Shards {
    fn default() -> Shards {
        Shards::These(SmallVec::new())
    }
}

/// The shards that are locked, by number.
pub(crate) enum Locked<'a> {
    None,
    One(usize, MutexGuard<'a, Shard>),
    /// In ascending order.
    Many(Vec<(usize, MutexGuard<'a, Shard>)>),
    All(Vec<MutexGuard<'a, Shard>>),
}

impl Keyspace {
    /// A keyspace of at least `shards` shards (rounded up to a power of two) and `databases` databases. Big values
    /// and flushed tables go to `freer`, or are dropped on the spot without one.
    pub fn new(shards: usize, databases: usize, freer: Option<Sender<Garbage>>) -> Keyspace {
        let count = shards.max(1).next_power_of_two();
        let shard_bits = count.trailing_zeros();
        Keyspace {
            shards: (0..count)
                .map(|_| CachePadded::new(Mutex::new(Shard::new(databases, shard_bits))))
                .collect(),
            held: (0..count).map(|_| AtomicBool::new(false)).collect(),
            shard_bits,
            databases,
            listeners: AtomicU32::new(0),
            next_cas: AtomicU64::new(1),
            delete_expired: AtomicBool::new(true),
            deletions_paused: AtomicBool::new(false),
            flush_at: AtomicI64::new(0),
            beyond_cache: AtomicBool::new(false),
            statistics: Statistics::default(),
            settings: Settings::default(),
            removals: Removals::default(),
            eviction: Eviction::default(),
            freer: freer.map(Mutex::new),
            log: OnceLock::new(),
            snapshot_running: AtomicBool::new(false),
            snapshot_bytes: Arc::default(),
        }
    }

    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    pub fn databases(&self) -> usize {
        self.databases
    }

    pub(crate) fn shard_bits(&self) -> u32 {
        self.shard_bits
    }

    /// The shard that a hash falls in.
    #[inline]
    pub fn shard_of(&self, hash: u64) -> usize {
        // Two shifts, since a shift by 64 (one shard) would be one too far.
        (hash >> 1 >> (63 - self.shard_bits)) as usize
    }

    /// Locks one shard, for maintenance, however long that takes. The caller holds no other.
    #[inline]
    pub fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard].lock()
    }

    /// Locks one shard, for maintenance on threads that serve clients. The caller holds no other.
    ///
    /// # Errors
    /// The lock is held for long.
    #[inline(always)]
    pub fn try_lock(&self, shard: usize) -> Result<MutexGuard<'_, Shard>, Held> {
        match self.shards[shard].try_lock() {
            Some(guard) => Ok(guard),
            None => self.wait_for(shard),
        }
    }

    #[cold]
    fn wait_for(&self, shard: usize) -> Result<MutexGuard<'_, Shard>, Held> {
        loop {
            // Relaxed: whoever misses that a lock is held now looks again soon.
            if self.held[shard].load(Ordering::Relaxed) {
                return self.shards[shard].try_lock().ok_or(Held);
            }
            if let Some(guard) = self.shards[shard].try_lock_for(LOOK_PERIOD) {
                return Ok(guard);
            }
        }
    }

    /// Locks `shards`, which are in ascending order without repeats, or none of them.
    pub(crate) fn try_lock_many(
        &self,
        shards: &[usize],
    ) -> Result<Vec<(usize, MutexGuard<'_, Shard>)>, Held> {
        debug_assert!(shards.is_sorted_by(|a, b| a < b));
        shards
            .iter()
            .map(|&shard| Ok((shard, self.try_lock(shard)?)))
            .collect()
    }

    pub(crate) fn try_lock_all(&self) -> Result<Vec<MutexGuard<'_, Shard>>, Held> {
        (0..self.shard_count())
            .map(|shard| self.try_lock(shard))
            .collect()
    }

    /// Takes locks however long that takes, holding none of them while others are held for long.
    pub(crate) fn insist<T>(&self, mut lock: impl FnMut() -> Result<T, Held>) -> T {
        loop {
            match lock() {
                Ok(locked) => return locked,
                Err(Held) => thread::sleep(LOOK_PERIOD),
            }
        }
    }

    /// Whether any lock is held for long. O(shards).
    pub fn any_held(&self) -> bool {
        self.held.iter().any(|held| held.load(Ordering::Relaxed))
    }

    /// Says that the locks of `shards` are kept for long from now on, or no more. Who says so has them.
    pub fn set_held(&self, shards: &Shards, held: bool) {
        let mark = |mark: &AtomicBool| mark.store(held, Ordering::Relaxed);
        match shards {
            Shards::These(shards) => shards.iter().for_each(|&shard| mark(&self.held[shard])),
            Shards::All => self.held.iter().for_each(mark),
        }
    }

    /// Lets nobody read or change anything any more, for the process is about to end. Gives up, and changes nothing, if
    /// a shard stays locked for longer than `patience`.
    pub fn freeze(&self, patience: Duration) -> bool {
        let mut guards = Vec::with_capacity(self.shard_count());
        for shard in &self.shards {
            match shard.try_lock_for(patience) {
                Some(guard) => guards.push(guard),
                None => return false,
            }
        }
        std::mem::forget(guards);
        true
    }

    /// Whether there is more data than the processor's caches hold, so that prefetching pays.
    #[inline]
    pub fn is_beyond_cache(&self) -> bool {
        self.beyond_cache.load(Ordering::Relaxed)
    }

    /// Says how many bytes the process has allocated, now and then.
    pub fn note_memory(&self, bytes: usize) {
        self.beyond_cache
            .store(bytes > CACHE_BYTES, Ordering::Relaxed);
    }

    /// Brings the key's bucket towards the cache. Does nothing if the shard is busy.
    #[inline]
    fn prefetch(&self, database: usize, hash: u64) {
        if let Some(shard) = self.shards[self.shard_of(hash)].try_lock() {
            shard.tables[database].prefetch(hash);
        }
    }

    /// Brings the key's entry towards the cache; [`Keyspace::prefetch`] went before. Does nothing if the shard is busy.
    #[inline]
    fn prefetch_entry(&self, database: usize, hash: u64) {
        if let Some(shard) = self.shards[self.shard_of(hash)].try_lock() {
            shard.tables[database].prefetch_entry(hash);
        }
    }

    /// Overlaps the memory accesses of lookups to come: first every key's bucket, then every key's entry is brought towards
    /// the cache. Only where there is more data than that holds, and more than one key.
    #[inline]
    pub fn prefetch_each(&self, database: usize, hashes: impl Iterator<Item = u64> + Clone) {
        if !self.is_beyond_cache() || hashes.clone().nth(1).is_none() {
            return;
        }
        hashes
            .clone()
            .for_each(|hash| self.prefetch(database, hash));
        hashes.for_each(|hash| self.prefetch_entry(database, hash));
    }

    #[inline]
    pub fn listeners(&self) -> Listeners {
        // Relaxed: a listener that joins takes all locks before it relies on being told.
        Listeners::from_bits(self.listeners.load(Ordering::Relaxed))
    }

    pub fn add_listener(&self, listener: Listeners) {
        self.listeners.fetch_or(listener.bits(), Ordering::Relaxed);
    }

    /// Where effects go while [`Listeners::LOG`] is among the listeners. Set once, at the start.
    pub fn set_log(&self, log: Box<dyn CommandLog>) {
        assert!(self.log.set(log).is_ok(), "the log is set once");
    }

    pub(crate) fn log(&self) -> Option<&dyn CommandLog> {
        self.log.get().map(|log| &**log)
    }

    pub fn remove_listener(&self, listener: Listeners) {
        self.listeners
            .fetch_and(!listener.bits(), Ordering::Relaxed);
    }

    /// Bytes that wait to be written by the running snapshot, of entries that have changed since its cut.
    #[inline]
    pub fn snapshot_bytes(&self) -> usize {
        self.snapshot_bytes.load(Ordering::Relaxed)
    }

    /// No CAS value up to this one is given out any more: an item that was loaded has it.
    pub fn note_cas(&self, cas: u64) {
        self.next_cas
            .fetch_max(cas.saturating_add(1), Ordering::Relaxed);
    }

    /// A CAS value that no item has had.
    pub fn next_cas(&self) -> u64 {
        self.next_cas.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether what has expired is deleted: not by who follows another's changes, nor while all changes are held back.
    #[inline]
    pub fn deletes_expired(&self) -> bool {
        self.delete_expired.load(Ordering::Relaxed)
            && !self.deletions_paused.load(Ordering::Relaxed)
    }

    pub fn set_deletions_paused(&self, paused: bool) {
        self.deletions_paused.store(paused, Ordering::Relaxed);
    }

    pub fn set_deletes_expired(&self, deletes: bool) {
        self.delete_expired.store(deletes, Ordering::Relaxed);
    }

    /// When memcached's delayed `flush_all` is due, in milliseconds since the epoch; 0 for never.
    pub fn flush_at(&self) -> i64 {
        self.flush_at.load(Ordering::Relaxed)
    }

    pub fn set_flush_at(&self, at_ms: i64) {
        self.flush_at.store(at_ms, Ordering::Relaxed);
    }

    /// Drops a value here if that is quick, else on the freeing thread.
    pub fn free(&self, value: Value) {
        if value.free_effort() > FREE_HERE {
            self.free_elsewhere(Garbage::Value(value));
        }
    }

    /// Hands something big to the freeing thread.
    pub fn free_elsewhere(&self, garbage: Garbage) {
        if let Some(freer) = &self.freer {
            let bytes = garbage.memory_bytes();
            self.statistics.freeing.fetch_add(1, Ordering::Relaxed);
            self.statistics
                .freeing_bytes
                .fetch_add(bytes, Ordering::Relaxed);
            // A failed send returns the garbage, which is then dropped here: the thread is gone at shutdown only.
            if freer.lock().send(garbage).is_err() {
                self.statistics.freeing.fetch_sub(1, Ordering::Relaxed);
                self.statistics
                    .freeing_bytes
                    .fetch_sub(bytes, Ordering::Relaxed);
            }
        }
    }

    /// Puts the data of `other` in the place of all there is. No snapshot runs.
    pub(crate) fn take_over(&self, other: Keyspace) {
        assert_eq!(
            self.shard_count(),
            other.shard_count(),
            "they are made alike"
        );
        let mut old = Vec::new();
        {
            let mut shards = self.insist(|| self.try_lock_all());
            for (shard, theirs) in shards.iter_mut().zip(&other.shards) {
                let mut theirs = theirs.lock();
                for (table, new) in shard.tables.iter_mut().zip(theirs.tables.iter_mut()) {
                    let new = std::mem::replace(new, crate::table::Table::new(self.shard_bits));
                    old.push(std::mem::replace(table, new));
                }
                shard.watched.iter().for_each(|(_, _, marks)| {
                    marks.iter().for_each(|mark| mark.touch());
                });
            }
            self.note_cas(other.next_cas.load(Ordering::Relaxed));
            self.eviction.advice.reset();
        }
        self.free_elsewhere(Garbage::Tables(old));
    }

    /// Keys of one database, each shard counted at its own moment. O(shards).
    ///
    /// # Errors
    /// A lock is held for long.
    pub fn len(&self, database: usize) -> Result<usize, Held> {
        (0..self.shard_count())
            .map(|shard| Ok(self.try_lock(shard)?.tables[database].len()))
            .sum()
    }
}

/// What a core may find in its nearer caches.
const CACHE_BYTES: usize = 16 << 20;

/// Allocations that a worker may free on the spot; more go to the freeing thread.
const FREE_HERE: usize = 64;
