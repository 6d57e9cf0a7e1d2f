//! Streams: entries in the order of their IDs, in blocks, and the groups that read them.
//!
//! Blocks hold up to `stream-node-max-entries` entries and are reference-counted, as are the nodes of the map that
//! orders them: a clone shares all of it, and a write copies one block and a path of nodes. Finding an ID is O(log n)
//! and a walk through one block.

mod block;
mod group;
#[cfg(test)]
mod tests;

use smallvec::SmallVec;
use triomphe::Arc;

use self::block::{Block, Walk};
pub use self::{
    block::{BlockLimits, Entry},
    group::{Consumer, Group, Name, Pending},
};
use super::{element::Element, ordered::OrderedMap};

/// An entry's ID: milliseconds and sequence number.
pub type Id = (u64, u64);

pub const MIN_ID: Id = (0, 0);
pub const MAX_ID: Id = (u64::MAX, u64::MAX);

/// The ID after this one, if there is one.
pub fn next_id((ms, seq): Id) -> Option<Id> {
    match seq.checked_add(1) {
        Some(seq) => Some((ms, seq)),
        None => ms.checked_add(1).map(|ms| (ms, 0)),
    }
}

/// The ID before this one, if there is one.
pub fn previous_id((ms, seq): Id) -> Option<Id> {
    match seq.checked_sub(1) {
        Some(seq) => Some((ms, seq)),
        None => ms.checked_sub(1).map(|ms| (ms, u64::MAX)),
    }
}

#[derive(Clone)]
pub struct Stream {
    /// By the first ID that was ever in the block.
    blocks: OrderedMap<Id, Arc<Block>>,
    groups: OrderedMap<Name, Group>,
    len: usize,
    pub last_id: Id,
    pub max_deleted_id: Id,
    pub entries_added: u64,
    block_bytes: usize,
    group_bytes: usize,
}

/// What a trim keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// At most so many entries.
    MaxLen(usize),
    /// Entries from this ID on.
    MinId(Id),
}

/// How a trim goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    pub keep: Keep,
    /// Only whole blocks are removed.
    pub approximate: bool,
    /// At most so many entries are removed; 0 is no limit.
    pub limit: usize,
}

impl Default for Stream {
    fn default() -> Self {
        Stream::new()
    }
}

impl Stream {
    pub fn new() -> Stream {
        Stream {
            blocks: OrderedMap::new(),
            groups: OrderedMap::new(),
            len: 0,
            last_id: MIN_ID,
            max_deleted_id: MIN_ID,
            entries_added: 0,
            block_bytes: 0,
            group_bytes: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first entry's ID; 0-0 if there is none.
    pub fn first_id(&self) -> Id {
        self.range(MIN_ID, MAX_ID)
            .next()
            .map_or(MIN_ID, |entry| entry.id)
    }

    /// About how many bytes it takes outside itself. O(1).
    pub fn memory_bytes(&self) -> usize {
        self.blocks.node_bytes() + self.block_bytes + self.groups.node_bytes() + self.group_bytes
    }

    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// The first IDs of the blocks, ascending.
    pub fn block_ids(&self) -> impl Iterator<Item = Id> + '_ {
        self.blocks.iter().map(|(id, _)| *id)
    }

    /// The blocks' entries, a block after the other.
    pub(crate) fn block_entries(&self) -> impl Iterator<Item = impl Iterator<Item = Entry<'_>>> {
        self.blocks.iter().map(|(_, block)| block.walk())
    }

