//! DHCP and DNS: sockets of the stack's own, without a queue.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::wire::{IpCidr, Ipv4Cidr};

use wirestack_nic::meta::ChecksumState;

use super::sockets::Owner;
use super::udp::{ANY_V4, ANY_V6};
use super::{Learned, Mail, Shard};
use crate::demux::Binding;
use crate::dhcp::{v4, v6};
use crate::dns::{self, Kind, Name, QueryId, ResolveError};
use crate::egress::PacketSpec;
use crate::ingress::input::{Destination, Received, UDP};
use crate::ingress::{IpPacket, Verdict, checksum};
use crate::ip::route::{Route, RouteOrigin};
use crate::ip::select;
use crate::ip::{Address, AddressState, Origin};
use crate::observe::{DropReason, Event};
use crate::udp::DatagramMeta;

impl Shard {
    /// Asks for the addresses of a name, or the name of an address. [`next_answer`](Self::next_answer) tells.
    ///
    /// # Errors
    /// It is no name, or there are too many questions already.
    pub fn resolve(&mut self, name: &str, kind: Kind) -> Result<QueryId, ResolveError> {
        let id = self.dns.resolve(self.now, name, kind)?;
        self.drain_dns();
        // The answer may be there already, and nothing else would make the application look for it.
        self.has_news = true;
        Ok(id)
    }

    /// The next answer of the resolver.
    pub fn next_answer(&mut self) -> Option<dns::Event> {
        self.dns.poll_event()
    }

    /// The addresses of an answer in the order in which to try them: by RFC 6724 section 6, and then one of each
    /// family in turn (RFC 8305 section 4).
    pub fn in_order(&self, answer: &dns::Answer) -> Vec<IpAddr> {
        let mut addresses = answer.addresses.clone();
        let next_hop = |dst: IpAddr| {
            let is_ours = dst.is_loopback() || self.addresses.is_local(dst);
            if is_ours { Some(dst) } else { self.routes.next_hop(dst) }
        };
        select::sort_destinations(&self.addresses, next_hop, &mut addresses);
        dns::order::interleave(&addresses)
    }

    /// Nobody wants the answer any more.
    pub fn cancel_query(&mut self, id: QueryId) {
        self.dns.cancel(id);
        self.drain_dns();
    }

    /// The lease of the DHCP client.
    pub fn dhcp_lease(&self) -> Option<&v4::Lease> {
        self.dhcp.as_ref()?.lease()
    }

    /// Gives the address back (RFC 2131 section 4.4.6): before an end.
    pub fn dhcp_release(&mut self) {
        if let Some(dhcp) = &mut self.dhcp {
            dhcp.release();
        }
        self.drain_dhcp();
    }

    pub(crate) fn handle_service_timeouts(&mut self) {
        let now = self.now;
        if let Some(slaac) = &mut self.slaac {
            slaac.handle_timeout(now);
        }
        if let Some(dhcp) = &mut self.dhcp {
            dhcp.handle_timeout(now);
        }
        if let Some(dhcp6) = &mut self.dhcp6 {
            dhcp6.handle_timeout(now);
        }
        self.dns.handle_timeout(now);
    }

    /// Sends and applies what the services have.
    pub(crate) fn drain_services(&mut self) {
        self.drain_slaac();
        self.drain_dhcp();
        self.drain_dhcp6();
        self.drain_dns();
    }

    pub(crate) fn bind_services(&mut self) {
        // The table is empty: nobody else can have these ports.
        if self.dhcp.is_some() {
            let _ = self.udp.bind(Binding::new(ANY_V4, v4::CLIENT_PORT, true), false, Owner::Dhcp);
        }
        if self.dhcp6.is_some() {
            let _ = self.udp.bind(Binding::new(ANY_V6, v6::CLIENT_PORT, true), false, Owner::Dhcp6);
        }
    }

    pub(crate) fn handle_dhcp(&mut self, meta: &DatagramMeta, payload: &[u8]) -> Result<(), DropReason> {
        let (Some(dhcp), SocketAddr::V4(src)) = (&mut self.dhcp, meta.src) else {
            return Err(DropReason::DhcpIgnored);
        };
        let result = dhcp.handle_datagram(self.now, src, payload);
        self.drain_dhcp();
        result
    }

