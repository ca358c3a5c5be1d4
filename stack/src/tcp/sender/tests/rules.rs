//! One rule of an RFC each. Times are in milliseconds, numbers in segments.

use super::*;
use crate::tcp::congestion::Controller;
use crate::tcp::recovery::Phase;
use crate::tcp::sender::{AckOutcome, LimitedBy, Timeout};

/// A sender that has sent `segments` at 0 ms, one frame each.
fn sent(config: &SenderConfig, segments: u32) -> Sender {
    let mut sender = Sender::new(config, at(0));
    for _ in 0..segments {
        send(&mut sender, 0, 1);
    }
    sender
}

fn ms(millis: i64) -> Instant {
    at(millis * 1_000)
}

fn send(sender: &mut Sender, millis: i64, segments: u32) {
    let seq = sender.snd_nxt();
    let sent = Sent { seq, len: segments * MSS, ts_val: Some(millis as u32), is_app_limited: false };
    sender.on_sent(ms(millis), &sent);
}

/// Repeats what is lost, as far as it may. Returns the segments.
fn repeat(sender: &mut Sender, millis: i64) -> Vec<u32> {
    let mut repeated = Vec::new();
    while let Some((seq, len)) = sender.next_lost() {
        let len = len.min(sender.allowance() / MSS * MSS);
        if len == 0 {
            break;
        }
        let sent = Sent { seq, len, ts_val: Some(millis as u32), is_app_limited: false };
        sender.on_resent(ms(millis), &sent, false);
        repeated.extend((seq.0..seq.0 + len).step_by(MSS as usize).map(|start| start / MSS));
    }
    repeated
}

/// An ACK up to segment `ack`, with blocks, which echoes what was sent at `echo`.
fn ack(sender: &mut Sender, millis: i64, ack: u32, blocks: &[(u32, u32)], echo: Option<u32>) -> AckOutcome {
    let blocks: Vec<_> = blocks.iter().map(|(start, end)| (Seq(start * MSS), Seq(end * MSS))).collect();
    let outcome = sender.on_ack(
        ms(millis),
        &Ack {
            ack: Seq(ack * MSS),
            sack: &blocks,
            may_be_duplicate: true,
            count: 1,
            ts_ecr: echo,
            ts_rtt: None,
            ece: false,
        },
    );
    sender.board.check();
    outcome
}

#[test]
fn rfc8985_three_sacked_segments_find_a_loss_at_once_and_fewer_after_a_quarter_of_a_round_trip() {
    let mut sender = sent(&config(), 10);
    for sacked in 2..=3 {
        ack(&mut sender, 10, 0, &[(1, sacked)], None);
        assert_eq!(sender.next_lost(), None);
        assert_eq!(sender.deadline(), Some(at(12_500)), "min_RTT / 4 later");
    }
    let outcome = ack(&mut sender, 10, 0, &[(1, 4)], None);
    assert_eq!((outcome.lost, sender.next_lost()), (MSS, Some((Seq(0), MSS))));
    assert_eq!(repeat(&mut sender, 10), [0]);

    let mut sender = sent(&config(), 10);
    ack(&mut sender, 10, 0, &[(1, 2)], None);
    assert_eq!(sender.on_timeout(at(12_499)), Timeout::Nothing);
    assert_eq!(sender.on_timeout(at(12_500)), Timeout::Lost);
    assert_eq!(repeat(&mut sender, 13), [0]);
}

#[test]
fn rfc8985_a_repetition_that_is_lost_is_found_by_what_was_sent_after_it() {
    let mut sender = sent(&config(), 10);
    ack(&mut sender, 10, 0, &[(1, 4)], None);
    assert_eq!(repeat(&mut sender, 10), [0]);
    ack(&mut sender, 11, 0, &[(1, 10)], None);
    send(&mut sender, 12, 1);
    let outcome = ack(&mut sender, 23, 0, &[(1, 11)], None);
    assert_eq!((outcome.lost, repeat(&mut sender, 23)), (MSS, vec![0]));
}

