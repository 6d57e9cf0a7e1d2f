//! Lists against `VecDeque` under random operations, with clones that must never change.

use std::collections::VecDeque;

use proptest::prelude::*;
use storage::value::list::{End, List, ListLimits, Side};

type Model = VecDeque<Vec<u8>>;

#[derive(Debug, Clone)]
enum Step {
    Push(End, Vec<u8>),
    PushMany(End, Vec<u8>, usize),
    Pop(End),
    PopMany(End, usize),
    Set(usize, Vec<u8>),
    InsertBeside(usize, Side, Vec<u8>),
    Remove(i64, usize),
    Trim(usize, usize),
    Range(usize, usize),
    Clone,
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(b'a'..b'd', 0..3),
        4 => (-300..300i64).prop_map(|number| number.to_string().into_bytes()),
        4 => (0..200usize, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
        2 => (0..10_000usize, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
        1 => any::<u8>().prop_map(|byte| vec![byte; 100_000]),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Front), Just(End::Back)]
}

fn step() -> impl Strategy<Value = Step> {
    let side = prop_oneof![Just(Side::Before), Just(Side::After)];
    prop_oneof![
        6 => (end(), value()).prop_map(|(end, value)| Step::Push(end, value)),
        3 => (end(), prop::collection::vec(b'a'..b'd', 0..40), 0..300usize)
            .prop_map(|(end, value, times)| Step::PushMany(end, value, times)),
        4 => end().prop_map(Step::Pop),
        2 => (end(), 0..200usize).prop_map(|(end, times)| Step::PopMany(end, times)),
        4 => (any::<usize>(), value()).prop_map(|(at, value)| Step::Set(at, value)),
        6 => (any::<usize>(), side, value()).prop_map(|(at, side, value)| Step::InsertBeside(at, side, value)),
        3 => (-5..5i64, any::<usize>()).prop_map(|(count, at)| Step::Remove(count, at)),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(start, end)| Step::Trim(start, end)),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(start, end)| Step::Range(start, end)),
        1 => Just(Step::Clone),
    ]
}

fn apply(step: Step, list: &mut List, model: &mut Model, limits: ListLimits) {
    let len = model.len();
    match step {
        Step::Push(end, value) => push(list, model, end, value, limits),
        Step::PushMany(end, value, times) => {
            (0..times).for_each(|_| push(list, model, end, value.clone(), limits))
        }
        Step::Pop(end) => pop(list, model, end, limits),
        Step::PopMany(end, times) => (0..times).for_each(|_| pop(list, model, end, limits)),
        Step::Set(at, value) => {
            let at = at % (len + 1);
            assert_eq!(list.set(at, &value, limits), at < len);
            if at < len {
                model[at] = value;
            }
        }
        Step::InsertBeside(at, side, value) => {
            let pivot = model
                .get(at % (len + 1))
                .cloned()
                .unwrap_or_else(|| b"nowhere".to_vec());
            let found = model.iter().position(|candidate| *candidate == pivot);
            assert_eq!(list.insert(side, &pivot, &value, limits), found.is_some());
            if let Some(found) = found {
                model.insert(found + usize::from(side == Side::After), value);
            }
        }
        Step::Remove(count, at) => {
            let value = model.get(at % (len + 1)).cloned().unwrap_or_default();
            assert_eq!(
                list.remove(count, &value, limits),
                remove_from_model(model, count, &value)
            );
        }
        Step::Trim(start, end) => {
            let (start, end) = (start % (len + 1), end % (len + 2));
            let kept: Model = model.iter().take(end).skip(start).cloned().collect();
            assert_eq!(list.trim(start..end, limits).len, len - kept.len());
            *model = kept;
        }
        Step::Range(start, end) => {
            let (start, end) = (start % (len + 1), end % (len + 2));
            let expected: Vec<_> = model.iter().take(end).skip(start).cloned().collect();
            let range = list.range(start..end);
            assert_eq!(range.len(), expected.len());
            assert!(
                range
                    .map(|element| element.to_vec())
                    .eq(expected.iter().cloned())
            );
            let reversed = list.range_rev(start..end);
            assert!(
                reversed
                    .map(|element| element.to_vec())
                    .eq(expected.iter().rev().cloned())
            );
        }
        Step::Clone => {}
    }
}

fn push(list: &mut List, model: &mut Model, end: End, value: Vec<u8>, limits: ListLimits) {
    list.push(end, &value, limits);
    match end {
        End::Front => model.push_front(value),
        End::Back => model.push_back(value),
    }
}

fn pop(list: &mut List, model: &mut Model, end: End, limits: ListLimits) {
    let expected = match end {
        End::Front => model.pop_front(),
        End::Back => model.pop_back(),
    };
    assert_eq!(list.pop(end, limits, |element| element.to_vec()), expected);
}

fn remove_from_model(model: &mut Model, count: i64, value: &[u8]) -> usize {
    let mut matches: Vec<usize> = (0..model.len()).filter(|&at| model[at] == value).collect();
    if count < 0 {
        matches.reverse();
    }
    if count != 0 {
        matches.truncate(count.unsigned_abs() as usize);
    }
    matches.sort_unstable();
    matches.iter().rev().for_each(|&at| drop(model.remove(at)));
    matches.len()
}

fn check(list: &List, model: &Model) {
    assert_eq!(list.len(), model.len());
    assert!(
        list.iter()
            .map(|element| element.to_vec())
            .eq(model.iter().cloned())
    );
    for at in [0, model.len() / 3, model.len() / 2, model.len()] {
        assert_eq!(
            list.get(at).map(|element| element.to_vec()),
            model.get(at).cloned()
        );
    }
    let payload: usize = model
        .iter()
        .map(|value| value.len().saturating_sub(20))
        .sum();
    assert!(list.memory_bytes() >= payload);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_list_is_a_deque_and_its_clones_never_change(
        setting in prop_oneof![Just(-2i64), Just(-1), Just(-5), Just(3), Just(0), Just(128)],
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let limits = ListLimits::new(setting);
        let (mut list, mut model) = (List::new(), Model::new());
        let mut clones = Vec::new();
        for step in steps {
            if matches!(step, Step::Clone) {
                clones.push((list.clone(), model.clone()));
            }
            apply(step, &mut list, &mut model, limits);
            check(&list, &model);
        }
        for (clone, then) in &clones {
            check(clone, then);
            prop_assert!(!list.is_same_version(clone) || model == *then);
        }
        prop_assert!(list.is_same_version(&list.clone()));
    }
}

#[test]
fn huge_counts_and_ranges_are_clamped() {
    let limits = ListLimits::DEFAULT;
    let mut list = List::from_values([b"a".as_slice(), b"b", b"a"], limits);
    assert_eq!(list.range(1..usize::MAX).len(), 2);
    assert_eq!(list.range(usize::MAX..usize::MAX).len(), 0);
    assert_eq!(list.range_rev(0..usize::MAX).len(), 3);
    assert_eq!(list.clone().remove(i64::MIN, b"a", limits), 2);
    assert_eq!(list.clone().remove(i64::MAX, b"a", limits), 2);
    assert_eq!(list.trim(2..usize::MAX, limits).len, 2);
    assert_eq!(list.trim(1..1, limits).len, 1);
    assert!(list.is_empty());
}
