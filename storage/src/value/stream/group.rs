//! Consumer groups: how far a group has read, and what its consumers have not acknowledged.
//!
//! A group's pending entries lie in one map by ID; each consumer has the IDs of its own beside, so that its history and
//! its count are found without a search. All maps are cheap to clone.

use std::sync::Arc;

use super::Id;
use crate::value::ordered::OrderedMap;

/// A consumer's or group's name, shared by all that mention it.
pub type Name = Arc<[u8]>;

#[derive(Clone)]
pub struct Group {
    pub last_id: Id,
    /// How many entries it has read since the stream began; none if that cannot be told.
    pub entries_read: Option<u64>,
    pending: OrderedMap<Id, Pending>,
    consumers: OrderedMap<Name, Consumer>,
}

/// An entry that was delivered and not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub consumer: Name,
    pub delivered_ms: i64,
    pub deliveries: u64,
}

#[derive(Clone)]
pub struct Consumer {
    /// When it last tried to read.
    pub seen_ms: i64,
    /// When it last got something; none if never.
    pub active_ms: Option<i64>,
    pending: OrderedMap<Id, ()>,
}

impl Consumer {
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// Its pending entries from an ID on.
    pub fn pending_from(&self, start: Id) -> impl Iterator<Item = Id> + '_ {
        self.pending.range_from(&start).map(|(id, ())| *id)
    }
}

impl Group {
    pub fn new(last_id: Id, entries_read: Option<u64>) -> Group {
        Group {
            last_id,
            entries_read,
            pending: OrderedMap::new(),
            consumers: OrderedMap::new(),
        }
    }

    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    pub fn pending(&self, id: Id) -> Option<&Pending> {
        self.pending.get(&id)
    }

    /// The pending entries from an ID on.
    pub fn pending_from(&self, start: Id) -> impl Iterator<Item = (Id, &Pending)> {
        self.pending
            .range_from(&start)
            .map(|(id, pending)| (*id, pending))
    }

    pub fn last_pending(&self) -> Option<Id> {
        self.pending.last().map(|(id, _)| *id)
    }

    pub fn consumers_len(&self) -> usize {
        self.consumers.len()
    }

    /// By name.
    pub fn consumers(&self) -> impl Iterator<Item = (&Name, &Consumer)> {
        self.consumers.iter()
    }

    pub fn consumer(&self, name: &[u8]) -> Option<&Consumer> {
        self.consumers.get(name)
    }

    /// Adds a consumer; false if it is there.
    pub fn create_consumer(&mut self, name: &[u8], seen_ms: i64) -> bool {
        if self.consumers.contains(name) {
            return false;
        }
        let consumer = Consumer {
            seen_ms,
            active_ms: None,
            pending: OrderedMap::new(),
        };
        self.consumers.insert(name.into(), consumer);
        true
    }

    /// Deletes a consumer with its pending entries; returns how many they were.
    pub fn delete_consumer(&mut self, name: &[u8]) -> Option<usize> {
        let consumer = self.consumers.remove(name)?;
        for (id, ()) in consumer.pending.iter() {
            self.pending.remove(id);
        }
        Some(consumer.pending_len())
    }

    /// The consumer tried to read, and `active` says whether it got something.
    pub fn saw(&mut self, name: &[u8], now_ms: i64, active: bool) {
        self.consumers.update(name, |consumer| {
            consumer.seen_ms = now_ms;
            if active {
                consumer.active_ms = Some(now_ms);
            }
        });
    }

    /// Sets when a consumer was seen and active, as a file says.
    pub fn set_times(&mut self, name: &[u8], seen_ms: i64, active_ms: Option<i64>) {
        self.consumers.update(name, |consumer| {
            consumer.seen_ms = seen_ms;
            consumer.active_ms = active_ms;
        });
    }

    /// Makes an entry pending for a consumer that exists, taking it from whoever had it.
    pub fn assign(&mut self, id: Id, name: &[u8], delivered_ms: i64, deliveries: u64) {
        let consumer: Name = match self.pending.get(&id) {
            Some(pending) if *pending.consumer == *name => pending.consumer.clone(),
            _ => name.into(),
        };
        let pending = Pending {
            consumer,
            delivered_ms,
            deliveries,
        };
        if let Some(before) = self.pending.insert(id, pending) {
            if *before.consumer == *name {
                return;
            }
            self.forget(id, &before.consumer);
        }
        self.consumers
            .update(name, |consumer| consumer.pending.insert(id, ()));
    }

    /// Acknowledges an entry; false if it was not pending.
    pub fn acknowledge(&mut self, id: Id) -> bool {
        let Some(pending) = self.pending.remove(&id) else {
            return false;
        };
        self.forget(id, &pending.consumer);
        true
    }

    fn forget(&mut self, id: Id, consumer: &[u8]) {
        self.consumers
            .update(consumer, |consumer| consumer.pending.remove(&id));
    }

    /// About how many bytes it takes outside itself. O(1).
    pub(super) fn memory_bytes(&self) -> usize {
        // An ID in its consumer's map, and a name with its counts.
        const OWN_ID: usize = 24;
        const NAME: usize = 32;
        self.pending.node_bytes()
            + self.pending.len() * OWN_ID
            + self.consumers.node_bytes()
            + self.consumers.len() * NAME
    }
}
