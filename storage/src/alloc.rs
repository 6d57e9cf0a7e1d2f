//! The process's memory allocator: mimalloc called without waste, and counted.
//!
//! mimalloc's size classes are 8 bytes apart up to 64 bytes when it is built for 8-byte minimum alignment, but only
//! `mi_malloc` uses a class to the full: `mi_malloc_aligned` over-allocates requests that exactly fill a class that is
//! not a power of two. So requests that need at most 8-byte alignment, nearly all, take `mi_malloc`, and so do larger
//! alignments first: blocks of a size that is a multiple of it are aligned as well, since mimalloc's pages are.
//!
//! Every allocation is counted by its block's size, known from its layout or asked of mimalloc, on a counter of the allocating thread's own, so that
//! [`allocated_bytes`] is the truth about what the process holds at no contention: a load and a store per call.

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
    ffi::c_void,
    sync::atomic::{AtomicIsize, AtomicUsize, Ordering},
};

use libmimalloc_sys as mi;

/// The alignment that `mi_malloc` promises for any size, as built by this workspace.
const PLAIN_ALIGN: usize = 8;

/// The first threads own a counter each; those that come after share the last one.
const COUNTERS: usize = 64;
const SHARED_COUNTER: usize = COUNTERS - 1;

const WORD: usize = 8;
/// Up to here size classes are a word apart, and up to the other a fourth of a power of two.
const EXACT_MAX: usize = 8 * WORD;
const CLASSES_MAX: usize = 8 * 1024;

#[repr(align(64))]
struct Counter(AtomicIsize);

static ALLOCATED: [Counter; COUNTERS] = [const { Counter(AtomicIsize::new(0)) }; COUNTERS];
static NEXT_COUNTER: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static COUNTER: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// The global allocator of the server.
pub struct Allocator;

/// Bytes that are allocated now, by usable size, over all threads. O(1), approximate only while others allocate.
pub fn allocated_bytes() -> usize {
    // Counters of threads that never were are zero, and best left out of the cache.
    let used = NEXT_COUNTER.load(Ordering::Relaxed).min(SHARED_COUNTER);
    let sum: isize = ALLOCATED[..used]
        .iter()
        .chain(&ALLOCATED[SHARED_COUNTER..])
        .map(|counter| counter.0.load(Ordering::Relaxed))
        .sum();
    sum.max(0) as usize
}

/// What an allocation of so many bytes takes.
pub fn good_size(bytes: usize) -> usize {
    // SAFETY: a computation without preconditions.
    unsafe { mi::mi_good_size(bytes) }
}

/// Returns memory that is free but still held to the operating system, as far as that is possible.
pub fn purge() {
    // SAFETY: collecting has no preconditions; it only touches the allocator's own state.
    unsafe { mi::mi_collect(true) }
}

/// Takes back what other threads have freed of this thread's memory, and gives free pages back. O(the thread's pages).
pub fn collect() {
    // SAFETY: as in `purge`.
    unsafe { mi::mi_collect(false) }
}

/// Whether the block lies in a page that is done growing and of which `percent` or less is in use. False for memory of
/// another allocator.
///
/// The page may be another thread's, that uses it meanwhile: the answer is a guess then.
pub(crate) fn is_in_sparse_page(block: *const u8, percent: usize) -> bool {
    // SAFETY: only reads counters of the page, which stays while the block is allocated, and it is the caller's. Counters
    // that others change meanwhile make the answer wrong, not the access invalid.
    unsafe {
        mi::mi_unsafe_heap_page_is_under_utilized(
            std::ptr::null_mut(),
            block.cast_mut().cast(),
            percent,
        )
    }
}

#[inline]
fn count(delta: isize) {
    // A thread that is ending has no thread-local any more; it takes the shared counter.
    let index = COUNTER.try_with(|counter| {
        let index = counter.get();
        if index != usize::MAX {
            return index;
        }
        let index = NEXT_COUNTER
            .fetch_add(1, Ordering::Relaxed)
            .min(SHARED_COUNTER);
        counter.set(index);
        index
    });
    // Relaxed: a statistic, ordered with nothing. Only its owner writes a counter, so a load and a store suffice there.
    let index = index.unwrap_or(SHARED_COUNTER);
    let counter = &ALLOCATED[index].0;
    if index < SHARED_COUNTER {
        counter.store(counter.load(Ordering::Relaxed) + delta, Ordering::Relaxed);
    } else {
        counter.fetch_add(delta, Ordering::Relaxed);
    }
}

/// The size of mimalloc's blocks for a layout, if it is a small one.
#[inline]
fn class_bytes(layout: Layout) -> Option<usize> {
    let size = layout.size();
    if layout.align() > PLAIN_ALIGN || size > CLASSES_MAX {
        return None;
    }
    if size <= EXACT_MAX {
        return Some(size.max(1).next_multiple_of(WORD));
    }
    // Four classes between a power of two words and the next.
    let last = (size - 1) / WORD;
    let shift = last.ilog2() - 2;
    Some((((last >> shift) + 1) << shift) * WORD)
}

