//! The longest common subsequence of two strings, by the textbook table of prefix lengths (Wagner & Fischer, 1974).

/// Bytes that the table may take.
const MAX_TABLE_BYTES: usize = 512 << 20;

/// The lengths of the longest common subsequences of all prefixes.
pub struct Lcs<'a> {
    left: &'a [u8],
    right: &'a [u8],
    lengths: Vec<u32>,
}

/// A run that both strings have: `len` bytes from `left` in one and from `right` in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    pub left: usize,
    pub right: usize,
    pub len: usize,
}

/// Compares two strings. O(n m) in time and memory; `None` if that is more memory than allowed.
pub fn find<'a>(left: &'a [u8], right: &'a [u8]) -> Option<Lcs<'a>> {
    let cells = (left.len() + 1).checked_mul(right.len() + 1)?;
    if cells.checked_mul(size_of::<u32>())? > MAX_TABLE_BYTES {
        return None;
    }
    let width = right.len() + 1;
    let mut lengths = vec![0u32; cells];
    for (i, a) in left.iter().enumerate() {
        for (j, b) in right.iter().enumerate() {
            lengths[(i + 1) * width + j + 1] = if a == b {
                lengths[i * width + j] + 1
            } else {
                lengths[i * width + j + 1].max(lengths[(i + 1) * width + j])
            };
        }
    }
    Some(Lcs {
        left,
        right,
        lengths,
    })
}

impl Lcs<'_> {
    /// Bytes of the subsequence.
    pub fn len(&self) -> usize {
        self.at(self.left.len(), self.right.len()) as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The subsequence.
    pub fn text(&self, left: &[u8]) -> Vec<u8> {
        let mut text: Vec<u8> = self.pairs().map(|(i, _)| left[i]).collect();
        text.reverse();
        text
    }

    /// The runs that make up the subsequence, the last one first.
    pub fn matches(&self) -> impl Iterator<Item = Match> {
        let mut pairs = self.pairs().peekable();
        std::iter::from_fn(move || {
            let (mut left, mut right) = pairs.next()?;
            let mut len = 1;
            while let Some(&(i, j)) = pairs.peek()
                && i + 1 == left
                && j + 1 == right
            {
                (left, right) = (i, j);
                len += 1;
                pairs.next();
            }
            Some(Match { left, right, len })
        })
    }

    /// Positions that correspond, from the ends of both strings to their beginnings.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let (mut i, mut j) = (self.left.len(), self.right.len());
        std::iter::from_fn(move || {
            while i > 0 && j > 0 {
                if self.left[i - 1] == self.right[j - 1] {
                    i -= 1;
                    j -= 1;
                    return Some((i, j));
                }
                if self.at(i - 1, j) > self.at(i, j - 1) {
                    i -= 1;
                } else {
                    j -= 1;
                }
            }
            None
        })
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.lengths[i * (self.right.len() + 1) + j]
    }
}

#[cfg(test)]
mod tests {
    use super::{Match, find};

    #[test]
    fn the_manuals_example_is_found() {
        let (left, right) = (b"ohmytext", b"mynewtext");
        let found = find(left, right).unwrap();
        assert_eq!(found.text(left), b"mytext");
        let matches: Vec<_> = found.matches().collect();
        assert_eq!(
            matches,
            [
                Match {
                    left: 4,
                    right: 5,
                    len: 4
                },
                Match {
                    left: 2,
                    right: 0,
                    len: 2
                }
            ]
        );
    }

    #[test]
    fn nothing_is_common_with_the_empty_string() {
        assert!(find(b"", b"abc").unwrap().is_empty());
    }
}
