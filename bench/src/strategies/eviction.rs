//! Which policy keeps the right objects: traces replayed on every policy at several capacities, without a network.
//!
//! A request for an object that is not there puts it, as a client does that fills a cache. An object whose time to live
//! has passed is a miss. The references keep it until it is asked for or goes; Ferrite's own code lets it go as the
//! server does.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use clap::Args;

use super::generate::Generator;
use super::policies::{self, Kind, Space, Unit};
use super::progress::Progress;
use super::report::{Axis, Chart, Line, Output, Report, Section, Table, bytes};
use super::trace::Trace;
use crate::Result;

/// What is replayed when no trace is named.
const BUILT_IN: [&str; 3] = ["zipf", "scan", "loop:objects=5000,requests=100000"];

const CAPACITIES: &str = "0.001,0.003,0.01,0.03,0.1,0.2,0.3,0.5";

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) traces: TraceOptions,
    /// Policies to compare, by name; all if none is named
    #[arg(long, value_delimiter = ',', value_parser = kind)]
    policies: Vec<Kind>,
    /// Capacities, as fractions of all objects of the trace
    #[arg(long, value_delimiter = ',', default_value = CAPACITIES, value_parser = fraction)]
    capacities: Vec<f64>,
    /// What a capacity counts: each object once, or bytes of key and value
    #[arg(long, value_delimiter = ',', default_value = "objects,bytes", value_parser = unit)]
    units: Vec<Unit>,
    /// Keys that Ferrite looks at for one that goes (maxmemory-samples)
    #[arg(long, default_value_t = 5)]
    samples: usize,
    /// Threads to replay with; as many as there are cores by default
    #[arg(long)]
    threads: Option<usize>,
    #[command(flatten)]
    output: Output,
}

/// What is replayed.
#[derive(Args, Clone, Debug)]
pub(crate) struct TraceOptions {
    /// A CSV file (ts,key,size,ttl; may be .gz) or a generator: zipf, scan, loop, with settings such as zipf:objects=100000,theta=0.9,drift=0.2,ttl=600
    #[arg(long = "trace", value_name = "FILE|GENERATOR")]
    traces: Vec<String>,
    /// Replay only so many requests of each trace
    #[arg(long, value_name = "REQUESTS")]
    limit: Option<usize>,
    /// Let objects stay valid for ever
    #[arg(long)]
    ignore_ttl: bool,
}

impl TraceOptions {
    /// # Errors
    /// A file that is no trace.
    pub(crate) fn load(&self) -> Result<Vec<Trace>> {
        let named: Vec<&str> = if self.traces.is_empty() {
            BUILT_IN.to_vec()
        } else {
            self.traces.iter().map(String::as_str).collect()
        };
        named.into_iter().map(|name| self.load_one(name)).collect()
    }

    fn load_one(&self, name: &str) -> Result<Trace> {
        let path = PathBuf::from(name);
        let mut trace = if path.exists() {
            Trace::read(&path)?
        } else {
            let generator: Generator = name
                .parse()
                .map_err(|error| format!("--trace {name}: {error}"))?;
            generator.trace()?
        };
        if let Some(limit) = self.limit {
            trace.truncate(limit.max(1));
        }
        if self.ignore_ttl {
            trace
                .requests
                .iter_mut()
                .for_each(|request| request.ttl = 0);
        }
        Ok(trace)
    }
}

/// One replay.
#[derive(Clone, Copy)]
struct Cell {
    trace: usize,
    unit: Unit,
    kind: Kind,
    capacity: f64,
}

pub(crate) fn command(options: &Options) -> Result<()> {
    let traces = options.traces.load()?;
    let kinds: Vec<Kind> = if options.policies.is_empty() {
        policies::ALL.iter().map(|(_, kind)| *kind).collect()
    } else {
        options.policies.clone()
    };
    let cells = cells(options, traces.len(), &kinds);
    let ratios = replay_all(&traces, &cells, options)?;
    let report = report(options, &traces, &kinds, &cells, &ratios);
    report.publish(&options.output)
}

