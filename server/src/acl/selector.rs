//! A set of rules that allows a command as a whole or not: commands, key patterns, channel patterns, databases.

use hashbrown::HashMap;

use crate::{
    commands::command::facts,
    dispatch::{
        command::{Access, Category},
        table::{Registered, table},
    },
    glob::{self, Case},
};

/// What a pattern lets a command do with the keys it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyAccess {
    pub read: bool,
    pub write: bool,
}

impl KeyAccess {
    pub const NONE: KeyAccess = KeyAccess {
        read: false,
        write: false,
    };

    pub const BOTH: KeyAccess = KeyAccess {
        read: true,
        write: true,
    };

    /// What a command that is declared so needs.
    pub fn needed(access: Access) -> KeyAccess {
        let read = matches!(
            access,
            Access::Read | Access::Update | Access::Repack | Access::Merge | Access::Take
        );
        let write = !matches!(access, Access::Read | Access::Inspect | Access::Repack);
        KeyAccess { read, write }
    }

    fn covers(self, needed: KeyAccess) -> bool {
        (self.read || !needed.read) && (self.write || !needed.write)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPattern {
    pub pattern: Vec<u8>,
    pub access: KeyAccess,
}

/// Which databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Databases {
    All,
    These(Vec<u64>),
}

#[derive(Clone, Debug)]
pub struct Selector {
    /// A bit per command and subcommand, by number.
    allowed: Vec<u64>,
    all_commands: bool,
    /// What made `allowed`, in order, shortened where a later rule replaces an earlier one.
    rules: Vec<String>,
    /// Commands that are allowed with these first arguments only.
    first_arguments: HashMap<usize, Vec<String>>,
    pub keys: Vec<KeyPattern>,
    pub all_keys: bool,
    pub channels: Vec<Vec<u8>>,
    pub all_channels: bool,
    pub databases: Databases,
}

impl Selector {
    pub fn none(all_channels: bool) -> Selector {
        Selector {
            allowed: vec![0; table().count().div_ceil(64)],
            all_commands: false,
            rules: vec!["-@all".into()],
            first_arguments: HashMap::new(),
            keys: Vec::new(),
            all_keys: false,
            channels: Vec::new(),
            all_channels,
            databases: Databases::All,
        }
    }

    pub fn everything() -> Selector {
        let mut selector = Selector::none(true);
        selector.set_all_commands(true);
        selector.all_keys = true;
        selector
    }

    pub fn is_everything(&self) -> bool {
        self.all_commands && self.all_keys && self.all_channels && self.databases == Databases::All
    }

    pub fn set_all_commands(&mut self, allow: bool) {
        self.allowed.fill(if allow { u64::MAX } else { 0 });
        self.all_commands = allow;
        self.first_arguments.clear();
        self.rules = vec![if allow { "+@all" } else { "-@all" }.into()];
    }

    /// Allows or forbids every command of a category.
    pub fn set_category(&mut self, category: Category, allow: bool) {
        for registered in table().all() {
            if facts::categories(registered.command).contains(&category) {
                self.set_bit(registered.id, allow);
                self.first_arguments.remove(&registered.id);
            }
        }
        let name = facts::category_name(category);
        self.note_rule(format!("{}@{name}", sign(allow)));
    }

    /// Allows or forbids a command with all its subcommands, or one subcommand.
    pub fn set_command(&mut self, registered: &Registered, allow: bool) {
        for each in std::iter::once(registered).chain(&registered.subcommands) {
            self.set_bit(each.id, allow);
            self.first_arguments.remove(&each.id);
        }
        self.note_rule(format!("{}{}", sign(allow), registered.full_name));
    }

    /// Allows a command with this first argument.
    pub fn allow_first_argument(&mut self, registered: &Registered, argument: &str) {
        let argument = argument.to_ascii_lowercase();
        let known = self.first_arguments.entry(registered.id).or_default();
        if !known.contains(&argument) {
            known.push(argument.clone());
        }
        self.note_rule(format!("+{}|{argument}", registered.full_name));
    }

