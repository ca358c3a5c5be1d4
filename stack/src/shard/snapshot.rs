//! All tables, for people: from what the parts of a shard know to the words of [`observe::snapshot`].
//!
//! [`observe::snapshot`]: crate::observe::snapshot

use std::net::{IpAddr, SocketAddr};

use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

use super::Shard;
use super::sockets::{AnySocket, Owner, SocketId};
use super::tcp::Tcp;
use crate::dhcp::{v4, v6};
use crate::dns::RecordType;
use crate::igmp_mld::{FilterMode, Version};
use crate::ip::route::RouteOrigin;
use crate::ip::{AddressState, Origin};
use crate::observe::Stage;
use crate::observe::snapshot::{
    Address, Counts, Datagram, Dhcp, Dhcp6, Dns, Group, Lease, Link, Neighbor, Path, Port, Prefix, Querier,
    Query, Queue, Route, Server, Snapshot, Socket,
};
use crate::observe::table::Table;
use crate::raw;

impl Shard {
    /// Looks at all tables, at `entries_max` entries of each; how many there are is told as well. It walks
    /// them all, so it is for people, not for each packet.
    pub fn snapshot(&self, entries_max: usize) -> Snapshot {
        let max = entries_max;
        Snapshot {
            now_micros: self.now.total_micros(),
            shard: self.config.shard,
            link: Link {
                mac: show_mac(self.config.mac),
                mtu_bytes: self.mtu,
                ipv6_mtu_bytes: self.mtu.min(self.link_mtu.unwrap_or(usize::MAX)),
                hop_limit: self.hop_limit,
            },
            addresses: Table::new(self.addresses.iter().map(|address| self.show_address(address)), max),
            routes: Table::new(self.routes.iter().map(|route| self.show_route(route)), max),
            neighbors: self.show_neighbors(max),
            path_mtu: self.show_paths(max),
            reassembly: self.show_reassembly(max),
            groups: self.show_groups(max),
            queriers: Table::new([true, false].into_iter().map(|is_v4| self.show_querier(is_v4)), max),
            sockets: Table::new(self.sockets.iter().map(|socket| show_socket(&self.tcp, socket)), max),
            ports: Table::new(self.udp.iter().map(show_port), max),
            dhcp: self.dhcp.as_ref().map(|dhcp| self.show_dhcp(&dhcp.snapshot())),
            dhcp6: self.dhcp6.as_ref().map(|dhcp6| self.show_dhcp6(&dhcp6.snapshot())),
            prefixes: self.show_prefixes(max),
            dns: self.show_dns(max),
            queues: Table::new(self.show_queues().into_iter(), max),
            counters: self.show_counters(),
            drops: Counts(self.drops.named().collect()),
            stages: Counts(Stage::ALL.map(|stage| (stage.name(), self.stages.spent(stage))).to_vec()),
        }
    }

    /// How long until then.
    fn left(&self, until: Instant) -> u64 {
        if until > self.now { (until - self.now).total_millis() } else { 0 }
    }

    fn left_of(&self, until: Option<Instant>) -> Option<u64> {
        until.map(|until| self.left(until))
    }

    fn ago(&self, since: Instant) -> u64 {
        if self.now > since { (self.now - since).total_millis() } else { 0 }
    }

    fn show_address(&self, address: &crate::ip::Address) -> Address {
        Address {
            address: address.cidr.to_string(),
            state: match address.state {
                AddressState::Tentative => "tentative",
                AddressState::Preferred => "preferred",
                AddressState::Deprecated => "deprecated",
                AddressState::Duplicate => "duplicate",
            },
            origin: match address.origin {
                Origin::Static => "static",
                Origin::LinkLocal => "link-local",
                Origin::Slaac => "slaac",
                Origin::Dhcp => "dhcp",
            },
            preferred_ms: self.left_of(address.preferred_until),
            valid_ms: self.left_of(address.valid_until),
        }
    }

