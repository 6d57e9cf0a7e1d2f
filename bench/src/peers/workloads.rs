//! What is measured, as data: groups of workloads that share running servers and their contents.
//!
//! Numbers of keys are those of the full scale; the quick one divides them by [`QUICK_DIVISOR`].

use crate::load::mix::ValueSize;
use crate::load::popularity::Popularity;

pub(crate) const QUICK_DIVISOR: u64 = 10;

/// Workloads for which each server is started once, filled once, and then measured in turns.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    /// What the servers hold and how they are run, for the table's heading.
    pub(crate) about: &'static str,
    pub(crate) server_threads: usize,
    pub(crate) client_threads: usize,
    /// Server and client each on cores of their own.
    pub(crate) pinned: bool,
    pub(crate) servers: Servers,
    pub(crate) keys: u64,
    pub(crate) value_size: ValueSize,
    /// Mixes run once over all keys before measuring.
    pub(crate) filled_with: &'static [&'static str],
    pub(crate) workloads: &'static [Workload],
}

/// Which servers take part.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Servers {
    /// All that can, and the floor.
    AllAndFloor,
    /// All that can; a server without data has no place in this.
    All,
    /// Those with Redis's data types.
    WithTypes,
}

#[derive(Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Operations in a closed loop.
    Mix {
        mix: &'static str,
        pipeline: usize,
        connections: usize,
        popularity: Popularity,
    },
    /// Connect, one GET, close.
    Connect {
        in_flight: usize,
    },
    FanOut {
        subscribers: usize,
        window: usize,
    },
    /// Messages to very many subscribers beside a probe.
    FanOutStall {
        subscribers: usize,
    },
    /// Resident bytes per element beyond its payload, in a fresh server.
    Memory {
        mix: &'static str,
        payload: u64,
        elements_per_operation: u64,
    },
    /// Resident bytes per connection that has sent one request and is silent since.
    Idle {
        connections: usize,
    },
    /// Inserts into an empty server beside a probe, then the same load overwriting.
    Growth,
    /// A big operation in a loop beside a probe.
    Stall {
        prepare: Prepare,
        disturb: &'static [&'static str],
    },
    /// A replica without data follows a full primary, beside a probe.
    FullSync,
    /// Operations in a closed loop on a primary that one replica follows.
    OneReplica {
        mix: &'static str,
        pipeline: usize,
    },
    /// From a push to the reply of the client that waits for it.
    WakeUp,
}

/// What the disturbing client needs before each of its rounds.
#[derive(Clone, Copy)]
pub(crate) enum Prepare {
    /// A set of so many members, built anew for every round.
    Set,
    /// A sorted set, built once.
    SortedSet,
    /// Keys, built once.
    Keys,
    /// Keys, built anew for every round.
    KeysEachTime,
}

impl Kind {
    /// Whether a server is started for each measurement instead of once per group.
    pub(crate) fn wants_fresh_server(self) -> bool {
        matches!(
            self,
            Self::Memory { .. }
                | Self::Idle { .. }
                | Self::Growth
                | Self::Stall { .. }
                | Self::FanOutStall { .. }
                | Self::FullSync
                | Self::OneReplica { .. }
        )
    }

    /// Figures that do not vary from round to round are taken once.
    pub(crate) fn once(self) -> bool {
        matches!(self, Self::Memory { .. } | Self::Idle { .. })
    }
}

const fn mix(name: &'static str, mix: &'static str, pipeline: usize) -> Workload {
    Workload {
        name,
        kind: Kind::Mix {
            mix,
            pipeline,
            connections: 50,
            popularity: Popularity::Uniform,
        },
    }
}

const fn memory(
    name: &'static str,
    mix: &'static str,
    payload: u64,
    elements_per_operation: u64,
) -> Workload {
    Workload {
        name,
        kind: Kind::Memory {
            mix,
            payload,
            elements_per_operation,
        },
    }
}

const MILLION: u64 = 1_000_000;

/// Groups with one thread each for server and client, on different cores, unless they say otherwise.
const PLAIN: Group = Group {
    name: "",
    about: "",
    server_threads: 1,
    client_threads: 1,
    pinned: true,
    servers: Servers::AllAndFloor,
    keys: MILLION,
    value_size: ValueSize::fixed(64),
    filled_with: &["set"],
    workloads: &[],
};

