//! Glob patterns as KEYS, SCAN, PSUBSCRIBE and CONFIG GET have them.
//!
//! ```text
//! *       any bytes, also none        [abc]   one of these        \x  the byte x
//! ?       any one byte                [a-z]   one in the range    [^a-z]  one that is not
//! ```
//! Matching is iterative and remembers only the last `*`: what an earlier one could match besides never helps a later
//! part. So it takes at most pattern times text steps, and a budget bounds even those, which long patterns of many
//! stars against long texts would need; what runs out of budget does not match.

/// Most steps for one match; about 20 ms.
const STEP_BUDGET: usize = 1 << 22;

/// Runs of stars that a pattern may have and match; as many as in Valkey.
const MOST_STARS: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    Sensitive,
    /// ASCII letters match in either case.
    Ignored,
}

/// A pattern, looked at once for many texts.
#[derive(Clone, Copy, Debug)]
pub struct Glob<'p> {
    pattern: &'p [u8],
    case: Case,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `*`: everything.
    All,
    /// No special bytes at all.
    Literal,
    /// Texts shorter than this cannot match.
    General { shortest: usize },
}

impl<'p> Glob<'p> {
    /// O(length of the pattern).
    pub fn new(pattern: &'p [u8], case: Case) -> Glob<'p> {
        let special = |byte: &u8| matches!(byte, b'*' | b'?' | b'[' | b'\\');
        let kind = if pattern == b"*" {
            Kind::All
        } else if pattern.iter().any(special) {
            Kind::General {
                // As in Valkey nothing but the empty pattern matches the empty text, unless `*` stands for all there is.
                shortest: shortest(pattern).max(1),
            }
        } else {
            Kind::Literal
        };
        Glob {
            pattern,
            case,
            kind,
        }
    }

    /// Whether the whole text matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        match self.kind {
            Kind::All => true,
            Kind::Literal if self.case == Case::Sensitive => self.pattern == text,
            Kind::Literal => self.pattern.eq_ignore_ascii_case(text),
            Kind::General { shortest } => shortest <= text.len() && self.matches_general(text),
        }
    }

    /// The bytes that a text must equal to match, if there is just one such text.
    pub fn literal(&self) -> Option<&'p [u8]> {
        (self.kind == Kind::Literal && self.case == Case::Sensitive).then_some(self.pattern)
    }

    fn matches_general(&self, text: &[u8]) -> bool {
        let (mut pattern, mut rest) = (self.pattern, text);
        // Where to go on after a mismatch: the pattern behind the last star, and the text it was tried on.
        let mut retry: Option<(&[u8], &[u8])> = None;
        let mut stars = 0;
        for _ in 0..STEP_BUDGET {
            if let [b'*', after @ ..] = pattern {
                if after.is_empty() {
                    return true;
                }
                pattern = after;
                retry = Some((pattern, rest));
                if !after.starts_with(b"*") {
                    stars += 1;
                }
                if stars > MOST_STARS {
                    return false;
                }
                continue;
            }
            match (Token::read(pattern), rest.split_first()) {
                (None, None) => return true,
                (Some((token, after)), Some((byte, following)))
                    if token.matches(*byte, self.case) =>
                {
                    (pattern, rest) = (after, following);
                }
                // The text is used up: no later start can help.
                (Some(_), None) => return false,
                _ => match retry {
                    Some((after_star, tried)) if !tried.is_empty() => {
                        (pattern, rest) = (after_star, &tried[1..]);
                        retry = Some((pattern, rest));
                    }
                    _ => return false,
                },
            }
        }
        false
    }
}

/// Whether the whole text matches the pattern. As in Valkey only the empty pattern matches the empty text, and no `*`.
pub fn matches(pattern: &[u8], text: &[u8], case: Case) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    Glob::new(pattern, case).matches(text)
}

/// What one byte is compared with.
#[derive(Clone, Copy)]
enum Token<'p> {
    Any,
    Byte(u8),
    Class { members: &'p [u8], negated: bool },
}

