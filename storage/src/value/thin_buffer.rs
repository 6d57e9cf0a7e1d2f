//! A growable byte buffer behind one thin pointer: what the small encodings live in.
//!
//! `Vec<u8>` costs 24 bytes where it is held and doubles as it grows. Small collections exist by the million, so this
//! buffer costs 8 bytes where it is held and an 8-byte header on the heap, and grows to the allocator's next size class,
//! never beyond. An empty buffer that nothing was noted on owns no memory.
//!
//! ```text
//! bytes 0-3   length in bytes
//! bytes 4-7   note (24 bits, the owner's) · mark (1 bit, the owner's) · size class (7 bits)
//!             bytes
//! ```

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc},
    ptr::{self, NonNull},
    slice,
};

/// The most bytes a buffer may hold.
pub(crate) const MAX_LEN: usize = 1 << 30;

/// The largest note.
pub(crate) const MAX_NOTE: usize = (1 << NOTE_BITS) - 1;

const HEADER: usize = size_of::<Header>();
const NOTE_BITS: u32 = 24;
const MARK_BIT: u32 = 1 << NOTE_BITS;
const CLASS_SHIFT: u32 = NOTE_BITS + 1;
/// Class 0 stands for the shared empty header, which is not on the heap.
const UNALLOCATED: u8 = 0;
/// Classes up to here are 8 bytes apart, up to 64 bytes; above there are four between each two powers of two.
const FINE_CLASSES: u8 = 8;

const _: () = assert!(class_of(MAX_LEN + HEADER) < 128);

/// The bytes the allocator sets aside for a request of `bytes`.
pub(crate) const fn allocation_size(bytes: usize) -> usize {
    if bytes == 0 {
        return 0;
    }
    class_size(class_of(bytes))
}

const fn class_of(bytes: usize) -> u8 {
    if bytes <= 64 {
        return bytes.div_ceil(8) as u8;
    }
    let last = bytes - 1;
    let shift = last.ilog2();
    let quarter = (last - (1 << shift)) >> (shift - 2);
    FINE_CLASSES + (shift as u8 - 6) * 4 + quarter as u8 + 1
}

const fn class_size(class: u8) -> usize {
    if class <= FINE_CLASSES {
        return class as usize * 8;
    }
    let step = (class - FINE_CLASSES - 1) as usize;
    let base = 64 << (step / 4);
    base + (step % 4 + 1) * (base / 4)
}

#[repr(C, align(8))]
struct Header {
    len: u32,
    info: u32,
}

static EMPTY: Header = Header { len: 0, info: 0 };

/// See the module's description.
///
/// Invariants: `header` points to [`EMPTY`], or to an allocation of `class_size(class)` bytes that this buffer owns,
/// whose first `HEADER + len` bytes are initialised.
#[repr(transparent)]
pub(crate) struct ThinBuffer {
    header: NonNull<Header>,
}

// SAFETY: the buffer owns its bytes; shared access only reads; `EMPTY` is never written.
unsafe impl Send for ThinBuffer {}
// SAFETY: as above.
unsafe impl Sync for ThinBuffer {}

impl ThinBuffer {
    pub(crate) const fn new() -> Self {
        ThinBuffer {
            header: NonNull::from_ref(&EMPTY),
        }
    }

    pub(crate) fn with_capacity(bytes: usize) -> Self {
        let mut buffer = ThinBuffer::new();
        buffer.reserve(bytes);
        buffer
    }

    /// Gives up ownership; undone by [`ThinBuffer::from_raw`]. The pointer is aligned to 8 bytes.
    pub(crate) fn into_raw(self) -> NonNull<u8> {
        let header = self.header;
        std::mem::forget(self);
        header.cast()
    }

    /// # Safety
    /// * `raw` came from [`ThinBuffer::into_raw`], and is turned back only once.
    pub(crate) unsafe fn from_raw(raw: NonNull<u8>) -> Self {
        ThinBuffer { header: raw.cast() }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.header().len as usize
    }

    /// The owner's 24-bit note.
    #[inline]
    pub(crate) fn note(&self) -> usize {
        (self.header().info & (MARK_BIT - 1)) as usize
    }

