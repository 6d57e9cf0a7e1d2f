//! Servers beside each other at equal real memory: the hit ratios that their users would see.
//!
//! A limit means something else to every server: what is counted, and what the allocator wastes, differs by tens of
//! percent. So the limit of each is found by trial: the trace is replayed fast, the resident memory looked at and the
//! limit corrected, until the process takes what it should. Then a new process replays the trace at its pace, and once
//! more with another limit if at that pace it takes something else.

use std::path::{Path, PathBuf};

use clap::Args;

use super::eviction::TraceOptions;
use super::live::{self, Outcome, Pace};
use super::progress::Progress;
use super::report::{Output, Report, Section, Table, bytes};
use super::spawn::{self, Contender, Program, Running};
use super::trace::Trace;
use crate::{Result, process};

/// Trials to find a limit, and how near is near enough.
const TRIALS: usize = 6;
const TOLERANCE: f64 = 0.015;
/// Replays at the pace, of which the one counts whose memory is nearest to what it should be.
const PACED_TRIALS: usize = 3;
/// Above or below what it should take by so much, a server is not comparable.
const OFF: f64 = 0.03;
/// What a server takes without data, about.
const IDLE_BYTES: u64 = 24_000_000;
const LIMIT_MIN: u64 = 3 << 20;

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    traces: TraceOptions,
    /// Megabytes (10^6 bytes) of resident memory for each trace, in their order; by default 24 and a tenth of the trace's bytes
    #[arg(long, value_delimiter = ',', value_name = "MB")]
    memory: Vec<u32>,
    /// Servers to compare, by name; all that are installed if none is named
    #[arg(long, value_delimiter = ',', value_parser = contender)]
    servers: Vec<Contender>,
    /// The Ferrite to measure; the one beside this program by default
    #[arg(long, value_name = "PROGRAM")]
    ferrite: Option<PathBuf>,
    /// Where to look for other servers before the PATH
    #[arg(long, value_name = "DIRECTORY", default_value_os_t = default_peers())]
    peers: PathBuf,
    #[command(flatten)]
    pace: Pace,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn command(options: &Options) -> Result<()> {
    let traces = options.traces.load()?;
    let contenders = installed(options)?;
    let mut sections = Vec::new();
    let mut metrics = Vec::new();
    let mut ratios: Vec<Vec<f64>> = Vec::new();
    for (number, trace) in traces.iter().enumerate() {
        let target_bytes = match options.memory.get(number) {
            Some(&megabytes) => u64::from(megabytes) * 1_000_000,
            None => IDLE_BYTES + trace.bytes() / 10,
        };
        let mut outcomes: Vec<(String, Outcome)> = Vec::new();
        for (contender, path) in &contenders {
            let outcome = measure(*contender, path, trace, target_bytes, &options.pace)?;
            if off(&outcome, target_bytes) > OFF {
                eprintln!("{} does not take what it should", contender.name);
            }
            println!(
                "{} {}: hit ratio {:.4}, {}",
                trace.name,
                contender.name,
                outcome.hit_ratio(),
                bytes(outcome.resident().0)
            );
            outcomes.push((contender.name.to_owned(), outcome));
        }
        ratios.push(
            outcomes
                .iter()
                .map(|(_, outcome)| outcome.hit_ratio())
                .collect(),
        );
        for (name, outcome) in &outcomes {
            metrics.extend(live::metrics(&format!("{}.{name}", trace.name), outcome));
        }
        let title = format!("{} in {}", trace.name, bytes(target_bytes));
        let shown: Vec<(String, &Outcome)> = outcomes
            .iter()
            .map(|(name, outcome)| (name.clone(), outcome))
            .collect();
        sections.push(live::section(&title, &shown));
    }
    sections.insert(0, summary(&traces, &contenders, &ratios));
    let report = Report {
        title: "Servers at equal real memory".into(),
        introduction: vec![
            "Each server replayed the same trace (a get, and a set of what was not found) with its limit chosen so that the process takes the same \
             resident memory. What differs is how much of it is data, and whether the right data is kept."
                .into(),
        ],
        settings: traces
            .iter()
            .map(|trace| (trace.name.clone(), live::describe(trace)))
            .chain([
                ("machine".into(), process::machine()),
                ("duration".into(), format!("{} s per replay", options.pace.duration)),
            ])
            .collect(),
        sections,
        metrics,
    };
    report.publish(&options.output)
}

