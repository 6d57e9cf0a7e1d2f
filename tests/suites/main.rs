//! All black-box suites in one test binary: real programs behind sockets, exact bytes or client libraries in front.
//!
//! `FERRITE_REFERENCE=valkey cargo test -p tests` runs the same expectations against the real servers. Random
//! comparisons with them are part (`differential`) and, longer, run on demand: `cargo run -p tests -- --help`.

mod acl;
mod append_only;
mod append_only_files;
mod atomicity;
mod big_values;
mod blocking;
mod client_memory;
mod connection;
mod conversations;
mod crash;
mod crowd;
mod differential;
mod disk;
mod eviction;
mod fixtures;
mod frameworks;
mod geo;
mod hashes;
mod histories;
mod hostile;
mod hyperloglogs;
mod introspection;
mod keys;
mod listening;
mod lists;
mod loading;
mod memcached;
mod memory;
mod migrate;
mod notices;
mod old_files;
mod permissions;
mod pubsub;
mod replication;
mod runaway;
mod scripts;
mod sets;
mod snapshot;
mod sorted_sets;
mod streams;
mod strings;
mod watching;
