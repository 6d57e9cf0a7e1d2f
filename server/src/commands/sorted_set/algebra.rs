//! Unions, intersections and differences of sorted sets and sets, whose members count as having the score 1.
//!
//! The inputs are cloned, which is cheap, so that those who only ask for the result get it computed after the locks are
//! released.

use std::{borrow::Cow, ops::ControlFlow};

use hashbrown::HashMap;
use protocol::resp::reply::ReplyWriter;
use smallvec::SmallVec;
use storage::{
    db::Db,
    keyspace::Key,
    value::{
        ValueRef,
        element::{Element, Scratch},
        number,
        set::Set,
        sorted_set::SortedSet,
    },
};

use super::{SLICE, Shown, WRITTEN_AT_ONCE, build, store};
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Place, Reply, Result, Run},
    error::Error,
};

pub(super) const ZUNION: Command = Command {
    name: "ZUNION",
    syntax: "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]",
    summary: "Returns the union of sorted sets.",
    since: "6.2.0",
    complexity: "O(N)+O(M*log(M)) for N members in all and M in the result",
    group: Group::SortedSet,
    arity: AtLeast(3),
    keys: &[Keys {
        place: Place::Count { at: 1 },
        access: Access::Read,
    }],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(zunion),
    subcommands: &[],
};

fn zunion(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    combine(db, args, Operation::Union, reply)
}

pub(super) const ZINTER: Command = Command {
    name: "ZINTER",
    syntax: "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]",
    summary: "Returns the intersection of sorted sets.",
    since: "6.2.0",
    complexity: "O(N*K)+O(M*log(M)) for K sets, the smallest with N members, and M members in the result",
    group: Group::SortedSet,
    arity: AtLeast(3),
    keys: &[Keys {
        place: Place::Count { at: 1 },
        access: Access::Read,
    }],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(zinter),
    subcommands: &[],
};

fn zinter(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    combine(db, args, Operation::Intersection, reply)
}

pub(super) const ZDIFF: Command = Command {
    name: "ZDIFF",
    syntax: "numkeys key [key ...] [WITHSCORES]",
    summary: "Returns the members of the first sorted set that are in none of the others.",
    since: "6.2.0",
    complexity: "O(L*K)+O(N*log(N)) for K sets, the first with L members, and N in the result",
    group: Group::SortedSet,
    arity: AtLeast(3),
    keys: &[Keys {
        place: Place::Count { at: 1 },
        access: Access::Read,
    }],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(zdiff),
    subcommands: &[],
};

fn zdiff(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    combine(db, args, Operation::Difference, reply)
}

fn combine(db: &Db<'_>, args: &Args<'_>, operation: Operation, reply: &mut Reply) -> Result {
    let request = Request::read(db, args, 1, operation, Answer::Entries)?;
    let shown = match request.with_scores {
        true => Shown::with_scores(reply),
        false => Shown::Members,
    };
    if request.members() <= WRITTEN_AT_ONCE {
        let entries = request.entries();
        shown.begin(entries.len(), reply);
        let entries = entries.iter();
        entries.for_each(|(member, score)| shown.write(member, *score, reply));
        return Ok(());
    }
    let mut result: Option<std::vec::IntoIter<(Box<[u8]>, f64)>> = None;
    reply.later(move |reply: &mut ReplyWriter| {
        let entries = result.get_or_insert_with(|| {
            let entries = request.entries().into_iter();
            let owned = entries.map(|(member, score)| (Box::from(&*member), score));
            let owned: Vec<_> = owned.collect();
            shown.begin(owned.len(), reply);
            owned.into_iter()
        });
        let slice = entries.by_ref().take(SLICE);
        slice.for_each(|(member, score)| shown.write(&member, score, reply));
        entries.len() == 0
    });
    Ok(())
}

pub(super) const ZINTERCARD: Command = Command {
    name: "ZINTERCARD",
    syntax: "numkeys key [key ...] [LIMIT limit]",
    summary: "Counts the members of the intersection of sorted sets.",
    since: "7.0.0",
    complexity: "O(N*K) for K sets, the smallest with N members",
    group: Group::SortedSet,
    arity: AtLeast(3),
    keys: &[Keys {
        place: Place::Count { at: 1 },
        access: Access::Read,
    }],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(zintercard),
    subcommands: &[],
};

