//! The command line: `ferrite [file | -] [--directive value ...]`, and what only prints something.
//!
//! The options become lines of configuration text that follow the file's and the standard input's, each value in
//! quotes; an option that holds a blank, as in `'--save 60 1'`, is a line as it stands. What follows an option's name
//! is a value even if it starts with `--`, except after `--save`, which may stand alone.

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use super::file::{self, LoadError};
use super::{memcached_options, reference, words};

/// The version whose behaviour this server has, and which it reports to those who look for one.
pub const VALKEY_VERSION: &str = "9.1.2";

const HELP: &str = "\
Usage: ferrite [/path/to/ferrite.conf | -] [--directive value ...] [-]
       ferrite memcached [memcached's options]
       ferrite --version | -v
       ferrite --help | -h [directive]
       ferrite --check-system
       ferrite --test-memory <megabytes>

A configuration file has one directive with its values on a line, as redis.conf
and valkey.conf have; - reads such lines from the standard input. Options on the
command line win over both.

Examples:
       ferrite                                    (the defaults)
       ferrite /etc/valkey/valkey.conf
       ferrite --port 7777 --maxmemory 2gb --maxmemory-policy allkeys-lru
       ferrite my.conf --loglevel verbose
       echo 'maxmemory 128mb' | ferrite -
       ferrite memcached -p 11211 -m 1024 -t 4

All directives: docs/configuration.md
";

/// What the program was called for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    Serve(CommandLine),
    Print(Answer),
    CheckSystem,
    TestMemory { megabytes: u64 },
}

/// Text to print before the program ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub text: String,
    /// Goes to the standard output if 0, to the standard error otherwise.
    pub exit_code: u8,
}

/// Where the configuration is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    file: Option<PathBuf>,
    reads_stdin: bool,
    /// Lines of configuration text.
    options: Vec<u8>,
}

impl Invocation {
    /// Reads the arguments, the program's name not being among them.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Invocation {
        let arguments: Vec<Vec<u8>> = arguments.into_iter().map(OsString::into_vec).collect();
        let rest = arguments.get(1..).unwrap_or_default();
        match arguments.first().map(Vec::as_slice) {
            Some(b"-v" | b"--version") => Invocation::Print(Answer::success(version())),
            Some(b"-h" | b"--help") => {
                let explained = rest
                    .first()
                    .and_then(|directive| reference::explain(directive));
                Invocation::Print(Answer::success(
                    explained.unwrap_or_else(|| HELP.to_owned()),
                ))
            }
            Some(b"--check-system") => Invocation::CheckSystem,
            Some(b"--test-memory") => test_memory(rest),
            Some(b"memcached") => match memcached_options::parse(rest) {
                Ok(options) => Invocation::Serve(CommandLine {
                    options,
                    ..CommandLine::default()
                }),
                Err(answer) => Invocation::Print(answer),
            },
            _ => Invocation::Serve(CommandLine::parse(&arguments)),
        }
    }
}

impl Answer {
    pub(super) fn success(text: String) -> Answer {
        Answer { text, exit_code: 0 }
    }

    pub(super) fn failure(text: String, exit_code: u8) -> Answer {
        Answer { text, exit_code }
    }
}

impl CommandLine {
    /// The configuration file, as an absolute path.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    pub(super) fn text(&self) -> Result<Vec<u8>, LoadError> {
        let mut text = match &self.file {
            Some(path) => file::read_file(path)?,
            None => Vec::new(),
        };
        if self.reads_stdin {
            text.extend(file::read_stdin()?);
        }
        if !self.options.is_empty() {
            text.push(b'\n');
            text.extend(&self.options);
        }
        Ok(text)
    }

    fn parse(arguments: &[Vec<u8>]) -> CommandLine {
        let mut command_line = CommandLine::default();
        let mut rest = arguments;
        if let Some((first, others)) = arguments.split_first()
            && !first.starts_with(b"-")
        {
            command_line.file = absolute(first);
            rest = others;
        }
        // Whether the last option still needs a value, so that even `--x` is one.
        let mut awaits_value = false;
        for (index, argument) in rest.iter().enumerate() {
            let next = rest.get(index + 1);
            if argument == b"-" && (index == 0 || next.is_none()) {
                command_line.reads_stdin = true;
            } else if argument.starts_with(b"--") && !awaits_value {
                awaits_value = command_line.start_option(&argument[2..], next);
            } else {
                words::quote(argument, &mut command_line.options);
                command_line.options.push(b' ');
                awaits_value = false;
            }
        }
        command_line
    }

    /// Starts a line; says whether it needs a value.
    fn start_option(&mut self, option: &[u8], next: Option<&Vec<u8>>) -> bool {
        if !self.options.is_empty() {
            self.options.push(b'\n');
        }
        self.options.extend(option);
        self.options.push(b' ');
        let stands_alone = next.is_none_or(|next| next.starts_with(b"--"));
        if stands_alone && option.eq_ignore_ascii_case(b"save") {
            self.options.extend(b"\"\" ");
            return false;
        }
        !option.contains(&b' ')
    }
}

