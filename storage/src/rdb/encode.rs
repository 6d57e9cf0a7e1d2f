//! Values in their RDB forms.
//!
//! Small collections are written as one listpack or intset, in the order in which they hold their elements; larger ones element by
//! element, which the [`Writer`] passes on as it goes, so that a value of any size takes no more than a piece of memory.

use std::io;

use super::{Dialect, kind, legacy::build_intset, listpack, stream, writer::Writer};
use crate::{
    time::Timestamp,
    value::{
        ValueRef,
        element::{Element, Scratch},
        hash::{self, Hash},
        list::{List, ListEncoding},
        number,
        set::{self, Set},
        sorted_set::{self, SortedSet},
    },
};

/// Bytes of a list's node, and the size from which an element is a node of its own.
const NODE_MAX_LEN: usize = 8192;

const PLAIN_NODE: u64 = 1;
const PACKED_NODE: u64 = 2;

/// The type byte under which [`write_value`] writes a value.
pub fn kind_of(value: ValueRef<'_>, dialect: Dialect) -> u8 {
    match value {
        ValueRef::Bytes(_) | ValueRef::Int(_) | ValueRef::Shared(_) => kind::STRING,
        ValueRef::List(_) => kind::LIST_QUICKLIST_2,
        ValueRef::Set(set) => match set.encoding() {
            set::Encoding::IntSet => kind::SET_INTSET,
            set::Encoding::ListPack if fits_listpack(set.memory_bytes()) => kind::SET_LISTPACK,
            _ => kind::SET,
        },
        ValueRef::SortedSet(set) => match set.encoding() {
            // A score takes up to 26 bytes as text, and at least 2 in memory.
            sorted_set::Encoding::ListPack
                if fits_listpack(set.memory_bytes() + 26 * set.len()) =>
            {
                kind::SORTED_SET_LISTPACK
            }
            _ => kind::SORTED_SET_2,
        },
        ValueRef::Hash(hash) => match hash.encoding() {
            _ if hash.expiring() > 0 => match dialect {
                Dialect::Valkey => kind::HASH_DEADLINES,
                Dialect::Redis => kind::HASH_RELATIVE_DEADLINES,
            },
            hash::Encoding::ListPack if fits_listpack(hash.memory_bytes()) => kind::HASH_LISTPACK,
            _ => kind::HASH,
        },
        ValueRef::Stream(_) => kind::STREAM_3,
    }
}

/// Whether elements that take so much memory surely make a listpack that is not too long: an element's header takes at most six bytes
/// more than in memory, where it takes at least one.
fn fits_listpack(memory_bytes: usize) -> bool {
    memory_bytes.saturating_mul(8) < listpack::MAX_LEN
}

/// Writes a value without its type byte, which must come from [`kind_of`].
///
/// # Errors
/// The sink's.
pub fn write_value<W: io::Write>(
    value: ValueRef<'_>,
    kind: u8,
    writer: &mut Writer<W>,
) -> io::Result<()> {
    match value {
        ValueRef::Bytes(bytes) => writer.string(bytes),
        ValueRef::Shared(bytes) => writer.string(bytes),
        ValueRef::Int(number) => writer.integer(number),
        ValueRef::List(list) => write_list(list, writer),
        ValueRef::Set(set) => write_set(set, kind, writer),
        ValueRef::SortedSet(set) => write_sorted_set(set, kind, writer),
        ValueRef::Hash(hash) => write_hash(hash, kind, writer),
        ValueRef::Stream(value) => stream::write_stream(value, writer),
    }
}

fn write_set<W: io::Write>(set: &Set, kind: u8, writer: &mut Writer<W>) -> io::Result<()> {
    match kind {
        kind::SET_INTSET => {
            let integers: Vec<i64> = set.iter().filter_map(Element::integer).collect();
            writer.string(&build_intset(integers.into_iter()))
        }
        kind::SET_LISTPACK => {
            let mut packed = listpack::Builder::new();
            set.iter().for_each(|member| packed.push(member));
            writer.string(&packed.finish())
        }
        _ => {
            writer.length(set.len() as u64)?;
            set.iter().try_for_each(|member| writer.element(member))
        }
    }
}

