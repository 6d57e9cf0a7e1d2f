//! Shortest-digit printing of doubles: Grisu2.
//!
//! The interval of reals that read back as the number is scaled by a power of ten so that its digits come out of plain 64-bit
//! integers; digits are generated until the rest is within the interval. Rounding of the scaled bounds keeps it one unit
//! on the safe side, which is why the text is sometimes a digit longer than the best. About 60 ns per number.

use std::sync::LazyLock;

use super::long_double::LongDouble;

/// Decimal exponents of the cached powers: every eighth from here on.
const FIRST_POWER: i32 = -348;
const POWER_STEP: i32 = 8;
const POWER_COUNT: usize = 87;

/// Where the binary exponent of a scaled number must lie for its integer part to fit 32 bits.
const SCALED_EXPONENTS: std::ops::RangeInclusive<i32> = -60..=-32;

const HIDDEN_BIT: u64 = 1 << 52;

/// 10^(FIRST_POWER + 8i), rounded to 64 bits.
static POWERS: LazyLock<[Scaled; POWER_COUNT]> = LazyLock::new(|| {
    std::array::from_fn(|index| {
        let (mantissa, exponent) =
            LongDouble::power_of_ten(FIRST_POWER + POWER_STEP * index as i32);
        Scaled { mantissa, exponent }
    })
});

/// `mantissa` times 2 to the `exponent`.
#[derive(Clone, Copy)]
struct Scaled {
    mantissa: u64,
    exponent: i32,
}

impl Scaled {
    fn normalized(self) -> Self {
        let shift = self.mantissa.leading_zeros();
        Self {
            mantissa: self.mantissa << shift,
            exponent: self.exponent - shift as i32,
        }
    }

    /// The product's upper 64 bits, rounded half up.
    fn times(self, other: Self) -> Self {
        let product = u128::from(self.mantissa) * u128::from(other.mantissa);
        Self {
            mantissa: ((product + (1 << 63)) >> 64) as u64,
            exponent: self.exponent + other.exponent + 64,
        }
    }
}

/// The digits of a number: `digits[..len]`, an integer, times 10 to the `exponent`.
struct Decimal {
    digits: [u8; 18],
    len: usize,
    exponent: i32,
}

/// Appends a finite number that is not zero: plain where that is short, otherwise with an exponent.
pub(super) fn write(number: f64, out: &mut Vec<u8>) {
    if number.is_sign_negative() {
        out.push(b'-');
    }
    let decimal = digits_of(number.abs());
    let digits = &decimal.digits[..decimal.len];
    let len = digits.len() as i32;
    let leading_exponent = decimal.exponent + len - 1;

    if decimal.exponent >= 0 && leading_exponent < len + 7 {
        out.extend_from_slice(digits);
        out.resize(out.len() + decimal.exponent as usize, b'0');
    } else if decimal.exponent < 0 && (decimal.exponent > -7 || leading_exponent.abs() < 4) {
        write_with_point(digits, len + decimal.exponent, out);
    } else {
        write_with_exponent(digits, leading_exponent, out);
    }
}

/// `point` is how many of the digits stand before the point; if negative, how many zeros follow it.
fn write_with_point(digits: &[u8], point: i32, out: &mut Vec<u8>) {
    if point > 0 {
        let (whole, fraction) = digits.split_at(point as usize);
        out.extend_from_slice(whole);
        out.push(b'.');
        out.extend_from_slice(fraction);
    } else {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + point.unsigned_abs() as usize, b'0');
        out.extend_from_slice(digits);
    }
}

fn write_with_exponent(digits: &[u8], exponent: i32, out: &mut Vec<u8>) {
    out.push(digits[0]);
    if digits.len() > 1 {
        out.push(b'.');
        out.extend_from_slice(&digits[1..]);
    }
    out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
    out.extend_from_slice(
        itoa::Buffer::new()
            .format(exponent.unsigned_abs())
            .as_bytes(),
    );
}

