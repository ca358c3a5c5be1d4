//! TCP numbers relative to where a connection began, as scripts have them.

use std::collections::BTreeMap;

use super::packet::{Kind, Layer, Value};

/// The number of the peer's SYN in every connection; near the end, so that connections wrap.
const PEER_ISN: u32 = 0xffff_fc00;

/// The first numbers of connections, by the port of the peer and of the host.
#[derive(Debug, Default)]
pub(super) struct Sequences {
    host_isns: BTreeMap<(u64, u64), u32>,
}

impl Sequences {
    /// Makes the numbers of a packet of the peer absolute.
    pub(super) fn make_absolute(&self, layers: &mut [Layer]) {
        for layer in layers.iter_mut().filter(|layer| layer.kind == Kind::Tcp) {
            let host_isn = self.host_isn((layer.number_or_usual("from"), layer.number_or_usual("to")));
            set(layer, "seq", |seq| seq.wrapping_add(PEER_ISN));
            if layer.text("flags").contains('A') {
                set(layer, "ack", |ack| ack.wrapping_add(host_isn));
            }
        }
    }

    /// Makes the numbers of a packet of the peer relative again, for the trace.
    pub(super) fn relate_peer(&self, layers: &mut [Layer]) {
        for layer in layers.iter_mut().filter(|layer| layer.kind == Kind::Tcp) {
            let host_isn = self.host_isn((layer.number_or_usual("from"), layer.number_or_usual("to")));
            set(layer, "seq", |seq| seq.wrapping_sub(PEER_ISN));
            if layer.text("flags").contains('A') {
                set(layer, "ack", |ack| ack.wrapping_sub(host_isn));
            }
        }
    }

    /// Makes the numbers of a packet of the host relative, and learns from its SYN.
    pub(super) fn relate_host(&mut self, layers: &mut [Layer]) {
        for layer in layers.iter_mut().filter(|layer| layer.kind == Kind::Tcp) {
            let ports = (layer.number_or_usual("to"), layer.number_or_usual("from"));
            if layer.text("flags").contains('S') {
                self.host_isns.insert(ports, layer.number_or_usual("seq") as u32);
            }
            let host_isn = self.host_isn(ports);
            set(layer, "seq", |seq| seq.wrapping_sub(host_isn));
            if layer.text("flags").contains('A') {
                set(layer, "ack", |ack| ack.wrapping_sub(PEER_ISN));
            }
        }
    }

    /// Before the host has sent a SYN its numbers are as they are on the wire.
    fn host_isn(&self, ports: (u64, u64)) -> u32 {
        self.host_isns.get(&ports).copied().unwrap_or(0)
    }
}

fn set(layer: &mut Layer, name: &'static str, change: impl Fn(u32) -> u32) {
    let value = Value::Number(change(layer.number_or_usual(name) as u32).into());
    match layer.fields.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = value,
        None => layer.fields.push((name, value)),
    }
}
