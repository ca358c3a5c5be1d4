//! What a client wants, as it tells the server.

use serde_json::{Map, Value, json};

use super::udp;
use crate::perf::args::{DATAGRAM_BYTES_MAX, SIZE_BYTES_MAX};

/// What is to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Params {
    /// UDP instead of TCP.
    pub(super) udp: bool,
    /// Seconds at the beginning that do not count.
    pub(super) omit: u32,
    /// Seconds; 0: until `bytes` or `blocks`.
    pub(super) time: u32,
    /// Bytes, if not a time; 0: none.
    pub(super) bytes: u64,
    /// Writes, if not a time; 0: none.
    pub(super) blocks: u64,
    /// Streams, in each direction.
    pub(super) parallel: usize,
    /// The server sends.
    pub(super) reverse: bool,
    /// Both send.
    pub(super) bidirectional: bool,
    /// Bytes written at once, or of a datagram.
    pub(super) len: u32,
    /// Bits a second of each stream; 0: no limit.
    pub(super) bandwidth: u64,
    /// Small segments are sent at once.
    pub(super) nodelay: bool,
    /// Bytes of payload in a segment.
    pub(super) mss: Option<u32>,
    /// Bytes of the buffers.
    pub(super) window: Option<u32>,
    /// Congestion control.
    pub(super) congestion: Option<String>,
    /// Numbers of datagrams have 64 bits.
    pub(super) counters_64bit: bool,
}

impl Params {
    /// Streams that the server receives, and those that it sends.
    pub(super) fn directions(&self) -> (usize, usize) {
        match (self.bidirectional, self.reverse) {
            (true, _) => (self.parallel, self.parallel),
            (false, true) => (0, self.parallel),
            (false, false) => (self.parallel, 0),
        }
    }

    /// As sent.
    pub(super) fn to_json(&self) -> Value {
        let mut map = Map::new();
        let protocol = if self.udp { "udp" } else { "tcp" };
        map.insert(protocol.into(), true.into());
        map.insert("omit".into(), self.omit.into());
        map.insert("time".into(), self.time.into());
        map.insert("num".into(), self.bytes.into());
        map.insert("blockcount".into(), self.blocks.into());
        map.insert("parallel".into(), self.parallel.into());
        map.insert("len".into(), self.len.into());
        map.insert("pacing_timer".into(), json!(1000));
        map.insert("client_version".into(), "3.12".into());
        for (name, is_set) in
            [("reverse", self.reverse), ("bidirectional", self.bidirectional), ("nodelay", self.nodelay)]
        {
            if is_set {
                map.insert(name.into(), true.into());
            }
        }
        if self.bandwidth > 0 {
            map.insert("bandwidth".into(), self.bandwidth.into());
        }
        for (name, value) in [("MSS", self.mss), ("window", self.window)] {
            if let Some(value) = value {
                map.insert(name.into(), value.into());
            }
        }
        if let Some(congestion) = &self.congestion {
            map.insert("congestion".into(), congestion.clone().into());
        }
        if self.udp && self.counters_64bit {
            map.insert("udp_counters_64bit".into(), json!(1));
        }
        Value::Object(map)
    }

    /// Reads what a client wants.
    ///
    /// # Errors
    /// What is out of bounds, or not to be had here.
    pub(super) fn parse(json: &Value) -> Result<Self, String> {
        let number = |name: &str, max: u64| number(json, name, max);
        let flag = |name: &str| flag(json, name);
        let udp = flag("udp");
        if flag("sctp") || (!udp && !flag("tcp")) {
            return Err("neither TCP nor UDP is asked for".to_owned());
        }
        let counters_64bit = flag("udp_counters_64bit");
        let default_len = if udp { 1_460 } else { 128 << 10 };
        let len_max = if udp { DATAGRAM_BYTES_MAX } else { SIZE_BYTES_MAX };
        let len = match number("len", len_max.into())? {
            0 => default_len,
            len => len as u32,
        };
        if udp && (len as usize) < udp::header_len(counters_64bit) {
            return Err(format!("len is {len}, which is too short for a datagram's header"));
        }
        let params = Self {
            udp,
            omit: number("omit", TIME_MAX)? as u32,
            time: number("time", TIME_MAX)? as u32,
            bytes: number("num", u64::MAX)?,
            blocks: number("blockcount", u64::MAX)?,
            parallel: number("parallel", STREAMS_MAX)?.max(1) as usize,
            reverse: flag("reverse"),
            bidirectional: flag("bidirectional"),
            len,
            bandwidth: number("bandwidth", u64::MAX)?,
            nodelay: flag("nodelay"),
            mss: some(number("MSS", u64::from(u16::MAX))?),
            window: some(number("window", 1 << 30)?),
            congestion: text(json, "congestion"),
            counters_64bit,
        };
        Ok(params)
    }
}

