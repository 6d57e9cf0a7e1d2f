//! What memcached calls an item: a string entry with flags, CAS and exptime, under its shard's lock.

use bytes::Bytes;
use storage::{
    Held,
    changes::EventClass,
    db::Db,
    entry::{EntryRef, Item, ItemMarks, Meta},
    keyspace::Key,
    time::Timestamp,
    value::{Text, number},
};

use crate::{
    commands::{
        database,
        string::{self, SharedText},
    },
    dispatch::call::release,
    server::Server,
};

/// Why a request could not be served although it was well formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// The key holds a list, a hash or the like.
    WrongType,
    /// A script that runs for too long holds the key's lock.
    Busy,
}

impl Error {
    pub(super) fn text(self) -> &'static str {
        match self {
            Error::WrongType => "the key holds a value that is not a string",
            Error::Busy => {
                "BUSY Valkey is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
            }
        }
    }
}

impl From<Held> for Error {
    fn from(_: Held) -> Error {
        Error::Busy
    }
}

pub(super) type Result<T = ()> = std::result::Result<T, Error>;

/// Exptimes up to this many seconds count from now, larger ones are Unix times.
const RELATIVE_MAX: i64 = 60 * 60 * 24 * 30;

/// The deadline an exptime stands for: 0 is never, negative is in the past.
pub(super) fn deadline(exptime: i64, now: Timestamp) -> Option<Timestamp> {
    match exptime {
        0 => None,
        ..0 => Some(Timestamp(now.millis())),
        1..=RELATIVE_MAX => Some(Timestamp(now.millis() + exptime * 1000)),
        _ => Some(Timestamp(exptime.saturating_mul(1000))),
    }
}

/// An item's value: small ones copied so that the entry may change, long ones shared.
pub(super) enum Value {
    Small(smallvec::SmallVec<[u8; 64]>),
    Shared(Bytes),
}

impl Value {
    pub(super) fn len(&self) -> usize {
        self.bytes().len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Value::Small(bytes) => bytes,
            Value::Shared(bytes) => bytes,
        }
    }
}

/// An item as it was found.
pub(super) struct Found {
    pub(super) value: Value,
    pub(super) flags: u32,
    pub(super) marks: ItemMarks,
    pub(super) deadline: Option<Timestamp>,
    pub(super) access: u16,
}

impl Found {
    /// An item that was not there and is being made.
    pub(super) fn empty() -> Found {
        Found {
            value: Value::Small(smallvec::SmallVec::new()),
            flags: 0,
            marks: ItemMarks::default(),
            deadline: None,
            access: 0,
        }
    }
}

/// Seconds left; `None` for an item that stays. Counted by the clock's whole seconds: one just given 30 has 30 left.
pub(super) fn ttl(deadline: Option<Timestamp>, now: Timestamp) -> Option<u64> {
    deadline.map(|deadline| (deadline.seconds() - now.seconds()).max(0) as u64)
}

