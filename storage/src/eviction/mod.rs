//! Eviction: which keys go when memory is used up.
//!
//! A [`Policy`] is a scope (all keys, or those with a deadline) and a ranking. Every ranking works with the 16 access
//! bits of an entry: what it writes there when a key is created or used, and how it reads them when some keys are
//! sampled and the worst of them has to go. Nothing is linked or ordered, so a use costs one store and an eviction a
//! few samples, whatever the number of keys; the best candidates of earlier samples are remembered ([`pool`]), which
//! makes few samples nearly as good as a full order.
//!
//! The queue policies ([`s3_fifo`], [`sieve`]) tell the age of a key by a clock that ticks with evictions
//! ([`TICKS_PER_TURNOVER`] while as many keys go as there are), so that it is fine enough however fast keys come and go.

pub mod advice;
mod lfu;
mod pool;
pub mod reclaim;
pub mod refresh;
mod s3_fifo;
mod sieve;
mod tiny_lfu;

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};

use self::{advice::Advice, pool::Pool, s3_fifo::Ghosts, tiny_lfu::Sketch};
use crate::{
    alloc,
    db::{Db, access_clock},
    entry::EntryRef,
    keyspace::{Key, Keyspace},
    time::Timestamp,
};

/// Which keys may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    /// Those with a deadline.
    Volatile,
}

/// Which of them goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranking {
    /// The one not used for longest.
    Lru,
    /// The one used least often, of late.
    Lfu,
    Random,
    /// The one whose deadline is nearest.
    Ttl,
    /// S3-FIFO: newcomers must be used again soon; those that went and come back are trusted.
    S3Fifo,
    /// SIEVE: the oldest that was not used since it was last looked at.
    Sieve,
    /// The one used least often, counting uses from before it came as well.
    TinyLfu,
}

/// What goes when memory is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub scope: Scope,
    pub ranking: Ranking,
}

/// Settings, by the directives' meaning.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// 0 is no limit.
    pub limit_bytes: u64,
    /// `None` evicts nothing.
    pub policy: Option<Policy>,
    /// Keys that are looked at for one that goes.
    pub samples: usize,
    /// `lfu-log-factor`
    pub log_factor: u32,
    /// `lfu-decay-time`, minutes
    pub decay_minutes: u32,
    /// Whether to find out, while there is a limit, what other settings would do.
    pub advice: bool,
}

/// How often the queue policies' clock ticks while as many keys are evicted as there are.
const TICKS_PER_TURNOVER: usize = 2048;
/// Samples taken in vain (their keys were used or deleted meanwhile) before an eviction gives up for the moment.
const ROUNDS: usize = 64;
/// Bytes of the limit for each slot of what a policy remembers about keys that are gone: two or four bytes per slot.
const BYTES_PER_SLOT: u64 = 256;

/// The state of eviction, shared by all who use the keyspace.
pub struct Eviction {
    limit_bytes: AtomicU64,
    /// Bytes of the limit that are not to be used, for the process takes more memory than is allocated.
    withheld_bytes: AtomicU64,
    /// [`Policy::code`], 0 for none.
    policy: AtomicU8,
    samples: AtomicUsize,
    log_factor: AtomicU32,
    decay_minutes: AtomicU32,
    clock: AtomicU32,
    evicted_in_tick: AtomicUsize,
    memory: RwLock<Option<Memory>>,
    pool: Mutex<Pool>,
    pub advice: Advice,
}

/// What a policy remembers beside the entries' bits.
#[derive(Clone)]
enum Memory {
    Ghosts(Arc<Ghosts>),
    Sketch(Arc<Sketch>),
}

/// What came of trying to evict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A key is gone. What it means to others is in [`Db::changes`].
    Evicted,
    /// Others were faster; there may be more to evict.
    Busy,
    /// The policy finds nothing that may go.
    Nothing,
}

impl Policy {
    const RANKINGS: [Ranking; 7] = [
        Ranking::Lru,
        Ranking::Lfu,
        Ranking::Random,
        Ranking::Ttl,
        Ranking::S3Fifo,
        Ranking::Sieve,
        Ranking::TinyLfu,
    ];

    fn code(self) -> u8 {
        1 + 2 * self.ranking as u8 + u8::from(self.scope == Scope::Volatile)
    }

    fn of_code(code: u8) -> Option<Policy> {
        let code = code.checked_sub(1)?;
        Some(Policy {
            scope: if code % 2 == 1 {
                Scope::Volatile
            } else {
                Scope::All
            },
            ranking: Policy::RANKINGS[usize::from(code / 2)],
        })
    }
}

