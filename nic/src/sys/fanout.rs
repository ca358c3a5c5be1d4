//! Fanout groups of packet sockets: packet(7).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::checked;

/// Joins a group: `id` in the low 16 bits, mode and flags in the high ones (PACKET_FANOUT).
///
/// With `members_max` of 0 the kernel's own limit counts, and kernels before 5.10 take the call too.
pub(crate) fn join(socket: BorrowedFd<'_>, id_and_mode: u32, members_max: u32) -> io::Result<()> {
    // `struct fanout_args`: its first two fields are the halves of a number, in either byte order.
    let value = [id_and_mode, members_max];
    let words = if members_max == 0 { 1 } else { 2 };
    let size = (words * size_of::<u32>()) as libc::socklen_t;
    let (level, option) = (libc::SOL_PACKET, libc::PACKET_FANOUT);
    let value = (&raw const value).cast();
    // SAFETY: `value` is at least `size` initialised bytes, alive for the call.
    checked(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, size) })?;
    Ok(())
}

/// The group that a socket is in: `id` in the low 16 bits, mode and flags in the high ones; 0 if none.
pub(crate) fn group(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut value: u32 = 0;
    let mut size = size_of::<u32>() as libc::socklen_t;
    let (level, option) = (libc::SOL_PACKET, libc::PACKET_FANOUT);
    let target = (&raw mut value).cast();
    // SAFETY: `target` is `size` writable bytes, both borrowed for the call.
    checked(unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, target, &raw mut size) })?;
    Ok(value)
}

/// What a packet socket is bound to: the protocol (0: it receives nothing) and the index of the interface
/// (0: all of them, or none).
pub(crate) fn bound_to(socket: BorrowedFd<'_>) -> io::Result<(u16, i32)> {
    // SAFETY: `sockaddr_ll` is integers and an array, for which zeroes are a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    let target = (&raw mut address).cast();
    // SAFETY: `target` is `size` writable bytes, both borrowed for the call.
    checked(unsafe { libc::getsockname(socket.as_raw_fd(), target, &raw mut size) })?;
    Ok((u16::from_be(address.sll_protocol), address.sll_ifindex))
}
