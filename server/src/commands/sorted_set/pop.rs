//! Taking the members with the lowest or highest scores, at once or when there are some.

use storage::{
    db::Db,
    keyspace::Key,
    value::{number, sorted_set::SortedSet},
};

use super::{Order, Shown, remove_ranks, write_entries};
use crate::{
    commands::deadline,
    dispatch::{
        args::Args,
        command::{
            Access, Arity::*, Command, Flag, Group, Keys, Nothing, Place, Progress, Reply, Result,
            Run,
        },
        error::Error,
    },
};

/// The end that members are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Min,
    Max,
}

impl End {
    /// The command that takes from one key without waiting; its event, too, in lower case.
    const fn command(self) -> &'static str {
        match self {
            End::Min => "ZPOPMIN",
            End::Max => "ZPOPMAX",
        }
    }

    const fn event(self) -> &'static str {
        match self {
            End::Min => "zpopmin",
            End::Max => "zpopmax",
        }
    }
}

/// Takes up to `count` entries of a key and writes them; `begin` writes what comes before, given how many they are.
fn take(
    db: &mut Db<'_>,
    key: Key<'_>,
    end: End,
    count: usize,
    shown: Shown,
    reply: &mut Reply,
    begin: impl FnOnce(usize, &mut Reply),
) -> Result<usize> {
    let find = |set: &SortedSet| {
        let count = count.min(set.len());
        let (ranks, order) = match end {
            End::Min => (0..count, Order::Ascending),
            End::Max => (set.len() - count..set.len(), Order::Descending),
        };
        begin(count, reply);
        write_entries(reply, set, ranks.clone(), order, shown);
        ranks
    };
    Ok(remove_ranks(
        db,
        key,
        find,
        end.event(),
        Db::changed_after_event,
    )?)
}

