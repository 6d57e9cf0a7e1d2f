//! Random commands against Ferrite and the real servers; see `tests::differential`.
//!
//! With `FERRITE_REFERENCE=valkey` both sides are the real server, which checks the grammars.

use tests::differential::{Run, run};
use tests::grammar::{Protocol, named};
use tests::random::Random;
use tests::server::{Options, Server, missing};

/// Runs a grammar for about so many commands; RESP groups once per protocol version.
#[track_caller]
fn agree(group: &str, commands: usize) {
    let grammar = named(group);
    // memcached's own background threads touch items at times that no test controls.
    let options = Options::new()
        .memcached_argument("-o")
        .memcached_argument("no_lru_crawler,no_lru_maintainer");
    let is_resp = grammar.protocol == Protocol::Resp;
    let reference = if is_resp {
        Server::valkey(&options)
    } else {
        Server::memcached(&options)
    };
    let Some(reference) = reference else {
        return missing(if is_resp {
            "valkey-server"
        } else {
            "memcached"
        });
    };
    let tested = Server::start(&options);
    let addresses = |server: &Server| {
        if is_resp {
            server.resp_address()
        } else {
            server.memcached_address()
        }
    };
    let versions: &[u8] = if is_resp { &[2, 3] } else { &[2] };
    for &resp in versions {
        let commands = commands / versions.len();
        let seed = Random::seed_of_this_run();
        let plan = Run {
            grammar,
            commands,
            seed,
            resp,
            batch: None,
            max_mismatches: 5,
        };
        let (sent, mismatches) = run(&plan, addresses(&tested), addresses(&reference));
        let report: Vec<String> = mismatches.iter().map(ToString::to_string).collect();
        assert!(
            mismatches.is_empty(),
            "{group}, seed {seed}, {sent} commands\n{}",
            report.join("\n")
        );
    }
}

#[test]
fn string_commands_answer_as_valkey_does() {
    agree("string", 200_000);
}

#[test]
fn bitmap_commands_answer_as_valkey_does() {
    agree("bitmap", 150_000);
}

#[test]
fn generic_commands_answer_as_valkey_does() {
    agree("generic", 200_000);
}

#[test]
fn memcached_commands_answer_as_memcached_does() {
    agree("memcached", 100_000);
}

#[test]
fn memcached_arithmetic_answers_as_memcached_does() {
    agree("memcached-arithmetic", 20_000);
}
