//! Frames that are complete and wait for the device.
//!
//! They lie one behind the other in one piece of memory, so that a small frame costs its own length and a
//! record, and nothing is allocated once the memory is there. A turn normally empties it; if the device has
//! no room, frames wait here, and what finds no room here is refused at its sender.

use std::collections::VecDeque;

use smoltcp::time::Instant;
use wirestack_nic::steer::flow_hash_of_packet;
use wirestack_nic::{FrameMeta, Nic};

/// A queue of frames, bounded in bytes and in frames.
#[derive(Debug)]
pub struct Outbox {
    /// Twice `bytes_max` at most: so what waits is moved to the front only after as much has gone.
    memory: Vec<u8>,
    /// Where the next frame goes.
    end: usize,
    frames: VecDeque<Queued>,
    bytes_max: usize,
    frames_max: usize,
}

#[derive(Debug, Clone, Copy)]
struct Queued {
    start: usize,
    len: usize,
    meta: FrameMeta,
}

impl Outbox {
    /// An empty queue with room for so much. It takes memory as it is needed.
    pub fn new(bytes_max: usize, frames_max: usize) -> Self {
        Self { memory: Vec::new(), end: 0, frames: VecDeque::new(), bytes_max, frames_max }
    }

    /// Whether a frame of `len` bytes finds room.
    pub fn has_room(&self, len: usize) -> bool {
        self.has_room_for(1, len)
    }

    /// Whether so many frames of so many bytes together find room.
    pub fn has_room_for(&self, frames: usize, bytes: usize) -> bool {
        self.frames.len().saturating_add(frames) <= self.frames_max
            && self.waiting_bytes().saturating_add(bytes) <= self.bytes_max
    }

    /// Lets `write` write a frame of `len` bytes. `None`: there is no room, and `write` was not called.
    pub fn push<R>(&mut self, len: usize, meta: &FrameMeta, write: impl FnOnce(&mut [u8]) -> R) -> Option<R> {
        if !self.has_room(len) {
            return None;
        }
        if self.frames.is_empty() {
            self.end = 0;
        } else if self.end + len > 2 * self.bytes_max {
            self.compact();
        }
        let start = self.end;
        self.end += len;
        if self.memory.len() < self.end {
            self.memory.resize(self.end, 0);
        }
        self.frames.push_back(Queued { start, len, meta: *meta });
        Some(write(&mut self.memory[start..self.end]))
    }

    /// The last frame and what is said of it, to be changed.
    pub fn last_mut(&mut self) -> Option<(&mut [u8], &mut FrameMeta)> {
        let queued = self.frames.back_mut()?;
        Some((&mut self.memory[queued.start..queued.start + queued.len], &mut queued.meta))
    }

    /// Takes the last frame back: whoever wrote it found that it cannot be sent.
    pub fn retract(&mut self) {
        if let Some(queued) = self.frames.pop_back() {
            self.end = queued.start;
        }
    }

    /// The next frame; it stays.
    pub fn front(&self) -> Option<(&[u8], &FrameMeta)> {
        let queued = self.frames.front()?;
        Some((&self.memory[queued.start..queued.start + queued.len], &queued.meta))
    }

    /// Throws the next frame away: it was taken.
    pub fn pop(&mut self) {
        self.frames.pop_front();
    }

    /// Hands frames to the device, `frames_max` at most. Returns how many it took, and whether that was for
    /// want of room in the device.
    pub fn send<N: Nic>(&mut self, now: Instant, nic: &mut N, frames_max: usize) -> (usize, bool) {
        for sent in 0..frames_max {
            let Some((frame, meta)) = self.front() else { return (sent, false) };
            let took = nic.transmit_with(now, frame.len(), meta, |room| room.copy_from_slice(frame));
            if took.is_none() {
                return (sent, true);
            }
            self.pop();
        }
        (frames_max, false)
    }

    /// Hands small frames, of `len_max` bytes at most, to a device that has no room for the first one, past some that are
    /// longer; but not past those of their own flow, as far as they are IP packets without a link header. Returns how
    /// many it took.
    pub fn send_small<N: Nic>(&mut self, now: Instant, nic: &mut N, len_max: usize) -> usize {
        let (mut passed, mut sent) = ([0; PASSED_MAX], 0);
        let mut index = 0;
        while index < PASSED_MAX {
            let Some(queued) = self.frames.get(index) else { break };
            let frame = &self.memory[queued.start..queued.start + queued.len];
            let flow = flow_hash_of_packet(0, frame);
            if frame.len() > len_max || passed[..index].contains(&flow) {
                passed[index] = flow;
                index += 1;
                continue;
            }
            let took = nic.transmit_with(now, frame.len(), &queued.meta, |room| room.copy_from_slice(frame));
            if took.is_none() {
                break;
            }
            self.frames.remove(index);
            sent += 1;
        }
        sent
    }

