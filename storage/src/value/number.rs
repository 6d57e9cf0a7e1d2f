//! Numbers as clients write them and as the servers print them.
//!
//! Replies must agree with Valkey's to the last digit, so three of its habits are reproduced here:
//!
//! * integers are parsed strictly: exactly the text that printing the value would give back;
//! * doubles (sorted-set scores) are printed by the Grisu2 algorithm (Florian Loitsch, "Printing floating-point numbers
//!   quickly and accurately with integers", 2010), which in about one case of a thousand gives a digit more than the shortest text;
//! * the float increments work in [`LongDouble`], the format of 64 mantissa bits that x86 computes in: 0.1 + 0.2 is
//!   0.3 there. See [`long_double`].
//!
//! Everything is O(length of the text); nothing allocates for numbers of ordinary size.

mod grisu;
pub mod long_double;

pub use long_double::LongDouble;

/// The most bytes that an `i64` takes in decimal: a sign and nineteen digits.
pub const MAX_I64_LEN: usize = 20;

/// Parses the canonical decimal text of an `i64`: no space, no plus sign, no leading zero, no `-0`.
///
/// A text that passes is what printing the result gives back, so a string may be stored as the integer.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    if text.len() > MAX_I64_LEN {
        return None;
    }
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    let magnitude = parse_digits(digits)?;
    if negative {
        0i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// Parses the canonical decimal text of a `u64`: digits only, no leading zero.
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    match text {
        [b'0'] => Some(0),
        [b'1'..=b'9', ..] => parse_digits(text),
        _ => None,
    }
}

/// Parses an amount as a memcached client sends it: digits only, leading zeros allowed.
pub fn parse_memcached_delta(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    parse_digits(text)
}

/// Parses a stored value as memcached's `incr` and `decr` read it.
///
/// White space before the number and anything after a white space or NUL behind it are passed over: `decr` leaves
/// values padded with spaces. One sign is allowed, though a negative number is not.
pub fn parse_memcached_value(text: &[u8]) -> Option<u64> {
    let text = &text[text.iter().position(|&byte| !is_c_space(byte))?..];
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let len = text
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(text.len());
    if len == 0
        || text
            .get(len)
            .is_some_and(|&byte| byte != 0 && !is_c_space(byte))
    {
        return None;
    }
    match parse_digits(&text[..len])? {
        number if negative && number != 0 => None,
        number => Some(number),
    }
}

/// Parses a double as commands take it (scores, weights, coordinates).
///
/// Decimal with optional fraction and exponent, or `inf`/`infinity` in any case with an optional sign. Hexadecimal,
/// spaces, NaN, the empty text and numbers out of range (`1e400`, but also `1e-400`) give `None`.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let number = parse_f64_saturating(text)?;
    let says_infinity = || matches!(unsigned(text), [b'i' | b'I', ..]);
    if number.is_infinite() && !says_infinity() {
        return None;
    }
    if number == 0.0 && !is_literally_zero(text) {
        return None;
    }
    Some(number)
}

/// Parses the number of a score range's bound, without its `(`.
///
/// Unlike [`parse_f64`] this takes the empty text for 0, and what is out of range for infinity or zero.
pub fn parse_score_bound(text: &[u8]) -> Option<f64> {
    if text.is_empty() {
        return Some(0.0);
    }
    parse_f64_saturating(text)
}

/// Appends a double as replies show it: `3`, `0.25`, `1e+30`, `inf`, `-0`.
///
/// At most 25 bytes.
pub fn write_f64(number: f64, out: &mut Vec<u8>) {
    // Beyond this magnitude even integers take the general path, which may use an exponent.
    const INTEGER_LIMIT: f64 = (1u64 << 62) as f64;
    if number.is_nan() {
        out.extend_from_slice(b"nan");
    } else if number.is_infinite() {
        out.extend_from_slice(if number < 0.0 { b"-inf" } else { b"inf" });
    } else if number == 0.0 {
        out.extend_from_slice(if number.is_sign_negative() {
            b"-0"
        } else {
            b"0"
        });
    } else if number.abs() < INTEGER_LIMIT && number.trunc() == number {
        write_i64(number as i64, out);
    } else {
        grisu::write(number, out);
    }
}

/// Appends a double with as few digits as tell it apart, large integers too: `1e+17`. As digests of data have it.
pub fn write_f64_shortest(number: f64, out: &mut Vec<u8>) {
    if number.is_finite() && number != 0.0 {
        grisu::write(number, out);
    } else {
        write_f64(number, out);
    }
}

/// Appends an integer in decimal.
pub fn write_i64(number: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The value of a run of decimal digits, leading zeros allowed. `None` past 2^64 - 1 or at any other byte.
fn parse_digits(digits: &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(number)
}

/// A decimal or infinite number, rounded to infinity or zero where it is out of range.
fn parse_f64_saturating(text: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!number.is_nan()).then_some(number)
}

/// Whether a well-formed decimal number has only zeros before its exponent.
fn is_literally_zero(text: &[u8]) -> bool {
    text.iter()
        .take_while(|&&byte| !matches!(byte, b'e' | b'E'))
        .all(|byte| !matches!(byte, b'1'..=b'9'))
}

fn unsigned(text: &[u8]) -> &[u8] {
    match text {
        [b'-' | b'+', rest @ ..] => rest,
        rest => rest,
    }
}

