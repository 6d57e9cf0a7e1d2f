//! DEBUG: what tests and client fixtures ask of a server, for those who `enable-debug-command` lets.

use std::{
    convert::Infallible,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use protocol::resp::reply::Version;
use storage::{
    changes::{Listeners, Notice},
    db::{Db, access_clock},
    entry::Meta,
    keyspace::Key,
    value::{ValueRef, list::ListEncoding, number},
};

use super::{config::peer, database, object};
use crate::{
    config::memory_size,
    digest::Digest,
    dispatch::{
        args::Args,
        call::release,
        command::{Arity::*, Command, Flag, Group, Reply, Result, Run},
        error::Error,
    },
    log,
    persistence::{aof, loader::Existing, recovery, snapshot},
    server::{self, Server},
    session::Session,
};

pub const COMMANDS: &[&Command] = &[&DEBUG];

const DEBUG: Command = Command {
    name: "DEBUG",
    syntax: "subcommand [arg [arg ...]]",
    summary: "Does what tests need.",
    since: "1.0.0",
    complexity: "Depends on subcommand.",
    group: Group::Server,
    arity: AtLeast(2),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Server(debug),
    subcommands: &[],
};

/// Subcommands with the number of words they have at least and at most, and what they do.
const HELP: &[(&str, usize, usize, &str, &str)] = &[
    (
        "AOF-FLUSH-SLEEP",
        3,
        3,
        "<microseconds>",
        "Holds up every write to the append-only file.",
    ),
    (
        "CHANGE-REPL-ID",
        2,
        2,
        "",
        "Gives the data a new replication ID.",
    ),
    ("DIGEST", 2, 2, "", "Returns a fingerprint of all data."),
    (
        "DIGEST-VALUE",
        2,
        usize::MAX,
        "<key> [<key> ...]",
        "Returns fingerprints of keys' values.",
    ),
    ("ERROR", 3, 3, "<message>", "Answers with this error."),
    ("HELP", 2, 2, "", "Lists the subcommands."),
    (
        "LOADAOF",
        2,
        usize::MAX,
        "",
        "Empties the data and loads the append-only file.",
    ),
    ("LOG", 3, 3, "<message>", "Writes a message to the log."),
    ("OBJECT", 3, 4, "<key>", "Returns figures of a key's entry."),
    (
        "POPULATE",
        3,
        5,
        "<count> [<prefix>] [<size>]",
        "Creates keys that hold strings.",
    ),
    (
        "PROTOCOL",
        3,
        3,
        "<type>",
        "Answers with a value of this type of the protocol.",
    ),
    (
        "QUICKLIST-PACKED-THRESHOLD",
        3,
        3,
        "<size>",
        "Accepts the size of elements that have a node of their own elsewhere. Has no effect.",
    ),
    (
        "RELOAD",
        2,
        usize::MAX,
        "[option ...]",
        "Saves all data and loads it again. NOSAVE only loads, NOFLUSH keeps what is there, MERGE lets the file win.",
    ),
    (
        "REPLICATE",
        3,
        usize::MAX,
        "<word> [<word> ...]",
        "Sends replicas these words as a command.",
    ),
    (
        "SET-ACTIVE-EXPIRE",
        3,
        3,
        "<0|1>",
        "Turns the deletion of expired keys in the background off and on.",
    ),
    (
        "SET-SKIP-CHECKSUM-VALIDATION",
        3,
        3,
        "<0|1>",
        "Has RESTORE take payloads with a wrong checksum.",
    ),
    (
        "SET-DISABLE-DENY-SCRIPTS",
        3,
        3,
        "<0|1>",
        "Lets scripts run the commands that they may not run.",
    ),
    (
        "SLEEP",
        3,
        3,
        "<seconds>",
        "Stops the worker of this connection for a while.",
    ),
    ("STRUCTSIZE", 2, 2, "", "Returns the sizes of structures."),
];

/// What QUICKLIST-PACKED-THRESHOLD takes at most, in bytes.
const PACKED_THRESHOLD_MAX: u64 = (1 << 32) - (1 << 20);

/// Whether the session may use DEBUG at all.
///
/// # Errors
/// `enable-debug-command` does not let it.
#[cold]
pub fn check_allowed(session: &Session) -> Result {
    let settings = session.server.config.settings();
    if settings.enable_debug_command.allows(peer(&session.client)) {
        return Ok(());
    }
    Err(Error::general(
        "DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from a \
         local connection, otherwise you need to set this option in the configuration file, and then restart the \
         server.",
    ))
}

fn debug(session: &mut Session, db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let known = HELP
        .iter()
        .find(|(name, least, most, ..)| args.is(1, name) && (*least..=*most).contains(&args.len()));
    let name = known.map_or("", |(name, ..)| name);
    match name {
        "AOF-FLUSH-SLEEP" => {
            let microseconds = number::parse_u64(args.word(2)).unwrap_or(0);
            session.server.aof.delay_writes(microseconds);
            reply.ok();
        }
        "CHANGE-REPL-ID" => {
            session.server.replication.change_id();
            reply.ok();
        }
        "DIGEST" => reply.simple(&digest(db)?),
        "DIGEST-VALUE" => {
            reply.array(args.len() - 2);
            for index in 2..args.len() {
                let digest = digest_value(db, args.key(index))?;
                reply.simple(&digest.to_hex());
            }
        }
        "ERROR" => return Err(Error::new(args.word(2))),
        "HELP" => {
            reply.array(HELP.len() * 2);
            for (name, _, _, syntax, summary) in HELP {
                reply.simple(format!("{name} {syntax}").trim_end());
                reply.simple(&format!("    {summary}"));
            }
        }
        "LOADAOF" => {
            load_log(session, db)?;
            reply.ok();
        }
        "LOG" => {
            let text: String = String::from_utf8_lossy(args.word(2))
                .chars()
                .map(|letter| if letter.is_control() { ' ' } else { letter })
                .collect();
            log::warning(format!("DEBUG LOG: {text}"));
            reply.ok();
        }
        "OBJECT" => describe(session, db, args.key(2), reply)?,
        "POPULATE" => {
            populate(session, db, args)?;
            reply.ok();
        }
        "PROTOCOL" => return write_protocol(args, reply),
        "QUICKLIST-PACKED-THRESHOLD" => {
            if memory_size::parse(args.word(2)).is_none_or(|size| size > PACKED_THRESHOLD_MAX) {
                return Err(Error::general(
                    "argument must be a memory value bigger than 1 and smaller than 4gb",
                ));
            }
            reply.ok();
        }
        "RELOAD" => {
            reload(session, db, args)?;
            reply.ok();
        }
        "REPLICATE" => {
            let words: Vec<&[u8]> = args.from(2).collect();
            session.server.replication.append_plain(&words);
            reply.ok();
        }
        "SET-ACTIVE-EXPIRE" => {
            let on = number::parse_i64(args.word(2)).unwrap_or(0) != 0;
            session.server.active_expire.store(on, Ordering::Relaxed);
            reply.ok();
        }
        "SET-SKIP-CHECKSUM-VALIDATION" => {
            let skips = number::parse_i64(args.word(2)).unwrap_or(0) != 0;
            let setting = &db.settings().skip_checksums;
            setting.store(skips, Ordering::Relaxed);
            reply.ok();
        }
        "SET-DISABLE-DENY-SCRIPTS" => {
            let on = number::parse_i64(args.word(2)).unwrap_or(0) != 0;
            let scripting = &session.server.scripting;
            scripting.allows_all.store(on, Ordering::Relaxed);
            reply.ok();
        }
        "SLEEP" => {
            let seconds = std::str::from_utf8(args.word(2))
                .ok()
                .and_then(|text| text.parse::<f64>().ok())
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            sleep(&session.server, seconds.unwrap_or_default());
            if !session.flags.in_exec && !session.flags.in_script {
                db.set_now(server::now());
            }
            reply.ok();
        }
        "STRUCTSIZE" => reply.simple(&format!(
            "bits:{} key:{} session:{} client:{}",
            usize::BITS,
            size_of::<Key<'_>>(),
            size_of::<Session>(),
            size_of::<crate::session::registry::Client>()
        )),
        _ => {
            let word = args.word(1);
            let text = [
                b"unknown subcommand or wrong number of arguments for '".as_slice(),
                &word[..word.len().min(128)],
                b"'. Try DEBUG HELP.",
            ];
            return Err(Error::general(text.concat()));
        }
    }
    Ok(())
}

/// The fingerprint of all data at one moment.
fn digest(db: &mut Db<'_>) -> Result<String> {
    let held = db.is_locked();
    if !held {
        db.try_lock_all()?;
    }
    let mut digest = Digest::default();
    let mut database = None;
    let walked = db.each_entry(|number, entry| {
        if database != Some(number) {
            database = Some(number);
            digest.begin_database(number);
        }
        digest.add_entry(entry);
        Ok::<(), Infallible>(())
    });
    debug_assert!(walked.is_ok());
    if !held {
        db.unlock();
    }
    Ok(digest.to_hex())
}

fn digest_value(db: &mut Db<'_>, key: Key<'_>) -> Result<Digest> {
    let held = db.is_locked();
    if !held {
        db.try_lock(key.hash)?;
    }
    let digest = db.peek(key).map(Digest::of_value).unwrap_or_default();
    if !held {
        db.unlock();
    }
    Ok(digest)
}

/// Writes the snapshot file and reads it back, while nobody else does anything.
fn reload(session: &Session, db: &mut Db<'_>, args: &Args<'_>) -> Result {
    let (mut save, mut flush, mut existing) = (true, true, Existing::Refuse);
    for index in 2..args.len() {
        if args.is(index, "NOSAVE") {
            save = false;
        } else if args.is(index, "NOFLUSH") {
            flush = false;
        } else if args.is(index, "MERGE") {
            existing = Existing::Replace;
        } else {
            return Err(Error::general(
                "DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
            ));
        }
    }
    let server = &session.server;
    under_all_locks(server, db, |db| {
        if save && snapshot::save_locked(server, db).is_err() {
            return Err(Error::from_static("ERR"));
        }
        if flush {
            empty(server, db);
        }
        let loaded =
            recovery::load_file(server, Some(db), existing).and_then(|found| match found {
                Some(_) => Ok(()),
                None => Err("There is no RDB file to load".into()),
            });
        loaded.map_err(|reason| {
            log::warning(reason);
            Error::general("Error trying to load the RDB dump, check server logs.")
        })
    })?;
    log::warning("DB reloaded by DEBUG RELOAD");
    Ok(())
}

/// Replaces the data by what the append-only file makes of it, while nobody else does anything.
fn load_log(session: &Session, db: &mut Db<'_>) -> Result {
    let server = &session.server;
    under_all_locks(server, db, |db| {
        let loaded = if server.aof.drain() {
            empty(server, db);
            aof::load_again(server, db)
        } else {
            Err("The disk does not take the append-only file's end".into())
        };
        loaded.map_err(|reason| {
            log::warning(reason);
            Error::general("Error trying to load the AOF files, check server logs.")
        })
    })?;
    log::warning("Append Only File loaded by DEBUG LOADAOF");
    Ok(())
}

/// Does work that replaces the data. Who watches keys or caches them learns of it; logs do not, as it is the same data
/// for them.
fn under_all_locks(
    server: &Server,
    db: &mut Db<'_>,
    work: impl FnOnce(&mut Db<'_>) -> Result,
) -> Result {
    if server.loading.is_active() {
        // Half the data must not replace the file that it comes from.
        return Err(Error::LOADING);
    }
    let held = db.is_locked();
    if !held {
        db.try_lock_all()?;
    }
    let tracks = db.changes.listeners.contains(Listeners::TRACKING);
    let result = work(db);
    db.begin();
    if tracks {
        db.changes.notices.push(Notice::AllStale);
    }
    if !held {
        db.unlock();
    }
    result
}

/// Empties everything, as FLUSHALL and FUNCTION FLUSH do.
fn empty(server: &Server, db: &mut Db<'_>) {
    database::flush(db, None);
    server.scripting.functions.flush();
}

/// The figures of an entry, in the one line that tests take apart.
fn describe(session: &Session, db: &mut Db<'_>, key: Key<'_>, reply: &mut Reply) -> Result {
    let held = db.is_locked();
    if !held {
        db.try_lock(key.hash)?;
    }
    let clock = access_clock(db.now());
    // Shows what is there, also if it has expired.
    let hides_expired = !db.repeats();
    db.expire_nothing();
    let line = db.peek(key).map(|entry| {
        let mut line = format!(
            "Value at:0x0 refcount:1 encoding:{} serializedlength:{} lru:{} lru_seconds_idle:{}",
            object::encoding(entry),
            entry.memory_bytes(),
            entry.access(),
            clock.wrapping_sub(entry.access())
        );
        if let ValueRef::List(list) = entry.value()
            && list.encoding() == ListEncoding::Quicklist
        {
            let settings = session.server.config.settings();
            let nodes = list.chunk_count();
            line += &format!(
                " ql_nodes:{nodes} ql_avg_node:{:.2} ql_listpack_max:{} ql_compressed:{} ql_uncompressed_size:{}",
                list.len() as f64 / nodes as f64,
                settings.list_max_listpack_size,
                u8::from(settings.list_compress_depth > 0),
                entry.memory_bytes()
            );
        }
        line
    });
    if hides_expired {
        db.expire_as_usual();
    }
    if !held {
        db.unlock();
    }
    reply.simple(&line.ok_or(Error::NO_SUCH_KEY)?);
    Ok(())
}

/// Creates `prefix:0` and so on, holding `value:0` and so on, filled up with zeros to a size if one is given.
fn populate(session: &Session, db: &mut Db<'_>, args: &Args<'_>) -> Result {
    let positive = |index| {
        args.integer(index)
            .ok()
            .and_then(|number| usize::try_from(number).ok())
            .ok_or(Error::NOT_POSITIVE)
    };
    let count = positive(2)?;
    let prefix = args.get(3).unwrap_or(b"key");
    let size = match args.len() {
        5 => Some(positive(4)?).filter(|&size| size > 0),
        _ => None,
    };
    let limit = session.server.config.settings().proto_max_bulk_len;
    if size.is_some_and(|size| size as u64 > limit) {
        return Err(Error::TOO_LARGE);
    }
    let held = db.is_locked();
    for number in 0..count {
        let name = [prefix, b":", number.to_string().as_bytes()].concat();
        let key = Key::new(&name);
        let mut value = format!("value:{number}").into_bytes();
        if let Some(size) = size {
            value.resize(size, 0);
        }
        if !held {
            db.try_lock(key.hash)?;
        }
        if db.entry_mut(key).is_none() {
            db.put_bytes(key, &value, Meta::default());
            db.touch_key(key);
            db.changes.dirty += 1;
        }
        if !held {
            release(&session.server, db);
        }
    }
    Ok(())
}

/// What clients' tests expect.
#[expect(
    clippy::approx_constant,
    reason = "it is a test value that resembles pi"
)]
const TEST_DOUBLE: f64 = 3.141;

