//! Moving a live Valkey to Ferrite and back, by the commands that docs/replication.md gives, with clients that write
//! all the time.

use std::{
    net::SocketAddr,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tests::{
    ending::Ending,
    server::{Server, locate_peer, missing},
    wire::{Wire, encode},
};

use super::{ask, eventually, in_step, options};

/// The ports that the document's commands name.
const VALKEY_PORT: &str = "6379";
const FERRITE_PORT: &str = "7000";

/// The commands of the document's first block that go to servers.
fn documented() -> Vec<Vec<String>> {
    let text = include_str!("../../../docs/replication.md");
    let (_, rest) = text.split_once("```\n").expect("there is a block");
    let (block, _) = rest.split_once("```").expect("it ends");
    block
        .lines()
        .filter_map(|line| line.split('#').next()?.trim().strip_prefix("valkey-cli "))
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect()
}

/// Counts on whichever of the two accepts writes; returns what was acknowledged.
fn count(servers: [SocketAddr; 2], current: &Mutex<usize>, stop: &AtomicBool) -> u64 {
    let mut acknowledged = 0;
    while !stop.load(Ordering::Relaxed) {
        let at = *current.lock().expect("no thread panics");
        let mut wire = Wire::connect(servers[at]);
        loop {
            let mut request = Vec::new();
            encode(&["INCR", "counted"], &mut request);
            wire.send(&request);
            let reply = wire.reply().unwrap_or_default();
            if !reply.starts_with(b":") {
                // It is a replica now: the other one has taken over.
                *current.lock().expect("no thread panics") = 1 - at;
                break;
            }
            acknowledged += 1;
            if stop.load(Ordering::Relaxed) {
                break;
            }
            thread::sleep(Duration::from_micros(300));
        }
    }
    acknowledged
}

#[test]
fn a_live_valkey_moves_to_ferrite_and_back_as_the_document_says() {
    let (Some(valkey), Some(program)) = (Server::valkey(&options()), locate_peer("valkey-cli"))
    else {
        missing("valkey-server");
        return;
    };
    let ferrite = Server::ferrite(&options().set("memcached-port", "0"));
    let ports = [valkey.resp_address().port(), ferrite.resp_address().port()];
    let run = |words: &[String], ports: [u16; 2]| {
        let words = words.iter().map(|word| match word.as_str() {
            VALKEY_PORT => ports[0].to_string(),
            FERRITE_PORT => ports[1].to_string(),
            word => word.to_owned(),
        });
        let output = Command::new(&program)
            .args(words)
            .output()
            .expect("valkey-cli can be run");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let commands = documented();
    assert_eq!(commands.len(), 3, "{commands:?}");
    for key in 0..2000 {
        ask(&valkey, &format!("SET key:{key} {key}"));
    }
    let stop = AtomicBool::new(false);
    let current = Mutex::new(0);
    let addresses = [valkey.resp_address(), ferrite.resp_address()];
    let acknowledged = thread::scope(|scope| {
        let ending = Ending(&stop);
        let writers: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| count(addresses, &current, &stop)))
            .collect();
        // There and back: the same commands with the parts exchanged.
        for there in [true, false] {
            let ports = if there { ports } else { [ports[1], ports[0]] };
            let [new, old] = if there {
                [&ferrite, &valkey]
            } else {
                [&valkey, &ferrite]
            };
            if there {
                assert_eq!(run(&commands[0], ports), "OK\n");
            }
            eventually("the link is up", || {
                run(&commands[1], ports).contains("master_link_status:up")
            });
            // The primary may have to hear first that its replica is up.
            eventually("the primary hands over", || {
                run(&commands[2], ports) == "OK\n"
            });
            eventually("the parts are exchanged", || {
                ask(new, "ROLE").contains("master") && ask(old, "ROLE").contains("slave")
            });
            thread::sleep(Duration::from_millis(300));
        }
        drop(ending);
        let counts = writers
            .into_iter()
            .map(|writer| writer.join().expect("it goes on"));
        counts.sum::<u64>()
    });
    in_step(&valkey, &ferrite);
    let counted = ask(&valkey, "GET counted");
    let counted: u64 = counted
        .lines()
        .nth(1)
        .and_then(|line| line.parse().ok())
        .expect("a number");
    // None that was acknowledged is missing; one under way at each hand-over may have been counted unseen.
    assert!(
        counted >= acknowledged && acknowledged > 100,
        "{counted} {acknowledged}"
    );
    assert!(counted <= acknowledged + 4, "{counted} {acknowledged}");
    assert_eq!(ask(&ferrite, "GET key:1999"), "$4\r\n1999\r\n");
}
