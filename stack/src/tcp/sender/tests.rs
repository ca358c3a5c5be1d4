//! Tests of the sender: alone, with a model of a path and of a peer.

mod model;
mod rules;

use smoltcp::time::{Duration, Instant};

use super::{Ack, Sender, SenderConfig, Sent};
use crate::tcp::congestion::Algorithm;
use crate::tcp::rtt::RtoBounds;
use crate::tcp::seq::Seq;

/// Bytes of a segment in most tests.
const MSS: u32 = 1_000;

fn config() -> SenderConfig {
    SenderConfig {
        start: Seq(0),
        mss: MSS,
        rto: RtoBounds {
            initial: Duration::from_secs(1),
            min: Duration::from_millis(200),
            max: Duration::from_secs(120),
        },
        algorithm: Algorithm::Reno,
        initial_window: None,
        sack: true,
        timestamps: true,
        handshake_rtt: Some(Duration::from_millis(10)),
        handshake_lost: false,
        pacing: false,
    }
}

/// A moment, in microseconds.
fn at(micros: i64) -> Instant {
    Instant::from_micros(micros)
}
