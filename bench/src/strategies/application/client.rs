//! One application thread: its connection to the cache, and how it reads and writes under a strategy.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::super::policies::ferrite::name_of;
use super::super::wire::Wire;
use super::backend::{Backend, Failed, lock};
use super::cached::Cached;
use super::strategy::Strategy;
use crate::Result;
use crate::load::popularity::Random;
use crate::load::reply::Protocol;

/// The part of its life at whose end a value is refreshed ahead.
const REFRESH_PART: u64 = 5;
/// How much times to live differ: up to a quarter less.
const JITTER_PART: u64 = 4;
/// What is not there is believed to stay so for this part of a value's time to live.
const NEGATIVE_PART: u64 = 5;
/// Higher values expire values earlier; 1 is what its inventors recommend.
const EARLINESS: f64 = 1.0;
/// How long a loser of a lease without a value waits between looks.
const LEASE_POLL: Duration = Duration::from_millis(2);
const LEASE_POLLS: usize = 1000;
/// Seconds that a stale value is kept for, so that it can be served.
const STALE_SECONDS: u64 = 60;

/// What all threads of a run share.
pub(super) struct Shared {
    pub(super) strategy: Strategy,
    pub(super) backend: Backend,
    pub(super) cache: SocketAddr,
    pub(super) memcached: Option<SocketAddr>,
    pub(super) ttl_ms: u64,
    pub(super) value_size: usize,
    /// Loads under way, by key.
    flights: Mutex<HashMap<u32, Flight>>,
    landed: Condvar,
    /// Writes that the backend has not seen, by key: how many.
    pub(super) pending: Mutex<HashMap<u32, u64>>,
    /// Versions that clients were told are written but the backend has not seen.
    refreshes: Mutex<Option<Sender<u32>>>,
    refreshing: Mutex<HashMap<u32, Instant>>,
    /// The copies in the client.
    pub(super) near: Mutex<HashMap<u32, Cached>>,
    /// Invalidations so far: a copy that was fetched before one may be old.
    pub(super) invalidations: AtomicU64,
    pub(super) over: AtomicBool,
}

#[derive(Clone, Copy)]
struct Flight {
    waiting: u32,
    /// The outcome once it is there: a version, or nothing, or failure.
    outcome: Option<std::result::Result<Option<u64>, ()>>,
}

impl Shared {
    pub(super) fn new(
        strategy: Strategy,
        backend: Backend,
        cache: SocketAddr,
        memcached: Option<SocketAddr>,
        ttl_ms: u64,
        value_size: usize,
        refreshes: Sender<u32>,
    ) -> Self {
        Self {
            strategy,
            backend,
            cache,
            memcached,
            ttl_ms,
            value_size,
            flights: Mutex::default(),
            landed: Condvar::new(),
            pending: Mutex::default(),
            refreshes: Mutex::new(Some(refreshes)),
            refreshing: Mutex::default(),
            near: Mutex::default(),
            invalidations: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// Ends the refreshers once they have done what was asked of them.
    pub(super) fn close(&self) {
        *lock(&self.refreshes) = None;
        self.over.store(true, Ordering::Relaxed);
    }

    fn uses_leases(&self) -> bool {
        self.strategy == Strategy::StaleWhileRevalidate
    }
}

/// What a read came to.
pub(super) struct Answer {
    pub(super) hit: bool,
    /// `None`: no such key. Failed: neither the cache nor the backend could tell.
    pub(super) version: std::result::Result<Option<u64>, Failed>,
    /// When the client had it.
    pub(super) at: Instant,
}

fn answer(hit: bool, version: std::result::Result<Option<u64>, Failed>) -> Answer {
    Answer {
        hit,
        version,
        at: Instant::now(),
    }
}

pub(super) struct Client<'a> {
    shared: &'a Shared,
    wire: Wire,
    random: Random,
}

impl<'a> Client<'a> {
    pub(super) fn connect(shared: &'a Shared, seed: u64) -> Result<Self> {
        let wire = match shared.memcached {
            Some(target) if shared.uses_leases() => Wire::connect(target, Protocol::Memcached)?,
            _ => Wire::connect(shared.cache, Protocol::Resp)?,
        };
        Ok(Self {
            shared,
            wire,
            random: Random::new(seed),
        })
    }

    /// # Errors
    /// A cache that does not answer; a backend that fails is an answer.
    pub(super) fn read(&mut self, key: u32) -> Result<Answer> {
        match self.shared.strategy {
            Strategy::StaleWhileRevalidate => self.read_with_lease(key),
            Strategy::ClientTracking => self.read_near(key),
            _ => self.read_plain(key),
        }
    }

