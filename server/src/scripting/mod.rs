//! Lua scripts: EVAL and functions.
//!
//! Every worker has an interpreter of its own, so that scripts on different keys run in parallel. The texts of scripts
//! are shared by all; each interpreter compiles what it is asked to run.
//!
//! A script is atomic. It runs under the locks of its keys if it is certain that it comes to no others, else under all.

mod api;
mod convert;
pub mod functions;
mod interpreter;
mod lexer;
mod libraries;
mod locality;
mod problem;
mod random;
mod run;
mod running;
mod shebang;
pub mod stack;

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use hashbrown::HashMap;
use parking_lot::Mutex;
use sha1::{Digest, Sha1};
use storage::value::number::parse_i64;

pub use self::{
    functions::{Functions, Libraries},
    run::{Call, Program, load, run},
    running::{Kill, Slow},
    shebang::Flags,
};
use crate::dispatch::{
    args::Args,
    command::{Command, Flag as CommandFlag, Result},
};

/// The name of a script: its SHA-1 in hexadecimal digits.
pub type Sha = [u8; 40];

/// Scripts that came with EVAL are forgotten beyond this many, the oldest first.
const EVALUATED_MAX: usize = 500;

/// What all workers share.
#[derive(Default)]
pub struct Scripting {
    cache: Mutex<Cache>,
    /// Changes when the cache is emptied: interpreters of an older one start anew.
    generation: AtomicU64,
    pub functions: Functions,
    pub slow: Slow,
    /// Milliseconds after which a script takes too long; 0 for never.
    pub busy_reply_threshold: AtomicU64,
    pub evicted: AtomicU64,
    /// Scripts may run the commands that they may not run: for tests.
    pub allows_all: AtomicBool,
}

#[derive(Default)]
struct Cache {
    scripts: HashMap<Sha, Arc<Script>>,
    /// Scripts that only EVAL brought, in the order of uses of theirs, each with that: who has been used since gets the
    /// place of its last use when its turn comes.
    evaluated: VecDeque<(Sha, u64)>,
    /// How often scripts were looked for.
    uses: u64,
    bytes: usize,
}

impl Cache {
    /// Forgets the script that was not used for longest. O(1) amortised over uses. False if there is none.
    fn evict(&mut self) -> bool {
        while let Some((sha, since)) = self.evaluated.pop_front() {
            let used = |script: &Arc<Script>| script.used.load(Ordering::Relaxed);
            match self.scripts.get(&sha).map(used) {
                Some(used) if used > since => {
                    let at = self.evaluated.partition_point(|(_, since)| *since < used);
                    self.evaluated.insert(at, (sha, used));
                }
                _ => {
                    let gone = self.scripts.remove(&sha);
                    self.bytes -= gone.map_or(0, |gone| gone.memory_bytes());
                    return true;
                }
            }
        }
        false
    }
}

/// A script as it was sent.
pub struct Script {
    pub sha: Sha,
    pub body: Box<[u8]>,
    pub flags: Flags,
    /// It comes to no data but that of the keys that it is called with.
    is_local: bool,
    /// When it was looked for last, as a number of `Cache::uses`.
    used: AtomicU64,
}

/// How a script came here, which decides whether it may be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Eval,
    Load,
}

impl Scripting {
    /// Whether there is a script of this name; no use of it.
    pub fn knows(&self, sha: &Sha) -> bool {
        self.cache.lock().scripts.contains_key(sha)
    }

    /// The script of this name, as a use of it.
    pub fn find(&self, sha: &Sha) -> Option<Arc<Script>> {
        let mut cache = self.cache.lock();
        cache.uses += 1;
        let script = cache.scripts.get(sha)?;
        script.used.store(cache.uses, Ordering::Relaxed);
        Some(script.clone())
    }

    /// Whether what a command calls says that it changes nothing.
    pub fn promises_no_writes(&self, command: &Command, args: &Args<'_>) -> bool {
        let program = args.word(1);
        match command.name {
            _ if command.has(CommandFlag::ReadOnly) => true,
            "EVAL" => shebang::script(program).is_ok_and(|(flags, _)| flags.no_writes),
            "EVALSHA" => {
                let script = parse_sha(program).and_then(|sha| self.find(&sha));
                script.is_some_and(|script| script.flags.no_writes)
            }
            _ => {
                let function = self.functions.current().find(program);
                function.is_some_and(|(_, described)| described.flags.no_writes)
            }
        }
    }

    /// Keeps a script.
    pub fn keep(&self, script: Arc<Script>, origin: Origin) {
        let mut cache = self.cache.lock();
        let sha = script.sha;
        if cache.scripts.contains_key(&sha) {
            if origin == Origin::Load {
                cache.evaluated.retain(|(known, _)| *known != sha);
            }
            return;
        }
        cache.bytes += script.memory_bytes();
        cache.scripts.insert(sha, script);
        if origin == Origin::Eval {
            let uses = cache.uses;
            cache.evaluated.push_back((sha, uses));
        }
        while cache.evaluated.len() > EVALUATED_MAX && cache.evict() {
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Forgets all scripts.
    pub fn flush(&self) {
        *self.cache.lock() = Cache::default();
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// How many scripts are kept, and the bytes they take.
    pub fn size(&self) -> (usize, usize) {
        let cache = self.cache.lock();
        (cache.scripts.len(), cache.bytes)
    }
}

/// The words that name the keys of a command that runs a script or function, if it comes to no data but theirs for
/// certain.
pub fn keys_of(
    scripting: &Scripting,
    libraries: &Libraries,
    command: &Command,
    args: &Args<'_>,
) -> Option<Range<usize>> {
    let count = parse_i64(args.get(2)?)?;
    let keys = 3..3 + usize::try_from(count).ok()?;
    let word = args.get(1)?;
    let is_local = match command.name {
        "EVAL" | "EVAL_RO" => match scripting.find(&sha1_hex(word)) {
            Some(script) => script.is_local,
            None => Script::new(word).is_ok_and(|script| script.is_local),
        },
        "EVALSHA" | "EVALSHA_RO" => scripting.find(&parse_sha(word)?)?.is_local,
        _ => libraries.find(word)?.0.is_local,
    };
    (is_local && keys.end <= args.len()).then_some(keys)
}

impl Script {
    /// # Errors
    /// The first line is a shebang that is not understood.
    pub fn new(body: &[u8]) -> Result<Script> {
        let (flags, program) = shebang::script(body)?;
        Ok(Script {
            sha: sha1_hex(body),
            body: body.into(),
            flags,
            is_local: locality::keeps_to_its_keys(program),
            used: AtomicU64::new(0),
        })
    }

    /// What is compiled.
    fn program(&self) -> &[u8] {
        shebang::script(&self.body).map_or(&self.body, |(_, program)| program)
    }

    fn memory_bytes(&self) -> usize {
        self.body.len() + size_of::<Script>() + 2 * size_of::<Sha>()
    }
}

/// The SHA-1 of `bytes` in hexadecimal digits.
pub fn sha1_hex(bytes: &[u8]) -> Sha {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 40];
    for (pair, byte) in text.chunks_exact_mut(2).zip(Sha1::digest(bytes)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// The name of a script as a client wrote it.
pub fn parse_sha(word: &[u8]) -> Option<Sha> {
    let mut sha: Sha = word.try_into().ok()?;
    sha.make_ascii_lowercase();
    Some(sha)
}
