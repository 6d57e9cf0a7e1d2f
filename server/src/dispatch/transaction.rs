//! MULTI, EXEC and WATCH: commands that are queued, then run under the locks of all their keys at once.

use std::sync::Arc;

use storage::{
    keyspace::{Key, Keyspace},
    shard::WatchMark,
};

/// A command as it was sent, kept until EXEC.
#[derive(Debug, Clone)]
pub struct Queued {
    pub words: Vec<Box<[u8]>>,
}

/// Queued commands and watched keys of one connection.
#[derive(Debug, Default)]
pub struct Transaction {
    pub queued: Vec<Queued>,
    /// A command was refused while queueing: EXEC will refuse all.
    pub failed: bool,
    pub mark: Arc<WatchMark>,
    pub watched: Vec<(usize, Box<[u8]>)>,
}

impl Transaction {
    /// Stops watching. Takes each key's lock in turn.
    pub fn unwatch(&self, keyspace: &Keyspace) {
        for (database, key) in &self.watched {
            let mut shard = keyspace.lock(keyspace.shard_of(Key::new(key).hash));
            shard
                .watched
                .remove(*database, key, |mark| Arc::ptr_eq(mark, &self.mark));
        }
    }
}
