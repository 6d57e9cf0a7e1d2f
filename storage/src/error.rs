//! What can go wrong when data is read or changed. The wording of replies is the server's.

use std::fmt;

/// Why a command could not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The key holds a value of another type.
    WrongType,
    /// The value (or argument) is not a 64-bit signed integer.
    NotAnInteger,
    /// The value (or argument) is not a finite number.
    NotAFloat,
    /// An increment or decrement would leave the range of the number.
    Overflow,
    /// A string would grow beyond the configured limit.
    TooLarge,
    /// The memory limit is reached and the policy evicts nothing.
    OutOfMemory,
}

/// A shard's lock is kept by somebody who will not release it soon: a script that runs for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::WrongType => "the key holds a value of another type",
            Error::NotAnInteger => "not an integer or out of range",
            Error::NotAFloat => "not a valid float",
            Error::Overflow => "increment or decrement would overflow",
            Error::TooLarge => "string exceeds maximum allowed size",
            Error::OutOfMemory => "memory limit reached",
        })
    }
}

impl std::error::Error for Error {}
