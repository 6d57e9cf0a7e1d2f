//! The 80-bit floating-point format of x86 in software: 64 mantissa bits, exponents to ±16,383.
//!
//! INCRBYFLOAT and HINCRBYFLOAT compute in it and print 17 decimals with trailing zeros cut, so that sums of short
//! decimals come out as people expect. Every operation here rounds exactly once, to nearest with ties to even, as the hardware and the C
//! library do. Numbers of up to 19 digits and ordinary exponents take 128-bit integers only; the others go through a small big integer,
//! O(digits * exponent) but bounded by [`MAX_TEXT_LEN`].

/// The longest text that is read as a number, one less than a buffer of 5 KiB.
pub const MAX_TEXT_LEN: usize = 5 * 1024 - 1;

/// Decimals printed at most.
const DECIMALS: u32 = 17;

/// The exponents of a 64-bit integer mantissa: the smallest subnormal is 2^-16445, the largest number just below 2^16384.
const MIN_EXPONENT: i64 = -16445;
const MAX_EXPONENT: i64 = 16384 - 64;

/// The largest power of five, and its exponent, that a product of 19 digits may still be multiplied with in 128 bits.
const FAST_POWERS: u32 = 27;

/// A number as x87 registers hold it; NaN does not occur.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LongDouble {
    /// `mantissa` times 2 to the `exponent`; the mantissa has its top bit set unless the number is zero or subnormal.
    Finite {
        negative: bool,
        mantissa: u64,
        exponent: i32,
    },
    Infinite {
        negative: bool,
    },
}

impl LongDouble {
    pub const ZERO: Self = Self::Finite {
        negative: false,
        mantissa: 0,
        exponent: 0,
    };