impl<'p> Token<'p> {
    /// The first token, not being a star, and the pattern behind it. `None` at the end.
    fn read(pattern: &'p [u8]) -> Option<(Token<'p>, &'p [u8])> {
        let (first, rest) = pattern.split_first()?;
        Some(match (first, rest) {
            (b'?', _) => (Token::Any, rest),
            (b'\\', [escaped, after @ ..]) => (Token::Byte(*escaped), after),
            (b'[', _) => {
                let negated = rest.first() == Some(&b'^');
                let members = &rest[usize::from(negated)..];
                let mut behind = members;
                while let Some((_, after)) = Member::read(behind) {
                    behind = after;
                }
                let members = &members[..members.len() - behind.len()];
                // A class that nothing closes ends with the pattern.
                (
                    Token::Class { members, negated },
                    behind.strip_prefix(b"]").unwrap_or(behind),
                )
            }
            (byte, _) => (Token::Byte(*byte), rest),
        })
    }

    fn matches(self, byte: u8, case: Case) -> bool {
        let fold = |byte: u8| {
            if case == Case::Ignored {
                byte.to_ascii_lowercase()
            } else {
                byte
            }
        };
        match self {
            Token::Any => true,
            Token::Byte(expected) => fold(expected) == fold(byte),
            Token::Class {
                mut members,
                negated,
            } => {
                let mut found = false;
                while let Some((Member { low, high }, after)) = Member::read(members) {
                    let (low, high) = (fold(low), fold(high));
                    found |= (low.min(high)..=low.max(high)).contains(&fold(byte));
                    members = after;
                }
                found != negated
            }
        }
    }
}

/// One byte or range of a class.
struct Member {
    low: u8,
    high: u8,
}

impl Member {
    /// The first member and what is behind it. `None` at the class's end or the pattern's.
    fn read(class: &[u8]) -> Option<(Member, &[u8])> {
        Some(match class {
            [] | [b']', ..] => return None,
            [b'\\', escaped, after @ ..] => (
                Member {
                    low: *escaped,
                    high: *escaped,
                },
                after,
            ),
            // Whatever follows the dash is the range's end, even the closing bracket.
            [low, b'-', high, after @ ..] => (
                Member {
                    low: *low,
                    high: *high,
                },
                after,
            ),
            [byte, after @ ..] => (
                Member {
                    low: *byte,
                    high: *byte,
                },
                after,
            ),
        })
    }
}

