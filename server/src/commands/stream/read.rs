//! XREAD and XREADGROUP: entries of several streams after given IDs, waited for if need be.

use std::collections::VecDeque;

use protocol::resp::reply::{ReplyWriter, Version};
use storage::{
    db::Db,
    keyspace::Key,
    value::{
        number,
        stream::{Id, MAX_ID, MIN_ID, Stream, next_id, previous_id},
    },
};

use super::{
    id, no_group,
    pending::log_claim,
    slices::{IdRange, Order, Slices},
    write_entry, write_id,
};
use crate::dispatch::{
    args::Args,
    command::{
        Access, Arity::*, Command, Flag, Group, Keys, Later, Nothing, Place, Progress, Reply,
        Result, Run,
    },
    error::Error,
};

pub(super) const XREAD: Command = Command {
    name: "XREAD",
    syntax: "[COUNT count] [BLOCK milliseconds] STREAMS key [key ...] id [id ...]",
    summary: "Returns entries of streams after given IDs, or waits for some.",
    since: "5.0.0",
    complexity: "O(N) with N the number of entries returned",
    group: Group::Stream,
    arity: AtLeast(4),
    keys: &[Keys {
        place: Place::Streams { from: 1 },
        access: Access::Read,
    }],
    flags: &[Flag::ReadOnly, Flag::Blocking, Flag::MovableKeys],
    categories: &[],
    run: Run::Blocking(xread),
    subcommands: &[],
};

