use proptest::prelude::*;

use super::*;
use crate::tcp::options::Timestamps;
use crate::tcp::segment::Ecn;

const IRS: Seq = Seq(u32::MAX - 2);
const NOW: Instant = Instant::from_millis_const(1_000_000);
const PEER_CLOCK: u32 = u32::MAX - 10;
const WINDOW: u32 = 65_535;

fn flow() -> FlowKey {
    flow_of("10.0.0.1:80", "10.0.0.2:1000")
}

fn flow_of(local: &str, remote: &str) -> FlowKey {
    FlowKey::new(local.parse().expect("local"), remote.parse().expect("remote")).expect("one family")
}

fn segment(flags: Flags, seq: Seq, ack: Seq) -> Segment<'static> {
    Segment {
        src_port: 1000,
        dst_port: 80,
        seq,
        ack,
        flags,
        window: 1_000,
        options: Options::default(),
        payload: &[],
        segment_bytes: None,
        ecn: Ecn::NotCapable,
    }
}

fn stamped(segment: Segment<'static>, val: u32) -> Segment<'static> {
    let timestamps = Some(Timestamps { val, ecr: 0 });
    Segment { options: Options { timestamps, ..segment.options }, ..segment }
}

/// A SYN of today.
fn syn() -> Segment<'static> {
    let options =
        Options { mss: Some(1_460), window_scale: Some(9), sack_permitted: true, ..Options::default() };
    stamped(Segment { options, ..segment(Flags::SYN, IRS, Seq(0)) }, PEER_CLOCK)
}

/// A SYN without options.
fn bare_syn() -> Segment<'static> {
    segment(Flags::SYN, IRS, Seq(0))
}

struct Table {
    half_opens: HalfOpens,
    isn: Isn,
    options: TcpOptions,
    is_full: bool,
    is_half_open_full: bool,
}

impl Table {
    fn new(config: TcpConfig) -> Self {
        let mut random = Random::new(1);
        let isn = Isn::new(&mut random);
        let half_opens = HalfOpens::new(&config, &mut random);
        Self { half_opens, isn, options: config.options, is_full: false, is_half_open_full: false }
    }

    fn syn_of(&mut self, now: Instant, flow: &FlowKey, segment: &Segment<'_>) -> SynVerdict {
        let Self { half_opens, isn, options, is_full, is_half_open_full } = self;
        let offer = Offer {
            listener: 7,
            options,
            local_mss: 1_400,
            is_full: *is_full,
            is_half_open_full: *is_half_open_full,
        };
        half_opens.on_syn(now, flow, &offer, isn, segment)
    }

    fn record(&mut self, segment: &Segment<'_>) -> (u32, Header) {
        match self.syn_of(NOW, &flow(), segment) {
            SynVerdict::Recorded { index, reply, resend_at } => {
                assert_eq!(resend_at, NOW + Duration::from_secs(1));
                (index, reply)
            }
            other => panic!("{other:?}"),
        }
    }

    fn cookie(&mut self, now: Instant, segment: &Segment<'_>) -> Header {
        match self.syn_of(now, &flow(), segment) {
            SynVerdict::Cookie(header) => header,
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, now: Instant, flow: &FlowKey, segment: &Segment<'_>) -> Option<Negotiated> {
        let Self { half_opens, isn, options, .. } = self;
        let offer =
            Offer { listener: 7, options, local_mss: 1_400, is_full: false, is_half_open_full: false };
        half_opens.on_cookie(now, flow, &offer, isn, segment)
    }
}

/// What a peer sends upon a SYN-ACK.
fn ack_of(syn_ack: &Header, val: u32) -> Segment<'static> {
    let timestamps = syn_ack.options.timestamps.map(|ours| Timestamps { val, ecr: ours.val });
    let options = Options { timestamps, ..Options::default() };
    Segment { options, ..segment(Flags::ACK, syn_ack.ack, syn_ack.seq + 1) }
}

#[test]
fn a_record_has_128_bytes_at_most() {
    assert!(size_of::<Slot>() <= 128, "{}", size_of::<Slot>());
}

