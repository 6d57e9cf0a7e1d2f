//! The policies against miss ratios that an independent simulator found: libCacheSim's Python package (PyPI `libcachesim`
//! 0.3.5, default parameters) on `fixtures/scan.csv.gz`, which `strategies export` made of
//! `scan:objects=2000,requests=16000,theta=0.8,drift=0.5,size=200`.
//!
//! With `FERRITE_TRACES` naming a directory of traces with such an `anchors.csv` (a column `trace` in front), those are
//! checked as well; that takes minutes without optimisation.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::eviction::replay;
use super::policies::{self, Space, Unit};
use super::trace::Trace;

/// Fewer slots than this leave S3-FIFO and W-TinyLFU no room for their small parts.
const SLOTS_MIN: u64 = 100;

struct Anchor {
    trace: String,
    capacity: f64,
    unit: Unit,
    policy: &'static str,
    miss_ratio: f64,
}

impl Anchor {
    /// `trace,capacity,unit,policy,miss_ratio`; `None` for policies that are not here.
    fn read(line: &str) -> Option<Self> {
        let mut fields = line.split(',');
        let mut next = || fields.next().unwrap();
        let trace = next().to_owned();
        let capacity = next().parse().unwrap();
        let unit = match next() {
            "objects" => Unit::Objects,
            "bytes" => Unit::Bytes,
            unit => panic!("{unit}"),
        };
        let policy = match next() {
            "FIFO" => "fifo",
            "LRU" => "lru",
            "CLOCK" => "clock",
            "LFU" => "lfu",
            "SIEVE" => "sieve",
            "S3FIFO" => "s3fifo",
            "WTinyLFU" => "tinylfu",
            // With sizes the simulator's ARC keeps less than it may.
            "ARC" if unit == Unit::Objects => "arc",
            "Belady" => "belady",
            _ => return None,
        };
        Some(Self {
            trace,
            capacity,
            unit,
            policy,
            miss_ratio: next().parse().unwrap(),
        })
    }

    fn check(&self, trace: &Trace) {
        let space = Space::of(trace, self.unit, self.capacity);
        let depends_on_parameters = matches!(self.policy, "s3fifo" | "tinylfu");
        if depends_on_parameters && self.unit == Unit::Objects && space.capacity < SLOTS_MIN {
            return;
        }
        let miss_ratio = 1.0 - hit_ratio(trace, self.policy, self.unit, self.capacity);
        let tolerance = if depends_on_parameters { 0.02 } else { 0.005 };
        assert!(
            (miss_ratio - self.miss_ratio).abs() <= tolerance,
            "{} {} {} at {}: {miss_ratio} instead of {}",
            self.trace,
            self.unit.name(),
            self.policy,
            self.capacity,
            self.miss_ratio
        );
    }
}

fn hit_ratio(trace: &Trace, policy: &str, unit: Unit, capacity: f64) -> f64 {
    let kind = policies::named(policy).unwrap();
    let space = Space::of(trace, unit, capacity);
    let mut cache = kind.cache(space, &trace.next_uses().into(), 5);
    replay(trace, &mut *cache)
}

fn read_trace(path: &Path) -> Trace {
    let mut trace = Trace::read(path).unwrap();
    trace
        .requests
        .iter_mut()
        .for_each(|request| request.ttl = 0);
    trace
}

fn fixture() -> Trace {
    read_trace(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scan.csv.gz"))
}

#[test]
fn references_are_what_another_simulator_finds() {
    let trace = fixture();
    let anchors = include_str!("../../fixtures/anchors.csv");
    let mut checked = 0;
    for line in anchors.lines().skip(1) {
        if let Some(anchor) = Anchor::read(&format!("scan,{line}")) {
            anchor.check(&trace);
            checked += 1;
        }
    }
    assert_eq!(checked, 45);
}

#[test]
fn references_are_what_another_simulator_finds_on_traces_elsewhere() {
    let Some(directory) = std::env::var_os("FERRITE_TRACES").map(PathBuf::from) else {
        eprintln!("skipped: FERRITE_TRACES does not name a directory of traces with anchors.csv");
        return;
    };
    let anchors = std::fs::read_to_string(directory.join("anchors.csv")).unwrap();
    let mut traces: HashMap<String, Trace> = HashMap::new();
    for anchor in anchors.lines().skip(1).filter_map(Anchor::read) {
        let trace = traces
            .entry(anchor.trace.clone())
            .or_insert_with(|| read_trace(&directory.join(format!("{}.csv.gz", anchor.trace))));
        anchor.check(trace);
    }
}

/// Sampling costs a little; more than this would be a mistake.
#[test]
fn ferrites_policies_come_near_to_what_they_approximate() {
    let trace = fixture();
    for (own, reference, loss) in [
        ("ferrite-lru", "lru", 0.04),
        ("ferrite-s3fifo", "s3fifo", 0.04),
        ("ferrite-sieve", "sieve", 0.05),
        ("ferrite-tinylfu", "tinylfu", 0.04),
    ] {
        for unit in [Unit::Objects, Unit::Bytes] {
            for capacity in [0.1, 0.3] {
                let [own_ratio, ratio, best] = [own, reference, "belady"]
                    .map(|policy| hit_ratio(&trace, policy, unit, capacity));
                assert!(
                    own_ratio > ratio - loss && own_ratio < best,
                    "{own} {} at {capacity}: {own_ratio}, the reference {ratio}, the best {best}",
                    unit.name()
                );
            }
        }
    }
}

#[test]
fn objects_whose_time_is_over_are_misses_for_everyone() {
    let text = "ts,key,size,ttl\n0,a,10,5\n4,a,10,5\n5,a,10,5\n9,a,10,5\n";
    let trace = Trace::parse("t", text.as_bytes()).unwrap();
    for (policy, _) in policies::ALL {
        // There is no room for their small parts in one slot.
        if matches!(*policy, "s3fifo" | "tinylfu") {
            continue;
        }
        assert_eq!(
            hit_ratio(&trace, policy, Unit::Objects, 1.0),
            0.5,
            "{policy}"
        );
    }
}
