//! What a lossy wire does to frames, as a value and as text: `loss=1%,delay=10ms,rate=100mbit`.
//!
//! The text is a list of `FIELD=VALUE`, separated by commas, each field at most once, spaces around
//! them allowed. [`ImpairSpec`] prints itself in the same form, and what it prints parses to itself.
//!
//! | field | value | what it is |
//! |---|---|---|
//! | `loss`, `duplicate`, `reorder`, `corrupt` | `0%` to `100%`, four decimals | share of the frames |
//! | `delay`, `jitter` | `0us` to `60s`, in `us`, `ms`, `s` | time that a frame takes; how it varies |
//! | `rate` | `1` to `1000gbit`, in bits per second, `kbit`, `mbit`, `gbit` | serialisation |
//! | `queue` | `1` to `65536` | frames held at once, waiting or on their way |

use std::fmt;
use std::str::FromStr;

use smoltcp::time::Duration;

/// What one direction of a wire does to frames. The default is a perfect wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImpairSpec {
    /// Share of the frames that vanish.
    pub loss: Probability,
    /// Share of the frames that are followed by a copy of themselves.
    pub duplicate: Probability,
    /// Share of the frames that are held back, so that one to three later frames overtake them.
    pub reorder: Probability,
    /// Share of the frames in which one bit is flipped.
    pub corrupt: Probability,
    /// Time that each frame takes, after it was serialised. At most [`DELAY_MAX`].
    pub delay: Duration,
    /// How much `delay` varies: uniformly from `delay - jitter` (not below zero) to `delay + jitter`.
    /// At most [`DELAY_MAX`].
    pub jitter: Duration,
    /// Bits per second, from 1 to [`RATE_MAX`]; frames are serialised one after the other, counted
    /// without preamble, checksum and gap. `None`: no limit.
    pub rate: Option<u64>,
    /// Frames held at once, whether they wait for the rate or are on their way: a bandwidth-delay
    /// product must fit, as with netem. From 1 to [`QUEUE_LEN_MAX`].
    pub queue: usize,
}

impl ImpairSpec {
    /// Whether frames go through as they are, at once. The length of the queue does not matter then.
    pub fn is_perfect(&self) -> bool {
        *self == Self { queue: self.queue, ..Self::default() }
    }
}

impl Default for ImpairSpec {
    fn default() -> Self {
        Self {
            loss: Probability::NEVER,
            duplicate: Probability::NEVER,
            reorder: Probability::NEVER,
            corrupt: Probability::NEVER,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: None,
            queue: QUEUE_LEN_DEFAULT,
        }
    }
}

impl FromStr for ImpairSpec {
    type Err = ImpairSpecError;

    fn from_str(text: &str) -> Result<Self, ImpairSpecError> {
        let mut spec = Self::default();
        let mut seen = [false; Field::ALL.len()];
        for item in text.split(',') {
            let item = item.trim();
            let Some((name, value)) = item.split_once('=') else {
                return Err(ImpairSpecError::NotAnAssignment { item: excerpt(item) });
            };
            let (name, value) = (name.trim(), value.trim());
            let Some(field) = Field::ALL.into_iter().find(|field| field.name() == name) else {
                return Err(ImpairSpecError::UnknownField { field: excerpt(name), value: excerpt(value) });
            };
            if let Some(seen) = seen.get_mut(field as usize)
                && std::mem::replace(seen, true)
            {
                return Err(ImpairSpecError::Repeated { field: field.name(), value: excerpt(value) });
            }
            spec.set(field, value).ok_or_else(|| ImpairSpecError::Value {
                field: field.name(),
                value: excerpt(value),
                accepted: field.accepted(),
            })?;
        }
        Ok(spec)
    }
}

