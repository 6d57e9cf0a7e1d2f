//! The end of a primary whose replicas are behind: waited for, taken back, forced.

use std::time::Duration;

use tests::server::Server;

use super::{ask, eventually, ferrites, field, in_step, options};

/// A primary with a replica that is stopped and lacks a write.
fn behind() -> (Server, Server) {
    let (primary, replica) = ferrites(&options().set("shutdown-timeout", "300"), &options());
    replica.signal("STOP");
    assert_eq!(ask(&primary, "SET late 1"), "+OK\r\n");
    (primary, replica)
}

fn waits(primary: &Server) -> bool {
    ask(primary, "INFO server").contains("shutdown_in_milliseconds:")
}

const FAILED: &[u8] = b"-ERR Errors trying to SHUTDOWN. Check logs.\r\n";

#[test]
fn the_end_waits_for_a_replica_and_the_server_answers_meanwhile() {
    for by_signal in [false, true] {
        let (mut primary, replica) = behind();
        let mut wires = [primary.connect(), primary.connect(), primary.connect()];
        if by_signal {
            primary.signal("TERM");
        } else {
            wires
                .iter_mut()
                .for_each(|wire| wire.send(b"SHUTDOWN NOSAVE\r\n"));
            eventually("three clients wait", || {
                field(&primary, "clients", "blocked_clients") == 3
            });
        }
        eventually("the server waits", || waits(&primary));
        let left = field(&primary, "server", "shutdown_in_milliseconds");
        assert!(left > 200_000 && left <= 300_000, "{left}");
        assert_eq!(ask(&primary, "GET late"), "$1\r\n1\r\n");
        replica.signal("CONT");
        assert!(primary.wait(Duration::from_secs(20)).is_some());
        let log = primary.log();
        assert!(log.contains("1 of 1 replicas are in sync when shutting down."));
        assert!(!log.contains("Lagging replica"));
        assert_eq!(ask(&replica, "GET late"), "$1\r\n1\r\n");
    }
}

#[test]
fn the_end_is_taken_back() {
    let (primary, replica) = behind();
    assert_eq!(
        ask(&primary, "SHUTDOWN ABORT"),
        "-ERR No shutdown in progress.\r\n"
    );
    let mut wires = [primary.connect(), primary.connect()];
    wires.iter_mut().for_each(|wire| wire.send(b"SHUTDOWN\r\n"));
    eventually("the server waits", || {
        waits(&primary) && field(&primary, "clients", "blocked_clients") == 2
    });
    assert_eq!(ask(&primary, "SHUTDOWN ABORT"), "+OK\r\n");
    for wire in &mut wires {
        assert_eq!(wire.reply().expect("an answer"), FAILED);
    }
    assert!(primary.log().contains("Shutdown manually aborted"));
    // All goes on as before.
    assert!(!waits(&primary));
    replica.signal("CONT");
    assert_eq!(ask(&primary, "SET more 1"), "+OK\r\n");
    in_step(&primary, &replica);
}

#[test]
fn the_end_comes_without_a_replica_after_the_timeout_and_at_once_if_it_is_urgent() {
    for words in ["SHUTDOWN NOSAVE", "SHUTDOWN NOSAVE NOW"] {
        let (mut primary, replica) = behind();
        let urgent = words.ends_with("NOW");
        if !urgent {
            ask(&primary, "CONFIG SET shutdown-timeout 1");
        }
        primary.connect().send(format!("{words}\r\n").as_bytes());
        assert!(primary.wait(Duration::from_secs(20)).is_some());
        let log = primary.log();
        assert_eq!(log.contains("Waiting for replicas"), !urgent);
        assert!(log.contains("Lagging replica"));
        assert!(log.contains("0 of 1 replicas are in sync when shutting down."));
        replica.signal("CONT");
    }
}

/// A client that waits for the end and leaves takes nothing back.
#[test]
fn who_asked_for_the_end_may_leave() {
    let (mut primary, replica) = behind();
    let mut wire = primary.connect();
    wire.send(b"SHUTDOWN NOSAVE\r\n");
    eventually("the server waits", || waits(&primary));
    drop(wire);
    replica.signal("CONT");
    assert!(primary.wait(Duration::from_secs(20)).is_some());
}
