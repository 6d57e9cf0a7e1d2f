//! Counts user-space instructions per command with valgrind's callgrind.
//!
//! Instructions hardly depend on what else the machine does, which makes them fit for a check in CI where time is not. The
//! server runs once under callgrind; before and after each command's requests the counters are written out and set to zero, so
//! that start-up and filling do not count. What the server does by the clock is measured while nobody asks and taken off.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::Result;
use crate::load::engine::{self, Job, Keys, Length};
use crate::load::filling_job;
use crate::load::mix::{Mix, Shape, ValueSize, speaks};
use crate::load::popularity::Popularity;
use crate::load::reply::Protocol;
use crate::peers::default_peers;
use crate::peers::servers::{Contestant, Server, Setting};

const KEYS: u64 = 20_000;

/// Requests measured per command and pipeline depth, after a tenth of as many to warm up.
const REQUESTS: u64 = 20_000;

/// How long the idle server is watched.
const IDLE: Duration = Duration::from_secs(2);

/// Connections the requests come from: enough that the server finds several ready at each wait.
const CONNECTIONS: usize = 50;

/// Writing the counters out takes milliseconds; under load more.
const DUMP_WITHIN: Duration = Duration::from_secs(30);

const STRINGS: &[&str] = &["get", "set"];
const TYPES: &[&str] = &[
    "incr",
    "mget:10",
    "zadd",
    "zincrby",
    "zrank",
    "zrevrange",
    "hset",
    "hget",
    "lpush",
    "rpop",
    "sadd",
    "xadd",
];
const PIPELINES: [usize; 2] = [1, 16];

/// What is counted on the current main line, as `.ci/run` checks it; from the workspace's root.
const BASELINE: &str = "bench/instructions.json";

#[derive(Args)]
pub(crate) struct Options {
    /// The server to count: ferrite, ferrite-mc, floor, valkey ...
    #[arg(long, default_value = "ferrite")]
    server: String,
    /// Named operations [default: get and set]
    #[arg(long, value_delimiter = ',', conflicts_with = "all")]
    commands: Vec<String>,
    /// Commands of the other data types too
    #[arg(long)]
    all: bool,
    /// Pipeline depths; at 1 the counts depend on how many clients ask at once, and vary
    #[arg(long, value_delimiter = ',', default_values_t = PIPELINES)]
    pipeline: Vec<usize>,
    /// The ferrite program [default: beside this one]
    #[arg(long)]
    ferrite: Option<PathBuf>,
    /// Where the other servers are, before PATH
    #[arg(long)]
    peers: Option<PathBuf>,
    /// Fail if a command needs more instructions than this file says
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = BASELINE)]
    check: Option<PathBuf>,
    /// How much more is tolerated with --check
    #[arg(long, default_value = "3%")]
    margin: String,
    /// Write the counts to this file, for --check
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = BASELINE)]
    write: Option<PathBuf>,
}

pub(crate) fn command(options: &Options) -> Result<()> {
    let margin = percent(&options.margin)?;
    let baseline = options.check.as_deref().map(read_baseline).transpose()?;
    let peers = options.peers.clone().unwrap_or_else(default_peers);
    let contestants = Contestant::installed(
        std::slice::from_ref(&options.server),
        options.ferrite.as_deref(),
        &peers,
    )?;
    let contestant = contestants.first().ok_or("no such server")?;
    let counts = Counter::start(contestant)?.count(&options.commands(), &options.pipeline)?;
    if let Some(path) = &options.write {
        let rounded: BTreeMap<&str, u64> = counts
            .iter()
            .map(|(name, count)| (name.as_str(), count.round() as u64))
            .collect();
        fs::write(path, serde_json::to_string_pretty(&json!(rounded))? + "\n")?;
    }
    match baseline {
        Some(baseline) => check(&counts, &baseline, margin),
        None => Ok(()),
    }
}

