//! The configuration: what the files and the command line say, read cheaply by every worker, changed by `CONFIG SET`,
//! written back by `CONFIG REWRITE`.
//!
//! Everything follows from one table ([`directives`]): a row gives a directive's names, its typed field in
//! [`Settings`], how its text is read and shown, and what it does. The current settings are an immutable value behind
//! an `Arc`; a change makes a new one and raises the generation. A worker keeps a [`Snapshot`] and pays one atomic
//! load per look, so that settings cost nothing on the path of a command.

mod checks;
mod choices;
mod command_line;
mod directives;
mod file;
mod form;
mod memcached_options;
pub mod memory_size;
mod reference;
mod rewrite;
mod schema;
mod system;
pub mod words;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::{Mutex, RwLock};

use self::directives::DIRECTIVES;
use self::form::{Rejection, Source};
use self::schema::{Directive, Visibility};
use crate::glob::{Case, Glob};

pub use self::choices::*;
pub use self::command_line::{Answer, CommandLine, Invocation, VALKEY_VERSION};
pub use self::directives::Settings;
pub use self::file::{Line, LoadError};
pub use self::form::{KeyspaceEvents, OutputLimit, OutputLimits, SavePoint, ShutdownOptions};
pub use self::memory_size::MemoryLimit;
pub use self::rewrite::RewriteError;
pub use self::schema::{Change, Effect};
pub use self::system::{check_system, test_memory};

/// The current settings and where they came from.
pub struct Config {
    current: RwLock<Arc<Settings>>,
    /// Raised after every change of `current`.
    generation: AtomicU64,
    /// Held by whoever changes or rewrites, so that changes happen one after the other. Readers never wait for it.
    changing: Mutex<()>,
    file: Option<PathBuf>,
    users: Vec<Line>,
    renamed_commands: Vec<Line>,
    named: BTreeSet<&'static str>,
}

impl Config {
    /// Reads the configuration file, the standard input and the options that the command line names.
    ///
    /// # Errors
    /// The first line that is wrong, or a file that cannot be read. [`LoadError`] says what to print.
    pub fn load(command_line: &CommandLine) -> Result<Config, LoadError> {
        let text = command_line.text()?;
        let mut config = Config::from_text(&text)?;
        config.file = command_line.file().map(Path::to_owned);
        Ok(config)
    }