    /// The owner's mark.
    #[inline]
    pub(crate) fn mark(&self) -> bool {
        self.header().info & MARK_BIT != 0
    }

    pub(crate) fn set_note(&mut self, note: usize) {
        assert!(note <= MAX_NOTE, "callers bound what they note");
        let header = self.owned_header();
        header.info = (header.info & !(MARK_BIT - 1)) | note as u32;
    }

    pub(crate) fn set_mark(&mut self, mark: bool) {
        let header = self.owned_header();
        header.info = (header.info & !MARK_BIT) | if mark { MARK_BIT } else { 0 };
    }

    /// The bytes this buffer has on the heap.
    pub(crate) fn memory_bytes(&self) -> usize {
        class_size(self.class())
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: the `len` bytes after the header are initialised, and borrowed with `self`.
        unsafe { slice::from_raw_parts(self.bytes(), self.len()) }
    }

    /// Makes room for `additional` bytes, up to the size class that holds them.
    pub(crate) fn reserve(&mut self, additional: usize) {
        if additional == 0 {
            return;
        }
        let needed = HEADER + self.len() + additional;
        assert!(
            needed <= HEADER + MAX_LEN,
            "callers bound the size of small collections"
        );
        if needed > class_size(self.class()) {
            self.reallocate(class_of(needed));
        }
    }

    /// Replaces `removed` bytes from `at` by `parts`, one after another. O(bytes after `at`).
    pub(crate) fn splice(&mut self, at: usize, removed: usize, parts: &[&[u8]]) {
        let old_len = self.len();
        assert!(
            at <= old_len && removed <= old_len - at,
            "a range inside the buffer"
        );
        let added: usize = parts.iter().map(|part| part.len()).sum();
        if added > removed {
            self.reserve(added - removed);
        } else if added == removed && added == 0 {
            return;
        }
        let new_len = old_len - removed + added;
        // SAFETY: `at + removed <= old_len` and the capacity is at least `new_len`: reserved above, or `new_len` is not
        // more than `old_len`. The parts are borrowed, so they cannot lie inside this buffer, borrowed mutably.
        unsafe {
            let gap = self.bytes().add(at);
            ptr::copy(gap.add(removed), gap.add(added), old_len - at - removed);
            let mut to = gap;
            for part in parts {
                ptr::copy_nonoverlapping(part.as_ptr(), to, part.len());
                to = to.add(part.len());
            }
        }
        // Something was added or removed, so this is not `EMPTY`.
        self.owned_header().len = new_len as u32;
        if new_len < old_len {
            self.shrink();
        }
    }

    /// Moves to a smaller class when that is two or more below: one class of slack spares buffers that grow and shrink
    /// in turns from being moved each time.
    fn shrink(&mut self) {
        let class = class_of(HEADER + self.len());
        if class + 2 <= self.class() {
            self.reallocate(class);
        }
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: by the type's invariant, `header` is valid for reads as long as the buffer lives.
        unsafe { self.header.as_ref() }
    }

    /// The header for writing, moved to the heap first if it is still the shared one.
    fn owned_header(&mut self) -> &mut Header {
        if self.class() == UNALLOCATED {
            self.reallocate(class_of(HEADER));
        }
        // SAFETY: not `EMPTY` any more, so it is owned; `&mut self` makes the borrow unique.
        unsafe { self.header.as_mut() }
    }

    #[inline]
    fn class(&self) -> u8 {
        (self.header().info >> CLASS_SHIFT) as u8
    }

    #[inline]
    fn bytes(&self) -> *mut u8 {
        // SAFETY: `EMPTY` and every allocation have at least `HEADER` bytes; one past the end is allowed.
        unsafe { self.header.as_ptr().cast::<u8>().add(HEADER) }
    }

