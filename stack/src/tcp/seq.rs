//! Sequence numbers: positions in a stream, modulo 2^32 (RFC 9293 section 3.4).

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// A sequence number. Two of them can be compared if they are less than 2^31 apart, which is so for all numbers
/// of one connection that mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Seq(pub u32);

impl Seq {
    /// How far this is behind `start`, modulo 2^32.
    #[inline]
    pub fn since(self, start: Self) -> u32 {
        self.0.wrapping_sub(start.0)
    }

    /// Whether this comes before `other`.
    #[inline]
    pub fn is_before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// Whether this comes after `other`.
    #[inline]
    pub fn is_after(self, other: Self) -> bool {
        other.is_before(self)
    }

    /// Whether this is `other` or comes before it.
    #[inline]
    pub fn is_at_most(self, other: Self) -> bool {
        !other.is_before(self)
    }

    /// Whether this is `other` or comes after it.
    #[inline]
    pub fn is_at_least(self, other: Self) -> bool {
        !self.is_before(other)
    }

    /// Whether this is one of the `len` numbers from `start` on.
    #[inline]
    pub fn is_within(self, start: Self, len: u32) -> bool {
        self.since(start) < len
    }

    /// The later one.
    #[inline]
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        if self.is_before(other) { other } else { self }
    }

    /// The earlier one.
    #[inline]
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        if other.is_before(self) { other } else { self }
    }
}

impl Add<u32> for Seq {
    type Output = Self;

    #[inline]
    fn add(self, len: u32) -> Self {
        Self(self.0.wrapping_add(len))
    }
}

impl AddAssign<u32> for Seq {
    #[inline]
    fn add_assign(&mut self, len: u32) {
        *self = *self + len;
    }
}

impl Sub<u32> for Seq {
    type Output = Self;

    #[inline]
    fn sub(self, len: u32) -> Self {
        Self(self.0.wrapping_sub(len))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn order_does_not_mind_where_numbers_wrap(start: u32, len in 1_u32..1 << 31) {
            let (start, end) = (Seq(start), Seq(start) + len);
            prop_assert!(start.is_before(end) && end.is_after(start) && !end.is_before(start));
            prop_assert!(start.is_at_most(end) && start.is_at_most(start) && !end.is_at_most(start));
            prop_assert!(end.is_at_least(start) && end.is_at_least(end) && !start.is_at_least(end));
            prop_assert_eq!((start.max(end), start.min(end)), (end, start));
            prop_assert_eq!((end.since(start), end - len), (len, start));
            prop_assert!(start.is_within(start, len) && (end - 1).is_within(start, len));
            prop_assert!(!end.is_within(start, len) && !(start - 1).is_within(start, len));
        }
    }
}
