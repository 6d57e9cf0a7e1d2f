//! What the connections of a conversation say.

use super::{CONNECTIONS, Step};
use crate::random::Random;

/// Commands that change keys, and with them serve those who wait and tell those who listen.
const CHANGES: [&str; 58] = [
    "SET {k} {v}",
    "SET {k} {v} EX 1000",
    "SET {k} {v} GET",
    "SET {k} {v} NX",
    "SETEX {k} 1000 {v}",
    "MSET {k} {v} {k} {v} {k} {v}",
    "MSETNX {k} {v} {k} {v}",
    "GETSET {k} {v}",
    "GETDEL {k}",
    "GETEX {k} EX 1000",
    "GETEX {k} PERSIST",
    "APPEND {k} x",
    "INCR {n}",
    "INCRBYFLOAT {n} 1.5",
    "DEL {k} {l}",
    "UNLINK {any}",
    "EXPIRE {any} 1000",
    "EXPIRE {any} -1",
    "PERSIST {any}",
    "RENAME {any} {any}",
    "RENAMENX {any} {any}",
    "COPY {any} {any}",
    "COPY {any} {any} REPLACE",
    "COPY {any} {any} DB 1 REPLACE",
    "MOVE {any} 1",
    "LPUSH {l} {v}",
    "RPUSH {l} {v} {v}",
    "RPUSH {l} {v} {v} {v}",
    "LPUSHX {l} {v}",
    "LPOP {l}",
    "RPOP {l} 2",
    "LMOVE {l} {l} LEFT RIGHT",
    "RPOPLPUSH {l} {l}",
    "LMPOP 2 {l} {l} RIGHT COUNT 2",
    "LINSERT {l} BEFORE a {v}",
    "LTRIM {l} 0 1",
    "LREM {l} 0 a",
    "SORT {l} ALPHA STORE {l}",
    "ZADD {z} 1 {v} 2 b",
    "ZADD {z} INCR 1 a",
    "ZPOPMAX {z}",
    "ZREM {z} a",
    "ZUNIONSTORE {z} 2 {z} {z}",
    "ZRANGESTORE {z} {z} 0 -1",
    "SADD {e} {v} b",
    "SMOVE {e} {e} b",
    "SPOP {e} 5",
    "SINTERSTORE {e} {e} {e}",
    "HSET {h} f {v} g {v}",
    "HDEL {h} f",
    "HINCRBY {h} i 1",
    "XADD {s} {number}-1 f {v}",
    "XADD {s} MAXLEN 1 {number}-1 f {v}",
    "XTRIM {s} MAXLEN 0",
    "XGROUP CREATE {s} g 0 MKSTREAM",
    "XGROUP DESTROY {s} g",
    "EVAL \"redis.call('SET', KEYS[1], 'x') redis.call('LPUSH', KEYS[2], 'y', 'z') return redis.call('GET', KEYS[1])\" 2 {k} {l}",
    "EVAL \"redis.call('PUBLISH', 'a1', 'm') redis.call('DEL', KEYS[1]) return 1\" 1 {any}",
];

const READS: [&str; 14] = [
    "GET {k}",
    "GET {any}",
    "MGET {k} {k} {n}",
    "EXISTS {any} {any}",
    "TYPE {any}",
    "STRLEN {k}",
    "LRANGE {l} 0 -1",
    "ZRANGE {z} 0 -1 WITHSCORES",
    "SCARD {e}",
    "HGET {h} f",
    "XLEN {s}",
    "DBSIZE",
    "EVAL \"return redis.call('GET', KEYS[1])\" 1 {k}",
    "EVAL_RO \"return redis.call('LLEN', KEYS[1])\" 1 {l}",
];

const WAITS: [&str; 17] = [
    "BLPOP {l} 0",
    "BLPOP {l} {l} {l} 0",
    "BRPOP {l} {l} 0",
    "BLMOVE {l} {l} LEFT RIGHT 0",
    "BLMOVE {l} {l} RIGHT LEFT 0",
    "BRPOPLPUSH {l} {l} 0",
    "BLMPOP 0 2 {l} {l} LEFT",
    "BLMPOP 0 2 {l} {l} RIGHT COUNT 2",
    "BZPOPMIN {z} {z} 0",
    "BZPOPMAX {z} 0",
    "BZMPOP 0 2 {z} {z} MIN COUNT 2",
    "XREAD BLOCK 0 STREAMS {s} $",
    "XREAD COUNT 1 BLOCK 0 STREAMS {s} {s} $ 0",
    "XREADGROUP GROUP g c BLOCK 0 STREAMS {s} >",
    "BLPOP {k} 0",
    "BLPOP {l} -1",
    "BLMOVE {l} {k} LEFT LEFT 0",
];

const TRANSACTIONS: [&str; 10] = [
    "MULTI",
    "MULTI",
    "EXEC",
    "EXEC",
    "EXEC",
    "DISCARD",
    "WATCH {any} {any}",
    "WATCH {k}",
    "UNWATCH",
    "NOSUCH",
];

