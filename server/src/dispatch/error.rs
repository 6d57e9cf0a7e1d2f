//! Errors as clients read them: an [`Error`] *is* the reply, and all its wording is here.

use std::borrow::Cow;

/// The text of an error reply, without the leading `-`: a code, a space, a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Cow<'static, [u8]>);

macro_rules! errors {
    ($($name:ident = $text:literal;)*) => {
        $(pub const $name: Error = Error(Cow::Borrowed($text.as_bytes()));)*
    };
}

impl Error {
    errors! {
        WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value";
        NOT_AN_INTEGER = "ERR value is not an integer or out of range";
        NOT_A_FLOAT = "ERR value is not a valid float";
        OVERFLOW = "ERR increment or decrement would overflow";
        TOO_LARGE = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
        OUT_OF_MEMORY = "OOM command not allowed when used memory > 'maxmemory'.";
        SYNTAX = "ERR syntax error";
        NO_SUCH_KEY = "ERR no such key";
        MISCONF = "MISCONF Valkey is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands that may modify the data set are disabled, because this instance is configured to report errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the Valkey logs for details about the RDB error.";
        BUSY = "BUSY Valkey is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
        LOADING = "LOADING Valkey is loading the dataset in memory";
        NO_AUTH = "NOAUTH Authentication required.";
        WRONG_PASS = "WRONGPASS invalid username-password pair or user is disabled.";
        NO_PROTO = "NOPROTO unsupported protocol version";
        OUTSIDE_I32 = "ERR value is out of range, value must between -2147483648 and 2147483647";
        DB_INDEX = "ERR DB index is out of range";
        SAME_OBJECT = "ERR source and destination objects are the same";
        OFFSET_RANGE = "ERR offset is out of range";
        INDEX_RANGE = "ERR index out of range";
        NOT_POSITIVE = "ERR value is out of range, must be positive";
        OUTSIDE_SYMMETRIC = "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807";
        NAN_OR_INFINITY = "ERR increment would produce NaN or Infinity";
        EXEC_WITHOUT_MULTI = "ERR EXEC without MULTI";
        DISCARD_WITHOUT_MULTI = "ERR DISCARD without MULTI";
        READ_ONLY = "READONLY You can't write against a read only replica.";
        PRIMARY_DOWN = "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";
        NO_REPLICAS = "NOREPLICAS Not enough good replicas to write.";
        UNBLOCKED = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
        ROLE_CHANGED = "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";
        EXEC_ABORT = "EXECABORT Transaction discarded because of previous errors.";
    }

    /// An error of the general kind: `ERR ` and the sentence.
    pub fn general(sentence: impl AsRef<[u8]>) -> Error {
        Error::new([b"ERR ", sentence.as_ref()].concat())
    }

    /// The whole text, code included.
    pub fn new(text: impl Into<Vec<u8>>) -> Error {
        Error(Cow::Owned(text.into()))
    }

    /// The whole text, code included, when it is known beforehand.
    pub const fn from_static(text: &'static str) -> Error {
        Error(Cow::Borrowed(text.as_bytes()))
    }

    /// `name` is the full name in lower case: `get`, `client|list`.
    pub fn wrong_arity(name: &str) -> Error {
        Error::general(format!("wrong number of arguments for '{name}' command"))
    }

    /// `name` as for [`Error::wrong_arity`].
    pub fn not_in_transaction(name: &str) -> Error {
        Error::general(format!("Command '{name}' not allowed inside a transaction"))
    }

    /// A queued command that was allowed when it was queued and is not any more.
    pub fn acl_changed(reason: &str) -> Error {
        Error::new(format!(
            "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This \
             command is no longer allowed for the following reason: {reason}"
        ))
    }

    /// The client is to ask the primary, which is there.
    pub fn redirect(host: &str, port: u16) -> Error {
        Error::new(format!("REDIRECT {host}:{port}"))
    }

    /// EXEC itself was refused, and with it the transaction.
    pub fn exec_refused(reason: &Error) -> Error {
        let reason = reason.as_bytes();
        let reason = reason.strip_prefix(b"ERR ").unwrap_or(reason);
        Error::new([b"EXECABORT Transaction discarded because of: ", reason].concat())
    }

    /// Names the command and the beginning of its arguments, each cut to 128 bytes in all.
    pub fn unknown_command<'a>(name: &[u8], args: impl Iterator<Item = &'a [u8]>) -> Error {
        const SHOWN: usize = 128;
        let mut text = b"unknown command '".to_vec();
        text.extend_from_slice(&name[..name.len().min(SHOWN)]);
        text.extend_from_slice(b"', with args beginning with: ");
        let start = text.len();
        for arg in args {
            let used = text.len() - start;
            if used >= SHOWN {
                break;
            }
            text.push(b'\'');
            text.extend_from_slice(&arg[..arg.len().min(SHOWN - used)]);
            text.extend_from_slice(b"' ");
        }
        Error::general(text)
    }

    /// `container` in upper case, as its help is asked for.
    pub fn unknown_subcommand(container: &str, name: &[u8]) -> Error {
        let mut text = b"unknown subcommand '".to_vec();
        text.extend_from_slice(&name[..name.len().min(128)]);
        text.extend_from_slice(format!("'. Try {container} HELP.").as_bytes());
        Error::general(text)
    }

    /// `container` in upper case; the subcommand is there but its words are too many.
    pub fn subcommand_syntax(container: &str, name: &[u8]) -> Error {
        let mut text = b"unknown subcommand or wrong number of arguments for '".to_vec();
        text.extend_from_slice(&name[..name.len().min(128)]);
        text.extend_from_slice(format!("'. Try {container} HELP.").as_bytes());
        Error::general(text)
    }

    /// The text as it is sent after the `-`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The first word, which error statistics count by.
    pub fn code(&self) -> &[u8] {
        self.0
            .split(|&byte| byte == b' ')
            .next()
            .unwrap_or_default()
    }
}

/// Before the dispatcher puts in what it is that runs.
impl From<storage::Held> for Error {
    fn from(_: storage::Held) -> Error {
        Error::BUSY
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Error {
        match error {
            storage::Error::WrongType => Error::WRONG_TYPE,
            storage::Error::NotAnInteger => Error::NOT_AN_INTEGER,
            storage::Error::NotAFloat => Error::NOT_A_FLOAT,
            storage::Error::Overflow => Error::OVERFLOW,
            storage::Error::TooLarge => Error::TOO_LARGE,
            storage::Error::OutOfMemory => Error::OUT_OF_MEMORY,
        }
    }
}
