//! Sends the same random commands to two servers and compares every reply byte for byte.
//!
//! A run is a sequence of epochs. Each starts from an empty keyspace, sends commands that a [`Grammar`] invents, in
//! pipelines, to both servers, and now and then looks at every key from outside (type, encoding, deadline, content). The
//! whole run follows from its seed. When the servers disagree, the epoch so far is replayed with fewer and fewer commands
//! until only those are left that matter; the report shows them ready to paste into a command line client.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::grammar::{Compare, Generator, Grammar, Protocol, Step};
use crate::random::Random;
use crate::wire::{Failure, Wire, encode, parts, show, show_command};

/// Commands per pipeline when keys are looked at or commands replayed.
const BATCH_COMMANDS: usize = 40;
/// Bytes per pipeline: both directions must fit the sockets' buffers, since all is sent before anything is read.
const BATCH_BYTES: usize = 96 * 1024;
/// Commands between two looks at the whole keyspace.
const CHECK_INTERVAL: usize = 3000;
/// After this many reports about one command it is left out of the rest of the run.
const REPORTS_PER_COMMAND: usize = 3;
/// Longest time spent on finding the commands that matter.
const SHRINK_TIME: Duration = Duration::from_secs(15);

/// What to run.
#[derive(Clone)]
pub struct Run {
    pub grammar: &'static Grammar,
    pub commands: usize,
    pub seed: u64,
    /// 2 or 3; ignored by memcached.
    pub resp: u8,
    /// Commands per pipeline, if not what the grammar says.
    pub batch: Option<usize>,
    /// Ends the run early when so many different disagreements were found.
    pub max_mismatches: usize,
}

/// Two servers that disagree.
pub struct Mismatch {
    pub group: &'static str,
    pub seed: u64,
    pub resp: u8,
    /// The shortest sequence found that shows it from an empty keyspace; the last command is the one answered differently.
    pub commands: Vec<String>,
    pub replies: [String; 2],
    /// False if the replies depend on more than the commands: the sequence is then the last that touched the keys.
    pub repeatable: bool,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "=== {} (RESP{}, seed {})",
            self.group, self.resp, self.seed
        )?;
        if !self.repeatable {
            writeln!(
                formatter,
                "    (not repeated by a replay; the last commands on these keys:)"
            )?;
        }
        for command in &self.commands {
            writeln!(formatter, "    {command}")?;
        }
        writeln!(formatter, "  tested:    {}", self.replies[0])?;
        write!(formatter, "  reference: {}", self.replies[1])
    }
}

/// Runs the commands against the server under test and the reference. Returns the commands sent and what was found.
pub fn run(run: &Run, tested: SocketAddr, reference: SocketAddr) -> (usize, Vec<Mismatch>) {
    let mut pair = Pair::connect([tested, reference], run.grammar.protocol, run.resp);
    let mut generator = Generator::new(Random::new(run.seed));
    let mut dice = Random::new(run.seed ^ 0x5eed);
    let mut findings = Findings::new(run);
    let mut sent = 0;
    while sent < run.commands && !findings.is_full() {
        let epoch_commands = (dice.between(500, 12_000) as usize).min(run.commands - sent);
        sent += epoch(
            run,
            &mut pair,
            &mut generator,
            epoch_commands,
            &mut findings,
        );
    }
    (sent, findings.mismatches)
}

/// Runs one epoch; stops at the first disagreement, since the servers' states differ from there on.
fn epoch(
    run: &Run,
    pair: &mut Pair,
    generator: &mut Generator,
    commands: usize,
    findings: &mut Findings<'_>,
) -> usize {
    pair.reset(generator);
    let mut history: Vec<Step> = (run.grammar.prelude)(generator);
    let mut batch = history.clone();
    let mut unchecked = 0;
    let batch_commands = run.batch.unwrap_or(run.grammar.batch);
    while history.len() < commands {
        let mut bytes = 0;
        while batch.len() < batch_commands && bytes < BATCH_BYTES {
            let step = generator.step(run.grammar);
            if findings.is_muted(&step) {
                continue;
            }
            bytes += step.args.iter().map(Vec::len).sum::<usize>();
            batch.push(step.clone());
            history.push(step);
        }
        unchecked += batch.len();
        let mut difference = pair.exchange(&batch);
        let mut first_of_batch = history.len() - batch.len();
        if difference.is_none() && (unchecked >= CHECK_INTERVAL || history.len() >= commands) {
            unchecked = 0;
            first_of_batch = history.len();
            difference = state_check(run.grammar, pair, generator, &mut history);
        }
        if let Some(difference) = difference {
            history.truncate(first_of_batch + difference.index + 1);
            let sent = history.len();
            findings.add(pair, generator, history, difference);
            return sent;
        }
        batch.clear();
    }
    history.len()
}

