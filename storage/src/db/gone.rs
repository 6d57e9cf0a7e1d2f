//! Keys that go without anybody's command: expired ones and evicted ones.

use std::sync::atomic::Ordering;

use super::{Db, Met, Touch};
use crate::{
    Held,
    changes::{Event, EventClass, Evicted, Listeners, Notice, Readers},
    entry::EntryRef,
    keyspace::Key,
    removal::Removal,
    table::{Place, Table},
    value::{Text, hash::Hash},
};

impl Db<'_> {
    /// Deletes the keys that were met expired, and tells of those that were missed, in the order that this happened.
    #[inline]
    pub fn settle_met(&mut self) {
        if !self.met.get_mut().is_empty() {
            self.settle_each_met();
        }
    }

    #[cold]
    fn settle_each_met(&mut self) {
        let selected = self.index;
        for Met {
            database,
            key,
            expired,
        } in std::mem::take(self.met.get_mut())
        {
            self.index = database;
            let known = Key::new(&key);
            if !expired {
                self.changes.notices.push(Notice::Event(Event {
                    class: EventClass::KeyMiss,
                    name: "keymiss",
                    database,
                    key,
                }));
            } else if self.holds(known.hash)
                && let Some(place) = self.table(known.hash).find(known.hash, known.bytes)
                && self
                    .table(known.hash)
                    .entry(place)
                    .is_expired(self.expired_by)
            {
                self.delete_expired(known, place);
            }
        }
        self.index = selected;
    }

    /// Deletes the key if its deadline has passed, after what was met before it, also where the keyspace only hides such
    /// keys.
    #[cold]
    pub fn expire(&mut self, key: Key<'_>) {
        self.settle_met();
        if let Some(place) = self.table(key.hash).find(key.hash, key.bytes)
            && self
                .table(key.hash)
                .entry(place)
                .is_expired(self.expired_by)
        {
            self.delete_expired(key, place);
        }
    }

    #[cold]
    fn delete_expired(&mut self, key: Key<'_>, place: Place) {
        let index = self.index;
        let shard = self.shard_mut(key.hash);
        if shard.snapshot.is_some() {
            shard.keep_pre_image(index, place);
        }
        let entry = shard.tables[index].remove(place);
        self.drop_entry(entry);
        self.keyspace
            .statistics
            .expired
            .fetch_add(1, Ordering::Relaxed);
        self.touch_key(key);
        self.notify(key, EventClass::Expired, "expired");
        self.log_removal(key, Removal::Expired);
    }

    /// Deletes those of these keys that have expired: of keys whose locks are not held, or, if any are, all are.
    ///
    /// # Errors
    /// A lock is held for long.
    pub fn expire_each(&mut self, keys: &[Box<[u8]>]) -> Result<(), Held> {
        if !self.keyspace.deletes_expired() {
            return Ok(());
        }
        for key in keys {
            let key = Key::new(key);
            if self.is_locked() {
                self.expire(key);
                continue;
            }
            let mut before = std::mem::take(&mut self.changes);
            let locked = self.try_lock(key.hash);
            if locked.is_ok() {
                self.expire(key);
                self.unlock();
                before.absorb(std::mem::take(&mut self.changes));
            }
            self.changes = before;
            locked?;
        }
        Ok(())
    }

    /// Removes up to `limit` expired fields of a hash, and says so: how many. No use of the key.
    pub fn expire_fields(&mut self, key: Key<'_>, limit: usize) -> usize {
        let (now, touch) = (self.expired_by, self.touch);
        let logged = self.changes.listeners.contains(Listeners::LOG);
        let mut gone: Vec<Box<[u8]>> = Vec::new();
        self.touch = Touch::No;
        let removed = match self.write::<Hash>(key) {
            Ok(Some(mut hash)) => hash.expire(now, limit, |field| {
                if logged {
                    gone.push(field.to_vec().into());
                }
            }),
            _ => 0,
        };
        self.touch = touch;
        if removed > 0 {
            let expired = &self.keyspace.statistics.expired_fields;
            expired.fetch_add(removed as u64, Ordering::Relaxed);
            if logged {
                let words: Vec<&[u8]> = [b"HDEL".as_slice(), key.bytes]
                    .into_iter()
                    .chain(gone.iter().map(|field| &**field))
                    .collect();
                let deletions = &mut self.changes.deletions;
                deletions.push(self.index, Readers::ALL, words.into_iter());
            }
            self.changed(key, EventClass::Hash, "hexpired");
        }
        removed
    }

    /// Evicts a key if `still` says so of its entry, locking its shard unless that is held for long. About how many keys
    /// are left per shard, if it is gone now; one that has expired goes as such.
    pub(crate) fn evict(
        &mut self,
        database: usize,
        key: Key<'_>,
        still: impl FnOnce(EntryRef<'_>) -> bool,
    ) -> Option<usize> {
        self.try_lock(key.hash).ok()?;
        let selected = self.select(database);
        let left = self.evict_locked(key, still);
        self.unlock();
        self.select(selected);
        left
    }

    fn evict_locked(
        &mut self,
        key: Key<'_>,
        still: impl FnOnce(EntryRef<'_>) -> bool,
    ) -> Option<usize> {
        let table = self.table(key.hash);
        let place = table.find(key.hash, key.bytes)?;
        let keys = self.shard(key.hash).tables.iter().map(Table::len).sum();
        if table.entry(place).is_expired(self.expired_by) {
            self.delete_expired(key, place);
            return Some(keys);
        }
        if !still(table.entry(place)) {
            return None;
        }
        self.note_evicted(key, place);
        self.keep_pre_image(key.hash, place);
        let entry = self.table_mut(key.hash).remove(place);
        self.drop_entry(entry);
        self.keyspace
            .statistics
            .evicted
            .fetch_add(1, Ordering::Relaxed);
        self.touch_key(key);
        self.notify(key, EventClass::Evicted, "evicted");
        self.log_removal(key, Removal::Evicted);
        Some(keys)
    }

    /// Collects what those who watch evictions are shown of a string.
    fn note_evicted(&mut self, key: Key<'_>, place: Place) {
        if !self.changes.listeners.contains(Listeners::EVICTIONS) {
            return;
        }
        let entry = self.table(key.hash).entry(place);
        let Some(text) = Text::of(entry.value()) else {
            return;
        };
        let evicted = Evicted {
            key: key.bytes.into(),
            deadline: entry.deadline(),
            fetched: entry.marks().fetched,
            access: entry.access(),
            len: text.as_bytes(&mut itoa::Buffer::new()).len(),
        };
        self.changes.evicted.push(evicted);
    }
}
