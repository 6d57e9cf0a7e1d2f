//! `--check-system` and `--test-memory`: what the machine has to say, without a server.

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;

use super::command_line::Answer;

/// Looks for settings of the system that hurt a server. Fails if one does.
pub fn check_system() -> Answer {
    let mut text = String::new();
    let mut healthy = true;
    let mut report = |name: &str, problem: Option<String>| {
        let verdict = match &problem {
            None => "OK".to_owned(),
            Some(problem) => format!("WARNING:\n{problem}"),
        };
        healthy &= problem.is_none();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "[{name}]...{verdict}");
    };
    report("clocksource", slow_clock());
    report("somaxconn", short_backlog());
    report("THP", eager_huge_pages());
    Answer {
        text,
        exit_code: u8::from(!healthy),
    }
}

/// Fills memory with patterns and reads them back.
///
/// It cannot choose which memory it gets, so that passing proves little; failing proves a broken machine.
pub fn test_memory(megabytes: u64) -> Answer {
    const WORDS_PER_MB: u64 = (1 << 20) / 8;
    const PATTERNS: [u64; 4] = [0, u64::MAX, 0xaaaa_aaaa_aaaa_aaaa, 0x5555_5555_5555_5555];
    let words = megabytes
        .checked_mul(WORDS_PER_MB)
        .and_then(|words| usize::try_from(words).ok());
    let mut memory: Vec<u64> = Vec::new();
    let available = available_megabytes().is_none_or(|available| megabytes <= available);
    let Some(words) = words.filter(|words| available && memory.try_reserve_exact(*words).is_ok())
    else {
        return Answer::failure(format!("Unable to allocate {megabytes} megabytes.\n"), 1);
    };
    memory.resize(words, 0);
    for pattern in PATTERNS {
        for (index, word) in memory.iter_mut().enumerate() {
            *word = pattern ^ index as u64;
        }
        let read = black_box(&memory);
        if let Some(index) = read
            .iter()
            .enumerate()
            .position(|(index, word)| *word != pattern ^ index as u64)
        {
            let text = format!(
                "Memory error: a word read back differently, {index} words into the tested memory.\n"
            );
            return Answer::failure(text, 1);
        }
    }
    Answer::success(
        "Your memory passed this test.\n\
         A program sees only part of a machine's memory; when in doubt, test all of it without an operating system.\n"
            .to_owned(),
    )
}

fn slow_clock() -> Option<String> {
    let source = read("/sys/devices/system/clocksource/clocksource0/current_clocksource")?;
    let slow = matches!(source.as_str(), "hpet" | "acpi_pm" | "xen");
    slow.then(|| format!("The system's clock is {source}, which is slow to read; choose tsc if the machine has it."))
}

fn short_backlog() -> Option<String> {
    let limit: u32 = read("/proc/sys/net/core/somaxconn")?.parse().ok()?;
    let short = limit < 511;
    short.then(|| {
        format!("net.core.somaxconn is {limit}: bursts of more new connections are refused.")
    })
}

fn eager_huge_pages() -> Option<String> {
    let mode = read("/sys/kernel/mm/transparent_hugepage/enabled")?;
    mode.contains("[always]").then(|| {
        "Transparent huge pages are always on, which can raise memory use; set them to madvise in \
         /sys/kernel/mm/transparent_hugepage/enabled."
            .to_owned()
    })
}

fn available_megabytes() -> Option<u64> {
    let info = read("/proc/meminfo")?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes / 1024)
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_memory_passes_and_too_much_is_refused() {
        assert_eq!(test_memory(1).exit_code, 0);
        assert_eq!(test_memory(u64::MAX).exit_code, 1);
    }

    #[test]
    fn the_system_check_names_each_look() {
        let text = check_system().text;
        for name in ["[clocksource]", "[somaxconn]", "[THP]"] {
            assert!(text.contains(name));
        }
    }
}
