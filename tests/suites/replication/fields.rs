//! What INFO, ROLE and CLIENT tell of replication: the same as Valkey, name by name.

use std::{thread, time::Duration};

use tests::server::{Program, Server, missing};

use super::{ask, eventually, field, follow, in_step, is_up, options, start};

/// Names of INFO's lines, with the words of those that consist of some.
fn names(server: &Server) -> Vec<String> {
    let text = ask(server, "INFO replication");
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields
        .map(|(name, value)| {
            let words = value.split(',').filter_map(|word| word.split_once('='));
            let words: Vec<&str> = words.map(|(word, _)| word).collect();
            format!("{name} {}", words.join(","))
        })
        .collect()
}

/// Values that do not depend on time, offsets and names.
fn values(server: &Server) -> Vec<String> {
    let steady = [
        "role",
        "master_link_status",
        "master_sync_in_progress",
        "slave_priority",
        "slave_read_only",
        "replica_announced",
        "connected_slaves",
        "min_slaves_good_slaves",
        "replicas_waiting_psync",
        "master_failover_state",
        "repl_backlog_active",
        "repl_backlog_size",
        "repl_backlog_first_byte_offset",
    ];
    let text = ask(server, "INFO replication");
    let lines = text.lines().filter(|line| {
        let name = line.split(':').next().unwrap_or_default();
        steady.contains(&name)
    });
    lines.map(str::to_owned).collect()
}

/// The reply with every number masked.
fn masked(reply: &str) -> String {
    let mut text = String::new();
    for line in reply.lines() {
        let number = line.trim_start_matches([':', '-', '$']);
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        text += if is_number { "N" } else { line };
        text += "\n";
    }
    text
}

/// What a primary and its replica tell, one look after the other.
fn tell(program: Program) -> Option<Vec<(&'static str, Vec<String>)>> {
    let mut primary = start(program, &options())?;
    let replica = start(program, &options())?;
    let mut told = Vec::new();
    let mut look = |when: &'static str, server: &Server| {
        let mut all = names(server);
        all.extend(values(server));
        all.push(masked(&ask(server, "ROLE")));
        told.push((when, all));
    };
    look("alone", &primary);
    follow(&replica, &primary);
    in_step(&primary, &replica);
    ask(&primary, "SET a 1");
    in_step(&primary, &replica);
    eventually("the replica has acknowledged", || {
        primary.connect().line("WAIT 1 1000") == ":1\r\n"
    });
    look("the primary", &primary);
    look("the replica", &replica);
    ask(&primary, "CONFIG SET min-replicas-to-write 1");
    look("the primary that wants replicas", &primary);
    ask(&primary, "CONFIG SET min-replicas-to-write 0");
    let kinds = [
        (&primary, "replica"),
        (&primary, "slave"),
        (&primary, "primary"),
        (&replica, "primary"),
        (&replica, "master"),
        (&replica, "replica"),
    ];
    let mut clients = Vec::new();
    for (server, kind) in kinds {
        let list = ask(server, &format!("CLIENT LIST TYPE {kind}"));
        let flags = list.split(' ').filter(|word| word.starts_with("flags="));
        clients.push(format!("{kind} {:?}", flags.collect::<Vec<_>>()));
    }
    clients.push(ask(&primary, "CLIENT KILL TYPE replica"));
    eventually("the link is up again", || {
        field(&primary, "stats", "sync_partial_ok") == 1 && is_up(&replica)
    });
    clients.push(ask(&replica, "CLIENT KILL TYPE primary"));
    eventually("the link is up again", || {
        field(&primary, "stats", "sync_partial_ok") == 2 && is_up(&replica)
    });
    clients.push(ask(&replica, "CLIENT KILL TYPE replica"));
    primary.kill();
    eventually("the link is down", || !is_up(&replica));
    thread::sleep(Duration::from_millis(1100));
    look("the replica of a dead primary", &replica);
    ask(&replica, "REPLICAOF NO ONE");
    look("the promoted", &replica);
    told.push(("clients", clients));
    Some(told)
}

#[test]
fn what_is_told_of_replication_is_what_valkey_tells() {
    let Some(theirs) = tell(Program::Valkey) else {
        missing("valkey-server");
        return;
    };
    let ours = tell(Program::Ferrite).expect("ferrite is built on demand");
    for ((when, ours), (_, theirs)) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs, "{when}");
    }
}