    /// Parses a number: decimal or hexadecimal (`0x1.8p3`) with optional sign, or `inf`/`infinity` in any case.
    ///
    /// `None` for anything else, among it spaces, NaN, the empty text, texts longer than [`MAX_TEXT_LEN`] and numbers that
    /// overflow or round to zero.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > MAX_TEXT_LEN {
            return None;
        }
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity") {
            return Some(Self::Infinite { negative });
        }
        match text {
            [b'0', b'x' | b'X', rest @ ..] => parse_hexadecimal(negative, rest),
            _ => parse_decimal(negative, text),
        }
    }

    /// The sum, or `None` if it is infinite or no number.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let (
            Self::Finite {
                negative,
                mantissa,
                exponent,
            },
            Self::Finite {
                negative: other_negative,
                mantissa: other_mantissa,
                exponent: other_exponent,
            },
        ) = (self, other)
        else {
            return None;
        };
        if mantissa == 0 && other_mantissa == 0 {
            return Some(Self::Finite {
                negative: negative && other_negative,
                mantissa: 0,
                exponent: 0,
            });
        }
        if mantissa == 0 {
            return Some(other);
        }
        if other_mantissa == 0 {
            return Some(self);
        }
        let large = (negative, mantissa, exponent);
        let small = (other_negative, other_mantissa, other_exponent);
        let (large, small) = if exponent >= other_exponent {
            (large, small)
        } else {
            (small, large)
        };
        Self::add_aligned(large, small)
    }

    /// Adds two numbers of which the first has the larger exponent.
    fn add_aligned(large: (bool, u64, i32), small: (bool, u64, i32)) -> Option<Self> {
        // 62 bits below the larger mantissa leave room for the carry, and for telling more than half from less
        // where the smaller number lies wholly below: there only that it is not zero matters.
        const GUARD_BITS: u32 = 62;
        let distance = (large.2 - small.2).unsigned_abs();
        let wide_large = u128::from(large.1) << GUARD_BITS;
        let wide_small = u128::from(small.1) << GUARD_BITS;
        let (aligned, lost) = if distance < 127 {
            (
                wide_small >> distance,
                wide_small & ((1 << distance) - 1) != 0,
            )
        } else {
            (0, true)
        };
        let exponent = i64::from(large.2) - i64::from(GUARD_BITS);
        let (negative, sum, lost) = if large.0 == small.0 {
            (large.0, wide_large + aligned, lost)
        } else if wide_large >= aligned {
            // What was lost is subtracted as well: one unit less, and a rest again.
            let difference = wide_large - aligned;
            (
                large.0,
                if lost { difference - 1 } else { difference },
                lost,
            )
        } else {
            (small.0, aligned - wide_large, lost)
        };
        if sum == 0 && !lost {
            return Some(Self::ZERO);
        }
        match Self::rounded(negative, sum, exponent, lost) {
            Self::Infinite { .. } => None,
            finite => Some(finite),
        }
    }

    /// The number times `factor`, rounded up to an integer; `None` if that is no `i64`. 1000 makes milliseconds of seconds.
    pub fn ceil_scaled(self, factor: u32) -> Option<i64> {
        let Self::Finite {
            negative,
            mantissa,
            exponent,
        } = self
        else {
            return None;
        };
        // The product is rounded to 64 bits first: 0.1 is stored as slightly more, yet 1000 times it is 100.
        let product = u128::from(mantissa) * u128::from(factor);
        let Self::Finite {
            mantissa, exponent, ..
        } = Self::rounded(negative, product, i64::from(exponent), false)
        else {
            return None;
        };
        let magnitude = match exponent {
            _ if mantissa == 0 => 0,
            // A mantissa that is not zero has its top bit set here: 2^63 or more.
            1.. => return None,
            -63..=0 => {
                let whole = i128::from(mantissa >> -exponent);
                let rest = mantissa & ((1 << -exponent) - 1) != 0;
                whole + i128::from(rest && !negative)
            }
            _ => i128::from(!negative),
        };
        i64::try_from(if negative { -magnitude } else { magnitude }).ok()
    }

    /// Whether the number is below zero (minus zero is not).
    pub fn is_negative(self) -> bool {
        match self {
            Self::Finite {
                negative, mantissa, ..
            } => negative && mantissa != 0,
            Self::Infinite { negative } => negative,
        }
    }

    pub fn is_finite(self) -> bool {
        matches!(self, Self::Finite { .. })
    }

    /// Appends the number with up to 17 decimals, no exponent, no trailing zeros: `3`, `0.25`, `inf`. Minus zero is `0`.
    ///
    /// At most 4,953 bytes.
    pub fn write(self, out: &mut Vec<u8>) {
        let (negative, mantissa, exponent) = match self {
            Self::Infinite { negative } => {
                out.extend_from_slice(if negative { b"-inf" } else { b"inf" });
                return;
            }
            Self::Finite {
                negative,
                mantissa,
                exponent,
            } => (negative, mantissa, exponent),
        };
        let start = out.len();
        if negative {
            out.push(b'-');
        }
        if exponent > 0 {
            let mut whole = BigUint::from(mantissa);
            whole.shift_left(exponent.unsigned_abs());
            whole.write_decimal(out);
            return;
        }
        let scaled = shift_right_rounding(
            u128::from(mantissa) * 10u128.pow(DECIMALS),
            exponent.unsigned_abs(),
        );
        let unit = 10u128.pow(DECIMALS);
        let mut fraction = (scaled % unit) as u64;
        out.extend_from_slice(itoa::Buffer::new().format(scaled / unit).as_bytes());
        if fraction != 0 {
            let mut width = DECIMALS as usize;
            while fraction.is_multiple_of(10) {
                fraction /= 10;
                width -= 1;
            }
            out.push(b'.');
            let digits = fraction.to_string();
            out.resize(out.len() + width - digits.len(), b'0');
            out.extend_from_slice(digits.as_bytes());
        }
        if out[start..] == *b"-0" {
            out.remove(start);
        }
    }

    /// The mantissa and exponent of a power of ten within the range of doubles, for the printing of those.
    pub(super) fn power_of_ten(exponent: i32) -> (u64, i32) {
        match decimal_rounded(false, BigUint::from(1), i64::from(exponent)) {
            Self::Finite {
                mantissa, exponent, ..
            } => (mantissa, exponent),
            Self::Infinite { .. } => {
                unreachable!("powers of ten of doubles are far from this format's limits")
            }
        }
    }

    /// The nearest number to `mantissa * 2^exponent`; `lost` tells that something below the mantissa's last bit was cut off.
    ///
    /// With `lost`, the mantissa must have at least 66 bits, or be the result's already exact integer part plus guard bits.
    fn rounded(negative: bool, mantissa: u128, exponent: i64, lost: bool) -> Self {
        if mantissa == 0 {
            return Self::Finite {
                negative,
                mantissa: 0,
                exponent: 0,
            };
        }
        let bits = i64::from(128 - mantissa.leading_zeros());
        // The bits to drop: down to 64, more for subnormal numbers. A shift to the left where fewer than 64 are there.
        let shift = (bits - 64).max(MIN_EXPONENT - exponent);
        if shift <= 0 {
            let left = u32::try_from(-shift).expect("at most 63: the mantissa has a bit");
            return Self::within_range(negative, (mantissa << left) as u64, exponent + shift);
        }
        if shift > 128 {
            return Self::Finite {
                negative,
                mantissa: 0,
                exponent: 0,
            };
        }
        let (kept, dropped, half) = if shift == 128 {
            (0, mantissa, 1 << 127)
        } else {
            (
                mantissa >> shift,
                mantissa & ((1 << shift) - 1),
                1u128 << (shift - 1),
            )
        };
        let up = dropped > half || (dropped == half && (lost || kept & 1 == 1));
        let kept = kept + u128::from(up);
        if kept == 0 {
            return Self::Finite {
                negative,
                mantissa: 0,
                exponent: 0,
            };
        }
        if kept >> 64 != 0 {
            return Self::within_range(negative, (kept >> 1) as u64, exponent + shift + 1);
        }
        Self::within_range(negative, kept as u64, exponent + shift)
    }

    fn within_range(negative: bool, mantissa: u64, exponent: i64) -> Self {
        if exponent > MAX_EXPONENT {
            return Self::Infinite { negative };
        }
        let exponent = i32::try_from(exponent).expect("between MIN_EXPONENT and MAX_EXPONENT");
        Self::Finite {
            negative,
            mantissa,
            exponent,
        }
    }
}

