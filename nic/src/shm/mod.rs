//! Memory that the kernel and we write in turn. With `sys`, the only place of unsafe code.
#![allow(unsafe_code)]

mod blocks;
#[cfg(test)]
mod model;
mod region;
mod slots;
#[cfg(test)]
mod stress;

pub(crate) use blocks::{Block, BlockRing};
pub(crate) use region::Region;
pub(crate) use slots::{Side, Slot, SlotRing};

use std::sync::atomic::Ordering;

/// How a status word is looked at: what the other side wrote before it set the value is visible afterwards.
const LOOK: Ordering = Ordering::Acquire;
/// How a status word is set: what was written before is visible to the other side once it sees the value.
const HAND_OVER: Ordering = Ordering::Release;
