//! All commands, a file or folder per family.

pub mod connection;
pub mod string;

use crate::dispatch::command::Command;

/// The command table is built from these.
pub const FAMILIES: &[&[&Command]] = &[connection::COMMANDS, string::COMMANDS];
