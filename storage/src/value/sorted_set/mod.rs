//! Sorted sets: members ordered by score, and by their bytes where scores are equal.
//!
//! A small one is a single packed [`Block`] (to clients a `listpack`), a large one a counted B+tree whose leaves are
//! such blocks, with an index from members to leaves ([`Indexed`], to clients a `skiplist`). A member with a score costs
//! eleven bytes in its leaf, nine in the index and one above, besides its own and the allocator's rounding: 41 in all
//! for 16-byte members. Everything is O(log n) with one leaf or index segment touched, and cheap to clone: nodes are
//! shared, and copied one by one when written.
//!
//! Scores are never NaN. 0 and -0 are equal; which of them was set is kept by a `skiplist`, while a `listpack` only
//! knows 0, as clients of other servers see it.

mod block;
mod indexed;
mod leaves;
mod member_index;
#[cfg(test)]
mod tests;
mod tree;

use std::{cmp::Ordering, fmt, iter::FusedIterator, ops::Bound, ops::Range};

use self::{
    block::{Block, Entry, Part, Room, tag},
    indexed::Indexed,
    member_index::fingerprint,
};

/// Above this a block costs more than a tree, whatever the settings allow; clients are told `listpack` all the same.
const PACKED_ROOM: Room = Room {
    entries: 512,
    bytes: 16 * 1024,
};

/// See the module's description.
#[derive(Clone)]
pub struct SortedSet(Repr);

#[derive(Clone)]
enum Repr {
    Packed(Block),
    Indexed(Box<Indexed>),
}

/// When a sorted set changes its encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `zset-max-listpack-entries`
    pub max_listpack_entries: usize,
    /// `zset-max-listpack-value`, bytes
    pub max_listpack_value: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_listpack_entries: 128,
            max_listpack_value: 64,
        }
    }
}

/// How a sorted set is held, by the names that clients know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Within the limits.
    ListPack,
    /// Beyond them, once and for all.
    SkipList,
}

/// What setting a score did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// The member was not in the set.
    Added,
    /// The member had another score.
    Updated {
        /// The score before.
        old: f64,
    },
    /// The score is as it was, or the decision was not to set one.
    Unchanged,
}

/// Why entries do not make a sorted set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildError {
    /// A member occurs twice.
    DuplicateMember,
    /// A score is NaN.
    NotANumber,
}

impl SortedSet {
    /// An empty set.
    pub fn new() -> Self {
        SortedSet(Repr::Packed(Block::new()))
    }

    /// A set of these entries in any order; cheapest in ascending or descending order. O(n log n).
    ///
    /// # Errors
    /// If a member occurs twice, or a score is NaN.
    pub fn build<M: AsRef<[u8]>>(
        entries: &[(M, f64)],
        limits: &Limits,
    ) -> Result<Self, BuildError> {
        if entries.iter().any(|(_, score)| score.is_nan()) {
            return Err(BuildError::NotANumber);
        }
        let mut text_bytes = 0;
        let mut longest = 0;
        let mut sorted: Vec<_> = entries
            .iter()
            .map(|(member, score)| {
                let member = member.as_ref();
                text_bytes += member.len();
                longest = longest.max(member.len());
                Entry {
                    score: *score,
                    member,
                    tag: tag(fingerprint(member)),
                }
            })
            .collect();
        sorted.sort_unstable_by(|a, b| compare((a.score, a.member), (b.score, b.member)));

        let is_nominally_packed = entries.len() <= limits.max_listpack_entries
            && longest <= limits.max_listpack_value
            || entries.is_empty();
        if is_nominally_packed {
            sorted
                .iter_mut()
                .for_each(|entry| entry.score = without_sign_of_zero(entry.score));
        }
        if !is_nominally_packed || !PACKED_ROOM.fits(entries.len(), text_bytes) {
            let indexed = Indexed::build(&sorted, is_nominally_packed)?;
            return Ok(SortedSet(Repr::Indexed(Box::new(indexed))));
        }
        let parts: Vec<_> = sorted.iter().map(|entry| Part::One(*entry)).collect();
        let block = Block::assemble(&parts);
        // Of two equal members only the first is found.
        let is_found = |at: usize| {
            let entry = block.entry(at);
            block.find_member(entry.tag, entry.member) == Some(at)
        };
        match (0..block.len()).all(is_found) {
            true => Ok(SortedSet(Repr::Packed(block))),
            false => Err(BuildError::DuplicateMember),
        }
    }