impl From<f64> for LongDouble {
    /// Exact. NaN, which no caller has, becomes zero.
    fn from(number: f64) -> Self {
        let negative = number.is_sign_negative();
        if number.is_infinite() {
            return Self::Infinite { negative };
        }
        if number.is_nan() {
            return Self::ZERO;
        }
        let bits = number.to_bits();
        let fraction = bits & ((1 << 52) - 1);
        match (bits >> 52) as i64 & 0x7ff {
            0 => Self::rounded(negative, u128::from(fraction), -1074, false),
            biased => Self::rounded(
                negative,
                u128::from(fraction | 1 << 52),
                biased - 1075,
                false,
            ),
        }
    }
}

/// `value / 2^shift`, rounded to nearest, ties to even.
fn shift_right_rounding(value: u128, shift: u32) -> u128 {
    match shift {
        0 => value,
        1..=127 => {
            let rest = value & ((1 << shift) - 1);
            let half = 1 << (shift - 1);
            let kept = value >> shift;
            kept + u128::from(rest > half || (rest == half && kept & 1 == 1))
        }
        // Less than 2^121 went in: nothing reaches one half.
        _ => 0,
    }
}

fn parse_decimal(negative: bool, text: &[u8]) -> Option<LongDouble> {
    let number = Literal::split(text, |byte| byte.is_ascii_digit(), b'e')?;
    let exponent = number.exponent.saturating_sub(number.fraction.len() as i64);
    let digits = number
        .whole
        .iter()
        .chain(number.fraction)
        .skip_while(|&&byte| byte == b'0');
    let len = digits.clone().count() as i64;
    if len == 0 {
        return Some(LongDouble::Finite {
            negative,
            mantissa: 0,
            exponent: 0,
        });
    }
    // The number lies in [10^magnitude, 10^(magnitude + 1)); beyond these bounds it overflows or is zero.
    let magnitude = exponent.saturating_add(len - 1);
    if !(-4952..=4932).contains(&magnitude) {
        return None;
    }

    if len <= 19 {
        let mantissa = digits.fold(0u64, |sum, &byte| sum * 10 + u64::from(byte - b'0'));
        if exponent.unsigned_abs() <= u64::from(FAST_POWERS) {
            return Some(fast_decimal(negative, mantissa, exponent));
        }
        return checked(decimal_rounded(negative, BigUint::from(mantissa), exponent));
    }
    let digits: Vec<u8> = digits.map(|byte| byte - b'0').collect();
    let mut mantissa = BigUint::from(0);
    for chunk in digits.chunks(19) {
        let value = chunk
            .iter()
            .fold(0u64, |sum, &digit| sum * 10 + u64::from(digit));
        mantissa.multiply_add(10u64.pow(chunk.len() as u32), value);
    }
    checked(decimal_rounded(negative, mantissa, exponent))
}

