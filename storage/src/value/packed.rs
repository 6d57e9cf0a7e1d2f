//! A small collection as one compact buffer of elements, what clients know as a listpack.
//!
//! Elements follow one another with a one-byte tag each (see [`element`](super::element)); there are no links back, as
//! everything that walks a small collection walks it forwards. Eight bytes of header hold length, count and size class.
//! Every operation is O(bytes); owners bound count and element size, or at least ask [`Packed::fits`].

use super::{
    element::{Element, Encoded, encoded_len},
    thin_buffer::{self, ThinBuffer},
};

/// See the module's description.
///
/// Elements are addressed by [`Position`], obtained from [`Packed::find`], [`Packed::position`] or [`Iter::position`]
/// and good until the next change.
#[derive(Clone, Default)]
#[repr(transparent)]
pub struct Packed {
    /// The note is the number of elements.
    buffer: ThinBuffer,
}

/// Where an element begins, or the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(usize);

impl Packed {
    /// The most bytes a packed buffer holds.
    pub const MAX_BYTES: usize = thin_buffer::MAX_LEN;

    /// An empty collection, without allocating.
    pub const fn new() -> Self {
        Packed {
            buffer: ThinBuffer::new(),
        }
    }

    /// An empty collection with room for `bytes` of encoded elements: their text and a byte each, roughly.
    pub fn with_capacity(bytes: usize) -> Self {
        Packed {
            buffer: ThinBuffer::with_capacity(bytes.min(Self::MAX_BYTES)),
        }
    }

    pub(crate) fn into_buffer(self) -> ThinBuffer {
        self.buffer
    }

    pub(crate) fn from_buffer_ref(buffer: &ThinBuffer) -> &Self {
        // SAFETY: `Packed` is a transparent wrapper of `ThinBuffer`.
        unsafe { &*std::ptr::from_ref(buffer).cast() }
    }

    pub(crate) fn from_buffer_mut(buffer: &mut ThinBuffer) -> &mut Self {
        // SAFETY: as above, and the borrow is unique.
        unsafe { &mut *std::ptr::from_mut(buffer).cast() }
    }

    /// Number of elements. O(1).
    #[inline]
    pub fn len(&self) -> usize {
        self.buffer.note()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all encoded elements. O(1).
    pub fn encoded_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes on the heap. O(1).
    pub fn memory_bytes(&self) -> usize {
        self.buffer.memory_bytes()
    }

    /// Whether `elements` more with `text_bytes` of text in all stay within what a buffer can hold.
    pub fn fits(&self, elements: usize, text_bytes: usize) -> bool {
        // No encoding takes more than 5 bytes besides the text.
        let bytes = elements
            .checked_mul(5)
            .and_then(|heads| heads.checked_add(text_bytes));
        let total = bytes.and_then(|bytes| bytes.checked_add(self.buffer.len()));
        total.is_some_and(|total| total <= Self::MAX_BYTES)
            && elements <= thin_buffer::MAX_NOTE - self.len()
    }

    /// Makes room for `text_bytes` of text in `elements` short elements.
    pub fn reserve(&mut self, elements: usize, text_bytes: usize) {
        self.buffer.reserve(elements + text_bytes);
    }

    /// The elements in order.
    #[inline]
    pub fn iter(&self) -> Iter<'_> {
        self.iter_from(self.first())
    }