    fn read_plain(&mut self, key: u32) -> Result<Answer> {
        let strategy = self.shared.strategy;
        let mut early = None;
        if let Some(cached) = self.cached(key)? {
            let left = cached
                .expires_ms
                .saturating_sub(self.shared.backend.now_ms());
            match strategy {
                Strategy::RefreshAhead if left < self.shared.ttl_ms / REFRESH_PART => {
                    self.refresh_later(key);
                }
                Strategy::EarlyExpiry if self.expires_early(&cached, left) => early = Some(cached),
                _ => {}
            }
            if early.is_none() {
                return Ok(answer(true, Ok(cached.version)));
            }
        }
        if strategy == Strategy::WriteBehind && lock(&self.shared.pending).contains_key(&key) {
            // The newest version is with us.
            return Ok(answer(false, Ok(Some(self.pending_version(key)))));
        }
        if strategy == Strategy::SingleFlight {
            return self.fly(key);
        }
        let started = Instant::now();
        match self.shared.backend.load(key) {
            Ok(version) => {
                let stores_first = strategy == Strategy::ReadThrough;
                let before = answer(false, Ok(version));
                self.store(key, version, started.elapsed())?;
                Ok(if stores_first {
                    answer(false, Ok(version))
                } else {
                    before
                })
            }
            // What should have been renewed is still better than nothing.
            Err(Failed) => Ok(match early {
                Some(cached) => answer(true, Ok(cached.version)),
                None => answer(false, Err(Failed)),
            }),
        }
    }

    /// Vattani et al., Optimal Probabilistic Cache Stampede Prevention (2015).
    fn expires_early(&mut self, cached: &Cached, left_ms: u64) -> bool {
        let chance = -(1.0 - self.random.unit()).ln();
        cached.load_ms.max(1) as f64 * EARLINESS * chance >= left_ms as f64
    }

    /// Loads, or waits for who does.
    fn fly(&mut self, key: u32) -> Result<Answer> {
        let shared = self.shared;
        let mut flights = lock(&shared.flights);
        if let Some(flight) = flights.get_mut(&key) {
            flight.waiting += 1;
            loop {
                flights = shared
                    .landed
                    .wait(flights)
                    .unwrap_or_else(|error| error.into_inner());
                let Some(flight) = flights.get_mut(&key) else {
                    return Ok(answer(false, Err(Failed)));
                };
                if let Some(outcome) = flight.outcome {
                    flight.waiting -= 1;
                    if flight.waiting == 0 {
                        flights.remove(&key);
                    }
                    return Ok(answer(false, outcome.map_err(|()| Failed)));
                }
            }
        }
        let flight = Flight {
            waiting: 0,
            outcome: None,
        };
        flights.insert(key, flight);
        drop(flights);
        let started = Instant::now();
        let loaded = shared.backend.load(key);
        let stored = match &loaded {
            Ok(version) => self.store(key, *version, started.elapsed()),
            Err(Failed) => Ok(()),
        };
        let mut flights = lock(&shared.flights);
        if let Some(flight) = flights.get_mut(&key) {
            flight.outcome = Some(loaded.as_ref().copied().map_err(|_| ()));
            if flight.waiting == 0 {
                flights.remove(&key);
            }
        }
        drop(flights);
        shared.landed.notify_all();
        stored?;
        Ok(answer(false, loaded))
    }

    fn read_near(&mut self, key: u32) -> Result<Answer> {
        let shared = self.shared;
        let near = lock(&shared.near).get(&key).copied();
        if let Some(near) = near
            && near.expires_ms > shared.backend.now_ms()
        {
            return Ok(answer(true, Ok(near.version)));
        }
        let seen = shared.invalidations.load(Ordering::SeqCst);
        if let Some(cached) = self.cached(key)? {
            let mut copies = lock(&shared.near);
            // Somebody may have changed it since we asked.
            if shared.invalidations.load(Ordering::SeqCst) == seen {
                copies.insert(key, cached);
            }
            return Ok(answer(true, Ok(cached.version)));
        }
        let started = Instant::now();
        let loaded = shared.backend.load(key);
        let found = answer(false, loaded);
        if let Ok(version) = found.version {
            self.store(key, version, started.elapsed())?;
        }
        Ok(found)
    }

    /// `mg` with vivification and recaching: of those who find nothing, or something old, one wins and loads.
    fn read_with_lease(&mut self, key: u32) -> Result<Answer> {
        let life = (self.shared.ttl_ms / 1000 + STALE_SECONDS).to_string();
        // Whoever comes when only the time for stale values is left renews it.
        let recache = format!("R{STALE_SECONDS}");
        let vivify = format!("N{life}");
        let name = name_of(key);
        for _ in 0..LEASE_POLLS {
            self.wire
                .words(&[b"mg", &name, b"v", vivify.as_bytes(), recache.as_bytes()]);
            self.wire.flush()?;
            let (value, flags) = self.wire.meta_value()?;
            let cached = value.as_deref().and_then(Cached::read);
            let won = flags.split(' ').any(|flag| flag == "W");
            match (cached, won) {
                (Some(cached), won) => {
                    if won {
                        self.refresh_later(key);
                    }
                    return Ok(answer(true, Ok(cached.version)));
                }
                (None, true) => return self.load_with_lease(key),
                (None, false) => thread::sleep(LEASE_POLL),
            }
        }
        Ok(answer(false, Err(Failed)))
    }

