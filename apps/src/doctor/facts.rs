//! What there is to know about a system and an interface, and finding it out without a change.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::resource::{Resource, getrlimit};
use wirestack::nic::affinity::{self, Report, Roots, Wishes};
use wirestack::nic::claim::{Claim, Protocol};
use wirestack::nic::error::Step;
use wirestack::nic::ethtool::{self, Offload};
use wirestack::nic::steer::{Fanout, FanoutMode};
use wirestack::nic::suppress::{self, Method, Need};
use wirestack::nic::{AfPacket, AfPacketConfig, Interface, RxMode};

use super::args::DoctorArgs;
use super::sockets::{self, Other};
use crate::device::DeviceSpec;
use crate::testbed::Namespace;

/// Everything that was found.
#[derive(Debug)]
pub(super) struct Facts {
    /// As in /proc/sys/kernel/osrelease.
    pub(super) release: String,
    /// CapEff.
    pub(super) capabilities: u64,
    /// The program itself, for a command that gives it capabilities.
    pub(super) program: String,
    /// The interface, or why there is none.
    pub(super) interface: Result<Interface, String>,
    pub(super) has_carrier: bool,
    pub(super) ring: Result<String, Problem>,
    /// As the ring, and without virtio_net_hdr; asked only if the ring could not be had.
    pub(super) without_vnet_hdr: Option<Result<String, Problem>>,
    pub(super) fanout: Result<String, Problem>,
    /// By offload: on, off; those that the interface has.
    pub(super) offloads: Result<Vec<(Offload, bool)>, String>,
    pub(super) queues: Result<Queues, String>,
    /// For each address, whether the kernel would answer.
    pub(super) needs: Vec<(IpAddr, Result<Need, String>)>,
    /// Whether a rule of nftables can be made; `None`: it could not be tried.
    pub(super) nft: Option<Result<(), String>>,
    pub(super) has_iptables: bool,
    pub(super) forwarding: [bool; 2],
    pub(super) rp_filter: u32,
    pub(super) others: Vec<Other>,
    pub(super) tun: Result<(), String>,
    pub(super) has_nfqueue: bool,
    pub(super) has_af_xdp: bool,
    pub(super) descriptors_max: u64,
    pub(super) memlock_bytes_max: u64,
    /// Of the CPUs that tell.
    pub(super) governors: Vec<String>,
}

/// Why a device could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) step: Step,
    pub(super) text: String,
    pub(super) is_permission: bool,
}

/// Queues, and what `tune` would do with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Queues {
    pub(super) rx: usize,
    pub(super) tx: usize,
    pub(super) irqs: usize,
    pub(super) cpus: usize,
    /// Some RX queue hands frames to other CPUs.
    pub(super) has_rps: bool,
    /// The changes that `tune` would make.
    pub(super) proposed: usize,
}

impl Facts {
    /// Looks at everything.
    pub(super) fn find(args: &DoctorArgs) -> Self {
        let name = &args.nic;
        let interface = Interface::by_name(name).map_err(|error| error.to_string());
        let capabilities = read("/proc/thread-self/status");
        let ring = open(interface.as_ref().ok(), true);
        let without_vnet_hdr = ring.is_err().then(|| open(interface.as_ref().ok(), false));
        let need =
            |address: IpAddr| suppress::assess(name, address, false).map_err(|error| error.to_string());
        let addresses = args.addresses.iter().map(|cidr| IpAddr::from(cidr.address()));
        let needs: Vec<_> = addresses.map(|address| (address, need(address))).collect();
        Self {
            release: read("/proc/sys/kernel/osrelease"),
            capabilities: effective(&capabilities).unwrap_or(0),
            program: std::env::current_exe()
                .map_or_else(|_| "wirestack".to_owned(), |path| path.display().to_string()),
            has_carrier: interface.as_ref().is_ok_and(has_carrier),
            fanout: fanout(name),
            offloads: offloads(name).map_err(|error| error.to_string()),
            queues: interface.as_ref().map_err(Clone::clone).and_then(queues),
            nft: needs.iter().any(|(_, need)| *need != Ok(Need::None)).then(try_nft).flatten(),
            has_iptables: has_program("iptables"),
            forwarding: [
                read("/proc/sys/net/ipv4/ip_forward") == "1",
                read("/proc/sys/net/ipv6/conf/all/forwarding") == "1",
            ],
            rp_filter: rp_filter(name),
            others: interface.as_ref().map_or_else(|_| Vec::new(), |found| sockets::others(found.index)),
            tun: tun(),
            has_nfqueue: Path::new("/proc/thread-self/net/netfilter/nfnetlink_queue").exists(),
            has_af_xdp: read("/proc/thread-self/net/protocols").lines().any(|line| line.starts_with("XDP ")),
            descriptors_max: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft),
            memlock_bytes_max: getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft),
            governors: governors(),
            interface,
            ring,
            without_vnet_hdr,
            needs,
        }
    }
}

