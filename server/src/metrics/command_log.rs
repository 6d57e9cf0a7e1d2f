//! The commands that stood out: slow ones, large requests and large replies, the latest of each kind.
//!
//! A command that does not stand out costs three comparisons.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use parking_lot::Mutex;

use crate::{
    config::Settings,
    dispatch::{
        args::Args,
        command::{Command, Flag},
    },
    server::now,
    session::registry::Client,
};

/// Words of a command that are kept, and bytes of each.
const KEPT_WORDS: usize = 32;
const KEPT_BYTES: usize = 128;
/// Latency samples kept of one event.
const KEPT_SAMPLES: usize = 160;

/// Why a command is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Slow,
    LargeRequest,
    LargeReply,
}

/// One command that stood out.
#[derive(Clone, Debug)]
pub struct Record {
    pub id: i64,
    pub at_seconds: i64,
    /// Microseconds or bytes.
    pub value: u64,
    pub words: Vec<Box<[u8]>>,
    pub address: String,
    pub name: Vec<u8>,
}

#[derive(Default)]
struct Ring {
    records: VecDeque<Record>,
    next_id: i64,
    limit: usize,
}

/// What a command came to.
#[derive(Clone, Copy)]
pub struct Outcome {
    pub nanoseconds: u64,
    pub reply_bytes: usize,
}

/// See the [module](self).
#[derive(Default)]
pub struct CommandLog {
    slow_nanoseconds: AtomicU64,
    request_bytes: AtomicU64,
    reply_bytes: AtomicU64,
    /// Milliseconds of `latency-monitor-threshold` as nanoseconds.
    event_nanoseconds: AtomicU64,
    rings: [Mutex<Ring>; 3],
    /// Samples of slow commands by event: seconds since the epoch and milliseconds.
    events: Mutex<BTreeMap<&'static str, Event>>,
}

/// The latest samples of a latency event, and the worst ever.
#[derive(Clone, Default)]
pub struct Event {
    pub samples: VecDeque<(i64, u64)>,
    pub worst_ms: u64,
}

impl CommandLog {
    /// Takes thresholds and lengths from the settings.
    pub fn configure(&self, settings: &Settings) {
        let threshold = |value: i64, factor: u64| {
            u64::try_from(value).map_or(u64::MAX, |value| value.saturating_mul(factor))
        };
        let slow = threshold(settings.commandlog_execution_slower_than, 1000);
        self.slow_nanoseconds.store(slow, Ordering::Relaxed);
        let request = threshold(settings.commandlog_request_larger_than, 1);
        self.request_bytes.store(request, Ordering::Relaxed);
        let reply = threshold(settings.commandlog_reply_larger_than, 1);
        self.reply_bytes.store(reply, Ordering::Relaxed);
        let event = match settings.latency_monitor_threshold {
            0 => u64::MAX,
            millis => millis.saturating_mul(1_000_000),
        };
        self.event_nanoseconds.store(event, Ordering::Relaxed);
        for (kind, limit) in [
            (Kind::Slow, settings.commandlog_slow_execution_max_len),
            (
                Kind::LargeRequest,
                settings.commandlog_large_request_max_len,
            ),
            (Kind::LargeReply, settings.commandlog_large_reply_max_len),
        ] {
            let mut ring = self.rings[kind as usize].lock();
            ring.limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let limit = ring.limit;
            ring.records.truncate(limit);
        }
    }

    /// Keeps the command if it stands out.
    #[inline]
    pub fn note(&self, command: &Command, args: &Args<'_>, client: &Client, outcome: Outcome) {
        let reached = |limit: &AtomicU64, value: u64| value >= limit.load(Ordering::Relaxed);
        if reached(&self.slow_nanoseconds, outcome.nanoseconds)
            || reached(&self.request_bytes, args.bytes() as u64)
            || reached(&self.reply_bytes, outcome.reply_bytes as u64)
            || reached(&self.event_nanoseconds, outcome.nanoseconds)
        {
            self.keep(command, args, client, outcome);
        }
    }

    #[cold]
    fn keep(&self, command: &Command, args: &Args<'_>, client: &Client, outcome: Outcome) {
        if outcome.nanoseconds >= self.event_nanoseconds.load(Ordering::Relaxed) {
            let event = if command.has(Flag::Fast) {
                "fast-command"
            } else {
                "command"
            };
            self.keep_event(event, outcome.nanoseconds);
        }
        if command.has(Flag::SkipSlowlog) {
            return;
        }
        for (kind, limit, measured, value) in [
            (
                Kind::Slow,
                &self.slow_nanoseconds,
                outcome.nanoseconds,
                outcome.nanoseconds / 1000,
            ),
            (
                Kind::LargeRequest,
                &self.request_bytes,
                args.bytes() as u64,
                args.bytes() as u64,
            ),
            (
                Kind::LargeReply,
                &self.reply_bytes,
                outcome.reply_bytes as u64,
                outcome.reply_bytes as u64,
            ),
        ] {
            if measured < limit.load(Ordering::Relaxed) {
                continue;
            }
            let mut ring = self.rings[kind as usize].lock();
            if ring.limit == 0 {
                continue;
            }
            let id = ring.next_id;
            ring.next_id += 1;
            let limit = ring.limit;
            ring.records.truncate(limit - 1);
            ring.records.push_front(Record {
                id,
                at_seconds: now().seconds(),
                value,
                words: kept_words(args),
                address: client.address.to_string(),
                name: client.details().name,
            });
        }
    }