#[inline]
fn block_bytes(block: *mut u8, layout: Layout) -> usize {
    class_bytes(layout).unwrap_or_else(|| {
        // SAFETY: the callers' block came from mimalloc and has not been freed yet.
        unsafe { mi::mi_usable_size(block.cast()) }
    })
}

/// The block, if it happens to be aligned, else another.
///
/// # Safety
/// - `block` is null or one that mimalloc just handed out.
#[inline]
unsafe fn aligned(
    block: *mut c_void,
    layout: Layout,
    instead: unsafe extern "C" fn(usize, usize) -> *mut c_void,
) -> *mut c_void {
    if block.addr().is_multiple_of(layout.align()) {
        return block;
    }
    // SAFETY: the block is nobody's yet, and any size and power-of-two alignment are allowed.
    unsafe {
        mi::mi_free(block);
        instead(layout.size(), layout.align())
    }
}

#[inline]
fn count_block(block: *mut u8, layout: Layout, sign: isize) {
    if !block.is_null() {
        count(sign * block_bytes(block, layout) as isize);
    }
}

// SAFETY: every method forwards to mimalloc with the size and alignment asked for; `mi_malloc` aligns to `PLAIN_ALIGN`
// any block of at least that size, and smaller blocks to their size rounded up to a power of two at least.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and any power-of-two alignment are allowed.
        let block = unsafe {
            if layout.align() <= PLAIN_ALIGN {
                mi::mi_malloc(layout.size())
            } else {
                aligned(mi::mi_malloc(layout.size()), layout, mi::mi_malloc_aligned)
            }
        };
        count_block(block.cast(), layout, 1);
        block.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        let block = unsafe {
            if layout.align() <= PLAIN_ALIGN {
                mi::mi_zalloc(layout.size())
            } else {
                aligned(mi::mi_zalloc(layout.size()), layout, mi::mi_zalloc_aligned)
            }
        };
        count_block(block.cast(), layout, 1);
        block.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count_block(block, layout, -1);
        // SAFETY: the caller hands back a block of this allocator.
        unsafe { mi::mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's duty: the size is not beyond what a layout may have.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        let stays = match (class_bytes(layout), class_bytes(new_layout)) {
            (Some(class), Some(new_class)) => class == new_class,
            (None, None) => {
                let usable = block_bytes(block, layout);
                (usable / 2..=usable).contains(&new_size)
            }
            _ => false,
        };
        if stays {
            return block;
        }
        // SAFETY: as in `alloc`.
        let moved = unsafe { self.alloc(new_layout) };
        if !moved.is_null() {
            // SAFETY: both blocks have so many bytes and are apart; the caller hands the old one back.
            unsafe {
                std::ptr::copy_nonoverlapping(block, moved, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_mimalloc() {
        for size in 1..=CLASSES_MAX {
            for align in [1, 8] {
                let layout = Layout::from_size_align(size, align).expect("small");
                // SAFETY: a block is asked for, looked at and given back.
                let usable = unsafe {
                    let block = mi::mi_malloc(size);
                    let usable = mi::mi_usable_size(block);
                    mi::mi_free(block);
                    usable
                };
                assert_eq!(class_bytes(layout), Some(usable), "{size}");
            }
        }
    }

    #[test]
    fn alignment_costs_nothing_where_the_size_is_a_multiple_of_it() {
        for size in (512..=4096).step_by(512) {
            let layout = Layout::from_size_align(size, 64).expect("small");
            // SAFETY: blocks are asked for, looked at and given back with their layout.
            unsafe {
                let blocks: Vec<_> = (0..100).map(|_| Allocator.alloc(layout)).collect();
                for block in blocks {
                    assert_eq!(block.addr() % 64, 0);
                    assert_eq!(block_bytes(block, layout), size);
                    Allocator.dealloc(block, layout);
                }
            }
        }
    }

    #[test]
    fn what_is_given_back_is_not_counted_any_more() {
        let before = allocated_bytes() as isize;
        let mut size = 1;
        let mut layout = Layout::from_size_align(size, 1).expect("small");
        // SAFETY: one block is allocated, resized with its layout each time, and given back.
        unsafe {
            let mut block = Allocator.alloc(layout);
            for step in [
                3usize, 60, 70, 4000, 9000, 7000, 100_000, 60_000, 40_000, 5000, 2,
            ] {
                block = Allocator.realloc(block, layout, step);
                assert!(!block.is_null());
                size = step;
                layout = Layout::from_size_align(size, 1).expect("small");
                block.add(size - 1).write(7);
            }
            Allocator.dealloc(block, layout);
        }
        // Other tests allocate meanwhile, little beside these blocks.
        let left = allocated_bytes() as isize - before;
        assert!(left.abs() < 1 << 20, "{left}");
    }
}