fn cells(options: &Options, traces: usize, kinds: &[Kind]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for trace in 0..traces {
        for &unit in &options.units {
            for &kind in kinds {
                for &capacity in &options.capacities {
                    cells.push(Cell {
                        trace,
                        unit,
                        kind,
                        capacity,
                    });
                }
            }
        }
    }
    cells
}

/// The hit ratio of each cell.
fn replay_all(traces: &[Trace], cells: &[Cell], options: &Options) -> Result<Vec<f64>> {
    let next_uses: Vec<Arc<[u32]>> = traces
        .iter()
        .map(|trace| trace.next_uses().into())
        .collect();
    let spaces: Vec<[Space; 2]> = traces
        .iter()
        .map(|trace| [Unit::Objects, Unit::Bytes].map(|unit| Space::of(trace, unit, 1.0)))
        .collect();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or(cores).clamp(1, 256);
    let progress = Progress::new(cells.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((index, cell)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            cells.get(index).map(|cell| (index, cell))
        } {
            let trace = &traces[cell.trace];
            let space = spaces[cell.trace][cell.unit as usize].resized(cell.capacity);
            let mut cache = cell
                .kind
                .cache(space, &next_uses[cell.trace], options.samples);
            done.push((index, replay(trace, &mut *cache)));
            progress.step(&format!("{} {}", trace.name, cell.kind.name()));
        }
        done
    };
    let mut ratios = vec![0.0; cells.len()];
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let done = worker.join().map_err(|_| "a replay panicked")?;
            done.into_iter()
                .for_each(|(index, ratio)| ratios[index] = ratio);
        }
        Ok(ratios)
    })
}

/// The share of requests that find a valid object.
pub(crate) fn replay(trace: &Trace, cache: &mut dyn policies::Cache) -> f64 {
    let mut valid_until = vec![u64::MAX; trace.objects()];
    let mut hits = 0u64;
    for request in &trace.requests {
        let there = cache.request(request);
        let until = &mut valid_until[request.object as usize];
        if there && *until > request.at_ms {
            hits += 1;
        } else {
            *until = match request.ttl {
                0 => u64::MAX,
                ttl => request.at_ms + u64::from(ttl) * 1000,
            };
        }
    }
    hits as f64 / trace.requests.len() as f64
}

fn report(
    options: &Options,
    traces: &[Trace],
    kinds: &[Kind],
    cells: &[Cell],
    ratios: &[f64],
) -> Report {
    let mut sections = Vec::new();
    let found = |number: usize, unit: Unit, kind: Kind| -> Vec<(f64, f64)> {
        let is = |cell: &&(Cell, f64)| {
            cell.0.trace == number && cell.0.unit == unit && cell.0.kind == kind
        };
        let all: Vec<(Cell, f64)> = cells.iter().copied().zip(ratios.iter().copied()).collect();
        all.iter()
            .filter(is)
            .map(|(cell, ratio)| (cell.capacity, *ratio))
            .collect()
    };
    for (number, trace) in traces.iter().enumerate() {
        for &unit in &options.units {
            let curves: Vec<(Kind, Vec<(f64, f64)>)> = kinds
                .iter()
                .map(|&kind| (kind, found(number, unit, kind)))
                .collect();
            sections.push(section(trace, unit, &options.capacities, &curves));
        }
    }
    let metrics = cells
        .iter()
        .zip(ratios)
        .map(|(cell, &ratio)| {
            let (trace, unit) = (&traces[cell.trace].name, cell.unit.name());
            let (policy, capacity) = (cell.kind.name(), cell.capacity);
            (
                format!("{trace}.{unit}.{policy}@{capacity}.hit_ratio"),
                ratio,
            )
        })
        .collect();
    Report {
        title: "Eviction policies".into(),
        introduction: vec![
            "Every request of a trace goes to a cache of limited capacity; what is not found is put there, and something has to go for it. \
             The curves show the share of requests that miss: lower is better, and half the misses are half the load on whatever is behind the cache."
                .into(),
            "Policies called ferrite-... are the code that the server runs, which looks at a few sampled keys for each that goes: choose one with \
             `maxmemory-policy allkeys-...`. The others, dashed, are the textbook's, exact and at any cost. belady knows the future: nothing that keeps \
             objects of one size can miss less."
                .into(),
            "Find your memory on the axis, as a fraction of what all objects would take together; the lowest thick line there is the policy to \
             choose. Where the lines are steep more memory pays, where they are flat it does not. The tables have the same as hit ratios, \
             which is one less the miss ratio."
                .into(),
        ],
        settings: traces
            .iter()
            .map(|trace| {
                let text = format!(
                    "{} requests, {} objects, {} with keys",
                    trace.requests.len(),
                    trace.objects(),
                    bytes(trace.bytes())
                );
                (trace.name.clone(), text)
            })
            .chain([
                ("samples".into(), options.samples.to_string()),
                ("ttl".into(), if options.traces.ignore_ttl { "ignored" } else { "honoured" }.into()),
            ])
            .collect(),
        sections,
        metrics,
    }
}

