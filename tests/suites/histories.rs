//! What many clients did and saw at the same time, checked against what one after the other could have done: nothing is
//! lost, invented, seen half done or seen out of order, whichever shards and workers it went over.
//!
//! `FERRITE_SOAK_SECONDS` makes each check run longer than its second or two.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tests::random::Random;
use tests::server::{Options, Server};
use tests::wire::{Wire, parts, show_raw};

const THREADS: u64 = 4;
/// The name's keys fall in many shards.
const ACCOUNTS: usize = 16;
const BALANCE: i64 = 100;

fn seconds() -> Duration {
    let text = std::env::var("FERRITE_SOAK_SECONDS").ok();
    let seconds = text.map_or(2, |text| text.parse().expect("a number of seconds"));
    Duration::from_secs(seconds)
}

/// What one client does, on its own connection and with its own random numbers.
type Work<'a> = &'a (dyn Fn(&mut Wire, &mut Random) + Sync);

/// Runs the work in threads until the time is up; each gets a connection and dice.
fn concurrently(server: &Server, seed: u64, work: &[Work<'_>]) {
    let end = Instant::now() + seconds();
    thread::scope(|scope| {
        for (number, work) in work.iter().enumerate() {
            scope.spawn(move || {
                let mut wire = server.connect();
                let mut random = Random::new(seed ^ (number as u64) << 40);
                while Instant::now() < end {
                    work(&mut wire, &mut random);
                }
            });
        }
    });
}

fn account(random: &mut Random) -> String {
    format!("account:{}", random.below(ACCOUNTS))
}

/// The numbers in an array of bulk strings.
fn numbers(reply: &[u8]) -> Vec<i64> {
    let (_, elements) = parts(reply);
    elements.iter().map(|element| number(element)).collect()
}

fn number(bulk: &[u8]) -> i64 {
    let text = show_raw(bulk);
    let value = text.lines().nth(1);
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("a number: {text}"))
}

fn all_accounts(command: &str) -> Vec<String> {
    let mut words = vec![command.to_owned()];
    words.extend((0..ACCOUNTS).map(|number| format!("account:{number}")));
    words
}

