//! How an application uses its cache: strategies for reading and writing under the same load, against a server and a
//! modelled backend.
//!
//! Requests are due at fixed times and their latency counts from then, so that a slow backend is felt as users would feel
//! it. The cache is filled before the clock starts, every key at the same moment: this is what happens after a
//! deployment, and it shows which strategies let expiries come together.

mod backend;
mod cached;
mod client;
mod run;
mod strategy;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use self::backend::Model;
use self::run::{Cache, Findings, Load};
use self::strategy::Strategy;
use super::live::resolve;
use super::report::{Axis, Chart, Line, Output, Report, Section, Table, bytes, figure};
use super::spawn::{self, Running};
use super::wire::Wire;
use crate::load::reply::Protocol;
use crate::{Result, process};

/// The started server's limit: more than any run needs.
const LIMIT_BYTES: u64 = 4 << 30;
const HOURS_PER_MONTH: f64 = 730.0;
const SECONDS_PER_MONTH: f64 = HOURS_PER_MONTH * 3600.0;

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Strategies to compare, by name; all if none is named
    #[arg(long, value_delimiter = ',', value_parser = Strategy::named)]
    strategies: Vec<Strategy>,
    /// A server that runs, which will be emptied; by default the tool starts the Ferrite beside it
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    /// The same server's memcached port, for stale-while-revalidate
    #[arg(long, value_name = "HOST:PORT", requires = "server")]
    memcached: Option<String>,
    /// The Ferrite to start
    #[arg(long, value_name = "PROGRAM")]
    ferrite: Option<PathBuf>,
    /// Requests per second
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
    /// Seconds for each strategy
    #[arg(long, default_value_t = 20.0)]
    duration: f64,
    /// Threads that ask; requests wait when all do
    #[arg(long, default_value_t = 128)]
    clients: usize,
    /// Keys that the backend has
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    keys: u32,
    /// Zipf's exponent of their popularity
    #[arg(long, default_value_t = 0.99)]
    theta: f64,
    /// Share of requests that write
    #[arg(long, default_value_t = 0.02)]
    writes: f64,
    /// Share of requests for keys that do not exist
    #[arg(long, default_value_t = 0.03)]
    absent: f64,
    /// Seconds that values may be cached
    #[arg(long, default_value_t = 5.0)]
    ttl: f64,
    /// Bytes of a value
    #[arg(long, default_value_t = 512)]
    value_size: usize,
    /// Milliseconds that the median call of the backend takes
    #[arg(long, default_value_t = 20.0)]
    backend_latency: f64,
    /// How much calls differ: the deviation of the latency's logarithm
    #[arg(long, default_value_t = 0.5)]
    backend_deviation: f64,
    /// Calls that the backend works on at once
    #[arg(long, default_value_t = 32)]
    backend_concurrency: u32,
    /// When the backend fails, as parts of the duration: 0.6-0.7; "none" for never
    #[arg(long, default_value = "0.6-0.65", value_parser = window)]
    failure: Window,
    /// Prices: of a GB of cache for an hour, and of a million calls of the backend
    #[arg(long, default_value = "gb-hour=0.02,million-calls=1.5")]
    prices: Prices,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    output: Output,
}

/// Parts of the duration.
#[derive(Clone, Copy, Debug)]
struct Window {
    from: f64,
    to: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Prices {
    gigabyte_hour: f64,
    million_calls: f64,
}

impl FromStr for Prices {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let mut prices = Self {
            gigabyte_hour: 0.0,
            million_calls: 0.0,
        };
        for item in text.split(',') {
            let (name, price) = item.split_once('=').ok_or("expected name=price")?;
            let price = price
                .parse()
                .ok()
                .filter(|price| (0.0..1e12).contains(price))
                .ok_or_else(|| format!("{price} is no price"))?;
            match name {
                "gb-hour" => prices.gigabyte_hour = price,
                "million-calls" => prices.million_calls = price,
                _ => return Err("expected gb-hour and million-calls".into()),
            }
        }
        Ok(prices)
    }
}

