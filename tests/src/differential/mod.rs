//! The same frames to a shard and to smoltcp's `Interface`, which answers by code of others.
//!
//! What both send is compared after what may differ is taken away: the identification of IPv4 packets, which each
//! chooses, and with it the checksum of the header. Frames that neither was asked for (reports about groups) are
//! left out. Differences on purpose are in [`ON_PURPOSE`].

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::udp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpCidr};
use wirestack::EthernetAddress;
use wirestack::config::parse_cidr;
use wirestack::neighbor::AddressProbes;
use wirestack::shard::{ShardConfig, SocketId, UdpBind};

use crate::sim::core::Core;
use crate::sim::packets::Mac;
use crate::sim::{Frame, NicConfig, SimNic};

/// What a shard does otherwise, and why.
pub const ON_PURPOSE: &[(&str, &str)] = &[
    (
        "A neighbour advertisement that answers has the Override flag; smoltcp's has not",
        "RFC 4861 section 7.2.4: it should be set unless the address is anycast or another's",
    ),
    (
        "An ICMP error quotes the IPv4 header as it came; smoltcp writes it anew, without the identification",
        "RFC 792, RFC 1122 section 3.2.2: the header that was received is returned unchanged",
    ),
    (
        "The error about an unknown next header points at the field that names it; smoltcp's, behind the header",
        "RFC 4443 section 3.4: the pointer is the offset of the field that is not understood",
    ),
];

/// Hardware address of both.
pub const OURS_MAC: Mac = [2, 0, 0, 0, 0, 1];
/// Port where both listen.
pub const PORT: u16 = 7;

/// A shard and an interface with the same addresses.
pub struct Both {
    core: Core,
    socket: SocketId,
    interface: Interface,
    nic: SimNic,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    now: Instant,
}

impl std::fmt::Debug for Both {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Both").field("now", &self.now).finish_non_exhaustive()
    }
}

/// What both did with a frame: what they sent, and the payloads that their sockets got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// Frames, as they are compared.
    pub sent: Vec<Vec<u8>>,
    /// Payloads.
    pub received: Vec<Vec<u8>>,
}

impl Default for Both {
    fn default() -> Self {
        Self::new()
    }
}

impl Both {
    /// Both with 10.0.0.1/24 and fd00::1/64, and a socket at [`PORT`].
    pub fn new() -> Self {
        let now = Instant::from_secs(1);
        let mac = EthernetAddress(OURS_MAC);
        let addresses: Vec<IpCidr> =
            ["10.0.0.1/24", "fd00::1/64"].map(|text| parse_cidr(text).expect("an address")).to_vec();
        let mut config = ShardConfig::new(mac);
        config.addresses.clone_from(&addresses);
        config.neighbor.probes = AddressProbes::None;
        config.link_local = None;
        config.icmp.errors_per_second = None;
        config.icmp.destination_interval = Duration::ZERO;
        let mut core = Core::new(config, NicConfig::default(), now);
        let any = "[::]:7".parse().expect("an address");
        let socket = core.shard.udp_bind(UdpBind::new(any)).expect("the port is free");

        let mut nic = SimNic::new(NicConfig::default());
        let mut interface = Interface::new(Config::new(HardwareAddress::Ethernet(mac)), &mut nic, now);
        interface.update_ip_addrs(|list| {
            addresses.iter().for_each(|cidr| list.push(*cidr).expect("there is room"));
        });
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 1 << 16]);
        let mut udp = udp::Socket::new(buffer(), buffer());
        udp.bind(PORT).expect("the port is free");
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(udp);
        let mut both = Self { core, socket, interface, nic, sockets, handle, now };
        // What each says on its own at the start.
        both.give(&[]);
        both
    }

    /// Gives a frame to both (an empty one to none), and returns what ours and theirs did.
    ///
    /// # Panics
    /// If something does not hold in the shard.
    pub fn give(&mut self, frame: &[u8]) -> [Done; 2] {
        self.now += Duration::from_millis(10);
        if !frame.is_empty() {
            self.core.nic.push(Frame::plain(frame.to_vec()));
            self.nic.push(Frame::plain(frame.to_vec()));
        }
        let mut ours = Done::default();
        for _ in 0..4 {
            let turned = self.core.turn(self.now, |_| {}).unwrap_or_else(|wrong| panic!("{wrong}"));
            ours.sent.extend(turned.sent.into_iter().filter_map(|frame| comparable(frame.bytes)));
        }
        let shard = &mut self.core.shard;
        while let Some(payload) = shard.udp_recv_with(self.socket, |_, payload| payload.to_vec()) {
            ours.received.push(payload);
        }
        let mut theirs = Done::default();
        for _ in 0..4 {
            self.interface.poll(self.now, &mut self.nic, &mut self.sockets);
        }
        theirs.sent.extend(self.nic.take_sent().0.into_iter().filter_map(|frame| comparable(frame.bytes)));
        let udp = self.sockets.get_mut::<udp::Socket<'_>>(self.handle);
        while let Ok((payload, _)) = udp.recv() {
            theirs.received.push(payload.to_vec());
        }
        [ours, theirs]
    }
}

/// A frame without what each chooses for itself; `None`: a report about groups.
fn comparable(mut frame: Vec<u8>) -> Option<Vec<u8>> {
    match (frame.get(12..14)?, frame.get(20), frame.get(23)) {
        ([8, 0], _, Some(2)) => None,
        ([0x86, 0xdd], Some(0), _) => None,
        ([8, 0], ..) => {
            // Identification, flags and header checksum.
            frame.get_mut(18..22)?.fill(0);
            frame.get_mut(24..26)?.fill(0);
            if frame.get(23) == Some(&1) && frame.get(34) == Some(&3) {
                // The same of the header that is quoted.
                frame.get_mut(46..50)?.fill(0);
                frame.get_mut(52..54)?.fill(0);
            }
            Some(frame)
        }
        ([0x86, 0xdd], Some(58), _) if frame.get(54) == Some(&136) => {
            // The Override flag, and the checksum that covers it.
            frame.get_mut(56..58)?.fill(0);
            *frame.get_mut(58)? &= !0x20;
            Some(frame)
        }
        ([0x86, 0xdd], Some(58), _) if frame.get(54) == Some(&4) => {
            // The pointer, and the checksum that covers it.
            frame.get_mut(56..62)?.fill(0);
            Some(frame)
        }
        _ => Some(frame),
    }
}
