//! `wirestack bridge`: two interfaces as one wire, until a signal.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufWriter, ErrorKind};
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage as SocketAddress;
use serde_json::{Value, json};
use smoltcp::time::{Duration, Instant};
use wirestack::nic::bridge::{Bridge, BridgeConfig, BridgeCounters, Gone, Side};
use wirestack::nic::capture::{Capture, CaptureConfig};
use wirestack::nic::config::VlanTags;
use wirestack::nic::{AfPacket, AfPacketConfig, Interface, Nic, Profile, wait};

use crate::cli::BridgeArgs;
use crate::error::AppError;
use crate::reserve::reserve_pair;
use crate::serve::{Stop, print, print_error, say};
use crate::setup::{open_pcap, random_seed};
use crate::testbed::is_part_of_another;

/// Runs the bridge.
///
/// # Errors
/// What is wrong with the flags, or what ended it, in one line.
pub fn run(args: &BridgeArgs) -> Result<(), AppError> {
    let [a, b] = interfaces(args)?;
    let config = BridgeConfig {
        a_to_b: args.impair_ab.or(args.impair),
        b_to_a: args.impair_ba.or(args.impair),
        seed: args.seed.unwrap_or_else(random_seed),
    };
    let _pair = reserve_pair(&a, &b).map_err(|error| {
        let given = format_args!("packet:{} --nic packet:{}", a.name, b.name);
        match error.kind() {
            ErrorKind::AddrInUse => {
                let problem = "another wirestack bridge joins these two, and every frame would pass twice";
                AppError::flag("--nic", given, problem)
            }
            _ => AppError::flag("--nic", given, error),
        }
    })?;
    let devices = [open(&a, args.profile)?, open(&b, args.profile)?];
    let pcap = args.pcap.as_deref().map(open_pcap).transpose()?;
    let stop = Stop::on_signals(devices[0].waker())?;
    for interface in [&a, &b] {
        warn_of_company(interface);
    }
    let names = [a.name.as_str(), b.name.as_str()];
    let [a, b] = devices;
    let Some((path, file)) = pcap else {
        return forward(Bridge::new(a, b, config), names, args, &stop);
    };
    let failed = |error| AppError::flag("--pcap", path.display(), error);
    if file.metadata().map_err(failed)?.is_file() {
        file.set_len(0).map_err(failed)?;
    }
    let a = capture(a, file, names[0]).map_err(failed)?;
    forward(Bridge::new(a, b, config), names, args, &stop)
}

fn capture(
    nic: AfPacket<'static>,
    file: File,
    name: &str,
) -> std::io::Result<Capture<AfPacket<'static>, BufWriter<File>>> {
    let config = CaptureConfig { name, epoch_offset: wait::epoch_offset(), snap_len: 0 };
    Capture::new(nic, BufWriter::with_capacity(1 << 20, file), config)
}

/// Two interfaces that exist, and are not the same.
fn interfaces(args: &BridgeArgs) -> Result<[Interface; 2], AppError> {
    let names: Vec<_> = args.nics.iter().map(String::as_str).collect();
    let &[a, b] = names.as_slice() else {
        let given = names.iter().map(|name| format!("packet:{name}")).collect::<Vec<_>>().join(" ");
        return Err(AppError::flag("--nic", given, "two interfaces are needed: give --nic twice"));
    };
    let find = |name: &str| {
        Interface::by_name(name).map_err(|error| {
            let problem = format_args!("{error} (`ip link` lists the interfaces of this network namespace)");
            AppError::flag("--nic", format_args!("packet:{name}"), problem)
        })
    };
    let (a, b) = (find(a)?, find(b)?);
    if a.index == b.index {
        let problem = "given twice; two different interfaces are needed";
        return Err(AppError::flag("--nic", format_args!("packet:{}", b.name), problem));
    }
    Ok([a, b])
}

fn open(interface: &Interface, profile: Profile) -> Result<AfPacket<'static>, AppError> {
    let config = AfPacketConfig {
        promiscuous: true,
        verify_checksums: false,
        vlan_tags: VlanTags::PutBackAll,
        outgoing: false,
        ..AfPacketConfig::profile(profile)
    };
    let name = &interface.name;
    let nic = AfPacket::open(name, config)
        .map_err(|error| AppError::flag("--nic", format_args!("packet:{name}"), error))?;
    log::info!("{name}: {}", nic.shape());
    Ok(nic)
}

