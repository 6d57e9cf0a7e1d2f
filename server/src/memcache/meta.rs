//! The meta commands: one letter per wish, answered in the order of the request.

use protocol::{
    memcache::{
        Request,
        meta::{ArithmeticMode, Flag, MetaFlags, MetaKey, SetMode},
        response::{Answer, ItemFacts, MetaLine, MetaStatus, ResponseWriter},
    },
    output::Output,
};
use storage::{db::Db, entry::ItemMarks, eviction, keyspace::Key};

use super::{
    item::{self, Found, Result, Sum, Value},
    stats::{Counted, Counters},
    text,
};

pub(super) fn run(
    db: &mut Db<'_>,
    counters: &Counters<'_>,
    request: Request<'_>,
    output: &mut Output,
) -> Result {
    match request {
        Request::MetaGet { key, flags } => get(db, counters, &key, &flags, output),
        Request::MetaSet {
            key,
            mode,
            value,
            flags,
        } => set(db, counters, &key, mode, value, &flags, output),
        Request::MetaDelete { key, flags } => delete(db, counters, &key, &flags, output),
        Request::MetaArithmetic { key, mode, flags } => {
            arithmetic(db, counters, &key, mode, &flags, output)
        }
        Request::MetaDebug { key } => debug(db, &key, output),
        _ => {
            ResponseWriter::new(output).answer(Answer::MetaNoop);
            Ok(())
        }
    }
}

/// What `mg` found, with what has to be known under the lock.
struct Hit {
    found: Found,
    cas: u64,
    won: bool,
}

fn get(
    db: &mut Db<'_>,
    counters: &Counters<'_>,
    key: &MetaKey<'_>,
    flags: &MetaFlags<'_>,
    output: &mut Output,
) -> Result {
    counters.add(Counted::CmdGet);
    let name = Key::new(&key.bytes);
    let hit = item::locked(db, name, |db| find(db, name, flags))?;
    counters.add(if hit.as_ref().is_some_and(|hit| !hit.created) {
        Counted::GetHits
    } else {
        Counted::GetMisses
    });
    let Some(Looked { hit, .. }) = hit else {
        if !flags.has(Flag::Quiet) {
            let mut line = ResponseWriter::new(output);
            let mut line = line.meta(MetaStatus::Miss);
            echo(&mut line, key, flags);
            line.end();
        }
        return Ok(());
    };
    let unchanged = flags.compare_cas() == Some(hit.cas);
    let with_value = flags.has(Flag::Value) && !unchanged;
    let mut writer = ResponseWriter::new(output);
    let mut line = if with_value {
        writer.meta_value(hit.found.value.len())
    } else {
        writer.meta(MetaStatus::Done)
    };
    let now = db.now();
    for flag in flags.in_order() {
        match flag {
            Flag::Opaque => line.opaque(flags.opaque().unwrap_or_default()),
            Flag::Key => line.key(key),
            Flag::Cas => line.cas(hit.cas),
            Flag::ClientFlags => line.client_flags(hit.found.flags),
            Flag::HitBefore => line.hit_before(hit.found.marks.fetched),
            Flag::LastAccess => line.last_access(idle_seconds(db, &hit.found)),
            Flag::Size => line.size(hit.found.value.len()),
            Flag::Ttl => line.ttl(hit.found.ttl(now)),
            _ => {}
        }
    }
    if hit.found.marks.won {
        line.already_won();
    }
    if hit.found.marks.stale {
        line.stale();
    }
    if hit.won {
        line.won();
    }
    match hit.found.value {
        _ if !with_value => line.end(),
        Value::Small(bytes) => line.end_with(&bytes),
        Value::Shared(bytes) => line.end_with_shared(bytes),
    }
    Ok(())
}

struct Looked {
    hit: Hit,
    created: bool,
}

