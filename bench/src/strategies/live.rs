//! A trace replayed against a server that runs: what it keeps, and the memory it really takes for that.
//!
//! Each connection takes the requests of its share of the objects, in order and when they are due: the whole trace is spread evenly
//! over the time given, since servers that sample clocks (LRU by seconds, LFU by minutes) keep other objects when a
//! day passes in a moment. Requests that are due at once are sent together; what is not found is set afterwards.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::eviction::TraceOptions;
use super::policies::ferrite::name_of;
use super::progress::Progress;
use super::report::{Axis, Chart, Line, Output, Report, Section, Table, bytes};
use super::trace::{Request, Trace};
use super::wire::Wire;
use crate::load::reply::Protocol;
use crate::{Result, process};

/// Requests under way per connection.
const BATCH: usize = 32;
/// Parts of the replay whose hit ratio is told.
const PARTS: usize = 50;
/// Between two looks at the server's memory.
const MEMORY_PERIOD: Duration = Duration::from_millis(250);

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    traces: TraceOptions,
    /// Where the server listens
    #[arg(long, default_value = "127.0.0.1:6379", value_name = "HOST:PORT")]
    server: String,
    /// resp or memcached
    #[arg(long, default_value = "resp")]
    protocol: Protocol,
    #[command(flatten)]
    pace: Pace,
    /// Fill the server even though it has keys already
    #[arg(long)]
    keep_keys: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Pace {
    /// Seconds over which the requests are spread; fewer than 90 flatter or wrong some servers
    #[arg(long, default_value_t = 90.0, value_parser = seconds)]
    pub(crate) duration: f64,
    /// Connections that share the objects
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) connections: u32,
}

/// What a replay found.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) hits: u64,
    pub(crate) refused: u64,
    pub(crate) first_refusal: Option<String>,
    /// The longest time that a request was sent after it was due.
    pub(crate) latest: Duration,
    /// Requests and hits of each part of the trace.
    parts: Vec<(u64, u64)>,
    /// Seconds and resident bytes.
    pub(crate) memory: Vec<(f64, u64)>,
    pub(crate) took: Duration,
}

pub(crate) fn command(options: &Options) -> Result<()> {
    let target = resolve(&options.server)?;
    let traces = options.traces.load()?;
    let [trace] = &traces[..] else {
        return Err("name one --trace to replay on a server".into());
    };
    let mut wire = Wire::connect(target, options.protocol)?;
    if !options.keep_keys {
        check_empty(&mut wire, options.protocol)?;
    }
    let outcome = replay(trace, target, options.protocol, &options.pace, None)?;
    let name = format!("{} at {}", trace.name, options.server);
    let report = Report {
        title: "A trace on a server".into(),
        introduction: vec![
            "Every request of the trace was a get, followed by a set if nothing was found. The hit ratio and the memory that the process \
             really took, limit or not, belong together: compare servers at equal memory."
                .into(),
        ],
        settings: vec![
            ("server".into(), options.server.clone()),
            ("trace".into(), describe(trace)),
            ("duration".into(), format!("{} s", options.pace.duration)),
        ],
        sections: vec![section(&name, &[("server".to_owned(), &outcome)])],
        metrics: metrics(&format!("{}.server", trace.name), &outcome),
    };
    report.publish(&options.output)
}

/// Replays a trace. Without a pace it goes as fast as the server answers.
///
/// # Errors
/// A server that cannot be reached or does not speak the protocol.
pub(crate) fn replay(
    trace: &Trace,
    target: SocketAddr,
    protocol: Protocol,
    pace: &Pace,
    progress: Option<&Progress>,
) -> Result<Outcome> {
    let largest = trace.sizes.iter().max().copied().unwrap_or(0);
    let filler = vec![b'x'; largest as usize];
    let connections = pace.connections;
    let mut shares: Vec<Vec<u32>> = vec![Vec::new(); connections as usize];
    for (index, request) in trace.requests.iter().enumerate() {
        shares[(request.object % connections) as usize].push(index as u32);
    }
    let own_progress = Progress::new(trace.requests.len());
    let replay = Replay {
        trace,
        filler: &filler,
        interval: Duration::from_secs_f64(pace.duration) / trace.requests.len() as u32,
        started: Instant::now(),
        progress: progress.unwrap_or(&own_progress),
    };
    let over = AtomicBool::new(false);
    let total = Mutex::new(Outcome {
        parts: vec![(0, 0); PARTS],
        ..Outcome::default()
    });
    thread::scope(|scope| -> Result<()> {
        let watcher = scope.spawn(|| watch_memory(target, protocol, &over, replay.started));
        let workers: Vec<_> = shares
            .iter()
            .map(|share| scope.spawn(|| replay.run(share, target, protocol)))
            .collect();
        let outcomes: Vec<Result<Outcome>> = workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|_| Err("a replay panicked".into()))
            })
            .collect();
        over.store(true, Ordering::Relaxed);
        let memory = watcher.join().unwrap_or_default();
        let mut total = total.lock().unwrap_or_else(|error| error.into_inner());
        for outcome in outcomes {
            total.add(outcome?);
        }
        total.memory = memory;
        total.took = replay.started.elapsed();
        Ok(())
    })?;
    Ok(total
        .into_inner()
        .unwrap_or_else(|error| error.into_inner()))
}

