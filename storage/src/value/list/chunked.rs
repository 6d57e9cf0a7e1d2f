//! A large list: chunks in a tree that counts elements.
//!
//! When a chunk takes another element, when it is split, and when chunks are joined again is the part clients can
//! observe: pushes fill the chunk at the end up to the limit; an insertion into a full chunk goes to a neighbour if it is
//! at that edge, else splits the chunk and joins what became small; removal only drops chunks that became empty.

use std::{cell::Cell, ops::Range};

use crate::value::{
    chunk::{self, Chunk},
    element::Element,
    list::{End, Iter, IterRev, ListLimits, Side},
    listpack_size::LISTPACK_EMPTY,
    tree::{Cursor, Item, Summary, Tree},
};

/// From so many chunks on, a new chunk is allocated as large as its neighbour instead of growing to that size.
const FULL_ALLOCATION_FROM: usize = 4;
/// A chunk that loses more elements than this at once is built anew instead of closing each hole.
const HOLES_CLOSED_ONE_BY_ONE: usize = 4;

/// Chunks in order, none of them empty.
#[derive(Clone, Default)]
pub(super) struct Chunked {
    chunks: Tree<Slot>,
}

/// A chunk in the tree, with its length at hand so that counting does not touch it.
#[derive(Clone)]
pub(super) struct Slot {
    chunk: Chunk,
    len: u32,
}

/// Elements, and bytes of their chunks' allocations.
#[derive(Clone, Copy, Default)]
pub(super) struct Totals {
    len: usize,
    bytes: usize,
}

/// Where an element is.
#[derive(Clone, Copy)]
struct Position {
    ordinal: usize,
    offset: usize,
}

impl Chunked {
    pub(super) fn of(chunk: Chunk) -> Chunked {
        let mut chunks = Tree::new();
        if chunk.len() > 0 {
            chunks.push(Slot::new(chunk));
        }
        Chunked { chunks }
    }

    pub(super) fn len(&self) -> usize {
        self.chunks.summary().len
    }

    /// See [`super::List::is_same_version`].
    pub(super) fn is_same_version(&self, other: &Chunked) -> bool {
        self.chunks.is_same_version(&other.chunks)
    }

