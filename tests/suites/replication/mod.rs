//! Replication between Ferrite, Valkey and Redis: copies, the stream, broken links, promotion.

mod chaos;
mod disk;
mod fields;
mod items;
mod migration;
mod parting;
mod redirect;
mod restart;
mod sentinel;
mod slow;
mod stream;
mod trouble;
mod waiting;

use std::{net::SocketAddr, thread, time::Duration, time::Instant};

use tests::{
    random::Random,
    server::{Options, Program, Server, missing},
};

/// The servers that replicate among each other.
const PROGRAMS: &[Program] = &[Program::Ferrite, Program::Valkey, Program::Redis];

/// `None` if it is not installed.
fn start(program: Program, options: &Options) -> Option<Server> {
    match program {
        Program::Ferrite => Some(Server::ferrite(options)),
        Program::Valkey => Server::valkey(options),
        Program::Redis => Server::redis(options),
        Program::Memcached => None,
    }
}

fn options() -> Options {
    Options::new().set("enable-debug-command", "yes")
}

/// Waits for something that will be so soon.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn ask(server: &Server, line: &str) -> String {
    server.connect().line(line)
}

fn follow(replica: &Server, primary: &Server) {
    follow_at(replica, primary.resp_address());
}

fn follow_at(replica: &Server, primary: SocketAddr) {
    let line = format!("REPLICAOF {} {}", primary.ip(), primary.port());
    assert_eq!(ask(replica, &line), "+OK\r\n");
}

/// A number of INFO's.
fn field(server: &Server, section: &str, name: &str) -> u64 {
    let text = ask(server, &format!("INFO {section}"));
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or_else(|| panic!("INFO {section} has {name}"))
}

fn is_up(replica: &Server) -> bool {
    ask(replica, "INFO replication").contains("master_link_status:up")
}

/// The same keys and values on both, and the link up.
fn in_step(primary: &Server, replica: &Server) {
    eventually("the replica is in step", || {
        is_up(replica) && ask(primary, "DEBUG DIGEST") == ask(replica, "DEBUG DIGEST")
    });
}

/// Two Ferrites, of which one follows the other and has all its data.
fn ferrites(primary: &Options, replica: &Options) -> (Server, Server) {
    let (primary, replica) = (Server::ferrite(primary), Server::ferrite(replica));
    follow(&replica, &primary);
    in_step(&primary, &replica);
    (primary, replica)
}

/// Random commands over a hundred keys, in two databases, some of them in transactions.
fn load(server: &Server, random: &mut Random, commands: usize) {
    let mut connection = server.connect();
    for _ in 0..commands {
        let key = random.between(0, 99);
        let line = match random.between(0, 11) {
            0 => format!("SET s{key} {key}"),
            1 => format!("INCR n{key}"),
            2 => format!("RPUSH l{key} a b c"),
            3 => format!("LPOP l{key}"),
            4 => format!("SADD set{key} 1 2 3 x y"),
            5 => format!("SPOP set{key}"),
            6 => format!("HSET h{key} f{key} 1 g 2"),
            7 => format!("SET e{key} 1 EX 1000"),
            8 => format!("ZADD z{key} {key} m 2 n"),
            9 => format!("DEL s{key} l{key}"),
            10 => {
                connection.line("MULTI");
                connection.line(&format!("SET a{key} 1"));
                connection.line(&format!("INCRBYFLOAT f{key} 1.5"));
                "EXEC".to_owned()
            }
            _ => format!("SELECT {}", key % 2),
        };
        connection.line(&line);
    }
}

/// A copy while writes go on, the stream, a link that breaks and goes on where it was, and promotion.
fn check(primary: &Server, replica: &Server) {
    let mut random = Random::new(Random::seed_of_this_run());
    load(primary, &mut random, 500);
    ask(replica, "SET old data");
    follow(replica, primary);
    load(primary, &mut random, 500);
    in_step(primary, replica);
    assert!(ask(replica, "SET a 1").starts_with("-READONLY"));
    ask(primary, "CLIENT KILL TYPE replica");
    load(primary, &mut random, 300);
    in_step(primary, replica);
    let stats = ask(primary, "INFO stats");
    assert!(stats.contains("sync_full:1\r\n") && stats.contains("sync_partial_ok:1\r\n"));
    let mut client = primary.connect();
    client.line("SET last 1");
    assert_eq!(client.line("WAIT 1 5000"), ":1\r\n");
    assert!(ask(replica, "ROLE").contains("connected"));
    assert_eq!(ask(replica, "REPLICAOF NO ONE"), "+OK\r\n");
    assert_eq!(ask(replica, "SET own 1"), "+OK\r\n");
    assert_eq!(ask(replica, "GET last"), "$1\r\n1\r\n");
}

