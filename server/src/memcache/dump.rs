//! Lists of all items: `lru_crawler metadump` and `mgdump`, `stats cachedump`.
//!
//! A list may be longer than memory has room for, so it is written in slices: each locks one shard for a bounded number
//! of entries, and the next one waits until the client has read what there is. Items are of one class, 1.

use protocol::{
    memcache::response::{Answer, ItemFacts, ResponseWriter},
    output::Output,
};
use storage::{
    db::Db,
    entry::EntryRef,
    eviction,
    keyspace::Keyspace,
    time::Timestamp,
    value::{Text, Type},
};

use super::{
    item::{Error, Result},
    watch::Encoded,
};

/// Entries per time that a shard is locked.
const SLICE: usize = 256;
/// Bytes of reply after which the client's turn is over.
const TURN_BYTES: usize = 64 * 1024;
/// The highest class that there may be.
const MAX_CLASS: u32 = 63;
/// Bytes of a `cachedump`, as in memcached.
const MAX_CACHEDUMP_BYTES: usize = 2 << 20;

/// How an item is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// `key=a exp=-1 la=... cas=2 fetch=no cls=1 size=66 flags=5`
    Facts,
    /// `mg a`
    Requests,
}

/// A list that is being written.
pub(super) struct Dump {
    style: Style,
    shard: usize,
    cursor: u64,
}

impl Dump {
    /// What a crawler's `classes` word asks for: `all`, `hash`, or classes with commas. Begins the answer.
    pub(super) fn begin(
        style: Style,
        classes: &[u8],
        answer: &mut ResponseWriter<'_>,
    ) -> Option<Dump> {
        let Some(ours) = includes_items(classes) else {
            answer.line("BADCLASS invalid class id");
            return None;
        };
        answer.answer(Answer::Ok);
        if !ours {
            answer.answer(style.end());
            return None;
        }
        Some(Dump {
            style,
            shard: 0,
            cursor: 0,
        })
    }

    /// Writes the next slices; true with the last one.
    pub(super) fn write(
        &mut self,
        keyspace: &Keyspace,
        now: Timestamp,
        output: &mut Output,
    ) -> bool {
        let end = output.len() + TURN_BYTES;
        while self.shard < keyspace.shard_count() {
            if output.len() > end {
                return false;
            }
            let Ok(shard) = keyspace.try_lock(self.shard) else {
                ResponseWriter::new(output).server_error(Error::Busy.text());
                return true;
            };
            self.cursor = shard.tables[0].traverse(self.cursor, SLICE, |_, entry| {
                if !entry.is_expired(now) && entry.value_type() == Type::String {
                    self.style.write(keyspace, now, entry, output);
                }
            });
            if self.cursor == 0 {
                self.shard += 1;
            }
        }
        ResponseWriter::new(output).answer(self.style.end());
        true
    }
}

/// Whether the classes are all or have the one that items are of; `None` if they are none.
pub(super) fn includes_items(classes: &[u8]) -> Option<bool> {
    if classes == b"all" || classes == b"hash" {
        return Some(true);
    }
    let mut ours = false;
    for class in classes.split(|&byte| byte == b',') {
        ours |= class_number(class).filter(|class| (1..=MAX_CLASS).contains(class))? == 1;
    }
    Some(ours)
}

fn class_number(word: &[u8]) -> Option<u32> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

impl Style {
    fn end(self) -> Answer {
        match self {
            Style::Facts => Answer::End,
            Style::Requests => Answer::MetaMiss,
        }
    }

    fn write(self, keyspace: &Keyspace, now: Timestamp, entry: EntryRef<'_>, output: &mut Output) {
        let mut answer = ResponseWriter::new(output);
        if self == Style::Requests {
            answer.mgdump(entry.key());
            return;
        }
        let item = entry.item().unwrap_or_default();
        let idle = eviction::idle_seconds(keyspace, entry.access(), now).unwrap_or_default();
        let facts = ItemFacts {
            exptime: entry.deadline().map(|deadline| deadline.seconds()),
            last_access: now.seconds() - i64::from(idle),
            cas: item.cas,
            fetched: entry.marks().fetched,
            class: 1,
            size: entry.memory_bytes(),
        };
        answer.metadump(entry.key(), &facts, item.flags);
    }
}

/// `stats cachedump class limit`: some items, `limit` at most if it is not 0, as `ITEM key [2 b; 0 s]`.
pub(super) fn cachedump(
    db: &mut Db<'_>,
    class: Option<&[u8]>,
    limit: Option<&[u8]>,
    answer: &mut ResponseWriter<'_>,
) -> Result {
    let (Some(class), Some(limit)) = (class, limit) else {
        answer.client_error("bad command line");
        return Ok(());
    };
    let (Some(class), Some(limit)) = (class_number(class), class_number(limit)) else {
        answer.client_error("bad command line format");
        return Ok(());
    };
    if class > MAX_CLASS {
        answer.client_error("Illegal slab id");
        return Ok(());
    }
    let mut left = match (class, limit) {
        (1, 0) => usize::MAX,
        (1, limit) => limit as usize,
        _ => 0,
    };
    let (now, mut bytes) = (db.now(), 0);
    let _: Option<()> = db.each_shard(0, |_, shard| {
        let mut cursor = 0;
        while left > 0 && bytes < MAX_CACHEDUMP_BYTES {
            cursor = shard.tables[0].traverse(cursor, SLICE, |_, entry| {
                let Some(text) = Text::of(entry.value()) else {
                    return;
                };
                if left == 0 || entry.is_expired(now) {
                    return;
                }
                left -= 1;
                let len = text.as_bytes(&mut itoa::Buffer::new()).len();
                let exptime = entry.deadline().map_or(0, |deadline| deadline.seconds());
                let key = Encoded(entry.key()).to_string();
                bytes += key.len();
                answer.cached_item(key.as_bytes(), len, exptime);
            });
            if cursor == 0 {
                break;
            }
        }
        (left == 0 || bytes >= MAX_CACHEDUMP_BYTES).then_some(())
    })?;
    answer.answer(Answer::End);
    Ok(())
}
