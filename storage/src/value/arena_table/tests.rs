//! The table against `HashMap`, with its inner sums and invariants checked along the way.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

impl ArenaTable {
    /// Asserts what must hold of the sums and the directories.
    fn check(&self) {
        let mut sums = Sums {
            len: 0,
            expiring: 0,
            bytes: 0,
            earliest: NEVER,
        };
        let mut add = |segment: &Segment| {
            segment.check();
            let of = Sums::of(segment);
            sums.len += of.len;
            sums.expiring += of.expiring;
            sums.bytes += of.bytes;
            sums.earliest = sums.earliest.min(of.earliest);
        };
        match &self.body {
            Body::Tiny(segment) => add(segment),
            Body::Small(segment) => add(segment),
            Body::Large(root) => {
                root.check();
                let chunks = root.chunks.slots().iter().flatten();
                chunks
                    .flat_map(|chunk| chunk.segments.slots())
                    .flatten()
                    .for_each(|segment| add(segment));
            }
        }
        assert_eq!(
            (sums.len, sums.expiring, sums.bytes),
            (self.len, self.expiring, self.segment_bytes)
        );
        assert!(self.earliest <= sums.earliest);
    }

    fn to_model(&self) -> Model {
        let of = |entry: Entry<'_>| (entry.field.to_vec(), (entry.value.to_vec(), entry.deadline));
        let model: Model = self.iter().map(of).collect();
        assert_eq!(model.len(), self.iter().len());
        model
    }
}

type Model = HashMap<Vec<u8>, (Vec<u8>, Option<Timestamp>)>;

/// A small generator, so that long runs can be repeated.
fn generator(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert(Vec<u8>, Vec<u8>, Option<i64>),
    /// This many fields with values of this length.
    InsertMany(u16, usize),
    Remove(Vec<u8>),
    RemoveMany(u16),
    Deadline(Vec<u8>, Option<i64>),
    Expire(i64, usize),
    Clone,
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (0u16..1500).prop_map(numbered),
        1 => any::<i64>().prop_map(|integer| integer.to_string().into_bytes()),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => (1000usize..1100).prop_map(|len| vec![b'l'; len]),
        1 => proptest::sample::select(vec![&b"007"[..], b"-0", b"+1", b"", b"9223372036854775808"]).prop_map(<[u8]>::to_vec),
    ]
}

fn numbered(number: u16) -> Vec<u8> {
    if number.is_multiple_of(3) {
        number.to_string().into_bytes()
    } else {
        format!("field:{number}").into_bytes()
    }
}

fn deadline() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![
        4 => Just(None),
        4 => (0i64..1000).prop_map(Some),
        1 => any::<i64>().prop_map(|at| Some(at.min(i64::MAX - 1))),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (text(), text(), deadline()).prop_map(|(field, value, at)| Op::Insert(field, value, at)),
        2 => (0u16..1500, 0usize..1400).prop_map(|(count, len)| Op::InsertMany(count, len)),
        5 => text().prop_map(Op::Remove),
        2 => (0u16..1500).prop_map(Op::RemoveMany),
        4 => (text(), deadline()).prop_map(|(field, at)| Op::Deadline(field, at)),
        2 => (0i64..1000, 0usize..50).prop_map(|(now, limit)| Op::Expire(now, limit)),
        2 => Just(Op::Clone),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_hash_map(ops in proptest::collection::vec(op(), 0..60)) {
        let mut table = ArenaTable::new(Shape::Pairs);
        let mut model = Model::new();
        let mut clones = Vec::new();
        for op in ops {
            match op {
                Op::Insert(field, value, at) => {
                    let at = at.map(Timestamp);
                    let is_new = table.insert(Element::new(&field), Element::new(&value), at);
                    prop_assert_eq!(is_new, model.insert(field, (value, at)).is_none());
                }
                Op::InsertMany(count, len) => {
                    for number in 0..count {
                        let value = vec![number as u8; (len + usize::from(number)) % (len + 1)];
                        table.insert(Element::new(&numbered(number)), Element::new(&value), None);
                        model.insert(numbered(number), (value, None));
                    }
                }
                Op::Remove(field) => {
                    prop_assert_eq!(table.remove(Element::new(&field)), model.remove(&field).is_some());
                }
                Op::RemoveMany(count) => {
                    for number in 0..count {
                        let removed = table.remove(Element::new(&numbered(number)));
                        prop_assert_eq!(removed, model.remove(&numbered(number)).is_some());
                    }
                }
                Op::Deadline(field, at) => {
                    let at = at.map(Timestamp);
                    let there = table.set_deadline(Element::new(&field), at);
                    prop_assert_eq!(there, model.contains_key(&field));
                    if let Some(entry) = model.get_mut(&field) {
                        entry.1 = at;
                    }
                }
                Op::Expire(now, limit) => {
                    let now = Timestamp(now);
                    let is_expired = |at: &Option<Timestamp>| at.is_some_and(|at| at <= now);
                    let expired = model.values().filter(|(_, at)| is_expired(at)).count();
                    let mut shown = Vec::new();
                    let removed = table.expire(now, limit, |entry| shown.push(entry.field.to_vec()));
                    prop_assert_eq!((removed, shown.len()), (expired.min(limit), removed));
                    for field in shown {
                        let gone = model.remove(&field);
                        prop_assert!(gone.is_some_and(|(_, at)| is_expired(&at)));
                    }
                    if removed < limit {
                        prop_assert!(table.earliest_deadline().is_none_or(|at| at > now));
                    }
                }
                Op::Clone => clones.push((table.clone(), model.clone())),
            }
            table.check();
            prop_assert_eq!(table.len(), model.len());
            prop_assert_eq!(table.expiring(), model.values().filter(|(_, at)| at.is_some()).count());
        }
        prop_assert_eq!(table.to_model(), model.clone());
        for (field, (value, at)) in &model {
            let entry = table.get(Element::new(field)).expect("in the model");
            prop_assert_eq!((entry.value, entry.deadline), (Element::new(value), *at));
        }
        for (clone, model) in clones {
            clone.check();
            prop_assert_eq!(clone.to_model(), model);
        }
    }
}