impl Default for Eviction {
    fn default() -> Eviction {
        Eviction {
            limit_bytes: AtomicU64::new(0),
            withheld_bytes: AtomicU64::new(0),
            policy: AtomicU8::new(0),
            samples: AtomicUsize::new(5),
            log_factor: AtomicU32::new(10),
            decay_minutes: AtomicU32::new(1),
            clock: AtomicU32::new(0),
            evicted_in_tick: AtomicUsize::new(0),
            memory: RwLock::new(None),
            pool: Mutex::default(),
            advice: Advice::default(),
        }
    }
}

impl Eviction {
    /// Takes new settings over. What the entries' bits say is not translated: it takes some time to adjust.
    pub fn configure(&self, options: Options) {
        self.samples.store(options.samples, Ordering::Relaxed);
        self.set_lfu(lfu::Pace {
            log_factor: options.log_factor,
            decay_minutes: options.decay_minutes,
        });
        let old_limit = self
            .limit_bytes
            .swap(options.limit_bytes, Ordering::Relaxed);
        let code = options.policy.map_or(0, Policy::code);
        let old_code = self.policy.swap(code, Ordering::Relaxed);
        if code != old_code || old_limit != options.limit_bytes {
            let slots = (options.limit_bytes / BYTES_PER_SLOT).clamp(1 << 12, 1 << 24);
            let slots = slots.next_power_of_two() as usize;
            *self.memory.write() = match options.policy.map(|policy| policy.ranking) {
                Some(Ranking::S3Fifo) => Some(Memory::Ghosts(Arc::new(Ghosts::new(slots)))),
                Some(Ranking::TinyLfu) => Some(Memory::Sketch(Arc::new(Sketch::new(slots)))),
                _ => None,
            };
            self.pool.lock().clear();
        }
        self.advice
            .enable(options.advice && options.limit_bytes != 0, self.lfu());
    }

    /// Whether there is a limit at all.
    #[inline]
    pub fn is_limited(&self) -> bool {
        self.limit_bytes.load(Ordering::Relaxed) != 0
    }

