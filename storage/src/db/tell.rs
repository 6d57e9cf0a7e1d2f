//! What others learn of a change: watchers, cached copies, waiting clients, listeners and the command log.

use super::Db;
use crate::{
    changes::{ChangedKey, Event, EventClass, Listeners, Notice, Readers},
    item_note,
    keyspace::Key,
    removal::Removal,
};

impl Db<'_> {
    /// A command changed the key: watchers, cached copies, waiting clients and listeners learn of it, and, if the
    /// collection is empty now, of its deletion.
    #[inline]
    pub fn changed(&mut self, key: Key<'_>, class: EventClass, name: &'static str) {
        self.touch_key(key);
        self.changed_inside(key, class, name);
    }

    /// As [`Db::changed`], for what readers of the key do not see: watchers, cached copies and waiting clients do not
    /// learn of it.
    #[inline]
    pub fn changed_inside(&mut self, key: Key<'_>, class: EventClass, name: &'static str) {
        self.changes.dirty += 1;
        self.notify(key, class, name);
        if self.emptied.is_some() {
            self.tell_emptied(key);
        }
    }

    /// As [`Db::changed`], for commands that tell of the event before they tell of stale copies.
    pub fn changed_after_event(&mut self, key: Key<'_>, class: EventClass, name: &'static str) {
        self.changed_inside(key, class, name);
        self.touch_key(key);
    }

    /// As [`Db::changed_after_event`], for commands that tell of stale copies before they tell that the key is gone.
    pub fn changed_before_gone(&mut self, key: Key<'_>, class: EventClass, name: &'static str) {
        self.changes.dirty += 1;
        self.notify(key, class, name);
        self.touch_key(key);
        self.tell_emptied(key);
    }

    /// Tells that the key is gone if its collection was emptied.
    #[cold]
    fn tell_emptied(&mut self, key: Key<'_>) {
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
            self.note_event(key, class, name);
        }
    }

    #[cold]
    fn note_event(&mut self, key: Key<'_>, class: EventClass, name: &'static str) {
        self.settle_met();
        let event = Event {
            class,
            name,
            database: self.index,
            key: key.bytes.into(),
        };
        self.changes.notices.push(Notice::Event(event));
    }

    /// Keeps a command's effects for the log; `sent` are its words if it did not fail. Called after each command, under
    /// its locks.
    #[inline(always)]
    pub fn collect_effects<'w>(&mut self, sent: Option<impl ExactSizeIterator<Item = &'w [u8]>>) {
        if self.changes.listeners.contains(Listeners::LOG) {
            self.take_effects(sent);
        }
    }

    #[inline(never)]
    fn take_effects<'w>(&mut self, sent: Option<impl ExactSizeIterator<Item = &'w [u8]>>) {
        self.changes
            .take_effects(self.index, self.readers, sent, &mut self.effects);
        if !self.changes.items.is_empty() {
            self.collect_items();
        }
    }

    /// As [`Db::collect_effects`], for what is no command.
    #[inline(always)]
    pub fn collect_effects_of_nothing(&mut self) {
        self.collect_effects(None::<std::iter::Empty<&[u8]>>);
    }

    /// Tells the log of the flags and CAS that items have now.
    #[cold]
    fn collect_items(&mut self) {
        for ChangedKey { database, key } in std::mem::take(&mut self.changes.items) {
            let hash = Key::new(&key).hash;
            let entry = self.shard(hash).tables[database].get(hash, &key);
            if let Some(item) = entry.and_then(|entry| entry.item()) {
                let [name, text] = item_note::words(item, &key);
                let words = [name.as_slice(), &text].into_iter();
                self.effects.push(database, self.readers, words);
            }
        }
    }

    /// The log wants to know the item's flags and CAS, as they are when the command is done.
    pub(super) fn note_item(&mut self, key: Key<'_>) {
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

    /// Logs that the key is gone, before what the client sent.
    pub(super) fn log_removal(&mut self, key: Key<'_>, why: Removal) {
        if self.changes.listeners.contains(Listeners::LOG) {
            let words = [self.keyspace.removals.command(why), key.bytes].into_iter();
            let deletions = &mut self.changes.deletions;
            deletions.push(self.index, Readers::ALL, words);
        }
    }

    /// Logs that the key is gone, instead of what the client sent.
    pub fn log_removal_instead(&mut self, key: Key<'_>, why: Removal) {
        let command = self.keyspace.removals.command(why);
        self.changes.log_instead(&[command, key.bytes]);
    }
}
