//! ACL: users and what they may do.

use std::{path::PathBuf, sync::atomic::Ordering};

use storage::db::Db;

use super::help::help;
use crate::{
    acl::{
        self, Permissions, User,
        check::{Denial, Reason},
        log::Entry,
        selector::Selector,
    },
    commands::command::facts,
    config::PubsubDefault,
    dispatch::{
        self,
        args::Args,
        command::{Arity::*, Command, Flag, Group, Reply, Result, Run},
        error::Error,
        table,
    },
    pubsub::Kind,
    server::{Server, now},
    session::{Session, registry::Client},
};

pub const COMMANDS: &[&Command] = &[&ACL];

const ACL: Command = Command {
    name: "ACL",
    syntax: "",
    summary: "Manages users and what they may do.",
    since: "6.0.0",
    complexity: "Depends on subcommand.",
    group: Group::Server,
    arity: AtLeast(2),
    keys: &[],
    flags: &[],
    categories: &[],
    run: Run::Container,
    subcommands: &[
        &CAT, &DELUSER, &DRYRUN, &GENPASS, &GETUSER, &HELP, &LIST, &LOAD, &LOG, &SAVE, &SETUSER,
        &USERS, &WHOAMI,
    ],
};

const PUBLIC: &[Flag] = &[Flag::NoScript, Flag::Loading, Flag::Stale];
const ADMIN: &[Flag] = &[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale];

/// A subcommand's declaration: they differ in little.
macro_rules! subcommand {
    ($const:ident, $name:literal, $syntax:literal, $summary:literal, $arity:expr, $flags:expr, $run:ident) => {
        const $const: Command = Command {
            name: $name,
            syntax: $syntax,
            summary: $summary,
            since: "6.0.0",
            complexity: "O(N) where N is the number of users or rules",
            group: Group::Server,
            arity: $arity,
            keys: &[],
            flags: $flags,
            categories: &[],
            run: Run::Session($run),
            subcommands: &[],
        };
    };
}

subcommand!(
    HELP,
    "HELP",
    "",
    "Print this help.",
    Exactly(2),
    &[Flag::Loading, Flag::Stale],
    help
);

subcommand!(
    CAT,
    "CAT",
    "[category]",
    "Lists the categories, or a category's commands.",
    AtLeast(2),
    PUBLIC,
    cat
);

fn cat(_session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    if args.len() > 3 {
        return Err(unknown_or_wrong("CAT"));
    }
    let Some(name) = args.get(2) else {
        reply.array(facts::CATEGORIES.len());
        for (_, name) in facts::CATEGORIES {
            reply.bulk(name.as_bytes());
        }
        return Ok(());
    };
    let category = facts::category(name).ok_or_else(|| {
        let mut text = b"Unknown category '".to_vec();
        text.extend_from_slice(name);
        text.push(b'\'');
        Error::general(text)
    })?;
    let members: Vec<_> = table::table()
        .all()
        .filter(|registered| facts::categories(registered.command).contains(&category))
        .collect();
    reply.array(members.len());
    for registered in members {
        reply.bulk(registered.full_name.as_bytes());
    }
    Ok(())
}

/// What a subcommand answers to words that it does not take.
fn unknown_or_wrong(name: &str) -> Error {
    Error::general(format!(
        "unknown subcommand or wrong number of arguments for '{name}'. Try ACL HELP."
    ))
}

subcommand!(
    SETUSER,
    "SETUSER",
    "username [rule [rule ...]]",
    "Makes or changes a user.",
    AtLeast(3),
    ADMIN,
    set_user
);

fn set_user(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let name = args.word(2);
    if name
        .iter()
        .any(|&byte| byte == 0 || byte.is_ascii_whitespace())
    {
        return Err(Error::general(
            "Usernames can't contain spaces or null characters",
        ));
    }
    let rules: Vec<&[u8]> = args.from(3).collect();
    let server = &session.server;
    let before = server.acl.user(name).map(|user| user.permissions());
    server
        .acl
        .set_user(name, &rules, all_channels(session))
        .map_err(|error| Error::general(error.message()))?;
    if let Some(before) = before {
        end_subscribers(session, name, &before);
    }
    reply.ok();
    Ok(())
}

