//! The policies of one queue: FIFO, LRU, CLOCK and SIEVE.
//!
//! They differ in what a hit does and in where the next victim is looked for.

use super::links::{Links, Queue};
use super::{Cache, Space};
use crate::strategies::trace::Request;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The oldest goes.
    Fifo,
    /// A hit makes an object the newest.
    Lru,
    /// The oldest goes unless it was hit, which makes it the newest instead.
    Clock,
    /// The next one that was not hit goes; a hand walks from the oldest to the newest and takes marks away.
    Sieve,
}

pub(super) struct OneQueue {
    order: Order,
    space: Space,
    links: Links,
    queue: Queue,
    present: Vec<bool>,
    visited: Vec<bool>,
    hand: Option<u32>,
}

impl OneQueue {
    pub(super) fn new(order: Order, space: Space) -> Self {
        let objects = space.objects();
        Self {
            order,
            space,
            links: Links::new(objects),
            queue: Queue::EMPTY,
            present: vec![false; objects],
            visited: vec![false; objects],
            hand: None,
        }
    }

    fn hit(&mut self, object: u32) {
        match self.order {
            Order::Fifo => {}
            Order::Lru => self.renew(object),
            Order::Clock | Order::Sieve => self.visited[object as usize] = true,
        }
    }

    fn renew(&mut self, object: u32) {
        let weight = self.space.weight(object);
        self.queue.remove(&mut self.links, object, weight);
        self.queue.push(&mut self.links, object, weight);
    }

    fn evict(&mut self) {
        let victim = match self.order {
            Order::Fifo | Order::Lru => self.queue.oldest(),
            Order::Clock => self.clock_victim(),
            Order::Sieve => self.sieve_victim(),
        };
        let victim = victim.expect("something is there while it is over the capacity");
        let weight = self.space.weight(victim);
        self.queue.remove(&mut self.links, victim, weight);
        self.present[victim as usize] = false;
    }

    fn clock_victim(&mut self) -> Option<u32> {
        loop {
            let oldest = self.queue.oldest()?;
            if !std::mem::take(&mut self.visited[oldest as usize]) {
                return Some(oldest);
            }
            self.renew(oldest);
        }
    }

    fn sieve_victim(&mut self) -> Option<u32> {
        let mut at = self.hand.or(self.queue.oldest())?;
        while std::mem::take(&mut self.visited[at as usize]) {
            at = self.links.newer(at).or(self.queue.oldest())?;
        }
        self.hand = self.links.newer(at);
        Some(at)
    }
}

impl Cache for OneQueue {
    fn request(&mut self, request: &Request) -> bool {
        let object = request.object;
        if self.present[object as usize] {
            self.hit(object);
            return true;
        }
        let weight = self.space.weight(object);
        if weight > self.space.capacity {
            return false;
        }
        while self.queue.weight + weight > self.space.capacity {
            self.evict();
        }
        self.queue.push(&mut self.links, object, weight);
        self.present[object as usize] = true;
        self.visited[object as usize] = false;
        false
    }
}
