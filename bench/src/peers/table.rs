//! What the rounds add up to: medians, ratios paired within a round, and Markdown tables of them.
//!
//! Ratios are taken between measurements of the same round and their median is shown, so that what changes slowly on the
//! machine, its clock or its neighbours, cancels.

use serde_json::{Value, json};

use super::measure::Measurement;
use super::servers::Contestant;
use super::workloads::{Group, Workload};
use crate::load::reply::Protocol;

/// Below this share of one core the client, not the server, was the limit.
const SATURATED: f64 = 0.9;

/// All measurements of one workload: by server, then by round. A server that failed has fewer rounds or none.
pub(crate) struct Results {
    pub(crate) workload: &'static Workload,
    pub(crate) servers: Vec<(Contestant, Vec<Option<Measurement>>)>,
}

impl Results {
    fn of(&self, name: &str) -> Option<&[Option<Measurement>]> {
        self.servers
            .iter()
            .find(|(contestant, _)| contestant.name == name)
            .map(|(_, rounds)| rounds.as_slice())
    }

    fn is_about_throughput(&self) -> bool {
        self.servers
            .iter()
            .flat_map(|(_, rounds)| rounds)
            .flatten()
            .any(|measurement| measurement.figures.is_empty())
    }

    /// Each server's CPU per operation over its floor's.
    fn over_floor(&self, contestant: &Contestant) -> Option<f64> {
        let floor = match contestant.protocol {
            Protocol::Resp => "floor",
            Protocol::Memcached => "floor-mc",
        };
        paired(self.of(contestant.name)?, self.of(floor)?)
    }

    /// CPU per operation over that of the best of the peers in the same round.
    fn over_best_peer(&self, contestant: &Contestant) -> Option<f64> {
        let rounds = self.of(contestant.name)?;
        let best: Vec<Option<Measurement>> = (0..rounds.len())
            .map(|round| {
                let peers = self
                    .servers
                    .iter()
                    .filter(|(peer, _)| !peer.is_ferrite() && !peer.is_floor());
                let measured = peers.filter_map(|(_, rounds)| rounds.get(round)?.as_ref());
                measured
                    .min_by(|a, b| a.cpu_us().total_cmp(&b.cpu_us()))
                    .cloned()
            })
            .collect();
        paired(rounds, &best)
    }

