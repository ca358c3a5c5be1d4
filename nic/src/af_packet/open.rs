//! Opening: socket → interface → geometry → version → options → rings → map → bind.
//!
//! One step is one function, and each failure names its step. The socket receives nothing until the
//! last step, so no frame is lost or mixed up on the way; if a step fails, closing the socket undoes
//! the earlier ones.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use managed::ManagedSlice;

use crate::Counters;
use crate::config::{AfPacketConfig, RX_SLOTS, RingGeometry, TX_SLOTS};
use crate::error::{OpenError, Step};
use crate::link::Interface;
use crate::shm::{Region, Side, SlotRing};
use crate::sys::packet_socket::PacketSocket;
use crate::wait::Waker;

use super::{AfPacket, Link, RxFrames, TxRing, abi};

impl<'a> AfPacket<'a> {
    /// Opens rings on an interface of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`OpenError`] with the step that failed; nothing is left behind.
    pub fn open(interface: &str, config: AfPacketConfig<'a>) -> Result<Self, OpenError> {
        let at = |step| move |source: io::Error| OpenError { step, interface: interface.to_owned(), source };
        let AfPacketConfig { rx_rings, tx_rings, oversize, oversize_queue_bytes } = config;

        let socket = PacketSocket::open().map_err(at(Step::Socket))?;
        let interface = look_up(&socket, interface).map_err(at(Step::Interface))?;
        let rx_rings = candidates(rx_rings, &interface, RX_SLOTS).map_err(at(Step::Geometry))?;
        let tx_rings = candidates(tx_rings, &interface, TX_SLOTS).map_err(at(Step::Geometry))?;
        room_for_mtu(&tx_rings, &interface).map_err(at(Step::Geometry))?;
        socket.set_packet_option(libc::PACKET_VERSION, TPACKET_V2).map_err(at(Step::Version))?;
        set_options(&socket, oversize_queue_bytes).map_err(at(Step::Options))?;
        let rx_ring = allocate(&socket, libc::PACKET_RX_RING, &rx_rings).map_err(at(Step::Rings))?;
        let tx_ring = allocate(&socket, libc::PACKET_TX_RING, &tx_rings).map_err(at(Step::Rings))?;
        let (rx, tx) = map(&socket, rx_ring, tx_ring).map_err(at(Step::Map))?;
        let waker = Waker::new().map_err(at(Step::Socket))?;
        bind(&socket, &interface).map_err(at(Step::Bind))?;

        log::debug!(
            "{}: rings of {} KiB (RX, {} slots) and {} KiB (TX, {} slots)",
            interface.name,
            rx_ring.memory() >> 10,
            rx_ring.slot_count,
            tx_ring.memory() >> 10,
            tx_ring.slot_count,
        );
        Ok(Self {
            rx: RxFrames::new(rx, oversize, interface.mtu + abi::ETHERNET_HEADER_LEN),
            tx: TxRing::new(tx),
            link: Link { socket, waker, starved: false, down: false },
            rx_counters: Counters::default(),
            tx_counters: Counters::default(),
            interface,
        })
    }
}

/// Finds the interface, and refuses what could not carry frames.
fn look_up(socket: &PacketSocket, name: &str) -> io::Result<Interface> {
    let interface = Interface::ask(socket.as_fd(), name)?;
    if !interface.ethernet {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "it is not an Ethernet interface"));
    }
    if !interface.up {
        return Err(io::Error::from_raw_os_error(libc::ENETDOWN));
    }
    Ok(interface)
}

/// The geometries to try: the configured ones, each checked, or the default for the MTU.
fn candidates(
    configured: ManagedSlice<'_, RingGeometry>,
    interface: &Interface,
    slots: usize,
) -> io::Result<Vec<RingGeometry>> {
    let page_size = page_size();
    for geometry in configured.iter() {
        geometry.check(page_size).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    }
    if !configured.is_empty() {
        return Ok(configured.to_vec());
    }
    let frame_len = interface.mtu + abi::ETHERNET_HEADER_LEN;
    // Half as many slots each time: what is tried if the kernel is short of memory.
    let sizes = [slots, slots / 2, slots / 4, slots / 16];
    let geometries = sizes.map(|slots| RingGeometry::for_frames(frame_len, slots));
    Ok(geometries.into_iter().filter(|geometry| geometry.check(page_size).is_ok()).collect())
}

