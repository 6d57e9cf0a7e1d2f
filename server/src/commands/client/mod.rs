//! CLIENT: what connections are there, what they say of themselves, and how to steer or end them.

mod filter;
mod tracking;

use std::{
    fmt::Write,
    sync::atomic::{AtomicBool, Ordering},
};

use storage::value::number;

use self::{
    filter::Filter,
    tracking::{CACHING, GETREDIR, TRACKING, TRACKINGINFO},
};
use super::help::help;
use crate::{
    dispatch::{
        args::Args,
        command::{Arity::*, Command, Flag, Group, Reply, Result, Run},
        error::Error,
        table,
    },
    server::now,
    session::{
        Session,
        registry::{Address, Client, WaitState},
    },
    tracking::{Mode, Tracking},
};

pub const COMMANDS: &[&Command] = &[&CLIENT];

const CLIENT: Command = Command {
    name: "CLIENT",
    syntax: "",
    summary: "Looks at connections and steers them.",
    since: "2.4.0",
    complexity: "Depends on subcommand.",
    group: Group::Connection,
    arity: AtLeast(2),
    keys: &[],
    flags: &[],
    categories: &[],
    run: Run::Container,
    subcommands: &[
        &CACHING,
        &CAPA,
        &GETNAME,
        &GETREDIR,
        &HELP,
        &ID,
        &IMPORT_SOURCE,
        &INFO,
        &KILL,
        &LIST,
        &NO_EVICT,
        &NO_TOUCH,
        &PAUSE,
        &REPLY,
        &SETINFO,
        &SETNAME,
        &TRACKING,
        &TRACKINGINFO,
        &UNBLOCK,
        &UNPAUSE,
    ],
};
const HELP: Command = crate::commands::help::subcommand("5.0.0", Group::Connection, &[], help);

const ID: Command = Command {
    name: "ID",
    syntax: "",
    summary: "Returns the number of the connection.",
    since: "5.0.0",
    complexity: "O(1)",
    group: Group::Connection,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::AllowBusy, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(id),
    subcommands: &[],
};

fn id(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    reply.integer(session.client.id as i64);
    Ok(())
}

const GETNAME: Command = Command {
    name: "GETNAME",
    syntax: "",
    summary: "Returns the name of the connection.",
    since: "2.6.9",
    complexity: "O(1)",
    group: Group::Connection,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::AllowBusy, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(get_name),
    subcommands: &[],
};

fn get_name(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    match session.client.details().name {
        name if name.is_empty() => reply.null(),
        name => reply.bulk(&name),
    }
    Ok(())
}

