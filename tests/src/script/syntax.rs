//! Packets from the text of a script.

use std::net::{IpAddr, Ipv6Addr};

use smoltcp::wire::EthernetAddress;

use super::names::{icmp_by_words, icmp_list, tcp_options};
use super::packet::{Field, Form, Kind, Layer, Mutation, Packet, Value, generated, stream, stream_position};
use super::tcp_options::plain;
use super::token::{Cursor, Token, hex, number, range};

/// A packet up to the end of the line or a `}`.
pub(super) fn packet(cursor: &mut Cursor<'_>) -> Result<Packet, String> {
    if cursor.eat_word("frame") {
        let word = cursor.word("0x and the bytes of a frame")?;
        return hex(word)
            .map(Packet::Raw)
            .ok_or_else(|| format!("`{word}`: 0x and pairs of digits are accepted"));
    }
    let layers = layers(cursor)?;
    let mut mutation = Mutation::default();
    loop {
        if cursor.eat_word("truncate") {
            cursor.expect('=')?;
            mutation.truncate = Some(cursor.number()? as usize);
        } else if cursor.eat_word("pad") {
            cursor.expect('=')?;
            mutation.pad = cursor.parsed::<u16>("a number of bytes")?.into();
        } else {
            return Ok(Packet::Layers(layers, mutation));
        }
    }
}

fn layers(cursor: &mut Cursor<'_>) -> Result<Vec<Layer>, String> {
    let mut found: Vec<Layer> = Vec::new();
    loop {
        if let Some(layer) = layer_data(found.last(), cursor)? {
            found.push(layer);
            // `"text" bad-checksum` is easier to read than the other way round.
            let header = found.iter_mut().rev().find(|layer| layer.kind != Kind::Data);
            if let Some(header) = header {
                while let Some(field) = field(header, cursor)? {
                    header.fields.push(field);
                }
            }
            continue;
        }
        let kind = cursor.peek_word().and_then(Kind::from_word);
        let Some(kind) = kind.filter(|_| !cursor.is_followed_by('=')) else {
            break;
        };
        cursor.next();
        found.extend(implied_before(kind, &found));
        found.push(layer(kind, cursor)?);
    }
    if found.is_empty() {
        return Err(
            cursor.complaint("a packet (eth, arp, ip, ip6, udp, tcp, icmp, icmp6, igmp or frame 0x...)")
        );
    }
    Ok(found)
}

/// Data behind a layer. In TCP, `data=LENGTH` is a part of the stream, and `data=any` may be any, or none.
fn layer_data(before: Option<&Layer>, cursor: &mut Cursor<'_>) -> Result<Option<Layer>, String> {
    let tcp = before.filter(|layer| layer.kind == Kind::Tcp);
    if let Some(tcp) = tcp.filter(|_| cursor.peek_word() == Some("data") && cursor.is_followed_by('=')) {
        let mut ahead = cursor.clone();
        ahead.next();
        ahead.next();
        let word = ahead.peek_word().unwrap_or_default();
        if word == "any" {
            ahead.next();
            *cursor = ahead;
            return Ok(Some(Layer::new(Kind::Data).with_number("any", 1u8)));
        }
        if let Ok(len) = word.parse::<u16>() {
            if !matches!(tcp.get("seq"), Some(Value::Number(_))) {
                return Err(format!("data={len}: where in the stream it is, seq=N before it says"));
            }
            ahead.next();
            *cursor = ahead;
            return Ok(Some(Layer::data(stream(stream_position(tcp), len.into()))));
        }
    }
    data(cursor).map(|bytes| bytes.map(Layer::data))
}

/// The segment that follows this one in the stream.
pub(super) fn advance(layers: &mut [Layer]) {
    let Some(at) = layers.iter().position(|layer| layer.kind == Kind::Tcp) else {
        return;
    };
    let len = layers.get(at + 1).map_or(0, |data| data.bytes("bytes").len());
    if let Some((_, Value::Number(seq))) = layers[at].fields.iter_mut().find(|(name, _)| *name == "seq") {
        *seq += len as u64;
    }
    let start = stream_position(&layers[at]);
    if let Some(data) = layers.get_mut(at + 1) {
        *data = Layer::data(stream(start, len));
    }
}

