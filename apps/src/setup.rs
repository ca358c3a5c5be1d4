//! From flags to a device, in an order in which everything that can be wrong is found before anything
//! is changed on the system: flags → interface → addresses → who else answers for them → reservation →
//! rings → capture file → listeners → and only then the rules that keep the kernel silent.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::BufWriter;
use std::net::IpAddr;

use wirestack::config::HostConfig;
use wirestack::error::ConfigError;
use wirestack::nic::capture::{Capture, CaptureConfig};
use wirestack::nic::claim::{Claim, ClaimSet, Claimed, Protocol};
use wirestack::nic::error::Step;
use wirestack::nic::impair::{Impair, ImpairConfig};
use wirestack::nic::suppress::{self, Guard, Method, Need};
use wirestack::nic::{AfPacket, AfPacketConfig, Interface, Nic, RingGeometry, wait};

use crate::cli::{HostArgs, NicName};
use crate::error::AppError;
use crate::reserve::Reservation;

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
    /// The rules against the kernel's answers, not installed yet.
    pub guard: PendingGuard,
    /// Whether results go to stdout as JSON.
    pub json: bool,
}

/// What is to be installed when nothing else can fail any more.
#[derive(Debug)]
pub struct PendingGuard {
    method: Method,
    interface: String,
    claims: Vec<Claim>,
}

impl PendingGuard {
    /// No rules: the kernel does not know the addresses.
    pub fn none() -> Self {
        Self { method: Method::None, interface: String::new(), claims: Vec::new() }
    }

    /// Installs the rules. The first step that changes something on the system.
    ///
    /// # Errors
    /// The method does not work here; the line says why, and what does.
    pub fn install(self) -> Result<Option<Guard>, AppError> {
        let Self { method, interface, claims } = self;
        if claims.is_empty() {
            return Ok(None);
        }
        if method == Method::None {
            eprintln!("wirestack: the kernel answers for our addresses too; these commands silence it:");
            for line in suppress::recipe(&interface, &claims) {
                eprintln!("  {line}");
            }
            return Ok(None);
        }
        let guard = suppress::install(method, &interface, &claims)
            .map_err(|error| AppError::flag("--suppress", method, error))?;
        log::info!("{guard}");
        Ok(Some(guard))
    }
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
    let NicName::Packet(name) = &args.nic;
    let interface = Interface::by_name(name).map_err(|error| {
        let problem = format_args!("{error} (`ip link` lists the interfaces of this network namespace)");
        AppError::flag("--nic", format_args!("packet:{name}"), problem)
    })?;
    let config = host_config(args, &interface);
    config.check().map_err(|error| config_error(args, error))?;
    let claims = claims(args, &config, &interface, ports)?;
    if args.show_recipe {
        print_recipe(name, &claims);
        return Ok(());
    }
    let _reservation = Reservation::take(&interface, &args.addresses, &claims)?;
    let nic = open(args, &interface)?;
    let nic = Claimed::new(nic, ClaimSet::new(&claims));
    let guard = PendingGuard { method: args.suppress, interface: name.clone(), claims };
    let seed = config.seed;
    let prepared = Prepared { config, guard, json: args.json };
    let wrap = Wrap { impair: args.impair, pcap: args.pcap.as_deref(), name, seed };
    wrap.run(nic, prepared, program)
}

/// Devices around the device, as asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wrap<'a> {
    pub(crate) impair: Option<wirestack::nic::impair::ImpairSpec>,
    pub(crate) pcap: Option<&'a std::path::Path>,
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
        let Some(path) = self.pcap else { return program.run(nic, prepared) };
        let failed = |error| AppError::flag("--pcap", path.display(), error);
        let file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
        let config = CaptureConfig { name: self.name, epoch_offset: wait::epoch_offset(), snap_len: 0 };
        program.run(Capture::new(nic, file, config).map_err(failed)?, prepared)
    }
}

fn host_config<'a>(args: &HostArgs, interface: &Interface) -> HostConfig<'a> {
    let mut config = HostConfig::new(args.mac.unwrap_or(interface.mac));
    config.addresses.clone_from(&args.addresses);
    config.gateways.clone_from(&args.gateways);
    config.source_ports = args.source_ports.clone();
    config.seed = args.seed.unwrap_or_else(random_seed);
    config
}

/// Names the flag that a field of the configuration comes from.
fn config_error(args: &HostArgs, error: ConfigError) -> AppError {
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

/// What is ours on addresses for which the kernel would answer as well. The link-local address is one
/// of them in most cases: kernel and stack make it from the same hardware address.
fn claims(
    args: &HostArgs,
    config: &HostConfig<'_>,
    interface: &Interface,
    ports: Ports,
) -> Result<Vec<Claim>, AppError> {
    let mut claims = Vec::new();
    for cidr in args.addresses.iter().chain(&config.link_local()) {
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
        println!("# the kernel does not answer for these addresses: no rule is needed");
    }
    for line in suppress::recipe(interface, claims) {
        println!("{line}");
    }
    if !claims.is_empty() {
        println!("# and afterwards:");
    }
    for line in suppress::recipe_removal(interface, claims) {
        println!("{line}");
    }
}

fn open(args: &HostArgs, interface: &Interface) -> Result<AfPacket<'static>, AppError> {
    let frame_len = interface.mtu + ETHERNET_HEADER_LEN;
    let (rx, tx) = args.ring_slots;
    let config = AfPacketConfig {
        rx_rings: vec![RingGeometry::for_frames(frame_len, rx)].into(),
        tx_rings: vec![RingGeometry::for_frames(frame_len, tx)].into(),
        ..AfPacketConfig::default()
    };
    let name = &interface.name;
    AfPacket::open(name, config).map_err(|error| match error.step {
        Step::Geometry | Step::Rings | Step::Map => {
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
