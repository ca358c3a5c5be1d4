//! From flags to a device, in an order in which everything that can be wrong is found before anything
//! is changed on the system: flags → interface → addresses → who else answers for them → reservation →
//! rings → capture file → control socket → signals → and only then the rules that keep the kernel silent.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::BufWriter;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use smoltcp::wire::Ipv6Address;
use wirestack::IpCidr;
use wirestack::config::HostConfig;
use wirestack::driver::open_group;
use wirestack::nic::capture::{Capture, CaptureConfig};
use wirestack::nic::claim::{Claim, ClaimSet, Claimed, Protocol, Scope};
use wirestack::nic::error::Step;
use wirestack::nic::impair::{Impair, ImpairConfig, ImpairSpec};
use wirestack::nic::suppress::{self, Guard, Method, Need};
use wirestack::nic::{AfPacket, AfPacketConfig, Interface, NfQueueConfig, Nic, wait};
use wirestack::random::Random;

use crate::addresses::AddressArg;
use crate::attach;
use crate::cli::{HostArgs, NicName};
use crate::control::Control;
use crate::error::AppError;
use crate::net::{self, Link, Net};
use crate::privileges::Keep;
use crate::reserve::{self, Reservation};
use crate::serial;
use crate::serve::{Stop, one, print, print_error};

/// A program that can run on any device.
pub trait NicProgram {
    /// On how many devices: one for each shard.
    fn shards(&self) -> usize {
        1
    }

    /// Runs to the end, on as many devices as it wants.
    ///
    /// # Errors
    /// What ended it, in one line.
    fn run<N: Nic + Send + 'static>(self, nics: Vec<N>, prepared: Prepared<'_>) -> Result<(), AppError>;
}

/// What a program needs beside its device.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// What the stack is told, checked.
    pub net: Net<'a>,
    /// Tells the loop to end.
    pub stop: Stop,
    /// Whether results go to stdout as JSON.
    pub json: bool,
    /// What the device is and how much memory it takes, for people.
    pub about: Option<String>,
    /// The socket on which the program is to tell about itself.
    pub control: Option<Control>,
    /// The device, as `--nic` names it.
    pub name: String,
    /// What it cannot give up.
    pub keep: Keep,
}

/// What a program claims on an address that the kernel has too.
#[derive(Debug, Clone)]
pub struct Ports {
    /// The ports that it serves.
    pub served: Vec<u16>,
    /// With these protocols.
    pub protocols: &'static [Protocol],
    /// The protocols in which it asks others, from the source ports.
    pub sources: &'static [Protocol],
}

/// Prepares everything that the flags ask for, and runs the program.
///
/// # Errors
/// The first thing that is wrong, in one line; nothing was changed on the system.
pub fn start(args: &HostArgs, ports: Ports, program: impl NicProgram) -> Result<(), AppError> {
    if args.progress && !matches!(args.nic, NicName::Serial(_)) {
        let problem = format_args!("{} is no serial line; leave it out", args.nic);
        return Err(AppError::usage(format_args!("--progress: {problem}")));
    }
    match &args.nic {
        NicName::Packet(name) => start_packet(args, name, ports, program),
        &NicName::Tap { kind, ref name, vnet_hdr } => {
            attach::start_tap(args, (kind, name, vnet_hdr), program)
        }
        &NicName::NfQueue { number, gso, mark } => {
            let config = NfQueueConfig { gso, mark, ..NfQueueConfig::default() };
            attach::start_nfqueue(args, number, config, ports, program)
        }
        NicName::Serial(spec) => serial::start(args, spec, program),
    }
}

fn start_packet(args: &HostArgs, name: &str, ports: Ports, program: impl NicProgram) -> Result<(), AppError> {
    let interface = Interface::by_name(name).map_err(|error| {
        let problem = format_args!("{error} (`ip link` lists the interfaces of this network namespace)");
        AppError::flag("--nic", format_args!("packet:{name}"), problem)
    })?;
    let mut config = net::host_config(args, interface.mac);
    net::check(args, &config)?;
    leave_link_local_to_the_kernel(args, &mut config, &interface)?;
    let claims = claims(args, &interface, &ports)?;
    check_leases(args, &config, &interface)?;
    let is_shared = claims.iter().any(|claim| claim.scope != Scope::Address);
    let seed = config.seed;
    let mac = config.mac;
    let net = Net::new(args, config, if is_shared { Link::Shared } else { Link::Ethernet })?;
    if args.show_recipe {
        print_recipe(name, &claims);
        return Ok(());
    }
    let _reservation = Reservation::take(&interface, &args.static_addresses(), &claims)?;
    let _leases = reserve::leases(args, &interface, mac)?;
    let claim_set = ClaimSet::new(&claims);
    let nics = open(args, &interface, &claim_set, (program.shards(), seed))?;
    let first = nics.first().ok_or_else(|| AppError::running("there is no device"))?;
    if let Some(mac) = args.mac {
        // What is for us passes the filter of a network card. Groups are joined by the stack.
        first.join(mac).map_err(|error| {
            AppError::flag("--nic", &args.nic, format_args!("receiving for {mac}: {error}"))
        })?;
    }
    let pcap = args.pcap.as_deref().map(open_pcap).transpose()?;
    let control = Control::open(args.control.as_deref())?;
    let stop = Stop::on_signals(first.waker())?;
    // Everything that a person can have got wrong is known by now. This changes something on the system,
    // and undoes it when dropped.
    let guard = silence_kernel(args.suppress, name, &claims)?;
    let is_iptables = guard.as_ref().is_some_and(|guard| guard.method() == Method::Iptables);
    let keep = if is_iptables { Keep::Iptables } else { Keep::Nothing };
    let about = format!("packet:{name}: {}", first.shape());
    let nics = nics.into_iter().map(|nic| Claimed::new(nic, claim_set.clone())).collect();
    let prepared = Prepared {
        net,
        stop,
        json: args.json,
        about: Some(about),
        control,
        name: args.nic.to_string(),
        keep,
    };
    Wrap { impair: args.impair, pcap, name, seed }.run(nics, prepared, program)
}

