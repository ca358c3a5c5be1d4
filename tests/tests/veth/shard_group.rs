//! Groups: what a shard says of them to a kernel's bridge, and datagrams both ways.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::sys::socket::{IpMembershipRequest, Ipv6MembershipRequest, setsockopt, sockopt};
use wirestack::shard::{SocketId, UdpBind};
use wirestack_apps::testbed::{OURS_IPV4, OURS_IPV6, PEER_IPV4, PEER_IPV6, VethOptions, Wire, WireOptions};
use wirestack_tests::closing::close;
use wirestack_tests::runner::{Case, Failed, Outcome, note, require_program, veth_test, veth_test_with};

use crate::shard_end::{End, at_peer};
use crate::support::LONG;
use crate::talk::{shell, wait_until};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let with = |program, cases| require_program("tshark", require_program(program, cases));
    let linked = || WireOptions {
        veth: VethOptions { link_local: true, ..VethOptions::default() },
        ..WireOptions::default()
    };
    vec![
        with("ip", veth_test("shard_group::datagrams_reach_members_only", members_only)),
        with("ip", veth_test("shard_group::sources_are_filtered", sources)),
        with("ip", veth_test("shard_group::a_member_at_the_kernel_hears_us", kernel_hears)),
        with("bridge", veth_test_with("shard_group::a_switch_learns_who_is_in_a_group", linked, snooping)),
        with(
            "bridge",
            veth_test_with("shard_group::old_routers_are_answered_in_their_version", linked, old_routers),
        ),
    ]
}

const GROUPS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(239, 1, 2, 3)), IpAddr::V6(Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x77))];
const PORT: u16 = 5000;

fn any(group: IpAddr, port: u16) -> SocketAddr {
    let any: IpAddr =
        if group.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(any, port)
}

fn member(end: &End, group: IpAddr) -> Result<SocketId, Failed> {
    end.bind(UdpBind { reuse: true, ..UdpBind::new(any(group, PORT)) })
}

/// A socket of the kernel that sends to groups on the wire.
fn kernel_sender(wire: &Wire, group: IpAddr) -> Result<UdpSocket, Failed> {
    let local = if group.is_ipv4() { IpAddr::V4(PEER_IPV4) } else { PEER_IPV6.into() };
    let socket = wire.at_peer(|| UdpSocket::bind((local, 0)))?;
    socket.set_read_timeout(Some(LONG))?;
    setsockopt(&socket, sockopt::BindToDevice, &wire.peer().name().into())?;
    Ok(socket)
}

/// Groups of hardware addresses that our interface lets pass.
fn groups_of_device(wire: &Wire) -> io::Result<String> {
    shell(wire, &format!("ip maddr show dev {}", wire.ours().name()))
}

fn mac_of(group: IpAddr) -> &'static str {
    if group.is_ipv4() { "01:00:5e:01:02:03" } else { "33:33:00:00:00:77" }
}

fn members_only(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    for (group, ours) in GROUPS.into_iter().zip([IpAddr::V4(OURS_IPV4), OURS_IPV6.into()]) {
        note(format!("{group}"));
        let (inside, outside) = (member(&end, group)?, member(&end, group)?);
        end.call(move |shard| shard.udp_join(inside, group))??;
        // The device lets frames of the group pass.
        wait_until("the device is in the group", || Ok(groups_of_device(wire)?.contains(mac_of(group))))?;
        let kernel = kernel_sender(wire, group)?;
        kernel.send_to(b"to the group", (group, PORT))?;
        let (src, dst) =
            end.until("it comes", move |shard| shard.udp_recv_with(inside, |meta, _| (meta.src, meta.dst)))?;
        assert_eq!((src, dst), (kernel.local_addr()?, SocketAddr::new(group, PORT)));
        end.call(move |shard| shard.udp_leave(inside, group))??;
        wait_until("the device has left the group", || Ok(!groups_of_device(wire)?.contains(mac_of(group))))?;
        kernel.send_to(b"to those who are left", (group, PORT))?;
        // Comes behind it, so nothing is there that came before.
        kernel.send_to(b"to one", (ours, PORT))?;
        let last = end.until("the datagram to one comes", move |shard| {
            [inside, outside]
                .into_iter()
                .find_map(|socket| shard.udp_recv_with(socket, |meta, bytes| (meta.dst.ip(), bytes.to_vec())))
        })?;
        assert_eq!(last, (ours, b"to one".to_vec()));
    }
    let record = end.finish()?;
    // State changes of version 3 and 2, each sent twice at least; with the router alert, which tshark knows.
    let joined = "igmp.type == 0x22 && igmp.record_type == 4 && ip.dst == 224.0.0.22 && ip.ttl == 1 && ip.opt.type == 148";
    assert!(record.sent(&format!("{joined} && igmp.maddr == {}", GROUPS[0]))? >= 1);
    let joined = "icmpv6.type == 143 && icmpv6.mldr.mar.record_type == 4 && ipv6.dst == ff02::16 && ipv6.hlim == 1 && ipv6.opt.router_alert == 0";
    assert!(record.sent(&format!("{joined} && icmpv6.mldr.mar.multicast_address == {}", GROUPS[1]))? >= 1);
    let left = "igmp.type == 0x22 && igmp.record_type == 3";
    assert!(record.sent(&format!("{left} && igmp.maddr == {}", GROUPS[0]))? >= 1);
    let left = "icmpv6.type == 143 && icmpv6.mldr.mar.record_type == 3";
    assert!(record.sent(&format!("{left} && icmpv6.mldr.mar.multicast_address == {}", GROUPS[1]))? >= 1);
    // RFC 3810 section 5.2.13: never from an address that is not link-local.
    assert_eq!(record.sent(&format!("icmpv6.type == 143 && ipv6.src == {OURS_IPV6}"))?, 0);
    Ok(())
}

