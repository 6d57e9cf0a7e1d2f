//! CLUSTER, READONLY, READWRITE and ASKING, as a server answers them that is no node of a cluster.

use std::sync::atomic::Ordering;

use crate::{
    dispatch::{
        args::Args,
        command::{
            Arity::{self, *},
            Category, Command, Flag, Group, Reply, Result, Run,
        },
        error::Error,
    },
    session::Session,
};

pub const COMMANDS: &[&Command] = &[&ASKING, &CLUSTER, &READONLY, &READWRITE];

const DISABLED: Error = Error::from_static("ERR This instance has cluster support disabled");

/// The number of slots that keys are divided into.
const SLOTS: u16 = 16_384;

const ASKING: Command = Command {
    name: "ASKING",
    syntax: "",
    summary: "Signals that a cluster client is following an -ASK redirect.",
    since: "3.0.0",
    complexity: "O(1)",
    group: Group::Cluster,
    arity: Exactly(1),
    keys: &[],
    flags: &[Flag::Fast],
    categories: &[Category::Connection],
    run: Run::Session(refuse),
    subcommands: &[],
};

const READONLY: Command = Command {
    name: "READONLY",
    syntax: "",
    summary: "Enables read-only queries for a connection to a replica.",
    since: "3.0.0",
    complexity: "O(1)",
    group: Group::Cluster,
    arity: Exactly(1),
    keys: &[],
    flags: &[Flag::Fast, Flag::Loading, Flag::Stale],
    categories: &[Category::Connection],
    run: Run::Session(readonly),
    subcommands: &[],
};

const READWRITE: Command = Command {
    name: "READWRITE",
    syntax: "",
    summary: "Disables read-only queries for a connection to a replica.",
    since: "3.0.0",
    complexity: "O(1)",
    group: Group::Cluster,
    arity: Exactly(1),
    keys: &[],
    flags: &[Flag::Fast, Flag::Loading, Flag::Stale],
    categories: &[Category::Connection],
    run: Run::Session(readwrite),
    subcommands: &[],
};

/// Outside a cluster every server takes what it takes anyway; CLIENT LIST shows what was said.
fn readonly(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    session.client.readonly.store(true, Ordering::Relaxed);
    reply.ok();
    Ok(())
}

fn readwrite(session: &mut Session, _args: &Args<'_>, reply: &mut Reply) -> Result {
    session.client.readonly.store(false, Ordering::Relaxed);
    reply.ok();
    Ok(())
}

fn refuse(_session: &mut Session, _args: &Args<'_>, _reply: &mut Reply) -> Result {
    Err(DISABLED)
}

const ANSWERS: &[Flag] = &[Flag::Loading, Flag::Stale];
const LOOKS: &[Flag] = &[Flag::Stale];
const ADMIN: &[Flag] = &[Flag::Admin, Flag::Stale];
const CHANGES: &[Flag] = &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading];

