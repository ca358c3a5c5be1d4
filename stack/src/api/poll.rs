//! Run to completion on the caller's thread: events, and buffers that are seen in place. The fastest way.
//!
//! A [`Poll`] has a shard, its device and a [`Registry`] of sockets. [`Poll::run`] calls a handler for each [`Event`] inside
//! the turn in which it came up, so that an answer leaves in the turn in which the question came; [`Poll::poll`] collects
//! events for a loop of one's own, as mio does. Handlers work with [`Sockets`], a view of the shard, which lends buffers where they
//! lie: [`recv_with`](Sockets::recv_with), [`send_with`](Sockets::send_with).
//!
//! ```no_run
//! use std::io;
//! use wirestack::config::parse_cidr;
//! use wirestack::nic::{AfPacket, AfPacketConfig};
//! use wirestack::poll::{Poll, Sockets, Source, TcpId, Token};
//! use wirestack::shard::ShardConfig;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let nic = AfPacket::open("eth0", AfPacketConfig::default())?;
//!     let config = ShardConfig::new(nic.interface().mac).address(parse_cidr("10.0.0.2/24")?);
//!     let mut poll = Poll::new(nic, config)?;
//!     poll.sockets().tcp_listen("[::]:7".parse()?, Token(0))?;
//!     poll.run(|sockets, event| match event.source {
//!         // What is accepted is told of by events of its own.
//!         Source::Listener(listener) => while sockets.accept(listener).is_some() {},
//!         Source::Tcp(tcp) => {
//!             if let Err(error) = echo(sockets, tcp)
//!                 && error.kind() != io::ErrorKind::WouldBlock
//!             {
//!                 sockets.close(tcp);
//!             }
//!         }
//!         _ => {}
//!     })?;
//!     Ok(())
//! }
//!
//! fn echo(sockets: &mut Sockets<'_>, tcp: TcpId) -> io::Result<()> {
//!     let mut room = [0; 4_096];
//!     loop {
//!         // No more than can be sent back: what stays closes the peer's window.
//!         let len = room.len().min(sockets.room(tcp).max(1));
//!         let len = sockets.peek(tcp, &mut room[..len])?;
//!         if len == 0 {
//!             sockets.close(tcp); // what was written still leaves
//!             return Ok(());
//!         }
//!         let sent = sockets.send(tcp, &room[..len])?;
//!         sockets.recv(tcp, &mut room[..sent])?;
//!     }
//! }
//! ```
//!
//! # When events come
//!
//! Events are edge-triggered: one comes when something has happened (data, room after there was none, a connection, the end)
//! and not again before something more happens. So a handler reads and writes until it is told
//! [`WouldBlock`](std::io::ErrorKind::WouldBlock), and a listener is emptied. Who wants to stop earlier, to be fair to others or because
//! something else is not ready, says [`Sockets::again`]: the event comes again in the next turn, with what can be done then.
//! An event says what can be done now, whoever has caused it; it can come though there is nothing, and the
//! first call then says `WouldBlock`.
//!
//! A call that says `WouldBlock` leaves a mark: when it would not any more, an event comes. A connection that is accepted comes with
//! an event if the peer has spoken already; who speaks first can do so at once, or say
//! [`register`](Sockets::register), after which an event comes in any case.
//!
//! # Several cores
//!
//! A [`Registry`] without a `Poll` does the same in the turns of somebody else's loop, such as those of the
//! [`driver`](crate::driver): [`Registry::serve`] is called once in each.
//!
//! # When something goes wrong
//!
//! A handler that panics in [`Poll::run`] or [`Registry::serve`] loses its connection, which is closed, and nothing else. When the
//! interface was removed, `poll`, `run` and all calls of sockets say [`NetworkDown`](std::io::ErrorKind::NetworkDown).
//!
//! | file | what it owns |
//! |---|---|
//! | `event` | tokens, events, handles |
//! | `registry` | which socket has which token; timers; what is told when |
//! | `run` | the loop on the caller's thread, and its waker |
//! | `tcp`, `udp` | what is done with sockets |

mod event;
mod registry;
mod run;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

pub use event::{Event, Events, ListenerId, Source, TcpId, Token, UdpId};
pub use registry::{Registry, Sockets};
pub use run::{Poll, Waker};

pub use crate::timer::TimerId;