/// The whole programme, in the order it is run.
pub(crate) const GROUPS: &[Group] = &[
    Group {
        name: "strings",
        about: "1M keys of 16 B, values of 64 B, 50 connections, one server thread pinned",
        workloads: &[
            mix("mix-p1", "get=9,set=1", 1),
            mix("mix-p16", "get=9,set=1", 16),
            mix("mix-p64", "get=9,set=1", 64),
            mix("set-p16", "set", 16),
            mix("mget-10", "mget:10", 1),
            mix("mget-100", "mget:100", 1),
            Workload {
                name: "connect",
                kind: Kind::Connect { in_flight: 32 },
            },
        ],
        ..PLAIN
    },
    Group {
        name: "ten-million",
        about: "10M keys of 16 B, values of 32 B, pipeline 32: every access misses the processor's caches",
        keys: 10 * MILLION,
        value_size: ValueSize::fixed(32),
        workloads: &[
            mix("get-uniform-p32", "get", 32),
            Workload {
                name: "get-zipf-p32",
                kind: Kind::Mix {
                    mix: "get",
                    pipeline: 32,
                    connections: 50,
                    popularity: Popularity::Zipf(0.99),
                },
            },
            mix("set-uniform-p32", "set", 32),
        ],
        ..PLAIN
    },
    Group {
        name: "large-16k",
        about: "1000 keys, values of 16 KiB",
        keys: 1000,
        value_size: ValueSize::fixed(16 << 10),
        workloads: &[mix("get-16k", "get", 1)],
        ..PLAIN
    },
    Group {
        name: "large-1m",
        about: "100 keys, values of 1 MiB",
        keys: 100,
        value_size: ValueSize::fixed(1 << 20),
        workloads: &[mix("get-1m", "get", 1)],
        ..PLAIN
    },
    Group {
        name: "two-workers",
        about: "1M keys, values of 64 B, two server threads and two client threads, nothing pinned",
        server_threads: 2,
        client_threads: 2,
        pinned: false,
        servers: Servers::All,
        workloads: &[
            mix("mix-p1-2w", "get=9,set=1", 1),
            mix("mix-p16-2w", "get=9,set=1", 16),
        ],
        ..PLAIN
    },
    Group {
        name: "scale-1",
        about: "MGET of 100, which costs the client little: one server thread, nothing pinned; compare with two",
        pinned: false,
        servers: Servers::All,
        workloads: &[mix("scale-1w", "mget:100", 4)],
        ..PLAIN
    },
    Group {
        name: "scale-2",
        about: "the same with two server threads",
        server_threads: 2,
        pinned: false,
        servers: Servers::All,
        workloads: &[mix("scale-2w", "mget:100", 4)],
        ..PLAIN
    },
    Group {
        name: "zset",
        about: "one sorted set of 1M members of 16 B, pipeline 16",
        servers: Servers::WithTypes,
        filled_with: &["zadd"],
        workloads: &[
            mix("zadd", "zadd", 16),
            mix("zincrby", "zincrby", 16),
            mix("zrank", "zrank", 16),
            mix("zscore", "zscore", 16),
            mix("zrevrange", "zrevrange", 16),
            mix("zrange-middle", "zrange-middle", 16),
            mix("zrangebyscore", "zrangebyscore", 16),
        ],
        ..PLAIN
    },
    Group {
        name: "lists",
        about: "LPUSH and RPOP 1:1 of 32 B on one list and on 100k lists, pipeline 16",
        servers: Servers::WithTypes,
        keys: 100_000,
        value_size: ValueSize::fixed(32),
        filled_with: &["lpush-keys"],
        workloads: &[
            mix("list-one", "lpush,rpop", 16),
            mix("list-100k", "lpush-keys,rpop-keys", 16),
        ],
        ..PLAIN
    },
    Group {
        name: "hash-set",
        about: "one hash of 1M fields of 16 B and values of 32 B, one set of 1M members of 16 B, pipeline 16",
        servers: Servers::WithTypes,
        value_size: ValueSize::fixed(32),
        filled_with: &["hset", "sadd"],
        workloads: &[
            mix("hset", "hset", 16),
            mix("hget", "hget", 16),
            mix("sadd", "sadd", 16),
        ],
        ..PLAIN
    },
    Group {
        name: "small-hashes",
        about: "100k hashes of 5 fields of 32 B, pipeline 16",
        servers: Servers::WithTypes,
        keys: 100_000,
        value_size: ValueSize::fixed(32),
        filled_with: &["hset-5"],
        workloads: &[mix("hgetall-5", "hgetall", 16)],
        ..PLAIN
    },
    Group {
        name: "other",
        about: "1M keys of 64 B and 1M counters; pipeline 16, MULTI of 10 SETs one transaction at a time",
        servers: Servers::WithTypes,
        filled_with: &["set", "incr"],
        workloads: &[
            mix("incr", "incr", 16),
            mix("expire", "expire", 16),
            mix("xadd", "xadd", 16),
            mix("pfadd", "pfadd", 16),
            mix("multi-10", "multi:10", 1),
        ],
        ..PLAIN
    },
    Group {
        name: "scripts",
        about: "EVALSHA of one GET and of a sliding window, 1M keys of 64 B, pipeline 16",
        servers: Servers::WithTypes,
        filled_with: &["set", "eval-get", "eval-window"],
        workloads: &[
            mix("evalsha-get", "evalsha-get", 16),
            mix("evalsha-window", "evalsha-window", 16),
        ],
        ..PLAIN
    },
    Group {
        name: "scripts-2",
        about: "the same with two server threads and two client threads, nothing pinned",
        server_threads: 2,
        client_threads: 2,
        pinned: false,
        servers: Servers::WithTypes,
        filled_with: &["set", "eval-get", "eval-window"],
        workloads: &[
            mix("evalsha-get-2w", "evalsha-get", 16),
            mix("evalsha-window-2w", "evalsha-window", 16),
        ],
        ..PLAIN
    },
    Group {
        name: "pubsub",
        about: "one publisher, 100 subscribers, messages of 64 B; an operation is a delivery",
        servers: Servers::WithTypes,
        filled_with: &[],
        workloads: &[
            Workload {
                name: "fan-out-1",
                kind: Kind::FanOut {
                    subscribers: 100,
                    window: 1,
                },
            },
            Workload {
                name: "fan-out-16",
                kind: Kind::FanOut {
                    subscribers: 100,
                    window: 16,
                },
            },
            Workload {
                name: "wake-up",
                kind: Kind::WakeUp,
            },
        ],
        ..PLAIN
    },
    Group {
        name: "memory-values",
        about: "5M keys of 16 B: resident bytes per key beyond key and value",
        servers: Servers::All,
        keys: 5 * MILLION,
        filled_with: &[],
        workloads: &[
            memory("memory-8", "set:8", 16 + 8, 1),
            memory("memory-8-ttl", "setex:8", 16 + 8, 1),
            memory("memory-32", "set:32", 16 + 32, 1),
            memory("memory-100", "set:100", 16 + 100, 1),
        ],
        ..PLAIN
    },
    Group {
        name: "memory-large-values",
        about: "2M keys of 16 B: resident bytes per key beyond key and value",
        servers: Servers::All,
        keys: 2 * MILLION,
        filled_with: &[],
        workloads: &[memory("memory-1000", "set:1000", 16 + 1000, 1)],
        ..PLAIN
    },
    Group {
        name: "memory-structures",
        about: "1M elements: resident bytes per element beyond its payload",
        servers: Servers::WithTypes,
        value_size: ValueSize::fixed(32),
        filled_with: &[],
        workloads: &[
            memory("memory-incr", "incr", 16, 1),
            memory("memory-zset", "zadd", 16 + 8, 1),
            memory("memory-hash", "hset", 16 + 32, 1),
            memory("memory-set", "sadd", 16, 1),
            memory("memory-list", "lpush", 32, 1),
            memory("memory-small-hashes", "hset-5", 16 + 5 * (2 + 32), 1),
        ],
        ..PLAIN
    },
    Group {
        name: "idle",
        about: "10,000 connections after one GET each",
        servers: Servers::All,
        filled_with: &[],
        workloads: &[Workload {
            name: "idle-10k",
            kind: Kind::Idle {
                connections: 10_000,
            },
        }],
        ..PLAIN
    },
    Group {
        name: "growing",
        about: "GET probe each 200 us beside 10M inserts of 32 B into an empty server, then beside as many overwrites",
        servers: Servers::All,
        keys: 10 * MILLION,
        value_size: ValueSize::fixed(32),
        filled_with: &[],
        workloads: &[Workload {
            name: "growth",
            kind: Kind::Growth,
        }],
        ..PLAIN
    },
    Group {
        name: "first-sync",
        about: "5M keys of 16 B, values of 100 B, to an empty replica beside a probe",
        servers: Servers::WithTypes,
        keys: 5 * MILLION,
        value_size: ValueSize::fixed(100),
        workloads: &[Workload {
            name: "full-sync",
            kind: Kind::FullSync,
        }],
        ..PLAIN
    },
    Group {
        name: "one-replica",
        about: "1M keys of 16 B, values of 64 B, a replica where the clients are",
        servers: Servers::WithTypes,
        workloads: &[Workload {
            name: "set-p16-replica",
            kind: Kind::OneReplica {
                mix: "set",
                pipeline: 16,
            },
        }],
        ..PLAIN
    },
    Group {
        name: "stalls",
        about: "GET probe beside a big operation in a loop, all on one worker",
        workloads: STALLS,
        ..STALLING
    },
    Group {
        name: "stalls-2w",
        about: "the same with two workers: the probe connects right after the disturbing client",
        server_threads: 2,
        pinned: false,
        workloads: STALLS_TWO_WORKERS,
        ..STALLING
    },
];

