//! Arenas: the bytes of a segment's entries, in blocks of one size.
//!
//! All segments of a table fill up at about the same time. Arenas that moved from one size class of the allocator to the
//! next would leave each class half empty behind them; blocks that stay where they are and have one size for every table
//! do not. Only the last block grows, and is given its final size when the next entry does not fit.

use super::{bucket::OFFSET_BITS, entry::ENTRY_MAX};
use crate::value::thin_buffer::allocation_size;

/// Bytes of a block: a size class that fills the allocator's 64 KiB pages well.
const BLOCK: usize = 3584;
const FULL_BLOCKS: usize = 7;
const POSITION_BITS: u32 = 12;
/// Beyond its first such step the last block grows by one at a time.
const STEP: usize = 512;

/// Entries of so many bytes in all fit an arena, in whatever order they come: a block is left for the next one only by
/// an entry that does not fit.
pub(super) const ARENA_MAX: usize = (FULL_BLOCKS + 1) * (BLOCK - ENTRY_MAX);

const _: () =
    assert!(BLOCK <= 1 << POSITION_BITS && FULL_BLOCKS < 1 << (OFFSET_BITS - POSITION_BITS));
const _: () = assert!(BLOCK.is_multiple_of(STEP) && ARENA_MAX >= 16 * ENTRY_MAX);

/// See the module's description. An offset is a block's number and a position in it; an entry does not cross blocks, so
/// inside an entry offsets may be added to.
#[derive(Default)]
pub(super) struct Arena {
    full: [Option<Box<[u8; BLOCK]>>; FULL_BLOCKS],
    /// How many blocks are full.
    closed: u8,
    /// The last block.
    open: Vec<u8>,
}

impl Arena {
    /// The bytes from `offset` to the end of its block.
    #[inline]
    pub(super) fn at(&self, offset: usize) -> &[u8] {
        let (block, position) = split(offset);
        match self.full.get(block) {
            Some(Some(full)) => &full[position..],
            _ => &self.open[position..],
        }
    }

    pub(super) fn at_mut(&mut self, offset: usize) -> &mut [u8] {
        let (block, position) = split(offset);
        match self.full.get_mut(block) {
            Some(Some(full)) => &mut full[position..],
            _ => &mut self.open[position..],
        }
    }

    /// The offset that what is appended next will have.
    pub(super) fn end(&self) -> usize {
        (usize::from(self.closed) << POSITION_BITS) + self.open.len()
    }

    /// Whether an entry of `size` bytes can be appended without allocating.
    pub(super) fn has_room(&self, size: usize) -> bool {
        self.open.len() + size <= self.open.capacity().min(BLOCK)
    }

    /// Whether [`Arena::reserve`] can make room for an entry of `size` bytes.
    pub(super) fn can_reserve(&self, size: usize) -> bool {
        self.open.len() + size <= BLOCK || usize::from(self.closed) < FULL_BLOCKS
    }

    /// Makes room for an entry of `size` bytes, in a new block if it has to, and for as much as can be had of `expected`
    /// bytes in all.
    pub(super) fn reserve(&mut self, size: usize, expected: usize) {
        if self.has_room(size) {
            return;
        }
        if self.open.len() + size > BLOCK {
            self.close();
        }
        let needed = (self.open.len() + expected).min(BLOCK);
        let capacity = if needed <= STEP {
            allocation_size(needed)
        } else {
            needed.next_multiple_of(STEP)
        };
        self.open.reserve_exact(capacity - self.open.len());
    }

    /// Appends part of an entry for which room was made.
    #[inline]
    pub(super) fn append(&mut self, bytes: &[u8]) {
        debug_assert!(self.has_room(bytes.len()), "room is made for whole entries");
        self.open.extend_from_slice(bytes);
    }

    /// Appends a copy of the bytes from `start` to `end`, which are of one entry, for which room was made.
    pub(super) fn append_copy(&mut self, start: usize, end: usize) {
        let (block, position) = split(start);
        let range = position..position + (end - start);
        match self.full.get(block) {
            Some(Some(full)) => self.open.extend_from_slice(&full[range]),
            _ => self.open.extend_from_within(range),
        }
    }

    /// Bytes on the heap.
    #[inline]
    pub(super) fn memory_bytes(&self) -> usize {
        usize::from(self.closed) * BLOCK + allocation_size(self.open.capacity())
    }

    fn close(&mut self) {
        let mut block = std::mem::take(&mut self.open);
        block.reserve_exact(BLOCK - block.len());
        block.resize(BLOCK, 0);
        let block = block
            .into_boxed_slice()
            .try_into()
            .expect("resized to a block");
        self.full[usize::from(self.closed)] = Some(block);
        self.closed += 1;
    }
}

impl Clone for Arena {
    fn clone(&self) -> Self {
        let mut open = Vec::with_capacity(self.open.capacity());
        open.extend_from_slice(&self.open);
        Arena {
            full: self.full.clone(),
            closed: self.closed,
            open,
        }
    }
}

#[inline]
fn split(offset: usize) -> (usize, usize) {
    (offset >> POSITION_BITS, offset & ((1 << POSITION_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stay_where_they_were_put_until_the_arena_is_full() {
        for size in [1, 17, 50, 513, ENTRY_MAX] {
            let mut arena = Arena::default();
            let mut offsets = Vec::new();
            while offsets.len() * size + size <= ARENA_MAX {
                assert!(arena.can_reserve(size));
                arena.reserve(size, size);
                offsets.push(arena.end());
                arena.append(&vec![offsets.len() as u8; size]);
            }
            let clone = arena.clone();
            assert_eq!(clone.memory_bytes(), arena.memory_bytes());
            for (index, &offset) in offsets.iter().enumerate() {
                let expected = vec![(index as u8).wrapping_add(1); size];
                assert!(
                    arena.at(offset)[..size] == expected && clone.at(offset)[..size] == expected
                );
                assert!(offset < 1 << OFFSET_BITS);
            }
        }
    }
}
