//! Listpacks: the packed sequence of strings and integers in which small collections travel.
//!
//! ```text
//! total bytes u32 | count u16, 65,535: unknown | entries | 0xff
//! entry: encoding and data | length of those, seven bits per byte, readable from the back
//!
//! 0nnnnnnn                     integer 0 to 127          10llllll + l bytes      string
//! 110nnnnn nnnnnnnn            integer of 13 bits        1110llll llllllll + l   string
//! f1 f2 f3 f4 + 2 3 4 8 bytes  integer, little-endian    f0 + 4 bytes + l        string, length little-endian
//! ```

use super::Error;
use crate::value::element::Element;

const HEADER_LEN: usize = 6;
const END: u8 = 0xff;
const UNKNOWN_COUNT: u16 = u16::MAX;

/// The greatest listpack that other servers make; larger collections travel in another form.
pub(super) const MAX_LEN: usize = 1 << 30;

const BAD: Error = Error::Corrupt("listpack");

/// Goes through the entries of a listpack and believes none of its bytes. After an error there are no more.
pub(super) struct Entries<'a> {
    /// From the next entry on, without the end mark.
    rest: &'a [u8],
    /// Entries left according to the header, if it knows.
    expected: Option<usize>,
    failed: bool,
}

impl<'a> Entries<'a> {
    /// # Errors
    /// If header or end mark are wrong.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(BAD)?;
        let [a, b, c, d, e, f] = *header;
        let Some((&END, rest)) = rest.split_last() else {
            return Err(BAD);
        };
        if u32::from_le_bytes([a, b, c, d]) as usize != bytes.len() {
            return Err(BAD);
        }
        let count = u16::from_le_bytes([e, f]);
        let expected = (count != UNKNOWN_COUNT).then_some(usize::from(count));
        Ok(Self {
            rest,
            expected,
            failed: false,
        })
    }

    /// The next entry, which must be there.
    ///
    /// # Errors
    /// If it is not, or is not sound.
    pub(super) fn require(&mut self) -> Result<Element<'a>, Error> {
        self.next().ok_or(BAD)?
    }

    /// The next entry, which must be an integer.
    ///
    /// # Errors
    /// If it is not.
    pub(super) fn require_integer(&mut self) -> Result<i64, Error> {
        self.require()?.integer().ok_or(BAD)
    }

    fn read(&mut self) -> Result<Element<'a>, Error> {
        let (element, len) = read_entry(self.rest).ok_or(BAD)?;
        let back_len = back_len_size(len);
        let back = self.rest.get(len..len + back_len).ok_or(BAD)?;
        if !back_len_bytes(len).eq(back.iter().copied()) {
            return Err(BAD);
        }
        self.rest = &self.rest[len + back_len..];
        if let Some(expected) = &mut self.expected {
            *expected = expected.checked_sub(1).ok_or(BAD)?;
        }
        Ok(element)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Element<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = if self.rest.is_empty() {
            match self.expected {
                None | Some(0) => return None,
                Some(_) => Err(BAD),
            }
        } else {
            self.read()
        };
        self.failed = item.is_err();
        Some(item)
    }
}

/// The entry at the front, and the length of its encoding and data.
fn read_entry(bytes: &[u8]) -> Option<(Element<'_>, usize)> {
    let &first = bytes.first()?;
    let string = |head: usize, len: usize| {
        let end = head.checked_add(len)?;
        Some((Element::new(bytes.get(head..end)?), end))
    };
    let integer = |number: i64, len: usize| Some((Element::Integer(number), len));
    match first {
        0x00..=0x7f => integer(i64::from(first), 1),
        0x80..=0xbf => string(1, usize::from(first & 63)),
        0xc0..=0xdf => {
            let raw = u16::from_be_bytes([first & 31, *bytes.get(1)?]);
            // Shifted up so that the sign bit of the 13 is the sign bit of the 16.
            integer(i64::from((raw << 3) as i16 >> 3), 2)
        }
        0xe0..=0xef => string(
            2,
            usize::from(u16::from_be_bytes([first & 15, *bytes.get(1)?])),
        ),
        0xf0 => string(
            5,
            u32::from_le_bytes(*bytes.get(1..)?.first_chunk()?) as usize,
        ),
        0xf1 => integer(
            i64::from(i16::from_le_bytes(*bytes.get(1..)?.first_chunk()?)),
            3,
        ),
        0xf2 => integer(i64::from(i24(*bytes.get(1..)?.first_chunk()?)), 4),
        0xf3 => integer(
            i64::from(i32::from_le_bytes(*bytes.get(1..)?.first_chunk()?)),
            5,
        ),
        0xf4 => integer(i64::from_le_bytes(*bytes.get(1..)?.first_chunk()?), 9),
        0xf5..=0xff => None,
    }
}

