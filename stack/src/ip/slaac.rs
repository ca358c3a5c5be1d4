//! Addresses, routes and name servers that routers advertise: router solicitation and advertisements
//! (RFC 4861 section 6, RFC 7559), stateless addresses (RFC 4862, RFC 7217), preferences and routes
//! (RFC 4191), DNS (RFC 8106).
//!
//! ```text
//!   Slaac::new ─▶ poll_output: solicitations ─▶ handle_advertisement ─▶ poll_event: what to add, to change
//!                                                 handle_timeout ─────▶             and to remove
//! ```
//!
//! It also makes the link-local address. Whether addresses are ours alone is found out elsewhere: the first
//! event for each is [`SlaacEvent::AddAddress`], after which come
//! [`address_confirmed`](Slaac::address_confirmed) or [`address_duplicate`](Slaac::address_duplicate). An
//! address is deprecated when its `preferred_until` has come; there is no event for that.
//!
//! The tables are short lists, walked for an advertisement and when a timer fires, never for other packets.
//! Events are to be fetched after each call; while more than [`SlaacConfig::events_max`] wait, advertisements
//! are dropped.

mod options;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpProtocol, Ipv6Cidr, checksum};

use super::stable_address::InterfaceIdentifier;
use crate::egress::packet::{Outgoing, PacketSpec};
use crate::observe::DropReason;
use crate::random::Random;
use options::{Advertised, Header, Preference};

/// What is done with advertisements, and how much of them is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlaacConfig {
    /// How the lower halves of addresses are made.
    pub identifier: InterfaceIdentifier,
    /// Name of the interface, from which stable addresses are made.
    pub interface: String,
    /// MTU of the link in bytes: routers can lower it to 1280 and not raise it.
    pub link_mtu: u16,
    /// Hop limits below this are not believed: a packet of 1 gets nowhere.
    pub hop_limit_min: u8,
    /// Default routers.
    pub routers_max: usize,
    /// Prefixes with an address of ours, the link-local one not counted.
    pub addresses_max: usize,
    /// Prefixes on the link, and routes by a router, together.
    pub routes_max: usize,
    /// Name servers.
    pub servers_max: usize,
    /// Domains of the search list.
    pub domains_max: usize,
    /// Events that wait while another advertisement is taken.
    pub events_max: usize,
}

impl SlaacConfig {
    /// All limits as they are right for a host; a link of 1500 bytes.
    pub fn new(identifier: InterfaceIdentifier) -> Self {
        Self {
            identifier,
            interface: String::new(),
            link_mtu: 1500,
            hop_limit_min: 8,
            routers_max: 8,
            addresses_max: 16,
            routes_max: 32,
            servers_max: 8,
            domains_max: 8,
            events_max: 256,
        }
    }
}

/// What has changed. Times are `None` for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlaacEvent {
    /// A new address, to be probed first.
    AddAddress {
        /// The address and its prefix.
        cidr: Ipv6Cidr,
        /// When it becomes deprecated; a time that has come: at once.
        preferred_until: Option<Instant>,
        /// When it goes. [`SlaacEvent::RemoveAddress`] comes then as well.
        valid_until: Option<Instant>,
    },
    /// A known address lives longer, or shorter.
    UpdateAddress {
        /// The address and its prefix.
        cidr: Ipv6Cidr,
        /// When it becomes deprecated.
        preferred_until: Option<Instant>,
        /// When it goes.
        valid_until: Option<Instant>,
    },
    /// An address is gone.
    RemoveAddress(Ipv6Addr),
    /// A route is there, or lives longer, or has another metric.
    AddRoute {
        /// Where it leads.
        prefix: Ipv6Cidr,
        /// The router; `None`: the prefix is on the link.
        gateway: Option<Ipv6Addr>,
        /// [`METRIC_ON_LINK`] or by the preference of the router, [`METRIC_HIGH`] and so on.
        metric: u32,
        /// When it goes. [`SlaacEvent::RemoveRoute`] comes then as well.
        expires: Option<Instant>,
    },
    /// A route is gone.
    RemoveRoute {
        /// Where it led.
        prefix: Ipv6Cidr,
        /// The router.
        gateway: Option<Ipv6Addr>,
    },
    /// The MTU of IPv6 on this link, 1280 to [`SlaacConfig::link_mtu`].
    Mtu(u16),
    /// The hop limit of what we send.
    HopLimit(u8),
    /// The name servers and the search list are now these.
    Dns {
        /// In the order in which they were heard of. One that is link-local is on this interface.
        servers: Vec<Ipv6Addr>,
        /// Domains in text, without the last dot.
        search: Vec<String>,
    },
    /// A router has told its hardware address.
    RouterMac {
        /// Its link-local address.
        router: Ipv6Addr,
        /// Its hardware address.
        mac: EthernetAddress,
    },
    /// What DHCPv6 is for.
    Managed {
        /// Addresses (M).
        addresses: bool,
        /// Other things (O).
        other: bool,
    },
    /// Base of the time for which a neighbour is taken to be reachable.
    ReachableTime(Duration),
    /// Time between neighbour solicitations.
    RetransTimer(Duration),
}

