//! One device for each shard, which share what an interface receives.

use smoltcp::time::Instant;
use wirestack_nic::error::OpenError;
use wirestack_nic::steer::{Fanout, FanoutMode};
use wirestack_nic::{AfPacket, AfPacketConfig, Nic};

/// Opens a device for each of these configurations on an interface, in the order of the shards, for
/// [`Launch::start`](super::Launch::start): all are opened, or none. Each flow comes to the one that
/// [`Steering`](crate::demux::Steering) of this seed says, which is to be given to
/// [`Launch::steering_seed`](super::Launch::steering_seed), too; with a random one nobody can choose flows that all come to
/// one shard. One device alone is in no group.
///
/// What came before the group was whole went elsewhere than its flow does now, and is thrown away.
///
/// # Errors
/// As [`AfPacket::open`].
pub fn open_group(
    interface: &str,
    configs: Vec<AfPacketConfig<'static>>,
    seed: u32,
) -> Result<Vec<AfPacket<'static>>, OpenError> {
    let len = configs.len();
    let mut fanout = Fanout::new(FanoutMode::Flow { seed, ebpf: false });
    // The first member says how many there may be.
    fanout.max_members = u16::try_from(len).ok().filter(|len| *len > MEMBERS_DEFAULT);
    let mut group = Vec::with_capacity(len);
    for mut config in configs {
        if len > 1 {
            config.fanout = Some(fanout.clone());
        }
        // Members are counted in the order in which they join.
        let nic = AfPacket::open(interface, config)?;
        fanout.id = nic.fanout_id();
        group.push(nic);
    }
    if len > 1 {
        for nic in &mut group {
            (0..FRAMES_MAX)
                .take_while(|_| nic.receive_with(Instant::ZERO, |_, _| ()).is_some())
                .for_each(drop);
        }
    }
    Ok(group)
}

/// Members that a group may have if nothing is said.
const MEMBERS_DEFAULT: u16 = 256;
/// Frames that a ring holds, and some more: what comes after these has come for the whole group.
const FRAMES_MAX: usize = 16_384;
