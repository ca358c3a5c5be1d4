//! Routes of one interface: where a packet goes next.
//!
//! The longest prefix that a destination begins with decides, among routes of the same prefix the lowest
//! metric, and among those the one that came first. The table is a trie, so the cost of a question grows
//! with the length of prefixes, not with their number.
//!
//! What it does not know: neighbours (whether a gateway answers), and addresses. Somebody else adds a
//! connected route for the prefix of each address. Groups, broadcast addresses and 127/8 are not asked
//! here: they have no route.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use smoltcp::time::Instant;
use smoltcp::wire::IpCidr;

#[cfg(test)]
mod tests;

/// Where a route comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteOrigin {
    /// From the configuration.
    Static,
    /// The prefix of an address of ours, or one that is on the link by a router advertisement.
    Connected,
    /// From a router advertisement (RFC 4861, RFC 4191).
    RouterAdvertisement,
    /// From a DHCP server.
    Dhcp,
    /// From a redirect (RFC 792, RFC 4861).
    Redirect,
}

impl RouteOrigin {
    /// Whether anybody on the link can make such routes.
    fn is_advertised(self) -> bool {
        matches!(self, Self::RouterAdvertisement | Self::Redirect)
    }
}

/// A way to the destinations that begin with a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The destinations. Bits behind the prefix length do not count, and are 0 in the table.
    pub prefix: IpCidr,
    /// Who takes the packet next; `None`: the destination itself, which is on the link.
    pub gateway: Option<IpAddr>,
    /// The lowest wins among routes of the same prefix. The preference of RFC 4191 (high, medium, low) is
    /// a metric that grows as the preference falls; whoever reads the advertisement chooses the numbers.
    pub metric: u32,
    /// Where it comes from.
    pub origin: RouteOrigin,
    /// When it goes; `None`: never.
    pub expires: Option<Instant>,
    /// The source of packets whose sender leaves it to us; `None`: chosen by RFC 6724.
    pub source: Option<IpAddr>,
    /// The longest packet of this route in bytes, if it is less than that of the link.
    pub mtu: Option<u16>,
}

/// What tells routes apart: there is one of each in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId {
    /// The destinations.
    pub prefix: IpCidr,
    /// Who takes the packet next.
    pub gateway: Option<IpAddr>,
    /// Where it comes from.
    pub origin: RouteOrigin,
}

impl Route {
    /// A route for ever, with metric 0 and everything else left to the stack.
    pub fn new(prefix: IpCidr, gateway: Option<IpAddr>, origin: RouteOrigin) -> Self {
        Self { prefix, gateway, metric: 0, origin, expires: None, source: None, mtu: None }
    }

    /// Whom to ask for a hardware address for `dst`, which the route is for.
    pub fn next_hop(&self, dst: IpAddr) -> IpAddr {
        self.gateway.unwrap_or(dst)
    }

    /// What tells it from the others of its table.
    pub fn id(&self) -> RouteId {
        RouteId { prefix: self.prefix, gateway: self.gateway, origin: self.origin }
    }
}

/// Limits of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutesConfig {
    /// Routes in total. A table of the whole Internet fits a million; one route costs some 150 bytes.
    pub routes_max: usize,
    /// Routes from router advertisements and redirects, of `routes_max`: anybody on the link can send them.
    pub advertised_max: usize,
    /// Routes of the same prefix.
    pub per_prefix_max: usize,
}

impl Default for RoutesConfig {
    fn default() -> Self {
        Self { routes_max: 4096, advertised_max: 64, per_prefix_max: 32 }
    }
}