/// One of the addresses, as [`Slaac::snapshot`] shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlaacAddress {
    /// The prefix.
    pub prefix: Ipv6Cidr,
    /// The address; `None`: each that we tried is somebody else's.
    pub address: Option<Ipv6Addr>,
    /// DAD_Counter of RFC 7217: how many did not do.
    pub dad_counter: u8,
    /// When it becomes deprecated.
    pub preferred_until: Option<Instant>,
    /// When it goes.
    pub valid_until: Option<Instant>,
}

/// One route of a router, or prefix on the link, as [`Slaac::routes`] shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlaacRoute {
    /// Where it leads; the prefix of length 0 is the default route.
    pub prefix: Ipv6Cidr,
    /// The router.
    pub gateway: Option<Ipv6Addr>,
    /// Its metric.
    pub metric: u32,
    /// When it goes.
    pub expires: Option<Instant>,
}

/// What routers have told about an interface.
#[derive(Debug)]
pub struct Slaac {
    config: SlaacConfig,
    mac: EthernetAddress,
    random: Random,
    /// The first is link-local.
    addresses: Vec<Entry>,
    routes: Vec<SlaacRoute>,
    servers: Vec<Named<Ipv6Addr>>,
    domains: Vec<Named<String>>,
    told: Told,
    /// The link-local address, once it is known to be ours.
    source: Option<Ipv6Addr>,
    solicit: Solicit,
    events: VecDeque<SlaacEvent>,
    deadline: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    shown: SlaacAddress,
    /// When the next address is tried, the one before having been somebody else's.
    retry_at: Option<Instant>,
    retries: u8,
}

/// A name server or a domain.
#[derive(Debug)]
struct Named<T> {
    value: T,
    expires: Option<Instant>,
}

/// What was said in events, so that only changes are.
#[derive(Debug, Default)]
struct Told {
    mtu: Option<u16>,
    hop_limit: Option<u8>,
    managed: Option<(bool, bool)>,
    reachable_ms: Option<u32>,
    retrans_ms: Option<u32>,
}

/// Router solicitations (RFC 7559).
#[derive(Debug)]
struct Solicit {
    /// When the next one goes; `None`: there is a router.
    at: Option<Instant>,
    /// RT: what was waited before.
    timeout: Duration,
    is_due: bool,
}

impl Slaac {
    /// Makes the link-local address, and looks for routers.
    pub fn new(config: SlaacConfig, mac: EthernetAddress, random: Random, now: Instant) -> Self {
        let solicit = Solicit { at: None, timeout: Duration::ZERO, is_due: false };
        let mut slaac = Self {
            config,
            mac,
            random,
            addresses: Vec::new(),
            routes: Vec::new(),
            servers: Vec::new(),
            domains: Vec::new(),
            told: Told::default(),
            source: None,
            solicit,
            events: VecDeque::new(),
            deadline: None,
        };
        let mut entry = Entry::new(LINK_LOCAL, None, None);
        slaac.generate(&mut entry);
        slaac.addresses.push(entry);
        slaac.link_up(now);
        slaac
    }