fn write_sorted_set<W: io::Write>(
    set: &SortedSet,
    kind: u8,
    writer: &mut Writer<W>,
) -> io::Result<()> {
    if kind == kind::SORTED_SET_LISTPACK {
        let mut packed = listpack::Builder::new();
        let mut text = Vec::new();
        for (member, score) in set.iter() {
            packed.push(Element::new(member));
            text.clear();
            // Minus zero has no text of its own there.
            number::write_f64(if score == 0.0 { 0.0 } else { score }, &mut text);
            packed.push(Element::new(&text));
        }
        return writer.string(&packed.finish());
    }
    writer.length(set.len() as u64)?;
    // Descending, which is the fastest way to build the structure that other servers use.
    set.iter().rev().try_for_each(|(member, score)| {
        writer.string(member)?;
        writer.bytes(&score.to_le_bytes())
    })
}

fn write_hash<W: io::Write>(hash: &Hash, kind: u8, writer: &mut Writer<W>) -> io::Result<()> {
    let mut entries = hash.entries(Timestamp::MIN);
    if kind == kind::HASH_LISTPACK {
        let mut packed = listpack::Builder::new();
        entries.for_each(|entry| {
            packed.push(entry.field);
            packed.push(entry.value);
        });
        return writer.string(&packed.finish());
    }
    let earliest = hash
        .entries(Timestamp::MIN)
        .filter_map(|entry| entry.deadline)
        .map(Timestamp::millis)
        .min();
    let earliest = earliest.unwrap_or(0);
    if kind == kind::HASH_RELATIVE_DEADLINES {
        writer.bytes(&earliest.to_le_bytes())?;
    }
    writer.length(hash.len() as u64)?;
    entries.try_for_each(|entry| {
        let deadline = entry.deadline.map(Timestamp::millis);
        if kind == kind::HASH_RELATIVE_DEADLINES {
            writer.length(deadline.map_or(0, |deadline| deadline.abs_diff(earliest) + 1))?;
        }
        writer.element(entry.field)?;
        writer.element(entry.value)?;
        if kind == kind::HASH_DEADLINES {
            writer.bytes(&deadline.unwrap_or(-1).to_le_bytes())?;
        }
        Ok(())
    })
}

fn write_list<W: io::Write>(list: &List, writer: &mut Writer<W>) -> io::Result<()> {
    // The number of nodes comes first: lay them out once to count them.
    let mut layout = Nodes::of(list);
    let count = list
        .iter()
        .filter(|element| layout.begins(*element))
        .count();
    writer.length(count as u64)?;

    let mut layout = Nodes::of(list);
    let mut packed = listpack::Builder::new();
    let mut scratch = Scratch::new();
    for element in list.iter() {
        if layout.begins(element) && !packed.is_empty() {
            writer.length(PACKED_NODE)?;
            writer.string(&packed.finish())?;
        }
        if layout.is_plain(element) {
            writer.length(PLAIN_NODE)?;
            writer.string(element.bytes(&mut scratch))?;
        } else {
            packed.push(element);
        }
    }
    if !packed.is_empty() {
        writer.length(PACKED_NODE)?;
        writer.string(&packed.finish())?;
    }
    Ok(())
}

/// Where the nodes of a list begin.
struct Nodes {
    max_len: usize,
    /// Bytes in the current node; none if an element for itself or nothing came before.
    len: Option<usize>,
}

impl Nodes {
    fn of(list: &List) -> Self {
        // What clients see as one listpack stays one.
        let max_len = match list.encoding() {
            ListEncoding::Listpack => listpack::MAX_LEN,
            ListEncoding::Quicklist => NODE_MAX_LEN,
        };
        Self { max_len, len: None }
    }

    fn is_plain(&self, element: Element<'_>) -> bool {
        listpack::entry_len(element) > self.max_len
    }

    /// Whether the next element begins a node.
    fn begins(&mut self, element: Element<'_>) -> bool {
        if self.is_plain(element) {
            self.len = None;
            return true;
        }
        let entry_len = listpack::entry_len(element);
        match &mut self.len {
            Some(len) if *len + entry_len <= self.max_len => {
                *len += entry_len;
                false
            }
            len => {
                *len = Some(entry_len);
                true
            }
        }
    }
}
