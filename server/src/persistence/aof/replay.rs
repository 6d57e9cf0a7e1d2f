//! Loading the append-only log: the base, then the commands of every increment, run as a client's would be.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use protocol::{
    limits::Limits,
    resp::request::{RequestParser, Span, Step},
};

use storage::db::Db;

use super::{
    Files, base,
    locked::Locked,
    manifest::{Manifest, Part},
};
use crate::{
    dispatch::{self, args::Args, command::Reply},
    lanes::{Executor, Lanes, Source, Unfinished},
    log,
    persistence::loader,
    server::Server,
    session::Session,
};

/// Bytes read at once.
const CHUNK: usize = 1 << 20;
/// How long a command that finds a lock held waits before it is tried again.
const PATIENCE: Duration = Duration::from_millis(1);
/// Bytes of commands below which starting threads costs more than they gain.
const WORTH_THREADS: u64 = 4 << 20;

/// Loads the log that the settings name, and leaves the files' list for the writing thread. No log yet is an empty one.
///
/// # Errors
/// What is wrong with the files: the server must not start on half the data.
pub fn load(server: &Arc<Server>) -> Result<(), String> {
    prepare(server)?;
    let files = server.aof.files.lock().clone();
    let may_cut = server.config.settings().aof_load_truncated;
    let total = load_parts(server, &files, None, may_cut)?;
    server.keyspace.statistics.dirty.store(0, Ordering::Relaxed);
    let status = &server.aof.status;
    status.current_size.store(total, Ordering::Relaxed);
    status.base_size.store(total, Ordering::Relaxed);
    Ok(())
}

/// Loads the log once more, into a view with all shards locked and nothing in it, while it may be written to: all that
/// was appended must be in the files. Nobody hears of what is loaded.
///
/// # Errors
/// What is wrong with the files. Whatever stands before that is loaded.
pub fn load_again(server: &Arc<Server>, db: &mut Db<'_>) -> Result<(), String> {
    // Nobody puts other files in their place meanwhile.
    let files = server.aof.files.lock();
    let settings = server.config.settings();
    let directory = settings.dir.join(&settings.appenddirname);
    let prefix = settings.appendfilename.clone();
    let found = Files {
        manifest: read_manifest(&directory, &prefix)?,
        directory,
        prefix,
    };
    if found.manifest == Manifest::default() {
        return Err("There is no append-only file to load".into());
    }
    let selected = db.index();
    db.expire_nothing();
    // A file that is being written to is not cut.
    let may_cut = settings.aof_load_truncated && !server.aof.is_enabled();
    let loaded = load_parts(server, &found, Some(db), may_cut);
    db.expire_as_usual();
    db.select(selected);
    drop(files);
    loaded?;
    server.keyspace.statistics.dirty.store(0, Ordering::Relaxed);
    Ok(())
}

/// Loads all files of the log, into the view, which has all shards locked; without one, on several threads. Returns
/// their size.
fn load_parts(
    server: &Arc<Server>,
    files: &Files,
    mut db: Option<&mut Db<'_>>,
    may_cut: bool,
) -> Result<u64, String> {
    let Files {
        manifest,
        directory,
        ..
    } = files;
    let started = Instant::now();
    let parts: Vec<&Part> = manifest.base.iter().chain(&manifest.increments).collect();
    let mut announced = 0;
    for part in &parts {
        let facts = fs::metadata(directory.join(&part.name));
        announced += facts
            .map_err(|error| Trouble::Missing(error).explain(&part.name))?
            .len();
    }
    server.loading.set_total(announced);
    let mut total = 0;
    for (index, part) in parts.iter().enumerate() {
        let is_last = index + 1 == parts.len();
        let path = directory.join(&part.name);
        let size = load_file(server, &path, db.as_deref_mut(), is_last && may_cut)
            .map_err(|trouble| trouble.explain(&part.name))?;
        server.loading.note_file(size);
        total += size;
    }
    if !parts.is_empty() {
        log::notice(format!(
            "DB loaded from append only file: {:.3} seconds",
            started.elapsed().as_secs_f64()
        ));
    }
    Ok(total)
}

/// Finds the directory that the settings name, which is made if it is not there, and reads its manifest.
pub fn prepare(server: &Server) -> Result<(), String> {
    let settings = server.config.settings();
    let directory = settings.dir.join(&settings.appenddirname);
    let prefix = settings.appendfilename.clone();
    fs::create_dir_all(&directory).map_err(|error| {
        format!(
            "Can't create append-only dir {}: {error}",
            directory.display()
        )
    })?;
    let mut manifest = read_manifest(&directory, &prefix)?;
    adopt_single_file(&settings.dir, &directory, &prefix, &mut manifest)?;
    *server.aof.files.lock() = Files {
        manifest,
        directory,
        prefix,
    };
    Ok(())
}