    /// The link was down and is up, or is another one: routers are asked again. What they told before stays
    /// until it ends.
    pub fn link_up(&mut self, now: Instant) {
        //= rfc4861#6.3.7
        //# Before a host sends an initial solicitation, it SHOULD delay the transmission for a random amount
        //# of time between 0 and MAX_RTR_SOLICITATION_DELAY.
        let delay = self.random_up_to(SOLICITATION_DELAY_MAX);
        self.solicit = Solicit { at: Some(now + delay), timeout: Duration::ZERO, is_due: false };
        self.note_deadline();
    }

    /// An address of ours is ours alone.
    pub fn address_confirmed(&mut self, address: Ipv6Addr) {
        if self.addresses.first().is_some_and(|entry| entry.shown.address == Some(address)) {
            self.source = Some(address);
        }
    }

    /// An address of ours is somebody else's: another one is tried after a moment, thrice at most.
    pub fn address_duplicate(&mut self, now: Instant, address: Ipv6Addr) {
        let delay = self.random_up_to(IDGEN_DELAY);
        let Some(entry) = self.addresses.iter_mut().find(|entry| entry.shown.address == Some(address)) else {
            return;
        };
        entry.shown.address = None;
        if entry.retries < IDGEN_RETRIES {
            entry.retries += 1;
            entry.shown.dad_counter = entry.shown.dad_counter.saturating_add(1);
            //= rfc7217#6
            //# Hosts SHOULD introduce a random delay between 0 and IDGEN_DELAY seconds
            entry.retry_at = Some(now + delay);
        }
        self.source = self.source.filter(|&source| source != address);
        self.events.push_back(SlaacEvent::RemoveAddress(address));
        self.note_deadline();
    }

    /// A router advertisement has come: an ICMPv6 message of type 134 whose checksum was verified.
    ///
    /// # Errors
    /// [`DropReason::RouterAdvertisementMalformed`]: a check of RFC 4861 section 6.1.2 fails; nothing of it
    /// was used. [`DropReason::RouterAdvertisementNoRoom`]: some of it found no room, or nobody has fetched
    /// the events of those before.
    pub fn handle_advertisement(
        &mut self,
        now: Instant,
        src: Ipv6Addr,
        hop_limit: u8,
        message: &[u8],
    ) -> Result<(), DropReason> {
        let malformed = DropReason::RouterAdvertisementMalformed;
        //= rfc4861#6.1.2
        //# A node MUST silently discard any received Router Advertisement messages that do not satisfy all of
        //# the following validity checks:
        let is_right = src.is_unicast_link_local() && hop_limit == 255;
        let (header, options) = options::header(message).filter(|_| is_right).ok_or(malformed)?;
        let mut rest = options;
        while !rest.is_empty() {
            (_, rest) = options::next(rest).ok_or(malformed)?;
        }
        if self.events.len() > self.config.events_max {
            return Err(DropReason::RouterAdvertisementNoRoom);
        }
        let mut has_room = self.on_header(now, src, &header);
        let mut rest = options;
        for _ in 0..OPTIONS_MAX {
            let Some((option, after)) = options::next(rest) else { break };
            rest = after;
            if let Some(advertised) = options::read(option) {
                has_room &= self.on_option(now, src, advertised);
            }
        }
        self.note_deadline();
        if has_room { Ok(()) } else { Err(DropReason::RouterAdvertisementNoRoom) }
    }

