//! Which work the kernel hands to an interface: offloads, read and switched as `ethtool -k/-K` does.
//!
//! A frame of a veth pair carries what its sender left undone. With offloads on that is a lot: a TCP
//! segment of 64 KB in one frame, a checksum field with only the pseudo-header in it. With all of
//! them off each frame is what a wire would carry. A stack that reads raw frames must cope with both,
//! so tests run with both, and this file is how they switch.
//!
//! All functions mean interfaces of the network namespace of the calling thread, except those of
//! [`OffloadGuard`], which stays with the namespace in which it was made.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::sys::ethtool::{InterfaceName, value};

/// A piece of work that an interface can take from the kernel, by the name that `ethtool -k` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Offload {
    /// Checksums of frames that are sent; without it also no scatter-gather and no TSO.
    TxChecksum,
    /// Checksums of frames that are received: the driver says which it has verified.
    RxChecksum,
    /// Frames in several pieces of memory; TSO and GSO depend on it.
    ScatterGather,
    /// TCP segmentation: the kernel sends segments of up to 64 KB, and the interface cuts them.
    Tso,
    /// Generic segmentation: what TSO does, in software, as late as possible.
    Gso,
    /// Generic receive: segments of one flow are merged before the stack sees them.
    Gro,
}

impl Offload {
    /// All of them, each after those that it depends on: the order in which to switch them on.
    pub const ALL: [Self; 6] =
        [Self::RxChecksum, Self::TxChecksum, Self::ScatterGather, Self::Tso, Self::Gso, Self::Gro];

    /// ETHTOOL_G... and ETHTOOL_S... of `linux/ethtool.h`.
    const fn commands(self) -> (u32, u32) {
        match self {
            Self::RxChecksum => (0x14, 0x15),
            Self::TxChecksum => (0x16, 0x17),
            Self::ScatterGather => (0x18, 0x19),
            Self::Tso => (0x1e, 0x1f),
            Self::Gso => (0x23, 0x24),
            Self::Gro => (0x2b, 0x2c),
        }
    }
}

impl fmt::Display for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RxChecksum => "rx-checksumming",
            Self::TxChecksum => "tx-checksumming",
            Self::ScatterGather => "scatter-gather",
            Self::Tso => "tcp-segmentation-offload",
            Self::Gso => "generic-segmentation-offload",
            Self::Gro => "generic-receive-offload",
        })
    }
}

/// Which offloads an interface has on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads {
    bits: u8,
}

impl Offloads {
    /// Whether one is on.
    pub fn has(self, offload: Offload) -> bool {
        self.bits & Self::bit(offload) != 0
    }

    /// Whether none is on: frames are as on a wire.
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// Whether all of them are on.
    pub fn is_all(self) -> bool {
        Offload::ALL.into_iter().all(|offload| self.has(offload))
    }

    fn insert(&mut self, offload: Offload) {
        self.bits |= Self::bit(offload);
    }

    const fn bit(offload: Offload) -> u8 {
        1 << offload as u8
    }
}

impl fmt::Display for Offloads {
    /// The names of those that are on, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for offload in Offload::ALL.into_iter().filter(|offload| self.has(*offload)) {
            write!(f, "{separator}{offload}")?;
            separator = ", ";
        }
        if self.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

/// What an interface has on.
///
/// # Errors
/// ENODEV: no such interface here. An offload that a driver does not know is off, not an error.
pub fn offloads(interface: &str) -> io::Result<Offloads> {
    Control::open(interface)?.offloads()
}

/// Switches one offload of an interface on or off.
///
/// The kernel may take others with it, because one depends on the other (see [`Offload`]); they come
/// back when this one does. Ask [`offloads`] what holds now.
///
/// # Errors
/// EPERM: needs CAP_NET_ADMIN. EOPNOTSUPP: fixed in the driver. ENODEV: no such interface here.
pub fn set(interface: &str, offload: Offload, on: bool) -> io::Result<()> {
    Control::open(interface)?.set(offload, on)
}

/// Switches offloads of an interface, and puts back what it changed when it is dropped.
///
/// It acts in the network namespace in which it was made, wherever it is used or dropped.
#[derive(Debug)]
pub struct OffloadGuard {
    control: Control,
    /// What was changed, in order, with the value from before.
    changed: Vec<(Offload, bool)>,
}

impl OffloadGuard {
    /// A guard that has not changed anything yet.
    ///
    /// # Errors
    /// EINVAL (as [`io::ErrorKind::InvalidInput`]): no interface can have this name. EMFILE, ENFILE.
    pub fn new(interface: &str) -> io::Result<Self> {
        Ok(Self { control: Control::open(interface)?, changed: Vec::new() })
    }

    /// Switches one offload, and remembers it if it was not so already.
    ///
    /// # Errors
    /// As for [`set`]; what was switched before stays so until the guard is dropped.
    pub fn set(&mut self, offload: Offload, on: bool) -> io::Result<()> {
        let before = self.control.is_on(offload)?;
        if before != on {
            self.control.set(offload, on)?;
            self.changed.push((offload, before));
        }
        Ok(())
    }
}

impl Drop for OffloadGuard {
    fn drop(&mut self) {
        // The last change first, so that what others depend on comes back after them; the kernel keeps
        // their wish until it can be granted.
        for (offload, before) in self.changed.drain(..).rev() {
            match self.control.set(offload, before) {
                Ok(()) => {}
                // The interface went away first, and its settings with it.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => log::warn!("cannot put back {offload}: {error}"),
            }
        }
    }
}

/// A socket through which the kernel takes requests, and the interface they are for.
#[derive(Debug)]
struct Control {
    /// Belongs to the network namespace in which it was opened: so do all requests.
    socket: OwnedFd,
    interface: InterfaceName,
}

impl Control {
    fn open(interface: &str) -> io::Result<Self> {
        let interface = InterfaceName::new(interface)?;
        // Any kind of socket takes the request. This one exists without IPv4 and IPv6 too.
        let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        Ok(Self { socket, interface })
    }

    fn offloads(&self) -> io::Result<Offloads> {
        let mut offloads = Offloads::default();
        for offload in Offload::ALL {
            if self.is_on(offload)? {
                offloads.insert(offload);
            }
        }
        Ok(offloads)
    }

    fn is_on(&self, offload: Offload) -> io::Result<bool> {
        match value(self.socket.as_fd(), self.interface, offload.commands().0, 0) {
            Ok(data) => Ok(data != 0),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn set(&self, offload: Offload, on: bool) -> io::Result<()> {
        value(self.socket.as_fd(), self.interface, offload.commands().1, u32::from(on)).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_can_be_read_without_privileges() {
        let offloads = offloads("lo").unwrap();
        assert!(offloads.has(Offload::TxChecksum), "{offloads}");
    }

    #[test]
    fn an_interface_that_does_not_exist_is_an_error() {
        let error = offloads("nosuch0").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn sets_of_offloads_name_their_members() {
        let mut offloads = Offloads::default();
        assert_eq!(offloads.to_string(), "none");
        assert!(offloads.is_empty());
        offloads.insert(Offload::Gro);
        offloads.insert(Offload::Tso);
        assert_eq!(offloads.to_string(), "tcp-segmentation-offload, generic-receive-offload");
        assert!(!offloads.is_all());
        Offload::ALL.into_iter().for_each(|offload| offloads.insert(offload));
        assert!(offloads.is_all());
    }
}
