//! One segment: buckets of tags and offsets, and an arena with the elements themselves.
//!
//! The arena has the entries one after another, holes included: field, deadline if there is one (201 and 6 bytes, or 202
//! and 8), value if there are values.
//!
//! An entry belongs in its home bucket, or in the first one after it with a free slot; buckets it had to pass count it
//! as overflow, so that a search knows where to stop. Text above [`INLINE_MAX`] bytes is kept beside the arena, counted
//! by references, and the arena holds `200` and a two-byte index instead: copying a segment never copies such text.

use std::ops::{Deref, DerefMut};

use triomphe::ThinArc;

use super::{
    bucket::{Bucket, Place, SLOTS, Slots, tag_of},
    entry::{
        ENTRY_MAX, EncodedDeadline, Entry, INLINE_MAX, Key, LARGE, LARGE_LEN, NEVER, Shape, Tail,
        decode_deadline, stored_len,
    },
};
use crate::{
    time::Timestamp,
    value::{
        element::{Element, Encoded, encoded_len},
        thin_buffer::allocation_size,
    },
};

/// The most bytes of an arena: what bounds the time of a split, and within reach of a two-byte offset.
pub(super) const ARENA_MAX: usize = 32 * 1024;
/// Holes below this are not worth closing.
const HOLES_MIN: usize = 128;

// Room for several of the largest entries, so that a split makes progress.
const _: () = assert!(ARENA_MAX >= 8 * ENTRY_MAX);

/// The segment has to be split or enlarged before it can take this.
#[derive(Debug)]
pub(super) struct Full;

/// Text that is out of line, with the hash of a field.
type Large = ThinArc<u64, u8>;

#[derive(Clone, Default)]
struct LargeTexts {
    texts: Vec<Option<Large>>,
    bytes: usize,
}

/// See the module's description. `B` is an array of buckets, or a slice for code that serves any number.
pub(super) struct Segment<B: ?Sized = [Bucket]> {
    arena: Vec<u8>,
    large: Option<Box<LargeTexts>>,
    /// No entry expires before this.
    pub(super) earliest: i64,
    /// Bytes of the arena that are holes.
    dead: u32,
    live: u16,
    expiring: u16,
    /// How many of the hash's top bits all entries share.
    pub(super) depth: u8,
    shape: Shape,
    buckets: B,
}

pub(super) type TinySegment = Segment<[Bucket; 1]>;
pub(super) type SmallSegment = Segment<[Bucket; 4]>;
pub(super) type FullSegment = Segment<[Bucket; FULL_BUCKETS]>;

const FULL_BUCKETS: usize = 15;
/// Entries a segment of full size takes.
pub(super) const FULL_LIVE_MAX: usize = live_max(FULL_BUCKETS);

// With the reference count before it a full segment's fixed part fills a size class, and buckets fill cache lines.
const _: () = assert!(size_of::<FullSegment>() + size_of::<usize>() == 1024);
const _: () = assert!(size_of::<TinySegment>() + size_of::<usize>() == 128);

const fn live_max(buckets: usize) -> usize {
    let slots = buckets * SLOTS;
    if buckets == 1 {
        slots
    } else {
        slots - slots / 9
    }
}

impl<const N: usize> Segment<[Bucket; N]> {
    pub(super) fn new(shape: Shape, depth: u8) -> Self {
        Segment {
            arena: Vec::new(),
            large: None,
            earliest: NEVER,
            dead: 0,
            live: 0,
            expiring: 0,
            depth,
            shape,
            buckets: [Bucket::EMPTY; N],
        }
    }

    /// A segment with all that `sources` hold, which must be within its bounds.
    pub(super) fn gathered(sources: &[&Segment], depth: u8) -> Self {
        let mut segment = Self::new(sources[0].shape, depth);
        segment.reserve(sources.iter().map(|source| source.live_bytes()).sum());
        for source in sources {
            for (_, offset) in source.slots() {
                segment.take_from(source, offset, source.hash_at(offset));
            }
        }
        segment
    }
}

