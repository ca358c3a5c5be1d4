//! Opening: socket → interface → geometry → version → options → filter → rings → map → bind → membership →
//! fanout.
//!
//! One step is one function, and each failure names its step. The socket receives nothing before `bind`,
//! so no frame is lost or mixed up on the way; if a step fails, closing the socket undoes the earlier ones.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use managed::ManagedSlice;

use crate::Counters;
use crate::config::{
    AfPacketConfig, RX_BLOCKS, RX_SLOTS, RxMode, SUPER_FRAME_LEN_MAX, TX_SLOTS, TX_SLOTS_GSO, TpacketVersion,
    TxMode,
};
use crate::error::{OpenError, Step};
use crate::ethtool;
use crate::geometry::RingGeometry;
use crate::link::Interface;
use crate::meta::TimestampSource;
use crate::shm::{BlockRing, Region, Side, SlotRing};
use crate::steer::Fanout;
use crate::sys::packet_socket::PacketSocket;
use crate::wait::Waker;

use super::rx_frame::RxOptions;
use super::tokens::Pieces;
use super::tx::{Queue, Tx};
use super::tx_ring::TxRing;
use super::tx_send::TxSend;
use super::{AfPacket, Link, Rx, RxBlocks, RxFrames, RxRecv, Shape, abi};

