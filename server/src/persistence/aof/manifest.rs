//! The manifest: which files make up the append-only log, in which order.
//!
//! ```text
//! file appendonly.aof.2.base.rdb seq 2 type b
//! file appendonly.aof.5.incr.aof seq 5 type i
//! ```
//!
//! One base at most (`b`), then increments (`i`); history (`h`) waits to be deleted. The manifest is replaced as a
//! whole: written beside, synced, renamed, the directory synced.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::base::Form;
use crate::config::words;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) sequence: u64,
}

/// The files of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) base: Option<Part>,
    pub(super) increments: Vec<Part>,
    pub(super) history: Vec<Part>,
}

/// Longest line that is read.
const MAX_LINE: usize = 1024;

impl Manifest {
    pub(super) fn path(directory: &Path, prefix: &str) -> PathBuf {
        directory.join(format!("{prefix}.manifest"))
    }

    /// Reads a manifest's text.
    ///
    /// # Errors
    /// What is wrong with it, as Valkey says it.
    pub(super) fn parse(text: &str) -> Result<Manifest, String> {
        let mut manifest = Manifest::default();
        if text.is_empty() {
            return Err("Found an empty AOF manifest".into());
        }
        for line in text.lines() {
            if line.starts_with('#') {
                continue;
            }
            if line.len() > MAX_LINE {
                return Err("The AOF manifest file contains too long line".into());
            }
            let (part, kind) =
                read_line(line).ok_or_else(|| "Invalid AOF manifest file format".to_owned())?;
            match kind {
                'b' if manifest.base.is_some() => {
                    return Err("Found duplicate base file information".into());
                }
                'b' => manifest.base = Some(part),
                'i' => {
                    let last = manifest.increments.last();
                    if last.is_some_and(|last| last.sequence >= part.sequence) {
                        return Err("Found a non-monotonic sequence number".into());
                    }
                    manifest.increments.push(part);
                }
                'h' => manifest.history.push(part),
                _ => return Err("Unknown AOF file type".into()),
            }
        }
        Ok(manifest)
    }

    fn text(&self) -> String {
        let line = |part: &Part, kind: char| {
            format!(
                "file {} seq {} type {kind}\n",
                quoted(&part.name),
                part.sequence
            )
        };
        let base = self.base.iter().map(|part| line(part, 'b'));
        let history = self.history.iter().map(|part| line(part, 'h'));
        let increments = self.increments.iter().map(|part| line(part, 'i'));
        base.chain(history).chain(increments).collect()
    }

    /// Replaces the manifest in `directory`.
    ///
    /// # Errors
    /// The disk refuses; then the old one stands.
    pub(super) fn store(&self, directory: &Path, prefix: &str) -> io::Result<()> {
        let beside = directory.join(format!("temp-{prefix}.manifest"));
        let mut file = File::create(&beside)?;
        file.write_all(self.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, Manifest::path(directory, prefix))?;
        File::open(directory)?.sync_all()
    }

    /// A base to come: its number and name.
    pub(super) fn next_base(&self, prefix: &str, form: Form) -> Part {
        let sequence = self.base.as_ref().map_or(0, |base| base.sequence) + 1;
        let suffix = form.suffix();
        Part {
            name: format!("{prefix}.{sequence}.base.{suffix}"),
            sequence,
        }
    }

    /// An increment to come: its number and name.
    pub(super) fn next_increment(&self, prefix: &str) -> Part {
        let sequence = self.increments.last().map_or(0, |last| last.sequence) + 1;
        Part {
            name: format!("{prefix}.{sequence}.incr.aof"),
            sequence,
        }
    }
}

/// `file <name> seq <number> type <letter>`, in any order of the pairs.
fn read_line(line: &str) -> Option<(Part, char)> {
    let words = words::split(line.as_bytes())?;
    let (mut name, mut sequence, mut kind) = (None, None, None);
    let (pairs, []) = words.as_chunks() else {
        return None;
    };
    for [key, value] in pairs {
        let value = str::from_utf8(value).ok()?;
        match key.to_ascii_lowercase().as_slice() {
            b"file" if value.contains('/') => return None,
            b"file" => name = Some(value.to_owned()),
            b"seq" => sequence = Some(value.parse().ok()?),
            b"type" => kind = value.chars().next(),
            _ => {}
        }
    }
    let part = Part {
        name: name?,
        sequence: sequence?,
    };
    Some((part, kind?))
}

fn quoted(name: &str) -> String {
    let mut word = Vec::new();
    words::quote_if_needed(name.as_bytes(), &mut word);
    String::from_utf8_lossy(&word).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let manifest = Manifest {
            base: Some(Part {
                name: " a\n\u{fc}\"\\.1.base.rdb".into(),
                sequence: 1,
            }),
            increments: vec![Part {
                name: "x.7.incr.aof".into(),
                sequence: 7,
            }],
            history: vec![],
        };
        assert_eq!(Manifest::parse(&manifest.text()), Ok(manifest));
    }

    #[test]
    fn damaged_manifests_are_refused() {
        for text in [
            "",
            "file a seq 1 type b\nfile b seq 2 type b\n",
            "file a seq 2 type i\nfile b seq 1 type i\n",
            "file a seq x type i\n",
            "file a/b seq 1 type i\n",
            "file a seq 1 type q\n",
            "seq 1 type i\n",
            "file \"a seq 1 type i\n",
            "file a seq 1 type\n",
            "\nfile a seq 1 type i\n",
        ] {
            assert!(Manifest::parse(text).is_err(), "{text}");
        }
    }
}
