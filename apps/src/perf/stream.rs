//! `--mode stream`: as many bytes as there is room for.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{Either, select, try_join};
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;

use super::args::ClientArgs;
use super::client::{self, Run};
use super::figures::{amount, per_second, rate};
use super::io::{CHUNK_BYTES, Shared, Tail, Turns, write_some};
use super::server::Count;
use super::wire::{Hello, Purpose, Trailer};
use crate::error::AppError;
use crate::serve::say;
use crate::sockets::{Sockets, StreamInfo};

/// What the connections count together.
#[derive(Debug, Default)]
struct Counters {
    /// Written by us.
    sent: Cell<u64>,
    /// Come to us.
    received: Cell<u64>,
    /// Come to the server, as it says at the end.
    arrived: Cell<u64>,
    /// The longest that the server received for.
    arrived_micros: Cell<u64>,
    retransmits: Cell<u64>,
    info: Cell<Option<StreamInfo>>,
}

/// Runs it.
pub(super) async fn run<S: Sockets>(run: &Run<S>, args: &ClientArgs) -> Result<Map<String, Value>, AppError> {
    let counters = Rc::new(Counters::default());
    let (sends, receives) = (!args.reverse, args.reverse || args.bidir);
    for _ in 0..args.parallel {
        let task = connection(run.clone(), Rc::clone(&counters), sends, receives);
        run.group.spawn(&run.sockets, task);
    }
    let begin = run.begin().await?;
    let mut intervals = Vec::new();
    let mut last = (0, 0);
    let seconds = run.watch(args, begin, |start, end| {
        let now = (counters.sent.get(), counters.received.get());
        let (sent, received) = (now.0 - last.0, now.1 - last.1);
        last = now;
        for (is_wanted, what, bytes) in [(sends, "sent", sent), (receives, "received", received)] {
            if is_wanted {
                let rate = rate(bytes, end - start);
                say(
                    &format!("{start:7.2}-{end:<7.2} s  {:>13}  {rate:>16}  {what}", amount(bytes)),
                    run.json,
                );
            }
        }
        if intervals.len() < INTERVALS_MAX {
            let bits = per_second(sent + received, end - start) * 8.0;
            intervals
                .push(json!({"start": start, "end": end, "sent_bytes": sent, "received_bytes": received,
                "bits_per_second": bits}));
        }
    });
    let seconds = seconds.await?;
    match run.finish().await? {
        0 => {}
        count => {
            let problem = format_args!("{count} streams to {} do not come to an end", run.remote);
            return Err(AppError::running(problem));
        }
    }
    Ok(summary(run, &counters, (sends, receives), seconds, intervals))
}

/// Tells people, and scripts.
fn summary<S: Sockets>(
    run: &Run<S>,
    counters: &Counters,
    (sends, receives): (bool, bool),
    seconds: f64,
    intervals: Vec<Value>,
) -> Map<String, Value> {
    let mut result = client::result(seconds);
    let mut bits = 0.0;
    if sends {
        let (bytes, micros) = (counters.arrived.get(), counters.arrived_micros.get());
        let time = micros as f64 / 1e6;
        let retransmits = counters.retransmits.get();
        say(
            &format!("sent      {:>13}  {:>16}  retransmits {retransmits}", amount(bytes), rate(bytes, time)),
            run.json,
        );
        bits += per_second(bytes, time) * 8.0;
        result.insert("sent_bytes".into(), counters.sent.get().into());
        result.insert("arrived_bytes".into(), bytes.into());
        result.insert("sent_bits_per_second".into(), (per_second(bytes, time) * 8.0).into());
        if let Some(info) = counters.info.get() {
            result.insert("retransmits".into(), retransmits.into());
            result.insert("cwnd_bytes".into(), info.cwnd_bytes.into());
            result.insert("srtt_us".into(), info.srtt_us.into());
        }
    }
    if receives {
        let bytes = counters.received.get();
        say(&format!("received  {:>13}  {:>16}", amount(bytes), rate(bytes, seconds)), run.json);
        bits += per_second(bytes, seconds) * 8.0;
        result.insert("received_bytes".into(), bytes.into());
        result.insert("received_bits_per_second".into(), (per_second(bytes, seconds) * 8.0).into());
    }
    result.insert("bits_per_second".into(), bits.into());
    result.insert("size_bytes".into(), run.size().into());
    result.insert("intervals".into(), intervals.into());
    result
}

/// One connection, until the group is told to stop; then to the last byte.
async fn connection<S: Sockets>(
    run: Run<S>,
    counters: Rc<Counters>,
    sends: bool,
    receives: bool,
) -> Result<(), AppError> {
    let hello = Hello {
        purpose: Purpose::Stream,
        server_sends: receives,
        request_bytes: run.size() as u32,
        response_bytes: 1,
    };
    let stream = run.connect_with_all(Some(hello)).await?;
    let stream = Shared::new(stream);
    let (mut reader, mut writer) = (stream.clone(), stream.clone());
    let group = &run.group;
    let sending = async {
        let mut turns = Turns::default();
        while sends && !group.is_stopped() {
            turns.take().await;
            let writing = pin!(write_some(&mut writer, run.source.bytes()));
            match select(writing, pin!(group.stopped())).await {
                Either::Left((count, _)) => {
                    counters.sent.add(count.map_err(run.failed("writing to"))? as u64);
                }
                Either::Right(_) => break,
            }
        }
        group.stopped().await;
        if let Some(info) = stream.with(|stream| run.sockets.tcp_info(stream)) {
            counters.retransmits.add(info.retransmits);
            counters.info.set(Some(info));
        }
        writer.shutdown().await.map_err(run.failed("writing to"))
    };
    let mut tail = Tail::new();
    let receiving = async {
        let mut turns = Turns::default();
        loop {
            turns.take().await;
            let reading = run.sink.read(&mut reader, CHUNK_BYTES, |bytes| tail.push(bytes));
            match reading.await.map_err(run.failed("reading from"))? {
                0 => return Ok(()),
                // What comes when the time is over is not of it.
                count if !group.is_stopped() => counters.received.add(count as u64),
                _ => {}
            }
        }
    };
    try_join(sending, receiving).await?;
    let Some(trailer) = tail.bytes().filter(|_| group.is_stopped()).map(Trailer::parse) else {
        return Err(AppError::running(format_args!("{} has ended the test", run.remote)));
    };
    counters.arrived.add(trailer.bytes);
    counters.arrived_micros.set(counters.arrived_micros.get().max(trailer.micros));
    Ok(())
}

/// Intervals that a result tells; lines go on.
pub(super) const INTERVALS_MAX: usize = 100_000;
