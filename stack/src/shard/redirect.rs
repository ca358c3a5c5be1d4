//! Redirects: a router says that another one is nearer to a destination (RFC 792, RFC 4861 section 8).
//!
//! Whoever can send one can draw traffic to himself, so they are not followed unless the configuration says so,
//! and then only from the router that is in use, about a destination to which we send, to a neighbour.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::time::Duration;
use smoltcp::wire::{EthernetAddress, IpCidr};

use super::Shard;
use crate::icmp::chain;
use crate::ingress::input::{Destination, Received};
use crate::ip::route::{Route, RouteOrigin};
use crate::observe::DropReason;

impl Shard {
    /// Takes a redirect of ICMP.
    pub(super) fn handle_redirect_v4(&mut self, received: &Received<'_>) -> Result<(), DropReason> {
        if !self.config.follows_redirects || received.destination != Destination::Local {
            return Err(DropReason::RedirectIgnored);
        }
        let message = received.transport();
        let malformed = DropReason::IcmpMalformed;
        let gateway: [u8; 4] = message.get(4..8).and_then(|bytes| bytes.try_into().ok()).ok_or(malformed)?;
        let quoted = message.get(8..).and_then(chain::read).ok_or(malformed)?;
        if !self.is_local(quoted.src) {
            return Err(DropReason::IcmpSpoofed);
        }
        self.follow_redirect(received.ip.src, quoted.dst, Ipv4Addr::from(gateway).into())
    }

    /// Takes a redirect of ICMPv6. Its options are read for the hardware address of the target.
    pub(super) fn handle_redirect_v6(&mut self, received: &Received<'_>) -> Result<(), DropReason> {
        if !self.config.follows_redirects || received.destination != Destination::Local {
            return Err(DropReason::RedirectIgnored);
        }
        let message = received.transport();
        let malformed = DropReason::NdpMalformed;
        let address = |at: usize| -> Option<Ipv6Addr> {
            let octets: [u8; 16] = message.get(at..at + 16)?.try_into().ok()?;
            Some(octets.into())
        };
        let (target, destination) = address(8).zip(address(24)).ok_or(malformed)?;
        let is_from_router = matches!(received.ip.src, IpAddr::V6(src) if src.is_unicast_link_local())
            && received.ip.hop_limit == 255;
        // The target is a router, by its link-local address, or the destination itself, which is a neighbour.
        let is_target = target.is_unicast_link_local() || target == destination;
        if !is_from_router || message.get(1) != Some(&0) || destination.is_multicast() || !is_target {
            return Err(malformed);
        }
        let mac = target_mac(message.get(40..).unwrap_or_default())?;
        self.follow_redirect(received.ip.src, destination.into(), target.into())?;
        match mac {
            Some(mac) => self.neighbors.learn(self.now, target.into(), mac),
            None => Ok(()),
        }
    }

    /// Sends what is for `destination` by `target` for a while.
    fn follow_redirect(
        &mut self,
        from: IpAddr,
        destination: IpAddr,
        target: IpAddr,
    ) -> Result<(), DropReason> {
        //= rfc1122#3.2.2.2
        //# A Redirect message SHOULD be silently discarded if the new gateway address it specifies is not on
        //# the same connected (sub-) net through which the Redirect arrived
        // A target of IPv6 is a neighbour in any case (RFC 4861 section 8.1).
        let is_neighbor = target.is_ipv6() || self.addresses.is_on_link(target);
        if self.routes.next_hop(destination) != Some(from) || !is_neighbor || self.is_local(target) {
            return Err(DropReason::RedirectIgnored);
        }
        let prefix_len = if destination.is_ipv4() { 32 } else { 128 };
        let gateway = Some(target).filter(|target| *target != destination);
        let route = Route::new(IpCidr::new(destination.into(), prefix_len), gateway, RouteOrigin::Redirect);
        let added = self.routes.replace(Route { expires: Some(self.now + LIFETIME), ..route });
        // A router says as many as it likes: what finds no room is counted, and not logged.
        added.map(|_| ()).map_err(|_| DropReason::RedirectIgnored)
    }
}

/// The hardware address in the options of a redirect (RFC 4861 section 4.6.1).
fn target_mac(mut options: &[u8]) -> Result<Option<EthernetAddress>, DropReason> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        let len = usize::from(units) * 8;
        let option =
            options.get(..len).filter(|option| !option.is_empty()).ok_or(DropReason::NdpMalformed)?;
        if kind == TARGET_LINK_LAYER_ADDRESS
            && let Some(&[a, b, c, d, e, f]) = option.get(2..8)
        {
            found = Some(EthernetAddress([a, b, c, d, e, f]));
        }
        options = options.get(len..).unwrap_or_default();
    }
    Ok(found)
}

const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
/// How long a redirect counts; no RFC tells. Linux forgets an unused one after five minutes.
const LIFETIME: Duration = Duration::from_secs(300);
