//! Random load of every kind of command while links are cut, stalled and resumed, replicas restart and primaries die;
//! then everybody must have the same data.
//!
//! `FERRITE_CHAOS_SECONDS` makes each run longer than the few seconds it takes otherwise; a printed seed in
//! `FERRITE_SEED` repeats the commands, though not the moments.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tests::{
    ending::Ending,
    grammar::{GRAMMARS, Generator, Grammar, Protocol},
    proxy::Proxy,
    random::Random,
    server::{Options, Program, Server, missing},
    wire::{Wire, encode, parts, show, show_command},
};

use super::{ask, eventually, field, follow, is_up, options, start};

/// Commands sent before their replies are read.
const PIPELINE: usize = 20;
const WRITERS: u64 = 2;
/// How long servers may take to agree once they are left in peace.
const PATIENCE: Duration = Duration::from_secs(60);

fn duration() -> Duration {
    let seconds = std::env::var("FERRITE_CHAOS_SECONDS").ok();
    Duration::from_secs(seconds.map_or(4, |text| {
        text.parse().expect("FERRITE_CHAOS_SECONDS is a number")
    }))
}

/// Commands that wait for others, which a pipeline has no time for.
const BLOCKING: &[&str] = &[
    "BLPOP",
    "BRPOP",
    "BLMOVE",
    "BLMPOP",
    "BRPOPLPUSH",
    "BZPOPMIN",
    "BZPOPMAX",
    "BZMPOP",
    "XREAD",
    "XREADGROUP",
    "PFDEBUG",
];

/// What the writers' commands come from.
struct Load {
    random: Random,
    generator: Generator,
    grammars: Vec<&'static Grammar>,
    /// Whether only commands of Redis and Valkey alike may come.
    common: bool,
}

impl Load {
    fn new(seed: u64, common: bool) -> Load {
        let grammars = GRAMMARS
            .iter()
            // Random scripts choose themselves who is told of what they do.
            .filter(|grammar| grammar.protocol == Protocol::Resp && grammar.name != "script")
            .collect();
        Load {
            random: Random::new(seed),
            generator: Generator::new(Random::new(seed ^ 0x10ad)),
            grammars,
            common,
        }
    }

    /// The next command, or several that belong together.
    fn next(&mut self) -> Vec<Vec<Vec<u8>>> {
        match self.random.below(10) {
            0..3 => vec![self.chancy()],
            3 => {
                let count = self.random.below(4) + 1;
                let mut all = vec![words("MULTI")];
                for _ in 0..count {
                    let one = match self.random.chance(50) {
                        true => self.chancy(),
                        false => self.any_grammar(),
                    };
                    all.push(one);
                }
                let end = match self.random.chance(90) {
                    true => "EXEC",
                    false => "DISCARD",
                };
                all.push(words(end));
                all
            }
            _ => vec![self.any_grammar()],
        }
    }

    fn any_grammar(&mut self) -> Vec<Vec<u8>> {
        loop {
            let grammar = self.grammars[self.random.below(self.grammars.len())];
            let step = self.generator.step(grammar);
            let name = step.args[0].to_ascii_uppercase();
            let is_blocking = BLOCKING.iter().any(|blocking| blocking.as_bytes() == name);
            // Rare anyway, and each makes the others' work vain.
            let flushes = name.starts_with(b"FLUSH") && !self.random.chance(10);
            let news = [
                &b"IFEQ"[..],
                b"DELIFEQ",
                b"MSETEX",
                b"HSETEX",
                b"HGETEX",
                b"BYPOLYGON",
            ];
            let is_new = |word: &Vec<u8>| news.contains(&&*word.to_ascii_uppercase());
            // Redis refuses what Valkey's DUMP made, and the two take other texts for numbers when they sort.
            let differs = name.starts_with(b"RESTORE") || name == b"SORT";
            // HyperLogLogs of Redis have other bytes.
            let differs = differs || name.starts_with(b"PF");
            let foreign = self.common && (differs || step.args.iter().any(is_new));
            // Valkey takes a key of such a name for the option, and leaves it out of what it tells its replicas.
            let is_option = |word: &[u8]| {
                let options = [&b"NX"[..], b"XX", b"FNX", b"FXX"];
                options.contains(&&*word.to_ascii_uppercase())
            };
            let misread = name == b"HSETEX" && step.args.get(1).is_some_and(|key| is_option(key));
            // Valkey and Redis make the string longer, do nothing with it, and tell their replicas nothing.
            let fails = |word: &Vec<u8>| word.eq_ignore_ascii_case(b"FAIL");
            let untold = name == b"BITFIELD" && step.args.iter().any(fails);
            if !is_blocking && !flushes && !foreign && !misread && !untold {
                return step.args;
            }
        }
    }

