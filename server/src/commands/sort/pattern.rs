//! Patterns of SORT: from an element to what a key named after it holds.

use protocol::resp::reply::ReplyWriter;
use storage::{
    db::Db,
    keyspace::Key,
    value::{
        Text, ValueRef,
        element::{Element, Scratch},
        number,
    },
};

/// A pattern of BY or GET.
pub(super) enum Pattern<'a> {
    /// `#`: the element itself.
    Element,
    /// Without a `*` nothing is found.
    Nothing,
    /// `before*after`, or `before*after->field` for a field of a hash.
    Named {
        before: &'a [u8],
        after: &'a [u8],
        field: Option<&'a [u8]>,
    },
}

impl<'a> Pattern<'a> {
    pub(super) fn new(text: &'a [u8]) -> Pattern<'a> {
        if text == b"#" {
            return Pattern::Element;
        }
        let Some(star) = text.iter().position(|&byte| byte == b'*') else {
            return Pattern::Nothing;
        };
        let (before, after) = (&text[..star], &text[star + 1..]);
        match after.windows(2).position(|pair| pair == b"->") {
            Some(arrow) if arrow + 2 < after.len() => Pattern::Named {
                before,
                after: &after[..arrow],
                field: Some(&after[arrow + 2..]),
            },
            _ => Pattern::Named {
                before,
                after,
                field: None,
            },
        }
    }

    /// Whether it leads to a key for each element.
    pub(super) fn names_keys(&self) -> bool {
        matches!(self, Pattern::Named { .. })
    }

    /// What the element leads to: a string, or the field of a hash. Other types count as missing.
    pub(super) fn find<'d>(&self, db: &'d Db<'_>, element: Element<'d>) -> Option<Found<'d>> {
        let (before, after, field) = match self {
            Pattern::Element => return Some(Found::Element(element)),
            Pattern::Nothing => return None,
            Pattern::Named {
                before,
                after,
                field,
            } => (*before, *after, *field),
        };
        let mut scratch = Scratch::new();
        let name = [before, element.bytes(&mut scratch), after].concat();
        let value = db.get(Key::new(&name))?.value();
        match (field, value) {
            (Some(field), ValueRef::Hash(hash)) => {
                hash.get(field, db.expired_by()).map(Found::Element)
            }
            (Some(_), _) => None,
            (None, value) => Text::of(value).map(Found::Text),
        }
    }
}

/// What an element leads to.
pub(super) enum Found<'d> {
    Element(Element<'d>),
    Text(Text<'d>),
}

impl Found<'_> {
    pub(super) fn bytes<'b>(&'b self, scratch: &'b mut Scratch) -> &'b [u8] {
        match self {
            Found::Element(element) => element.bytes(scratch),
            Found::Text(text) => text.as_bytes(scratch),
        }
    }

    /// The number it says; what follows a zero byte does not count.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Found::Element(Element::Integer(number)) | Found::Text(Text::Int(number)) => {
                Some(*number as f64)
            }
            found => {
                let mut scratch = Scratch::new();
                let text = found.bytes(&mut scratch).split(|&byte| byte == 0).next();
                text.and_then(number::parse_f64)
            }
        }
    }

    pub(super) fn write(self, writer: &mut ReplyWriter) {
        match self {
            Found::Element(Element::Integer(number)) | Found::Text(Text::Int(number)) => {
                writer.bulk_integer(number);
            }
            found => writer.bulk(found.bytes(&mut Scratch::new())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before the star, after it, and the field.
    type Parts<'a> = (&'a [u8], &'a [u8], Option<&'a [u8]>);

    fn parts(text: &str) -> Option<Parts<'_>> {
        match Pattern::new(text.as_bytes()) {
            Pattern::Named {
                before,
                after,
                field,
            } => Some((before, after, field)),
            Pattern::Element | Pattern::Nothing => None,
        }
    }

    #[test]
    fn patterns_are_taken_apart() {
        assert_eq!(parts("w_*"), Some((&b"w_"[..], &b""[..], None)));
        assert_eq!(parts("a*b*"), Some((&b"a"[..], &b"b*"[..], None)));
        assert_eq!(
            parts("h*x->f"),
            Some((&b"h"[..], &b"x"[..], Some(&b"f"[..])))
        );
        assert_eq!(parts("h*->"), Some((&b"h"[..], &b"->"[..], None)));
        assert_eq!(
            parts("a->b*"),
            Some((&b"a->b"[..], &b""[..], None)),
            "an arrow before the star is part of the name"
        );
        assert_eq!(parts("none"), None);
        assert_eq!(parts("#"), None);
    }
}