/// The kernel sees the frames of both interfaces too. With an address there it would answer some of them,
/// and as a port of a bridge it would forward them a second time.
fn warn_of_company(interface: &Interface) {
    let name = &interface.name;
    let ip = |address: SocketAddress| {
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
    };
    let own = getifaddrs().into_iter().flatten().filter(|entry| entry.interface_name == *name);
    let addresses: Vec<_> =
        own.filter_map(|entry| entry.address.and_then(ip)).map(|ip| ip.to_string()).collect();
    if !addresses.is_empty() {
        log::warn!(
            "{name} has the address {}: this host takes part in what it bridges; \
             `ip addr flush dev {name}` keeps it out",
            addresses.join(" ")
        );
    }
    if is_part_of_another(name).unwrap_or(false) {
        log::warn!(
            "{name} belongs to a bridge or bond of the kernel, which forwards the same frames; \
             `ip link set {name} nomaster` takes it out"
        );
    }
}

/// Forwards until a signal, the time is over, or an interface is gone.
fn forward<A: Nic, B: Nic>(
    mut bridge: Bridge<A, B>,
    names: [&str; 2],
    args: &BridgeArgs,
    stop: &Stop,
) -> Result<(), AppError> {
    say(&format!("ready bridge {} {}", names[0], names[1]), args.json);
    let end = args.seconds.map(|seconds| wait::now() + Duration::from_micros((seconds * 1e6) as u64));
    let result = turns(&mut bridge, names, end, stop);
    report(&bridge.counters(), names, args.json);
    result.map_err(|gone| {
        let Gone(side) = gone;
        AppError::running(format_args!("{}: {gone}", names[side as usize]))
    })
}

fn turns<A: Nic, B: Nic>(
    bridge: &mut Bridge<A, B>,
    names: [&str; 2],
    end: Option<Instant>,
    stop: &Stop,
) -> Result<(), Gone> {
    let mut looked = wait::now();
    loop {
        let now = wait::now();
        if stop.is_set() || end.is_some_and(|end| end <= now) {
            return Ok(());
        }
        // Nothing tells of a new MTU.
        if now >= looked + MTU_CHECK_INTERVAL {
            looked = now;
            for (side, name) in [Side::A, Side::B].into_iter().zip(names) {
                if let Ok(interface) = Interface::by_name(name) {
                    bridge.set_mtu(side, interface.mtu);
                }
            }
        }
        let deadline = bridge.turn(now)?;
        bridge.wait(deadline.into_iter().chain(end).min())?;
    }
}

/// Prints the final counters: lines for people on stderr, or a JSON object on stdout.
fn report(counters: &BridgeCounters, names: [&str; 2], as_json: bool) {
    let BridgeCounters { a_to_b, b_to_a, a, b } = counters;
    if as_json {
        print(json!({
            "interfaces": names,
            "a_to_b": object(a_to_b.named()),
            "b_to_a": object(b_to_a.named()),
            "a": object(a.named()),
            "b": object(b.named()),
        }));
        return;
    }
    let [name_a, name_b] = names;
    print_error(format_args!("{name_a} to {name_b}: {}", list(a_to_b.named())));
    print_error(format_args!("{name_b} to {name_a}: {}", list(b_to_a.named())));
    print_error(format_args!("{name_a}: {a}"));
    print_error(format_args!("{name_b}: {b}"));
}

fn object(named: impl Iterator<Item = (&'static str, u64)>) -> Value {
    Value::Object(named.map(|(name, value)| (name.to_owned(), value.into())).collect())
}

/// `name=value` of everything that is not zero.
fn list(named: impl Iterator<Item = (&'static str, u64)>) -> impl Display {
    let items = named.filter(|&(_, value)| value != 0).map(|(name, value)| format!("{name}={value}"));
    items.collect::<Vec<_>>().join(" ")
}

/// How often the MTU of both interfaces is looked at, while there is traffic.
const MTU_CHECK_INTERVAL: Duration = Duration::from_secs(1);
