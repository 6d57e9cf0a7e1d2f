//! One strategy under load: clients ask when they are due, whatever happened before, and everything is noted.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use super::super::policies::ferrite::name_of;
use super::super::wire::Wire;
use super::backend::{Backend, Model, lock};
use super::client::{Client, Shared};
use super::strategy::Strategy;
use crate::load::latency::{Latencies, Summary};
use crate::load::popularity::{KeyPicker, Popularity};
use crate::load::reply::Protocol;
use crate::{Result, process};

/// Threads that refresh in the background, and write behind.
const REFRESHERS: usize = 16;
/// Between two rounds of writing behind.
const WRITE_BEHIND_PERIOD: Duration = Duration::from_millis(500);
/// Backend calls for one key that begin within so many times the backend's latency answer the same expiry.
const BURST_LATENCIES: u32 = 3;
/// Bytes a copy in the client takes beside its value, about.
const NEAR_OVERHEAD: u64 = 64;
/// Longest line of an invalidation.
const MAX_LINE: u64 = 64 * 1024;

#[derive(Clone, Debug)]
pub(super) struct Load {
    /// Requests per second.
    pub(super) rate: f64,
    pub(super) duration: Duration,
    pub(super) clients: usize,
    pub(super) theta: f64,
    /// Shares of requests.
    pub(super) writes: f64,
    pub(super) absent: f64,
    pub(super) ttl: Duration,
    pub(super) value_size: usize,
    pub(super) seed: u64,
}

#[derive(Clone, Copy)]
enum Operation {
    Read(u32),
    Write(u32),
}

/// The cache of a run.
#[derive(Clone, Copy)]
pub(super) struct Cache {
    pub(super) resp: SocketAddr,
    pub(super) memcached: Option<SocketAddr>,
    /// Its process, if that is on this machine.
    pub(super) process: Option<u32>,
}

/// What was noted.
pub(super) struct Findings {
    pub(super) strategy: Strategy,
    pub(super) reads: u64,
    pub(super) hits: u64,
    pub(super) writes: u64,
    /// Requests that got no answer since the backend failed.
    pub(super) failed: u64,
    pub(super) stale: u64,
    pub(super) stale_ms_sum: u64,
    pub(super) stale_ms_max: u64,
    /// Writes that clients were told are done but the backend never got.
    pub(super) lost_updates: u64,
    /// Keys whose cached value is not the newest, and no longer will be until it expires.
    pub(super) stale_at_rest: u64,
    pub(super) latency: Summary,
    /// Of each second: reads and hits.
    pub(super) seconds: Vec<(u64, u64)>,
    /// Backend calls of each second.
    pub(super) calls: Vec<u64>,
    /// Calls that began within a tenth of a second, at most.
    pub(super) calls_peak: u64,
    /// Calls for the same key at about the same time, for the keys asked for most: mean and most.
    pub(super) burst_mean: f64,
    pub(super) burst_max: u64,
    pub(super) memory_bytes: u64,
    pub(super) near_bytes: u64,
}

/// What one client noted.
struct Notes {
    latencies: Latencies,
    findings: Findings,
}

