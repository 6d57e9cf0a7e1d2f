//! Hashes: fields with values, and deadlines for those fields that have one.
//!
//! A small hash is a [`Packed`] buffer of fields and values in turns, which clients see as `listpack`; a large one, or
//! one that ever had a deadline on a field, is an [`ArenaTable`], `hashtable` to clients. It never moves back while it
//! lives. A hash takes one word where it is held, and what deadlines need is paid by the fields that have one.
//!
//! Reads take the time and never see an expired field. Until [`Hash::expire`] removes it an expired field still counts in
//! [`Hash::len`], as it does for Valkey's HLEN.

use hashbrown::HashSet;

use super::{
    arena_table::{self, ArenaTable, Entry, Shape, scale},
    element::Element,
    packed::{self, Packed, Position},
    set::choose,
    small_or_boxed::{Held, SmallOrBoxed},
    thin_buffer::ThinBuffer,
};
use crate::time::Timestamp;

/// Draws that may hit expired fields before the unexpired ones are counted instead.
const DRAWS: usize = 64;
/// A sample of at least one in so many fields is taken in one walk, a smaller one by drawing.
const WALK_RATIO: usize = 3;

/// Room for more bytes than this is not taken in advance: the fields may be there already, or make a table of it.
const RESERVE_MAX: usize = 1024;

/// See the module's description.
#[derive(Clone)]
pub struct Hash {
    /// A buffer is a `Packed`.
    held: SmallOrBoxed<ArenaTable>,
}

/// When a hash changes its encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `hash-max-listpack-entries`
    pub max_listpack_entries: usize,
    /// `hash-max-listpack-value`, bytes
    pub max_listpack_value: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_listpack_entries: 512,
            max_listpack_value: 64,
        }
    }
}

/// How a hash is held, by the names that clients know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// A packed buffer.
    ListPack,
    /// A table.
    HashTable,
}

/// What setting a field does to its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldDeadline {
    /// The field has none afterwards.
    Clear,
    /// The field keeps the one it has, if it has not expired.
    Keep,
    /// The field has this one afterwards.
    At(Timestamp),
}

