//! Addresses and limits of a host. Every limit has a name and a unit, and is in this file.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use managed::ManagedSlice;
use smoltcp::iface::SocketStorage;
use smoltcp::time::Duration;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, Ipv6Address};

use crate::error::{CidrError, ConfigError};

/// What a host is, and how much it may hold. Storage may be borrowed or owned ([`ManagedSlice`]).
#[derive(Debug)]
pub struct HostConfig<'a> {
    /// Hardware address that the host answers with.
    pub mac: EthernetAddress,
    /// Addresses of the host with the length of their prefix; at least one, [`ADDRESSES_MAX`] at most.
    pub addresses: Vec<IpCidr>,
    /// Routers for what is not on a prefix of ours; one for each IP version at most.
    pub gateways: Vec<IpAddr>,
    /// Seed of initial sequence numbers and source ports. A server takes it from the system's
    /// randomness; a test chooses it, and with it the run.
    pub seed: u64,
    /// Room for sockets. Owned: grows up to `sockets_max`. Borrowed: its length is a limit as well.
    pub sockets: ManagedSlice<'a, SocketStorage<'a>>,
    /// TCP connections, half-open ones and those in TIME-WAIT included, and UDP ports, together.
    pub sockets_max: usize,
    /// Bytes that a connection holds for its application to read; also its largest window.
    /// [`RECV_BUFFER_BYTES_MAX`] at most.
    pub recv_buffer_bytes: usize,
    /// Bytes that a connection holds until the peer has acknowledged them.
    pub send_buffer_bytes: usize,
    /// Source ports of outgoing connections. On an address that the kernel owns too, the range is
    /// guarded as a whole.
    pub source_ports: RangeInclusive<u16>,
    /// Whether a host with IPv6 addresses takes the link-local one that its hardware address makes, as
    /// every node does (RFC 4291 section 2.1). Not beside a kernel that has made the same address from
    /// the same hardware address.
    pub takes_link_local: bool,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How long a peer may leave data or keepalives without an answer.
    pub user_timeout: Duration,
}

impl HostConfig<'_> {
    /// A host with this hardware address, default limits, and no IP address yet.
    pub fn new(mac: EthernetAddress) -> Self {
        Self {
            mac,
            addresses: Vec::new(),
            gateways: Vec::new(),
            seed: 0,
            sockets: ManagedSlice::Owned(Vec::new()),
            sockets_max: 512,
            recv_buffer_bytes: RECV_BUFFER_BYTES_MAX,
            send_buffer_bytes: 256 << 10,
            source_ports: SOURCE_PORTS,
            takes_link_local: true,
            handshake_timeout: Duration::from_secs(10),
            user_timeout: Duration::from_secs(300),
        }
    }

    /// Adds an address.
    #[must_use]
    pub fn address(mut self, address: IpCidr) -> Self {
        self.addresses.push(address);
        self
    }

    /// The link-local address that every IPv6 node has (RFC 4291 section 2.1), from the MAC address
    /// (appendix A), if the host has IPv6 at all and was not given one. The host answers for it as for
    /// those in `addresses`.
    pub fn link_local(&self) -> Option<IpCidr> {
        let is_v6 = |cidr: &&IpCidr| matches!(cidr, IpCidr::Ipv6(_));
        let is_link_local =
            |cidr: &IpCidr| matches!(cidr.address(), IpAddress::Ipv6(v6) if v6.is_unicast_link_local());
        let has_v6 = self.addresses.iter().find(is_v6).is_some();
        if !self.takes_link_local || !has_v6 || self.addresses.iter().any(is_link_local) {
            return None;
        }
        let identifier = self.mac.as_eui_64()?;
        let mut octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        octets[8..].copy_from_slice(&identifier);
        Some(IpCidr::new(Ipv6Address::from(octets).into(), 64))
    }

    /// Checks everything that would otherwise be found out later.
    ///
    /// # Errors
    /// The first field that is out of its bounds.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.addresses.is_empty() {
            return Err(ConfigError::NoAddress);
        }
        if self.addresses.len() > ADDRESSES_MAX {
            return Err(ConfigError::TooManyAddresses { count: self.addresses.len() });
        }
        for cidr in &self.addresses {
            check_host_address(*cidr)?;
        }
        for (position, &gateway) in self.gateways.iter().enumerate() {
            if self.gateways[..position].iter().any(|other| other.is_ipv4() == gateway.is_ipv4()) {
                return Err(ConfigError::TwoGateways { gateway });
            }
            if !self.addresses.iter().any(|cidr| cidr.contains_addr(&gateway.into())) {
                return Err(ConfigError::GatewayOffLink { gateway });
            }
        }
        self.check_limits()
    }

    /// The part of [`check`](Self::check) that is not about addresses: those of a host over a shard are the
    /// shard's.
    ///
    /// # Errors
    /// The first limit that is out of its bounds.
    pub fn check_limits(&self) -> Result<(), ConfigError> {
        if self.recv_buffer_bytes == 0 || self.recv_buffer_bytes > RECV_BUFFER_BYTES_MAX {
            return Err(ConfigError::RecvBuffer { bytes: self.recv_buffer_bytes });
        }
        if self.send_buffer_bytes == 0 {
            return Err(ConfigError::SendBuffer);
        }
        if self.source_ports.is_empty() || *self.source_ports.start() == 0 {
            return Err(ConfigError::SourcePorts { ports: self.source_ports.clone() });
        }
        let storage = match &self.sockets {
            ManagedSlice::Borrowed(slots) => slots.len(),
            ManagedSlice::Owned(_) => usize::MAX,
        };
        if self.sockets_max == 0 || self.sockets_max > storage {
            return Err(ConfigError::Sockets { sockets_max: self.sockets_max, storage });
        }
        Ok(())
    }
}

