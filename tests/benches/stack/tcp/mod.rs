//! TCP: over a veth pair against the kernel's, and in memory.

mod bulk;
mod connects;
mod idle;
mod line;
mod memory;
mod place;
mod rtt;

pub(crate) use bulk::all as bulk;
pub(crate) use connects::all as connects;
pub(crate) use idle::{FLAG as IDLE_FLAG, all as idle, run_idle};
pub(crate) use line::Line;
pub(crate) use memory::{all as memory, count};
pub(crate) use rtt::all as rtt;

/// Who is at an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Kernel,
    Ours,
}

const PORT: u16 = 5201;
const CLIENT_CORE: usize = 0;
const SERVER_CORE: usize = 1;
