//! The ones' complement sum of RFC 1071, at the speed of memory.
//!
//! The sum of 16-bit words does not depend on their width as long as carries return at the low end
//! (section 2 of the RFC), nor on their byte order but for a swap of the result. So words of 32 bits are
//! added in the machine's own order into lanes of 64 bits, which no frame can overflow (smoltcp's own sum
//! has 32 bits: enough for 128 KiB).

/// Sum of `bytes` as big-endian words of 16 bits, an odd last byte filled up with 0. Not complemented.
///
/// 0 only if all bytes are 0; the result is the same number as that of smoltcp's `checksum::data`.
pub fn data(bytes: &[u8]) -> u16 {
    let (blocks, rest) = bytes.as_chunks::<BLOCK_LEN>();
    let mut lanes = Lanes::default();
    for block in blocks {
        lanes.add(block);
    }
    lanes.finish(rest)
}

/// Copies `from` to `to`, of the same length, and returns what [`data`] says of it: one pass over memory.
///
/// Of different lengths: as much as both have.
pub fn copy(to: &mut [u8], from: &[u8]) -> u16 {
    let len = to.len().min(from.len());
    let (to_blocks, to_rest) = to[..len].as_chunks_mut::<BLOCK_LEN>();
    let (from_blocks, from_rest) = from[..len].as_chunks::<BLOCK_LEN>();
    let mut lanes = Lanes::default();
    for (to, from) in to_blocks.iter_mut().zip(from_blocks) {
        *to = *from;
        lanes.add(from);
    }
    to_rest.copy_from_slice(from_rest);
    lanes.finish(from_rest)
}

/// Sum of several sums, each of a piece that begins at an even distance from the others.
pub fn combine(sums: &[u16]) -> u16 {
    fold(sums.iter().map(|&sum| u64::from(sum)).sum())
}

/// Adds carries at the low end until there are none.
fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// What has been added so far, apart by the place within a block: the form that a compiler turns into
/// vector instructions.
#[derive(Default)]
struct Lanes {
    low: [u64; LANES],
    high: [u64; LANES],
}

impl Lanes {
    fn add(&mut self, block: &[u8; BLOCK_LEN]) {
        let (words, _) = block.as_chunks::<8>();
        for (lane, word) in words.iter().enumerate() {
            let word = u64::from_ne_bytes(*word);
            self.low[lane] += word & 0xffff_ffff;
            self.high[lane] += word >> 32;
        }
    }

    /// The whole sum; `rest` is less than a block.
    fn finish(self, rest: &[u8]) -> u16 {
        let mut sum: u64 = self.low.iter().chain(&self.high).sum();
        let (words, rest) = rest.as_chunks::<8>();
        for word in words {
            let word = u64::from_ne_bytes(*word);
            sum += (word & 0xffff_ffff) + (word >> 32);
        }
        let (words, last) = rest.as_chunks::<2>();
        for word in words {
            sum += u64::from(u16::from_ne_bytes(*word));
        }
        if let Some(&last) = last.first() {
            sum += u64::from(u16::from_ne_bytes([last, 0]));
        }
        u16::from_be(fold(sum))
    }
}

/// Lanes of 64 bits: four vector registers of 16 bytes, or two of 32.
const LANES: usize = 4;
const BLOCK_LEN: usize = 8 * LANES;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smoltcp::wire::checksum;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_sum_of_smoltcp(bytes in proptest::collection::vec(any::<u8>(), 0..300), skip in 0..9usize) {
            let bytes = bytes.get(skip..).unwrap_or_default();
            prop_assert_eq!(data(bytes), checksum::data(bytes));
            let mut copied = vec![0; bytes.len()];
            prop_assert_eq!(copy(&mut copied, bytes), checksum::data(bytes));
            prop_assert_eq!(copied, bytes);
        }

        #[test]
        fn sums_of_pieces_are_the_sum_of_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 2..200),
            cut in 0..100usize,
        ) {
            let (front, back) = bytes.split_at((2 * cut).min(bytes.len() / 2 * 2));
            prop_assert_eq!(combine(&[data(front), data(back)]), data(&bytes));
        }
    }

    #[test]
    fn ones_do_not_overflow_the_longest_frame() {
        // Longer than smoltcp's sum of 32 bits can take.
        for (len, expected) in [
            (0, 0),
            (1, 0xff00),
            (31, 0xff00), // 0xffff is another 0
            (32, 0xffff),
            (65_535, 0xff00),
            (131_072, 0xffff),
            (1_000_001, 0xff00),
        ] {
            assert_eq!(data(&vec![0xff; len]), expected, "{len} bytes");
        }
    }

    #[test]
    fn a_copy_takes_what_both_have() {
        let mut to = [9; 40];
        assert_eq!(copy(&mut to, &[1; 34]), data(&[1; 34]));
        assert_eq!((to[33], to[34]), (1, 9));
        assert_eq!(copy(&mut to[..2], &[3; 34]), 0x0303);
        assert_eq!(to[..4], [3, 3, 1, 1]);
    }
}
