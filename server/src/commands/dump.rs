//! DUMP and RESTORE: a key's value as bytes that other servers understand, and back.
//!
//! The payload is an RDB value with a version and a checksum behind it, see [`storage::rdb`].

use std::sync::atomic::Ordering;

use storage::{
    changes::EventClass,
    db::Db,
    entry::Meta,
    eviction,
    rdb::{self, Dialect, Limits, VersionCheck},
    removal::Removal,
    time::Timestamp,
    value::{Value, ValueRef},
};

use crate::{
    dispatch::{
        args::Args,
        command::{Access, Arity::*, Category, Command, Flag, Group, Keys, Reply, Result, Run},
        error::Error,
        preparation::Work,
    },
    log,
};

pub const COMMANDS: &[&Command] = &[&DUMP, &RESTORE, &RESTORE_ASKING];

const BUSY_KEY: Error = Error::from_static("BUSYKEY Target key name already exists.");
const BAD_ENVELOPE: Error = Error::from_static("ERR DUMP payload version or checksum are wrong");
const BAD_DATA: Error = Error::from_static("ERR Bad data format");

/// A type byte aside, a payload's version and checksum.
const MIN_PAYLOAD_LEN: usize = 10;
/// Elements up to which a value is encoded under the lock; larger ones are cloned, which is cheap, and encoded after.
const ENCODED_UNDER_LOCK: usize = 1000;

/// Bytes up to which a payload is decoded under the lock.
const DECODED_UNDER_LOCK: usize = 16 * 1024;

const DUMP: Command = Command {
    name: "DUMP",
    syntax: "key",
    summary: "Returns a key's value as bytes that RESTORE takes.",
    since: "2.6.0",
    complexity: "O(N*M) where N is the number of elements and M their average size",
    group: Group::Generic,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(dump),
    subcommands: &[],
};

fn dump(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let Some(entry) = db.get(args.key(1)) else {
        reply.null();
        return Ok(());
    };
    let value = entry.value();
    if len_of(value) <= ENCODED_UNDER_LOCK {
        reply.bulk(&rdb::dump(value, Dialect::Valkey));
        return Ok(());
    }
    let value = value.to_value();
    reply.later(move |reply| {
        reply.bulk(&rdb::dump(value.look(), Dialect::Valkey));
        true
    });
    Ok(())
}

/// How many elements there are to encode.
fn len_of(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Bytes(_) | ValueRef::Int(_) | ValueRef::Shared(_) => 1,
        ValueRef::List(list) => list.len(),
        ValueRef::Set(set) => set.len(),
        ValueRef::Hash(hash) => hash.len(),
        ValueRef::SortedSet(set) => set.len(),
        ValueRef::Stream(stream) => stream.len(),
    }
}

