//! Segments: a header and buckets of tagged pointers in one block, whose owner is the table.

use std::{alloc::Layout, ptr::NonNull};

use super::walk::CURSOR_HOME_BITS;
use crate::time::Timestamp;

pub(super) const LINE: usize = 64;
pub(super) const SLOTS: usize = 7;
/// How many buckets an entry may be away from its home, plus one.
pub(super) const PROBE: usize = 8;
/// The largest segment fills a 4 KiB block with its header. Sizes are 8 k - 1 buckets, k = 1 to 8.
pub(super) const LARGEST_CLASS: usize = 7;

pub(super) const HOME_BITS: u32 = 10;
pub(super) const HOME_SHIFT: u32 = 8;
pub(super) const HOME_MASK: u64 = (1 << HOME_BITS) - 1;
/// Directory bits that a slot carries.
pub(super) const NEXT_BITS: u32 = 6;
pub(super) const ADDRESS_BITS: u32 = 48;
pub(super) const ADDRESS_MASK: u64 = (1 << ADDRESS_BITS) - 1;
pub(super) const NEXT_SHIFT: u32 = ADDRESS_BITS + HOME_BITS;

/// A segment: its address with the size class in the low bits, as the directory keeps it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Word(pub(super) usize);

#[repr(C, align(64))]
pub(super) struct Header {
    /// No entry's deadline, nor that of a hash's field, is before this; `i64::MAX` when none has one. May be too early, never too late.
    pub(super) earliest: i64,
    pub(super) depth: u32,
}

impl Header {
    #[inline]
    pub(super) fn note_deadline(&mut self, deadline: Timestamp) {
        self.earliest = self.earliest.min(deadline.0);
    }
}

#[repr(C, align(64))]
pub(super) struct Bucket {
    /// Seven tags (0 = empty), then the number of entries that passed this bucket when it was full.
    control: u64,
    pub(super) slots: [u64; SLOTS],
}

const _: () = assert!(size_of::<Bucket>() == LINE && size_of::<Header>() == LINE);

pub(super) const fn buckets_of(class: usize) -> usize {
    8 * (class + 1) - 1
}

impl Word {
    pub(super) fn layout(class: usize) -> Layout {
        Layout::from_size_align((buckets_of(class) + 1) * LINE, LINE).expect("at most 4 KiB")
    }

    #[inline]
    pub(super) fn class(self) -> usize {
        self.0 & LARGEST_CLASS
    }

    #[inline]
    pub(super) fn buckets(self) -> usize {
        buckets_of(self.class())
    }

    #[inline]
    pub(super) fn base(self) -> NonNull<u8> {
        // SAFETY: the address of an allocation, without its class bits, is not null.
        unsafe {
            NonNull::new_unchecked(std::ptr::with_exposed_provenance_mut(self.0 & !(LINE - 1)))
        }
    }

    /// The header. Callers hold the shard's lock, and no reference outlives its statement.
    #[inline]
    #[expect(
        clippy::mut_from_ref,
        reason = "the word is a pointer, not the owner; the table is what is borrowed"
    )]
    pub(super) fn header(&self) -> &mut Header {
        // SAFETY: a segment begins with its header. The references made here never overlap: each is used and dropped
        // within one expression, under the exclusive or shared borrow of the table, whose readers write no header.
        unsafe { self.base().cast::<Header>().as_mut() }
    }

    #[inline]
    pub(super) fn bucket(self, index: usize) -> NonNull<Bucket> {
        debug_assert!(index < self.buckets());
        // SAFETY: a segment has `buckets()` buckets after its header.
        unsafe { self.base().cast::<Bucket>().add(1 + index) }
    }

    /// Puts a slot into the first free place from its home on. False if all within reach are full.
    #[inline]
    pub(super) fn insert(self, tag: u64, word: u64) -> bool {
        let buckets = self.buckets();
        let home = bucket_of((word >> ADDRESS_BITS) & HOME_MASK, buckets);
        let mut index = home;
        for distance in 0..PROBE.min(buckets) {
            // SAFETY: buckets live as long as their segment; the caller holds the table exclusively.
            let bucket = unsafe { self.bucket(index).as_mut() };
            if let Some(slot) = bucket.free_slot() {
                bucket.fill(slot, tag, word);
                for passed in 0..distance {
                    // SAFETY: as above; another bucket than the one borrowed above, which is not used any more.
                    unsafe { self.bucket((home + passed) % buckets).as_mut() }.pass(1);
                }
                return true;
            }
            index = if index + 1 == buckets { 0 } else { index + 1 };
        }
        false
    }

    /// Fills all buckets as those of another segment of the same size are.
    pub(super) fn copy_places(self, other: Word) {
        debug_assert_eq!(self.class(), other.class());
        for index in 0..self.buckets() {
            // SAFETY: buckets live as long as their segment; these are two segments, so that nothing overlaps.
            let (to, from) = unsafe { (self.bucket(index).as_mut(), other.bucket(index).as_ref()) };
            (to.control, to.slots) = (from.control, from.slots);
        }
    }

    /// Frees the place of an entry, whose slot this is; the entry is the caller's.
    #[inline]
    pub(super) fn take_out(self, bucket: NonNull<Bucket>, slot: usize, word: u64) {
        // SAFETY: buckets live as long as their segment; the caller holds the table exclusively.
        unsafe { &mut *bucket.as_ptr() }.clear(slot);
        self.leave(bucket, (word >> ADDRESS_BITS) & HOME_MASK);
    }

    /// Tells the buckets between its home and `at` that an entry is gone.
    pub(super) fn leave(self, at: NonNull<Bucket>, home: u64) {
        let buckets = self.buckets();
        let mut index = bucket_of(home, buckets);
        while self.bucket(index) != at {
            // SAFETY: buckets live as long as their segment; the caller holds the table exclusively.
            unsafe { self.bucket(index).as_mut() }.pass(-1);
            index = if index + 1 == buckets { 0 } else { index + 1 };
        }
    }

    pub(super) fn visit(self, mut visit: impl FnMut(NonNull<Bucket>, usize)) {
        for index in 0..self.buckets() {
            self.visit_bucket(index, &mut visit);
        }
    }

    pub(super) fn visit_bucket(self, index: usize, visit: &mut impl FnMut(NonNull<Bucket>, usize)) {
        let bucket = self.bucket(index);
        for slot in 0..SLOTS {
            // SAFETY: buckets live as long as their segment.
            if unsafe { bucket.as_ref() }.is_occupied(slot) {
                visit(bucket, slot);
            }
        }
    }

    /// Visits the entries whose home, in units of the cursor's resolution, is in `from..to`.
    pub(super) fn visit_homes(
        self,
        from: u64,
        to: u64,
        mut visit: impl FnMut(NonNull<Bucket>, usize),
    ) {
        let buckets = self.buckets();
        let unit = HOME_BITS - CURSOR_HOME_BITS;
        let first = bucket_of(from << unit, buckets);
        let last = bucket_of((to << unit) - 1, buckets);
        let reach = (last - first + PROBE).min(buckets);
        for offset in 0..reach {
            self.visit_bucket((first + offset) % buckets, &mut |bucket, slot| {
                // SAFETY: buckets live as long as their segment.
                let word = unsafe { bucket.as_ref() }.slots[slot];
                let home = (word >> ADDRESS_BITS) & HOME_MASK;
                if (from..to).contains(&(home >> unit)) {
                    visit(bucket, slot);
                }
            });
        }
    }

    pub(super) fn count(self) -> usize {
        // SAFETY: buckets live as long as their segment.
        (0..self.buckets())
            .map(|index| unsafe { self.bucket(index).as_ref() }.count())
            .sum()
    }
}