fn absolute(path: &[u8]) -> Option<PathBuf> {
    if path.is_empty() {
        return None;
    }
    let path = PathBuf::from(OsString::from_vec(path.to_vec()));
    Some(env::current_dir().map_or_else(|_| path.clone(), |directory| directory.join(&path)))
}

/// One line in the shape that tools parse: they look for `v=`.
fn version() -> String {
    format!(
        "Ferrite server v={VALKEY_VERSION} sha=00000000:0 malloc=mimalloc bits={} build=0 ferrite={}\n",
        usize::BITS,
        env!("CARGO_PKG_VERSION"),
    )
}

fn test_memory(arguments: &[Vec<u8>]) -> Invocation {
    let megabytes = match arguments {
        [only] => std::str::from_utf8(only)
            .ok()
            .and_then(|text| text.parse().ok()),
        _ => None,
    };
    match megabytes {
        Some(megabytes) => Invocation::TestMemory { megabytes },
        None => Invocation::Print(Answer::failure(
            "Please specify the amount of memory to test in megabytes.\n\
             Example: ferrite --test-memory 4096\n\n"
                .to_owned(),
            1,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parse(arguments: &[&str]) -> CommandLine {
        match Invocation::parse(arguments.iter().map(OsString::from)) {
            Invocation::Serve(command_line) => command_line,
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    /// Line, text and reason of the error the arguments make.
    fn error(arguments: &[&str]) -> Option<(usize, String, String)> {
        let text = parse(arguments).text().unwrap();
        match Config::from_text(&text).err()? {
            LoadError::Line {
                number,
                text,
                reason,
            } => Some((number, text, reason)),
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    #[test]
    fn options_become_lines_as_the_original_makes_them() {
        const INTEGER: &str = "argument couldn't be parsed into an integer";
        const NUMBER: &str = "wrong number of arguments";
        const UNKNOWN: &str = "Bad directive or wrong number of arguments";
        type Case<'a> = (&'a [&'a str], usize, &'a str, &'a str);
        let cases: &[Case<'_>] = &[
            (&["--port", "abc"], 2, r#"port "abc""#, INTEGER),
            (&["--port"], 2, "port", NUMBER),
            (&["--port", "1", "2"], 2, r#"port "1" "2""#, NUMBER),
            (&["--port 1 2"], 2, "port 1 2", NUMBER),
            (&["--port", "--x", "y"], 2, r#"port "--x" "y""#, NUMBER),
            (&["--port 1", "--x", "y"], 3, r#"x "y""#, UNKNOWN),
            (&["--timeout 5", "6"], 2, r#"timeout 5 "6""#, NUMBER),
            (&["--save", "--port", "x"], 3, r#"port "x""#, INTEGER),
            (&["--SAVE", "--port", "x"], 3, r#"port "x""#, INTEGER),
            (
                &["--save", "--save", "--port", "x"],
                4,
                r#"port "x""#,
                INTEGER,
            ),
            (&["--save", "", "--port", "x"], 3, r#"port "x""#, INTEGER),
            (
                &["--save", "60", "1", "--port", "x"],
                3,
                r#"port "x""#,
                INTEGER,
            ),
            (
                &["--save", "60 1", "--port", "x"],
                3,
                r#"port "x""#,
                INTEGER,
            ),
            (
                &["--save 60 1", "--save 5"],
                3,
                "save 5",
                "Invalid save parameters",
            ),
            (
                &["--requirepass", "--foo", "--x", "y"],
                3,
                r#"x "y""#,
                UNKNOWN,
            ),
            (&["-foo", "x"], 2, r#""-foo" "x""#, UNKNOWN),
            (&["--", "x"], 2, r#""x""#, UNKNOWN),
            (&["--", "--port", "x"], 2, r#""--port" "x""#, UNKNOWN),
            (&["---port", "x"], 2, r#"-port "x""#, UNKNOWN),
            (&["", "x"], 2, r#""x""#, UNKNOWN),
            (&["--port", "7", "--", "8"], 3, r#""8""#, UNKNOWN),
            (&["--timeout=5"], 2, "timeout=5", UNKNOWN),
            (&["--timeout", "\"5\""], 2, r#"timeout "\"5\"""#, INTEGER),
            (&["--TIMEOUT", "x"], 2, r#"TIMEOUT "x""#, INTEGER),
            (
                &["--timeout", "\u{ff}"],
                2,
                r#"timeout "\xc3\xbf""#,
                INTEGER,
            ),
            (
                &["--requirepass", "\n", "--timeout", "x"],
                3,
                r#"timeout "x""#,
                INTEGER,
            ),
            (
                &["--requirepass", "a b", "c"],
                2,
                r#"requirepass "a b" "c""#,
                NUMBER,
            ),
            (&["--port", "1", "--version"], 3, "version", UNKNOWN),
            (
                &["--loglevel", ""],
                2,
                r#"loglevel """#,
                "argument(s) must be one of the following: debug, verbose, notice, warning, nothing",
            ),
        ];
        for (arguments, number, text, reason) in cases {
            let expected = Some((*number, (*text).to_owned(), (*reason).to_owned()));
            assert_eq!(error(arguments), expected, "{arguments:?}");
        }
        for fine in [
            &["--save"][..],
            &["--requirepass", ""],
            &["--bind", "127.0.0.1", "::1"],
            &["--bind"],
            &[],
        ] {
            assert_eq!(error(fine), None, "{fine:?}");
        }
    }

    #[test]
    fn a_dash_reads_the_standard_input_at_either_end() {
        for arguments in [
            &["-"][..],
            &["-", "--port", "1"],
            &["--port", "1", "-"],
            &["a.conf", "-"],
        ] {
            assert!(parse(arguments).reads_stdin, "{arguments:?}");
        }
        assert!(!parse(&["--port", "-", "--save", ""]).reads_stdin);
    }

    #[test]
    fn the_file_is_an_absolute_path() {
        let expected = env::current_dir().unwrap().join("a.conf");
        assert_eq!(
            parse(&["a.conf", "--port", "1"]).file(),
            Some(expected.as_path())
        );
        assert_eq!(parse(&["--port", "1"]).file(), None);
    }

    #[test]
    fn questions_are_answered_at_once() {
        let answer =
            |arguments: &[&str]| match Invocation::parse(arguments.iter().map(OsString::from)) {
                Invocation::Print(answer) => answer,
                other => panic!("{other:?}"),
            };
        assert!(
            answer(&["-v", "x"])
                .text
                .starts_with("Ferrite server v=9.1.2 ")
        );
        assert!(answer(&["--help"]).text.starts_with("Usage: "));
        assert_eq!(answer(&["--test-memory"]).exit_code, 1);
        assert_eq!(
            Invocation::parse([OsString::from("--check-system")]),
            Invocation::CheckSystem
        );
        assert_eq!(
            Invocation::parse(["--test-memory", "4"].map(OsString::from)),
            Invocation::TestMemory { megabytes: 4 }
        );
    }

    #[test]
    fn a_missing_file_is_reported_for_the_log() {
        let error = parse(&["/nonexistent/x.conf"]).text().unwrap_err();
        assert_eq!(
            error.to_string(),
            "Fatal error, can't open config file '/nonexistent/x.conf': No such file or directory\n"
        );
    }
}