/// Why a route was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The gateway, or the source, is not of the family of the prefix.
    #[error("{address} is not of the family of {prefix}; take one that is")]
    Family {
        /// The destinations.
        prefix: IpCidr,
        /// The gateway or source.
        address: IpAddr,
    },
    /// The gateway is a group, broadcast, loopback or unspecified address.
    #[error("gateway {0} is nobody's own address; a gateway is one host on the link")]
    GatewayNotUnicast(IpAddr),
    /// No on-link route leads to the gateway.
    #[error("gateway {0} is not on the link; add the route to its prefix first")]
    GatewayOffLink(IpAddr),
    /// The same prefix, gateway and origin are in the table.
    #[error("there is a route to {0} of this gateway and origin; replace it")]
    Exists(IpCidr),
    /// The table is full, or its part for router advertisements or for this prefix.
    #[error("there is no room for a route to {prefix}: {max} at most")]
    Full {
        /// The destinations.
        prefix: IpCidr,
        /// The limit that was reached.
        max: usize,
    },
}

/// The table.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    config: RoutesConfig,
    /// The routes of a prefix, the best first; never an empty list.
    v4: PrefixMap<Ipv4Net, Vec<Route>>,
    v6: PrefixMap<Ipv6Net, Vec<Route>>,
    expiries: BTreeSet<(Instant, RouteId)>,
    len: usize,
    advertised_len: usize,
    changes: u64,
}

impl Routes {
    /// An empty table.
    pub fn new(config: RoutesConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Adds a route.
    ///
    /// # Errors
    /// [`RouteError`]: it cannot be, it is there already, or the table is full.
    pub fn insert(&mut self, route: Route) -> Result<(), RouteError> {
        let route = normalized(route);
        self.check(&route)?;
        let same = self.same(route.prefix);
        if same.iter().any(|known| known.id() == route.id()) {
            return Err(RouteError::Exists(route.prefix));
        }
        let is_advertised = route.origin.is_advertised();
        let limits = [
            (self.len, self.config.routes_max),
            (same.len(), self.config.per_prefix_max),
            (if is_advertised { self.advertised_len } else { 0 }, self.config.advertised_max.max(1)),
        ];
        let is_full = |(len, max): &&(usize, usize)| len >= max;
        if let Some(&(_, max)) = limits.iter().find(is_full) {
            return Err(RouteError::Full { prefix: route.prefix, max });
        }
        self.put(route);
        Ok(())
    }

    /// Adds a route, or puts it in the place of the one of the same prefix, gateway and origin, which it
    /// returns.
    ///
    /// # Errors
    /// As [`insert`](Self::insert), but that it may be there.
    pub fn replace(&mut self, route: Route) -> Result<Option<Route>, RouteError> {
        let route = normalized(route);
        self.check(&route)?;
        let before = self.remove(&route.id());
        if before.is_some() {
            self.put(route);
            return Ok(before);
        }
        self.insert(route).map(|()| None)
    }

    /// Takes a route away. A route whose gateway was on the link by it stays.
    pub fn remove(&mut self, id: &RouteId) -> Option<Route> {
        let id = RouteId { prefix: normalized_prefix(id.prefix), ..*id };
        let net = net_of(id.prefix)?;
        let removed = match net {
            IpNet::V4(net) => remove_from(&mut self.v4, net, &id),
            IpNet::V6(net) => remove_from(&mut self.v6, net, &id),
        }?;
        self.changes += 1;
        self.len -= 1;
        self.advertised_len -= usize::from(id.origin.is_advertised());
        if let Some(at) = removed.expires {
            self.expiries.remove(&(at, id));
        }
        Some(removed)
    }

    /// Takes all routes of an origin away, of which it returns the number.
    pub fn remove_by_origin(&mut self, origin: RouteOrigin) -> usize {
        let ids: Vec<_> = self.iter().filter(|route| route.origin == origin).map(Route::id).collect();
        ids.iter().filter(|id| self.remove(id).is_some()).count()
    }

    /// Takes away what has expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.expiries.first()
            && at <= now
        {
            self.expiries.pop_first();
            self.remove(&id);
        }
    }

