//! Commands that work on keys whatever they hold: existence, deadlines, names, databases, walks.

use protocol::resp::reply::ReplyWriter;
use storage::{
    Held,
    changes::{ChangedKey, EventClass},
    db::Db,
    entry::EntryRef,
    eviction,
    keyspace::Key,
    table::CURSOR_BITS,
    time::Timestamp,
    value::{ValueRef, hash, list::ListEncoding, number, set, sorted_set},
};

use super::deadline::{self, Base, Unit};
use crate::{
    dispatch::{
        args::Args,
        command::{
            Access, Arity::*, Category, Command, Flag, Group, Keys, Place, Reply, Result, Run,
        },
        error::Error,
        preparation::Work,
    },
    glob::{Case, Glob},
    server,
    session::Session,
};

pub const COMMANDS: &[&Command] = &[
    &COPY,
    &DBSIZE,
    &DEL,
    &EXISTS,
    &EXPIRE,
    &EXPIREAT,
    &EXPIRETIME,
    &FLUSHALL,
    &FLUSHDB,
    &KEYS,
    &MOVE,
    &OBJECT,
    &PERSIST,
    &PEXPIRE,
    &PEXPIREAT,
    &PEXPIRETIME,
    &PTTL,
    &RANDOMKEY,
    &RENAME,
    &RENAMENX,
    &SCAN,
    &SWAPDB,
    &TOUCH,
    &TTL,
    &TYPE,
    &UNLINK,
];

const DEL: Command = Command {
    name: "DEL",
    syntax: "key [key ...]",
    summary: "Deletes keys.",
    since: "1.0.0",
    complexity: "O(N) for N keys",
    group: Group::Generic,
    arity: AtLeast(2),
    keys: &[Keys::all(1, Access::Remove)],
    flags: &[Flag::Write],
    categories: &[],
    run: Run::Write(del),
    subcommands: &[],
};

fn del(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let mut deleted = 0;
    for index in 1..args.len() {
        let key = args.key(index);
        if db.delete(key) {
            db.changed(key, EventClass::Generic, "del");
            deleted += 1;
        }
    }
    reply.integer(deleted);
    Ok(())
}

