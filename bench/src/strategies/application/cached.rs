//! What is stored in the cache: a version of a value, or that there is none, with what strategies need to know.
//!
//! ```text
//! version expires_ms load_ms xxxxxxxxxx...        version is "-" where the backend has no such key
//! ```

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cached {
    /// `None`: there is no such key.
    pub(super) version: Option<u64>,
    /// By the run's clock.
    pub(super) expires_ms: u64,
    /// How long loading it took.
    pub(super) load_ms: u64,
}

impl Cached {
    pub(super) fn write(self, size: usize) -> Vec<u8> {
        let version = self
            .version
            .map_or_else(|| "-".to_owned(), |version| version.to_string());
        let mut bytes = format!("{version} {} {} ", self.expires_ms, self.load_ms).into_bytes();
        bytes.resize(bytes.len().max(size), b'x');
        bytes
    }

    /// `None` for what was not written by [`Cached::write`].
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let head = &bytes[..bytes.len().min(64)];
        let text = std::str::from_utf8(head).ok()?;
        let mut words = text.split(' ');
        let version = match words.next()? {
            "-" => None,
            number => Some(number.parse().ok()?),
        };
        Some(Self {
            version,
            expires_ms: words.next()?.parse().ok()?,
            load_ms: words.next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for version in [None, Some(0), Some(u64::MAX)] {
            let cached = Cached {
                version,
                expires_ms: 12,
                load_ms: 3,
            };
            let bytes = cached.write(100);
            assert!(bytes.len() >= 100 || version.is_some());
            assert_eq!(Cached::read(&bytes), Some(cached));
        }
        assert_eq!(Cached::read(b"else"), None);
    }
}
