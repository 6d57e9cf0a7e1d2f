//! SAVE, BGSAVE and LASTSAVE.

use std::sync::atomic::Ordering;

use storage::db::Db;

use crate::{
    dispatch::{
        args::Args,
        command::{Arity::*, Category, Command, Flag, Group, Reply, Result, Run},
        error::Error,
    },
    log,
    persistence::snapshot,
    session::Session,
};

pub const COMMANDS: &[&Command] = &[&BGSAVE, &LASTSAVE, &SAVE];

const IN_PROGRESS: Error = Error::from_static("ERR Background save already in progress");

const SAVE: Command = Command {
    name: "SAVE",
    syntax: "",
    summary: "Saves the data to disk and answers when that is done.",
    since: "1.0.0",
    complexity: "O(N) where N is the total number of keys in all databases",
    group: Group::Server,
    arity: Exactly(1),
    keys: &[],
    flags: &[
        Flag::Admin,
        Flag::NoAsyncLoading,
        Flag::NoMulti,
        Flag::NoScript,
    ],
    categories: &[],
    run: Run::Session(save),
    subcommands: &[],
};

fn save(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    match snapshot::save(&session.server) {
        None => Err(IN_PROGRESS),
        Some(Ok(())) => {
            reply.ok();
            Ok(())
        }
        Some(Err(_)) => Err(Error::from_static("ERR")),
    }
}

const BGSAVE: Command = Command {
    name: "BGSAVE",
    syntax: "[SCHEDULE | CANCEL]",
    summary: "Saves the data to disk in the background.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: AtLeast(1),
    keys: &[],
    flags: &[Flag::Admin, Flag::NoAsyncLoading, Flag::NoScript],
    categories: &[],
    run: Run::Server(bgsave),
    subcommands: &[],
};

fn bgsave(session: &mut Session, db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let server = &session.server;
    let mut schedule = false;
    if args.len() == 2 && args.is(1, "SCHEDULE") {
        schedule = true;
    } else if args.len() == 2 && args.is(1, "CANCEL") {
        return cancel(session, reply);
    } else if args.len() > 1 {
        return Err(Error::SYNTAX);
    }
    // In a transaction the locks are held: it starts when they are not.
    let in_transaction = db.is_locked();
    let rewriting = server.aof.status.rewriting.load(Ordering::Relaxed);
    if server.snapshots.in_background.load(Ordering::Acquire) {
        return Err(IN_PROGRESS);
    }
    if rewriting && !schedule && !in_transaction {
        return Err(Error::general(
            "Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in order to schedule \
             a BGSAVE whenever possible.",
        ));
    }
    if rewriting || in_transaction {
        server.snapshots.schedule();
        reply.simple("Background saving scheduled");
        return Ok(());
    }
    if !snapshot::save_in_background(server) {
        return Err(IN_PROGRESS);
    }
    reply.simple("Background saving started");
    Ok(())
}

fn cancel(session: &Session, reply: &mut Reply) -> Result {
    let snapshots = &session.server.snapshots;
    if snapshots.cancel() {
        log::notice("Background saving will be aborted due to user request");
        reply.simple("Background saving cancelled");
        Ok(())
    } else if snapshots.unschedule() {
        log::notice("Scheduled background saving will be cancelled due to user request");
        reply.simple("Scheduled background saving cancelled");
        Ok(())
    } else {
        Err(Error::general(
            "Background saving is currently not in progress or scheduled",
        ))
    }
}

const LASTSAVE: Command = Command {
    name: "LASTSAVE",
    syntax: "",
    summary: "Returns when the data was last saved to disk, in seconds since the epoch.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(1),
    keys: &[],
    flags: &[Flag::Fast, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Dangerous],
    run: Run::Session(last_save),
    subcommands: &[],
};

fn last_save(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    reply.integer(session.server.snapshots.last_save.load(Ordering::Relaxed));
    Ok(())
}