/// Ends the connections of a user that are subscribed to what the user may not subscribe to any more.
fn end_subscribers(session: &mut Session, name: &[u8], before: &Permissions) {
    let server = &session.server;
    let Some(user) = server.acl.user(name) else {
        return;
    };
    let now = user.permissions();
    if now.keeps_channels(before) {
        return;
    }
    for kind in Kind::ALL {
        let is_pattern = kind == Kind::Pattern;
        let allowed = |name: &[u8]| now.allows_channel(name, is_pattern);
        for client in server
            .pubsub
            .of(kind)
            .clients_of_names(|name| !allowed(name))
        {
            if client.details().user() != name {
                continue;
            }
            if client.id == session.client.id {
                session.flags.closing = true;
            } else {
                client.kill();
            }
        }
    }
}

/// Whether users begin with all channels: `acl-pubsub-default`.
fn all_channels(session: &Session) -> bool {
    session.server.config.settings().acl_pubsub_default == PubsubDefault::AllChannels
}

subcommand!(
    DELUSER,
    "DELUSER",
    "username [username ...]",
    "Deletes users and ends their connections.",
    AtLeast(3),
    ADMIN,
    delete_users
);

fn delete_users(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    if args.from(2).any(|name| name == acl::DEFAULT_USER) {
        return Err(Error::general("The 'default' user cannot be removed"));
    }
    let mut deleted = 0;
    for name in args.from(2) {
        if session.server.acl.delete_user(name) {
            deleted += 1;
            end_connections(session, name);
        }
    }
    reply.integer(deleted);
    Ok(())
}

/// Ends the connections of a user who is gone; one's own after the reply.
fn end_connections(session: &mut Session, name: &[u8]) {
    for client in session.server.clients.all() {
        if client.details().user() == name && client.id != session.client.id {
            client.kill();
        }
    }
    if session.user.name == name {
        session.flags.closing = true;
    }
}

subcommand!(
    GETUSER,
    "GETUSER",
    "username",
    "Returns a user's rules.",
    Exactly(3),
    ADMIN,
    get_user
);

fn get_user(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let Some(user) = session.server.acl.user(args.word(2)) else {
        reply.null();
        return Ok(());
    };
    let permissions = user.permissions();
    reply.map(7);
    reply.bulk(b"flags");
    let mut flags = vec![if permissions.enabled { "on" } else { "off" }];
    flags.extend(permissions.nopass.then_some("nopass"));
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    reply.array(permissions.passwords.len());
    for hash in &permissions.passwords {
        reply.bulk(hash.as_bytes());
    }
    let mut selectors = permissions.selectors.iter();
    if let Some(own) = selectors.next() {
        write_selector(own, reply);
    }
    reply.bulk(b"selectors");
    reply.array(selectors.len());
    for selector in selectors {
        reply.map(4);
        write_selector(selector, reply);
    }
    Ok(())
}

fn write_selector(selector: &Selector, reply: &mut Reply) {
    for (name, text) in [
        ("commands", selector.describe_commands().into_bytes()),
        ("keys", selector.describe_keys()),
        ("channels", selector.describe_channels()),
        (
            "databases",
            match selector.describe_databases() {
                none if none == "resetdbs" => Vec::new(),
                some => some.into_bytes(),
            },
        ),
    ] {
        reply.bulk(name.as_bytes());
        reply.bulk(&text);
    }
}

subcommand!(
    LIST,
    "LIST",
    "",
    "Returns all users' rules.",
    Exactly(2),
    ADMIN,
    list
);

fn list(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    let users = session.server.acl.users();
    reply.array(users.len());
    users.iter().for_each(|user| reply.bulk(&user.describe()));
    Ok(())
}

subcommand!(
    USERS,
    "USERS",
    "",
    "Lists all users.",
    Exactly(2),
    ADMIN,
    users
);

fn users(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    let users = session.server.acl.users();
    reply.array(users.len());
    users.iter().for_each(|user| reply.bulk(&user.name));
    Ok(())
}

subcommand!(
    WHOAMI,
    "WHOAMI",
    "",
    "Returns the connection's user.",
    Exactly(2),
    PUBLIC,
    who_am_i
);