fn xread(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result<Progress> {
    let options = Options::read(args, false)?;
    let mut wanted = Vec::with_capacity(options.streams);
    for at in 0..options.streams {
        let (key, word) = options.stream(args, at);
        if !db.holds(key.hash) {
            continue;
        }
        let stream = db.read::<Stream>(key)?;
        let after = match word {
            b"$" => stream.map_or(MIN_ID, |stream| stream.last_id),
            b"+" => stream
                .and_then(|stream| previous_id(stream.last_id))
                .unwrap_or(MIN_ID),
            b">" => {
                return Err(Error::from_static(
                    "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
                ));
            }
            word => id::parse(word)?,
        };
        // Whoever waits means this ID, however often the command runs.
        if matches!(word, b"$" | b"+") {
            reply.replace_word(options.first_id(at), &id::text(after));
        }
        wanted.push((at, after));
    }
    // Looked at once more, which the statistics and those who listen to misses see.
    let mut ready = Vec::new();
    for (at, after) in wanted {
        let stream = db.read::<Stream>(options.stream(args, at).0)?;
        if let Some(stream) = stream
            && stream.last_entry().is_some_and(|last| last.id > after)
        {
            ready.push((at, after));
        }
    }
    if ready.is_empty() {
        return Ok(options.wait(reply));
    }
    begin_streams(reply, ready.len());
    let mut parts = VecDeque::with_capacity(ready.len());
    for (at, after) in ready {
        let (key, _) = options.stream(args, at);
        let stream = db
            .read_to_change::<Stream>(key)?
            .expect("its last entry was seen");
        let range = IdRange {
            start: next_id(after).unwrap_or(MAX_ID),
            end: MAX_ID,
            order: Order::Ascending,
            most: options.count,
        };
        match range.direct_len(stream) {
            Some(len) if parts.is_empty() => {
                begin_stream(reply, key.bytes);
                reply.array(len);
                range.write(stream, len, reply);
            }
            _ => parts.push_back((Some(Box::from(key.bytes)), Slices::new(stream, range))),
        }
    }
    if !parts.is_empty() {
        write_later(parts, reply);
    }
    Ok(Progress::Done)
}

/// Writes what is left of the streams, from the first that has much to say on, in slices without the locks.
fn write_later(mut parts: VecDeque<(Option<Box<[u8]>>, Slices)>, reply: &mut Reply) {
    reply.later(move |writer: &mut ReplyWriter| {
        let Some((name, slices)) = parts.front_mut() else {
            return true;
        };
        if let Some(name) = name.take() {
            begin_stream(writer, &name);
        }
        if slices.write(writer) {
            parts.pop_front();
        }
        parts.is_empty()
    });
}

fn is_resp3(reply: &ReplyWriter) -> bool {
    reply.version() == Version::Resp3
}

fn begin_streams(reply: &mut ReplyWriter, len: usize) {
    if is_resp3(reply) {
        reply.map(len);
    } else {
        reply.array(len);
    }
}

fn begin_stream(reply: &mut ReplyWriter, key: &[u8]) {
    if !is_resp3(reply) {
        reply.array(2);
    }
    reply.bulk(key);
}

/// What precedes the keys.
struct Options {
    /// At most so many entries of each stream.
    count: usize,
    /// How long to wait: none says not at all.
    timeout_ms: Option<u64>,
    /// Where the group's name is.
    group_at: usize,
    acknowledged: bool,
    /// Where the first key is, and how many streams there are.
    first: usize,
    streams: usize,
}

impl Options {
    fn read(args: &Args<'_>, is_group: bool) -> Result<Options> {
        let mut options = Options {
            count: usize::MAX,
            timeout_ms: None,
            group_at: 0,
            acknowledged: false,
            first: 0,
            streams: 0,
        };
        let mut at = 1;
        while at < args.len() {
            let more = args.len() - 1 - at;
            if args.is(at, "BLOCK") && more > 0 {
                at += 1;
                options.timeout_ms = Some(timeout(args.word(at))?);
            } else if args.is(at, "COUNT") && more > 0 {
                at += 1;
                options.count = match args.integer(at)? {
                    ..=0 => usize::MAX,
                    count => count as usize,
                };
            } else if args.is(at, "STREAMS") && more > 0 {
                options.first = at + 1;
                if more % 2 == 1 {
                    return Err(unbalanced(is_group));
                }
                options.streams = more / 2;
                break;
            } else if args.is(at, "GROUP") && more >= 2 {
                if !is_group {
                    return Err(Error::from_static(
                        "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                options.group_at = at + 1;
                at += 2;
            } else if args.is(at, "NOACK") {
                if !is_group {
                    return Err(Error::from_static(
                        "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                options.acknowledged = true;
            } else {
                return Err(Error::SYNTAX);
            }
            at += 1;
        }
        if options.first == 0 {
            return Err(Error::SYNTAX);
        }
        if is_group && options.group_at == 0 {
            return Err(Error::from_static(
                "ERR Missing GROUP option for XREADGROUP",
            ));
        }
        Ok(options)
    }

    /// The key and the ID of a stream.
    fn stream<'a>(&self, args: &Args<'a>, at: usize) -> (Key<'a>, &'a [u8]) {
        (args.key(self.first + at), args.word(self.first_id(at)))
    }

    /// The word that is a stream's ID.
    fn first_id(&self, at: usize) -> usize {
        self.first + self.streams + at
    }

    fn wait(&self, reply: &mut Reply) -> Progress {
        match self.timeout_ms {
            Some(timeout_ms) => Progress::Wait {
                timeout_ms,
                nothing: Nothing::NullArray,
            },
            None => {
                reply.null_array();
                Progress::Done
            }
        }
    }
}

fn timeout(word: &[u8]) -> Result<u64> {
    let timeout = number::parse_i64(word).ok_or(Error::from_static(
        "ERR timeout is not an integer or out of range",
    ))?;
    u64::try_from(timeout).map_err(|_| Error::from_static("ERR timeout is negative"))
}

fn unbalanced(is_group: bool) -> Error {
    let (name, symbol) = if is_group {
        ("xreadgroup", '>')
    } else {
        ("xread", '$')
    };
    Error::general(format!(
        "Unbalanced '{name}' list of streams: for each stream key an ID or '{symbol}' must be specified."
    ))
}

pub(super) const XREADGROUP: Command = Command {
    name: "XREADGROUP",
    syntax: "GROUP group consumer [COUNT count] [BLOCK milliseconds] [NOACK] STREAMS key [key ...] id [id ...]",
    summary: "Returns new or pending entries for a consumer of a group, or waits for some.",
    since: "5.0.0",
    complexity: "O(M) with M the number of entries returned",
    group: Group::Stream,
    arity: AtLeast(7),
    keys: &[Keys {
        place: Place::Streams { from: 4 },
        access: Access::Read,
    }],
    flags: &[Flag::Write, Flag::Blocking, Flag::MovableKeys],
    categories: &[],
    run: Run::Blocking(xreadgroup),
    subcommands: &[],
};

/// What a consumer asks of a stream.
enum Wanted {
    New,
    /// Its own pending entries after an ID.
    History(Id),
}

fn xreadgroup(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result<Progress> {
    let options = Options::read(args, true)?;
    let (group, consumer) = (args.word(options.group_at), args.word(options.group_at + 1));
    let mut wanted = Vec::with_capacity(options.streams);
    for at in 0..options.streams {
        let (key, word) = options.stream(args, at);
        if !db.holds(key.hash) {
            continue;
        }
        let stream = db.read::<Stream>(key)?;
        if stream.is_none_or(|stream| stream.group(group).is_none()) {
            return Err(Error::new(
                [
                    no_group(key.bytes, group).as_bytes(),
                    b" in XREADGROUP with GROUP option",
                ]
                .concat(),
            ));
        }
        let what = match word {
            b"$" => return Err(meaningless('$')),
            b"+" => return Err(meaningless('+')),
            b">" => Wanted::New,
            word => match id::parse(word)? {
                MAX_ID => Wanted::New,
                after => Wanted::History(after),
            },
        };
        wanted.push((at, what));
    }
    let now = db.now().millis();
    let mark = reply.mark();
    let slot = reply.array_deferred();
    let mut served = 0;
    for (at, what) in wanted {
        let (key, _) = options.stream(args, at);
        create_consumer(db, key, group, consumer, now)?;
        match what {
            Wanted::New if !has_news(db, key, group)? => continue,
            Wanted::New => {
                begin_stream(reply, key.bytes);
                deliver(db, key, args, &options, reply)?;
            }
            Wanted::History(after) => {
                // Looked at once more, as where there may be news.
                db.read::<Stream>(key)?;
                begin_stream(reply, key.bytes);
                repeat(db, key, args, after, &options, reply)?;
            }
        }
        served += 1;
    }
    if served == 0 {
        reply.truncate(mark);
        return Ok(options.wait(reply));
    }
    if is_resp3(reply) {
        reply.set_map_len(slot, served);
    } else {
        reply.set_array_len(slot, served);
    }
    // What changed was logged.
    db.changes.log_nothing();
    Ok(Progress::Done)
}

/// Whether there is something that the group has not read.
fn has_news(db: &Db<'_>, key: Key<'_>, group: &[u8]) -> Result<bool> {
    let stream = db.read::<Stream>(key)?;
    Ok(stream.is_some_and(|stream| {
        let read = stream.group(group).map_or(MAX_ID, |group| group.last_id);
        stream.last_entry().is_some_and(|last| last.id > read)
    }))
}

fn meaningless(symbol: char) -> Error {
    Error::general(format!(
        "The {symbol} ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The {symbol} ID would just return an empty result set."
    ))
}

/// Makes sure that the consumer exists and notes that it was seen.
pub(super) fn create_consumer(
    db: &mut Db<'_>,
    key: Key<'_>,
    group: &[u8],
    consumer: &[u8],
    now: i64,
) -> Result {
    let Some(mut stream) = db.write::<Stream>(key)? else {
        return Ok(());
    };
    let created = stream.change_group(group, |group| {
        let created = group.create_consumer(consumer, now);
        group.saw(consumer, now, false);
        created
    });
    drop(stream);
    if created == Some(true) {
        db.changed_inside(
            key,
            storage::changes::EventClass::Stream,
            "xgroup-createconsumer",
        );
        db.changes
            .log_instead(&[b"XGROUP", b"CREATECONSUMER", key.bytes, group, consumer]);
    }
    Ok(())
}

/// Writes new entries and makes them pending.
fn deliver(
    db: &mut Db<'_>,
    key: Key<'_>,
    args: &Args<'_>,
    options: &Options,
    reply: &mut Reply,
) -> Result {
    let (name, consumer) = (args.word(options.group_at), args.word(options.group_at + 1));
    let now = db.now().millis();
    let Some(mut stream) = db.write::<Stream>(key)? else {
        reply.array(0);
        return Ok(());
    };
    // A clone is cheap, and lets the entries be read while the group changes.
    let entries = stream.clone();
    let start = stream
        .group(name)
        .and_then(|group| next_id(group.last_id))
        .unwrap_or(MAX_ID);
    let first = entries.first_id();
    let slot = reply.array_deferred();
    let (ids, group) = stream
        .change_group(name, |group| {
            let mut ids = Vec::new();
            for entry in entries.range(start, MAX_ID).take(options.count) {
                write_entry(reply, &entry);
                group.entries_read = match group.entries_read {
                    Some(read)
                        if group.last_id >= first && !entries.has_gaps_from(group.last_id) =>
                    {
                        Some(read.saturating_add(1))
                    }
                    read if entries.entries_added == 0 => read,
                    _ => entries.entries_until(entry.id),
                };
                group.last_id = entry.id;
                if !options.acknowledged {
                    group.assign(entry.id, consumer, now, 1);
                }
                ids.push(entry.id);
            }
            if !ids.is_empty() && !options.acknowledged {
                group.saw(consumer, now, true);
            }
            (ids, (group.last_id, group.entries_read))
        })
        .unwrap_or_default();
    drop(stream);
    reply.set_array_len(slot, ids.len());
    db.changes.dirty += ids.len() as u64;
    if options.acknowledged {
        log_group_id(db, key.bytes, name, group);
    } else {
        for id in ids {
            log_claim(db, key.bytes, name, id);
        }
        // Claims do not carry how many entries were read.
        log_group_id(db, key.bytes, name, group);
    }
    Ok(())
}

fn log_group_id(db: &mut Db<'_>, key: &[u8], name: &[u8], (last, read): (Id, Option<u64>)) {
    let mut buffer = itoa::Buffer::new();
    let read = match read {
        Some(read) => buffer.format(read).as_bytes(),
        None => b"-1",
    };
    db.changes.log_instead(&[
        b"XGROUP",
        b"SETID",
        key,
        name,
        &id::text(last),
        b"ENTRIESREAD",
        read,
    ]);
}

/// Writes the consumer's pending entries once more.
fn repeat(
    db: &mut Db<'_>,
    key: Key<'_>,
    args: &Args<'_>,
    after: Id,
    options: &Options,
    reply: &mut Reply,
) -> Result {
    let (name, consumer) = (args.word(options.group_at), args.word(options.group_at + 1));
    let now = db.now().millis();
    let Some(mut stream) = db.write::<Stream>(key)? else {
        reply.array(0);
        return Ok(());
    };
    let ids: Vec<Id> = match (
        next_id(after),
        stream
            .group(name)
            .and_then(|group| group.consumer(consumer)),
    ) {
        (Some(start), Some(consumer)) => consumer.pending_from(start).take(options.count).collect(),
        _ => Vec::new(),
    };
    reply.array(ids.len());
    let mut found = Vec::new();
    for id in ids {
        match stream.get(id) {
            Some(entry) => {
                write_entry(reply, &entry);
                found.push(id);
            }
            None => {
                reply.array(2);
                write_id(reply, id);
                reply.null_array();
            }
        }
    }
    stream.change_group(name, |group| {
        for id in found {
            let deliveries = group.pending(id).map_or(0, |pending| pending.deliveries);
            group.assign(id, consumer, now, deliveries.saturating_add(1));
        }
    });
    Ok(())
}
