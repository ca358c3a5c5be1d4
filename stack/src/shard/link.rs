//! Neighbours, groups and routers: what they want sent and set.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::phy::Medium;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv6Cidr};
use wirestack_nic::{FrameMeta, Nic};

use super::Shard;
use super::services::DnsSource;
use super::timers::sooner;
use super::udp::{ANY_V4, ANY_V6};
use crate::egress::PacketSpec;
use crate::egress::output::{Hop, LINK_HEADER_LEN, Path, Transport, write_link};
use crate::icmp::{self, ErrorToSend};
use crate::igmp_mld::LinkChange;
use crate::ingress::input::{Destination, Received, Way};
use crate::ip::address::solicited_node;
use crate::ip::route::{Route, RouteOrigin};
use crate::ip::slaac::SlaacEvent;
use crate::ip::{Address, AddressState, Origin};
use crate::neighbor::Output;
use crate::observe::{DropReason, Event};

impl Shard {
    /// Adds an address, with its groups and the route to its prefix, or sets what is known of it anew. A new one
    /// is probed first (RFC 5227, RFC 4862), as far as the configuration says.
    pub(crate) fn add_address(&mut self, mut address: Address) {
        let ip = address.ip();
        let known = self.addresses.get(ip).copied();
        // Nobody on the link sets a time to an address of the configuration.
        if known.is_some_and(|known| known.origin == Origin::Static) && address.origin != Origin::Static {
            return;
        }
        // Who wants it again does not get around the probe; what somebody else had is probed again.
        let is_probed = known.is_none_or(|known| known.state == AddressState::Duplicate);
        if is_probed || known.is_some_and(|known| known.state == AddressState::Tentative) {
            address.state = AddressState::Tentative;
        }
        if !self.addresses.insert(address) {
            log::warn!("no room for another address: {ip} is not taken");
            return;
        }
        if let Some(known) = known.filter(|known| known.cidr != address.cidr) {
            self.remove_connected_route(known.cidr);
        }
        // A router says itself which prefixes are on the link.
        if address.cidr.prefix_len() < max_prefix_len(ip) && !is_advertised(&address) {
            self.insert_route(Route::new(address.cidr, None, RouteOrigin::Connected));
        }
        if known.is_none() {
            self.join_solicited_node(ip);
        }
        if is_probed {
            self.neighbors.probe(self.now, ip);
            self.drain_neighbors();
        }
    }

    /// The prefix of an address that is gone is on the link no more, unless another address has it.
    fn remove_connected_route(&mut self, prefix: IpCidr) {
        let route = Route::new(prefix, None, RouteOrigin::Connected);
        let is_shared = |other: &Address| {
            !is_advertised(other)
                && other.cidr.prefix_len() == prefix.prefix_len()
                && other.cidr.contains_addr(&prefix.address())
        };
        if !self.addresses.iter().any(is_shared) {
            self.routes.remove(&route.id());
        }
    }

    /// Takes an address away, and what hangs on it.
    pub(crate) fn remove_address(&mut self, ip: IpAddr) {
        let Some(address) = self.addresses.remove(ip) else { return };
        self.leave_solicited_node(ip);
        self.neighbors.forget_address(ip);
        self.remove_connected_route(address.cidr);
        self.end_connections_of(ip);
        self.hook.tell(self.now, &Event::AddressRemoved(ip));
    }

