//! The modelled backend: what a cache stands in front of.
//!
//! Calls take a log-normal time, so many run at once and no more, and for a while all fail. Values have versions, so that
//! a reader's answer can be compared with what was true when it asked.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::load::popularity::Random;

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) keys: u32,
    pub(super) latency: Duration,
    /// Of the latency's logarithm.
    pub(super) deviation: f64,
    pub(super) concurrency: u32,
    /// When calls fail, in time since the start.
    pub(super) failure: (Duration, Duration),
}

/// A call that failed.
#[derive(Debug)]
pub(super) struct Failed;

/// A call, by when it began.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) at_ms: u64,
    pub(super) key: u32,
    pub(super) loads: bool,
}

pub(super) struct Backend {
    model: Model,
    pub(super) started: Instant,
    /// When each version of each key was written, in milliseconds since the start; the first one at 0.
    versions: Vec<Mutex<Vec<u64>>>,
    /// Permits left.
    free: Mutex<u32>,
    freed: Condvar,
    random: Mutex<Random>,
    calls: Mutex<Vec<Call>>,
}

impl Backend {
    pub(super) fn new(model: &Model, seed: u64) -> Self {
        Self {
            versions: (0..model.keys).map(|_| Mutex::new(vec![0])).collect(),
            free: Mutex::new(model.concurrency.max(1)),
            freed: Condvar::new(),
            random: Mutex::new(Random::new(seed)),
            calls: Mutex::default(),
            started: Instant::now(),
            model: model.clone(),
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// The key's version; `None` if there is no such key.
    ///
    /// # Errors
    /// During the failure.
    pub(super) fn load(&self, key: u32) -> Result<Option<u64>, Failed> {
        self.call(key, true, || {
            let versions = self.versions.get(key as usize)?;
            Some(lock(versions).len() as u64 - 1)
        })
    }

    /// Makes a new version.
    ///
    /// # Errors
    /// During the failure.
    pub(super) fn write(&self, key: u32) -> Result<u64, Failed> {
        self.write_many(key, 1)
    }

    /// Makes so many versions in one call, the last of which can be read.
    ///
    /// # Errors
    /// During the failure.
    pub(super) fn write_many(&self, key: u32, count: u64) -> Result<u64, Failed> {
        self.call(key, false, || {
            let mut versions = lock(&self.versions[key as usize]);
            let now = self.now_ms();
            versions.extend(std::iter::repeat_n(now, count as usize));
            versions.len() as u64 - 1
        })
    }

    /// The newest version of a key that exists.
    pub(super) fn versions_known(&self, key: u32) -> Option<u64> {
        let versions = self.versions.get(key as usize)?;
        Some(lock(versions).len() as u64 - 1)
    }

    /// The newest version of a key, which exists.
    pub(super) fn newest(&self, key: u32) -> u64 {
        lock(&self.versions[key as usize]).len() as u64 - 1
    }

    /// For how long a version has been out of date; `None` if it is the newest.
    pub(super) fn outdated_ms(&self, key: u32, version: u64) -> Option<u64> {
        let replaced = *lock(self.versions.get(key as usize)?).get(version as usize + 1)?;
        Some(self.now_ms().saturating_sub(replaced))
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        lock(&self.calls).clone()
    }

    fn call<R>(&self, key: u32, loads: bool, work: impl FnOnce() -> R) -> Result<R, Failed> {
        lock(&self.calls).push(Call {
            at_ms: self.now_ms(),
            key,
            loads,
        });
        let mut free = lock(&self.free);
        while *free == 0 {
            free = self
                .freed
                .wait(free)
                .unwrap_or_else(|error| error.into_inner());
        }
        *free -= 1;
        drop(free);
        let half = self.draw_latency() / 2;
        thread::sleep(half);
        let (from, to) = self.model.failure;
        let now = self.started.elapsed();
        let result = if (from..to).contains(&now) {
            Err(Failed)
        } else {
            Ok(work())
        };
        thread::sleep(half);
        *lock(&self.free) += 1;
        self.freed.notify_one();
        result
    }

    fn draw_latency(&self) -> Duration {
        let (one, other) = {
            let mut random = lock(&self.random);
            (1.0 - random.unit(), random.unit())
        };
        let normal = (-2.0 * one.ln()).sqrt() * (std::f64::consts::TAU * other).cos();
        let factor = (normal * self.model.deviation).exp().min(50.0);
        self.model.latency.mul_f64(factor)
    }
}

/// What a thread that panicked left is whole: nothing here panics half way.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|error| error.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_grow_and_old_ones_are_out_of_date() {
        let model = Model {
            keys: 2,
            latency: Duration::from_micros(10),
            deviation: 0.1,
            concurrency: 1,
            failure: (Duration::ZERO, Duration::ZERO),
        };
        let backend = Backend::new(&model, 1);
        assert_eq!(backend.load(1).unwrap(), Some(0));
        assert_eq!(backend.write(1).unwrap(), 1);
        assert_eq!(backend.load(1).unwrap(), Some(1));
        assert_eq!(backend.load(7).unwrap(), None);
        assert!(backend.outdated_ms(1, 0).is_some());
        assert_eq!(backend.outdated_ms(1, 1), None);
        assert_eq!(backend.calls().len(), 4);
    }

    #[test]
    fn calls_fail_during_the_failure() {
        let model = Model {
            keys: 1,
            latency: Duration::from_micros(10),
            deviation: 0.1,
            concurrency: 1,
            failure: (Duration::ZERO, Duration::from_secs(60)),
        };
        let backend = Backend::new(&model, 1);
        assert!(backend.load(0).is_err() && backend.write(0).is_err());
        assert_eq!(backend.newest(0), 0);
    }
}
