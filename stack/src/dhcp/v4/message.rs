//! Messages of DHCPv4: requests are written, replies read.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use smoltcp::wire::{
    ArpHardware, DhcpFlags, DhcpMessageType, DhcpOpCode, DhcpOption, DhcpOptionWriter, DhcpPacket,
    EthernetAddress,
};

use super::lease::LIST_LEN_MAX;

/// Numbers of options (RFC 2132 and later).
pub(super) mod kind {
    pub(crate) const SUBNET_MASK: u8 = 1;
    pub(crate) const ROUTER: u8 = 3;
    pub(crate) const DNS: u8 = 6;
    pub(crate) const HOST_NAME: u8 = 12;
    pub(crate) const DOMAIN: u8 = 15;
    pub(crate) const MTU: u8 = 26;
    pub(crate) const BROADCAST: u8 = 28;
    pub(crate) const REQUESTED_ADDRESS: u8 = 50;
    pub(crate) const LEASE_TIME: u8 = 51;
    pub(crate) const OVERLOAD: u8 = 52;
    pub(crate) const MESSAGE_TYPE: u8 = 53;
    pub(crate) const SERVER_ID: u8 = 54;
    pub(crate) const PARAMETER_LIST: u8 = 55;
    pub(crate) const MESSAGE_SIZE_MAX: u8 = 57;
    pub(crate) const T1: u8 = 58;
    pub(crate) const T2: u8 = 59;
    pub(crate) const CLIENT_ID: u8 = 61;
    pub(crate) const SEARCH: u8 = 119;
    pub(crate) const CLASSLESS_ROUTES: u8 = 121;
}

/// What a client says.
pub(super) struct Request<'a> {
    pub(super) message_type: DhcpMessageType,
    pub(super) xid: u32,
    pub(super) secs: u16,
    pub(super) is_broadcast: bool,
    /// `ciaddr`: the address that the client has and answers for.
    pub(super) client_address: Ipv4Addr,
    pub(super) mac: EthernetAddress,
    pub(super) client_id: &'a [u8],
    pub(super) hostname: Option<&'a str>,
    pub(super) requested: Option<Ipv4Addr>,
    pub(super) server: Option<Ipv4Addr>,
    pub(super) message_bytes_max: u16,
}

impl Request<'_> {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; REQUEST_BYTES_MAX];
        let mut packet = DhcpPacket::new_unchecked(&mut bytes[..]);
        packet.set_opcode(DhcpOpCode::Request);
        packet.set_hardware_type(ArpHardware::Ethernet);
        packet.set_hardware_len(6);
        packet.set_transaction_id(self.xid);
        packet.set_secs(self.secs);
        packet.set_flags(if self.is_broadcast { DhcpFlags::BROADCAST } else { DhcpFlags::empty() });
        packet.set_client_ip(self.client_address);
        packet.set_client_hardware_address(self.mac);
        packet.set_magic_number(MAGIC);
        let left = self.write_options(packet.options_mut());
        // A BOOTP message has at least 300 bytes (RFC 1542 section 2.1): relays throw away what is shorter.
        bytes.truncate((REQUEST_BYTES_MAX - left).max(BOOTP_BYTES_MIN));
        bytes
    }

    /// Writes the options and says how many bytes are left.
    fn write_options(&self, mut options: DhcpOptionWriter<'_>) -> usize {
        let mut left = REQUEST_BYTES_MAX - FIXED_BYTES;
        let mut put = |kind: u8, data: &[u8]| {
            // All options together fit: they are cut to lengths that do.
            if options.emit(DhcpOption { kind, data }).is_ok() {
                left -= 2 + data.len();
            }
        };
        put(kind::MESSAGE_TYPE, &[self.message_type.into()]);
        put(kind::CLIENT_ID, self.client_id.get(..CLIENT_ID_BYTES_MAX).unwrap_or(self.client_id));
        if let Some(address) = self.requested {
            put(kind::REQUESTED_ADDRESS, &address.octets());
        }
        if let Some(server) = self.server {
            put(kind::SERVER_ID, &server.octets());
        }
        if matches!(self.message_type, DhcpMessageType::Discover | DhcpMessageType::Request) {
            //= rfc2131#3.5
            //# The client SHOULD include the 'maximum DHCP message size' option to
            //# let the server know how large the server may make its DHCP messages.
            put(kind::MESSAGE_SIZE_MAX, &self.message_bytes_max.to_be_bytes());
            put(kind::PARAMETER_LIST, &PARAMETERS);
            if let Some(name) = self.hostname.filter(|name| !name.is_empty()) {
                let name = name.as_bytes();
                put(kind::HOST_NAME, name.get(..HOST_NAME_BYTES_MAX).unwrap_or(name));
            }
        }
        if options.end().is_ok() {
            left -= 1;
        }
        left
    }
}

