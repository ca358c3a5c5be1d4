//! Our stack, or the kernel's, at an end of a veth pair.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use smoltcp::wire::{EthernetAddress, IpCidr};
use wirestack::neighbor::AddressProbes;
use wirestack::shard::{Shard, ShardConfig};
use wirestack_apps::testbed::VethEnd;
use wirestack_nic::{AfPacket, AfPacketConfig, wait};

use crate::frames::PAYLOAD_BYTES;

/// What is needed to open our stack in another thread.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) name: String,
    pub(crate) mac: EthernetAddress,
    pub(crate) address: IpAddr,
    prefix_len: u8,
}

impl End {
    /// With a hardware address of its own: so the kernel of this end sees at once that frames are not for it.
    pub(crate) fn new(end: &VethEnd, address: IpAddr, prefix_len: u8) -> Self {
        let mut mac = end.mac();
        mac.0[0] = 2;
        mac.0[1] ^= 0x5a;
        Self { name: end.name().to_owned(), mac, address, prefix_len }
    }

    pub(crate) fn open(&self, device: AfPacketConfig<'static>) -> (Shard, AfPacket<'static>) {
        let mut config =
            ShardConfig::new(self.mac).address(IpCidr::new(self.address.into(), self.prefix_len));
        config.neighbor.probes = AddressProbes::None;
        let nic = AfPacket::open(&self.name, device).expect("a device");
        (Shard::new(config, wait::now()).expect("a shard"), nic)
    }
}

/// The kernel at our end may have IPv6.
pub(crate) fn allow_ipv6() -> std::io::Result<()> {
    ["all", "default"]
        .into_iter()
        .try_for_each(|which| std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "0"))
}

/// A socket of the kernel that does not wait.
pub(crate) fn bind(local: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// An echo server as an application would write it.
pub(crate) fn answer(shard: &mut Shard) {
    let mut payload = [0; PAYLOAD_BYTES];
    while let Some(event) = shard.next_event() {
        while let Some((len, meta)) = shard.udp_recv(event.socket, &mut payload) {
            let _ = shard.udp_send_to(event.socket, payload.get(..len).unwrap_or_default(), meta.src);
        }
    }
}
