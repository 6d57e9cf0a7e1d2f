//! Buckets: a cache line of tags and offsets each.
//!
//! ```text
//! 21 tags of a byte (0: free) · overflow count · 21 offsets of two bytes
//! ```

/// Slots of a bucket.
pub(super) const SLOTS: usize = 21;
/// Bits of an offset.
pub(super) const OFFSET_BITS: u32 = 16;

const _: () = assert!(SLOTS + 1 + SLOTS * 2 == 64);

#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Bucket([u8; 64]);

const OVERFLOW: usize = SLOTS;
const OFFSETS: usize = SLOTS + 1;
/// An overflow count that reached this stays there, as it no longer knows how many it stands for.
const OVERFLOW_STUCK: u8 = u8::MAX;

impl Bucket {
    pub(super) const EMPTY: Bucket = Bucket([0; 64]);

    /// One bit per slot whose tag is `tag`.
    #[inline]
    pub(super) fn matches(&self, tag: u8) -> u32 {
        const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
        let pattern = u64::from_ne_bytes([tag; 8]);
        let mut mask = 0;
        for word in 0..3 {
            let bytes: [u8; 8] = self.0[word * 8..][..8].try_into().expect("eight bytes");
            let differing = u64::from_le_bytes(bytes) ^ pattern;
            // The high bit of each byte that does not differ, exactly.
            let equal = !(((differing & LOW) + LOW) | differing | LOW);
            // Gathers these eight bits, one byte apart each, in the top byte.
            let bits = (equal >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56;
            mask |= (bits as u32) << (word * 8);
        }
        mask & ((1 << SLOTS) - 1)
    }

    #[inline]
    pub(super) fn used(&self) -> u32 {
        !self.matches(0) & ((1 << SLOTS) - 1)
    }

    #[inline]
    pub(super) fn offset(&self, slot: usize) -> usize {
        let at = OFFSETS + slot * 2;
        usize::from(u16::from_le_bytes([self.0[at], self.0[at + 1]]))
    }

    /// Puts an entry in a free slot.
    pub(super) fn fill(&mut self, slot: usize, tag: u8, offset: usize) {
        self.0[slot] = tag;
        self.set_offset(slot, offset);
    }

    /// Frees a slot.
    pub(super) fn free(&mut self, slot: usize) {
        self.0[slot] = 0;
    }

    /// Whether an entry that belongs here, or before, may be found in a later bucket.
    #[inline]
    pub(super) fn overflows(&self) -> bool {
        self.0[OVERFLOW] != 0
    }

    /// Counts an entry that had to pass this bucket.
    pub(super) fn add_overflow(&mut self) {
        self.0[OVERFLOW] = self.0[OVERFLOW].saturating_add(1);
    }

    /// Undoes [`Bucket::add_overflow`].
    pub(super) fn remove_overflow(&mut self) {
        if self.0[OVERFLOW] != OVERFLOW_STUCK {
            self.0[OVERFLOW] -= 1;
        }
    }

    pub(super) fn set_offset(&mut self, slot: usize, offset: usize) {
        let offset = u16::try_from(offset).expect("offsets have OFFSET_BITS");
        self.0[OFFSETS + slot * 2..][..2].copy_from_slice(&offset.to_le_bytes());
    }
}

/// Where an entry's slot is. Good until the segment changes in other ways than [`Segment::compact`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) bucket: usize,
    pub(super) slot: usize,
}

/// Walks the used slots of a segment.
#[derive(Clone)]
pub(super) struct Slots<'a> {
    buckets: &'a [Bucket],
    bucket: usize,
    used: u32,
}

impl<'a> Slots<'a> {
    pub(super) fn new(buckets: &'a [Bucket]) -> Self {
        Slots {
            buckets,
            bucket: 0,
            used: buckets[0].used(),
        }
    }
}

impl Iterator for Slots<'_> {
    type Item = (Place, usize);

    #[inline]
    fn next(&mut self) -> Option<(Place, usize)> {
        while self.used == 0 {
            if self.bucket + 1 >= self.buckets.len() {
                return None;
            }
            self.bucket += 1;
            self.used = self.buckets[self.bucket].used();
        }
        let slot = self.used.trailing_zeros() as usize;
        self.used &= self.used - 1;
        Some((
            Place {
                bucket: self.bucket,
                slot,
            },
            self.buckets[self.bucket].offset(slot),
        ))
    }
}

/// The lowest byte of the hash, but never 0, which means free.
#[inline]
pub(super) fn tag_of(hash: u64) -> u8 {
    (hash as u8).max(1)
}
