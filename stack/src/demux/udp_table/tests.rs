use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const IPS: [&str; 6] = ["10.0.0.1", "10.0.0.2", "224.0.0.9", "fd00::1", "fd00::2", "ff02::9"];

fn ips() -> impl Strategy<Value = IpAddr> {
    prop::sample::select(&IPS[..]).prop_map(|text| text.parse().unwrap())
}

fn bindings() -> impl Strategy<Value = Binding> {
    let address = prop_oneof![
        3 => ips().prop_map(BindAddress::Address),
        1 => Just(BindAddress::AnyV4),
        1 => Just(BindAddress::AnyV6),
        1 => Just(BindAddress::Any),
    ];
    (address, prop_oneof![1 => Just(0_u16), 20 => 1_u16..3])
        .prop_map(|(address, port)| Binding { address, port })
}

#[derive(Debug, Clone)]
enum Step {
    Bind(Binding, bool),
    Unbind(usize),
    Connect(usize, IpAddr, SocketAddr),
    Disconnect(usize),
    Lookup(SocketAddr, SocketAddr),
}

fn steps() -> impl Strategy<Value = Step> {
    let remote = || (ips(), prop_oneof![1 => Just(0_u16), 20 => 1_u16..3]).prop_map(SocketAddr::from);
    let local = || (ips(), 1_u16..3).prop_map(SocketAddr::from);
    prop_oneof![
        4 => (bindings(), prop::bool::weighted(0.8)).prop_map(|(binding, reuse)| Step::Bind(binding, reuse)),
        1 => any::<usize>().prop_map(Step::Unbind),
        3 => (any::<usize>(), ips(), remote()).prop_map(|(at, local, remote)| Step::Connect(at, local, remote)),
        1 => any::<usize>().prop_map(Step::Disconnect),
        4 => (local(), remote()).prop_map(|(local, remote)| Step::Lookup(local, remote)),
    ]
}

/// A list of sockets in the order of binding, all of which are visited for each question.
#[derive(Default)]
struct Model(Vec<(UdpHandle, UdpBinding<u32>)>);

impl Model {
    fn is_free(&self, binding: Binding, reuse: bool) -> bool {
        let overlap = |other: Binding| {
            let mut all = IPS.iter().map(|text| text.parse::<IpAddr>().unwrap());
            other.port == binding.port && all.any(|ip| other.address.covers(ip) && binding.address.covers(ip))
        };
        !self.0.iter().any(|(_, socket)| overlap(socket.binding()) && !(reuse && socket.reuse))
    }

    /// How well a socket matches: 0 is not at all.
    fn score(socket: &UdpBinding<u32>, local: SocketAddr, remote: SocketAddr) -> u8 {
        if let Some(connection) = socket.connection {
            return if connection == (local, remote) { 4 } else { 0 };
        }
        if socket.bound.port != local.port() || !socket.bound.address.covers(local.ip()) {
            return 0;
        }
        match socket.bound.address {
            BindAddress::Address(_) => 3,
            BindAddress::Any if local.is_ipv4() => 1,
            _ => 2,
        }
    }

    fn matching(&self, local: SocketAddr, remote: SocketAddr, score: u8) -> Vec<u32> {
        let sockets = self.0.iter().map(|(_, socket)| socket);
        sockets
            .filter(|socket| Self::score(socket, local, remote) == score)
            .map(|socket| socket.value)
            .collect()
    }

    /// Moves the socket to the end: it is bound anew.
    fn set(&mut self, at: usize, connection: Option<(SocketAddr, SocketAddr)>) {
        let (handle, socket) = self.0.remove(at);
        self.0.push((handle, UdpBinding { connection, ..socket }));
    }

