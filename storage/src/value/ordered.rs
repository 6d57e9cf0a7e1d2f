//! A map in key order that is cheap to clone: a [`Tree`] of pairs, found by the last key below each child.
//!
//! Cloning is O(1); lookups, insertion and removal are O(log n), appending at the end likewise but with full leaves.

use std::{borrow::Borrow, cmp::Ordering};

use crate::value::tree::{Cursor, Item, Summary, Tree};

/// The map.
pub(crate) struct OrderedMap<K: Ord + Clone, V: Clone> {
    pairs: Tree<Pair<K, V>>,
}

#[derive(Clone)]
struct Pair<K, V> {
    key: K,
    value: V,
}

/// The last key of a run; none if the run is empty.
#[derive(Clone)]
struct LastKey<K>(Option<K>);

impl<K: Ord + Clone, V: Clone> OrderedMap<K, V> {
    pub(crate) const fn new() -> OrderedMap<K, V> {
        OrderedMap { pairs: Tree::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.at_or_after(key)
            .filter(|(_, pair)| pair.key.borrow() == key)
            .map(|(_, pair)| &pair.value)
    }

    pub(crate) fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Adds or replaces; returns the value that was there.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.at_or_after(&key) {
            Some((ordinal, pair)) if pair.key == key => Some(
                self.pairs
                    .update(ordinal, |pair| std::mem::replace(&mut pair.value, value)),
            ),
            Some((ordinal, _)) => {
                self.pairs.insert(ordinal, Pair { key, value });
                None
            }
            None => {
                self.pairs.push(Pair { key, value });
                None
            }
        }
    }

    /// Changes the value of `key` in place. None if there is no such key.
    pub(crate) fn update<Q: Ord + ?Sized, R>(
        &mut self,
        key: &Q,
        change: impl FnOnce(&mut V) -> R,
    ) -> Option<R>
    where
        K: Borrow<Q>,
    {
        let ordinal = self.ordinal(key)?;
        Some(self.pairs.update(ordinal, |pair| change(&mut pair.value)))
    }

    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let ordinal = self.ordinal(key)?;
        Some(self.pairs.remove(ordinal).value)
    }

    pub(crate) fn first(&self) -> Option<(&K, &V)> {
        self.pairs.get(0).map(|pair| (&pair.key, &pair.value))
    }

    pub(crate) fn last(&self) -> Option<(&K, &V)> {
        self.pairs.last().map(|pair| (&pair.key, &pair.value))
    }

    /// The pair at an ordinal.
    pub(crate) fn at(&self, ordinal: usize) -> Option<(&K, &V)> {
        self.pairs.get(ordinal).map(|pair| (&pair.key, &pair.value))
    }

    /// The ordinal of the last key that is not greater than `key`.
    pub(crate) fn ordinal_at_or_before(&self, key: &K) -> Option<usize> {
        match self.at_or_after(key) {
            Some((ordinal, pair)) if pair.key == *key => Some(ordinal),
            Some((ordinal, _)) => ordinal.checked_sub(1),
            None => self.len().checked_sub(1),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.pairs.iter().map(|pair| (&pair.key, &pair.value))
    }

    /// The pairs with keys not less than `start`, ascending.
    pub(crate) fn range_from<'m>(
        &'m self,
        start: &K,
    ) -> impl Iterator<Item = (&'m K, &'m V)> + use<'m, K, V> {
        let ordinal = self
            .at_or_after(start)
            .map_or(self.len(), |(ordinal, _)| ordinal);
        let mut cursor = Cursor::new(&self.pairs, ordinal);
        std::iter::from_fn(move || {
            let pair = cursor.item()?;
            cursor.advance();
            Some((&pair.key, &pair.value))
        })
    }

    /// About how many bytes the nodes take, not counting what keys and values own elsewhere. O(1).
    pub(crate) fn node_bytes(&self) -> usize {
        self.pairs.node_bytes()
    }

    fn ordinal<Q: Ord + ?Sized>(&self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        self.at_or_after(key)
            .filter(|(_, pair)| pair.key.borrow() == key)
            .map(|(ordinal, _)| ordinal)
    }

    fn at_or_after<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(usize, &Pair<K, V>)>
    where
        K: Borrow<Q>,
    {
        let reaches = |candidate: &K| candidate.borrow().cmp(key) != Ordering::Less;
        self.pairs.find(
            |last| last.0.as_ref().is_some_and(reaches),
            |pair| reaches(&pair.key),
        )
    }
}

impl<K: Ord + Clone, V: Clone> Clone for OrderedMap<K, V> {
    fn clone(&self) -> Self {
        OrderedMap {
            pairs: self.pairs.clone(),
        }
    }
}

impl<K: Ord + Clone, V: Clone> Item for Pair<K, V> {
    type Summary = LastKey<K>;
    const LEAF_MAX: usize = 32;

    fn summary(&self) -> LastKey<K> {
        LastKey(Some(self.key.clone()))
    }
}

impl<K: Ord + Clone> Summary for LastKey<K> {
    fn join(&self, right: &Self) -> Self {
        if right.0.is_some() {
            right.clone()
        } else {
            self.clone()
        }
    }

    fn adjusted(&self, _old: &Self, new: &Self, part_is_last: bool) -> Option<Self> {
        // Keys never change in place, so a part that is not the last cannot change the last key.
        Some(if part_is_last {
            new.clone()
        } else {
            self.clone()
        })
    }
}

impl<K> Default for LastKey<K> {
    fn default() -> Self {
        LastKey(None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_map_behaves_like_the_standard_one_and_its_clones_never_change(
            steps in prop::collection::vec((0..5u8, 0..200u16, any::<u8>()), 1..600),
        ) {
            let mut map = OrderedMap::new();
            let mut model = BTreeMap::new();
            let mut clones = Vec::new();
            for (kind, key, value) in steps {
                match kind {
                    0 | 1 => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    2 => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    3 => {
                        let changed = map.update(&key, |old| *old = value);
                        prop_assert_eq!(changed, model.get_mut(&key).map(|old| *old = value));
                    }
                    _ if value < 20 => clones.push((map.clone(), model.clone())),
                    _ => prop_assert!(map.range_from(&key).eq(model.range(key..))),
                }
                prop_assert_eq!(map.get(&key), model.get(&key));
                prop_assert_eq!(map.first(), model.first_key_value());
                prop_assert_eq!(map.last(), model.last_key_value());
                prop_assert_eq!(map.len(), model.len());
            }
            clones.push((map, model));
            for (map, model) in &clones {
                prop_assert!(map.iter().eq(model.iter()));
            }
        }
    }
}