pub(crate) fn check_host_address(cidr: IpCidr) -> Result<(), ConfigError> {
    let address = cidr.address();
    if !address.is_unicast() || IpAddr::from(address).is_loopback() {
        return Err(ConfigError::NotAHostAddress { address: cidr });
    }
    if let IpCidr::Ipv4(v4) = cidr {
        // With /31 (RFC 3021) and /32 every address is a host's.
        let is_network = v4.prefix_len() < 31 && v4.network().address() == v4.address();
        if is_network || v4.broadcast() == Some(v4.address()) {
            return Err(ConfigError::NotAHostAddress { address: cidr });
        }
    }
    Ok(())
}

/// Reads an address with its prefix length, `10.0.0.2/24` or `fd00::2/64`.
///
/// # Errors
/// Which half is missing or wrong, and what is accepted.
pub fn parse_cidr(text: &str) -> Result<IpCidr, CidrError> {
    let (address, prefix) = text.split_once('/').ok_or(CidrError::NoPrefix)?;
    let address: IpAddr = address.parse().map_err(|_| CidrError::Address)?;
    let prefix_max = if address.is_ipv4() { 32 } else { 128 };
    match prefix.parse::<u8>() {
        Ok(prefix) if prefix <= prefix_max => Ok(IpCidr::new(address.into(), prefix)),
        _ => Err(CidrError::Prefix { prefix_max }),
    }
}

/// Addresses of one host: the engine's table has 8, and one is the link-local address of IPv6.
pub const ADDRESSES_MAX: usize = 7;
/// A receive buffer beyond an unscaled window would let a peer write outside it: in smoltcp 0.14 the
/// window that it offers in a SYN is shifted by the scale afterwards.
pub const RECV_BUFFER_BYTES_MAX: usize = 65_535;
/// Default source ports: above the kernel's default `ip_local_port_range` (32768-60999), so that they can
/// be guarded on a shared address.
pub const SOURCE_PORTS: RangeInclusive<u16> = 61_000..=65_535;

#[cfg(test)]
mod tests {
    use super::*;

    fn host<'a>(addresses: &[&str]) -> HostConfig<'a> {
        let mut config = HostConfig::new(EthernetAddress([2, 0, 0, 0, 0, 1]));
        config.addresses = addresses.iter().map(|text| parse_cidr(text).expect("a test's address")).collect();
        config
    }

    #[test]
    fn cidrs_are_read() {
        assert_eq!(parse_cidr("10.0.0.2/24").expect("good").to_string(), "10.0.0.2/24");
        assert_eq!(parse_cidr("fd00::2/64").expect("good").to_string(), "fd00::2/64");
        for (text, words) in [
            ("10.0.0.2", "prefix length is missing"),
            ("10.0.0.2/33", "0 to 32"),
            ("fd00::2/129", "0 to 128"),
            ("10.0.0.2/", "0 to 32"),
            ("10.0.0.2/-1", "0 to 32"),
            ("10.0.0/24", "no IPv4 or IPv6 address"),
            ("host/24", "no IPv4 or IPv6 address"),
            ("", "prefix length is missing"),
        ] {
            let error = parse_cidr(text).expect_err(text).to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_good_host_passes() {
        let mut config = host(&["10.0.0.2/24", "fd00::2/64", "192.0.2.0/31", "192.0.2.9/32"]);
        config.gateways = vec!["10.0.0.1".parse().expect("good"), "fd00::1".parse().expect("good")];
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn every_bound_is_checked() {
        let gateway = |text: &str| text.parse().expect("a test's gateway");
        fn good<'a>() -> HostConfig<'a> {
            host(&["10.0.0.2/24"])
        }
        let slots = Box::leak(Box::new([SocketStorage::EMPTY, SocketStorage::EMPTY]));
        let cases: Vec<(HostConfig<'_>, &str)> = vec![
            (host(&[]), "at least one"),
            (host(&["10.0.0.2/24"; 8]), "8 addresses"),
            (host(&["10.0.0.0/24"]), "10.0.0.0/24"),
            (host(&["10.0.0.255/24"]), "10.0.0.255/24"),
            (host(&["127.0.0.1/8"]), "127.0.0.1/8"),
            (host(&["224.0.0.1/4"]), "224.0.0.1/4"),
            (host(&["::/64"]), "::/64"),
            (HostConfig { gateways: vec![gateway("10.0.1.1")], ..good() }, "10.0.1.1"),
            (HostConfig { gateways: vec![gateway("10.0.0.1"), gateway("10.0.0.3")], ..good() }, "10.0.0.3"),
            (HostConfig { recv_buffer_bytes: 65_536, ..good() }, "1 to 65535"),
            (HostConfig { send_buffer_bytes: 0, ..good() }, "send_buffer_bytes"),
            (HostConfig { source_ports: 0..=100, ..good() }, "0-100"),
            (HostConfig { sockets_max: 0, ..good() }, "sockets_max 0"),
            (HostConfig { sockets_max: 3, sockets: (&mut slots[..]).into(), ..good() }, "sockets_max 3"),
        ];
        for (config, words) in cases {
            let error = config.check().expect_err(words).to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
