//! LLEN, LINDEX, LRANGE and LPOS: looks at a list.

use storage::{
    db::Db,
    value::{
        element::Element,
        list::{End, List},
        number,
    },
};

use super::{elements, resolve};
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
    error::Error,
};

pub(super) const LLEN: Command = Command {
    name: "LLEN",
    syntax: "key",
    summary: "Returns the length of a list.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::List,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Inspect)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(llen),
    subcommands: &[],
};

fn llen(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let len = db.read::<List>(args.key(1))?.map_or(0, List::len);
    reply.integer(len as i64);
    Ok(())
}

pub(super) const LINDEX: Command = Command {
    name: "LINDEX",
    syntax: "key index",
    summary: "Returns an element of a list by its index.",
    since: "1.0.0",
    complexity: "O(log(N)) where N is the length of the list",
    group: Group::List,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(lindex),
    subcommands: &[],
};

fn lindex(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let Some(list) = db.read::<List>(args.key(1))? else {
        reply.null();
        return Ok(());
    };
    let mut index = args.integer(2)?;
    if index < 0 {
        index += list.len() as i64;
    }
    match usize::try_from(index)
        .ok()
        .and_then(|index| list.get(index))
    {
        Some(element) => elements::one(element, reply),
        None => reply.null(),
    }
    Ok(())
}

pub(super) const LRANGE: Command = Command {
    name: "LRANGE",
    syntax: "key start stop",
    summary: "Returns the elements of a list in a range.",
    since: "1.0.0",
    complexity: "O(log(N)+M) where N is the length of the list and M the number of elements returned",
    group: Group::List,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(lrange),
    subcommands: &[],
};

fn lrange(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (first, last) = (args.integer(2)?, args.integer(3)?);
    match db.read::<List>(args.key(1))? {
        Some(list) => {
            let range = resolve(first, last, list.len());
            elements::write(list, range, End::Front, reply);
        }
        None => reply.array(0),
    }
    Ok(())
}

pub(super) const LPOS: Command = Command {
    name: "LPOS",
    syntax: "key element [RANK rank] [COUNT num-matches] [MAXLEN len]",
    summary: "Returns the indexes of elements that equal the given one.",
    since: "6.0.6",
    complexity: "O(N) where N is the number of elements looked at",
    group: Group::List,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(lpos),
    subcommands: &[],
};

fn lpos(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let search = Search::read(args)?;
    let found = match db.read::<List>(args.key(1))? {
        Some(list) => search.run(list, Element::new(args.word(2))),
        None => Vec::new(),
    };
    if search.count.is_some() {
        reply.array(found.len());
        found.iter().for_each(|&index| reply.integer(index as i64));
    } else {
        match found.first() {
            Some(&index) => reply.integer(index as i64),
            None => reply.null(),
        }
    }
    Ok(())
}

/// What LPOS looks for.
struct Search {
    from: End,
    /// Matches to pass over.
    skip: u64,
    /// How many to find, 0 for all; without it the first, which is not answered as an array.
    count: Option<usize>,
    /// How many elements to look at, 0 for all.
    max_len: usize,
}

impl Search {
    fn read(args: &Args<'_>) -> Result<Search> {
        let mut search = Search {
            from: End::Front,
            skip: 0,
            count: None,
            max_len: 0,
        };
        let natural = |index: usize, error: &'static str| {
            number::parse_i64(args.word(index))
                .and_then(|number| usize::try_from(number).ok())
                .ok_or(Error::from_static(error))
        };
        let mut index = 3;
        while index < args.len() {
            if index + 1 == args.len() {
                return Err(Error::SYNTAX);
            }
            if args.is(index, "RANK") {
                search.rank(args.integer(index + 1)?)?;
            } else if args.is(index, "COUNT") {
                search.count = Some(natural(index + 1, "ERR COUNT can't be negative")?);
            } else if args.is(index, "MAXLEN") {
                search.max_len = natural(index + 1, "ERR MAXLEN can't be negative")?;
            } else {
                return Err(Error::SYNTAX);
            }
            index += 2;
        }
        Ok(search)
    }

    fn rank(&mut self, rank: i64) -> Result {
        match rank {
            i64::MIN => return Err(Error::OUTSIDE_SYMMETRIC),
            0 => {
                return Err(Error::from_static(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list",
                ));
            }
            _ => {}
        }
        self.from = if rank < 0 { End::Back } else { End::Front };
        self.skip = rank.unsigned_abs() - 1;
        Ok(())
    }

    /// The indexes of matches, in the order they are met.
    fn run(&self, list: &List, wanted: Element<'_>) -> Vec<usize> {
        let or_all = |limit: usize| if limit == 0 { usize::MAX } else { limit };
        let len = list.len();
        let looked_at = len.min(or_all(self.max_len));
        let skip = usize::try_from(self.skip).unwrap_or(usize::MAX);
        let count = or_all(self.count.unwrap_or(1));
        let matches = |(index, element): (usize, Element<'_>)| (element == wanted).then_some(index);
        match self.from {
            End::Front => {
                let elements = list.range(0..looked_at).enumerate();
                elements
                    .filter_map(matches)
                    .skip(skip)
                    .take(count)
                    .collect()
            }
            End::Back => {
                let elements = list.range_rev(len - looked_at..len);
                let indexed = elements.enumerate().map(|(back, it)| (len - 1 - back, it));
                indexed.filter_map(matches).skip(skip).take(count).collect()
            }
        }
    }
}
