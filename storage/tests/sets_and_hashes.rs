//! Sets and hashes against the std collections, over all their encodings.

mod random;

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;
use storage::{
    time::Timestamp,
    value::{
        element::Element,
        hash::{self, FieldDeadline, Hash},
        set::{self, Set},
    },
};

use self::random::Random;

const START: Timestamp = Timestamp::MIN;

fn generator(seed: u64) -> impl FnMut() -> u64 {
    let mut random = Random(seed);
    move || random.next()
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (-20i64..60).prop_map(|integer| integer.to_string().into_bytes()),
        3 => (0u8..40).prop_map(|number| format!("text:{number}").into_bytes()),
        1 => any::<i64>().prop_map(|integer| integer.to_string().into_bytes()),
        1 => proptest::sample::select(vec![
            &b"007"[..], b"-0", b"+1", b"", b"9223372036854775807", b"-9223372036854775808", b"9223372036854775808",
        ]).prop_map(<[u8]>::to_vec),
        1 => proptest::sample::select(vec![64usize, 65, 1024, 1025, 100_000]).prop_map(|len| vec![b'x'; len]),
    ]
}

/// Mostly integers, so that some sets stay integer sets for long.
fn member() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => (-20i64..60).prop_map(|integer| integer.to_string().into_bytes()), 1 => text()]
}

#[derive(Debug, Clone)]
enum SetOp {
    Add(Vec<u8>),
    AddRange(u16),
    Remove(Vec<u8>),
    RemoveRange(u16),
    Pop,
    PopMany(usize),
    Sample(usize),
    Clone,
}

fn set_op() -> impl Strategy<Value = SetOp> {
    prop_oneof![
        8 => member().prop_map(SetOp::Add),
        1 => (0u16..900).prop_map(SetOp::AddRange),
        4 => member().prop_map(SetOp::Remove),
        1 => (0u16..900).prop_map(SetOp::RemoveRange),
        1 => Just(SetOp::Pop),
        1 => (0usize..1000).prop_map(SetOp::PopMany),
        1 => (0usize..1000).prop_map(SetOp::Sample),
        2 => Just(SetOp::Clone),
    ]
}

fn members(set: &Set) -> HashSet<Vec<u8>> {
    let listed: Vec<Vec<u8>> = set.iter().map(Element::to_vec).collect();
    let distinct: HashSet<Vec<u8>> = listed.iter().cloned().collect();
    assert_eq!((listed.len(), distinct.len()), (set.len(), set.len()));
    distinct
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn sets_behave_like_a_hash_set(
        ops in proptest::collection::vec(set_op(), 0..80),
        ints in 0usize..64,
        packed in 0usize..64,
        seed in any::<u64>(),
    ) {
        let limits = set::Limits { max_intset_entries: ints, max_listpack_entries: packed, max_listpack_value: 64 };
        let mut random = generator(seed);
        let mut set = Set::new();
        let mut model = HashSet::new();
        let mut clones = Vec::new();
        for op in ops {
            match op {
                SetOp::Add(member) => {
                    prop_assert_eq!(set.add(&member, &limits), model.insert(member.clone()));
                    prop_assert!(set.contains(&member));
                }
                SetOp::AddRange(count) => {
                    for number in 0..i64::from(count) {
                        prop_assert_eq!(set.add(number, &limits), model.insert(number.to_string().into_bytes()));
                    }
                }
                SetOp::Remove(member) => {
                    prop_assert_eq!(set.remove(&member), model.remove(&member));
                    prop_assert!(!set.contains(&member));
                }
                SetOp::RemoveRange(count) => {
                    for number in 0..i64::from(count) {
                        prop_assert_eq!(set.remove(number), model.remove(number.to_string().as_bytes()));
                    }
                }
                SetOp::Pop => match set.pop(&mut random) {
                    Some(member) => prop_assert!(model.remove(&member)),
                    None => prop_assert!(model.is_empty()),
                },
                SetOp::PopMany(count) => {
                    let mut popped = Vec::new();
                    set.pop_many(count, &mut random, &limits, |member| popped.push(member.to_vec()));
                    prop_assert_eq!(popped.len(), count.min(model.len()));
                    for member in popped {
                        prop_assert!(model.remove(&member));
                    }
                }
                SetOp::Sample(count) => {
                    let mut sampled = HashSet::new();
                    set.sample(count, &mut random, |member| assert!(sampled.insert(member.to_vec())));
                    prop_assert_eq!(sampled.len(), count.min(model.len()));
                    prop_assert!(sampled.is_subset(&model));
                }
                SetOp::Clone => clones.push((set.clone(), model.clone(), set.encoding())),
            }
            prop_assert_eq!(set.len(), model.len());
            prop_assert_eq!(set.random(&mut random).is_none(), model.is_empty());
        }
        prop_assert_eq!(&members(&set), &model);
        let mut scanned = HashSet::new();
        let mut cursor = 0;
        loop {
            cursor = set.scan(cursor, 7, |member| assert!(scanned.insert(member.to_vec())));
            if cursor == 0 {
                break;
            }
        }
        prop_assert_eq!(&scanned, &model);
        prop_assert!(set.is_same_version(&set.clone()));
        for (clone, then, encoding) in clones {
            prop_assert!(!set.is_same_version(&clone) || model == then);
            prop_assert_eq!(members(&clone), then);
            prop_assert_eq!(clone.encoding(), encoding);
        }
    }
}

