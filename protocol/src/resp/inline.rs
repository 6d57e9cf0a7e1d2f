//! Requests typed by hand: one line, arguments separated by blanks, with quotes where needed.
//!
//! ```text
//! SET key "two words\r\n\x00" 'it''s \'raw\''
//! ```
//!
//! Double quotes know `\n \r \t \b \a`, `\xHH`, and take any other escaped byte as it is; single quotes know `\'` only.
//! Quoted and bare parts join into one argument. An escape needs a byte behind it: the backslash before a line's last
//! byte is just a backslash, so that `"c:\"` can be written.

use crate::error::Error;

/// Splits a line, given without its line end, into arguments.
///
/// # Errors
/// [`Error::UnbalancedQuotes`] if the line ends within quotes.
pub fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let mut args = Vec::new();
    let mut rest = line;
    // Between arguments vertical tabs and form feeds are blanks; inside one they are data.
    while let Some(start) = rest.iter().position(|&byte| !is_blank(byte)) {
        let (arg, tail) = take_argument(&rest[start..])?;
        args.push(arg);
        rest = tail;
    }
    Ok(args)
}

/// One argument from the start of `text`, and what follows it.
fn take_argument(text: &[u8]) -> Result<(Vec<u8>, &[u8]), Error> {
    let mut arg = Vec::new();
    let mut rest = text;
    loop {
        rest = match rest {
            [] | [b' ' | b'\t' | b'\r' | b'\n', ..] => return Ok((arg, rest)),
            [b'"', tail @ ..] => take_double_quoted(tail, &mut arg)?,
            [b'\'', tail @ ..] => take_single_quoted(tail, &mut arg)?,
            [byte, tail @ ..] => {
                arg.push(*byte);
                tail
            }
        };
    }
}

/// Reads up to and including the closing quote and returns what follows it.
fn take_double_quoted<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Result<&'a [u8], Error> {
    loop {
        rest = match rest {
            [] => return Err(Error::UnbalancedQuotes),
            [b'"', tail @ ..] => return Ok(tail),
            [b'\\', b'x', high, low, tail @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() && !tail.is_empty() =>
            {
                arg.push(hex_digit(*high) << 4 | hex_digit(*low));
                tail
            }
            [b'\\', escaped, tail @ ..] if !tail.is_empty() => {
                arg.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                tail
            }
            [byte, tail @ ..] => {
                arg.push(*byte);
                tail
            }
        };
    }
}

/// As [`take_double_quoted`], with the other quote's one escape.
fn take_single_quoted<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Result<&'a [u8], Error> {
    loop {
        rest = match rest {
            [] => return Err(Error::UnbalancedQuotes),
            [b'\'', tail @ ..] => return Ok(tail),
            [b'\\', b'\'', tail @ ..] if !tail.is_empty() => {
                arg.push(b'\'');
                tail
            }
            [byte, tail @ ..] => {
                arg.push(*byte);
                tail
            }
        };
    }
}

fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => (byte | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line and arguments; every row was asked of Valkey 9.1.2 through ECHO and PING.
    const CASES: &[(&str, Option<&[&str]>)] = &[
        ("", Some(&[])),
        ("   \t", Some(&[])),
        ("PING", Some(&["PING"])),
        ("  SET  a\tb ", Some(&["SET", "a", "b"])),
        ("\x0b\x0cPING \x0b\x0ca", Some(&["PING", "a"])),
        ("a\x0bb", Some(&["a\x0bb"])),
        ("a\rb", Some(&["a", "b"])),
        (
            r#"P "a\x41\n\r\t\b\a\q\"" "#,
            Some(&["P", "aA\n\r\t\x08\x07q\""]),
        ),
        (r"P 'a\n\'b'", Some(&["P", r"a\n'b"])),
        (r#"P "a"b"#, Some(&["P", "ab"])),
        (r#"P a"b c"d"#, Some(&["P", "ab cd"])),
        (r#"P "a"'b'c"#, Some(&["P", "abc"])),
        (r#"P "\x4" "\x4g" "\xZZ""#, Some(&["P", "x4", "x4g", "xZZ"])),
        (r#"P "" ''"#, Some(&["P", "", ""])),
        (r"P a\ b\", Some(&["P", r"a\", r"b\"])),
        (r#"P "a\""#, Some(&["P", r"a\"])),
        (r"P 'a\'", Some(&["P", r"a\"])),
        (r"P 'a\\'", Some(&["P", r"a\\"])),
        (r"P 'a\'b\'", Some(&["P", r"a'b\"])),
        (r"P 'a\' b", None),
        (r"P '\'x\' ", None),
        (r#"P "a"#, None),
        (r"P 'a", None),
        (r#"P "a\"#, None),
        (r"P a'", None),
        (r#"P a\"b"#, None),
    ];

    #[test]
    fn lines_split_as_valkey_splits_them() {
        for (line, expected) in CASES {
            let expected =
                expected.map(|args| args.iter().map(|arg| arg.as_bytes().to_vec()).collect());
            assert_eq!(split(line.as_bytes()).ok(), expected, "{line:?}");
        }
    }

    #[test]
    fn bytes_above_ascii_and_nul_are_ordinary() {
        assert_eq!(
            split(b"a\x00\xff \"\xff\""),
            Ok(vec![b"a\x00\xff".to_vec(), b"\xff".to_vec()])
        );
    }
}
