//! `cjson.decode`.

use mlua::{Lua, MultiValue, Table, Value};

use super::{arguments::Arguments, json::Settings};
use crate::scripting::{api::one, interpreter::Failure, problem::Problem};

pub(super) fn decode(
    lua: &Lua,
    settings: &Settings,
    args: &MultiValue,
) -> Result<MultiValue, Failure> {
    if args.len() != 1 {
        return Err(Problem::argument(1, "expected 1 argument").into());
    }
    let text = Arguments::new(args).text(1)?;
    // The first character of JSON is ASCII, and so is the second: a zero there is another encoding.
    if text.len() >= 2 && (text[0] == 0 || text[1] == 0) {
        return Err(Problem::misuse("JSON parser does not support UTF-16 or UTF-32").into());
    }
    let mut decoder = Decoder {
        lua,
        settings,
        text: &text,
        at: 0,
        depth: 0,
    };
    let token = decoder.token()?;
    let value = decoder.value(token)?;
    let end = decoder.token()?;
    if end.kind != Kind::End {
        return Err(decoder.unexpected("the end", &end).into());
    }
    one(value)
}

/// Nesting that the worker's stack is sure to hold.
const MAX_DEPTH: i64 = 4000;

struct Decoder<'a> {
    lua: &'a Lua,
    settings: &'a Settings,
    text: &'a [u8],
    at: usize,
    depth: i64,
}

struct Token {
    kind: Kind,
    /// Where it begins, counted from 0.
    at: usize,
}

#[derive(PartialEq)]
enum Kind {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Text(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    /// What is wrong with it.
    Invalid(&'static str),
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Kind::ObjectBegin => "T_OBJ_BEGIN",
            Kind::ObjectEnd => "T_OBJ_END",
            Kind::ArrayBegin => "T_ARR_BEGIN",
            Kind::ArrayEnd => "T_ARR_END",
            Kind::Text(_) => "T_STRING",
            Kind::Number(_) => "T_NUMBER",
            Kind::Boolean(_) => "T_BOOLEAN",
            Kind::Null => "T_NULL",
            Kind::Colon => "T_COLON",
            Kind::Comma => "T_COMMA",
            Kind::End => "T_END",
            Kind::Invalid(why) => why,
        }
    }
}

const INVALID_TOKEN: Kind = Kind::Invalid("invalid token");

