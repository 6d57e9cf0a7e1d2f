//! A walk over all data as it was at one instant, while commands go on changing it.
//!
//! ```text
//! cut      all shards locked for microseconds: every table's mark is turned over, so that every entry is unmarked
//! then     a writer about to change an unmarked entry first sends its pre-image (a cheap clone) here and marks it;
//!          new entries are born marked;
//!          the walk visits each table bit by bit, clones what is unmarked and marks it
//! end      everything is marked: ready for the next cut, without a pass that clears anything
//! ```
//!
//! What "marked" means alternates from cut to cut, which is why the bit in the entry never needs clearing. Each entry is
//! handed over exactly once, by whoever comes first. Nothing is copied twice, nothing is forked; memory beyond the data
//! is what writers change faster than the walk goes on, and of big values only the nodes that change. When that becomes
//! much ([`Keyspace::snapshot_bytes`]), either writers wait, or the snapshot is given up. With no snapshot running a change costs one predictable branch.

#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    error, fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use parking_lot::Mutex;

use crate::{
    entry::{Entry, EntryRef},
    keyspace::{Keyspace, LOOK_PERIOD},
    shard::Shard,
    table::{Place, Table},
    value::Text,
};

/// Entries looked at under one lock.
const BUDGET: usize = 64;

/// What a big collection counts for among what waits to be written, at most: its clone shares all that does not change.
const CLONE_BYTES: usize = 64 * 1024;

/// What a piece takes while it waits, beside its entry.
const PIECE_BYTES: usize = size_of::<Piece>() + size_of::<usize>();

/// Where a shard's writers send what the walk has not come to.
pub(crate) struct Sink {
    pieces: Sender<Piece>,
    queued_bytes: Arc<AtomicUsize>,
    limit_bytes: usize,
    given_up: Arc<AtomicBool>,
}

impl Sink {
    fn send(&self, piece: Piece) {
        if self.given_up.load(Ordering::Relaxed) {
            return;
        }
        let bytes = piece.bytes();
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if queued > self.limit_bytes {
            // Relaxed: whoever sees the walk end sees this, by the locks of the shards.
            self.given_up.store(true, Ordering::Relaxed);
        }
        // The walk listens until every shard has dropped its sink.
        let _ = self.pieces.send(piece);
    }
}

/// Something that writers hand over.
pub(crate) enum Piece {
    /// An entry as it was at the cut, with the database it was in.
    Entry(usize, Entry),
    /// A table that was flushed.
    Table(Table),
}

impl Piece {
    /// About how many bytes exist only since the snapshot needs them.
    fn bytes(&self) -> usize {
        match self {
            Piece::Entry(_, entry) => {
                let look = entry.look();
                let is_text = Text::of(look.value()).is_some();
                let limit = if is_text { usize::MAX } else { CLONE_BYTES };
                PIECE_BYTES + look.memory_bytes().min(limit)
            }
            // No more than there was at the cut, however often somebody flushes.
            Piece::Table(_) => PIECE_BYTES,
        }
    }
}

/// The right to make the next snapshot; there is one at a time.
pub struct Ready<'k> {
    keyspace: &'k Keyspace,
}

/// A snapshot to be walked. Dropping it walks what is left without looking.
pub struct Snapshot<'k> {
    ready: Ready<'k>,
    pieces: Mutex<Receiver<Piece>>,
    /// It lacks what writers no longer handed over.
    given_up: Arc<AtomicBool>,
    sizes: Vec<Size>,
    /// The first shard that no thread has begun with.
    next_shard: AtomicUsize,
}

/// More has changed since the cut than may wait for the walk.
#[derive(Clone, Copy, Debug)]
pub struct GivenUp;

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more has changed meanwhile than may be kept")
    }
}

impl error::Error for GivenUp {}

impl GivenUp {
    /// Whether that is what a walk ended with.
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<GivenUp>())
    }
}

/// How much a database held at the cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub entries: usize,
    pub deadlines: usize,
}

/// Where a table's walk is, and what its entries' mark means.
#[derive(Default)]
pub(crate) struct Walk {
    /// The value of the bit of marked entries.
    pub(crate) mark: bool,
    /// Whether there may be unmarked entries.
    pub(crate) unfinished: bool,
    /// The database that the table was at the cut.
    database: usize,
    cursor: u64,
}

impl Walk {
    pub(crate) const fn new(mark: bool) -> Walk {
        Walk {
            mark,
            unfinished: false,
            database: 0,
            cursor: 0,
        }
    }
}

