//! Lines for people as iperf3 has them, and the JSON that it would print.

use std::net::SocketAddr;
use std::rc::Rc;

use serde_json::{Map, Value, json};
use smoltcp::time::Instant;

use super::flow::{Figures, Flow, Test};
use super::results::{Results, StreamResult};
use crate::perf::client::seconds;
use crate::perf::figures::{amount, per_second, rate};
use crate::perf::stream::INTERVALS_MAX;
use crate::serve::say;
use crate::sockets::Sockets;

/// Tells how a test goes.
pub(super) struct Meter<S: Sockets> {
    test: Test<S>,
    json: bool,
    begin: Instant,
    last_time: Instant,
    last: Vec<Figures>,
    intervals: Vec<Value>,
}

impl<S: Sockets> Meter<S> {
    /// A test begins.
    pub(super) fn new(test: &Test<S>, begin: Instant, json: bool) -> Self {
        for flow in test.flows() {
            let remote = SocketAddr::new(flow.remote.ip().to_canonical(), flow.remote.port());
            say(&format!("[{:3}] local {} connected to {remote}", flow.id, flow.local), json);
        }
        let last = vec![Figures::default(); test.flows().len()];
        Self { test: test.clone(), json, begin, last_time: begin, last, intervals: Vec::new() }
    }

    /// The beginning that does not count is over.
    pub(super) fn restart(&mut self, now: Instant) {
        self.begin = now;
        self.last_time = now;
        self.last.fill(Figures::default());
    }

    /// Seconds that count.
    pub(super) fn seconds(&self, now: Instant) -> f64 {
        seconds(now - self.begin)
    }

    /// An interval is over.
    pub(super) fn interval(&mut self, now: Instant, is_omitted: bool) {
        let (start, end) = (seconds(self.last_time - self.begin), seconds(now - self.begin));
        self.last_time = now;
        let flows = self.test.flows();
        let mut streams = Vec::new();
        let mut sums = [None::<Figures>; 2];
        let mut counts = [0; 2];
        for (flow, last) in flows.iter().zip(&mut self.last) {
            let figures = self.test.figures(flow);
            let new = figures.since(last);
            *last = figures;
            let line = Line { flow_id: Some(flow.id), is_sender: flow.is_sender, start, end, figures: new };
            say(&line.text(self.test.params.udp, is_omitted), self.json);
            streams.push(line.json(self.test.params.udp, is_omitted));
            let side = usize::from(flow.is_sender);
            counts[side] += 1;
            sums[side] = Some(sum(sums[side].unwrap_or_default(), new));
        }
        let mut interval = Map::new();
        interval.insert("streams".into(), streams.into());
        let mut name = "sum";
        for (side, sum) in sums.iter().enumerate().rev() {
            let Some(figures) = *sum else { continue };
            let line = Line { flow_id: None, is_sender: side == 1, start, end, figures };
            if counts[side] > 1 {
                say(&line.text(self.test.params.udp, is_omitted), self.json);
            }
            interval.insert(name.into(), line.json(self.test.params.udp, is_omitted));
            name = "sum_bidir_reverse";
        }
        if self.intervals.len() < INTERVALS_MAX {
            self.intervals.push(Value::Object(interval));
        }
    }

    /// What came of it, by what both ends have counted. Returns what scripts want to know.
    pub(super) fn finish(self, ours: &Results, theirs: &Results) -> Map<String, Value> {
        let udp = self.test.params.udp;
        let flows = self.test.flows();
        let mut end = End { streams: Vec::new(), sides: [Side::default(), Side::default()] };
        for flow in &flows {
            let empty = StreamResult { id: flow.id, ..StreamResult::default() };
            let mine = *ours.stream(flow.id).unwrap_or(&empty);
            let other = *theirs.stream(flow.id).unwrap_or(&empty);
            let (sent, arrived) = if flow.is_sender { (mine, other) } else { (other, mine) };
            let out_of_order = self.test.figures(flow).out_of_order;
            let one = Side {
                sent: as_figures(&sent, 0),
                arrived: as_figures(&arrived, out_of_order),
                sent_seconds: sent.end_time,
                arrived_seconds: arrived.end_time,
                streams: 1,
            };
            for line in one.lines(Some(flow.id), flow.is_sender, udp) {
                say(&line, self.json);
            }
            end.streams.push(one.json(flow, udp));
            end.sides[usize::from(flow.is_sender)].add(&one);
        }
        for (side, sum) in end.sides.iter().enumerate().rev() {
            if sum.streams > 1 {
                for line in sum.lines(None, side == 1, udp) {
                    say(&line, self.json);
                }
            }
        }
        self.into_json(&end, ours, theirs, &flows)
    }

