//! W-TinyLFU: newcomers pass a small window; what falls out of it enters the main part only if it was used more often
//! than what would have to go from there. The main part is a segmented LRU.
//!
//! Einziger et al., TinyLFU: A highly efficient cache admission policy (2017). A hundredth for the window, a fifth of
//! the rest on probation. Uses are counted by a filter of counters that objects share, all of which are halved after so many
//! hits in the main part.

use super::links::{Links, Queue};
use super::{Cache, Space};
use crate::strategies::trace::Request;

/// Hits in the main part between two halvings, for each unit of its capacity.
const PERIOD: u64 = 32;
/// Counters for each unit of the main part's capacity, and how many of them stand for an object: one object in a
/// thousand is taken for another then.
const COUNTERS_PER_UNIT: f64 = 14.38;
const ROWS: u64 = 10;
/// With so many counters for each object of a trace, objects might as well have their own.
const PLENTY: u64 = 64;

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
    counts: Counts,
    main_hits: u64,
    window_capacity: u64,
    probation_capacity: u64,
    protected_capacity: u64,
    main_capacity: u64,
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
            counts: Counts::new(space.objects(), main_capacity),
            main_hits: 0,
            window_capacity,
            probation_capacity,
            protected_capacity: main_capacity * 4 / 5,
            main_capacity,
            space,
        }
    }

    fn main_has_room(&self, object: u32) -> bool {
        let held = self.probation.weight + self.protected.weight;
        held + self.space.weight(object) <= self.main_capacity
    }

    fn note_main_hit(&mut self, object: u32) {
        self.counts.add(object);
        self.main_hits += 1;
        if self.main_hits >= PERIOD * self.main_capacity {
            self.main_hits = 0;
            self.counts.halve();
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

    /// A use within the main part protects an object; what that displaces is on probation again, and what that
    /// displaces goes.
    fn protect(&mut self, object: u32) {
        let was_protected = self.take(object) == Place::Protected;
        self.put(object, Place::Protected);
        if was_protected {
            return;
        }
        while self.protected.weight > self.protected_capacity {
            let oldest = self.protected.oldest().expect("something weighs too much");
            self.take(oldest);
            self.put(oldest, Place::Probation);
        }
        while self.probation.weight > self.probation_capacity {
            let oldest = self.probation.oldest().expect("something weighs too much");
            self.take(oldest);
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
            let uses = |object: u32| self.counts.of(object);
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
            self.counts.add(candidate);
            if !enters_freely {
                return;
            }
        }
    }
}

/// How often objects were used of late.
struct Counts {
    counters: Vec<u32>,
    /// Counters that stand for an object; with 1 each object has its own.
    rows: u64,
}

impl Counts {
    fn new(objects: usize, main_capacity: u64) -> Self {
        let wanted = (main_capacity as f64 * COUNTERS_PER_UNIT).ceil() as u64;
        let shared = wanted < PLENTY * objects as u64;
        Self {
            counters: vec![
                0;
                if shared {
                    wanted.max(2 * ROWS) as usize
                } else {
                    objects
                }
            ],
            rows: if shared { ROWS } else { 1 },
        }
    }

    fn add(&mut self, object: u32) {
        for row in 0..self.rows {
            let place = self.place(object, row);
            self.counters[place] = self.counters[place].saturating_add(1);
        }
    }

    fn of(&self, object: u32) -> u32 {
        (0..self.rows)
            .map(|row| self.counters[self.place(object, row)])
            .min()
            .unwrap_or(0)
    }

    fn halve(&mut self) {
        self.counters.iter_mut().for_each(|count| *count /= 2);
    }

    fn place(&self, object: u32, row: u64) -> usize {
        if self.rows == 1 {
            return object as usize;
        }
        let mixed = (u64::from(object) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let (one, other) = (mixed & 0xffff_ffff, mixed >> 32 | 1);
        ((one + row * other) % self.counters.len() as u64) as usize
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
                self.note_main_hit(object);
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
        self.counts.add(object);
        false
    }
}