impl<'k> Ready<'k> {
    /// `None` while another snapshot runs.
    pub fn new(keyspace: &'k Keyspace) -> Option<Ready<'k>> {
        let taken = keyspace.snapshot_running.swap(true, Ordering::AcqRel);
        // Not made before it is known that it may be: dropping one gives up the right.
        (!taken).then(|| Ready { keyspace })
    }

    /// Waits until no other snapshot runs.
    pub fn wait(keyspace: &'k Keyspace) -> Ready<'k> {
        loop {
            match Ready::new(keyspace) {
                Some(ready) => return ready,
                None => thread::sleep(LOOK_PERIOD),
            }
        }
    }

    /// Puts the data of `other`, which has as many shards and databases, in the place of all there is, at one instant.
    /// The old data is freed elsewhere.
    pub fn take_over(&self, other: Keyspace) {
        self.keyspace.take_over(other);
    }

    /// Makes the cut: the snapshot is of the moment at which `at_cut` runs, with every shard locked.
    ///
    /// It is given up when more than `limit_bytes` of what has changed since wait for the walk.
    ///
    /// O(shards x databases). The caller holds no shard's lock.
    pub fn cut(self, limit_bytes: usize, at_cut: impl FnOnce()) -> Snapshot<'k> {
        let (sender, pieces) = channel();
        let given_up = Arc::new(AtomicBool::new(false));
        let mut sizes = vec![Size::default(); self.keyspace.databases()];
        let mut shards = self.keyspace.insist(|| self.keyspace.try_lock_all());
        for shard in &mut shards {
            for (database, table) in shard.tables.iter_mut().enumerate() {
                sizes[database].entries += table.len();
                sizes[database].deadlines += table.deadlines();
                table.begin_walk(database);
            }
            shard.snapshot = Some(Sink {
                pieces: sender.clone(),
                queued_bytes: self.keyspace.snapshot_bytes.clone(),
                limit_bytes,
                given_up: given_up.clone(),
            });
        }
        at_cut();
        drop(shards);
        Snapshot {
            ready: self,
            pieces: Mutex::new(pieces),
            given_up,
            sizes,
            next_shard: AtomicUsize::new(0),
        }
    }
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        self.keyspace
            .snapshot_running
            .store(false, Ordering::Release);
    }
}