/// # Errors
/// A cache that cannot be reached or stops answering.
pub(super) fn run(
    strategy: Strategy,
    load: &Load,
    model: &Model,
    cache: Cache,
) -> Result<Findings> {
    let operations = operations(load, model);
    let (refreshes, refreshed) = channel();
    let backend = Backend::new(model, load.seed);
    let ttl_ms = load.ttl.as_millis() as u64;
    let mut shared = Shared::new(
        strategy,
        backend,
        cache.resp,
        cache.memcached,
        ttl_ms,
        load.value_size,
        refreshes,
    );
    let mut wire = Wire::connect(cache.resp, Protocol::Resp)?;
    wire.command(&[b"FLUSHALL"]);
    wire.flush()?;
    wire.text()?;
    fill(&shared, model)?;
    // The clock starts once the cache is warm.
    shared.backend.started = Instant::now();
    let shared = shared;
    let next = AtomicUsize::new(0);
    let refreshed = Mutex::new(refreshed);
    let notes = thread::scope(|scope| -> Result<Vec<Notes>> {
        let refreshers: Vec<_> = (0..REFRESHERS)
            .map(|_| scope.spawn(|| refresh(&shared, &refreshed)))
            .collect();
        let writer = scope.spawn(|| write_behind(&shared));
        let listener = scope.spawn(|| listen(&shared));
        let clients: Vec<_> = (0..load.clients)
            .map(|number| {
                let (shared, operations, next) = (&shared, &operations, &next);
                scope.spawn(move || work(shared, load, operations, next, number as u64))
            })
            .collect();
        let notes: Vec<Result<Notes>> = clients
            .into_iter()
            .map(|client| {
                client
                    .join()
                    .unwrap_or_else(|_| Err("a client panicked".into()))
            })
            .collect();
        shared.close();
        for helper in refreshers.into_iter().chain([writer, listener]) {
            helper.join().map_err(|_| "a helper panicked")??;
        }
        notes.into_iter().collect()
    })?;
    let mut findings = total(strategy, load, notes);
    note_calls(&mut findings, &shared, load, model);
    note_end(&mut findings, &shared, model, cache)?;
    Ok(findings)
}

/// The same requests for every strategy.
fn operations(load: &Load, model: &Model) -> Vec<Operation> {
    let count = (load.rate * load.duration.as_secs_f64()) as usize;
    let mut picker = KeyPicker::new(
        u64::from(model.keys),
        Popularity::Zipf(load.theta),
        load.seed,
    );
    (0..count)
        .map(|_| {
            let key = picker.next() as u32;
            let kind = picker.random().unit();
            if kind < load.writes {
                Operation::Write(key)
            } else if kind < load.writes + load.absent {
                // Beyond those that the backend has.
                Operation::Read(model.keys + key)
            } else {
                Operation::Read(key)
            }
        })
        .collect()
}

/// Stores every key, as after a deployment or a restart: what has one time to live expires at one time.
fn fill(shared: &Shared, model: &Model) -> Result<()> {
    let mut client = Client::connect(shared, 1)?;
    for key in 0..model.keys {
        client.store(key, Some(0), model.latency)?;
    }
    Ok(())
}

fn work(
    shared: &Shared,
    load: &Load,
    operations: &[Operation],
    next: &AtomicUsize,
    number: u64,
) -> Result<Notes> {
    let mut client = Client::connect(shared, load.seed ^ (number + 1) << 20)?;
    let mut notes = Notes {
        latencies: Latencies::new(),
        findings: empty(shared.strategy, load),
    };
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(&operation) = operations.get(index) else {
            return Ok(notes);
        };
        let due = Duration::from_secs_f64(index as f64 / load.rate);
        let now = shared.backend.started.elapsed();
        if due > now {
            thread::sleep(due - now);
        }
        let answered = match operation {
            Operation::Read(key) => read(shared, &mut client, key, due, &mut notes.findings)?,
            Operation::Write(key) => {
                notes.findings.writes += 1;
                notes.findings.failed += u64::from(!client.write(key)?);
                Instant::now()
            }
        };
        // From when it was due, not from when a client was free.
        let latency = (answered - shared.backend.started).saturating_sub(due);
        notes.latencies.record(latency.as_nanos() as u64, 1);
    }
}