/// Runs `work` with the key's shard locked, then settles what it changed.
pub(super) fn locked<R>(
    server: &Server,
    db: &mut Db<'_>,
    key: Key<'_>,
    work: impl FnOnce(&mut Db<'_>) -> Result<R>,
) -> Result<R> {
    db.try_lock(key.hash)?;
    let result = work(db);
    db.settle_met();
    release(server, db);
    result
}

/// Looks at the item without using it.
pub(super) fn find(db: &Db<'_>, key: Key<'_>) -> Result<Option<Found>> {
    db.peek(key).map(found).transpose()
}

/// The item, as a use of it that counts as hit or miss.
pub(super) fn fetch(db: &Db<'_>, key: Key<'_>) -> Result<Option<Found>> {
    db.get(key).map(found).transpose()
}

fn found(entry: EntryRef<'_>) -> Result<Found> {
    let text = Text::of_entry(entry).ok_or(Error::WrongType)?;
    let value = match text {
        Text::Shared(buffer) => Value::Shared(Bytes::from_owner(SharedText(buffer.clone()))),
        text => Value::Small(text.as_bytes(&mut itoa::Buffer::new()).into()),
    };
    Ok(Found {
        value,
        flags: entry.item().map_or(0, |item| item.flags),
        marks: entry.marks(),
        deadline: entry.deadline(),
        access: entry.access(),
    })
}

/// The length of the value, if there is an item.
pub(super) fn len(db: &Db<'_>, key: Key<'_>) -> Option<usize> {
    let text = Text::of(db.peek(key)?.value())?;
    Some(text.as_bytes(&mut itoa::Buffer::new()).len())
}

/// Notes that the item was fetched.
pub(super) fn note_fetched(db: &mut Db<'_>, key: Key<'_>) {
    db.note_use(key);
    if let Some(mut entry) = db.entry_mut(key) {
        let marks = entry.look().marks();
        entry.set_marks(ItemMarks {
            fetched: true,
            ..marks
        });
    }
}

/// The item's CAS; one is given to it if nobody has asked before.
pub(super) fn cas(db: &mut Db<'_>, key: Key<'_>) -> u64 {
    let Some(entry) = db.entry_mut(key) else {
        return 0;
    };
    let item = entry.look().item().unwrap_or_default();
    if item.cas != 0 {
        return item.cas;
    }
    let cas = db.keyspace().next_cas();
    db.set_item(key, Some(Item { cas, ..item }));
    cas
}

/// Stores a value, whatever was there. `cas` is the item's new CAS, if it must be a certain one.
pub(super) fn store(
    db: &mut Db<'_>,
    key: Key<'_>,
    value: &[u8],
    flags: u32,
    deadline: Option<Timestamp>,
    cas: Option<u64>,
) {
    if deadline.is_some_and(|deadline| deadline <= db.now()) {
        remove(db, key);
        return;
    }
    let item = (flags != 0 || cas.is_some()).then(|| Item {
        flags,
        cas: cas.unwrap_or(0),
    });
    string::store(
        db,
        key,
        value,
        Meta {
            deadline,
            item,
            access: 0,
        },
    );
    db.changed(key, EventClass::String, "set");
    match deadline {
        Some(at) => {
            db.changes.log_instead(&[
                b"SET",
                key.bytes,
                value,
                b"PXAT",
                at.millis().to_string().as_bytes(),
            ]);
        }
        None => db.changes.log_instead(&[b"SET", key.bytes, value]),
    }
}

/// Replaces the value of an item that exists, keeping flags and deadline; its CAS changes.
pub(super) fn change(db: &mut Db<'_>, key: Key<'_>, value: &[u8], marks: ItemMarks) {
    match number::parse_i64(value) {
        Some(number) => db.set_integer(key, number),
        None => db.set_text(key, value),
    }
    if let Some(mut entry) = db.entry_mut(key) {
        entry.set_marks(marks);
    }
    db.changed(key, EventClass::String, "set");
    db.changes
        .log_instead(&[b"SET", key.bytes, value, b"KEEPTTL"]);
}

/// Sets when the item expires; at once if that has passed.
pub(super) fn touch(db: &mut Db<'_>, key: Key<'_>, deadline: Option<Timestamp>) {
    if deadline.is_some_and(|deadline| deadline <= db.now()) {
        remove(db, key);
        return;
    }
    db.set_deadline(key, deadline);
    db.changed(
        key,
        EventClass::Generic,
        if deadline.is_some() {
            "expire"
        } else {
            "persist"
        },
    );
    match deadline {
        Some(at) => {
            db.changes
                .log_instead(&[b"PEXPIREAT", key.bytes, at.millis().to_string().as_bytes()])
        }
        None => db.changes.log_instead(&[b"PERSIST", key.bytes]),
    }
}

/// Deletes the key. False if it does not exist.
pub(super) fn remove(db: &mut Db<'_>, key: Key<'_>) -> bool {
    let deleted = db.delete(key);
    if deleted {
        db.changed(key, EventClass::Generic, "del");
        db.changes.log_instead(&[b"DEL", key.bytes]);
    }
    deleted
}

/// Deletes the key, taking the lock for it.
pub(super) fn delete(server: &Server, db: &mut Db<'_>, key: Key<'_>) -> Result<bool> {
    locked(server, db, key, |db| Ok(remove(db, key)))
}

/// Deletes all items, and whatever else is in their database.
pub fn flush(server: &Server, db: &mut Db<'_>) -> std::result::Result<(), Held> {
    db.try_lock_all()?;
    let keys = database::flush(db, Some(0));
    db.changes.dirty += keys as u64;
    db.changes.log_instead(&[b"FLUSHDB"]);
    release(server, db);
    Ok(())
}

/// What arithmetic came to.
pub(super) enum Sum {
    Is(u64),
    NotANumber,
    Missing,
}

/// Adds, wrapping at 2^64, or subtracts, stopping at 0. A shorter result is padded with spaces to the old length, as
/// memcached overwrites the digits in place.
pub(super) fn add(db: &mut Db<'_>, key: Key<'_>, delta: u64, up: bool) -> Result<Sum> {
    let Some(found) = find(db, key)? else {
        return Ok(Sum::Missing);
    };
    let Some(old) = number::parse_memcached_value(found.value.bytes()) else {
        return Ok(Sum::NotANumber);
    };
    let sum = if up {
        old.wrapping_add(delta)
    } else {
        old.saturating_sub(delta)
    };
    let mut digits = sum.to_string().into_bytes();
    // A number that does not fit makes a new item, which nobody has fetched or called stale.
    let marks = if digits.len() <= found.value.len() {
        found.marks
    } else {
        ItemMarks::default()
    };
    digits.resize(digits.len().max(found.value.len()), b' ');
    change(db, key, &digits, marks);
    Ok(Sum::Is(sum))
}
