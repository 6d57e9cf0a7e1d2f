//! `bench load`: drives one server that is already running.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

pub(crate) mod client;
pub(crate) mod engine;
pub(crate) mod fan_out;
pub(crate) mod latency;
pub(crate) mod mix;
pub(crate) mod popularity;
pub(crate) mod probe;
pub(crate) mod reply;

use crate::load::engine::{Job, Keys, Length, Moment, Outcome};
use crate::load::mix::{Mix, Operation, Shape, ValueSize};
use crate::load::popularity::Popularity;
use crate::load::probe::{Felt, Probe};
use crate::load::reply::Protocol;
use crate::{Result, process};

/// Operations per batch while loading; fewer if values are large.
const PRELOAD_PIPELINE: usize = 64;

/// A batch while loading is at most this long.
const PRELOAD_BATCH_BYTES: usize = 256 * 1024;

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    #[arg(long, default_value_t = 6379)]
    port: u16,
    /// resp or memcached
    #[arg(long, default_value = "resp")]
    protocol: Protocol,
    /// Client threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Connections, over all threads
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Operations per batch; with --rate, the most in flight per connection
    #[arg(long, default_value_t = 1)]
    pipeline: usize,
    /// Open loop: operations per second, over all threads; latency counts from the time an operation was due
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    #[arg(long, default_value_t = 16)]
    key_size: usize,
    /// Bytes, or smallest-largest
    #[arg(long, default_value = "64")]
    value_size: ValueSize,
    /// Share of GETs, the others are SETs
    #[arg(long, default_value_t = 0.9, conflicts_with_all = ["mix", "command"])]
    read_ratio: f64,
    /// Named operations with weights: get=9,set=1,mget:10=1
    #[arg(long, conflicts_with = "command")]
    mix: Option<String>,
    /// An operation written out, with a weight: '3:HSET {key} field {value}' (may be given several times)
    #[arg(long)]
    command: Vec<String>,
    /// uniform, zipf[:theta] or gaussian[:deviation as a share of the keys]
    #[arg(long, default_value = "uniform")]
    popularity: Popularity,
    /// Store every key once before measuring
    #[arg(long)]
    preload: bool,
    /// Only preload
    #[arg(long)]
    preload_only: bool,
    /// Seconds before measuring
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Seconds to measure
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Measure this many operations instead of a time, without warm-up
    #[arg(long)]
    operations: Option<u64>,
    /// Go through the keys in order instead of drawing them
    #[arg(long)]
    in_order: bool,
    /// Connect anew for every batch
    #[arg(long)]
    reconnect: bool,
    /// Publish to this many subscribers instead of sending a mix; --pipeline is the number of messages in flight
    #[arg(long, value_name = "SUBSCRIBERS")]
    fan_out: Option<usize>,
    /// Beside the load, one GET each 200 us on a connection of its own
    #[arg(long)]
    probe: bool,
    /// Only the probe, no load
    #[arg(long)]
    probe_only: bool,
    /// Cores for the client threads
    #[arg(long, value_delimiter = ',')]
    cores: Vec<usize>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the result as JSON to this file, - for standard output
    #[arg(long)]
    json: Option<String>,
    /// No progress lines
    #[arg(long)]
    quiet: bool,
}

pub(crate) fn command(options: &Options) -> Result<()> {
    process::raise_file_limit();
    options.check()?;
    let target = resolve(&options.host, options.port)?;
    if options.preload || options.preload_only {
        preload(options, target)?;
        if options.preload_only {
            return Ok(());
        }
    }
    let probe = match options.probe || options.probe_only {
        true => Some(Probe::start(
            target,
            options.protocol,
            probe::INTERVAL,
            1,
            &options.cores,
        )?),
        false => None,
    };
    let mut watch = |moment: Moment| match moment {
        Moment::Opened => {
            if let Some(probe) = &probe {
                probe.enter(0);
            }
        }
        Moment::Progress {
            elapsed,
            operations,
        } if !options.quiet => {
            let seconds = elapsed.as_secs_f64();
            eprintln!(
                "{seconds:6.1} s  {operations:>12} operations  {:>11.0}/s",
                operations as f64 / seconds
            );
        }
        Moment::Progress { .. } => {}
        Moment::Closed => {
            if let Some(probe) = &probe {
                probe.rest();
            }
        }
    };
    let outcome = if options.probe_only {
        watch(Moment::Opened);
        std::thread::sleep(Duration::from_secs_f64(options.duration));
        None
    } else if let Some(subscribers) = options.fan_out {
        let fan_out = fan_out::FanOut {
            target,
            subscribers,
            window: options.pipeline,
            message_size: options.value_size.largest,
            warm_up: Duration::from_secs_f64(options.warm_up),
            measured: Duration::from_secs_f64(options.duration),
            cores: options.cores.clone(),
            background: options.probe,
        };
        Some(fan_out.run(&mut watch)?)
    } else {
        Some(engine::run(&options.job(target)?, &mut watch)?)
    };
    let felt = probe.map(Probe::finish).transpose()?;
    report(
        options,
        outcome.as_ref(),
        felt.as_ref().and_then(|felt| felt.first()),
    )
}

impl Options {
    fn check(&self) -> Result<()> {
        let positive = |seconds: f64| seconds.is_finite() && (0.0..1e9).contains(&seconds);
        if self.keys == 0
            || self.pipeline == 0
            || self.threads == 0
            || self.connections == 0
            || self.fan_out == Some(0)
        {
            return Err(
                "keys, pipeline, threads, connections and subscribers must be at least 1".into(),
            );
        }
        if !positive(self.warm_up)
            || !positive(self.duration)
            || !(0.0..=1.0).contains(&self.read_ratio)
        {
            return Err("times must be positive and the read ratio between 0 and 1".into());
        }
        if self
            .rate
            .is_some_and(|rate| !(rate.is_finite() && rate > 0.0))
        {
            return Err("the rate must be positive".into());
        }
        if self.rate.is_some() && self.reconnect {
            return Err("an open loop keeps its connections".into());
        }
        Ok(())
    }

