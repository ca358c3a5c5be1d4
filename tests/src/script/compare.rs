//! What is expected against what came: only what is written is compared.

use super::packet::{Kind, Layer, Value};
use super::print;
use super::tcp_options;

/// What differs, one line each, RFC words first. Empty: it is what was expected.
pub(super) fn differences(wanted: &[Layer], came: &[Layer]) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = came;
    // The data is written as a whole; its first fragment has the begin of it.
    let is_cut = wanted.iter().any(|layer| layer.kind == Kind::Fragment && layer.number("end").is_some());
    for layer in wanted {
        // Ethernet headers and data may be left out of what is written, other headers not.
        while let Some((first, behind)) = rest.split_first().filter(|(first, _)| may_skip(first, layer)) {
            let _ = first;
            rest = behind;
        }
        if layer.kind == Kind::Data && layer.is_set("any") {
            rest = rest
                .split_first()
                .filter(|(first, _)| first.kind == Kind::Data)
                .map_or(rest, |(_, rest)| rest);
            continue;
        }
        match rest.split_first() {
            Some((first, behind)) if is_cut && first.kind == Kind::Data && layer.kind == Kind::Data => {
                if !layer.bytes("bytes").starts_with(first.bytes("bytes")) {
                    fields(layer, first, &mut found);
                }
                rest = behind;
            }
            Some((first, behind)) if first.kind == layer.kind => {
                fields(layer, first, &mut found);
                rest = behind;
            }
            Some((first, _)) => {
                found.push(format!("{}: expected, {} came", layer.kind.word(), first.kind.word()));
                return found;
            }
            None if layer.kind == Kind::Data && layer.bytes("bytes").is_empty() => {}
            None => found.push(format!("{}: expected, nothing of the kind came", layer.kind.word())),
        }
    }
    // Data that is not written does not count, but for TCP, where a segment without data is another thing.
    let is_segment = wanted.last().is_some_and(|layer| layer.kind == Kind::Tcp);
    let unwanted = rest.iter().filter(|layer| layer.kind != Kind::Data || is_segment);
    found.extend(unwanted.map(|layer| format!("{}: came, and is not expected", layer.kind.word())));
    found
}

fn may_skip(came: &Layer, wanted: &Layer) -> bool {
    came.kind == Kind::Ethernet && wanted.kind != Kind::Ethernet
}

fn fields(wanted: &Layer, came: &Layer, found: &mut Vec<String>) {
    let word = wanted.kind.word();
    for (name, value) in &wanted.fields {
        if wanted.kind == Kind::Tcp && *name == "options" {
            found.extend(tcp_options::differences(wanted.text(name), came.text(name)));
            continue;
        }
        let is_same = |other: &Value| match (value, other) {
            (Value::Range(first, last), Value::Number(number)) => (*first..=*last).contains(number),
            (Value::Text(wanted), Value::Text(came)) if *name == "flags" => is_same_flags(wanted, came),
            (Value::Packet(wanted), Value::Packet(came)) => differences(wanted, came).is_empty(),
            // What an error quotes, and an Ethernet frame, may end early: that is not compared here.
            _ => value == other,
        };
        if came.all(name).any(is_same) {
            continue;
        }
        if let (Value::Packet(wanted), Some(Value::Packet(came))) = (value, came.get(name)) {
            found.extend(differences(wanted, came).iter().map(|line| format!("{word} {name}: {line}")));
            continue;
        }
        if wanted.kind == Kind::Data {
            found.push(data(value, came.bytes("bytes")));
            continue;
        }
        let others: Vec<String> = came.all(name).map(print::value).collect();
        let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
        found.push(format!("{word} {name}: expected {}, came {others}", print::value(value)));
    }
}

/// Where a push is not written there may be one: how an application writes is not of the protocol.
fn is_same_flags(wanted: &str, came: &str) -> bool {
    wanted == came || !wanted.contains('P') && wanted == came.replace('P', "")
}

fn data(wanted: &Value, came: &[u8]) -> String {
    let Value::Bytes(wanted) = wanted else {
        return "data: no bytes are expected".to_owned();
    };
    let first = wanted.iter().zip(came).position(|(a, b)| a != b).unwrap_or(wanted.len().min(came.len()));
    format!(
        "data: expected {} bytes, came {} bytes, different from byte {first} on",
        wanted.len(),
        came.len()
    )
}
