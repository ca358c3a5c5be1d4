//! Devices for which the kernel need not be silenced: TAP and TUN, where the kernel is the peer, and
//! netfilter queues, whose packets it has handed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;
use wirestack::config::HostConfig;
use wirestack::nic::claim::{Claim, Protocol};
use wirestack::nic::tap::TapKind;
use wirestack::nic::{Interface, NfQueue, NfQueueConfig, Nic as _, Tap, TapConfig};
use wirestack::{EthernetAddress, IpCidr};

use crate::cli::HostArgs;
use crate::control::Control;
use crate::error::AppError;
use crate::net::{self, Link, Net};
use crate::privileges::Keep;
use crate::reserve::{self, Reservation};
use crate::serve::{Stop, print};
use crate::setup::{NicProgram, Ports, Prepared, Wrap, open_pcap};

/// Prepares a program on a TAP or TUN interface, and runs it.
pub(crate) fn start_tap(
    args: &HostArgs,
    (kind, name, vnet_hdr): (TapKind, &str, bool),
    program: impl NicProgram,
) -> Result<(), AppError> {
    net::check(args, &net::host_config(args, ANY_MAC))?;
    net::no_rings(args)?;
    net::one_shard(args, program.shards())?;
    for cidr in &args.static_addresses() {
        if let Some(owner) = owner(cidr.address().into()) {
            let problem = format_args!(
                "the kernel has it on {owner} and would talk to itself; give the stack one of its own"
            );
            return Err(AppError::flag("--address", cidr, problem));
        }
    }
    if args.show_recipe {
        print("# once the program runs, the kernel's end needs addresses of its own, such as:");
        for cidr in &args.static_addresses() {
            print(format_args!("ip address add {} dev {name}", neighbour(*cidr)));
        }
        return Ok(());
    }
    let failed = |problem: &dyn std::fmt::Display| AppError::flag("--nic", &args.nic, problem);
    let config = TapConfig { vnet_hdr, ..TapConfig::new(kind) };
    let nic = Tap::open(name, config).map_err(|error| failed(&error))?;
    if args.mac.is_some_and(|mac| mac == nic.peer_mac()) {
        let problem = format_args!("the kernel's end of {name} has it; leave --mac out");
        return Err(AppError::flag("--mac", nic.peer_mac(), problem));
    }
    let mut config = net::host_config(args, nic.suggested_mac());
    // It is made of a hardware address, which a TUN has not.
    config.takes_link_local = kind == TapKind::Tap;
    let (seed, mac) = (config.seed, config.mac);
    let link = if kind == TapKind::Tap { Link::Ethernet } else { Link::Ip };
    let net = Net::new(args, config, link)?;
    let _reservation = Reservation::take(nic.interface(), &args.static_addresses(), &[])?;
    let _leases = reserve::leases(args, nic.interface(), mac)?;
    let pcap = args.pcap.as_deref().map(open_pcap).transpose()?;
    let control = Control::open(args.control.as_deref())?;
    let stop = Stop::on_signals(nic.waker())?;
    let wrap = Wrap { impair: args.impair, pcap, name, seed };
    wrap.run(
        vec![nic],
        Prepared {
            net,
            stop,
            json: args.json,
            about: None,
            control,
            name: args.nic.to_string(),
            keep: Keep::Nothing,
        },
        program,
    )
}

/// Prepares a program on the packets of a netfilter queue, and runs it.
pub(crate) fn start_nfqueue(
    args: &HostArgs,
    number: u16,
    queue: NfQueueConfig<'static>,
    ports: Ports,
    program: impl NicProgram,
) -> Result<(), AppError> {
    let mut config = net::host_config(args, ANY_MAC);
    net::check(args, &config)?;
    config.takes_link_local = false;
    let seed = config.seed;
    let net = Net::new(args, config, Link::Queue)?;
    net::no_rings(args)?;
    net::one_shard(args, program.shards())?;
    if args.show_recipe {
        print_nfqueue_recipe(args, number, &ports);
        return Ok(());
    }
    // Of addresses that the kernel has, other programs must not get the port; others are ours alone.
    let mut claims = Vec::new();
    let mut mtu = queue.mtu;
    for cidr in args.static_addresses() {
        let address = IpAddr::from(cidr.address());
        let Some(owner) = owner(address) else { continue };
        mtu = Interface::by_name(&owner).map_or(mtu, |interface| interface.mtu.min(usize::from(u16::MAX)));
        for &protocol in ports.protocols {
            let served = ports.served.iter().map(|&port| Claim::ports(address, protocol, port..=port));
            claims.extend(served);
        }
    }
    let name = args.nic.to_string();
    let nic = NfQueue::open(number, NfQueueConfig { mtu, ..queue })
        .map_err(|error| AppError::flag("--nic", &name, error))?;
    // Not an interface; this is how it is called where one is expected.
    let anywhere = Interface { name: name.clone(), index: 0, mtu, mac: ANY_MAC, up: true, ethernet: false };
    let _reservation = Reservation::take(&anywhere, &args.static_addresses(), &claims)?;
    let pcap = args.pcap.as_deref().map(open_pcap).transpose()?;
    let control = Control::open(args.control.as_deref())?;
    let stop = Stop::on_signals(nic.waker())?;
    let wrap = Wrap { impair: args.impair, pcap, name: &name, seed };
    wrap.run(
        vec![nic],
        Prepared {
            net,
            stop,
            json: args.json,
            about: None,
            control,
            name: args.nic.to_string(),
            keep: Keep::NetAdmin,
        },
        program,
    )
}

/// Prints the rules that hand the packets of a program over, and take them back.
fn print_nfqueue_recipe(args: &HostArgs, number: u16, ports: &Ports) {
    for (action, comment) in [("-I", None), ("-D", Some("# and afterwards:"))] {
        comment.into_iter().for_each(print);
        for cidr in args.static_addresses() {
            let address = IpAddr::from(cidr.address());
            let command = if address.is_ipv4() { "iptables" } else { "ip6tables" };
            let rule = |protocol: &str, ports: &str| {
                print(format_args!(
                    "{command} -w 5 -t raw {action} PREROUTING -d {address} -p {protocol} --dport {ports} \
                     -j NFQUEUE --queue-num {number}"
                ));
            };
            for protocol in ports.protocols {
                let protocol = match protocol {
                    Protocol::Tcp => "tcp",
                    Protocol::Udp => "udp",
                };
                ports.served.iter().for_each(|port| rule(protocol, &port.to_string()));
            }
        }
    }
}

/// Name of the interface on which the kernel has an address.
fn owner(address: IpAddr) -> Option<String> {
    let mut all = getifaddrs().ok()?;
    all.find_map(|interface| {
        let storage = interface.address?;
        let found = match address {
            IpAddr::V4(_) => IpAddr::V4(storage.as_sockaddr_in()?.ip()),
            IpAddr::V6(_) => IpAddr::V6(storage.as_sockaddr_in6()?.ip()),
        };
        (found == address).then_some(interface.interface_name)
    })
}

/// Another address of the same prefix that a host can have.
fn neighbour(cidr: IpCidr) -> IpCidr {
    let flipped = |bits: u8| match IpAddr::from(cidr.address()) {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() ^ u32::from(bits))),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() ^ u128::from(bits))),
    };
    let candidates = [3, 1, 2].map(|bits| IpCidr::new(flipped(bits).into(), cidr.prefix_len()));
    let is_good = |candidate: &IpCidr| HostConfig::new(ANY_MAC).address(*candidate).check().is_ok();
    candidates.into_iter().find(is_good).unwrap_or(cidr)
}

/// In the place of one that does not matter.
const ANY_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
