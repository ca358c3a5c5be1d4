//! `--mode http`: a load generator for HTTP/1.1 servers. Its own cost is what limits a benchmark, so a request costs
//! no allocation, no timer and one look at the clock, and connections have no buffers but for a head that came in
//! pieces.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant as Clock;

use serde_json::{Map, Value, json};
use smoltcp::time::Duration;

use super::args::ClientArgs;
use super::client::{self, Run};
use super::figures::per_second;
use super::io::{CHUNK_BYTES, write_some};
use super::requests::watch;
use super::response::Response;
use super::server::Count;
use crate::error::AppError;
use crate::serve::say;
use crate::sockets::Sockets;

/// What all connections count together.
#[derive(Debug, Default)]
struct Counters {
    done: Cell<u64>,
    bytes: Cell<u64>,
    /// Answers that are not 2xx.
    status_errors: Cell<u64>,
    /// Connections that were lost in an answer or gave none at all.
    errors: Cell<u64>,
    /// Connections that the server ended between two answers, as it may.
    reconnects: Cell<u64>,
    /// Since the last answer.
    errors_in_a_row: Cell<u64>,
    /// What the last error was.
    problem: RefCell<String>,
}

/// Runs it.
pub(super) async fn run<S: Sockets>(run: &Run<S>, args: &ClientArgs) -> Result<Map<String, Value>, AppError> {
    let counters = Rc::new(Counters::default());
    // One server may have several names, and a site for each.
    let host = match args.server.parse::<IpAddr>() {
        Ok(_) => run.remote.to_string(),
        Err(_) => format!("{}:{}", args.server, args.port),
    };
    let request = format!("GET {} HTTP/1.1\r\nHost: {host}\r\n\r\n", args.path);
    let request: Rc<[u8]> = request.into_bytes().into();
    for _ in 0..args.parallel {
        let task = connections(run.clone(), Rc::clone(&request), Rc::clone(&counters));
        run.group.spawn(&run.sockets, task);
    }
    let (seconds, intervals) = watch(run, args, &counters.done, "requests").await?;
    if counters.done.get() == 0 && counters.errors.get() > 0 {
        return Err(AppError::running(format_args!("{}: {}", run.remote, counters.problem.borrow())));
    }
    let mut result = client::result(seconds);
    let Counters { done, bytes, status_errors, errors, reconnects, .. } = &*counters;
    let rate = per_second(done.get(), seconds);
    let latencies = run.latencies().borrow();
    say(
        &format!(
            "{rate:.0} requests/s, {latencies}; errors {}, not 2xx {}, reconnects {}",
            errors.get(),
            status_errors.get(),
            reconnects.get()
        ),
        run.json,
    );
    let figures = json!({
        "requests": done.get(),
        "requests_per_second": rate,
        "rtt_us": latencies.to_json(),
        "bytes": bytes.get(),
        "bits_per_second": per_second(bytes.get(), seconds) * 8.0,
        "errors": errors.get(),
        "status_errors": status_errors.get(),
        "reconnects": reconnects.get(),
        "path": args.path,
        "intervals": intervals,
    });
    if let Value::Object(figures) = figures {
        result.extend(figures);
    }
    Ok(result)
}

/// How the use of a connection ended.
enum Ended {
    /// The time is over.
    Stopped,
    /// By the server, between two answers.
    Closed,
    /// In an answer, or before the first.
    Lost(String),
}

/// One connection after the other: a server may end one after some number of answers.
async fn connections<S: Sockets>(
    run: Run<S>,
    request: Rc<[u8]>,
    counters: Rc<Counters>,
) -> Result<(), AppError> {
    let mut stream = run.connect_with_all(None).await?;
    loop {
        match requests(&run, &mut stream, &request, &counters).await {
            Ended::Stopped => return Ok(()),
            Ended::Closed => counters.reconnects.add(1),
            Ended::Lost(problem) => {
                counters.errors.add(1);
                counters.errors_in_a_row.add(1);
                if counters.errors_in_a_row.get() > ERRORS_MAX {
                    return Err(AppError::running(format_args!("{}: {problem}", run.remote)));
                }
                *counters.problem.borrow_mut() = problem;
                run.sockets.sleep_until(run.sockets.now() + PAUSE).await;
            }
        }
        if run.group.is_stopped() {
            return Ok(());
        }
        stream = run.connect().await?;
    }
}

/// Requests on one connection, one in flight.
async fn requests<S: Sockets>(
    run: &Run<S>,
    stream: &mut S::Stream,
    request: &[u8],
    counters: &Counters,
) -> Ended {
    let mut response = Response::new();
    let mut answers = 0_u64;
    let mut begin = Clock::now();
    loop {
        if run.group.is_stopped() {
            return Ended::Stopped;
        }
        let mut sent = 0;
        while sent < request.len() {
            match write_some(stream, &request[sent..]).await {
                Ok(count) => sent += count,
                Err(_) if answers > 0 => return Ended::Closed,
                Err(error) => return Ended::Lost(error.to_string()),
            }
        }
        response.begin();
        let done = loop {
            let mut step = Ok(None);
            let read = run.sink.read(stream, CHUNK_BYTES, |bytes| step = response.push(bytes)).await;
            match (read, step) {
                // No more than one answer was asked for: an end before its first byte is no error of the server's.
                (Ok(0) | Err(_), _) if answers > 0 && response.is_untouched() => return Ended::Closed,
                (Ok(0), _) => return Ended::Lost("the connection ended before an answer did".to_owned()),
                (Err(error), _) => return Ended::Lost(error.to_string()),
                (Ok(_), Err(problem)) => return Ended::Lost(problem.to_owned()),
                (Ok(count), Ok(done)) => {
                    counters.bytes.add(count as u64);
                    if let Some(done) = done {
                        break done;
                    }
                }
            }
        };
        let now = Clock::now();
        // What came when the time was over is not of it.
        if !run.group.is_stopped() {
            counters.done.add(1);
            counters.errors_in_a_row.set(0);
            run.latencies().borrow_mut().record(now - begin);
            if !(200..300).contains(&done.status) {
                counters.status_errors.add(1);
            }
        }
        begin = now;
        answers += 1;
        if !done.keeps_alive {
            return if run.group.is_stopped() { Ended::Stopped } else { Ended::Closed };
        }
    }
}

/// Errors of connections without an answer between them: then the server is of no use.
const ERRORS_MAX: u64 = 100;
/// After an error.
const PAUSE: Duration = Duration::from_millis(10);
