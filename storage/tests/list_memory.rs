//! What lists take from the allocator, measured by counting it.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use storage::value::list::{End, List, ListLimits};

/// Counts what mimalloc would hand out: multiples of 8 bytes up to 64, then four classes per doubling.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

fn class(size: usize) -> usize {
    if size <= 64 {
        size.next_multiple_of(8)
    } else {
        size.next_multiple_of(1 << ((size - 1).ilog2() - 2))
    }
}

// SAFETY: forwards to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(class(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's duty.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(class(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's duty.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test, so that no other thread allocates meanwhile.
#[test]
fn lists_take_no_more_than_promised() {
    for end in [End::Front, End::Back] {
        let held = allocated_by_list(200_000, end, &[b'x'; 32]);
        let per_element = held as f64 / 200_000.0;
        assert!(
            per_element <= 34.6,
            "{per_element} bytes per element of 32 bytes"
        );
    }
    let numbers = allocated_by_list(200_000, End::Back, b"12345678") as f64 / 200_000.0;
    assert!(numbers <= 6.5, "{numbers} bytes per eight-digit integer");

    let small = [(1, 40), (2, 48), (3, 64), (4, 80), (5, 80)];
    for (len, most) in small {
        let held = allocated_by_list(len, End::Back, b"ten bytes!");
        assert!(held <= most, "{held} bytes for {len} elements of 10 bytes");
    }
}

fn allocated_by_list(len: usize, end: End, value: &[u8]) -> usize {
    let before = HELD.load(Ordering::Relaxed);
    let mut list = List::new();
    for _ in 0..len {
        list.push(end, value, ListLimits::DEFAULT);
    }
    let held = HELD.load(Ordering::Relaxed) - before;
    let stated = list.memory_bytes();
    assert!(
        stated.abs_diff(held) <= held / 50 + 16,
        "states {stated} bytes but holds {held}"
    );
    held
}
