//! `bench peers`: starts ferrite and whichever other servers are installed and runs the same workloads on them in turns.
//!
//! All servers of a group run at the same time and are filled once; then, round by round, each is measured while the others
//! are idle. Identical runs on a shared machine differ by tens of percent for reasons outside of it, so only figures of one
//! run are compared, and ratios are taken within a round. The measure is the CPU time the kernel accounts to the server's
//! process divided by the operations completed meanwhile: it does not depend on how fast the client was.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

mod measure;
mod replication;
pub(crate) mod servers;
mod table;
mod workloads;

use crate::load::mix::speaks;
use crate::load::reply::Protocol;
use crate::peers::measure::{Measurement, Plan};
use crate::peers::servers::{Contestant, Server};
use crate::peers::table::{Results, short, thousands};
use crate::peers::workloads::{GROUPS, Group, Kind, Servers, Workload, selected};
use crate::{Result, affinity, process};

/// Memory a key may take beyond its value, to see whether a group fits into the machine.
const KEY_OVERHEAD_BYTES: u64 = 150;

/// Left to the rest of the machine.
const SPARE_BYTES: u64 = 1 << 30;

#[derive(Args)]
pub(crate) struct Options {
    /// Only these workloads or groups: names, or beginnings followed by *
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these servers
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// A tenth of the keys, one second, two rounds
    #[arg(long)]
    quick: bool,
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds per measurement
    #[arg(long)]
    seconds: Option<f64>,
    /// The ferrite program [default: beside this one]
    #[arg(long)]
    ferrite: Option<PathBuf>,
    /// Where the other servers are, before PATH
    #[arg(long)]
    peers: Option<PathBuf>,
    /// Cores for the server where it is pinned [default: the first]
    #[arg(long, value_delimiter = ',')]
    server_cores: Vec<usize>,
    /// Cores for the client where it is pinned [default: the last]
    #[arg(long, value_delimiter = ',')]
    client_cores: Vec<usize>,
    /// Write all measurements as JSON to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Print the names of all workloads and servers, and end
    #[arg(long)]
    list: bool,
}

pub(crate) fn command(options: &Options) -> Result<()> {
    process::raise_file_limit();
    let peers = options.peers.clone().unwrap_or_else(default_peers);
    let contestants = Contestant::installed(&options.servers, options.ferrite.as_deref(), &peers)?;
    if options.list {
        list(&contestants);
        return Ok(());
    }
    let plan = options.plan()?;
    let rounds = options
        .rounds
        .unwrap_or(if options.quick { 2 } else { 3 })
        .max(1);
    println!("{}", process::machine());
    println!(
        "{} rounds of {:.1} s, server on cores {:?}, client on {:?}; servers: {}",
        rounds,
        plan.measured.as_secs_f64(),
        plan.server_cores,
        plan.client_cores,
        contestants
            .iter()
            .map(|contestant| contestant.name)
            .collect::<Vec<_>>()
            .join(" ")
    );
    let mut written: Vec<Value> = Vec::new();
    for group in GROUPS {
        let chosen: Vec<&Workload> = group
            .workloads
            .iter()
            .filter(|workload| selected(&options.only, group, workload))
            .collect();
        if chosen.is_empty() {
            continue;
        }
        let results = run_group(&plan, group, &chosen, &contestants, rounds);
        table::print(group, &results);
        written.extend(results.iter().map(Results::json));
        // After every group, so that an interrupted run leaves what it has.
        if let Some(path) = &options.json {
            let all = json!({ "machine": process::machine(), "quick": options.quick, "rounds": rounds, "results": written });
            std::fs::write(path, serde_json::to_string_pretty(&all)? + "\n")?;
        }
    }
    if written.is_empty() {
        return Err("no workload has such a name; --list shows them".into());
    }
    Ok(())
}

impl Options {
    fn plan(&self) -> Result<Plan> {
        let cores = affinity::allowed_cores()?;
        let (first, last) = cores.first().zip(cores.last()).ok_or("no core to run on")?;
        let or = |chosen: &[usize], default: usize| {
            if chosen.is_empty() {
                vec![default]
            } else {
                chosen.to_vec()
            }
        };
        let seconds = self.seconds.unwrap_or(if self.quick { 1.0 } else { 3.0 });
        if !(seconds > 0.0 && seconds < 1e6) {
            return Err("the seconds must be positive".into());
        }
        Ok(Plan {
            quick: self.quick,
            warm_up: Duration::from_secs_f64((seconds / 4.0).min(1.0)),
            measured: Duration::from_secs_f64(seconds),
            server_cores: or(&self.server_cores, *first),
            client_cores: or(&self.client_cores, *last),
        })
    }
}

/// Where peers are looked for first.
pub(crate) fn default_peers() -> PathBuf {
    PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/ferrite-peers/bin")
}

fn list(contestants: &[Contestant]) {
    for group in GROUPS {
        println!("{}: {}", group.name, group.about);
        for workload in group.workloads {
            println!("    {}", workload.name);
        }
    }
    println!(
        "installed: {}",
        contestants
            .iter()
            .map(|contestant| contestant.name)
            .collect::<Vec<_>>()
            .join(" ")
    );
}