/// Length of the shortest text that could match.
fn shortest(mut pattern: &[u8]) -> usize {
    let mut len = 0;
    loop {
        while let [b'*', after @ ..] = pattern {
            pattern = after;
        }
        match Token::read(pattern) {
            Some((_, after)) => (len, pattern) = (len + 1, after),
            None => return len,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_of_too_many_stars_match_nothing() {
        let text = vec![b'a'; 5000];
        let many = |stars| Glob::new(&b"*?".repeat(stars), Case::Sensitive).matches(&text);
        assert!(many(1000));
        assert!(!many(1001));
        assert!(Glob::new(&[b'*'; 2000], Case::Sensitive).matches(&text));
    }

    #[test]
    fn patterns_match_what_the_original_matches() {
        // Pattern, texts that match, texts that do not.
        type Case = (
            &'static str,
            &'static [&'static str],
            &'static [&'static str],
        );
        let cases: &[Case] = &[
            (r"[a", &[r"a"], &[r"[a", r"a[", r"[a-"]),
            (r"[", &[], &[r"[", r"*[", r"-["]),
            (r"[]", &[], &[r"][-", r"c[]", r"[^a]"]),
            (r"[^]", &[r"*", r"-", r"?"], &[r"[^a]", r"^[", r"^]"]),
            (r"[]a]", &[], &[r"[^a]", r"[-b]a", r"ba][b"]),
            (r"[a-]", &[r"]", r"^", r"a"], &[r"[-b]a", r"[a-", r"]-a"]),
            (r"[a-]]", &[r"]", r"^", r"a"], &[r"[-b]a", r"[a-", r"]-a"]),
            (r"[^a-]", &[r"*", r"-", r"?"], &[r"[^a]", r"[-b]a", r"[^-"]),
            (r"[\]]", &[r"]"], &[r"\]", r"[\b", r"[\c"]),
            (r"[\", &[r"\"], &[r"[\b", r"[\c", r"-\[\"]),
            (r"\", &[r"\"], &[r"A\", r"\]", r"\a"]),
            (r"a\", &[r"a\"], &[r"\a", r"\aa", r"a\*"]),
            (r"\\", &[r"\"], &[r"A\", r"\]", r"\a"]),
            (r"[b-a]", &[r"a", r"b"], &[r"[-b]a", r"*b-a[", r"ba-[z"]),
            (r"[a-b", &[r"a", r"b"], &[r"*b-a[", r"[-b]a", r"ba-[z"]),
            (r"[a-", &[r"-", r"a"], &[r"[a-", r"*b-a[", r"[-b]a"]),
            (r"[^", &[r"*", r"-", r"?"], &[r"^[", r"[^-", r"^[*"]),
            (r"*", &[r"*", r"-", r"?"], &[]),
            (r"?", &[r"*", r"-", r"?"], &[r"?*", r"?A", r"?["]),
            (r"*?", &[r"*", r"-", r"?"], &[]),
            (
                r"a*b",
                &[r"ab", r"aAb", r"aab"],
                &[r"*]ab", r"**ba\", r"*b-a["],
            ),
            (r"[^a]*", &[r"*", r"-", r"?"], &[r"a*]b", r"a]a^", r"a^c["]),
            (
                r"[a\-c]",
                &[r"-", r"a", r"c"],
                &[r"[-b]a", r"]c\ba", r"a-\a["],
            ),
            (r"[-a]", &[r"-", r"a"], &[r"[-b]a", r"[a-", r"]-a"]),
            (
                r"[a-c-z]",
                &[r"-", r"a", r"b"],
                &[r"-]]az", r"[-b]a", r"ba-[z"],
            ),
            (r"[A-z]", &[r"A", r"[", r"\"], &[r"][-", r"-Azc", r"[z*A"]),
            (
                r"*[^a-z]",
                &[r"*", r"-", r"?"],
                &[r"*^[z", r"]z^a", r"^z]a"],
            ),
            (r"a[]b", &[], &[r"[-b]a", r"ba][b", r"]ba"]),
            (r"[]-a]", &[], &[r"[-b]a", r"[a-", r"]-a"]),
            (r"[^]a]", &[], &[r"[^a]", r"^a[", r"[^ba"]),
            (r"*\", &[r"\", r"A\", r"^\"], &[r"*\*", r"a\*", r"\*b?"]),
            (
                r"*[Aab*a",
                &[r"*", r"A", r"a"],
                &[r"*b-a[", r"Ab[", r"Aa?["],
            ),
            (r"[ac-[^", &[r"[", r"\", r"]"], &[r"a^c[", r"[^-", r"[a-"]),
            (r"[a-]]", &[r"]", r"^", r"a"], &[r"[-b]a", r"[a-", r"]-a"]),
            (r"^[bb", &[r"^b"], &[r"[^ba", r"A^[b?", r"A^[b^"]),
            (r"\][a*^a", &[r"]a"], &[r"[^a]", r"^*\", r"^[*"]),
            (r"-?cc", &[r"-ccc"], &[r"-c?", r"?-ac", r"c?]-*"]),
            (
                r"*a\A*[a",
                &[r"[aAa", r"aaAba"],
                &[r"a\*", r"*cAa", r"A*-a"],
            ),
            (
                r"[*?\]Aa",
                &[r"*", r"?", r"A"],
                &[r"*]?Aa", r"Aa?[", r"\?a["],
            ),
            (r"\*?c", &[r"*]c"], &[r"\*b?", r"ac*?", r"c?]*"]),
            (r"?^a[Aa", &[r"\^aa"], &[r"Aa?[", r"A^[b?", r"^a["]),
            (r"b[ba\a", &[r"bb"], &[r"[\b", r"Ab\a", r"[^ba"]),
            (r"*^c??", &[r"c^c-*"], &[r"?c^", r"ac*?", r"c?]*"]),
            (r"\*[[", &[r"*["], &[r"*\*", r"[\b", r"[\c"]),
            (
                r"b[-?*a^",
                &[r"b*", r"b?", r"b^"],
                &[r"*b-a[", r"^*-b[", r"[^ba"],
            ),
            (r"c[aa*^]", &[r"c*", r"ca"], &[r"[^a]", r"a^c[", r"*b^ca"]),
            (
                r"*\][?a",
                &[r"]a", r"z]a", r"**]a"],
                &[r"\?a[", r"*]?Aa", r"\**?a"],
            ),
            (r"\\[b[c", &[r"\b", r"\c"], &[r"[\b", r"[\c", r"[c?b"]),
            (r"[*]A", &[r"*A"], &[r"[z*A", r"*]??A", r"*]?Aa"]),
            (r"?*a-", &[r"[a-", r"ba-"], &[r"*a?", r"a?-", r"-?aa"]),
            (
                r"[a[c?[]a",
                &[r"?a", r"[a", r"aa"],
                &[r"?[c", r"]ac", r"c[]"],
            ),
            (r"\[*]", &[r"[^a]"], &[r"*[", r"\]", r"*\*"]),
            (r"-[b*", &[r"-b"], &[r"*b-a[", r"A[-*b", r"^*-b["]),
            (
                r"?[[c",
                &[r"*[", r"*c", r"-["],
                &[r"?[c", r"[c?b", r"b?c^["],
            ),
            (r"[a?A][\-", &[r"A-"], &[r"Aa?[", r"\?a[", r"*]?Aa"]),
        ];
        for (pattern, matching, others) in cases {
            for (texts, expected) in [(matching, true), (others, false)] {
                for text in *texts {
                    let matched =
                        matches(pattern.as_bytes(), text.as_bytes(), super::Case::Sensitive);
                    assert_eq!(matched, expected, "{pattern} {text}");
                }
            }
        }
    }

    #[test]
    fn a_pattern_bomb_ends_soon() {
        let mut pattern = b"*a".repeat(20_000);
        pattern.push(b'b');
        let text = b"a".repeat(1 << 20);
        let start = Instant::now();
        assert!(!matches(&pattern, &text, Case::Sensitive));
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(matches(&b"*".repeat(1 << 20), b"x", Case::Sensitive));
    }

    #[test]
    fn the_empty_text_is_matched_by_the_empty_pattern_only() {
        assert!(matches(b"", b"", Case::Sensitive));
        for pattern in ["*", "**", "*?", "[^a]", "a"] {
            assert!(!matches(pattern.as_bytes(), b"", Case::Sensitive));
        }
        assert!(Glob::new(b"*", Case::Sensitive).matches(b""));
        assert!(!Glob::new(b"**", Case::Sensitive).matches(b""));
    }

    #[test]
    fn case_is_ignored_only_when_asked() {
        assert!(matches(b"MAX[M-N]*", b"maxmemory", Case::Ignored));
        assert!(!matches(b"MAX*", b"maxmemory", Case::Sensitive));
        assert!(matches(b"Port", b"pORT", Case::Ignored));
    }

    proptest! {
        #[test]
        fn any_pattern_on_any_text_ends_without_panic(pattern: Vec<u8>, text: Vec<u8>) {
            matches(&pattern, &text, Case::Sensitive);
            matches(&pattern, &text, Case::Ignored);
        }

        #[test]
        fn an_escaped_text_matches_itself_and_a_star_around_it(text: Vec<u8>) {
            let mut pattern: Vec<u8> = text.iter().flat_map(|byte| [b'\\', *byte]).collect();
            prop_assert!(matches(&pattern, &text, Case::Sensitive));
            pattern.push(b'*');
            pattern.insert(0, b'*');
            prop_assert_eq!(matches(&pattern, &text, Case::Sensitive), !text.is_empty());
        }
    }
}
