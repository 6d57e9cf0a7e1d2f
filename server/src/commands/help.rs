//! HELP, which every container has: its declaration, and an answer made of the other subcommands' declarations.

use crate::{
    dispatch::{
        args::Args,
        command::{Arity::*, Category, Command, Flag, Group, Reply, Result, Run},
        table,
    },
    session::Session,
};

/// A container's HELP, in which nothing but this differs from others.
pub(super) const fn subcommand(
    since: &'static str,
    group: Group,
    categories: &'static [Category],
    answer: fn(&mut Session, &Args<'_>, &mut Reply) -> Result,
) -> Command {
    Command {
        name: "HELP",
        syntax: "",
        summary: "Lists the subcommands.",
        since,
        complexity: "O(1)",
        group,
        arity: Exactly(2),
        keys: &[],
        flags: &[Flag::Loading, Flag::Stale],
        categories,
        run: Run::Session(answer),
        subcommands: &[],
    }
}

/// Lists the subcommands of the command that the request names, a line of syntax and a line of summary each.
pub(super) fn help(_session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let Some(container) = table::table().find(args.word(0)) else {
        reply.array(0);
        return Ok(());
    };
    let subcommands = &container.subcommands;
    reply.array(1 + 2 * subcommands.len());
    let name = container.command.name;
    reply.simple(&format!(
        "{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    ));
    for subcommand in subcommands {
        let command = subcommand.command;
        reply.simple(format!("{} {}", command.name, command.syntax).trim_end());
        reply.simple(&format!("    {}", command.summary));
    }
    Ok(())
}
