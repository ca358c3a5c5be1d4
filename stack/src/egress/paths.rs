//! Paths that were found lately: a segment follows the one before it.
//!
//! A table with one place for each of a few hashes: what is asked for takes the place of what was there. Nothing in it
//! is believed that was found before addresses, routes or what is known of the path have changed.

use std::net::IpAddr;

use super::PacketSpec;
use super::output::{Hop, Path};
use crate::ingress::input::TCP;
use crate::observe::DropReason;
use crate::shard::Shard;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Paths {
    found: Box<[Option<Found>]>,
}

#[derive(Debug, Clone, Copy)]
struct Found {
    version: Version,
    path: Path,
    may_fragment: bool,
}

/// All that a path depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    changes: u64,
    mtu: usize,
    link_mtu: Option<usize>,
}

impl Paths {
    pub(crate) fn new() -> Self {
        Self { found: vec![None; PLACES].into() }
    }

    fn place(&mut self, src: IpAddr, dst: IpAddr) -> &mut Option<Found> {
        let fold = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => u32::from(v4),
            IpAddr::V6(v6) => {
                let bits = v6.to_bits();
                (bits ^ (bits >> 32) ^ (bits >> 64) ^ (bits >> 96)) as u32
            }
        };
        let hash = (fold(dst) ^ fold(src).rotate_left(16)).wrapping_mul(0x9e37_79b1);
        &mut self.found[(hash >> (32 - PLACES_BITS)) as usize]
    }
}

impl Shard {
    /// The path of a connection, and whether its packets may be fragmented on the way.
    pub(crate) fn path_of_flow(&mut self, src: IpAddr, dst: IpAddr) -> Result<(Path, bool), DropReason> {
        let version = Version {
            changes: self.routes.changes() + self.addresses.changes() + self.path_mtu.changes(),
            mtu: self.mtu,
            link_mtu: self.link_mtu,
        };
        if let Some(found) = self.paths.place(src, dst)
            && found.version == version
            && found.path.src == src
            && found.path.dst == dst
        {
            return Ok((found.path, found.may_fragment));
        }
        let path = self.path(&PacketSpec { src: Some(src), ..PacketSpec::new(dst, TCP) })?;
        if path.hop != Hop::Looped && !self.addresses.is_local(src) {
            return Err(DropReason::NoSource);
        }
        let may_fragment = self.path_mtu.may_fragment(dst);
        // Whether a gateway is dead changes with the state of neighbours.
        if self.dead_gateways.is_empty() {
            *self.paths.place(src, dst) = Some(Found { version, path, may_fragment });
        }
        Ok((path, may_fragment))
    }
}

/// Some hundred bytes each.
const PLACES_BITS: u32 = 8;
const PLACES: usize = 1 << PLACES_BITS;
