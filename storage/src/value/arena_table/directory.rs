//! Directories: what finds the segment of a hash, in two levels.
//!
//! The root holds chunks, a chunk holds up to 256 segments. Both levels are the same thing, extendible hashing's
//! directory: `2^depth` slots indexed by the next `depth` bits of the hash, where an item that is responsible for a range
//! of slots sits in the first of them and the others are empty. As ranges are aligned powers of two, clearing an index's
//! lowest set bit until a slot is filled leads to the item. Having each item once keeps its reference count at one, which
//! is how "shared with a clone" is recognised. Two levels bound what the first write after a clone has to copy: the root
//! and one chunk, not the whole directory.

use triomphe::Arc;

use super::{entry::NEVER, segment::FullSegment};

/// Segments in a chunk are told apart by at most this many bits.
const CHUNK_DEPTH: u32 = 8;
/// Slots of a chunk at most.
pub(super) const CHUNK_SLOTS: usize = 1 << CHUNK_DEPTH;
/// Chunks up to this deep may join.
const JOIN_DEPTH: u32 = CHUNK_DEPTH - 2;

/// See the module's description. Invariants: a power of two of slots, the first filled.
#[derive(Clone)]
pub(super) struct Directory<T> {
    slots: Vec<Option<Arc<T>>>,
}

impl<T: Clone> Directory<T> {
    pub(super) fn new(item: T) -> Self {
        Directory {
            slots: vec![Some(Arc::new(item))],
        }
    }

    #[inline]
    pub(super) fn slots(&self) -> &[Option<Arc<T>>] {
        &self.slots
    }

    #[inline]
    fn depth(&self) -> u32 {
        self.slots.len().trailing_zeros()
    }

    /// The slot of the item responsible for hashes that begin with these bits.
    #[inline]
    fn locate(&self, bits: u64) -> usize {
        // In two steps, as the first directory has depth 0 and a shift by 64 is not allowed.
        let mut index = ((bits >> 1) >> (63 - self.depth())) as usize;
        while self.slots[index].is_none() {
            index &= index - 1;
        }
        index
    }

    #[inline]
    fn at(&self, index: usize) -> &Arc<T> {
        self.slots[index]
            .as_ref()
            .expect("located slots are filled")
    }

    #[inline]
    fn at_mut(&mut self, index: usize) -> &mut Arc<T> {
        self.slots[index]
            .as_mut()
            .expect("located slots are filled")
    }

    fn take(&mut self, index: usize) -> Arc<T> {
        self.slots[index].take().expect("located slots are filled")
    }

    fn put(&mut self, index: usize, item: T) {
        self.slots[index] = Some(Arc::new(item));
    }

    /// Tells items apart by one bit more.
    fn double(&mut self) {
        let mut slots = Vec::with_capacity(self.slots.len() * 2);
        for slot in self.slots.drain(..) {
            slots.push(slot);
            slots.push(None);
        }
        self.slots = slots;
    }

    /// Drops bits that no two items need to be told apart by.
    fn shrink(&mut self) {
        while self.slots.len() > 1 && self.slots.iter().skip(1).step_by(2).all(Option::is_none) {
            self.slots = self.slots.drain(..).step_by(2).collect();
        }
    }

    fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Option<Arc<T>>>()
    }
}

/// The segments of the hashes that share `prefix_bits` top bits.
#[derive(Clone)]
pub(super) struct Chunk {
    prefix_bits: u32,
    /// No entry of any segment expires before this.
    pub(super) earliest: i64,
    pub(super) segments: Directory<FullSegment>,
}

impl Chunk {
    #[inline]
    fn locate(&self, hash: u64) -> usize {
        self.segments.locate(hash << self.prefix_bits)
    }

    /// How many slots the segment in slot `index` is responsible for.
    fn span(&self, index: usize) -> usize {
        let depth = u32::from(self.segments.at(index).depth);
        1 << (self.prefix_bits + self.segments.depth() - depth)
    }

    #[cfg(test)]
    pub(super) fn check(&self) -> usize {
        let mut next = 0;
        for (index, segment) in self.segments.slots.iter().enumerate() {
            assert_eq!(segment.is_some(), index == next);
            if let Some(segment) = segment {
                next = index + self.span(index);
                assert!(self.earliest <= segment.earliest);
            }
        }
        assert_eq!(next, self.segments.slots.len());
        self.bytes()
    }

