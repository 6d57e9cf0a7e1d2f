//! A run of entries in one buffer, which is what a stream shares with its clones.
//!
//! ```text
//! entry:  ms - first.ms | seq | shape | value...              shape 0: the block's fields
//!         ms - first.ms | seq | shape | (field value)...      shape n + 1: n fields of its own
//! ```
//!
//! The three numbers take seven bits per byte. Deleted entries leave the buffer but stay counted, with the bytes that
//! they would take in the listpack that Valkey keeps: both decide when a block is full, which clients can observe.

use smallvec::SmallVec;

use super::Id;
use crate::value::{
    element::{Element, encoded_len},
    listpack_size::{LISTPACK_EMPTY, listpack_integer_len, listpack_len},
};

/// When a block is full; 0 is no limit.
#[derive(Clone, Copy, Debug)]
pub struct BlockLimits {
    pub max_bytes: usize,
    pub max_entries: usize,
}

/// No block grows beyond this many bytes, whatever the limits say.
const MAX_BYTES: usize = 1 << 30;

#[derive(Clone, Debug)]
pub(super) struct Block {
    first: Id,
    /// The last that was added, deleted or not.
    last: Id,
    /// Encoded fields of the first entry, and how many they are.
    fields: Box<[u8]>,
    field_count: usize,
    count: usize,
    deleted: usize,
    /// Bytes that the entries, deleted ones too, would take in a listpack.
    packed_bytes: usize,
    bytes: Vec<u8>,
}

impl Block {
    /// An empty block for entries that have the fields of the one with this ID, its first.
    pub(super) fn new<'e>(first: Id, pairs: &[(Element<'e>, Element<'e>)]) -> Block {
        let mut fields = Vec::new();
        for (field, _) in pairs {
            push_element(&mut fields, *field);
        }
        let packed_bytes = LISTPACK_EMPTY
            + listpack_integer_len(pairs.len() as i64)
            + pairs
                .iter()
                .map(|(field, _)| listpack_len(*field))
                .sum::<usize>()
            + listpack_integer_len(0);
        Block {
            first,
            last: first,
            fields: fields.into(),
            field_count: pairs.len(),
            count: 0,
            deleted: 0,
            packed_bytes,
            bytes: Vec::new(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn last(&self) -> Id {
        self.last
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.fields.len() + size_of::<Block>() + size_of::<usize>()
    }

    /// Whether an entry with so many bytes of text begins a new block.
    pub(super) fn is_full(&self, text_bytes: usize, limits: BlockLimits) -> bool {
        let max_bytes = match limits.max_bytes {
            0 => MAX_BYTES,
            limit => limit.min(MAX_BYTES),
        };
        let packed = self.packed_bytes
            + listpack_integer_len(self.count as i64)
            + listpack_integer_len(self.deleted as i64);
        packed.saturating_add(text_bytes) >= max_bytes
            || limits.max_entries > 0 && self.count + self.deleted >= limits.max_entries
    }

    /// Adds an entry, whose ID is greater than all.
    pub(super) fn push(&mut self, id: Id, pairs: &[(Element<'_>, Element<'_>)]) {
        let start = self.bytes.len();
        push_number(&mut self.bytes, id.0.wrapping_sub(self.first.0));
        push_number(&mut self.bytes, id.1);
        let same_fields = self.has_fields(pairs);
        let shape = if same_fields {
            0
        } else {
            pairs.len() as u64 + 1
        };
        push_number(&mut self.bytes, shape);
        // Flags, ID and, behind the elements, how many there were.
        self.packed_bytes += listpack_integer_len(0)
            + listpack_integer_len(id.0.wrapping_sub(self.first.0) as i64)
            + listpack_integer_len(id.1.wrapping_sub(self.first.1) as i64);
        let len = pairs.len() as i64;
        self.packed_bytes += if same_fields {
            listpack_integer_len(len + 3)
        } else {
            listpack_integer_len(len) + listpack_integer_len(2 * len + 4)
        };
        for (field, value) in pairs {
            if !same_fields {
                push_element(&mut self.bytes, *field);
                self.packed_bytes += listpack_len(*field);
            }
            push_element(&mut self.bytes, *value);
            self.packed_bytes += listpack_len(*value);
        }
        debug_assert!(self.bytes.len() > start);
        self.count += 1;
        self.last = id;
    }

    fn has_fields(&self, pairs: &[(Element<'_>, Element<'_>)]) -> bool {
        let mut rest = &self.fields[..];
        pairs.len() == self.field_count
            && pairs.iter().all(|(field, _)| {
                let (own, len) = Element::decode(rest);
                rest = &rest[len..];
                own == *field
            })
    }

    /// Takes an entry out; false if there is none. An emptied block is the caller's to remove.
    pub(super) fn delete(&mut self, id: Id) -> bool {
        let mut walk = self.walk();
        let mut start = 0;
        while let Some(entry) = walk.next() {
            if entry.id == id {
                let end = walk.at;
                self.bytes.drain(start..end);
                self.count -= 1;
                self.deleted += 1;
                return true;
            }
            start = walk.at;
        }
        false
    }

    /// Takes entries out from the front while `go_on`, which is asked before each.
    pub(super) fn delete_front(&mut self, mut go_on: impl FnMut(Id) -> bool) -> usize {
        let mut walk = self.walk();
        let (mut end, mut deleted) = (0, 0);
        while let Some(entry) = walk.next() {
            if !go_on(entry.id) {
                break;
            }
            end = walk.at;
            deleted += 1;
        }
        self.bytes.drain(..end);
        self.count -= deleted;
        self.deleted += deleted;
        deleted
    }

    pub(super) fn walk(&self) -> Walk<'_> {
        Walk { block: self, at: 0 }
    }

    /// All entries, to go through them from the back.
    pub(super) fn entries(&self) -> SmallVec<[Entry<'_>; 8]> {
        self.walk().collect()
    }
}

/// Goes through the entries of a block.
pub(super) struct Walk<'s> {
    block: &'s Block,
    at: usize,
}

