//! A sequence that is cheap to clone: a counted B+tree whose nodes are reference-counted and copied only when shared
//! and written.
//!
//! Every child pointer carries how many items lie below it and their joined [`Summary`], so that items are found by
//! ordinal or by anything a summary can tell (elements in a list, the last key of a map) in O(log n). A clone is one
//! reference count; the first write after it copies one path of nodes. Appending fills leaves completely; removal
//! merges neighbours that became small, but does not insist on half-full nodes.

use std::mem;

use smallvec::SmallVec;
use triomphe::Arc;

/// Children per inner node. Copying a shared node touches the reference count of each child, hence not larger.
const INNER_MAX: usize = 32;

/// Deeper than any tree that fits in memory; paths of this depth need no allocation.
const USUAL_DEPTH: usize = 6;

/// What a tree holds.
pub(crate) trait Item: Clone {
    type Summary: Summary;
    /// Items per leaf.
    const LEAF_MAX: usize;

    fn summary(&self) -> Self::Summary;
}

/// What is known about a run of items.
pub(crate) trait Summary: Clone + Default {
    /// The summary of this run followed by `right`.
    fn join(&self, right: &Self) -> Self;

    /// The summary after one part changed from `old` to `new`, if that can be told without looking at the other parts.
    fn adjusted(&self, old: &Self, new: &Self, part_is_last: bool) -> Option<Self>;
}

/// The sequence.
pub(crate) struct Tree<T: Item> {
    root: Option<Child<T>>,
}

struct Child<T: Item> {
    node: Arc<Node<T>>,
    len: usize,
    summary: T::Summary,
}

enum Node<T: Item> {
    Leaf(Vec<T>),
    Inner(Vec<Child<T>>),
}

impl<T: Item> Tree<T> {
    pub(crate) const fn new() -> Tree<T> {
        Tree { root: None }
    }

