//! Hosts and addresses that most scenarios have.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use smoltcp::time::{Duration, Instant};
use wirestack::EthernetAddress;
use wirestack::config::parse_cidr;
use wirestack::neighbor::AddressProbes;
use wirestack::random::Random;
use wirestack::shard::{ShardConfig, SocketId, UdpBind};
use wirestack_tests::sim::packets::Mac;
use wirestack_tests::sim::{App, LinkSpec, NicConfig, NodeId, Sim, Switch};

/// The hardware address of host `number`.
pub(crate) fn mac(number: u8) -> Mac {
    [2, 0, 0, 0, 0, number]
}

/// Host `number` of a link with one prefix of each version, whose addresses are ready at once.
pub(crate) fn host(number: u8) -> ShardConfig {
    let mut config = ShardConfig::new(EthernetAddress(mac(number)))
        .address(parse_cidr(&format!("10.0.0.{number}/24")).expect("an address"))
        .address(parse_cidr(&format!("fd00::{number:x}/64")).expect("an address"));
    config.neighbor.probes = AddressProbes::None;
    config
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

/// An address of host `number`, of either version.
pub(crate) fn host_ip(number: u8, is_v4: bool) -> IpAddr {
    if is_v4 { ip(&format!("10.0.0.{number}")) } else { ip(&format!("fd00::{number:x}")) }
}

pub(crate) fn any(is_v4: bool) -> SocketAddr {
    if is_v4 { at("0.0.0.0:0") } else { at("[::]:0") }
}

/// Hosts 1 to `count` at a switch.
pub(crate) fn star(sim: &mut Sim, count: u8, spec: LinkSpec) -> (NodeId, Vec<NodeId>) {
    let switch = sim.add_switch("switch", Switch::new(true));
    let hosts = (1..=count)
        .map(|number| {
            let id = sim.add_host(&format!("h{number}"), host(number), NicConfig::default(), 1);
            sim.connect(id, switch, spec);
            id
        })
        .collect();
    (switch, hosts)
}

/// Something that a test and an application share.
pub(crate) type Shared<T> = Rc<RefCell<T>>;

pub(crate) fn shared<T>(value: T) -> Shared<T> {
    Rc::new(RefCell::new(value))
}

/// Bytes by chance, as long as said and never twice the same.
pub(crate) fn payload(random: &mut Random, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

/// A server that sends every datagram back, and counts them.
pub(crate) fn echo_server(sim: &mut Sim, node: NodeId, seat: usize, port: u16) -> Shared<u64> {
    let count = shared(0);
    let counted = count.clone();
    let mut socket: Option<SocketId> = None;
    let app: App = Box::new(move |shard, context| {
        let id = *socket.get_or_insert_with(|| {
            shard.udp_bind(UdpBind::new(SocketAddr::new(ip("::"), port))).expect("the port is free")
        });
        while let Some((meta, payload)) = context.recv(shard, id) {
            *counted.borrow_mut() += 1;
            // What finds no room now is asked for again.
            let _ = context.send_to(shard, id, &payload, meta.src);
        }
        None
    });
    sim.set_app(node, seat, app);
    count
}

/// What came of a [`client`].
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// Requests that were answered.
    pub(crate) answered: usize,
    /// Requests that were sent, again ones included.
    pub(crate) tries: u64,
    /// Answers to what was answered already.
    pub(crate) again: u64,
}

/// A client that sends so many requests, one after the other, each until it is answered.
pub(crate) fn client(
    sim: &mut Sim,
    node: NodeId,
    to: SocketAddr,
    requests: usize,
    lens: std::ops::Range<u32>,
) -> Shared<Answers> {
    let answers = shared(Answers::default());
    let told = answers.clone();
    let mut random = sim.random().fork();
    let mut socket: Option<SocketId> = None;
    let mut waiting: Option<(Vec<u8>, Instant)> = None;
    let app: App = Box::new(move |shard, context| {
        let id = *socket
            .get_or_insert_with(|| shard.udp_bind(UdpBind::new(any(to.is_ipv4()))).expect("a port is free"));
        let mut told = told.borrow_mut();
        while let Some((_, payload)) = context.recv(shard, id) {
            if waiting.as_ref().is_some_and(|(request, _)| *request == payload) {
                waiting = None;
                told.answered += 1;
            } else {
                told.again += 1;
            }
        }
        if told.answered == requests {
            return None;
        }
        let (request, due) = waiting.get_or_insert_with(|| {
            let len = lens.start + random.below(lens.end - lens.start);
            (payload(&mut random, len as usize), context.now)
        });
        if *due <= context.now {
            told.tries += 1;
            // A lost request and one that was refused are the same to an application that asks again.
            let _ = context.send_to(shard, id, request, to);
            *due = context.now + Duration::from_millis(200);
        }
        Some(*due)
    });
    sim.set_app(node, 0, app);
    answers
}
