//! Intersections, unions and differences of sets.
//!
//! Those that are only returned and are not small are worked out on clones of the sets, which are cheap, in slices
//! after the locks are released; those that are stored are worked out under the locks.

use std::cmp::Reverse;

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
    let mut common = 0;
    if let Some(sets) = operands(db, args, 2, 2 + count, Intersection)? {
        let (first, others) = sets.split_at(1);
        let members = first[0].iter();
        common = members
            .filter(|&member| Intersection.keeps(member, others))
            .take(limit)
            .count();
    }
    reply.integer(common as i64);
    Ok(())
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
    let limits = limits(db.settings());
    if operation.effort(&sets) > WRITE_HERE {
        reply.later = Some(Box::new(Combination::new(operation, &sets, limits)));
        return Ok(());
    }
    match operation {
        Union => {
            let result = combine(operation, &sets, &limits);
            reply.set(result.len());
            result.iter().for_each(|member| write_member(reply, member));
        }
        Intersection | Difference => {
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
        }
    }
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
        Some(sets) => combine(operation, &sets, &limits),
        None => Set::new(),
    };
    db.delete_met_expired();
    let len = store(db, args.key(1), result, event);
    reply.integer(len as i64);
    Ok(())
}

/// The result of an operation on at least one set.
fn combine(operation: Operation, sets: &[&Set], limits: &Limits) -> Set {
    let (first, others) = sets.split_at(1);
    let members = first[0].iter();
    match operation {
        Union => Set::from_members(sets.iter().flat_map(|set| set.iter()), limits),
        Difference if removing_is_less_work(sets) => {
            let mut result = Set::from_members(members, limits);
            for member in others.iter().flat_map(|set| set.iter()) {
                result.remove(member);
                if result.is_empty() {
                    break;
                }
            }
            result
        }
        Difference => {
            let kept = members.filter(|&member| operation.keeps(member, others));
            Set::from_members(kept, limits)
        }
        Intersection => {
            // As clients see it in the encoding: what comes from no integer set begins as a list, and becomes one at
            // the end only if it suits.
            let mut result = match first[0].encoding() {
                Encoding::IntSet => Set::new(),
                Encoding::ListPack | Encoding::HashTable => Set::new_packed(),
            };
            let mut integers = true;
            for member in members.filter(|&member| operation.keeps(member, others)) {
                integers &= member.integer().is_some();
                result.add(member, limits);
            }
            if integers && result.len() <= limits.max_intset_entries {
                result = Set::from_members(result.iter(), limits);
            }
            result
        }
    }
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
    fn keeps(self, member: Element<'_>, others: &[impl std::borrow::Borrow<Set>]) -> bool {
        match self {
            Intersection => others.iter().all(|set| set.borrow().contains(member)),
            Difference => !others.iter().any(|set| set.borrow().contains(member)),
            Union => true,
        }
    }

    /// About how many members have to be looked at.
    fn effort(self, sets: &[&Set]) -> usize {
        match self {
            Union => sets.iter().map(|set| set.len()).sum(),
            Intersection | Difference => sets[0].len().saturating_mul(sets.len()),
        }
    }
}

/// An operation that is worked out and then written, a slice at a time.
struct Combination {
    operation: Operation,
    sets: Vec<Set>,
    limits: Limits,
    result: Set,
    /// The set that is being walked, beyond the last one the result.
    at: usize,
    cursor: u64,
    header_written: bool,
}

impl Combination {
    fn new(operation: Operation, sets: &[&Set], limits: Limits) -> Combination {
        Combination {
            operation,
            sets: sets.iter().map(|&set| set.clone()).collect(),
            limits,
            result: Set::new(),
            at: 0,
            cursor: 0,
            header_written: false,
        }
    }

    /// How many sets are walked; the others are only asked.
    fn walked(&self) -> usize {
        match self.operation {
            Union => self.sets.len(),
            Intersection | Difference => 1,
        }
    }

    fn work(&mut self) {
        let Combination {
            operation,
            sets,
            limits,
            result,
            at,
            cursor,
            ..
        } = self;
        let budget = match operation {
            Union => SLICE,
            Intersection | Difference => (SLICE / sets.len()).max(1),
        };
        *cursor = sets[*at].scan(*cursor, budget, |member| {
            if operation.keeps(member, &sets[*at + 1..]) {
                result.add(member, limits);
            }
        });
        if *cursor == 0 {
            *at += 1;
        }
    }
}

impl Later for Combination {
    fn write(&mut self, reply: &mut ReplyWriter) -> bool {
        if self.at < self.walked() {
            self.work();
            return false;
        }
        if !self.header_written {
            self.header_written = true;
            reply.set(self.result.len());
        }
        let writes = |member: Element<'_>| write_member(reply, member);
        self.cursor = self.result.scan(self.cursor, SLICE, writes);
        self.cursor == 0
    }
}