#[test]
fn rfc8985_a_probe_goes_after_two_round_trips_and_its_loss_is_found() {
    // Whether the probe was needed, as the ACK tells; what the window is after that, in segments.
    for (dsack, window_after) in [(true, 10), (false, 5)] {
        let mut sender = sent(&config(), 5);
        assert_eq!(sender.deadline(), Some(ms(22)));
        assert_eq!(sender.on_timeout(ms(22)), Timeout::Probe(Seq(4 * MSS), MSS));
        sender.on_resent(
            ms(22),
            &Sent { seq: Seq(4 * MSS), len: MSS, ts_val: None, is_app_limited: false },
            true,
        );
        assert_eq!(sender.deadline(), Some(ms(222)), "the RTO from now on, and no other probe");
        ack(&mut sender, 32, 5, &[], None);
        if dsack {
            ack(&mut sender, 32, 5, &[(4, 5)], None);
        }
        let cwnd = sender.congestion.cwnd();
        send(&mut sender, 32, 1);
        ack(&mut sender, 42, 6, &[], None);
        let is_reduced = sender.congestion.cwnd() < cwnd;
        assert_eq!(is_reduced, window_after == 5, "after {cwnd}: {}", sender.congestion.cwnd());
    }
}

#[test]
fn rfc6298_the_timer_runs_while_something_is_outstanding_and_backs_off() {
    let config = SenderConfig { handshake_rtt: None, sack: false, ..config() };
    let mut sender = Sender::new(&config, at(0));
    assert_eq!(sender.deadline(), None);
    for _ in 0..3 {
        send(&mut sender, 0, 1);
    }
    let mut due = 1_000;
    for wait in [2_000, 4_000, 8_000] {
        assert_eq!(sender.deadline(), Some(ms(due)));
        assert_eq!(sender.on_timeout(ms(due)), Timeout::Retransmit);
        assert_eq!(sender.next_lost(), Some((Seq(0), 3 * MSS)));
        assert_eq!(repeat(&mut sender, due), [0], "one segment");
        due += wait;
    }
    ack(&mut sender, due, 3, &[], None);
    assert_eq!((sender.deadline(), sender.in_flight(), sender.rtt().backoffs()), (None, 0, 0));
    assert_eq!(sender.rtt().srtt(), None, "Karn: no sample of what was repeated");
}

#[test]
fn rfc2018_what_is_sacked_is_forgotten_if_the_peer_has_thrown_it_away() {
    let mut sender = sent(&config(), 6);
    ack(&mut sender, 10, 0, &[(1, 6)], None);
    repeat(&mut sender, 10);
    // The ACK moves up to what was reported and not over it.
    ack(&mut sender, 20, 1, &[(2, 6)], None);
    let due = sender.deadline().unwrap_or(ms(0));
    assert_eq!(sender.on_timeout(due), Timeout::Retransmit);
    assert_eq!((sender.in_flight(), sender.board.lost()), (0, 5 * MSS));
    assert_eq!(sender.snd_nxt(), Seq(6 * MSS));
}

#[test]
fn rfc3522_an_ack_of_the_first_sending_undoes_the_repair() {
    for (echo, is_undone) in [(0, true), (10, false)] {
        let mut sender = sent(&config(), 10);
        let cwnd = sender.congestion.cwnd();
        ack(&mut sender, 10, 0, &[(1, 4)], Some(0));
        assert_eq!(sender.phase(), Phase::Fast);
        assert_eq!(repeat(&mut sender, 10), [0]);
        ack(&mut sender, 11, 4, &[], Some(echo));
        assert_eq!((sender.phase() == Phase::Open), is_undone, "echo of {echo} ms");
        assert_eq!(sender.congestion.cwnd() >= cwnd, is_undone);
        assert_eq!(sender.told().undone, u32::from(is_undone));
    }
}

#[test]
fn rfc2883_duplicates_of_all_that_was_repeated_undo_the_repair() {
    let mut sender = sent(&config(), 10);
    let cwnd = sender.congestion.cwnd();
    ack(&mut sender, 10, 0, &[(1, 4)], None);
    assert_eq!(repeat(&mut sender, 10), [0]);
    let outcome = ack(&mut sender, 11, 10, &[], None);
    assert!(outcome.acked == 10 * MSS && sender.congestion.cwnd() < cwnd);
    let outcome = ack(&mut sender, 20, 10, &[(0, 1)], None);
    assert!(outcome.dsack && sender.congestion.cwnd() >= cwnd);
    assert_eq!(sender.rack.reo_wnd(&sender.surroundings()), Duration::from_micros(5_000), "twice a quarter");
}

