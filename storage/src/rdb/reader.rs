//! Reading RDB primitives from a stream or a slice: bytes, lengths, strings.
//!
//! ```text
//! 00llllll                        length l
//! 01llllll llllllll               length l, big-endian
//! 10000000 + 4 bytes              length, big-endian
//! 10000001 + 8 bytes              length, big-endian
//! 11000000 + 1, 11000001 + 2, 11000010 + 4 bytes    a string that is an integer, little-endian
//! 11000011                        a compressed string: compressed length, length, LZF stream
//! ```
//!
//! Announced lengths are promises of a stranger: memory grows only as the bytes arrive.

use std::io::{self, Cursor, Read};

use super::{Error, crc64::Crc64, lzf};

/// Bytes read from the input at a time.
const BUFFER_LEN: usize = 64 * 1024;

/// The most memory that is taken on an announcement alone.
const TRUSTED_LEN: usize = 64 * 1024;

/// See the module's description.
///
/// It can keep what is consumed on a tape, and go back to where it was before.
pub struct Reader<R> {
    input: R,
    /// What was consumed and given back, to be read before the input.
    ahead: Cursor<Vec<u8>>,
    tape: Option<Tape>,
    buffer: Vec<u8>,
    /// What is read but not yet consumed: `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Up to where in the buffer the checksum goes.
    summed: usize,
    /// Bytes from there on that the checksum has already, for they were given back.
    presummed: usize,
    /// `None`: nobody asks for it.
    checksum: Option<Crc64>,
    /// Bytes consumed before `buffer[0]`.
    consumed: u64,
}

/// What was consumed since the tape began.
struct Tape {
    bytes: Vec<u8>,
    /// Up to where in the reader's buffer it goes.
    end: usize,
    /// Reading on is refused beyond so many bytes.
    limit: usize,
}

/// A length, or how a string without one is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Plain(u64),
    Integer { bytes: usize },
    Compressed,
}

impl<'a> Reader<&'a [u8]> {
    pub fn from_slice(bytes: &'a [u8]) -> Self {
        Self::with_buffer(bytes, bytes.len().min(BUFFER_LEN))
    }

    /// For bytes whose checksum is somebody else's concern.
    pub fn unsummed(bytes: &'a [u8]) -> Self {
        let mut reader = Self::from_slice(bytes);
        reader.checksum = None;
        reader
    }
}

impl<R: Read> Reader<R> {
    pub fn new(input: R) -> Self {
        Self::with_buffer(input, BUFFER_LEN)
    }

    fn with_buffer(input: R, len: usize) -> Self {
        Self {
            input,
            ahead: Cursor::default(),
            tape: None,
            buffer: vec![0; len],
            start: 0,
            end: 0,
            summed: 0,
            presummed: 0,
            checksum: Some(Crc64::new()),
            consumed: 0,
        }
    }

    /// Lets nobody ask for the checksum.
    pub fn stop_summing(&mut self) {
        self.checksum = None;
    }

    /// Bytes consumed so far.
    pub fn position(&self) -> u64 {
        self.consumed + self.start as u64
    }

    /// The checksum of everything consumed so far; 0 if nothing is summed.
    pub fn checksum(&mut self) -> u64 {
        let Some(checksum) = &mut self.checksum else {
            return 0;
        };
        let known = self.presummed.min(self.start - self.summed);
        self.presummed -= known;
        checksum.update(&self.buffer[self.summed + known..self.start]);
        self.summed = self.start;
        checksum.value()
    }

    /// Keeps what is consumed from here on, up to about `limit` bytes: then reading fails with [`Error::Overlong`].
    pub fn begin_tape(&mut self, limit: usize) {
        self.tape = Some(Tape {
            bytes: Vec::new(),
            end: self.start,
            limit,
        });
    }

    /// Bytes on the tape.
    pub fn tape_len(&self) -> usize {
        let tape = self.tape.as_ref();
        tape.map_or(0, |tape| tape.bytes.len() + self.start - tape.end)
    }

