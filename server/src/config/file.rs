//! Reading configuration text: lines, comments, included files, and the few lines that are not directives of the table.
//!
//! The file, the standard input and the options of the command line are one text, in this order, whose lines are
//! numbered throughout; an included file has lines of its own.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use super::form::{Rejection, Source, os_reason};
use super::{Settings, VALKEY_VERSION, find, words};
use crate::glob::{Case, Glob};

/// Longest configuration that is read, in bytes, all included files together.
const MAX_BYTES: u64 = 64 << 20;
/// Files may include files that include files, this often.
const MAX_DEPTH: usize = 16;
/// Most files a pattern of `include` may stand for.
const MAX_MATCHES: usize = 1024;

/// Directives that the original once had and still lets pass.
const FORGOTTEN: &[&[u8]] = &[
    b"dynamic-hz",
    b"events-per-io-thread",
    b"io-threads-do-reads",
    b"list-max-ziplist-entries",
    b"list-max-ziplist-value",
    b"lua-replicate-commands",
    b"sanitize-dump-payload",
];

/// A line of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Starts at 1.
    pub number: usize,
    pub text: Vec<u8>,
    /// The directive's name first.
    pub words: Vec<Vec<u8>>,
}

/// Why the server cannot start with this configuration. Shows what to print, line ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    Line {
        number: usize,
        text: String,
        reason: String,
    },
    /// Lines that are right alone, but not together.
    Contradiction(String),
    /// Belongs into the log, not on the standard error, as the original has it.
    File { path: PathBuf, reason: String },
}

