//! Candidates for eviction: samples, and the best of those taken before.

use crate::{
    entry::EntryRef,
    hash,
    keyspace::Keyspace,
    shard::Shard,
    table::{Place, Table},
};

use super::{Scope, random};

/// Candidates that are remembered.
const CAPACITY: usize = 16;
/// Keys drawn for one that has a deadline, before a table is searched for some.
const TRIES: usize = 8;

/// A key that may go.
pub(super) struct Candidate {
    score: u64,
    pub(super) database: usize,
    pub(super) hash: u64,
    pub(super) key: Box<[u8]>,
    /// What the score was derived from: an entry that has another by now was used meanwhile.
    pub(super) mark: (u16, i64),
}

/// The bits and the deadline that a score is derived from.
pub(super) fn mark(entry: EntryRef<'_>) -> (u16, i64) {
    let deadline = entry.deadline().map_or(0, |deadline| deadline.millis());
    (entry.access(), deadline)
}

/// The best candidates, in ascending order of score.
#[derive(Default)]
pub(super) struct Pool {
    candidates: Vec<Candidate>,
}

impl Pool {
    pub(super) fn clear(&mut self) {
        self.candidates.clear();
    }

    /// Remembers a key if it deserves to go more than one that is remembered.
    pub(super) fn offer(&mut self, score: u64, database: usize, hash: u64, entry: EntryRef<'_>) {
        let at = self
            .candidates
            .partition_point(|candidate| candidate.score < score);
        let full = self.candidates.len() == CAPACITY;
        let known = |candidate: &Candidate| {
            candidate.hash == hash
                && candidate.database == database
                && *candidate.key == *entry.key()
        };
        if full && at == 0 || self.candidates.iter().any(known) {
            return;
        }
        let candidate = Candidate {
            score,
            database,
            hash,
            key: entry.key().into(),
            mark: mark(entry),
        };
        self.candidates.insert(at, candidate);
        if full {
            self.candidates.remove(0);
        }
    }

    /// The one that deserves to go most.
    pub(super) fn take_worst(&mut self) -> Option<Candidate> {
        self.candidates.pop()
    }
}

/// Visits about `wanted` random keys, with database and hash, a shard at a time from a random one on. Returns how many
/// were visited: none if no key is in scope. Shards that are held for long are passed over.
pub(super) fn sample(
    keyspace: &Keyspace,
    scope: Scope,
    wanted: usize,
    mut visit: impl FnMut(usize, u64, EntryRef<'_>),
) -> usize {
    let shards = keyspace.shard_count();
    let start = random() as usize % shards;
    let mut visited = 0;
    for offset in 0..shards {
        let Ok(shard) = keyspace.try_lock((start + offset) % shards) else {
            continue;
        };
        sample_shard(&shard, scope, wanted - visited, |database, entry| {
            visited += 1;
            visit(database, hash::hash(entry.key()), entry);
        });
        if visited >= wanted {
            break;
        }
    }
    visited
}

fn sample_shard(
    shard: &Shard,
    scope: Scope,
    wanted: usize,
    mut visit: impl FnMut(usize, EntryRef<'_>),
) {
    let population = |table: &Table| match scope {
        Scope::All => table.len(),
        Scope::Volatile => table.deadlines(),
    };
    let total: usize = shard.tables.iter().map(population).sum();
    let mut left = wanted.min(total);
    // Every table gets its share, by chance where that is less than a key.
    for (database, table) in shard.tables.iter().enumerate() {
        let here = population(table);
        if here == 0 || left == 0 {
            continue;
        }
        let share = if total <= wanted {
            here
        } else {
            (wanted * here + random() as usize % total) / total
        };
        let share = share.min(left);
        sample_table(table, scope, share, |entry| {
            left = left.saturating_sub(1);
            visit(database, entry);
        });
    }
}

fn sample_table(table: &Table, scope: Scope, wanted: usize, mut visit: impl FnMut(EntryRef<'_>)) {
    let mut on_place = |(_, entry): (Place, EntryRef<'_>)| visit(entry);
    if scope == Scope::All && wanted >= table.len() {
        table.traverse(0, usize::MAX, |place, entry| on_place((place, entry)));
        return;
    }
    let dense = scope == Scope::All || table.deadlines() >= table.len() / TRIES;
    if !dense || wanted >= table.deadlines() && scope == Scope::Volatile {
        table.visit_deadlines(random(), wanted, |place, entry| on_place((place, entry)));
        return;
    }
    for _ in 0..wanted {
        let drawn = (0..TRIES * TRIES)
            .filter_map(|_| table.sample(random()))
            .find(|(_, entry)| scope == Scope::All || entry.deadline().is_some());
        if let Some(drawn) = drawn {
            on_place(drawn);
        }
    }
}
