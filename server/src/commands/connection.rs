//! Commands about the connection itself: who the client is, which protocol version and database it uses.

use protocol::resp::reply::Version;
use storage::value::number;

use super::client;
use crate::{
    acl::{self, check::Reason},
    config::Settings,
    dispatch::{
        args::Args,
        command::{Arity::*, Command, Flag, Group, Reply, Result, Run},
        error::Error,
    },
    session::Session,
};

pub const COMMANDS: &[&Command] = &[&AUTH, &ECHO, &HELLO, &PING, &QUIT, &RESET, &SELECT];

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

fn ping(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    match args.len() {
        1 | 2 if session.flags.subscribed && session.version == Version::Resp2 => {
            // Shaped as a message is, since a subscriber's client reads nothing else.
            reply.array(2);
            reply.bulk(b"pong");
            reply.bulk(args.get(1).unwrap_or_default());
        }
        1 => reply.pong(),
        2 => reply.bulk(args.word(1)),
        _ => return Err(Error::wrong_arity("ping")),
    }
    Ok(())
}

const ECHO: Command = Command {
    name: "ECHO",
    syntax: "message",
    summary: "Returns the message.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Connection,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::Fast, Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(echo),
    subcommands: &[],
};

fn echo(_session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    reply.bulk(args.word(1));
    Ok(())
}

const AUTH: Command = Command {
    name: "AUTH",
    syntax: "[username] password",
    summary: "Authenticates the connection.",
    since: "1.0.0",
    complexity: "O(N) where N is the number of passwords of the user",
    group: Group::Connection,
    arity: AtLeast(2),
    keys: &[],
    flags: &[
        Flag::AllowBusy,
        Flag::Fast,
        Flag::Loading,
        Flag::NoAuth,
        Flag::NoScript,
        Flag::Stale,
    ],
    categories: &[],
    run: Run::Session(auth),
    subcommands: &[],
};

fn auth(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    match args.len() {
        2 if session.server.acl.default_user().permissions().nopass => {
            return Err(Error::general(
                "AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct?",
            ));
        }
        2 => log_in(session, args.word(0), acl::DEFAULT_USER, args.word(1))?,
        3 => log_in(session, args.word(0), args.word(1), args.word(2))?,
        _ => return Err(Error::SYNTAX),
    }
    reply.ok();
    Ok(())
}

/// Makes the connection the user's, if the password is right; `command` is what it was given to.
fn log_in(session: &mut Session, command: &[u8], user: &[u8], password: &[u8]) -> Result {
    match session.server.acl.authenticate(user, password) {
        Some(user) => {
            session.become_user(user);
            Ok(())
        }
        None => {
            session.note_denial(Reason::Auth, command, user, "toplevel");
            Err(Error::WRONG_PASS)
        }
    }
}

const HELLO: Command = Command {
    name: "HELLO",
    syntax: "[protover [AUTH username password] [SETNAME clientname]]",
    summary: "Agrees on a protocol version and tells what the server is.",
    since: "6.0.0",
    complexity: "O(1)",
    group: Group::Connection,
    arity: AtLeast(1),
    keys: &[],
    flags: &[
        Flag::AllowBusy,
        Flag::Fast,
        Flag::Loading,
        Flag::NoAuth,
        Flag::NoScript,
        Flag::Stale,
    ],
    categories: &[],
    run: Run::Session(hello),
    subcommands: &[],
};

fn hello(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let version = match args.get(1) {
        None => session.version,
        Some(word) => match number::parse_i64(word) {
            None => {
                return Err(Error::general(
                    "Protocol version is not an integer or out of range",
                ));
            }
            Some(2) => Version::Resp2,
            Some(3) => Version::Resp3,
            Some(_) => return Err(Error::NO_PROTO),
        },
    };
    let (mut login, mut name) = (None, None);
    let mut index = 2;
    while index < args.len() {
        if args.is(index, "AUTH") && index + 2 < args.len() {
            login = Some((args.word(index + 1), args.word(index + 2)));
            index += 3;
        } else if args.is(index, "SETNAME") && index + 1 < args.len() {
            let wanted = args.word(index + 1);
            client::check_name(wanted)?;
            name = Some(wanted);
            index += 2;
        } else {
            let mut text = b"Syntax error in HELLO option '".to_vec();
            text.extend_from_slice(args.word(index));
            text.push(b'\'');
            return Err(Error::general(text));
        }
    }
    if let Some((user, password)) = login {
        log_in(session, args.word(0), user, password)?;
    }
    if !session.flags.authenticated {
        return Err(Error::from_static(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
             <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the \
             same time",
        ));
    }
    if let Some(name) = name {
        session.client.set_details(|details| {
            details.name.clear();
            details.name.extend_from_slice(name);
        });
    }
    set_version(session, reply, version);
    write_hello(session, reply);
    Ok(())
}

