//! Sets: distinct members in no order that clients may rely on.
//!
//! Small sets of integers are an [`IntSet`], other small ones a [`Packed`] buffer, large ones an [`ArenaTable`]; clients
//! see which through OBJECT ENCODING, as `intset`, `listpack` and `hashtable`. A set moves on from one to the next when a
//! member no longer suits or the limits are passed, and never back while it lives. A set takes one word where it is held.

use hashbrown::HashSet;

use super::{
    arena_table::{self, ArenaTable, Shape, scale},
    element::{Element, integer_text_len},
    int_set::{self, IntSet},
    packed::{self, Packed},
    small_or_boxed::{Held, SmallOrBoxed},
    thin_buffer::ThinBuffer,
};

/// Popping leaves so few members that building a set of them is cheaper: less than one for so many popped.
const REBUILD_RATIO: usize = 5;
/// A sample of at least one in so many members is taken in one walk, a smaller one by drawing.
const WALK_RATIO: usize = 3;

/// See the module's description.
#[derive(Clone)]
pub struct Set {
    /// A buffer is an `IntSet` if it is marked, else a `Packed`.
    held: SmallOrBoxed<ArenaTable>,
}

/// When a set changes its encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `set-max-intset-entries`
    pub max_intset_entries: usize,
    /// `set-max-listpack-entries`
    pub max_listpack_entries: usize,
    /// `set-max-listpack-value`, bytes
    pub max_listpack_value: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_intset_entries: 512,
            max_listpack_entries: 128,
            max_listpack_value: 64,
        }
    }
}

impl Limits {
    fn intset_entries(&self) -> usize {
        self.max_intset_entries.min(IntSet::MAX_LEN)
    }
}

/// How a set is held, by the names that clients know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Sorted integers.
    IntSet,
    /// A packed buffer.
    ListPack,
    /// A table.
    HashTable,
}

