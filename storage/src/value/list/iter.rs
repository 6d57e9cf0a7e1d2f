//! Walking a list from either direction: O(log n) to begin, then O(1) per element.

use std::ops::Range;

use crate::value::{chunk::Chunk, element::Element, list::chunked::Slot, tree::Cursor};

/// Elements towards the back.
pub struct Iter<'a> {
    chunk: Option<&'a Chunk>,
    /// What is left of `chunk`.
    within: Range<usize>,
    /// Elements left in all.
    remaining: usize,
    following: Option<Cursor<'a, Slot>>,
}

/// Elements towards the front.
pub struct IterRev<'a> {
    chunk: Option<&'a Chunk>,
    within: Range<usize>,
    remaining: usize,
    preceding: Option<Cursor<'a, Slot>>,
}

impl<'a> Iter<'a> {
    pub(super) fn of_chunk(chunk: &'a Chunk, range: Range<usize>) -> Iter<'a> {
        Iter {
            chunk: Some(chunk),
            remaining: range.len(),
            within: range,
            following: None,
        }
    }

    /// Starts `offset` elements into the chunk at the cursor.
    pub(super) fn at(mut cursor: Cursor<'a, Slot>, offset: usize, remaining: usize) -> Iter<'a> {
        let chunk = cursor.item().map(Slot::chunk);
        cursor.advance();
        Iter {
            chunk,
            within: offset..chunk.map_or(0, Chunk::len),
            remaining,
            following: Some(cursor),
        }
    }
}

impl<'a> IterRev<'a> {
    pub(super) fn of_chunk(chunk: &'a Chunk, range: Range<usize>) -> IterRev<'a> {
        IterRev {
            chunk: Some(chunk),
            remaining: range.len(),
            within: range,
            preceding: None,
        }
    }

    /// Starts below `offset` elements of the chunk at the cursor.
    pub(super) fn at(mut cursor: Cursor<'a, Slot>, offset: usize, remaining: usize) -> IterRev<'a> {
        let chunk = cursor.item().map(Slot::chunk);
        cursor.retreat();
        IterRev {
            chunk,
            within: 0..offset,
            remaining,
            preceding: Some(cursor),
        }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        self.remaining = self.remaining.checked_sub(1)?;
        loop {
            if let Some(index) = self.within.next() {
                return self.chunk.map(|chunk| chunk.get(index));
            }
            let cursor = self.following.as_mut()?;
            let chunk = cursor.item()?.chunk();
            cursor.advance();
            self.within = 0..chunk.len();
            self.chunk = Some(chunk);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl<'a> Iterator for IterRev<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        self.remaining = self.remaining.checked_sub(1)?;
        loop {
            if let Some(index) = self.within.next_back() {
                return self.chunk.map(|chunk| chunk.get(index));
            }
            let cursor = self.preceding.as_mut()?;
            let chunk = cursor.item()?.chunk();
            cursor.retreat();
            self.within = 0..chunk.len();
            self.chunk = Some(chunk);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for Iter<'_> {}
impl ExactSizeIterator for IterRev<'_> {}
