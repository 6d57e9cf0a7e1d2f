//! Forms of one number: integers in a range, octal permissions, sizes in bytes.

use std::marker::PhantomData;

use super::super::memory_size::{self, MemoryLimit};
use super::{Form, Rejection, Source};

const NOT_AN_INTEGER: &str = "argument couldn't be parsed into an integer";
const NOT_A_SIZE: &str = "argument must be a memory value";

/// A decimal integer between `least` and `most`.
pub(in super::super) struct Integer<T> {
    initial: Initial,
    least: i64,
    most: i64,
    clamp: Option<(i64, i64)>,
    refusal: Option<&'static str>,
    field: PhantomData<fn() -> T>,
}

enum Initial {
    Fixed(i64),
    /// Depends on the machine.
    Computed(fn() -> i64, &'static str),
}

pub(in super::super) const fn integer<T>(initial: i64, least: i64, most: i64) -> Integer<T> {
    Integer {
        initial: Initial::Fixed(initial),
        least,
        most,
        clamp: None,
        refusal: None,
        field: PhantomData,
    }
}

impl<T> Integer<T> {
    /// Values outside these bounds, though in range, become the nearer bound.
    pub(in super::super) const fn clamped(mut self, low: i64, high: i64) -> Self {
        self.clamp = Some((low, high));
        self
    }

    /// The initial value is computed at start; `text` names it on the reference page.
    pub(in super::super) const fn computed(
        mut self,
        initial: fn() -> i64,
        text: &'static str,
    ) -> Self {
        self.initial = Initial::Computed(initial, text);
        self
    }

    /// Only zero is possible in this program: everything else is refused with this reason.
    pub(in super::super) const fn zero_only(mut self, reason: &'static str) -> Self {
        self.refusal = Some(reason);
        self
    }
}

impl<T> Form for Integer<T>
where
    T: TryFrom<i64> + TryInto<i64> + Copy + PartialEq + Default,
{
    type Value = T;

    fn initial(&self) -> T {
        let initial = match self.initial {
            Initial::Fixed(initial) => initial,
            Initial::Computed(compute, _) => compute(),
        };
        T::try_from(initial.clamp(self.least, self.most)).unwrap_or_default()
    }

    fn update(&self, value: &mut T, words: &[&[u8]], _: Source) -> Result<(), Rejection> {
        let number = strict_integer(words[0]).ok_or(NOT_AN_INTEGER)?;
        if number < self.least || number > self.most {
            return Err(out_of_range(self.least, self.most));
        }
        if let Some(reason) = self.refusal
            && number != 0
        {
            return Err(reason.into());
        }
        let number = self
            .clamp
            .map_or(number, |(low, high)| number.clamp(low, high));
        *value = T::try_from(number).map_err(|_| out_of_range(self.least, self.most))?;
        Ok(())
    }

    fn show(&self, value: &T) -> Vec<u8> {
        show_integer((*value).try_into().unwrap_or(self.most))
    }

    fn describe(&self) -> String {
        let range = match (self.least, self.most) {
            (i64::MIN, i64::MAX) => "integer".to_owned(),
            (least, i64::MAX | 2_147_483_647) => format!("integer, at least {least}"),
            (least, most) => format!("{least} to {most}"),
        };
        match self.initial {
            Initial::Fixed(_) => range,
            Initial::Computed(_, text) => format!("{range}; initially {text}"),
        }
    }
}

/// Three octal digits of permissions.
pub(in super::super) struct Octal {
    most: u32,
}

pub(in super::super) const fn octal(most: u32) -> Octal {
    Octal { most }
}

impl Form for Octal {
    type Value = u32;

    fn initial(&self) -> u32 {
        0
    }

    fn update(&self, value: &mut u32, words: &[&[u8]], _: Source) -> Result<(), Rejection> {
        let number = if words[0].is_empty() {
            0
        } else {
            lenient_integer(words[0], 8).ok_or("argument couldn't be parsed as an octal number")?
        };
        *value = u32::try_from(number)
            .ok()
            .filter(|mode| *mode <= self.most)
            .ok_or_else(|| {
                Rejection::from(format!(
                    "argument must be between 0 and {:o} inclusive",
                    self.most
                ))
            })?;
        Ok(())
    }

    fn show(&self, value: &u32) -> Vec<u8> {
        format!("{value:o}").into_bytes()
    }

    fn describe(&self) -> String {
        format!("octal, up to {:o}", self.most)
    }
}

/// A size in bytes, with or without a unit.
pub(in super::super) struct Memory {
    initial: u64,
    least: u64,
    most: u64,
    raised_to: u64,
}

pub(in super::super) const fn memory(initial: u64, least: u64, most: u64) -> Memory {
    Memory {
        initial,
        least,
        most,
        raised_to: 0,
    }
}

impl Memory {
    /// `CONFIG SET` raises smaller sizes to this one.
    pub(in super::super) const fn raised_to(mut self, bytes: u64) -> Memory {
        self.raised_to = bytes;
        self
    }
}

impl Form for Memory {
    type Value = u64;

    fn initial(&self) -> u64 {
        self.initial
    }

