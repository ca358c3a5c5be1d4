//! Sockets for datagrams, by local address and port, and by 4-tuple if connected.
//!
//! A datagram to one of our addresses is for one socket: that connected to its sender, else one bound to
//! its destination, else one bound to any address of the family. That is at most three probes of small
//! tables, however many sockets there are. Where several share a binding, it is for the one that was bound
//! last, as on Linux; a socket of both families has a datagram of IPv4 only if none of IPv4 alone would.
//!
//! A datagram to a group or a broadcast address is for all sockets that match
//! ([`UdpTable::lookup_all`]): those bound to just that address and those bound to any; not those bound to
//! another address of ours, and of the connected ones only those whose remote end is the sender. That the
//! socket is a member of the group is for the caller to see.
//!
//! **Connecting** moves a socket: bound to any address before, it is bound to the one that its datagrams
//! leave from, until it is disconnected. So a socket that was bound to any address and is connected has no
//! datagrams to groups, which surprises people on Linux too. Nobody can be in the way of a socket that is
//! connected or disconnected, but one with the very same 4-tuple.

use std::net::{IpAddr, SocketAddr};

use hashbrown::HashTable;

use super::bind::{BindAddress, BindError, Binding, Family, Occupancy, Place};
use super::flow_table::FlowTable;
use super::hash::KeyedHash;
use super::key::FlowKey;
use crate::random::Random;

#[cfg(test)]
mod tests;

/// Names a socket in a [`UdpTable`]; after the socket is gone, names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UdpHandle {
    index: u32,
    generation: u32,
}

/// Addresses and ports → value of a socket. See the [module](self).
#[derive(Debug, Clone)]
pub struct UdpTable<V: Copy> {
    sockets: Vec<Slot<V>>,
    free: Vec<u32>,
    connected: FlowTable<V>,
    /// Sockets that are not connected.
    places: HashTable<Members<V>>,
    /// How many of `places` are for one address.
    exact_len: usize,
    occupancy: Occupancy,
    hash: KeyedHash,
    len_max: usize,
}

/// What is known of a socket in a [`UdpTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpBinding<V> {
    /// The caller's.
    pub value: V,
    /// As bound.
    pub bound: Binding,
    /// Whether it shares its port with others of its kind (SO_REUSEADDR).
    pub reuse: bool,
    /// If it is connected, both ends.
    pub connection: Option<(SocketAddr, SocketAddr)>,
}

/// Why a socket cannot be connected. It is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UdpConnectError {
    /// The handle names no socket any more.
    #[error("the socket is closed")]
    Closed,
    /// The local address is not one that the socket is bound to, or of another family than the remote end.
    #[error("a socket bound to {bound} cannot reach {remote} from {local}")]
    Address {
        /// What the socket is bound to.
        bound: Binding,
        /// As asked for.
        local: IpAddr,
        /// As asked for.
        remote: SocketAddr,
    },
    /// Port 0 means "none".
    #[error("port 0 cannot be connected to; 1 to 65535 are accepted")]
    PortZero,
    /// A socket with the same binding is connected to the same remote end.
    #[error("another socket is connected to {remote} from there")]
    InUse {
        /// As asked for.
        remote: SocketAddr,
    },
}

#[derive(Debug, Clone)]
struct Slot<V> {
    generation: u32,
    socket: Option<UdpBinding<V>>,
}

/// Who is bound to a place: never empty, and of one member unless they share.
#[derive(Debug, Clone)]
struct Members<V> {
    place: Place,
    /// The value of the last of `sockets`, here so that a look-up needs not follow the pointer.
    newest: V,
    /// In the order of binding, but those of both families before those of IPv4 alone.
    sockets: Vec<Member<V>>,
}

#[derive(Debug, Clone, Copy)]
struct Member<V> {
    index: u32,
    value: V,
    /// Of both families, at the place of IPv4.
    is_second_choice: bool,
}

impl<V: Copy> UdpTable<V> {
    /// A table for at most `len_max` sockets.
    pub fn new(len_max: usize, random: &mut Random) -> Self {
        Self {
            sockets: Vec::new(),
            free: Vec::new(),
            connected: FlowTable::new(len_max, random),
            places: HashTable::new(),
            exact_len: 0,
            occupancy: Occupancy::new(random),
            hash: KeyedHash::new(random),
            // Sockets have an index of 32 bits.
            len_max: len_max.min(u32::MAX as usize),
        }
    }

