//! A table of nftables that lives as long as our netlink socket.
//!
//! ```text
//! table netdev wirestack_ID {                      flags owner
//!     chain ingress {
//!         type filter hook ingress device "eth0" priority -500; policy accept;
//!         ip daddr 10.0.0.2 tcp dport 80-89 counter drop
//!         ip6 daddr fd00::2 counter drop
//!     }
//! }
//! ```
//!
//! Only the socket that made a table with `owner` can change it, and the kernel removes the table when
//! that socket is closed (linux/netfilter/nf_tables.h, NFT_TABLE_F_OWNER; `nft_rcv_nl_event` in
//! net/netfilter/nf_tables_api.c). All of it is one transaction: it is there whole or not at all.

use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage,
};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Cmp, DataAttribute, DevHookNumber, Expressions, Hook, Immediate, Meta,
    MetaKey, NfTablesMessage, Operator, Payload, Register, RuleAttribute, RuleMessage, TableAttribute,
    TableFlags, TableMessage, Verdict, VerdictAttribute,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use super::netlink::{self, NLMSG_DONE};
use super::{SuppressError, SuppressStep, unique_id};
use crate::claim::{Claim, Scope};

/// The table and the socket that owns it.
#[derive(Debug)]
pub(super) struct Table {
    socket: Socket,
    name: String,
    rules: usize,
    /// Of the last request.
    sequence: u32,
}

impl Table {
    pub(super) fn install(interface: &str, claims: &[Claim]) -> Result<Self, SuppressError> {
        let name = format!("wirestack_{}", unique_id());
        let socket = open().map_err(|error| SuppressError::new(SuppressStep::Socket, interface, error))?;
        let batch = batch(&name, interface, claims);
        let failed = |place, error| {
            let (step, subject) = match place {
                Place::Batch => (SuppressStep::Batch, interface.to_owned()),
                Place::Table => (SuppressStep::Table, name.clone()),
                Place::Chain => (SuppressStep::Chain, interface.to_owned()),
                Place::Rule(claim) => {
                    (SuppressStep::Rule, claims.get(claim).map(ToString::to_string).unwrap_or_default())
                }
            };
            SuppressError::new(step, subject, error)
        };
        send(&socket, &batch.concat()).map_err(|error| failed(Place::Batch, error))?;
        acknowledged(&socket, claims.len()).map_err(|(place, error)| failed(place, error))?;
        // Begin, table, chain, rules, end.
        let sequence = batch.len() as u32;
        Ok(Self { socket, name, rules: claims.len(), sequence })
    }

    /// Packets dropped by each rule.
    pub(super) fn dropped(&mut self) -> io::Result<Vec<u64>> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = NfTablesMessage::GetRule(RuleMessage {
            attributes: vec![RuleAttribute::Table(self.name.clone()), RuleAttribute::Chain(CHAIN.to_owned())],
        });
        send(&self.socket, &message(request, NLM_F_DUMP, self.sequence))?;
        let mut dropped = Vec::with_capacity(self.rules);
        'dump: while let Some(datagram) = netlink::receive_queued(&self.socket)? {
            for message in netlink::messages(&datagram).filter(|m| m.sequence == self.sequence) {
                if let Some(said) = message.acknowledgement() {
                    said?;
                }
                if message.kind == NLMSG_DONE {
                    break 'dump;
                }
                dropped.extend(rule_packets(message, &self.name));
            }
        }
        if dropped.len() == self.rules {
            Ok(dropped)
        } else {
            Err(io::Error::other(format!(
                "table {} has {} of {} rules",
                self.name,
                dropped.len(),
                self.rules
            )))
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// The part of the batch that a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Batch,
    Table,
    Chain,
    /// Index of the claim.
    Rule(usize),
}

