//! Opening: name → device file → interface → header → offloads → look up → up.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use managed::ManagedSlice;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::Counters;
use crate::link::Interface;
use crate::offload::ETHERNET_HEADER_LEN;
use crate::offload::virtio::VIRTIO_NET_HDR_LEN;
use crate::sys::ethtool::InterfaceName;
use crate::sys::{interface, tun};
use crate::wait::Waker;

use super::{Inbox, Link, Outbox, Tap, TapKind};

/// How to open a [`Tap`].
#[derive(Debug)]
pub struct TapConfig<'a> {
    /// Frames with or without an Ethernet header.
    pub kind: TapKind,
    /// Whether frames carry a `virtio_net_hdr`: absent checksums and super-frames of up to 64 KB in both
    /// directions. Without it the kernel does all of that before it hands a frame over, and so do we.
    pub vnet_hdr: bool,
    /// Whether the interface has several queues: each [`Tap`] that is opened with its name is one, and
    /// the kernel keeps a flow on one of them. Must be so for all of them.
    pub multi_queue: bool,
    /// Whether an interface that is made here is set up as well. One that exists stays as it is.
    pub set_up: bool,
    /// Where a received frame is put, behind its header; longer ones are lost and counted as
    /// `rx_truncated`. Default: 64 KiB and the headers.
    pub rx_buffer: ManagedSlice<'a, u8>,
    /// Where a frame to be sent is written, behind its header. Default: the same.
    pub tx_buffer: ManagedSlice<'a, u8>,
}

impl TapConfig<'_> {
    /// The default for an interface of this kind.
    pub fn new(kind: TapKind) -> Self {
        Self {
            kind,
            vnet_hdr: true,
            multi_queue: false,
            set_up: true,
            rx_buffer: ManagedSlice::Owned(vec![0; BUFFER_LEN]),
            tx_buffer: ManagedSlice::Owned(vec![0; BUFFER_LEN]),
        }
    }
}

/// The step of opening at which [`TapError`] happened, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TapStep {
    /// The name itself.
    Name,
    /// `/dev/net/tun`.
    Device,
    /// TUNSETIFF: attaching to the interface, or making it.
    Attach,
    /// TUNSETVNETHDRSZ.
    Header,
    /// TUNSETOFFLOAD.
    Offloads,
    /// Looking the interface up, and setting it up if it is new.
    Interface,
}

impl fmt::Display for TapStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "take the name",
            Self::Device => "open /dev/net/tun for",
            Self::Attach => "attach to",
            Self::Header => "choose the header of",
            Self::Offloads => "choose the offloads of",
            Self::Interface => "look up",
        })
    }
}

/// Why a TAP or TUN interface could not be opened. An interface that was made on the way is gone again.
#[derive(Debug)]
#[non_exhaustive]
pub struct TapError {
    /// The step that failed.
    pub step: TapStep,
    /// What was to be opened.
    pub kind: TapKind,
    /// Name of the interface, as it was given.
    pub interface: String,
    /// What the kernel said.
    pub source: io::Error,
}

impl TapError {
    /// What a person can do about it, for the causes that are known.
    pub fn hint(&self) -> Option<&'static str> {
        match (self.step, self.source.raw_os_error()?) {
            (TapStep::Device, libc::ENOENT | libc::ENODEV | libc::ENXIO) => Some(
                "the kernel has no TUN driver here: `modprobe tun`, or hand /dev/net/tun to the container",
            ),
            (TapStep::Device, libc::EACCES | libc::EPERM) => {
                Some("it must be readable and writable: run as root")
            }
            (TapStep::Attach, libc::EPERM) => {
                Some("this needs CAP_NET_ADMIN, or an interface made with `ip tuntap add ... user NAME`")
            }
            (TapStep::Attach, libc::EBUSY) => Some("another process is attached to it"),
            (TapStep::Attach, libc::EINVAL) => Some(match self.kind {
                TapKind::Tap => "an interface of this name exists and is no TAP interface of this kind",
                TapKind::Tun => "an interface of this name exists and is no TUN interface of this kind",
            }),
            _ => None,
        }
    }
}

