//! A small set of integers: sorted, in the narrowest of two, four or eight bytes that holds all of them.
//!
//! Lookup is a binary search, insertion moves what is behind. The width only grows, when a member needs it. Clients know
//! it as the intset encoding, bounded by `set-max-intset-entries`.

use std::{cmp::Ordering, iter::FusedIterator};

use super::thin_buffer::{self, ThinBuffer};

/// See the module's description.
#[derive(Clone)]
#[repr(transparent)]
pub struct IntSet {
    /// The note is the width of a member in bytes.
    buffer: ThinBuffer,
}

impl IntSet {
    /// More members than this are never held.
    pub const MAX_LEN: usize = thin_buffer::MAX_LEN / 8;

    /// The empty set.
    pub fn new() -> Self {
        let mut buffer = ThinBuffer::new();
        buffer.set_note(2);
        IntSet { buffer }
    }

    pub(crate) fn into_buffer(self) -> ThinBuffer {
        self.buffer
    }

    pub(crate) fn from_buffer_ref(buffer: &ThinBuffer) -> &Self {
        // SAFETY: `IntSet` is a transparent wrapper of `ThinBuffer`.
        unsafe { &*std::ptr::from_ref(buffer).cast() }
    }

    pub(crate) fn from_buffer_mut(buffer: &mut ThinBuffer) -> &mut Self {
        // SAFETY: as above, and the borrow is unique.
        unsafe { &mut *std::ptr::from_mut(buffer).cast() }
    }

    /// Number of members. O(1).
    #[inline]
    pub fn len(&self) -> usize {
        self.buffer.len() / self.width()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.buffer.len() == 0
    }

    /// Bytes on the heap. O(1).
    pub fn memory_bytes(&self) -> usize {
        self.buffer.memory_bytes()
    }

    /// The member of rank `index`.
    #[inline]
    pub fn get(&self, index: usize) -> Option<i64> {
        (index < self.len()).then(|| self.member(index))
    }

    /// Whether `member` is in the set. O(log n).
    pub fn contains(&self, member: i64) -> bool {
        self.search(member).is_ok()
    }

    /// Adds `member`. False if it was there. O(n).
    pub fn add(&mut self, member: i64) -> bool {
        let Err(index) = self.search(member) else {
            return false;
        };
        let width = width_of(member);
        if width > self.width() {
            self.widen(width);
        }
        let width = self.width();
        self.buffer
            .splice(index * width, 0, &[&member.to_le_bytes()[..width]]);
        true
    }

    /// Removes `member`. False if it was not there. O(n).
    pub fn remove(&mut self, member: i64) -> bool {
        let Ok(index) = self.search(member) else {
            return false;
        };
        let width = self.width();
        self.buffer.splice(index * width, width, &[]);
        true
    }

    /// The members in ascending order.
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            set: self,
            front: 0,
            back: self.len(),
        }
    }

    #[inline]
    fn width(&self) -> usize {
        self.buffer.note()
    }

    #[inline]
    fn member(&self, index: usize) -> i64 {
        let bytes = self.buffer.as_slice();
        match self.width() {
            2 => i64::from(i16::from_le_bytes(array(bytes, index))),
            4 => i64::from(i32::from_le_bytes(array(bytes, index))),
            _ => i64::from_le_bytes(array(bytes, index)),
        }
    }

    /// The rank of `member`, or the rank it would have.
    fn search(&self, member: i64) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        // Ascending insertion is common.
        if high > 0 && self.member(high - 1) < member {
            return Err(high);
        }
        while low < high {
            let middle = low + (high - low) / 2;
            match self.member(middle).cmp(&member) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    fn widen(&mut self, width: usize) {
        let mut wider = ThinBuffer::with_capacity((self.len() + 1) * width);
        wider.set_note(width);
        wider.set_mark(self.buffer.mark());
        for member in self.iter() {
            wider.splice(wider.len(), 0, &[&member.to_le_bytes()[..width]]);
        }
        self.buffer = wider;
    }
}

impl Default for IntSet {
    fn default() -> Self {
        IntSet::new()
    }
}

impl FromIterator<i64> for IntSet {
    fn from_iter<I: IntoIterator<Item = i64>>(members: I) -> Self {
        let mut set = IntSet::new();
        for member in members {
            set.add(member);
        }
        set
    }
}

#[inline]
fn array<const N: usize>(bytes: &[u8], index: usize) -> [u8; N] {
    bytes[index * N..][..N]
        .try_into()
        .expect("the slice has this length")
}

fn width_of(member: i64) -> usize {
    if i16::try_from(member).is_ok() {
        2
    } else if i32::try_from(member).is_ok() {
        4
    } else {
        8
    }
}

/// Walks an integer set in either direction.
#[derive(Clone)]
pub struct Iter<'a> {
    set: &'a IntSet,
    front: usize,
    back: usize,
}

impl Iterator for Iter<'_> {
    type Item = i64;

    #[inline]
    fn next(&mut self) -> Option<i64> {
        if self.front == self.back {
            return None;
        }
        self.front += 1;
        Some(self.set.member(self.front - 1))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.back - self.front, Some(self.back - self.front))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<i64> {
        if self.front == self.back {
            return None;
        }
        self.back -= 1;
        Some(self.set.member(self.back))
    }
}

impl ExactSizeIterator for Iter<'_> {}
impl FusedIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn member() -> impl Strategy<Value = i64> {
        prop_oneof![
            4 => -40i64..40,
            1 => any::<i16>().prop_map(i64::from),
            1 => any::<i32>().prop_map(i64::from),
            1 => any::<i64>(),
            1 => proptest::sample::select(vec![i64::MIN, i64::MAX, -32769, 32768, -32768, 32767, 1 << 31, -(1 << 31) - 1]),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_btree_set(ops in proptest::collection::vec((0..3, member()), 0..200)) {
            let mut set = IntSet::new();
            let mut model = BTreeSet::new();
            for (op, member) in ops {
                match op {
                    0 => prop_assert_eq!(set.remove(member), model.remove(&member)),
                    _ => prop_assert_eq!(set.add(member), model.insert(member)),
                }
                prop_assert_eq!(set.contains(member), model.contains(&member));
                prop_assert_eq!(set.len(), model.len());
            }
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert!(set.iter().rev().eq(model.iter().rev().copied()));
            prop_assert_eq!(set.get(model.len()), None);
            prop_assert!(set.clone().iter().eq(model.iter().copied()));
        }
    }

    #[test]
    fn members_take_the_width_of_the_widest() {
        let mut set: IntSet = (0..100).collect();
        assert!(set.memory_bytes() <= 224);
        set.add(1 << 20);
        assert!((404..=512).contains(&set.memory_bytes()));
        set.add(i64::MIN);
        assert!((816..=1024).contains(&set.memory_bytes()));
        assert_eq!(
            (set.get(0), set.get(1), set.get(101)),
            (Some(i64::MIN), Some(0), Some(1 << 20))
        );
    }
}