#[test]
fn what_is_asked_for_and_granted_is_agreed_on() {
    let all = TcpOptions { ecn: true, ..TcpOptions::default() };
    let ecn = Flags::ECE | Flags::CWR;
    let with = |change: fn(&mut Segment<'static>)| {
        let mut syn = syn();
        change(&mut syn);
        syn
    };
    let scale = window_scale_for(all.recv_buffer_max);
    // What comes, what the listener grants; MSS, scale, SACK, timestamps and ECN.
    let cases = [
        (syn(), all, (1_460, Some((9, scale)), true, true, false)),
        (with(|syn| syn.flags = Flags(0xc2)), all, (1_460, Some((9, scale)), true, true, true)),
        (bare_syn(), all, (536, None, false, false, false)),
        (syn(), TcpOptions { sack: false, ..all }, (1_460, Some((9, scale)), false, true, false)),
        (syn(), TcpOptions { timestamps: false, ..all }, (1_460, Some((9, scale)), true, false, false)),
        (syn(), TcpOptions { window_scaling: false, ..all }, (1_460, None, true, true, false)),
        (syn(), TcpOptions { recv_buffer_max: 65_535, ..all }, (1_460, Some((9, 0)), true, true, false)),
        (
            with(|syn| syn.options.window_scale = Some(200)),
            all,
            (1_460, Some((14, scale)), true, true, false),
        ),
        (with(|syn| syn.options.mss = Some(0)), all, (536, Some((9, scale)), true, true, false)),
        (with(|syn| syn.options.mss = Some(3)), all, (48, Some((9, scale)), true, true, false)),
        (
            with(|syn| syn.flags = Flags(0xc2)),
            TcpOptions { ecn: false, ..all },
            (1_460, Some((9, scale)), true, true, false),
        ),
    ];
    for (syn, options, (peer_mss, window_scale, sack, has_timestamps, is_ecn)) in cases {
        let mut table = Table::new(TcpConfig { options, ..TcpConfig::default() });
        let (index, reply) = table.record(&syn);
        assert_eq!((reply.src_port, reply.dst_port, reply.ack), (80, 1000, IRS + 1));
        assert_eq!(reply.flags, (Flags::SYN | Flags::ACK).with_if(Flags::ECE, is_ecn), "{syn:?}");
        assert_eq!(reply.window, 65_535, "not scaled");
        assert_eq!(reply.options.mss, Some(1_400));
        assert_eq!(reply.options.window_scale, window_scale.map(|(_, ours)| ours));
        assert_eq!(reply.options.sack_permitted, sack);
        assert_eq!(reply.options.timestamps.map(|ours| ours.ecr), has_timestamps.then_some(PEER_CLOCK));
        let now = NOW + Duration::from_millis(30);
        let ack = ack_of(&reply, PEER_CLOCK.wrapping_add(30));
        let HalfOpenVerdict::Established(agreed) = table.half_opens.on_segment(now, index, &ack) else {
            panic!("{syn:?}")
        };
        let expected = Negotiated {
            iss: reply.seq,
            irs: IRS,
            peer_mss,
            window_scale,
            sack,
            timestamps: has_timestamps.then(|| Clock {
                offset: table.isn.timestamp_offset(&flow()),
                recent: PEER_CLOCK.wrapping_add(30),
            }),
            ecn: is_ecn,
            snd_wnd: 1_000 << window_scale.map_or(0, |(peers, _)| peers),
            snd_wl: (IRS + 1, reply.seq + 1),
            rcv_wnd: 65_535,
            rtt: Some(Duration::from_millis(30)),
            is_lossy: false,
        };
        assert_eq!(agreed, expected, "{syn:?}");
        assert_eq!(table.half_opens.get(index), Some((flow(), 7)), "the caller takes it away");
    }
    assert_eq!(ecn, Flags(0xc0));
}

#[test]
fn what_the_syn_ack_says_of_us() {
    for (mss_max, recv_buffer, expected) in [
        (None, 65_535, (1_400, 65_535)),
        (Some(500), 1 << 20, (500, 65_535)),
        (Some(9_000), 4_096, (1_400, 4_096)),
    ] {
        let options = TcpOptions { mss_max, recv_buffer, ..TcpOptions::default() };
        let mut table = Table::new(TcpConfig { options, ..TcpConfig::default() });
        let (_, reply) = table.record(&syn());
        assert_eq!((reply.options.mss, reply.window), (Some(expected.0), expected.1));
        let clock = reply.options.timestamps.expect("timestamps").val;
        assert_eq!(clock.wrapping_sub(table.isn.timestamp_offset(&flow())), 1_000_000);
        assert_eq!(reply.seq, table.isn.choose(NOW, &flow()));
    }
    let mut table = Table::new(TcpConfig::default());
    let flow = flow_of("[fd00::1]:80", "[fd00::2]:1000");
    let SynVerdict::Recorded { index, reply, .. } = table.syn_of(NOW, &flow, &bare_syn()) else { panic!() };
    let verdict = table.half_opens.on_segment(NOW, index, &ack_of(&reply, 0));
    assert!(matches!(verdict, HalfOpenVerdict::Established(Negotiated { peer_mss: 1_220, .. })));
}

