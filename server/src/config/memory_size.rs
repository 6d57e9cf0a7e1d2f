//! Sizes in bytes as the configuration writes them: `1k` is 1000 bytes, `1kb` is 1024, and so on up to `gb`.
//!
//! Letters of either case are units; no unit means bytes. A unit without digits is zero bytes, as the original
//! servers have it, so that `""` turns a limit off.

const UNITS: &[(&[u8], u64)] = &[
    (b"", 1),
    (b"b", 1),
    (b"k", 1000),
    (b"kb", 1 << 10),
    (b"m", 1_000_000),
    (b"mb", 1 << 20),
    (b"g", 1_000_000_000),
    (b"gb", 1 << 30),
];

/// A limit that is either a number of bytes or a share of another limit (or of the machine's memory).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    Bytes(u64),
    /// 1 to 100.
    Percent(u8),
}

impl MemoryLimit {
    /// The limit in bytes, `whole` being what a percentage is a share of.
    pub fn bytes_of(self, whole: u64) -> u64 {
        match self {
            MemoryLimit::Bytes(bytes) => bytes,
            MemoryLimit::Percent(percent) => {
                let share = u128::from(whole) * u128::from(percent) / 100;
                u64::try_from(share).unwrap_or(u64::MAX)
            }
        }
    }
}

/// Reads a size in bytes. `None` if it is not one, or does not fit 64 bits.
pub fn parse(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, unit) = text.split_at(digits);
    let mut value: u64 = 0;
    for digit in number {
        value = value
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))?;
    }
    let (_, factor) = UNITS
        .iter()
        .find(|(name, _)| unit.eq_ignore_ascii_case(name))?;
    value.checked_mul(*factor)
}

/// Writes a size with the largest binary unit that divides it: `64mb`, `1500`.
pub fn format(bytes: u64) -> String {
    let whole = |unit: u64| bytes != 0 && bytes.is_multiple_of(unit);
    if whole(1 << 30) {
        format!("{}gb", bytes >> 30)
    } else if whole(1 << 20) {
        format!("{}mb", bytes >> 20)
    } else if whole(1 << 10) {
        format!("{}kb", bytes >> 10)
    } else {
        bytes.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_the_original_reads_them() {
        let cases: &[(&str, Option<u64>)] = &[
            ("1KB", Some(1024)),
            ("1k", Some(1000)),
            ("1K", Some(1000)),
            ("1b", Some(1)),
            ("0100", Some(100)),
            ("1m", Some(1_000_000)),
            ("1MB", Some(1_048_576)),
            ("1g", Some(1_000_000_000)),
            ("1gb", Some(1_073_741_824)),
            ("007mb", Some(7_340_032)),
            ("kb", Some(0)),
            ("", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999gb", None),
            ("1 kb", None),
            ("1.5gb", None),
            ("1gib", None),
            ("1t", None),
            ("-1", None),
            ("+5", None),
            (" 5", None),
            ("5\t", None),
            ("0x10", None),
            ("10%", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text.as_bytes()), *expected, "{text}");
        }
    }

    #[test]
    fn sizes_are_written_with_the_largest_exact_unit() {
        for (bytes, text) in [
            (0, "0"),
            (5000, "5000"),
            (1024, "1kb"),
            (104_857_600, "100mb"),
            (3 << 30, "3gb"),
        ] {
            assert_eq!(format(bytes), text);
            assert_eq!(parse(text.as_bytes()), Some(bytes));
        }
    }

    #[test]
    fn percentages_are_shares_of_the_whole() {
        assert_eq!(MemoryLimit::Percent(10).bytes_of(1000), 100);
        assert_eq!(MemoryLimit::Percent(100).bytes_of(u64::MAX), u64::MAX);
        assert_eq!(MemoryLimit::Bytes(7).bytes_of(1000), 7);
    }
}
