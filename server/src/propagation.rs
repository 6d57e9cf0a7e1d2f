//! Where effects go: to the append-only file and to the replicas, encoded as the commands that clients would send.

use std::sync::Arc;

pub use storage::effects::encode;
use storage::{
    changes::{CommandLog, Readers},
    effects::{Effect, Effects},
};

use crate::{persistence::aof::Aof, replication::Replication};

/// The keyspace's way to those who follow its changes.
pub struct Propagation {
    pub aof: Arc<Aof>,
    pub replication: Arc<Replication>,
}

impl CommandLog for Propagation {
    fn append(&self, effects: &Effects) {
        self.replication.append(effects);
        let for_file = |effect: Effect<'_>| effect.readers.contains(Readers::FILE);
        if self.aof.is_enabled() && effects.iter().any(for_file) {
            self.aof.append(effects);
        }
    }

    fn appended(&self) {
        self.replication.tell_feeders();
    }
}

/// Hands out what belongs together and is for `reader`, piece by piece; `database` is the one that the stream is in.
pub fn each_piece(
    effects: &Effects,
    database: &mut Option<usize>,
    reader: Readers,
    mut put: impl FnMut(&[u8]),
) {
    let theirs = || {
        let effects = effects.iter();
        effects.filter(|effect| effect.readers.contains(reader))
    };
    let together = theirs().nth(1).is_some();
    if together {
        put(b"*1\r\n$5\r\nMULTI\r\n");
    }
    for effect in theirs() {
        if *database != Some(effect.database) {
            *database = Some(effect.database);
            let number = effect.database.to_string();
            let mut select = Vec::new();
            encode(
                &mut select,
                [b"SELECT".as_slice(), number.as_bytes()].into_iter(),
            );
            put(&select);
        }
        put(effect.bytes);
    }
    if together {
        put(b"*1\r\n$4\r\nEXEC\r\n");
    }
}