fn who_am_i(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    reply.bulk(&session.user.name);
    Ok(())
}

subcommand!(
    GENPASS,
    "GENPASS",
    "[bits]",
    "Generates a password.",
    AtLeast(2),
    PUBLIC,
    generate_password
);

/// Bits of a password when none are asked for, and the most.
const PASSWORD_BITS: i64 = 256;
const MAX_PASSWORD_BITS: i64 = 4096;

fn generate_password(_session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    if args.len() > 3 {
        return Err(unknown_or_wrong("GENPASS"));
    }
    let bits = if args.len() == 3 {
        args.integer(2)?
    } else {
        PASSWORD_BITS
    };
    if !(1..=MAX_PASSWORD_BITS).contains(&bits) {
        return Err(Error::general(
            "ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096",
        ));
    }
    let password = acl::random_password(bits as usize)
        .map_err(|error| Error::general(format!("no randomness: {error}")))?;
    reply.bulk(password.as_bytes());
    Ok(())
}

subcommand!(
    DRYRUN,
    "DRYRUN",
    "username command [arg [arg ...]]",
    "Tells whether a user may run a command, without running it.",
    AtLeast(4),
    ADMIN,
    dry_run
);

fn dry_run(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let named =
        |before: &[u8], name: &[u8]| Error::general([before, b" '", name, b"' not found"].concat());
    let user = session.server.acl.user(args.word(2));
    let user = user.ok_or_else(|| named(b"User", args.word(2)))?;
    let command = args.skip(3);
    let found = table::table()
        .find(command.word(0))
        .ok_or_else(|| named(b"Command", command.word(0)))?;
    let registered = dispatch::resolve(found, &command).map_err(|(registered, error)| {
        match registered.filter(|registered| registered.subcommands.is_empty()) {
            Some(_) => error,
            None => named(b"Command", command.word(0)),
        }
    })?;
    match user.may(registered, &command, session.database) {
        Ok(()) => reply.ok(),
        Err(denial) => reply.bulk(&denial.explain(&user)),
    }
    Ok(())
}

const NO_FILE: &str = "This instance is not configured to use an ACL file. You may want to specify users via the ACL \
                       SETUSER command and then issue a CONFIG REWRITE (assuming you have a configuration file set) \
                       in order to store users in the configuration.";

/// The file that the users are kept in.
fn file(session: &Session) -> Result<PathBuf> {
    let settings = session.server.config.settings();
    if settings.aclfile.as_os_str().is_empty() {
        return Err(Error::general(NO_FILE));
    }
    Ok(settings.resolve(&settings.aclfile))
}

subcommand!(
    LOAD,
    "LOAD",
    "",
    "Reads the users from the ACL file.",
    Exactly(2),
    ADMIN,
    load
);

fn load(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    let path = file(session)?;
    let acl = &session.server.acl;
    let before: Vec<_> = acl
        .users()
        .iter()
        .map(|user| (user.name.clone(), user.permissions()))
        .collect();
    let gone = acl
        .load(&path, all_channels(session))
        .map_err(Error::general)?;
    gone.iter().for_each(|name| end_connections(session, name));
    for (name, permissions) in before {
        end_subscribers(session, &name, &permissions);
    }
    reply.ok();
    Ok(())
}

subcommand!(
    SAVE,
    "SAVE",
    "",
    "Writes the users to the ACL file.",
    Exactly(2),
    ADMIN,
    save
);

fn save(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    let path = file(session)?;
    session.server.acl.save(&path).map_err(|error| {
        crate::log::warning(format!("Saving the ACL file: {error}"));
        Error::general("There was an error trying to save the ACLs. Please check the server logs for more information")
    })?;
    reply.ok();
    Ok(())
}

subcommand!(
    LOG,
    "LOG",
    "[count | RESET]",
    "Returns what was denied lately.",
    AtLeast(2),
    ADMIN,
    log
);

/// Entries that LOG returns when no number is given.
const LOG_COUNT: usize = 10;

