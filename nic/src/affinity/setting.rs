//! One place where the kernel keeps who does the work of an interface.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use super::{CpuSet, Roots};

/// A file with one value. Its name as a text, as in `rx-0/rps_cpus` and `irq/24/smp_affinity_list`, is
/// what people read, and what records of old values have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Setting {
    /// CPUs that go on with what an RX queue receives (RPS): a mask.
    RpsCpus(u32),
    /// Flows that an RX queue follows to the CPU of their reader (RFS): a number, 0 is off.
    RpsFlowCount(u32),
    /// CPUs that send on a TX queue (XPS): a mask.
    XpsCpus(u32),
    /// CPUs that serve an interrupt: a list.
    IrqAffinity(u32),
    /// Flows that the whole network namespace follows (RFS): a number, 0 is off.
    RpsSockFlowEntries,
}

impl Setting {
    /// The file, for the settings of an interface.
    pub(crate) fn path(self, roots: &Roots, interface: &str) -> PathBuf {
        match self {
            Self::IrqAffinity(_) => roots.proc.join(self.to_string()),
            Self::RpsSockFlowEntries => roots.proc.join("sys/net/core").join(self.to_string()),
            _ => roots.interface(interface).join("queues").join(self.to_string()),
        }
    }

    /// What is there now, as the kernel prints it.
    ///
    /// # Errors
    /// ENOENT: this kernel or interface does not have it.
    pub(crate) fn read(self, roots: &Roots, interface: &str) -> io::Result<String> {
        Ok(fs::read_to_string(self.path(roots, interface))?.trim().to_owned())
    }

    /// Writes a value.
    ///
    /// # Errors
    /// EPERM, EACCES: needs root. EIO: an interrupt that the driver manages itself. EINVAL: no CPU of
    /// the set is online or free for this. ENOENT: not there (any more).
    pub(crate) fn write(self, roots: &Roots, interface: &str, value: &str) -> io::Result<()> {
        // Not `fs::write`: that would make a file where there is none.
        let mut file = fs::File::options().write(true).truncate(true).open(self.path(roots, interface))?;
        io::Write::write_all(&mut file, value.as_bytes())
    }

    /// Whether two values mean the same, however they are written.
    pub(crate) fn same(self, one: &str, other: &str) -> bool {
        match self {
            Self::RpsCpus(_) | Self::XpsCpus(_) => match (CpuSet::from_mask(one), CpuSet::from_mask(other)) {
                (Ok(one), Ok(other)) => one == other,
                _ => false,
            },
            Self::IrqAffinity(_) => match (one.parse::<CpuSet>(), other.parse::<CpuSet>()) {
                (Ok(one), Ok(other)) => one == other,
                _ => false,
            },
            Self::RpsFlowCount(_) | Self::RpsSockFlowEntries => one.trim() == other.trim(),
        }
    }

    /// Whether a text can be a value of this setting: what a record of old values may have.
    pub(crate) fn accepts(self, value: &str) -> bool {
        match self {
            Self::RpsFlowCount(_) | Self::RpsSockFlowEntries => value.parse::<u32>().is_ok(),
            _ => self.same(value, value),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RpsCpus(queue) => write!(f, "rx-{queue}/rps_cpus"),
            Self::RpsFlowCount(queue) => write!(f, "rx-{queue}/rps_flow_cnt"),
            Self::XpsCpus(queue) => write!(f, "tx-{queue}/xps_cpus"),
            Self::IrqAffinity(irq) => write!(f, "irq/{irq}/smp_affinity_list"),
            Self::RpsSockFlowEntries => f.write_str("rps_sock_flow_entries"),
        }
    }
}

impl FromStr for Setting {
    type Err = io::Error;

    /// Reads what [`fmt::Display`] prints, and nothing else: no other file can be named.
    fn from_str(text: &str) -> io::Result<Self> {
        let number = |text: &str| text.parse::<u32>().ok();
        let parsed = match text.split_once('/') {
            None if text == "rps_sock_flow_entries" => Some(Self::RpsSockFlowEntries),
            None => None,
            Some(("irq", rest)) => {
                rest.strip_suffix("/smp_affinity_list").and_then(number).map(Self::IrqAffinity)
            }
            Some((queue, file)) => match (queue.split_once('-'), file) {
                (Some(("rx", queue)), "rps_cpus") => number(queue).map(Self::RpsCpus),
                (Some(("rx", queue)), "rps_flow_cnt") => number(queue).map(Self::RpsFlowCount),
                (Some(("tx", queue)), "xps_cpus") => number(queue).map(Self::XpsCpus),
                _ => None,
            },
        };
        // Only the one spelling: `+1` and `01` are numbers, too.
        parsed.filter(|setting| setting.to_string() == text).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no setting of an interface"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_printed() {
        for setting in [
            Setting::RpsCpus(0),
            Setting::RpsFlowCount(3),
            Setting::XpsCpus(12),
            Setting::IrqAffinity(24),
            Setting::RpsSockFlowEntries,
        ] {
            assert_eq!(setting.to_string().parse::<Setting>().unwrap(), setting);
        }
        for wrong in [
            "",
            "rx-0/xps_cpus",
            "rx-+1/rps_cpus",
            "irq/1/../../x/smp_affinity_list",
            "irq/01/smp_affinity_list",
            "/etc/passwd",
            "rx-0/../rps_cpus",
        ] {
            assert!(wrong.parse::<Setting>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_are_compared_by_what_they_mean() {
        assert!(Setting::RpsCpus(0).same("00000003", "3"));
        assert!(!Setting::RpsCpus(0).same("3", "1"));
        assert!(Setting::IrqAffinity(1).same("0-1", "0,1"));
        assert!(!Setting::IrqAffinity(1).accepts("mask"));
        assert!(Setting::RpsFlowCount(0).accepts("4096") && !Setting::RpsFlowCount(0).accepts("-1"));
    }
}
