//! DHCP and DNS: sockets of the stack's own, without a queue.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::wire::{IpCidr, Ipv4Cidr};

use super::Shard;
use super::sockets::Owner;
use super::udp::{ANY_V4, ANY_V6};
use crate::demux::UdpBinding;
use crate::dhcp::{v4, v6};
use crate::dns::{self, QueryId, QueryKind, ResolveError};
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
    pub fn resolve(&mut self, name: &str, kind: QueryKind) -> Result<QueryId, ResolveError> {
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
            dhcp.release(self.now);
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
        let at = |address, port| UdpBinding { local: SocketAddr::new(address, port), dual: false, reuse: false };
        if self.dhcp.is_some() {
            let _ = self.udp.bind(at(ANY_V4, v4::CLIENT_PORT), Owner::Dhcp);
        }
        if self.dhcp6.is_some() {
            let _ = self.udp.bind(at(ANY_V6, v6::CLIENT_PORT), Owner::Dhcp6);
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
        //= rfc3442#3
        //# If the DHCP server returns both a Classless Static Routes option and a Router option, the DHCP
        //# client MUST ignore the Router option.
        let routers = lease.routers.iter().take(1).filter(|_| lease.routes.is_empty());
        let defaults = routers.map(|&router| (Ipv4Cidr::new(Ipv4Addr::UNSPECIFIED, 0), router));
        let routes: Vec<_> = lease.routes.iter().copied().chain(defaults).collect();
        for (prefix, router) in routes {
            let gateway = Some(IpAddr::V4(router)).filter(|router| !router.is_unspecified());
            self.insert_route(Route {
                prefix: IpCidr::Ipv4(prefix),
                gateway,
                metric: 0,
                origin: RouteOrigin::Dhcp,
                expires: None,
                source: None,
                mtu: lease.mtu,
            });
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
        for port in self.dns.closed_ports() {
            self.unbind_dns(port);
        }
        while let Some(transmit) = self.dns.poll_transmit(self.now) {
            let any = if transmit.server.is_ipv4() { ANY_V4 } else { ANY_V6 };
            let local = SocketAddr::new(any, transmit.local_port);
            // A port that a socket has is tried all the same: the answer will not come, and the resolver asks
            // again from another one.
            let _ = self.udp.bind(UdpBinding { local, dual: false, reuse: false }, Owner::Dns);
            self.send_from_any(transmit.local_port, transmit.server, &transmit.payload);
        }
    }

    fn unbind_dns(&mut self, port: u16) {
        for any in [ANY_V4, ANY_V6] {
            self.udp.unbind_at(SocketAddr::new(any, port), Owner::Dns);
        }
    }

    fn send_from_any(&mut self, port: u16, to: SocketAddr, payload: &[u8]) {
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

    fn send_service(&mut self, (src, src_port): (IpAddr, u16), (dst, dst_port): (IpAddr, u16), payload: &[u8]) {
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
        self.dns.set_servers(servers, search);
        self.hook.tell(self.now, &Event::DnsServers(servers));
    }
}
