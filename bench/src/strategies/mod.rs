//! Studies of caching strategies, on traces of one's own or made here.
//!
//! `eviction` replays traces on policies without a network: which of them keeps the right objects. `live` replays them on a
//! server, `servers` on several that it starts, at equal real memory. `application` is
//! about how a cache is used. `export` writes traces that are made here for other tools.

mod application;
mod eviction;
mod export;
mod generate;
mod live;
mod policies;
mod progress;
mod report;
mod servers;
mod spawn;
mod trace;
mod wire;

#[cfg(test)]
mod tests;

use clap::{Parser, Subcommand};

use crate::Result;

#[derive(Parser)]
pub(crate) struct Options {
    #[command(subcommand)]
    study: Study,
}

#[derive(Subcommand)]
enum Study {
    /// Replay traces on eviction policies, without a network, and draw miss-ratio curves
    Eviction(Box<eviction::Options>),
    /// Replay a trace on a server that runs, and see what it keeps in how much memory
    Live(Box<live::Options>),
    /// Start Ferrite, Valkey and memcached in turns and replay traces on them at equal real memory
    Servers(Box<servers::Options>),
    /// Compare ways to use a cache: cache-aside, write-behind, single flight, leases and others
    Application(Box<application::Options>),
    /// Write traces as CSV, such as a generator's for other tools
    Export(export::Options),
}

pub(crate) fn command(options: &Options) -> Result<()> {
    match &options.study {
        Study::Eviction(options) => eviction::command(options),
        Study::Live(options) => live::command(options),
        Study::Servers(options) => servers::command(options),
        Study::Application(options) => application::command(options),
        Study::Export(options) => export::command(options),
    }
}