/// LISTEN, RFC 9293 section 3.10.7.2: what concerns a SYN.
#[test]
fn ecn_needs_both_bits_and_no_mark() {
    let options = TcpOptions { ecn: true, ..TcpOptions::default() };
    for (flags, ecn, expected) in [
        (Flags::SYN, Ecn::NotCapable, false),
        (Flags::SYN | Flags::ECE, Ecn::NotCapable, false),
        (Flags::SYN | Flags::CWR, Ecn::NotCapable, false),
        (Flags::SYN | Flags::ECE | Flags::CWR, Ecn::NotCapable, true),
        (Flags::SYN | Flags::ECE | Flags::CWR, Ecn::Ect0, false),
    ] {
        let mut table = Table::new(TcpConfig { options, ..TcpConfig::default() });
        let (_, reply) = table.record(&Segment { flags, ecn, ..syn() });
        assert_eq!(reply.flags.has(Flags::ECE), expected, "{flags:?} {ecn:?}");
        assert!(!reply.flags.has(Flags::CWR));
    }
}

#[test]
fn a_syn_that_is_more_than_a_syn() {
    let mut table = Table::new(TcpConfig::default());
    for flags in [Flags::FIN, Flags::ACK, Flags::RST] {
        let verdict = table.syn_of(NOW, &flow(), &Segment { flags: Flags::SYN | flags, ..syn() });
        assert_eq!(verdict, SynVerdict::Dropped(DropReason::TcpBadFlags));
    }
    assert_eq!(
        table.syn_of(NOW, &flow(), &segment(Flags::ACK, IRS, Seq(1))),
        SynVerdict::Dropped(DropReason::TcpBadFlags)
    );
    assert!(table.half_opens.is_empty());
    // Data of a SYN is left to be sent again; PSH and URG do not matter.
    let flags = Flags::SYN | Flags::PSH | Flags::URG;
    let (_, reply) = table.record(&Segment { flags, payload: b"data", ..syn() });
    assert_eq!(reply.ack, IRS + 1);
}

#[test]
fn what_finds_no_room() {
    use Cookies::{Always, Never, WhenFull};
    let full = Err(DropReason::TcpSynQueueFull);
    let overflow = Err(DropReason::TcpListenOverflow);
    // A cookie, or a record, or why not.
    for (cookies, half_open_max, is_full, is_half_open_full, expected) in [
        (WhenFull, 1, false, false, Ok(false)),
        (WhenFull, 0, false, false, Ok(true)),
        (WhenFull, 1, false, true, Ok(true)),
        (WhenFull, 1, true, false, overflow),
        (WhenFull, 0, true, true, overflow),
        (Always, 1, false, false, Ok(true)),
        (Always, 1, true, false, overflow),
        (Never, 1, false, false, Ok(false)),
        (Never, 0, false, false, full),
        (Never, 1, false, true, full),
        (Never, 1, true, false, overflow),
    ] {
        let mut table = Table::new(TcpConfig { half_open_max, cookies, ..TcpConfig::default() });
        (table.is_full, table.is_half_open_full) = (is_full, is_half_open_full);
        let result = match table.syn_of(NOW, &flow(), &syn()) {
            SynVerdict::Recorded { .. } => Ok(false),
            SynVerdict::Cookie(_) => Ok(true),
            SynVerdict::Dropped(reason) => Err(reason),
        };
        assert_eq!(result, expected, "{cookies:?} {half_open_max} {is_full} {is_half_open_full}");
        assert_eq!(table.half_opens.len(), usize::from(expected == Ok(false)));
    }
}

#[test]
fn a_syn_ack_is_sent_again_after_1_2_4_8_and_16_seconds() {
    let mut table = Table::new(TcpConfig::default());
    let (index, first) = table.record(&syn());
    let mut at = NOW + Duration::from_secs(1);
    let mut seconds = Vec::new();
    while let HalfOpenTimeout::Resend(again, next) = table.half_opens.on_timeout(at, index) {
        seconds.push((at - NOW).secs());
        let val = again.options.timestamps.expect("timestamps").val;
        let age = val.wrapping_sub(first.options.timestamps.expect("timestamps").val);
        assert_eq!(u64::from(age), (at - NOW).total_millis());
        let timestamps = first.options.timestamps;
        assert_eq!(Header { options: Options { timestamps, ..again.options }, ..again }, first);
        at = next;
    }
    assert_eq!((seconds, (at - NOW).secs()), (vec![1, 3, 7, 15, 31], 63));
    assert!(table.half_opens.is_empty() && table.half_opens.get(index).is_none());
    assert_eq!(table.half_opens.on_timeout(at, index), HalfOpenTimeout::GaveUp);
}

