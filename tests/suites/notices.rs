//! Keyspace events and invalidations of random commands: Ferrite tells the same as the real Valkey, in the same order.

use std::fmt::Write;

use tests::grammar::named;
use tests::notices::compare;
use tests::random::Random;
use tests::server::{Options, Server, in_ci, missing};

/// Commands per group.
const COMMANDS: usize = 2_000;
const COMMANDS_IN_CI: usize = 10_000;
/// Reports that a failure shows at most.
const MAX_DIFFERENCES: usize = 10;

macro_rules! groups {
    ($($test:ident: $group:literal,)*) => {
        $(
            #[test]
            fn $test() {
                listeners_are_told_the_same($group);
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
}

fn listeners_are_told_the_same(group: &str) {
    let options = Options::new().set("enable-debug-command", "yes");
    let Some(reference) = Server::valkey(&options) else {
        return missing("valkey-server");
    };
    let tested = Server::start(&options);
    let servers = [tested.resp_address(), reference.resp_address()];
    let seed = Random::seed_of_this_run();
    let commands = if in_ci() { COMMANDS_IN_CI } else { COMMANDS };
    let differences = compare(servers, named(group), commands, seed, MAX_DIFFERENCES);
    let mut report = String::new();
    for difference in &differences {
        let _ = writeln!(report, "{difference}\n");
    }
    assert!(
        differences.is_empty(),
        "{group}: listeners are told different things, seed {seed}\n{report}"
    );
}