enum View<'a> {
    Ints(&'a IntSet),
    Packed(&'a Packed),
    Table(&'a ArenaTable),
}

enum ViewMut<'a> {
    Ints(&'a mut IntSet),
    Packed(&'a mut Packed),
    Table(&'a mut ArenaTable),
}

impl Set {
    /// An empty set, encoded as integers until a member is not one.
    pub fn new() -> Self {
        let mut buffer = IntSet::new().into_buffer();
        buffer.set_mark(true);
        Set {
            held: SmallOrBoxed::small(buffer),
        }
    }

    /// An empty set, encoded as it suits if `first` is the first of `count` members.
    pub fn with_hint<'m>(first: impl Into<Element<'m>>, count: usize, limits: &Limits) -> Self {
        let integer = first.into().integer().is_some();
        if integer && count <= limits.intset_entries() {
            Set::new()
        } else if count <= limits.max_listpack_entries {
            Set::new_packed()
        } else {
            Set::new_table()
        }
    }

    /// An empty set, encoded as a packed buffer.
    pub fn new_packed() -> Self {
        Set {
            held: SmallOrBoxed::small(ThinBuffer::new()),
        }
    }

    /// An empty set, encoded as a table.
    pub fn new_table() -> Self {
        Set {
            held: SmallOrBoxed::boxed(ArenaTable::new(Shape::Members)),
        }
    }

    /// A set of these members.
    pub fn from_members<'m>(
        members: impl IntoIterator<Item = Element<'m>>,
        limits: &Limits,
    ) -> Self {
        let mut set = Set::new();
        for member in members {
            set.add(member, limits);
        }
        set
    }

    /// How the set is held.
    pub fn encoding(&self) -> Encoding {
        match self.view() {
            View::Ints(_) => Encoding::IntSet,
            View::Packed(_) => Encoding::ListPack,
            View::Table(_) => Encoding::HashTable,
        }
    }

    /// Number of members. O(1).
    #[inline]
    pub fn len(&self) -> usize {
        match self.view() {
            View::Ints(ints) => ints.len(),
            View::Packed(packed) => packed.len(),
            View::Table(table) => table.len(),
        }
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether neither was changed since one was cloned from the other. O(1), or O(limits) if small; may deny it where
    /// nothing differs.
    pub fn is_same_version(&self, other: &Set) -> bool {
        match (self.view(), other.view()) {
            (View::Table(one), View::Table(other)) => one.is_same_version(other),
            (View::Table(_), _) | (_, View::Table(_)) => false,
            _ => self.encoding() == other.encoding() && self.iter().eq(other.iter()),
        }
    }

    /// Bytes on the heap. O(1).
    pub fn memory_bytes(&self) -> usize {
        match self.view() {
            View::Ints(ints) => ints.memory_bytes(),
            View::Packed(packed) => packed.memory_bytes(),
            View::Table(table) => size_of::<ArenaTable>() + table.memory_bytes(),
        }
    }

    /// Whether `member` is in the set. O(1), or O(limits) if small.
    #[inline]
    pub fn contains<'m>(&self, member: impl Into<Element<'m>>) -> bool {
        let member = member.into();
        match self.view() {
            View::Ints(ints) => member
                .integer()
                .is_some_and(|integer| ints.contains(integer)),
            View::Packed(packed) => packed.find(member, 1).is_some(),
            View::Table(table) => table.contains(member),
        }
    }

    /// Adds `member`. Whether it is new. O(1), or O(limits) if small.
    pub fn add<'m>(&mut self, member: impl Into<Element<'m>>, limits: &Limits) -> bool {
        let member = member.into();
        match self.view_mut() {
            ViewMut::Ints(ints) => {
                let Some(integer) = member.integer() else {
                    self.leave_ints(member, limits);
                    return self.add(member, limits);
                };
                let added = ints.add(integer);
                if added && ints.len() > limits.intset_entries() {
                    self.make_table();
                }
                added
            }
            ViewMut::Packed(packed) => {
                if packed.find(member, 1).is_some() {
                    return false;
                }
                let len = member.text_len();
                let suits =
                    packed.len() < limits.max_listpack_entries && len <= limits.max_listpack_value;
                if suits && packed.fits(1, len) {
                    packed.push(member);
                } else {
                    self.make_table().add(member);
                }
                true
            }
            ViewMut::Table(table) => table.add(member),
        }
    }

    /// Makes the set a table if as many as `count` more members will come than suit how it is held.
    pub fn expect_members(&mut self, count: usize, limits: &Limits) {
        let most = match self.view() {
            View::Ints(_) => limits.max_intset_entries,
            View::Packed(_) => limits.max_listpack_entries,
            View::Table(_) => return,
        };
        if count > most {
            self.make_table();
        }
    }

    /// Removes `member`. Whether it was there. O(1), or O(limits) if small.
    pub fn remove<'m>(&mut self, member: impl Into<Element<'m>>) -> bool {
        let member = member.into();
        match self.view_mut() {
            ViewMut::Ints(ints) => member.integer().is_some_and(|integer| ints.remove(integer)),
            ViewMut::Packed(packed) => match packed.find(member, 1) {
                Some(position) => {
                    packed.remove(position, 1);
                    true
                }
                None => false,
            },
            ViewMut::Table(table) => table.remove(member),
        }
    }

    /// All members.
    pub fn iter(&self) -> Iter<'_> {
        match self.view() {
            View::Ints(ints) => Iter::Ints(ints.iter()),
            View::Packed(packed) => Iter::Packed(packed.iter()),
            View::Table(table) => Iter::Table(table.iter()),
        }
    }

    /// Visits about `budget` members from `cursor` on, and gives the cursor to go on from: 0 when all were visited.
    ///
    /// A member that is there from the start of a traversal to its end is visited, however the set changes. Small sets
    /// are visited in one go.
    pub fn scan(&self, cursor: u64, budget: usize, mut visit: impl FnMut(Element<'_>)) -> u64 {
        if let View::Table(table) = self.view() {
            return table.scan(cursor, budget, |entry| visit(entry.field));
        }
        self.iter().for_each(visit);
        0
    }

    /// A random member, each with the same probability. O(1), or O(limits) if small.
    ///
    /// Here and below `random` gives 64 random bits each time.
    pub fn random(&self, random: &mut impl FnMut() -> u64) -> Option<Element<'_>> {
        match self.view() {
            View::Ints(ints) => ints.get(scale(random(), ints.len())).map(Element::Integer),
            View::Packed(packed) => packed.get(scale(random(), packed.len())),
            View::Table(table) => table.random(random).map(|entry| entry.field),
        }
    }

    /// Visits `count` random members, no member twice; all if there are not more. O(count), or O(limits) if small.
    pub fn sample(
        &self,
        count: usize,
        random: &mut impl FnMut() -> u64,
        mut visit: impl FnMut(Element<'_>),
    ) {
        let len = self.len();
        let View::Table(table) = self.view() else {
            return choose(self.iter(), len, count, random, visit, |_| {});
        };
        if count >= len / WALK_RATIO {
            return choose(self.iter(), len, count, random, visit, |_| {});
        }
        let mut seen = HashSet::with_capacity(count);
        while seen.len() < count {
            let Some(entry) = table.random(random) else {
                return;
            };
            if seen.insert(entry.field) {
                visit(entry.field);
            }
        }
    }

    /// Removes a random member.
    pub fn pop(&mut self, random: &mut impl FnMut() -> u64) -> Option<Vec<u8>> {
        let member = self.random(random)?.to_vec();
        self.remove(&member);
        Some(member)
    }

    /// Removes `count` random members, or all there are, and visits them. O(count), or O(limits) if small.
    pub fn pop_many(
        &mut self,
        count: usize,
        random: &mut impl FnMut() -> u64,
        limits: &Limits,
        mut visit: impl FnMut(Element<'_>),
    ) {
        let len = self.len();
        let left = len.saturating_sub(count);
        let rebuild = left < count / REBUILD_RATIO;
        let kept = match self.view() {
            View::Ints(ints) => {
                let mut kept = Set::new();
                let keep = |member| {
                    kept.add(
                        member,
                        &Limits {
                            max_intset_entries: usize::MAX,
                            ..*limits
                        },
                    );
                };
                choose(
                    ints.iter().map(Element::Integer),
                    len,
                    count,
                    random,
                    visit,
                    keep,
                );
                kept
            }
            View::Packed(packed) => {
                let mut kept = Packed::new();
                choose(packed.iter(), len, count, random, visit, |member| {
                    kept.push(member)
                });
                Set {
                    held: SmallOrBoxed::small(kept.into_buffer()),
                }
            }
            View::Table(_) if rebuild => {
                let mut kept = Set::new();
                let keep = |member| {
                    kept.add(member, limits);
                };
                choose(self.iter(), len, count, random, visit, keep);
                kept
            }
            View::Table(_) => {
                for _ in 0..count {
                    let Some(member) = self.pop(random) else {
                        break;
                    };
                    visit(Element::new(&member));
                }
                return;
            }
        };
        *self = kept;
    }

    /// Moves on from integers for a `member` that is not one.
    fn leave_ints(&mut self, member: Element<'_>, limits: &Limits) {
        let View::Ints(ints) = self.view() else {
            return;
        };
        let ends = [
            ints.get(0),
            ints.len().checked_sub(1).and_then(|last| ints.get(last)),
        ];
        let longest = ends
            .iter()
            .flatten()
            .map(|&end| integer_text_len(end))
            .max()
            .unwrap_or(0);
        let len = ints.len();
        let text = member.text_len().max(longest);
        let bytes = len
            .saturating_mul(longest)
            .saturating_add(member.text_len());
        let suits = len < limits.max_listpack_entries && text <= limits.max_listpack_value;
        if suits && Packed::new().fits(len + 1, bytes) {
            let packed: Packed = ints.iter().map(Element::Integer).collect();
            self.held = SmallOrBoxed::small(packed.into_buffer());
        } else {
            self.make_table();
        }
    }

    fn make_table(&mut self) -> &mut ArenaTable {
        if !matches!(self.view(), View::Table(_)) {
            let mut table = ArenaTable::new(Shape::Members);
            for member in self.iter() {
                table.add(member);
            }
            self.held = SmallOrBoxed::boxed(table);
        }
        match self.held.get_mut() {
            Held::Boxed(table) => table,
            Held::Small(_) => unreachable!("made a table above"),
        }
    }

    #[inline]
    fn view(&self) -> View<'_> {
        match self.held.get() {
            Held::Small(buffer) if buffer.mark() => View::Ints(IntSet::from_buffer_ref(buffer)),
            Held::Small(buffer) => View::Packed(Packed::from_buffer_ref(buffer)),
            Held::Boxed(table) => View::Table(table),
        }
    }

    #[inline]
    fn view_mut(&mut self) -> ViewMut<'_> {
        match self.held.get_mut() {
            Held::Small(buffer) if buffer.mark() => ViewMut::Ints(IntSet::from_buffer_mut(buffer)),
            Held::Small(buffer) => ViewMut::Packed(Packed::from_buffer_mut(buffer)),
            Held::Boxed(table) => ViewMut::Table(table),
        }
    }
}

impl Default for Set {
    fn default() -> Self {
        Set::new()
    }
}

/// Walks the members of a set.
#[derive(Clone)]
pub enum Iter<'a> {
    /// Of an integer set, in ascending order.
    Ints(int_set::Iter<'a>),
    /// Of a packed set, in order of insertion.
    Packed(packed::Iter<'a>),
    /// Of a table.
    Table(arena_table::Iter<'a>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        match self {
            Iter::Ints(ints) => ints.next().map(Element::Integer),
            Iter::Packed(packed) => packed.next(),
            Iter::Table(table) => table.next().map(|entry| entry.field),
        }
    }
}

/// Splits `len` items into `count` random ones, every choice with the same probability, and the rest. O(len).
pub(super) fn choose<T>(
    items: impl Iterator<Item = T>,
    len: usize,
    count: usize,
    random: &mut impl FnMut() -> u64,
    mut chosen: impl FnMut(T),
    mut other: impl FnMut(T),
) {
    let mut wanted = count.min(len);
    for (index, item) in items.enumerate() {
        // Of the items that are left, this is one of the wanted with probability wanted / left.
        if scale(random(), len - index) < wanted {
            wanted -= 1;
            chosen(item);
        } else {
            other(item);
        }
    }
}
