//! MEMORY ADVICE: what the hit ratio would be under other policies and with other limits.

use storage::{
    db::Db,
    eviction::{
        Ranking,
        advice::{Report, SCALES},
    },
};

use crate::{
    dispatch::{
        args::Args,
        command::{Arity::*, Command, Flag, Group, Reply, Result, Run},
        error::Error,
    },
    session::Session,
};

pub const ADVICE: Command = Command {
    name: "ADVICE",
    syntax: "",
    summary: "Tells what the hit ratio would be with half, the same and twice the memory, under each policy.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Server,
    arity: Exactly(2),
    keys: &[],
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[],
    run: Run::Server(advice),
    subcommands: &[],
};

/// What the elements of [`SCALES`] are called.
pub const SCALE_NAMES: [&str; SCALES.len()] = ["half", "same", "twice"];

fn advice(session: &mut Session, _db: &mut Db<'_>, _args: &Args<'_>, reply: &mut Reply) -> Result {
    let Some(report) = report(session) else {
        return Err(Error::general(
            "No advice without 'maxmemory' of 4mb or more and 'maxmemory-advice yes'",
        ));
    };
    reply.map(5);
    for (name, value) in [
        ("one-key-in", report.one_in),
        ("sampled-keys", report.keys as u64),
        ("requests", report.requests),
    ] {
        reply.bulk(name.as_bytes());
        reply.integer(value as i64);
    }
    reply.bulk(b"hit-ratio");
    reply.double(report.hit_ratio);
    reply.bulk(b"policies");
    reply.map(report.expected.len());
    for (ranking, ratios) in report.expected {
        reply.bulk(policy_name(ranking).as_bytes());
        reply.map(ratios.len());
        for (name, ratio) in SCALE_NAMES.into_iter().zip(ratios) {
            reply.bulk(name.as_bytes());
            reply.double(ratio);
        }
    }
    Ok(())
}

/// What is known; `None` while nothing is sampled.
pub fn report(session: &Session) -> Option<Report> {
    session.server.keyspace.eviction.advice.report()
}

/// The name of the setting for a ranking of all keys.
pub fn policy_name(ranking: Ranking) -> &'static str {
    match ranking {
        Ranking::Lru => "allkeys-lru",
        Ranking::Lfu => "allkeys-lfu",
        Ranking::Random => "allkeys-random",
        Ranking::Ttl => "volatile-ttl",
        Ranking::S3Fifo => "allkeys-s3fifo",
        Ranking::Sieve => "allkeys-sieve",
        Ranking::TinyLfu => "allkeys-tinylfu",
    }
}
