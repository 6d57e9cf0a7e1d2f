//! Commands that get or set several fields and do something else to them in one step.

use std::sync::atomic::Ordering;

use storage::{
    changes::EventClass,
    db::Db,
    keyspace::Key,
    time::Timestamp,
    value::{
        ValueRef,
        hash::{FieldDeadline, Hash},
    },
};

use super::{
    changed_fields, deadlines, limits, log_pairs, log_words, tell_replaced, text_bytes, write_value,
};
use crate::{
    commands::deadline::{self, Base, Unit},
    dispatch::{
        args::Args,
        command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
        error::Error,
    },
};

pub(super) const BAD_COUNT: Error = Error::from_static(
    "ERR numfields should be greater than 0 and match the provided number of fields",
);

/// The words of a command that are fields, each with so many words behind it.
#[derive(Clone, Copy)]
pub(super) struct FieldWords {
    first: usize,
    step: usize,
    len: usize,
}

impl FieldWords {
    /// The word at `count_at` says how many fields follow: they take all the words there are.
    pub(super) fn read(args: &Args<'_>, count_at: usize, step: usize) -> Result<FieldWords> {
        let (count, first) = (args.integer(count_at)?, count_at + 1);
        let words = usize::try_from(count)
            .ok()
            .and_then(|count| count.checked_mul(step));
        match words {
            Some(words) if words > 0 && words == args.len().saturating_sub(first) => {
                let len = words / step;
                Ok(FieldWords { first, step, len })
            }
            _ => Err(BAD_COUNT),
        }
    }

    pub(super) fn len(self) -> usize {
        self.len
    }

    pub(super) fn iter<'a>(self, args: &Args<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        args.from(self.first).step_by(self.step)
    }
}

/// Where FIELDS is, from a word on, with a count behind it. HGETEX and HSETEX look from the key on, as Valkey's do.
pub(super) fn keyword(args: &Args<'_>, from: usize) -> Result<usize> {
    (from..args.len().saturating_sub(1))
        .find(|&index| args.is(index, "FIELDS"))
        .ok_or(BAD_COUNT)
}

/// The fields of a command that has FIELDS right behind its key.
pub(super) fn after_keyword(args: &Args<'_>) -> Result<FieldWords> {
    if !args.is(2, "FIELDS") {
        return Err(Error::SYNTAX);
    }
    FieldWords::read(args, 3, 1)
}

/// Counts fields removed by a deadline that had passed when it was set.
pub(super) fn count_expired(db: &Db<'_>, fields: usize) {
    let expired = &db.keyspace().statistics.expired_fields;
    expired.fetch_add(fields as u64, Ordering::Relaxed);
}

/// A deadline that has passed removes its field, unless this server leaves that to its primary.
pub(super) fn is_past(db: &Db<'_>, deadline: Timestamp) -> bool {
    db.keyspace().deletes_expired() && deadline <= db.expired_by()
}