    /// Keeps a sample of something other than a command, if it took long enough.
    pub fn note_event(&self, name: &'static str, began: Instant) {
        let nanoseconds = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if nanoseconds >= self.event_nanoseconds.load(Ordering::Relaxed) {
            self.keep_event(name, nanoseconds);
        }
    }

    fn keep_event(&self, name: &'static str, nanoseconds: u64) {
        let millis = nanoseconds / 1_000_000;
        let mut events = self.events.lock();
        let event = events.entry(name).or_default();
        let second = now().seconds();
        event.worst_ms = event.worst_ms.max(millis);
        match event.samples.back_mut() {
            // One sample a second: the worst.
            Some((at, worst)) if *at == second => *worst = millis.max(*worst),
            _ => {
                if event.samples.len() == KEPT_SAMPLES {
                    event.samples.pop_front();
                }
                event.samples.push_back((second, millis));
            }
        }
    }

    /// The latest records of a kind, the newest first.
    pub fn latest(&self, kind: Kind, count: usize) -> Vec<Record> {
        let ring = self.rings[kind as usize].lock();
        ring.records.iter().take(count).cloned().collect()
    }

    pub fn len(&self, kind: Kind) -> usize {
        self.rings[kind as usize].lock().records.len()
    }

    pub fn clear(&self, kind: Kind) {
        self.rings[kind as usize].lock().records.clear();
    }

    /// All latency events by name.
    pub fn events(&self) -> BTreeMap<&'static str, Event> {
        self.events.lock().clone()
    }

    /// Forgets the events that `gone` picks; returns how many.
    pub fn forget_events(&self, gone: impl Fn(&str) -> bool) -> usize {
        let mut events = self.events.lock();
        let before = events.len();
        events.retain(|name, _| !gone(name));
        before - events.len()
    }
}

/// The words as they are kept: long ones cut, secrets left out.
fn kept_words(args: &Args<'_>) -> Vec<Box<[u8]>> {
    let shown = if args.len() > KEPT_WORDS {
        KEPT_WORDS - 1
    } else {
        args.len()
    };
    let mut words: Vec<Box<[u8]>> = (0..shown)
        .map(|index| {
            let word = args.word(index);
            if is_secret(args, index) {
                b"(redacted)".as_slice().into()
            } else if word.len() > KEPT_BYTES {
                let more = format!("... ({} more bytes)", word.len() - KEPT_BYTES);
                [&word[..KEPT_BYTES], more.as_bytes()].concat().into()
            } else {
                word.into()
            }
        })
        .collect();
    if shown < args.len() {
        let more = format!("... ({} more arguments)", args.len() - shown);
        words.push(more.into_bytes().into());
    }
    words
}

/// Settings whose values are secrets.
const SECRETS: [&str; 7] = [
    "requirepass",
    "masterauth",
    "masteruser",
    "primaryauth",
    "primaryuser",
    "tls-key-file-pass",
    "tls-client-key-file-pass",
];

/// Whether a word of a request must not be shown.
pub fn is_secret(args: &Args<'_>, index: usize) -> bool {
    if index == 0 {
        return false;
    }
    if args.is(0, "AUTH") {
        return true;
    }
    if args.is(0, "HELLO") || args.is(0, "MIGRATE") {
        let after = |words: usize| {
            index > words && (args.is(index - words, "AUTH") || args.is(index - words, "AUTH2"))
        };
        return after(1) || after(2);
    }
    if args.is(0, "CONFIG") && args.is(1, "SET") {
        return index >= 3 && index % 2 == 1 && SECRETS.iter().any(|name| args.is(index - 1, name));
    }
    // Users' names are nobody's business either.
    let about_users = ["SETUSER", "GETUSER", "DELUSER"];
    args.is(0, "ACL") && index >= 2 && about_users.iter().any(|name| args.is(1, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::resp::join;

    #[test]
    fn secrets_are_left_out_and_long_requests_cut() {
        let kept = |words: &[&str]| {
            let (joined, spans) = join(words);
            let kept = kept_words(&Args::new(&joined, &spans));
            let kept: Vec<String> = kept
                .iter()
                .map(|word| String::from_utf8_lossy(word).into())
                .collect();
            kept.join(" ")
        };
        assert_eq!(
            kept(&["AUTH", "user", "secret"]),
            "AUTH (redacted) (redacted)"
        );
        assert_eq!(
            kept(&["hello", "3", "auth", "user", "secret", "SETNAME", "a"]),
            "hello 3 auth (redacted) (redacted) SETNAME a"
        );
        assert_eq!(
            kept(&["CONFIG", "SET", "port", "1", "requirepass", "secret"]),
            "CONFIG SET port 1 requirepass (redacted)"
        );
        assert_eq!(
            kept(&["SET", "a", &"x".repeat(130)]),
            format!("SET a {}... (2 more bytes)", "x".repeat(128))
        );
        assert!(kept(&["DEL"; 40]).ends_with("DEL ... (9 more arguments)"));
    }
}