    /// Number of items. O(1).
    pub(crate) fn len(&self) -> usize {
        self.root.as_ref().map_or(0, |root| root.len)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Whether neither was changed since one was cloned from the other. O(1); may deny it where nothing differs.
    pub(crate) fn is_same_version(&self, other: &Tree<T>) -> bool {
        match (&self.root, &other.root) {
            (Some(one), Some(other)) => Arc::ptr_eq(&one.node, &other.node),
            (None, None) => true,
            _ => false,
        }
    }

    /// The summary of all items. O(1).
    pub(crate) fn summary(&self) -> T::Summary {
        self.root
            .as_ref()
            .map_or_else(T::Summary::default, |root| root.summary.clone())
    }

    /// The item at `ordinal`. O(log n).
    pub(crate) fn get(&self, mut ordinal: usize) -> Option<&T> {
        let mut child = self.root.as_ref()?;
        loop {
            match &*child.node {
                Node::Leaf(items) => return items.get(ordinal),
                Node::Inner(children) => child = &children[descend(children, &mut ordinal)],
            }
        }
    }

    pub(crate) fn last(&self) -> Option<&T> {
        self.get(self.len().checked_sub(1)?)
    }

    /// The first item at which `stops_at_item` says yes, with its ordinal. Whole runs are passed over while
    /// `stops_in_run` says no; the two must agree. O(log n).
    pub(crate) fn find(
        &self,
        mut stops_in_run: impl FnMut(&T::Summary) -> bool,
        mut stops_at_item: impl FnMut(&T) -> bool,
    ) -> Option<(usize, &T)> {
        let mut ordinal = 0;
        let mut child = self
            .root
            .as_ref()
            .filter(|root| stops_in_run(&root.summary))?;
        loop {
            match &*child.node {
                Node::Leaf(items) => {
                    let at = items.iter().position(&mut stops_at_item)?;
                    return Some((ordinal + at, &items[at]));
                }
                Node::Inner(children) => {
                    child = children.iter().find(|child| {
                        let stops = stops_in_run(&child.summary);
                        ordinal += if stops { 0 } else { child.len };
                        stops
                    })?;
                }
            }
        }
    }

    /// Changes the item at `ordinal`, which must exist. O(log n), and O(1) summaries if those can be adjusted.
    pub(crate) fn update<R>(&mut self, ordinal: usize, change: impl FnOnce(&mut T) -> R) -> R {
        let root = self
            .root
            .as_mut()
            .expect("callers pass the ordinal of an item");
        update(root, ordinal, change)
    }

    /// Puts `item` before the one at `ordinal`, or at the end if `ordinal` is the length. O(log n).
    pub(crate) fn insert(&mut self, ordinal: usize, item: T) {
        debug_assert!(ordinal <= self.len());
        let Some(root) = &mut self.root else {
            self.root = Some(Child::new(Node::Leaf(vec![item])));
            return;
        };
        if let Some(right) = insert(root, ordinal, item) {
            let left = self.root.take().expect("the root that was just split");
            self.root = Some(Child::new(Node::Inner(vec![left, right])));
        }
    }

    pub(crate) fn push(&mut self, item: T) {
        self.insert(self.len(), item);
    }

    /// Takes out the item at `ordinal`, which must exist. O(log n).
    pub(crate) fn remove(&mut self, ordinal: usize) -> T {
        let root = self
            .root
            .as_mut()
            .expect("callers pass the ordinal of an item");
        let item = remove(root, ordinal);
        self.collapse_root();
        item
    }

    /// Cuts off the items from `ordinal` on. O(log n), whatever the number of items.
    pub(crate) fn split_off(&mut self, ordinal: usize) -> Tree<T> {
        if ordinal >= self.len() {
            return Tree::new();
        }
        let mut right = Tree {
            root: self.root.as_mut().and_then(|root| split_off(root, ordinal)),
        };
        right.collapse_root();
        self.collapse_root();
        right
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let mut cursor = Cursor::new(self, 0);
        std::iter::from_fn(move || {
            let item = cursor.item();
            cursor.advance();
            item
        })
    }

    /// About how many bytes the nodes take, not counting what items own elsewhere. O(1).
    pub(crate) fn node_bytes(&self) -> usize {
        let leaf = size_of::<Node<T>>() + size_of::<Child<T>>() + size_of::<usize>();
        self.len() * size_of::<T>() + self.len().div_ceil(T::LEAF_MAX) * leaf
    }

    fn collapse_root(&mut self) {
        while let Some(root) = &self.root {
            match &*root.node {
                _ if root.len == 0 => self.root = None,
                Node::Inner(children) if children.len() == 1 => {
                    self.root = Some(children[0].clone())
                }
                _ => return,
            }
        }
    }
}

impl<T: Item> Clone for Tree<T> {
    fn clone(&self) -> Self {
        Tree {
            root: self.root.clone(),
        }
    }
}

impl<T: Item> Default for Tree<T> {
    fn default() -> Self {
        Tree::new()
    }
}

impl<T: Item> Clone for Child<T> {
    fn clone(&self) -> Self {
        Child {
            node: Arc::clone(&self.node),
            len: self.len,
            summary: self.summary.clone(),
        }
    }
}

impl<T: Item> Clone for Node<T> {
    fn clone(&self) -> Self {
        match self {
            Node::Leaf(items) => Node::Leaf(items.clone()),
            Node::Inner(children) => Node::Inner(children.clone()),
        }
    }
}

impl<T: Item> Child<T> {
    fn new(node: Node<T>) -> Child<T> {
        let (len, summary) = node.measure();
        Child {
            node: Arc::new(node),
            len,
            summary,
        }
    }

    fn remeasure(&mut self) {
        (self.len, self.summary) = self.node.measure();
    }
}

impl<T: Item> Node<T> {
    fn measure(&self) -> (usize, T::Summary) {
        let empty = T::Summary::default();
        match self {
            Node::Leaf(items) => (
                items.len(),
                items
                    .iter()
                    .fold(empty, |sum, item| sum.join(&item.summary())),
            ),
            Node::Inner(children) => children.iter().fold((0, empty), |(len, sum), child| {
                (len + child.len, sum.join(&child.summary))
            }),
        }
    }

    fn parts(&self) -> usize {
        match self {
            Node::Leaf(items) => items.len(),
            Node::Inner(children) => children.len(),
        }
    }