fn read(
    shared: &Shared,
    client: &mut Client<'_>,
    key: u32,
    due: Duration,
    findings: &mut Findings,
) -> Result<Instant> {
    // What is written while we ask may or may not be seen.
    let newest = shared.backend.versions_known(key);
    let answer = client.read(key)?;
    findings.reads += 1;
    findings.hits += u64::from(answer.hit);
    let second = (due.as_secs() as usize).min(findings.seconds.len() - 1);
    findings.seconds[second].0 += 1;
    findings.seconds[second].1 += u64::from(answer.hit);
    match answer.version {
        Ok(Some(version)) if newest.is_some_and(|newest| version < newest) => {
            let age = shared.backend.outdated_ms(key, version).unwrap_or(0);
            findings.stale += 1;
            findings.stale_ms_sum += age;
            findings.stale_ms_max = findings.stale_ms_max.max(age);
        }
        Ok(_) => {}
        Err(_) => findings.failed += 1,
    }
    Ok(answer.at)
}

fn refresh(shared: &Shared, refreshed: &Mutex<Receiver<u32>>) -> Result<()> {
    let mut client = Client::connect(shared, 7)?;
    loop {
        let received = lock(refreshed).recv_timeout(Duration::from_millis(50));
        match received {
            Ok(key) => client.refresh(key)?,
            Err(_) if shared.over.load(Ordering::Relaxed) => return Ok(()),
            Err(_) => {}
        }
    }
}

/// Brings what was written behind to the backend, every now and then. Writes to one key become one.
fn write_behind(shared: &Shared) -> Result<()> {
    while shared.strategy == Strategy::WriteBehind && !shared.over.load(Ordering::Relaxed) {
        thread::sleep(WRITE_BEHIND_PERIOD);
        let waiting: Vec<(u32, u64)> = lock(&shared.pending)
            .iter()
            .map(|(key, count)| (*key, *count))
            .collect();
        let jobs = RwLock::new(waiting.into_iter());
        thread::scope(|scope| {
            for _ in 0..REFRESHERS {
                scope.spawn(|| {
                    loop {
                        let job = jobs.write().map_or(None, |mut jobs| jobs.next());
                        let Some((key, count)) = job else { return };
                        if shared.over.load(Ordering::Relaxed) {
                            return;
                        }
                        if shared.backend.write_many(key, count).is_ok() {
                            let mut pending = lock(&shared.pending);
                            let left = pending.get(&key).map_or(0, |all| all - count);
                            if left == 0 {
                                pending.remove(&key);
                            } else {
                                pending.insert(key, left);
                            }
                        }
                    }
                });
            }
        });
    }
    Ok(())
}

/// Drops copies in the client that the server says are old.
fn listen(shared: &Shared) -> Result<()> {
    if shared.strategy != Strategy::ClientTracking {
        return Ok(());
    }
    let mut stream = TcpStream::connect(shared.cache)?;
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    stream.write_all(b"HELLO 3\r\nCLIENT TRACKING ON BCAST PREFIX obj:\r\n")?;
    let mut input = BufReader::new(stream);
    let mut line = Vec::new();
    while !shared.over.load(Ordering::Relaxed) {
        match std::io::Read::take(&mut input, MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) => return Err("the cache closed the connection".into()),
            // The rest of the line comes with the next read.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {
                let object = std::str::from_utf8(&line)
                    .ok()
                    .and_then(|line| line.trim_end().strip_prefix("obj:"))
                    .and_then(|digits| u32::from_str_radix(digits, 16).ok());
                if let Some(object) = object {
                    shared.invalidations.fetch_add(1, Ordering::SeqCst);
                    lock(&shared.near).remove(&object);
                }
                line.clear();
            }
        }
    }
    Ok(())
}

fn empty(strategy: Strategy, load: &Load) -> Findings {
    let seconds = (load.duration.as_secs_f64().ceil() as usize).max(1);
    Findings {
        strategy,
        reads: 0,
        hits: 0,
        writes: 0,
        failed: 0,
        stale: 0,
        stale_ms_sum: 0,
        stale_ms_max: 0,
        lost_updates: 0,
        stale_at_rest: 0,
        latency: Summary::default(),
        seconds: vec![(0, 0); seconds],
        calls: vec![0; seconds],
        calls_peak: 0,
        burst_mean: 0.0,
        burst_max: 0,
        memory_bytes: 0,
        near_bytes: 0,
    }
}