#[test]
fn the_time_between_syn_acks_has_a_bound() {
    let rto = crate::tcp::RtoBounds {
        initial: Duration::from_millis(500),
        min: Duration::from_millis(5),
        max: Duration::from_millis(1_500),
    };
    let options = TcpOptions { rto, ..TcpOptions::default() };
    let mut table = Table::new(TcpConfig { options, syn_ack_retries: 1_000, ..TcpConfig::default() });
    let SynVerdict::Recorded { index, resend_at, .. } = table.syn_of(NOW, &flow(), &syn()) else { panic!() };
    assert_eq!(resend_at, NOW + Duration::from_millis(500));
    let mut count = 0;
    while let HalfOpenTimeout::Resend(_, next) = table.half_opens.on_timeout(NOW, index) {
        count += 1;
        assert_eq!(next, NOW + Duration::from_millis(if count == 1 { 1_000 } else { 1_500 }));
    }
    assert_eq!(count, 255);
}

/// What is expected of a segment for a record.
#[derive(Debug, PartialEq)]
enum Expected {
    Established,
    SynAck,
    Challenge,
    Refuse,
    Closed,
    Dropped(DropReason),
}

fn expected_of(verdict: &HalfOpenVerdict, syn_ack: &Header, sent: &Segment<'_>) -> Expected {
    match verdict {
        HalfOpenVerdict::Established(_) => Expected::Established,
        HalfOpenVerdict::Reply(header) if header.flags.has(Flags::SYN) => {
            assert_eq!((header.seq, header.ack, header.flags), (syn_ack.seq, IRS + 1, syn_ack.flags));
            Expected::SynAck
        }
        HalfOpenVerdict::Reply(header) => {
            assert_eq!((header.seq, header.ack, header.flags), (syn_ack.seq + 1, IRS + 1, Flags::ACK));
            assert_eq!(header.options.timestamps.is_some(), syn_ack.options.timestamps.is_some());
            Expected::Challenge
        }
        HalfOpenVerdict::Refuse(header) => {
            assert_eq!((header.seq, header.ack, header.flags), (sent.ack, Seq(0), Flags::RST));
            assert_eq!((header.src_port, header.dst_port), (80, 1000));
            Expected::Refuse
        }
        HalfOpenVerdict::Closed => Expected::Closed,
        HalfOpenVerdict::Dropped(reason) => Expected::Dropped(*reason),
    }
}

