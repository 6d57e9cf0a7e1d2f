//! Deadlines as commands state them: seconds or milliseconds, from now or from the epoch.

use storage::{time::Timestamp, value::number};

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

fn invalid(command: &str) -> Error {
    Error::general(format!("invalid expire time in '{command}' command"))
}