/// What the C locale calls white space.
fn is_c_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(number: f64) -> String {
        let mut out = Vec::new();
        write_f64(number, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn integers_parse_only_from_their_canonical_text() {
        for (text, number) in [
            ("0", 0),
            ("-1", -1),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(parse_i64(text.as_bytes()), Some(number), "{text}");
        }
        for text in [
            "",
            "-",
            "+1",
            "-0",
            "01",
            "-01",
            " 1",
            "1 ",
            "1_0",
            "--1",
            "0x1",
            "1.0",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
            "100000000000000000000",
        ] {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn unsigned_integers_reach_two_to_the_64() {
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b"007"), None);
        assert_eq!(parse_memcached_delta(b"007"), Some(7));
        for text in ["", "+5", "-5", "5a", "18446744073709551616"] {
            assert_eq!(parse_memcached_delta(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn memcached_values_may_be_padded() {
        for (text, number) in [
            ("10", 10),
            ("10 ", 10),
            (" 10", 10),
            ("10 abc", 10),
            ("+10", 10),
            ("-0", 0),
            ("007", 7),
            ("10\r", 10),
            ("10\0", 10),
            ("18446744073709551615", u64::MAX),
            ("0000000000000000000005", 5),
        ] {
            assert_eq!(
                parse_memcached_value(text.as_bytes()),
                Some(number),
                "{text}"
            );
        }
        for text in [
            "10abc",
            "-10",
            "",
            " ",
            "18446744073709551616",
            "0x10",
            "+ 1",
        ] {
            assert_eq!(parse_memcached_value(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn doubles_parse_as_scores() {
        for (text, number) in [
            ("1", 1.0),
            ("+1", 1.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("-.5", -0.5),
            ("1E5", 1e5),
            ("1e+5", 1e5),
            ("00001", 1.0),
            ("0e99999999999", 0.0),
            ("inf", f64::INFINITY),
            ("+Infinity", f64::INFINITY),
            ("-iNf", f64::NEG_INFINITY),
            ("4.9e-324", 5e-324),
        ] {
            assert_eq!(parse_f64(text.as_bytes()), Some(number), "{text}");
        }
        for text in [
            "", " 1", "1 ", "0x10", "nan", "-nan", "1e", ".", "+", "--1", "1.0.0", "1_0", "1\0",
            "infin", "1e400", "-1e400", "1e-400",
        ] {
            assert_eq!(parse_f64(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn score_bounds_saturate() {
        assert_eq!(parse_score_bound(b""), Some(0.0));
        assert_eq!(parse_score_bound(b"1e400"), Some(f64::INFINITY));
        assert_eq!(parse_score_bound(b"-1e5000"), Some(f64::NEG_INFINITY));
        assert_eq!(parse_score_bound(b"1e-400"), Some(0.0));
        assert_eq!(parse_score_bound(b"nan"), None);
        assert_eq!(parse_score_bound(b"-"), None);
    }

    #[test]
    fn doubles_are_shown_as_the_servers_show_them() {
        for (number, text) in [
            (3.0, "3"),
            (-0.0, "-0"),
            (0.0, "0"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (0.1, "0.1"),
            (1e-6, "0.000001"),
            (1.5e-6, "1.5e-6"),
            (1.5000000000000001e-4, "1.5000000000000001e-4"),
            (0.000123456, "1.23456e-4"),
            (0.0015, "0.0015"),
            (-1.2345678901234567e-12, "-1.2345678901234567e-12"),
            (12345.678901234567, "1.2345678901234567e+4"),
            (12345678901.234568, "12345678901.234568"),
            (1234567890123456.8, "1234567890123456.7"),
            (1e18, "1000000000000000000"),
            (123456789012345664.0, "123456789012345664"),
            (1e19, "1e+19"),
            (12345678901234567000.0, "12345678901234567000"),
            (1.0000000000000001e23, "100000000000000010000000"),
            (1.2345678901234566e24, "1.2345678901234566e+24"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            // A digit more than needed: Grisu2's rare miss.
            (2.454440643907477e-95, "2.4544406439074772e-95"),
            (608_944_825_508_566.8, "608944825508566.7"),
        ] {
            assert_eq!(shown(number), text);
        }
    }

    proptest! {
        #[test]
        fn every_integer_survives_its_text(number: i64) {
            let mut text = Vec::new();
            write_i64(number, &mut text);
            prop_assert_eq!(parse_i64(&text), Some(number));
        }

        #[test]
        fn what_parses_as_an_integer_prints_as_it_was(text in "-?[0-9]{1,21}") {
            if let Some(number) = parse_i64(text.as_bytes()) {
                prop_assert_eq!(number.to_string(), text);
            }
        }

        #[test]
        fn every_double_survives_its_text(bits: u64) {
            let number = f64::from_bits(bits);
            prop_assume!(number.is_finite());
            prop_assert_eq!(parse_f64(shown(number).as_bytes()).unwrap().to_bits(), number.to_bits());
            prop_assert!(shown(number).len() <= 25);
        }

        #[test]
        fn no_bytes_make_the_parsers_panic(text: Vec<u8>) {
            parse_i64(&text);
            parse_u64(&text);
            parse_f64(&text);
            parse_score_bound(&text);
            parse_memcached_value(&text);
            parse_memcached_delta(&text);
        }
    }
}
