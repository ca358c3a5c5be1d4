//! What a person can write.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::builder::ArgPredicate;
use clap::error::ErrorKind;
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use wirestack::neighbor::AddressProbes;
use wirestack::nic::Profile;
use wirestack::nic::affinity::CpuSet;
use wirestack::nic::ethtool::Offload;
use wirestack::nic::impair::ImpairSpec;
use wirestack::nic::replay::Speed;
use wirestack::nic::serial::SerialSpec;
use wirestack::nic::suppress::Method;
use wirestack::nic::tap::TapKind;
use wirestack::policy::SharedRules;
use wirestack::tcp::Algorithm;
use wirestack::{EthernetAddress, IpCidr};

use crate::addresses::{AddressArg, parse_probes};
use crate::api::Api;
use crate::capture::args::CaptureArgs;
use crate::device::DeviceSpec;
use crate::doctor::args::DoctorArgs;
use crate::engine::Backend;
use crate::error::AppError;
use crate::forward::args::ForwardArgs;
use crate::host::RunArgs;
use crate::perf::args::PerfArgs;
use crate::ping::args::PingArgs;
use crate::policy;
use crate::serial::args::SerialArgs;
use crate::top::args::TopArgs;

/// TCP/IP in user space, over raw frames.
#[derive(Debug, Parser)]
#[command(name = "wirestack", version, max_term_width = 100)]
pub struct Cli {
    /// The program to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The programs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve HTTP and echo on a veth pair of its own and fetch from it with the kernel's TCP; needs no
    /// arguments and no root
    Demo(DemoArgs),
    /// Echo TCP and UDP (RFC 862)
    Echo(EchoArgs),
    /// Serve files, or a page about itself, over HTTP
    Http(HttpArgs),
    /// Hand TCP connections on between the kernel's side and the stack's
    Forward(ForwardArgs),
    /// Run forward, http, echo, ping or perf over a serial line, in one command and without root
    Serial(SerialArgs),
    /// Ping with the stack's own ICMP
    Ping(PingArgs),
    /// Measure throughput, latency, connections and requests; also with iperf3 as the other end
    Perf(PerfArgs),
    /// Join two interfaces as one wire, a worse one if asked for
    Bridge(BridgeArgs),
    /// Count, record and analyse what is on an interface
    Capture(CaptureArgs),
    /// Send the frames of a pcap or pcapng file, in their own time or another
    Replay(ReplayArgs),
    /// Show who serves an interface (queues, interrupts, RPS, RFS, XPS, offloads), propose what would be
    /// better, and set it with --apply
    Tune(TuneArgs),
    /// Watch a program that runs: its connections with rates, windows and round-trip times, and its counters
    Top(TopArgs),
    /// Check whether a stack would run well on an interface, and print the command that helps where not
    Doctor(DoctorArgs),
}

/// Flags of `tune`.
#[derive(Debug, Args)]
pub struct TuneArgs {
    /// Device: packet:IFNAME, an interface of this network namespace
    #[arg(long, value_name = "KIND:NAME", value_parser = parse_nic)]
    pub nic: NicName,
    /// CPUs that are to do the work, as in 0-3,7 [default: those of the device's NUMA node]
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    pub cpus: Option<CpuSet>,
    /// Flows to follow to the CPU of their reader (RFS), for programs on the kernel's own sockets
    #[arg(long, value_name = "FLOWS", value_parser = whole::<u32>(0..=1 << 20))]
    pub rfs: Option<u32>,
    /// Offloads of the interface: rx, tx, sg, tso, gso, gro or lro, as in gro=off,tso=off
    #[arg(long = "offload", value_name = "NAME=on|off", value_delimiter = ',', value_parser = parse_offload)]
    pub offloads: Vec<(Offload, bool)>,
    /// Set what is proposed, and put everything back at the end: Ctrl-C, or that of --for
    #[arg(long)]
    pub apply: bool,
    /// With --apply: end when this process does
    #[arg(long = "for", value_name = "PID", requires = "apply", value_parser = whole::<u32>(1..=1 << 22))]
    pub pid: Option<u32>,
    /// With --for: let each thread of that process run on one of the CPUs only, one after the other
    #[arg(long, requires = "pid")]
    pub pin: bool,
    /// Print everything as one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Run a shell command at the kernel's end instead, and end with its status; $URL is the page
    #[arg(long, value_name = "CMD")]
    pub exec: Option<String>,
    /// Put the kernel's end into this host's own network namespace and serve until Ctrl-C, so that your
    /// own curl or browser reaches it; needs root
    #[arg(long, conflicts_with = "exec")]
    pub host: bool,
    /// Print the figures as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Record the frames that the stack sees, as pcapng
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// Make the wire worse, as in loss=1%,delay=10ms (see `http --help`)
    #[arg(long, value_name = "SPEC")]
    pub impair: Option<ImpairSpec>,
    /// Whose TCP.
    #[command(flatten)]
    pub tcp: TcpArgs,
}

