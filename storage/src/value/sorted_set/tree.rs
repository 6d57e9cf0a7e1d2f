//! The inner nodes: which leaf holds which entries, and how many lie before it.
//!
//! A node keeps, per child, the number of entries below it, and between neighbours a fence: a score and as much of a
//! member as tells the two sides apart, nothing at all where the scores differ. Nodes are shared with clones until
//! written.
//!
//! Leaves are sized to what they hold, so that a split leaf wastes no memory and the tree needs no tight packing to be
//! small: leaves split in halves (or by one entry where entries are appended), and join when two would fit well into
//! one. Balance follows from splitting at the root only; that a node has few children costs nothing but its own bytes.

use std::{cmp::Ordering, ops::Range};

use smallvec::SmallVec;
use triomphe::Arc;

use super::{
    block::{Block, ENTRY_BYTES, Entry, Part, Room},
    leaves::Leaves,
    member_index::{MemberIndex, fingerprint},
};

/// What a leaf may hold: small enough that an edit moves 2 KiB at most, on average one.
pub(super) const LEAF_ROOM: Room = Room {
    entries: 128,
    bytes: 4080,
};

/// What two leaves may hold together to become one.
const MERGED_ROOM: Room = Room {
    entries: 96,
    bytes: 3060,
};

/// A leaf of less looks for a neighbour to join.
const SPARSE_ROOM: Room = Room {
    entries: 32,
    bytes: 1020,
};

/// What a bulk build puts into a leaf.
const BUILT_ROOM: Room = Room {
    entries: 112,
    bytes: 3570,
};

/// Children of a node before it splits. A leaf becomes three at most, so that a node's vectors never exceed 64.
const MAX_CHILDREN: usize = 62;
const MERGED_CHILDREN: usize = 46;
const SPARSE_CHILDREN: usize = 16;
const BUILT_CHILDREN: usize = 48;

/// The child to take at each level, from the root to a leaf.
pub(super) struct Path {
    pub(super) steps: SmallVec<[u8; 8]>,
    pub(super) leaf: u32,
    edge: Edge,
}

/// Whether a leaf is the first or last of the tree.
#[derive(Clone, Copy)]
struct Edge {
    first: bool,
    last: bool,
}

/// What the nodes' entries live in; edits of the tree keep it up to date.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) leaves: Leaves,
    pub(super) index: MemberIndex,
    /// Heap bytes of all inner nodes.
    pub(super) inner_bytes: usize,
}

#[derive(Clone)]
pub(super) struct Inner {
    fences: Fences,
    counts: Vec<u64>,
    children: Children,
}

#[derive(Clone)]
enum Children {
    Leaves(Vec<u32>),
    Inners(Vec<Arc<Inner>>),
}

/// The fence at `i` is greater than all entries of child `i`, and not greater than any of child `i + 1`.
#[derive(Clone, Default)]
struct Fences {
    scores: Vec<f64>,
    members: Vec<Box<[u8]>>,
    text_bytes: usize,
}

struct Fence {
    score: f64,
    member: Box<[u8]>,
}

/// A new right neighbour of a node that was split.
struct Sibling {
    fence: Fence,
    count: u64,
    node: Arc<Inner>,
}

/// A leaf that was split: its parts in order.
type Pieces = SmallVec<[(u32, u64); 3]>;

