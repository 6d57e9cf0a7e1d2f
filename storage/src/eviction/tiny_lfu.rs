//! TinyLFU: how often a key was used of late, whether it was there or not, by a sketch of small counters.
//!
//! A count-min sketch of 4-bit counters, four of which stand for a key; all are halved once in about twenty uses per key,
//! a word at a time as uses come in, so that nothing ever stops for it. After Einziger et al., TinyLFU (2017). Four bytes
//! per key.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const COUNTERS_PER_WORD: usize = 16;
const BITS: u32 = 4;
/// The highest count.
pub(super) const MAX: u8 = (1 << BITS) - 1;
/// What is left of every counter of a word when the word is halved.
const HALVES: u64 = 0x7777_7777_7777_7777;
const ROWS: usize = 4;
/// Uses per key between two halvings.
const PERIOD: usize = 20;
/// Twice the rows: with one counter per row and key, a flood of keys used once hides the difference between others.
const COUNTERS_PER_KEY: usize = 2 * ROWS;
/// Uses between halving two words.
const USES_PER_WORD: usize = PERIOD * COUNTERS_PER_WORD / COUNTERS_PER_KEY;

pub(super) struct Sketch {
    words: Box<[AtomicU64]>,
    uses: AtomicUsize,
}

impl Sketch {
    /// For about `keys` keys, a power of two.
    pub(super) fn new(keys: usize) -> Sketch {
        let words = (keys * COUNTERS_PER_KEY / COUNTERS_PER_WORD).next_power_of_two();
        Sketch {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            uses: AtomicUsize::new(0),
        }
    }

    /// Counts a use.
    pub(super) fn add(&self, hash: u64) {
        let lowest = self.estimate(hash);
        if lowest < MAX {
            // Only the lowest counters rise: higher ones count other keys as well. Loads and stores without a lock, since
            // a use that is lost when threads meet does not matter.
            for (word, shift) in self.places(hash) {
                let value = word.load(Ordering::Relaxed);
                if (value >> shift) as u8 & MAX == lowest {
                    word.store(value + (1 << shift), Ordering::Relaxed);
                }
            }
        }
        let uses = self.uses.fetch_add(1, Ordering::Relaxed);
        if uses.is_multiple_of(USES_PER_WORD) {
            let word = &self.words[uses / USES_PER_WORD % self.words.len()];
            let halved = word.load(Ordering::Relaxed) >> 1 & HALVES;
            word.store(halved, Ordering::Relaxed);
        }
    }

    /// About how often the key was used of late, rather too high than too low.
    pub(super) fn estimate(&self, hash: u64) -> u8 {
        self.places(hash)
            .map(|(word, shift)| (word.load(Ordering::Relaxed) >> shift) as u8 & MAX)
            .min()
            .unwrap_or(0)
    }

    fn places(&self, hash: u64) -> impl Iterator<Item = (&AtomicU64, u32)> {
        (1..=ROWS as u64).map(move |row| {
            let mixed = (hash ^ row).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ (row << 33));
            let index = (mixed >> 32) as usize & (self.words.len() - 1);
            let shift = (mixed >> 28) as u32 % COUNTERS_PER_WORD as u32 * BITS;
            (&self.words[index], shift)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::hash;

    #[test]
    fn counts_are_about_right_and_fade() {
        let sketch = Sketch::new(1024);
        let key = hash(b"key");
        for _ in 0..5 {
            sketch.add(key);
        }
        assert!((4..=6).contains(&sketch.estimate(key)));
        for _ in 0..100 {
            sketch.add(key);
        }
        assert!(sketch.estimate(key) >= MAX - 1);
        for other in 0..100_000u32 {
            sketch.add(hash(&(other % 500).to_le_bytes()));
        }
        assert!(sketch.estimate(key) <= 3);
    }
}