/// Flags of `echo`.
#[derive(Debug, Args)]
pub struct EchoArgs {
    /// TCP and UDP port
    #[arg(long, default_value_t = 7, value_parser = whole::<u16>(1..=65_535))]
    pub port: u16,
    /// On which of the stack's interfaces it is written: poll, blocking (a thread for each connection), async (tasks
    /// of tokio) or local (tasks on the thread of the stack) [default: poll]
    #[arg(long, value_name = "NAME", value_parser = Api::parser(&Api::ALL))]
    pub api: Option<Api>,
    /// Whose TCP.
    #[command(flatten)]
    pub tcp: TcpArgs,
    /// On which threads.
    #[command(flatten)]
    pub run: RunArgs,
    /// Where and who.
    #[command(flatten)]
    pub host: HostArgs,
}

/// Flags of `http`.
#[derive(Debug, Args)]
pub struct HttpArgs {
    /// TCP port [default: 80; with TLS, 443]
    #[arg(long, default_value_t = 80, hide_default_value = true, value_parser = whole::<u16>(1..=65_535))]
    #[arg(default_value_ifs = WITH_TLS)]
    pub port: u16,
    /// Serve the files below this directory instead of the built-in pages
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How connections are served: async, on hyper, on threads of their own; local, on hyper, on the thread of the
    /// stack; or poll, by a small HTTP/1.1 server without TLS [default: async]
    #[arg(long, value_name = "NAME", value_parser = Api::parser(&[Api::Poll, Api::Async, Api::Local]))]
    pub api: Option<Api>,
    /// With TLS or without.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Whose TCP.
    #[command(flatten)]
    pub tcp: TcpArgs,
    /// On which threads.
    #[command(flatten)]
    pub run: RunArgs,
    /// Where and who.
    #[command(flatten)]
    pub host: HostArgs,
}

/// Flags of a server with TLS.
#[derive(Debug, Clone, Default, Args)]
pub struct TlsArgs {
    /// Serve HTTPS (TLS 1.2 and 1.3) with a certificate of our own making, whose fingerprint is printed
    #[arg(long)]
    pub tls: bool,
    /// Serve HTTPS with this certificate and its chain, a PEM file; together with --key
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// The private key of --cert, a PEM file, unencrypted
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

/// The port of HTTPS, with any of its flags.
const WITH_TLS: [(&str, ArgPredicate, &str); 3] = [
    ("tls", ArgPredicate::IsPresent, "443"),
    ("cert", ArgPredicate::IsPresent, "443"),
    ("key", ArgPredicate::IsPresent, "443"),
];

/// Flags of every program that serves TCP.
#[derive(Debug, Clone, Default, Args)]
pub struct TcpArgs {
    /// Whose TCP: wirestack, the stack's own, or smoltcp, for comparison
    #[arg(long, value_name = "NAME", default_value_t)]
    pub backend: Backend,
    /// Congestion control: reno, cubic or bbr [default: cubic]
    #[arg(long, value_name = "NAME", value_parser = parse_congestion)]
    pub congestion: Option<Algorithm>,
    /// Connections that may wait to be accepted, for each port [default: 1024]
    #[arg(long, value_name = "N", value_parser = whole::<u16>(1..=65_535))]
    pub backlog: Option<u16>,
    /// Connections that are served at a time; others wait to be accepted [default: 10000; with smoltcp, 512]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..=1_000_000))]
    pub connections_max: Option<usize>,
    /// Rules on who may listen, connect and be accepted, one a line: "default deny", "allow listen any port 80",
    /// "allow accept tcp from 10.0.0.0/8 port 80,443 rate 100/s burst 200 per-source 64", "reject accept tcp port 22",
    /// "allow connect tcp to 192.0.2.0/24 port 443"; the first one that matches decides
    #[arg(long, value_name = "FILE", value_parser = policy::load)]
    pub policy: Option<SharedRules>,
    /// What is given up.
    #[command(flatten)]
    pub privileges: PrivilegeArgs,
}

/// Flags on what a server gives up once it serves.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct PrivilegeArgs {
    /// Keep all capabilities; else those that are not needed any more are dropped before anything is served, and files
    /// of --dir have to be readable for the user as such
    #[arg(long)]
    pub keep_privileges: bool,
    /// Forbid system calls that a server does not need (seccomp): no sockets, no programs, no files but to read
    #[arg(long)]
    pub seccomp: bool,
}

