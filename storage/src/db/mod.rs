//! One database as a command sees it: the entries of the shards that are locked for it.
//!
//! Commands never see an expired key: a writer that meets one deletes it, a reader passes over it and leaves a note,
//! upon which [`Db::settle_met`] does so before the next change, or once the handler is done. An empty collection is never stored: a
//! [`change::Write`] guard deletes it when it closes.

mod change;
mod gone;
mod locks;
mod read;
mod tell;

use std::{
    cell::{Cell, RefCell},
    sync::atomic::Ordering,
};

use crate::{
    changes::{Changes, Readers},
    effects::Effects,
    entry::EntryRef,
    eviction::{Tracker, advice::Use},
    keyspace::{Keyspace, Locked},
    table::Table,
    time::Timestamp,
    value::Settings,
};

/// A lookup's effect on the eviction bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Touch {
    Yes,
    /// CLIENT NO-TOUCH, and commands that look without using.
    No,
}

/// A key that a look found to be gone.
struct Met {
    database: usize,
    key: Box<[u8]>,
    /// It is there, and to be deleted; otherwise it was missed by one that counts.
    expired: bool,
}

/// The view of one database at one time. Made once per batch of commands; locks are taken and released per command.
pub struct Db<'a> {
    keyspace: &'a Keyspace,
    locked: Locked<'a>,
    index: usize,
    now: Timestamp,
    /// Deadlines up to here have passed.
    expired_by: Timestamp,
    touch: Touch,
    tracker: Tracker,
    /// Hashes that are sampled for advice have none of these bits.
    sampled: u64,
    /// Bytes that commands may still use before the limit is looked at again.
    room: usize,
    out_of_memory: bool,
    /// What the running command did.
    pub changes: Changes,
    /// Effects of the commands run under the locks held now, for the command log.
    effects: Effects,
    /// Something was handed to the log since it was told so.
    has_logged: bool,
    /// Who is told of what commands do.
    readers: Readers,
    /// Counted here until [`Db::flush_statistics`].
    hits: Cell<u64>,
    misses: Cell<u64>,
    dirty: Cell<u64>,
    met: RefCell<Vec<Met>>,
    /// The client whose commands run; 0 for none.
    client: u64,
    /// A script runs them.
    scripted: bool,
    /// The key that the last closed guard deleted since it was empty: `changed` says so.
    emptied: Option<(usize, u64)>,
}

impl<'a> Db<'a> {
    /// A view with nothing locked.
    pub fn new(keyspace: &'a Keyspace, index: usize, now: Timestamp) -> Db<'a> {
        Db {
            keyspace,
            locked: Locked::None,
            index,
            now,
            expired_by: now,
            touch: Touch::Yes,
            tracker: keyspace.eviction.tracker(),
            sampled: keyspace.eviction.advice.mask(),
            room: 0,
            out_of_memory: false,
            changes: Changes {
                listeners: keyspace.listeners(),
                ..Changes::default()
            },
            effects: Effects::default(),
            has_logged: false,
            readers: Readers::ALL,
            hits: Cell::new(0),
            misses: Cell::new(0),
            dirty: Cell::new(0),
            met: RefCell::default(),
            client: 0,
            scripted: false,
            emptied: None,
        }
    }

    pub fn keyspace(&self) -> &'a Keyspace {
        self.keyspace
    }