impl Options {
    fn commands(&self) -> Vec<String> {
        let own = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        match (self.commands.is_empty(), self.all) {
            (false, _) => self.commands.clone(),
            (true, false) => own(STRINGS),
            (true, true) => own(&[STRINGS, TYPES].concat()),
        }
    }
}

/// A server under callgrind whose counters can be read.
struct Counter {
    server: Server,
    dumps: u32,
    idle_per_second: f64,
}

impl Counter {
    fn start(contestant: &Contestant) -> Result<Self> {
        // %p keeps the files of wrapper scripts apart from the server's.
        let wrapper = [
            "valgrind",
            "--tool=callgrind",
            "--trace-children=yes",
            "--callgrind-out-file=callgrind.%p",
            "-q",
        ];
        let setting = Setting {
            threads: 1,
            cores: Vec::new(),
            value_size: 64,
            max_clients: 4 * CONNECTIONS,
        };
        let server = Server::start_under(&wrapper.map(str::to_owned), contestant, &setting)?;
        Ok(Self {
            server,
            dumps: 0,
            idle_per_second: 0.0,
        })
    }

    /// Prints and returns instructions per operation by name, such as `get p16`.
    fn count(mut self, commands: &[String], pipelines: &[usize]) -> Result<Vec<(String, f64)>> {
        let protocol = self.server.contestant.protocol;
        // HGET and RPOP are to find something.
        let fill = if commands
            .iter()
            .any(|command| command.contains("hget") || command.contains("rpop"))
        {
            &["set", "hset", "lpush"][..]
        } else {
            &["set"]
        };
        for mix in fill.iter().filter(|mix| speaks(mix, protocol)) {
            let job = filling_job(
                self.server.target,
                protocol,
                Mix::named(mix, shape(protocol))?,
                KEYS,
            );
            run(&job).map_err(|error| format!("filling by {mix}: {error}"))?;
        }
        thread::sleep(Duration::from_millis(500));
        self.dump()?;
        let began = Instant::now();
        thread::sleep(IDLE);
        self.idle_per_second = self.dump()? / began.elapsed().as_secs_f64();
        println!(
            "{}: {:.0} instructions per second when idle, taken off below",
            self.server.contestant.name, self.idle_per_second
        );
        let mut counts = Vec::new();
        for command in commands.iter().filter(|command| speaks(command, protocol)) {
            for &pipeline in pipelines {
                let each = match self.per_operation(command, pipeline) {
                    Ok(each) => each,
                    Err(error) => {
                        eprintln!("{command}: left out: {error}");
                        break;
                    }
                };
                let name = format!("{command} p{pipeline}");
                println!("{name:<20} {each:>8.0}");
                counts.push((name, each));
            }
        }
        Ok(counts)
    }

    fn per_operation(&mut self, command: &str, pipeline: usize) -> Result<f64> {
        let protocol = self.server.contestant.protocol;
        let job = Job {
            keys: Keys::Drawn {
                count: KEYS,
                popularity: Popularity::Uniform,
            },
            connections: CONNECTIONS,
            pipeline,
            length: Length::Operations(REQUESTS / 10),
            ..filling_job(
                self.server.target,
                protocol,
                Mix::named(command, shape(protocol))?,
                KEYS,
            )
        };
        // New connections and what the first requests find cold.
        run(&job)?;
        self.dump()?;
        let began = Instant::now();
        run(&Job {
            length: Length::Operations(REQUESTS),
            seed: 2,
            ..job
        })?;
        let spent = self.dump()?;
        let by_the_clock = self.idle_per_second * began.elapsed().as_secs_f64();
        Ok((spent - by_the_clock).max(0.0) / REQUESTS as f64)
    }