impl TcpArgs {
    /// Checks what does not go together.
    ///
    /// # Errors
    /// A flag that smoltcp's engine does not know. One line.
    pub fn check(&self) -> Result<(), AppError> {
        if self.backend == Backend::Wirestack {
            return Ok(());
        }
        let problem = "--backend smoltcp has no such thing; leave it out";
        match (self.congestion, self.backlog, &self.policy) {
            (Some(algorithm), ..) => Err(AppError::flag("--congestion", congestion_name(algorithm), problem)),
            (None, Some(backlog), _) => Err(AppError::flag("--backlog", backlog, problem)),
            (None, None, Some(_)) => Err(AppError::flag("--policy", "FILE", problem)),
            (None, None, None) => Ok(()),
        }
    }

    /// Connections that are served at a time.
    pub fn connections_max(&self) -> usize {
        self.connections_max.unwrap_or(CONNECTIONS_MAX)
    }

    /// Connections that may wait to be accepted.
    pub fn backlog(&self) -> u16 {
        self.backlog.unwrap_or(1_024)
    }
}

/// Connections that a program serves at a time, unless a flag says otherwise.
const CONNECTIONS_MAX: usize = 10_000;

/// Flags of `bridge`.
#[derive(Debug, Args)]
pub struct BridgeArgs {
    /// The two interfaces, A and B: packet:IFNAME, given twice
    #[arg(long = "nic", value_name = "KIND:NAME", required = true, value_parser = parse_interface)]
    pub nics: Vec<String>,
    /// Make the wire worse in both directions: loss=1%,duplicate=1%,reorder=1%,corrupt=1%,delay=10ms,
    /// jitter=2ms,rate=100mbit,queue=1000; super-frames are split first
    #[arg(long, value_name = "SPEC")]
    pub impair: Option<ImpairSpec>,
    /// The same from A to B only, instead of --impair
    #[arg(long, value_name = "SPEC")]
    pub impair_ab: Option<ImpairSpec>,
    /// The same from B to A only, instead of --impair
    #[arg(long, value_name = "SPEC")]
    pub impair_ba: Option<ImpairSpec>,
    /// Seed of the impairment, for runs that can be repeated [default: random]
    #[arg(long, value_parser = whole::<u64>(0..=u64::MAX))]
    pub seed: Option<u64>,
    /// How frames are received: latency (many small slots) or bulk (slots for super-frames)
    #[arg(long, value_name = "NAME", default_value = "latency", value_parser = parse_bridge_profile)]
    pub profile: Profile,
    /// Record the frames that pass A, as pcapng
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// End after so many seconds instead of at a signal
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    pub seconds: Option<f64>,
    /// Print the final counters as one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The capture: pcap or pcapng, of Ethernet frames or IP packets
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Device: packet:IFNAME, tap:IFNAME, tun:IFNAME or serial:LINE
    #[arg(long, value_name = "KIND:NAME", value_parser = parse_nic)]
    pub nic: NicName,
    /// original, fast (no pauses at all), or a factor: 2 is twice as fast
    #[arg(long, default_value = "original")]
    pub speed: Speed,
    /// How many times the file is sent
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u32>(1..=u64::from(u32::MAX)))]
    pub loops: u32,
    /// Print the final counters as one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of every program that is a host on a network interface.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// Device: packet:IFNAME, an Ethernet interface through AF_PACKET rings; tap:IFNAME or tun:IFNAME, an
    /// interface to this host's kernel, made if there is none (,vnet_hdr=off: frames as on a wire);
    /// nfqueue:NUMBER, packets that a netfilter rule hands over (,gso=off ,mark=NUMBER); serial:LINE, a serial line, as in
    /// serial:/dev/ttyUSB0@115200 (see `serial --help`)
    #[arg(long, value_name = "KIND:NAME", value_parser = parse_nic)]
    pub nic: NicName,
    /// Address of the stack with prefix length, 10.0.0.2/24 or fd00::2/64; or dhcp: what a server leases to
    /// our hardware address (not beside a DHCP client of the kernel's on the same interface, unless with
    /// --mac); or slaac: what a router advertises; repeatable
    #[arg(long = "address", value_name = "CIDR|dhcp|slaac", required = true)]
    pub addresses: Vec<AddressArg>,
    /// How long a lease or a router is waited for
    #[arg(long, value_name = "S", default_value = "30", value_parser = parse_seconds)]
    pub address_timeout: f64,
    /// How addresses are probed before they are used, lest another host has them: full (as RFC 5227 and RFC
    /// 4862 say, some seconds), quick (a fifth of a second) or none [default: quick; none for addresses that
    /// the kernel has too]
    #[arg(long, value_name = "HOW", value_parser = parse_probes)]
    pub probe: Option<AddressProbes>,
    /// Router for what is on no prefix of ours; one for each IP version (dhcp and slaac bring their own)
    #[arg(long = "gateway", value_name = "ADDR", value_parser = parse_gateway)]
    pub gateways: Vec<IpAddr>,
    /// Hardware address of the stack [default: the interface's own]
    #[arg(long, value_name = "ADDR", value_parser = parse_mac)]
    pub mac: Option<EthernetAddress>,
    /// How to keep the kernel from answering for our addresses where it would: nft, iptables or none
    #[arg(long, value_name = "METHOD", default_value = "nft")]
    pub suppress: Method,
    /// Print the iptables commands that keep the kernel silent for these addresses, and end
    #[arg(long)]
    pub show_recipe: bool,
    /// Source ports for connections that the stack opens, guarded as a whole on an address that the
    /// kernel has too
    #[arg(long, value_name = "FIRST-LAST", default_value = "61000-65535", value_parser = parse_ports)]
    pub source_ports: RangeInclusive<u16>,
    /// How a packet device moves frames: profile=latency|bulk|capture [default: latency], rx=ring|recv,
    /// tx=send|ring, version=1|2|3, vnet_hdr=on|off, bypass=on|off, and for the RX ring burst=FRAMES,
    /// memory=BYTES
    #[arg(long, value_name = "SPEC", default_value_t, hide_default_value = true)]
    pub device: DeviceSpec,
    /// Record the frames that the stack sees, as pcapng
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// Make the wire worse in both directions: loss=1%,duplicate=1%,reorder=1%,corrupt=1%,delay=10ms,
    /// jitter=2ms,rate=100mbit,queue=1000
    #[arg(long, value_name = "SPEC")]
    pub impair: Option<ImpairSpec>,
    /// Socket on which the program answers `top`, or none [default: /run/wirestack/PID.sock as root, else
    /// $XDG_RUNTIME_DIR/wirestack/PID.sock, if that can be made]
    #[arg(long, value_name = "PATH|none")]
    pub control: Option<PathBuf>,
    /// Print what a serial line does, every second on a terminal, every ten elsewhere
    #[arg(long)]
    pub progress: bool,
    /// Seed of sequence numbers, ports and impairment, for runs that can be repeated [default: random]
    #[arg(long, value_parser = whole::<u64>(0..=u64::MAX))]
    pub seed: Option<u64>,
    /// Print the final counters as one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

