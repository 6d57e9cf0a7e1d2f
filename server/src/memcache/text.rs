//! The classic commands.

use protocol::{
    memcache::{
        Cas, Limits, Reply, Request, StoreVerb, Words,
        response::{Answer, ResponseWriter},
    },
    output::Output,
};
use storage::{db::Db, entry::ItemMarks, keyspace::Key};

use super::{
    item::{self, Result, Sum, Value},
    stats::{Counted, Counters},
    watch::Stored,
};

/// Keys of one request whose memory accesses overlap.
const BATCH: usize = 64;
const NON_NUMERIC: &str = "cannot increment or decrement non-numeric value";

pub(super) fn run(
    db: &mut Db<'_>,
    counters: &Counters<'_>,
    request: Request<'_>,
    output: &mut Output,
) -> Result {
    match request {
        Request::Get { keys, cas } => {
            each(db, keys, |db, key| {
                let found = get(db, counters, key, cas, output)?;
                counters.look(false, found);
                Ok(())
            })?;
            ResponseWriter::new(output).answer(Answer::End);
        }
        Request::GetAndTouch { exptime, keys, cas } => {
            let deadline = item::deadline(exptime, db.now());
            each(db, keys, |db, key| {
                let found = get(db, counters, key, cas, output)?;
                counters.look(true, found);
                item::locked(counters.server, db, key, |db| {
                    if db.peek(key).is_some() {
                        item::touch(db, key, deadline);
                    }
                    Ok(())
                })
            })?;
            ResponseWriter::new(output).answer(Answer::End);
        }
        Request::Store {
            verb,
            key,
            flags,
            exptime,
            value,
            reply,
        } => {
            counters.add(Counted::CmdSet);
            let answer = match verb {
                StoreVerb::Append | StoreVerb::Prepend => {
                    let name = Key::new(key);
                    let in_front = verb == StoreVerb::Prepend;
                    item::locked(counters.server, db, name, |db| {
                        join(db, counters.limits, name, value, in_front)
                    })?
                }
                _ => store(db, counters, verb, Key::new(key), flags, exptime, value)?,
            };
            let how = match answer {
                Answer::Stored => {
                    counters.add(Counted::TotalItems);
                    Stored::Yes
                }
                Answer::Exists => Stored::Exists,
                Answer::NotFound => Stored::NotFound,
                _ => Stored::No,
            };
            let deadline = item::deadline(exptime, db.now());
            let ttl = item::ttl(deadline, db.now()).unwrap_or(0);
            counters.log.stored(key, how, verb.name(), ttl, value.len());
            answer_if(reply, output, answer);
        }
        Request::Delete { key, reply } => {
            let name = Key::new(key);
            let (deleted, len) = item::locked(counters.server, db, name, |db| {
                let len = counters.log.doomed(db, name);
                Ok((item::remove(db, name), len))
            })?;
            if deleted {
                counters.log.deleted(key, "delete", len);
            }
            counters.add(if deleted {
                Counted::DeleteHits
            } else {
                Counted::DeleteMisses
            });
            answer_if(
                reply,
                output,
                if deleted {
                    Answer::Deleted
                } else {
                    Answer::NotFound
                },
            );
        }
        Request::Increment { key, delta, reply } => {
            arithmetic(db, counters, key, delta, true, reply, output)?;
        }
        Request::Decrement { key, delta, reply } => {
            arithmetic(db, counters, key, delta, false, reply, output)?;
        }
        Request::Touch {
            key,
            exptime,
            reply,
        } => {
            let key = Key::new(key);
            let deadline = item::deadline(exptime, db.now());
            let found = item::locked(counters.server, db, key, |db| {
                let found = db.peek(key).is_some();
                if found {
                    item::note_fetched(db, key);
                    item::touch(db, key, deadline);
                }
                Ok(found)
            })?;
            counters.look(true, found);
            answer_if(
                reply,
                output,
                if found {
                    Answer::Touched
                } else {
                    Answer::NotFound
                },
            );
        }
        _ => unreachable!("the caller sends classic commands here"),
    }
    Ok(())
}

fn answer_if(reply: Reply, output: &mut Output, answer: Answer) {
    if reply == Reply::Wanted {
        ResponseWriter::new(output).answer(answer);
    }
}

