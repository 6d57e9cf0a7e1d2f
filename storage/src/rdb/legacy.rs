//! Readers for the packed forms that old versions wrote, and the integer set: ziplist, zipmap, intset.
//!
//! ```text
//! intset:  bytes per integer u32: 2, 4 or 8 | count u32 | integers, ascending      all little-endian
//! ziplist: total bytes u32 | offset of the last entry u32 | count u16, 65,535: unknown | entries | 0xff
//!          entry: length of the one before: 1 byte below 254, or 0xfe and 4 bytes | encoding and data
//!            00llllll  01llllll llllllll  10______ + 4 bytes big-endian     string
//!            c0 d0 e0 f0 fe + 2 4 8 3 1 bytes  f1..fd: 0..12                integer
//! zipmap:  count u8 | (length key | length free value free bytes)... | 0xff
//!          length: 1 byte below 254, or 0xfe and 4 bytes; free: 1 byte
//! ```
//!
//! All are read front to back with every bound checked, each to the end: O(length).

use super::{Error, listpack::i24};
use crate::value::element::Element;

/// The integers of an intset, after checking that they ascend.
///
/// # Errors
/// If the bytes are not sound.
pub(super) fn intset(bytes: &[u8]) -> Result<impl Iterator<Item = i64>, Error> {
    const BAD: Error = Error::Corrupt("intset");
    let (header, integers) = bytes.split_first_chunk::<8>().ok_or(BAD)?;
    let [a, b, c, d, e, f, g, h] = *header;
    let width = u32::from_le_bytes([a, b, c, d]) as usize;
    let count = u32::from_le_bytes([e, f, g, h]) as usize;
    if !matches!(width, 2 | 4 | 8) || count.checked_mul(width) != Some(integers.len()) {
        return Err(BAD);
    }
    let iter = integers.chunks_exact(width).map(|bytes| {
        let mut wide = [0; 8];
        wide[8 - bytes.len()..].copy_from_slice(bytes);
        i64::from_le_bytes(wide) >> (64 - 8 * bytes.len())
    });
    if iter.clone().is_sorted_by(|one, next| one < next) {
        Ok(iter)
    } else {
        Err(BAD)
    }
}

/// An intset of these integers, which ascend.
pub(super) fn build_intset(integers: impl Iterator<Item = i64> + Clone) -> Vec<u8> {
    let (first, last) = (integers.clone().next(), integers.clone().last());
    let fits = |low: i64, high: i64| {
        first.is_none_or(|first| first >= low) && last.is_none_or(|last| last <= high)
    };
    let width = if fits(i16::MIN.into(), i16::MAX.into()) {
        2
    } else if fits(i32::MIN.into(), i32::MAX.into()) {
        4
    } else {
        8
    };
    let mut bytes = vec![width as u8, 0, 0, 0, 0, 0, 0, 0];
    let mut count = 0u32;
    for integer in integers {
        bytes.extend_from_slice(&integer.to_le_bytes()[..width]);
        count += 1;
    }
    bytes[4..8].copy_from_slice(&count.to_le_bytes());
    bytes
}

/// Goes through the entries of a ziplist and believes none of its bytes. After an error there are no more.
pub(super) struct Ziplist<'a> {
    bytes: &'a [u8],
    at: usize,
    previous_len: usize,
    /// Entries left according to the header, if it knows.
    expected: Option<usize>,
    failed: bool,
}

const BAD_ZIPLIST: Error = Error::Corrupt("ziplist");

impl<'a> Ziplist<'a> {
    const HEADER_LEN: usize = 10;

