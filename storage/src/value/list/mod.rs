//! Lists: a packed chunk while small, a counted tree of packed chunks when large.
//!
//! A small list is one [`Chunk`], what clients call `listpack`; a large one keeps its chunks in a [`Tree`] that counts
//! elements, what they call `quicklist`. Where chunks begin and end follows the rules clients can observe (through
//! OBJECT ENCODING and the limits of `list-max-listpack-size`), so that a list turns from one form into the other exactly
//! when they expect it.
//!
//! An element costs its bytes plus 2, and a share of its chunk's 20 to 60 bytes. Work at the ends is O(1) but for the
//! tree's path, access by index is O(log n), and changes in the middle move at most a chunk. A clone is O(1) and never
//! changes: chunks and nodes are copied when they are shared and written.

mod chunked;
mod iter;
mod limits;

use std::ops::Range;

use crate::value::{
    Value,
    chunk::{Chunk, MAX_LEN},
    element::Element,
    listpack_size::LISTPACK_EMPTY,
};
use chunked::Chunked;

pub use iter::{Iter, IterRev};
pub use limits::ListLimits;

/// Listpack bytes from which a list becomes a quicklist whatever its limits: twice the highest of those.
const PACKED_MAX_BYTES: usize = 2 * 65536;

/// A list of byte strings.
#[derive(Clone)]
pub struct List(Form);

#[derive(Clone)]
enum Form {
    Packed(Chunk),
    Chunked(Box<Chunked>),
}

/// Which end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Front,
    Back,
}

/// Where an element goes in relation to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

/// How a list is held, as clients see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListEncoding {
    Listpack,
    Quicklist,
}

/// Elements cut off a list: possibly many chunks, to be dropped where that disturbs nobody.
#[must_use = "dropping it may take long"]
pub struct Removed {
    /// Number of elements.
    pub len: usize,
    parts: [Option<Chunked>; 2],
}

impl Removed {
    /// The elements as values of their own, for whoever frees such.
    pub fn into_values(self) -> impl Iterator<Item = Value> {
        let parts = self.parts.into_iter().flatten();
        parts.map(|part| Value::List(List(Form::Chunked(Box::new(part)))))
    }
}

impl List {
    pub fn new() -> List {
        List(Form::Packed(Chunk::with_capacity(0)))
    }

