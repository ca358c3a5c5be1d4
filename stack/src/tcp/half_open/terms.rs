//! What the two SYNs of a connection settle, whether there is a record of it or a cookie.

use super::Offer;
use crate::demux::FlowKey;
use crate::tcp::handshake::{Clock, Negotiated, peer_mss, window_scale_for};
use crate::tcp::isn::Isn;
use crate::tcp::options::{Options, Timestamps};
use crate::tcp::segment::{Ecn, Flags, Header, Segment};
use crate::tcp::seq::Seq;

/// What a SYN asks for and a listener grants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) peer_mss: u16,
    pub(super) local_mss: u16,
    pub(super) rcv_wnd: u16,
    /// The peer's and ours.
    pub(super) window_scale: Option<(u8, u8)>,
    pub(super) sack: bool,
    pub(super) ecn: bool,
    pub(super) clock: Option<Clock>,
}

impl Terms {
    /// What is granted to whoever asks for nothing.
    pub(super) fn least(flow: &FlowKey, offer: &Offer<'_>) -> Self {
        let options = offer.options;
        Self {
            peer_mss: peer_mss(None, is_v4(flow)),
            local_mss: offer.local_mss.min(options.mss_max.unwrap_or(u16::MAX)),
            //= rfc7323#2.2
            //# The window field in a segment where the SYN bit is set (i.e., a <SYN> or <SYN,ACK>) MUST
            //# NOT be scaled.
            rcv_wnd: u16::try_from(options.recv_buffer).unwrap_or(u16::MAX),
            window_scale: None,
            sack: false,
            ecn: false,
            clock: None,
        }
    }

    pub(super) fn of(flow: &FlowKey, offer: &Offer<'_>, isn: &Isn, segment: &Segment<'_>) -> Self {
        let (options, asked) = (offer.options, &segment.options);
        let ours = window_scale_for(options.recv_buffer_max);
        let scale = asked.window_scale.filter(|_| options.window_scaling);
        let timestamps = asked.timestamps.filter(|_| options.timestamps);
        Self {
            peer_mss: peer_mss(asked.mss, is_v4(flow)),
            window_scale: scale.map(|peers| (peers.min(14), ours)),
            sack: asked.sack_permitted && options.sack,
            //= rfc3168#6.1.1
            //# If a host has received an ECN-setup SYN packet, then it MAY send an ECN-setup SYN-ACK
            //# packet.  Otherwise, it MUST NOT send an ECN-setup SYN-ACK packet.
            ecn: options.ecn && is_ecn_setup(segment),
            clock: timestamps.map(|asked| Clock { offset: isn.timestamp_offset(flow), recent: asked.val }),
            ..Self::least(flow, offer)
        }
    }

    /// `milliseconds`: of our clock, without its offset.
    pub(super) fn syn_ack(&self, flow: &FlowKey, iss: Seq, irs: Seq, milliseconds: u32) -> Header {
        Header {
            src_port: flow.local().port(),
            dst_port: flow.remote().port(),
            seq: iss,
            ack: irs + 1,
            flags: (Flags::SYN | Flags::ACK).with_if(Flags::ECE, self.ecn),
            window: self.rcv_wnd,
            options: Options {
                mss: Some(self.local_mss),
                window_scale: self.window_scale.map(|(_, ours)| ours),
                sack_permitted: self.sack,
                timestamps: self.timestamps(milliseconds),
                ..Options::default()
            },
        }
    }

    /// `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>`.
    pub(super) fn ack(&self, flow: &FlowKey, iss: Seq, irs: Seq, milliseconds: u32) -> Header {
        let scale = self.window_scale.map_or(0, |(_, ours)| ours);
        Header {
            src_port: flow.local().port(),
            dst_port: flow.remote().port(),
            seq: iss + 1,
            ack: irs + 1,
            flags: Flags::ACK,
            // Rounded up: what the SYN-ACK has offered is not taken back.
            window: u32::from(self.rcv_wnd).div_ceil(1 << scale) as u16,
            options: Options { timestamps: self.timestamps(milliseconds), ..Options::default() },
        }
    }

    fn timestamps(&self, milliseconds: u32) -> Option<Timestamps> {
        self.clock.map(|clock| Timestamps { val: milliseconds.wrapping_add(clock.offset), ecr: clock.recent })
    }

    /// What `segment` has settled, which acknowledges our SYN.
    pub(super) fn negotiated(&self, iss: Seq, irs: Seq, segment: &Segment<'_>) -> Negotiated {
        let scale = self.window_scale.map_or(0, |(peers, _)| peers);
        Negotiated {
            iss,
            irs,
            peer_mss: self.peer_mss,
            window_scale: self.window_scale,
            sack: self.sack,
            timestamps: self.clock,
            ecn: self.ecn,
            snd_wnd: u32::from(segment.window) << scale,
            snd_wl: (segment.seq, segment.ack),
            rcv_wnd: self.rcv_wnd.into(),
            rtt: None,
            is_lossy: false,
        }
    }
}

/// A SYN that asks for ECN (RFC 3168 section 6.1.1), and that says nothing of it to routers, as it must not.
pub(super) fn is_ecn_setup(segment: &Segment<'_>) -> bool {
    segment.flags.has(Flags::ECE | Flags::CWR) && segment.ecn == Ecn::NotCapable
}

fn is_v4(flow: &FlowKey) -> bool {
    matches!(flow, FlowKey::V4(_))
}
