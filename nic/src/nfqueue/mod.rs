//! NFQUEUE: packets that a rule of netfilter hands to a program, which keeps them.
//!
//! So one port of an address that the kernel owns and serves can be ours: the rule takes what comes for it,
//! the verdict on each packet is DROP, and the kernel's TCP never knows of it.
//!
//! ```text
//!   wire ─▶ raw PREROUTING: -p tcp --dport 80 -j NFQUEUE ─▶ NfQueue ─▶ stack
//!                     │ everything else                                  │
//!                     ▼                                                  ▼
//!              the kernel's TCP                    raw IP sockets ─▶ routes, OUTPUT ─▶ wire
//! ```
//!
//! ```text
//! iptables -t raw -I PREROUTING -d 192.0.2.7 -p tcp --dport 80 -j NFQUEUE --queue-num 5
//! nft add rule ip raw prerouting ip daddr 192.0.2.7 tcp dport 80 queue num 5
//! ```
//!
//! The rule is its user's: put in before or after the device is opened, and taken out afterwards. While
//! the rule is there and the program is not (it ended, it was killed) the kernel drops what the rule
//! matches, those packets included that wait for a verdict; with `--queue-bypass` (`bypass` in nft) it
//! takes them itself, and answers a stranger's TCP segments with RST. In the table `raw` no connection
//! tracking is before us.
//!
//! * Received packets begin with the IP header. Reading is `recvmmsg`, and one verdict is for all that was
//!   read (NFQNL_MSG_VERDICT_BATCH).
//! * With NFQA_CFG_F_GSO a TCP segment of 64 KB comes whole. The kernel tells that it is one and not of
//!   which size its segments were, which TCP need not know. For datagrams it matters, and F_GSO is for the
//!   whole queue: a packet of several datagrams goes back (NF_REPEAT) while the flag is cleared, so that
//!   the kernel splits it. Without F_GSO the kernel splits and sums everything beforehand.
//! * Sending goes through raw sockets: the kernel finds route and neighbour, and rules in OUTPUT see the
//!   packets. Connection tracking has not seen the other direction and calls them INVALID; where a rule
//!   drops such, exempt them by the mark: `iptables -t raw -I OUTPUT -m mark --mark 7 -j NOTRACK`. Raw
//!   sockets take neither super-frames nor absent checksums.
//! * Programs of this host reach us, too: what they send to the address comes through `lo`.
//! * Ping and ICMP errors stay with the kernel, unless a rule says otherwise.

mod message;
mod open;
mod send;

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use std::io::IoSliceMut;

use managed::ManagedSlice;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::{Duration, Instant};

use crate::meta::{ChecksumState, FrameMeta, OffloadCapabilities};
use crate::offload::layout::{Layout, Transport};
use crate::offload::segment::Segments;
use crate::received::{self, Arrived};
use crate::wait::{self, Wake, Waker};
use crate::{Counters, LinkError, LinkState, Nic};

pub use message::{Message, Packet, message};
pub use open::{DATAGRAM_LEN, NfQueueConfig, NfQueueError, NfQueueStep};

use message::Requests;
use send::Outbox;

/// A queue of netfilter, and the sockets for what goes back. Opened by [`NfQueue::open`]; `'a` is the life
/// of borrowed buffers.
#[derive(Debug)]
pub struct NfQueue<'a> {
    inbox: Inbox<'a>,
    outbox: Outbox<'a>,
    waker: Waker,
    starved: bool,
    rx_counters: Counters,
    tx_counters: Counters,
    mtu: usize,
}

impl NfQueue<'_> {
    /// Number of the queue.
    pub fn number(&self) -> u16 {
        self.inbox.queue.number
    }

    fn make_room(&mut self) -> bool {
        if !self.outbox.has_room() {
            let _ = self.flush();
        }
        let has_room = self.outbox.has_room();
        if !has_room {
            self.tx_counters.tx_ring_full += 1;
            self.starved = true;
        }
        has_room
    }
}

/// A bound queue.
#[derive(Debug)]
struct Queue {
    netlink: OwnedFd,
    number: u16,
    /// Of the netlink socket.
    port: u32,
    gso: bool,
}

