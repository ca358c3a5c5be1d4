//! A host on smoltcp's `Interface` and sockets.
//!
//! One [`Host`] is one device, its addresses, and the applications on them. It is driven by its owner:
//! [`Host::turn`] does everything that is to be done at a point in time and tells the next one;
//! [`Host::run`] is that in a loop with the device's sleep.
//!
//! What smoltcp lacks and this module adds: a listener that accepts many connections (spare sockets,
//! replenished after every frame), bounded turns, timeouts of handshakes, sockets used again. What it
//! cannot add: each frame costs time in proportion to the number of sockets, and loss recovery,
//! congestion control and resistance to hostile peers are those of smoltcp. So this engine is for a
//! first light, for comparisons and for friendly networks; see `sockets_max`.

mod conn;
mod connect;
mod listen;
mod over;
mod turn;
mod udp;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::Medium;
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::HardwareAddress;
use wirestack_nic::wait;
use wirestack_nic::{LinkError, Nic};

use crate::config::HostConfig;
use crate::error::ConfigError;

pub use conn::{Conn, Handler};
pub use over::{InTurn, Over};
pub use udp::{Datagrams, Peer};

use conn::Connection;
use listen::Listener;
use udp::UdpPort;

#[cfg(test)]
mod tests;

/// A TCP/IP host on one device. `'a` is the life of borrowed storage and of the applications.
pub struct Host<'a, N> {
    nic: N,
    iface: Interface,
    sockets: SocketSet<'a>,
    listeners: Vec<Listener<'a>>,
    connections: Vec<Connection<'a>>,
    udp_ports: Vec<UdpPort<'a>>,
    /// Sockets that are in no list: used again before new ones are made.
    idle: Vec<smoltcp::iface::SocketHandle>,
    /// Sockets in `sockets`, in whatever list.
    sockets_made: usize,
    ports: connect::PortChooser,
    /// Frames that the last datagram beyond the MTU takes, until they are sent.
    fragments: usize,
    /// Datagrams were left where they were because of such a one.
    udp_interrupted: bool,
    limits: Limits,
    stats: HostStats,
}

/// The limits of a [`HostConfig`] that are needed after the start.
#[derive(Debug, Clone)]
struct Limits {
    sockets_max: usize,
    recv_buffer_bytes: usize,
    send_buffer_bytes: usize,
    handshake_timeout: smoltcp::time::Duration,
    user_timeout: smoltcp::time::Duration,
}

impl Limits {
    /// A new socket with buffers of the configured lengths.
    fn tcp_socket<'s>(&self) -> tcp::Socket<'s> {
        let recv_buffer = tcp::SocketBuffer::new(vec![0; self.recv_buffer_bytes]);
        let send_buffer = tcp::SocketBuffer::new(vec![0; self.send_buffer_bytes]);
        tcp::Socket::new(recv_buffer, send_buffer)
    }
}

/// What a host has counted since it was made. All are monotonic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostStats {
    /// Connections that peers opened to us and whose handshake is complete.
    pub accepted: u64,
    /// Connections that we opened and whose handshake is complete.
    pub connected: u64,
    /// Handshakes that took longer than `handshake_timeout`.
    pub handshakes_timed_out: u64,
    /// Connections in TIME-WAIT, or with a RST that could not be sent yet, that were forgotten early for
    /// want of sockets.
    pub recycled: u64,
    /// Ends of connections of which the peer was not told: there was no way to it any more.
    pub resets_unsent: u64,
    /// Datagrams that were thrown away because one before them could not be sent.
    pub datagrams_unsent: u64,
    /// Turns of the loop.
    pub turns: u64,
}

impl HostStats {
    /// Name and value of every count, in the order of the fields.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let Self {
            accepted,
            connected,
            handshakes_timed_out,
            recycled,
            resets_unsent,
            datagrams_unsent,
            turns,
        } = *self;
        [
            ("accepted", accepted),
            ("connected", connected),
            ("handshakes_timed_out", handshakes_timed_out),
            ("recycled", recycled),
            ("resets_unsent", resets_unsent),
            ("datagrams_unsent", datagrams_unsent),
            ("turns", turns),
        ]
        .into_iter()
    }
}

