//! What a person can write behind `wirestack ping`.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use clap::Args;

use crate::cli::{HostArgs, parse_gateway, parse_seconds, whole};

/// Flags of `ping`.
#[derive(Debug, Args)]
pub struct PingArgs {
    /// Address or name; names are looked up in /etc/hosts and by the servers of --dns, of a lease or a
    /// router, or of /etc/resolv.conf
    #[arg(value_name = "HOST")]
    pub destination: String,
    /// End after so many requests [default: at Ctrl-C]
    #[arg(short = 'c', value_name = "N", value_parser = whole::<u64>(1..=u64::from(u32::MAX)))]
    pub count: Option<u64>,
    /// Seconds between requests; 0: the next one as soon as the last one is answered [default: 1]
    #[arg(short = 'i', value_name = "S", value_parser = parse_interval)]
    pub interval: Option<f64>,
    /// Bytes of data in a request
    #[arg(short = 's', value_name = "BYTES", default_value_t = 56, value_parser = whole::<usize>(0..=SIZE_MAX))]
    pub size: usize,
    /// How long the last answer is waited for [default: twice the longest time until now, or 10 s]
    #[arg(short = 'W', value_name = "S", value_parser = parse_seconds)]
    pub timeout: Option<f64>,
    /// End after so many seconds; with -c, go on until N answers have come
    #[arg(short = 'w', value_name = "S", value_parser = parse_seconds)]
    pub deadline: Option<f64>,
    /// TTL or hop limit of requests
    #[arg(short = 't', value_name = "HOPS", value_parser = whole::<u8>(1..=255))]
    pub ttl: Option<u8>,
    /// Flood: the next request with the last answer, and a hundred a second at least; prints a dot for each
    /// request and takes it back with the answer
    #[arg(short = 'f', conflicts_with = "interval")]
    pub flood: bool,
    /// Print the time before each line, in seconds since 1970
    #[arg(short = 'D')]
    pub timestamps: bool,
    /// Whether a request that is too long for the path fails (do), or goes in fragments (want, dont)
    #[arg(short = 'M', value_name = "HOW", value_parser = ["do", "want", "dont"])]
    pub discovery: Option<String>,
    /// DSCP and ECN of requests, as in 0xb8
    #[arg(short = 'Q', value_name = "TOS", default_value = "0", value_parser = parse_tos)]
    pub traffic_class: u8,
    /// One size after the other instead of -s, once if -c does not say otherwise: MIN:MAX or MIN:MAX:STEP
    #[arg(long, value_name = "MIN:MAX:STEP", conflicts_with = "size")]
    pub sweep: Option<Sweep>,
    /// Print the statistics only
    #[arg(short = 'q')]
    pub quiet: bool,
    /// Print addresses only, no names
    #[arg(short = 'n')]
    pub numeric: bool,
    /// IPv4 only
    #[arg(short = '4', conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// IPv6 only
    #[arg(short = '6')]
    pub ipv6: bool,
    /// Name server; repeatable
    #[arg(long = "dns", value_name = "ADDR", value_parser = parse_gateway)]
    pub dns: Vec<IpAddr>,
    /// Spin instead of sleeping: a core for the shortest times
    #[arg(long)]
    pub busy_poll: bool,
    /// Where and who.
    #[command(flatten)]
    pub host: HostArgs,
}

impl PingArgs {
    /// Whether a request that is too long fails.
    pub(super) fn forbids_fragments(&self) -> bool {
        self.discovery.as_deref() == Some("do")
    }

    /// Requests to be sent, if that is bounded.
    pub(super) fn requests_max(&self) -> Option<u64> {
        self.count.or(self.sweep.as_ref().map(|sweep| sweep.len() as u64))
    }

    /// Bytes of data in the request of this number, from 0.
    pub(super) fn size_of(&self, number: u64) -> usize {
        self.sweep.as_ref().map_or(self.size, |sweep| sweep.size_of(number))
    }

    /// Bytes of data in the longest request.
    pub(super) fn size_max(&self) -> usize {
        self.sweep.as_ref().map_or(self.size, |sweep| *sweep.sizes.end())
    }
}

/// A value of `--sweep`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    sizes: RangeInclusive<usize>,
    step: usize,
}

impl Sweep {
    fn len(&self) -> usize {
        (self.sizes.end() - self.sizes.start()) / self.step + 1
    }

    fn size_of(&self, number: u64) -> usize {
        let position = (number % self.len() as u64) as usize;
        self.sizes.start() + position * self.step
    }
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let accepted =
            || format!("MIN:MAX or MIN:MAX:STEP within 0 to {SIZE_MAX} is accepted, as in 0:3000:100");
        let numbers: Result<Vec<usize>, _> = text.split(':').map(str::parse).collect();
        let (min, max, step) = match numbers.as_deref() {
            Ok(&[min, max]) => (min, max, 1),
            Ok(&[min, max, step]) => (min, max, step),
            _ => return Err(accepted()),
        };
        let is_good = min <= max && max as u64 <= SIZE_MAX && step > 0;
        if is_good { Ok(Self { sizes: min..=max, step }) } else { Err(accepted()) }
    }
}

fn parse_interval(text: &str) -> Result<f64, &'static str> {
    let seconds: f64 = text.parse().unwrap_or(-1.0);
    if (0.0..=86_400.0).contains(&seconds) { Ok(seconds) } else { Err("0 to 86400 is accepted, as in 0.2") }
}

fn parse_tos(text: &str) -> Result<u8, &'static str> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "0 to 255 is accepted, as in 0xb8")
}

/// Data behind the header of ICMPv6, in the longest packet without extension headers.
const SIZE_MAX: u64 = 65_527;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_are_read_and_begin_again() {
        let sweep: Sweep = "10:35:10".parse().expect("good");
        let sizes: Vec<_> = (0..4).map(|number| sweep.size_of(number)).collect();
        assert_eq!((sweep.len(), sizes), (3, vec![10, 20, 30, 10]));
        assert_eq!("0:3".parse::<Sweep>().expect("good").len(), 4);
        for wrong in ["", "5", "5:4", "0:10:0", "0:65528", "1:2:3:4", "a:b", "-1:5"] {
            let error = wrong.parse::<Sweep>().expect_err(wrong);
            assert!(error.contains("MIN:MAX:STEP"), "{error}");
        }
    }

    #[test]
    fn numbers_are_bounded() {
        assert_eq!(["0", "0xb8", "255"].map(|text| parse_tos(text).ok()), [Some(0), Some(0xb8), Some(255)]);
        assert!(["256", "0x100", "", "x"].iter().all(|text| parse_tos(text).is_err()));
        assert_eq!(parse_interval("0").ok(), Some(0.0));
        assert!(["-1", "NaN", "inf", "x"].iter().all(|text| parse_interval(text).is_err()));
    }
}