/// `mantissa * 10^exponent` for exponents within ±[`FAST_POWERS`].
fn fast_decimal(negative: bool, mantissa: u64, exponent: i64) -> LongDouble {
    let five = 5u128.pow(exponent.unsigned_abs() as u32);
    if exponent >= 0 {
        return LongDouble::rounded(negative, u128::from(mantissa) * five, exponent, false);
    }
    // With the dividend's top bit at 127 and five^27 below 2^63, the quotient has at least 65 bits, a rest below them.
    let dividend = u128::from(mantissa);
    let shift = dividend.leading_zeros();
    let dividend = dividend << shift;
    let (quotient, rest) = (dividend / five, dividend % five);
    // A 65-bit quotient is at its rounding bit; one more bit makes "half and something" visible.
    LongDouble::rounded(negative, quotient, exponent - i64::from(shift), rest != 0)
}

/// `mantissa * 10^exponent` for any mantissa, by way of big integers.
fn decimal_rounded(negative: bool, mut mantissa: BigUint, exponent: i64) -> LongDouble {
    let power = exponent.unsigned_abs() as u32;
    if exponent >= 0 {
        mantissa.multiply_by_power_of_five(power);
        let (top, shift, lost) = mantissa.top_bits();
        return LongDouble::rounded(negative, top, exponent + shift, lost);
    }
    let mut divisor = BigUint::from(1);
    divisor.multiply_by_power_of_five(power);
    let (quotient, shift, lost) = mantissa.divide(divisor);
    LongDouble::rounded(negative, quotient, exponent + shift, lost)
}

fn parse_hexadecimal(negative: bool, text: &[u8]) -> Option<LongDouble> {
    let number = Literal::split(text, |byte| byte.is_ascii_hexdigit(), b'p')?;
    let mut exponent = number
        .exponent
        .saturating_sub(4 * number.fraction.len() as i64);
    let mut mantissa = 0u128;
    let mut lost = false;
    for &byte in number.whole.iter().chain(number.fraction) {
        let digit = (byte as char)
            .to_digit(16)
            .expect("only hexadecimal digits were split off");
        if mantissa >> 120 == 0 {
            mantissa = mantissa << 4 | u128::from(digit);
        } else {
            exponent = exponent.saturating_add(4);
            lost |= digit != 0;
        }
    }
    if mantissa == 0 {
        return Some(LongDouble::Finite {
            negative,
            mantissa: 0,
            exponent: 0,
        });
    }
    // Clamped far outside the range, so that the arithmetic below cannot overflow.
    checked(LongDouble::rounded(
        negative,
        mantissa,
        exponent.clamp(-40_000, 40_000),
        lost,
    ))
}

