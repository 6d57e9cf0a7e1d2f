//! Huge pages for the heap, once it is large enough to gain from them.
//!
//! With pages of 2 MiB a core's address cache covers 512 times as much, which random access to many keys lives on. But
//! one of whose bytes any is used is in memory as a whole, and a small server would mostly hold such bytes.

use std::fs;

/// mimalloc's arenas are a gigabyte of address space each; nothing else here is as long.
const ARENA_MIN: usize = 256 << 20;

/// Asks the system for huge pages where the heap is touched from now on, or for none. Does nothing where the system has
/// no such choice.
pub fn set(on: bool) {
    let advice = if on {
        libc::MADV_HUGEPAGE
    } else {
        libc::MADV_NOHUGEPAGE
    };
    for (start, len) in arenas(&fs::read_to_string("/proc/self/maps").unwrap_or_default()) {
        // SAFETY: advice on how pages are backed changes nothing that the program sees. Where it is refused, all stays
        // as it was.
        unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(start), len, advice) };
    }
}

/// Start and length of the writable mappings without a name that are as long as arenas.
fn arenas(maps: &str) -> Vec<(usize, usize)> {
    let arena = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let is_writable = words.next()?.starts_with("rw");
        let is_named = words.nth(3).is_some_and(|name| !name.starts_with("[anon"));
        let start = usize::from_str_radix(start, 16).ok()?;
        let len = usize::from_str_radix(end, 16).ok()?.checked_sub(start)?;
        (is_writable && !is_named && len >= ARENA_MIN).then_some((start, len))
    };
    maps.lines().filter_map(arena).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arenas_are_the_long_mappings_without_a_name() {
        let maps = "\
20000000000-20040000000 rw-p 00000000 00:00 0 \n\
30000000000-30040000000 r--p 00000000 00:00 0 \n\
40000000000-40040000000 rw-p 00000000 00:00 0                            [anon:mimalloc]\n\
558c6c84d000-558c6c945000 rw-p 00000000 00:00 0 \n\
7fb500000000-7fb540000000 rw-s 00000000 08:01 77                         /some/file\n\
not a mapping\n";
        let gigabyte = 1 << 30;
        let expected = [(0x200_0000_0000, gigabyte), (0x400_0000_0000, gigabyte)];
        assert_eq!(arenas(maps), expected);
    }

    #[test]
    fn the_heap_works_with_and_without() {
        for on in [false, true] {
            set(on);
            let bytes = vec![7u8; 5 << 20];
            assert!(bytes.iter().all(|&byte| byte == 7));
        }
    }
}