/// Installs the rules that keep the kernel from answering for what is ours, or tells which they are.
fn silence_kernel(method: Method, interface: &str, claims: &[Claim]) -> Result<Option<Guard>, AppError> {
    if claims.is_empty() {
        return Ok(None);
    }
    if method == Method::None {
        print_error("wirestack: the kernel answers for our addresses too; these commands silence it:");
        for line in suppress::recipe(interface, claims) {
            print_error(format_args!("  {line}"));
        }
        return Ok(None);
    }
    let guard = suppress::install(method, interface, claims)
        .map_err(|error| AppError::flag("--suppress", method, error))?;
    log::info!("{guard}");
    Ok(Some(guard))
}

/// A file to be captured to. What is in it stays until [`Wrap::run`].
pub(crate) fn open_pcap(path: &Path) -> Result<(PathBuf, File), AppError> {
    let file = File::options().write(true).create(true).truncate(false).open(path);
    let file = file.map_err(|error| AppError::flag("--pcap", path.display(), error))?;
    Ok((path.to_owned(), file))
}

/// Devices around the device, as asked for.
#[derive(Debug)]
pub(crate) struct Wrap<'a> {
    pub(crate) impair: Option<ImpairSpec>,
    pub(crate) pcap: Option<(PathBuf, File)>,
    pub(crate) name: &'a str,
    pub(crate) seed: u64,
}

impl Wrap<'_> {
    /// Puts the lossy wire around each device, and the capture around both: it records what the stack
    /// sees.
    pub(crate) fn run<N: Nic + Send + 'static>(
        self,
        nics: Vec<N>,
        prepared: Prepared<'_>,
        program: impl NicProgram,
    ) -> Result<(), AppError> {
        match self.impair {
            Some(spec) => {
                let seed = self.seed;
                let worse = |(number, nic)| {
                    let seed = seed.wrapping_add(number as u64);
                    Impair::new(nic, ImpairConfig { rx: spec, tx: spec, seed })
                };
                self.capture(nics.into_iter().enumerate().map(worse).collect(), prepared, program)
            }
            None => self.capture(nics, prepared, program),
        }
    }

    fn capture<N: Nic + Send + 'static>(
        self,
        nics: Vec<N>,
        prepared: Prepared<'_>,
        program: impl NicProgram,
    ) -> Result<(), AppError> {
        let Some((path, file)) = self.pcap else { return program.run(nics, prepared) };
        let failed = |error| AppError::flag("--pcap", path.display(), error);
        if nics.len() > 1 {
            let problem = "a file is written by one shard; --shards 1 is accepted with it";
            return Err(AppError::flag("--pcap", path.display(), problem));
        }
        // A pipe has no length, and nothing to be thrown away.
        if file.metadata().map_err(failed)?.is_file() {
            file.set_len(0).map_err(failed)?;
        }
        let file = BufWriter::with_capacity(1 << 20, file);
        let config = CaptureConfig { name: self.name, epoch_offset: wait::epoch_offset(), snap_len: 0 };
        let captured = |nic| Capture::new(nic, file, config).map_err(failed);
        let captured = one(nics).and_then(captured)?;
        program.run(vec![captured], prepared)
    }
}

/// 64 bits of the system's randomness: the standard library seeds its hashers with it.
pub(crate) fn random_seed() -> u64 {
    RandomState::new().hash_one(wait::now().total_micros())
}

/// Decides which flow comes to which shard, for the devices and the driver alike: nobody else is to know, lest somebody
/// choose flows that all come to one. Not from the same numbers as the rest, of which it tells something.
pub(crate) fn steering_seed(seed: u64) -> u32 {
    Random::new(!seed).u32()
}

