//! LFU without decay: the object with the fewest uses since it came goes, among equals the one that has them longest.

use std::collections::BTreeMap;

use super::links::{Links, Queue};
use super::{Cache, Space};
use crate::strategies::trace::Request;

pub(super) struct Lfu {
    space: Space,
    links: Links,
    /// Objects by the number of their uses.
    queues: BTreeMap<u32, Queue>,
    /// Of each object that is there; 0 for the others.
    uses: Vec<u32>,
    held: u64,
}

impl Lfu {
    pub(super) fn new(space: Space) -> Self {
        Self {
            links: Links::new(space.objects()),
            queues: BTreeMap::new(),
            uses: vec![0; space.objects()],
            held: 0,
            space,
        }
    }

    fn take(&mut self, object: u32) {
        let uses = self.uses[object as usize];
        let weight = self.space.weight(object);
        let queue = self.queues.get_mut(&uses).expect("it is in that queue");
        queue.remove(&mut self.links, object, weight);
        if queue.len == 0 {
            self.queues.remove(&uses);
        }
    }

    fn put(&mut self, object: u32, uses: u32) {
        let weight = self.space.weight(object);
        self.uses[object as usize] = uses;
        let queue = self.queues.entry(uses).or_insert(Queue::EMPTY);
        queue.push(&mut self.links, object, weight);
    }
}

impl Cache for Lfu {
    fn request(&mut self, request: &Request) -> bool {
        let object = request.object;
        let uses = self.uses[object as usize];
        if uses > 0 {
            self.take(object);
            self.put(object, uses.saturating_add(1));
            return true;
        }
        let weight = self.space.weight(object);
        if weight > self.space.capacity {
            return false;
        }
        while self.held + weight > self.space.capacity {
            let least = self.queues.values().next().and_then(Queue::oldest);
            let victim = least.expect("something is there while it is over the capacity");
            self.take(victim);
            self.uses[victim as usize] = 0;
            self.held -= self.space.weight(victim);
        }
        self.held += weight;
        self.put(object, 1);
        false
    }
}
