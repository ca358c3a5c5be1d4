//! The table against a list that is searched from end to end, and its rules one by one.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use smoltcp::time::Duration;

use super::*;

fn cidr(text: &str) -> IpCidr {
    text.parse().expect("a prefix")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn route(prefix: &str, gateway: &str) -> Route {
    let gateway = (!gateway.is_empty()).then(|| ip(gateway));
    let origin = if gateway.is_some() { RouteOrigin::Static } else { RouteOrigin::Connected };
    Route::new(cidr(prefix), gateway, origin)
}

fn table(routes: &[Route]) -> Routes {
    let mut table = Routes::new(RoutesConfig::default());
    for &route in routes {
        table.insert(route).expect("a route that can be");
    }
    table
}

#[test]
fn the_longest_prefix_wins_and_then_the_metric() {
    let table = table(&[
        route("10.0.0.0/24", ""),
        Route { metric: 20, ..route("0.0.0.0/0", "10.0.0.1") },
        Route { metric: 10, ..route("0.0.0.0/0", "10.0.0.2") },
        Route { metric: 99, ..route("192.0.2.0/24", "10.0.0.3") },
        route("192.0.2.7/32", "10.0.0.4"),
        route("2001:db8::/64", ""),
        route("::/0", "fe80::1"),
    ]);
    for (dst, expected) in [
        ("10.0.0.9", "10.0.0.9"),
        ("10.0.1.9", "10.0.0.2"),
        ("192.0.2.8", "10.0.0.3"),
        ("192.0.2.7", "10.0.0.4"),
        ("2001:db8::5", "2001:db8::5"),
        ("2001:db8:0:1::5", "fe80::1"),
    ] {
        assert_eq!(table.next_hop(ip(dst)), Some(ip(expected)), "{dst}");
    }
    let metrics: Vec<_> = table.candidates(ip("8.8.8.8")).iter().map(|route| route.metric).collect();
    assert_eq!(metrics, [10, 20]);
    assert_eq!(Routes::default().next_hop(ip("10.0.0.1")), None);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let on_link = route("10.0.0.0/24", "");
    for (refused, error) in [
        (route("0.0.0.0/0", "10.0.1.1"), RouteError::GatewayOffLink(ip("10.0.1.1"))),
        (route("0.0.0.0/0", "224.0.0.1"), RouteError::GatewayNotUnicast(ip("224.0.0.1"))),
        (route("0.0.0.0/0", "0.0.0.0"), RouteError::GatewayNotUnicast(ip("0.0.0.0"))),
        (route("0.0.0.0/0", "255.255.255.255"), RouteError::GatewayNotUnicast(ip("255.255.255.255"))),
        (route("::/0", "2001:db8::1"), RouteError::GatewayOffLink(ip("2001:db8::1"))),
        (route("::/0", "10.0.0.1"), RouteError::Family { prefix: cidr("::/0"), address: ip("10.0.0.1") }),
        (
            Route { source: Some(ip("::1")), ..route("10.9.0.0/16", "") },
            RouteError::Family { prefix: cidr("10.9.0.0/16"), address: ip("::1") },
        ),
        (route("10.0.0.77/24", ""), RouteError::Exists(cidr("10.0.0.0/24"))),
    ] {
        let mut table = table(&[on_link]);
        assert_eq!(table.insert(refused), Err(error));
        assert_eq!(error.to_string().lines().count(), 1);
        assert_eq!(table.len(), 1);
    }
    // Behind a gateway is not on the link.
    let mut behind = table(&[on_link, route("10.1.0.0/16", "10.0.0.1")]);
    assert_eq!(
        behind.insert(route("0.0.0.0/0", "10.1.0.1")),
        Err(RouteError::GatewayOffLink(ip("10.1.0.1")))
    );
}

#[test]
fn full_is_a_value() {
    let mut table = Routes::new(RoutesConfig { routes_max: 3, advertised_max: 1, per_prefix_max: 2 });
    let advertised =
        |prefix: &str| Route { origin: RouteOrigin::RouterAdvertisement, ..route(prefix, "fe80::1") };
    table.insert(advertised("2001:db8::/48")).expect("room");
    let error = table.insert(advertised("2001:db8:1::/48")).expect_err("one at most");
    assert_eq!(error, RouteError::Full { prefix: cidr("2001:db8:1::/48"), max: 1 });
    // Replacing needs no room.
    let again = Route { metric: 7, ..advertised("2001:db8::/48") };
    assert_eq!(table.replace(again), Ok(Some(advertised("2001:db8::/48"))));
    table.insert(route("::/0", "fe80::1")).expect("room");
    table.insert(route("::/0", "fe80::2")).expect("room");
    let error = table.replace(route("::/0", "fe80::3")).expect_err("full");
    assert_eq!(error, RouteError::Full { prefix: cidr("::/0"), max: 3 });
    assert_eq!(table.remove_by_origin(RouteOrigin::Static), 2);
    assert_eq!(table.len(), 1);
    assert_eq!(table.remove_by_origin(RouteOrigin::RouterAdvertisement), 1);
    table.insert(advertised("2001:db8:1::/48")).expect("room again");
}

#[test]
fn routes_expire_exactly_then() {
    let at = |secs| Instant::from_secs(secs);
    let mut table = table(&[
        Route { expires: Some(at(20)), ..route("::/0", "fe80::1") },
        Route { expires: Some(at(10)), ..route("2001:db8::/64", "") },
    ]);
    assert_eq!(table.next_deadline(), Some(at(10)));
    table.handle_timeout(at(10) - Duration::from_micros(1));
    assert_eq!(table.len(), 2);
    table.handle_timeout(at(10));
    assert_eq!((table.len(), table.next_deadline()), (1, Some(at(20))));
    // A new advertisement moves it.
    table.replace(Route { expires: Some(at(50)), ..route("::/0", "fe80::1") }).expect("there");
    assert_eq!(table.next_deadline(), Some(at(50)));
    table.handle_timeout(at(60));
    assert!(table.is_empty());
    assert_eq!(table.next_deadline(), None);
}

#[derive(Debug, Clone)]
enum Step {
    Insert(Route),
    Replace(Route),
    Remove(usize),
    Expire(i64),
    Lookup(IpAddr),
}

/// Few addresses, so that prefixes nest and lookups hit.
fn address() -> impl Strategy<Value = IpAddr> {
    (any::<bool>(), 0u8..4, 0u8..8).prop_map(|(is_v4, a, b)| {
        if is_v4 {
            IpAddr::V4(Ipv4Addr::new(10, a << 6, 0, b))
        } else {
            IpAddr::V6(Ipv6Addr::new(0x2001, u16::from(a) << 14, 0, 0, 0, 0, 0, b.into()))
        }
    })
}

fn any_route() -> impl Strategy<Value = Route> {
    (address(), 0u8..=128, 0u32..3, prop::option::of(0i64..100), prop::option::of(1u16..4)).prop_map(
        |(address, len, metric, expires, gateway)| {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let gateway = gateway.map(|last| match address {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(172, 16, 0, last as u8)),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last)),
            });
            Route {
                metric,
                expires: expires.map(Instant::from_secs),
                ..Route::new(IpCidr::new(address.into(), len % (bits + 1)), gateway, RouteOrigin::Static)
            }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any_route().prop_map(Step::Insert),
        1 => any_route().prop_map(Step::Replace),
        1 => any::<usize>().prop_map(Step::Remove),
        1 => (0i64..100).prop_map(Step::Expire),
        4 => address().prop_map(Step::Lookup),
    ]
}

