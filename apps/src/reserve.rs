//! Who has an address or a port already: another process of ours, or a socket of the kernel.
//!
//! Nothing here outlives the process, however it ends: reservations are sockets. Names of abstract Unix
//! sockets are per network namespace, as interfaces are (unix(7)).

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, socket};
use wirestack::nic::Interface;
use wirestack::nic::claim::{Claim, Protocol, Scope};
use wirestack::{EthernetAddress, IpCidr};

use crate::addresses::AddressArg;
use crate::cli::HostArgs;
use crate::error::AppError;

/// Addresses and ports that no other program gets as long as this lives.
#[derive(Debug)]
pub(crate) struct Reservation {
    _addresses: Vec<UnixListener>,
    _ports: Vec<OwnedFd>,
}

impl Reservation {
    /// Reserves every address that is ours alone, and on addresses shared with the kernel every claimed
    /// port (ranges of source ports are apart from the kernel's own, so they need none).
    ///
    /// # Errors
    /// Somebody else has it.
    pub(crate) fn take(
        interface: &Interface,
        addresses: &[IpCidr],
        claims: &[Claim],
    ) -> Result<Self, AppError> {
        let is_shared =
            |address| claims.iter().any(|claim| claim.address == address && claim.scope != Scope::Address);
        let mut reservation = Self { _addresses: Vec::new(), _ports: Vec::new() };
        for cidr in addresses {
            let address = IpAddr::from(cidr.address());
            if is_shared(address) {
                continue;
            }
            let socket = reserve_address(interface, address).map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => AppError::flag(
                    "--address",
                    cidr,
                    format_args!("another wirestack process serves it on {}", interface.name),
                ),
                _ => AppError::flag("--address", cidr, error),
            })?;
            reservation._addresses.push(socket);
        }
        for claim in claims {
            let Scope::Ports { protocol, ports } = &claim.scope else { continue };
            if ports.start() != ports.end() {
                continue;
            }
            let address = socket_address(interface, claim.address, *ports.start());
            let socket = reserve_port(address, *protocol).map_err(|error| {
                AppError::flag("--port", ports.start(), format_args!("{address}: {error}"))
            })?;
            reservation._ports.push(socket);
        }
        Ok(reservation)
    }
}

/// Reserves what servers give to a hardware address: two programs with the same would get the same.
///
/// # Errors
/// Another process of ours asks with it.
pub(crate) fn leases(
    args: &HostArgs,
    interface: &Interface,
    mac: EthernetAddress,
) -> Result<Vec<UnixListener>, AppError> {
    let dynamic = args.addresses.iter().filter(|arg| !matches!(arg, AddressArg::Static(_)));
    let reserve = |arg: &AddressArg| {
        let name = format!("wirestack/lease/{}/{arg}/{mac}", interface.index);
        let bound = UnixAddr::from_abstract_name(name).and_then(|name| UnixListener::bind_addr(&name));
        bound.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                let problem =
                    format_args!("another wirestack process has it for {mac} on {}", interface.name);
                AppError::flag("--address", arg, problem)
            }
            _ => AppError::flag("--address", arg, error),
        })
    };
    dynamic.map(reserve).collect()
}

/// Reserves what lies between two interfaces, whichever is named first.
///
/// # Errors
/// `AddrInUse`: another process of ours has it.
pub(crate) fn reserve_pair(a: &Interface, b: &Interface) -> io::Result<UnixListener> {
    let (first, second) = (a.index.min(b.index), a.index.max(b.index));
    UnixListener::bind_addr(&UnixAddr::from_abstract_name(format!("wirestack/bridge/{first}/{second}"))?)
}

fn reserve_address(interface: &Interface, address: IpAddr) -> io::Result<UnixListener> {
    let name = format!("wirestack/address/{}/{address}", interface.index);
    UnixListener::bind_addr(&UnixAddr::from_abstract_name(name)?)
}

/// A link-local address means something on one interface only.
fn socket_address(interface: &Interface, address: IpAddr, port: u16) -> SocketAddr {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            SocketAddrV6::new(v6, port, 0, interface.index.unsigned_abs()).into()
        }
        _ => SocketAddr::new(address, port),
    }
}

/// A kernel socket that is bound and does nothing: no program of this host gets the port.
fn reserve_port(address: SocketAddr, protocol: Protocol) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrStorage::from(address))?;
    Ok(socket)
}
