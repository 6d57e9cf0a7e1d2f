//! From a member's hash to the leaf that holds it: eight bytes per member, and no copy of it.
//!
//! A slot is the hash's upper 32 bits and a leaf's number. Slots stand in segments, sorted by hash and without gaps, so
//! that a segment is filled to the allocator's size class, splits by cutting it in two, and is searched by guessing: as
//! hashes are uniform, a slot is within a few of where its hash says, mostly in the cache line that the guess reads.
//!
//! Directories choose the segment by eight bits of the hash each, up to four deep. One grows by doubling, to 256
//! children; a segment whose prefix is shorter than the directory's bits fills several places, all but the first of
//! which point back. No operation handles more than one segment and one directory per level, and both are shared with
//! clones until written. Order by hash is also what makes SCAN exact: a member keeps its place however often its
//! score changes.

use triomphe::Arc;

use crate::hash::hash;

use super::block::{class_for, is_wasteful};

/// Slots in a segment before it splits: with the reference count, 2 KiB.
const MAX_SEGMENT_SLOTS: usize = 255;

/// A segment with fewer slots joins its buddy if they hold [`MERGED_SLOTS`] at most together.
const SPARSE_SLOTS: usize = 48;
const MERGED_SLOTS: usize = 128;

/// Slots per segment that a bulk build aims at, before the last doubling.
const BUILT_SLOTS: usize = 200;

/// Bits that one level of directories chooses by.
const DIRECTORY_BITS: u32 = 8;

/// Bits of the hash that are kept.
const HASH_BITS: u32 = 32;

const REFERENCE_COUNT_BYTES: usize = 8;
const SLOT_BYTES: usize = 8;

#[derive(Clone)]
pub(super) struct MemberIndex {
    root: Arc<Directory>,
    heap_bytes: usize,
}

#[derive(Clone)]
struct Directory {
    /// There are `1 << bits` children.
    bits: u32,
    children: Vec<Child>,
}

#[derive(Clone)]
enum Child {
    Segment(Segment),
    /// Only in a directory of [`DIRECTORY_BITS`].
    Directory(Arc<Directory>),
    /// Belongs to the segment at the first place that shares `depth` bits with this one.
    Continued {
        depth: u8,
    },
}

#[derive(Clone)]
struct Segment {
    /// The first `len` are in use, sorted by hash.
    slots: Arc<[u64]>,
    len: u32,
    /// How many of the directory's bits all its slots share.
    depth: u8,
}

/// The part of a member's hash that is kept.
#[inline]
pub(super) fn fingerprint(member: &[u8]) -> u32 {
    (hash(member) >> HASH_BITS) as u32
}

#[inline]
pub(super) fn slot(fingerprint: u32, leaf: u32) -> u64 {
    u64::from(fingerprint) << 32 | u64::from(leaf)
}

#[inline]
pub(super) fn slot_fingerprint(slot: u64) -> u32 {
    (slot >> 32) as u32
}

impl MemberIndex {
    /// An index of these slots, which must be sorted.
    pub(super) fn from_sorted(slots: &[u64]) -> Self {
        let mut heap_bytes = 0;
        let root = Arc::new(Directory::build(slots, 0, &mut heap_bytes));
        MemberIndex { root, heap_bytes }
    }

    /// O(1).
    pub(super) fn heap_bytes(&self) -> usize {
        self.heap_bytes
    }

    /// The leaves that may hold a member with this fingerprint.
    #[inline]
    pub(super) fn candidates(&self, fingerprint: u32) -> impl Iterator<Item = u32> {
        let (segment, prefix_bits) = self.segment(fingerprint);
        let slots = segment.slots();
        let from = segment.lower_bound(fingerprint, prefix_bits);
        slots[from..]
            .iter()
            .take_while(move |slot| slot_fingerprint(**slot) == fingerprint)
            .map(|slot| *slot as u32)
    }

    pub(super) fn insert(&mut self, fingerprint: u32, leaf: u32) {
        let slot = slot(fingerprint, leaf);
        insert(&mut self.root, 0, slot, &mut self.heap_bytes);
    }