pub(super) const ZPOPMIN: Command = Command {
    name: "ZPOPMIN",
    syntax: "key [count]",
    summary: "Removes the members with the lowest scores and returns them.",
    since: "5.0.0",
    complexity: "O(log(N)+M) for M members removed",
    group: Group::SortedSet,
    arity: AtLeast(2),
    keys: &[Keys::at(1, Access::Take)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(zpopmin),
    subcommands: &[],
};

fn zpopmin(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    pop(db, args, End::Min, reply)
}

pub(super) const ZPOPMAX: Command = Command {
    name: "ZPOPMAX",
    syntax: "key [count]",
    summary: "Removes the members with the highest scores and returns them.",
    since: "5.0.0",
    complexity: "O(log(N)+M) for M members removed",
    group: Group::SortedSet,
    arity: AtLeast(2),
    keys: &[Keys::at(1, Access::Take)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(zpopmax),
    subcommands: &[],
};

fn zpopmax(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    pop(db, args, End::Max, reply)
}

fn pop(db: &mut Db<'_>, args: &Args<'_>, end: End, reply: &mut Reply) -> Result {
    if args.len() > 3 {
        return Err(Error::SYNTAX);
    }
    let (count, shown) = match args.get(2) {
        Some(word) => (
            count_from(0, word, Error::NOT_POSITIVE)?,
            Shown::with_scores(reply),
        ),
        None => (1, Shown::Flat),
    };
    let begin = |count, reply: &mut Reply| shown.begin(count, reply);
    let mark = reply.len();
    take(db, args.key(1), end, count, shown, reply, begin)?;
    if reply.len() == mark {
        reply.array(0);
    }
    Ok(())
}

/// An integer of at least `least`.
fn count_from(least: i64, word: &[u8], error: Error) -> Result<usize> {
    number::parse_i64(word)
        .filter(|&count| count >= least)
        .map(|count| usize::try_from(count).unwrap_or(usize::MAX))
        .ok_or(error)
}

/// Takes from the first of several keys that has any, in the form of ZMPOP.
struct Request {
    /// The word of the first key, and how many keys.
    first: usize,
    keys: usize,
    end: End,
    count: usize,
}

impl Request {
    /// Reads ZMPOP's words from the number of keys on.
    fn read(args: &Args<'_>, at: usize) -> Result<Request> {
        const NO_KEYS: Error = Error::from_static("ERR numkeys should be greater than 0");
        const NO_COUNT: Error = Error::from_static("ERR count should be greater than 0");
        let keys = count_from(1, args.word(at), NO_KEYS)?;
        let first = at + 1;
        let at = first.checked_add(keys).ok_or(Error::SYNTAX)?;
        let end = if args.is(at, "MIN") {
            End::Min
        } else if args.is(at, "MAX") {
            End::Max
        } else {
            return Err(Error::SYNTAX);
        };
        let count = match args.len() - at {
            1 => 1,
            3 if args.is(at + 1, "COUNT") => count_from(1, args.word(at + 2), NO_COUNT)?,
            // A bad count is told before the words too many behind it.
            4.. if args.is(at + 1, "COUNT") => {
                count_from(1, args.word(at + 2), NO_COUNT)?;
                return Err(Error::SYNTAX);
            }
            _ => return Err(Error::SYNTAX),
        };
        Ok(Request {
            first,
            keys,
            end,
            count,
        })
    }

    /// Whether there was anything to take.
    fn take(&self, db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result<bool> {
        for key in (self.first..self.first + self.keys).map(|index| args.key(index)) {
            if !db.holds(key.hash) {
                continue;
            }
            let begin = |count, reply: &mut Reply| {
                reply.array(2);
                reply.bulk(key.bytes);
                Shown::Pairs.begin(count, reply);
            };
            let taken = take(db, key, self.end, self.count, Shown::Pairs, reply, begin)?;
            if taken > 0 {
                let count = taken.to_string();
                let command = self.end.command().as_bytes();
                db.changes
                    .log_instead(&[command, key.bytes, count.as_bytes()]);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

pub(super) const ZMPOP: Command = Command {
    name: "ZMPOP",
    syntax: "numkeys key [key ...] <MIN | MAX> [COUNT count]",
    summary: "Removes members from the first of several sorted sets that has any, and returns them.",
    since: "7.0.0",
    complexity: "O(K)+O(log(N)+M) for K keys and M members removed",
    group: Group::SortedSet,
    arity: AtLeast(4),
    keys: &[Keys {
        place: Place::Count { at: 1 },
        access: Access::Take,
    }],
    flags: &[Flag::Write],
    categories: &[],
    run: Run::Write(zmpop),
    subcommands: &[],
};

fn zmpop(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let request = Request::read(args, 1)?;
    if !request.take(db, args, reply)? {
        reply.null_array();
    }
    Ok(())
}

pub(super) const BZMPOP: Command = Command {
    name: "BZMPOP",
    syntax: "timeout numkeys key [key ...] <MIN | MAX> [COUNT count]",
    summary: "Removes members from the first of several sorted sets that has any, or waits for some.",
    since: "7.0.0",
    complexity: "O(K)+O(log(N)+M) for K keys and M members removed",
    group: Group::SortedSet,
    arity: AtLeast(5),
    keys: &[Keys {
        place: Place::Count { at: 2 },
        access: Access::Take,
    }],
    flags: &[Flag::Write, Flag::Blocking],
    categories: &[],
    run: Run::Blocking(bzmpop),
    subcommands: &[],
};

fn bzmpop(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result<Progress> {
    let request = Request::read(args, 2)?;
    let timeout_ms = deadline::read_timeout(args.word(1), db.now())?;
    if request.take(db, args, reply)? {
        return Ok(Progress::Done);
    }
    Ok(Progress::Wait {
        timeout_ms,
        nothing: Nothing::NullArray,
    })
}

pub(super) const BZPOPMIN: Command = Command {
    name: "BZPOPMIN",
    syntax: "key [key ...] timeout",
    summary: "Removes the member with the lowest score of the first sorted set that has any, or waits for one.",
    since: "5.0.0",
    complexity: "O(log(N))",
    group: Group::SortedSet,
    arity: AtLeast(3),
    keys: &[Keys {
        place: Place::Range {
            first: 1,
            last: 1,
            step: 1,
        },
        access: Access::Take,
    }],
    flags: &[Flag::Write, Flag::Blocking, Flag::Fast],
    categories: &[],
    run: Run::Blocking(bzpopmin),
    subcommands: &[],
};

fn bzpopmin(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result<Progress> {
    pop_or_wait(db, args, End::Min, reply)
}

pub(super) const BZPOPMAX: Command = Command {
    name: "BZPOPMAX",
    syntax: "key [key ...] timeout",
    summary: "Removes the member with the highest score of the first sorted set that has any, or waits for one.",
    since: "5.0.0",
    complexity: "O(log(N))",
    group: Group::SortedSet,
    arity: AtLeast(3),
    keys: &[Keys {
        place: Place::Range {
            first: 1,
            last: 1,
            step: 1,
        },
        access: Access::Take,
    }],
    flags: &[Flag::Write, Flag::Blocking, Flag::Fast],
    categories: &[],
    run: Run::Blocking(bzpopmax),
    subcommands: &[],
};

fn bzpopmax(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result<Progress> {
    pop_or_wait(db, args, End::Max, reply)
}

fn pop_or_wait(db: &mut Db<'_>, args: &Args<'_>, end: End, reply: &mut Reply) -> Result<Progress> {
    let last = args.len() - 1;
    let timeout_ms = deadline::read_timeout(args.word(last), db.now())?;
    for key in (1..last).map(|index| args.key(index)) {
        if !db.holds(key.hash) {
            continue;
        }
        let begin = |_, reply: &mut Reply| {
            reply.array(3);
            reply.bulk(key.bytes);
        };
        if take(db, key, end, 1, Shown::Flat, reply, begin)? > 0 {
            db.changes
                .log_instead(&[end.command().as_bytes(), key.bytes]);
            return Ok(Progress::Done);
        }
    }
    Ok(Progress::Wait {
        timeout_ms,
        nothing: Nothing::NullArray,
    })
}
