//! What the facts mean. Nothing here looks at the system.

use std::net::IpAddr;

use wirestack::nic::Interface;
use wirestack::nic::claim::{Claim, Protocol};
use wirestack::nic::error::Step;
use wirestack::nic::ethtool::Offload;
use wirestack::nic::suppress::{self, Need};

use super::Finding;
use super::args::DoctorArgs;
use super::facts::{Facts, Problem, Queues};
use super::sockets::Other;

/// All checks, in the order in which a person would mend things.
pub(super) fn all(facts: &Facts, args: &DoctorArgs) -> Vec<Finding> {
    let name = &args.nic;
    let has = |capability: u32| facts.capabilities >> capability & 1 == 1;
    let needs_rules = facts.needs.iter().any(|(_, need)| matches!(need, Ok(need) if *need != Need::None));
    let mut findings = vec![
        kernel(&facts.release),
        raw(has(CAP_NET_RAW), &facts.program),
        admin(has(CAP_NET_ADMIN), needs_rules, &facts.program),
        interface(name, &facts.interface),
    ];
    if let Ok(interface) = &facts.interface {
        findings.extend([
            link(interface, facts.has_carrier),
            mtu(interface),
            hardware_address(interface),
            offloads(name, &facts.offloads),
            ring(&facts.ring, facts.memlock_bytes_max),
            vnet_hdr(&facts.ring, facts.without_vnet_hdr.as_ref()),
            fanout(&facts.fanout),
            queues(name, &facts.queues),
            cpus(&facts.queues),
        ]);
        for (address, need) in &facts.needs {
            findings.push(address_of(name, *address, need, args.port));
        }
        if needs_rules {
            findings.push(suppression(facts.nft.as_ref(), facts.has_iptables));
        }
        findings.extend([
            forwarding(facts.forwarding),
            rp_filter(facts.rp_filter),
            dhcp(&facts.others),
            packet_sockets(&facts.others),
        ]);
    }
    findings.extend([
        tun(&facts.tun),
        nfqueue(facts.has_nfqueue),
        af_xdp(facts.has_af_xdp),
        descriptors(facts.descriptors_max),
        governor(&facts.governors),
    ]);
    findings
}

/// Major and minor number of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub(super) fn kernel(release: &str) -> Finding {
    match version(release) {
        None => Finding::warn("kernel", format_args!("{release:?} is no version that is known")),
        Some(version) if version >= (5, 12) => Finding::ok("kernel", format_args!("Linux {release}")),
        Some(version) if version >= (4, 20) => {
            let found = format_args!("Linux {release}: rules of nftables that end with a program need 5.12");
            Finding::warn("kernel", found).fix("give the programs --suppress iptables")
        }
        Some(_) => Finding::fail("kernel", format_args!("Linux {release} is too old"))
            .fix("boot Linux 5.12 or newer"),
    }
}

fn setcap(program: &str) -> String {
    format!("sudo setcap cap_net_raw,cap_net_admin+ep '{program}'")
}

pub(super) fn raw(has: bool, program: &str) -> Finding {
    if has {
        return Finding::ok("CAP_NET_RAW", "packet sockets may be opened");
    }
    Finding::fail("CAP_NET_RAW", "missing: no packet socket can be opened").fix(setcap(program))
}

pub(super) fn admin(has: bool, needs_rules: bool, program: &str) -> Finding {
    let check = "CAP_NET_ADMIN";
    match (has, needs_rules) {
        (true, _) => Finding::ok(check, "rules against the kernel and long queues may be made"),
        (false, true) => {
            Finding::fail(check, "missing: the kernel cannot be kept silent for an address that it has too")
                .fix(setcap(program))
        }
        (false, false) => {
            let found =
                "missing: enough as long as the kernel has none of our addresses and forwards nothing";
            Finding::warn(check, found).fix(setcap(program))
        }
    }
}

pub(super) fn interface(name: &str, found: &Result<Interface, String>) -> Finding {
    match found {
        Err(error) => Finding::fail("interface", format_args!("{name}: {error}"))
            .fix("ip link, which lists those of this network namespace"),
        Ok(interface) if !interface.ethernet => {
            Finding::fail("interface", format_args!("{name} is no Ethernet interface"))
                .fix(format_args!("give the programs --nic tun:{name} if it is a TUN, or another interface"))
        }
        Ok(interface) => Finding::ok("interface", format_args!("{name}, number {}", interface.index)),
    }
}

