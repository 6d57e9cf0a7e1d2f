//! Commands about all fields of a hash, or some that nobody names.

use protocol::resp::reply::{ReplyWriter, Version};
use storage::{
    db::Db,
    time::Timestamp,
    value::{element::Element, hash::Hash},
};

use super::write_element;
use crate::{
    commands::scan::{ScanOptions, read_cursor},
    dispatch::{
        args::Args,
        command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
        error::Error,
    },
    server,
};

/// Replies about more fields are written in slices after the locks are released.
const WRITE_HERE: usize = 1000;
/// Fields written per slice.
const SLICE: usize = 500;

/// What a reply tells of each field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Fields,
    Values,
    Both,
}

impl Part {
    fn write(self, writer: &mut ReplyWriter, field: Element<'_>, value: Element<'_>) {
        if self != Part::Values {
            write_element(writer, field);
        }
        if self != Part::Fields {
            write_element(writer, value);
        }
    }
}

pub(super) const HGETALL: Command = Command {
    name: "HGETALL",
    syntax: "key",
    summary: "Returns all fields of a hash with their values.",
    since: "2.0.0",
    complexity: "O(N) for a hash of N fields",
    group: Group::Hash,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(hgetall),
    subcommands: &[],
};

fn hgetall(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    write_all(db, args, Part::Both, reply)
}

pub(super) const HKEYS: Command = Command {
    name: "HKEYS",
    syntax: "key",
    summary: "Returns all fields of a hash.",
    since: "2.0.0",
    complexity: "O(N) for a hash of N fields",
    group: Group::Hash,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(hkeys),
    subcommands: &[],
};

fn hkeys(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    write_all(db, args, Part::Fields, reply)
}

pub(super) const HVALS: Command = Command {
    name: "HVALS",
    syntax: "key",
    summary: "Returns the values of all fields of a hash.",
    since: "2.0.0",
    complexity: "O(N) for a hash of N fields",
    group: Group::Hash,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(hvals),
    subcommands: &[],
};

fn hvals(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    write_all(db, args, Part::Values, reply)
}

fn write_all(db: &Db<'_>, args: &Args<'_>, part: Part, reply: &mut Reply) -> Result {
    let hash = db.read::<Hash>(args.key(1))?;
    let len = hash.map_or(0, |hash| hash.len_at(db.expired_by()));
    if part == Part::Both {
        reply.map(len);
    } else {
        reply.array(len);
    }
    if let Some(hash) = hash {
        write_fields(hash, db.expired_by(), reply, move |writer, field, value| {
            part.write(writer, field, value);
        });
    }
    Ok(())
}

/// Writes each field of a hash, in slices if they are many.
fn write_fields(
    hash: &Hash,
    now: Timestamp,
    reply: &mut Reply,
    write: impl Fn(&mut ReplyWriter, Element<'_>, Element<'_>) + Send + 'static,
) {
    if hash.len() <= WRITE_HERE {
        return hash
            .iter(now)
            .for_each(|(field, value)| write(reply, field, value));
    }
    let (hash, mut cursor) = (hash.clone(), 0);
    reply.later(move |writer| {
        cursor = hash.scan(cursor, SLICE, now, |field, value| {
            write(writer, field, value);
        });
        cursor == 0
    });
}

