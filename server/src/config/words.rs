//! Words of a configuration line, with its quoting rules, and the reverse: writing a word so that it reads back the same.
//!
//! ```text
//! name value "double \n \x41 \" quotes" 'single \' quotes' joined" to "one
//! ```
//! Blanks separate words. Double quotes know `\n \r \t \b \a \xHH`, any other escaped byte stands for itself; single
//! quotes know `\'` only. Quotes may open and close inside a word. A backslash outside quotes is an ordinary byte.

/// Splits a line into words. `None` if a quote is left open.
pub(crate) fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = skip_blanks(rest);
        if rest.is_empty() {
            return Some(words);
        }
        let mut word = Vec::new();
        while let Some((&byte, after)) = rest.split_first() {
            rest = match byte {
                b'"' => read_double_quoted(after, &mut word)?,
                b'\'' => read_single_quoted(after, &mut word)?,
                byte if is_blank(byte) => break,
                byte => {
                    word.push(byte);
                    after
                }
            };
        }
        words.push(word);
    }
}

/// Appends a word in double quotes, escaped so that [`split`] gives it back unchanged.
pub fn quote(word: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in word {
        match byte {
            b'\\' | b'"' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            0x07 => out.extend(b"\\a"),
            0x08 => out.extend(b"\\b"),
            b' '..=b'~' => out.push(byte),
            byte => out.extend(format!("\\x{byte:02x}").into_bytes()),
        }
    }
    out.push(b'"');
}

/// Appends a word, in quotes only if it needs them.
pub(crate) fn quote_if_needed(word: &[u8], out: &mut Vec<u8>) {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    if !word.is_empty() && word[0] != b'#' && word.iter().all(plain) {
        out.extend(word);
    } else {
        quote(word, out);
    }
}

/// What separates words: blank, tab, line ends, vertical tab and form feed.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| is_blank(**byte)).count();
    &text[blanks..]
}

/// Reads up to the closing quote; returns what follows it.
fn read_double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex_digit(*high) << 4 | hex_digit(*low));
                after
            }
            [b'\\', escaped, after @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                after
            }
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
            [] => return None,
        };
    }
}

/// Reads up to the closing quote; returns what follows it.
fn read_single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\\', b'\'', after @ ..] => {
                word.push(b'\'');
                after
            }
            [b'\'', after @ ..] => return Some(after),
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
            [] => return None,
        };
    }
}

/// The value of a byte known to be a hexadecimal digit.
fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        byte => (byte | 0x20).wrapping_sub(b'a').wrapping_add(10) & 0x0f,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_split_as_the_original_splits_them() {
        let cases: &[(&str, Option<&[&str]>)] = &[
            (r"", Some(&[])),
            (r"  port   1 ", Some(&["port", "1"])),
            ("port\t1\r", Some(&["port", "1"])),
            (r"a 'a\'b'", Some(&["a", "a'b"])),
            (
                r#"a "a\x41\n\tb\r\a\b""#,
                Some(&["a", "aA\n\tb\r\u{7}\u{8}"]),
            ),
            (r#"a a"b""#, Some(&["a", "ab"])),
            (r#"a "a"b"#, Some(&["a", "ab"])),
            (r"a '1'2", Some(&["a", "12"])),
            (r#"a "\x4""#, Some(&["a", "x4"])),
            (r#"a "\xzz\q\"""#, Some(&["a", "xzzq\""])),
            (r"a '\n'", Some(&["a", "\\n"])),
            (r"a a\x41\n", Some(&["a", "a\\x41\\n"])),
            (r"a a'b c'd", Some(&["a", "ab cd"])),
            (r"a ''", Some(&["a", ""])),
            (r#"a a\"b c\"d"#, None),
            (r#"a \"a"#, None),
            (r"a 'a'\''b'", None),
            (r#"a "a\"#, None),
            (r"a '12", None),
        ];
        for (line, expected) in cases {
            let words = split(line.as_bytes());
            let expected = expected.map(|words| {
                words
                    .iter()
                    .map(|word| word.as_bytes().to_vec())
                    .collect::<Vec<_>>()
            });
            assert_eq!(words, expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_word_reads_back_unchanged(word: Vec<u8>) {
            let (mut always, mut needed) = (Vec::new(), Vec::new());
            quote(&word, &mut always);
            quote_if_needed(&word, &mut needed);
            prop_assert_eq!(split(&always), Some(vec![word.clone()]));
            prop_assert_eq!(split(&needed), Some(vec![word]));
        }

        #[test]
        fn any_line_splits_without_panic(line: Vec<u8>) {
            split(&line);
        }
    }
}
