//! What SORT is asked for.

use std::ops::Range;

use super::pattern::Pattern;
use crate::dispatch::{args::Args, command::Result, error::Error};

/// Whether STORE is an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storing {
    Allowed,
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Ascending,
    Descending,
}

/// As what things are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Text,
}

/// What is compared.
pub(super) enum Weigh<'a> {
    Element,
    Pattern(Pattern<'a>),
    /// Nothing: BY has a pattern without `*`, which names the same key for all.
    Unsorted,
}

pub(super) struct Options<'a> {
    pub weigh: Weigh<'a>,
    pub direction: Direction,
    pub kind: Kind,
    pub get: Vec<Pattern<'a>>,
    /// The word that is the key to store at.
    pub store: Option<usize>,
    /// A script asks.
    pub scripted: bool,
    offset: i64,
    /// How many, all if negative.
    count: i64,
}

impl<'a> Options<'a> {
    pub(super) fn read(args: &Args<'a>, storing: Storing, scripted: bool) -> Result<Options<'a>> {
        let mut options = Options {
            weigh: Weigh::Element,
            direction: Direction::Ascending,
            kind: Kind::Number,
            get: Vec::new(),
            store: None,
            scripted,
            offset: 0,
            count: -1,
        };
        let mut index = 2;
        while index < args.len() {
            index += options.read_one(args, index, storing)?;
        }
        Ok(options)
    }

    /// Reads the option at a word. Returns how many words it takes.
    fn read_one(&mut self, args: &Args<'a>, index: usize, storing: Storing) -> Result<usize> {
        let left = args.len() - index - 1;
        if args.is(index, "ASC") {
            self.direction = Direction::Ascending;
            Ok(1)
        } else if args.is(index, "DESC") {
            self.direction = Direction::Descending;
            Ok(1)
        } else if args.is(index, "ALPHA") {
            self.kind = Kind::Text;
            Ok(1)
        } else if args.is(index, "LIMIT") && left >= 2 {
            self.offset = args.integer(index + 1)?;
            self.count = args.integer(index + 2)?;
            Ok(3)
        } else if args.is(index, "STORE") && left >= 1 && storing == Storing::Allowed {
            self.store = Some(index + 1);
            Ok(2)
        } else if args.is(index, "BY") && left >= 1 {
            // Without sorting stays without, whatever another BY says.
            if !matches!(self.weigh, Weigh::Unsorted) {
                self.weigh = match Pattern::new(args.word(index + 1)) {
                    pattern if pattern.names_keys() => Weigh::Pattern(pattern),
                    _ => Weigh::Unsorted,
                };
            }
            Ok(2)
        } else if args.is(index, "GET") && left >= 1 {
            self.get.push(Pattern::new(args.word(index + 1)));
            Ok(2)
        } else {
            Err(Error::SYNTAX)
        }
    }

    /// The part of so many elements that LIMIT leaves.
    pub(super) fn window(&self, len: usize) -> Range<usize> {
        let start = usize::try_from(self.offset).unwrap_or(0).min(len);
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        start..start.saturating_add(count).min(len)
    }
}
