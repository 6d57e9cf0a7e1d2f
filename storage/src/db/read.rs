//! Reading: lookups that count as uses of a key, and those that leave no trace.

use super::{Db, Met, Touch};
use crate::{
    Error,
    changes::Listeners,
    entry::EntryRef,
    eviction::advice::Use,
    keyspace::Key,
    value::{Collection, Text},
};

impl Db<'_> {
    /// The key's entry, as a use of it: counts hit or miss and notes the access.
    #[inline]
    pub fn get(&self, key: Key<'_>) -> Option<EntryRef<'_>> {
        let found = self.get_to_change(key);
        self.count(key, found.is_some());
        let kind = if found.is_some() { Use::Hit } else { Use::Miss };
        self.sample(kind, key.hash, found);
        found
    }

    /// As [`Db::get`], for a command that changes the key: counts neither hit nor miss.
    #[inline(always)]
    pub fn get_to_change(&self, key: Key<'_>) -> Option<EntryRef<'_>> {
        let entry = self.peek(key)?;
        if self.touch == Touch::Yes {
            entry.set_access(self.used(entry.access(), key.hash));
        }
        Some(entry)
    }

    /// As [`Db::get`], but no use of it: counts hit or miss and leaves the eviction bits.
    pub fn inspect(&self, key: Key<'_>) -> Option<EntryRef<'_>> {
        let found = self.peek(key);
        self.count(key, found.is_some());
        found
    }

    /// As [`Db::inspect`], and a miss is no event.
    pub fn inspect_quietly(&self, key: Key<'_>) -> Option<EntryRef<'_>> {
        let found = self.peek(key);
        let counter = match found {
            Some(_) => &self.hits,
            None => &self.misses,
        };
        counter.set(counter.get() + 1);
        found
    }

    /// Counts a hit or a miss, and keeps the miss for those who want to know.
    #[inline(always)]
    fn count(&self, key: Key<'_>, hit: bool) {
        if hit {
            self.hits.set(self.hits.get() + 1);
            return;
        }
        self.misses.set(self.misses.get() + 1);
        if self.changes.listeners.contains(Listeners::EVENTS) {
            self.note_met(key, false);
        }
    }

    /// The key's entry without a trace in statistics or eviction bits.
    #[inline(always)]
    pub fn peek(&self, key: Key<'_>) -> Option<EntryRef<'_>> {
        let entry = self.table(key.hash).get(key.hash, key.bytes)?;
        if entry.is_expired(self.expired_by) {
            if self.keyspace.deletes_expired() {
                self.note_met(key, true);
            }
            return None;
        }
        Some(entry)
    }

    #[cold]
    fn note_met(&self, key: Key<'_>, expired: bool) {
        self.met.borrow_mut().push(Met {
            database: self.index,
            key: key.bytes.into(),
            expired,
        });
    }

    /// The key's value if it is a collection of type `T`, as a use of it.
    ///
    /// # Errors
    /// [`Error::WrongType`] if the value is of another type.
    pub fn read<T: Collection>(&self, key: Key<'_>) -> Result<Option<&T>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(entry) => T::of(entry.value()).map(Some).ok_or(Error::WrongType),
        }
    }

    /// As [`Db::read`], for a command that changes the key: counts neither hit nor miss.
    ///
    /// # Errors
    /// [`Error::WrongType`] if the value is of another type.
    pub fn read_to_change<T: Collection>(&self, key: Key<'_>) -> Result<Option<&T>, Error> {
        match self.get_to_change(key) {
            None => Ok(None),
            Some(entry) => T::of(entry.value()).map(Some).ok_or(Error::WrongType),
        }
    }

    /// The key's value if it is a string, as a use of it.
    ///
    /// # Errors
    /// [`Error::WrongType`] if the value is of another type.
    #[inline(always)]
    pub fn text(&self, key: Key<'_>) -> Result<Option<Text<'_>>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(entry) => Text::of_entry(entry).map(Some).ok_or(Error::WrongType),
        }
    }

    /// As [`Db::text`], for a command that changes the key: counts neither hit nor miss.
    ///
    /// # Errors
    /// [`Error::WrongType`] if the value is of another type.
    pub fn text_to_change(&self, key: Key<'_>) -> Result<Option<Text<'_>>, Error> {
        match self.get_to_change(key) {
            None => Ok(None),
            Some(entry) => Text::of_entry(entry).map(Some).ok_or(Error::WrongType),
        }
    }
}