    fn into_json(
        self,
        end: &End,
        ours: &Results,
        theirs: &Results,
        flows: &[Rc<Flow<S>>],
    ) -> Map<String, Value> {
        let params = &self.test.params;
        let connected = flows.iter().map(|flow| {
            json!({"socket": flow.id, "local_host": flow.local.ip().to_string(), "local_port": flow.local.port(),
                "remote_host": flow.remote.ip().to_canonical().to_string(), "remote_port": flow.remote.port()})
        });
        let start = json!({
            "connected": connected.collect::<Vec<_>>(),
            "version": concat!("wirestack ", env!("CARGO_PKG_VERSION")),
            "test_start": {
                "protocol": if params.udp { "UDP" } else { "TCP" },
                "num_streams": params.parallel,
                "blksize": params.len,
                "omit": params.omit,
                "duration": params.time,
                "bytes": params.bytes,
                "blocks": params.blocks,
                "reverse": u8::from(params.reverse),
                "bidir": u8::from(params.bidirectional),
                "target_bitrate": params.bandwidth,
            },
        });
        let mut totals = Map::new();
        totals.insert("streams".into(), end.streams.clone().into());
        let mut suffix = "";
        let mut bits = 0.0;
        for (side, sum) in end.sides.iter().enumerate().rev().filter(|(_, sum)| sum.streams > 0) {
            let is_sender = side == 1;
            totals.insert(format!("sum_sent{suffix}"), sum.half(true, is_sender, params.udp));
            totals.insert(format!("sum_received{suffix}"), sum.half(false, is_sender, params.udp));
            if params.udp {
                totals.insert(format!("sum{suffix}"), sum.half(false, is_sender, true));
            }
            bits += per_second(sum.arrived.bytes, sum.arrived_seconds) * 8.0;
            suffix = "_bidir_reverse";
        }
        let [host_total, host_user, host_system] = ours.cpu_percent;
        let [remote_total, remote_user, remote_system] = theirs.cpu_percent;
        let cpu = json!({"host_total": host_total, "host_user": host_user, "host_system": host_system,
            "remote_total": remote_total, "remote_user": remote_user, "remote_system": remote_system});
        totals.insert("cpu_utilization_percent".into(), cpu);
        let mut all = Map::new();
        all.insert("start".into(), start);
        all.insert("intervals".into(), self.intervals.into());
        all.insert("end".into(), Value::Object(totals));
        all.insert("backend".into(), self.test.sockets.name().into());
        all.insert("bits_per_second".into(), bits.into());
        all.insert("cpu_seconds".into(), self.test.cpu().total().into());
        all
    }
}

/// What came of all streams.
struct End {
    streams: Vec<Value>,
    /// Of those that we receive, and those that we send.
    sides: [Side; 2],
}

/// A stream, or several of a direction, at both ends.
#[derive(Debug, Clone, Copy, Default)]
struct Side {
    sent: Figures,
    arrived: Figures,
    sent_seconds: f64,
    arrived_seconds: f64,
    streams: u32,
}

impl Side {
    fn add(&mut self, other: &Self) {
        // The jitter of several is their mean.
        let jitter = (self.arrived.jitter * f64::from(self.streams) + other.arrived.jitter)
            / f64::from(self.streams + 1);
        self.sent = sum(self.sent, other.sent);
        self.arrived = sum(self.arrived, other.arrived);
        self.arrived.jitter = jitter;
        self.sent_seconds = self.sent_seconds.max(other.sent_seconds);
        self.arrived_seconds = self.arrived_seconds.max(other.arrived_seconds);
        self.streams += other.streams;
    }

    fn line(&self, is_sent: bool, id: Option<u32>, is_sender: bool) -> Line {
        let (figures, end) =
            if is_sent { (self.sent, self.sent_seconds) } else { (self.arrived, self.arrived_seconds) };
        Line { flow_id: id, is_sender: is_sender && is_sent, start: 0.0, end, figures }
    }

    fn lines(&self, id: Option<u32>, is_sender: bool, udp: bool) -> [String; 2] {
        [("sender", true), ("receiver", false)].map(|(name, is_sent)| {
            let mut line = self.line(is_sent, id, is_sender);
            // Both lines show what was sent again, or what came, whoever has counted it.
            line.is_sender = is_sent;
            format!("{}  {name}", line.text(udp, false))
        })
    }

