//! An address prefix.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The addresses that begin with the same bits: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

/// Why a text is not a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParsePrefixError {
    /// No address.
    #[error("{0:?} is no prefix; write an IPv4 or IPv6 address, with a length behind a slash if wanted")]
    Address(String),
    /// No length.
    #[error("{found:?} is no length of a prefix; {max} is the longest of this family")]
    Length {
        /// What is behind the slash.
        found: String,
        /// Bits of an address.
        max: u8,
    },
    /// The address has bits behind the length.
    #[error("{found:?} has bits behind its length; write {right}")]
    HostBits {
        /// The text.
        found: String,
        /// What would be right.
        right: Prefix,
    },
}

impl Prefix {
    /// The first `len` bits of an address: 0 to 32 for IPv4, 0 to 128 for IPv6; more are taken as all. Other
    /// bits are cleared.
    pub fn new(address: IpAddr, len: u8) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let len = len.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                Self { address: Ipv4Addr::from(u32::from(v4) & mask).into(), len }
            }
            IpAddr::V6(v6) => {
                let len = len.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                Self { address: Ipv6Addr::from(u128::from(v6) & mask).into(), len }
            }
        }
    }

    /// The lowest of its addresses.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits count.
    #[allow(clippy::len_without_is_empty, reason = "a length in bits; a prefix is never empty")]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether an address begins with the prefix. IPv4-mapped addresses are IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && Self::new(address, self.len).address == self.address
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self::new(address, u8::MAX)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

impl FromStr for Prefix {
    type Err = ParsePrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address_text, len_text) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len)),
            None => (text, None),
        };
        let address: IpAddr =
            address_text.parse().map_err(|_| ParsePrefixError::Address(text.chars().take(60).collect()))?;
        let Some(len_text) = len_text else {
            return Ok(address.into());
        };
        let max = if address.is_ipv4() { 32 } else { 128 };
        match len_text.parse() {
            Ok(len) if len <= max => {
                let right = Self::new(address, len);
                let found = text.to_owned();
                if right.address == address {
                    Ok(right)
                } else {
                    Err(ParsePrefixError::HostBits { found, right })
                }
            }
            _ => Err(ParsePrefixError::Length { found: len_text.chars().take(60).collect(), max }),
        }
    }
}
