//! Names of domains: how they are written, compared and read from messages.

use std::fmt;
use std::net::IpAddr;

use smoltcp::wire::DnsPacket;

/// A name in the form of a message, without compression: each label after its length, then a zero. It is in
/// lower case, for case does not matter (RFC 1035 section 2.3.3).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing between two dots, or nothing at all.
    #[error("a label is empty; write it as in www.example.com")]
    EmptyLabel,
    /// RFC 1035 section 2.3.4.
    #[error("a label has {len} bytes; 1 to 63 are accepted")]
    LabelTooLong {
        /// As written.
        len: usize,
    },
    /// RFC 1035 section 2.3.4.
    #[error("it is too long; at most 253 characters are accepted")]
    TooLong,
    /// International names are not encoded here.
    #[error("{0:?} cannot be in a name; printable ASCII is accepted, and international names as xn--…")]
    Character(char),
}

impl Name {
    /// Reads a text: labels with dots between them, and one at the end if you like.
    ///
    /// # Errors
    /// It is no name: see [`NameError`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut bytes = Vec::with_capacity(text.len() + 2);
        for label in text.split('.') {
            if let Some(wrong) = label.chars().find(|c| !c.is_ascii_graphic() || *c == '\\') {
                return Err(NameError::Character(wrong));
            }
            match label.len() {
                0 => return Err(NameError::EmptyLabel),
                len @ 1..=LABEL_BYTES_MAX => bytes.push(len as u8),
                len => return Err(NameError::LabelTooLong { len }),
            }
            bytes.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        bytes.push(0);
        if bytes.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        Ok(Self(bytes.into()))
    }

    /// This name within a domain. `None`: it would be too long.
    pub fn within(&self, domain: &Self) -> Option<Self> {
        let own = self.0.strip_suffix(&[0])?;
        let bytes = [own, &domain.0].concat();
        (bytes.len() <= NAME_BYTES_MAX).then(|| Self(bytes.into()))
    }

    /// The name under which the names of an address are (RFC 1035 section 3.5, RFC 3596 section 2.5).
    pub fn reverse(address: IpAddr) -> Self {
        let mut bytes = Vec::with_capacity(74);
        let mut push = |label: &[u8]| {
            // The labels below have up to 7 bytes.
            bytes.push(label.len() as u8);
            bytes.extend(label);
        };
        match address {
            IpAddr::V4(address) => {
                address.octets().iter().rev().for_each(|octet| push(octet.to_string().as_bytes()));
                push(b"in-addr");
            }
            IpAddr::V6(address) => {
                let nibbles = address.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
                nibbles.for_each(|nibble| push(format!("{nibble:x}").as_bytes()));
                push(b"ip6");
            }
        }
        push(b"arpa");
        bytes.push(0);
        Self(bytes.into())
    }

    /// A name within a message. `None`: it is longer than a name may be, or not whole.
    pub(super) fn read(packet: &DnsPacket<&[u8]>, at: &[u8]) -> Option<Self> {
        let mut bytes = Vec::new();
        // Every label adds two bytes at least, so this ends after 127 of them; a label comes after a bounded
        // number of pointers, for each points to before the one in front of it.
        for label in packet.parse_name(at) {
            let label = label.ok()?;
            if bytes.len() + label.len() + 2 > NAME_BYTES_MAX {
                return None;
            }
            bytes.push(u8::try_from(label.len()).ok()?);
            bytes.extend(label.iter().map(u8::to_ascii_lowercase));
        }
        bytes.push(0);
        Some(Self(bytes.into()))
    }

    /// As in a message.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many dots are between the labels.
    pub fn dots(&self) -> usize {
        self.labels().count().saturating_sub(1)
    }

    /// Whether the last label is this one, which is in lower case.
    pub(super) fn is_below(&self, top: &str) -> bool {
        self.labels().last() == Some(top.as_bytes())
    }

    fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (&len, after) = rest.split_first().filter(|(len, _)| **len > 0)?;
            let (label, after) = after.split_at_checked(len.into())?;
            rest = after;
            Some(label)
        })
    }
}

/// Without a dot at the end. Bytes that could fool a reader are written as numbers (RFC 1035 section 5.1).
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() <= 1 {
            return f.write_str(".");
        }
        for (index, label) in self.labels().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            for &byte in label {
                match byte {
                    b'.' | b'\\' => write!(f, "\\{}", char::from(byte))?,
                    0x21..0x7f => write!(f, "{}", char::from(byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Names one after the other, as options of DHCP hold them: with pointers into the option (RFC 3397) or
/// without (RFC 8415 section 10). Up to 32; the first that cannot be is the end.
pub(crate) fn parse_list(bytes: &[u8]) -> Vec<String> {
    let packet = DnsPacket::new_unchecked(bytes);
    let mut names = Vec::new();
    let mut rest = bytes;
    while let Some(len) = encoded_len(rest)
        && names.len() < crate::dhcp::v4::LIST_LEN_MAX
    {
        let Some(name) = Name::read(&packet, rest).filter(|name| name.as_bytes().len() > 1) else { break };
        names.push(name.to_string());
        rest = rest.get(len..).unwrap_or_default();
    }
    names
}

/// Bytes of the name at the start of `bytes`, up to its end or its pointer.
pub(super) fn encoded_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0_usize;
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            len @ 1..=0x3f => at += 1 + usize::from(len),
            0xc0.. => return bytes.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

const LABEL_BYTES_MAX: usize = 63;
/// With the lengths of labels and the zero at the end.
const NAME_BYTES_MAX: usize = 255;
