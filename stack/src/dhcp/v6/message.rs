//! Messages of DHCPv6: the one that is sent, and the one that answers it.

use std::net::Ipv6Addr;

use crate::dhcp::v4::LIST_LEN_MAX;
use crate::dns::name;

/// An INFORMATION-REQUEST with the client's identifier, the time since the first one, and what is asked for.
pub(super) fn information_request(transaction_id: u32, duid: &[u8], hundredths: u16) -> Vec<u8> {
    let [_, a, b, c] = transaction_id.to_be_bytes();
    let mut message = vec![INFORMATION_REQUEST, a, b, c];
    let mut put = |code: u16, data: &[u8]| {
        // The longest is a DUID, of 130 bytes.
        let len = data.len() as u16;
        message.extend(code.to_be_bytes());
        message.extend(len.to_be_bytes());
        message.extend(data);
    };
    put(CLIENT_ID, duid);
    let wanted = [DNS_SERVERS, DOMAIN_LIST, INFORMATION_REFRESH_TIME, INF_MAX_RT];
    put(OPTION_REQUEST, &wanted.map(u16::to_be_bytes).concat());
    put(ELAPSED_TIME, &hundredths.to_be_bytes());
    message
}

/// What a server says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reply<'a> {
    pub(super) transaction_id: u32,
    pub(super) client_id: Option<&'a [u8]>,
    pub(super) is_success: bool,
    pub(super) dns: Vec<Ipv6Addr>,
    pub(super) search: Vec<String>,
    /// Seconds.
    pub(super) refresh: Option<u32>,
    /// Seconds, within bounds.
    pub(super) inf_max_rt: Option<u32>,
}

impl<'a> Reply<'a> {
    /// `None`: no Reply, one that is cut off, or one that does not say who it is from.
    pub(super) fn parse(payload: &'a [u8]) -> Option<Self> {
        let (&[REPLY, a, b, c], mut rest) = payload.split_first_chunk::<4>()? else { return None };
        let transaction_id = u32::from_be_bytes([0, a, b, c]);
        let mut reply = Self { transaction_id, is_success: true, ..Self::default() };
        let mut has_server_id = false;
        while !rest.is_empty() {
            let (&[c0, c1, l0, l1], after) = rest.split_first_chunk::<4>()?;
            let (data, after) = after.split_at_checked(u16::from_be_bytes([l0, l1]).into())?;
            rest = after;
            match u16::from_be_bytes([c0, c1]) {
                SERVER_ID => has_server_id = true,
                code => reply.take(code, data),
            }
        }
        //= rfc8415#16.10
        //# the message does not include a Server Identifier option (see
        //# Section 21.3).
        has_server_id.then_some(reply)
    }

    /// An option. The first of a kind counts; none may be there twice.
    fn take(&mut self, code: u16, data: &'a [u8]) {
        match code {
            CLIENT_ID if self.client_id.is_none() => self.client_id = Some(data),
            STATUS_CODE => self.is_success = matches!(data, [0, 0, ..]),
            DNS_SERVERS if self.dns.is_empty() => {
                let (chunks, _) = data.as_chunks::<16>();
                let servers = chunks.iter().map(|&chunk| Ipv6Addr::from(chunk));
                let is_host = |address: &Ipv6Addr| !address.is_multicast() && !address.is_unspecified();
                self.dns = servers.filter(is_host).take(LIST_LEN_MAX).collect();
            }
            DOMAIN_LIST if self.search.is_empty() => self.search = name::parse_list(data),
            INFORMATION_REFRESH_TIME => self.refresh = u32_of(data),
            //= rfc8415#21.25
            //# A DHCP client MUST ignore any INF_MAX_RT option values that are less
            //# than 60 or more than 86400.
            INF_MAX_RT => self.inf_max_rt = u32_of(data).filter(|seconds| (60..=86_400).contains(seconds)),
            _ => {}
        }
    }
}

fn u32_of(data: &[u8]) -> Option<u32> {
    data.try_into().ok().map(u32::from_be_bytes)
}

const REPLY: u8 = 7;
const INFORMATION_REQUEST: u8 = 11;

// Options (RFC 8415 section 21, RFC 3646).
const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const OPTION_REQUEST: u16 = 6;
const ELAPSED_TIME: u16 = 8;
const STATUS_CODE: u16 = 13;
const DNS_SERVERS: u16 = 23;
const DOMAIN_LIST: u16 = 24;
const INFORMATION_REFRESH_TIME: u16 = 32;
const INF_MAX_RT: u16 = 83;
