//! The words of a request as handlers read them.

use protocol::resp::request::Span;
use storage::{keyspace::Key, value::number};

use super::{command::Result, error::Error};

/// The words of one request; word 0 is the command's name.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    input: &'a [u8],
    spans: &'a [Span],
    /// The hash of the first key, computed for its lock: (word, hash).
    first_key: (usize, u64),
}

/// No word is the first key.
pub(crate) const NO_KEY: (usize, u64) = (usize::MAX, 0);

impl<'a> Args<'a> {
    #[inline]
    pub fn new(input: &'a [u8], spans: &'a [Span]) -> Args<'a> {
        Args {
            input,
            spans,
            first_key: NO_KEY,
        }
    }

    #[inline]
    pub(crate) fn with_first_key(self, first_key: (usize, u64)) -> Args<'a> {
        Args { first_key, ..self }
    }

    /// The word that is the first key, and its hash, if that is known.
    pub(crate) fn first_key(&self) -> (usize, u64) {
        self.first_key
    }

    /// The request that begins `words` words later.
    pub fn skip(&self, words: usize) -> Args<'a> {
        Args::new(self.input, self.spans.get(words..).unwrap_or_default())
    }

    /// How many words, the command's name included.
    #[inline]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The word at `index`; the arity, checked before, says that it is there.
    #[inline(always)]
    pub fn word(&self, index: usize) -> &'a [u8] {
        self.spans[index].of(self.input)
    }

    /// The word at `index`, if there is one.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.spans.get(index).map(|span| span.of(self.input))
    }

    /// The key at `index`, hashed.
    #[inline(always)]
    pub fn key(&self, index: usize) -> Key<'a> {
        let bytes = self.word(index);
        if self.first_key.0 == index {
            Key {
                bytes,
                hash: self.first_key.1,
            }
        } else {
            Key::new(bytes)
        }
    }

    /// The words from `index` on.
    pub fn from(
        &self,
        index: usize,
    ) -> impl DoubleEndedIterator<Item = &'a [u8]> + ExactSizeIterator + Clone + use<'a> {
        let input = self.input;
        self.spans
            .get(index..)
            .unwrap_or_default()
            .iter()
            .map(move |span| span.of(input))
    }

    /// About how many bytes the request takes: from its first word to the end of its last.
    #[inline]
    pub fn bytes(&self) -> usize {
        match self.spans {
            [] => 0,
            [first, ..] => (self.spans[self.spans.len() - 1].end - first.start) as usize,
        }
    }

    /// Whether the word at `index` is `keyword`, in any case.
    #[inline]
    pub fn is(&self, index: usize, keyword: &str) -> bool {
        self.get(index)
            .is_some_and(|word| word.eq_ignore_ascii_case(keyword.as_bytes()))
    }

    /// The word at `index` as an integer.
    ///
    /// # Errors
    /// `value is not an integer or out of range`.
    #[inline]
    pub fn integer(&self, index: usize) -> Result<i64> {
        number::parse_i64(self.word(index)).ok_or(Error::NOT_AN_INTEGER)
    }

    /// All words, owned, for those who keep them: transactions, slow logs, the command log.
    pub fn to_vec(&self) -> Vec<Box<[u8]>> {
        self.from(0).map(Box::from).collect()
    }
}