    pub(super) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.chunks.summary().bytes + self.chunks.node_bytes()
    }

    /// The chunk that is the whole list, if there is just one and it is packed.
    pub(super) fn as_only_chunk(&self) -> Option<&Chunk> {
        if self.chunks.len() != 1 {
            return None;
        }
        self.chunk(0).filter(|chunk| !chunk.is_plain())
    }

    pub(super) fn get(&self, index: usize) -> Option<Element<'_>> {
        let (position, slot) = self.locate(index)?;
        Some(slot.chunk.get(position.offset))
    }

    pub(super) fn range(&self, range: Range<usize>) -> Iter<'_> {
        let (position, remaining) = match self.locate(range.start) {
            Some((position, _)) => (position, range.len()),
            None => (
                Position {
                    ordinal: self.chunks.len(),
                    offset: 0,
                },
                0,
            ),
        };
        Iter::at(
            Cursor::new(&self.chunks, position.ordinal),
            position.offset,
            remaining,
        )
    }

    pub(super) fn range_rev(&self, range: Range<usize>) -> IterRev<'_> {
        let last = range.end.checked_sub(1).and_then(|last| self.locate(last));
        let (position, remaining) = match last {
            Some((position, _)) => (position, range.len()),
            None => (
                Position {
                    ordinal: 0,
                    offset: 0,
                },
                0,
            ),
        };
        IterRev::at(
            Cursor::new(&self.chunks, position.ordinal),
            position.offset + 1,
            remaining,
        )
    }

    pub(super) fn push(&mut self, end: End, value: &[u8], limits: ListLimits) {
        let (edge, beyond) = match end {
            End::Front => (0, 0),
            End::Back => (self.chunks.len().saturating_sub(1), self.chunks.len()),
        };
        if self.admits(Some(edge), value, limits) {
            self.edit(edge, |chunk| match end {
                End::Front => chunk.push_front(Element::new(value)),
                End::Back => chunk.push_back(Element::new(value)),
            });
            return;
        }
        let chunk = new_chunk(end, value, self.new_capacity(edge), limits);
        self.chunks.insert(beyond, Slot::new(chunk));
    }

    /// The list must not be empty.
    pub(super) fn pop<R>(&mut self, end: End, take: impl FnOnce(Element<'_>) -> R) -> R {
        let ordinal = if end == End::Front {
            0
        } else {
            self.chunks.len() - 1
        };
        let (result, is_empty) = self.edit(ordinal, |chunk| {
            let index = if end == End::Front {
                0
            } else {
                chunk.len() - 1
            };
            let result = take(chunk.get(index));
            if chunk.len() > 1 {
                chunk.remove(index..index + 1);
                return (result, false);
            }
            (result, true)
        });
        if is_empty {
            self.chunks.remove(ordinal);
        }
        result
    }

    /// `index` is that of an element.
    pub(super) fn insert(&mut self, index: usize, side: Side, value: &[u8], limits: ListLimits) {
        let Some((Position { ordinal, offset }, slot)) = self.locate(index) else {
            return;
        };
        let (len, is_plain) = (slot.chunk.len(), slot.chunk.is_plain());
        // Where the new element goes within the chunk, and the neighbour on that side if it goes to the chunk's edge.
        let (cut, neighbour) = match side {
            Side::Before => (offset, (offset == 0).then(|| ordinal.checked_sub(1))),
            Side::After => (offset + 1, (offset + 1 == len).then_some(Some(ordinal + 1))),
        };
        let is_large = limits.is_large(value.len());
        if self.admits(Some(ordinal), value, limits) {
            self.edit(ordinal, |chunk| chunk.insert(cut, Element::new(value)));
        } else if let Some(neighbour) = neighbour {
            match neighbour.filter(|_| self.admits(neighbour, value, limits)) {
                Some(next) if side == Side::After => {
                    self.edit(next, |chunk| chunk.push_front(Element::new(value)))
                }
                Some(previous) => self.edit(previous, |chunk| chunk.push_back(Element::new(value))),
                None => {
                    let chunk = new_chunk(End::Back, value, 0, limits);
                    self.chunks
                        .insert(ordinal + usize::from(side == Side::After), Slot::new(chunk));
                }
            }
        } else {
            debug_assert!(!is_plain, "a plain chunk's only element is at both edges");
            self.split(ordinal, cut);
            if is_large {
                self.chunks
                    .insert(ordinal + 1, Slot::new(Chunk::plain(value)));
            } else if side == Side::After {
                self.edit(ordinal + 1, |chunk| chunk.push_front(Element::new(value)));
                self.join_around(ordinal, limits);
            } else {
                self.edit(ordinal, |chunk| chunk.push_back(Element::new(value)));
                self.join_around(ordinal + 1, limits);
            }
        }
    }

    /// `index` is that of an element.
    pub(super) fn replace(&mut self, index: usize, value: &[u8], limits: ListLimits) {
        let Some((Position { ordinal, offset }, slot)) = self.locate(index) else {
            return;
        };
        let (len, is_plain) = (slot.chunk.len(), slot.chunk.is_plain());
        let is_large = limits.is_large(value.len());
        let fits = !is_large && slot.chunk.data_len() + value.len() <= chunk::MAX_BYTES;
        if is_plain && is_large {
            self.edit(ordinal, |chunk| *chunk = Chunk::plain(value));
        } else if is_plain {
            self.insert(index, Side::After, value, limits);
            self.chunks.remove(ordinal);
        } else if fits {
            self.edit(ordinal, |chunk| chunk.replace(offset, Element::new(value)));
        } else {
            if offset + 1 < len {
                self.split(ordinal, offset + 1);
            }
            self.chunks
                .insert(ordinal + 1, Slot::new(Chunk::plain(value)));
            if offset == 0 {
                self.chunks.remove(ordinal);
            } else {
                self.edit(ordinal, |chunk| chunk.remove(offset..offset + 1));
                self.join_around(ordinal + 1, limits);
            }
        }
    }

    pub(super) fn remove_matches(&mut self, value: Element<'_>, end: End, at_most: usize) -> usize {
        let mut removed = 0;
        let mut ordinal = if end == End::Front {
            0
        } else {
            self.chunks.len()
        };
        while removed < at_most {
            let Some((at, first_match)) = self.next_match(ordinal, value, end) else {
                break;
            };
            ordinal = at;
            let len = first_match.chunk.len();
            let matches = if len == 1 {
                1
            } else {
                self.edit(ordinal, |chunk| {
                    remove_matches(chunk, value, end, at_most - removed)
                })
            };
            removed += matches;
            let is_empty = matches == len;
            if is_empty {
                self.chunks.remove(ordinal);
            }
            ordinal += usize::from(end == End::Front && !is_empty);
        }
        removed
    }

    /// Returns what was before and after the range.
    pub(super) fn trim(&mut self, keep: Range<usize>) -> [Chunked; 2] {
        let after = self.cut(keep.end);
        let middle = self.cut(keep.start);
        [std::mem::replace(self, middle), after]
    }

    /// Cuts off the elements from `index` on.
    fn cut(&mut self, index: usize) -> Chunked {
        let Some((Position { ordinal, offset }, _)) = self.locate(index) else {
            return Chunked::default();
        };
        if offset == 0 {
            return Chunked {
                chunks: self.chunks.split_off(ordinal),
            };
        }
        let right = self.edit(ordinal, |chunk| chunk.split_off(offset));
        let mut chunks = self.chunks.split_off(ordinal + 1);
        chunks.insert(0, Slot::new(right));
        Chunked { chunks }
    }

    /// The next chunk that holds `value`: at or after `ordinal` towards the back, before it towards the front.
    fn next_match(&self, ordinal: usize, value: Element<'_>, end: End) -> Option<(usize, &Slot)> {
        let mut cursor = Cursor::new(&self.chunks, ordinal);
        let mut at = ordinal;
        loop {
            if end == End::Back {
                cursor.retreat();
                at = at.checked_sub(1)?;
            }
            let slot = cursor.item()?;
            if slot.chunk.iter().any(|element| element == value) {
                return Some((at, slot));
            }
            if end == End::Front {
                cursor.advance();
                at += 1;
            }
        }
    }

    /// Joins neighbours that fit into one chunk, around the one that was just split.
    fn join_around(&mut self, mut center: usize, limits: ListLimits) {
        if center >= 2 && self.join(center - 2, limits) {
            center -= 1;
        }
        self.join(center + 1, limits);
        if center >= 1 && self.join(center - 1, limits) {
            center -= 1;
        }
        self.join(center, limits);
    }

    /// Joins the chunk with its successor if the limits allow it.
    fn join(&mut self, ordinal: usize, limits: ListLimits) -> bool {
        let (Some(left), Some(right)) = (self.chunk(ordinal), self.chunk(ordinal + 1)) else {
            return false;
        };
        if left.is_plain() || right.is_plain() {
            return false;
        }
        if limits.exceeded(
            left.weight() + right.weight() - LISTPACK_EMPTY,
            left.len() + right.len(),
        ) {
            return false;
        }
        let right = self.chunks.remove(ordinal + 1);
        self.edit(ordinal, |chunk| chunk.append(&right.chunk));
        true
    }

    fn split(&mut self, ordinal: usize, offset: usize) {
        let right = self.edit(ordinal, |chunk| chunk.split_off(offset));
        self.chunks.insert(ordinal + 1, Slot::new(right));
    }

    fn admits(&self, ordinal: Option<usize>, value: &[u8], limits: ListLimits) -> bool {
        ordinal
            .and_then(|ordinal| self.chunk(ordinal))
            .is_some_and(|chunk| {
                !chunk.is_plain() && limits.admits(chunk.weight(), chunk.len(), value.len())
            })
    }

    /// How large to allocate a chunk that follows on the one at `edge`.
    fn new_capacity(&self, edge: usize) -> usize {
        if self.chunks.len() < FULL_ALLOCATION_FROM {
            return 0;
        }
        self.chunk(edge)
            .filter(|chunk| !chunk.is_plain())
            .map_or(0, Chunk::capacity)
    }

    fn locate(&self, index: usize) -> Option<(Position, &Slot)> {
        let offset = Cell::new(index);
        let stops = |len: usize| {
            let stops = offset.get() < len;
            offset.set(offset.get() - if stops { 0 } else { len });
            stops
        };
        let (ordinal, slot) = self
            .chunks
            .find(|totals| stops(totals.len), |slot| stops(slot.len as usize))?;
        Some((
            Position {
                ordinal,
                offset: offset.get(),
            },
            slot,
        ))
    }

    fn chunk(&self, ordinal: usize) -> Option<&Chunk> {
        self.chunks.get(ordinal).map(Slot::chunk)
    }

    fn edit<R>(&mut self, ordinal: usize, change: impl FnOnce(&mut Chunk) -> R) -> R {
        self.chunks.update(ordinal, |slot| {
            let result = change(&mut slot.chunk);
            slot.len = slot.chunk.len() as u32;
            result
        })
    }
}