    /// The instructions since the last call.
    fn dump(&mut self) -> Result<f64> {
        self.dumps += 1;
        let pid = self.server.pid().to_string();
        let asked = Command::new("callgrind_control")
            .arg("--dump")
            .arg(&pid)
            .output();
        let asked =
            asked.map_err(|error| format!("callgrind_control (part of valgrind): {error}"))?;
        if !asked.status.success() {
            return Err(format!(
                "callgrind_control: {}",
                String::from_utf8_lossy(&asked.stderr)
            )
            .into());
        }
        let path = self
            .server
            .directory()
            .join(format!("callgrind.{pid}.{}", self.dumps));
        let deadline = Instant::now() + DUMP_WITHIN;
        loop {
            if let Some(total) = fs::read_to_string(&path).ok().as_deref().and_then(total) {
                return Ok(total);
            }
            if Instant::now() > deadline {
                return Err(format!("callgrind wrote no {}", path.display()).into());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn shape(protocol: Protocol) -> Shape {
    Shape {
        protocol,
        keys: KEYS,
        key_size: 16,
        value_size: ValueSize::fixed(64),
    }
}

fn run(job: &Job) -> Result<()> {
    match engine::run(job, &mut |_| {})?.tally.first_error {
        Some(error) => Err(format!("the server answered {error}").into()),
        None => Ok(()),
    }
}

/// The last line of a complete callgrind file says `totals: N`.
fn total(dump: &str) -> Option<f64> {
    dump.lines()
        .rev()
        .find_map(|line| line.strip_prefix("totals:"))?
        .trim()
        .parse()
        .ok()
}

fn percent(text: &str) -> Result<f64> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(number) if number >= 0.0 && number.is_finite() => Ok(number / 100.0),
        _ => Err(format!("{text} is not a percentage").into()),
    }
}

fn read_baseline(path: &Path) -> Result<BTreeMap<String, f64>> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let Value::Object(entries) = serde_json::from_str(&text)? else {
        return Err(format!("{}: expected an object of numbers", path.display()).into());
    };
    let number = |(name, value): (String, Value)| {
        let count = value
            .as_f64()
            .ok_or_else(|| format!("{name}: not a number"))?;
        Ok((name, count))
    };
    entries.into_iter().map(number).collect()
}

/// Errs if a count is above the baseline by more than the margin, or the baseline names something not counted.
fn check(counts: &[(String, f64)], baseline: &BTreeMap<String, f64>, margin: f64) -> Result<()> {
    let mut failures = Vec::new();
    for (name, &expected) in baseline {
        match counts.iter().find(|(counted, _)| counted == name) {
            None => failures.push(format!("{name} was not counted")),
            Some((_, count)) if *count > expected * (1.0 + margin) => {
                failures.push(format!(
                    "{name}: {count:.0} instructions, {expected:.0} expected"
                ));
            }
            Some(_) => {}
        }
    }
    if failures.is_empty() {
        println!("within {:.1} % of the baseline", margin * 100.0);
        return Ok(());
    }
    Err(failures.join("; ").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_from_a_complete_dump_only() {
        assert_eq!(
            total("events: Ir\nfn=(1)\n1 5\ntotals: 1234\n"),
            Some(1234.0)
        );
        assert_eq!(total("events: Ir\nfn=(1)\n1 5\n"), None);
    }

    #[test]
    fn a_margin_is_a_percentage() {
        assert_eq!(percent("3%").unwrap(), 0.03);
        assert_eq!(percent("0.5").unwrap(), 0.005);
        assert!(percent("-1").is_err() && percent("x").is_err());
    }

    #[test]
    fn only_what_is_above_the_margin_fails() {
        let baseline = BTreeMap::from([("get p16".to_owned(), 1000.0)]);
        let counts = |count| vec![("get p16".to_owned(), count), ("other".to_owned(), 9e9)];
        assert!(check(&counts(1029.0), &baseline, 0.03).is_ok());
        assert!(check(&counts(500.0), &baseline, 0.03).is_ok());
        assert!(check(&counts(1031.0), &baseline, 0.03).is_err());
        assert!(check(&[], &baseline, 0.03).is_err());
    }
}
