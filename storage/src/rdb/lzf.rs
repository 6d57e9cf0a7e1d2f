//! The LZF compression that RDB strings may have.
//!
//! ```text
//! 000lllll            l+1 literal bytes follow
//! lllooooo oooooooo   copy l+2 bytes (l is 1 to 6) from o+1 bytes back
//! 111ooooo llllllll oooooooo   copy l+9 bytes from o+1 bytes back
//! ```
//!
//! Compression looks up the last place of each three-byte sequence in a hash table and takes whatever matches there: O(n), no search.
//! Decompression trusts nothing: its output never passes the length that was announced, and that length is held against the input's.

use std::cell::RefCell;

use super::Error;

const MAX_LITERALS: usize = 32;
const MAX_OFFSET: usize = 1 << 13;
/// What a back reference can copy: the longest takes three bytes.
const MIN_MATCH: usize = 3;
const MAX_MATCH: usize = 255 + 9;
/// More output per byte of input than any stream has.
const MAX_EXPANSION: usize = MAX_MATCH / 3;

const TABLE_BITS: u32 = 14;

thread_local! {
    /// One per thread, because clearing it would cost more than compressing a small string.
    static FINDER: RefCell<Finder> = RefCell::new(Finder::new());
}

/// Appends the compressed input, if that saves at least four bytes; otherwise appends nothing and returns false.
pub fn compress(input: &[u8], out: &mut Vec<u8>) -> bool {
    if input.len() <= MIN_MATCH || u32::try_from(input.len()).is_err() {
        return false;
    }
    let start = out.len();
    let limit = start + input.len().saturating_sub(4);
    FINDER.with_borrow_mut(|finder| finder.compress(input, out, limit));
    let saved = out.len() <= limit;
    if !saved {
        out.truncate(start);
    }
    saved
}

/// Appends the decompressed input, which must come to exactly `len` bytes.
///
/// # Errors
/// [`Error::Corrupt`]. At most `len` bytes were appended, and none if the input is too short for them.
pub fn decompress(input: &[u8], len: usize, out: &mut Vec<u8>) -> Result<(), Error> {
    const BAD: Error = Error::Corrupt("compressed string");
    if len > input.len().saturating_mul(MAX_EXPANSION) {
        return Err(BAD);
    }
    let start = out.len();
    let end = start + len;
    out.reserve_exact(len);
    let mut input = input.iter();
    while let Some(&control) = input.next() {
        let high = usize::from(control >> 5);
        if high == 0 {
            let literals = usize::from(control) + 1;
            let rest = input.as_slice();
            if literals > rest.len() || literals > end - out.len() {
                return Err(BAD);
            }
            let (literals, rest) = rest.split_at(literals);
            out.extend_from_slice(literals);
            input = rest.iter();
            continue;
        }
        let len = if high == 7 {
            7 + usize::from(*input.next().ok_or(BAD)?)
        } else {
            high
        } + 2;
        let offset = (usize::from(control & 31) << 8 | usize::from(*input.next().ok_or(BAD)?)) + 1;
        if offset > out.len() - start || len > end - out.len() {
            return Err(BAD);
        }
        repeat(out, offset, len);
    }
    if out.len() == end { Ok(()) } else { Err(BAD) }
}

/// Appends `len` bytes from `offset` bytes back, which may run into what is being appended.
fn repeat(out: &mut Vec<u8>, offset: usize, mut len: usize) {
    let from = out.len() - offset;
    while len > 0 {
        // Each round doubles what there is to copy from.
        let step = len.min(out.len() - from);
        out.extend_from_within(from..from + step);
        len -= step;
    }
}

struct Finder {
    /// Last places of sequences by hash, counted from when the finder was made; 0 for none.
    places: Box<[u32]>,
    /// The count at which the current input begins.
    base: u32,
}

impl Finder {
    fn new() -> Self {
        Self {
            places: vec![0; 1 << TABLE_BITS].into_boxed_slice(),
            base: 1,
        }
    }

    /// Gives up soon after the output passes `limit`.
    fn compress(&mut self, input: &[u8], out: &mut Vec<u8>, limit: usize) {
        let len = input.len() as u32;
        if self.base.checked_add(len).is_none() {
            self.places.fill(0);
            self.base = 1;
        }
        let mut literals = 0;
        let mut at = 0;
        while at + MIN_MATCH <= input.len() && out.len() <= limit {
            let Some(previous) = self.visit(input, at) else {
                at += 1;
                continue;
            };
            let len = match_len(input, previous, at);
            if len < MIN_MATCH {
                at += 1;
                continue;
            }
            write_literals(&input[literals..at], out);
            write_match(at - previous, len, out);
            // The sequences inside the match are left out but for the last, which is where the next match would continue.
            let next = at + len;
            if next + 1 < input.len() {
                self.visit(input, next - 1);
            }
            at = next;
            literals = next;
        }
        write_literals(&input[literals..], out);
        self.base = self.base.saturating_add(len);
    }

