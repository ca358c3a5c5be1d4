//! The devices of several shards on one interface: packet sockets that share its frames as one fanout group.

use smoltcp::time::Instant;
use wirestack_nic::error::OpenError;
use wirestack_nic::steer::{Fanout, FanoutFlags, FanoutMode};
use wirestack_nic::{AfPacket, AfPacketConfig, Nic};

/// Opens a device for each of `shards` shards on an interface of the calling thread's network namespace, for
/// [`Launch::start`](super::Launch::start): all of them or none. `config` is asked for the configuration of each, and what it
/// says of fanout is overwritten. A flow goes to the device of its shard ([`Steering`](crate::demux::Steering)) by `seed`,
/// which is to be given to [`Launch::steering_seed`](super::Launch::steering_seed) as well; with a random one, nobody can
/// choose flows that all come to one shard. One device alone is in no group.
///
/// What came before the group was whole went elsewhere than its flow will, and is thrown away.
///
/// # Errors
/// Which step failed; nothing is left open.
pub fn open_packet_group(
    interface: &str,
    shards: usize,
    seed: u32,
    mut config: impl FnMut() -> AfPacketConfig<'static>,
) -> Result<Vec<AfPacket<'static>>, OpenError> {
    let mut nics: Vec<AfPacket<'static>> = Vec::with_capacity(shards);
    for _ in 0..shards {
        // Members are counted in the order in which they join.
        let id = nics.first().and_then(AfPacket::fanout_id);
        let mode = FanoutMode::Flow { seed, ebpf: false };
        let max_members = (shards > usize::from(MEMBERS_DEFAULT)).then_some(shards as u16);
        let fanout = Fanout { id, mode, flags: FanoutFlags::default(), max_members };
        let config = AfPacketConfig { fanout: (shards > 1).then_some(fanout), ..config() };
        nics.push(AfPacket::open(interface, config)?);
    }
    if shards > 1 {
        for nic in &mut nics {
            (0..FRAMES_MAX)
                .take_while(|_| nic.receive_with(Instant::ZERO, |_, _| ()).is_some())
                .for_each(drop);
        }
    }
    Ok(nics)
}

/// Members that a group may have if nothing is said.
const MEMBERS_DEFAULT: u16 = 256;
/// Frames that a ring holds, and some more: what comes after these has come for the whole group.
const FRAMES_MAX: usize = 16_384;