    pub(crate) fn handle_dhcp6(&mut self, meta: &DatagramMeta, payload: &[u8]) -> Result<(), DropReason> {
        let (Some(dhcp6), SocketAddr::V6(src)) = (&mut self.dhcp6, meta.src) else {
            return Err(DropReason::DhcpIgnored);
        };
        let result = dhcp6.handle_datagram(self.now, src, payload);
        self.drain_dhcp6();
        result
    }

    pub(crate) fn handle_dns(&mut self, meta: &DatagramMeta, payload: &[u8]) -> Result<(), DropReason> {
        let result = self.dns.handle_datagram(self.now, meta.dst.port(), meta.src, payload);
        self.drain_dns();
        result
    }

    fn drain_dhcp(&mut self) {
        let now = self.now;
        while let Some(transmit) = self.dhcp.as_mut().and_then(|dhcp| dhcp.poll_transmit(now)) {
            self.send_service(
                (IpAddr::V4(transmit.src), v4::CLIENT_PORT),
                (IpAddr::V4(transmit.dst), v4::SERVER_PORT),
                &transmit.payload,
            );
        }
        while let Some(event) = self.dhcp.as_mut().and_then(|dhcp| dhcp.poll_event()) {
            match event {
                v4::Event::Bound(lease) | v4::Event::Renewed(lease) => {
                    self.learn_for_all(Learned::Lease(lease));
                }
                v4::Event::Lost { address, reason } => {
                    self.learn_for_all(Learned::LeaseLost { address, reason });
                }
                v4::Event::Nak { .. } | v4::Event::Restarted => {}
            }
        }
    }

    /// A client of this shard has learned something that concerns all.
    fn learn_for_all(&mut self, learned: Learned) {
        for _ in 0..self.mail.tell_others(&learned) {
            self.count_drop(DropReason::MailboxFull);
        }
        self.learn(learned);
    }

    /// A client has learned something, here or in the first shard.
    pub(super) fn learn(&mut self, learned: Learned) {
        match learned {
            Learned::Lease(lease) => self.apply_lease(&lease),
            Learned::LeaseLost { address, reason } => self.lose_lease(address, reason),
            Learned::Dhcp6 { servers, search } => {
                let servers: Vec<_> = servers.into_iter().map(IpAddr::V6).collect();
                self.set_dns(DnsSource::Dhcp6, &servers, &search);
            }
        }
    }

    /// Whether a packet is for a client that only the first shard has, and this is not the first.
    pub(crate) fn is_for_first_shard(&self, ip: &IpPacket) -> bool {
        if self.config.shard == 0 || ip.protocol != UDP || ip.fragment.is_some() || ip.problem.is_some() {
            return false;
        }
        match (ip.src, ip.ports) {
            (IpAddr::V4(_), Some((v4::SERVER_PORT, v4::CLIENT_PORT))) => self.config.dhcp.is_some(),
            (IpAddr::V6(_), Some((_, v6::CLIENT_PORT))) => self.config.dhcp6.is_some(),
            _ => false,
        }
    }

    /// Hands a packet to the first shard, with a checksum: what a device knows of it does not go along.
    pub(crate) fn send_to_first_shard(&mut self, received: &Received<'_>) -> Verdict {
        // What is for nobody here may be for the client; but not what is for another host.
        let is_for_other = received.destination == Destination::Other
            && received.link.is_some_and(|link| link.dst != self.config.mac);
        if is_for_other {
            return Verdict::Dropped(DropReason::IpNotForUs);
        }
        if let Err(reason) = checksum::verify_transport(received.frame, received.ip, received.meta) {
            return Verdict::Dropped(reason);
        }
        // Without what follows the packet in a short frame.
        let mut frame = received.frame.get(..received.ip.end).unwrap_or_default().to_vec();
        if let ChecksumState::Partial { start, offset } = received.meta.checksum {
            wirestack_nic::offload::checksum::complete(&mut frame, start, offset);
        }
        let packet = frame.split_off(received.ip.start.min(frame.len()));
        self.mail.send(FIRST_SHARD, Mail::Packet(packet))
    }