/// The root over these leaves, which are in order and not empty.
pub(super) fn build(leaves: &[u32], store: &mut Store) -> Arc<Inner> {
    let mut level: Vec<(Fence, u64, Arc<Inner>)> = Vec::new();
    let mut previous = None;
    for ids in leaves.chunks(BUILT_CHILDREN) {
        let mut fences = Fences::default();
        let fence = Fence::between(
            previous.map(|leaf| store.leaves.get(leaf)),
            store.leaves.get(ids[0]),
        );
        for pair in ids.windows(2) {
            let (left, right) = (store.leaves.get(pair[0]), store.leaves.get(pair[1]));
            fences.insert(fences.len(), Fence::between(Some(left), right));
        }
        let counts: Vec<_> = ids
            .iter()
            .map(|leaf| store.leaves.get(*leaf).len() as u64)
            .collect();
        let count = counts.iter().sum();
        let node = Inner {
            fences,
            counts,
            children: Children::Leaves(ids.to_vec()),
        };
        store.inner_bytes += node.heap_bytes();
        level.push((fence, count, Arc::new(node)));
        previous = ids.last().copied();
    }
    while level.len() > 1 {
        let mut above = Vec::with_capacity(level.len().div_ceil(BUILT_CHILDREN));
        let mut below = level.into_iter().peekable();
        while below.peek().is_some() {
            let mut group = below.by_ref().take(BUILT_CHILDREN);
            let (fence, count, first) = group.next().expect("peeked");
            let mut fences = Fences::default();
            let (mut counts, mut children) = (vec![count], vec![first]);
            for (fence, count, child) in group {
                fences.insert(fences.len(), fence);
                counts.push(count);
                children.push(child);
            }
            let count = counts.iter().sum();
            let node = Inner {
                fences,
                counts,
                children: Children::Inners(children),
            };
            store.inner_bytes += node.heap_bytes();
            above.push((fence, count, Arc::new(node)));
        }
        level = above;
    }
    let (_, _, root) = level.pop().expect("there is a leaf");
    root
}

/// Cuts entries in order into leaves for [`build`].
pub(super) fn fill_leaves(entries: &[Entry<'_>], leaves: &mut Leaves) -> Vec<u32> {
    let mut ids = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let mut text_bytes = 0;
        let taken = rest.iter().enumerate().take_while(|(before, entry)| {
            text_bytes += entry.member.len();
            BUILT_ROOM.fits(before + 1, text_bytes)
        });
        let (these, others) = rest.split_at(taken.count());
        let parts: Vec<_> = these.iter().map(|entry| Part::One(*entry)).collect();
        ids.push(leaves.add(Block::assemble(&parts)));
        rest = others;
    }
    ids
}

/// The leaf where an entry is or belongs.
#[inline]
pub(super) fn path_to(root: &Inner, score: f64, member: &[u8]) -> Path {
    Path::descend(root, |node| node.fences.not_after(score, member))
}

/// The leaf of the entry with this rank, and its place there.
pub(super) fn path_at(root: &Inner, rank: usize) -> (Path, usize) {
    let mut rest = rank as u64;
    let path = Path::descend(root, |node| node.child_at(&mut rest));
    (path, rest as usize)
}

/// As [`path_at`], for reading.
#[inline]
pub(super) fn leaf_at(root: &Inner, rank: usize) -> (u32, usize) {
    let mut rest = rank as u64;
    let mut node = root;
    loop {
        let at = node.child_at(&mut rest);
        match &node.children {
            Children::Leaves(leaves) => return (leaves[at], rest as usize),
            Children::Inners(nodes) => node = &nodes[at],
        }
    }
}

/// How many entries are less than this one, which is in the set.
#[inline]
pub(super) fn rank(root: &Inner, leaves: &Leaves, score: f64, member: &[u8]) -> usize {
    let (before, leaf) = descend_counting(root, |fences| fences.not_after(score, member));
    let at = match leaves.get(leaf).find(score, member) {
        Ok(at) | Err(at) => at,
    };
    before + at
}

/// How many entries are `before`, which must hold for a prefix of them.
pub(super) fn partition_point(
    root: &Inner,
    leaves: &Leaves,
    before: &impl Fn(f64, &[u8]) -> bool,
) -> usize {
    let (count, leaf) = descend_counting(root, |fences| fences.partition_point(before));
    count + leaves.get(leaf).partition_point(before)
}

/// Adds an entry to the leaf that `path` leads to; returns the leaf that it ends up in. The member index is told about
/// entries that change leaves, not about this one.
pub(super) fn insert(
    root: &mut Arc<Inner>,
    store: &mut Store,
    path: &Path,
    entry: Entry<'_>,
) -> u32 {
    let (leaf, sibling) = insert_below(root, store, &path.steps, path.edge, entry);
    if let Some(sibling) = sibling {
        let left_count = root.counts.iter().sum();
        let mut fences = Fences::default();
        fences.insert(0, sibling.fence);
        let node = Inner {
            fences,
            counts: vec![left_count, sibling.count],
            children: Children::Inners(vec![root.clone(), sibling.node]),
        };
        store.inner_bytes += node.heap_bytes();
        *root = Arc::new(node);
    }
    leaf
}

