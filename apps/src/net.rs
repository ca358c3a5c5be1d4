//! From flags to the configuration of the stack: the shard below, and TCP over it.

use std::net::IpAddr;

use smoltcp::time::Duration;
use wirestack::EthernetAddress;
use wirestack::config::HostConfig;
use wirestack::dhcp;
use wirestack::error::ConfigError;
use wirestack::ip::slaac::SlaacConfig;
use wirestack::ip::stable_address::InterfaceIdentifier;
use wirestack::neighbor::{AddressDefence, AddressProbes};
use wirestack::shard::ShardConfig;

use crate::addresses::{AddressArg, Conflicts, Wanted};
use crate::cli::HostArgs;
use crate::device::DeviceSpec;
use crate::error::AppError;
use crate::setup::random_seed;

/// Everything that the stack of a program is told, checked.
#[derive(Debug)]
pub struct Net<'a> {
    /// The stack without TCP.
    pub shard: ShardConfig,
    /// TCP over it.
    pub host: HostConfig<'a>,
    /// What is waited for before the program is ready.
    pub wanted: Wanted,
}

/// What the device means for the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// Frames, and all addresses are ours alone.
    Ethernet,
    /// Frames, and the kernel has some of the addresses too: they need no probes, and are never given up.
    Shared,
    /// IP packets: there are no neighbours and no groups.
    Ip,
    /// The same, of a host that may have our addresses too, and that may itself talk to us.
    Queue,
}

impl<'a> Net<'a> {
    /// What the flags ask for on a device with this hardware address.
    pub(crate) fn new(args: &HostArgs, host: HostConfig<'a>, link: Link) -> Result<Self, AppError> {
        check_dynamic(args, link)?;
        let has_v6 =
            host.addresses.iter().any(|cidr| cidr.address().version() == smoltcp::wire::IpVersion::Ipv6);
        let mut shard = ShardConfig::new(host.mac);
        shard.addresses.clone_from(&host.addresses);
        shard.gateways.clone_from(&host.gateways);
        shard.seed = host.seed;
        shard.link_local = Some(InterfaceIdentifier::Eui64).filter(|_| host.takes_link_local && has_v6);
        shard.source_ports.range = host.source_ports.clone();
        shard.dns.ports = host.source_ports.clone();
        if args.wants(AddressArg::Dhcp) {
            shard.dhcp = Some(dhcp::v4::Config::default());
        }
        if args.wants(AddressArg::Slaac) {
            shard.slaac = Some(SlaacConfig::new(InterfaceIdentifier::Eui64));
            shard.dhcp6 = Some(dhcp::v6::Config::default());
        }
        shard.neighbor.probes = match link {
            Link::Ethernet => args.probe.unwrap_or(AddressProbes::Quick),
            Link::Shared | Link::Ip | Link::Queue => AddressProbes::None,
        };
        // Two forged ARP messages would be enough to take an address from a server that gives way. A leased one is
        // another matter: the server is told, and gives another one (RFC 2131 section 4.4.1).
        if link == Link::Shared || !args.addresses.contains(&AddressArg::Dhcp) {
            shard.neighbor.defence = AddressDefence::Always;
        }
        if matches!(link, Link::Ip | Link::Queue) {
            shard.membership.groups_max = 0;
        }
        shard.shares_addresses = link == Link::Queue;
        shard.check().map_err(|error| config_error(args, error))?;
        let wanted = Wanted {
            addresses: args.addresses.clone(),
            timeout: Duration::from_micros((args.address_timeout * 1e6) as u64),
            conflicts: Conflicts::default(),
        };
        Ok(Self { shard, host, wanted })
    }

    /// Those of a program that has these addresses and nothing else.
    pub(crate) fn plain(host: HostConfig<'a>) -> Self {
        let mut shard = ShardConfig::new(host.mac);
        shard.addresses.clone_from(&host.addresses);
        shard.seed = host.seed;
        let wanted = Wanted {
            addresses: host.addresses.iter().copied().map(AddressArg::Static).collect(),
            timeout: Duration::from_secs(30),
            conflicts: Conflicts::default(),
        };
        Self { shard, host, wanted }
    }
}

/// What does not go together with an address that somebody else gives.
fn check_dynamic(args: &HostArgs, link: Link) -> Result<(), AppError> {
    if link == Link::Shared
        && let Some(probe) = args.probe.filter(|probe| *probe != AddressProbes::None)
    {
        let name = if probe == AddressProbes::Full { "full" } else { "quick" };
        let problem = "the kernel has an address too and would answer the probe; none is accepted";
        return Err(AppError::flag("--probe", name, problem));
    }
    let dynamic = args.addresses.iter().filter(|arg| !matches!(arg, AddressArg::Static(_)));
    for (position, arg) in dynamic.enumerate() {
        if position > 0 && args.addresses.iter().filter(|other| *other == arg).count() > 1 {
            return Err(AppError::flag("--address", arg, "once is enough"));
        }
        match link {
            Link::Ethernet => {}
            Link::Shared => {
                let problem = "not beside an address that the kernel has too";
                return Err(AppError::flag("--address", arg, problem));
            }
            Link::Ip | Link::Queue => {
                let problem = format_args!("{} has no hardware addresses; give an address", args.nic);
                return Err(AppError::flag("--address", arg, problem));
            }
        }
    }
    let statics = args.static_addresses();
    if let Some(gateway) = args.gateways.first().filter(|_| statics.is_empty()) {
        let problem = "who gives the address names the router as well; leave it out";
        return Err(AppError::flag("--gateway", gateway, problem));
    }
    Ok(())
}

/// The part of the configuration that does not hang on the device.
pub(crate) fn host_config<'a>(args: &HostArgs, mac: EthernetAddress) -> HostConfig<'a> {
    let mut config = HostConfig::new(args.mac.unwrap_or(mac));
    config.addresses = args.static_addresses();
    config.gateways.clone_from(&args.gateways);
    config.source_ports = args.source_ports.clone();
    config.seed = args.seed.unwrap_or_else(random_seed);
    config
}

/// Checks what was given before anything is opened.
pub(crate) fn check(args: &HostArgs, config: &HostConfig<'_>) -> Result<(), AppError> {
    if config.addresses.is_empty() {
        return Ok(());
    }
    for (position, cidr) in config.addresses.iter().enumerate() {
        if config.addresses[..position].iter().any(|other| other.address() == cidr.address()) {
            return Err(AppError::flag("--address", cidr, "once is enough"));
        }
    }
    config.check().map_err(|error| config_error(args, error))
}

/// `--device` is for packet devices.
pub(crate) fn no_rings(args: &HostArgs) -> Result<(), AppError> {
    if args.device == DeviceSpec::default() {
        return Ok(());
    }
    let problem = format_args!("{} is no packet device; leave --device out", args.nic);
    Err(AppError::flag("--device", &args.device, problem))
}

/// Most devices are one.
pub(crate) fn one_shard(args: &HostArgs, shards: usize) -> Result<(), AppError> {
    if shards <= 1 {
        return Ok(());
    }
    let problem = format_args!("{} has one queue; 1 is accepted, or a packet device", args.nic);
    Err(AppError::flag("--shards", shards, problem))
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

/// The values of a repeatable flag, as they could be written.
fn list<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// An address that stands for all that a server could give.
pub(crate) const ANY_LEASE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 255, 255, 254));
