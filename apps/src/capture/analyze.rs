//! What the frames of an interface are, flow by flow: how much, how bursty, and whether transport streams
//! in them are whole.
//!
//! The table is bounded: flows that come when it is full are counted together. A super-frame (several
//! segments in one frame, as the kernel merges or has not split them) is one frame; its segments count as
//! packets on a wire where the device tells how long they are, and all have the time of the frame.
//!
//! | module | what it owns |
//! |---|---|
//! | [`key`] | to which flow a frame belongs |
//! | [`burst`] | gaps between frames, packets in a millisecond |
//! | [`mpeg_ts`] | continuity of transport streams |
//! | [`report`] | all of it as JSON, and as a table |

pub mod burst;
pub mod key;
pub mod mpeg_ts;
pub mod report;

use std::collections::HashMap;

use wirestack::nic::FrameMeta;
use wirestack::nic::offload::layout::{Layout, Transport};

use burst::Bursts;
use key::FlowKey;
use mpeg_ts::{TransportStream, packets_of};

/// Statistics of everything that one thread receives.
#[derive(Debug)]
pub struct Analyzer {
    /// Where a flow is in `flows`. The peers choose the keys, so the hash is keyed (the default one).
    index: HashMap<FlowKey, usize>,
    flows: Vec<Flow>,
    flows_max: usize,
    /// The flow of the last frame: frames come in trains.
    last: usize,
    all: Bursts,
    total: Tally,
    not_ip: Tally,
    untracked: Tally,
    streams_left: usize,
}

/// One flow.
#[derive(Debug)]
struct Flow {
    key: FlowKey,
    tally: Tally,
    bursts: Bursts,
    transport_stream: Option<Box<TransportStream>>,
}

/// How much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Frames as they were received; a super-frame is one.
    pub frames: u64,
    /// Packets that these are on a wire, where the device tells; else the same as `frames`.
    pub packets: u64,
    /// Bytes of the frames, link header included.
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, packets: u64, bytes: u64) {
        self.frames += 1;
        self.packets += packets;
        self.bytes += bytes;
    }
}

impl Analyzer {
    /// Statistics of at most so many flows.
    pub fn new(flows_max: usize) -> Self {
        Self {
            index: HashMap::with_capacity(flows_max.min(FLOWS_PREALLOCATED)),
            flows: Vec::new(),
            flows_max,
            last: 0,
            all: Bursts::default(),
            total: Tally::default(),
            not_ip: Tally::default(),
            untracked: Tally::default(),
            streams_left: STREAMS_MAX,
        }
    }

    /// Counts a frame; `nanos` is its time since 1970.
    pub fn add(&mut self, nanos: u64, frame: &[u8], meta: &FrameMeta) {
        let bytes = frame.len() as u64;
        let found = FlowKey::of_frame(frame);
        let layout = found.and_then(|(_, layout)| layout);
        let packets = packets_in(meta, layout);
        self.total.add(packets, bytes);
        self.all.add(nanos, packets, bytes);
        let Some((key, _)) = found else { return self.not_ip.add(packets, bytes) };
        let Some(at) = self.find(key) else { return self.untracked.add(packets, bytes) };
        self.last = at;
        let Some(flow) = self.flows.get_mut(at) else { return };
        flow.tally.add(packets, bytes);
        flow.bursts.add(nanos, packets, bytes);
        if let Some(layout @ Layout { protocol: Transport::Udp, .. }) = layout {
            let payload = frame.get(layout.payload..layout.end).unwrap_or_default();
            flow.add_datagrams(payload, meta, &mut self.streams_left);
        }
    }

    /// The place of a flow, new or known; `None`: there is none left.
    fn find(&mut self, key: FlowKey) -> Option<usize> {
        if self.flows.get(self.last).is_some_and(|flow| flow.key == key) {
            return Some(self.last);
        }
        if let Some(&at) = self.index.get(&key) {
            return Some(at);
        }
        let at = self.flows.len();
        (at < self.flows_max).then(|| {
            self.index.insert(key, at);
            let (tally, bursts) = (Tally::default(), Bursts::default());
            self.flows.push(Flow { key, tally, bursts, transport_stream: None });
            at
        })
    }
}

impl Flow {
    /// Looks for transport streams in the payload of a UDP frame, which is several datagrams in a
    /// super-frame.
    fn add_datagrams(&mut self, payload: &[u8], meta: &FrameMeta, streams_left: &mut usize) {
        let size = meta.gso.map_or(usize::MAX, |gso| usize::from(gso.size.get()));
        for datagram in payload.chunks(size) {
            match (packets_of(datagram), &mut self.transport_stream) {
                (Some((packets, is_rtp)), stream) => {
                    stream.get_or_insert_default().add(packets, is_rtp, streams_left);
                }
                (None, Some(stream)) => stream.datagrams_other += 1,
                (None, None) => {}
            }
        }
    }
}

/// How many packets a frame is on a wire.
fn packets_in(meta: &FrameMeta, layout: Option<Layout>) -> u64 {
    let (Some(gso), Some(layout)) = (meta.gso, layout) else { return 1 };
    let payload_len = layout.end - layout.payload;
    payload_len.div_ceil(usize::from(gso.size.get())).max(1) as u64
}

/// Entries for which the table has memory from the start; growing moves them all.
const FLOWS_PREALLOCATED: usize = 1 << 16;
/// PIDs that are followed in all transport streams together; each takes 300 bytes.
const STREAMS_MAX: usize = 8192;

#[cfg(test)]
mod tests;