    fn set_bit(&mut self, id: usize, allow: bool) {
        let bit = 1 << (id % 64);
        if allow {
            self.allowed[id / 64] |= bit;
        } else {
            self.allowed[id / 64] &= !bit;
            self.all_commands = false;
        }
    }

    /// A later rule about the same command or category makes the earlier one void.
    fn note_rule(&mut self, rule: String) {
        let name = &rule[1..];
        self.rules.retain(|earlier| {
            let earlier = &earlier[1..];
            let about_same = earlier
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('|'));
            !about_same
        });
        self.rules.push(rule);
    }

    pub fn allows_command(&self, registered: &Registered, first_argument: Option<&[u8]>) -> bool {
        let id = registered.id;
        if self.all_commands || self.allowed[id / 64] >> (id % 64) & 1 == 1 {
            return true;
        }
        let Some(known) = self.first_arguments.get(&id) else {
            return false;
        };
        let given = first_argument.unwrap_or_default();
        known
            .iter()
            .any(|argument| argument.as_bytes().eq_ignore_ascii_case(given))
    }

    pub fn allows_key(&self, key: &[u8], needed: KeyAccess) -> bool {
        self.all_keys
            || self.keys.iter().any(|known| {
                known.access.covers(needed) && glob::matches(&known.pattern, key, Case::Sensitive)
            })
    }

    /// Whether every key may be read, which SORT's patterns need.
    pub fn reads_all_keys(&self) -> bool {
        self.all_keys
            || self
                .keys
                .iter()
                .any(|known| known.pattern == b"*" && known.access.read)
    }

    /// A pattern to subscribe to is allowed only if the rules name it literally.
    pub fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        self.all_channels
            || self.channels.iter().any(|known| {
                if is_pattern {
                    known == channel
                } else {
                    glob::matches(known, channel, Case::Sensitive)
                }
            })
    }

    pub fn allows_database(&self, database: u64) -> bool {
        match &self.databases {
            Databases::All => true,
            Databases::These(allowed) => allowed.contains(&database),
        }
    }

    pub fn describe_commands(&self) -> String {
        self.rules.join(" ")
    }

    pub fn describe_keys(&self) -> Vec<u8> {
        if self.all_keys {
            return b"~*".into();
        }
        let words: Vec<Vec<u8>> = self
            .keys
            .iter()
            .map(|known| {
                let sign: &[u8] = match known.access {
                    KeyAccess {
                        read: true,
                        write: true,
                    } => b"~",
                    KeyAccess { read: true, .. } => b"%R~",
                    _ => b"%W~",
                };
                [sign, &known.pattern].concat()
            })
            .collect();
        words.join(&b' ')
    }

    pub fn describe_channels(&self) -> Vec<u8> {
        if self.all_channels {
            return b"&*".into();
        }
        let words: Vec<Vec<u8>> = self
            .channels
            .iter()
            .map(|channel| [b"&", channel.as_slice()].concat())
            .collect();
        words.join(&b' ')
    }

    pub fn describe_databases(&self) -> String {
        match &self.databases {
            Databases::All => "alldbs".into(),
            Databases::These(these) if these.is_empty() => "resetdbs".into(),
            Databases::These(these) => {
                let numbers: Vec<String> = these.iter().map(u64::to_string).collect();
                format!("db={}", numbers.join(","))
            }
        }
    }

    /// All rules, in the order that makes the same selector again.
    pub fn describe(&self) -> Vec<u8> {
        let mut words = vec![self.describe_keys()];
        if !self.all_channels {
            words.push(b"resetchannels".into());
        }
        words.push(self.describe_channels());
        if self.databases != Databases::All {
            words.push(self.describe_databases().into_bytes());
        }
        words.push(self.describe_commands().into_bytes());
        words.retain(|word| !word.is_empty());
        words.join(&b' ')
    }
}

const fn sign(allow: bool) -> char {
    if allow { '+' } else { '-' }
}
