//! Publish and subscribe: messages to whoever listens now, kept for nobody.

use super::help::help;
use crate::{
    dispatch::{
        args::Args,
        command::{Arity::*, Command, Flag, Group, Reply, Result, Run},
        error::Error,
    },
    pubsub::Kind,
    session::Session,
};

pub const COMMANDS: &[&Command] = &[
    &PSUBSCRIBE,
    &PUBLISH,
    &PUBSUB,
    &PUNSUBSCRIBE,
    &SPUBLISH,
    &SSUBSCRIBE,
    &SUBSCRIBE,
    &SUNSUBSCRIBE,
    &UNSUBSCRIBE,
];

const SUBSCRIBE: Command = Command {
    name: "SUBSCRIBE",
    syntax: "channel [channel ...]",
    summary: "Listens to channels.",
    since: "2.0.0",
    complexity: "O(N) where N is the number of channels to subscribe to",
    group: Group::PubSub,
    arity: AtLeast(2),
    keys: &[],
    flags: &[Flag::PubSub, Flag::NoScript, Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(subscribe),
    subcommands: &[],
};

fn subscribe(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    begin(session, args, reply, Kind::Channel, b"subscribe")
}

const PSUBSCRIBE: Command = Command {
    name: "PSUBSCRIBE",
    syntax: "pattern [pattern ...]",
    summary: "Listens to the channels that match patterns.",
    since: "2.0.0",
    complexity: "O(N) where N is the number of patterns to subscribe to",
    group: Group::PubSub,
    arity: AtLeast(2),
    keys: &[],
    flags: &[Flag::PubSub, Flag::NoScript, Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(psubscribe),
    subcommands: &[],
};

fn psubscribe(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    begin(session, args, reply, Kind::Pattern, b"psubscribe")
}

const SSUBSCRIBE: Command = Command {
    name: "SSUBSCRIBE",
    syntax: "shardchannel [shardchannel ...]",
    summary: "Listens to shard channels.",
    since: "7.0.0",
    complexity: "O(N) where N is the number of shard channels to subscribe to",
    group: Group::PubSub,
    arity: AtLeast(2),
    keys: &[],
    flags: &[
        Flag::NotKey,
        Flag::PubSub,
        Flag::NoScript,
        Flag::Loading,
        Flag::Stale,
    ],
    categories: &[],
    run: Run::Session(ssubscribe),
    subcommands: &[],
};

fn ssubscribe(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    if session.flags.in_exec {
        return Err(Error::general(
            "SSUBSCRIBE isn't allowed for a DENY BLOCKING client",
        ));
    }
    begin(session, args, reply, Kind::ShardChannel, b"ssubscribe")
}

/// Subscribes to every name and confirms each with the number of subscriptions there are then.
fn begin(
    session: &mut Session,
    args: &Args<'_>,
    reply: &mut Reply,
    kind: Kind,
    confirmation: &[u8],
) -> Result {
    for name in args.from(1) {
        session.subscribe(kind, name);
        confirm(session, reply, kind, confirmation, Some(name));
    }
    Ok(())
}

fn confirm(
    session: &mut Session,
    reply: &mut Reply,
    kind: Kind,
    confirmation: &[u8],
    name: Option<&[u8]>,
) {
    reply.push(3);
    reply.bulk(confirmation);
    match name {
        Some(name) => reply.bulk(name),
        None => reply.null(),
    }
    reply.integer(session.subscription_count(kind) as i64);
}

const UNSUBSCRIBE: Command = Command {
    name: "UNSUBSCRIBE",
    syntax: "[channel [channel ...]]",
    summary: "Ends listening to channels, to all when none is named.",
    since: "2.0.0",
    complexity: "O(N) where N is the number of channels to unsubscribe",
    group: Group::PubSub,
    arity: AtLeast(1),
    keys: &[],
    flags: &[Flag::PubSub, Flag::NoScript, Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(unsubscribe),
    subcommands: &[],
};

fn unsubscribe(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    end(session, args, reply, Kind::Channel, b"unsubscribe")
}

const PUNSUBSCRIBE: Command = Command {
    name: "PUNSUBSCRIBE",
    syntax: "[pattern [pattern ...]]",
    summary: "Ends listening to patterns, to all when none is named.",
    since: "2.0.0",
    complexity: "O(N) where N is the number of patterns to unsubscribe",
    group: Group::PubSub,
    arity: AtLeast(1),
    keys: &[],
    flags: &[Flag::PubSub, Flag::NoScript, Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(punsubscribe),
    subcommands: &[],
};

fn punsubscribe(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    end(session, args, reply, Kind::Pattern, b"punsubscribe")
}

const SUNSUBSCRIBE: Command = Command {
    name: "SUNSUBSCRIBE",
    syntax: "[shardchannel [shardchannel ...]]",
    summary: "Ends listening to shard channels, to all when none is named.",
    since: "7.0.0",
    complexity: "O(N) where N is the number of shard channels to unsubscribe",
    group: Group::PubSub,
    arity: AtLeast(1),
    keys: &[],
    flags: &[
        Flag::NotKey,
        Flag::PubSub,
        Flag::NoScript,
        Flag::Loading,
        Flag::Stale,
    ],
    categories: &[],
    run: Run::Session(sunsubscribe),
    subcommands: &[],
};

fn sunsubscribe(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    end(session, args, reply, Kind::ShardChannel, b"sunsubscribe")
}

/// Ends subscriptions, after the messages that came before that.
fn end(
    session: &mut Session,
    args: &Args<'_>,
    reply: &mut Reply,
    kind: Kind,
    confirmation: &[u8],
) -> Result {
    let names = if args.len() == 1 {
        session.subscribed_to(kind)
    } else {
        args.from(1).map(Box::from).collect()
    };
    if names.is_empty() {
        confirm(session, reply, kind, confirmation, None);
    }
    for name in names {
        session.unsubscribe(kind, &name);
        if !session.flags.in_exec && !session.flags.replies_off {
            reply.later = session.client.collect_mail(&mut reply.writer);
        }
        confirm(session, reply, kind, confirmation, Some(&name));
    }
    Ok(())
}

const PUBLISH: Command = Command {
    name: "PUBLISH",
    syntax: "channel message",
    summary: "Sends a message to all who listen to the channel.",
    since: "2.0.0",
    complexity: "O(N+M) where N is the number of clients subscribed to the receiving channel and M is the total number of subscribed patterns (by any client)",
    group: Group::PubSub,
    arity: Exactly(3),
    keys: &[],
    flags: &[
        Flag::PubSub,
        Flag::Loading,
        Flag::Stale,
        Flag::Fast,
        Flag::MayReplicate,
    ],
    categories: &[],
    run: Run::Session(publish),
    subcommands: &[],
};

fn publish(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let receivers = session.server.pubsub.publish(args.word(1), args.word(2));
    pass_on(session, args);
    reply.integer(receivers as i64);
    Ok(())
}

/// Replicas have subscribers, too.
fn pass_on(session: &Session, args: &Args<'_>) {
    let replication = &session.server.replication;
    if replication.is_active() && !session.flags.hides_from_replicas {
        let words: Vec<&[u8]> = args.from(0).collect();
        replication.append_plain(&words);
    }
}

const SPUBLISH: Command = Command {
    name: "SPUBLISH",
    syntax: "shardchannel message",
    summary: "Sends a message to all who listen to the shard channel.",
    since: "7.0.0",
    complexity: "O(N) where N is the number of clients subscribed to the receiving shard channel",
    group: Group::PubSub,
    arity: Exactly(3),
    keys: &[],
    flags: &[
        Flag::NotKey,
        Flag::PubSub,
        Flag::Loading,
        Flag::Stale,
        Flag::Fast,
        Flag::MayReplicate,
    ],
    categories: &[],
    run: Run::Session(spublish),
    subcommands: &[],
};

fn spublish(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    let pubsub = &session.server.pubsub;
    let receivers = pubsub.publish_to_shard(args.word(1), args.word(2));
    pass_on(session, args);
    reply.integer(receivers as i64);
    Ok(())
}

const PUBSUB: Command = Command {
    name: "PUBSUB",
    syntax: "",
    summary: "Tells who listens to what.",
    since: "2.8.0",
    complexity: "Depends on subcommand.",
    group: Group::PubSub,
    arity: AtLeast(2),
    keys: &[],
    flags: &[],
    categories: &[],
    run: Run::Container,
    subcommands: &[
        &CHANNELS,
        &HELP,
        &NUMPAT,
        &NUMSUB,
        &SHARDCHANNELS,
        &SHARDNUMSUB,
    ],
};

const HELP: Command = super::help::subcommand("6.2.0", Group::PubSub, &[], help);

const CHANNELS: Command = Command {
    name: "CHANNELS",
    syntax: "[pattern]",
    summary: "Returns the channels that somebody listens to.",
    since: "2.8.0",
    complexity: "O(N) where N is the number of active channels",
    group: Group::PubSub,
    arity: AtLeast(2),
    keys: &[],
    flags: &[Flag::PubSub, Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(channels),
    subcommands: &[],
};

fn channels(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    names(session, args, reply, Kind::Channel)
}

const SHARDCHANNELS: Command = Command {
    name: "SHARDCHANNELS",
    syntax: "[pattern]",
    summary: "Returns the shard channels that somebody listens to.",
    since: "7.0.0",
    complexity: "O(N) where N is the number of active shard channels",
    group: Group::PubSub,
    arity: AtLeast(2),
    keys: &[],
    flags: &[Flag::PubSub, Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(shard_channels),
    subcommands: &[],
};

fn shard_channels(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    names(session, args, reply, Kind::ShardChannel)
}

fn names(session: &Session, args: &Args<'_>, reply: &mut Reply, kind: Kind) -> Result {
    if args.len() > 3 {
        return Err(Error::subcommand_syntax("PUBSUB", args.word(1)));
    }
    let names = session.server.pubsub.of(kind).names(args.get(2));
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name));
    Ok(())
}

const NUMSUB: Command = Command {
    name: "NUMSUB",
    syntax: "[channel [channel ...]]",
    summary: "Returns how many clients listen to channels.",
    since: "2.8.0",
    complexity: "O(N) where N is the number of requested channels",
    group: Group::PubSub,
    arity: AtLeast(2),
    keys: &[],
    flags: &[Flag::PubSub, Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(numsub),
    subcommands: &[],
};

fn numsub(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    counts(session, args, reply, Kind::Channel)
}

const SHARDNUMSUB: Command = Command {
    name: "SHARDNUMSUB",
    syntax: "[shardchannel [shardchannel ...]]",
    summary: "Returns how many clients listen to shard channels.",
    since: "7.0.0",
    complexity: "O(N) where N is the number of requested shard channels",
    group: Group::PubSub,
    arity: AtLeast(2),
    keys: &[],
    flags: &[Flag::PubSub, Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(shard_numsub),
    subcommands: &[],
};

fn shard_numsub(session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    counts(session, args, reply, Kind::ShardChannel)
}

fn counts(session: &Session, args: &Args<'_>, reply: &mut Reply, kind: Kind) -> Result {
    reply.array(2 * (args.len() - 2));
    for name in args.from(2) {
        reply.bulk(name);
        reply.integer(session.server.pubsub.of(kind).count(name) as i64);
    }
    Ok(())
}

const NUMPAT: Command = Command {
    name: "NUMPAT",
    syntax: "",
    summary: "Returns how many patterns somebody listens to.",
    since: "2.8.0",
    complexity: "O(1)",
    group: Group::PubSub,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::PubSub, Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Session(numpat),
    subcommands: &[],
};

fn numpat(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    reply.integer(session.server.pubsub.patterns.len() as i64);
    Ok(())
}
