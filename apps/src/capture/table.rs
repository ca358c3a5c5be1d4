//! What a capture prints: a line each second, and the totals.

use std::fmt::{self, Write as _};
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::analyze::report::Report;
use super::worker::{Finished, Meter};

/// Figures of one thread, or of all, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Figures {
    pub(super) frames: u64,
    pub(super) bytes: u64,
    #[serde(rename = "packets_dropped")]
    pub(super) dropped: u64,
}

impl Figures {
    fn of(meter: &Meter) -> Self {
        Self {
            frames: meter.frames.load(Ordering::Relaxed),
            bytes: meter.bytes.load(Ordering::Relaxed),
            dropped: meter.dropped.load(Ordering::Relaxed),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            frames: self.frames.saturating_sub(before.frames),
            bytes: self.bytes.saturating_sub(before.bytes),
            dropped: self.dropped.saturating_sub(before.dropped),
        }
    }
}

impl std::iter::Sum for Figures {
    fn sum<I: Iterator<Item = Self>>(figures: I) -> Self {
        figures.fold(Self::default(), |sum, one| Self {
            frames: sum.frames + one.frames,
            bytes: sum.bytes + one.bytes,
            dropped: sum.dropped + one.dropped,
        })
    }
}

/// Rates of an interval.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Interval {
    /// Its end, since the capture began.
    seconds: f64,
    #[serde(flatten)]
    all: Rates,
    threads: Vec<Rates>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Rates {
    packets_per_second: f64,
    bits_per_second: f64,
    packets_dropped: u64,
}

impl Rates {
    fn of(figures: Figures, seconds: f64) -> Self {
        // A capture may end in the moment in which it begins.
        let seconds = seconds.max(1e-6);
        Self {
            packets_per_second: figures.frames as f64 / seconds,
            bits_per_second: figures.bytes as f64 * 8.0 / seconds,
            packets_dropped: figures.dropped,
        }
    }
}

/// Looks at meters once a second.
#[derive(Debug)]
pub(super) struct Table {
    before: Vec<Figures>,
    seconds_before: f64,
    /// The last ones, for `--json`.
    intervals: Vec<Interval>,
}

impl Table {
    pub(super) fn new(threads: usize) -> Self {
        Self { before: vec![Figures::default(); threads], seconds_before: 0.0, intervals: Vec::new() }
    }

    /// Rates since the last call; `seconds` since the capture began.
    pub(super) fn tick(&mut self, meters: &[Meter], seconds: f64) -> &Interval {
        let length = seconds - self.seconds_before;
        self.seconds_before = seconds;
        let now: Vec<_> = meters.iter().map(Figures::of).collect();
        let since: Vec<_> = now.iter().zip(&self.before).map(|(now, before)| now.since(*before)).collect();
        self.before = now;
        if self.intervals.len() >= INTERVALS_MAX {
            self.intervals.remove(0);
        }
        let all = Rates::of(since.iter().copied().sum(), length);
        let threads = since.iter().map(|&figures| Rates::of(figures, length)).collect();
        self.intervals.push(Interval { seconds, all, threads });
        &self.intervals[self.intervals.len() - 1]
    }
}

/// `   1.0 s    812345 pps    540.1 Mbit/s    0 dropped   [0] 400123 pps 0   [1] 412222 pps 0`
impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, all, threads } = self;
        let Rates { packets_per_second, bits_per_second, packets_dropped } = all;
        write!(
            f,
            "{seconds:7.1} s {packets_per_second:10.0} pps {:10.1} Mbit/s {packets_dropped:8} dropped",
            bits_per_second / 1e6
        )?;
        for (number, Rates { packets_per_second, packets_dropped, .. }) in threads.iter().enumerate() {
            write!(f, "   [{number}] {packets_per_second:.0} pps {packets_dropped} dropped")?;
        }
        Ok(())
    }
}

/// The end of a capture.
#[derive(Debug)]
pub(super) struct Totals<'a> {
    pub(super) interface: &'a str,
    pub(super) mode: &'static str,
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
    pub(super) threads: Vec<Finished>,
    pub(super) file: Option<FileReport>,
}

/// What is in the files.
#[derive(Debug, Serialize)]
pub(super) struct FileReport {
    pub(super) frames: u64,
    pub(super) frames_lost: u64,
    pub(super) bytes: u64,
    /// Files that were begun; more than are left with `--rotate-files`.
    pub(super) files: u32,
    pub(super) paths: Vec<String>,
}

#[derive(Serialize)]
struct ThreadJson<'a> {
    #[serde(flatten)]
    figures: Figures,
    frames_filtered: u64,
    packets_per_second: f64,
    /// Those of the device since it was opened, which is a little earlier than the capture began.
    counters: serde_json::Map<String, serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    analysis: Option<&'a Report>,
}