pub(super) fn link(interface: &Interface, has_carrier: bool) -> Finding {
    let name = &interface.name;
    match (interface.up, has_carrier) {
        (false, _) => Finding::fail("link", format_args!("{name} is down"))
            .fix(format_args!("sudo ip link set dev {name} up")),
        (true, false) => Finding::fail("link", format_args!("{name} is up, and has no carrier"))
            .fix("plug in the cable, or set the other end up"),
        (true, true) => Finding::ok("link", "up, with a carrier"),
    }
}

pub(super) fn mtu(interface: &Interface) -> Finding {
    let (mtu, name) = (interface.mtu, &interface.name);
    match mtu {
        1_280.. => Finding::ok("MTU", format_args!("{mtu} bytes")),
        576.. => Finding::warn("MTU", format_args!("{mtu} bytes: IPv6 needs 1280 (RFC 8200 section 5)"))
            .fix(format_args!("sudo ip link set dev {name} mtu 1500")),
        _ => Finding::fail("MTU", format_args!("{mtu} bytes are too few"))
            .fix(format_args!("sudo ip link set dev {name} mtu 1500")),
    }
}

pub(super) fn hardware_address(interface: &Interface) -> Finding {
    let mac = interface.mac;
    let text = mac.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
    if mac.is_unicast() && mac.as_bytes() != [0; 6] {
        return Finding::ok("hardware address", text);
    }
    Finding::warn("hardware address", format_args!("{text} is that of no station"))
        .fix("give the programs --mac 02:00:00:00:00:01")
}

pub(super) fn offloads(name: &str, found: &Result<Vec<(Offload, bool)>, String>) -> Finding {
    let check = "offloads";
    let all = match found {
        Ok(all) => all,
        Err(error) => return Finding::warn(check, format_args!("the interface does not tell: {error}")),
    };
    let short = |offload: Offload| match offload {
        Offload::RxChecksum => "rx",
        Offload::TxChecksum => "tx",
        Offload::ScatterGather => "sg",
        Offload::Tso => "tso",
        Offload::Gso => "gso",
        Offload::Gro => "gro",
        Offload::Lro => "lro",
    };
    let off: Vec<_> = all.iter().filter(|(offload, on)| !on && *offload != Offload::Lro).collect();
    if !off.is_empty() {
        let names: Vec<_> = off.iter().map(|(offload, _)| offload.to_string()).collect();
        let flags: Vec<_> = off.iter().map(|(offload, _)| format!("{} on", short(*offload))).collect();
        let found = format_args!("off: {}; each segment is a frame of its own then", names.join(", "));
        return Finding::warn(check, found).fix(format_args!("sudo ethtool -K {name} {}", flags.join(" ")));
    }
    let on: Vec<_> = all.iter().filter(|(_, on)| *on).map(|(offload, _)| short(*offload)).collect();
    Finding::ok(check, format_args!("on: {}", if on.is_empty() { "none".to_owned() } else { on.join(", ") }))
}

/// What could not be tried for a reason that another check tells.
fn untried(check: &'static str, problem: &Problem) -> Option<Finding> {
    if problem.is_permission && problem.step == Step::Socket {
        return Some(Finding::warn(check, "not tried, for want of CAP_NET_RAW"));
    }
    (problem.step == Step::Interface)
        .then(|| Finding::warn(check, "not tried, since the interface is not up"))
}

pub(super) fn ring(opened: &Result<String, Problem>, memlock_bytes_max: u64) -> Finding {
    let problem = match opened {
        Ok(shape) => return Finding::ok("rings", format_args!("opened: {shape}")),
        Err(problem) => problem,
    };
    if let Some(untried) = untried("rings", problem) {
        return untried;
    }
    let Problem { step, text, .. } = problem;
    match step {
        Step::Map => Finding::fail(
            "rings",
            format_args!("cannot {step}: {text}; {memlock_bytes_max} bytes may be locked"),
        )
        .fix("ulimit -l unlimited, or give the programs --device burst=500"),
        Step::Rings | Step::Geometry => Finding::fail("rings", format_args!("cannot {step}: {text}"))
            .fix("give the programs --device burst=500, or --device rx=recv"),
        // The next check says more.
        Step::Options => Finding::warn("rings", format_args!("cannot {step}: {text}")),
        _ => Finding::fail("rings", format_args!("cannot {step}: {text}"))
            .fix("give the programs --device rx=recv"),
    }
}