/// Removes entries of one leaf; at least one must be left in the tree. The member index is not told about them.
/// Whether other paths may have become others.
pub(super) fn remove(
    root: &mut Arc<Inner>,
    store: &mut Store,
    path: &Path,
    range: Range<usize>,
) -> bool {
    let is_reshaped = remove_below(root, store, &path.steps, range);
    while let Children::Inners(nodes) = &root.children
        && let [only] = nodes.as_slice()
    {
        let only = only.clone();
        store.inner_bytes -= root.heap_bytes();
        *root = only;
    }
    is_reshaped
}

#[inline]
fn descend_counting(root: &Inner, choose: impl Fn(&Fences) -> usize) -> (usize, u32) {
    let (mut before, mut node) = (0, root);
    loop {
        let at = choose(&node.fences);
        before += node.counts[..at].iter().sum::<u64>();
        match &node.children {
            Children::Leaves(leaves) => return (before as usize, leaves[at]),
            Children::Inners(nodes) => node = &nodes[at],
        }
    }
}

fn insert_below(
    node: &mut Arc<Inner>,
    store: &mut Store,
    steps: &[u8],
    edge: Edge,
    entry: Entry<'_>,
) -> (u32, Option<Sibling>) {
    store.inner_bytes -= node.heap_bytes();
    let inner = Arc::make_mut(node);
    let at = usize::from(steps[0]);
    let landed = match &mut inner.children {
        Children::Leaves(leaves) => {
            let (landed, pieces) = store.insert_into_leaf(leaves[at], edge, entry);
            match pieces {
                None => inner.counts[at] += 1,
                Some(pieces) => inner.replace_leaf(at, &pieces, &store.leaves),
            }
            landed
        }
        Children::Inners(nodes) => {
            let (landed, sibling) = insert_below(&mut nodes[at], store, &steps[1..], edge, entry);
            inner.counts[at] += 1;
            if let Some(sibling) = sibling {
                inner.counts[at] -= sibling.count;
                inner.fences.insert(at, sibling.fence);
                inner.counts.insert(at + 1, sibling.count);
                nodes.insert(at + 1, sibling.node);
            }
            landed
        }
    };
    let sibling = (inner.len() > MAX_CHILDREN).then(|| {
        let sibling = inner.split(match edge {
            Edge { last: true, .. } => inner.len() - 1,
            Edge { first: true, .. } => 1,
            _ => inner.len() / 2,
        });
        store.inner_bytes += sibling.node.heap_bytes();
        sibling
    });
    store.inner_bytes += inner.heap_bytes();
    (landed, sibling)
}

/// Whether nodes or leaves were removed, joined or shared anew.
fn remove_below(
    node: &mut Arc<Inner>,
    store: &mut Store,
    steps: &[u8],
    range: Range<usize>,
) -> bool {
    store.inner_bytes -= node.heap_bytes();
    let inner = Arc::make_mut(node);
    let at = usize::from(steps[0]);
    inner.counts[at] -= range.len() as u64;
    let is_reshaped = match &mut inner.children {
        Children::Leaves(leaves) => {
            let leaf = leaves[at];
            if inner.counts[at] == 0 {
                store.leaves.free(leaf);
                inner.remove_child(at);
                true
            } else {
                store.leaves.edit(leaf, |block| block.remove(range));
                inner.merge_leaf(at, store)
            }
        }
        Children::Inners(nodes) => {
            let is_reshaped = remove_below(&mut nodes[at], store, &steps[1..], range);
            match nodes[at].len() {
                0 => {
                    store.inner_bytes -= nodes[at].heap_bytes();
                    inner.remove_child(at);
                    true
                }
                1..SPARSE_CHILDREN => {
                    inner.rebalance(at, store);
                    true
                }
                _ => is_reshaped,
            }
        }
    };
    store.inner_bytes += inner.heap_bytes();
    is_reshaped
}

