//! Receiving without a ring: frames taken from the socket's queue, many by one recvmmsg(2).

use std::io;

use crate::Counters;
use crate::config::SUPER_FRAME_LEN_MAX;
use crate::meta::FrameMeta;
use crate::offload::VLAN_TAG_LEN;
use crate::sys::batch::{BATCH_LEN, Received};

use super::abi;
use super::rx_frame::{Header, RxOptions};

/// Frames that were taken from the socket and not lent yet.
#[derive(Debug)]
pub(crate) struct RxRecv {
    options: RxOptions,
    /// One for each frame of a call, each long enough for any frame and a tag before it.
    buffers: Vec<Vec<u8>>,
    facts: Box<[Received; BATCH_LEN]>,
    /// The frames `next..filled` were received and not lent.
    next: usize,
    filled: usize,
    /// Where the frame at `next` begins, once it was looked at.
    current: Option<(usize, FrameMeta)>,
    /// Frames that the next call asks for: more while they come in numbers, since a call for many costs more
    /// than one for a few.
    wanted: usize,
    /// The last call brought fewer than it asked for, so the next one would most likely be for nothing.
    dry: bool,
}

impl RxRecv {
    /// Bytes of all buffers.
    pub(crate) const MEMORY: usize = BATCH_LEN * BUFFER_LEN;

    pub(crate) fn new(options: RxOptions) -> Self {
        Self {
            options,
            buffers: vec![vec![0; BUFFER_LEN]; BATCH_LEN],
            facts: Box::new([Received::default(); BATCH_LEN]),
            next: 0,
            filled: 0,
            current: None,
            wanted: WANTED_MIN,
            dry: false,
        }
    }

    /// Whether frames were received that were not lent yet.
    pub(crate) fn has_frame(&self) -> bool {
        self.next < self.filled
    }

    /// Goes on to a frame that can be lent, past those that cannot, which it counts; asks the socket at most
    /// twice, and not at all right after it had less than it was asked for. `receive` fills buffers and tells
    /// how many.
    pub(crate) fn find(
        &mut self,
        counters: &mut Counters,
        mut receive: impl FnMut(&mut [&mut [u8]], &mut [Received; BATCH_LEN]) -> io::Result<usize>,
    ) -> bool {
        for asked in 0..=ASKED_MAX {
            while self.current.is_none() && self.next < self.filled {
                self.current = self.look(counters);
                if self.current.is_none() {
                    self.next += 1;
                }
            }
            if self.current.is_some() {
                return true;
            }
            (self.next, self.filled) = (0, 0);
            if asked == ASKED_MAX || std::mem::take(&mut self.dry) {
                break;
            }
            let mut rooms =
                self.buffers.iter_mut().map(|buffer| buffer.get_mut(FRAME_START..).unwrap_or_default());
            let mut rooms: [&mut [u8]; BATCH_LEN] = std::array::from_fn(|_| rooms.next().unwrap_or_default());
            let wanted = self.wanted.min(BATCH_LEN);
            counters.rx_calls += 1;
            // An error that waits on the socket is told once; `wait` looks at the link.
            self.filled = receive(&mut rooms[..wanted], &mut self.facts).unwrap_or(0).min(wanted);
            self.dry = self.filled < wanted;
            self.wanted = if self.dry { (wanted / 2).max(WANTED_MIN) } else { (wanted * 2).min(BATCH_LEN) };
            if self.filled == 0 {
                self.dry = false;
                break;
            }
        }
        false
    }

    /// Makes the frame at `next` ready to be lent.
    fn look(&mut self, counters: &mut Counters) -> Option<(usize, FrameMeta)> {
        let facts = self.facts.get(self.next)?;
        let buffer = self.buffers.get_mut(self.next)?;
        let virtio_len = if self.options.vnet_hdr { abi::VNET_HDR_LEN } else { 0 };
        let snaplen = facts.len.saturating_sub(virtio_len);
        let header = Header {
            status: facts.status,
            len: facts.wire_len.max(snaplen),
            snaplen,
            timestamp_nanos: facts.timestamp_nanos,
            vlan_tci: facts.vlan_tci,
            vlan_tpid: facts.vlan_tpid,
            packet_type: facts.packet_type,
            ..Header::default()
        };
        if !self.options.wants(&header) {
            return None;
        }
        let area = FRAME_START.checked_add(facts.len).and_then(|end| buffer.get_mut(..end));
        // Longer than any buffer, or cut by a filter.
        let Some(area) = area.filter(|_| header.snaplen == header.len) else {
            counters.rx_truncated += 1;
            return None;
        };
        self.options.prepare(counters, &header, area, FRAME_START + virtio_len)
    }

    /// What is known of the frame that [`find`](Self::find) found.
    pub(crate) fn meta(&self) -> Option<&FrameMeta> {
        self.current.as_ref().map(|(_, meta)| meta)
    }

    /// Lends the frame that [`find`](Self::find) found. Without such a frame it lends an empty one; a token
    /// exists only when there is one.
    pub(crate) fn lend<R>(&mut self, counters: &mut Counters, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> R {
        let Some((start, meta)) = self.current.take() else { return f(&[], &FrameMeta::default()) };
        let end = FRAME_START + self.facts.get(self.next).map_or(0, |facts| facts.len);
        let bytes = self.buffers.get(self.next).and_then(|buffer| buffer.get(start..end)).unwrap_or_default();
        self.next += 1;
        counters.rx_frames += 1;
        counters.rx_super_frames += u64::from(meta.gso.is_some());
        counters.rx_bytes += bytes.len() as u64;
        f(bytes, &meta)
    }
}

/// Calls for one frame that can be lent, if none of those that came can.
const ASKED_MAX: usize = 2;
/// Frames that a call asks for while few come.
const WANTED_MIN: usize = 4;
/// Where what the kernel writes begins in a buffer: there is room for a VLAN tag before it.
const FRAME_START: usize = VLAN_TAG_LEN;
/// Bytes of a buffer: any frame, merged or of the largest MTU.
const BUFFER_LEN: usize = FRAME_START + abi::VNET_HDR_LEN + SUPER_FRAME_LEN_MAX;

#[cfg(test)]
mod tests;
