//! A walk over all keys that moves them out of sparse pages, some at a time.

use crate::{keyspace::Keyspace, shard::Shard};

/// Entries looked at under one lock.
const KEYS_PER_LOCK: usize = 200;
/// A table without keys costs as much as looking at so many.
const TABLE_COST: usize = 4;

/// Where the walk is.
#[derive(Debug, Default)]
pub struct Walk {
    shard: usize,
    database: usize,
    at: usize,
}

impl Walk {
    /// Looks at about `budget` entries and moves those in pages of which `percent` or less is in use; returns how many
    /// have moved. Locks one shard at a time.
    pub fn step(&mut self, keyspace: &Keyspace, budget: usize, percent: usize) -> usize {
        let (mut moved, mut cost) = (0, 0);
        while cost < budget {
            cost += TABLE_COST;
            let Ok(mut shard) = keyspace.try_lock(self.shard) else {
                // It is held for long: its turn comes again.
                self.at = 0;
                self.next_table(keyspace);
                continue;
            };
            let Shard { tables, .. } = &mut *shard;
            let table = &mut tables[self.database];
            let seen = if table.has_segments() {
                let (next, here) = table.relocate_sparse(self.at, KEYS_PER_LOCK, percent);
                moved += here;
                self.at = next;
                KEYS_PER_LOCK
            } else {
                self.at = 0;
                0
            };
            drop(shard);
            cost += seen;
            if self.at == 0 {
                self.next_table(keyspace);
            }
        }
        moved
    }

    fn next_table(&mut self, keyspace: &Keyspace) {
        self.database += 1;
        if self.database == keyspace.databases() {
            self.database = 0;
            self.shard = (self.shard + 1) % keyspace.shard_count();
        }
    }
}