    /// Commands whose outcome is a matter of chance or time, and those about more than a key.
    fn chancy(&mut self) -> Vec<Vec<u8>> {
        let random = &mut self.random;
        let mut key = || format!("k{}", random.below(8));
        let (key, other) = (key(), key());
        let number = random.between(1, 200);
        let line = match random.below(24) {
            0 => format!("SPOP {key} {number}"),
            1 => format!("SPOP {key}"),
            2 => format!("SADD {key} 1 2 3 a b c d e"),
            3 => format!("EXPIRE {key} {number}"),
            4 => format!("PEXPIRE {key} {number}"),
            5 => format!("SET {key} {number} PX {number}"),
            6 => format!("GETEX {key} PX {number}"),
            7 => format!("XADD {key} * f {number}"),
            8 => format!("XADD {key} MAXLEN ~ 20 * f {number}"),
            9 => format!("INCRBYFLOAT {key} 0.1"),
            10 => format!("HINCRBYFLOAT {key} f 0.1"),
            11 => format!("HPEXPIRE {key} {number} FIELDS 1 f"),
            12 => format!("HSET {key} f 1 g {number} h 3"),
            13 => format!("ZADD {key} {number} a 2 b 3 c"),
            14 => format!("ZPOPMIN {key} 2"),
            15 => format!("COPY {key} {other} DB 1 REPLACE"),
            16 => format!("MOVE {key} 1"),
            17 => "SWAPDB 0 1".to_owned(),
            18 => format!("SELECT {}", random.below(2)),
            19 => format!("RENAME {key} {other}"),
            20 => format!("PUBLISH channel {number}"),
            21 => format!(
                "EVAL \"redis.call('INCR', KEYS[1]) redis.call('SADD', KEYS[2], redis.call('TIME')[2]) return 1\" 2 n{number} s{number}"
            ),
            22 => format!("EVAL \"return redis.call('SPOP', KEYS[1])\" 1 {key}"),
            _ => format!("SETEX {key} 1 {number}"),
        };
        tests::wire::split_line(&line)
    }
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

/// Sends commands to whoever is the primary until it is told to stop; counts those that were answered.
fn write(mut load: Load, primary: &Mutex<SocketAddr>, stop: &AtomicBool, answered: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        let address = *primary.lock().expect("no thread panics");
        let Ok(mut wire) = Wire::try_connect(address) else {
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        'connected: while !stop.load(Ordering::Relaxed) {
            let (mut request, mut count) = (Vec::new(), 0);
            while count < PIPELINE {
                for command in load.next() {
                    encode(&command, &mut request);
                    count += 1;
                }
            }
            wire.send(&request);
            for _ in 0..count {
                if wire.reply().is_err() {
                    break 'connected;
                }
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Waits for elements that others push.
fn block(seed: u64, primary: &Mutex<SocketAddr>, stop: &AtomicBool) {
    let mut random = Random::new(seed);
    while !stop.load(Ordering::Relaxed) {
        let address = *primary.lock().expect("no thread panics");
        let Ok(mut wire) = Wire::try_connect(address) else {
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            let (one, two) = (random.below(8), random.below(8));
            let line = match random.below(4) {
                0 => format!("BLPOP k{one} k{two} 0.05"),
                1 => format!("BLMOVE k{one} k{two} LEFT RIGHT 0.05"),
                2 => format!("BZPOPMIN k{one} k{two} 0.05"),
                _ => format!("BLMPOP 0.05 2 k{one} k{two} RIGHT COUNT 3"),
            };
            wire.send_command(&tests::wire::split_line(&line));
            if wire.reply().is_err() {
                break;
            }
        }
    }
}

/// Scores as they are shown.
const ZERO: &str = "$1\\r\\n0\\r\\n";
const MINUS_ZERO: &str = "$2\\r\\n-0\\r\\n";

/// All there is on a server: for each database and key its type, deadline and content.
fn contents(server: &Server) -> BTreeMap<(usize, Vec<u8>), String> {
    let mut wire = server.connect();
    let mut all = BTreeMap::new();
    for database in 0..2 {
        wire.line(&format!("SELECT {database}"));
        let reply = wire.command(&["KEYS", "*"]);
        let keys: Vec<Vec<u8>> = parts(&reply).1.iter().map(|part| bulk(part)).collect();
        for key in keys {
            let kind = wire.command(&[&b"TYPE"[..], &key]);
            let command: &[&[u8]] = match &*kind {
                b"+string\r\n" => &[b"GET", &key],
                b"+list\r\n" => &[b"LRANGE", &key, b"0", b"-1"],
                b"+set\r\n" => &[b"SMEMBERS", &key],
                b"+hash\r\n" => &[b"HGETALL", &key],
                b"+zset\r\n" => &[b"ZRANGE", &key, b"0", b"-1", b"WITHSCORES"],
                b"+stream\r\n" => &[b"XRANGE", &key, b"-", b"+"],
                _ => continue,
            };
            let reply = wire.command(command);
            let mut content: Vec<String> = match &*kind {
                b"+string\r\n" => vec![whole(&reply)],
                _ => parts(&reply).1.iter().map(|part| show(part)).collect(),
            };
            match &*kind {
                b"+set\r\n" => content.sort(),
                b"+hash\r\n" => {
                    let mut pairs: Vec<String> =
                        content.chunks(2).map(|pair| pair.join("=")).collect();
                    pairs.sort();
                    pairs.extend(field_deadlines(&mut wire, &key, &reply));
                    content = pairs;
                }
                // Small sorted sets of Valkey and Redis lose the sign of zero, and a copy may be smaller than what it is of.
                b"+zset\r\n" => {
                    let zeros = content.iter_mut().filter(|part| **part == MINUS_ZERO);
                    zeros.for_each(|zero| ZERO.clone_into(zero));
                }
                b"+stream\r\n" => {
                    let groups = wire.command(&[&b"XINFO"[..], b"GROUPS", &key]);
                    content.push(without_lag(&groups));
                }
                _ => {}
            }
            let deadline = wire.command(&[&b"PEXPIRETIME"[..], &key]);
            let entry = format!("{} {} {}", show(&kind), show(&deadline), content.join(" "));
            all.insert((database, key), entry);
        }
    }
    all
}

/// What it shows, and, since that may leave out the middle, a hash of all.
fn whole(reply: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    reply.hash(&mut hasher);
    format!("{} {:x}", show(reply), hasher.finish())
}

/// The fields of a hash that have deadlines, with these; `reply` is HGETALL's.
fn field_deadlines(wire: &mut Wire, key: &[u8], reply: &[u8]) -> Vec<String> {
    let fields: Vec<Vec<u8>> = parts(reply).1.chunks(2).map(|pair| bulk(pair[0])).collect();
    let count = fields.len().to_string();
    let mut command: Vec<&[u8]> = vec![b"HPEXPIRETIME", key, b"FIELDS", count.as_bytes()];
    command.extend(fields.iter().map(Vec::as_slice));
    let told = wire.command(&command);
    let mut deadlines: Vec<String> = fields
        .iter()
        .zip(parts(&told).1)
        .filter(|(_, deadline)| *deadline != b":-1\r\n")
        .map(|(field, deadline)| format!("{} until {}", show(field), show(deadline)))
        .collect();
    deadlines.sort();
    deadlines
}

/// Groups of a stream without the figure that servers count differently.
fn without_lag(groups: &[u8]) -> String {
    let (_, groups) = parts(groups);
    let group = |group: &[u8]| {
        let (_, fields) = parts(group);
        let shown: Vec<String> = fields.iter().map(|field| show(field)).collect();
        let kept = shown
            .chunks(2)
            .filter(|pair| !pair[0].contains("lag") && !pair[0].contains("entries-read"));
        kept.map(|pair| pair.join("="))
            .collect::<Vec<_>>()
            .join(",")
    };
    groups
        .iter()
        .map(|part| group(part))
        .collect::<Vec<_>>()
        .join(";")
}

fn bulk(reply: &[u8]) -> Vec<u8> {
    let head = reply
        .iter()
        .position(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    reply[head..reply.len().saturating_sub(2).max(head)].to_vec()
}

/// Waits until both have the same data, and says what differs if that does not come. Keys expire between two looks.
fn agree(primary: &Server, replica: &Server, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let same = ask(primary, "DEBUG DIGEST") == ask(replica, "DEBUG DIGEST");
        let (ours, theirs) = (contents(primary), contents(replica));
        let has_zero = || ours.values().any(|entry| entry.contains(ZERO));
        if is_up(replica) && ours == theirs && (same || has_zero()) {
            return;
        }
        if Instant::now() > deadline {
            let mut text = String::new();
            let keys: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
            let differing = keys
                .into_iter()
                .filter(|key| ours.get(*key) != theirs.get(*key));
            for key in differing.take(10) {
                text += &format!(
                    "\n{} in {}:\n  primary {:?}\n  replica {:?}",
                    show_command(&[&key.1]),
                    key.0,
                    ours.get(key),
                    theirs.get(key)
                );
            }
            let up = is_up(replica);
            panic!("{what}: the data differs, link up: {up}{text}");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn small_backlog() -> Options {
    options().set("repl-backlog-size", "128kb")
}

/// One pair of servers with a bad network between them, and a replica that comes and goes.
fn bad_network(first: Program, second: Program) {
    let seed = Random::seed_of_this_run();
    let what = format!("{first:?} to {second:?}, FERRITE_SEED={seed}");
    let Some(primary) = start(first, &small_backlog()) else {
        missing("a server");
        return;
    };
    let proxy = Proxy::start(primary.resp_address());
    let followed = format!("127.0.0.1 {}", proxy.address().port());
    let Some(mut replica) = start(second, &small_backlog().set("replicaof", &followed)) else {
        missing("a server");
        return;
    };
    let common = [first, second].contains(&Program::Redis);
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let address = Mutex::new(primary.resp_address());
    let mut random = Random::new(seed ^ 0xc4a05);
    thread::scope(|scope| {
        let _ending = Ending(&stop);
        let (stop, answered, address) = (&stop, &answered, &address);
        for writer in 0..WRITERS {
            let load = Load::new(seed.wrapping_add(writer), common);
            scope.spawn(move || write(load, address, stop, answered));
        }
        scope.spawn(move || block(seed, address, stop));
        let end = Instant::now() + duration();
        while Instant::now() < end {
            match random.below(7) {
                0 => proxy.cut(),
                1 => {
                    proxy.stall();
                    thread::sleep(Duration::from_millis(random.below(600) as u64));
                    proxy.resume();
                }
                2 => {
                    ask(&primary, "CLIENT KILL TYPE replica");
                }
                3 => {
                    proxy.set_refuses(true);
                    proxy.cut();
                    thread::sleep(Duration::from_millis(random.below(600) as u64));
                    proxy.set_refuses(false);
                }
                4 => {
                    replica.connect().send(b"SHUTDOWN SAVE\r\n");
                    if replica.wait(Duration::from_secs(20)).is_none() {
                        panic!("{what}: the replica does not end");
                    }
                    replica.restart();
                }
                5 => {
                    ask(&replica, "BGSAVE");
                    thread::sleep(Duration::from_millis(random.below(200) as u64));
                    replica.kill();
                    replica.restart();
                }
                _ => eventually("the link is up", || is_up(&replica)),
            }
            thread::sleep(Duration::from_millis(random.below(300) as u64));
        }
    });
    agree(&primary, &replica, &what);
    println!(
        "{what}: {} commands, {} full and {} partial synchronizations",
        answered.load(Ordering::Relaxed),
        field(&primary, "stats", "sync_full"),
        field(&primary, "stats", "sync_partial_ok")
    );
    assert!(answered.load(Ordering::Relaxed) > 100);
}

#[test]
fn a_bad_network_between_ferrites() {
    bad_network(Program::Ferrite, Program::Ferrite);
}

#[test]
fn a_bad_network_from_ferrite_to_valkey() {
    bad_network(Program::Ferrite, Program::Valkey);
}

#[test]
fn a_bad_network_from_valkey_to_ferrite() {
    bad_network(Program::Valkey, Program::Ferrite);
}

#[test]
fn a_bad_network_from_ferrite_to_redis() {
    bad_network(Program::Ferrite, Program::Redis);
}

#[test]
fn a_bad_network_from_redis_to_ferrite() {
    bad_network(Program::Redis, Program::Ferrite);
}

/// The primary dies, the replica that has most takes its place, the dead one comes back and follows; again and again.
fn dying_primaries(programs: [Program; 3]) {
    let seed = Random::seed_of_this_run();
    let what = format!("{programs:?}, FERRITE_SEED={seed}");
    let mut servers: Vec<Server> = programs
        .iter()
        .filter_map(|&program| start(program, &small_backlog()))
        .collect();
    if servers.len() < programs.len() {
        missing("a server");
        return;
    }
    for replica in &servers[1..] {
        follow(replica, &servers[0]);
        eventually("the link is up", || is_up(replica));
    }
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let address = Mutex::new(servers[0].resp_address());
    let mut primary = 0;
    thread::scope(|scope| {
        let _ending = Ending(&stop);
        let (stop, answered, address) = (&stop, &answered, &address);
        for writer in 0..WRITERS {
            let load = Load::new(seed.wrapping_add(writer), false);
            scope.spawn(move || write(load, address, stop, answered));
        }
        let end = Instant::now() + duration();
        let mut deaths = 0;
        while deaths < 3 || Instant::now() < end {
            thread::sleep(Duration::from_millis(500));
            servers[primary].kill();
            deaths += 1;
            let others: Vec<usize> = (0..servers.len())
                .filter(|&index| index != primary)
                .collect();
            let has = |index: &usize| field(&servers[*index], "replication", "slave_repl_offset");
            let next = *others
                .iter()
                .max_by_key(|index| has(index))
                .expect("there are two");
            assert_eq!(ask(&servers[next], "REPLICAOF NO ONE"), "+OK\r\n");
            *address.lock().expect("no thread panics") = servers[next].resp_address();
            servers[primary].restart();
            for index in 0..servers.len() {
                if index != next {
                    follow(&servers[index], &servers[next]);
                }
            }
            primary = next;
            for (index, server) in servers.iter().enumerate() {
                if index != primary {
                    eventually("the link is up", || is_up(server));
                }
            }
        }
    });
    for (index, replica) in servers.iter().enumerate() {
        if index != primary {
            agree(&servers[primary], replica, &what);
        }
    }
    println!("{what}: {} commands", answered.load(Ordering::Relaxed));
}

#[test]
fn ferrites_whose_primary_dies() {
    dying_primaries([Program::Ferrite; 3]);
}

#[test]
fn ferrites_and_a_valkey_whose_primary_dies() {
    dying_primaries([Program::Ferrite, Program::Valkey, Program::Ferrite]);
}
