//! The process's memory allocator: mimalloc called without waste, and counted.
//!
//! mimalloc's size classes are 8 bytes apart up to 64 bytes when it is built for 8-byte minimum alignment, but only
//! `mi_malloc` uses a class to the full: `mi_malloc_aligned` over-allocates requests that exactly fill a class that is
//! not a power of two. So requests that need at most 8-byte alignment, nearly all, take `mi_malloc`.
//!
//! Every allocation is counted by its usable size on a counter of the allocating thread's own, so that
//! [`allocated_bytes`] is the truth about what the process holds at no contention: a load and a store per call.

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
    sync::atomic::{AtomicIsize, AtomicUsize, Ordering},
};

use libmimalloc_sys as mi;

/// The alignment that `mi_malloc` promises for any size, as built by this workspace.
const PLAIN_ALIGN: usize = 8;

/// The first threads own a counter each; those that come after share the last one.
const COUNTERS: usize = 64;
const SHARED_COUNTER: usize = COUNTERS - 1;

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

/// Returns memory that is free but still held to the operating system, as far as that is possible.
pub fn purge() {
    // SAFETY: collecting has no preconditions; it only touches the allocator's own state.
    unsafe { mi::mi_collect(true) }
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

#[inline]
fn count_block(block: *mut u8, sign: isize) {
    if !block.is_null() {
        // SAFETY: `block` came from mimalloc and has not been freed yet.
        let usable = unsafe { mi::mi_usable_size(block.cast()) };
        count(sign * usable as isize);
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
                mi::mi_malloc_aligned(layout.size(), layout.align())
            }
        };
        count_block(block.cast(), 1);
        block.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        let block = unsafe {
            if layout.align() <= PLAIN_ALIGN {
                mi::mi_zalloc(layout.size())
            } else {
                mi::mi_zalloc_aligned(layout.size(), layout.align())
            }
        };
        count_block(block.cast(), 1);
        block.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        count_block(block, -1);
        // SAFETY: the caller hands back a block of this allocator.
        unsafe { mi::mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count_block(block, -1);
        // SAFETY: the caller hands in a block of this allocator with its layout.
        let moved = unsafe {
            if layout.align() <= PLAIN_ALIGN {
                mi::mi_realloc(block.cast(), new_size)
            } else {
                mi::mi_realloc_aligned(block.cast(), new_size, layout.align())
            }
        };
        // On failure the old block stays, and stays counted.
        count_block(if moved.is_null() { block } else { moved.cast() }, 1);
        moved.cast()
    }
}