    fn load_with_lease(&mut self, key: u32) -> Result<Answer> {
        let started = Instant::now();
        let loaded = self.shared.backend.load(key);
        let found = answer(false, loaded);
        match found.version {
            Ok(version) => self.store(key, version, started.elapsed())?,
            // Lets somebody else win.
            Err(Failed) => self.remove(key)?,
        }
        Ok(found)
    }

    /// False if the backend failed.
    ///
    /// # Errors
    /// A cache that does not answer.
    pub(super) fn write(&mut self, key: u32) -> Result<bool> {
        let shared = self.shared;
        if shared.strategy == Strategy::WriteBehind {
            *lock(&shared.pending).entry(key).or_insert(0) += 1;
            let version = self.pending_version(key);
            self.store(key, Some(version), Duration::ZERO)?;
            return Ok(true);
        }
        let Ok(version) = shared.backend.write(key) else {
            return Ok(false);
        };
        match shared.strategy {
            Strategy::WriteThrough => self.store(key, Some(version), Duration::ZERO)?,
            Strategy::WriteAround => {}
            Strategy::StaleWhileRevalidate => {
                self.wire.words(&[b"md", &name_of(key), b"I", b"T60"]);
                self.wire.flush()?;
                self.wire.text()?;
            }
            _ => self.remove(key)?,
        }
        Ok(true)
    }

    /// The version that a key will have once all that waits is written.
    fn pending_version(&self, key: u32) -> u64 {
        let waiting = lock(&self.shared.pending).get(&key).copied().unwrap_or(0);
        self.shared.backend.newest(key) + waiting
    }

    /// Loads a key and stores it, for refreshers.
    pub(super) fn refresh(&mut self, key: u32) -> Result<()> {
        let started = Instant::now();
        let loaded = self.shared.backend.load(key);
        let stored = match loaded {
            Ok(version) => self.store(key, version, started.elapsed()),
            Err(Failed) => Ok(()),
        };
        lock(&self.shared.refreshing).remove(&key);
        stored
    }

    fn refresh_later(&self, key: u32) {
        let mut refreshing = lock(&self.shared.refreshing);
        if refreshing.insert(key, Instant::now()).is_none()
            && let Some(refreshes) = &*lock(&self.shared.refreshes)
        {
            // They end only after the clients.
            let _ = refreshes.send(key);
        }
    }

    /// Stores a version as it is loaded. What does not exist is remembered by one strategy only.
    pub(super) fn store(&mut self, key: u32, version: Option<u64>, took: Duration) -> Result<()> {
        let shared = self.shared;
        let ttl_ms = match (version, shared.strategy) {
            (None, Strategy::NegativeCaching | Strategy::StaleWhileRevalidate) => {
                shared.ttl_ms / NEGATIVE_PART
            }
            (None, _) => return Ok(()),
            (Some(_), Strategy::TtlJitter) => {
                shared.ttl_ms - self.random.below(shared.ttl_ms / JITTER_PART + 1)
            }
            (Some(_), _) => shared.ttl_ms,
        }
        .max(1);
        let cached = Cached {
            version,
            expires_ms: shared.backend.now_ms() + ttl_ms,
            load_ms: took.as_millis() as u64,
        };
        let value = cached.write(shared.value_size);
        let name = name_of(key);
        if shared.uses_leases() {
            let life = ttl_ms.div_ceil(1000) + STALE_SECONDS;
            self.wire.set(&name, &value, life as u32);
        } else {
            let ttl = ttl_ms.to_string();
            self.wire
                .command(&[b"SET", &name, &value, b"PX", ttl.as_bytes()]);
        }
        self.wire.flush()?;
        self.wire
            .stored()?
            .map_err(|words| format!("the cache refused a value: {words}").into())
    }

    fn remove(&mut self, key: u32) -> Result<()> {
        let name = name_of(key);
        if self.shared.uses_leases() {
            self.wire.words(&[b"md", &name]);
        } else {
            self.wire.command(&[b"DEL", &name]);
        }
        self.wire.flush()?;
        self.wire.text().map(drop)
    }

    fn cached(&mut self, key: u32) -> Result<Option<Cached>> {
        self.wire.get(&name_of(key));
        self.wire.flush()?;
        Ok(self.wire.value()?.as_deref().and_then(Cached::read))
    }
}
