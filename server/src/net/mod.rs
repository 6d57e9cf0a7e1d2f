//! Sockets: accepting connections, reading requests, writing replies.

pub mod connection;
pub mod descriptors;
pub mod listener;
pub mod resp;
pub mod stream;
