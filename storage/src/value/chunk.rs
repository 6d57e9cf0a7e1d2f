//! A packed deque of byte strings in one reference-counted allocation, copied when it is shared and written.
//!
//! ```text
//! header | front room | element bytes ... -> | gap | <- ... ends | front slots |
//! ```
//!
//! Element bytes grow upwards, the table of their end offsets grows downwards from the other side, and both share the
//! gap between them; so appending costs no move, and neither does removing at either end. Room for prepending appears
//! where elements were removed from the start, or is made when it is missed. A chunk whose first element arrived by a
//! push to the front stores its elements in reverse, so that whichever end a list grows at is the one with the gap.
//!
//! An element costs its bytes and a 2-byte slot (4 in chunks beyond 32 KiB), which also says whether it is an integer.
//! Allocations grow by the allocator's size classes, so small chunks are tight. Access by index is O(1).
//!
//! A single element that is too big to share a chunk is a *plain* chunk: nothing but its bytes.

use std::{iter::repeat_n, ops::Range};

use triomphe::{Arc, HeaderSlice};

use super::{
    element::Element,
    listpack_size::{LISTPACK_EMPTY, listpack_len},
};

/// Elements that a chunk can hold: counts share their 16 bits with a flag.
pub(crate) const MAX_LEN: usize = 0x7fff;
/// Element bytes that a chunk can hold: an offset shares its 32 bits with a flag, and chunks grow with some slack.
pub(crate) const MAX_BYTES: usize = 1 << 30;

/// In `Header::count`: elements are stored last to first.
const REVERSED: u16 = 0x8000;
/// In `Header::front`: slots take 4 bytes.
const WIDE: u16 = 0x8000;
/// The `Header::weight` of a plain chunk.
const PLAIN: u32 = u32::MAX;

/// Highest end offset in a 2-byte slot; capacities up to here use those.
const NARROW_MAX: usize = 0x7fff;
const NARROW_INTEGER: u16 = 0x8000;
const WIDE_INTEGER: u32 = 0x8000_0000;

/// What the allocation holds besides the buffer: reference count and header.
const OVERHEAD: usize = size_of::<usize>() + size_of::<Header>();
/// Smaller buffers are not worth shrinking.
const SHRINK_MIN: usize = 128;

/// A shared handle; cloning it is O(1).
#[derive(Clone)]
pub(crate) struct Chunk(Arc<HeaderSlice<Header, [u8]>>);

#[derive(Clone, Copy)]
struct Header {
    /// What the elements would take as a listpack.
    weight: u32,
    /// Where the bytes of the first stored element begin.
    data_start: u32,
    /// Number of elements, and `REVERSED`.
    count: u16,
    /// Unused slots beyond that of the first stored element, and `WIDE`.
    front: u16,
}

/// Where in storage order room is needed.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Start,
    End,
}

impl Chunk {
    /// An empty chunk with room for about `bytes` of elements and their slots.
    pub(crate) fn with_capacity(bytes: usize) -> Chunk {
        Chunk::allocate(Header::EMPTY, capacity_for(bytes))
    }

    /// A chunk that is one big element.
    pub(crate) fn plain(value: &[u8]) -> Chunk {
        Chunk(Arc::from_header_and_slice(
            Header {
                weight: PLAIN,
                count: 1,
                ..Header::EMPTY
            },
            value,
        ))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.header.len()
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.0.header.weight == PLAIN
    }

    /// Bytes that the elements would take as a listpack. Meaningless for plain chunks.
    pub(crate) fn weight(&self) -> usize {
        self.0.header.weight as usize
    }

    /// Bytes of the allocation, rounded up as the allocator does. O(1), without looking at the chunk.
    pub(crate) fn allocated_bytes(&self) -> usize {
        size_class(OVERHEAD + self.0.slice.len())
    }

    /// Bytes in the buffer, used or not.
    pub(crate) fn capacity(&self) -> usize {
        self.0.slice.len()
    }

    /// Bytes of all elements together.
    pub(crate) fn data_len(&self) -> usize {
        if self.is_plain() {
            return self.0.slice.len();
        }
        self.0.header.data_end(&self.0.slice) - self.0.header.data_start as usize
    }