    /// Most that may be allocated; 0 is no limit.
    #[inline]
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes.load(Ordering::Relaxed)
    }

    /// What [`Eviction::withhold`] was told last.
    pub fn withheld_bytes(&self) -> u64 {
        self.withheld_bytes.load(Ordering::Relaxed)
    }

    /// Keys go as if the limit were lower by so much.
    pub fn withhold(&self, bytes: u64) {
        self.withheld_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether more is allocated than the limit allows, memory that is just being freed not counted.
    pub fn is_over_limit(&self, keyspace: &Keyspace) -> bool {
        let limit = self.limit_bytes();
        limit != 0 && allocated(keyspace) > limit
    }

    /// Whether keys should go: as [`Eviction::is_over_limit`], with what is withheld.
    pub fn wants_room(&self, keyspace: &Keyspace) -> bool {
        let limit = self.limit_bytes();
        limit != 0 && allocated(keyspace) > limit.saturating_sub(self.withheld_bytes())
    }

    pub fn policy(&self) -> Option<Policy> {
        Policy::of_code(self.policy.load(Ordering::Relaxed))
    }

    /// How uses are noted from now on, for a [`Db`] to keep while it lives.
    #[inline]
    pub(crate) fn tracker(&self) -> Tracker {
        let ranking = self.policy().map_or(Ranking::Lru, |policy| policy.ranking);
        let memory = match ranking {
            Ranking::S3Fifo | Ranking::TinyLfu => self.memory.read().clone(),
            _ => None,
        };
        Tracker { ranking, memory }
    }

    fn clock(&self) -> u32 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Lets the clock tick as keys go, of about `keys`.
    fn advance_clock(&self, keys: usize) {
        // Relaxed, and a tick more or less when threads meet: only the pace matters.
        let evicted = self.evicted_in_tick.fetch_add(1, Ordering::Relaxed) + 1;
        if evicted >= keys.div_ceil(TICKS_PER_TURNOVER) {
            self.evicted_in_tick.store(0, Ordering::Relaxed);
            self.clock.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn set_lfu(&self, pace: lfu::Pace) {
        self.log_factor.store(pace.log_factor, Ordering::Relaxed);
        self.decay_minutes
            .store(pace.decay_minutes, Ordering::Relaxed);
    }

    fn lfu(&self) -> lfu::Pace {
        lfu::Pace {
            log_factor: self.log_factor.load(Ordering::Relaxed),
            decay_minutes: self.decay_minutes.load(Ordering::Relaxed),
        }
    }
}

/// Bytes that are allocated and not just being freed.
fn allocated(keyspace: &Keyspace) -> u64 {
    let freeing = keyspace.statistics.freeing_bytes.load(Ordering::Relaxed);
    alloc::allocated_bytes().saturating_sub(freeing) as u64
}

/// Notes uses of keys in their entries' bits.
pub(crate) struct Tracker {
    ranking: Ranking,
    memory: Option<Memory>,
}

impl Tracker {
    /// The bits of a key that is created.
    #[inline]
    pub(crate) fn fresh(&self, eviction: &Eviction, hash: u64, now: Timestamp) -> u16 {
        match self.ranking {
            Ranking::Lru | Ranking::Random | Ranking::Ttl => access_clock(now),
            Ranking::Lfu => eviction.lfu().fresh(now),
            Ranking::S3Fifo => {
                let ghosts = match &self.memory {
                    Some(Memory::Ghosts(ghosts)) => Some(&**ghosts),
                    _ => None,
                };
                s3_fifo::fresh(ghosts, hash, eviction.clock())
            }
            Ranking::Sieve => sieve::fresh(eviction.clock()),
            Ranking::TinyLfu => self.count(hash, now),
        }
    }

    /// The bits of a key that is used and had `bits`.
    #[inline]
    pub(crate) fn used(&self, eviction: &Eviction, bits: u16, hash: u64, now: Timestamp) -> u16 {
        match self.ranking {
            Ranking::Lru | Ranking::Random | Ranking::Ttl => access_clock(now),
            Ranking::Lfu => eviction.lfu().used(bits, now, random()),
            Ranking::S3Fifo => s3_fifo::used(bits),
            Ranking::Sieve => sieve::used(bits),
            Ranking::TinyLfu => self.count(hash, now),
        }
    }

    fn count(&self, hash: u64, now: Timestamp) -> u16 {
        if let Some(Memory::Sketch(sketch)) = &self.memory {
            sketch.add(hash);
        }
        access_clock(now)
    }

    /// How much an entry deserves to go, of a hash that is `hash`; more is worse. May take from the entry what its
    /// ranking takes from those it looks at: of `samples` looked at one goes.
    fn score(
        &self,
        eviction: &Eviction,
        entry: EntryRef<'_>,
        hash: u64,
        samples: usize,
        now: Timestamp,
    ) -> u64 {
        if entry.is_expired(now) {
            return u64::MAX;
        }
        if self.ranking == Ranking::Ttl {
            let until = |deadline: Timestamp| i64::MAX.abs_diff(deadline.millis());
            return entry.deadline().map_or(0, until);
        }
        let before = entry.access();
        let (score, after) = self.rank(eviction, before, hash, samples, now);
        if after != before {
            entry.set_access(after);
        }
        score
    }

    /// The score of a key that has such bits, and the bits it has from now on; all but [`Ranking::Ttl`] go by those.
    fn rank(
        &self,
        eviction: &Eviction,
        bits: u16,
        hash: u64,
        samples: usize,
        now: Timestamp,
    ) -> (u64, u16) {
        let idle = u64::from(access_clock(now).wrapping_sub(bits));
        match self.ranking {
            Ranking::Lru | Ranking::Ttl => (idle, bits),
            Ranking::Random => (random() >> 1, bits),
            Ranking::Lfu => {
                // Kept as it is now: the minutes wrap, and a key must not be looked at too late.
                let bits = eviction.lfu().decayed(bits, now);
                (u64::from(u8::MAX - lfu::frequency(bits)), bits)
            }
            Ranking::S3Fifo => s3_fifo::score(bits, eviction.clock(), one_in(samples)),
            Ranking::Sieve => sieve::score(bits, eviction.clock(), one_in(samples)),
            Ranking::TinyLfu => {
                let uses = match &self.memory {
                    Some(Memory::Sketch(sketch)) => sketch.estimate(hash),
                    _ => 0,
                };
                (u64::from(tiny_lfu::MAX - uses) << 16 | idle, bits)
            }
        }
    }

    /// Remembers a key that goes.
    fn note_gone(&self, hash: u64) {
        if let Some(Memory::Ghosts(ghosts)) = &self.memory {
            ghosts.add(hash);
        }
    }
}

/// Evicts one key, of any database. Nothing may be locked; one shard at a time is.
///
/// O(samples), or O(shards) when there are few keys.
pub fn evict(db: &mut Db<'_>) -> Outcome {
    debug_assert!(!db.is_locked());
    let keyspace = db.keyspace();
    let eviction = &keyspace.eviction;
    let Some(policy) = eviction.policy() else {
        return Outcome::Nothing;
    };
    let tracker = eviction.tracker();
    if tracker.ranking != policy.ranking {
        return Outcome::Busy;
    }
    let mut own = Pool::default();
    let mut shared = eviction.pool.try_lock();
    let pool = shared.as_deref_mut().unwrap_or(&mut own);
    let samples = match policy.ranking {
        Ranking::Random => 1,
        _ => eviction.samples.load(Ordering::Relaxed).max(1),
    };
    let now = db.now();
    for _ in 0..ROUNDS {
        let found = pool::sample(keyspace, policy.scope, samples, |database, hash, entry| {
            let score = tracker.score(eviction, entry, hash, samples, now);
            pool.offer(score, database, hash, entry);
        });
        if found == 0 {
            pool.clear();
            return match keyspace.any_held() {
                true => Outcome::Busy,
                false => Outcome::Nothing,
            };
        }
        while let Some(candidate) = pool.take_worst() {
            let key = Key {
                bytes: &candidate.key,
                hash: candidate.hash,
            };
            let keys = db.evict(candidate.database, key, |entry| {
                (policy.scope == Scope::All || entry.deadline().is_some())
                    && (policy.ranking == Ranking::Random || pool::mark(entry) == candidate.mark)
            });
            if let Some(keys) = keys {
                eviction.advance_clock(keys * keyspace.shard_count());
                tracker.note_gone(candidate.hash);
                return Outcome::Evicted;
            }
        }
    }
    Outcome::Busy
}

/// What OBJECT FREQ tells: `None` unless the policy is LFU.
pub fn frequency(keyspace: &Keyspace, entry: EntryRef<'_>, now: Timestamp) -> Option<u8> {
    let eviction = &keyspace.eviction;
    let ranking = eviction.policy()?.ranking;
    (ranking == Ranking::Lfu).then(|| lfu::frequency(eviction.lfu().decayed(entry.access(), now)))
}

/// Seconds since the entry was used, up to 16 hours: `None` if the policy does not keep them.
pub fn idle_seconds(keyspace: &Keyspace, access: u16, now: Timestamp) -> Option<u16> {
    let ranking = keyspace.eviction.policy().map(|policy| policy.ranking);
    match ranking {
        Some(Ranking::Lfu | Ranking::S3Fifo | Ranking::Sieve) => None,
        _ => Some(access_clock(now).wrapping_sub(access)),
    }
}

/// The bits of a key that was used so many seconds ago, or so often, as whoever restores it says; `None` if the policy
/// does not keep that.
pub fn restored(
    keyspace: &Keyspace,
    idle_seconds: Option<u64>,
    frequency: Option<u8>,
    now: Timestamp,
) -> Option<u16> {
    let ranking = keyspace.eviction.policy().map(|policy| policy.ranking);
    match ranking {
        Some(Ranking::Lfu) => frequency.map(|frequency| lfu::with_frequency(frequency, now)),
        Some(Ranking::S3Fifo | Ranking::Sieve) => None,
        _ => idle_seconds.map(|seconds| {
            let idle = u16::try_from(seconds).unwrap_or(u16::MAX);
            access_clock(now).wrapping_sub(idle)
        }),
    }
}

/// True once in `count` times.
fn one_in(count: usize) -> bool {
    random().is_multiple_of(count.max(1) as u64)
}

/// 64 random bits, for choices that nobody gains from foreseeing.
fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(crate::hash::hash(
            &std::process::id().to_le_bytes(),
        ) ^ next_seed());
    }
    STATE.with(|state| {
        // SplitMix64 (Steele et al., 2014).
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// A different start for every thread.
fn next_seed() -> u64 {
    static SEEDS: AtomicU64 = AtomicU64::new(1);
    SEEDS
        .fetch_add(1, Ordering::Relaxed)
        .wrapping_mul(0xd6e8_feb8_6659_fd93)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Meta;

    const RANKINGS: [Ranking; 7] = Policy::RANKINGS;

    fn keyspace(scope: Scope, ranking: Ranking) -> Keyspace {
        let keyspace = Keyspace::new(4, 2, None);
        keyspace.eviction.configure(Options {
            limit_bytes: 1,
            policy: Some(Policy { scope, ranking }),
            samples: 10,
            log_factor: 10,
            decay_minutes: 1,
            advice: false,
        });
        keyspace
    }

    fn set(db: &mut Db<'_>, name: &str, deadline: Option<Timestamp>) {
        let key = Key::new(name.as_bytes());
        db.lock(key.hash);
        db.put_bytes(
            key,
            b"value",
            Meta {
                deadline,
                ..Meta::default()
            },
        );
        db.unlock();
    }

    fn is_there(db: &mut Db<'_>, name: &str) -> bool {
        let key = Key::new(name.as_bytes());
        db.lock(key.hash);
        let found = db.peek(key).is_some();
        db.unlock();
        found
    }

    fn use_key(db: &mut Db<'_>, name: &str) {
        let key = Key::new(name.as_bytes());
        db.lock(key.hash);
        let _ = db.get(key);
        db.unlock();
    }

    #[test]
    fn every_policy_has_its_code() {
        for ranking in RANKINGS {
            for scope in [Scope::All, Scope::Volatile] {
                let policy = Policy { scope, ranking };
                assert_eq!(Policy::of_code(policy.code()), Some(policy));
            }
        }
        assert_eq!(Policy::of_code(0), None);
    }

    #[test]
    fn every_policy_evicts_down_to_nothing() {
        for ranking in RANKINGS {
            let keyspace = keyspace(Scope::All, ranking);
            let mut db = Db::new(&keyspace, 0, Timestamp(1_000_000));
            for index in 0..500 {
                db.select(index % 2);
                set(&mut db, &format!("key{index}"), None);
            }
            for _ in 0..500 {
                while evict(&mut db) != Outcome::Evicted {}
            }
            assert_eq!(evict(&mut db), Outcome::Nothing, "{ranking:?}");
            assert_eq!((keyspace.len(0), keyspace.len(1)), (Ok(0), Ok(0)));
        }
    }

    #[test]
    fn volatile_policies_spare_keys_without_a_deadline() {
        for ranking in RANKINGS {
            let keyspace = keyspace(Scope::Volatile, ranking);
            let mut db = Db::new(&keyspace, 0, Timestamp(1_000_000));
            for index in 0..2000 {
                let deadline = (index % 100 == 0).then_some(Timestamp(9_000_000 + index));
                set(&mut db, &format!("key{index}"), deadline);
            }
            for _ in 0..20 {
                while evict(&mut db) != Outcome::Evicted {}
            }
            assert_eq!(evict(&mut db), Outcome::Nothing, "{ranking:?}");
            assert_eq!(keyspace.len(0), Ok(1980));
        }
    }

    #[test]
    fn what_is_used_survives() {
        for ranking in [
            Ranking::Lru,
            Ranking::Lfu,
            Ranking::S3Fifo,
            Ranking::Sieve,
            Ranking::TinyLfu,
        ] {
            let keyspace = keyspace(Scope::All, ranking);
            let mut now = 1_000_000;
            let mut created = 0;
            // A hundred hot keys are used while others come, and never used again, go.
            for round in 0..60 {
                now += 1000;
                let mut db = Db::new(&keyspace, 0, Timestamp(now));
                for hot in 0..100 {
                    let name = format!("hot{hot}");
                    if round == 0 {
                        set(&mut db, &name, None);
                    }
                    use_key(&mut db, &name);
                }
                for _ in 0..100 {
                    set(&mut db, &format!("cold{created}"), None);
                    created += 1;
                }
                while keyspace.len(0).expect("nothing is held") > 1000 {
                    let _ = evict(&mut db);
                }
            }
            let mut db = Db::new(&keyspace, 0, Timestamp(now));
            let alive = (0..100)
                .filter(|hot| is_there(&mut db, &format!("hot{hot}")))
                .count();
            assert!(alive >= 95, "{ranking:?} kept {alive}");
        }
    }

    #[test]
    fn the_nearest_deadline_goes_first() {
        let keyspace = keyspace(Scope::Volatile, Ranking::Ttl);
        let mut db = Db::new(&keyspace, 0, Timestamp(0));
        set(&mut db, "late", Some(Timestamp(9000)));
        set(&mut db, "soon", Some(Timestamp(1000)));
        set(&mut db, "never", None);
        assert_eq!(evict(&mut db), Outcome::Evicted);
        assert!(!is_there(&mut db, "soon") && is_there(&mut db, "late"));
    }
}
