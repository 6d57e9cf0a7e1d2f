//! Whether a user may run a command with these words in this database.

use super::{
    Permissions, User,
    selector::{Databases, KeyAccess, Selector},
};
use crate::{
    commands::command::facts,
    dispatch::{
        args::Args,
        command::{Access, Category, Command, Flag, Group},
        error::Error,
        keys::each_key,
        table::Registered,
    },
};

/// What a denial is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Command,
    Key,
    Auth,
    Channel,
    Database,
}

impl Reason {
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Command => "command",
            Reason::Key => "key",
            Reason::Auth => "auth",
            Reason::Channel => "channel",
            Reason::Database => "database",
        }
    }
}

impl Reason {
    /// How far a selector came that denies for this reason, in the order in which it looks.
    const fn rank(self) -> usize {
        match self {
            Reason::Database => 0,
            Reason::Command => 1,
            Reason::Key => 2,
            Reason::Auth => 3,
            Reason::Channel => 4,
        }
    }

    /// As EXEC says it of a command that has become forbidden.
    pub const fn sentence(self) -> &'static str {
        match self {
            Reason::Command | Reason::Auth => "no permission to execute the command or subcommand",
            Reason::Key => "no permission to touch the specified keys",
            Reason::Channel => {
                "no permission to access one of the channels used as argument to the command"
            }
            Reason::Database => "no permission to access the database",
        }
    }
}

/// Why a command is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    pub reason: Reason,
    /// The command's full name, the key, the channel or the database.
    pub object: Vec<u8>,
    /// Which of the command's words it is, so that of several denials the one that came furthest is told.
    word: usize,
}

impl Denial {
    /// The reply to the client.
    pub fn error(&self, user: &User) -> Error {
        match self.reason {
            Reason::Command => Error::new(
                [
                    b"NOPERM User ",
                    &*user.name,
                    b" has no permissions to run the '",
                    &self.object,
                    b"' command",
                ]
                .concat(),
            ),
            Reason::Key => Error::from_static("NOPERM No permissions to access a key"),
            Reason::Channel => Error::from_static("NOPERM No permissions to access a channel"),
            Reason::Database => Error::from_static("NOPERM No permissions to access database"),
            Reason::Auth => Error::WRONG_PASS,
        }
    }

    /// What ACL DRYRUN says.
    pub fn explain(&self, user: &User) -> Vec<u8> {
        let (before, after): (&[u8], &[u8]) = match self.reason {
            Reason::Key => (b"access the '", b"' key"),
            Reason::Channel => (b"access the '", b"' channel"),
            Reason::Database => (b"access database ", b""),
            Reason::Command | Reason::Auth => (b"run the '", b"' command"),
        };
        let object = &self.object;
        [
            b"User ",
            &*user.name,
            b" has no permissions to ",
            before,
            object,
            after,
        ]
        .concat()
    }
}

impl User {
    /// Whether the user may run the command.
    ///
    /// # Errors
    /// What is in the way. A command that no selector allows is denied for the reason that came furthest.
    pub fn may(
        &self,
        registered: &Registered,
        args: &Args<'_>,
        database: usize,
    ) -> Result<(), Denial> {
        if self.is_unrestricted() {
            return Ok(());
        }
        check(&self.permissions(), registered, args, database)
    }

    /// As [`User::may`] for a command that is not one of words: its keys, and what it does with them.
    ///
    /// # Errors
    /// What is in the way.
    pub fn may_with_keys(
        &self,
        registered: &Registered,
        keys: &[&[u8]],
        needed: KeyAccess,
    ) -> Result<(), Denial> {
        if self.is_unrestricted() {
            return Ok(());
        }
        let mut furthest = None;
        for selector in &self.permissions().selectors {
            let denied = |reason, object: &[u8], word| {
                Some(Denial {
                    reason,
                    object: object.to_vec(),
                    word,
                })
            };
            let denial = if !selector.allows_command(registered, None) {
                denied(Reason::Command, registered.full_name.as_bytes(), 0)
            } else if let Some(key) = keys.iter().find(|key| !selector.allows_key(key, needed)) {
                denied(Reason::Key, key, 1)
            } else if !selector.allows_database(0) {
                denied(Reason::Database, b"0", 0)
            } else {
                return Ok(());
            };
            furthest = furthest.or(denial);
        }
        furthest.map_or(Ok(()), Err)
    }

    /// Whether SORT may follow patterns, which reach keys that its words do not name.
    pub fn reads_all_keys(&self) -> bool {
        let permissions = self.permissions();
        permissions.selectors.iter().any(Selector::reads_all_keys)
    }
}

