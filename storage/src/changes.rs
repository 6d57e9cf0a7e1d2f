//! What a command did to the data, for everyone who wants to know.
//!
//! A handler says what it did with [`Db::changed`](crate::db::Db::changed); that settles what must happen under the
//! shard's lock (watched keys, waiting clients) and collects the rest here: keyspace events, invalidated keys, effects
//! for the command log. The dispatcher drains it, the log under the lock, the others after. What nobody listens to is
//! not collected: then a change costs a counter.

use crate::{effects::Effects, time::Timestamp};

/// Who listens, as bits; read once when a command locks its shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listeners(u32);

impl Listeners {
    pub const NONE: Listeners = Listeners(0);
    /// The command log: replicas or the append-only file.
    pub const LOG: Listeners = Listeners(1);
    /// Keyspace notifications.
    pub const EVENTS: Listeners = Listeners(2);
    /// Client-side caches.
    pub const TRACKING: Listeners = Listeners(4);
    /// Those who are shown what is evicted.
    pub const EVICTIONS: Listeners = Listeners(8);

    pub const fn from_bits(bits: u32) -> Listeners {
        Listeners(bits)
    }

    pub const fn bits(self) -> u32 {
        self.0
    }

    #[inline]
    pub const fn contains(self, other: Listeners) -> bool {
        self.0 & other.0 != 0
    }

    #[must_use]
    pub const fn with(self, other: Listeners) -> Listeners {
        Listeners(self.0 | other.0)
    }

    #[must_use]
    pub const fn without(self, other: Listeners) -> Listeners {
        Listeners(self.0 & !other.0)
    }
}

/// The class of a keyspace event: the letter that `notify-keyspace-events` selects it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventClass {
    Generic,
    String,
    List,
    Set,
    Hash,
    SortedSet,
    Stream,
    Expired,
    Evicted,
    KeyMiss,
    New,
}

impl EventClass {
    /// The letter in `notify-keyspace-events`.
    pub const fn letter(self) -> u8 {
        match self {
            EventClass::Generic => b'g',
            EventClass::String => b'$',
            EventClass::List => b'l',
            EventClass::Set => b's',
            EventClass::Hash => b'h',
            EventClass::SortedSet => b'z',
            EventClass::Stream => b't',
            EventClass::Expired => b'x',
            EventClass::Evicted => b'e',
            EventClass::KeyMiss => b'm',
            EventClass::New => b'n',
        }
    }
}

/// One thing that happened to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub class: EventClass,
    pub name: &'static str,
    pub database: usize,
    pub key: Box<[u8]>,
}

/// What there is to tell others, in the order it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    Event(Event),
    /// Cached copies of a key are stale; `client` changed it, 0 for none.
    Stale {
        key: Box<[u8]>,
        client: u64,
    },
    /// Cached copies of all keys are.
    AllStale,
}

/// A string that was evicted, as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evicted {
    pub key: Box<[u8]>,
    pub deadline: Option<Timestamp>,
    pub fetched: bool,
    /// The eviction policy's bits.
    pub access: u16,
    /// Bytes of the value.
    pub len: usize,
}

/// Who reads an effect, as bits. Scripts choose with `redis.set_repl`, whose numbers these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readers(u8);

impl Readers {
    pub const NONE: Readers = Readers(0);
    pub const FILE: Readers = Readers(1);
    pub const REPLICAS: Readers = Readers(2);
    pub const ALL: Readers = Readers(3);

    pub const fn from_bits(bits: u8) -> Readers {
        Readers(bits)
    }

    pub const fn contains(self, other: Readers) -> bool {
        self.0 & other.0 != 0
    }
}

impl Default for Readers {
    fn default() -> Readers {
        Readers::ALL
    }
}

/// Where effects go: one totally ordered stream, for the append-only file and replicas.
///
/// Appended under the locks of the shards that the effects changed, so that per key the stream's order is the order
/// of execution.
pub trait CommandLog: Send + Sync {
    /// Appends what one command or transaction did. Several effects belong together: whoever reads the stream applies
    /// all of them or none.
    fn append(&self, effects: &Effects);

    /// Whoever appended has done so for now: readers that wait may look. May come after the locks are released.
    fn appended(&self);
}