fn sources(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    let others = ["10.77.0.99".parse()?, "fd77::99".parse()?];
    let ends = [(IpAddr::V4(OURS_IPV4), IpAddr::V4(PEER_IPV4)), (OURS_IPV6.into(), PEER_IPV6.into())];
    for ((group, other), (ours, theirs)) in GROUPS.into_iter().zip(others).zip(ends) {
        note(format!("{group}"));
        let (wants, does_not) = (member(&end, group)?, member(&end, group)?);
        end.call(move |shard| shard.udp_join_source(wants, group, theirs))??;
        end.call(move |shard| shard.udp_join_source(does_not, group, other))??;
        let kernel = kernel_sender(wire, group)?;
        kernel.send_to(b"to the group", (group, PORT))?;
        assert_eq!(end.recv(wants)?.1, b"to the group");
        kernel.send_to(b"to one", (ours, PORT))?;
        // The last one that was bound gets what is for one.
        assert_eq!(end.recv(does_not)?.1, b"to one");
    }
    let record = end.finish()?;
    let allow = format!("igmp.type == 0x22 && igmp.maddr == {} && igmp.saddr == {PEER_IPV4}", GROUPS[0]);
    assert!(record.sent(&allow)? >= 1);
    let allow = format!("icmpv6.type == 143 && icmpv6.mldr.mar.source_address == {PEER_IPV6}");
    assert!(record.sent(&allow)? >= 1);
    Ok(())
}

fn kernel_hears(wire: &Wire) -> Outcome {
    let end = End::start(wire)?;
    for group in GROUPS {
        note(format!("{group}"));
        let kernel = wire.at_peer(|| UdpSocket::bind((any(group, PORT).ip(), PORT)))?;
        kernel.set_read_timeout(Some(LONG))?;
        match group {
            IpAddr::V4(v4) => {
                let request = IpMembershipRequest::new(v4, Some(PEER_IPV4));
                setsockopt(&kernel, sockopt::IpAddMembership, &request)?;
            }
            IpAddr::V6(v6) => {
                // The request of nix knows no interface; the route leads to the only one.
                at_peer(
                    wire,
                    &format!("ip -6 route replace ff05::/16 table local dev {}", wire.peer().name()),
                )?;
                setsockopt(&kernel, sockopt::Ipv6AddMembership, &Ipv6MembershipRequest::new(v6))?;
            }
        }
        let sender = end.bind(UdpBind::new(any(group, 0)))?;
        let to = SocketAddr::new(group, PORT);
        for len in [5, 4000] {
            end.call(move |shard| shard.udp_send_to(sender, &vec![7; len], to))??;
            let mut room = vec![0; 8000];
            let (came, from) = kernel.recv_from(&mut room)?;
            assert_eq!(came, len);
            let ours = if group.is_ipv4() { IpAddr::V4(OURS_IPV4) } else { OURS_IPV6.into() };
            assert_eq!(from.ip(), ours);
        }
        // The next one of IPv6 wants the port of IPv4 as well.
        close(wire.peer().namespace(), kernel)?;
    }
    let record = end.finish()?;
    let [v4, v6] = GROUPS;
    assert_eq!(record.sent(&format!("ip.dst == {v4} && !(eth.dst == 01:00:5e:01:02:03 && ip.ttl == 1)"))?, 0);
    assert_eq!(
        record.sent(&format!("ipv6.dst == {v6} && !(eth.dst == 33:33:00:00:00:77 && ipv6.hlim == 1)"))?,
        0
    );
    Ok(())
}

