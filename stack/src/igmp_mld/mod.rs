//! Membership in multicast groups: IGMP (RFC 2236, 3376) and MLD (RFC 2710, 3810).
//!
//! What sockets want of a group, source filters included, is merged into what the interface wants; routers
//! hear of changes as they come, and of everything when they ask. The newest versions are spoken, IGMPv3 and
//! MLDv2, and while a router of an older version is there, its version. The interface hears which hardware
//! addresses it has to let pass.
//!
//! ```text
//!   join, leave, set_filter ─▶ filter: of sockets ▸ merged ─▶ group: what changed ─┐
//!   handle_igmp, handle_mld ─▶ message: a query, a report ──▶ machine: when ───────┴▶ poll_output
//! ```
//!
//! Everybody is in 224.0.0.1 and ff02::1, and nobody reports it. The tables are short and searched in
//! logarithmic time; only a timer that fires and a query about all groups walk them.
//!
//! What this module does not know: who is a member because of an address (solicited-node groups are joined
//! as any other), and the addresses of the interface: no message has a source ([`PacketSpec::src`] is
//! `None`). The checksum of an IGMP message needs none and is filled in; that of an MLD message is 0, to be
//! filled in when the source is chosen, which is a link-local address, or `::` while there is none
//! (RFC 3590).
//!
//! [`PacketSpec::src`]: crate::egress::packet::PacketSpec::src

mod filter;
mod group;
mod machine;
mod message;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use crate::egress::packet::Outgoing;
use crate::observe::DropReason;
use crate::random::Random;

pub use filter::{Filter, FilterMode};
use machine::{ALL_NODES, ALL_SYSTEMS, Machine};
use message::Message;

/// What the table of groups may hold; of each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MembershipLimits {
    /// Groups.
    pub groups_max: usize,
    /// Pairs of a socket and a group.
    pub memberships_max: usize,
    /// Sources in a filter of a socket, and in all INCLUDE lists of a group together.
    pub sources_max: usize,
    /// Messages that wait for [`Membership::poll_output`]; what is more is lost, and told again later
    /// or asked for.
    pub outputs_max: usize,
}

impl Default for MembershipLimits {
    fn default() -> Self {
        Self { groups_max: 256, memberships_max: 1024, sources_max: 64, outputs_max: 512 }
    }
}

/// Why a socket cannot be in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The address is none of a group.
    #[error("{0} is no multicast address")]
    NotMulticast(IpAddr),
    /// A source is a group, or of the other family.
    #[error("{source_address} cannot be a source of {group}")]
    BadSource {
        /// The group.
        group: IpAddr,
        /// The source.
        source_address: IpAddr,
    },
    /// [`MembershipLimits::groups_max`].
    #[error("there is no room for another group; there are {max} at most")]
    TooManyGroups {
        /// The limit.
        max: usize,
    },
    /// [`MembershipLimits::memberships_max`].
    #[error("there is no room for another socket in a group; there are {max} at most")]
    TooManyMemberships {
        /// The limit.
        max: usize,
    },
    /// [`MembershipLimits::sources_max`].
    #[error("a group has {max} sources at most")]
    TooManySources {
        /// The limit.
        max: usize,
    },
}

/// A version of a protocol about groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// RFC 1112.
    Igmpv1,
    /// RFC 2236.
    Igmpv2,
    /// RFC 3376.
    Igmpv3,
    /// RFC 2710.
    Mldv1,
    /// RFC 3810.
    Mldv2,
}

impl Version {
    fn is_current(self) -> bool {
        matches!(self, Self::Igmpv3 | Self::Mldv2)
    }
}

/// What the interface's filter of hardware addresses has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkChange {
    /// Let frames to this address pass.
    Join(EthernetAddress),
    /// Nobody needs them any more.
    Leave(EthernetAddress),
}

/// A group as [`Membership::snapshot`] shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupSnapshot<'a> {
    /// Its address.
    pub group: IpAddr,
    /// How many sockets are in it.
    pub sockets: usize,
    /// What they want together.
    pub filter: &'a Filter,
    /// How often routers are still to be told of a change.
    pub reports_left: u8,
    /// When something is sent about it next.
    pub next_report: Option<Instant>,
}