    /// # Errors
    /// If header or end mark are wrong.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let header = bytes
            .first_chunk::<{ Ziplist::HEADER_LEN }>()
            .ok_or(BAD_ZIPLIST)?;
        let [a, b, c, d, _, _, _, _, low, high] = *header;
        let whole = u32::from_le_bytes([a, b, c, d]) as usize == bytes.len();
        if !whole || bytes.len() == Self::HEADER_LEN || bytes.last() != Some(&0xff) {
            return Err(BAD_ZIPLIST);
        }
        let count = u16::from_le_bytes([low, high]);
        let expected = (count != u16::MAX).then_some(usize::from(count));
        Ok(Self {
            bytes,
            at: Self::HEADER_LEN,
            previous_len: 0,
            expected,
            failed: false,
        })
    }

    /// Whether the end mark is next; checks what the header said.
    fn at_end(&self) -> Result<bool, Error> {
        if self.at < self.bytes.len() - 1 {
            return Ok(false);
        }
        let [.., e, f, g, h, _, _] = *self
            .bytes
            .first_chunk::<{ Ziplist::HEADER_LEN }>()
            .ok_or(BAD_ZIPLIST)?;
        let tail = u32::from_le_bytes([e, f, g, h]) as usize;
        let sound = self.expected.is_none_or(|left| left == 0)
            && tail.checked_add(self.previous_len) == Some(self.at);
        if sound { Ok(true) } else { Err(BAD_ZIPLIST) }
    }

    fn read(&mut self) -> Result<Element<'a>, Error> {
        let entry = &self.bytes[self.at..self.bytes.len() - 1];
        let (previous_len, head) = short_length(entry).ok_or(BAD_ZIPLIST)?;
        if previous_len != self.previous_len {
            return Err(BAD_ZIPLIST);
        }
        let (element, len) = read_ziplist_entry(&entry[head..]).ok_or(BAD_ZIPLIST)?;
        self.previous_len = head + len;
        self.at += head + len;
        if let Some(expected) = &mut self.expected {
            *expected = expected.checked_sub(1).ok_or(BAD_ZIPLIST)?;
        }
        Ok(element)
    }
}

impl<'a> Iterator for Ziplist<'a> {
    type Item = Result<Element<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = match self.at_end() {
            Ok(true) => return None,
            Ok(false) => self.read(),
            Err(error) => Err(error),
        };
        self.failed = item.is_err();
        Some(item)
    }
}

/// The entry behind the previous one's length, and how long it is.
fn read_ziplist_entry(bytes: &[u8]) -> Option<(Element<'_>, usize)> {
    let &first = bytes.first()?;
    let string = |head: usize, len: usize| {
        let end = head.checked_add(len)?;
        Some((Element::new(bytes.get(head..end)?), end))
    };
    let integer = |number: i64, len: usize| Some((Element::Integer(number), len));
    match first {
        0x00..=0x3f => string(1, usize::from(first)),
        0x40..=0x7f => string(
            2,
            usize::from(u16::from_be_bytes([first & 63, *bytes.get(1)?])),
        ),
        0x80..=0xbf => string(
            5,
            u32::from_be_bytes(*bytes.get(1..)?.first_chunk()?) as usize,
        ),
        0xc0 => integer(
            i64::from(i16::from_le_bytes(*bytes.get(1..)?.first_chunk()?)),
            3,
        ),
        0xd0 => integer(
            i64::from(i32::from_le_bytes(*bytes.get(1..)?.first_chunk()?)),
            5,
        ),
        0xe0 => integer(i64::from_le_bytes(*bytes.get(1..)?.first_chunk()?), 9),
        0xf0 => integer(i64::from(i24(*bytes.get(1..)?.first_chunk()?)), 4),
        0xfe => integer(i64::from(*bytes.get(1)? as i8), 2),
        0xf1..=0xfd => integer(i64::from(first) - 0xf1, 1),
        _ => None,
    }
}

/// A length in one byte, or in four behind 0xfe; and how many bytes that took.
fn short_length(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.first()? {
        0xff => None,
        0xfe => Some((
            u32::from_le_bytes(*bytes.get(1..)?.first_chunk()?) as usize,
            5,
        )),
        len => Some((usize::from(len), 1)),
    }
}

/// A key and its value.
type Pair<'a> = (&'a [u8], &'a [u8]);

