//! Sockets for tasks of tokio, and of whatever else polls futures: hyper, rustls, tonic. The shards run on threads of
//! the [`driver`](crate::driver); no runtime of tokio is needed for the sockets themselves.
//!
//! ```no_run
//! use wirestack::config::parse_cidr;
//! use wirestack::driver::Launch;
//! use wirestack::nic::{AfPacket, AfPacketConfig};
//! use wirestack::shard::ShardConfig;
//! use wirestack::tokio::TcpListener;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let nic = AfPacket::open("eth0", AfPacketConfig::default())?;
//! let config = ShardConfig::new(nic.interface().mac).address(parse_cidr("10.0.0.2/24")?);
//! let driver = Launch::new(config).start(vec![nic])?;
//! wirestack::install(Some(driver.stack().clone()));
//!
//! let listener = TcpListener::bind("[::]:7").await?;
//! loop {
//!     let (stream, _) = listener.accept().await?;
//!     tokio::spawn(async move {
//!         let (mut reader, mut writer) = stream.into_split();
//!         tokio::io::copy(&mut reader, &mut writer).await
//!     });
//! }
//! # }
//! ```
//!
//! Types that name no stack use the [installed](install) one, so that porting a program is a change of `use` lines.

use std::io;

use super::installed::first;
use super::{Shared, ToEndpoint};

pub use super::installed::{install, installed};

/// A stack whose shards run on threads of the driver.
pub type Stack = super::Stack<Shared>;
/// A listener.
pub type TcpListener = super::TcpListener<Shared>;
/// A connection.
pub type TcpStream = super::TcpStream<Shared>;
/// Its reading half.
pub type OwnedReadHalf = super::OwnedReadHalf<Shared>;
/// Its writing half.
pub type OwnedWriteHalf = super::OwnedWriteHalf<Shared>;
/// A socket for datagrams.
pub type UdpSocket = super::UdpSocket<Shared>;

impl TcpListener {
    /// Listens on the installed stack.
    ///
    /// # Errors
    /// As std's; [`NotConnected`](io::ErrorKind::NotConnected): no stack is installed.
    pub async fn bind(endpoint: impl ToEndpoint) -> io::Result<Self> {
        let stack = installed()?;
        first(stack.resolve(endpoint).await?, |address| stack.listen(address))
    }
}

impl TcpStream {
    /// Connects on the installed stack, to the first address that answers (RFC 8305).
    ///
    /// # Errors
    /// As std's; [`NotConnected`](io::ErrorKind::NotConnected): no stack is installed.
    pub async fn connect(endpoint: impl ToEndpoint) -> io::Result<Self> {
        installed()?.connect_to(endpoint).await
    }
}

impl UdpSocket {
    /// Binds on the installed stack.
    ///
    /// # Errors
    /// As std's; [`NotConnected`](io::ErrorKind::NotConnected): no stack is installed.
    pub async fn bind(endpoint: impl ToEndpoint) -> io::Result<Self> {
        let stack = installed()?;
        first(stack.resolve(endpoint).await?, |address| stack.udp_bind(address))
    }

    /// Fixes whom it talks to: the first address to which there is a way.
    ///
    /// # Errors
    /// As std's.
    pub async fn connect(&self, endpoint: impl ToEndpoint) -> io::Result<()> {
        let addresses = match endpoint.to_endpoint()? {
            super::Endpoint::Addresses(addresses) => addresses,
            name @ super::Endpoint::Name(..) => installed()?.resolve(name).await?,
        };
        first(addresses, |address| self.connect_now(address))
    }
}
