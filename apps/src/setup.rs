//! From flags to a device, in an order in which everything that can be wrong is found before anything
//! is changed on the system: flags → interface → addresses → who else answers for them → reservation →
//! rings → capture file → signals → and only then the rules that keep the kernel silent.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::BufWriter;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use smoltcp::wire::IpAddress;
use wirestack::EthernetAddress;
use wirestack::config::HostConfig;
use wirestack::error::ConfigError;
use wirestack::nic::capture::{Capture, CaptureConfig};
use wirestack::nic::claim::{Claim, ClaimSet, Claimed, Protocol};
use wirestack::nic::error::Step;
use wirestack::nic::impair::{Impair, ImpairConfig, ImpairSpec};
use wirestack::nic::suppress::{self, Guard, Method, Need};
use wirestack::nic::{AfPacket, AfPacketConfig, Interface, NfQueueConfig, Nic, RingGeometry, wait};

use crate::attach;
use crate::cli::{HostArgs, NicName};
use crate::error::AppError;
use crate::reserve::Reservation;
use crate::serve::{Stop, print, print_error};

/// A program that can run on any device.
pub trait NicProgram {
    /// Runs to the end.
    ///
    /// # Errors
    /// What ended it, in one line.
    fn run<N: Nic>(self, nic: N, prepared: Prepared<'_>) -> Result<(), AppError>;
}

/// What a program needs beside its device.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// Addresses and limits, checked.
    pub config: HostConfig<'a>,
    /// Tells the loop to end.
    pub stop: Stop,
    /// Whether results go to stdout as JSON.
    pub json: bool,
}

/// Ports that a program serves: what it claims on an address that the kernel has too.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// The number.
    pub port: u16,
    /// The protocols.
    pub protocols: &'static [Protocol],
}

/// Prepares everything that the flags ask for, and runs the program.
///
/// # Errors
/// The first thing that is wrong, in one line; nothing was changed on the system.
pub fn start(args: &HostArgs, ports: Ports, program: impl NicProgram) -> Result<(), AppError> {
    match &args.nic {
        NicName::Packet(name) => start_packet(args, name, ports, program),
        &NicName::Tap { kind, ref name, vnet_hdr } => {
            attach::start_tap(args, (kind, name, vnet_hdr), program)
        }
        &NicName::NfQueue { number, gso, mark } => {
            let config = NfQueueConfig { gso, mark, ..NfQueueConfig::default() };
            attach::start_nfqueue(args, number, config, ports, program)
        }
    }
}

fn start_packet(args: &HostArgs, name: &str, ports: Ports, program: impl NicProgram) -> Result<(), AppError> {
    let interface = Interface::by_name(name).map_err(|error| {
        let problem = format_args!("{error} (`ip link` lists the interfaces of this network namespace)");
        AppError::flag("--nic", format_args!("packet:{name}"), problem)
    })?;
    let mut config = host_config(args, interface.mac);
    config.check().map_err(|error| config_error(args, error))?;
    leave_link_local_to_the_kernel(args, &mut config, &interface)?;
    let claims = claims(args, &interface, ports)?;
    if args.show_recipe {
        print_recipe(name, &claims);
        return Ok(());
    }
    let _reservation = Reservation::take(&interface, &args.addresses, &claims)?;
    let nic = open(args, &interface)?;
    join_groups(args, &config, &nic)?;
    let pcap = args.pcap.as_deref().map(open_pcap).transpose()?;
    let stop = Stop::on_signals(nic.waker())?;
    // Everything that a person can have got wrong is known by now. This changes something on the system,
    // and undoes it when dropped.
    let _guard = silence_kernel(args.suppress, name, &claims)?;
    let nic = Claimed::new(nic, ClaimSet::new(&claims));
    let seed = config.seed;
    let prepared = Prepared { config, stop, json: args.json };
    Wrap { impair: args.impair, pcap, name, seed }.run(nic, prepared, program)
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
    /// Puts the lossy wire around the device, and the capture around both: it records what the stack
    /// sees.
    pub(crate) fn run<N: Nic>(
        self,
        nic: N,
        prepared: Prepared<'_>,
        program: impl NicProgram,
    ) -> Result<(), AppError> {
        match self.impair {
            Some(spec) => {
                let config = ImpairConfig { rx: spec, tx: spec, seed: self.seed };
                self.capture(Impair::new(nic, config), prepared, program)
            }
            None => self.capture(nic, prepared, program),
        }
    }

    fn capture<N: Nic>(
        self,
        nic: N,
        prepared: Prepared<'_>,
        program: impl NicProgram,
    ) -> Result<(), AppError> {
        let Some((path, file)) = self.pcap else { return program.run(nic, prepared) };
        let failed = |error| AppError::flag("--pcap", path.display(), error);
        // A pipe has no length, and nothing to be thrown away.
        if file.metadata().map_err(failed)?.is_file() {
            file.set_len(0).map_err(failed)?;
        }
        let file = BufWriter::with_capacity(1 << 20, file);
        let config = CaptureConfig { name: self.name, epoch_offset: wait::epoch_offset(), snap_len: 0 };
        program.run(Capture::new(nic, file, config).map_err(failed)?, prepared)
    }
}