/// Looks at every key from outside; what it asks becomes part of the history.
fn state_check(
    grammar: &Grammar,
    pair: &mut Pair,
    generator: &mut Generator,
    history: &mut Vec<Step>,
) -> Option<Difference> {
    if grammar.protocol == Protocol::Memcached {
        let looks: Vec<Step> = generator
            .keys()
            .iter()
            .map(|key| memcached_look(key))
            .collect();
        let difference = pair.exchange(&looks);
        history.extend(looks);
        return difference;
    }
    let keys = generator.keys().to_vec();
    let mut looks: Vec<Step> = keys.iter().map(|key| Step::new("TYPE").arg(key)).collect();
    // Not DBSIZE: that counts expired keys that nobody has met yet.
    looks.push(Step::new("KEYS").arg("*").compare(Compare::Unordered));
    let first_look = history.len();
    let difference = pair.exchange(&looks);
    history.extend(looks);
    if difference.is_some() {
        return difference;
    }
    let types = std::mem::take(&mut pair.replies[0]);
    let looks: Vec<Step> = keys
        .iter()
        .zip(&types)
        .flat_map(|(key, reply)| looks_at(key, reply, grammar.encodings))
        .collect();
    for chunk in looks.chunks(BATCH_COMMANDS) {
        let base = history.len() - first_look;
        let difference = pair.exchange(chunk);
        history.extend_from_slice(chunk);
        if let Some(mut difference) = difference {
            difference.index += base;
            return Some(difference);
        }
    }
    None
}

/// The commands that show all of a key, given the reply to TYPE.
fn looks_at(key: &[u8], kind: &[u8], encodings: Compare) -> Vec<Step> {
    let content = match kind {
        b"+string\r\n" => Step::new("GET").arg(key),
        b"+list\r\n" => Step::new("LRANGE").arg(key).arg("0").arg("-1"),
        b"+set\r\n" => Step::new("SMEMBERS").arg(key).compare(Compare::Unordered),
        b"+hash\r\n" => Step::new("HGETALL")
            .arg(key)
            .compare(Compare::UnorderedPairs),
        b"+zset\r\n" => Step::new("ZRANGE")
            .arg(key)
            .arg("0")
            .arg("-1")
            .arg("WITHSCORES"),
        b"+stream\r\n" => Step::new("XRANGE").arg(key).arg("-").arg("+"),
        _ => return Vec::new(),
    };
    let deadline = Step::new("PEXPIRETIME")
        .arg(key)
        .compare(Compare::Near(3000));
    vec![
        Step::new("OBJECT")
            .arg("ENCODING")
            .arg(key)
            .compare(encodings),
        deadline,
        content,
    ]
}

fn memcached_look(key: &[u8]) -> Step {
    let request = [b"mg ", key, b" f s v t\r\n"].concat();
    Step {
        args: vec![request],
        compare: Compare::Exact,
        mutable: false,
    }
}

/// The first command of a batch that was answered differently.
struct Difference {
    index: usize,
    replies: [String; 2],
    /// A server closed the connection or fell silent.
    broken: bool,
}

/// Connections to both servers.
struct Pair {
    addresses: [SocketAddr; 2],
    protocol: Protocol,
    resp: u8,
    wires: [Wire; 2],
    /// The replies of the last batch.
    replies: [Vec<Vec<u8>>; 2],
    /// The longest that the two servers took for one batch since the keyspaces were emptied.
    slowest: Duration,
}