    fn update(&self, value: &mut u64, words: &[&[u8]], source: Source) -> Result<(), Rejection> {
        let bytes = memory_size::parse(words[0]).ok_or(NOT_A_SIZE)?;
        if bytes < self.least || bytes > self.most {
            return Err(out_of_range(self.least, self.most));
        }
        let raised = if source == Source::RunTime {
            bytes.max(self.raised_to)
        } else {
            bytes
        };
        *value = raised;
        Ok(())
    }

    fn show(&self, value: &u64) -> Vec<u8> {
        value.to_string().into_bytes()
    }

    fn lines(&self, value: &u64) -> Vec<Vec<u8>> {
        vec![memory_size::format(*value).into_bytes()]
    }

    fn describe(&self) -> String {
        match self.least {
            0 => "size".to_owned(),
            least => format!("size, at least {}", memory_size::format(least)),
        }
    }
}

/// A size in bytes, or a plain negative number that stands for something else.
pub(in super::super) struct SignedMemory {
    initial: i64,
    least: i64,
}

pub(in super::super) const fn signed_memory(initial: i64, least: i64) -> SignedMemory {
    SignedMemory { initial, least }
}

impl Form for SignedMemory {
    type Value = i64;

    fn initial(&self) -> i64 {
        self.initial
    }

    fn update(&self, value: &mut i64, words: &[&[u8]], _: Source) -> Result<(), Rejection> {
        let number = match strict_integer(words[0]) {
            Some(number) => Some(number),
            None => i64::try_from(memory_size::parse(words[0]).ok_or(NOT_A_SIZE)?).ok(),
        };
        *value = number
            .filter(|number| *number >= self.least)
            .ok_or_else(|| out_of_range(self.least, i64::MAX))?;
        Ok(())
    }

    fn show(&self, value: &i64) -> Vec<u8> {
        show_integer(*value)
    }

    fn lines(&self, value: &i64) -> Vec<Vec<u8>> {
        vec![match u64::try_from(*value) {
            Ok(bytes) => memory_size::format(bytes).into_bytes(),
            Err(_) => self.show(value),
        }]
    }

    fn describe(&self) -> String {
        format!("size, or {}", self.least)
    }
}

/// A size in bytes or a percentage.
pub(in super::super) struct MemoryOrPercent {
    initial: u64,
    /// The largest number of bytes.
    most: u64,
    malformed: &'static str,
}

pub(in super::super) const fn memory_or_percent(
    initial: u64,
    most: u64,
    malformed: &'static str,
) -> MemoryOrPercent {
    MemoryOrPercent {
        initial,
        most,
        malformed,
    }
}

impl Form for MemoryOrPercent {
    type Value = MemoryLimit;

    fn initial(&self) -> MemoryLimit {
        MemoryLimit::Bytes(self.initial)
    }

    fn update(&self, value: &mut MemoryLimit, words: &[&[u8]], _: Source) -> Result<(), Rejection> {
        const TOO_MUCH: &str = "percentage argument must be less or equal to 100";
        if let [number @ .., b'%'] = words[0] {
            let percent = strict_integer(number)
                .filter(|percent| *percent >= 0)
                .ok_or(self.malformed)?;
            *value = match u8::try_from(percent) {
                Ok(0) => MemoryLimit::Bytes(0),
                Ok(percent @ 1..=100) => MemoryLimit::Percent(percent),
                _ => return Err(TOO_MUCH.into()),
            };
            return Ok(());
        }
        let bytes = memory_size::parse(words[0]).ok_or(self.malformed)?;
        if bytes > self.most {
            return Err(TOO_MUCH.into());
        }
        *value = MemoryLimit::Bytes(bytes);
        Ok(())
    }

    fn show(&self, value: &MemoryLimit) -> Vec<u8> {
        match value {
            MemoryLimit::Bytes(bytes) => bytes.to_string().into_bytes(),
            MemoryLimit::Percent(percent) => format!("{percent}%").into_bytes(),
        }
    }

    fn lines(&self, value: &MemoryLimit) -> Vec<Vec<u8>> {
        vec![match value {
            MemoryLimit::Bytes(bytes) => memory_size::format(*bytes).into_bytes(),
            MemoryLimit::Percent(_) => self.show(value),
        }]
    }

    fn describe(&self) -> String {
        "size or percentage".to_owned()
    }
}

/// An integer in its only canonical spelling: no sign but `-`, no leading zeros, no blanks.
fn strict_integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        [b'0'] if digits.len() == text.len() => Some(0),
        [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(text).ok()?.parse().ok()
        }
        _ => None,
    }
}

/// An integer as C's `strtol` reads it: leading blanks, either sign and leading zeros are fine.
pub(super) fn lenient_integer(text: &[u8], radix: u32) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let text = text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    i64::from_str_radix(text, radix).ok()
}

fn out_of_range(least: impl std::fmt::Display, most: impl std::fmt::Display) -> Rejection {
    format!("argument must be between {least} and {most} inclusive").into()
}

fn show_integer(number: i64) -> Vec<u8> {
    number.to_string().into_bytes()
}
