//! Data on disk.

pub mod aof;
mod data_file;
pub mod loader;
pub mod loading;
pub mod recovery;
pub mod snapshot;
pub mod trouble;

#[cfg(test)]
mod tests;
