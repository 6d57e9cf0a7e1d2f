//! Data on disk.

pub mod aof;