    /// The element at `index`, which must be below the length. O(1).
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Element<'_> {
        if self.is_plain() {
            return Element::Text(&self.0.slice);
        }
        self.0
            .header
            .element(&self.0.slice, self.0.header.stored_index(index))
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = Element<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }

    #[inline]
    pub(crate) fn push_back(&mut self, element: Element<'_>) {
        self.orient(false);
        if self.0.header.is_reversed() {
            self.insert_stored(0, element)
        } else {
            self.insert_stored(self.len(), element)
        }
    }

    #[inline]
    pub(crate) fn push_front(&mut self, element: Element<'_>) {
        self.orient(true);
        if self.0.header.is_reversed() {
            self.insert_stored(self.len(), element)
        } else {
            self.insert_stored(0, element)
        }
    }

    /// Puts `element` before the one at `index`. Moves half the bytes on average, none at the ends.
    pub(crate) fn insert(&mut self, index: usize, element: Element<'_>) {
        match index {
            0 => self.push_front(element),
            _ if index == self.len() => self.push_back(element),
            _ if self.0.header.is_reversed() => self.insert_stored(self.len() - index, element),
            _ => self.insert_stored(index, element),
        }
    }

    /// Removes a run of elements, giving memory back when less than half of it is used. No move if the run is at an end.
    pub(crate) fn remove(&mut self, range: Range<usize>) {
        let removed: usize = range
            .clone()
            .map(|index| listpack_len(self.get(index)))
            .sum();
        self.writable().0.weight -= removed as u32;
        let len = self.len();
        if self.0.header.is_reversed() {
            self.remove_stored(len - range.end..len - range.start);
        } else {
            self.remove_stored(range);
        }
        self.shrink();
    }

    /// Replaces the element at `index`, in place if its size stays.
    pub(crate) fn replace(&mut self, index: usize, element: Element<'_>) {
        let stored = self.0.header.stored_index(index);
        let (start, end, is_integer) = self.0.header.bounds(&self.0.slice, stored);
        let integer = IntegerBytes::of(element);
        let (bytes, becomes_integer) = content(element, &integer);
        if bytes.len() == end - start && is_integer == becomes_integer {
            let weight = self.weight() + listpack_len(element) - listpack_len(self.get(index));
            let (header, buffer) = self.writable();
            header.weight = weight as u32;
            buffer[start..end].copy_from_slice(bytes);
            return;
        }
        self.remove(index..index + 1);
        self.insert(index, element);
    }

    /// Cuts off the elements from `index` on.
    pub(crate) fn split_off(&mut self, index: usize) -> Chunk {
        let right = Chunk::of((index..self.len()).map(|index| self.get(index)));
        self.remove(index..self.len());
        right
    }

    /// Adds the elements of `other` at the end.
    pub(crate) fn append(&mut self, other: &Chunk) {
        other.iter().for_each(|element| self.push_back(element));
    }

    /// A chunk of these elements, allocated once.
    pub(crate) fn of<'a>(elements: impl Iterator<Item = Element<'a>> + Clone) -> Chunk {
        let (len, bytes) = elements.clone().fold((0, 0), |(len, bytes), element| {
            (
                len + 1,
                bytes + content(element, &IntegerBytes::of(element)).0.len(),
            )
        });
        let narrow = bytes + len * 2;
        let mut chunk = Chunk::with_capacity(if narrow <= NARROW_MAX {
            narrow
        } else {
            bytes + len * 4
        });
        elements.for_each(|element| chunk.push_back(element));
        chunk
    }

    fn allocate(header: Header, capacity: usize) -> Chunk {
        let width = if capacity > NARROW_MAX { WIDE } else { 0 };
        let header = Header {
            front: (header.front & !WIDE) | width,
            ..header
        };
        Chunk(Arc::from_header_and_iter(header, repeat_n(0, capacity)))
    }

    /// The header and buffer for writing, copied first if someone else holds them too.
    #[inline]
    fn writable(&mut self) -> (&mut Header, &mut [u8]) {
        if !self.0.is_unique() {
            self.0 = Arc::from_header_and_slice(self.0.header, &self.0.slice);
        }
        let inner = Arc::get_mut(&mut self.0).expect("made unique above");
        (&mut inner.header, &mut inner.slice)
    }

    /// An empty chunk takes the order in which the end that grows is the one with the gap.
    #[inline]
    fn orient(&mut self, reversed: bool) {
        if self.len() == 0 {
            let (header, _) = self.writable();
            let wide = header.front & WIDE;
            *header = Header {
                count: if reversed { REVERSED } else { 0 },
                front: wide,
                ..Header::EMPTY
            };
        }
    }

    /// `at` counts in storage order.
    fn insert_stored(&mut self, at: usize, element: Element<'_>) {
        assert!(
            self.len() < MAX_LEN && !self.is_plain(),
            "callers open another chunk"
        );
        let integer = IntegerBytes::of(element);
        let (bytes, is_integer) = content(element, &integer);
        let side = if at == 0 && self.len() > 0 {
            Side::Start
        } else {
            Side::End
        };
        if !self.has_room(bytes.len(), side) {
            self.make_room(bytes.len(), side);
        }
        let (header, buffer) = self.writable();
        let len = header.len();
        header.weight += listpack_len(element) as u32;
        header.count += 1;
        if side == Side::Start {
            let end = header.data_start as usize;
            header.data_start -= bytes.len() as u32;
            header.front -= 1;
            buffer[end - bytes.len()..end].copy_from_slice(bytes);
            header.write_slot(buffer, 0, end, is_integer);
            return;
        }
        let start = header.start(buffer, at);
        if at < len {
            buffer.copy_within(start..header.start(buffer, len), start + bytes.len());
            for slot in (at..len).rev() {
                let (end, is_integer) = header.slot(buffer, slot);
                header.write_slot(buffer, slot + 1, end + bytes.len(), is_integer);
            }
        }
        buffer[start..start + bytes.len()].copy_from_slice(bytes);
        header.write_slot(buffer, at, start + bytes.len(), is_integer);
    }

    /// `range` counts in storage order. The weight is the caller's to correct.
    fn remove_stored(&mut self, range: Range<usize>) {
        let (header, buffer) = self.writable();
        let len = header.len();
        let (from, to) = (
            header.start(buffer, range.start),
            header.start(buffer, range.end),
        );
        if range.start == 0 && range.end < len && header.front_slots() + range.len() <= MAX_LEN {
            header.data_start = to as u32;
            header.front += range.len() as u16;
        } else if range.end < len {
            buffer.copy_within(to..header.start(buffer, len), from);
            for slot in range.end..len {
                let (end, is_integer) = header.slot(buffer, slot);
                header.write_slot(buffer, slot - range.len(), end - (to - from), is_integer);
            }
        }
        header.count -= range.len() as u16;
    }

    fn has_room(&self, bytes: usize, side: Side) -> bool {
        let header = &self.0.header;
        match side {
            Side::Start => header.front_slots() > 0 && header.data_start as usize >= bytes,
            Side::End => header.gap(&self.0.slice) >= bytes + header.width(),
        }
    }

    /// Makes room for an element of so many bytes on one side: by moving what is there if that frees enough for some
    /// more such pushes, else in a larger allocation.
    fn make_room(&mut self, bytes: usize, side: Side) {
        let (capacity, width) = (self.capacity(), self.0.header.width());
        let slots = self.len() + 1;
        let content = self.data_len() + bytes;
        let mut wanted = content + slots * width;
        if wanted <= capacity || side == Side::Start {
            wanted += wanted / 16;
        }
        if wanted > capacity {
            let narrow = capacity_for(wanted);
            let wide = capacity_for(wanted + slots * (4 - width));
            self.rebuild(if narrow <= NARROW_MAX {
                narrow
            } else {
                wide.max(NARROW_MAX + 1)
            });
        }
        let spare = self.capacity() - content - slots * self.0.header.width();
        let (mut data_start, mut front) = (0, 0);
        if side == Side::Start {
            // Half of what is spare goes to the start, shared between bytes and slots as an average element needs it.
            let width = self.0.header.width();
            let average = content / slots + width;
            front = (1 + spare / 2 / average).min(MAX_LEN);
            data_start = bytes + (spare / 2).saturating_sub((front - 1) * width);
        }
        self.arrange(data_start, front);
    }

    /// Moves to an allocation of another capacity, without room at the start.
    fn rebuild(&mut self, capacity: usize) {
        let old = &self.0.header;
        let mut chunk = Chunk::allocate(
            Header {
                data_start: 0,
                front: 0,
                ..*old
            },
            capacity,
        );
        let (header, buffer) = chunk.writable();
        let (start, end) = (old.data_start as usize, old.data_end(&self.0.slice));
        buffer[..end - start].copy_from_slice(&self.0.slice[start..end]);
        for slot in 0..old.len() {
            let (end, is_integer) = old.slot(&self.0.slice, slot);
            header.write_slot(buffer, slot, end - start, is_integer);
        }
        *self = chunk;
    }

    /// Moves elements and slots within the allocation.
    fn arrange(&mut self, data_start: usize, front: usize) {
        let (header, buffer) = self.writable();
        let old = *header;
        if data_start == old.data_start as usize && front == old.front_slots() {
            return;
        }
        let (start, end) = (old.data_start as usize, old.data_end(buffer));
        header.data_start = data_start as u32;
        header.front = front as u16 | (old.front & WIDE);
        // Bytes that move down leave their place before slots may enter it; bytes that move up enter after slots have left.
        let moves_down = data_start < start;
        if moves_down {
            buffer.copy_within(start..end, data_start);
        }
        let mut move_slot = |slot| {
            let (end, is_integer) = old.slot(buffer, slot);
            header.write_slot(buffer, slot, end - start + data_start, is_integer);
        };
        if front > old.front_slots() {
            (0..old.len()).rev().for_each(&mut move_slot);
        } else {
            (0..old.len()).for_each(&mut move_slot);
        }
        if !moves_down {
            buffer.copy_within(start..end, data_start);
        }
    }

    /// Gives memory back when less than half is used.
    fn shrink(&mut self) {
        let used = self.data_len() + self.len() * self.0.header.width();
        if self.len() > 0 && self.capacity() >= SHRINK_MIN && used * 2 <= self.capacity() {
            self.rebuild(capacity_for(used));
        }
    }
}