    /// Notes the sequence at `at`; where its like was last seen, if near enough.
    fn visit(&mut self, input: &[u8], at: usize) -> Option<usize> {
        let &[a, b, c] = input.get(at..)?.first_chunk()?;
        let sequence = u32::from_le_bytes([a, b, c, 0]);
        let slot = (sequence.wrapping_mul(0x9e37_79b1) >> (32 - TABLE_BITS)) as usize;
        let seen = std::mem::replace(&mut self.places[slot], self.base + at as u32);
        let place = seen.checked_sub(self.base)? as usize;
        (at - place <= MAX_OFFSET).then_some(place)
    }
}

/// How many bytes at two places are alike, up to what one reference can say.
fn match_len(input: &[u8], previous: usize, at: usize) -> usize {
    input[at..]
        .iter()
        .zip(&input[previous..])
        .take(MAX_MATCH)
        .take_while(|(a, b)| a == b)
        .count()
}

fn write_literals(literals: &[u8], out: &mut Vec<u8>) {
    for run in literals.chunks(MAX_LITERALS) {
        out.push(run.len() as u8 - 1);
        out.extend_from_slice(run);
    }
}

fn write_match(offset: usize, len: usize, out: &mut Vec<u8>) {
    let (offset, len) = (offset - 1, len - 2);
    let high = (offset >> 8) as u8;
    if len < 7 {
        out.push((len as u8) << 5 | high);
    } else {
        out.extend_from_slice(&[7 << 5 | high, (len - 7) as u8]);
    }
    out.push(offset as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(input: &[u8]) -> Option<usize> {
        let mut packed = b"before".to_vec();
        if !compress(input, &mut packed) {
            assert_eq!(packed, b"before");
            return None;
        }
        let packed = &packed[6..];
        assert!(packed.len() + 4 <= input.len());
        let mut unpacked = b"before".to_vec();
        decompress(packed, input.len(), &mut unpacked).unwrap();
        assert_eq!(&unpacked[6..], input);
        Some(packed.len())
    }

    #[test]
    fn repetitive_strings_shrink_and_come_back() {
        assert_eq!(round_trip(&[b'a'; 100]), Some(5));
        assert!(round_trip(&b"abcdefgh".repeat(1000)).unwrap() < 200);
        assert!(round_trip(&[0; 100_000]).unwrap() < 1500);
        assert_eq!(round_trip(b""), None);
        assert_eq!(round_trip(b"aaaa"), None);
        assert_eq!(round_trip(b"abcdefghijklmnopqrstuvwxyz"), None);
    }

    #[test]
    fn streams_of_the_reference_server_decompress() {
        let mut out = Vec::new();
        decompress(b"\x01aa\xe0W\x00\x01aa", 100, &mut out).unwrap();
        assert_eq!(out, [b'a'; 100]);
    }

    #[test]
    fn broken_streams_are_refused() {
        for (input, len) in [
            (&b"\x01a"[..], 2),
            (b"\x00a", 2),
            (b"\x01ab", 1),
            (b"\x20\x00", 3),
            (b"\x00a\x20\x01", 4),
            (b"\x00a\x20", 4),
            (b"\x00a\xe0\x00", 10),
            (b"\x00a\xe0\xff\x00", 100),
            (b"\x00a", usize::MAX),
            (b"", 1),
        ] {
            let mut out = Vec::new();
            assert_eq!(
                decompress(input, len, &mut out),
                Err(Error::Corrupt("compressed string")),
                "{input:?}"
            );
            assert!(out.capacity() <= input.len() * MAX_EXPANSION + 8);
        }
    }

    proptest! {
        #[test]
        fn everything_comes_back(input in proptest::collection::vec(0u8..4, 0..2000)) {
            round_trip(&input);
        }

        #[test]
        fn no_stream_makes_it_panic_or_grow(input: Vec<u8>, len in 0usize..5000) {
            let mut out = Vec::new();
            let result = decompress(&input, len, &mut out);
            prop_assert!(out.len() <= len);
            prop_assert_eq!(result.is_ok(), result.is_ok() && out.len() == len);
        }
    }
}
