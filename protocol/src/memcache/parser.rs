//! Cuts the stream into requests: finds the line, waits for its data block, skips what was refused.

use memchr::memchr;

use super::meta::{self, MetaFlags, MetaKey, SetMode};
use super::text::{self, Line};
use super::{Reply, Request, StoreVerb, Words};

/// How much a client may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of an item, key and overhead included: the setting `item_size_max`.
    pub max_item_size: usize,
    /// Bytes of a line.
    pub max_line_len: usize,
    /// Bytes of a line of `get` and its relatives, which may list keys by the thousand.
    pub max_get_line_len: usize,
}

/// Default of `item_size_max`: 1 MiB.
const DEFAULT_MAX_ITEM_SIZE: usize = 1024 * 1024;

/// Bytes that a line may have before its end must show.
const MAX_LINE_LEN: usize = 2048;

/// Enough for 60,000 keys of the longest kind.
const MAX_GET_LINE_LEN: usize = 16 * 1024 * 1024;

/// Bytes of an item that holds a name and a password.
const MAX_CREDENTIALS_LEN: usize = 16 * 1024;

/// How a request of the binary protocol begins, and no line does.
const BINARY_REQUEST: u8 = 0x80;

/// What memcached itself takes of an item's size beside key and value, with 64-bit pointers and CAS.
const ITEM_OVERHEAD: usize = 59;

/// What client flags take if there are any.
const CLIENT_FLAGS_LEN: usize = 4;

/// Announced lengths reach this far: room for the line end in 31 bits.
const MAX_ANNOUNCED_LEN: i64 = i32::MAX as i64 - 2;

impl Limits {
    pub const fn new(max_item_size: usize) -> Self {
        Limits {
            max_item_size,
            max_line_len: MAX_LINE_LEN,
            max_get_line_len: MAX_GET_LINE_LEN,
        }
    }

    /// For clients that have not said who they are: enough to do so, and no more.
    pub const fn unauthenticated() -> Self {
        Limits {
            max_item_size: MAX_CREDENTIALS_LEN,
            max_line_len: MAX_LINE_LEN,
            max_get_line_len: MAX_LINE_LEN,
        }
    }

    /// The longest value that fits an item.
    pub fn max_value_len(&self, key: &[u8], flags: u32) -> usize {
        let flags_len = if flags == 0 { 0 } else { CLIENT_FLAGS_LEN };
        self.max_item_size
            .saturating_sub(ITEM_OVERHEAD + key.len() + flags_len)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits::new(DEFAULT_MAX_ITEM_SIZE)
    }
}

/// What [`Parser::parse`] found at the start of the input. Whoever asks drops `consumed` bytes before asking again.
#[derive(Clone, Debug, PartialEq)]
pub enum Step<'a> {
    Request {
        consumed: usize,
        request: Request<'a>,
    },
    /// Something to refuse.
    Reject {
        consumed: usize,
        rejection: Rejection<'a>,
    },
    /// Bytes of a refused data block.
    Skip { consumed: usize },
    /// Call again with at least `needed` bytes more.
    Incomplete { needed: usize },
}

/// Why a request is refused, and what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection<'a> {
    /// The line to answer, without its end; none if the client wants no replies.
    pub response: Option<&'static str>,
    pub then: Then,
    /// The item whose new value was too large: it must go, so that nobody reads the old one.
    pub stale: Option<MetaKey<'a>>,
}

/// Whether a connection survives a refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    GoOn,
    Close,
}

/// Reads one request after another; owns no memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parser {
    /// Before this there is no end of the line.
    searched: usize,
    /// The request's length, once its line has announced a data block.
    whole: usize,
    /// Bytes of a refused data block still to come.
    skip: usize,
}

impl Parser {
    pub const fn new() -> Self {
        Parser {
            searched: 0,
            whole: 0,
            skip: 0,
        }
    }

