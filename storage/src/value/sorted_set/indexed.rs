//! A sorted set that has outgrown one block: the tree for order and rank, the member index for finding a member.
//!
//! A member is found by its hash: the index names the leaf, the leaf has the member and its score. With the score the
//! tree says the rank, and where to edit. The entries themselves exist once, in the leaves.

use std::{collections::BTreeSet, ops::Range};

use smallvec::SmallVec;
use triomphe::Arc;

use super::{
    BuildError,
    block::{Block, Entry, tag},
    leaves::Leaves,
    member_index::{MemberIndex, fingerprint, slot, slot_fingerprint},
    tree::{self, Inner, Store},
};

#[derive(Clone)]
pub(super) struct Indexed {
    root: Arc<Inner>,
    store: Store,
    len: usize,
    /// Within the limits that clients set for the packed encoding, which then is what they are told; only too big for
    /// one block.
    pub(super) is_nominally_packed: bool,
}

/// Where a member is.
pub(super) struct Place {
    pub(super) score: f64,
    leaf: u32,
    at: usize,
}

impl Indexed {
    /// Of entries in order, at least one and all different.
    ///
    /// # Errors
    /// [`BuildError::DuplicateMember`].
    pub(super) fn build(
        entries: &[Entry<'_>],
        is_nominally_packed: bool,
    ) -> Result<Self, BuildError> {
        let mut leaves = Leaves::new();
        let ids = tree::fill_leaves(entries, &mut leaves);
        let mut slots = Vec::with_capacity(entries.len());
        for id in &ids {
            let block = leaves.get(*id);
            let fingerprints = (0..block.len()).map(|at| fingerprint(block.member(at)));
            slots.extend(fingerprints.map(|fingerprint| slot(fingerprint, *id)));
        }
        slots.sort_unstable();
        let index = MemberIndex::from_sorted(&slots);
        let mut store = Store {
            leaves,
            index,
            inner_bytes: 0,
        };
        let root = tree::build(&ids, &mut store);
        let set = Indexed {
            root,
            store,
            len: entries.len(),
            is_nominally_packed,
        };
        match set.has_duplicates(&slots) {
            true => Err(BuildError::DuplicateMember),
            false => Ok(set),
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// See [`super::SortedSet::is_same_version`]. Every change is one of a leaf.
    pub(super) fn is_same_version(&self, other: &Indexed) -> bool {
        self.store.leaves.is_same_version(&other.store.leaves)
    }

    /// O(1).
    pub(super) fn heap_bytes(&self) -> usize {
        self.store.leaves.heap_bytes() + self.store.index.heap_bytes() + self.store.inner_bytes
    }

    #[inline]
    pub(super) fn find(&self, fingerprint: u32, member: &[u8]) -> Option<Place> {
        self.store.index.candidates(fingerprint).find_map(|leaf| {
            let block = self.store.leaves.get(leaf);
            let at = block.find_member(tag(fingerprint), member)?;
            let score = block.score(at);
            Some(Place { score, leaf, at })
        })
    }

    pub(super) fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        let place = self.find(fingerprint(member), member)?;
        let rank = tree::rank(&self.root, &self.store.leaves, place.score, member);
        Some((rank, place.score))
    }

    pub(super) fn partition_point(&self, before: &impl Fn(f64, &[u8]) -> bool) -> usize {
        tree::partition_point(&self.root, &self.store.leaves, before)
    }

    /// The block with the entry of this rank, which there must be, and the place in it.
    #[inline]
    pub(super) fn block_at(&self, rank: usize) -> (&Block, usize) {
        let (leaf, at) = tree::leaf_at(&self.root, rank);
        (self.store.leaves.get(leaf), at)
    }

    /// Adds a member that is not in the set.
    pub(super) fn add(&mut self, fingerprint: u32, member: &[u8], score: f64) {
        let entry = Entry {
            score,
            member,
            tag: tag(fingerprint),
        };
        let path = tree::path_to(&self.root, score, member);
        let leaf = tree::insert(&mut self.root, &mut self.store, &path, entry);
        self.store.index.insert(fingerprint, leaf);
        self.len += 1;
    }

    /// Gives a member another score.
    pub(super) fn rescore(&mut self, fingerprint: u32, member: &[u8], place: &Place, score: f64) {
        let path = tree::path_to(&self.root, score, member);
        if path.leaf == place.leaf {
            return self
                .store
                .leaves
                .edit(place.leaf, |block| block.rescore(place.at, score));
        }
        let old_path = tree::path_to(&self.root, place.score, member);
        // The last entry of a tree cannot be removed, but then both scores lead to the same leaf.
        let is_reshaped = tree::remove(
            &mut self.root,
            &mut self.store,
            &old_path,
            place.at..place.at + 1,
        );
        let entry = Entry {
            score,
            member,
            tag: tag(fingerprint),
        };
        let path = match is_reshaped {
            true => tree::path_to(&self.root, score, member),
            false => path,
        };
        let leaf = tree::insert(&mut self.root, &mut self.store, &path, entry);
        self.store.index.repoint(fingerprint, place.leaf, leaf);
    }

    /// Removes a member; it must not be the last one.
    pub(super) fn remove(&mut self, fingerprint: u32, member: &[u8], place: &Place) {
        let path = tree::path_to(&self.root, place.score, member);
        self.store.index.remove(fingerprint, place.leaf);
        tree::remove(
            &mut self.root,
            &mut self.store,
            &path,
            place.at..place.at + 1,
        );
        self.len -= 1;
    }

    /// Removes the entries of these ranks, leaf by leaf; at least one must be left.
    pub(super) fn remove_range(&mut self, ranks: Range<usize>) {
        let mut left = ranks.len();
        while left > 0 {
            let (path, at) = tree::path_at(&self.root, ranks.start);
            let block = self.store.leaves.get(path.leaf);
            let end = block.len().min(at + left);
            for place in at..end {
                let fingerprint = fingerprint(block.member(place));
                self.store.index.remove(fingerprint, path.leaf);
            }
            tree::remove(&mut self.root, &mut self.store, &path, at..end);
            self.len -= end - at;
            left -= end - at;
        }
    }

    /// See [`SortedSet::scan`](super::SortedSet::scan); in the order of the fingerprints, of which the cursor is the next.
    pub(super) fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], f64)) -> u64 {
        let Ok(from) = u32::try_from(cursor) else {
            return 0;
        };
        let (mut visited, mut next) = (0, 0);
        let mut current = None;
        // Where the current fingerprint's members are: a leaf may hold several of them, and all are visited at once.
        let mut leaves: SmallVec<[u32; 4]> = SmallVec::new();
        self.store.index.scan(from, |fingerprint, leaf| {
            if current != Some(fingerprint) {
                if visited >= count {
                    next = u64::from(fingerprint);
                    return false;
                }
                current = Some(fingerprint);
                leaves.clear();
            }
            if !leaves.contains(&leaf) {
                leaves.push(leaf);
                visited += self.visit_fingerprint(fingerprint, leaf, &mut visit);
            }
            true
        });
        next
    }

    fn visit_fingerprint(
        &self,
        wanted: u32,
        leaf: u32,
        visit: &mut impl FnMut(&[u8], f64),
    ) -> usize {
        let block = self.store.leaves.get(leaf);
        let found = block
            .with_tag(tag(wanted))
            .filter(|at| fingerprint(block.member(*at)) == wanted);
        found
            .map(|at| visit(block.member(at), block.score(at)))
            .count()
    }

    /// Whether a member occurs twice, given all slots in order.
    fn has_duplicates(&self, slots: &[u64]) -> bool {
        slots
            .chunk_by(|a, b| slot_fingerprint(*a) == slot_fingerprint(*b))
            .filter(|same| same.len() > 1)
            .any(|same| {
                let wanted = slot_fingerprint(same[0]);
                let mut members = Vec::new();
                for leaf in same
                    .iter()
                    .map(|slot| *slot as u32)
                    .collect::<BTreeSet<_>>()
                {
                    self.visit_fingerprint(wanted, leaf, &mut |member, _| {
                        members.push(member.to_vec())
                    });
                }
                members.sort_unstable();
                members.windows(2).any(|pair| pair[0] == pair[1])
            })
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let (mut ids, mut inner_bytes) = (Vec::new(), 0);
        let (len, _) = self.root.check(&self.store, &mut ids, &mut inner_bytes);
        assert_eq!(len, self.len);
        assert_eq!(inner_bytes, self.store.inner_bytes);
        self.store.leaves.check(&ids);
        assert_eq!(self.store.index.check(), len);
        for id in ids {
            let block = self.store.leaves.get(id);
            for at in 0..block.len() {
                let entry = block.entry(at);
                let fingerprint = fingerprint(entry.member);
                assert_eq!(entry.tag, tag(fingerprint));
                let place = self
                    .find(fingerprint, entry.member)
                    .expect("the index leads to it");
                assert_eq!((place.leaf, place.at, place.score), (id, at, entry.score));
            }
        }
    }
}
