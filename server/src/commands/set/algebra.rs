//! Intersections, unions and differences of sets.
//!
//! Those that are not small are worked out on clones of the sets, which are cheap, in slices without the locks.

use std::{borrow::Borrow, cmp::Reverse};

use protocol::resp::reply::ReplyWriter;
use storage::{
    db::Db,
    value::{
        element::Element,
        number,
        set::{Encoding, Limits, Set},
    },
};

use super::{SLICE, WRITE_HERE, limits, store, write_member};
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Later, Place, Reply, Result, Run},
    error::Error,
    preparation::Work,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Intersection,
    Union,
    Difference,
}

use Operation::{Difference, Intersection, Union};

pub(super) const SINTER: Command = Command {
    name: "SINTER",
    syntax: "key [key ...]",
    summary: "Returns the members that all sets have.",
    since: "1.0.0",
    complexity: "O(N * M) for the smallest set of N members and M sets",
    group: Group::Set,
    arity: AtLeast(2),
    keys: &[Keys::all(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(sinter),
    subcommands: &[],
};

fn sinter(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    answer(db, args, Intersection, reply)
}

pub(super) const SUNION: Command = Command {
    name: "SUNION",
    syntax: "key [key ...]",
    summary: "Returns the members that any of the sets has.",
    since: "1.0.0",
    complexity: "O(N) for N members of all sets",
    group: Group::Set,
    arity: AtLeast(2),
    keys: &[Keys::all(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(sunion),
    subcommands: &[],
};

fn sunion(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    answer(db, args, Union, reply)
}

pub(super) const SDIFF: Command = Command {
    name: "SDIFF",
    syntax: "key [key ...]",
    summary: "Returns the members of the first set that no other has.",
    since: "1.0.0",
    complexity: "O(N * M) for a first set of N members and M sets",
    group: Group::Set,
    arity: AtLeast(2),
    keys: &[Keys::all(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(sdiff),
    subcommands: &[],
};

fn sdiff(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    answer(db, args, Difference, reply)
}

pub(super) const SINTERSTORE: Command = Command {
    name: "SINTERSTORE",
    syntax: "destination key [key ...]",
    summary: "Stores the members that all sets have.",
    since: "1.0.0",
    complexity: "O(N * M) for the smallest set of N members and M sets",
    group: Group::Set,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Overwrite), Keys::all(2, Access::Read)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(sinterstore),
    subcommands: &[],
};

fn sinterstore(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    keep(db, args, Intersection, "sinterstore", reply)
}

pub(super) const SUNIONSTORE: Command = Command {
    name: "SUNIONSTORE",
    syntax: "destination key [key ...]",
    summary: "Stores the members that any of the sets has.",
    since: "1.0.0",
    complexity: "O(N) for N members of all sets",
    group: Group::Set,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Overwrite), Keys::all(2, Access::Read)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(sunionstore),
    subcommands: &[],
};

fn sunionstore(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    keep(db, args, Union, "sunionstore", reply)
}

pub(super) const SDIFFSTORE: Command = Command {
    name: "SDIFFSTORE",
    syntax: "destination key [key ...]",
    summary: "Stores the members of the first set that no other has.",
    since: "1.0.0",
    complexity: "O(N * M) for a first set of N members and M sets",
    group: Group::Set,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Overwrite), Keys::all(2, Access::Read)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(sdiffstore),
    subcommands: &[],
};

fn sdiffstore(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    keep(db, args, Difference, "sdiffstore", reply)
}

pub(super) const SINTERCARD: Command = Command {
    name: "SINTERCARD",
    syntax: "numkeys key [key ...] [LIMIT limit]",
    summary: "Counts the members that all sets have, up to a limit.",
    since: "7.0.0",
    complexity: "O(N * M) for the smallest set of N members and M sets",
    group: Group::Set,
    arity: AtLeast(3),
    keys: &[Keys {
        place: Place::Count { at: 1 },
        access: Access::Read,
    }],
    flags: &[Flag::ReadOnly, Flag::MovableKeys],
    categories: &[],
    run: Run::Read(sintercard),
    subcommands: &[],
};

fn sintercard(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    const BAD_COUNT: Error = Error::from_static("ERR numkeys should be greater than 0");
    const TOO_MANY: Error =
        Error::from_static("ERR Number of keys can't be greater than number of args");
    let count = number::parse_i64(args.word(1)).filter(|&count| count > 0);
    let count = usize::try_from(count.ok_or(BAD_COUNT)?).unwrap_or(usize::MAX);
    if count > args.len() - 2 {
        return Err(TOO_MANY);
    }
    let limit = read_limit(args, 2 + count)?;
    let Some(sets) = operands(db, args, 2, 2 + count, Intersection)? else {
        reply.integer(0);
        return Ok(());
    };
    if Intersection.effort(&sets) > WRITE_HERE {
        count_later(sets.into_iter().cloned().collect(), limit, reply);
        return Ok(());
    }
    let (first, others) = sets.split_at(1);
    let members = first[0].iter();
    let common = members.filter(|&member| Intersection.keeps(member, others));
    reply.integer(common.take(limit).count() as i64);
    Ok(())
}

/// Counts the members that all sets have, in slices without the locks.
fn count_later(sets: Vec<Set>, limit: usize, reply: &mut Reply) {
    let (mut common, mut cursor) = (0, 0);
    reply.later(move |writer: &mut ReplyWriter| {
        let (first, others) = sets.split_at(1);
        cursor = first[0].scan(cursor, (SLICE / sets.len()).max(1), |member| {
            common += usize::from(Intersection.keeps(member, others));
        });
        let is_done = cursor == 0 || common >= limit;
        if is_done {
            writer.integer(common.min(limit) as i64);
        }
        is_done
    });
}

/// `LIMIT limit`, any number of times; 0 is none.
fn read_limit(args: &Args<'_>, first: usize) -> Result<usize> {
    const NEGATIVE: Error = Error::from_static("ERR LIMIT can't be negative");
    let mut limit = usize::MAX;
    for index in (first..args.len()).step_by(2) {
        if !args.is(index, "LIMIT") || index + 1 == args.len() {
            return Err(Error::SYNTAX);
        }
        let given = number::parse_i64(args.word(index + 1)).filter(|&limit| limit >= 0);
        limit = match given.ok_or(NEGATIVE)? {
            0 => usize::MAX,
            given => usize::try_from(given).unwrap_or(usize::MAX),
        };
    }
    Ok(limit)
}

/// The sets that the words from `from` to `to` name, in the order that serves the operation best. `None` if the result
/// is empty whatever the others hold.
///
/// # Errors
/// `WRONGTYPE` if any of the keys, needed or not, is of another type.
fn operands<'d>(
    db: &'d Db<'_>,
    args: &Args<'_>,
    from: usize,
    to: usize,
    operation: Operation,
) -> Result<Option<Vec<&'d Set>>> {
    let mut sets = Vec::with_capacity(to - from);
    let mut empty = false;
    for index in from..to {
        match db.read::<Set>(args.key(index))? {
            Some(set) => sets.push(set),
            None => empty |= operation == Intersection || operation == Difference && index == from,
        }
    }
    match operation {
        Intersection => sets.sort_by_key(|set| set.len()),
        // The largest most likely has a member that is to be left out.
        Difference if !empty => sets[1..].sort_by_key(|set| Reverse(set.len())),
        Union | Difference => {}
    }
    Ok(Some(sets).filter(|sets| !empty && !sets.is_empty()))
}

fn answer(db: &Db<'_>, args: &Args<'_>, operation: Operation, reply: &mut Reply) -> Result {
    let Some(sets) = operands(db, args, 1, args.len(), operation)? else {
        reply.set(0);
        return Ok(());
    };
    if operation == Union || operation.effort(&sets) > WRITE_HERE {
        let combination = Combination::new(operation, &sets, limits(db.settings()));
        let is_small = combination.effort() <= WRITE_HERE;
        let mut answer = Answer::new(combination);
        if is_small {
            while !answer.write(reply) {}
        } else {
            reply.later = Some(Box::new(answer));
        }
        return Ok(());
    }
    let slot = reply.array_deferred();
    let mut len = 0;
    let (first, others) = sets.split_at(1);
    for member in first[0].iter() {
        if operation.keeps(member, others) {
            write_member(reply, member);
            len += 1;
        }
    }
    reply.set_set_len(slot, len);
    Ok(())
}

fn keep(
    db: &mut Db<'_>,
    args: &Args<'_>,
    operation: Operation,
    event: &'static str,
    reply: &mut Reply,
) -> Result {
    let limits = limits(db.settings());
    let result = match operands(db, args, 2, args.len(), operation)? {
        Some(sets) => match reply.finish(Combination::new(operation, &sets, limits)) {
            Some(result) => result,
            None => return Ok(()),
        },
        None => Set::new(),
    };
    let len = store(db, args.key(1), result, event);
    reply.integer(len as i64);
    Ok(())
}

/// Whether to remove the other sets' members from the first one rather than ask them for each of its members: the rule
/// that clients see the outcome of, since a set that was large once stays a table.
fn removing_is_less_work(sets: &[&Set]) -> bool {
    let asking = sets[0].len().saturating_mul(sets.len()) / 2;
    let removing: usize = sets.iter().map(|set| set.len()).sum();
    asking > removing
}

impl Operation {
    /// Whether a member of the first set is in the result.
    #[inline]
    fn keeps(self, member: Element<'_>, others: &[impl Borrow<Set>]) -> bool {
        match self {
            Intersection => others.iter().all(|set| set.borrow().contains(member)),
            Difference => !others.iter().any(|set| set.borrow().contains(member)),
            Union => true,
        }
    }

    /// About how many members have to be looked at.
    fn effort(self, sets: &[impl Borrow<Set>]) -> usize {
        match self {
            Union => sets.iter().map(|set| set.borrow().len()).sum(),
            Intersection | Difference => sets[0].borrow().len().saturating_mul(sets.len()),
        }
    }
}

/// An operation on at least one set that is worked out a slice at a time.
struct Combination {
    operation: Operation,
    sets: Vec<Set>,
    limits: Limits,
    /// The other sets' members are removed from the first one's, instead of asking for each of those.
    removes: bool,
    result: Set,
    /// All members of the result so far are integers.
    integers: bool,
    /// The set that is being walked.
    at: usize,
    cursor: u64,
}

impl Combination {
    fn new(operation: Operation, sets: &[&Set], limits: Limits) -> Combination {
        // As clients see it in the encoding: what an intersection takes from no integer set begins as a list, and
        // becomes integers at the end only if that suits.
        let result = match (operation, sets[0].encoding()) {
            (Intersection, Encoding::ListPack | Encoding::HashTable) => Set::new_packed(),
            _ => Set::new(),
        };
        Combination {
            operation,
            sets: sets.iter().map(|&set| set.clone()).collect(),
            limits,
            removes: operation == Difference && removing_is_less_work(sets),
            result,
            integers: true,
            at: 0,
            cursor: 0,
        }
    }

    /// How many sets are walked; the others are only asked.
    fn walked(&self) -> usize {
        if self.operation == Union || self.removes {
            self.sets.len()
        } else {
            1
        }
    }

    fn walk(&mut self) {
        let Combination {
            operation,
            sets,
            limits,
            result,
            integers,
            at,
            ..
        } = self;
        let set = &sets[*at];
        self.cursor = if self.removes {
            set.scan(self.cursor, SLICE, |member| {
                if *at == 0 {
                    result.add(member, limits);
                } else {
                    result.remove(member);
                }
            })
        } else {
            let others = &sets[*at + 1..];
            let asked = match operation {
                Union => 1,
                Intersection | Difference => sets.len(),
            };
            set.scan(self.cursor, (SLICE / asked).max(1), |member| {
                if operation.keeps(member, others) {
                    *integers &= member.integer().is_some();
                    result.add(member, limits);
                }
            })
        };
        if self.cursor == 0 {
            self.at += 1;
        }
    }

    /// Whether nothing is left that could change the result.
    fn is_done(&self) -> bool {
        self.at == self.walked() || self.removes && self.at > 0 && self.result.is_empty()
    }
}

impl Work for Combination {
    type Outcome = Set;

    fn effort(&self) -> usize {
        self.operation.effort(&self.sets)
    }

    fn advance(&mut self) -> bool {
        if !self.is_done() {
            self.walk();
        }
        if !self.is_done() {
            return false;
        }
        let fits = self.integers && self.result.len() <= self.limits.max_intset_entries;
        if self.operation == Intersection && fits && self.result.encoding() != Encoding::IntSet {
            self.result = Set::from_members(self.result.iter(), &self.limits);
        }
        true
    }

    fn outcome(&mut self) -> Set {
        std::mem::take(&mut self.result)
    }

    fn has_sources_of(&self, begun: &Combination) -> bool {
        let mut pairs = self.sets.iter().zip(&begun.sets);
        self.sets.len() == begun.sets.len() && pairs.all(|(one, other)| one.is_same_version(other))
    }
}

/// An operation that is worked out and then written, a slice at a time.
struct Answer {
    combination: Combination,
    is_worked_out: bool,
    cursor: u64,
}

impl Answer {
    fn new(combination: Combination) -> Answer {
        Answer {
            combination,
            is_worked_out: false,
            cursor: 0,
        }
    }
}

impl Later for Answer {
    fn write(&mut self, reply: &mut ReplyWriter) -> bool {
        let result = &self.combination.result;
        if !self.is_worked_out {
            self.is_worked_out = self.combination.advance();
            if self.is_worked_out {
                reply.set(self.combination.result.len());
            }
            return false;
        }
        let writes = |member: Element<'_>| write_member(reply, member);
        self.cursor = result.scan(self.cursor, SLICE, writes);
        self.cursor == 0
    }
}
