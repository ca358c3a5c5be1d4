//! Whether the kernel would answer for our address.

use std::fs;
use std::io;
use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;

use super::check_interface;
use super::netlink::{HEADER_LEN, messages, receive_queued};

/// Whether a guard is needed, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The kernel is silent for the address as it is.
    None,
    /// The kernel takes packets to the address for its own: it resets connections that it does not
    /// know, and answers with ICMP. Claim ports ([`Scope::Ports`](crate::claim::Scope::Ports)).
    KernelOwnsAddress,
    /// The kernel forwards packets to the address, or answers that it cannot: forwarding is on, and we
    /// use the MAC address of the interface. Claim the address ([`Scope::Address`](crate::claim::Scope::Address)).
    KernelForwards,
}

/// Finds out whether the kernel would answer for `address`, if a stack used it on `interface`.
///
/// `own_mac`: the stack has a MAC address of its own. Frames to it are not for the kernel
/// (`PACKET_OTHERHOST`), so forwarding does not matter.
///
/// The kernel owns an address if an interface of this network namespace has it, or if it routes it to
/// itself (a `local` route, as for 127.0.0.0/8 or an AnyIP prefix). It forwards if the sysctl
/// `forwarding` is on for the interface, or for `all` (Documentation/networking/ip-sysctl.rst): IPv4
/// heeds the former, IPv6 the latter. A host that does not forward drops such packets in silence.
///
/// # Errors
/// `interface` does not exist, or a question to the kernel failed. A missing sysctl is no error (the
/// kernel has no IPv6).
pub fn assess(interface: &str, address: IpAddr, own_mac: bool) -> io::Result<Need> {
    check_interface(interface)?;
    let index = if_nametoindex(interface)?;
    if has_address(address)? || routes_to_itself(address, index)? {
        return Ok(Need::KernelOwnsAddress);
    }
    if !own_mac && forwards(interface, address)? {
        return Ok(Need::KernelForwards);
    }
    Ok(Need::None)
}

/// Whether an interface has the address. The local table holds it as well, but not before duplicate
/// address detection has ended.
fn has_address(address: IpAddr) -> io::Result<bool> {
    let has = |storage: nix::sys::socket::SockaddrStorage| match address {
        IpAddr::V4(address) => storage.as_sockaddr_in().is_some_and(|found| found.ip() == address),
        IpAddr::V6(address) => storage.as_sockaddr_in6().is_some_and(|found| found.ip() == address),
    };
    Ok(getifaddrs()?.any(|interface| interface.address.is_some_and(has)))
}

/// Whether the kernel's route to the address is of type `local`.
fn routes_to_itself(address: IpAddr, index: u32) -> io::Result<bool> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.send_to(&route_request(address, index), &SocketAddr::new(0, 0), 0)?;
    let Some(datagram) = receive_queued(&socket)? else {
        return Err(io::Error::other("the kernel did not answer a question for a route"));
    };
    Ok(messages(&datagram).any(|message| {
        // No route at all comes as an NLMSG_ERROR. `struct rtmsg`: byte 7 is the type.
        message.kind == libc::RTM_NEWROUTE && message.payload.get(7) == Some(&libc::RTN_LOCAL)
    }))
}

/// RTM_GETROUTE for one address: `nlmsghdr`, `rtmsg`, RTA_DST and, where an address has a meaning on
/// one link only, RTA_OIF (rtnetlink(7)).
fn route_request(address: IpAddr, index: u32) -> Vec<u8> {
    let (family, octets, link_local) = match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec(), false),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec(), address.is_unicast_link_local()),
    };
    // Both are at most 128, and the family at most 10.
    let mut body = vec![family as u8, (octets.len() * 8) as u8];
    body.resize(RTMSG_LEN, 0);
    push_attribute(&mut body, libc::RTA_DST, &octets);
    if link_local {
        push_attribute(&mut body, libc::RTA_OIF, &index.to_ne_bytes());
    }
    let mut request = ((HEADER_LEN + body.len()) as u32).to_ne_bytes().to_vec();
    request.extend(libc::RTM_GETROUTE.to_ne_bytes());
    request.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    request.resize(HEADER_LEN, 0);
    request.extend(body);
    request
}

/// Appends an attribute whose value is a multiple of 4 bytes, at most 16.
fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend((4 + value.len() as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

/// Whether the kernel forwards what comes in from the interface.
fn forwards(interface: &str, address: IpAddr) -> io::Result<bool> {
    let switches: &[&str] = match address {
        IpAddr::V4(_) => &["forwarding"],
        // Linux 6.17 and newer can force it for one interface.
        IpAddr::V6(_) => &["forwarding", "force_forwarding"],
    };
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    for scope in [interface, "all"] {
        for switch in switches {
            match fs::read_to_string(format!("/proc/sys/net/{family}/conf/{scope}/{switch}")) {
                Ok(value) if value.trim() != "0" => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(false)
}

const RTMSG_LEN: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    /// The loopback interface of any namespace; nothing is sent.
    #[test]
    fn the_kernel_owns_its_loopback_addresses() {
        let need = |address: &str, own_mac| assess("lo", address.parse().unwrap(), own_mac).unwrap();
        for address in ["127.0.0.1", "127.1.2.3"] {
            assert_eq!(need(address, true), Need::KernelOwnsAddress, "{address}");
            assert_eq!(need(address, false), Need::KernelOwnsAddress, "{address}");
        }
        assert_eq!(need("192.0.2.77", true), Need::None, "TEST-NET-1 is nobody's");
    }

    #[test]
    fn an_interface_that_is_not_there() {
        let address = "192.0.2.1".parse().unwrap();
        let error = assess("no-such-nic", address, false).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        for name in ["", "../../x", "a-name-that-is-too-long"] {
            let error = assess(name, address, false).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}");
        }
    }
}
