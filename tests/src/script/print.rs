//! Packets as the text of a script: what is printed can be read back.

use std::fmt::Write as _;

use super::names::icmp_words;
use super::packet::{Field, Form, Kind, Layer, Value, generated, stream, stream_position};

/// Characters of data that a line shows at most.
const DATA_SHOWN: usize = 64;

/// All layers, the Ethernet header left out unless nothing that is known is behind it.
pub(super) fn packet(layers: &[Layer]) -> String {
    let is_known = layers.get(1).is_some_and(|layer| layer.kind != Kind::Data);
    let shown = layers.iter().filter(|layer| layer.kind != Kind::Ethernet || !is_known);
    let tcp = layers.iter().find(|layer| layer.kind == Kind::Tcp);
    let text = |shown: &Layer| match tcp {
        Some(tcp) if shown.kind == Kind::Data => segment_data(tcp, shown.bytes("bytes")),
        _ => layer(shown),
    };
    shown.map(text).filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Data of TCP: most likely a part of the stream.
fn segment_data(tcp: &Layer, bytes: &[u8]) -> String {
    let is_stream = bytes.len() > 1 && bytes == stream(stream_position(tcp), bytes.len());
    if is_stream { format!("data={}", bytes.len()) } else { data(bytes) }
}

/// One layer.
fn layer(layer: &Layer) -> String {
    let mut text = match layer.kind {
        Kind::Data => return data(layer.bytes("bytes")),
        Kind::Fragment => return fragment(layer),
        kind => kind.word().to_owned(),
    };
    // Fields that have been said by now.
    let mut said: Vec<&str> = Vec::new();
    match layer.kind {
        Kind::Arp => arp(layer, &mut text, &mut said),
        Kind::Icmpv4 | Kind::Icmpv6 => icmp(layer, &mut text, &mut said),
        Kind::Ipv4 | Kind::Ipv6 | Kind::Udp | Kind::Tcp => {
            if let (Some(from), Some(to)) = (layer.get("from"), layer.get("to")) {
                let _ = write!(text, " {} > {}", value(from), value(to));
                said.extend(["from", "to"]);
            }
        }
        _ => {}
    }
    if layer.kind == Kind::Tcp && !layer.text("flags").is_empty() {
        let _ = write!(text, " {}", layer.text("flags"));
        said.push("flags");
    }
    for (name, found) in layer.fields.iter().filter(|(name, _)| !said.contains(name)) {
        let field = layer.kind.field(name);
        let is_usual =
            matches!((found, field), (Value::Number(number), Some(field)) if field.usual == Some(*number));
        // A reader does not miss lengths and protocols that are as they must be.
        let is_dull = matches!(*name, "len" | "next" | "proto" | "checksum" | "flow") || is_usual;
        if let Some(field) = field.filter(|_| !is_dull) {
            text.push_str(&written(field, found));
        }
    }
    text
}

fn written(field: &Field, found: &Value) -> String {
    match (field.form, found) {
        (Form::Flag, Value::Number(0)) => format!(" !{}", field.name),
        (Form::Flag, _) => format!(" {}", field.name),
        (Form::Packet, Value::Packet(quoted)) => format!(" quoting({})", packet(quoted)),
        (_, Value::Text(options)) if options.is_empty() => String::new(),
        (_, Value::Text(options)) => format!(" <{options}>"),
        (_, Value::Bytes(bytes)) if bytes.is_empty() => String::new(),
        _ => format!(" {}={}", field.name, value(found)),
    }
}

/// A value as it is written behind `=`.
pub(super) fn value(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::Range(first, last) => format!("{first}..{last}"),
        Value::Mac(mac) => mac.0.map(|byte| format!("{byte:02x}")).join(":"),
        Value::Ip(ip) => ip.to_string(),
        Value::Bytes(bytes) => hex(bytes),
        Value::Text(text) => text.clone(),
        Value::Prefix(prefix, len) => format!("{prefix}/{len}"),
        Value::Packet(layers) => packet(layers),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Data in the shortest of its forms.
pub(super) fn data(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return String::new();
    }
    let is_readable = bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    if is_readable && bytes.len() <= DATA_SHOWN {
        return format!("\"{}\"", bytes.escape_ascii());
    }
    if bytes == generated(bytes.len()) {
        return format!("data={}", bytes.len());
    }
    if bytes.len() > 4 && bytes.iter().all(|byte| *byte == bytes[0]) {
        return format!("data={}*0x{:02x}", bytes.len(), bytes[0]);
    }
    format!("data={}", hex(bytes))
}

fn fragment(layer: &Layer) -> String {
    let number = |name| layer.number(name).map(|number| number.to_string()).unwrap_or_default();
    let mut parts = Vec::new();
    if layer.number("id").is_some() {
        parts.push(format!("id={}", number("id")));
    }
    if layer.number("start").is_some() {
        parts.push(format!("{}..{}", number("start"), number("end")));
    }
    if let Some(more) = layer.number("more") {
        parts.push(if more == 0 { "!more" } else { "more" }.to_owned());
    }
    format!("frag({})", parts.join(", "))
}

fn arp(layer: &Layer, text: &mut String, said: &mut Vec<&str>) {
    let word = |name| layer.get(name).map(value).unwrap_or_default();
    match (layer.number("op"), layer.get("target"), layer.get("sender"), layer.get("sender-mac")) {
        (Some(1), Some(_), Some(_), _) => {
            let _ = write!(text, " who-has {} tell {}", word("target"), word("sender"));
            said.extend(["op", "target", "sender"]);
        }
        (Some(2), _, Some(_), Some(_)) => {
            let _ = write!(text, " reply {} is-at {}", word("sender"), word("sender-mac"));
            said.extend(["op", "sender", "sender-mac"]);
        }
        _ => {}
    }
}

fn icmp(layer: &Layer, text: &mut String, said: &mut Vec<&str>) {
    let Some(kind) = layer.number("type") else {
        return;
    };
    let words = icmp_words(layer.kind == Kind::Icmpv6, kind, layer.number_or_usual("code"));
    if let Some(words) = words {
        let _ = write!(text, " {words}");
        said.extend(["type", "code"]);
        if let (Some(target), true) = (layer.get("target"), layer.kind == Kind::Icmpv6) {
            let _ = write!(text, " {}", value(target));
            said.push("target");
        }
    }
}
