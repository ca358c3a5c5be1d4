//! What has changed between two reports.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::SocketAddr;

use serde::Serialize;

use crate::report::{ConnectionReport, Report, Sort};

/// A report, and what has happened since the one before it.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    /// Without its connections, which are in `rows`.
    pub(super) report: Report,
    /// `None`: there was none before it, or of another program.
    pub(super) rates: Option<Rates>,
    /// In their order.
    pub(super) rows: Vec<Row>,
}

/// What happens in a second.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(super) struct Rates {
    /// Time between the reports, which is what the rates are over.
    #[serde(skip)]
    pub(super) interval_seconds: f64,
    /// Frames of the device; one that was merged, or is to be split, counts as one.
    pub(super) frames_in_per_second: f64,
    /// Likewise.
    pub(super) frames_out_per_second: f64,
    /// Bits of these frames.
    pub(super) bits_in_per_second: f64,
    /// Likewise.
    pub(super) bits_out_per_second: f64,
    /// Connections opened, by either end.
    pub(super) connects_per_second: f64,
    /// Frames of TCP sent again.
    pub(super) retransmits_per_second: f64,
    /// Everything that was dropped, for whatever reason.
    pub(super) drops_per_second: f64,
}

/// A connection, and how fast it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) connection: ConnectionReport,
    /// Bits of data per second. `None`: it is not known.
    pub(super) bits_in: Option<f64>,
    /// Likewise.
    pub(super) bits_out: Option<f64>,
}

/// Who a connection is.
type Key = (u32, SocketAddr, SocketAddr);

fn key(connection: &ConnectionReport) -> Key {
    (connection.shard, connection.local, connection.remote)
}

impl Look {
    /// What `now` says, beside `before`.
    pub(super) fn new(before: Option<&Report>, mut now: Report, sort: Sort) -> Self {
        let is_same = |before: &&Report| (before.pid, &before.program) == (now.pid, &now.program);
        let before = before.filter(is_same);
        let seconds = before.map(|before| now.uptime_seconds - before.uptime_seconds);
        // By the clock of the program; one that goes backwards is another program.
        let Some((before, seconds)) = before.zip(seconds.filter(|seconds| *seconds > 1e-6)) else {
            let rows = std::mem::take(&mut now.connections).into_iter();
            let rows = rows.map(|connection| Row { connection, bits_in: None, bits_out: None }).collect();
            return Self::sorted(now, None, rows, sort);
        };
        let rates = Rates::between(before, &now, seconds);
        let known: HashMap<Key, &ConnectionReport> =
            before.connections.iter().map(|connection| (key(connection), connection)).collect();
        // One that was not there then has begun at 0; unless not all were listed then.
        let were_all_listed = before.connections.len() as u64 >= before.connections_len;
        let row = |connection: ConnectionReport| {
            let old = known.get(&key(&connection)).filter(|old| {
                // With the same ends, and fewer bytes, it is another one.
                old.bytes_in <= connection.bytes_in && old.bytes_out <= connection.bytes_out
            });
            let from = match old {
                Some(old) => Some((old.bytes_in, old.bytes_out)),
                None => (were_all_listed || known.contains_key(&key(&connection))).then_some((0, 0)),
            };
            let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 * 8.0 / seconds;
            Row {
                bits_in: from.map(|(bytes_in, _)| rate(bytes_in, connection.bytes_in)),
                bits_out: from.map(|(_, bytes_out)| rate(bytes_out, connection.bytes_out)),
                connection,
            }
        };
        let rows = std::mem::take(&mut now.connections).into_iter().map(row).collect();
        Self::sorted(now, Some(rates), rows, sort)
    }

    fn sorted(report: Report, rates: Option<Rates>, rows: Vec<Row>, sort: Sort) -> Self {
        let mut look = Self { report, rates, rows };
        look.sort(sort);
        look
    }

    /// Puts the rows in another order.
    pub(super) fn sort(&mut self, sort: Sort) {
        self.rows.sort_by(|one, other| {
            let first = match sort {
                Sort::Rate => other.bits().total_cmp(&one.bits()),
                _ => Ordering::Equal,
            };
            first.then_with(|| sort.order(&one.connection, &other.connection))
        });
    }

    /// A counter.
    pub(super) fn counter(&self, name: &str) -> u64 {
        self.report.counters.get(name).copied().unwrap_or(0)
    }
}

impl Row {
    /// Both directions.
    pub(super) fn bits(&self) -> f64 {
        self.bits_in.unwrap_or(0.0) + self.bits_out.unwrap_or(0.0)
    }
}

impl Rates {
    fn between(before: &Report, now: &Report, seconds: f64) -> Self {
        let sum = |report: &Report, names: &[&str]| -> u64 {
            names
                .iter()
                .filter_map(|name| report.counters.get(*name))
                .fold(0, |sum, n| sum.saturating_add(*n))
        };
        let dropped = |report: &Report| -> u64 {
            let drops = report.counters.iter().filter(|(name, _)| name.starts_with("drop_"));
            drops.fold(0, |sum, (_, n)| sum.saturating_add(*n))
        };
        let per_second = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
        let rate = |names: &[&str]| per_second(sum(before, names), sum(now, names));
        // TCP of smoltcp's counts what it has accepted only.
        let is_own = now.counters.contains_key("tcp_passive_opens");
        let opens: &[&str] = if is_own { &["tcp_passive_opens", "tcp_active_opens"] } else { &["accepted"] };
        Self {
            interval_seconds: seconds,
            frames_in_per_second: rate(&["rx_frames"]),
            frames_out_per_second: rate(&["tx_frames"]),
            bits_in_per_second: 8.0 * rate(&["rx_bytes"]),
            bits_out_per_second: 8.0 * rate(&["tx_bytes"]),
            connects_per_second: rate(opens),
            retransmits_per_second: rate(&["tcp_retransmits"]),
            drops_per_second: per_second(dropped(before), dropped(now)),
        }
    }
}