    /// Ends the tape and returns to where it had `len` bytes, all of which it gives away.
    pub fn end_tape(&mut self, len: usize) -> Vec<u8> {
        self.checksum();
        let Some(mut tape) = self.tape.take() else {
            return Vec::new();
        };
        tape.bytes
            .extend_from_slice(&self.buffer[tape.end..self.start]);
        let mut back = tape.bytes.split_off(len.min(tape.bytes.len()));
        if back.len() <= self.start {
            // It is all in the buffer still.
            self.start -= back.len();
            if self.checksum.is_some() {
                self.summed = self.start;
                self.presummed += back.len();
            }
            return tape.bytes;
        }
        self.consumed = self.position() - back.len() as u64;
        if self.checksum.is_some() {
            self.presummed += back.len();
        }
        back.extend_from_slice(&self.buffer[self.start..self.end]);
        let at = self.ahead.position() as usize;
        back.extend_from_slice(&self.ahead.get_ref()[at..]);
        self.ahead = Cursor::new(back);
        (self.start, self.end, self.summed) = (0, 0, 0);
        tape.bytes
    }

    /// Whether everything was consumed.
    ///
    /// # Errors
    /// If reading fails.
    pub fn is_at_end(&mut self) -> Result<bool, Error> {
        Ok(self.start == self.end && self.refill()? == 0)
    }

    /// The input and what was read from it ahead of need.
    pub fn into_parts(self) -> (R, Vec<u8>) {
        let given_back = &self.ahead.get_ref()[self.ahead.position() as usize..];
        let ahead = [&self.buffer[self.start..self.end], given_back].concat();
        (self.input, ahead)
    }

    /// # Errors
    /// If the input ends.
    pub fn byte(&mut self) -> Result<u8, Error> {
        if self.start == self.end && self.refill()? == 0 {
            return Err(Error::Truncated);
        }
        let byte = self.buffer[self.start];
        self.start += 1;
        Ok(byte)
    }