#[test]
fn rfc5682_without_timestamps_new_data_tells_a_spurious_timeout() {
    for is_spurious in [true, false] {
        let mut sender = sent(&SenderConfig { handshake_rtt: None, sack: false, ..config() }, 6);
        assert_eq!(sender.on_timeout(ms(1_000)), Timeout::Retransmit);
        sender.on_resent(
            ms(1_000),
            &Sent { seq: Seq(0), len: MSS, ts_val: None, is_app_limited: false },
            false,
        );
        ack(&mut sender, 1_001, 1, &[], None);
        assert_eq!(sender.next_lost(), None, "new data goes first");
        assert!(sender.allowance() >= 2 * MSS);
        send(&mut sender, 1_001, 2);
        ack(&mut sender, 1_002, if is_spurious { 2 } else { 1 }, &[], None);
        assert_eq!(sender.phase() == Phase::Open, is_spurious);
        assert_eq!(sender.next_lost().is_none(), is_spurious);
    }
    // Without new data nothing waits.
    let mut sender = sent(&SenderConfig { handshake_rtt: None, sack: false, ..config() }, 6);
    sender.on_timeout(ms(1_000));
    sender.on_resent(ms(1_000), &Sent { seq: Seq(0), len: MSS, ts_val: None, is_app_limited: false }, false);
    ack(&mut sender, 1_001, 1, &[], None);
    sender.set_limited_by(ms(1_001), LimitedBy::Application);
    assert_eq!(sender.next_lost(), Some((Seq(MSS), 5 * MSS)));
}

#[test]
fn rfc6582_without_sack_three_duplicates_and_partial_acks_repeat_one_segment_each() {
    let mut sender = sent(&SenderConfig { sack: false, ..config() }, 10);
    for in_flight in [9, 8] {
        ack(&mut sender, 10, 0, &[], None);
        assert_eq!((sender.next_lost(), sender.in_flight()), (None, in_flight * MSS), "limited transmit");
    }
    ack(&mut sender, 10, 0, &[], None);
    assert_eq!(repeat(&mut sender, 10), [0]);
    ack(&mut sender, 20, 3, &[], None);
    assert_eq!(repeat(&mut sender, 20), [3]);
    ack(&mut sender, 30, 10, &[], None);
    assert_eq!((sender.phase(), sender.in_flight()), (Phase::Open, 0));
    // Duplicates of what the recovery has sent begin no other one.
    send(&mut sender, 30, 5);
    for _ in 0..5 {
        ack(&mut sender, 40, 10, &[], None);
    }
    assert_eq!(sender.phase(), Phase::Open);
}

#[test]
fn rfc9937_recovery_sends_in_proportion_to_what_arrives_and_ends_at_ssthresh() {
    let mut sender = sent(&config(), 10);
    let mut out = 0;
    for sacked in 2..=10 {
        ack(&mut sender, 10, 0, &[(1, sacked)], None);
        out += repeat(&mut sender, 10).len();
        while sender.phase() == Phase::Fast && sender.allowance() >= MSS {
            send(&mut sender, 10, 1);
            out += 1;
        }
    }
    assert!((5..=6).contains(&out), "{out} segments for nine that arrived");
    ack(&mut sender, 20, 10, &[], None);
    assert_eq!(sender.congestion.ssthresh(), Some(5 * MSS));
    assert!(sender.congestion.cwnd() <= 5 * MSS + MSS);
}

#[test]
fn rfc3168_echoed_congestion_reduces_once_in_a_window() {
    let mut sender = sent(&config(), 10);
    let mut windows = Vec::new();
    for segment in 1..=4 {
        let ack = Ack {
            ack: Seq(segment * MSS),
            sack: &[],
            may_be_duplicate: false,
            count: 1,
            ts_ecr: None,
            ts_rtt: None,
            ece: true,
        };
        sender.on_ack(ms(10), &ack);
        windows.push((sender.told().ecn_reductions, sender.take_cwr()));
    }
    assert_eq!(windows, [(1, true), (1, false), (1, false), (1, false)]);
}

