//! Linux as the subject: a namespace of its own, behind a TAP interface.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::process::Command;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, socket_with, sockopt};
use smoltcp::phy::Device as _;
use smoltcp::phy::{RxToken as _, TxToken as _};
use smoltcp::time::{Duration, Instant};
use wirestack_apps::testbed::Namespace;
use wirestack_nic::tap::TapKind;
use wirestack_nic::{Nic as _, Tap, TapConfig, wait};

use super::build::End;
use super::call::{Call, CallResult, IpVersion, SocketKind, SocketOption};
use super::kernel_tcp::KernelStreams;
use super::packet::Value;
use super::parse::Setup;
use super::print;
use super::subject::{Subject, SubjectKind};
use crate::closing::close;
use crate::programs::output;

/// The name of the interface, which is the only one beside `lo`.
const INTERFACE: &str = "t0";

/// How long a program of an administrator may take.
const PROGRAM_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// Settings without which scripts would have to wait, or meet limits that no script is about: duplicate
/// addresses are not looked for, errors are not rationed.
/// Of TCP: nothing is remembered of former scripts, SYNs are sent again at the times of RFC 6298 (and not four times a
/// second apart), duplicate ACKs are not held back for a millisecond, and small writes not because of the device. Loss
/// probes, which a late script would meet, are for scripts that ask for them.
const SETTINGS: [(&str, &str); 16] = [
    ("net.ipv4.tcp_congestion_control", "reno"),
    ("net.ipv4.tcp_no_metrics_save", "1"),
    ("net.ipv4.tcp_syn_linear_timeouts", "0"),
    ("net.ipv4.tcp_comp_sack_nr", "0"),
    ("net.ipv4.tcp_autocorking", "0"),
    ("net.ipv4.tcp_early_retrans", "0"),
    ("net.ipv4.tcp_rmem", "4096 131072 6291456"),
    ("net.ipv4.tcp_wmem", "4096 65536 4194304"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.dad_transmits", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
    ("net.ipv4.icmp_ratelimit", "0"),
    ("net.ipv4.icmp_msgs_per_sec", "100000"),
    ("net.ipv6.icmp.ratelimit", "0"),
    ("net.ipv4.ping_group_range", "0 0"),
];

/// The kernel of a namespace that is made for one script.
#[derive(Debug)]
pub struct KernelSubject {
    namespace: Namespace,
    tap: Tap<'static>,
    sockets: BTreeMap<String, UdpSocket>,
    streams: KernelStreams,
    begin: Instant,
    interface_index: u32,
}

impl KernelSubject {
    /// A kernel that is as a script wants it.
    ///
    /// # Errors
    /// What could not be done, most likely for want of privilege or of the programs `ip` and `sh`.
    pub fn new(setup: &Setup) -> Result<Self, String> {
        let namespace = Namespace::new().map_err(|error| error.to_string())?;
        let settings = SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        namespace.run(|| settings.into_iter().try_for_each(|(name, value)| set(&name, &value)))?;
        let config = TapConfig { vnet_hdr: false, set_up: false, ..TapConfig::new(TapKind::Tap) };
        let tap = namespace.run(|| Tap::open(INTERFACE, config)).map_err(|error| error.to_string())?;
        let mut commands = interface_commands(&setup.host, setup.mtu);
        for gateway in &setup.gateways {
            let version = if gateway.is_ipv4() { "-4" } else { "-6" };
            commands.push(format!("ip {version} route add default via {gateway} dev {INTERFACE}"));
        }
        let mut shell = Command::new("sh");
        shell.args(["-c", &commands.join(" && ")]);
        let ended =
            namespace.run(|| output(&mut shell, PROGRAM_TIMEOUT)).map_err(|error| error.to_string())?;
        if !ended.status.success() {
            return Err(ended.to_string());
        }
        // Last: some are of the interface.
        namespace.run(|| setup.sysctls.iter().try_for_each(|(name, value)| set(name, value)))?;
        let interface_index = u32::try_from(tap.interface().index).unwrap_or(0);
        Ok(Self {
            namespace,
            tap,
            sockets: BTreeMap::new(),
            streams: KernelStreams::default(),
            begin: wait::now(),
            interface_index,
        })
    }

    fn socket(&self, name: &str) -> Result<&UdpSocket, String> {
        self.sockets.get(name).ok_or_else(|| format!("there is no socket `{name}`"))
    }

    /// A link-local address is on our interface.
    fn scoped(&self, address: SocketAddr) -> SocketAddr {
        match address {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() || v6.ip().is_multicast() => {
                SocketAddrV6::new(*v6.ip(), v6.port(), 0, self.interface_index).into()
            }
            _ => address,
        }
    }

    fn try_call(&mut self, call: &Call, patience: Duration) -> Result<io::Result<CallResult>, String> {
        let done = |result: io::Result<()>| result.map(|()| CallResult::Ok);
        let taken = |result: io::Result<usize>| result.map(|len| CallResult::Number(len as u64));
        Ok(match call {
            Call::Socket(name, SocketKind::Tcp, version) => {
                done(self.namespace.run(|| self.streams.open(name, *version)))
            }
            Call::Bind(name, address) if self.streams.has(name) => {
                done(self.streams.bind(name, &self.scoped(*address))?)
            }
            Call::Connect(name, address) if self.streams.has(name) => {
                done(self.streams.connect(name, &self.scoped(*address))?)
            }
            Call::Set(name, option, value) if self.streams.has(name) => {
                done(self.streams.set(name, *option, *value)?)
            }
            Call::Close(name) if self.streams.has(name) => done(self.streams.close(name, &self.namespace)?),
            Call::Tcp(_) => Ok(CallResult::Ok),
            Call::Socket(name, kind, version) => {
                let opened = self.namespace.run(|| open(*kind, *version));
                done(opened.map(|socket| {
                    self.sockets.insert(name.clone(), socket);
                }))
            }
            Call::Bind(name, address) => {
                let address = self.scoped(*address);
                done(rustix::net::bind(self.socket(name)?, &address).map_err(io::Error::from))
            }
            Call::Connect(name, address) => done(self.socket(name)?.connect(self.scoped(*address))),
            Call::SendTo(name, data, address) => {
                taken(self.socket(name)?.send_to(data, self.scoped(*address)))
            }
            Call::Send(name, data) => taken(self.socket(name)?.send(data)),
            Call::Recv(name) => receive(self.socket(name)?, patience),
            Call::Close(name) => {
                let socket =
                    self.sockets.remove(name).ok_or_else(|| format!("there is no socket `{name}`"))?;
                done(close(&self.namespace, socket))
            }
            Call::Set(name, option, value) => done(set_option(self.socket(name)?, *option, *value)),
            Call::Join(name, IpAddr::V6(group)) => {
                done(self.socket(name)?.join_multicast_v6(group, self.interface_index))
            }
            Call::Leave(name, IpAddr::V6(group)) => {
                done(self.socket(name)?.leave_multicast_v6(group, self.interface_index))
            }
            Call::Join(name, IpAddr::V4(group)) => {
                let socket = self.socket(name)?;
                let index = self.interface_index;
                let any = std::net::Ipv4Addr::UNSPECIFIED;
                done(
                    sockopt::set_ip_add_membership_with_ifindex(socket, group, &any, index)
                        .map_err(Into::into),
                )
            }
            Call::Leave(name, IpAddr::V4(group)) => {
                let socket = self.socket(name)?;
                let index = self.interface_index;
                let any = std::net::Ipv4Addr::UNSPECIFIED;
                done(
                    sockopt::set_ip_drop_membership_with_ifindex(socket, group, &any, index)
                        .map_err(Into::into),
                )
            }
        })
    }
}

impl Subject for KernelSubject {
    fn kind(&self) -> SubjectKind {
        SubjectKind::Kernel
    }

    fn now(&self) -> Instant {
        Instant::ZERO + (wait::now() - self.begin)
    }

    fn inject(&mut self, frame: &[u8]) -> Result<(), String> {
        let token = self.tap.transmit(wait::now()).ok_or("the interface takes no frame")?;
        token.consume(frame.len(), |room| room.copy_from_slice(frame));
        self.tap.flush().map_err(|error| error.to_string())
    }

    fn poll_frame(&mut self, deadline: Instant) -> Result<Option<(Instant, Vec<u8>)>, String> {
        let until = self.begin + (deadline - Instant::ZERO);
        loop {
            if let Some((token, _)) = self.tap.receive(wait::now()) {
                let frame = token.consume(<[u8]>::to_vec);
                return Ok(Some((self.now(), frame)));
            }
            if wait::now() >= until {
                return Ok(None);
            }
            self.tap.wait(Some(until)).map_err(|error| error.to_string())?;
        }
    }

    fn call(&mut self, call: &Call, wanted: &CallResult) -> Result<CallResult, String> {
        let waits = !matches!(wanted, CallResult::Error(name) if name == "WouldBlock");
        let patience = if waits { self.patience() } else { self.quiet() };
        let called = match call {
            Call::Tcp(call) => self.streams.call(call, wanted, patience, &self.namespace)?,
            call => self.try_call(call, patience)?,
        };
        Ok(match called {
            Ok(result) => result,
            Err(error) => CallResult::Error(error_name(&error)),
        })
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(3)
    }

    fn tolerance(&self) -> Duration {
        Duration::from_millis(1_500)
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(60)
    }
}

/// Commands that make the interface that of the host.
fn interface_commands(host: &End, mtu: u16) -> Vec<String> {
    let mac = print::value(&Value::Mac(host.mac));
    let mut commands = vec![format!("ip link set dev {INTERFACE} address {mac} mtu {mtu}")];
    // Without an address of ours the kernel would still speak IPv6, with one that it makes itself.
    if host.ipv6.is_none() {
        commands.insert(0, format!("echo 1 > /proc/sys/net/ipv6/conf/{INTERFACE}/disable_ipv6"));
    }
    if let Some((address, len)) = host.ipv4 {
        commands.push(format!("ip address add {address}/{len} broadcast + dev {INTERFACE}"));
    }
    commands.push(format!("ip link set dev {INTERFACE} up"));
    if let Some((address, len)) = host.ipv6 {
        commands.push(format!("ip -6 address add {address}/{len} dev {INTERFACE} nodad"));
    }
    commands
}

/// Writes a setting of the calling thread's namespace.
fn set(name: &str, value: &str) -> Result<(), String> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    match fs::write(&path, value) {
        // Of a kernel that does not have it, and in a container that has it as it should be.
        Err(_) if fs::read_to_string(&path).is_ok_and(|before| before.trim() == value) => Ok(()),
        result => result.map_err(|error| format!("cannot write {value} to {path}: {error}")),
    }
}

