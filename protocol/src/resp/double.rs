//! Writes floating-point numbers as RESP clients know them.
//!
//! The digits come from Grisu2 (Florian Loitsch, "Printing floating-point numbers quickly and accurately with
//! integers", 2010): scale the number by a cached power of ten so that its integer part fits 32 bits, then take digits
//! until what is left lies within the interval that reads back as the same number. It always reads back the same; one
//! time in a thousand it is not the shortest such text (1e23 becomes 99999999999999990000000). Exactly that is why it
//! is used here: scores must look the same as they do from the servers this one replaces.

/// Appends text that reads back as the same number.
///
/// Integers up to 2^62 have all their digits; others are plain as long as that takes few zeros, else `1e+21`.
pub fn format_double(value: f64, out: &mut Vec<u8>) {
    if value.is_nan() {
        out.extend_from_slice(b"nan");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"inf" } else { b"-inf" });
    } else if value == 0.0 {
        out.extend_from_slice(if value.is_sign_negative() {
            b"-0"
        } else {
            b"0"
        });
    } else if value == value.trunc() && value.abs() <= MAX_INTEGER {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    } else {
        if value < 0.0 {
            out.push(b'-');
        }
        Decimal::of(value.abs()).write(out);
    }
}

/// Beyond 2^62 integers are written as other numbers are.
const MAX_INTEGER: f64 = 4_611_686_018_427_387_904.0;

/// A decimal number: `digits` times ten to the power of `scale`.
struct Decimal {
    digits: [u8; MAX_DIGITS],
    count: usize,
    scale: i32,
}

/// Seventeen tell all numbers apart; Grisu2 needs no more.
const MAX_DIGITS: usize = 18;

/// Zeros that may follow the digits of an integer before the exponent form is used.
const MAX_TRAILING_ZEROS: i32 = 7;

/// Decimal places up to which small numbers are plain, and the magnitude below which others are.
const MAX_PLACES: i32 = 6;
const MAX_PLAIN_EXPONENT: i32 = 3;

impl Decimal {
    /// `value` is positive and finite.
    fn of(value: f64) -> Self {
        let (number, lower, upper) = interval(value);
        let (power, scale) = cached_power(upper.exponent);
        let number = number.times(power);
        // The product may be off by one unit: stay inside the interval.
        let lower = lower.times(power).significand + 1;
        let upper = Float {
            significand: upper.times(power).significand - 1,
            ..number
        };
        let mut decimal = Decimal {
            digits: [0; MAX_DIGITS],
            count: 0,
            scale: -scale,
        };
        decimal.generate(
            upper,
            upper.significand - lower,
            upper.significand - number.significand,
        );
        decimal
    }

    /// Takes digits of `upper` until less than `width` is left, then walks back towards the number itself, which is
    /// `distance` below `upper`.
    fn generate(&mut self, upper: Float, mut width: u64, mut distance: u64) {
        let shift = -upper.exponent as u32;
        let mut integer = upper.significand >> shift;
        let mut fraction = upper.significand & ((1 << shift) - 1);
        for position in (0..=9).rev() {
            let unit = 10u64.pow(position);
            self.push(integer / unit);
            integer %= unit;
            let rest = (integer << shift) + fraction;
            if rest <= width {
                self.scale += position as i32;
                self.approach(rest, width, unit << shift, distance);
                return;
            }
        }
        while self.count < MAX_DIGITS {
            fraction *= 10;
            width *= 10;
            distance *= 10;
            self.scale -= 1;
            self.push(fraction >> shift);
            fraction &= (1 << shift) - 1;
            if fraction < width {
                self.approach(fraction, width, 1 << shift, distance);
                return;
            }
        }
    }

    /// Appends a digit, but no leading zero.
    fn push(&mut self, digit: u64) {
        if (digit != 0 || self.count > 0) && self.count < MAX_DIGITS {
            self.digits[self.count] = b'0' + digit as u8;
            self.count += 1;
        }
    }

