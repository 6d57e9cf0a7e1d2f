//! A command is data plus a function.
//!
//! Everything that COMMAND, COMMAND DOCS, ACL categories and the documentation say is derived from these
//! declarations, so that a command is described once, where it is.

use std::any::Any;

use protocol::resp::reply::ReplyWriter;
use storage::db::Db;

use super::{args::Args, error::Error, preparation::Preparation};
use crate::session::Session;

pub type Result<T = ()> = std::result::Result<T, Error>;

/// The declaration of a command or subcommand.
pub struct Command {
    /// Upper case; a subcommand has its own name only.
    pub name: &'static str,
    /// What follows the name, in the notation of the reference manual: `key [NX | XX] value [value ...]`.
    pub syntax: &'static str,
    pub summary: &'static str,
    /// Version of Redis or Valkey that introduced it.
    pub since: &'static str,
    pub complexity: &'static str,
    pub group: Group,
    pub arity: Arity,
    pub keys: &'static [Keys],
    pub flags: &'static [Flag],
    /// ACL categories beyond those that group, flags and keys imply.
    pub categories: &'static [Category],
    pub run: Run,
    pub subcommands: &'static [&'static Command],
}

/// How many words a command has, its name included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    Exactly(usize),
    AtLeast(usize),
}

use Arity::{AtLeast, Exactly};

impl Arity {
    #[inline]
    pub const fn accepts(self, words: usize) -> bool {
        match self {
            Exactly(wanted) => words == wanted,
            AtLeast(wanted) => words >= wanted,
        }
    }

    /// As COMMAND shows it: negative for a minimum.
    pub const fn signed(self) -> i64 {
        match self {
            Exactly(wanted) => wanted as i64,
            AtLeast(wanted) => -(wanted as i64),
        }
    }
}

/// The handler, by what it works on.
#[derive(Clone, Copy)]
pub enum Run {
    /// Looks at data. Its keys' shards are locked.
    Read(fn(&Db<'_>, &Args<'_>, &mut Reply) -> Result),
    /// Changes data. Its keys' shards are locked; with no keys declared it walks the shards one at a time.
    Write(fn(&mut Db<'_>, &Args<'_>, &mut Reply) -> Result),
    /// Changes data, or finds nothing yet that it could work on: then the client waits until one of the keys changes
    /// and the handler runs again, with only the shard of that key locked for certain. It passes over keys whose shard
    /// is not locked ([`Db::holds`]).
    Blocking(fn(&mut Db<'_>, &Args<'_>, &mut Reply) -> Result<Progress>),
    /// Works on the connection and the server. Nothing is locked.
    Session(fn(&mut Session, &Args<'_>, &mut Reply) -> Result),
    /// Works on the connection, the server and the data: nothing is locked for it, and it locks what it needs, one
    /// shard or one after another; in a transaction all is locked already.
    Server(fn(&mut Session, &mut Db<'_>, &Args<'_>, &mut Reply) -> Result),
    /// Runs a script, on a stack that can be left, and otherwise as `Server`.
    Script(fn(&mut Session, &mut Db<'_>, &Args<'_>, &mut Reply) -> Result),
    /// EXEC, which runs others.
    Exec,
    /// Has subcommands, which run.
    Container,
}

/// What a blocking handler came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The reply is written.
    Done,
    /// Nothing yet, and nothing was changed or written.
    Wait {
        /// For so long, in milliseconds; 0 for ever.
        timeout_ms: u64,
        /// The reply where commands may not wait; a wait that ends without anything is always answered with the null
        /// array.
        nothing: Nothing,
    },
}

/// How a blocking command says that nothing came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nothing {
    NullArray,
    NullBulk,
}

impl Nothing {
    pub fn write(self, reply: &mut ReplyWriter) {
        match self {
            Nothing::NullArray => reply.null_array(),
            Nothing::NullBulk => reply.null(),
        }
    }
}

/// Where the keys are among a command's words, the name being word 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    pub place: Place,
    pub access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// One key.
    At(usize),
    /// Two keys, one after the other.
    Pair { first: usize },
    /// From `first` on every `step`th word, up to `last` counted from the end (0 is the last word).
    Range {
        first: usize,
        last: usize,
        step: usize,
    },
    /// A word holds the number of keys, which follow it.
    Count { at: usize },
    /// A word holds the number of keys, which follow it, each with a value behind it.
    CountPairs { at: usize },
    /// After a keyword (searched from a word on), every word up to `last` counted from the end, as in `STREAMS`: the
    /// first half of what follows.
    Streams { from: usize },
    /// The word after a keyword, if it is there.
    After { keyword: &'static str, from: usize },
    /// Any key, if BY or GET among SORT's options has a pattern with a `*`: every shard.
    SortPatterns,
    /// The word after STORE among SORT's options, if it is there.
    SortStore,
    /// MIGRATE's: those listed after its option KEYS, or the one in the place of its only key.
    Migrated { listed: bool },
    /// Every shard, whatever the words say.
    AllShards,
}