    /// How often it has changed: whoever keeps a route knows by this that it is still the one.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// When a route expires next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.expiries.first().map(|&(at, _)| at)
    }

    /// The best route to `dst`.
    pub fn lookup(&self, dst: IpAddr) -> Option<&Route> {
        self.candidates(dst).first()
    }

    /// The routes of the longest prefix of `dst`, the best first. Whoever knows that a gateway does not
    /// answer takes the next one (RFC 4861 section 6.3.6).
    pub fn candidates(&self, dst: IpAddr) -> &[Route] {
        let list = match dst {
            IpAddr::V4(ip) => self.v4.get_lpm(&ip.into()).map(|(_, list)| list),
            IpAddr::V6(ip) => self.v6.get_lpm(&ip.into()).map(|(_, list)| list),
        };
        list.map_or(&[], Vec::as_slice)
    }

    /// Whom to ask for a hardware address to send to `dst`: the gateway, or `dst` itself.
    pub fn next_hop(&self, dst: IpAddr) -> Option<IpAddr> {
        self.lookup(dst).map(|route| route.next_hop(dst))
    }

    /// All routes: those of IPv4 first, each family in the order of prefixes. This is the snapshot of the
    /// table.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.v4.values().chain(self.v6.values()).flatten()
    }

    /// Number of routes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn check(&self, route: &Route) -> Result<(), RouteError> {
        let prefix = route.prefix;
        let is_v4 = matches!(prefix, IpCidr::Ipv4(_));
        for address in [route.gateway, route.source].into_iter().flatten() {
            if address.is_ipv4() != is_v4 {
                return Err(RouteError::Family { prefix, address });
            }
        }
        let Some(gateway) = route.gateway else { return Ok(()) };
        if !is_host(gateway) {
            return Err(RouteError::GatewayNotUnicast(gateway));
        }
        let is_on_link = is_link_local_v6(gateway)
            || self.lookup(gateway).is_some_and(|to_gateway| to_gateway.gateway.is_none());
        if is_on_link { Ok(()) } else { Err(RouteError::GatewayOffLink(gateway)) }
    }

    /// The routes of exactly this prefix.
    fn same(&self, prefix: IpCidr) -> &[Route] {
        let list = match net_of(prefix) {
            Some(IpNet::V4(net)) => self.v4.get(&net),
            Some(IpNet::V6(net)) => self.v6.get(&net),
            None => None,
        };
        list.map_or(&[], Vec::as_slice)
    }

    fn put(&mut self, route: Route) {
        let list = match net_of(route.prefix) {
            Some(IpNet::V4(net)) => self.v4.entry(net).or_default(),
            Some(IpNet::V6(net)) => self.v6.entry(net).or_default(),
            None => return,
        };
        list.insert(list.partition_point(|known| known.metric <= route.metric), route);
        self.changes += 1;
        self.len += 1;
        self.advertised_len += usize::from(route.origin.is_advertised());
        if let Some(at) = route.expires {
            self.expiries.insert((at, route.id()));
        }
    }
}

fn remove_from<P: prefix_trie::Prefix>(
    map: &mut PrefixMap<P, Vec<Route>>,
    net: P,
    id: &RouteId,
) -> Option<Route> {
    let list = map.get_mut(&net)?;
    let position = list.iter().position(|known| known.id() == *id)?;
    let removed = list.remove(position);
    if list.is_empty() {
        map.remove(&net);
    }
    Some(removed)
}

fn net_of(prefix: IpCidr) -> Option<IpNet> {
    IpNet::new(prefix.address().into(), prefix.prefix_len()).ok().map(|net| net.trunc())
}

fn normalized(route: Route) -> Route {
    Route { prefix: normalized_prefix(route.prefix), ..route }
}

fn normalized_prefix(prefix: IpCidr) -> IpCidr {
    net_of(prefix).map_or(prefix, |net| IpCidr::new(net.addr().into(), net.prefix_len()))
}

fn is_host(ip: IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || is_broadcast)
}

/// Routers are known by such addresses (RFC 4861 section 4.2), and these need no route.
fn is_link_local_v6(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