fn check(
    permissions: &Permissions,
    registered: &Registered,
    args: &Args<'_>,
    database: usize,
) -> Result<(), Denial> {
    let mut furthest: Option<Denial> = None;
    for selector in &permissions.selectors {
        match check_selector(selector, registered, args, database) {
            Ok(()) => return Ok(()),
            Err(denial) => {
                let rank = |denial: &Denial| (denial.reason.rank(), denial.word);
                if furthest
                    .as_ref()
                    .is_none_or(|known| rank(known) < rank(&denial))
                {
                    furthest = Some(denial);
                }
            }
        }
    }
    furthest.map_or(Ok(()), Err)
}

fn check_selector(
    selector: &Selector,
    registered: &Registered,
    args: &Args<'_>,
    database: usize,
) -> Result<(), Denial> {
    let command = registered.command;
    check_databases(selector, command, args, database)?;
    if !command.has(Flag::NoAuth) && !selector.allows_command(registered, args.get(1)) {
        return Err(Denial {
            reason: Reason::Command,
            object: registered.full_name.clone().into_bytes(),
            word: 0,
        });
    }
    if !selector.all_keys {
        check_keys(selector, command, args)?;
    }
    if !selector.all_channels {
        check_channels(selector, command, args)?;
    }
    Ok(())
}

fn check_keys(selector: &Selector, command: &Command, args: &Args<'_>) -> Result<(), Denial> {
    let mut denied = None;
    let sound = each_key(command, args, |word, access| {
        let key = args.word(word);
        let needed = KeyAccess::needed(actual_access(command, args, access));
        if denied.is_none() && !selector.allows_key(key, needed) {
            denied = Some(Denial {
                reason: Reason::Key,
                object: key.to_vec(),
                word,
            });
        }
    });
    // Where the words do not say which keys are meant, the handler answers with an error and touches none.
    denied.filter(|_| sound).map_or(Ok(()), Err)
}

/// What SET and BITFIELD do with their key depends on their options.
pub fn actual_access(command: &Command, args: &Args<'_>, declared: Access) -> Access {
    match command.name {
        "SET" if !args.from(3).any(|word| word.eq_ignore_ascii_case(b"GET")) => Access::Overwrite,
        "BITFIELD" if only_gets(args) => Access::Read,
        _ => declared,
    }
}

/// Whether BITFIELD's operations are all well-formed GETs.
fn only_gets(args: &Args<'_>) -> bool {
    let mut at = 2;
    while at < args.len() {
        let arguments = match () {
            () if args.is(at, "GET") => 2,
            () if args.is(at, "OVERFLOW") => 1,
            () => return false,
        };
        at += 1 + arguments;
        if at > args.len() {
            return false;
        }
    }
    true
}

fn check_channels(selector: &Selector, command: &Command, args: &Args<'_>) -> Result<(), Denial> {
    let (last, is_pattern) = match command.name {
        "PUBLISH" | "SPUBLISH" => (1, false),
        "SUBSCRIBE" | "SSUBSCRIBE" => (usize::MAX, false),
        "PSUBSCRIBE" => (usize::MAX, true),
        _ => return Ok(()),
    };
    if command.group != Group::PubSub {
        return Ok(());
    }
    for (index, channel) in args.from(1).enumerate().take(last) {
        if !selector.allows_channel(channel, is_pattern) {
            return Err(Denial {
                reason: Reason::Channel,
                object: channel.to_vec(),
                word: index + 1,
            });
        }
    }
    Ok(())
}

fn check_databases(
    selector: &Selector,
    command: &Command,
    args: &Args<'_>,
    database: usize,
) -> Result<(), Denial> {
    if selector.databases == Databases::All {
        return Ok(());
    }
    let denied = |word: usize| {
        Err(Denial {
            reason: Reason::Database,
            object: args.word(word).to_vec(),
            word,
        })
    };
    let named: smallvec::SmallVec<[usize; 2]> = match command.name {
        "SELECT" => smallvec::smallvec![1],
        "MOVE" => smallvec::smallvec![2],
        "SWAPDB" => smallvec::smallvec![1, 2],
        "COPY" => (3..args.len())
            .filter(|&index| args.is(index, "DB"))
            .map(|index| index + 1)
            .collect(),
        "FLUSHALL" => return denied(0),
        _ => smallvec::SmallVec::new(),
    };
    for word in named {
        let Some(text) = args.get(word) else { continue };
        let number = storage::value::number::parse_u64(text);
        if number.is_some_and(|number| !selector.allows_database(number)) {
            return denied(word);
        }
    }
    if works_in_database(command) && !selector.allows_database(database as u64) {
        return denied(0);
    }
    Ok(())
}

/// Whether a command is about the database that is selected, as far as `db=` rules go.
fn works_in_database(command: &Command) -> bool {
    let is_data = command.has(Flag::ReadOnly) || command.has(Flag::Write);
    (is_data
        || !command.keys.is_empty()
        || facts::categories(command).contains(&Category::Keyspace))
        && !matches!(command.name, "SELECT" | "SWAPDB")
}