/// Refuses what overflowed or became zero on the way.
fn checked(number: LongDouble) -> Option<LongDouble> {
    match number {
        LongDouble::Infinite { .. } | LongDouble::Finite { mantissa: 0, .. } => None,
        number => Some(number),
    }
}

/// The parts of a number without its sign.
struct Literal<'a> {
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Literal<'a> {
    /// Splits `12.5e-3` at its point and exponent mark; `None` unless it is one number, wholly.
    fn split(text: &'a [u8], is_digit: impl Fn(u8) -> bool, mark: u8) -> Option<Self> {
        let digits = |text: &'a [u8]| {
            text.split_at(
                text.iter()
                    .position(|&byte| !is_digit(byte))
                    .unwrap_or(text.len()),
            )
        };
        let (whole, rest) = digits(text);
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => digits(rest),
            rest => (&[][..], rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let exponent = match rest {
            [] => 0,
            [byte, rest @ ..] if byte.eq_ignore_ascii_case(&mark) => Self::exponent(rest)?,
            _ => return None,
        };
        Some(Self {
            whole,
            fraction,
            exponent,
        })
    }

    /// An exponent of any length, saturated.
    fn exponent(text: &[u8]) -> Option<i64> {
        let (negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let magnitude = digits.iter().fold(0i64, |sum, &byte| {
            sum.saturating_mul(10)
                .saturating_add(i64::from(byte - b'0'))
        });
        Some(if negative { -magnitude } else { magnitude })
    }
}

/// As much of a big natural number as the conversions need; little-endian limbs, no leading zero limb.
struct BigUint {
    limbs: Vec<u64>,
}

impl From<u64> for BigUint {
    fn from(number: u64) -> Self {
        Self {
            limbs: if number == 0 {
                Vec::new()
            } else {
                vec![number]
            },
        }
    }
}

impl BigUint {
    fn bits(&self) -> u32 {
        match self.limbs.last() {
            Some(last) => self.limbs.len() as u32 * 64 - last.leading_zeros(),
            None => 0,
        }
    }

    fn multiply_add(&mut self, factor: u64, mut carry: u64) {
        for limb in &mut self.limbs {
            let product = u128::from(*limb) * u128::from(factor) + u128::from(carry);
            *limb = product as u64;
            carry = (product >> 64) as u64;
        }
        if carry != 0 {
            self.limbs.push(carry);
        }
    }

    fn multiply_by_power_of_five(&mut self, mut power: u32) {
        while power > 0 {
            let step = power.min(FAST_POWERS);
            self.multiply_add(5u64.pow(step), 0);
            power -= step;
        }
    }

    fn shift_left(&mut self, shift: u32) {
        if self.limbs.is_empty() {
            return;
        }
        self.multiply_add(1 << (shift % 64), 0);
        let limbs = (shift / 64) as usize;
        self.limbs.splice(0..0, std::iter::repeat_n(0, limbs));
    }

    /// The upper 128 bits at most: `bits * 2^shift`, and whether anything below was cut off.
    fn top_bits(&self) -> (u128, i64, bool) {
        let shift = self.bits().saturating_sub(128);
        let mut top = 0u128;
        let (skipped, within) = ((shift / 64) as usize, shift % 64);
        for (index, &limb) in self.limbs[skipped..].iter().enumerate() {
            let position = index as i64 * 64 - i64::from(within);
            top |= if position < 0 {
                u128::from(limb) >> -position
            } else {
                u128::from(limb) << position
            };
        }
        let lost = self.limbs[..skipped].iter().any(|&limb| limb != 0)
            || (within > 0 && self.limbs[skipped] & ((1 << within) - 1) != 0);
        (top, i64::from(shift), lost)
    }

