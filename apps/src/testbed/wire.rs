//! The usual network: Linux at one end of a wire, room for a user stack at the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Namespace, TestbedError, VethEnd, VethOptions, VethPair, has_ipv6, sysctl};

/// Address of the kernel at the peer's end.
pub const PEER_IPV4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Address that is free for the user stack at our end.
pub const OURS_IPV4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Length of the prefix that both IPv4 addresses share.
pub const IPV4_PREFIX_LEN: u8 = 24;
/// Address of the kernel at the peer's end.
pub const PEER_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// Address that is free for the user stack at our end.
pub const OURS_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
/// Length of the prefix that both IPv6 addresses share.
pub const IPV6_PREFIX_LEN: u8 = 64;

/// The smallest MTU that an interface with IPv6 may have.
const IPV6_MTU_MIN: u32 = 1280;

/// Which kernel is the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PeerKernel {
    /// One in a namespace of its own.
    #[default]
    New,
    /// The one that the calling thread is in: its programs reach the user stack. Needs the right to
    /// add interfaces to it (root, on a host).
    Current,
}

/// How a [`Wire`] is to be.
#[derive(Debug, Clone)]
pub struct WireOptions {
    /// The pair of interfaces; its first end is the peer's.
    pub veth: VethOptions,
    /// Where the peer's end is.
    pub peer: PeerKernel,
    /// Addresses of the peer, with the length of their prefixes.
    pub peer_addresses: Vec<(IpAddr, u8)>,
}

impl WireOptions {
    /// The default with another MTU; below 1280 there is no IPv6 (RFC 8200, 5), so no such address.
    pub fn with_mtu(mtu: u32) -> Self {
        let mut options = Self::default();
        options.veth.mtu = mtu;
        options.peer_addresses.retain(|(address, _)| address.is_ipv4() || mtu >= IPV6_MTU_MIN);
        options
    }
}

impl Default for WireOptions {
    /// A peer of its own with [`PEER_IPV4`] and, if the kernel has IPv6 at all, [`PEER_IPV6`].
    fn default() -> Self {
        let mut peer_addresses = vec![(PEER_IPV4.into(), IPV4_PREFIX_LEN)];
        if has_ipv6() {
            peer_addresses.push((PEER_IPV6.into(), IPV6_PREFIX_LEN));
        }
        Self { veth: VethOptions::default(), peer: PeerKernel::default(), peer_addresses }
    }
}

/// A wire between a kernel, the peer, and an end that is ours.
///
/// The kernel at our end has no address, no IPv6 and does not forward: it never answers a frame, so
/// all of them are left to the user stack that opens the interface. Dropping the wire removes it.
#[derive(Debug)]
pub struct Wire {
    pair: VethPair,
}

impl Wire {
    /// A wire as [`WireOptions::default`] says, up at both ends.
    ///
    /// # Errors
    /// Any of [`TestbedError`], most likely for want of privilege: see
    /// [`enter_user_namespace`](super::enter_user_namespace).
    pub fn new() -> Result<Self, TestbedError> {
        Self::with(&WireOptions::default())
    }

    /// A wire with options, up at both ends.
    ///
    /// # Errors
    /// As for [`new`](Wire::new).
    pub fn with(options: &WireOptions) -> Result<Self, TestbedError> {
        let peer = match options.peer {
            PeerKernel::New => Namespace::new()?,
            PeerKernel::Current => Namespace::current()?,
        };
        let ours = Namespace::new()?;
        // Before there is an interface: later ones take `default` over.
        ours.try_run(|| {
            sysctl::set_ipv6("conf/all/disable_ipv6", "1")?;
            sysctl::set_ipv6("conf/default/disable_ipv6", "1")
        })??;
        let wire = Self { pair: VethPair::between(&peer, &ours, &options.veth)? };
        wire.pair.up()?;
        for (address, prefix_len) in &options.peer_addresses {
            wire.peer().add_address(*address, *prefix_len)?;
        }
        Ok(wire)
    }

    /// The kernel's end.
    pub fn peer(&self) -> &VethEnd {
        self.pair.a()
    }

    /// The user stack's end.
    pub fn ours(&self) -> &VethEnd {
        self.pair.b()
    }

    /// Both ends.
    pub fn pair(&self) -> &VethPair {
        &self.pair
    }

    /// Runs `f` on a thread of the peer's kernel, and waits for it: where tests use [`std::net`] and
    /// start programs.
    ///
    /// # Panics
    /// As for [`Namespace::run`].
    pub fn at_peer<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.peer().namespace().run(f)
    }

    /// Runs `f` on a thread at our end, and waits for it: where a user stack opens the interface.
    ///
    /// # Panics
    /// As for [`Namespace::run`].
    pub fn at_ours<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.ours().namespace().run(f)
    }
}
