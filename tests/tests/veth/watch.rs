//! Watching a wire from the peer's end: what our end says that it should not.
//!
//! A packet socket at the peer's interface sees every frame that our end sends, whether the user stack
//! or the kernel at our end has sent it. [`Watch::take`] sends a marker from our end and waits for it,
//! so what it returns is complete: no time has to be waited out.

use std::io;
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;

use smoltcp::phy::{Device, RxToken, TxToken};
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Message, Icmpv4Packet, Icmpv6Message,
    Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6Packet, PrettyPrinter, TcpPacket,
};
use wirestack_apps::testbed::{PEER_IPV4, PEER_IPV6, Wire};
use wirestack_nic::{AfPacket, AfPacketConfig, Nic, RingGeometry, Waker, wait};

use crate::talk::LONG;

/// What was seen of our end since the watch began, or since it was last asked.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// TCP segments with the RST bit.
    pub(crate) resets: usize,
    /// ICMP and ICMPv6: destination unreachable, and redirects.
    pub(crate) icmp_errors: usize,
    /// ICMP and ICMPv6 echo replies.
    pub(crate) echo_replies: usize,
    /// TCP segments.
    pub(crate) segments: usize,
    /// Packets that the peer had sent itself.
    pub(crate) forwarded: usize,
    /// The first resets and errors in words.
    offenders: Vec<String>,
    /// Frames that the watch was too slow for.
    lost: u64,
}

impl Tally {
    /// Fails with the frames in words unless our end sent neither a reset nor an ICMP error.
    pub(crate) fn assert_silent(&self) {
        assert!(self.segments > 0, "nothing was seen at all: {self:?}");
        assert_eq!((self.resets, self.icmp_errors), (0, 0), "\n{}", self.offenders.join("\n"));
    }

    fn look_at(&mut self, frame: &[u8]) -> Option<()> {
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        let (is_forwarded, protocol, payload) = match ethernet.ethertype() {
            EthernetProtocol::Ipv4 => {
                let packet = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
                (packet.src_addr() == PEER_IPV4, packet.next_header(), packet.payload().to_vec())
            }
            EthernetProtocol::Ipv6 => {
                let packet = Ipv6Packet::new_checked(ethernet.payload()).ok()?;
                (packet.src_addr() == PEER_IPV6, packet.next_header(), packet.payload().to_vec())
            }
            _ => return None,
        };
        self.forwarded += usize::from(is_forwarded);
        let offends = match protocol {
            IpProtocol::Tcp => {
                let is_reset = TcpPacket::new_checked(&payload[..]).ok()?.rst();
                self.segments += 1;
                self.resets += usize::from(is_reset);
                is_reset
            }
            IpProtocol::Icmp => {
                let kind = Icmpv4Packet::new_checked(&payload[..]).ok()?.msg_type();
                let is_error = matches!(kind, Icmpv4Message::DstUnreachable | Icmpv4Message::Redirect);
                self.echo_replies += usize::from(kind == Icmpv4Message::EchoReply);
                self.icmp_errors += usize::from(is_error);
                is_error
            }
            IpProtocol::Icmpv6 => {
                let kind = Icmpv6Packet::new_checked(&payload[..]).ok()?.msg_type();
                let is_error = matches!(kind, Icmpv6Message::DstUnreachable | Icmpv6Message::Redirect);
                self.echo_replies += usize::from(kind == Icmpv6Message::EchoReply);
                self.icmp_errors += usize::from(is_error);
                is_error
            }
            _ => false,
        };
        if offends && self.offenders.len() < OFFENDERS_MAX {
            self.offenders.push(PrettyPrinter::<EthernetFrame<&[u8]>>::new("", &ethernet).to_string());
        }
        Some(())
    }
}

