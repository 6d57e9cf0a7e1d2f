//! When the disk fails: what is refused then, and what clients are told.
//!
//! A failing disk is a state, not an end: INFO shows it, the log says when it begins and ends, and commands that change
//! data are refused, so that what waits to be written stays small. They go on once the disk does.

use std::{io, sync::atomic::Ordering};

use crate::{dispatch::error::Error, server::Server};

/// What cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The last snapshot failed, and the settings say that writes stop then.
    Snapshot,
    /// The append-only file cannot be written or forced to disk, for this reason.
    Log(String),
}

impl Trouble {
    /// What keeps data from being changed now, if anything does.
    #[inline]
    pub fn now(server: &Server) -> Option<Trouble> {
        let log_ok = server.aof.status.last_write_ok.load(Ordering::Relaxed);
        if server.snapshots.last_ok() && log_ok {
            return None;
        }
        Trouble::look(server, log_ok)
    }

    #[cold]
    fn look(server: &Server, log_ok: bool) -> Option<Trouble> {
        let settings = server.config.settings();
        let stops = settings.stop_writes_on_bgsave_error && !settings.save.is_empty();
        if stops && !server.snapshots.last_ok() {
            Some(Trouble::Snapshot)
        } else if !log_ok && server.aof.is_enabled() {
            Some(Trouble::Log(server.aof.status.last_error.lock().clone()))
        } else {
            None
        }
    }

    /// What a command that would change data is answered.
    pub fn error(&self) -> Error {
        match self {
            Trouble::Snapshot => Error::MISCONF,
            Trouble::Log(reason) => {
                Error::new(format!("MISCONF Errors writing to the AOF file: {reason}"))
            }
        }
    }

    /// What a script that may change data is answered before it begins.
    pub fn script_error(&self) -> Error {
        const ADVICE: &str =
            "Writable scripts are blocked. Use 'no-writes' flag for read only scripts.";
        match self {
            Trouble::Snapshot => Error::new(format!(
                "MISCONF Valkey is configured to save RDB snapshots, but it's currently unable to persist to disk. {ADVICE}"
            )),
            Trouble::Log(reason) => Error::new(format!(
                "MISCONF Valkey is configured to persist data to AOF, but it's currently unable to persist to disk. \
                 {ADVICE} AOF error: {reason}"
            )),
        }
    }
}

/// The reason as other servers say it: without the number.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_no_numbers() {
        assert_eq!(
            reason(&io::Error::from_raw_os_error(libc::ENOSPC)),
            "No space left on device"
        );
        assert_eq!(reason(&io::Error::other("cancelled")), "cancelled");
    }
}