impl ImpairSpec {
    /// Sets one field from its text. `None`: the text is not one of its values.
    fn set(&mut self, field: Field, value: &str) -> Option<()> {
        match field {
            Field::Loss => self.loss = parse_percent(value)?,
            Field::Duplicate => self.duplicate = parse_percent(value)?,
            Field::Reorder => self.reorder = parse_percent(value)?,
            Field::Corrupt => self.corrupt = parse_percent(value)?,
            Field::Delay => self.delay = parse_time(value)?,
            Field::Jitter => self.jitter = parse_time(value)?,
            Field::Rate => self.rate = Some(parse_rate(value)?),
            Field::Queue => self.queue = parse_queue(value)?,
        }
        Some(())
    }
}

/// The fields that differ from a perfect wire; `loss=0%` for the perfect wire itself.
impl fmt::Display for ImpairSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { loss, duplicate, reorder, corrupt, delay, jitter, rate, queue } = *self;
        if *self == Self::default() {
            return f.write_str("loss=0%");
        }
        let mut separator = "";
        let mut item = |name: Field, value: fmt::Arguments<'_>| {
            let result = write!(f, "{separator}{}={value}", name.name());
            separator = ",";
            result
        };
        for (name, share) in [
            (Field::Loss, loss),
            (Field::Duplicate, duplicate),
            (Field::Reorder, reorder),
            (Field::Corrupt, corrupt),
        ] {
            if share != Probability::NEVER {
                item(name, format_args!("{share}"))?;
            }
        }
        for (name, time) in [(Field::Delay, delay), (Field::Jitter, jitter)] {
            if time != Duration::ZERO {
                item(name, format_args!("{}", Scaled { value: time.total_micros(), units: &TIME_UNITS }))?;
            }
        }
        if let Some(rate) = rate {
            item(Field::Rate, format_args!("{}", Scaled { value: rate, units: &RATE_UNITS }))?;
        }
        if queue != QUEUE_LEN_DEFAULT {
            item(Field::Queue, format_args!("{queue}"))?;
        }
        Ok(())
    }
}

/// A share of all frames, in steps of one in a million.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probability {
    /// At most a million.
    per_million: u32,
}

impl Probability {
    /// No frame at all.
    pub const NEVER: Self = Self { per_million: 0 };
    /// Every frame.
    pub const ALWAYS: Self = Self { per_million: 1_000_000 };

    /// So many of a million frames; `None` above a million.
    pub const fn from_per_million(per_million: u32) -> Option<Self> {
        if per_million <= Self::ALWAYS.per_million { Some(Self { per_million }) } else { None }
    }

    /// So many of a hundred frames; `None` above a hundred.
    pub const fn from_percent(percent: u32) -> Option<Self> {
        if percent <= 100 { Self::from_per_million(percent * 10_000) } else { None }
    }

    /// How many of a million frames.
    pub const fn per_million(self) -> u32 {
        self.per_million
    }

    /// Whether the event happens, for a uniformly drawn number.
    pub(super) fn hit(self, drawn: u32) -> bool {
        (u64::from(drawn) * 1_000_000) >> 32 < u64::from(self.per_million)
    }
}

/// In percent, without trailing zeros: `0.5%`.
impl fmt::Display for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.per_million / 10_000, self.per_million % 10_000);
        if rest == 0 {
            return write!(f, "{whole}%");
        }
        let decimals = format!("{rest:04}");
        write!(f, "{whole}.{}%", decimals.trim_end_matches('0'))
    }
}

/// Why a text is not an [`ImpairSpec`]. Prints as one line, whatever the text was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImpairSpecError {
    /// An item of the list is empty or has no `=`.
    #[error("impairment {item:?}: expected FIELD=VALUE, where FIELD is one of {FIELDS}")]
    NotAnAssignment {
        /// The item.
        item: String,
    },
    /// There is no such field.
    #[error("impairment {field:?} (value {value:?}): unknown field, expected one of {FIELDS}")]
    UnknownField {
        /// The name that was given.
        field: String,
        /// Its value.
        value: String,
    },
    /// A field was given twice.
    #[error("impairment {field:?}: value {value:?} comes after an earlier one, expected each field once")]
    Repeated {
        /// The field.
        field: &'static str,
        /// Its second value.
        value: String,
    },
    /// A field does not take this value.
    #[error("impairment {field:?}: value {value:?} is not accepted, expected {accepted}")]
    Value {
        /// The field.
        field: &'static str,
        /// The value that was given.
        value: String,
        /// What the field takes.
        accepted: &'static str,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Loss,
    Duplicate,
    Reorder,
    Corrupt,
    Delay,
    Jitter,
    Rate,
    Queue,
}

