//! Questions about a network interface: netdevice(7).
//!
//! All go through a socket, and so to the network namespace in which that socket was opened, whatever
//! namespace the calling thread is in.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::checked;

/// Index of the interface of this name.
///
/// # Errors
/// ENODEV: there is no such interface. EINVAL: this cannot be a name (15 bytes at most).
pub(crate) fn index(socket: BorrowedFd<'_>, name: &str) -> io::Result<i32> {
    let request = ask(socket, libc::SIOCGIFINDEX, named(name)?)?;
    // SAFETY: SIOCGIFINDEX succeeded, so the kernel has written this field of the union.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex })
}

/// Name of the interface of this index now; it may have been renamed.
///
/// # Errors
/// ENODEV: the interface was removed.
pub(crate) fn name(socket: BorrowedFd<'_>, index: i32) -> io::Result<[libc::c_char; libc::IFNAMSIZ]> {
    let mut request = empty();
    request.ifr_ifru.ifru_ifindex = index;
    Ok(ask(socket, libc::SIOCGIFNAME, request)?.ifr_name)
}

/// The flags (`IFF_UP`, `IFF_RUNNING`, …) of the interface of this index.
///
/// # Errors
/// ENODEV: the interface was removed.
pub(crate) fn flags(socket: BorrowedFd<'_>, index: i32) -> io::Result<i32> {
    let mut request = empty();
    request.ifr_name = name(socket, index)?;
    let request = ask(socket, libc::SIOCGIFFLAGS, request)?;
    // SAFETY: SIOCGIFFLAGS succeeded, so the kernel has written this field of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    // The kernel's flags are 16 bits without a sign.
    Ok(i32::from(flags as u16))
}

/// MTU of the interface of this index, in bytes of a packet (no Ethernet header).
///
/// # Errors
/// ENODEV: the interface was removed.
pub(crate) fn mtu(socket: BorrowedFd<'_>, index: i32) -> io::Result<i32> {
    let mut request = empty();
    request.ifr_name = name(socket, index)?;
    let request = ask(socket, libc::SIOCGIFMTU, request)?;
    // SAFETY: SIOCGIFMTU succeeded, so the kernel has written this field of the union.
    Ok(unsafe { request.ifr_ifru.ifru_mtu })
}

/// Hardware type (ARPHRD_*) and the first six bytes of the hardware address.
///
/// # Errors
/// ENODEV: the interface was removed.
pub(crate) fn hardware(socket: BorrowedFd<'_>, index: i32) -> io::Result<(u16, [u8; 6])> {
    let mut request = empty();
    request.ifr_name = name(socket, index)?;
    let request = ask(socket, libc::SIOCGIFHWADDR, request)?;
    // SAFETY: SIOCGIFHWADDR succeeded, so the kernel has written this field of the union.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    let mut mac = [0; 6];
    for (byte, &source) in mac.iter_mut().zip(&address.sa_data) {
        // The same eight bits: `c_char` has a sign on some machines.
        *byte = source as u8;
    }
    Ok((address.sa_family, mac))
}

fn empty() -> libc::ifreq {
    // SAFETY: `ifreq` is integers and arrays of them, for which zeroes are a valid value; the pointer
    // in its union is not read.
    unsafe { std::mem::zeroed() }
}

fn named(name: &str) -> io::Result<libc::ifreq> {
    let mut request = empty();
    let bytes = name.as_bytes();
    // One byte stays zero: the kernel wants a terminated string.
    if bytes.is_empty() || bytes.len() >= request.ifr_name.len() || bytes.contains(&0) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (target, &byte) in request.ifr_name.iter_mut().zip(bytes) {
        *target = byte as libc::c_char;
    }
    Ok(request)
}

fn ask(socket: BorrowedFd<'_>, question: libc::c_ulong, mut request: libc::ifreq) -> io::Result<libc::ifreq> {
    // SAFETY: every question of this file reads and writes one `ifreq`, which `request` is; the
    // descriptor is open because it is borrowed.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), question as libc::Ioctl, &raw mut request) })?;
    Ok(request)
}
