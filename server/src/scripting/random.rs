//! `math.random` as every run of a script sees it: the same numbers in the same order, those of POSIX's `drand48`.

use std::cell::Cell;

/// A 48-bit linear congruential generator.
pub(super) struct Random(Cell<u64>);

const MULTIPLIER: u64 = 0x5_DEEC_E66D;
const INCREMENT: u64 = 0xB;
const MASK: u64 = (1 << 48) - 1;
/// What `drand48` puts below the seed.
const LOW_BITS: u64 = 0x330E;

impl Default for Random {
    fn default() -> Random {
        Random(Cell::new(LOW_BITS))
    }
}

impl Random {
    pub(super) fn seed(&self, seed: i32) {
        self.0.set(u64::from(seed as u32) << 16 | LOW_BITS);
    }

    /// A number in [0, 1).
    pub(super) fn next(&self) -> f64 {
        const RANGE: u64 = i32::MAX as u64;
        let state = self
            .0
            .get()
            .wrapping_mul(MULTIPLIER)
            .wrapping_add(INCREMENT)
            & MASK;
        self.0.set(state);
        let number = state >> 17;
        (number % RANGE) as f64 / RANGE as f64
    }
}
