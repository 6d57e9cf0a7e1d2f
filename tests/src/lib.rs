//! The black-box harness: everything here talks to servers over sockets and knows nothing of their insides.
//!
//! - [`server`] starts and stops servers: Ferrite itself, and the real Valkey and memcached as references.
//! - [`wire`] is a plain client that shows the exact bytes of each reply.
//! - [`table`] checks tables of request and expected reply.
//! - [`differential`] sends the same random commands to two servers and compares all they say;
//!   [`grammar`] invents the commands, [`random`] the dice.
//! - [`notices`] does so and compares what those are told who listen to keyspace events and invalidations.
//! - [`conversation`] does so with several connections at once, and compares pushes and their order too.
//! - [`ending`] ends the threads of a test that fails.
//! - [`proxy`] stands between servers and cuts or stalls their connections.
//!
//! `FERRITE_REFERENCE=valkey` points the suites at the real servers instead of Ferrite: a test that fails there states
//! something wrong. `FERRITE_BIN` names a ready-built Ferrite, otherwise it is built first. `PEERS_DIR` says where
//! `tests/peers.sh` put the real servers.

#![forbid(unsafe_code)]

pub mod conversation;
pub mod differential;
pub mod ending;
pub mod grammar;
pub mod notices;
pub mod proxy;
pub mod random;
pub mod server;
pub mod table;
pub mod wire;
