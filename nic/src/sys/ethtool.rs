//! SIOCETHTOOL with a `struct ethtool_value`: one number to or from the driver of an interface.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `SIOCETHTOOL` of `linux/sockios.h`; libc has it for other targets only.
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// The name of an interface as `struct ifreq` holds it: ends in at least one zero byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InterfaceName([libc::c_char; libc::IFNAMSIZ]);

impl InterfaceName {
    /// Checks the length of a name and that it has no zero byte; whether such an interface exists is
    /// for the kernel to say.
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.len() >= libc::IFNAMSIZ || bytes.contains(&0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name:?} is no interface name: 1 to {} bytes are right", libc::IFNAMSIZ - 1),
            ));
        }
        let mut chars = [0; libc::IFNAMSIZ];
        for (char, byte) in chars.iter_mut().zip(bytes) {
            // The same eight bits: `c_char` is signed on some machines.
            *char = *byte as libc::c_char;
        }
        Ok(Self(chars))
    }

    /// As `struct ifreq` has it.
    pub(crate) fn chars(self) -> [libc::c_char; libc::IFNAMSIZ] {
        self.0
    }
}

/// `struct ethtool_value` of `linux/ethtool.h`.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// Runs one ethtool command that carries a number, on an interface of the network namespace in which
/// `socket` was opened. Returns the number that the kernel left there.
///
/// # Errors
/// What the kernel says: ENODEV (no such interface), EOPNOTSUPP (the driver cannot), EPERM.
pub(crate) fn value(
    socket: BorrowedFd<'_>,
    interface: InterfaceName,
    command: u32,
    data: u32,
) -> io::Result<u32> {
    let mut value = EthtoolValue { cmd: command, data };
    let mut request = libc::ifreq {
        ifr_name: interface.0,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut value).cast() },
    };
    // SAFETY: SIOCETHTOOL reads a `struct ifreq` at its argument: `request` is one, initialized above
    // and alive until the end of this function. The kernel then reads and writes at `ifr_data` what
    // the command says: all callers (`crate::ethtool`, the only user of this function) pass the
    // G/S commands that are defined for `struct ethtool_value`, and `value` is one, initialized,
    // writable (the pointer was made from a mutable place) and alive until it is read below. `socket`
    // is open: it is borrowed.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit_the_kernel_structure() {
        assert!(InterfaceName::new("lo").is_ok());
        assert!(InterfaceName::new("fifteen-bytes-x").is_ok());
        for wrong in ["", "sixteen-bytes-xx", "a\0b"] {
            let error = InterfaceName::new(wrong).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{wrong:?}");
        }
    }
}