/// What a command does with its keys, as key specifications tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// RO: reads the value.
    Read,
    /// RO: reads facts about it, such as its length.
    Inspect,
    /// RW: reads the value and changes it.
    Update,
    /// RW: changes parts without telling what they were.
    Alter,
    /// RW: reads the value and may change how it is held, not what it is.
    Repack,
    /// RW: reads the value and adds to it.
    Merge,
    /// RW: adds elements.
    Insert,
    /// RW: deletes elements without telling what they were.
    Delete,
    /// RW: deletes elements and returns them.
    Take,
    /// OW: overwrites without looking.
    Overwrite,
    /// OW: writes where nothing was.
    Create,
    /// RM: removes.
    Remove,
}

impl Keys {
    pub const fn at(index: usize, access: Access) -> Keys {
        Keys {
            place: Place::At(index),
            access,
        }
    }

    pub const fn all(first: usize, access: Access) -> Keys {
        Keys {
            place: Place::Range {
                first,
                last: 0,
                step: 1,
            },
            access,
        }
    }
}

/// Properties that gates and COMMAND look at; names are COMMAND's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    Admin,
    AllowBusy,
    Asking,
    Blocking,
    DenyOom,
    Fast,
    Loading,
    MovableKeys,
    NoAsyncLoading,
    NoAuth,
    NoMulti,
    NoScript,
    PubSub,
    ReadOnly,
    SkipMonitor,
    SkipSlowlog,
    Stale,
    Write,
    NoMandatoryKeys,
    /// It may lead to changes of data, or to what replicas are told. Clients are not shown this flag.
    MayReplicate,
    /// Its words from the first on are channels of a shard: they have a slot as keys have, but are none.
    NotKey,
}

/// The families, as COMMAND DOCS names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Bitmap,
    Cluster,
    Connection,
    Generic,
    Geo,
    Hash,
    HyperLogLog,
    List,
    PubSub,
    Scripting,
    Server,
    Set,
    SortedSet,
    Stream,
    String,
    Transactions,
}

/// ACL categories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    Keyspace,
    Read,
    Write,
    Set,
    SortedSet,
    List,
    Hash,
    String,
    Bitmap,
    HyperLogLog,
    Geo,
    Stream,
    PubSub,
    Admin,
    Fast,
    Slow,
    Blocking,
    Dangerous,
    Connection,
    Transaction,
    Scripting,
}

impl Command {
    pub fn has(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }

    /// Whether it changes data.
    pub fn is_write(&self) -> bool {
        self.has(Flag::Write)
    }
}

/// Where a handler writes its reply.
///
/// A handler with much to say about a big value clones the value, which is cheap, and leaves a [`Later`] that writes
/// the reply in slices once the locks are released.
pub struct Reply {
    pub writer: ReplyWriter,
    pub later: Option<Box<dyn Later>>,
    /// Work that was done for the command, or that it leaves to be done before it runs again.
    pub preparation: Option<Box<Preparation>>,
    /// What is to be dropped where it disturbs nobody: clones of values that may be the last.
    pub discarded: Option<Box<dyn Any + Send>>,
    /// The error that the command ends with was counted before: it is that of a command within a script.
    pub error_is_counted: bool,
    /// Whether the command can run again.
    pub may_prepare: bool,
    /// Words that a blocking command which waits has from now on, by their numbers: what they said at its first run
    /// (`$` is the last ID then) they say at every other.
    pub replaced_words: Vec<(usize, Box<[u8]>)>,
}

/// The rest of a reply, written without locks, a slice at a time.
pub trait Later: Send {
    /// Writes some more, about some dozen microseconds' worth. True when all is written.
    fn write(&mut self, reply: &mut ReplyWriter) -> bool;
}

/// A `Later` that a closure writes: true when all is written.
impl<F: FnMut(&mut ReplyWriter) -> bool + Send> Later for F {
    fn write(&mut self, reply: &mut ReplyWriter) -> bool {
        self(reply)
    }
}

impl Reply {
    pub fn new(writer: ReplyWriter) -> Reply {
        Reply {
            writer,
            later: None,
            preparation: None,
            discarded: None,
            error_is_counted: false,
            may_prepare: false,
            replaced_words: Vec::new(),
        }
    }

    /// Lets the request say `word` from now on, while it waits.
    pub fn replace_word(&mut self, index: usize, word: &[u8]) {
        self.replaced_words.push((index, word.into()));
    }

    /// Leaves the rest of the reply to be written after the locks are released.
    pub fn later(&mut self, rest: impl FnMut(&mut ReplyWriter) -> bool + Send + 'static) {
        self.later = Some(Box::new(rest));
    }
}

impl std::ops::Deref for Reply {
    type Target = ReplyWriter;

    #[inline]
    fn deref(&self) -> &ReplyWriter {
        &self.writer
    }
}

impl std::ops::DerefMut for Reply {
    #[inline]
    fn deref_mut(&mut self) -> &mut ReplyWriter {
        &mut self.writer
    }
}