/// What is known of the routers of one family, by [`Membership::querier`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuerierSnapshot {
    /// Which version is spoken with them.
    pub version: Version,
    /// Until when, if it is not the newest.
    pub version_until: Option<Instant>,
    /// Robustness Variable: how often a change is told.
    pub robustness: u8,
    /// Query Interval.
    pub query_interval: Duration,
    /// Query Response Interval.
    pub response_interval: Duration,
}

/// The groups of an interface.
#[derive(Debug)]
pub struct Membership {
    limits: MembershipLimits,
    mtu: u16,
    random: Random,
    igmp: Machine,
    mld: Machine,
    outbox: Outbox,
    links: Links,
    deadline: Option<Instant>,
}

impl Membership {
    /// A member of the groups of all nodes and of nothing else. `mtu` is of IP packets, in bytes; reports
    /// are not made shorter than for 256.
    pub fn new(limits: MembershipLimits, mtu: u16, random: Random) -> Self {
        let outbox = Outbox { queue: VecDeque::new(), max: limits.outputs_max, dropped: 0 };
        let mut links = Links::default();
        links.join(ALL_SYSTEMS.into());
        links.join(ALL_NODES.into());
        let (igmp, mld) = (Machine::new(true), Machine::new(false));
        Self { limits, mtu, random, igmp, mld, outbox, links, deadline: None }
    }

    /// A socket wants packets to a group, whoever sent them. A filter that it had is forgotten.
    ///
    /// # Errors
    /// The address is none of a group, or there is no room.
    pub fn join(&mut self, now: Instant, socket: u32, group: IpAddr) -> Result<(), JoinError> {
        self.set_filter(now, socket, group, FilterMode::Exclude, &[])
    }

    /// A socket wants packets to a group from these sources only, or from all but these. With no source
    /// of [`FilterMode::Include`] it leaves.
    ///
    /// # Errors
    /// An address cannot be what it is to be, or there is no room; what was before stays.
    pub fn set_filter(
        &mut self,
        now: Instant,
        socket: u32,
        group: IpAddr,
        mode: FilterMode,
        sources: &[IpAddr],
    ) -> Result<(), JoinError> {
        if !group.is_multicast() {
            return Err(JoinError::NotMulticast(group));
        }
        let is_bad = |source: &&IpAddr| source.is_multicast() || source.is_ipv4() != group.is_ipv4();
        if let Some(&source_address) = sources.iter().find(is_bad) {
            return Err(JoinError::BadSource { group, source_address });
        }
        let filter = Filter { mode, sources: sources.iter().copied().collect() };
        if filter.is_none() {
            self.leave(now, socket, group);
            return Ok(());
        }
        let limits = self.limits;
        if self.machine(group).set(now, (socket, group), filter, &limits)? {
            self.links.join(group);
        }
        self.note_deadline();
        Ok(())
    }

    /// A socket wants nothing more of a group. `false`: it wanted nothing.
    pub fn leave(&mut self, now: Instant, socket: u32, group: IpAddr) -> bool {
        let machine = if group.is_ipv4() { &mut self.igmp } else { &mut self.mld };
        let left = machine.unset(now, (socket, group), &self.limits, &mut self.outbox);
        if left == Some(true) {
            self.links.leave(group);
        }
        self.note_deadline();
        left.is_some()
    }

    /// A socket is gone: it leaves all groups.
    pub fn leave_all(&mut self, now: Instant, socket: u32) {
        let all = self.igmp.groups().chain(self.mld.groups());
        let its = all.filter(|(_, state)| state.sockets.contains_key(&socket));
        for group in its.map(|(group, _)| group).collect::<Vec<_>>() {
            self.leave(now, socket, group);
        }
    }

    /// The link was down and is up, or is another one: routers are told of all groups.
    pub fn link_up(&mut self, now: Instant) {
        self.igmp.restart(now);
        self.mld.restart(now);
        self.note_deadline();
    }