enum View<'a> {
    Packed(&'a Packed),
    Table(&'a ArenaTable),
}

enum ViewMut<'a> {
    Packed(&'a mut Packed),
    Table(&'a mut ArenaTable),
}

impl Hash {
    /// An empty hash, without allocating.
    pub fn new() -> Self {
        Hash {
            held: SmallOrBoxed::small(ThinBuffer::new()),
        }
    }

    /// How the hash is held.
    pub fn encoding(&self) -> Encoding {
        match self.view() {
            View::Packed(_) => Encoding::ListPack,
            View::Table(_) => Encoding::HashTable,
        }
    }

    /// Makes ready for setting `fields` fields at once, with `text_bytes` of fields and values in all: becomes a table if
    /// alone these are more than a listpack may have, or takes room for them in one step.
    pub fn prepare(&mut self, fields: usize, text_bytes: usize, limits: &Limits) {
        if fields > limits.max_listpack_entries {
            self.make_table();
        } else if let ViewMut::Packed(packed) = self.view_mut()
            && text_bytes <= RESERVE_MAX
        {
            packed.reserve(fields * 2, text_bytes);
        }
    }

    /// Number of fields, expired but present ones included. O(1).
    #[inline]
    pub fn len(&self) -> usize {
        match self.view() {
            View::Packed(packed) => packed.len() / 2,
            View::Table(table) => table.len(),
        }
    }

    /// Whether there are no fields, not even expired ones.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of fields that are not expired. O(1) if no field has a deadline.
    pub fn len_at(&self, now: Timestamp) -> usize {
        if self.may_have_expired(now) {
            self.iter(now).count()
        } else {
            self.len()
        }
    }

    /// Bytes on the heap. O(1).
    pub fn memory_bytes(&self) -> usize {
        match self.view() {
            View::Packed(packed) => packed.memory_bytes(),
            View::Table(table) => size_of::<ArenaTable>() + table.memory_bytes(),
        }
    }

    /// The value of `field`. O(1), or O(limits) if small.
    #[inline]
    pub fn get<'f>(&self, field: impl Into<Element<'f>>, now: Timestamp) -> Option<Element<'_>> {
        match self.view() {
            View::Packed(packed) => packed.at(packed.next(packed.find(field.into(), 2)?)),
            View::Table(table) => {
                let entry = table.get(field.into())?;
                (!entry.is_expired(now)).then_some(entry.value)
            }
        }
    }

    /// Whether there is a `field`. O(1), or O(limits) if small.
    pub fn contains<'f>(&self, field: impl Into<Element<'f>>, now: Timestamp) -> bool {
        self.get(field, now).is_some()
    }

    /// Gives `field` this value. Whether the field is new, which one that expired is. O(1), or O(limits) if small.
    pub fn set<'f, 'v>(
        &mut self,
        field: impl Into<Element<'f>>,
        value: impl Into<Element<'v>>,
        deadline: FieldDeadline,
        now: Timestamp,
        limits: &Limits,
    ) -> bool {
        let (field, value) = (field.into(), value.into());
        if let FieldDeadline::At(_) = deadline {
            self.make_table();
        }
        match self.view_mut() {
            ViewMut::Packed(packed) => match set_packed(packed, field, value, limits) {
                Some(is_new) => is_new,
                None => self.make_table().insert(field, value, None),
            },
            ViewMut::Table(table) => set_in_table(table, field, value, deadline, now),
        }
    }

    /// Removes `field`. Whether it was there; one that expired is left to [`Hash::expire`]. O(1), or O(limits) if small.
    pub fn remove<'f>(&mut self, field: impl Into<Element<'f>>, now: Timestamp) -> bool {
        let field = field.into();
        match self.view_mut() {
            ViewMut::Packed(packed) => match packed.find(field, 2) {
                Some(position) => {
                    packed.remove(position, 2);
                    true
                }
                None => false,
            },
            ViewMut::Table(table) => {
                let expired = table.expiring() > 0
                    && table.get(field).is_some_and(|entry| entry.is_expired(now));
                !expired && table.remove(field)
            }
        }
    }

    /// All fields that are not expired, with their values.
    pub fn iter(&self, now: Timestamp) -> Iter<'_> {
        let walk = match self.view() {
            View::Packed(packed) => Walk::Packed(packed.iter()),
            View::Table(table) => Walk::Table(table.iter()),
        };
        Iter { walk, now }
    }

    /// All fields that are not expired, with values and deadlines.
    pub fn entries(&self, now: Timestamp) -> impl Iterator<Item = Entry<'_>> {
        let mut iter = self.iter(now);
        std::iter::from_fn(move || iter.next_entry())
    }

    /// Visits about `budget` fields with their values from `cursor` on, and gives the cursor to go on from: 0 when all
    /// were visited.
    ///
    /// A field that is there from the start of a traversal to its end is visited, however the hash changes. Small hashes
    /// are visited in one go.
    pub fn scan(
        &self,
        cursor: u64,
        budget: usize,
        now: Timestamp,
        mut visit: impl FnMut(Element<'_>, Element<'_>),
    ) -> u64 {
        if let View::Table(table) = self.view() {
            return table.scan(cursor, budget, |entry| {
                if !entry.is_expired(now) {
                    visit(entry.field, entry.value);
                }
            });
        }
        self.iter(now)
            .for_each(|(field, value)| visit(field, value));
        0
    }

    /// A random field with its value, each with the same probability. O(1), or O(limits) if small; O(n) if nearly all
    /// fields are expired.
    ///
    /// Here and below `random` gives 64 random bits each time.
    pub fn random(
        &self,
        now: Timestamp,
        random: &mut impl FnMut() -> u64,
    ) -> Option<(Element<'_>, Element<'_>)> {
        let View::Table(table) = self.view() else {
            let View::Packed(packed) = self.view() else {
                return None;
            };
            let mut from = packed.iter_from(packed.position(scale(random(), self.len()) * 2));
            return from.next().zip(from.next());
        };
        for _ in 0..DRAWS {
            let entry = table.random(random)?;
            if !entry.is_expired(now) {
                return Some((entry.field, entry.value));
            }
        }
        let len = self.len_at(now);
        self.iter(now).nth(scale(random(), len))
    }

    /// Visits `count` random fields with their values, no field twice; all if there are not more. O(count), or O(limits)
    /// if small; O(n) if a field may have expired.
    pub fn sample(
        &self,
        count: usize,
        now: Timestamp,
        random: &mut impl FnMut() -> u64,
        mut visit: impl FnMut(Element<'_>, Element<'_>),
    ) {
        let len = self.len_at(now);
        if count >= len / WALK_RATIO
            || self.may_have_expired(now)
            || matches!(self.view(), View::Packed(_))
        {
            return choose(
                self.iter(now),
                len,
                count,
                random,
                |(field, value)| visit(field, value),
                |_| {},
            );
        }
        let mut seen = HashSet::with_capacity(count);
        while seen.len() < count {
            let Some((field, value)) = self.random(now, random) else {
                return;
            };
            if seen.insert(field) {
                visit(field, value);
            }
        }
    }

    /// The deadline of `field`: none if there is no such field, none within if it has no deadline.
    pub fn deadline<'f>(
        &self,
        field: impl Into<Element<'f>>,
        now: Timestamp,
    ) -> Option<Option<Timestamp>> {
        match self.view() {
            View::Packed(packed) => packed.find(field.into(), 2).map(|_| None),
            View::Table(table) => {
                let entry = table.get(field.into())?;
                (!entry.is_expired(now)).then_some(entry.deadline)
            }
        }
    }

    /// Gives `field` a deadline. Whether there is such a field.
    pub fn set_deadline<'f>(
        &mut self,
        field: impl Into<Element<'f>>,
        deadline: Timestamp,
        now: Timestamp,
    ) -> bool {
        let field = field.into();
        self.contains(field, now) && self.make_table().set_deadline(field, Some(deadline))
    }

    /// Takes the deadline off `field`. Whether it had one.
    pub fn persist<'f>(&mut self, field: impl Into<Element<'f>>, now: Timestamp) -> bool {
        let field = field.into();
        let had = self.deadline(field, now).flatten().is_some();
        had && self.make_table().set_deadline(field, None)
    }

    /// Number of fields with a deadline, expired but present ones included. O(1).
    pub fn expiring(&self) -> usize {
        match self.view() {
            View::Packed(_) => 0,
            View::Table(table) => table.expiring(),
        }
    }

    /// A time before which no field expires; none if no field has a deadline. O(1).
    ///
    /// It may lie before the earliest deadline, when that field was removed: [`Hash::expire`] then corrects it.
    pub fn earliest_deadline(&self) -> Option<Timestamp> {
        match self.view() {
            View::Packed(_) => None,
            View::Table(table) => table.earliest_deadline(),
        }
    }

    /// Removes up to `limit` expired fields after showing each to `visit`; how many. O(limit), and a bounded search: if
    /// [`Hash::earliest_deadline`] has still passed afterwards, there may be more.
    pub fn expire(
        &mut self,
        now: Timestamp,
        limit: usize,
        mut visit: impl FnMut(Element<'_>),
    ) -> usize {
        match self.view_mut() {
            ViewMut::Packed(_) => 0,
            ViewMut::Table(table) => table.expire(now, limit, |entry| visit(entry.field)),
        }
    }

    fn may_have_expired(&self, now: Timestamp) -> bool {
        self.earliest_deadline()
            .is_some_and(|earliest| earliest <= now)
    }

    fn make_table(&mut self) -> &mut ArenaTable {
        if let View::Packed(packed) = self.view() {
            let mut table = ArenaTable::new(Shape::Pairs);
            let mut elements = packed.iter();
            while let Some((field, value)) = elements.next().zip(elements.next()) {
                table.insert(field, value, None);
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
            Held::Small(buffer) => View::Packed(Packed::from_buffer_ref(buffer)),
            Held::Boxed(table) => View::Table(table),
        }
    }

    #[inline]
    fn view_mut(&mut self) -> ViewMut<'_> {
        match self.held.get_mut() {
            Held::Small(buffer) => ViewMut::Packed(Packed::from_buffer_mut(buffer)),
            Held::Boxed(table) => ViewMut::Table(table),
        }
    }
}

