//! Caches of sampled keys without values: one for each policy and capacity, over records that they share.

use std::array;

use hashbrown::HashTable;

use super::{Event, RANKINGS, Report, SCALES, Use};
use crate::{
    eviction::{Eviction, Options, Policy, Scope, Tracker, lfu::Pace, random},
    time::Timestamp,
};

/// Sampled keys that are known at most: those that at least one of the shadows holds.
pub(super) const RECORDS: usize = 4096;
const SHADOWS: usize = RANKINGS.len() * SCALES.len();
/// Keys that are looked at for one that goes. The server looks at fewer, but remembers the best candidates.
const SAMPLES: usize = 16;
/// Draws for one key that a shadow holds, before it is let be.
const DRAWS: usize = 64;
/// When so many sampled reads were counted, they count half from then on.
const FADE: f64 = 131_072.0;

/// A sampled key.
struct Record {
    hash: u64,
    deadline_ms: i64,
    bytes: u32,
    /// Which shadows hold it, a bit each.
    held: u16,
    /// It was missed last: a write then fills the cache, which where it is held would not have happened.
    missed: bool,
    /// What each shadow's policy keeps of it.
    access: [u16; SHADOWS],
}

const _: () = assert!(SHADOWS <= u16::BITS as usize && RECORDS <= u16::MAX as usize);

/// One policy at one capacity.
struct Shadow {
    /// Settings, clock and memory as the server has them, of its own.
    eviction: Eviction,
    tracker: Tracker,
    scale: f64,
    capacity_bytes: u64,
    held_bytes: u64,
    keys: usize,
    misses: f64,
}

pub(super) struct Shadows {
    records: Vec<Record>,
    index: HashTable<u16>,
    shadows: [Shadow; SHADOWS],
    shift: u32,
    /// Reads of all keys, and hits among them, divided by 2^`shift`.
    reads: f64,
    hits: f64,
    /// The server's hits and misses when they were looked at last.
    last: Option<(u64, u64)>,
}

impl Default for Shadows {
    fn default() -> Shadows {
        Shadows {
            records: Vec::new(),
            index: HashTable::new(),
            shadows: array::from_fn(|number| {
                Shadow::new(number / SCALES.len(), SCALES[number % SCALES.len()])
            }),
            shift: 0,
            reads: 0.0,
            hits: 0.0,
            last: None,
        }
    }
}

impl Shadows {
    /// How LFU counts.
    pub(super) fn set_pace(&mut self, pace: Pace) {
        self.shadows.iter_mut().for_each(|shadow| {
            shadow.eviction.set_lfu(pace);
        });
    }

    /// Forgets all but the settings.
    pub(super) fn restart(&mut self) {
        let pace = self.shadows[0].eviction.lfu();
        *self = Shadows::default();
        self.set_pace(pace);
    }

    pub(super) fn mask(&self) -> u64 {
        (1 << self.shift) - 1
    }

    /// Sets what may be held from now on, and lets go what has expired.
    pub(super) fn begin(&mut self, capacity_bytes: u64, now: Timestamp) {
        let sampled = capacity_bytes >> self.shift;
        for (number, shadow) in self.shadows.iter_mut().enumerate() {
            shadow.capacity_bytes = (sampled as f64 * shadow.scale) as u64;
            shadow.make_room(number, 0, &mut self.records, now);
        }
        for slot in (0..self.records.len()).rev() {
            if self.records[slot].is_expired(now) {
                self.forget(slot);
            } else {
                self.drop_unheld(slot);
            }
        }
    }

    /// Takes the server's totals, for what was read since. Whether these are the first.
    pub(super) fn count(&mut self, hits: u64, misses: u64) -> bool {
        let begins = self.last.is_none();
        let (last_hits, last_misses) = self.last.unwrap_or((hits, misses));
        self.last = Some((hits, misses));
        // Totals can be set to zero meanwhile.
        let part =
            |now: u64, then: u64| now.saturating_sub(then) as f64 / (1u64 << self.shift) as f64;
        let hits = part(hits, last_hits);
        self.hits += hits;
        self.reads += hits + part(misses, last_misses);
        if self.reads > FADE {
            self.scale_counts(0.5);
        }
        begins
    }

    /// What is counted so far does not matter.
    pub(super) fn restart_counting(&mut self) {
        self.scale_counts(0.0);
    }