const SETNAME: Command = Command {
    name: "SETNAME",
    syntax: "connection-name",
    summary: "Names the connection.",
    since: "2.6.9",
    complexity: "O(1)",
    group: Group::Connection,
    arity: Exactly(3),
    keys: &[],
    flags: &[Flag::AllowBusy, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(set_name),
    subcommands: &[],
};

fn set_name(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let name = args.word(2);
    check_name(name)?;
    session
        .client
        .set_details(|details| details.name = name.to_vec());
    reply.ok();
    Ok(())
}

/// A name may be shown in lists without quotes.
fn is_plain(name: &[u8]) -> bool {
    name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

pub(super) fn check_name(name: &[u8]) -> Result {
    if is_plain(name) {
        return Ok(());
    }
    Err(Error::general(
        "Client names cannot contain spaces, newlines or special characters.",
    ))
}

const SETINFO: Command = Command {
    name: "SETINFO",
    syntax: "<LIB-NAME libname | LIB-VER libver>",
    summary: "Notes the name or version of the client's library.",
    since: "7.2.0",
    complexity: "O(1)",
    group: Group::Connection,
    arity: Exactly(4),
    keys: &[],
    flags: &[Flag::AllowBusy, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(set_info),
    subcommands: &[],
};

fn set_info(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let value = args.word(3);
    let (attribute, of_name) = if args.is(2, "LIB-NAME") {
        ("lib-name", true)
    } else if args.is(2, "LIB-VER") {
        ("lib-ver", false)
    } else {
        return Err(quoting("Unrecognized option '", args.word(2), "'"));
    };
    if !is_plain(value) {
        return Err(Error::general(format!(
            "{attribute} cannot contain spaces, newlines or special characters."
        )));
    }
    session.client.set_details(|details| {
        let field = if of_name {
            &mut details.library_name
        } else {
            &mut details.library_version
        };
        *field = value.to_vec();
    });
    reply.ok();
    Ok(())
}

/// An error that quotes a word of the request.
fn quoting(before: &str, word: &[u8], after: &str) -> Error {
    Error::general(
        [
            before.as_bytes(),
            &word[..word.len().min(128)],
            after.as_bytes(),
        ]
        .concat(),
    )
}

const CAPA: Command = Command {
    name: "CAPA",
    syntax: "capability [capability ...]",
    summary: "Tells what the client is capable of.",
    since: "8.0.0",
    complexity: "O(1)",
    group: Group::Connection,
    arity: AtLeast(3),
    keys: &[],
    flags: &[Flag::AllowBusy, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(capa),
    subcommands: &[],
};

fn capa(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    // Unknown capabilities are those of later versions.
    if args
        .from(2)
        .any(|word| word.eq_ignore_ascii_case(b"redirect"))
    {
        session.client.can_redirect.store(true, Ordering::Relaxed);
    }
    reply.ok();
    Ok(())
}

const INFO: Command = Command {
    name: "INFO",
    syntax: "",
    summary: "Describes the connection.",
    since: "6.2.0",
    complexity: "O(1)",
    group: Group::Connection,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(info),
    subcommands: &[],
};

fn info(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    note_self(session, args);
    let line = describe(&session.client);
    reply.verbatim("txt", line.as_bytes());
    Ok(())
}

const LIST: Command = Command {
    name: "LIST",
    syntax: "[TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [ID client-id [client-id ...]] [USER username] [ADDR ip:port] [LADDR ip:port] [SKIPME <YES | NO>] [MAXAGE maxage] [NAME name] [IDLE idle] [FLAGS flags] [LIB-NAME libname] [LIB-VER libver] [DB db] [CAPA capa] [IP ip]",
    summary: "Describes connections.",
    since: "2.4.0",
    complexity: "O(N) where N is the number of client connections",
    group: Group::Connection,
    arity: AtLeast(2),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(list),
    subcommands: &[],
};

fn list(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let filter = Filter::read(args, 2, &session.server, false)?;
    note_self(session, args);
    let mut text = String::new();
    for client in session.server.clients.all() {
        if filter.matches(&client, &session.client) {
            text.push_str(&describe(&client));
        }
    }
    reply.verbatim("txt", text.as_bytes());
    Ok(())
}

/// The command that runs is the one to be shown for this connection.
fn note_self(session: &Session, args: &Args<'_>) {
    let registered = table::table()
        .find(args.word(0))
        .and_then(|container| container.subcommand(args.word(1)));
    if let Some(registered) = registered {
        session.client.note_command(registered.id);
    }
    session.client.note_commands(session.commands);
}

/// A client's line in CLIENT LIST.
pub(crate) fn describe(client: &Client) -> String {
    let details = client.details();
    let now = now().millis();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let command = client
        .last_command()
        .and_then(|id| table::table().by_id(id))
        .map_or("NULL", |registered| registered.full_name.as_str());
    let waiting = client.input_bytes.load(Ordering::Relaxed);
    let room = client.held.input_capacity.load(Ordering::Relaxed);
    let unsent = client.unsent_bytes();
    let mut line = String::with_capacity(400);
    // Writing to a string cannot fail.
    let _ = writeln!(
        line,
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} capa={} db={} sub={} psub={} ssub={} multi={} \
         watch={} qbuf={waiting} qbuf-free={} argv-mem=0 multi-mem={} rbs=0 rbp=0 obl=0 oll={} omem={unsent} tot-mem={} \
         events={} cmd={command} user={} redir={} resp={} lib-name={} lib-ver={} tot-net-in={} tot-net-out={} \
         tot-cmds={}",
        client.id,
        client.address,
        client.local_address,
        client.descriptor,
        text(&details.name),
        (now - client.connected_at_ms).max(0) / 1000,
        (now - client.last_active_ms()).max(0) / 1000,
        flags(client),
        if client.can_redirect.load(Ordering::Relaxed) {
            "r"
        } else {
            ""
        },
        client.database(),
        client.channels.load(Ordering::Relaxed),
        client.patterns.load(Ordering::Relaxed),
        client.shard_channels.load(Ordering::Relaxed),
        client.queued.load(Ordering::Relaxed),
        client.watched_keys.load(Ordering::Relaxed),
        room.saturating_sub(waiting),
        client.held.queued_bytes.load(Ordering::Relaxed),
        client.mailbox.len() + usize::from(client.output_bytes.load(Ordering::Relaxed) > 0),
        client.memory_bytes(),
        if unsent > 0 { "rw" } else { "r" },
        text(details.user()),
        client.redirection(),
        if client.resp3.load(Ordering::Relaxed) {
            3
        } else {
            2
        },
        text(&details.library_name),
        text(&details.library_version),
        client.bytes_in(),
        client.bytes_out(),
        client.commands(),
    );
    line
}

/// The letters that tell what is special of a client, `N` for nothing.
fn flags(client: &Client) -> String {
    let mut letters = String::new();
    let tracking = client.tracking();
    let broken = |tracking: &Tracking| tracking.broken_redirect.load(Ordering::Relaxed);
    let watch = client.details().watch;
    let flags: [(bool, char); 15] = [
        (client.is_replica.load(Ordering::Relaxed), 'S'),
        (client.is_primary(), 'M'),
        (client.is_monitor.load(Ordering::Relaxed), 'O'),
        (client.subscriptions() > 0, 'P'),
        (client.in_transaction.load(Ordering::Relaxed), 'x'),
        (client.is_blocked(), 'b'),
        (tracking.is_some(), 't'),
        (tracking.as_deref().is_some_and(broken), 'R'),
        (
            tracking.is_some_and(|tracking| tracking.mode == Mode::Broadcast),
            'B',
        ),
        (watch.is_some_and(|mark| mark.is_touched()), 'd'),
        (matches!(client.address, Address::Unix(_)), 'U'),
        (client.readonly.load(Ordering::Relaxed), 'r'),
        (client.no_evict.load(Ordering::Relaxed), 'e'),
        (client.no_touch.load(Ordering::Relaxed), 'T'),
        (client.import_source.load(Ordering::Relaxed), 'I'),
    ];
    letters.extend(
        flags
            .iter()
            .filter(|(set, _)| *set)
            .map(|(_, letter)| letter),
    );
    if letters.is_empty() {
        letters.push('N');
    }
    letters
}

const KILL: Command = Command {
    name: "KILL",
    syntax: "<ip:port | <[ID client-id [client-id ...]] | [TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] | [USER username] | [ADDR ip:port] | [LADDR ip:port] | [SKIPME <YES | NO>] | [MAXAGE maxage] | [NAME name] | [IDLE idle] | [FLAGS flags] | [LIB-NAME libname] | [LIB-VER libver] | [DB db] | [CAPA capa] | [IP ip] [filter ...]>>",
    summary: "Closes connections.",
    since: "2.4.0",
    complexity: "O(N) where N is the number of client connections",
    group: Group::Connection,
    arity: AtLeast(3),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(kill),
    subcommands: &[],
};

fn kill(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    if args.len() == 3 {
        let address = String::from_utf8_lossy(args.word(2));
        let clients = session.server.clients.all();
        let client = clients
            .iter()
            .find(|client| client.address.to_string() == address)
            .ok_or(Error::general("No such client"))?;
        end(session, client);
        reply.ok();
        return Ok(());
    }
    let filter = Filter::read(args, 2, &session.server, true)?;
    let mut killed = 0;
    for client in session.server.clients.all() {
        if filter.matches(&client, &session.client) {
            end(session, &client);
            killed += 1;
        }
    }
    reply.integer(killed);
    Ok(())
}

/// Ends a connection; this one once it has its reply.
fn end(session: &mut Session, client: &Client) {
    if client.id == session.client.id {
        session.flags.closing = true;
    } else {
        client.kill();
    }
}

const NO_EVICT: Command = Command {
    name: "NO-EVICT",
    syntax: "<ON | OFF>",
    summary: "Protects the connection from being closed for its memory.",
    since: "7.0.0",
    complexity: "O(1)",
    group: Group::Connection,
    arity: Exactly(3),
    keys: &[],
    flags: &[
        Flag::Admin,
        Flag::AllowBusy,
        Flag::Loading,
        Flag::NoScript,
        Flag::Stale,
    ],
    categories: &[],
    run: Run::Session(no_evict),
    subcommands: &[],
};

fn no_evict(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let on = on_or_off(args, 2)?;
    session.client.no_evict.store(on, Ordering::Relaxed);
    reply.ok();
    Ok(())
}

const NO_TOUCH: Command = Command {
    name: "NO-TOUCH",
    syntax: "<ON | OFF>",
    summary: "Lets the connection's commands leave no trace in what eviction goes by.",
    since: "7.2.0",
    complexity: "O(1)",
    group: Group::Connection,
    arity: Exactly(3),
    keys: &[],
    flags: &[Flag::AllowBusy, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(no_touch),
    subcommands: &[],
};

fn no_touch(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    session.flags.no_touch = on_or_off(args, 2)?;
    set(&session.client.no_touch, session.flags.no_touch);
    reply.ok();
    Ok(())
}

fn set(flag: &AtomicBool, value: bool) {
    flag.store(value, Ordering::Relaxed);
}

fn on_or_off(args: &Args<'_>, index: usize) -> Result<bool> {
    if args.is(index, "ON") {
        Ok(true)
    } else if args.is(index, "OFF") {
        Ok(false)
    } else {
        Err(Error::SYNTAX)
    }
}

const REPLY: Command = Command {
    name: "REPLY",
    syntax: "<ON | OFF | SKIP>",
    summary: "Tells whether commands are answered.",
    since: "3.2.0",
    complexity: "O(1)",
    group: Group::Connection,
    arity: Exactly(3),
    keys: &[],
    flags: &[
        Flag::AllowBusy,
        Flag::Loading,
        Flag::NoMulti,
        Flag::NoScript,
        Flag::Stale,
    ],
    categories: &[],
    run: Run::Session(reply_mode),
    subcommands: &[],
};

fn reply_mode(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    if args.is(2, "ON") {
        session.flags.replies_off = false;
        session.flags.skip_next = false;
        reply.ok();
    } else if args.is(2, "OFF") {
        session.flags.replies_off = true;
    } else if args.is(2, "SKIP") {
        session.flags.skip_next = !session.flags.replies_off;
    } else {
        return Err(Error::SYNTAX);
    }
    Ok(())
}

const PAUSE: Command = Command {
    name: "PAUSE",
    syntax: "timeout [WRITE | ALL]",
    summary: "Holds back commands of all clients for some milliseconds.",
    since: "3.0.0",
    complexity: "O(1)",
    group: Group::Connection,
    arity: AtLeast(3),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(pause),
    subcommands: &[],
};

fn pause(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let all = match args.len() {
        3 => true,
        4 if args.is(3, "ALL") => true,
        4 if args.is(3, "WRITE") => false,
        4 => return Err(Error::general("CLIENT PAUSE mode must be WRITE or ALL")),
        _ => return Err(Error::SYNTAX),
    };
    let millis = number::parse_i64(args.word(2))
        .ok_or(Error::general("timeout is not an integer or out of range"))?;
    if millis < 0 {
        return Err(Error::general("timeout is negative"));
    }
    let until = now()
        .millis()
        .checked_add(millis)
        .ok_or(Error::general("timeout is out of range"))?;
    session.server.begin_pause(until, all);
    reply.ok();
    Ok(())
}

const UNPAUSE: Command = Command {
    name: "UNPAUSE",
    syntax: "",
    summary: "Ends a pause.",
    since: "6.2.0",
    complexity: "O(N) where N is the number of paused clients",
    group: Group::Connection,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(unpause),
    subcommands: &[],
};

fn unpause(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    session.server.end_pause();
    reply.ok();
    Ok(())
}

const UNBLOCK: Command = Command {
    name: "UNBLOCK",
    syntax: "client-id [TIMEOUT | ERROR]",
    summary: "Ends the waiting of a blocked client.",
    since: "5.0.0",
    complexity: "O(log N) where N is the number of client connections",
    group: Group::Connection,
    arity: AtLeast(3),
    keys: &[],
    flags: &[Flag::Admin, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(unblock),
    subcommands: &[],
};

fn unblock(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let with_error = match args.len() {
        3 => false,
        4 if args.is(3, "TIMEOUT") => false,
        4 if args.is(3, "ERROR") => true,
        4 => {
            return Err(Error::general(
                "CLIENT UNBLOCK reason should be TIMEOUT or ERROR",
            ));
        }
        _ => return Err(Error::SYNTAX),
    };
    let id = args.integer(2)?;
    let client = u64::try_from(id)
        .ok()
        .and_then(|id| session.server.clients.get(id));
    let unblocked = client.is_some_and(|client| match (client.waiter(), with_error) {
        (Some(waiter), true) => waiter.interrupt(&session.server, &client, &Error::UNBLOCKED),
        (Some(waiter), false) => waiter.time_out(&client),
        (None, true) => client.end_patience_as(WaitState::Interrupted),
        (None, false) => client.end_patience_as(WaitState::TimedOut),
    });
    reply.integer(unblocked.into());
    Ok(())
}

const IMPORT_SOURCE: Command = Command {
    name: "IMPORT-SOURCE",
    syntax: "<ON | OFF>",
    summary: "Marks the connection as one that imports data, in import mode.",
    since: "8.1.0",
    complexity: "O(1)",
    group: Group::Connection,
    arity: Exactly(3),
    keys: &[],
    flags: &[Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(import_source),
    subcommands: &[],
};

fn import_source(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    if !session.server.config.settings().import_mode {
        return Err(Error::general("Server is not in import mode"));
    }
    set(&session.client.import_source, on_or_off(args, 2)?);
    reply.ok();
    Ok(())
}
