//! What came of a test, as one end tells the other.

use serde_json::{Value, json};

use super::params::{number, text};

/// What one end has counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Results {
    /// CPU time of its process in percent of the time: all, in its own code, in the kernel.
    pub(super) cpu_percent: [f64; 3],
    /// Whether it counts what it sends again; `None`: it does not send, or cannot tell.
    pub(super) has_retransmits: Option<bool>,
    /// Congestion control.
    pub(super) congestion: Option<String>,
    /// Of the streams.
    pub(super) streams: Vec<StreamResult>,
}

/// What one end has counted of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct StreamResult {
    /// 1, 3, 4, 5 and so on, in the order in which they were opened.
    pub(super) id: u32,
    /// Sent or received.
    pub(super) bytes: u64,
    /// Segments sent again; `None`: it cannot tell.
    pub(super) retransmits: Option<u64>,
    /// Of datagrams, in seconds.
    pub(super) jitter: f64,
    /// Datagrams that were lost.
    pub(super) errors: u64,
    /// Those of them that do not count.
    pub(super) omitted_errors: u64,
    /// Datagrams sent, or the highest number that came.
    pub(super) packets: u64,
    /// Those of them that do not count.
    pub(super) omitted_packets: u64,
    /// Seconds.
    pub(super) end_time: f64,
}

impl Results {
    /// As sent.
    pub(super) fn to_json(&self) -> Value {
        let [total, user, system] = self.cpu_percent;
        let streams: Vec<_> = self.streams.iter().map(|stream| stream.to_json()).collect();
        let mut json = json!({
            "cpu_util_total": total,
            "cpu_util_user": user,
            "cpu_util_system": system,
            "sender_has_retransmits": self.has_retransmits.map_or(-1, i64::from),
            "streams": streams,
        });
        if let (Some(congestion), Some(map)) = (&self.congestion, json.as_object_mut()) {
            map.insert("congestion_used".into(), congestion.clone().into());
        }
        json
    }

    /// Reads what the other end tells.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(json: &Value) -> Result<Self, String> {
        let float = |name: &str| float(json, name);
        let streams = json.get("streams").and_then(Value::as_array).ok_or("there are no streams")?;
        if streams.len() > RESULTS_MAX {
            return Err(format!("there are {} streams", streams.len()));
        }
        Ok(Self {
            cpu_percent: [float("cpu_util_total"), float("cpu_util_user"), float("cpu_util_system")],
            has_retransmits: match json.get("sender_has_retransmits").and_then(Value::as_f64) {
                Some(number) if number >= 0.0 => Some(number > 0.0),
                _ => None,
            },
            congestion: text(json, "congestion_used"),
            streams: streams.iter().map(StreamResult::parse).collect::<Result<_, _>>()?,
        })
    }

    /// Of one stream.
    pub(super) fn stream(&self, id: u32) -> Option<&StreamResult> {
        self.streams.iter().find(|stream| stream.id == id)
    }
}

impl StreamResult {
    fn to_json(self) -> Value {
        json!({
            "id": self.id,
            "bytes": self.bytes,
            "retransmits": self.retransmits.map_or(-1, u64::cast_signed),
            "jitter": self.jitter,
            "errors": self.errors,
            "omitted_errors": self.omitted_errors,
            "packets": self.packets,
            "omitted_packets": self.omitted_packets,
            "start_time": 0,
            "end_time": self.end_time,
        })
    }

    fn parse(json: &Value) -> Result<Self, String> {
        let count = |name: &str| number(json, name, u64::MAX);
        // What could not be counted is below zero.
        let retransmits = json.get("retransmits").and_then(Value::as_f64).filter(|number| *number >= 0.0);
        Ok(Self {
            id: number(json, "id", u64::from(u32::MAX))? as u32,
            bytes: count("bytes")?,
            retransmits: retransmits.map(|number| number as u64),
            jitter: float(json, "jitter"),
            // Duplicates may make it negative in some versions.
            errors: count("errors").unwrap_or(0),
            omitted_errors: count("omitted_errors").unwrap_or(0),
            packets: count("packets")?,
            omitted_packets: count("omitted_packets").unwrap_or(0),
            end_time: float(json, "end_time"),
        })
    }
}

/// A sound number of zero or more; otherwise 0.
fn float(json: &Value, name: &str) -> f64 {
    json.get(name).and_then(Value::as_f64).filter(|number| (0.0..1e18).contains(number)).unwrap_or(0.0)
}

/// 128 streams in each direction.
const RESULTS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let stream = StreamResult {
            id: 3,
            bytes: 1 << 45,
            retransmits: Some(5),
            jitter: 0.000_25,
            errors: 7,
            omitted_errors: 1,
            packets: 1_000,
            omitted_packets: 10,
            end_time: 10.5,
        };
        let none = StreamResult { id: 1, ..StreamResult::default() };
        let results = Results {
            cpu_percent: [12.5, 2.5, 10.0],
            has_retransmits: Some(true),
            congestion: Some("cubic".to_owned()),
            streams: vec![none, stream],
        };
        assert_eq!(Results::parse(&results.to_json()), Ok(results.clone()));
        assert_eq!(results.stream(3), Some(&stream));
        assert_eq!(results.stream(2), None);
    }

    #[test]
    fn what_iperf3_writes_is_read() {
        let text = r#"{"cpu_util_total":3.3,"cpu_util_user":0.2,"cpu_util_system":3.1,"sender_has_retransmits":-1,
            "congestion_used":"cubic","streams":[{"id":1,"bytes":2.5e9,"retransmits":-1,"jitter":0,"errors":0,
            "packets":0,"start_time":0,"end_time":1.000198}]}"#;
        let results = Results::parse(&serde_json::from_str(text).expect("JSON")).expect("sound");
        assert_eq!(results.has_retransmits, None);
        let stream = results.stream(1).expect("it is there");
        assert_eq!((stream.bytes, stream.retransmits), (2_500_000_000, None));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in
            ["{}", "3", r#"{"streams":3}"#, r#"{"streams":[{"id":-1}]}"#, r#"{"streams":[{"bytes":"x"}]}"#]
        {
            assert!(Results::parse(&serde_json::from_str(text).expect("JSON")).is_err(), "{text}");
        }
        let many = json!({"streams": vec![json!({"id": 1}); 257]});
        assert!(Results::parse(&many).is_err());
    }
}
