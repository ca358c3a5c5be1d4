//! What a hook is told while it happens.

use std::fmt;
use std::net::IpAddr;

use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr};

use super::DropReason;

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
    /// An address is in use from now on.
    AddressAdded(IpCidr),
    /// An address is gone.
    AddressRemoved(IpAddr),
    /// Somebody else has an address of ours.
    AddressConflict {
        /// The address.
        address: IpAddr,
        /// Who else has it.
        mac: EthernetAddress,
    },
    /// Servers that answer DNS queries from now on; they were told by a router or DHCP.
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
