//! Sockets for threads, with the names, the traits and the manners of `std::net`: porting a program is a change of `use`
//! lines, and one call of [`install`](super::install).
//!
//! ```no_run
//! use std::io::{Read, Write};
//!
//! use wirestack::blocking::{TcpListener, TcpStream};
//! use wirestack::config::parse_cidr;
//! use wirestack::driver::Launch;
//! use wirestack::nic::{AfPacket, AfPacketConfig};
//! use wirestack::shard::ShardConfig;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let nic = AfPacket::open("eth0", AfPacketConfig::default())?;
//! let config = ShardConfig::new(nic.interface().mac).address(parse_cidr("10.0.0.2/24")?);
//! let driver = Launch::new(config).start(vec![nic])?;
//! wirestack::install(Some(driver.stack().clone()));
//!
//! for stream in TcpListener::bind("[::]:7")?.incoming() {
//!     let mut stream: TcpStream = stream?;
//!     let mut room = [0; 1024];
//!     let len = stream.read(&mut room)?;
//!     stream.write_all(&room[..len])?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What is as in `std::net` on Linux, and not obvious:
//!
//! - timeouts and [`set_nonblocking`](TcpStream::set_nonblocking) are of the socket: clones share them. A timeout that is
//!   over is [`WouldBlock`](std::io::ErrorKind::WouldBlock);
//! - `write` returns when all was taken into the send buffer, unless there is a timeout, an error or no blocking;
//! - the failure of a connection is told once, to whoever reads or writes first; then reading finds the end, and writing
//!   is [`BrokenPipe`](std::io::ErrorKind::BrokenPipe);
//! - dropping the last handle of a connection with [`set_linger`](TcpStream::set_linger) of more than zero waits until the
//!   peer has acknowledged everything, for at most that time.
//!
//! What is not: there is no file descriptor, so nothing of `std::os::fd`; a name is looked up by the stack's own resolver,
//! and [`connect`](TcpStream::connect) does not wait for one address to fail before it tries the next (RFC 8305).
//!
//! | file | what it owns |
//! |---|---|
//! | `listener`, `stream`, `udp` | the handles |
//! | `park` | waiting, with a deadline |

mod listener;
mod park;
mod stream;
mod udp;

use std::future::Future;

pub use listener::{Incoming, TcpListener};
pub use stream::TcpStream;
pub use udp::UdpSocket;

/// Waits for a future: for what threads want of a stack that has no form of its own here, such as
/// [`wait_for_addresses`](super::Stack::wait_for_addresses).
pub fn block_on<F: Future>(future: F) -> F::Output {
    park::block_on_for_ever(future)
}
