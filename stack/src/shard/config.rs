//! What a shard is, and how much it may hold. Every limit has a name and a unit.

use std::net::IpAddr;

use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, Ipv6Address};

use crate::config::check_host_address;
use crate::demux::{PortsConfig, Steering};
use crate::dhcp;
use crate::dns;
use crate::error::ConfigError;
use crate::icmp::LimiterConfig;
use crate::igmp_mld::MembershipLimits;
use crate::ip::address::ADDRESSES_MAX;
use crate::ip::path_mtu::PathMtuConfig;
use crate::ip::reassembly::ReassemblyConfig;
use crate::ip::route::RoutesConfig;
use crate::ip::slaac::SlaacConfig;
use crate::ip::stable_address::InterfaceIdentifier;
use crate::neighbor::{AddressProbes, NeighborConfig};
use crate::tcp::TcpConfig;

/// Everything that a [`Shard`](super::Shard) is told at its start.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// Hardware address that the stack answers with.
    pub mac: EthernetAddress,
    /// Addresses for ever. Whether each is probed before it is used, `neighbor.probes` says; here that is
    /// [`AddressProbes::Quick`] if nothing else is said.
    pub addresses: Vec<IpCidr>,
    /// Default routers.
    pub gateways: Vec<IpAddr>,
    /// Whether and how an IPv6 link-local address is made.
    pub link_local: Option<InterfaceIdentifier>,
    /// Whether routers' advertisements are asked for and followed (RFC 4862).
    pub slaac: Option<SlaacConfig>,
    /// Whether an IPv4 address is asked for (RFC 2131): by the first shard, which tells the others.
    pub dhcp: Option<dhcp::v4::Config>,
    /// Whether DNS servers are asked for (RFC 8415), when a router says that somebody has them: the same.
    pub dhcp6: Option<dhcp::v6::Config>,
    /// Servers and manners of the resolver.
    pub dns: dns::Config,
    /// Seed of all randomness. A server takes it from the system's; a test chooses it, and with it the run.
    pub seed: u64,
    /// Which flows are this shard's.
    pub steering: Steering,
    /// Number of this shard, below `steering.shards`.
    pub shard: usize,
    /// TTL and hop limit of what is sent, unless a socket or a router says otherwise.
    pub hop_limit: u8,
    /// Our addresses are another host's as well, which hands some of its packets to us: what comes from them
    /// is not from us, and what goes to them leaves. For a device of IP packets.
    pub shares_addresses: bool,
    /// Whether echo requests are answered.
    pub answers_echo: bool,
    /// Whether routers may say that another one is nearer (redirects).
    pub follows_redirects: bool,
    /// Whether hosts are told that a port or protocol is closed.
    pub sends_unreachable: bool,
    /// Neighbours: how many, how long.
    pub neighbor: NeighborConfig,
    /// Fragments: how many, how long.
    pub reassembly: ReassemblyConfig,
    /// Answers and errors per second.
    pub icmp: LimiterConfig,
    /// Groups.
    pub membership: MembershipLimits,
    /// Sockets at most.
    pub sockets_max: usize,
    /// Bytes of frames that wait for the device.
    pub outbox_bytes_max: usize,
    /// Frames that wait for the device.
    pub outbox_frames_max: usize,
    /// Bytes of packets to ourselves that wait.
    pub looped_bytes_max: usize,
    /// Packets that wait for other shards.
    pub mail_len_max: usize,
    /// Routes.
    pub routes: RoutesConfig,
    /// Destinations with a path MTU of their own.
    pub path_mtu: PathMtuConfig,
    /// Source ports that are chosen for sockets.
    pub source_ports: PortsConfig,
    /// TCP.
    pub tcp: TcpConfig,
    /// What is done in a turn at most.
    pub budgets: Budgets,
}