fn open(kind: SocketKind, version: IpVersion) -> io::Result<UdpSocket> {
    let family = match version {
        IpVersion::V4 => AddressFamily::INET,
        IpVersion::V6 => AddressFamily::INET6,
    };
    let (socket_type, protocol) = match (kind, version) {
        (SocketKind::Udp, _) => (SocketType::DGRAM, Some(ipproto::UDP)),
        (SocketKind::Icmp, IpVersion::V4) => (SocketType::DGRAM, Some(ipproto::ICMP)),
        (SocketKind::Icmp, IpVersion::V6) => (SocketType::DGRAM, Some(ipproto::ICMPV6)),
        (SocketKind::Raw(number), _) => {
            (SocketType::RAW, NonZeroU32::new(number.into()).map(Protocol::from_raw))
        }
        (SocketKind::Tcp, _) => (SocketType::STREAM, Some(ipproto::TCP)),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = socket_with(family, socket_type, flags, protocol)?;
    if version == IpVersion::V6 && kind == SocketKind::Udp {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket.into())
}

/// The next datagram or error, for which it waits a while.
fn receive(socket: &UdpSocket, patience: Duration) -> io::Result<CallResult> {
    let mut buffer = vec![0; 65_536];
    socket.set_nonblocking(false)?;
    // Zero would be for ever.
    socket.set_read_timeout(Some(std::time::Duration::from_micros(patience.total_micros().max(1))))?;
    let received = socket.recv_from(&mut buffer);
    socket.set_nonblocking(true)?;
    received.map(|(len, from)| {
        let from = match from {
            SocketAddr::V6(v6) => SocketAddr::new(IpAddr::V6(*v6.ip()), v6.port()),
            SocketAddr::V4(_) => from,
        };
        CallResult::Received(buffer[..len].to_vec(), Some(from))
    })
}

fn set_option(socket: &UdpSocket, option: SocketOption, value: u32) -> io::Result<()> {
    let is_v4 = sockopt::socket_domain(socket)? == AddressFamily::INET;
    match option {
        SocketOption::Ttl if is_v4 => Ok(sockopt::set_ip_ttl(socket, value)?),
        SocketOption::Ttl => {
            let hops = u8::try_from(value).map_err(|_| io::ErrorKind::InvalidInput)?;
            Ok(sockopt::set_ipv6_unicast_hops(socket, Some(hops))?)
        }
        SocketOption::Broadcast => socket.set_broadcast(value != 0),
        SocketOption::MulticastTtl if is_v4 => socket.set_multicast_ttl_v4(value),
        SocketOption::MulticastTtl => Ok(sockopt::set_ipv6_multicast_hops(socket, value)?),
        SocketOption::MulticastLoop if is_v4 => socket.set_multicast_loop_v4(value != 0),
        SocketOption::MulticastLoop => socket.set_multicast_loop_v6(value != 0),
        SocketOption::Errors if is_v4 => Ok(setsockopt(socket, Ipv4RecvErr, &(value != 0))?),
        SocketOption::Errors => Ok(setsockopt(socket, Ipv6RecvErr, &(value != 0))?),
        SocketOption::PathMtu if is_v4 => {
            let mode = match value {
                0 => sockopt::Ipv4PathMtuDiscovery::DONT,
                1 => sockopt::Ipv4PathMtuDiscovery::WANT,
                2 => sockopt::Ipv4PathMtuDiscovery::DO,
                _ => sockopt::Ipv4PathMtuDiscovery::PROBE,
            };
            Ok(sockopt::set_ip_mtu_discover(socket, mode)?)
        }
        SocketOption::PathMtu => {
            let mode = match value {
                0 => sockopt::Ipv6PathMtuDiscovery::DONT,
                1 => sockopt::Ipv6PathMtuDiscovery::WANT,
                2 => sockopt::Ipv6PathMtuDiscovery::DO,
                _ => sockopt::Ipv6PathMtuDiscovery::PROBE,
            };
            Ok(sockopt::set_ipv6_mtu_discover(socket, mode)?)
        }
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// The name of an error in scripts.
fn error_name(error: &io::Error) -> String {
    if error.raw_os_error() == Some(nix::libc::EMSGSIZE) {
        return "MessageTooLong".to_owned();
    }
    if let Some(nix::libc::EPROTO | nix::libc::ENOPROTOOPT) = error.raw_os_error() {
        return "ProtocolUnavailable".to_owned();
    }
    format!("{:?}", error.kind())
}
