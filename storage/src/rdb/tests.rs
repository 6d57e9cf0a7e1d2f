//! Payloads of every type, from and to the reference servers, and broken ones.

use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::value::{
    element::Element,
    hash::{FieldDeadline, Hash},
    list::List,
    set::Set,
    sorted_set::SortedSet,
};

fn limits() -> Limits {
    Limits::from(&Settings::default())
}

fn look(value: &Value) -> ValueRef<'_> {
    match value {
        Value::String(text) => ValueRef::Bytes(text),
        Value::Int(number) => ValueRef::Int(*number),
        Value::Shared(text) => ValueRef::Shared(text),
        Value::List(list) => ValueRef::List(list),
        Value::Set(set) => ValueRef::Set(set),
        Value::Hash(hash) => ValueRef::Hash(hash),
        Value::SortedSet(set) => ValueRef::SortedSet(set),
        Value::Stream(stream) => ValueRef::Stream(stream),
    }
}

/// A value that failing tests can show.
struct Shown(Value);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

/// What a value holds, as text.
fn shown(value: &Value) -> String {
    let text = |element: Element<'_>| String::from_utf8_lossy(&element.to_vec()).into_owned();
    let sorted = |mut parts: Vec<String>| {
        parts.sort();
        parts.join(" ")
    };
    match value {
        Value::String(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Int(number) => number.to_string(),
        Value::Shared(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::List(list) => list.iter().map(text).collect::<Vec<_>>().join(" "),
        Value::Set(set) => sorted(set.iter().map(text).collect()),
        Value::SortedSet(set) => {
            let parts: Vec<_> = set
                .iter()
                .map(|(member, score)| format!("{}={score}", String::from_utf8_lossy(member)))
                .collect();
            parts.join(" ")
        }
        Value::Hash(hash) => sorted(
            hash.entries(Timestamp::MIN)
                .map(|entry| {
                    let deadline = entry
                        .deadline
                        .map(|deadline| format!("@{}", deadline.millis()));
                    format!(
                        "{}={}{}",
                        text(entry.field),
                        text(entry.value),
                        deadline.unwrap_or_default()
                    )
                })
                .collect(),
        ),
        Value::Stream(stream) => format!("{} entries", stream.len()),
    }
}

/// A body with a version and a checksum.
fn payload(body: &[u8], version: u16) -> Vec<u8> {
    let mut payload = [body, &version.to_le_bytes()].concat();
    let checksum = crc64(&payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
    payload
}

fn read(body: &[u8], version: u16) -> Result<String, Error> {
    restore(
        &payload(body, version),
        &limits(),
        Timestamp::MIN,
        VersionCheck::Strict,
    )
    .map(|value| shown(&value))
}

const X100: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

#[test]
fn payloads_of_valkey_and_redis_are_restored() {
    let v100 = "v".repeat(100);
    for (body, version, expected) in [
        (&b"\x00\x05hello"[..], 80, "hello".to_owned()),
        (b"\x00\xc190", 12, "12345".into()),
        (b"\x00\x0e12345678901234", 9, "12345678901234".into()),
        (b"\x12\x01\x02\xc3\x1d@{\x15{\0\0\0\x05\0\x81a\x02\x81b\x02\x01\x01\xf2@B\x0f\x04\xe0dx\xe0Z\0\x01f\xff", 80, format!("a b 1 1000000 {X100}")),
        (b"\x0b\x14\x04\0\0\0\x03\0\0\0\x01\0\0\0\x02\0\0\0p\x11\x01\0", 80, "1 2 70000".into()),
        (b"\x14\x0c\x0c\0\0\0\x02\0\x81a\x02\x01\x01\xff", 80, "1 a".into()),
        (b"\x02\x02\x01y\x01x", 80, "x y".into()),
        (b"\x10\x11\x11\0\0\0\x04\0\x81f\x02\x81v\x02\x01\x01\x02\x01\xff", 80, "1=2 f=v".into()),
        (b"\x11\x1c\x1c\0\0\0\x06\0\x81a\x02\x831.5\x04\x81b\x02\x02\x01\x81c\x02\x83inf\x04\xff", 80, "a=1.5 b=2 c=inf".into()),
        (b"\x05\x02\x01b\0\0\0\0\0\0\0@\x01x\0\0\0\0\0\0\xf8?", 80, "x=1.5 b=2".into()),
        (b"\x03\x03\x01a\xff\x01b\x031.5\x01c\xfe", 6, "a=-inf b=1.5 c=inf".into()),
        (b"\x04\x02\x01f\xc3\t@d\x01vv\xe0W\0\x01vv\x01g\x01w", 80, format!("f={v100} g=w")),
        // Deadlines of fields: Valkey's form, Redis' two, and its release candidates' two.
        (b"\x16\x02\x01f\x01v\xff\x9frN\x18\t\0\0\x01g\x01w\xff\xff\xff\xff\xff\xff\xff\xff", 80, "f=v@9999999999999 g=w".into()),
        (b"\x19\xff\x9frN\x18\t\0\0\x1f\x1f\0\0\0\x06\0\x81f\x02\x81v\x02\xf4\xff\x9frN\x18\t\0\0\t\x81g\x02\x81w\x02\0\x01\xff", 12, "f=v@9999999999999 g=w".into()),
        (b"\x18\xff\x9frN\x18\t\0\0\x02\x01\x01f\x01v\0\x01g\x01w", 12, "f=v@9999999999999 g=w".into()),
        (b"\x16\x02\x81\0\0\x09\x18\x4e\x72\x9f\xff\x01f\x01v\0\x01g\x01w", 12, "f=v@9999999999999 g=w".into()),
        (b"\x17\x1f\x1f\0\0\0\x06\0\x81f\x02\x81v\x02\xf4\xff\x9frN\x18\t\0\0\t\x81g\x02\x81w\x02\0\x01\xff", 12, "f=v@9999999999999 g=w".into()),
        // The old forms.
        (b"\x01\x02\x01a\x01b", 6, "a b".into()),
        (b"\x0a\x10\x10\0\0\0\x0d\0\0\0\x02\0\0\x01a\x03\xf6\xff", 6, "a 5".into()),
        (b"\x0e\x01\x10\x10\0\0\0\x0d\0\0\0\x02\0\0\x01a\x03\xf6\xff", 7, "a 5".into()),
        (b"\x0c\x10\x10\0\0\0\x0d\0\0\0\x02\0\0\x01a\x03\xf6\xff", 6, "a=5".into()),
        (b"\x0d\x10\x10\0\0\0\x0d\0\0\0\x02\0\0\x01a\x03\xf6\xff", 6, "a=5".into()),
        (b"\x09\x08\x01\x01a\x02\0bc\xff", 2, "a=bc".into()),
    ] {
        assert_eq!(read(body, version), Ok(expected), "{body:?}");
    }
}

#[test]
fn broken_payloads_are_refused_with_what_is_wrong() {
    for (body, error) in [
        (&b""[..], Error::Truncated),
        (b"\x63\x01a", Error::UnknownType(0x63)),
        (b"\x07\x01a", Error::Module(1)),
        (b"\x00\x05hell", Error::Truncated),
        (b"\x00\x04hello", Error::Corrupt("payload's end")),
        (b"\x01\0", Error::Empty),
        (b"\x02\0", Error::Empty),
        (b"\x04\0", Error::Empty),
        (b"\x05\0", Error::Empty),
        (b"\x10\x07\x07\0\0\0\0\0\xff", Error::Empty),
        (b"\x12\x01\x02\x07\x07\0\0\0\0\0\xff", Error::Empty),
        (b"\x12\x01\x03\x01a", Error::Corrupt("list node")),
        (
            b"\x02\x02\x01a\x01a",
            Error::Corrupt("set: a member occurs twice"),
        ),
        (
            b"\x02\x02\x011\x011",
            Error::Corrupt("set: a member occurs twice"),
        ),
        (
            b"\x04\x02\x01a\x01b\x01a\x01c",
            Error::Corrupt("hash: a field occurs twice"),
        ),
        (
            b"\x05\x02\x01a\0\0\0\0\0\0\0@\x01a\0\0\0\0\0\0\0@",
            Error::Corrupt("sorted set: a member occurs twice"),
        ),
        (
            b"\x05\x01\x01a\xff\xff\xff\xff\xff\xff\xff\x7f",
            Error::Corrupt("sorted set: a score is not a number"),
        ),
        (
            b"\x03\x01\x01a\xfd",
            Error::Corrupt("sorted set: a score is not a number"),
        ),
        (
            b"\x10\x09\x09\0\0\0\x01\0\x01\x01\xff",
            Error::Corrupt("pairs: one half is missing"),
        ),
        (
            b"\x11\x0e\x0e\0\0\0\x02\0\x81a\x02\x82xx\x03\xff",
            Error::Corrupt("sorted set: a score is not a number"),
        ),
        (
            b"\x11\x0d\x0d\0\0\0\x02\0\x81a\x02\x81x\x02\xff",
            Error::Corrupt("sorted set: a score is not a number"),
        ),
        (
            b"\x16\x01\x01f\x01v\xfe\xff\xff\xff\xff\xff\xff\xff",
            Error::Corrupt("hash: deadline"),
        ),
        // Lengths and counts that promise much.
        (
            b"\x02\x81\x7f\xff\xff\xff\xff\xff\xff\xff\x01a",
            Error::Truncated,
        ),
        (
            b"\x05\x81\x7f\xff\xff\xff\xff\xff\xff\xff\x01a",
            Error::Truncated,
        ),
        (
            b"\x12\x81\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x01a",
            Error::Truncated,
        ),
        (
            b"\x04\x81\x7f\xff\xff\xff\xff\xff\xff\xff\x01a\x01b",
            Error::Truncated,
        ),
        (
            b"\x15\x81\x7f\xff\xff\xff\xff\xff\xff\xff",
            Error::Truncated,
        ),
        (
            b"\x00\xc3\x05\x80\xff\xff\xff\xffabcde",
            Error::Corrupt("compressed string"),
        ),
    ] {
        assert_eq!(read(body, 11), Err(error), "{body:?}");
    }
}

#[test]
fn foreign_versions_and_changed_bytes_are_refused_before_reading() {
    for version in [0, 13, 79, 81, u16::MAX] {
        assert_eq!(
            read(b"\x00\x01a", version),
            Err(Error::Version(version.into()))
        );
        let relaxed = restore(
            &payload(b"\x00\x01a", version),
            &limits(),
            Timestamp::MIN,
            VersionCheck::Relaxed,
        );
        assert!(relaxed.is_ok());
    }
    let mut changed = payload(b"\x00\x01a", 11);
    changed[2] ^= 1;
    let restore = |payload: &[u8]| {
        restore(payload, &limits(), Timestamp::MIN, VersionCheck::Strict).map(|value| shown(&value))
    };
    assert_eq!(restore(&changed), Err(Error::Checksum));
    let len = changed.len();
    changed[len - 8..].fill(0);
    assert_eq!(restore(&changed), Err(Error::Checksum));
    assert_eq!(restore(b"short"), Err(Error::Truncated));
}

#[test]
fn expired_fields_are_left_out() {
    let body = payload(
        b"\x16\x02\x01f\x01v\x05\0\0\0\0\0\0\0\x01g\x01w\x06\0\0\0\0\0\0\0",
        80,
    );
    let at = |now| {
        restore(&body, &limits(), Timestamp(now), VersionCheck::Strict).map(|value| shown(&value))
    };
    assert_eq!(at(4), Ok("f=v@5 g=w@6".into()));
    assert_eq!(at(5), Ok("g=w@6".into()));
    assert_eq!(at(6), Err(Error::Empty));
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        (-5000i64..5000).prop_map(|number| number.to_string().into_bytes()),
        proptest::collection::vec(any::<u8>(), 0..40),
        (60usize..5000).prop_map(|len| vec![b'x'; len]),
    ]
}

fn shown_value<T>(variant: fn(T) -> Value, value: T) -> Shown {
    Shown(variant(value))
}

fn value() -> impl Strategy<Value = Shown> {
    const COUNT: Range<usize> = 1..300;
    let texts = |count: Range<usize>| proptest::collection::vec(text(), count);
    prop_oneof![
        text().prop_map(|text| match number_of(&text) {
            Some(number) => Shown(Value::Int(number)),
            None => Shown(Value::String(text)),
        }),
        texts(COUNT).prop_map(|texts| shown_value(
            Value::List,
            List::from_values(texts.iter().map(Vec::as_slice), limits().list)
        )),
        texts(COUNT).prop_map(|texts| shown_value(
            Value::Set,
            Set::from_members(texts.iter().map(Element::from), &limits().set)
        )),
        proptest::collection::vec(any::<i64>(), COUNT).prop_map(|numbers| shown_value(
            Value::Set,
            Set::from_members(numbers.into_iter().map(Element::from), &limits().set)
        )),
        proptest::collection::vec((text(), any::<f64>()), COUNT).prop_map(|entries| {
            let mut set = SortedSet::new();
            for (member, score) in entries {
                let score = if score.is_nan() { 1.5 } else { score };
                set.insert(&member, score, &limits().sorted_set);
            }
            shown_value(Value::SortedSet, set)
        }),
        proptest::collection::vec(
            (
                text(),
                text(),
                proptest::option::weighted(0.1, 0i64..i64::MAX / 2)
            ),
            COUNT
        )
        .prop_map(|entries| {
            let mut hash = Hash::new();
            for (field, value, deadline) in entries {
                let deadline =
                    deadline.map_or(FieldDeadline::Clear, |at| FieldDeadline::At(Timestamp(at)));
                hash.set(&field, &value, deadline, Timestamp::MIN, &limits().hash);
            }
            shown_value(Value::Hash, hash)
        }),
    ]
}

fn number_of(text: &[u8]) -> Option<i64> {
    crate::value::number::parse_i64(text)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_value_survives_a_payload(value in value(), redis: bool) {
        let dialect = if redis { Dialect::Redis } else { Dialect::Valkey };
        let payload = dump(look(&value.0), dialect);
        let restored = restore(&payload, &limits(), Timestamp(-1), VersionCheck::Strict).unwrap();
        prop_assert_eq!(shown(&restored), shown(&value.0));
        prop_assert_eq!(dump(look(&restored), dialect).len() > 11, true);
    }

    #[test]
    fn no_change_of_bytes_makes_restoring_panic(
        value in value(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        kind in 0u8..26,
    ) {
        let mut body = dump(look(&value.0), Dialect::Valkey);
        body.truncate(body.len() - 10);
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        for version in [11, 12, 80] {
            let _ = read(&body, version);
        }
        body[0] = kind;
        let _ = read(&body, 80);
    }

    #[test]
    fn no_bytes_make_restoring_panic(body: Vec<u8>, kind in 0u8..26) {
        let _ = read(&[&[kind], &body[..]].concat(), 80);
        let _ = restore(&body, &limits(), Timestamp::MIN, VersionCheck::Relaxed);
    }
}
