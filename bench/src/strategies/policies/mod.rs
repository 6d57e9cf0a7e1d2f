//! The policies that are compared: Ferrite's own code, and the textbook's as references.
//!
//! References are exact where Ferrite samples: they keep queues and orders over all objects, which a server cannot
//! afford, and so show what a policy could reach.

mod arc;
mod belady;
pub(crate) mod ferrite;
mod lfu;
mod links;
mod queues;
mod s3_fifo;
mod tiny_lfu;

use std::sync::Arc;

use storage::eviction::Ranking;

use self::queues::Order;
use super::trace::{KEY_BYTES, Request, Trace};

/// A cache under one policy.
pub(crate) trait Cache {
    /// Asks for an object and, if it is not there, puts it. Whether it was there.
    fn request(&mut self, request: &Request) -> bool;
}

/// What objects weigh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Each the same.
    Objects,
    /// Key and value.
    Bytes,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Unit::Objects => "objects",
            Unit::Bytes => "bytes",
        }
    }
}

/// How much a cache may hold.
#[derive(Clone)]
pub(crate) struct Space {
    pub(crate) unit: Unit,
    pub(crate) capacity: u64,
    weights: Arc<[u32]>,
}

impl Space {
    /// Room for `fraction` of all objects of a trace.
    pub(crate) fn of(trace: &Trace, unit: Unit, fraction: f64) -> Self {
        let weights: Arc<[u32]> = match unit {
            Unit::Objects => vec![1; trace.objects()].into(),
            Unit::Bytes => trace.sizes.iter().map(|size| size + KEY_BYTES).collect(),
        };
        let all: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        Self {
            unit,
            capacity: (all as f64 * fraction) as u64,
            weights,
        }
    }

    /// The same objects, with another capacity.
    pub(crate) fn resized(&self, fraction: f64) -> Self {
        let all: u64 = self.weights.iter().map(|&weight| u64::from(weight)).sum();
        Self {
            capacity: (all as f64 * fraction) as u64,
            ..self.clone()
        }
    }

    fn objects(&self) -> usize {
        self.weights.len()
    }

    fn weight(&self, object: u32) -> u64 {
        u64::from(self.weights[object as usize])
    }

    fn share(&self, part: f64) -> u64 {
        (self.capacity as f64 * part) as u64
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ferrite(Ranking),
    Lru,
    Lfu,
    Fifo,
    Clock,
    Sieve,
    S3Fifo,
    TinyLfu,
    Arc,
    Belady,
}

/// Names as they appear in tables and after `--policies`.
pub(crate) const ALL: &[(&str, Kind)] = &[
    ("ferrite-lru", Kind::Ferrite(Ranking::Lru)),
    ("ferrite-lfu", Kind::Ferrite(Ranking::Lfu)),
    ("ferrite-s3fifo", Kind::Ferrite(Ranking::S3Fifo)),
    ("ferrite-sieve", Kind::Ferrite(Ranking::Sieve)),
    ("ferrite-tinylfu", Kind::Ferrite(Ranking::TinyLfu)),
    ("ferrite-random", Kind::Ferrite(Ranking::Random)),
    ("lru", Kind::Lru),
    ("lfu", Kind::Lfu),
    ("fifo", Kind::Fifo),
    ("clock", Kind::Clock),
    ("sieve", Kind::Sieve),
    ("s3fifo", Kind::S3Fifo),
    ("tinylfu", Kind::TinyLfu),
    ("arc", Kind::Arc),
    ("belady", Kind::Belady),
];

pub(crate) fn named(name: &str) -> Option<Kind> {
    ALL.iter()
        .find(|(known, _)| *known == name)
        .map(|(_, kind)| *kind)
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        ALL.iter()
            .find(|(_, kind)| *kind == self)
            .map_or("?", |(name, _)| name)
    }

    /// An empty cache. `next_uses` are the trace's; `samples` is Ferrite's `maxmemory-samples`.
    pub(crate) fn cache(
        self,
        space: Space,
        next_uses: &Arc<[u32]>,
        samples: usize,
    ) -> Box<dyn Cache> {
        let queue = |order| Box::new(queues::OneQueue::new(order, space.clone()));
        match self {
            Kind::Ferrite(ranking) => {
                Box::new(ferrite::Ferrite::new(space.clone(), ranking, samples))
            }
            Kind::Lru => queue(Order::Lru),
            Kind::Fifo => queue(Order::Fifo),
            Kind::Clock => queue(Order::Clock),
            Kind::Sieve => queue(Order::Sieve),
            Kind::Lfu => Box::new(lfu::Lfu::new(space.clone())),
            Kind::S3Fifo => Box::new(s3_fifo::S3Fifo::new(space.clone())),
            Kind::TinyLfu => Box::new(tiny_lfu::TinyLfu::new(space.clone())),
            Kind::Arc => Box::new(arc::Arc::new(space.clone())),
            Kind::Belady => Box::new(belady::Belady::new(space.clone(), Arc::clone(next_uses))),
        }
    }
}