impl Path {
    #[inline]
    fn descend(root: &Inner, mut choose: impl FnMut(&Inner) -> usize) -> Self {
        let mut steps = SmallVec::new();
        let mut edge = Edge {
            first: true,
            last: true,
        };
        let mut node = root;
        loop {
            let at = choose(node);
            steps.push(at as u8);
            edge.first &= at == 0;
            edge.last &= at + 1 == node.len();
            match &node.children {
                Children::Leaves(leaves) => {
                    let leaf = leaves[at];
                    return Path { steps, leaf, edge };
                }
                Children::Inners(nodes) => node = &nodes[at],
            }
        }
    }
}

impl Inner {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    /// O(1). Fences' members are counted as they are, without their size classes.
    pub(super) fn heap_bytes(&self) -> usize {
        let children = match &self.children {
            Children::Leaves(leaves) => leaves.capacity() * size_of::<u32>(),
            Children::Inners(nodes) => nodes.capacity() * size_of::<Arc<Inner>>(),
        };
        let counts = self.counts.capacity() * size_of::<u64>();
        8 + size_of::<Self>() + self.fences.heap_bytes() + counts + children
    }

    /// The child with the entry that is `rest` entries on from the first, and how many on it is there.
    #[inline]
    fn child_at(&self, rest: &mut u64) -> usize {
        let mut at = 0;
        while *rest >= self.counts[at] {
            *rest -= self.counts[at];
            at += 1;
        }
        at
    }

    fn replace_leaf(&mut self, at: usize, pieces: &[(u32, u64)], leaves: &Leaves) {
        let Children::Leaves(ids) = &mut self.children else {
            unreachable!("called where children are leaves");
        };
        ids.splice(at..=at, pieces.iter().map(|piece| piece.0));
        self.counts
            .splice(at..=at, pieces.iter().map(|piece| piece.1));
        for (offset, pair) in pieces.windows(2).enumerate() {
            let (left, right) = (leaves.get(pair[0].0), leaves.get(pair[1].0));
            self.fences
                .insert(at + offset, Fence::between(Some(left), right));
        }
    }

    fn remove_child(&mut self, at: usize) {
        self.counts.remove(at);
        match &mut self.children {
            Children::Leaves(leaves) => drop(leaves.remove(at)),
            Children::Inners(nodes) => drop(nodes.remove(at)),
        }
        if self.fences.len() > 0 {
            self.fences.remove(at.saturating_sub(1));
        }
    }

    /// Splits off the children from `at` on.
    fn split(&mut self, at: usize) -> Sibling {
        let counts = self.counts.split_off(at);
        let count = counts.iter().sum();
        let (fence, fences) = self.fences.split(at - 1);
        let children = match &mut self.children {
            Children::Leaves(leaves) => Children::Leaves(leaves.split_off(at)),
            Children::Inners(nodes) => Children::Inners(nodes.split_off(at)),
        };
        let node = Arc::new(Inner {
            fences,
            counts,
            children,
        });
        Sibling { fence, count, node }
    }

    /// Appends the children of a right neighbour.
    fn join(&mut self, fence: Fence, mut right: Inner) {
        self.fences.insert(self.fences.len(), fence);
        self.fences.append(&mut right.fences);
        self.counts.append(&mut right.counts);
        match (&mut self.children, &mut right.children) {
            (Children::Leaves(left), Children::Leaves(right)) => left.append(right),
            (Children::Inners(left), Children::Inners(right)) => left.append(right),
            _ => unreachable!("all leaves are at one depth"),
        }
    }

