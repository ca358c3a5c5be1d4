//! All state of one core: a [`Shard`]. `&mut self` everywhere, no locks, no I/O, no clock.
//!
//! A shard has four kinds of methods:
//!
//! - [`turn`](Shard::turn), which a loop calls whenever the device has something or the deadline that the last
//!   turn returned has come. It is the only way of frames;
//! - commands of the application (`udp_bind`, `udp_send`, `resolve`, …), in the closure of a turn or between
//!   turns; what they send leaves at the end of the turn;
//! - [`next_event`](Shard::next_event), which tells what there is for the application;
//! - getters.
//!
//! | file | what it is |
//! |---|---|
//! | `turn` | the way of a frame, on one page |
//! | `config` | what a shard is told at its start |
//! | `sockets`, `udp`, `icmp`, `raw` | the table of sockets, and what an application does with them |
//! | `link` | neighbours, groups and routers: what they want sent and set |
//! | `redirect` | routers that say that another one is nearer |
//! | `run`, `carrier` | a loop for programs with one thread; whether a loop's device has a link |
//! | `services` | DHCP and DNS, which are sockets of the stack's own |
//! | `timers` | what is due, and when something will be |
//! | `policy` | who is asked whether somebody may listen, connect and be accepted |
//! | `mail`, `command` | what comes from other shards and threads |
//! | `snapshot`, `occupancy` | all tables, for people; how full they are |

pub(crate) mod carrier;
mod command;
mod config;
mod icmp;
mod link;
mod mail;
mod occupancy;
mod policy;
mod raw;
mod redirect;
pub(crate) mod room;
mod run;
mod services;
mod snapshot;
mod sockets;
pub(crate) mod tcp;
mod timers;
mod turn;
mod udp;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::Range;

use smoltcp::phy::Medium;
use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;
use wirestack_nic::{FrameMeta, Nic};

use crate::demux::{Ports, UdpHandle, UdpTable};
use crate::dhcp;
use crate::dns::Resolver;
use crate::egress::Outbox;
use crate::egress::output::LINK_HEADER_LEN;
use crate::egress::paths::Paths;
use crate::error::ConfigError;
use crate::icmp::Limiter;
use crate::igmp_mld::Membership;
use crate::ip::header::IdGenerator;
use crate::ip::path_mtu::PathMtu;
use crate::ip::reassembly::Reassembly;
use crate::ip::route::Routes;
use crate::ip::slaac::Slaac;
use crate::ip::{Address, Addresses, Origin};
use crate::neighbor;
use crate::observe::event::Hooked;
use crate::observe::{DropReason, Drops, Event, Hook, ShardCounters, Stage, StageClock, StageTimes};
use crate::random::Random;

pub use command::Command;
pub use config::{Budgets, ShardConfig};
pub use icmp::{PingBind, PingOptions};
pub use mail::{Learned, Mail};
pub use occupancy::Occupancy;
pub use raw::{RAW_SOCKETS_MAX, RawBind};
pub use run::Waiting;
pub use sockets::{SocketEvent, SocketId};
pub use tcp::{Readiness, TcpConnect, TcpConnection, TcpConnections, TcpListen, TcpListener};
pub use udp::{GroupError, SendOptions, UdpBind};

use mail::Mailbox;
use sockets::{Owner, SocketTable};

#[cfg(test)]
mod tests;

/// All state of one core.
#[derive(Debug)]
pub struct Shard {
    pub(crate) now: Instant,
    pub(crate) config: ShardConfig,
    pub(crate) budgets: Budgets,

    // The device, as it was at the start of the turn.
    pub(crate) medium: Medium,
    /// Bytes of an IP packet on the link.
    pub(crate) mtu: usize,
    /// The same for IPv6, as a router has told it; it counts if it is less.
    pub(crate) link_mtu: Option<usize>,
    /// Of packets that do not say; a router may have told another.
    pub(crate) hop_limit: u8,

