//! How frames are spread over time: the gaps between them, and how many fall into one millisecond.

use hdrhistogram::Histogram;

/// The times of one flow, or of all of them.
#[derive(Debug)]
pub struct Bursts {
    first_nanos: u64,
    last_nanos: u64,
    frames: u64,
    gaps: Histogram<u32>,
    /// Sum of the gaps; the histogram keeps one digit only.
    gaps_nanos: u64,
    gap_nanos_min: u64,
    gap_nanos_max: u64,
    window: Window,
    window_packets: Windows,
    window_bytes: Windows,
}

/// Amounts by millisecond, of those that have any.
#[derive(Debug)]
struct Windows {
    amounts: Histogram<u32>,
    sum: u64,
    min: u64,
    max: u64,
}

/// What has fallen into the current millisecond.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    /// Milliseconds since 1970.
    number: u64,
    packets: u64,
    bytes: u64,
}

/// Smallest, typical and largest of something. Percentiles may be too large by one part in 16.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Spread<T> {
    /// Smallest.
    pub min: T,
    /// Average.
    pub mean: f64,
    /// Half of all are not above it.
    pub p50: T,
    /// 99 of 100 are not above it.
    pub p99: T,
    /// Largest.
    pub max: T,
}

impl Default for Bursts {
    fn default() -> Self {
        Self {
            first_nanos: 0,
            last_nanos: 0,
            frames: 0,
            gaps: histogram(),
            gaps_nanos: 0,
            gap_nanos_min: u64::MAX,
            gap_nanos_max: 0,
            window: Window::default(),
            window_packets: Windows::default(),
            window_bytes: Windows::default(),
        }
    }
}

impl Bursts {
    /// Counts a frame that is `packets` packets on a wire. Its time is not before that of the last frame,
    /// or is taken to be the same: clocks are set back sometimes.
    pub fn add(&mut self, nanos: u64, packets: u64, bytes: u64) {
        let nanos = nanos.max(self.last_nanos);
        if self.frames == 0 {
            self.first_nanos = nanos;
        } else {
            let gap = nanos - self.last_nanos;
            self.gaps_nanos += gap;
            self.gap_nanos_min = self.gap_nanos_min.min(gap);
            self.gap_nanos_max = self.gap_nanos_max.max(gap);
            record(&mut self.gaps, gap.min(GAP_NANOS_MAX));
        }
        self.last_nanos = nanos;
        self.frames += 1;
        let number = nanos / WINDOW_NANOS;
        if number != self.window.number {
            self.close_window();
            self.window.number = number;
        }
        self.window.packets += packets;
        self.window.bytes += bytes;
    }

    /// Ends the current millisecond; before the figures are read.
    pub fn close_window(&mut self) {
        let Window { packets, bytes, .. } = std::mem::take(&mut self.window);
        if packets > 0 {
            self.window_packets.add(packets);
            self.window_bytes.add(bytes);
        }
    }

    /// From the first frame to the last.
    pub fn duration_nanos(&self) -> u64 {
        self.last_nanos - self.first_nanos
    }

    /// Microseconds between frames; `None`: there were not two.
    pub fn gaps_us(&self) -> Option<Spread<f64>> {
        let gaps = self.frames.checked_sub(1).filter(|&gaps| gaps > 0)?;
        let us = |nanos: u64| nanos as f64 / 1000.0;
        let (min, max) = (self.gap_nanos_min, self.gap_nanos_max);
        let quantile = |quantile| us(self.gaps.value_at_quantile(quantile).clamp(min, max));
        Some(Spread {
            min: us(min),
            mean: us(self.gaps_nanos) / gaps as f64,
            p50: quantile(0.5),
            p99: quantile(0.99),
            max: us(max),
        })
    }

    /// How many gaps are below each power of `base` nanoseconds, and not below the one before; those
    /// without any are left out.
    pub fn gap_histogram(&self, base: f64) -> Vec<(f64, u64)> {
        let steps = self.gaps.iter_log(1, base);
        // The iterator tells the largest value of a step, which is one below the power.
        let counts =
            steps.map(|step| (step.value_iterated_to() as f64 + 1.0, step.count_since_last_iteration()));
        counts.filter(|&(_, count)| count > 0).collect()
    }

    /// Packets in one millisecond, over those milliseconds that have any; `None`: none has.
    pub fn packets_per_ms(&self) -> Option<Spread<u64>> {
        self.window_packets.spread()
    }

    /// The same for bytes.
    pub fn bytes_per_ms(&self) -> Option<Spread<u64>> {
        self.window_bytes.spread()
    }

    /// The rate in the busiest millisecond.
    pub fn peak_bits_per_second(&self) -> u64 {
        self.window_bytes.max * 8 * (1_000_000_000 / WINDOW_NANOS)
    }
}

impl Default for Windows {
    fn default() -> Self {
        Self { amounts: histogram(), sum: 0, min: u64::MAX, max: 0 }
    }
}

impl Windows {
    fn add(&mut self, amount: u64) {
        record(&mut self.amounts, amount);
        self.sum += amount;
        self.min = self.min.min(amount);
        self.max = self.max.max(amount);
    }

    fn spread(&self) -> Option<Spread<u64>> {
        let Self { amounts, sum, min, max } = self;
        let quantile = |quantile| amounts.value_at_quantile(quantile).clamp(*min, *max);
        (!amounts.is_empty()).then(|| Spread {
            min: *min,
            mean: *sum as f64 / amounts.len() as f64,
            p50: quantile(0.5),
            p99: quantile(0.99),
            max: *max,
        })
    }
}