    const fn max_parts(&self) -> usize {
        match self {
            Node::Leaf(_) => T::LEAF_MAX,
            Node::Inner(_) => INNER_MAX,
        }
    }
}

/// The child that holds `ordinal`, the last one if none does; `ordinal` becomes relative to it.
fn descend<T: Item>(children: &[Child<T>], ordinal: &mut usize) -> usize {
    for (at, child) in children.iter().enumerate() {
        if *ordinal < child.len {
            return at;
        }
        *ordinal -= child.len;
    }
    let last = children.len() - 1;
    *ordinal += children[last].len;
    last
}

fn update<T: Item, R>(
    child: &mut Child<T>,
    mut ordinal: usize,
    change: impl FnOnce(&mut T) -> R,
) -> R {
    let (old, new, part_is_last, result) = match Arc::make_mut(&mut child.node) {
        Node::Leaf(items) => {
            let part_is_last = ordinal + 1 == items.len();
            let item = &mut items[ordinal];
            let old = item.summary();
            let result = change(item);
            (old, item.summary(), part_is_last, result)
        }
        Node::Inner(children) => {
            let at = descend(children, &mut ordinal);
            let part_is_last = at + 1 == children.len();
            let old = children[at].summary.clone();
            let result = update(&mut children[at], ordinal, change);
            (old, children[at].summary.clone(), part_is_last, result)
        }
    };
    match child.summary.adjusted(&old, &new, part_is_last) {
        Some(summary) => child.summary = summary,
        None => child.remeasure(),
    }
    result
}

/// Returns the right half if the node had to be split.
fn insert<T: Item>(child: &mut Child<T>, mut ordinal: usize, item: T) -> Option<Child<T>> {
    let right = match Arc::make_mut(&mut child.node) {
        Node::Leaf(items) => insert_or_split(items, T::LEAF_MAX, ordinal, item).map(Node::Leaf),
        Node::Inner(children) => {
            let at = descend(children, &mut ordinal);
            insert(&mut children[at], ordinal, item)
                .and_then(|right| insert_or_split(children, INNER_MAX, at + 1, right))
                .map(Node::Inner)
        }
    };
    child.remeasure();
    right.map(Child::new)
}

/// A full node is cut in the middle, or at the end where the new part goes, so that growth at an end leaves full nodes.
fn insert_or_split<P>(parts: &mut Vec<P>, max: usize, at: usize, part: P) -> Option<Vec<P>> {
    if parts.len() < max {
        if parts.len() == parts.capacity() {
            parts.reserve_exact(parts.len().max(2).min(max - parts.len()));
        }
        parts.insert(at, part);
        return None;
    }
    let cut = match at {
        0 => 0,
        _ if at == max => max,
        _ => max / 2,
    };
    let mut right = if cut == 0 {
        mem::take(parts)
    } else {
        parts.split_off(cut)
    };
    if at < cut || cut == 0 {
        parts.insert(at, part);
    } else {
        right.insert(at - cut, part);
    }
    Some(right)
}

fn remove<T: Item>(child: &mut Child<T>, mut ordinal: usize) -> T {
    let item = match Arc::make_mut(&mut child.node) {
        Node::Leaf(items) => {
            let item = items.remove(ordinal);
            if items.len() <= items.capacity() / 4 {
                items.shrink_to(items.len() * 2);
            }
            item
        }
        Node::Inner(children) => {
            let at = descend(children, &mut ordinal);
            let item = remove(&mut children[at], ordinal);
            if children[at].len == 0 {
                children.remove(at);
            } else {
                merge_if_small(children, at);
            }
            item
        }
    };
    child.remeasure();
    item
}

/// Joins the child with a neighbour if it is less than a quarter full and both together leave room to grow.
fn merge_if_small<T: Item>(children: &mut Vec<Child<T>>, at: usize) {
    let max = children[at].node.max_parts();
    if children[at].node.parts() >= max / 4 {
        return;
    }
    let fits = |left: usize| {
        left + 1 < children.len()
            && children[left].node.parts() + children[left + 1].node.parts() <= max * 3 / 4
    };
    let Some(left) = [Some(at), at.checked_sub(1)]
        .into_iter()
        .flatten()
        .find(|&left| fits(left))
    else {
        return;
    };
    let right = children.remove(left + 1);
    match (
        Arc::make_mut(&mut children[left].node),
        Arc::unwrap_or_clone(right.node),
    ) {
        (Node::Leaf(items), Node::Leaf(more)) => items.extend(more),
        (Node::Inner(inner), Node::Inner(more)) => inner.extend(more),
        _ => unreachable!("siblings are at the same height"),
    }
    children[left].remeasure();
}

/// `ordinal` is below the child's length. The child may be left empty.
fn split_off<T: Item>(child: &mut Child<T>, mut ordinal: usize) -> Option<Child<T>> {
    let right = match Arc::make_mut(&mut child.node) {
        Node::Leaf(items) => Node::Leaf(items.split_off(ordinal)),
        Node::Inner(children) => {
            let at = descend(children, &mut ordinal);
            let mut right = children.split_off(at);
            match split_off(&mut right[0], ordinal) {
                Some(tail) => {
                    let head = mem::replace(&mut right[0], tail);
                    if head.len > 0 {
                        children.push(head);
                    }
                }
                None => children.push(right.remove(0)),
            }
            Node::Inner(right)
        }
    };
    child.remeasure();
    Some(Child::new(right)).filter(|right| right.len > 0)
}

/// The children of a node on the way, and which of them was taken.
type Step<'a, T> = (&'a [Child<T>], usize);

