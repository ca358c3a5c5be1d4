//! A kernel between a shard and where it sends to: routes, path MTU, and what a router says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU16;

use wirestack::icmp::ErrorKind;
use wirestack::shard::{PingBind, PingOptions, SendOptions, SocketId, UdpBind};
use wirestack::udp::{Fragmenting, SendError};
use wirestack_apps::testbed::{Namespace, PEER_IPV4, PEER_IPV6, VethOptions, VethPair, Wire};
use wirestack_tests::runner::{Case, Failed, Outcome, note, require_program, veth_test};

use crate::shard_end::{End, at_peer, set_peer};
use crate::support::{LONG, noise};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let with = |cases| require_program("tshark", require_program("ip", cases));
    vec![
        with(veth_test("shard_mtu::far_hosts_are_reached_through_the_router", far_hosts)),
        with(veth_test("shard_mtu::a_shorter_link_behind_is_found", shorter_link)),
        with(veth_test("shard_mtu::who_sends_long_ones_is_told", told)),
        with(veth_test("shard_mtu::a_short_hop_limit_ends_at_the_router", hop_limit)),
    ]
}

/// Bytes of a packet on the far link.
const FAR_MTU: u32 = 1300;
const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, 0, 1);
const FAR: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 79, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, 0, 2))];

/// The peer's kernel as a router, with another one behind it.
struct Far {
    pair: VethPair,
}

