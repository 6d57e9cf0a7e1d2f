//! Commands on a stream's entries: adding, reading a range, deleting and trimming.

use std::sync::atomic::Ordering;

use storage::{
    changes::EventClass,
    db::Db,
    value::stream::{BlockLimits, Id, Keep, MAX_ID, MIN_ID, Stream, Trim, next_id},
};

use super::{
    id,
    slices::{IdRange, Order, Slices},
    write_id,
};
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
    error::Error,
};

const TWO_STRATEGIES: Error = Error::from_static(
    "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
);
const LIMIT_ALONE: Error = Error::from_static(
    "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
);
const NO_STRATEGY: Error =
    Error::from_static("ERR syntax error, XTRIM must be called with a trimming strategy");
const LIMIT_EXACT: Error =
    Error::from_static("ERR syntax error, LIMIT cannot be used without the special ~ option");
const TOO_SMALL: Error = Error::from_static(
    "ERR The ID specified in XADD is equal or smaller than the target stream top item",
);
const EXHAUSTED: Error = Error::from_static(
    "ERR The stream has exhausted the last possible ID, unable to add more items",
);
const TOO_LARGE: Error = Error::from_static("ERR Elements are too large to be stored");

/// Bytes that all fields and values of an entry have at most.
const ENTRY_MAX_BYTES: usize = 1 << 30;