/// The keys and values of a zipmap, in turns.
///
/// # Errors
/// If the bytes are not sound.
pub(super) fn zipmap(bytes: &[u8]) -> Result<Vec<Pair<'_>>, Error> {
    const BAD: Error = Error::Corrupt("zipmap");
    let [count, rest @ .., 0xff] = bytes else {
        return Err(BAD);
    };
    let mut pairs = Vec::new();
    let mut rest = rest;
    let text = |rest: &mut &'_ [u8], has_free: bool| {
        let (len, head) = short_length(rest)?;
        let free_len = usize::from(has_free);
        let free = if has_free {
            usize::from(*rest.get(head)?)
        } else {
            0
        };
        let start = head + free_len;
        let end = start.checked_add(len)?;
        let span = (start, end);
        let next = end.checked_add(free)?;
        (next <= rest.len()).then_some((span, next))
    };
    while !rest.is_empty() {
        let ((key_start, key_end), next) = text(&mut rest, false).ok_or(BAD)?;
        let key = &rest[key_start..key_end];
        rest = &rest[next..];
        let ((value_start, value_end), next) = text(&mut rest, true).ok_or(BAD)?;
        pairs.push((key, &rest[value_start..value_end]));
        rest = &rest[next..];
    }
    // From 254 on the count is not kept.
    if *count < 254 && usize::from(*count) != pairs.len() {
        return Err(BAD);
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ziplist(bytes: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        Ziplist::new(bytes)?
            .map(|element| element.map(Element::to_vec))
            .collect()
    }

    #[test]
    fn intsets_of_every_width_are_read_and_built() {
        for integers in [
            vec![],
            vec![-1, 2],
            vec![1, 2, 70_000],
            vec![i64::MIN, 0, i64::MAX],
        ] {
            let bytes = build_intset(integers.iter().copied());
            assert_eq!(intset(&bytes).unwrap().collect::<Vec<_>>(), integers);
        }
        assert_eq!(
            build_intset([1, 2, 70_000].into_iter()),
            b"\x04\0\0\0\x03\0\0\0\x01\0\0\0\x02\0\0\0p\x11\x01\0"
        );
    }

    #[test]
    fn intsets_that_do_not_ascend_or_add_up_are_refused() {
        for bytes in [
            &b""[..],
            b"\x02\0\0\0\x01\0\0\0",
            b"\x02\0\0\0\x01\0\0\0\x01",
            b"\x03\0\0\0\x01\0\0\0\x01\0\0",
            b"\x02\0\0\0\x02\0\0\0\x01\0\x01\0",
            b"\x02\0\0\0\x02\0\0\0\x02\0\x01\0",
            b"\x02\0\0\0\xff\xff\xff\xff\x01\0",
        ] {
            assert!(intset(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn ziplists_are_read() {
        let entries = b"\x00\x02ab\x04\xf1\x02\xfe\x9c\x03\xc0\x10\x27\x04\xd0\x40\x42\x0f\x00\x06\x40\x03xyz";
        let mut bytes = vec![0; 10];
        bytes.extend_from_slice(entries);
        bytes.push(0xff);
        let len = bytes.len() as u8;
        bytes[0] = len;
        bytes[4] = len - 1 - 6;
        bytes[8] = 6;
        let expected: Vec<Vec<u8>> = ["ab", "0", "-100", "10000", "1000000", "xyz"]
            .map(|text| text.as_bytes().to_vec())
            .into();
        assert_eq!(ziplist(&bytes).unwrap(), expected);
        for (at, byte) in [(0, 0), (4, 0), (8, 7), (8, 5), (10, 1), (14, 3), (15, 0xff)] {
            let mut broken = bytes.clone();
            broken[at] = byte;
            assert_eq!(ziplist(&broken), Err(BAD_ZIPLIST), "{at}");
        }
        assert_eq!(ziplist(b"\x0b\0\0\0\x0a\0\0\0\0\0\xff"), Ok(Vec::new()));
    }

    #[test]
    fn zipmaps_are_read() {
        let bytes = b"\x02\x03foo\x03\x00bar\x05hello\x05\x02world__\xff";
        assert_eq!(
            zipmap(bytes).unwrap(),
            [(&b"foo"[..], &b"bar"[..]), (b"hello", b"world")]
        );
        for broken in [
            &b""[..],
            b"\x00",
            b"\x01\xff",
            b"\x01\x03foo\xff",
            b"\x01\x03foo\x03\x09bar\xff",
            b"\x01\xfe\xff\xff\xff\xff\xff",
        ] {
            assert!(zipmap(broken).is_err(), "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_them_panic(mut bytes: Vec<u8>, sound: bool) {
            let _ = intset(&bytes).map(Iterator::count);
            let _ = zipmap(&bytes);
            if sound && bytes.len() > 11 {
                let len = bytes.len() as u32;
                bytes[..4].copy_from_slice(&len.to_le_bytes());
                bytes[8..11].copy_from_slice(&[0xff, 0xff, 0]);
                *bytes.last_mut().unwrap() = 0xff;
            }
            let _ = ziplist(&bytes);
        }
    }
}