#[test]
fn ferrite_follows_ferrite() {
    check(&Server::ferrite(&options()), &Server::ferrite(&options()));
}

#[test]
fn valkey_follows_ferrite() {
    let Some(valkey) = Server::valkey(&options()) else {
        missing("valkey-server");
        return;
    };
    check(&Server::ferrite(&options()), &valkey);
}

#[test]
fn ferrite_follows_valkey() {
    let Some(valkey) = Server::valkey(&options()) else {
        missing("valkey-server");
        return;
    };
    check(&valkey, &Server::ferrite(&options()));
}

#[test]
fn redis_follows_ferrite() {
    let Some(redis) = Server::redis(&options()) else {
        missing("redis-server");
        return;
    };
    check(&Server::ferrite(&options()), &redis);
}

#[test]
fn ferrite_follows_redis() {
    let Some(redis) = Server::redis(&options()) else {
        missing("redis-server");
        return;
    };
    check(&redis, &Server::ferrite(&options()));
}

#[test]
fn a_chain_of_three_and_promotion_without_a_new_copy() {
    let servers: Vec<Server> = (0..3).map(|_| Server::ferrite(&options())).collect();
    let [first, middle, last] = &servers[..] else {
        unreachable!("three were started")
    };
    let mut random = Random::new(Random::seed_of_this_run());
    load(first, &mut random, 200);
    follow(middle, first);
    eventually("the first link is up", || is_up(middle));
    follow(last, middle);
    load(first, &mut random, 300);
    in_step(first, last);
    // The middle one becomes the primary: the last goes on under the new name, without another copy.
    ask(middle, "REPLICAOF NO ONE");
    load(middle, &mut random, 200);
    in_step(middle, last);
    assert!(ask(middle, "INFO stats").contains("sync_full:1\r\n"));
    // And the old primary follows the new one from where it was.
    follow(first, middle);
    in_step(middle, first);
    assert!(ask(middle, "INFO stats").contains("sync_full:1\r\n"));
}

/// What replicas run, with how often, beside what keeps the link alive.
fn commands_run(program: Program) -> Option<Vec<String>> {
    let primary = start(program, &options())?;
    let replica = start(program, &options())?;
    follow(&replica, &primary);
    in_step(&primary, &replica);
    let mut wire = primary.connect();
    for line in [
        "FLUSHDB",
        "FLUSHDB ASYNC",
        "GETSET text one",
        "GETSET text two",
        "SET text three GET",
        "FLUSHALL",
        "FLUSHALL",
        "SET text four",
    ] {
        let reply = wire.line(line);
        assert!(!reply.starts_with('-'), "{line}: {reply}");
    }
    assert_eq!(wire.line("WAIT 1 20000"), ":1\r\n");
    in_step(&primary, &replica);
    let told = ask(&replica, "INFO commandstats");
    let mut seen: Vec<String> = told
        .lines()
        .filter_map(|line| line.split_once(",usec"))
        .map(|(name_and_calls, _)| name_and_calls.to_owned())
        .filter(|line| line.contains("set") || line.contains("flush"))
        .collect();
    seen.sort();
    Some(seen)
}

#[test]
fn replicas_are_sent_what_valkey_sends() {
    let ours = commands_run(Program::Ferrite).expect("ferrite is there");
    match commands_run(Program::Valkey) {
        Some(theirs) => assert_eq!(ours, theirs),
        None => missing("valkey-server"),
    }
}

/// What clients of a writable replica gave a deadline is deleted by the replica itself; what is its primary's is hidden
/// until the primary deletes it.
fn own_keys_go(program: Program) -> bool {
    let Some(primary) = start(program, &options()) else {
        return false;
    };
    let replica = start(program, &options().set("replica-read-only", "no")).expect("it is there");
    follow(&replica, &primary);
    in_step(&primary, &replica);
    ask(&primary, "DEBUG SET-ACTIVE-EXPIRE 0");
    ask(&primary, "SET theirs 1 PX 100");
    let mut wire = replica.connect();
    for line in [
        "SET one 1 PX 300",
        "SET two 2",
        "PEXPIRE two 300",
        "MULTI",
        "SET three 3 PX 300",
        "EXEC",
        "EVAL \"redis.call('SET', KEYS[1], 4, 'PX', 300)\" 1 four",
        "SET kept 1 PX 300",
        "PERSIST kept",
    ] {
        let reply = wire.line(line);
        assert!(!reply.starts_with('-'), "{line}: {reply}");
    }
    eventually("what is the replica's own is deleted", || {
        wire.line("DBSIZE") == ":2\r\n"
    });
    assert_eq!(wire.line("EXISTS kept theirs"), ":1\r\n");
    true
}