    /// The elements from `position` on.
    #[inline]
    pub fn iter_from(&self, position: Position) -> Iter<'_> {
        Iter {
            bytes: self.buffer.as_slice(),
            at: position.0,
        }
    }

    /// Position of the first element, which is the end if there is none.
    pub fn first(&self) -> Position {
        Position(0)
    }

    /// Position behind the last element.
    pub fn end(&self) -> Position {
        Position(self.buffer.len())
    }

    /// Position of the element at `index`; the end if there are not that many.
    pub fn position(&self, index: usize) -> Position {
        let mut iter = self.iter();
        for _ in 0..index {
            if !iter.skip_one() {
                break;
            }
        }
        iter.position()
    }

    /// The element at `position`, none at the end.
    #[inline]
    pub fn at(&self, position: Position) -> Option<Element<'_>> {
        self.iter_from(position).next()
    }

    /// The element at `index`.
    pub fn get(&self, index: usize) -> Option<Element<'_>> {
        self.at(self.position(index))
    }

    /// Position of the element after the one at `position`; the end stays the end.
    pub fn next(&self, position: Position) -> Position {
        let mut iter = self.iter_from(position);
        iter.skip_one();
        iter.position()
    }

    /// Position of the first element equal to `element` among those at index 0, `stride`, `2 * stride`, ...
    #[inline]
    pub fn find(&self, element: Element<'_>, stride: usize) -> Option<Position> {
        let encoded = element.encode();
        let bytes = self.buffer.as_slice();
        let mut at = 0;
        while at < bytes.len() {
            if encoded.begins(&bytes[at..]) {
                return Some(Position(at));
            }
            for _ in 0..stride {
                if at < bytes.len() {
                    at += encoded_len(&bytes[at..]);
                }
            }
        }
        None
    }

    /// Appends an element.
    pub fn push(&mut self, element: Element<'_>) {
        self.insert(self.end(), element);
    }

    /// Appends two elements, such as a field and its value, in one step.
    pub fn push_pair(&mut self, first: Element<'_>, second: Element<'_>) {
        self.insert_pair(self.end(), first, second);
    }

    /// Inserts an element before `position`.
    pub fn insert(&mut self, position: Position, element: Element<'_>) {
        let encoded = element.encode();
        self.splice(position, 0, 0, &[encoded]);
    }

    /// Inserts two elements before `position` in one step.
    pub fn insert_pair(&mut self, position: Position, first: Element<'_>, second: Element<'_>) {
        self.splice(position, 0, 0, &[first.encode(), second.encode()]);
    }

    /// Replaces the element at `position`.
    pub fn replace(&mut self, position: Position, element: Element<'_>) {
        let old = encoded_len(&self.buffer.as_slice()[position.0..]);
        self.splice(position, old, 1, &[element.encode()]);
    }

    /// Removes `count` elements from `position` on, or as many as there are.
    pub fn remove(&mut self, position: Position, count: usize) {
        let mut iter = self.iter_from(position);
        let mut removed = 0;
        while removed < count && iter.skip_one() {
            removed += 1;
        }
        let bytes = iter.position().0 - position.0;
        self.splice(position, bytes, removed, &[]);
    }

    fn splice(&mut self, position: Position, bytes: usize, removed: usize, added: &[Encoded<'_>]) {
        let count = self.len() - removed + added.len();
        match added {
            [one] => self
                .buffer
                .splice(position.0, bytes, &[one.head(), one.tail()]),
            [one, two] => self.buffer.splice(
                position.0,
                bytes,
                &[one.head(), one.tail(), two.head(), two.tail()],
            ),
            _ => self.buffer.splice(position.0, bytes, &[]),
        }
        if count != self.len() {
            self.buffer.set_note(count);
        }
    }
}

impl<'a> FromIterator<Element<'a>> for Packed {
    fn from_iter<I: IntoIterator<Item = Element<'a>>>(elements: I) -> Self {
        let mut packed = Packed::new();
        for element in elements {
            packed.push(element);
        }
        packed
    }
}