    fn show_route(&self, route: &crate::ip::route::Route) -> Route {
        Route {
            prefix: if route.prefix.prefix_len() == 0 { "default".into() } else { route.prefix.to_string() },
            gateway: route.gateway,
            is_dead: route.gateway.is_some_and(|gateway| self.is_dead(gateway)),
            metric: route.metric,
            origin: match route.origin {
                RouteOrigin::Static => "static",
                RouteOrigin::Connected => "connected",
                RouteOrigin::RouterAdvertisement => "ra",
                RouteOrigin::Dhcp => "dhcp",
                RouteOrigin::Redirect => "redirect",
            },
            source: route.source,
            mtu_bytes: route.mtu,
            expires_ms: self.left_of(route.expires),
        }
    }

    fn show_neighbors(&self, max: usize) -> Table<Neighbor> {
        let shown = self.neighbors.snapshot().map(|neighbor| Neighbor {
            address: neighbor.ip,
            mac: neighbor.mac.map(show_mac),
            state: neighbor.state.to_string(),
            is_router: neighbor.is_router,
            used_ms: self.ago(neighbor.used_at),
            updated_ms: self.ago(neighbor.updated_at),
            probes: neighbor.probes_sent,
            parked_frames: neighbor.parked_frames,
            parked_bytes: neighbor.parked_bytes,
        });
        let mut table = Table::new(shown, max);
        table.entries.sort_by_key(|neighbor| neighbor.address);
        table
    }

    fn show_paths(&self, max: usize) -> Table<Path> {
        let shown = self.path_mtu.snapshot().map(|path| Path {
            destination: path.dst,
            mtu_bytes: path.mtu,
            may_fragment: path.may_fragment,
            expires_ms: self.left(path.expires),
        });
        Table::new(shown, max)
    }

    fn show_reassembly(&self, max: usize) -> Table<Datagram> {
        let shown = self.reassembly.snapshot().map(|datagram| Datagram {
            source: datagram.src,
            destination: datagram.dst,
            id: datagram.id,
            protocol: datagram.protocol,
            fragments: datagram.fragments,
            received_bytes: datagram.received_bytes,
            total_bytes: datagram.total_bytes,
            holes: datagram.holes,
            expires_ms: self.left(datagram.expires),
            abandoned: datagram.abandoned.map(|reason| reason.name()),
        });
        Table::new(shown, max)
    }

    fn show_groups(&self, max: usize) -> Table<Group> {
        let shown = self.membership.snapshot().map(|group| Group {
            group: group.group,
            mode: match group.filter.mode {
                FilterMode::Include => "include",
                FilterMode::Exclude => "exclude",
            },
            sources: group.filter.sources.iter().take(max).copied().collect(),
            members: group.sockets,
            reports_left: group.reports_left,
            next_report_ms: self.left_of(group.next_report),
        });
        Table::new(shown, max)
    }

    fn show_querier(&self, is_v4: bool) -> Querier {
        let querier = self.membership.querier(is_v4);
        Querier {
            version: match querier.version {
                Version::Igmpv1 => "IGMPv1",
                Version::Igmpv2 => "IGMPv2",
                Version::Igmpv3 => "IGMPv3",
                Version::Mldv1 => "MLDv1",
                Version::Mldv2 => "MLDv2",
            },
            version_ms: self.left_of(querier.version_until),
            robustness: querier.robustness,
            query_interval_ms: querier.query_interval.total_millis(),
            response_interval_ms: querier.response_interval.total_millis(),
        }
    }

    fn show_dhcp(&self, dhcp: &v4::Snapshot) -> Dhcp {
        let lease = dhcp.lease.as_ref().map(|lease| Lease {
            address: lease.address.to_string(),
            server: lease.server,
            routers: lease.routers.clone(),
            dns: lease.dns.clone(),
            domain: lease.domain.clone(),
            search: lease.search.clone(),
            mtu_bytes: lease.mtu,
            renews_ms: self.left_of(lease.t1),
            rebinds_ms: self.left_of(lease.t2),
            expires_ms: self.left_of(lease.expires),
        });
        let next_ms = self.left_of(dhcp.next_deadline);
        Dhcp { state: dhcp.state.name(), attempts: dhcp.attempts, next_ms, lease }
    }