/// A thread that watches; dropping it ends it.
pub(crate) struct Watch {
    tallies: Receiver<io::Result<Tally>>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches what our end of a wire sends from now on.
    pub(crate) fn begin(wire: &Wire) -> io::Result<Self> {
        let name = wire.peer().name().to_owned();
        let mac = wire.ours().mac();
        let (tell, tallies) = mpsc::channel();
        let (opened, is_open) = mpsc::channel();
        let thread = wire.peer().namespace().spawn(move || {
            let mut nic = match AfPacket::open(&name, config(RX_SLOTS)) {
                Ok(nic) => nic,
                Err(error) => return drop(opened.send(Err(io::Error::other(error)))),
            };
            // Nobody listens any more if the test has failed meanwhile.
            let _ = opened.send(Ok(nic.waker()));
            let mut tally = Tally::default();
            let mut lost_before = 0;
            loop {
                match next(&mut nic, mac, &mut tally) {
                    Ok(Seen::Marker) => {
                        let counters = nic.counters();
                        let lost = counters.rx_ring_full + counters.rx_truncated;
                        tally.lost = lost - lost_before;
                        lost_before = lost;
                        if tell.send(Ok(std::mem::take(&mut tally))).is_err() {
                            return;
                        }
                    }
                    Ok(Seen::End) => return,
                    Err(error) => return drop(tell.send(Err(error))),
                }
            }
        });
        let waker = is_open.recv().map_err(io::Error::other)??;
        Ok(Self { tallies, waker, thread: Some(thread) })
    }

    /// What our end has sent up to now, since the last call.
    pub(crate) fn take(&self, wire: &Wire) -> io::Result<Tally> {
        wire.at_ours(|| send_marker(wire))?;
        let tally = self.tallies.recv_timeout(LONG).map_err(io::Error::other)??;
        assert_eq!(tally.lost, 0, "the watch was too slow, so its figures mean nothing: {tally:?}");
        Ok(tally)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.waker.wake();
        // If it has panicked, the test fails for want of a tally.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

enum Seen {
    Marker,
    End,
}

/// Counts frames up to the next marker, or until the waker is called.
fn next(nic: &mut AfPacket<'_>, mac: EthernetAddress, tally: &mut Tally) -> io::Result<Seen> {
    loop {
        while let Some((rx, _tx)) = nic.receive(wait::now()) {
            let is_marker = rx.consume(|frame| {
                let is_marker = EthernetFrame::new_checked(frame)
                    .is_ok_and(|frame| frame.src_addr() == mac && frame.ethertype() == MARKER);
                tally.look_at(frame);
                is_marker
            });
            if is_marker {
                return Ok(Seen::Marker);
            }
        }
        if nic.wait(None).map_err(io::Error::other)? == wirestack_nic::Wake::Woken {
            return Ok(Seen::End);
        }
    }
}

fn send_marker(wire: &Wire) -> io::Result<()> {
    let mut nic = AfPacket::open(wire.ours().name(), config(SMALL_RING)).map_err(io::Error::other)?;
    let token = nic.transmit(wait::now()).ok_or_else(|| io::Error::other("no room for a marker"))?;
    token.consume(FRAME_LEN, |bytes| {
        bytes.fill(0);
        let mut frame = EthernetFrame::new_unchecked(bytes);
        frame.set_dst_addr(wire.peer().mac());
        frame.set_src_addr(wire.ours().mac());
        frame.set_ethertype(MARKER);
    });
    nic.flush().map_err(io::Error::other)
}

fn config(rx_slots: usize) -> AfPacketConfig<'static> {
    AfPacketConfig {
        rx_rings: vec![RingGeometry::for_frames(MTU_MAX, rx_slots)].into(),
        tx_rings: vec![RingGeometry::for_frames(MTU_MAX, SMALL_RING)].into(),
        ..AfPacketConfig::default()
    }
}

/// An EtherType for local experiments (IEEE 802, 9.2.4).
const MARKER: EthernetProtocol = EthernetProtocol::Unknown(0x88b5);
const FRAME_LEN: usize = 60;
/// Of the wires in these tests, with the Ethernet header.
const MTU_MAX: usize = 1514;
/// Slots for everything that a test sends before it asks.
const RX_SLOTS: usize = 16_384;
const SMALL_RING: usize = 16;
const OFFENDERS_MAX: usize = 8;