impl Prices {
    /// For a month of this.
    fn monthly(self, findings: &Findings, seconds: f64) -> f64 {
        let memory = (findings.memory_bytes + findings.near_bytes) as f64 / 1e9;
        let calls = findings.calls.iter().sum::<u64>() as f64 / seconds;
        memory * HOURS_PER_MONTH * self.gigabyte_hour
            + calls * SECONDS_PER_MONTH / 1e6 * self.million_calls
    }
}

pub(crate) fn command(options: &Options) -> Result<()> {
    let (load, model) = settings(options)?;
    let mut strategies = options.strategies.clone();
    if strategies.is_empty() {
        strategies = strategy::ALL
            .iter()
            .map(|(_, strategy, _)| *strategy)
            .collect();
    }
    let (cache, _running) = cache(options)?;
    let mut all = Vec::new();
    for strategy in strategies {
        if strategy == Strategy::StaleWhileRevalidate && cache.memcached.is_none() {
            eprintln!("{} needs --memcached: left out", strategy.name());
            continue;
        }
        let findings = run::run(strategy, &load, &model, cache)?;
        println!(
            "{}: hit ratio {:.4}, p99 {} ms",
            strategy.name(),
            hit_ratio(&findings),
            figure(findings.latency.p99_us / 1e3)
        );
        all.push(findings);
    }
    report(options, &all).publish(&options.output)
}

fn settings(options: &Options) -> Result<(Load, Model)> {
    let within = |name: &str, value: f64, from: f64, to: f64| -> Result<()> {
        if (from..=to).contains(&value) {
            Ok(())
        } else {
            Err(format!("--{name} must be from {from} to {to}").into())
        }
    };
    within("rate", options.rate, 1.0, 1e6)?;
    within("duration", options.duration, 1.0, 1e5)?;
    within("ttl", options.ttl, 0.1, 1e6)?;
    within("theta", options.theta, 0.01, 10.0)?;
    within("writes", options.writes, 0.0, 1.0)?;
    within("absent", options.absent, 0.0, 1.0 - options.writes)?;
    within("clients", options.clients as f64, 1.0, 10_000.0)?;
    within("value-size", options.value_size as f64, 0.0, 1e7)?;
    within("backend-latency", options.backend_latency, 0.0, 1e5)?;
    within("backend-deviation", options.backend_deviation, 0.0, 3.0)?;
    let duration = Duration::from_secs_f64(options.duration);
    let load = Load {
        rate: options.rate,
        duration,
        clients: options.clients,
        theta: options.theta,
        writes: options.writes,
        absent: options.absent,
        ttl: Duration::from_secs_f64(options.ttl),
        value_size: options.value_size,
        seed: options.seed,
    };
    let model = Model {
        keys: options.keys,
        latency: Duration::from_secs_f64(options.backend_latency / 1e3),
        deviation: options.backend_deviation,
        concurrency: options.backend_concurrency,
        failure: (
            duration.mul_f64(options.failure.from),
            duration.mul_f64(options.failure.to),
        ),
    };
    Ok((load, model))
}

/// The server that was named, or one that is started.
fn cache(options: &Options) -> Result<(Cache, Option<Running>)> {
    let (resp, memcached, running) = match &options.server {
        Some(server) => {
            let memcached = options.memcached.as_deref().map(resolve).transpose()?;
            (resolve(server)?, memcached, None)
        }
        None => {
            let ferrite = spawn::ALL[0];
            let path = ferrite
                .find(options.ferrite.as_deref(), &PathBuf::new())?
                .ok_or("there is no ferrite beside this program: build it, or use --server")?;
            let running = Running::start(ferrite, &path, LIMIT_BYTES)?;
            (running.target, running.memcached, Some(running))
        }
    };
    let process = Wire::connect(resp, Protocol::Resp)?
        .process()
        .ok()
        .filter(|_| resp.ip().is_loopback());
    let cache = Cache {
        resp,
        memcached,
        process,
    };
    Ok((cache, running))
}