    /// Reads the request at the start of `input`. After [`Step::Incomplete`] the next call wants the same bytes and
    /// more.
    ///
    /// A request of the binary protocol, which is not spoken here, ends the connection.
    ///
    /// One pass over the line, then, where keys are listed, one as they are taken; data blocks are not looked at. Only
    /// a base64 key allocates.
    pub fn parse<'a>(&mut self, input: &'a [u8], limits: &Limits) -> Step<'a> {
        if self.skip > 0 {
            return self.skip(input);
        }
        if input.len() < self.whole {
            return Step::Incomplete {
                needed: self.whole - input.len(),
            };
        }
        if input.first() == Some(&BINARY_REQUEST) {
            return Step::Reject {
                consumed: input.len(),
                rejection: Rejection::close(),
            };
        }
        let end = match self.find_line_end(input, limits) {
            LineEnd::At(end) => end,
            LineEnd::Missing => return Step::Incomplete { needed: 1 },
            LineEnd::TooFar => {
                return Step::Reject {
                    consumed: input.len(),
                    rejection: Rejection::close(),
                };
            }
        };
        let consumed = end + 1;
        match parse_line(&input[..end], limits) {
            Ok(Line::Whole(request)) => self.finish(Step::Request { consumed, request }),
            Ok(Line::WithData(announced)) => self.read_data(input, consumed, announced),
            Err(Refusal {
                rejection,
                data_len,
            }) => {
                self.skip = data_len.map_or(0, |len| len + 2);
                self.searched = 0;
                Step::Reject {
                    consumed,
                    rejection,
                }
            }
        }
    }

    fn finish<'a>(&mut self, step: Step<'a>) -> Step<'a> {
        *self = Parser::new();
        step
    }

    fn skip<'a>(&mut self, input: &[u8]) -> Step<'a> {
        if input.is_empty() {
            return Step::Incomplete { needed: 1 };
        }
        let consumed = self.skip.min(input.len());
        self.skip -= consumed;
        Step::Skip { consumed }
    }

    fn read_data<'a>(
        &mut self,
        input: &'a [u8],
        line_len: usize,
        announced: Announced<'a>,
    ) -> Step<'a> {
        let end = line_len + announced.data_len;
        let consumed = end + 2;
        let Some(block) = input.get(line_len..consumed) else {
            self.whole = consumed;
            return Step::Incomplete {
                needed: consumed - input.len(),
            };
        };
        let step = match block.strip_suffix(b"\r\n") {
            Some(value) => Step::Request {
                consumed,
                request: announced.with_value(value),
            },
            None => Step::Reject {
                consumed,
                rejection: Rejection::answer(BAD_DATA_CHUNK, announced.reply()),
            },
        };
        self.finish(step)
    }

    /// Where the line feed is, looked for where it was not looked for before.
    fn find_line_end(&mut self, input: &[u8], limits: &Limits) -> LineEnd {
        let lists_keys = [&b"get "[..], b"gets ", b"gat ", b"gats "]
            .iter()
            .any(|command| input.starts_with(command));
        let max_len = match lists_keys {
            true => limits.max_get_line_len,
            false => limits.max_line_len,
        };
        // Looking no further than the limit makes the outcome independent of how the input was split.
        let limit = max_len.saturating_add(1);
        let window = &input[..input.len().min(limit)];
        match memchr(b'\n', window.get(self.searched..).unwrap_or_default()) {
            Some(index) => LineEnd::At(self.searched + index),
            None if window.len() == limit => LineEnd::TooFar,
            None => {
                self.searched = window.len();
                LineEnd::Missing
            }
        }
    }
}

enum LineEnd {
    At(usize),
    Missing,
    TooFar,
}

/// A request whose data block follows.
#[derive(Clone, Debug)]
pub(super) struct Announced<'a> {
    pub(super) data_len: usize,
    pub(super) target: Target<'a>,
}

/// What the block is for.
#[derive(Clone, Debug)]
pub(super) enum Target<'a> {
    Store {
        verb: StoreVerb,
        key: &'a [u8],
        flags: u32,
        exptime: i64,
        reply: Reply,
    },
    MetaSet {
        key: MetaKey<'a>,
        mode: SetMode,
        flags: MetaFlags<'a>,
    },
    Config {
        name: &'a [u8],
        flags: u32,
    },
}