impl Field {
    const ALL: [Self; 8] = [
        Self::Loss,
        Self::Duplicate,
        Self::Reorder,
        Self::Corrupt,
        Self::Delay,
        Self::Jitter,
        Self::Rate,
        Self::Queue,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Corrupt => "corrupt",
            Self::Delay => "delay",
            Self::Jitter => "jitter",
            Self::Rate => "rate",
            Self::Queue => "queue",
        }
    }

    fn accepted(self) -> &'static str {
        match self {
            Self::Loss | Self::Duplicate | Self::Reorder | Self::Corrupt => {
                "0% to 100% with at most four decimals, as in 0.5%"
            }
            Self::Delay | Self::Jitter => "0us to 60s in steps of 1us, in us, ms or s, as in 10ms",
            Self::Rate => "1 to 1000gbit, in bits per second, kbit, mbit or gbit, as in 100mbit",
            Self::Queue => "1 to 65536 (frames)",
        }
    }
}

fn parse_percent(value: &str) -> Option<Probability> {
    let per_million = parse_decimal(value.strip_suffix('%')?, 10_000)?;
    Probability::from_per_million(u32::try_from(per_million).ok()?)
}

fn parse_time(value: &str) -> Option<Duration> {
    // The unit is asked for even with zero: "0" may be a forgotten figure.
    let micros = parse_scaled(value, &TIME_UNITS)?;
    Some(Duration::from_micros(micros)).filter(|&time| time <= DELAY_MAX)
}

fn parse_rate(value: &str) -> Option<u64> {
    let rate = match parse_decimal(value, 1) {
        Some(rate) => rate,
        None => parse_scaled(value, &RATE_UNITS)?,
    };
    (1..=RATE_MAX).contains(&rate).then_some(rate)
}

fn parse_queue(value: &str) -> Option<usize> {
    let queue = usize::try_from(parse_decimal(value, 1)?).ok()?;
    (1..=QUEUE_LEN_MAX).contains(&queue).then_some(queue)
}

/// A decimal number and one of `units`, in the smallest of them.
fn parse_scaled(value: &str, units: &[(&str, u64)]) -> Option<u64> {
    let unit_at = value.find(|c: char| c != '.' && !c.is_ascii_digit())?;
    let (number, unit) = value.split_at_checked(unit_at)?;
    let &(_, scale) = units.iter().find(|&&(name, _)| name == unit)?;
    parse_decimal(number, scale)
}

/// `number` (digits, perhaps a point and more digits) times `scale`; `None` if that is not a whole
/// number, does not fit, or `number` is not one. No floating point: `0.1` is exact.
fn parse_decimal(number: &str, scale: u64) -> Option<u64> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if digits(fraction) => (whole, fraction.trim_end_matches('0')),
        Some(_) => return None,
        None => (number, ""),
    };
    if !digits(whole) {
        return None;
    }
    let mut total = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    let mut scale = scale;
    for digit in fraction.bytes() {
        if !scale.is_multiple_of(10) {
            return None;
        }
        scale /= 10;
        total = total.checked_add(u64::from(digit - b'0') * scale)?;
    }
    Some(total)
}

/// Prints a value in the largest unit that divides it.
struct Scaled {
    value: u64,
    /// From small to large; the first is 1.
    units: &'static [(&'static str, u64)],
}

impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.units.iter().rev().find(|&&(_, scale)| self.value.is_multiple_of(scale));
        let &(name, scale) = unit.unwrap_or(&("", 1));
        write!(f, "{}{name}", self.value / scale)
    }
}

