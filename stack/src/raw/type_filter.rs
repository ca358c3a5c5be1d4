//! Which types of ICMP a raw socket wants.

/// A set of types of ICMP or ICMPv6 that are not wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TypeFilter {
    blocked: [u64; 4],
}

impl TypeFilter {
    /// Nothing is wanted; what is, is added with [`pass`](Self::pass).
    pub fn block_all() -> Self {
        Self { blocked: [u64::MAX; 4] }
    }

    /// The same filter, and this type passes.
    #[must_use]
    pub fn pass(mut self, icmp_type: u8) -> Self {
        let (word, bit) = place(icmp_type);
        self.blocked[word] &= !bit;
        self
    }

    /// The same filter, and this type does not pass.
    #[must_use]
    pub fn block(mut self, icmp_type: u8) -> Self {
        let (word, bit) = place(icmp_type);
        self.blocked[word] |= bit;
        self
    }

    /// Whether a message of this type is wanted.
    pub fn passes(&self, icmp_type: u8) -> bool {
        let (word, bit) = place(icmp_type);
        self.blocked[word] & bit == 0
    }
}

/// Where the bit of a type is: a word of the four, and a mask.
fn place(icmp_type: u8) -> (usize, u64) {
    (usize::from(icmp_type / 64), 1 << (icmp_type % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_a_bit_of_its_own() {
        for icmp_type in 0..=255 {
            let (one, but_one) =
                (TypeFilter::block_all().pass(icmp_type), TypeFilter::default().block(icmp_type));
            for other in 0..=255 {
                assert_eq!(one.passes(other), other == icmp_type);
                assert_eq!(but_one.passes(other), other != icmp_type);
            }
        }
    }
}
