//! The tokens of Lua 5.1, as far as they tell which names a script uses.

/// A token. Keywords are names here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'p> {
    Name(&'p [u8]),
    /// A string, as it is written between its quotes.
    Text(&'p [u8]),
    Number,
    Symbol(&'p [u8]),
}

/// Symbols of more than one byte, the longest first.
const LONG_SYMBOLS: [&[u8]; 6] = [b"...", b"..", b"==", b"~=", b"<=", b">="];

/// A program's tokens without its comments; `None` if it ends within one, or has a byte that begins none.
pub(super) fn tokens(program: &[u8]) -> Option<Vec<Token<'_>>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < program.len() {
        let rest = &program[at..];
        let (token, len) = match rest[0] {
            byte if byte.is_ascii_whitespace() || byte == 0x0b => (None, 1),
            b'-' if rest.starts_with(b"--") => (None, comment(rest)?),
            b'[' if long_bracket(rest).is_some() => {
                let level = long_bracket(rest)?;
                let len = long_text(rest, level)?;
                (Some(Token::Text(&rest[level + 2..len - level - 2])), len)
            }
            quote @ (b'"' | b'\'') => {
                let len = quoted(rest, quote)?;
                (Some(Token::Text(&rest[1..len - 1])), len)
            }
            byte if byte.is_ascii_alphabetic() || byte == b'_' => {
                let len = run(rest, |byte| byte.is_ascii_alphanumeric() || byte == b'_');
                (Some(Token::Name(&rest[..len])), len)
            }
            byte if byte.is_ascii_digit() => {
                // As Lua reads them: letters and points belong to it, and a sign behind an exponent.
                let len = run(rest, |byte| byte.is_ascii_alphanumeric() || byte == b'.');
                (Some(Token::Number), len)
            }
            byte if byte.is_ascii_punctuation() => {
                let long = LONG_SYMBOLS.iter().find(|symbol| rest.starts_with(symbol));
                let len = long.map_or(1, |symbol| symbol.len());
                (Some(Token::Symbol(&rest[..len])), len)
            }
            _ => return None,
        };
        found.extend(token);
        at += len;
    }
    Some(found)
}

/// How many bytes from the first on belong.
fn run(text: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    let end = text.iter().position(|&byte| !belongs(byte));
    end.unwrap_or(text.len())
}

fn comment(text: &[u8]) -> Option<usize> {
    let body = &text[2..];
    match long_bracket(body) {
        Some(level) => Some(2 + long_text(body, level)?),
        None => Some(run(text, |byte| byte != b'\n')),
    }
}

/// The number of equals signs, if a long bracket opens here: `[==[`.
fn long_bracket(text: &[u8]) -> Option<usize> {
    let inner = text.strip_prefix(b"[")?;
    let level = run(inner, |byte| byte == b'=');
    (inner.get(level) == Some(&b'[')).then_some(level)
}

/// The length up to and with the bracket that closes.
fn long_text(text: &[u8], level: usize) -> Option<usize> {
    let mut closing = vec![b'='; level + 2];
    closing[0] = b']';
    closing[level + 1] = b']';
    let start = level + 2;
    let found = memchr::memmem::find(&text[start..], &closing)?;
    Some(start + found + closing.len())
}

/// The length up to and with the quote that closes.
fn quoted(text: &[u8], quote: u8) -> Option<usize> {
    let mut at = 1;
    loop {
        match *text.get(at)? {
            byte if byte == quote => return Some(at + 1),
            b'\\' => at += 2,
            b'\n' => return None,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_told_apart() {
        let program = b"local a2='x\\'y'--[[ c\n]]..[=[z]]]=] 1.5e3~=\"\" -- end";
        let expected = [
            Token::Name(b"local"),
            Token::Name(b"a2"),
            Token::Symbol(b"="),
            Token::Text(b"x\\'y"),
            Token::Symbol(b".."),
            Token::Text(b"z]]"),
            Token::Number,
            Token::Symbol(b"~="),
            Token::Text(b""),
        ];
        assert_eq!(tokens(program).as_deref(), Some(&expected[..]));
    }

    #[test]
    fn what_does_not_end_has_no_tokens() {
        for program in ["'a", "\"a\nb\"", "[[a", "--[==[a]]", "a \x01"] {
            assert_eq!(tokens(program.as_bytes()), None, "{program}");
        }
    }
}