    /// Removes one slot that says so; there must be one.
    pub(super) fn remove(&mut self, fingerprint: u32, leaf: u32) {
        let slot = slot(fingerprint, leaf);
        remove(&mut self.root, 0, slot, &mut self.heap_bytes);
    }

    /// Makes one slot that says `from` say `to`; there must be one.
    pub(super) fn repoint(&mut self, fingerprint: u32, from: u32, to: u32) {
        let mut directory = &mut self.root;
        let mut consumed = 0;
        loop {
            let node = Arc::make_mut(directory);
            let place = node.place(fingerprint, consumed);
            match &mut node.children[place] {
                Child::Directory(child) => directory = child,
                Child::Segment(segment) => {
                    let prefix_bits = consumed + u32::from(segment.depth);
                    let at = segment.find(slot(fingerprint, from), prefix_bits);
                    segment.slots_mut()[at] = slot(fingerprint, to);
                    return;
                }
                Child::Continued { .. } => unreachable!("`place` is where a segment begins"),
            }
            consumed += DIRECTORY_BITS;
        }
    }

    /// Visits `(fingerprint, leaf)` of the slots from this fingerprint on, in order, while `visit` says so.
    pub(super) fn scan(&self, from: u32, mut visit: impl FnMut(u32, u32) -> bool) {
        let mut from = u64::from(from);
        while let Ok(fingerprint) = u32::try_from(from) {
            let (segment, prefix_bits) = self.segment(fingerprint);
            let first = segment.lower_bound(fingerprint, prefix_bits);
            for slot in &segment.slots()[first..] {
                if !visit(slot_fingerprint(*slot), *slot as u32) {
                    return;
                }
            }
            let covered_bits = HASH_BITS - prefix_bits;
            from = ((from >> covered_bits) + 1) << covered_bits;
        }
    }

    /// The segment for this fingerprint, and how many bits all its slots share.
    #[inline]
    fn segment(&self, fingerprint: u32) -> (&Segment, u32) {
        let mut directory = &self.root;
        let mut consumed = 0;
        loop {
            match &directory.children[directory.place(fingerprint, consumed)] {
                Child::Directory(child) => directory = child,
                Child::Segment(segment) => return (segment, consumed + u32::from(segment.depth)),
                Child::Continued { .. } => unreachable!("`place` is where a segment begins"),
            }
            consumed += DIRECTORY_BITS;
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self) -> usize {
        let (len, heap_bytes) = self.root.check(0, 0);
        assert_eq!(heap_bytes, self.heap_bytes);
        len
    }
}

fn insert(directory: &mut Arc<Directory>, consumed: u32, slot: u64, heap_bytes: &mut usize) {
    let node = Arc::make_mut(directory);
    loop {
        let place = node.place(slot_fingerprint(slot), consumed);
        match &mut node.children[place] {
            Child::Directory(child) => {
                return insert(child, consumed + DIRECTORY_BITS, slot, heap_bytes);
            }
            Child::Segment(segment) => {
                let prefix_bits = consumed + u32::from(segment.depth);
                // Slots with one and the same hash cannot be split; such a segment grows on.
                if segment.slots().len() < MAX_SEGMENT_SLOTS || prefix_bits == HASH_BITS {
                    return segment.insert(slot, prefix_bits, heap_bytes);
                }
                node.make_room(place, consumed, heap_bytes);
            }
            Child::Continued { .. } => unreachable!("`place` is where a segment begins"),
        }
    }
}

/// Removes the slot; says what the directory has become if it is down to one segment.
fn remove(
    directory: &mut Arc<Directory>,
    consumed: u32,
    slot: u64,
    heap_bytes: &mut usize,
) -> Option<Segment> {
    let node = Arc::make_mut(directory);
    let place = node.place(slot_fingerprint(slot), consumed);
    match &mut node.children[place] {
        Child::Directory(child) => {
            let mut left = remove(child, consumed + DIRECTORY_BITS, slot, heap_bytes)?;
            *heap_bytes -= child.heap_bytes();
            left.depth = DIRECTORY_BITS as u8;
            node.children[place] = Child::Segment(left);
        }
        Child::Segment(segment) => {
            let prefix_bits = consumed + u32::from(segment.depth);
            segment.remove(slot, prefix_bits, heap_bytes);
            if segment.slots().len() >= SPARSE_SLOTS || !node.merge(place, heap_bytes) {
                return None;
            }
        }
        Child::Continued { .. } => unreachable!("`place` is where a segment begins"),
    }
    match &node.children[0] {
        Child::Segment(segment) if segment.depth == 0 => Some(segment.clone()),
        _ => None,
    }
}

impl Directory {
    fn build(slots: &[u64], consumed: u32, heap_bytes: &mut usize) -> Self {
        let mut bits = slots
            .len()
            .div_ceil(BUILT_SLOTS)
            .next_power_of_two()
            .ilog2();
        bits = bits.min(DIRECTORY_BITS);
        loop {
            let parts = Self::partition(slots, consumed, bits);
            if bits < DIRECTORY_BITS && parts.iter().any(|part| part.len() > MAX_SEGMENT_SLOTS) {
                bits += 1;
                continue;
            }
            let inner_bits = consumed + bits;
            let children = parts.into_iter().map(|part| {
                if part.len() > MAX_SEGMENT_SLOTS && inner_bits < HASH_BITS {
                    return Child::Directory(Arc::new(Self::build(part, inner_bits, heap_bytes)));
                }
                Child::Segment(Segment::new(&[part], bits, heap_bytes))
            });
            let directory = Directory {
                bits,
                children: children.collect(),
            };
            *heap_bytes += directory.heap_bytes();
            return directory;
        }
    }

