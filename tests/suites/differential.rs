//! Random commands of every grammar group against Ferrite and the real server, which must give the same replies.
//!
//! Not `script`, in which about one command in 8,000 still differs: it runs on demand.
//!
//! A longer run of one group, or the run of a seed that a failure printed: `cargo run -p tests --bin differential -- --group
//! hash --commands 1000000 --seed N --resp 3`.

use std::fmt::Write;

use tests::differential::{Run, run};
use tests::grammar::{Protocol, named};
use tests::random::Random;
use tests::server::{Options, Server, in_ci, missing};

/// Commands per group and protocol.
const COMMANDS: usize = 3_000;
/// More than a million in all.
const COMMANDS_IN_CI: usize = 40_000;
/// Reports that a failure shows at most.
const MAX_MISMATCHES: usize = 3;

macro_rules! groups {
    ($($test:ident: $group:literal,)*) => {
        $(
            #[test]
            fn $test() {
                compare($group);
            }
        )*
    };
}

groups! {
    string: "string",
    bitmap: "bitmap",
    generic: "generic",
    hash: "hash",
    hyperloglog: "hyperloglog",
    dump: "dump",
    list: "list",
    set: "set",
    geo: "geo",
    sorted_set: "sorted_set",
    sort: "sort",
    stream: "stream",
    memcached: "memcached",
    memcached_arithmetic: "memcached-arithmetic",
}

fn compare(group: &str) {
    let grammar = named(group);
    // memcached's own background threads touch items at times that no test controls.
    let options = Options::new()
        .memcached_argument("-o")
        .memcached_argument("no_lru_crawler,no_lru_maintainer");
    let (reference, protocols): (_, &[u8]) = match grammar.protocol {
        Protocol::Resp => (Server::valkey(&options), &[2, 3]),
        Protocol::Memcached => (Server::memcached(&options), &[2]),
    };
    let Some(reference) = reference else {
        return missing(match grammar.protocol {
            Protocol::Resp => "valkey-server",
            Protocol::Memcached => "memcached",
        });
    };
    let tested = Server::start(&options);
    let addresses = [&tested, &reference].map(|server| match grammar.protocol {
        Protocol::Resp => server.resp_address(),
        Protocol::Memcached => server.memcached_address(),
    });
    for &resp in protocols {
        let plan = Run {
            grammar,
            commands: if in_ci() { COMMANDS_IN_CI } else { COMMANDS },
            seed: Random::seed_of_this_run(),
            resp,
            batch: None,
            max_mismatches: MAX_MISMATCHES,
        };
        let (sent, mismatches) = run(&plan, addresses[0], addresses[1]);
        println!("{group}: {sent} commands, RESP{resp}, seed {}", plan.seed);
        let mut report = String::new();
        for mismatch in &mismatches {
            let _ = writeln!(report, "{mismatch}\n");
        }
        assert!(
            mismatches.is_empty(),
            "{group}: {} mismatches in {sent} commands, seed {}\n{report}",
            mismatches.len(),
            plan.seed
        );
    }
}
