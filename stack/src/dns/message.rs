//! Messages: questions are written, answers read.

use std::net::IpAddr;

use smoltcp::wire::{
    DnsFlags, DnsOpcode, DnsPacket, DnsQueryType, DnsQuestion, DnsRcode, DnsRecord, DnsRecordData, DnsRepr,
};

use super::Name;
use super::name::encoded_len;
use crate::random::Random;

/// A question: what the cache and those who wait for an answer are kept by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Question {
    pub(super) name: Name,
    pub(super) record_type: RecordType,
}

/// The types of records that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordType {
    /// IPv4 address.
    A,
    /// IPv6 address.
    Aaaa,
    /// Name of an address.
    Ptr,
}

impl RecordType {
    pub(super) fn wire(self) -> DnsQueryType {
        match self {
            Self::A => DnsQueryType::A,
            Self::Aaaa => DnsQueryType::Aaaa,
            Self::Ptr => DnsQueryType::Unknown(PTR),
        }
    }
}

/// What one record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    Address(IpAddr),
    Name(Name),
}

/// Writes a question. The bytes of the name are those that the answer has to repeat.
pub(super) fn write(
    id: u16,
    name: &[u8],
    record_type: RecordType,
    payload_bytes_max: Option<u16>,
) -> Vec<u8> {
    let repr = DnsRepr {
        transaction_id: id,
        opcode: DnsOpcode::Query,
        flags: DnsFlags::RECURSION_DESIRED,
        question: DnsQuestion { name, type_: record_type.wire() },
    };
    let mut message = vec![0; repr.buffer_len()];
    repr.emit(&mut DnsPacket::new_unchecked(&mut message[..]));
    if let Some(bytes_max) = payload_bytes_max {
        DnsPacket::new_unchecked(&mut message[..]).set_additional_record_count(1);
        let [high, low] = bytes_max.to_be_bytes();
        // The root, type OPT, the size as class, no extended code, version 0, no options (RFC 6891 section 6.1.2).
        message.extend([0, 0, OPT, high, low, 0, 0, 0, 0, 0, 0]);
    }
    message
}

/// The name with each letter in upper or lower case at random (draft "0x20").
pub(super) fn random_case(name: &Name, random: &mut Random) -> Vec<u8> {
    let flip = |&byte: &u8| match byte {
        // Lengths of labels are below all letters.
        b'a'..=b'z' if random.below(2) == 1 => byte.to_ascii_uppercase(),
        _ => byte,
    };
    name.as_bytes().iter().map(flip).collect()
}

/// What a server says to a question of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// Records of the type that was asked for, and the name that has them.
    Records { name: Name, data: Vec<Data>, ttl: u32, is_truncated: bool },
    /// The name is an alias, and the server did not look further.
    Alias { name: Name, aliases: usize, ttl: u32, is_truncated: bool },
    /// There is no such name (`is_name_error`) or no such record; for how long, if a server says so.
    Negative { is_name_error: bool, ttl: Option<u32>, is_truncated: bool },
    /// The server cannot or will not.
    Failure { rcode: u8 },
    /// Aliases without an end.
    AliasLoop,
    /// Whoever answers this question sends what cannot be read.
    Malformed,
}

/// Whether this is an answer to the question with this identifier and name; `name` is compared byte by byte
/// if `is_exact`.
pub(super) fn matches(payload: &[u8], id: u16, name: &[u8], record_type: RecordType, is_exact: bool) -> bool {
    let Ok(packet) = DnsPacket::new_checked(payload) else { return false };
    //= rfc5452#9.1
    //# A resolver implementation MUST match responses to all of the
    //# following attributes of the query:
    let is_answer = packet.transaction_id() == id
        && packet.flags().contains(DnsFlags::RESPONSE)
        && packet.opcode() == DnsOpcode::Query
        && packet.question_count() == 1;
    if !is_answer {
        return false;
    }
    let Ok((_, question)) = DnsQuestion::parse(packet.payload()) else { return false };
    // In front of the question's name is nothing that a pointer could point to.
    let is_same = if is_exact { question.name == name } else { question.name.eq_ignore_ascii_case(name) };
    is_same && question.type_ == record_type.wire()
}

/// Reads an answer that [`matches()`] a question about `asked`.
pub(super) fn read(payload: &[u8], asked: &Name, record_type: RecordType) -> Reply {
    let Ok(packet) = DnsPacket::new_checked(payload) else { return Reply::Malformed };
    let is_name_error = match packet.rcode() {
        DnsRcode::NoError => false,
        DnsRcode::NXDomain => true,
        rcode => return Reply::Failure { rcode: rcode.into() },
    };
    read_sections(&packet, asked, record_type, is_name_error).unwrap_or(Reply::Malformed)
}

