//! INFO: the state of the server as text, a section per subject, a line per figure.

mod sections;

use std::fmt::{Display, Write};

use storage::{db::Db, shard::Shard};

use crate::{
    dispatch::{
        args::Args,
        command::{Arity::*, Category, Command, Flag, Group, Reply, Result, Run},
        error::Error,
    },
    session::Session,
};

pub const COMMANDS: &[&Command] = &[&INFO];

const INFO: Command = Command {
    name: "INFO",
    syntax: "[section [section ...]]",
    summary: "Describes the state of the server.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: AtLeast(1),
    keys: &[],
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Dangerous],
    run: Run::Server(info),
    subcommands: &[],
};

/// When a section is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// Unless others are asked for.
    ByDefault,
    /// With `all` and `everything`.
    WithAll,
}

struct Section {
    /// As it is asked for.
    name: &'static str,
    title: &'static str,
    shown: Shown,
    write: fn(&mut Facts<'_, '_>, &mut Lines),
}

macro_rules! sections {
    ($($name:literal $title:literal $shown:ident $write:ident;)*) => {
        const SECTIONS: &[Section] = &[$(Section {
            name: $name,
            title: $title,
            shown: Shown::$shown,
            write: sections::$write,
        },)*];
    };
}

sections! {
    "server" "Server" ByDefault server;
    "tls" "TLS" WithAll tls;
    "clients" "Clients" ByDefault clients;
    "memory" "Memory" ByDefault memory;
    "persistence" "Persistence" ByDefault persistence;
    "stats" "Stats" ByDefault stats;
    "replication" "Replication" ByDefault replication;
    "cpu" "CPU" ByDefault cpu;
    "modules" "Modules" ByDefault modules;
    "commandstats" "Commandstats" WithAll command_stats;
    "errorstats" "Errorstats" ByDefault error_stats;
    "latencystats" "Latencystats" WithAll latency_stats;
    "cluster" "Cluster" ByDefault cluster;
    "cluster_info" "Cluster Info" WithAll nothing;
    "advice" "Advice" WithAll advice;
    "scriptingengines" "Scripting Engines" WithAll scripting_engines;
    "keyspace" "Keyspace" ByDefault keyspace;
}

/// What the sections are written from.
struct Facts<'s, 'k> {
    session: &'s Session,
    db: &'s mut Db<'k>,
    /// A walk came to a shard that a script holds for long.
    held: bool,
}

impl Facts<'_, '_> {
    fn each_shard(&mut self, mut look: impl FnMut(&mut Shard)) {
        let walked = self.db.each_shard(0, |_, shard| {
            look(shard);
            None::<()>
        });
        self.held |= walked.is_err();
    }
}

/// The text as it grows.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, name: impl Display, value: impl Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    /// Figures of what there is none of.
    fn zeros(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.add(name, 0));
    }

    /// Bytes, then again for people.
    fn size(&mut self, name: &str, bytes: usize) {
        self.add(name, bytes);
        self.add(format_args!("{name}_human"), Human(bytes));
    }
}

/// Bytes with a unit: `1.50M`.
struct Human(usize);

impl Display for Human {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNITS: [char; 5] = ['K', 'M', 'G', 'T', 'P'];
        if self.0 < 1024 {
            return write!(f, "{}B", self.0);
        }
        let exponent = (self.0.ilog2() / 10).min(UNITS.len() as u32);
        let value = self.0 as f64 / (1u64 << (10 * exponent)) as f64;
        write!(f, "{value:.2}{}", UNITS[exponent as usize - 1])
    }
}

fn info(session: &mut Session, db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let wanted = |section: &Section| {
        if args.len() == 1 {
            return section.shown == Shown::ByDefault;
        }
        args.from(1).any(|word| {
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            is(section.name)
                || is("all")
                || is("everything")
                || is("default") && section.shown == Shown::ByDefault
                || is("module_list") && section.name == "modules"
        })
    };
    let mut facts = Facts {
        session,
        db,
        held: false,
    };
    let mut lines = Lines::default();
    for section in SECTIONS.iter().filter(|section| wanted(section)) {
        if !lines.0.is_empty() {
            lines.0.push_str("\r\n");
        }
        let _ = write!(lines.0, "# {}\r\n", section.title);
        (section.write)(&mut facts, &mut lines);
    }
    if facts.held {
        return Err(Error::BUSY);
    }
    reply.verbatim("txt", lines.0.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Human;

    #[test]
    fn sizes_have_the_largest_unit_they_reach() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (966_568, "943.91K"),
            (25_276_514_304, "23.54G"),
            (usize::MAX, "16384.00P"),
        ] {
            assert_eq!(Human(bytes).to_string(), text);
        }
    }
}