/// Sends MULTI, the commands and EXEC at once; returns EXEC's reply.
fn transaction(wire: &mut Wire, commands: &[Vec<String>]) -> Vec<u8> {
    wire.send_command(&["MULTI"]);
    commands.iter().for_each(|words| wire.send_command(words));
    wire.send_command(&["EXEC"]);
    for _ in 0..=commands.len() {
        let reply = wire.reply().expect("a reply");
        assert!(reply.starts_with(b"+"), "{}", show_raw(&reply));
    }
    wire.reply().expect("EXEC's reply")
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

#[test]
fn transfers_keep_the_sum_of_all_accounts() {
    let server = Server::start(&Options::new());
    let seed = Random::seed_of_this_run();
    let mut first = server.connect();
    for number in 0..ACCOUNTS {
        first.line(&format!("SET account:{number} {BALANCE}"));
    }
    let moved = AtomicU64::new(0);
    let by_transaction = |wire: &mut Wire, random: &mut Random| {
        let (from, to) = (account(random), account(random));
        let amount = random.between(1, 10);
        let commands = [
            words(&format!("DECRBY {from} {amount}")),
            words(&format!("INCRBY {to} {amount}")),
        ];
        transaction(wire, &commands);
        moved.fetch_add(1, Ordering::Relaxed);
    };
    // Takes no more than is there, so that no balance that was watched falls below what others made of it.
    let by_watching = |wire: &mut Wire, random: &mut Random| {
        let (from, to) = (account(random), account(random));
        wire.command(&["WATCH", &from, &to]);
        let balances = numbers(&wire.command(&["MGET", &from, &to]));
        if from == to {
            wire.line("UNWATCH");
            return;
        }
        let commands = [
            words(&format!("SET {from} {}", balances[0] - 1)),
            words(&format!("SET {to} {}", balances[1] + 1)),
        ];
        transaction(wire, &commands);
    };
    let by_script = |wire: &mut Wire, random: &mut Random| {
        let script =
            "redis.call('DECRBY', KEYS[1], ARGV[1]) return redis.call('INCRBY', KEYS[2], ARGV[1])";
        let (from, to) = (account(random), account(random));
        wire.command(&["EVAL", script, "2", &from, &to, "3"]);
    };
    let read_at_once = |wire: &mut Wire, _: &mut Random| {
        let sum: i64 = numbers(&wire.command(&all_accounts("MGET"))).iter().sum();
        assert_eq!(sum, ACCOUNTS as i64 * BALANCE, "seed {seed}");
    };
    let read_by_transaction = |wire: &mut Wire, _: &mut Random| {
        let gets: Vec<Vec<String>> = (0..ACCOUNTS)
            .map(|number| words(&format!("GET account:{number}")))
            .collect();
        let sum: i64 = numbers(&transaction(wire, &gets)).iter().sum();
        assert_eq!(sum, ACCOUNTS as i64 * BALANCE, "seed {seed}");
    };
    concurrently(
        &server,
        seed,
        &[
            &by_transaction,
            &by_transaction,
            &by_watching,
            &by_watching,
            &by_script,
            &read_at_once,
            &read_by_transaction,
        ],
    );
    assert!(moved.load(Ordering::Relaxed) > 0);
    read_at_once(&mut first, &mut Random::new(0));
}

#[test]
fn watched_counters_lose_no_update_and_always_somebody_gets_through() {
    let server = Server::start(&Options::new());
    let end = Instant::now() + seconds();
    let mut first = server.connect();
    first.line("MSET left 0 right 0");
    // Without progress by anybody for so long it is a livelock.
    const STANDSTILL: Duration = Duration::from_secs(10);
    let (added, last) = (AtomicU64::new(0), Mutex::new(Instant::now()));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut wire = server.connect();
                while Instant::now() < end {
                    wire.line("WATCH left right");
                    let seen = numbers(&wire.command(&["MGET", "left", "right"]));
                    assert_eq!(seen[0], seen[1], "both are written together");
                    let next = words(&format!("MSET left {0} right {0}", seen[0] + 1));
                    if transaction(&mut wire, &[next]).starts_with(b"*1") {
                        added.fetch_add(1, Ordering::Relaxed);
                        *last.lock().expect("no panic") = Instant::now();
                    } else {
                        let since = last.lock().expect("no panic").elapsed();
                        assert!(since < STANDSTILL, "nobody gets through");
                    }
                }
            });
        }
    });
    let total = number(&first.command(&["GET", "left"]));
    assert_eq!(total as u64, added.load(Ordering::Relaxed));
    assert!(total > 0);
}

#[test]
fn elements_that_blocked_clients_move_are_neither_lost_nor_doubled() {
    const LISTS: usize = 8;
    const TOKENS: usize = 20;
    let server = Server::start(&Options::new());
    let seed = Random::seed_of_this_run();
    let mut first = server.connect();
    for token in 0..TOKENS {
        first.line(&format!("RPUSH list:{} {token}", token % LISTS));
    }
    let list = |random: &mut Random| format!("list:{}", random.below(LISTS));
    let sides = ["LEFT", "RIGHT"];
    let waiting = |wire: &mut Wire, random: &mut Random| {
        let (from, to) = (list(random), list(random));
        let (take, put) = (random.pick(&sides), random.pick(&sides));
        wire.command(&["BLMOVE", &from, &to, take, put, "0.02"]);
    };
    let at_once = |wire: &mut Wire, random: &mut Random| {
        let (from, to) = (list(random), list(random));
        wire.command(&["RPOPLPUSH", &from, &to]);
    };
    let in_transactions = |wire: &mut Wire, random: &mut Random| {
        let lines: Vec<Vec<String>> = (0..3)
            .map(|_| {
                words(&format!(
                    "LMOVE {} {} LEFT RIGHT",
                    list(random),
                    list(random)
                ))
            })
            .collect();
        transaction(wire, &lines);
    };
    let look = |wire: &mut Wire| {
        let lines: Vec<Vec<String>> = (0..LISTS)
            .map(|number| words(&format!("LRANGE list:{number} 0 -1")))
            .collect();
        let reply = transaction(wire, &lines);
        let mut tokens: Vec<i64> = parts(&reply).1.into_iter().flat_map(numbers).collect();
        tokens.sort_unstable();
        let wanted: Vec<i64> = (0..TOKENS as i64).collect();
        assert_eq!(tokens, wanted, "seed {seed}");
    };
    let checking = |wire: &mut Wire, _: &mut Random| look(wire);
    concurrently(
        &server,
        seed,
        &[
            &waiting,
            &waiting,
            &waiting,
            &waiting,
            &at_once,
            &in_transactions,
            &checking,
        ],
    );
    look(&mut first);
}

