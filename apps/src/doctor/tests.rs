use std::net::IpAddr;

use wirestack::EthernetAddress;
use wirestack::nic::Interface;
use wirestack::nic::error::Step;
use wirestack::nic::ethtool::Offload;
use wirestack::nic::suppress::Need;

use super::facts::{Problem, Queues, effective};
use super::sockets::{Other, inodes};
use super::*;

/// A finding, its verdict, and the words that must be in its line.
fn check(cases: Vec<(Finding, Verdict, &[&str])>) {
    for (finding, verdict, words) in cases {
        let line = finding.to_string();
        assert_eq!((finding.verdict, line.lines().count()), (verdict, 1), "{line}");
        for word in words {
            assert!(line.contains(word), "{word:?} is missing in {line:?}");
        }
        // Whoever is told that something fails is told what helps.
        assert!(verdict != Verdict::Fail || finding.fix.is_some(), "{line}");
    }
}

fn interface() -> Interface {
    Interface {
        name: "eth0".to_owned(),
        index: 3,
        mtu: 1_500,
        mac: EthernetAddress([2, 0, 0, 0, 0, 7]),
        up: true,
        ethernet: true,
    }
}

fn problem(step: Step, text: &str) -> Problem {
    Problem { step, text: text.to_owned(), is_permission: false }
}

fn denied() -> Problem {
    Problem { is_permission: true, ..problem(Step::Socket, "Operation not permitted") }
}

