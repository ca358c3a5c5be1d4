//! All randomness of the stack, from one seed. One seed reproduces one run, and what was drawn does not
//! tell what will be: it is the stream of ChaCha with 8 rounds.

use rand_chacha::ChaCha8Rng;
use rand_core::{Infallible, Rng, SeedableRng, TryRng};

/// A source of random numbers.
#[derive(Debug, Clone)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// The source of a seed.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A source of its own for a part of the stack: what the part draws does not move others.
    pub fn fork(&mut self) -> Self {
        Self::new(self.u64())
    }

    /// 64 random bits.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 32 random bits.
    pub fn u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// 16 random bits.
    pub fn u16(&mut self) -> u16 {
        // The low bits.
        self.u32() as u16
    }

    /// A number below `bound`, all alike likely; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        // The high half of a 64-bit product: the bias is 2^-32 of the bound.
        ((u64::from(self.u32()) * u64::from(bound)) >> 32) as u32
    }

    /// Random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.fill(bytes);
        Ok(())
    }
}