    // The link and IP.
    pub(crate) neighbors: neighbor::Table,
    pub(crate) addresses: Addresses,
    pub(crate) routes: Routes,
    /// Gateways that did not answer when they were asked last.
    pub(crate) dead_gateways: Vec<IpAddr>,
    pub(crate) path_mtu: PathMtu,
    pub(crate) paths: Paths,
    pub(crate) ids: IdGenerator,
    pub(crate) reassembly: Reassembly,
    pub(crate) limiter: Limiter,
    pub(crate) membership: Membership,
    pub(crate) slaac: Option<Slaac>,

    // Sockets, and the stack's own.
    pub(crate) sockets: SocketTable,
    pub(crate) udp: UdpTable<Owner>,
    pub(crate) ports: Ports,
    /// Ports of queries that are under way.
    pub(crate) dns_ports: HashMap<u16, UdpHandle>,
    /// Whom a datagram to many goes to; memory that is used again.
    pub(crate) receivers: Vec<Owner>,
    /// By IP version and identifier.
    pub(crate) pings: HashMap<(bool, u16), SocketId>,
    /// Few: each looks at every packet.
    pub(crate) raw_sockets: Vec<SocketId>,
    pub(crate) dhcp: Option<dhcp::v4::Client>,
    pub(crate) dhcp6: Option<dhcp::v6::Client>,
    pub(crate) dns: Resolver,
    /// The resolver has said something since the application had its turn.
    pub(crate) has_news: bool,
    /// What others than the configuration have said of name servers.
    pub(crate) dns_told: services::DnsTold,
    /// Connections.
    pub(crate) tcp: tcp::Tcp,
    /// Who decides who may listen, connect and be accepted.
    pub(crate) policy: Option<Box<policy::Policed>>,
    /// Segments for whoever serves TCP beside this engine.
    pub(crate) tcp_queue: Option<Outbox>,
    /// A segment of the frame at hand is lent to them where it lies, instead.
    pub(crate) lends_tcp: bool,
    /// Where in the frame it is.
    pub(crate) lent_tcp: Option<Range<usize>>,

    // Ways in and out.
    pub(crate) outbox: Outbox,
    pub(crate) looped: Outbox,
    /// Why a datagram was refused last.
    pub(crate) shortage: room::Shortage,
    pub(crate) mail: Mailbox,
    pub(crate) commands: VecDeque<Command>,
    /// What is being handled was answered by another shard.
    pub(crate) is_mailed: bool,
    /// Memory for one packet, used again.
    pub(crate) scratch: Vec<u8>,
    /// The same for one to ourselves.
    pub(crate) looped_scratch: Vec<u8>,
    /// Memory for one fragment.
    pub(crate) fragment_scratch: Vec<u8>,
    pub(crate) random: Random,

    // For people.
    pub(crate) counters: ShardCounters,
    pub(crate) drops: Drops,
    pub(crate) hook: Hooked,
    pub(crate) stages: StageTimes,
}

