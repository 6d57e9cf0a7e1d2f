//! Ferrite's own policies: the code that the server runs, on a keyspace of their own without a network.
//!
//! Entries have real keys and deadlines; when sizes count they have real values as well, so that a policy may look at
//! them. Only the limit is different: the weights of the trace count here, as for every other policy, instead of the
//! bytes that the process has allocated.

use storage::changes::{Listeners, Notice};
use storage::db::Db;
use storage::entry::Meta;
use storage::eviction::{Options, Outcome, Policy, Ranking, Scope, evict};
use storage::keyspace::{Key, Keyspace};
use storage::time::Timestamp;

use super::{Cache, Space, Unit};
use crate::strategies::trace::{KEY_BYTES, Request};

const SHARDS: usize = 16;
/// Where the trace's clock starts: deadlines and clocks of zero are special.
const START_MS: i64 = 1_700_000_000_000;
/// Bytes of the limit for one object, where only their number counts.
const LIMIT_PER_OBJECT: u64 = 256;
/// Evictions in vain before a request goes on over the capacity.
const PATIENCE: usize = 1000;

pub(super) struct Ferrite {
    space: Space,
    keyspace: Keyspace,
    filler: Vec<u8>,
    held: u64,
}

impl Ferrite {
    pub(super) fn new(space: Space, ranking: Ranking, samples: usize) -> Self {
        let keyspace = Keyspace::new(SHARDS, 1, None);
        let limit_bytes = match space.unit {
            Unit::Objects => space.capacity * LIMIT_PER_OBJECT,
            Unit::Bytes => space.capacity,
        };
        keyspace.eviction.configure(Options {
            limit_bytes: limit_bytes.max(1),
            policy: Some(Policy {
                scope: Scope::All,
                ranking,
            }),
            samples,
            log_factor: 10,
            decay_minutes: 1,
            advice: false,
        });
        // Who is gone is told by events.
        keyspace.add_listener(Listeners::EVENTS);
        let largest = space.weights.iter().max().copied().unwrap_or(0);
        Self {
            space,
            keyspace,
            filler: vec![b'x'; largest as usize],
            held: 0,
        }
    }

    /// Takes what the last lock's events say is gone off what is held.
    fn settle(space: &Space, held: &mut u64, db: &mut Db<'_>) {
        for notice in db.changes.notices.drain(..) {
            if let Notice::Event(event) = notice
                && matches!(event.name, "evicted" | "expired")
                && let Some(object) = object_of(&event.key)
            {
                *held -= space.weight(object);
            }
        }
    }
}

impl Cache for Ferrite {
    fn request(&mut self, request: &Request) -> bool {
        let Self {
            space,
            keyspace,
            filler,
            held,
        } = self;
        let now = Timestamp(START_MS + request.at_ms as i64);
        let mut db = Db::new(keyspace, 0, now);
        let name = name_of(request.object);
        let key = Key::new(&name);
        db.lock(key.hash);
        let hit = db.get(key).is_some();
        db.settle_met();
        db.unlock();
        Self::settle(space, held, &mut db);
        let weight = space.weight(request.object);
        if hit || weight > space.capacity {
            return hit;
        }
        let mut patience = PATIENCE;
        while *held + weight > space.capacity && patience > 0 {
            match evict(&mut db) {
                Outcome::Evicted => Self::settle(space, held, &mut db),
                Outcome::Busy => patience -= 1,
                Outcome::Nothing => break,
            }
        }
        let deadline =
            (request.ttl > 0).then(|| Timestamp(now.millis() + i64::from(request.ttl) * 1000));
        let size = match space.unit {
            Unit::Objects => 1,
            Unit::Bytes => weight.saturating_sub(u64::from(KEY_BYTES)) as usize,
        };
        db.lock(key.hash);
        db.put_bytes(
            key,
            &filler[..size],
            Meta {
                deadline,
                ..Meta::default()
            },
        );
        db.unlock();
        *held += weight;
        false
    }
}

/// The key on the wire.
pub(crate) fn name_of(object: u32) -> [u8; KEY_BYTES as usize] {
    let mut name = *b"obj:0000000000000000";
    let mut rest = object;
    for digit in name.iter_mut().rev().take(8) {
        *digit = b"0123456789abcdef"[(rest & 15) as usize];
        rest >>= 4;
    }
    name
}

fn object_of(name: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(name.get(12..)?).ok()?;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_object() {
        for object in [0, 1, 0xabc, u32::MAX] {
            assert_eq!(object_of(&name_of(object)), Some(object));
        }
        assert_eq!(&name_of(0xabc), b"obj:0000000000000abc");
    }
}
