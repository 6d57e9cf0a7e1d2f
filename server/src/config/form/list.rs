//! Forms of several words with a meaning of their own: save points, output limits, percentiles, addresses ...

use super::super::{memory_size, words};
use super::number::lenient_integer;
use super::{Form, Rejection, Source, Words, join};

/// Save after `seconds` if at least `changes` happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavePoint {
    pub seconds: u64,
    pub changes: u64,
}

/// Pairs of seconds and changes. Lines accumulate; an empty one drops what was there.
pub(in super::super) struct SavePoints {
    initial: &'static [SavePoint],
}

pub(in super::super) const fn save_points(initial: &'static [SavePoint]) -> SavePoints {
    SavePoints { initial }
}

impl Form for SavePoints {
    type Value = Vec<SavePoint>;

    const WORDS: Words = Words::Several;

    fn initial(&self) -> Vec<SavePoint> {
        self.initial.to_vec()
    }

    fn update(
        &self,
        value: &mut Vec<SavePoint>,
        words: &[&[u8]],
        source: Source,
    ) -> Result<(), Rejection> {
        const INVALID: &str = "Invalid save parameters";
        let (pairs, []) = words.as_chunks::<2>() else {
            return Err(INVALID.into());
        };
        let mut points = Vec::with_capacity(pairs.len());
        for [seconds, changes] in pairs {
            points.push(SavePoint {
                seconds: bounded(seconds, 1, i64::MAX).ok_or(INVALID)?.unsigned_abs(),
                changes: bounded(changes, 0, i64::from(i32::MAX))
                    .ok_or(INVALID)?
                    .unsigned_abs(),
            });
        }
        if source != Source::LaterLine || points.is_empty() {
            value.clear();
        }
        value.extend(points);
        Ok(())
    }

    fn show(&self, value: &Vec<SavePoint>) -> Vec<u8> {
        join(
            value
                .iter()
                .map(|point| format!("{} {}", point.seconds, point.changes)),
        )
    }

    fn lines(&self, value: &Vec<SavePoint>) -> Vec<Vec<u8>> {
        vec![or_empty_quotes(self.show(value))]
    }

    fn describe(&self) -> String {
        "pairs of seconds and changes, or \"\"".to_owned()
    }
}

/// When a client whose replies pile up is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimit {
    /// Closed at once above this many bytes; 0 is no limit.
    pub hard_bytes: u64,
    /// Closed when above this many bytes for `soft_seconds`; 0 is no limit.
    pub soft_bytes: u64,
    pub soft_seconds: u64,
}

/// One limit per class of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimits {
    pub normal: OutputLimit,
    pub replica: OutputLimit,
    pub pubsub: OutputLimit,
}

impl OutputLimits {
    fn class(&mut self, name: &[u8]) -> Option<&mut OutputLimit> {
        Some(match name.to_ascii_lowercase().as_slice() {
            b"normal" => &mut self.normal,
            b"replica" | b"slave" => &mut self.replica,
            b"pubsub" => &mut self.pubsub,
            _ => return None,
        })
    }

    fn rows(&self) -> [(&'static str, OutputLimit); 3] {
        [
            ("normal", self.normal),
            ("replica", self.replica),
            ("pubsub", self.pubsub),
        ]
    }
}

/// `class hard soft seconds`, any number of times; classes not named keep their limits.
pub(in super::super) struct OutputLimitsForm {
    initial: OutputLimits,
}

pub(in super::super) const fn output_limits(initial: OutputLimits) -> OutputLimitsForm {
    OutputLimitsForm { initial }
}

impl Form for OutputLimitsForm {
    type Value = OutputLimits;

    const WORDS: Words = Words::Several;

    fn initial(&self) -> OutputLimits {
        self.initial
    }

    fn update(
        &self,
        value: &mut OutputLimits,
        words: &[&[u8]],
        _: Source,
    ) -> Result<(), Rejection> {
        const INVALID: &str =
            "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
        let (groups, []) = words.as_chunks::<4>() else {
            return Err("Wrong number of arguments in buffer limit configuration.".into());
        };
        let mut limits = *value;
        for [class, hard, soft, seconds] in groups {
            let limit = limits
                .class(class)
                .ok_or("Invalid client class specified in buffer limit configuration.")?;
            *limit = OutputLimit {
                hard_bytes: memory_size::parse(hard).ok_or(INVALID)?,
                soft_bytes: memory_size::parse(soft).ok_or(INVALID)?,
                soft_seconds: bounded(seconds, 0, i64::from(i32::MAX))
                    .ok_or(INVALID)?
                    .unsigned_abs(),
            };
        }
        *value = limits;
        Ok(())
    }

