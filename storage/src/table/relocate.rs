//! Moving what lies in sparse pages of the allocator elsewhere, so that those pages become free.
//!
//! A page goes back to the system when nothing in it is used any more. Where values have come to be of another size, or
//! popular keys stay while others go, pages with a few survivors each can take more memory than the data does. Slots
//! hold addresses, so an entry moves by copying it and changing its slot; nothing else knows where it is.

use super::{Place, Table, Word};
use crate::{alloc, entry::Entry};

impl Table {
    /// Moves segments and entries that lie in pages of which `percent` or less is in use, and the buffers of long strings;
    /// nodes of collections stay. Looks at the segments from directory position `from` on until it has seen `budget`
    /// entries, a segment more at most; returns the next position, 0 at the end, and how many blocks have moved.
    pub fn relocate_sparse(
        &mut self,
        from: usize,
        budget: usize,
        percent: usize,
    ) -> (usize, usize) {
        let (mut index, mut seen, mut moved) = (from, 0, 0);
        while index < self.directory.len() {
            let depth = self.directory[index].header().depth;
            let span = 1usize << (self.depth - depth);
            let start = index & !(span - 1);
            moved += usize::from(self.relocate_segment(start, span, percent));
            let segment = self.directory[start];
            segment.visit(|bucket, slot| {
                seen += 1;
                let place = Place {
                    bucket,
                    slot,
                    segment,
                };
                moved += usize::from(self.relocate_entry(place, percent));
            });
            index = start + span;
            if seen >= budget {
                break;
            }
        }
        let end = index >= self.directory.len();
        (if end { 0 } else { index }, moved)
    }

    fn relocate_segment(&mut self, start: usize, span: usize, percent: usize) -> bool {
        let old = self.directory[start];
        if !alloc::is_in_sparse_page(old.base().as_ptr(), percent) {
            return false;
        }
        let new = self.new_segment(old.class(), old.header().depth);
        let bytes = Word::layout(old.class()).size();
        // SAFETY: both are segments of that size; the entries' addresses move with the bytes and are freed with neither.
        unsafe { std::ptr::copy_nonoverlapping(old.base().as_ptr(), new.base().as_ptr(), bytes) };
        self.directory[start..start + span].fill(new);
        self.free_segment(old);
        true
    }

    fn relocate_entry(&mut self, place: Place, percent: usize) -> bool {
        let buffer = self
            .entry_mut(place)
            .relocate_buffer(|block| alloc::is_in_sparse_page(block, percent));
        // SAFETY: the slot holds an owned entry; what is put in its place is owned as well.
        unsafe {
            let address = place.bucket.as_ref().address(place.slot);
            let block = std::ptr::with_exposed_provenance(address);
            if !alloc::is_in_sparse_page(block, percent) {
                return buffer;
            }
            let moved = Entry::from_address(address).relocated();
            let bucket = &mut *place.bucket.as_ptr();
            bucket.slots[place.slot] =
                bucket.slots[place.slot] & !super::ADDRESS_MASK | moved.into_address() as u64;
        }
        true
    }
}
