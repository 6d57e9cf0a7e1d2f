//! The keyspace table against `HashMap`, under random operations, and its traversal under concurrent change.

mod random;

use std::collections::{HashMap, HashSet};

use storage::{
    entry::{Entry, Item, Meta},
    hash::hash,
    table::Table,
    time::Timestamp,
    value::{Text, Value},
};

use self::random::Random;

fn key(number: u64) -> Vec<u8> {
    match number % 10 {
        0 => format!("{number}-{}", "long".repeat(80)).into_bytes(),
        1 => Vec::from(number.to_le_bytes()),
        _ => format!("key:{number}").into_bytes(),
    }
}

fn text(table: &Table, key: &[u8]) -> Option<Vec<u8>> {
    let entry = table.get(hash(key), key)?;
    let text = Text::of(entry.value()).expect("these tests store strings only");
    Some(text.as_bytes(&mut itoa::Buffer::new()).to_vec())
}

fn put(table: &mut Table, key: &[u8], entry: Entry) {
    match table.find(hash(key), key) {
        Some(place) => drop(table.replace(place, entry)),
        None => table.insert(hash(key), entry),
    }
}

fn take(table: &mut Table, key: &[u8]) -> Option<Entry> {
    let place = table.find(hash(key), key)?;
    Some(table.remove(place))
}

#[test]
fn a_table_does_what_a_hash_map_does() {
    for seed in 0..20 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut table = Table::new(seed as u32 % 9);
        let mut model: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        let keys = 1 << (4 + seed % 13);
        for step in 0..20_000 {
            let name = key(random.below(keys));
            match random.below(10) {
                0..=4 => {
                    let value = vec![b'v'; random.below(80) as usize];
                    put(
                        &mut table,
                        &name,
                        Entry::string(&name, &value, Meta::default()),
                    );
                    model.insert(name, value);
                }
                5 => {
                    let number = random.next() as i64 >> random.below(60);
                    put(
                        &mut table,
                        &name,
                        Entry::integer(&name, number, Meta::default()),
                    );
                    model.insert(name, number.to_string().into_bytes());
                }
                6..=7 => {
                    assert_eq!(
                        take(&mut table, &name).is_some(),
                        model.remove(&name).is_some()
                    );
                }
                8 => {
                    if let Some(place) = table.find(hash(&name), &name) {
                        let deadline =
                            (random.below(2) == 0).then(|| Timestamp(random.below(1000) as i64));
                        table.set_deadline(place, deadline);
                        let place = table
                            .find(hash(&name), &name)
                            .expect("a deadline does not remove the key");
                        assert_eq!(table.entry(place).deadline(), deadline);
                    }
                }
                _ => assert_eq!(text(&table, &name), model.get(&name).cloned()),
            }
            if step % 1000 == 0 {
                table.compact(0, usize::MAX);
            }
            assert_eq!(table.len(), model.len());
        }
        for (name, value) in &model {
            assert_eq!(text(&table, name).as_ref(), Some(value));
        }
        let mut bytes = 0;
        let mut deadlines = 0;
        table.traverse(0, usize::MAX, |_, entry| {
            bytes += entry.own_bytes();
            deadlines += usize::from(entry.deadline().is_some());
        });
        assert_eq!(
            table.memory_bytes() - table.overhead_bytes(),
            bytes,
            "counted memory is what a recount finds"
        );
        assert_eq!(table.deadlines(), deadlines);
    }
}

#[test]
fn a_traversal_sees_every_key_that_stays_throughout() {
    for seed in 100..130 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut table = Table::new(3);
        let stay: Vec<Vec<u8>> = (0..random.below(3000))
            .map(|number| key(number + 1_000_000))
            .collect();
        for name in &stay {
            put(&mut table, name, Entry::string(name, b"x", Meta::default()));
        }
        let growing = seed % 2 == 0;
        let mut others: Vec<Vec<u8>> = Vec::new();
        if !growing {
            others = (0..20_000).map(key).collect();
            others
                .iter()
                .for_each(|name| put(&mut table, name, Entry::string(name, b"y", Meta::default())));
        }
        let mut seen = HashSet::new();
        let mut cursor = 0;
        let mut added = 0;
        loop {
            cursor = table.traverse(cursor, 1 + random.below(50) as usize, |_, entry| {
                seen.insert(entry.key().to_vec());
            });
            if cursor == 0 {
                break;
            }
            for _ in 0..random.below(200) {
                if growing && added < 30_000 {
                    added += 1;
                    let name = key(added);
                    put(
                        &mut table,
                        &name,
                        Entry::string(&name, b"y", Meta::default()),
                    );
                } else if let Some(name) = others.pop() {
                    take(&mut table, &name);
                }
            }
            table.compact(0, usize::MAX);
        }
        assert!(stay.iter().all(|name| seen.contains(name)));
    }
}