/// A place in a tree that moves both ways in amortised O(1).
pub(crate) struct Cursor<'a, T: Item> {
    path: SmallVec<[Step<'a, T>; USUAL_DEPTH]>,
    leaf: &'a [T],
    /// The item; the leaf's length if the cursor is past the last item; `usize::MAX` if before the first.
    at: usize,
}

impl<'a, T: Item> Cursor<'a, T> {
    /// A cursor at the item at `ordinal`, or past the last one. O(log n).
    pub(crate) fn new(tree: &'a Tree<T>, mut ordinal: usize) -> Cursor<'a, T> {
        let mut cursor = Cursor {
            path: SmallVec::new(),
            leaf: &[],
            at: 0,
        };
        let Some(mut child) = tree.root.as_ref() else {
            return cursor;
        };
        loop {
            match &*child.node {
                Node::Leaf(items) => {
                    cursor.leaf = items;
                    cursor.at = ordinal.min(items.len());
                    return cursor;
                }
                Node::Inner(children) => {
                    let at = descend(children, &mut ordinal);
                    cursor.path.push((children, at));
                    child = &children[at];
                }
            }
        }
    }

    pub(crate) fn item(&self) -> Option<&'a T> {
        self.leaf.get(self.at)
    }

    pub(crate) fn advance(&mut self) {
        self.at = self.at.wrapping_add(1);
        if self.at < self.leaf.len() {
            return;
        }
        let Some(depth) = self
            .path
            .iter()
            .rposition(|(children, at)| at + 1 < children.len())
        else {
            self.at = self.leaf.len();
            return;
        };
        self.path.truncate(depth + 1);
        self.path[depth].1 += 1;
        self.enter(|_| 0);
        self.at = 0;
    }

    pub(crate) fn retreat(&mut self) {
        if self.at == usize::MAX {
            return;
        }
        self.at = self.at.wrapping_sub(1);
        if self.at != usize::MAX {
            return;
        }
        let Some(depth) = self.path.iter().rposition(|&(_, at)| at > 0) else {
            return;
        };
        self.path.truncate(depth + 1);
        self.path[depth].1 -= 1;
        self.enter(|len| len - 1);
        self.at = self.leaf.len() - 1;
    }

