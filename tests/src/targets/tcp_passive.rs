//! Whoever talks to a listener: records of connections that begin and of those that are over, against what was sent
//! and what was answered.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::time::{Duration, Instant};
use wirestack::demux::FlowKey;
use wirestack::random::Random;
use wirestack::tcp::half_open::{HalfOpenTimeout, HalfOpenVerdict, HalfOpens, Offer, SynVerdict};
use wirestack::tcp::handshake::{Clock, Negotiated};
use wirestack::tcp::isn::Isn;
use wirestack::tcp::options::{Options, Timestamps};
use wirestack::tcp::segment::{Ecn, Flags, Header, Segment};
use wirestack::tcp::seq::Seq;
use wirestack::tcp::time_wait::{Remains, TimeWaitVerdict, TimeWaits};
use wirestack::tcp::{Cookies, TcpConfig, TcpOptions};

/// A byte of configuration, and steps of eight bytes: who, what happens, flags, numbers near and far, timestamps,
/// options, a pause and a length.
///
/// What is believed was said before; what is answered is answered to whom it concerns; a reset draws none; tables
/// keep their bounds, and deadlines their order.
pub fn tcp_passive(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let mut host = Host::new(*kind);
    let (steps, _) = rest.as_chunks::<8>();
    for step in steps {
        host.step(step);
        host.check();
    }
}

/// What is known of a flow.
#[derive(Debug, Clone, Copy)]
enum Known {
    /// Its index, the SYN-ACK, when it is to be sent again, and how often it was.
    HalfOpen(u32, Header, Instant, u32),
    /// Its index, SND.NXT and RCV.NXT.
    TimeWait(u32, Seq, Seq),
}

struct Host {
    config: TcpConfig,
    half_opens: HalfOpens,
    time_waits: TimeWaits,
    isn: Isn,
    now: Instant,
    known: BTreeMap<u8, Known>,
    /// The newest SYN-ACKs with cookies.
    baked: BTreeMap<u8, Vec<(Header, Instant)>>,
    is_full: bool,
}

impl Host {
    fn new(kind: u8) -> Self {
        let modes = [Cookies::WhenFull, Cookies::Always, Cookies::Never];
        let options = TcpOptions {
            ecn: kind & 8 != 0,
            timestamps: kind & 16 == 0,
            recv_buffer: if kind & 32 == 0 { 65_535 } else { 1_000 },
            ..TcpOptions::default()
        };
        let config = TcpConfig {
            half_open_max: HALF_OPEN_MAX,
            time_wait_max: TIME_WAIT_MAX,
            cookies: modes[usize::from(kind) % 3],
            options,
            ..TcpConfig::default()
        };
        let mut random = Random::new(kind.into());
        Self {
            half_opens: HalfOpens::new(&config, &mut random),
            time_waits: TimeWaits::new(&config),
            isn: Isn::new(&mut random),
            config,
            now: Instant::from_secs(1),
            known: BTreeMap::new(),
            baked: BTreeMap::new(),
            is_full: false,
        }
    }

    fn step(&mut self, step: &[u8; 8]) {
        let [who, what, .., pause, _] = *step;
        self.now += Duration::from_millis(u64::from(pause) * u64::from(pause));
        self.is_full = what & 0x80 != 0;
        let who = who % FLOWS;
        let segment = self.segment(who, step);
        match self.known.get(&who).copied() {
            Some(Known::HalfOpen(index, syn_ack, resend_at, resends)) => {
                if self.now >= resend_at {
                    self.time_out(who, index, syn_ack, resends);
                } else {
                    self.in_syn_received(who, index, &syn_ack, &segment);
                }
            }
            Some(Known::TimeWait(index, snd_nxt, rcv_nxt)) => {
                self.in_time_wait(who, index, snd_nxt, rcv_nxt, &segment);
            }
            None if segment.flags.has(Flags::SYN) => self.in_listen(who, &segment, None),
            None => self.in_closed(who, &segment),
        }
    }