/// Three little-endian bytes with sign.
pub(super) fn i24([a, b, c]: [u8; 3]) -> i32 {
    i32::from_le_bytes([0, a, b, c]) >> 8
}

/// Bytes that the length behind an entry takes.
fn back_len_size(len: usize) -> usize {
    match len {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    }
}

/// The length behind an entry: most significant bits first, all bytes but the first marked.
fn back_len_bytes(len: usize) -> impl Iterator<Item = u8> {
    let size = back_len_size(len);
    (0..size).map(move |index| {
        let bits = (len >> (7 * (size - 1 - index))) as u8 & 127;
        if index == 0 { bits } else { bits | 128 }
    })
}

/// Builds a listpack.
pub(super) struct Builder {
    bytes: Vec<u8>,
    count: usize,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; HEADER_LEN],
            count: 0,
        }
    }

    /// Bytes so far, end mark included.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() + 1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn push(&mut self, element: Element<'_>) {
        let start = self.bytes.len();
        match element {
            Element::Integer(number) => push_integer(number, &mut self.bytes),
            Element::Text(text) => push_text(text, &mut self.bytes),
        }
        let len = self.bytes.len() - start;
        self.bytes.extend(back_len_bytes(len));
        self.count += 1;
    }

    pub(super) fn push_integer(&mut self, number: i64) {
        self.push(Element::Integer(number));
    }

    /// Moves the entries of another one to the end of this.
    pub(super) fn append(&mut self, other: &mut Builder) {
        self.bytes.extend(other.bytes.drain(HEADER_LEN..));
        self.count += std::mem::take(&mut other.count);
    }

    /// The finished listpack; the builder is empty again.
    ///
    /// Text of 4 GiB and more in all cannot be expressed; callers stay below [`MAX_LEN`].
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::replace(&mut self.bytes, vec![0; HEADER_LEN]);
        bytes.push(END);
        let total = u32::try_from(bytes.len()).expect("callers stay below MAX_LEN");
        let count = u16::try_from(self.count).unwrap_or(UNKNOWN_COUNT);
        self.count = 0;
        bytes[..4].copy_from_slice(&total.to_le_bytes());
        bytes[4..HEADER_LEN].copy_from_slice(&count.to_le_bytes());
        bytes
    }
}

fn push_integer(number: i64, out: &mut Vec<u8>) {
    let bytes = number.to_le_bytes();
    match number {
        0..=127 => out.push(number as u8),
        -4096..=4095 => {
            let [high, low] = (number as u16 & 0x1fff).to_be_bytes();
            out.extend_from_slice(&[0xc0 | high, low]);
        }
        -0x8000..=0x7fff => {
            out.push(0xf1);
            out.extend_from_slice(&bytes[..2]);
        }
        -0x80_0000..=0x7f_ffff => {
            out.push(0xf2);
            out.extend_from_slice(&bytes[..3]);
        }
        -0x8000_0000..=0x7fff_ffff => {
            out.push(0xf3);
            out.extend_from_slice(&bytes[..4]);
        }
        _ => {
            out.push(0xf4);
            out.extend_from_slice(&bytes);
        }
    }
}

fn push_text(text: &[u8], out: &mut Vec<u8>) {
    match text.len() {
        len @ 0..64 => out.push(0x80 | len as u8),
        len @ 64..4096 => out.extend_from_slice(&(0xe000 | len as u16).to_be_bytes()),
        len => {
            out.push(0xf0);
            out.extend_from_slice(&(len as u32).to_le_bytes());
        }
    }
    out.extend_from_slice(text);
}

