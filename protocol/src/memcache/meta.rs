//! Lines of the meta commands: a key and single-letter flags, some with a value attached.
//!
//! ```text
//! mg key v t O123        flags without and with a value
//! VA 3 t60 O123          asked-for flags come back in the order of the request
//! ```
//!
//! All commands know the same flags and ignore those that mean nothing to them.

use std::borrow::Cow;

use super::parser::{
    Announced, BAD_FORMAT, Limits, Refusal, TOO_LARGE, Target, parse_data_len, parse_i32,
};
use super::text::Line;
use super::{MAX_KEY_LEN, Request, Words, base64};
use crate::number::parse_digits;

/// A key and how it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaKey<'a> {
    /// What the item is stored under.
    pub bytes: Cow<'a, [u8]>,
    /// What the line says, to be said again: base64 if `bytes` is owned.
    pub wire: &'a [u8],
}

impl<'a> MetaKey<'a> {
    pub(super) fn plain(word: &'a [u8]) -> Self {
        MetaKey {
            bytes: Cow::Borrowed(word),
            wire: word,
        }
    }

    fn base64(word: &'a [u8]) -> Option<Self> {
        Some(MetaKey {
            bytes: Cow::Owned(base64::decode(word)?),
            wire: word,
        })
    }

    /// Whether the key came, and goes, as base64.
    pub fn is_base64(&self) -> bool {
        matches!(self.bytes, Cow::Owned(_))
    }
}

/// What `ms` does with an item that is there or not, by its flag `M`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetMode {
    #[default]
    Set,
    Add,
    Append,
    Prepend,
    Replace,
}

/// What `ma` does, by its flag `M`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArithmeticMode {
    #[default]
    Increment,
    Decrement,
}

/// The flags of one request: [`MetaFlags::in_order`] for answering, the others for acting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetaFlags<'a> {
    /// One bit per flag, by its letter. Values of absent flags are zero.
    seen: u64,
    compare_cas: u64,
    new_cas: u64,
    initial: u64,
    delta: u64,
    client_flags: u32,
    exptime: i32,
    vivify: i32,
    recache: i32,
    opaque: &'a [u8],
    words: Words<'a>,
}

impl<'a> MetaFlags<'a> {
    /// Whether a flag was given.
    #[inline]
    pub fn has(&self, flag: Flag) -> bool {
        self.seen & bit(flag as u8) != 0
    }

    /// The flags as they were given.
    pub fn in_order(&self) -> impl Iterator<Item = Flag> + use<'a> {
        self.words.filter_map(|word| Flag::of(*word.first()?))
    }

    /// `C`: the CAS that the item must have.
    pub fn compare_cas(&self) -> Option<u64> {
        self.has(Flag::CompareCas).then_some(self.compare_cas)
    }

    /// `E`: the CAS that the item gets.
    pub fn new_cas(&self) -> Option<u64> {
        self.has(Flag::NewCas).then_some(self.new_cas)
    }

    /// `F`: the client's own flags for the item.
    pub fn client_flags(&self) -> Option<u32> {
        self.has(Flag::SetClientFlags).then_some(self.client_flags)
    }

    /// `T`: the item's new exptime.
    pub fn exptime(&self) -> Option<i64> {
        self.has(Flag::Exptime).then_some(self.exptime.into())
    }

    /// `N`: create the item if it is missing, with this exptime.
    pub fn vivify(&self) -> Option<i64> {
        self.has(Flag::Vivify).then_some(self.vivify.into())
    }

    /// `R`: let one client recache the item if fewer seconds than this are left.
    pub fn recache(&self) -> Option<i64> {
        self.has(Flag::Recache).then_some(self.recache.into())
    }

    /// `J`: what arithmetic creates a missing item with.
    pub fn initial(&self) -> Option<u64> {
        self.has(Flag::Initial).then_some(self.initial)
    }

    /// `D`: what arithmetic adds or subtracts.
    pub fn delta(&self) -> Option<u64> {
        self.has(Flag::Delta).then_some(self.delta)
    }

    /// `O`: what the client wants to see again in the answer.
    pub fn opaque(&self) -> Option<&'a [u8]> {
        self.has(Flag::Opaque).then_some(self.opaque)
    }

    /// Looked at after everything else.
    fn check_opaque(&self) -> Result<(), &'static str> {
        match self.opaque.len() {
            0..=MAX_OPAQUE_LEN => Ok(()),
            _ => Err(OPAQUE_TOO_LONG),
        }
    }

    /// Takes in one flag.
    fn add(&mut self, flag: Flag, value: &'a [u8]) -> Result<(), &'static str> {
        let number = || parse_digits(value).ok_or(BAD_TOKEN);
        let seconds = || parse_i32(value).ok_or(BAD_TOKEN);
        match flag {
            Flag::CompareCas => self.compare_cas = number()?,
            Flag::NewCas => self.new_cas = number()?,
            Flag::Initial => self.initial = parse_digits(value).ok_or(BAD_INITIAL)?,
            Flag::Delta => self.delta = parse_digits(value).ok_or(BAD_DELTA)?,
            Flag::Exptime => self.exptime = seconds()?,
            Flag::Vivify => self.vivify = seconds()?,
            Flag::Recache => self.recache = seconds()?,
            Flag::Opaque => self.opaque = value,
            _ => {}
        }
        Ok(())
    }
}