/// Whether this server can run this workload.
fn takes_part(group: &Group, workload: &Workload, contestant: &Contestant) -> bool {
    let serves = match group.servers {
        Servers::AllAndFloor => true,
        Servers::All => !contestant.is_floor(),
        Servers::WithTypes => contestant.has_types(),
    };
    let speaks_it = match workload.kind {
        Kind::Mix { mix, .. } | Kind::Memory { mix, .. } => speaks(mix, contestant.protocol),
        Kind::Connect { .. } | Kind::Idle { .. } | Kind::Growth => true,
        Kind::FullSync | Kind::OneReplica { .. } => contestant.replicates(),
        Kind::FanOut { .. } | Kind::FanOutStall { .. } | Kind::Stall { .. } | Kind::WakeUp => {
            contestant.protocol == Protocol::Resp
        }
    };
    serves && speaks_it
}

fn run_group(
    plan: &Plan,
    group: &'static Group,
    chosen: &[&'static Workload],
    contestants: &[Contestant],
    rounds: usize,
) -> Vec<Results> {
    let shares_servers = |workload: &&&Workload| !workload.kind.wants_fresh_server();
    let running = if chosen.iter().any(|workload| shares_servers(&workload)) {
        let wanted = contestants.iter().filter(|contestant| {
            chosen
                .iter()
                .filter(shares_servers)
                .any(|workload| takes_part(group, workload, contestant))
        });
        wanted
            .filter_map(|contestant| started(plan, group, contestant))
            .collect()
    } else {
        Vec::new()
    };
    chosen
        .iter()
        .map(|workload| run_workload(plan, group, workload, contestants, &running, rounds))
        .collect()
}

/// A server that cannot be had is reported and left out.
fn started(plan: &Plan, group: &Group, contestant: &Contestant) -> Option<Server> {
    let start = || {
        let needed = plan.scaled(group.keys)
            * (group.value_size.largest as u64 + KEY_OVERHEAD_BYTES)
            + SPARE_BYTES;
        if process::available_bytes()? < needed {
            return Err("not enough memory".into());
        }
        eprintln!("{}: starting and filling {}", group.name, contestant.name);
        let server = Server::start(contestant, &plan.setting(group))?;
        plan.fill(group, &server)?;
        Ok(server)
    };
    reported(group.name, contestant, start())
}

fn run_workload(
    plan: &Plan,
    group: &Group,
    workload: &'static Workload,
    contestants: &[Contestant],
    running: &[Server],
    rounds: usize,
) -> Results {
    let fresh = workload.kind.wants_fresh_server();
    let part: Vec<Contestant> = contestants
        .iter()
        .filter(|contestant| takes_part(group, workload, contestant))
        .filter(|contestant| {
            fresh
                || running
                    .iter()
                    .any(|server| server.contestant.name == contestant.name)
        })
        .cloned()
        .collect();
    let rounds = if workload.kind.once() { 1 } else { rounds };
    let mut servers: Vec<_> = part
        .into_iter()
        .map(|contestant| (contestant, vec![None; rounds]))
        .collect();
    for round in 0..rounds {
        for place in 0..servers.len() {
            // Nobody is always the first or always after the same other.
            let index = (place + round) % servers.len();
            let (contestant, measurements) = &mut servers[index];
            let measured = match running
                .iter()
                .find(|server| server.contestant.name == contestant.name)
            {
                Some(server) if !fresh => {
                    plan.measure(group, workload.kind, server, round as u64 + 1)
                }
                _ => plan.measure_fresh(group, workload.kind, contestant),
            };
            measurements[round] = reported(workload.name, contestant, measured);
            if let Some(measurement) = &measurements[round] {
                progress(workload, contestant, round, measurement);
            }
        }
    }
    Results { workload, servers }
}

fn reported<T>(what: &str, contestant: &Contestant, outcome: Result<T>) -> Option<T> {
    outcome
        .map_err(|error| eprintln!("{what}: {} left out: {error}", contestant.name))
        .ok()
}

fn progress(workload: &Workload, contestant: &Contestant, round: usize, measurement: &Measurement) {
    let what = if measurement.figures.is_empty() {
        format!(
            "{:>8} us/op  {:>8}/s  p50 {:.0} p99 {:.0} p99.9 {:.0} us",
            short(measurement.cpu_us()),
            thousands(measurement.operations_per_second),
            measurement.latency.p50_us,
            measurement.latency.p99_us,
            measurement.latency.p999_us
        )
    } else {
        let figures: Vec<String> = measurement
            .figures
            .iter()
            .map(|(name, value)| format!("{name} {}", short(*value)))
            .collect();
        figures.join(", ")
    };
    eprintln!(
        "{:<22} {:<12} round {}  {what}",
        workload.name,
        contestant.name,
        round + 1
    );
    if let Some(error) = &measurement.tally.first_error {
        eprintln!("    {} errors, first {error}", measurement.tally.errors);
    }
}
