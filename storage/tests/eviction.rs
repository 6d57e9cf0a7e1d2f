//! Hit ratios of the eviction policies on traces of known shape.
//!
//! Not what they reach in the world, but what each is for: popularity that does not change, popularity with a flood of
//! keys used once, and recency. The traces are the same in every run.

mod random;

use storage::{
    db::Db,
    entry::Meta,
    eviction::{Options, Outcome, Policy, Ranking, Scope, evict},
    keyspace::{Key, Keyspace},
    time::Timestamp,
};

use self::random::Random;

const KEYS: u64 = 20_000;
const CACHED: usize = 2_000;
const REQUESTS: u64 = 200_000;

/// Of every trace.
const SEED: u64 = 1;

/// The share of requests that find their key, at 2,000 requests a second, after the first half of the trace.
fn hit_ratio(ranking: Ranking, mut trace: impl FnMut(u64) -> u64) -> f64 {
    let keyspace = Keyspace::new(16, 1, None);
    keyspace.eviction.configure(Options {
        limit_bytes: 1 << 20,
        policy: Some(Policy {
            scope: Scope::All,
            ranking,
        }),
        samples: 5,
        log_factor: 10,
        decay_minutes: 1,
        advice: false,
    });
    let (mut cached, mut hits) = (0, 0);
    let mut db = Db::new(&keyspace, 0, Timestamp(0));
    for request in 0..REQUESTS {
        db.set_now(Timestamp(1_000_000 + request as i64 / 2));
        let name = trace(request).to_le_bytes();
        let key = Key::new(&name);
        db.lock(key.hash);
        let hit = db.get(key).is_some();
        if !hit {
            db.put_bytes(key, b"value", Meta::default());
        }
        db.unlock();
        hits += u64::from(hit && request >= REQUESTS / 2);
        cached += usize::from(!hit);
        while cached > CACHED {
            cached -= usize::from(evict(&mut db) == Outcome::Evicted);
        }
    }
    hits as f64 / (REQUESTS / 2) as f64
}

fn zipf(ranking: Ranking) -> f64 {
    let mut random = Random(SEED);
    hit_ratio(ranking, move |_| random.popular(KEYS))
}

/// Every other request is for a key that never comes again.
fn flooded(ranking: Ranking) -> f64 {
    let mut random = Random(SEED);
    hit_ratio(ranking, move |request| {
        if request % 2 == 0 {
            KEYS + request
        } else {
            random.popular(KEYS)
        }
    })
}

#[test]
fn policies_find_what_is_popular() {
    let random = zipf(Ranking::Random);
    for (ranking, gain) in [
        (Ranking::Lru, 0.01),
        (Ranking::Lfu, 0.03),
        (Ranking::S3Fifo, 0.03),
        (Ranking::Sieve, 0.03),
        (Ranking::TinyLfu, 0.03),
    ] {
        let ratio = zipf(ranking);
        println!("zipf {ranking:?}: {ratio:.3}, random {random:.3}");
        assert!(ratio > random + gain, "{ranking:?}: {ratio} over {random}");
    }
}

#[test]
fn floods_of_keys_used_once_are_withstood() {
    let lru = flooded(Ranking::Lru);
    for ranking in [
        Ranking::Lfu,
        Ranking::S3Fifo,
        Ranking::Sieve,
        Ranking::TinyLfu,
    ] {
        let ratio = flooded(ranking);
        println!("flood {ranking:?}: {ratio:.3}, lru {lru:.3}");
        assert!(ratio > lru + 0.02, "{ranking:?}: {ratio} over {lru}");
    }
}
