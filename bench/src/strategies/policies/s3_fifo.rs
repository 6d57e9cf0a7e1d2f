//! S3-FIFO with real queues: a small one for newcomers, a main one, and ghosts of those that went from the small one.
//!
//! Yang et al., FIFO queues are all you need for cache eviction (SOSP 2023); a tenth for newcomers, two uses to be kept,
//! ghosts of nine tenths of the capacity.

use super::links::{Links, Queue};
use super::{Cache, Space};
use crate::strategies::trace::Request;

const USES_TO_STAY: u8 = 2;
const MAX_USES: u8 = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    Small,
    Main,
    Ghost,
}

pub(super) struct S3Fifo {
    space: Space,
    links: Links,
    small: Queue,
    main: Queue,
    ghosts: Queue,
    places: Vec<Place>,
    uses: Vec<u8>,
    small_capacity: u64,
    has_evicted: bool,
}

impl S3Fifo {
    pub(super) fn new(space: Space) -> Self {
        Self {
            links: Links::new(space.objects()),
            small: Queue::EMPTY,
            main: Queue::EMPTY,
            ghosts: Queue::EMPTY,
            places: vec![Place::Nowhere; space.objects()],
            uses: vec![0; space.objects()],
            small_capacity: space.share(0.1),
            has_evicted: false,
            space,
        }
    }

    fn put(&mut self, object: u32, place: Place) {
        let weight = self.space.weight(object);
        let links = &mut self.links;
        match place {
            Place::Small => self.small.push(links, object, weight),
            Place::Main => self.main.push(links, object, weight),
            Place::Ghost => self.ghosts.push(links, object, weight),
            Place::Nowhere => {}
        }
        self.places[object as usize] = place;
    }

    fn take(&mut self, object: u32) -> Place {
        let weight = self.space.weight(object);
        let links = &mut self.links;
        let place = std::mem::replace(&mut self.places[object as usize], Place::Nowhere);
        match place {
            Place::Small => self.small.remove(links, object, weight),
            Place::Main => self.main.remove(links, object, weight),
            Place::Ghost => self.ghosts.remove(links, object, weight),
            Place::Nowhere => {}
        }
        place
    }

    fn evict(&mut self) {
        self.has_evicted = true;
        if self.main.weight > self.space.capacity - self.small_capacity || self.small.len == 0 {
            self.evict_main();
        } else {
            self.evict_small();
        }
    }

    fn evict_small(&mut self) {
        while let Some(oldest) = self.small.oldest() {
            self.take(oldest);
            if self.uses[oldest as usize] < USES_TO_STAY {
                self.remember(oldest);
                return;
            }
            self.uses[oldest as usize] = 0;
            self.put(oldest, Place::Main);
        }
    }

    fn evict_main(&mut self) {
        while let Some(oldest) = self.main.oldest() {
            self.take(oldest);
            let uses = &mut self.uses[oldest as usize];
            if *uses == 0 {
                return;
            }
            *uses -= 1;
            self.put(oldest, Place::Main);
        }
    }

    fn remember(&mut self, object: u32) {
        let capacity = self.space.share(0.9);
        let weight = self.space.weight(object);
        if weight > capacity {
            return;
        }
        while self.ghosts.weight + weight > capacity {
            let oldest = self.ghosts.oldest().expect("ghosts weigh something");
            self.take(oldest);
        }
        self.put(object, Place::Ghost);
    }
}

impl Cache for S3Fifo {
    fn request(&mut self, request: &Request) -> bool {
        let object = request.object;
        let place = self.places[object as usize];
        if matches!(place, Place::Small | Place::Main) {
            let uses = &mut self.uses[object as usize];
            *uses = (*uses + 1).min(MAX_USES);
            return true;
        }
        let returns = self.take(object) == Place::Ghost;
        let weight = self.space.weight(object);
        if weight >= self.small_capacity {
            return false;
        }
        while self.small.weight + self.main.weight + weight > self.space.capacity {
            self.evict();
        }
        let trial_is_full = !self.has_evicted && self.small.weight >= self.small_capacity;
        self.uses[object as usize] = 0;
        self.put(
            object,
            if returns || trial_is_full {
                Place::Main
            } else {
                Place::Small
            },
        );
        false
    }
}