/// The start of a text that goes into an error: a line stays a line.
fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    let mut short: String = text.chars().take(CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Frames that a wire holds when the spec does not say: that of netem.
pub const QUEUE_LEN_DEFAULT: usize = 1000;
/// The largest queue, in frames.
pub const QUEUE_LEN_MAX: usize = 65_536;
/// The longest delay and the largest jitter.
pub const DELAY_MAX: Duration = Duration::from_secs(60);
/// The highest rate, in bits per second.
pub const RATE_MAX: u64 = 1_000_000_000_000;

const FIELDS: &str = "loss, duplicate, reorder, corrupt, delay, jitter, rate, queue";
const TIME_UNITS: [(&str, u64); 3] = [("us", 1), ("ms", 1_000), ("s", 1_000_000)];
const RATE_UNITS: [(&str, u64); 4] =
    [("bit", 1), ("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000)];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn share(per_million: u32) -> Probability {
        Probability::from_per_million(per_million).expect("a share")
    }

    #[test]
    fn every_field_is_read() {
        let spec: ImpairSpec = "loss=1%,duplicate=0.5%,reorder=1.25%,corrupt=0.0001%,delay=10ms,jitter=2ms,\
                                rate=100mbit,queue=1000"
            .parse()
            .expect("a spec");
        assert_eq!(
            spec,
            ImpairSpec {
                loss: share(10_000),
                duplicate: share(5_000),
                reorder: share(12_500),
                corrupt: share(1),
                delay: Duration::from_millis(10),
                jitter: Duration::from_millis(2),
                rate: Some(100_000_000),
                queue: 1000,
            }
        );
    }

    #[test]
    fn units_and_decimals() {
        let delay = |text: &str| format!("delay={text}").parse::<ImpairSpec>().map(|spec| spec.delay);
        assert_eq!(delay("0us"), Ok(Duration::ZERO));
        assert_eq!(delay("1.5ms"), Ok(Duration::from_micros(1500)));
        assert_eq!(delay("0.000001s"), Ok(Duration::from_micros(1)));
        assert_eq!(delay("60s"), Ok(DELAY_MAX));
        let rate = |text: &str| format!("rate={text}").parse::<ImpairSpec>().map(|spec| spec.rate);
        assert_eq!(rate("115200"), Ok(Some(115_200)));
        assert_eq!(rate("9600bit"), Ok(Some(9_600)));
        assert_eq!(rate("2.5gbit"), Ok(Some(2_500_000_000)));
        assert_eq!(rate("1000gbit"), Ok(Some(RATE_MAX)));
        assert_eq!(" loss = 100% , queue=1 ".parse::<ImpairSpec>().map(|spec| spec.queue), Ok(1));
        assert_eq!("loss=0.50000%".parse::<ImpairSpec>().map(|spec| spec.loss), Ok(share(5_000)));
    }

    #[test]
    fn a_bad_value_names_field_value_and_what_is_accepted() {
        let percents =
            ["", "1", "%", "101%", "100.0001%", "-1%", "+1%", "0.00001%", "1.%", ".5%", "1e1%", "nan%"];
        for (field, values) in [
            ("loss", &percents[..]),
            ("duplicate", &percents),
            ("reorder", &percents),
            ("corrupt", &percents),
            ("delay", &["", "10", "0", "ms", "10m", "10 ms", "-1ms", "61s", "60.000001s", "0.5us", "10MS"]),
            ("delay", &["99999999999999999999s", "18446744073709551615s", "1..5ms", "1.5.5ms", "١ms"]),
            ("jitter", &["", "2", "2min", "60001ms"]),
            ("rate", &["", "0", "0mbit", "1001gbit", "fast", "mbit", "1tbit", "0.5", "-5", "1.0001kbit"]),
            ("rate", &["18446744073709551616", "18446744073709551615gbit", "100mbit/s"]),
            ("queue", &["", "0", "65537", "-1", "1.5", "10frames", "18446744073709551616"]),
        ] {
            for value in values {
                let error = format!("{field}={value}").parse::<ImpairSpec>().expect_err(value);
                let line = error.to_string();
                assert!(matches!(error, ImpairSpecError::Value { .. }), "{line}");
                assert!(line.starts_with(&format!("impairment {field:?}: value {value:?} ")), "{line}");
                assert!(line.contains(", expected ") && !line.contains('\n'), "{line}");
            }
        }
    }

    #[test]
    fn a_bad_list_is_explained() {
        for (text, expected) in [
            (
                "",
                "impairment \"\": expected FIELD=VALUE, where FIELD is one of loss, duplicate, reorder, \
                  corrupt, delay, jitter, rate, queue",
            ),
            (
                "loss=1%,",
                "impairment \"\": expected FIELD=VALUE, where FIELD is one of loss, duplicate, \
                          reorder, corrupt, delay, jitter, rate, queue",
            ),
            (
                "delay",
                "impairment \"delay\": expected FIELD=VALUE, where FIELD is one of loss, duplicate, \
                       reorder, corrupt, delay, jitter, rate, queue",
            ),
            (
                "drop=1%",
                "impairment \"drop\" (value \"1%\"): unknown field, expected one of loss, duplicate, \
                         reorder, corrupt, delay, jitter, rate, queue",
            ),
            (
                "LOSS=1%",
                "impairment \"LOSS\" (value \"1%\"): unknown field, expected one of loss, duplicate, \
                         reorder, corrupt, delay, jitter, rate, queue",
            ),
            (
                "loss=1%,loss=2%",
                "impairment \"loss\": value \"2%\" comes after an earlier one, expected each \
                                 field once",
            ),
            (
                "loss=1%=2%",
                "impairment \"loss\": value \"1%=2%\" is not accepted, expected 0% to 100% with at \
                            most four decimals, as in 0.5%",
            ),
        ] {
            assert_eq!(text.parse::<ImpairSpec>().expect_err(text).to_string(), expected);
        }
    }

    #[test]
    fn an_error_is_one_short_line_for_any_input() {
        let text = format!("loss=\n{}", "é".repeat(10_000));
        let line = text.parse::<ImpairSpec>().expect_err("not a share").to_string();
        assert!(line.len() < 250 && !line.contains('\n'), "{line}");
    }

    #[test]
    fn the_perfect_wire_prints_and_parses() {
        assert_eq!(ImpairSpec::default().to_string(), "loss=0%");
        assert_eq!("loss=0%".parse(), Ok(ImpairSpec::default()));
    }

    #[test]
    fn a_share_hits_at_its_bounds() {
        assert!(!Probability::NEVER.hit(0));
        assert!(Probability::ALWAYS.hit(u32::MAX));
        assert!(share(1).hit(0) && share(1).hit(4294) && !share(1).hit(4295));
        assert_eq!(Probability::from_percent(101), None);
        assert_eq!(Probability::from_per_million(1_000_001), None);
        assert_eq!(Probability::from_percent(100), Some(Probability::ALWAYS));
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_itself(
            shares in proptest::array::uniform4(0u32..=1_000_000),
            times in proptest::array::uniform2(0u64..=60_000_000),
            rate in proptest::option::of(1..=RATE_MAX),
            queue in 1..=QUEUE_LEN_MAX,
        ) {
            let [loss, duplicate, reorder, corrupt] = shares.map(share);
            let [delay, jitter] = times.map(Duration::from_micros);
            let spec = ImpairSpec { loss, duplicate, reorder, corrupt, delay, jitter, rate, queue };
            prop_assert_eq!(spec.to_string().parse(), Ok(spec));
        }

        #[test]
        fn no_text_panics(text in ".*", list in "(loss|delay|rate|queue)=[0-9.]{0,22}(%|ms|s|gbit|x)?") {
            let _ = text.parse::<ImpairSpec>();
            let _ = list.parse::<ImpairSpec>();
        }
    }
}