impl Far {
    fn new(wire: &Wire) -> Result<Self, Failed> {
        let namespace = Namespace::new()?;
        let options = VethOptions { mtu: FAR_MTU, ..VethOptions::default() };
        let pair = VethPair::between(wire.peer().namespace(), &namespace, &options)?;
        pair.up()?;
        let [v4, v6] = FAR;
        for (end, address, len) in [
            (pair.a(), IpAddr::V4(ROUTER_V4), 24),
            (pair.a(), ROUTER_V6.into(), 64),
            (pair.b(), v4, 24),
            (pair.b(), v6, 64),
        ] {
            end.add_address(address, len)?;
        }
        set_peer(wire, &[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
        // No limit, so that each of several answers comes.
        set_peer(wire, &[("ipv4/icmp_ratemask", "0"), ("ipv6/icmp/ratelimit", "0")])?;
        let far = Self { pair };
        far.shell(&format!("ip route add default via {ROUTER_V4}; ip -6 route add default via {ROUTER_V6}"))?;
        Ok(far)
    }

    fn shell(&self, line: &str) -> std::io::Result<String> {
        let mut command = std::process::Command::new("sh");
        let namespace = self.pair.b().namespace();
        let ended = namespace.run(|| wirestack_tests::programs::output(command.args(["-ec", line]), LONG))?;
        Ok(ended.stdout)
    }

    fn socket(&self, address: IpAddr) -> Result<UdpSocket, Failed> {
        let socket = self.pair.b().namespace().run(|| UdpSocket::bind((address, 0)))?;
        socket.set_read_timeout(Some(LONG))?;
        Ok(socket)
    }
}

fn start(wire: &Wire) -> Result<End, Failed> {
    End::start_with(wire, |config| {
        config.gateways = vec![PEER_IPV4.into(), PEER_IPV6.into()];
    })
}

fn bind(end: &End, far: IpAddr, dont_fragment: Fragmenting) -> Result<SocketId, Failed> {
    let any: SocketAddr = if far.is_ipv4() { "0.0.0.0:0".parse()? } else { "[::]:0".parse()? };
    let mut bind = UdpBind::new(any);
    bind.options.dont_fragment = dont_fragment;
    bind.options.recv_errors = true;
    end.bind(bind)
}

fn far_hosts(wire: &Wire) -> Outcome {
    let far = Far::new(wire)?;
    let end = start(wire)?;
    end.echo(7)?;
    for address in FAR {
        crate::shard_neighbor::ping_from(&end, address, 3)?;
        let socket = bind(&end, address, Fragmenting::Allow)?;
        let kernel = far.socket(address)?;
        let to = kernel.local_addr()?;
        end.call(move |shard| shard.udp_send_to(socket, b"hello", to))??;
        let mut room = vec![0; 65_536];
        let (len, from) = kernel.recv_from(&mut room)?;
        assert_eq!(len, 5);
        // The other way, and back: the far kernel splits for its own link.
        for len in [1, 1252, 1300, 9000] {
            let bytes = noise(len as u64, len);
            kernel.send_to(&bytes, (from.ip(), 7))?;
            // What goes back may be too long for the far link the first time; nobody repeats a datagram.
            if len <= 1252 {
                let came = kernel.recv(&mut room)?;
                assert!(room[..came] == bytes, "{came} bytes came back");
            }
        }
    }
    let hops = at_peer(wire, "cat /proc/net/snmp | grep ^Ip: | tail -1")?;
    note(hops);
    end.finish()?;
    Ok(())
}

/// Fragments are what IPv6 needs then; IPv4 leaves it to the router, which may.
fn shorter_link(wire: &Wire) -> Outcome {
    let far = Far::new(wire)?;
    let end = start(wire)?;
    for address in FAR {
        note(format!("{address}"));
        let socket = bind(&end, address, Fragmenting::Allow)?;
        let kernel = far.socket(address)?;
        let to = kernel.local_addr()?;
        let bytes = noise(1, 1400);
        let sent = bytes.clone();
        end.call(move |shard| shard.udp_send_to(socket, &sent, to))??;
        if address.is_ipv6() {
            // The first one is lost, and we hear why.
            let error =
                end.until("the router says what is wrong", move |shard| shard.udp_take_error(socket))?;
            assert_eq!(error.kind, ErrorKind::TooBig { mtu: FAR_MTU });
            assert_eq!((error.from, error.dst), (PEER_IPV6.into(), to));
            let sent = bytes.clone();
            end.call(move |shard| shard.udp_send_to(socket, &sent, to))??;
        }
        let mut room = vec![0; 65_536];
        let came = kernel.recv(&mut room)?;
        assert!(room[..came] == bytes, "{came} bytes came");
        let longer = noise(2, 30_000);
        let sent = longer.clone();
        end.call(move |shard| shard.udp_send_to(socket, &sent, to))??;
        let came = kernel.recv(&mut room)?;
        assert!(room[..came] == longer, "{came} bytes came");
    }
    let record = end.finish()?;
    assert!(record.sent("ipv6.fraghdr")? > 20);
    assert_eq!(record.sent("ipv6.fraghdr && frame.len > 1314")?, 0);
    assert_eq!(record.received("icmpv6.type == 2")?, 1, "it is remembered");
    assert_eq!(record.received("icmp.type == 3")?, 0);
    Ok(())
}

/// Who forbids fragments learns what goes, and then that goes.
fn told(wire: &Wire) -> Outcome {
    let far = Far::new(wire)?;
    let end = start(wire)?;
    for address in FAR {
        note(format!("{address}"));
        let socket = bind(&end, address, Fragmenting::Forbid)?;
        let kernel = far.socket(address)?;
        let to = kernel.local_addr()?;
        end.call(move |shard| shard.udp_connect(socket, Some(to)))??;
        end.call(move |shard| shard.udp_send(socket, &[1; 1400]))??;
        let error = end.until("the router says what is wrong", move |shard| shard.udp_take_error(socket))?;
        assert_eq!(error.kind, ErrorKind::TooBig { mtu: FAR_MTU });
        let max = FAR_MTU as usize - 8 - if address.is_ipv4() { 20 } else { 40 };
        let refused = end.call(move |shard| shard.udp_send(socket, &[1; 1400]))?;
        assert_eq!(refused, Err(SendError::TooLong { max }));
        let (bytes, mut room) = (noise(3, max), [0; 2000]);
        let sent = bytes.clone();
        end.call(move |shard| shard.udp_send(socket, &sent))??;
        let came = kernel.recv(&mut room)?;
        assert!(room[..came] == bytes, "{came} bytes came");
        // Several in one, each of which goes.
        let options = SendOptions { segment_bytes: NonZeroU16::new(max as u16), ..SendOptions::default() };
        let many = noise(4, 20 * max);
        let sent = many.clone();
        end.call(move |shard| {
            shard.udp_send_with(socket, &options, sent.len(), |room| room.copy_from_slice(&sent))
        })??;
        for piece in many.chunks(max) {
            let came = kernel.recv(&mut room)?;
            assert!(room[..came] == *piece, "{came} bytes came");
        }
        // Who finds the path's MTU alone is not kept from trying.
        let prober = bind(&end, address, Fragmenting::Probe)?;
        end.call(move |shard| shard.udp_send_to(prober, &[1; 1400], to))??;
        let error = end.until("the same again", move |shard| shard.udp_take_error(prober))?;
        assert_eq!(error.kind, ErrorKind::TooBig { mtu: FAR_MTU });
    }
    let record = end.finish()?;
    assert_eq!(record.sent("udp && ip.flags.df == 0")?, 0);
    assert_eq!(record.sent("ip.frag_offset > 0 || ipv6.fraghdr")?, 0);
    Ok(())
}

/// What `traceroute` lives on.
fn hop_limit(wire: &Wire) -> Outcome {
    let far = Far::new(wire)?;
    let end = start(wire)?;
    for (address, router) in FAR.into_iter().zip([IpAddr::V4(PEER_IPV4), PEER_IPV6.into()]) {
        let socket = bind(&end, address, Fragmenting::Allow)?;
        let to = SocketAddr::new(address, 33_434);
        let send = move |end: &End, hop_limit: u8| {
            let options = SendOptions { to: Some(to), hop_limit: Some(hop_limit), ..SendOptions::default() };
            end.call(move |shard| shard.udp_send_with(socket, &options, 24, |room| room.fill(0)))
        };
        send(&end, 1)??;
        let error = end.until("the router answers", move |shard| shard.udp_take_error(socket))?;
        assert_eq!((error.kind, error.from, error.dst), (ErrorKind::TimeExceeded, router, to));
        send(&end, 2)??;
        let error = end.until("the far host answers", move |shard| shard.udp_take_error(socket))?;
        assert_eq!((error.kind, error.from, error.dst), (ErrorKind::PortUnreachable, address, to));
        let any = if address.is_ipv4() { "0.0.0.0" } else { "::" };
        let bind = PingBind::new(any.parse()?);
        let ping = end.call(move |shard| shard.ping_bind(bind))??;
        let options = PingOptions { hop_limit: Some(1), ..PingOptions::new(address, 5) };
        end.call(move |shard| shard.ping_send(ping, &options, b"how far?"))??;
        let error = end.until("the router answers", move |shard| shard.ping_take_error(ping))?;
        assert_eq!(
            (error.sequence, error.error.kind, error.error.from),
            (5, ErrorKind::TimeExceeded, router)
        );
    }
    // A network that the router does not know.
    let nowhere: IpAddr = "10.99.0.1".parse()?;
    let socket = bind(&end, nowhere, Fragmenting::Allow)?;
    end.call(move |shard| shard.udp_send_to(socket, b"hello", SocketAddr::new(nowhere, 9)))??;
    let error = end.until("the router knows no way", move |shard| shard.udp_take_error(socket))?;
    assert_eq!(error.kind, ErrorKind::NetUnreachable);
    drop(far);
    end.finish()?;
    Ok(())
}
