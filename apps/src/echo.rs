//! `wirestack echo`: TCP and UDP echo, RFC 862.

use std::net::SocketAddr;

use wirestack::backend::smoltcp::{Conn, Datagrams, Host};
use wirestack::nic::Nic;
use wirestack::nic::claim::Protocol;

use crate::cli::EchoArgs;
use crate::error::AppError;
use crate::serve::{self, Service};
use crate::setup::{self, Ports};

/// Runs until a signal.
///
/// # Errors
/// What is wrong with the flags or the machine, in one line.
pub fn run(args: &EchoArgs) -> Result<(), AppError> {
    let ports = Ports { port: args.port, protocols: &[Protocol::Tcp, Protocol::Udp] };
    setup::start(&args.host, ports, serve::Program { service: Echo { port: args.port } })
}

/// Echo on one port, both protocols.
#[derive(Debug, Clone)]
pub struct Echo {
    /// TCP and UDP.
    pub port: u16,
}

impl Service for Echo {
    const KIND: &'static str = "echo";

    fn attach<N: Nic>(&self, host: &mut Host<'_, N>) -> Result<(), AppError> {
        let in_use = |error| AppError::flag("--port", self.port, error);
        host.listen(self.port, |_: SocketAddr| tcp()).map_err(in_use)?;
        host.bind_udp(self.port, udp()).map_err(in_use)
    }

    fn port(&self) -> u16 {
        self.port
    }
}

/// Sends back what comes; when the peer has closed and everything is sent back, closes as well.
pub fn tcp() -> impl FnMut(&mut Conn<'_, '_>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    move |conn: &mut Conn<'_, '_>| {
        loop {
            // No more than can be sent back now: what is left in the receive buffer closes the window,
            // and the peer waits.
            let len = conn.readable().min(conn.room()).min(buffer.len());
            if len == 0 {
                break;
            }
            let received = conn.recv(&mut buffer[..len]);
            conn.send(&buffer[..received]);
        }
        if conn.peer_finished() {
            conn.close();
        }
    }
}

/// Sends every datagram back to where it came from.
pub fn udp() -> impl FnMut(&mut Datagrams<'_, '_>) {
    let mut buffer = vec![0; 65_535];
    move |datagrams: &mut Datagrams<'_, '_>| {
        while let Some((len, peer)) = datagrams.recv(&mut buffer) {
            datagrams.send(peer, &buffer[..len]);
        }
    }
}

/// Bytes moved at once; one window fits.
const CHUNK_BYTES: usize = 64 << 10;
