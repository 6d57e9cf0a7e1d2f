//! LPOP and RPOP, and LMPOP that takes from the first list that has something.

use storage::{
    changes::EventClass,
    db::Db,
    keyspace::Key,
    value::{
        list::{End, List},
        number,
    },
};

use super::{elements, end, limits, popped};
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Place, Reply, Result, Run},
    error::Error,
};

pub(super) const LPOP: Command = Command {
    name: "LPOP",
    syntax: "key [count]",
    summary: "Removes and returns the first elements of a list.",
    since: "1.0.0",
    complexity: "O(N) where N is the number of elements returned",
    group: Group::List,
    arity: AtLeast(2),
    keys: &[Keys::at(1, Access::Take)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(lpop),
    subcommands: &[],
};

fn lpop(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    pop(db, args, End::Front, reply)
}

pub(super) const RPOP: Command = Command {
    name: "RPOP",
    syntax: "key [count]",
    summary: "Removes and returns the last elements of a list.",
    since: "1.0.0",
    complexity: "O(N) where N is the number of elements returned",
    group: Group::List,
    arity: AtLeast(2),
    keys: &[Keys::at(1, Access::Take)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(rpop),
    subcommands: &[],
};

fn rpop(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    pop(db, args, End::Back, reply)
}

fn pop(db: &mut Db<'_>, args: &Args<'_>, end: End, reply: &mut Reply) -> Result {
    let key = args.key(1);
    if args.len() == 2 {
        if !pop_one(db, key, end, reply)? {
            reply.null();
        }
        return Ok(());
    }
    if args.len() > 3 {
        return Err(Error::wrong_arity(popped(end)));
    }
    let count = number::parse_i64(args.word(2)).and_then(|count| usize::try_from(count).ok());
    if pop_many(db, key, end, count.ok_or(Error::NOT_POSITIVE)?, reply)?.is_none() {
        reply.null_array();
    }
    Ok(())
}

/// Pops an element and writes it. False if there is no list.
pub(super) fn pop_one(db: &mut Db<'_>, key: Key<'_>, end: End, reply: &mut Reply) -> Result<bool> {
    let limits = limits(db);
    let Some(mut list) = db.write::<List>(key)? else {
        return Ok(false);
    };
    list.pop(end, limits, |element| elements::one(element, reply));
    drop(list);
    db.changed_after_event(key, EventClass::List, popped(end));
    Ok(true)
}

/// Pops up to `count` elements and writes them as an array. Returns how many, `None` if there is no list.
fn pop_many(
    db: &mut Db<'_>,
    key: Key<'_>,
    end: End,
    count: usize,
    reply: &mut Reply,
) -> Result<Option<usize>> {
    let limits = limits(db);
    let Some(mut list) = db.write::<List>(key)? else {
        return Ok(None);
    };
    let len = list.len();
    let count = count.min(len);
    let (taken, kept) = match end {
        End::Front => (0..count, count..len),
        End::Back => (len - count..len, 0..len - count),
    };
    elements::write(&list, taken, end, reply);
    if count == 0 {
        return Ok(Some(0));
    }
    let removed = list.trim(kept, limits);
    drop(list);
    removed
        .into_values()
        .for_each(|part| db.keyspace().free(part));
    db.changed_after_event(key, EventClass::List, popped(end));
    db.changes.dirty += count as u64 - 1;
    Ok(Some(count))
}

pub(super) const LMPOP: Command = Command {
    name: "LMPOP",
    syntax: "numkeys key [key ...] LEFT | RIGHT [COUNT count]",
    summary: "Removes and returns elements of the first list that exists.",
    since: "7.0.0",
    complexity: "O(N+M) where N is the number of keys and M the number of elements returned",
    group: Group::List,
    arity: AtLeast(4),
    keys: &[Keys {
        place: Place::Count { at: 1 },
        access: Access::Take,
    }],
    flags: &[Flag::Write],
    categories: &[],
    run: Run::Write(lmpop),
    subcommands: &[],
};

fn lmpop(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let request = MultiPop::read(args, 1)?;
    if !request.run(db, args, reply)? {
        reply.null_array();
    }
    Ok(())
}

/// What LMPOP and BLMPOP ask for.
pub(super) struct MultiPop {
    /// The words that are keys.
    keys: std::ops::Range<usize>,
    end: End,
    count: usize,
}

impl MultiPop {
    /// Reads from the number of keys on.
    pub(super) fn read(args: &Args<'_>, first: usize) -> Result<MultiPop> {
        let positive = |index: usize, error: &'static str| {
            number::parse_i64(args.word(index))
                .filter(|&number| number > 0)
                .and_then(|number| usize::try_from(number).ok())
                .ok_or(Error::from_static(error))
        };
        let keys = positive(first, "ERR numkeys should be greater than 0")?;
        let place = keys.checked_add(first + 1).filter(|&at| at < args.len());
        let place = place.ok_or(Error::SYNTAX)?;
        let end = end(args, place)?;
        let count = match args.len() - place {
            1 => 1,
            3 if args.is(place + 1, "COUNT") => {
                positive(place + 2, "ERR count should be greater than 0")?
            }
            // A count that is wrong is told of before what follows it.
            4.. if args.is(place + 1, "COUNT") => {
                positive(place + 2, "ERR count should be greater than 0")?;
                return Err(Error::SYNTAX);
            }
            _ => return Err(Error::SYNTAX),
        };
        Ok(MultiPop {
            keys: first + 1..place,
            end,
            count,
        })
    }

    /// Pops from the first list among the keys that are locked. False if there is none.
    pub(super) fn run(&self, db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result<bool> {
        let mark = reply.mark();
        for key in self.keys.clone().map(|index| args.key(index)) {
            if !db.holds(key.hash) {
                continue;
            }
            reply.array(2);
            reply.bulk(key.bytes);
            match pop_many(db, key, self.end, self.count, reply)? {
                None => reply.truncate(mark),
                Some(count) => {
                    log_pop(db, key, self.end, Some(count));
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// Logs a pop as the command that does the same whatever other keys hold.
pub(super) fn log_pop(db: &mut Db<'_>, key: Key<'_>, end: End, count: Option<usize>) {
    let name: &[u8] = match end {
        End::Front => b"LPOP",
        End::Back => b"RPOP",
    };
    match count {
        None => db.changes.log_instead(&[name, key.bytes]),
        Some(count) => {
            let count = itoa::Buffer::new().format(count).to_owned();
            db.changes.log_instead(&[name, key.bytes, count.as_bytes()]);
        }
    }
}