pub(super) const HGETDEL: Command = Command {
    name: "HGETDEL",
    syntax: "key FIELDS numfields field [field ...]",
    summary: "Returns the values of fields of a hash and removes the fields.",
    since: "9.1.0",
    complexity: "O(N) for N fields",
    group: Group::Hash,
    arity: AtLeast(5),
    keys: &[Keys::at(1, Access::Take)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(hgetdel),
    subcommands: &[],
};

fn hgetdel(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (key, now) = (args.key(1), db.expired_by());
    let fields = after_keyword(args)?;
    reply.array(fields.len());
    let mut removed = Vec::new();
    match db.write::<Hash>(key)? {
        None => (0..fields.len()).for_each(|_| reply.null()),
        Some(mut hash) => {
            for field in fields.iter(args) {
                write_value(hash.get(field, now), reply);
                if hash.remove(field, now) {
                    removed.push(field);
                }
            }
        }
    }
    if !removed.is_empty() {
        changed_fields(db, key, removed.len(), "hdel");
        log_words(db, &[b"HDEL", key.bytes], &removed);
    }
    Ok(())
}

pub(super) const HGETEX: Command = Command {
    name: "HGETEX",
    syntax: "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST] FIELDS numfields field [field ...]",
    summary: "Returns the values of fields of a hash and sets or removes their deadlines.",
    since: "9.0.0",
    complexity: "O(N) for N fields",
    group: Group::Hash,
    arity: AtLeast(5),
    keys: &[Keys::at(1, Access::Update)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(hgetex),
    subcommands: &[],
};

fn hgetex(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (key, now) = (args.key(1), db.expired_by());
    let keyword = keyword(args, 1)?;
    let options = Options::read(args, keyword, Allowed::Deadline)?;
    let fields = FieldWords::read(args, keyword + 1, 1)?;
    // The type of the key comes before the value of the time.
    let exists = db.read::<Hash>(key)?.is_some();
    let expiry = options.expiry.resolve(db.now(), "hgetex")?;
    reply.array(fields.len());
    if !exists {
        (0..fields.len()).for_each(|_| reply.null());
        return Ok(());
    }
    let past = matches!(expiry, Resolved::At(at) if is_past(db, at));
    let mut changed = Vec::new();
    if let Some(mut hash) = db.write::<Hash>(key)? {
        for field in fields.iter(args) {
            let value = hash.get(field, now);
            let found = value.is_some();
            write_value(value, reply);
            let did = found
                && match expiry {
                    Resolved::None => false,
                    Resolved::Keep => hash.persist(field, now),
                    Resolved::At(_) if past => hash.remove(field, now),
                    Resolved::At(at) => hash.set_deadline(field, at, now),
                };
            if did {
                changed.push(field);
            }
        }
    }
    match expiry {
        Resolved::None => {}
        Resolved::Keep => deadlines::tell_persisted(db, key, &changed),
        Resolved::At(at) => deadlines::tell_deadline_set(db, key, at, &changed),
    }
    Ok(())
}

pub(super) const HSETEX: Command = Command {
    name: "HSETEX",
    syntax: "key [NX | XX] [FNX | FXX] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL] FIELDS numfields field value [field value ...]",
    summary: "Sets fields of a hash and when they expire.",
    since: "9.0.0",
    complexity: "O(N) for N fields",
    group: Group::Hash,
    arity: AtLeast(6),
    keys: &[Keys::at(1, Access::Insert)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    run: Run::Write(hsetex),
    subcommands: &[],
};

fn hsetex(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let (key, now) = (args.key(1), db.expired_by());
    let keyword = keyword(args, 1)?;
    let options = Options::read(args, keyword, Allowed::All)?;
    let fields = FieldWords::read(args, keyword + 1, 2)?;
    let hash = db.write::<Hash>(key)?;
    let exists = hash.is_some();
    let has = |field| hash.as_ref().is_some_and(|hash| hash.contains(field, now));
    let fields_pass = match options.fields {
        Condition::Always => true,
        Condition::Missing => fields.iter(args).all(|field| !has(field)),
        Condition::Present => fields.iter(args).all(has),
    };
    drop(hash);
    if !options.key.allows(exists) {
        reply.integer(0);
        return Ok(());
    }
    let expiry = options.expiry.resolve(db.now(), "hsetex")?;
    if fields_pass {
        set_fields(db, key, args, fields, expiry)?;
    }
    reply.integer(i64::from(fields_pass));
    Ok(())
}

fn set_fields(
    db: &mut Db<'_>,
    key: Key<'_>,
    args: &Args<'_>,
    fields: FieldWords,
    expiry: Resolved,
) -> Result {
    let (limits, now) = (limits(db.settings()), db.expired_by());
    let past = matches!(expiry, Resolved::At(at) if is_past(db, at));
    let deadline = match expiry {
        Resolved::Keep => FieldDeadline::Keep,
        Resolved::At(at) => FieldDeadline::At(at),
        Resolved::None => FieldDeadline::Clear,
    };
    let pairs: Vec<&[u8]> = args.from(fields.first).collect();
    let mut hash = db.write_or_create(key, Hash::new)?;
    let (len, mut added, mut removed) = (hash.len(), 0, 0);
    if past {
        removed = fields
            .iter(args)
            .filter(|&field| hash.remove(field, now))
            .count();
    } else {
        let text_bytes = text_bytes(pairs.iter().copied());
        hash.prepare(fields.len(), text_bytes, &limits);
        for pair in pairs.chunks_exact(2) {
            added += usize::from(hash.set(pair[0], pair[1], deadline, now, &limits));
        }
    }
    let replaced = (len + added).saturating_sub(hash.len());
    let keeps_some = deadline == FieldDeadline::Keep && hash.expiring() > 0;
    drop(hash);
    if !past {
        tell_replaced(db, key, replaced);
    }
    if past {
        if removed > 0 {
            db.touch_key(key);
        }
        db.notify(key, EventClass::Hash, "hset");
        db.notify(key, EventClass::Hash, "hexpire");
        db.changed_inside(key, EventClass::Hash, "hexpired");
        db.changes.dirty += fields.len() as u64 - 1;
    } else {
        changed_fields(db, key, fields.len(), "hset");
    }
    match expiry {
        Resolved::At(_) if past => {
            let names: Vec<&[u8]> = fields.iter(args).collect();
            log_words(db, &[b"HDEL", key.bytes], &names);
            count_expired(db, fields.len());
        }
        Resolved::At(at) => {
            db.notify(key, EventClass::Hash, "hexpire");
            log_pairs(db, key, Some(at), &pairs);
        }
        Resolved::Keep if keeps_some => log_kept(db, key, &pairs),
        Resolved::Keep | Resolved::None => log_pairs(db, key, None, &pairs),
    }
    Ok(())
}

/// Logs fields that kept the deadlines they had, which may differ.
fn log_kept(db: &mut Db<'_>, key: Key<'_>, pairs: &[&[u8]]) {
    let now = db.expired_by();
    for pair in pairs.chunks_exact(2) {
        let hash = db.peek(key).map(|entry| entry.value());
        let deadline = match hash {
            Some(ValueRef::Hash(hash)) => hash.deadline(pair[0], now).flatten(),
            _ => None,
        };
        log_pairs(db, key, deadline, pair);
    }
}

/// What must be so for HSETEX to do something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    Missing,
    Present,
}

impl Condition {
    fn allows(self, exists: bool) -> bool {
        match self {
            Condition::Always => true,
            Condition::Missing => !exists,
            Condition::Present => exists,
        }
    }
}

/// What is to become of deadlines, as the client said it.
#[derive(Clone, Copy)]
enum Expiry<'a> {
    None,
    /// KEEPTTL where fields are set, PERSIST where they are read.
    Keyword,
    In(Unit, Base, &'a [u8]),
}

/// What is to become of deadlines. `Keep` is the keyword: KEEPTTL or PERSIST.
#[derive(Clone, Copy)]
enum Resolved {
    None,
    Keep,
    At(Timestamp),
}

impl Expiry<'_> {
    fn resolve(self, now: Timestamp, command: &str) -> Result<Resolved> {
        Ok(match self {
            Expiry::None => Resolved::None,
            Expiry::Keyword => Resolved::Keep,
            Expiry::In(unit, base, word) => {
                Resolved::At(deadline::read_not_negative(word, unit, base, now, command)?)
            }
        })
    }
}

/// Which options a command has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Allowed {
    /// Conditions, a deadline, KEEPTTL.
    All,
    /// A deadline or PERSIST.
    Deadline,
}