fn read_manifest(directory: &Path, prefix: &str) -> Result<Manifest, String> {
    let path = Manifest::path(directory, prefix);
    match fs::read_to_string(&path) {
        Ok(text) => Manifest::parse(&text).map_err(|error| {
            format!(
                "Fatal error reading AOF manifest {}: {error}",
                path.display()
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Manifest::default()),
        Err(error) => Err(format!(
            "Fatal error: can't open the AOF manifest {} for reading: {error}",
            path.display()
        )),
    }
}

/// Before there were manifests the log was one file in `dir`: it becomes the base. A manifest that says so already, while
/// the file is still in its old place, is what is left of a server that ended in between.
fn adopt_single_file(
    dir: &Path,
    directory: &Path,
    prefix: &str,
    manifest: &mut Manifest,
) -> Result<(), String> {
    let (old, new) = (dir.join(prefix), directory.join(prefix));
    let base = Part {
        name: prefix.to_owned(),
        sequence: 1,
    };
    let is_named = manifest.increments.is_empty()
        && manifest
            .base
            .as_ref()
            .is_some_and(|known| known.name == base.name);
    let is_left = is_named && !new.exists();
    if !(*manifest == Manifest::default() || is_left) || !old.is_file() {
        return Ok(());
    }
    if !is_left {
        manifest.base = Some(base);
    }
    let moved = manifest
        .store(directory, prefix)
        .and_then(|()| fs::rename(&old, &new))
        .and_then(|()| File::open(directory)?.sync_all());
    moved.map_err(|error| format!("Can't move the AOF file {}: {error}", old.display()))?;
    log::notice("Successfully migrated an old-style AOF configuration into the AOF directory.");
    Ok(())
}

enum Trouble {
    Missing(io::Error),
    Unreadable(io::Error),
    /// The file ends within a command or transaction.
    Truncated,
    Malformed,
    Base(String),
    Refused(String),
}

impl Trouble {
    fn explain(self, name: &str) -> String {
        match self {
            Trouble::Missing(error) => {
                format!("Fatal error: can't open the append log file {name} for reading: {error}")
            }
            Trouble::Unreadable(error) => {
                format!("Unrecoverable error reading the append only file {name}: {error}")
            }
            Trouble::Truncated => format!(
                "Unexpected end of file reading the append only file {name}. You can: 1) Make a backup of your AOF \
                 file, then use ./valkey-check-aof --fix <filename.manifest>. 2) Alternatively you can set the \
                 'aof-load-truncated' configuration option to yes and restart the server."
            ),
            Trouble::Malformed => format!(
                "Bad file format reading the append only file {name}: make a backup of your AOF file, then use \
                 ./valkey-check-aof --fix <filename.manifest>"
            ),
            Trouble::Base(reason) => {
                format!("Error reading the RDB preamble of the AOF file {name}: {reason}")
            }
            Trouble::Refused(command) => {
                format!("Unknown command '{command}' reading the append only file {name}")
            }
        }
    }
}

/// Loads one file; cuts it after its last whole command if that is allowed. Returns its size.
fn load_file(
    server: &Arc<Server>,
    path: &Path,
    mut db: Option<&mut Db<'_>>,
    may_cut: bool,
) -> Result<u64, Trouble> {
    let mut file = File::open(path).map_err(Trouble::Missing)?;
    let size = file.metadata().map_err(Trouble::Missing)?.len();
    let mut head = [0; 9];
    let head_len = read_up_to(&mut file, &mut head).map_err(Trouble::Unreadable)?;
    io::Seek::rewind(&mut file).map_err(Trouble::Unreadable)?;
    let mut replay = Replay { server, good: 0 };
    let is_rdb = head_len >= 5 && (head.starts_with(b"REDIS") || head.starts_with(b"VALKEY"));
    let (mut input, start): (Box<dyn Read>, u64) = if is_rdb {
        let (rest, length) = base::load(server, db.as_deref_mut(), file).map_err(Trouble::Base)?;
        (rest, length)
    } else {
        (Box::new(file), 0)
    };
    match replay.run(&mut input, start, size.saturating_sub(start), db) {
        Ok(()) => Ok(size),
        Err(Trouble::Truncated) if may_cut => {
            let good = start + replay.good;
            log::warning(format!(
                "!!! Warning: short read while loading the AOF file {} !!!",
                path.display()
            ));
            log::warning(format!(
                "AOF loaded anyway because aof-load-truncated is enabled: truncated to {good} bytes"
            ));
            let file = OpenOptions::new().write(true).open(path);
            file.and_then(|file| {
                file.set_len(good)?;
                file.sync_all()
            })
            .map_err(Trouble::Unreadable)?;
            Ok(good)
        }
        Err(trouble) => Err(trouble),
    }
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// The log as a source of commands.
struct Log<'s> {
    server: &'s Arc<Server>,
    commands: AtomicU64,
}

impl Source for Log<'_> {
    fn session(&self, worker: usize) -> Session {
        let mut session = Session::internal(self.server.clone(), worker);
        session.flags.loads = true;
        session
    }

    fn ran(&self, _args: &Args<'_>, _reply: &mut Reply) {
        // What failed when it was logged fails again.
        if self.server.config.settings().key_load_delay != 0 {
            let number = self.commands.fetch_add(1, Ordering::Relaxed) + 1;
            loader::delay_key(self.server, number);
        }
    }

    fn waits(&self, _until_ms: i64) -> bool {
        thread::sleep(PATIENCE);
        true
    }
}

/// Reads a file's commands and has them run.
struct Replay<'s> {
    server: &'s Arc<Server>,
    /// Bytes up to the end of the last command that stands on its own.
    good: u64,
}

