//! Where effects go: to the append-only file and to the replicas, encoded as the commands that clients would send.

use std::sync::Arc;

use storage::changes::{CommandLog, Logged, Readers};

use crate::{persistence::aof::Aof, replication::Replication};

/// The keyspace's way to those who follow its changes.
pub struct Propagation {
    pub aof: Arc<Aof>,
    pub replication: Arc<Replication>,
}

impl CommandLog for Propagation {
    fn append(&self, effects: &[Logged]) {
        self.replication.append(effects);
        let for_file = |logged: &Logged| logged.readers.contains(Readers::FILE);
        if self.aof.is_enabled() && effects.iter().any(for_file) {
            self.aof.append(effects);
        }
    }
}

/// Encodes what belongs together and is for `reader`; `database` is the one that the stream is in.
pub fn encode_together(
    bytes: &mut Vec<u8>,
    database: &mut Option<usize>,
    effects: &[Logged],
    reader: Readers,
) {
    let theirs = || {
        let effects = effects.iter();
        effects.filter(|logged| logged.readers.contains(reader))
    };
    let together = theirs().nth(1).is_some();
    for (index, logged) in theirs().enumerate() {
        if *database != Some(logged.database) {
            *database = Some(logged.database);
            let number = logged.database.to_string();
            encode(bytes, [b"SELECT".as_slice(), number.as_bytes()].into_iter());
        }
        if together && index == 0 {
            encode(bytes, [b"MULTI".as_slice()].into_iter());
        }
        encode(bytes, logged.effect.iter().map(|word| &**word));
    }
    if together {
        encode(bytes, [b"EXEC".as_slice()].into_iter());
    }
}

/// Appends a command as RESP.
pub fn encode<'a>(bytes: &mut Vec<u8>, words: impl ExactSizeIterator<Item = &'a [u8]>) {
    let mut digits = itoa::Buffer::new();
    bytes.push(b'*');
    bytes.extend_from_slice(digits.format(words.len()).as_bytes());
    bytes.extend_from_slice(b"\r\n");
    for word in words {
        bytes.push(b'$');
        bytes.extend_from_slice(digits.format(word.len()).as_bytes());
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
}
