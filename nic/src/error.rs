//! What can fail: opening a device, and a device that runs.

use std::fmt;
use std::io;

/// Why a running device cannot carry frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The interface is down; connections wait, and it may come back.
    #[error("the interface is down")]
    Down,
    /// The interface was removed; no frame will ever come.
    #[error("the interface is gone")]
    Gone,
}

/// The step of opening a packet socket at which [`OpenError`] happened, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// `socket(AF_PACKET)`.
    Socket,
    /// Looking up the interface: does it exist, is it up, is it Ethernet.
    Interface,
    /// The ring geometry, checked before the kernel sees it; its default follows the interface's MTU.
    Geometry,
    /// PACKET_VERSION.
    Version,
    /// The other socket options.
    Options,
    /// The filter.
    Filter,
    /// PACKET_RX_RING and PACKET_TX_RING.
    Rings,
    /// Mapping the rings.
    Map,
    /// `bind` to the interface.
    Bind,
    /// Promiscuous mode.
    Membership,
    /// The group of sockets that share what is received.
    Fanout,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Socket => "open a packet socket for",
            Self::Interface => "look up",
            Self::Geometry => "check the ring geometry of",
            Self::Version => "choose the ring version on",
            Self::Options => "set socket options for",
            Self::Filter => "attach a filter for",
            Self::Rings => "allocate rings for",
            Self::Map => "map the rings of",
            Self::Bind => "bind to",
            Self::Membership => "listen to all stations on",
            Self::Fanout => "share what is received on",
        })
    }
}

/// Why a packet device could not be opened: where, on what, what the kernel said, and what helps.
#[derive(Debug)]
#[non_exhaustive]
pub struct OpenError {
    /// The step that failed. Nothing of the earlier steps is left behind.
    pub step: Step,
    /// Name of the interface, as it was given.
    pub interface: String,
    /// What the kernel, or the check of the geometry, said.
    pub source: io::Error,
}

impl OpenError {
    /// What a person can do about it, for the causes that are known.
    pub fn hint(&self) -> Option<&'static str> {
        match (self.step, self.source.raw_os_error()?) {
            (Step::Socket, libc::EPERM | libc::EACCES) => {
                Some("packet sockets need CAP_NET_RAW: run as root, or `setcap cap_net_raw+ep` the program")
            }
            (Step::Interface, libc::ENODEV) => {
                Some("`ip link` lists the interfaces of this network namespace")
            }
            (Step::Interface | Step::Bind, libc::ENETDOWN) => {
                Some("bring it up with `ip link set dev NAME up`")
            }
            (Step::Rings, libc::ENOMEM) => Some(
                "the kernel has no contiguous memory for blocks of this size: use smaller or fewer blocks",
            ),
            (Step::Rings, libc::EINVAL) => {
                Some("the kernel refuses this ring geometry: use smaller or fewer blocks")
            }
            (Step::Map, libc::EAGAIN | libc::EPERM) => {
                Some("the rings exceed RLIMIT_MEMLOCK: raise it or use smaller rings")
            }
            _ => None,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {:?}: {}", self.step, self.interface, self.source)?;
        match self.hint() {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
