//! What every HELP subcommand answers: the container's subcommands, from their declarations.

use crate::{
    dispatch::{
        args::Args,
        command::{Reply, Result},
        table,
    },
    session::Session,
};

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