    /// Numbers are near those of the flow unless the highest bits of their bytes are set.
    fn segment(&self, who: u8, &[_, _, flags, seq, ack, times, asked, len]: &[u8; 8]) -> Segment<'static> {
        let baked = self.baked.get(&who).and_then(|all| all.last()).map(|(header, _)| header);
        let (rcv_nxt, snd_nxt, ours) = match (self.known.get(&who), baked) {
            (Some(Known::HalfOpen(_, header, ..)), _) | (None, Some(header)) => {
                (header.ack, header.seq + 1, header.options.timestamps)
            }
            (Some(Known::TimeWait(_, snd_nxt, rcv_nxt)), _) => (*rcv_nxt, *snd_nxt, None),
            (None, None) => (Seq(0), Seq(0), None),
        };
        let near = |from: Seq, byte: u8| match byte {
            0x80.. => from + (u32::from(byte) << 24 | 77),
            _ => from + u32::from(byte) - 2,
        };
        let clock = CLOCK.wrapping_add(u32::from(times & 15));
        let timestamps = Timestamps { val: clock, ecr: ours.map_or(0, |ours| ours.val) };
        Segment {
            src_port: 1_000,
            dst_port: 80,
            seq: near(rcv_nxt, seq),
            ack: near(snd_nxt, ack),
            flags: Flags(flags),
            window: u16::from(len) << 8,
            options: Options {
                mss: (asked & 1 != 0).then_some(u16::from(asked) * 50),
                window_scale: (asked & 2 != 0).then_some(asked >> 4),
                sack_permitted: asked & 4 != 0,
                timestamps: (times & 16 == 0).then_some(timestamps),
                ..Options::default()
            },
            payload: &PAYLOAD[..usize::from(len).min(PAYLOAD.len())],
            segment_bytes: None,
            ecn: Ecn::of(times >> 6),
        }
    }

    fn in_listen(&mut self, who: u8, segment: &Segment<'_>, iss_min: Option<Seq>) {
        let Self { half_opens, isn, config, now, .. } = self;
        let offer = offer(&config.options, self.is_full);
        let flow = flow(who);
        let verdict = match iss_min {
            Some(iss_min) => half_opens.on_reopening_syn(*now, &flow, &offer, isn, segment, iss_min),
            None => half_opens.on_syn(*now, &flow, &offer, isn, segment),
        };
        match verdict {
            SynVerdict::Recorded { index, reply, resend_at } => {
                assert!(self.config.cookies != Cookies::Always && resend_at > self.now);
                assert!(iss_min.is_none_or(|iss_min| reply.seq.is_after(iss_min)));
                check_syn_ack(&reply, segment);
                self.known.insert(who, Known::HalfOpen(index, reply, resend_at, 0));
            }
            SynVerdict::Cookie(reply) => {
                assert!(self.config.cookies != Cookies::Never);
                check_syn_ack(&reply, segment);
                let baked = self.baked.entry(who).or_default();
                baked.push((reply, self.now));
                baked.drain(..baked.len().saturating_sub(BAKED_MAX));
            }
            SynVerdict::Dropped(_) => {}
        }
        if self.is_full {
            assert!(matches!(verdict, SynVerdict::Dropped(_)), "a full listener takes none");
        }
    }

    fn in_closed(&mut self, who: u8, segment: &Segment<'_>) {
        let offer = offer(&self.config.options, false);
        let agreed = self.half_opens.on_cookie(self.now, &flow(who), &offer, &self.isn, segment);
        let Some(agreed) = agreed else { return };
        let baked = self.baked.get(&who).into_iter().flatten().find(|(header, at)| {
            header.seq == agreed.iss
                && header.ack == agreed.irs + 1
                && self.now < *at + Duration::from_secs(128)
        });
        let Some((header, _)) = baked else {
            // Older ones are not remembered here.
            assert!(self.baked.get(&who).is_some_and(|all| all.len() == BAKED_MAX), "nobody baked this");
            return;
        };
        assert_eq!(agreed.window_scale.map(|(_, ours)| ours), header.options.window_scale);
        assert_eq!(agreed.sack, header.options.sack_permitted);
        assert_eq!(agreed.ecn, header.flags.has(Flags::ECE));
        self.established(who, segment, &agreed);
    }

    fn in_syn_received(&mut self, who: u8, index: u32, syn_ack: &Header, segment: &Segment<'_>) {
        let is_reset = segment.flags.has(Flags::RST);
        match self.half_opens.on_segment(self.now, index, segment) {
            HalfOpenVerdict::Established(agreed) => {
                assert!(segment.flags.has(Flags::ACK) && !segment.flags.has_any(Flags::SYN | Flags::RST));
                assert_eq!((agreed.iss + 1, agreed.irs + 1), (segment.ack, syn_ack.ack));
                self.half_opens.remove(index);
                self.established(who, segment, &agreed);
            }
            HalfOpenVerdict::Reply(header) => {
                assert_eq!((header.src_port, header.dst_port, header.ack), (80, 1_000, syn_ack.ack));
                let is_syn = u32::from(!header.flags.has(Flags::SYN));
                assert_eq!(header.seq, syn_ack.seq + is_syn);
            }
            HalfOpenVerdict::Refuse(header) => {
                assert!(!is_reset && segment.flags.has(Flags::ACK));
                assert_eq!((header.seq, header.flags), (segment.ack, Flags::RST));
            }
            HalfOpenVerdict::Closed => {
                assert!(is_reset && segment.seq == syn_ack.ack, "only a reset at RCV.NXT");
                self.half_opens.remove(index);
                self.known.remove(&who);
            }
            HalfOpenVerdict::Dropped(_) => {}
        }
    }

    /// What was agreed on is closed at once.
    fn established(&mut self, who: u8, segment: &Segment<'_>, agreed: &Negotiated) {
        assert_eq!(agreed.snd_wl, (segment.seq, segment.ack));
        assert!(agreed.peer_mss >= 48 && agreed.snd_wnd <= 65_535 << 14);
        assert!(agreed.timestamps.is_none() || self.config.options.timestamps);
        let (snd_nxt, rcv_nxt) = (agreed.iss + 1_002, agreed.irs + 2);
        let clock = agreed.timestamps.map(|clock| Clock { recent: CLOCK + 3, ..clock });
        let remains = Remains { snd_nxt, rcv_nxt, window: 9, rcv_wnd: agreed.rcv_wnd, timestamps: clock };
        let (index, evicted) = self.time_waits.insert(self.now, flow(who), remains);
        if let Some(evicted) = evicted {
            self.known.retain(|who, _| flow(*who) != evicted);
        }
        self.known.insert(who, Known::TimeWait(index, snd_nxt, rcv_nxt));
    }

    fn in_time_wait(&mut self, who: u8, index: u32, snd_nxt: Seq, rcv_nxt: Seq, segment: &Segment<'_>) {
        let is_reset = segment.flags.has(Flags::RST);
        match self.time_waits.on_segment(self.now, index, segment) {
            TimeWaitVerdict::Reply { header, restarts_at } => {
                assert_eq!((header.seq, header.ack, header.flags), (snd_nxt, rcv_nxt, Flags::ACK));
                assert!(!is_reset, "a reset draws nothing");
                assert!(restarts_at.is_none_or(|at| at >= self.now + self.config.time_wait));
            }
            TimeWaitVerdict::Reopen { iss_min } => {
                assert!(!is_reset && segment.flags.has(Flags::SYN) && iss_min == snd_nxt);
                self.time_waits.remove(index);
                self.known.remove(&who);
                self.in_listen(who, segment, Some(iss_min));
            }
            TimeWaitVerdict::Dropped(_) => {}
        }
    }

    fn time_out(&mut self, who: u8, index: u32, syn_ack: Header, resends: u32) {
        match self.half_opens.on_timeout(self.now, index) {
            HalfOpenTimeout::Resend(again, at) => {
                assert!(at > self.now && resends < self.config.syn_ack_retries);
                assert_eq!((again.seq, again.ack), (syn_ack.seq, syn_ack.ack));
                self.known.insert(who, Known::HalfOpen(index, syn_ack, at, resends + 1));
            }
            HalfOpenTimeout::GaveUp => {
                assert_eq!(resends, self.config.syn_ack_retries);
                self.known.remove(&who);
            }
        }
    }

    fn check(&mut self) {
        while let Some(over) = self.time_waits.pop_expired(self.now) {
            self.known.retain(|who, _| flow(*who) != over);
        }
        assert!(self.time_waits.next_deadline().is_none_or(|at| at > self.now));
        assert!(self.half_opens.len() <= HALF_OPEN_MAX && self.time_waits.len() <= TIME_WAIT_MAX);
        assert_eq!(self.half_opens.len() + self.time_waits.len(), self.known.len());
        for (who, known) in &self.known {
            if let Known::HalfOpen(index, ..) = known {
                assert_eq!(self.half_opens.get(*index), Some((flow(*who), LISTENER)));
            }
        }
        let ends: Vec<_> = self.time_waits.iter().map(|(_, end)| end).collect();
        assert!(ends.is_sorted() && ends.len() == self.time_waits.len());
    }
}

