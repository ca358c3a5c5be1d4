//! `--mode rr`, `crr` and `idle`: requests and responses, on connections that are kept or not.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant as Clock;

use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use super::args::ClientArgs;
use super::client::{self, Run};
use super::figures::{Cpu, Latencies, amount, memory_bytes, per_second};
use super::server::Count;
use super::stream::INTERVALS_MAX;
use super::wire::{Hello, Purpose};
use crate::error::AppError;
use crate::serve::say;
use crate::sockets::Sockets;

fn hello<S: Sockets>(run: &Run<S>, purpose: Purpose) -> Hello {
    let size = run.size() as u32;
    Hello { purpose, server_sends: false, request_bytes: size, response_bytes: size }
}

/// Requests a second, on connections that are kept.
pub(super) async fn run_rr<S: Sockets>(
    run: &Run<S>,
    args: &ClientArgs,
) -> Result<Map<String, Value>, AppError> {
    let done = Rc::new(Cell::new(0));
    for _ in 0..args.parallel {
        run.group.spawn(&run.sockets, rr(run.clone(), Rc::clone(&done)));
    }
    let (seconds, intervals) = watch(run, args, &done, "requests").await?;
    let mut result = client::result(seconds);
    let rate = per_second(done.get(), seconds);
    say(&format!("{rate:.0} requests/s, {}", run.latencies().borrow()), run.json);
    result.insert("requests".into(), done.get().into());
    result.insert("requests_per_second".into(), rate.into());
    result.insert("rtt_us".into(), run.latencies().borrow().to_json());
    result.insert("size_bytes".into(), run.size().into());
    result.insert("intervals".into(), intervals.into());
    Ok(result)
}

/// Lines for people until the time is over, then the end of the tasks.
pub(super) async fn watch<S: Sockets>(
    run: &Run<S>,
    args: &ClientArgs,
    done: &Cell<u64>,
    what: &str,
) -> Result<(f64, Vec<Value>), AppError> {
    let begin = run.begin().await?;
    let mut intervals = Vec::new();
    let mut last = 0;
    let seconds = run.watch(args, begin, |start, end| {
        let count = done.get() - last;
        last = done.get();
        let rate = per_second(count, end - start);
        say(&format!("{start:7.2}-{end:<7.2} s  {count:>9}  {rate:>10.0} {what}/s"), run.json);
        if intervals.len() < INTERVALS_MAX {
            intervals.push(json!({"start": start, "end": end, "count": count, "per_second": rate}));
        }
    });
    let seconds = seconds.await?;
    // A request may be lost in the network, or in the server; the others have been measured.
    let unanswered = run.finish().await?;
    if unanswered > 0 {
        say(&format!("{unanswered} requests are not answered"), run.json);
    }
    Ok((seconds, intervals))
}

async fn rr<S: Sockets>(run: Run<S>, done: Rc<Cell<u64>>) -> Result<(), AppError> {
    let mut stream = run.connect_with_all(Some(hello(&run, Purpose::Requests))).await?;
    let mut begin = Clock::now();
    while !run.group.is_stopped() {
        request(&run, &mut stream).await?;
        // The end of one is the beginning of the next: one look at the clock for each.
        let now = Clock::now();
        // What came when the time was over is not of it.
        if !run.group.is_stopped() {
            done.add(1);
            run.latencies().borrow_mut().record(now - begin);
        }
        begin = now;
    }
    Ok(())
}

/// One request and its response.
async fn request<S: Sockets>(run: &Run<S>, stream: &mut S::Stream) -> Result<(), AppError> {
    run.source.write_all(stream, run.size()).await.map_err(run.failed("writing to"))?;
    match run.sink.read_exact(stream, run.size()).await.map_err(run.failed("reading from"))? {
        true => Ok(()),
        false => Err(AppError::running(format_args!("{} has ended the test", run.remote))),
    }
}

/// Connections a second, with one request each.
pub(super) async fn run_crr<S: Sockets>(
    run: &Run<S>,
    args: &ClientArgs,
) -> Result<Map<String, Value>, AppError> {
    let done = Rc::new(Cell::new(0));
    for _ in 0..args.parallel {
        run.group.spawn(&run.sockets, crr(run.clone(), Rc::clone(&done)));
    }
    let (seconds, intervals) = watch(run, args, &done, "connects").await?;
    let mut result = client::result(seconds);
    let rate = per_second(done.get(), seconds);
    say(&format!("{rate:.0} connects/s, {}", run.latencies().borrow()), run.json);
    result.insert("connects".into(), done.get().into());
    result.insert("connects_per_second".into(), rate.into());
    result.insert("rtt_us".into(), run.latencies().borrow().to_json());
    result.insert("size_bytes".into(), run.size().into());
    result.insert("intervals".into(), intervals.into());
    Ok(result)
}