pub(super) fn vnet_hdr(with: &Result<String, Problem>, without: Option<&Result<String, Problem>>) -> Finding {
    let check = "virtio_net_hdr";
    match (with, without) {
        (Ok(_), _) => Finding::ok(check, "super-frames and absent checksums pass as they are"),
        (Err(problem), Some(Ok(_))) => {
            Finding::fail(check, format_args!("refused by this kernel or interface: {}", problem.text))
                .fix("give the programs --device vnet_hdr=off")
        }
        (Err(problem), _) => untried(check, problem)
            .unwrap_or_else(|| Finding::warn(check, "not tried, since no ring could be opened")),
    }
}

pub(super) fn fanout(joined: &Result<String, Problem>) -> Finding {
    match joined {
        Ok(_) => Finding::ok("fanout", "several shards can share the interface"),
        Err(problem) => untried("fanout", problem).unwrap_or_else(|| {
            let found = format_args!("cannot {}: {}: one shard only", problem.step, problem.text);
            Finding::warn("fanout", found).fix("boot a kernel with CONFIG_PACKET and BPF, or run one shard")
        }),
    }
}

pub(super) fn queues(name: &str, found: &Result<Queues, String>) -> Finding {
    let check = "queues and interrupts";
    match found {
        Err(error) => Finding::warn(check, format_args!("not looked at: {error}"))
            .fix(format_args!("sudo wirestack doctor --nic packet:{name}")),
        Ok(Queues { rx, tx, irqs, has_rps, proposed, .. }) => {
            let rps = if *has_rps { "on" } else { "off" };
            let found = format!("{rx} RX and {tx} TX queues, {irqs} interrupts, RPS {rps}");
            match proposed {
                0 => Finding::ok(check, found),
                _ => Finding::warn(check, format_args!("{found}; {proposed} settings could be better"))
                    .fix(format_args!("sudo wirestack tune --nic packet:{name} --apply")),
            }
        }
    }
}

pub(super) fn cpus(found: &Result<Queues, String>) -> Finding {
    match found {
        Err(_) => Finding::warn("CPUs", "not counted"),
        Ok(Queues { cpus: 1, .. }) => Finding::warn("CPUs", "one: the kernel's part and ours take turns")
            .fix("run one shard, without --busy-poll"),
        Ok(Queues { cpus, .. }) => Finding::ok("CPUs", format_args!("{cpus}, for as many shards at most")),
    }
}

pub(super) fn address_of(name: &str, address: IpAddr, need: &Result<Need, String>, port: u16) -> Finding {
    let check = "address";
    let recipe = |claims: &[Claim]| {
        let commands = suppress::recipe(name, claims).join(" && ");
        format!("none needed with --suppress nft, the default; with --suppress none: {commands}")
    };
    match need {
        Err(error) => Finding::warn(check, format_args!("{address}: {error}")),
        Ok(Need::None) => Finding::ok(check, format_args!("{address}: the kernel is silent for it")),
        Ok(Need::KernelOwnsAddress) => {
            let found = format_args!("{address}: the kernel has it too, and would reset our connections");
            Finding::warn(check, found).fix(recipe(&[Claim::ports(address, Protocol::Tcp, port..=port)]))
        }
        Ok(Need::KernelForwards) => {
            let found = format_args!("{address}: the kernel forwards, and would answer that it cannot");
            Finding::warn(check, found).fix(recipe(&[Claim::address(address)]))
        }
    }
}

pub(super) fn suppression(nft: Option<&Result<(), String>>, has_iptables: bool) -> Finding {
    let check = "suppression";
    match (nft, has_iptables) {
        (Some(Ok(())), _) => Finding::ok(check, "rules of nftables can be made"),
        (Some(Err(error)), true) => Finding::warn(check, format_args!("nftables: {error}"))
            .fix("give the programs --suppress iptables"),
        (Some(Err(error)), false) => {
            Finding::fail(check, format_args!("nftables: {error}; and iptables is not installed"))
                .fix("sudo modprobe nf_tables, or sudo apt-get install iptables")
        }
        (None, true) => Finding::warn(
            check,
            "nftables could not be tried here, which takes CAP_SYS_ADMIN; iptables is installed",
        ),
        (None, false) => Finding::warn(check, "nftables could not be tried here, which takes CAP_SYS_ADMIN")
            .fix("sudo wirestack doctor, with the same flags"),
    }
}