fn total(strategy: Strategy, load: &Load, notes: Vec<Notes>) -> Findings {
    let mut total = empty(strategy, load);
    let mut latencies = Latencies::new();
    for Notes {
        latencies: own,
        findings,
    } in notes
    {
        latencies.add(&own);
        total.reads += findings.reads;
        total.hits += findings.hits;
        total.writes += findings.writes;
        total.failed += findings.failed;
        total.stale += findings.stale;
        total.stale_ms_sum += findings.stale_ms_sum;
        total.stale_ms_max = total.stale_ms_max.max(findings.stale_ms_max);
        for (all, own) in total.seconds.iter_mut().zip(findings.seconds) {
            all.0 += own.0;
            all.1 += own.1;
        }
    }
    total.latency = latencies.summary();
    total
}

fn note_calls(findings: &mut Findings, shared: &Shared, load: &Load, model: &Model) {
    let calls = shared.backend.calls();
    let mut tenths: HashMap<u64, u64> = HashMap::new();
    let mut by_key: HashMap<u32, Vec<u64>> = HashMap::new();
    for call in &calls {
        let second = (call.at_ms / 1000) as usize;
        if let Some(count) = findings.calls.get_mut(second) {
            *count += 1;
        }
        *tenths.entry(call.at_ms / 100).or_insert(0) += 1;
        if call.loads {
            by_key.entry(call.key).or_default().push(call.at_ms);
        }
    }
    findings.calls_peak = tenths.values().max().copied().unwrap_or(0);
    let window = (model.latency * BURST_LATENCIES).as_millis().max(1) as u64;
    let (mut bursts, mut in_bursts) = (0u64, 0u64);
    for key in hottest(load, model) {
        let Some(times) = by_key.get_mut(&key) else {
            continue;
        };
        times.sort_unstable();
        let mut burst: Option<(u64, u64)> = None;
        for &at in times.iter() {
            burst = match burst {
                Some((first, count)) if at - first <= window => Some((first, count + 1)),
                _ => {
                    bursts += 1;
                    Some((at, 1))
                }
            };
            in_bursts += 1;
            findings.burst_max = findings.burst_max.max(burst.map_or(0, |(_, count)| count));
        }
    }
    findings.burst_mean = in_bursts as f64 / bursts.max(1) as f64;
}

/// The ten keys that are asked for most.
fn hottest(load: &Load, model: &Model) -> Vec<u32> {
    let mut uses: HashMap<u32, u32> = HashMap::new();
    for operation in operations(load, model) {
        if let Operation::Read(key) = operation {
            *uses.entry(key).or_insert(0) += 1;
        }
    }
    let mut keys: Vec<(u32, u32)> = uses.into_iter().map(|(key, uses)| (uses, key)).collect();
    keys.sort_unstable_by(|one, other| other.cmp(one));
    keys.into_iter().take(10).map(|(_, key)| key).collect()
}

/// What is lost or wrong for good, and the memory taken.
fn note_end(findings: &mut Findings, shared: &Shared, model: &Model, cache: Cache) -> Result<()> {
    let pending = lock(&shared.pending);
    findings.lost_updates = pending.values().sum();
    let mut wire = Wire::connect(cache.resp, Protocol::Resp)?;
    for key in 0..model.keys {
        wire.get(&name_of(key));
        wire.flush()?;
        let cached = wire
            .value()?
            .as_deref()
            .and_then(super::cached::Cached::read);
        let newest = shared.backend.newest(key);
        if cached
            .and_then(|cached| cached.version)
            .is_some_and(|version| version < newest)
        {
            findings.stale_at_rest += 1;
        }
    }
    findings.memory_bytes = match cache.process {
        Some(process) => process::resident_bytes(process)?,
        None => wire.resident_bytes()?,
    };
    let copies = lock(&shared.near).len() as u64;
    findings.near_bytes = copies * (shared.value_size as u64 + NEAR_OVERHEAD);
    Ok(())
}