    fn connect(&mut self, at: usize, local: IpAddr, remote: SocketAddr) -> Result<(), UdpConnectError> {
        let (_, socket) = self.0[at];
        let bound = socket.bound;
        if !bound.address.covers(local) || local.is_ipv4() != remote.is_ipv4() {
            return Err(UdpConnectError::Address { bound, local, remote });
        }
        if remote.port() == 0 {
            return Err(UdpConnectError::PortZero);
        }
        let connection = Some((SocketAddr::new(local, bound.port), remote));
        if socket.connection != connection {
            if self.0.iter().any(|(_, other)| other.connection == connection) {
                return Err(UdpConnectError::InUse { remote });
            }
            self.set(at, connection);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn agrees_with_a_list(len_max in 1_usize..12, steps in prop::collection::vec(steps(), 0..100)) {
        let mut table = UdpTable::new(len_max, &mut Random::new(1));
        let mut model = Model::default();
        let mut gone = Vec::new();
        for (value, step) in (0..).zip(steps) {
            let len = model.0.len().max(1);
            match step {
                Step::Bind(bound, reuse) => {
                    let is_free = model.is_free(bound, reuse);
                    prop_assert_eq!(table.is_free(bound, reuse), is_free);
                    let bind = table.bind(bound, reuse, value);
                    if bound.port == 0 {
                        prop_assert_eq!(bind, Err(BindError::PortZero));
                    } else if !is_free {
                        prop_assert_eq!(bind, Err(BindError::InUse { binding: bound }));
                    } else if model.0.len() >= len_max {
                        prop_assert_eq!(bind, Err(BindError::Full { len_max }));
                    } else {
                        model.0.push((bind.unwrap(), UdpBinding { value, bound, reuse, connection: None }));
                    }
                }
                Step::Lookup(local, remote) => {
                    let best = [4, 3, 2, 1].map(|score| model.matching(local, remote, score));
                    let expected = best.iter().find_map(|sockets| sockets.last().copied());
                    prop_assert_eq!(table.lookup(local, remote), expected);
                    let [mut all, mut expected] = [table.lookup_all(local, remote).collect(), best.concat()];
                    all.sort();
                    expected.sort();
                    prop_assert_eq!(all, expected);
                }
                _ if model.0.is_empty() => {}
                Step::Unbind(at) => {
                    let (handle, socket) = model.0.remove(at % len);
                    prop_assert_eq!(table.get(handle), Some(&socket));
                    prop_assert_eq!(table.unbind(handle), Some(socket.value));
                    gone.push(handle);
                }
                Step::Connect(at, local, remote) => {
                    let handle = model.0[at % len].0;
                    let expected = model.connect(at % len, local, remote);
                    prop_assert_eq!(table.connect(handle, local, remote), expected);
                }
                Step::Disconnect(at) => {
                    let (handle, socket) = model.0[at % len];
                    prop_assert_eq!(table.disconnect(handle), socket.connection.is_some());
                    if socket.connection.is_some() {
                        model.set(at % len, None);
                    }
                }
            }
            prop_assert_eq!((table.len(), table.is_empty()), (model.0.len(), model.0.is_empty()));
            // Whoever has the room of one that is gone now.
            for &handle in &gone {
                prop_assert!(table.get(handle).is_none() && table.unbind(handle).is_none());
            }
        }
        let mut seen: Vec<_> = table.iter().copied().collect();
        seen.sort_by_key(|socket| socket.value);
        model.0.sort_by_key(|(_, socket)| socket.value);
        prop_assert_eq!(seen, model.0.into_iter().map(|(_, socket)| socket).collect::<Vec<_>>());
        // Nothing is left of those that are gone.
        prop_assert_eq!(table.exact_len, table.places.iter().filter(|members| !members.place.is_any()).count());
    }
}

fn v4(last: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 0, last), port).into()
}

#[test]
fn a_server_may_connect_sockets_of_its_port_to_clients() {
    let mut table = UdpTable::new(9, &mut Random::new(1));
    let any = Binding { address: BindAddress::AnyV4, port: 5 };
    table.bind(any, true, 0).unwrap();
    let child = table.bind(any, true, 1).unwrap();
    table.connect(child, v4(1, 5).ip(), v4(9, 7)).unwrap();
    assert_eq!(table.lookup(v4(1, 5), v4(9, 7)), Some(1));
    assert_eq!(table.lookup(v4(1, 5), v4(9, 8)), Some(0));
    assert_eq!(table.lookup(v4(2, 5), v4(9, 7)), Some(0));
    let other = table.bind(any, true, 2).unwrap();
    let refused = table.connect(other, v4(1, 5).ip(), v4(9, 7));
    assert_eq!(refused, Err(UdpConnectError::InUse { remote: v4(9, 7) }));
    assert!(table.disconnect(child));
    assert_eq!(table.lookup(v4(1, 5), v4(9, 7)), Some(1), "bound last");
}

#[test]
fn a_group_reaches_all_that_share_the_port() {
    let mut table = UdpTable::new(9, &mut Random::new(1));
    let group: SocketAddr = "224.0.0.251:5353".parse().unwrap();
    let at = |address| Binding { address, port: 5353 };
    table.bind(at(BindAddress::AnyV4), true, 1).unwrap();
    table.bind(at(BindAddress::Any), true, 2).unwrap();
    table.bind(at(BindAddress::Address(group.ip())), true, 3).unwrap();
    table.bind(at(BindAddress::Address(v4(1, 0).ip())), true, 4).unwrap();
    let refused = table.bind(at(BindAddress::AnyV4), false, 5);
    assert_eq!(refused, Err(BindError::InUse { binding: at(BindAddress::AnyV4) }));
    let mut all: Vec<u32> = table.lookup_all(group, v4(9, 5353)).collect();
    all.sort();
    assert_eq!(all, [1, 2, 3]);
    let all_v6: Vec<u32> =
        table.lookup_all("[ff02::fb]:5353".parse().unwrap(), "[fe80::1]:5353".parse().unwrap()).collect();
    assert_eq!(all_v6, [2]);
}