#[test]
fn a_sweep_finds_all_that_has_expired_and_nothing_else() {
    let mut table = Table::new(0);
    for number in 0..10_000u64 {
        let name = key(number);
        let deadline = (number % 3 != 0).then_some(Timestamp(number as i64));
        put(
            &mut table,
            &name,
            Entry::string(
                &name,
                b"v",
                Meta {
                    deadline,
                    ..Meta::default()
                },
            ),
        );
    }
    let mut from = 0;
    let mut removed = 0;
    loop {
        from = table.sweep_expired(from, 100, Timestamp(4_999), |table, place| {
            assert!(table.entry(place).is_expired(Timestamp(4_999)));
            drop(table.remove(place));
            removed += 1;
        });
        if from == 0 {
            break;
        }
    }
    assert_eq!(removed, (0..5_000).filter(|number| number % 3 != 0).count());
    assert_eq!(table.len(), 10_000 - removed);
}

#[test]
fn a_sample_reaches_every_key() {
    let mut table = Table::new(0);
    for number in 0..200 {
        table.insert(
            hash(&key(number)),
            Entry::integer(&key(number), 1, Meta::default()),
        );
    }
    let mut random = Random(7);
    let mut seen = HashSet::new();
    for _ in 0..10_000 {
        let (_, entry) = table.sample(random.next()).expect("the table is not empty");
        seen.insert(entry.key().to_vec());
    }
    assert_eq!(seen.len(), 200);
    assert!(Table::new(0).sample(1).is_none());
}

#[test]
fn entries_keep_what_they_are_given() {
    let metas = [
        Meta::default(),
        Meta {
            deadline: Some(Timestamp(5)),
            ..Meta::default()
        },
        Meta {
            item: Some(Item {
                flags: 7,
                cas: u64::MAX,
            }),
            access: 9,
            ..Meta::default()
        },
        Meta {
            deadline: Some(Timestamp(i64::MAX)),
            item: Some(Item {
                flags: u32::MAX,
                cas: 1,
            }),
            access: u16::MAX,
        },
    ];
    let keys = [
        vec![],
        b"k".to_vec(),
        vec![b'k'; 254],
        vec![b'k'; 255],
        vec![0; 70_000],
    ];
    let strings = [
        vec![],
        vec![b'v'; 1],
        vec![b'v'; 4096],
        vec![b'v'; 4097],
        vec![b'v'; 1 << 20],
    ];
    let numbers = [
        0,
        1,
        -1,
        8_388_607,
        8_388_608,
        -8_388_608,
        -8_388_609,
        i64::MAX,
        i64::MIN,
    ];
    for key in &keys {
        for meta in metas {
            let values = strings
                .iter()
                .cloned()
                .map(Value::String)
                .chain(numbers.map(Value::Int));
            for value in values {
                let wanted = match &value {
                    Value::String(bytes) => bytes.clone(),
                    Value::Int(number) => number.to_string().into_bytes(),
                    _ => unreachable!("strings and numbers only"),
                };
                let mut entry = Entry::new(key, value, meta);
                for other in metas {
                    entry = entry.with_meta(other);
                    assert_eq!(entry.look().meta(), other);
                    assert_eq!(entry.look().key(), key.as_slice());
                    let text = Text::of(entry.look().value()).expect("a string");
                    assert_eq!(text.as_bytes(&mut itoa::Buffer::new()), wanted.as_slice());
                }
            }
        }
    }
}

/// A reload puts keys in as a walk over the same hashes found them: one segment's keys after the other's.
#[test]
fn keys_that_come_in_the_order_of_a_walk_are_taken() {
    for seed in 0..40 {
        println!("seed {seed}");
        let (shard_bits, count) = (seed as u32 % 9, 3000 + 100 * seed);
        let mut walked = Table::new(shard_bits);
        for number in 0..count {
            let name = format!("{seed}:{number}").into_bytes();
            walked.insert(hash(&name), Entry::integer(&name, 1, Meta::default()));
        }
        let mut table = Table::new(shard_bits);
        let mut cursor = 0;
        let mut found = Vec::new();
        loop {
            cursor = walked.traverse(cursor, 64, |_, entry| found.push(entry.key().to_vec()));
            for name in found.drain(..) {
                if table.find(hash(&name), &name).is_none() {
                    table.insert(hash(&name), Entry::integer(&name, 1, Meta::default()));
                }
            }
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(table.len(), walked.len());
        for number in 0..count {
            assert!(take(&mut table, format!("{seed}:{number}").as_bytes()).is_some());
        }
        assert!(table.is_empty());
    }
}