/// What a command leaves in the command log.
#[derive(Debug, Default)]
pub enum Own {
    /// As the client sent it, if it changed anything.
    #[default]
    Verbatim,
    /// As these commands instead, in the command's database: what the client sent depends on time, chance or order. May
    /// be none.
    Instead(Effects),
}

/// A key that changed, for clients that wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedKey {
    pub database: usize,
    pub key: Box<[u8]>,
}

/// Everything one command did.
#[derive(Debug, Default)]
pub struct Changes {
    pub listeners: Listeners,
    /// How many changes to data, in the unit of `rdb_changes_since_last_save`.
    pub dirty: u64,
    pub notices: Vec<Notice>,
    pub evicted: Vec<Evicted>,
    /// Keys that clients wait for and that may serve them now.
    pub ready: Vec<ChangedKey>,
    /// Effects that precede the command's own: deletes of keys found expired.
    pub deletions: Effects,
    pub effects: Own,
    /// Keys whose flags or CAS changed, for the command log.
    pub items: Vec<ChangedKey>,
}

impl Changes {
    /// Ready for the next command; keeps nothing but the listeners.
    #[inline(always)]
    pub fn reset(&mut self) {
        self.dirty = 0;
        if !self.is_quiet() {
            self.forget();
        }
    }

    #[cold]
    fn forget(&mut self) {
        self.notices.clear();
        self.evicted.clear();
        self.ready.clear();
        self.deletions.clear();
        self.effects = Own::Verbatim;
        self.items.clear();
    }

    /// Adds what another command did after this one, but for its effects, which the log has already.
    pub fn absorb(&mut self, other: Changes) {
        self.dirty += other.dirty;
        if other.is_quiet() {
            return;
        }
        self.notices.extend(other.notices);
        self.evicted.extend(other.evicted);
        self.ready.extend(other.ready);
    }

    /// Whether cached copies of single keys are stale.
    pub fn has_stale(&self) -> bool {
        let mut notices = self.notices.iter();
        notices.any(|notice| matches!(notice, Notice::Stale { .. }))
    }

    /// Whether nothing was collected beside the counter.
    #[inline(always)]
    pub fn is_quiet(&self) -> bool {
        // Without shortcuts: all of it nearly always holds.
        self.notices.is_empty()
            & self.evicted.is_empty()
            & self.ready.is_empty()
            & self.deletions.is_empty()
            & self.items.is_empty()
            & matches!(self.effects, Own::Verbatim)
    }

    /// Logs `command` instead of what the client sent; several calls log several. Nothing when nobody listens.
    pub fn log_instead(&mut self, command: &[&[u8]]) {
        if !self.listeners.contains(Listeners::LOG) {
            return;
        }
        let words = command.iter().copied();
        match &mut self.effects {
            Own::Instead(effects) => effects.push(0, Readers::ALL, words),
            Own::Verbatim => self.effects = Own::Instead(Effects::of(0, words)),
        }
    }

    /// Whether what has changed is in the log without the command as the client sent it.
    pub fn tells_all(&self) -> bool {
        self.dirty == 0
            || !self.listeners.contains(Listeners::LOG)
            || !self.deletions.is_empty()
            || matches!(self.effects, Own::Instead(_))
    }

    /// Adds the effects in the order they enter the log: `sent`, the command as the client sent it, if it changed
    /// anything and said nothing else. Empties what was collected for the log.
    #[inline]
    pub(crate) fn take_effects<'w>(
        &mut self,
        database: usize,
        readers: Readers,
        sent: Option<impl ExactSizeIterator<Item = &'w [u8]>>,
        into: &mut Effects,
    ) {
        // That a key has expired is nobody's choice.
        if !self.deletions.is_empty() {
            into.append(&mut self.deletions);
        }
        if readers == Readers::NONE {
            self.effects = Own::Verbatim;
            return;
        }
        match std::mem::take(&mut self.effects) {
            Own::Instead(effects) => into.append_for(database, readers, &effects),
            Own::Verbatim if self.dirty > 0 => {
                if let Some(words) = sent {
                    into.push(database, readers, words);
                }
            }
            Own::Verbatim => {}
        }
    }

    /// Logs the command as the client sent it after all.
    pub fn log_verbatim(&mut self) {
        self.effects = Own::Verbatim;
    }

    /// Keeps the command out of the log although it changed something.
    pub fn log_nothing(&mut self) {
        if matches!(self.effects, Own::Verbatim) {
            self.effects = Own::Instead(Effects::default());
        }
    }
}