    /// Lowers the last digit, worth `unit`, as long as that comes closer to the number and stays in the interval.
    fn approach(&mut self, mut rest: u64, width: u64, unit: u64, distance: u64) {
        while rest < distance && width - rest >= unit {
            let next = rest.saturating_add(unit);
            if next >= distance && distance - rest <= next - distance {
                break;
            }
            self.digits[self.count - 1] -= 1;
            rest = next;
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let digits = &self.digits[..self.count];
        // value = d.ddd * 10^exponent
        let exponent = self.scale + self.count as i32 - 1;
        if (0..=MAX_TRAILING_ZEROS).contains(&self.scale) {
            out.extend_from_slice(digits);
            out.resize(out.len() + self.scale as usize, b'0');
        } else if self.scale < 0
            && (self.scale >= -MAX_PLACES || exponent.abs() <= MAX_PLAIN_EXPONENT)
        {
            write_plain(digits, exponent, out);
        } else {
            write_scientific(digits, exponent, out);
        }
    }
}

fn write_plain(digits: &[u8], exponent: i32, out: &mut Vec<u8>) {
    match usize::try_from(exponent) {
        Ok(exponent) => {
            let (whole, places) = digits.split_at(exponent + 1);
            out.extend_from_slice(whole);
            out.push(b'.');
            out.extend_from_slice(places);
        }
        Err(_) => {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + (-exponent - 1) as usize, b'0');
            out.extend_from_slice(digits);
        }
    }
}

fn write_scientific(digits: &[u8], exponent: i32, out: &mut Vec<u8>) {
    let (first, places) = digits.split_at(1);
    out.extend_from_slice(first);
    if !places.is_empty() {
        out.push(b'.');
        out.extend_from_slice(places);
    }
    out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
    out.extend_from_slice(
        itoa::Buffer::new()
            .format(exponent.unsigned_abs())
            .as_bytes(),
    );
}

/// `significand` times two to the power of `exponent`.
#[derive(Clone, Copy)]
struct Float {
    significand: u64,
    exponent: i32,
}

impl Float {
    fn normalized(self) -> Self {
        let shift = self.significand.leading_zeros();
        Float {
            significand: self.significand << shift,
            exponent: self.exponent - shift as i32,
        }
    }

    /// The upper half of the product, rounded to nearest.
    fn times(self, other: Float) -> Self {
        let product = u128::from(self.significand) * u128::from(other.significand);
        Float {
            significand: ((product + (1 << 63)) >> 64) as u64,
            exponent: self.exponent + other.exponent + 64,
        }
    }
}

/// Bits of an `f64` significand that are stored; one more is implied.
const STORED_BITS: u32 = f64::MANTISSA_DIGITS - 1;

/// The number, normalized, and the halfway points to its neighbours at the exponent of the upper one.
fn interval(value: f64) -> (Float, Float, Float) {
    let bits = value.to_bits();
    let implied = 1u64 << STORED_BITS;
    let stored = bits & (implied - 1);
    let biased = (bits >> STORED_BITS) as i32;
    let number = Float {
        significand: if biased == 0 {
            stored
        } else {
            stored | implied
        },
        exponent: biased.max(1) - (f64::MAX_EXP - 1 + STORED_BITS as i32),
    };
    let upper = Float {
        significand: number.significand * 2 + 1,
        exponent: number.exponent - 1,
    }
    .normalized();
    // Below a power of two the neighbours are twice as close.
    let closer = 1 + i32::from(number.significand == implied);
    let lower = Float {
        significand: (number.significand << closer) - 1,
        exponent: number.exponent - closer,
    };
    let lower = Float {
        significand: lower.significand << (lower.exponent - upper.exponent),
        exponent: upper.exponent,
    };
    (number.normalized(), lower, upper)
}

/// A power of ten whose product with a number of this exponent has between 4 and 32 bits before the point.
fn cached_power(exponent: i32) -> (Float, i32) {
    // Log10(2) as a fraction of 2^32: exact enough to land on the entry or next to it.
    const LOG10_2: i64 = 1_292_913_986;
    let estimate =
        ((-(i64::from(exponent) + POWERS.len() as i64) * LOG10_2) as f64 / 2f64.powi(32)) as i32;
    let mut index = ((estimate - FIRST_POWER) / POWER_STEP) as usize;
    loop {
        let power = FIRST_POWER + POWER_STEP * index as i32;
        let cached = Float {
            significand: POWERS[index],
            // Floor(power * log2(10)), and 64 bits are in the significand.
            exponent: ((power * 217_706) >> 16) - 63,
        };
        match exponent + cached.exponent + 64 {
            ..-60 => index += 1,
            -60..=-32 => return (cached, power),
            _ => index -= 1,
        }
    }
}

