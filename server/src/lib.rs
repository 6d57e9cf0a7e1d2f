//! The Ferrite server: Redis' and memcached's protocols on one keyspace.
#![forbid(unsafe_code)]

pub mod acl;
pub mod commands;
pub mod config;
pub mod digest;
pub mod dispatch;
pub mod glob;
pub mod lanes;
pub mod log;
pub mod maintenance;
pub mod memcache;
pub mod metrics;
pub mod migration;
pub mod monitor;
pub mod net;
pub mod notify;
pub mod oom_score;
pub mod persistence;
pub mod postponed;
pub mod propagation;
pub mod pubsub;
pub mod reclaim;
pub mod replication;
pub mod runtime;
pub mod scripting;
pub mod server;
pub mod session;
pub mod tracking;