impl Pair {
    fn connect(addresses: [SocketAddr; 2], protocol: Protocol, resp: u8) -> Self {
        let wires = addresses.map(|address| open(address, protocol, resp));
        Self {
            addresses,
            protocol,
            resp,
            wires,
            replies: [Vec::new(), Vec::new()],
            slowest: Duration::ZERO,
        }
    }

    fn reconnect(&mut self) {
        self.wires = self
            .addresses
            .map(|address| open(address, self.protocol, self.resp));
    }

    /// Empties both keyspaces.
    fn reset(&mut self, generator: &Generator) {
        self.slowest = Duration::ZERO;
        for wire in &mut self.wires {
            match self.protocol {
                Protocol::Resp => {
                    wire.command(&["FLUSHALL"]);
                    wire.command(&["FUNCTION", "FLUSH"]);
                    wire.command(&["SCRIPT", "FLUSH"]);
                    wire.command(&["SELECT", "0"]);
                }
                Protocol::Memcached => {
                    let mut request = Vec::new();
                    for key in generator.keys() {
                        request
                            .extend_from_slice(&[b"delete ", &key[..], b" noreply\r\n"].concat());
                    }
                    crate::table::memcached(wire, &request);
                }
            }
        }
    }

    /// Sends a batch to both and compares the replies up to the first difference.
    fn exchange(&mut self, steps: &[Step]) -> Option<Difference> {
        let mut request = Vec::new();
        for step in steps {
            match self.protocol {
                Protocol::Resp => encode(&step.args, &mut request),
                Protocol::Memcached => {
                    request.extend_from_slice(&step.args[0]);
                    request.extend_from_slice(b"mn\r\n");
                }
            }
        }
        let started = Instant::now();
        for wire in &mut self.wires {
            wire.send(&request);
        }
        self.replies = [
            Vec::with_capacity(steps.len()),
            Vec::with_capacity(steps.len()),
        ];
        let mut broken = None;
        for index in 0..steps.len() {
            let answers = [0, 1].map(|side| read_reply(&mut self.wires[side], self.protocol));
            match answers {
                [Ok(tested), Ok(reference)] => {
                    self.replies[0].push(tested);
                    self.replies[1].push(reference);
                }
                [tested, reference] => {
                    self.reconnect();
                    let replies = [tested, reference].map(|answer| match answer {
                        Ok(reply) => show(&reply),
                        Err(failure) => failure.to_string(),
                    });
                    broken = Some(Difference {
                        index,
                        replies,
                        broken: true,
                    });
                    break;
                }
            }
        }
        self.slowest = self.slowest.max(started.elapsed());
        self.first_difference(steps).or(broken)
    }

    /// The first of the replies at hand that differ.
    fn first_difference(&self, steps: &[Step]) -> Option<Difference> {
        let [tested, reference] = &self.replies;
        let pairs = steps.iter().zip(tested.iter().zip(reference));
        for (index, (step, (tested, reference))) in pairs.enumerate() {
            if !step.compare.given(self.slowest).agree(tested, reference) {
                return Some(Difference {
                    index,
                    replies: [show(tested), show(reference)],
                    broken: false,
                });
            }
        }
        None
    }

    /// Whether these commands, from an empty keyspace, end in a different reply to the last one.
    fn shows(&mut self, generator: &Generator, steps: &[Step]) -> Option<Difference> {
        self.reset(generator);
        let mut base = 0;
        let batch_commands = if self.protocol == Protocol::Memcached {
            1
        } else {
            BATCH_COMMANDS
        };
        for chunk in steps.chunks(batch_commands) {
            let difference = self.exchange(chunk);
            if let Some(mut difference) = difference {
                difference.index += base;
                return (difference.index + 1 == steps.len()).then_some(difference);
            }
            base += chunk.len();
        }
        None
    }
}

fn open(address: SocketAddr, protocol: Protocol, resp: u8) -> Wire {
    let mut wire = Wire::connect(address);
    if protocol == Protocol::Resp && resp == 3 {
        wire.command(&["HELLO", "3"]);
    }
    wire
}

fn read_reply(wire: &mut Wire, protocol: Protocol) -> Result<Vec<u8>, Failure> {
    match protocol {
        Protocol::Resp => wire.reply(),
        Protocol::Memcached => {
            let mut reply = wire.until(b"MN\r\n")?;
            reply.truncate(reply.len() - 4);
            Ok(mask_memcached(&reply))
        }
    }
}