/// `udp` alone is UDP over IPv4; `icmp6` is over IPv6.
fn implied_before(kind: Kind, before: &[Layer]) -> Option<Layer> {
    let has_ip = before.iter().any(|layer| matches!(layer.kind, Kind::Ipv4 | Kind::Ipv6));
    let implied = match kind {
        Kind::Udp | Kind::Tcp | Kind::Icmpv4 | Kind::Igmp | Kind::Fragment => Kind::Ipv4,
        Kind::Icmpv6 | Kind::HopByHop | Kind::Destination | Kind::Routing => Kind::Ipv6,
        Kind::Ethernet | Kind::Arp | Kind::Ipv4 | Kind::Ipv6 | Kind::Data => return None,
    };
    (!has_ip).then(|| Layer::new(implied))
}

/// `"text"`, `data=100` (generated), `data=16*0x58` (all the same) or `data=0x0102`.
pub(super) fn data(cursor: &mut Cursor<'_>) -> Result<Option<Vec<u8>>, String> {
    if let Some(Token::Text(text)) = cursor.peek() {
        cursor.next();
        return Ok(Some(text.clone()));
    }
    if cursor.peek_word() != Some("data") || !cursor.is_followed_by('=') {
        return Ok(None);
    }
    cursor.next();
    cursor.next();
    let word = cursor.word("the length of the data")?;
    let wrong = || format!("data=`{word}`: a length, LENGTH*BYTE, or 0x and pairs of digits is accepted");
    if let Some(bytes) = hex(word) {
        return Ok(Some(bytes));
    }
    let bytes = match word.split_once('*') {
        Some((len, byte)) => {
            let byte = number(byte).and_then(|byte| u8::try_from(byte).ok());
            byte.zip(len.parse::<u16>().ok()).map(|(byte, len)| vec![byte; usize::from(len)])
        }
        None => word.parse::<u16>().ok().map(|len| generated(usize::from(len))),
    };
    bytes.map(Some).ok_or_else(wrong)
}

fn layer(kind: Kind, cursor: &mut Cursor<'_>) -> Result<Layer, String> {
    let mut layer = Layer::new(kind);
    match kind {
        Kind::Arp => arp_words(&mut layer, cursor)?,
        Kind::Ipv4 | Kind::Ipv6 => ends(&mut layer, cursor, |word| word.parse().ok().map(Value::Ip))?,
        Kind::Udp | Kind::Tcp => ends(&mut layer, cursor, |word| number(word).map(Value::Number))?,
        Kind::Icmpv4 | Kind::Icmpv6 => icmp_words(&mut layer, cursor)?,
        Kind::Fragment => return fragment(layer, cursor),
        _ => {}
    }
    if kind == Kind::Tcp {
        let is_flags = |word: &&str| word.chars().all(|letter| "SFRPAUEW.".contains(letter));
        if let Some(flags) = cursor.peek_word().filter(is_flags) {
            cursor.next();
            layer.fields.push(("flags", Value::Text(sorted_flags(flags))));
        }
    }
    while let Some(field) = field(&mut layer, cursor)? {
        layer.fields.push(field);
    }
    Ok(layer)
}

/// Letters in the order in which the header has the flags; `.` is another word for A.
fn sorted_flags(letters: &str) -> String {
    let letters = letters.replace('.', "A");
    "FSRPAUEW".chars().filter(|letter| letters.contains(*letter)).collect()
}

/// `A > B`.
fn ends(layer: &mut Layer, cursor: &mut Cursor<'_>, parse: fn(&str) -> Option<Value>) -> Result<(), String> {
    let Some(word) = cursor.peek_word().filter(|_| cursor.is_followed_by('>')) else {
        return Ok(());
    };
    for (name, word) in [("from", word), ("to", "")] {
        let word = if name == "from" { word } else { cursor.peek_word().unwrap_or(word) };
        let wrong = || {
            format!(
                "`{word}` is no {} of {}",
                if name == "from" { "source" } else { "destination" },
                layer.kind.word()
            )
        };
        let value = parse(word).ok_or_else(wrong)?;
        layer.fields.push((name, value));
        cursor.next();
        if name == "from" {
            cursor.expect('>')?;
        }
    }
    Ok(())
}