impl<'a> AfPacket<'a> {
    /// Opens a device on an interface of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`OpenError`] with the step that failed; nothing is left behind.
    pub fn open(interface: &str, config: AfPacketConfig<'a>) -> Result<Self, OpenError> {
        let at = |step| move |source: io::Error| OpenError { step, interface: interface.to_owned(), source };
        let socket = PacketSocket::open().map_err(at(Step::Socket))?;
        let interface = look_up(&socket, interface).map_err(at(Step::Interface))?;
        let rx_rings = rx_candidates(&config, &interface).map_err(at(Step::Geometry))?;
        let tx_rings = tx_candidates(&config, &interface).map_err(at(Step::Geometry))?;
        set_version(&socket, config.version).map_err(at(Step::Version))?;
        let bypass = set_options(&socket, &config, &interface).map_err(at(Step::Options))?;
        if let Some(filter) = &config.filter {
            crate::filter::attach(socket.as_fd(), filter).map_err(at(Step::Filter))?;
        }
        let rx_ring = allocate(&socket, libc::PACKET_RX_RING, &config, &rx_rings).map_err(at(Step::Rings))?;
        let tx_ring = allocate(&socket, libc::PACKET_TX_RING, &config, &tx_rings).map_err(at(Step::Rings))?;
        let region = map(&socket, rx_ring, tx_ring).map_err(at(Step::Map))?;
        let waker = Waker::new().map_err(at(Step::Socket))?;
        bind(&socket, &interface, config.rx).map_err(at(Step::Bind))?;
        if config.promiscuous {
            socket.listen_to_all(interface.index).map_err(at(Step::Membership))?;
        }

        let fanout = join(&socket, config.fanout.as_ref()).map_err(at(Step::Fanout))?;

        let shape = shape(&config, rx_ring, tx_ring);
        log::debug!("{}: {shape}", interface.name);
        let rx_start = 0;
        let tx_start = rx_ring.map_or(0, |ring| ring.memory());
        let frame_len_max = interface.mtu + abi::ETHERNET_HEADER_LEN;
        let tx = queue(&config, region.as_ref().zip(tx_ring), tx_start);
        let tx = Tx::new(tx, config.vnet_hdr, frame_len_max);
        let rx = receiver(config, region.as_ref().zip(rx_ring), rx_start, frame_len_max);
        let link = Link { socket, waker, starved: false, down: false, bypass, stuck_since: None };
        let (rx_counters, tx_counters) = (Counters::default(), Counters::default());
        let pieces = Pieces::default();
        Ok(Self { rx, tx, pieces, link, rx_counters, tx_counters, interface, shape, fanout })
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

/// The geometries to try for the RX ring: the configured ones, each checked, or the default for the MTU.
fn rx_candidates(config: &AfPacketConfig<'_>, interface: &Interface) -> io::Result<Vec<RingGeometry>> {
    if config.rx != RxMode::Ring {
        return Ok(Vec::new());
    }
    let frame_len = interface.mtu + abi::ETHERNET_HEADER_LEN;
    let defaults = |part: usize| match config.version {
        TpacketVersion::V1 | TpacketVersion::V2 => RingGeometry::for_frames(frame_len, RX_SLOTS / part),
        TpacketVersion::V3 => RingGeometry::for_blocks(RX_BLOCKS / part),
    };
    candidates(&config.rx_rings, defaults)
}

/// The same for the TX ring, whose slots must hold what the stack is told that they do.
fn tx_candidates(config: &AfPacketConfig<'_>, interface: &Interface) -> io::Result<Vec<RingGeometry>> {
    if config.tx != TxMode::Ring {
        return Ok(Vec::new());
    }
    let frame_len = interface.mtu + abi::ETHERNET_HEADER_LEN;
    let (slot_len, slots) = if config.vnet_hdr {
        (SUPER_FRAME_LEN_MAX.max(frame_len), TX_SLOTS_GSO)
    } else {
        (frame_len, TX_SLOTS)
    };
    let rings = candidates(&config.tx_rings, |part| {
        RingGeometry::for_frames(slot_len + usize::from(config.tx_offset.unwrap_or(0)), slots / part)
    })?;
    let virtio_len = if config.vnet_hdr { abi::VNET_HDR_LEN } else { 0 };
    let offset = config.tx_offset.map_or(config.version.tx_offset(), usize::from);
    if offset < config.version.tx_offset() {
        return Err(invalid(format!(
            "tx_offset {offset} lies in the header of a slot; at least {} is needed",
            config.version.tx_offset()
        )));
    }
    let needed = offset + virtio_len + frame_len;
    match rings.iter().find(|geometry| geometry.slot_size < needed) {
        None => Ok(rings),
        Some(geometry) => Err(invalid(format!(
            "slot_size {} of a TX ring cannot hold a frame of the MTU {}; at least {} bytes are needed",
            geometry.slot_size,
            interface.mtu,
            needed.next_multiple_of(abi::ALIGNMENT),
        ))),
    }
}

/// `defaults` is asked for the default divided by 1, 2, 4 and 16: what is tried if the kernel is short of
/// memory.
fn candidates(
    configured: &ManagedSlice<'_, RingGeometry>,
    defaults: impl Fn(usize) -> RingGeometry,
) -> io::Result<Vec<RingGeometry>> {
    let page_size = page_size();
    for geometry in configured.iter() {
        geometry.check(page_size).map_err(invalid)?;
    }
    if !configured.is_empty() {
        return Ok(configured.to_vec());
    }
    let geometries = [1, 2, 4, 16].map(defaults);
    Ok(geometries.into_iter().filter(|geometry| geometry.check(page_size).is_ok()).collect())
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

fn set_version(socket: &PacketSocket, version: TpacketVersion) -> io::Result<()> {
    // `enum tpacket_versions`.
    let value = match version {
        TpacketVersion::V1 => 0,
        TpacketVersion::V2 => 1,
        TpacketVersion::V3 => 2,
    };
    socket.set_packet_option(libc::PACKET_VERSION, value)
}

/// Sets all options that must come before the rings. Says whether frames skip the interface's queue.
fn set_options(
    socket: &PacketSocket,
    config: &AfPacketConfig<'_>,
    interface: &Interface,
) -> io::Result<bool> {
    // Linux 4.20. Without it every frame that we send comes back to us, and is skipped.
    if !config.outgoing
        && let Err(error) = socket.set_packet_option(libc::PACKET_IGNORE_OUTGOING, 1)
    {
        log::debug!("PACKET_IGNORE_OUTGOING: {error}");
    }
    if config.vnet_hdr {
        socket.set_packet_option(libc::PACKET_VNET_HDR, 1)?;
    }
    if config.rx == RxMode::Ring && config.version != TpacketVersion::V3 {
        // Any value but 0 makes the kernel queue a whole copy of a frame that a slot cannot hold.
        socket.set_packet_option(libc::PACKET_COPY_THRESH, 1)?;
    }
    if config.rx == RxMode::Recv {
        socket.set_packet_option(libc::PACKET_AUXDATA, 1)?;
    }
    if config.rx == RxMode::Recv || config.timestamps == TimestampSource::Software {
        // The kernel stamps frames early only while somebody asks for it in this way.
        socket.set_socket_option(libc::SO_TIMESTAMPNS, 1)?;
    }
    let stamp = match config.timestamps {
        TimestampSource::Ring => None,
        TimestampSource::Software => Some(libc::SOF_TIMESTAMPING_SOFTWARE),
        TimestampSource::Hardware => {
            Some(libc::SOF_TIMESTAMPING_RAW_HARDWARE | libc::SOF_TIMESTAMPING_SOFTWARE)
        }
    };
    if let Some(stamp) = stamp {
        socket.set_packet_option(libc::PACKET_TIMESTAMP, stamp as libc::c_int)?;
    }
    if config.tx == TxMode::Ring && config.loss {
        socket.set_packet_option(libc::PACKET_LOSS, 1)?;
    }
    if config.tx == TxMode::Ring && config.tx_offset.is_some() {
        socket.set_packet_option(libc::PACKET_TX_HAS_OFF, 1)?;
    }
    set_queue_sizes(socket, config.rx_queue_bytes)?;
    let bypass = config.qdisc_bypass && may_bypass(config, interface);
    if bypass {
        socket.set_packet_option(libc::PACKET_QDISC_BYPASS, 1)?;
    }
    Ok(bypass)
}

fn set_queue_sizes(socket: &PacketSocket, rx_queue_bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(rx_queue_bytes).unwrap_or(libc::c_int::MAX);
    // The FORCE variants need CAP_NET_ADMIN; the others stop at net.core.[rw]mem_max.
    if socket.set_socket_option(libc::SO_RCVBUFFORCE, bytes).is_err() {
        socket.set_socket_option(libc::SO_RCVBUF, bytes)?;
        log::debug!("no CAP_NET_ADMIN: the queue for frames beside a ring is at most net.core.rmem_max");
    }
    // Frames count against the send buffer until the device is done with them; the ring, or the queue of
    // this process, is the bound that we want.
    if socket.set_socket_option(libc::SO_SNDBUFFORCE, SEND_BUFFER_BYTES).is_err() {
        socket.set_socket_option(libc::SO_SNDBUF, SEND_BUFFER_BYTES)?;
    }
    Ok(())
}

/// Frames that skip the queue also skip the code that splits for a device that cannot: `dev_direct_xmit`
/// drops what `validate_xmit_skb` would have to change.
fn may_bypass(config: &AfPacketConfig<'_>, interface: &Interface) -> bool {
    if !config.vnet_hdr {
        return true;
    }
    let can = ethtool::features(&interface.name)
        .is_ok_and(|features| SPLITTING.iter().all(|name| features.is_active(name)));
    if !can {
        log::warn!("{}: it does not split all frames itself, so none skips its queue", interface.name);
    }
    can
}

/// Makes a ring of the first geometry that the kernel has memory for; `None`: there is to be none.
fn allocate(
    socket: &PacketSocket,
    option: i32,
    config: &AfPacketConfig<'_>,
    candidates: &[RingGeometry],
) -> io::Result<Option<RingGeometry>> {
    let mut result = Ok(None);
    for geometry in candidates {
        let made = match config.version {
            TpacketVersion::V1 | TpacketVersion::V2 => socket.set_ring(option, &slots_request(geometry)),
            TpacketVersion::V3 => {
                let is_rx = option == libc::PACKET_RX_RING;
                socket.set_block_ring(option, &blocks_request(geometry, config, is_rx))
            }
        };
        match made {
            Ok(()) => return Ok(Some(*geometry)),
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
                log::debug!("no memory for a ring of {} bytes", geometry.memory());
                result = Err(error);
            }
            Err(error) => return Err(error),
        }
    }
    result
}

/// `RingGeometry::check` has bounded all four by what 32 bits hold.
fn slots_request(geometry: &RingGeometry) -> libc::tpacket_req {
    libc::tpacket_req {
        tp_block_size: geometry.block_size as u32,
        tp_block_nr: geometry.block_count as u32,
        tp_frame_size: geometry.slot_size as u32,
        tp_frame_nr: geometry.slot_count as u32,
    }
}

/// The last three numbers are for RX; for TX the kernel wants zeroes.
fn blocks_request(geometry: &RingGeometry, config: &AfPacketConfig<'_>, is_rx: bool) -> libc::tpacket_req3 {
    let timeout_ms = config.block_timeout.total_millis().clamp(1, u64::from(u16::MAX)) as u32;
    libc::tpacket_req3 {
        tp_block_size: geometry.block_size as u32,
        tp_block_nr: geometry.block_count as u32,
        tp_frame_size: geometry.slot_size as u32,
        tp_frame_nr: geometry.slot_count as u32,
        tp_retire_blk_tov: if is_rx { timeout_ms } else { 0 },
        tp_sizeof_priv: 0,
        tp_feature_req_word: if is_rx && config.rx_hash { libc::TP_FT_REQ_FILL_RXHASH } else { 0 },
    }
}

/// Maps both rings: one mapping, the RX ring first. `None`: there is none.
fn map(
    socket: &PacketSocket,
    rx: Option<RingGeometry>,
    tx: Option<RingGeometry>,
) -> io::Result<Option<Arc<Region>>> {
    let bytes: usize = [rx, tx].into_iter().flatten().map(|ring| ring.memory()).sum();
    if bytes == 0 {
        return Ok(None);
    }
    Ok(Some(Arc::new(Region::map(socket.as_fd(), bytes)?)))
}

/// Binds for frames of every protocol: a socket bound to one EtherType is served behind the ingress
/// hook of netfilter, where the rules that keep the kernel silent drop our frames. A socket that only
/// sends is bound to none: the kernel then does not offer it what comes.
fn bind(socket: &PacketSocket, interface: &Interface, rx: RxMode) -> io::Result<()> {
    let protocol = if rx == RxMode::None { 0 } else { libc::ETH_P_ALL };
    socket.bind(interface.index, protocol)?;
    // Binding to an interface that went down just now succeeds and leaves ENETDOWN on the socket.
    socket.take_error()?.map_or(Ok(()), Err)
}

/// Joins the group, if there is to be one; returns its number, which the kernel may have chosen.
fn join(socket: &PacketSocket, fanout: Option<&Fanout>) -> io::Result<Option<u16>> {
    let Some(fanout) = fanout else { return Ok(None) };
    fanout.join(socket.as_fd()).map(Some).map_err(io::Error::other)
}

fn queue(config: &AfPacketConfig<'_>, ring: Option<(&Arc<Region>, RingGeometry)>, start: usize) -> Queue {
    match (config.tx, ring) {
        (TxMode::Send, _) => Queue::Send(TxSend::new(tx_queue_bytes(config))),
        (TxMode::Ring, Some((region, geometry))) => {
            let ring = SlotRing::new(region.clone(), start, geometry, Side::Tx, config.version);
            Queue::Ring(TxRing::new(ring, config.version, config.tx_offset))
        }
        (TxMode::None | TxMode::Ring, _) => Queue::None,
    }
}

/// One super-frame must find room.
fn tx_queue_bytes(config: &AfPacketConfig<'_>) -> usize {
    config.tx_queue_bytes.max(2 * SUPER_FRAME_LEN_MAX)
}

fn receiver<'a>(
    config: AfPacketConfig<'a>,
    ring: Option<(&Arc<Region>, RingGeometry)>,
    start: usize,
    frame_len_max: usize,
) -> Rx<'a> {
    let options = RxOptions {
        vnet_hdr: config.vnet_hdr,
        verify_checksums: config.verify_checksums,
        vlan_tags: config.vlan_tags,
        outgoing: config.outgoing,
        frame_len_max,
    };
    match (config.rx, ring) {
        (RxMode::Recv, _) => Rx::Recv(RxRecv::new(options)),
        (RxMode::Ring, Some((region, geometry))) if config.version == TpacketVersion::V3 => {
            Rx::Blocks(RxBlocks::new(BlockRing::new(region.clone(), start, geometry), options))
        }
        (RxMode::Ring, Some((region, geometry))) => {
            let ring = SlotRing::new(region.clone(), start, geometry, Side::Rx, config.version);
            Rx::Frames(RxFrames::new(ring, config.version, options, config.oversize))
        }
        (RxMode::None | RxMode::Ring, _) => Rx::None,
    }
}

