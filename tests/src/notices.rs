//! What listeners are told of random commands: after each, the keyspace events and the invalidated keys must be the
//! same bytes from two servers, in the same order.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;

use crate::grammar::{Generator, Grammar, Step};
use crate::random::Random;
use crate::wire::{Wire, find, parts, show, show_command};

/// Commands between two empty keyspaces.
const EPOCH: usize = 2_000;
/// Commands that a report shows at most, those on the same keys.
const SHOWN: usize = 4;

/// A command of which the servers told their listeners different things.
pub struct Difference {
    /// The last of the commands on the same keys; the last one is that which was told of.
    pub commands: Vec<String>,
    pub told: [String; 2],
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for command in &self.commands {
            writeln!(formatter, "    {command}")?;
        }
        writeln!(formatter, "  tested:    {}", self.told[0])?;
        write!(formatter, "  reference: {}", self.told[1])
    }
}

/// Sends so many commands of a grammar to both servers, one by one. Returns up to `most` differences, each kind once.
pub fn compare(
    servers: [SocketAddr; 2],
    grammar: &Grammar,
    commands: usize,
    seed: u64,
    most: usize,
) -> Vec<Difference> {
    let mut sides = servers.map(Side::new);
    let mut generator = Generator::new(Random::new(seed));
    let mut seen = HashSet::new();
    let mut differences = Vec::new();
    let mut history: Vec<Step> = Vec::new();
    for number in 0..commands {
        if number % EPOCH == 0 {
            sides.iter_mut().for_each(Side::clear);
            history = (grammar.prelude)(&mut generator);
            for step in &history {
                sides.iter_mut().for_each(|side| {
                    side.run(step);
                });
            }
        }
        let step = generator.step(grammar);
        history.push(step.clone());
        let mut told = sides.each_mut().map(|side| side.run(&step));
        if step.name().starts_with("SORT") {
            // The members of sets come in any order, and so does the one that cannot be sorted by.
            if sides[0].failed {
                continue;
            }
            told.iter_mut().for_each(|told| told.sort());
        }
        if told[0] == told[1] {
            continue;
        }
        // Another kind of difference is one in other events, whatever their keys.
        let kind = (step.name(), told.each_ref().map(|told| names(told)));
        if seen.insert(kind) {
            differences.push(Difference {
                commands: concerning(&history, &step),
                told: told.map(|told| describe(&told)),
            });
            if differences.len() == most {
                break;
            }
        }
    }
    differences
}

/// The messages but for the names of keys.
fn names(told: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let without_key = |message: &Vec<u8>| match &parts(message).1[..] {
        [.., event, _key] => event.to_vec(),
        _ => Vec::new(),
    };
    told.iter().map(without_key).collect()
}

/// The messages in short: each event with its key, or the keys that are invalidated.
fn describe(told: &[Vec<u8>]) -> String {
    let shorter = |message: &Vec<u8>| {
        let (_, elements) = parts(message);
        let text = |element: &[u8]| {
            let skip = find(element, b"\r\n").map_or(0, |at| at + 2);
            show(element[skip..].trim_ascii_end())
        };
        match &elements[..] {
            [_, _, channel, key] => format!(
                "{} {}",
                text(channel).trim_start_matches("__keyevent@"),
                text(key)
            ),
            [_, keys] => {
                let keys: Vec<String> = parts(keys).1.into_iter().map(text).collect();
                format!("stale: {}", keys.join(", "))
            }
            _ => show(message),
        }
    };
    told.iter().map(shorter).collect::<Vec<_>>().join(" | ")
}

/// The last commands that share a word with this one, their names aside.
fn concerning(history: &[Step], step: &Step) -> Vec<String> {
    let words: HashSet<&[u8]> = step.args[1..]
        .iter()
        .map(Vec::as_slice)
        .filter(|word| word.len() > 1)
        .collect();
    let mut shown: Vec<String> = history
        .iter()
        .rev()
        .filter(|other| other.args[1..].iter().any(|arg| words.contains(&arg[..])))
        .take(SHOWN)
        .map(|step| show_command(&step.args))
        .collect();
    shown.reverse();
    if shown.is_empty() {
        shown.push(show_command(&step.args));
    }
    shown
}

/// One server: who sends commands, and who listens.
struct Side {
    sender: Wire,
    listener: Wire,
    /// Whether the last command was answered with an error.
    failed: bool,
}

impl Side {
    fn new(server: SocketAddr) -> Side {
        let mut sender = Wire::connect(server);
        sender.line("CONFIG SET notify-keyspace-events KEAmn");
        // Keys expire when somebody looks, not when the clock ticks.
        sender.line("DEBUG SET-ACTIVE-EXPIRE 0");
        let mut listener = Wire::connect(server);
        for line in [
            "HELLO 3",
            "CLIENT TRACKING on BCAST",
            "PSUBSCRIBE __keyevent@*",
        ] {
            listener.line(line);
        }
        Side {
            sender,
            listener,
            failed: false,
        }
    }

    fn clear(&mut self) {
        self.run(&Step::new("FLUSHALL"));
        self.run(&Step::new("SELECT").arg("0"));
    }

    /// Runs a command and returns the messages about it.
    fn run(&mut self, step: &Step) -> Vec<Vec<u8>> {
        self.failed = self.sender.command(&step.args).starts_with(b"-");
        self.listener.send_command(&["PING"]);
        let mut told = Vec::new();
        loop {
            let message = self.listener.reply().expect("the listener is answered");
            if message == b"+PONG\r\n" {
                return told;
            }
            told.push(message);
        }
    }
}
