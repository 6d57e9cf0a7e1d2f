//! Keys, values and everything that happens to them, without sockets, files or the clock.

pub mod hash;
pub mod time;
pub mod value;