impl fmt::Display for TapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {:?}: {}", self.step, self.interface, self.source)?;
        match self.hint() {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for TapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl<'a> Tap<'a> {
    /// Attaches to a TAP or TUN interface of the calling thread's network namespace. If there is none of
    /// this name it is made, and goes when the device is dropped or the process ends, however it does. One
    /// made by `ip tuntap add` stays.
    ///
    /// # Errors
    /// [`TapError`] with the step that failed.
    pub fn open(name: &str, config: TapConfig<'a>) -> Result<Self, TapError> {
        let TapConfig { kind, vnet_hdr, multi_queue, set_up, rx_buffer, tx_buffer } = config;
        let at = |step| move |source: io::Error| TapError { step, kind, interface: name.to_owned(), source };
        let checked_name = InterfaceName::new(name).map_err(at(TapStep::Name))?;
        // The kernel would put a number in the place of `%d`.
        if name.contains('%') {
            let words = "no interface name: it must not contain %";
            return Err(at(TapStep::Name)(io::Error::new(io::ErrorKind::InvalidInput, words)));
        }
        let tun = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(at(TapStep::Device))?;
        let is_new = Interface::by_name(name).is_err();
        tun::attach(tun.as_fd(), checked_name, flags(kind, vnet_hdr, multi_queue))
            .map_err(at(TapStep::Attach))?;
        if vnet_hdr {
            tun::set_header_len(tun.as_fd(), VIRTIO_NET_HDR_LEN as libc::c_int)
                .map_err(at(TapStep::Header))?;
        }
        let splits_udp = set_offloads(&tun, vnet_hdr).map_err(at(TapStep::Offloads))?;
        let (control, interface) =
            look_up(name, checked_name, is_new && set_up).map_err(at(TapStep::Interface))?;
        let waker = Waker::new().map_err(at(TapStep::Device))?;

        let header_len = if vnet_hdr { VIRTIO_NET_HDR_LEN } else { 0 };
        log::debug!("{name}: {kind}, header of {header_len} bytes, MTU {}", interface.mtu);
        Ok(Self {
            inbox: Inbox::new(rx_buffer, header_len, kind),
            outbox: Outbox::new(tx_buffer, header_len, kind),
            link: Link {
                tun,
                control,
                waker,
                index: interface.index,
                starved: false,
                down: false,
                gone: false,
            },
            rx_counters: Counters::default(),
            tx_counters: Counters::default(),
            kind,
            splits_udp,
            interface,
        })
    }
}

fn flags(kind: TapKind, vnet_hdr: bool, multi_queue: bool) -> libc::c_int {
    let kind = match kind {
        TapKind::Tap => libc::IFF_TAP,
        TapKind::Tun => libc::IFF_TUN,
    };
    let when = |condition, flag| if condition { flag } else { 0 };
    kind | libc::IFF_NO_PI | when(vnet_hdr, libc::IFF_VNET_HDR) | when(multi_queue, libc::IFF_MULTI_QUEUE)
}

/// Lets the kernel leave checksums and splitting to us, or not: an interface that exists may have been
/// used otherwise. Says whether it knows datagrams that are to be split (Linux 6.2).
fn set_offloads(tun: &File, vnet_hdr: bool) -> io::Result<bool> {
    if !vnet_hdr {
        tun::set_offloads(tun.as_fd(), 0)?;
        return Ok(false);
    }
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    match tun::set_offloads(tun.as_fd(), tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            tun::set_offloads(tun.as_fd(), tcp)?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// A socket through which the interface is asked and set up, and what it is.
fn look_up(name: &str, checked_name: InterfaceName, set_up: bool) -> io::Result<(OwnedFd, Interface)> {
    let control = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut found = Interface::ask(control.as_fd(), name)?;
    if set_up {
        let flags = interface::flags(control.as_fd(), found.index)?;
        tun::set_up(control.as_fd(), checked_name, flags)?;
        found.up = true;
    }
    Ok((control, found))
}

/// A frame of 64 KiB (GSO_LEGACY_MAX_SIZE), its Ethernet header with two VLAN tags, the header before it,
/// and a byte: a buffer that is full may hold the beginning of a longer frame.
const BUFFER_LEN: usize = (64 << 10) + ETHERNET_HEADER_LEN + 8 + VIRTIO_NET_HDR_LEN + 1;