impl Header {
    const EMPTY: Header = Header {
        weight: LISTPACK_EMPTY as u32,
        data_start: 0,
        count: 0,
        front: 0,
    };

    fn len(&self) -> usize {
        (self.count & !REVERSED) as usize
    }

    fn is_reversed(&self) -> bool {
        self.count & REVERSED != 0
    }

    fn front_slots(&self) -> usize {
        (self.front & !WIDE) as usize
    }

    /// Bytes per slot.
    fn width(&self) -> usize {
        if self.front & WIDE != 0 { 4 } else { 2 }
    }

    fn stored_index(&self, index: usize) -> usize {
        if self.is_reversed() {
            self.len() - 1 - index
        } else {
            index
        }
    }

    /// Where the bytes of a stored element begin; where the last one ends if `index` is the length.
    fn start(&self, buffer: &[u8], index: usize) -> usize {
        match index {
            0 => self.data_start as usize,
            _ => self.slot(buffer, index - 1).0,
        }
    }

    fn data_end(&self, buffer: &[u8]) -> usize {
        self.start(buffer, self.len())
    }

    fn bounds(&self, buffer: &[u8], index: usize) -> (usize, usize, bool) {
        let (end, is_integer) = self.slot(buffer, index);
        (self.start(buffer, index), end, is_integer)
    }

