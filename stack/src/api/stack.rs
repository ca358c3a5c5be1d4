//! All shards of a stack, and what is asked of them.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use smoltcp::time::{Duration, Instant};

use super::{Access, Sleep, TcpListener, TcpStream, UdpSocket};
use crate::demux::Steering;
use crate::tcp::TcpOptions;

/// A handle of a whole stack: one shard, or several, of which each has its own flows. Clones are of the same stack.
pub struct Stack<A: Access> {
    shards: Arc<[A]>,
    steering: Steering,
    /// Who gets the next connection of ours.
    next: Arc<AtomicUsize>,
}

/// How to listen, beside the address.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ListenOptions {
    /// Connections that may wait to be accepted, in each shard. `None`: 1024.
    pub backlog: Option<usize>,
    /// `[::]` means IPv6 only.
    pub v6_only: bool,
    /// Manners of what is accepted. `None`: those of the configuration.
    pub tcp: Option<TcpOptions>,
}

impl<A: Access> Stack<A> {
    pub(crate) fn new(shards: Vec<A>, steering: Steering) -> Self {
        Self { shards: shards.into(), steering, next: Arc::default() }
    }

    /// The shards, by their number.
    pub fn shards(&self) -> &[A] {
        &self.shards
    }

    /// Which flows are whose.
    pub fn steering(&self) -> Steering {
        self.steering
    }

    /// One shard after the other.
    pub(crate) fn next_shard(&self) -> &A {
        // There is one at least: nobody can make a stack without.
        &self.shards[self.next.fetch_add(1, Ordering::Relaxed) % self.shards.len()]
    }

    pub(crate) fn first_shard(&self) -> &A {
        &self.shards[0]
    }

    /// Listens on all shards.
    ///
    /// # Errors
    /// As std's `TcpListener::bind`.
    pub fn listen(&self, local: SocketAddr) -> io::Result<TcpListener<A>> {
        self.listen_with(local, ListenOptions::default())
    }

    /// The same, with options.
    ///
    /// # Errors
    /// As std's `TcpListener::bind`.
    pub fn listen_with(&self, local: SocketAddr, options: ListenOptions) -> io::Result<TcpListener<A>> {
        TcpListener::open(self, local, options)
    }

    /// Connects to an address.
    ///
    /// # Errors
    /// As std's `TcpStream::connect`.
    pub fn connect(&self, remote: SocketAddr) -> impl Future<Output = io::Result<TcpStream<A>>> + use<A> {
        TcpStream::open(self, remote, None, None)
    }

    /// The same, from this address of ours (port 0: one that is chosen) and with these manners.
    ///
    /// # Errors
    /// As std's `TcpStream::connect`.
    pub fn connect_with(
        &self,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        options: Option<TcpOptions>,
    ) -> impl Future<Output = io::Result<TcpStream<A>>> + use<A> {
        TcpStream::open(self, remote, local, options)
    }

    /// A socket for datagrams, on all shards.
    ///
    /// # Errors
    /// As std's `UdpSocket::bind`.
    pub fn udp_bind(&self, local: SocketAddr) -> io::Result<UdpSocket<A>> {
        UdpSocket::open(self, local)
    }

    /// The time of the clock that deadlines are told by.
    pub fn now(&self) -> Instant {
        wirestack_nic::wait::now()
    }

    /// Waits so long.
    pub fn sleep(&self, time: Duration) -> Sleep<A> {
        self.sleep_until(self.now() + time)
    }

    /// Waits until then.
    pub fn sleep_until(&self, until: Instant) -> Sleep<A> {
        Sleep::new(self.next_shard().clone(), until)
    }

    /// Addresses that can be used now, in all shards.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = self.first_shard().with(|hub| {
            let usable = hub.shard_ref().addresses().filter(|address| address.is_usable());
            usable.map(|address| IpAddr::from(address.cidr.address())).collect()
        });
        for shard in &self.shards[1..] {
            shard.with(|hub| {
                let is_usable = |ip: &IpAddr| {
                    hub.shard_ref().addresses().any(|address| address.ip() == *ip && address.is_usable())
                };
                addresses.retain(is_usable);
            });
        }
        addresses
    }

    /// Waits until each of these addresses can be used, or `timeout` is over. Some of them are probed before that, and
    /// others have to come from a server.
    ///
    /// # Errors
    /// The first one that cannot.
    pub async fn wait_for_addresses(&self, wanted: &[IpAddr], timeout: Duration) -> io::Result<()> {
        let give_up = self.now() + timeout;
        for address in wanted {
            while !self.addresses().contains(address) {
                if let Some(fault) = self.first_shard().with(|hub| hub.fault()) {
                    return Err(fault.into());
                }
                if self.now() >= give_up {
                    let problem =
                        format!("{address} cannot be used: it is none of ours, or another host has it");
                    return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, problem));
                }
                self.sleep(ADDRESS_LOOK_INTERVAL).await;
            }
        }
        Ok(())
    }
}

impl<A: Access> Clone for Stack<A> {
    fn clone(&self) -> Self {
        Self { shards: Arc::clone(&self.shards), steering: self.steering, next: Arc::clone(&self.next) }
    }
}

impl<A: Access> fmt::Debug for Stack<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

/// A probe of an address takes a fifth of a second.
const ADDRESS_LOOK_INTERVAL: Duration = Duration::from_millis(10);
