//! All commands by name.

use std::sync::LazyLock;

use storage::db::Db;

use super::{
    args::Args,
    command::{Command, Place, Reply, Result, Run},
};
use crate::commands::FAMILIES;

/// A command or subcommand with its number, by which statistics are kept, and its full name.
pub struct Registered {
    pub command: &'static Command,
    pub id: usize,
    /// Lower case, with the container's name before a `|`.
    pub full_name: String,
    pub subcommands: Vec<Registered>,
    pub one_key: Option<OneKey>,
    /// The word that is the first key, if that is always the same.
    pub first_key: Option<usize>,
}

/// A command on the one key that its first word is, with its handler: what most requests are.
#[derive(Clone, Copy)]
pub enum OneKey {
    Read(fn(&Db<'_>, &Args<'_>, &mut Reply) -> Result),
    Write(fn(&mut Db<'_>, &Args<'_>, &mut Reply) -> Result),
}

impl OneKey {
    fn of(command: &Command) -> Option<OneKey> {
        let [keys] = command.keys else { return None };
        if keys.place != Place::At(1) || !command.subcommands.is_empty() {
            return None;
        }
        match command.run {
            Run::Read(handler) => Some(OneKey::Read(handler)),
            Run::Write(handler) => Some(OneKey::Write(handler)),
            _ => None,
        }
    }
}

impl Registered {
    /// The subcommand of this name, in any case.
    pub fn subcommand(&self, name: &[u8]) -> Option<&Registered> {
        self.subcommands
            .iter()
            .find(|candidate| candidate.command.name.as_bytes().eq_ignore_ascii_case(name))
    }
}

fn first_key_of(command: &Command) -> Option<usize> {
    match command.keys.first()?.place {
        Place::At(index) | Place::Pair { first: index } | Place::Range { first: index, .. } => {
            Some(index)
        }
        // If there are any.
        Place::Count { at } | Place::CountPairs { at } => Some(at + 1),
        _ => None,
    }
}

/// Slots of the name table: a power of two several times the number of commands, so that most probes end at once.
const SLOTS: usize = 2048;

/// The names hashed into one array of command numbers.
pub struct Table {
    commands: Vec<Registered>,
    slots: Box<[Slot; SLOTS]>,
    count: usize,
}

#[derive(Clone, Copy)]
struct Slot {
    folded: Folded,
    number: u16,
    /// The name's length, if folding tells it from all others of that length; else 0. It confuses what is no letter: the
    /// underscore with DEL, and what is beyond the end with a space.
    exact_len: u8,
}

/// A name without its case: its bytes in two words, 0x20 masked out of each, so that a comparison is two words'.
type Folded = (u64, u64);

/// The few names that are longer than two words are found by comparing.
const MAX_FOLDED: usize = 16;
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
                one_key: OneKey::of(command),
                first_key: first_key_of(command),
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
        let mut slots = Box::new(
            [Slot {
                folded: (0, 0),
                number: EMPTY,
                exact_len: 0,
            }; SLOTS],
        );
        for (number, registered) in commands.iter().enumerate() {
            let Some(folded) = fold(registered.command.name.as_bytes()) else {
                continue;
            };
            let mut slot = slot_of(folded);
            while slots[slot].number != EMPTY {
                slot = (slot + 1) % SLOTS;
            }
            slots[slot] = Slot {
                folded,
                number: number as u16,
                exact_len: exact_len(registered.command.name),
            };
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
        let Some(folded) = fold(name) else {
            return self.find_long(name);
        };
        let mut slot = slot_of(folded);
        loop {
            let Slot {
                folded: known,
                number,
                exact_len,
            } = self.slots[slot];
            if number == EMPTY {
                return None;
            }
            if known == folded {
                let registered = &self.commands[number as usize];
                let known = registered.command.name.as_bytes();
                let same = usize::from(exact_len) == name.len() || known.eq_ignore_ascii_case(name);
                return same.then_some(registered);
            }
            slot = (slot + 1) % SLOTS;
        }
    }

    #[cold]
    fn find_long(&self, name: &[u8]) -> Option<&Registered> {
        self.commands.iter().find(|registered| {
            let known = registered.command.name.as_bytes();
            known.len() > MAX_FOLDED && known.eq_ignore_ascii_case(name)
        })
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

/// The length of a name of letters only; 0 of others.
fn exact_len(name: &str) -> u8 {
    let letters = name.bytes().all(|byte| byte.is_ascii_alphabetic());
    if letters { name.len() as u8 } else { 0 }
}

#[inline]
fn fold(name: &[u8]) -> Option<Folded> {
    const CASE: u64 = 0xdfdf_dfdf_dfdf_dfdf;
    match name {
        [] => Some((0, 0)),
        [_, ..] if name.len() <= 8 => Some((word(name) & CASE, 0)),
        [..] if name.len() <= MAX_FOLDED => {
            let (low, high) = name.split_at(8);
            Some((word(low) & CASE, word(high) & CASE))
        }
        _ => None,
    }
}

/// One to eight bytes as a number, the first the lowest: the halves overlap where there are less than eight.
#[inline]
fn word(bytes: &[u8]) -> u64 {
    let (len, byte) = (bytes.len(), |index: usize| {
        u64::from(bytes[index]) << (8 * index)
    });
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            let last = u64::from(u32::from_le_bytes(*last)) << (8 * (len - 4));
            u64::from(u32::from_le_bytes(*first)) | last
        }
        _ => byte(0) | byte(len / 2) | byte(len - 1),
    }
}

/// Where the search for a name begins.
#[inline]
fn slot_of((low, high): Folded) -> usize {
    let mixed = (low ^ high.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 53) as usize % SLOTS
}
