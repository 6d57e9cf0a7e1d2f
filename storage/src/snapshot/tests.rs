use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    db::Db,
    entry::Meta,
    keyspace::Key,
    time::Timestamp,
    value::{ValueRef, number},
};

const DATABASES: usize = 3;

type Data = BTreeMap<(usize, Vec<u8>), i64>;

fn keyspace() -> Keyspace {
    Keyspace::new(4, DATABASES, None)
}

fn note(data: &mut Data) -> impl FnMut(usize, EntryRef<'_>) -> io::Result<()> + '_ {
    |database, entry| {
        let number = match entry.value() {
            ValueRef::Int(number) => number,
            ValueRef::Bytes(bytes) => number::parse_i64(bytes).expect("numbers only"),
            _ => panic!("numbers only"),
        };
        let before = data.insert((database, entry.key().to_vec()), number);
        assert!(before.is_none(), "an entry was shown twice");
        Ok(())
    }
}

/// All there is, by the plain walk.
fn all(keyspace: &Keyspace) -> Data {
    let mut data = Data::new();
    let mut db = Db::new(keyspace, 0, Timestamp(1));
    db.lock_all();
    db.each_entry(note(&mut data)).expect("numbers only");
    data
}

#[derive(Clone, Debug)]
enum Change {
    Set(usize, u8, i64),
    Text(usize, u8, i64),
    Delete(usize, u8),
    Expire(usize, u8, i64),
    Flush(usize),
    Swap(usize, usize),
    Walk(u8),
}

fn change() -> impl Strategy<Value = Change> {
    let database = 0..DATABASES;
    prop_oneof![
        6 => (database.clone(), any::<u8>(), any::<i64>()).prop_map(|(d, k, v)| Change::Set(d, k, v)),
        3 => (database.clone(), any::<u8>(), any::<i64>()).prop_map(|(d, k, v)| Change::Text(d, k, v)),
        6 => (database.clone(), any::<u8>()).prop_map(|(d, k)| Change::Delete(d, k)),
        3 => (database.clone(), any::<u8>(), 2i64..9).prop_map(|(d, k, t)| Change::Expire(d, k, t)),
        1 => database.clone().prop_map(Change::Flush),
        1 => (database.clone(), database).prop_map(|(a, b)| Change::Swap(a, b)),
        3 => any::<u8>().prop_map(Change::Walk),
    ]
}

fn apply(keyspace: &Keyspace, change: &Change) {
    let mut db = Db::new(keyspace, 0, Timestamp(1));
    let name = |key: u8| [b"key:".as_slice(), &[key]].concat();
    let mut on = |database: usize, key: u8, work: &dyn Fn(&mut Db<'_>, Key<'_>)| {
        let name = name(key);
        let key = Key::new(&name);
        db.select(database);
        db.lock(key.hash);
        work(&mut db, key);
        db.unlock();
    };
    match *change {
        Change::Set(database, key, number) => {
            on(database, key, &|db, key| {
                db.put_integer(key, number, Meta::default())
            });
        }
        Change::Text(database, key, number) => on(database, key, &|db, key| {
            let text = number.to_string().into_bytes();
            db.edit_text(key, 0, |bytes| *bytes = text.clone())
                .expect("strings only");
        }),
        Change::Delete(database, key) => on(database, key, &|db, key| {
            db.delete(key);
        }),
        Change::Expire(database, key, at) => on(database, key, &|db, key| {
            db.set_deadline(key, Some(Timestamp(at)));
        }),
        Change::Flush(database) => {
            db.lock_all();
            db.flush(Some(database));
            db.unlock();
        }
        Change::Swap(one, other) => {
            db.lock_all();
            db.swap_databases(one, other);
            db.unlock();
        }
        Change::Walk(_) => {}
    }
}

/// Visits so many entries, about, and no more.
fn walk_some(snapshot: &mut Snapshot<'_>, steps: u8, data: &mut Data) {
    let keyspace = snapshot.ready.keyspace;
    let mut found = Vec::new();
    for _ in 0..steps {
        let number = snapshot.next_shard.get_mut();
        if *number >= keyspace.shard_count() {
            break;
        }
        let mut shard = keyspace.lock(*number);
        let unfinished = shard
            .tables
            .iter_mut()
            .any(|table| table.walk_some(1, &mut found));
        if !unfinished {
            shard.snapshot = None;
            *number += 1;
        }
    }
    let mut visit = note(data);
    for (database, entry) in found {
        visit(database, entry.look()).expect("numbers only");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_snapshot_is_the_data_at_its_cut(
        before in proptest::collection::vec(change(), 0..400),
        rounds in proptest::collection::vec(proptest::collection::vec(change(), 0..200), 1..4),
    ) {
        let keyspace = keyspace();
        before.iter().for_each(|change| apply(&keyspace, change));
        for (round, changes) in rounds.iter().enumerate() {
            let expected = all(&keyspace);
            let mut snapshot = Ready::new(&keyspace).expect("no other runs").cut(usize::MAX, || ());
            let entries: usize = snapshot.sizes().iter().map(|size| size.entries).sum();
            prop_assert_eq!(entries, expected.len());
            // Not even when it is asked for again.
            prop_assert!(Ready::new(&keyspace).is_none());
            prop_assert!(Ready::new(&keyspace).is_none());
            let mut data = Data::new();
            for change in changes {
                if let Change::Walk(steps) = change {
                    walk_some(&mut snapshot, *steps, &mut data);
                }
                apply(&keyspace, change);
            }
            if round == 1 {
                // Given up half-way: the next is whole all the same.
                drop(snapshot);
                continue;
            }
            snapshot.walk(note(&mut data)).expect("numbers only");
            prop_assert_eq!(data, expected);
        }
    }
}

#[test]
fn a_snapshot_that_costs_too_much_is_given_up_and_says_so() {
    let keyspace = keyspace();
    (0..100).for_each(|key| apply(&keyspace, &Change::Set(0, key, 1)));
    let limit = 10 * PIECE_BYTES;
    let snapshot = Ready::new(&keyspace)
        .expect("no other runs")
        .cut(limit, || ());
    (0..100).for_each(|key| apply(&keyspace, &Change::Set(0, key, 2)));
    // No more was kept than the limit and what passed it.
    let kept = keyspace.snapshot_bytes();
    assert!((limit..3 * limit).contains(&kept), "{kept}");
    let error = snapshot.walk(|_, _| Ok(())).expect_err("it is not whole");
    assert!(GivenUp::is(&error));
    assert_eq!(keyspace.snapshot_bytes(), 0);
    // The next one is whole.
    let snapshot = Ready::new(&keyspace)
        .expect("no other runs")
        .cut(limit, || ());
    let mut data = Data::new();
    snapshot.walk(note(&mut data)).expect("nothing has changed");
    assert_eq!(data, all(&keyspace));
}

#[test]
fn threads_that_walk_together_see_each_entry_once() {
    let keyspace = keyspace();
    for round in 0..20 {
        (0..=255).for_each(|key| apply(&keyspace, &Change::Set(1, key, round)));
        let expected = all(&keyspace);
        let snapshot = Ready::new(&keyspace)
            .expect("no other runs")
            .cut(usize::MAX, || ());
        let seen = Mutex::new(Data::new());
        thread::scope(|scope| {
            scope.spawn(|| (0..=255).for_each(|key| apply(&keyspace, &Change::Set(1, key, -1))));
            let walked = snapshot.walk_together(3, |_, part| {
                part.walk(|database, entry| note(&mut seen.lock())(database, entry))
            });
            walked.expect("nobody fails");
        });
        assert_eq!(seen.into_inner(), expected, "round {round}");
    }
}

#[test]
fn a_thread_that_fails_ends_the_walk_for_all() {
    let keyspace = keyspace();
    (0..=255).for_each(|key| apply(&keyspace, &Change::Set(0, key, 1)));
    for panics in [false, true] {
        let snapshot = Ready::new(&keyspace)
            .expect("no other runs")
            .cut(usize::MAX, || ());
        (0..=255).for_each(|key| apply(&keyspace, &Change::Set(0, key, 2)));
        let seen = AtomicUsize::new(0);
        let walked = snapshot.walk_together(3, |_, part| {
            part.walk(|_, _| match seen.fetch_add(1, Ordering::Relaxed) {
                20 if panics => panic!("as a value that cannot be written does"),
                20 => Err(io::Error::other("the disk is full")),
                _ => Ok(()),
            })
        });
        let error = walked.expect_err("one has failed").to_string();
        let expected = if panics {
            "internal error"
        } else {
            "the disk is full"
        };
        assert_eq!(error, expected);
        assert_eq!(keyspace.snapshot_bytes(), 0);
        // The next one is whole.
        let snapshot = Ready::new(&keyspace)
            .expect("no other runs")
            .cut(usize::MAX, || ());
        let mut data = Data::new();
        snapshot.walk(note(&mut data)).expect("nothing has changed");
        assert_eq!(data, all(&keyspace));
    }
}