/// `who-has TARGET tell SENDER`, `reply SENDER is-at MAC`.
fn arp_words(layer: &mut Layer, cursor: &mut Cursor<'_>) -> Result<(), String> {
    let ip = |cursor: &mut Cursor<'_>| cursor.parsed("an address").map(Value::Ip);
    if cursor.eat_word("who-has") {
        layer.fields.push(("op", Value::Number(1)));
        layer.fields.push(("target", ip(cursor)?));
        if cursor.eat_word("tell") {
            layer.fields.push(("sender", ip(cursor)?));
        }
    } else if cursor.eat_word("reply") {
        layer.fields.push(("op", Value::Number(2)));
        layer.fields.push(("sender", ip(cursor)?));
        if cursor.eat_word("is-at") {
            layer.fields.push(("sender-mac", Value::Mac(mac(cursor.word("a hardware address")?)?)));
        }
    }
    Ok(())
}

/// The one or two words of a message; of neighbour messages, the target.
fn icmp_words(layer: &mut Layer, cursor: &mut Cursor<'_>) -> Result<(), String> {
    let is_v6 = layer.kind == Kind::Icmpv6;
    let Some(first) = cursor.peek_word().filter(|_| !cursor.is_followed_by('=')) else {
        return Ok(());
    };
    if layer.kind.field(first.trim_start_matches('!')).is_some() {
        return Ok(());
    }
    cursor.next();
    let Some((kind, code, is_two)) = icmp_by_words(is_v6, first, cursor.peek_word()) else {
        let second = cursor.peek_word().unwrap_or_default();
        return Err(format!(
            "`{first} {second}` is no message: {} or type=N code=N is accepted",
            icmp_list(is_v6)
        ));
    };
    if is_two {
        cursor.next();
    }
    layer.fields.push(("type", Value::Number(kind.into())));
    layer.fields.push(("code", Value::Number(code.into())));
    let target = cursor.peek_word().filter(|_| is_v6).and_then(|word| word.parse::<Ipv6Addr>().ok());
    if let Some(target) = target {
        cursor.next();
        layer.fields.push(("target", Value::Ip(target.into())));
    }
    Ok(())
}

/// `frag(id=7, 0..24, more)`: the bytes 0 to 23 of what the packet would carry in one piece.
fn fragment(mut layer: Layer, cursor: &mut Cursor<'_>) -> Result<Layer, String> {
    if !cursor.eat('(') {
        return Ok(layer);
    }
    while !cursor.eat(')') {
        let range = cursor.peek_word().and_then(|word| word.split_once(".."));
        if let Some((start, end)) = range {
            cursor.next();
            let position = |word: &str| {
                number(word).ok_or_else(|| format!("`{word}`: START..END is accepted, in bytes"))
            };
            layer.fields.push(("start", Value::Number(position(start)?)));
            if !end.is_empty() {
                layer.fields.push(("end", Value::Number(position(end)?)));
            }
        } else if let Some(field) = field(&mut layer, cursor)? {
            layer.fields.push(field);
        } else {
            return Err(cursor.complaint("id=N, START..END, more or next=N"));
        }
        cursor.eat(',');
    }
    if layer.number("start").is_some_and(|start| start % 8 != 0) {
        return Err("a fragment starts at a multiple of 8 bytes".to_owned());
    }
    Ok(layer)
}

