//! W-TinyLFU: newcomers pass a small window; what falls out of it enters the main part only if it was used more often
//! than what would have to go from there. The main part is a segmented LRU.
//!
//! Einziger et al., TinyLFU: A highly efficient cache admission policy (2017). A hundredth for the window, a fifth of
//! the rest on probation. Uses are counted exactly here, for every object; all are halved now and then.

use super::links::{Links, Queue};
use super::{Cache, Space};
use crate::strategies::trace::Request;

/// Counts between two halvings, for each unit of the main part's capacity.
const PERIOD: u64 = 32;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    Window,
    Probation,
    Protected,
}

pub(super) struct TinyLfu {
    space: Space,
    links: Links,
    window: Queue,
    probation: Queue,
    protected: Queue,
    places: Vec<Place>,
    uses: Vec<u16>,
    counted: u64,
    window_capacity: u64,
    probation_capacity: u64,
    protected_capacity: u64,
}

impl TinyLfu {
    pub(super) fn new(space: Space) -> Self {
        let window_capacity = space.share(0.01);
        let main_capacity = space.capacity - window_capacity;
        let probation_capacity = main_capacity / 5;
        Self {
            links: Links::new(space.objects()),
            window: Queue::EMPTY,
            probation: Queue::EMPTY,
            protected: Queue::EMPTY,
            places: vec![Place::Nowhere; space.objects()],
            uses: vec![0; space.objects()],
            counted: 0,
            window_capacity,
            probation_capacity,
            protected_capacity: main_capacity - probation_capacity,
            space,
        }
    }

    fn main_has_room(&self, object: u32) -> bool {
        let held = self.probation.weight + self.protected.weight;
        held + self.space.weight(object) <= self.main_capacity()
    }

    fn main_capacity(&self) -> u64 {
        self.probation_capacity + self.protected_capacity
    }

    fn count(&mut self, object: u32) {
        let uses = &mut self.uses[object as usize];
        *uses = uses.saturating_add(1);
        self.counted += 1;
        if self.counted >= PERIOD * self.main_capacity() {
            self.counted = 0;
            self.uses.iter_mut().for_each(|uses| *uses /= 2);
        }
    }

    fn put(&mut self, object: u32, place: Place) {
        let weight = self.space.weight(object);
        let links = &mut self.links;
        match place {
            Place::Window => self.window.push(links, object, weight),
            Place::Probation => self.probation.push(links, object, weight),
            Place::Protected => self.protected.push(links, object, weight),
            Place::Nowhere => {}
        }
        self.places[object as usize] = place;
    }

    fn take(&mut self, object: u32) -> Place {
        let weight = self.space.weight(object);
        let links = &mut self.links;
        let place = std::mem::replace(&mut self.places[object as usize], Place::Nowhere);
        match place {
            Place::Window => self.window.remove(links, object, weight),
            Place::Probation => self.probation.remove(links, object, weight),
            Place::Protected => self.protected.remove(links, object, weight),
            Place::Nowhere => {}
        }
        place
    }

    /// A use within the main part protects an object; what that displaces is on probation again.
    fn protect(&mut self, object: u32) {
        self.take(object);
        self.put(object, Place::Protected);
        while self.protected.weight > self.protected_capacity {
            let oldest = self.protected.oldest().expect("something weighs too much");
            self.take(oldest);
            self.put(oldest, Place::Probation);
        }
    }

    /// Into the main part, which has room for it.
    fn enter(&mut self, object: u32) {
        let weight = self.space.weight(object);
        let fits = |queue: &Queue, capacity: u64| queue.weight + weight <= capacity;
        let to_protected = !fits(&self.probation, self.probation_capacity)
            && fits(&self.protected, self.protected_capacity);
        self.put(
            object,
            if to_protected {
                Place::Protected
            } else {
                Place::Probation
            },
        );
    }

    /// Lets one object go, moving others from the window into the main part while that has room.
    fn evict(&mut self) {
        loop {
            let main_victim = self.probation.oldest().or(self.protected.oldest());
            let Some(candidate) = self.window.oldest() else {
                let victim = main_victim.expect("something is there while it is over the capacity");
                self.take(victim);
                return;
            };
            self.take(candidate);
            let enters_freely = self.main_has_room(candidate);
            let uses = |object: u32| self.uses[object as usize];
            let displaces = main_victim.is_some_and(|victim| uses(candidate) > uses(victim));
            if enters_freely {
                self.enter(candidate);
            } else if displaces {
                while !self.main_has_room(candidate)
                    && let Some(victim) = self.probation.oldest().or(self.protected.oldest())
                {
                    self.take(victim);
                }
                self.enter(candidate);
            }
            self.count(candidate);
            if !enters_freely {
                return;
            }
        }
    }
}

impl Cache for TinyLfu {
    fn request(&mut self, request: &Request) -> bool {
        let object = request.object;
        match self.places[object as usize] {
            Place::Window => {
                self.take(object);
                self.put(object, Place::Window);
                return true;
            }
            Place::Probation | Place::Protected => {
                self.protect(object);
                self.count(object);
                return true;
            }
            Place::Nowhere => {}
        }
        let weight = self.space.weight(object);
        if weight > self.window_capacity {
            return false;
        }
        let held =
            |cache: &Self| cache.window.weight + cache.probation.weight + cache.protected.weight;
        while held(self) + weight > self.space.capacity {
            self.evict();
        }
        self.put(object, Place::Window);
        self.count(object);
        false
    }
}
