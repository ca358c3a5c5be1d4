//! Two stacks that are each other's neighbour.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use wirestack::EthernetAddress;
use wirestack::api::{Access, Shared, Stack};
use wirestack::driver::{Driver, Launch, Patience};
use wirestack::neighbor::AddressProbes;
use wirestack::nic::loopback::{Loopback, LoopbackConfig};
use wirestack::shard::ShardConfig;

/// Addresses of the first stack.
pub(crate) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// The same, of IPv6.
pub(crate) const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
/// Of the second.
pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
/// In the same network, and nobody's.
pub(crate) const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 77));
/// How long anything may take that ought to be quick, on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The configuration of the first (1) or second (2) stack. Its addresses can be used at once.
pub(crate) fn config(number: u8) -> ShardConfig {
    let mut config = ShardConfig::new(EthernetAddress([2, 0, 0, 0, 0, number]))
        .address(format!("10.0.0.{number}/24").parse().expect("an address"))
        .address(format!("fd00::{number}/64").parse().expect("an address"));
    config.neighbor.probes = AddressProbes::None;
    config.seed = number.into();
    config
}

/// The two ends of a wire.
pub(crate) fn devices() -> (Loopback<'static>, Loopback<'static>) {
    Loopback::pair(&LoopbackConfig::default()).expect("a pair of devices")
}

/// Runs a stack on a device, in a thread.
pub(crate) fn launch(config: ShardConfig, nic: Loopback<'static>) -> Driver {
    Launch::new(config).patience(Patience::Sleep).start(vec![nic]).expect("a stack")
}

/// Two stacks, each on its thread.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) server: Driver,
    pub(crate) client: Driver,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// The same, with both configurations changed.
    pub(crate) fn with(change: impl Fn(&mut ShardConfig)) -> Self {
        let (one, other) = devices();
        let config = |number| {
            let mut config = config(number);
            change(&mut config);
            config
        };
        Self { server: launch(config(1), one), client: launch(config(2), other) }
    }

    pub(crate) fn server(&self) -> &Stack<Shared> {
        self.server.stack()
    }

    pub(crate) fn client(&self) -> &Stack<Shared> {
        self.client.stack()
    }
}

/// Sockets that exist in a stack.
pub(crate) fn sockets_len<A: Access>(stack: &Stack<A>) -> usize {
    stack.shards().iter().map(|shard| shard.with(|hub| hub.shard_ref().sockets_len())).sum()
}

/// An address of the first stack.
pub(crate) fn at_server(port: u16) -> SocketAddr {
    SocketAddr::new(SERVER, port)
}

/// Bytes that differ from place to place.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}