/// A flag's meaning; letters are shared by all meta commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Flag {
    CompareCas = b'C',
    Delta = b'D',
    NewCas = b'E',
    SetClientFlags = b'F',
    Invalidate = b'I',
    Initial = b'J',
    /// For proxies; means nothing here.
    ProxyL = b'L',
    Mode = b'M',
    Vivify = b'N',
    Opaque = b'O',
    /// For proxies; means nothing here.
    ProxyP = b'P',
    Recache = b'R',
    Exptime = b'T',
    Base64 = b'b',
    Cas = b'c',
    ClientFlags = b'f',
    HitBefore = b'h',
    Key = b'k',
    LastAccess = b'l',
    Quiet = b'q',
    Size = b's',
    Ttl = b't',
    NoBump = b'u',
    Value = b'v',
    RemoveValue = b'x',
}

impl Flag {
    fn of(letter: u8) -> Option<Flag> {
        Some(match letter {
            b'C' => Flag::CompareCas,
            b'D' => Flag::Delta,
            b'E' => Flag::NewCas,
            b'F' => Flag::SetClientFlags,
            b'I' => Flag::Invalidate,
            b'J' => Flag::Initial,
            b'L' => Flag::ProxyL,
            b'M' => Flag::Mode,
            b'N' => Flag::Vivify,
            b'O' => Flag::Opaque,
            b'P' => Flag::ProxyP,
            b'R' => Flag::Recache,
            b'T' => Flag::Exptime,
            b'b' => Flag::Base64,
            b'c' => Flag::Cas,
            b'f' => Flag::ClientFlags,
            b'h' => Flag::HitBefore,
            b'k' => Flag::Key,
            b'l' => Flag::LastAccess,
            b'q' => Flag::Quiet,
            b's' => Flag::Size,
            b't' => Flag::Ttl,
            b'u' => Flag::NoBump,
            b'v' => Flag::Value,
            b'x' => Flag::RemoveValue,
            _ => return None,
        })
    }
}

/// Letters from `A` to `z` fit one word.
fn bit(letter: u8) -> u64 {
    1 << (letter - b'A')
}

/// Bytes of `O`'s value.
pub const MAX_OPAQUE_LEN: usize = 31;

/// Words of a line, command and key included.
const MAX_WORDS: usize = 20;

const BAD_TOKEN: &str = "CLIENT_ERROR bad token in command line format";
const BAD_INITIAL: &str = "CLIENT_ERROR invalid numeric initial value";
const BAD_DELTA: &str = "CLIENT_ERROR invalid numeric delta value";
const OPAQUE_TOO_LONG: &str = "CLIENT_ERROR opaque token too long";
const DUPLICATE: &str = "CLIENT_ERROR duplicate flag";
const INVALID: &str = "CLIENT_ERROR invalid flag";
const INVALID_OR_DUPLICATE: &str = "CLIENT_ERROR invalid or duplicate flag";
const UNDECODABLE_KEY: &str = "CLIENT_ERROR error decoding key";
const TOO_MANY: &str = "CLIENT_ERROR options flags are too long";
const BAD_SET_MODE: &str = "CLIENT_ERROR invalid mode for ms M token";
const BAD_ARITHMETIC_MODE: &str = "CLIENT_ERROR invalid mode for ma M token";

/// `command` is the second letter.
pub(super) fn parse<'a>(
    command: u8,
    mut words: Words<'a>,
    limits: &Limits,
) -> Result<Line<'a>, Refusal<'a>> {
    if command == b'n' {
        return Ok(Line::Whole(Request::MetaNoop));
    }
    let key = words.next().ok_or(BAD_FORMAT)?;
    let flags = if command == b's' {
        words.skip_word()
    } else {
        words
    };
    if command != b'e' && !are_flags(flags) {
        return Err(BAD_FORMAT.into());
    }
    let request = match command {
        b's' => return set(key, words, limits),
        b'e' => debug(key, words)?,
        b'g' => {
            let (key, flags) = key_and_flags(key, words, MAX_WORDS - 2)?;
            flags.check_opaque()?;
            Request::MetaGet { key, flags }
        }
        b'd' => {
            let (key, flags) = key_and_flags(key, words, MAX_WORDS - 2)?;
            flags.check_opaque()?;
            Request::MetaDelete { key, flags }
        }
        _ => arithmetic(key, words)?,
    };
    Ok(Line::Whole(request))
}

