//! The Ferrite server as a library.

#![forbid(unsafe_code)]

pub mod config;
pub mod glob;