impl Outcome {
    fn add(&mut self, other: Outcome) {
        self.requests += other.requests;
        self.hits += other.hits;
        self.refused += other.refused;
        self.first_refusal = self.first_refusal.take().or(other.first_refusal);
        self.latest = self.latest.max(other.latest);
        for (own, (requests, hits)) in self.parts.iter_mut().zip(other.parts) {
            own.0 += requests;
            own.1 += hits;
        }
    }

    pub(crate) fn hit_ratio(&self) -> f64 {
        self.hits as f64 / self.requests.max(1) as f64
    }

    /// Resident bytes at the end and at most.
    pub(crate) fn resident(&self) -> (u64, u64) {
        let last = self.memory.last().map_or(0, |(_, bytes)| *bytes);
        let most = self.memory.iter().map(|(_, bytes)| *bytes).max();
        (last, most.unwrap_or(0))
    }
}

struct Replay<'a> {
    trace: &'a Trace,
    filler: &'a [u8],
    /// Between two requests of the trace.
    interval: Duration,
    started: Instant,
    progress: &'a Progress,
}

impl Replay<'_> {
    fn run(&self, share: &[u32], target: SocketAddr, protocol: Protocol) -> Result<Outcome> {
        let mut wire = Wire::connect(target, protocol)?;
        let mut outcome = Outcome {
            parts: vec![(0, 0); PARTS],
            ..Outcome::default()
        };
        let mut rest = share;
        while let Some(&first) = rest.first() {
            let due = self.due(first);
            let now = self.started.elapsed();
            if due > now {
                thread::sleep(due - now);
            }
            let now = self.started.elapsed();
            outcome.latest = outcome.latest.max(now.saturating_sub(due));
            let ready = rest
                .iter()
                .take(BATCH)
                .take_while(|&&index| self.due(index) <= now)
                .count()
                .max(1);
            let (batch, others) = rest.split_at(ready);
            self.exchange(&mut wire, batch, &mut outcome)?;
            self.progress.advance(batch.len(), &self.trace.name);
            rest = others;
        }
        Ok(outcome)
    }

    fn due(&self, index: u32) -> Duration {
        self.interval * index
    }

    fn exchange(&self, wire: &mut Wire, batch: &[u32], outcome: &mut Outcome) -> Result<()> {
        let request = |index: u32| -> Request { self.trace.requests[index as usize] };
        for &index in batch {
            wire.get(&name_of(request(index).object));
        }
        wire.flush()?;
        let mut missed: Vec<Request> = Vec::new();
        for &index in batch {
            let part = index as usize * PARTS / self.trace.requests.len();
            let hit = wire.value()?.is_some();
            outcome.requests += 1;
            outcome.hits += u64::from(hit);
            outcome.parts[part].0 += 1;
            outcome.parts[part].1 += u64::from(hit);
            if !hit {
                missed.push(request(index));
            }
        }
        for request in &missed {
            let size = self.trace.sizes[request.object as usize] as usize;
            wire.set(&name_of(request.object), &self.filler[..size], request.ttl);
        }
        wire.flush()?;
        for _ in &missed {
            if let Err(words) = wire.stored()? {
                outcome.refused += 1;
                outcome.first_refusal.get_or_insert(words);
            }
        }
        Ok(())
    }
}

