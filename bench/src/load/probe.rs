//! A probe: one GET at fixed times on its own connection, to see what other clients feel while something else goes on.
//!
//! A probe that is still waiting when the next is due sends it late, and its latency counts from when it was due: a stall of
//! 10 ms is seen by all fifty probes that fell into it, as it would be by fifty clients.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Client, get_request};
use super::latency::{Latencies, Summary};
use super::reply::Protocol;
use crate::{Result, affinity};

/// Time between two probes unless told otherwise.
pub(crate) const INTERVAL: Duration = Duration::from_micros(200);

/// The longest stalls are listed with their times.
const WORST: usize = 4;

const OVER_1_MS: u64 = 1_000_000;
const OVER_10_MS: u64 = 10_000_000;

/// Probes between which times are not recorded.
const UNRECORDED: usize = usize::MAX;
const FINISHED: usize = usize::MAX - 1;

/// What was felt during one phase.
pub(crate) struct Felt {
    latencies: Latencies,
    over_1_ms: u64,
    over_10_ms: u64,
    /// Latency and time since the probe began, both in nanoseconds, longest first.
    worst: Vec<(u64, u64)>,
}

impl Felt {
    fn new() -> Self {
        Self {
            latencies: Latencies::new(),
            over_1_ms: 0,
            over_10_ms: 0,
            worst: Vec::new(),
        }
    }

    fn record(&mut self, latency: u64, at: u64) {
        self.latencies.record(latency, 1);
        self.over_1_ms += u64::from(latency > OVER_1_MS);
        self.over_10_ms += u64::from(latency > OVER_10_MS);
        if self.worst.len() < WORST || self.worst.last().is_some_and(|&(least, _)| latency > least)
        {
            let place = self.worst.partition_point(|&(longer, _)| longer >= latency);
            self.worst.insert(place, (latency, at));
            self.worst.truncate(WORST);
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        self.latencies.summary()
    }

    pub(crate) fn json(&self) -> Value {
        let worst: Vec<Value> = self
            .worst
            .iter()
            .map(|&(latency, at)| json!({ "us": latency / 1000, "at_ms": at / 1_000_000 }))
            .collect();
        json!({ "latency": self.summary().json(), "over_1ms": self.over_1_ms, "over_10ms": self.over_10_ms, "worst": worst })
    }

    pub(crate) fn line(&self) -> String {
        let worst: Vec<String> = self
            .worst
            .iter()
            .map(|(latency, at)| format!("{}@{}", latency / 1000, at / 1_000_000))
            .collect();
        format!(
            "{}  >1ms {}  >10ms {}  worst (us@ms) {}",
            self.summary().line(),
            self.over_1_ms,
            self.over_10_ms,
            worst.join(" ")
        )
    }
}

/// A probe running on a thread of its own.
pub(crate) struct Probe {
    phase: Arc<AtomicUsize>,
    thread: JoinHandle<Result<Vec<Felt>>>,
}

impl Probe {
    /// Connects and begins to probe; nothing is recorded before [`Probe::enter`].
    pub(crate) fn start(
        target: SocketAddr,
        protocol: Protocol,
        interval: Duration,
        phases: usize,
        cores: &[usize],
    ) -> Result<Self> {
        let client = Client::connect(target, protocol)?;
        let phase = Arc::new(AtomicUsize::new(UNRECORDED));
        let (phase_seen, cores) = (Arc::clone(&phase), cores.to_vec());
        let request = get_request(protocol, "key:000000000000");
        let thread = thread::spawn(move || {
            affinity::pin(&cores)?;
            rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
            probe(client, &request, interval, phases, &phase_seen)
        });
        Ok(Self { phase, thread })
    }

    /// From now on, record as this phase.
    pub(crate) fn enter(&self, phase: usize) {
        self.phase.store(phase, Ordering::Release);
    }

    /// From now on, probe without recording.
    pub(crate) fn rest(&self) {
        self.phase.store(UNRECORDED, Ordering::Release);
    }

    /// Ends the probe and returns what was felt in each phase.
    pub(crate) fn finish(self) -> Result<Vec<Felt>> {
        self.phase.store(FINISHED, Ordering::Release);
        self.thread.join().map_err(|_| "the probe panicked")?
    }
}

fn probe(
    mut client: Client,
    request: &[u8],
    interval: Duration,
    phases: usize,
    phase: &AtomicUsize,
) -> Result<Vec<Felt>> {
    let mut felt: Vec<Felt> = (0..phases).map(|_| Felt::new()).collect();
    let start = Instant::now();
    for number in 1.. {
        let due = start + interval * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let now_in = phase.load(Ordering::Acquire);
        if now_in == FINISHED {
            break;
        }
        client.call(request)?;
        if let Some(felt) = felt.get_mut(now_in) {
            let replied = Instant::now();
            felt.record(
                (replied - due).as_nanos() as u64,
                (replied - start).as_nanos() as u64,
            );
        }
    }
    Ok(felt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_stalls_are_kept_longest_first() {
        let mut felt = Felt::new();
        for (latency, at) in [
            (5, 1),
            (9, 2),
            (1, 3),
            (7, 4),
            (8, 5),
            (20_000_000, 6),
            (2_000_000, 7),
        ] {
            felt.record(latency, at);
        }
        assert_eq!(
            felt.worst,
            [(20_000_000, 6), (2_000_000, 7), (9, 2), (8, 5)]
        );
        assert_eq!((felt.over_1_ms, felt.over_10_ms), (2, 1));
    }
}