/// An operation on the register: when it was asked for, when it was answered, and the value.
#[derive(Clone, Copy)]
struct Operation {
    start: Instant,
    end: Instant,
    value: u64,
}

#[test]
fn a_register_is_read_as_if_one_operation_came_after_the_other() {
    let server = Server::start(&Options::new());
    let end = Instant::now() + seconds().min(Duration::from_secs(5));
    let begun = Instant::now();
    server.connect().line("SET register 0");
    let origin = Operation {
        start: begun,
        end: Instant::now(),
        value: 0,
    };
    let next = AtomicU64::new(1);
    let (writes, reads) = (Mutex::new(vec![origin]), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (writes, reads, next, server) = (&writes, &reads, &next, &server);
            scope.spawn(move || {
                let mut wire = server.connect();
                let mut random = Random::new(thread);
                let (mut written, mut read) = (Vec::new(), Vec::new());
                while Instant::now() < end {
                    let writes = random.chance(40);
                    let value = next.fetch_add(1, Ordering::Relaxed);
                    let start = Instant::now();
                    let value = match writes {
                        true => {
                            wire.command(&["SET", "register", &value.to_string()]);
                            value
                        }
                        false => number(&wire.command(&["GET", "register"])) as u64,
                    };
                    let end = Instant::now();
                    let operation = Operation { start, end, value };
                    if writes { &mut written } else { &mut read }.push(operation);
                }
                writes.lock().expect("no panic").extend(written);
                reads.lock().expect("no panic").extend(read);
            });
        }
    });
    let writes = writes.into_inner().expect("no panic");
    let mut reads = reads.into_inner().expect("no panic");
    check_register(&writes, &mut reads);
}

/// Every value was written before it was read, none was overwritten for certain before it was read, and no read saw an
/// older value than one that had ended before it began.
fn check_register(writes: &[Operation], reads: &mut [Operation]) {
    let by_value: HashMap<u64, Operation> = writes.iter().map(|w| (w.value, *w)).collect();
    // Of the writes that had ended by a time, the one that began last.
    let mut by_end = writes.to_vec();
    by_end.sort_by_key(|write| write.end);
    let mut latest_start = Vec::new();
    for write in &by_end {
        let before: Instant = latest_start.last().copied().unwrap_or(write.start);
        latest_start.push(before.max(write.start));
    }
    reads.sort_by_key(|read| read.start);
    let mut ended: Vec<Operation> = reads.to_vec();
    ended.sort_by_key(|read| read.end);
    let (mut at, mut latest_seen) = (0, None::<Instant>);
    for read in reads.iter() {
        let write = by_value[&read.value];
        assert!(
            write.start < read.end,
            "read {} before it was written",
            read.value
        );
        let over = by_end.partition_point(|other| other.end < read.start);
        if over > 0 {
            assert!(
                latest_start[over - 1] <= write.end,
                "read {} too late",
                read.value
            );
        }
        while at < ended.len() && ended[at].end < read.start {
            let seen = by_value[&ended[at].value].start;
            latest_seen = Some(latest_seen.map_or(seen, |known| known.max(seen)));
            at += 1;
        }
        if let Some(seen) = latest_seen {
            assert!(seen <= write.end, "read {} after a newer value", read.value);
        }
    }
    assert!(writes.len() > 10 && reads.len() > 10);
}

