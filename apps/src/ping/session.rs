//! A run of requests: what is sent when, what came back, and when it is over. It prints as it goes.

use std::cell::Cell;
use std::io::{ErrorKind, Write as _};
use std::net::IpAddr;
use std::time::Duration;
use std::time::{Instant as Clock, SystemTime, UNIX_EPOCH};

use smoltcp::time::Instant;
use wirestack::icmp::EchoMeta;
use wirestack::icmp::socket::EchoError;
use wirestack::shard::{PingBind, PingOptions, Shard, SocketId};
use wirestack::udp::SendError;
use wirestack::udp::queue::QueueLimits;

use super::args::PingArgs;
use super::statistics::{Statistics, time_text};
use super::words;
use crate::error::AppError;
use crate::serve::{print, print_error, print_if_read};

/// A run of requests to one address.
#[derive(Debug)]
pub(super) struct Session<'a> {
    args: &'a PingArgs,
    to: IpAddr,
    /// How the address is called in what is printed.
    label: String,
    socket: SocketId,
    /// By sequence number.
    sent: Vec<Sent>,
    /// Requests without an answer or an error.
    outstanding: u64,
    next_send: Instant,
    last_sent: Instant,
    /// When the first request was sent.
    begun: Instant,
    /// The reader of what is printed has gone.
    is_unread: Cell<bool>,
    pub(super) statistics: Statistics,
    /// What all data begins with.
    pattern: Vec<u8>,
}

/// What is known of the last request with a sequence number.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    /// `None`: there was none.
    at: Option<Clock>,
    len: usize,
    is_done: bool,
    is_answered: bool,
}

impl<'a> Session<'a> {
    /// Binds a socket. The first request is sent by the first [`poll`](Self::poll).
    pub(super) fn new(
        args: &'a PingArgs,
        shard: &mut Shard,
        to: IpAddr,
        now: Instant,
    ) -> Result<Self, AppError> {
        let any = if to.is_ipv4() { [0; 4].into() } else { IpAddr::from([0_u16; 8]) };
        let limits = QueueLimits { bytes_max: 4 << 20, ..QueueLimits::default() };
        let socket = shard
            .ping_bind(PingBind { limits, ..PingBind::new(any) })
            .map_err(|error| failed(&args.destination, error))?;
        let is_named = !args.numeric && args.destination.parse::<IpAddr>().is_err();
        let label = if is_named { format!("{} ({to})", args.destination) } else { to.to_string() };
        Ok(Self {
            args,
            to,
            label,
            socket,
            sent: vec![Sent::default(); 1 << 16],
            outstanding: 0,
            next_send: now,
            last_sent: now,
            begun: now,
            is_unread: Cell::new(false),
            statistics: Statistics::new(),
            pattern: (0..=u16::MAX).map(|position| position as u8).collect(),
        })
    }

    /// Takes what came, and sends what is due. To be called in each turn.
    pub(super) fn poll(&mut self, shard: &mut Shard, now: Instant) -> Result<(), AppError> {
        while let Some(reply) = shard.ping_recv_with(self.socket, |meta, data| {
            let clock = Clock::now();
            (*meta, data.len(), self.wrong_byte(data), clock)
        }) {
            self.take_reply(reply, now);
        }
        while let Some(error) = shard.ping_take_error(self.socket) {
            self.take_error(&error);
        }
        if self.next_send <= now && self.may_send() {
            self.send(shard, now)?;
        }
        Ok(())
    }

