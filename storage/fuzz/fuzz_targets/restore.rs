//! Any bytes as the payload of RESTORE, under a checksum that is right: a value comes of them, or an error. What comes can
//! be written in either dialect and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use storage::{
    rdb::{Dialect, Limits, VersionCheck, crc64::crc64, dump, restore},
    time::Timestamp,
    value::{Settings, Value, ValueRef},
};

const VERSIONS: [u16; 6] = [6, 9, 10, 11, 12, 80];

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

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, body)) = bytes.split_first() else {
        return;
    };
    let version = VERSIONS[usize::from(*choice) % VERSIONS.len()];
    let mut payload = [body, &version.to_le_bytes()].concat();
    payload.extend(crc64(&payload).to_le_bytes());
    let limits = Limits::from(&Settings::default());
    let Ok(value) = restore(&payload, &limits, Timestamp::MIN, VersionCheck::Strict) else {
        return;
    };
    for dialect in [Dialect::Valkey, Dialect::Redis] {
        let payload = dump(look(&value), dialect);
        let again = restore(&payload, &limits, Timestamp::MIN, VersionCheck::Strict);
        let again = again.expect("what was read can be written and read");
        assert_eq!(
            dump(look(&again), Dialect::Valkey).len(),
            dump(look(&value), Dialect::Valkey).len()
        );
    }
});
