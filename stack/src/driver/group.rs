//! One device for each shard, which share what an interface receives.

use wirestack_nic::error::OpenError;
use wirestack_nic::steer::{Fanout, FanoutMode};
use wirestack_nic::{AfPacket, AfPacketConfig};

/// Opens a device for each of these configurations on an interface, in the order of the shards: each flow comes to the
/// one that [`Steering`](crate::demux::Steering) of this seed says. All are opened, or none.
///
/// # Errors
/// As [`AfPacket::open`].
pub fn open_group(
    interface: &str,
    configs: Vec<AfPacketConfig<'static>>,
    seed: u32,
) -> Result<Vec<AfPacket<'static>>, OpenError> {
    let mut fanout = Fanout::new(FanoutMode::Flow { seed, ebpf: false });
    let is_group = configs.len() > 1;
    let mut group = Vec::with_capacity(configs.len());
    for mut config in configs {
        if is_group {
            config.fanout = Some(fanout.clone());
        }
        let nic = AfPacket::open(interface, config)?;
        fanout.id = nic.fanout_id();
        group.push(nic);
    }
    Ok(group)
}