    fn element<'a>(&self, buffer: &'a [u8], index: usize) -> Element<'a> {
        let (start, end, is_integer) = self.bounds(buffer, index);
        let bytes = &buffer[start..end];
        if is_integer {
            Element::Integer(IntegerBytes::read(bytes))
        } else {
            Element::Text(bytes)
        }
    }

    fn slot_offset(&self, buffer: &[u8], index: usize) -> usize {
        buffer.len() - (self.front_slots() + index + 1) * self.width()
    }

    /// End offset of a stored element, and whether it is an integer.
    #[inline]
    fn slot(&self, buffer: &[u8], index: usize) -> (usize, bool) {
        let at = self.slot_offset(buffer, index);
        if self.width() == 2 {
            let slot = u16::from_le_bytes([buffer[at], buffer[at + 1]]);
            (
                (slot & !NARROW_INTEGER) as usize,
                slot & NARROW_INTEGER != 0,
            )
        } else {
            let slot =
                u32::from_le_bytes([buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]]);
            ((slot & !WIDE_INTEGER) as usize, slot & WIDE_INTEGER != 0)
        }
    }

    #[inline]
    fn write_slot(&self, buffer: &mut [u8], index: usize, end: usize, is_integer: bool) {
        let at = self.slot_offset(buffer, index);
        if self.width() == 2 {
            let slot = end as u16 | if is_integer { NARROW_INTEGER } else { 0 };
            buffer[at..at + 2].copy_from_slice(&slot.to_le_bytes());
        } else {
            let slot = end as u32 | if is_integer { WIDE_INTEGER } else { 0 };
            buffer[at..at + 4].copy_from_slice(&slot.to_le_bytes());
        }
    }

    /// Bytes between the elements and the table.
    fn gap(&self, buffer: &[u8]) -> usize {
        buffer.len() - (self.front_slots() + self.len()) * self.width() - self.data_end(buffer)
    }
}