    pub(crate) fn json(&self) -> Value {
        let servers: Vec<Value> = self
            .servers
            .iter()
            .map(|(contestant, rounds)| {
                json!({
                    "server": contestant.name,
                    "median_cpu_us": median(&cpu(rounds)),
                    "best_cpu_us": least(&cpu(rounds)),
                    "over_floor": self.over_floor(contestant),
                    "over_best_peer": self.over_best_peer(contestant),
                    "rounds": rounds.iter().flatten().map(Measurement::json).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({ "workload": self.workload.name, "servers": servers })
    }
}

fn cpu(rounds: &[Option<Measurement>]) -> Vec<f64> {
    rounds.iter().flatten().map(Measurement::cpu_us).collect()
}

/// The median over the rounds of one measurement's CPU over the other's.
fn paired(upper: &[Option<Measurement>], lower: &[Option<Measurement>]) -> Option<f64> {
    let ratios: Vec<f64> = upper
        .iter()
        .zip(lower)
        .filter_map(|(upper, lower)| Some(upper.as_ref()?.cpu_us() / lower.as_ref()?.cpu_us()))
        .filter(|ratio| ratio.is_finite())
        .collect();
    median(&ratios)
}

pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

fn least(values: &[f64]) -> Option<f64> {
    values.iter().copied().min_by(f64::total_cmp)
}

/// All tables of a group.
pub(crate) fn print(group: &Group, results: &[Results]) {
    println!("\n## {}\n{}", group.name, group.about);
    let (throughput, figures): (Vec<&Results>, Vec<&Results>) = results
        .iter()
        .partition(|results| results.is_about_throughput());
    if !throughput.is_empty() {
        let names = columns(&throughput);
        println!(
            "\nServer CPU us per operation, median **bold**, [best], operations per second:\n"
        );
        grid(&names, &throughput, |results, name| {
            let rounds = results.of(name)?;
            let rate: Vec<f64> = rounds
                .iter()
                .flatten()
                .map(|measurement| measurement.operations_per_second)
                .collect();
            let busy: Vec<f64> = rounds
                .iter()
                .flatten()
                .map(|measurement| measurement.busy)
                .collect();
            let idle = match median(&busy)? {
                busy if busy < SATURATED => format!(" (busy {busy:.2})"),
                _ => String::new(),
            };
            let errors: u64 = rounds
                .iter()
                .flatten()
                .map(|measurement| measurement.tally.errors)
                .sum();
            let errors = if errors > 0 {
                format!(" ({errors} errors)")
            } else {
                String::new()
            };
            let (middle, best) = (median(&cpu(rounds))?, least(&cpu(rounds))?);
            Some(format!(
                "**{}** [{}] {}/s{idle}{errors}",
                short(middle),
                short(best),
                thousands(median(&rate)?)
            ))
        });
        ratios(
            "CPU per operation over the floor's in the same round, median:",
            &names,
            &throughput,
            Results::over_floor,
        );
        ratios(
            "CPU per operation over the best peer's in the same round, median:",
            &names,
            &throughput,
            Results::over_best_peer,
        );
        println!("\nMedians over the rounds:\n");
        println!(
            "| workload | server | p50 us | p99 us | p99.9 us | max us | user us/op | system us/op | spread of CPU | RSS MiB |"
        );
        println!("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|");
        for results in throughput {
            details(results);
        }
    }
    for results in figures {
        print_figures(results);
    }
}

fn columns(results: &[&Results]) -> Vec<&'static str> {
    let mut names = Vec::new();
    for (contestant, _) in results.iter().flat_map(|results| &results.servers) {
        if !names.contains(&contestant.name) {
            names.push(contestant.name);
        }
    }
    names
}

fn grid(names: &[&str], results: &[&Results], cell: impl Fn(&Results, &str) -> Option<String>) {
    println!("| workload | {} |", names.join(" | "));
    println!("|---|{}", "---:|".repeat(names.len()));
    for results in results {
        let cells: Vec<String> = names
            .iter()
            .map(|name| cell(results, name).unwrap_or_else(|| "-".to_owned()))
            .collect();
        println!("| {} | {} |", results.workload.name, cells.join(" | "));
    }
}

fn ratios(
    title: &str,
    names: &[&'static str],
    results: &[&Results],
    ratio: impl Fn(&Results, &Contestant) -> Option<f64>,
) {
    let of = |results: &Results, name: &str| {
        let (contestant, _) = results
            .servers
            .iter()
            .find(|(contestant, _)| contestant.name == name)?;
        ratio(results, contestant)
    };
    if results
        .iter()
        .all(|results| names.iter().all(|name| of(results, name).is_none()))
    {
        return;
    }
    println!("\n{title}\n");
    grid(names, results, |results, name| {
        Some(format!("{:.2}", of(results, name)?))
    });
}

fn details(results: &Results) {
    for (contestant, rounds) in &results.servers {
        let middle = |value: fn(&Measurement) -> f64| {
            let values: Vec<f64> = rounds.iter().flatten().map(value).collect();
            median(&values).unwrap_or(f64::NAN)
        };
        let cpu = cpu(rounds);
        let Some((least, middle_cpu)) = least(&cpu).zip(median(&cpu)) else {
            continue;
        };
        let most = cpu.iter().copied().fold(0.0, f64::max);
        println!(
            "| {} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {} | {} | {:.0}% | {:.0} |",
            results.workload.name,
            contestant.name,
            middle(|measurement| measurement.latency.p50_us),
            middle(|measurement| measurement.latency.p99_us),
            middle(|measurement| measurement.latency.p999_us),
            middle(|measurement| measurement.latency.max_us),
            short(middle(|measurement| measurement.user_us)),
            short(middle(|measurement| measurement.system_us)),
            100.0 * (most - least) / middle_cpu,
            middle(|measurement| measurement.resident_mib),
        );
    }
}

fn print_figures(results: &Results) {
    let all = || {
        results
            .servers
            .iter()
            .flat_map(|(_, rounds)| rounds)
            .flatten()
    };
    let Some(first) = all().next() else {
        return;
    };
    let names: Vec<&str> = first.figures.iter().map(|&(name, _)| name).collect();
    println!("\n{}:\n", results.workload.name);
    println!("| server | {} |", names.join(" | "));
    println!("|---|{}", "---:|".repeat(names.len()));
    for (contestant, rounds) in &results.servers {
        let cells: Vec<String> = (0..names.len())
            .map(|index| {
                let values: Vec<f64> = rounds
                    .iter()
                    .flatten()
                    .map(|measurement| measurement.figures[index].1)
                    .collect();
                median(&values).map_or_else(|| "-".to_owned(), thousands_or_short)
            })
            .collect();
        println!("| {} | {} |", contestant.name, cells.join(" | "));
    }
}

/// Three significant digits.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        large if large >= 10.0 => format!("{value:.1}"),
        large if large >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

pub(crate) fn thousands(value: f64) -> String {
    match value {
        large if large >= 1e6 => format!("{:.2}M", value / 1e6),
        large if large >= 1e4 => format!("{:.0}k", value / 1e3),
        _ => format!("{value:.0}"),
    }
}

fn thousands_or_short(value: f64) -> String {
    if value >= 1e5 {
        thousands(value)
    } else {
        short(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(cpu_us: &[f64]) -> Vec<Option<Measurement>> {
        let measurement = |&user_us| {
            Some(Measurement {
                user_us,
                ..Measurement::default()
            })
        };
        cpu_us.iter().map(measurement).collect()
    }

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_middle_ones() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_paired_by_round() {
        // The machine was three times slower in the second round: the ratio stays the same.
        assert_eq!(
            paired(&rounds(&[2.0, 6.0, 2.0]), &rounds(&[1.0, 3.0, 1.0])),
            Some(2.0)
        );
    }

    #[test]
    fn a_round_that_one_of_the_two_missed_does_not_count() {
        let mut upper = rounds(&[2.0, 8.0]);
        upper[0] = None;
        assert_eq!(paired(&upper, &rounds(&[1.0, 2.0])), Some(4.0));
        assert_eq!(paired(&[], &rounds(&[1.0])), None);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [short(123.4), short(12.34), short(1.234), short(0.1234)],
            ["123", "12.3", "1.23", "0.123"]
        );
        assert_eq!(
            [
                thousands(1_234_567.0),
                thousands(12_345.0),
                thousands(999.0)
            ],
            ["1.23M", "12k", "999"]
        );
    }
}
