//! The memory limit and what goes when it is reached, under each policy.

use tests::{
    server::{Options, Server},
    table::{check_on, memcached},
    wire::{Wire, encode},
};

const OOM: &str = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
const MIB: u64 = 1 << 20;
const VALUE_BYTES: usize = 1000;

fn start(policy: &str) -> Server {
    Server::start(&Options::new().set("maxmemory-policy", policy))
}

fn figure(wire: &mut Wire, section: &str, name: &str) -> u64 {
    let text = String::from_utf8(wire.command(&["INFO", section])).expect("INFO is text");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|value| value.trim().parse().ok())
        .unwrap_or_else(|| panic!("INFO {section} has no number {name}"))
}

/// Sets the limit so many bytes above what is used now; returns it.
fn limit(wire: &mut Wire, room: u64) -> u64 {
    let limit = figure(wire, "memory", "used_memory") + room;
    let reply = wire.command(&["CONFIG", "SET", "maxmemory", &limit.to_string()]);
    assert_eq!(reply, b"+OK\r\n");
    limit
}

/// Sets `keys` keys from a number on, in pipelines; returns how many were refused.
fn fill(wire: &mut Wire, prefix: &str, keys: std::ops::Range<usize>, ttl: Option<&str>) -> usize {
    let value = "v".repeat(VALUE_BYTES);
    let numbers: Vec<usize> = keys.collect();
    let mut refused = 0;
    for numbers in numbers.chunks(50) {
        let mut request = Vec::new();
        for number in numbers {
            let key = format!("{prefix}{number}");
            let mut words = vec!["SET", &key, &value];
            if let Some(ttl) = ttl {
                words.extend(["EX", ttl]);
            }
            encode(&words, &mut request);
        }
        wire.send(&request);
        for _ in numbers {
            let reply = wire.reply().expect("a reply to each SET");
            refused += usize::from(reply.starts_with(b"-OOM"));
        }
    }
    refused
}

fn alive(wire: &mut Wire, prefix: &str, keys: usize) -> usize {
    (0..keys)
        .filter(|number| wire.command(&["EXISTS", &format!("{prefix}{number}")]) == b":1\r\n")
        .count()
}

#[test]
fn every_policy_keeps_the_limit() {
    for policy in [
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
        "allkeys-s3fifo",
        "allkeys-sieve",
        "allkeys-tinylfu",
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
        "volatile-s3fifo",
        "volatile-sieve",
        "volatile-tinylfu",
    ] {
        let server = start(policy);
        let mut wire = server.connect();
        let limit = limit(&mut wire, 4 * MIB);
        assert_eq!(
            fill(&mut wire, "k", 0..12_000, Some("10000")),
            0,
            "{policy}"
        );
        let used = figure(&mut wire, "memory", "used_memory");
        assert!(used <= limit + limit / 20, "{policy}: {used} of {limit}");
        let evicted = figure(&mut wire, "stats", "evicted_keys");
        assert!(evicted >= 7000, "{policy} evicted {evicted}");
        assert!(figure(&mut wire, "memory", "used_memory") > limit / 2);
    }
}

#[test]
fn what_is_used_survives() {
    for policy in [
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-s3fifo",
        "allkeys-sieve",
        "allkeys-tinylfu",
    ] {
        let server = start(policy);
        let mut wire = server.connect();
        check_on(&mut wire, &[("CONFIG SET maxmemory-samples 10", "+OK\r\n")]);
        limit(&mut wire, 4 * MIB);
        fill(&mut wire, "hot", 0..100, None);
        // Recency is kept by the second.
        let rounds = if policy == "allkeys-lru" { 4 } else { 20 };
        for round in 0..rounds {
            for number in 0..100 {
                wire.command(&["GET", &format!("hot{number}")]);
            }
            let step = 12_000 / rounds;
            fill(&mut wire, "cold", round * step..(round + 1) * step, None);
            if policy == "allkeys-lru" {
                std::thread::sleep(std::time::Duration::from_millis(1050));
            }
        }
        let alive = alive(&mut wire, "hot", 100);
        assert!(alive >= 80, "{policy} kept {alive} of 100");
    }
}

#[test]
fn noeviction_refuses_what_needs_memory_and_nothing_else() {
    let server = start("noeviction");
    let mut wire = server.connect();
    check_on(
        &mut wire,
        &[
            ("SET k v", "+OK\r\n"),
            ("LPUSH l a", ":1\r\n"),
            ("CONFIG SET maxmemory 1", "+OK\r\n"),
            ("SET k w", OOM),
            ("APPEND k w", OOM),
            ("GET k", "$1\r\nv\r\n"),
            ("DEL k", ":1\r\n"),
            ("MULTI", "+OK\r\n"),
            ("GET k", OOM),
            (
                "EXEC",
                "-EXECABORT Transaction discarded because of previous errors.\r\n",
            ),
            ("CONFIG SET maxmemory 0", "+OK\r\n"),
            ("MULTI", "+OK\r\n"),
            ("SET k w", "+QUEUED\r\n"),
        ],
    );
    let mut other = server.connect();
    check_on(&mut other, &[("CONFIG SET maxmemory 1", "+OK\r\n")]);
    let expected = format!("-EXECABORT Transaction discarded because of: {}", &OOM[1..]);
    check_on(
        &mut wire,
        &[
            ("EXEC", &expected),
            ("MULTI", "+OK\r\n"),
            ("DISCARD", "+OK\r\n"),
            ("CONFIG SET maxmemory 0", "+OK\r\n"),
            ("SET k w", "+OK\r\n"),
        ],
    );
}