pub(super) const HRANDFIELD: Command = Command {
    name: "HRANDFIELD",
    syntax: "key [count [WITHVALUES]]",
    summary: "Returns random fields of a hash.",
    since: "6.2.0",
    complexity: "O(N) for N fields returned",
    group: Group::Hash,
    arity: AtLeast(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(hrandfield),
    subcommands: &[],
};

fn hrandfield(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    if args.len() == 2 {
        let hash = db.read::<Hash>(args.key(1))?;
        match hash.and_then(|hash| hash.random(db.expired_by(), &mut server::random_word)) {
            Some((field, _)) => write_element(reply, field),
            None => reply.null(),
        }
        return Ok(());
    }
    let (count, part) = read_random(args)?;
    let hash = db.read::<Hash>(args.key(1))?;
    let len = hash.map_or(0, |hash| hash.len_at(db.expired_by()));
    let Some(hash) = hash.filter(|_| len > 0 && count != 0) else {
        reply.array(0);
        return Ok(());
    };
    let pairs = Pairs {
        part,
        nested: reply.version() == Version::Resp3,
    };
    if count < 0 {
        pairs.announce(reply, count.unsigned_abs() as usize);
        write_draws(hash, count.unsigned_abs(), db.expired_by(), pairs, reply);
    } else {
        let count = len.min(usize::try_from(count).unwrap_or(usize::MAX));
        pairs.announce(reply, count);
        if count == len {
            write_fields(hash, db.expired_by(), reply, move |writer, field, value| {
                pairs.write(writer, field, value);
            });
        } else {
            hash.sample(
                count,
                db.expired_by(),
                &mut server::random_word,
                |field, value| {
                    pairs.write(reply, field, value);
                },
            );
        }
    }
    Ok(())
}

/// The count and whether values are wanted too.
fn read_random(args: &Args<'_>) -> Result<(i64, Part)> {
    const OUT_OF_RANGE: Error = Error::from_static(
        "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
    );
    let count = args.integer(2)?;
    if count == i64::MIN {
        return Err(OUT_OF_RANGE);
    }
    if args.len() == 3 {
        return Ok((count, Part::Fields));
    }
    if args.len() > 4 || !args.is(3, "WITHVALUES") {
        return Err(Error::SYNTAX);
    }
    if count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(Error::general("value is out of range"));
    }
    Ok((count, Part::Both))
}

/// How HRANDFIELD writes a field.
#[derive(Clone, Copy)]
struct Pairs {
    part: Part,
    /// Each pair is an array, as RESP3 has it.
    nested: bool,
}

impl Pairs {
    fn announce(self, writer: &mut ReplyWriter, count: usize) {
        if self.part == Part::Both && !self.nested {
            writer.array(count * 2);
        } else {
            writer.array(count);
        }
    }

    fn write(self, writer: &mut ReplyWriter, field: Element<'_>, value: Element<'_>) {
        if self.part == Part::Both && self.nested {
            writer.array(2);
        }
        self.part.write(writer, field, value);
    }
}

/// Writes `count` fields drawn one by one, in slices if they are many: a client may ask for any number.
fn write_draws(hash: &Hash, count: u64, now: Timestamp, pairs: Pairs, reply: &mut Reply) {
    let draw = move |writer: &mut ReplyWriter, hash: &Hash| {
        if let Some((field, value)) = hash.random(now, &mut server::random_word) {
            pairs.write(writer, field, value);
        }
    };
    if count <= WRITE_HERE as u64 {
        return (0..count).for_each(|_| draw(reply, hash));
    }
    let (hash, mut left) = (hash.clone(), count);
    reply.later(move |writer| {
        let slice = left.min(SLICE as u64);
        (0..slice).for_each(|_| draw(writer, &hash));
        left -= slice;
        left == 0
    });
}

pub(super) const HSCAN: Command = Command {
    name: "HSCAN",
    syntax: "key cursor [MATCH pattern] [COUNT count] [NOVALUES]",
    summary: "Walks the fields of a hash, some at a time.",
    since: "2.8.0",
    complexity: "O(COUNT) for each call",
    group: Group::Hash,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(hscan),
    subcommands: &[],
};

fn hscan(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let cursor = read_cursor(args.word(2))?;
    reply.array(2);
    let Some(hash) = db.read::<Hash>(args.key(1))? else {
        reply.bulk(b"0");
        reply.array(0);
        return Ok(());
    };
    let options = ScanOptions::read(args, 3)?;
    let mut found: Vec<Vec<u8>> = Vec::new();
    let next = hash.scan(cursor, options.count, db.expired_by(), |field, value| {
        let field = field.to_vec();
        if options.matches(&field) {
            found.push(field);
            if !options.keys_only {
                found.push(value.to_vec());
            }
        }
    });
    reply.bulk(next.to_string().as_bytes());
    reply.array(found.len());
    found.iter().for_each(|word| reply.bulk(word));
    Ok(())
}