fn limits(db: &Db<'_>) -> BlockLimits {
    let settings = db.settings();
    let load = |setting: &std::sync::atomic::AtomicU64| {
        usize::try_from(setting.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    };
    BlockLimits {
        max_bytes: load(&settings.stream_node_max_bytes),
        max_entries: load(&settings.stream_node_max_entries),
    }
}

/// What precedes the ID in XADD, and all of XTRIM.
struct Options {
    trim: Option<Trim>,
    /// Where the threshold is.
    threshold_at: usize,
    may_create: bool,
    /// The ID's place in XADD.
    id_at: usize,
    /// The ID as far as it is given: milliseconds and sequence number.
    id: Option<(u64, Option<u64>)>,
}

impl Options {
    /// `repeats` says that the trim has been made exact where the command was run before.
    fn read(args: &Args<'_>, is_add: bool, limits: BlockLimits, repeats: bool) -> Result<Options> {
        let mut options = Options {
            trim: None,
            threshold_at: 0,
            may_create: true,
            id_at: args.len(),
            id: None,
        };
        let mut limit = None;
        let mut at = 2;
        while at < args.len() {
            let more = args.len() - 1 - at;
            if is_add && args.word(at) == b"*" {
                options.id_at = at;
                break;
            } else if (args.is(at, "MAXLEN") || args.is(at, "MINID")) && more > 0 {
                if options.trim.is_some() {
                    return Err(TWO_STRATEGIES);
                }
                let is_len = args.is(at, "MAXLEN");
                at += 1;
                let approximate = more >= 2 && args.word(at) == b"~";
                if approximate || more >= 2 && args.word(at) == b"=" {
                    at += 1;
                }
                let keep = if is_len {
                    let max_len = usize::try_from(args.integer(at)?)
                        .map_err(|_| Error::from_static("ERR The MAXLEN argument must be >= 0."))?;
                    Keep::MaxLen(max_len)
                } else {
                    Keep::MinId(id::parse(args.word(at))?)
                };
                options.threshold_at = at;
                options.trim = Some(Trim {
                    keep,
                    approximate,
                    limit: 0,
                });
            } else if args.is(at, "LIMIT") && more > 0 {
                at += 1;
                let given = usize::try_from(args.integer(at)?)
                    .map_err(|_| Error::from_static("ERR The LIMIT argument must be >= 0."))?;
                limit = Some(given);
            } else if is_add && args.is(at, "NOMKSTREAM") {
                options.may_create = false;
            } else if is_add {
                options.id = Some(id::parse_partial(args.word(at))?);
                options.id_at = at;
                break;
            } else {
                return Err(Error::SYNTAX);
            }
            at += 1;
        }
        let Some(trim) = &mut options.trim else {
            return match limit {
                Some(1..) => Err(LIMIT_ALONE),
                _ if !is_add => Err(NO_STRATEGY),
                _ => Ok(options),
            };
        };
        trim.limit = match limit {
            _ if repeats => 0,
            Some(_) if !trim.approximate => return Err(LIMIT_EXACT),
            Some(limit) => limit,
            None if !trim.approximate => 0,
            None if limits.max_entries == 0 => 10_000,
            None => limits.max_entries.saturating_mul(100).min(1_000_000),
        };
        Ok(options)
    }

    /// The words for the log: the trim as exact as it came out, `length` and `first` being the stream's.
    fn exact_words(&self, args: &Args<'_>, length: usize, first: Id) -> Vec<Vec<u8>> {
        let mut words: Vec<Vec<u8>> = args.from(0).map(<[u8]>::to_vec).collect();
        let Some(trim) = self.trim.filter(|trim| trim.approximate) else {
            return words;
        };
        words[self.threshold_at - 1] = b"=".to_vec();
        words[self.threshold_at] = match trim.keep {
            Keep::MaxLen(_) => length.to_string().into_bytes(),
            // All were below what was asked for.
            Keep::MinId(_) if length == 0 => words[self.threshold_at].clone(),
            Keep::MinId(_) => id::text(first).to_vec(),
        };
        // The limit has done its work, and exact trims take none.
        let end = self.id_at.min(words.len());
        if let Some(at) = (2..end).rfind(|&at| {
            at != self.threshold_at && words[at].eq_ignore_ascii_case(b"LIMIT") && at + 1 < end
        }) {
            words.drain(at..at + 2);
        }
        words
    }
}

fn log(db: &mut Db<'_>, words: &[Vec<u8>]) {
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    db.changes.log_instead(&words);
}

pub(super) const XADD: Command = Command {
    name: "XADD",
    syntax: "key [NOMKSTREAM] [<MAXLEN | MINID> [= | ~] threshold [LIMIT count]] <* | id> field value [field value ...]",
    summary: "Adds an entry to a stream.",
    since: "5.0.0",
    complexity: "O(1), O(N) when trimming N entries",
    group: Group::Stream,
    arity: AtLeast(5),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(xadd),
    subcommands: &[],
};

fn xadd(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let limits = limits(db);
    let options = Options::read(args, true, limits, db.repeats())?;
    let first_field = options.id_at + 1;
    let words = args.len().saturating_sub(first_field);
    if words < 2 || words % 2 == 1 {
        return Err(Error::wrong_arity("xadd"));
    }
    if options.id == Some((0, Some(0))) {
        return Err(Error::from_static(
            "ERR The ID specified in XADD must be greater than 0-0",
        ));
    }
    let key = args.key(1);
    let now = u64::try_from(db.now().millis()).unwrap_or_default();
    let existing = db.read_to_change::<Stream>(key)?;
    if existing.is_none() && !options.may_create {
        reply.null();
        return Ok(());
    }
    let last = existing.map_or(MIN_ID, |stream| stream.last_id);
    if last == MAX_ID {
        return Err(EXHAUSTED);
    }
    let id = choose_id(options.id, last, now)?;
    if args.from(first_field).map(<[u8]>::len).sum::<usize>() > ENTRY_MAX_BYTES {
        return Err(TOO_LARGE);
    }
    let mut opened = db.write_or_create(key, Stream::new)?;
    let stream = &mut *opened;
    let fields = args.from(first_field).step_by(2);
    let values = args.from(first_field + 1).step_by(2);
    stream.append(id, fields.zip(values), limits);
    let trimmed = options.trim.map_or(0, |trim| stream.trim(trim));
    let (length, first) = (stream.len(), stream.first_id());
    drop(opened);
    write_id(reply, id);
    db.changed_inside(key, EventClass::Stream, "xadd");
    if trimmed > 0 {
        db.notify(key, EventClass::Stream, "xtrim");
    }
    db.touch_key(key);
    if db
        .changes
        .listeners
        .contains(storage::changes::Listeners::LOG)
    {
        let mut words = options.exact_words(args, length, first);
        let at = words.len() - (args.len() - options.id_at);
        words[at] = id::text(id).to_vec();
        log(db, &words);
    }
    Ok(())
}

/// The new entry's ID.
fn choose_id(given: Option<(u64, Option<u64>)>, last: Id, now: u64) -> Result<Id> {
    let id = match given {
        None if now > last.0 => (now, 0),
        None => next_id(last).ok_or(EXHAUSTED)?,
        Some((ms, Some(seq))) => (ms, seq),
        Some((ms, None)) if ms == last.0 => (ms, last.1.checked_add(1).ok_or(TOO_SMALL)?),
        Some((ms, None)) => (ms, 0),
    };
    if id > last { Ok(id) } else { Err(TOO_SMALL) }
}

pub(super) const XLEN: Command = Command {
    name: "XLEN",
    syntax: "key",
    summary: "Counts the entries of a stream.",
    since: "5.0.0",
    complexity: "O(1)",
    group: Group::Stream,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Inspect)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(xlen),
    subcommands: &[],
};