    /// The next router solicitation. Its source is the link-local address if that is known to be ours, and
    /// unspecified otherwise; the checksum is filled in.
    pub fn poll_output(&mut self) -> Option<Outgoing> {
        if !std::mem::take(&mut self.solicit.is_due) {
            return None;
        }
        let src = self.source.unwrap_or(Ipv6Addr::UNSPECIFIED);
        let mut payload = vec![ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        //= rfc4861#4.1
        //# MUST NOT be included if the Source Address is the unspecified address.
        if !src.is_unspecified() {
            payload.extend([1, 1]);
            payload.extend(self.mac.0);
        }
        let pseudo = checksum::pseudo_header(
            &IpAddr::V6(src).into(),
            &IpAddr::V6(ALL_ROUTERS).into(),
            IpProtocol::Icmpv6,
            payload.len() as u32,
        );
        let sum = !checksum::combine(&[pseudo, checksum::data(&payload)]);
        payload[2..4].copy_from_slice(&sum.to_be_bytes());
        let spec = PacketSpec {
            src: Some(src.into()),
            hop_limit: Some(255),
            ..PacketSpec::new(ALL_ROUTERS.into(), IpProtocol::Icmpv6.into())
        };
        Some(Outgoing { spec, payload })
    }

    /// What has changed next.
    pub fn poll_event(&mut self) -> Option<SlaacEvent> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Time has passed: what has ended goes, and what is due is sent.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        self.expire_addresses(now);
        let had_router = self.has_router();
        let is_over = |expires: Option<Instant>| expires.is_some_and(|expires| expires <= now);
        for gone in self.routes.extract_if(.., |route| is_over(route.expires)) {
            let SlaacRoute { prefix, gateway, .. } = gone;
            self.events.push_back(SlaacEvent::RemoveRoute { prefix, gateway });
        }
        let before = self.servers.len() + self.domains.len();
        self.servers.retain(|server| !is_over(server.expires));
        self.domains.retain(|domain| !is_over(domain.expires));
        if self.servers.len() + self.domains.len() != before {
            self.tell_dns();
        }
        if had_router && !self.has_router() {
            self.link_up(now);
        }
        if self.solicit.at.take_if(|at| *at <= now).is_some() {
            self.solicit.is_due = true;
            self.solicit.timeout = self.next_timeout();
            self.solicit.at = Some(now + self.solicit.timeout);
        }
        self.note_deadline();
    }

    /// The addresses; the first is link-local.
    pub fn snapshot(&self) -> impl Iterator<Item = SlaacAddress> {
        self.addresses.iter().map(|entry| entry.shown)
    }

    /// The routes and the prefixes on the link.
    pub fn routes(&self) -> impl Iterator<Item = SlaacRoute> {
        self.routes.iter().copied()
    }

    fn on_header(&mut self, now: Instant, src: Ipv6Addr, header: &Header) -> bool {
        let Header { hop_limit, managed, other, reachable_ms, retrans_ms, .. } = *header;
        // A value of 0 says nothing (RFC 4861 section 6.3.4). Times beyond an hour are nobody's (section
        // 6.2.1 has this bound for the first).
        let told = &mut self.told;
        if hop_limit >= self.config.hop_limit_min.max(1)
            && told.hop_limit.replace(hop_limit) != Some(hop_limit)
        {
            self.events.push_back(SlaacEvent::HopLimit(hop_limit));
        }
        if told.managed.replace((managed, other)) != Some((managed, other)) {
            self.events.push_back(SlaacEvent::Managed { addresses: managed, other });
        }
        let is_time = |ms: u32| (1..=TIME_MS_MAX).contains(&ms);
        if is_time(reachable_ms) && told.reachable_ms.replace(reachable_ms) != Some(reachable_ms) {
            let time = Duration::from_millis(reachable_ms.into());
            self.events.push_back(SlaacEvent::ReachableTime(time));
        }
        if is_time(retrans_ms) && told.retrans_ms.replace(retrans_ms) != Some(retrans_ms) {
            let time = Duration::from_millis(retrans_ms.into());
            self.events.push_back(SlaacEvent::RetransTimer(time));
        }
        self.set_route(now, DEFAULT, Some(src), metric(header.preference), header.lifetime_secs.into())
    }

