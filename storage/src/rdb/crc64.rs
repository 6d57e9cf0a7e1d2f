//! The checksum of RDB files and DUMP payloads: CRC-64 with the Jones polynomial, bits reflected, starting from zero.
//!
//! Eight bytes per step through eight tables ("slicing by 8"): about 2 GB/s.

/// The polynomial 0xad93d23594c935a9 with its bits in reverse order.
const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;

/// `TABLES[n][byte]` is what `byte` contributes with `n` zero bytes after it.
static TABLES: [[u64; 256]; 8] = tables();

/// A checksum in progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crc64(u64);

impl Crc64 {
    pub fn new() -> Self {
        Self(0)
    }

    pub fn update(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut sum = self.0;
        for &word in words {
            let mixed = (sum ^ u64::from_le_bytes(word)).to_le_bytes();
            sum = mixed
                .iter()
                .zip(TABLES.iter().rev())
                .fold(0, |sum, (&byte, table)| sum ^ table[usize::from(byte)]);
        }
        for &byte in rest {
            sum = step(sum, byte);
        }
        self.0 = sum;
    }

    pub fn value(self) -> u64 {
        self.0
    }
}

/// What a checksum becomes when `bits` change in bytes of which the last is followed by `len` others: the checksum is
/// linear, so that the difference is the change's own checksum, moved along.
pub fn patched(checksum: u64, bits: &[u8], len: u64) -> u64 {
    checksum ^ multiply(crc64(bits), power_of_256(len))
}

/// `x` to the power of 8 `exponent`, modulo the polynomial, by squaring. The highest bit is that of `x` to the 0.
fn power_of_256(exponent: u64) -> u64 {
    let mut result = 1 << 63;
    let mut square = 1 << (63 - 8);
    let mut rest = exponent;
    while rest > 0 {
        if rest & 1 == 1 {
            result = multiply(result, square);
        }
        square = multiply(square, square);
        rest >>= 1;
    }
    result
}

/// The product modulo the polynomial.
fn multiply(one: u64, other: u64) -> u64 {
    let mut product = 0;
    let mut shifted = other;
    for bit in (0..64).rev() {
        if one >> bit & 1 == 1 {
            product ^= shifted;
        }
        shifted = if shifted & 1 == 1 {
            shifted >> 1 ^ POLYNOMIAL
        } else {
            shifted >> 1
        };
    }
    product
}

/// The checksum of these bytes.
pub fn crc64(bytes: &[u8]) -> u64 {
    let mut sum = Crc64::new();
    sum.update(bytes);
    sum.value()
}

fn step(sum: u64, byte: u8) -> u64 {
    TABLES[0][(sum as u8 ^ byte) as usize] ^ sum >> 8
}

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 {
                sum >> 1 ^ POLYNOMIAL
            } else {
                sum >> 1
            };
            bit += 1;
        }
        tables[0][byte] = sum;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut byte = 0;
        while byte < 256 {
            let sum = tables[zeros - 1][byte];
            tables[zeros][byte] = tables[0][(sum & 255) as usize] ^ sum >> 8;
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_published_check_value_comes_out() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(crc64(b""), 0);
    }

    proptest! {
        #[test]
        fn a_patched_checksum_is_that_of_the_patched_bytes(before: [u8; 9], after: [u8; 9], rest: Vec<u8>) {
            let bits: Vec<u8> = before.iter().zip(&after).map(|(one, other)| one ^ other).collect();
            let old = crc64(&[&before[..], &rest].concat());
            let new = crc64(&[&after[..], &rest].concat());
            prop_assert_eq!(patched(old, &bits, rest.len() as u64), new);
        }

        #[test]
        fn eight_bytes_at_a_time_equals_one_at_a_time(bytes: Vec<u8>, cut: usize) {
            let slow = bytes.iter().fold(0, |sum, &byte| step(sum, byte));
            prop_assert_eq!(crc64(&bytes), slow);
            let (head, tail) = bytes.split_at(cut % (bytes.len() + 1));
            let mut parts = Crc64::new();
            parts.update(head);
            parts.update(tail);
            prop_assert_eq!(parts.value(), slow);
        }
    }
}