    /// Joins a sparse leaf with a neighbour if they fit into one well. Whether it did.
    fn merge_leaf(&mut self, at: usize, store: &mut Store) -> bool {
        let Children::Leaves(ids) = &mut self.children else {
            unreachable!("called where children are leaves");
        };
        let block = store.leaves.get(ids[at]);
        if !SPARSE_ROOM.fits(block.len(), block.text_bytes()) {
            return false;
        }
        let fits = |left: &usize| {
            let (left, right) = (
                store.leaves.get(ids[*left]),
                store.leaves.get(ids[left + 1]),
            );
            MERGED_ROOM.fits(
                left.len() + right.len(),
                left.text_bytes() + right.text_bytes(),
            )
        };
        let pairs = [at.checked_sub(1), (at + 1 < ids.len()).then_some(at)];
        let Some(left) = pairs.into_iter().flatten().find(fits) else {
            return false;
        };
        let survivor = store.merge_leaves(ids[left], ids[left + 1]);
        ids[left] = survivor;
        self.counts[left] += self.counts[left + 1];
        self.remove_child(left + 1);
        true
    }

    /// Joins a node of few children with a neighbour, or shares their children evenly.
    fn rebalance(&mut self, at: usize, store: &mut Store) {
        let Children::Inners(nodes) = &mut self.children else {
            unreachable!("called where children are nodes");
        };
        if nodes.len() == 1 {
            return;
        }
        let left = at.saturating_sub(1);
        let right_node = nodes.remove(left + 1);
        store.inner_bytes -= nodes[left].heap_bytes() + right_node.heap_bytes();
        let fence = self.fences.remove(left);
        self.counts[left] += self.counts.remove(left + 1);

        let left_node = Arc::make_mut(&mut nodes[left]);
        left_node.join(fence, Arc::unwrap_or_clone(right_node));
        if left_node.len() > MERGED_CHILDREN {
            let sibling = left_node.split(left_node.len() / 2);
            store.inner_bytes += sibling.node.heap_bytes();
            self.counts[left] -= sibling.count;
            self.counts.insert(left + 1, sibling.count);
            self.fences.insert(left, sibling.fence);
            nodes.insert(left + 1, sibling.node);
        }
        store.inner_bytes += nodes[left].heap_bytes();
    }

    /// Checks order, counts and fences; appends the leaves in order and returns the number of entries.
    #[cfg(test)]
    pub(super) fn check(
        &self,
        store: &Store,
        ids: &mut Vec<u32>,
        inner_bytes: &mut usize,
    ) -> (usize, usize) {
        *inner_bytes += self.heap_bytes();
        assert!((1..=MAX_CHILDREN).contains(&self.len()));
        assert_eq!(self.fences.len() + 1, self.len());
        let text_bytes: usize = self.fences.members.iter().map(|member| member.len()).sum();
        assert_eq!(text_bytes, self.fences.text_bytes);
        let (mut len, mut height) = (0, 0);
        for at in 0..self.len() {
            let first_leaf = ids.len();
            let count = match &self.children {
                Children::Leaves(leaves) => {
                    let block = store.leaves.get(leaves[at]);
                    assert!(LEAF_ROOM.fits(block.len(), block.text_bytes()));
                    ids.push(leaves[at]);
                    block.len()
                }
                Children::Inners(nodes) => {
                    let below = nodes[at].check(store, ids, inner_bytes);
                    assert!(height == 0 || height == below.1);
                    height = below.1;
                    below.0
                }
            };
            assert!(count > 0);
            assert_eq!(count as u64, self.counts[at]);
            len += count;
            for leaf in &ids[first_leaf..] {
                let block = store.leaves.get(*leaf);
                for entry in (0..block.len()).map(|place| block.entry(place)) {
                    if at > 0 {
                        assert!(self.fences.is_not_after(at - 1, entry.score, entry.member));
                    }
                    if at < self.fences.len() {
                        assert!(!self.fences.is_not_after(at, entry.score, entry.member));
                    }
                }
            }
        }
        (len, height + 1)
    }
}

impl Fences {
    #[inline]
    fn len(&self) -> usize {
        self.scores.len()
    }

    fn heap_bytes(&self) -> usize {
        let members = self.members.capacity() * size_of::<Box<[u8]>>();
        self.scores.capacity() * size_of::<f64>() + members + self.text_bytes
    }

    /// How many fences are not after this entry: the child where it is or belongs.
    #[inline]
    fn not_after(&self, score: f64, member: &[u8]) -> usize {
        let below: u64 = self
            .scores
            .iter()
            .map(|fence| u64::from(*fence < score))
            .sum();
        let below = below as usize;
        if self.scores.get(below) != Some(&score) {
            return below;
        }
        let ties = self.scores[below..].partition_point(|fence| *fence == score);
        let members = &self.members[below..below + ties];
        below + members.partition_point(|fence| **fence <= *member)
    }