    /// The MTU of the link has changed; bytes of an IP packet.
    pub fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu;
    }

    /// An IGMP message has come: what follows the IPv4 header, with these fields of it. The checksum is
    /// verified here.
    ///
    /// # Errors
    /// [`DropReason::GroupMalformed`]: a check of RFC 3376 or RFC 2236 fails.
    /// [`DropReason::GroupIgnored`]: a message for routers, or of a type that we do not know.
    pub fn handle_igmp(
        &mut self,
        now: Instant,
        src: Ipv4Addr,
        dst: Ipv4Addr,
        ttl: u8,
        router_alert: bool,
        message: &[u8],
    ) -> Result<(), DropReason> {
        let parsed = message::parse_igmp(message)?;
        // All of them are sent with a TTL of 1: what has another one came from another link.
        if ttl != 1 || src.is_multicast() || src.is_broadcast() {
            return Err(DropReason::GroupMalformed);
        }
        let is_right = match &parsed {
            //= rfc3376#9.1
            //# Hosts SHOULD ignore v2 or v3 Queries without the Router-Alert option.
            Message::Query(query) => {
                // The same section: a general query goes to all systems, and to no other group.
                let is_elsewhere = query.group.is_none() && dst.is_multicast() && dst != ALL_SYSTEMS;
                !is_elsewhere && (router_alert || query.version == Version::Igmpv1)
            }
            Message::Report(group) => *group == IpAddr::V4(dst),
        };
        if !is_right {
            return Err(DropReason::GroupMalformed);
        }
        self.igmp.handle(now, parsed, &self.limits, &mut self.random);
        self.note_deadline();
        Ok(())
    }

    /// An MLD message has come: an ICMPv6 message of type 130 to 132 or 143, whose checksum was verified,
    /// with these fields of its IPv6 header.
    ///
    /// # Errors
    /// As of [`handle_igmp`](Self::handle_igmp), by RFC 3810 and RFC 2710.
    pub fn handle_mld(
        &mut self,
        now: Instant,
        src: Ipv6Addr,
        dst: Ipv6Addr,
        hop_limit: u8,
        router_alert: bool,
        message: &[u8],
    ) -> Result<(), DropReason> {
        let parsed = message::parse_mld(message)?;
        //= rfc3810#6.2
        //# the node checks if the source address of the message is a valid link-local address, if the Hop
        //# Limit is set to 1, and if the Router Alert option is present in the Hop-By-Hop Options header of
        //# the IPv6 packet. If any of these checks fails, the packet is dropped.
        if !src.is_unicast_link_local() || hop_limit != 1 || !router_alert {
            return Err(DropReason::GroupMalformed);
        }
        if matches!(parsed, Message::Report(group) if group != IpAddr::V6(dst)) {
            return Err(DropReason::GroupMalformed);
        }
        self.mld.handle(now, parsed, &self.limits, &mut self.random);
        self.note_deadline();
        Ok(())
    }

    /// The next message to be sent.
    pub fn poll_output(&mut self) -> Option<Outgoing> {
        self.outbox.queue.pop_front()
    }

    /// What the interface has to do next; there is nothing to do for a group that several need.
    pub fn poll_link(&mut self) -> Option<LinkChange> {
        let (mac, is_join) = self.links.pending.pop_first()?;
        Some(if is_join { LinkChange::Join(mac) } else { LinkChange::Leave(mac) })
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Time has passed: reports that are due are made.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        let Self { igmp, mld, mtu, random, outbox, .. } = self;
        igmp.handle_timeout(now, *mtu, random, outbox);
        mld.handle_timeout(now, *mtu, random, outbox);
        self.note_deadline();
    }

    /// Whether anybody wants a packet of this source to this group.
    pub fn accepts(&self, group: IpAddr, source: IpAddr) -> bool {
        is_of_all_nodes(group)
            || self.machine_ref(group).group(group).is_some_and(|state| state.merged.passes(source))
    }

    /// Whether this socket does.
    pub fn accepts_for(&self, socket: u32, group: IpAddr, source: IpAddr) -> bool {
        let state = self.machine_ref(group).group(group);
        state.and_then(|state| state.sockets.get(&socket)).is_some_and(|filter| filter.passes(source))
    }

    /// Whether we are in a group, be it for some sources only.
    pub fn is_member(&self, group: IpAddr) -> bool {
        is_of_all_nodes(group) || self.machine_ref(group).group(group).is_some()
    }

    /// The groups that sockets are in.
    pub fn snapshot(&self) -> impl Iterator<Item = GroupSnapshot<'_>> {
        self.igmp.groups().chain(self.mld.groups()).map(|(group, state)| GroupSnapshot {
            group,
            sockets: state.sockets.len(),
            filter: &state.merged,
            reports_left: state.change.sources_left.values().copied().fold(state.change.mode_left, u8::max),
            next_report: state.deadline(),
        })
    }

    /// What is known of the routers of IPv4 or of IPv6.
    pub fn querier(&self, is_v4: bool) -> QuerierSnapshot {
        let machine = if is_v4 { &self.igmp } else { &self.mld };
        QuerierSnapshot {
            version: machine.version(),
            version_until: machine.oldest_until.or(machine.older_until),
            robustness: machine.robustness,
            query_interval: machine.query_interval,
            response_interval: machine.response_interval,
        }
    }

    /// How many messages were lost, since nobody fetched those before them.
    pub fn outputs_dropped(&self) -> u64 {
        self.outbox.dropped
    }

    fn machine(&mut self, group: IpAddr) -> &mut Machine {
        if group.is_ipv4() { &mut self.igmp } else { &mut self.mld }
    }

    fn machine_ref(&self, group: IpAddr) -> &Machine {
        if group.is_ipv4() { &self.igmp } else { &self.mld }
    }

    fn note_deadline(&mut self) {
        self.deadline = [self.igmp.next_deadline(), self.mld.next_deadline()].into_iter().flatten().min();
    }
}

