//! Servers that end and come back: they know from their snapshot where they were, and go on from there.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use tests::{
    ending::Ending,
    random::Random,
    server::{Options, Program, Server, missing},
    wire::encode,
};

use super::{PROGRAMS, ask, eventually, field, follow, in_step, load, options, start};

/// Ends the server as an administrator does, with a snapshot, and starts it again.
fn end(server: &mut Server) {
    server.connect().send(b"SHUTDOWN SAVE\r\n");
    let status = server
        .wait(Duration::from_secs(30))
        .expect("the server ends when it is told to");
    assert!(status.success(), "{status}");
}

fn replica_of(primary: &Server) -> Options {
    let port = primary.resp_address().port();
    options().set("replicaof", &format!("127.0.0.1 {port}"))
}

fn syncs(primary: &Server) -> (u64, u64) {
    (
        field(primary, "stats", "sync_full"),
        field(primary, "stats", "sync_partial_ok"),
    )
}

/// All pairs of programs of which at least one is Ferrite.
fn pairs() -> impl Iterator<Item = (Program, Program)> {
    let all = PROGRAMS
        .iter()
        .flat_map(|&one| PROGRAMS.iter().map(move |&two| (one, two)));
    all.filter(|pair| [pair.0, pair.1].contains(&Program::Ferrite))
}

#[test]
fn a_replica_that_restarts_asks_for_what_it_missed() {
    for (first, second) in pairs() {
        let Some(primary) = start(first, &options()) else {
            missing("a server");
            continue;
        };
        let mut random = Random::new(Random::seed_of_this_run());
        load(&primary, &mut random, 300);
        let Some(mut replica) = start(second, &replica_of(&primary)) else {
            missing("a server");
            continue;
        };
        load(&primary, &mut random, 300);
        in_step(&primary, &replica);
        assert_eq!(syncs(&primary), (1, 0), "{first:?} to {second:?}");
        end(&mut replica);
        load(&primary, &mut random, 300);
        replica.restart();
        in_step(&primary, &replica);
        assert_eq!(syncs(&primary), (1, 1), "{first:?} to {second:?}");
        // And what it was sent before it ended under load is neither lost nor applied twice.
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let _ending = Ending(&stop);
            scope.spawn(|| {
                let mut connection = primary.connect();
                while !stop.load(Ordering::Relaxed) {
                    connection.line("INCR counted");
                    connection.line("RPUSH listed x");
                }
            });
            end(&mut replica);
        });
        replica.restart();
        in_step(&primary, &replica);
        assert_eq!(syncs(&primary), (1, 2), "{first:?} to {second:?}");
    }
}

/// The keys that expire while the primary is away are deleted at the replica too.
#[test]
fn a_primary_that_restarts_goes_on_with_its_replicas() {
    for (first, second) in pairs() {
        let Some(mut primary) = start(first, &options()) else {
            missing("a server");
            continue;
        };
        let Some(replica) = start(second, &replica_of(&primary)) else {
            missing("a server");
            continue;
        };
        let mut random = Random::new(Random::seed_of_this_run());
        load(&primary, &mut random, 300);
        ask(&primary, "SET short 1 PX 400");
        in_step(&primary, &replica);
        let stop = AtomicBool::new(false);
        let address = primary.resp_address();
        thread::scope(|scope| {
            let _ending = Ending(&stop);
            scope.spawn(|| {
                let mut connection = tests::wire::Wire::connect(address);
                while !stop.load(Ordering::Relaxed) {
                    let mut request = Vec::new();
                    encode(&["INCR", "counted"], &mut request);
                    connection.send(&request);
                    if connection.reply().is_err() {
                        break;
                    }
                }
            });
            end(&mut primary);
        });
        thread::sleep(Duration::from_millis(400));
        primary.restart();
        in_step(&primary, &replica);
        assert_eq!(syncs(&primary), (0, 1), "{first:?} to {second:?}");
        load(&primary, &mut random, 300);
        in_step(&primary, &replica);
        eventually("the expired key is gone at both", || {
            ask(&primary, "DBSIZE") == ask(&replica, "DBSIZE")
        });
    }
}

/// A chain whose middle restarts and is promoted, and restarts once more as the primary that it is now.
#[test]
fn restart_and_promotion_together_need_no_other_copy() {
    let mut first = Server::ferrite(&options());
    let mut random = Random::new(Random::seed_of_this_run());
    load(&first, &mut random, 200);
    let mut middle = Server::ferrite(&replica_of(&first));
    in_step(&first, &middle);
    let last = Server::ferrite(&replica_of(&middle));
    load(&first, &mut random, 200);
    in_step(&first, &last);

    end(&mut middle);
    load(&first, &mut random, 200);
    middle.restart();
    in_step(&first, &last);
    assert_eq!((syncs(&first), syncs(&middle)), ((1, 1), (0, 1)));

    first.kill();
    ask(&middle, "REPLICAOF NO ONE");
    load(&middle, &mut random, 200);
    in_step(&middle, &last);
    assert_eq!(syncs(&middle), (0, 2));

    // It restarts as a replica of a primary that is not there, and takes its place again.
    end(&mut middle);
    middle.restart();
    ask(&middle, "REPLICAOF NO ONE");
    load(&middle, &mut random, 200);
    in_step(&middle, &last);
    assert_eq!(field(&middle, "stats", "sync_full"), 0);

    // The old primary has lost all: it is sent a copy, the first.
    first.restart();
    follow(&first, &middle);
    in_step(&middle, &first);
    assert_eq!(field(&middle, "stats", "sync_full"), 1);
}

/// Without replicas for long there is no stream any more, until one comes.
#[test]
fn a_stream_that_nobody_follows_is_given_up() {
    let primary = Server::ferrite(&options().set("repl-backlog-ttl", "1"));
    {
        let replica = Server::ferrite(&replica_of(&primary));
        in_step(&primary, &replica);
    }
    let active = || field(&primary, "replication", "repl_backlog_active");
    assert_eq!(active(), 1);
    eventually("the stream is given up", || active() == 0);
    ask(&primary, "SET a 1");
    let replica = Server::ferrite(&replica_of(&primary));
    in_step(&primary, &replica);
    ask(&primary, "SET b 1");
    in_step(&primary, &replica);
}

/// The append-only file and the stream do not take each other's effects away.
#[test]
fn turning_the_append_only_file_off_leaves_the_stream_on() {
    let primary = Server::ferrite(&options().set("appendonly", "yes"));
    let replica = Server::ferrite(&replica_of(&primary));
    in_step(&primary, &replica);
    ask(&primary, "CONFIG SET appendonly no");
    ask(&primary, "SET a 1");
    in_step(&primary, &replica);
    assert_eq!(ask(&replica, "GET a"), "$1\r\n1\r\n");
}