/// The stack is told the interface's MTU, so every TX slot must hold a frame of it.
fn room_for_mtu(rings: &[RingGeometry], interface: &Interface) -> io::Result<()> {
    let needed = abi::TX_FRAME_OFFSET + interface.mtu + abi::ETHERNET_HEADER_LEN;
    match rings.iter().find(|geometry| geometry.slot_size < needed) {
        None => Ok(()),
        Some(geometry) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "slot_size {} of a TX ring cannot hold a frame of the MTU {}; at least {} bytes are needed",
                geometry.slot_size,
                interface.mtu,
                needed.next_multiple_of(abi::ALIGNMENT),
            ),
        )),
    }
}

fn set_options(socket: &PacketSocket, oversize_queue_bytes: usize) -> io::Result<()> {
    // Linux 4.20. Without it every frame that we send comes back to us, and RxFrames skips it.
    if let Err(error) = socket.set_packet_option(libc::PACKET_IGNORE_OUTGOING, 1) {
        log::debug!("PACKET_IGNORE_OUTGOING: {error}");
    }
    // Any value but 0 makes the kernel queue a whole copy of a frame that a slot cannot hold.
    socket.set_packet_option(libc::PACKET_COPY_THRESH, 1)?;
    let bytes = libc::c_int::try_from(oversize_queue_bytes).unwrap_or(libc::c_int::MAX);
    // The FORCE variants need CAP_NET_ADMIN; the others stop at net.core.[rw]mem_max.
    if socket.set_socket_option(libc::SO_RCVBUFFORCE, bytes).is_err() {
        socket.set_socket_option(libc::SO_RCVBUF, bytes)?;
        log::debug!("no CAP_NET_ADMIN: the queue for frames larger than a slot is at most net.core.rmem_max");
    }
    // Frames in the TX ring count against the send buffer until the device is done with them; the
    // ring itself is the bound that we want.
    if socket.set_socket_option(libc::SO_SNDBUFFORCE, SEND_BUFFER_BYTES).is_err() {
        socket.set_socket_option(libc::SO_SNDBUF, SEND_BUFFER_BYTES)?;
    }
    Ok(())
}

/// Makes a ring of the first geometry that the kernel has memory for.
fn allocate(socket: &PacketSocket, option: i32, candidates: &[RingGeometry]) -> io::Result<RingGeometry> {
    let mut result = Err(io::Error::from_raw_os_error(libc::EINVAL));
    for geometry in candidates {
        // `check` has bounded all four by what 32 bits hold.
        let request = libc::tpacket_req {
            tp_block_size: geometry.block_size as u32,
            tp_block_nr: geometry.block_count as u32,
            tp_frame_size: geometry.slot_size as u32,
            tp_frame_nr: geometry.slot_count as u32,
        };
        match socket.set_ring(option, &request) {
            Ok(()) => return Ok(*geometry),
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
                log::debug!("no memory for a ring of {} bytes", geometry.memory());
                result = Err(error);
            }
            Err(error) => return Err(error),
        }
    }
    result
}

/// Maps both rings: one mapping, the RX ring first.
fn map(socket: &PacketSocket, rx: RingGeometry, tx: RingGeometry) -> io::Result<(SlotRing, SlotRing)> {
    let region = Arc::new(Region::map(socket.as_fd(), rx.memory() + tx.memory())?);
    let rx_ring = SlotRing::new(region.clone(), 0, rx, Side::Rx);
    let tx_ring = SlotRing::new(region, rx.memory(), tx, Side::Tx);
    Ok((rx_ring, tx_ring))
}

/// Binds for frames of every protocol: a socket bound to one EtherType is served behind the ingress
/// hook of netfilter, where the rules that keep the kernel silent drop our frames.
fn bind(socket: &PacketSocket, interface: &Interface) -> io::Result<()> {
    socket.bind(interface.index)?;
    // Binding to an interface that went down just now succeeds and leaves ENETDOWN on the socket.
    socket.take_error()?.map_or(Ok(()), Err)
}

fn page_size() -> usize {
    // Cannot fail for this name, and 4096 divides every page size of Linux.
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(4096)
}

/// `TPACKET_V2` of `enum tpacket_versions`.
const TPACKET_V2: libc::c_int = 1;
/// Enough for every slot of a TX ring of 64 KB frames; memory is taken only by frames in flight.
const SEND_BUFFER_BYTES: libc::c_int = 64 << 20;
