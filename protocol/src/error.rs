//! What makes a stream unreadable.
//!
//! After any of these the position in the stream is lost: the peer is told and the connection closed.

use std::fmt;

/// A malformed request or reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The number after `*` is not a number, or more than may be announced.
    InvalidMultibulkLength,
    /// The number after `$` is not a number, is negative, or more than may be announced.
    InvalidBulkLength,
    /// An argument began with this byte instead of `$`.
    ExpectedBulk(u8),
    /// A carriage return without line feed, or something else where both were due.
    InvalidLineEnding,
    /// The line with the number of arguments does not end.
    TooBigMultibulkCount,
    /// The line with the length of an argument does not end.
    TooBigBulkCount,
    /// An inline request does not end.
    TooBigInline,
    /// An inline request ends within quotes.
    UnbalancedQuotes,
    /// More arguments than a client may send before it has authenticated.
    UnauthenticatedMultibulkLength,
    /// A longer argument than a client may send before it has authenticated.
    UnauthenticatedBulkLength,
    /// A reply that is not RESP, for the stated reason.
    InvalidReply(&'static str),
}

impl Error {
    /// Appends the text a client is shown, without `-ERR ` and line end. It is bytes rather than text because it may
    /// quote a byte that the client sent.
    pub fn write_message(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Protocol error: ");
        match self {
            Error::ExpectedBulk(found) => {
                out.extend_from_slice(b"expected '$', got '");
                out.push(*found);
                out.push(b'\'');
            }
            other => out.extend_from_slice(other.reason().as_bytes()),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Error::InvalidMultibulkLength => "invalid multibulk length",
            Error::InvalidBulkLength => "invalid bulk length",
            Error::ExpectedBulk(_) => "expected '$'",
            Error::InvalidLineEnding => "invalid CRLF in request",
            Error::TooBigMultibulkCount => "too big mbulk count string",
            Error::TooBigBulkCount => "too big bulk count string",
            Error::TooBigInline => "too big inline request",
            Error::UnbalancedQuotes => "unbalanced quotes in request",
            Error::UnauthenticatedMultibulkLength => "unauthenticated multibulk length",
            Error::UnauthenticatedBulkLength => "unauthenticated bulk length",
            Error::InvalidReply(reason) => reason,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut message = Vec::new();
        self.write_message(&mut message);
        f.write_str(&String::from_utf8_lossy(&message))
    }
}

impl std::error::Error for Error {}