/// An integer in as few little-endian bytes as keep its sign; zero takes none.
struct IntegerBytes {
    bytes: [u8; 8],
    len: usize,
}

impl IntegerBytes {
    #[inline]
    fn new(number: i64) -> IntegerBytes {
        // Leading bits that repeat the sign, but for one, are not needed.
        let sign_bits = (number ^ (number >> 63)).leading_zeros();
        let len = if number == 0 {
            0
        } else {
            (64 - sign_bits as usize + 1).div_ceil(8)
        };
        IntegerBytes {
            bytes: number.to_le_bytes(),
            len,
        }
    }

    /// The bytes of an element that is an integer; nothing for others.
    #[inline]
    fn of(element: Element<'_>) -> IntegerBytes {
        match element {
            Element::Integer(number) => IntegerBytes::new(number),
            Element::Text(_) => IntegerBytes {
                bytes: [0; 8],
                len: 0,
            },
        }
    }

    #[inline]
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Back to the integer; takes at most the first 8 bytes.
    #[inline]
    fn read(bytes: &[u8]) -> i64 {
        let len = bytes.len().min(8);
        let mut word = [0; 8];
        word[8 - len..].copy_from_slice(&bytes[..len]);
        match len {
            0 => 0,
            _ => i64::from_le_bytes(word) >> (64 - 8 * len),
        }
    }
}

/// The bytes to store for an element, and whether they are an integer's.
#[inline]
fn content<'a>(element: Element<'a>, integer: &'a IntegerBytes) -> (&'a [u8], bool) {
    match element {
        Element::Text(bytes) => (bytes, false),
        Element::Integer(_) => (integer.as_slice(), true),
    }
}

/// The largest buffer that shares a size class with one of `bytes`.
fn capacity_for(bytes: usize) -> usize {
    size_class(OVERHEAD + bytes) - OVERHEAD
}

