//! What the command log says of a memcached item beside its value: flags and CAS.
//!
//! ```text
//! PING "memcached-item <flags> <CAS> <key>"       follows what changed the key, in the same transaction
//! ```
//!
//! Servers that know no items answer a PING in their primary's stream, to nobody, and do nothing: so the stream is the
//! same for all, whoever follows, and whoever follows those.

use crate::{entry::Item, value::number};

const COMMAND: &[u8] = b"PING";
const PREFIX: &[u8] = b"memcached-item ";

/// The command that tells an item's flags and CAS.
pub fn words(item: Item, key: &[u8]) -> [Vec<u8>; 2] {
    let mut text = PREFIX.to_vec();
    text.extend_from_slice(format!("{} {} ", item.flags, item.cas).as_bytes());
    text.extend_from_slice(key);
    [COMMAND.to_vec(), text]
}

/// The item and the key that the words of a command tell of, if they do.
pub fn read<'a>(name: &[u8], text: &'a [u8]) -> Option<(Item, &'a [u8])> {
    if !name.eq_ignore_ascii_case(COMMAND) {
        return None;
    }
    let rest = text.strip_prefix(PREFIX)?;
    let mut words = rest.splitn(3, |&byte| byte == b' ');
    let flags = u32::try_from(number::parse_u64(words.next()?)?).ok()?;
    let cas = number::parse_u64(words.next()?)?;
    Some((Item { flags, cas }, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read() {
        let item = Item {
            flags: u32::MAX,
            cas: u64::MAX,
        };
        for key in [&b"key"[..], b"", b"a b", b"\r\n\0"] {
            let [name, text] = words(item, key);
            assert_eq!(read(&name, &text), Some((item, key)));
        }
        for text in [
            &b""[..],
            b"memcached-item ",
            b"memcached-item 1 2",
            b"memcached-item 4294967296 2 k",
            b"memcached-item x 2 k",
            b"hello",
        ] {
            assert_eq!(read(b"PING", text), None);
        }
        assert_eq!(read(b"ECHO", b"memcached-item 1 2 k"), None);
    }
}