/// Commands over several shards, some of which wait, some of which take all locks. `{}` is a key.
const SOAK: [&str; 52] = [
    "MSET {} a {} b {} c",
    "MGET {} {} {} {}",
    "DEL {} {} {}",
    "RENAME {} {}",
    "RENAMENX {} {}",
    "COPY {} {} REPLACE",
    "COPY {} {} DB 1 REPLACE",
    "MOVE {} 1",
    "SWAPDB 0 1",
    "FLUSHALL",
    "FLUSHDB ASYNC",
    "LPUSH {} a b c",
    "RPUSH {} a",
    "BLPOP {} {} {} 0.01",
    "BRPOP {} {} 0.01",
    "BLMOVE {} {} LEFT RIGHT 0.01",
    "BRPOPLPUSH {} {} 0.01",
    "BLMPOP 0.01 3 {} {} {} LEFT COUNT 2",
    "LMOVE {} {} LEFT LEFT",
    "LMPOP 2 {} {} RIGHT",
    "ZADD {} 1 a 2 b 3 c",
    "BZPOPMIN {} {} 0.01",
    "BZMPOP 0.01 2 {} {} MAX",
    "ZUNIONSTORE {} 3 {} {} {}",
    "ZINTERSTORE {} 2 {} {}",
    "ZRANGESTORE {} {} 0 -1",
    "ZDIFF 2 {} {}",
    "SADD {} a b c 1 2 3",
    "SUNIONSTORE {} {} {} {}",
    "SINTERSTORE {} {} {}",
    "SMOVE {} {} a",
    "SDIFF {} {} {}",
    "SORT {} BY nosort STORE {}",
    "SORT {} ALPHA GET #  STORE {}",
    "SORT {} ALPHA BY *",
    "PFADD {} a b",
    "PFMERGE {} {} {}",
    "BITOP OR {} {} {}",
    "XADD {} * f v",
    "XREAD COUNT 1 BLOCK 10 STREAMS {} {} $ $",
    "XGROUP CREATE {} g $ MKSTREAM",
    "XREADGROUP GROUP g c BLOCK 10 STREAMS {} >",
    "MULTI|LPUSH {} x|RENAME {} {}|BLPOP {} {} 0|EXEC",
    "MULTI|SWAPDB 0 1|SUNIONSTORE {} {} {}|FLUSHDB|EXEC",
    "WATCH {} {}|MULTI|SET {} x|LPUSH {} y|EXEC",
    "EVALX 3 {} {} {}",
    "EXPIRE {} 0",
    "KEYS *",
    "SCAN 0 COUNT 100",
    "DBSIZE",
    "INFO all",
    "CLIENT LIST",
];

const SOAK_SCRIPT: &str = "redis.pcall('LPUSH', KEYS[1], 'x') redis.pcall('RENAME', KEYS[2], KEYS[3]) \
    return redis.pcall('SUNIONSTORE', KEYS[1], KEYS[2], KEYS[3])";
const SOAK_KEYS: usize = 40;

#[test]
fn commands_over_all_shards_never_wait_for_each_other_for_ever() {
    let mut server = Server::start(&Options::new().set("notify-keyspace-events", "KEA"));
    let seed = Random::seed_of_this_run();
    let stop = AtomicBool::new(false);
    let end = Instant::now() + seconds();
    let done = AtomicU64::new(0);
    thread::scope(|scope| {
        let (server, stop, done) = (&server, &stop, &done);
        // Somebody who is told of everything.
        scope.spawn(move || {
            let mut wire = server.connect();
            wire.line("HELLO 3");
            wire.line("CLIENT TRACKING on BCAST");
            wire.line("PSUBSCRIBE *");
            while !stop.load(Ordering::Relaxed) {
                wire.within(Duration::from_millis(50));
            }
        });
        let workers: Vec<_> = (0..2 * THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let mut random = Random::new(seed ^ thread << 40);
                    let mut wire = server.connect();
                    while Instant::now() < end {
                        let line = random.pick(&SOAK);
                        for command in line.split('|') {
                            soak(&mut wire, &mut random, command);
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(outcomes.iter().all(Result::is_ok), "seed {seed}");
    });
    assert!(server.is_running());
    assert_eq!(server.connect().line("PING"), "+PONG\r\n");
    assert!(done.load(Ordering::Relaxed) > 100);
}

/// Sends a command with random keys; what it answers does not matter, but that it does.
fn soak(wire: &mut Wire, random: &mut Random, command: &str) {
    let mut words = Vec::new();
    for word in command.split_whitespace() {
        match word {
            "{}" => words.push(format!("key:{}", random.below(SOAK_KEYS))),
            "EVALX" => words.extend(["EVAL".to_owned(), SOAK_SCRIPT.to_owned()]),
            _ => words.push(word.to_owned()),
        }
    }
    let reply = wire.command(&words);
    let text = show_raw(&reply);
    assert!(!text.contains("internal error"), "{command}: {text}");
}