impl Queue {
    /// Reads what is there, as far as `buffers` go; returns the length of each datagram.
    fn read(&self, buffer: &mut [u8], lens: &mut Vec<usize>) -> Result<(), Errno> {
        let mut slices: Vec<_> =
            buffer.chunks_exact_mut(DATAGRAM_LEN).map(|chunk| [IoSliceMut::new(chunk)]).collect();
        let mut headers = MultiHeaders::<()>::preallocate(slices.len(), None);
        let socket = self.netlink.as_raw_fd();
        let read = recvmmsg(socket, &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        lens.extend(read.map(|datagram| datagram.bytes));
        Ok(())
    }

    fn send(&self, requests: &Requests) {
        let sent = nix::sys::socket::send(self.netlink.as_raw_fd(), requests.bytes(), MsgFlags::MSG_DONTWAIT);
        if let Err(errno) = sent {
            log::warn!("netfilter queue {}: a verdict was not taken: {errno}", self.number);
        }
    }
}

/// What was read and not yet lent.
#[derive(Debug)]
struct Inbox<'a> {
    queue: Queue,
    buffer: ManagedSlice<'a, u8>,
    /// Lengths of the datagrams in `buffer`, one for each chunk.
    lens: Vec<usize>,
    /// The chunk that is next, and where in it.
    next: (usize, usize),
    /// A packet in `buffer`.
    current: Option<(Range<usize>, Arrived)>,
    scratch: Vec<u8>,
    /// Interface of the last packet, for answers to link-local addresses.
    interface_index: u32,
}

impl<'a> Inbox<'a> {
    fn new(queue: Queue, buffer: ManagedSlice<'a, u8>) -> Self {
        Self {
            queue,
            buffer,
            lens: Vec::new(),
            next: (0, 0),
            current: None,
            scratch: Vec::new(),
            interface_index: 0,
        }
    }

    /// Goes on to a packet that can be lent. Says whether there is one.
    fn find(&mut self, counters: &mut Counters) -> bool {
        for _ in 0..UNFIT_PACKETS_MAX {
            if self.current.is_some() {
                return true;
            }
            match self.step() {
                Some(Some((packet, at))) => self.take(&packet, at, counters),
                Some(None) => {}
                None => {
                    if !self.refill() {
                        return false;
                    }
                }
            }
        }
        self.current.is_some()
    }

    /// The next packet of what was read, and where its datagram begins. `Some(None)`: a step without one.
    fn step(&mut self) -> Option<Option<(Packet, usize)>> {
        let (chunk, offset) = self.next;
        let len = *self.lens.get(chunk)?;
        let start = chunk * DATAGRAM_LEN;
        let datagram = self.buffer.get(start..start + len).unwrap_or_default();
        match message(datagram, offset) {
            Some((Message::Packet(packet), next)) => {
                self.next = (chunk, next);
                Some(Some((packet, start)))
            }
            Some((answer @ (Message::Answer(_) | Message::Other), next)) => {
                log::debug!("netfilter queue {}: {answer:?}", self.queue.number);
                self.next = (chunk, next);
                Some(None)
            }
            None => {
                self.next = (chunk + 1, 0);
                Some(None)
            }
        }
    }

    /// Judges a packet of the datagram at `start`.
    fn take(&mut self, packet: &Packet, start: usize, counters: &mut Counters) {
        let range = start + packet.payload.start..start + packet.payload.end;
        let bytes = self.buffer.get(range.clone()).unwrap_or_default();
        if is_several_datagrams(packet, bytes) {
            // It comes again, one by one.
            return;
        }
        if packet.len > bytes.len() {
            counters.rx_truncated += 1;
            return;
        }
        let mut meta = meta_of(packet, bytes);
        if received::verify(Medium::Ip, bytes, &mut meta, counters) {
            if packet.flags & libc::NFQA_SKB_GSO as u32 != 0 {
                counters.rx_super_frames += 1;
            }
            self.interface_index = packet.interface_index;
            self.current = Some((range, Arrived::new(meta)));
        }
    }