#[derive(Serialize)]
struct TotalsJson<'a> {
    interface: &'a str,
    mode: &'a str,
    seconds: f64,
    cpu_seconds: f64,
    #[serde(flatten)]
    all: Figures,
    frames_filtered: u64,
    packets_per_second: f64,
    bits_per_second: f64,
    threads: Vec<ThreadJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a FileReport>,
    intervals: &'a [Interval],
}

impl Finished {
    fn figures(&self) -> Figures {
        Figures { frames: self.frames, bytes: self.bytes, dropped: self.dropped }
    }

    fn to_json(&self, seconds: f64) -> ThreadJson<'_> {
        let counters = self.counters.named().filter(|&(_, value)| value != 0);
        ThreadJson {
            figures: self.figures(),
            frames_filtered: self.filtered,
            packets_per_second: Rates::of(self.figures(), seconds).packets_per_second,
            counters: counters.map(|(name, value)| (name.to_owned(), value.into())).collect(),
            analysis: self.report.as_ref(),
        }
    }
}

impl Totals<'_> {
    pub(super) fn all(&self) -> Figures {
        self.threads.iter().map(Finished::figures).sum()
    }

    /// Frames that lists kept out.
    pub(super) fn filtered(&self) -> u64 {
        self.threads.iter().map(|thread| thread.filtered).sum()
    }

    /// One object with everything.
    pub(super) fn to_json(&self, table: &Table) -> serde_json::Value {
        let all = self.all();
        let rates = Rates::of(all, self.seconds);
        let json = TotalsJson {
            interface: self.interface,
            mode: self.mode,
            seconds: self.seconds,
            cpu_seconds: self.cpu_seconds,
            all,
            frames_filtered: self.filtered(),
            packets_per_second: rates.packets_per_second,
            bits_per_second: rates.bits_per_second,
            threads: self.threads.iter().map(|thread| thread.to_json(self.seconds)).collect(),
            file: self.file.as_ref(),
            intervals: &table.intervals,
        };
        // Plain data with names as keys: it cannot fail.
        serde_json::to_value(json).unwrap_or_default()
    }

    /// What was found in the frames of each thread; empty if that was not asked for.
    pub(super) fn analysis(&self) -> String {
        let mut text = String::new();
        let reports = self.threads.iter().map(|thread| thread.report.as_ref());
        for (number, report) in reports.enumerate().filter_map(|(number, report)| Some((number, report?))) {
            if self.threads.len() > 1 {
                // Writing to a string does not fail, here and below.
                let _ = writeln!(text, "thread {number}:");
            }
            let _ = write!(text, "{report}");
        }
        text
    }
}

/// A line for each thread, if there are several, and one for all.
impl fmt::Display for Totals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.threads.len() > 1 {
            for (number, thread) in self.threads.iter().enumerate() {
                let Figures { frames, bytes, dropped } = thread.figures();
                writeln!(f, "[{number}] {frames} frames, {bytes} bytes, {dropped} dropped")?;
            }
        }
        let Figures { frames, bytes, dropped } = self.all();
        write!(
            f,
            "{frames} frames, {bytes} bytes, {dropped} dropped in {:.3} s, {:.3} s of CPU",
            self.seconds, self.cpu_seconds
        )?;
        let filtered = self.filtered();
        if filtered > 0 {
            write!(f, "; {filtered} frames filtered")?;
        }
        if let Some(FileReport { frames, frames_lost, bytes, files, .. }) = &self.file {
            write!(f, "; {frames} frames written ({bytes} bytes, {files} files)")?;
            if *frames_lost > 0 {
                write!(f, ", {frames_lost} not written")?;
            }
        }
        Ok(())
    }
}

/// Intervals that are kept for `--json`: the last hour.
const INTERVALS_MAX: usize = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    fn set(meter: &Meter, frames: u64, bytes: u64, dropped: u64) {
        meter.frames.store(frames, Ordering::Relaxed);
        meter.bytes.store(bytes, Ordering::Relaxed);
        meter.dropped.store(dropped, Ordering::Relaxed);
    }

    #[test]
    fn rates_are_of_the_interval() {
        let meters = [Meter::default(), Meter::default()];
        let mut table = Table::new(2);
        set(&meters[0], 1000, 60_000, 1);
        set(&meters[1], 500, 30_000, 0);
        table.tick(&meters, 1.0);
        set(&meters[0], 1100, 66_000, 5);
        let interval = table.tick(&meters, 1.5);
        assert_eq!(interval.all.packets_per_second, 200.0);
        assert_eq!((interval.all.bits_per_second, interval.all.packets_dropped), (96_000.0, 4));
        let line = interval.to_string();
        assert!(line.contains("1.5 s") && line.contains("200 pps") && line.contains("4 dropped"), "{line}");
        assert!(line.ends_with("[0] 200 pps 4 dropped   [1] 0 pps 0 dropped"), "{line}");
        for _ in 0..2 * INTERVALS_MAX {
            table.tick(&meters, 2.0);
        }
        assert_eq!(table.intervals.len(), INTERVALS_MAX);
    }
}
