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
    arena::{ARENA_MAX, Arena},
    bucket::{Bucket, Place, SLOTS, Slots, tag_of},
    entry::{
        EncodedDeadline, Entry, INLINE_MAX, Key, LARGE, LARGE_LEN, NEVER, Shape, Tail,
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

/// Holes below this are not worth closing.
const HOLES_MIN: usize = 128;

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
    arena: Arena,
    large: Option<Box<LargeTexts>>,
    /// No entry expires before this.
    pub(super) earliest: i64,
    /// Bytes of the entries.
    live_bytes: u32,
    /// Bytes of entries that are no more.
    dead_bytes: u32,
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

const FULL_BUCKETS: usize = 14;
/// Entries a segment of full size takes.
pub(super) const FULL_LIVE_MAX: usize = live_max(FULL_BUCKETS);

// With the reference count before it a full segment's fixed part fills a size class, and buckets fill cache lines.
const _: () = assert!(size_of::<FullSegment>() + size_of::<usize>() == 1024);
const _: () = assert!(size_of::<TinySegment>() + size_of::<usize>() == 192);

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
            arena: Arena::default(),
            large: None,
            earliest: NEVER,
            live_bytes: 0,
            dead_bytes: 0,
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
        let total: usize = sources.iter().map(|source| source.live_bytes()).sum();
        for source in sources {
            for (_, offset) in source.slots() {
                let left = total - segment.live_bytes();
                segment.take_from(source, offset, source.hash_at(offset), left);
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
        let half = |side: u64| {
            let mut half = Self::new(self.shape, self.depth + 1);
            let chosen = entries.iter().filter(|(hash, _)| (hash >> bit) & 1 == side);
            let total: usize = chosen
                .clone()
                .map(|&(_, offset)| self.extent(offset).end - offset)
                .sum();
            for &(hash, offset) in chosen {
                let left = total - half.live_bytes();
                half.take_from(self, offset, hash, left);
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
        self.live_bytes as usize
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
        fixed + self.arena.memory_bytes() + large
    }

    #[inline]
    pub(super) fn find(&self, key: &Key<'_>) -> Option<Place> {
        let tag = tag_of(key.hash);
        let mut bucket = self.home(key.hash);
        for _ in 0..self.buckets.len() {
            let candidates = &self.buckets[bucket];
            let mut mask = candidates.matches(tag);
            while mask != 0 {
                let slot = mask.trailing_zeros() as usize;
                if self.is_at(candidates.offset(slot), key) {
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
        if self.arena.at(offset)[0] == LARGE {
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
        let offset = self.arena.end();
        self.append(key.field, &key.encoded, key.hash);
        if let Some(value) = &value {
            self.append_tail(value);
        }
        self.live_bytes += size as u32;
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
        if self.arena.at(extent.value)[0] == LARGE
            || tail.is_large()
            || extent.end - extent.deadline != tail.len()
        {
            let field_len = extent.deadline - offset;
            let size = field_len + tail.len();
            self.make_space(size)?;
            // Making space may have moved the entry.
            let offset = self.buckets[place.bucket].offset(place.slot);
            let extent = self.extent(offset);
            self.release_large(extent.value);
            let moved = self.arena.end();
            self.arena.append_copy(offset, extent.deadline);
            self.append_tail(&tail);
            self.buckets[place.bucket].set_offset(place.slot, moved);
            self.bury(extent.end - offset);
            self.live_bytes += size as u32;
        } else {
            let mut to = self.arena.at_mut(extent.deadline);
            for part in tail.parts() {
                to[..part.len()].copy_from_slice(part);
                to = &mut to[part.len()..];
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
            let len = encoded.bytes().len();
            self.arena.at_mut(extent.deadline)[..len].copy_from_slice(encoded.bytes());
        } else {
            let size =
                extent.end - offset + encoded.bytes().len() - (extent.value - extent.deadline);
            self.make_space(size)?;
            let offset = self.buckets[place.bucket].offset(place.slot);
            let extent = self.extent(offset);
            let moved = self.arena.end();
            self.arena.append_copy(offset, extent.deadline);
            self.arena.append(encoded.bytes());
            self.arena.append_copy(extent.value, extent.end);
            self.buckets[place.bucket].set_offset(place.slot, moved);
            self.bury(extent.end - offset);
            self.live_bytes += size as u32;
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
    fn is_at(&self, offset: usize, key: &Key<'_>) -> bool {
        match key.field {
            Element::Text(text) if text.len() > INLINE_MAX => {
                self.arena.at(offset)[0] == LARGE && {
                    let large = self.large_at(offset);
                    large.header.header == key.hash && large.slice == *text
                }
            }
            _ => key.encoded.begins(self.arena.at(offset)),
        }
    }

    /// The element in the arena at `offset`, and how many bytes of the arena it takes.
    #[inline]
    fn element_at(&self, offset: usize) -> (Element<'_>, usize) {
        if self.arena.at(offset)[0] == LARGE {
            (Element::Text(&self.large_at(offset).slice), LARGE_LEN)
        } else {
            Element::decode(self.arena.at(offset))
        }
    }

    /// The deadline in the arena at `offset`, if it is one, and how many bytes of the arena it takes.
    #[inline]
    fn deadline_at(&self, offset: usize) -> (i64, usize) {
        decode_deadline(self.arena.at(offset))
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
        if self.arena.at(offset)[0] == LARGE {
            LARGE_LEN
        } else {
            encoded_len(self.arena.at(offset))
        }
    }

    fn large_at(
        &self,
        offset: usize,
    ) -> &triomphe::HeaderSlice<triomphe::HeaderWithLength<u64>, [u8]> {
        let index = large_index(self.arena.at(offset));
        let texts = &self
            .large
            .as_ref()
            .expect("an index in the arena has its text")
            .texts;
        texts[index]
            .as_ref()
            .expect("an index in the arena has its text")
    }

    /// Makes sure that an entry of `size` bytes can be appended.
    fn make_space(&mut self, size: usize) -> Result<(), Full> {
        if self.live_bytes() + size > ARENA_MAX {
            return Err(Full);
        }
        if !self.arena.has_room(size) {
            if self.dead_bytes * 7 > self.live_bytes || !self.arena.can_reserve(size) {
                self.compact(size);
            }
            self.arena.reserve(size, size);
        }
        Ok(())
    }

    /// Counts bytes of an entry that is no more.
    fn bury(&mut self, bytes: usize) {
        self.live_bytes -= bytes as u32;
        self.dead_bytes += bytes as u32;
    }

    /// Closes the holes once they take more than the entries.
    fn close_holes(&mut self) {
        let worth_it = self.dead_bytes as usize >= HOLES_MIN && self.dead_bytes > self.live_bytes;
        if worth_it || (self.live == 0 && self.dead_bytes > 0) {
            self.compact(0);
        }
    }

    /// Moves the entries to a new arena without holes, with room for `extra` bytes. Slots stay where they are.
    fn compact(&mut self, extra: usize) {
        let mut arena = Arena::default();
        let mut left = self.live_bytes() + extra;
        for bucket in 0..self.buckets.len() {
            let mut used = self.buckets[bucket].used();
            while used != 0 {
                let slot = used.trailing_zeros() as usize;
                used &= used - 1;
                let offset = self.buckets[bucket].offset(slot);
                let size = self.extent(offset).end - offset;
                arena.reserve(size, left);
                left -= size;
                self.buckets[bucket].set_offset(slot, arena.end());
                arena.append(&self.arena.at(offset)[..size]);
            }
        }
        self.arena = arena;
        self.dead_bytes = 0;
    }

    /// Copies an entry of another segment, the next of `expected` bytes; large text is shared.
    fn take_from(&mut self, source: &Segment, offset: usize, hash: u64, expected: usize) {
        let extent = source.extent(offset);
        let size = extent.end - offset;
        self.arena.reserve(size, expected);
        self.live_bytes += size as u32;
        let moved = self.arena.end();
        self.take_element(source, offset, extent.deadline);
        if self.shape == Shape::Pairs {
            self.arena
                .append(&source.arena.at(extent.deadline)[..extent.value - extent.deadline]);
            self.take_element(source, extent.value, extent.end);
            self.note_deadline(source.deadline_at(extent.deadline).0);
        }
        self.occupy(hash, moved);
    }

    fn take_element(&mut self, source: &Segment, start: usize, end: usize) {
        if source.arena.at(start)[0] == LARGE {
            let index = large_index(source.arena.at(start));
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
            self.arena.append(&source.arena.at(start)[..end - start]);
        }
    }

    fn append(&mut self, element: Element<'_>, encoded: &Encoded<'_>, hash: u64) {
        match element {
            Element::Text(text) if text.len() > INLINE_MAX => {
                self.append_large(ThinArc::from_header_and_slice(hash, text));
            }
            _ => {
                self.arena.append(encoded.head());
                self.arena.append(encoded.tail());
            }
        }
    }

    fn append_tail(&mut self, tail: &Tail<'_>) {
        self.arena.append(tail.deadline.bytes());
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
        let [low, high] = index.to_le_bytes();
        self.arena.append(&[LARGE, low, high]);
    }

    /// Drops the large text that the arena refers to at `offset`, if it does.
    fn release_large(&mut self, offset: usize) {
        if self.arena.at(offset)[0] != LARGE {
            return;
        }
        let index = large_index(self.arena.at(offset));
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
        self.bury(extent.end - offset);
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
        assert!(self.live_bytes() <= ARENA_MAX);
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
        Segment {
            arena: self.arena.clone(),
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

/// Where among the large texts the one is that `bytes` of an arena stand for.
fn large_index(bytes: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([bytes[1], bytes[2]]))
}

fn large_bytes(text: &Large) -> usize {
    // Reference count, hash and length come first.
    allocation_size(24 + text.slice.len())
}
