//! Scripts that do not end: what others hear meanwhile, and how they are ended.

use std::time::{Duration, Instant};

use tests::{
    server::{Options, Server, missing},
    table::memcached,
    wire::{Wire, split_line},
};

const BUSY: &str =
    "-BUSY Valkey is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n";
const BUSY_FUNCTION: &str = "-BUSY Valkey is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.\r\n";
const KILLED: &str = "-ERR Script killed by user with SCRIPT KILL. script: on @user_script:1.\r\n";
const UNKILLABLE: &str = "-UNKILLABLE Sorry the script already executed write commands against the dataset. You can \
    either wait the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.\r\n";

/// Writes, then runs for so long that others notice.
const WRITES: &str = "redis.call('set',KEYS[1],'x') local s=os.clock() \
    while os.clock()-s<3 do end return 'done'";

/// A whole second may pass before a machine that builds beside comes to it.
const PATIENCE: Duration = Duration::from_secs(30);

fn options() -> Options {
    Options::new()
        .set("busy-reply-threshold", "100")
        .set("io-threads", "2")
}

fn send(wire: &mut Wire, line: &str) {
    wire.send_command(&split_line(line));
}

fn reply(wire: &mut Wire) -> String {
    let reply = wire.reply().expect("a reply");
    String::from_utf8_lossy(&reply).into_owned()
}

