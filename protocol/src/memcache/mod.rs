//! The memcached text protocol: classic commands ([`text`]), meta commands ([`meta`]), and what answers them
//! ([`response`]).
//!
//! ```text
//! get key key CRLF                                a line, which may end in LF alone
//! set key flags exptime bytes [noreply] CRLF      a line ...
//! <bytes bytes> CRLF                              ... and a data block
//! ```
//!
//! Mistakes do not end the connection, so that staying in step matters most: once a line has announced a data block, the
//! block is skipped by its announced length whatever is wrong with the request, and its content is never read as
//! commands. Lines, errors and what is skipped follow memcached 1.6.45.
//!
//! Deliberately different: a line has its limit however it arrives (there, a line that happened to arrive at once may
//! be longer); lists of keys end somewhere; `get` with an oversized key is answered with one line end, not two.

pub mod base64;
pub mod meta;
mod parser;
pub mod response;
pub mod text;

pub use parser::{Limits, Parser, Rejection, Step, TOO_LARGE, Then};

use meta::{ArithmeticMode, MetaFlags, MetaKey, SetMode};

/// The longest key.
pub const MAX_KEY_LEN: usize = 250;

/// A request, its parts borrowed from the input.
#[derive(Clone, Debug, PartialEq)]
pub enum Request<'a> {
    /// `get` and `gets`
    Get {
        keys: Words<'a>,
        cas: Cas,
    },
    /// `gat` and `gats`
    GetAndTouch {
        exptime: i64,
        keys: Words<'a>,
        cas: Cas,
    },
    /// `set`, `add`, `replace`, `append`, `prepend` and `cas`
    Store {
        verb: StoreVerb,
        key: &'a [u8],
        flags: u32,
        exptime: i64,
        value: &'a [u8],
        reply: Reply,
    },
    Delete {
        key: &'a [u8],
        reply: Reply,
    },
    /// Adds, wrapping at 2^64.
    Increment {
        key: &'a [u8],
        delta: u64,
        reply: Reply,
    },
    /// Subtracts, stopping at 0.
    Decrement {
        key: &'a [u8],
        delta: u64,
        reply: Reply,
    },
    Touch {
        key: &'a [u8],
        exptime: i64,
        reply: Reply,
    },
    /// `delay` is an exptime: 0 at once, negative too.
    FlushAll {
        delay: i64,
        reply: Reply,
    },
    Version,
    Verbosity {
        level: u32,
        reply: Reply,
    },
    Quit,
    /// The words after `stats`: none for the general ones.
    Stats {
        arguments: Words<'a>,
    },
    Slabs {
        command: Slabs,
        reply: Reply,
    },
    Lru {
        command: Lru,
        reply: Reply,
    },
    LruCrawler {
        command: LruCrawler<'a>,
        reply: Reply,
    },
    /// The names of the logs to follow; none for the default.
    Watch {
        logs: Words<'a>,
    },
    CacheMemlimit {
        mebibytes: u64,
        reply: Reply,
    },
    Shutdown {
        way: Shutdown,
    },
    RefreshCerts,
    /// The setting and its value.
    Extstore {
        arguments: Words<'a>,
        reply: Reply,
    },
    /// `config get name`, for clients that look for the cluster's nodes.
    ConfigGet {
        name: &'a [u8],
    },
    /// `config set name flags bytes` and a data block.
    ConfigSet {
        name: &'a [u8],
        flags: u32,
        value: &'a [u8],
    },
    /// `mg`
    MetaGet {
        key: MetaKey<'a>,
        flags: MetaFlags<'a>,
    },
    /// `ms`
    MetaSet {
        key: MetaKey<'a>,
        mode: SetMode,
        value: &'a [u8],
        flags: MetaFlags<'a>,
    },
    /// `md`
    MetaDelete {
        key: MetaKey<'a>,
        flags: MetaFlags<'a>,
    },
    /// `ma`
    MetaArithmetic {
        key: MetaKey<'a>,
        mode: ArithmeticMode,
        flags: MetaFlags<'a>,
    },
    /// `mn`
    MetaNoop,
    /// `me`
    MetaDebug {
        key: MetaKey<'a>,
    },
}

/// What a classic storage command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreVerb {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
    /// Replaces the item only while its CAS is this one.
    Cas(u64),
}

impl StoreVerb {
    /// The command's name.
    pub fn name(self) -> &'static str {
        match self {
            StoreVerb::Set => "set",
            StoreVerb::Add => "add",
            StoreVerb::Replace => "replace",
            StoreVerb::Append => "append",
            StoreVerb::Prepend => "prepend",
            StoreVerb::Cas(_) => "cas",
        }
    }
}

/// Whether `noreply` was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Wanted,
    Suppressed,
}

/// Whether items are returned with their CAS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cas {
    Shown,
    Omitted,
}

/// `slabs ...`
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slabs {
    Automove(u32),
    AutomoveRatio(f64),
    AutomoveFreeRatio(f64),
    AutomoveWindow(u32),
}

/// `lru ...`
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lru {
    Tune {
        hot_percent: u32,
        warm_percent: u32,
        hot_age_ratio: f64,
        warm_age_ratio: f64,
    },
    Flat,
    Segmented,
    /// Negative turns it off.
    TempTtl(i64),
}

/// `lru_crawler ...`; classes are `all`, `hash` or numbers with commas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LruCrawler<'a> {
    Enable,
    Disable,
    SleepMicroseconds(u32),
    ToCrawl(u32),
    Crawl { classes: &'a [u8] },
    Metadump { classes: &'a [u8] },
    Mgdump { classes: &'a [u8] },
}

/// `shutdown [graceful]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    Now,
    Graceful,
}

/// The words of a line, separated by any number of spaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words<'a> {
    rest: &'a [u8],
}

impl<'a> Words<'a> {
    pub fn of(line: &'a [u8]) -> Self {
        Words { rest: line }
    }

    /// The words after the next one.
    fn skip_word(mut self) -> Self {
        self.next();
        self
    }

    /// The last word, without consuming any.
    fn last_word(mut self) -> Option<&'a [u8]> {
        self.next_back()
    }
}

/// No word is empty.
impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.rest.iter().position(|byte| *byte != b' ')?;
        let rest = &self.rest[start..];
        let len = memchr::memchr(b' ', rest).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(len);
        self.rest = rest;
        Some(word)
    }
}

impl<'a> DoubleEndedIterator for Words<'a> {
    fn next_back(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().rposition(|byte| *byte != b' ')? + 1;
        let start = memchr::memrchr(b' ', &self.rest[..end]).map_or(0, |space| space + 1);
        let word = &self.rest[start..end];
        self.rest = &self.rest[..start];
        Some(word)
    }
}