impl HostArgs {
    /// The addresses that were given as such.
    pub fn static_addresses(&self) -> Vec<IpCidr> {
        let cidr = |arg: &AddressArg| match arg {
            AddressArg::Static(cidr) => Some(*cidr),
            AddressArg::Dhcp | AddressArg::Slaac => None,
        };
        self.addresses.iter().filter_map(cidr).collect()
    }

    /// Whether an address is to come from this.
    pub fn wants(&self, arg: AddressArg) -> bool {
        self.addresses.contains(&arg)
    }
}

/// A device by kind and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NicName {
    /// `packet:NAME`: AF_PACKET rings on the interface of that name.
    Packet(String),
    /// `tap:NAME` and `tun:NAME`.
    Tap {
        /// Which of the two.
        kind: TapKind,
        /// Of the interface.
        name: String,
        /// `vnet_hdr=on`, the default, or `off`.
        vnet_hdr: bool,
    },
    /// `nfqueue:NUMBER`: packets that a rule of netfilter hands over.
    NfQueue {
        /// Of the queue.
        number: u16,
        /// `gso=on`, the default, or `off`.
        gso: bool,
        /// `mark=NUMBER` on what is sent.
        mark: Option<u32>,
    },
    /// `serial:LINE`: IP packets over bytes.
    Serial(SerialSpec),
}

