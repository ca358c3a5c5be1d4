//! Classic BPF on a socket: socket(7).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::checked;
use crate::filter::Instruction;

/// `struct sock_fprog` of `linux/filter.h`, as the C library declares it.
type Fprog = libc::sock_fprog;

/// Sets an option whose value is a program: SO_ATTACH_FILTER of SOL_SOCKET, PACKET_FANOUT_DATA of
/// SOL_PACKET.
///
/// # Errors
/// EINVAL: no valid program. EPERM: the filter is locked. ENOMEM: it exceeds net.core.optmem_max.
pub(crate) fn set_program(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    program: &[Instruction],
) -> io::Result<()> {
    let len =
        libc::c_ushort::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // Both are the kernel's `struct sock_filter`; it only reads them.
    let value = Fprog { len, filter: program.as_ptr().cast_mut().cast() };
    let size = size_of::<Fprog>() as libc::socklen_t;
    let value = (&raw const value).cast();
    // SAFETY: `value` is `size` bytes, alive for the call; its padding is not read by the kernel. It points
    // to `len` instructions of the kernel's layout (`repr(C)`), borrowed for the call.
    checked(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, size) })?;
    Ok(())
}

/// Sets an option whose value is an `int`: SO_LOCK_FILTER, SO_DETACH_FILTER, and a descriptor for
/// PACKET_FANOUT_DATA.
pub(crate) fn set_int(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    let value = (&raw const value).cast();
    // SAFETY: `value` is `size` initialised bytes, alive for the call.
    checked(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, size) })?;
    Ok(())
}
