//! All features of an interface by name, as `ethtool -k` lists them.

use std::io;

use super::Control;
use crate::sys::ethtool::FeatureGroup;

/// A feature of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// The kernel's name, of `net/ethtool/common.c`.
    pub name: String,
    /// Whether it is on.
    pub active: bool,
    /// Whether somebody asked for it; what it depends on may be off.
    pub requested: bool,
    /// Whether it can be switched.
    pub available: bool,
    /// Whether no driver could ever switch it.
    pub never_changed: bool,
}

/// All features that the running kernel has a name for.
///
/// Finer than [`Offload`](super::Offload): what the kernel calls TSO is `tx-tcp-segmentation` and
/// `tx-tcp6-segmentation` here, and there are many more, such as `tx-udp-segmentation`,
/// `tx-gso-partial`, `tx-checksum-ip-generic` and `tx-vlan-hw-insert`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Features {
    list: Vec<Feature>,
}

impl Features {
    /// From names in the order of their bits.
    pub(super) fn new(names: Vec<String>, groups: &[FeatureGroup]) -> Self {
        let feature = |(bit, name): (usize, String)| {
            let group = groups.get(bit / 32)?;
            let has = |bits: u32| bits >> (bit % 32) & 1 == 1;
            Some(Feature {
                name,
                active: has(group.active),
                requested: has(group.requested),
                available: has(group.available),
                never_changed: has(group.never_changed),
            })
        };
        let named = names.into_iter().enumerate().filter(|(_, name)| !name.is_empty());
        Self { list: named.filter_map(feature).collect() }
    }

    /// The feature of this name, if this kernel has one.
    pub fn get(&self, name: &str) -> Option<&Feature> {
        self.list.iter().find(|feature| feature.name == name)
    }

    /// Whether a feature is on. One that this kernel does not know is off.
    pub fn is_active(&self, name: &str) -> bool {
        self.get(name).is_some_and(|feature| feature.active)
    }

    /// Whether a feature can be switched.
    pub fn is_available(&self, name: &str) -> bool {
        self.get(name).is_some_and(|feature| feature.available)
    }

    /// All of them, in the kernel's order.
    pub fn iter(&self) -> impl Iterator<Item = &Feature> {
        self.list.iter()
    }
}

/// Asks for all features of an interface. Needs no privilege.
///
/// # Errors
/// ENODEV: no such interface here.
pub fn features(interface: &str) -> io::Result<Features> {
    Control::open(interface)?.features()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_go_with_names() {
        let names = (0..40).map(|bit| if bit == 1 { String::new() } else { format!("f{bit}") }).collect();
        let low = FeatureGroup { active: 0b101, available: 0b100, ..FeatureGroup::default() };
        let high = FeatureGroup { active: 1 << 3, requested: 1 << 4, ..FeatureGroup::default() };
        let features = Features::new(names, &[low, high]);
        assert_eq!(features.iter().count(), 39);
        let active: Vec<_> = features.iter().filter(|feature| feature.active).map(|f| &f.name[..]).collect();
        assert_eq!(active, ["f0", "f2", "f35"]);
        assert!(features.is_available("f2") && !features.is_available("f0"));
        assert!(features.get("f36").unwrap().requested);
        assert!(!features.is_active("f99") && features.get("").is_none());
    }

    #[test]
    fn loopback_names_its_features() {
        let features = features("lo").unwrap();
        assert!(features.is_active("tx-checksum-ip-generic") && features.is_active("loopback"));
        assert!(features.get("loopback").unwrap().never_changed || !features.is_available("loopback"));
        // By this name `Offload::Lro` is looked up.
        assert!(features.get(super::super::LRO_FEATURE).is_some_and(|feature| !feature.active));
        assert_eq!(features_error(), Some(libc::ENODEV));
    }

    fn features_error() -> Option<i32> {
        features("nosuch0").unwrap_err().raw_os_error()
    }
}