impl NicName {
    /// Name of the interface, for programs that are about one.
    ///
    /// # Errors
    /// A queue of netfilter is none, nor is a serial line.
    pub fn interface(&self) -> Result<&str, AppError> {
        match self {
            Self::Packet(name) | Self::Tap { name, .. } => Ok(name),
            Self::NfQueue { .. } | Self::Serial(_) => {
                Err(AppError::flag("--nic", self, "it is no interface; packet:IFNAME is accepted"))
            }
        }
    }
}

impl fmt::Display for NicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packet(name) => write!(f, "packet:{name}"),
            Self::Tap { kind, name, .. } => write!(f, "{kind}:{name}"),
            Self::NfQueue { number, .. } => write!(f, "nfqueue:{number}"),
            Self::Serial(spec) => write!(f, "serial:{spec}"),
        }
    }
}

/// Reads the arguments. `--help` and `--version` are errors of status 0, whose message is the text.
///
/// # Errors
/// Everything else is one line and status 2.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, AppError> {
    // A number below zero is a value, and its flag says what it thinks of it.
    let takes_negative = |arg: Arg| {
        let takes_values = arg.get_action().takes_values();
        // What stands alone may be followed by a flag such as -4.
        let is_positional = arg.is_positional();
        arg.allow_negative_numbers(takes_values && !is_positional)
    };
    let command = Cli::command().mut_subcommands(|program| {
        // Some programs have several of their own.
        program.mut_args(takes_negative).mut_subcommands(|part| part.mut_args(takes_negative))
    });
    let matches = command.try_get_matches_from(args);
    matches.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|error| {
        let text = error.render().to_string();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => AppError { message: text, status: 0 },
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if text.contains("wirestack perf") => {
                AppError::usage("perf: server, client, iperf3-server or iperf3-client is missing (see --help)")
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if text.contains("wirestack serial") => {
                AppError::usage("serial: forward, reverse, http, echo, ping or perf is missing (see --help)")
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => AppError::usage(
                "no program given; demo, echo, http, forward, serial, ping, perf, capture, bridge, replay, tune, top or doctor (see --help)",
            ),
            _ => AppError::usage(one_line(&text)),
        }
    })
}

/// clap's report without its second half (usage, "for more information"), joined to one line.
fn one_line(report: &str) -> String {
    let lines = report
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let line = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

pub(crate) fn parse_nic(text: &str) -> Result<NicName, String> {
    match text.split_once(':') {
        Some(("packet", name)) if !name.is_empty() => Ok(NicName::Packet(name.to_owned())),
        Some((kind @ ("tap" | "tun"), rest)) => {
            let (name, options) = rest.split_once(',').unwrap_or((rest, ""));
            let kind = if kind == "tap" { TapKind::Tap } else { TapKind::Tun };
            let accepted =
                format!("{kind}:IFNAME is accepted, with ,vnet_hdr=off if wanted, as in {kind}:{kind}0");
            let vnet_hdr = match options {
                "" | "vnet_hdr=on" => true,
                "vnet_hdr=off" => false,
                _ => return Err(accepted),
            };
            if name.is_empty() {
                Err(accepted)
            } else {
                Ok(NicName::Tap { kind, name: name.to_owned(), vnet_hdr })
            }
        }
        Some(("nfqueue", rest)) => parse_nfqueue(rest).ok_or_else(|| {
            "nfqueue:NUMBER from 0 to 65535 is accepted, with ,gso=off or ,mark=NUMBER, as in nfqueue:5"
                .to_owned()
        }),
        Some(("serial", line)) => line.parse().map(NicName::Serial),
        _ => Err("packet:IFNAME, tap:IFNAME, tun:IFNAME, nfqueue:NUMBER or serial:LINE is accepted, as in packet:eth0"
            .to_owned()),
    }
}

/// The name of an interface that is opened with a packet socket.
pub(crate) fn parse_interface(text: &str) -> Result<String, String> {
    match text.strip_prefix("packet:") {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err("packet:IFNAME is accepted, as in packet:eth0".to_owned()),
    }
}

/// A reader of whole numbers; unlike clap's own it says of words too what is accepted.
pub(crate) fn whole<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("a whole number in {}..={} is accepted", range.start(), range.end()))
    }
}

