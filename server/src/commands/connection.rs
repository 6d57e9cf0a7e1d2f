//! Commands about the connection itself.

use crate::{
    dispatch::{
        args::Args,
        command::{Arity::AtLeast, Command, Flag, Group, Reply, Result, Run},
        error::Error,
    },
    session::Session,
};

pub const COMMANDS: &[&Command] = &[&PING];

const PING: Command = Command {
    name: "PING",
    syntax: "[message]",
    summary: "Answers PONG, or the message.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Connection,
    arity: AtLeast(1),
    keys: &[],
    flags: &[Flag::Fast],
    categories: &[],
    run: Run::Session(ping),
    subcommands: &[],
};

fn ping(_session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    match args.len() {
        1 => reply.pong(),
        2 => reply.bulk(args.word(1)),
        _ => return Err(Error::wrong_arity("ping")),
    }
    Ok(())
}
