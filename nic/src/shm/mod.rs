//! Memory that the kernel and we write in turn. With `sys`, the only place of unsafe code.
#![allow(unsafe_code)]

mod blocks;
mod region;
mod slots;

pub(crate) use blocks::{Block, BlockRing};
pub(crate) use region::Region;
pub(crate) use slots::{Side, Slot, SlotRing};