fn section(
    trace: &Trace,
    unit: Unit,
    capacities: &[f64],
    curves: &[(Kind, Vec<(f64, f64)>)],
) -> Section {
    let mut header = vec![format!("hit ratio at, of all {}", unit.name())];
    header.extend(capacities.iter().map(f64::to_string));
    let rows = curves
        .iter()
        .map(|(kind, points)| {
            let mut row = vec![kind.name().to_owned()];
            row.extend(points.iter().map(|(_, ratio)| format!("{ratio:.4}")));
            row
        })
        .collect();
    let lines = curves
        .iter()
        .map(|(kind, points)| Line {
            name: kind.name().into(),
            is_reference: !matches!(kind, Kind::Ferrite(_)),
            points: points
                .iter()
                .map(|&(at, ratio)| (at, 1.0 - ratio))
                .collect(),
        })
        .collect();
    let tenth = match unit {
        Unit::Objects => format!("A capacity of 0.1 is {} objects.", trace.objects() / 10),
        Unit::Bytes => format!(
            "A capacity of 0.1 is {} of keys and values.",
            bytes(trace.bytes() / 10)
        ),
    };
    Section {
        title: format!("{}, capacity in {}", trace.name, unit.name()),
        text: [tenth, best(curves)].join(" "),
        tables: vec![Table { header, rows }],
        charts: vec![Chart {
            title: format!("{}: miss ratio by {}", trace.name, unit.name()),
            x: Axis::logarithmic("capacity, as a fraction of all"),
            y: Axis::linear("miss ratio"),
            lines,
        }],
    }
}

/// Which of Ferrite's policies is best at each capacity, in words; nothing if there are none to choose from.
fn best(curves: &[(Kind, Vec<(f64, f64)>)]) -> String {
    let own: Vec<_> = curves
        .iter()
        .filter(|(kind, _)| matches!(kind, Kind::Ferrite(_)))
        .collect();
    let capacities = own.first().map_or(0, |(_, points)| points.len());
    if own.len() < 2 {
        return String::new();
    }
    let winners: Vec<String> = (0..capacities)
        .filter_map(|at| {
            let (kind, points) = own
                .iter()
                .max_by(|one, other| one.1[at].1.total_cmp(&other.1[at].1))?;
            Some(format!("{} at {}", kind.name(), points[at].0))
        })
        .collect();
    format!("Of Ferrite's policies the best is {}.", winners.join(", "))
}

fn kind(name: &str) -> std::result::Result<Kind, String> {
    policies::named(name).ok_or_else(|| {
        let names: Vec<&str> = policies::ALL.iter().map(|(name, _)| *name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

fn unit(name: &str) -> std::result::Result<Unit, String> {
    [Unit::Objects, Unit::Bytes]
        .into_iter()
        .find(|unit| unit.name() == name)
        .ok_or_else(|| "expected objects or bytes".into())
}

fn fraction(text: &str) -> std::result::Result<f64, String> {
    text.parse()
        .ok()
        .filter(|fraction| *fraction > 0.0 && *fraction <= 1.0)
        .ok_or_else(|| "expected a number above 0, at most 1".into())
}
