//! Flags and CAS of items in a stream that is applied or a log that is loaded, see [`storage::item_note`].

use storage::{db::Db, entry::Item, item_note, keyspace::Key, value::Text};

use crate::dispatch::args::Args;

/// What a command of the log says of an item.
#[derive(Clone, Copy)]
pub struct Note<'a> {
    item: Item,
    pub key: Key<'a>,
}

impl<'a> Note<'a> {
    pub fn read(args: &Args<'a>) -> Option<Note<'a>> {
        if args.len() != 2 {
            return None;
        }
        let (item, key) = item_note::read(args.word(0), args.word(1))?;
        let key = Key::new(key);
        Some(Note { item, key })
    }

    /// Gives the item its flags and CAS, if it is there. Takes the key's lock unless it is held.
    pub fn apply(self, db: &mut Db<'_>) {
        let held = db.is_locked();
        if !held {
            db.lock(self.key.hash);
        }
        if db
            .peek(self.key)
            .is_some_and(|entry| Text::of(entry.value()).is_some())
        {
            db.keyspace().note_cas(self.item.cas);
            db.set_item(self.key, Some(self.item));
        }
        db.collect_effects_of_nothing();
        if !held {
            db.unlock();
        }
    }
}