fn report(options: &Options, all: &[Findings]) -> Report {
    Report {
        title: "Caching strategies".into(),
        introduction: vec![format!(
            "{} requests a second for {} s, {}% of them writes and {}% for keys that do not exist, from {} clients that do not wait for each other. \
                 The backend's median call takes {} ms, {} run at once, and all fail {}. Values may be cached for {} s, \
                 and all are cached at the start.",
            options.rate,
            options.duration,
            figure(options.writes * 100.0),
            figure(options.absent * 100.0),
            options.clients,
            options.backend_latency,
            options.backend_concurrency,
            options.failure.describe(options.duration),
            options.ttl
        )],
        settings: strategy::ALL
            .iter()
            .map(|(name, _, what)| ((*name).to_owned(), (*what).to_owned()))
            .chain([("machine".to_owned(), process::machine())])
            .collect(),
        sections: vec![for_users(all), for_backend(options, all)],
        metrics: all
            .iter()
            .flat_map(|findings| metrics(options, findings))
            .collect(),
    }
}

/// What users notice.
fn for_users(all: &[Findings]) -> Section {
    let header = [
        "",
        "hit ratio",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "failed",
        "stale reads",
        "mean age ms",
        "max age ms",
        "lost updates",
        "stale at rest",
    ];
    let rows = all
        .iter()
        .map(|findings| {
            let latency = &findings.latency;
            vec![
                findings.strategy.name().to_owned(),
                format!("{:.4}", hit_ratio(findings)),
                figure(latency.p50_us / 1e3),
                figure(latency.p99_us / 1e3),
                figure(latency.p999_us / 1e3),
                findings.failed.to_string(),
                findings.stale.to_string(),
                figure(stale_ms(findings)),
                findings.stale_ms_max.to_string(),
                findings.lost_updates.to_string(),
                findings.stale_at_rest.to_string(),
            ]
        })
        .collect();
    Section {
        title: "What users notice".into(),
        text: "A read is stale if its value had been replaced when the read began; its age is the time since. Updates are lost if a client was told \
               that they are done and the backend does not have them at the end, where the writer dies. Stale at rest are keys whose cached value is old at the end."
            .into(),
        tables: vec![Table {
            header: header.map(str::to_owned).to_vec(),
            rows,
        }],
        charts: vec![over_time("hit ratio over time", "hit ratio", all, |findings| {
            findings
                .seconds
                .iter()
                .map(|(reads, hits)| *hits as f64 / (*reads).max(1) as f64)
                .collect()
        })],
    }
}

/// What the backend and whoever pays for it notice.
fn for_backend(options: &Options, all: &[Findings]) -> Section {
    let header = [
        "",
        "calls/s",
        "peak calls/s",
        "calls per hot expiry",
        "at most",
        "memory",
        "in clients",
        "cost a month",
    ];
    let rows = all
        .iter()
        .map(|findings| {
            vec![
                findings.strategy.name().to_owned(),
                figure(calls_per_second(options, findings)),
                (findings.calls_peak * 10).to_string(),
                figure(findings.burst_mean),
                findings.burst_max.to_string(),
                bytes(findings.memory_bytes),
                bytes(findings.near_bytes),
                figure(options.prices.monthly(findings, options.duration)),
            ]
        })
        .collect();
    Section {
        title: "What the backend notices".into(),
        text: format!(
            "The peak is that of a tenth of a second. Calls per hot expiry are those that begin together for one of the ten keys asked for most: \
             more than one is a stampede. Cost is that of memory at {} per GB and hour and of calls at {} per million.",
            options.prices.gigabyte_hour, options.prices.million_calls
        ),
        tables: vec![Table {
            header: header.map(str::to_owned).to_vec(),
            rows,
        }],
        charts: vec![over_time(
            "backend calls over time",
            "calls per second",
            all,
            |findings| findings.calls.iter().map(|&calls| calls as f64).collect(),
        )],
    }
}

