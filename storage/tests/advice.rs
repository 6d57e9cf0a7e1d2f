//! What the sampler expects of other policies and limits against what happens under them.
//!
//! The keyspace itself is replayed at each capacity under each policy, and under exact LRU; the sampler sees one of those
//! replays only. The traces are the same in every run; the hash, and with it the sample, is not.

mod random;

use std::collections::{HashMap, VecDeque};

use storage::{
    db::Db,
    entry::Meta,
    eviction::{
        Options, Outcome, Policy, Ranking, Scope,
        advice::{RANKINGS, Report, SCALES},
        evict,
    },
    keyspace::{Key, Keyspace},
    snapshot::Ready,
    time::Timestamp,
};

use self::random::Random;

const KEYS: u64 = 60_000;
const CACHED: usize = 8_000;
const REQUESTS: u64 = 400_000;
const REQUESTS_PER_SECOND: u64 = 4000;
/// The most by which a hit ratio may be off: of about 2,000 sampled keys chance alone takes half of it.
const TOLERANCE: f64 = 0.04;
/// What an entry of the test takes, as the sampler counts.
const ENTRY_BYTES: u64 = 32 + 10;

/// Popularity about as in Zipf's law, drifting, with every fifth request from a scan that never comes back.
fn trace() -> impl Iterator<Item = u64> {
    let mut random = Random(1);
    (0..REQUESTS).map(move |request| {
        if request % 5 == 0 {
            return 10 * KEYS + request;
        }
        let rank = random.popular(KEYS);
        (rank + request / 200 * u64::from(rank > 100)) % KEYS
    })
}

struct Replay {
    keyspace: Keyspace,
    cached: usize,
    hits: u64,
}

impl Replay {
    fn new(ranking: Ranking, advice: bool) -> Replay {
        let keyspace = Keyspace::new(16, 1, None);
        keyspace.eviction.configure(Options {
            limit_bytes: CACHED as u64 * 256,
            policy: Some(Policy {
                scope: Scope::All,
                ranking,
            }),
            samples: 5,
            log_factor: 10,
            decay_minutes: 1,
            advice,
        });
        Replay {
            keyspace,
            cached: 0,
            hits: 0,
        }
    }

    fn run(&mut self, capacity: usize) {
        for (number, object) in trace().enumerate() {
            let now = Timestamp(1_000_000 + number as i64 * 1000 / REQUESTS_PER_SECOND as i64);
            self.request(object, now);
            let mut db = Db::new(&self.keyspace, 0, now);
            while self.cached > capacity {
                self.cached -= usize::from(evict(&mut db) == Outcome::Evicted);
            }
            if number % 400 == 0 {
                let misses = number as u64 + 1 - self.hits;
                let bytes = capacity as u64 * ENTRY_BYTES;
                self.keyspace
                    .eviction
                    .advice
                    .replay(bytes, self.hits, misses, now);
            }
        }
    }

    fn request(&mut self, object: u64, now: Timestamp) {
        let name = object.to_le_bytes();
        let key = Key::new(&name);
        let mut db = Db::new(&self.keyspace, 0, now);
        db.lock(key.hash);
        if db.get(key).is_some() {
            self.hits += 1;
        } else {
            db.put_bytes(key, b"a value of 16 b.", Meta::default());
            self.cached += 1;
        }
        db.unlock();
    }

    fn ratio(&self) -> f64 {
        self.hits as f64 / REQUESTS as f64
    }
}

/// The hit ratio of LRU with a true order.
fn exact_lru(capacity: usize) -> f64 {
    let mut last_use = HashMap::new();
    let mut order = VecDeque::new();
    let mut hits = 0;
    for (number, object) in trace().enumerate() {
        hits += u64::from(last_use.insert(object, number).is_some());
        order.push_back((object, number));
        while last_use.len() > capacity {
            let (oldest, used) = order.pop_front().expect("every key is in the order");
            if last_use.get(&oldest) == Some(&used) {
                last_use.remove(&oldest);
            }
        }
    }
    hits as f64 / REQUESTS as f64
}

fn advised(ranking: Ranking) -> (Report, f64) {
    let mut replay = Replay::new(ranking, true);
    replay.run(CACHED);
    let report = replay.keyspace.eviction.advice.report();
    (report.expect("it is on"), replay.ratio())
}

