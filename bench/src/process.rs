//! What the kernel accounts to a process: CPU time and resident memory, read from `/proc`.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Result;

/// CPU time of all threads of a process, ended ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CpuTime {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl CpuTime {
    /// Reads `/proc/<pid>/stat`. The kernel counts in ticks, usually of 10 ms: measure over a second or more.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&stat, rustix::param::clock_ticks_per_second())
            .ok_or_else(|| "unexpected /proc/<pid>/stat".into())
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }

    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }

    /// The program's name is in brackets and may hold anything, brackets and spaces too: fields count from the last bracket.
    fn parse(stat: &str, ticks_per_second: u64) -> Option<Self> {
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
        let mut next = || {
            let ticks: u64 = fields.next()?.parse().ok()?;
            Some(Duration::from_nanos(
                ticks.checked_mul(1_000_000_000 / ticks_per_second)?,
            ))
        };
        Some(Self {
            user: next()?,
            system: next()?,
        })
    }
}

/// Resident memory of a process in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    parse_kib_field(&status, "VmRSS:").ok_or_else(|| "no VmRSS in /proc/<pid>/status".into())
}

/// Memory that can still be had without swapping, in bytes.
pub(crate) fn available_bytes() -> Result<u64> {
    let info = fs::read_to_string("/proc/meminfo")?;
    parse_kib_field(&info, "MemAvailable:").ok_or_else(|| "no MemAvailable in /proc/meminfo".into())
}

/// The machine in one line: processor, cores, memory, kernel.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("?", |(_, name)| name);
    let cores = cpus
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let memory = parse_kib_field(&read("/proc/meminfo"), "MemTotal:").unwrap_or(0) >> 30;
    format!(
        "{cores} x {model}, {memory} GiB, Linux {}",
        read("/proc/sys/kernel/osrelease").trim()
    )
}

/// Allows this process and its children as many open files as the system lets it.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Refused only where the hard limit is lower than reported; opening files then fails with a clear message.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}

fn parse_kib_field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = rest.split_ascii_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_program_name() {
        let stat = "42 (a ) b) R 1 42 42 0 -1 4194304 100 0 0 0 150 25 7 7 20 0 1 0 100 1 1";
        let time = CpuTime::parse(stat, 100).unwrap();
        assert_eq!(
            time,
            CpuTime {
                user: Duration::from_millis(1500),
                system: Duration::from_millis(250)
            }
        );
    }

    #[test]
    fn a_damaged_stat_line_is_refused() {
        assert_eq!(CpuTime::parse("42 (cut", 100), None);
        assert_eq!(CpuTime::parse("42 (cut) R 1 2", 100), None);
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t  9999 kB\nVmRSS:\t    1234 kB\n";
        assert_eq!(parse_kib_field(status, "VmRSS:"), Some(1234 * 1024));
        assert_eq!(parse_kib_field(status, "VmSwap:"), None);
    }

    #[test]
    fn the_own_process_can_be_read() {
        let pid = std::process::id();
        assert!(CpuTime::of(pid).is_ok());
        assert!(resident_bytes(pid).unwrap() > 100_000);
        assert!(available_bytes().unwrap() > 0);
    }
}