    fn show_dhcp6(&self, dhcp6: &v6::Snapshot) -> Dhcp6 {
        let state = match dhcp6.state {
            v6::State::Delayed => "delayed",
            v6::State::Requesting => "requesting",
            v6::State::Configured => "configured",
        };
        Dhcp6 { state, attempts: dhcp6.attempts, next_ms: self.left_of(dhcp6.next_deadline) }
    }

    fn show_prefixes(&self, max: usize) -> Table<Prefix> {
        let shown = self.slaac.iter().flat_map(|slaac| slaac.snapshot()).map(|entry| Prefix {
            prefix: entry.prefix.to_string(),
            address: entry.address.map(IpAddr::V6),
            dad_counter: entry.dad_counter,
            preferred_ms: self.left_of(entry.preferred_until),
            valid_ms: self.left_of(entry.valid_until),
        });
        Table::new(shown, max)
    }

    fn show_dns(&self, max: usize) -> Dns {
        let servers = self.dns.servers().map(|server| Server {
            address: server.address,
            answers: server.answers,
            timeouts: server.timeouts,
            failures: server.failures,
            avoided_ms: self.left_of(server.avoided_until).filter(|left| *left > 0),
        });
        let queries = self.dns.queries().map(|query| Query {
            name: query.name,
            record_type: match query.record_type {
                RecordType::A => "A",
                RecordType::Aaaa => "AAAA",
                RecordType::Ptr => "PTR",
            },
            server: query.server,
            local_port: query.local_port,
            attempts: query.attempts,
            deadline_ms: self.left(query.deadline),
        });
        Dns {
            servers: Table::new(servers, max),
            queries: Table::new(queries, max),
            lookups: self.dns.lookups_len(),
            cache_entries: self.dns.cache_len(),
        }
    }

    fn show_queues(&self) -> Vec<Queue> {
        let entries =
            |name, entries, entries_max| Queue { name, entries, entries_max, bytes: None, bytes_max: None };
        let frames = |name, queue: &crate::egress::Outbox| Queue {
            bytes: Some(queue.waiting_bytes()),
            bytes_max: Some(queue.bytes_max()),
            ..entries(name, queue.len(), Some(queue.frames_max()))
        };
        let mut queues = vec![frames("outbox", &self.outbox), frames("looped", &self.looped)];
        queues.extend(self.tcp_queue.iter().map(|queue| frames("tcp", queue)));
        let config = &self.config;
        queues.extend([
            entries("mailbox", self.mail.len(), Some(config.mail_len_max)),
            entries("commands", self.commands.len(), Some(config.mail_len_max)),
            entries("events", self.sockets.ready_len(), None),
            Queue {
                bytes: Some(self.neighbors.parked_bytes()),
                bytes_max: Some(config.neighbor.parked_total_bytes_max),
                ..entries("parked", self.neighbors.snapshot().map(|n| n.parked_frames).sum(), None)
            },
        ]);
        queues
    }

    /// What the shard has counted, and what its parts have.
    fn show_counters(&self) -> Counts {
        let mut counts: Vec<_> = self.counters.named().collect();
        let (reassembly, path_mtu) = (self.reassembly.counters(), self.path_mtu.counters());
        counts.extend([
            ("neighbor_evictions", self.neighbors.evictions()),
            ("group_reports_lost", self.membership.outputs_dropped()),
            ("reassembly_completed", reassembly.completed),
            ("reassembly_duplicates", reassembly.duplicates),
            ("reassembly_abandoned", reassembly.abandoned),
            ("reassembly_evicted", reassembly.evicted),
            ("reassembly_timed_out", reassembly.timed_out),
            ("path_mtu_lowered", path_mtu.lowered),
            ("path_mtu_confirmed", path_mtu.confirmed),
            ("path_mtu_too_large", path_mtu.too_large),
            ("path_mtu_too_small", path_mtu.too_small),
            ("path_mtu_without_mtu", path_mtu.without_mtu),
            ("path_mtu_evicted", path_mtu.evicted),
        ]);
        Counts(counts)
    }
}