    pub fn settings(&self) -> &'a Settings {
        &self.keyspace.settings
    }

    pub fn now(&self) -> Timestamp {
        self.now
    }

    pub fn set_now(&mut self, now: Timestamp) {
        if self.expired_by == self.now {
            self.expired_by = now;
        }
        self.now = now;
    }

    /// The instant by which an entry or a field has expired, or has not.
    pub fn expired_by(&self) -> Timestamp {
        self.expired_by
    }

    /// From now on nothing expires in this view: for commands that have been run elsewhere before, on what was there
    /// then.
    pub fn expire_nothing(&mut self) {
        self.expired_by = Timestamp::MIN;
    }

    /// From now on what has expired is gone again.
    pub fn expire_as_usual(&mut self) {
        self.expired_by = self.now;
    }

    /// Whether its commands have been run elsewhere before.
    pub fn repeats(&self) -> bool {
        self.expired_by == Timestamp::MIN
    }

    pub fn index(&self) -> usize {
        self.index
    }

    /// Looks at another database from now on; returns which it was. The index is the caller's to check.
    pub fn select(&mut self, index: usize) -> usize {
        debug_assert!(index < self.keyspace.databases());
        std::mem::replace(&mut self.index, index)
    }

    /// Whether a script runs the commands: what it sees should not be chance where order is.
    pub fn is_scripted(&self) -> bool {
        self.scripted
    }

    pub fn set_scripted(&mut self, scripted: bool) {
        self.scripted = scripted;
    }

    /// Whose commands run from now on. Returns whose did before.
    pub fn set_client(&mut self, client: u64) -> u64 {
        std::mem::replace(&mut self.client, client)
    }

    /// Who is told, in the command log, of what is done from now on.
    pub fn set_readers(&mut self, readers: Readers) {
        self.readers = readers;
    }

    pub fn set_touch(&mut self, touch: Touch) {
        self.touch = touch;
    }

    /// Takes so many bytes of those granted. False if they do not suffice.
    #[inline]
    pub fn spend_room(&mut self, bytes: usize) -> bool {
        let suffices = bytes <= self.room;
        if suffices {
            self.room -= bytes;
        }
        suffices
    }

    /// There is room for so many bytes: until they are spent nobody needs to look.
    pub fn grant_room(&mut self, bytes: usize) {
        self.room = bytes;
    }

    /// Whether there was no room in memory when the command began: those that a script runs go by that.
    pub fn is_out_of_memory(&self) -> bool {
        self.out_of_memory && self.keyspace.eviction.is_limited()
    }

    pub fn set_out_of_memory(&mut self, out: bool) {
        self.out_of_memory = out;
    }

    /// Takes back the hits and misses that are not in the statistics yet.
    pub fn forget_lookups(&self) {
        self.hits.set(0);
        self.misses.set(0);
    }

    /// Adds hits, misses and changes to the statistics. Once per batch.
    pub fn flush_statistics(&self) {
        let statistics = &self.keyspace.statistics;
        for (count, total) in [
            (&self.hits, &statistics.hits),
            (&self.misses, &statistics.misses),
            (&self.dirty, &statistics.dirty),
        ] {
            let count = count.replace(0);
            if count > 0 {
                total.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    #[inline]
    fn table(&self, hash: u64) -> &Table {
        &self.shard(hash).tables[self.index]
    }

    #[inline]
    fn table_mut(&mut self, hash: u64) -> &mut Table {
        let index = self.index;
        &mut self.shard_mut(hash).tables[index]
    }

    /// Tells the sampler of a use, if the key is one of its own.
    #[inline]
    fn sample(&self, how: Use, hash: u64, entry: Option<EntryRef<'_>>) {
        if hash & self.sampled == 0 {
            self.keyspace.eviction.advice.note(how, hash, entry);
        }
    }

    /// The access bits of a key that is used and had `bits`.
    #[inline]
    fn used(&self, bits: u16, hash: u64) -> u16 {
        self.tracker
            .used(&self.keyspace.eviction, bits, hash, self.now)
    }
}

/// The eviction bits of an entry used at `now`: seconds, modulo 2^16, for the recency policies.
#[inline]
pub fn access_clock(now: Timestamp) -> u16 {
    // Times before the epoch do not occur; dividing what has no sign is cheaper.
    (now.millis() as u64 / 1000) as u16
}

impl Drop for Db<'_> {
    fn drop(&mut self) {
        self.flush_statistics();
        if self.has_logged
            && let Some(log) = self.keyspace.log()
        {
            log.appended();
        }
    }
}
