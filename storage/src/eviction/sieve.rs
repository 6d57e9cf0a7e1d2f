//! SIEVE by sampling: keys stay where they were inserted; a hand moves from the oldest to the newest and around again,
//! takes the visited mark from those that have it and evicts those that have none.
//!
//! Here the hand is the sample: what is visited loses its mark about once in a turnover, as often as the hand would pass
//! it, and has until the next time to be used again. Newcomers, whom the hand meets early, have half of that. After
//! Zhang et al., SIEVE is simpler than LRU (NSDI 2024).
//!
//! ```text
//! bit     15   visited since the hand passed
//! bit     14   the hand has passed
//! bits 13-0    the clock when it did, or when the key was inserted
//! ```

const VISITED: u16 = 1 << 15;
const PASSED: u16 = 1 << 14;
const CLOCK: u16 = PASSED - 1;

/// Above any age of a visited key.
const UNVISITED: u64 = 1 << 16;

pub(super) fn fresh(clock: u32) -> u16 {
    clock as u16 & CLOCK
}

#[inline]
pub(super) fn used(bits: u16) -> u16 {
    bits | VISITED
}

/// The score, and the bits from now on. `hand_passes` is true about once while the hand goes around.
pub(super) fn score(bits: u16, clock: u32, hand_passes: bool) -> (u64, u16) {
    let age = u64::from((clock as u16).wrapping_sub(bits) & CLOCK);
    let age = if bits & PASSED == 0 { 2 * age } else { age };
    if bits & VISITED == 0 {
        return (UNVISITED + age, bits);
    }
    let bits = if hand_passes {
        PASSED | clock as u16 & CLOCK
    } else {
        bits
    };
    (age, bits)
}
