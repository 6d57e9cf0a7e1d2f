//! The server's log: one line per message, on the standard output or in a file.
//!
//! ```text
//! 4711:M 03 Mar 2026 17:05:09.123 * Ready to accept connections
//! pid:role time                  level message
//! ```

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::PathBuf,
    sync::atomic::{AtomicU8, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::RwLock;

use crate::config::LogLevel;

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    Debug,
    Verbose,
    Notice,
    Warning,
    /// Above all messages.
    Nothing,
}

impl Level {
    const fn sign(self) -> char {
        match self {
            Level::Debug => '.',
            Level::Verbose => '-',
            Level::Notice => '*',
            Level::Warning | Level::Nothing => '#',
        }
    }
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Level {
        match level {
            LogLevel::Debug => Level::Debug,
            LogLevel::Verbose => Level::Verbose,
            LogLevel::Notice => Level::Notice,
            LogLevel::Warning => Level::Warning,
            LogLevel::Nothing => Level::Nothing,
        }
    }
}

static LEAST: AtomicU8 = AtomicU8::new(Level::Notice as u8);
static FILE: RwLock<Option<PathBuf>> = RwLock::new(None);

/// Where messages go from now on (`None`: the standard output), and from which level on.
///
/// # Errors
/// The file cannot be opened for appending; then nothing changes.
pub fn configure(file: Option<PathBuf>, least: Level) -> io::Result<()> {
    if let Some(path) = &file {
        OpenOptions::new().create(true).append(true).open(path)?;
    }
    *FILE.write() = file;
    set_level(least);
    Ok(())
}

pub fn set_level(least: Level) {
    LEAST.store(least as u8, Ordering::Relaxed);
}

/// Writes a message. The file is opened anew each time, so that it can be rotated.
pub fn log(level: Level, message: &str) {
    if (level as u8) < LEAST.load(Ordering::Relaxed) {
        return;
    }
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let stamp = stamp(since.as_secs() as i64, since.subsec_millis());
    let line = format!(
        "{}:M {stamp} {} {message}\n",
        std::process::id(),
        level.sign()
    );
    // A log that cannot be written must not stop the server.
    let _ = match &*FILE.read() {
        Some(path) => OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes())),
        None => io::stdout()
            .lock()
            .write_all(line.as_bytes())
            .and_then(|()| io::stdout().flush()),
    };
}

/// `03 Mar 2026 17:05:09.123`, in UTC.
fn stamp(seconds: i64, millis: u32) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a date of the proleptic Gregorian calendar, by eras of 400 years (Hinnant, "chrono-compatible
    // low-level date algorithms").
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = year_of_era + era * 400 + i64::from(month < 2);
    format!(
        "{day:02} {} {year} {:02}:{:02}:{:02}.{millis:03}",
        MONTHS[month as usize],
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Logs at the level that operators read.
pub fn notice(message: impl AsRef<str>) {
    log(Level::Notice, message.as_ref());
}

/// Logs what wants attention.
pub fn warning(message: impl AsRef<str>) {
    log(Level::Warning, message.as_ref());
}

#[cfg(test)]
mod tests {
    use super::stamp;

    #[test]
    fn times_are_printed_as_dates() {
        assert_eq!(stamp(0, 0), "01 Jan 1970 00:00:00.000");
        assert_eq!(stamp(951_782_399, 7), "28 Feb 2000 23:59:59.007");
        assert_eq!(stamp(951_782_400, 7), "29 Feb 2000 00:00:00.007");
        assert_eq!(stamp(1_767_225_599, 999), "31 Dec 2025 23:59:59.999");
    }
}