fn digits_of(number: f64) -> Decimal {
    let bits = number.to_bits();
    let fraction = bits & (HIDDEN_BIT - 1);
    let value = match (bits >> 52) as i32 {
        0 => Scaled {
            mantissa: fraction,
            exponent: -1074,
        },
        biased => Scaled {
            mantissa: fraction | HIDDEN_BIT,
            exponent: biased - 1075,
        },
    };

    // Half way to the neighbours: below a power of two they are twice as close.
    let upper = Scaled {
        mantissa: value.mantissa * 2 + 1,
        exponent: value.exponent - 1,
    }
    .normalized();
    let lower_shift = if value.mantissa == HIDDEN_BIT { 2 } else { 1 };
    let lower_exponent = value.exponent - lower_shift;
    let lower = Scaled {
        mantissa: ((value.mantissa << lower_shift) - 1) << (lower_exponent - upper.exponent),
        exponent: upper.exponent,
    };

    let (power, power_exponent) = power_for(upper.exponent);
    let value = value.normalized().times(power);
    let upper = upper.times(power);
    let lower = lower.times(power);
    generate(
        value,
        lower.mantissa + 1,
        upper.mantissa - 1,
        upper.exponent,
        -power_exponent,
    )
}

/// The cached power that brings a number of this binary exponent into [`SCALED_EXPONENTS`], and its decimal exponent.
fn power_for(exponent: i32) -> (Scaled, i32) {
    // Where two would do, which one is taken decides the last digit; start where the reference implementation does.
    let guess = -f64::from(exponent + POWER_COUNT as i32) * std::f64::consts::LOG10_2;
    let mut index = ((guess - f64::from(FIRST_POWER)) / f64::from(POWER_STEP)) as usize;
    loop {
        let power = POWERS[index];
        let scaled = exponent + power.exponent + 64;
        if scaled < *SCALED_EXPONENTS.start() {
            index += 1;
        } else if scaled > *SCALED_EXPONENTS.end() {
            index -= 1;
        } else {
            return (power, FIRST_POWER + POWER_STEP * index as i32);
        }
    }
}

/// Generates digits of `upper` until what is left lies within the interval, then steps the last one towards `value`.
fn generate(
    value: Scaled,
    lower: u64,
    upper: u64,
    exponent: i32,
    decimal_exponent: i32,
) -> Decimal {
    let fraction_bits = exponent.unsigned_abs();
    let one = 1u64 << fraction_bits;
    let to_value = upper - value.mantissa;
    let width = upper - lower;

    let mut whole = upper >> fraction_bits;
    let mut fraction = upper & (one - 1);
    let mut decimal = Decimal {
        digits: [0; 18],
        len: 0,
        exponent: decimal_exponent,
    };

    // The integer part: at most ten digits.
    let mut unit = 1_000_000_000u64;
    for kappa in (0..10).rev() {
        decimal.push(whole / unit);
        whole %= unit;
        let rest = (whole << fraction_bits) + fraction;
        if rest <= width {
            decimal.exponent += kappa;
            decimal.round_down(width, rest, unit << fraction_bits, to_value);
            return decimal;
        }
        unit /= 10;
    }

    // The fraction: everything is scaled up by ten for each digit.
    let mut width = width;
    let mut to_value = to_value;
    loop {
        fraction *= 10;
        width *= 10;
        to_value = to_value.wrapping_mul(10);
        decimal.exponent -= 1;
        decimal.push(fraction >> fraction_bits);
        fraction &= one - 1;
        if fraction < width {
            decimal.round_down(width, fraction, one, to_value);
            return decimal;
        }
    }
}

impl Decimal {
    /// Appends a digit; zeros at the front are left out.
    fn push(&mut self, digit: u64) {
        if digit != 0 || self.len != 0 {
            self.digits[self.len] = b'0' + digit as u8;
            self.len += 1;
        }
    }

    /// Lowers the last digit while that stays inside the interval and comes closer to the value.
    fn round_down(&mut self, width: u64, mut rest: u64, unit: u64, to_value: u64) {
        while rest < to_value
            && width - rest >= unit
            && (rest + unit < to_value || to_value - rest > rest + unit - to_value)
        {
            self.digits[self.len - 1] -= 1;
            rest += unit;
        }
    }
}
