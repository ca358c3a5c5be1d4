//! DHCP and DNS: sockets of the stack's own, without a queue.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::wire::{IpCidr, Ipv4Cidr};

use super::Shard;
use super::sockets::Owner;
use super::udp::{ANY_V4, ANY_V6};
use crate::demux::{BindError, Binding};
use crate::dhcp::{v4, v6};
use crate::dns::{self, Kind, Name, QueryId, ResolveError};
use crate::egress::PacketSpec;
use crate::ingress::input::UDP;
use crate::ip::route::{Route, RouteOrigin};
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
        Ok(id)
    }

    /// The next answer of the resolver.
    pub fn next_answer(&mut self) -> Option<dns::Event> {
        self.dns.poll_event()
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
                v4::Event::Bound(lease) | v4::Event::Renewed(lease) => self.apply_lease(&lease),
                v4::Event::Lost { address, .. } => {
                    self.remove_address(IpAddr::V4(address));
                    self.routes.remove_by_origin(RouteOrigin::Dhcp);
                }
                v4::Event::Nak { .. } | v4::Event::Restarted => {}
            }
        }
    }

    fn apply_lease(&mut self, lease: &v4::Lease) {
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
        let default = Ipv4Cidr::new(Ipv4Addr::UNSPECIFIED, 0);
        // There are none if there are classless routes (RFC 3442).
        let defaults = lease.routers.iter().take(1).map(|&router| v4::Route { destination: default, router });
        for v4::Route { destination, router } in lease.routes.iter().copied().chain(defaults) {
            let gateway = Some(IpAddr::V4(router)).filter(|router| !router.is_unspecified());
            let route = Route::new(IpCidr::Ipv4(destination), gateway, RouteOrigin::Dhcp);
            self.insert_route(Route { mtu: lease.mtu, ..route });
        }
        let servers: Vec<_> = lease.dns.iter().map(|&server| IpAddr::V4(server)).collect();
        self.set_dns(&servers, &lease.search);
    }

    fn drain_dhcp6(&mut self) {
        let now = self.now;
        while let Some(transmit) = self.dhcp6.as_mut().and_then(|dhcp6| dhcp6.poll_transmit(now)) {
            let src = self.addresses.iter().find(|address| {
                address.is_usable() && matches!(address.ip(), IpAddr::V6(v6) if v6.is_unicast_link_local())
            });
            let Some(src) = src.map(Address::ip) else { continue };
            let dst: Ipv6Addr = transmit.dst;
            self.send_service((src, v6::CLIENT_PORT), (IpAddr::V6(dst), v6::SERVER_PORT), &transmit.payload);
        }
        while let Some(event) = self.dhcp6.as_mut().and_then(|dhcp6| dhcp6.poll_event()) {
            let v6::Event::Configured { dns, search, .. } = event;
            let servers: Vec<_> = dns.into_iter().map(IpAddr::V6).collect();
            self.set_dns(&servers, &search);
        }
    }

    fn drain_dns(&mut self) {
        let mut ports_in_use = 0;
        while let Some(transmit) = self.dns.poll_transmit(self.now) {
            let (port, any) = (transmit.local_port, if transmit.server.is_ipv4() { ANY_V4 } else { ANY_V6 });
            match self.udp.bind(Binding::new(any, port, true), false, Owner::Dns) {
                Ok(handle) => {
                    self.dns_ports.insert(port, handle);
                    self.send_query(port, transmit.server, &transmit.payload);
                }
                Err(BindError::InUse { .. }) if ports_in_use < DNS_PORT_TRIES_MAX => {
                    ports_in_use += 1;
                    self.dns.handle_bind_failure(self.now, port);
                }
                // With all places taken another port is of no use: the try has failed, of which there are few.
                Err(_) => self.dns.handle_unreachable(self.now, port),
            }
        }
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

    pub(crate) fn set_dns(&mut self, servers: &[IpAddr], search: &[String]) {
        let at: Vec<_> = servers.iter().map(|&server| SocketAddr::new(server, DNS_PORT)).collect();
        self.dns.set_servers(&at);
        // What is no name is left out.
        self.dns.set_search(search.iter().filter_map(|domain| Name::parse(domain).ok()).collect());
        self.hook.tell(self.now, &Event::DnsServers(servers));
    }
}

/// Ports of queries that are tried one after the other: with half of them in use, all fail once in 65 536.
const DNS_PORT_TRIES_MAX: usize = 16;
/// Where name servers are.
const DNS_PORT: u16 = 53;