#[test]
fn set_encodings_change_when_clients_of_valkey_see_them_change() {
    use set::Encoding::{HashTable, IntSet, ListPack};
    let limits = set::Limits::default();
    let of = |parts: &[(std::ops::Range<i64>, &str)]| {
        let mut set = Set::new();
        for (numbers, text) in parts {
            for number in numbers.clone() {
                set.add(number, &limits);
            }
            if !text.is_empty() {
                set.add(text.as_bytes(), &limits);
            }
        }
        set.encoding()
    };
    let (x64, x65) = ("x".repeat(64), "x".repeat(65));
    for (parts, encoding) in [
        (&[(0..512, "")][..], IntSet),
        (&[(0..513, "")], HashTable),
        (&[(0..3, "a")], ListPack),
        (&[(0..127, "a")], ListPack),
        (&[(0..128, "a")], HashTable),
        (&[(0..0, "a"), (0..127, "")], ListPack),
        (&[(0..0, "a"), (0..128, "")], HashTable),
        (&[(0..1, &x64)], ListPack),
        (&[(0..1, &x65)], HashTable),
        (&[(0..0, "a"), (0..0, &x65)], HashTable),
        (&[(0..0, "007")], ListPack),
        (&[(0..0, "-0")], ListPack),
        (&[(0..0, "9223372036854775807")], IntSet),
        (&[(0..0, "-9223372036854775808")], IntSet),
        (&[(0..0, "9223372036854775808")], ListPack),
    ] {
        assert_eq!(of(parts), encoding, "{parts:?}");
    }

    let mut set = Set::new();
    for number in 0..4 {
        set.add(
            number,
            &set::Limits {
                max_intset_entries: 3,
                ..limits
            },
        );
    }
    assert_eq!(set.encoding(), HashTable);
    set.remove(3);
    assert_eq!(set.encoding(), HashTable, "never back");

    assert_eq!(Set::with_hint(b"1", 512, &limits).encoding(), IntSet);
    assert_eq!(Set::with_hint(b"1", 513, &limits).encoding(), HashTable);
    assert_eq!(
        Set::with_hint(
            b"1",
            4,
            &set::Limits {
                max_intset_entries: 3,
                ..limits
            }
        )
        .encoding(),
        ListPack
    );
    assert_eq!(Set::with_hint(b"a", 128, &limits).encoding(), ListPack);
    assert_eq!(Set::with_hint(b"a", 129, &limits).encoding(), HashTable);

    // Popping nearly everything builds the set anew.
    let mut set = Set::from_members(
        (0..400).map(Element::Integer).chain([Element::new(b"x")]),
        &limits,
    );
    set.pop_many(390, &mut generator(1), &limits, |_| {});
    assert_eq!(set.len(), 11);
    assert!(matches!(set.encoding(), ListPack | IntSet));
}

#[derive(Debug, Clone)]
enum HashOp {
    Set(Vec<u8>, Vec<u8>, FieldDeadline),
    SetRange(u16),
    Remove(Vec<u8>),
    RemoveRange(u16),
    Deadline(Vec<u8>, i64),
    Persist(Vec<u8>),
    Later(i64),
    Expire(usize),
    Sample(usize),
    Clone,
}

fn hash_op() -> impl Strategy<Value = HashOp> {
    let deadline = prop_oneof![
        6 => Just(FieldDeadline::Clear),
        2 => Just(FieldDeadline::Keep),
        1 => (0i64..500).prop_map(|at| FieldDeadline::At(Timestamp(at))),
    ];
    prop_oneof![
        8 => (text(), text(), deadline).prop_map(|(field, value, at)| HashOp::Set(field, value, at)),
        1 => (0u16..900).prop_map(HashOp::SetRange),
        4 => text().prop_map(HashOp::Remove),
        1 => (0u16..900).prop_map(HashOp::RemoveRange),
        2 => (text(), 0i64..500).prop_map(|(field, at)| HashOp::Deadline(field, at)),
        1 => text().prop_map(HashOp::Persist),
        1 => (0i64..60).prop_map(HashOp::Later),
        1 => (0usize..40).prop_map(HashOp::Expire),
        1 => (0usize..1000).prop_map(HashOp::Sample),
        2 => Just(HashOp::Clone),
    ]
}