impl<'s> Iterator for Walk<'s> {
    type Item = Entry<'s>;

    fn next(&mut self) -> Option<Entry<'s>> {
        let block = self.block;
        if self.at == block.bytes.len() {
            return None;
        }
        let mut rest = &block.bytes[self.at..];
        let ms = block.first.0.wrapping_add(take_number(&mut rest));
        let seq = take_number(&mut rest);
        let shape = take_number(&mut rest) as usize;
        let (fields, len) = match shape {
            0 => (Some(&block.fields[..]), block.field_count),
            own => (None, own - 1),
        };
        let elements = rest;
        for _ in 0..if shape == 0 { len } else { 2 * len } {
            rest = &rest[encoded_len(rest)..];
        }
        self.at = block.bytes.len() - rest.len();
        Some(Entry {
            id: (ms, seq),
            len,
            fields,
            elements,
        })
    }
}

/// An entry, as it lies in its block.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'s> {
    pub id: Id,
    /// How many pairs.
    len: usize,
    /// The block's fields, if they are the entry's.
    fields: Option<&'s [u8]>,
    elements: &'s [u8],
}

impl<'s> Entry<'s> {
    /// Number of fields.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fields and values.
    pub fn pairs(&self) -> impl Iterator<Item = (Element<'s>, Element<'s>)> + use<'s> {
        let Entry {
            len,
            mut fields,
            mut elements,
            ..
        } = *self;
        (0..len).map(move |_| {
            let field = take_element(fields.as_mut().unwrap_or(&mut elements));
            (field, take_element(&mut elements))
        })
    }
}

fn push_element(bytes: &mut Vec<u8>, element: Element<'_>) {
    let encoded = element.encode();
    bytes.extend_from_slice(encoded.head());
    bytes.extend_from_slice(encoded.tail());
}

fn take_element<'s>(rest: &mut &'s [u8]) -> Element<'s> {
    let (element, len) = Element::decode(rest);
    *rest = &rest[len..];
    element
}

fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 128 {
        bytes.push(number as u8 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(rest: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = rest[0];
        *rest = &rest[1..];
        number |= u64::from(byte & 127) << shift;
        if byte < 128 {
            break;
        }
    }
    number
}