impl Bucket {
    const TAGS: u64 = 0x00ff_ffff_ffff_ffff;
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;

    /// A bit at the top of each byte whose tag is `tag`; a false one is possible above a true one, and is told from
    /// it by the key.
    #[inline]
    pub(super) fn matches(&self, tag: u64) -> u64 {
        let difference = self.control ^ (tag * Self::LOW);
        // A byte above a match can be reported falsely when it differs in its lowest bit only: still an occupied
        // slot unless its tag is 0, which `tag` xor 1 can only be for tag 1: the mask below drops those.
        difference.wrapping_sub(Self::LOW) & !difference & Self::HIGH & self.occupied()
    }

    /// A bit at the top of each byte whose tag is not 0.
    #[inline]
    pub(super) fn occupied(&self) -> u64 {
        let tags = self.control & Self::TAGS;
        (((tags & !Self::HIGH) + !Self::HIGH) | tags) & Self::HIGH & Self::TAGS
    }

    #[inline]
    pub(super) fn is_occupied(&self, slot: usize) -> bool {
        self.tag(slot) != 0
    }

    #[inline]
    pub(super) fn tag(&self, slot: usize) -> u8 {
        (self.control >> (8 * slot)) as u8
    }

    #[inline]
    pub(super) fn count(&self) -> usize {
        self.occupied().count_ones() as usize
    }

    #[inline]
    pub(super) fn free_slot(&self) -> Option<usize> {
        let free = !self.occupied() & Self::HIGH & Self::TAGS;
        (free != 0).then(|| (free.trailing_zeros() / 8) as usize)
    }

    #[inline]
    pub(super) fn fill(&mut self, slot: usize, tag: u64, word: u64) {
        self.control |= tag << (8 * slot);
        self.slots[slot] = word;
    }

    #[inline]
    pub(super) fn clear(&mut self, slot: usize) {
        self.control &= !(0xff << (8 * slot));
        self.slots[slot] = 0;
    }

    #[inline]
    pub(super) fn address(&self, slot: usize) -> usize {
        (self.slots[slot] & ADDRESS_MASK) as usize
    }

    #[inline]
    pub(super) fn overflow(&self) -> u64 {
        self.control >> 56
    }

    /// At most 49 entries can have passed: seven from each of the seven homes before.
    pub(super) fn pass(&mut self, by: i64) {
        self.control = self.control.wrapping_add((by << 56) as u64);
    }
}

#[inline]
pub(super) fn tag(hash: u64) -> u64 {
    // 0 marks an empty slot.
    (hash & 0xff).max(1)
}

#[inline]
pub(super) fn home(hash: u64) -> u64 {
    (hash >> HOME_SHIFT) & HOME_MASK
}

#[inline]
pub(super) fn bucket_of(home: u64, buckets: usize) -> usize {
    (home as usize * buckets) >> HOME_BITS
}
