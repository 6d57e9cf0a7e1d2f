//! Writing RDB primitives to a sink; what [`reader`](super::reader) reads.

use std::io;

use super::{crc64::Crc64, lzf};
use crate::value::{element::Element, number};

/// Bytes handed to the sink at a time, about.
const BUFFER_LEN: usize = 64 * 1024;

/// Strings up to this long may be integers; longer ones than the second are worth compressing.
const MAX_INTEGER_LEN: usize = 11;
const MIN_COMPRESSED_LEN: usize = 21;

/// Collects output and passes it on in large pieces, with a checksum.
pub struct Writer<W> {
    sink: W,
    buffer: Vec<u8>,
    /// `None`: nobody asks for it.
    checksum: Option<Crc64>,
    compress: bool,
    /// Bytes passed on.
    passed: u64,
}

impl<W: io::Write> Writer<W> {
    /// `compress`: whether strings are compressed where that makes them shorter.
    pub fn new(sink: W, compress: bool) -> Self {
        Self {
            sink,
            buffer: Vec::new(),
            checksum: Some(Crc64::new()),
            compress,
            passed: 0,
        }
    }

    /// Passes on what was collected, and flushes the sink.
    ///
    /// # Errors
    /// The sink's.
    pub fn flush(&mut self) -> io::Result<()> {
        self.pass_on()?;
        self.sink.flush()
    }

    /// Passes on what was collected, and gives back the sink.
    ///
    /// # Errors
    /// The sink's.
    pub fn into_sink(mut self) -> io::Result<W> {
        self.flush()?;
        Ok(self.sink)
    }

    /// Bytes written so far.
    pub fn position(&self) -> u64 {
        self.passed + self.buffer.len() as u64
    }

    pub fn sink(&mut self) -> &mut W {
        &mut self.sink
    }

    /// Lets nobody ask for the checksum.
    pub fn stop_summing(&mut self) {
        self.checksum = None;
    }

    /// The checksum of everything written so far; 0 if nothing is summed.
    pub fn checksum(&self) -> u64 {
        let Some(mut checksum) = self.checksum else {
            return 0;
        };
        checksum.update(&self.buffer);
        checksum.value()
    }

    /// Writes many bytes, which are not collected first.
    ///
    /// # Errors
    /// The sink's.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pass_on()?;
        self.put(bytes)
    }

    /// # Errors
    /// The sink's.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.pass_on_if_full()
    }

    /// # Errors
    /// The sink's.
    pub fn length(&mut self, len: u64) -> io::Result<()> {
        write_length(len, &mut self.buffer);
        self.pass_on_if_full()
    }

    /// A string in its shortest form.
    ///
    /// # Errors
    /// The sink's.
    pub fn string(&mut self, text: &[u8]) -> io::Result<()> {
        if text.len() <= MAX_INTEGER_LEN
            && let Some(number) = number::parse_i64(text)
        {
            return self.integer(number);
        }
        if self.compress && text.len() >= MIN_COMPRESSED_LEN {
            let mut packed = Vec::new();
            if lzf::compress(text, &mut packed) {
                self.buffer.push(0xc3);
                write_length(packed.len() as u64, &mut self.buffer);
                write_length(text.len() as u64, &mut self.buffer);
                return self.bytes(&packed);
            }
        }
        self.length(text.len() as u64)?;
        self.bytes(text)
    }

    /// A string that is an integer.
    ///
    /// # Errors
    /// The sink's.
    pub fn integer(&mut self, number: i64) -> io::Result<()> {
        if let Ok(number) = i8::try_from(number) {
            self.buffer.push(0xc0);
            self.buffer.extend_from_slice(&number.to_le_bytes());
        } else if let Ok(number) = i16::try_from(number) {
            self.buffer.push(0xc1);
            self.buffer.extend_from_slice(&number.to_le_bytes());
        } else if let Ok(number) = i32::try_from(number) {
            self.buffer.push(0xc2);
            self.buffer.extend_from_slice(&number.to_le_bytes());
        } else {
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(number).as_bytes();
            write_length(digits.len() as u64, &mut self.buffer);
            self.buffer.extend_from_slice(digits);
        }
        self.pass_on_if_full()
    }

    /// # Errors
    /// The sink's.
    pub fn element(&mut self, element: Element<'_>) -> io::Result<()> {
        match element {
            Element::Integer(number) => self.integer(number),
            Element::Text(text) => self.string(text),
        }
    }

    fn pass_on_if_full(&mut self) -> io::Result<()> {
        if self.buffer.len() < BUFFER_LEN {
            Ok(())
        } else {
            self.pass_on()
        }
    }

    fn pass_on(&mut self) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let outcome = self.put(&buffer);
        buffer.clear();
        // A huge string may have made it huge.
        buffer.shrink_to(2 * BUFFER_LEN);
        self.buffer = buffer;
        outcome
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(checksum) = &mut self.checksum {
            checksum.update(bytes);
        }
        self.sink.write_all(bytes)?;
        self.passed += bytes.len() as u64;
        Ok(())
    }
}

fn write_length(len: u64, out: &mut Vec<u8>) {
    match len {
        0..64 => out.push(len as u8),
        64..16_384 => out.extend_from_slice(&(1 << 14 | len as u16).to_be_bytes()),
        _ => match u32::try_from(len) {
            Ok(len) => {
                out.push(0x80);
                out.extend_from_slice(&len.to_be_bytes());
            }
            Err(_) => {
                out.push(0x81);
                out.extend_from_slice(&len.to_be_bytes());
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rdb::reader::Reader;

    fn written(text: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), true);
        writer.string(text).unwrap();
        writer.into_sink().unwrap()
    }

    #[test]
    fn strings_take_the_forms_that_the_reference_server_writes() {
        for (text, bytes) in [
            (&b"hello"[..], &b"\x05hello"[..]),
            (b"-5", b"\xc0\xfb"),
            (b"12345", b"\xc190"),
            (b"123456789", b"\xc2\x15\xcd[\x07"),
            (b"12345678901234", b"\x0e12345678901234"),
            (b"007", b"\x03007"),
            (
                b"abcdefghijklmnopqrstuvwxyz",
                b"\x1aabcdefghijklmnopqrstuvwxyz",
            ),
        ] {
            assert_eq!(written(text), bytes);
        }
        assert_eq!(written(&[b'a'; 100])[..2], *b"\xc3\x05");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(texts: Vec<Vec<u8>>, numbers: Vec<i64>, lengths: Vec<u64>, long in 0usize..100_000, compress: bool) {
            let mut writer = Writer::new(Vec::new(), compress);
            let long = vec![b'x'; long];
            for text in texts.iter().chain([&long]) {
                writer.string(text).unwrap();
            }
            for &number in &numbers {
                writer.integer(number).unwrap();
            }
            for &len in &lengths {
                writer.length(len).unwrap();
            }
            let checksum = writer.checksum();
            let bytes = writer.into_sink().unwrap();
            let mut reader = Reader::from_slice(&bytes);
            for text in texts.iter().chain([&long]) {
                prop_assert_eq!(&reader.owned_string().unwrap(), text);
            }
            for number in numbers {
                prop_assert_eq!(reader.owned_string().unwrap(), number.to_string().into_bytes());
            }
            for len in lengths {
                prop_assert_eq!(reader.length().unwrap(), len);
            }
            prop_assert!(reader.is_at_end().unwrap());
            prop_assert_eq!(reader.checksum(), checksum);
        }
    }
}