    /// How the set is held.
    pub fn encoding(&self) -> Encoding {
        match &self.0 {
            Repr::Packed(_) => Encoding::ListPack,
            Repr::Indexed(indexed) if indexed.is_nominally_packed => Encoding::ListPack,
            Repr::Indexed(_) => Encoding::SkipList,
        }
    }

    /// Number of members. O(1).
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Packed(block) => block.len(),
            Repr::Indexed(indexed) => indexed.len(),
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether neither was changed since one was cloned from the other. O(1), or O(limits) if small; may deny it where
    /// nothing differs.
    pub fn is_same_version(&self, other: &SortedSet) -> bool {
        match (&self.0, &other.0) {
            (Repr::Indexed(one), Repr::Indexed(other)) => one.is_same_version(other),
            (Repr::Packed(_), Repr::Packed(_)) => self.iter().eq(other.iter()),
            _ => false,
        }
    }

    /// Bytes on the heap, those shared with clones included. O(1).
    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Repr::Packed(block) => block.heap_bytes(),
            Repr::Indexed(indexed) => size_of::<Indexed>() + indexed.heap_bytes(),
        }
    }

    /// The score of a member. O(1) for a large set: no more than two leaves' cache lines are read.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        let fingerprint = fingerprint(member);
        match &self.0 {
            Repr::Packed(block) => {
                let at = block.find_member(tag(fingerprint), member)?;
                Some(block.score(at))
            }
            Repr::Indexed(indexed) => Some(indexed.find(fingerprint, member)?.score),
        }
    }

    /// How many entries are before this member, and its score. O(log n).
    pub fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        match &self.0 {
            Repr::Packed(block) => {
                let at = block.find_member(tag(fingerprint(member)), member)?;
                Some((at, block.score(at)))
            }
            Repr::Indexed(indexed) => indexed.rank(member),
        }
    }

    /// The entry with this rank. O(log n).
    pub fn get(&self, rank: usize) -> Option<(&[u8], f64)> {
        self.range(rank..rank.saturating_add(1)).next()
    }

    /// Sets the score of a member. O(log n).
    pub fn insert(&mut self, member: &[u8], score: f64, limits: &Limits) -> Change {
        self.alter(member, limits, |_| Some(score))
    }

    /// Sets the score of a member to what `decide` makes of its present one; `None` leaves all as it is. O(log n).
    pub fn alter(
        &mut self,
        member: &[u8],
        limits: &Limits,
        decide: impl FnOnce(Option<f64>) -> Option<f64>,
    ) -> Change {
        let fingerprint = fingerprint(member);
        let old = match &self.0 {
            Repr::Packed(block) => {
                let found = block.find_member(tag(fingerprint), member);
                found.map(|at| (block.score(at), Found::Packed(at)))
            }
            Repr::Indexed(indexed) => {
                let found = indexed.find(fingerprint, member);
                found.map(|place| (place.score, Found::Indexed(place)))
            }
        };
        let old_score = old.as_ref().map(|(score, _)| *score);
        let Some(score) = decide(old_score).filter(|score| Some(*score) != old_score) else {
            return Change::Unchanged;
        };
        debug_assert!(!score.is_nan());
        match (&mut self.0, old) {
            (Repr::Packed(block), Some((old, Found::Packed(at)))) => {
                block.rescore(at, without_sign_of_zero(score));
                Change::Updated { old }
            }
            (Repr::Indexed(indexed), Some((old, Found::Indexed(place)))) => {
                let score = match indexed.is_nominally_packed {
                    true => without_sign_of_zero(score),
                    false => score,
                };
                indexed.rescore(fingerprint, member, &place, score);
                Change::Updated { old }
            }
            _ => {
                self.add(fingerprint, member, score, limits);
                Change::Added
            }
        }
    }

    /// Makes a set that has members a `skiplist`, whatever its size. O(n) for a small one.
    pub fn make_skip_list(&mut self) {
        match &mut self.0 {
            Repr::Packed(block) if block.len() > 0 => {
                let entries: Vec<_> = (0..block.len()).map(|at| block.entry(at)).collect();
                let indexed = Indexed::build(&entries, false);
                let indexed = indexed.expect("a set has no member twice");
                self.0 = Repr::Indexed(Box::new(indexed));
            }
            Repr::Packed(_) => {}
            Repr::Indexed(indexed) => indexed.is_nominally_packed = false,
        }
    }

    /// Removes a member and returns its score. O(log n).
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let fingerprint = fingerprint(member);
        match &mut self.0 {
            Repr::Packed(block) => {
                let at = block.find_member(tag(fingerprint), member)?;
                let score = block.score(at);
                block.remove(at..at + 1);
                Some(score)
            }
            Repr::Indexed(indexed) => {
                let place = indexed.find(fingerprint, member)?;
                match indexed.len() {
                    1 => *self = Self::new(),
                    _ => indexed.remove(fingerprint, member, &place),
                }
                Some(place.score)
            }
        }
    }

    /// Removes the entries with these ranks, as far as there are such, and returns how many. O(log n) per leaf and O(1)
    /// per entry; all of them at once only cost what freeing them does, so take the set away to free it elsewhere.
    pub fn remove_range(&mut self, ranks: Range<usize>) -> usize {
        let ranks = self.clamp(ranks);
        match &mut self.0 {
            _ if ranks.is_empty() => {}
            Repr::Packed(block) => block.remove(ranks.clone()),
            Repr::Indexed(indexed) if ranks.len() == indexed.len() => *self = Self::new(),
            Repr::Indexed(indexed) => indexed.remove_range(ranks.clone()),
        }
        ranks.len()
    }

    /// Removes the first entry and returns it.
    pub fn pop_min(&mut self) -> Option<(Box<[u8]>, f64)> {
        self.pop(0)
    }

    /// Removes the last entry and returns it.
    pub fn pop_max(&mut self) -> Option<(Box<[u8]>, f64)> {
        self.pop(self.len().checked_sub(1)?)
    }

    /// All entries in order.
    pub fn iter(&self) -> Entries<'_> {
        self.range(0..self.len())
    }

    /// The entries with these ranks, as far as there are such; from either end. O(log n) to begin and per leaf.
    pub fn range(&self, ranks: Range<usize>) -> Entries<'_> {
        Entries {
            set: self,
            ranks: self.clamp(ranks),
            front: None,
            back: None,
        }
    }

    /// The ranks of the entries with scores between these bounds. O(log n).
    pub fn score_range(&self, min: Bound<f64>, max: Bound<f64>) -> Range<usize> {
        let start = match min {
            Bound::Included(min) => self.partition_point(|_, score| score < min),
            Bound::Excluded(min) => self.partition_point(|_, score| score <= min),
            Bound::Unbounded => 0,
        };
        let end = match max {
            Bound::Included(max) => self.partition_point(|_, score| score <= max),
            Bound::Excluded(max) => self.partition_point(|_, score| score < max),
            Bound::Unbounded => self.len(),
        };
        start..end.max(start)
    }

    /// The ranks of the entries with members between these bounds, given that all scores are equal; if they are not,
    /// some range. O(log n).
    pub fn member_range(&self, min: Bound<&[u8]>, max: Bound<&[u8]>) -> Range<usize> {
        let start = match min {
            Bound::Included(min) => self.partition_point(|member, _| member < min),
            Bound::Excluded(min) => self.partition_point(|member, _| member <= min),
            Bound::Unbounded => 0,
        };
        let end = match max {
            Bound::Included(max) => self.partition_point(|member, _| member <= max),
            Bound::Excluded(max) => self.partition_point(|member, _| member < max),
            Bound::Unbounded => self.len(),
        };
        start..end.max(start)
    }

    /// How many entries come first for which `before(member, score)` holds; it must hold for a prefix of the order. It is
    /// also asked about beginnings of members, as they would sort. O(log n).
    pub fn partition_point(&self, before: impl Fn(&[u8], f64) -> bool) -> usize {
        let before = |score: f64, member: &[u8]| before(member, score);
        match &self.0 {
            Repr::Packed(block) => block.partition_point(&before),
            Repr::Indexed(indexed) => indexed.partition_point(&before),
        }
    }

    /// Visits about `count` entries, at least one if there are any left, and returns the cursor to go on with; 0 begins,
    /// and 0 is returned at the end.
    ///
    /// A large set is visited in the order of the members' hashes, which no change of scores or of the tree disturbs:
    /// a member that is in the set from the first call to the last is visited exactly once while the set stays large.
    /// A small set is visited whole, so one that grows meanwhile may be visited twice. O(1) per entry.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], f64)) -> u64 {
        match &self.0 {
            Repr::Packed(_) => {
                self.iter().for_each(|(member, score)| visit(member, score));
                0
            }
            Repr::Indexed(indexed) => indexed.scan(cursor, count.max(1), visit),
        }
    }

    fn add(&mut self, fingerprint: u32, member: &[u8], score: f64, limits: &Limits) {
        let is_within =
            self.len() < limits.max_listpack_entries && member.len() <= limits.max_listpack_value;
        let score = match is_within && self.encoding() == Encoding::ListPack {
            true => without_sign_of_zero(score),
            false => score,
        };
        if let Repr::Packed(block) = &mut self.0 {
            let text_bytes = block.text_bytes() + member.len();
            if is_within && PACKED_ROOM.fits(block.len() + 1, text_bytes) {
                let tag = tag(fingerprint);
                let at = match block.find(score, member) {
                    Ok(at) | Err(at) => at,
                };
                return block.insert(at, Entry { score, member, tag });
            }
            let entry = Entry {
                score,
                member,
                tag: tag(fingerprint),
            };
            let indexed = index_with(block, entry, is_within);
            self.0 = Repr::Indexed(Box::new(indexed));
        } else if let Repr::Indexed(indexed) = &mut self.0 {
            indexed.is_nominally_packed &= is_within;
            indexed.add(fingerprint, member, score);
        }
    }

    fn pop(&mut self, rank: usize) -> Option<(Box<[u8]>, f64)> {
        let (member, score) = self.get(rank)?;
        let popped = (Box::from(member), score);
        self.remove_range(rank..rank + 1);
        Some(popped)
    }

    fn clamp(&self, ranks: Range<usize>) -> Range<usize> {
        let end = ranks.end.min(self.len());
        ranks.start.min(end)..end
    }

    /// The block with the entry of this rank, which there must be, and the place in it.
    #[inline]
    fn block_at(&self, rank: usize) -> (&Block, usize) {
        match &self.0 {
            Repr::Packed(block) => (block, rank),
            Repr::Indexed(indexed) => indexed.block_at(rank),
        }
    }

    #[cfg(test)]
    fn check(&self) {
        if let Repr::Indexed(indexed) = &self.0 {
            indexed.check();
        }
        let entries: Vec<_> = self.iter().map(|(member, score)| (score, member)).collect();
        assert!(
            entries
                .windows(2)
                .all(|pair| compare(pair[0], pair[1]) == Ordering::Less)
        );
        assert_eq!(entries.len(), self.len());
    }
}

