//! Words for ICMP types and codes, and the text form of TCP options.

use super::token::hex;

/// ICMP messages: words, type, code. The first that fits is the one that is printed.
const ICMPV4: [(&str, u8, u8); 19] = [
    ("echo-reply", 0, 0),
    ("unreachable net", 3, 0),
    ("unreachable host", 3, 1),
    ("unreachable protocol", 3, 2),
    ("unreachable port", 3, 3),
    ("unreachable too-big", 3, 4),
    ("unreachable source-route", 3, 5),
    ("unreachable admin", 3, 13),
    ("source-quench", 4, 0),
    ("redirect net", 5, 0),
    ("redirect host", 5, 1),
    ("echo-request", 8, 0),
    ("time-exceeded ttl", 11, 0),
    ("time-exceeded reassembly", 11, 1),
    ("parameter-problem", 12, 0),
    ("timestamp-request", 13, 0),
    ("timestamp-reply", 14, 0),
    ("address-mask-request", 17, 0),
    ("address-mask-reply", 18, 0),
];

/// The same of ICMPv6 (RFC 4443, 4861, 2710, 3810).
const ICMPV6: [(&str, u8, u8); 22] = [
    ("unreachable no-route", 1, 0),
    ("unreachable admin", 1, 1),
    ("unreachable address", 1, 3),
    ("unreachable port", 1, 4),
    ("packet-too-big", 2, 0),
    ("time-exceeded hop", 3, 0),
    ("time-exceeded reassembly", 3, 1),
    ("parameter-problem header", 4, 0),
    ("parameter-problem next-header", 4, 1),
    ("parameter-problem option", 4, 2),
    ("parameter-problem first-fragment", 4, 3),
    ("echo-request", 128, 0),
    ("echo-reply", 129, 0),
    ("mld-query", 130, 0),
    ("mld-report", 131, 0),
    ("mld-done", 132, 0),
    ("router-solicitation", 133, 0),
    ("router-advertisement", 134, 0),
    ("neighbor-solicitation", 135, 0),
    ("neighbor-advertisement", 136, 0),
    ("redirect", 137, 0),
    ("mld2-report", 143, 0),
];

fn table(is_v6: bool) -> &'static [(&'static str, u8, u8)] {
    if is_v6 { &ICMPV6 } else { &ICMPV4 }
}

/// The type and code of a message by its one or two words; and whether the second was needed.
pub(super) fn icmp_by_words(is_v6: bool, first: &str, second: Option<&str>) -> Option<(u8, u8, bool)> {
    let find = |words: &str| table(is_v6).iter().find(|(known, _, _)| *known == words);
    if let Some((_, kind, code)) = find(first) {
        return Some((*kind, *code, false));
    }
    find(&format!("{first} {}", second?)).map(|(_, kind, code)| (*kind, *code, true))
}

/// The words of a message.
pub(super) fn icmp_words(is_v6: bool, kind: u64, code: u64) -> Option<&'static str> {
    let mut entries = table(is_v6).iter();
    entries.find(|entry| (u64::from(entry.1), u64::from(entry.2)) == (kind, code)).map(|(words, _, _)| *words)
}

/// All words that may follow `icmp` or `icmp6`, for an error.
pub(super) fn icmp_list(is_v6: bool) -> String {
    table(is_v6).iter().map(|(words, _, _)| *words).collect::<Vec<_>>().join(", ")
}

/// TCP options as bytes, padded with NOPs to a multiple of four.
pub(super) fn tcp_options(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for option in text.split(',').map(str::trim).filter(|option| !option.is_empty()) {
        let mut words = option.split_whitespace();
        let name = words.next().unwrap_or_default();
        let wrong = || {
            format!(
                "TCP option `{option}`: mss N, sackOK, wscale N, TS N N, sack A:B ..., raw 0x..., nop or eol is accepted"
            )
        };
        let mut number = || words.next().and_then(|word| word.parse::<u32>().ok()).ok_or_else(wrong);
        match name {
            "mss" => {
                bytes.extend([2, 4]);
                bytes.extend((number()? as u16).to_be_bytes());
            }
            "wscale" => bytes.extend([3, 3, number()? as u8]),
            "sackOK" => bytes.extend([4, 2]),
            "TS" => {
                bytes.extend([8, 10]);
                bytes.extend(number()?.to_be_bytes());
                bytes.extend(number()?.to_be_bytes());
            }
            "sack" => {
                let edges = words.flat_map(|block| block.split(':')).map(|edge| edge.parse::<u32>());
                let edges: Vec<u32> = edges.collect::<Result<_, _>>().map_err(|_| wrong())?;
                // Three blocks and a timestamp fill the room; four are the most.
                let len = u8::try_from(2 + 4 * edges.len()).map_err(|_| wrong())?;
                bytes.extend([5, len]);
                edges.iter().for_each(|edge| bytes.extend(edge.to_be_bytes()));
            }
            "raw" => bytes.extend(words.next().and_then(hex).ok_or_else(wrong)?),
            "nop" => bytes.push(1),
            "eol" => bytes.push(0),
            _ => return Err(wrong()),
        }
    }
    while bytes.len() % 4 != 0 {
        bytes.push(1);
    }
    if bytes.len() <= 40 { Ok(bytes) } else { Err("TCP options have room for 40 bytes".to_owned()) }
}

/// The text of TCP options, without NOPs and what is behind the end.
pub(super) fn tcp_options_text(mut bytes: &[u8]) -> String {
    let mut found = Vec::new();
    let word = |bytes: &[u8]| bytes.iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
    while let [kind, rest @ ..] = bytes {
        if *kind <= 1 {
            bytes = if *kind == 0 { &[] } else { rest };
            continue;
        }
        let len = usize::from(rest.first().copied().unwrap_or(0));
        let Some(body) = bytes.get(2..len) else {
            found.push(format!("broken {kind}"));
            break;
        };
        found.push(match (*kind, len) {
            (2, 4) => format!("mss {}", word(body)),
            (3, 3) => format!("wscale {}", word(body)),
            (4, 2) => "sackOK".to_owned(),
            (8, 10) => format!("TS {} {}", word(&body[..4]), word(&body[4..])),
            (5, _) if body.len() % 8 == 0 => {
                let blocks =
                    body.chunks(8).map(|block| format!(" {}:{}", word(&block[..4]), word(&block[4..])));
                format!("sack{}", blocks.collect::<String>())
            }
            _ => format!("unknown {kind}"),
        });
        bytes = &bytes[len..];
    }
    found.join(",")
}
