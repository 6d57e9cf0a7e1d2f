//! A run of entries in score order, packed into one reference-counted allocation.
//!
//! It is a leaf of the tree, and the whole of a small sorted set. Regions lie back to back without slack, which is at
//! the end only, so that an entry costs eleven bytes beside its member:
//!
//! ```text
//! count | len x tag (1) | len x start of member (2) | len x score (8) | members' bytes | free
//! ```
//!
//! The tag is a byte of the member's hash: finding a member means comparing those whose tag fits, one on average.
//! Finding a score counts the smaller ones in one vectorised pass; the lines of a cold block are then fetched at once
//! instead of one after the other, as binary search would. An edit moves what follows it (1 KiB or so, tens of
//! nanoseconds); a block that is shared with a clone, or full, is written anew instead.

use std::{cmp::Ordering, ops::Range};

use triomphe::{Arc, HeaderSlice};

use crate::value::thin_buffer::allocation_size;

/// Bytes that an entry takes beside its member's.
pub(super) const ENTRY_BYTES: usize = TAG_BYTES + START_BYTES + SCORE_BYTES;
const TAG_BYTES: usize = 1;
const START_BYTES: usize = 2;
const SCORE_BYTES: usize = 8;

/// Reference count and header.
const OVERHEAD_BYTES: usize = 16;

/// Above this many bytes filling a size class would waste more than growing again costs.
const EXACT_ABOVE_BYTES: usize = 32 * 1024;

/// One member with its score, as it goes into a block.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) score: f64,
    pub(super) member: &'a [u8],
    /// The [`tag`] of its fingerprint.
    pub(super) tag: u8,
}

/// What a block may hold. A single entry of any size always fits.
pub(super) struct Room {
    pub(super) entries: usize,
    /// Of entries and members; less than 64 KiB, because starts are 16-bit.
    pub(super) bytes: usize,
}

impl Room {
    #[inline]
    pub(super) fn fits(&self, entries: usize, text_bytes: usize) -> bool {
        entries <= self.entries && entries * ENTRY_BYTES + text_bytes <= self.bytes || entries <= 1
    }
}

