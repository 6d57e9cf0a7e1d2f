//! Running commands that have been run elsewhere before, an append-only file's and a primary's, on several threads.
//!
//! ```text
//! source ─ parse ─┬─ lane 0: the commands on its keys, in order
//!                 ├─ lane 1: the same
//!                 └─ alone: once all lanes are idle
//! ```
//!
//! A key belongs to one lane, by its hash, so that the commands on it keep their order; a transaction whose keys are all of
//! one lane runs there as a whole. What has keys of several lanes, or none, runs alone. Commands travel in batches, whose
//! keys are prefetched together.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, Scope},
};

use parking_lot::{Condvar, Mutex};
use protocol::resp::{
    reply::{ReplyWriter, Version},
    request::Span,
};
use storage::{clock::Moment, db::Db};

use crate::{
    dispatch::{
        self, Found, Next,
        args::Args,
        command::{Reply, Run},
        keys,
    },
    memcache::note::Note,
    runtime,
    server::{self, Server},
    session::Session,
};

/// Commands, and bytes of them, that travel together.
const BATCH_LEN: usize = 256;
const BATCH_BYTES: usize = 64 * 1024;
/// Batches that wait for each lane, at most.
const QUEUED: usize = 4;
/// Commands whose keys are prefetched together.
const PREFETCHED: usize = 64;

/// Who runs commands that are read.
pub trait Executor {
    /// Takes a command, which runs now or later.
    fn take(&mut self, bytes: &[u8], spans: &[Span], found: Found<'static>);

    /// Whether a transaction has begun and not ended.
    fn in_transaction(&self) -> bool;
}

/// Where commands come from.
pub trait Source: Sync {
    /// A session for them, which counts as this worker.
    fn session(&self, worker: usize) -> Session;

    /// A command has run; `reply` is what a client would have got.
    fn ran(&self, args: &Args<'_>, reply: &mut Reply);

    /// A command has to be tried again, at this moment or earlier, in milliseconds since the epoch. False gives it up,
    /// and all behind it in its batch.
    fn waits(&self, until_ms: i64) -> bool;
}

/// Commands in order, of one database.
#[derive(Default)]
struct Batch {
    database: usize,
    bytes: Vec<u8>,
    spans: Vec<Span>,
    commands: Vec<Command>,
}

struct Command {
    /// Where it begins; its words' spans count from there.
    base: usize,
    first_word: usize,
    words: usize,
    found: Found<'static>,
}

impl Batch {
    fn push(&mut self, bytes: &[u8], spans: &[Span], found: Found<'static>) {
        self.commands.push(Command {
            base: self.bytes.len(),
            first_word: self.spans.len(),
            words: spans.len(),
            found,
        });
        self.bytes.extend_from_slice(bytes);
        self.spans.extend_from_slice(spans);
    }

    fn append(&mut self, other: &Batch) {
        let (base, first_word) = (self.bytes.len(), self.spans.len());
        self.bytes.extend_from_slice(&other.bytes);
        self.spans.extend_from_slice(&other.spans);
        let moved = other.commands.iter().map(|command| Command {
            base: base + command.base,
            first_word: first_word + command.first_word,
            ..*command
        });
        self.commands.extend(moved);
    }

    fn is_full(&self) -> bool {
        self.commands.len() >= BATCH_LEN || self.bytes.len() >= BATCH_BYTES
    }

    fn args(&self, command: &Command) -> Args<'_> {
        let end = command.first_word + command.words;
        command.found.args(
            &self.bytes[command.base..],
            &self.spans[command.first_word..end],
        )
    }
}

/// Batches that are not done.
#[derive(Default)]
pub struct Unfinished {
    count: Mutex<usize>,
    none: Condvar,
}

/// One of them, until it is dropped, whatever becomes of its lane.
struct Ticket<'l>(&'l Unfinished);

impl Unfinished {
    fn ticket(&self) -> Ticket<'_> {
        *self.count.lock() += 1;
        Ticket(self)
    }

    fn wait_for_none(&self) {
        let mut count = self.count.lock();
        self.none.wait_while(&mut count, |count| *count > 0);
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut count = self.0.count.lock();
        *count -= 1;
        if *count == 0 {
            self.0.none.notify_one();
        }
    }
}