    /// Reads a configuration that is in no file.
    pub fn from_text(text: &[u8]) -> Result<Config, LoadError> {
        let loaded = file::load(text)?;
        Ok(Config {
            current: RwLock::new(Arc::new(loaded.settings)),
            generation: AtomicU64::new(0),
            changing: Mutex::new(()),
            file: None,
            users: loaded.users,
            renamed_commands: loaded.renamed_commands,
            named: loaded.named,
        })
    }

    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.current.read())
    }

    /// The file that was loaded and that `CONFIG REWRITE` writes.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The `user` lines, in order; the words start with `user`.
    pub fn users(&self) -> &[Line] {
        &self.users
    }

    /// The `rename-command` lines, in order: the words are the directive, the old name and the new one.
    pub fn renamed_commands(&self) -> &[Line] {
        &self.renamed_commands
    }

    /// Whether the configuration has a line for this directive, rather than leaving it to its initial value.
    pub fn is_named(&self, name: &str) -> bool {
        self.named.contains(name)
    }

    /// Directives that differ from their initial value but have no effect here, and why: worth a line in the log.
    pub fn without_effect(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let (settings, initial) = (self.settings(), Settings::default());
        DIRECTIVES
            .iter()
            .filter_map(move |directive| match directive.effect {
                Effect::AcceptedWithoutEffect(reason)
                    if !(directive.equal)(&settings, &initial) =>
                {
                    Some((directive.name, reason))
                }
                _ => None,
            })
    }

    /// Names and values of the directives that a name or pattern asks for, sorted by name.
    ///
    /// A name is answered as it was spelled. Patterns find neither hidden directives nor the same name twice.
    pub fn get(&self, patterns: &[&[u8]]) -> Vec<(String, Vec<u8>)> {
        let settings = self.settings();
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        let mut add = |name: &str, directive: &Directive| {
            if !found
                .iter()
                .any(|(known, _)| known.eq_ignore_ascii_case(name))
            {
                found.push((name.to_owned(), (directive.show)(&settings)));
            }
        };
        for pattern in patterns {
            if pattern
                .iter()
                .any(|byte| matches!(byte, b'*' | b'?' | b'['))
            {
                let glob = Glob::new(pattern, Case::Ignored);
                for (name, directive) in NAMES.iter() {
                    if directive.visibility == Visibility::Listed && glob.matches(name.as_bytes()) {
                        add(name, directive);
                    }
                }
            } else if let Some((_, directive)) = find(pattern)
                && let Ok(name) = std::str::from_utf8(pattern)
            {
                add(name, directive);
            }
        }
        found.sort();
        found
    }

    /// Sets all of the named directives, or none.
    ///
    /// What the change needs beyond the settings (sockets, files) is the caller's; if that fails it calls
    /// [`rollback`](Self::rollback) and answers with [`SetError::not_applied`].
    ///
    /// # Errors
    /// The first pair that names no directive, or one that cannot be changed; then the first value that is wrong.
    pub fn set(&self, pairs: &[(&[u8], &[u8])], peer: Peer) -> Result<Changes, SetError> {
        let _changing = self.changing.lock();
        let previous = self.settings();
        let targets = targets(pairs, &previous, peer)?;
        let mut settings = Settings::clone(&previous);
        for ((name, directive), (_, value)) in targets.iter().zip(pairs) {
            (directive.update)(&mut settings, &[value], Source::RunTime)
                .map_err(|Rejection(reason)| SetError::not_applied(name, &reason))?;
        }
        let changed = DIRECTIVES
            .iter()
            .filter(|directive| !(directive.equal)(&previous, &settings))
            .collect();
        self.publish(settings);
        Ok(Changes { previous, changed })
    }

    /// Takes changes back, leaving alone what others changed since.
    pub fn rollback(&self, changes: &Changes) {
        self.modify(|settings| {
            for directive in &changes.changed {
                (directive.copy)(settings, &changes.previous);
            }
        });
    }

    /// Changes settings on behalf of a command other than `CONFIG SET`, such as REPLICAOF or `cache_memlimit`.
    pub fn change(&self, change: impl FnOnce(&mut Settings)) {
        let _changing = self.changing.lock();
        self.modify(change);
    }

    /// How often settings were changed so far.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Writes the current settings into the configuration file, keeping its comments and order.
    ///
    /// `users` replaces the file's `user` lines (without that word); `None` keeps them.
    ///
    /// # Errors
    /// There is no file, or it cannot be read or written; then it is as it was.
    pub fn rewrite(&self, users: Option<&[Vec<u8>]>) -> Result<(), RewriteError> {
        let _changing = self.changing.lock();
        let file = self.file.as_deref().ok_or(RewriteError::NoFile)?;
        rewrite::rewrite(file, &self.settings(), users)
    }

    fn modify(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = Settings::clone(&self.settings());
        change(&mut settings);
        self.publish(settings);
    }

    fn publish(&self, settings: Settings) {
        *self.current.write() = Arc::new(settings);
        // Release: whoever sees the new generation also finds the new settings under the lock.
        self.generation.fetch_add(1, Ordering::Release);
    }
}

/// Settings as one worker last saw them.
pub struct Snapshot {
    settings: Arc<Settings>,
    generation: u64,
}

impl Snapshot {
    pub fn new(config: &Config) -> Snapshot {
        // The generation first: a change in between is then seen as one at the next look.
        let generation = config.generation.load(Ordering::Acquire);
        Snapshot {
            settings: config.settings(),
            generation,
        }
    }

    /// The settings as they are now; one atomic load if they did not change.
    pub fn current(&mut self, config: &Config) -> &Arc<Settings> {
        if config.generation.load(Ordering::Acquire) != self.generation {
            *self = Snapshot::new(config);
        }
        &self.settings
    }