    fn partition_point(&self, before: &impl Fn(f64, &[u8]) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if before(self.scores[middle], &self.members[middle]) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn insert(&mut self, at: usize, fence: Fence) {
        self.text_bytes += fence.member.len();
        self.scores.insert(at, fence.score);
        self.members.insert(at, fence.member);
    }

    fn remove(&mut self, at: usize) -> Fence {
        let score = self.scores.remove(at);
        let member = self.members.remove(at);
        self.text_bytes -= member.len();
        Fence { score, member }
    }

    /// Takes the fence at `at` out and splits off those behind it.
    fn split(&mut self, at: usize) -> (Fence, Fences) {
        let members = self.members.split_off(at + 1);
        let behind = Fences {
            scores: self.scores.split_off(at + 1),
            text_bytes: members.iter().map(|member| member.len()).sum(),
            members,
        };
        self.text_bytes -= behind.text_bytes;
        (self.remove(at), behind)
    }

    fn append(&mut self, behind: &mut Fences) {
        self.scores.append(&mut behind.scores);
        self.members.append(&mut behind.members);
        self.text_bytes += behind.text_bytes;
    }

    #[cfg(test)]
    fn is_not_after(&self, at: usize, score: f64, member: &[u8]) -> bool {
        self.scores[at] < score || self.scores[at] == score && *self.members[at] <= *member
    }
}

impl Fence {
    /// The shortest fence between two neighbours; before everything if there is no left one.
    fn between(left: Option<&Block>, right: &Block) -> Self {
        let score = right.score(0);
        let Some(left) = left.filter(|left| left.score(left.len() - 1) == score) else {
            return Fence {
                score,
                member: Box::default(),
            };
        };
        let (last, first) = (left.member(left.len() - 1), right.member(0));
        let common = last
            .iter()
            .zip(first)
            .take_while(|(last, first)| last == first)
            .count();
        debug_assert_eq!(last.cmp(first), Ordering::Less);
        Fence {
            score,
            member: first[..=common].into(),
        }
    }
}

impl Store {
    fn insert_into_leaf(
        &mut self,
        leaf: u32,
        edge: Edge,
        entry: Entry<'_>,
    ) -> (u32, Option<Pieces>) {
        let block = self.leaves.get(leaf);
        let at = match block.find(entry.score, entry.member) {
            Ok(at) | Err(at) => at,
        };
        if LEAF_ROOM.fits(block.len() + 1, block.text_bytes() + entry.member.len()) {
            self.leaves.edit(leaf, |block| block.insert(at, entry));
            return (leaf, None);
        }
        let groups = split_plan(block, at, edge, entry);
        let (landed, pieces) = self.split_leaf(leaf, groups, entry);
        (landed, Some(pieces))
    }

    /// Makes a leaf of each group. The one with the most old entries keeps the number, so that few change it.
    fn split_leaf(&mut self, leaf: u32, groups: Groups, entry: Entry<'_>) -> (u32, Pieces) {
        let block = self.leaves.get(leaf).clone();
        let keeper = (0..groups.len()).max_by_key(|group| groups[*group].old_len());
        let (mut landed, mut pieces) = (leaf, Pieces::new());
        for (number, group) in groups.iter().enumerate() {
            let piece = group.assemble(&block, entry);
            let len = piece.len() as u64;
            let id = if keeper == Some(number) {
                self.leaves.edit(leaf, |block| *block = piece);
                leaf
            } else {
                self.add_piece(piece, leaf, group.has_new.then_some(group.before.len()))
            };
            if group.has_new {
                landed = id;
            }
            pieces.push((id, len));
        }
        (landed, pieces)
    }