struct Lane<'l> {
    filling: Batch,
    /// `None`: the commands are run by the thread that reads them.
    sender: Option<SyncSender<(Batch, Ticket<'l>)>>,
}

/// Runs commands on behalf of nobody.
pub struct Lanes<'l> {
    lanes: Vec<Lane<'l>>,
    unfinished: &'l Unfinished,
    alone: Runner<'l>,
    /// The transaction that is being read, and the lane of its keys.
    transaction: Option<(Batch, Place)>,
}

/// Where commands may run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// No key has been seen yet.
    Anywhere,
    Lane(usize),
    Alone,
}

impl Place {
    fn and(self, other: Place) -> Place {
        match (self, other) {
            (Place::Anywhere, place) | (place, Place::Anywhere) => place,
            (one, other) if one == other => one,
            _ => Place::Alone,
        }
    }
}

impl<'l> Lanes<'l> {
    /// So many lanes, each on a thread of its own; with one there are no threads.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start<'s>(
        scope: &'s Scope<'s, '_>,
        server: &'l Arc<Server>,
        source: &'l dyn Source,
        unfinished: &'l Unfinished,
        count: usize,
    ) -> io::Result<Lanes<'l>>
    where
        'l: 's,
    {
        let mut lanes = Vec::new();
        for number in 0..count {
            let mut sender = None;
            if count > 1 {
                let (sending, receiver) = sync_channel(QUEUED);
                let work = move || Runner::new(server, source, number).run_all(&receiver);
                thread::Builder::new()
                    .name(format!("lane-{number}"))
                    .stack_size(runtime::STACK_BYTES)
                    .spawn_scoped(scope, work)?;
                sender = Some(sending);
            }
            lanes.push(Lane {
                filling: Batch::default(),
                sender,
            });
        }
        Ok(Lanes {
            lanes,
            unfinished,
            alone: Runner::new(server, source, 0),
            transaction: None,
        })
    }

    /// Returns when everything that was taken has run, but for a transaction without an end.
    ///
    /// What has not been sent yet is less than what waking threads for it would cost: it runs here. So a log of nothing but
    /// transactions over many keys is replayed as by one thread.
    pub fn finish(&mut self) {
        self.unfinished.wait_for_none();
        for number in 0..self.lanes.len() {
            if !self.lanes[number].filling.commands.is_empty() {
                let batch = self.lanes[number].empty();
                self.run_here(&batch);
            }
        }
    }

    /// The database that commands are for from here on.
    pub fn database(&self) -> usize {
        self.alone.session.database
    }

    /// Looks at another database from here on.
    pub fn select(&mut self, database: usize) {
        self.alone.session.database = database;
    }

    fn run_alone(&mut self, batch: Batch) {
        self.finish();
        self.alone.run(&batch);
    }

    fn new_batch(&self) -> Batch {
        Batch {
            database: self.alone.session.database,
            ..Batch::default()
        }
    }

    /// A lane whose batch is of the database at hand.
    fn lane(&mut self, number: usize) -> &mut Lane<'l> {
        let database = self.alone.session.database;
        if self.lanes[number].filling.database != database {
            if !self.lanes[number].filling.commands.is_empty() {
                self.send(number);
            }
            self.lanes[number].filling.database = database;
        }
        &mut self.lanes[number]
    }

    fn send_if_full(&mut self, number: usize) {
        if self.lanes[number].filling.is_full() {
            self.send(number);
        }
    }

    fn send(&mut self, number: usize) {
        let lane = &mut self.lanes[number];
        let batch = lane.empty();
        match &lane.sender {
            // A lane that has panicked is noticed by who waits for its thread.
            Some(sender) => drop(sender.send((batch, self.unfinished.ticket()))),
            None => self.run_here(&batch),
        }
    }

    fn run_here(&mut self, batch: &Batch) {
        let database = self.alone.session.database;
        self.alone.run(batch);
        self.alone.session.database = database;
    }
}