/// Flags, SEG.SEQ - RCV.NXT, SEG.ACK - SND.NXT, payload.
type Case = (Flags, i32, i32, &'static [u8], Expected);

fn cases() -> [Case; 38] {
    use DropReason::{TcpNoAck, TcpOutOfWindow};
    use Expected::{Challenge, Closed, Dropped, Established, Refuse, SynAck};
    let ack = Flags::ACK;
    let window = WINDOW as i32;
    [
        (ack, 0, 0, b"", Established),
        (ack, 0, 0, b"data", Established),
        (ack | Flags::FIN, 0, 0, b"", Established),
        (ack | Flags::FIN | Flags::PSH | Flags::URG, 0, 0, b"data", Established),
        (ack, 1_000, 0, b"", Established),
        (ack, window - 1, 0, b"data", Established),
        (ack, -2, 0, b"data", Established),
        (ack | Flags::ECE | Flags::CWR, 0, 0, b"", Established),
        // Out of the window.
        (ack, -1, 0, b"", Challenge),
        (ack, -1, 0, b"x", Challenge),
        (ack, window, 0, b"", Challenge),
        (ack, window, 0, b"data", Challenge),
        (ack, i32::MIN, 0, b"", Challenge),
        (Flags::NONE, -5, 0, b"data", Challenge),
        (ack, -1, 5, b"", Challenge),
        // No ACK.
        (Flags::NONE, 0, 0, b"", Dropped(TcpNoAck)),
        (Flags::NONE, 0, 0, b"data", Dropped(TcpNoAck)),
        (Flags::FIN, 0, 0, b"", Dropped(TcpNoAck)),
        (Flags::PSH | Flags::URG, 7, 0, b"data", Dropped(TcpNoAck)),
        // Another acknowledgment.
        (ack, 0, -1, b"", Refuse),
        (ack, 0, 1, b"", Refuse),
        (ack, 0, i32::MIN, b"", Refuse),
        (ack, 10, 1_000_000, b"data", Refuse),
        (ack | Flags::FIN, 0, 2, b"", Refuse),
        // RST.
        (Flags::RST, 0, 0, b"", Closed),
        (Flags::RST | ack, 0, 0, b"", Closed),
        (Flags::RST | ack, 0, 77, b"", Closed),
        (Flags::RST | Flags::SYN, 0, 0, b"", Closed),
        (Flags::RST, 1, 0, b"", Challenge),
        (Flags::RST, window - 1, 0, b"", Challenge),
        (Flags::RST, window, 0, b"", Dropped(TcpOutOfWindow)),
        (Flags::RST, -1, 0, b"", Dropped(TcpOutOfWindow)),
        // SYN.
        (Flags::SYN, -1, 0, b"", SynAck),
        (Flags::SYN, -1, 0, b"data", SynAck),
        (Flags::SYN, 0, 0, b"", Challenge),
        (Flags::SYN, 1_000_000, 0, b"", Challenge),
        (Flags::SYN | ack, -1, 0, b"", Challenge),
        (Flags::SYN | Flags::FIN, -1, 0, b"", Challenge),
    ]
}

/// SYN-RECEIVED, RFC 9293 section 3.10.7.4, with and without timestamps.
#[test]
fn every_kind_of_segment_in_syn_received() {
    use Expected::{Challenge, SynAck};
    let cases = cases();
    for has_timestamps in [false, true] {
        for (flags, seq, ack, payload, expected) in &cases {
            let mut table = Table::new(TcpConfig::default());
            let (index, syn_ack) = table.record(&if has_timestamps { syn() } else { bare_syn() });
            let seq = IRS + 1 + *seq as u32;
            let sent = Segment { payload, ..segment(*flags, seq, syn_ack.seq + 1 + *ack as u32) };
            let sent = if has_timestamps { stamped(sent, PEER_CLOCK) } else { sent };
            let verdict = table.half_opens.on_segment(NOW, index, &sent);
            assert_eq!(&expected_of(&verdict, &syn_ack, &sent), expected, "{sent:?}");
            assert_eq!(table.half_opens.len(), 1, "only the caller takes it away");
            let again = table.half_opens.on_segment(NOW, index, &sent);
            match expected {
                Challenge | SynAck => {
                    assert_eq!(again, HalfOpenVerdict::Dropped(DropReason::TcpThrottled));
                    let later = NOW + Duration::from_millis(500);
                    let again = table.half_opens.on_segment(later, index, &sent);
                    assert_eq!(&expected_of(&again, &syn_ack, &sent), expected, "{sent:?} later");
                }
                _ => assert_eq!(again, verdict),
            }
        }
    }
}

#[test]
fn timestamps_in_syn_received() {
    use Expected::{Challenge, Closed, Dropped, Established, SynAck};
    let missing = Dropped(DropReason::TcpNoTimestamp);
    let cases = [
        (Flags::ACK, 0, Some(0_i32), Established),
        (Flags::ACK, 0, Some(1), Established),
        (Flags::ACK, 0, Some(i32::MAX), Established),
        (Flags::ACK, 0, Some(-1), Challenge),
        (Flags::ACK, 0, Some(i32::MIN), Challenge),
        (Flags::ACK, 0, None, missing),
        // A reset needs none, and may be old (RFC 7323 section 5.2).
        (Flags::RST, 0, None, Closed),
        (Flags::RST, 0, Some(-1), Closed),
        (Flags::SYN, -1, Some(-1), SynAck),
        (Flags::SYN, -1, None, SynAck),
        (Flags::SYN, 5, None, Challenge),
    ];
    for (flags, seq, age, expected) in cases {
        let mut table = Table::new(TcpConfig::default());
        let (index, syn_ack) = table.record(&syn());
        let sent = segment(flags, IRS + 1 + seq as u32, syn_ack.seq + 1);
        let sent = age.map_or(sent, |age| stamped(sent, PEER_CLOCK.wrapping_add(age as u32)));
        let verdict = table.half_opens.on_segment(NOW, index, &sent);
        assert_eq!(expected_of(&verdict, &syn_ack, &sent), expected, "{flags:?} {age:?}");
    }
    // Nobody asked for them: what comes does not matter.
    let mut table = Table::new(TcpConfig::default());
    let (index, syn_ack) = table.record(&bare_syn());
    let sent = stamped(segment(Flags::ACK, IRS + 1, syn_ack.seq + 1), 5);
    let verdict = table.half_opens.on_segment(NOW, index, &sent);
    assert!(matches!(verdict, HalfOpenVerdict::Established(Negotiated { timestamps: None, .. })));
}

#[test]
fn a_timestamp_of_a_segment_that_is_early_is_not_the_recent_one() {
    let mut table = Table::new(TcpConfig::default());
    let (index, syn_ack) = table.record(&syn());
    for (seq, expected) in [(10, PEER_CLOCK), (0, PEER_CLOCK.wrapping_add(50))] {
        let sent = stamped(segment(Flags::ACK, IRS + 1 + seq, syn_ack.seq + 1), PEER_CLOCK.wrapping_add(50));
        let verdict = table.half_opens.on_segment(NOW, index, &sent);
        let HalfOpenVerdict::Established(agreed) = verdict else { panic!("{verdict:?}") };
        assert_eq!(agreed.timestamps.map(|clock| clock.recent), Some(expected));
        assert_eq!(agreed.snd_wl, (IRS + 1 + seq, syn_ack.seq + 1));
    }
}

#[test]
fn a_repeated_syn_takes_ecn_back_and_tells_a_newer_time() {
    let options = TcpOptions { ecn: true, ..TcpOptions::default() };
    let mut table = Table::new(TcpConfig { options, ..TcpConfig::default() });
    let first = Segment { flags: Flags::SYN | Flags::ECE | Flags::CWR, ..syn() };
    let (index, _) = table.record(&first);
    let second = stamped(syn(), PEER_CLOCK.wrapping_add(1_000));
    for (sent, ecn, recent) in [
        (first, true, PEER_CLOCK),
        (second, false, PEER_CLOCK.wrapping_add(1_000)),
        (first, false, PEER_CLOCK.wrapping_add(1_000)),
    ] {
        let at =
            NOW + Duration::from_secs(u64::from(recent != PEER_CLOCK) + u64::from(!ecn && sent == first));
        let HalfOpenVerdict::Reply(again) = table.half_opens.on_segment(at, index, &sent) else { panic!() };
        assert_eq!(again.flags, (Flags::SYN | Flags::ACK).with_if(Flags::ECE, ecn));
        assert_eq!(again.options.timestamps.map(|timestamps| timestamps.ecr), Some(recent));
    }
}

#[test]
fn the_handshake_shows_the_round_trip_time_if_it_can() {
    // Sent again by us at 1 s, by the peer at 0.9 s; timestamps; which SYN-ACK is answered, after how long.
    let ms = Duration::from_millis;
    for (is_resent, is_repeated, has_timestamps, answered, at, expected, is_lossy) in [
        (false, false, true, 0, 80, Some(ms(80)), false),
        (false, false, false, 0, 80, Some(ms(80)), false),
        (true, false, false, 1_000, 1_080, None, true),
        (true, false, true, 1_000, 1_080, Some(ms(80)), true),
        (true, false, true, 0, 1_080, Some(ms(1_080)), true),
        (false, true, true, 900, 1_080, Some(ms(180)), true),
        (false, true, false, 900, 1_080, None, true),
        // A TSecr that we never sent.
        (true, false, true, -5_000_i64, 1_080, None, true),
        (true, false, true, 2_000, 1_080, None, true),
    ] {
        let mut table = Table::new(TcpConfig::default());
        let asked = if has_timestamps { syn() } else { bare_syn() };
        let (index, syn_ack) = table.record(&asked);
        if is_repeated {
            table.half_opens.on_segment(NOW + ms(900), index, &asked);
        }
        if is_resent {
            table.half_opens.on_timeout(NOW + ms(1_000), index);
        }
        let mut sent = ack_of(&syn_ack, PEER_CLOCK);
        if let Some(timestamps) = &mut sent.options.timestamps {
            timestamps.ecr = timestamps.ecr.wrapping_add(answered as u32);
        }
        let verdict = table.half_opens.on_segment(NOW + ms(at), index, &sent);
        let HalfOpenVerdict::Established(agreed) = verdict else { panic!("{verdict:?}") };
        assert_eq!(
            (agreed.rtt, agreed.is_lossy),
            (expected, is_lossy),
            "{is_resent} {is_repeated} {answered}"
        );
    }
}

#[test]
fn a_challenge_does_not_take_the_window_back() {
    for (recv_buffer, recv_buffer_max, window) in
        [(65_535, 6 << 20, 512), (65_535, 65_535, 65_535), (0, 6 << 20, 0)]
    {
        let options = TcpOptions { recv_buffer, recv_buffer_max, ..TcpOptions::default() };
        let mut table = Table::new(TcpConfig { options, ..TcpConfig::default() });
        let (index, syn_ack) = table.record(&syn());
        let sent = stamped(segment(Flags::ACK, IRS - 9, syn_ack.seq + 1), PEER_CLOCK);
        let HalfOpenVerdict::Reply(challenge) = table.half_opens.on_segment(NOW, index, &sent) else {
            panic!()
        };
        assert_eq!(challenge.window, window);
    }
}

#[test]
fn who_opens_anew_gets_a_number_beyond_the_old_ones() {
    let mut table = Table::new(TcpConfig::default());
    let iss_min = table.isn.choose(NOW, &flow()) + 1_000_000;
    let Table { half_opens, isn, options, .. } = &mut table;
    let offer = Offer { listener: 7, options, local_mss: 1_400, is_full: false, is_half_open_full: false };
    let verdict = half_opens.on_reopening_syn(NOW, &flow(), &offer, isn, &syn(), iss_min);
    let SynVerdict::Recorded { reply, .. } = verdict else { panic!("{verdict:?}") };
    assert!(reply.seq.is_after(iss_min), "{reply:?}");
}

#[test]
fn a_cookie_has_all_that_a_record_has_if_there_are_timestamps() {
    let all = TcpOptions { ecn: true, ..TcpOptions::default() };
    let ecn_syn = Segment { flags: Flags::SYN | Flags::ECE | Flags::CWR, ..syn() };
    for (syn, options) in [
        (syn(), all),
        (ecn_syn, all),
        (bare_syn(), all),
        (stamped(bare_syn(), 5), all),
        (Segment { options: Options { timestamps: None, ..syn().options }, ..ecn_syn }, all),
        (syn(), TcpOptions { timestamps: false, ..all }),
        (syn(), TcpOptions { window_scaling: false, ..all }),
        (ecn_syn, TcpOptions { sack: false, ..all }),
    ] {
        let recorded = Table::new(TcpConfig { options, ..TcpConfig::default() }).record(&syn).1;
        let mut table = Table::new(TcpConfig { options, cookies: Cookies::Always, ..TcpConfig::default() });
        let baked = table.cookie(NOW, &syn);
        let has_timestamps = recorded.options.timestamps.is_some();
        if has_timestamps {
            let (a, b) =
                (baked.options.timestamps.expect("ours"), recorded.options.timestamps.expect("ours"));
            assert!(b.val.wrapping_sub(a.val) < 128 && a.ecr == b.ecr, "hardly behind the clock");
            let expected = Header {
                seq: baked.seq,
                options: Options { timestamps: Some(a), ..recorded.options },
                ..recorded
            };
            assert_eq!(baked, expected);
        } else {
            let expected = Options { mss: recorded.options.mss, ..Options::default() };
            assert_eq!((baked.options, baked.flags), (expected, Flags::SYN | Flags::ACK));
        }
        assert!(table.half_opens.is_empty());
        let answer = Segment { payload: b"data", ..ack_of(&baked, 77) };
        let agreed = table.answer(NOW + Duration::from_secs(60), &flow(), &answer).expect("ours");
        let expected = Negotiated {
            iss: baked.seq,
            irs: IRS,
            peer_mss: if syn.options.mss.is_some() { 1_460 } else { 536 },
            window_scale: baked.options.window_scale.map(|ours| (9, ours)),
            sack: baked.options.sack_permitted,
            timestamps: has_timestamps
                .then(|| Clock { offset: table.isn.timestamp_offset(&flow()), recent: 77 }),
            ecn: baked.flags.has(Flags::ECE),
            snd_wnd: 1_000 << baked.options.window_scale.map_or(0, |_| 9),
            snd_wl: (IRS + 1, baked.seq + 1),
            rcv_wnd: 65_535,
            rtt: None,
            is_lossy: false,
        };
        assert_eq!(agreed, expected, "{syn:?}");
    }
}

#[test]
fn what_answers_no_cookie() {
    let mut table = Table::new(TcpConfig { half_open_max: 0, ..TcpConfig::default() });
    let baked = table.cookie(NOW, &syn());
    let answer = ack_of(&baked, 77);
    let mut wrong_echo = answer;
    wrong_echo.options.timestamps = Some(Timestamps { val: 77, ecr: baked.seq.0 });
    let soon = NOW + Duration::from_secs(1);
    let cases = [
        (answer, soon, true),
        (Segment { flags: Flags::ACK | Flags::FIN, payload: b"data", ..answer }, soon, true),
        (Segment { ack: answer.ack + 1, ..answer }, soon, false),
        (Segment { seq: answer.seq + 1, ..answer }, soon, false),
        (Segment { flags: Flags::NONE, ..answer }, soon, false),
        (Segment { flags: Flags::ACK | Flags::RST, ..answer }, soon, false),
        (Segment { flags: Flags::ACK | Flags::SYN, ..answer }, soon, false),
        (Segment { options: Options::default(), ..answer }, soon, false),
        (wrong_echo, soon, false),
        (answer, NOW + Duration::from_secs(128), false),
    ];
    for (segment, now, expected) in cases {
        assert_eq!(table.answer(now, &flow(), &segment).is_some(), expected, "{segment:?}");
    }
    let other = flow_of("10.0.0.1:80", "10.0.0.2:1001");
    assert_eq!(table.answer(soon, &other, &answer), None);
}

#[test]
fn cookies_are_believed_while_they_are_baked() {
    for (cookies, is_baked, expected) in [
        (Cookies::WhenFull, true, true),
        (Cookies::WhenFull, false, false),
        (Cookies::Always, true, true),
        (Cookies::Always, false, true),
        (Cookies::Never, false, false),
    ] {
        let config = TcpConfig { half_open_max: 0, cookies, ..TcpConfig::default() };
        // Another table with the same secret bakes it.
        let baked = Table::new(TcpConfig { cookies: Cookies::Always, ..config }).cookie(NOW, &syn());
        let mut table = Table::new(config);
        if is_baked {
            table.cookie(NOW, &bare_syn());
        }
        let answer = table.answer(NOW, &flow(), &ack_of(&baked, 77));
        assert_eq!(answer.is_some(), expected, "{cookies:?} {is_baked}");
    }
}

#[test]
fn guesses_of_cookies_are_wrong() {
    let mut table = Table::new(TcpConfig { cookies: Cookies::Always, ..TcpConfig::default() });
    let mut random = Random::new(9);
    let believed = (0..1_000_000)
        .filter(|_| {
            let guess = segment(Flags::ACK, Seq(random.u32()), Seq(random.u32()));
            table.answer(NOW, &flow(), &guess).is_some()
        })
        .count();
    assert_eq!(believed, 0, "0.004 are expected");
}

#[test]
fn records_are_for_people_to_see() {
    let mut table = Table::new(TcpConfig::default());
    let (index, reply) = table.record(&syn());
    table.half_opens.on_timeout(NOW, index);
    let info =
        HalfOpenInfo { flow: flow(), listener: 7, began_at: NOW, resends: 1, iss: reply.seq, irs: IRS };
    assert_eq!(table.half_opens.iter().collect::<Vec<_>>(), [info]);
    table.half_opens.remove(index);
    table.half_opens.remove(index);
    assert_eq!((table.half_opens.iter().count(), table.half_opens.len()), (0, 0));
    let verdict = table.half_opens.on_segment(NOW, index, &syn());
    assert_eq!(verdict, HalfOpenVerdict::Dropped(DropReason::TcpNoSocket));
}

fn any_segment() -> impl Strategy<Value = Segment<'static>> {
    let near =
        prop_oneof![Just(IRS.0), (0..70_000_u32).prop_map(|offset| IRS.0.wrapping_add(offset)), any::<u32>()];
    let options = (any::<Option<u16>>(), any::<Option<u8>>(), any::<bool>(), any::<Option<(u32, u32)>>());
    let payload = prop::sample::select(vec![&b""[..], b"x", &[7; 2_000]]);
    (any::<u8>(), near, any::<u32>(), any::<u16>(), options, payload).prop_map(
        |(flags, seq, ack, window, (mss, window_scale, sack_permitted, timestamps), payload)| Segment {
            window,
            payload,
            options: Options {
                mss,
                window_scale,
                sack_permitted,
                timestamps: timestamps.map(|(val, ecr)| Timestamps { val, ecr }),
                ..Options::default()
            },
            ..segment(Flags(flags), Seq(seq), Seq(ack))
        },
    )
}

