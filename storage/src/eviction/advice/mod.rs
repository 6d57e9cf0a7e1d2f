//! Advice from a shadow: what the hit ratio would be under other policies and with other limits.
//!
//! Of all keys one in 2^`shift` is sampled, by its hash, and of those every use is noted. Maintenance replays the notes on
//! miniature caches, one for each policy and capacity, scaled down alike: a sample of the keys in a sample of the
//! memory misses about as often as all keys in all of it. The sample gets coarser as keys or uses come to be more than
//! [`shadow::RECORDS`] and [`EVENTS`], so that memory and time are bounded; every other use costs one comparison.
//!
//! Few keys take most uses, and whether one of them is in the sample is chance. So misses of the sample are compared with
//! the uses of *all* keys divided by the sample's part, not with those of the sample: popular keys hardly miss, and their
//! uses are known exactly. After Waldspurger et al., Efficient MRC construction with SHARDS (FAST 2015), and Cache modeling
//! and optimization using miniature simulations (ATC 2017).

mod shadow;

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use self::shadow::Shadows;
use super::{Ranking, lfu::Pace};
use crate::{alloc, entry::EntryRef, time::Timestamp};

/// Uses that are kept between two replays; more make the sample coarser. 24 bytes each.
const EVENTS: usize = 4096;
/// Samples nothing, but for one hash in 2^64.
const OFF: u64 = u64::MAX;
/// Bytes of the table that a key takes beside its entry.
const SLOT_BYTES: usize = 10;

/// The policies that are compared.
pub const RANKINGS: [Ranking; 5] = [
    Ranking::Lru,
    Ranking::Lfu,
    Ranking::S3Fifo,
    Ranking::Sieve,
    Ranking::TinyLfu,
];
/// The capacities, as multiples of what there is.
pub const SCALES: [f64; 3] = [0.5, 1.0, 2.0];

/// How a key was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Read, and there.
    Hit,
    /// Read, and not there.
    Miss,
    /// Set or changed.
    Write,
    Delete,
}

#[derive(Clone, Copy)]
struct Event {
    hash: u64,
    /// 0 for none.
    deadline_ms: i64,
    /// Bytes that the key takes, deleted or missed 0.
    bytes: u32,
    how: Use,
}

/// The sampler.
pub struct Advice {
    /// A hash is sampled if it has none of these bits.
    mask: AtomicU64,
    notes: Mutex<Notes>,
    shadows: Mutex<Option<Box<Shadows>>>,
}

/// Uses since the last replay.
#[derive(Default)]
struct Notes {
    events: Vec<Event>,
    /// Those there was no room for.
    dropped: usize,
}

/// What to expect.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// One key in so many is sampled.
    pub one_in: u64,
    /// Sampled keys that are known.
    pub keys: usize,
    /// About how many reads the ratios are of, later ones counted more.
    pub requests: u64,
    /// Of the server as it is, in the same time.
    pub hit_ratio: f64,
    /// Hit ratios by policy, for each of [`SCALES`].
    pub expected: [(Ranking, [f64; SCALES.len()]); RANKINGS.len()],
}

impl Default for Advice {
    fn default() -> Advice {
        Advice {
            mask: AtomicU64::new(OFF),
            notes: Mutex::default(),
            shadows: Mutex::default(),
        }
    }
}

impl Advice {
    /// Begins to sample, or ends and forgets all.
    pub(super) fn enable(&self, on: bool, pace: Pace) {
        let mut shadows = self.shadows.lock();
        if shadows.is_some() != on {
            *shadows = on.then(Box::default);
            self.mask.store(if on { 0 } else { OFF }, Ordering::Relaxed);
            *self.notes.lock() = Notes::default();
        }
        if let Some(shadows) = &mut *shadows {
            shadows.set_pace(pace);
        }
    }

    pub fn is_on(&self) -> bool {
        self.mask() != OFF
    }

    /// Forgets what was learned so far.
    pub fn reset(&self) {
        let mut shadows = self.shadows.lock();
        if let Some(shadows) = &mut *shadows {
            shadows.restart();
            self.mask.store(0, Ordering::Relaxed);
            *self.notes.lock() = Notes::default();
        }
    }

    /// What [`Advice::note`] is to be called for: hashes without these bits.
    #[inline]
    pub(crate) fn mask(&self) -> u64 {
        // Relaxed: a sample that changes a moment later is as good.
        self.mask.load(Ordering::Relaxed)
    }

    /// Notes the use of a sampled key. Called under a shard's lock.
    #[cold]
    pub(crate) fn note(&self, how: Use, hash: u64, entry: Option<EntryRef<'_>>) {
        if self.mask() == OFF {
            return;
        }
        let mut notes = self.notes.lock();
        if notes.events.len() == EVENTS {
            notes.dropped += 1;
            return;
        }
        let bytes = entry.map_or(0, |entry| {
            let own = alloc::good_size(entry.own_bytes());
            own + entry.value().memory_bytes() + SLOT_BYTES
        });
        notes.events.push(Event {
            hash,
            deadline_ms: entry
                .and_then(EntryRef::deadline)
                .map_or(0, Timestamp::millis),
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            how,
        });
    }

    /// Lets the shadows do what was done since the last time. To be called some times a second.
    ///
    /// Keys and their entries may take `capacity_bytes`; `hits` and `misses` are those of all keys since the start.
    /// O(what was noted, and sampled keys).
    pub fn replay(&self, capacity_bytes: u64, hits: u64, misses: u64, now: Timestamp) {
        let mut shadows = self.shadows.lock();
        let Some(shadows) = &mut *shadows else { return };
        let notes = std::mem::take(&mut *self.notes.lock());
        shadows.begin(capacity_bytes, now);
        let begins = shadows.count(hits, misses);
        for event in &notes.events {
            shadows.apply(event, now);
        }
        if notes.dropped > 0 {
            let wanted = notes.events.len() + notes.dropped;
            shadows.coarsen(wanted.div_ceil(EVENTS).next_power_of_two().trailing_zeros());
        }
        if begins || notes.dropped > 0 {
            // What was counted is not of the same uses as the totals are.
            shadows.restart_counting();
        }
        self.mask.store(shadows.mask(), Ordering::Relaxed);
        // The memory of the notes is used again, unless there are new ones already.
        let mut fresh = self.notes.lock();
        if fresh.events.is_empty() {
            let mut events = notes.events;
            events.clear();
            fresh.events = events;
        }
    }

    /// What is known by now. `None` while nothing is sampled.
    pub fn report(&self) -> Option<Report> {
        self.shadows.lock().as_ref().map(|shadows| shadows.report())
    }
}
