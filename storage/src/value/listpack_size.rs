//! What elements would take in a listpack, the packed form whose size clients can observe: `list-max-listpack-size` and
//! `stream-node-max-bytes` limit it, and OBJECT ENCODING and approximate trimming show when the limit was reached.
//!
//! A listpack entry is a header, the content, and the length of both repeated behind them for walking backwards.

use super::element::Element;

/// Bytes of an empty listpack.
pub(crate) const LISTPACK_EMPTY: usize = 7;

/// Bytes that the element takes in a listpack: header, content, and the length repeated behind it.
#[inline]
pub(crate) fn listpack_len(element: Element<'_>) -> usize {
    match element {
        Element::Integer(number) => listpack_integer_len(number),
        Element::Text(bytes) => {
            let header = match bytes.len() {
                0..64 => 1,
                64..4096 => 2,
                _ => 5,
            };
            with_back_length(header + bytes.len())
        }
    }
}

#[inline]
pub(crate) fn listpack_integer_len(number: i64) -> usize {
    with_back_length(match number {
        0..=127 => 1,
        -4096..=4095 => 2,
        -0x8000..=0x7fff => 3,
        -0x80_0000..=0x7f_ffff => 4,
        -0x8000_0000..=0x7fff_ffff => 5,
        _ => 9,
    })
}

const fn with_back_length(len: usize) -> usize {
    len + match len {
        0..=127 => 1,
        128..16383 => 2,
        16383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_step_where_headers_and_lengths_grow() {
        for (text_len, len) in [
            (0, 2),
            (63, 65),
            (64, 67),
            (125, 128),
            (126, 130),
            (4095, 4099),
            (4096, 4103),
        ] {
            assert_eq!(listpack_len(Element::new(&vec![b'x'; text_len])), len);
        }
        for (integer, len) in [
            (127, 2),
            (-1, 3),
            (4095, 3),
            (4096, 4),
            (32768, 5),
            (1 << 23, 6),
            (1 << 31, 10),
        ] {
            assert_eq!(listpack_len(Element::Integer(integer)), len);
        }
    }
}