/// A file without its last newline; what cannot be read is empty.
fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim_end().to_owned()).unwrap_or_default()
}

/// CapEff of a text like `/proc/self/status`.
pub(super) fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// As the driver has it now; the flag of the interface, which anybody may see, comes up to a second later.
fn has_carrier(interface: &Interface) -> bool {
    let roots = Roots::of_this_namespace();
    if roots.shows(interface)
        && let Ok(carrier) =
            fs::read_to_string(roots.sys.join("class/net").join(&interface.name).join("carrier"))
    {
        return carrier.trim() == "1";
    }
    let is_it = |flags: InterfaceFlags| flags.contains(InterfaceFlags::IFF_RUNNING);
    getifaddrs().is_ok_and(|mut all| all.any(|one| one.interface_name == interface.name && is_it(one.flags)))
}

fn problem(error: &wirestack::nic::OpenError) -> Problem {
    let is_permission = error.source.kind() == io::ErrorKind::PermissionDenied;
    Problem { step: error.step, text: error.source.to_string(), is_permission }
}

/// Opens a device as the programs do, and closes it.
fn open(interface: Option<&Interface>, vnet_hdr: bool) -> Result<String, Problem> {
    let missing =
        || Problem { step: Step::Interface, text: "there is no interface".to_owned(), is_permission: false };
    let interface = interface.ok_or_else(missing)?;
    let config = DeviceSpec::default().config(interface).unwrap_or_default();
    let config = AfPacketConfig { vnet_hdr, ..config };
    AfPacket::open(&interface.name, config)
        .map(|nic| nic.shape().to_string())
        .map_err(|error| problem(&error))
}

/// Makes a group of one, and leaves it.
fn fanout(name: &str) -> Result<String, Problem> {
    let config = AfPacketConfig {
        rx: RxMode::Recv,
        fanout: Some(Fanout::new(FanoutMode::Hash)),
        ..AfPacketConfig::default()
    };
    let opened = AfPacket::open(name, config).map_err(|error| problem(&error))?;
    Ok(opened.fanout_id().map_or_else(|| "a group".to_owned(), |id| format!("group {id}")))
}

fn offloads(name: &str) -> io::Result<Vec<(Offload, bool)>> {
    let all = ethtool::offloads(name)?;
    let has = Offload::ALL.into_iter().filter(|offload| all.is_available(*offload));
    Ok(has.map(|offload| (offload, all.has(offload))).collect())
}

fn queues(interface: &Interface) -> Result<Queues, String> {
    let roots = Roots::of_this_namespace();
    if !roots.shows(interface) {
        return Err("/sys shows another network namespace".to_owned());
    }
    let report = Report::read(&roots, &interface.name).map_err(|error| error.to_string())?;
    let plan = affinity::propose(&report, &Wishes { workers: report.near(), rfs_flows: None });
    Ok(Queues {
        rx: report.rx.len(),
        tx: report.tx.len(),
        irqs: report.irqs.len(),
        cpus: report.online.len(),
        has_rps: report.rx.iter().any(|queue| queue.rps_cpus.as_ref().is_some_and(|cpus| !cpus.is_empty())),
        proposed: plan.changes.len(),
    })
}

/// Makes a rule in a network namespace of its own, where it concerns nobody.
fn try_nft() -> Option<Result<(), String>> {
    let namespace = Namespace::new().ok()?;
    let claim = Claim::ports(Ipv4Addr::new(192, 0, 2, 1).into(), Protocol::Tcp, 1..=1);
    let tried = namespace.run(|| suppress::install(Method::Nft, "lo", &[claim]).map(drop));
    Some(tried.map_err(|error| error.to_string()))
}

fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where they are, and where users do not look.
    let all = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    all.map(|dir| dir.join(name)).any(|path| path.is_file())
}

/// What holds is the larger one of the interface's and of all.
fn rp_filter(name: &str) -> u32 {
    let of = |which: &str| read(&format!("/proc/sys/net/ipv4/conf/{which}/rp_filter")).parse().unwrap_or(0);
    of("all").max(of(name))
}

/// Opens the device of TUN and TAP; an interface is made only by what would follow.
fn tun() -> Result<(), String> {
    let opened = fs::File::options().read(true).write(true).open("/dev/net/tun");
    opened.map(drop).map_err(|error| error.to_string())
}

fn governors() -> Vec<String> {
    let cpus = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let paths = cpus.map(|cpu| cpu.path().join("cpufreq/scaling_governor"));
    let mut all: Vec<_> =
        paths.filter_map(|path| Some(fs::read_to_string(path).ok()?.trim().to_owned())).collect();
    all.sort();
    all.dedup();
    all
}
