//! All commands by name.

use std::sync::LazyLock;

use super::command::Command;
use crate::commands::FAMILIES;

/// A command or subcommand with its number, by which statistics are kept, and its full name.
pub struct Registered {
    pub command: &'static Command,
    pub id: usize,
    /// Lower case, with the container's name before a `|`.
    pub full_name: String,
    pub subcommands: Vec<Registered>,
}

impl Registered {
    /// The subcommand of this name, in any case.
    pub fn subcommand(&self, name: &[u8]) -> Option<&Registered> {
        self.subcommands
            .iter()
            .find(|candidate| candidate.command.name.as_bytes().eq_ignore_ascii_case(name))
    }
}

/// Slots of the name table: a power of two several times the number of commands, so that most probes end at once.
const SLOTS: usize = 2048;

/// The names hashed into one array of command numbers.
pub struct Table {
    commands: Vec<Registered>,
    slots: Box<[u16; SLOTS]>,
    count: usize,
}

const EMPTY: u16 = u16::MAX;

static TABLE: LazyLock<Table> = LazyLock::new(Table::build);

/// The table of all commands.
#[inline]
pub fn table() -> &'static Table {
    &TABLE
}

impl Table {
    fn build() -> Table {
        let mut count = 0;
        let mut register = |command: &'static Command, container: Option<&str>| {
            let name = command.name.to_ascii_lowercase();
            let full_name =
                container.map_or(name.clone(), |container| format!("{container}|{name}"));
            count += 1;
            Registered {
                command,
                id: count - 1,
                full_name,
                subcommands: Vec::new(),
            }
        };
        let mut commands = Vec::new();
        for command in FAMILIES.iter().flat_map(|family| family.iter()) {
            let mut registered = register(command, None);
            registered.subcommands = command
                .subcommands
                .iter()
                .map(|sub| register(sub, Some(&registered.full_name)))
                .collect();
            commands.push(registered);
        }
        let mut slots = Box::new([EMPTY; SLOTS]);
        for (number, registered) in commands.iter().enumerate() {
            let mut slot = slot_of(registered.command.name.as_bytes());
            while slots[slot] != EMPTY {
                slot = (slot + 1) % SLOTS;
            }
            slots[slot] = number as u16;
        }
        Table {
            commands,
            slots,
            count,
        }
    }

    /// The command of this name, in any case. O(1).
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<&Registered> {
        let mut slot = slot_of(name);
        loop {
            let number = self.slots[slot];
            if number == EMPTY {
                return None;
            }
            let registered = &self.commands[number as usize];
            if registered
                .command
                .name
                .as_bytes()
                .eq_ignore_ascii_case(name)
            {
                return Some(registered);
            }
            slot = (slot + 1) % SLOTS;
        }
    }

    /// The command or `container|subcommand` of this full name, in any case.
    pub fn find_full(&self, name: &[u8]) -> Option<&Registered> {
        match name.iter().position(|&byte| byte == b'|') {
            Some(bar) => self.find(&name[..bar])?.subcommand(&name[bar + 1..]),
            None => self.find(name),
        }
    }

    /// The command or subcommand of this number. O(number of commands).
    pub fn by_id(&self, id: usize) -> Option<&Registered> {
        self.all().find(|registered| registered.id == id)
    }

    /// Top-level commands.
    pub fn commands(&self) -> &[Registered] {
        &self.commands
    }

    /// Commands and subcommands.
    pub fn all(&self) -> impl Iterator<Item = &Registered> {
        self.commands
            .iter()
            .flat_map(|registered| std::iter::once(registered).chain(&registered.subcommands))
    }

    /// How many numbers commands and subcommands have.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// Where the search for a name begins: its length, first and last bytes, without their case.
#[inline]
fn slot_of(name: &[u8]) -> usize {
    let mut word = 0u64;
    for &byte in name.iter().take(8) {
        word = word << 8 | u64::from(byte & 0xdf);
    }
    let last = name.last().map_or(0, |&byte| u64::from(byte & 0xdf));
    let mixed = (word ^ last << 56 ^ (name.len() as u64) << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 53) as usize % SLOTS
}