pub(super) fn forwarding(is_on: [bool; 2]) -> Finding {
    let names: Vec<_> = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"]
        .into_iter()
        .zip(is_on)
        .filter(|(_, on)| *on)
        .collect();
    if names.is_empty() {
        return Finding::ok("forwarding", "off");
    }
    let names: Vec<_> = names.into_iter().map(|(name, _)| name).collect();
    let switches: Vec<_> = names.iter().map(|name| format!("{name}=0")).collect();
    let found =
        format_args!("{} on: the kernel answers for addresses that are not its own", names.join(", "));
    Finding::warn("forwarding", found).fix(format_args!(
        "sudo sysctl -w {}, if this host is no router, or a --mac of one's own",
        switches.join(" ")
    ))
}

pub(super) fn rp_filter(value: u32) -> Finding {
    let name = match value {
        0 => "off",
        1 => "strict",
        _ => "loose",
    };
    Finding::ok("rp_filter", format_args!("{name}; it concerns the kernel's packets, not ours"))
}

pub(super) fn dhcp(others: &[Other]) -> Finding {
    let is_client = |other: &&Other| DHCP_CLIENTS.contains(&other.name.as_str());
    match others.iter().find(is_client) {
        None => Finding::ok("DHCP client", "none of the kernel's side is seen on the interface"),
        Some(Other { name, .. }) => {
            let found = format_args!("{name} listens on the interface, with its hardware address");
            Finding::warn("DHCP client", found).fix("beside --address dhcp, give --mac 02:00:00:00:00:01")
        }
    }
}

pub(super) fn packet_sockets(others: &[Other]) -> Finding {
    let check = "other packet sockets";
    if others.is_empty() {
        return Finding::ok(check, "none");
    }
    let names: Vec<_> = others
        .iter()
        .take(OTHERS_SHOWN)
        .map(|other| match other.pid {
            Some(pid) => format!("{} ({pid})", other.name),
            None => "a process that is not ours to see".to_owned(),
        })
        .collect();
    let found = format_args!("{}: each takes a copy of each frame", names.join(", "));
    let finding = Finding::warn(check, found);
    match others.iter().find_map(|other| other.pid) {
        Some(pid) => finding.fix(format_args!("end it, as with kill {pid}, if it is not needed")),
        None => finding,
    }
}

pub(super) fn tun(opened: &Result<(), String>) -> Finding {
    match opened {
        Ok(()) => Finding::ok("TUN/TAP", "/dev/net/tun can be opened"),
        Err(error) => Finding::warn("TUN/TAP", format_args!("/dev/net/tun: {error}: no --nic tap: and tun:"))
            .fix("sudo modprobe tun"),
    }
}

pub(super) fn nfqueue(has: bool) -> Finding {
    if has {
        return Finding::ok("NFQUEUE", "the kernel has queues of netfilter");
    }
    Finding::warn("NFQUEUE", "the kernel shows no queues of netfilter: no --nic nfqueue:")
        .fix("sudo modprobe nfnetlink_queue")
}

pub(super) fn af_xdp(has: bool) -> Finding {
    if has {
        return Finding::ok("AF_XDP", "the kernel has it; no program of ours needs it");
    }
    Finding::ok("AF_XDP", "the kernel has it not; no program of ours needs it")
}

pub(super) fn descriptors(soft_max: u64) -> Finding {
    let check = "file descriptors";
    match soft_max {
        0..64 => Finding::fail(check, format_args!("{soft_max} are too few")).fix("ulimit -n 1024"),
        64..1_024 => Finding::warn(check, format_args!("{soft_max}; files that are served take one each"))
            .fix("ulimit -n 65536"),
        _ => Finding::ok(check, format_args!("{soft_max}; connections of the stack take none")),
    }
}

pub(super) fn governor(governors: &[String]) -> Finding {
    let check = "CPU governor";
    let list = governors.join(", ");
    if governors.iter().any(|governor| governor == "powersave" || governor == "conservative") {
        return Finding::warn(check, format_args!("{list}: the first frame after a pause finds a slow CPU"))
            .fix("sudo cpupower frequency-set -g performance");
    }
    Finding::ok(check, if list.is_empty() { "not visible here" } else { &list })
}

/// Numbers of `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
/// Names of processes, as the kernel cuts them.
const DHCP_CLIENTS: [&str; 6] =
    ["dhclient", "dhcpcd", "udhcpc", "systemd-network", "NetworkManager", "dhcpcanon"];
/// Processes that are named.
const OTHERS_SHOWN: usize = 10;
