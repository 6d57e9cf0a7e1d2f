//! Any bytes as a snapshot file: read record by record and in batches, which must tell the same. What loads can be written
//! and loaded again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use storage::{
    rdb::{
        Dialect, Error, Limits, VersionCheck, dump,
        file::{BatchError, ChecksumCheck, FileReader, Part, Record},
        restore,
    },
    time::Timestamp,
    value::{Settings, Value, ValueRef},
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

fn tell(record: &Record, told: &mut Vec<Vec<u8>>) {
    match record {
        Record::Note { key, .. } => told.push(key.clone()),
        Record::Function(source) => told.push(source.clone()),
        Record::EmptyEntry { key } => told.push(key.clone()),
        Record::Entry(entry) => {
            let payload = dump(look(&entry.value), Dialect::Valkey);
            let again = restore(&payload, &limits(), Timestamp::MIN, VersionCheck::Strict);
            assert!(again.is_ok(), "what was read can be written and read");
            told.push(entry.key.clone());
        }
        Record::Database(_) | Record::Sizes { .. } | Record::End => {}
    }
}

fn read(bytes: &[u8], in_batches: bool) -> (Vec<Vec<u8>>, Result<(), Error>) {
    let mut told = Vec::new();
    let mut read = || {
        let mut file = FileReader::new(
            bytes,
            limits(),
            Timestamp::MIN,
            VersionCheck::Strict,
            ChecksumCheck::Off,
        )?;
        loop {
            let part = if in_batches {
                file.next_part()?
            } else {
                Part::Record(file.next_record()?)
            };
            match part {
                Part::Record(Record::End) => return Ok(()),
                Part::Record(record) => tell(&record, &mut told),
                Part::Batch(batch) => {
                    let visit = |record| {
                        tell(&record, &mut told);
                        Ok::<_, ()>(())
                    };
                    match batch.read(limits(), Timestamp::MIN, visit) {
                        Ok(()) | Err(BatchError::Refused(())) => {}
                        Err(BatchError::Unsound { error, .. }) => return Err(error),
                    }
                }
            }
        }
    };
    let end = read();
    (told, end)
}

fuzz_target!(|bytes: &[u8]| {
    let (records, end) = read(bytes, false);
    let (batches, other_end) = read(bytes, true);
    assert_eq!(records, batches);
    assert_eq!(end, other_end);
});
