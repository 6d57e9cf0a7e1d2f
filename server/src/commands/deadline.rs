//! Deadlines as commands state them: seconds or milliseconds, from now or from the epoch; and how long they wait.

use storage::{
    time::Timestamp,
    value::number::{self, LongDouble},
};

use crate::dispatch::{command::Result, error::Error};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Milliseconds,
}

/// What a time counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    Now,
    Epoch,
}

/// Reads a time that must be positive, as SET and its relatives want it.
///
/// # Errors
/// Not an integer, zero or negative, or beyond what milliseconds can say.
pub fn read(
    word: &[u8],
    unit: Unit,
    base: Base,
    now: Timestamp,
    command: &str,
) -> Result<Timestamp> {
    let value = number::parse_i64(word).ok_or(Error::NOT_AN_INTEGER)?;
    if value <= 0 {
        return Err(invalid(command));
    }
    resolve(value, unit, base, now, command)
}

/// The moment that a time, which may be in the past, stands for.
///
/// # Errors
/// It is beyond what milliseconds can say.
pub fn resolve(
    value: i64,
    unit: Unit,
    base: Base,
    now: Timestamp,
    command: &str,
) -> Result<Timestamp> {
    let millis = match unit {
        Unit::Seconds => value.checked_mul(1000),
        Unit::Milliseconds => Some(value),
    };
    let at = match base {
        Base::Epoch => millis,
        Base::Now => millis.and_then(|millis| millis.checked_add(now.millis())),
    };
    at.map(Timestamp).ok_or_else(|| invalid(command))
}

/// Reads a time that may be zero, as the commands about fields of hashes want it.
///
/// # Errors
/// Not an integer, negative, or beyond what milliseconds can say.
pub fn read_not_negative(
    word: &[u8],
    unit: Unit,
    base: Base,
    now: Timestamp,
    command: &str,
) -> Result<Timestamp> {
    let value = number::parse_i64(word).ok_or(Error::NOT_AN_INTEGER)?;
    if value < 0 {
        return Err(invalid(command));
    }
    resolve(value, unit, base, now, command)
}

/// A deadline as TTL and its relatives tell it.
pub fn tell(deadline: Timestamp, unit: Unit, base: Base, now: Timestamp) -> i64 {
    let millis = match base {
        Base::Epoch => deadline.millis(),
        Base::Now => deadline.millis().saturating_sub(now.millis()).max(0),
    };
    match (unit, base) {
        (Unit::Milliseconds, _) => millis,
        // A remaining time is rounded, a moment is cut.
        (Unit::Seconds, Base::Now) => millis.saturating_add(500) / 1000,
        (Unit::Seconds, Base::Epoch) => millis / 1000,
    }
}

/// The option that introduces a deadline: EX, PX, EXAT, PXAT.
pub fn option(word: &[u8]) -> Option<(Unit, Base)> {
    let options = [
        ("EX", (Unit::Seconds, Base::Now)),
        ("PX", (Unit::Milliseconds, Base::Now)),
        ("EXAT", (Unit::Seconds, Base::Epoch)),
        ("PXAT", (Unit::Milliseconds, Base::Epoch)),
    ];
    options
        .into_iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, option)| option)
}

fn invalid(command: &str) -> Error {
    Error::general(format!("invalid expire time in '{command}' command"))
}

/// Reads how long a blocking command waits, in seconds with a fraction: 0 is for ever.
///
/// # Errors
/// Not a number, negative, or beyond what milliseconds can say.
pub fn read_timeout(word: &[u8], now: Timestamp) -> Result<u64> {
    const OUT_OF_RANGE: Error = Error::from_static("ERR timeout is out of range");
    let seconds = LongDouble::parse(word).ok_or(Error::from_static(
        "ERR timeout is not a float or out of range",
    ))?;
    let millis = match seconds.ceil_scaled(1000) {
        Some(millis) => millis,
        None if seconds.is_negative() => -1,
        None => return Err(OUT_OF_RANGE),
    };
    let millis =
        u64::try_from(millis).map_err(|_| Error::from_static("ERR timeout is negative"))?;
    if millis > i64::MAX.saturating_sub(now.millis()) as u64 {
        return Err(OUT_OF_RANGE);
    }
    Ok(millis)
}
