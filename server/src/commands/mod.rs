//! All commands, a file or folder per family.

pub mod acl;
pub mod advice;
pub mod bitmap;
pub mod client;
pub mod cluster;
pub mod command;
pub mod config;
pub mod connection;
pub mod database;
pub mod deadline;
pub mod debug;
pub mod dump;
pub mod expiry;
pub mod function;
pub mod geo;
pub mod hash;
mod help;
pub mod hyperloglog;
pub mod info;
pub mod keys;
pub mod list;
pub mod migrate;
pub mod module;
pub mod object;
pub mod observation;
pub mod persistence;
pub mod pubsub;
pub mod replication;
pub mod scan;
pub mod scripting;
pub mod server;
pub mod set;
pub mod sort;
pub mod sorted_set;
pub mod stream;
pub mod string;
pub mod transaction;

use crate::dispatch::command::{Command, Reply};

/// The command table is built from these.
pub const FAMILIES: &[&[&Command]] = &[
    acl::COMMANDS,
    bitmap::COMMANDS,
    client::COMMANDS,
    cluster::COMMANDS,
    command::COMMANDS,
    config::COMMANDS,
    connection::COMMANDS,
    database::COMMANDS,
    debug::COMMANDS,
    dump::COMMANDS,
    expiry::COMMANDS,
    geo::COMMANDS,
    hash::COMMANDS,
    hyperloglog::COMMANDS,
    function::COMMANDS,
    info::COMMANDS,
    keys::COMMANDS,
    list::COMMANDS,
    migrate::COMMANDS,
    module::COMMANDS,
    object::COMMANDS,
    observation::COMMANDS,
    pubsub::COMMANDS,
    persistence::COMMANDS,
    scan::COMMANDS,
    scripting::COMMANDS,
    replication::COMMANDS,
    server::COMMANDS,
    set::COMMANDS,
    sort::COMMANDS,
    sorted_set::COMMANDS,
    stream::COMMANDS,
    string::COMMANDS,
    transaction::COMMANDS,
];

/// Writes what a container's HELP answers: its subcommands, two lines each.
pub fn help(reply: &mut Reply, container: &str, lines: &[&str]) {
    reply.array(lines.len() + 3);
    reply.simple(&format!(
        "{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    ));
    lines.iter().for_each(|line| reply.simple(line));
    reply.simple("HELP");
    reply.simple("    Print this help.");
}