proptest! {
    #[test]
    fn no_segment_does_harm(
        steps in prop::collection::vec((any_segment(), 0..6_u8, 0..12_u16, any::<bool>()), 0..200),
        mode in prop::sample::select(vec![Cookies::WhenFull, Cookies::Always, Cookies::Never]),
        start in prop::sample::select(vec![i64::MIN, -5, 0, 1 << 40, i64::MAX]),
    ) {
        let config = TcpConfig { half_open_max: 5, cookies: mode, ..TcpConfig::default() };
        let mut table = Table::new(config);
        let mut now = Instant::from_micros(start);
        let mut known: Vec<(u32, FlowKey)> = Vec::new();
        for (segment, kind, which, is_exact) in steps {
            now = later(now, Duration::from_millis(which.into()));
            let flow = flow_of("10.0.0.1:80", &format!("10.0.0.2:{which}"));
            let index = known.get(usize::from(which) % 6).map_or(u32::from(which), |(index, _)| *index);
            match kind {
                0 | 1 => {
                    let segment = if is_exact { Segment { flags: Flags::SYN, ..segment } } else { segment };
                    if let SynVerdict::Recorded { index, resend_at, .. } = table.syn_of(now, &flow, &segment) {
                        prop_assert!(resend_at >= now && known.iter().all(|(other, _)| *other != index));
                        known.push((index, flow));
                    }
                }
                2 | 3 => {
                    let exact = table.half_opens.iter().next().map(|info| (info.irs + 1, info.iss + 1));
                    let segment = match exact {
                        Some((seq, ack)) if is_exact => Segment { seq, ack, ..segment },
                        _ => segment,
                    };
                    if table.half_opens.on_segment(now, index, &segment) == HalfOpenVerdict::Closed {
                        table.half_opens.remove(index);
                        known.retain(|(other, _)| *other != index);
                    }
                }
                4 => {
                    if table.half_opens.on_timeout(now, index) == HalfOpenTimeout::GaveUp {
                        known.retain(|(other, _)| *other != index);
                    }
                }
                _ => prop_assert_eq!(table.answer(now, &flow, &segment), None),
            }
            prop_assert!(table.half_opens.len() <= 5 && table.half_opens.slots.len() <= 5);
            prop_assert_eq!(table.half_opens.len(), known.len());
            for (index, flow) in &known {
                prop_assert_eq!(table.half_opens.get(*index), Some((*flow, 7)));
            }
        }
    }
}
