//! Keys moved out of sparse pages: nothing is lost or changed, and pages become free.

use parking_lot::Mutex;
use storage::{
    alloc,
    db::Db,
    entry::{Item, Meta},
    eviction::reclaim::Walk,
    keyspace::{Key, Keyspace},
    time::Timestamp,
    value::{
        Collection, Text, Value,
        set::{self, Set},
    },
};

#[global_allocator]
static ALLOCATOR: alloc::Allocator = alloc::Allocator;

const KEYS: u32 = 40_000;
const NOW: Timestamp = Timestamp(1_000_000);

fn name(number: u32) -> [u8; 8] {
    u64::from(number).to_le_bytes()
}

fn value(number: u32) -> Vec<u8> {
    // Some are long enough for a buffer of their own.
    let len = if number.is_multiple_of(50) { 6000 } else { 200 };
    (0..len).map(|at| (number + at) as u8).collect()
}

fn meta(number: u32) -> Meta {
    Meta {
        deadline: number.is_multiple_of(3).then_some(Timestamp(2_000_000)),
        item: number.is_multiple_of(7).then_some(Item {
            flags: number,
            cas: 5,
        }),
        ..Meta::default()
    }
}

/// A keyspace in which one key in eight is left of those that filled the pages.
fn sparse() -> Keyspace {
    let keyspace = Keyspace::new(4, 2, None);
    let mut db = Db::new(&keyspace, 1, NOW);
    for number in 0..KEYS {
        let name = name(number);
        let key = Key::new(&name);
        db.lock(key.hash);
        if number.is_multiple_of(16) {
            let mut set = Set::new();
            for member in 0..20u32 {
                set.add(&member.to_le_bytes()[..], &set::Limits::default());
            }
            db.put(key, set.into_value(), meta(number));
        } else {
            db.put_bytes(key, &value(number), meta(number));
        }
        db.unlock();
    }
    for number in (0..KEYS).filter(|number| !number.is_multiple_of(8)) {
        let name = name(number);
        let key = Key::new(&name);
        db.lock(key.hash);
        assert!(db.delete(key));
        db.unlock();
    }
    drop(db);
    keyspace
}

fn check(keyspace: &Keyspace) {
    let mut db = Db::new(keyspace, 1, NOW);
    for number in 0..KEYS {
        let name = name(number);
        let key = Key::new(&name);
        db.lock(key.hash);
        let found = db.peek(key);
        assert_eq!(found.is_some(), number.is_multiple_of(8));
        if let Some(entry) = found {
            assert_eq!(entry.deadline(), meta(number).deadline);
            assert_eq!(
                entry.item().map(|item| item.flags),
                meta(number).item.map(|item| item.flags)
            );
            match Text::of(entry.value()) {
                Some(text) => {
                    assert_eq!(text.as_bytes(&mut itoa::Buffer::new()), value(number));
                }
                None => assert_eq!(Set::of(entry.value()).map(Set::len), Some(20)),
            }
        }
        db.unlock();
    }
}

/// The allocator counts for the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn keys_leave_sparse_pages_unchanged() {
    let _alone = ALONE.lock();
    let keyspace = sparse();
    let memory = || -> usize {
        (0..keyspace.shard_count())
            .map(|shard| keyspace.lock(shard).memory_bytes())
            .sum()
    };
    let (allocated, counted) = (alloc::allocated_bytes(), memory());
    let mut walk = Walk::default();
    let first = walk.step(&keyspace, KEYS as usize, 50);
    check(&keyspace);
    assert!(first > 1000, "only {first} moved");
    assert_eq!(memory(), counted);
    assert!(alloc::allocated_bytes() <= allocated + allocated / 50);
    let again: usize = (0..3)
        .map(|_| walk.step(&keyspace, KEYS as usize, 50))
        .sum();
    check(&keyspace);
    assert!(again < first / 2, "{again} moved again, {first} at first");
    // A page is never used by less than nothing.
    assert_eq!(Walk::default().step(&keyspace, KEYS as usize, 0), 0);
}

#[test]
fn a_buffer_that_somebody_reads_stays() {
    let _alone = ALONE.lock();
    let keyspace = sparse();
    let shared: Vec<Value> = {
        let mut db = Db::new(&keyspace, 1, NOW);
        (0..KEYS)
            .step_by(200)
            .filter_map(|number| {
                let name = name(number);
                let key = Key::new(&name);
                db.lock(key.hash);
                let value = db.peek(key).map(|entry| entry.value().to_value());
                db.unlock();
                value
            })
            .collect()
    };
    Walk::default().step(&keyspace, KEYS as usize, 90);
    check(&keyspace);
    assert!(shared.iter().any(|value| matches!(value, Value::Shared(_))));
    for value in shared {
        if let Value::Shared(buffer) = value {
            assert_eq!(buffer.len(), 6000);
        }
    }
}
