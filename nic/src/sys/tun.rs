//! The ioctls of `/dev/net/tun`: Documentation/networking/tuntap.rst, drivers/net/tun.c.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::checked;
use super::ethtool::InterfaceName;

/// Attaches an open `/dev/net/tun` to the interface of this name, which is made if there is none
/// (TUNSETIFF). `flags` are those of `linux/if_tun.h` that fit into 16 bits.
///
/// # Errors
/// EPERM: no CAP_NET_ADMIN. EINVAL: the interface is of another kind, or other flags were chosen when it
/// was made. EBUSY: another process is attached to it.
pub(crate) fn attach(tun: BorrowedFd<'_>, name: InterfaceName, flags: libc::c_int) -> io::Result<()> {
    let mut request = libc::ifreq {
        ifr_name: name.chars(),
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags as libc::c_short },
    };
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `request` is: initialised, writable, alive for
    // the call. The descriptor is open because it is borrowed.
    checked(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(())
}

/// Bytes of the header before each frame (TUNSETVNETHDRSZ).
///
/// # Errors
/// EINVAL: less than a `virtio_net_hdr`.
pub(crate) fn set_header_len(tun: BorrowedFd<'_>, len: libc::c_int) -> io::Result<()> {
    let mut len = len;
    // SAFETY: TUNSETVNETHDRSZ reads one `int`, which `len` is, alive for the call; the descriptor is open
    // because it is borrowed.
    checked(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw mut len) })?;
    Ok(())
}

/// What the kernel may leave undone in frames that we read: TUN_F_* (TUNSETOFFLOAD).
///
/// # Errors
/// EINVAL: a bit that this kernel does not know, or a combination that makes no sense.
pub(crate) fn set_offloads(tun: BorrowedFd<'_>, offloads: libc::c_uint) -> io::Result<()> {
    // SAFETY: the argument of TUNSETOFFLOAD is a number, not a pointer; the descriptor is open because it
    // is borrowed.
    checked(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads)) })?;
    Ok(())
}

/// Sets IFF_UP beside the `flags` that the interface has (SIOCSIFFLAGS).
///
/// # Errors
/// EPERM: no CAP_NET_ADMIN. ENODEV: there is no such interface in the namespace of the socket.
pub(crate) fn set_up(socket: BorrowedFd<'_>, name: InterfaceName, flags: i32) -> io::Result<()> {
    let mut request = libc::ifreq {
        ifr_name: name.chars(),
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: (flags | libc::IFF_UP) as libc::c_short },
    };
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which `request` is: initialised, alive for the call. The
    // descriptor is open because it is borrowed.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &raw mut request) })?;
    Ok(())
}