impl FullSegment {
    /// The two halves by the next bit of the hash.
    pub(super) fn split(&self) -> (Self, Self) {
        let bit = 63 - self.depth;
        let entries: Vec<(u64, usize)> = self
            .slots()
            .map(|(_, offset)| (self.hash_at(offset), offset))
            .collect();
        let bytes_where = |side: u64| {
            let chosen = entries.iter().filter(|(hash, _)| (hash >> bit) & 1 == side);
            chosen
                .map(|&(_, offset)| self.extent(offset).end - offset)
                .sum()
        };
        let half = |side: u64| {
            let mut half = Self::new(self.shape, self.depth + 1);
            half.reserve(bytes_where(side));
            for &(hash, offset) in entries.iter().filter(|(hash, _)| (hash >> bit) & 1 == side) {
                half.take_from(self, offset, hash);
            }
            half
        };
        (half(0), half(1))
    }

    /// Whether both together fill a segment to no more than five eighths, so that it will not split again at once.
    pub(super) fn could_join(&self, other: &Self) -> bool {
        self.len() + other.len() <= FULL_LIVE_MAX * 5 / 8
            && self.live_bytes() + other.live_bytes() <= ARENA_MAX * 5 / 8
    }
}

impl Segment {
    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(self.live)
    }

    /// How many entries have a deadline.
    #[inline]
    pub(super) fn expiring(&self) -> usize {
        usize::from(self.expiring)
    }

    /// Bytes of the entries in the arena.
    pub(super) fn live_bytes(&self) -> usize {
        self.arena.len() - self.dead as usize
    }

    /// Bytes on the heap, out-of-line text included.
    #[inline]
    pub(super) fn memory_bytes(&self) -> usize {
        let fixed = allocation_size(size_of::<usize>() + size_of_val(self));
        let large = self.large.as_ref().map_or(0, |large| {
            allocation_size(size_of::<LargeTexts>())
                + allocation_size(large.texts.capacity() * size_of::<Option<Large>>())
                + large.bytes
        });
        fixed + allocation_size(self.arena.capacity()) + large
    }

    #[inline]
    pub(super) fn find(&self, key: &Key<'_>) -> Option<Place> {
        let tag = tag_of(key.hash);
        // Read here, the arena's address comes from memory together with the bucket and not after it.
        let arena = self.arena.as_slice();
        let mut bucket = self.home(key.hash);
        for _ in 0..self.buckets.len() {
            let candidates = &self.buckets[bucket];
            let mut mask = candidates.matches(tag);
            while mask != 0 {
                let slot = mask.trailing_zeros() as usize;
                if self.is_at(arena, candidates.offset(slot), key) {
                    return Some(Place { bucket, slot });
                }
                mask &= mask - 1;
            }
            if !candidates.overflows() {
                return None;
            }
            bucket = self.after(bucket);
        }
        None
    }

    /// Every used slot, with its entry's offset.
    pub(super) fn slots(&self) -> Slots<'_> {
        Slots::new(&self.buckets)
    }

    /// The used slot that `index` others come before.
    pub(super) fn nth(&self, mut index: usize) -> Option<Place> {
        for (at, bucket) in self.buckets.iter().enumerate() {
            let mut used = bucket.used();
            let count = used.count_ones() as usize;
            if index < count {
                for _ in 0..index {
                    used &= used - 1;
                }
                return Some(Place {
                    bucket: at,
                    slot: used.trailing_zeros() as usize,
                });
            }
            index -= count;
        }
        None
    }

    #[inline]
    pub(super) fn entry(&self, place: Place) -> Entry<'_> {
        self.entry_at(self.buckets[place.bucket].offset(place.slot))
    }

    #[inline]
    pub(super) fn entry_at(&self, offset: usize) -> Entry<'_> {
        let (field, field_len) = self.element_at(offset);
        if self.shape == Shape::Members {
            return Entry {
                field,
                value: Element::Text(b""),
                deadline: None,
            };
        }
        let (deadline, deadline_len) = self.deadline_at(offset + field_len);
        let (value, _) = self.element_at(offset + field_len + deadline_len);
        let deadline = (deadline != NEVER).then_some(Timestamp(deadline));
        Entry {
            field,
            value,
            deadline,
        }
    }

    pub(super) fn hash_at(&self, offset: usize) -> u64 {
        if self.arena[offset] == LARGE {
            self.large_at(offset).header.header
        } else {
            self.element_at(offset).0.hash()
        }
    }

    /// Adds an entry that is not there.
    ///
    /// # Errors
    /// [`Full`] if there is no slot or no room in the arena; nothing has changed then.
    pub(super) fn insert(
        &mut self,
        key: &Key<'_>,
        value: Element<'_>,
        deadline: i64,
    ) -> Result<(), Full> {
        if self.len() >= live_max(self.buckets.len()) {
            return Err(Full);
        }
        let value = (self.shape == Shape::Pairs).then(|| Tail::new(value, deadline));
        let size = stored_len(key.field, &key.encoded) + value.as_ref().map_or(0, Tail::len);
        self.make_space(size)?;
        let offset = self.arena.len();
        self.append(key.field, &key.encoded, key.hash);
        if let Some(value) = &value {
            self.append_tail(value);
        }
        self.occupy(key.hash, offset);
        self.note_deadline(deadline);
        Ok(())
    }

    /// Gives an entry another value and deadline.
    ///
    /// # Errors
    /// [`Full`] if there is no room in the arena; nothing has changed then.
    pub(super) fn update(
        &mut self,
        place: Place,
        value: Element<'_>,
        deadline: i64,
    ) -> Result<(), Full> {
        if self.shape == Shape::Members {
            return Ok(());
        }
        let tail = Tail::new(value, deadline);
        let offset = self.buckets[place.bucket].offset(place.slot);
        let extent = self.extent(offset);
        let was = self.deadline_at(extent.deadline).0;
        if self.arena[extent.value] == LARGE
            || tail.is_large()
            || extent.end - extent.deadline != tail.len()
        {
            let field_len = extent.deadline - offset;
            self.make_space(field_len + tail.len())?;
            // Making space may have moved the entry.
            let offset = self.buckets[place.bucket].offset(place.slot);
            let extent = self.extent(offset);
            self.release_large(extent.value);
            let moved = self.arena.len();
            self.arena.extend_from_within(offset..extent.deadline);
            self.append_tail(&tail);
            self.dead += (extent.end - offset) as u32;
            self.buckets[place.bucket].set_offset(place.slot, moved);
        } else {
            let mut at = extent.deadline;
            for part in tail.parts() {
                self.arena[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
        }
        self.forget_deadline(was);
        self.note_deadline(deadline);
        self.close_holes();
        Ok(())
    }

    /// Gives an entry another deadline.
    ///
    /// # Errors
    /// [`Full`] if there is no room in the arena; nothing has changed then.
    pub(super) fn set_deadline(&mut self, place: Place, deadline: i64) -> Result<(), Full> {
        let offset = self.buckets[place.bucket].offset(place.slot);
        let extent = self.extent(offset);
        let was = self.deadline_at(extent.deadline).0;
        let encoded = EncodedDeadline::new(deadline);
        if encoded.bytes().len() == extent.value - extent.deadline {
            self.arena[extent.deadline..extent.value].copy_from_slice(encoded.bytes());
        } else {
            self.make_space(extent.end - offset + encoded.bytes().len())?;
            let offset = self.buckets[place.bucket].offset(place.slot);
            let extent = self.extent(offset);
            let moved = self.arena.len();
            self.arena.extend_from_within(offset..extent.deadline);
            self.arena.extend_from_slice(encoded.bytes());
            self.arena.extend_from_within(extent.value..extent.end);
            self.dead += (extent.end - offset) as u32;
            self.buckets[place.bucket].set_offset(place.slot, moved);
        }
        self.forget_deadline(was);
        self.note_deadline(deadline);
        self.close_holes();
        Ok(())
    }

    /// Removes the entry at `place`, whose field has the hash `hash`.
    pub(super) fn remove(&mut self, place: Place, hash: u64) {
        self.vacate(place, hash);
        self.close_holes();
    }

    /// Removes those of at most `limit` expired entries, after showing each, and finds the earliest deadline of the rest.
    pub(super) fn expire(
        &mut self,
        now: Timestamp,
        limit: usize,
        visit: &mut dyn FnMut(Entry<'_>),
    ) -> usize {
        let (expired, rest) = self.expired(now, limit);
        for &place in &expired {
            visit(self.entry(place));
            let hash = self.hash_at(self.buckets[place.bucket].offset(place.slot));
            self.vacate(place, hash);
        }
        self.earliest = rest;
        self.close_holes();
        expired.len()
    }

    /// Up to `limit` expired entries, and the earliest deadline of all others.
    fn expired(&self, now: Timestamp, limit: usize) -> (Vec<Place>, i64) {
        let mut places = Vec::new();
        let mut earliest = NEVER;
        for (place, offset) in self.slots() {
            let Some(deadline) = self.entry_at(offset).deadline else {
                continue;
            };
            if deadline <= now && places.len() < limit {
                places.push(place);
            } else {
                earliest = earliest.min(deadline.millis());
            }
        }
        (places, earliest)
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        // Bits 8 to 23: below those of the directory, above those of the tag.
        (usize::from((hash >> 8) as u16) * self.buckets.len()) >> 16
    }

    #[inline]
    fn after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets.len() {
            0
        } else {
            bucket + 1
        }
    }

    #[inline]
    fn is_at(&self, arena: &[u8], offset: usize, key: &Key<'_>) -> bool {
        match key.field {
            Element::Text(text) if text.len() > INLINE_MAX => {
                self.arena[offset] == LARGE && {
                    let large = self.large_at(offset);
                    large.header.header == key.hash && large.slice == *text
                }
            }
            _ => key.encoded.begins(&arena[offset..]),
        }
    }

    /// The element in the arena at `offset`, and how many bytes of the arena it takes.
    #[inline]
    fn element_at(&self, offset: usize) -> (Element<'_>, usize) {
        if self.arena[offset] == LARGE {
            (Element::Text(&self.large_at(offset).slice), LARGE_LEN)
        } else {
            Element::decode(&self.arena[offset..])
        }
    }

    /// The deadline in the arena at `offset`, if it is one, and how many bytes of the arena it takes.
    #[inline]
    fn deadline_at(&self, offset: usize) -> (i64, usize) {
        decode_deadline(&self.arena[offset..])
    }

    fn extent(&self, offset: usize) -> Extent {
        let deadline = offset + self.stored_len_at(offset);
        if self.shape == Shape::Members {
            return Extent {
                deadline,
                value: deadline,
                end: deadline,
            };
        }
        let value = deadline + self.deadline_at(deadline).1;
        Extent {
            deadline,
            value,
            end: value + self.stored_len_at(value),
        }
    }

    fn stored_len_at(&self, offset: usize) -> usize {
        if self.arena[offset] == LARGE {
            LARGE_LEN
        } else {
            encoded_len(&self.arena[offset..])
        }
    }

    fn large_at(
        &self,
        offset: usize,
    ) -> &triomphe::HeaderSlice<triomphe::HeaderWithLength<u64>, [u8]> {
        let index = usize::from(u16::from_le_bytes([
            self.arena[offset + 1],
            self.arena[offset + 2],
        ]));
        let texts = &self
            .large
            .as_ref()
            .expect("an index in the arena has its text")
            .texts;
        texts[index]
            .as_ref()
            .expect("an index in the arena has its text")
    }

    /// Makes sure that `size` more bytes fit the arena.
    fn make_space(&mut self, size: usize) -> Result<(), Full> {
        if self.live_bytes() + size > ARENA_MAX {
            return Err(Full);
        }
        let needed = self.arena.len() + size;
        if needed > ARENA_MAX
            || (needed > self.arena.capacity() && self.dead as usize * 8 > self.arena.len())
        {
            self.compact(size);
        } else {
            self.reserve(size);
        }
        Ok(())
    }

    fn reserve(&mut self, size: usize) {
        let needed = self.arena.len() + size;
        if needed > self.arena.capacity() {
            self.arena
                .reserve_exact(allocation_size(needed) - self.arena.len());
        }
    }

    /// Closes the holes once they make up half of the arena.
    fn close_holes(&mut self) {
        let dead = self.dead as usize;
        if dead == self.arena.len() || (dead >= HOLES_MIN && dead * 2 > self.arena.len()) {
            self.compact(0);
        }
    }

    /// Moves the entries to a new arena without holes, with room for `extra` bytes. Slots stay where they are.
    fn compact(&mut self, extra: usize) {
        let mut arena = Vec::with_capacity(allocation_size(self.live_bytes() + extra));
        for bucket in 0..self.buckets.len() {
            let mut used = self.buckets[bucket].used();
            while used != 0 {
                let slot = used.trailing_zeros() as usize;
                used &= used - 1;
                let offset = self.buckets[bucket].offset(slot);
                self.buckets[bucket].set_offset(slot, arena.len());
                arena.extend_from_slice(&self.arena[offset..self.extent(offset).end]);
            }
        }
        self.arena = arena;
        self.dead = 0;
    }

    /// Copies an entry of another segment; large text is shared.
    fn take_from(&mut self, source: &Segment, offset: usize, hash: u64) {
        let extent = source.extent(offset);
        self.reserve(extent.end - offset);
        let moved = self.arena.len();
        self.take_element(source, offset, extent.deadline);
        if self.shape == Shape::Pairs {
            self.arena
                .extend_from_slice(&source.arena[extent.deadline..extent.value]);
            self.take_element(source, extent.value, extent.end);
            self.note_deadline(source.deadline_at(extent.deadline).0);
        }
        self.occupy(hash, moved);
    }

    fn take_element(&mut self, source: &Segment, start: usize, end: usize) {
        if source.arena[start] == LARGE {
            let index = usize::from(u16::from_le_bytes([
                source.arena[start + 1],
                source.arena[start + 2],
            ]));
            let texts = &source
                .large
                .as_ref()
                .expect("an index in the arena has its text")
                .texts;
            self.append_large(
                texts[index]
                    .clone()
                    .expect("an index in the arena has its text"),
            );
        } else {
            self.arena.extend_from_slice(&source.arena[start..end]);
        }
    }

    fn append(&mut self, element: Element<'_>, encoded: &Encoded<'_>, hash: u64) {
        match element {
            Element::Text(text) if text.len() > INLINE_MAX => {
                self.append_large(ThinArc::from_header_and_slice(hash, text));
            }
            _ => {
                self.arena.extend_from_slice(encoded.head());
                self.arena.extend_from_slice(encoded.tail());
            }
        }
    }

    fn append_tail(&mut self, tail: &Tail<'_>) {
        self.arena.extend_from_slice(tail.deadline.bytes());
        // Values are never looked for by hash.
        self.append(tail.value, &tail.encoded, 0);
    }

    fn append_large(&mut self, text: Large) {
        let large = self.large.get_or_insert_default();
        large.bytes += large_bytes(&text);
        let index = large
            .texts
            .iter()
            .position(Option::is_none)
            .unwrap_or(large.texts.len());
        if index == large.texts.len() {
            large.texts.push(None);
        }
        large.texts[index] = Some(text);
        let index = u16::try_from(index).expect("two texts per slot at most");
        self.arena.push(LARGE);
        self.arena.extend_from_slice(&index.to_le_bytes());
    }

    /// Drops the large text that the arena refers to at `offset`, if it does.
    fn release_large(&mut self, offset: usize) {
        if self.arena.get(offset) != Some(&LARGE) {
            return;
        }
        let index = usize::from(u16::from_le_bytes([
            self.arena[offset + 1],
            self.arena[offset + 2],
        ]));
        let large = self
            .large
            .as_mut()
            .expect("an index in the arena has its text");
        let text = large.texts[index]
            .take()
            .expect("an index in the arena has its text");
        large.bytes -= large_bytes(&text);
        if large.bytes == 0 {
            self.large = None;
        }
    }

    /// Takes the first free slot from the home of `hash` on.
    fn occupy(&mut self, hash: u64, offset: usize) {
        let mut at = self.home(hash);
        loop {
            let bucket = &mut self.buckets[at];
            let free = bucket.matches(0);
            if free != 0 {
                let slot = free.trailing_zeros() as usize;
                bucket.fill(slot, tag_of(hash), offset);
                self.live += 1;
                return;
            }
            bucket.add_overflow();
            at = self.after(at);
        }
    }

    fn vacate(&mut self, place: Place, hash: u64) {
        let offset = self.buckets[place.bucket].offset(place.slot);
        let extent = self.extent(offset);
        if self.shape == Shape::Pairs {
            self.forget_deadline(self.deadline_at(extent.deadline).0);
            self.release_large(extent.value);
        }
        self.release_large(offset);
        self.dead += (extent.end - offset) as u32;
        self.live -= 1;
        self.buckets[place.bucket].free(place.slot);
        let mut passed = self.home(hash);
        while passed != place.bucket {
            self.buckets[passed].remove_overflow();
            passed = self.after(passed);
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut bytes = 0;
        let mut expiring = 0;
        for (_, offset) in self.slots() {
            bytes += self.extent(offset).end - offset;
            let entry = self.entry_at(offset);
            expiring += usize::from(entry.deadline.is_some());
            assert!(
                entry
                    .deadline
                    .is_none_or(|deadline| deadline.millis() >= self.earliest)
            );
            assert_eq!(self.hash_at(offset), entry.field.hash());
        }
        assert_eq!(bytes, self.live_bytes());
        assert_eq!(expiring, self.expiring());
        assert_eq!(self.slots().count(), self.len());
        assert!(self.arena.len() <= ARENA_MAX);
        let texts = self
            .large
            .iter()
            .flat_map(|large| large.texts.iter().flatten());
        assert_eq!(
            texts.map(large_bytes).sum::<usize>(),
            self.large.as_ref().map_or(0, |large| large.bytes)
        );
    }

    fn note_deadline(&mut self, deadline: i64) {
        if deadline != NEVER {
            self.expiring += 1;
            self.earliest = self.earliest.min(deadline);
        }
    }

    fn forget_deadline(&mut self, deadline: i64) {
        if deadline != NEVER {
            self.expiring -= 1;
            if self.expiring == 0 {
                self.earliest = NEVER;
            }
        }
    }
}

// Method calls do not turn an array at the end of a struct into a slice by themselves.
impl<const N: usize> Deref for Segment<[Bucket; N]> {
    type Target = Segment;

    #[inline]
    fn deref(&self) -> &Segment {
        self
    }
}

impl<const N: usize> DerefMut for Segment<[Bucket; N]> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Segment {
        self
    }
}

impl<const N: usize> Clone for Segment<[Bucket; N]> {
    fn clone(&self) -> Self {
        let mut arena = Vec::with_capacity(allocation_size(self.arena.len()));
        arena.extend_from_slice(&self.arena);
        Segment {
            arena,
            large: self.large.clone(),
            buckets: self.buckets,
            ..*self
        }
    }
}

/// Where the parts of an entry begin and end; without deadline or value these parts are empty.
struct Extent {
    deadline: usize,
    value: usize,
    end: usize,
}

fn large_bytes(text: &Large) -> usize {
    // Reference count, hash and length come first.
    allocation_size(24 + text.slice.len())
}
