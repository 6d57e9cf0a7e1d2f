//! Entry IDs as clients write them.

use smallvec::SmallVec;
use storage::value::{
    number,
    stream::{Id, MAX_ID, MIN_ID, next_id, previous_id},
};

use crate::dispatch::{command::Result, error::Error};

const INVALID: Error =
    Error::from_static("ERR Invalid stream ID specified as stream command argument");
const INVALID_START: Error = Error::from_static("ERR invalid start ID for the interval");
const INVALID_END: Error = Error::from_static("ERR invalid end ID for the interval");

/// No ID is longer.
const MAX_LEN: usize = 127;

/// The ID's text.
pub(super) fn text((ms, seq): Id) -> SmallVec<[u8; 64]> {
    let mut text = SmallVec::new();
    text.extend_from_slice(itoa::Buffer::new().format(ms).as_bytes());
    text.push(b'-');
    text.extend_from_slice(itoa::Buffer::new().format(seq).as_bytes());
    text
}

/// An ID that must be one, its sequence number 0 if it is left out.
pub(super) fn parse(word: &[u8]) -> Result<Id> {
    match parse_partial(word)? {
        (ms, Some(seq)) => Ok((ms, seq)),
        (_, None) => Err(INVALID),
    }
}

/// An ID, `-` or `+`.
pub(super) fn parse_or_edge(word: &[u8], missing_seq: u64) -> Result<Id> {
    match word {
        b"-" => Ok(MIN_ID),
        b"+" => Ok(MAX_ID),
        _ => parse_with(word, missing_seq),
    }
}

/// An ID whose sequence number may be `*`: then it is none.
pub(super) fn parse_partial(word: &[u8]) -> Result<(u64, Option<u64>)> {
    if let Some(ms) = word.strip_suffix(b"-*")
        && !ms.contains(&b'-')
        && word.len() <= MAX_LEN
    {
        return Ok((parse_u64(ms)?, None));
    }
    parse_with(word, 0).map(|(ms, seq)| (ms, Some(seq)))
}

fn parse_with(word: &[u8], missing_seq: u64) -> Result<Id> {
    if word.len() > MAX_LEN {
        return Err(INVALID);
    }
    match word.iter().position(|&byte| byte == b'-') {
        Some(dash) => Ok((parse_u64(&word[..dash])?, parse_u64(&word[dash + 1..])?)),
        None => Ok((parse_u64(word)?, missing_seq)),
    }
}

/// A number, read as leniently as `strtoull` does.
fn parse_u64(word: &[u8]) -> Result<u64> {
    if let Some(number) = number::parse_i64(word) {
        return u64::try_from(number).map_err(|_| INVALID);
    }
    let word = word.trim_ascii_start();
    let (digits, negative) = match word {
        [b'+', digits @ ..] => (digits, false),
        [b'-', digits @ ..] => (digits, true),
        digits => (digits, false),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(INVALID);
    }
    let number = digits.iter().try_fold(0u64, |number, digit| {
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    });
    let number = number.ok_or(INVALID)?;
    Ok(if negative {
        number.wrapping_neg()
    } else {
        number
    })
}

/// The start of an interval, `(` before it leaving it out.
pub(super) fn parse_start(word: &[u8]) -> Result<Id> {
    match word {
        [b'(', id @ ..] if !id.is_empty() => next_id(parse_with(id, 0)?).ok_or(INVALID_START),
        _ => parse_or_edge(word, 0),
    }
}

/// The end of an interval, `(` before it leaving it out.
pub(super) fn parse_end(word: &[u8]) -> Result<Id> {
    match word {
        [b'(', id @ ..] if !id.is_empty() => {
            previous_id(parse_with(id, u64::MAX)?).ok_or(INVALID_END)
        }
        _ => parse_or_edge(word, u64::MAX),
    }
}
