//! The tree's leaves by number.
//!
//! The member index says in which leaf a member is; a number says so in four bytes, and stays the same while the tree
//! above changes. Leaves stand in chunks of fixed size under a spine, both shared with clones until written. So a clone
//! is O(1); the first write after it copies the spine (a pointer per ten thousand members), and a write to a chunk
//! that is still shared copies that.

use triomphe::Arc;

use super::block::Block;

const CHUNK_BITS: u32 = 7;
const CHUNK_SLOTS: usize = 1 << CHUNK_BITS;

/// Ends the list of free numbers.
const NONE: u32 = u32::MAX;

/// Reference count and vector.
const CHUNK_OVERHEAD_BYTES: usize = 8 + size_of::<Vec<Slot>>();

#[derive(Clone)]
pub(super) struct Leaves {
    chunks: Arc<Vec<Arc<Vec<Slot>>>>,
    /// Numbers given out so far, free ones included.
    slots: usize,
    first_free: u32,
    block_bytes: usize,
}

#[derive(Clone)]
enum Slot {
    Leaf(Block),
    /// Names the next free number.
    Free(u32),
}

impl Leaves {
    pub(super) fn new() -> Self {
        Leaves {
            chunks: Arc::new(Vec::new()),
            slots: 0,
            first_free: NONE,
            block_bytes: 0,
        }
    }

    /// Whether no leaf was changed since one was cloned from the other.
    pub(super) fn is_same_version(&self, other: &Leaves) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks)
    }

    #[inline]
    pub(super) fn get(&self, leaf: u32) -> &Block {
        match &self.chunks[leaf as usize >> CHUNK_BITS][leaf as usize % CHUNK_SLOTS] {
            Slot::Leaf(block) => block,
            Slot::Free(_) => unreachable!("a free number is not used"),
        }
    }

    #[inline]
    pub(super) fn edit<R>(&mut self, leaf: u32, edit: impl FnOnce(&mut Block) -> R) -> R {
        let Slot::Leaf(block) = self.slot_mut(leaf) else {
            unreachable!("a free number is not used");
        };
        let before = block.heap_bytes();
        let result = edit(block);
        let after = block.heap_bytes();
        self.block_bytes = self.block_bytes - before + after;
        result
    }

    pub(super) fn add(&mut self, block: Block) -> u32 {
        self.block_bytes += block.heap_bytes();
        if self.first_free != NONE {
            let leaf = self.first_free;
            let slot = std::mem::replace(self.slot_mut(leaf), Slot::Leaf(block));
            match slot {
                Slot::Free(next) => self.first_free = next,
                Slot::Leaf(_) => unreachable!("the list holds free numbers only"),
            }
            return leaf;
        }
        let leaf = u32::try_from(self.slots).expect("four billion leaves exceed any memory");
        assert!(leaf != NONE);
        let chunks = Arc::make_mut(&mut self.chunks);
        if self.slots.is_multiple_of(CHUNK_SLOTS) {
            chunks.push(Arc::new(Vec::new()));
        }
        let chunk = chunks.last_mut().expect("pushed when the last was full");
        Arc::make_mut(chunk).push(Slot::Leaf(block));
        self.slots += 1;
        leaf
    }

    pub(super) fn free(&mut self, leaf: u32) {
        let next = self.first_free;
        match std::mem::replace(self.slot_mut(leaf), Slot::Free(next)) {
            Slot::Leaf(block) => self.block_bytes -= block.heap_bytes(),
            Slot::Free(_) => unreachable!("a free number is not used"),
        }
        self.first_free = leaf;
    }

    /// O(1).
    pub(super) fn heap_bytes(&self) -> usize {
        let spine = CHUNK_OVERHEAD_BYTES + self.chunks.capacity() * size_of::<Arc<Vec<Slot>>>();
        let full_chunks = self.slots / CHUNK_SLOTS * chunk_bytes(CHUNK_SLOTS);
        let last_chunk = match self.slots % CHUNK_SLOTS {
            0 => 0,
            slots => chunk_bytes(slots),
        };
        self.block_bytes + spine + full_chunks + last_chunk
    }

    #[inline]
    fn slot_mut(&mut self, leaf: u32) -> &mut Slot {
        let chunk = &mut Arc::make_mut(&mut self.chunks)[leaf as usize >> CHUNK_BITS];
        &mut Arc::make_mut(chunk)[leaf as usize % CHUNK_SLOTS]
    }

    #[cfg(test)]
    pub(super) fn check(&self, used: &[u32]) {
        let mut state = vec![false; self.slots];
        let mut block_bytes = 0;
        for leaf in used {
            assert!(!std::mem::replace(&mut state[*leaf as usize], true));
            block_bytes += self.get(*leaf).heap_bytes();
        }
        let mut free = self.first_free;
        while free != NONE {
            assert!(!std::mem::replace(&mut state[free as usize], true));
            match &self.chunks[free as usize / CHUNK_SLOTS][free as usize % CHUNK_SLOTS] {
                Slot::Free(next) => free = *next,
                Slot::Leaf(_) => panic!("leaf {free} is in the list of free numbers"),
            }
        }
        assert!(
            state.iter().all(|seen| *seen),
            "every number is used or free"
        );
        assert_eq!(block_bytes, self.block_bytes);
    }
}

/// A chunk's vector grows by doubling.
fn chunk_bytes(slots: usize) -> usize {
    CHUNK_OVERHEAD_BYTES + slots.next_power_of_two().max(4) * size_of::<Slot>()
}
