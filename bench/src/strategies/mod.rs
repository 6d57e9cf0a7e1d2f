//! Studies of caching strategies, on traces of one's own or made here.
//!
//! `eviction` replays traces on policies without a network: which of them keeps the right objects. `export` writes
//! traces that are made here for other tools.

mod eviction;
mod export;
mod generate;
mod policies;
mod progress;
mod report;
mod trace;

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
    /// Write traces as CSV, such as a generator's for other tools
    Export(export::Options),
}

pub(crate) fn command(options: &Options) -> Result<()> {
    match &options.study {
        Study::Eviction(options) => eviction::command(options),
        Study::Export(options) => export::command(options),
    }
}
