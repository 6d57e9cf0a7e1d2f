//! Huge pages for the heap, once it is large enough to gain from them.
//!
//! With pages of 2 MiB a core's address cache covers 512 times as much, which random access to many keys lives on. But
//! one of whose bytes any is used is in memory as a whole, and a small server would mostly hold such bytes.

use std::fs;

/// mimalloc's arenas are a gigabyte of address space each; nothing else here is as long.
const ARENA_MIN: usize = 256 << 20;
/// So many bytes are allocated before huge pages pay.
const PAY_FROM: usize = 64 << 20;
/// Below so many they do not any more. A heap about as large as the other would change its mind all the time.
const PAY_UNTIL: usize = 48 << 20;

/// Keeps what the system is asked for in step with the heap.
#[derive(Debug, Default)]
pub struct HugePages {
    wanted: bool,
}

impl HugePages {
    /// Asks for huge pages where the heap is large enough and `allowed`, else for none, if that is another wish than before.
    pub fn follow(&mut self, allocated_bytes: usize, allowed: bool) {
        let enough = if self.wanted { PAY_UNTIL } else { PAY_FROM };
        let wanted = allowed && allocated_bytes >= enough;
        if wanted != self.wanted {
            self.wanted = wanted;
            self.repeat();
        }
    }

    /// Asks again, for address space that the allocator has taken since, about which it has a wish of its own. To be called
    /// about once a second: it takes the system some 200 µs to list its mappings.
    pub fn repeat(&self) {
        set(self.wanted);
    }
}

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
    use parking_lot::Mutex;

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
    fn a_heap_about_as_large_as_the_threshold_does_not_change_its_mind() {
        let mut pages = HugePages::default();
        let wishes = [63, 64, 63, 49, 48, 47, 48, 63, 64].map(|mib| {
            pages.follow(mib << 20, true);
            pages.wanted
        });
        let expected = [false, true, true, true, true, false, false, false, true];
        assert_eq!(wishes, expected);
        pages.follow(64 << 20, false);
        assert!(!pages.wanted);
    }

    /// One test at a time asks for something.
    static ASKING: Mutex<()> = Mutex::new(());

    /// The flags of the mapping that an address is in, as the system tells them.
    #[cfg(target_os = "linux")]
    fn flags_of(address: usize) -> Vec<String> {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let holds = |line: &str| {
            let range = line.split_ascii_whitespace().next()?;
            let (start, end) = range.split_once('-')?;
            let start = usize::from_str_radix(start, 16).ok()?;
            let end = usize::from_str_radix(end, 16).ok()?;
            Some((start..end).contains(&address))
        };
        let mut lines = maps.lines().skip_while(|line| holds(line) != Some(true));
        let flags = lines.find_map(|line| line.strip_prefix("VmFlags:"));
        let flags = flags.expect("the system tells flags");
        flags.split_whitespace().map(str::to_owned).collect()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_that_comes_later_is_asked_for_as_well() {
        if !fs::exists("/sys/kernel/mm/transparent_hugepage").unwrap() {
            // There is nothing to ask for.
            return;
        }
        let _asking = ASKING.lock();
        let mut pages = HugePages::default();
        pages.follow(PAY_FROM, true);
        // SAFETY: a new mapping is nobody else's. Nothing in it is touched.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                ARENA_MIN,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED);
        let address = start.expose_provenance();
        pages.repeat();
        let with = flags_of(address);
        pages.follow(0, true);
        let without = flags_of(address);
        // SAFETY: it was mapped above, and nobody uses it.
        unsafe { libc::munmap(start, ARENA_MIN) };
        let has = |flags: &[String], flag: &str| flags.iter().any(|known| known == flag);
        assert!(has(&with, "hg"), "{with:?}");
        assert!(has(&without, "nh"), "{without:?}");
    }

    #[test]
    fn the_heap_works_with_and_without() {
        let _asking = ASKING.lock();
        for on in [false, true] {
            set(on);
            let bytes = vec![7u8; 5 << 20];
            assert!(bytes.iter().all(|&byte| byte == 7));
        }
    }
}