fn some(number: u64) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| *number > 0)
}

/// A number, which iperf3 may have written as a float; 0 if it is not there.
pub(super) fn number(json: &Value, name: &str, max: u64) -> Result<u64, String> {
    let Some(value) = json.get(name) else { return Ok(0) };
    let whole = value.as_u64().or_else(|| {
        let float = value.as_f64()?;
        (0.0..=1e18).contains(&float).then_some(float as u64)
    });
    whole.filter(|number| *number <= max).ok_or_else(|| format!("{name} is {value}; 0 to {max} is accepted"))
}

/// A flag, which iperf3 writes as `true` or 1.
fn flag(json: &Value, name: &str) -> bool {
    json.get(name)
        .is_some_and(|value| value.as_bool() == Some(true) || value.as_f64().is_some_and(|n| n != 0.0))
}

/// A short text.
pub(super) fn text(json: &Value, name: &str) -> Option<String> {
    json.get(name)?
        .as_str()
        .filter(|text| !text.is_empty() && text.len() <= TEXT_BYTES_MAX)
        .map(str::to_owned)
}

/// A day.
const TIME_MAX: u64 = 86_400;
/// As iperf3 itself has it.
const STREAMS_MAX: u64 = 128;
const TEXT_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> Params {
        Params {
            udp: false,
            omit: 0,
            time: 10,
            bytes: 0,
            blocks: 0,
            parallel: 1,
            reverse: false,
            bidirectional: false,
            len: 131_072,
            bandwidth: 0,
            nodelay: false,
            mss: None,
            window: None,
            congestion: None,
            counters_64bit: false,
        }
    }

    #[test]
    fn what_is_said_is_understood() {
        let all = Params {
            udp: true,
            omit: 1,
            time: 0,
            bytes: 1 << 50,
            blocks: 3,
            parallel: 128,
            reverse: true,
            bidirectional: true,
            len: 1_200,
            bandwidth: 100_000_000_000,
            nodelay: true,
            mss: Some(1_400),
            window: Some(1 << 20),
            congestion: Some("bbr".to_owned()),
            counters_64bit: true,
        };
        for params in [params(), all] {
            assert_eq!(Params::parse(&params.to_json()), Ok(params));
        }
    }

    #[test]
    fn what_iperf3_writes_is_read() {
        let text = r#"{"tcp":true,"omit":0,"time":10,"num":0,"blockcount":0,"parallel":1,"len":131072,
            "pacing_timer":1000,"client_version":"3.12"}"#;
        assert_eq!(Params::parse(&serde_json::from_str(text).expect("JSON")), Ok(params()));
        let text = r#"{"udp":true,"time":2,"num":1e6,"parallel":2,"reverse":true,"len":1448,"bandwidth":1048576,
            "udp_counters_64bit":1,"unknown":[]}"#;
        let read = Params::parse(&serde_json::from_str(text).expect("JSON")).expect("sound");
        assert_eq!((read.bytes, read.parallel, read.directions()), (1_000_000, 2, (0, 2)));
        assert!(read.udp && read.counters_64bit && read.reverse);
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        let cases = [
            ("{}", "neither"),
            ("[]", "neither"),
            (r#"{"sctp":true,"tcp":true}"#, "neither"),
            (r#"{"tcp":true,"parallel":129}"#, "parallel is 129"),
            (r#"{"tcp":true,"time":-1}"#, "time is -1"),
            (r#"{"tcp":true,"len":"x"}"#, "len is"),
            (r#"{"tcp":true,"len":1e300}"#, "len is"),
            (r#"{"udp":true,"len":65508}"#, "len is 65508"),
            (r#"{"udp":true,"len":15,"udp_counters_64bit":1}"#, "too short"),
        ];
        for (text, expected) in cases {
            let error = Params::parse(&serde_json::from_str(text).expect("JSON")).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