/// Works on every key; many are brought towards the cache a batch at a time first.
fn each(
    db: &mut Db<'_>,
    mut words: Words<'_>,
    mut work: impl FnMut(&mut Db<'_>, Key<'_>) -> Result,
) -> Result {
    let mut batch: smallvec::SmallVec<[Key<'_>; BATCH]> = smallvec::SmallVec::new();
    loop {
        batch.clear();
        batch.extend(words.by_ref().take(BATCH).map(Key::new));
        if batch.is_empty() {
            return Ok(());
        }
        let hashes = batch.iter().map(|key| key.hash);
        db.keyspace().prefetch_each(0, hashes);
        for &key in &batch {
            work(db, key)?;
        }
    }
}

/// Writes the item, if there is one. Whether there is.
fn get(
    db: &mut Db<'_>,
    counters: &Counters<'_>,
    key: Key<'_>,
    cas: Cas,
    output: &mut Output,
) -> Result<bool> {
    let found = item::locked(counters.server, db, key, |db| {
        let found = item::fetch(db, key)?;
        let cas = match cas {
            Cas::Shown if found.is_some() => Some(item::cas(db, key)),
            _ => None,
        };
        if found.as_ref().is_some_and(|found| !found.marks.fetched) {
            item::note_fetched(db, key);
        }
        Ok(found.map(|found| (found, cas)))
    })?;
    let Some((found, cas)) = found else {
        return Ok(false);
    };
    let mut answer = ResponseWriter::new(output);
    match found.value {
        Value::Small(bytes) => answer.value(key.bytes, found.flags, &bytes, cas),
        Value::Shared(bytes) => answer.value_shared(key.bytes, found.flags, bytes, cas),
    }
    Ok(true)
}

fn store(
    db: &mut Db<'_>,
    counters: &Counters<'_>,
    verb: StoreVerb,
    key: Key<'_>,
    flags: u32,
    exptime: i64,
    value: &[u8],
) -> Result<Answer> {
    let deadline = item::deadline(exptime, db.now());
    item::locked(counters.server, db, key, |db| {
        let exists = match verb {
            // An overwrite does not ask what it overwrites.
            StoreVerb::Set => false,
            _ => item::find(db, key)?.is_some(),
        };
        match verb {
            StoreVerb::Add if exists => return Ok(Answer::NotStored),
            StoreVerb::Replace if !exists => return Ok(Answer::NotStored),
            StoreVerb::Cas(_) if !exists => {
                counters.add(Counted::CasMisses);
                return Ok(Answer::NotFound);
            }
            StoreVerb::Cas(wanted) if item::cas(db, key) != wanted => {
                counters.add(Counted::CasBadval);
                return Ok(Answer::Exists);
            }
            StoreVerb::Cas(_) => counters.add(Counted::CasHits),
            _ => {}
        }
        item::store(db, key, value, flags, deadline, None);
        Ok(Answer::Stored)
    })
}

/// Puts bytes before or behind an item's value, if that still is an item then; flags and exptime stay.
pub(super) fn join(
    db: &mut Db<'_>,
    limits: &Limits,
    key: Key<'_>,
    value: &[u8],
    in_front: bool,
) -> Result<Answer> {
    let Some(found) = item::find(db, key)? else {
        return Ok(Answer::NotStored);
    };
    if found.value.len() + value.len() > limits.max_value_len(key.bytes, found.flags) {
        return Ok(Answer::NotStored);
    }
    let joined = if in_front {
        [value, found.value.bytes()]
    } else {
        [found.value.bytes(), value]
    }
    .concat();
    item::change(db, key, &joined, ItemMarks::default());
    Ok(Answer::Stored)
}

fn arithmetic(
    db: &mut Db<'_>,
    counters: &Counters<'_>,
    key: &[u8],
    delta: u64,
    up: bool,
    reply: Reply,
    output: &mut Output,
) -> Result {
    let key = Key::new(key);
    let sum = item::locked(counters.server, db, key, |db| item::add(db, key, delta, up))?;
    let (hits, misses) = if up {
        (Counted::IncrHits, Counted::IncrMisses)
    } else {
        (Counted::DecrHits, Counted::DecrMisses)
    };
    match sum {
        Sum::Is(sum) => {
            counters.add(hits);
            if reply == Reply::Wanted {
                ResponseWriter::new(output).number(sum);
            }
        }
        Sum::Missing => {
            counters.add(misses);
            answer_if(reply, output, Answer::NotFound);
        }
        Sum::NotANumber if reply == Reply::Wanted => {
            ResponseWriter::new(output).client_error(NON_NUMERIC)
        }
        Sum::NotANumber => {}
    }
    Ok(())
}
