//! Entries: what a table holds, and how the parts of one are written in an arena.

use crate::{
    time::Timestamp,
    value::element::{Element, Encoded, FREE_FIRST},
};

/// Text longer than this is kept out of line.
pub(super) const INLINE_MAX: usize = 512;
/// Code of out-of-line text; a two-byte index follows.
pub(super) const LARGE: u8 = FREE_FIRST;
pub(super) const LARGE_LEN: usize = 3;
const DEADLINE_48: u8 = FREE_FIRST + 1;
const DEADLINE_64: u8 = FREE_FIRST + 2;
const DEADLINE_48_MAX: i64 = (1 << 48) - 1;

/// Stands for "no deadline"; later than every deadline.
pub(super) const NEVER: i64 = i64::MAX;
/// The most bytes an entry takes in an arena.
pub(super) const ENTRY_MAX: usize = 2 * (INLINE_MAX + 3) + 9;

/// Whether entries are lone members (a set) or pairs of field and value (a hash).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Members only.
    Members,
    /// Fields with values.
    Pairs,
}

/// An entry of the table, borrowed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The field, or the member.
    pub field: Element<'a>,
    /// The value; empty text if the table holds members only.
    pub value: Element<'a>,
    /// When the entry expires, if it does.
    pub deadline: Option<Timestamp>,
}

impl Entry<'_> {
    /// Whether the deadline has passed: an entry lives up to it and not in the millisecond itself.
    #[inline]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// A field being looked for: hashed and encoded once.
pub(super) struct Key<'a> {
    pub(super) hash: u64,
    pub(super) field: Element<'a>,
    pub(super) encoded: Encoded<'a>,
}

impl<'a> Key<'a> {
    #[inline]
    pub(super) fn new(field: Element<'a>) -> Self {
        Key {
            hash: field.hash(),
            field,
            encoded: field.encode(),
        }
    }
}

/// What follows the field: deadline and value.
pub(super) struct Tail<'a> {
    pub(super) deadline: EncodedDeadline,
    pub(super) value: Element<'a>,
    pub(super) encoded: Encoded<'a>,
}

impl<'a> Tail<'a> {
    pub(super) fn new(value: Element<'a>, deadline: i64) -> Self {
        Tail {
            deadline: EncodedDeadline::new(deadline),
            value,
            encoded: value.encode(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.deadline.bytes().len() + stored_len(self.value, &self.encoded)
    }

    pub(super) fn is_large(&self) -> bool {
        is_large(self.value)
    }

    pub(super) fn parts(&self) -> [&[u8]; 3] {
        [
            self.deadline.bytes(),
            self.encoded.head(),
            self.encoded.tail(),
        ]
    }
}

pub(super) struct EncodedDeadline {
    bytes: [u8; 9],
    len: u8,
}

impl EncodedDeadline {
    pub(super) fn new(deadline: i64) -> Self {
        let mut bytes = [0; 9];
        let (code, width) = match deadline {
            NEVER => return EncodedDeadline { bytes, len: 0 },
            0..=DEADLINE_48_MAX => (DEADLINE_48, 6),
            _ => (DEADLINE_64, 8),
        };
        bytes[0] = code;
        bytes[1..].copy_from_slice(&deadline.to_le_bytes());
        EncodedDeadline {
            bytes,
            len: 1 + width,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

pub(super) fn is_large(element: Element<'_>) -> bool {
    matches!(element, Element::Text(text) if text.len() > INLINE_MAX)
}

/// Bytes of the arena an element takes.
pub(super) fn stored_len(element: Element<'_>, encoded: &Encoded<'_>) -> usize {
    if is_large(element) {
        LARGE_LEN
    } else {
        encoded.len()
    }
}

/// The deadline that `bytes` begin with, and how many of them it takes; [`NEVER`] and 0 if they begin with none.
#[inline]
pub(super) fn decode_deadline(bytes: &[u8]) -> (i64, usize) {
    let width = match bytes.first() {
        Some(&DEADLINE_48) => 6,
        Some(&DEADLINE_64) => 8,
        _ => return (NEVER, 0),
    };
    let mut wide = [0; 8];
    wide[..width].copy_from_slice(&bytes[1..][..width]);
    (i64::from_le_bytes(wide), 1 + width)
}