/// What a server says.
pub(super) struct Reply {
    pub(super) message_type: DhcpMessageType,
    pub(super) xid: u32,
    pub(super) mac: EthernetAddress,
    /// `yiaddr`.
    pub(super) your_address: Ipv4Addr,
    pub(super) options: Options,
}

impl Reply {
    /// `None`: no reply of DHCP to a host on Ethernet.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let packet = DhcpPacket::new_checked(payload).ok()?;
        let is_ours = packet.opcode() == DhcpOpCode::Reply
            && packet.hardware_type() == ArpHardware::Ethernet
            && packet.hardware_len() == 6
            && packet.magic_number() == MAGIC;
        if !is_ours {
            return None;
        }
        let options = Options::parse(payload)?;
        let &[message_type] = options.get(kind::MESSAGE_TYPE)? else { return None };
        Some(Self {
            message_type: message_type.into(),
            xid: packet.transaction_id(),
            mac: packet.client_hardware_address(),
            your_address: packet.your_ip(),
            options,
        })
    }
}

/// The options of a message, those that come in pieces put together.
#[derive(Debug, Default)]
pub(super) struct Options(BTreeMap<u8, Vec<u8>>);

impl Options {
    /// `None`: an option is longer than its field, or one that says where options are is none.
    fn parse(payload: &[u8]) -> Option<Self> {
        let mut options = Self::default();
        options.append(payload.get(FIXED_BYTES..)?)?;
        // The pieces are in order: options field, `file`, `sname` (RFC 3396 section 5). What is in the latter
        // two cannot say that they hold options.
        let overload = match options.get(kind::OVERLOAD) {
            None => 0,
            Some(&[overload @ 1..=3]) => overload,
            Some(_) => return None,
        };
        if overload & 1 != 0 {
            options.append(payload.get(FILE)?)?;
        }
        if overload & 2 != 0 {
            options.append(payload.get(SERVER_NAME)?)?;
        }
        Some(options)
    }

    /// Adds what a field holds, up to its end mark.
    fn append(&mut self, mut field: &[u8]) -> Option<()> {
        while let Some((&kind, rest)) = field.split_first() {
            match kind {
                PAD => field = rest,
                END => break,
                _ => {
                    let (&len, rest) = rest.split_first()?;
                    let (data, rest) = rest.split_at_checked(len.into())?;
                    // No option is longer than the message that carries it.
                    self.0.entry(kind).or_default().extend_from_slice(data);
                    field = rest;
                }
            }
        }
        Some(())
    }

    pub(super) fn get(&self, kind: u8) -> Option<&[u8]> {
        self.0.get(&kind).map(Vec::as_slice)
    }

    pub(super) fn u16(&self, kind: u8) -> Option<u16> {
        self.get(kind)?.try_into().ok().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&self, kind: u8) -> Option<u32> {
        self.get(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub(super) fn address(&self, kind: u8) -> Option<Ipv4Addr> {
        self.u32(kind).map(Ipv4Addr::from)
    }

    /// A list of addresses of hosts; others in it are left out.
    pub(super) fn addresses(&self, kind: u8) -> Vec<Ipv4Addr> {
        let (chunks, _) = self.get(kind).unwrap_or_default().as_chunks::<4>();
        let hosts = chunks.iter().map(|&chunk| Ipv4Addr::from(chunk));
        hosts.filter(|&address| super::lease::is_host(address)).take(LIST_LEN_MAX).collect()
    }
}

/// What the client asks for. It knows the time by itself, so it asks for no NTP server.
// RFC 3442, "DHCP Client Behavior": the list of routes is asked for before routers.
const PARAMETERS: [u8; 11] = [
    kind::SUBNET_MASK,
    kind::CLASSLESS_ROUTES,
    kind::ROUTER,
    kind::DNS,
    kind::DOMAIN,
    kind::SEARCH,
    kind::MTU,
    kind::BROADCAST,
    kind::LEASE_TIME,
    kind::T1,
    kind::T2,
];

const PAD: u8 = 0;
const END: u8 = 255;
/// The magic cookie (RFC 2131 section 3).
const MAGIC: u32 = 0x6382_5363;
/// Of the header with the magic cookie.
const FIXED_BYTES: usize = 240;
const SERVER_NAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;
const BOOTP_BYTES_MIN: usize = 300;
/// What every server takes (RFC 2131 section 2: a message of 576 bytes, without headers of IP and UDP).
const REQUEST_BYTES_MAX: usize = 548;
/// Of a name of a host: a label.
const HOST_NAME_BYTES_MAX: usize = 63;
/// A type, an IAID and a DUID (RFC 4361, RFC 8415 section 11.1).
const CLIENT_ID_BYTES_MAX: usize = 1 + 4 + 130;