impl Executor for Lanes<'_> {
    fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    fn take(&mut self, bytes: &[u8], spans: &[Span], found: Found<'static>) {
        let args = Args::new(bytes, spans);
        let name = found.registered.command.name;
        if let Some((batch, place)) = &mut self.transaction {
            batch.push(bytes, spans, found);
            if !["EXEC", "DISCARD"].contains(&name) {
                *place = place.and(place_of(found, &args, self.lanes.len()));
                return;
            }
            let Some((batch, place)) = self.transaction.take() else {
                return;
            };
            match place {
                Place::Lane(number) => {
                    let lane = self.lane(number);
                    lane.filling.append(&batch);
                    self.send_if_full(number);
                }
                Place::Anywhere | Place::Alone => self.run_alone(batch),
            }
            return;
        }
        if name == "MULTI" {
            let mut batch = self.new_batch();
            batch.push(bytes, spans, found);
            self.transaction = Some((batch, Place::Anywhere));
            return;
        }
        match place_of(found, &args, self.lanes.len()) {
            Place::Lane(number) => {
                self.lane(number).filling.push(bytes, spans, found);
                self.send_if_full(number);
            }
            // It concerns only what is read from here on.
            Place::Anywhere | Place::Alone if name == "SELECT" => {
                let mut batch = self.new_batch();
                batch.push(bytes, spans, found);
                self.alone.run(&batch);
            }
            Place::Anywhere | Place::Alone => {
                let mut batch = self.new_batch();
                batch.push(bytes, spans, found);
                self.run_alone(batch);
            }
        }
    }
}

impl Lane<'_> {
    /// What it was being filled with.
    fn empty(&mut self) -> Batch {
        let database = self.filling.database;
        let next = Batch {
            database,
            ..Batch::default()
        };
        std::mem::replace(&mut self.filling, next)
    }
}

/// Where a command may run, with so many lanes.
fn place_of(found: Found<'static>, args: &Args<'_>, lanes: usize) -> Place {
    let Ok(registered) = dispatch::resolve(found.registered, args) else {
        return Place::Alone;
    };
    let command = registered.command;
    // The low bits: the high ones pick the shard.
    let lane_of = |hash: u64| Place::Lane(hash as usize % lanes);
    if let Some(note) = Note::read(args) {
        return lane_of(note.key.hash);
    }
    let is_plain = matches!(command.run, Run::Read(_) | Run::Write(_));
    if !is_plain || command.keys.is_empty() || keys::wants_all_shards(command, args) {
        return Place::Alone;
    }
    let args = args.with_first_key(found.first_key);
    let mut place = Place::Anywhere;
    let is_known = keys::each_key(command, &args, |index, _| {
        place = place.and(lane_of(args.key(index).hash));
    });
    match place {
        Place::Lane(_) if is_known => place,
        _ => Place::Alone,
    }
}

/// Who runs commands.
struct Runner<'l> {
    server: &'l Arc<Server>,
    source: &'l dyn Source,
    session: Session,
    reply: Reply,
}

impl<'l> Runner<'l> {
    fn new(server: &'l Arc<Server>, source: &'l dyn Source, worker: usize) -> Runner<'l> {
        Runner {
            server,
            source,
            session: source.session(worker),
            reply: Reply::new(ReplyWriter::new(Version::Resp2)),
        }
    }

    fn run_all(&mut self, batches: &Receiver<(Batch, Ticket<'_>)>) {
        while let Ok((batch, ticket)) = batches.recv() {
            self.run(&batch);
            drop(ticket);
        }
    }

    fn run(&mut self, batch: &Batch) {
        self.session.database = batch.database;
        let mut db = Db::new(&self.server.keyspace, batch.database, server::now());
        // What has expired is said by who sent this. A deadline that has passed by now may be taken back by a later
        // command.
        db.expire_nothing();
        for commands in batch.commands.chunks(PREFETCHED) {
            let firsts = commands.iter().map(|command| command.found);
            let hashes = firsts.filter_map(Found::first_hash);
            self.server.keyspace.prefetch_each(batch.database, hashes);
            let mut moment = Moment::now();
            for command in commands {
                let args = batch.args(command);
                loop {
                    let next = dispatch::execute(
                        &mut self.session,
                        &mut db,
                        &mut moment,
                        Some(command.found),
                        &args,
                        &mut self.reply,
                    );
                    self.reply.later = None;
                    let Next::Wait(until) = next else {
                        break;
                    };
                    self.reply.writer.clear();
                    if !self.source.waits(until) {
                        return;
                    }
                }
                self.source.ran(&args, &mut self.reply);
                self.reply.writer.clear();
            }
        }
    }
}