const PUBSUB: [&str; 24] = [
    "SUBSCRIBE {c}",
    "SUBSCRIBE {c} {c}",
    "SUBSCRIBE __redis__:invalidate",
    "UNSUBSCRIBE {c}",
    "UNSUBSCRIBE {c} {c}",
    "PSUBSCRIBE a*",
    "PSUBSCRIBE b?",
    "PSUBSCRIBE __keyspace@*",
    "PSUBSCRIBE __keyevent@*",
    "PUNSUBSCRIBE a*",
    "PUNSUBSCRIBE __key*",
    "SSUBSCRIBE {c}",
    "SUNSUBSCRIBE {c}",
    "PUBLISH {c} {v}",
    "PUBLISH {c} {v}",
    "PUBLISH {c} {v}",
    "SPUBLISH {c} {v}",
    "PUBSUB NUMSUB {c} {c}",
    "PUBSUB NUMPAT",
    "PUBSUB SHARDNUMSUB {c}",
    "PING",
    "PING {v}",
    "RESET",
    "QUIT2",
];

const TRACKING: [&str; 21] = [
    "CLIENT TRACKING on",
    "CLIENT TRACKING on",
    "CLIENT TRACKING on NOLOOP",
    "CLIENT TRACKING on BCAST",
    "CLIENT TRACKING on BCAST PREFIX k PREFIX l",
    "CLIENT TRACKING on BCAST PREFIX k NOLOOP",
    "CLIENT TRACKING on BCAST PREFIX k1 PREFIX k",
    "CLIENT TRACKING on OPTIN",
    "CLIENT TRACKING on OPTOUT",
    "CLIENT TRACKING on REDIRECT {id}",
    "CLIENT TRACKING on BCAST REDIRECT {id}",
    "CLIENT TRACKING on REDIRECT 99999999",
    "CLIENT TRACKING off",
    "CLIENT CACHING yes",
    "CLIENT CACHING no",
    "CLIENT TRACKINGINFO",
    "CLIENT GETREDIR",
    "CLIENT REPLY skip",
    "CLIENT REPLY off",
    "CLIENT REPLY on",
    "CLIENT NO-TOUCH on",
];

const DATABASES: [&str; 6] = [
    "SELECT 0",
    "SELECT 0",
    "SELECT 1",
    "SWAPDB 0 1",
    "FLUSHDB",
    "FLUSHALL",
];

const PROTOCOLS: [&str; 3] = ["HELLO 3", "HELLO 3", "HELLO 2"];

/// What the first connection says.
const DIRECTIONS: [&str; 9] = [
    "CLIENT UNBLOCK {id}",
    "CLIENT UNBLOCK {id}",
    "CLIENT UNBLOCK {id} TIMEOUT",
    "CLIENT UNBLOCK {id} ERROR",
    "CONFIG SET notify-keyspace-events KEA",
    "CONFIG SET notify-keyspace-events KEAmn",
    "CONFIG SET notify-keyspace-events Kl$",
    "CONFIG SET notify-keyspace-events Egxz",
    "CONFIG SET notify-keyspace-events \"\"",
];

/// The next step of a conversation. The first ones choose protocols.
pub(super) fn step(random: &mut Random, number: usize) -> Step {
    let connection = random.below(CONNECTIONS);
    if number < CONNECTIONS && random.chance(60) {
        return one(number, fill(random, "HELLO 3", number));
    }
    let director = connection == 0;
    let commands = match random.below(100) {
        0..30 => &CHANGES[..],
        30..40 => &READS,
        _ if director && random.chance(60) => &DIRECTIONS,
        _ if director => &CHANGES,
        40..55 => &WAITS,
        55..70 => &TRANSACTIONS,
        70..82 => &PUBSUB,
        82..94 => &TRACKING,
        94..97 => &DATABASES,
        _ => &PROTOCOLS,
    };
    if !director && random.chance(12) {
        let mixed = [&CHANGES[..], &READS, &TRANSACTIONS, &PUBSUB];
        let lines = (0..random.between(2, 4))
            .map(|_| {
                let commands = mixed[random.below(mixed.len())];
                let line = random.pick(commands);
                fill(random, line, number)
            })
            .collect();
        return Step { connection, lines };
    }
    let line = random.pick(commands);
    one(connection, fill(random, line, number))
}

fn one(connection: usize, line: String) -> Step {
    Step {
        connection,
        lines: vec![line],
    }
}

/// Puts random words for the names in braces.
fn fill(random: &mut Random, line: &str, number: usize) -> String {
    let mut filled = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, behind) = after.split_once('}').expect("braces are closed");
        filled.push_str(before);
        filled.push_str(&word(random, name, number));
        rest = behind;
    }
    filled + rest
}

fn word(random: &mut Random, name: &str, number: usize) -> String {
    let kinds = ["k", "k", "n", "l", "l", "z", "e", "h", "s"];
    match name {
        "any" => {
            let kind = random.pick(&kinds);
            word(random, kind, number)
        }
        "v" => random.pick(&["a", "b", "c", "1", "2"]).to_owned(),
        "c" => random.pick(&["a1", "a2", "b1", "c1"]).to_owned(),
        "id" => format!("{{id:{}}}", random.below(CONNECTIONS)),
        "number" => (number + 1).to_string(),
        "n" => "n1".to_owned(),
        "k" | "l" => format!("{name}{}", random.between(1, 3)),
        _ => format!("{name}{}", random.between(1, 2)),
    }
}