pub(crate) fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().unwrap_or(0.0);
    // A millisecond to a year.
    if (0.001..=31_536_000.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("0.001 to 31536000 is accepted, as in 10 or 0.5".to_owned())
    }
}

pub(crate) fn parse_gateway(text: &str) -> Result<IpAddr, &'static str> {
    text.parse().map_err(|_| "an address is accepted, as in 10.0.0.1 or fd00::1")
}

pub(crate) fn parse_congestion(text: &str) -> Result<Algorithm, &'static str> {
    let all = [Algorithm::Reno, Algorithm::Cubic, Algorithm::Bbr];
    let named = all.into_iter().find(|algorithm| congestion_name(*algorithm) == text);
    named.ok_or("reno, cubic or bbr is accepted")
}

fn congestion_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Reno => "reno",
        Algorithm::Cubic => "cubic",
        Algorithm::Bbr => "bbr",
    }
}

fn parse_bridge_profile(text: &str) -> Result<Profile, &'static str> {
    match text.parse() {
        Ok(profile @ (Profile::Latency | Profile::Bulk)) => Ok(profile),
        _ => Err("latency or bulk is accepted"),
    }
}

fn parse_nfqueue(text: &str) -> Option<NicName> {
    let mut parts = text.split(',');
    let number = parts.next()?.parse().ok()?;
    let (mut gso, mut mark) = (true, None);
    for part in parts {
        match part.split_once('=')? {
            ("gso", "on") => gso = true,
            ("gso", "off") => gso = false,
            ("mark", value) => mark = Some(value.parse().ok()?),
            _ => return None,
        }
    }
    Some(NicName::NfQueue { number, gso, mark })
}

pub(crate) fn parse_cpus(text: &str) -> Result<CpuSet, String> {
    let cpus: CpuSet = text.parse().map_err(|error| format!("{error}"))?;
    if cpus.is_empty() { Err("one CPU at least is accepted, as in 0-3,7".to_owned()) } else { Ok(cpus) }
}

fn parse_offload(text: &str) -> Result<(Offload, bool), String> {
    let accepted = "NAME=on or NAME=off is accepted, as in gro=off";
    let (name, state) = text.split_once('=').ok_or(accepted)?;
    let on = match state {
        "on" => true,
        "off" => false,
        _ => return Err(accepted.to_owned()),
    };
    Ok((name.parse()?, on))
}