const FIRST_POWER: i32 = -348;
const POWER_STEP: i32 = 8;

/// The upper 64 bits of 10^-348, 10^-340 ... 10^340, rounded to nearest.
#[rustfmt::skip]
const POWERS: [u64; 87] = [
    0xfa8f_d5a0_081c_0288, 0xbaae_e17f_a23e_bf76, 0x8b16_fb20_3055_ac76, 0xcf42_894a_5dce_35ea,
    0x9a6b_b0aa_5565_3b2d, 0xe61a_cf03_3d1a_45df, 0xab70_fe17_c79a_c6ca, 0xff77_b1fc_bebc_dc4f,
    0xbe56_91ef_416b_d60c, 0x8dd0_1fad_907f_fc3c, 0xd351_5c28_3155_9a83, 0x9d71_ac8f_ada6_c9b5,
    0xea9c_2277_23ee_8bcb, 0xaecc_4991_4078_536d, 0x823c_1279_5db6_ce57, 0xc210_9436_4dfb_5637,
    0x9096_ea6f_3848_984f, 0xd774_85cb_2582_3ac7, 0xa086_cfcd_97bf_97f4, 0xef34_0a98_172a_ace5,
    0xb238_67fb_2a35_b28e, 0x84c8_d4df_d2c6_3f3b, 0xc5dd_4427_1ad3_cdba, 0x936b_9fce_bb25_c996,
    0xdbac_6c24_7d62_a584, 0xa3ab_6658_0d5f_daf6, 0xf3e2_f893_dec3_f126, 0xb5b5_ada8_aaff_80b8,
    0x8762_5f05_6c7c_4a8b, 0xc9bc_ff60_34c1_3053, 0x964e_858c_91ba_2655, 0xdff9_7724_7029_7ebd,
    0xa6df_bd9f_b8e5_b88f, 0xf8a9_5fcf_8874_7d94, 0xb944_7093_8fa8_9bcf, 0x8a08_f0f8_bf0f_156b,
    0xcdb0_2555_6531_31b6, 0x993f_e2c6_d07b_7fac, 0xe45c_10c4_2a2b_3b06, 0xaa24_2499_6973_92d3,
    0xfd87_b5f2_8300_ca0e, 0xbce5_0864_9211_1aeb, 0x8cbc_cc09_6f50_88cc, 0xd1b7_1758_e219_652c,
    0x9c40_0000_0000_0000, 0xe8d4_a510_0000_0000, 0xad78_ebc5_ac62_0000, 0x813f_3978_f894_0984,
    0xc097_ce7b_c907_15b3, 0x8f7e_32ce_7bea_5c70, 0xd5d2_38a4_abe9_8068, 0x9f4f_2726_179a_2245,
    0xed63_a231_d4c4_fb27, 0xb0de_6538_8cc8_ada8, 0x83c7_088e_1aab_65db, 0xc45d_1df9_4271_1d9a,
    0x924d_692c_a61b_e758, 0xda01_ee64_1a70_8dea, 0xa26d_a399_9aef_774a, 0xf209_787b_b47d_6b85,
    0xb454_e4a1_79dd_1877, 0x865b_8692_5b9b_c5c2, 0xc835_53c5_c896_5d3d, 0x952a_b45c_fa97_a0b3,
    0xde46_9fbd_99a0_5fe3, 0xa59b_c234_db39_8c25, 0xf6c6_9a72_a398_9f5c, 0xb7dc_bf53_54e9_bece,
    0x88fc_f317_f222_41e2, 0xcc20_ce9b_d35c_78a5, 0x9816_5af3_7b21_53df, 0xe2a0_b5dc_971f_303a,
    0xa8d9_d153_5ce3_b396, 0xfb9b_7cd9_a4a7_443c, 0xbb76_4c4c_a7a4_4410, 0x8bab_8eef_b640_9c1a,
    0xd01f_ef10_a657_842c, 0x9b10_a4e5_e991_3129, 0xe710_9bfb_a19c_0c9d, 0xac28_20d9_623b_f429,
    0x8044_4b5e_7aa7_cf85, 0xbf21_e440_03ac_dd2d, 0x8e67_9c2f_5e44_ff8f, 0xd433_179d_9c8c_b841,
    0x9e19_db92_b4e3_1ba9, 0xeb96_bf6e_badf_77d9, 0xaf87_023b_9bf0_ee6b,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: f64) -> String {
        let mut text = Vec::new();
        format_double(value, &mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn numbers_look_as_in_valkey() {
        for (value, expected) in NUMBERS {
            assert_eq!(text(*value), *expected);
        }
    }

    #[test]
    fn the_text_reads_back_as_the_number() {
        // Every exponent, with significands spread over their range.
        for exponent in 0..0x7ff_u64 {
            for step in 0..64_u64 {
                let significand = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12;
                let value = f64::from_bits(exponent << 52 | significand);
                assert_eq!(text(value).parse(), Ok(value));
            }
        }
    }

    /// The texts are what Valkey 9.1.2 answers for the score.
    #[rustfmt::skip]
    const NUMBERS: &[(f64, &str)] = &[
        (0.0, "0"),
        (3.0, "3"),
        (3.5, "3.5"),
        (1e15, "1000000000000000"),
        (1e16, "10000000000000000"),
        (1e17, "100000000000000000"),
        (1e18, "1000000000000000000"),
        (9.2e18, "9.2e+18"),
        (9223372036854775807.0, "9223372036854776000"),
        (9223372036854775000.0, "9223372036854775000"),
        (1e19, "1e+19"),
        (1e20, "1e+20"),
        (1e21, "1e+21"),
        (1.5e19, "1.5e+19"),
        (1.5e20, "1.5e+20"),
        (1.5e21, "1.5e+21"),
        (1.5e22, "1.5e+22"),
        (123456789012345678901.0, "123456789012345680000"),
        (-1e21, "-1e+21"),
        (1.2345e25, "1.2345e+25"),
        (12345678e15, "1.2345678e+22"),
        (1e-1, "0.1"),
        (1e-3, "0.001"),
        (1e-4, "0.0001"),
        (1e-5, "0.00001"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1e-8, "1e-8"),
        (1.5e-5, "0.000015"),
        (1.5e-6, "1.5e-6"),
        (1.5e-7, "1.5e-7"),
        (1.5e-8, "1.5e-8"),
        (1.25e-6, "1.25e-6"),
        (0.000123456, "1.23456e-4"),
        (0.00012345678, "1.2345678e-4"),
        (0.0012345678901, "0.0012345678901"),
        (1234.0000001, "1234.0000001"),
        (1234.123456789, "1234.123456789"),
        (12345.12345678, "1.234512345678e+4"),
        (99999.123456789, "9.9999123456789e+4"),
        (123456.7, "123456.7"),
        (1234567.8, "1234567.8"),
        (12345678.9, "12345678.9"),
        (123456789.12, "123456789.12"),
        (1234567890.123, "1234567890.123"),
        (12345678901234.5, "12345678901234.5"),
        (0.1, "0.1"),
        (0.2, "0.2"),
        (0.30000000000000004, "0.30000000000000004"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (2.2250738585072014e-308, "2.2250738585072014e-308"),
        (123e-10, "1.23e-8"),
        (100.5, "100.5"),
        (1e100, "1e+100"),
        (1.5e300, "1.5e+300"),
        (1e22, "1e+22"),
        (1e23, "99999999999999990000000"),
        (9007199254740993.0, "9007199254740992"),
        (0.1234567890123, "0.1234567890123"),
        (1234567890123456.7, "1234567890123456.7"),
        (17179869184.5, "17179869184.5"),
        (1.0000000000000002, "1.0000000000000002"),
        (9.5367431640625e-07, "9.5367431640625e-7"),
        (-1.5e-9, "-1.5e-9"),
        (4.35, "4.35"),
        (2.5e-310, "2.5e-310"),
        (4611686018427387904.0, "4611686018427387904"),
        (-4.7e18, "-4.7e+18"),
        (4611686018427388928.0, "4611686018427389000"),
        (1e-7, "1e-7"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
        (f64::NAN, "nan"),
        (-0.0, "-0"),
    ];
}
