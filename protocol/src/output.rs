//! Bytes on their way out: one buffer, with large values spliced in by reference.
//!
//! ```text
//! buf      $100000 CRLF | CRLF +OK CRLF
//! shared                ^ 100,000 bytes that belong to a stored value
//! ```
//!
//! Small pieces are appended to the buffer; a large reference-counted value is only noted with its position, and sent
//! with vectored writes straight from where it is stored.

use bytes::Bytes;

/// Values below this are copied: that is cheaper than one more segment of a vectored write.
pub const MIN_SHARED_LEN: usize = 4 * 1024;

/// What a cleared buffer may keep for the next reply.
pub const RETAINED_CAPACITY: usize = 64 * 1024;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Output {
    buf: Vec<u8>,
    /// In order of position.
    shared: Vec<Shared>,
    shared_len: usize,
}

#[derive(Debug)]
struct Shared {
    /// It comes after so many bytes of the buffer.
    position: usize,
    bytes: Bytes,
}

/// An end to go back to with [`Output::truncate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    buffered: usize,
    shared: usize,
}

impl Output {
    pub const fn new() -> Self {
        Output {
            buf: Vec::new(),
            shared: Vec::new(),
            shared_len: 0,
        }
    }

    /// Bytes in all, spliced ones included.
    #[inline]
    pub fn len(&self) -> usize {
        self.buf.len() + self.shared_len
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty() && self.shared.is_empty()
    }

    /// Bytes that this output itself has allocated.
    pub fn capacity(&self) -> usize {
        self.buf.capacity() + self.shared.capacity() * size_of::<Shared>()
    }