/// The hardware address of a group (RFC 1112 section 6.4, RFC 2464 section 7). Several groups share one.
pub fn group_mac(group: IpAddr) -> EthernetAddress {
    match group {
        IpAddr::V4(group) => {
            let [_, a, b, c] = group.octets();
            EthernetAddress([0x01, 0x00, 0x5e, a & 0x7f, b, c])
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            EthernetAddress([0x33, 0x33, a, b, c, d])
        }
    }
}

fn is_of_all_nodes(group: IpAddr) -> bool {
    group == IpAddr::V4(ALL_SYSTEMS) || group == IpAddr::V6(ALL_NODES)
}

/// Messages on their way out.
#[derive(Debug)]
struct Outbox {
    queue: VecDeque<Outgoing>,
    max: usize,
    dropped: u64,
}

impl Outbox {
    fn push(&mut self, message: Outgoing) {
        if self.queue.len() < self.max {
            self.queue.push_back(message);
        } else {
            self.dropped += 1;
        }
    }
}

/// The hardware addresses that groups need, and what the interface has not heard of yet: what was joined
/// and left meanwhile it need not hear of.
#[derive(Debug, Default)]
struct Links {
    counts: BTreeMap<EthernetAddress, usize>,
    pending: BTreeMap<EthernetAddress, bool>,
}

impl Links {
    fn join(&mut self, group: IpAddr) {
        let mac = group_mac(group);
        let count = self.counts.entry(mac).or_default();
        *count += 1;
        if *count == 1 {
            self.note(mac, true);
        }
    }

    fn leave(&mut self, group: IpAddr) {
        let mac = group_mac(group);
        let Some(count) = self.counts.get_mut(&mac) else { return };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&mac);
            self.note(mac, false);
        }
    }

    fn note(&mut self, mac: EthernetAddress, is_join: bool) {
        if self.pending.remove(&mac).is_none() {
            self.pending.insert(mac, is_join);
        }
    }
}