    /// Moves to an allocation of `class`, which must hold the header and the current bytes.
    #[cold]
    fn reallocate(&mut self, class: u8) {
        let old_class = self.class();
        let layout = layout_of(class);
        debug_assert!(HEADER + self.len() <= layout.size());
        // SAFETY: `layout` is not empty as classes above 0 are at least 8 bytes. A class other than `UNALLOCATED` says
        // that `header` came from this allocator with the layout of that class.
        let raw = unsafe {
            if old_class == UNALLOCATED {
                alloc(layout)
            } else {
                realloc(
                    self.header.as_ptr().cast(),
                    layout_of(old_class),
                    layout.size(),
                )
            }
        };
        let Some(header) = NonNull::new(raw.cast::<Header>()) else {
            handle_alloc_error(layout);
        };
        self.header = header;
        // SAFETY: the allocation is ours and at least `HEADER` bytes; `realloc` kept the header, a fresh one is written.
        unsafe {
            if old_class == UNALLOCATED {
                header.write(Header { len: 0, info: 0 });
            }
            let info = (*header.as_ptr()).info & ((1 << CLASS_SHIFT) - 1);
            (*header.as_ptr()).info = info | (u32::from(class) << CLASS_SHIFT);
        }
    }
}

impl Default for ThinBuffer {
    fn default() -> Self {
        ThinBuffer::new()
    }
}

impl Clone for ThinBuffer {
    fn clone(&self) -> Self {
        let mut clone = ThinBuffer::with_capacity(self.len());
        clone.splice(0, 0, &[self.as_slice()]);
        if self.class() != UNALLOCATED {
            clone.set_note(self.note());
            clone.set_mark(self.mark());
        }
        clone
    }
}

impl Drop for ThinBuffer {
    fn drop(&mut self) {
        let class = self.class();
        if class != UNALLOCATED {
            // SAFETY: by the type's invariant the allocation is ours and has this layout; it is not used again.
            unsafe { dealloc(self.header.as_ptr().cast(), layout_of(class)) }
        }
    }
}

fn layout_of(class: u8) -> Layout {
    Layout::from_size_align(class_size(class), align_of::<Header>())
        .expect("classes stay far below isize::MAX")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_the_smallest_that_hold_the_bytes() {
        let sizes = [
            8, 16, 24, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768,
            896, 1024, 1280,
        ];
        for window in sizes.windows(2) {
            assert_eq!(allocation_size(window[0]), window[0]);
            if window[0] >= 56 {
                assert_eq!(allocation_size(window[0] + 1), window[1]);
            }
        }
        for bytes in 1..5000 {
            let class = class_of(bytes);
            assert!(
                class_size(class) >= bytes && class_size(class - 1) < bytes,
                "{bytes}"
            );
        }
    }

    #[test]
    fn a_new_buffer_owns_nothing_and_reads_as_empty() {
        let buffer = ThinBuffer::new();
        assert_eq!(
            (
                buffer.len(),
                buffer.note(),
                buffer.mark(),
                buffer.memory_bytes()
            ),
            (0, 0, false, 0)
        );
        assert_eq!(buffer.as_slice(), b"");
        assert_eq!(buffer.clone().memory_bytes(), 0);
    }

    #[test]
    fn splices_do_what_a_vec_does() {
        let mut buffer = ThinBuffer::new();
        let mut model = Vec::new();
        let mut state = 7u32;
        let mut next = |bound: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % bound
        };
        for round in 0..2000 {
            let at = next(model.len() + 1);
            let removed = next(model.len() - at + 1).min(if round % 3 == 0 { 40 } else { 4 });
            let first = vec![round as u8; next(9)];
            let second = vec![(round as u8).wrapping_add(1); next(9)];
            buffer.splice(at, removed, &[&first, &second]);
            model.splice(at..at + removed, first.into_iter().chain(second));
            assert_eq!(buffer.as_slice(), model);
            assert!(buffer.memory_bytes() >= HEADER.min(model.len() * 8) + model.len());
        }
        buffer.set_note(MAX_NOTE);
        buffer.set_mark(true);
        let clone = buffer.clone();
        assert_eq!(
            (clone.note(), clone.mark(), clone.as_slice()),
            (MAX_NOTE, true, buffer.as_slice())
        );
        buffer.splice(0, buffer.len(), &[]);
        assert_eq!(
            (buffer.len(), buffer.note(), buffer.mark()),
            (0, MAX_NOTE, true)
        );
        assert!(buffer.memory_bytes() <= 24);
    }
}