    /// Goes down from the end of the path to a leaf, taking the child that `choose` picks of so many.
    fn enter(&mut self, choose: impl Fn(usize) -> usize) {
        while let Some(&(children, at)) = self.path.last() {
            match &*children[at].node {
                Node::Leaf(items) => {
                    self.leaf = items;
                    return;
                }
                Node::Inner(inner) => self.path.push((inner, choose(inner.len()))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Item for u32 {
        type Summary = u64;
        const LEAF_MAX: usize = 4;

        fn summary(&self) -> u64 {
            u64::from(*self)
        }
    }

    impl Summary for u64 {
        fn join(&self, right: &u64) -> u64 {
            self + right
        }

        fn adjusted(&self, old: &u64, new: &u64, _part_is_last: bool) -> Option<u64> {
            old.is_multiple_of(2).then(|| self - old + new)
        }
    }

    #[derive(Debug, Clone)]
    enum Change {
        Insert(usize, u32),
        Push(u32),
        Update(usize, u32),
        Remove(usize),
        SplitKeepLeft(usize),
        SplitKeepRight(usize),
        Clone,
    }

    fn step() -> impl Strategy<Value = Change> {
        prop_oneof![
            6 => (any::<usize>(), 0..100u32).prop_map(|(at, value)| Change::Insert(at, value)),
            6 => (0..100u32).prop_map(Change::Push),
            2 => (any::<usize>(), 0..100u32).prop_map(|(at, value)| Change::Update(at, value)),
            7 => any::<usize>().prop_map(Change::Remove),
            1 => any::<usize>().prop_map(Change::SplitKeepLeft),
            1 => any::<usize>().prop_map(Change::SplitKeepRight),
            1 => Just(Change::Clone),
        ]
    }

    fn check(tree: &Tree<u32>, model: &[u32]) {
        assert_eq!(tree.len(), model.len());
        assert_eq!(
            tree.summary(),
            model.iter().map(|&value| u64::from(value)).sum::<u64>()
        );
        assert!(tree.iter().eq(model.iter()));
        let mut cursor = Cursor::new(tree, model.len());
        for value in model.iter().rev() {
            cursor.retreat();
            assert_eq!(cursor.item(), Some(value));
        }
        cursor.retreat();
        assert_eq!(cursor.item(), None);
        cursor.advance();
        assert_eq!(cursor.item(), model.first());
        let mut passed = 0;
        let half = tree.summary() / 2;
        let passed_cell = std::cell::Cell::new(0u64);
        let found = tree.find(
            |&sum| {
                passed_cell.get() + sum > half || {
                    passed_cell.set(passed_cell.get() + sum);
                    false
                }
            },
            |&value| {
                let value = u64::from(value);
                passed_cell.get() + value > half || {
                    passed_cell.set(passed_cell.get() + value);
                    false
                }
            },
        );
        let expected = model.iter().position(|&value| {
            passed += u64::from(value);
            passed > half
        });
        assert_eq!(found.map(|(at, _)| at), expected);
    }

    proptest! {
        #[test]
        fn a_tree_is_a_sequence_and_its_clones_never_change(steps in prop::collection::vec(step(), 1..400)) {
            let mut tree = Tree::new();
            let mut model: Vec<u32> = Vec::new();
            let mut clones = Vec::new();
            for step in steps {
                let len = model.len();
                match step {
                    Change::Insert(at, value) => {
                        model.insert(at % (len + 1), value);
                        tree.insert(at % (len + 1), value);
                    }
                    Change::Push(value) => {
                        model.push(value);
                        tree.push(value);
                    }
                    Change::Update(at, value) if len > 0 => {
                        model[at % len] = value;
                        tree.update(at % len, |item| *item = value);
                    }
                    Change::Remove(at) if len > 0 => {
                        prop_assert_eq!(model.remove(at % len), tree.remove(at % len));
                    }
                    Change::SplitKeepLeft(at) => {
                        let right = tree.split_off(at % (len + 1));
                        check(&right, &model.split_off(at % (len + 1)));
                    }
                    Change::SplitKeepRight(at) => {
                        let right = tree.split_off(at % (len + 1));
                        let right_model = model.split_off(at % (len + 1));
                        check(&tree, &model);
                        (tree, model) = (right, right_model);
                    }
                    Change::Clone => clones.push((tree.clone(), model.clone())),
                    _ => {}
                }
                check(&tree, &model);
            }
            for (tree, model) in &clones {
                check(tree, model);
            }
        }
    }
}