#[test]
fn kernels_and_privileges() {
    use Verdict::{Fail, Ok, Warn};
    check(vec![
        (judge::kernel("6.18.0-generic"), Ok, &["ok    kernel: Linux 6.18.0-generic"]),
        (judge::kernel("5.12"), Ok, &[]),
        (judge::kernel("5.11.9"), Warn, &["--suppress iptables"]),
        (judge::kernel("4.19.1"), Fail, &["too old", "5.12"]),
        (judge::kernel(""), Warn, &["no version"]),
        (judge::raw(true, "/x"), Ok, &[]),
        (
            judge::raw(false, "/bin/wire stack"),
            Fail,
            &["fix: sudo setcap cap_net_raw,cap_net_admin+ep '/bin/wire stack'"],
        ),
        (judge::admin(true, true, "/x"), Ok, &[]),
        (judge::admin(false, true, "/x"), Fail, &["cannot be kept silent", "setcap"]),
        (judge::admin(false, false, "/x"), Warn, &["enough as long as", "setcap"]),
    ]);
    assert_eq!(effective("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
    assert_eq!([effective("CapEff:\tx\n"), effective("")], [None, None]);
}

#[test]
fn interfaces() {
    use Verdict::{Fail, Ok, Warn};
    let with = |change: fn(&mut Interface)| {
        let mut interface = interface();
        change(&mut interface);
        interface
    };
    let down = with(|interface| interface.up = false);
    let tun = with(|interface| interface.ethernet = false);
    let loopback = with(|interface| interface.mac = EthernetAddress([0; 6]));
    check(vec![
        (judge::interface("eth0", &Result::Ok(interface())), Ok, &["eth0, number 3"]),
        (
            judge::interface("eth9", &Err("No such device".to_owned())),
            Fail,
            &["eth9: No such device", "ip link"],
        ),
        (judge::interface("tun0", &Result::Ok(tun)), Fail, &["no Ethernet", "--nic tun:tun0"]),
        (judge::link(&interface(), true), Ok, &[]),
        (judge::link(&interface(), false), Fail, &["no carrier"]),
        (judge::link(&down, false), Fail, &["fix: sudo ip link set dev eth0 up"]),
        (judge::mtu(&interface()), Ok, &["1500 bytes"]),
        (judge::mtu(&with(|interface| interface.mtu = 1_000)), Warn, &["IPv6 needs 1280", "mtu 1500"]),
        (judge::mtu(&with(|interface| interface.mtu = 68)), Fail, &["mtu 1500"]),
        (judge::hardware_address(&interface()), Ok, &["02:00:00:00:00:07"]),
        (judge::hardware_address(&loopback), Warn, &["--mac"]),
    ]);
}

#[test]
fn devices() {
    use Verdict::{Fail, Ok, Warn};
    let opened = || Result::Ok("RX ring TPACKET_V2".to_owned());
    let offloads = |states: &[(Offload, bool)]| Result::Ok(states.to_vec());
    check(vec![
        (
            judge::offloads("eth0", &offloads(&[(Offload::Gro, true), (Offload::Lro, false)])),
            Ok,
            &["on: gro"],
        ),
        (
            judge::offloads(
                "eth0",
                &offloads(&[(Offload::Gro, false), (Offload::Tso, false), (Offload::Gso, true)]),
            ),
            Warn,
            &["generic-receive-offload", "fix: sudo ethtool -K eth0 gro on tso on"],
        ),
        (judge::offloads("eth0", &Err("no".to_owned())), Warn, &["does not tell"]),
        (judge::ring(&opened(), 0), Ok, &["TPACKET_V2"]),
        (judge::ring(&Err(denied()), 0), Warn, &["not tried", "CAP_NET_RAW"]),
        (judge::ring(&Err(problem(Step::Interface, "down")), 0), Warn, &["not up"]),
        (
            judge::ring(&Err(problem(Step::Map, "again")), 65_536),
            Fail,
            &["65536 bytes may be locked", "ulimit -l"],
        ),
        (judge::ring(&Err(problem(Step::Rings, "memory")), 0), Fail, &["--device burst=500"]),
        (judge::ring(&Err(problem(Step::Bind, "odd")), 0), Fail, &["--device rx=recv"]),
        (judge::vnet_hdr(&opened(), None), Ok, &[]),
        (
            judge::vnet_hdr(&Err(problem(Step::Options, "invalid")), Some(&opened())),
            Fail,
            &["invalid", "--device vnet_hdr=off"],
        ),
        (judge::vnet_hdr(&Err(denied()), Some(&Err(denied()))), Warn, &["not tried"]),
        (
            judge::vnet_hdr(&Err(problem(Step::Map, "x")), Some(&Err(problem(Step::Map, "x")))),
            Warn,
            &["not tried"],
        ),
        (judge::fanout(&opened()), Ok, &[]),
        (judge::fanout(&Err(denied())), Warn, &["not tried"]),
        (judge::fanout(&Err(problem(Step::Fanout, "no"))), Warn, &["one shard"]),
    ]);
}

#[test]
fn queues_and_processors() {
    use Verdict::{Ok, Warn};
    let queues = |cpus, proposed| Result::Ok(Queues { rx: 2, tx: 1, irqs: 3, cpus, has_rps: true, proposed });
    check(vec![
        (judge::queues("eth0", &queues(2, 0)), Ok, &["2 RX and 1 TX queues, 3 interrupts, RPS on"]),
        (
            judge::queues("eth0", &queues(2, 4)),
            Warn,
            &["4 settings", "wirestack tune --nic packet:eth0 --apply"],
        ),
        (judge::queues("eth0", &Err("hidden".to_owned())), Warn, &["hidden"]),
        (judge::cpus(&queues(4, 0)), Ok, &["4, for as many shards"]),
        (judge::cpus(&queues(1, 0)), Warn, &["one shard"]),
        (judge::governor(&[]), Ok, &["not visible"]),
        (judge::governor(&["performance".to_owned()]), Ok, &["performance"]),
        (judge::governor(&["powersave".to_owned()]), Warn, &["cpupower frequency-set -g performance"]),
        (judge::descriptors(1_024), Ok, &[]),
        (judge::descriptors(256), Warn, &["ulimit -n"]),
        (judge::descriptors(10), Verdict::Fail, &["ulimit -n"]),
    ]);
}

#[test]
fn the_kernel_beside_us() {
    use Verdict::{Fail, Ok, Warn};
    let ip = IpAddr::from([192, 0, 2, 7]);
    let other = |pid, name: &str| Other { pid, name: name.to_owned() };
    let tcpdump = || [other(Some(7), "tcpdump")];
    check(vec![
        (judge::address_of("eth0", ip, &Result::Ok(Need::None), 80), Ok, &["192.0.2.7"]),
        (
            judge::address_of("eth0", ip, &Result::Ok(Need::KernelOwnsAddress), 8_080),
            Warn,
            &["192.0.2.7", "iptables", "8080", "eth0", "--suppress nft"],
        ),
        (
            judge::address_of("eth0", ip, &Result::Ok(Need::KernelForwards), 80),
            Warn,
            &["forwards", "iptables"],
        ),
        (judge::address_of("eth0", ip, &Err("odd".to_owned()), 80), Warn, &["odd"]),
        (judge::suppression(Some(&Result::Ok(())), false), Ok, &["nftables"]),
        (judge::suppression(Some(&Err("no".to_owned())), true), Warn, &["--suppress iptables"]),
        (judge::suppression(Some(&Err("no".to_owned())), false), Fail, &["modprobe nf_tables"]),
        (judge::suppression(None, true), Warn, &["could not be tried"]),
        (judge::suppression(None, false), Warn, &["could not be tried", "sudo"]),
        (judge::forwarding([false, false]), Ok, &[]),
        (
            judge::forwarding([true, true]),
            Warn,
            &["net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0", "--mac"],
        ),
        (judge::rp_filter(1), Ok, &["strict"]),
        (judge::dhcp(&tcpdump()), Ok, &[]),
        (judge::dhcp(&[other(Some(9), "dhclient")]), Warn, &["dhclient", "--mac"]),
        (judge::packet_sockets(&[]), Ok, &["none"]),
        (judge::packet_sockets(&tcpdump()), Warn, &["tcpdump (7)", "kill 7"]),
        (judge::packet_sockets(&[other(None, "")]), Warn, &["not ours to see"]),
        (judge::tun(&Result::Ok(())), Ok, &[]),
        (judge::tun(&Err("No such file".to_owned())), Warn, &["modprobe tun"]),
        (judge::nfqueue(true), Ok, &[]),
        (judge::nfqueue(false), Warn, &["modprobe nfnetlink_queue"]),
        (judge::af_xdp(true), Ok, &[]),
        (judge::af_xdp(false), Ok, &["has it not"]),
    ]);
}

#[test]
fn packet_sockets_are_those_that_take_frames_of_the_interface() {
    let text = "\
sk               RefCnt Type Proto  Iface R Rmem   User   Inode
00000000b4a5c6d7 3      3    0003   2     1 0      0      111
00000000b4a5c6d8 3      3    0003   0     1 0      0      222
00000000b4a5c6d9 3      3    0003   4     1 0      0      333
00000000b4a5c6da 3      3    0000   2     1 0      0      444
00000000b4a5c6db 3      2    0800   2     1 0      0      555
short
";
    let mut found: Vec<_> = inodes(text, 2).into_iter().collect();
    found.sort_unstable();
    assert_eq!(found, [111, 222, 555]);
    assert!(inodes("", 2).is_empty());
}