impl Place {
    /// The messages of the batch are numbered from 1: begin, table, chain, rules, end.
    fn of(sequence: u32, rules: usize) -> Self {
        match usize::try_from(sequence).ok().and_then(|sequence| sequence.checked_sub(RULES_FROM)) {
            Some(rule) if rule < rules => Self::Rule(rule),
            Some(_) => Self::Batch,
            None if sequence == 2 => Self::Table,
            None if sequence == 3 => Self::Chain,
            None => Self::Batch,
        }
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    // The kernel knows the owner by this address.
    socket.bind_auto()?;
    Ok(socket)
}

fn send(socket: &Socket, bytes: &[u8]) -> io::Result<()> {
    let sent = socket.send_to(bytes, &SocketAddr::new(0, 0), 0)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
}

/// Reads the answers: one acknowledgement for the table, the chain and each rule. The error that
/// counts is the first in the order of the batch.
fn acknowledged(socket: &Socket, rules: usize) -> Result<(), (Place, io::Error)> {
    let mut acknowledged = 0;
    let mut first_error: Option<(u32, io::Error)> = None;
    while let Some(datagram) = netlink::receive_queued(socket).map_err(|error| (Place::Batch, error))? {
        for message in netlink::messages(&datagram) {
            match message.acknowledgement() {
                Some(Ok(())) => acknowledged += 1,
                Some(Err(error)) if first_error.as_ref().is_none_or(|&(at, _)| message.sequence < at) => {
                    first_error = Some((message.sequence, error));
                }
                Some(Err(_)) | None => {}
            }
        }
    }
    match first_error {
        Some((sequence, error)) => Err((Place::of(sequence, rules), error)),
        None if acknowledged == rules + 2 => Ok(()),
        None => {
            let said = format!("the kernel acknowledged {acknowledged} of {} messages", rules + 2);
            Err((Place::Batch, io::Error::other(said)))
        }
    }
}

/// The messages of the transaction, numbered from 1.
fn batch(table: &str, interface: &str, claims: &[Claim]) -> Vec<Vec<u8>> {
    let new_table = TableMessage {
        attributes: vec![TableAttribute::Name(table.to_owned()), TableAttribute::Flags(TableFlags::Owner)],
    };
    let new_chain = ChainMessage {
        attributes: vec![
            ChainAttribute::Table(table.to_owned()),
            ChainAttribute::Name(CHAIN.to_owned()),
            ChainAttribute::Hook(vec![
                Hook::Number(DevHookNumber::Ingress.into()),
                Hook::Priority(PRIORITY.cast_unsigned()),
                Hook::NetDeviceName(interface.to_owned()),
            ]),
            ChainAttribute::Policy(NF_ACCEPT),
            ChainAttribute::Type("filter".to_owned()),
        ],
    };
    let create = NLM_F_ACK | NLM_F_CREATE;
    let mut parts: Vec<(NetfilterMessageInner, u16)> = vec![
        (ControlMessage::BatchBegin.into(), 0),
        (NfTablesMessage::NewTable(new_table).into(), create | NLM_F_EXCL),
        (NfTablesMessage::NewChain(new_chain).into(), create | NLM_F_EXCL),
    ];
    for claim in claims {
        let expressions = expressions(claim).into_iter().map(Into::into).collect();
        let new_rule = RuleMessage {
            attributes: vec![
                RuleAttribute::Table(table.to_owned()),
                RuleAttribute::Chain(CHAIN.to_owned()),
                RuleAttribute::Expressions(expressions),
            ],
        };
        parts.push((NfTablesMessage::NewRule(new_rule).into(), create | NLM_F_APPEND));
    }
    parts.push((ControlMessage::BatchEnd.into(), 0));
    (1..).zip(parts).map(|(sequence, (part, flags))| message(part, flags, sequence)).collect()
}

fn message(inner: impl Into<NetfilterMessageInner>, flags: u16, sequence: u32) -> Vec<u8> {
    let inner = inner.into();
    // The messages around a batch name in `res_id` whose batch it is.
    let header = match inner {
        NetfilterMessageInner::None(_) => {
            NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, libc::NFNL_SUBSYS_NFTABLES as u16)
        }
        _ => NetfilterHeader::new(NetfilterProtoFamily::NetDev, 0, 0),
    };
    let mut message = NetlinkMessage::from(NetfilterMessage::new(header, inner));
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// The rule of a claim: what to match, `counter`, `drop`.
fn expressions(claim: &Claim) -> Vec<Expressions> {
    let (ethertype, daddr_at, address) = match claim.address {
        IpAddr::V4(address) => (libc::ETH_P_IP, 16, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::ETH_P_IPV6, 24, address.octets().to_vec()),
    };
    let mut rule = vec![
        meta(MetaKey::EtherTypeProtocol),
        compare(Operator::Equal, (ethertype as u16).to_be_bytes().to_vec()),
        payload(NETWORK_HEADER, daddr_at, address.len() as u32),
        compare(Operator::Equal, address),
    ];
    if let Scope::Ports { protocol, ports } = &claim.scope {
        rule.push(meta(MetaKey::L4Proto));
        rule.push(compare(Operator::Equal, vec![protocol.number()]));
        // Source port, destination port: the same place in TCP and UDP.
        rule.push(payload(TRANSPORT_HEADER, 2, 2));
        rule.extend(compare_ports(ports));
    }
    rule.push(Expressions::Other {
        expression_type: "counter".to_owned(),
        attributes: vec![
            DefaultNla::new(NFTA_COUNTER_BYTES, vec![0; 8]),
            DefaultNla::new(NFTA_COUNTER_PACKETS, vec![0; 8]),
        ],
    });
    rule.push(Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![VerdictAttribute::Code(Verdict::Other(NF_DROP))])),
    ]));
    rule
}

