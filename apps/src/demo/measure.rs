//! What the kernel's end sees: a page, and a few figures, with nothing but the standard library's TCP.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::AppError;
use crate::http::pattern_byte;

/// The figures of a demo.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Measured {
    /// The page.
    #[serde(skip)]
    pub(super) page: String,
    page_bytes: usize,
    /// From `connect` to an open connection.
    connect_us: Percentiles,
    /// 64 bytes there and back.
    rtt_us: Percentiles,
    /// From the user stack to the kernel.
    download_bits_per_second: f64,
    /// From the kernel to the user stack and back at the same time; each direction.
    echo_bits_per_second: f64,
}

/// Of a number of samples, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Percentiles {
    p50: f64,
    p99: f64,
    p999: f64,
}

/// Fetches, connects, echoes, downloads.
///
/// # Errors
/// What the kernel's TCP said, or which bytes were wrong.
pub(super) fn measure(server: IpAddr) -> Result<Measured, AppError> {
    let http = SocketAddr::new(server, 80);
    let echo = SocketAddr::new(server, 7);
    let failed = |what: &'static str| move |error| AppError::running(format_args!("{what}: {error}"));
    let page = fetch_page(http).map_err(failed("fetching the page"))?;
    Ok(Measured {
        page_bytes: page.len(),
        page,
        connect_us: measure_connect(echo).map_err(failed("connecting"))?,
        rtt_us: measure_rtt(echo).map_err(failed("echoing 64 bytes"))?,
        download_bits_per_second: measure_download(http).map_err(failed("downloading"))?,
        echo_bits_per_second: measure_echo(echo).map_err(failed("echoing"))?,
    })
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, IO_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    Ok(stream)
}

fn fetch_page(http: SocketAddr) -> io::Result<String> {
    let mut stream = connect(http)?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, page)) if head.starts_with("HTTP/1.1 200 ") => Ok(page.to_owned()),
        _ => Err(io::Error::other(format!("unexpected answer {:.80?}", answer))),
    }
}

/// Samples until there are `count`, or time is up; a bad wire makes fewer.
fn sample(count: usize, mut once: impl FnMut() -> io::Result<Duration>) -> io::Result<Percentiles> {
    let begun = Instant::now();
    let mut samples = Vec::with_capacity(count);
    while samples.len() < count && begun.elapsed() < SAMPLE_TIME {
        samples.push(once()?.as_secs_f64() * 1e6);
    }
    Ok(Percentiles::of(samples))
}

fn measure_connect(echo: SocketAddr) -> io::Result<Percentiles> {
    sample(500, || {
        let begun = Instant::now();
        let stream = connect(echo)?;
        let taken = begun.elapsed();
        // The server closes after us, so that TIME-WAIT is ours.
        stream.shutdown(Shutdown::Write)?;
        Ok(taken)
    })
}

fn measure_rtt(echo: SocketAddr) -> io::Result<Percentiles> {
    let mut stream = connect(echo)?;
    let mut number = 0u64;
    sample(10_000, || {
        number += 1;
        let mut message = [0; 64];
        message[..8].copy_from_slice(&number.to_be_bytes());
        let mut answer = [0; 64];
        let begun = Instant::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut answer)?;
        let taken = begun.elapsed();
        if answer == message { Ok(taken) } else { Err(io::Error::other("the answer is another message")) }
    })
}

fn measure_download(http: SocketAddr) -> io::Result<f64> {
    let mut stream = connect(http)?;
    write!(stream, "GET /bytes/1099511627776 HTTP/1.1\r\nHost: {http}\r\n\r\n")?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let begun = Instant::now();
    let mut check = Check::default();
    let mut buffer = vec![0; 256 << 10];
    while begun.elapsed() < BULK_TIME {
        let read = stream.read(&mut buffer)?;
        check.take(&buffer[..read])?;
    }
    Ok(check.bytes as f64 * 8.0 / begun.elapsed().as_secs_f64())
}

fn measure_echo(echo: SocketAddr) -> io::Result<f64> {
    let mut stream = connect(echo)?;
    let mut reader = stream.try_clone()?;
    let begun = Instant::now();
    let received = std::thread::spawn(move || {
        let mut check = Check::default();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok::<_, io::Error>(check.bytes),
                read => check.take(&buffer[..read])?,
            }
        }
    });
    let pattern: Vec<u8> = (0..PATTERN_LEN).map(pattern_byte).collect();
    let mut sent = 0;
    while begun.elapsed() < BULK_TIME {
        stream.write_all(&pattern)?;
        sent += PATTERN_LEN;
    }
    stream.shutdown(Shutdown::Write)?;
    let received = received.join().unwrap_or_else(|_| Err(io::Error::other("the reader panicked")))?;
    if received != sent {
        return Err(io::Error::other(format!("{sent} bytes sent, {received} came back")));
    }
    Ok(received as f64 * 8.0 / begun.elapsed().as_secs_f64())
}

/// Holds what comes against the pattern.
#[derive(Debug, Default)]
struct Check {
    bytes: u64,
}

impl Check {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let start = self.bytes;
        self.bytes += bytes.len() as u64;
        match (start..).zip(bytes).find(|&(position, &byte)| byte != pattern_byte(position)) {
            None => Ok(()),
            Some((position, _)) => Err(io::Error::other(format!("byte {position} is wrong"))),
        }
    }
}

impl Percentiles {
    fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let last = samples.len().saturating_sub(1);
        let at = |share: f64| samples.get((last as f64 * share).round() as usize).copied().unwrap_or(0.0);
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connect_us, rtt_us, .. } = self;
        let gigabits = |bits: f64| bits / 1e9;
        writeln!(f, "connect         {connect_us}")?;
        writeln!(f, "64-byte echo    {rtt_us}")?;
        writeln!(
            f,
            "download        {:.2} Gbit/s, every byte checked",
            gigabits(self.download_bits_per_second)
        )?;
        write!(
            f,
            "bulk echo       {:.2} Gbit/s each way, every byte checked",
            gigabits(self.echo_bits_per_second)
        )
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs", self.p50, self.p99, self.p999)
    }
}

/// How long the kernel's TCP may wait for an answer.
const IO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one series of samples may take.
const SAMPLE_TIME: Duration = Duration::from_secs(2);
/// How long bytes are moved in one direction.
const BULK_TIME: Duration = Duration::from_secs(1);
/// Bytes written at once: a multiple of the pattern's period of 251.
const PATTERN_LEN: u64 = 251 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_samples() {
        let samples = (1..=1000).rev().map(f64::from).collect();
        assert_eq!(Percentiles::of(samples), Percentiles { p50: 501.0, p99: 990.0, p999: 999.0 });
        assert_eq!(Percentiles::of(Vec::new()), Percentiles { p50: 0.0, p99: 0.0, p999: 0.0 });
    }

    #[test]
    fn wrong_and_shifted_bytes_are_found() {
        let pattern: Vec<u8> = (0..1000).map(pattern_byte).collect();
        let mut check = Check::default();
        check.take(&pattern[..600]).expect("right");
        check.take(&pattern[600..]).expect("right");
        assert!(check.take(&pattern[..10]).is_err());
    }
}
