//! Base64 as the meta commands use it for keys: the standard alphabet, always padded.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends `bytes` encoded.
pub fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    for group in bytes.chunks(3) {
        let at = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for position in 0..4 {
            out.push(if position <= group.len() {
                ALPHABET[(bits >> (18 - 6 * position)) as usize & 63]
            } else {
                b'='
            });
        }
    }
}

/// Decodes `text`; `None` if it is empty, not padded, or anything else than the encoding of some bytes.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (digits, _) = text.split_at(text.len() - padding);
    for group in digits.chunks(4) {
        let mut bits = 0;
        for byte in group {
            bits = bits << 6 | digit(*byte)?;
        }
        // A short group has 6 bits too few per missing digit; what it has beyond whole bytes must be zero.
        let [_, decoded @ ..] = (bits << (6 * (4 - group.len()))).to_be_bytes();
        let (whole, rest) = decoded.split_at(group.len() - 1);
        if rest.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(whole);
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_decodes() {
        for (bytes, text) in [
            (&b"a"[..], "YQ=="),
            (b"ab", "YWI="),
            (b"abc", "YWJj"),
            (b"\xfb\xff\x00", "+/8A"),
        ] {
            let mut encoded = Vec::new();
            encode(bytes, &mut encoded);
            assert_eq!(encoded, text.as_bytes());
            assert_eq!(decode(text.as_bytes()).as_deref(), Some(bytes));
        }
    }

    #[test]
    fn other_text_does_not() {
        for text in [
            "", "Y", "YQ", "YQ=", "YR==", "Y===", "====", "=YQ=", "YQ==YQ==", "YWJ\n", "-_8A",
            "YWJjY",
        ] {
            assert_eq!(decode(text.as_bytes()), None, "{text:?}");
        }
    }
}