fn compare_ports(ports: &RangeInclusive<u16>) -> Vec<Expressions> {
    let port = |operator, port: &u16| compare(operator, port.to_be_bytes().to_vec());
    if ports.start() == ports.end() {
        return vec![port(Operator::Equal, ports.start())];
    }
    vec![port(Operator::GreatherThanEqual, ports.start()), port(Operator::LessThanEqual, ports.end())]
}

fn meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(Register::Reg1)])
}

fn payload(base: u32, offset: u32, len: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(len),
    ])
}

fn compare(operator: Operator, value: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value)),
    ])
}

/// What the counter of a rule of our table says. The crate's parser trusts lengths that the kernel
/// sends; this walk does not need to.
fn rule_packets(message: netlink::Message<'_>, table: &str) -> Option<u64> {
    let attributes = message.payload.get(NFGENMSG_LEN..)?;
    let found = netlink::attribute(attributes, NFTA_RULE_TABLE)?;
    if found.strip_suffix(&[0])? != table.as_bytes() {
        return None;
    }
    let expressions = netlink::attribute(attributes, NFTA_RULE_EXPRESSIONS)?;
    let counter = netlink::attributes(expressions)
        .map(|(_, expression)| expression)
        .find(|expression| netlink::attribute(expression, NFTA_EXPR_NAME) == Some(b"counter\0"))?;
    let data = netlink::attribute(counter, NFTA_EXPR_DATA)?;
    let packets = netlink::attribute(data, NFTA_COUNTER_PACKETS)?;
    Some(u64::from_be_bytes(packets.try_into().ok()?))
}

const CHAIN: &str = "ingress";

/// Before chains of others, which need not look at what is ours; the same as `priority filter - 500`.
const PRIORITY: i32 = -500;

/// Sequence number of the first rule in the batch.
const RULES_FROM: usize = 4;