const CLUSTER: Command = Command {
    name: "CLUSTER",
    syntax: "",
    summary: "A container for cluster commands.",
    since: "3.0.0",
    complexity: "Depends on subcommand.",
    group: Group::Cluster,
    arity: AtLeast(2),
    keys: &[],
    flags: &[],
    categories: &[],
    run: Run::Container,
    subcommands: &[
        &FLUSHSLOT,
        &KEYSLOT,
        &of_nodes("ADDSLOTS", "3.0.0", AtLeast(3), CHANGES),
        &of_nodes("ADDSLOTSRANGE", "7.0.0", AtLeast(4), CHANGES),
        &of_nodes("BUMPEPOCH", "3.0.0", Exactly(2), CHANGES),
        &of_nodes("CANCELSLOTMIGRATIONS", "9.0.0", Exactly(2), CHANGES),
        &of_nodes("COUNT-FAILURE-REPORTS", "3.0.0", Exactly(3), ADMIN),
        &of_nodes("COUNTKEYSINSLOT", "3.0.0", Exactly(3), LOOKS),
        &of_nodes("DELSLOTS", "3.0.0", AtLeast(3), CHANGES),
        &of_nodes("DELSLOTSRANGE", "7.0.0", AtLeast(4), CHANGES),
        &of_nodes("FAILOVER", "3.0.0", AtLeast(2), CHANGES),
        &of_nodes("FLUSHSLOTS", "3.0.0", Exactly(2), CHANGES),
        &of_nodes("FORGET", "3.0.0", Exactly(3), CHANGES),
        &of_nodes("GETKEYSINSLOT", "3.0.0", Exactly(4), LOOKS),
        &of_nodes("GETSLOTMIGRATIONS", "9.0.0", Exactly(2), CHANGES),
        &of_nodes("HELP", "5.0.0", Exactly(2), ANSWERS),
        &of_nodes("INFO", "3.0.0", Exactly(2), ANSWERS),
        &of_nodes("LINKS", "7.0.0", Exactly(2), LOOKS),
        &of_nodes("MEET", "3.0.0", AtLeast(4), CHANGES),
        &of_nodes("MIGRATESLOTS", "9.0.0", AtLeast(4), CHANGES),
        &of_nodes("MYID", "3.0.0", Exactly(2), ANSWERS),
        &of_nodes("MYSHARDID", "7.2.0", Exactly(2), ANSWERS),
        &of_nodes("NODES", "3.0.0", Exactly(2), ANSWERS),
        &of_nodes("REPLICAS", "5.0.0", Exactly(3), ADMIN),
        &of_nodes("REPLICATE", "3.0.0", AtLeast(3), CHANGES),
        &of_nodes("RESET", "3.0.0", AtLeast(2), RESETS),
        &of_nodes("SAVECONFIG", "3.0.0", Exactly(2), CHANGES),
        &of_nodes("SET-CONFIG-EPOCH", "3.0.0", Exactly(3), CHANGES),
        &of_nodes("SETSLOT", "3.0.0", AtLeast(4), CHANGES),
        &of_nodes("SHARDS", "7.0.0", Exactly(2), ANSWERS),
        &of_nodes("SLAVES", "3.0.0", Exactly(3), ADMIN),
        &of_nodes("SLOT-STATS", "8.0.0", AtLeast(4), ANSWERS),
        &of_nodes("SLOTS", "3.0.0", Exactly(2), ANSWERS),
        &of_nodes("SYNCSLOTS", "9.0.0", AtLeast(3), CHANGES),
    ],
};

const RESETS: &[Flag] = &[Flag::Admin, Flag::NoScript, Flag::Stale];

/// A subcommand that only a node of a cluster serves.
const fn of_nodes(
    name: &'static str,
    since: &'static str,
    arity: Arity,
    flags: &'static [Flag],
) -> Command {
    Command {
        name,
        syntax: "[arg ...]",
        summary: "Served by the nodes of a cluster only.",
        since,
        complexity: "O(1)",
        group: Group::Cluster,
        arity,
        keys: &[],
        flags,
        categories: &[],
        run: Run::Session(refuse),
        subcommands: &[],
    }
}

const FLUSHSLOT: Command = Command {
    name: "FLUSHSLOT",
    syntax: "slot [ASYNC | SYNC]",
    summary: "Served by the nodes of a cluster only.",
    since: "9.1.0",
    complexity: "O(N) where N is the number of keys in the slot",
    group: Group::Cluster,
    arity: AtLeast(3),
    keys: &[],
    flags: &[Flag::Admin, Flag::NoAsyncLoading, Flag::Write],
    categories: &[Category::Keyspace],
    run: Run::Session(refuse),
    subcommands: &[],
};

const KEYSLOT: Command = Command {
    name: "KEYSLOT",
    syntax: "key",
    summary: "Returns the hash slot for a key.",
    since: "3.0.0",
    complexity: "O(N) where N is the number of bytes in the key",
    group: Group::Cluster,
    arity: Exactly(3),
    keys: &[],
    flags: LOOKS,
    categories: &[],
    run: Run::Session(key_slot),
    subcommands: &[],
};

fn key_slot(_session: &mut Session, args: &Args<'_>, reply: &mut Reply) -> Result {
    reply.integer(i64::from(slot(args.word(2))));
    Ok(())
}

/// The slot of a key. Of a key with something between braces only that counts, so that keys can be kept together.
fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let length = rest.iter().position(|&byte| byte == b'}')?;
        (length > 0).then_some(&rest[..length])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// The CRC of XMODEM: polynomial 0x1021, starting from 0.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc: u16, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{crc16, slot};

    #[test]
    fn slots_follow_the_tag_of_a_key() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"a"), 15_495);
        assert_eq!(slot(b"{}a"), 10_875);
        assert_eq!(slot(b"x{foo}{bar}"), slot(b"foo"));
        assert_eq!(slot(b"foo"), 12_182);
    }
}
