//! Elements of collections: text, or an integer where the text is exactly how that integer is printed.
//!
//! Clients only ever see text. `"12345"` is kept as a small integer and printed again when asked for; `"007"`, `"+1"` and
//! `"-0"` stay text. The rule makes the encoding of an element unique, so two elements are equal exactly when their
//! encoded bytes are.
//!
//! ```text
//! first byte   follows
//! 0-191        that many bytes of text
//! 192          2 bytes of length, text
//! 193          4 bytes of length, text
//! 194-199      an integer of 1, 2, 3, 4, 6, 8 bytes, little endian, signed
//! 200-209      free for the structure that holds the elements
//! 210-255      the integers 0-45
//! ```

use itoa::Buffer;

use super::number::parse_i64;

const SHORT_MAX: usize = 191;
const LONG_16: u8 = 192;
const LONG_32: u8 = 193;
const INT_FIRST: u8 = 194;
const INT_LAST: u8 = 199;
const INT_WIDTHS: [usize; 6] = [1, 2, 3, 4, 6, 8];
/// First of the ten codes that encode no element.
pub(crate) const FREE_FIRST: u8 = 200;
const TINY_FIRST: u8 = 210;
const TINY_MAX: i64 = (u8::MAX - TINY_FIRST) as i64;

/// Space to print an integer element in.
pub type Scratch = Buffer;

/// One element of a collection, borrowed from it or from the client's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element<'a> {
    /// Text that is not a canonical integer; make these with [`Element::new`] only.
    Text(&'a [u8]),
    /// An integer as `itoa` prints it.
    Integer(i64),
}

impl<'a> Element<'a> {
    /// The element that reads as `text`.
    #[inline]
    pub fn new(text: &'a [u8]) -> Self {
        match parse_i64(text) {
            Some(integer) => Element::Integer(integer),
            None => Element::Text(text),
        }
    }

    /// The text clients see; an integer is printed into `scratch`.
    #[inline]
    pub fn bytes<'b>(self, scratch: &'b mut Scratch) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Element::Text(text) => text,
            Element::Integer(integer) => scratch.format(integer).as_bytes(),
        }
    }

    /// The text clients see, owned.
    pub fn to_vec(self) -> Vec<u8> {
        self.bytes(&mut Scratch::new()).to_vec()
    }

    /// Length of the text in bytes.
    pub fn text_len(self) -> usize {
        match self {
            Element::Text(text) => text.len(),
            Element::Integer(integer) => integer_text_len(integer),
        }
    }

    /// The integer the text is, if it is one in canonical form.
    pub fn integer(self) -> Option<i64> {
        match self {
            Element::Text(_) => None,
            Element::Integer(integer) => Some(integer),
        }
    }

    pub(crate) fn hash(self) -> u64 {
        match self {
            Element::Text(text) => crate::hash::hash(text),
            Element::Integer(integer) => crate::hash::hash(&integer.to_le_bytes()),
        }
    }

    #[inline]
    pub(crate) fn encode(self) -> Encoded<'a> {
        let mut head = [0; 9];
        match self {
            Element::Text(text) => {
                let head_len = encode_text_len(&mut head, text.len());
                Encoded {
                    head,
                    head_len,
                    tail: text,
                }
            }
            Element::Integer(integer) => {
                let head_len = encode_integer(&mut head, integer);
                Encoded {
                    head,
                    head_len,
                    tail: b"",
                }
            }
        }
    }

    /// Reads the element that `bytes` begins with, and the length of its encoding.
    #[inline]
    pub(crate) fn decode(bytes: &'a [u8]) -> (Self, usize) {
        let first = bytes[0];
        if usize::from(first) <= SHORT_MAX {
            let end = 1 + usize::from(first);
            return (Element::Text(&bytes[1..end]), end);
        }
        if first >= TINY_FIRST {
            return (Element::Integer(i64::from(first - TINY_FIRST)), 1);
        }
        let (start, end) = bounds(bytes);
        if first <= LONG_32 {
            return (Element::Text(&bytes[start..end]), end);
        }
        let mut wide = [0; 8];
        wide[8 - (end - 1)..].copy_from_slice(&bytes[1..end]);
        // The bytes sit at the top, so shifting down extends the sign.
        (
            Element::Integer(i64::from_le_bytes(wide) >> (64 - 8 * (end - 1))),
            end,
        )
    }
}

impl<'a> From<&'a [u8]> for Element<'a> {
    #[inline]
    fn from(text: &'a [u8]) -> Self {
        Element::new(text)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Element<'a> {
    fn from(text: &'a [u8; N]) -> Self {
        Element::new(text)
    }
}

impl<'a> From<&'a Vec<u8>> for Element<'a> {
    fn from(text: &'a Vec<u8>) -> Self {
        Element::new(text)
    }
}

impl From<i64> for Element<'_> {
    fn from(integer: i64) -> Self {
        Element::Integer(integer)
    }
}

/// An element's encoding in up to two pieces: tag, length or integer; and the text.
#[derive(Clone, Copy)]
pub(crate) struct Encoded<'a> {
    head: [u8; 9],
    head_len: u8,
    tail: &'a [u8],
}