/// Kernel and stack make the same link-local address from the same hardware address. It stays the
/// kernel's: nobody has asked for it, and sharing it would need rules against the kernel.
fn leave_link_local_to_the_kernel(
    args: &HostArgs,
    config: &mut HostConfig<'_>,
    interface: &Interface,
) -> Result<(), AppError> {
    // With SLAAC it is made even if there is no other address yet.
    let is_router_asked = args.wants(AddressArg::Slaac);
    let made = || HostConfig::new(config.mac).address(ANY_IPV6).link_local();
    let link_local = if is_router_asked { made() } else { config.link_local() };
    let Some(link_local) = link_local else { return Ok(()) };
    let need = suppress::assess(&interface.name, link_local.address().into(), args.mac.is_some())
        .map_err(|error| AppError::flag("--address", link_local, error))?;
    if is_router_asked && need == Need::KernelOwnsAddress {
        let problem = format_args!(
            "the kernel makes the same addresses of the same hardware address; give --mac, as in --mac \
             02:00:00:00:00:01"
        );
        return Err(AppError::flag("--address", AddressArg::Slaac, problem));
    }
    config.takes_link_local = need == Need::None;
    Ok(())
}

/// What a server or a router gives is not known yet when rules against the kernel are made. They are needed
/// if it forwards, and the hardware address is its own.
fn check_leases(args: &HostArgs, config: &HostConfig<'_>, interface: &Interface) -> Result<(), AppError> {
    let any = [(AddressArg::Dhcp, net::ANY_LEASE), (AddressArg::Slaac, IpAddr::from(ANY_IPV6.address()))];
    for (arg, address) in any.into_iter().filter(|(arg, _)| args.wants(*arg)) {
        let need = suppress::assess(&interface.name, address, args.mac.is_some())
            .map_err(|error| AppError::flag("--address", arg, error))?;
        if need == Need::KernelForwards {
            let problem = format_args!(
                "the kernel forwards what is for {} and not for itself; give a --mac of your own",
                config.mac
            );
            return Err(AppError::flag("--address", arg, problem));
        }
    }
    Ok(())
}

/// What is ours on addresses for which the kernel would answer as well.
fn claims(args: &HostArgs, interface: &Interface, ports: &Ports) -> Result<Vec<Claim>, AppError> {
    let mut claims = Vec::new();
    for cidr in args.static_addresses() {
        let address = IpAddr::from(cidr.address());
        let need = suppress::assess(&interface.name, address, args.mac.is_some())
            .map_err(|error| AppError::flag("--address", cidr, error))?;
        match need {
            Need::None => {}
            Need::KernelForwards => claims.push(Claim::address(address)),
            Need::KernelOwnsAddress => {
                if let Some(mac) = args.mac {
                    let problem = format_args!(
                        "the kernel has {address} with its own hardware address; leave --mac out"
                    );
                    return Err(AppError::flag("--mac", mac, problem));
                }
                let (first, last) = (args.source_ports.start(), args.source_ports.end());
                suppress::source_port_range_check(args.source_ports.clone()).map_err(|error| {
                    AppError::flag("--source-ports", format_args!("{first}-{last}"), error)
                })?;
                for &protocol in ports.protocols {
                    let served = ports.served.iter();
                    claims.extend(served.map(|&port| Claim::ports(address, protocol, port..=port)));
                }
                for &protocol in ports.sources {
                    claims.push(Claim::ports(address, protocol, args.source_ports.clone()));
                }
            }
        }
    }
    Ok(claims)
}

fn print_recipe(interface: &str, claims: &[Claim]) {
    if claims.is_empty() {
        print("# the kernel does not answer for these addresses: no rule is needed");
        return;
    }
    suppress::recipe(interface, claims).iter().for_each(print);
    print("# and afterwards:");
    suppress::recipe_removal(interface, claims).iter().for_each(print);
}

fn open(
    args: &HostArgs,
    interface: &Interface,
    claims: &ClaimSet,
    (shards, seed): (usize, u64),
) -> Result<Vec<AfPacket<'static>>, AppError> {
    let wrong = |error: &dyn std::fmt::Display| AppError::flag("--device", &args.device, error);
    let config = || {
        let config = args.device.config(interface).map_err(|error| wrong(&error))?;
        // On an address that the kernel has too, most of what comes is its own: the socket need not see it.
        Ok(AfPacketConfig { filter: claims.socket_filter(), ..config })
    };
    let configs = (0..shards).map(|_| config()).collect::<Result<Vec<_>, AppError>>()?;
    let name = &interface.name;
    open_group(name, configs, steering_seed(seed)).map_err(|error| match error.step {
        Step::Geometry | Step::Rings | Step::Map => wrong(&error),
        _ => AppError::flag("--nic", format_args!("packet:{name}"), error),
    })
}

/// In the place of an address that is not known yet.
const ANY_IPV6: IpCidr =
    IpCidr::new(smoltcp::wire::IpAddress::Ipv6(Ipv6Address::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_know_the_seed_does_not_know_which_shard_a_flow_comes_to() {
        let seeds: std::collections::HashSet<u32> = (0..1_000).map(steering_seed).collect();
        assert!(seeds.len() > 990 && !seeds.contains(&0));
        assert_eq!(steering_seed(7), steering_seed(7), "devices and driver have the same");
        assert_ne!(steering_seed(7), Random::new(7).u32(), "a number that is used elsewhere");
    }
}