impl Default for Hash {
    fn default() -> Self {
        Hash::new()
    }
}

/// Sets a field in place, unless that takes the hash over the limits: then nothing is done and the answer is none.
fn set_packed(
    packed: &mut Packed,
    field: Element<'_>,
    value: Element<'_>,
    limits: &Limits,
) -> Option<bool> {
    let (field_len, value_len) = (field.text_len(), value.text_len());
    let found: Option<Position> = packed.find(field, 2);
    let grows = found.is_none() && packed.len() / 2 >= limits.max_listpack_entries;
    let short = field_len.max(value_len) <= limits.max_listpack_value;
    if grows || !short || !packed.fits(2, field_len.saturating_add(value_len)) {
        return None;
    }
    match found {
        Some(position) => packed.replace(packed.next(position), value),
        None => packed.push_pair(field, value),
    }
    Some(found.is_none())
}

fn set_in_table(
    table: &mut ArenaTable,
    field: Element<'_>,
    value: Element<'_>,
    deadline: FieldDeadline,
    now: Timestamp,
) -> bool {
    if table.expiring() == 0 {
        let deadline = if let FieldDeadline::At(at) = deadline {
            Some(at)
        } else {
            None
        };
        return table.insert(field, value, deadline);
    }
    let was = table.get(field).filter(|entry| !entry.is_expired(now));
    let is_new = was.is_none();
    let deadline = match deadline {
        FieldDeadline::Clear => None,
        FieldDeadline::Keep => was.and_then(|entry| entry.deadline),
        FieldDeadline::At(at) => Some(at),
    };
    table.insert(field, value, deadline);
    is_new
}

/// Walks the fields of a hash that are not expired.
#[derive(Clone)]
pub struct Iter<'a> {
    walk: Walk<'a>,
    now: Timestamp,
}

#[derive(Clone)]
enum Walk<'a> {
    Packed(packed::Iter<'a>),
    Table(arena_table::Iter<'a>),
}

impl<'a> Iter<'a> {
    fn next_entry(&mut self) -> Option<Entry<'a>> {
        match &mut self.walk {
            Walk::Packed(elements) => {
                let (field, value) = elements.next().zip(elements.next())?;
                Some(Entry {
                    field,
                    value,
                    deadline: None,
                })
            }
            Walk::Table(entries) => entries.find(|entry| !entry.is_expired(self.now)),
        }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (Element<'a>, Element<'a>);

    #[inline]
    fn next(&mut self) -> Option<(Element<'a>, Element<'a>)> {
        self.next_entry().map(|entry| (entry.field, entry.value))
    }
}