    /// Adds a default route.
    pub(crate) fn add_default_route(&mut self, gateway: IpAddr) {
        let any = if gateway.is_ipv4() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        };
        self.insert_route(Route::new(IpCidr::new(any.into(), 0), Some(gateway), RouteOrigin::Static));
    }

    pub(crate) fn insert_route(&mut self, route: Route) {
        if let Err(error) = self.routes.replace(route) {
            log::warn!("route to {} not taken: {error}", route.prefix);
        }
    }

    fn join_solicited_node(&mut self, ip: IpAddr) {
        let IpAddr::V6(v6) = ip else { return };
        let group = IpAddr::V6(solicited_node(v6));
        if let Err(error) = self.membership.join(self.now, STACK_MEMBER, group) {
            log::warn!("neighbours cannot ask for {ip}: {error}");
        }
    }

    /// Addresses with the same last bytes share a group: the last one leaves it.
    fn leave_solicited_node(&mut self, ip: IpAddr) {
        let IpAddr::V6(v6) = ip else { return };
        let group = solicited_node(v6);
        let is_in =
            |other: &Address| matches!(other.ip(), IpAddr::V6(other) if solicited_node(other) == group);
        if !self.addresses.iter().any(is_in) {
            self.membership.leave(self.now, STACK_MEMBER, IpAddr::V6(group));
        }
    }

    /// When the first address changes its state.
    pub(crate) fn next_address_deadline(&self) -> Option<Instant> {
        let mut next = None;
        for address in self.addresses.iter() {
            sooner(&mut next, address.valid_until);
            if address.state == AddressState::Preferred {
                sooner(&mut next, address.preferred_until);
            }
        }
        next
    }

    /// Addresses whose time is over become deprecated, or go (RFC 4862 section 5.5.4).
    pub(crate) fn expire_addresses(&mut self) {
        let now = self.now;
        let is_over = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        let gone: Vec<_> =
            self.addresses.iter().filter(|address| is_over(address.valid_until)).map(Address::ip).collect();
        gone.into_iter().for_each(|ip| self.remove_address(ip));
        let old: Vec<_> = self
            .addresses
            .iter()
            .filter(|address| is_over(address.preferred_until))
            .map(Address::ip)
            .collect();
        for ip in old {
            if let Some(address) = self.addresses.get_mut(ip)
                && address.state == AddressState::Preferred
            {
                address.state = AddressState::Deprecated;
                self.hook.tell(now, &Event::AddressDeprecated(ip));
            }
        }
    }

    /// The link came up or went down.
    pub(crate) fn link_changed(&mut self, up: bool) {
        let now = self.now;
        if let Some(dhcp) = &mut self.dhcp {
            dhcp.link_changed(now, up);
        }
        if let Some(dhcp6) = &mut self.dhcp6 {
            dhcp6.link_changed(now, up);
        }
        // It may be another link: who was where on the old one does not count.
        self.neighbors.flush();
        self.drain_neighbors();
        self.dead_gateways.clear();
        self.link_mtu = None;
        if up {
            self.retry_connections();
            self.membership.link_up(now);
            if let Some(slaac) = &mut self.slaac {
                slaac.link_up(now);
            }
            for ip in self.addresses.iter().filter(|address| address.is_usable()).map(Address::ip) {
                self.neighbors.announce(now, ip);
            }
        }
    }

    /// Whether a frame of the usual length finds room on its way out; into an empty outbox, any is tried.
    fn has_room_for_neighbors(&self) -> bool {
        self.outbox.is_empty() || self.outbox.has_room(LINK_HEADER_LEN + self.mtu)
    }

    /// Sends what neighbours are to hear, and what has waited for them. What finds no room stays with the table,
    /// which has bounds for it, and goes in a later turn: a question that is lost here costs a second.
    pub(crate) fn drain_neighbors(&mut self) {
        while self.has_room_for_neighbors()
            && let Some(output) = self.neighbors.poll_output()
        {
            match output {
                // A device of IP packets has no neighbours.
                Output::Arp { .. } | Output::Ndp { .. } if self.medium == Medium::Ip => {}
                Output::Arp { dst, message } if !self.is_mailed => {
                    let mut frame = [0; LINK_HEADER_LEN + 28];
                    let (link, body) = frame.split_at_mut(LINK_HEADER_LEN);
                    write_link(link, dst, self.config.mac, ETHERTYPE_ARP);
                    body.copy_from_slice(&message);
                    self.queue_frame(&frame, &FrameMeta::default());
                }
                Output::Ndp { dst_mac, src, dst, message } if !self.is_mailed => {
                    self.queue_ndp(dst_mac, src, dst, &message);
                }
                Output::Arp { .. } | Output::Ndp { .. } => {}
                // Its source may have gone while it waited.
                Output::Release { frame, .. } if !self.is_from_us(&frame) => {
                    self.count_drop(DropReason::NoSource);
                }
                Output::Release { frame, meta, .. } => {
                    self.counters.neighbor_released += 1;
                    self.queue_frame(&frame, &meta);
                }
                Output::Unreachable { next_hop, frame } => {
                    self.hook.tell(self.now, &Event::NeighborUnreachable(next_hop));
                    self.note_dead_gateway(next_hop);
                    self.neighbor_unreachable(&frame);
                }
                Output::AddressReady(ip) => self.address_ready(ip),
                Output::AddressConflict { address, mac } => self.address_conflict(address, mac),
                Output::RouterGone(router) => self.router_gone(router),
                Output::Dropped(reason) => self.count_drop(reason),
            }
        }
    }

    /// Whether the source of an IP packet in a frame is an address of ours, or none.
    fn is_from_us(&self, frame: &[u8]) -> bool {
        let Some(chain) = frame.get(LINK_HEADER_LEN..).and_then(icmp::chain::read) else { return false };
        chain.src.is_unspecified() || self.config.shares_addresses || self.is_local(chain.src)
    }

    fn queue_ndp(&mut self, mac: EthernetAddress, src: IpAddr, dst: IpAddr, message: &[u8]) {
        let spec =
            PacketSpec { src: Some(src), hop_limit: Some(255), ..PacketSpec::new(dst, icmp::PROTOCOL_V6) };
        let path = Path { src, dst, hop: Hop::Link(mac), mtu: self.mtu };
        let sent =
            self.emit(&path, &spec, Transport::plain(message.len()), |room| room.copy_from_slice(message));
        if let Err(reason) = sent {
            self.count_drop(reason);
        }
    }

    /// Somebody did not answer: if it is a gateway, others are tried before it from now on.
    fn note_dead_gateway(&mut self, ip: IpAddr) {
        let is_noted = self.dead_gateways.contains(&ip);
        if is_noted || !self.routes.iter().any(|route| route.gateway == Some(ip)) {
            return;
        }
        if self.dead_gateways.len() >= DEAD_GATEWAYS_MAX {
            self.dead_gateways.remove(0);
        }
        self.dead_gateways.push(ip);
        self.hook.tell(self.now, &Event::GatewayDead(ip));
    }

    /// A neighbour is no router any more: nothing goes through it (RFC 4861 section 7.2.5).
    fn router_gone(&mut self, router: IpAddr) {
        let is_its = |route: &&Route| {
            route.gateway == Some(router) && route.origin == RouteOrigin::RouterAdvertisement
        };
        let ids: Vec<_> = self.routes.iter().filter(is_its).map(Route::id).collect();
        for id in &ids {
            self.routes.remove(id);
        }
    }

    fn address_ready(&mut self, ip: IpAddr) {
        if let (IpAddr::V6(v6), Some(slaac)) = (ip, &mut self.slaac) {
            slaac.address_confirmed(v6);
        }
        let Some(address) = self.addresses.get_mut(ip) else { return };
        if address.state == AddressState::Tentative {
            address.state = AddressState::Preferred;
            let cidr = address.cidr;
            self.hook.tell(self.now, &Event::AddressAdded(cidr));
            if matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
                // RFC 3590 section 4: reports from the unspecified address are for switches; routers want
                // them anew.
                self.membership.link_up(self.now);
            }
        }
    }

    fn address_conflict(&mut self, ip: IpAddr, mac: EthernetAddress) {
        let Some(address) = self.addresses.get_mut(ip) else { return };
        let was_usable = address.is_usable();
        address.state = AddressState::Duplicate;
        let origin = address.origin;
        self.hook.tell(self.now, &Event::AddressConflict { address: ip, mac });
        match origin {
            Origin::Dhcp => {
                self.remove_address(ip);
                if let Some(dhcp) = &mut self.dhcp {
                    dhcp.address_conflict(self.now);
                }
            }
            Origin::Slaac | Origin::LinkLocal => {
                self.remove_address(ip);
                if let (IpAddr::V6(v6), Some(slaac)) = (ip, &mut self.slaac) {
                    slaac.address_duplicate(self.now, v6);
                }
            }
            // Whoever waits for the address is told by its state.
            Origin::Static if !was_usable => log::debug!("{ip} is in use by {mac}: it does not become ours"),
            Origin::Static => log::warn!("{ip} is in use by {mac}: it is not ours any more"),
        }
    }

    /// The sender of a packet that waited in vain is told as by a router (RFC 1122 section 3.2.2.1): if it was
    /// ours, that is its socket.
    fn neighbor_unreachable(&mut self, frame: &[u8]) {
        self.count_drop(DropReason::NeighborUnreachable);
        self.unreachable_to_socket(frame);
    }

    /// Sends ICMP errors for datagrams of which only a part came (RFC 792, RFC 8200 section 4.5).
    pub(crate) fn drain_reassembly(&mut self) {
        while let Some(timed_out) = self.reassembly.poll_timeout(self.now) {
            self.count_drop(DropReason::FragmentTimeout);
            let Some(first) = timed_out.first_fragment else { continue };
            let Ok(packet) = crate::ingress::classify(smoltcp::phy::Medium::Ip, &first) else { continue };
            let crate::ingress::Body::Ip(ip) = packet.body else { continue };
            let meta = FrameMeta::default();
            let destination = self.destination(&ip);
            let received = Received {
                frame: &first,
                meta: &meta,
                link: None,
                ip: &ip,
                way: Way::Reassembled,
                destination,
            };
            if destination == Destination::Local {
                self.send_error(&received, ErrorToSend::ReassemblyTimeExceeded);
            }
        }
    }

    /// Sends reports about groups.
    pub(crate) fn drain_membership(&mut self) {
        while let Some(mut outgoing) = self.membership.poll_output() {
            let dst = outgoing.spec.dst;
            let src = self.report_source(dst);
            if dst.is_ipv6() {
                icmp::error::fill_checksum(&mut outgoing.payload, Some(src), dst);
            }
            outgoing.spec.src = Some(src);
            self.send_control(&mut outgoing);
        }
    }

    /// Where reports about groups come from: of MLD a link-local address, of IGMP any, and while there is none,
    /// the unspecified one (RFC 3590 section 4, RFC 3376 section 4.2.13).
    fn report_source(&self, dst: IpAddr) -> IpAddr {
        let is_possible = |address: &&Address| match address.ip() {
            IpAddr::V4(_) => dst.is_ipv4(),
            IpAddr::V6(v6) => dst.is_ipv6() && v6.is_unicast_link_local(),
        };
        let usable = self.addresses.iter().filter(|address| address.is_usable());
        let src = usable.filter(is_possible).map(Address::ip).next();
        src.unwrap_or(if dst.is_ipv4() { ANY_V4 } else { ANY_V6 })
    }

    /// Joins and leaves groups at the device.
    pub(crate) fn apply_link_changes<N: Nic>(&mut self, nic: &mut N) {
        while let Some(change) = self.membership.poll_link() {
            let result = match change {
                LinkChange::Join(mac) => nic.join_multicast(mac),
                LinkChange::Leave(mac) => nic.leave_multicast(mac),
            };
            if let Err(error) = result {
                log::warn!("{change:?}: {error}");
            }
        }
    }

    /// A router has told something.
    pub(crate) fn drain_slaac(&mut self) {
        while let Some(mut outgoing) = self.slaac.as_mut().and_then(|slaac| slaac.poll_output()) {
            self.send_control(&mut outgoing);
        }
        while let Some(event) = self.slaac.as_mut().and_then(|slaac| slaac.poll_event()) {
            self.apply_slaac(event);
        }
    }

    pub(super) fn apply_slaac(&mut self, event: SlaacEvent) {
        match event {
            SlaacEvent::AddAddress { cidr, preferred_until, valid_until }
            | SlaacEvent::UpdateAddress { cidr, preferred_until, valid_until } => {
                let known = self.addresses.get(cidr.address().into()).map(|known| known.state);
                // It may be preferred again; what is still probed, or a duplicate, stays that.
                let state = known.filter(|state| *state != AddressState::Deprecated);
                let origin =
                    if cidr.address().is_unicast_link_local() { Origin::LinkLocal } else { Origin::Slaac };
                self.add_address(Address {
                    cidr: IpCidr::Ipv6(cidr),
                    state: state.unwrap_or(AddressState::Preferred),
                    origin,
                    preferred_until,
                    valid_until,
                });
            }
            SlaacEvent::RemoveAddress(ip) => {
                let known = self.addresses.get(ip.into());
                if known.is_some_and(|known| known.origin != Origin::Static) {
                    self.remove_address(ip.into());
                }
            }
            SlaacEvent::AddRoute { prefix, gateway, metric, expires } => {
                let route = advertised(prefix, gateway);
                self.insert_route(Route { metric, expires, ..route });
            }
            SlaacEvent::RemoveRoute { prefix, gateway } => {
                self.routes.remove(&advertised(prefix, gateway).id());
            }
            SlaacEvent::Mtu(mtu) => self.link_mtu = Some(usize::from(mtu)),
            SlaacEvent::HopLimit(hop_limit) => self.hop_limit = hop_limit,
            SlaacEvent::Dns { servers, search } => {
                let servers: Vec<_> = servers.into_iter().map(IpAddr::V6).collect();
                self.set_dns(DnsSource::Router, &servers, &search);
            }
            SlaacEvent::RouterMac { router, mac } => {
                if let Err(reason) = self.neighbors.learn_router(self.now, router.into(), Some(mac)) {
                    self.count_drop(reason);
                }
            }
            // Who gives addresses gives the rest as well (RFC 4861 section 4.2).
            SlaacEvent::Managed { addresses, other } => {
                if (addresses || other)
                    && let Some(dhcp6) = &mut self.dhcp6
                {
                    dhcp6.restart(self.now);
                }
            }
            SlaacEvent::ReachableTime(time) => self.neighbors.set_times(self.now, Some(time), None),
            SlaacEvent::RetransTimer(time) => self.neighbors.set_times(self.now, None, Some(time)),
        }
    }
}

fn advertised(prefix: Ipv6Cidr, gateway: Option<Ipv6Addr>) -> Route {
    Route::new(IpCidr::Ipv6(prefix), gateway.map(IpAddr::V6), RouteOrigin::RouterAdvertisement)
}

/// Whether the prefix of an address is on the link only if a router says so.
fn is_advertised(address: &Address) -> bool {
    address.origin == Origin::Slaac
}

fn max_prefix_len(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

const ETHERTYPE_ARP: u16 = 0x0806;
/// Members of groups that are no sockets have this bit.
const STACK_MEMBER: u32 = 1 << 31;
/// Gateways that are remembered as dead.
const DEAD_GATEWAYS_MAX: usize = 16;