    /// The slots of each child of a directory with so many bits.
    fn partition(mut slots: &[u64], consumed: u32, bits: u32) -> Vec<&[u64]> {
        let mut parts = Vec::with_capacity(1 << bits);
        for place in 0..1 << bits {
            let end = slots
                .partition_point(|slot| digit(slot_fingerprint(*slot), consumed, bits) <= place);
            let (part, rest) = slots.split_at(end);
            parts.push(part);
            slots = rest;
        }
        parts
    }

    /// The child for this fingerprint, where it begins.
    #[inline]
    fn place(&self, fingerprint: u32, consumed: u32) -> usize {
        let place = digit(fingerprint, consumed, self.bits);
        match self.children[place] {
            Child::Continued { depth } => place & !(self.run(depth) - 1),
            _ => place,
        }
    }

    /// How many places a segment of this depth fills.
    #[inline]
    fn run(&self, depth: u8) -> usize {
        1 << (self.bits - u32::from(depth))
    }

    fn heap_bytes(&self) -> usize {
        REFERENCE_COUNT_BYTES + size_of::<Self>() + self.children.len() * size_of::<Child>()
    }

    /// Takes a step towards splitting the full segment at `place`: doubles the directory if that segment fills but one
    /// place, puts it into a directory of its own if this one has all its bits, or else splits it.
    fn make_room(&mut self, place: usize, consumed: u32, heap_bytes: &mut usize) {
        let Child::Segment(segment) = &self.children[place] else {
            unreachable!("called for a segment");
        };
        if u32::from(segment.depth) < self.bits {
            return self.split(place, consumed, heap_bytes);
        }
        *heap_bytes -= self.heap_bytes();
        if self.bits < DIRECTORY_BITS {
            let mut children = Vec::with_capacity(self.children.len() * 2);
            for child in self.children.drain(..) {
                let depth = match &child {
                    Child::Segment(segment) => segment.depth,
                    Child::Continued { depth } => *depth,
                    Child::Directory(_) => unreachable!("only under a directory with all its bits"),
                };
                children.extend([child, Child::Continued { depth }]);
            }
            self.bits += 1;
            self.children = children;
        } else {
            let segment = Segment {
                depth: 0,
                ..segment.clone()
            };
            let directory = Directory {
                bits: 0,
                children: vec![Child::Segment(segment)],
            };
            *heap_bytes += directory.heap_bytes();
            self.children[place] = Child::Directory(Arc::new(directory));
        }
        *heap_bytes += self.heap_bytes();
    }