impl Encoded<'_> {
    #[inline]
    pub(crate) fn head(&self) -> &[u8] {
        &self.head[..usize::from(self.head_len)]
    }

    #[inline]
    pub(crate) fn tail(&self) -> &[u8] {
        self.tail
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        usize::from(self.head_len) + self.tail.len()
    }

    /// Whether `bytes` begins with this encoding.
    #[inline]
    pub(crate) fn begins(&self, bytes: &[u8]) -> bool {
        let head_len = usize::from(self.head_len);
        if bytes.len() < self.len() || bytes[0] != self.head[0] {
            return false;
        }
        let text = &bytes[head_len..self.len()];
        // Most that differ do so in the last byte; seeing that here saves calls to compare the rest.
        text.last() == self.tail.last()
            && bytes[1..head_len] == self.head[1..head_len]
            && text == self.tail
    }
}

/// Length of the encoding that `bytes` begins with.
#[inline]
pub(crate) fn encoded_len(bytes: &[u8]) -> usize {
    let first = bytes[0];
    if usize::from(first) <= SHORT_MAX {
        1 + usize::from(first)
    } else if first >= TINY_FIRST {
        1
    } else {
        bounds(bytes).1
    }
}

/// Where payload starts and ends, of an encoding that is neither short text nor a tiny integer.
fn bounds(bytes: &[u8]) -> (usize, usize) {
    match bytes[0] {
        LONG_16 => (3, 3 + usize::from(u16::from_le_bytes([bytes[1], bytes[2]]))),
        LONG_32 => (
            5,
            5 + u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize,
        ),
        code @ INT_FIRST..=INT_LAST => (1, 1 + INT_WIDTHS[usize::from(code - INT_FIRST)]),
        code => unreachable!("code {code} encodes no element"),
    }
}

fn encode_text_len(head: &mut [u8; 9], len: usize) -> u8 {
    if len <= SHORT_MAX {
        head[0] = len as u8;
        1
    } else if let Ok(len) = u16::try_from(len) {
        head[0] = LONG_16;
        head[1..3].copy_from_slice(&len.to_le_bytes());
        3
    } else {
        let len = u32::try_from(len).expect("elements are bounded far below 4 GiB");
        head[0] = LONG_32;
        head[1..5].copy_from_slice(&len.to_le_bytes());
        5
    }
}

fn encode_integer(head: &mut [u8; 9], integer: i64) -> u8 {
    if (0..=TINY_MAX).contains(&integer) {
        head[0] = TINY_FIRST + integer as u8;
        return 1;
    }
    // Bits needed with the sign: those below the leading copies of it, and one copy.
    let bits = 65 - (integer ^ (integer >> 63)).leading_zeros() as usize;
    let index = INT_WIDTHS
        .iter()
        .position(|width| width * 8 >= bits)
        .expect("no integer needs more than 8 bytes");
    let width = INT_WIDTHS[index];
    head[0] = INT_FIRST + index as u8;
    head[1..1 + width].copy_from_slice(&integer.to_le_bytes()[..width]);
    1 + width as u8
}

/// Characters of the integer's text.
pub(crate) fn integer_text_len(integer: i64) -> usize {
    let digits = integer.unsigned_abs().checked_ilog10().unwrap_or(0) as usize + 1;
    digits + usize::from(integer < 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(text: &[u8]) -> usize {
        let element = Element::new(text);
        assert_eq!(element.to_vec(), text);
        assert_eq!(element.text_len(), text.len());
        let encoded = element.encode();
        let mut bytes = [encoded.head(), encoded.tail()].concat();
        assert_eq!(bytes.len(), encoded.len());
        bytes.extend_from_slice(b"rest");
        assert_eq!(Element::decode(&bytes), (element, encoded.len()));
        assert_eq!(encoded_len(&bytes), encoded.len());
        assert!(encoded.begins(&bytes));
        encoded.len()
    }

    #[test]
    fn integers_take_the_bytes_they_need_and_print_as_before() {
        let cases: [(i64, usize); 22] = [
            (0, 1),
            (45, 1),
            (46, 2),
            (127, 2),
            (128, 3),
            (-1, 2),
            (-128, 2),
            (-129, 3),
            (32767, 3),
            (32768, 4),
            (-32768, 3),
            (-32769, 4),
            (8_388_607, 4),
            (8_388_608, 5),
            (i64::from(i32::MIN), 5),
            (i64::from(i32::MAX) + 1, 7),
            ((1 << 47) - 1, 7),
            (1 << 47, 9),
            (-(1 << 47), 7),
            (-(1 << 47) - 1, 9),
            (i64::MAX, 9),
            (i64::MIN, 9),
        ];
        for (integer, len) in cases {
            assert_eq!(
                Element::new(integer.to_string().as_bytes()),
                Element::Integer(integer)
            );
            assert_eq!(round_trip(integer.to_string().as_bytes()), len, "{integer}");
        }
    }

    #[test]
    fn text_that_is_not_a_canonical_integer_stays_text() {
        for text in [
            "",
            "-",
            "-0",
            "007",
            "+1",
            " 1",
            "1 ",
            "1.0",
            "0x1",
            "00",
            "-01",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
            "18446744073709551616",
            "184467440737095516160",
        ] {
            assert_eq!(
                Element::new(text.as_bytes()),
                Element::Text(text.as_bytes()),
                "{text}"
            );
            assert_eq!(round_trip(text.as_bytes()), text.len() + 1);
        }
        for len in [191, 192, 65_535, 65_536, 100_000] {
            round_trip(&vec![b'7'; len]);
        }
    }
}