/// What one turn does at most, stage by stage; 0 is taken as 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// Frames taken from the device: about a tenth of a millisecond's work.
    pub ingress_frames: usize,
    /// Packets to ourselves.
    pub looped_packets: usize,
    /// Commands, and messages of other shards.
    pub commands: usize,
    /// Frames given to the device.
    pub egress_frames: usize,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { ingress_frames: 256, looped_packets: 64, commands: 64, egress_frames: 512 }
    }
}

impl Budgets {
    /// With a budget of 0 a stage would never be done with.
    pub(crate) fn at_least_one(self) -> Self {
        Self {
            ingress_frames: self.ingress_frames.max(1),
            looped_packets: self.looped_packets.max(1),
            commands: self.commands.max(1),
            egress_frames: self.egress_frames.max(1),
        }
    }
}

impl ShardConfig {
    /// A shard of its own with this hardware address, default limits, and no IP address yet.
    pub fn new(mac: EthernetAddress) -> Self {
        Self {
            mac,
            addresses: Vec::new(),
            gateways: Vec::new(),
            link_local: Some(InterfaceIdentifier::Eui64),
            slaac: None,
            dhcp: None,
            dhcp6: None,
            dns: dns::Config::default(),
            seed: 0,
            steering: Steering { seed: 0, shards: 1 },
            shard: 0,
            hop_limit: 64,
            shares_addresses: false,
            answers_echo: true,
            follows_redirects: false,
            sends_unreachable: true,
            neighbor: NeighborConfig { probes: AddressProbes::Quick, ..NeighborConfig::default() },
            reassembly: ReassemblyConfig::default(),
            icmp: LimiterConfig::default(),
            membership: MembershipLimits::default(),
            sockets_max: 65_536,
            outbox_bytes_max: 4 << 20,
            outbox_frames_max: 4_096,
            looped_bytes_max: 1 << 20,
            mail_len_max: 1_024,
            routes: RoutesConfig::default(),
            path_mtu: PathMtuConfig::default(),
            source_ports: PortsConfig::default(),
            tcp: TcpConfig::default(),
            budgets: Budgets::default(),
        }
    }

    /// The link-local address that every IPv6 host has (RFC 4291 section 2.1), unless routers' advertisements
    /// are followed: then that is their matter. `None`: one was given, or none is wanted.
    pub fn link_local_address(&self) -> Option<IpCidr> {
        let is_link_local =
            |cidr: &IpCidr| matches!(cidr.address(), IpAddress::Ipv6(v6) if v6.is_unicast_link_local());
        let identifier = self.link_local.filter(|_| self.slaac.is_none())?;
        if self.addresses.iter().any(is_link_local) {
            return None;
        }
        let prefix = Ipv6Address::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
        let address = identifier.address(prefix, self.mac, "", &mut 0)?;
        Some(IpCidr::new(address.into(), 64))
    }

    /// Checks everything that would otherwise be found out later.
    ///
    /// # Errors
    /// The first field that is out of its bounds.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.addresses.iter().try_for_each(|cidr| check_host_address(*cidr))?;
        if self.addresses.len() >= ADDRESSES_MAX {
            return Err(ConfigError::TooManyAddresses { count: self.addresses.len() });
        }
        for &gateway in &self.gateways {
            let is_on_link = |cidr: &IpCidr| cidr.contains_addr(&gateway.into());
            let is_link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
            if !is_link_local && !self.addresses.iter().any(is_on_link) {
                return Err(ConfigError::GatewayOffLink { gateway });
            }
        }
        let ports = &self.source_ports.range;
        if ports.is_empty() || *ports.start() == 0 {
            return Err(ConfigError::SourcePorts { ports: ports.clone() });
        }
        self.tcp.check()
    }

    /// Adds an address.
    #[must_use]
    pub fn address(mut self, address: IpCidr) -> Self {
        self.addresses.push(address);
        self
    }

    /// Adds a default router.
    #[must_use]
    pub fn gateway(mut self, gateway: IpAddr) -> Self {
        self.gateways.push(gateway);
        self
    }
}
