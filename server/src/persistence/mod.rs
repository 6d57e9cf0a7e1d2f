//! Data on disk.

pub mod aof;
pub mod recovery;
pub mod snapshot;