fn shape(config: &AfPacketConfig<'_>, rx: Option<RingGeometry>, tx: Option<RingGeometry>) -> Shape {
    let &AfPacketConfig { version, vnet_hdr, verify_checksums, .. } = config;
    let rx_slots = |ring: RingGeometry| match version {
        TpacketVersion::V3 => ring.block_count,
        TpacketVersion::V1 | TpacketVersion::V2 => ring.slot_count,
    };
    let rx_bytes = if config.rx == RxMode::Recv { RxRecv::MEMORY } else { 0 };
    let tx_bytes = if config.tx == TxMode::Send { tx_queue_bytes(config) } else { 0 };
    Shape {
        rx: config.rx,
        tx: config.tx,
        version,
        rx_slots: rx.map_or(0, rx_slots),
        tx_slots: tx.map_or(0, |ring| ring.slot_count),
        rx_bytes: rx.map_or(rx_bytes, |ring| ring.memory()),
        tx_bytes: tx.map_or(tx_bytes, |ring| ring.memory()),
        vnet_hdr,
        verify_checksums,
    }
}

fn page_size() -> usize {
    // Cannot fail for this name, and 4096 divides every page size of Linux.
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(4096)
}

/// Enough for every slot of a TX ring of 64 KB frames; memory is taken only by frames in flight.
const SEND_BUFFER_BYTES: libc::c_int = 64 << 20;
/// What an interface must do itself with the super-frames that we may send, by the kernel's names.
const SPLITTING: [&str; 3] = ["tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-udp-segmentation"];
