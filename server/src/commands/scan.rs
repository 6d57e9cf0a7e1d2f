//! Commands that walk the keys: SCAN, KEYS, RANDOMKEY. They lock one shard at a time.

use protocol::resp::reply::ReplyWriter;
use storage::{db::Db, entry::EntryRef, table::CURSOR_BITS, value::number};

use crate::{
    dispatch::{
        args::Args,
        command::{Arity::*, Category, Command, Flag, Group, Reply, Result, Run},
        error::Error,
        preparation::Work,
    },
    glob::{Case, Glob},
    server,
};

pub const COMMANDS: &[&Command] = &[&KEYS, &RANDOMKEY, &SCAN];

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
    let (mut found, mut expired) = (Vec::<Box<[u8]>>::new(), Vec::<Box<[u8]>>::new());
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
                if wanted && options.matches(entry.key()) {
                    let keys = match entry.is_expired(now) {
                        true => &mut expired,
                        false => &mut found,
                    };
                    keys.push(entry.key().into());
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
    db.expire_each(&expired)?;
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

/// Empty shards that one call of SCAN passes: a small database takes one call, as clients expect, but never long.
const SCAN_EMPTY: usize = 4096;

fn type_name(entry: EntryRef<'_>) -> &'static [u8] {
    entry.value_type().name().as_bytes()
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
    // From a random shard on, the first that has a live key; expired ones in the way are deleted.
    let (mut found, mut expired) = (None::<Box<[u8]>>, Vec::<Box<[u8]>>::new());
    for step in [start, 0] {
        found = db.each_shard(step, |_, shard| {
            (0..SAMPLES).find_map(|_| {
                let (_, entry) = shard.tables[index].sample(server::random_word())?;
                if entry.is_expired(now) {
                    expired.push(entry.key().into());
                    return None;
                }
                Some(entry.key().into())
            })
        })?;
        if found.is_some() {
            break;
        }
    }
    db.expire_each(&expired)?;
    match found {
        Some(key) => reply.bulk(&key),
        None => reply.null(),
    }
    Ok(())
}

/// Entries looked at per shard before the next shard is tried.
const SAMPLES: usize = 20;