const UNLINK: Command = Command {
    name: "UNLINK",
    syntax: "key [key ...]",
    summary: "Deletes keys; big values are freed in the background, as with DEL.",
    since: "4.0.0",
    complexity: "O(N) for N keys",
    group: Group::Generic,
    arity: AtLeast(2),
    keys: &[Keys::all(1, Access::Remove)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(del),
    subcommands: &[],
};

const EXISTS: Command = Command {
    name: "EXISTS",
    syntax: "key [key ...]",
    summary: "Counts how many of the keys exist.",
    since: "1.0.0",
    complexity: "O(N) for N keys",
    group: Group::Generic,
    arity: AtLeast(2),
    keys: &[Keys::all(1, Access::Inspect)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(exists),
    subcommands: &[],
};

fn exists(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let count = (1..args.len())
        .filter(|&index| db.get(args.key(index)).is_some())
        .count();
    reply.integer(count as i64);
    Ok(())
}

const TOUCH: Command = Command {
    name: "TOUCH",
    syntax: "key [key ...]",
    summary: "Counts how many of the keys exist, noting that they are used.",
    since: "3.2.1",
    complexity: "O(N) for N keys",
    group: Group::Generic,
    arity: AtLeast(2),
    keys: &[Keys::all(1, Access::Inspect)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(exists),
    subcommands: &[],
};

const TYPE: Command = Command {
    name: "TYPE",
    syntax: "key",
    summary: "Names the type of a key's value.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Inspect)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(type_of),
    subcommands: &[],
};

fn type_of(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    reply.simple(
        db.inspect(args.key(1))
            .map_or("none", |entry| entry.value_type().name()),
    );
    Ok(())
}

const EXPIRE: Command = Command {
    name: "EXPIRE",
    syntax: "key seconds [NX | XX | GT | LT]",
    summary: "Sets when a key expires.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(expire),
    subcommands: &[],
};

fn expire(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    set_deadline(db, args, Unit::Seconds, Base::Now, "expire", reply)
}

const PEXPIRE: Command = Command {
    name: "PEXPIRE",
    syntax: "key milliseconds [NX | XX | GT | LT]",
    summary: "Sets when a key expires.",
    since: "2.6.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(pexpire),
    subcommands: &[],
};

fn pexpire(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    set_deadline(db, args, Unit::Milliseconds, Base::Now, "pexpire", reply)
}

const EXPIREAT: Command = Command {
    name: "EXPIREAT",
    syntax: "key unix-time-seconds [NX | XX | GT | LT]",
    summary: "Sets when a key expires.",
    since: "1.2.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(expireat),
    subcommands: &[],
};

fn expireat(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    set_deadline(db, args, Unit::Seconds, Base::Epoch, "expireat", reply)
}

const PEXPIREAT: Command = Command {
    name: "PEXPIREAT",
    syntax: "key unix-time-milliseconds [NX | XX | GT | LT]",
    summary: "Sets when a key expires.",
    since: "2.6.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(pexpireat),
    subcommands: &[],
};

fn pexpireat(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    set_deadline(
        db,
        args,
        Unit::Milliseconds,
        Base::Epoch,
        "pexpireat",
        reply,
    )
}

const TTL: Command = Command {
    name: "TTL",
    syntax: "key",
    summary: "Tells when a key expires: -1 for never, -2 if it does not exist.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(ttl),
    subcommands: &[],
};

fn ttl(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    tell_deadline(db, args, Unit::Seconds, Base::Now, reply)
}

const PTTL: Command = Command {
    name: "PTTL",
    syntax: "key",
    summary: "Tells when a key expires: -1 for never, -2 if it does not exist.",
    since: "2.6.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(pttl),
    subcommands: &[],
};

fn pttl(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    tell_deadline(db, args, Unit::Milliseconds, Base::Now, reply)
}

const EXPIRETIME: Command = Command {
    name: "EXPIRETIME",
    syntax: "key",
    summary: "Tells when a key expires: -1 for never, -2 if it does not exist.",
    since: "7.0.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(expiretime),
    subcommands: &[],
};

fn expiretime(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    tell_deadline(db, args, Unit::Seconds, Base::Epoch, reply)
}

const PEXPIRETIME: Command = Command {
    name: "PEXPIRETIME",
    syntax: "key",
    summary: "Tells when a key expires: -1 for never, -2 if it does not exist.",
    since: "7.0.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(pexpiretime),
    subcommands: &[],
};

fn pexpiretime(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    tell_deadline(db, args, Unit::Milliseconds, Base::Epoch, reply)
}

const PERSIST: Command = Command {
    name: "PERSIST",
    syntax: "key",
    summary: "Takes away a key's deadline.",
    since: "2.2.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(persist),
    subcommands: &[],
};

fn persist(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    let had_deadline = db
        .entry_mut(key)
        .is_some_and(|entry| entry.look().deadline().is_some());
    if had_deadline {
        db.set_deadline(key, None);
        db.changed(key, EventClass::Generic, "persist");
    }
    reply.integer(i64::from(had_deadline));
    Ok(())
}

const RENAME: Command = Command {
    name: "RENAME",
    syntax: "key newkey",
    summary: "Renames a key, over another if need be.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Take), Keys::at(2, Access::Overwrite)],
    flags: &[Flag::Write],
    categories: &[],
    run: Run::Write(rename),
    subcommands: &[],
};

fn rename(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    move_key(db, args, true)?;
    reply.ok();
    Ok(())
}

const RENAMENX: Command = Command {
    name: "RENAMENX",
    syntax: "key newkey",
    summary: "Renames a key unless the new name exists.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Take), Keys::at(2, Access::Create)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(renamenx),
    subcommands: &[],
};

fn renamenx(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let renamed = move_key(db, args, false)?;
    reply.integer(i64::from(renamed));
    Ok(())
}

fn move_key(db: &mut Db<'_>, args: &Args<'_>, overwrite: bool) -> Result<bool> {
    let (from, to) = (args.key(1), args.key(2));
    if db.entry_mut(from).is_none() {
        return Err(Error::NO_SUCH_KEY);
    }
    if from.bytes == to.bytes {
        return Ok(overwrite);
    }
    if db.entry_mut(to).is_some() {
        if !overwrite {
            return Ok(false);
        }
        db.delete(to);
    }
    let entry = db
        .take(from)
        .expect("it was there two lines above, under the same lock");
    let meta = entry.look().meta();
    let raw = encoding(entry.look()) == "raw";
    db.put(to, entry.into_value(), meta);
    if raw {
        db.mark_raw(to);
    }
    db.changed(from, EventClass::Generic, "rename_from");
    db.changed(to, EventClass::Generic, "rename_to");
    Ok(true)
}

const COPY: Command = Command {
    name: "COPY",
    syntax: "source destination [DB destination-db] [REPLACE]",
    summary: "Copies a key's value and deadline to another key.",
    since: "6.2.0",
    complexity: "O(1) for the value's handle",
    group: Group::Generic,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Read), Keys::at(2, Access::Overwrite)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(copy),
    subcommands: &[],
};

fn copy(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (mut replace, mut target) = (false, db.index());
    let mut index = 3;
    while index < args.len() {
        if args.is(index, "REPLACE") {
            replace = true;
        } else if args.is(index, "DB") && index + 1 < args.len() {
            target = database_index(db, args.word(index + 1))?;
            index += 1;
        } else {
            return Err(Error::SYNTAX);
        }
        index += 1;
    }
    let (from, to) = (args.key(1), args.key(2));
    let source = db.index();
    if from.bytes == to.bytes && target == source {
        return Err(Error::SAME_OBJECT);
    }
    let copied = copy_entry(db, from, source, to, target, replace);
    db.select(source);
    reply.integer(i64::from(copied));
    Ok(())
}

fn copy_entry(
    db: &mut Db<'_>,
    from: Key<'_>,
    source: usize,
    to: Key<'_>,
    target: usize,
    replace: bool,
) -> bool {
    let Some(entry) = db.get(from) else {
        return false;
    };
    let (value, meta, raw) = (
        entry.value().to_value(),
        entry.meta(),
        encoding(entry) == "raw",
    );
    db.select(target);
    if db.entry_mut(to).is_some() {
        if !replace {
            db.select(source);
            return false;
        }
        db.delete(to);
    }
    db.put(to, value, meta);
    if raw {
        db.mark_raw(to);
    }
    db.changed(to, EventClass::Generic, "copy_to");
    true
}

/// A database's number as an argument.
pub fn database_index(db: &Db<'_>, word: &[u8]) -> Result<usize> {
    let index = number::parse_i64(word).ok_or(Error::NOT_AN_INTEGER)?;
    let index = i32::try_from(index).map_err(|_| Error::OUTSIDE_I32)?;
    usize::try_from(index)
        .ok()
        .filter(|&index| index < db.keyspace().databases())
        .ok_or(Error::DB_INDEX)
}

const MOVE: Command = Command {
    name: "MOVE",
    syntax: "key db",
    summary: "Moves a key to another database, unless it is there already.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Update)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(move_to),
    subcommands: &[],
};

fn move_to(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    let target = database_index(db, args.word(2))?;
    let source = db.index();
    if source == target {
        return Err(Error::SAME_OBJECT);
    }
    let moved = copy_entry_to(db, key, source, target);
    reply.integer(i64::from(moved));
    Ok(())
}

fn copy_entry_to(db: &mut Db<'_>, key: Key<'_>, source: usize, target: usize) -> bool {
    if db.entry_mut(key).is_none() {
        return false;
    }
    db.select(target);
    let taken = db.entry_mut(key).is_some();
    db.select(source);
    if taken {
        return false;
    }
    let entry = db
        .take(key)
        .expect("it was there above, under the same lock");
    let (meta, raw) = (entry.look().meta(), encoding(entry.look()) == "raw");
    db.select(target);
    db.put(key, entry.into_value(), meta);
    if raw {
        db.mark_raw(key);
    }
    db.select(source);
    db.changed(key, EventClass::Generic, "move_from");
    db.select(target);
    db.changed(key, EventClass::Generic, "move_to");
    db.select(source);
    true
}

const RANDOMKEY: Command = Command {
    name: "RANDOMKEY",
    syntax: "",
    summary: "Returns a random key.",
    since: "1.0.0",
    complexity: "O(1) amortised",
    group: Group::Generic,
    arity: Exactly(1),
    keys: &[],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Write(randomkey),
    subcommands: &[],
};

fn randomkey(db: &mut Db<'_>, _args: &Args<'_>, reply: &mut Reply) -> Result {
    let (index, now) = (db.index(), db.now());
    let shards = db.keyspace().shard_count();
    let start = server::random_word() as usize % shards;
    // From a random shard on, the first that has a live key; expired ones in the way are skipped.
    let mut found: Option<Box<[u8]>> = None;
    for step in [start, 0] {
        found = db.each_shard(step, |_, shard| {
            (0..SAMPLES).find_map(|_| {
                let (_, entry) = shard.tables[index].sample(server::random_word())?;
                (!entry.is_expired(now)).then(|| entry.key().into())
            })
        })?;
        if found.is_some() {
            break;
        }
    }
    match found {
        Some(key) => reply.bulk(&key),
        None => reply.null(),
    }
    Ok(())
}

/// Entries looked at per shard before the next shard is tried.
const SAMPLES: usize = 20;

const KEYS: Command = Command {
    name: "KEYS",
    syntax: "pattern",
    summary: "Returns the keys that match a pattern.",
    since: "1.0.0",
    complexity: "O(N) for N keys, a shard at a time",
    group: Group::Generic,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::ReadOnly],
    categories: &[Category::Dangerous],
    run: Run::Write(keys),
    subcommands: &[],
};

fn keys(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let glob = Glob::new(args.word(1), Case::Sensitive);
    let mut walk = Walk::default();
    // Between the slices others get their turns.
    loop {
        match reply.finish(walk) {
            Some(so_far) => walk = so_far,
            None => return Ok(()),
        }
        if walk.next_shard == db.keyspace().shard_count() {
            break;
        }
        walk.go_on(db, &glob)?;
    }
    let count: usize = walk.found.iter().map(Vec::len).sum();
    reply.array(count);
    let mut slices = walk.found.into_iter();
    let mut writes = move |writer: &mut ReplyWriter| {
        let slice = slices.next().unwrap_or_default();
        slice.iter().for_each(|key| writer.bulk(key));
        slices.len() == 0
    };
    if count <= KEYS_SLICE {
        while !writes(reply) {}
    } else {
        reply.later(writes);
    }
    Ok(())
}

/// Keys that KEYS looks at, or writes, per slice, and those of one shard.
const KEYS_SLICE: usize = 1000;

/// How far KEYS has come.
#[derive(Default)]
struct Walk {
    next_shard: usize,
    visited: usize,
    /// By slices.
    found: Vec<Vec<Box<[u8]>>>,
}

impl Walk {
    fn go_on(&mut self, db: &mut Db<'_>, glob: &Glob<'_>) -> Result {
        let (index, now) = (db.index(), db.now());
        let (mut slice, mut visited, mut next) = (Vec::new(), 0, db.keyspace().shard_count());
        let _: Option<()> = db.each_shard(self.next_shard, |number, shard| {
            shard.tables[index].traverse(0, usize::MAX, |_, entry| {
                visited += 1;
                if !entry.is_expired(now) && glob.matches(entry.key()) {
                    slice.push(entry.key().into());
                }
            });
            (visited >= KEYS_SLICE).then(|| next = number + 1)
        })?;
        self.next_shard = next;
        self.visited += visited;
        self.found.push(slice);
        Ok(())
    }
}

/// A walk is done by the command itself, some shards each time it runs.
impl Work for Walk {
    type Outcome = Walk;

    fn effort(&self) -> usize {
        self.visited
    }

    fn advance(&mut self) -> bool {
        true
    }

    fn outcome(&mut self) -> Walk {
        std::mem::take(self)
    }

    /// There are none that must stay the same: each shard is seen at a moment of its own.
    fn has_sources_of(&self, _begun: &Walk) -> bool {
        true
    }
}

const SCAN: Command = Command {
    name: "SCAN",
    syntax: "cursor [MATCH pattern] [COUNT count] [TYPE type]",
    summary: "Walks the keys, some at a time.",
    since: "2.8.0",
    complexity: "O(COUNT) for each call",
    group: Group::Generic,
    arity: AtLeast(2),
    keys: &[],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Write(scan),
    subcommands: &[],
};

fn scan(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let cursor = read_cursor(args.word(1))?;
    let options = ScanOptions::read(args, 2)?;
    let (index, now) = (db.index(), db.now());
    let shard_count = db.keyspace().shard_count() as u64;
    let mut shard = cursor >> CURSOR_BITS;
    let mut within = cursor & ((1 << CURSOR_BITS) - 1);
    let mut found: Vec<Box<[u8]>> = Vec::new();
    let mut budget = options.count;
    let mut empty = 0;
    while shard < shard_count && budget > 0 && empty < SCAN_EMPTY {
        let next = db.each_shard(shard as usize, |_, locked| {
            let mut visited = 0;
            let next = locked.tables[index].traverse(within, budget, |_, entry| {
                visited += 1;
                let wanted = options
                    .value_type
                    .is_none_or(|wanted| wanted.eq_ignore_ascii_case(type_name(entry)));
                if wanted && !entry.is_expired(now) && options.matches(entry.key()) {
                    found.push(entry.key().into());
                }
            });
            budget = budget.saturating_sub(visited);
            if visited == 0 {
                empty += 1;
            }
            Some(next)
        })?;
        within = next.unwrap_or(0);
        if within == 0 {
            shard += 1;
        }
    }
    let next = if shard >= shard_count {
        0
    } else {
        shard << CURSOR_BITS | within
    };
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
    reply.array(found.len());
    found.iter().for_each(|key| reply.bulk(key));
    Ok(())
}

/// A cursor as SCAN and its relatives take it: a number, in the forms that C's `strtoull` reads.
pub fn read_cursor(word: &[u8]) -> Result<u64> {
    const INVALID: Error = Error::from_static("ERR invalid cursor");
    if number::parse_i64(word).is_some_and(|number| number < 0) {
        return Err(INVALID);
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = word.iter().position(|byte| !is_space(byte)).unwrap_or(0);
    let (negative, digits) = match &word[start..] {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let digits = Some(digits).filter(|digits| digits.first().is_some_and(u8::is_ascii_digit));
    let number = digits
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse::<u64>().ok())
        .ok_or(INVALID)?;
    Ok(if negative {
        number.wrapping_neg()
    } else {
        number
    })
}

fn type_name(entry: EntryRef<'_>) -> &'static [u8] {
    entry.value_type().name().as_bytes()
}

/// The options that SCAN and its relatives share.
pub struct ScanOptions<'a> {
    pub count: usize,
    glob: Option<Glob<'a>>,
    pub value_type: Option<&'a [u8]>,
    /// HSCAN NOVALUES, or ZSCAN NOSCORES.
    pub keys_only: bool,
}

/// The types that SCAN may ask for.
const TYPES: &[&str] = &["string", "list", "set", "zset", "hash", "stream"];

/// Empty shards that one call of SCAN passes: a small database takes one call, as clients expect, but never long.
const SCAN_EMPTY: usize = 4096;

/// Elements visited by a call that does not say how many.
const SCAN_COUNT: usize = 10;

impl<'a> ScanOptions<'a> {
    /// Reads the words from `first` on; 2 is SCAN itself, which alone knows TYPE.
    pub fn read(args: &Args<'a>, first: usize) -> Result<ScanOptions<'a>> {
        let mut options = ScanOptions {
            count: SCAN_COUNT,
            glob: None,
            value_type: None,
            keys_only: false,
        };
        let mut index = first;
        while index < args.len() {
            let value = args.get(index + 1);
            match value {
                Some(_) if args.is(index, "COUNT") => {
                    let count = args.integer(index + 1)?;
                    if count < 1 {
                        return Err(Error::SYNTAX);
                    }
                    options.count = usize::try_from(count).unwrap_or(usize::MAX);
                }
                Some(pattern) if args.is(index, "MATCH") => {
                    options.glob = Some(Glob::new(pattern, Case::Sensitive))
                }
                Some(name) if args.is(index, "TYPE") && first == 2 => {
                    if !TYPES
                        .iter()
                        .any(|known| known.as_bytes().eq_ignore_ascii_case(name))
                    {
                        let mut text = b"unknown type name '".to_vec();
                        text.extend_from_slice(name);
                        text.push(b'\'');
                        return Err(Error::general(text));
                    }
                    options.value_type = Some(name)
                }
                _ if args.is(index, "NOVALUES") || args.is(index, "NOSCORES") => {
                    let owner = if args.is(index, "NOVALUES") {
                        "HSCAN"
                    } else {
                        "ZSCAN"
                    };
                    if !args.is(0, owner) {
                        let mut text = args.word(index).to_ascii_uppercase();
                        text.extend_from_slice(b" option can only be used in ");
                        text.extend_from_slice(owner.as_bytes());
                        return Err(Error::general(text));
                    }
                    options.keys_only = true;
                    index += 1;
                    continue;
                }
                _ => return Err(Error::SYNTAX),
            }
            index += 2;
        }
        Ok(options)
    }

    pub fn matches(&self, text: &[u8]) -> bool {
        self.glob.as_ref().is_none_or(|glob| glob.matches(text))
    }
}

const DBSIZE: Command = Command {
    name: "DBSIZE",
    syntax: "",
    summary: "Counts the keys of the database.",
    since: "1.0.0",
    complexity: "O(shards)",
    group: Group::Server,
    arity: Exactly(1),
    keys: &[],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[Category::Keyspace],
    run: Run::Write(dbsize),
    subcommands: &[],
};

fn dbsize(db: &mut Db<'_>, _args: &Args<'_>, reply: &mut Reply) -> Result {
    let index = db.index();
    let mut keys = 0;
    let _: Option<()> = db.each_shard(0, |_, shard| {
        keys += shard.tables[index].len();
        None
    })?;
    reply.integer(keys as i64);
    Ok(())
}

const FLUSHDB: Command = Command {
    name: "FLUSHDB",
    syntax: "[ASYNC | SYNC]",
    summary: "Deletes all keys of the database.",
    since: "1.0.0",
    complexity: "O(1); freeing happens in the background",
    group: Group::Server,
    arity: AtLeast(1),
    keys: &[Keys {
        place: Place::AllShards,
        access: Access::Overwrite,
    }],
    flags: &[Flag::Write],
    categories: &[Category::Keyspace, Category::Dangerous],
    run: Run::Write(flushdb),
    subcommands: &[],
};

fn flushdb(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    read_flush_mode(args)?;
    let index = db.index();
    let keys = flush(db, Some(index));
    db.changes.dirty += keys as u64;
    reply.ok();
    Ok(())
}

fn read_flush_mode(args: &Args<'_>) -> Result {
    match args.len() {
        1 => Ok(()),
        2 if args.is(1, "ASYNC") || args.is(1, "SYNC") => Ok(()),
        _ => Err(Error::SYNTAX),
    }
}

/// Empties databases and fails the transactions that watch a key which was there.
pub fn flush(db: &mut Db<'_>, database: Option<usize>) -> usize {
    let picked = |index| database.is_none_or(|database| database == index);
    touch_watched(db, picked);
    let keys = db.flush(database);
    wake_waiting(db, picked);
    keys
}

/// Has those looked after who wait for keys of the databases picked. All shards are locked.
fn wake_waiting(db: &mut Db<'_>, picked: impl Fn(usize) -> bool) {
    let mut ready = Vec::new();
    let walked: std::result::Result<Option<()>, Held> = db.each_shard(0, |_, shard| {
        let keys = shard.waiting.iter();
        let awaited = keys.filter(|(database, ..)| picked(*database));
        ready.extend(awaited.map(|(database, key, _)| ChangedKey {
            database,
            key: key.into(),
        }));
        None
    });
    debug_assert!(walked.is_ok());
    db.changes.ready.extend(ready);
}

/// Fails the transactions that watch an existing key of the databases picked. All shards are locked.
fn touch_watched(db: &mut Db<'_>, picked: impl Fn(usize) -> bool) {
    let walked: std::result::Result<Option<()>, Held> = db.each_shard(0, |_, shard| {
        for (database, key, marks) in shard.watched.iter() {
            if picked(database)
                && shard.tables[database]
                    .get(Key::new(key).hash, key)
                    .is_some()
            {
                marks.iter().for_each(|mark| mark.touch());
            }
        }
        None
    });
    debug_assert!(walked.is_ok());
}

const FLUSHALL: Command = Command {
    name: "FLUSHALL",
    syntax: "[ASYNC | SYNC]",
    summary: "Deletes all keys of every database.",
    since: "1.0.0",
    complexity: "O(1); freeing happens in the background",
    group: Group::Server,
    arity: AtLeast(1),
    keys: &[Keys {
        place: Place::AllShards,
        access: Access::Overwrite,
    }],
    flags: &[Flag::Write],
    categories: &[Category::Keyspace, Category::Dangerous],
    run: Run::Write(flushall),
    subcommands: &[],
};

fn flushall(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    read_flush_mode(args)?;

    let keys = flush(db, None);
    db.changes.dirty += keys as u64 + 1;
    reply.ok();
    Ok(())
}

const SWAPDB: Command = Command {
    name: "SWAPDB",
    syntax: "index1 index2",
    summary: "Swaps two databases.",
    since: "4.0.0",
    complexity: "O(shards)",
    group: Group::Server,
    arity: Exactly(3),
    keys: &[Keys {
        place: Place::AllShards,
        access: Access::Overwrite,
    }],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[Category::Keyspace, Category::Dangerous],
    run: Run::Write(swapdb),
    subcommands: &[],
};

fn swapdb(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let read = |index, message| match number::parse_i64(args.word(index)) {
        Some(number) if i32::try_from(number).is_ok() => Ok(number),
        _ => Err(Error::from_static(message)),
    };
    let one = read(1, "ERR invalid first DB index")?;
    let other = read(2, "ERR invalid second DB index")?;
    let in_range = |number: i64| {
        usize::try_from(number)
            .ok()
            .filter(|&index| index < db.keyspace().databases())
            .ok_or(Error::DB_INDEX)
    };
    let (one, other) = (in_range(one)?, in_range(other)?);
    if one != other {
        touch_watched(db, |watched| watched == one || watched == other);
        db.swap_databases(one, other);
        touch_watched(db, |watched| watched == one || watched == other);
        wake_waiting(db, |waiting| waiting == one || waiting == other);
    }
    db.changes.dirty += 1;
    reply.ok();
    Ok(())
}

const OBJECT: Command = Command {
    name: "OBJECT",
    syntax: "",
    summary: "Tells how values are held.",
    since: "2.2.3",
    complexity: "Depends on subcommand.",
    group: Group::Generic,
    arity: AtLeast(2),
    keys: &[],
    flags: &[],
    categories: &[],
    run: Run::Container,
    subcommands: &[
        &OBJECT_ENCODING,
        &OBJECT_FREQ,
        &OBJECT_HELP,
        &OBJECT_IDLETIME,
        &OBJECT_REFCOUNT,
    ],
};

const OBJECT_ENCODING: Command = Command {
    name: "ENCODING",
    syntax: "key",
    summary: "Names how a value is held.",
    since: "2.2.3",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(3),
    keys: &[Keys::at(2, Access::Inspect)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(object_encoding),
    subcommands: &[],
};

const OBJECT_FREQ: Command = Command {
    name: "FREQ",
    syntax: "key",
    summary: "Tells how often a key is used, under an LFU policy.",
    since: "4.0.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(3),
    keys: &[Keys::at(2, Access::Inspect)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(object_freq),
    subcommands: &[],
};

const OBJECT_HELP: Command = Command {
    name: "HELP",
    syntax: "",
    summary: "Lists the subcommands.",
    since: "6.2.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(object_help),
    subcommands: &[],
};

const OBJECT_IDLETIME: Command = Command {
    name: "IDLETIME",
    syntax: "key",
    summary: "Tells for how many seconds a key was not used.",
    since: "2.2.3",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(3),
    keys: &[Keys::at(2, Access::Inspect)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(object_idletime),
    subcommands: &[],
};

const OBJECT_REFCOUNT: Command = Command {
    name: "REFCOUNT",
    syntax: "key",
    summary: "Tells how many owners a value has, which is one.",
    since: "2.2.3",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(3),
    keys: &[Keys::at(2, Access::Inspect)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(object_refcount),
    subcommands: &[],
};

fn object_encoding(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    match db.peek(args.key(2)) {
        Some(entry) => reply.bulk(encoding(entry).as_bytes()),
        None => reply.null(),
    }
    Ok(())
}

/// Bytes of key and value that the original keeps in one allocation: longer strings are `raw` there.
const EMBEDDED_MAX: usize = 113;
/// Keys from this length on take more of them.
const LONG_KEY: usize = 32;
const LONG_KEY_BYTES: usize = 2;
const DEADLINE_BYTES: usize = 8;

/// The encoding's name as clients know it from the original.
pub fn encoding(entry: EntryRef<'_>) -> &'static str {
    match entry.value() {
        ValueRef::Int(_) => "int",
        ValueRef::Bytes(_) if entry.is_raw() => "raw",
        ValueRef::Bytes(bytes) => {
            let key = entry.key().len();
            let used = bytes.len()
                + key
                + if key >= LONG_KEY { LONG_KEY_BYTES } else { 0 }
                + if entry.deadline().is_some() {
                    DEADLINE_BYTES
                } else {
                    0
                };
            if used <= EMBEDDED_MAX {
                "embstr"
            } else {
                "raw"
            }
        }
        ValueRef::Shared(_) => "raw",
        ValueRef::List(list) => match list.encoding() {
            ListEncoding::Listpack => "listpack",
            ListEncoding::Quicklist => "quicklist",
        },
        ValueRef::Set(set) => match set.encoding() {
            set::Encoding::IntSet => "intset",
            set::Encoding::ListPack => "listpack",
            set::Encoding::HashTable => "hashtable",
        },
        ValueRef::Hash(hash) => match hash.encoding() {
            hash::Encoding::ListPack => "listpack",
            hash::Encoding::HashTable => "hashtable",
        },
        ValueRef::SortedSet(set) => match set.encoding() {
            sorted_set::Encoding::ListPack => "listpack",
            sorted_set::Encoding::SkipList => "skiplist",
        },
        ValueRef::Stream(_) => "stream",
    }
}

fn object_freq(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    match db.peek(args.key(2)) {
        Some(entry) => match eviction::frequency(db.keyspace(), entry, db.now()) {
            Some(frequency) => {
                reply.integer(frequency.into());
                Ok(())
            }
            None => Err(Error::general(
                "An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
                 switching between policies at runtime LRU and LFU data will take some time to adjust.",
            )),
        },
        None => {
            reply.null();
            Ok(())
        }
    }
}

fn object_idletime(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    match db.peek(args.key(2)) {
        Some(entry) => match eviction::idle_seconds(db.keyspace(), entry.access(), db.now()) {
            Some(seconds) => reply.integer(seconds.into()),
            None => {
                return Err(Error::general(
                    "An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching \
                     between policies at runtime LRU and LFU data will take some time to adjust.",
                ));
            }
        },
        None => reply.null(),
    }
    Ok(())
}

fn object_refcount(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    match db.peek(args.key(2)) {
        Some(_) => reply.integer(1),
        None => reply.null(),
    }
    Ok(())
}

fn object_help(_session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    super::help(reply, "OBJECT", OBJECT_HELP_LINES);
    Ok(())
}

const OBJECT_HELP_LINES: &[&str] = &[
    "ENCODING <key>",
    "    Name how the value is held.",
    "FREQ <key>",
    "    Tell the access frequency index of the key, under an LFU policy.",
    "IDLETIME <key>",
    "    Tell for how many seconds the key was not used.",
    "REFCOUNT <key>",
    "    Tell how many owners the value has.",
];

/// When an EXPIRE takes effect.
#[derive(Clone, Copy, Default)]
pub struct Conditions {
    without: bool,
    with: bool,
    later: bool,
    sooner: bool,
}

impl Conditions {
    pub fn read<'a>(words: impl Iterator<Item = &'a [u8]>) -> Result<Conditions> {
        let mut conditions = Conditions::default();
        for word in words {
            let flag = match word.to_ascii_uppercase().as_slice() {
                b"NX" => &mut conditions.without,
                b"XX" => &mut conditions.with,
                b"GT" => &mut conditions.later,
                b"LT" => &mut conditions.sooner,
                _ => {
                    let mut text = b"Unsupported option ".to_vec();
                    text.extend_from_slice(word);
                    return Err(Error::general(text));
                }
            };
            *flag = true;
        }
        if conditions.without && (conditions.with || conditions.later || conditions.sooner) {
            return Err(Error::general(
                "NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if conditions.later && conditions.sooner {
            return Err(Error::general(
                "GT and LT options at the same time are not compatible",
            ));
        }
        Ok(conditions)
    }

    /// No deadline counts as one that never comes.
    pub fn allow(self, old: Option<Timestamp>, new: Timestamp) -> bool {
        !(self.without && old.is_some()
            || self.with && old.is_none()
            || self.later && old.is_none_or(|old| new <= old)
            || self.sooner && old.is_some_and(|old| new >= old))
    }
}

fn set_deadline(
    db: &mut Db<'_>,
    args: &Args<'_>,
    unit: Unit,
    base: Base,
    name: &str,
    reply: &mut Reply,
) -> Result {
    let key = args.key(1);
    let conditions = Conditions::read(args.from(3))?;
    let deadline = deadline::resolve(args.integer(2)?, unit, base, db.now(), name)?;
    let allowed = db
        .entry_mut(key)
        .is_some_and(|entry| conditions.allow(entry.look().deadline(), deadline));
    if !allowed {
        reply.integer(0);
        return Ok(());
    }
    if deadline <= db.expired_by() && db.keyspace().deletes_expired() {
        db.delete(key);
        db.changed(key, EventClass::Expired, "expired");
        db.changes.log_instead(&[b"DEL", key.bytes]);
    } else {
        db.set_deadline(key, Some(deadline));
        db.changed(key, EventClass::Generic, "expire");
        db.changes.log_instead(&[
            b"PEXPIREAT",
            key.bytes,
            itoa::Buffer::new().format(deadline.millis()).as_bytes(),
        ]);
    }
    reply.integer(1);
    Ok(())
}

fn tell_deadline(
    db: &Db<'_>,
    args: &Args<'_>,
    unit: Unit,
    base: Base,
    reply: &mut Reply,
) -> Result {
    let Some(entry) = db.inspect(args.key(1)) else {
        reply.integer(-2);
        return Ok(());
    };
    let Some(deadline) = entry.deadline() else {
        reply.integer(-1);
        return Ok(());
    };
    reply.integer(deadline::tell(deadline, unit, base, db.now()));
    Ok(())
}
