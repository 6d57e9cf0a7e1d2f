//! Forms of free text: names, secrets, paths, directories.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::super::words;
use super::{Form, Rejection, Source};

/// Text, checked by the directive's own rule.
pub(in super::super) struct Text {
    initial: &'static str,
    check: fn(&str) -> Result<(), &'static str>,
}

pub(in super::super) const fn text(initial: &'static str) -> Text {
    Text {
        initial,
        check: |_| Ok(()),
    }
}

impl Text {
    pub(in super::super) const fn checked(
        mut self,
        check: fn(&str) -> Result<(), &'static str>,
    ) -> Text {
        self.check = check;
        self
    }
}

impl Form for Text {
    type Value = String;

    fn initial(&self) -> String {
        self.initial.to_owned()
    }

    fn update(&self, value: &mut String, words: &[&[u8]], _: Source) -> Result<(), Rejection> {
        let text = std::str::from_utf8(words[0]).map_err(|_| "argument must be UTF-8 text")?;
        (self.check)(text)?;
        *value = text.to_owned();
        Ok(())
    }

    fn show(&self, value: &String) -> Vec<u8> {
        value.clone().into_bytes()
    }

    fn lines(&self, value: &String) -> Vec<Vec<u8>> {
        vec![quoted(value.as_bytes())]
    }

    fn describe(&self) -> String {
        "text".to_owned()
    }
}

/// Bytes of any kind that are nobody's business: passwords.
pub(in super::super) struct Secret;

pub(in super::super) const fn secret() -> Secret {
    Secret
}

impl Form for Secret {
    type Value = Vec<u8>;

    fn initial(&self) -> Vec<u8> {
        Vec::new()
    }

    fn update(&self, value: &mut Vec<u8>, words: &[&[u8]], _: Source) -> Result<(), Rejection> {
        *value = words[0].to_vec();
        Ok(())
    }

    fn show(&self, value: &Vec<u8>) -> Vec<u8> {
        value.clone()
    }

    fn lines(&self, value: &Vec<u8>) -> Vec<Vec<u8>> {
        vec![quoted(value)]
    }

    fn describe(&self) -> String {
        "secret".to_owned()
    }
}

/// The path of a file; relative ones are below `dir`.
pub(in super::super) struct FilePath;

pub(in super::super) const fn path() -> FilePath {
    FilePath
}

impl Form for FilePath {
    type Value = PathBuf;

    fn initial(&self) -> PathBuf {
        PathBuf::new()
    }

    fn update(&self, value: &mut PathBuf, words: &[&[u8]], _: Source) -> Result<(), Rejection> {
        *value = PathBuf::from(OsStr::from_bytes(words[0]));
        Ok(())
    }

    fn show(&self, value: &PathBuf) -> Vec<u8> {
        bytes(value)
    }

    fn lines(&self, value: &PathBuf) -> Vec<Vec<u8>> {
        vec![quoted(&bytes(value))]
    }

    fn describe(&self) -> String {
        "path".to_owned()
    }
}

/// A directory that exists, held as an absolute path. A relative one is below the directory named before, the first
/// below the one the program was started in.
pub(in super::super) struct Directory;

pub(in super::super) const fn directory() -> Directory {
    Directory
}

impl Form for Directory {
    type Value = PathBuf;

    fn initial(&self) -> PathBuf {
        env::current_dir().unwrap_or_else(|_| PathBuf::from("/"))
    }

    fn update(&self, value: &mut PathBuf, words: &[&[u8]], _: Source) -> Result<(), Rejection> {
        if words[0].is_empty() {
            return Err("dir can't be empty".into());
        }
        let wanted = value.join(OsStr::from_bytes(words[0]));
        let found = fs::canonicalize(wanted).map_err(|error| Rejection::from(os_reason(&error)))?;
        if !found.is_dir() {
            return Err("Not a directory".into());
        }
        *value = found;
        Ok(())
    }

    fn show(&self, value: &PathBuf) -> Vec<u8> {
        bytes(value)
    }

    fn lines(&self, value: &PathBuf) -> Vec<Vec<u8>> {
        vec![quoted(&bytes(value))]
    }

    /// The file would mean another directory when the program is started elsewhere.
    fn goes_without_saying(&self, _: &PathBuf) -> bool {
        false
    }

    fn describe(&self) -> String {
        "directory".to_owned()
    }
}

/// An error of the operating system in its own words, without Rust's addition of the number.
pub(in super::super) fn os_reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

fn quoted(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    words::quote(text, &mut out);
    out
}
