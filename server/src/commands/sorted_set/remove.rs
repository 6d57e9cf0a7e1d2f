//! Removing members, by name and by range.

use storage::{changes::EventClass, db::Db, value::sorted_set::SortedSet};

use super::{
    Order,
    bounds::{Bounds, MemberBounds, RankBounds, ScoreBounds},
    remove_ranks,
};
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
};

pub(super) const ZREM: Command = Command {
    name: "ZREM",
    syntax: "key member [member ...]",
    summary: "Removes members; a sorted set without any is deleted.",
    since: "1.2.0",
    complexity: "O(M*log(N)) for M members removed",
    group: Group::SortedSet,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Delete)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(zrem),
    subcommands: &[],
};

fn zrem(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    let mut removed = 0;
    if let Some(mut set) = db.write::<SortedSet>(key)? {
        for member in args.from(2) {
            removed += u64::from(set.remove(member).is_some());
        }
    }
    if removed > 0 {
        db.changed_after_event(key, EventClass::SortedSet, "zrem");
        db.changes.dirty += removed - 1;
    }
    reply.integer(removed as i64);
    Ok(())
}

pub(super) const ZREMRANGEBYRANK: Command = Command {
    name: "ZREMRANGEBYRANK",
    syntax: "key start stop",
    summary: "Removes the members within a range of ranks.",
    since: "2.0.0",
    complexity: "O(log(N)+M) for M members removed",
    group: Group::SortedSet,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Delete)],
    flags: &[Flag::Write],
    categories: &[],
    run: Run::Write(zremrangebyrank),
    subcommands: &[],
};

fn zremrangebyrank(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let bounds = RankBounds::read(args.word(2), args.word(3))?;
    remove_range(db, args, Bounds::Ranks(bounds), "zremrangebyrank", reply)
}

pub(super) const ZREMRANGEBYSCORE: Command = Command {
    name: "ZREMRANGEBYSCORE",
    syntax: "key min max",
    summary: "Removes the members whose scores are within a range.",
    since: "1.2.0",
    complexity: "O(log(N)+M) for M members removed",
    group: Group::SortedSet,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Delete)],
    flags: &[Flag::Write],
    categories: &[],
    run: Run::Write(zremrangebyscore),
    subcommands: &[],
};

fn zremrangebyscore(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let bounds = ScoreBounds::read(args.word(2), args.word(3))?;
    remove_range(db, args, Bounds::Scores(bounds), "zremrangebyscore", reply)
}

pub(super) const ZREMRANGEBYLEX: Command = Command {
    name: "ZREMRANGEBYLEX",
    syntax: "key min max",
    summary: "Removes the members within a range of members, where all scores are equal.",
    since: "2.8.9",
    complexity: "O(log(N)+M) for M members removed",
    group: Group::SortedSet,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Delete)],
    flags: &[Flag::Write],
    categories: &[],
    run: Run::Write(zremrangebylex),
    subcommands: &[],
};

fn zremrangebylex(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let bounds = MemberBounds::read(args.word(2), args.word(3))?;
    remove_range(db, args, Bounds::Members(bounds), "zremrangebylex", reply)
}

fn remove_range(
    db: &mut Db<'_>,
    args: &Args<'_>,
    bounds: Bounds<'_>,
    event: &'static str,
    reply: &mut Reply,
) -> Result {
    let find = |set: &SortedSet| bounds.ranks(set, Order::Ascending);
    let removed = remove_ranks(db, args.key(1), find, event, Db::changed)?;
    reply.integer(removed as i64);
    Ok(())
}