    pub(super) fn apply(&mut self, event: &Event, now: Timestamp) {
        if event.hash & self.mask() != 0 {
            return;
        }
        let mut found = self.find(event.hash);
        if let Some(slot) = found
            && (event.how == Use::Delete || self.records[slot].is_expired(now))
        {
            self.forget(slot);
            found = None;
        }
        let counts = matches!(event.how, Use::Hit | Use::Miss);
        if let Some(slot) = found {
            self.reuse(slot, event, now);
        } else if counts {
            self.shadows
                .iter_mut()
                .for_each(|shadow| shadow.misses += 1.0);
        }
        if matches!(event.how, Use::Hit | Use::Write) {
            self.fill(found, event, now);
        }
    }

    /// A key that some shadows hold is used: there it is a hit, elsewhere a miss.
    fn reuse(&mut self, slot: usize, event: &Event, now: Timestamp) {
        let record = &mut self.records[slot];
        let fills = event.how == Use::Write && record.missed;
        record.missed = event.how == Use::Miss;
        if event.how != Use::Miss {
            let old = std::mem::replace(&mut record.bytes, event.bytes);
            record.deadline_ms = event.deadline_ms;
            for (number, shadow) in self.shadows.iter_mut().enumerate() {
                if record.is_held(number) {
                    shadow.held_bytes = shadow.held_bytes - u64::from(old) + u64::from(event.bytes);
                }
            }
        }
        for (number, shadow) in self.shadows.iter_mut().enumerate() {
            if !record.is_held(number) {
                shadow.misses += f64::from(u8::from(event.how != Use::Write));
            } else if !fills {
                let access = &mut record.access[number];
                *access = shadow
                    .tracker
                    .used(&shadow.eviction, *access, event.hash, now);
            }
        }
    }

    /// Puts a key where it is not held.
    fn fill(&mut self, found: Option<usize>, event: &Event, now: Timestamp) {
        let slot = found.unwrap_or_else(|| self.add(event));
        for (number, shadow) in self.shadows.iter_mut().enumerate() {
            if self.records[slot].is_held(number) {
                continue;
            }
            if u64::from(event.bytes) > shadow.capacity_bytes {
                continue;
            }
            shadow.make_room(number, event.bytes, &mut self.records, now);
            let record = &mut self.records[slot];
            record.access[number] = shadow.tracker.fresh(&shadow.eviction, event.hash, now);
            record.held |= 1 << number;
            shadow.held_bytes += u64::from(event.bytes);
            shadow.keys += 1;
        }
        if self.records.len() > RECORDS {
            self.sweep();
        }
    }

    /// Drops records that nobody holds any more; if that is not enough, samples fewer keys.
    fn sweep(&mut self) {
        for slot in (0..self.records.len()).rev() {
            self.drop_unheld(slot);
        }
        if self.records.len() > RECORDS / 8 * 7 {
            self.coarsen(1);
        }
    }

    /// Samples one key in 2^`steps` of those sampled so far.
    pub(super) fn coarsen(&mut self, steps: u32) {
        self.shift = (self.shift + steps).min(u64::BITS / 2);
        for shadow in &mut self.shadows {
            shadow.capacity_bytes >>= steps.min(63);
        }
        self.scale_counts(0.5f64.powi(steps as i32));
        let mask = self.mask();
        for slot in (0..self.records.len()).rev() {
            if self.records[slot].hash & mask != 0 {
                self.forget(slot);
            }
        }
    }

    pub(super) fn report(&self) -> Report {
        let ratio = |hits: f64| {
            if self.reads > 0.0 {
                (hits / self.reads).clamp(0.0, 1.0)
            } else {
                0.0
            }
        };
        Report {
            one_in: 1 << self.shift,
            keys: self.records.len(),
            requests: (self.reads * (1u64 << self.shift) as f64) as u64,
            hit_ratio: ratio(self.hits),
            expected: array::from_fn(|policy| {
                let at = |scale: usize| {
                    ratio(self.reads - self.shadows[policy * SCALES.len() + scale].misses)
                };
                (RANKINGS[policy], array::from_fn(at))
            }),
        }
    }

    fn scale_counts(&mut self, by: f64) {
        self.reads *= by;
        self.hits *= by;
        self.shadows
            .iter_mut()
            .for_each(|shadow| shadow.misses *= by);
    }

    fn find(&self, hash: u64) -> Option<usize> {
        let is = |&slot: &u16| self.records[usize::from(slot)].hash == hash;
        self.index
            .find(spread(hash), is)
            .map(|&slot| usize::from(slot))
    }