/// What was found so far; each kind of disagreement once.
struct Findings<'a> {
    run: &'a Run,
    mismatches: Vec<Mismatch>,
    signatures: HashSet<String>,
    reports: HashMap<String, usize>,
}

impl<'a> Findings<'a> {
    fn new(run: &'a Run) -> Self {
        Self {
            run,
            mismatches: Vec::new(),
            signatures: HashSet::new(),
            reports: HashMap::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.mismatches.len() >= self.run.max_mismatches
    }

    fn is_muted(&self, step: &Step) -> bool {
        !self.reports.is_empty()
            && self
                .reports
                .get(&step.name())
                .is_some_and(|count| *count >= REPORTS_PER_COMMAND)
    }

    fn add(
        &mut self,
        pair: &mut Pair,
        generator: &Generator,
        history: Vec<Step>,
        difference: Difference,
    ) {
        let last = history
            .last()
            .expect("the differing command is part of the history");
        // A command that does not exist at all is told once.
        let unknown = difference.replies[0].starts_with("-ERR unknown command");
        *self.reports.entry(last.name()).or_default() +=
            if unknown { REPORTS_PER_COMMAND } else { 1 };
        let signature = format!(
            "{} {} {}",
            last.name(),
            kind(&difference.replies[0]),
            kind(&difference.replies[1])
        );
        if !self.signatures.insert(signature) {
            return;
        }
        let related = related(&history);
        let (commands, replies, repeatable) = if difference.broken {
            (related, difference.replies, false)
        } else if let Some((commands, again)) = shrink(pair, generator, &history, &related) {
            (commands, again.replies, true)
        } else {
            let tail = related.len().saturating_sub(25);
            (related[tail..].to_vec(), difference.replies, false)
        };
        let commands: Vec<String> = commands
            .iter()
            .map(|step| show_command(&step.args))
            .collect();
        let tail = commands.len().saturating_sub(60);
        self.mismatches.push(Mismatch {
            group: self.run.grammar.name,
            seed: self.run.seed,
            resp: self.run.resp,
            commands: commands[tail..].to_vec(),
            replies,
            repeatable,
        });
    }
}

/// A reply's kind, for telling disagreements apart: an error's text without its numbers, else its type.
fn kind(reply: &str) -> String {
    let text: String = reply
        .chars()
        .filter(|character| !character.is_ascii_digit())
        .take(30)
        .collect();
    if text.starts_with('-') || text.starts_with('<') {
        text
    } else {
        text.chars().take(1).collect()
    }
}

/// The commands that share a key with the last one, directly; settings always.
fn related(history: &[Step]) -> Vec<Step> {
    let Some((last, before)) = history.split_last() else {
        return Vec::new();
    };
    let touches = |step: &&Step| {
        step.args
            .iter()
            .skip(1)
            .any(|arg| last.args[1..].contains(arg))
    };
    let mut related: Vec<Step> = before.iter().filter(touches).cloned().collect();
    related.push(last.clone());
    related
}

/// Removes commands as long as the last one is still answered differently.
fn shrink(
    pair: &mut Pair,
    generator: &Generator,
    history: &[Step],
    related: &[Step],
) -> Option<(Vec<Step>, Difference)> {
    let deadline = Instant::now() + SHRINK_TIME;
    let mut best = if pair.shows(generator, related).is_some() {
        related.to_vec()
    } else {
        history.to_vec()
    };
    let mut difference = pair.shows(generator, &best)?;
    let mut chunk = best.len().div_ceil(2);
    while chunk > 0 && Instant::now() < deadline {
        let mut start = 0;
        while start + 1 < best.len() && Instant::now() < deadline {
            let end = (start + chunk).min(best.len() - 1);
            let fewer = [&best[..start], &best[end..]].concat();
            match pair.shows(generator, &fewer) {
                Some(again) if !again.broken => {
                    best = fewer;
                    difference = again;
                }
                _ => start = end,
            }
        }
        chunk = if chunk == 1 { 0 } else { chunk / 2 };
    }
    Some((best, difference))
}

impl Compare {
    /// The comparison where the servers took so long for a batch. Near ones are for times: a deadline may be set, and
    /// asked for, so much later by one server than by the other.
    fn given(self, slowest: Duration) -> Self {
        const USUAL: Duration = Duration::from_secs(1);
        match self {
            Compare::Near(tolerance) => {
                let times = 1 + 2 * slowest.as_millis() / USUAL.as_millis();
                Compare::Near(tolerance.saturating_mul(i64::try_from(times).unwrap_or(i64::MAX)))
            }
            exact => exact,
        }
    }

