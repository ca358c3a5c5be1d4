//! `wirestack echo`: TCP and UDP echo, RFC 862.
//!
//! | file | what it owns |
//! |---|---|
//! | [`blocking`] | the same with a thread for each connection |
//! | [`tasks`] | the same in tasks, of tokio or of the shard's own thread |
//! | `program` | these two on the stack |

pub mod blocking;
mod program;
pub mod tasks;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::net::{Ipv6Addr, SocketAddr};
use std::rc::Rc;

use wirestack::backend::smoltcp::Datagrams;
use wirestack::nic::claim::Protocol;
use wirestack::shard::{SendOptions, Shard, SocketId, UdpBind};

use crate::api::Api;
use crate::cli::EchoArgs;
use crate::engine::InTurn;
use crate::error::AppError;
use crate::serve::{Program, Service};
use crate::setup::{self, Ports};
use crate::stream::{Handler, Listening, Stream};

use program::OnApi;

/// Runs until a signal.
///
/// # Errors
/// What is wrong with the flags or the machine, in one line.
pub fn run(args: &EchoArgs) -> Result<(), AppError> {
    let ports = Ports {
        served: vec![args.port],
        protocols: &[Protocol::Tcp, Protocol::Udp],
        sources: &[Protocol::Tcp],
    };
    match Api::choose(args.api, Api::Poll, args.tcp.backend)? {
        Api::Poll => {
            let echo = Echo { port: args.port };
            setup::start(&args.host, ports, Program::new(echo, args.tcp.clone(), args.run.clone())?)
        }
        api => setup::start(&args.host, ports, OnApi::new(api, args)?),
    }
}

/// Echo on one port, both protocols.
#[derive(Debug, Clone)]
pub struct Echo {
    /// TCP and UDP.
    pub port: u16,
}

impl Service for Echo {
    const KIND: &'static str = "echo";

    fn listeners(&self) -> Vec<Listening> {
        let echo = EchoConnection::default();
        let accept = move |_: SocketAddr| Box::new(echo.clone()) as Box<dyn Handler>;
        vec![Listening { port: self.port, accept: Box::new(accept) }]
    }

    fn in_turn(&self, shard: &mut Shard) -> Result<InTurn, AppError> {
        // One socket for both IP versions.
        let local = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.port);
        let socket = shard
            .udp_bind(UdpBind::new(local))
            .map_err(|error| AppError::flag("--port", self.port, error))?;
        let mut buffer = Vec::new();
        let port = self.port;
        Ok(Box::new(move |shard: &mut Shard| echo_datagrams(shard, socket, port, &mut buffer)))
    }

    fn port(&self) -> u16 {
        self.port
    }
}

/// Sends back what comes; when the peer has finished and everything is sent back, finishes as well.
#[derive(Debug, Clone, Default)]
pub struct EchoConnection {
    /// For what is on its way back, of one connection after the other: clones share it.
    buffer: Rc<RefCell<Vec<u8>>>,
}

impl Handler for EchoConnection {
    fn ready(&mut self, stream: &mut dyn Stream) {
        let mut buffer = self.buffer.borrow_mut();
        loop {
            // No more than can be sent back now: what is left in the receive buffer closes the window, and the
            // peer waits. Without room one byte is tried, so that we are called again when there is.
            let len_max = stream.room().clamp(1, CHUNK_BYTES);
            buffer.clear();
            let came = stream.recv_with(&mut |bytes| {
                buffer.extend_from_slice(&bytes[..bytes.len().min(len_max)]);
                0
            });
            if came.is_none() {
                break;
            }
            let sent = stream.send(&buffer);
            if sent == 0 {
                return;
            }
            stream.recv_with(&mut |_| sent);
        }
        if stream.peer_finished() {
            stream.finish();
        }
    }
}

/// Sends every datagram back to where it came from, several at once if they came so. What finds no room to
/// be sent now is left where it is, and comes first in a later turn.
///
/// What comes from our own port is not answered: two echo services that one forged datagram has introduced to
/// each other would never end.
fn echo_datagrams(shard: &mut Shard, socket: SocketId, port: u16, buffer: &mut Vec<u8>) {
    while shard.has_room_for(DATAGRAM_ROOM_BYTES) {
        let received = shard.udp_recv_with(socket, |meta, payload| {
            buffer.clear();
            buffer.extend_from_slice(payload);
            (meta.src, meta.dst, meta.segment_bytes)
        });
        let Some((src, dst, segment_bytes)) = received else { return };
        if src.port() == port {
            log::debug!("{} bytes of {src} are not answered: it may be an echo service, too", buffer.len());
            continue;
        }
        // A group or broadcast address is none to answer from.
        let own = Some(dst.ip()).filter(|ip| shard.is_local(*ip) || ip.is_loopback());
        let options = SendOptions { to: Some(src), src: own, segment_bytes, ..SendOptions::default() };
        // Who cannot be answered does not stop the others.
        if let Err(error) =
            shard.udp_send_with(socket, &options, buffer.len(), |room| room.copy_from_slice(buffer))
        {
            log::debug!("{} bytes for {src}: {error}", buffer.len());
        }
    }
}

/// Sends every datagram back to where it came from, on a host of smoltcp's own.
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
/// The largest datagram with the headers of all its fragments.
const DATAGRAM_ROOM_BYTES: usize = 80_000;
