//! Belady's rule: the object whose next use is farthest away goes. Nobody can know that; it shows what is possible.

use std::collections::BTreeSet;

use super::{Cache, Space};
use crate::strategies::trace::Request;

pub(super) struct Belady {
    space: Space,
    /// For each request the next one for its object.
    next_uses: std::sync::Arc<[u32]>,
    /// Requests seen.
    seen: usize,
    /// When each object that is there is used next.
    due: Vec<Option<u32>>,
    order: BTreeSet<(u32, u32)>,
    held: u64,
}

impl Belady {
    pub(super) fn new(space: Space, next_uses: std::sync::Arc<[u32]>) -> Self {
        Self {
            next_uses,
            seen: 0,
            due: vec![None; space.objects()],
            order: BTreeSet::new(),
            held: 0,
            space,
        }
    }
}

impl Cache for Belady {
    fn request(&mut self, request: &Request) -> bool {
        let object = request.object;
        let next = self.next_uses[self.seen];
        self.seen += 1;
        let weight = self.space.weight(object);
        let old = self.due[object as usize];
        if let Some(old) = old {
            self.order.remove(&(old, object));
        } else {
            if weight > self.space.capacity {
                return false;
            }
            while self.held + weight > self.space.capacity {
                let (_, victim) = self.order.pop_last().expect("something is there");
                self.due[victim as usize] = None;
                self.held -= self.space.weight(victim);
            }
            self.held += weight;
        }
        self.due[object as usize] = Some(next);
        self.order.insert((next, object));
        old.is_some()
    }
}
