//! A probe: one GET at fixed times on its own connection, to see what other clients feel while something else goes on.
//!
//! A probe is sent when it is due, whether or not earlier ones have been answered: a stall of 10 ms is seen by all fifty
//! probes that fall into it, as it would be by fifty clients. As sending never waits for the server, a probe that leaves late
//! was held up on this side; its latency counts from when it left, and the ones missed meanwhile are not made up for.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{connect, get_request};
use super::latency::{Latencies, Summary};
use super::reply::{Protocol, ReplyReader, Tally};
use crate::epoll::{Epoll, Interest};
use crate::{Result, affinity};

/// Time between two probes unless told otherwise.
pub(crate) const INTERVAL: Duration = Duration::from_micros(200);

/// The longest stalls are listed with their times.
const WORST: usize = 4;

const OVER_1_MS: u64 = 1_000_000;
const OVER_10_MS: u64 = 10_000_000;

/// A server that is silent for so many probes (20 s of them) gets no more.
const MOST_UNANSWERED: usize = 100_000;

/// How long the last probes are waited for.
const LAST_REPLIES: Duration = Duration::from_secs(30);

/// Phases in which nothing is recorded.
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
        let stream = connect(target)?;
        stream.set_nonblocking(true)?;
        let phase = Arc::new(AtomicUsize::new(UNRECORDED));
        let (phase_seen, cores) = (Arc::clone(&phase), cores.to_vec());
        let request = get_request(protocol, "key:000000000000");
        let thread = thread::spawn(move || {
            affinity::pin(&cores)?;
            rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
            let epoll = Epoll::new()?;
            epoll.add(&stream, 0, Interest::Read)?;
            let prober = Prober {
                stream,
                epoll,
                reader: ReplyReader::new(protocol),
                unanswered: VecDeque::new(),
                start: Instant::now(),
                felt: (0..phases).map(|_| Felt::new()).collect(),
            };
            prober.run(&request, interval, &phase_seen)
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

/// Probes sent and not answered yet: when each left, and in which phase.
type Unanswered = VecDeque<(Instant, usize)>;

struct Prober {
    stream: TcpStream,
    epoll: Epoll,
    reader: ReplyReader,
    unanswered: Unanswered,
    start: Instant,
    felt: Vec<Felt>,
}

impl Prober {
    fn run(mut self, request: &[u8], interval: Duration, phase: &AtomicUsize) -> Result<Vec<Felt>> {
        let mut due = Instant::now();
        loop {
            let now = Instant::now();
            let entered = phase.load(Ordering::Acquire);
            if entered == FINISHED {
                break;
            }
            if now >= due {
                if self.unanswered.len() < MOST_UNANSWERED && self.send(request)? {
                    self.unanswered.push_back((now, entered));
                }
                due = (due + interval).max(now);
            }
            self.receive(due.saturating_duration_since(Instant::now()))?;
        }
        let deadline = Instant::now() + LAST_REPLIES;
        while !self.unanswered.is_empty() && Instant::now() < deadline {
            self.receive(interval)?;
        }
        // What is still unanswered has waited at least this long.
        let now = Instant::now();
        self.answered(self.unanswered.len(), now);
        Ok(self.felt)
    }

    /// Returns whether the whole request was taken.
    fn send(&mut self, request: &[u8]) -> Result<bool> {
        match self.stream.write(request) {
            Ok(written) if written == request.len() => Ok(true),
            Ok(_) => Err("the server stopped reading in the middle of a probe".into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(format!("sending a probe: {error}").into()),
        }
    }

    fn receive(&mut self, timeout: Duration) -> Result<()> {
        if self.epoll.wait(Some(timeout))? == 0 {
            return Ok(());
        }
        let mut input = [0; 16 * 1024];
        let read = match self.stream.read(&mut input) {
            Ok(0) => return Err("the server closed the probe's connection".into()),
            Ok(read) => read,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(());
            }
            Err(error) => return Err(format!("reading a probe's reply: {error}").into()),
        };
        let mut tally = Tally::default();
        let replies = self.reader.feed(&input[..read], &mut tally)?;
        if let Some(error) = tally.first_error {
            return Err(format!("the server answered a probe with {error}").into());
        }
        self.answered(replies as usize, Instant::now());
        Ok(())
    }

    fn answered(&mut self, probes: usize, now: Instant) {
        for (sent, phase) in self.unanswered.drain(..probes.min(self.unanswered.len())) {
            if let Some(felt) = self.felt.get_mut(phase) {
                felt.record(
                    (now - sent).as_nanos() as u64,
                    (now - self.start).as_nanos() as u64,
                );
            }
        }
    }
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
