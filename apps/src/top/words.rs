//! Quantities as people read them.

use crate::report::Report;

/// A number of something with a prefix, three digits of it: `1.23 M`.
pub(super) fn scaled(value: f64) -> String {
    let (mut value, mut prefix) = (value.max(0.0), "");
    for next in ["k", "M", "G", "T"] {
        // What would be printed with four digits is the next one's.
        if value < 999.5 {
            break;
        }
        (value, prefix) = (value / 1_000.0, next);
    }
    let digits = if prefix.is_empty() || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {prefix}")
}

/// `93.1 Mbit/s`.
pub(super) fn bits(per_second: f64) -> String {
    format!("{}bit/s", scaled(per_second))
}

/// `14.6 kB`.
pub(super) fn bytes(value: u64) -> String {
    format!("{}B", scaled(value as f64))
}

/// `1.23 ms`, of microseconds.
pub(super) fn millis(micros: u64) -> String {
    let millis = micros as f64 / 1_000.0;
    let digits = if millis < 10.0 {
        3
    } else if millis < 100.0 {
        1
    } else {
        0
    };
    format!("{millis:.digits$} ms")
}

/// `12 s`, `3:05` or `1 d 02:03:04`.
pub(super) fn duration(seconds: f64) -> String {
    let all = seconds.max(0.0) as u64;
    let (days, hours, minutes, seconds) = (all / 86_400, all / 3_600 % 24, all / 60 % 60, all % 60);
    match all {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{minutes}:{seconds:02}"),
        3_600..86_400 => format!("{hours}:{minutes:02}:{seconds:02}"),
        _ => format!("{days} d {hours:02}:{minutes:02}:{seconds:02}"),
    }
}

/// Takes away what would do something to a terminal: who answers at a socket may be anybody.
pub(super) fn clean(report: &mut Report) {
    let clean = |text: &mut String| {
        if text.len() > TEXT_LEN_MAX || text.chars().any(char::is_control) {
            *text = text.chars().filter(|c| !c.is_control()).take(TEXT_LEN_MAX).collect();
        }
    };
    [&mut report.program, &mut report.version, &mut report.nic].into_iter().for_each(clean);
    report.addresses.truncate(ADDRESSES_MAX);
    report.addresses.iter_mut().for_each(clean);
    for connection in &mut report.connections {
        let texts = [
            &mut connection.state,
            &mut connection.congestion,
            &mut connection.recovery,
            &mut connection.limited_by,
        ];
        texts.into_iter().for_each(clean);
    }
}

/// Characters of a name.
const TEXT_LEN_MAX: usize = 100;
/// Addresses that are shown.
const ADDRESSES_MAX: usize = 32;
