//! How large chunks may become: the setting `list-max-listpack-size`.

/// Limits on one chunk, in bytes as a listpack or in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListLimits {
    max_bytes: usize,
    max_len: usize,
}

/// What the values -1 to -5 of the setting mean.
const BYTES_BY_LEVEL: [usize; 5] = [4096, 8192, 16384, 32768, 65536];
/// A limit in elements is also one of so many bytes.
const BYTES_WITH_COUNT: usize = 8192;
/// Longest chunk that a limit in elements can ask for.
const COUNT_MAX: usize = 32767;
/// What a push reckons with for an element's header, whatever it turns out to be.
const ELEMENT_OVERHEAD: usize = 8;

impl ListLimits {
    pub const DEFAULT: ListLimits = ListLimits::new(-2);
    pub(super) const SMALLEST_BYTES: usize = BYTES_BY_LEVEL[0];

    /// The limits for a value of `list-max-listpack-size`: a number of elements, or -1 to -5 for 4 to 64 KiB.
    pub const fn new(setting: i64) -> ListLimits {
        if setting >= 0 {
            let max_len = match setting as u64 {
                0 => 1,
                len if len > COUNT_MAX as u64 => COUNT_MAX,
                len => len as usize,
            };
            return ListLimits {
                max_bytes: BYTES_WITH_COUNT,
                max_len,
            };
        }
        let level = if setting < -5 { 5 } else { -setting as usize };
        ListLimits {
            max_bytes: BYTES_BY_LEVEL[level - 1],
            max_len: usize::MAX,
        }
    }

    /// Whether a chunk of so many listpack bytes and elements is too large.
    pub(super) fn exceeded(&self, bytes: usize, len: usize) -> bool {
        bytes > self.max_bytes || len > self.max_len
    }

    /// Whether a chunk is small enough for a quicklist to become a listpack again. A limit in elements looks at those
    /// alone.
    pub(super) fn is_half_empty(&self, bytes: usize, len: usize) -> bool {
        if self.max_len == usize::MAX {
            bytes <= self.max_bytes / 2
        } else {
            len <= self.max_len / 2
        }
    }

    /// Whether a chunk takes one more element of `added_bytes`.
    pub(super) fn admits(&self, bytes: usize, len: usize, added_bytes: usize) -> bool {
        !self.is_large(added_bytes)
            && !self.exceeded(bytes + added_bytes + ELEMENT_OVERHEAD, len + 1)
    }

    /// Whether an element gets a chunk of its own.
    pub(super) fn is_large(&self, bytes: usize) -> bool {
        bytes > self.max_bytes
    }
}

impl Default for ListLimits {
    fn default() -> Self {
        ListLimits::DEFAULT
    }
}
