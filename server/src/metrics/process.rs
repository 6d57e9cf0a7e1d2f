//! What the operating system knows of this process, read from `/proc`.

use std::fs;

use rustix::time::{ClockId, clock_gettime};

/// Resident memory in bytes; 0 where the system does not tell.
pub fn resident_bytes() -> usize {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<usize>().ok());
    pages.unwrap_or(0) * page_size()
}

/// Resident memory that is not a file's, in bytes; 0 where the system does not tell.
pub fn private_bytes() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = text
        .split_whitespace()
        .skip(1)
        .map_while(|field| field.parse::<usize>().ok());
    let resident = pages.next().unwrap_or(0);
    resident.saturating_sub(pages.next().unwrap_or(0)) * page_size()
}

/// User and system time of the process so far, in seconds.
pub fn cpu_seconds() -> (f64, f64) {
    times_of("/proc/self/stat")
}

/// Time of the process so far, in microseconds.
pub fn cpu_microseconds() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000
}

/// User and system time of the main thread, in seconds.
pub fn main_thread_cpu_seconds() -> (f64, f64) {
    times_of(&format!("/proc/self/task/{}/stat", std::process::id()))
}

fn times_of(path: &str) -> (f64, f64) {
    let Ok(text) = fs::read_to_string(path) else {
        return (0.0, 0.0);
    };
    // The program's name, in parentheses, may hold spaces; fields count from behind it.
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let seconds = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
            / 100.0
    };
    (seconds(11), seconds(12))
}

/// The machine's memory in bytes, or what the process's control group may have of it.
pub fn total_memory_bytes() -> usize {
    let Ok(text) = fs::read_to_string("/proc/meminfo") else {
        return 0;
    };
    let line = text.lines().find(|line| line.starts_with("MemTotal:"));
    let machine = line
        .and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok())
        .unwrap_or(0)
        * 1024;
    CONTROL_GROUP_LIMITS
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok())
        .fold(machine, usize::min)
}

/// Where a container sees its limit: version 2 of control groups, and version 1. `max` is none.
const CONTROL_GROUP_LIMITS: [&str; 2] = [
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
];

const fn page_size() -> usize {
    4096
}