    fn half(&self, is_sent: bool, is_sender: bool, udp: bool) -> Value {
        let mut line = self.line(is_sent, None, is_sender);
        line.is_sender = is_sent;
        let mut value = line.json(udp, false);
        value["sender"] = is_sender.into();
        value
    }

    fn json<S: Sockets>(&self, flow: &Flow<S>, udp: bool) -> Value {
        let half = |is_sent| {
            let mut value = self.half(is_sent, flow.is_sender, udp);
            value["socket"] = flow.id.into();
            value
        };
        if udp {
            let mut both = half(false);
            both["out_of_order"] = self.arrived.out_of_order.into();
            // The bytes are those that were sent, as iperf3 has it.
            both["bytes"] = self.sent.bytes.into();
            both["bits_per_second"] = (per_second(self.sent.bytes, self.sent_seconds) * 8.0).into();
            json!({"udp": both})
        } else {
            json!({"sender": half(true), "receiver": half(false)})
        }
    }
}

/// Some bytes in some time.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// `None`: the sum of several.
    flow_id: Option<u32>,
    is_sender: bool,
    start: f64,
    end: f64,
    figures: Figures,
}

impl Line {
    fn text(&self, udp: bool, is_omitted: bool) -> String {
        let Self { start, end, figures, .. } = *self;
        let id = self.flow_id.map_or("SUM".to_owned(), |id| format!("{id:3}"));
        let rate = rate(figures.bytes, end - start);
        let mut text =
            format!("[{id}] {start:6.2}-{end:<6.2} sec  {:>13}  {rate:>16}", amount(figures.bytes));
        if udp && self.is_sender {
            text += &format!("  {}", figures.packets);
        } else if udp {
            let (lost, packets) = (figures.lost, figures.packets);
            text +=
                &format!("  {:.3} ms  {lost}/{packets} ({:.2}%)", figures.jitter * 1e3, self.lost_percent());
        } else if self.is_sender {
            if let Some(retransmits) = figures.retransmits {
                text += &format!("  {retransmits:4}");
            }
            if let Some(info) = figures.info {
                text += &format!("  {:>13}  {} us", amount(info.cwnd_bytes), info.srtt_us);
            }
        }
        if is_omitted { text + "  (omitted)" } else { text }
    }

    fn lost_percent(&self) -> f64 {
        let Figures { lost, packets, .. } = self.figures;
        if packets > 0 { lost as f64 / packets as f64 * 100.0 } else { 0.0 }
    }

    fn json(&self, udp: bool, is_omitted: bool) -> Value {
        let Self { start, end, figures, .. } = *self;
        let mut value = json!({
            "start": start,
            "end": end,
            "seconds": end - start,
            "bytes": figures.bytes,
            "bits_per_second": per_second(figures.bytes, end - start) * 8.0,
            "omitted": is_omitted,
            "sender": self.is_sender,
        });
        if let Some(id) = self.flow_id {
            value["socket"] = id.into();
        }
        if udp {
            value["packets"] = figures.packets.into();
        }
        if udp && !self.is_sender {
            value["jitter_ms"] = (figures.jitter * 1e3).into();
            value["lost_packets"] = figures.lost.into();
            value["lost_percent"] = self.lost_percent().into();
        }
        if let Some(retransmits) = figures.retransmits.filter(|_| self.is_sender) {
            value["retransmits"] = retransmits.into();
        }
        if let Some(info) = figures.info {
            value["snd_cwnd"] = info.cwnd_bytes.into();
            value["rtt"] = info.srtt_us.into();
            value["rttvar"] = info.rttvar_us.into();
            value["pmtu"] = info.pmtu_bytes.into();
        }
        value
    }
}

/// Of two streams. How their connections do is no sum.
fn sum(one: Figures, other: Figures) -> Figures {
    Figures {
        bytes: one.bytes.saturating_add(other.bytes),
        packets: one.packets.saturating_add(other.packets),
        lost: one.lost.saturating_add(other.lost),
        out_of_order: one.out_of_order.saturating_add(other.out_of_order),
        jitter: one.jitter.max(other.jitter),
        retransmits: match (one.retransmits, other.retransmits) {
            (None, None) => None,
            (one, other) => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
        },
        info: None,
    }
}

fn as_figures(result: &StreamResult, out_of_order: u64) -> Figures {
    Figures {
        bytes: result.bytes,
        packets: result.packets.saturating_sub(result.omitted_packets),
        lost: result.errors.saturating_sub(result.omitted_errors),
        out_of_order,
        jitter: result.jitter,
        retransmits: result.retransmits,
        info: None,
    }
}
