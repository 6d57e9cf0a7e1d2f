//! Any bytes as operations on a hash, a set and a list, which begin as packed buffers, beside the collections of the
//! standard library.

#![no_main]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use libfuzzer_sys::fuzz_target;
use storage::{
    rdb::Limits,
    time::Timestamp,
    value::{
        Settings,
        element::{Element, Scratch},
        hash::{FieldDeadline, Hash},
        list::{End, List},
        set::Set,
    },
};

fn text(element: Element<'_>) -> Vec<u8> {
    element.bytes(&mut Scratch::new()).to_vec()
}

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::from(&Settings::default());
    let (mut hash, mut set, mut list) = (Hash::new(), Set::new(), List::new());
    let mut pairs = BTreeMap::new();
    let mut members = BTreeSet::new();
    let mut items = VecDeque::new();
    let mut rest = bytes;
    while let [operation, len, tail @ ..] = rest {
        let word = &tail[..usize::from(*len).min(tail.len())];
        rest = &tail[word.len()..];
        let element = Element::new(word);
        match operation % 7 {
            0 | 1 => {
                let value = &word[word.len() / 2..];
                let is_new = hash.set(
                    element,
                    Element::new(value),
                    FieldDeadline::Clear,
                    Timestamp::MIN,
                    &limits.hash,
                );
                let known = pairs.insert(word.to_vec(), value.to_vec());
                assert_eq!(is_new, known.is_none());
            }
            2 => assert_eq!(
                set.add(element, &limits.set),
                members.insert(word.to_vec())
            ),
            3 => assert_eq!(set.remove(element), members.remove(word)),
            4 => {
                list.push(End::Back, word, limits.list);
                items.push_back(word.to_vec());
            }
            5 => {
                list.push(End::Front, word, limits.list);
                items.push_front(word.to_vec());
            }
            _ => assert_eq!(
                hash.remove(element, Timestamp::MIN),
                pairs.remove(word).is_some()
            ),
        }
    }
    assert_eq!(hash.len(), pairs.len());
    for (field, value) in &pairs {
        let found = hash.get(Element::new(field), Timestamp::MIN).map(text);
        assert_eq!(found.as_ref(), Some(value));
    }
    assert!(set.iter().map(text).collect::<BTreeSet<_>>() == members);
    assert!(list.iter().map(text).collect::<VecDeque<_>>() == items);
});
