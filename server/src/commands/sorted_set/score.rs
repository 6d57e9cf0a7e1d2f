//! Looking at scores, ranks and counts.

use storage::{db::Db, value::sorted_set::SortedSet};

use super::{
    Order,
    bounds::{Bounds, MemberBounds, ScoreBounds},
};
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
    error::Error,
};

pub(super) const ZSCORE: Command = Command {
    name: "ZSCORE",
    syntax: "key member",
    summary: "Returns the score of a member.",
    since: "1.2.0",
    complexity: "O(1)",
    group: Group::SortedSet,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(zscore),
    subcommands: &[],
};

fn zscore(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let set = db.read::<SortedSet>(args.key(1))?;
    write_score(set, args.word(2), reply);
    Ok(())
}

pub(super) const ZMSCORE: Command = Command {
    name: "ZMSCORE",
    syntax: "key member [member ...]",
    summary: "Returns the scores of members.",
    since: "6.2.0",
    complexity: "O(N) for N members",
    group: Group::SortedSet,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(zmscore),
    subcommands: &[],
};

fn zmscore(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let set = db.read::<SortedSet>(args.key(1))?;
    let members = args.from(2);
    reply.array(members.len());
    members.for_each(|member| write_score(set, member, reply));
    Ok(())
}

fn write_score(set: Option<&SortedSet>, member: &[u8], reply: &mut Reply) {
    match set.and_then(|set| set.score(member)) {
        Some(score) => reply.double(score),
        None => reply.null(),
    }
}

pub(super) const ZCARD: Command = Command {
    name: "ZCARD",
    syntax: "key",
    summary: "Counts the members of a sorted set.",
    since: "1.2.0",
    complexity: "O(1)",
    group: Group::SortedSet,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Inspect)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(zcard),
    subcommands: &[],
};

fn zcard(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let set = db.read::<SortedSet>(args.key(1))?;
    reply.integer(set.map_or(0, SortedSet::len) as i64);
    Ok(())
}

pub(super) const ZCOUNT: Command = Command {
    name: "ZCOUNT",
    syntax: "key min max",
    summary: "Counts the members whose scores are within a range.",
    since: "2.0.0",
    complexity: "O(log(N))",
    group: Group::SortedSet,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(zcount),
    subcommands: &[],
};

fn zcount(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let bounds = ScoreBounds::read(args.word(2), args.word(3))?;
    count(db, args, Bounds::Scores(bounds), reply)
}

pub(super) const ZLEXCOUNT: Command = Command {
    name: "ZLEXCOUNT",
    syntax: "key min max",
    summary: "Counts the members within a range of members, where all scores are equal.",
    since: "2.8.9",
    complexity: "O(log(N))",
    group: Group::SortedSet,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(zlexcount),
    subcommands: &[],
};

fn zlexcount(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let bounds = MemberBounds::read(args.word(2), args.word(3))?;
    count(db, args, Bounds::Members(bounds), reply)
}

fn count(db: &Db<'_>, args: &Args<'_>, bounds: Bounds<'_>, reply: &mut Reply) -> Result {
    let set = db.read::<SortedSet>(args.key(1))?;
    let count = set.map_or(0, |set| bounds.ranks(set, Order::Ascending).len());
    reply.integer(count as i64);
    Ok(())
}

pub(super) const ZRANK: Command = Command {
    name: "ZRANK",
    syntax: "key member [WITHSCORE]",
    summary: "Returns how many members have a lower score than a member.",
    since: "2.0.0",
    complexity: "O(log(N))",
    group: Group::SortedSet,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(zrank),
    subcommands: &[],
};

fn zrank(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    rank(db, args, Order::Ascending, reply)
}

pub(super) const ZREVRANK: Command = Command {
    name: "ZREVRANK",
    syntax: "key member [WITHSCORE]",
    summary: "Returns how many members have a higher score than a member.",
    since: "2.0.0",
    complexity: "O(log(N))",
    group: Group::SortedSet,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(zrevrank),
    subcommands: &[],
};

fn zrevrank(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    rank(db, args, Order::Descending, reply)
}

fn rank(db: &Db<'_>, args: &Args<'_>, order: Order, reply: &mut Reply) -> Result {
    if args.len() > 4 {
        return Err(Error::wrong_arity(match order {
            Order::Ascending => "zrank",
            Order::Descending => "zrevrank",
        }));
    }
    let with_score = args.len() == 4;
    if with_score && !args.is(3, "WITHSCORE") {
        return Err(Error::SYNTAX);
    }
    let set = db.read::<SortedSet>(args.key(1))?;
    let found = set.and_then(|set| {
        let (rank, score) = set.rank(args.word(2))?;
        match order {
            Order::Ascending => Some((rank, score)),
            Order::Descending => Some((set.len() - 1 - rank, score)),
        }
    });
    match found {
        Some((rank, score)) if with_score => {
            reply.array(2);
            reply.integer(rank as i64);
            reply.double(score);
        }
        Some((rank, _)) => reply.integer(rank as i64),
        None if with_score => reply.null_array(),
        None => reply.null(),
    }
    Ok(())
}
