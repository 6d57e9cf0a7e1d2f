//! Ranges as clients state them: by rank, by score, by member.

use std::ops::{Bound, Range};

use storage::value::{
    number,
    sorted_set::{Encoding, SortedSet},
};

use super::Order;
use crate::dispatch::{command::Result, error::Error};

/// From where to where, both ends included or not, in ascending order of the set.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bounds<'a> {
    Ranks(RankBounds),
    Scores(ScoreBounds),
    Members(MemberBounds<'a>),
}

impl Bounds<'_> {
    /// The ranks in ascending order of the entries within. `order` says from which end ranks are counted.
    pub(super) fn ranks(&self, set: &SortedSet, order: Order) -> Range<usize> {
        match self {
            Bounds::Ranks(bounds) => bounds.ranks(set.len(), order),
            Bounds::Scores(bounds) => bounds.ranks(set),
            Bounds::Members(bounds) => bounds.ranks(set),
        }
    }
}

/// Ranks from one to another, both included, negative ones counted from the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct RankBounds {
    start: i64,
    end: i64,
}

impl RankBounds {
    pub(super) fn read(start: &[u8], end: &[u8]) -> Result<RankBounds> {
        Ok(RankBounds {
            start: number::parse_i64(start).ok_or(Error::NOT_AN_INTEGER)?,
            end: number::parse_i64(end).ok_or(Error::NOT_AN_INTEGER)?,
        })
    }

    pub(super) fn ranks(self, len: usize, order: Order) -> Range<usize> {
        let len = len as i64;
        let from_start = |index: i64| {
            if index < 0 {
                index.saturating_add(len)
            } else {
                index
            }
        };
        let start = from_start(self.start).max(0);
        let end = from_start(self.end).min(len - 1);
        if start > end {
            return 0..0;
        }
        // Both are within the set now.
        match order {
            Order::Ascending => start as usize..end as usize + 1,
            Order::Descending => (len - 1 - end) as usize..(len - start) as usize,
        }
    }
}

/// Scores from one to another; a `(` before either excludes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScoreBounds {
    min: Bound<f64>,
    max: Bound<f64>,
}

impl ScoreBounds {
    pub(super) fn read(min: &[u8], max: &[u8]) -> Result<ScoreBounds> {
        match (score_bound(min), score_bound(max)) {
            (Some(min), Some(max)) => Ok(ScoreBounds { min, max }),
            _ => Err(Error::from_static("ERR min or max is not a float")),
        }
    }

    pub(super) fn ranks(self, set: &SortedSet) -> Range<usize> {
        set.score_range(self.min, self.max)
    }
}

fn score_bound(word: &[u8]) -> Option<Bound<f64>> {
    match word {
        [b'(', number @ ..] => number::parse_score_bound(number).map(Bound::Excluded),
        number => number::parse_score_bound(number).map(Bound::Included),
    }
}

/// Members from one to another: `[` includes, `(` excludes, `-` and `+` are before and after all.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemberBounds<'a> {
    min: MemberBound<'a>,
    max: MemberBound<'a>,
}

#[derive(Clone, Copy, Debug)]
enum MemberBound<'a> {
    First,
    Last,
    At(Bound<&'a [u8]>),
}

impl<'a> MemberBounds<'a> {
    pub(super) fn read(min: &'a [u8], max: &'a [u8]) -> Result<MemberBounds<'a>> {
        match (member_bound(min), member_bound(max)) {
            (Some(min), Some(max)) => Ok(MemberBounds { min, max }),
            _ => Err(Error::from_static(
                "ERR min or max not valid string range item",
            )),
        }
    }

    pub(super) fn ranks(self, set: &SortedSet) -> Range<usize> {
        let min = match self.min {
            MemberBound::First => Bound::Unbounded,
            MemberBound::Last => return 0..0,
            MemberBound::At(bound) => bound,
        };
        let max = match self.max {
            MemberBound::First => return 0..0,
            MemberBound::Last => Bound::Unbounded,
            MemberBound::At(bound) => bound,
        };
        set.member_range(min, max)
    }
}

fn member_bound(word: &[u8]) -> Option<MemberBound<'_>> {
    match word {
        // What follows a zero byte is not looked at, as the server that set this rule does not.
        [b'-'] | [b'-', 0, ..] => Some(MemberBound::First),
        [b'+'] | [b'+', 0, ..] => Some(MemberBound::Last),
        [b'[', member @ ..] => Some(MemberBound::At(Bound::Included(member))),
        [b'(', member @ ..] => Some(MemberBound::At(Bound::Excluded(member))),
        _ => None,
    }
}

/// The part of a range that LIMIT asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) offset: i64,
    /// All that follow, if negative.
    pub(super) count: i64,
}

impl Window {
    pub(super) const ALL: Window = Window {
        offset: 0,
        count: -1,
    };

    /// The ranks that are left of a range; `order` says at which end it begins.
    ///
    /// A negative offset is counted from the other end, but in a small set nothing is there: which clients may not rely
    /// on, but see elsewhere.
    pub(super) fn of(self, ranks: Range<usize>, order: Order, encoding: Encoding) -> Range<usize> {
        let len = ranks.len();
        let offset = match usize::try_from(self.offset) {
            Ok(offset) => offset.min(len),
            Err(_) if encoding == Encoding::ListPack => len,
            Err(_) => {
                let from_end = usize::try_from(self.offset.unsigned_abs()).unwrap_or(usize::MAX);
                len.checked_sub(from_end).unwrap_or(len)
            }
        };
        let count =
            usize::try_from(self.count).map_or(len - offset, |count| count.min(len - offset));
        match order {
            Order::Ascending => ranks.start + offset..ranks.start + offset + count,
            Order::Descending => ranks.end - offset - count..ranks.end - offset,
        }
    }
}