fn log(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    if args.len() > 3 {
        return Err(unknown_or_wrong("LOG"));
    }
    let mut log = session.server.acl.log.lock();
    if args.is(2, "RESET") {
        log.clear();
        reply.ok();
        return Ok(());
    }
    let count = if args.len() == 3 {
        args.integer(2)?.max(0) as usize
    } else {
        LOG_COUNT
    };
    let now = now().millis();
    let entries = log.entries();
    reply.array(entries.len().min(count));
    for entry in entries.take(count) {
        write_entry(entry, now, reply);
    }
    Ok(())
}

fn write_entry(entry: &Entry, now_ms: i64, reply: &mut Reply) {
    reply.map(10);
    reply.bulk(b"count");
    reply.integer(entry.count as i64);
    for (name, text) in [
        ("reason", entry.reason.name().as_bytes()),
        ("context", entry.context.as_bytes()),
        ("object", &entry.object),
        ("username", &entry.user),
    ] {
        reply.bulk(name.as_bytes());
        reply.bulk(text);
    }
    reply.bulk(b"age-seconds");
    reply.double((now_ms - entry.created_ms) as f64 / 1000.0);
    reply.bulk(b"client-info");
    reply.bulk(entry.client.as_bytes());
    for (name, number) in [
        ("entry-id", entry.id as i64),
        ("timestamp-created", entry.created_ms),
        ("timestamp-last-updated", entry.updated_ms),
    ] {
        reply.bulk(name.as_bytes());
        reply.integer(number);
    }
}

impl Session {
    /// Makes the connection this user's.
    pub fn become_user(&mut self, user: std::sync::Arc<User>) {
        self.client.set_details(|details| {
            details.user.clone_from(&user.name);
        });
        self.user = user;
        self.flags.authenticated = true;
    }

    /// Notes a denial in the log and the statistics.
    pub fn note_denial(&self, reason: Reason, object: &[u8], user: &[u8], context: &'static str) {
        note_denial(&self.server, &self.client, reason, object, user, context);
    }
}

/// Notes a denial of what a client wanted.
pub fn note_denial(
    server: &Server,
    client: &Client,
    reason: Reason,
    object: &[u8],
    user: &[u8],
    context: &'static str,
) {
    let metrics = &server.metrics;
    let counter = match reason {
        Reason::Command => &metrics.commands_denied,
        Reason::Key => &metrics.keys_denied,
        Reason::Auth => &metrics.auth_denied,
        Reason::Channel => &metrics.channels_denied,
        Reason::Database => &metrics.databases_denied,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    let now = now().millis();
    let entry = Entry {
        id: 0,
        count: 0,
        reason,
        context,
        object: object.to_vec(),
        user: user.to_vec(),
        client: super::client::describe(client).trim_end().to_owned(),
        created_ms: now,
        updated_ms: now,
    };
    let limit = server.config.settings().acllog_max_len as usize;
    server.acl.log.lock().add(entry, limit);
}

/// Whether SORT's patterns reach keys that its words do not name and its user may not read.
///
/// # Errors
/// Which option is denied.
pub fn check_sort_patterns(session: &Session, args: &Args<'_>) -> Result {
    let reaches = |index: usize| {
        let pattern = args.get(index).unwrap_or_default();
        args.is(index - 1, "GET") || pattern.contains(&b'*')
    };
    let denied = (2..args.len()).find(|&index| {
        (args.is(index, "BY") || args.is(index, "GET"))
            && index + 1 < args.len()
            && reaches(index + 1)
    });
    match denied {
        Some(index) if !session.user.reads_all_keys() => {
            let option = if args.is(index, "BY") { "BY" } else { "GET" };
            Err(Error::general(format!(
                "{option} option of SORT denied due to insufficient ACL permissions."
            )))
        }
        _ => Ok(()),
    }
}

/// Checks a command for the session's user, and notes a denial.
///
/// # Errors
/// What is in the way.
pub fn check(
    session: &Session,
    db: &Db<'_>,
    registered: &table::Registered,
    args: &Args<'_>,
    context: &'static str,
) -> std::result::Result<(), Denial> {
    let outcome = session.user.may(registered, args, db.index());
    outcome.inspect_err(|denial| {
        session.note_denial(denial.reason, &denial.object, &session.user.name, context);
    })
}
