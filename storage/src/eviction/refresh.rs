//! Keeps the clocks in the access bits from turning over: 16 bits count 18 hours in seconds, 8 bits four hours in minutes,
//! and a key that nobody looks at would seem to be new after that.
//!
//! A slow walk visits every key within about an hour. Under LRU it lets keys that are idle for very long be idle for
//! [`IDLE_MAX`]; under LFU it decays counters, as a use would.

use super::{Eviction, Ranking};
use crate::{db::access_clock, entry::EntryRef, keyspace::Keyspace, time::Timestamp};

/// Seconds of idle time that are told apart: a walk and more below what the clock can count.
const IDLE_MAX: u16 = 16 * 3600;
/// Keys visited under one lock.
const KEYS_PER_LOCK: usize = 500;
/// A table without keys costs as much as visiting so many.
const TABLE_COST: usize = 4;
/// Steps for one walk over all keys, at one step a second; more when there are few keys.
const STEPS: usize = 3000;
const STEP_MIN: usize = 1000;

/// Where the walk is.
#[derive(Debug, Default)]
pub struct Walk {
    shard: usize,
    database: usize,
    cursor: u64,
    /// Keys seen in this walk and in the one before.
    seen: usize,
    keys: usize,
}

impl Walk {
    /// One step, to be taken once a second. Locks one shard at a time.
    pub fn step(&mut self, keyspace: &Keyspace, now: Timestamp) {
        let mut budget = STEP_MIN + self.keys.max(self.seen) / STEPS;
        while budget > 0 {
            let visited = self.visit(keyspace, budget.min(KEYS_PER_LOCK), now);
            budget = budget.saturating_sub(visited + TABLE_COST);
        }
    }

    /// Visits some keys of one table, and moves on to the next one if those were the last.
    fn visit(&mut self, keyspace: &Keyspace, budget: usize, now: Timestamp) -> usize {
        let mut visited = 0;
        let Ok(shard) = keyspace.try_lock(self.shard) else {
            // It is held for long: its turn comes again.
            self.cursor = 0;
            self.next_table(keyspace);
            return visited;
        };
        let table = &shard.tables[self.database];
        self.cursor = table.traverse(self.cursor, budget, |_, entry| {
            visited += 1;
            keyspace.eviction.refresh(entry, now);
        });
        drop(shard);
        self.seen += visited;
        if self.cursor == 0 {
            self.next_table(keyspace);
        }
        visited
    }

    fn next_table(&mut self, keyspace: &Keyspace) {
        self.database += 1;
        if self.database == keyspace.databases() {
            self.database = 0;
            self.shard += 1;
        }
        if self.shard == keyspace.shard_count() {
            self.shard = 0;
            self.keys = std::mem::take(&mut self.seen);
        }
    }
}

impl Eviction {
    fn refresh(&self, entry: EntryRef<'_>, now: Timestamp) {
        let bits = entry.access();
        let fresh = match self.policy().map(|policy| policy.ranking) {
            Some(Ranking::S3Fifo | Ranking::Sieve) => return,
            Some(Ranking::Lfu) => self.lfu().decayed(bits, now),
            _ if access_clock(now).wrapping_sub(bits) > IDLE_MAX => {
                access_clock(now).wrapping_sub(IDLE_MAX)
            }
            _ => return,
        };
        if fresh != bits {
            entry.set_access(fresh);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{db::Db, entry::Meta, keyspace::Key};

    #[test]
    fn a_key_that_is_idle_for_a_day_does_not_become_new() {
        let keyspace = Keyspace::new(4, 2, None);
        let key = Key::new(b"key");
        let mut db = Db::new(&keyspace, 1, Timestamp(1_000_000));
        db.lock(key.hash);
        db.put_bytes(key, b"value", Meta::default());
        db.unlock();
        let mut walk = Walk::default();
        let hour = 3_600_000;
        for passed in 1..=24 {
            let now = Timestamp(1_000_000 + passed * hour);
            walk.step(&keyspace, now);
            db.set_now(now);
            db.lock(key.hash);
            let access = db.peek(key).expect("it has no deadline").access();
            db.unlock();
            let idle = super::super::idle_seconds(&keyspace, access, now);
            assert_eq!(idle, Some(passed.min(16) as u16 * 3600));
        }
    }
}