fn check_syn_ack(reply: &Header, segment: &Segment<'_>) {
    assert_eq!((reply.src_port, reply.dst_port, reply.ack), (80, 1_000, segment.seq + 1));
    assert!(reply.flags.without(Flags::ECE) == Flags::SYN | Flags::ACK);
    assert!(!reply.flags.has(Flags::ECE) || segment.flags.has(Flags::ECE | Flags::CWR));
    let (granted, asked) = (reply.options, segment.options);
    assert!(granted.window_scale.is_none() || asked.window_scale.is_some());
    assert!(!granted.sack_permitted || asked.sack_permitted);
    assert!(
        granted.timestamps.is_none_or(|ours| asked.timestamps.is_some_and(|peers| peers.val == ours.ecr))
    );
}

fn offer(options: &TcpOptions, is_full: bool) -> Offer<'_> {
    Offer { listener: LISTENER, options, local_mss: 1_460, is_full, is_half_open_full: false }
}

/// Half of them are of IPv6.
fn flow(who: u8) -> FlowKey {
    let host = |host: u8| match who % 2 {
        0 => IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)),
        _ => IpAddr::V6(Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(host))),
    };
    FlowKey::of_parts(host(99), 80, host(who), 1_000).expect("one family")
}

/// A connection from the SYN to its end with and without a cookie, a FIN that comes again, a flow that is opened
/// anew, silence, and resets.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    const SYN: [u8; 8] = [0, 0, 2, 0x90, 0, 0, 0x77, 0];
    const ACK: [u8; 8] = [0, 0, 0x10, 2, 2, 1, 0, 9];
    const FIN: [u8; 8] = [0, 0, 0x11, 1, 2, 4, 0, 0];
    const SYN_AGAIN: [u8; 8] = [0, 0, 2, 9, 0, 5, 0x77, 0];
    const RST: [u8; 8] = [0, 0, 4, 2, 0, 0, 0, 0];
    const BAD: [u8; 8] = [0, 0, 0x10, 2, 9, 1, 0, 0];
    const LATE: [u8; 8] = [0, 0, 0x10, 0x90, 2, 1, 255, 0];
    let of = |kind: u8, steps: &[[u8; 8]]| [&[kind][..], &steps.concat()].concat();
    let others: Vec<_> = (0..FLOWS).map(|who| [who, 0, 0xc2, 0x90, 0, 0, 0x77, 0]).collect();
    vec![
        of(0, &[SYN, ACK, FIN, FIN, SYN_AGAIN, ACK, RST]),
        of(1, &[SYN, ACK, FIN, SYN_AGAIN, ACK]),
        of(2, &[SYN, SYN, BAD, RST, SYN, LATE, LATE, LATE]),
        of(8, &[&others[..], &[ACK, FIN, LATE]].concat()),
        of(48, &[&others[..], &[ACK, RST]].concat()),
    ]
}

const FLOWS: u8 = 8;
const HALF_OPEN_MAX: usize = 4;
const TIME_WAIT_MAX: usize = 3;
const BAKED_MAX: usize = 8;
const LISTENER: u32 = 7;
const CLOCK: u32 = 1_000_000;
const PAYLOAD: [u8; 100] = [7; 100];
