//! Looking at many entries: traversals, sweeps for what has expired, samples.

use super::{
    Place, Table,
    segment::{HOME_BITS, HOME_MASK, SLOTS, Word},
};
use crate::{entry::EntryRef, time::Timestamp};

/// A traversal's cursor: prefix, position within the prefix's segment, and the depth both belong to.
const CURSOR_PREFIX_BITS: u32 = 24;
pub(super) const CURSOR_HOME_BITS: u32 = 7;
const CURSOR_DEPTH_BITS: u32 = 5;
/// Bits that [`Table::traverse`] uses of a cursor, from the lowest.
pub const CURSOR_BITS: u32 = CURSOR_PREFIX_BITS + CURSOR_HOME_BITS + CURSOR_DEPTH_BITS;
/// Random slots that [`Table::sample`] looks at before it takes what it finds.
const SAMPLE_TRIES: usize = 2000;

impl Table {
    /// Visits entries from `cursor` on until at least `budget` were visited; returns the next cursor, 0 at the end.
    ///
    /// Start with 0. Every entry that is present from the first call to the last is visited, whatever is inserted or
    /// removed in between; one may be visited twice when segments split or merge between calls. O(budget).
    pub fn traverse<'a>(
        &'a self,
        cursor: u64,
        budget: usize,
        mut visit: impl FnMut(Place, EntryRef<'a>),
    ) -> u64 {
        let mut at = Cursor::decode(cursor);
        let mut visited = 0;
        while !self.directory.is_empty() {
            let segment = self.directory[at.index(self.depth)];
            let depth = segment.header().depth;
            // The segment the cursor was in has merged into a wider one: its other half may not have been visited.
            let home_from = if depth < at.depth { 0 } else { at.home };
            // It split: the cursor's prefix is that of the first part, and the parts that follow start from anew.
            let homes = (HOME_MASK + 1) >> (HOME_BITS - CURSOR_HOME_BITS);
            let step = ((budget.saturating_sub(visited)).max(1) as u64 / 4).clamp(1, homes);
            let home_to = (home_from + step).min(homes);
            segment.visit_homes(home_from, home_to, |bucket, slot| {
                visited += 1;
                let place = Place {
                    bucket,
                    slot,
                    segment,
                };
                visit(place, self.entry(place));
            });
            if home_to < homes {
                at = Cursor {
                    prefix: at.prefix_at(depth),
                    home: home_to,
                    depth,
                };
            } else {
                match at.after(depth) {
                    Some(next) => at = next,
                    None => return 0,
                }
            }
            if visited >= budget {
                return at.encode();
            }
        }
        0
    }

    /// Visits the segments that hold an expired entry or field, taking out what `visit` says, from directory position
    /// `from` on; returns the position to go on from, 0 at the end. Looks at no more than `budget` entries and
    /// `16 x budget` segment headers.
    pub fn sweep_expired(
        &mut self,
        from: usize,
        budget: usize,
        now: Timestamp,
        mut expired: impl FnMut(&mut Table, Place),
    ) -> usize {
        let mut index = from;
        let mut looked = 0;
        let mut headers = 0;
        while index < self.directory.len() {
            let segment = self.directory[index];
            let depth = segment.header().depth;
            if segment.header().earliest <= now.0 {
                looked += segment.buckets() * SLOTS / 2;
                self.sweep_segment(segment, now, &mut expired);
            }
            index = (index | ((1 << (self.depth - depth)) - 1)) + 1;
            headers += 1;
            if looked >= budget || headers >= 16 * budget {
                break;
            }
        }
        if index >= self.directory.len() {
            0
        } else {
            index
        }
    }

    fn sweep_segment(
        &mut self,
        segment: Word,
        now: Timestamp,
        expired: &mut impl FnMut(&mut Table, Place),
    ) {
        let mut due = Vec::new();
        let mut earliest = i64::MAX;
        segment.visit(|bucket, slot| {
            let place = Place {
                bucket,
                slot,
                segment,
            };
            let entry = self.entry(place);
            let next = entry.deadline().into_iter().chain(entry.field_deadline());
            match next.min() {
                Some(deadline) if deadline <= now => due.push(place),
                Some(deadline) => earliest = earliest.min(deadline.0),
                None => {}
            }
        });
        segment.header().earliest = earliest;
        for place in due {
            expired(self, place);
        }
    }

