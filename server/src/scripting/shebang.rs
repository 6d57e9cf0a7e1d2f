//! The first line of a script or library: `#!lua name=library flags=no-writes,allow-stale`.

use protocol::resp::inline;

use crate::dispatch::{command::Result, error::Error};

/// What a script says it does, by its `flags`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    pub no_writes: bool,
    pub allow_oom: bool,
    pub allow_stale: bool,
    pub no_cluster: bool,
    pub allow_cross_slot_keys: bool,
}

impl Flags {
    /// False if there is no such flag.
    pub(super) fn set(&mut self, name: &[u8]) -> bool {
        let flag = match name {
            b"no-writes" => &mut self.no_writes,
            b"allow-oom" => &mut self.allow_oom,
            b"allow-stale" => &mut self.allow_stale,
            b"no-cluster" => &mut self.no_cluster,
            b"allow-cross-slot-keys" => &mut self.allow_cross_slot_keys,
            _ => return false,
        };
        *flag = true;
        true
    }

    /// The flags that are set, as FUNCTION LIST names them.
    pub fn names(self) -> Vec<&'static str> {
        [
            (self.no_writes, "no-writes"),
            (self.allow_oom, "allow-oom"),
            (self.allow_stale, "allow-stale"),
            (self.no_cluster, "no-cluster"),
            (self.allow_cross_slot_keys, "allow-cross-slot-keys"),
        ]
        .into_iter()
        .filter_map(|(set, name)| set.then_some(name))
        .collect()
    }
}

/// The words of a first line, without the `#!`.
type Words = Vec<Vec<u8>>;

/// Splits the words off a first line that begins with `#!`, as those of a request typed by hand, and the program behind
/// it, which keeps the line's end so that its lines count from the shebang. The words are `None` if quotes are not closed.
pub(super) fn split(body: &[u8]) -> Option<(Option<Words>, &[u8])> {
    if !body.starts_with(b"#!") {
        return None;
    }
    let end = memchr::memchr(b'\n', body).unwrap_or(body.len());
    let (line, program) = body.split_at(end);
    let words = inline::split(line).ok().map(|mut words| {
        words[0].drain(..2);
        words
    });
    Some((words, program))
}

/// The flags and the program of a script for EVAL.
///
/// # Errors
/// The shebang names another engine, or says what is not known.
pub(super) fn script(body: &[u8]) -> Result<(Flags, &[u8])> {
    let mut flags = Flags::default();
    let Some((words, program)) = split(body) else {
        return Ok((flags, body));
    };
    let words = words.ok_or(Error::from_static("ERR Invalid engine in script shebang"))?;
    let (engine, options) = words
        .split_first()
        .map_or((&b""[..], &[][..]), |(engine, options)| (engine, options));
    if !engine.is_empty() && !engine.eq_ignore_ascii_case(b"lua")
        || words.len() <= 1 && engine.is_empty()
    {
        return Err(quoting("Could not find scripting engine '", engine, "'"));
    }
    for option in options {
        let Some(list) = option.strip_prefix(b"flags=") else {
            return Err(quoting("Unknown lua shebang option: ", option, ""));
        };
        let names = list.split(|&byte| byte == b',');
        for flag in names.filter(|_| !list.is_empty()) {
            if !flags.set(flag) {
                return Err(quoting("Unexpected flag in script shebang: ", flag, ""));
            }
        }
    }
    Ok((flags, program))
}

/// A general error around some of the client's text.
pub(super) fn quoting(before: &str, quoted: &[u8], after: &str) -> Error {
    Error::general([before.as_bytes(), quoted, after.as_bytes()].concat())
}