    /// Shows the replicas' class by its old name, which is what clients of `CONFIG GET` look for.
    fn show(&self, value: &OutputLimits) -> Vec<u8> {
        join(value.rows().iter().map(|(class, limit)| {
            let class = if *class == "replica" { "slave" } else { class };
            format!(
                "{class} {} {} {}",
                limit.hard_bytes, limit.soft_bytes, limit.soft_seconds
            )
        }))
    }

    fn lines(&self, value: &OutputLimits) -> Vec<Vec<u8>> {
        let line = |(class, limit): (&str, OutputLimit)| {
            let (hard, soft) = (
                memory_size::format(limit.hard_bytes),
                memory_size::format(limit.soft_bytes),
            );
            format!("{class} {hard} {soft} {}", limit.soft_seconds).into_bytes()
        };
        value.rows().into_iter().map(line).collect()
    }

    fn describe(&self) -> String {
        "class (normal, replica, pubsub), hard limit, soft limit, seconds; repeatable".to_owned()
    }
}

/// Three adjustments of the kernel's out-of-memory score.
pub(in super::super) struct OomAdjustments {
    initial: [i32; 3],
}

pub(in super::super) const fn oom_adjustments(initial: [i32; 3]) -> OomAdjustments {
    OomAdjustments { initial }
}

impl Form for OomAdjustments {
    type Value = [i32; 3];

    const WORDS: Words = Words::Several;

    fn initial(&self) -> [i32; 3] {
        self.initial
    }

    fn update(&self, value: &mut [i32; 3], words: &[&[u8]], _: Source) -> Result<(), Rejection> {
        const INVALID: &str =
            "Invalid oom-score-adj-values, elements must be between -2000 and 2000.";
        let words: &[&[u8]; 3] = words.try_into().map_err(|_| "wrong number of arguments")?;
        let mut adjustments = [0; 3];
        for (adjustment, word) in adjustments.iter_mut().zip(words) {
            let number = bounded(word, -2000, 2000).ok_or(INVALID)?;
            *adjustment = i32::try_from(number).map_err(|_| INVALID)?;
        }
        *value = adjustments;
        Ok(())
    }

    fn show(&self, value: &[i32; 3]) -> Vec<u8> {
        join(value.iter().map(i32::to_string))
    }

    fn describe(&self) -> String {
        "three integers, -2000 to 2000".to_owned()
    }
}

/// Percentiles between 0 and 100, in the order given.
pub(in super::super) struct Percentiles {
    initial: &'static [f64],
}

pub(in super::super) const fn percentiles(initial: &'static [f64]) -> Percentiles {
    Percentiles { initial }
}

impl Form for Percentiles {
    type Value = Vec<f64>;

    const WORDS: Words = Words::Several;

    fn initial(&self) -> Vec<f64> {
        self.initial.to_vec()
    }

    fn update(&self, value: &mut Vec<f64>, words: &[&[u8]], _: Source) -> Result<(), Rejection> {
        let read = |word: &&[u8]| {
            let number = std::str::from_utf8(word)
                .ok()
                .and_then(|text| text.parse::<f64>().ok());
            match number {
                Some(number) if number.is_nan() => None,
                number => number,
            }
        };
        let mut numbers = Vec::with_capacity(words.len());
        for word in words {
            let number =
                read(word).ok_or("Invalid latency-tracking-info-percentiles parameters")?;
            if !(0.0..=100.0).contains(&number) {
                return Err(
                    "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]"
                        .into(),
                );
            }
            // Six decimals are what is ever shown; keep no more, and no negative zero.
            numbers.push((number * 1e6).round() / 1e6 + 0.0);
        }
        *value = numbers;
        Ok(())
    }

