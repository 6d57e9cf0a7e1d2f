//! Elements of lists as replies: few are written at once, many in slices after the locks are released.

use std::ops::Range;

use protocol::resp::reply::ReplyWriter;
use storage::value::{
    element::Element,
    list::{End, List},
};

use crate::dispatch::command::Reply;

/// From so many elements on a reply is written in slices.
const SLICED_FROM: usize = 1000;
/// A slice ends after so many elements, or bytes.
const SLICE_LEN: usize = 256;
const SLICE_BYTES: usize = 64 << 10;

/// Writes the elements of a range as an array: towards the back if it begins at the front, and the other way round.
pub(super) fn write(list: &List, range: Range<usize>, from: End, reply: &mut Reply) {
    reply.array(range.len());
    if range.len() < SLICED_FROM {
        write_some(list, range, from, usize::MAX, reply);
        return;
    }
    let list = list.clone();
    let mut left = range;
    reply.later(move |writer| {
        let slice = match from {
            End::Front => left.start..left.end.min(left.start + SLICE_LEN),
            End::Back => left.start.max(left.end.saturating_sub(SLICE_LEN))..left.end,
        };
        let written = write_some(&list, slice, from, SLICE_BYTES, writer);
        match from {
            End::Front => left.start += written,
            End::Back => left.end -= written,
        }
        left.is_empty()
    });
}

/// Writes elements until so many bytes are exceeded. Returns how many, at least one.
fn write_some(
    list: &List,
    range: Range<usize>,
    from: End,
    max_bytes: usize,
    writer: &mut ReplyWriter,
) -> usize {
    let full = writer.len().saturating_add(max_bytes);
    let mut written = 0;
    let mut write = |element: Element<'_>| {
        one(element, writer);
        written += 1;
        writer.len() < full
    };
    match from {
        End::Front => list.range(range).all(&mut write),
        End::Back => list.range_rev(range).all(&mut write),
    };
    written
}

/// Writes one element.
#[inline]
pub(super) fn one(element: Element<'_>, writer: &mut ReplyWriter) {
    match element {
        Element::Text(text) => writer.bulk(text),
        Element::Integer(number) => writer.bulk_integer(number),
    }
}