    /// Adds a socket. With `reuse`, it shares its port with others that do. Whether the address is one of ours
    /// is not asked.
    ///
    /// # Errors
    /// Another one is in the way, there is no room, or the port is 0; nothing has changed then.
    pub fn bind(&mut self, binding: Binding, reuse: bool, value: V) -> Result<UdpHandle, BindError> {
        let bound = binding.normal();
        if bound.port == 0 {
            return Err(BindError::PortZero);
        }
        if !self.occupancy.is_free(bound, reuse) {
            return Err(BindError::InUse { binding: bound });
        }
        if self.len() >= self.len_max {
            return Err(BindError::Full { len_max: self.len_max });
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.sockets.push(Slot { generation: 0, socket: None });
            self.sockets.len() as u32 - 1
        });
        let socket = UdpBinding { value, bound, reuse, connection: None };
        self.attach(index, &socket);
        let slot = &mut self.sockets[index as usize];
        slot.socket = Some(socket);
        Ok(UdpHandle { index, generation: slot.generation })
    }

    /// Takes a socket away, and says what its value was. `None`: that was done before.
    pub fn unbind(&mut self, handle: UdpHandle) -> Option<V> {
        let socket = *self.get(handle)?;
        self.detach(handle.index, &socket);
        let slot = &mut self.sockets[handle.index as usize];
        slot.socket = None;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(handle.index);
        Some(socket.value)
    }

    /// Connects a socket: it has datagrams from `remote` to `local` only, an address of ours that it is bound
    /// to. A socket that is connected already may be connected to another remote end.
    ///
    /// # Errors
    /// See [`UdpConnectError`].
    pub fn connect(
        &mut self,
        handle: UdpHandle,
        local: IpAddr,
        remote: SocketAddr,
    ) -> Result<(), UdpConnectError> {
        let old = *self.get(handle).ok_or(UdpConnectError::Closed)?;
        let bound = old.bound;
        let local_end = SocketAddr::new(local, bound.port);
        let key = FlowKey::new(local_end, remote).filter(|_| bound.address.covers(local));
        let key = key.ok_or(UdpConnectError::Address { bound, local, remote })?;
        if remote.port() == 0 {
            return Err(UdpConnectError::PortZero);
        }
        let connection = Some((key.local(), key.remote()));
        if old.connection == connection {
            return Ok(());
        }
        if self.connected.get(&key).is_some() {
            return Err(UdpConnectError::InUse { remote });
        }
        self.replace(handle.index, &old, UdpBinding { connection, ..old });
        Ok(())
    }

    /// Undoes [`connect`](Self::connect): the socket is bound as it was. `false`: there is no such socket, or
    /// it is not connected.
    pub fn disconnect(&mut self, handle: UdpHandle) -> bool {
        let Some(&old) = self.get(handle) else { return false };
        if old.connection.is_none() {
            return false;
        }
        self.replace(handle.index, &old, UdpBinding { connection: None, ..old });
        true
    }

    /// The one socket that a datagram from `remote` to `local` is for, an address of ours.
    #[inline]
    pub fn lookup(&self, local: SocketAddr, remote: SocketAddr) -> Option<V> {
        if let Some(value) = self.lookup_connected(local, remote) {
            return Some(value);
        }
        let (ip, port) = (local.ip(), local.port());
        let exact = (self.exact_len > 0).then(|| self.members(&Place::of(ip, port))).flatten();
        let members = exact.or_else(|| self.members(&Place::any(Family::of(ip), port)))?;
        Some(members.newest)
    }

    /// All sockets that a datagram from `remote` to `group` is for, a group or a broadcast address: each
    /// once, in an order that means nothing. As many as match are visited, and no others.
    pub fn lookup_all(&self, group: SocketAddr, remote: SocketAddr) -> impl Iterator<Item = V> {
        let (ip, port) = (group.ip(), group.port());
        let connected = self.lookup_connected(group, remote);
        let places = [Place::of(ip, port), Place::any(Family::of(ip), port)];
        let members = places.into_iter().filter_map(|place| self.members(&place));
        let bound = members.flat_map(|members| members.sockets.iter().map(|member| member.value));
        connected.into_iter().chain(bound)
    }

    /// Whether nobody would be in the way of this binding.
    pub fn is_free(&self, binding: Binding, reuse: bool) -> bool {
        self.occupancy.is_free(binding.normal(), reuse)
    }

    /// What is known of a socket. `None`: it is gone.
    pub fn get(&self, handle: UdpHandle) -> Option<&UdpBinding<V>> {
        let slot = self.sockets.get(handle.index as usize)?;
        slot.socket.as_ref().filter(|_| slot.generation == handle.generation)
    }

    /// How many sockets there are.
    pub fn len(&self) -> usize {
        self.sockets.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All sockets, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &UdpBinding<V>> {
        self.sockets.iter().filter_map(|slot| slot.socket.as_ref())
    }

    #[inline]
    fn lookup_connected(&self, local: SocketAddr, remote: SocketAddr) -> Option<V> {
        if self.connected.is_empty() {
            return None;
        }
        self.connected.get(&FlowKey::new(local, remote)?)
    }

    #[inline]
    fn members(&self, place: &Place) -> Option<&Members<V>> {
        self.places.find(self.hash.words(place.words()), |members| members.place == *place)
    }

    fn replace(&mut self, index: u32, old: &UdpBinding<V>, new: UdpBinding<V>) {
        self.detach(index, old);
        self.attach(index, &new);
        self.sockets[index as usize].socket = Some(new);
    }

    /// Makes the tables lead to a socket.
    fn attach(&mut self, index: u32, socket: &UdpBinding<V>) {
        self.occupancy.add(socket.binding(), socket.reuse);
        if let Some(key) = socket.key() {
            // There is room: it is as large as the table of all sockets.
            let inserted = self.connected.insert(key, socket.value);
            debug_assert_eq!(inserted, Ok(()));
            return;
        }
        let hash = &self.hash;
        for place in socket.bound.places() {
            let is_second_choice = socket.bound.address == BindAddress::Any && place.is_of(Family::V4);
            let member = Member { index, value: socket.value, is_second_choice };
            let hashed = hash.words(place.words());
            if let Some(members) = self.places.find_mut(hashed, |members| members.place == place) {
                members.add(member);
                continue;
            }
            let members = Members { place, newest: socket.value, sockets: vec![member] };
            self.places.insert_unique(hashed, members, |members| hash.words(members.place.words()));
            self.exact_len += usize::from(!place.is_any());
        }
    }

    /// Undoes [`attach`](Self::attach). It costs as many steps as sockets share the binding.
    fn detach(&mut self, index: u32, socket: &UdpBinding<V>) {
        self.occupancy.remove(socket.binding(), socket.reuse);
        if let Some(key) = socket.key() {
            self.connected.remove(&key);
            return;
        }
        for place in socket.bound.places() {
            let hashed = self.hash.words(place.words());
            let Ok(mut entry) = self.places.find_entry(hashed, |members| members.place == place) else {
                continue;
            };
            let members = entry.get_mut();
            members.sockets.retain(|member| member.index != index);
            if let Some(member) = members.sockets.last() {
                members.newest = member.value;
            } else {
                entry.remove();
                self.exact_len -= usize::from(!place.is_any());
            }
        }
    }
}

impl<V: Copy> Members<V> {
    fn add(&mut self, member: Member<V>) {
        let second_choices = self.sockets.partition_point(|other| other.is_second_choice);
        let at = if member.is_second_choice { second_choices } else { self.sockets.len() };
        self.sockets.insert(at, member);
        if at + 1 == self.sockets.len() {
            self.newest = member.value;
        }
    }
}

impl<V> UdpBinding<V> {
    /// What others may collide with: of a connected socket, the address that it is connected from.
    pub fn binding(&self) -> Binding {
        match self.connection {
            Some((local, _)) => Binding { address: BindAddress::Address(local.ip()), ..self.bound },
            None => self.bound,
        }
    }

    fn key(&self) -> Option<FlowKey> {
        let (local, remote) = self.connection?;
        FlowKey::new(local, remote)
    }
}