    fn split(&mut self, place: usize, consumed: u32, heap_bytes: &mut usize) {
        let Child::Segment(segment) = &self.children[place] else {
            unreachable!("called for a segment");
        };
        let depth = segment.depth + 1;
        let run = self.run(depth);
        let middle = place + run;
        let slots = segment.slots();
        let cut = slots
            .partition_point(|slot| digit(slot_fingerprint(*slot), consumed, self.bits) < middle);
        let low = Segment::new(&[&slots[..cut]], u32::from(depth), heap_bytes);
        let high = Segment::new(&[&slots[cut..]], u32::from(depth), heap_bytes);
        *heap_bytes -= segment.heap_bytes();
        self.children[place..middle + run].fill(Child::Continued { depth });
        self.children[place] = Child::Segment(low);
        self.children[middle] = Child::Segment(high);
    }

    /// Joins the segment at `place` with its buddy, the one it would have been split from; says whether it did.
    fn merge(&mut self, place: usize, heap_bytes: &mut usize) -> bool {
        let Child::Segment(segment) = &self.children[place] else {
            unreachable!("called for a segment");
        };
        if segment.depth == 0 {
            return false;
        }
        let run = self.run(segment.depth);
        let (low, high) = (place & !run, place | run);
        let (Child::Segment(first), Child::Segment(second)) =
            (&self.children[low], &self.children[high])
        else {
            return false;
        };
        if first.depth != second.depth || first.slots().len() + second.slots().len() > MERGED_SLOTS
        {
            return false;
        }
        let depth = first.depth - 1;
        let merged = Segment::new(
            &[first.slots(), second.slots()],
            u32::from(depth),
            heap_bytes,
        );
        *heap_bytes -= first.heap_bytes() + second.heap_bytes();
        self.children[low..high + run].fill(Child::Continued { depth });
        self.children[low] = Child::Segment(merged);
        self.halve(heap_bytes);
        true
    }

    /// Drops the last bit while no segment needs it.
    fn halve(&mut self, heap_bytes: &mut usize) {
        let is_continued = |child: &Child| matches!(child, Child::Continued { .. });
        while self.bits > 0 && self.children.iter().skip(1).step_by(2).all(is_continued) {
            *heap_bytes -= self.heap_bytes();
            self.bits -= 1;
            self.children = self.children.iter().step_by(2).cloned().collect();
            *heap_bytes += self.heap_bytes();
        }
    }