    /// Reads, and takes everything that was read away from the kernel. Says whether there was something.
    fn refill(&mut self) -> bool {
        self.lens.clear();
        self.next = (0, 0);
        match self.queue.read(&mut self.buffer, &mut self.lens) {
            Ok(()) if !self.lens.is_empty() => {}
            // The kernel had no room in our socket's buffer, and says so once (`statistics`).
            Err(Errno::ENOBUFS | Errno::EINTR) => return true,
            Ok(()) | Err(_) => return false,
        }
        let mut last = None;
        let mut again = Vec::new();
        while let Some(step) = self.step() {
            let Some((packet, start)) = step else { continue };
            let range = start + packet.payload.start..start + packet.payload.end;
            if is_several_datagrams(&packet, self.buffer.get(range).unwrap_or_default()) {
                again.push(packet.id);
            }
            last = Some(packet.id);
        }
        self.next = (0, 0);
        let Some(last) = last else { return true };
        let gso = libc::NFQA_CFG_F_GSO;
        let mut requests = Requests::new(self.queue.number);
        if !again.is_empty() {
            log::trace!("netfilter queue {}: {} packets go back to be split", self.queue.number, again.len());
            requests = requests.flag(gso, false);
            for id in again {
                requests = requests.verdict(NF_REPEAT, id);
            }
            requests = requests.flag(gso, self.queue.gso);
        }
        self.queue.send(&requests.verdict_up_to(libc::NF_DROP, last));
        true
    }

    fn lend<R>(&mut self, counters: &mut Counters, f: impl FnOnce(&[u8]) -> R) -> R {
        // A token exists only when there is a packet.
        let Some((range, arrived)) = &mut self.current else { return f(&[]) };
        let packet = self.buffer.get_mut(range.clone()).unwrap_or_default();
        let (result, is_done) = arrived.lend(Medium::Ip, packet, &mut self.scratch, counters, f);
        if is_done {
            self.current = None;
        }
        result
    }
}

/// Whether it must be split before it is of use, and where is not told.
fn is_several_datagrams(packet: &Packet, bytes: &[u8]) -> bool {
    packet.flags & libc::NFQA_SKB_GSO as u32 != 0
        && Layout::of_packet(bytes).is_none_or(|layout| layout.protocol == Transport::Udp)
}

/// What the kernel says of a packet.
fn meta_of(packet: &Packet, bytes: &[u8]) -> FrameMeta {
    let has = |flag: i32| packet.flags & flag as u32 != 0;
    let partial = || {
        let layout = Layout::of_packet(bytes)?;
        let start = u16::try_from(layout.transport).ok()?;
        Some(ChecksumState::Partial { start, offset: layout.protocol.checksum_offset() as u16 })
    };
    let checksum = if has(libc::NFQA_SKB_CSUMNOTREADY) {
        partial().unwrap_or_default()
    } else if has(libc::NFQA_SKB_CSUM_NOTVERIFIED) {
        ChecksumState::Complete
    } else {
        ChecksumState::Verified
    };
    FrameMeta { checksum, ..FrameMeta::default() }
}

/// The kernel's figures of a queue, from its table: who has it, and packets lost for want of room.
fn statistics(queue: u16) -> Option<(u32, u64)> {
    let table = std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue").ok()?;
    table.lines().find_map(|line| {
        // Queue, port, packets that wait, copy mode, copy range, dropped by us, dropped by the socket.
        let fields: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        let &[number, port, _, _, _, queue_full, socket_full, ..] = &fields[..] else { return None };
        (number == u64::from(queue)).then_some((u32::try_from(port).ok()?, queue_full + socket_full))
    })
}

impl<'a> Device for NfQueue<'a> {
    type RxToken<'t>
        = PacketIn<'t, 'a>
    where
        Self: 't;
    type TxToken<'t>
        = PacketOut<'t, 'a>
    where
        Self: 't;

    fn receive(&mut self, _now: Instant) -> Option<(PacketIn<'_, 'a>, PacketOut<'_, 'a>)> {
        if !self.inbox.find(&mut self.rx_counters) || !self.make_room() {
            return None;
        }
        let Self { inbox, outbox, rx_counters, tx_counters, .. } = self;
        outbox.interface_index = inbox.interface_index;
        Some((PacketIn { inbox, counters: rx_counters }, PacketOut { outbox, counters: tx_counters }))
    }

