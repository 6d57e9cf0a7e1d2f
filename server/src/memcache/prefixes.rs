//! `stats detail`: requests counted by the part of their keys before the first `:`, while that is turned on.

use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;
use protocol::memcache::response::ResponseWriter;

/// What ends a prefix.
const DELIMITER: u8 = b':';
/// Prefixes counted; the requests of any more are not.
const MAX_PREFIXES: usize = 10_000;

/// The counts.
#[derive(Default)]
pub struct Prefixes {
    on: AtomicBool,
    counts: Mutex<HashMap<Box<[u8]>, Counts>>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    gets: u64,
    hits: u64,
    sets: u64,
    deletes: u64,
}

impl Prefixes {
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub(super) fn turn(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    pub(super) fn note_get(&self, key: &[u8], found: bool) {
        self.note(key, |counts| {
            counts.gets += 1;
            counts.hits += u64::from(found);
        });
    }

    pub(super) fn note_set(&self, key: &[u8]) {
        self.note(key, |counts| counts.sets += 1);
    }

    pub(super) fn note_delete(&self, key: &[u8]) {
        self.note(key, |counts| counts.deletes += 1);
    }

    fn note(&self, key: &[u8], count: impl FnOnce(&mut Counts)) {
        if !self.is_on() {
            return;
        }
        let Some(len) = key.iter().position(|&byte| byte == DELIMITER) else {
            return;
        };
        let prefix = &key[..len];
        let mut counts = self.counts.lock();
        if let Some(known) = counts.get_mut(prefix) {
            count(known);
        } else if counts.len() < MAX_PREFIXES {
            count(counts.entry(prefix.into()).or_default());
        }
    }

    /// Writes `PREFIX name get 1 hit 0 set 0 del 0` for each.
    pub(super) fn dump(&self, answer: &mut ResponseWriter<'_>) {
        for (prefix, counts) in self.counts.lock().iter() {
            let Counts {
                gets,
                hits,
                sets,
                deletes,
            } = counts;
            let name = super::watch::Encoded(prefix);
            answer.line(&format!(
                "PREFIX {name} get {gets} hit {hits} set {sets} del {deletes}"
            ));
        }
    }
}