/// The slow table: a list in the order of insertion.
fn best(list: &[Route], dst: IpAddr) -> Option<Route> {
    let mut best: Option<Route> = None;
    for route in list.iter().filter(|route| route.prefix.contains_addr(&dst.into())) {
        let rank = |route: &Route| (u8::MAX - route.prefix.prefix_len(), route.metric);
        if best.is_none_or(|best| rank(route) < rank(&best)) {
            best = Some(*route);
        }
    }
    best
}

proptest! {
    #[test]
    fn the_table_is_a_list(steps in prop::collection::vec(step(), 1..80)) {
        let first = route("172.16.0.0/24", "");
        let mut table = table(&[first]);
        let mut list = vec![first];
        for step in steps {
            match step {
                Step::Insert(route) => {
                    let route = normalized(route);
                    let is_new = list.iter().all(|known| known.id() != route.id());
                    let to_gateway = route.gateway.filter(IpAddr::is_ipv4).and_then(|to| best(&list, to));
                    let is_off_link = to_gateway.is_some_and(|to| to.gateway.is_some());
                    let result = table.insert(route);
                    prop_assert_eq!(result.is_ok(), is_new && !is_off_link);
                    list.extend(result.is_ok().then_some(route));
                }
                Step::Replace(route) => {
                    let route = normalized(route);
                    if let Ok(before) = table.replace(route) {
                        let known = list.iter().position(|known| known.id() == route.id());
                        prop_assert_eq!(before, known.map(|position| list.remove(position)));
                        list.push(route);
                    }
                }
                Step::Remove(index) => {
                    let id = list[index % list.len()].id();
                    if id != first.id() {
                        prop_assert!(table.remove(&id).is_some());
                        prop_assert!(table.remove(&id).is_none());
                        list.retain(|known| known.id() != id);
                    }
                }
                Step::Expire(secs) => {
                    let now = Instant::from_secs(secs);
                    table.handle_timeout(now);
                    list.retain(|known| known.expires.is_none_or(|at| at > now));
                }
                Step::Lookup(dst) => prop_assert_eq!(table.lookup(dst).copied(), best(&list, dst)),
            }
            prop_assert_eq!(table.len(), list.len());
            prop_assert_eq!(table.iter().count(), list.len());
            prop_assert_eq!(table.next_deadline(), list.iter().filter_map(|known| known.expires).min());
        }
    }
}

#[test]
fn of_equal_routes_the_first_stays_the_first() {
    let table = table(&[
        route("10.0.0.0/24", ""),
        Route { metric: 7, ..route("0.0.0.0/0", "10.0.0.1") },
        Route { metric: 7, ..route("0.0.0.0/0", "10.0.0.2") },
    ]);
    assert_eq!(table.next_hop(ip("192.0.2.1")), Some(ip("10.0.0.1")));
}