const RESTORE: Command = Command {
    name: "RESTORE",
    syntax: "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]",
    summary: "Creates a key from bytes that DUMP returned.",
    since: "2.6.0",
    complexity: "O(1) to create the new key and additional O(N*M) to rebuild the value, where N is the number of elements and M their average size",
    group: Group::Generic,
    arity: AtLeast(4),
    keys: &[Keys::at(1, Access::Overwrite)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[Category::Dangerous],
    run: Run::Write(restore),
    subcommands: &[],
};

const RESTORE_ASKING: Command = Command {
    name: "RESTORE-ASKING",
    syntax: "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]",
    summary: "Creates a key from bytes that DUMP returned, while its slot is on the move.",
    since: "3.0.0",
    complexity: "O(1) to create the new key and additional O(N*M) to rebuild the value, where N is the number of elements and M their average size",
    group: Group::Server,
    arity: AtLeast(4),
    keys: &[Keys::at(1, Access::Overwrite)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Asking],
    categories: &[Category::Keyspace, Category::Dangerous],
    run: Run::Write(restore),
    subcommands: &[],
};

/// What follows the payload.
#[derive(Default)]
struct Options {
    replace: bool,
    absolute: bool,
    idle_seconds: Option<i64>,
    frequency: Option<u8>,
}

impl Options {
    fn read(args: &Args<'_>) -> Result<Options> {
        let mut options = Options::default();
        let mut index = 4;
        while index < args.len() {
            let has_value = index + 1 < args.len();
            if args.is(index, "REPLACE") {
                options.replace = true;
            } else if args.is(index, "ABSTTL") {
                options.absolute = true;
            } else if args.is(index, "IDLETIME") && has_value && options.frequency.is_none() {
                let seconds = args.integer(index + 1)?;
                if seconds < 0 {
                    return Err(Error::general("Invalid IDLETIME value, must be >= 0"));
                }
                options.idle_seconds = Some(seconds);
                index += 1;
            } else if args.is(index, "FREQ") && has_value && options.idle_seconds.is_none() {
                let frequency = u8::try_from(args.integer(index + 1)?)
                    .map_err(|_| Error::general("Invalid FREQ value, must be >= 0 and <= 255"))?;
                options.frequency = Some(frequency);
                index += 1;
            } else {
                return Err(Error::SYNTAX);
            }
            index += 1;
        }
        Ok(options)
    }
}

fn restore(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let options = Options::read(args)?;
    let key = args.key(1);
    if !options.replace && db.entry_mut(key).is_some() {
        db.note_use(key);
        return Err(BUSY_KEY);
    }
    let ttl = args.integer(2)?;
    if ttl < 0 {
        return Err(Error::general("Invalid TTL value, must be >= 0"));
    }
    let decoding = Decoding::of(db);
    let payload = args.word(3);
    let value = if payload.len() <= DECODED_UNDER_LOCK {
        decoding.decode(payload)?
    } else {
        match reply.finish(Restoring::new(decoding, payload)) {
            Some(value) => value?,
            None => return Ok(()),
        }
    };
    let deleted = options.replace && db.delete(key);
    let deadline = (ttl > 0).then(|| {
        let from = if options.absolute {
            0
        } else {
            db.now().millis()
        };
        // Beyond the end of time is long ago, as for other servers.
        Timestamp(ttl.wrapping_add(from))
    });
    if deadline.is_some_and(|deadline| deadline <= db.expired_by())
        && db.keyspace().deletes_expired()
    {
        if deleted {
            db.changed(key, EventClass::Generic, "del");
            db.log_removal_instead(key, Removal::Implicit);
        }
        reply.ok();
        return Ok(());
    }
    let meta = Meta {
        deadline,
        ..Meta::default()
    };
    db.put(key, value, meta);
    set_access(db, key, &options);
    db.changed(key, EventClass::Generic, "restore");
    if let Some(deadline) = deadline
        && !options.absolute
    {
        log_absolute(db, args, deadline);
    }
    reply.ok();
    Ok(())
}

/// How payloads are read.
struct Decoding {
    limits: Limits,
    versions: VersionCheck,
    /// Whether a wrong checksum matters; it does but for tests.
    trusts_checksums: bool,
    now: Timestamp,
}

impl Decoding {
    fn of(db: &Db<'_>) -> Decoding {
        let relaxed = &db.settings().rdb_version_check_relaxed;
        let skips = &db.settings().skip_checksums;
        Decoding {
            trusts_checksums: !skips.load(Ordering::Relaxed),
            limits: Limits::from(db.settings()),
            versions: match relaxed.load(Ordering::Relaxed) {
                true => VersionCheck::Relaxed,
                false => VersionCheck::Strict,
            },
            now: db.now(),
        }
    }

    /// The value of a payload.
    ///
    /// # Errors
    /// What is wrong with its envelope, else with what is inside.
    fn decode(&self, payload: &[u8]) -> Result<Value> {
        let sealed;
        let payload = match self.trusts_checksums {
            true => payload,
            false => {
                sealed = rdb::seal(payload);
                &sealed
            }
        };
        let value = rdb::restore(payload, &self.limits, self.now, self.versions);
        value.map_err(|error| match error {
            rdb::Error::Version(_) | rdb::Error::Checksum => BAD_ENVELOPE,
            _ if payload.len() < MIN_PAYLOAD_LEN => BAD_ENVELOPE,
            error => {
                log::warning(format!("RESTORE: payload integrity check failed: {error}"));
                BAD_DATA
            }
        })
    }
}

/// The decoding of a big payload.
struct Restoring {
    decoding: Decoding,
    payload: Box<[u8]>,
    value: Result<Value>,
}

impl Restoring {
    fn new(decoding: Decoding, payload: &[u8]) -> Restoring {
        Restoring {
            decoding,
            payload: payload.into(),
            value: Err(BAD_DATA),
        }
    }
}

impl Work for Restoring {
    type Outcome = Result<Value>;

    fn effort(&self) -> usize {
        self.payload.len()
    }

    fn advance(&mut self) -> bool {
        self.value = self.decoding.decode(&self.payload);
        self.payload = Box::default();
        true
    }

    fn outcome(&mut self) -> Result<Value> {
        std::mem::replace(&mut self.value, Err(BAD_DATA))
    }

    /// The payload is the request's own.
    fn has_sources_of(&self, _begun: &Restoring) -> bool {
        true
    }
}

/// Makes the key look as if it was last used as long ago, or as often, as the options say.
fn set_access(db: &Db<'_>, key: storage::keyspace::Key<'_>, options: &Options) {
    let idle = options.idle_seconds.map(|seconds| seconds as u64);
    let access = eviction::restored(db.keyspace(), idle, options.frequency, db.now());
    if let Some(access) = access
        && let Some(entry) = db.peek(key)
    {
        entry.set_access(access);
    }
}

/// Whoever runs the command later must come to the same deadline.
fn log_absolute(db: &mut Db<'_>, args: &Args<'_>, deadline: Timestamp) {
    let deadline = deadline.millis().to_string();
    let mut words: Vec<&[u8]> = args.from(0).collect();
    words[2] = deadline.as_bytes();
    words.push(b"ABSTTL");
    db.changes.log_instead(&words);
}