    /// Adds a leaf whose entries were in the leaf `from`, but for the one at `new`.
    fn add_piece(&mut self, piece: Block, from: u32, new: Option<usize>) -> u32 {
        let id = self.leaves.add(piece);
        let piece = self.leaves.get(id);
        for at in (0..piece.len()).filter(|at| Some(*at) != new) {
            self.index.repoint(fingerprint(piece.member(at)), from, id);
        }
        id
    }

    /// Puts the entries of two neighbours into one leaf and returns its number, that of the greater one.
    fn merge_leaves(&mut self, left: u32, right: u32) -> u32 {
        let (first, second) = (self.leaves.get(left), self.leaves.get(right));
        let merged = Block::assemble(&[
            Part::Run(first, 0..first.len()),
            Part::Run(second, 0..second.len()),
        ]);
        let (survivor, absorbed) = match first.len() >= second.len() {
            true => (left, right),
            false => (right, left),
        };
        let block = self.leaves.get(absorbed);
        for at in 0..block.len() {
            self.index
                .repoint(fingerprint(block.member(at)), absorbed, survivor);
        }
        self.leaves.free(absorbed);
        self.leaves.edit(survivor, |block| *block = merged);
        survivor
    }
}

/// One of the leaves that a full one becomes: old entries, perhaps the new one, old entries.
struct Group {
    before: Range<usize>,
    has_new: bool,
    after: Range<usize>,
}

type Groups = SmallVec<[Group; 3]>;

impl Group {
    fn old_len(&self) -> usize {
        self.before.len() + self.after.len()
    }

    fn assemble(&self, block: &Block, entry: Entry<'_>) -> Block {
        if self.old_len() == block.len() && !self.has_new {
            return block.clone();
        }
        let mut parts: SmallVec<[Part<'_>; 3]> = SmallVec::new();
        parts.push(Part::Run(block, self.before.clone()));
        if self.has_new {
            parts.push(Part::One(entry));
        }
        parts.push(Part::Run(block, self.after.clone()));
        Block::assemble(&parts)
    }
}

/// How to split a leaf that has no room for an entry at `at`.
///
/// In halves by bytes. Where entries are appended or prepended to the whole tree the new one stands alone instead, so
/// that the leaves left behind stay full; and if a long member leaves no other way, between what is around it.
fn split_plan(block: &Block, at: usize, edge: Edge, entry: Entry<'_>) -> Groups {
    let len = block.len();
    let alone = |at: usize| {
        let old = |range: Range<usize>| Group {
            before: range,
            has_new: false,
            after: 0..0,
        };
        let new = Group {
            before: at..at,
            has_new: true,
            after: at..at,
        };
        let groups = [old(0..at), new, old(at..len)];
        groups
            .into_iter()
            .filter(|group| group.has_new || !group.before.is_empty())
            .collect()
    };
    if edge.last && at == len || edge.first && at == 0 || len == 1 {
        return alone(at);
    }
    let added = entry.member.len();
    // How many of the `len + 1` entries, the new one among them, go left.
    let bytes_before = |cut: usize| {
        let old = if cut > at { cut - 1 } else { cut };
        let new_text = if cut > at { added } else { 0 };
        cut * ENTRY_BYTES + block.text_before(old) + new_text
    };
    let half = bytes_before(len + 1) / 2;
    let cut = (1..len)
        .find(|cut| bytes_before(*cut) >= half)
        .unwrap_or(len);
    let (left, right) = if cut > at {
        let left = Group {
            before: 0..at,
            has_new: true,
            after: at..cut - 1,
        };
        (
            left,
            Group {
                before: cut - 1..len,
                has_new: false,
                after: len..len,
            },
        )
    } else {
        let left = Group {
            before: 0..cut,
            has_new: false,
            after: cut..cut,
        };
        (
            left,
            Group {
                before: cut..at,
                has_new: true,
                after: at..len,
            },
        )
    };
    let left_bytes = bytes_before(cut);
    let right_bytes = bytes_before(len + 1) - left_bytes;
    let fits =
        |entries: usize, bytes: usize| LEAF_ROOM.fits(entries, bytes - entries * ENTRY_BYTES);
    if !fits(cut, left_bytes) || !fits(len + 1 - cut, right_bytes) {
        return alone(at);
    }
    SmallVec::from_iter([left, right])
}
