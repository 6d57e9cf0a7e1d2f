//! A stream against a standard map, and clones against later writes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
type Model = BTreeMap<Id, Pairs>;

const LIMITS: BlockLimits = BlockLimits {
    max_bytes: 300,
    max_entries: 5,
};

fn contents<'s>(entries: impl Iterator<Item = Entry<'s>>) -> Vec<(Id, Pairs)> {
    entries
        .map(|entry| {
            let pairs = entry
                .pairs()
                .map(|(field, value)| (field.to_vec(), value.to_vec()));
            (entry.id, pairs.collect())
        })
        .collect()
}

fn check(stream: &Stream, model: &Model) {
    let all: Vec<_> = model
        .iter()
        .map(|(id, pairs)| (*id, pairs.clone()))
        .collect();
    assert_eq!(stream.len(), model.len());
    assert_eq!(contents(stream.range(MIN_ID, MAX_ID)), all);
    let mut back = contents(stream.range_back(MIN_ID, MAX_ID));
    back.reverse();
    assert_eq!(back, all);
    let first = model.keys().next().copied().unwrap_or(MIN_ID);
    assert_eq!(stream.first_id(), first);
}

proptest! {
    #[test]
    fn a_stream_behaves_like_a_map_and_its_clones_never_change(
        steps in prop::collection::vec((0..10u8, 0..3u64, 0..60u64, prop::collection::vec(("[ab]", "[a-z0-9]{0,20}"), 1..4)), 1..200),
    ) {
        let mut stream = Stream::new();
        let mut model = Model::new();
        let mut clones: Vec<(Stream, Model)> = Vec::new();
        for (step, ms, number, pairs) in steps {
            match step {
                0..5 => {
                    let id = if ms == 0 {
                        (stream.last_id.0, stream.last_id.1 + number + 1)
                    } else {
                        (stream.last_id.0 + ms, number)
                    };
                    let texts = pairs.iter().map(|(field, value)| (field.as_bytes(), value.as_bytes()));
                    stream.append(id, texts.clone(), LIMITS);
                    model.insert(id, texts.map(|(field, value)| (field.to_vec(), value.to_vec())).collect());
                }
                5 | 6 => {
                    let id = model.keys().nth(number as usize).copied().unwrap_or((ms, number));
                    prop_assert_eq!(stream.delete(id), model.remove(&id).is_some());
                }
                7 => {
                    let max_len = number as usize;
                    let excess = model.len().saturating_sub(max_len);
                    let trim = Trim { keep: Keep::MaxLen(max_len), approximate: false, limit: 0 };
                    prop_assert_eq!(stream.trim(trim), excess);
                    (0..excess).for_each(|_| { model.pop_first(); });
                }
                8 => {
                    let min_id = (ms * 20, number);
                    let before = model.len();
                    model.retain(|id, _| *id >= min_id);
                    let trim = Trim { keep: Keep::MinId(min_id), approximate: false, limit: 0 };
                    prop_assert_eq!(stream.trim(trim), before - model.len());
                }
                _ => clones.push((stream.clone(), model.clone())),
            }
            let (start, end) = ((ms * 10, number), (ms * 10 + 20, number));
            let expected: Vec<_> = model.range(start..=end).map(|(id, pairs)| (*id, pairs.clone())).collect();
            prop_assert_eq!(contents(stream.range(start, end)), expected.clone());
            let mut back = contents(stream.range_back(start, end));
            back.reverse();
            prop_assert_eq!(back, expected);
        }
        check(&stream, &model);
        clones.iter().for_each(|(stream, model)| check(stream, model));
    }

    #[test]
    fn groups_keep_both_views_of_what_is_pending_alike(
        steps in prop::collection::vec((0..6u8, 0..3usize, 1..12u64), 1..200),
    ) {
        let mut group = Group::new(MIN_ID, None);
        let mut model: BTreeMap<Id, usize> = BTreeMap::new();
        let names = [b"a", b"b", b"c"];
        for (step, who, number) in steps {
            let id = (number, 1);
            match step {
                0..3 => {
                    group.create_consumer(names[who], 1);
                    group.assign(id, names[who], 1, 1);
                    model.insert(id, who);
                }
                3 | 4 => prop_assert_eq!(group.acknowledge(id), model.remove(&id).is_some()),
                _ => {
                    group.delete_consumer(names[who]);
                    model.retain(|_, owner| *owner != who);
                }
            }
            let pending: Vec<_> = group.pending_from(MIN_ID).map(|(id, pending)| (id, pending.consumer.to_vec())).collect();
            let expected: Vec<_> = model.iter().map(|(id, who)| (*id, names[*who].to_vec())).collect();
            prop_assert_eq!(pending, expected);
            for (index, name) in names.iter().enumerate() {
                let own: Vec<Id> = group.consumer(*name).map(|consumer| consumer.pending_from(MIN_ID).collect()).unwrap_or_default();
                let expected: Vec<Id> = model.iter().filter(|(_, who)| **who == index).map(|(id, _)| *id).collect();
                prop_assert_eq!(own, expected);
            }
        }
    }
}