#[test]
fn volatile_policies_evict_nothing_else() {
    for policy in [
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
    ] {
        let server = start(policy);
        let mut wire = server.connect();
        limit(&mut wire, 2 * MIB);
        assert!(fill(&mut wire, "k", 0..4000, None) > 1000, "{policy}");
        check_on(&mut wire, &[("SET x y", OOM)]);
        assert_eq!(figure(&mut wire, "stats", "evicted_keys"), 0, "{policy}");
    }
}

#[test]
fn big_values_do_not_evict_more_than_they_need() {
    let server = start("allkeys-random");
    let mut wire = server.connect();
    let members: Vec<String> = (0..1000)
        .map(|n| format!("a-member-of-a-set-{n}"))
        .collect();
    limit(&mut wire, 8 * MIB);
    for set in 0..400 {
        let key = format!("set{set}");
        let mut words = vec!["SADD", &key];
        words.extend(members.iter().map(String::as_str));
        wire.command(&words);
    }
    let used = figure(&mut wire, "memory", "used_memory");
    let limit = figure(&mut wire, "memory", "maxmemory");
    assert!(
        used <= limit + limit / 20 && used > limit * 3 / 4,
        "{used} of {limit}"
    );
}

#[test]
fn access_is_told_as_the_policy_keeps_it() {
    let server = start("allkeys-lfu");
    let mut wire = server.connect();
    check_on(
        &mut wire,
        &[
            ("SET k v", "+OK\r\n"),
            ("OBJECT FREQ k", ":5\r\n"),
            ("GET k", "$1\r\nv\r\n"),
            ("OBJECT FREQ k", ":6\r\n"),
            (
                "OBJECT IDLETIME k",
                "-ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching \
                 between policies at runtime LRU and LFU data will take some time to adjust.\r\n",
            ),
            ("CONFIG SET maxmemory-policy allkeys-lru", "+OK\r\n"),
            ("SET n v", "+OK\r\n"),
            ("OBJECT IDLETIME n", ":0\r\n"),
            (
                "OBJECT FREQ n",
                "-ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
                 switching between policies at runtime LRU and LFU data will take some time to adjust.\r\n",
            ),
        ],
    );
}

#[test]
fn memcached_evicts_or_says_that_memory_is_out() {
    let server = start("noeviction");
    let mut resp = server.connect();
    let mut wire = server.connect_memcached();
    assert_eq!(memcached(&mut wire, b"set k 0 0 1\r\nv\r\n"), b"STORED\r\n");
    check_on(&mut resp, &[("CONFIG SET maxmemory 1", "+OK\r\n")]);
    let refused = b"SERVER_ERROR out of memory storing object\r\n";
    assert_eq!(memcached(&mut wire, b"add x 0 0 1\r\nw\r\n"), refused);
    assert_eq!(
        memcached(&mut wire, b"get k\r\n"),
        b"VALUE k 0 1\r\nv\r\nEND\r\n"
    );
    assert_eq!(memcached(&mut wire, b"set k 0 0 1\r\nw\r\n"), refused);
    assert_eq!(memcached(&mut wire, b"get k\r\n"), b"END\r\n");
    assert_eq!(memcached(&mut wire, b"ms k 1\r\nw\r\n"), refused);
    assert_eq!(memcached(&mut wire, b"cache_memlimit 64\r\n"), b"OK\r\n");
    assert_eq!(memcached(&mut wire, b"set k 0 0 1\r\nw\r\n"), b"STORED\r\n");
    check_on(
        &mut resp,
        &[
            (
                "CONFIG GET maxmemory",
                "*2\r\n$9\r\nmaxmemory\r\n$8\r\n67108864\r\n",
            ),
            ("CONFIG SET maxmemory-policy allkeys-lru", "+OK\r\n"),
        ],
    );
    limit(&mut resp, MIB);
    let value = "v".repeat(VALUE_BYTES);
    for number in 0..3000 {
        let request = format!("set k{number} 0 0 {VALUE_BYTES}\r\n{value}\r\n");
        assert_eq!(memcached(&mut wire, request.as_bytes()), b"STORED\r\n");
    }
    assert!(figure(&mut resp, "stats", "evicted_keys") > 1000);
}

#[test]
fn scripts_are_refused_before_their_first_write() {
    let server = start("noeviction");
    let mut wire = server.connect();
    check_on(
        &mut wire,
        &[
            ("CONFIG SET maxmemory 1", "+OK\r\n"),
            ("EVAL \"return redis.pcall('set', 'a', 'b')\" 1 a", OOM),
            (
                "EVAL \"redis.call('del', 'a') return redis.call('set', 'a', 'b')\" 1 a",
                "+OK\r\n",
            ),
            ("EVAL \"return redis.call('get', 'a')\" 1 a", "$1\r\nb\r\n"),
            ("EVAL \"#!lua\\nreturn 1\" 0", OOM),
            ("EVAL \"#!lua flags=no-writes\\nreturn 1\" 0", ":1\r\n"),
            (
                "EVAL \"#!lua flags=allow-oom\\nreturn redis.call('set', 'a', 'c')\" 1 a",
                "+OK\r\n",
            ),
        ],
    );
}

/// Tables that have grown for keys which are gone make room too.
#[test]
fn a_limit_just_above_what_is_used_refuses_no_write() {
    for policy in ["allkeys-lru", "allkeys-lfu", "volatile-ttl"] {
        let server = start(policy);
        let mut wire = server.connect();
        limit(&mut wire, 100 * 1024);
        for number in 0..3000 {
            let reply = wire.line(&format!("SET k{number} v EX 1000"));
            assert_eq!(reply, "+OK\r\n", "{policy}, write {number}");
        }
    }
}
