//! The packets that wait for the line: a queue for each flow, bounded in bytes together.
//!
//! Flows take turns by bytes (deficit round robin, as FQ-CoDel has it, RFC 8290 section 4), and a flow that begins to wait
//! with a small packet goes before them: an ACK or a key stroke waits for the packet on the line, and for no bulk, of
//! however many flows. While one packet of bulk waits it passes with a quantum of bytes, not more. Within a flow nothing
//! passes anything: a segment that comes before its predecessor would be answered by duplicate ACKs.

use std::collections::VecDeque;

use crate::steer::flow_hash_of_packet;

/// Bounds of a [`TxQueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueConfig {
    /// Bytes of all packets longer than `small_max` that may wait; one finds room in any case.
    pub bulk_bytes_max: usize,
    /// Bytes of all packets that may wait: for small ones, there is room when there is none for others.
    pub bytes_max: usize,
    /// Bytes of a small packet, at most: an ACK, a key stroke, a question for a name.
    pub small_max: usize,
    /// Bytes of a packet of the line's MTU: what a flow may send in its turn.
    pub quantum: usize,
}

/// Packets that wait for the line.
#[derive(Debug)]
pub struct TxQueue {
    config: QueueConfig,
    flows: Vec<Flow>,
    /// Flows that have begun to wait with a small packet, and have not used their quantum up; and all others.
    fresh: VecDeque<u8>,
    served: VecDeque<u8>,
    /// Packets that have left of the others.
    round: u32,
    bytes: usize,
    bulk_bytes: usize,
    /// Memory of packets that have left.
    spare: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Flow {
    packets: VecDeque<Vec<u8>>,
    /// Bytes that it may still send in its turn; less than none, if its last packet was longer.
    deficit: isize,
    /// The round in which it last began to wait.
    round: u32,
    is_listed: bool,
}

impl TxQueue {
    /// An empty queue.
    pub fn new(config: QueueConfig) -> Self {
        let flows = (0..FLOWS).map(|_| Flow::default()).collect();
        let (fresh, served, spare) = Default::default();
        Self { config, flows, fresh, served, round: 1, bytes: 0, bulk_bytes: 0, spare }
    }

    /// Whether a packet of `len` bytes finds room.
    pub fn has_room(&self, len: usize) -> bool {
        let fits = self.bytes + len <= self.config.bytes_max;
        if len <= self.config.small_max {
            fits
        } else {
            self.bulk_bytes == 0 || fits && self.bulk_bytes + len <= self.config.bulk_bytes_max
        }
    }

    /// Whether a packet of any length up to the line's MTU does.
    pub fn has_room_for_any(&self) -> bool {
        self.has_room(self.config.small_max)
            && self.has_room(self.config.quantum.max(self.config.small_max + 1))
    }

    /// Lets `write` write a packet of `len` bytes. The caller has seen that there is room.
    pub fn push<R>(&mut self, len: usize, write: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut packet = self.spare.pop().unwrap_or_default();
        packet.clear();
        packet.resize(len, 0);
        let result = write(&mut packet);
        self.bytes += len;
        self.bulk_bytes += self.bulk_len(len);
        let index = flow_hash_of_packet(0, &packet) as usize % FLOWS;
        let flow = &mut self.flows[index];
        flow.packets.push_back(packet);
        if !std::mem::replace(&mut flow.is_listed, true) {
            // Who comes again and again with one packet is not to pass those who wait for ever.
            if std::mem::replace(&mut flow.round, self.round) != self.round {
                flow.deficit = self.config.quantum as isize;
            }
            let passes = len <= self.config.small_max && flow.deficit > 0;
            if passes { &mut self.fresh } else { &mut self.served }.push_back(index as u8);
        }
        result
    }

    /// Lets `take` have the packet whose turn it is. `None`: there is none.
    pub fn pop<R>(&mut self, take: impl FnOnce(&[u8]) -> R) -> Option<R> {
        loop {
            let is_fresh = !self.fresh.is_empty();
            let index = *if is_fresh { self.fresh.front()? } else { self.served.front()? };
            let flow = &mut self.flows[usize::from(index)];
            if flow.deficit <= 0 {
                flow.deficit += self.config.quantum.max(1) as isize;
                self.turn_over(is_fresh, true);
            } else if let Some(packet) = flow.packets.pop_front() {
                self.round = self.round.wrapping_add(u32::from(!is_fresh));
                flow.deficit -= packet.len() as isize;
                self.bytes -= packet.len();
                self.bulk_bytes -= self.bulk_len(packet.len());
                let result = take(&packet);
                if self.spare.len() < SPARE_MAX {
                    self.spare.push(packet);
                }
                return Some(result);
            } else {
                flow.is_listed = false;
                self.turn_over(is_fresh, false);
            }
        }
    }

    /// The first flow of a list has had its turn.
    fn turn_over(&mut self, is_fresh: bool, comes_again: bool) {
        let list = if is_fresh { &mut self.fresh } else { &mut self.served };
        let index = list.pop_front();
        self.served.extend(index.filter(|_| comes_again));
    }

    fn bulk_len(&self, len: usize) -> usize {
        if len > self.config.small_max { len } else { 0 }
    }

    /// Throws everything away.
    pub fn clear(&mut self) {
        *self = Self::new(self.config);
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes of a packet that finds room when longer ones do not.
    pub fn small_max(&self) -> usize {
        self.config.small_max
    }
}

/// Queues. Flows that share one are one to each other.
const FLOWS: usize = 64;
/// Packets whose memory is kept.
const SPARE_MAX: usize = 8;

#[cfg(test)]
mod tests;