    fn split_segment(&mut self, index: usize) {
        let span = self.span(index);
        let (low, high) = self.segments.at(index).split();
        self.segments.put(index, low);
        self.segments.put(index + span / 2, high);
    }

    /// The chunk in two, by the next bit of the hash.
    fn split(mut self) -> (Chunk, Chunk) {
        let high = self.segments.slots.split_off(self.segments.slots.len() / 2);
        let half = |slots| Chunk {
            prefix_bits: self.prefix_bits + 1,
            earliest: self.earliest,
            segments: Directory { slots },
        };
        let low = std::mem::take(&mut self.segments.slots);
        (half(low), half(high))
    }

    /// The chunks of two neighbouring prefixes in one.
    fn joined(low: Chunk, high: Chunk) -> Chunk {
        let depth = low.segments.depth().max(high.segments.depth());
        let earliest = low.earliest.min(high.earliest);
        let prefix_bits = low.prefix_bits - 1;
        let mut slots = Vec::with_capacity(2 << depth);
        for mut chunk in [low, high] {
            while chunk.segments.depth() < depth {
                chunk.segments.double();
            }
            slots.append(&mut chunk.segments.slots);
        }
        Chunk {
            prefix_bits,
            earliest,
            segments: Directory { slots },
        }
    }

    /// Whether the segment of `hash` and its buddy, the other half of what was one segment, are both sparse.
    fn can_join_segment(&self, hash: u64) -> bool {
        let index = self.locate(hash);
        let span = self.span(index);
        if span == self.segments.slots.len() {
            return false;
        }
        let one = self.segments.at(index);
        let buddy = self.segments.slots[index ^ span].as_ref();
        buddy.is_some_and(|other| one.depth == other.depth && one.could_join(other))
    }

    /// Joins the segment of `hash` with its buddy, after [`Chunk::can_join_segment`].
    fn join_segment(&mut self, hash: u64) {
        let index = self.locate(hash);
        let buddy = index ^ self.span(index);
        let (low, high) = (
            self.segments.take(index.min(buddy)),
            self.segments.take(index.max(buddy)),
        );
        let joined = FullSegment::gathered(&[&*low, &*high], low.depth - 1);
        self.segments.put(index.min(buddy), joined);
        self.segments.shrink();
    }

    #[inline]
    pub(super) fn segment_arc(&mut self, hash: u64) -> &mut Arc<FullSegment> {
        let index = self.locate(hash);
        self.segments.at_mut(index)
    }

    fn bytes(&self) -> usize {
        size_of::<Chunk>() + self.segments.bytes()
    }

    /// The earliest deadline of any segment, as far as they know.
    fn find_earliest(&self) -> i64 {
        let segments = self.segments.slots.iter().flatten();
        segments
            .map(|segment| segment.earliest)
            .min()
            .unwrap_or(NEVER)
    }
}

/// The first level, and with it the whole directory.
#[derive(Clone)]
pub(super) struct Root {
    pub(super) chunks: Directory<Chunk>,
    /// Bytes of all slots and chunks, without the segments.
    bytes: usize,
}

impl Root {
    pub(super) fn with_segment(segment: FullSegment) -> Self {
        let earliest = segment.earliest;
        let chunk = Chunk {
            prefix_bits: 0,
            earliest,
            segments: Directory::new(segment),
        };
        let mut root = Root {
            chunks: Directory::new(chunk),
            bytes: 0,
        };
        root.bytes = size_of::<Root>() + root.chunks.bytes() + root.chunks.at(0).bytes();
        root
    }