/// The words between the key and FIELDS.
struct Options<'a> {
    key: Condition,
    fields: Condition,
    expiry: Expiry<'a>,
}

impl<'a> Options<'a> {
    fn read(args: &Args<'a>, end: usize, allowed: Allowed) -> Result<Options<'a>> {
        let mut options = Options {
            key: Condition::Always,
            fields: Condition::Always,
            expiry: Expiry::None,
        };
        let mut index = 2;
        while index < end {
            let word = args.word(index);
            if allowed == Allowed::All
                && let Some((of_key, wanted)) = condition(word)
            {
                let condition = if of_key {
                    &mut options.key
                } else {
                    &mut options.fields
                };
                // Said twice, a word is meant once; two that contradict each other are an error.
                if *condition != Condition::Always && *condition != wanted {
                    return Err(Error::SYNTAX);
                }
                *condition = wanted;
            } else if let Some((unit, base)) = deadline::option(word)
                && index + 1 < end
            {
                match options.expiry {
                    Expiry::None => {}
                    Expiry::In(said, from, _) if (said, from) == (unit, base) => {}
                    _ => return Err(Error::SYNTAX),
                }
                index += 1;
                options.expiry = Expiry::In(unit, base, args.word(index));
            } else if is_keyword(word, allowed) && !matches!(options.expiry, Expiry::In(..)) {
                options.expiry = Expiry::Keyword;
            } else {
                return Err(Error::SYNTAX);
            }
            index += 1;
        }
        Ok(options)
    }
}

fn is_keyword(word: &[u8], allowed: Allowed) -> bool {
    word.eq_ignore_ascii_case(match allowed {
        Allowed::All => b"KEEPTTL",
        Allowed::Deadline => b"PERSIST",
    })
}

/// Whether a condition is about the key, and what it asks.
fn condition(word: &[u8]) -> Option<(bool, Condition)> {
    Some(match word.to_ascii_uppercase().as_slice() {
        b"NX" => (true, Condition::Missing),
        b"XX" => (true, Condition::Present),
        b"FNX" => (false, Condition::Missing),
        b"FXX" => (false, Condition::Present),
        _ => return None,
    })
}