    fn transmit(&mut self, _now: Instant) -> Option<PacketOut<'_, 'a>> {
        if !self.make_room() {
            return None;
        }
        Some(PacketOut { outbox: &mut self.outbox, counters: &mut self.tx_counters })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.checksum = received::checksums(false);
        capabilities
    }
}

/// One received packet.
#[derive(Debug)]
pub struct PacketIn<'t, 'a> {
    inbox: &'t mut Inbox<'a>,
    counters: &'t mut Counters,
}

impl RxToken for PacketIn<'_, '_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        self.inbox.lend(self.counters, f)
    }
}

/// Room for one packet.
#[derive(Debug)]
pub struct PacketOut<'t, 'a> {
    outbox: &'t mut Outbox<'a>,
    counters: &'t mut Counters,
}

impl TxToken for PacketOut<'_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.outbox.write(self.counters, len, f)
    }
}

impl Nic for NfQueue<'_> {
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Wake, LinkError> {
        self.flush()?;
        self.starved &= !self.outbox.has_room();
        let has_packets = self.inbox.current.is_some() || self.inbox.next.0 < self.inbox.lens.len();
        if has_packets && !self.starved {
            return Ok(Wake::Ready);
        }
        let retry = (!self.outbox.is_empty()).then(|| wait::now() + RETRY_INTERVAL);
        let (interest, until) = if self.starved {
            (PollFlags::empty(), retry)
        } else {
            (PollFlags::POLLIN, [deadline, retry].into_iter().flatten().min())
        };
        let socket = Some((self.inbox.queue.netlink.as_fd(), interest));
        Ok(wait::sleep(socket, &self.waker, until).1)
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        self.outbox.flush(&mut self.tx_counters);
        Ok(())
    }

    /// Packets come and go through any interface: always up.
    fn link_state(&mut self) -> LinkState {
        LinkState::Up
    }

    fn counters(&mut self) -> Counters {
        // In another namespace the queue of this number is somebody else's.
        if let Some((port, lost)) = statistics(self.inbox.queue.number)
            && port == self.inbox.queue.port
        {
            self.rx_counters.rx_ring_full = lost;
        }
        self.rx_counters + self.tx_counters
    }

    fn offloads(&self) -> OffloadCapabilities {
        OffloadCapabilities { checksum_rx: true, ..OffloadCapabilities::default() }
    }

    fn receive_with<R>(&mut self, _now: Instant, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> Option<R> {
        if !self.inbox.find(&mut self.rx_counters) {
            return None;
        }
        let (range, arrived) = self.inbox.current.take()?;
        let packet = self.inbox.buffer.get(range)?;
        Some(arrived.lend_whole(packet, &mut self.rx_counters, f))
    }

    fn transmit_with<R>(
        &mut self,
        _now: Instant,
        len: usize,
        meta: &FrameMeta,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> Option<R> {
        if !self.make_room() {
            return None;
        }
        if meta.is_plain() {
            return Some(self.outbox.write(&mut self.tx_counters, len, f));
        }
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        let segments = Segments::of(Medium::Ip, &packet, meta, None);
        self.tx_counters.tx_segmented += u64::from(segments.count() > 1);
        for index in 0..segments.count() {
            // As in a full queue, what there is no room for behind the first is lost.
            if !self.make_room() {
                self.tx_counters.tx_segments_lost += (segments.count() - index) as u64;
                break;
            }
            let write = |room: &mut [u8]| segments.write(index, room);
            self.outbox.write(&mut self.tx_counters, segments.frame_len(index), write);
        }
        Some(result)
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

impl Drop for NfQueue<'_> {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

/// `linux/netfilter.h`: the hook is called once more.
const NF_REPEAT: i32 = 4;
/// Packets and datagrams that are passed over in one search for a packet that can be lent.
const UNFIT_PACKETS_MAX: usize = 256;
/// How soon packets that the kernel did not take are offered again.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);