    /// Bytes of the directories, without the segments. O(1).
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes
    }

    #[inline]
    pub(super) fn chunk_mut(&mut self, hash: u64) -> &mut Chunk {
        let index = self.chunks.locate(hash);
        Arc::make_mut(self.chunks.at_mut(index))
    }

    #[inline]
    pub(super) fn chunk(&self, hash: u64) -> &Chunk {
        self.chunks.at(self.chunks.locate(hash))
    }

    #[inline]
    pub(super) fn segment(&self, hash: u64) -> &FullSegment {
        let chunk = self.chunk(hash);
        chunk.segments.at(chunk.locate(hash))
    }

    /// The only segment, if there is only one.
    pub(super) fn only_segment(&self) -> Option<&FullSegment> {
        let [Some(chunk)] = self.chunks.slots() else {
            return None;
        };
        let [Some(segment)] = chunk.segments.slots() else {
            return None;
        };
        Some(segment)
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut next = 0;
        let mut bytes = size_of::<Root>() + self.chunks.bytes();
        for (index, chunk) in self.chunks.slots.iter().enumerate() {
            assert_eq!(chunk.is_some(), index == next);
            if let Some(chunk) = chunk {
                next = index + (1 << (self.chunks.depth() - chunk.prefix_bits));
                bytes += chunk.check();
            }
        }
        assert_eq!((next, bytes), (self.chunks.slots.len(), self.bytes));
    }

    /// Splits the segment of `hash`, and the directories as far as that needs it.
    pub(super) fn split_segment(&mut self, hash: u64) {
        loop {
            let index = self.chunks.locate(hash);
            let chunk = self.chunks.at(index);
            let segment = chunk.locate(hash);
            if chunk.span(segment) > 1 {
                return Arc::make_mut(self.chunks.at_mut(index)).split_segment(segment);
            }
            if chunk.segments.depth() < CHUNK_DEPTH {
                self.bytes += chunk.segments.bytes();
                Arc::make_mut(self.chunks.at_mut(index)).segments.double();
                continue;
            }
            let prefix_bits = chunk.prefix_bits;
            if prefix_bits == self.chunks.depth() {
                self.bytes += self.chunks.bytes();
                self.chunks.double();
                continue;
            }
            let span = 1 << (self.chunks.depth() - prefix_bits);
            self.bytes += size_of::<Chunk>();
            let (low, high) = Arc::unwrap_or_clone(self.chunks.take(index)).split();
            self.chunks.put(index, low);
            self.chunks.put(index + span / 2, high);
        }
    }

    /// Joins the segment of `hash` with its buddy, after [`Root::can_join_segment`], and the directories as far as that
    /// allows it.
    pub(super) fn join_segment(&mut self, hash: u64) {
        let index = self.chunks.locate(hash);
        self.bytes -= self.chunks.at(index).bytes();
        Arc::make_mut(self.chunks.at_mut(index)).join_segment(hash);
        self.bytes += self.chunks.at(index).bytes();
        while self.join_chunk(hash) {}
        self.bytes -= self.chunks.bytes();
        self.chunks.shrink();
        self.bytes += self.chunks.bytes();
    }

    /// Whether the segment of `hash` and its buddy are both sparse.
    pub(super) fn can_join_segment(&self, hash: u64) -> bool {
        self.chunk(hash).can_join_segment(hash)
    }

    /// The first hash of the chunk behind that of `hash`; none behind the last.
    pub(super) fn after_chunk(&self, hash: u64) -> Option<u64> {
        next_range(hash, self.chunk(hash).prefix_bits)
    }

    /// Takes the earliest deadline of the chunk of `hash` from its segments.
    pub(super) fn settle_chunk(&mut self, hash: u64) {
        self.chunk_mut(hash).earliest = self.chunk(hash).find_earliest();
    }

    fn join_chunk(&mut self, hash: u64) -> bool {
        let index = self.chunks.locate(hash);
        let chunk = self.chunks.at(index);
        if chunk.prefix_bits == 0 {
            return false;
        }
        let buddy = index ^ (1 << (self.chunks.depth() - chunk.prefix_bits));
        let Some(other) = &self.chunks.slots[buddy] else {
            return false;
        };
        let both_small = chunk.segments.depth().max(other.segments.depth()) <= JOIN_DEPTH;
        if chunk.prefix_bits != other.prefix_bits || !both_small {
            return false;
        }
        self.bytes -= chunk.bytes() + other.bytes();
        let low = Arc::unwrap_or_clone(self.chunks.take(index.min(buddy)));
        let high = Arc::unwrap_or_clone(self.chunks.take(index.max(buddy)));
        let joined = Chunk::joined(low, high);
        self.bytes += joined.bytes();
        self.chunks.put(index.min(buddy), joined);
        true
    }
}

/// The first hash behind all that share the top `depth` bits with `hash`; none behind the last.
pub(super) fn next_range(hash: u64, depth: u32) -> Option<u64> {
    if depth == 0 {
        return None;
    }
    let range = 1 << (64 - depth);
    (hash & !(range - 1)).checked_add(range)
}
