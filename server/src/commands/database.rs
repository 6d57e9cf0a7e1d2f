//! Commands on databases as a whole: how many keys they have, emptying and swapping them, moving a key to another.

use std::sync::atomic::Ordering;

use storage::{
    Held,
    changes::{ChangedKey, EventClass},
    db::Db,
    keyspace::Key,
    value::number,
};

use super::keys::Content;
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Category, Command, Flag, Group, Keys, Place, Reply, Result, Run},
    error::Error,
};

pub const COMMANDS: &[&Command] = &[&DBSIZE, &FLUSHALL, &FLUSHDB, &MOVE, &SWAPDB];

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
    // Others hear of it even if nothing was there.
    let words: Vec<&[u8]> = args.from(0).collect();
    db.changes.log_instead(&words);
    reply.ok();
    Ok(())
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
    let flushes = &db.keyspace().statistics.flushes;
    flushes.fetch_add(1, Ordering::Relaxed);
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

/// Fails the transactions that watch a key which one of two databases holds. All shards are locked.
fn touch_swapped(db: &mut Db<'_>, databases: [usize; 2]) {
    let mut watched: Vec<Box<[u8]>> = Vec::new();
    let walked: std::result::Result<Option<()>, Held> = db.each_shard(0, |_, shard| {
        let keys = shard.watched.iter();
        watched.extend(
            keys.filter(|(database, ..)| databases.contains(database))
                .map(|(_, key, _)| key.into()),
        );
        None
    });
    debug_assert!(walked.is_ok());
    let selected = db.index();
    for key in &watched {
        let key = Key::new(key);
        // Looking deletes what has expired, so that no key comes to a watcher only to expire there.
        let held = databases.map(|database| {
            db.select(database);
            db.entry_mut(key).is_some()
        });
        if held.contains(&true) {
            for database in databases {
                let marks = db.shard(key.hash).watched.get(database, key.bytes);
                marks.iter().for_each(|mark| mark.touch());
            }
        }
    }
    db.select(selected);
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
    let (one, other) = (in_range(db, one)?, in_range(db, other)?);
    if one != other {
        touch_swapped(db, [one, other]);
        db.swap_databases(one, other);
        wake_waiting(db, |waiting| waiting == one || waiting == other);
    }
    db.changes.dirty += 1;
    reply.ok();
    Ok(())
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
    if target == db.index() {
        return Err(Error::SAME_OBJECT);
    }
    let moved = move_entry(db, key, target);
    reply.integer(i64::from(moved));
    Ok(())
}

fn move_entry(db: &mut Db<'_>, key: Key<'_>, target: usize) -> bool {
    if db.entry_mut(key).is_none() {
        return false;
    }
    let source = db.select(target);
    let taken = db.entry_mut(key).is_some();
    db.select(source);
    if taken {
        return false;
    }
    let content = Content::take(db, key);
    db.select(target);
    content.put(db, key);
    db.select(source);
    db.changed(key, EventClass::Generic, "move_from");
    db.select(target);
    db.changed(key, EventClass::Generic, "move_to");
    db.select(source);
    true
}

/// A database's number as an argument.
pub fn database_index(db: &Db<'_>, word: &[u8]) -> Result<usize> {
    let index = number::parse_i64(word).ok_or(Error::NOT_AN_INTEGER)?;
    let index = i32::try_from(index).map_err(|_| Error::OUTSIDE_I32)?;
    in_range(db, index.into())
}

fn in_range(db: &Db<'_>, index: i64) -> Result<usize> {
    usize::try_from(index)
        .ok()
        .filter(|&index| index < db.keyspace().databases())
        .ok_or(Error::DB_INDEX)
}