fn find(db: &mut Db<'_>, key: Key<'_>, flags: &MetaFlags<'_>) -> Result<Option<Looked>> {
    let _ = db.get(key);
    let now = db.now();
    let mut created = false;
    let mut found = item::find(db, key)?;
    if found.is_none()
        && let Some(exptime) = flags.vivify()
    {
        // The first to miss gets an empty item and the right to fill it; others see that somebody does.
        item::store(
            db,
            key,
            b"",
            0,
            item::deadline(exptime, now),
            flags.new_cas(),
        );
        found = item::find(db, key)?;
        created = true;
    }
    let Some(mut found) = found else {
        return Ok(None);
    };
    if let Some(exptime) = flags.exptime() {
        item::touch(db, key, item::deadline(exptime, now));
        found.deadline = item::deadline(exptime, now);
    }
    let marks = found.marks;
    let recache = flags.recache().is_some_and(|least| {
        !created
            && found
                .ttl(now)
                .is_some_and(|left| i64::try_from(left).is_ok_and(|left| left < least))
    });
    let won = !marks.won && (created || marks.stale || recache);
    let fetched = marks.fetched || !(created || flags.has(Flag::NoBump));
    let needs_cas = flags.has(Flag::Cas) || flags.compare_cas().is_some();
    let cas = if needs_cas { item::cas(db, key) } else { 0 };
    if let Some(mut entry) = db.entry_mut(key) {
        entry.set_marks(ItemMarks {
            won: marks.won || won,
            fetched,
            ..marks
        });
        if flags.has(Flag::NoBump) {
            entry.look().set_access(found.access);
        }
    }
    Ok(Some(Looked {
        hit: Hit { found, cas, won },
        created,
    }))
}

fn idle_seconds(db: &Db<'_>, found: &Found) -> u64 {
    eviction::idle_seconds(db.keyspace(), found.access, db.now())
        .unwrap_or_default()
        .into()
}

/// The flags that every answer carries.
fn echo(line: &mut MetaLine<'_>, key: &MetaKey<'_>, flags: &MetaFlags<'_>) {
    for flag in flags.in_order() {
        match flag {
            Flag::Opaque => line.opaque(flags.opaque().unwrap_or_default()),
            Flag::Key => line.key(key),
            _ => {}
        }
    }
}

fn answer(
    output: &mut Output,
    status: MetaStatus,
    key: &MetaKey<'_>,
    flags: &MetaFlags<'_>,
    cas: Option<u64>,
    size: usize,
) {
    let mut writer = ResponseWriter::new(output);
    let mut line = writer.meta(status);
    for flag in flags.in_order() {
        match flag {
            Flag::Opaque => line.opaque(flags.opaque().unwrap_or_default()),
            Flag::Key => line.key(key),
            Flag::Cas => line.cas(cas.unwrap_or(0)),
            Flag::Size => line.size(size),
            _ => {}
        }
    }
    line.end();
}

/// How a compared CAS relates to the item's.
enum Compared {
    Same,
    /// The client's is older, and it asked to store all the same, as stale.
    Stale,
    Different,
}

fn compare(flags: &MetaFlags<'_>, cas: u64) -> Compared {
    match flags.compare_cas() {
        None => Compared::Same,
        Some(wanted) if wanted == cas => Compared::Same,
        Some(wanted) if flags.has(Flag::Invalidate) && wanted < cas => Compared::Stale,
        Some(_) => Compared::Different,
    }
}

fn set(
    db: &mut Db<'_>,
    counters: &Counters<'_>,
    key: &MetaKey<'_>,
    mode: SetMode,
    value: &[u8],
    flags: &MetaFlags<'_>,
    output: &mut Output,
) -> Result {
    counters.add(Counted::CmdSet);
    let name = Key::new(&key.bytes);
    let mut size = value.len();
    let (status, cas) = item::locked(db, name, |db| {
        let status = store(db, name, mode, value, flags)?;
        let done = status == MetaStatus::Done;
        let joins = matches!(mode, SetMode::Append | SetMode::Prepend);
        if done && joins && flags.has(Flag::Size) {
            size = item::find(db, name)?.map_or(size, |item| item.value.len());
        }
        let wanted = done && flags.has(Flag::Cas);
        Ok((status, wanted.then(|| item::cas(db, name))))
    })?;
    if !(status == MetaStatus::Done && flags.has(Flag::Quiet)) {
        answer(output, status, key, flags, cas, size);
    }
    Ok(())
}