/// Stops all workers, as it stops the original's one.
fn sleep(server: &Server, duration: Duration) {
    if let Some(until) = Instant::now().checked_add(duration) {
        server.asleep_until.send_replace(until);
    }
    thread::sleep(duration);
}

fn write_protocol(args: &Args<'_>, reply: &mut Reply) -> Result {
    let kind = args.word(2).to_ascii_lowercase();
    match kind.as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.integer(12_345),
        b"double" => reply.double(TEST_DOUBLE),
        b"null" => reply.null(),
        b"array" => {
            reply.array(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        b"set" => {
            reply.set(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        b"map" => {
            reply.map(3);
            for number in 0..3 {
                reply.integer(number);
                reply.boolean(number == 1);
            }
        }
        b"attrib" => {
            if reply.version() == Version::Resp3 {
                reply.attribute(1);
                reply.bulk(b"key-popularity");
                reply.array(2);
                reply.bulk(b"key:123");
                reply.integer(90);
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        b"push" => {
            if reply.version() == Version::Resp2 {
                return Err(Error::general("RESP2 is not supported by this command"));
            }
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.integer(42);
        }
        b"verbatim" => reply.verbatim("txt", b"This is a verbatim\nstring"),
        b"bignum" => reply.big_number("1234567999999999999999999999999999999"),
        b"true" => reply.boolean(true),
        b"false" => reply.boolean(false),
        _ => {
            return Err(Error::general(
                "Wrong protocol type name. Please use one of the following: string|integer|double|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(())
}
