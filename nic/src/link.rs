//! What an interface is: name, index, MTU, MAC address, whether it is up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use smoltcp::wire::EthernetAddress;

use crate::LinkState;
use crate::sys::interface;

/// Facts on an Ethernet interface at the time of [`Interface::by_name`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's name, `eth0`.
    pub name: String,
    /// The kernel's number, which stays when the interface is renamed.
    pub index: i32,
    /// Bytes of the largest packet, Ethernet header not counted.
    pub mtu: usize,
    /// The interface's own hardware address.
    pub mac: EthernetAddress,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it is of the kind Ethernet: frames begin with an Ethernet header.
    pub ethernet: bool,
}

impl Interface {
    /// Looks an interface up in the network namespace of the calling thread. Needs no privilege.
    ///
    /// # Errors
    /// ENODEV: there is no such interface. EINVAL: a name has 1 to 15 bytes.
    pub fn by_name(name: &str) -> io::Result<Self> {
        let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        Self::ask(socket.as_fd(), name)
    }

    /// As [`by_name`](Self::by_name), in the network namespace of a socket.
    pub(crate) fn ask(socket: BorrowedFd<'_>, name: &str) -> io::Result<Self> {
        let index = interface::index(socket, name)?;
        let (hardware_type, mac) = interface::hardware(socket, index)?;
        let mtu = usize::try_from(interface::mtu(socket, index)?).unwrap_or(0);
        Ok(Self {
            name: name.to_owned(),
            index,
            mtu,
            mac: EthernetAddress(mac),
            up: interface::flags(socket, index)? & libc::IFF_UP != 0,
            // The loopback interface has Ethernet headers too, with addresses of zeroes.
            ethernet: matches!(hardware_type, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK),
        })
    }
}

/// Whether the interface of this index carries frames, in the network namespace of a socket.
pub(crate) fn state(socket: BorrowedFd<'_>, index: i32) -> LinkState {
    match interface::flags(socket, index) {
        Ok(flags) if flags & libc::IFF_UP != 0 && flags & libc::IFF_RUNNING != 0 => LinkState::Up,
        Ok(_) => LinkState::Down,
        Err(_) => LinkState::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known() {
        let lo = Interface::by_name("lo").expect("every namespace has it");
        assert_eq!((lo.index, lo.ethernet), (1, true));
        assert!(lo.mtu >= 1500);
    }

    #[test]
    fn names_that_cannot_be_are_refused_in_words_of_the_kernel() {
        for (name, errno) in
            [("no-such-if", libc::ENODEV), ("", libc::EINVAL), ("sixteen-bytes-xx", libc::EINVAL)]
        {
            let error = Interface::by_name(name).expect_err(name);
            assert_eq!(error.raw_os_error(), Some(errno), "{name:?}");
        }
    }
}
