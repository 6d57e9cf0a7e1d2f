//! Growing, splitting and shrinking: how segments follow the number of their entries.

use super::{
    Place, Table, prefetch,
    segment::{ADDRESS_MASK, LARGEST_CLASS, NEXT_BITS, NEXT_SHIFT, SLOTS, Word, buckets_of},
};
use crate::hash;

/// What a split starts its halves with: they hold about 220 of 273 slots.
const SPLIT_CLASS: usize = 4;

impl Table {
    /// Makes room in the segment of `hash`, which is full around its home.
    #[cold]
    pub(super) fn grow(&mut self, hash: u64, segment: Word) {
        let depth = segment.header().depth;
        let span = 1usize << (self.depth - depth);
        let start = self.directory_index(hash) & !(span - 1);
        if segment.class() < LARGEST_CLASS {
            self.resize(start, span, segment, segment.class() + 1);
        } else {
            self.split(start, segment);
        }
    }

    /// Moves the segment's entries into a new one of `class`, or a larger one should they not fit.
    fn resize(&mut self, start: usize, span: usize, segment: Word, class: usize) {
        let depth = segment.header().depth;
        for class in class..=LARGEST_CLASS {
            let resized = self.new_segment(class, depth);
            if self.move_all(segment, resized, Some) {
                resized.header().earliest = segment.header().earliest;
                self.directory[start..start + span].fill(resized);
                self.free_segment(segment);
                return;
            }
            self.free_segment(resized);
        }
        // Not even the largest takes them: the place is too crowded, so split instead.
        self.split(start, segment);
    }

    fn split(&mut self, start: usize, segment: Word) {
        let depth = segment.header().depth;
        let mut start = start;
        if depth == self.depth {
            self.directory = self
                .directory
                .iter()
                .flat_map(|&word| [word, word])
                .collect();
            self.depth += 1;
            start *= 2;
        }
        let half = 1usize << (self.depth - depth - 1);
        let bit_shift = NEXT_SHIFT + NEXT_BITS - 1 - depth % NEXT_BITS;
        for bit in [0, 1] {
            let part = self.filled_part(segment, depth, |slot| (slot >> bit_shift) & 1 == bit);
            part.header().earliest = segment.header().earliest;
            let from = start + bit as usize * half;
            self.directory[from..from + half].fill(part);
            if (depth + 1).is_multiple_of(NEXT_BITS) {
                self.refill_next_bits(part);
            }
        }
        self.free_segment(segment);
    }

    /// A new segment one deeper with those of `segment`'s slots that `belongs` picks.
    fn filled_part(&mut self, segment: Word, depth: u32, belongs: impl Fn(u64) -> bool) -> Word {
        for class in SPLIT_CLASS..=LARGEST_CLASS {
            let part = self.new_segment(class, depth + 1);
            if self.move_all(segment, part, |slot| belongs(slot).then_some(slot)) {
                return part;
            }
            self.free_segment(part);
        }
        // Nearly all of a crowded segment belongs to one part, as when keys come in the order of their hashes, and what
        // found room in the order that it came finds none in another: so it keeps its places.
        let part = self.new_segment(segment.class(), depth + 1);
        part.copy_places(segment);
        let mut others = Vec::new();
        part.visit(|bucket, slot| {
            // SAFETY: `visit` hands out buckets of a live segment.
            let word = unsafe { bucket.as_ref() }.slots[slot];
            if !belongs(word) {
                others.push((bucket, slot, word));
            }
        });
        for (bucket, slot, word) in others {
            part.take_out(bucket, slot, word);
        }
        part
    }

    /// Copies the slots that `pick` returns into `to`; false if one did not fit.
    fn move_all(&self, from: Word, to: Word, pick: impl Fn(u64) -> Option<u64>) -> bool {
        let mut fits = true;
        from.visit(|bucket, slot| {
            // SAFETY: `visit` hands out buckets of a live segment.
            let look = unsafe { bucket.as_ref() };
            if let Some(word) = pick(look.slots[slot]) {
                fits &= to.insert(u64::from(look.tag(slot)), word);
            }
        });
        fits
    }

    /// Reads the next directory bits of all entries from their keys, after a split used up what the slots had.
    fn refill_next_bits(&mut self, segment: Word) {
        segment.visit(|bucket, slot| {
            // SAFETY: `visit` hands out buckets of a live segment.
            prefetch(std::ptr::without_provenance(
                unsafe { bucket.as_ref() }.address(slot),
            ));
        });
        segment.visit(|bucket, slot| {
            let place = Place {
                bucket,
                slot,
                segment,
            };
            let bits = self.slot_bits(hash::hash(self.entry(place).key()), segment);
            // SAFETY: as above; the table is borrowed exclusively and no reference to the bucket is alive.
            let bucket = unsafe { &mut *bucket.as_ptr() };
            bucket.slots[slot] = bucket.slots[slot] & ADDRESS_MASK | bits;
        });
    }

    /// Merges sparse segments with their siblings and shrinks sparse segments; looks at `budget` segments from
    /// directory position `from` on and returns the next position, 0 at the end.
    pub fn compact(&mut self, from: usize, budget: usize) -> usize {
        if self.len == 0 {
            self.release();
            return 0;
        }
        let mut index = from;
        for _ in 0..budget {
            if index >= self.directory.len() {
                return 0;
            }
            index = self.compact_segment(index);
        }
        if index >= self.directory.len() {
            0
        } else {
            index
        }
    }

    fn compact_segment(&mut self, index: usize) -> usize {
        let segment = self.directory[index];
        let depth = segment.header().depth;
        let span = 1usize << (self.depth - depth);
        let start = index & !(span - 1);
        let next = start + span;
        let used = segment.count();
        if depth > 0 {
            let sibling = self.directory[start ^ span];
            // Half of what a split leaves behind, so that merging and splitting do not alternate.
            if sibling.header().depth == depth && used + sibling.count() <= 110 {
                self.merge(start & !span, depth);
                return next;
            }
        }
        let class = segment.class();
        if class > 0 && used * 2 < segment.buckets() * SLOTS {
            let wanted = (0..class)
                .find(|&class| used * 10 <= buckets_of(class) * SLOTS * 7)
                .unwrap_or(class);
            if wanted < class {
                self.resize(start, span, segment, wanted);
            }
        }
        next
    }

    /// Merges the two segments of `depth` below the directory range that begins at `start`.
    fn merge(&mut self, start: usize, depth: u32) {
        let half = 1usize << (self.depth - depth);
        let (low, high) = (self.directory[start], self.directory[start + half]);
        let merged = self.new_segment(SPLIT_CLASS, depth - 1);
        if ![low, high]
            .iter()
            .all(|&part| self.move_all(part, merged, Some))
        {
            self.free_segment(merged);
            return;
        }
        merged.header().earliest = low.header().earliest.min(high.header().earliest);
        self.directory[start..start + 2 * half].fill(merged);
        self.free_segment(low);
        self.free_segment(high);
        // Slots carry all bits back to the last refill; further back, the keys tell them again.
        if depth.is_multiple_of(NEXT_BITS) {
            self.refill_next_bits(merged);
        }
    }

    /// Gives back everything but the entries' count, for a table that has none.
    pub(super) fn release(&mut self) {
        debug_assert!(self.len == 0);
        let segments: Vec<Word> = self.segments().map(|(_, segment)| segment).collect();
        for segment in segments {
            self.free_segment(segment);
        }
        self.directory = Vec::new();
        self.depth = 0;
    }
}
