//! All black-box suites in one test binary: real programs behind sockets, exact bytes or client libraries in front.
//!
//! `FERRITE_REFERENCE=valkey cargo test -p tests` runs the same expectations against the real servers.

mod differential;