impl Shard {
    /// Makes a shard. Nothing is sent before the first turn.
    ///
    /// # Errors
    /// The first field of the configuration that is out of its bounds.
    pub fn new(config: ShardConfig, now: Instant) -> Result<Self, ConfigError> {
        config.check()?;
        let mut random = Random::new(config.seed);
        // `check` has seen to the range.
        let ports = Ports::new(config.source_ports.clone(), &mut random)
            .map_err(|_| ConfigError::SourcePorts { ports: config.source_ports.range.clone() })?;
        let (mac, shards) = (config.mac, config.steering.shards);
        // A host is one client of a server, however many shards it has.
        let is_first = config.shard == 0;
        let (dhcp, dhcp6) = (config.dhcp.clone(), config.dhcp6.clone());
        let (dhcp, dhcp6) = (dhcp.filter(|_| is_first), dhcp6.filter(|_| is_first));
        let mut shard = Self {
            now,
            budgets: config.budgets.at_least_one(),
            medium: Medium::Ethernet,
            mtu: usize::from(DEFAULT_MTU),
            link_mtu: None,
            hop_limit: config.hop_limit,
            neighbors: neighbor::Table::new(config.neighbor.clone(), mac, random.fork(), now),
            addresses: Addresses::new(),
            routes: Routes::new(config.routes),
            dead_gateways: Vec::new(),
            path_mtu: PathMtu::new(config.path_mtu, &mut random),
            paths: Paths::new(),
            ids: IdGenerator::new(&mut random),
            reassembly: Reassembly::new(now, config.reassembly, &mut random),
            limiter: Limiter::new(config.icmp, random.fork()),
            membership: Membership::new(config.membership, DEFAULT_MTU, random.fork()),
            slaac: config.slaac.clone().map(|slaac| Slaac::new(slaac, mac, random.fork(), now)),
            sockets: SocketTable::new(config.sockets_max),
            udp: UdpTable::new(config.sockets_max.saturating_add(SERVICE_PORTS_MAX), &mut random),
            ports,
            pings: HashMap::new(),
            raw_sockets: Vec::new(),
            dns_ports: HashMap::new(),
            receivers: Vec::new(),
            dhcp: dhcp.map(|dhcp| dhcp::v4::Client::new(dhcp, mac, random.fork(), now)),
            dhcp6: dhcp6.map(|dhcp| dhcp::v6::Client::new(dhcp, mac, random.fork(), now)),
            dns: Resolver::new(config.dns.clone(), random.fork(), now),
            has_news: false,
            dns_told: Default::default(),
            tcp: tcp::Tcp::new(config.tcp.clone(), &mut random, now),
            policy: None,
            tcp_queue: None,
            lends_tcp: false,
            lent_tcp: None,
            outbox: Outbox::new(config.outbox_bytes_max, config.outbox_frames_max),
            looped: Outbox::new(config.looped_bytes_max, config.outbox_frames_max),
            shortage: room::Shortage::Outbox,
            mail: Mailbox::new(config.shard, shards, config.mail_len_max),
            commands: VecDeque::new(),
            is_mailed: false,
            scratch: Vec::new(),
            looped_scratch: Vec::new(),
            fragment_scratch: Vec::new(),
            random,
            counters: ShardCounters::default(),
            drops: Drops::default(),
            hook: Hooked::default(),
            stages: StageTimes::default(),
            config,
        };
        shard.bind_services();
        shard.configure();
        Ok(shard)
    }

    /// Addresses and routes of the configuration.
    fn configure(&mut self) {
        for cidr in self.config.addresses.clone() {
            self.add_address(Address::preferred(cidr, Origin::Static));
        }
        if let Some(cidr) = self.config.link_local_address() {
            self.add_address(Address::preferred(cidr, Origin::LinkLocal));
        }
        for gateway in self.config.gateways.clone() {
            self.add_default_route(gateway);
        }
    }

    /// A turn begins: what the device is may have changed.
    fn begin<N: Nic>(&mut self, now: Instant, nic: &N) {
        self.now = self.now.max(now);
        self.counters.turns += 1;
        let capabilities = nic.capabilities();
        self.medium = capabilities.medium;
        self.mtu = match self.medium {
            Medium::Ethernet => capabilities.max_transmission_unit.saturating_sub(LINK_HEADER_LEN),
            Medium::Ip => capabilities.max_transmission_unit,
        };
        self.mtu = self.mtu.min(usize::from(u16::MAX));
        self.membership.set_mtu(self.mtu.min(self.link_mtu.unwrap_or(usize::MAX)) as u16);
    }

    /// Tells the time between turns: what a command begins there is counted from it, and not from the last
    /// turn, which may be long ago.
    pub fn set_now(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// The time of this turn.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// TTL and hop limit of what does not say: as configured, or as a router has told.
    pub fn hop_limit(&self) -> u8 {
        self.hop_limit
    }

    /// Hardware address of the stack.
    pub fn mac(&self) -> EthernetAddress {
        self.config.mac
    }

    /// The addresses of the interface, those included that cannot be used yet.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.addresses.iter()
    }