/// From the SYN to the server's FIN, again and again.
async fn crr<S: Sockets>(run: Run<S>, done: Rc<Cell<u64>>) -> Result<(), AppError> {
    // Hello and request are one segment.
    let mut request = hello(&run, Purpose::Once).to_bytes().to_vec();
    request.extend_from_slice(run.source.bytes());
    run.wait_for_all().await;
    while !run.group.is_stopped() {
        let begin = Clock::now();
        let mut stream = run.connect().await?;
        stream.write_all(&request).await.map_err(run.failed("writing to"))?;
        // The server closes first, so that the end that waits (TIME-WAIT) is not the one that needs ports.
        let answered =
            run.sink.read_exact(&mut stream, run.size()).await.map_err(run.failed("reading from"))?;
        let rest = run.sink.read(&mut stream, 1, |_| {}).await.map_err(run.failed("reading from"))?;
        if !answered || rest > 0 {
            return Err(AppError::running(format_args!("{} does not answer as it should", run.remote)));
        }
        drop(stream);
        if !run.group.is_stopped() {
            done.add(1);
            run.latencies().borrow_mut().record(begin.elapsed());
        }
    }
    Ok(())
}

/// Connections that do nothing, and what they cost.
pub(super) async fn run_idle<S: Sockets>(
    run: &Run<S>,
    args: &ClientArgs,
) -> Result<Map<String, Value>, AppError> {
    let pinged = Rc::new(Cell::new(0));
    let every = args.parallel.div_ceil(PINGED_MAX);
    let (memory, server) = (memory_bytes(), run.report().await?);
    // One after the other: the time of an answer is to be that of the connection, not of a queue.
    let turn = Rc::new(Semaphore::new(1));
    let opening = Clock::now();
    for index in 0..args.parallel {
        let turn = (index % every == 0).then(|| Rc::clone(&turn));
        let task = idle(run.clone(), turn, Rc::clone(&pinged));
        run.group.spawn(&run.sockets, task);
    }
    let begin = run.begin().await?;
    let open_seconds = opening.elapsed().as_secs_f64();
    let opened = run.report().await?;
    say(&format!("{} connections open after {open_seconds:.2} s", args.parallel), run.json);
    let cpu = Cpu::now();
    let seconds = run.watch(args, begin, |_, end| {
        let kept = run.group.alive();
        say(&format!("{end:7.2} s  {kept} connections, memory {}", amount(memory_bytes())), run.json);
    });
    let seconds = seconds.await?;
    let cpu = Cpu::now().since(cpu);
    let after = run.report().await?;
    let grown = memory_bytes().saturating_sub(memory);
    run.finish().await?;
    let latencies = run.latencies().borrow();
    let server_grown = after.memory_bytes.saturating_sub(server.memory_bytes);
    say(
        &format!(
            "memory {} here and {} there for a connection; {} answered, {latencies}",
            amount(grown / args.parallel as u64),
            amount(server_grown / args.parallel as u64),
            pinged.get()
        ),
        run.json,
    );
    let mut result = client::result(seconds);
    let figures = json!({
        "connections": args.parallel,
        "connects_per_second": args.parallel as f64 / open_seconds,
        "memory_bytes": memory_bytes(),
        "memory_bytes_per_connection": grown as f64 / args.parallel as f64,
        "server_memory_bytes": after.memory_bytes,
        "server_memory_bytes_per_connection": server_grown as f64 / args.parallel as f64,
        "server_connections": opened.connections.saturating_sub(1),
        "idle_cpu_seconds": cpu.total(),
        "server_idle_cpu_seconds": after.cpu_micros.saturating_sub(opened.cpu_micros) as f64 / 1e6,
        "pinged": latencies.len(),
        "rtt_us": Latencies::to_json(&latencies),
    });
    if let Value::Object(figures) = figures {
        result.extend(figures);
    }
    Ok(result)
}

async fn idle<S: Sockets>(
    run: Run<S>,
    turn: Option<Rc<Semaphore>>,
    pinged: Rc<Cell<u64>>,
) -> Result<(), AppError> {
    let mut stream = run.connect_with_all(Some(hello(&run, Purpose::Requests))).await?;
    run.group.stopped().await;
    if let Some(turn) = turn {
        let _permit = turn.acquire().await;
        let begin = Clock::now();
        request(&run, &mut stream).await?;
        pinged.add(1);
        run.latencies().borrow_mut().record(begin.elapsed());
    }
    Ok(())
}

/// Connections that are used at the end of an idle time: enough to see whether they are still there.
const PINGED_MAX: usize = 1_000;
