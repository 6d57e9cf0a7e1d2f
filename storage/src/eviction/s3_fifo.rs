//! S3-FIFO by sampling: newcomers are on trial in a small queue, a tenth of the cache; those used meanwhile move to the
//! main queue, the others go, and are remembered for a while as ghosts. A ghost that comes back is trusted at once. In
//! the main queue a key that was used gets another round for each of up to three uses.
//!
//! Here the queues are the keys' ages: a newcomer has passed the small queue when it is older than a tenth of a
//! turnover. After Yang et al., FIFO queues are all you need for cache eviction (SOSP 2023).
//!
//! ```text
//! bits 15-14   uses since it was inserted or looked at, up to 3
//! bit     13   in the main queue
//! bits 12-0    the clock when it was inserted there
//! ```

use std::sync::atomic::{AtomicU16, Ordering};

use super::TICKS_PER_TURNOVER;

const USE: u16 = 1 << 14;
const USES: u16 = 3 << 14;
const MAIN: u16 = 1 << 13;
const CLOCK: u16 = MAIN - 1;
/// A newcomer with as many uses is kept.
const PROMOTED: u16 = 2 * USE;
/// Ticks that a newcomer has to prove itself.
const TRIAL: u64 = TICKS_PER_TURNOVER as u64 / 10;

/// Ticks that a key of the main queue has for its next use.
const ROUND: u64 = TICKS_PER_TURNOVER as u64 / 2;

/// Scores by class, each above any age.
const FAILED: u64 = 3 << 13;
const UNUSED: u64 = 2 << 13;
const ON_TRIAL: u64 = 1 << 13;

pub(super) fn fresh(ghosts: Option<&Ghosts>, hash: u64, clock: u32) -> u16 {
    let returns = ghosts.is_some_and(|ghosts| ghosts.take(hash));
    clock as u16 & CLOCK | if returns { MAIN } else { 0 }
}

#[inline]
pub(super) fn used(bits: u16) -> u16 {
    if bits & USES == USES {
        bits
    } else {
        bits + USE
    }
}

/// The score, and the bits from now on. `hand_passes` is true about once while the queue moves on by its length.
pub(super) fn score(bits: u16, clock: u32, hand_passes: bool) -> (u64, u16) {
    let age = u64::from((clock as u16).wrapping_sub(bits) & CLOCK);
    let again = MAIN | clock as u16 & CLOCK;
    let uses = bits & USES;
    if bits & MAIN == 0 {
        if age <= TRIAL {
            return (if uses == 0 { ON_TRIAL + age } else { age }, bits);
        }
        if uses < PROMOTED {
            return (FAILED + age, bits);
        }
        return (0, again);
    }
    if uses == 0 {
        return (if age > ROUND { UNUSED + age } else { age }, bits);
    }
    let bits = if hand_passes {
        (uses - USE) | again
    } else {
        bits
    };
    (0, bits)
}

/// Which keys went lately: fingerprints, the newer replacing the older. Two bytes each.
pub(super) struct Ghosts {
    fingerprints: Box<[AtomicU16]>,
}

impl Ghosts {
    /// `slots` is a power of two.
    pub(super) fn new(slots: usize) -> Ghosts {
        debug_assert!(slots.is_power_of_two());
        Ghosts {
            fingerprints: (0..slots).map(|_| AtomicU16::new(0)).collect(),
        }
    }

    pub(super) fn add(&self, hash: u64) {
        let (slot, fingerprint) = self.slot(hash);
        slot.store(fingerprint, Ordering::Relaxed);
    }

    /// Whether the key is among them; it is not any more then.
    fn take(&self, hash: u64) -> bool {
        let (slot, fingerprint) = self.slot(hash);
        let found = slot.load(Ordering::Relaxed) == fingerprint;
        if found {
            slot.store(0, Ordering::Relaxed);
        }
        found
    }

    fn slot(&self, hash: u64) -> (&AtomicU16, u16) {
        let index = hash as usize & (self.fingerprints.len() - 1);
        // Of other bits than the index; 0 is an empty slot.
        let fingerprint = (hash >> 32) as u16 | 1;
        (&self.fingerprints[index], fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_counted_up_to_three() {
        let bits = fresh(None, 1, 77);
        let often = (0..9).fold(bits, |bits, _| used(bits));
        assert_eq!(often, bits | USES);
    }

    #[test]
    fn a_ghost_comes_back_once() {
        let ghosts = Ghosts::new(64);
        ghosts.add(0x1234_5678_9abc);
        assert_eq!(fresh(Some(&ghosts), 0x1234_5678_9abc, 5), MAIN | 5);
        assert_eq!(fresh(Some(&ghosts), 0x1234_5678_9abc, 5), 5);
    }
}
