//! What memory is limited to, what counts, and what the server advises.

use std::{
    thread,
    time::{Duration, Instant},
};

use tests::{
    server::{Options, Server},
    table::check_on,
    wire::{Wire, encode},
};

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

fn info(wire: &mut Wire, section: &str, name: &str) -> Option<String> {
    let text = String::from_utf8(wire.command(&["INFO", section])).expect("INFO is text");
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(|value| value.trim().to_owned())
}

fn figure(wire: &mut Wire, section: &str, name: &str) -> u64 {
    info(wire, section, name)
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("INFO {section} has no number {name}"))
}

/// Asks until the answer is right, or for too long; the last answer.
fn until<T>(mut ask: impl FnMut() -> T, right: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        if right(&answer) || Instant::now() > deadline {
            return answer;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// A client of a cache: reads keys in pipelines, and sets those that are not there.
struct Caller {
    wire: Wire,
    state: u64,
}

impl Caller {
    fn new(server: &Server) -> Caller {
        Caller {
            wire: server.connect(),
            state: 0x1234_5678_9abc_def1,
        }
    }

    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// Popular keys more often, half of the time.
    fn key(&mut self, prefix: &str, keys: u64) -> String {
        let unit = (self.random() >> 11) as f64 / (1u64 << 53) as f64;
        let number = match self.random() % 2 {
            0 => (keys as f64).powf(unit) as u64,
            _ => self.random() % keys,
        };
        format!("{prefix}{number}")
    }

    /// Asks for `count` keys; how many were there.
    fn read(&mut self, prefix: &str, keys: u64, count: usize, value: &str) -> usize {
        let wanted: Vec<String> = (0..count).map(|_| self.key(prefix, keys)).collect();
        let mut request = Vec::new();
        for key in &wanted {
            encode(&["GET", key], &mut request);
        }
        self.wire.send(&request);
        let mut missed = Vec::new();
        for key in &wanted {
            if self.wire.reply().expect("a reply to each GET") == b"$-1\r\n" {
                missed.push(key);
            }
        }
        let mut request = Vec::new();
        for key in &missed {
            encode(&["SET", key, value], &mut request);
        }
        self.wire.send(&request);
        for _ in &missed {
            assert_eq!(self.wire.reply().expect("a reply to each SET"), b"+OK\r\n");
        }
        count - missed.len()
    }
}

#[test]
fn resident_memory_stays_near_the_limit_when_values_change_their_size() {
    const LIMIT: u64 = 24 * MIB;
    let server = Server::ferrite(
        &Options::new()
            .set("maxmemory", &LIMIT.to_string())
            .set("maxmemory-policy", "allkeys-lru"),
    );
    let mut caller = Caller::new(&server);
    let idle = server.resident_bytes();
    for (phase, len) in [100, 1500, 300, 6000, 500].into_iter().enumerate() {
        let keys = 2 * LIMIT / (len as u64 + 60);
        let value = "v".repeat(len);
        let mut written = 0;
        while written < 2 * LIMIT {
            let hits = caller.read(&format!("{phase}:"), keys, 200, &value);
            written += (200 - hits as u64) * (len as u64 + 60);
        }
        // A twentieth, and what buffers and the allocator's bookkeeping take of any size.
        let most = LIMIT + LIMIT / 20 + 8 * MIB;
        let growth = || server.resident_bytes() - idle;
        let growth = until(growth, |growth| *growth <= most);
        let used = figure(&mut caller.wire, "memory", "used_memory");
        assert!(growth <= most, "{len} bytes: {} MiB", growth / MIB);
        assert!(used > LIMIT / 3, "{len} bytes: {} MiB used", used / MIB);
    }
    assert!(figure(&mut caller.wire, "stats", "active_defrag_hits") > 0);
}

#[test]
fn the_limit_can_be_a_share_of_the_machine() {
    let server = Server::ferrite(&Options::new().set("maxmemory", "50%"));
    let mut wire = server.connect();
    let half = figure(&mut wire, "memory", "maxmemory");
    let machine = figure(&mut wire, "memory", "total_system_memory");
    assert_eq!(half, machine / 2);
    check_on(
        &mut wire,
        &[
            (
                "CONFIG GET maxmemory",
                "*2\r\n$9\r\nmaxmemory\r\n$3\r\n50%\r\n",
            ),
            ("CONFIG SET maxmemory 10%", "+OK\r\n"),
            (
                "CONFIG GET maxmemory",
                "*2\r\n$9\r\nmaxmemory\r\n$3\r\n10%\r\n",
            ),
        ],
    );
    let tenth = figure(&mut wire, "memory", "maxmemory");
    assert_eq!(tenth, (u128::from(machine) * 10 / 100) as u64);
    let refused = wire.line("CONFIG SET maxmemory 101%");
    assert!(refused.starts_with("-ERR"), "{refused}");
}

/// Whatever is held counts towards the limit: `hold` makes the server hold `bytes` or more.
fn counts(what: &str, bytes: u64, hold: impl FnOnce(&Server, &mut Wire) -> Vec<Wire>) {
    let server = Server::ferrite(
        &Options::new()
            .set("client-output-buffer-limit", "normal 0 0 0")
            .set("enable-debug-command", "yes"),
    );
    let mut wire = server.connect();
    let before = figure(&mut wire, "memory", "used_memory");
    let held = hold(&server, &mut wire);
    let used = || figure(&mut wire, "memory", "used_memory");
    let used = until(used, |used| *used >= before + bytes);
    assert!(used >= before + bytes, "{what}: {before} to {used}");
    // Eviction goes by the same figure: where nothing may go, writes are refused.
    let limit = (before + bytes / 2).to_string();
    assert_eq!(
        wire.command(&["CONFIG", "SET", "maxmemory", &limit]),
        b"+OK\r\n"
    );
    let refused = wire.line("SET key value");
    assert!(refused.starts_with("-OOM"), "{what}: {refused}");
    drop(held);
}

#[test]
fn all_that_is_held_counts_towards_the_limit() {
    counts("entries", 4 * MIB, |_, wire| {
        for number in 0..4096 {
            wire.command(&["SET", &format!("key{number}"), &"v".repeat(1024)]);
        }
        Vec::new()
    });
    counts("tables", MIB, |_, wire| {
        // Of a small counter 16 bytes at least are the table's and the entry's header.
        wire.line("DEBUG POPULATE 65536 k 1");
        Vec::new()
    });
    counts("unread messages", 8 * MIB, |server, wire| {
        let mut slow = server.connect();
        slow.line("SUBSCRIBE news");
        // Below what a subscriber may be behind, and well above what the sockets' buffers take.
        for _ in 0..28 * 16 {
            wire.command(&["PUBLISH", "news", &"m".repeat(1 << 16)]);
        }
        vec![slow]
    });
    counts("unfinished requests", 8 * MIB, |server, _| {
        let mut slow = server.connect();
        slow.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", 16 * MIB).as_bytes());
        slow.send(&vec![b'v'; 9 * MIB as usize]);
        vec![slow]
    });
    counts("scripts", 2 * MIB, |_, wire| {
        for number in 0..64 {
            let script = format!("return '{}{number}'", "x".repeat(1 << 16));
            wire.command(&["SCRIPT", "LOAD", &script]);
        }
        Vec::new()
    });
    counts("subscriptions", MIB, |server, _| {
        let mut subscriber = server.connect();
        for number in 0..256 {
            subscriber.command(&["SUBSCRIBE", &format!("{}{number}", "c".repeat(4096))]);
        }
        vec![subscriber]
    });
    counts("queued transactions", 4 * MIB, |server, _| {
        let mut client = server.connect();
        client.line("MULTI");
        for _ in 0..80 {
            client.command(&["SET", "k", &"v".repeat(1 << 16)]);
        }
        vec![client]
    });
    counts("the replication backlog", 4 * MIB, |server, wire| {
        wire.line(&format!("CONFIG SET repl-backlog-size {}", 16 * MIB));
        let mut replica = server.connect();
        replica.send(b"PSYNC ? -1\r\n");
        thread::sleep(Duration::from_millis(200));
        for _ in 0..100 {
            wire.command(&["SET", "k", &"v".repeat(1 << 16)]);
        }
        vec![replica]
    });
}

fn ratio(policies: &[(String, Vec<f64>)], name: &str) -> Vec<f64> {
    let found = policies.iter().find(|(policy, _)| policy == name);
    found.unwrap_or_else(|| panic!("no {name}")).1.clone()
}

/// What INFO tells: policies with hit ratios at half, the same and twice the memory.
fn advised(wire: &mut Wire) -> Vec<(String, Vec<f64>)> {
    let text = String::from_utf8(wire.command(&["INFO", "advice"])).expect("INFO is text");
    text.lines()
        .filter_map(|line| line.strip_prefix("advice_allkeys_")?.split_once(':'))
        .map(|(policy, ratios)| {
            let ratios = ratios
                .split(',')
                .map(|ratio| ratio.split_once('=').expect("name=ratio").1)
                .map(|ratio| ratio.trim().parse().expect("a number"))
                .collect();
            (policy.to_owned(), ratios)
        })
        .collect()
}

#[test]
fn advice_is_given_where_there_is_a_limit() {
    let server = Server::ferrite(&Options::new().set("maxmemory-policy", "allkeys-lru"));
    let mut caller = Caller::new(&server);
    let none = "-ERR No advice without 'maxmemory' of 4mb or more and 'maxmemory-advice yes'\r\n";
    check_on(&mut caller.wire, &[("MEMORY ADVICE", none)]);
    assert_eq!(
        info(&mut caller.wire, "advice", "advice_enabled").as_deref(),
        Some("0")
    );
    let limit = figure(&mut caller.wire, "memory", "used_memory") + 8 * MIB;
    caller
        .wire
        .command(&["CONFIG", "SET", "maxmemory", &limit.to_string()]);
    let value = "v".repeat(200);
    for _ in 0..1500 {
        caller.read("key", 100_000, 100, &value);
    }
    // On a machine that is busy otherwise samples are lost, and the later requests count more.
    let told = || {
        for _ in 0..50 {
            caller.read("key", 100_000, 100, &value);
        }
        let requests = figure(&mut caller.wire, "advice", "advice_requests");
        let happened = info(&mut caller.wire, "advice", "advice_hit_ratio");
        let happened: f64 = happened
            .and_then(|ratio| ratio.parse().ok())
            .expect("a ratio");
        (requests, advised(&mut caller.wire), happened)
    };
    // The policy and the memory that there are: what is expected must be what happened.
    let is_near =
        |policies: &[_], happened: f64| (ratio(policies, "lru")[1] - happened).abs() < 0.1;
    let (_, policies, happened) = until(told, |(requests, policies, happened)| {
        *requests > 50_000 && is_near(policies, *happened)
    });
    assert!(is_near(&policies, happened), "{policies:?}, {happened}");
    let names = ["lru", "lfu", "s3fifo", "sieve", "tinylfu"];
    assert_eq!(
        policies.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        names
    );
    for (name, ratios) in &policies {
        assert!(
            ratios.is_sorted() && ratios[0] < ratios[2],
            "{name}: {ratios:?}"
        );
    }
    let reply = caller.wire.command(&["MEMORY", "ADVICE"]);
    assert!(reply.starts_with(b"*10\r\n$10\r\none-key-in\r\n:"));
    check_on(&mut caller.wire, &[("FLUSHALL", "+OK\r\n")]);
    assert_eq!(figure(&mut caller.wire, "advice", "advice_requests"), 0);
    let again = || {
        caller.read("key", 100_000, 100, &value);
        figure(&mut caller.wire, "advice", "advice_requests")
    };
    until(again, |requests| *requests > 0);
    let shown = info(&mut caller.wire, "default", "advice_enabled");
    assert_eq!(shown, None, "it has to be asked for");
    assert!(info(&mut caller.wire, "all", "advice_enabled").is_some());
    check_on(&mut caller.wire, &[("CONFIG RESETSTAT", "+OK\r\n")]);
    assert_eq!(figure(&mut caller.wire, "advice", "advice_requests"), 0);
    check_on(
        &mut caller.wire,
        &[
            ("CONFIG SET maxmemory-advice no", "+OK\r\n"),
            ("MEMORY ADVICE", none),
        ],
    );
}