/// Waits until a script is known to run for too long.
#[track_caller]
fn wait_until_busy(wire: &mut Wire) {
    let deadline = Instant::now() + PATIENCE;
    while !wire.line("PING").starts_with("-BUSY") {
        assert!(Instant::now() < deadline, "nobody says that a script runs");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a script without end and waits until others are told.
fn spin(server: &Server) -> (Wire, Wire) {
    let (mut victim, mut other) = (server.connect(), server.connect());
    send(&mut victim, "EVAL \"while true do end\" 1 k");
    wait_until_busy(&mut other);
    (victim, other)
}

/// What is said while a script runs, by any server.
const MEANWHILE: [&str; 31] = [
    "PING",
    "GET k",
    "SET k v",
    "INFO",
    "DBSIZE",
    "SCAN 0",
    "KEYS *",
    "FLUSHALL",
    "RANDOMKEY",
    "TIME",
    "MONITOR",
    "CLIENT LIST",
    "CONFIG GET port",
    "SUBSCRIBE c",
    "FUNCTION STATS",
    "FUNCTION KILL",
    "FUNCTION LIST",
    "SCRIPT EXISTS aa",
    "SCRIPT LOAD \"return 1\"",
    "EVAL \"return 1\" 0",
    "FCALL f 0",
    "COMMAND COUNT",
    "SHUTDOWN",
    "SHUTDOWN SAVE",
    "SELECT 0",
    "MULTI",
    "DISCARD",
    "UNWATCH",
    "NOPE",
    "GET",
    "EXEC",
];

#[test]
fn others_hear_the_same_as_from_valkey() {
    let ferrite = Server::ferrite(&options());
    let Some(valkey) = Server::valkey(&options()) else {
        return missing("valkey-server");
    };
    let (_ours, mut ours) = spin(&ferrite);
    let (_theirs, mut theirs) = spin(&valkey);
    for line in MEANWHILE {
        assert_eq!(ours.line(line), theirs.line(line), "{line}");
    }
    assert_eq!(ours.line("GET k"), BUSY);
}

#[test]
fn a_script_without_end_is_killed() {
    let server = Server::start(&options());
    let (mut victim, mut other) = spin(&server);
    assert_eq!(other.line("GET k"), BUSY);
    assert_eq!(other.line("SCRIPT KILL"), "+OK\r\n");
    assert_eq!(reply(&mut victim), KILLED);
    assert_eq!(other.line("SET k v"), "+OK\r\n");
    assert_eq!(victim.line("GET k"), "$1\r\nv\r\n");
    assert_eq!(
        other.line("SCRIPT KILL"),
        "-NOTBUSY No scripts in execution right now.\r\n"
    );
}

#[test]
fn catching_errors_does_not_save_a_script_from_being_killed() {
    let server = Server::start(&options());
    for script in [
        "while true do pcall(function() while true do end end) end",
        "while true do redis.pcall('ping') end",
        "table.sort({1,2,3}, function() while true do end end)",
        "coroutine.wrap(function() while true do end end)()",
        "string.gsub('a', 'a', function() while true do end end)",
    ] {
        let (mut victim, mut other) = (server.connect(), server.connect());
        if victim.line("EVAL \"return coroutine==nil\" 0") == ":1\r\n"
            && script.contains("coroutine")
        {
            continue;
        }
        send(&mut victim, &format!("EVAL \"{script}\" 0"));
        wait_until_busy(&mut other);
        assert_eq!(other.line("SCRIPT KILL"), "+OK\r\n");
        let reply = reply(&mut victim);
        assert!(reply.contains("killed by user"), "{script}: {reply}");
        assert_eq!(other.line("PING"), "+PONG\r\n");
    }
}

#[test]
fn what_has_written_is_not_killed() {
    let server = Server::start(&options());
    let (mut victim, mut other) = (server.connect(), server.connect());
    victim.send_command(&["EVAL", WRITES, "1", "k"]);
    wait_until_busy(&mut other);
    assert_eq!(other.line("SCRIPT KILL"), UNKILLABLE);
    assert_eq!(reply(&mut victim), "$4\r\ndone\r\n");
    assert_eq!(other.line("GET k"), "$1\r\nx\r\n");
}

#[test]
fn a_function_is_killed_as_such() {
    let server = Server::start(&options());
    let (mut victim, mut other) = (server.connect(), server.connect());
    let library =
        "#!lua name=l\nserver.register_function('spin', function() while true do end end)";
    assert_eq!(
        String::from_utf8_lossy(&other.command(&["FUNCTION", "LOAD", library])),
        "$1\r\nl\r\n"
    );
    send(&mut victim, "FCALL spin 0");
    wait_until_busy(&mut other);
    assert_eq!(other.line("PING"), BUSY_FUNCTION);
    assert_eq!(other.line("SCRIPT KILL"), BUSY_FUNCTION);
    let stats = other.line("FUNCTION STATS");
    assert!(
        stats.contains("name\r\n$4\r\nspin\r\n$7\r\ncommand\r\n*3\r\n$5\r\nFCALL\r\n"),
        "{stats}"
    );
    assert_eq!(other.line("FUNCTION KILL"), "+OK\r\n");
    assert_eq!(
        reply(&mut victim),
        "-ERR Script killed by user with FUNCTION KILL. script: on @user_function:2.\r\n"
    );
    assert_eq!(other.line("PING"), "+PONG\r\n");
}

#[test]
fn a_script_in_a_transaction_is_killed_and_the_rest_runs() {
    let server = Server::start(&options());
    let (mut victim, mut other) = (server.connect(), server.connect());
    for line in ["MULTI", "SET k 1", "EVAL \"while true do end\" 0", "GET k"] {
        victim.line(line);
    }
    send(&mut victim, "EXEC");
    wait_until_busy(&mut other);
    assert_eq!(other.line("GET k"), BUSY);
    assert_eq!(other.line("SCRIPT KILL"), "+OK\r\n");
    assert_eq!(
        reply(&mut victim),
        format!("*3\r\n+OK\r\n{KILLED}$1\r\n1\r\n")
    );
    assert_eq!(other.line("GET k"), "$1\r\n1\r\n");
}

#[test]
fn a_pipeline_around_a_script_that_is_killed_keeps_its_order() {
    let server = Server::start(&options());
    let (mut victim, mut other) = (server.connect(), server.connect());
    let lines = [
        "SET a 1",
        "INCR a",
        "EVAL \"while true do end\" 0",
        "INCR a",
        "EVAL \"return redis.call('incr','a')\" 1 a",
        "GET a",
    ];
    lines.iter().for_each(|line| send(&mut victim, line));
    wait_until_busy(&mut other);
    assert_eq!(other.line("SCRIPT KILL"), "+OK\r\n");
    let replies: String = lines.iter().map(|_| reply(&mut victim)).collect();
    assert_eq!(
        replies,
        format!("+OK\r\n:2\r\n{KILLED}:3\r\n:4\r\n$1\r\n4\r\n")
    );
}

#[test]
fn all_clients_hear_of_it_also_those_that_came_before_and_new_ones() {
    let server = Server::start(&options());
    let mut clients: Vec<Wire> = (0..40).map(|_| server.connect()).collect();
    let mut victim = server.connect();
    // It may come to any key, so that it holds all.
    let script = "while true do end redis.call('get', ARGV[1])";
    victim.send_command(&["EVAL", script, "0"]);
    // Some wait for the locks before the time is up.
    for (number, client) in clients.iter_mut().enumerate() {
        send(client, &format!("APPEND k{number} x"));
    }
    wait_until_busy(&mut server.connect());
    for client in &mut clients {
        let reply = reply(client);
        assert!(reply == BUSY || reply == ":1\r\n", "{reply}");
    }
    for number in 0..20 {
        let mut client = server.connect();
        assert_eq!(client.line(&format!("GET k{number}")), BUSY);
        clients.push(client);
    }
    assert_eq!(clients[7].line("SCRIPT KILL"), "+OK\r\n");
    assert_eq!(reply(&mut victim), KILLED);
    for client in &mut clients {
        assert_eq!(client.line("PING"), "+PONG\r\n");
    }
}

#[test]
fn the_server_can_be_shut_down_beside_a_script() {
    let mut server = Server::start(&options());
    let (_victim, mut other) = spin(&server);
    send(&mut other, "SHUTDOWN NOSAVE");
    let status = server.wait(PATIENCE).expect("it ends");
    assert!(status.success(), "{status}");
}

#[test]
fn clients_leave_their_keys_while_a_script_holds_them() {
    let server = Server::start(&options());
    let (mut watcher, mut waiter) = (server.connect(), server.connect());
    let mut gone = server.connect();
    let (mut victim, mut other) = (server.connect(), server.connect());
    assert_eq!(watcher.line("WATCH k"), "+OK\r\n");
    assert_eq!(gone.line("WATCH k"), "+OK\r\n");
    send(&mut waiter, "BLPOP l 0.05");
    send(&mut victim, "EVAL \"while true do end\" 1 k");
    wait_until_busy(&mut other);
    assert_eq!(watcher.line("UNWATCH"), "+OK\r\n");
    assert_eq!(watcher.line("MULTI"), "+OK\r\n");
    assert_eq!(watcher.line("DISCARD"), "+OK\r\n");
    drop(gone);
    assert_eq!(other.line("SCRIPT KILL"), "+OK\r\n");
    assert_eq!(reply(&mut victim), KILLED);
    assert_eq!(reply(&mut waiter), "*-1\r\n");
    // Nobody waits any more, and nobody watches.
    assert_eq!(other.line("RPUSH l a"), ":1\r\n");
    assert_eq!(watcher.line("MULTI"), "+OK\r\n");
    assert_eq!(watcher.line("GET k"), "+QUEUED\r\n");
    assert_eq!(other.line("SET k v"), "+OK\r\n");
    assert_eq!(watcher.line("EXEC"), "*1\r\n$1\r\nv\r\n");
    send(&mut waiter, "BLPOP l2 0");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(other.line("RPUSH l2 b"), ":1\r\n");
    assert_eq!(reply(&mut waiter), "*2\r\n$2\r\nl2\r\n$1\r\nb\r\n");
}

#[test]
fn expired_keys_and_clients_that_track_are_looked_after_when_a_script_has_ended() {
    let server = Server::start(&options());
    let mut tracker = server.connect();
    assert!(tracker.line("HELLO 3").starts_with('%'));
    assert_eq!(tracker.line("CLIENT TRACKING ON"), "+OK\r\n");
    assert_eq!(tracker.line("SET k v PX 50"), "+OK\r\n");
    assert_eq!(tracker.line("GET k"), "$1\r\nv\r\n");
    let (mut victim, mut other) = spin(&server);
    assert_eq!(other.line("SCRIPT KILL"), "+OK\r\n");
    assert_eq!(reply(&mut victim), KILLED);
    assert_eq!(
        reply(&mut tracker),
        ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
    );
}

#[test]
fn replies_wait_for_the_disk_although_others_had_turns_in_between() {
    let options = options()
        .set("appendonly", "yes")
        .set("appendfsync", "always");
    let mut server = Server::start(&options);
    let (mut victim, mut other) = (server.connect(), server.connect());
    for line in [
        "EVAL \"return redis.call('set','k','1')\" 1 k",
        "EVAL \"while true do end\" 0",
    ] {
        send(&mut victim, line);
    }
    wait_until_busy(&mut other);
    assert_eq!(other.line("SCRIPT KILL"), "+OK\r\n");
    assert_eq!(reply(&mut victim), "+OK\r\n");
    assert_eq!(reply(&mut victim), KILLED);
    server.kill();
    server.restart();
    assert_eq!(server.connect().line("GET k"), "$1\r\n1\r\n");
}

#[test]
fn memcached_clients_hear_of_it() {
    let server = Server::ferrite(&options());
    let mut client = server.connect_memcached();
    let (mut victim, mut other) = spin(&server);
    const REFUSED: &str = "SERVER_ERROR BUSY Valkey is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n";
    for request in [
        "get k\r\n",
        "set k 0 0 1\r\nx\r\n",
        "mg k v\r\n",
        "delete k\r\n",
        "incr k 1\r\n",
        "stats\r\n",
        "flush_all\r\n",
    ] {
        let reply = memcached(&mut client, request.as_bytes());
        assert_eq!(String::from_utf8_lossy(&reply), REFUSED, "{request}");
    }
    let version = memcached(&mut client, b"version\r\n");
    assert!(version.starts_with(b"VERSION"));
    let mut new = server.connect_memcached();
    assert_eq!(memcached(&mut new, b"get k\r\n"), REFUSED.as_bytes());
    assert_eq!(other.line("SCRIPT KILL"), "+OK\r\n");
    assert_eq!(reply(&mut victim), KILLED);
    assert_eq!(memcached(&mut client, b"get k\r\n"), b"END\r\n");
}

#[test]
fn keys_that_a_script_does_not_hold_are_served() {
    const HELPER: &str =
        "local function get(key) return redis.call('get', key) end while true do get(KEYS[1]) end";
    const LIBRARY: &str = "#!lua name=l\nlocal function get(key) return redis.call('get', key) end \
         redis.register_function('spin', function(keys, args) while true do get(keys[1]) end end)";
    for lines in [
        &["EVAL \"local key = KEYS[1] while true do redis.call('get', key) end\" 1 k"][..],
        &[&format!("EVAL \"{HELPER}\" 1 k")],
        &["FCALL spin 1 k"],
        &["MULTI", "INCR n", "FCALL spin 1 k", "EXEC"],
        &[
            "WATCH w",
            "MULTI",
            &format!("EVAL \"{HELPER}\" 1 k"),
            "EXEC",
        ],
    ] {
        let server = Server::ferrite(&options());
        let (mut victim, mut other) = (server.connect(), server.connect());
        victim.command(&["FUNCTION", "LOAD", LIBRARY]);
        let (last, before) = lines.split_last().expect("there are lines");
        before.iter().for_each(|line| drop(victim.line(line)));
        send(&mut victim, last);
        others_go_on(&server, &mut other);
        let is_function = lines.iter().any(|line| line.starts_with("FCALL"));
        let kill = if is_function {
            "FUNCTION KILL"
        } else {
            "SCRIPT KILL"
        };
        assert_eq!(other.line(kill), "+OK\r\n", "{lines:?}");
        let reply = reply(&mut victim);
        assert!(reply.contains("killed by user"), "{lines:?}: {reply}");
        assert!(other.line("DBSIZE").starts_with(':'));
    }
}

/// Commands on other keys than that of a script that does not end.
fn others_go_on(server: &Server, other: &mut Wire) {
    let mut memcached_client = server.connect_memcached();
    wait_until_busy(other);
    assert!(other.line("GET k").starts_with("-BUSY"));
    assert!(other.line("EVAL \"return 1\" 0").starts_with("-BUSY"));
    // Some of these may fall in a shard that the script holds, with bad luck.
    let served = (0..20).filter(|number| other.line(&format!("SET k{number} v")) == "+OK\r\n");
    assert!(served.count() >= 17);
    let served = (0..20).filter(|number| {
        let request = format!("get k{number}\r\n");
        memcached(&mut memcached_client, request.as_bytes()).ends_with(b"END\r\n")
    });
    assert!(served.count() >= 17);
    let served = (0..20).filter(|number| {
        other.line("MULTI");
        other.line(&format!("INCR n{number}"));
        other.line("EXEC") == "*1\r\n:1\r\n"
    });
    assert!(served.count() >= 17);
}

/// The first of several clients, on any of the workers, that something is heard from; those on a worker that is kept
/// busy never hear anything.
fn first_heard(clients: Vec<Wire>) -> Vec<u8> {
    let (heard, first) = std::sync::mpsc::channel();
    for mut client in clients {
        let heard = heard.clone();
        std::thread::spawn(move || {
            let _ = client.reply().map(|reply| heard.send(reply));
        });
    }
    first.recv_timeout(PATIENCE).expect("somebody hears of it")
}

#[test]
fn scripts_on_other_keys_run_beside_one_that_does_not_end() {
    // Nobody is ever told that it takes too long.
    let options = Options::new()
        .set("busy-reply-threshold", "0")
        .set("io-threads", "4");
    let server = Server::ferrite(&options);
    let (mut victim, mut loader) = (server.connect(), server.connect());
    let library = "#!lua name=l\nredis.register_function('spin', function(keys) redis.call('publish', 'news', 'begun') \
         while true do redis.call('get', keys[1]) end end) \
         redis.register_function('set', function(keys, args) return redis.call('set', keys[1], args[1]) end)";
    loader.command(&["FUNCTION", "LOAD", library]);
    let mut listeners: Vec<Wire> = (0..8).map(|_| server.connect()).collect();
    for listener in &mut listeners {
        listener.line("SUBSCRIBE news");
    }
    let mut callers: Vec<Wire> = (0..8).map(|_| server.connect()).collect();
    send(&mut victim, "FCALL spin 1 k");
    let message = first_heard(listeners);
    assert!(message.ends_with(b"begun\r\n"));
    for (number, caller) in callers.iter_mut().enumerate() {
        send(caller, &format!("FCALL set 1 other{number} v"));
    }
    assert_eq!(first_heard(callers), b"+OK\r\n");
}

#[test]
fn a_transaction_beside_a_script_runs_only_if_each_of_its_commands_may() {
    let server = Server::start(&options());
    let (mut victim, mut other) = (server.connect(), server.connect());
    let mut queueing = server.connect();
    for line in ["MULTI", "INCR n", "ECHO n"] {
        queueing.line(line);
    }
    send(
        &mut victim,
        "EVAL \"local key = KEYS[1] while true do redis.call('get', key) end\" 1 k",
    );
    wait_until_busy(&mut other);
    let refused = format!(
        "-EXECABORT Transaction discarded because of: {}",
        &BUSY[1..]
    );
    assert_eq!(queueing.line("EXEC"), refused);
    assert_eq!(other.line("SCRIPT KILL"), "+OK\r\n");
    reply(&mut victim);
    assert_eq!(queueing.line("EXEC"), "-ERR EXEC without MULTI\r\n");
    assert_eq!(other.line("GET n"), "$-1\r\n");
    let statistics = other.line("INFO commandstats");
    let line = statistics
        .lines()
        .find(|line| line.starts_with("cmdstat_exec:"));
    let line = line.expect("it was called");
    assert!(line.ends_with("rejected_calls=1,failed_calls=1"), "{line}");
}
