//! Commands on their way into the command log, encoded as clients send them.

use crate::changes::Readers;

/// Bytes of room that an emptied list keeps.
const KEPT: usize = 64 * 1024;

/// Commands one behind the other, each for a database and for those who read the log.
#[derive(Debug, Default)]
pub struct Effects {
    bytes: Vec<u8>,
    marks: Vec<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    database: usize,
    readers: Readers,
    /// Where the command ends in `bytes`.
    end: usize,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect<'e> {
    pub database: usize,
    pub readers: Readers,
    /// The command in RESP.
    pub bytes: &'e [u8],
}

impl Effects {
    /// A list of one command, for all readers.
    pub fn of<'w>(database: usize, words: impl ExactSizeIterator<Item = &'w [u8]>) -> Effects {
        let mut effects = Effects::default();
        effects.push(database, Readers::ALL, words);
        effects
    }

    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Adds the command of these words.
    #[inline]
    pub fn push<'w>(
        &mut self,
        database: usize,
        readers: Readers,
        words: impl ExactSizeIterator<Item = &'w [u8]>,
    ) {
        encode(&mut self.bytes, words);
        self.marks.push(Mark {
            database,
            readers,
            end: self.bytes.len(),
        });
    }

    /// Adds what is in another list, for this database and these readers.
    pub fn append_for(&mut self, database: usize, readers: Readers, others: &Effects) {
        let base = self.bytes.len();
        self.bytes.extend_from_slice(&others.bytes);
        self.marks.extend(others.marks.iter().map(|mark| Mark {
            database,
            readers,
            end: base + mark.end,
        }));
    }

    /// Takes over what is in another list, as it is there.
    pub fn append(&mut self, others: &mut Effects) {
        let base = self.bytes.len();
        self.bytes.append(&mut others.bytes);
        self.marks.extend(others.marks.drain(..).map(|mark| Mark {
            end: base + mark.end,
            ..mark
        }));
    }

    pub fn iter(&self) -> impl Iterator<Item = Effect<'_>> {
        let mut start = 0;
        self.marks.iter().map(move |mark| {
            let bytes = &self.bytes[start..mark.end];
            start = mark.end;
            Effect {
                database: mark.database,
                readers: mark.readers,
                bytes,
            }
        })
    }

    /// Empties the list, which keeps a moderate room.
    #[inline]
    pub fn clear(&mut self) {
        self.marks.clear();
        self.bytes.clear();
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
    }
}

/// Appends a command in RESP.
#[inline]
pub fn encode<'w>(bytes: &mut Vec<u8>, words: impl ExactSizeIterator<Item = &'w [u8]>) {
    put_head(bytes, b'*', words.len());
    for word in words {
        bytes.reserve(word.len() + 32);
        put_head(bytes, b'$', word.len());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
}

#[inline]
fn put_head(bytes: &mut Vec<u8>, kind: u8, number: usize) {
    bytes.push(kind);
    bytes.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    bytes.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> impl ExactSizeIterator<Item = &[u8]> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        words.into_iter()
    }

    fn shown(effects: &Effects) -> Vec<(usize, Readers, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        effects
            .iter()
            .map(|effect| (effect.database, effect.readers, text(effect.bytes)))
            .collect()
    }

    #[test]
    fn lists_join_with_their_databases_and_readers_or_with_others() {
        let mut effects = Effects::of(3, words("DEL a"));
        let mut others = Effects::default();
        others.push(1, Readers::FILE, words("SET b 10"));
        effects.append_for(2, Readers::REPLICAS, &others);
        effects.append(&mut others);
        assert!(others.is_empty() && others.iter().next().is_none());
        let set = "*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$2\r\n10\r\n".to_owned();
        let del = "*2\r\n$3\r\nDEL\r\n$1\r\na\r\n".to_owned();
        assert_eq!(
            shown(&effects),
            [
                (3, Readers::ALL, del),
                (2, Readers::REPLICAS, set.clone()),
                (1, Readers::FILE, set)
            ]
        );
        effects.clear();
        assert!(effects.is_empty());
    }
}