    /// A list of these elements, in chunks as pushes to the back would leave them.
    pub fn from_values<'a>(values: impl IntoIterator<Item = &'a [u8]>, limits: ListLimits) -> List {
        let mut list = List::new();
        for value in values {
            list.push(End::Back, value, limits);
        }
        list
    }

    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Packed(chunk) => chunk.len(),
            Form::Chunked(chunked) => chunked.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn encoding(&self) -> ListEncoding {
        match &self.0 {
            Form::Packed(_) => ListEncoding::Listpack,
            Form::Chunked(_) => ListEncoding::Quicklist,
        }
    }

    /// Number of chunks, which clients know as quicklist nodes.
    pub fn chunk_count(&self) -> usize {
        match &self.0 {
            Form::Packed(_) => 1,
            Form::Chunked(chunked) => chunked.chunk_count(),
        }
    }

    /// Whether neither was changed since one was cloned from the other. O(1), or O(limits) if small; may deny it where
    /// nothing differs.
    pub fn is_same_version(&self, other: &List) -> bool {
        match (&self.0, &other.0) {
            (Form::Chunked(one), Form::Chunked(other)) => one.is_same_version(other),
            (Form::Packed(_), Form::Packed(_)) => self.iter().eq(other.iter()),
            _ => false,
        }
    }

    /// Bytes that the list owns beyond its handle. O(1).
    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Form::Packed(chunk) => chunk.allocated_bytes(),
            Form::Chunked(chunked) => size_of::<Chunked>() + chunked.memory_bytes(),
        }
    }

    /// The element at `index`. O(log n).
    pub fn get(&self, index: usize) -> Option<Element<'_>> {
        match &self.0 {
            Form::Packed(chunk) => (index < chunk.len()).then(|| chunk.get(index)),
            Form::Chunked(chunked) => chunked.get(index),
        }
    }

    /// All elements from the front.
    pub fn iter(&self) -> Iter<'_> {
        self.range(0..self.len())
    }

    /// The elements of a range from its start; what lies beyond the list is left out. O(log n) to begin.
    pub fn range(&self, range: Range<usize>) -> Iter<'_> {
        let range = self.clamp(range);
        match &self.0 {
            Form::Packed(chunk) => Iter::of_chunk(chunk, range),
            Form::Chunked(chunked) => chunked.range(range),
        }
    }

    /// The elements of a range from its end to its start. O(log n) to begin.
    pub fn range_rev(&self, range: Range<usize>) -> IterRev<'_> {
        let range = self.clamp(range);
        match &self.0 {
            Form::Packed(chunk) => IterRev::of_chunk(chunk, range),
            Form::Chunked(chunked) => chunked.range_rev(range),
        }
    }

    /// Adds an element at one end. O(1), or O(log n) when a chunk is full.
    pub fn push(&mut self, end: End, value: &[u8], limits: ListLimits) {
        self.grow(value.len(), 1, limits);
        self.push_grown(end, value, limits);
    }

    /// Adds elements one after the other at one end. A listpack that they do not fit together becomes a quicklist first.
    pub fn push_all<'a>(
        &mut self,
        end: End,
        values: impl Iterator<Item = &'a [u8]> + Clone,
        limits: ListLimits,
    ) {
        let (bytes, len) = values
            .clone()
            .fold((0, 0), |(bytes, len), value| (bytes + value.len(), len + 1));
        self.grow(bytes, len, limits);
        values.for_each(|value| self.push_grown(end, value, limits));
    }

    /// Takes the form that its present size asks for, as if it had been filled before anyone looked at limits.
    pub fn fit(&mut self, limits: ListLimits) {
        self.grow(0, 0, limits);
    }

    /// Removes the element at one end after showing it to `take`. O(1) but for the tree's path.
    pub fn pop<R>(
        &mut self,
        end: End,
        limits: ListLimits,
        take: impl FnOnce(Element<'_>) -> R,
    ) -> Option<R> {
        let result = self.pop_unshrunk(end, take);
        self.shrink(limits);
        result
    }

    /// Moves an element from one end to the other, or to where it was, after showing it to `look`. O(1) but for the
    /// tree's path.
    pub fn rotate(&mut self, from: End, to: End, limits: ListLimits, look: impl FnOnce(&[u8])) {
        let Some(value) = self.pop_unshrunk(from, |element| element.to_vec()) else {
            return;
        };
        self.push(to, &value, limits);
        self.shrink(limits);
        look(&value);
    }

    /// Replaces the element at `index`. False if there is none.
    pub fn set(&mut self, index: usize, value: &[u8], limits: ListLimits) -> bool {
        self.grow(value.len(), 1, limits);
        if index >= self.len() {
            return false;
        }
        match &mut self.0 {
            Form::Packed(chunk) => chunk.replace(index, Element::new(value)),
            Form::Chunked(chunked) => chunked.replace(index, value, limits),
        }
        self.shrink(limits);
        true
    }

    /// Puts `value` beside the first element equal to `pivot`. False if there is none.
    pub fn insert(&mut self, side: Side, pivot: &[u8], value: &[u8], limits: ListLimits) -> bool {
        self.grow(value.len(), 1, limits);
        let pivot = Element::new(pivot);
        let Some(index) = self.iter().position(|element| element == pivot) else {
            return false;
        };
        self.insert_at(index, side, value, limits);
        true
    }

    /// Removes elements equal to `value`: at most `count` from the front, `-count` from the back if it is negative, all of
    /// them if it is zero. Returns how many. Chunks without a match are not touched.
    pub fn remove(&mut self, count: i64, value: &[u8], limits: ListLimits) -> usize {
        let end = if count < 0 { End::Back } else { End::Front };
        let at_most = match count.unsigned_abs() {
            0 => usize::MAX,
            count => usize::try_from(count).unwrap_or(usize::MAX),
        };
        let value = Element::new(value);
        let removed = match &mut self.0 {
            Form::Packed(chunk) => chunked::remove_matches(chunk, value, end, at_most),
            Form::Chunked(chunked) => chunked.remove_matches(value, end, at_most),
        };
        if removed > 0 {
            self.shrink(limits);
        }
        removed
    }

    /// Keeps only the elements of a range. O(log n), and what was cut off is handed out rather than freed.
    pub fn trim(&mut self, keep: Range<usize>, limits: ListLimits) -> Removed {
        let keep = self.clamp(keep);
        let removed = match &mut self.0 {
            Form::Packed(chunk) => {
                let len = chunk.len() - keep.len();
                chunk.remove(keep.end..chunk.len());
                chunk.remove(0..keep.start);
                Removed {
                    len,
                    parts: [None, None],
                }
            }
            Form::Chunked(chunked) => {
                let parts = chunked.trim(keep);
                Removed {
                    len: parts.iter().map(Chunked::len).sum(),
                    parts: parts.map(Some),
                }
            }
        };
        self.shrink(limits);
        removed
    }

    fn pop_unshrunk<R>(&mut self, end: End, take: impl FnOnce(Element<'_>) -> R) -> Option<R> {
        let last = self.len().checked_sub(1)?;
        Some(match &mut self.0 {
            Form::Packed(chunk) => {
                let index = if end == End::Front { 0 } else { last };
                let result = take(chunk.get(index));
                chunk.remove(index..index + 1);
                result
            }
            Form::Chunked(chunked) => chunked.pop(end, take),
        })
    }

    /// Gets ready for `added_len` more elements of `added_bytes` in total: a listpack that they do not fit becomes a
    /// quicklist, even if in the end none of them is added.
    fn grow(&mut self, added_bytes: usize, added_len: usize, limits: ListLimits) {
        if let Form::Packed(chunk) = &self.0 {
            let bytes = chunk.weight().saturating_add(added_bytes);
            if limits.exceeded(bytes, chunk.len().saturating_add(added_len)) {
                self.become_chunked();
            }
        }
    }

    fn become_chunked(&mut self) {
        if let Form::Packed(chunk) = &self.0 {
            self.0 = Form::Chunked(Box::new(Chunked::of(chunk.clone())));
        }
    }

    fn push_grown(&mut self, end: End, value: &[u8], limits: ListLimits) {
        // What elements cost beyond their bytes is not foreseen by `grow`, so many small ones can still be too many.
        if let Form::Packed(chunk) = &self.0
            && (chunk.len() == MAX_LEN || chunk.weight() > PACKED_MAX_BYTES)
        {
            self.become_chunked();
        }
        match (&mut self.0, end) {
            (Form::Packed(chunk), End::Front) => chunk.push_front(Element::new(value)),
            (Form::Packed(chunk), End::Back) => chunk.push_back(Element::new(value)),
            (Form::Chunked(chunked), _) => chunked.push(end, value, limits),
        }
    }

    fn insert_at(&mut self, index: usize, side: Side, value: &[u8], limits: ListLimits) {
        match &mut self.0 {
            Form::Packed(chunk) => chunk.insert(
                index + usize::from(side == Side::After),
                Element::new(value),
            ),
            Form::Chunked(chunked) => chunked.insert(index, side, value, limits),
        }
    }

    /// A quicklist becomes a listpack once a single chunk is left that fills no more than half the limit.
    fn shrink(&mut self, limits: ListLimits) {
        if let Form::Chunked(chunked) = &mut self.0
            && let Some(chunk) = chunked.as_only_chunk()
            && limits.is_half_empty(chunk.weight(), chunk.len())
        {
            self.0 = Form::Packed(chunk.clone());
        }
    }

    fn clamp(&self, range: Range<usize>) -> Range<usize> {
        let end = range.end.min(self.len());
        range.start.min(end)..end
    }
}

impl Default for List {
    fn default() -> Self {
        List::new()
    }
}

const _: () = assert!(size_of::<List>() == 16, "entries hold lists inline");
const _: () = assert!(LISTPACK_EMPTY < ListLimits::SMALLEST_BYTES);