    /// Frames that may wait.
    pub fn frames_max(&self) -> usize {
        self.frames_max
    }

    /// Bytes that may wait.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Frames that wait.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes of all frames that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.frames.front().map_or(0, |front| self.end - front.start)
    }

    /// Moves what waits to the front of the memory.
    fn compact(&mut self) {
        let Some(offset) = self.frames.front().map(|front| front.start) else { return };
        self.memory.copy_within(offset..self.end, 0);
        self.end -= offset;
        self.frames.iter_mut().for_each(|queued| queued.start -= offset);
    }
}

/// Frames that small ones pass at most.
const PASSED_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wirestack_nic::loopback::{Loopback, LoopbackConfig};

    use super::*;

    proptest! {
        /// What comes out is what went in, in order, and the bounds hold.
        #[test]
        fn it_is_a_bounded_queue(ops in prop::collection::vec((0_usize..40, any::<bool>()), 1..200)) {
            let mut outbox = Outbox::new(100, 5);
            let mut model: VecDeque<Vec<u8>> = VecDeque::new();
            for (count, (len, is_push)) in ops.into_iter().enumerate() {
                if is_push {
                    let frame = vec![count as u8; len];
                    let has_room = model.len() < 5 && model.iter().map(Vec::len).sum::<usize>() + len <= 100;
                    prop_assert_eq!(outbox.has_room(len), has_room);
                    let pushed = outbox.push(len, &FrameMeta::default(), |room| room.copy_from_slice(&frame));
                    prop_assert_eq!(pushed.is_some(), has_room);
                    if has_room {
                        model.push_back(frame);
                    }
                } else {
                    prop_assert_eq!(outbox.front().map(|(frame, _)| frame.to_vec()), model.pop_front());
                    outbox.pop();
                }
                prop_assert_eq!(outbox.len(), model.len());
                prop_assert_eq!(outbox.waiting_bytes(), model.iter().map(Vec::len).sum::<usize>());
                prop_assert!(outbox.memory.len() <= 200);
            }
        }
    }

    /// An IPv4 packet with UDP between two ports.
    fn packet(port: u16, len: usize) -> Vec<u8> {
        let mut packet = vec![0; len];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet[9] = 17;
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet[20..22].copy_from_slice(&port.to_be_bytes());
        packet
    }

    /// Small frames pass long ones, but not those of their flow, and so many of them at most.
    #[test]
    fn what_is_small_passes_what_is_long() {
        let push = |outbox: &mut Outbox, port: u16, len: usize| {
            let packet = packet(port, len);
            outbox
                .push(len, &FrameMeta::default(), |room| room.copy_from_slice(&packet))
                .expect("there is room");
        };
        let mut outbox = Outbox::new(1 << 20, 1_000);
        for (port, len) in [(1, 900), (1, 60), (2, 60), (3, 300), (2, 60), (3, 60), (4, 256), (5, 257)] {
            push(&mut outbox, port, len);
        }
        let medium = smoltcp::phy::Medium::Ip;
        let config = LoopbackConfig { medium, mtu: 1_500, ..LoopbackConfig::default() };
        let (mut wire, mut end) = Loopback::pair(&config).expect("two devices in memory");
        assert_eq!(outbox.send_small(Instant::ZERO, &mut wire, 256), 3);
        let mut sent = Vec::new();
        while let Some(port) = end.receive_with(Instant::ZERO, |frame, _| frame[21]) {
            sent.push(port);
        }
        assert_eq!(sent, [2, 2, 4]);
        let mut left = Vec::new();
        while let Some((frame, _)) = outbox.front() {
            left.push((frame[21], frame.len()));
            outbox.pop();
        }
        assert_eq!(left, [(1, 900), (1, 60), (3, 300), (3, 60), (5, 257)]);
        for port in 0..PASSED_MAX as u16 {
            push(&mut outbox, port, 900);
        }
        push(&mut outbox, 999, 60);
        assert_eq!(outbox.send_small(Instant::ZERO, &mut wire, 256), 0, "it looks at so many only");
    }
}
