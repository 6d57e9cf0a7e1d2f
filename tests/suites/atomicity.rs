//! Commands on several keys are atomic over all shards.

use std::thread;

use tests::server::{Options, Server};

const WRITERS: usize = 4;
const ROUNDS: usize = 500;

fn client(server: &Server) -> redis::Connection {
    let client =
        redis::Client::open(format!("redis://{}/", server.resp_address())).expect("an address");
    client.get_connection().expect("a connection")
}

#[test]
fn class_33_mset_is_seen_as_a_whole_or_not_at_all() {
    let server = Server::start(&Options::new());
    let keys: Vec<String> = (0..8).map(|number| format!("key:{number}")).collect();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (mut connection, keys) = (client(&server), &keys);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let pairs: Vec<(&String, usize)> = keys
                        .iter()
                        .map(|key| (key, writer * ROUNDS + round))
                        .collect();
                    let _: () = redis::Commands::mset(&mut connection, &pairs).expect("MSET");
                }
            });
        }
        let (mut connection, keys) = (client(&server), &keys);
        scope.spawn(move || {
            for _ in 0..ROUNDS {
                let values: Vec<Option<u64>> =
                    redis::Commands::mget(&mut connection, keys).expect("MGET");
                assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
            }
        });
    });
}

#[test]
fn class_33_counters_lose_nothing() {
    let server = Server::start(&Options::new());
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            let mut connection = client(&server);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let _: i64 =
                        redis::Commands::incr(&mut connection, "counter", 1).expect("INCR");
                }
            });
        }
    });
    let total: usize = redis::Commands::get(&mut client(&server), "counter").expect("GET");
    assert_eq!(total, WRITERS * ROUNDS);
}