fn store(
    db: &mut Db<'_>,
    key: Key<'_>,
    mode: SetMode,
    value: &[u8],
    flags: &MetaFlags<'_>,
) -> Result<MetaStatus> {
    let now = db.now();
    let found = match mode {
        SetMode::Set if flags.compare_cas().is_none() => None,
        _ => item::find(db, key)?,
    };
    let deadline = item::deadline(flags.exptime().unwrap_or(0), now);
    let client_flags = flags.client_flags().unwrap_or(0);
    let mut stale = false;
    if flags.compare_cas().is_some() {
        let joins = matches!(mode, SetMode::Append | SetMode::Prepend);
        match compare(flags, item::cas(db, key)) {
            // There is nothing to compare with.
            _ if found.is_none() && joins => {}
            _ if found.is_none() => return Ok(MetaStatus::NotFound),
            Compared::Same => {}
            Compared::Stale => stale = true,
            Compared::Different => return Ok(MetaStatus::Exists),
        }
    }
    match (mode, &found) {
        (SetMode::Add, Some(_)) | (SetMode::Replace, None) => return Ok(MetaStatus::NotStored),
        (SetMode::Append | SetMode::Prepend, Some(_)) => {
            text::join(db, key, value, mode == SetMode::Prepend)?;
            if let Some(cas) = flags.new_cas() {
                set_cas(db, key, cas);
            }
            return Ok(MetaStatus::Done);
        }
        (SetMode::Append | SetMode::Prepend, None) => {
            let Some(exptime) = flags.vivify() else {
                return Ok(MetaStatus::NotStored);
            };
            item::store(
                db,
                key,
                value,
                client_flags,
                item::deadline(exptime, now),
                flags.new_cas(),
            );
        }
        _ => item::store(db, key, value, client_flags, deadline, flags.new_cas()),
    }
    if stale && let Some(mut entry) = db.entry_mut(key) {
        entry.set_marks(ItemMarks {
            stale: true,
            ..ItemMarks::default()
        });
    }
    Ok(MetaStatus::Done)
}

fn set_cas(db: &mut Db<'_>, key: Key<'_>, cas: u64) {
    let Some(entry) = db.entry_mut(key) else {
        return;
    };
    let item = entry.look().item().unwrap_or_default();
    db.set_item(key, Some(storage::entry::Item { cas, ..item }));
}

fn delete(
    db: &mut Db<'_>,
    counters: &Counters<'_>,
    key: &MetaKey<'_>,
    flags: &MetaFlags<'_>,
    output: &mut Output,
) -> Result {
    let name = Key::new(&key.bytes);
    let status = item::locked(db, name, |db| {
        if item::find(db, name)?.is_none() {
            return Ok(MetaStatus::NotFound);
        }
        if flags
            .compare_cas()
            .is_some_and(|wanted| wanted != item::cas(db, name))
        {
            return Ok(MetaStatus::Exists);
        }
        if flags.has(Flag::RemoveValue) {
            item::change(db, name, b"");
            // The client's flags go with the value.
            let cas = item::cas(db, name);
            db.set_item(name, Some(storage::entry::Item { flags: 0, cas }));
        }
        if flags.has(Flag::Invalidate) {
            if let Some(exptime) = flags.exptime() {
                item::touch(db, name, item::deadline(exptime, db.now()));
            }
            let cas = flags.new_cas().unwrap_or_else(|| db.keyspace().next_cas());
            set_cas(db, name, cas);
            if let Some(mut entry) = db.entry_mut(name) {
                let marks = entry.look().marks();
                entry.set_marks(ItemMarks {
                    stale: true,
                    won: false,
                    ..marks
                });
            }
        } else if !flags.has(Flag::RemoveValue) {
            item::remove(db, name);
        }
        Ok(MetaStatus::Done)
    })?;
    counters.add(if status == MetaStatus::Done {
        Counted::DeleteHits
    } else {
        Counted::DeleteMisses
    });
    if !(flags.has(Flag::Quiet) && status == MetaStatus::Done) {
        let mut writer = ResponseWriter::new(output);
        let mut line = writer.meta(status);
        echo(&mut line, key, flags);
        line.end();
    }
    Ok(())
}

