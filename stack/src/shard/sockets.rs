//! The table of sockets, and what there is for the application.

use std::collections::VecDeque;

use super::Shard;
use crate::demux::UdpHandle;
use crate::{icmp, raw, udp};

/// A socket of a shard. The handle of a closed socket is never that of another one (but after 2^32 sockets in
/// the same place).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    index: u32,
    generation: u32,
}

impl SocketId {
    /// A number for tables: unique among the sockets that exist at a time.
    pub fn index(self) -> u32 {
        self.index
    }
}

/// Something for the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketEvent {
    /// Which socket. Something has come for it, be it that there was no room, or an error. The event comes again
    /// when more comes, and not before: what the application leaves in a socket, it has to remember.
    pub socket: SocketId,
}

/// Whom a UDP port belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// A socket of the application.
    Socket(SocketId),
    /// The DHCPv4 client.
    Dhcp,
    /// The DHCPv6 client.
    Dhcp6,
    /// A query of the resolver.
    Dns,
}

/// A socket of any kind.
#[derive(Debug)]
pub(crate) enum AnySocket {
    /// Datagrams, and where they are in the table of ports.
    Udp(Box<udp::Socket>, UdpHandle),
    /// Echo.
    Icmp(Box<icmp::Socket>),
    /// Packets of a protocol.
    Raw(Box<raw::Socket>),
    /// A connection.
    Tcp(u32),
    /// A listener.
    TcpListener(u32),
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    socket: Option<AnySocket>,
    /// It is in `ready`.
    is_ready: bool,
}

/// All sockets of a shard.
#[derive(Debug)]
pub(crate) struct SocketTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    ready: VecDeque<SocketId>,
    /// Something has become ready since this was asked last.
    has_news: bool,
    len_max: usize,
}

impl SocketTable {
    pub(crate) fn new(len_max: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), ready: VecDeque::new(), has_news: false, len_max }
    }

    /// Sockets that exist.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.len() < self.len_max
    }

    /// The handle that the next socket will have.
    pub(crate) fn next_id(&self) -> SocketId {
        match self.free.last() {
            Some(&index) => SocketId { index, generation: self.slots[index as usize].generation },
            None => SocketId { index: self.slots.len() as u32, generation: 0 },
        }
    }

    /// Adds a socket; there is room, the caller has looked.
    pub(crate) fn insert(&mut self, socket: AnySocket) -> SocketId {
        let id = self.next_id();
        if self.free.pop().is_none() {
            self.slots.push(Slot::default());
        }
        self.slots[id.index as usize].socket = Some(socket);
        id
    }

    pub(crate) fn remove(&mut self, id: SocketId) -> Option<AnySocket> {
        let slot = self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        let socket = slot.socket.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.is_ready = false;
        self.free.push(id.index);
        self.forget_old_events();
        Some(socket)
    }

    pub(crate) fn get(&self, id: SocketId) -> Option<&AnySocket> {
        let slot = self.slots.get(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        slot.socket.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: SocketId) -> Option<&mut AnySocket> {
        let slot = self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        slot.socket.as_mut()
    }

    /// All sockets; for those few that want a look at every packet, and for people.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SocketId, &AnySocket)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let id = SocketId { index: index as u32, generation: slot.generation };
            slot.socket.as_ref().map(|socket| (id, socket))
        })
    }

    /// There is something for the application.
    pub(crate) fn mark_ready(&mut self, id: SocketId) {
        let Some(slot) = self.slots.get_mut(id.index as usize) else { return };
        if slot.generation == id.generation && !slot.is_ready {
            slot.is_ready = true;
            self.ready.push_back(id);
            self.has_news = true;
        }
    }

    /// The event of a socket was not for who has taken it: it waits for somebody else, and is no news.
    pub(crate) fn give_back(&mut self, id: SocketId) {
        let had_news = self.has_news;
        self.mark_ready(id);
        self.has_news = had_news;
    }

    /// Whether a socket has become ready since this was asked last, and an event still waits.
    pub(crate) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news) && !self.ready.is_empty()
    }

    /// The same, and it stays so.
    pub(crate) fn has_news(&self) -> bool {
        self.has_news && !self.ready.is_empty()
    }

    /// Takes events of closed sockets away when they are most of the queue: a constant cost for each, and no
    /// more memory than for those that exist.
    fn forget_old_events(&mut self) {
        if self.ready.len() <= 2 * self.len() + EVENTS_SPARE {
            return;
        }
        let slots = &self.slots;
        self.ready.retain(|id| {
            slots.get(id.index as usize).is_some_and(|slot| slot.generation == id.generation && slot.is_ready)
        });
    }

    /// Events that wait, those of closed sockets included.
    pub(crate) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    fn next_ready(&mut self) -> Option<SocketId> {
        while let Some(id) = self.ready.pop_front() {
            let Some(slot) = self.slots.get_mut(id.index as usize) else { continue };
            if slot.generation == id.generation {
                slot.is_ready = false;
                return Some(id);
            }
        }
        None
    }

    pub(crate) fn udp(&self, id: SocketId) -> Option<&udp::Socket> {
        match self.get(id)? {
            AnySocket::Udp(socket, _) => Some(socket),
            _ => None,
        }
    }

    pub(crate) fn udp_mut(&mut self, id: SocketId) -> Option<&mut udp::Socket> {
        match self.get_mut(id)? {
            AnySocket::Udp(socket, _) => Some(socket),
            _ => None,
        }
    }

    pub(crate) fn udp_handle(&self, id: SocketId) -> Option<UdpHandle> {
        match self.get(id)? {
            AnySocket::Udp(_, handle) => Some(*handle),
            _ => None,
        }
    }

    pub(crate) fn icmp_mut(&mut self, id: SocketId) -> Option<&mut icmp::Socket> {
        match self.get_mut(id)? {
            AnySocket::Icmp(socket) => Some(socket),
            _ => None,
        }
    }

    pub(crate) fn raw_mut(&mut self, id: SocketId) -> Option<&mut raw::Socket> {
        match self.get_mut(id)? {
            AnySocket::Raw(socket) => Some(socket),
            _ => None,
        }
    }
}

/// Events of closed sockets that may wait at any time.
const EVENTS_SPARE: usize = 32;

impl Shard {
    /// The next socket that has something for the application. An application that leaves something in a
    /// socket is not told again before more comes.
    pub fn next_event(&mut self) -> Option<SocketEvent> {
        self.sockets.next_ready().map(|socket| SocketEvent { socket })
    }

    /// Sockets that exist.
    pub fn sockets_len(&self) -> usize {
        self.sockets.len()
    }
}