/// Values and deadlines, expired ones included.
type Fields = BTreeMap<Vec<u8>, (Vec<u8>, Option<Timestamp>)>;

fn live(fields: &Fields, now: Timestamp) -> Fields {
    let is_live = |at: Option<Timestamp>| at.is_none_or(|at| at > now);
    fields
        .iter()
        .filter(|(_, (_, at))| is_live(*at))
        .map(|(field, rest)| (field.clone(), rest.clone()))
        .collect()
}

fn listed(hash: &Hash, now: Timestamp) -> Fields {
    let entries: Vec<_> = hash.entries(now).collect();
    let fields: Fields = entries
        .iter()
        .map(|entry| (entry.field.to_vec(), (entry.value.to_vec(), entry.deadline)))
        .collect();
    assert_eq!(
        (fields.len(), hash.len_at(now), hash.iter(now).count()),
        (entries.len(), entries.len(), entries.len())
    );
    fields
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn hashes_behave_like_a_map_with_deadlines(
        ops in proptest::collection::vec(hash_op(), 0..80),
        packed in 0usize..64,
        seed in any::<u64>(),
    ) {
        let limits = hash::Limits { max_listpack_entries: packed, max_listpack_value: 64 };
        let mut random = generator(seed);
        let mut now = Timestamp(0);
        let mut hash = Hash::new();
        let mut model = Fields::new();
        let mut clones = Vec::new();
        for op in ops {
            match op {
                HashOp::Set(field, value, deadline) => {
                    let was = live(&model, now).remove(&field);
                    let at = match deadline {
                        FieldDeadline::Clear => None,
                        FieldDeadline::Keep => was.as_ref().and_then(|(_, at)| *at),
                        FieldDeadline::At(at) => Some(at),
                    };
                    prop_assert_eq!(hash.set(&field, &value, deadline, now, &limits), was.is_none());
                    model.insert(field, (value, at));
                }
                HashOp::SetRange(count) => {
                    for number in 0..i64::from(count) {
                        hash.set(number, number * 1000, FieldDeadline::Clear, now, &limits);
                        model.insert(number.to_string().into_bytes(), ((number * 1000).to_string().into_bytes(), None));
                    }
                }
                HashOp::Remove(field) => {
                    let there = live(&model, now).contains_key(&field);
                    prop_assert_eq!(hash.remove(&field, now), there);
                    if there {
                        model.remove(&field);
                    }
                }
                HashOp::RemoveRange(count) => {
                    for number in 0..i64::from(count) {
                        if hash.remove(number, now) {
                            prop_assert!(model.remove(number.to_string().as_bytes()).is_some());
                        }
                    }
                }
                HashOp::Deadline(field, at) => {
                    let there = live(&model, now).contains_key(&field);
                    prop_assert_eq!(hash.set_deadline(&field, Timestamp(at), now), there);
                    if there {
                        model.get_mut(&field).expect("there").1 = Some(Timestamp(at));
                        prop_assert_eq!(hash.encoding(), hash::Encoding::HashTable);
                    }
                }
                HashOp::Persist(field) => {
                    let had = live(&model, now).get(&field).is_some_and(|(_, at)| at.is_some());
                    prop_assert_eq!(hash.persist(&field, now), had);
                    if had {
                        model.get_mut(&field).expect("there").1 = None;
                    }
                }
                HashOp::Later(millis) => now = Timestamp(now.millis() + millis),
                HashOp::Expire(limit) => {
                    let expired = model.len() - live(&model, now).len();
                    let removed = hash.expire(now, limit, |field| {
                        let (_, at) = model.remove(&field.to_vec()).expect("was there");
                        assert!(at.is_some_and(|at| at <= now));
                    });
                    prop_assert_eq!(removed, expired.min(limit));
                }
                HashOp::Sample(count) => {
                    let expected = live(&model, now);
                    let mut sampled = HashMap::new();
                    hash.sample(count, now, &mut random, |field, value| {
                        assert!(sampled.insert(field.to_vec(), value.to_vec()).is_none());
                    });
                    prop_assert_eq!(sampled.len(), count.min(expected.len()));
                    prop_assert!(sampled.iter().all(|(field, value)| expected[field].0 == *value));
                }
                HashOp::Clone => clones.push((hash.clone(), model.clone())),
            }
            prop_assert_eq!(hash.len(), model.len());
            prop_assert_eq!(hash.expiring(), model.values().filter(|(_, at)| at.is_some()).count());
        }
        let expected = live(&model, now);
        prop_assert_eq!(&listed(&hash, now), &expected);
        prop_assert_eq!(hash.random(now, &mut random).is_none(), expected.is_empty());
        for (field, (value, at)) in &model {
            let there = expected.contains_key(field);
            prop_assert_eq!(hash.get(field, now), there.then_some(Element::new(value)));
            prop_assert_eq!(hash.deadline(field, now), there.then_some(*at));
        }
        let mut scanned = HashSet::new();
        let mut cursor = 0;
        loop {
            cursor = hash.scan(cursor, 7, now, |field, _| assert!(scanned.insert(field.to_vec())));
            if cursor == 0 {
                break;
            }
        }
        prop_assert!(scanned.len() == expected.len() && scanned.iter().all(|field| expected.contains_key(field)));
        for (clone, model) in clones {
            prop_assert_eq!(clone.len(), model.len());
            prop_assert_eq!(listed(&clone, START), live(&model, START));
        }
    }
}