    /// The buffer, to append to. What was in it before must stay.
    #[inline]
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }

    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Appends without copying, if that pays.
    pub fn push_shared(&mut self, bytes: Bytes) {
        if bytes.len() < MIN_SHARED_LEN {
            self.buf.extend_from_slice(&bytes);
            return;
        }
        self.shared_len += bytes.len();
        self.shared.push(Shared {
            position: self.buf.len(),
            bytes,
        });
    }

    /// The present end.
    #[inline]
    pub fn mark(&self) -> Mark {
        Mark {
            buffered: self.buf.len(),
            shared: self.shared.len(),
        }
    }

    /// Bytes appended since `mark`.
    pub fn len_since(&self, mark: Mark) -> usize {
        let shared = self.shared.get(mark.shared..).unwrap_or_default();
        let spliced: usize = shared.iter().map(|shared| shared.bytes.len()).sum();
        self.buf.len().saturating_sub(mark.buffered) + spliced
    }

    /// Takes back what was appended since `mark`.
    pub fn truncate(&mut self, mark: Mark) {
        self.buf.truncate(mark.buffered);
        self.shared.truncate(mark.shared);
        self.shared_len = self.shared.iter().map(|shared| shared.bytes.len()).sum();
    }

    /// Puts a few bytes where the end was at `mark`.
    ///
    /// What follows moves if it is small; otherwise the bytes become a piece of their own, so that the cost does not
    /// grow with a large reply. Marks set after `mark` are void.
    pub fn insert(&mut self, mark: Mark, bytes: &[u8]) {
        let position = mark.buffered.min(self.buf.len());
        let behind = self.shared.len().min(mark.shared);
        if self.buf.len() - position < MIN_SHARED_LEN {
            // Grows by the missing bytes, then turns them to the front of what follows.
            self.buf.extend_from_slice(bytes);
            self.buf[position..].rotate_right(bytes.len());
            for shared in &mut self.shared[behind..] {
                shared.position += bytes.len();
            }
        } else {
            self.shared_len += bytes.len();
            let bytes = Bytes::copy_from_slice(bytes);
            self.shared.insert(behind, Shared { position, bytes });
        }
    }

    /// Everything, when nothing is spliced in.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        self.shared.is_empty().then_some(&self.buf)
    }

    /// The pieces to write, in order; none is empty.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.segments_from(0)
    }

    /// The pieces that remain when the first `written` bytes are gone.
    pub fn segments_from(&self, written: usize) -> impl Iterator<Item = &[u8]> {
        let mut copied = 0;
        let mut skip = written;
        self.shared
            .iter()
            .map(Some)
            .chain([None])
            .flat_map(move |shared| {
                let end = shared.map_or(self.buf.len(), |shared| shared.position);
                let own = &self.buf[copied..end];
                copied = end;
                [own, shared.map_or(&[][..], |shared| &shared.bytes)]
            })
            .filter_map(move |segment| {
                let skipped = skip.min(segment.len());
                skip -= skipped;
                Some(&segment[skipped..]).filter(|rest| !rest.is_empty())
            })
    }

    /// Appends all of `other`, whose shared parts stay shared.
    pub fn append(&mut self, other: &Output) {
        let offset = self.buf.len();
        self.buf.extend_from_slice(&other.buf);
        self.shared.extend(other.shared.iter().map(|shared| Shared {
            position: shared.position + offset,
            bytes: shared.bytes.clone(),
        }));
        self.shared_len += other.shared_len;
    }

    /// A copy of everything in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        self.segments()
            .for_each(|segment| all.extend_from_slice(segment));
        all
    }

    /// Forgets the contents and keeps the buffer, unless an unusual reply made it large.
    pub fn clear(&mut self) {
        self.shared_len = 0;
        if self.capacity() > RETAINED_CAPACITY {
            self.buf = Vec::new();
            self.shared = Vec::new();
        } else {
            self.buf.clear();
            self.shared.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn large(byte: u8) -> Bytes {
        Bytes::from(vec![byte; MIN_SHARED_LEN])
    }

    #[test]
    fn spliced_values_appear_where_they_were_pushed() {
        let mut output = Output::new();
        output.push_shared(large(b'a'));
        output.push(b"one");
        output.push_shared(large(b'b'));
        output.push_shared(large(b'c'));
        output.push(b"two");
        let expected = [&large(b'a')[..], b"one", &large(b'b'), &large(b'c'), b"two"];
        assert_eq!(output.segments().collect::<Vec<_>>(), expected);
        assert_eq!(output.to_vec(), expected.concat());
        assert_eq!(output.len(), expected.concat().len());
        assert_eq!(output.as_bytes(), None);
        for written in [0, 1, MIN_SHARED_LEN, MIN_SHARED_LEN + 2, output.len()] {
            let rest: Vec<&[u8]> = output.segments_from(written).collect();
            assert_eq!(rest.concat(), expected.concat()[written..]);
        }
    }

    #[test]
    fn small_values_are_copied() {
        let mut output = Output::new();
        output.push_shared(Bytes::from_static(b"small"));
        assert_eq!(output.as_bytes(), Some(&b"small"[..]));
    }

    #[test]
    fn truncate_takes_back_both_kinds() {
        let mut output = Output::new();
        output.push(b"stays");
        output.push_shared(large(b'a'));
        let mark = output.mark();
        let before = output.to_vec();
        output.push(b"goes");
        output.push_shared(large(b'b'));
        assert_eq!(output.len_since(mark), 4 + MIN_SHARED_LEN);
        output.truncate(mark);
        assert_eq!(output.to_vec(), before);
        assert_eq!(output.len(), before.len());
    }

    #[test]
    fn insert_puts_bytes_before_small_and_large_tails() {
        for tail in [0, 10, MIN_SHARED_LEN, 3 * MIN_SHARED_LEN] {
            let mut output = Output::new();
            output.push(b"head");
            output.push_shared(large(b'a'));
            let mark = output.mark();
            output.push_shared(large(b'b'));
            output.push(&vec![b't'; tail]);
            output.push_shared(large(b'c'));
            output.insert(mark, b"HEADER");
            let expected = [
                b"head",
                &large(b'a')[..],
                b"HEADER",
                &large(b'b'),
                &vec![b't'; tail],
                &large(b'c'),
            ];
            assert_eq!(output.to_vec(), expected.concat());
            assert_eq!(output.len(), expected.concat().len());
        }
    }

    #[test]
    fn append_keeps_shared_parts_shared() {
        let mut other = Output::new();
        other.push(b"x");
        other.push_shared(large(b'a'));
        other.push(b"y");
        let mut output = Output::new();
        output.push(b"first");
        output.append(&other);
        assert_eq!(output.to_vec(), [b"first", &other.to_vec()[..]].concat());
        assert_eq!(output.segments().count(), 3);
    }

    #[test]
    fn clear_keeps_ordinary_buffers_only() {
        let mut output = Output::new();
        output.push(b"some");
        output.clear();
        assert!(output.is_empty() && output.capacity() > 0);
        output.push(&vec![0; RETAINED_CAPACITY + 1]);
        output.push_shared(large(b'a'));
        output.clear();
        assert!(output.is_empty() && output.capacity() == 0);
        assert_eq!(output.len(), 0);
    }
}