fn installed(options: &Options) -> Result<Vec<(Contender, PathBuf)>> {
    let wanted = if options.servers.is_empty() {
        spawn::ALL
    } else {
        &options.servers
    };
    let mut found = Vec::new();
    for &contender in wanted {
        match contender.find(options.ferrite.as_deref(), &options.peers)? {
            Some(path) => found.push((contender, path)),
            None if options.servers.is_empty() => eprintln!("{} is not installed", contender.name),
            None => return Err(format!("{} is not installed", contender.name).into()),
        }
    }
    if found.is_empty() {
        return Err("no server is installed: build ferrite, or name it with --ferrite".into());
    }
    Ok(found)
}

/// Finds the limit by fast replays, then replays at the pace.
fn measure(
    contender: Contender,
    path: &Path,
    trace: &Trace,
    target_bytes: u64,
    pace: &Pace,
) -> Result<Outcome> {
    let fast = Pace {
        duration: 0.0,
        ..pace.clone()
    };
    let run = |limit: u64, pace: &Pace| -> Result<Outcome> {
        let server = Running::start(contender, path, limit)?;
        let progress = Progress::new(trace.requests.len());
        live::replay(
            trace,
            server.target,
            contender.protocol(),
            pace,
            Some(&progress),
        )
    };
    let mut limit = target_bytes;
    let mut best = (f64::INFINITY, limit);
    for _ in 0..TRIALS {
        let outcome = run(limit, &fast)?;
        let off = off(&outcome, target_bytes);
        if off < best.0 {
            best = (off, limit);
        }
        match corrected(contender, limit, &outcome, target_bytes) {
            Some(other) if off > TOLERANCE => limit = other,
            _ => break,
        }
    }
    let mut limit = best.1;
    let mut nearest = run(limit, pace)?;
    let mut last = corrected(contender, limit, &nearest, target_bytes);
    for _ in 1..PACED_TRIALS {
        let Some(other) = last.filter(|_| off(&nearest, target_bytes) > OFF) else {
            break;
        };
        limit = other;
        let outcome = run(limit, pace)?;
        last = corrected(contender, limit, &outcome, target_bytes);
        if off(&outcome, target_bytes) < off(&nearest, target_bytes) {
            nearest = outcome;
        }
    }
    Ok(nearest)
}

/// How far the memory taken is from what it should be, as a part of that.
fn off(outcome: &Outcome, target_bytes: u64) -> f64 {
    let (resident, _) = outcome.resident();
    (resident as f64 / target_bytes as f64 - 1.0).abs()
}

/// The limit to try next; `None` if it would be the same.
fn corrected(
    contender: Contender,
    limit: u64,
    outcome: &Outcome,
    target_bytes: u64,
) -> Option<u64> {
    let (resident, _) = outcome.resident();
    let other = (limit + target_bytes)
        .saturating_sub(resident)
        .max(LIMIT_MIN);
    let same = match contender.program {
        // Takes whole megabytes.
        Program::Memcached => other >> 20 == limit >> 20,
        _ => other == limit,
    };
    (!same).then_some(other)
}

/// All traces in one table, with the mean.
fn summary(traces: &[Trace], contenders: &[(Contender, PathBuf)], ratios: &[Vec<f64>]) -> Section {
    let mut header = vec!["hit ratio".to_owned()];
    header.extend(traces.iter().map(|trace| trace.name.clone()));
    header.push("mean".into());
    let rows = contenders
        .iter()
        .enumerate()
        .map(|(place, (contender, _))| {
            let own: Vec<f64> = ratios.iter().map(|ratios| ratios[place]).collect();
            let mean = own.iter().sum::<f64>() / own.len().max(1) as f64;
            std::iter::once(contender.name.to_owned())
                .chain(own.iter().chain([&mean]).map(|ratio| format!("{ratio:.4}")))
                .collect()
        })
        .collect();
    Section {
        title: "All traces".into(),
        text: "The share of requests that found a valid value.".into(),
        tables: vec![Table { header, rows }],
        charts: Vec::new(),
    }
}

fn default_peers() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
    home.join(".cache/ferrite-peers/bin")
}

fn contender(name: &str) -> std::result::Result<Contender, String> {
    let all = spawn::ALL;
    all.iter()
        .find(|contender| contender.name == name)
        .copied()
        .ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|contender| contender.name).collect();
            format!("expected one of {}", names.join(", "))
        })
}
