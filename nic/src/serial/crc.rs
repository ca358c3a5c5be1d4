//! The CRC at the end of a frame: the FCS-16 of HDLC (RFC 1662 appendix C.2), eight bytes a step.
//!
//! It finds every error of up to three bits in a frame of up to 4 KB, every burst of up to 16 bits, and all but one
//! of 65536 others. SLIP itself finds none, and the checksum of TCP misses words that changed places.

/// Bytes of a CRC in a frame.
pub(super) const CRC_LEN: usize = 2;

/// A CRC over bytes that come in pieces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fcs16(u16);

impl Fcs16 {
    pub(super) const fn new() -> Self {
        Self(0xffff)
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        let (blocks, rest) = bytes.as_chunks::<8>();
        for block in blocks {
            let mut block = *block;
            block[0] ^= self.0 as u8;
            block[1] ^= (self.0 >> 8) as u8;
            let mut next = 0;
            for (table, byte) in TABLES.iter().rev().zip(block) {
                next ^= table[usize::from(byte)];
            }
            self.0 = next;
        }
        for byte in rest {
            self.0 = (self.0 >> 8) ^ TABLES[0][usize::from(self.0 as u8 ^ byte)];
        }
    }

    /// As it is sent.
    pub(super) fn finish(self) -> [u8; CRC_LEN] {
        // The complement, least significant byte first.
        (!self.0).to_le_bytes()
    }
}

/// What is before the CRC at the end of `frame`, if that is right.
pub(super) fn checked(frame: &[u8]) -> Option<&[u8]> {
    let (body, crc) = frame.split_last_chunk()?;
    let mut expected = Fcs16::new();
    expected.update(body);
    (expected.finish() == *crc).then_some(body)
}

/// The generator x^16 + x^12 + x^5 + 1, least significant bit first.
const POLYNOMIAL: u16 = 0x8408;

/// What a byte does to the remainder, and what it does when so many bytes of 0 follow.
static TABLES: [[u16; 256]; 8] = tables();

const fn tables() -> [[u16; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u16;
        let mut table = 0;
        while table < 8 {
            let mut bit = 0;
            while bit < 8 {
                remainder = (remainder >> 1) ^ (POLYNOMIAL * (remainder & 1));
                bit += 1;
            }
            tables[table][byte] = remainder;
            table += 1;
        }
        byte += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bit_by_bit(bytes: &[u8]) -> [u8; CRC_LEN] {
        let mut remainder = 0xffff;
        for byte in bytes {
            remainder ^= u16::from(*byte);
            for _ in 0..8 {
                remainder = if remainder & 1 == 1 { (remainder >> 1) ^ 0x8408 } else { remainder >> 1 };
            }
        }
        (!remainder).to_le_bytes()
    }

    fn of(pieces: &[&[u8]]) -> [u8; CRC_LEN] {
        let mut crc = Fcs16::new();
        pieces.iter().for_each(|piece| crc.update(piece));
        crc.finish()
    }

    #[test]
    fn known_values() {
        // The check value of CRC-16/X-25, and an empty frame.
        assert_eq!(of(&[b"123456789"]), 0x906e_u16.to_le_bytes());
        assert_eq!(of(&[]), [0, 0]);
        assert_eq!(checked(b"123456789\x6e\x90"), Some(&b"123456789"[..]));
        assert_eq!(checked(b"123456789\x90\x6e"), None);
        assert_eq!(checked(b"\0"), None);
    }

    #[test]
    fn errors_of_a_few_bits_are_found() {
        let frame = [&b"a frame of some bytes"[..], &of(&[b"a frame of some bytes"])].concat();
        let bits = frame.len() * 8;
        for first in 0..bits {
            for second in first..bits {
                let mut damaged = frame.clone();
                damaged[first / 8] ^= 1 << (first % 8);
                if second != first {
                    damaged[second / 8] ^= 1 << (second % 8);
                }
                assert_eq!(checked(&damaged), None, "{first} {second}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_what_bit_by_bit_gives(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            cut in any::<proptest::sample::Index>(),
        ) {
            let (first, second) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(of(&[first, second]), bit_by_bit(&bytes));
        }
    }
}