    /// What came with a lease goes with it.
    pub(super) fn lose_lease(&mut self, address: Ipv4Addr, reason: v4::LostReason) {
        let is_its = |known: &&Address| known.ip() == IpAddr::V4(address) && known.origin == Origin::Dhcp;
        if self.addresses.iter().any(|known| is_its(&known)) {
            self.remove_address(IpAddr::V4(address));
        }
        self.routes.remove_by_origin(RouteOrigin::Dhcp);
        if !self.dns_told.of(DnsSource::Dhcp).is_empty() {
            self.set_dns(DnsSource::Dhcp, &[], &[]);
        }
        self.hook.tell(self.now, &Event::LeaseLost { address, reason });
    }

    pub(super) fn apply_lease(&mut self, lease: &v4::Lease) {
        let cidr = lease.address;
        self.add_address(Address {
            cidr: IpCidr::Ipv4(cidr),
            state: AddressState::Preferred,
            origin: Origin::Dhcp,
            preferred_until: None,
            // The client tells when it is lost.
            valid_until: None,
        });
        self.routes.remove_by_origin(RouteOrigin::Dhcp);
        // The MTU is that of the interface, also for who is on the link.
        if cidr.prefix_len() < 32 {
            let route = Route::new(IpCidr::Ipv4(cidr), None, RouteOrigin::Connected);
            self.insert_route(Route { mtu: lease.mtu, ..route });
        }
        let default = Ipv4Cidr::new(Ipv4Addr::UNSPECIFIED, 0);
        // There are none if there are classless routes (RFC 3442).
        let defaults = lease.routers.iter().map(|&router| v4::Route { destination: default, router });
        // Of several routers, RFC 2132 section 3.5 has the preferred one first.
        for (metric, route) in (0..).zip(lease.routes.iter().copied().chain(defaults)) {
            let v4::Route { destination, router } = route;
            let gateway = Some(IpAddr::V4(router)).filter(|router| !router.is_unspecified());
            let route = Route::new(IpCidr::Ipv4(destination), gateway, RouteOrigin::Dhcp);
            self.insert_route(Route { mtu: lease.mtu, metric, ..route });
        }
        let servers: Vec<_> = lease.dns.iter().map(|&server| IpAddr::V4(server)).collect();
        self.set_dns(DnsSource::Dhcp, &servers, &lease.search);
        self.hook.tell(self.now, &Event::LeaseObtained(lease));
    }

    fn drain_dhcp6(&mut self) {
        let now = self.now;
        while let Some(transmit) = self.dhcp6.as_mut().and_then(|dhcp6| dhcp6.poll_transmit(now)) {
            let src = self.addresses.iter().find(|address| {
                address.is_usable() && matches!(address.ip(), IpAddr::V6(v6) if v6.is_unicast_link_local())
            });
            // Without a source nobody could answer; the client asks again by itself.
            let Some(src) = src.map(Address::ip) else { continue };
            let dst: Ipv6Addr = transmit.dst;
            self.send_service((src, v6::CLIENT_PORT), (IpAddr::V6(dst), v6::SERVER_PORT), &transmit.payload);
        }
        while let Some(event) = self.dhcp6.as_mut().and_then(|dhcp6| dhcp6.poll_event()) {
            let v6::Event::Configured { dns, search, .. } = event;
            self.learn_for_all(Learned::Dhcp6 { servers: dns, search });
        }
    }

    fn drain_dns(&mut self) {
        self.close_dns_ports();
        let mut refused = 0;
        while let Some(transmit) = self.dns.poll_transmit(self.now) {
            let (port, any) = (transmit.local_port, if transmit.server.is_ipv4() { ANY_V4 } else { ANY_V6 });
            let lands_here = self.lands_here(port, transmit.server);
            let bound = lands_here.then(|| self.udp.bind(Binding::new(any, port, true), false, Owner::Dns));
            match bound {
                Some(Ok(handle)) => {
                    self.dns_ports.insert(port, handle);
                    self.send_query(port, transmit.server, &transmit.payload);
                }
                // Another port, but not for ever: if none can be had, the try counts as one that failed.
                _ if refused < REFUSED_PORTS_MAX => {
                    refused += 1;
                    self.dns.handle_bind_failure(self.now, port);
                }
                _ => self.dns.handle_unreachable(self.now, port),
            }
        }
    }

