//! A packet socket: packet(7).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::batch::{self, BATCH_LEN, Received};
use super::checked;

/// An open packet socket that sees whole frames (SOCK_RAW).
#[derive(Debug)]
pub(crate) struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens a socket that receives nothing until it is bound (protocol 0).
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW in the user namespace that owns the network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) has no preconditions.
        let descriptor = checked(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: the descriptor was just opened, and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// Sets an option of SOL_PACKET whose value is an `int`.
    pub(crate) fn set_packet_option(&self, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        self.set(libc::SOL_PACKET, option, &value)
    }

    /// Sets an option of SOL_SOCKET whose value is an `int`.
    pub(crate) fn set_socket_option(&self, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, option, &value)
    }

    /// Makes a ring: `option` is PACKET_RX_RING or PACKET_TX_RING.
    ///
    /// # Errors
    /// EINVAL: the geometry breaks a rule. ENOMEM: the kernel has no memory for the blocks.
    pub(crate) fn set_ring(&self, option: libc::c_int, ring: &libc::tpacket_req) -> io::Result<()> {
        self.set(libc::SOL_PACKET, option, ring)
    }

    /// The same for TPACKET_V3.
    pub(crate) fn set_block_ring(&self, option: libc::c_int, ring: &libc::tpacket_req3) -> io::Result<()> {
        self.set(libc::SOL_PACKET, option, ring)
    }

    /// Lets frames to a hardware address pass the filter of an interface as long as the socket lives.
    pub(crate) fn join(&self, interface_index: i32, address: [u8; 6], is_group: bool) -> io::Result<()> {
        self.change_membership(libc::PACKET_ADD_MEMBERSHIP, interface_index, address_kind(is_group), address)
    }

    /// Takes back one `join`; the kernel counts them for each socket.
    pub(crate) fn leave(&self, interface_index: i32, address: [u8; 6], is_group: bool) -> io::Result<()> {
        self.change_membership(libc::PACKET_DROP_MEMBERSHIP, interface_index, address_kind(is_group), address)
    }

    /// Lets all frames pass the filter of an interface as long as the socket lives; the kernel counts who
    /// asks for this, so it ends with the last of them.
    pub(crate) fn listen_to_all(&self, interface_index: i32) -> io::Result<()> {
        self.change_membership(libc::PACKET_ADD_MEMBERSHIP, interface_index, libc::PACKET_MR_PROMISC, [0; 6])
    }

    fn change_membership(
        &self,
        option: libc::c_int,
        interface_index: i32,
        kind: libc::c_int,
        address: [u8; 6],
    ) -> io::Result<()> {
        let mut request = libc::packet_mreq {
            mr_ifindex: interface_index,
            mr_type: kind as libc::c_ushort,
            mr_alen: address.len() as libc::c_ushort,
            mr_address: [0; 8],
        };
        for (target, byte) in request.mr_address.iter_mut().zip(address) {
            *target = byte;
        }
        self.set(libc::SOL_PACKET, option, &request)
    }

    fn set<T: Copy>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
        let len = size_of::<T>() as libc::socklen_t;
        let value = std::ptr::from_ref(value).cast();
        // SAFETY: `value` points to `len` initialised bytes (an `int`, a `tpacket_req`, a
        // `tpacket_req3` or a `packet_mreq`, none of which has padding), borrowed for the call.
        checked(unsafe { libc::setsockopt(self.0.as_raw_fd(), level, option, value, len) })?;
        Ok(())
    }

    /// Packets seen and dropped since the last call, which this call sets back to zero
    /// (PACKET_STATISTICS). Freezes of the queue are told by TPACKET_V3 only.
    pub(crate) fn take_statistics(&self) -> io::Result<libc::tpacket_stats_v3> {
        let mut stats = libc::tpacket_stats_v3 { tp_packets: 0, tp_drops: 0, tp_freeze_q_cnt: 0 };
        let mut len = size_of::<libc::tpacket_stats_v3>() as libc::socklen_t;
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
        let value = (&raw mut stats).cast();
        // SAFETY: `value` points to `len` writable bytes, both borrowed for the call. The structure of the
        // older versions is the beginning of this one, and the kernel writes only as much.
        checked(unsafe { libc::getsockopt(self.0.as_raw_fd(), level, option, value, &raw mut len) })?;
        Ok(stats)
    }

    /// The error that waits on the socket, if any; taking it clears it (SO_ERROR).
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        let mut error: libc::c_int = 0;
        let mut len = size_of::<libc::c_int>() as libc::socklen_t;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_ERROR);
        let value = (&raw mut error).cast();
        // SAFETY: `value` points to `len` writable bytes, both borrowed for the call.
        checked(unsafe { libc::getsockopt(self.0.as_raw_fd(), level, option, value, &raw mut len) })?;
        Ok((error != 0).then(|| io::Error::from_raw_os_error(error)))
    }

    /// Binds to an interface, for frames of this protocol (ETH_P_ALL, or 0 for none).
    pub(crate) fn bind(&self, interface_index: i32, protocol: libc::c_int) -> io::Result<()> {
        // SAFETY: `sockaddr_ll` is integers and an array, for which zeroes are a valid value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (protocol as u16).to_be();
        address.sll_ifindex = interface_index;
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        let address = (&raw const address).cast();
        // SAFETY: `address` points to `len` initialised bytes, alive for the call.
        checked(unsafe { libc::bind(self.0.as_raw_fd(), address, len) })?;
        Ok(())
    }

    /// Lets the kernel take what waits in the TX ring; does not wait for room. Returns the bytes taken.
    pub(crate) fn kick(&self) -> io::Result<usize> {
        // SAFETY: a null buffer of length 0 is not read; with a TX ring the kernel reads the ring.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Sends frames, some of them at most; does not wait. Returns how many the kernel took.
    pub(crate) fn send_batch<'f>(&self, frames: impl Iterator<Item = &'f [u8]>) -> io::Result<usize> {
        batch::send(self.as_fd(), frames)
    }

    /// Receives frames, each into a buffer of its own; does not wait. Returns how many.
    pub(crate) fn receive_batch(
        &self,
        buffers: &mut [&mut [u8]],
        facts: &mut [Received; BATCH_LEN],
    ) -> io::Result<usize> {
        batch::receive(self.as_fd(), buffers, facts)
    }

    /// Takes one frame from the socket's queue; does not wait. Returns its whole length, which may
    /// exceed the buffer (MSG_TRUNC).
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        let start = buffer.as_mut_ptr().cast();
        // SAFETY: the buffer is borrowed mutably for the call, with its own length.
        let received = unsafe { libc::recv(self.0.as_raw_fd(), start, buffer.len(), flags) };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }
}

/// Of a membership in a group, or of one more address of our own.
fn address_kind(is_group: bool) -> libc::c_int {
    if is_group { libc::PACKET_MR_MULTICAST } else { libc::PACKET_MR_UNICAST }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