fn xlen(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let stream = db.read::<Stream>(args.key(1))?;
    reply.integer(stream.map_or(0, |stream| stream.len() as i64));
    Ok(())
}

pub(super) const XRANGE: Command = Command {
    name: "XRANGE",
    syntax: "key start end [COUNT count]",
    summary: "Returns the entries of a range of IDs.",
    since: "5.0.0",
    complexity: "O(N) with N the number of entries returned",
    group: Group::Stream,
    arity: AtLeast(4),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(xrange),
    subcommands: &[],
};

fn xrange(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let start = id::parse_start(args.word(2))?;
    let end = id::parse_end(args.word(3))?;
    let Some((stream, count)) = range_of(db, args, reply)? else {
        return Ok(());
    };
    let range = IdRange {
        start,
        end,
        order: Order::Ascending,
        most: count,
    };
    write_range(stream, range, reply);
    Ok(())
}

pub(super) const XREVRANGE: Command = Command {
    name: "XREVRANGE",
    syntax: "key end start [COUNT count]",
    summary: "Returns the entries of a range of IDs, from the last to the first.",
    since: "5.0.0",
    complexity: "O(N) with N the number of entries returned",
    group: Group::Stream,
    arity: AtLeast(4),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(xrevrange),
    subcommands: &[],
};

fn xrevrange(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let start = id::parse_start(args.word(3))?;
    let end = id::parse_end(args.word(2))?;
    let Some((stream, count)) = range_of(db, args, reply)? else {
        return Ok(());
    };
    let range = IdRange {
        start,
        end,
        order: Order::Descending,
        most: count,
    };
    write_range(stream, range, reply);
    Ok(())
}

fn write_range(stream: &Stream, range: IdRange, reply: &mut Reply) {
    match range.direct_len(stream) {
        Some(len) => {
            reply.array(len);
            range.write(stream, len, reply);
        }
        None => reply.later = Some(Box::new(Slices::new(stream, range))),
    }
}

/// The stream to take a range of, and how many entries at most; none if the reply is written.
fn range_of<'d>(
    db: &'d Db<'_>,
    args: &Args<'_>,
    reply: &mut Reply,
) -> Result<Option<(&'d Stream, usize)>> {
    let mut count = None;
    let mut at = 4;
    while at < args.len() {
        if !args.is(at, "COUNT") || at + 1 == args.len() {
            return Err(Error::SYNTAX);
        }
        count = Some(usize::try_from(args.integer(at + 1)?).unwrap_or_default());
        at += 2;
    }
    let Some(stream) = db.read::<Stream>(args.key(1))? else {
        reply.array(0);
        return Ok(None);
    };
    if count == Some(0) {
        reply.null_array();
        return Ok(None);
    }
    Ok(Some((stream, count.unwrap_or(usize::MAX))))
}

pub(super) const XDEL: Command = Command {
    name: "XDEL",
    syntax: "key id [id ...]",
    summary: "Deletes entries of a stream and returns how many.",
    since: "5.0.0",
    complexity: "O(1) for each entry",
    group: Group::Stream,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Delete)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(xdel),
    subcommands: &[],
};

