//! The options of SET, some of which GETEX and MSETEX have too.

use storage::time::Timestamp;

use super::super::deadline::{self, Base, Unit};
use crate::dispatch::{args::Args, command::Result, error::Error};

/// SET's words after the value.
pub(super) struct SetOptions<'a> {
    pub(super) condition: Condition<'a>,
    pub(super) get: bool,
    pub(super) expiry: Expiry,
}

pub(super) enum Condition<'a> {
    Always,
    Missing,
    Present,
    Equal(&'a [u8]),
}

pub(super) enum Expiry {
    None,
    Keep,
    At(Timestamp),
}

/// Which of SET's options a command has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowed {
    All,
    /// Neither GET nor IFEQ, which are about one key.
    ManyKeys,
    /// The deadline alone, with PERSIST in KEEPTTL's place.
    Deadline,
}

impl<'a> SetOptions<'a> {
    pub(super) fn read(args: &Args<'a>, now: Timestamp) -> Result<SetOptions<'a>> {
        SetOptions::read_from(args, 3, now, "set", Allowed::All)
    }

    pub(super) fn read_from(
        args: &Args<'a>,
        first: usize,
        now: Timestamp,
        name: &str,
        allowed: Allowed,
    ) -> Result<SetOptions<'a>> {
        let mut options = SetOptions {
            condition: Condition::Always,
            get: false,
            expiry: Expiry::None,
        };
        // The number is looked at last: a syntax error further on comes first.
        let mut relative: Option<((Unit, Base), &[u8])> = None;
        let mut index = first;
        while let Some(word) = args.get(index) {
            let next = args.get(index + 1);
            let conditional = allowed != Allowed::Deadline;
            let keep = if conditional { "KEEPTTL" } else { "PERSIST" };
            match (&options.condition, &options.expiry, deadline::option(word)) {
                // Said twice, a word is meant once; two that contradict each other are an error.
                (Condition::Always | Condition::Missing, _, _)
                    if conditional && args.is(index, "NX") =>
                {
                    options.condition = Condition::Missing;
                }
                (Condition::Always | Condition::Present, _, _)
                    if conditional && args.is(index, "XX") =>
                {
                    options.condition = Condition::Present;
                }
                (Condition::Always, _, _)
                    if allowed == Allowed::All && args.is(index, "IFEQ") && next.is_some() =>
                {
                    options.condition = Condition::Equal(next.unwrap_or_default());
                    index += 1;
                }
                _ if allowed == Allowed::All && args.is(index, "GET") => options.get = true,
                _ if args.is(index, keep) && relative.is_none() => options.expiry = Expiry::Keep,
                (_, Expiry::None, Some(option))
                    if next.is_some() && relative.is_none_or(|(said, _)| said == option) =>
                {
                    relative = Some((option, next.unwrap_or_default()));
                    index += 1;
                }
                _ => return Err(Error::SYNTAX),
            }
            index += 1;
        }
        if let Some(((unit, base), value)) = relative {
            options.expiry = Expiry::At(deadline::read(value, unit, base, now, name)?);
        }
        Ok(options)
    }
}
