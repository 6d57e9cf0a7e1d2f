//! The sorted set commands, a file per kind of work.
//!
//! Ranges by rank, score or member all become a range of ranks, which the value finds in O(log n): what follows (writing,
//! storing, removing, counting) is the same for all of them.

pub(super) mod add;
mod algebra;
mod bounds;
mod pop;
mod range;
mod remove;
mod sample;
mod score;

use std::{ops::Range, sync::atomic::Ordering};

use protocol::resp::reply::{ReplyWriter, Version};
use storage::{
    changes::EventClass,
    db::Db,
    entry::Meta,
    keyspace::Key,
    value::{
        Collection,
        sorted_set::{Limits, SortedSet},
    },
};

use crate::dispatch::command::{Command, Reply};

pub const COMMANDS: &[&Command] = &[
    &add::ZADD,
    &add::ZINCRBY,
    &algebra::ZDIFF,
    &algebra::ZDIFFSTORE,
    &algebra::ZINTER,
    &algebra::ZINTERCARD,
    &algebra::ZINTERSTORE,
    &algebra::ZUNION,
    &algebra::ZUNIONSTORE,
    &pop::BZMPOP,
    &pop::BZPOPMAX,
    &pop::BZPOPMIN,
    &pop::ZMPOP,
    &pop::ZPOPMAX,
    &pop::ZPOPMIN,
    &range::ZRANGE,
    &range::ZRANGEBYLEX,
    &range::ZRANGEBYSCORE,
    &range::ZRANGESTORE,
    &range::ZREVRANGE,
    &range::ZREVRANGEBYLEX,
    &range::ZREVRANGEBYSCORE,
    &remove::ZREM,
    &remove::ZREMRANGEBYLEX,
    &remove::ZREMRANGEBYRANK,
    &remove::ZREMRANGEBYSCORE,
    &sample::ZRANDMEMBER,
    &sample::ZSCAN,
    &score::ZCARD,
    &score::ZCOUNT,
    &score::ZLEXCOUNT,
    &score::ZMSCORE,
    &score::ZRANK,
    &score::ZREVRANK,
    &score::ZSCORE,
];

/// Replies of more entries than this are written without the locks, in slices.
pub(super) const WRITTEN_AT_ONCE: usize = 1000;
/// Entries of one slice.
pub(super) const SLICE: usize = 128;

/// Whether a command goes from the lowest score up or from the highest down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Ascending,
    Descending,
}

/// What of an entry a reply shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Members,
    /// Member, score, member, score.
    Flat,
    /// An array of two for each entry.
    Pairs,
}

impl Shown {
    /// As WITHSCORES shows entries: flat for old clients, in pairs for those that speak RESP3.
    fn with_scores(reply: &ReplyWriter) -> Shown {
        match reply.version() {
            Version::Resp2 => Shown::Flat,
            Version::Resp3 => Shown::Pairs,
        }
    }

    /// Begins an array of so many entries.
    fn begin(self, count: usize, reply: &mut ReplyWriter) {
        reply.array(if self == Shown::Flat {
            count * 2
        } else {
            count
        });
    }

    fn write(self, member: &[u8], score: f64, reply: &mut ReplyWriter) {
        if self == Shown::Pairs {
            reply.array(2);
        }
        reply.bulk(member);
        if self != Shown::Members {
            reply.double(score);
        }
    }
}

/// When sorted sets change their encoding, by today's settings.
pub(super) fn limits(db: &Db<'_>) -> Limits {
    let settings = db.settings();
    let limit = |setting: &std::sync::atomic::AtomicU64| {
        usize::try_from(setting.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    };
    Limits {
        max_listpack_entries: limit(&settings.zset_max_listpack_entries),
        max_listpack_value: limit(&settings.zset_max_listpack_value),
    }
}

/// Writes the entries of these ranks, which must be there; an array has been begun for them.
fn write_entries(
    reply: &mut Reply,
    set: &SortedSet,
    ranks: Range<usize>,
    order: Order,
    shown: Shown,
) {
    if ranks.len() <= WRITTEN_AT_ONCE {
        write_slice(reply, set, ranks, order, shown);
        return;
    }
    let set = set.clone();
    let mut left = ranks;
    reply.later(move |reply| {
        let count = left.len().min(SLICE);
        let slice = match order {
            Order::Ascending => left.start..left.start + count,
            Order::Descending => left.end - count..left.end,
        };
        match order {
            Order::Ascending => left.start += count,
            Order::Descending => left.end -= count,
        }
        write_slice(reply, &set, slice, order, shown);
        left.is_empty()
    });
}

fn write_slice(
    reply: &mut ReplyWriter,
    set: &SortedSet,
    ranks: Range<usize>,
    order: Order,
    shown: Shown,
) {
    let entries = set.range(ranks);
    match order {
        Order::Ascending => {
            entries.for_each(|(member, score)| shown.write(member, score, reply));
        }
        Order::Descending => {
            let entries = entries.rev();
            entries.for_each(|(member, score)| shown.write(member, score, reply));
        }
    }
}

/// Removes the entries of these ranks from a set that exists, and says so. Returns how many there were.
fn remove_ranks<'k>(
    db: &mut Db<'k>,
    key: Key<'_>,
    find: impl FnOnce(&SortedSet) -> Range<usize>,
    event: &'static str,
    tell: impl FnOnce(&mut Db<'k>, Key<'_>, EventClass, &'static str),
) -> Result<usize, storage::Error> {
    let Some(mut set) = db.write::<SortedSet>(key)? else {
        return Ok(0);
    };
    let ranks = find(&set);
    let count = ranks.len();
    if count == 0 {
        return Ok(0);
    }
    if count == set.len() {
        // A big set is freed on the freeing thread.
        let all = std::mem::take(&mut *set);
        drop(set);
        db.keyspace().free(all.into_value());
    } else {
        set.remove_range(ranks);
        drop(set);
    }
    tell(db, key, EventClass::SortedSet, event);
    db.changes.dirty += count as u64 - 1;
    Ok(count)
}

/// Sets a key to the result of a command that stores; an empty one deletes it. Returns how many members it has.
pub(super) fn store(
    db: &mut Db<'_>,
    key: Key<'_>,
    result: SortedSet,
    event: &'static str,
) -> usize {
    let count = result.len();
    if count > 0 {
        db.put(key, result.into_value(), Meta::default());
        db.changed(key, EventClass::SortedSet, event);
    } else if db.delete(key) {
        db.changed(key, EventClass::Generic, "del");
    }
    count
}

/// A sorted set of entries that are distinct and without NaN.
pub(super) fn build<M: AsRef<[u8]>>(entries: &[(M, f64)], limits: &Limits) -> SortedSet {
    SortedSet::build(entries, limits)
        .expect("the caller's members are distinct and its scores are numbers")
}

/// Limits of results that are built a slice at a time: in the large encoding until they are complete.
const LARGE: Limits = Limits {
    max_listpack_entries: 0,
    max_listpack_value: 0,
};

/// Gives a complete result that was built with [`LARGE`] the encoding it should have.
fn fit(result: &mut SortedSet, limits: &Limits) {
    if result.len() <= limits.max_listpack_entries {
        let entries: Vec<_> = result.iter().collect();
        *result = build(&entries, limits);
    }
}