fn xdel(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    let Some(mut stream) = db.write::<Stream>(key)? else {
        reply.integer(0);
        return Ok(());
    };
    let ids = args.from(2).map(id::parse).collect::<Result<Vec<Id>>>()?;
    let deleted = ids.into_iter().filter(|&id| stream.delete(id)).count();
    drop(stream);
    if deleted > 0 {
        db.changed(key, EventClass::Stream, "xdel");
        db.changes.dirty += deleted as u64 - 1;
    }
    reply.integer(deleted as i64);
    Ok(())
}

pub(super) const XTRIM: Command = Command {
    name: "XTRIM",
    syntax: "key <MAXLEN | MINID> [= | ~] threshold [LIMIT count]",
    summary: "Deletes the oldest entries of a stream.",
    since: "5.0.0",
    complexity: "O(N) with N the number of entries deleted",
    group: Group::Stream,
    arity: AtLeast(4),
    keys: &[Keys::at(1, Access::Delete)],
    flags: &[Flag::Write],
    categories: &[],
    run: Run::Write(xtrim),
    subcommands: &[],
};

fn xtrim(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let options = Options::read(args, false, limits(db), db.repeats())?;
    let trim = options.trim.ok_or(NO_STRATEGY)?;
    let key = args.key(1);
    let Some(mut stream) = db.write::<Stream>(key)? else {
        reply.integer(0);
        return Ok(());
    };
    let trimmed = stream.trim(trim);
    let (length, first) = (stream.len(), stream.first_id());
    drop(stream);
    if trimmed > 0 {
        db.changed_after_event(key, EventClass::Stream, "xtrim");
        db.changes.dirty += trimmed as u64 - 1;
        if trim.approximate {
            let words = options.exact_words(args, length, first);
            log(db, &words);
        }
    }
    reply.integer(trimmed as i64);
    Ok(())
}

pub(super) const XSETID: Command = Command {
    name: "XSETID",
    syntax: "key last-id [ENTRIESADDED entries-added] [MAXDELETEDID max-deleted-id]",
    summary: "Sets the last ID of a stream.",
    since: "5.0.0",
    complexity: "O(1)",
    group: Group::Stream,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(xsetid),
    subcommands: &[],
};

fn xsetid(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let id = id::parse(args.word(2))?;
    let (mut entries_added, mut max_deleted_id) = (None, None);
    let mut at = 3;
    while at < args.len() {
        if at + 1 == args.len() {
            return Err(Error::SYNTAX);
        } else if args.is(at, "ENTRIESADDED") {
            let added = u64::try_from(args.integer(at + 1)?)
                .map_err(|_| Error::from_static("ERR entries_added must be positive"))?;
            entries_added = Some(added);
        } else if args.is(at, "MAXDELETEDID") {
            let deleted = id::parse(args.word(at + 1))?;
            if id < deleted {
                return Err(Error::from_static(
                    "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                ));
            }
            max_deleted_id = Some(deleted);
        } else {
            return Err(Error::SYNTAX);
        }
        at += 2;
    }
    let key = args.key(1);
    let mut stream = db.write::<Stream>(key)?.ok_or(Error::NO_SUCH_KEY)?;
    if id < stream.max_deleted_id {
        return Err(Error::from_static(
            "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id",
        ));
    }
    if let Some(last) = stream.last_entry().map(|entry| entry.id) {
        if id < last {
            return Err(Error::from_static(
                "ERR The ID specified in XSETID is smaller than the target stream top item",
            ));
        }
        if entries_added.is_some_and(|added| added < stream.len() as u64) {
            return Err(Error::from_static(
                "ERR The entries_added specified in XSETID is smaller than the target stream length",
            ));
        }
    }
    stream.last_id = id;
    if let Some(added) = entries_added {
        stream.entries_added = added;
    }
    if let Some(deleted) = max_deleted_id.filter(|&deleted| deleted != MIN_ID) {
        stream.max_deleted_id = deleted;
    }
    drop(stream);
    db.changed_inside(key, EventClass::Stream, "xsetid");
    reply.ok();
    Ok(())
}