/// Looks at the server's resident memory until the replay is over: at the process if it is on this machine, else what
/// the server says.
fn watch_memory(
    target: SocketAddr,
    protocol: Protocol,
    over: &AtomicBool,
    started: Instant,
) -> Vec<(f64, u64)> {
    let Ok(mut wire) = Wire::connect(target, protocol) else {
        return Vec::new();
    };
    let here = target.ip().is_loopback();
    let process = wire.process().ok().filter(|_| here);
    let mut memory = Vec::new();
    loop {
        // The last look comes after the end.
        let last = over.load(Ordering::Relaxed);
        let resident = match process {
            Some(process) => process::resident_bytes(process),
            None => wire.resident_bytes(),
        };
        match resident {
            Ok(bytes) => memory.push((started.elapsed().as_secs_f64(), bytes)),
            Err(_) => return memory,
        }
        if last {
            return memory;
        }
        thread::sleep(MEMORY_PERIOD);
    }
}

/// # Errors
/// A server with keys: they would be counted, and some would go.
fn check_empty(wire: &mut Wire, protocol: Protocol) -> Result<()> {
    if protocol == Protocol::Resp {
        wire.command(&[b"DBSIZE"]);
        wire.flush()?;
        let size = wire.text()?;
        if size != ":0" {
            return Err("the server has keys already: empty it, or say --keep-keys".into());
        }
    }
    Ok(())
}

/// Hit ratio and memory of some replays of one trace, as tables and plots.
pub(crate) fn section(title: &str, outcomes: &[(String, &Outcome)]) -> Section {
    let header = [
        "",
        "hit ratio",
        "resident at the end",
        "at most",
        "refused",
        "latest",
    ];
    let rows = outcomes
        .iter()
        .map(|(name, outcome)| {
            let (last, most) = outcome.resident();
            vec![
                name.clone(),
                format!("{:.4}", outcome.hit_ratio()),
                bytes(last),
                bytes(most),
                outcome.refused.to_string(),
                format!("{:.1} ms", outcome.latest.as_secs_f64() * 1e3),
            ]
        })
        .collect();
    let refusals: Vec<String> = outcomes
        .iter()
        .filter_map(|(name, outcome)| Some((name, outcome.first_refusal.as_ref()?)))
        .map(|(name, words)| format!("{name} refused values: {words}."))
        .collect();
    Section {
        title: title.to_owned(),
        text: refusals.join(" "),
        tables: vec![Table {
            header: header.map(str::to_owned).to_vec(),
            rows,
        }],
        charts: vec![
            Chart {
                title: format!("{title}: hit ratio over the trace"),
                x: Axis::linear("part of the trace"),
                y: Axis::linear("hit ratio"),
                lines: lines(outcomes, |outcome| {
                    outcome
                        .parts
                        .iter()
                        .enumerate()
                        .map(|(part, (requests, hits))| {
                            let at = (part as f64 + 0.5) / PARTS as f64;
                            (at, *hits as f64 / (*requests).max(1) as f64)
                        })
                        .collect()
                }),
            },
            Chart {
                title: format!("{title}: resident memory"),
                x: Axis::linear("seconds"),
                y: Axis::linear("MB"),
                lines: lines(outcomes, |outcome| {
                    outcome
                        .memory
                        .iter()
                        .map(|(at, bytes)| (*at, *bytes as f64 / 1e6))
                        .collect()
                }),
            },
        ],
    }
}

fn lines(
    outcomes: &[(String, &Outcome)],
    points: impl Fn(&Outcome) -> Vec<(f64, f64)>,
) -> Vec<Line> {
    outcomes
        .iter()
        .map(|(name, outcome)| Line {
            name: name.clone(),
            is_reference: false,
            points: points(outcome),
        })
        .collect()
}

pub(crate) fn metrics(name: &str, outcome: &Outcome) -> Vec<(String, f64)> {
    let (last, most) = outcome.resident();
    vec![
        (format!("{name}.hit_ratio"), outcome.hit_ratio()),
        (format!("{name}.resident_bytes"), last as f64),
        (format!("{name}.resident_peak_bytes"), most as f64),
        (format!("{name}.refused"), outcome.refused as f64),
    ]
}

pub(crate) fn describe(trace: &Trace) -> String {
    format!(
        "{}: {} requests, {} objects, {} with keys",
        trace.name,
        trace.requests.len(),
        trace.objects(),
        bytes(trace.bytes())
    )
}

pub(crate) fn resolve(server: &str) -> Result<SocketAddr> {
    server
        .to_socket_addrs()
        .map_err(|error| format!("{server}: {error}"))?
        .next()
        .ok_or_else(|| format!("{server} has no address").into())
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    text.parse()
        .ok()
        .filter(|seconds| (0.0..=1e6).contains(seconds))
        .ok_or_else(|| "expected a number of seconds".into())
}