fn read_sections(
    packet: &DnsPacket<&[u8]>,
    asked: &Name,
    record_type: RecordType,
    is_name_error: bool,
) -> Option<Reply> {
    let is_truncated = packet.flags().contains(DnsFlags::TRUNCATED);
    let (mut rest, _) = DnsQuestion::parse(packet.payload()).ok()?;
    let (mut records, mut aliases) = (Vec::new(), Vec::new());
    for _ in 0..usize::from(packet.answer_record_count()).min(RECORDS_MAX) {
        let (after, record) = match DnsRecord::parse(rest) {
            Ok(parsed) => parsed,
            // A message that was cut off may end within a record.
            Err(_) if is_truncated => break,
            Err(_) => return None,
        };
        rest = after;
        let owner = Name::read(packet, record.name)?;
        match (record.data, record_type) {
            (DnsRecordData::A(address), RecordType::A) => {
                records.push((owner, Data::Address(address.into()), record.ttl));
            }
            (DnsRecordData::Aaaa(address), RecordType::Aaaa) => {
                records.push((owner, Data::Address(address.into()), record.ttl));
            }
            (DnsRecordData::Other(DnsQueryType::Unknown(PTR), data), RecordType::Ptr) => {
                encoded_len(data)?;
                records.push((owner, Data::Name(Name::read(packet, data)?), record.ttl));
            }
            (DnsRecordData::Cname(data), _) => {
                encoded_len(data)?;
                aliases.push((owner, Name::read(packet, data)?, record.ttl));
            }
            _ => {}
        }
    }
    conclude(packet, rest, Answers { records, aliases, asked, is_name_error, is_truncated })
}

/// What the answer section holds.
struct Answers<'a> {
    records: Vec<(Name, Data, u32)>,
    aliases: Vec<(Name, Name, u32)>,
    asked: &'a Name,
    is_name_error: bool,
    is_truncated: bool,
}

/// Follows the aliases to the records; `rest` is what is behind the answer section.
fn conclude(packet: &DnsPacket<&[u8]>, rest: &[u8], answers: Answers<'_>) -> Option<Reply> {
    let Answers { mut records, mut aliases, asked, is_name_error, is_truncated } = answers;
    let (mut name, mut followed, mut ttl) = (asked.clone(), 0, u32::MAX);
    // Aliases may come in any order. Each step takes one of them, so this ends.
    while let Some(at) = aliases.iter().position(|(owner, ..)| *owner == name) {
        let (_, target, alias_ttl) = aliases.swap_remove(at);
        name = target;
        ttl = ttl.min(seconds(alias_ttl));
        followed += 1;
        if followed > ALIASES_MAX {
            return Some(Reply::AliasLoop);
        }
    }
    records.retain(|(owner, ..)| *owner == name);
    records.truncate(DATA_MAX);
    ttl = records.iter().fold(ttl, |ttl, (.., record_ttl)| ttl.min(seconds(*record_ttl)));
    if !records.is_empty() {
        let data = records.into_iter().map(|(_, data, _)| data).collect();
        return Some(Reply::Records { name, data, ttl, is_truncated });
    }
    let soa_ttl = negative_ttl(packet, rest);
    if followed > 0 && !is_name_error && soa_ttl.is_none() {
        return Some(Reply::Alias { name, aliases: followed, ttl, is_truncated });
    }
    // What an alias leads to is not there only as long as the alias is.
    Some(Reply::Negative { is_name_error, ttl: soa_ttl.map(|soa_ttl| soa_ttl.min(ttl)), is_truncated })
}

/// How long "there is none" may be remembered: the SOA record of the authority section says it.
fn negative_ttl(packet: &DnsPacket<&[u8]>, mut rest: &[u8]) -> Option<u32> {
    for _ in 0..usize::from(packet.authority_record_count()).min(RECORDS_MAX) {
        let (after, record) = DnsRecord::parse(rest).ok()?;
        rest = after;
        if let DnsRecordData::Other(DnsQueryType::Soa, data) = record.data {
            // Two names of one byte at least, four numbers, and MINIMUM at the end.
            let (_, minimum) = data.split_last_chunk::<4>().filter(|(front, _)| front.len() >= 18)?;
            //= rfc2308#3
            //# The TTL of this record is set from the minimum of the MINIMUM field of
            //# the SOA record and the TTL of the SOA itself, and indicates how long a
            //# resolver may cache the negative answer.
            return Some(seconds(u32::from_be_bytes(*minimum)).min(seconds(record.ttl)));
        }
    }
    None
}

/// A TTL: what has the highest bit set counts as 0 (RFC 2181 section 8).
fn seconds(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

const PTR: u16 = 12;
const OPT: u8 = 41;
/// Records of a section that are looked at.
const RECORDS_MAX: usize = 128;
/// Addresses or names of an answer.
const DATA_MAX: usize = 64;
/// Aliases on the way to an answer.
pub(super) const ALIASES_MAX: usize = 8;