    /// Whether the answers to a query come to this shard. Of a server to which there is no way, sending tells.
    fn lands_here(&mut self, port: u16, server: SocketAddr) -> bool {
        if self.config.steering.shards <= 1 {
            return true;
        }
        self.path(&PacketSpec::new(server.ip(), UDP)).map_or(true, |path| {
            let local = SocketAddr::new(path.src, port);
            self.config.steering.shard_of_flow(local, server, UDP) == self.config.shard
        })
    }

    fn close_dns_ports(&mut self) {
        let (udp, dns_ports) = (&mut self.udp, &mut self.dns_ports);
        for handle in self.dns.closed_ports().filter_map(|port| dns_ports.remove(&port)) {
            udp.unbind(handle);
        }
    }

    fn send_query(&mut self, port: u16, to: SocketAddr, payload: &[u8]) {
        let spec = PacketSpec::new(to.ip(), UDP);
        let sent = self.path(&spec).and_then(|path| {
            let write = |room: &mut [u8]| room.copy_from_slice(payload);
            self.emit_udp(&path, &spec, (port, to.port()), (payload.len(), None), write)
        });
        if let Err(reason) = sent {
            self.count_drop(reason);
            self.dns.handle_unreachable(self.now, port);
        }
    }

    fn send_service(
        &mut self,
        (src, src_port): (IpAddr, u16),
        (dst, dst_port): (IpAddr, u16),
        payload: &[u8],
    ) {
        let spec = PacketSpec { src: Some(src), ..PacketSpec::new(dst, UDP) };
        let sent = self.path(&spec).and_then(|path| {
            let write = |room: &mut [u8]| room.copy_from_slice(payload);
            self.emit_udp(&path, &spec, (src_port, dst_port), (payload.len(), None), write)
        });
        if let Err(reason) = sent {
            self.count_drop(reason);
        }
    }

    /// Somebody tells servers and domains, which replace what he has told before. The configuration's come first,
    /// and what others have told stays (RFC 8106 section 5.3.1).
    pub(crate) fn set_dns(&mut self, source: DnsSource, servers: &[IpAddr], search: &[String]) {
        self.dns_told.0[source as usize] = (servers.to_vec(), search.to_vec());
        let told = self.dns_told.0.iter().flat_map(|(servers, _)| servers);
        let told = told.map(|&server| SocketAddr::new(server, DNS_PORT));
        let at = without_repeats(self.config.dns.servers.iter().copied().chain(told));
        self.dns.set_servers(&at);
        // What is no name is left out.
        let told = self.dns_told.0.iter().flat_map(|(_, search)| search);
        let told = told.filter_map(|domain| Name::parse(domain).ok());
        self.dns.set_search(without_repeats(self.config.dns.search.iter().cloned().chain(told)));
        let servers: Vec<_> = at.iter().map(SocketAddr::ip).collect();
        self.hook.tell(self.now, &Event::DnsServers(&servers));
    }
}

/// Who tells of name servers, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DnsSource {
    /// DHCPv4.
    Dhcp,
    /// DHCPv6.
    Dhcp6,
    /// Router advertisements.
    Router,
}

/// What each [`DnsSource`] has told: servers and domains.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct DnsTold([(Vec<IpAddr>, Vec<String>); 3]);

impl DnsTold {
    fn of(&self, source: DnsSource) -> &[IpAddr] {
        &self.0[source as usize].0
    }
}

fn without_repeats<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut list = Vec::new();
    for item in items {
        if !list.contains(&item) {
            list.push(item);
        }
    }
    list
}

/// The one that has the DHCP clients.
const FIRST_SHARD: usize = 0;
/// Ports that are tried in vain at a time, for all queries together.
const REFUSED_PORTS_MAX: usize = 64;
/// Where name servers are.
const DNS_PORT: u16 = 53;