pub(crate) fn host_config<'a>(args: &HostArgs, mac: EthernetAddress) -> HostConfig<'a> {
    let mut config = HostConfig::new(args.mac.unwrap_or(mac));
    config.addresses.clone_from(&args.addresses);
    config.gateways.clone_from(&args.gateways);
    config.source_ports = args.source_ports.clone();
    config.seed = args.seed.unwrap_or_else(random_seed);
    config
}

/// Names the flag that a field of the configuration comes from.
pub(crate) fn config_error(args: &HostArgs, error: ConfigError) -> AppError {
    match error {
        ConfigError::NoAddress | ConfigError::TooManyAddresses { .. } => {
            AppError::flag("--address", list(&args.addresses), error)
        }
        ConfigError::NotAHostAddress { address } => AppError::flag("--address", address, error),
        ConfigError::TwoGateways { gateway } | ConfigError::GatewayOffLink { gateway } => {
            AppError::flag("--gateway", gateway, error)
        }
        // Everything else is ours, and good; the parser has seen to the source ports.
        _ => AppError::usage(error),
    }
}

/// 64 bits of the system's randomness: the standard library seeds its hashers with it.
pub(crate) fn random_seed() -> u64 {
    RandomState::new().hash_one(wait::now().total_micros())
}

/// Kernel and stack make the same link-local address from the same hardware address. It stays the
/// kernel's: nobody has asked for it, and sharing it would need rules against the kernel.
fn leave_link_local_to_the_kernel(
    args: &HostArgs,
    config: &mut HostConfig<'_>,
    interface: &Interface,
) -> Result<(), AppError> {
    let Some(link_local) = config.link_local() else { return Ok(()) };
    let need = suppress::assess(&interface.name, link_local.address().into(), args.mac.is_some())
        .map_err(|error| AppError::flag("--address", link_local, error))?;
    config.takes_link_local = need == Need::None;
    Ok(())
}

/// Lets what is for us pass the filter of a network card: our hardware address, the groups of all nodes,
/// and those in which neighbours ask for our IPv6 addresses (RFC 4291 section 2.7.1).
fn join_groups(args: &HostArgs, config: &HostConfig<'_>, nic: &AfPacket<'_>) -> Result<(), AppError> {
    let mut groups = vec![EthernetAddress([0x01, 0x00, 0x5e, 0, 0, 1])];
    groups.extend(args.mac);
    for cidr in config.addresses.iter().chain(&config.link_local()) {
        if let IpAddress::Ipv6(address) = cidr.address() {
            let [.., a, b, c] = address.octets();
            groups.push(EthernetAddress([0x33, 0x33, 0xff, a, b, c]));
            groups.push(EthernetAddress([0x33, 0x33, 0, 0, 0, 1]));
        }
    }
    for group in groups {
        nic.join(group).map_err(|error| {
            let name = &nic.interface().name;
            AppError::flag("--nic", format_args!("packet:{name}"), format_args!("joining {group}: {error}"))
        })?;
    }
    Ok(())
}

/// What is ours on addresses for which the kernel would answer as well.
fn claims(args: &HostArgs, interface: &Interface, ports: Ports) -> Result<Vec<Claim>, AppError> {
    let mut claims = Vec::new();
    for cidr in &args.addresses {
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
                    claims.push(Claim::ports(address, protocol, ports.port..=ports.port));
                }
                claims.push(Claim::ports(address, Protocol::Tcp, args.source_ports.clone()));
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

fn open(args: &HostArgs, interface: &Interface) -> Result<AfPacket<'static>, AppError> {
    let mut config = AfPacketConfig::default();
    if let Some((rx, tx)) = args.ring_slots {
        let frame_len = interface.mtu + ETHERNET_HEADER_LEN;
        config.rx_rings = vec![RingGeometry::for_frames(frame_len, rx)].into();
        config.tx_rings = vec![RingGeometry::for_frames(frame_len, tx)].into();
    }
    let name = &interface.name;
    AfPacket::open(name, config).map_err(|error| match (error.step, args.ring_slots) {
        (Step::Geometry | Step::Rings | Step::Map, Some((rx, tx))) => {
            let problem = format_args!("{error}; give fewer slots (the default is 4096,1024)");
            AppError::flag("--ring-slots", format_args!("{rx},{tx}"), problem)
        }
        _ => AppError::flag("--nic", format_args!("packet:{name}"), error),
    })
}

/// The values of a repeatable flag, as they could be written.
fn list<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

const ETHERNET_HEADER_LEN: usize = 14;