#[test]
fn grows_to_many_chunks_and_shrinks_to_nothing() {
    const LEN: u32 = 200_000;
    let member = |number: u32| format!("member-{number:09}").into_bytes();
    let mut table = ArenaTable::new(Shape::Members);
    for number in 0..LEN {
        assert!(table.add(Element::new(&member(number))));
    }
    table.check();
    assert!(matches!(&table.body, Body::Large(root) if root.chunks.slots().len() >= 4));
    let full = table.clone();
    for number in 0..LEN {
        assert!(!table.add(Element::new(&member(number))));
        assert!(table.remove(Element::new(&member(number))));
        if number % 16_384 == 0 {
            table.check();
        }
    }
    table.check();
    assert!(matches!(table.body, Body::Tiny(_)));
    assert!(table.is_empty() && table.iter().next().is_none() && table.memory_bytes() <= 192);
    full.check();
    assert_eq!(full.len(), LEN as usize);
    assert!((0..LEN).all(|number| full.contains(Element::new(&member(number)))));
}

#[test]
fn members_cost_little_more_than_their_text() {
    for (len, limit) in [(200_000u32, 27), (125_000, 25), (250_000, 25)] {
        let mut set = ArenaTable::new(Shape::Members);
        let mut hash = ArenaTable::new(Shape::Pairs);
        for number in 0..len {
            let field = format!("{number:015}x").into_bytes();
            set.add(Element::new(&field));
            hash.insert(Element::new(&field), Element::new(&[b'v'; 32]), None);
        }
        let per_member = set.memory_bytes() / len as usize;
        assert!(
            per_member <= limit,
            "{len}: {per_member} bytes per 16-byte member"
        );
        let per_field = hash.memory_bytes() / len as usize;
        assert!(
            per_field <= 62,
            "{len}: {per_field} bytes per field of 16 and 32 bytes"
        );
    }
}

#[test]
fn overwriting_does_not_let_holes_pile_up() {
    let mut table = ArenaTable::new(Shape::Pairs);
    let mut random = generator(3);
    for _ in 0..300_000 {
        let field = (random() % 5000).to_string().into_bytes();
        let value = vec![b'v'; (random() % 60) as usize];
        table.insert(Element::new(&field), Element::new(&value), None);
    }
    table.check();
    let payload: usize = table
        .iter()
        .map(|entry| entry.field.text_len() + entry.value.text_len())
        .sum();
    assert!(
        table.memory_bytes() < payload * 2 + table.len() * 16,
        "{} for {payload}",
        table.memory_bytes()
    );
}

#[test]
fn large_text_is_kept_once_however_often_the_table_is_cloned() {
    let large = vec![b'x'; 100_000];
    let mut table = ArenaTable::new(Shape::Pairs);
    table.insert(
        Element::new(&large),
        Element::new(&large),
        Some(Timestamp(5)),
    );
    for number in 0..1000i64 {
        table.insert(Element::Integer(number), Element::new(&large[..2000]), None);
    }
    let clone = table.clone();
    for number in 0..1000i64 {
        table.insert(Element::Integer(number), Element::Integer(number), None);
    }
    assert!(table.remove(Element::new(&large)));
    table.check();
    clone.check();
    assert!(table.memory_bytes() < 40_000);
    let entry = clone.get(Element::new(&large)).expect("the clone keeps it");
    assert_eq!(
        (entry.value, entry.deadline),
        (Element::Text(&large), Some(Timestamp(5)))
    );
    assert!(clone.iter().all(|entry| entry.value.text_len() >= 2000));
}

