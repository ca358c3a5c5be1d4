//! Netlink replies, walked with bounds: whatever bytes come, nothing here panics.
//!
//! The layout is that of `struct nlmsghdr` and `struct nlattr` (netlink(7), linux/netlink.h): host byte
//! order, everything aligned to 4 bytes.

use std::io;

use netlink_sys::Socket;

/// One message of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

impl Message<'_> {
    /// What an NLMSG_ERROR says: `Ok` is an acknowledgement. `None`: another kind of message.
    pub(super) fn acknowledgement(&self) -> Option<io::Result<()>> {
        if self.kind != NLMSG_ERROR {
            return None;
        }
        Some(match self.payload.first_chunk().copied().map(i32::from_ne_bytes) {
            Some(0) => Ok(()),
            Some(negative_errno) => Err(io::Error::from_raw_os_error(negative_errno.saturating_neg())),
            None => Err(io::Error::from(io::ErrorKind::InvalidData)),
        })
    }
}

/// The messages of a datagram, up to the first that does not fit.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*datagram.first_chunk()?)).ok()?;
        let message = Message {
            kind: u16::from_ne_bytes(*datagram.get(4..)?.first_chunk()?),
            sequence: u32::from_ne_bytes(*datagram.get(8..)?.first_chunk()?),
            payload: datagram.get(HEADER_LEN..length)?,
        };
        datagram = after(datagram, length);
        Some(message)
    })
}

/// Kind (without the flags for nesting and byte order) and value of each attribute, up to the first
/// that does not fit.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & ATTRIBUTE_KIND;
        let value = bytes.get(4..length)?;
        bytes = after(bytes, length);
        Some((kind, value))
    })
}

/// Value of the first attribute of a kind.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|&(found, _)| found == kind).map(|(_, value)| value)
}

/// The next datagram, if one is queued. The kernel answers netfilter and route requests before
/// `sendmsg` returns, so nobody has to wait for an answer.
pub(super) fn receive_queued(socket: &Socket) -> io::Result<Option<Vec<u8>>> {
    let mut datagram = Vec::with_capacity(DATAGRAM_LEN_MAX);
    match socket.recv(&mut datagram, libc::MSG_DONTWAIT) {
        Ok(_) => Ok(Some(datagram)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// What follows an item of this length, at the next multiple of 4.
fn after(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(length.next_multiple_of(4)..).unwrap_or_default()
}

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const HEADER_LEN: usize = 16;

/// Without NLA_F_NESTED and NLA_F_NET_BYTEORDER.
const ATTRIBUTE_KIND: u16 = 0x3fff;

/// The kernel fills a part of a dump to at most 32 KB (`netlink_dump` in net/netlink/af_netlink.c).
const DATAGRAM_LEN_MAX: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_LEN + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn acknowledgements() {
        let refused = -libc::EPERM;
        let datagram =
            [message(2, 7, &[0; 20]), message(2, 8, &refused.to_ne_bytes()), message(2, 9, &[1])].concat();
        let said: Vec<_> = messages(&datagram)
            .map(|message| (message.sequence, message.acknowledgement().unwrap()))
            .map(|(sequence, said)| (sequence, said.err().map(|error| error.raw_os_error())))
            .collect();
        assert_eq!(said, [(7, None), (8, Some(Some(libc::EPERM))), (9, Some(None))]);
        let other = message(3, 1, &[]);
        assert!(messages(&other).next().unwrap().acknowledgement().is_none());
    }

    #[test]
    fn attributes_end_at_damage() {
        let mut bytes = vec![];
        for (kind, value) in [(1_u16, &b"ab"[..]), (0x8002, b"cdef"), (3, b"")] {
            bytes.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let found: Vec<_> = attributes(&bytes).collect();
        assert_eq!(found, [(1, &b"ab"[..]), (2, b"cdef"), (3, b"")]);
        assert_eq!(attribute(&bytes, 2), Some(&b"cdef"[..]));
        assert_eq!(attributes(&bytes[..15]).count(), 1);
        // A length of 0 to 3 would never end.
        assert_eq!(attributes(&[0; 64]).count(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(messages(&bytes).count() <= bytes.len() / HEADER_LEN);
            prop_assert!(attributes(&bytes).count() <= bytes.len() / 4);
            for message in messages(&bytes) {
                let _ = message.acknowledgement();
            }
        }
    }
}