fn over_time(
    title: &str,
    label: &str,
    all: &[Findings],
    values: impl Fn(&Findings) -> Vec<f64>,
) -> Chart {
    Chart {
        title: title.to_owned(),
        x: Axis::linear("seconds"),
        y: Axis::linear(label),
        lines: all
            .iter()
            .map(|findings| Line {
                name: findings.strategy.name().to_owned(),
                is_reference: false,
                points: values(findings)
                    .into_iter()
                    .enumerate()
                    .map(|(second, value)| (second as f64 + 0.5, value))
                    .collect(),
            })
            .collect(),
    }
}

fn metrics(options: &Options, findings: &Findings) -> Vec<(String, f64)> {
    let latency = &findings.latency;
    let reads = findings.reads.max(1) as f64;
    [
        ("hit_ratio", hit_ratio(findings)),
        ("p50_ms", latency.p50_us / 1e3),
        ("p99_ms", latency.p99_us / 1e3),
        ("p999_ms", latency.p999_us / 1e3),
        ("failed", findings.failed as f64),
        ("stale_ratio", findings.stale as f64 / reads),
        ("stale_mean_ms", stale_ms(findings)),
        ("stale_max_ms", findings.stale_ms_max as f64),
        ("lost_updates", findings.lost_updates as f64),
        ("stale_at_rest", findings.stale_at_rest as f64),
        (
            "backend_calls_per_second",
            calls_per_second(options, findings),
        ),
        (
            "backend_calls_peak_per_second",
            findings.calls_peak as f64 * 10.0,
        ),
        ("calls_per_hot_expiry", findings.burst_mean),
        ("calls_per_hot_expiry_max", findings.burst_max as f64),
        ("memory_bytes", findings.memory_bytes as f64),
        ("client_memory_bytes", findings.near_bytes as f64),
        (
            "cost_per_month",
            options.prices.monthly(findings, options.duration),
        ),
    ]
    .map(|(name, value)| (format!("{}.{name}", findings.strategy.name()), value))
    .to_vec()
}

fn hit_ratio(findings: &Findings) -> f64 {
    findings.hits as f64 / findings.reads.max(1) as f64
}

fn stale_ms(findings: &Findings) -> f64 {
    findings.stale_ms_sum as f64 / findings.stale.max(1) as f64
}

fn calls_per_second(options: &Options, findings: &Findings) -> f64 {
    findings.calls.iter().sum::<u64>() as f64 / options.duration
}

impl Window {
    fn describe(self, duration: f64) -> String {
        if self.from >= self.to {
            return "never".into();
        }
        format!(
            "from second {} to second {}",
            figure(self.from * duration),
            figure(self.to * duration)
        )
    }
}

fn window(text: &str) -> std::result::Result<Window, String> {
    if text == "none" {
        return Ok(Window { from: 0.0, to: 0.0 });
    }
    let part =
        |text: &str| -> Option<f64> { text.parse().ok().filter(|part| (0.0..=1.0).contains(part)) };
    text.split_once('-')
        .and_then(|(from, to)| {
            Some(Window {
                from: part(from)?,
                to: part(to)?,
            })
        })
        .ok_or_else(|| "expected two parts of 1, such as 0.6-0.7, or none".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_read_from_text() {
        assert_eq!(
            "gb-hour=0.5,million-calls=2".parse(),
            Ok(Prices {
                gigabyte_hour: 0.5,
                million_calls: 2.0
            })
        );
        for wrong in ["", "gb-hour", "gb-hour=-1", "tea=2"] {
            assert!(wrong.parse::<Prices>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn failures_are_parts_of_the_duration() {
        let failure = window("0.5-0.75").unwrap();
        assert_eq!((failure.from, failure.to), (0.5, 0.75));
        assert_eq!(window("none").unwrap().describe(10.0), "never");
        assert!(window("0.5").is_err() && window("0.5-2").is_err());
    }
}
