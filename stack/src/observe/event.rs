//! What a hook is told while it happens.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr};

use super::DropReason;
use crate::dhcp::v4::{Lease, LostReason};
use crate::shard::SocketId;

/// Something that happened in a shard.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A frame was dropped; of what was not from the wire, there are no bytes.
    Dropped {
        /// Why.
        reason: DropReason,
        /// The frame, or the IP packet.
        frame: &'a [u8],
    },
    /// What came for a socket found no room in its queue.
    SocketQueueFull {
        /// Which socket.
        socket: SocketId,
        /// As it is counted.
        reason: DropReason,
    },
    /// An address is in use from now on.
    AddressAdded(IpCidr),
    /// An address is good for what has begun with it, and not chosen for anything new.
    AddressDeprecated(IpAddr),
    /// An address is gone.
    AddressRemoved(IpAddr),
    /// Somebody else has an address of ours.
    AddressConflict {
        /// The address.
        address: IpAddr,
        /// Who else has it.
        mac: EthernetAddress,
    },
    /// A neighbour did not answer, and a packet was waiting for it: told once for each such packet.
    NeighborUnreachable(IpAddr),
    /// The same of a gateway: others are tried before it until there is a sign of it.
    GatewayDead(IpAddr),
    /// A DHCP server has given an address, or more time for it.
    LeaseObtained(&'a Lease),
    /// An address of a DHCP server is not ours any more.
    LeaseLost {
        /// The address.
        address: Ipv4Addr,
        /// Why.
        reason: LostReason,
    },
    /// Servers that answer DNS queries from now on, best first: of the configuration, and those that DHCP and
    /// routers have told.
    DnsServers(&'a [IpAddr]),
}

/// A function that is told of events, with the time. It is called in the middle of a turn: it should be
/// quick.
pub type Hook = Box<dyn FnMut(Instant, &Event<'_>) + Send>;

/// An optional [`Hook`].
#[derive(Default)]
pub(crate) struct Hooked(pub(crate) Option<Hook>);

impl Hooked {
    pub(crate) fn tell(&mut self, now: Instant, event: &Event<'_>) {
        if let Some(hook) = &mut self.0 {
            hook(now, event);
        }
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hooked").field(&self.0.is_some()).finish()
    }
}
