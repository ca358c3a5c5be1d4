//! A look as text, two lines a connection as `ss -ti` has them, and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::rates::{Look, Row};
use super::words::{bits, bytes, duration, millis, scaled};
use crate::report::Report;

/// The object of `--json`: the report, with `interval_seconds`, `rates`, and the rates of each connection.
pub(super) fn to_json(look: &Look) -> Value {
    let mut object = serde_json::to_value(&look.report).unwrap_or_default();
    object["interval_seconds"] = json!(look.rates.map(|rates| rates.interval_seconds));
    object["rates"] = json!(look.rates);
    let rows = look.rows.iter().map(|row| {
        let mut connection = json!(row.connection);
        connection["in_bits_per_second"] = json!(row.bits_in);
        connection["out_bits_per_second"] = json!(row.bits_out);
        connection
    });
    object["connections"] = rows.collect();
    object
}

/// For people.
pub(super) fn to_text(look: &Look) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_text(look, &mut text);
    text
}

fn write_text(look: &Look, out: &mut String) -> std::fmt::Result {
    writeln!(out, "{}", head(&look.report))?;
    writeln!(out, "{}", rates(look))?;
    for listener in &look.report.listeners {
        let (local, waiting, backlog) = (listener.local, listener.waiting, listener.backlog);
        writeln!(
            out,
            "listening on {local}: {waiting} of {backlog} waiting, {} half-open",
            listener.half_open
        )?;
    }
    let shown = match (look.rows.len() as u64, look.report.connections_len) {
        (shown, all) if shown < all => format!("{shown} of {all} connections:"),
        (_, 0) => "no connections".to_owned(),
        (_, 1) => "1 connection:".to_owned(),
        (_, all) => format!("{all} connections:"),
    };
    writeln!(out, "{shown}")?;
    let width = |ends: fn(&Row) -> String| look.rows.iter().map(|row| ends(row).len()).max().unwrap_or(0);
    let local = width(|row| row.connection.local.to_string());
    let remote = width(|row| row.connection.remote.to_string());
    look.rows.iter().try_for_each(|row| write_row(row, local, remote, out))
}

/// `http, process 4711, up 12 s, on packet:eth0, 10.0.0.2/24`.
pub(super) fn head(report: &Report) -> String {
    let mut words = vec![
        report.program.clone(),
        format!("process {}", report.pid),
        format!("up {}", duration(report.uptime_seconds)),
    ];
    if report.shards > 1 {
        words.push(format!("{} shards", report.shards));
    }
    words.push(format!("on {}", report.nic));
    words.extend(report.addresses.iter().cloned());
    words.join(", ")
}

/// What happens in a second.
pub(super) fn rates(look: &Look) -> String {
    let Some(rates) = look.rates else { return "no rates yet".to_owned() };
    let count = |value: f64| scaled(value).trim_end().to_owned();
    format!(
        "in {} ({} frames/s), out {} ({} frames/s), {} connects/s, {} retransmits/s, {} drops/s",
        bits(rates.bits_in_per_second),
        count(rates.frames_in_per_second),
        bits(rates.bits_out_per_second),
        count(rates.frames_out_per_second),
        count(rates.connects_per_second),
        count(rates.retransmits_per_second),
        count(rates.drops_per_second),
    )
}

fn write_row(row: &Row, local_width: usize, remote_width: usize, out: &mut String) -> std::fmt::Result {
    let connection = &row.connection;
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), bits);
    let (local, remote) = (connection.local.to_string(), connection.remote.to_string());
    writeln!(
        out,
        "{:<12} {local:<local_width$}  {remote:<remote_width$}  in {}, out {}, recv-q {}, send-q {}",
        connection.state,
        rate(row.bits_in),
        rate(row.bits_out),
        connection.recv_buffered_bytes,
        connection.send_buffered_bytes,
    )?;
    write!(
        out,
        "     {} mss:{} pmtu:{}",
        connection.congestion, connection.mss_bytes, connection.path_mtu_bytes
    )?;
    write!(out, " cwnd:{}", connection.cwnd_bytes)?;
    if let Some(ssthresh) = connection.ssthresh_bytes {
        write!(out, " ssthresh:{ssthresh}")?;
    }
    write!(out, " in_flight:{}", connection.in_flight_bytes)?;
    if let Some(srtt) = connection.srtt_us {
        write!(
            out,
            " rtt:{}/{}",
            millis(srtt).replace(' ', ""),
            millis(connection.rttvar_us).replace(' ', "")
        )?;
    }
    if let Some(min_rtt) = connection.min_rtt_us {
        write!(out, " min_rtt:{}", millis(min_rtt).replace(' ', ""))?;
    }
    write!(out, " rto:{}ms retransmits:{}", connection.rto_ms, connection.retransmits)?;
    write!(out, " bytes_in:{} bytes_out:{}", connection.bytes_in, connection.bytes_out)?;
    write!(out, " bytes_acked:{}", connection.bytes_acked)?;
    for (name, rate) in [
        ("delivery_rate", connection.delivery_rate_bits_per_second),
        ("pacing_rate", connection.pacing_rate_bits_per_second),
    ] {
        if let Some(rate) = rate {
            write!(out, " {name}:{}", bits(rate as f64).replace(' ', ""))?;
        }
    }
    writeln!(out, " recovery:{} limited_by:{}", connection.recovery, connection.limited_by)
}

/// `12.3 MB of 256 MB`.
pub(super) fn buffers(report: &Report) -> String {
    format!("{} of {}", bytes(report.memory.pool_in_use_bytes), bytes(report.memory.pool_bytes_max))
}