    /// A quotient of 66 or 67 bits: `quotient * 2^shift`, and whether there is a rest. Bit by bit: O(bits of the operands).
    fn divide(mut self, mut divisor: Self) -> (u128, i64, bool) {
        const QUOTIENT_BITS: u32 = 67;
        let shift = i64::from(self.bits()) - i64::from(divisor.bits());
        // Both get the same number of bits, then the dividend is doubled for every bit of the quotient.
        if shift < 0 {
            self.shift_left(shift.unsigned_abs() as u32);
        } else {
            divisor.shift_left(shift.unsigned_abs() as u32);
        }
        let mut quotient = 0u128;
        for _ in 0..QUOTIENT_BITS {
            quotient <<= 1;
            if self.subtract_if_not_less(&divisor) {
                quotient |= 1;
            }
            self.multiply_add(2, 0);
        }
        (
            quotient,
            shift - i64::from(QUOTIENT_BITS - 1),
            !self.limbs.is_empty(),
        )
    }

    fn subtract_if_not_less(&mut self, other: &Self) -> bool {
        let order = self.limbs.len().cmp(&other.limbs.len());
        if order
            .then_with(|| self.limbs.iter().rev().cmp(other.limbs.iter().rev()))
            .is_lt()
        {
            return false;
        }
        let mut borrow = false;
        for (index, limb) in self.limbs.iter_mut().enumerate() {
            let subtrahend = other.limbs.get(index).copied().unwrap_or(0);
            let (difference, first) = limb.overflowing_sub(subtrahend);
            let (difference, second) = difference.overflowing_sub(u64::from(borrow));
            *limb = difference;
            borrow = first || second;
        }
        while self.limbs.last() == Some(&0) {
            self.limbs.pop();
        }
        true
    }