/// What the allocator hands out for `bytes`: multiples of 8 up to 64, then four classes per doubling.
fn size_class(bytes: usize) -> usize {
    if bytes <= 64 {
        return bytes.next_multiple_of(8);
    }
    let step = 1 << ((bytes - 1).ilog2() - 2);
    bytes.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn size_classes_are_those_of_the_allocator() {
        let classes = [
            1, 8, 9, 64, 65, 81, 97, 113, 129, 161, 256, 257, 4097, 7169, 8192, 8193,
        ]
        .map(size_class);
        let expected = [
            8, 8, 16, 64, 80, 96, 112, 128, 160, 192, 256, 320, 5120, 8192, 8192, 10240,
        ];
        assert_eq!(classes, expected);
    }

    #[test]
    fn integers_take_as_few_bytes_as_possible() {
        for (number, len) in [
            (0, 0),
            (1, 1),
            (-1, 1),
            (127, 1),
            (128, 2),
            (-128, 1),
            (-129, 2),
            (i64::MAX, 8),
            (i64::MIN, 8),
        ] {
            let bytes = IntegerBytes::new(number);
            assert_eq!(bytes.as_slice().len(), len, "{number}");
            assert_eq!(IntegerBytes::read(bytes.as_slice()), number);
        }
    }

    #[test]
    fn two_hundred_and_forty_elements_of_32_bytes_fill_8_kib() {
        let mut chunk = Chunk::with_capacity(0);
        for _ in 0..240 {
            chunk.push_front(Element::Text(&[b'x'; 32]));
        }
        assert_eq!(chunk.allocated_bytes(), 8192);
        assert_eq!(chunk.weight(), 7 + 240 * 34);
    }

    #[derive(Debug, Clone)]
    enum Step {
        PushBack(Vec<u8>),
        PushFront(Vec<u8>),
        PopBack,
        PopFront,
        Insert(usize, Vec<u8>),
        Remove(usize, usize),
        Replace(usize, Vec<u8>),
        SplitAndSwap(usize),
        SplitAndJoin(usize),
        Clone,
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..40),
            2 => any::<i64>().prop_map(|number| number.to_string().into_bytes()),
            2 => (-200..200i64).prop_map(|number| number.to_string().into_bytes()),
            1 => (0..12_000usize).prop_map(|len| vec![b'v'; len]),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => value().prop_map(Step::PushBack),
            6 => value().prop_map(Step::PushFront),
            4 => Just(Step::PopBack),
            4 => Just(Step::PopFront),
            3 => (any::<usize>(), value()).prop_map(|(at, value)| Step::Insert(at, value)),
            2 => (any::<usize>(), 0..5usize).prop_map(|(at, len)| Step::Remove(at, len)),
            3 => (any::<usize>(), value()).prop_map(|(at, value)| Step::Replace(at, value)),
            1 => any::<usize>().prop_map(Step::SplitAndSwap),
            1 => any::<usize>().prop_map(Step::SplitAndJoin),
            1 => Just(Step::Clone),
        ]
    }

    fn check(chunk: &Chunk, model: &VecDeque<Vec<u8>>) {
        assert_eq!(chunk.len(), model.len());
        assert!(
            chunk
                .iter()
                .map(|element| element.to_vec())
                .eq(model.iter().cloned())
        );
        let weight: usize = model
            .iter()
            .map(|value| listpack_len(Element::new(value)))
            .sum();
        assert_eq!(chunk.weight(), LISTPACK_EMPTY + weight);
        assert!(chunk.data_len() + chunk.len() * 2 <= chunk.capacity());
    }

    proptest! {
        #[test]
        fn a_chunk_is_a_deque_and_its_clones_never_change(steps in prop::collection::vec(step(), 1..200)) {
            let mut chunk = Chunk::with_capacity(0);
            let mut model: VecDeque<Vec<u8>> = VecDeque::new();
            let mut clones = Vec::new();
            for step in steps {
                let len = model.len();
                match step {
                    Step::PushBack(value) => {
                        chunk.push_back(Element::new(&value));
                        model.push_back(value);
                    }
                    Step::PushFront(value) => {
                        chunk.push_front(Element::new(&value));
                        model.push_front(value);
                    }
                    Step::PopBack if len > 0 => {
                        chunk.remove(len - 1..len);
                        model.pop_back();
                    }
                    Step::PopFront if len > 0 => {
                        chunk.remove(0..1);
                        model.pop_front();
                    }
                    Step::Insert(at, value) => {
                        chunk.insert(at % (len + 1), Element::new(&value));
                        model.insert(at % (len + 1), value);
                    }
                    Step::Remove(at, run) => {
                        let range = at % (len + 1)..(at % (len + 1) + run).min(len);
                        chunk.remove(range.clone());
                        model.drain(range);
                    }
                    Step::Replace(at, value) if len > 0 => {
                        chunk.replace(at % len, Element::new(&value));
                        model[at % len] = value;
                    }
                    Step::SplitAndSwap(at) => {
                        let right = chunk.split_off(at % (len + 1));
                        let right_model = model.split_off(at % (len + 1));
                        check(&chunk, &model);
                        (chunk, model) = (right, right_model);
                    }
                    Step::SplitAndJoin(at) => {
                        let right = chunk.split_off(at % (len + 1));
                        chunk.append(&right);
                    }
                    Step::Clone => clones.push((chunk.clone(), model.clone())),
                    _ => {}
                }
                check(&chunk, &model);
            }
            for (chunk, model) in &clones {
                check(chunk, model);
            }
        }

        #[test]
        fn a_queue_in_one_chunk_does_not_grow(lens in prop::collection::vec(0..60usize, 2000)) {
            let mut chunk = Chunk::with_capacity(0);
            for len in lens {
                chunk.push_front(Element::Text(&[b'q'; 60][..len]));
                if chunk.len() > 20 {
                    let last = chunk.len() - 1;
                    chunk.remove(last..last + 1);
                }
            }
            prop_assert!(chunk.capacity() < 20 * 62 * 3 / 2);
        }
    }
}
