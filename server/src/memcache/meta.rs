//! The meta commands: one letter per wish, answered in the order of the request.

use protocol::{
    memcache::{
        Request,
        meta::{ArithmeticMode, Flag, MetaFlags, MetaKey, SetMode},
        response::{Answer, ItemFacts, MetaLine, MetaStatus, ResponseWriter},
    },
    output::Output,
};
use storage::{db::Db, entry::ItemMarks, eviction, keyspace::Key, time::Timestamp};

use super::{
    item::{self, Found, Result, Sum, Value},
    stats::{Counted, Counters},
    text,
    watch::Stored,
};

pub(super) fn run(
    db: &mut Db<'_>,
    counters: &Counters<'_>,
    request: Request<'_>,
    output: &mut Output,
) -> Result {
    counters.add(Counted::CmdMeta);
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
        Request::MetaDebug { key } => debug(db, counters, &key, output),
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
    times: Times,
    created: bool,
    won: bool,
}

fn get(
    db: &mut Db<'_>,
    counters: &Counters<'_>,
    key: &MetaKey<'_>,
    flags: &MetaFlags<'_>,
    output: &mut Output,
) -> Result {
    let name = Key::new(&key.bytes);
    let hit = item::locked(counters.server, db, name, |db| find(db, name, flags))?;
    let touches = hit.is_some() && flags.has(Flag::Exptime);
    counters.look(touches, hit.is_some());
    if hit.as_ref().is_some_and(|hit| hit.created) {
        counters.add(Counted::TotalItems);
    }
    let Some(hit) = hit else {
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
    for flag in flags.in_order() {
        match flag {
            Flag::Opaque => line.opaque(flags.opaque().unwrap_or_default()),
            Flag::Key => line.key(key),
            Flag::Cas => line.cas(hit.cas),
            Flag::ClientFlags => line.client_flags(hit.found.flags),
            Flag::HitBefore => line.hit_before(hit.found.marks.fetched),
            Flag::LastAccess => line.last_access(idle_seconds(db, &hit.found)),
            Flag::Size => line.size(hit.found.value.len()),
            Flag::Ttl => line.ttl(item::ttl(hit.times.shown, db.now())),
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

fn find(db: &mut Db<'_>, key: Key<'_>, flags: &MetaFlags<'_>) -> Result<Option<Hit>> {
    let _ = db.get(key);
    let now = db.now();
    let existing = item::find(db, key)?;
    // The first to miss gets an empty item and the right to fill it; others see that somebody does.
    let created = existing.is_none() && flags.vivify().is_some();
    let Some(found) = existing.or_else(|| created.then(Found::empty)) else {
        return Ok(None);
    };
    let times = Times::of(flags, found.deadline, created, now);
    if created {
        item::store(db, key, b"", 0, times.last, flags.new_cas());
    }
    let cas = match flags.new_cas().filter(|_| created) {
        Some(cas) => cas,
        None if flags.has(Flag::Cas) || flags.compare_cas().is_some() => item::cas(db, key),
        None => 0,
    };
    if !created && flags.exptime().is_some() {
        item::touch(db, key, times.last);
    }
    let marks = found.marks;
    let won = !marks.won && (created || marks.stale || times.is_due);
    if let Some(mut entry) = db.entry_mut(key) {
        entry.set_marks(ItemMarks {
            won: marks.won || won,
            fetched: marks.fetched || !flags.has(Flag::NoBump),
            ..marks
        });
        if flags.has(Flag::NoBump) {
            entry.look().set_access(found.access);
        }
    }
    Ok(Some(Hit {
        found,
        cas,
        times,
        created,
        won,
    }))
}

/// An item's deadline in the course of a request, whose flags take effect from left to right: `t` before `T` shows the
/// old one.
struct Times {
    /// At `t`.
    shown: Option<Timestamp>,
    /// In the end.
    last: Option<Timestamp>,
    /// Whether less was left at `R` than it says.
    is_due: bool,
}

impl Times {
    fn of(
        flags: &MetaFlags<'_>,
        deadline: Option<Timestamp>,
        created: bool,
        now: Timestamp,
    ) -> Times {
        let at = |exptime: Option<i64>| item::deadline(exptime.unwrap_or(0), now);
        let mut times = Times {
            shown: None,
            last: deadline,
            is_due: false,
        };
        for flag in flags.in_order() {
            match flag {
                Flag::Exptime => times.last = at(flags.exptime()),
                Flag::Vivify if created => times.last = at(flags.vivify()),
                Flag::Recache if !created => {
                    times.is_due = times.last.is_some_and(|last| {
                        at(flags.recache()).is_some_and(|least| last.seconds() < least.seconds())
                    });
                }
                Flag::Ttl => times.shown = times.last,
                _ => {}
            }
        }
        times
    }
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
    let (status, cas) = item::locked(counters.server, db, name, |db| {
        let status = store(db, counters, name, mode, value, flags)?;
        let done = status == MetaStatus::Done;
        let joins = matches!(mode, SetMode::Append | SetMode::Prepend);
        if done && joins && flags.has(Flag::Size) {
            size = item::find(db, name)?.map_or(size, |item| item.value.len());
        }
        let wanted = done && flags.has(Flag::Cas);
        let cas = wanted.then(|| flags.new_cas().unwrap_or_else(|| item::cas(db, name)));
        Ok((status, cas))
    })?;
    let how = match status {
        MetaStatus::Done => {
            counters.add(Counted::TotalItems);
            Stored::Yes
        }
        MetaStatus::Exists => Stored::Exists,
        MetaStatus::NotFound => Stored::NotFound,
        _ => Stored::No,
    };
    let deadline = item::deadline(flags.exptime().unwrap_or(0), db.now());
    let ttl = item::ttl(deadline, db.now()).unwrap_or(0);
    let verb = verb(mode, flags.compare_cas().is_some());
    counters.log.stored(&key.bytes, how, verb, ttl, size);
    if !(status == MetaStatus::Done && flags.has(Flag::Quiet)) {
        answer(output, status, key, flags, cas, size);
    }
    Ok(())
}

/// What the classic commands call it.
pub(super) fn verb(mode: SetMode, compares: bool) -> &'static str {
    match mode {
        SetMode::Set | SetMode::Replace if compares => "cas",
        SetMode::Set => "set",
        SetMode::Replace => "replace",
        SetMode::Add => "add",
        SetMode::Append => "append",
        SetMode::Prepend => "prepend",
    }
}

fn store(
    db: &mut Db<'_>,
    counters: &Counters<'_>,
    key: Key<'_>,
    mode: SetMode,
    value: &[u8],
    flags: &MetaFlags<'_>,
) -> Result<MetaStatus> {
    let now = db.now();
    let wanted = flags.compare_cas();
    let found = match mode {
        // An overwrite does not ask what it overwrites.
        SetMode::Set if wanted.is_none() => None,
        _ => item::find(db, key)?,
    };
    let mut deadline = item::deadline(flags.exptime().unwrap_or(0), now);
    let mut marks = ItemMarks::default();
    match (mode, found, wanted) {
        (SetMode::Set | SetMode::Replace, None, Some(_)) => {
            counters.add(Counted::CasMisses);
            return Ok(MetaStatus::NotFound);
        }
        (SetMode::Set | SetMode::Replace, Some(found), Some(wanted)) => {
            let cas = item::cas(db, key);
            if wanted != 0 && wanted < cas && flags.has(Flag::Invalidate) {
                // The client's value is older, and stored all the same, as stale.
                deadline = found.deadline;
                marks.stale = true;
                marks.won = found.marks.won;
            } else if wanted != cas {
                counters.add(Counted::CasBadval);
                return Ok(MetaStatus::Exists);
            }
            counters.add(Counted::CasHits);
        }
        (SetMode::Append | SetMode::Prepend, Some(_), _) => {
            if wanted.is_some_and(|wanted| wanted != 0 && wanted != item::cas(db, key)) {
                return Ok(MetaStatus::Exists);
            }
            if text::join(db, counters.limits, key, value, mode == SetMode::Prepend)?
                != Answer::Stored
            {
                return Ok(MetaStatus::NotStored);
            }
            if let Some(cas) = flags.new_cas() {
                set_cas(db, key, cas);
            }
            return Ok(MetaStatus::Done);
        }
        (SetMode::Append | SetMode::Prepend, None, _) => match flags.vivify() {
            Some(exptime) => deadline = item::deadline(exptime, now),
            None => return Ok(MetaStatus::NotStored),
        },
        (SetMode::Add, Some(_), _) | (SetMode::Replace, None, None) => {
            return Ok(MetaStatus::NotStored);
        }
        (SetMode::Set | SetMode::Add | SetMode::Replace, ..) => {}
    }
    let client_flags = flags.client_flags().unwrap_or(0);
    item::store(db, key, value, client_flags, deadline, flags.new_cas());
    if marks.stale
        && let Some(mut entry) = db.entry_mut(key)
    {
        entry.set_marks(marks);
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
    let mut len = 0;
    let status = item::locked(counters.server, db, name, |db| {
        if item::find(db, name)?.is_none() {
            return Ok(MetaStatus::NotFound);
        }
        if flags
            .compare_cas()
            .is_some_and(|wanted| wanted != item::cas(db, name))
        {
            return Ok(MetaStatus::Exists);
        }
        len = counters.log.doomed(db, name);
        if flags.has(Flag::RemoveValue) {
            // An empty item takes its place, under the same CAS.
            let cas = match flags.new_cas() {
                Some(cas) => cas,
                None => item::cas(db, name),
            };
            let deadline = item::deadline(flags.exptime().unwrap_or(0), db.now());
            let client_flags = flags.client_flags().unwrap_or(0);
            item::store(db, name, b"", client_flags, deadline, Some(cas));
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
    match status {
        MetaStatus::Done if flags.has(Flag::Invalidate) => {}
        MetaStatus::Done => {
            counters.log.deleted(&key.bytes, "md", len);
            counters.add(Counted::DeleteHits);
        }
        _ => counters.add(Counted::DeleteMisses),
    }
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
    let outcome = item::locked(counters.server, db, name, |db| {
        let existing = item::find(db, name)?;
        let created = existing.is_none();
        let sum = match &existing {
            Some(found) if found.value.len() == 0 => Sum::NotANumber,
            Some(_)
                if flags
                    .compare_cas()
                    .is_some_and(|wanted| wanted != 0 && wanted != item::cas(db, name)) =>
            {
                return Ok(Err(MetaStatus::Exists));
            }
            Some(_) => item::add(db, name, flags.delta().unwrap_or(1), up)?,
            None => Sum::Missing,
        };
        let deadline = existing.and_then(|found| found.deadline);
        let times = Times::of(flags, deadline, created, db.now());
        let sum = match sum {
            Sum::NotANumber => return Ok(Ok(None)),
            Sum::Is(sum) => {
                counters.add(hits);
                sum
            }
            Sum::Missing => {
                if flags.vivify().is_none() {
                    counters.add(misses);
                    return Ok(Err(MetaStatus::NotFound));
                }
                counters.add(Counted::TotalItems);
                let initial = flags.initial().unwrap_or(0);
                let digits = initial.to_string();
                item::store(db, name, digits.as_bytes(), 0, times.last, flags.new_cas());
                initial
            }
        };
        if let Some(cas) = flags.new_cas() {
            set_cas(db, name, cas);
        }
        let cas = match flags.new_cas() {
            Some(cas) => cas,
            None if flags.has(Flag::Cas) => item::cas(db, name),
            None => 0,
        };
        if !created && flags.exptime().is_some() {
            item::touch(db, name, times.last);
        }
        Ok(Ok(Some((sum, cas, times.shown))))
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
            Flag::Ttl => line.ttl(item::ttl(deadline, now)),
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

fn debug(
    db: &mut Db<'_>,
    counters: &Counters<'_>,
    key: &MetaKey<'_>,
    output: &mut Output,
) -> Result {
    let name = Key::new(&key.bytes);
    let facts = item::locked(counters.server, db, name, |db| {
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
                exptime: item::ttl(found.deadline, db.now()).map(|seconds| seconds as i64),
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
