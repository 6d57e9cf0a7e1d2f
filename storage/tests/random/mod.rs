//! The dice of the tests: SplitMix64, the same everywhere, so that a printed seed repeats a failure.

#![allow(dead_code, reason = "each of the tests uses a part")]

pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A number from 0 to 1, without the 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One of so many keys, whose popularity falls with its number, about as in Zipf's law.
    pub(crate) fn popular(&mut self, keys: u64) -> u64 {
        ((keys as f64).powf(self.unit()) - 1.0) as u64
    }
}