const STALLING: Group = Group {
    servers: Servers::WithTypes,
    filled_with: &[],
    ..PLAIN
};

const fn stall(name: &'static str, prepare: Prepare, disturb: &'static [&'static str]) -> Workload {
    Workload {
        name,
        kind: Kind::Stall { prepare, disturb },
    }
}

const STALLS: &[Workload] = &[
    stall(
        "stall-smembers-del",
        Prepare::Set,
        &["SMEMBERS set", "DEL set"],
    ),
    stall("stall-zrange", Prepare::SortedSet, &["ZRANGE zset 0 -1"]),
    stall("stall-keys", Prepare::Keys, &["KEYS *"]),
    stall("stall-flushall", Prepare::KeysEachTime, &["FLUSHALL"]),
    Workload {
        name: "stall-publish-10k",
        kind: Kind::FanOutStall {
            subscribers: 10_000,
        },
    },
];

const STALLS_TWO_WORKERS: &[Workload] = &[
    stall(
        "stall-smembers-del-2w",
        Prepare::Set,
        &["SMEMBERS set", "DEL set"],
    ),
    stall("stall-zrange-2w", Prepare::SortedSet, &["ZRANGE zset 0 -1"]),
    stall("stall-keys-2w", Prepare::Keys, &["KEYS *"]),
    stall("stall-flushall-2w", Prepare::KeysEachTime, &["FLUSHALL"]),
    Workload {
        name: "stall-publish-10k-2w",
        kind: Kind::FanOutStall {
            subscribers: 10_000,
        },
    },
];

/// Whether `--only` names this workload: by its name, its group's name, or the start of its name before a `*`.
pub(crate) fn selected(only: &[String], group: &Group, workload: &Workload) -> bool {
    only.is_empty()
        || only.iter().any(|wanted| match wanted.strip_suffix('*') {
            Some(start) => workload.name.starts_with(start),
            None => wanted == workload.name || wanted == group.name,
        })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::load::mix::{Mix, Shape, speaks};
    use crate::load::reply::Protocol;

    #[test]
    fn names_are_unique() {
        let mut names = HashSet::new();
        for group in GROUPS {
            assert!(names.insert(group.name), "{}", group.name);
            for workload in group.workloads {
                assert!(names.insert(workload.name), "{}", workload.name);
            }
        }
    }

    #[test]
    fn every_mix_can_be_built_in_every_protocol_that_has_it() {
        for group in GROUPS {
            let used = group
                .workloads
                .iter()
                .filter_map(|workload| match workload.kind {
                    Kind::Mix { mix, .. } | Kind::Memory { mix, .. } => Some(mix),
                    _ => None,
                });
            for mix in used.chain(group.filled_with.iter().copied()) {
                assert!(speaks(mix, Protocol::Resp), "{mix}");
                for protocol in [Protocol::Resp, Protocol::Memcached] {
                    let shape = Shape {
                        protocol,
                        keys: group.keys,
                        key_size: 16,
                        value_size: group.value_size,
                    };
                    assert_eq!(
                        Mix::named(mix, shape).is_ok(),
                        speaks(mix, protocol),
                        "{mix}"
                    );
                }
            }
        }
    }

    #[test]
    fn workloads_are_selected_by_name_group_or_beginning() {
        let group = &GROUPS[0];
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
            group
                .workloads
                .iter()
                .filter(|workload| selected(&only, group, workload))
                .count()
        };
        assert_eq!(names(&[]), group.workloads.len());
        assert_eq!(names(&["strings"]), group.workloads.len());
        assert_eq!(names(&["mix-p1"]), 1);
        assert_eq!(names(&["mix-*", "connect"]), 4);
        assert_eq!(names(&["mix"]), 0);
    }
}