impl Slot {
    fn new(chunk: Chunk) -> Slot {
        Slot {
            len: chunk.len() as u32,
            chunk,
        }
    }

    pub(super) fn chunk(&self) -> &Chunk {
        &self.chunk
    }
}

impl Item for Slot {
    type Summary = Totals;
    const LEAF_MAX: usize = 32;

    fn summary(&self) -> Totals {
        Totals {
            len: self.len as usize,
            bytes: self.chunk.allocated_bytes(),
        }
    }
}

impl Summary for Totals {
    fn join(&self, right: &Totals) -> Totals {
        Totals {
            len: self.len + right.len,
            bytes: self.bytes + right.bytes,
        }
    }

    fn adjusted(&self, old: &Totals, new: &Totals, _part_is_last: bool) -> Option<Totals> {
        Some(Totals {
            len: self.len - old.len + new.len,
            bytes: self.bytes - old.bytes + new.bytes,
        })
    }
}

/// Removes up to `at_most` elements equal to `value`, those nearest to `end`. Returns how many.
pub(super) fn remove_matches(
    chunk: &mut Chunk,
    value: Element<'_>,
    end: End,
    at_most: usize,
) -> usize {
    let is_match = |&index: &usize| chunk.get(index) == value;
    let mut matches: Vec<usize> = match end {
        End::Front => (0..chunk.len()).filter(is_match).take(at_most).collect(),
        End::Back => (0..chunk.len())
            .rev()
            .filter(is_match)
            .take(at_most)
            .collect(),
    };
    matches.sort_unstable();
    if matches.len() <= HOLES_CLOSED_ONE_BY_ONE {
        matches
            .iter()
            .rev()
            .for_each(|&index| chunk.remove(index..index + 1));
    } else {
        let is_kept = |index: &usize| matches.binary_search(index).is_err();
        *chunk = Chunk::of(
            (0..chunk.len())
                .filter(is_kept)
                .map(|index| chunk.get(index)),
        );
    }
    matches.len()
}

/// A chunk of one element, ready to grow at one end.
fn new_chunk(grows_at: End, value: &[u8], capacity: usize, limits: ListLimits) -> Chunk {
    if limits.is_large(value.len()) {
        return Chunk::plain(value);
    }
    let mut chunk = Chunk::with_capacity(capacity);
    match grows_at {
        End::Front => chunk.push_front(Element::new(value)),
        End::Back => chunk.push_back(Element::new(value)),
    }
    chunk
}
