//! Many frames by one system call: recvmmsg(2) and sendmmsg(2) on a packet socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What the kernel tells beside a received frame.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Received {
    /// Bytes of the frame, and of its virtio_net_hdr if the socket has these; may exceed the buffer.
    pub(crate) len: usize,
    /// Bytes of the frame on the wire (`tp_len` of `struct tpacket_auxdata`), of which a filter may have left
    /// fewer; 0: not told.
    pub(crate) wire_len: usize,
    /// TP_STATUS_* of `struct tpacket_auxdata`.
    pub(crate) status: u32,
    /// `tp_vlan_tci` of it.
    pub(crate) vlan_tci: u16,
    /// `tp_vlan_tpid` of it.
    pub(crate) vlan_tpid: u16,
    /// `sll_pkttype` of the address.
    pub(crate) packet_type: u8,
    /// Nanoseconds since 1970 (SO_TIMESTAMPNS); 0: not told.
    pub(crate) timestamp_nanos: u64,
}

/// Receives up to [`BATCH_LEN`] frames, each into a buffer of its own; does not wait. Returns how many;
/// `facts` has what is known of each.
///
/// # Errors
/// WouldBlock: there is none. What waits on the socket (ENETDOWN) is told once.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffers: &mut [&mut [u8]],
    facts: &mut [Received; BATCH_LEN],
) -> io::Result<usize> {
    // What the kernel is told of each buffer is made anew in each call, for as many as there may be.
    match buffers.len() {
        0..=4 => receive_up_to::<4>(socket, buffers, facts),
        5..=16 => receive_up_to::<16>(socket, buffers, facts),
        _ => receive_up_to::<BATCH_LEN>(socket, buffers, facts),
    }
}

fn receive_up_to<const N: usize>(
    socket: BorrowedFd<'_>,
    buffers: &mut [&mut [u8]],
    facts: &mut [Received; BATCH_LEN],
) -> io::Result<usize> {
    let count = buffers.len().min(N);
    // SAFETY: integers, pointers and arrays of them, for which zeroes are a valid value.
    let mut headers: [libc::mmsghdr; N] = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut vectors: [libc::iovec; N] = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut addresses: [libc::sockaddr_ll; N] = unsafe { std::mem::zeroed() };
    let mut controls = [Control([0; CONTROL_LEN]); N];
    for index in 0..count {
        vectors[index] =
            libc::iovec { iov_base: buffers[index].as_mut_ptr().cast(), iov_len: buffers[index].len() };
        let header = &mut headers[index].msg_hdr;
        header.msg_iov = &raw mut vectors[index];
        header.msg_iovlen = 1;
        header.msg_name = (&raw mut addresses[index]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        header.msg_control = controls[index].0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL_LEN as _;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    let (start, len) = (headers.as_mut_ptr(), count as libc::c_uint);
    // SAFETY: the first `count` headers point to buffers that are borrowed mutably, to vectors, addresses
    // and control areas of this function, each with its own length, all alive for the call.
    let received =
        unsafe { libc::recvmmsg(socket.as_raw_fd(), start, len, flags as _, std::ptr::null_mut()) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    for index in 0..received.min(count) {
        let header = &headers[index];
        facts[index] = Received {
            len: header.msg_len as usize,
            packet_type: addresses[index].sll_pkttype,
            ..Received::default()
        };
        read_control(&header.msg_hdr, &mut facts[index]);
    }
    Ok(received)
}

/// Reads the control messages that the kernel has written for one frame.
fn read_control(header: &libc::msghdr, facts: &mut Received) {
    // SAFETY: `header` is one that recvmmsg has filled, and its control area is alive: `receive` calls
    // this before either goes.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: not null, and CMSG_FIRSTHDR and CMSG_NXTHDR point only to whole headers in the area.
        let found = unsafe { message.read_unaligned() };
        // SAFETY: as above; the data of a message follows its header.
        let data = unsafe { libc::CMSG_DATA(message) };
        let has = |len: usize| found.cmsg_len as usize >= size_of::<libc::cmsghdr>() + len;
        match (found.cmsg_level, found.cmsg_type) {
            (libc::SOL_PACKET, libc::PACKET_AUXDATA) if has(size_of::<libc::tpacket_auxdata>()) => {
                // SAFETY: the message is that long, checked; integers, of which any bits are valid.
                let aux = unsafe { data.cast::<libc::tpacket_auxdata>().read_unaligned() };
                facts.wire_len = aux.tp_len as usize;
                facts.status = aux.tp_status;
                facts.vlan_tci = aux.tp_vlan_tci;
                facts.vlan_tpid = aux.tp_vlan_tpid;
            }
            (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS) if has(size_of::<libc::timespec>()) => {
                // SAFETY: as above.
                let time = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                let seconds = (time.tv_sec as u64).wrapping_mul(1_000_000_000);
                facts.timestamp_nanos = seconds.wrapping_add(time.tv_nsec as u64);
            }
            _ => {}
        }
        // SAFETY: `header` and `message` as above.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
}

/// Sends frames, at most [`BATCH_LEN`], in their order; does not wait. Returns how many the kernel took.
///
/// # Errors
/// What the kernel says of the first frame; those before a refused one were taken, and the next call
/// tells its error.
pub(crate) fn send<'a>(
    socket: BorrowedFd<'_>,
    frames: impl IntoIterator<Item = &'a [u8]>,
) -> io::Result<usize> {
    let mut frames = frames.into_iter().peekable();
    let Some(first) = frames.next() else { return Ok(0) };
    // One frame is what an answer is: it is not worth a batch.
    if frames.peek().is_none() {
        return send_one(socket, first);
    }
    // SAFETY: integers, pointers and arrays of them, for which zeroes are a valid value.
    let mut headers: [libc::mmsghdr; BATCH_LEN] = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut vectors: [libc::iovec; BATCH_LEN] = unsafe { std::mem::zeroed() };
    let mut count = 0;
    let frames = std::iter::once(first).chain(frames);
    for (frame, (header, vector)) in frames.zip(headers.iter_mut().zip(&mut vectors)) {
        *vector = libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        count += 1;
    }
    let flags = libc::MSG_DONTWAIT;
    let start = headers.as_mut_ptr();
    // SAFETY: the first `count` headers point to vectors of this function and to frames that are borrowed
    // for the call, which the kernel only reads.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), start, count, flags as _) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn send_one(socket: BorrowedFd<'_>, frame: &[u8]) -> io::Result<usize> {
    let (start, flags) = (frame.as_ptr().cast(), libc::MSG_DONTWAIT);
    // SAFETY: the frame is borrowed for the call, with its own length.
    let sent = unsafe { libc::send(socket.as_raw_fd(), start, frame.len(), flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(1) }
}

/// Frames of one system call, at most.
pub(crate) const BATCH_LEN: usize = 64;

/// Bytes for the control messages of a frame: auxiliary data and a timestamp.
const CONTROL_LEN: usize = 128;

/// A control area, aligned as `struct cmsghdr` wants it.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Control([u8; CONTROL_LEN]);
