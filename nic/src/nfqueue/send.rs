//! Sending IP packets with their headers through raw sockets, many with one system call.

use std::io::IoSlice;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use managed::ManagedSlice;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, SockaddrLike, sendmmsg,
};

use crate::Counters;
use crate::slot::Slot;

/// Packets that wait for the next flush, in the order in which they were written.
#[derive(Debug)]
pub(super) struct Outbox<'a> {
    v4: OwnedFd,
    /// None: the kernel has no IPv6.
    v6: Option<OwnedFd>,
    slots: ManagedSlice<'a, Slot<'a>>,
    first: usize,
    len: usize,
    /// Through which packets to link-local addresses go.
    pub(super) interface_index: u32,
}

impl<'a> Outbox<'a> {
    pub(super) fn new(v4: OwnedFd, v6: Option<OwnedFd>, slots: ManagedSlice<'a, Slot<'a>>) -> Self {
        Self { v4, v6, slots, first: 0, len: 0, interface_index: 0 }
    }

    pub(super) fn has_room(&self) -> bool {
        self.len < self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Lets `f` write a packet into a free slot. Without one, or if it does not fit, it is lost.
    pub(super) fn write<R>(
        &mut self,
        counters: &mut Counters,
        len: usize,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let index = (self.first + self.len) % self.slots.len().max(1);
        let has_room = self.has_room();
        match self.slots.get_mut(index).filter(|_| has_room).and_then(|slot| slot.fill(len)) {
            Some(room) => {
                self.len += 1;
                f(room)
            }
            None => {
                counters.tx_oversize += 1;
                f(&mut vec![0; len])
            }
        }
    }

    /// Hands packets to the kernel until it takes no more. One that it will never take is counted.
    pub(super) fn flush(&mut self, counters: &mut Counters) {
        while self.len > 0 {
            match self.send_run(counters) {
                Ok(sent) => self.advance(sent, counters),
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::EINTR) => return,
                Err(errno) => {
                    // No route, longer than the MTU of the path, or a rule in OUTPUT (EPERM).
                    log::debug!("a packet was not sent: {errno}");
                    counters.tx_rejected += 1;
                    self.first = (self.first + 1) % self.slots.len();
                    self.len -= 1;
                }
            }
        }
    }

    fn advance(&mut self, sent: usize, counters: &mut Counters) {
        for _ in 0..sent.min(self.len) {
            counters.tx_frames += 1;
            counters.tx_bytes += self.slots.get(self.first).map_or(0, |slot| slot.frame().len()) as u64;
            self.first = (self.first + 1) % self.slots.len();
            self.len -= 1;
        }
    }

    /// Sends the packets of one IP version at the head of the queue; returns how many went.
    fn send_run(&self, counters: &mut Counters) -> Result<usize, Errno> {
        let queued = (0..self.len.min(RUN_LEN_MAX))
            .filter_map(|index| self.slots.get((self.first + index) % self.slots.len()))
            .map(Slot::frame);
        let version = queued.clone().next().and_then(|packet| packet.first()).map_or(0, |first| first >> 4);
        let run: Vec<&[u8]> =
            queued.take_while(|packet| packet.first().is_some_and(|first| first >> 4 == version)).collect();
        counters.tx_kicks += 1;
        match (version, &self.v6) {
            (4, _) => {
                let to: Vec<_> = run.iter().map(|packet| to_v4(packet)).collect();
                send(self.v4.as_raw_fd(), &run, &to)
            }
            (6, Some(v6)) => {
                let to: Vec<_> = run.iter().map(|packet| to_v6(packet, self.interface_index)).collect();
                send(v6.as_raw_fd(), &run, &to)
            }
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }
}

fn to_v4(packet: &[u8]) -> Option<SockaddrIn> {
    let address: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(address), 0).into())
}

fn to_v6(packet: &[u8], interface_index: u32) -> Option<SockaddrIn6> {
    let address: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
    let address = Ipv6Addr::from(address);
    let is_link_local = address.is_unicast_link_local() || address.is_multicast();
    Some(SocketAddrV6::new(address, 0, 0, if is_link_local { interface_index } else { 0 }).into())
}

/// An address that is missing (the packet is cut short) is an error of that packet: EDESTADDRREQ.
fn send<S: SockaddrLike + Copy>(socket: RawFd, packets: &[&[u8]], to: &[Option<S>]) -> Result<usize, Errno> {
    let slices: Vec<_> = packets.iter().map(|packet| [IoSlice::new(packet)]).collect();
    let mut headers = MultiHeaders::<S>::preallocate(slices.len(), None);
    let none: [ControlMessage<'_>; 0] = [];
    Ok(sendmmsg(socket, &mut headers, slices.iter(), to, none, MsgFlags::MSG_DONTWAIT)?.count())
}

/// Packets that one system call takes.
const RUN_LEN_MAX: usize = 64;
