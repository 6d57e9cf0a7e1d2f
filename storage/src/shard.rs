//! What one lock guards: the entries of every database whose hash falls here, and who watches or awaits them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::{snapshot::Sink, table::Table};

/// A client's promise that none of its watched keys has changed.
#[derive(Debug, Default)]
pub struct WatchMark(AtomicBool);

impl WatchMark {
    /// Breaks the promise.
    pub fn touch(&self) {
        // Relaxed: set under the shard's lock and read under it, by EXEC.
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_touched(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A blocked client in the list of a key that it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its number.
    pub client: u64,
    /// It wants to know when the key is gone, too.
    pub wants_missing: bool,
}

/// A database's index and the key's bytes.
type KeyId = (usize, Box<[u8]>);

/// Clients by the key of one database that they are interested in.
#[derive(Debug)]
pub struct ByKey<T> {
    keys: HashMap<KeyId, SmallVec<[T; 1]>>,
}

impl<T> Default for ByKey<T> {
    fn default() -> Self {
        ByKey {
            keys: HashMap::new(),
        }
    }
}

impl<T> ByKey<T> {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many keys somebody is interested in.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Those interested in a key, in the order they came.
    pub fn get(&self, database: usize, key: &[u8]) -> &[T] {
        self.keys
            .get(&(database, Box::from(key)))
            .map_or(&[], |clients| clients.as_slice())
    }

    pub fn add(&mut self, database: usize, key: &[u8], client: T) {
        self.keys
            .entry((database, Box::from(key)))
            .or_default()
            .push(client);
    }

    /// Forgets those of a key that `gone` picks, and the key with the last of them.
    pub fn remove(&mut self, database: usize, key: &[u8], mut gone: impl FnMut(&T) -> bool) {
        let id = (database, Box::from(key));
        if let Some(clients) = self.keys.get_mut(&id) {
            clients.retain(|client| !gone(client));
            if clients.is_empty() {
                self.keys.remove(&id);
            }
        }
    }

    /// Takes all interested in a key.
    pub fn take(&mut self, database: usize, key: &[u8]) -> SmallVec<[T; 1]> {
        self.keys
            .remove(&(database, Box::from(key)))
            .unwrap_or_default()
    }

    /// Every key with those interested in it.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[u8], &[T])> {
        self.keys
            .iter()
            .map(|((database, key), clients)| (*database, &**key, clients.as_slice()))
    }

    pub fn clear(&mut self) {
        self.keys.clear();
    }
}

/// The data behind one lock.
pub struct Shard {
    /// One table per database.
    pub tables: Box<[Table]>,
    /// Transactions to fail when a key changes.
    pub watched: ByKey<Arc<WatchMark>>,
    /// Blocked clients, to be served when a key changes.
    pub waiting: ByKey<Waiting>,
    /// Clients by number that may have cached a key.
    pub tracked: ByKey<u64>,
    /// Where the expiry sweep of each database goes on.
    pub sweep_at: Box<[usize]>,
    /// Where compaction of each database goes on.
    pub compact_at: Box<[usize]>,
    /// Where entries go before they change, while a snapshot runs that has not been here.
    pub(crate) snapshot: Option<Sink>,
}

impl Shard {
    pub(crate) fn new(databases: usize, shard_bits: u32) -> Shard {
        Shard {
            tables: (0..databases).map(|_| Table::new(shard_bits)).collect(),
            watched: ByKey::default(),
            waiting: ByKey::default(),
            tracked: ByKey::default(),
            sweep_at: vec![0; databases].into(),
            compact_at: vec![0; databases].into(),
            snapshot: None,
        }
    }

    /// Fails the transactions that watch a key.
    pub fn touch_watchers(&self, database: usize, key: &[u8]) {
        if !self.watched.is_empty() {
            self.watched
                .get(database, key)
                .iter()
                .for_each(|mark| mark.touch());
        }
    }

    /// Bytes of tables and entries, without what collections and long strings hold.
    pub fn memory_bytes(&self) -> usize {
        self.tables.iter().map(Table::memory_bytes).sum()
    }
}