    #[cfg(test)]
    fn check(&self, consumed: u32, prefix: u32) -> (usize, usize) {
        let (mut len, mut heap_bytes) = (0, self.heap_bytes());
        assert_eq!(self.children.len(), 1 << self.bits);
        let mut place = 0;
        while place < self.children.len() {
            let prefix = u64::from(prefix) << self.bits | place as u64;
            match &self.children[place] {
                Child::Directory(child) => {
                    assert_eq!(self.bits, DIRECTORY_BITS);
                    let below = child.check(consumed + DIRECTORY_BITS, prefix as u32);
                    len += below.0;
                    heap_bytes += below.1;
                    place += 1;
                }
                Child::Segment(segment) => {
                    let run = self.run(segment.depth);
                    assert_eq!(place % run, 0);
                    for follower in &self.children[place + 1..place + run] {
                        assert!(
                            matches!(follower, Child::Continued { depth } if *depth == segment.depth)
                        );
                    }
                    let shared_bits = consumed + u32::from(segment.depth);
                    let shared = prefix >> (self.bits - u32::from(segment.depth));
                    let slots = segment.slots();
                    for slot in slots {
                        let fingerprint = u64::from(slot_fingerprint(*slot));
                        assert_eq!(fingerprint >> (HASH_BITS - shared_bits), shared);
                    }
                    assert!(slots.is_sorted_by_key(|slot| slot_fingerprint(*slot)));
                    len += slots.len();
                    heap_bytes += segment.heap_bytes();
                    place += run;
                }
                Child::Continued { .. } => panic!("a run has no beginning"),
            }
        }
        (len, heap_bytes)
    }
}

/// The `bits` bits of the fingerprint that follow the `consumed` ones.
#[inline]
fn digit(fingerprint: u32, consumed: u32, bits: u32) -> usize {
    (remaining(fingerprint, consumed) >> (HASH_BITS - bits)) as usize
}

/// The fingerprint without its first bits, moved up in their place.
#[inline]
fn remaining(fingerprint: u32, consumed: u32) -> u64 {
    u64::from((u64::from(fingerprint) << consumed) as u32)
}

impl Segment {
    fn new(parts: &[&[u64]], depth: u32, heap_bytes: &mut usize) -> Self {
        let len = parts.iter().map(|part| part.len()).sum();
        let mut slots = Vec::with_capacity(capacity_for(len));
        for part in parts {
            slots.extend_from_slice(part);
        }
        let segment = Segment {
            slots: seal(slots, len),
            len: len as u32,
            depth: depth as u8,
        };
        *heap_bytes += segment.heap_bytes();
        segment
    }

    #[inline]
    fn slots(&self) -> &[u64] {
        &self.slots[..self.len as usize]
    }

    fn slots_mut(&mut self) -> &mut [u64] {
        if !self.slots.is_unique() {
            self.slots = Arc::from(&*self.slots);
        }
        Arc::get_mut(&mut self.slots).expect("made unique above")
    }

    fn heap_bytes(&self) -> usize {
        REFERENCE_COUNT_BYTES + self.slots.len() * SLOT_BYTES
    }

    /// The first slot with this fingerprint or a greater one.
    #[inline]
    fn lower_bound(&self, fingerprint: u32, prefix_bits: u32) -> usize {
        let slots = self.slots();
        let wanted = slot(fingerprint, 0);
        let mut at =
            ((remaining(fingerprint, prefix_bits) * slots.len() as u64) >> HASH_BITS) as usize;
        while at > 0 && slots[at - 1] >= wanted {
            at -= 1;
        }
        while at < slots.len() && slots[at] < wanted {
            at += 1;
        }
        at
    }

    /// Where this slot is; it must be there.
    fn find(&self, slot: u64, prefix_bits: u32) -> usize {
        let first = self.lower_bound(slot_fingerprint(slot), prefix_bits);
        let offset = self.slots()[first..]
            .iter()
            .position(|other| *other == slot);
        first + offset.expect("every member of the tree has its slot")
    }

    fn insert(&mut self, slot: u64, prefix_bits: u32, heap_bytes: &mut usize) {
        let at = self.lower_bound(slot_fingerprint(slot), prefix_bits);
        let len = self.len as usize;
        if len < self.slots.len() {
            let slots = self.slots_mut();
            slots.copy_within(at..len, at + 1);
            slots[at] = slot;
        } else {
            *heap_bytes -= self.heap_bytes();
            let mut slots = Vec::with_capacity(capacity_for(len + 1));
            slots.extend_from_slice(&self.slots()[..at]);
            slots.push(slot);
            slots.extend_from_slice(&self.slots()[at..]);
            self.slots = seal(slots, len + 1);
            *heap_bytes += self.heap_bytes();
        }
        self.len += 1;
    }