/// One field, if the next word is one of this layer.
fn field(layer: &mut Layer, cursor: &mut Cursor<'_>) -> Result<Option<(&'static str, Value)>, String> {
    if layer.kind == Kind::Tcp && cursor.eat('<') {
        return tcp_option_text(cursor).map(|text| Some(("options", Value::Text(text))));
    }
    let Some(word) = cursor.peek_word() else {
        return Ok(None);
    };
    let (is_set, name) = match word.strip_prefix('!') {
        Some(name) => (false, name),
        None => (true, word),
    };
    let Some(field) = layer.kind.field(name) else {
        let is_foreign = cursor.is_followed_by('=') && !matches!(word, "data" | "truncate" | "pad");
        let names = || layer.kind.fields().iter().map(|field| field.name).collect::<Vec<_>>().join(", ");
        let complaint = || format!("`{word}` is no field of {}: {} is accepted", layer.kind.word(), names());
        return if is_foreign { Err(complaint()) } else { Ok(None) };
    };
    // `destination` is a header too.
    if field.form != Form::Flag && field.form != Form::Packet && !cursor.is_followed_by('=') {
        return Ok(None);
    }
    cursor.next();
    if field.form == Form::Flag {
        return Ok(Some((field.name, Value::Number(is_set.into()))));
    }
    if field.form == Form::Packet {
        cursor.expect('(')?;
        let mut quoted = layers(cursor)?;
        cursor.expect(')')?;
        // `udp` in an error of ICMPv6 is UDP over IPv6.
        let is_v6 = layer.kind == Kind::Icmpv6;
        if let Some(first) = quoted.first_mut().filter(|first| is_v6 && first.fields.is_empty()) {
            first.kind = Kind::Ipv6;
        }
        let ip = if is_v6 { Kind::Ipv6 } else { Kind::Ipv4 };
        if quoted.first().is_none_or(|first| first.kind != ip) {
            return Err(format!("{} quotes packets of {}", layer.kind.word(), ip.word()));
        }
        return Ok(Some((field.name, Value::Packet(quoted))));
    }
    cursor.expect('=')?;
    value(field, cursor).map(|value| Some((field.name, value)))
}

fn value(field: &Field, cursor: &mut Cursor<'_>) -> Result<Value, String> {
    let word = cursor.word("a value")?;
    let parsed = match field.form {
        Form::Mac => Some(Value::Mac(mac(word)?)),
        Form::Ip => word.parse().ok().map(Value::Ip),
        Form::Bytes => hex(word).map(Value::Bytes),
        Form::Prefix => prefix(word),
        Form::Text => Some(Value::Text(word.to_owned())),
        Form::Number | Form::Flag | Form::Packet => {
            let between = || range(word).map(|(first, last)| Value::Range(first, last));
            number(word).map(Value::Number).or_else(between)
        }
    };
    let wanted = match field.form {
        Form::Mac => "a hardware address",
        Form::Ip => "an address",
        Form::Bytes => "0x and pairs of digits",
        Form::Prefix => "PREFIX/LENGTH",
        _ => "a number",
    };
    parsed.ok_or_else(|| format!("{}=`{word}`: {wanted} is accepted", field.name))
}

fn prefix(word: &str) -> Option<Value> {
    let (address, len) = word.split_once('/')?;
    Some(Value::Prefix(address.parse().ok()?, len.parse().ok().filter(|len| *len <= 128)?))
}

/// `02:00:00:00:00:01`.
pub(super) fn mac(word: &str) -> Result<EthernetAddress, String> {
    let bytes: Option<Vec<u8>> = word.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    let bytes = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    bytes
        .map(EthernetAddress)
        .ok_or_else(|| format!("`{word}`: a hardware address is accepted (02:00:00:00:00:01)"))
}

/// The text between `<` and `>`, checked.
fn tcp_option_text(cursor: &mut Cursor<'_>) -> Result<String, String> {
    let mut text = String::new();
    while !cursor.eat('>') {
        match cursor.next() {
            Some(Token::Word(word)) => {
                if !text.is_empty() && !text.ends_with(',') {
                    text.push(' ');
                }
                text.push_str(word);
            }
            Some(Token::Mark(',')) => text.push(','),
            _ => return Err(cursor.complaint("a TCP option or `>`")),
        }
    }
    tcp_options(&plain(&text))?;
    Ok(text)
}

/// An address with a prefix length.
pub(super) fn address_with_prefix(word: &str) -> Option<(IpAddr, u8)> {
    let (address, len) = word.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let len_max = if address.is_ipv4() { 32 } else { 128 };
    Some((address, len.parse().ok().filter(|len| *len <= len_max)?))
}