fn arithmetic(
    db: &mut Db<'_>,
    counters: &Counters<'_>,
    key: &MetaKey<'_>,
    mode: ArithmeticMode,
    flags: &MetaFlags<'_>,
    output: &mut Output,
) -> Result {
    let name = Key::new(&key.bytes);
    let up = mode == ArithmeticMode::Increment;
    let (hits, misses) = if up {
        (Counted::IncrHits, Counted::IncrMisses)
    } else {
        (Counted::DecrHits, Counted::DecrMisses)
    };
    let outcome = item::locked(db, name, |db| {
        let mut sum = Sum::Missing;
        if item::find(db, name)?.is_some() {
            if flags
                .compare_cas()
                .is_some_and(|wanted| wanted != item::cas(db, name))
            {
                return Ok(Err(MetaStatus::Exists));
            }
            sum = item::add(db, name, flags.delta().unwrap_or(1), up)?;
        }
        let sum = match sum {
            Sum::NotANumber => return Ok(Ok(None)),
            Sum::Is(sum) => {
                counters.add(hits);
                sum
            }
            Sum::Missing => {
                counters.add(misses);
                let Some(exptime) = flags.vivify() else {
                    return Ok(Err(MetaStatus::NotFound));
                };
                let initial = flags.initial().unwrap_or(0);
                let deadline = item::deadline(exptime, db.now());
                item::store(
                    db,
                    name,
                    initial.to_string().as_bytes(),
                    0,
                    deadline,
                    flags.new_cas(),
                );
                initial
            }
        };
        if let Some(cas) = flags.new_cas() {
            set_cas(db, name, cas);
        }
        if let Some(exptime) = flags.exptime() {
            item::touch(db, name, item::deadline(exptime, db.now()));
        }
        let cas = if flags.has(Flag::Cas) {
            item::cas(db, name)
        } else {
            0
        };
        let deadline = db.peek(name).and_then(|entry| entry.deadline());
        Ok(Ok(Some((sum, cas, deadline))))
    })?;
    let mut writer = ResponseWriter::new(output);
    let (sum, cas, deadline) = match outcome {
        Ok(Some(done)) => done,
        Ok(None) => {
            writer.client_error("cannot increment or decrement non-numeric value");
            return Ok(());
        }
        Err(status) => {
            let mut line = writer.meta(status);
            echo(&mut line, key, flags);
            line.end();
            return Ok(());
        }
    };
    if flags.has(Flag::Quiet) {
        return Ok(());
    }
    let digits = sum.to_string();
    let with_value = flags.has(Flag::Value);
    let mut line = if with_value {
        writer.meta_value(digits.len())
    } else {
        writer.meta(MetaStatus::Done)
    };
    let now = db.now();
    for flag in flags.in_order() {
        match flag {
            Flag::Opaque => line.opaque(flags.opaque().unwrap_or_default()),
            Flag::Key => line.key(key),
            Flag::Cas => line.cas(cas),
            Flag::Ttl => {
                line.ttl(deadline.map(|at| (at.millis() - now.millis()).max(0) as u64 / 1000))
            }
            _ => {}
        }
    }
    if with_value {
        line.end_with(digits.as_bytes())
    } else {
        line.end()
    }
    Ok(())
}

fn debug(db: &mut Db<'_>, key: &MetaKey<'_>, output: &mut Output) -> Result {
    let name = Key::new(&key.bytes);
    let facts = item::locked(db, name, |db| {
        let Some(found) = item::find(db, name)? else {
            return Ok(None);
        };
        let cas = item::cas(db, name);
        let size = db.peek(name).map_or(0, |entry| entry.memory_bytes());
        Ok(Some((found, cas, size)))
    })?;
    let mut writer = ResponseWriter::new(output);
    match facts {
        None => writer.answer(Answer::MetaMiss),
        Some((found, cas, size)) => writer.meta_debug(
            key,
            &ItemFacts {
                exptime: found.ttl(db.now()).map(|seconds| seconds as i64),
                last_access: idle_seconds(db, &found) as i64,
                cas,
                fetched: found.marks.fetched,
                class: 1,
                size,
            },
        ),
    }
    Ok(())
}