#[test]
fn keys_of_a_writable_replica_expire() {
    assert!(own_keys_go(Program::Ferrite));
    if !own_keys_go(Program::Valkey) {
        missing("valkey-server");
    }
}

/// A function that may write is not begun by a server that may not.
#[test]
fn functions_that_may_write_are_refused_as_writes_are() {
    let primary = Server::ferrite(&options());
    let replica = Server::ferrite(&options());
    let library = "#!lua name=shelf\n\
        redis.register_function('reads', function(keys) return redis.call('GET', keys[1]) end)\n\
        redis.register_function{function_name='promises', flags={'no-writes'}, \
        callback=function(keys) return redis.call('GET', keys[1]) end}";
    let loaded = primary.connect().command(&["FUNCTION", "LOAD", library]);
    assert_eq!(loaded, b"$5\r\nshelf\r\n");
    follow(&replica, &primary);
    in_step(&primary, &replica);
    ask(&primary, "SET a 1");
    in_step(&primary, &replica);
    ask(&primary, "CONFIG SET min-replicas-to-write 2");
    const LACKS: &str = "-NOREPLICAS Not enough good replicas to write.\r\n";
    const READS: &str = "-READONLY You can't write against a read only replica.\r\n";
    for (server, refusal) in [(&primary, LACKS), (&replica, READS)] {
        assert_eq!(ask(server, "FCALL reads 1 a"), refusal);
        assert_eq!(ask(server, "FCALL promises 1 a"), "$1\r\n1\r\n");
        assert_eq!(ask(server, "EVAL \"#!lua\n return 1\" 0"), refusal);
        assert_eq!(ask(server, "EVAL \"return 1\" 0"), ":1\r\n");
    }
}

/// Replicas in reach are asked for before writes are accepted.
#[test]
fn writes_want_replicas_if_the_settings_say_so() {
    let primary = Server::ferrite(&options().set("min-replicas-to-write", "1"));
    assert!(ask(&primary, "SET a 1").starts_with("-NOREPLICAS"));
    let replica = Server::ferrite(&options());
    follow(&replica, &primary);
    eventually("a replica is in reach", || {
        ask(&primary, "SET a 1") == "+OK\r\n"
    });
}

/// The part of the primary is handed over without a copy and without losing a write.
fn check_failover(primary: &Server, replica: &Server) {
    let mut random = Random::new(Random::seed_of_this_run());
    assert!(ask(primary, "FAILOVER").starts_with("-ERR FAILOVER requires connected replicas."));
    follow(replica, primary);
    load(primary, &mut random, 300);
    in_step(primary, replica);
    assert!(ask(replica, "FAILOVER").starts_with("-ERR FAILOVER is not valid"));
    assert!(ask(primary, "FAILOVER ABORT").starts_with("-ERR No failover in progress."));
    ask(primary, "SET last 1");
    assert_eq!(ask(primary, "FAILOVER TIMEOUT 10000"), "+OK\r\n");
    eventually("the parts are exchanged", || {
        ask(primary, "ROLE").contains("slave") && ask(replica, "ROLE").contains("master")
    });
    eventually("the new primary accepts writes", || {
        ask(replica, "SET next 1") == "+OK\r\n"
    });
    in_step(replica, primary);
    assert!(ask(replica, "INFO stats").contains("sync_full:0\r\n"));
    assert_eq!(ask(replica, "GET last"), "$1\r\n1\r\n");
    assert!(ask(primary, "INFO replication").contains("master_failover_state:no-failover"));
}

#[test]
fn failover_between_ferrites() {
    check_failover(&Server::ferrite(&options()), &Server::ferrite(&options()));
}

#[test]
fn failover_to_valkey() {
    let Some(valkey) = Server::valkey(&options()) else {
        missing("valkey-server");
        return;
    };
    check_failover(&Server::ferrite(&options()), &valkey);
}

#[test]
fn failover_from_valkey() {
    let Some(valkey) = Server::valkey(&options()) else {
        missing("valkey-server");
        return;
    };
    check_failover(&valkey, &Server::ferrite(&options()));
}

#[test]
fn failover_to_redis() {
    let Some(redis) = Server::redis(&options()) else {
        missing("redis-server");
        return;
    };
    check_failover(&Server::ferrite(&options()), &redis);
}

#[test]
fn failover_from_redis() {
    let Some(redis) = Server::redis(&options()) else {
        missing("redis-server");
        return;
    };
    check_failover(&redis, &Server::ferrite(&options()));
}