/// With colons, as `ip` writes it.
fn show_mac(mac: EthernetAddress) -> String {
    mac.to_string().replace('-', ":")
}

fn show_socket(tcp: &Tcp, (id, socket): (SocketId, &AnySocket)) -> Socket {
    let id = id.index();
    match socket {
        AnySocket::Udp(socket, _) => {
            let shown = socket.snapshot();
            Socket {
                id,
                kind: "udp".into(),
                local: shown.local.to_string(),
                remote: shown.remote.map(|remote| remote.to_string()),
                queued_bytes: shown.queued_bytes,
                queued: shown.queued_datagrams,
                received: Some(shown.received_datagrams),
                dropped: shown.dropped_datagrams,
                dropped_errors: shown.dropped_errors,
            }
        }
        AnySocket::Icmp(socket) => Socket {
            id,
            kind: if socket.local().is_ipv4() { "icmp".into() } else { "icmp6".into() },
            // The identifier stands where the port does, as in `ss`.
            local: SocketAddr::new(socket.local(), socket.identifier()).to_string(),
            remote: None,
            queued_bytes: socket.queued_bytes(),
            queued: socket.queued_replies(),
            received: None,
            dropped: socket.dropped_replies(),
            dropped_errors: socket.dropped_errors(),
        },
        AnySocket::Tcp(index) => show_connection(tcp, id, *index),
        AnySocket::TcpListener(number) => show_listener(tcp, id, *number),
        AnySocket::Raw(socket) => {
            let shown = socket.snapshot();
            let version = if shown.version == raw::Version::V4 { 4 } else { 6 };
            Socket {
                id,
                kind: format!("raw{version}:{}", shown.protocol),
                local: shown.local.map_or("*".into(), |local| local.to_string()),
                remote: shown.remote.map(|remote| remote.to_string()),
                queued_bytes: shown.queued_bytes,
                queued: shown.queued_packets,
                received: Some(shown.received_packets),
                dropped: shown.dropped_packets,
                dropped_errors: socket.dropped_errors(),
            }
        }
    }
}

fn show_port(binding: &crate::demux::UdpBinding<Owner>) -> Port {
    Port {
        local: binding.bound.to_string(),
        remote: binding.connection.map(|(_, remote)| remote),
        owner: match binding.value {
            Owner::Socket(id) => format!("socket {}", id.index()),
            Owner::Dhcp => "dhcp".into(),
            Owner::Dhcp6 => "dhcpv6".into(),
            Owner::Dns => "dns".into(),
        },
        reuse: binding.reuse,
    }
}

fn show_connection(tcp: &Tcp, id: u32, index: u32) -> Socket {
    let tcb = tcp.connections.get(index as usize).map(|connection| &connection.tcb);
    Socket {
        id,
        kind: tcb.map_or("tcp".into(), |tcb| format!("tcp:{}", tcb.state.name())),
        local: tcb.map_or_else(String::new, |tcb| tcb.local().to_string()),
        remote: tcb.map(|tcb| tcb.remote().to_string()),
        queued_bytes: tcb.map_or(0, |tcb| tcb.recv.readable()),
        queued: tcb.map_or(0, |tcb| tcb.send.len()),
        received: None,
        dropped: 0,
        dropped_errors: 0,
    }
}

fn show_listener(tcp: &Tcp, id: u32, number: u32) -> Socket {
    let listener = tcp.listeners.get(&number).map(|listening| &listening.listener);
    Socket {
        id,
        kind: "tcp:LISTEN".into(),
        local: listener.map_or_else(String::new, |listener| listener.local.to_string()),
        remote: None,
        queued_bytes: 0,
        queued: listener.map_or(0, |listener| listener.waiting()),
        received: None,
        dropped: 0,
        dropped_errors: 0,
    }
}
