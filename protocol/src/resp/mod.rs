//! RESP, the Redis serialization protocol, versions 2 and 3.
//!
//! The server reads with [`request`] (which leaves telnet's plain lines to [`inline`]) and answers with [`reply`]; its
//! own clients read answers with [`value`].

pub mod double;
pub mod inline;
pub mod reply;
pub mod request;
pub mod value;
