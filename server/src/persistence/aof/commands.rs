//! A base of commands: what each entry would be made with, for those who set `aof-use-rdb-preamble no`.
//!
//! Collections are added to in commands of a bounded number of elements, so that loading such a file takes no more memory
//! for its commands than an increment does.

use std::io::{self, Write};

use storage::{
    entry::{EntryRef, Item},
    item_note,
    time::Timestamp,
    value::{
        ValueRef,
        element::{Element, Scratch},
        hash::Hash,
        number,
        sorted_set::SortedSet,
        stream::{Group, Id, MAX_ID, MIN_ID, Stream},
    },
};

use crate::propagation::encode;

/// Elements added with one command.
const ELEMENTS: usize = 64;

/// Writes commands that make the data that they are given.
pub(super) struct CommandWriter<W> {
    sink: W,
    database: Option<usize>,
    bytes: Vec<u8>,
}

impl<W: Write> CommandWriter<W> {
    pub(super) fn new(sink: W) -> CommandWriter<W> {
        CommandWriter {
            sink,
            database: None,
            bytes: Vec::new(),
        }
    }

    /// Says what time it is, as `aof-timestamp-enabled` wants.
    pub(super) fn time(&mut self, seconds: i64) -> io::Result<()> {
        self.sink.write_all(format!("#TS:{seconds}\r\n").as_bytes())
    }

    pub(super) fn function(&mut self, source: &[u8]) -> io::Result<()> {
        self.say(&[b"FUNCTION", b"LOAD", source])
    }

    pub(super) fn entry(&mut self, database: usize, entry: EntryRef<'_>) -> io::Result<()> {
        if self.database != Some(database) {
            self.database = Some(database);
            self.say(&[b"SELECT", database.to_string().as_bytes()])?;
        }
        let key = entry.key();
        match entry.value() {
            ValueRef::Bytes(bytes) => self.say(&[b"SET", key, bytes])?,
            ValueRef::Shared(bytes) => self.say(&[b"SET", key, bytes])?,
            ValueRef::Int(number) => self.say(&[b"SET", key, number.to_string().as_bytes()])?,
            ValueRef::List(list) => self.elements(b"RPUSH", key, list.iter())?,
            ValueRef::Set(set) => self.elements(b"SADD", key, set.iter())?,
            ValueRef::Hash(hash) => self.hash(key, hash)?,
            ValueRef::SortedSet(set) => self.sorted_set(key, set)?,
            ValueRef::Stream(stream) => self.stream(key, stream)?,
        }
        if let Some(deadline) = entry.deadline() {
            self.say(&[b"PEXPIREAT", key, millis(deadline).as_bytes()])?;
        }
        entry.item().map_or(Ok(()), |item| self.item(item, key))
    }

    /// Passes on what is left.
    pub(super) fn finish(self) -> io::Result<W> {
        let mut sink = self.sink;
        sink.flush()?;
        Ok(sink)
    }

    fn say(&mut self, words: &[&[u8]]) -> io::Result<()> {
        self.bytes.clear();
        encode(&mut self.bytes, words.iter().copied());
        self.sink.write_all(&self.bytes)
    }

    /// One command for some words at a time, which belong together in groups of `together`.
    fn in_parts(
        &mut self,
        name: &[u8],
        key: &[u8],
        together: usize,
        words: impl Iterator<Item = Vec<u8>>,
    ) -> io::Result<()> {
        let mut words = words.peekable();
        while words.peek().is_some() {
            let part: Vec<Vec<u8>> = words.by_ref().take(ELEMENTS * together).collect();
            let mut command = vec![name, key];
            command.extend(part.iter().map(Vec::as_slice));
            self.say(&command)?;
        }
        Ok(())
    }

    fn elements<'e>(
        &mut self,
        name: &[u8],
        key: &[u8],
        elements: impl Iterator<Item = Element<'e>>,
    ) -> io::Result<()> {
        self.in_parts(name, key, 1, elements.map(Element::to_vec))
    }

    fn sorted_set(&mut self, key: &[u8], set: &SortedSet) -> io::Result<()> {
        let words = set.iter().flat_map(|(member, score)| {
            let mut text = Vec::new();
            number::write_f64(score, &mut text);
            [text, member.to_vec()]
        });
        self.in_parts(b"ZADD", key, 2, words)
    }

    fn hash(&mut self, key: &[u8], hash: &Hash) -> io::Result<()> {
        let entries = hash.entries(Timestamp::MIN);
        let words = entries.flat_map(|entry| [entry.field.to_vec(), entry.value.to_vec()]);
        self.in_parts(b"HMSET", key, 2, words)?;
        let mut scratch = Scratch::new();
        for entry in hash.entries(Timestamp::MIN) {
            if let Some(deadline) = entry.deadline {
                let field = entry.field.bytes(&mut scratch);
                let at = millis(deadline);
                self.say(&[b"HPEXPIREAT", key, at.as_bytes(), b"FIELDS", b"1", field])?;
            }
        }
        Ok(())
    }

    fn stream(&mut self, key: &[u8], stream: &Stream) -> io::Result<()> {
        if stream.is_empty() {
            // An entry that is trimmed at once makes a stream without entries.
            let id = text((1, 0).max(stream.last_id));
            self.say(&[b"XADD", key, b"MAXLEN", b"0", id.as_bytes(), b"x", b"y"])?;
        }
        for entry in stream.range(MIN_ID, MAX_ID) {
            let pairs = entry.pairs();
            let words: Vec<Vec<u8>> = pairs
                .flat_map(|(field, value)| [field.to_vec(), value.to_vec()])
                .collect();
            let id = text(entry.id);
            let mut command = vec![b"XADD".as_slice(), key, id.as_bytes()];
            command.extend(words.iter().map(Vec::as_slice));
            self.say(&command)?;
        }
        self.say(&[
            b"XSETID",
            key,
            text(stream.last_id).as_bytes(),
            b"ENTRIESADDED",
            stream.entries_added.to_string().as_bytes(),
            b"MAXDELETEDID",
            text(stream.max_deleted_id).as_bytes(),
        ])?;
        let mut groups = stream.groups();
        groups.try_for_each(|(name, group)| self.group(key, name, group))
    }

    fn group(&mut self, key: &[u8], name: &[u8], group: &Group) -> io::Result<()> {
        let (last, read) = (text(group.last_id), group.entries_read);
        let read = read.map(|read| read.to_string());
        let mut command = vec![b"XGROUP".as_slice(), b"CREATE", key, name, last.as_bytes()];
        if let Some(read) = &read {
            command.extend([b"ENTRIESREAD".as_slice(), read.as_bytes()]);
        }
        self.say(&command)?;
        for (consumer, _) in group.consumers() {
            self.say(&[b"XGROUP", b"CREATECONSUMER", key, name, consumer])?;
        }
        for (id, pending) in group.pending_from(MIN_ID) {
            self.say(&[
                b"XCLAIM",
                key,
                name,
                &pending.consumer,
                b"0",
                text(id).as_bytes(),
                b"TIME",
                pending.delivered_ms.to_string().as_bytes(),
                b"RETRYCOUNT",
                pending.deliveries.to_string().as_bytes(),
                b"JUSTID",
                b"FORCE",
            ])?;
        }
        Ok(())
    }

    fn item(&mut self, item: Item, key: &[u8]) -> io::Result<()> {
        let words = item_note::words(item, key);
        self.say(&[&words[0], &words[1]])
    }
}

fn text((ms, seq): Id) -> String {
    format!("{ms}-{seq}")
}

fn millis(deadline: Timestamp) -> String {
    deadline.millis().to_string()
}
