//! How much a client may announce.

/// Bounds on what one request may contain.
///
/// They are checked when a length is announced, before anything is stored for it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one argument: the setting `proto-max-bulk-len`.
    pub max_bulk_len: usize,
    /// Arguments of one request.
    pub max_args: usize,
    /// Bytes of an inline request, and of the lines that announce lengths.
    pub max_inline_len: usize,
    /// Strangers get [`UNAUTHENTICATED_MAX_BULK_LEN`] and errors of their own.
    pub authenticated: bool,
}

/// Default of `proto-max-bulk-len`: 512 MiB.
pub const DEFAULT_MAX_BULK_LEN: usize = 512 * 1024 * 1024;

/// Bytes that a line may have before its end must show.
pub const MAX_INLINE_LEN: usize = 64 * 1024;

/// Arguments a client may send before it has authenticated: enough for `HELLO 3 AUTH user password SETNAME name`.
pub const UNAUTHENTICATED_MAX_ARGS: usize = 10;

/// Bytes of one argument before authentication.
pub const UNAUTHENTICATED_MAX_BULK_LEN: usize = 16 * 1024;

impl Limits {
    /// The limits of a client that may use the server.
    pub const fn authenticated() -> Self {
        Limits {
            max_bulk_len: DEFAULT_MAX_BULK_LEN,
            max_args: i32::MAX as usize,
            max_inline_len: MAX_INLINE_LEN,
            authenticated: true,
        }
    }

    /// The limits of a client that has yet to say who it is.
    pub const fn unauthenticated() -> Self {
        Limits {
            max_bulk_len: DEFAULT_MAX_BULK_LEN,
            max_args: UNAUTHENTICATED_MAX_ARGS,
            max_inline_len: MAX_INLINE_LEN,
            authenticated: false,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits::authenticated()
    }
}