    fn write_decimal(mut self, out: &mut Vec<u8>) {
        const CHUNK: u64 = 10_000_000_000_000_000_000;
        let mut chunks = Vec::new();
        while !self.limbs.is_empty() {
            let mut rest = 0u64;
            for limb in self.limbs.iter_mut().rev() {
                let dividend = u128::from(rest) << 64 | u128::from(*limb);
                *limb = (dividend / u128::from(CHUNK)) as u64;
                rest = (dividend % u128::from(CHUNK)) as u64;
            }
            while self.limbs.last() == Some(&0) {
                self.limbs.pop();
            }
            chunks.push(rest);
        }
        let mut buffer = itoa::Buffer::new();
        for (index, &chunk) in chunks.iter().rev().enumerate() {
            let digits = buffer.format(chunk).as_bytes();
            if index > 0 {
                out.resize(out.len() + 19 - digits.len(), b'0');
            }
            out.extend_from_slice(digits);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Option<LongDouble> {
        LongDouble::parse(text.as_bytes())
    }

    fn shown(number: LongDouble) -> String {
        let mut out = Vec::new();
        number.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn sum(left: &str, right: &str) -> Option<String> {
        parse(left)
            .unwrap()
            .checked_add(parse(right).unwrap())
            .map(shown)
    }

    #[test]
    fn sums_of_short_decimals_stay_short() {
        for (left, right, result) in [
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "200", "5200"),
            ("-1", "1", "0"),
            ("-0", "-0", "0"),
            ("1e18", "0.5", "1000000000000000000.5"),
            ("9223372036854775807", "1", "9223372036854775808"),
            ("1e19", "0.1", "10000000000000000000"),
            ("3", "1e-30", "3"),
            ("1", "-1e-300", "1"),
            ("0x1.8p1", "0x.8", "3.5"),
        ] {
            assert_eq!(sum(left, right).unwrap(), result, "{left} + {right}");
        }
    }

    #[test]
    fn sums_beyond_the_range_are_refused() {
        assert_eq!(sum("1.18e4932", "1.18e4932"), None);
        assert_eq!(sum("inf", "1"), None);
        assert_eq!(sum("inf", "-inf"), None);
    }

    #[test]
    fn numbers_out_of_range_and_malformed_texts_are_refused() {
        for text in [
            "",
            " 1",
            "1 ",
            "nan",
            "-nan",
            "nan(1)",
            "1e",
            "0x",
            "0x1p",
            "0x1p-",
            "infin",
            ".",
            "+",
            "-",
            "--1",
            "1_0",
            "1d",
            "1\0",
            "1e5000",
            "1e-5000",
            "1e4933",
            "1e99999999999999999999",
            "1e-99999999999999999999",
            "0x1p99999999999999999999",
            "0x1p-99999999999999999999",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&"1".repeat(MAX_TEXT_LEN)), None);
        assert_eq!(parse(&"0".repeat(MAX_TEXT_LEN)), Some(LongDouble::ZERO));
        assert_eq!(parse(&"0".repeat(MAX_TEXT_LEN + 1)), None);
    }

    #[test]
    fn long_numbers_are_shown_whole() {
        for (text, result) in [
            (
                "123456789012345678901234567890",
                "123456789012345678899921813504",
            ),
            ("1e-17", "0.00000000000000001"),
            ("0.5e-17", "0"),
            ("1.5e-17", "0.00000000000000002"),
            ("1e-4940", "0"),
            ("-1e-4940", "0"),
            ("-0.000", "0"),
            ("-inf", "-inf"),
        ] {
            assert_eq!(shown(parse(text).unwrap()), result, "{text}");
        }
        let large = shown(parse("1e4000").unwrap());
        assert!(large.starts_with(
            "99999999999999999999654638730996237849324925835069576313015083330432619433063423"
        ));
        assert_eq!(large.len(), 4000);
    }

    #[test]
    fn seconds_become_milliseconds_rounded_up() {
        for (text, result) in [
            ("0", Some(0)),
            ("0.1", Some(100)),
            ("0.0001", Some(1)),
            ("1e-400", Some(1)),
            ("-0.5", Some(-500)),
            ("-0.0001", Some(0)),
            ("9223372036854775", Some(9_223_372_036_854_775_000)),
            ("9223372036854775.9", None),
            ("1e18", None),
            ("1e4000", None),
            ("inf", None),
        ] {
            assert_eq!(parse(text).unwrap().ceil_scaled(1000), result, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_fast_path_agrees_with_big_integers(mantissa in 1u64..10_000_000_000_000_000_000, exponent in -27i64..=27) {
            prop_assert_eq!(fast_decimal(false, mantissa, exponent), decimal_rounded(false, BigUint::from(mantissa), exponent));
        }

        #[test]
        fn doubles_convert_exactly(bits: u64) {
            let number = f64::from_bits(bits);
            prop_assume!(number.is_finite());
            // Rust prints doubles exactly when asked for enough digits; from there the parser must come to the same number.
            let exact = format!("{number:.1100}");
            prop_assert_eq!(parse(exact.as_str()).filter(|_| number != 0.0).unwrap_or(number.into()), number.into());
        }

        #[test]
        fn sums_of_doubles_round_once(left in -1_000_000_000_000_000i64..1_000_000_000_000_000, right in -1_000_000_000_000_000i64..1_000_000_000_000_000, scale in 0u32..40) {
            // left + right * 2^-scale fits 128 bits exactly.
            let exact = (i128::from(left) << scale) + i128::from(right);
            let scaled = LongDouble::rounded(right < 0, u128::from(right.unsigned_abs()), -i64::from(scale), false);
            let expected = LongDouble::rounded(exact < 0, exact.unsigned_abs(), -i64::from(scale), false);
            let sum = LongDouble::from(left as f64).checked_add(scaled).unwrap();
            prop_assert_eq!(shown(sum), shown(expected));
        }

        #[test]
        fn integers_add_as_integers(left: i64, right: i64) {
            let expected = i128::from(left) + i128::from(right);
            prop_assume!(expected.unsigned_abs() < 1 << 64);
            prop_assert_eq!(sum(&left.to_string(), &right.to_string()).unwrap(), expected.to_string());
        }

        #[test]
        fn no_bytes_make_the_parser_panic(text in proptest::collection::vec(proptest::sample::select(b"0123456789.eExXpP+-infa".to_vec()), 0..40)) {
            if let Some(number) = LongDouble::parse(&text) {
                let _ = shown(number);
                number.checked_add(number);
                number.ceil_scaled(1000);
            }
        }
    }
}
