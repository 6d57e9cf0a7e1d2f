//! Clients that can be sent elsewhere (CLIENT CAPA REDIRECT) are sent to the primary by a replica.

use tests::server::{Program, missing};

use super::{eventually, ferrites, follow, in_step, options, start};

/// What a client of a replica is told, the primary's port aside.
fn conversation(program: Program) -> Option<Vec<String>> {
    let primary = start(program, &options())?;
    let replica = start(program, &options())?;
    let mut wire = replica.connect();
    let mut told = Vec::new();
    let mut say = |wire: &mut tests::wire::Wire, lines: &[&str]| {
        let port = primary.resp_address().port().to_string();
        told.extend(
            lines
                .iter()
                .map(|line| wire.line(line).replace(&port, "PORT")),
        );
    };
    say(
        &mut wire,
        &["CLIENT CAPA redirect", "MULTI", "SET queued 1"],
    );
    follow(&replica, &primary);
    in_step(&primary, &replica);
    say(
        &mut wire,
        &[
            "EXEC",
            "EXEC",
            "SET a 1",
            "GET a",
            "EXISTS a b",
            "PING",
            "SELECT 1",
            "DBSIZE",
            "KEYS *",
            "PUBLISH channel text",
            "EVAL \"return 1\" 0",
            "MULTI",
            "GET a",
            "EXEC",
            "MULTI",
            "PING",
            "EXEC",
            "READONLY",
            "GET a",
            "MULTI",
            "GET a",
            "EXEC",
            "SET a 1",
            "READWRITE",
            "GET a",
        ],
    );
    // Others are told as before.
    say(&mut replica.connect(), &["GET a", "SET a 1"]);
    Some(told)
}

#[test]
fn clients_are_sent_to_the_primary_as_valkey_sends_them() {
    let ours = conversation(Program::Ferrite).expect("ferrite is there");
    assert_eq!(ours[3], "-REDIRECT 127.0.0.1:PORT\r\n");
    match conversation(Program::Valkey) {
        Some(theirs) => assert_eq!(ours, theirs),
        None => missing("valkey-server"),
    }
}

/// While it is handed over nobody knows who the primary is: who would be sent waits.
#[test]
fn clients_wait_while_the_primary_is_handed_over() {
    let (primary, replica) = ferrites(&options(), &options());
    replica.signal("STOP");
    let mut wire = primary.connect();
    assert_eq!(wire.line("CLIENT CAPA redirect"), "+OK\r\n");
    assert_eq!(wire.line("SET a 1"), "+OK\r\n");
    let target = replica.resp_address();
    let failover = format!("FAILOVER TO 127.0.0.1 {} TIMEOUT 100 FORCE", target.port());
    assert_eq!(wire.line(&failover), "+OK\r\n");
    eventually("it is handed over", || {
        let told = super::ask(&primary, "INFO replication");
        told.contains("master_failover_state:failover-in-progress")
    });
    assert!(
        super::ask(&primary, "INFO clients").contains("paused_reason:failover_in_progress\r\n")
    );
    let [mut plain, mut gone] = [primary.connect(), primary.connect()];
    for writer in [&mut wire, &mut plain, &mut gone] {
        writer.send(b"SET a 2\r\n");
    }
    // Whoever leaves while the pause lasts is missed.
    drop(gone);
    eventually("the one that left is not listed", || {
        super::field(&primary, "clients", "connected_clients") == 3
    });
    replica.signal("CONT");
    let told = wire.reply().expect("an answer");
    let expected = format!("-REDIRECT 127.0.0.1:{}\r\n", target.port());
    assert_eq!(String::from_utf8_lossy(&told), expected);
    let told = plain.reply().expect("an answer");
    assert!(told.starts_with(b"-READONLY"));
}

/// A target that may not be asked for the stream ends the failover at once, FAILOVER ABORT one that waits.
#[test]
fn a_failover_that_fails_leaves_the_primary_as_it_was() {
    let (primary, replica) = ferrites(&options(), &options());
    let state = || {
        let told = super::ask(&primary, "INFO replication");
        let line = told
            .lines()
            .find_map(|line| line.strip_prefix("master_failover_state:"));
        line.expect("it is told").to_owned()
    };
    let target = format!("FAILOVER TO 127.0.0.1 {}", replica.resp_address().port());
    super::ask(&replica, "ACL SETUSER default -psync");
    assert_eq!(super::ask(&primary, &target), "+OK\r\n");
    eventually("it ends", || state() == "no-failover");
    assert!(
        primary
            .log()
            .contains("Failover target rejected psync request")
    );
    super::ask(&replica, "ACL SETUSER default +psync");
    assert_eq!(super::ask(&primary, "SET a 1"), "+OK\r\n");
    in_step(&primary, &replica);
    replica.signal("STOP");
    assert_eq!(super::ask(&primary, "SET a 2"), "+OK\r\n");
    assert_eq!(super::ask(&primary, &target), "+OK\r\n");
    assert_eq!(state(), "waiting-for-sync");
    assert_eq!(super::ask(&primary, "FAILOVER ABORT"), "+OK\r\n");
    assert_eq!(state(), "no-failover");
    let timed = format!("{target} TIMEOUT 100 FORCE");
    assert_eq!(super::ask(&primary, &timed), "+OK\r\n");
    eventually("it is forced", || state() == "failover-in-progress");
    assert!(primary.log().contains("time out exceeded, failing over."));
    replica.signal("CONT");
    eventually("the target takes over", || state() == "no-failover");
    in_step(&replica, &primary);
}