    /// What was counted.
    pub fn counters(&self) -> ShardCounters {
        self.counters
    }

    /// What was dropped, by reason.
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Tells of events from now on; `None`: of none.
    pub fn set_hook(&mut self, hook: Option<Hook>) {
        self.hook = Hooked(hook);
    }

    /// Measures the stages of a turn from now on, with the caller's clock.
    pub fn set_stage_clock(&mut self, clock: Option<StageClock>) {
        self.stages.set_clock(clock);
    }

    /// What was spent in each stage since a clock was set.
    pub fn stage_times(&self) -> &StageTimes {
        &self.stages
    }

    /// Serves TCP beside this engine: segments for addresses of ours wait in a queue of so many bytes from now
    /// on, instead of being dropped. [`swap_tcp`](Self::swap_tcp) hands them over.
    pub fn take_tcp(&mut self, bytes_max: usize) {
        self.tcp_queue = Some(Outbox::new(bytes_max, TCP_PACKETS_MAX));
    }

    /// Takes a frame from the device. If it has a segment for us, nothing is done with that, and it is told
    /// where in the frame the packet is.
    pub(crate) fn handle_frame_but_tcp(&mut self, frame: &[u8], meta: &FrameMeta) -> Option<Range<usize>> {
        self.lends_tcp = true;
        self.handle_frame(frame, meta);
        self.lends_tcp = false;
        self.lent_tcp.take()
    }

    /// Takes all segments that wait, and leaves an empty queue in their place: nothing is copied.
    pub fn swap_tcp(&mut self, empty: &mut Outbox) {
        if let Some(queue) = &mut self.tcp_queue {
            std::mem::swap(queue, empty);
        }
    }

    /// Whether nothing waits for the device or for a neighbour.
    pub fn is_quiet(&self) -> bool {
        self.outbox.is_empty() && self.looped.is_empty() && self.neighbors.parked_bytes() == 0
    }

    /// Whether a packet of so many bytes finds room on its way out.
    pub fn has_room_for(&self, packet_bytes: usize) -> bool {
        self.outbox.has_room(LINK_HEADER_LEN + packet_bytes)
    }

    /// Sends a whole IP packet that was written elsewhere; `meta` says what is left to be done, with offsets
    /// from the IP header. What cannot be sent is counted.
    pub fn send_packet(&mut self, packet: &[u8], meta: &FrameMeta) {
        if let Err(reason) = self.try_send_packet(packet, meta) {
            self.count_drop(reason);
        }
    }

    #[inline]
    pub(crate) fn enter(&mut self, stage: Stage) {
        if self.stages.is_on() {
            self.stages.enter(stage);
        }
    }

    /// Counts something that was dropped and that came from no frame.
    pub(crate) fn count_drop(&mut self, reason: DropReason) {
        self.drop_frame(reason, &[]);
    }

    pub(crate) fn drop_frame(&mut self, reason: DropReason, frame: &[u8]) {
        self.counters.dropped += 1;
        self.drops.count(reason);
        self.hook.tell(self.now, &Event::Dropped { reason, frame });
    }

    /// Whether packets to `ip` are for us now.
    pub fn is_local(&self, ip: IpAddr) -> bool {
        self.addresses.is_local(ip)
    }
}

/// Bytes of an IP packet before a device says otherwise.
const DEFAULT_MTU: u16 = 1_500;
/// Ports of the stack's own, which a full table of sockets does not take from it: two for each lookup of the
/// resolver (IPv4 and IPv6), and those of DHCP.
const SERVICE_PORTS_MAX: usize = 4_096;
/// Packets that wait for whoever serves TCP.
const TCP_PACKETS_MAX: usize = 4_096;