/// Walks a packed buffer forwards.
#[derive(Clone)]
pub struct Iter<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Iter<'_> {
    /// Position of the element that `next` will give.
    pub fn position(&self) -> Position {
        Position(self.at)
    }

    /// Steps over one element without decoding it. False at the end.
    pub fn skip_one(&mut self) -> bool {
        if self.at >= self.bytes.len() {
            return false;
        }
        self.at += encoded_len(&self.bytes[self.at..]);
        true
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let (element, len) = Element::decode(&self.bytes[self.at..]);
        self.at += len;
        Some(element)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Op {
        Push(Vec<u8>),
        PushPair(Vec<u8>, Vec<u8>),
        Insert(usize, Vec<u8>),
        Replace(usize, Vec<u8>),
        Remove(usize, usize),
        Clone,
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any::<i64>().prop_map(|integer| integer.to_string().into_bytes()),
            (-300i64..300).prop_map(|integer| integer.to_string().into_bytes()),
            proptest::collection::vec(any::<u8>(), 0..12),
            (0usize..400).prop_map(|len| vec![b'x'; len]),
            proptest::sample::select(vec![&b"007"[..], b"-0", b"+1", b"", b"9223372036854775808"])
                .prop_map(<[u8]>::to_vec),
        ]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => text().prop_map(Op::Push),
            2 => (text(), text()).prop_map(|(one, two)| Op::PushPair(one, two)),
            3 => (any::<usize>(), text()).prop_map(|(at, text)| Op::Insert(at, text)),
            3 => (any::<usize>(), text()).prop_map(|(at, text)| Op::Replace(at, text)),
            3 => (any::<usize>(), 0usize..4).prop_map(|(at, count)| Op::Remove(at, count)),
            1 => Just(Op::Clone),
        ]
    }

    fn texts(packed: &Packed) -> Vec<Vec<u8>> {
        packed.iter().map(Element::to_vec).collect()
    }

    proptest! {
        #[test]
        fn behaves_like_a_vec_of_texts(ops in proptest::collection::vec(op(), 0..80)) {
            let mut packed = Packed::new();
            let mut model: Vec<Vec<u8>> = Vec::new();
            let mut clones = Vec::new();
            for op in ops {
                match op {
                    Op::Push(text) => {
                        packed.push(Element::new(&text));
                        model.push(text);
                    }
                    Op::PushPair(one, two) => {
                        packed.push_pair(Element::new(&one), Element::new(&two));
                        model.extend([one, two]);
                    }
                    Op::Insert(at, text) => {
                        let at = at % (model.len() + 1);
                        packed.insert(packed.position(at), Element::new(&text));
                        model.insert(at, text);
                    }
                    Op::Replace(at, text) if !model.is_empty() => {
                        let at = at % model.len();
                        packed.replace(packed.position(at), Element::new(&text));
                        model[at] = text;
                    }
                    Op::Remove(at, count) if !model.is_empty() => {
                        let at = at % model.len();
                        packed.remove(packed.position(at), count);
                        model.drain(at..(at + count).min(model.len()));
                    }
                    Op::Clone => clones.push((packed.clone(), model.clone())),
                    _ => {}
                }
                prop_assert_eq!(packed.len(), model.len());
                prop_assert_eq!(texts(&packed), model.clone());
            }
            for stride in 1..3 {
                for (index, text) in model.iter().enumerate() {
                    let found = packed.find(Element::new(text), stride);
                    let expected = model.iter().step_by(stride).position(|other| other == text);
                    prop_assert_eq!(found, expected.map(|at| packed.position(at * stride)));
                    prop_assert_eq!(packed.get(index).map(Element::to_vec), Some(text.clone()));
                }
                prop_assert_eq!(packed.find(Element::new(b"absent"), stride), None);
            }
            for (clone, model) in clones {
                prop_assert_eq!(texts(&clone), model);
            }
        }
    }

    #[test]
    fn five_small_fields_fit_the_192_byte_class() {
        let mut packed = Packed::new();
        for field in 0..5 {
            packed.push_pair(
                Element::new(format!("f{field}").as_bytes()),
                Element::new(&[b'v'; 32]),
            );
        }
        assert!(packed.memory_bytes() <= 192, "{}", packed.memory_bytes());
    }

    #[test]
    fn what_could_not_be_held_does_not_fit() {
        let packed = Packed::new();
        assert!(packed.fits(2, 1 << 29));
        assert!(!packed.fits(2, 1 << 30));
        assert!(!packed.fits(1 << 24, 0));
        assert!(!packed.fits(usize::MAX, usize::MAX));
    }
}