#[test]
fn scans_see_what_stays_once_while_the_rest_comes_and_goes() {
    let mut random = generator(11);
    for round in 0..12 {
        let stable = [1, 15, 60, 300, 3000, 30_000][round % 6];
        let mut table = ArenaTable::new(Shape::Members);
        for number in 0..stable {
            table.add(Element::new(format!("stable:{number}").as_bytes()));
        }
        let churn = 40_000 / (1 + round as u64);
        let mut seen: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut cursor = 0;
        let mut calls = 0;
        loop {
            let budget = [1, 10, 100, 1000][(random() % 4) as usize] * (1 + stable / 3000);
            let mut visited = 0;
            cursor = table.scan(cursor, budget, |entry| {
                visited += 1;
                *seen.entry(entry.field.to_vec()).or_default() += 1;
            });
            assert!(visited <= budget + 2, "visits no more than asked for");
            calls += 1;
            if cursor == 0 {
                break;
            }
            assert!(cursor < 1 << 48 && calls < 100_000);
            // Grows to many times its size, then is emptied, in turns.
            let grows = (calls / 8) % 2 == 0;
            for number in 0..random() % 2000 {
                let name = format!(
                    "churn:{}",
                    if grows { random() % churn } else { number * 20 }
                );
                if grows {
                    table.add(Element::new(name.as_bytes()))
                } else {
                    table.remove(Element::new(name.as_bytes()))
                };
            }
        }
        table.check();
        for number in 0..stable {
            assert_eq!(
                seen.get(format!("stable:{number}").as_bytes()),
                Some(&1),
                "stable:{number} of {stable}"
            );
        }
    }
}

#[test]
fn a_scan_of_any_cursor_ends() {
    let mut table = ArenaTable::new(Shape::Members);
    for number in 0..5000 {
        table.add(Element::Integer(number));
    }
    for cursor in [u64::MAX, 1 << 48, (1 << 48) - 1, 1 << 47, 12345] {
        let mut cursor = cursor;
        let mut calls = 0;
        loop {
            cursor = table.scan(cursor, usize::MAX, |_| {});
            calls += 1;
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(calls, 1);
    }
}

#[test]
fn every_entry_is_drawn_equally_often() {
    // Of a table that grew and shrank, so that segments are unevenly filled.
    for (added, kept) in [(3000i64, 500i64), (90_000, 400), (20, 20), (60, 50)] {
        let mut table = ArenaTable::new(Shape::Members);
        for number in 0..added {
            table.add(Element::Integer(number));
        }
        for number in kept..added {
            table.remove(Element::Integer(number));
        }
        let mut random = generator(kept as u64);
        let mut counts = vec![0i64; kept as usize];
        let draws = 200 * kept;
        for _ in 0..draws {
            let drawn = table
                .random(&mut random)
                .and_then(|entry| entry.field.integer());
            counts[drawn.expect("not empty") as usize] += 1;
        }
        // 200 each with a standard deviation of 14; six of them.
        assert!(
            counts.iter().all(|count| (116..284).contains(count)),
            "{added} {kept}: {counts:?}"
        );
    }
}

#[test]
fn expiry_over_many_chunks_is_complete_and_leaves_clones_alone() {
    const LEN: i64 = 150_000;
    let mut table = ArenaTable::new(Shape::Pairs);
    for number in 0..LEN {
        let at = (number % 3 != 0).then_some(Timestamp(number % 1000));
        table.insert(Element::Integer(number), Element::new(b"value"), at);
    }
    let clone = table.clone();
    let mut gone = HashSet::new();
    for now in (0..1000).step_by(100) {
        let mut calls = 0;
        while table
            .earliest_deadline()
            .is_some_and(|at| at <= Timestamp(now))
        {
            table.expire(Timestamp(now), 5000, |entry| {
                assert!(entry.is_expired(Timestamp(now)));
                gone.insert(entry.field.to_vec());
            });
            calls += 1;
            assert!(calls < 100);
        }
        let expected = (0..LEN)
            .filter(|number| number % 3 != 0 && number % 1000 <= now)
            .count();
        assert_eq!(gone.len(), expected);
        table.check();
    }
    assert_eq!(table.len(), LEN as usize - gone.len());
    clone.check();
    assert_eq!((clone.len(), clone.expiring()), (LEN as usize, 100_000));
}
