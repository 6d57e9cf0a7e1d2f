//! Changing: entries are put, edited and taken. Everything passes through `live`, `put_with` or `flush`, which hand
//! pre-images to a running snapshot.

use std::ops::{Deref, DerefMut};

use super::{Db, Touch, locks::locked_shard};
use crate::changes::EventClass;
use crate::{
    Error,
    changes::{Listeners, Notice},
    entry::{Entry, EntryMut, EntryRef, Item, Meta},
    eviction::advice::Use,
    keyspace::{Garbage, Key, Keyspace, Locked},
    table::{Place, Table},
    time::Timestamp,
    value::{Collection, Text, Type, Value},
};

/// Keys of one command whose entries are brought towards the cache: as many as that surely holds.
const MAX_PREFETCHED: usize = 256;

impl Db<'_> {
    /// The key's entry, to change in place.
    pub fn entry_mut(&mut self, key: Key<'_>) -> Option<EntryMut<'_>> {
        let place = self.live(key)?;
        Some(self.table_mut(key.hash).entry_mut(place))
    }

    /// Opens a collection for change. Counts as a use.
    ///
    /// # Errors
    /// [`Error::WrongType`] if the value is of another type.
    pub fn write<T: Collection>(&mut self, key: Key<'_>) -> Result<Option<Write<'_, T>>, Error> {
        match self.live(key) {
            Some(place) => self.open(key, place).map(Some),
            None => Ok(None),
        }
    }

    /// Opens the collection at a place, which is the key's.
    fn open<T: Collection>(&mut self, key: Key<'_>, place: Place) -> Result<Write<'_, T>, Error> {
        let index = self.index;
        let entry = self.table(key.hash).entry(place);
        if self.touch == Touch::Yes {
            entry.set_access(self.used(entry.access(), key.hash));
        }
        self.sample(Use::Write, key.hash, Some(entry));
        if T::of(entry.value()).is_none() {
            return Err(Error::WrongType);
        }
        let number = self.keyspace.shard_of(key.hash);
        let Db {
            locked,
            emptied,
            keyspace,
            ..
        } = self;
        let table = &mut locked_shard(locked, number).tables[index];
        Ok(Write {
            had_field_deadline: T::TYPE == Type::Hash
                && table.entry(place).field_deadline().is_some(),
            table,
            place,
            emptied,
            id: (index, key.hash),
            keyspace,
            of: std::marker::PhantomData,
        })
    }

    /// Opens a collection for change, an empty one from `create` if the key does not exist.
    ///
    /// # Errors
    /// [`Error::WrongType`] if the value is of another type.
    pub fn write_or_create<T: Collection>(
        &mut self,
        key: Key<'_>,
        create: impl FnOnce() -> T,
    ) -> Result<Write<'_, T>, Error> {
        let place = match self.live(key) {
            Some(place) => place,
            None => {
                self.put(key, create().into_value(), Meta::default());
                let place = self.live(key);
                place.expect("it was put there above")
            }
        };
        self.open(key, place)
    }

    /// Sets the key to a value of any type, with no deadline but the one given; what was there is gone.
    pub fn put(&mut self, key: Key<'_>, value: Value, meta: Meta) {
        self.put_entry(key, Entry::new(key.bytes, value, meta));
    }

    /// Adds a key as a file has it, which nobody is to hear of. False, and nothing is added, if there is one already.
    pub fn add(&mut self, key: Key<'_>, value: Value, meta: Meta) -> bool {
        let index = self.index;
        let number = self.keyspace.shard_of(key.hash);
        let table = &mut locked_shard(&mut self.locked, number).tables[index];
        if table.find(key.hash, key.bytes).is_some() {
            return false;
        }
        let eviction = &self.keyspace.eviction;
        let access = self.tracker.fresh(eviction, key.hash, self.now);
        let entry = Entry::new(key.bytes, value, meta);
        entry.look().set_access(access);
        table.insert(key.hash, entry);
        true
    }

    /// Brings what is looked up next towards the cache, so that the memory accesses overlap: first every key's bucket,
    /// then every key's entry. The keys are locked.
    #[inline]
    pub fn prefetch_each(&self, hashes: &[u64]) {
        if hashes.len() < 2 || !self.keyspace.is_beyond_cache() {
            return;
        }
        let hashes = &hashes[..hashes.len().min(MAX_PREFETCHED)];
        for &hash in hashes {
            self.table(hash).prefetch(hash);
        }
        for &hash in hashes {
            self.table(hash).prefetch_entry(hash);
        }
    }

    /// Brings the place of a key that may be added towards the cache.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.table(hash).prefetch_place(hash);
    }

    /// Sets the key to a string of bytes, copied once.
    #[inline]
    pub fn put_bytes(&mut self, key: Key<'_>, bytes: &[u8], meta: Meta) {
        if meta.item.is_some() {
            self.note_item(key);
        }
        self.put_with(
            key,
            |table, place, access| table.overwrite(place, bytes, Meta { access, ..meta }),
            || Entry::string(key.bytes, bytes, meta),
        );
    }

    /// Sets the key to an integer.
    #[inline]
    pub fn put_integer(&mut self, key: Key<'_>, number: i64, meta: Meta) {
        self.put_entry(key, Entry::integer(key.bytes, number, meta));
    }

    /// Changes the number of a key that exists, keeping deadline and the rest.
    pub fn set_integer(&mut self, key: Key<'_>, number: i64) {
        let Some(place) = self.live(key) else { return };
        let access = self.used(self.table(key.hash).entry(place).access(), key.hash);
        let table = self.table_mut(key.hash);
        if table.entry_mut(place).set_integer(number) {
            table.entry(place).set_access(access);
            self.note_changed(key, place);
            return;
        }
        let meta = Meta {
            access,
            ..table.entry(place).meta()
        };
        let entry = Entry::integer(key.bytes, number, meta);
        drop(table.replace(place, entry));
        self.note_changed(key, place);
    }

    /// Sets the bytes of a key that exists or not, keeping its deadline and the rest.
    pub fn set_text(&mut self, key: Key<'_>, bytes: &[u8]) {
        let meta = self.live(key).map_or(Meta::default(), |place| {
            self.table(key.hash).entry(place).meta()
        });
        self.put_bytes(key, bytes, meta);
        if let Some(place) = self.live(key) {
            self.refresh_cas(key, place);
        }
    }

    /// Lets `edit` change a string in place, at least `min_len` bytes long: shorter ones, and a missing key, are
    /// extended with zeros. The key then reads as `raw`. Returns what `edit` returns.
    ///
    /// # Errors
    /// [`Error::WrongType`] if the value is of another type.
    pub fn edit_text<R>(
        &mut self,
        key: Key<'_>,
        min_len: usize,
        edit: impl FnOnce(&mut Vec<u8>) -> R,
    ) -> Result<R, Error> {
        let Some(place) = self.live(key) else {
            let mut bytes = vec![0; min_len];
            let result = edit(&mut bytes);
            self.put(key, Value::String(bytes), Meta::default());
            self.mark_raw(key);
            return Ok(result);
        };
        let access = self.used(self.table(key.hash).entry(place).access(), key.hash);
        let table = self.table_mut(key.hash);
        table.entry(place).set_access(access);
        if let Some(buffer) = table.entry_mut(place).into_shared() {
            let bytes = triomphe::Arc::make_mut(buffer);
            if bytes.len() < min_len {
                bytes.resize(min_len, 0);
            }
            let result = edit(bytes);
            self.note_changed(key, place);
            return Ok(result);
        }
        let entry = table.entry(place);
        let mut bytes = match Text::of(entry.value()).ok_or(Error::WrongType)? {
            Text::Int(number) => number.to_string().into_bytes(),
            Text::Bytes(bytes) => bytes.to_vec(),
            Text::Shared(_) => unreachable!("handled above"),
        };
        if bytes.len() < min_len {
            bytes.resize(min_len, 0);
        }
        let result = edit(&mut bytes);
        match table.entry_mut(place).inline_bytes() {
            Some(inline) if inline.len() == bytes.len() => inline.copy_from_slice(&bytes),
            _ => {
                let meta = table.entry(place).meta();
                drop(table.replace(place, Entry::from_vec(key.bytes, bytes, meta)));
            }
        }
        table.entry_mut(place).mark_raw();
        self.note_changed(key, place);
        Ok(result)
    }

    /// Makes clients see the encoding `raw`.
    pub fn mark_raw(&mut self, key: Key<'_>) {
        if let Some(mut entry) = self.entry_mut(key) {
            entry.mark_raw();
        }
    }

    /// Sets or takes away the deadline of a key that exists. False if it does not.
    pub fn set_deadline(&mut self, key: Key<'_>, deadline: Option<Timestamp>) -> bool {
        let Some(place) = self.live(key) else {
            return false;
        };
        self.table_mut(key.hash).set_deadline(place, deadline);
        true
    }

    /// Sets memcached's part of a key that exists.
    pub fn set_item(&mut self, key: Key<'_>, item: Option<Item>) {
        let Some(place) = self.live(key) else { return };
        if item.is_some() {
            self.note_item(key);
        }
        let table = self.table_mut(key.hash);
        if let Some(item) = item
            && table.entry_mut(place).set_item(item)
        {
            return;
        }
        if table.entry(place).item() != item {
            table.rebuild(place, |entry| {
                let meta = entry.look().meta();
                entry.with_meta(Meta { item, ..meta })
            });
        }
    }

    /// Deletes the key. False if it does not exist. Big values are freed elsewhere.
    pub fn delete(&mut self, key: Key<'_>) -> bool {
        match self.take(key) {
            Some(entry) => {
                self.drop_entry(entry);
                true
            }
            None => false,
        }
    }

    /// Takes the key's entry out.
    pub fn take(&mut self, key: Key<'_>) -> Option<Entry> {
        let place = self.live(key)?;
        self.sample(Use::Delete, key.hash, None);
        Some(self.table_mut(key.hash).remove(place))
    }

    /// Drops an entry, a big value on the freeing thread.
    pub fn drop_entry(&self, entry: Entry) {
        if !entry.is_plain() {
            self.keyspace.free(entry.into_value());
        }
    }

    /// Empties databases: `None` for all. All shards must be locked. Returns how many keys there were.
    pub fn flush(&mut self, database: Option<usize>) -> usize {
        if self.changes.listeners.contains(Listeners::TRACKING) {
            self.changes.notices.push(Notice::AllStale);
        }
        let Locked::All(shards) = &mut self.locked else {
            panic!("a flush declares all shards")
        };
        let shard_bits = self.keyspace.shard_bits();
        let mut keys = 0;
        let mut flushed = Vec::new();
        for shard in shards {
            for index in 0..shard.tables.len() {
                let table = &shard.tables[index];
                if database.is_none_or(|database| database == index) && !table.is_empty() {
                    keys += table.len();
                    flushed.extend(shard.replace_table(index, shard_bits));
                }
            }
        }
        if database.is_none() {
            // What was sampled is gone, and no longer what the server is used for.
            self.keyspace.eviction.advice.reset();
        }
        if !flushed.is_empty() {
            self.keyspace.free_elsewhere(Garbage::Tables(flushed));
        }
        keys
    }

    /// Swaps two databases. All shards must be locked.
    pub fn swap_databases(&mut self, one: usize, other: usize) {
        let Locked::All(shards) = &mut self.locked else {
            panic!("a swap declares all shards")
        };
        for shard in shards {
            shard.tables.swap(one, other);
            shard.sweep_at.swap(one, other);
            shard.compact_at.swap(one, other);
        }
    }

    /// Notes a use of a key outside the lookups that do so.
    pub fn note_use(&mut self, key: Key<'_>) {
        if let Some(place) = self.live(key) {
            let entry = self.table(key.hash).entry(place);
            entry.set_access(self.used(entry.access(), key.hash));
        }
    }

    /// Where the key is, after deleting it if it has expired.
    #[inline]
    fn live(&mut self, key: Key<'_>) -> Option<Place> {
        let (index, now) = (self.index, self.expired_by);
        let shard = self.shard_mut(key.hash);
        let place = shard.tables[index].find(key.hash, key.bytes)?;
        if shard.snapshot.is_some() {
            shard.keep_pre_image(index, place);
        }
        if !shard.tables[index].entry(place).is_expired(now) {
            return Some(place);
        }
        if self.keyspace.deletes_expired() {
            self.expire(key);
        }
        None
    }

    #[inline]
    fn put_entry(&mut self, key: Key<'_>, entry: Entry) {
        if entry.look().item().is_some() {
            self.note_item(key);
        }
        self.put_with(key, |_, _, _| false, || entry);
    }

    /// Sets the key to the entry that is built, unless `overwrite` could make the old one such, with these access bits.
    #[inline]
    fn put_with(
        &mut self,
        key: Key<'_>,
        overwrite: impl FnOnce(&mut Table, Place, u16) -> bool,
        build: impl FnOnce() -> Entry,
    ) {
        self.settle_met();
        let (index, now) = (self.index, self.now);
        let number = self.keyspace.shard_of(key.hash);
        let keyspace = self.keyspace;
        let eviction = &keyspace.eviction;
        let mut shard = locked_shard(&mut self.locked, number);
        let mut found = shard.tables[index].find(key.hash, key.bytes);
        if let Some(place) = found
            && shard.tables[index].entry(place).is_expired(self.expired_by)
            && keyspace.deletes_expired()
        {
            self.expire(key);
            shard = locked_shard(&mut self.locked, number);
            found = None;
        }
        let sampled = key.hash & self.sampled == 0;
        let sample = |entry: EntryRef<'_>| {
            if sampled {
                eviction.advice.note(Use::Write, key.hash, Some(entry));
            }
        };
        match found {
            Some(place) => {
                if shard.snapshot.is_some() {
                    shard.keep_pre_image(index, place);
                }
                let table = &mut shard.tables[index];
                let access = table.entry(place).access();
                let access = self.tracker.used(eviction, access, key.hash, now);
                if overwrite(table, place, access) {
                    sample(table.entry(place));
                    return;
                }
                let entry = build();
                sample(entry.look());
                entry.look().set_access(access);
                let old = table.replace(place, entry);
                self.drop_entry(old);
            }
            None => {
                let access = self.tracker.fresh(eviction, key.hash, now);
                let entry = build();
                sample(entry.look());
                entry.look().set_access(access);
                shard.tables[index].insert(key.hash, entry);
                self.notify(key, EventClass::New, "new");
            }
        }
    }

    /// A running snapshot gets the entry as it is before it changes.
    #[inline]
    pub(super) fn keep_pre_image(&mut self, hash: u64, place: Place) {
        let index = self.index;
        let shard = self.shard_mut(hash);
        if shard.snapshot.is_some() {
            shard.keep_pre_image(index, place);
        }
    }

    /// A string changed in its place.
    #[inline]
    fn note_changed(&mut self, key: Key<'_>, place: Place) {
        let entry = self.table(key.hash).entry(place);
        self.sample(Use::Write, key.hash, Some(entry));
        self.refresh_cas(key, place);
    }

    /// A write changes the CAS of an item that was asked for it.
    #[inline]
    fn refresh_cas(&mut self, key: Key<'_>, place: Place) {
        let keyspace = self.keyspace;
        let mut entry = self.table_mut(key.hash).entry_mut(place);
        if let Some(item) = entry.look().item() {
            entry.set_item(Item {
                cas: keyspace.next_cas(),
                ..item
            });
            self.note_item(key);
        }
    }
}

/// A collection open for change. Closing it deletes the key if nothing is left.
pub struct Write<'d, T: Collection> {
    table: &'d mut Table,
    place: Place,
    had_field_deadline: bool,
    emptied: &'d mut Option<(usize, u64)>,
    id: (usize, u64),
    keyspace: &'d Keyspace,
    of: std::marker::PhantomData<T>,
}

impl<T: Collection> Deref for Write<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        T::of(self.table.entry(self.place).value())
            .expect("the type was checked when the guard was opened")
    }
}

impl<T: Collection> DerefMut for Write<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        T::of_mut(self.table.entry_mut(self.place))
            .expect("the type was checked when the guard was opened")
    }
}

impl<T: Collection> Drop for Write<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if T::TYPE == Type::Hash {
            self.table
                .fields_changed(self.place, self.had_field_deadline);
        }
        if self.is_gone() {
            let entry = self.table.remove(self.place);
            let (_, hash) = self.id;
            let advice = &self.keyspace.eviction.advice;
            if hash & advice.mask() == 0 {
                advice.note(Use::Delete, hash, None);
            }
            self.keyspace.free(entry.into_value());
            *self.emptied = Some(self.id);
        }
    }
}
