//! Bytes that can be told from each other: every byte of a stream follows from the stream and its offset.

use std::sync::OnceLock;

use wirestack::random::Random;

/// Bytes after which it begins again: a prime, so that no power of two is a multiple of it.
const PERIOD: usize = 65_521;
/// Bytes that can be looked at in one piece from any offset.
pub const PIECE_MAX: usize = 1 << 16;

fn table() -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut bytes = vec![0; PERIOD];
        Random::new(0x7a77).fill(&mut bytes);
        bytes.extend_from_within(..PERIOD);
        bytes.extend_from_within(..PIECE_MAX.saturating_sub(PERIOD));
        bytes
    })
}

/// Bytes of the stream with this key from an offset on: so many, and [`PIECE_MAX`] at most.
pub fn piece(key: u64, offset: u64, len: usize) -> &'static [u8] {
    let at = ((key % PERIOD as u64 + offset % PERIOD as u64) % PERIOD as u64) as usize;
    &table()[at..at + len.min(PIECE_MAX)]
}

/// Whether these are the bytes of the stream at an offset. If not, the first offset at which they differ.
///
/// # Errors
/// That offset.
pub fn check(key: u64, mut offset: u64, mut bytes: &[u8]) -> Result<(), u64> {
    while !bytes.is_empty() {
        let right = piece(key, offset, bytes.len());
        let (head, tail) = bytes.split_at(right.len());
        if head != right {
            let same = head.iter().zip(right).take_while(|(a, b)| a == b).count();
            return Err(offset + same as u64);
        }
        offset += head.len() as u64;
        bytes = tail;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_that_is_not_in_its_place_is_found() {
        let mut stream = Vec::new();
        while stream.len() < 300_000 {
            let rest = 300_000 - stream.len();
            stream.extend(piece(9, stream.len() as u64, rest.min(1000)));
        }
        assert_eq!(check(9, 0, &stream), Ok(()));
        assert_eq!(check(9, 1000, &stream[1000..]), Ok(()));
        assert!(check(9, 1, &stream).is_err() && check(10, 0, &stream).is_err());
        stream[200_000] ^= 1;
        assert_eq!(check(9, 0, &stream), Err(200_000));
    }
}
