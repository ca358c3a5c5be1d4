//! Opening connections.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use rand_core::Rng;
use rand_pcg::Pcg64Mcg;
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::IpAddress;
use wirestack_nic::Nic;

use crate::error::ConnectError;

use super::conn::{Connection, Origin};
use super::{Handler, Host};

/// Chooses source ports: RFC 6056 section 3.3.1, a random start and then upwards.
pub(super) struct PortChooser {
    range: RangeInclusive<u16>,
    rng: Pcg64Mcg,
}

impl PortChooser {
    pub(super) fn new(range: RangeInclusive<u16>, seed: u64) -> Self {
        Self { range, rng: Pcg64Mcg::new(u128::from(seed) << 64 | u128::from(!seed)) }
    }

    /// A port for which `is_free`; `None` if there is none.
    fn choose(&mut self, is_free: impl Fn(u16) -> bool) -> Option<u16> {
        let (first, last) = (u32::from(*self.range.start()), u32::from(*self.range.end()));
        let count = last.checked_sub(first)? + 1;
        let start = self.rng.next_u32() % count;
        // The sum stays below `last`, so it fits.
        (0..count).map(|step| (first + (start + step) % count) as u16).find(|&port| is_free(port))
    }
}

impl<'a, N: Nic> Host<'a, N> {
    /// Opens a connection. The handler is called first when the handshake is complete, or when it has
    /// failed ([`Conn::is_open`](super::Conn::is_open) is false then).
    ///
    /// # Errors
    /// The peer cannot be reached from this host's addresses, or ports or sockets are used up.
    pub fn connect(
        &mut self,
        remote: SocketAddr,
        now: Instant,
        handler: impl Handler + 'a,
    ) -> Result<SocketAddr, ConnectError> {
        let unaddressable = ConnectError::Unaddressable { remote };
        let address = IpAddress::from(remote.ip());
        let has_version =
            |version| self.iface.ip_addrs().iter().any(|cidr| cidr.address().version() == version);
        if remote.port() == 0 || !address.is_unicast() || !has_version(address.version()) {
            return Err(unaddressable);
        }
        let Some(local) = self.iface.get_source_address(&address) else { return Err(unaddressable) };
        let sockets = &self.sockets;
        let taken: Vec<u16> = self
            .connections
            .iter()
            .filter_map(|connection| sockets.get::<tcp::Socket<'_>>(connection.socket).local_endpoint())
            .map(|endpoint| endpoint.port)
            .chain(self.listeners.iter().map(|listener| listener.port))
            .collect();
        let Some(port) = self.ports.choose(|port| !taken.contains(&port)) else {
            return Err(ConnectError::NoPort { ports: self.ports.range.clone() });
        };
        let Some(socket) = self.tcp_socket() else {
            return Err(ConnectError::NoSocket { sockets_max: self.limits.sockets_max });
        };
        let tcp = self.sockets.get_mut::<tcp::Socket<'_>>(socket);
        if tcp.connect(self.iface.context(), remote, (local, port)).is_err() {
            self.retire(socket);
            return Err(unaddressable);
        }
        let mut connection = Connection::new(socket, now, Origin::Connect);
        connection.handler = Some(Box::new(handler));
        self.connections.push(connection);
        Ok(SocketAddr::new(local.into(), port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_from_the_range_and_all_of_them_do() {
        let mut chooser = PortChooser::new(100..=103, 7);
        let mut taken = Vec::new();
        while let Some(port) = chooser.choose(|port| !taken.contains(&port)) {
            taken.push(port);
        }
        taken.sort_unstable();
        assert_eq!(taken, [100, 101, 102, 103]);
        assert_eq!(PortChooser::new(1..=65535, 1).choose(|port| port == 65535), Some(65535));
    }

    #[test]
    fn the_seed_chooses_the_ports() {
        let run = |seed| {
            let mut chooser = PortChooser::new(61000..=65535, seed);
            (0..8).map(|_| chooser.choose(|_| true)).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