// linux/netfilter.h and linux/netfilter/nf_tables.h; what the crate keeps to itself.
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_COUNTER_BYTES: u16 = 1;
const NFTA_COUNTER_PACKETS: u16 = 2;
const NFGENMSG_LEN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Protocol;
    use proptest::prelude::*;

    fn claims() -> Vec<Claim> {
        vec![
            Claim::ports("10.0.0.2".parse().unwrap(), Protocol::Tcp, 80..=89),
            Claim::ports("fd00::2".parse().unwrap(), Protocol::Udp, 53..=53),
            Claim::address("10.0.0.3".parse().unwrap()),
        ]
    }

    /// An expression in the words of `nft --debug=netlink`.
    fn words(expression: &Expressions) -> String {
        match expression {
            Expressions::Meta(meta) => format!("meta {:?}", meta[0]),
            Expressions::Payload(payload) => format!("payload {:?}", &payload[1..]),
            Expressions::Cmp(cmp) => format!("cmp {:?}", &cmp[1..]),
            Expressions::Other { expression_type, .. } => expression_type.clone(),
            Expressions::Immediate(immediate) => format!("immediate {:?}", immediate[1]),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn rules() {
        let text = |claim: &Claim| expressions(claim).iter().map(words).collect::<Vec<_>>();
        let [range, port, whole] = &claims()[..] else { panic!() };
        let drop = "immediate Data(Verdict([Code(Other(0))]))";
        assert_eq!(
            text(range),
            [
                "meta Key(EtherTypeProtocol)",
                "cmp [Op(Equal), Data(Value([8, 0]))]",
                "payload [Base(1), Offset(16), Len(4)]",
                "cmp [Op(Equal), Data(Value([10, 0, 0, 2]))]",
                "meta Key(L4Proto)",
                "cmp [Op(Equal), Data(Value([6]))]",
                "payload [Base(2), Offset(2), Len(2)]",
                "cmp [Op(GreatherThanEqual), Data(Value([0, 80]))]",
                "cmp [Op(LessThanEqual), Data(Value([0, 89]))]",
                "counter",
                drop
            ]
        );
        assert_eq!(
            text(port)[1..8],
            [
                "cmp [Op(Equal), Data(Value([134, 221]))]",
                "payload [Base(1), Offset(24), Len(16)]",
                "cmp [Op(Equal), Data(Value([253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]))]",
                "meta Key(L4Proto)",
                "cmp [Op(Equal), Data(Value([17]))]",
                "payload [Base(2), Offset(2), Len(2)]",
                "cmp [Op(Equal), Data(Value([0, 53]))]",
            ]
        );
        assert_eq!(text(whole)[4..], ["counter", drop]);
    }

    #[test]
    fn a_batch_is_numbered() {
        let bytes = batch("wirestack_1", "eth0", &claims()).concat();
        let found: Vec<_> = netlink::messages(&bytes).map(|m| (m.sequence, m.kind)).collect();
        // Batch begin and end; new table, chain and rules of subsystem 10.
        assert_eq!(found, [(1, 16), (2, 0xa00), (3, 0xa03), (4, 0xa06), (5, 0xa06), (6, 0xa06), (7, 17)]);
        let places: Vec<_> = (0..=8).map(|sequence| Place::of(sequence, 3)).collect();
        use Place::{Batch, Chain, Rule, Table};
        assert_eq!(places, [Batch, Batch, Table, Chain, Rule(0), Rule(1), Rule(2), Batch, Batch]);
    }

    #[test]
    fn counters_are_found() {
        // A new rule has the form of a listed one, with counters of 0.
        let bytes = batch("wirestack_1", "eth0", &claims()).concat();
        let packets = |table| -> Vec<_> {
            netlink::messages(&bytes).filter_map(|message| rule_packets(message, table)).collect()
        };
        assert_eq!(packets("wirestack_1"), [0, 0, 0]);
        assert_eq!(packets("wirestack_2"), []);
    }

    proptest! {
        #[test]
        fn damaged_answers_do_not_panic(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..16),
        ) {
            let mut bytes = batch("wirestack_1", "eth0", &claims()).concat();
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            for message in netlink::messages(&bytes) {
                let _ = rule_packets(message, "wirestack_1");
            }
        }
    }
}