    fn on_option(&mut self, now: Instant, src: Ipv6Addr, option: Advertised) -> bool {
        match option {
            Advertised::LinkLayer(mac) => {
                self.events.push_back(SlaacEvent::RouterMac { router: src, mac });
                true
            }
            Advertised::Mtu(mtu) => {
                let mtu = u16::try_from(mtu).ok().filter(|mtu| (1280..=self.config.link_mtu).contains(mtu));
                if let Some(mtu) = mtu.filter(|&mtu| self.told.mtu.replace(mtu) != Some(mtu)) {
                    self.events.push_back(SlaacEvent::Mtu(mtu));
                }
                true
            }
            Advertised::Prefix { prefix, on_link, autonomous, valid_secs, preferred_secs } => {
                //= rfc4862#5.5.3
                //# If the prefix is the link-local prefix, silently ignore the Prefix Information option.
                if prefix.address().is_unicast_link_local() || prefix.address().is_multicast() {
                    return true;
                }
                let is_routed = !on_link || self.set_route(now, prefix, None, METRIC_ON_LINK, valid_secs);
                let has_address = !autonomous || self.on_autonomous(now, prefix, valid_secs, preferred_secs);
                is_routed && has_address
            }
            Advertised::Route { prefix, preference, lifetime_secs } => {
                self.set_route(now, prefix, Some(src), metric(preference), lifetime_secs)
            }
            Advertised::Servers { servers, lifetime_secs } => {
                let expires = options::end(now, lifetime_secs);
                let max = self.config.servers_max;
                self.set_named(|slaac| set(&mut slaac.servers, servers, lifetime_secs > 0, expires, max))
            }
            Advertised::Search { domains, lifetime_secs } => {
                let expires = options::end(now, lifetime_secs);
                let max = self.config.domains_max;
                self.set_named(|slaac| set(&mut slaac.domains, domains, lifetime_secs > 0, expires, max))
            }
        }
    }

    /// Adds, changes or (lifetime 0) removes a route. `false`: there is no room.
    fn set_route(
        &mut self,
        now: Instant,
        prefix: Ipv6Cidr,
        gateway: Option<Ipv6Addr>,
        metric: u32,
        lifetime_secs: u32,
    ) -> bool {
        // The lifetime of a router has 16 bits: it cannot be infinite.
        let expires = options::end(now, lifetime_secs);
        let route = SlaacRoute { prefix, gateway, metric, expires };
        let is_default = prefix == DEFAULT && gateway.is_some();
        let known = self.routes.iter().position(|known| (known.prefix, known.gateway) == (prefix, gateway));
        match known {
            Some(position) if lifetime_secs == 0 => {
                self.routes.remove(position);
                self.events.push_back(SlaacEvent::RemoveRoute { prefix, gateway });
                if is_default && !self.has_router() {
                    self.link_up(now);
                }
                return true;
            }
            None if lifetime_secs == 0 => return true,
            Some(position) => self.routes[position] = route,
            None => {
                let is_router = |route: &&SlaacRoute| route.prefix == DEFAULT && route.gateway.is_some();
                let routers = self.routes.iter().filter(is_router).count();
                let others = self.routes.len() - routers;
                let (count, max) = if is_default {
                    (routers, self.config.routers_max)
                } else {
                    (others, self.config.routes_max)
                };
                if count >= max {
                    return false;
                }
                self.routes.push(route);
            }
        }
        if is_default {
            // There is one: nobody needs to be asked any more (RFC 7559 section 2).
            self.solicit.at = None;
            self.solicit.is_due = false;
        }
        self.events.push_back(SlaacEvent::AddRoute { prefix, gateway, metric, expires });
        true
    }