/// One significant digit (buckets of a sixteenth of their value) keeps it below 3 KB.
fn histogram() -> Histogram<u32> {
    // The one thing that can be wrong is a number of digits above 5.
    Histogram::new(1).unwrap_or_else(|_| unreachable!("one digit is allowed"))
}

fn record(histogram: &mut Histogram<u32>, value: u64) {
    // It grows with its values, which are bounded by what a counter of bytes can reach: it cannot fail.
    let _ = histogram.record(value);
}

const WINDOW_NANOS: u64 = 1_000_000;
/// An hour: longer gaps count as this in the histogram.
const GAP_NANOS_MAX: u64 = 3_600_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_and_one_frame_have_no_gaps() {
        let mut bursts = Bursts::default();
        bursts.close_window();
        assert_eq!((bursts.gaps_us(), bursts.packets_per_ms(), bursts.duration_nanos()), (None, None, 0));
        bursts.add(5, 1, 60);
        bursts.close_window();
        assert_eq!((bursts.gaps_us(), bursts.packets_per_ms().map(|spread| spread.max)), (None, Some(1)));
    }

    #[test]
    fn a_burst_is_seen_in_its_millisecond() {
        let mut bursts = Bursts::default();
        // 1000 packets a second, and 50 at once in the middle.
        for ms in 0..1000 {
            bursts.add(ms * 1_000_000, 1, 100);
            if ms == 500 {
                (0..50).for_each(|n| bursts.add(ms * 1_000_000 + n, 1, 1000));
            }
        }
        bursts.close_window();
        let packets = bursts.packets_per_ms().expect("packets");
        assert_eq!((packets.min, packets.p50, packets.p99, packets.max), (1, 1, 1, 51));
        assert_eq!(bursts.bytes_per_ms().expect("bytes").max, 50_100);
        assert_eq!(bursts.peak_bits_per_second(), 50_100 * 8 * 1000);
        let gaps = bursts.gaps_us().expect("gaps");
        assert_eq!((gaps.min, gaps.max), (0.0, 1000.0));
        assert_eq!(bursts.duration_nanos(), 999_000_000);
    }

    #[test]
    fn a_clock_that_is_set_back_stands_still() {
        let mut bursts = Bursts::default();
        for nanos in [5_000_000, 1, 7_000_000] {
            bursts.add(nanos, 1, 60);
        }
        bursts.close_window();
        assert_eq!(bursts.duration_nanos(), 2_000_000);
        assert_eq!(bursts.packets_per_ms().expect("packets").max, 2);
        // The largest numbers that can come neither panic nor wrap.
        bursts.add(u64::MAX, 1, 60);
        bursts.add(u64::MAX, u64::from(u32::MAX), 60);
        bursts.close_window();
        bursts.gap_histogram(2.0);
    }

    #[test]
    fn gaps_are_counted_by_power() {
        let mut bursts = Bursts::default();
        for nanos in [0, 0, 9, 109, 1_109] {
            bursts.add(nanos, 1, 60);
        }
        let histogram = bursts.gap_histogram(10.0);
        let total: u64 = histogram.iter().map(|&(_, count)| count).sum();
        assert_eq!(total, 4, "{histogram:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn figures_are_those_of_sorted_lists(
            frames in proptest::collection::vec((0u64..3_000_000, 1u64..45, 60u64..2000), 2..300),
        ) {
            let mut bursts = Bursts::default();
            let mut now = 1_700_000_000_000_000_000;
            let mut gaps = Vec::new();
            let mut windows = std::collections::BTreeMap::<u64, (u64, u64)>::new();
            for (index, &(gap, packets, bytes)) in frames.iter().enumerate() {
                if index > 0 {
                    now += gap;
                    gaps.push(gap);
                }
                bursts.add(now, packets, bytes);
                let window = windows.entry(now / 1_000_000).or_default();
                *window = (window.0 + packets, window.1 + bytes);
            }
            bursts.close_window();
            gaps.sort_unstable();
            let nearly = |found: f64, exact: u64| (found - exact as f64).abs() <= exact as f64 / 16.0 + 1.0;
            let rank = |len: usize, quantile: f64| ((len as f64 * quantile).ceil() as usize).max(1) - 1;
            let found = bursts.gaps_us().expect("gaps");
            prop_assert_eq!((found.min * 1000.0).round() as u64, gaps[0]);
            prop_assert_eq!((found.max * 1000.0).round() as u64, gaps[gaps.len() - 1]);
            for (found, quantile) in [(found.p50, 0.5), (found.p99, 0.99)] {
                prop_assert!(nearly(found * 1000.0, gaps[rank(gaps.len(), quantile)]), "{} {:?}", found, gaps);
            }
            let mut packets: Vec<_> = windows.values().map(|window| window.0).collect();
            packets.sort_unstable();
            let found = bursts.packets_per_ms().expect("packets");
            prop_assert_eq!(found.max, packets[packets.len() - 1]);
            prop_assert!(nearly(found.p50 as f64, packets[rank(packets.len(), 0.5)]));
            prop_assert_eq!(bursts.bytes_per_ms().expect("bytes").max, windows.values().map(|w| w.1).max().expect("one"));
            let counted: u64 = bursts.gap_histogram(2.0).iter().map(|&(_, count)| count).sum();
            prop_assert_eq!(counted, gaps.len() as u64);
        }
    }
}
