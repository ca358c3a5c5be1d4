//! What the table wants done, in the order in which it came up, and bounded.

use std::collections::VecDeque;
use std::net::IpAddr;

use smoltcp::wire::EthernetAddress;
use wirestack_nic::FrameMeta;

use super::entry::Parked;
use crate::observe::DropReason;

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send an ARP message.
    Arp {
        /// Whom to.
        dst: EthernetAddress,
        /// The message, for Ethernet and IPv4.
        message: [u8; 28],
    },
    /// Send an ICMPv6 message with hop limit 255.
    Ndp {
        /// Whom to: a neighbour, or the hardware address of a group.
        dst_mac: EthernetAddress,
        /// Source address; unspecified for a probe.
        src: IpAddr,
        /// Destination address.
        dst: IpAddr,
        /// The message with its checksum.
        message: [u8; NDP_MESSAGE_LEN],
    },
    /// Send a frame that has waited; its destination is filled in.
    Release {
        /// Its destination.
        mac: EthernetAddress,
        /// The frame.
        frame: Vec<u8>,
        /// What its sender said of it.
        meta: FrameMeta,
    },
    /// The neighbour for which this frame waited does not answer: to be told to the sender.
    Unreachable {
        /// Who does not answer.
        next_hop: IpAddr,
        /// The frame, its destination still zero.
        frame: Vec<u8>,
    },
    /// An address that was probed is ours.
    AddressReady(IpAddr),
    /// Somebody else has an address of ours: it is not to be used any more.
    AddressConflict {
        /// The address.
        address: IpAddr,
        /// Who has it.
        mac: EthernetAddress,
    },
    /// A neighbour that was a router is none any more (RFC 4861 section 7.2.5): it is to be taken off the
    /// list of default routers.
    RouterGone(IpAddr),
    /// To be counted: a frame that waited, or an answer that was due.
    Dropped(DropReason),
}

/// The queue of outputs. Requests and answers have a bound each; frames are bounded by the bytes that may
/// wait, of which they are part until they are fetched; what is said of our own addresses, by their number;
/// drops are numbers.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: VecDeque<(Kind, Output)>,
    requests: usize,
    answers: usize,
    events: usize,
    /// What waiting frames cost, here and with their neighbours.
    parked_bytes: usize,
    /// How often room came free.
    room_freed: u64,
    dropped: [u64; REASONS.len()],
}

/// What bounds an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// What we want to know or tell; if there is no room it is sent later.
    Request,
    /// What somebody wants to know; if there is no room it is dropped.
    Answer,
    /// A frame, with its cost.
    Frame(usize),
    /// Something for the stack.
    Event,
}

impl Outbox {
    pub(super) fn push(&mut self, kind: Kind, output: Output) {
        match kind {
            Kind::Request => self.requests += 1,
            Kind::Answer => self.answers += 1,
            Kind::Event => self.events += 1,
            Kind::Frame(_) => {}
        }
        self.queue.push_back((kind, output));
    }

    /// A frame goes on to its neighbour. It is part of `parked_bytes` already.
    pub(super) fn release(&mut self, mac: EthernetAddress, parked: Parked) {
        let Parked { mut frame, meta } = parked;
        let cost = Parked::cost(frame.len());
        if let Some(dst) = frame.first_chunk_mut() {
            *dst = mac.0;
        }
        self.push(Kind::Frame(cost), Output::Release { mac, frame, meta });
    }

    /// A frame goes back to its sender. It is part of `parked_bytes` already.
    pub(super) fn unreachable(&mut self, next_hop: IpAddr, parked: Parked) {
        let cost = Parked::cost(parked.frame.len());
        self.push(Kind::Frame(cost), Output::Unreachable { next_hop, frame: parked.frame });
    }

    /// A waiting frame is thrown away.
    pub(super) fn discard(&mut self, parked: &Parked, reason: DropReason) {
        self.unpark(Parked::cost(parked.frame.len()));
        self.count(reason);
    }

    pub(super) fn count(&mut self, reason: DropReason) {
        let counter = REASONS.iter().position(|known| *known == reason);
        if let Some(counter) = counter.and_then(|at| self.dropped.get_mut(at)) {
            *counter = counter.saturating_add(1);
        }
    }

    pub(super) fn park(&mut self, cost: usize) {
        self.parked_bytes = self.parked_bytes.saturating_add(cost);
    }

    pub(super) fn poll(&mut self) -> Option<Output> {
        let Some((kind, output)) = self.queue.pop_front() else { return self.poll_dropped() };
        match kind {
            Kind::Request => self.requests -= 1,
            Kind::Answer => self.answers -= 1,
            Kind::Frame(cost) => self.unpark(cost),
            Kind::Event => self.events -= 1,
        }
        Some(output)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn requests(&self) -> usize {
        self.requests
    }

    pub(super) fn answers(&self) -> usize {
        self.answers
    }

    /// Whether a stranger may still cause something that the stack is told.
    pub(super) fn has_room_for_event(&self) -> bool {
        self.events < EVENTS_MAX
    }

    pub(super) fn parked_bytes(&self) -> usize {
        self.parked_bytes
    }

    pub(super) fn room_freed(&self) -> u64 {
        self.room_freed
    }

    pub(super) fn note_room(&mut self) {
        self.room_freed = self.room_freed.wrapping_add(1);
    }

    fn unpark(&mut self, cost: usize) {
        self.note_room();
        self.parked_bytes = self.parked_bytes.saturating_sub(cost);
    }

    fn poll_dropped(&mut self) -> Option<Output> {
        let at = self.dropped.iter().position(|count| *count > 0)?;
        *self.dropped.get_mut(at)? -= 1;
        Some(Output::Dropped(*REASONS.get(at)?))
    }
}

/// Why this part of the stack throws something away later than in the call that brought it.
const REASONS: [DropReason; 4] = [
    DropReason::NeighborQueueFull,
    DropReason::NeighborUnreachable,
    DropReason::NeighborNoRoom,
    DropReason::OutboxFull,
];
/// Events that were not yet fetched, at most, of those that strangers can cause at will.
const EVENTS_MAX: usize = 256;
/// Bytes of a neighbour solicitation or advertisement with the one option that we send.
pub const NDP_MESSAGE_LEN: usize = 32;