impl Replay<'_> {
    /// Runs all commands of `input`, which begins so many bytes into its file and has about so many.
    fn run(
        &mut self,
        input: &mut dyn Read,
        start: u64,
        bytes: u64,
        db: Option<&mut Db<'_>>,
    ) -> Result<(), Trouble> {
        let server = self.server;
        if let Some(db) = db {
            return self.read(input, start, &mut Locked::new(server, db));
        }
        // A delay is per command, of which there are several at a time otherwise.
        let is_delayed = server.config.settings().key_load_delay != 0;
        let count = match is_delayed || bytes < WORTH_THREADS {
            true => 1,
            false => server.metrics.workers.len(),
        };
        let unfinished = Unfinished::default();
        let log = Log {
            server,
            commands: AtomicU64::new(0),
        };
        thread::scope(|scope| {
            let lanes = Lanes::start(scope, server, &log, &unfinished, count);
            let mut lanes = lanes.map_err(Trouble::Unreadable)?;
            let read = self.read(input, start, &mut lanes);
            lanes.finish();
            read
        })
    }

    fn read(
        &mut self,
        input: &mut dyn Read,
        start: u64,
        executor: &mut impl Executor,
    ) -> Result<(), Trouble> {
        let limits = Limits {
            max_bulk_len: usize::MAX >> 1,
            ..Limits::authenticated()
        };
        let mut parser = RequestParser::new();
        let (mut buffer, mut spans) = (Vec::new(), Vec::new());
        let mut position = 0u64;
        let mut at = 0;
        loop {
            // An annotation is a line that begins with `#`: not a command.
            if buffer.get(at) == Some(&b'#') {
                if let Some(length) = memchr::memchr(b'\n', &buffer[at..]) {
                    at += length + 1;
                    position += length as u64 + 1;
                    self.note_good(executor, position);
                    continue;
                }
            } else if at < buffer.len() {
                if buffer[at] != b'*' {
                    return Err(Trouble::Malformed);
                }
                spans.clear();
                match parser.parse(&buffer[at..], &limits, &mut spans) {
                    Ok(Step::Request { consumed }) => {
                        take(executor, &buffer[at..at + consumed], &spans)?;
                        at += consumed;
                        position += consumed as u64;
                        self.note_good(executor, position);
                        continue;
                    }
                    Ok(Step::Incomplete { .. }) => {}
                    Ok(Step::Inline { .. }) | Err(_) => return Err(Trouble::Malformed),
                }
            }
            self.server.loading.note_position(start + position);
            buffer.drain(..at);
            at = 0;
            let have = buffer.len();
            buffer.resize(have + CHUNK, 0);
            let read = input
                .read(&mut buffer[have..])
                .map_err(Trouble::Unreadable)?;
            buffer.truncate(have + read);
            if read == 0 {
                let whole = buffer.is_empty() && !executor.in_transaction();
                return if whole {
                    Ok(())
                } else {
                    Err(Trouble::Truncated)
                };
            }
        }
    }

    fn note_good(&mut self, executor: &impl Executor, position: u64) {
        if !executor.in_transaction() {
            self.good = position;
        }
    }
}

fn take(executor: &mut impl Executor, bytes: &[u8], spans: &[Span]) -> Result<(), Trouble> {
    if spans.is_empty() {
        return Ok(());
    }
    let args = Args::new(bytes, spans);
    let found = dispatch::find(&args)
        .ok_or_else(|| Trouble::Refused(String::from_utf8_lossy(args.word(0)).into_owned()))?;
    executor.take(bytes, spans, found);
    Ok(())
}