    /// Adds an entry, whose ID is greater than the last.
    pub fn append<'e>(
        &mut self,
        id: Id,
        texts: impl Iterator<Item = (&'e [u8], &'e [u8])>,
        limits: BlockLimits,
    ) {
        let mut text_bytes = 0;
        let pairs: SmallVec<[_; 8]> = texts
            .map(|(field, value)| {
                text_bytes += field.len() + value.len();
                (Element::new(field), Element::new(value))
            })
            .collect();
        let is_full = |(_, block): (_, &Arc<Block>)| block.is_full(text_bytes, limits);
        let begins = self.blocks.is_empty() || self.blocks.last().is_some_and(is_full);
        self.push(id, &pairs, begins);
        self.entries_added = self.entries_added.saturating_add(1);
    }

    /// Adds an entry to the last block or a new one.
    pub(crate) fn push(
        &mut self,
        id: Id,
        pairs: &[(Element<'_>, Element<'_>)],
        begins_block: bool,
    ) {
        debug_assert!(id > self.last_id || id == MIN_ID);
        match self.blocks.last().map(|(first, _)| *first) {
            Some(first) if !begins_block => {
                let change = self.blocks.update(&first, |block| {
                    let before = block.memory_bytes();
                    Arc::make_mut(block).push(id, pairs);
                    block.memory_bytes().wrapping_sub(before)
                });
                self.block_bytes = self.block_bytes.wrapping_add(change.unwrap_or_default());
            }
            _ => {
                let mut block = Block::new(id, pairs);
                block.push(id, pairs);
                self.block_bytes += block.memory_bytes();
                self.blocks.insert(id, Arc::new(block));
            }
        }
        self.len += 1;
        self.last_id = id;
    }

    pub fn contains(&self, id: Id) -> bool {
        self.get(id).is_some()
    }

    pub fn get(&self, id: Id) -> Option<Entry<'_>> {
        self.range(id, id).next()
    }

    /// The entries from `start` to `end`, ascending.
    pub fn range(&self, start: Id, end: Id) -> Range<'_> {
        let ordinal = self.blocks.ordinal_at_or_before(&start).unwrap_or(0);
        Range {
            stream: self,
            walk: None,
            ordinal,
            start,
            end,
        }
    }

    /// The entries from `end` down to `start`.
    pub fn range_back(&self, start: Id, end: Id) -> impl Iterator<Item = Entry<'_>> {
        let mut ordinal = self.blocks.ordinal_at_or_before(&end);
        let blocks = std::iter::from_fn(move || {
            let at = ordinal?;
            ordinal = at.checked_sub(1);
            self.blocks.at(at)
        });
        blocks
            .take_while(move |(_, block)| block.last() >= start)
            .flat_map(|(_, block)| block.entries().into_iter().rev())
            .skip_while(move |entry| entry.id > end)
            .take_while(move |entry| entry.id >= start)
    }

    /// The last entry.
    pub fn last_entry(&self) -> Option<Entry<'_>> {
        self.range_back(MIN_ID, MAX_ID).next()
    }

    /// Deletes an entry; false if there is none.
    pub fn delete(&mut self, id: Id) -> bool {
        let Some(ordinal) = self.blocks.ordinal_at_or_before(&id) else {
            return false;
        };
        let Some((&first, block)) = self.blocks.at(ordinal) else {
            return false;
        };
        if block.last() < id || !block.walk().any(|entry| entry.id == id) {
            return false;
        }
        let is_last = block.count() == 1;
        self.change_block(first, |block| usize::from(block.delete(id)));
        if is_last {
            self.remove_block(first);
        }
        self.max_deleted_id = self.max_deleted_id.max(id);
        true
    }

    /// Deletes entries from the front; returns how many.
    pub fn trim(&mut self, trim: Trim) -> usize {
        let mut deleted = 0;
        while let Some((&first, block)) = self.blocks.first() {
            let count = block.count();
            let whole = match trim.keep {
                Keep::MaxLen(max_len) if self.len <= max_len => break,
                Keep::MaxLen(max_len) => self.len - count >= max_len,
                Keep::MinId(min_id) => block.last() < min_id,
            };
            if trim.limit > 0 && deleted + count > trim.limit {
                break;
            }
            if whole {
                self.remove_block(first);
                self.len -= count;
                deleted += count;
                continue;
            }
            // A block whose last entries were deleted one by one may stay with none, as in Valkey.
            if !trim.approximate {
                let mut excess = match trim.keep {
                    Keep::MaxLen(max_len) => self.len - max_len,
                    Keep::MinId(_) => usize::MAX,
                };
                deleted += self.change_block(first, |block| {
                    block.delete_front(|id| {
                        let goes = match trim.keep {
                            Keep::MaxLen(_) => excess > 0,
                            Keep::MinId(min_id) => id < min_id,
                        };
                        excess = excess.saturating_sub(1);
                        goes
                    })
                });
            }
            break;
        }
        deleted
    }

    /// Lets `change` take entries out of a block and say how many.
    fn change_block(&mut self, first: Id, change: impl FnOnce(&mut Block) -> usize) -> usize {
        let outcome = self.blocks.update(&first, |block| {
            let before = block.memory_bytes();
            let deleted = change(Arc::make_mut(block));
            (block.memory_bytes().wrapping_sub(before), deleted)
        });
        let Some((bytes, deleted)) = outcome else {
            return 0;
        };
        self.block_bytes = self.block_bytes.wrapping_add(bytes);
        self.len -= deleted;
        deleted
    }

    fn remove_block(&mut self, first: Id) {
        if let Some(block) = self.blocks.remove(&first) {
            self.block_bytes -= block.memory_bytes();
        }
    }

    // Groups.

    pub fn groups_len(&self) -> usize {
        self.groups.len()
    }

    /// By name.
    pub fn groups(&self) -> impl Iterator<Item = (&Name, &Group)> {
        self.groups.iter()
    }

    pub fn group(&self, name: &[u8]) -> Option<&Group> {
        self.groups.get(name)
    }

    /// Changes a group. None if there is no such group.
    pub fn change_group<R>(
        &mut self,
        name: &[u8],
        change: impl FnOnce(&mut Group) -> R,
    ) -> Option<R> {
        let (bytes, result) = self.groups.update(name, |group| {
            let before = group.memory_bytes();
            let result = change(group);
            (group.memory_bytes().wrapping_sub(before), result)
        })?;
        self.group_bytes = self.group_bytes.wrapping_add(bytes);
        Some(result)
    }

    /// Adds a group; false if the name is taken.
    pub fn create_group(&mut self, name: &[u8], group: Group) -> bool {
        if self.groups.contains(name) {
            return false;
        }
        self.group_bytes += group.memory_bytes();
        self.groups.insert(name.into(), group);
        true
    }

    pub fn delete_group(&mut self, name: &[u8]) -> bool {
        match self.groups.remove(name) {
            Some(group) => {
                self.group_bytes -= group.memory_bytes();
                true
            }
            None => false,
        }
    }

    /// Whether entries from `start` on may have been deleted one by one.
    pub fn has_gaps_from(&self, start: Id) -> bool {
        self.len > 0 && self.max_deleted_id != MIN_ID && start <= self.max_deleted_id
    }

    /// How many entries were ever added up to `id`, if that can be told.
    pub fn entries_until(&self, id: Id) -> Option<u64> {
        if self.entries_added == 0 {
            return Some(0);
        }
        if self.len == 0 && id <= self.last_id || id == self.last_id {
            return Some(self.entries_added);
        }
        if id > self.last_id {
            return None;
        }
        let first = self.first_id();
        let trimmed = self.entries_added.checked_sub(self.len as u64)?;
        if self.max_deleted_id == MIN_ID || self.max_deleted_id < first {
            if id < first {
                return (id == MIN_ID || id >= self.max_deleted_id).then_some(trimmed);
            }
            if id == first {
                return Some(trimmed + 1);
            }
        }
        None
    }
}

/// Goes through entries in order.
pub struct Range<'s> {
    stream: &'s Stream,
    walk: Option<Walk<'s>>,
    ordinal: usize,
    start: Id,
    end: Id,
}

impl<'s> Iterator for Range<'s> {
    type Item = Entry<'s>;

    fn next(&mut self) -> Option<Entry<'s>> {
        loop {
            if let Some(entry) = self.walk.as_mut().and_then(Iterator::next) {
                if entry.id < self.start {
                    continue;
                }
                if entry.id > self.end {
                    self.ordinal = usize::MAX;
                    self.walk = None;
                    return None;
                }
                return Some(entry);
            }
            let (first, block) = self.stream.blocks.at(self.ordinal)?;
            if *first > self.end {
                return None;
            }
            self.ordinal += 1;
            self.walk = Some(block.walk());
        }
    }
}
