//! A network on one machine: two kernels and a wire between them, gone when dropped.
//!
//! ```text
//!   Namespace "peer"                                Namespace "ours"
//!   Linux's own TCP/IP, 10.77.0.1, fd77::1 ── veth ── no address: frames are left to the user stack
//! ```
//!
//! Nothing here has a fixed name: namespaces are held by file descriptor, interfaces get random names,
//! so any number of these networks exist side by side. Without root it works inside of a user
//! namespace, see [`enter_user_namespace`]. Facts on interfaces come from netlink and ioctl, not from
//! `/sys`, which shows the namespace of whoever mounted it.
//!
//! | module | what it owns |
//! |---|---|
//! | `namespace` | [`Namespace`]: made, entered, held by descriptor |
//! | `veth` | [`VethPair`] and its ends: addresses, MTU, offloads, up and down |
//! | `wire` | [`Wire`]: the network in the picture above |
//! | `chain` | [`Chain`]: two wires, end to end |
//! | `sysctl` | settings below `/proc/sys/net` |
//! | `netlink` | requests to the kernel, one short-lived connection each |

mod chain;
mod namespace;
mod netlink;
mod sysctl;
mod veth;
mod wire;

use std::io;
use std::time::Duration;

pub use chain::{Chain, LEFT_IPV4, LEFT_IPV6, RIGHT_IPV4, RIGHT_IPV6};
pub use namespace::{Namespace, enter_user_namespace, is_real_root};
pub use sysctl::has_ipv6;
pub use veth::{NAME_PREFIX, VethEnd, VethOptions, VethPair};
pub use wire::{
    IPV4_PREFIX_LEN, IPV6_PREFIX_LEN, OURS_IPV4, OURS_IPV6, PEER_IPV4, PEER_IPV6, PeerKernel, Wire,
    WireOptions,
};

/// Whether an interface of this network namespace is a port of a kernel's bridge, bond or the like.
pub(crate) fn is_part_of_another(interface: &str) -> io::Result<bool> {
    Ok(netlink::link(interface)?.controller.is_some())
}

/// Why a testbed could not be made or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestbedError {
    /// This process may not have a user namespace, and is not privileged without one.
    #[error("cannot make a user namespace: {source} ({hint})")]
    UserNamespace {
        /// What the kernel said.
        source: io::Error,
        /// What a person can do about it.
        hint: &'static str,
    },
    /// A network namespace could not be made, found or entered.
    #[error("cannot {step} a network namespace: {source}{}", namespace_hint(source))]
    Namespace {
        /// What was tried: a verb.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// An interface could not be made or changed.
    #[error("cannot {step} interface {interface:?}: {source}")]
    Link {
        /// Name of the interface.
        interface: String,
        /// What was tried, up to the word before the interface.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The interface was set up, and the kernel does not send frames on it.
    #[error("interface {interface:?} has no carrier after {waited:?}: set the other end up as well")]
    NoCarrier {
        /// Name of the interface.
        interface: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// An offload does not take the value it was given.
    #[error("offloads of interface {interface:?} are {found}: {wanted} was asked for")]
    Offloads {
        /// Name of the interface.
        interface: String,
        /// What the interface has on.
        found: String,
        /// What was asked for.
        wanted: &'static str,
    },
    /// A file below `/proc/sys/net` could not be written.
    #[error("cannot write {value:?} to {path:?}: {source} (/proc must be mounted and writable)")]
    Setting {
        /// The file.
        path: String,
        /// What was to be written.
        value: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn namespace_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (needs CAP_SYS_ADMIN: run as root, or in a user namespace)",
        io::ErrorKind::StorageFull => " (the limit is reached: raise `sysctl user.max_net_namespaces`)",
        _ => "",
    }
}