impl<'a, N: Nic> Host<'a, N> {
    /// Makes a host on a device. Nothing is sent yet.
    ///
    /// # Errors
    /// The first field of the configuration that is out of its bounds.
    pub fn new(nic: N, config: HostConfig<'a>) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self::with_checked(nic, config))
    }

    fn with_checked(mut nic: N, config: HostConfig<'a>) -> Self {
        let hardware = match nic.capabilities().medium {
            Medium::Ethernet => HardwareAddress::Ethernet(config.mac),
            Medium::Ip => HardwareAddress::Ip,
        };
        let mut iface_config = Config::new(hardware);
        iface_config.random_seed = config.seed;
        let mut iface = Interface::new(iface_config, &mut nic, Instant::ZERO);
        iface.update_ip_addrs(|addresses| {
            // The table has room for one more than ADDRESSES_MAX, which `check` has seen to.
            for &address in config.addresses.iter().chain(&config.link_local()) {
                let _ = addresses.push(address);
            }
        });
        for &gateway in &config.gateways {
            // One route for each version, which `check` has seen to; the table has room for both.
            let _ = match gateway {
                std::net::IpAddr::V4(gateway) => iface.routes_mut().add_default_ipv4_route(gateway),
                std::net::IpAddr::V6(gateway) => iface.routes_mut().add_default_ipv6_route(gateway),
            };
        }
        Self {
            nic,
            iface,
            ports: connect::PortChooser::new(config.source_ports, config.seed),
            sockets: SocketSet::new(config.sockets),
            listeners: Vec::new(),
            connections: Vec::new(),
            udp_ports: Vec::new(),
            idle: Vec::new(),
            sockets_made: 0,
            fragments: 0,
            udp_interrupted: false,
            limits: Limits {
                sockets_max: config.sockets_max,
                recv_buffer_bytes: config.recv_buffer_bytes,
                send_buffer_bytes: config.send_buffer_bytes,
                handshake_timeout: config.handshake_timeout,
                user_timeout: config.user_timeout,
            },
            stats: HostStats::default(),
        }
    }

    /// Turns and sleeps until `stop` says so; it is asked once a turn, and after each wake-up of the
    /// device's waker. An interface that is down is waited for.
    ///
    /// # Errors
    /// [`LinkError::Gone`]: the interface was removed.
    pub fn run(&mut self, mut stop: impl FnMut(&mut Self) -> bool) -> Result<(), LinkError> {
        while !stop(self) {
            let deadline = self.turn(wait::now());
            match self.nic.wait(deadline) {
                Ok(_) | Err(LinkError::Down) => {}
                Err(LinkError::Gone) => return Err(LinkError::Gone),
            }
        }
        Ok(())
    }

    /// Stops listening and closes every connection: what was written is still sent, then a FIN.
    /// [`is_quiet`](Self::is_quiet) tells when that is done.
    pub fn close(&mut self) {
        for listener in std::mem::take(&mut self.listeners) {
            if let Some(handle) = listener.into_spare() {
                self.retire(handle);
            }
        }
        for connection in &self.connections {
            self.sockets.get_mut::<tcp::Socket<'_>>(connection.socket).close();
        }
    }

    /// Whether no connection has anything left to send or to be acknowledged.
    pub fn is_quiet(&self) -> bool {
        self.connections.iter().all(|connection| {
            let socket = self.sockets.get::<tcp::Socket<'_>>(connection.socket);
            matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait | tcp::State::FinWait2)
        })
    }

    /// Ends every connection at once; the next turn sends a RST for each. One in TIME-WAIT has ended
    /// already, and its peer need not hear of it (RFC 9293 section 3.10.5).
    pub fn abort(&mut self) {
        for connection in &self.connections {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(connection.socket);
            if socket.state() != tcp::State::TimeWait {
                socket.abort();
            }
        }
    }

    /// The device.
    pub fn nic(&mut self) -> &mut N {
        &mut self.nic
    }

    /// What was counted.
    pub fn stats(&self) -> HostStats {
        self.stats
    }

    /// Connections that exist now, half-open ones and those in TIME-WAIT included.
    pub fn connections_len(&self) -> usize {
        self.connections.len()
    }
}