/// The peer's end becomes a port of a kernel's bridge, which looks at who wants what, and asks.
fn switch(wire: &Wire, options: &str) -> io::Result<()> {
    let port = wire.peer().name();
    at_peer(
        wire,
        &format!(
            "ip link add switch type bridge mcast_snooping 1 {options}
             ip addr flush dev {port}
             ip link set {port} master switch
             ip addr add {PEER_IPV4}/24 dev switch
             ip addr add {PEER_IPV6}/64 dev switch nodad
             ip link set switch up
             ip link set switch type bridge mcast_querier 1"
        ),
    )?;
    Ok(())
}

fn snooping(wire: &Wire) -> Outcome {
    // Queries each second or so, in hundredths of one.
    switch(
        wire,
        "mcast_igmp_version 3 mcast_mld_version 2 mcast_query_interval 200 mcast_query_response_interval 50 \
         mcast_startup_query_interval 100 mcast_last_member_interval 20 mcast_membership_interval 600",
    )?;
    let end = End::start(wire)?;
    let known = || at_peer(wire, "bridge mdb show dev switch");
    let mut members = Vec::new();
    for group in GROUPS {
        let socket = member(&end, group)?;
        end.call(move |shard| shard.udp_join(socket, group))??;
        members.push(socket);
        let words = format!("port {} grp {group} ", wire.peer().name());
        wait_until("the switch knows of the group", || Ok(known()?.contains(&words)))?;
    }
    // General queries are answered, so the switch goes on to know it.
    until_asked_again(&end)?;
    for (group, socket) in GROUPS.into_iter().zip(members) {
        end.call(move |shard| shard.udp_leave(socket, group))??;
        let words = format!("grp {group} ");
        wait_until("the switch forgets the group", || Ok(!known()?.contains(&words)))?;
    }
    let record = end.finish()?;
    assert!(record.received("igmp.type == 0x11 && ip.dst == 224.0.0.1")? >= 1);
    assert!(record.received("icmpv6.type == 130 && ipv6.dst == ff02::1")? >= 1);
    // Answers to a query are of type MODE_IS_EXCLUDE.
    assert!(
        record.sent(&format!("igmp.type == 0x22 && igmp.record_type == 2 && igmp.maddr == {}", GROUPS[0]))?
            >= 1
    );
    let current =
        format!("icmpv6.mldr.mar.record_type == 2 && icmpv6.mldr.mar.multicast_address == {}", GROUPS[1]);
    assert!(record.sent(&current)? >= 1);
    Ok(())
}

/// Until two rounds of queries have come, of each version of IP, since now: the next one comes after the answers.
fn until_asked_again(end: &End) -> Outcome {
    let before = end.call(|shard| shard.counters().delivered)?;
    end.until("queries have been answered", move |shard| {
        (shard.counters().delivered >= before + 6).then_some(())
    })
}

fn old_routers(wire: &Wire) -> Outcome {
    switch(
        wire,
        "mcast_igmp_version 2 mcast_mld_version 1 mcast_query_interval 200 mcast_query_response_interval 50 \
         mcast_startup_query_interval 100 mcast_last_member_interval 20",
    )?;
    let end = End::start(wire)?;
    let [v4, v6] = GROUPS;
    let mut members = Vec::new();
    for group in GROUPS {
        let socket = member(&end, group)?;
        end.call(move |shard| shard.udp_join(socket, group))??;
        members.push(socket);
    }
    until_asked_again(&end)?;
    for (group, socket) in GROUPS.into_iter().zip(members) {
        end.call(move |shard| shard.udp_leave(socket, group))??;
        let words = format!("grp {group} ");
        wait_until("the switch forgets the group", || {
            Ok(!at_peer(wire, "bridge mdb show dev switch")?.contains(&words))
        })?;
    }
    let record = end.finish()?;
    assert!(
        record.sent(&format!("igmp.type == 0x16 && ip.dst == {v4} && igmp.maddr == {v4}"))? >= 1,
        "IGMPv2 report"
    );
    assert!(
        record.sent(&format!("igmp.type == 0x17 && ip.dst == 224.0.0.2 && igmp.maddr == {v4}"))? >= 1,
        "leave"
    );
    assert!(record.sent(&format!("icmpv6.type == 131 && ipv6.dst == {v6}"))? >= 1, "MLDv1 report");
    assert!(record.sent("icmpv6.type == 132 && ipv6.dst == ff02::2")? >= 1, "done");
    Ok(())
}