impl<'a> Announced<'a> {
    fn with_value(self, value: &'a [u8]) -> Request<'a> {
        match self.target {
            Target::Store {
                verb,
                key,
                flags,
                exptime,
                reply,
            } => Request::Store {
                verb,
                key,
                flags,
                exptime,
                value,
                reply,
            },
            Target::MetaSet { key, mode, flags } => Request::MetaSet {
                key,
                mode,
                value,
                flags,
            },
            Target::Config { name, flags } => Request::ConfigSet { name, flags, value },
        }
    }

    /// Quiet meta commands hear of their mistakes nevertheless.
    fn reply(&self) -> Reply {
        match self.target {
            Target::Store { reply, .. } => reply,
            Target::MetaSet { .. } | Target::Config { .. } => Reply::Wanted,
        }
    }
}

/// A line that is refused, and the length of the data block it announced.
#[derive(Debug)]
pub(super) struct Refusal<'a> {
    rejection: Rejection<'a>,
    data_len: Option<usize>,
}

impl<'a> Refusal<'a> {
    pub(super) fn answer(response: &'static str, reply: Reply) -> Self {
        Refusal {
            rejection: Rejection::answer(response, reply),
            data_len: None,
        }
    }

    pub(super) fn close() -> Self {
        Refusal {
            rejection: Rejection::close(),
            data_len: None,
        }
    }

    pub(super) fn skipping(mut self, data_len: usize) -> Self {
        self.data_len = Some(data_len);
        self
    }

    pub(super) fn invalidating(mut self, key: MetaKey<'a>) -> Self {
        self.rejection.stale = Some(key);
        self
    }
}

impl From<&'static str> for Refusal<'_> {
    fn from(response: &'static str) -> Self {
        Refusal::answer(response, Reply::Wanted)
    }
}

impl Rejection<'_> {
    fn answer(response: &'static str, reply: Reply) -> Self {
        Rejection {
            response: (reply == Reply::Wanted).then_some(response),
            then: Then::GoOn,
            stale: None,
        }
    }

    fn close() -> Self {
        Rejection {
            response: None,
            then: Then::Close,
            stale: None,
        }
    }
}

pub(super) const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format";
/// What a value is refused with that is too long.
pub const TOO_LARGE: &str = "SERVER_ERROR object too large for cache";
const BAD_DATA_CHUNK: &str = "CLIENT_ERROR bad data chunk";

/// Shorter lines, carriage return included, are no commands at all.
const MIN_LINE_LEN: usize = 3;

fn parse_line<'a>(line: &'a [u8], limits: &Limits) -> Result<Line<'a>, Refusal<'a>> {
    if line.len() < MIN_LINE_LEN {
        return Err(BAD_FORMAT.into());
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    // The command begins the line: blanks before it make it an unknown one.
    let len = memchr(b' ', line).unwrap_or(line.len());
    let (command, rest) = line.split_at(len);
    let rest = Words::of(rest);
    match command {
        b"mg" | b"ms" | b"md" | b"ma" | b"mn" | b"me" => meta::parse(command[1], rest, limits),
        _ => text::parse(command, rest, limits),
    }
}

/// The announced length of a data block.
pub(super) fn parse_data_len(word: &[u8]) -> Result<usize, &'static str> {
    parse_integer(word)
        .filter(|len| (0..=MAX_ANNOUNCED_LEN).contains(len))
        .map(|len| len as usize)
        .ok_or(BAD_FORMAT)
}

/// Digits with or without minus; leading zeros are fine.
pub(super) fn parse_integer(word: &[u8]) -> Option<i64> {
    use crate::number::parse_digits;
    match word {
        [b'-', digits @ ..] => 0i64.checked_sub_unsigned(parse_digits(digits)?),
        digits => i64::try_from(parse_digits(digits)?).ok(),
    }
}

/// An exptime of the stricter commands.
pub(super) fn parse_i32(word: &[u8]) -> Option<i32> {
    i32::try_from(parse_integer(word)?).ok()
}
