//! Counters. Each worker writes its own, so that counting costs no contention; readers add them up.

pub mod command_log;
pub mod graph;
pub mod process;

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::dispatch::table;

/// A number that one thread writes and any reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub fn add(&self, by: u64) {
        // Relaxed, and no read-modify-write: there is one writer.
        self.0
            .store(self.0.load(Ordering::Relaxed) + by, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Back to zero; a concurrent `add` may survive it.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Buckets of a latency histogram: one per power of two of nanoseconds.
pub const LATENCY_BUCKETS: usize = 40;

/// What is known of one command.
#[derive(Debug)]
pub struct CommandMetrics {
    pub calls: Counter,
    pub nanoseconds: Counter,
    /// Refused before they ran.
    pub rejected: Counter,
    /// Ran and answered an error.
    pub failed: Counter,
    /// Calls by the binary logarithm of their nanoseconds.
    pub latency: [Counter; LATENCY_BUCKETS],
}

impl Default for CommandMetrics {
    fn default() -> Self {
        CommandMetrics {
            calls: Counter::default(),
            nanoseconds: Counter::default(),
            rejected: Counter::default(),
            failed: Counter::default(),
            latency: [const { Counter(AtomicU64::new(0)) }; LATENCY_BUCKETS],
        }
    }
}

impl CommandMetrics {
    #[inline]
    pub fn record(&self, nanoseconds: u64) {
        self.calls.add(1);
        self.nanoseconds.add(nanoseconds);
        let bucket = (64 - nanoseconds.leading_zeros() as usize).min(LATENCY_BUCKETS - 1);
        self.latency[bucket].add(1);
    }

    fn reset(&self) {
        for counter in [&self.calls, &self.nanoseconds, &self.rejected, &self.failed]
            .into_iter()
            .chain(&self.latency)
        {
            counter.reset();
        }
    }
}

/// [`CommandMetrics`] added up over all workers.
#[derive(Clone, Copy, Debug)]
pub struct CommandTotal {
    pub calls: u64,
    pub nanoseconds: u64,
    pub rejected: u64,
    pub failed: u64,
    pub latency: [u64; LATENCY_BUCKETS],
}

impl Default for CommandTotal {
    fn default() -> Self {
        CommandTotal {
            calls: 0,
            nanoseconds: 0,
            rejected: 0,
            failed: 0,
            latency: [0; LATENCY_BUCKETS],
        }
    }
}

impl CommandTotal {
    /// The time that so many percent of the calls stayed under, interpolated within its bucket.
    pub fn percentile_nanoseconds(&self, percent: f64) -> f64 {
        let all: u64 = self.latency.iter().sum();
        let wanted = (all as f64 * percent / 100.0).max(1.0);
        let mut below = 0.0;
        for (bucket, &count) in self.latency.iter().enumerate() {
            let count = count as f64;
            if count > 0.0 && below + count >= wanted {
                let upper = (1u64 << bucket) as f64;
                let lower = if bucket == 0 { 0.0 } else { upper / 2.0 };
                return lower + (upper - lower) * (wanted - below - 0.5) / count;
            }
            below += count;
        }
        0.0
    }
}

/// One worker's counters.
#[derive(Debug)]
pub struct WorkerMetrics {
    /// By the command table's numbers.
    pub commands: Box<[CommandMetrics]>,
    pub turns: Counter,
    pub bytes_in: Counter,
    pub bytes_out: Counter,
    pub reads: Counter,
    pub writes: Counter,
    pub memcached: Box<[Counter]>,
}

/// Room for memcached's own statistics, numbered by the module that answers `stats`.
pub const MEMCACHED_COUNTERS: usize = 64;

impl WorkerMetrics {
    fn new() -> WorkerMetrics {
        WorkerMetrics {
            commands: (0..table::table().count())
                .map(|_| CommandMetrics::default())
                .collect(),
            turns: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            reads: Counter::default(),
            writes: Counter::default(),
            memcached: (0..MEMCACHED_COUNTERS)
                .map(|_| Counter::default())
                .collect(),
        }
    }
}

/// With this many kinds of errors remembered by name, new ones that scripts invent are counted together.
const MAX_ERROR_CODES: usize = 128;
const TOO_MANY_CODES: &str = "ERRORSTATS_OVERFLOW";

/// Everything counted.
#[derive(Debug)]
pub struct Metrics {
    pub workers: Box<[Arc<WorkerMetrics>]>,
    pub connections: AtomicU64,
    pub rejected_connections: AtomicU64,
    pub errors: Mutex<HashMap<String, u64>>,
    pub auth_denied: AtomicU64,
    pub full_syncs: AtomicU64,
    pub partial_syncs: AtomicU64,
    pub refused_partial_syncs: AtomicU64,
    pub commands_denied: AtomicU64,
    pub keys_denied: AtomicU64,
    pub channels_denied: AtomicU64,
    pub databases_denied: AtomicU64,
    pub panics: AtomicU64,
    /// Most bytes allocated at once, as far as anyone looked.
    pub memory_peak: AtomicUsize,
    /// Blocks moved out of sparse pages.
    pub relocated: AtomicU64,
    /// Rounds of maintenance.
    pub rounds: AtomicU64,
    /// Operations per second and bytes per second, sampled by maintenance.
    pub instantaneous: Mutex<Instantaneous>,
}

/// Rates over the last seconds.
#[derive(Debug, Default, Clone, Copy)]
pub struct Instantaneous {
    pub commands_per_second: u64,
    pub input_bytes_per_second: u64,
    pub output_bytes_per_second: u64,
    pub cycles_per_second: u64,
    /// Processor time of a cycle.
    pub cycle_microseconds: u64,
}

impl Metrics {
    pub fn new(workers: usize) -> Metrics {
        Metrics {
            workers: (0..workers)
                .map(|_| Arc::new(WorkerMetrics::new()))
                .collect(),
            connections: AtomicU64::new(0),
            rejected_connections: AtomicU64::new(0),
            errors: Mutex::default(),
            auth_denied: AtomicU64::new(0),
            full_syncs: AtomicU64::new(0),
            partial_syncs: AtomicU64::new(0),
            refused_partial_syncs: AtomicU64::new(0),
            commands_denied: AtomicU64::new(0),
            keys_denied: AtomicU64::new(0),
            channels_denied: AtomicU64::new(0),
            databases_denied: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            memory_peak: AtomicUsize::new(0),
            relocated: AtomicU64::new(0),
            rounds: AtomicU64::new(0),
            instantaneous: Mutex::default(),
        }
    }

    /// The sum of a counter over all workers.
    pub fn sum(&self, counter: impl Fn(&WorkerMetrics) -> u64) -> u64 {
        self.workers.iter().map(|worker| counter(worker)).sum()
    }

    /// Turns of connections and rounds of maintenance: what an event loop with one thread does in its cycles.
    pub fn cycles(&self) -> u64 {
        self.sum(|worker| worker.reads.get()) + self.rounds.load(Ordering::Relaxed)
    }

    /// Commands run by all workers.
    pub fn commands(&self) -> u64 {
        self.sum(|worker| {
            worker
                .commands
                .iter()
                .map(|command| command.calls.get())
                .sum()
        })
    }

    /// What all workers together know of a command.
    pub fn command(&self, id: usize) -> CommandTotal {
        let mut total = CommandTotal::default();
        for metrics in self.workers.iter().map(|worker| &worker.commands[id]) {
            total.calls += metrics.calls.get();
            total.nanoseconds += metrics.nanoseconds.get();
            total.rejected += metrics.rejected.get();
            total.failed += metrics.failed.get();
            for (sum, bucket) in total.latency.iter_mut().zip(&metrics.latency) {
                *sum += bucket.get();
            }
        }
        total
    }

    /// Counts an error reply by its code.
    pub fn count_error(&self, code: &[u8]) {
        let code = String::from_utf8_lossy(code);
        *self.errors.lock().entry_ref(&*code).or_insert(0) += 1;
    }

    /// As [`Metrics::count_error`], for an error that a script answers with, whatever it calls it.
    pub fn count_invented_error(&self, code: &[u8]) {
        let code = String::from_utf8_lossy(code);
        let mut errors = self.errors.lock();
        let kept = errors.len() < MAX_ERROR_CODES || errors.contains_key(&*code);
        let code = if kept { &*code } else { TOO_MANY_CODES };
        *errors.entry_ref(code).or_insert(0) += 1;
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        for worker in &self.workers {
            worker.commands.iter().for_each(CommandMetrics::reset);
            for counter in [
                &worker.bytes_in,
                &worker.bytes_out,
                &worker.reads,
                &worker.writes,
            ] {
                counter.reset();
            }
        }
        for counter in [
            &self.connections,
            &self.rejected_connections,
            &self.auth_denied,
            &self.full_syncs,
            &self.partial_syncs,
            &self.refused_partial_syncs,
            &self.commands_denied,
            &self.keys_denied,
            &self.channels_denied,
            &self.databases_denied,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
        self.errors.lock().clear();
    }
}