    fn show(&self, value: &Vec<f64>) -> Vec<u8> {
        join(value.iter().map(|number| {
            let text = format!("{number:.6}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }))
    }

    fn lines(&self, value: &Vec<f64>) -> Vec<Vec<u8>> {
        vec![or_empty_quotes(self.show(value))]
    }

    fn describe(&self) -> String {
        "percentiles, or \"\"".to_owned()
    }
}

/// Addresses to listen on. `*` is every IPv4 one, `::*` every IPv6 one; `-` before one lets it be missing.
pub(in super::super) struct Addresses {
    initial: &'static [&'static str],
    refusal: Option<&'static str>,
}

/// More than this many addresses are refused.
const MAX_ADDRESSES: usize = 16;

pub(in super::super) const fn addresses(initial: &'static [&'static str]) -> Addresses {
    Addresses {
        initial,
        refusal: None,
    }
}

impl Addresses {
    /// This program has nothing that could listen there.
    pub(in super::super) const fn refused(mut self, reason: &'static str) -> Addresses {
        self.refusal = Some(reason);
        self
    }
}

impl Form for Addresses {
    type Value = Vec<String>;

    const WORDS: Words = Words::Several;

    fn initial(&self) -> Vec<String> {
        self.initial
            .iter()
            .map(|address| (*address).to_owned())
            .collect()
    }

    fn update(&self, value: &mut Vec<String>, words: &[&[u8]], _: Source) -> Result<(), Rejection> {
        if let Some(reason) = self.refusal
            && !words.is_empty()
        {
            return Err(reason.into());
        }
        if words.len() > MAX_ADDRESSES {
            return Err("Too many bind addresses specified.".into());
        }
        let addresses: Result<Vec<String>, _> = words
            .iter()
            .map(|word| String::from_utf8(word.to_vec()))
            .collect();
        let addresses = addresses.map_err(|_| "Failed to bind to specified addresses.")?;
        if addresses
            .iter()
            .any(|address| address.is_empty() || address.contains(' '))
        {
            return Err("Failed to bind to specified addresses.".into());
        }
        *value = addresses;
        Ok(())
    }

    fn show(&self, value: &Vec<String>) -> Vec<u8> {
        join(value)
    }

    fn lines(&self, value: &Vec<String>) -> Vec<Vec<u8>> {
        let quoted = value.iter().map(|address| quoted_word(address.as_bytes()));
        vec![or_empty_quotes(join(quoted))]
    }

    fn describe(&self) -> String {
        format!("up to {MAX_ADDRESSES} addresses")
    }
}

/// `host port` of a primary, or `no one`.
pub(in super::super) struct ReplicaOf;

pub(in super::super) const fn replica_of() -> ReplicaOf {
    ReplicaOf
}

impl Form for ReplicaOf {
    type Value = Option<(String, u16)>;

    const WORDS: Words = Words::Several;

    fn initial(&self) -> Option<(String, u16)> {
        None
    }

    fn update(
        &self,
        value: &mut Option<(String, u16)>,
        words: &[&[u8]],
        _: Source,
    ) -> Result<(), Rejection> {
        let [host, port] = words else {
            return Err("wrong number of arguments".into());
        };
        if host.eq_ignore_ascii_case(b"no") && port.eq_ignore_ascii_case(b"one") {
            *value = None;
            return Ok(());
        }
        let port = bounded(port, 0, i64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok());
        let host = std::str::from_utf8(host).map_err(|_| "Invalid primary host")?;
        if host.contains(' ') {
            return Err("Invalid primary host".into());
        }
        *value = Some((host.to_owned(), port.ok_or("Invalid primary port")?));
        Ok(())
    }

    fn show(&self, value: &Option<(String, u16)>) -> Vec<u8> {
        value.as_ref().map_or_else(Vec::new, |(host, port)| {
            format!("{host} {port}").into_bytes()
        })
    }

    fn lines(&self, value: &Option<(String, u16)>) -> Vec<Vec<u8>> {
        vec![match value {
            Some((host, port)) => {
                join([quoted_word(host.as_bytes()), port.to_string().into_bytes()])
            }
            None => b"no one".to_vec(),
        }]
    }

    fn describe(&self) -> String {
        "host and port, or \"no one\"".to_owned()
    }
}

/// Which changes of keys are announced, and on which channels: one bit per letter of `notify-keyspace-events`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceEvents(u32);

impl KeyspaceEvents {
    pub const NONE: KeyspaceEvents = KeyspaceEvents(0);
    pub const GENERIC: KeyspaceEvents = KeyspaceEvents(1 << 0);
    pub const STRING: KeyspaceEvents = KeyspaceEvents(1 << 1);
    pub const LIST: KeyspaceEvents = KeyspaceEvents(1 << 2);
    pub const SET: KeyspaceEvents = KeyspaceEvents(1 << 3);
    pub const HASH: KeyspaceEvents = KeyspaceEvents(1 << 4);
    pub const SORTED_SET: KeyspaceEvents = KeyspaceEvents(1 << 5);
    pub const EXPIRED: KeyspaceEvents = KeyspaceEvents(1 << 6);
    pub const EVICTED: KeyspaceEvents = KeyspaceEvents(1 << 7);
    pub const STREAM: KeyspaceEvents = KeyspaceEvents(1 << 8);
    pub const MODULE: KeyspaceEvents = KeyspaceEvents(1 << 9);
    pub const NEW: KeyspaceEvents = KeyspaceEvents(1 << 10);
    pub const KEYSPACE: KeyspaceEvents = KeyspaceEvents(1 << 11);
    pub const KEYEVENT: KeyspaceEvents = KeyspaceEvents(1 << 12);
    pub const MISS: KeyspaceEvents = KeyspaceEvents(1 << 13);
    /// What `A` stands for.
    pub const ALL: KeyspaceEvents = KeyspaceEvents((1 << 10) - 1);

    /// The letters of the classes that `A` covers, then `n`, in the order in which they are shown.
    const CLASSES: [(u8, KeyspaceEvents); 11] = [
        (b'g', Self::GENERIC),
        (b'$', Self::STRING),
        (b'l', Self::LIST),
        (b's', Self::SET),
        (b'h', Self::HASH),
        (b'z', Self::SORTED_SET),
        (b'x', Self::EXPIRED),
        (b'e', Self::EVICTED),
        (b't', Self::STREAM),
        (b'd', Self::MODULE),
        (b'n', Self::NEW),
    ];

    const CHANNELS: [(u8, KeyspaceEvents); 3] = [
        (b'K', Self::KEYSPACE),
        (b'E', Self::KEYEVENT),
        (b'm', Self::MISS),
    ];

    /// Whether all of `other` is in it.
    pub fn contains(self, other: KeyspaceEvents) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    fn letters(self, table: &[(u8, KeyspaceEvents)]) -> impl Iterator<Item = u8> {
        table
            .iter()
            .filter(move |(_, event)| self.contains(*event))
            .map(|(letter, _)| *letter)
    }
}

pub(in super::super) struct KeyspaceEventsForm;

pub(in super::super) const fn keyspace_events() -> KeyspaceEventsForm {
    KeyspaceEventsForm
}

impl Form for KeyspaceEventsForm {
    type Value = KeyspaceEvents;

    fn initial(&self) -> KeyspaceEvents {
        KeyspaceEvents::NONE
    }

    fn update(
        &self,
        value: &mut KeyspaceEvents,
        words: &[&[u8]],
        _: Source,
    ) -> Result<(), Rejection> {
        let mut events = KeyspaceEvents::NONE;
        for letter in words[0] {
            let mut known = KeyspaceEvents::CLASSES
                .iter()
                .chain(&KeyspaceEvents::CHANNELS);
            let event = match known.find(|(known, _)| known == letter) {
                Some((_, event)) => *event,
                None if *letter == b'A' => KeyspaceEvents::ALL,
                None => return Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".into()),
            };
            events.0 |= event.0;
        }
        *value = events;
        Ok(())
    }

    /// `A` hides `n` as well, as it does in the original.
    fn show(&self, value: &KeyspaceEvents) -> Vec<u8> {
        let classes = if value.contains(KeyspaceEvents::ALL) {
            b"A".to_vec()
        } else {
            value.letters(&KeyspaceEvents::CLASSES).collect()
        };
        classes
            .into_iter()
            .chain(value.letters(&KeyspaceEvents::CHANNELS))
            .collect()
    }

    fn lines(&self, value: &KeyspaceEvents) -> Vec<Vec<u8>> {
        let mut line = vec![b'"'];
        line.extend(self.show(value));
        if value.contains(KeyspaceEvents::ALL) && value.contains(KeyspaceEvents::NEW) {
            line.push(b'n');
        }
        line.push(b'"');
        vec![line]
    }

    fn describe(&self) -> String {
        "letters out of KEg$lshzxetdnmA, or \"\"".to_owned()
    }
}

fn bounded(word: &[u8], least: i64, most: i64) -> Option<i64> {
    lenient_integer(word, 10).filter(|number| (least..=most).contains(number))
}

fn quoted_word(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    words::quote_if_needed(word, &mut out);
    out
}

fn or_empty_quotes(line: Vec<u8>) -> Vec<u8> {
    if line.is_empty() {
        b"\"\"".to_vec()
    } else {
        line
    }
}
