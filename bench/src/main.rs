//! Measures the server from outside: a load generator, a comparison with peers, and the floor both are judged against.
//!
//! `load` drives one running server. `peers` starts ferrite and whichever other servers are installed and runs the same
//! workloads on them in turns. `floor` is a server without data: what remains of a request when nothing is looked up.
//! `strategies` studies caching strategies on traces. `instructions` counts user-space instructions per command under callgrind, which is repeatable enough for a check in CI.

#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};

mod affinity;
mod epoll;
mod floor;
mod instructions;
mod load;
mod peers;
mod process;
mod strategies;

/// The error of everything here: printed once, then the program ends.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

#[derive(Parser)]
#[command(
    name = "bench",
    about = "Load generator and comparison of ferrite with its peers"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Drive one running server and report throughput and latency
    Load(Box<load::Options>),
    /// Start ferrite and its peers and run the same workloads on them in turns
    Peers(peers::Options),
    /// Serve constants without any data: the floor for the others
    Floor(floor::Options),
    /// Count user-space instructions per command under valgrind's callgrind
    Instructions(instructions::Options),
    /// Study caching strategies: eviction policies on traces
    Strategies(strategies::Options),
}

fn main() {
    let outcome = match Arguments::parse().command {
        Command::Load(options) => load::command(&options),
        Command::Peers(options) => peers::command(&options),
        Command::Floor(options) => floor::command(&options),
        Command::Instructions(options) => instructions::command(&options),
        Command::Strategies(options) => strategies::command(&options),
    };
    if let Err(error) = outcome {
        eprintln!("bench: {error}");
        std::process::exit(1);
    }
}