    /// An entry picked with `random` (any 64 bits): uniform over segments, then over the slots found from a random
    /// bucket on. `None` only when the table is empty. O(1) on average.
    pub fn sample(&self, random: u64) -> Option<(Place, EntryRef<'_>)> {
        if self.len == 0 {
            return None;
        }
        let mut random = random;
        // Sparse tables (just after mass deletion) may need more tries than these, and take the next best.
        for _ in 0..SAMPLE_TRIES {
            // As keys fall, not evenly over the directory.
            let segment = self.directory[self.directory_index(random)];
            let bucket = segment.bucket((random as u32 as usize) % segment.buckets());
            // SAFETY: buckets live as long as their segment, which `self` owns.
            let look = unsafe { bucket.as_ref() };
            let slot = (random >> 20) as usize % SLOTS;
            // Rejecting empty slots keeps entries of crowded and of sparse buckets equally likely.
            if look.is_occupied(slot) {
                let place = Place {
                    bucket,
                    slot,
                    segment,
                };
                return Some((place, self.entry(place)));
            }
            random = next_random(random);
        }
        let start = self.directory_index(random);
        let mut found = None;
        for offset in 0..self.directory.len() {
            let segment = self.directory[(start + offset) % self.directory.len()];
            segment.visit(|bucket, slot| {
                found = Some(Place {
                    bucket,
                    slot,
                    segment,
                })
            });
            if found.is_some() {
                break;
            }
        }
        found.map(|place| (place, self.entry(place)))
    }

    /// Visits up to `wanted` entries that have a deadline, from a random segment on (`random` is any 64 bits). O(1) where
    /// many have one; segments without any are passed over by their headers.
    pub fn visit_deadlines<'a>(
        &'a self,
        random: u64,
        wanted: usize,
        mut visit: impl FnMut(Place, EntryRef<'a>),
    ) {
        let mut left = wanted.min(self.deadlines);
        if left == 0 {
            return;
        }
        let segments = self.directory.len();
        let start = self.directory_index(random);
        let mut index = start;
        while left > 0 && index < start + segments {
            let segment = self.directory[index % segments];
            let span = 1usize << (self.depth - segment.header().depth);
            if segment.header().earliest != i64::MAX {
                // From a random bucket on, so that all of a segment's entries have their turn.
                let buckets = segment.buckets();
                let first = random as u32 as usize % buckets;
                for offset in 0..buckets {
                    segment.visit_bucket((first + offset) % buckets, &mut |bucket, slot| {
                        let place = Place {
                            bucket,
                            slot,
                            segment,
                        };
                        let entry = self.entry(place);
                        if left > 0 && entry.deadline().is_some() {
                            left -= 1;
                            visit(place, entry);
                        }
                    });
                }
            }
            index = (index | (span - 1)) + 1;
        }
        // The first segment may begin before the start; what lies there was visited with it.
    }
}

/// A position in a traversal.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// The top bits of the local hash.
    prefix: u64,
    home: u64,
    /// The depth of the segment that `home` was reached in.
    depth: u32,
}

impl Cursor {
    fn decode(cursor: u64) -> Cursor {
        let home = (cursor >> CURSOR_DEPTH_BITS) & ((1 << CURSOR_HOME_BITS) - 1);
        let prefix =
            (cursor >> (CURSOR_DEPTH_BITS + CURSOR_HOME_BITS)) & ((1 << CURSOR_PREFIX_BITS) - 1);
        let depth = (cursor & ((1 << CURSOR_DEPTH_BITS) - 1)) as u32;
        Cursor {
            prefix,
            home,
            depth: depth.min(CURSOR_PREFIX_BITS),
        }
    }

    fn encode(self) -> u64 {
        (self.prefix << CURSOR_HOME_BITS | self.home) << CURSOR_DEPTH_BITS | u64::from(self.depth)
    }

    fn index(self, depth: u32) -> usize {
        (self.prefix >> (CURSOR_PREFIX_BITS - depth)) as usize
    }

    /// The prefix of the segment of `depth` that this prefix lies in.
    fn prefix_at(self, depth: u32) -> u64 {
        self.prefix >> (CURSOR_PREFIX_BITS - depth) << (CURSOR_PREFIX_BITS - depth)
    }

    /// The start of the segment after the one of `depth` that the cursor is in.
    fn after(self, depth: u32) -> Option<Cursor> {
        let prefix = self.prefix_at(depth) + (1 << (CURSOR_PREFIX_BITS - depth));
        (prefix < 1 << CURSOR_PREFIX_BITS).then_some(Cursor {
            prefix,
            home: 0,
            depth: 0,
        })
    }
}

/// SplitMix64 (Steele et al., 2014): the next of a sequence of random numbers.
fn next_random(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