    fn remove(&mut self, slot: u64, prefix_bits: u32, heap_bytes: &mut usize) {
        let at = self.find(slot, prefix_bits);
        let len = self.len as usize;
        let needed_bytes = REFERENCE_COUNT_BYTES + (len - 1) * SLOT_BYTES;
        if is_wasteful(self.heap_bytes(), needed_bytes) {
            *heap_bytes -= self.heap_bytes();
            let mut slots = Vec::with_capacity(capacity_for(len - 1));
            slots.extend_from_slice(&self.slots()[..at]);
            slots.extend_from_slice(&self.slots()[at + 1..]);
            self.slots = seal(slots, len - 1);
            *heap_bytes += self.heap_bytes();
        } else {
            self.slots_mut().copy_within(at + 1..len, at);
        }
        self.len -= 1;
    }
}

/// Slots that fill the allocator's size class for `len` of them.
fn capacity_for(len: usize) -> usize {
    (class_for(REFERENCE_COUNT_BYTES + len * SLOT_BYTES) - REFERENCE_COUNT_BYTES) / SLOT_BYTES
}

fn seal(mut slots: Vec<u64>, len: usize) -> Arc<[u64]> {
    slots.resize(capacity_for(len), 0);
    Arc::from(&*slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(number: u64) -> u32 {
        (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32
    }

    fn slots(index: &MemberIndex) -> Vec<(u32, u32)> {
        let mut slots = Vec::new();
        index.scan(0, |fingerprint, leaf| {
            slots.push((fingerprint, leaf));
            true
        });
        slots
    }

    #[test]
    fn grows_and_shrinks_again() {
        let mut index = MemberIndex::from_sorted(&[]);
        let empty_bytes = index.heap_bytes();
        let count = 200_000;
        for number in 0..count {
            index.insert(mix(number), number as u32);
        }
        assert_eq!(index.check(), count as usize);
        assert!(index.heap_bytes() < 10 * count as usize);
        for number in 0..count {
            assert!(
                index
                    .candidates(mix(number))
                    .any(|leaf| leaf == number as u32)
            );
            index.repoint(mix(number), number as u32, !number as u32);
        }
        for number in 0..count {
            index.remove(mix(number), !number as u32);
            if number % 10_000 == 0 {
                index.check();
            }
        }
        assert_eq!(index.check(), 0);
        assert!(
            index.heap_bytes() < empty_bytes + 10_000,
            "{}",
            index.heap_bytes()
        );
    }

    #[test]
    fn many_slots_of_one_hash_are_only_slow() {
        let mut index = MemberIndex::from_sorted(&[]);
        for leaf in 0..2_000 {
            index.insert(7, leaf);
            index.insert(8, leaf);
        }
        assert_eq!(index.check(), 4_000);
        assert_eq!(index.candidates(7).count(), 2_000);
        for leaf in 0..2_000 {
            index.remove(7, leaf);
        }
        assert_eq!(index.check(), 2_000);
        assert_eq!(index.candidates(7).count(), 0);
        assert_eq!(index.candidates(8).count(), 2_000);
    }

    #[test]
    fn a_bulk_build_equals_insertion() {
        for count in [0, 1, 254, 256, 5_000, 100_000] {
            let mut sorted: Vec<_> = (0..count)
                .map(|number| slot(mix(number), number as u32))
                .collect();
            sorted.sort_unstable();
            let built = MemberIndex::from_sorted(&sorted);
            assert_eq!(built.check(), count as usize);
            let expected: Vec<_> = sorted
                .iter()
                .map(|slot| (slot_fingerprint(*slot), *slot as u32))
                .collect();
            assert_eq!(slots(&built), expected);
        }
        let same: Vec<_> = (0..1_000).map(|leaf| slot(u32::MAX, leaf)).collect();
        assert_eq!(MemberIndex::from_sorted(&same).check(), 1_000);
    }

    #[test]
    fn a_clone_keeps_what_it_saw() {
        let mut index = MemberIndex::from_sorted(&[]);
        for number in 0..5_000 {
            index.insert(mix(number), number as u32);
        }
        let clone = index.clone();
        let before = slots(&clone);
        for number in 0..5_000 {
            match number % 3 {
                0 => index.remove(mix(number), number as u32),
                1 => index.repoint(mix(number), number as u32, 0),
                _ => index.insert(mix(number + 5_000), 1),
            }
        }
        index.check();
        clone.check();
        assert_eq!(slots(&clone), before);
    }
}