    fn add(&mut self, event: &Event) -> usize {
        let slot = self.records.len();
        self.records.push(Record {
            hash: event.hash,
            deadline_ms: event.deadline_ms,
            bytes: event.bytes,
            held: 0,
            missed: false,
            access: [0; SHADOWS],
        });
        let records = &self.records;
        self.index
            .insert_unique(spread(event.hash), slot as u16, |&slot| {
                spread(records[usize::from(slot)].hash)
            });
        slot
    }

    /// Takes a key from all shadows.
    fn forget(&mut self, slot: usize) {
        let record = &mut self.records[slot];
        for (number, shadow) in self.shadows.iter_mut().enumerate() {
            if record.is_held(number) {
                shadow.release(number, record);
            }
        }
        self.drop_unheld(slot);
    }

    /// Drops a record that nobody holds. The last takes its place.
    fn drop_unheld(&mut self, slot: usize) {
        if self.records[slot].held != 0 {
            return;
        }
        let last = self.records.len() - 1;
        self.unlink(slot);
        if slot != last {
            let hash = self.records[last].hash;
            let is = |&at: &u16| usize::from(at) == last;
            if let Some(at) = self.index.find_mut(spread(hash), is) {
                *at = slot as u16;
            }
        }
        self.records.swap_remove(slot);
    }

    fn unlink(&mut self, slot: usize) {
        let hash = spread(self.records[slot].hash);
        if let Ok(at) = self.index.find_entry(hash, |&at| usize::from(at) == slot) {
            at.remove();
        }
    }
}

impl Shadow {
    fn new(policy: usize, scale: f64) -> Shadow {
        let eviction = Eviction::default();
        // What a policy remembers of keys that are gone is as small as it gets: enough for the sample.
        eviction.configure(Options {
            limit_bytes: 1,
            policy: Some(Policy {
                scope: Scope::All,
                ranking: RANKINGS[policy],
            }),
            samples: SAMPLES,
            log_factor: 10,
            decay_minutes: 1,
            advice: false,
        });
        Shadow {
            tracker: eviction.tracker(),
            eviction,
            scale,
            capacity_bytes: 0,
            held_bytes: 0,
            keys: 0,
            misses: 0.0,
        }
    }

    /// Lets keys go until there is room for so many bytes.
    fn make_room(&mut self, number: usize, bytes: u32, records: &mut [Record], now: Timestamp) {
        while self.held_bytes + u64::from(bytes) > self.capacity_bytes && self.keys > 0 {
            let worst = self.worst(number, records, now);
            let record = &mut records[worst];
            self.tracker.note_gone(record.hash);
            self.release(number, record);
            self.eviction.advance_clock(self.keys);
        }
    }

    /// Of some keys the one that should go first.
    fn worst(&self, number: usize, records: &mut [Record], now: Timestamp) -> usize {
        let held = |records: &[Record]| records.iter().position(|record| record.is_held(number));
        self.sample(number, records, now)
            .or_else(|| held(records))
            .expect("a shadow counts the records that it holds")
    }

    /// The worst of some keys; `None` if no draw hits one that is held.
    fn sample(&self, number: usize, records: &mut [Record], now: Timestamp) -> Option<usize> {
        let mut worst = None;
        let mut seen = 0;
        for _ in 0..DRAWS {
            let slot = random() as usize % records.len();
            let record = &mut records[slot];
            if !record.is_held(number) {
                continue;
            }
            let score = self.score(number, record, now);
            worst = worst.max(Some((score, slot)));
            seen += 1;
            if seen == SAMPLES {
                break;
            }
        }
        worst.map(|(_, slot)| slot)
    }

    fn score(&self, number: usize, record: &mut Record, now: Timestamp) -> u64 {
        if record.is_expired(now) {
            return u64::MAX;
        }
        let access = &mut record.access[number];
        let (score, after) = self
            .tracker
            .rank(&self.eviction, *access, record.hash, SAMPLES, now);
        *access = after;
        score
    }

    fn release(&mut self, number: usize, record: &mut Record) {
        record.held &= !(1 << number);
        self.held_bytes -= u64::from(record.bytes);
        self.keys -= 1;
    }
}

impl Record {
    fn is_held(&self, shadow: usize) -> bool {
        self.held & 1 << shadow != 0
    }

    fn is_expired(&self, now: Timestamp) -> bool {
        self.deadline_ms != 0 && self.deadline_ms <= now.millis()
    }
}

/// Sampled hashes have zeros where the table looks.
fn spread(hash: u64) -> u64 {
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
