//! A wire with a stack at either end: the client at the peer's, the server at ours.

use std::net::{IpAddr, SocketAddr};

use wirestack_apps::testbed::{
    IPV4_PREFIX_LEN, IPV6_PREFIX_LEN, OURS_IPV4, OURS_IPV6, PEER_IPV4, PEER_IPV6, Wire, WireOptions,
};

use super::{PORT, Who};
use crate::wire::{self, End};

/// See the [module](self).
pub(super) struct Place {
    pub(super) wire: Wire,
    /// Where the server is.
    pub(super) to: SocketAddr,
    pub(super) server: End,
    pub(super) client: End,
}

impl Place {
    /// The kernel of an end has an address only if it is who is measured there.
    pub(super) fn new(is_v6: bool, client: Who, server: Who) -> Result<Self, Box<dyn std::error::Error>> {
        let (ours, peer, prefix_len): (IpAddr, IpAddr, u8) = if is_v6 {
            (OURS_IPV6.into(), PEER_IPV6.into(), IPV6_PREFIX_LEN)
        } else {
            (OURS_IPV4.into(), PEER_IPV4.into(), IPV4_PREFIX_LEN)
        };
        let peer_addresses =
            if client == Who::Kernel { WireOptions::default().peer_addresses } else { Vec::new() };
        let wire = Wire::with(&WireOptions { peer_addresses, ..WireOptions::default() })?;
        if server == Who::Kernel {
            wire.at_ours(wire::allow_ipv6)?;
            wire.ours().add_address(ours, prefix_len)?;
        }
        let to = SocketAddr::new(ours, PORT);
        let (server, client) =
            (End::new(wire.ours(), ours, prefix_len), End::new(wire.peer(), peer, prefix_len));
        Ok(Self { wire, to, server, client })
    }
}
