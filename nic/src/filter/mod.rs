//! Which frames a socket receives: classic BPF, and lists of prefixes.
//!
//! | what | where a frame is judged | for |
//! |---|---|---|
//! | [`FilterSpec`] → [`Program`] | in the kernel, before it costs a slot of a ring | some rules on protocols, addresses, ports |
//! | [`tcpdump::compile`] → [`Program`] | the same | any expression of pcap-filter(7) |
//! | [`ClaimSet::socket_filter`](crate::claim::ClaimSet::socket_filter) | the same | an address that the kernel owns too |
//! | [`PrefixSet`] | in user space | 10^5 prefixes to allow or to deny |
//!
//! A [`Program`] has passed the kernel's own rules, can be printed as `tcpdump -d` does, and runs in user
//! space as well ([`Program::run`]), with the results that it has in the kernel.
//!
//! A socket filter counts from the link header, and decides how many bytes of a frame are kept. What
//! was queued before [`attach`] stays queued: attach it to a socket that is not bound yet, as then
//! nothing is. Otherwise attach [`Program::constant`] of 0 first, take from the socket what waits there,
//! and attach the real one then.

use std::io;
use std::os::fd::AsFd;

use crate::sys;

pub(crate) mod assemble;
mod claims;
mod interpret;
pub(crate) mod packet;
mod prefix;
mod prefixes;
pub(crate) mod program;
mod spec;
pub mod tcpdump;
#[cfg(test)]
pub(crate) mod tests;

pub use interpret::{Context, Extensions, Run};
pub use packet::Origin;
pub use prefix::{ParsePrefixError, Prefix};
pub use prefixes::{ListKind, PrefixListError, PrefixSet};
pub use program::{INSTRUCTIONS_MAX, Instruction, Program, ProgramError, SCRATCH_WORDS};
pub use spec::{FilterSpec, ListSense, ParseRuleError, Rule, Side};

/// Attaches a program to a socket, in place of an earlier one (SO_ATTACH_FILTER).
///
/// # Errors
/// EPERM: the filter is locked. ENOMEM: with the filter, the socket would exceed `net.core.optmem_max`.
pub fn attach(socket: impl AsFd, program: &Program) -> io::Result<()> {
    let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
    sys::filter::set_program(socket.as_fd(), level, option, program.instructions())
}

/// Takes the program off a socket (SO_DETACH_FILTER).
///
/// # Errors
/// ENOENT: there is none. EPERM: it is locked.
pub fn detach(socket: impl AsFd) -> io::Result<()> {
    sys::filter::set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0)
}

/// Makes sure that nobody changes the program of a socket, or takes it off, ever again (SO_LOCK_FILTER): a
/// socket can be handed to a process with fewer rights then.
///
/// # Errors
/// None that are known.
pub fn lock(socket: impl AsFd) -> io::Result<()> {
    sys::filter::set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_LOCK_FILTER, 1)
}
