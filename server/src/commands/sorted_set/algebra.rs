//! Unions, intersections and differences of sorted sets and sets, whose members count as having the score 1.
//!
//! The inputs are cloned, which is cheap. What comes of small ones is gathered and put in order at once, what comes of
//! big ones is built in slices without the locks.

use std::{borrow::Cow, ops::Range};

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
        sorted_set::{Limits, SortedSet},
    },
};

use super::{LARGE, Order, SLICE, Shown, WRITTEN_AT_ONCE, build, fit, limits, store, write_slice};
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Place, Reply, Result, Run},
    error::Error,
    preparation::Work,
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
    if request.effort() <= WRITTEN_AT_ONCE {
        let entries = request.entries();
        shown.begin(entries.len(), reply);
        let entries = entries.iter();
        entries.for_each(|(member, score)| shown.write(member, *score, reply));
        return Ok(());
    }
    let mut combination = Combination::new(request, limits(db));
    let mut ranks: Option<Range<usize>> = None;
    reply.later(move |reply: &mut ReplyWriter| {
        let Some(left) = &mut ranks else {
            if combination.build_some() {
                let len = combination.result.len();
                shown.begin(len, reply);
                ranks = Some(0..len);
            }
            return false;
        };
        let slice = left.start..(left.start + SLICE).min(left.end);
        left.start = slice.end;
        write_slice(reply, &combination.result, slice, Order::Ascending, shown);
        left.start == left.end
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
    let limit = match request.limit {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let is_small = request.effort() <= WRITTEN_AT_ONCE;
    let (mut count, mut cursor) = (0, 0);
    let mut counts = move |reply: &mut ReplyWriter| {
        let [smallest, others @ ..] = request.inputs.as_slice() else {
            unreachable!("there is at least one key");
        };
        cursor = smallest.members.walk(cursor, SLICE, |member, _| {
            let mut others = others.iter();
            count += usize::from(others.all(|input| input.members.score(member).is_some()));
        });
        let is_done = cursor == 0 || count >= limit;
        if is_done {
            reply.integer(count.min(limit) as i64);
        }
        is_done
    };
    if is_small {
        while !counts(reply) {}
    } else {
        reply.later(counts);
    }
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
    let Some(result) = reply.finish(Combination::new(request?, limits(db))) else {
        return Ok(());
    };
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

    /// Visits all members, with their scores.
    fn each<'a>(&'a self, mut visit: impl FnMut(Cow<'a, [u8]>, f64)) {
        match self {
            Members::None => {}
            Members::Plain(set) => set.iter().for_each(|member| {
                let member = match member {
                    Element::Text(text) => Cow::Borrowed(text),
                    Element::Integer(_) => Cow::Owned(member.bytes(&mut Scratch::new()).to_vec()),
                };
                visit(member, 1.0);
            }),
            Members::Sorted(set) => {
                let entries = set.iter();
                entries.for_each(|(member, score)| visit(Cow::Borrowed(member), score));
            }
        }
    }

    /// Visits about `budget` members from a cursor on, at first 0. Returns the next cursor, 0 at the end.
    fn walk(&self, cursor: u64, budget: usize, mut visit: impl FnMut(&[u8], f64)) -> u64 {
        match self {
            Members::None => 0,
            Members::Plain(set) => set.scan(cursor, budget, |member| {
                visit(member.bytes(&mut Scratch::new()), 1.0);
            }),
            Members::Sorted(set) => {
                let start = usize::try_from(cursor).unwrap_or(usize::MAX);
                let end = start.saturating_add(budget).min(set.len());
                let entries = set.range(start..end);
                entries.for_each(|(member, score)| visit(member, score));
                if end < set.len() { end as u64 } else { 0 }
            }
        }
    }

    fn is_same_version(&self, other: &Members) -> bool {
        match (self, other) {
            (Members::None, Members::None) => true,
            (Members::Plain(one), Members::Plain(other)) => one.is_same_version(other),
            (Members::Sorted(one), Members::Sorted(other)) => one.is_same_version(other),
            _ => false,
        }
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

    /// About how many members have to be looked at.
    fn effort(&self) -> usize {
        let inputs = self.inputs.iter().map(|input| input.members.len());
        match self.operation {
            Operation::Union => inputs.sum(),
            Operation::Intersection | Operation::Difference => {
                let first = inputs.clone().next().unwrap_or_default();
                first.saturating_mul(inputs.len())
            }
        }
    }

    /// The result in order.
    fn entries(&self) -> Entries<'_> {
        let mut entries: Entries<'_> = match self.operation {
            Operation::Union => self.union(),
            Operation::Intersection | Operation::Difference => {
                let mut entries = Entries::new();
                self.inputs[0].members.each(|member, score| {
                    if let Some(score) = self.result_score(&member, score) {
                        entries.push((member, score));
                    }
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
            });
        }
        scores.into_iter().collect()
    }

    /// The score in an intersection or difference of a member of the first input, if it belongs there.
    fn result_score(&self, member: &[u8], score: f64) -> Option<f64> {
        let (first, others) = self.inputs.split_first()?;
        if self.operation == Operation::Difference {
            let is_elsewhere = |input: &Input| input.members.score(member).is_some();
            return (!others.iter().any(is_elsewhere)).then_some(score);
        }
        let weighted = number_or_zero(score * first.weight);
        others.iter().try_fold(weighted, |result, input| {
            let score = input.members.score(member)?;
            Some(self.aggregate.of(result, score * input.weight))
        })
    }
}

/// A request that is worked out a slice at a time.
struct Combination {
    request: Request,
    limits: Limits,
    result: SortedSet,
    /// The input that is being walked.
    at: usize,
    cursor: u64,
}

impl Combination {
    fn new(request: Request, limits: Limits) -> Combination {
        Combination {
            request,
            limits,
            result: SortedSet::new(),
            at: 0,
            cursor: 0,
        }
    }

    /// Walks some members of the inputs. True when the result is complete; it is then in the large encoding.
    fn build_some(&mut self) -> bool {
        let Combination {
            request, result, ..
        } = self;
        let input = &request.inputs[self.at];
        let walked = match request.operation {
            Operation::Union => {
                self.cursor = input.members.walk(self.cursor, SLICE, |member, score| {
                    let mut new = number_or_zero(score * input.weight);
                    result.alter(member, &LARGE, |sum| {
                        new = sum.map_or(new, |sum| request.aggregate.of(sum, new));
                        Some(new)
                    });
                    if new == 0.0 {
                        // Zeros are equal whatever their sign, so an old one has stayed.
                        result.remove(member);
                        result.insert(member, new, &LARGE);
                    }
                });
                request.inputs.len()
            }
            Operation::Intersection | Operation::Difference => {
                self.cursor = input.members.walk(self.cursor, SLICE, |member, score| {
                    if let Some(score) = request.result_score(member, score) {
                        result.insert(member, score, &LARGE);
                    }
                });
                1
            }
        };
        if self.cursor == 0 {
            self.at += 1;
        }
        self.at == walked
    }
}

impl Work for Combination {
    type Outcome = SortedSet;

    fn effort(&self) -> usize {
        self.request.effort()
    }

    fn advance(&mut self) -> bool {
        if self.request.effort() <= WRITTEN_AT_ONCE {
            self.result = build(&self.request.entries(), &self.limits);
            return true;
        }
        let is_built = self.build_some();
        if is_built {
            fit(&mut self.result, &self.limits);
        }
        is_built
    }

    fn outcome(&mut self) -> SortedSet {
        std::mem::take(&mut self.result)
    }

    fn has_sources_of(&self, begun: &Combination) -> bool {
        let (inputs, others) = (&self.request.inputs, &begun.request.inputs);
        let mut pairs = inputs.iter().zip(others);
        inputs.len() == others.len()
            && pairs.all(|(one, other)| one.members.is_same_version(&other.members))
    }
}