impl Decoder<'_> {
    fn unexpected(&self, wanted: &str, token: &Token) -> Problem {
        let (found, at) = (token.kind.name(), token.at + 1);
        Problem::misuse(format!(
            "Expected {wanted} but found {found} at character {at}"
        ))
    }

    fn value(&mut self, token: Token) -> Result<Value, Failure> {
        Ok(match token.kind {
            Kind::Text(text) => Value::String(self.lua.create_string(text)?),
            Kind::Number(number) => Value::Number(number),
            Kind::Boolean(value) => Value::Boolean(value),
            Kind::Null => Value::NULL,
            Kind::ObjectBegin => Value::Table(self.object()?),
            Kind::ArrayBegin => Value::Table(self.array()?),
            _ => return Err(self.unexpected("value", &token).into()),
        })
    }

    fn descend(&mut self) -> Result<(), Problem> {
        self.depth += 1;
        if self.depth > self.settings.decode_max_depth.get().min(MAX_DEPTH) {
            return Err(Problem::misuse(format!(
                "Found too many nested data structures ({})",
                self.depth
            )));
        }
        Ok(())
    }

    fn object(&mut self) -> Result<Table, Failure> {
        self.descend()?;
        let table = self.lua.create_table()?;
        let mut token = self.token()?;
        if token.kind != Kind::ObjectEnd {
            loop {
                let Kind::Text(key) = token.kind else {
                    return Err(self.unexpected("object key string", &token).into());
                };
                let colon = self.token()?;
                if colon.kind != Kind::Colon {
                    return Err(self.unexpected("colon", &colon).into());
                }
                let first = self.token()?;
                let value = self.value(first)?;
                table.raw_set(self.lua.create_string(key)?, value)?;
                let next = self.token()?;
                match next.kind {
                    Kind::ObjectEnd => break,
                    Kind::Comma => token = self.token()?,
                    _ => return Err(self.unexpected("comma or object end", &next).into()),
                }
            }
        }
        self.depth -= 1;
        Ok(table)
    }

    fn array(&mut self) -> Result<Table, Failure> {
        self.descend()?;
        let table = self.lua.create_table()?;
        let mut token = self.token()?;
        if token.kind != Kind::ArrayEnd {
            for index in 1_i64.. {
                let value = self.value(token)?;
                table.raw_set(index, value)?;
                let next = self.token()?;
                match next.kind {
                    Kind::ArrayEnd => break,
                    Kind::Comma => token = self.token()?,
                    _ => return Err(self.unexpected("comma or array end", &next).into()),
                }
            }
        }
        self.depth -= 1;
        Ok(table)
    }

    fn token(&mut self) -> Result<Token, Problem> {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        let at = self.at;
        // A zero byte ends it.
        let Some(&byte) = self.text.get(at).filter(|byte| **byte != 0) else {
            return Ok(Token {
                kind: Kind::End,
                at,
            });
        };
        let single = match byte {
            b'{' => Some(Kind::ObjectBegin),
            b'}' => Some(Kind::ObjectEnd),
            b'[' => Some(Kind::ArrayBegin),
            b']' => Some(Kind::ArrayEnd),
            b',' => Some(Kind::Comma),
            b':' => Some(Kind::Colon),
            _ => None,
        };
        if let Some(kind) = single {
            self.at += 1;
            return Ok(Token { kind, at });
        }
        if byte == b'"' {
            return Ok(self.string(at));
        }
        let kind = match byte {
            b'-' | b'0'..=b'9' => self.number(),
            _ => self.word(),
        };
        Ok(Token { kind, at })
    }

    fn word(&mut self) -> Kind {
        let rest = &self.text[self.at..];
        for (word, kind) in [
            (&b"true"[..], Kind::Boolean(true)),
            (b"false", Kind::Boolean(false)),
            (b"null", Kind::Null),
        ] {
            if rest.starts_with(word) {
                self.at += word.len();
                return kind;
            }
        }
        let starts = |name: &[u8]| {
            rest.get(..name.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        let odd = [&b"+"[..], b"inf", b"nan"];
        if self.settings.decode_invalid_numbers.get() && odd.into_iter().any(starts) {
            return self.number();
        }
        INVALID_TOKEN
    }

    /// A number as C reads it: hexadecimal, infinities and not-a-number too, if the settings let it.
    fn number(&mut self) -> Kind {
        let rest = &self.text[self.at..];
        let (sign, digits) = match rest {
            [b'-', digits @ ..] => (-1.0, digits),
            [b'+', digits @ ..] => (1.0, digits),
            _ => (1.0, rest),
        };
        let hexadecimal = matches!(digits, [b'0', b'x' | b'X', ..]);
        let plain = digits.first().is_some_and(u8::is_ascii_digit);
        let zeros = digits.len() > 1 && digits[0] == b'0' && digits[1].is_ascii_digit();
        if !self.settings.decode_invalid_numbers.get() && (hexadecimal || !plain || zeros) {
            return Kind::Invalid("invalid number");
        }
        let starts = |name: &[u8]| {
            digits
                .get(..name.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        let (value, len) = if hexadecimal {
            let count = digits[2..]
                .iter()
                .take_while(|byte| byte.is_ascii_hexdigit())
                .count();
            let value = digits[2..2 + count].iter().fold(0.0, |value, &byte| {
                value * 16.0 + f64::from(char::from(byte).to_digit(16).unwrap_or(0))
            });
            (value, 2 + count)
        } else if starts(b"infinity") {
            (f64::INFINITY, 8)
        } else if starts(b"inf") {
            (f64::INFINITY, 3)
        } else if starts(b"nan") {
            (f64::NAN, 3)
        } else {
            let len = decimal_len(digits);
            let text = std::str::from_utf8(&digits[..len]).ok();
            match text.and_then(|text| text.parse().ok()) {
                Some(value) => (value, len),
                None => return Kind::Invalid("invalid number"),
            }
        };
        self.at += rest.len() - digits.len() + len;
        Kind::Number(sign * value)
    }

    fn string(&mut self, at: usize) -> Token {
        let mut out = Vec::new();
        self.at += 1;
        let invalid = |why, at| Token {
            kind: Kind::Invalid(why),
            at,
        };
        loop {
            match self.text.get(self.at) {
                None => return invalid("unexpected end of string", self.at),
                Some(b'"') => break,
                Some(b'\\') => {
                    let escape = self.at;
                    let plain = match self.text.get(self.at + 1) {
                        Some(b'u') => match self.unicode(&mut out) {
                            Some(()) => continue,
                            None => return invalid("invalid unicode escape code", escape),
                        },
                        Some(b'b') => 8,
                        Some(b't') => b'\t',
                        Some(b'n') => b'\n',
                        Some(b'f') => 12,
                        Some(b'r') => b'\r',
                        Some(&byte @ (b'"' | b'\\' | b'/')) => byte,
                        _ => return invalid("invalid escape code", escape),
                    };
                    out.push(plain);
                    self.at += 2;
                }
                Some(&byte) => {
                    out.push(byte);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        Token {
            kind: Kind::Text(out),
            at,
        }
    }

    /// `\uXXXX`, or two of them for what needs a surrogate pair, as UTF-8.
    fn unicode(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let unit = |at: usize| {
            let digits = self.text.get(at + 2..at + 6)?;
            let text = std::str::from_utf8(digits).ok()?;
            if !digits.iter().all(u8::is_ascii_hexdigit) || self.text.get(at..at + 2)? != b"\\u" {
                return None;
            }
            u32::from_str_radix(text, 16).ok()
        };
        let mut code = unit(self.at)?;
        let mut len = 6;
        if code & 0xf800 == 0xd800 {
            if code & 0x400 != 0 {
                return None;
            }
            let low = unit(self.at + 6)?;
            if low & 0xfc00 != 0xdc00 {
                return None;
            }
            code = ((code & 0x3ff) << 10 | low & 0x3ff) + 0x1_0000;
            len = 12;
        }
        let character = char::from_u32(code)?;
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        self.at += len;
        Some(())
    }
}

/// How many bytes a decimal number takes, with fraction and exponent.
fn decimal_len(text: &[u8]) -> usize {
    let digits = |from: usize| {
        text[from..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let mut len = digits(0);
    if text.get(len) == Some(&b'.') {
        len += 1 + digits(len + 1);
    }
    if matches!(text.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(len + 1), Some(b'+' | b'-')));
        let exponent = digits((len + 1 + sign).min(text.len()));
        if exponent > 0 {
            len += 1 + sign + exponent;
        }
    }
    len
}
