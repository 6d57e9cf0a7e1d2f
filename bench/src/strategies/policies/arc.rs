//! ARC: a queue of objects used once and one of objects used again, whose shares follow which of their ghosts return.
//!
//! Megiddo and Modha, ARC: A Self-Tuning, Low Overhead Replacement Cache (FAST 2003), with weights for sizes.

use super::links::{Links, Queue};
use super::{Cache, Space};
use crate::strategies::trace::Request;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    Once,
    Again,
    OnceGhost,
    AgainGhost,
}

pub(super) struct Arc {
    space: Space,
    links: Links,
    once: Queue,
    again: Queue,
    once_ghosts: Queue,
    again_ghosts: Queue,
    places: Vec<Place>,
    /// What `once` should weigh.
    target: u64,
}

impl Arc {
    pub(super) fn new(space: Space) -> Self {
        Self {
            links: Links::new(space.objects()),
            once: Queue::EMPTY,
            again: Queue::EMPTY,
            once_ghosts: Queue::EMPTY,
            again_ghosts: Queue::EMPTY,
            places: vec![Place::Nowhere; space.objects()],
            target: 0,
            space,
        }
    }

    fn queue(&mut self, place: Place) -> Option<&mut Queue> {
        match place {
            Place::Nowhere => None,
            Place::Once => Some(&mut self.once),
            Place::Again => Some(&mut self.again),
            Place::OnceGhost => Some(&mut self.once_ghosts),
            Place::AgainGhost => Some(&mut self.again_ghosts),
        }
    }

    fn move_to(&mut self, object: u32, place: Place) {
        let weight = self.space.weight(object);
        let old = std::mem::replace(&mut self.places[object as usize], place);
        let mut links = std::mem::replace(&mut self.links, Links::new(0));
        if let Some(queue) = self.queue(old) {
            queue.remove(&mut links, object, weight);
        }
        if let Some(queue) = self.queue(place) {
            queue.push(&mut links, object, weight);
        }
        self.links = links;
    }

    fn adapt(&mut self, ghost: Place, weight: u64) {
        let ratio = |one: u64, other: u64| (one / other.max(1)).max(1) * weight;
        let (once, again) = (self.once_ghosts.weight, self.again_ghosts.weight);
        self.target = match ghost {
            Place::OnceGhost => (self.target + ratio(again, once)).min(self.space.capacity),
            _ => self.target.saturating_sub(ratio(once, again)),
        };
    }

    /// Lets one object go, leaving a ghost.
    fn evict(&mut self, for_again_ghost: bool) {
        let over_target =
            self.once.weight > self.target || for_again_ghost && self.once.weight == self.target;
        let from_once = self.once.len > 0 && (over_target || self.again.len == 0);
        let (victim, ghost) = if from_once {
            (self.once.oldest(), Place::OnceGhost)
        } else {
            (self.again.oldest(), Place::AgainGhost)
        };
        let victim = victim.expect("something is there while it is over the capacity");
        self.move_to(victim, ghost);
    }

    /// Forgets ghosts: as much is remembered as is held, and of `once` with its ghosts no more than the capacity.
    fn forget(&mut self, weight: u64) {
        let capacity = self.space.capacity;
        while self.once.weight + self.once_ghosts.weight + weight > capacity {
            let Some(oldest) = self.once_ghosts.oldest() else {
                break;
            };
            self.move_to(oldest, Place::Nowhere);
        }
        let all = |cache: &Self| {
            let held = cache.once.weight + cache.again.weight;
            held + cache.once_ghosts.weight + cache.again_ghosts.weight
        };
        while all(self) + weight > 2 * capacity {
            let Some(oldest) = self.again_ghosts.oldest() else {
                break;
            };
            self.move_to(oldest, Place::Nowhere);
        }
    }
}

impl Cache for Arc {
    fn request(&mut self, request: &Request) -> bool {
        let object = request.object;
        let place = self.places[object as usize];
        if matches!(place, Place::Once | Place::Again) {
            self.move_to(object, Place::Again);
            return true;
        }
        let weight = self.space.weight(object);
        if weight > self.space.capacity {
            return false;
        }
        let is_ghost = place != Place::Nowhere;
        if is_ghost {
            self.adapt(place, weight);
            self.move_to(object, Place::Nowhere);
        }
        while self.once.weight + self.again.weight + weight > self.space.capacity {
            self.evict(place == Place::AgainGhost);
        }
        if !is_ghost {
            self.forget(weight);
        }
        self.move_to(object, if is_ghost { Place::Again } else { Place::Once });
        false
    }
}
