//! TCP numbers relative to where a connection began, as scripts have them.

use std::collections::BTreeMap;

use smoltcp::time::Instant;

use super::packet::{Kind, Layer, Value};
use super::tcp_options;

/// The number of the peer's SYN in every connection; near the end, so that connections wrap.
const PEER_ISN: u32 = 0xffff_fc00;

/// The peer's timestamp at the begin of a script; one more each millisecond.
const PEER_TIMESTAMP: u32 = 1_000;

/// What is known of a connection, by the port of the peer and of the host.
#[derive(Debug, Default)]
pub(super) struct Sequences {
    connections: BTreeMap<(u64, u64), Connection>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Connection {
    /// The number of the host's SYN. Before it has sent one its numbers are as they are on the wire.
    host_isn: u32,
    /// Its timestamp then.
    host_timestamp: Option<u32>,
    /// The newest one.
    host_timestamp_last: u32,
    /// The peer has sent timestamps with its SYN.
    peer_has_timestamps: bool,
}

impl Connection {
    /// The peer's segments have timestamps, unless a script says otherwise.
    fn has_timestamps(&self) -> bool {
        self.peer_has_timestamps && self.host_timestamp.is_some()
    }
}

impl Sequences {
    /// Makes the numbers of a packet of the peer absolute, and gives it the timestamps that a script leaves out.
    pub(super) fn make_absolute(&mut self, layers: &mut [Layer], now: Instant) {
        for layer in layers.iter_mut() {
            self.shift_quoted(layer, u32::wrapping_add);
            if layer.kind == Kind::Tcp {
                self.make_segment_absolute(layer, now);
            }
        }
    }

    /// What an error quotes was sent by the host.
    fn shift_quoted(&self, layer: &mut Layer, shift: fn(u32, u32) -> u32) {
        let Some((_, Value::Packet(quoted))) = layer.fields.iter_mut().find(|(name, _)| *name == "quoting")
        else {
            return;
        };
        for layer in quoted.iter_mut().filter(|layer| layer.kind == Kind::Tcp) {
            let ports = (layer.number_or_usual("to"), layer.number_or_usual("from"));
            let host_isn = self.connection(ports).host_isn;
            set(layer, "seq", |seq| shift(seq, host_isn));
            set(layer, "ack", |ack| shift(ack, PEER_ISN));
        }
    }

    fn make_segment_absolute(&mut self, layer: &mut Layer, now: Instant) {
        let ports = (layer.number_or_usual("from"), layer.number_or_usual("to"));
        let connection = self.connection(ports);
        let host_isn = connection.host_isn;
        set(layer, "seq", |seq| seq.wrapping_add(PEER_ISN));
        if layer.text("flags").contains('A') {
            set(layer, "ack", |ack| ack.wrapping_add(host_isn));
        }
        let mut options = layer.text("options").to_owned();
        if layer.text("flags").contains('S') {
            let peer_has_timestamps = tcp_options::has_timestamps(&options);
            self.connections.entry(ports).or_default().peer_has_timestamps = peer_has_timestamps;
        } else if connection.has_timestamps() && !tcp_options::speaks_of_timestamps(&options) {
            options =
                if options.is_empty() { "TS any any".to_owned() } else { format!("{options},TS any any") };
        }
        let clock = PEER_TIMESTAMP.wrapping_add(now.total_millis() as u32);
        let base = connection.host_timestamp.unwrap_or(0);
        let timestamp = |word: &str, at: usize| match (word.parse::<u32>(), at) {
            (Ok(number), 0) => number.to_string(),
            (Ok(number), _) => number.wrapping_add(base).to_string(),
            (Err(_), 0) => clock.to_string(),
            (Err(_), _) => connection.host_timestamp_last.to_string(),
        };
        let options = tcp_options::changed(&options, |edge| edge.wrapping_add(host_isn), timestamp);
        set_options(layer, options);
    }

    /// Makes the numbers of a packet of the peer relative again, for the trace.
    pub(super) fn relate_peer(&self, layers: &mut [Layer]) {
        for layer in layers.iter_mut() {
            self.shift_quoted(layer, u32::wrapping_sub);
            if layer.kind != Kind::Tcp {
                continue;
            }
            let connection = self.connection((layer.number_or_usual("from"), layer.number_or_usual("to")));
            let host_isn = connection.host_isn;
            set(layer, "seq", |seq| seq.wrapping_sub(PEER_ISN));
            if layer.text("flags").contains('A') {
                set(layer, "ack", |ack| ack.wrapping_sub(host_isn));
            }
            let base = connection.host_timestamp.unwrap_or(0);
            let options = tcp_options::changed(
                layer.text("options"),
                |edge| edge.wrapping_sub(host_isn),
                |word, at| relative(word, if at == 1 { base } else { 0 }),
            );
            set_options(layer, options);
        }
    }

    /// Makes the numbers of a packet of the host relative, and learns from its SYN.
    pub(super) fn relate_host(&mut self, layers: &mut [Layer]) {
        for layer in layers.iter_mut().filter(|layer| layer.kind == Kind::Tcp) {
            let ports = (layer.number_or_usual("to"), layer.number_or_usual("from"));
            let options = layer.text("options").to_owned();
            let timestamp = tcp_options::timestamps(&options).and_then(|(val, _)| val.parse::<u32>().ok());
            if layer.text("flags").contains('S') {
                let connection = self.connections.entry(ports).or_default();
                let seq = layer.number_or_usual("seq") as u32;
                if connection.host_isn != seq || connection.host_timestamp.is_none() {
                    connection.host_isn = seq;
                    connection.host_timestamp = timestamp;
                }
            }
            if let (Some(timestamp), Some(connection)) = (timestamp, self.connections.get_mut(&ports)) {
                connection.host_timestamp_last = timestamp;
            }
            let connection = self.connection(ports);
            let host_isn = connection.host_isn;
            set(layer, "seq", |seq| seq.wrapping_sub(host_isn));
            if layer.text("flags").contains('A') {
                set(layer, "ack", |ack| ack.wrapping_sub(PEER_ISN));
            }
            let base = connection.host_timestamp.unwrap_or(0);
            let options = tcp_options::changed(
                &options,
                |edge| edge.wrapping_sub(PEER_ISN),
                |word, at| relative(word, if at == 0 { base } else { 0 }),
            );
            set_options(layer, options);
        }
    }

    fn connection(&self, ports: (u64, u64)) -> Connection {
        self.connections.get(&ports).copied().unwrap_or_default()
    }
}

/// A timestamp behind another.
fn relative(word: &str, base: u32) -> String {
    word.parse::<u32>().map_or(word.to_owned(), |number| number.wrapping_sub(base).to_string())
}

fn set_options(layer: &mut Layer, options: String) {
    match layer.fields.iter_mut().find(|(known, _)| *known == "options") {
        Some((_, known)) => *known = Value::Text(options),
        None if options.is_empty() => {}
        None => layer.fields.push(("options", Value::Text(options))),
    }
}

fn set(layer: &mut Layer, name: &'static str, change: impl Fn(u32) -> u32) {
    let value = Value::Number(change(layer.number_or_usual(name) as u32).into());
    match layer.fields.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = value,
        None => layer.fields.push((name, value)),
    }
}