    /// When to be polled even if nothing comes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let send = self.may_send().then_some(self.next_send);
        let linger = (!self.may_send()).then(|| self.last_sent + self.linger());
        let end = self.args.deadline.map(|seconds| self.begun + span(seconds));
        [send, linger, end].into_iter().flatten().min()
    }

    /// Whether there is nothing more to be done.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let statistics = &self.statistics;
        // Nobody reads what is still to come (`| head`).
        if self.is_unread.get() {
            return true;
        }
        if let Some(seconds) = self.args.deadline {
            let has_all = self.args.requests_max().is_some_and(|count| statistics.received >= count);
            return has_all || now >= self.begun + span(seconds);
        }
        !self.may_send() && (self.outstanding == 0 || now >= self.last_sent + self.linger())
    }

    /// 0: as much came as was wanted. 1: less.
    pub(super) fn status(&self) -> u8 {
        let received = self.statistics.received;
        let is_short =
            self.args.deadline.is_some() && self.args.requests_max().is_some_and(|count| received < count);
        u8::from(received == 0 || is_short)
    }

    /// From the first request to the last one, as iputils counts it: the wait for answers is not in it.
    pub(super) fn elapsed(&self) -> Duration {
        Duration::from_micros((self.last_sent.max(self.begun) - self.begun).total_micros())
    }

    /// Who is pinged.
    pub(super) fn address(&self) -> IpAddr {
        self.to
    }

    /// The line before the first answer.
    pub(super) fn print_head(&self) {
        let (host, to, size) = (&self.args.destination, self.to, self.args.size_of(0));
        if self.args.host.json {
            return;
        }
        match to {
            IpAddr::V4(_) => print(format_args!("PING {host} ({to}) {size}({}) bytes of data.", size + 28)),
            IpAddr::V6(_) => print(format_args!("PING {host} ({to}) {size} data bytes")),
        }
    }

    fn may_send(&self) -> bool {
        // With a deadline it is the answers that are counted.
        self.args.deadline.is_some()
            || self.args.requests_max().is_none_or(|count| self.statistics.transmitted < count)
    }

    /// How long the last answer is waited for.
    fn linger(&self) -> smoltcp::time::Duration {
        let interval = span(self.args.interval.unwrap_or(1.0));
        match (self.args.timeout, self.statistics.longest()) {
            (Some(seconds), _) => span(seconds),
            (None, Some(longest)) => {
                let twice = 2 * u64::try_from(longest.as_micros()).unwrap_or(u64::MAX / 4);
                smoltcp::time::Duration::from_micros(twice).max(interval).max(LINGER_MIN)
            }
            (None, None) => LINGER,
        }
    }

    fn is_flood(&self) -> bool {
        self.args.flood || self.args.interval == Some(0.0)
    }

    fn send(&mut self, shard: &mut Shard, now: Instant) -> Result<(), AppError> {
        let number = self.statistics.transmitted;
        // The first one has number 1, as people know it.
        let sequence = (number + 1) as u16;
        let len = self.args.size_of(number);
        let options = PingOptions {
            hop_limit: self.args.ttl,
            traffic_class: self.args.traffic_class,
            dont_fragment: self.args.forbids_fragments(),
            ..PingOptions::new(self.to, sequence)
        };
        let at = Clock::now();
        let sent = shard.ping_send(self.socket, &options, &self.pattern[..len]);
        if sent == Err(SendError::WouldBlock) {
            self.next_send = now + RETRY_INTERVAL;
            return Ok(());
        }
        self.statistics.transmitted += 1;
        if number == 0 {
            self.begun = now;
        }
        self.last_sent = now;
        let wait = if self.is_flood() { FLOOD_INTERVAL } else { span(self.args.interval.unwrap_or(1.0)) };
        // The rhythm is that of the first request, unless we are late.
        self.next_send = (self.next_send + wait).max(now);
        let forgotten = std::mem::replace(
            &mut self.sent[usize::from(sequence)],
            Sent { at: Some(at), len, is_done: sent.is_err(), is_answered: false },
        );
        self.outstanding += u64::from(sent.is_ok());
        self.outstanding -= u64::from(forgotten.at.is_some() && !forgotten.is_done);
        match sent {
            Ok(()) => self.dot("."),
            Err(SendError::TooLong { max }) => {
                self.statistics.errors += 1;
                let mtu = max + if self.to.is_ipv4() { 28 } else { 48 };
                self.tell_error(format_args!("ping: local error: message too long, mtu: {mtu}"));
            }
            Err(SendError::HostUnreachable) => {
                self.statistics.errors += 1;
                let from = own_address(shard, self.to);
                let kind = wirestack::icmp::ErrorKind::HostUnreachable;
                self.tell(format_args!("From {from} icmp_seq={sequence} {}", words::of(kind, from)));
            }
            Err(error) => return Err(failed(&self.args.destination, error)),
        }
        Ok(())
    }

    fn take_reply(
        &mut self,
        (meta, len, wrong, clock): (EchoMeta, usize, Option<(usize, u8, u8)>, Clock),
        now: Instant,
    ) {
        let sent = &mut self.sent[usize::from(meta.sequence)];
        // An identifier is used again some day: what was not asked for is not counted.
        let Some(at) = sent.at else { return };
        let is_duplicate = sent.is_answered;
        self.outstanding -= u64::from(!sent.is_done);
        (sent.is_done, sent.is_answered) = (true, true);
        let expected_len = sent.len;
        let time = clock.saturating_duration_since(at);
        let statistics = &mut self.statistics;
        match is_duplicate {
            true => statistics.duplicates += 1,
            false => {
                statistics.received += 1;
                statistics.note(time);
            }
        }
        statistics.corrupted += u64::from(wrong.is_some() || len != expected_len);
        if self.args.flood {
            self.dot("\u{8} \u{8}");
        } else {
            let from = if meta.src == self.to { &self.label } else { &meta.src.to_string() };
            let mut line = format!(
                "{} bytes from {from}: icmp_seq={} ttl={} time={} ms",
                len + 8,
                meta.sequence,
                meta.hop_limit,
                time_text(time)
            );
            if is_duplicate {
                line += " (DUP!)";
            }
            if len < expected_len {
                line += " (truncated)";
            }
            if let Some((position, right, found)) = wrong {
                line += &format!("\nwrong data byte #{position} should be {right:#x} but was {found:#x}");
            }
            self.tell(line);
        }
        if self.is_flood() && self.outstanding == 0 {
            self.next_send = now;
        }
    }

    fn take_error(&mut self, error: &EchoError) {
        let sent = &mut self.sent[usize::from(error.sequence)];
        if sent.at.is_none() {
            return;
        }
        self.outstanding -= u64::from(!sent.is_done);
        sent.is_done = true;
        self.statistics.errors += 1;
        let (from, sequence) = (error.error.from, error.sequence);
        self.tell(format_args!("From {from} icmp_seq={sequence} {}", words::of(error.error.kind, from)));
    }

    /// The first byte that is not what was sent: its position, what it should be, what it is.
    fn wrong_byte(&self, data: &[u8]) -> Option<(usize, u8, u8)> {
        let mut bytes = self.pattern.iter().zip(data).enumerate();
        bytes.find_map(|(position, (right, found))| (right != found).then_some((position, *right, *found)))
    }

    /// Prints a line about one request.
    fn tell(&self, line: impl std::fmt::Display) {
        if !self.args.quiet && !self.args.host.json && !self.args.flood {
            let is_read = print_if_read(format_args!("{}{line}", self.timestamp()));
            self.is_unread.set(!is_read);
        } else if self.args.flood {
            self.dot("E");
        }
    }

    /// What stands before a line about one request.
    fn timestamp(&self) -> String {
        if !self.args.timestamps {
            return String::new();
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("[{}.{:06}] ", since.as_secs(), since.subsec_micros())
    }

    fn tell_error(&self, line: impl std::fmt::Display) {
        if !self.args.quiet && !self.args.host.json {
            print_error(line);
        }
    }

    fn dot(&self, text: &str) {
        if self.args.flood && !self.args.quiet && !self.args.host.json {
            let mut stdout = std::io::stdout();
            let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
            self.is_unread.set(written.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe));
        }
    }
}

/// An address of ours of the same IP version.
fn own_address(shard: &Shard, to: IpAddr) -> IpAddr {
    let of_version =
        |address: &&wirestack::ip::Address| address.is_usable() && address.ip().is_ipv4() == to.is_ipv4();
    shard.addresses().find(of_version).map_or(to, wirestack::ip::Address::ip)
}

fn failed(destination: &str, error: impl std::fmt::Display) -> AppError {
    AppError::usage(format_args!("{destination}: {error}"))
}

fn span(seconds: f64) -> smoltcp::time::Duration {
    smoltcp::time::Duration::from_micros((seconds * 1e6) as u64)
}

/// How long an answer is waited for if none has come yet.
const LINGER: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(10);
/// How long it is waited for at least: a busy peer is not a silent one.
const LINGER_MIN: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(1);
/// A flood sends a hundred a second, or more.
const FLOOD_INTERVAL: smoltcp::time::Duration = smoltcp::time::Duration::from_millis(10);
/// How soon what found no room is tried again.
const RETRY_INTERVAL: smoltcp::time::Duration = smoltcp::time::Duration::from_millis(1);