impl LoadError {
    /// The line is wrong, for this reason.
    pub fn at(line: &Line, reason: impl Into<String>) -> LoadError {
        LoadError::Line {
            number: line.number,
            text: String::from_utf8_lossy(&line.text).into_owned(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Line {
                number,
                text,
                reason,
            } => write!(
                f,
                "\n*** FATAL CONFIG FILE ERROR (Version {VALKEY_VERSION}) ***\n\
                 Reading the configuration file, at line {number}\n>>> '{text}'\n{reason}\n"
            ),
            LoadError::Contradiction(reason) => {
                write!(
                    f,
                    "\n*** FATAL CONFIG FILE ERROR (Version {VALKEY_VERSION}) ***\n{reason}\n"
                )
            }
            LoadError::File { path, reason } => {
                writeln!(
                    f,
                    "Fatal error, can't open config file '{}': {reason}",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for LoadError {}

/// What a configuration says.
pub(super) struct Loaded {
    pub(super) settings: Settings,
    pub(super) users: Vec<Line>,
    pub(super) renamed_commands: Vec<Line>,
    /// The directives that have a line, by their real names.
    pub(super) named: BTreeSet<&'static str>,
}

/// Reads a whole configuration.
pub(super) fn load(text: &[u8]) -> Result<Loaded, LoadError> {
    let mut loader = Loader {
        loaded: Loaded {
            settings: Settings::default(),
            users: Vec::new(),
            renamed_commands: Vec::new(),
            named: BTreeSet::new(),
        },
        bytes_left: MAX_BYTES,
    };
    loader.read(text, 0)?;
    let settings = &loader.loaded.settings;
    if settings.cluster_enabled && settings.replicaof.is_some() {
        return Err(LoadError::Contradiction(
            "replicaof directive not allowed in cluster mode".to_owned(),
        ));
    }
    Ok(loader.loaded)
}

/// Reads a file of at most [`MAX_BYTES`].
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, LoadError> {
    let error = |reason: String| LoadError::File {
        path: path.to_owned(),
        reason,
    };
    let file = File::open(path).map_err(|problem| error(os_reason(&problem)))?;
    read_bounded(file).map_err(|problem| error(os_reason(&problem)))
}

/// Reads the standard input to its end, at most [`MAX_BYTES`].
pub(super) fn read_stdin() -> Result<Vec<u8>, LoadError> {
    read_bounded(io::stdin().lock()).map_err(|problem| LoadError::File {
        path: PathBuf::from("-"),
        reason: os_reason(&problem),
    })
}

fn read_bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    source.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

struct Loader {
    loaded: Loaded,
    bytes_left: u64,
}

impl Loader {
    fn read(&mut self, text: &[u8], depth: usize) -> Result<(), LoadError> {
        for (index, text) in text.split(|byte| *byte == b'\n').enumerate() {
            let text = trim(text);
            if text.is_empty() || text[0] == b'#' {
                continue;
            }
            let mut line = Line {
                number: index + 1,
                text: text.to_vec(),
                words: Vec::new(),
            };
            match words::split(text) {
                Some(words) => line.words = words,
                None => {
                    return Err(LoadError::at(
                        &line,
                        "Unbalanced quotes in configuration line",
                    ));
                }
            }
            self.apply(line, depth)?;
        }
        Ok(())
    }

    fn apply(&mut self, line: Line, depth: usize) -> Result<(), LoadError> {
        const UNKNOWN: &str = "Bad directive or wrong number of arguments";
        let Some((name, arguments)) = line.words.split_first() else {
            return Ok(());
        };
        if let Some((name, directive)) = find(name) {
            let source = if self.loaded.named.insert(directive.name) {
                Source::FirstLine
            } else {
                Source::LaterLine
            };
            let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
            debug_assert!(name == directive.name || directive.aliases.contains(&name));
            return (directive.update)(&mut self.loaded.settings, &arguments, source)
                .map_err(|Rejection(reason)| LoadError::at(&line, reason));
        }
        match (name.to_ascii_lowercase().as_slice(), arguments) {
            (b"include", [path]) => {
                let path = path.clone();
                self.include(&line, &path, depth)?;
            }
            (b"user", [user, ..]) => {
                let mut known = self.loaded.users.iter();
                if known.any(|known| known.words[1] == *user) {
                    let user = String::from_utf8_lossy(user);
                    let reason = format!(
                        "Error in user declaration '{user}': Duplicate user found. A user can only be defined once in \
                         config files"
                    );
                    return Err(LoadError::at(&line, reason));
                }
                self.loaded.users.push(line);
            }
            (b"rename-command", [_, _]) => self.loaded.renamed_commands.push(line),
            (b"loadmodule", [_, ..]) => {
                return Err(LoadError::at(&line, "Native modules are not supported"));
            }
            (b"sentinel", _) => {
                return Err(LoadError::at(
                    &line,
                    "sentinel directive while not in sentinel mode",
                ));
            }
            (name, [_]) if FORGOTTEN.contains(&name) => {}
            _ => return Err(LoadError::at(&line, UNKNOWN)),
        }
        Ok(())
    }

    /// Reads the file, or all that match the pattern as one text.
    fn include(&mut self, line: &Line, path: &[u8], depth: usize) -> Result<(), LoadError> {
        if depth == MAX_DEPTH {
            return Err(LoadError::at(line, "Files are included too deeply"));
        }
        let path = self.loaded.settings.resolve(OsStr::from_bytes(path));
        let mut text = Vec::new();
        for path in expand(path) {
            let included = read_file(&path)?;
            // What is included again and again counts again and again, and so does an empty file.
            self.bytes_left = self
                .bytes_left
                .checked_sub(included.len() as u64 + 1)
                .ok_or_else(|| LoadError::at(line, "The included files are too long"))?;
            text.extend(included);
        }
        self.read(&text, depth + 1)
    }
}

/// Blanks, tabs and line ends, at both ends.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..]
    | [rest @ .., b' ' | b'\t' | b'\r' | b'\n'] = text
    {
        text = rest;
    }
    text
}

/// The files a path with wildcards stands for, in order; the path itself if it has none.
fn expand(path: PathBuf) -> Vec<PathBuf> {
    let is_pattern = |text: &[u8]| text.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['));
    if !is_pattern(path.as_os_str().as_bytes()) {
        return vec![path];
    }
    let mut found = vec![PathBuf::new()];
    for component in path.components() {
        let text = component.as_os_str().as_bytes();
        found = match component {
            Component::Normal(_) if is_pattern(text) => {
                let glob = Glob::new(text, Case::Sensitive);
                found
                    .iter()
                    .flat_map(|directory| matches_in(directory, text, &glob))
                    .take(MAX_MATCHES)
                    .collect()
            }
            _ => found
                .iter()
                .map(|directory| directory.join(component))
                .collect(),
        };
    }
    found.retain(|path| path.exists());
    found
}

fn matches_in(directory: &Path, pattern: &[u8], glob: &Glob<'_>) -> Vec<PathBuf> {
    let listed = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    let Ok(entries) = fs::read_dir(listed) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().into_vec()));
    let hidden = |name: &[u8]| name.starts_with(b".") && !pattern.starts_with(b".");
    let mut matching: Vec<Vec<u8>> = names
        .filter(|name| !hidden(name) && glob.matches(name))
        .collect();
    matching.sort_unstable();
    matching
        .iter()
        .map(|name| directory.join(OsStr::from_bytes(name)))
        .collect()
}
