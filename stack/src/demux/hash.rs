//! The hash of all tables of this module: SipHash-1-3 with a key of 128 random bits.
//!
//! Who sends packets chooses addresses and ports, so with a hash that can be computed elsewhere, they could
//! make all their flows meet in one place of a table. SipHash is a pseudorandom function: without the key,
//! nobody can. With one round per word and three at the end it is what Rust's own `HashMap` and Linux's
//! tables of connections use.
//!
//! Keys are a few words of 64 bits, whose number is known when compiling; so it is written here for words,
//! which costs half of what a hasher for any bytes does. That it is SipHash is tested against `siphasher`.

use crate::random::Random;

/// A hash that nobody without the key can predict.
#[derive(Debug, Clone)]
pub struct KeyedHash {
    k0: u64,
    k1: u64,
}

impl KeyedHash {
    /// With a random key.
    pub fn new(random: &mut Random) -> Self {
        Self { k0: random.u64(), k1: random.u64() }
    }

    /// The hash of some words: SipHash-1-3 of their bytes, in little-endian order.
    #[inline]
    pub fn words<const N: usize>(&self, words: [u64; N]) -> u64 {
        // The constants of SipHash: "somepseudorandomlygeneratedbytes".
        let mut v = [
            self.k0 ^ 0x736f_6d65_7073_6575,
            self.k1 ^ 0x646f_7261_6e64_6f6d,
            self.k0 ^ 0x6c79_6765_6e65_7261,
            self.k1 ^ 0x7465_6462_7974_6573,
        ];
        let mut absorb = |word: u64| {
            v[3] ^= word;
            round(&mut v);
            v[0] ^= word;
        };
        words.into_iter().for_each(&mut absorb);
        // The last word has the number of bytes, modulo 256, and no bytes.
        absorb((N as u64 * 8) << 56);
        v[2] ^= 0xff;
        (0..3).for_each(|_| round(&mut v));
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }
}

#[inline]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    use super::*;

    fn check<const N: usize>(seed: u64, words: [u64; N]) {
        let hash = KeyedHash::new(&mut Random::new(seed));
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let expected = SipHasher13::new_with_keys(hash.k0, hash.k1).hash(&bytes);
        assert_eq!(hash.words(words), expected);
    }

    proptest! {
        #[test]
        fn is_siphash(seed: u64, two: [u64; 2], three: [u64; 3], five: [u64; 5]) {
            check(seed, two);
            check(seed, three);
            check(seed, five);
        }
    }

    #[test]
    fn a_hash_is_of_its_key() {
        let [a, b] = [1, 2].map(|seed| KeyedHash::new(&mut Random::new(seed)).words([1, 2]));
        assert_ne!(a, b);
    }
}
