//! `--device`: how a packet device moves frames, for people: a profile, and what is to differ from it.

use std::fmt;
use std::str::FromStr;

use wirestack::nic::config::{AfPacketConfig, Profile, RxMode, TpacketVersion, TxMode};
use wirestack::nic::geometry::PlanError;
use wirestack::nic::{Interface, RingGeometry};

/// What `--device` says. What it leaves out is as the profile has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceSpec {
    text: String,
    profile: Profile,
    rx: Option<RxMode>,
    tx: Option<TxMode>,
    version: Option<TpacketVersion>,
    vnet_hdr: Option<bool>,
    bypass: Option<bool>,
    burst: Option<usize>,
    memory: Option<usize>,
}

impl DeviceSpec {
    /// The configuration of a device on this interface.
    ///
    /// # Errors
    /// `burst` does not fit into `memory`, or into what a ring can be.
    pub fn config(&self, interface: &Interface) -> Result<AfPacketConfig<'static>, PlanError> {
        let mut config = AfPacketConfig::profile(self.profile);
        config.rx = self.rx.unwrap_or(config.rx);
        config.tx =
            self.tx.unwrap_or(if self.profile == Profile::Capture { TxMode::Send } else { config.tx });
        config.version = self.version.unwrap_or(config.version);
        config.vnet_hdr = self.vnet_hdr.unwrap_or(config.vnet_hdr);
        config.qdisc_bypass = self.bypass.unwrap_or(config.qdisc_bypass);
        // A stack hears what is for it, and judges no frame that it has sent.
        (config.outgoing, config.promiscuous, config.verify_checksums) = (false, false, true);
        if self.burst.is_some() || self.memory.is_some() {
            let frame_len = interface.mtu + ETHERNET_HEADER_LEN;
            let burst = self.burst.unwrap_or(BURST);
            let memory = self.memory.unwrap_or(usize::MAX);
            let ring = RingGeometry::plan(config.version, frame_len, burst, memory)?;
            config.rx_rings = vec![ring].into();
        }
        Ok(config)
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        let switch = match value {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        };
        match key {
            "profile" => self.profile = value.parse().ok()?,
            "rx" => {
                self.rx = Some(match value {
                    "ring" => RxMode::Ring,
                    "recv" => RxMode::Recv,
                    _ => return None,
                });
            }
            "tx" => {
                self.tx = Some(match value {
                    "ring" => TxMode::Ring,
                    "send" => TxMode::Send,
                    _ => return None,
                });
            }
            "version" => {
                self.version = Some(match value {
                    "1" => TpacketVersion::V1,
                    "2" => TpacketVersion::V2,
                    "3" => TpacketVersion::V3,
                    _ => return None,
                });
            }
            "vnet_hdr" => self.vnet_hdr = Some(switch?),
            "bypass" => self.bypass = Some(switch?),
            "burst" => self.burst = Some(value.parse().ok().filter(|burst| (1..=BURST_MAX).contains(burst))?),
            "memory" => self.memory = Some(bytes(value)?),
            _ => return None,
        }
        Some(())
    }
}

/// A number of bytes, with K, M or G behind it for powers of 1024.
fn bytes(text: &str) -> Option<usize> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: usize = digits.parse().ok()?;
    number.checked_mul(1 << shift).filter(|bytes| (1..=MEMORY_MAX).contains(bytes))
}

impl FromStr for DeviceSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // As clap writes the default.
        if text.is_empty() {
            return Ok(Self::default());
        }
        let mut spec = Self { text: text.to_owned(), ..Self::default() };
        for part in text.split(',') {
            let set = part.split_once('=').and_then(|(key, value)| spec.set(key, value));
            if set.is_none() {
                return Err(format!("{part:?} is not among {ACCEPTED}"));
            }
        }
        Ok(spec)
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

const ACCEPTED: &str = "profile=latency|bulk|capture, rx=ring|recv, tx=send|ring, version=1|2|3, \
                        vnet_hdr=on|off, bypass=on|off, burst=FRAMES, memory=BYTES (64M)";
const ETHERNET_HEADER_LEN: usize = 14;
/// Frames that find room if nobody says how many.
const BURST: usize = 4096;
/// More is a mistake.
const BURST_MAX: usize = 1 << 24;
/// The kernel's limit of a ring.
const MEMORY_MAX: usize = 4 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(mtu: usize) -> Interface {
        let mac = wirestack::EthernetAddress([2, 0, 0, 0, 0, 1]);
        Interface { name: "x".to_owned(), index: 7, mtu, mac, up: true, ethernet: true }
    }

    #[test]
    fn what_is_said_differs_from_the_profile() {
        let spec: DeviceSpec =
            "profile=bulk,rx=recv,tx=ring,version=3,vnet_hdr=off,bypass=on".parse().expect("all keys");
        let config = spec.config(&interface(1500)).expect("no ring was asked for");
        assert_eq!((config.rx, config.tx, config.version), (RxMode::Recv, TxMode::Ring, TpacketVersion::V3));
        assert!(!config.vnet_hdr && config.qdisc_bypass);
        let config = DeviceSpec::default().config(&interface(1500)).expect("the default");
        assert_eq!((config.rx, config.tx), (RxMode::Ring, TxMode::Send));
    }

    #[test]
    fn the_calculator_answers_in_words() {
        let spec: DeviceSpec = "burst=4000,memory=8M".parse().expect("both keys");
        let config = spec.config(&interface(1500)).expect("4 000 slots of 2 KB");
        assert!(config.rx_rings[0].slot_count >= 4000 && config.rx_rings[0].memory() <= 8 << 20);
        let error = spec.config(&interface(9000)).expect_err("frames of 9 000 bytes take more").to_string();
        assert!(error.contains("4000") && error.contains("at most"), "{error}");
    }

    #[test]
    fn what_is_not_known_is_named() {
        for wrong in [",", "rx", "rx=fast", "version=4", "burst=0", "memory=5T", "profile=bulk,x=1"] {
            let error = wrong.parse::<DeviceSpec>().expect_err(wrong);
            assert!(error.contains("profile=latency") && error.lines().count() == 1, "{error}");
        }
    }
}