#[test]
fn what_is_expected_of_policies_and_limits_is_what_happens() {
    let (report, happened) = advised(Ranking::Lru);
    assert!((report.hit_ratio - happened).abs() < 0.01, "{report:?}");
    assert!(report.one_in > 1 && report.keys <= 4096);
    for (ranking, expected) in report.expected {
        for (scale, expected) in SCALES.into_iter().zip(expected) {
            let mut replay = Replay::new(ranking, false);
            replay.run((CACHED as f64 * scale) as usize);
            let happens = replay.ratio();
            println!("{ranking:?} x{scale}: expected {expected:.3}, happens {happens:.3}");
            assert!(
                (expected - happens).abs() < TOLERANCE,
                "{ranking:?} x{scale}: {expected} {happens}"
            );
        }
    }
    let (_, lru) = report.expected[0];
    for (scale, expected) in SCALES.into_iter().zip(lru) {
        let exact = exact_lru((CACHED as f64 * scale) as usize);
        assert!(
            (expected - exact).abs() < TOLERANCE,
            "x{scale}: {expected} {exact}"
        );
    }
}

#[test]
fn the_same_is_expected_whatever_policy_the_server_has() {
    let (from_lru, _) = advised(Ranking::Lru);
    let (from_s3_fifo, happened) = advised(Ranking::S3Fifo);
    assert!((from_s3_fifo.hit_ratio - happened).abs() < 0.01);
    for ((ranking, one), (_, other)) in from_lru.expected.iter().zip(from_s3_fifo.expected) {
        for (one, other) in one.iter().zip(other) {
            assert!((one - other).abs() < 0.01, "{ranking:?}: {one} {other}");
        }
    }
    assert_eq!(from_lru.expected.map(|(ranking, _)| ranking), RANKINGS);
}

#[test]
fn deleted_and_expired_keys_are_missed_by_all() {
    let mut replay = Replay::new(Ranking::Lru, true);
    let advice = &replay.keyspace.eviction.advice;
    let key = |number: u64| number.to_le_bytes();
    let mut now = Timestamp(1_000_000);
    let mut misses = 0;
    for round in 0..3 {
        let mut db = Db::new(&replay.keyspace, 0, now);
        for number in 0..100 {
            let name = key(number);
            let key = Key::new(&name);
            db.lock(key.hash);
            let found = db.get(key).is_some();
            // The first half is deleted, the second half expires.
            assert!(!found);
            misses += 1;
            let deadline = (number >= 50).then_some(Timestamp(now.0 + 1000));
            db.put_bytes(
                key,
                b"value",
                Meta {
                    deadline,
                    ..Meta::default()
                },
            );
            if number < 50 {
                db.delete(key);
            }
            db.unlock();
        }
        advice.replay(1 << 20, 0, misses, now);
        if round == 0 {
            // Counting begins with the first look.
            assert_eq!(advice.report().expect("it is on").requests, 0);
        }
        now = Timestamp(now.0 + 5000);
    }
    let report = advice.report().expect("it is on");
    assert_eq!((report.one_in, report.requests), (1, 200));
    for (ranking, expected) in report.expected {
        assert_eq!(expected, [0.0; SCALES.len()], "{ranking:?}");
    }
    replay.keyspace.eviction.advice.reset();
    replay.request(1, now);
    let report = replay.keyspace.eviction.advice.report().expect("it is on");
    assert_eq!((report.requests, report.keys), (0, 0));
}

#[test]
fn nothing_is_known_of_data_that_is_gone() {
    let mut replay = Replay::new(Ranking::Lru, true);
    let now = Timestamp(1_000_000);
    let mut rounds = 0;
    let mut learn = |replay: &mut Replay| {
        for _ in 0..3 {
            (0..100).for_each(|number| replay.request(number, now));
            rounds += 1;
            let advice = &replay.keyspace.eviction.advice;
            advice.replay(1 << 20, replay.hits, 100 * rounds - replay.hits, now);
        }
        known(replay)
    };
    fn known(replay: &Replay) -> (u64, usize) {
        let report = replay.keyspace.eviction.advice.report();
        let report = report.expect("it is on");
        (report.requests, report.keys)
    }
    assert_eq!(learn(&mut replay), (200, 100));
    let flush = |replay: &Replay, database| {
        let mut db = Db::new(&replay.keyspace, 0, now);
        db.lock_all();
        db.flush(database);
        db.unlock();
    };
    flush(&replay, Some(0));
    assert_eq!(known(&replay), (200, 100), "of one database");
    flush(&replay, None);
    assert_eq!(known(&replay), (0, 0), "of all");
    assert_eq!(learn(&mut replay), (200, 100));
    Ready::wait(&replay.keyspace).take_over(Keyspace::new(16, 1, None));
    assert_eq!(known(&replay), (0, 0), "of other data in its place");
}