impl Default for SortedSet {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SortedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self
            .iter()
            .map(|(member, score)| (member.escape_ascii().to_string(), score));
        f.debug_map().entries(entries).finish()
    }
}

/// Where [`SortedSet::alter`] found its member.
enum Found {
    Packed(usize),
    Indexed(indexed::Place),
}

/// -0 becomes 0.
fn without_sign_of_zero(score: f64) -> f64 {
    score + 0.0
}

/// The order of entries.
fn compare(a: (f64, &[u8]), b: (f64, &[u8])) -> Ordering {
    let scores = a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal);
    scores.then_with(|| a.1.cmp(b.1))
}

/// An indexed set of a block's entries and one more, whose member is not among them.
fn index_with(block: &Block, entry: Entry<'_>, is_nominally_packed: bool) -> Indexed {
    let at = match block.find(entry.score, entry.member) {
        Ok(at) | Err(at) => at,
    };
    let mut entries: Vec<_> = (0..block.len()).map(|at| block.entry(at)).collect();
    entries.insert(at, entry);
    Indexed::build(&entries, is_nominally_packed).expect("a set has no member twice")
}

/// Entries in order, from either end; made by [`SortedSet::range`].
#[derive(Clone)]
pub struct Entries<'a> {
    set: &'a SortedSet,
    /// Those still to come.
    ranks: Range<usize>,
    /// The block of the next entry, and its place there.
    front: Option<(&'a Block, usize)>,
    /// The block of the last entry, and how many of it are still to come.
    back: Option<(&'a Block, usize)>,
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a [u8], f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.ranks.is_empty() {
            return None;
        }
        let (block, at) = match self.front {
            Some((block, at)) if at < block.len() => (block, at),
            _ => self.set.block_at(self.ranks.start),
        };
        self.front = Some((block, at + 1));
        self.ranks.start += 1;
        Some((block.member(at), block.score(at)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.ranks.len(), Some(self.ranks.len()))
    }
}

impl DoubleEndedIterator for Entries<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.ranks.is_empty() {
            return None;
        }
        let (block, left) = match self.back {
            Some((block, left)) if left > 0 => (block, left),
            _ => {
                let (block, at) = self.set.block_at(self.ranks.end - 1);
                (block, at + 1)
            }
        };
        self.back = Some((block, left - 1));
        self.ranks.end -= 1;
        Some((block.member(left - 1), block.score(left - 1)))
    }
}

impl ExactSizeIterator for Entries<'_> {}
impl FusedIterator for Entries<'_> {}

impl<'a> IntoIterator for &'a SortedSet {
    type Item = (&'a [u8], f64);
    type IntoIter = Entries<'a>;

    fn into_iter(self) -> Entries<'a> {
        self.iter()
    }
}
