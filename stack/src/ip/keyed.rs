//! Hash maps whose keys come from the wire: a stranger who does not know our key cannot choose addresses
//! that collide.

use std::hash::BuildHasher;

use siphasher::sip::SipHasher13;

use crate::random::Random;

/// Builds hashers with a key of its own.
#[derive(Debug, Clone)]
pub(super) struct Keyed(u64, u64);

impl Keyed {
    pub(super) fn new(random: &mut Random) -> Self {
        Self(random.u64(), random.u64())
    }
}

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}