/// A piece of a block to be built.
#[derive(Clone)]
pub(super) enum Part<'a> {
    Run(&'a Block, Range<usize>),
    One(Entry<'a>),
}

/// See the module's description. A clone shares the allocation until either is written.
#[derive(Clone)]
pub(super) struct Block(Arc<HeaderSlice<Count, [u8]>>);

/// Entries in the low 16 bits, the members' bytes above.
#[derive(Clone, Copy)]
struct Count(u64);

impl Count {
    fn new(len: usize, text_bytes: usize) -> Self {
        debug_assert!(len <= usize::from(u16::MAX));
        Count((text_bytes as u64) << 16 | len as u64)
    }

    #[inline]
    fn len(self) -> usize {
        usize::from(self.0 as u16)
    }

    #[inline]
    fn text_bytes(self) -> usize {
        (self.0 >> 16) as usize
    }
}

/// The tag of a member whose hash has these upper 32 bits.
#[inline]
pub(super) fn tag(fingerprint: u32) -> u8 {
    fingerprint as u8
}

impl Block {
    pub(super) fn new() -> Self {
        Self::assemble(&[])
    }

    /// A block of these parts, which must be in order.
    pub(super) fn assemble(parts: &[Part<'_>]) -> Self {
        let (mut len, mut text_bytes) = (0, 0);
        for part in parts {
            len += part.len();
            text_bytes += part.text_bytes();
        }
        let used = len * ENTRY_BYTES + text_bytes;
        debug_assert!(len <= 1 || used <= usize::from(u16::MAX));
        let capacity = class_for(OVERHEAD_BYTES + used) - OVERHEAD_BYTES;

        let mut bytes = Vec::with_capacity(capacity);
        for part in parts {
            match part {
                Part::Run(block, range) => bytes.extend_from_slice(&block.tags()[range.clone()]),
                Part::One(entry) => bytes.push(entry.tag),
            }
        }
        let mut start = 0;
        for part in parts {
            match part {
                Part::Run(block, range) => {
                    let origin = block.text_before(range.start);
                    for old in &block.starts()[range.clone()] {
                        let start = start + usize::from(u16::from_le_bytes(*old)) - origin;
                        bytes.extend_from_slice(&(start as u16).to_le_bytes());
                    }
                }
                Part::One(_) => bytes.extend_from_slice(&(start as u16).to_le_bytes()),
            }
            start += part.text_bytes();
        }
        for part in parts {
            match part {
                Part::Run(block, range) => {
                    bytes.extend_from_slice(block.scores()[range.clone()].as_flattened());
                }
                Part::One(entry) => bytes.extend_from_slice(&entry.score.to_le_bytes()),
            }
        }
        for part in parts {
            match part {
                Part::Run(block, range) => bytes.extend_from_slice(block.text(range.clone())),
                Part::One(entry) => bytes.extend_from_slice(entry.member),
            }
        }
        bytes.resize(capacity, 0);
        Block(Arc::from_header_and_slice(
            Count::new(len, text_bytes),
            &bytes,
        ))
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.0.header.len()
    }

    /// Bytes of all members.
    #[inline]
    pub(super) fn text_bytes(&self) -> usize {
        self.0.header.text_bytes()
    }

    /// Bytes of the members before the entry at `at`, which may be the end.
    #[inline]
    pub(super) fn text_before(&self, at: usize) -> usize {
        match self.starts().get(at) {
            Some(start) => usize::from(u16::from_le_bytes(*start)),
            None => self.text_bytes(),
        }
    }

    #[inline]
    pub(super) fn heap_bytes(&self) -> usize {
        OVERHEAD_BYTES + self.0.slice.len()
    }

    #[inline]
    pub(super) fn score(&self, at: usize) -> f64 {
        f64::from_le_bytes(self.scores()[at])
    }

    #[inline]
    pub(super) fn member(&self, at: usize) -> &[u8] {
        self.text(at..at + 1)
    }

    #[inline]
    pub(super) fn entry(&self, at: usize) -> Entry<'_> {
        Entry {
            score: self.score(at),
            member: self.member(at),
            tag: self.tags()[at],
        }
    }

    /// Where `member` is, which has this tag.
    #[inline]
    pub(super) fn find_member(&self, tag: u8, member: &[u8]) -> Option<usize> {
        self.with_tag(tag).find(|at| self.member(*at) == member)
    }

    /// The entries with this tag.
    #[inline]
    pub(super) fn with_tag(&self, tag: u8) -> impl Iterator<Item = usize> {
        memchr::memchr_iter(tag, self.tags())
    }

    /// Where the entry is (`Ok`), or belongs (`Err`).
    #[inline]
    pub(super) fn find(&self, score: f64, member: &[u8]) -> Result<usize, usize> {
        let scores = self.scores();
        let mut low = count_below(scores, score);
        let is_tie = |at: usize| {
            scores
                .get(at)
                .is_some_and(|bytes| f64::from_le_bytes(*bytes) == score)
        };
        if !is_tie(low) {
            return Err(low);
        }
        let mut high = low + 1;
        if is_tie(high) {
            high += scores[high..].partition_point(|bytes| f64::from_le_bytes(*bytes) == score);
        }
        while low < high {
            let middle = low.midpoint(high);
            match self.member(middle).cmp(member) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// The first entry for which `before` does not hold; it must hold for a prefix.
    pub(super) fn partition_point(&self, before: &impl Fn(f64, &[u8]) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if before(self.score(middle), self.member(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    pub(super) fn insert(&mut self, at: usize, entry: Entry<'_>) {
        let used = self.used() + ENTRY_BYTES + entry.member.len();
        debug_assert!(used <= usize::from(u16::MAX) || self.len() == 0);
        if used <= self.0.slice.len()
            && let Some(block) = Arc::get_mut(&mut self.0)
        {
            insert_in_place(&mut block.header, &mut block.slice, at, entry);
        } else {
            *self = Self::assemble(&[
                Part::Run(self, 0..at),
                Part::One(entry),
                Part::Run(self, at..self.len()),
            ]);
        }
    }

    pub(super) fn remove(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let used = self.used() - range.len() * ENTRY_BYTES - self.text(range.clone()).len();
        if !is_wasteful(self.heap_bytes(), OVERHEAD_BYTES + used)
            && let Some(block) = Arc::get_mut(&mut self.0)
        {
            remove_in_place(&mut block.header, &mut block.slice, range);
        } else {
            *self = Self::assemble(&[
                Part::Run(self, 0..range.start),
                Part::Run(self, range.end..self.len()),
            ]);
        }
    }

    /// Gives the entry at `from` another score, and moves it to where it then belongs.
    pub(super) fn rescore(&mut self, from: usize, score: f64) {
        let belongs = match self.find(score, self.member(from)) {
            Ok(at) | Err(at) => at,
        };
        let to = if belongs > from { belongs - 1 } else { belongs };
        let len = self.len();
        let (text_from, text_to) = (self.text_range(from), self.text_range(to));
        if !self.0.is_unique() {
            self.0 = Arc::from_header_and_slice(self.0.header, &self.0.slice);
        }
        let block = Arc::get_mut(&mut self.0).expect("made unique above");
        let (tags, rest) = block.slice.split_at_mut(len * TAG_BYTES);
        let (starts, rest) = rest.split_at_mut(len * START_BYTES);
        let (scores, text) = rest.split_at_mut(len * SCORE_BYTES);
        let starts = starts.as_chunks_mut::<START_BYTES>().0;
        let scores = scores.as_chunks_mut::<SCORE_BYTES>().0;
        let moved_bytes = text_from.len();
        if from < to {
            tags[from..=to].rotate_left(1);
            scores[from..=to].rotate_left(1);
            text[text_from.start..text_to.end].rotate_left(moved_bytes);
            starts.copy_within(from + 1..=to, from);
            shift_back(&mut starts[from..to], moved_bytes);
            starts[to] = ((text_to.end - moved_bytes) as u16).to_le_bytes();
        } else if to < from {
            tags[to..=from].rotate_right(1);
            scores[to..=from].rotate_right(1);
            text[text_to.start..text_from.end].rotate_right(moved_bytes);
            starts.copy_within(to..from, to + 1);
            shift_on(&mut starts[to + 1..=from], moved_bytes);
            starts[to] = (text_to.start as u16).to_le_bytes();
        }
        scores[to] = score.to_le_bytes();
    }

    /// Bytes in use, of entries and members.
    #[inline]
    fn used(&self) -> usize {
        self.len() * ENTRY_BYTES + self.text_bytes()
    }

    #[inline]
    fn tags(&self) -> &[u8] {
        &self.0.slice[..self.len() * TAG_BYTES]
    }

    #[inline]
    fn starts(&self) -> &[[u8; START_BYTES]] {
        let len = self.len();
        let from = len * TAG_BYTES;
        self.0.slice[from..from + len * START_BYTES].as_chunks().0
    }

    #[inline]
    fn scores(&self) -> &[[u8; SCORE_BYTES]] {
        let len = self.len();
        let from = len * (TAG_BYTES + START_BYTES);
        self.0.slice[from..from + len * SCORE_BYTES].as_chunks().0
    }

    #[inline]
    fn text_range(&self, at: usize) -> Range<usize> {
        self.text_before(at)..self.text_before(at + 1)
    }

    #[inline]
    fn text(&self, range: Range<usize>) -> &[u8] {
        let base = self.len() * ENTRY_BYTES;
        &self.0.slice[base + self.text_before(range.start)..base + self.text_before(range.end)]
    }
}

impl Part<'_> {
    fn len(&self) -> usize {
        match self {
            Part::Run(_, range) => range.len(),
            Part::One(_) => 1,
        }
    }

    fn text_bytes(&self) -> usize {
        match self {
            Part::Run(block, range) => block.text(range.clone()).len(),
            Part::One(entry) => entry.member.len(),
        }
    }
}

/// How many of the ascending scores are less than `score`.
#[inline]
fn count_below(scores: &[[u8; SCORE_BYTES]], score: f64) -> usize {
    let below = |bytes: &[u8; SCORE_BYTES]| u64::from(f64::from_le_bytes(*bytes) < score);
    scores.iter().map(below).sum::<u64>() as usize
}

/// The allocation to ask for when `bytes` are needed: it fills the allocator's size class.
#[inline]
pub(super) fn class_for(bytes: usize) -> usize {
    match bytes > EXACT_ABOVE_BYTES {
        true => bytes.next_multiple_of(8),
        false => allocation_size(bytes),
    }
}

/// Whether an allocation is so much larger than the one needed that it should shrink.
#[inline]
pub(super) fn is_wasteful(allocated_bytes: usize, needed_bytes: usize) -> bool {
    allocated_bytes * 2 >= class_for(needed_bytes) * 3
}

fn insert_in_place(count: &mut Count, bytes: &mut [u8], at: usize, entry: Entry<'_>) {
    let (len, text_bytes, added) = (count.len(), count.text_bytes(), entry.member.len());
    let (old, new) = (Regions::of(len), Regions::of(len + 1));
    let start = match at == len {
        true => text_bytes,
        false => read_start(bytes, old.starts + at * START_BYTES),
    };
    // From the back, so that nothing is overwritten before it has moved.
    bytes.copy_within(
        old.text + start..old.text + text_bytes,
        new.text + start + added,
    );
    bytes.copy_within(old.text..old.text + start, new.text);
    bytes[new.text + start..][..added].copy_from_slice(entry.member);

    let (before, after) = (at * SCORE_BYTES, (at + 1) * SCORE_BYTES);
    bytes.copy_within(old.scores + before..old.text, new.scores + after);
    bytes.copy_within(old.scores..old.scores + before, new.scores);
    bytes[new.scores + before..new.scores + after].copy_from_slice(&entry.score.to_le_bytes());

    let (before, after) = (at * START_BYTES, (at + 1) * START_BYTES);
    bytes.copy_within(old.starts + before..old.scores, new.starts + after);
    bytes.copy_within(old.starts..old.starts + before, new.starts);
    bytes[new.starts + before..new.starts + after].copy_from_slice(&(start as u16).to_le_bytes());
    shift_on(
        bytes[new.starts + after..new.scores].as_chunks_mut().0,
        added,
    );

    bytes.copy_within(at..len, at + 1);
    bytes[at] = entry.tag;
    *count = Count::new(len + 1, text_bytes + added);
}

fn remove_in_place(count: &mut Count, bytes: &mut [u8], range: Range<usize>) {
    let (len, text_bytes) = (count.len(), count.text_bytes());
    let (old, new) = (Regions::of(len), Regions::of(len - range.len()));
    let text_at = |at: usize| match at == len {
        true => text_bytes,
        false => read_start(bytes, old.starts + at * START_BYTES),
    };
    let (from, to) = (text_at(range.start), text_at(range.end));
    // From the front, so that nothing is overwritten before it has moved.
    bytes.copy_within(range.end..len, range.start);

    let (before, after) = (range.start * START_BYTES, range.end * START_BYTES);
    bytes.copy_within(old.starts..old.starts + before, new.starts);
    bytes.copy_within(old.starts + after..old.scores, new.starts + before);
    shift_back(
        bytes[new.starts + before..new.scores].as_chunks_mut().0,
        to - from,
    );

    let (before, after) = (range.start * SCORE_BYTES, range.end * SCORE_BYTES);
    bytes.copy_within(old.scores..old.scores + before, new.scores);
    bytes.copy_within(old.scores + after..old.text, new.scores + before);

    bytes.copy_within(old.text..old.text + from, new.text);
    bytes.copy_within(old.text + to..old.text + text_bytes, new.text + from);
    *count = Count::new(len - range.len(), text_bytes - (to - from));
}

/// Where the regions of a block of so many entries begin; the tags' is at 0.
struct Regions {
    starts: usize,
    scores: usize,
    text: usize,
}

impl Regions {
    fn of(len: usize) -> Self {
        let starts = len * TAG_BYTES;
        let scores = starts + len * START_BYTES;
        Regions {
            starts,
            scores,
            text: scores + len * SCORE_BYTES,
        }
    }
}

fn read_start(bytes: &[u8], at: usize) -> usize {
    let start = bytes[at..]
        .first_chunk()
        .expect("two bytes lie in the starts' region");
    usize::from(u16::from_le_bytes(*start))
}

fn shift_on(starts: &mut [[u8; START_BYTES]], by: usize) {
    for start in starts {
        *start = u16::from_le_bytes(*start)
            .wrapping_add(by as u16)
            .to_le_bytes();
    }
}

fn shift_back(starts: &mut [[u8; START_BYTES]], by: usize) {
    for start in starts {
        *start = u16::from_le_bytes(*start)
            .wrapping_sub(by as u16)
            .to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(score: f64, member: &str) -> Entry<'_> {
        Entry {
            score,
            member: member.as_bytes(),
            tag: member.len() as u8,
        }
    }

    fn block(entries: &[(f64, &str)]) -> Block {
        let parts: Vec<_> = entries
            .iter()
            .map(|(score, member)| Part::One(entry(*score, member)))
            .collect();
        Block::assemble(&parts)
    }

    #[track_caller]
    fn check(block: &Block, expected: &[(f64, &str)]) {
        let found: Vec<_> = (0..block.len())
            .map(|at| {
                let entry = block.entry(at);
                assert_eq!(usize::from(entry.tag), entry.member.len());
                (entry.score, std::str::from_utf8(entry.member).unwrap())
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn entries_go_in_and_out_anywhere() {
        let mut block = Block::new();
        block.insert(0, entry(2.0, "bb"));
        block.insert(0, entry(1.0, ""));
        block.insert(2, entry(4.0, "dddd"));
        block.insert(2, entry(3.0, "ccc"));
        check(
            &block,
            &[(1.0, ""), (2.0, "bb"), (3.0, "ccc"), (4.0, "dddd")],
        );
        block.remove(1..3);
        check(&block, &[(1.0, ""), (4.0, "dddd")]);
        block.remove(1..2);
        block.remove(0..1);
        check(&block, &[]);
    }

    #[test]
    fn a_new_score_moves_an_entry_both_ways() {
        let mut b = block(&[(1.0, "a"), (2.0, "bb"), (3.0, "ccc")]);
        b.rescore(0, 2.5);
        check(&b, &[(2.0, "bb"), (2.5, "a"), (3.0, "ccc")]);
        b.rescore(2, 0.0);
        check(&b, &[(0.0, "ccc"), (2.0, "bb"), (2.5, "a")]);
        b.rescore(1, 2.2);
        check(&b, &[(0.0, "ccc"), (2.2, "bb"), (2.5, "a")]);
        b.rescore(0, 9.0);
        check(&b, &[(2.2, "bb"), (2.5, "a"), (9.0, "ccc")]);
    }

    #[test]
    fn ties_are_in_the_order_of_the_members() {
        let b = block(&[(-0.0, "a"), (0.0, "c"), (0.0, "e"), (1.0, "b")]);
        assert_eq!(b.find(0.0, b"a"), Ok(0));
        assert_eq!(b.find(-0.0, b"e"), Ok(2));
        assert_eq!(b.find(0.0, b"d"), Err(2));
        assert_eq!(b.find(0.0, b"f"), Err(3));
        assert_eq!(b.find(1.0, b"b"), Ok(3));
        assert_eq!(b.find(f64::INFINITY, b""), Err(4));
    }

    #[test]
    fn a_clone_keeps_what_it_saw() {
        let before = block(&[(1.0, "a"), (2.0, "bb")]);
        let mut after = before.clone();
        after.insert(1, entry(1.5, "x"));
        let mut rescored = before.clone();
        rescored.rescore(0, 7.0);
        let mut removed = before.clone();
        removed.remove(0..1);
        check(&before, &[(1.0, "a"), (2.0, "bb")]);
        check(&after, &[(1.0, "a"), (1.5, "x"), (2.0, "bb")]);
        check(&rescored, &[(2.0, "bb"), (7.0, "a")]);
        check(&removed, &[(2.0, "bb")]);
    }

    #[test]
    fn a_single_entry_may_be_longer_than_any_start() {
        let long = "x".repeat(300_000);
        let mut single = block(&[]);
        single.insert(0, entry(1.0, &long));
        assert_eq!(single.member(0).len(), 300_000);
        single.rescore(0, 2.0);
        assert_eq!((single.score(0), single.member(0).len()), (2.0, 300_000));
    }
}
