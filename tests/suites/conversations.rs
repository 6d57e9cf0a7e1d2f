//! Random conversations of several connections with Ferrite and the real Valkey: everything that each connection
//! receives, replies and pushes, must be the same bytes in the same order.
//!
//! A failure prints its seed and the steps that are needed to show it; `FERRITE_SEED=N FERRITE_CONVERSATIONS=500 cargo
//! test -p tests --test suites conversations` has longer ones.

use std::fmt::Write;

use tests::conversation::{WORKERS, compare, invent};
use tests::random::Random;
use tests::server::{Options, Server, in_ci, missing};

/// Steps of one conversation.
const STEPS: usize = 100;
const CONVERSATIONS: usize = 10;
const CONVERSATIONS_IN_CI: usize = 60;
/// Reports that a failure shows at most.
const MAX_DIFFERENCES: usize = 3;

#[test]
fn connections_are_told_the_same_in_the_same_order() {
    let Some(reference) = Server::valkey(&Options::new()) else {
        return missing("valkey-server");
    };
    let tested = Server::start(&Options::new().set("io-threads", &WORKERS.to_string()));
    let servers = [tested.resp_address(), reference.resp_address()];
    let seed = Random::seed_of_this_run();
    let mut random = Random::new(seed);
    let mut report = String::new();
    let mut found = 0;
    for number in 0..conversations() {
        let steps = invent(&mut random, STEPS);
        if let Some(difference) = compare(servers, &steps) {
            let _ = writeln!(report, "=== conversation {number}\n{difference}\n");
            found += 1;
            if found == MAX_DIFFERENCES {
                break;
            }
        }
    }
    assert_eq!(found, 0, "conversations differ, seed {seed}\n{report}");
}

fn conversations() -> usize {
    match std::env::var("FERRITE_CONVERSATIONS") {
        Ok(text) => text.parse().expect("FERRITE_CONVERSATIONS is a number"),
        Err(_) if in_ci() => CONVERSATIONS_IN_CI,
        Err(_) => CONVERSATIONS,
    }
}