    /// A prefix from which an address is made (RFC 4862 section 5.5.3). `false`: there is no room.
    fn on_autonomous(
        &mut self,
        now: Instant,
        prefix: Ipv6Cidr,
        valid_secs: u32,
        preferred_secs: u32,
    ) -> bool {
        //= rfc4862#5.5.3
        //# If the preferred lifetime is greater than the valid lifetime, silently ignore the Prefix
        //# Information option.
        if preferred_secs > valid_secs || prefix.prefix_len() != 64 {
            return true;
        }
        let (valid, preferred) = (options::end(now, valid_secs), options::end(now, preferred_secs));
        if let Some(entry) = self.addresses.iter_mut().find(|entry| entry.shown.prefix == prefix) {
            let shown = &mut entry.shown;
            //= rfc4862#5.5.3
            //# If the received Valid Lifetime is greater than 2 hours or greater than RemainingLifetime, set
            //# the valid lifetime of the corresponding address to the advertised Valid Lifetime.
            let two_hours = now + TWO_HOURS;
            if valid_secs > TWO_HOURS.secs() as u32 || is_later(valid, shown.valid_until) {
                shown.valid_until = valid;
            } else if is_later(shown.valid_until, Some(two_hours)) {
                // And if no more than two hours are left, those stay: nobody can end an address at once.
                shown.valid_until = Some(two_hours);
            }
            shown.preferred_until = preferred;
            if let Some(address) = shown.address {
                self.events.push_back(SlaacEvent::UpdateAddress {
                    cidr: Ipv6Cidr::new(address, prefix.prefix_len()),
                    preferred_until: shown.preferred_until,
                    valid_until: shown.valid_until,
                });
            }
            return true;
        }
        if valid_secs == 0 {
            return true;
        }
        if self.addresses.len() > self.config.addresses_max {
            return false;
        }
        let mut entry = Entry::new(prefix, preferred, valid);
        self.generate(&mut entry);
        self.addresses.push(entry);
        true
    }

    /// Makes the address of a prefix, if there is one more.
    fn generate(&mut self, entry: &mut Entry) {
        let Entry { shown, .. } = entry;
        let Self { config, mac, .. } = self;
        let prefix = shown.prefix.address();
        shown.address = config.identifier.address(prefix, *mac, &config.interface, &mut shown.dad_counter);
        if let Some(address) = shown.address {
            self.events.push_back(SlaacEvent::AddAddress {
                cidr: Ipv6Cidr::new(address, shown.prefix.prefix_len()),
                preferred_until: shown.preferred_until,
                valid_until: shown.valid_until,
            });
        }
    }

    fn expire_addresses(&mut self, now: Instant) {
        let is_over = |entry: &mut Entry| entry.shown.valid_until.is_some_and(|until| until <= now);
        for gone in self.addresses.extract_if(.., is_over) {
            self.events.extend(gone.shown.address.map(SlaacEvent::RemoveAddress));
        }
        for index in 0..self.addresses.len() {
            let mut entry = self.addresses[index];
            if entry.retry_at.take_if(|at| *at <= now).is_some() {
                self.generate(&mut entry);
                self.addresses[index] = entry;
            }
        }
    }

    /// Changes a list by `change`, which says whether it changed and whether there was room.
    fn set_named(&mut self, change: impl FnOnce(&mut Self) -> (bool, bool)) -> bool {
        let (is_changed, has_room) = change(self);
        if is_changed {
            self.tell_dns();
        }
        has_room
    }

    fn tell_dns(&mut self) {
        let servers = self.servers.iter().map(|server| server.value).collect();
        let search = self.domains.iter().map(|domain| domain.value.clone()).collect();
        self.events.push_back(SlaacEvent::Dns { servers, search });
    }

    fn has_router(&self) -> bool {
        self.routes.iter().any(|route| route.prefix == DEFAULT && route.gateway.is_some())
    }

    /// RT of RFC 7559: twice as long as before, and an hour at most, each with a tenth more or less.
    fn next_timeout(&mut self) -> Duration {
        let base = match self.solicit.timeout {
            Duration::ZERO => SOLICITATION_INTERVAL,
            before => (before * 2).min(SOLICITATION_INTERVAL_MAX),
        };
        base * 9 / 10 + self.random_up_to(base / 5)
    }