/// Bytes that an entry takes.
pub(super) fn entry_len(element: Element<'_>) -> usize {
    let len = match element {
        Element::Integer(number) => match number {
            0..=127 => 1,
            -4096..=4095 => 2,
            -0x8000..=0x7fff => 3,
            -0x80_0000..=0x7f_ffff => 4,
            -0x8000_0000..=0x7fff_ffff => 5,
            _ => 9,
        },
        Element::Text(text) => {
            text.len()
                + match text.len() {
                    0..64 => 1,
                    64..4096 => 2,
                    _ => 5,
                }
        }
    };
    len + back_len_size(len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        Entries::new(bytes)?
            .map(|element| element.map(Element::to_vec))
            .collect()
    }

    #[test]
    fn bytes_are_those_of_the_reference_server() {
        let mut builder = Builder::new();
        ["f", "v", "1", "2"]
            .iter()
            .for_each(|text| builder.push(Element::new(text.as_bytes())));
        let bytes = b"\x11\x00\x00\x00\x04\x00\x81f\x02\x81v\x02\x01\x01\x02\x01\xff";
        // The count says four, the bytes hold all of them.
        assert_eq!(builder.len(), 17);
        let built = builder.finish();
        assert_eq!(built.len(), 17);
        assert_eq!(built[4..], bytes[4..]);
        assert_eq!(read(&built).unwrap(), [b"f", b"v", b"1", b"2"]);
    }

    #[test]
    fn broken_listpacks_are_refused() {
        for bytes in [
            &b""[..],
            b"\x07\0\0\0\0\0",
            b"\x08\0\0\0\0\0\xff",
            b"\x07\0\0\0\0\0\xfe",
            b"\x07\0\0\0\x01\0\xff",
            b"\x09\0\0\0\0\0\x01\x01\xff",
            b"\x09\0\0\0\x01\0\x01\x02\xff",
            b"\x09\0\0\0\x01\0\x82\x01\xff",
            b"\x09\0\0\0\x01\0\xf4\x01\xff",
            b"\x09\0\0\0\x01\0\xff\x01\xff",
            b"\x0c\0\0\0\x01\0\xf0\xff\xff\xff\xff\xff",
            b"\x08\0\0\0\x01\0\x01\xff",
        ] {
            assert_eq!(read(bytes), Err(BAD), "{bytes:?}");
        }
        assert_eq!(read(b"\x07\0\0\0\0\0\xff"), Ok(Vec::new()));
        assert_eq!(
            read(b"\x09\0\0\0\xff\xff\x01\x01\xff"),
            Ok(vec![b"1".to_vec()])
        );
    }

    proptest! {
        #[test]
        fn what_is_built_is_read(texts: Vec<Vec<u8>>, numbers: Vec<i64>, shift in 0u32..64, lens in proptest::collection::vec(0usize..20_000, 0..4)) {
            let long: Vec<Vec<u8>> = lens.iter().map(|&len| vec![b'x'; len]).collect();
            let numbers: Vec<i64> = numbers.iter().map(|number| number >> shift).collect();
            let mut builder = Builder::new();
            let mut expected = Vec::new();
            for text in texts.iter().chain(&long) {
                let before = builder.len();
                builder.push(Element::new(text));
                prop_assert_eq!(builder.len() - before, entry_len(Element::new(text)));
                expected.push(text.clone());
            }
            for &number in &numbers {
                let before = builder.len();
                builder.push_integer(number);
                prop_assert_eq!(builder.len() - before, entry_len(number.into()));
                expected.push(number.to_string().into_bytes());
            }
            prop_assert_eq!(read(&builder.finish()).unwrap(), expected);
            prop_assert!(builder.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>, sound: bool) {
            if sound && bytes.len() >= 7 {
                let len = bytes.len() as u32;
                bytes[..4].copy_from_slice(&len.to_le_bytes());
                bytes[4..6].copy_from_slice(&[0xff; 2]);
                *bytes.last_mut().unwrap() = END;
            }
            let _ = read(&bytes);
        }
    }
}
