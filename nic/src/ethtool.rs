//! Which work the kernel hands to an interface: offloads, read and switched as `ethtool -k/-K` does.
//!
//! A frame of a veth pair carries what its sender left undone. With offloads on that is a lot: a TCP
//! segment of 64 KB in one frame, a checksum field with only the pseudo-header in it. With all of
//! them off each frame is what a wire would carry. A stack that reads raw frames must cope with both,
//! so tests run with both, and this file is how they switch.
//!
//! All functions mean interfaces of the network namespace of the calling thread, except those of
//! [`OffloadGuard`], which stays with the namespace in which it was made. What a guard of a process that
//! was killed has left changed, [`recover`] puts back.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::str::FromStr;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::sys::ethtool::{self as sys, InterfaceName, value};

mod channels;
mod features;
mod guard;

pub use channels::{Channels, channels};
pub use features::{Feature, Features, features};
pub use guard::{OffloadGuard, recover};

/// What the kernel calls LRO among the features.
const LRO_FEATURE: &str = "rx-lro";

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
    /// Large receive: the interface merges segments itself, and does not always tell how they were.
    /// Real devices only; nothing in software has it.
    Lro,
}

impl Offload {
    /// All of them, each after those that it depends on: the order in which to switch them on. Which of
    /// them an interface has, [`Offloads::is_available`] says.
    pub const ALL: [Self; 7] =
        [Self::RxChecksum, Self::TxChecksum, Self::ScatterGather, Self::Tso, Self::Gso, Self::Gro, Self::Lro];

    /// ETHTOOL_G... and ETHTOOL_S... of `linux/ethtool.h`, and which bits of the number are meant.
    const fn commands(self) -> (u32, u32, u32) {
        match self {
            Self::RxChecksum => (0x14, 0x15, u32::MAX),
            Self::TxChecksum => (0x16, 0x17, u32::MAX),
            Self::ScatterGather => (0x18, 0x19, u32::MAX),
            Self::Tso => (0x1e, 0x1f, u32::MAX),
            Self::Gso => (0x23, 0x24, u32::MAX),
            Self::Gro => (0x2b, 0x2c, u32::MAX),
            // ETHTOOL_GFLAGS and ETHTOOL_SFLAGS with ETH_FLAG_LRO, next to flags of others.
            Self::Lro => (0x25, 0x26, 1 << 15),
        }
    }

    /// The names that `ethtool -K` takes.
    const fn short_name(self) -> &'static str {
        match self {
            Self::RxChecksum => "rx",
            Self::TxChecksum => "tx",
            Self::ScatterGather => "sg",
            Self::Tso => "tso",
            Self::Gso => "gso",
            Self::Gro => "gro",
            Self::Lro => "lro",
        }
    }
}

impl FromStr for Offload {
    type Err = String;

    /// Reads both names: `gro` and `generic-receive-offload`.
    fn from_str(text: &str) -> Result<Self, String> {
        let known = |offload: &Self| offload.short_name() == text || offload.to_string() == text;
        Self::ALL.into_iter().find(known).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|offload| offload.short_name()).collect();
            format!("{text:?} is no offload; {} are accepted", names.join(", "))
        })
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
            Self::Lro => "large-receive-offload",
        })
    }
}

/// Which offloads an interface has on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads {
    bits: u8,
    /// Those that are off for good: the driver does not know them.
    missing: u8,
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

    /// Whether all are on that the interface has: a veth pair, for one, has no LRO.
    pub fn is_all(self) -> bool {
        Offload::ALL.into_iter().all(|offload| self.has(offload) || !self.is_available(offload))
    }

    /// Whether the interface has it, on or off.
    pub fn is_available(self, offload: Offload) -> bool {
        self.missing & Self::bit(offload) == 0
    }

    fn miss(&mut self, offload: Offload) {
        self.missing |= Self::bit(offload);
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
            match self.bits(offload) {
                Ok(0) => {}
                Ok(_) => offloads.insert(offload),
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => offloads.miss(offload),
                Err(error) => return Err(error),
            }
        }
        // The question for LRO has an answer without LRO, too.
        if !offloads.has(Offload::Lro) && !self.features()?.is_available(LRO_FEATURE) {
            offloads.miss(Offload::Lro);
        }
        Ok(offloads)
    }

    fn is_on(&self, offload: Offload) -> io::Result<bool> {
        match self.bits(offload) {
            Ok(bits) => Ok(bits != 0),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn bits(&self, offload: Offload) -> io::Result<u32> {
        let (get, _, mask) = offload.commands();
        value(self.socket.as_fd(), self.interface, get, 0).map(|data| data & mask)
    }

    fn set(&self, offload: Offload, on: bool) -> io::Result<()> {
        let (get, set, mask) = offload.commands();
        let data = if mask == u32::MAX {
            u32::from(on)
        } else {
            let others = value(self.socket.as_fd(), self.interface, get, 0)? & !mask;
            others | if on { mask } else { 0 }
        };
        value(self.socket.as_fd(), self.interface, set, data).map(|_| ())
    }

    fn features(&self) -> io::Result<Features> {
        let (socket, interface) = (self.socket.as_fd(), self.interface);
        Ok(Features::new(sys::feature_names(socket, interface)?, &sys::features(socket, interface)?))
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
        for offload in [Offload::TxChecksum, Offload::RxChecksum, Offload::ScatterGather, Offload::Gso] {
            offloads.insert(offload);
        }
        assert!(!offloads.is_all());
        offloads.miss(Offload::Lro);
        assert!(offloads.is_all() && !offloads.is_available(Offload::Lro));
        Offload::ALL.into_iter().for_each(|offload| offloads.insert(offload));
        assert!(offloads.is_all());
    }

    #[test]
    fn offloads_are_known_by_both_names() {
        for offload in Offload::ALL {
            assert_eq!(offload.to_string().parse(), Ok(offload));
            assert_eq!(offload.short_name().parse(), Ok(offload));
        }
        let error = "lor".parse::<Offload>().unwrap_err();
        assert!(error.contains("\"lor\"") && error.contains("gro, lro"), "{error}");
    }

    #[test]
    fn loopback_has_no_lro_and_cannot_be_given_it() {
        let offloads = offloads("lo").unwrap();
        assert!(!offloads.is_available(Offload::Lro) && !offloads.has(Offload::Lro));
        assert!(offloads.is_available(Offload::Gro));
    }
}
