//! Lists: pushes and pops at both ends, access by index, moves from list to list, and pops that wait.

mod access;
mod edit;
mod elements;
mod pop;
mod push;
mod transfer;
mod waiting;

use std::{ops::Range, sync::atomic::Ordering};

use storage::{
    db::Db,
    value::list::{End, ListLimits},
};

use crate::dispatch::{
    args::Args,
    command::{Command, Result},
    error::Error,
};

pub const COMMANDS: &[&Command] = &[
    &waiting::BLMOVE,
    &waiting::BLMPOP,
    &waiting::BLPOP,
    &waiting::BRPOP,
    &waiting::BRPOPLPUSH,
    &access::LINDEX,
    &edit::LINSERT,
    &access::LLEN,
    &transfer::LMOVE,
    &pop::LMPOP,
    &pop::LPOP,
    &access::LPOS,
    &push::LPUSH,
    &push::LPUSHX,
    &access::LRANGE,
    &edit::LREM,
    &edit::LSET,
    &edit::LTRIM,
    &pop::RPOP,
    &transfer::RPOPLPUSH,
    &push::RPUSH,
    &push::RPUSHX,
];

/// The limits of chunks as they are configured.
pub(super) fn limits(db: &Db<'_>) -> ListLimits {
    ListLimits::new(db.settings().list_max_listpack_size.load(Ordering::Relaxed))
}

/// LEFT or RIGHT.
fn end(args: &Args<'_>, index: usize) -> Result<End> {
    if args.is(index, "LEFT") {
        Ok(End::Front)
    } else if args.is(index, "RIGHT") {
        Ok(End::Back)
    } else {
        Err(Error::SYNTAX)
    }
}

/// The event of a push at this end.
fn pushed(end: End) -> &'static str {
    match end {
        End::Front => "lpush",
        End::Back => "rpush",
    }
}

/// The event of a pop from this end.
fn popped(end: End) -> &'static str {
    match end {
        End::Front => "lpop",
        End::Back => "rpop",
    }
}

/// Elements `first` to `last`, both included and counted from the end if negative, of a list of so many.
fn resolve(first: i64, last: i64, len: usize) -> Range<usize> {
    let len = len as i64;
    let from_start = |index: i64| if index < 0 { index + len } else { index };
    let (first, last) = (from_start(first).max(0), from_start(last).min(len - 1));
    if first > last {
        return 0..0;
    }
    first as usize..last as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_count_from_either_end_and_stay_within() {
        assert_eq!(resolve(0, -1, 5), 0..5);
        assert_eq!(resolve(-2, 10, 5), 3..5);
        assert_eq!(resolve(3, 1, 5), 0..0);
        assert_eq!(resolve(5, 9, 5), 0..0);
        assert_eq!(resolve(i64::MIN, i64::MAX, 5), 0..5);
        assert_eq!(resolve(i64::MAX, i64::MIN, 0), 0..0);
    }
}