    /// Whether two replies say the same.
    pub fn agree(self, tested: &[u8], reference: &[u8]) -> bool {
        if tested == reference {
            return true;
        }
        if tested.first() == Some(&b'-') || reference.first() == Some(&b'-') {
            return false;
        }
        match self {
            Compare::Exact => false,
            Compare::Shape => shape(tested) == shape(reference),
            Compare::Unordered => sorted(tested, 1) == sorted(reference, 1),
            Compare::UnorderedPairs => sorted(tested, 2) == sorted(reference, 2),
            Compare::Scan(width) => {
                let ((head, tested), (other_head, reference)) = (parts(tested), parts(reference));
                head == other_head
                    && matches!((&tested[..], &reference[..]), ([cursor, items], [other_cursor, other_items])
                        if cursor == other_cursor && sorted(items, width) == sorted(other_items, width))
            }
            Compare::Near(tolerance) => near(tested, reference, tolerance),
            Compare::Scores => scores(tested, reference),
        }
    }
}

/// Type and number of elements.
fn shape(reply: &[u8]) -> (Option<u8>, usize) {
    let (head, elements) = parts(reply);
    let is_null = head.starts_with(b"$-") || head.starts_with(b"*-");
    (head.first().copied().filter(|_| !is_null), elements.len())
}

/// The first line and the elements in groups of `width`, sorted.
fn sorted(reply: &[u8], width: usize) -> (&[u8], Vec<Vec<&[u8]>>) {
    let (head, elements) = parts(reply);
    let mut groups: Vec<Vec<&[u8]>> = elements.chunks(width).map(<[&[u8]]>::to_vec).collect();
    groups.sort();
    (head, groups)
}

/// Equal but for integers, which may differ by `tolerance`.
fn near(tested: &[u8], reference: &[u8], tolerance: i64) -> bool {
    if tested == reference {
        return true;
    }
    let ((head, children), (other_head, other_children)) = (parts(tested), parts(reference));
    let integer = |head: &[u8]| -> Option<i64> {
        let text = std::str::from_utf8(head.strip_prefix(b":")?).ok()?;
        text.trim_end().parse().ok()
    };
    let heads_agree = head == other_head
        || matches!((integer(head), integer(other_head)), (Some(a), Some(b))
            if (a < 0) == (b < 0) && a.abs_diff(b) <= tolerance.unsigned_abs());
    heads_agree
        && children.len() == other_children.len()
        && children
            .iter()
            .zip(&other_children)
            .all(|(a, b)| near(a, b, tolerance))
}

/// Equal but for numbers with a fraction, which may differ in their last digits.
fn scores(tested: &[u8], reference: &[u8]) -> bool {
    if tested == reference {
        return true;
    }
    let ((head, children), (other_head, other_children)) = (parts(tested), parts(reference));
    if !children.is_empty() || !other_children.is_empty() {
        return head == other_head
            && children.len() == other_children.len()
            && children
                .iter()
                .zip(&other_children)
                .all(|(a, b)| scores(a, b));
    }
    let number = |scalar: &[u8]| -> Option<f64> {
        let text = std::str::from_utf8(scalar).ok()?;
        let text = if text.starts_with('$') {
            text.split("\r\n").nth(1)?
        } else {
            text.strip_prefix(',')?.trim_end()
        };
        text.parse().ok()
    };
    matches!((number(head), number(other_head)), (Some(a), Some(b)) if (a - b).abs() <= 1e-9 * a.abs().max(b.abs()))
}

/// CAS values that a server chose, ages and remaining times replaced by what both servers must agree on.
fn mask_memcached(reply: &[u8]) -> Vec<u8> {
    /// The grammar gives explicit CAS values above this; a server's own counter stays below.
    const EXPLICIT_CAS: u64 = 1_000_000_000_000_000_000;
    let mut masked = Vec::with_capacity(reply.len());
    for line in reply.split_inclusive(|&byte| byte == b'\n') {
        let is_meta = [&b"HD"[..], b"VA ", b"NS", b"EX", b"NF", b"EN"]
            .iter()
            .any(|start| line.starts_with(start));
        let is_value = line.starts_with(b"VALUE ");
        if line.starts_with(b"ME ") {
            masked.extend_from_slice(b"ME ...\r\n");
            continue;
        }
        if line.starts_with(b"VERSION ") {
            masked.extend_from_slice(b"VERSION ...\r\n");
            continue;
        }
        if !is_meta && !is_value {
            masked.extend_from_slice(line);
            continue;
        }
        for (position, word) in line.split(|&byte| byte == b' ').enumerate() {
            if position > 0 {
                masked.push(b' ');
            }
            let text = String::from_utf8_lossy(word);
            let end = if text.ends_with("\r\n") { "\r\n" } else { "" };
            let text = text.trim_end();
            let number = |text: &str| text.parse::<u64>().ok();
            match text.chars().next() {
                Some('c')
                    if is_meta && number(&text[1..]).is_some_and(|cas| cas < EXPLICIT_CAS) =>
                {
                    masked.extend_from_slice(format!("c#{end}").as_bytes());
                }
                Some('l') if is_meta && number(&text[1..]).is_some() => {
                    masked.extend_from_slice(format!("l#{end}").as_bytes());
                }
                Some('t') if is_meta && number(&text[1..]).is_some() => {
                    masked.extend_from_slice(format!("t{} digits{end}", text.len() - 1).as_bytes());
                }
                _ if is_value
                    && position == 4
                    && number(text).is_some_and(|cas| cas < EXPLICIT_CAS) =>
                {
                    masked.extend_from_slice(format!("#{end}").as_bytes());
                }
                _ => masked.extend_from_slice(word),
            }
        }
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_where_it_is_not_promised() {
        assert!(Compare::Unordered.agree(b"*2\r\n+a\r\n+b\r\n", b"*2\r\n+b\r\n+a\r\n"));
        assert!(!Compare::Unordered.agree(b"*2\r\n+a\r\n+b\r\n", b"*2\r\n+a\r\n+a\r\n"));
        assert!(!Compare::UnorderedPairs.agree(b"*2\r\n+a\r\n+b\r\n", b"*2\r\n+b\r\n+a\r\n"));
        assert!(!Compare::Exact.agree(b"*2\r\n+a\r\n+b\r\n", b"*2\r\n+b\r\n+a\r\n"));
    }

    #[test]
    fn near_accepts_small_differences_of_integers_only() {
        assert!(Compare::Near(2).agree(b"*2\r\n:10\r\n+a\r\n", b"*2\r\n:12\r\n+a\r\n"));
        assert!(!Compare::Near(2).agree(b"*2\r\n:10\r\n+a\r\n", b"*2\r\n:13\r\n+a\r\n"));
        assert!(!Compare::Near(2).agree(b":-1\r\n", b":0\r\n"));
        assert!(!Compare::Near(2).agree(b"+a\r\n", b"+b\r\n"));
    }

    #[test]
    fn slow_servers_may_differ_by_more_time() {
        let given = |millis| Compare::Near(3).given(Duration::from_millis(millis));
        assert_eq!(given(400), Compare::Near(3));
        assert_eq!(given(2000), Compare::Near(15));
        assert_eq!(Compare::Exact.given(Duration::from_secs(9)), Compare::Exact);
    }

    #[test]
    fn a_cas_the_server_chose_is_masked_and_an_explicit_one_is_not() {
        assert_eq!(mask_memcached(b"HD c17 t99\r\n"), b"HD c# t2 digits\r\n");
        assert_eq!(
            mask_memcached(b"HD c1000000000000000001\r\n"),
            b"HD c1000000000000000001\r\n"
        );
        assert_eq!(
            mask_memcached(b"VALUE a 0 2 5\r\nc1\r\n"),
            b"VALUE a 0 2 #\r\nc1\r\n"
        );
    }
}