fn set_version(session: &mut Session, reply: &mut Reply, version: Version) {
    session.version = version;
    session.client.resp3.store(
        version == Version::Resp3,
        std::sync::atomic::Ordering::Relaxed,
    );
    reply.set_version(version);
}

fn write_hello(session: &Session, reply: &mut Reply) {
    let settings = session.server.config.settings();
    let zone = settings.availability_zone.as_bytes();
    reply.map(7 + usize::from(!zone.is_empty()));
    let (name, version) = announced(&settings);
    reply.bulk(b"server");
    reply.bulk(name.as_bytes());
    reply.bulk(b"version");
    reply.bulk(version.as_bytes());
    reply.bulk(b"proto");
    reply.integer(match session.version {
        Version::Resp2 => 2,
        Version::Resp3 => 3,
    });
    reply.bulk(b"id");
    reply.integer(session.client.id as i64);
    reply.bulk(b"mode");
    reply.bulk(b"standalone");
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
    if !zone.is_empty() {
        reply.bulk(b"availability_zone");
        reply.bulk(zone);
    }
}

/// Version of Redis that the commands are those of.
pub const REDIS_VERSION: &str = "7.2.4";

/// The name and version that HELLO announces.
fn announced(settings: &Settings) -> (&str, &str) {
    let (name, version) = if settings.extended_redis_compatibility {
        ("redis", REDIS_VERSION)
    } else {
        ("valkey", crate::config::VALKEY_VERSION)
    };
    (
        if settings.announced_server_name.is_empty() {
            name
        } else {
            &settings.announced_server_name
        },
        if settings.announced_server_version.is_empty() {
            version
        } else {
            &settings.announced_server_version
        },
    )
}

const SELECT: Command = Command {
    name: "SELECT",
    syntax: "index",
    summary: "Selects the database that commands work on.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Connection,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::AllowBusy, Flag::Fast, Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(select),
    subcommands: &[],
};

fn select(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let index = args.integer(1)?;
    let index = i32::try_from(index).map_err(|_| Error::OUTSIDE_I32)?;
    let index = usize::try_from(index)
        .ok()
        .filter(|&index| index < session.server.keyspace.databases())
        .ok_or(Error::DB_INDEX)?;
    session.database = index;
    session.client.set_database(index);
    reply.ok();
    Ok(())
}

const QUIT: Command = Command {
    name: "QUIT",
    syntax: "",
    summary: "Closes the connection.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Connection,
    arity: AtLeast(1),
    keys: &[],
    flags: &[
        Flag::AllowBusy,
        Flag::Fast,
        Flag::Loading,
        Flag::NoAuth,
        Flag::NoScript,
        Flag::Stale,
    ],
    categories: &[],
    run: Run::Session(quit),
    subcommands: &[],
};

fn quit(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    session.flags.closing = true;
    reply.ok();
    Ok(())
}

const RESET: Command = Command {
    name: "RESET",
    syntax: "",
    summary: "Makes the connection what it was when it began.",
    since: "6.2.0",
    complexity: "O(1)",
    group: Group::Connection,
    arity: Exactly(1),
    keys: &[],
    flags: &[
        Flag::AllowBusy,
        Flag::Fast,
        Flag::Loading,
        Flag::NoAuth,
        Flag::NoScript,
        Flag::Stale,
    ],
    categories: &[],
    run: Run::Session(reset),
    subcommands: &[],
};

fn reset(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    session.reset();
    set_version(session, reply, Version::Resp2);
    reply.simple("RESET");
    Ok(())
}
