//! The scoreboard against one that has a mark for each byte.

use smoltcp::time::Instant;

use super::*;
use crate::random::Random;

const MSS: u32 = 10;

#[derive(Debug, Clone, Copy, Default)]
struct Byte {
    is_sacked: bool,
    is_lost: bool,
    is_resent: bool,
}

fn record(len: u32, micros: i64) -> Record {
    Record {
        sent_at: Instant::from_micros(micros),
        ts_val: None,
        len,
        tx_in_flight: 0,
        delivered: 0,
        lost: 0,
        since_delivered: 0,
        since_first_sent: 0,
        is_app_limited: false,
        is_sacked: false,
        is_lost: false,
        is_resent: false,
    }
}

/// Bytes of each kind: sacked, lost, sent again.
fn counts(bytes: &[Byte]) -> [u32; 3] {
    let count = |is: fn(&Byte) -> bool| bytes.iter().filter(|byte| is(byte)).count() as u32;
    [
        count(|byte| byte.is_sacked),
        count(|byte| byte.is_lost && !byte.is_sacked),
        count(|byte| byte.is_resent && !byte.is_lost && !byte.is_sacked),
    ]
}

#[test]
fn it_counts_as_a_mark_for_each_byte_does() {
    for seed in 0..500 {
        let mut random = Random::new(seed);
        let start = random.u32();
        let mut board = Scoreboard::new(Seq(start));
        let mut bytes: Vec<Byte> = Vec::new();
        for step in 0..200 {
            let una = board.una();
            let len = bytes.len() as u32;
            let (first, second) = (random.below(len + 1), random.below(len + 1));
            let (from, to) = (first.min(second), first.max(second));
            let range = from as usize..to as usize;
            match random.below(6) {
                0 | 1 => {
                    let len = random.below(60) + 1;
                    board.push(record(len, step));
                    bytes.extend(std::iter::repeat_n(Byte::default(), len as usize));
                }
                2 => {
                    let mut delivered = 0;
                    board.sack(una + u64::from(from), una + u64::from(to), MSS, |piece| {
                        delivered += piece.record.len;
                    });
                    let fresh = bytes[range.clone()].iter().filter(|byte| !byte.is_sacked).count() as u32;
                    assert_eq!(delivered, fresh, "seed {seed}");
                    bytes[range]
                        .iter_mut()
                        .for_each(|byte| *byte = Byte { is_sacked: true, ..Byte::default() });
                }
                3 => {
                    let acked = from.min(len);
                    let mut delivered = 0;
                    board.acknowledge(una + u64::from(acked), MSS, |piece| delivered += piece.record.len);
                    let gone = bytes.drain(..acked as usize).filter(|byte| !byte.is_sacked).count() as u32;
                    assert_eq!(delivered, gone, "seed {seed}");
                }
                4 => {
                    board.split(una + u64::from(from));
                    board.split(una + u64::from(to));
                    let inside = una + u64::from(from)..una + u64::from(to);
                    board.mark_lost_if(|key, _| inside.contains(&key));
                    bytes[range].iter_mut().for_each(|byte| byte.is_lost |= !byte.is_sacked);
                }
                _ => {
                    board.resend(una + u64::from(from), una + u64::from(to), &record(1, step), true);
                    for byte in bytes[range].iter_mut().filter(|byte| !byte.is_sacked) {
                        *byte = Byte { is_resent: true, ..Byte::default() };
                    }
                }
            }
            board.check();
            assert_eq!(
                [board.sacked(), board.lost(), board.resent()],
                counts(&bytes),
                "seed {seed}, step {step}"
            );
            assert_eq!(board.outstanding(), bytes.len() as u32);
            let first_lost = bytes.iter().position(|byte| byte.is_lost && !byte.is_sacked);
            assert_eq!(
                board.first_lost().map(|(at, _)| (at - board.una()) as usize),
                first_lost,
                "seed {seed}"
            );
        }
    }
}
