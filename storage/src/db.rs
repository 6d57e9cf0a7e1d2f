//! One database as a command sees it: the entries of the shards that are locked for it.
//!
//! Commands never see an expired key: a writer that meets one deletes it, a reader passes over it and leaves a note,
//! upon which [`Db::settle_met`] does so before the next change, or once the handler is done. An empty collection is never stored: a
//! [`Write`] guard deletes it when it closes. Every change passes through `live`, `put_entry` or `flush`, which hand
//! pre-images to a running snapshot.

use std::{
    cell::{Cell, RefCell},
    ops::{Deref, DerefMut},
    sync::atomic::Ordering,
};

use crate::{
    Error, Held,
    changes::{ChangedKey, Changes, Effect, Event, EventClass, Evicted, Listeners, Notice},
    entry::{Entry, EntryMut, EntryRef, Item, Meta},
    eviction::{Tracker, advice::Use},
    item_note,
    keyspace::{Garbage, Key, Keyspace, Locked, Shards},
    shard::Shard,
    table::{Place, Table},
    time::Timestamp,
    value::{Collection, Settings, Text, Type, Value, hash::Hash},
};

/// Entries between two looks at the outcome of a walk.
const WALK_BUDGET: usize = 1000;

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
    effects: Vec<(usize, Effect)>,
    /// Counted here until [`Db::flush_statistics`].
    hits: Cell<u64>,
    misses: Cell<u64>,
    dirty: Cell<u64>,
    met: RefCell<Vec<Met>>,
    /// The client whose commands run; 0 for none.
    client: u64,
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
            effects: Vec::new(),
            hits: Cell::new(0),
            misses: Cell::new(0),
            dirty: Cell::new(0),
            met: RefCell::default(),
            client: 0,
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

    /// Whose commands run from now on. Returns whose did before.
    pub fn set_client(&mut self, client: u64) -> u64 {
        std::mem::replace(&mut self.client, client)
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

    // Locking, for the dispatcher and, where it does not matter how long that takes, for others.

    /// Locks the shard of one hash.
    ///
    /// # Errors
    /// The lock is held for long. So with the other two.
    #[inline]
    pub fn try_lock(&mut self, hash: u64) -> Result<(), Held> {
        debug_assert!(matches!(self.locked, Locked::None));
        let shard = self.keyspace.shard_of(hash);
        self.locked = Locked::One(shard, self.keyspace.try_lock(shard)?);
        self.begin();
        Ok(())
    }

    /// Locks the shards of all these hashes.
    pub fn try_lock_each(&mut self, hashes: impl Iterator<Item = u64>) -> Result<(), Held> {
        debug_assert!(matches!(self.locked, Locked::None));
        let mut shards: Vec<usize> = hashes.map(|hash| self.keyspace.shard_of(hash)).collect();
        shards.sort_unstable();
        shards.dedup();
        self.locked = Locked::Many(self.keyspace.try_lock_many(&shards)?);
        self.begin();
        Ok(())
    }

    /// Locks every shard.
    pub fn try_lock_all(&mut self) -> Result<(), Held> {
        debug_assert!(matches!(self.locked, Locked::None));
        self.locked = Locked::All(self.keyspace.try_lock_all()?);
        self.begin();
        Ok(())
    }

    /// Locks the shard of one hash, however long that takes.
    pub fn lock(&mut self, hash: u64) {
        let keyspace = self.keyspace;
        keyspace.insist(|| self.try_lock(hash));
    }

    /// Locks every shard, however long that takes.
    pub fn lock_all(&mut self) {
        let keyspace = self.keyspace;
        keyspace.insist(|| self.try_lock_all());
    }

    /// The shards that are locked.
    pub fn locked_shards(&self) -> Shards {
        match &self.locked {
            Locked::None => Shards::default(),
            Locked::One(shard, _) => Shards::These([*shard].into_iter().collect()),
            Locked::Many(shards) => Shards::These(shards.iter().map(|(shard, _)| *shard).collect()),
            Locked::All(_) => Shards::All,
        }
    }

    /// Keeps a command's effects for the log; `verbatim` is the command as it was sent. Called after each command,
    /// under its locks.
    #[inline]
    pub fn collect_effects(&mut self, verbatim: impl FnOnce() -> Option<Effect>) {
        if self.changes.listeners.contains(Listeners::LOG) {
            self.changes
                .take_effects(self.index, verbatim, &mut self.effects);
            if !self.changes.items.is_empty() {
                self.collect_items();
            }
        }
    }

    /// Tells the log of the flags and CAS that items have now.
    #[cold]
    fn collect_items(&mut self) {
        for ChangedKey { database, key } in std::mem::take(&mut self.changes.items) {
            let hash = Key::new(&key).hash;
            let entry = self.shard(hash).tables[database].get(hash, &key);
            if let Some(item) = entry.and_then(|entry| entry.item()) {
                self.effects.push((database, item_note::effect(item, &key)));
            }
        }
    }

    /// The log wants to know the item's flags and CAS, as they are when the command is done.
    fn note_item(&mut self, key: Key<'_>) {
        if !self.changes.listeners.contains(Listeners::LOG) {
            return;
        }
        let changed = ChangedKey {
            database: self.index,
            key: key.bytes.into(),
        };
        if self.changes.items.last() != Some(&changed) {
            self.changes.items.push(changed);
        }
    }

    /// Releases all locks, after handing the log what was done under them. What the last command did stays in
    /// `changes` until the next lock.
    #[inline]
    pub fn unlock(&mut self) {
        self.collect_effects(|| None);
        if !self.effects.is_empty() {
            if let Some(log) = self.keyspace.log() {
                log.append(&self.effects);
            }
            self.effects.clear();
        }
        match std::mem::replace(&mut self.locked, Locked::None) {
            // Apart, since it is what nearly all commands hold.
            Locked::One(_, shard) => drop(shard),
            others => drop(others),
        }
    }

    /// Ready for the next command of a transaction, under the same locks.
    #[inline]
    pub fn begin(&mut self) {
        self.changes.listeners = self.keyspace.listeners();
        self.changes.reset();
        if !self.met.get_mut().is_empty() {
            self.met.get_mut().clear();
        }
    }

    /// As [`Db::begin`], for a command that nobody is to hear of, the log included.
    pub fn begin_unheard(&mut self) {
        self.begin();
        self.changes.listeners = Listeners::NONE;
    }

    pub fn is_locked(&self) -> bool {
        !matches!(self.locked, Locked::None)
    }

    /// Whether the shard of a hash is among those locked.
    pub fn holds(&self, hash: u64) -> bool {
        let shard = self.keyspace.shard_of(hash);
        match &self.locked {
            Locked::None => false,
            Locked::One(number, _) => *number == shard,
            Locked::Many(shards) => shards
                .binary_search_by_key(&shard, |(number, _)| *number)
                .is_ok(),
            Locked::All(_) => true,
        }
    }

    /// Counts the last command's changes to data.
    #[inline]
    pub fn count_changes(&mut self) {
        *self.dirty.get_mut() += std::mem::take(&mut self.changes.dirty);
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

    /// The locked shard of a hash.
    #[inline]
    pub fn shard(&self, hash: u64) -> &Shard {
        let number = self.keyspace.shard_of(hash);
        match &self.locked {
            Locked::One(locked, shard) => {
                assert!(
                    *locked == number,
                    "a command touched a key that it did not declare"
                );
                shard
            }
            Locked::Many(shards) => {
                let at = shards.binary_search_by_key(&number, |(number, _)| *number);
                &shards[at.expect("a command touches only keys it declared")].1
            }
            Locked::All(shards) => &shards[number],
            Locked::None => panic!("a command touched a key without declaring any"),
        }
    }

    /// The locked shard of a hash, to change.
    #[inline]
    pub fn shard_mut(&mut self, hash: u64) -> &mut Shard {
        let number = self.keyspace.shard_of(hash);
        locked_shard(&mut self.locked, number)
    }

    /// Runs `work` on one shard after another: on those locked, or when none is, locking one at a time. `None` from
    /// `work` goes on; the first `Some` ends the walk.
    ///
    /// # Errors
    /// None is locked, and the walk came to a lock that is held for long.
    pub fn each_shard<R>(
        &mut self,
        from: usize,
        mut work: impl FnMut(usize, &mut Shard) -> Option<R>,
    ) -> Result<Option<R>, Held> {
        for number in from..self.keyspace.shard_count() {
            let result = match &mut self.locked {
                Locked::All(shards) => work(number, &mut shards[number]),
                Locked::None => work(number, &mut *self.keyspace.try_lock(number)?),
                Locked::One(..) | Locked::Many(_) => panic!("walks declare all shards or none"),
            };
            if result.is_some() {
                return Ok(result);
            }
        }
        Ok(None)
    }

    /// Shows `visit` every entry of every database, expired ones too. All shards must be locked.
    ///
    /// # Errors
    /// The first that `visit` makes.
    pub fn each_entry<E>(
        &self,
        mut visit: impl FnMut(usize, EntryRef<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Locked::All(shards) = &self.locked else {
            panic!("a walk over all entries declares all shards")
        };
        for database in 0..self.keyspace.databases() {
            for shard in shards {
                let table = &shard.tables[database];
                let mut outcome = Ok(());
                let mut cursor = 0;
                loop {
                    cursor = table.traverse(cursor, WALK_BUDGET, |_, entry| {
                        if outcome.is_ok() {
                            outcome = visit(database, entry);
                        }
                    });
                    if cursor == 0 || outcome.is_err() {
                        break;
                    }
                }
                outcome?;
            }
        }
        Ok(())
    }

    // Reading.

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
    #[inline]
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

    /// Counts a hit or a miss, and keeps the miss for those who want to know.
    #[inline]
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
    #[inline]
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

    /// As [`Db::text`], for a command that changes the key: counts neither hit nor miss.
    ///
    /// # Errors
    /// [`Error::WrongType`] if the value is of another type.
    pub fn text_to_change(&self, key: Key<'_>) -> Result<Option<Text<'_>>, Error> {
        match self.get_to_change(key) {
            None => Ok(None),
            Some(entry) => Text::of(entry.value()).map(Some).ok_or(Error::WrongType),
        }
    }

    /// The key's value if it is a string, as a use of it.
    ///
    /// # Errors
    /// [`Error::WrongType`] if the value is of another type.
    #[inline]
    pub fn text(&self, key: Key<'_>) -> Result<Option<Text<'_>>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(entry) => Text::of(entry.value()).map(Some).ok_or(Error::WrongType),
        }
    }

    // Changing.

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

    /// Removes up to `limit` expired fields of a hash, and says so: how many. No use of the key.
    pub fn expire_fields(&mut self, key: Key<'_>, limit: usize) -> usize {
        let (now, touch) = (self.expired_by, self.touch);
        let logged = self.changes.listeners.contains(Listeners::LOG);
        let mut deletion: Vec<Box<[u8]>> = vec![b"HDEL".as_slice().into(), key.bytes.into()];
        self.touch = Touch::No;
        let removed = match self.write::<Hash>(key) {
            Ok(Some(mut hash)) => hash.expire(now, limit, |field| {
                if logged {
                    deletion.push(field.to_vec().into());
                }
            }),
            _ => 0,
        };
        self.touch = touch;
        if removed > 0 {
            let expired = &self.keyspace.statistics.expired_fields;
            expired.fetch_add(removed as u64, Ordering::Relaxed);
            if logged {
                self.changes.deletions.push((self.index, deletion));
            }
            self.changed(key, EventClass::Hash, "hexpired");
        }
        removed
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

    // Telling.

    /// A command changed the key: watchers, cached copies, waiting clients and listeners learn of it, and, if the
    /// collection is empty now, of its deletion.
    pub fn changed(&mut self, key: Key<'_>, class: EventClass, name: &'static str) {
        self.touch_key(key);
        self.changed_inside(key, class, name);
    }

    /// As [`Db::changed`], for what readers of the key do not see: watchers, cached copies and waiting clients do not
    /// learn of it.
    pub fn changed_inside(&mut self, key: Key<'_>, class: EventClass, name: &'static str) {
        self.changes.dirty += 1;
        self.notify(key, class, name);
        if self.emptied == Some((self.index, key.hash)) {
            self.emptied = None;
            self.notify(key, EventClass::Generic, "del");
        }
    }

    /// The key is another than it was: fails transactions that watch it, invalidates cached copies, wakes waiters.
    #[inline]
    pub fn touch_key(&mut self, key: Key<'_>) {
        let shard = self.shard(key.hash);
        let interesting = !shard.watched.is_empty() || !shard.waiting.is_empty();
        if interesting || self.changes.listeners.contains(Listeners::TRACKING) {
            self.tell_interested(key);
        }
    }

    /// Lets the clients that wait for the key look again.
    pub fn wake_waiting(&mut self, key: Key<'_>) {
        let index = self.index;
        if !self
            .shard(key.hash)
            .waiting
            .get(index, key.bytes)
            .is_empty()
        {
            self.changes.ready.push(ChangedKey {
                database: index,
                key: key.bytes.into(),
            });
        }
    }

    #[cold]
    fn tell_interested(&mut self, key: Key<'_>) {
        self.settle_met();
        let index = self.index;
        let shard = self.shard(key.hash);
        shard.touch_watchers(index, key.bytes);
        if self.changes.listeners.contains(Listeners::TRACKING) {
            self.changes.notices.push(Notice::Stale {
                key: key.bytes.into(),
                client: self.client,
            });
        }
        self.wake_waiting(key);
    }

    /// Tells those who subscribed to events, and nobody else.
    #[inline]
    pub fn notify(&mut self, key: Key<'_>, class: EventClass, name: &'static str) {
        if self.changes.listeners.contains(Listeners::EVENTS) {
            self.settle_met();
            let event = Event {
                class,
                name,
                database: self.index,
                key: key.bytes.into(),
            };
            self.changes.notices.push(Notice::Event(event));
        }
    }

    // Inside.

    #[inline]
    fn table(&self, hash: u64) -> &Table {
        &self.shard(hash).tables[self.index]
    }

    #[inline]
    fn table_mut(&mut self, hash: u64) -> &mut Table {
        let index = self.index;
        &mut self.shard_mut(hash).tables[index]
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

    /// Deletes a key that has expired, after what was met before it.
    #[cold]
    fn expire(&mut self, key: Key<'_>) {
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
        self.log_deletion(key);
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
    fn keep_pre_image(&mut self, hash: u64, place: Place) {
        let index = self.index;
        let shard = self.shard_mut(hash);
        if shard.snapshot.is_some() {
            shard.keep_pre_image(index, place);
        }
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

    /// Notes a use of a key outside the lookups that do so.
    pub fn note_use(&mut self, key: Key<'_>) {
        if let Some(place) = self.live(key) {
            let entry = self.table(key.hash).entry(place);
            entry.set_access(self.used(entry.access(), key.hash));
        }
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
        self.log_deletion(key);
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

    fn log_deletion(&mut self, key: Key<'_>) {
        if self.changes.listeners.contains(Listeners::LOG) {
            let deletion: Vec<Box<[u8]>> = vec![b"DEL".as_slice().into(), key.bytes.into()];
            self.changes.deletions.push((self.index, deletion));
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

/// The eviction bits of an entry used at `now`: seconds, modulo 2^16, for the recency policies.
#[inline]
pub fn access_clock(now: Timestamp) -> u16 {
    now.seconds() as u16
}

#[inline]
fn locked_shard<'s>(locked: &'s mut Locked<'_>, number: usize) -> &'s mut Shard {
    match locked {
        Locked::One(one, shard) => {
            assert!(
                *one == number,
                "a command touched a key that it did not declare"
            );
            shard
        }
        Locked::Many(shards) => {
            let at = shards.binary_search_by_key(&number, |(number, _)| *number);
            &mut shards[at.expect("a command touches only keys it declared")].1
        }
        Locked::All(shards) => &mut shards[number],
        Locked::None => panic!("a command touched a key without declaring any"),
    }
}

impl Drop for Db<'_> {
    fn drop(&mut self) {
        self.flush_statistics();
    }
}