    fn shape(&self) -> Shape {
        Shape {
            protocol: self.protocol,
            keys: self.keys,
            key_size: self.key_size,
            value_size: self.value_size,
        }
    }

    fn mix(&self) -> Result<Mix> {
        if !self.command.is_empty() {
            let operations: Vec<_> = self.command.iter().map(|text| weighted(text)).collect();
            return Mix::of(&operations, self.shape());
        }
        let by_ratio = || {
            let reads = (self.read_ratio * 1000.0).round() as usize;
            format!("get={reads},set={}", 1000 - reads)
        };
        Mix::named(&self.mix.clone().unwrap_or_else(by_ratio), self.shape())
    }

    fn job(&self, target: SocketAddr) -> Result<Job> {
        Ok(Job {
            target,
            protocol: self.protocol,
            mix: self.mix()?,
            keys: match self.in_order {
                true => Keys::InOrder { count: self.keys },
                false => Keys::Drawn {
                    count: self.keys,
                    popularity: self.popularity,
                },
            },
            threads: self.threads,
            connections: self.connections,
            pipeline: self.pipeline,
            rate: self.rate,
            length: match self.operations {
                Some(operations) => Length::Operations(operations),
                None => Length::Time {
                    warm_up: Duration::from_secs_f64(self.warm_up),
                    measured: Duration::from_secs_f64(self.duration),
                },
            },
            reconnect: self.reconnect,
            cores: self.cores.clone(),
            background: self.probe,
            seed: self.seed,
        })
    }
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr> {
    (host, port)
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| format!("{host} has no address").into())
}

/// Splits `3:GET {key}` into weight and text. `\n` stands for a line end.
fn weighted(text: &str) -> Operation {
    let (weight, text) = match text.split_once(':') {
        Some((weight, rest)) => weight.parse().map_or((1, text), |weight| (weight, rest)),
        None => (1, text),
    };
    Operation {
        weight,
        text: text.replace("\\n", "\n"),
        value_size: None,
    }
}

/// A job that runs `mix` once per key, in order, as fast as possible.
pub(crate) fn filling_job(target: SocketAddr, protocol: Protocol, mix: Mix, keys: u64) -> Job {
    let pipeline =
        (PRELOAD_BATCH_BYTES / mix.largest_operation().max(1)).clamp(1, PRELOAD_PIPELINE);
    Job {
        target,
        protocol,
        mix,
        keys: Keys::InOrder { count: keys },
        threads: 1,
        connections: 16,
        pipeline,
        rate: None,
        length: Length::Operations(keys),
        reconnect: false,
        cores: Vec::new(),
        background: false,
        seed: 1,
    }
}

fn preload(options: &Options, target: SocketAddr) -> Result<()> {
    let mut job = filling_job(
        target,
        options.protocol,
        Mix::named("set", options.shape())?,
        options.keys,
    );
    job.threads = options.threads;
    job.cores.clone_from(&options.cores);
    let outcome = engine::run(&job, &mut |_| {})?;
    if let Some(error) = outcome.tally.first_error {
        return Err(format!("preloading: {error}").into());
    }
    if !options.quiet {
        eprintln!(
            "{} keys loaded at {:.0}/s",
            outcome.operations,
            outcome.operations_per_second()
        );
    }
    Ok(())
}

fn report(options: &Options, outcome: Option<&Outcome>, felt: Option<&Felt>) -> Result<()> {
    if let Some(outcome) = outcome {
        println!(
            "{} operations in {:.2} s: {:.0}/s",
            outcome.operations,
            outcome.seconds,
            outcome.operations_per_second()
        );
        println!("latency  {}", outcome.latency.line());
        println!(
            "misses {}  errors {}",
            outcome.tally.misses, outcome.tally.errors
        );
        if let Some(error) = &outcome.tally.first_error {
            println!("first error: {error}");
        }
    }
    if let Some(felt) = felt {
        println!("probe    {}", felt.line());
    }
    let Some(path) = &options.json else {
        return Ok(());
    };
    let text = serde_json::to_string_pretty(&json!({
        "load": outcome.map(outcome_json),
        "probe": felt.map(Felt::json),
        "pipeline": options.pipeline, "connections": options.connections, "threads": options.threads,
        "keys": options.keys, "rate": options.rate,
    }))?;
    match path.as_str() {
        "-" => println!("{text}"),
        path => std::fs::write(path, text + "\n")?,
    }
    Ok(())
}

fn outcome_json(outcome: &Outcome) -> Value {
    json!({
        "operations": outcome.operations,
        "seconds": outcome.seconds,
        "operations_per_second": outcome.operations_per_second(),
        "latency": outcome.latency.json(),
        "misses": outcome.tally.misses,
        "errors": outcome.tally.errors,
        "first_error": outcome.tally.first_error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_carry_a_weight() {
        let read = |text| {
            let operation = weighted(text);
            (operation.weight, operation.text)
        };
        assert_eq!(read("3:GET {key}"), (3, "GET {key}".into()));
        assert_eq!(read("GET {key}"), (1, "GET {key}".into()));
        assert_eq!(read("GET a:{key}"), (1, "GET a:{key}".into()));
        assert_eq!(read(r"get {key}\n").1, "get {key}\n");
    }
}