impl Snapshot<'_> {
    /// How much each database holds in this snapshot.
    pub fn sizes(&self) -> &[Size] {
        &self.sizes
    }

    /// Shows `visit` every entry with its database, each once, in no particular order and without any lock held.
    /// Entries that have expired since the cut, or had before, are among them.
    ///
    /// # Errors
    /// The first that `visit` makes, or [`GivenUp`]; the walk ends there.
    pub fn walk(self, visit: impl FnMut(usize, EntryRef<'_>) -> io::Result<()>) -> io::Result<()> {
        let ended = AtomicBool::new(false);
        let part = Part {
            snapshot: &self,
            ended: &ended,
        };
        part.walk(visit)?;
        self.check_whole()
        // Dropping `self` finishes what an error left.
    }

    /// Has several threads walk, this one among them, each of which runs `work` with its number, from 0 on: every entry is
    /// shown to one.
    ///
    /// # Errors
    /// One that `work` makes, or [`GivenUp`]; the walk ends there for all.
    pub fn walk_together(
        self,
        threads: usize,
        work: impl Fn(usize, Part<'_, '_>) -> io::Result<()> + Sync,
    ) -> io::Result<()> {
        let ended = AtomicBool::new(false);
        let run = |number| {
            let part = Part {
                snapshot: &self,
                ended: &ended,
            };
            let outcome = catch_unwind(AssertUnwindSafe(|| work(number, part)))
                .unwrap_or_else(|_| Err(panicked()));
            if outcome.is_err() {
                ended.store(true, Ordering::Relaxed);
                // Others may be waiting for what comes of the shard that this thread was in.
                self.finish();
            }
            outcome
        };
        let outcomes: Vec<io::Result<()>> = thread::scope(|scope| {
            let run = &run;
            let others: Vec<_> = (1..threads)
                .filter_map(|number| {
                    let thread = thread::Builder::new().name("snapshot".into());
                    // Without it the others have more to do.
                    thread.spawn_scoped(scope, move || run(number)).ok()
                })
                .collect();
            let own = run(0);
            let joined = others
                .into_iter()
                .map(|other| other.join().unwrap_or_else(|_| Err(panicked())));
            [own].into_iter().chain(joined).collect()
        });
        // That others have ended is the reason of none.
        let failures = outcomes.into_iter().filter_map(Result::err);
        failures
            .min_by_key(Ended::is)
            .map_or_else(|| self.check_whole(), Err)
    }

    fn check_whole(&self) -> io::Result<()> {
        match self.given_up.load(Ordering::Relaxed) {
            true => Err(io::Error::other(GivenUp)),
            false => Ok(()),
        }
    }

    /// Walks what is left without looking.
    fn finish(&self) {
        self.next_shard.store(0, Ordering::Relaxed);
        let nothing: Result<(), Infallible> = self.walk_shards(&mut |_, _| Ok(()));
        debug_assert!(nothing.is_ok());
    }

    fn walk_shards<E>(
        &self,
        visit: &mut impl FnMut(usize, EntryRef<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let keyspace = self.ready.keyspace;
        let mut found = Vec::new();
        loop {
            // Relaxed: what is in a shard is seen under its lock.
            let number = self.next_shard.fetch_add(1, Ordering::Relaxed);
            if number >= keyspace.shard_count() {
                break;
            }
            let mut finished = false;
            while !finished {
                finished = keyspace.lock(number).walk(&mut found);
                for (database, entry) in found.drain(..) {
                    visit(database, entry.look())?;
                }
                // Soon, so that what writers send does not pile up.
                while let Some(piece) = self.piece() {
                    self.visit_piece(piece, visit)?;
                }
            }
        }
        // Every shard drops its sink, so that this ends.
        loop {
            let piece = self.pieces.lock().recv();
            match piece {
                Ok(piece) => self.visit_piece(piece, visit)?,
                Err(_) => return Ok(()),
            }
        }
    }

    /// Something that writers have handed over, unless another thread is taking it.
    fn piece(&self) -> Option<Piece> {
        self.pieces.try_lock()?.try_recv().ok()
    }

    fn visit_piece<E>(
        &self,
        piece: Piece,
        visit: &mut impl FnMut(usize, EntryRef<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let queued = &self.ready.keyspace.snapshot_bytes;
        queued.fetch_sub(piece.bytes(), Ordering::Relaxed);
        match piece {
            Piece::Entry(database, entry) => visit(database, entry.look()),
            Piece::Table(mut table) => {
                let mut found = Vec::new();
                while table.walk_some(BUDGET, &mut found) {
                    for (database, entry) in found.drain(..) {
                        visit(database, entry.look())?;
                    }
                }
                Ok(())
            }
        }
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

/// A thread's part of a walk: what others do not come to first.
#[derive(Clone, Copy)]
pub struct Part<'s, 'k> {
    snapshot: &'s Snapshot<'k>,
    /// A thread has failed.
    ended: &'s AtomicBool,
}

impl Part<'_, '_> {
    /// As [`Snapshot::walk`].
    ///
    /// # Errors
    /// As for that, or another thread's failure.
    pub fn walk(
        self,
        mut visit: impl FnMut(usize, EntryRef<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.snapshot.walk_shards(&mut |database, entry| {
            self.snapshot.check_whole()?;
            if self.ended.load(Ordering::Relaxed) {
                return Err(io::Error::other(Ended));
            }
            visit(database, entry)
        })
    }
}

/// Another thread's part of the walk failed.
#[derive(Clone, Copy, Debug)]
struct Ended;

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another thread failed")
    }
}

impl error::Error for Ended {}

impl Ended {
    fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Ended>())
    }
}

fn panicked() -> io::Error {
    io::Error::other("internal error")
}

impl Shard {
    /// Goes on with the walk; true when the shard is done, which then sends nothing more.
    fn walk(&mut self, found: &mut Vec<(usize, Entry)>) -> bool {
        for table in &mut self.tables {
            if table.walk_some(BUDGET, found) {
                return false;
            }
        }
        self.snapshot = None;
        true
    }

    /// Hands over an entry that is about to change, unless the snapshot has it already.
    #[cold]
    pub(crate) fn keep_pre_image(&mut self, database: usize, place: Place) {
        if let Some(sink) = &self.snapshot
            && let Some((database, entry)) = self.tables[database].mark(place)
        {
            sink.send(Piece::Entry(database, entry));
        }
    }

    /// Empties a database. Returns the table, unless the snapshot still needs it.
    pub(crate) fn replace_table(&mut self, database: usize, shard_bits: u32) -> Option<Table> {
        let table = &mut self.tables[database];
        let fresh = Table::with_mark(shard_bits, table.walk.mark);
        let old = std::mem::replace(table, fresh);
        match &self.snapshot {
            Some(sink) if old.walk.unfinished => {
                sink.send(Piece::Table(old));
                None
            }
            _ => Some(old),
        }
    }
}

impl Table {
    /// An empty table whose entries will bear the mark that those of another have.
    fn with_mark(shard_bits: u32, mark: bool) -> Table {
        let mut table = Table::new(shard_bits);
        table.walk = Walk::new(mark);
        table
    }

    /// From now on the entries that are there are unmarked.
    fn begin_walk(&mut self, database: usize) {
        debug_assert!(!self.walk.unfinished, "the last walk went to its end");
        self.walk = Walk {
            mark: !self.walk.mark,
            unfinished: !self.is_empty(),
            database,
            cursor: 0,
        };
    }

    /// Clones and marks some unmarked entries. False when there were none left before.
    fn walk_some(&mut self, budget: usize, found: &mut Vec<(usize, Entry)>) -> bool {
        if !self.walk.unfinished {
            return false;
        }
        let mark = self.walk.mark;
        let mut unmarked = Vec::with_capacity(budget);
        let cursor = self.traverse(self.walk.cursor, budget, |place, entry| {
            if entry.in_snapshot() != mark {
                unmarked.push(place);
            }
        });
        found.extend(unmarked.into_iter().filter_map(|place| self.mark(place)));
        self.walk.cursor = cursor;
        self.walk.unfinished = cursor != 0;
        true
    }

    /// A clone of the entry, which is marked from now on; `None` if it was already.
    fn mark(&mut self, place: Place) -> Option<(usize, Entry)> {
        let (mark, database) = (self.walk.mark, self.walk.database);
        if !self.walk.unfinished || self.entry(place).in_snapshot() == mark {
            return None;
        }
        let clone = self.entry(place).to_entry();
        self.entry_mut(place).set_in_snapshot(mark);
        Some((database, clone))
    }
}