fn zintercard(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let request = Request::read(db, args, 1, Operation::Intersection, Answer::Count)?;
    let mut count = 0;
    request.intersect(|_, _| {
        count += 1;
        match count == request.limit {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    reply.integer(count);
    Ok(())
}

pub(super) const ZUNIONSTORE: Command = Command {
    name: "ZUNIONSTORE",
    syntax: "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]",
    summary: "Stores the union of sorted sets.",
    since: "2.0.0",
    complexity: "O(N)+O(M*log(M)) for N members in all and M in the result",
    group: Group::SortedSet,
    arity: AtLeast(4),
    keys: &[
        Keys::at(1, Access::Overwrite),
        Keys {
            place: Place::Count { at: 2 },
            access: Access::Read,
        },
    ],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(zunionstore),
    subcommands: &[],
};

fn zunionstore(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    combine_and_store(db, args, Operation::Union, reply)
}

pub(super) const ZINTERSTORE: Command = Command {
    name: "ZINTERSTORE",
    syntax: "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]",
    summary: "Stores the intersection of sorted sets.",
    since: "2.0.0",
    complexity: "O(N*K)+O(M*log(M)) for K sets, the smallest with N members, and M members in the result",
    group: Group::SortedSet,
    arity: AtLeast(4),
    keys: &[
        Keys::at(1, Access::Overwrite),
        Keys {
            place: Place::Count { at: 2 },
            access: Access::Read,
        },
    ],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(zinterstore),
    subcommands: &[],
};

fn zinterstore(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    combine_and_store(db, args, Operation::Intersection, reply)
}

pub(super) const ZDIFFSTORE: Command = Command {
    name: "ZDIFFSTORE",
    syntax: "destination numkeys key [key ...]",
    summary: "Stores the members of the first sorted set that are in none of the others.",
    since: "6.2.0",
    complexity: "O(L*K)+O(N*log(N)) for K sets, the first with L members, and N in the result",
    group: Group::SortedSet,
    arity: AtLeast(4),
    keys: &[
        Keys::at(1, Access::Overwrite),
        Keys {
            place: Place::Count { at: 2 },
            access: Access::Read,
        },
    ],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(zdiffstore),
    subcommands: &[],
};

fn zdiffstore(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    combine_and_store(db, args, Operation::Difference, reply)
}

fn combine_and_store(
    db: &mut Db<'_>,
    args: &Args<'_>,
    operation: Operation,
    reply: &mut Reply,
) -> Result {
    let request = Request::read(db, args, 2, operation, Answer::Stored);
    db.delete_met_expired();
    let request = request?;
    let result = build(db, &request.entries());
    let event = match operation {
        Operation::Union => "zunionstore",
        Operation::Intersection => "zinterstore",
        Operation::Difference => "zdiffstore",
    };
    reply.integer(store(db, args.key(1), result, event) as i64);
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// What becomes of the result, on which the options depend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Entries,
    Count,
    Stored,
}

/// How the scores of a member that is in several sets become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn read(word: &[u8]) -> Result<Aggregate> {
        match word.to_ascii_uppercase().as_slice() {
            b"SUM" => Ok(Aggregate::Sum),
            b"MIN" => Ok(Aggregate::Min),
            b"MAX" => Ok(Aggregate::Max),
            _ => Err(Error::SYNTAX),
        }
    }

    fn of(self, score: f64, other: f64) -> f64 {
        match self {
            Aggregate::Sum => number_or_zero(score + other),
            Aggregate::Min if other < score => other,
            Aggregate::Max if other > score => other,
            Aggregate::Min | Aggregate::Max => score,
        }
    }
}

/// Infinities that cancel each other, and those multiplied by zero, make 0.
fn number_or_zero(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// One of the sets, with the factor for its scores.
struct Input {
    members: Members,
    weight: f64,
}

enum Members {
    None,
    Plain(Set),
    Sorted(SortedSet),
}

impl Members {
    fn of(db: &Db<'_>, key: Key<'_>) -> Result<Members> {
        match db.get(key).map(|entry| entry.value()) {
            None => Ok(Members::None),
            Some(ValueRef::Set(set)) => Ok(Members::Plain(set.clone())),
            Some(ValueRef::SortedSet(set)) => Ok(Members::Sorted(set.clone())),
            Some(_) => Err(Error::WRONG_TYPE),
        }
    }

    fn len(&self) -> usize {
        match self {
            Members::None => 0,
            Members::Plain(set) => set.len(),
            Members::Sorted(set) => set.len(),
        }
    }

    fn score(&self, member: &[u8]) -> Option<f64> {
        match self {
            Members::None => None,
            Members::Plain(set) => set.contains(Element::new(member)).then_some(1.0),
            Members::Sorted(set) => set.score(member),
        }
    }

    /// Visits members and scores until told to stop.
    fn each<'a>(&'a self, mut visit: impl FnMut(Cow<'a, [u8]>, f64) -> ControlFlow<()>) {
        let _ = match self {
            Members::None => ControlFlow::Continue(()),
            Members::Plain(set) => set.iter().try_for_each(|member| {
                let member = match member {
                    Element::Text(text) => Cow::Borrowed(text),
                    Element::Integer(_) => Cow::Owned(member.bytes(&mut Scratch::new()).to_vec()),
                };
                visit(member, 1.0)
            }),
            Members::Sorted(set) => set
                .iter()
                .try_for_each(|(member, score)| visit(Cow::Borrowed(member), score)),
        };
    }
}

/// A result's entries; those of sorted sets are borrowed from them.
type Entries<'a> = Vec<(Cow<'a, [u8]>, f64)>;

struct Request {
    operation: Operation,
    /// From the smallest to the largest, but in the order they were named for a difference.
    inputs: SmallVec<[Input; 4]>,
    aggregate: Aggregate,
    with_scores: bool,
    /// How far ZINTERCARD counts; 0 is without end.
    limit: i64,
}

impl Request {
    /// Reads the words from the number of keys on, and the keys.
    ///
    /// A key of the wrong type is told before options that are wrong, as clients may expect.
    fn read(
        db: &Db<'_>,
        args: &Args<'_>,
        at: usize,
        operation: Operation,
        answer: Answer,
    ) -> Result<Request> {
        let count = args.integer(at)?;
        if count < 1 {
            let name = String::from_utf8_lossy(args.word(0)).to_ascii_lowercase();
            return Err(Error::general(format!(
                "at least 1 input key is needed for '{name}' command"
            )));
        }
        let first = at + 1;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > args.len() - first {
            return Err(Error::SYNTAX);
        }
        let mut request = Request {
            operation,
            inputs: SmallVec::with_capacity(count),
            aggregate: Aggregate::Sum,
            with_scores: false,
            limit: 0,
        };
        for index in first..first + count {
            request.inputs.push(Input {
                members: Members::of(db, args.key(index))?,
                weight: 1.0,
            });
        }
        request.read_options(args, first + count, answer)?;
        if operation != Operation::Difference {
            request.inputs.sort_by_key(|input| input.members.len());
        }
        Ok(request)
    }

    fn read_options(&mut self, args: &Args<'_>, first: usize, answer: Answer) -> Result {
        const BAD_WEIGHT: Error = Error::from_static("ERR weight value is not a float");
        const BAD_LIMIT: Error = Error::from_static("ERR LIMIT can't be negative");
        let weighs = self.operation != Operation::Difference && answer != Answer::Count;
        let mut index = first;
        while index < args.len() {
            let behind = args.len() - index - 1;
            if weighs && args.is(index, "WEIGHTS") && behind >= self.inputs.len() {
                for input in &mut self.inputs {
                    index += 1;
                    input.weight = number::parse_f64(args.word(index)).ok_or(BAD_WEIGHT)?;
                }
            } else if weighs && args.is(index, "AGGREGATE") && behind >= 1 {
                index += 1;
                self.aggregate = Aggregate::read(args.word(index))?;
            } else if answer == Answer::Entries && args.is(index, "WITHSCORES") {
                self.with_scores = true;
            } else if answer == Answer::Count && args.is(index, "LIMIT") && behind >= 1 {
                index += 1;
                let limit = number::parse_i64(args.word(index)).filter(|&limit| limit >= 0);
                self.limit = limit.ok_or(BAD_LIMIT)?;
            } else {
                return Err(Error::SYNTAX);
            }
            index += 1;
        }
        Ok(())
    }

    /// How many members the inputs have together.
    fn members(&self) -> usize {
        self.inputs.iter().map(|input| input.members.len()).sum()
    }

    /// The result in order.
    fn entries(&self) -> Entries<'_> {
        let mut entries = match self.operation {
            Operation::Union => self.union(),
            Operation::Difference => self.difference(),
            Operation::Intersection => {
                let mut entries = Entries::new();
                self.intersect(|member, score| {
                    entries.push((member, score));
                    ControlFlow::Continue(())
                });
                entries
            }
        };
        entries.sort_unstable_by(|(member, score), (other, other_score)| {
            let scores = score.partial_cmp(other_score);
            let scores = scores.expect("results are numbers");
            scores.then_with(|| member.cmp(other))
        });
        entries
    }

    fn union(&self) -> Entries<'_> {
        let mut scores: HashMap<Cow<'_, [u8]>, f64> =
            HashMap::with_capacity(self.inputs.last().map_or(0, |input| input.members.len()));
        for input in &self.inputs {
            input.members.each(|member, score| {
                let score = number_or_zero(score * input.weight);
                scores
                    .entry(member)
                    .and_modify(|sum| *sum = self.aggregate.of(*sum, score))
                    .or_insert(score);
                ControlFlow::Continue(())
            });
        }
        scores.into_iter().collect()
    }

    /// Visits the members that all inputs have, in the order of the smallest input.
    fn intersect<'a>(&'a self, mut visit: impl FnMut(Cow<'a, [u8]>, f64) -> ControlFlow<()>) {
        let [smallest, others @ ..] = self.inputs.as_slice() else {
            return;
        };
        smallest.members.each(|member, score| {
            let mut result = number_or_zero(score * smallest.weight);
            for input in others {
                let Some(score) = input.members.score(&member) else {
                    return ControlFlow::Continue(());
                };
                result = self.aggregate.of(result, score * input.weight);
            }
            visit(member, result)
        });
    }

    fn difference(&self) -> Entries<'_> {
        let [first, others @ ..] = self.inputs.as_slice() else {
            return Vec::new();
        };
        let mut entries = Entries::new();
        first.members.each(|member, score| {
            if others
                .iter()
                .all(|input| input.members.score(&member).is_none())
            {
                entries.push((member, score));
            }
            ControlFlow::Continue(())
        });
        entries
    }
}