    fn random_up_to(&mut self, max: Duration) -> Duration {
        Duration::from_micros(self.random.u64() % (max.total_micros() + 1))
    }

    fn note_deadline(&mut self) {
        let addresses = self.addresses.iter().flat_map(|entry| [entry.shown.valid_until, entry.retry_at]);
        let others = self.routes.iter().map(|route| route.expires);
        let others = others.chain(self.servers.iter().map(|server| server.expires));
        let others = others.chain(self.domains.iter().map(|domain| domain.expires));
        self.deadline = addresses.chain(others).chain([self.solicit.at]).flatten().min();
    }
}

impl Entry {
    fn new(prefix: Ipv6Cidr, preferred_until: Option<Instant>, valid_until: Option<Instant>) -> Self {
        let shown = SlaacAddress { prefix, address: None, dad_counter: 0, preferred_until, valid_until };
        Self { shown, retry_at: None, retries: 0 }
    }
}

/// Adds, renews or removes values. Returns whether the list is another one, and whether all found room: a
/// new one takes the place of the one that ends first, if it lives longer (RFC 8106 section 6.2).
fn set<T: PartialEq>(
    list: &mut Vec<Named<T>>,
    values: Vec<T>,
    is_there: bool,
    expires: Option<Instant>,
    max: usize,
) -> (bool, bool) {
    let (mut is_changed, mut has_room) = (false, true);
    for value in values {
        let known = list.iter().position(|known| known.value == value);
        match known {
            Some(position) if is_there => list[position].expires = expires,
            Some(position) => {
                list.remove(position);
                is_changed = true;
            }
            None if !is_there => {}
            None => {
                if list.len() >= max {
                    has_room = false;
                    let ends = |named: &Named<T>| (named.expires.is_none(), named.expires);
                    let first = (0..list.len()).min_by_key(|&index| ends(&list[index]));
                    let Some(first) = first.filter(|&at| is_later(expires, list[at].expires)) else {
                        continue;
                    };
                    list.remove(first);
                }
                list.push(Named { value, expires });
                is_changed = true;
            }
        }
    }
    (is_changed, has_room)
}

/// Whether the first is after the second; `None` is never.
fn is_later(one: Option<Instant>, other: Option<Instant>) -> bool {
    match (one, other) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(one), Some(other)) => one > other,
    }
}

fn metric(preference: Preference) -> u32 {
    match preference {
        Preference::High => METRIC_HIGH,
        Preference::Medium => METRIC_MEDIUM,
        Preference::Low => METRIC_LOW,
    }
}

/// Metric of a prefix on the link.
pub const METRIC_ON_LINK: u32 = 256;
/// Metric of a router or route of high preference (RFC 4191).
pub const METRIC_HIGH: u32 = 512;
/// The same of medium preference.
pub const METRIC_MEDIUM: u32 = 1024;
/// The same of low preference.
pub const METRIC_LOW: u32 = 2048;

const ROUTER_SOLICITATION: u8 = 133;
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const LINK_LOCAL: Ipv6Cidr = Ipv6Cidr::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64);
const DEFAULT: Ipv6Cidr = Ipv6Cidr::new(Ipv6Addr::UNSPECIFIED, 0);
/// Options of an advertisement that are looked at.
const OPTIONS_MAX: usize = 128;
const TWO_HOURS: Duration = Duration::from_secs(2 * 3600);
const TIME_MS_MAX: u32 = 3_600_000;
/// RFC 4861 section 10: MAX_RTR_SOLICITATION_DELAY.
const SOLICITATION_DELAY_MAX: Duration = Duration::from_secs(1);
/// RFC 7559 section 2: IRT and MRT.
const SOLICITATION_INTERVAL: Duration = Duration::from_secs(4);
const SOLICITATION_INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// RFC 7217 section 7.
const IDGEN_RETRIES: u8 = 3;
const IDGEN_DELAY: Duration = Duration::from_secs(1);
