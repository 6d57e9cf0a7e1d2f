//! Locks: taking and releasing them, and what is reached under them. For the dispatcher and, where it does not matter how
//! long that takes, for others.

use smallvec::SmallVec;

use super::Db;
use crate::{
    Held,
    changes::Listeners,
    entry::EntryRef,
    keyspace::{Locked, Shards},
    shard::Shard,
};

/// Entries between two looks at the outcome of a walk.
const WALK_BUDGET: usize = 1000;

impl Db<'_> {
    /// Locks the shard of one hash.
    ///
    /// # Errors
    /// The lock is held for long. So with the other two.
    #[inline(always)]
    pub fn try_lock(&mut self, hash: u64) -> Result<(), Held> {
        debug_assert!(matches!(self.locked, Locked::None));
        let shard = self.keyspace.shard_of(hash);
        let locked = Locked::One(shard, self.keyspace.try_lock(shard)?);
        // Nothing is replaced, which the compiler does not know.
        let Locked::None = std::mem::replace(&mut self.locked, locked) else {
            panic!("a command locks its shards once");
        };
        self.begin();
        Ok(())
    }

    /// Locks the shards of all these hashes.
    pub fn try_lock_each(&mut self, hashes: impl Iterator<Item = u64>) -> Result<(), Held> {
        debug_assert!(matches!(self.locked, Locked::None));
        let mut shards: SmallVec<[usize; 16]> =
            hashes.map(|hash| self.keyspace.shard_of(hash)).collect();
        shards.sort_unstable();
        shards.dedup();
        self.locked = Locked::Many(self.keyspace.try_lock_many(&shards)?);
        self.begin();
        Ok(())
    }

    /// Locks every shard.
    pub fn try_lock_all(&mut self) -> Result<(), Held> {
        debug_assert!(matches!(self.locked, Locked::None));
        self.locked = Locked::All(self.keyspace.try_lock_all()?);
        self.begin();
        Ok(())
    }

    /// Locks the shard of one hash, however long that takes.
    pub fn lock(&mut self, hash: u64) {
        let keyspace = self.keyspace;
        keyspace.insist(|| self.try_lock(hash));
    }

    /// Locks every shard, however long that takes.
    pub fn lock_all(&mut self) {
        let keyspace = self.keyspace;
        keyspace.insist(|| self.try_lock_all());
    }

    /// The shards that are locked.
    pub fn locked_shards(&self) -> Shards {
        match &self.locked {
            Locked::None => Shards::default(),
            Locked::One(shard, _) => Shards::These([*shard].into_iter().collect()),
            Locked::Many(shards) => Shards::These(shards.iter().map(|(shard, _)| *shard).collect()),
            Locked::All(_) => Shards::All,
        }
    }

    /// Releases all locks, after handing the log what was done under them. Its changes are counted; what else the last
    /// command did stays in `changes` until the next lock.
    #[inline(always)]
    pub fn unlock(&mut self) {
        self.collect_effects_of_nothing();
        *self.dirty.get_mut() += std::mem::take(&mut self.changes.dirty);
        self.log_effects();
        // Apart, since it is what nearly all commands hold.
        match std::mem::replace(&mut self.locked, Locked::None) {
            Locked::One(_, shard) => drop(shard),
            Locked::None => {}
            Locked::Many(shards) => drop(shards),
            Locked::All(shards) => drop(shards),
        }
    }

    /// Hands the log what was done so far under the locks that are held, apart from what follows.
    #[inline]
    pub fn log_effects(&mut self) {
        if !self.effects.is_empty() {
            self.append_effects();
        }
    }

    #[inline(never)]
    fn append_effects(&mut self) {
        if let Some(log) = self.keyspace.log() {
            log.append(&self.effects);
            self.has_logged = true;
        }
        self.effects.clear();
    }

    /// Ready for the next command of a transaction, under the same locks.
    #[inline(always)]
    pub fn begin(&mut self) {
        self.changes.listeners = self.keyspace.listeners();
        self.changes.reset();
        if !self.met.get_mut().is_empty() {
            self.met.get_mut().clear();
        }
    }

    /// As [`Db::begin`], for a command that nobody is to hear of, the log included.
    pub fn begin_unheard(&mut self) {
        self.begin();
        self.changes.listeners = Listeners::NONE;
    }

    pub fn is_locked(&self) -> bool {
        !matches!(self.locked, Locked::None)
    }

    /// Whether the shard of a hash is among those locked.
    pub fn holds(&self, hash: u64) -> bool {
        let shard = self.keyspace.shard_of(hash);
        match &self.locked {
            Locked::None => false,
            Locked::One(number, _) => *number == shard,
            Locked::Many(shards) => shards
                .binary_search_by_key(&shard, |(number, _)| *number)
                .is_ok(),
            Locked::All(_) => true,
        }
    }

    /// The locked shard of a hash.
    #[inline(always)]
    pub fn shard(&self, hash: u64) -> &Shard {
        let number = self.keyspace.shard_of(hash);
        match &self.locked {
            Locked::One(locked, shard) => {
                assert!(
                    *locked == number,
                    "a command touched a key that it did not declare"
                );
                shard
            }
            Locked::Many(shards) => {
                let at = shards.binary_search_by_key(&number, |(number, _)| *number);
                &shards[at.expect("a command touches only keys it declared")].1
            }
            Locked::All(shards) => &shards[number],
            Locked::None => panic!("a command touched a key without declaring any"),
        }
    }

    /// The locked shard of a hash, to change.
    #[inline]
    pub fn shard_mut(&mut self, hash: u64) -> &mut Shard {
        let number = self.keyspace.shard_of(hash);
        locked_shard(&mut self.locked, number)
    }

    /// Runs `work` on one shard after another: on those locked, or when none is, locking one at a time. `None` from
    /// `work` goes on; the first `Some` ends the walk.
    ///
    /// # Errors
    /// None is locked, and the walk came to a lock that is held for long.
    pub fn each_shard<R>(
        &mut self,
        from: usize,
        mut work: impl FnMut(usize, &mut Shard) -> Option<R>,
    ) -> Result<Option<R>, Held> {
        for number in from..self.keyspace.shard_count() {
            let result = match &mut self.locked {
                Locked::All(shards) => work(number, &mut shards[number]),
                Locked::None => work(number, &mut *self.keyspace.try_lock(number)?),
                Locked::One(..) | Locked::Many(_) => panic!("walks declare all shards or none"),
            };
            if result.is_some() {
                return Ok(result);
            }
        }
        Ok(None)
    }

    /// Shows `visit` every entry of every database, expired ones too. All shards must be locked.
    ///
    /// # Errors
    /// The first that `visit` makes.
    pub fn each_entry<E>(
        &self,
        mut visit: impl FnMut(usize, EntryRef<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Locked::All(shards) = &self.locked else {
            panic!("a walk over all entries declares all shards")
        };
        for database in 0..self.keyspace.databases() {
            for shard in shards {
                let table = &shard.tables[database];
                let mut outcome = Ok(());
                let mut cursor = 0;
                loop {
                    cursor = table.traverse(cursor, WALK_BUDGET, |_, entry| {
                        if outcome.is_ok() {
                            outcome = visit(database, entry);
                        }
                    });
                    if cursor == 0 || outcome.is_err() {
                        break;
                    }
                }
                outcome?;
            }
        }
        Ok(())
    }
}

#[inline(always)]
pub(super) fn locked_shard<'s>(locked: &'s mut Locked<'_>, number: usize) -> &'s mut Shard {
    match locked {
        Locked::One(one, shard) => {
            assert!(
                *one == number,
                "a command touched a key that it did not declare"
            );
            shard
        }
        Locked::Many(shards) => {
            let at = shards.binary_search_by_key(&number, |(number, _)| *number);
            &mut shards[at.expect("a command touches only keys it declared")].1
        }
        Locked::All(shards) => &mut shards[number],
        Locked::None => panic!("a command touched a key without declaring any"),
    }
}