fn parse_mac(text: &str) -> Result<EthernetAddress, String> {
    let accepted = "six bytes of a unicast address are accepted, as in 02:00:00:00:00:01";
    let mac: EthernetAddress = text.parse().map_err(|()| accepted.to_owned())?;
    if mac.is_unicast() && mac != EthernetAddress([0; 6]) { Ok(mac) } else { Err(accepted.to_owned()) }
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let accepted = "FIRST-LAST within 1-65535 is accepted, as in 61000-65535";
    let (first, last) = text.split_once('-').ok_or(accepted)?;
    let first: u16 = first.parse().map_err(|_| accepted)?;
    let last: u16 = last.parse().map_err(|_| accepted)?;
    if first == 0 || first > last { Err(accepted.to_owned()) } else { Ok(first..=last) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(args: &[&str]) -> AppError {
        let words = std::iter::once("wirestack").chain(args.iter().copied());
        parse(words.map(OsString::from)).expect_err("a bad command line")
    }

    /// Bad input, and the words that must be in the one line about it.
    fn check(cases: Vec<(AppError, &[&str])>) {
        for (error, words) in cases {
            assert_eq!(error.status, 2, "{error:?}");
            assert_eq!(error.message.lines().count(), 1, "{error:?}");
            for word in words {
                assert!(error.message.contains(word), "{word:?} is missing in {:?}", error.message);
            }
        }
    }

    #[test]
    fn bad_input_is_one_line_that_names_flag_value_and_what_is_accepted() {
        let http = |rest: &[&'static str]| {
            let base = ["http", "--nic", "packet:eth0", "--address", "10.0.0.2/24"];
            error(&[&base, rest].concat())
        };
        check(vec![
            (
                error(&[]),
                &[
                    "no program given",
                    "demo, echo, http, forward, serial, ping, perf, capture, bridge, replay, tune, top or doctor",
                ],
            ),
            (error(&["htp"]), &["htp", "http"]),
            (error(&["http", "--address", "10.0.0.2/24"]), &["--nic"]),
            (error(&["http", "--nic", "packet:eth0"]), &["--address"]),
            (
                error(&["http", "--nic", "eth0", "--address", "10.0.0.2/24"]),
                &["--nic", "eth0", "packet:IFNAME"],
            ),
            (error(&["http", "--nic", "packet:", "--address", "10.0.0.2/24"]), &["packet:IFNAME"]),
            (error(&["http", "--nic", "tap:", "--address", "10.0.0.2/24"]), &["tap:IFNAME"]),
            (
                error(&["http", "--nic", "tun:t0,vnet_hdr=maybe", "--address", "10.0.0.2/24"]),
                &["tun:t0,vnet_hdr=maybe", "vnet_hdr=off"],
            ),
            (
                error(&["http", "--nic", "nfqueue:65536", "--address", "10.0.0.2/24"]),
                &["nfqueue:65536", "0 to 65535"],
            ),
            (error(&["http", "--nic", "nfqueue:1,mark=x", "--address", "10.0.0.2/24"]), &["mark=NUMBER"]),
            (
                error(&["http", "--nic", "packet:eth0", "--address", "10.0.0.2"]),
                &["--address", "10.0.0.2", "prefix length"],
            ),
            (http(&["--port", "0"]), &["--port", "0", "1..=65535"]),
            (http(&["--port", "http"]), &["--port", "http", "1..=65535"]),
            (http(&["--gateway", "router"]), &["--gateway", "router", "an address is accepted"]),
            (http(&["--mac", "ff:ff:ff:ff:ff:ff"]), &["--mac", "ff:ff:ff:ff:ff:ff", "unicast"]),
            (http(&["--mac", "1:2:3"]), &["--mac", "1:2:3", "six bytes"]),
            (http(&["--suppress", "ufw"]), &["--suppress", "ufw", "nft", "iptables", "none"]),
            (http(&["--source-ports", "70-60"]), &["--source-ports", "70-60", "FIRST-LAST"]),
            (http(&["--device", "rx=fast"]), &["--device", "rx=fast", "rx=ring|recv"]),
            (http(&["--device", "burst=0"]), &["--device", "burst=0", "burst=FRAMES"]),
            (http(&["--api", "blocking"]), &["--api", "blocking", "poll, async or local"]),
            (http(&["--backend", "lwip"]), &["--backend", "lwip", "wirestack or smoltcp"]),
            (http(&["--congestion", "vegas"]), &["--congestion", "vegas", "reno, cubic or bbr"]),
            (http(&["--backlog", "0"]), &["--backlog", "0", "1..=65535"]),
            (http(&["--connections-max", "0"]), &["--connections-max", "0", "1..=1000000"]),
            (http(&["--impair", "loss=2"]), &["--impair", "loss=2"]),
            (http(&["--seed", "x"]), &["--seed", "x", "0..=18446744073709551615"]),
            (http(&["--seed", "-1"]), &["--seed", "-1", "0..="]),
        ]);
    }

    #[test]
    fn so_is_bad_input_of_the_programs_on_interfaces() {
        let tune = |rest: &[&'static str]| error(&[&["tune", "--nic", "packet:eth0"], rest].concat());
        check(vec![
            (
                error(&["replay", "--nic", "packet:a", "--speed", "-1", "x.pcap"]),
                &["--speed", "-1", "above 0"],
            ),
            (
                error(&["replay", "--nic", "packet:a", "--loops", "two", "x.pcap"]),
                &["--loops", "two", "1..="],
            ),
            (error(&["capture", "--nic", "tap:t0"]), &["--nic", "tap:t0", "packet:IFNAME"]),
            (
                error(&["capture", "--nic", "packet:a", "--write", "x", "--rotate-files", "0"]),
                &["--rotate-files", "0", "1..="],
            ),
            (error(&["tune"]), &["--nic"]),
            (tune(&["--cpus", "3-1"]), &["--cpus", "3-1", "0-3,7"]),
            (tune(&["--cpus", ""]), &["--cpus", "one CPU at least"]),
            (tune(&["--cpus", "9999"]), &["--cpus", "9999", "below 8192"]),
            (tune(&["--offload", "gro"]), &["--offload", "gro", "gro=off"]),
            (tune(&["--offload", "gro=off,lor=on"]), &["--offload", "lor", "lro"]),
            (tune(&["--apply", "--for", "0"]), &["--for", "0", "1..="]),
            (tune(&["--for", "1"]), &["--apply"]),
            (tune(&["--apply", "--pin"]), &["--for"]),
            (tune(&["--rfs", "2000000"]), &["--rfs", "2000000"]),
            (error(&["top", "--json"]), &["--once"]),
            (
                error(&["top", "--sort", "speed"]),
                &["--sort", "speed", "rate, rtt, retransmits, cwnd or peer"],
            ),
            (error(&["top", "--interval", "0"]), &["--interval", "0", "as in 10 or 0.5"]),
            (error(&["top", "--count", "1001"]), &["--count", "1001", "0..=1000"]),
            (error(&["doctor", "--nic", "tap:t0"]), &["--nic", "tap:t0", "packet:IFNAME"]),
            (error(&["echo", "--nic", "serial:ttyUSB0"]), &["--nic", "serial:ttyUSB0", "/dev/PORT[@BAUD]"]),
            (
                error(&["serial", "--nic", "/dev/ttyS0@x", "echo"]),
                &["--nic", "/dev/ttyS0@x", "50 to 100000000"],
            ),
            (
                error(&["serial", "--nic", "/dev/ttyS0"]),
                &["requires a subcommand", "forward, reverse, http, echo, ping, perf"],
            ),
            (error(&["serial", "--nic", "-", "forward"]), &["[BIND:]PORT:HOST:PORT"]),
            (
                error(&["serial", "--nic", "-", "forward", "80:10.0.2.2"]),
                &["80:10.0.2.2", "as in 8080:10.0.0.1:80"],
            ),
            (error(&["serial", "echo"]), &["--nic"]),
            (error(&["demo", "--host", "--exec", "true"]), &["--host", "--exec"]),
            (error(&["bridge"]), &["--nic"]),
            (error(&["bridge", "--nic", "eth0"]), &["--nic", "eth0", "packet:IFNAME"]),
            (error(&["bridge", "--nic", "packet:a", "--impair-ab", "loss=x"]), &["--impair-ab", "loss=x"]),
            (
                error(&["bridge", "--nic", "packet:a", "--profile", "capture"]),
                &["--profile", "capture", "latency or bulk"],
            ),
            (
                error(&["bridge", "--nic", "packet:a", "--seconds", "0"]),
                &["--seconds", "0", "as in 10 or 0.5"],
            ),
        ]);
    }

    #[test]
    fn flags_of_our_own_tcp_are_not_for_smoltcp() {
        let tcp = |backend, congestion, backlog| {
            TcpArgs { backend, congestion, backlog, connections_max: Some(7), ..TcpArgs::default() }.check()
        };
        assert_eq!(tcp(Backend::Wirestack, Some(Algorithm::Bbr), Some(5)), Ok(()));
        assert_eq!(tcp(Backend::Smoltcp, None, None), Ok(()));
        let refused = |result: Result<(), AppError>| result.expect_err("no such thing");
        check(vec![
            (
                refused(tcp(Backend::Smoltcp, Some(Algorithm::Bbr), None)),
                &["--congestion", "bbr", "leave it out"],
            ),
            (refused(tcp(Backend::Smoltcp, None, Some(5))), &["--backlog", "5", "leave it out"]),
        ]);
    }

    #[test]
    fn https_has_a_port_of_its_own() {
        for (rest, port) in [
            (&[][..], 80),
            (&["--tls"], 443),
            (&["--cert", "c", "--key", "k"], 443),
            (&["--tls", "--port", "8443"], 8443),
        ] {
            let base = ["wirestack", "http", "--nic", "packet:eth0", "--address", "10.0.0.2/24"];
            let cli = parse([&base, rest].concat().into_iter().map(OsString::from)).expect("right");
            let Command::Http(http) = cli.command else { panic!("another program") };
            assert_eq!(http.port, port, "{rest:?}");
        }
    }

    #[test]
    fn seconds_are_bounded() {
        assert_eq!(["0.5", "10"].map(|text| parse_seconds(text).ok()), [Some(0.5), Some(10.0)]);
        for wrong in ["", "0", "-1", "inf", "NaN", "1e99", "ten"] {
            assert!(parse_seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn help_is_no_error() {
        for args in [&["--help"][..], &["http", "--help"], &["--version"]] {
            let help = error(args);
            assert_eq!(help.status, 0);
            assert!(help.message.contains("wirestack"));
        }
    }
}
