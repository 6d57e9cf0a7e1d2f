//! Studies of caching strategies, on traces of one's own or made here.
//!
//! `eviction` replays traces on policies without a network: which of them keeps the right objects.

mod eviction;
mod generate;
mod policies;
mod progress;
mod report;
mod trace;

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
}

pub(crate) fn command(options: &Options) -> Result<()> {
    match &options.study {
        Study::Eviction(options) => eviction::command(options),
    }
}
