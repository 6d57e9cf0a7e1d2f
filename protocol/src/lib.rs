//! Bytes in, requests out; replies in, bytes out.
//!
//! The wire formats of the server and of its own clients. Nothing here does I/O, reads a clock or knows what a command
//! means.
//!
//! Two rules hold everywhere: the result is the same however the input is split, and no input makes it panic or
//! allocate more than a small multiple of what has arrived.

#![forbid(unsafe_code)]

pub mod error;
pub mod limits;
pub mod memcache;
pub mod number;
pub mod output;
pub mod resp;

pub use error::Error;
pub use limits::Limits;