#[test]
fn blocks_that_no_honest_peer_sends_change_nothing() {
    for (block, bad) in
        [((5, 5), 1), ((6, 5), 1), ((5, 11), 1), ((2_000_000, 5), 1), ((12, 14), 1), ((0, 0), 1)]
    {
        let mut sender = sent(&config(), 10);
        let outcome = ack(&mut sender, 10, 0, &[block], None);
        assert_eq!(
            (outcome.bad_blocks, outcome.delivered, sender.in_flight()),
            (bad, 0, 10 * MSS),
            "{block:?}"
        );
    }
}

#[test]
fn a_peer_that_reports_every_other_byte_gets_few_records() {
    let mut sender = Sender::new(&SenderConfig { initial_window: Some(1 << 20), ..config() }, at(0));
    for _ in 0..4 {
        send(&mut sender, 0, 60);
    }
    let segments = 4 * 60;
    let mut delivered = 0;
    for byte in (0..sender.snd_nxt().0).step_by(2) {
        let blocks = [(Seq(byte + 1), Seq(byte + 2)); 1];
        let outcome = sender.on_ack(
            ms(10),
            &Ack {
                ack: Seq(0),
                sack: &blocks,
                may_be_duplicate: true,
                count: 1,
                ts_ecr: None,
                ts_rtt: None,
                ece: false,
            },
        );
        delivered += outcome.delivered;
    }
    sender.board.check();
    assert!(sender.board.len() < 64 + 3 * segments, "{} records", sender.board.len());
    assert_eq!(delivered, sender.board.sacked());
}

#[test]
fn acks_of_single_bytes_open_the_window_no_more_than_one_ack() {
    let (mut one, mut split) = (sent(&config(), 10), sent(&config(), 10));
    ack(&mut one, 10, 1, &[], None);
    for byte in 1..=MSS {
        let ack = Ack {
            ack: Seq(byte),
            sack: &[],
            may_be_duplicate: false,
            count: 1,
            ts_ecr: None,
            ts_rtt: None,
            ece: false,
        };
        split.on_ack(ms(10), &ack);
    }
    assert_eq!(one.congestion.cwnd(), split.congestion.cwnd());
    assert_eq!(one.allowance(), split.allowance());
}

#[test]
fn rfc8985_a_clock_that_stands_still_makes_nothing_old() {
    let mut sender = sent(&config(), 10);
    for _ in 0..3 {
        // What is repeated now would be repeated again with the next ACK, for ever.
        ack(&mut sender, 0, 0, &[(5, 10)], None);
        assert_eq!((sender.next_lost(), sender.deadline()), (None, Some(at(1))));
    }
    assert_eq!(sender.on_timeout(at(1)), Timeout::Lost);
    assert_eq!(repeat(&mut sender, 1), [0]);
}

#[test]
fn what_a_timeout_repeats_does_not_wait_for_the_rate_of_before() {
    let millis = Duration::from_millis;
    let rto = RtoBounds { initial: millis(50), min: millis(10), max: millis(50) };
    let handshake_rtt = Some(millis(5_000));
    let mut sender = sent(&SenderConfig { pacing: true, rto, handshake_rtt, ..config() }, 10);
    let (mut now, mut outcome) = (at(0), Timeout::Nothing);
    while outcome != Timeout::Retransmit {
        assert!(sender.next_send_at(now).is_some(), "a path of five seconds lets a segment go now and then");
        now = sender.deadline().expect("something is in flight");
        outcome = sender.on_timeout(now);
    }
    assert_eq!(sender.next_send_at(now), None);
}

#[test]
fn a_sender_at_rest_holds_no_memory() {
    let mut sender = sent(&config(), 10);
    ack(&mut sender, 10, 10, &[], None);
    assert!(sender.recovery.is_none() && sender.told.is_none() && sender.newreno.is_none());
    assert_eq!(sender.board.len(), 0);
    assert!(size_of::<Sender>() <= 456, "{} bytes", size_of::<Sender>());
}