#[test]
fn hash_encodings_change_when_clients_of_valkey_see_them_change() {
    use hash::Encoding::{HashTable, ListPack};
    let limits = hash::Limits::default();
    let mut hash = Hash::new();
    let set = |hash: &mut Hash, field: &[u8], value: &[u8]| {
        hash.set(field, value, FieldDeadline::Clear, START, &limits);
        hash.encoding()
    };
    for number in 0..512 {
        assert_eq!(
            set(&mut hash, format!("f{number}").as_bytes(), b"v"),
            ListPack
        );
    }
    assert_eq!(set(&mut hash, b"f1", b"other"), ListPack);
    assert_eq!(set(&mut hash, b"f512", b"v"), HashTable);
    hash.remove(b"f512", START);
    assert_eq!(hash.encoding(), HashTable, "never back");

    assert_eq!(set(&mut Hash::new(), b"f", &[b'x'; 64]), ListPack);
    assert_eq!(set(&mut Hash::new(), b"f", &[b'x'; 65]), HashTable);
    assert_eq!(set(&mut Hash::new(), &[b'x'; 65], b"v"), HashTable);

    let mut hash = Hash::new();
    hash.prepare(512, 4096, &limits);
    assert_eq!(hash.encoding(), ListPack);
    assert!(!hash.set_deadline(b"absent", Timestamp(5), START));
    assert_eq!(hash.encoding(), ListPack);
    set(&mut hash, b"f", b"v");
    assert!(hash.set_deadline(b"f", Timestamp(5), START));
    assert!(hash.persist(b"f", START) && !hash.persist(b"f", START));
    assert_eq!(
        hash.encoding(),
        HashTable,
        "deadlines need a table, and it stays one"
    );
    let mut hash = Hash::new();
    hash.prepare(513, 4096, &limits);
    assert_eq!(hash.encoding(), HashTable);
}

#[test]
fn expired_fields_count_until_removed_and_are_seen_by_nobody() {
    let limits = hash::Limits::default();
    let mut hash = Hash::new();
    for field in [&b"a"[..], b"b", b"c"] {
        hash.set(field, b"1", FieldDeadline::Clear, START, &limits);
    }
    hash.set_deadline(b"a", Timestamp(100), Timestamp(0));
    assert_eq!(hash.get(b"a", Timestamp(99)), Some(Element::Integer(1)));
    let now = Timestamp(100);
    assert_eq!((hash.len(), hash.len_at(now)), (3, 2));
    assert_eq!(
        (hash.get(b"a", now), hash.deadline(b"a", now)),
        (None, None)
    );
    assert!(!hash.remove(b"a", now), "nor removed by hand");
    assert!((0..100).all(|seed| {
        hash.random(now, &mut generator(seed))
            .is_some_and(|(field, _)| field != b"a".into())
    }));
    assert!(
        hash.clone()
            .set(b"a", b"2", FieldDeadline::Keep, now, &limits),
        "an expired field is new when set"
    );
    assert_eq!(hash.earliest_deadline(), Some(now));
    assert_eq!(
        hash.expire(now, 10, |field| assert_eq!(field, b"a".into())),
        1
    );
    assert_eq!(
        (hash.len(), hash.earliest_deadline(), hash.expiring()),
        (2, None, 0)
    );
}

#[test]
fn small_collections_take_one_word_and_one_block() {
    assert_eq!(
        (size_of::<Option<Set>>(), size_of::<Option<Hash>>()),
        (8, 8)
    );
    let mut hash = Hash::new();
    hash.prepare(5, 5 * 34, &hash::Limits::default());
    assert_eq!(hash.memory_bytes(), 192);
    for field in 0..5 {
        let field = format!("f{field}");
        hash.set(
            field.as_bytes(),
            &[b'v'; 32],
            FieldDeadline::Clear,
            START,
            &hash::Limits::default(),
        );
    }
    assert_eq!(hash.memory_bytes(), 192);
    let set = Set::from_members((0..10).map(Element::Integer), &set::Limits::default());
    assert!(set.memory_bytes() <= 32);
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&hash);
    shared(&set);
}
