//! Transactions: MULTI queues commands, EXEC runs them together, WATCH makes it conditional.

use std::sync::{Arc, atomic::Ordering};

use storage::db::Db;

use crate::{
    dispatch::{
        args::Args,
        call::release,
        command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
        error::Error,
    },
    session::Session,
};

pub const COMMANDS: &[&Command] = &[&DISCARD, &EXEC, &MULTI, &UNWATCH, &WATCH];

const MULTI: Command = Command {
    name: "MULTI",
    syntax: "",
    summary: "Queues the commands that follow until EXEC.",
    since: "1.2.0",
    complexity: "O(1)",
    group: Group::Transactions,
    arity: Exactly(1),
    keys: &[],
    flags: &[
        Flag::AllowBusy,
        Flag::Fast,
        Flag::Loading,
        Flag::NoMulti,
        Flag::NoScript,
        Flag::Stale,
    ],
    categories: &[],
    run: Run::Session(multi),
    subcommands: &[],
};

fn multi(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    session.flags.in_transaction = true;
    session.transaction.get_or_insert_default();
    session.client.in_transaction.store(true, Ordering::Relaxed);
    session.client.queued.store(0, Ordering::Relaxed);
    reply.ok();
    Ok(())
}

const EXEC: Command = Command {
    name: "EXEC",
    syntax: "",
    summary: "Runs the queued commands, with no other client's command in between.",
    since: "1.2.0",
    complexity: "Depends on commands in the transaction",
    group: Group::Transactions,
    arity: Exactly(1),
    keys: &[],
    flags: &[
        Flag::Loading,
        Flag::NoScript,
        Flag::SkipSlowlog,
        Flag::Stale,
    ],
    categories: &[],
    run: Run::Exec,
    subcommands: &[],
};

const DISCARD: Command = Command {
    name: "DISCARD",
    syntax: "",
    summary: "Forgets the queued commands.",
    since: "2.0.0",
    complexity: "O(N) where N is the number of queued commands",
    group: Group::Transactions,
    arity: Exactly(1),
    keys: &[],
    flags: &[
        Flag::AllowBusy,
        Flag::Fast,
        Flag::Loading,
        Flag::NoScript,
        Flag::Stale,
    ],
    categories: &[],
    run: Run::Session(discard),
    subcommands: &[],
};

fn discard(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    if !session.flags.in_transaction {
        return Err(Error::DISCARD_WITHOUT_MULTI);
    }
    session.leave_transaction();
    reply.ok();
    Ok(())
}

const WATCH: Command = Command {
    name: "WATCH",
    syntax: "key [key ...]",
    summary: "Makes the next EXEC fail if a key changes before it.",
    since: "2.2.0",
    complexity: "O(1) for every key",
    group: Group::Transactions,
    arity: AtLeast(2),
    keys: &[Keys::all(1, Access::Inspect)],
    flags: &[
        Flag::AllowBusy,
        Flag::Fast,
        Flag::Loading,
        Flag::NoMulti,
        Flag::NoScript,
        Flag::Stale,
    ],
    categories: &[],
    run: Run::Server(watch),
    subcommands: &[],
};

fn watch(session: &mut Session, db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let transaction = session.transaction.get_or_insert_default();
    for index in 1..args.len() {
        let key = args.key(index);
        let name = (db.index(), key.bytes.into());
        if transaction.watched.contains(&name) {
            continue;
        }
        db.try_lock(key.hash)?;
        transaction.watched.insert(name);
        session.client.held.add_name(key.bytes);
        // Looking deletes it if it has expired already; if it expires from now on that is a change.
        let _ = db.entry_mut(key);
        let database = db.index();
        db.shard_mut(key.hash)
            .watched
            .add(database, key.bytes, Arc::clone(&transaction.mark));
        release(&session.server, db);
    }
    let mark = transaction.mark.clone();
    session
        .client
        .set_details(|details| details.watch = Some(mark));
    session
        .client
        .watched_keys
        .store(transaction.watched.len() as u32, Ordering::Relaxed);
    session.client.queued.store(0, Ordering::Relaxed);
    session.client.account();
    reply.ok();
    Ok(())
}

const UNWATCH: Command = Command {
    name: "UNWATCH",
    syntax: "",
    summary: "Forgets the watched keys.",
    since: "2.2.0",
    complexity: "O(N) where N is the number of watched keys",
    group: Group::Transactions,
    arity: Exactly(1),
    keys: &[],
    flags: &[
        Flag::AllowBusy,
        Flag::Fast,
        Flag::Loading,
        Flag::NoScript,
        Flag::Stale,
    ],
    categories: &[],
    run: Run::Session(unwatch),
    subcommands: &[],
};

fn unwatch(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    session.leave_transaction();
    reply.ok();
    Ok(())
}
