//! Setting scores: ZADD, ZINCRBY.

use smallvec::SmallVec;
use storage::{
    changes::EventClass,
    db::Db,
    keyspace::Key,
    value::{
        number,
        sorted_set::{Change, Limits, SortedSet},
    },
};

use super::limits;
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
    error::Error,
};

pub(super) const ZADD: Command = Command {
    name: "ZADD",
    syntax: "key [NX | XX] [GT | LT] [CH] [INCR] score member [score member ...]",
    summary: "Adds members to a sorted set, or changes their scores.",
    since: "1.2.0",
    complexity: "O(log(N)) for each member added",
    group: Group::SortedSet,
    arity: AtLeast(4),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(zadd),
    subcommands: &[],
};

fn zadd(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (rule, first) = Rule::read(args, 2);
    let words = args.len() - first;
    if words == 0 || !words.is_multiple_of(2) {
        return Err(Error::SYNTAX);
    }
    rule.check(words / 2)?;
    let scores = (first..args.len())
        .step_by(2)
        .map(|index| score(args.word(index)));
    let scores = scores.collect::<Result<SmallVec<[f64; 8]>>>()?;
    let members = args.from(first + 1).step_by(2);
    let added = add(db, args.key(1), &rule, members.zip(scores.iter().copied()))?;
    match rule.amount {
        Amount::Score if rule.counts_changes => reply.integer((added.added + added.updated) as i64),
        Amount::Score => reply.integer(added.added as i64),
        Amount::Increment => match added.score {
            Some(score) => reply.double(score),
            None => reply.null(),
        },
    }
    Ok(())
}

pub(super) const ZINCRBY: Command = Command {
    name: "ZINCRBY",
    syntax: "key increment member",
    summary: "Adds to the score of a member.",
    since: "1.2.0",
    complexity: "O(log(N))",
    group: Group::SortedSet,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Update)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(zincrby),
    subcommands: &[],
};

fn zincrby(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    // The words are read as ZADD's, though no option fits in.
    let (rule, first) = Rule::read(args, 2);
    if first > 2 {
        return Err(Error::SYNTAX);
    }
    let increment = score(args.word(2))?;
    let rule = Rule {
        amount: Amount::Increment,
        ..rule
    };
    let entry = (args.word(3), increment);
    let added = add(db, args.key(1), &rule, std::iter::once(entry))?;
    reply.double(added.score.unwrap_or(increment));
    Ok(())
}

fn score(word: &[u8]) -> Result<f64> {
    number::parse_f64(word).ok_or(Error::NOT_A_FLOAT)
}

/// Which scores are set, and how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rule {
    pub(crate) new_only: bool,
    pub(crate) existing_only: bool,
    /// GT: only to a higher score.
    pub(crate) higher: bool,
    /// LT: only to a lower score.
    pub(crate) lower: bool,
    /// CH: the reply counts changed scores besides new members.
    pub(crate) counts_changes: bool,
    amount: Amount,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Amount {
    /// It is the new score.
    #[default]
    Score,
    /// It is added to the score.
    Increment,
}

/// What is to become of a member's score.
enum Decision {
    Leave,
    Set(f64),
    NotANumber,
}

impl Rule {
    /// Reads the options from `first` on; also gives the word after them.
    fn read(args: &Args<'_>, first: usize) -> (Rule, usize) {
        let mut rule = Rule::default();
        let mut index = first;
        // A number begins with none of the options' letters.
        while args
            .get(index)
            .is_some_and(|word| word.first().is_some_and(u8::is_ascii_alphabetic))
        {
            if args.is(index, "NX") {
                rule.new_only = true;
            } else if args.is(index, "XX") {
                rule.existing_only = true;
            } else if args.is(index, "GT") {
                rule.higher = true;
            } else if args.is(index, "LT") {
                rule.lower = true;
            } else if args.is(index, "CH") {
                rule.counts_changes = true;
            } else if args.is(index, "INCR") {
                rule.amount = Amount::Increment;
            } else {
                break;
            }
            index += 1;
        }
        (rule, index)
    }

    /// # Errors
    /// Options that exclude each other.
    pub(crate) fn check(&self, pairs: usize) -> Result {
        if self.new_only && self.existing_only {
            return Err(Error::from_static(
                "ERR XX and NX options at the same time are not compatible",
            ));
        }
        if self.higher && self.lower || self.new_only && (self.higher || self.lower) {
            return Err(Error::from_static(
                "ERR GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        if self.amount == Amount::Increment && pairs > 1 {
            return Err(Error::from_static(
                "ERR INCR option supports a single increment-element pair",
            ));
        }
        Ok(())
    }

    fn decide(&self, old: Option<f64>, amount: f64) -> Decision {
        let Some(old) = old else {
            return match self.existing_only {
                true => Decision::Leave,
                false => Decision::Set(amount),
            };
        };
        if self.new_only {
            return Decision::Leave;
        }
        let new = match self.amount {
            Amount::Score => amount,
            Amount::Increment => old + amount,
        };
        if new.is_nan() {
            return Decision::NotANumber;
        }
        match self.higher && new <= old || self.lower && new >= old {
            true => Decision::Leave,
            false => Decision::Set(new),
        }
    }
}

/// What came of setting scores.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Added {
    pub(crate) added: usize,
    pub(crate) updated: usize,
    /// The last member's score, if the rule let it be set.
    score: Option<f64>,
}

const NEVER_PACKED: Limits = Limits {
    max_listpack_entries: 0,
    max_listpack_value: 0,
};

/// Sets scores under a rule and says what changed.
///
/// # Errors
/// The key holds another type, or an increment leads from one infinity towards the other.
pub(crate) fn add<'m>(
    db: &mut Db<'_>,
    key: Key<'_>,
    rule: &Rule,
    entries: impl ExactSizeIterator<Item = (&'m [u8], f64)> + Clone,
) -> Result<Added> {
    let mut limits = limits(db);
    let is_long = |(member, _): (&[u8], f64)| member.len() > limits.max_listpack_value;
    // What is announced decides, even if members turn out to be the same or are not added.
    let is_much = entries.len() > limits.max_listpack_entries || entries.clone().any(is_long);
    if is_much {
        limits = NEVER_PACKED;
    }
    let mut outcome = Added::default();
    let mut opened = if rule.existing_only {
        match db.write::<SortedSet>(key)? {
            Some(set) => set,
            None => return Ok(outcome),
        }
    } else {
        db.write_or_create(key, SortedSet::new)?
    };
    let set = &mut *opened;
    if is_much {
        set.make_skip_list();
    }
    let mut not_a_number = false;
    for (member, amount) in entries {
        outcome.score = None;
        let change = set.alter(member, &limits, |old| match rule.decide(old, amount) {
            Decision::Set(score) => {
                outcome.score = Some(score);
                Some(score)
            }
            Decision::Leave => None,
            Decision::NotANumber => {
                not_a_number = true;
                None
            }
        });
        match change {
            Change::Added => outcome.added += 1,
            Change::Updated { .. } => outcome.updated += 1,
            Change::Unchanged => {}
        }
    }
    drop(opened);
    if not_a_number {
        return Err(Error::from_static(
            "ERR resulting score is not a number (NaN)",
        ));
    }
    let changed = outcome.added + outcome.updated;
    if changed > 0 {
        let event = match rule.amount {
            Amount::Score => "zadd",
            Amount::Increment => "zincr",
        };
        db.changed(key, EventClass::SortedSet, event);
        db.changes.dirty += changed as u64 - 1;
    }
    Ok(outcome)
}