    /// # Errors
    /// If the input ends.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        if let Some(ready) = self.buffer[self.start..self.end].first_chunk::<N>() {
            bytes = *ready;
            self.start += N;
            return Ok(bytes);
        }
        for byte in &mut bytes {
            *byte = self.byte()?;
        }
        Ok(bytes)
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// If the input ends.
    pub fn u64_le(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A time in milliseconds: eight bytes, little-endian.
    ///
    /// # Errors
    /// If the input ends.
    pub fn i64_le(&mut self) -> Result<i64, Error> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// Appends so many bytes to `out`.
    ///
    /// # Errors
    /// If the input ends before.
    pub fn append(&mut self, len: u64, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut missing = usize::try_from(len).map_err(|_| Error::Corrupt("length"))?;
        out.reserve_exact(missing.min(TRUSTED_LEN));
        while missing > 0 {
            if self.start == self.end && self.refill()? == 0 {
                return Err(Error::Truncated);
            }
            let step = missing.min(self.end - self.start);
            out.extend_from_slice(&self.buffer[self.start..self.start + step]);
            self.start += step;
            missing -= step;
        }
        Ok(())
    }

    /// Passes over so many bytes.
    ///
    /// # Errors
    /// If the input ends before.
    pub fn skip(&mut self, mut len: u64) -> Result<(), Error> {
        while len > 0 {
            if self.start == self.end && self.refill()? == 0 {
                return Err(Error::Truncated);
            }
            let step = usize::try_from(len)
                .map_or(self.end - self.start, |len| len.min(self.end - self.start));
            self.start += step;
            len -= step as u64;
        }
        Ok(())
    }

    /// Passes over a string of any form.
    ///
    /// # Errors
    /// If the input ends, or no string begins here.
    pub fn skip_string(&mut self) -> Result<(), Error> {
        match self.any_length()? {
            Length::Plain(len) => self.skip(len),
            Length::Integer { bytes } => self.skip(bytes as u64),
            Length::Compressed => {
                let packed_len = self.length()?;
                self.length()?;
                self.skip(packed_len)
            }
        }
    }

    /// A length or count.
    ///
    /// # Errors
    /// If the input ends, or there is something else.
    pub fn length(&mut self) -> Result<u64, Error> {
        match self.any_length()? {
            Length::Plain(len) => Ok(len),
            _ => Err(Error::Corrupt("length")),
        }
    }

    /// Replaces what is in `out` by a string, which may have been compressed or an integer.
    ///
    /// # Errors
    /// If the input ends, or the string is not sound.
    pub fn string(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        out.clear();
        match self.any_length()? {
            Length::Plain(len) => self.append(len, out),
            Length::Integer { bytes } => {
                let number = self.integer(bytes)?;
                out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
                Ok(())
            }
            Length::Compressed => {
                let packed_len = self.length()?;
                let len = usize::try_from(self.length()?).map_err(|_| Error::Corrupt("length"))?;
                let ready = self.end - self.start;
                if let Some(packed_len) = usize::try_from(packed_len)
                    .ok()
                    .filter(|&packed_len| packed_len <= ready)
                {
                    let from = self.start;
                    self.start += packed_len;
                    return lzf::decompress(&self.buffer[from..self.start], len, out);
                }
                let mut packed = Vec::new();
                self.append(packed_len, &mut packed)?;
                lzf::decompress(&packed, len, out)
            }
        }
    }

    /// A string of its own.
    ///
    /// # Errors
    /// As for [`Reader::string`].
    pub fn owned_string(&mut self) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        self.string(&mut out)?;
        Ok(out)
    }

    /// A double in eight bytes.
    ///
    /// # Errors
    /// If the input ends.
    pub fn double(&mut self) -> Result<f64, Error> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// A double as text behind a length byte, as old versions have it.
    ///
    /// # Errors
    /// If the input ends, or the text is no number.
    pub fn text_double(&mut self) -> Result<f64, Error> {
        let len = match self.byte()? {
            253 => return Ok(f64::NAN),
            254 => return Ok(f64::INFINITY),
            255 => return Ok(f64::NEG_INFINITY),
            len => len,
        };
        let mut text = Vec::new();
        self.append(u64::from(len), &mut text)?;
        let number = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.trim_ascii_start().parse().ok());
        number.ok_or(Error::Corrupt("score"))
    }

    fn any_length(&mut self) -> Result<Length, Error> {
        let first = self.byte()?;
        let low = first & 63;
        Ok(match (first >> 6, low) {
            (0, _) => Length::Plain(u64::from(low)),
            (1, _) => Length::Plain(u64::from(low) << 8 | u64::from(self.byte()?)),
            (2, 0) => Length::Plain(u64::from(u32::from_be_bytes(self.array()?))),
            (2, 1) => Length::Plain(u64::from_be_bytes(self.array()?)),
            (3, 0..=2) => Length::Integer { bytes: 1 << low },
            (3, 3) => Length::Compressed,
            _ => return Err(Error::Corrupt("length")),
        })
    }

    fn integer(&mut self, bytes: usize) -> Result<i32, Error> {
        Ok(match bytes {
            1 => i32::from(i8::from_le_bytes(self.array()?)),
            2 => i32::from(i16::from_le_bytes(self.array()?)),
            _ => i32::from_le_bytes(self.array()?),
        })
    }

    /// Reads more, once everything is consumed; 0 at the end.
    fn refill(&mut self) -> Result<usize, Error> {
        debug_assert_eq!(self.start, self.end);
        self.checksum();
        let mut is_full = false;
        if let Some(tape) = &mut self.tape {
            tape.bytes
                .extend_from_slice(&self.buffer[tape.end..self.start]);
            tape.end = 0;
            is_full = tape.bytes.len() > tape.limit;
        }
        self.consumed += self.start as u64;
        (self.start, self.end, self.summed) = (0, 0, 0);
        if is_full {
            return Err(Error::Overlong);
        }
        // Reading from memory does not fail.
        if let Ok(len @ 1..) = self.ahead.read(&mut self.buffer) {
            self.end = len;
            return Ok(len);
        }
        loop {
            match self.input.read(&mut self.buffer) {
                Ok(len) => {
                    self.end = len;
                    return Ok(len);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Io(error.kind())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<String, Error> {
        Reader::from_slice(bytes)
            .owned_string()
            .map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn strings_of_every_form_are_read() {
        for (bytes, text) in [
            (&b"\x05hello"[..], "hello"),
            (b"\x00", ""),
            (b"\x40\x05hello", "hello"),
            (b"\x80\0\0\0\x05hello", "hello"),
            (b"\x81\0\0\0\0\0\0\0\x05hello", "hello"),
            (b"\xc0\xfb", "-5"),
            (b"\xc190", "12345"),
            (b"\xc2\x15\xcd[\x07", "123456789"),
            (
                b"\xc3\x09\x14\x01aa\xe0\x07\x00\x01aa",
                "aaaaaaaaaaaaaaaaaaaa",
            ),
        ] {
            assert_eq!(read(bytes).as_deref(), Ok(text), "{bytes:?}");
        }
    }

    #[test]
    fn cut_off_and_absurd_strings_are_refused() {
        for (bytes, error) in [
            (&b""[..], Error::Truncated),
            (b"\x05hell", Error::Truncated),
            (b"\xc1\x00", Error::Truncated),
            (b"\x80\xff\xff\xff\xffabc", Error::Truncated),
            (b"\x81\x7f\xff\xff\xff\xff\xff\xff\xffabc", Error::Truncated),
            (b"\xc4", Error::Corrupt("length")),
            (b"\x82", Error::Corrupt("length")),
            (
                b"\xc3\x01\x81\xff\xff\xff\xff\xff\xff\xff\xffa",
                Error::Corrupt("compressed string"),
            ),
            (b"\xc3\xc0\x01", Error::Corrupt("length")),
        ] {
            assert_eq!(read(bytes), Err(error), "{bytes:?}");
        }
    }

    /// Hands out one byte at a time.
    struct Dribble<'a>(&'a [u8]);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = buffer.len().min(self.0.len()).min(1);
            self.0.read(&mut buffer[..len])
        }
    }

    #[test]
    fn what_was_taped_is_read_again() {
        let bytes: Vec<u8> = (0..=255).cycle().take(3000).collect();
        for (from, len, keep) in [(0, 3000, 0), (10, 1000, 7), (100, 5, 5), (2990, 10, 9)] {
            let mut whole = Reader::from_slice(&bytes);
            whole.skip(bytes.len() as u64).unwrap();
            for buffer in [1, 64, 5000] {
                let mut reader = Reader::with_buffer(&bytes[..], buffer);
                reader.skip(from as u64).unwrap();
                reader.begin_tape(usize::MAX);
                reader.skip(len as u64).unwrap();
                assert_eq!(reader.tape_len(), len);
                assert_eq!(reader.end_tape(keep), bytes[from..from + keep]);
                assert_eq!(reader.position(), (from + keep) as u64);
                let mut rest = Vec::new();
                let missing = bytes.len() - from - keep;
                reader.append(missing as u64, &mut rest).unwrap();
                assert_eq!(rest, bytes[from + keep..]);
                assert_eq!(reader.checksum(), whole.checksum());
            }
        }
    }

    #[test]
    fn a_tape_has_an_end() {
        let bytes = [7; 1000];
        let mut reader = Reader::with_buffer(&bytes[..], 10);
        reader.begin_tape(100);
        assert_eq!(reader.skip(1000), Err(Error::Overlong));
        reader.end_tape(0);
        assert_eq!(reader.skip(1000), Ok(()));
        assert_eq!(reader.checksum(), crate::rdb::crc64::crc64(&bytes));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_arrive(bytes: Vec<u8>) {
            let mut whole = Reader::from_slice(&bytes);
            let mut pieces = Reader::new(Dribble(&bytes));
            loop {
                let (one, other) = (whole.owned_string(), pieces.owned_string());
                prop_assert_eq!(&one, &other);
                prop_assert_eq!(whole.position(), pieces.position());
                prop_assert_eq!(whole.checksum(), pieces.checksum());
                if one.is_err() {
                    break;
                }
            }
        }
    }
}