/// As with `set`: once the length is known, the data block is skipped with a refused line.
fn set<'a>(key: &'a [u8], mut words: Words<'a>, limits: &Limits) -> Result<Line<'a>, Refusal<'a>> {
    let data_len = parse_data_len(words.next().ok_or(BAD_FORMAT)?)?;
    let refuse = |response: &'static str| Refusal::from(response).skipping(data_len);
    let (key, flags) = key_and_flags(key, words, MAX_WORDS - 3).map_err(refuse)?;
    let mode = set_mode(words).ok_or_else(|| refuse(BAD_SET_MODE))?;
    flags.check_opaque().map_err(refuse)?;
    if data_len > limits.max_value_len(&key.bytes, flags.client_flags().unwrap_or(0)) {
        // In whatever mode: memcached drops what is there as well.
        return Err(refuse(TOO_LARGE).invalidating(key));
    }
    let target = Target::MetaSet { key, mode, flags };
    Ok(Line::WithData(Announced { data_len, target }))
}

fn arithmetic<'a>(key: &'a [u8], words: Words<'a>) -> Result<Request<'a>, &'static str> {
    let (key, flags) =
        key_and_flags(key, words, MAX_WORDS - 2).map_err(|_| INVALID_OR_DUPLICATE)?;
    let mode = arithmetic_mode(words).ok_or(BAD_ARITHMETIC_MODE)?;
    flags.check_opaque()?;
    Ok(Request::MetaArithmetic { key, mode, flags })
}

fn debug<'a>(key: &'a [u8], mut words: Words<'a>) -> Result<Request<'a>, &'static str> {
    if key.len() > MAX_KEY_LEN {
        return Err(BAD_FORMAT);
    }
    let key = match words.any(|word| word == b"b") {
        true => MetaKey::base64(key).ok_or(BAD_FORMAT)?,
        false => MetaKey::plain(key),
    };
    Ok(Request::MetaDebug { key })
}

fn key_and_flags<'a>(
    key: &'a [u8],
    words: Words<'a>,
    max_flags: usize,
) -> Result<(MetaKey<'a>, MetaFlags<'a>), &'static str> {
    if key.len() > MAX_KEY_LEN {
        return Err(BAD_FORMAT);
    }
    if words.take(max_flags + 1).count() > max_flags {
        return Err(TOO_MANY);
    }
    let mut flags = MetaFlags {
        words,
        ..MetaFlags::default()
    };
    // What flags there are is looked at before what they say.
    for word in words {
        let flag = Flag::of(word[0]).ok_or(INVALID)?;
        if flags.has(flag) {
            return Err(DUPLICATE);
        }
        flags.seen |= bit(flag as u8);
    }
    let mut key = MetaKey::plain(key);
    let mut client_flags = None;
    // Of several bad values the last one is reported, but bad client flags only if all others are good.
    for word in words.rev() {
        match Flag::of(word[0]) {
            Some(Flag::SetClientFlags) => client_flags = Some(&word[1..]),
            Some(Flag::Base64) => key = MetaKey::base64(key.wire).ok_or(UNDECODABLE_KEY)?,
            Some(flag) => flags.add(flag, &word[1..])?,
            None => {}
        }
    }
    if let Some(digits) = client_flags {
        let value = parse_digits(digits).and_then(|value| u32::try_from(value).ok());
        flags.client_flags = value.ok_or(BAD_FORMAT)?;
    }
    Ok((key, flags))
}

/// Whether all flags are letters or digits, known or not; nothing else makes a line of flags.
fn are_flags(mut words: Words<'_>) -> bool {
    words.all(|word| matches!(word[0], b'0'..=b'9' | b'A'..=b'z'))
}

/// The value of `M`, if it is there.
fn mode_letter(mut words: Words<'_>) -> Option<&[u8]> {
    words.find_map(|word| word.strip_prefix(b"M"))
}

fn set_mode(words: Words<'_>) -> Option<SetMode> {
    Some(match mode_letter(words) {
        None | Some(b"S") => SetMode::Set,
        Some(b"A") => SetMode::Append,
        Some(b"E") => SetMode::Add,
        Some(b"P") => SetMode::Prepend,
        Some(b"R") => SetMode::Replace,
        Some(_) => return None,
    })
}

fn arithmetic_mode(words: Words<'_>) -> Option<ArithmeticMode> {
    Some(match mode_letter(words) {
        None | Some(b"I" | b"+") => ArithmeticMode::Increment,
        Some(b"D" | b"-") => ArithmeticMode::Decrement,
        Some(_) => return None,
    })
}
