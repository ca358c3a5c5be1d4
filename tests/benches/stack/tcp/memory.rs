//! What both ends of a connection cost, in memory: all but the device.

use std::time::Instant;

use wirestack::shard::{Shard, SocketId};

use super::line::Both;
use crate::count::{self, counted};
use crate::device::nanos;
use crate::frames::PAYLOAD_BYTES;
use crate::table::{Table, pin};
use crate::{Outcome, median};

/// Of one repeat.
const TRIPS: usize = 50_000;
const REPEATS: usize = 5;
/// Trips that are counted.
const COUNTED: usize = 5_000;

/// Name for callgrind, title, connections, those of them that talk, one after the other, and how many in a turn.
const CASES: [(&str, &str, usize, usize, usize); 5] = [
    ("tcp-1", "request and response, 1 connection", 1, 1, 1),
    ("tcp-1000", "1 000 connections", 1_000, 1_000, 1),
    ("tcp-100000", "100 000 connections, 1 000 of which talk", 100_000, 1_000, 1),
    ("tcp-1000-burst", "1 000 connections, 64 a turn", 1_000, 1_000, 64),
    ("tcp-100000-burst", "100 000 connections that talk, 64 a turn", 100_000, 100_000, 64),
];
/// Trips of each connection before it is measured: a young one acknowledges at once, and its window opens.
const TRIPS_WARM: usize = 20;
/// The same of a stream.
const STREAM: &str = "tcp-segment";

pub(crate) fn all() -> Outcome {
    pin(1);
    let counts = count::is_possible();
    let mut table = Table::default();
    for (name, title, connections, talking, burst) in CASES {
        let mut trips = Trips::new(connections, talking, burst);
        trips.run(TRIPS_WARM * talking);
        let frames = trips.both.frames();
        let time = |_| {
            let start = Instant::now();
            trips.run(TRIPS);
            nanos(start) / TRIPS as f64
        };
        let times = (0..REPEATS).map(time).collect();
        let frames = (trips.both.frames() - frames) as f64 / (REPEATS * TRIPS) as f64;
        let found = if counts { count::instructions(name) } else { None };
        let remark = format!("both ends; {frames:.2} frames; {}", count::remark(found));
        table.line(title, median(times), "ns", &remark);
    }
    let mut stream = Stream::new();
    stream.run(SEGMENTS);
    let frames = stream.both.frames();
    let time = |_| {
        let start = Instant::now();
        stream.run(SEGMENTS);
        nanos(start) / SEGMENTS as f64
    };
    let times = (0..REPEATS).map(time).collect();
    let frames = (stream.both.frames() - frames) as f64 / (REPEATS * SEGMENTS) as f64;
    let found = if counts { count::instructions(STREAM) } else { None };
    let remark = format!("both ends; {frames:.2} frames; {}", count::remark(found));
    table.line("64 KB written, sent, received and read", median(times), "ns", &remark);
    Ok(())
}

/// What callgrind counts.
pub(crate) fn count(kind: &str) -> Option<usize> {
    if kind == STREAM {
        let mut stream = Stream::new();
        stream.run(100);
        counted(&mut || stream.run(500));
        return Some(500);
    }
    let (.., connections, talking, burst) = CASES.iter().copied().find(|(name, ..)| *name == kind)?;
    let mut trips = Trips::new(connections, talking, burst);
    // Under valgrind there is no time for more.
    trips.run(TRIPS_WARM * talking.min(1_000));
    counted(&mut || trips.run(COUNTED));
    Some(COUNTED)
}

/// Requests and responses, on one connection after the other.
struct Trips {
    both: Both,
    talking: usize,
    burst: usize,
    next: usize,
}

impl Trips {
    fn new(connections: usize, talking: usize, burst: usize) -> Self {
        Self { both: Both::new(connections), talking, burst, next: 0 }
    }

    fn run(&mut self, trips: usize) {
        let (mut asked, mut answered) = (0, 0);
        while answered < trips {
            let Self { both, talking, burst, next } = self;
            let streams = std::mem::take(&mut both.streams);
            let mut ask = |shard: &mut Shard| {
                while let Some(event) = shard.next_event() {
                    answered += usize::from(take(shard, event.socket).is_some());
                }
                if asked == answered {
                    for _ in 0..(*burst).min(trips - asked) {
                        // Neither in the order in which they were made, nor at random.
                        *next = (*next + 7_919) % *talking;
                        let sent = shard
                            .tcp_send(streams[*next * (streams.len() / *talking)], &[0x55; PAYLOAD_BYTES]);
                        assert_eq!(sent, Ok(PAYLOAD_BYTES), "there is room");
                        asked += 1;
                    }
                }
            };
            both.turn(&mut ask, &mut |shard| {
                while let Some(event) = shard.next_event() {
                    if let Some(request) = take(shard, event.socket) {
                        let _ = shard.tcp_send(event.socket, &request);
                    }
                }
            });
            both.streams = streams;
        }
    }
}

fn take(shard: &mut Shard, stream: SocketId) -> Option<[u8; PAYLOAD_BYTES]> {
    let mut room = [0; PAYLOAD_BYTES];
    matches!(shard.tcp_recv(stream, &mut room), Ok(Some(PAYLOAD_BYTES))).then_some(room)
}

/// One connection whose client sends as much as it can.
struct Stream {
    both: Both,
    block: Vec<u8>,
    room: Vec<u8>,
}

impl Stream {
    fn new() -> Self {
        Self { both: Both::new(1), block: vec![0x55; SEGMENT_BYTES], room: vec![0; SEGMENT_BYTES] }
    }

    /// Until so many segments were received.
    fn run(&mut self, segments: usize) {
        let Self { both, block, room } = self;
        let stream = both.streams[0];
        let (mut written, mut read) = (0, 0);
        while read < segments * SEGMENT_BYTES {
            both.turn(
                &mut |shard| {
                    while written < segments * SEGMENT_BYTES {
                        match shard.tcp_send(stream, block) {
                            Ok(len @ 1..) => written += len,
                            _ => break,
                        }
                    }
                },
                &mut |shard| {
                    while let Some(event) = shard.next_event() {
                        while let Ok(Some(len @ 1..)) = shard.tcp_recv(event.socket, room) {
                            read += len;
                        }
                    }
                },
            );
        }
    }
}

const SEGMENTS: usize = 20_000;
const SEGMENT_BYTES: usize = 65_160;
