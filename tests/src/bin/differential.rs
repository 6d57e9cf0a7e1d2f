//! `cargo run -p tests --bin differential -- --group hash --commands 1000000 [--seed N] [--resp 3] [--batch 1] [--mismatches 20]
//! [--tested host:port] [--reference host:port]`: random commands against Ferrite and a real server, on demand.
//!
//! Without addresses it starts the servers itself; `--tested valkey` starts a second reference instead of Ferrite, which
//! checks the grammar itself.

use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Instant;

use tests::differential::{Run, run};
use tests::grammar::{GRAMMARS, Grammar, Protocol};
use tests::random::Random;
use tests::server::{Options, Server};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| -> Option<String> {
        let position = arguments
            .iter()
            .position(|argument| argument.strip_prefix("--") == Some(name))?;
        arguments.get(position + 1).cloned()
    };
    let number = |name: &str, default: u64| -> u64 {
        option(name).map_or(default, |text| {
            text.parse()
                .unwrap_or_else(|_| panic!("--{name} takes a number"))
        })
    };
    let group = option("group").unwrap_or_else(|| "all".to_owned());
    let chosen: Vec<&'static Grammar> = GRAMMARS
        .iter()
        .filter(|grammar| group == "all" || group.split(',').any(|name| name == grammar.name))
        .collect();
    if chosen.is_empty() {
        let names: Vec<&str> = GRAMMARS.iter().map(|grammar| grammar.name).collect();
        eprintln!(
            "--group is one or more (with commas) of: all {}",
            names.join(" ")
        );
        return ExitCode::FAILURE;
    }
    let mut found = 0;
    for grammar in chosen {
        let servers = Servers::start(grammar.protocol, option("tested"), option("reference"));
        let plan = Run {
            grammar,
            commands: number("commands", 100_000) as usize,
            seed: option("seed").map_or_else(Random::seed_of_this_run, |text| {
                text.parse().expect("--seed takes a number")
            }),
            resp: number("resp", 2) as u8,
            batch: option("batch").map(|text| text.parse().expect("--batch takes a number")),
            max_mismatches: number("mismatches", 20) as usize,
        };
        let started = Instant::now();
        let (sent, mismatches) = run(&plan, servers.tested, servers.reference);
        for mismatch in &mismatches {
            println!("{mismatch}\n");
        }
        found += mismatches.len();
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{}: {sent} commands, seed {}, {} mismatches, {seconds:.1} s",
            grammar.name,
            plan.seed,
            mismatches.len()
        );
    }
    if found == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The two addresses, and whatever had to be started for them.
struct Servers {
    tested: SocketAddr,
    reference: SocketAddr,
    _started: Vec<Server>,
}

impl Servers {
    fn start(protocol: Protocol, tested: Option<String>, reference: Option<String>) -> Self {
        let mut started = Vec::new();
        let mut address = |place: Option<String>, is_reference: bool| -> SocketAddr {
            // memcached's own background threads touch items at times that no test controls.
            let options = Options::new()
                .memcached_argument("-o")
                .memcached_argument("no_lru_crawler,no_lru_maintainer");
            let server = match place.as_deref() {
                None if !is_reference => Server::ferrite(&options),
                None | Some("valkey" | "memcached") => match protocol {
                    Protocol::Resp => Server::valkey(&options)
                        .expect("valkey-server is installed (tests/peers.sh)"),
                    Protocol::Memcached => Server::memcached(&options)
                        .expect("memcached is installed (tests/peers.sh)"),
                },
                Some(place) => {
                    return place
                        .to_socket_addrs()
                        .expect("host:port")
                        .next()
                        .expect("the host has an address");
                }
            };
            let address = match protocol {
                Protocol::Resp => server.resp_address(),
                Protocol::Memcached => server.memcached_address(),
            };
            started.push(server);
            address
        };
        let (tested, reference) = (address(tested, false), address(reference, true));
        Self {
            tested,
            reference,
            _started: started,
        }
    }
}