    /// The settings as they were at the last look.
    pub fn latest(&self) -> &Arc<Settings> {
        &self.settings
    }
}

/// Where a connection comes from, which permissions may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    ThisMachine,
    Elsewhere,
}

impl Permission {
    pub fn allows(self, peer: Peer) -> bool {
        match self {
            Permission::No => false,
            Permission::Yes => true,
            Permission::Local => peer == Peer::ThisMachine,
        }
    }
}

impl Settings {
    /// A path of the settings: relative ones are below `dir`.
    pub fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.join(path)
    }

    /// Where to listen for memcached clients.
    pub fn bind_of_memcached(&self) -> &[String] {
        match self.memcached_bind.is_empty() {
            true => &self.bind,
            false => &self.memcached_bind,
        }
    }
}

/// What a `CONFIG SET` changed.
pub struct Changes {
    previous: Arc<Settings>,
    changed: Vec<&'static Directive>,
}

impl Changes {
    /// Names of the directives whose values are different now.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.changed.iter().map(|directive| directive.name)
    }

    /// Whether the directive of this name changed.
    pub fn contains(&self, name: &str) -> bool {
        self.names().any(|changed| changed == name)
    }

    /// The settings before the change.
    pub fn previous(&self) -> &Arc<Settings> {
        &self.previous
    }
}

/// Why `CONFIG SET` changed nothing; shown as the error reply, without its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetError {
    Unknown { name: String },
    Failed { name: String, reason: String },
}

impl SetError {
    /// The directive could not be set, for this reason.
    pub fn not_applied(name: &str, reason: &str) -> SetError {
        SetError::Failed {
            name: name.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetError::Unknown { name } => write!(
                f,
                "Unknown option or number of arguments for CONFIG SET - '{name}'"
            ),
            SetError::Failed { name, reason } => {
                write!(
                    f,
                    "CONFIG SET failed (possibly related to argument '{name}') - {reason}"
                )
            }
        }
    }
}

impl std::error::Error for SetError {}

/// Every name and alias with its directive, sorted by name.
static NAMES: LazyLock<Vec<(&'static str, &'static Directive)>> = LazyLock::new(|| {
    let names = |directive: &'static Directive| {
        std::iter::once(&directive.name)
            .chain(directive.aliases)
            .map(move |name| (*name, directive))
    };
    let mut all: Vec<_> = DIRECTIVES.iter().flat_map(names).collect();
    all.sort_unstable_by_key(|(name, _)| *name);
    all
});

/// The directive of this name or alias, in whatever case, and the name as the table spells it.
fn find(name: &[u8]) -> Option<(&'static str, &'static Directive)> {
    let name = name.to_ascii_lowercase();
    let index = NAMES
        .binary_search_by(|(known, _)| known.as_bytes().cmp(&name))
        .ok()?;
    Some(NAMES[index])
}

/// The directives that `CONFIG SET` is to set, if each may be set once.
fn targets(
    pairs: &[(&[u8], &[u8])],
    settings: &Settings,
    peer: Peer,
) -> Result<Vec<(&'static str, &'static Directive)>, SetError> {
    let mut targets: Vec<(&'static str, &'static Directive)> =
        Vec::with_capacity(pairs.len().min(NAMES.len()));
    for (given, _) in pairs {
        let spelled = String::from_utf8_lossy(given);
        let Some((name, directive)) = find(given) else {
            return Err(SetError::Unknown {
                name: spelled.into_owned(),
            });
        };
        let refusal = match directive.change {
            Change::AtStart => Some("can't set immutable config"),
            Change::Protected if !settings.enable_protected_configs.allows(peer) => {
                Some("can't set protected config")
            }
            _ if targets.iter().any(|(known, _)| *known == name) => Some("duplicate parameter"),
            _ => None,
        };
        if let Some(reason) = refusal {
            return Err(SetError::not_applied(&spelled, reason));
        }
        targets.push((name, directive));
    }
    Ok(targets)
}

#[cfg(test)]
mod tests;
