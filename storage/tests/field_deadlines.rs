//! Which hashes have fields that expire, through everything that can happen to a hash.

use std::sync::atomic::Ordering;

use storage::{
    db::Db,
    keyspace::{Key, Keyspace},
    time::Timestamp,
    value::hash::{FieldDeadline, Hash, Limits},
};

const NOW: Timestamp = Timestamp(1000);

fn set(db: &mut Db<'_>, key: &[u8], field: &str, deadline: FieldDeadline) {
    let now = db.now();
    let mut hash = db
        .write_or_create(Key::new(key), Hash::new)
        .expect("only hashes are stored");
    hash.set(field.as_bytes(), b"1", deadline, now, &Limits::default());
}

/// Hashes that the tables count, and the keys that a sweep finds due.
fn found(db: &mut Db<'_>, now: Timestamp) -> (usize, Vec<Vec<u8>>) {
    let (mut counted, mut due) = (0, Vec::new());
    let walked = db.each_shard(0, |_, shard| {
        let table = &mut shard.tables[0];
        counted += table.field_deadlines();
        table.sweep_expired(0, 1_000_000, now, |table, place| {
            due.push(table.entry(place).key().to_vec());
        });
        None::<()>
    });
    assert_eq!(walked, Ok(None));
    due.sort();
    (counted, due)
}

#[test]
fn hashes_with_field_deadlines_are_counted_and_found_when_due() {
    let keyspace = Keyspace::new(4, 1, None);
    let mut db = Db::new(&keyspace, 0, NOW);
    db.lock_all();
    set(&mut db, b"plain", "a", FieldDeadline::Clear);
    set(&mut db, b"early", "a", FieldDeadline::At(Timestamp(1100)));
    set(&mut db, b"early", "b", FieldDeadline::At(Timestamp(5000)));
    set(&mut db, b"late", "a", FieldDeadline::At(Timestamp(9000)));
    assert_eq!(found(&mut db, NOW), (2, vec![]));
    assert_eq!(
        found(&mut db, Timestamp(2000)),
        (2, vec![b"early".to_vec()])
    );

    db.set_now(Timestamp(2000));
    assert_eq!(db.expire_fields(Key::new(b"early"), 10), 1);
    assert_eq!(found(&mut db, Timestamp(2000)), (2, vec![]));
    assert_eq!(
        found(&mut db, Timestamp(6000)),
        (2, vec![b"early".to_vec()])
    );

    db.set_now(Timestamp(6000));
    assert_eq!(db.expire_fields(Key::new(b"early"), 10), 1);
    assert!(db.peek(Key::new(b"early")).is_none());
    assert_eq!(found(&mut db, Timestamp(6000)), (1, vec![]));

    set(&mut db, b"late", "a", FieldDeadline::Clear);
    assert_eq!(found(&mut db, Timestamp(9000)), (0, vec![]));
    assert_eq!(
        keyspace.statistics.expired_fields.load(Ordering::Relaxed),
        2,
        "each removed field is counted"
    );
}

#[test]
fn a_hash_that_moves_or_goes_takes_its_count_along() {
    let keyspace = Keyspace::new(4, 1, None);
    let mut db = Db::new(&keyspace, 0, NOW);
    db.lock_all();
    for number in 0..2000 {
        let key = format!("h{number}");
        set(
            &mut db,
            key.as_bytes(),
            "a",
            FieldDeadline::At(Timestamp(1100)),
        );
    }
    assert_eq!(found(&mut db, NOW).0, 2000);
    for number in 0..1000 {
        db.delete(Key::new(format!("h{number}").as_bytes()));
    }
    let (counted, due) = found(&mut db, Timestamp(1100));
    assert_eq!((counted, due.len()), (1000, 1000));
    db.flush(None);
    assert_eq!(found(&mut db, Timestamp(1100)), (0, vec![]));
}
