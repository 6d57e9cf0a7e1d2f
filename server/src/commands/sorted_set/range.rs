//! Reading ranges of entries, and storing them: ZRANGE and its relatives.

use std::ops::Range;

use storage::{
    db::Db,
    value::sorted_set::{Limits, SortedSet},
};

use super::{
    LARGE, Order, SLICE, Shown,
    bounds::{Bounds, MemberBounds, RankBounds, ScoreBounds, Window},
    build, fit, limits, store, write_entries,
};
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
    error::Error,
    preparation::Work,
};

/// What the bounds of a range are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Member,
}

/// What a command's name already says.
#[derive(Clone, Copy, Debug)]
struct Form {
    by: Option<By>,
    order: Option<Order>,
    /// ZRANGESTORE: the range's key comes after another, and scores are not asked for.
    stores: bool,
}

impl Form {
    const fn of(by: By, order: Order) -> Form {
        Form {
            by: Some(by),
            order: Some(order),
            stores: false,
        }
    }
}

/// A range as it is asked for.
struct Request<'a> {
    bounds: Bounds<'a>,
    order: Order,
    window: Window,
    with_scores: bool,
}

impl<'a> Request<'a> {
    fn read(args: &Args<'a>, form: Form) -> Result<Request<'a>> {
        let first = if form.stores { 3 } else { 2 };
        let (mut by, mut order) = (form.by, form.order);
        let mut window = Window::ALL;
        let mut with_scores = false;
        let mut index = first + 2;
        while index < args.len() {
            if args.is(index, "WITHSCORES") && !form.stores {
                with_scores = true;
            } else if args.is(index, "LIMIT") && index + 2 < args.len() {
                window = Window {
                    offset: args.integer(index + 1)?,
                    count: args.integer(index + 2)?,
                };
                index += 2;
            } else if args.is(index, "REV") && order.is_none() {
                order = Some(Order::Descending);
            } else if args.is(index, "BYSCORE") && by.is_none() {
                by = Some(By::Score);
            } else if args.is(index, "BYLEX") && by.is_none() {
                by = Some(By::Member);
            } else {
                return Err(Error::SYNTAX);
            }
            index += 1;
        }
        let (by, order) = (by.unwrap_or(By::Rank), order.unwrap_or(Order::Ascending));
        if window.count != Window::ALL.count && by == By::Rank {
            return Err(Error::from_static(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Member {
            return Err(Error::from_static(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        let (one, other) = (args.word(first), args.word(first + 1));
        // Downwards the higher bound comes first.
        let (min, max) = match order {
            Order::Ascending => (one, other),
            Order::Descending => (other, one),
        };
        Ok(Request {
            bounds: match by {
                By::Rank => Bounds::Ranks(RankBounds::read(one, other)?),
                By::Score => Bounds::Scores(ScoreBounds::read(min, max)?),
                By::Member => Bounds::Members(MemberBounds::read(min, max)?),
            },
            order,
            window: if by == By::Rank { Window::ALL } else { window },
            with_scores,
        })
    }

    fn ranks(&self, set: &SortedSet) -> Range<usize> {
        let ranks = self.bounds.ranks(set, self.order);
        self.window.of(ranks, self.order, set.encoding())
    }
}

pub(super) const ZRANGE: Command = Command {
    name: "ZRANGE",
    syntax: "key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]",
    summary: "Returns a range of members.",
    since: "1.2.0",
    complexity: "O(log(N)+M) for M members returned",
    group: Group::SortedSet,
    arity: AtLeast(4),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(zrange),
    subcommands: &[],
};

fn zrange(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let form = Form {
        by: None,
        order: None,
        stores: false,
    };
    range(db, args, form, reply)
}

pub(super) const ZREVRANGE: Command = Command {
    name: "ZREVRANGE",
    syntax: "key start stop [WITHSCORES]",
    summary: "Returns a range of members by rank, from the highest score down.",
    since: "1.2.0",
    complexity: "O(log(N)+M) for M members returned",
    group: Group::SortedSet,
    arity: AtLeast(4),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(zrevrange),
    subcommands: &[],
};

fn zrevrange(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    range(db, args, Form::of(By::Rank, Order::Descending), reply)
}

pub(super) const ZRANGEBYSCORE: Command = Command {
    name: "ZRANGEBYSCORE",
    syntax: "key min max [WITHSCORES] [LIMIT offset count]",
    summary: "Returns the members whose scores are within a range.",
    since: "1.0.5",
    complexity: "O(log(N)+M) for M members returned",
    group: Group::SortedSet,
    arity: AtLeast(4),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(zrangebyscore),
    subcommands: &[],
};

fn zrangebyscore(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    range(db, args, Form::of(By::Score, Order::Ascending), reply)
}

pub(super) const ZREVRANGEBYSCORE: Command = Command {
    name: "ZREVRANGEBYSCORE",
    syntax: "key max min [WITHSCORES] [LIMIT offset count]",
    summary: "Returns the members whose scores are within a range, from the highest score down.",
    since: "2.2.0",
    complexity: "O(log(N)+M) for M members returned",
    group: Group::SortedSet,
    arity: AtLeast(4),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(zrevrangebyscore),
    subcommands: &[],
};

fn zrevrangebyscore(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    range(db, args, Form::of(By::Score, Order::Descending), reply)
}

pub(super) const ZRANGEBYLEX: Command = Command {
    name: "ZRANGEBYLEX",
    syntax: "key min max [LIMIT offset count]",
    summary: "Returns the members within a range of members, where all scores are equal.",
    since: "2.8.9",
    complexity: "O(log(N)+M) for M members returned",
    group: Group::SortedSet,
    arity: AtLeast(4),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(zrangebylex),
    subcommands: &[],
};

fn zrangebylex(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    range(db, args, Form::of(By::Member, Order::Ascending), reply)
}

pub(super) const ZREVRANGEBYLEX: Command = Command {
    name: "ZREVRANGEBYLEX",
    syntax: "key max min [LIMIT offset count]",
    summary: "Returns the members within a range of members in reverse, where all scores are equal.",
    since: "2.8.9",
    complexity: "O(log(N)+M) for M members returned",
    group: Group::SortedSet,
    arity: AtLeast(4),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(zrevrangebylex),
    subcommands: &[],
};

fn zrevrangebylex(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    range(db, args, Form::of(By::Member, Order::Descending), reply)
}

fn range(db: &Db<'_>, args: &Args<'_>, form: Form, reply: &mut Reply) -> Result {
    let request = Request::read(args, form)?;
    let Some(set) = db.read::<SortedSet>(args.key(1))? else {
        reply.array(0);
        return Ok(());
    };
    let ranks = request.ranks(set);
    let shown = match request.with_scores {
        true => Shown::with_scores(reply),
        false => Shown::Members,
    };
    shown.begin(ranks.len(), reply);
    write_entries(reply, set, ranks, request.order, shown);
    Ok(())
}

pub(super) const ZRANGESTORE: Command = Command {
    name: "ZRANGESTORE",
    syntax: "dst src min max [BYSCORE | BYLEX] [REV] [LIMIT offset count]",
    summary: "Stores a range of members.",
    since: "6.2.0",
    complexity: "O(log(N)+M) for M members stored",
    group: Group::SortedSet,
    arity: AtLeast(5),
    keys: &[Keys::at(1, Access::Overwrite), Keys::at(2, Access::Read)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(zrangestore),
    subcommands: &[],
};

fn zrangestore(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let form = Form {
        by: None,
        order: None,
        stores: true,
    };
    let request = Request::read(args, form)?;
    let result = match db.read::<SortedSet>(args.key(2))? {
        Some(set) => match reply.finish(Copy::new(set, &request, limits(db))) {
            Some(result) => result,
            None => return Ok(()),
        },
        None => SortedSet::new(),
    };
    reply.integer(store(db, args.key(1), result, "zrangestore") as i64);
    Ok(())
}

/// A range of a sorted set that becomes one of its own, a slice at a time.
struct Copy {
    source: SortedSet,
    ranks: Range<usize>,
    order: Order,
    limits: Limits,
    /// What was copied so far would have passed through the small encoding, which does not know -0: there a result is
    /// gathered as long as it fits; one whose length is known beforehand only if it fits whole.
    forgets_sign_of_zero: bool,
    result: SortedSet,
}

impl Copy {
    fn new(source: &SortedSet, request: &Request<'_>, limits: Limits) -> Copy {
        let ranks = request.ranks(source);
        let is_counted = matches!(request.bounds, Bounds::Ranks(_));
        Copy {
            source: source.clone(),
            order: request.order,
            forgets_sign_of_zero: !is_counted || ranks.len() <= limits.max_listpack_entries,
            ranks,
            limits,
            result: SortedSet::new(),
        }
    }

    /// The next entries to be copied.
    fn next_ranks(&mut self) -> Range<usize> {
        let count = self.ranks.len().min(SLICE);
        match self.order {
            Order::Ascending => {
                self.ranks.start += count;
                self.ranks.start - count..self.ranks.start
            }
            Order::Descending => {
                self.ranks.end -= count;
                self.ranks.end..self.ranks.end + count
            }
        }
    }
}

impl Work for Copy {
    type Outcome = SortedSet;

    fn effort(&self) -> usize {
        self.ranks.len()
    }

    fn advance(&mut self) -> bool {
        let ranks = self.next_ranks();
        let is_done = self.ranks.is_empty();
        let mut entries: Vec<_> = self.source.range(ranks).collect();
        if self.order == Order::Descending {
            entries.reverse();
        }
        for (at, (member, score)) in entries.iter_mut().enumerate() {
            self.forgets_sign_of_zero &= self.result.len() + at < self.limits.max_listpack_entries
                && member.len() <= self.limits.max_listpack_value;
            if self.forgets_sign_of_zero {
                *score += 0.0;
            }
        }
        if is_done && self.result.is_empty() {
            self.result = build(&entries, &self.limits);
            return true;
        }
        for (member, score) in entries {
            self.result.insert(member, score, &LARGE);
        }
        if is_done {
            fit(&mut self.result, &self.limits);
        }
        is_done
    }

    fn outcome(&mut self) -> SortedSet {
        std::mem::take(&mut self.result)
    }

    fn has_sources_of(&self, begun: &Copy) -> bool {
        self.source.is_same_version(&begun.source)
    }
}
