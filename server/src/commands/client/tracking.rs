//! CLIENT TRACKING and what belongs to it.

use std::sync::atomic::Ordering;

use crate::{
    dispatch::{
        args::Args,
        command::{Arity::*, Command, Flag, Group, Reply, Result, Run},
        error::Error,
    },
    session::Session,
    tracking::{Mode, Tracking},
};

pub(super) const TRACKING: Command = Command {
    name: "TRACKING",
    syntax: "<ON | OFF> [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]",
    summary: "Turns messages about changes of keys that the client may have cached on or off.",
    since: "6.0.0",
    complexity: "O(1). Some options may introduce additional complexity.",
    group: Group::Connection,
    arity: AtLeast(3),
    keys: &[],
    flags: &[Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(tracking),
    subcommands: &[],
};

/// What the words after ON or OFF say.
#[derive(Default)]
struct Options {
    redirect: Option<u64>,
    prefixes: Vec<Box<[u8]>>,
    broadcast: bool,
    opt_in: bool,
    opt_out: bool,
    no_loop: bool,
}

impl Options {
    fn read(session: &Session, args: &Args<'_>) -> Result<Options> {
        let mut options = Options::default();
        let mut index = 3;
        while index < args.len() {
            let has_value = index + 1 < args.len();
            if args.is(index, "REDIRECT") && has_value {
                index += 1;
                if options.redirect.is_some() {
                    return Err(Error::general(
                        "A client can only redirect to a single other client",
                    ));
                }
                options.redirect = redirect(session, args, index)?;
            } else if args.is(index, "BCAST") {
                options.broadcast = true;
            } else if args.is(index, "OPTIN") {
                options.opt_in = true;
            } else if args.is(index, "OPTOUT") {
                options.opt_out = true;
            } else if args.is(index, "NOLOOP") {
                options.no_loop = true;
            } else if args.is(index, "PREFIX") && has_value {
                index += 1;
                options.prefixes.push(args.word(index).into());
            } else {
                return Err(Error::SYNTAX);
            }
            index += 1;
        }
        Ok(options)
    }

    fn mode(&self) -> Mode {
        match self {
            Options {
                broadcast: true, ..
            } => Mode::Broadcast,
            Options { opt_in: true, .. } => Mode::OptIn,
            Options { opt_out: true, .. } => Mode::OptOut,
            _ => Mode::Default,
        }
    }

    /// Whether the options go together, and with how the client is tracked now.
    fn check(&self, now: Option<&Tracking>) -> Result {
        if !self.broadcast && !self.prefixes.is_empty() {
            return Err(Error::general(
                "PREFIX option requires BCAST mode to be enabled",
            ));
        }
        if let Some(now) = now
            && (now.mode == Mode::Broadcast) != self.broadcast
        {
            return Err(Error::general(
                "You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling \
                 it with a different mode.",
            ));
        }
        if self.broadcast && (self.opt_in || self.opt_out) {
            return Err(Error::general(
                "OPTIN and OPTOUT are not compatible with BCAST",
            ));
        }
        if self.opt_in && self.opt_out {
            return Err(Error::general(
                "You can't specify both OPTIN mode and OPTOUT mode",
            ));
        }
        let before = now.map_or(Mode::Default, |now| now.mode);
        if (self.opt_in && before == Mode::OptOut) || (self.opt_out && before == Mode::OptIn) {
            return Err(Error::general(
                "You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling \
                 it with a different mode.",
            ));
        }
        self.check_prefixes(now)
    }

    /// A key must not begin with two prefixes of one client: it would be told twice.
    fn check_prefixes(&self, now: Option<&Tracking>) -> Result {
        let known = now.map(|now| now.prefixes.as_slice()).unwrap_or_default();
        for (index, prefix) in self.prefixes.iter().enumerate() {
            if let Some(other) = known.iter().find(|other| overlap(prefix, other)) {
                return Err(overlapping(prefix, "an existing", other));
            }
            let rest = &self.prefixes[index + 1..];
            if let Some(other) = rest.iter().find(|other| overlap(prefix, other)) {
                return Err(overlapping(prefix, "another provided", other));
            }
        }
        Ok(())
    }
}

fn overlap(one: &[u8], other: &[u8]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn overlapping(prefix: &[u8], whose: &str, other: &[u8]) -> Error {
    let mut text = b"Prefix '".to_vec();
    text.extend_from_slice(prefix);
    text.extend_from_slice(format!("' overlaps with {whose} prefix '").as_bytes());
    text.extend_from_slice(other);
    text.extend_from_slice(b"'. Prefixes for a single client must not overlap.");
    Error::general(text)
}

/// The client to tell instead; 0 is none.
fn redirect(session: &Session, args: &Args<'_>, index: usize) -> Result<Option<u64>> {
    let id = args.integer(index)?;
    u64::try_from(id)
        .ok()
        .filter(|&id| session.server.clients.get(id).is_some())
        .map(Some)
        .ok_or(Error::general(
            "The client ID you want redirect to does not exist",
        ))
}

fn tracking(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let options = Options::read(session, args)?;
    if super::on_or_off(args, 2)? {
        let now = session.client.tracking();
        options.check(now.as_deref())?;
        session.start_tracking(Tracking {
            mode: options.mode(),
            no_loop: options.no_loop,
            redirect: options.redirect,
            prefixes: options.prefixes,
            ..Tracking::default()
        });
    } else {
        session.stop_tracking();
    }
    reply.ok();
    Ok(())
}

pub(super) const CACHING: Command = Command {
    name: "CACHING",
    syntax: "<YES | NO>",
    summary: "Tells whether the keys of the next command are tracked.",
    since: "6.0.0",
    complexity: "O(1)",
    group: Group::Connection,
    arity: Exactly(3),
    keys: &[],
    flags: &[Flag::AllowBusy, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(caching),
    subcommands: &[],
};

fn caching(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let Some(tracking) = session.client.tracking() else {
        return Err(Error::general(
            "CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
        ));
    };
    if args.is(2, "YES") {
        if tracking.mode != Mode::OptIn {
            return Err(Error::general(
                "CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
            ));
        }
    } else if args.is(2, "NO") {
        if tracking.mode != Mode::OptOut {
            return Err(Error::general(
                "CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
            ));
        }
    } else {
        return Err(Error::SYNTAX);
    }
    session.flags.caching = true;
    reply.ok();
    Ok(())
}

pub(super) const GETREDIR: Command = Command {
    name: "GETREDIR",
    syntax: "",
    summary: "Returns the connection that invalidations go to.",
    since: "6.0.0",
    complexity: "O(1)",
    group: Group::Connection,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::AllowBusy, Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(get_redirection),
    subcommands: &[],
};

fn get_redirection(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    reply.integer(session.client.redirection());
    Ok(())
}

pub(super) const TRACKINGINFO: Command = Command {
    name: "TRACKINGINFO",
    syntax: "",
    summary: "Describes how the connection's reads are tracked.",
    since: "6.2.0",
    complexity: "O(1)",
    group: Group::Connection,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::Loading, Flag::NoScript, Flag::Stale],
    categories: &[],
    run: Run::Session(tracking_info),
    subcommands: &[],
};

fn tracking_info(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    let tracking = session.client.tracking();
    let mut flags = vec![if tracking.is_some() { "on" } else { "off" }];
    if let Some(tracking) = &tracking {
        let caching = session.flags.caching;
        match tracking.mode {
            Mode::Default => {}
            Mode::Broadcast => flags.push("bcast"),
            Mode::OptIn => flags.push("optin"),
            Mode::OptOut => flags.push("optout"),
        }
        match tracking.mode {
            Mode::OptIn if caching => flags.push("caching-yes"),
            Mode::OptOut if caching => flags.push("caching-no"),
            _ => {}
        }
        if tracking.no_loop {
            flags.push("noloop");
        }
        if tracking.broken_redirect.load(Ordering::Relaxed) {
            flags.push("broken_redirect");
        }
    }
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"redirect");
    reply.integer(session.client.redirection());
    reply.bulk(b"prefixes");
    let prefixes = tracking.map(|tracking| tracking.prefixes.clone());
    let prefixes = prefixes.unwrap_or_default();
    reply.array(prefixes.len());
    prefixes.iter().for_each(|prefix| reply.bulk(prefix));
    Ok(())
}
