//! Who does the work of an interface now.

use std::fs;
use std::io;
use std::path::Path;

use super::interrupts::{self, Irq};
use super::roots::{read, read_optional};
use super::{CpuSet, Roots, Setting};
use crate::ethtool::{self, Channels};

/// A queue of frames that come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RxQueue {
    /// Its number.
    pub index: u32,
    /// CPUs that go on with its frames (RPS); empty: the one that took them from the device does.
    /// `None`: the kernel was built without RPS.
    pub rps_cpus: Option<CpuSet>,
    /// Flows that it follows to their readers (RFS); 0 is off. `None`: the kernel has no RPS.
    pub rps_flow_count: Option<u32>,
}

/// A queue of frames that go out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxQueue {
    /// Its number.
    pub index: u32,
    /// CPUs that send on it (XPS); empty for none in particular. `None`: it is the only queue, or the
    /// kernel was built without XPS.
    pub xps_cpus: Option<CpuSet>,
    /// RX queues whose flows are answered on it (XPS). `None` as above.
    pub xps_rxqs: Option<CpuSet>,
}

/// Queues, interrupts and the CPUs that serve them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Name of the interface.
    pub interface: String,
    /// Name of the driver; `None` for a device without hardware.
    pub driver: Option<String>,
    /// NUMA node of the device, if it has one.
    pub numa_node: Option<u32>,
    /// CPUs of that node.
    pub node_cpus: Option<CpuSet>,
    /// CPUs that are online.
    pub online: CpuSet,
    /// How many queues the device has on, and could have; `None` if the driver does not tell.
    pub channels: Option<Channels>,
    /// Flows that the network namespace follows (RFS); `None` outside of the first namespace, or in a
    /// kernel without RPS.
    pub rps_sock_flow_entries: Option<u32>,
    /// Queues of frames that come in.
    pub rx: Vec<RxQueue>,
    /// Queues of frames that go out.
    pub tx: Vec<TxQueue>,
    /// Interrupts of the device.
    pub irqs: Vec<Irq>,
}

impl Report {
    /// Looks. Needs no privilege.
    ///
    /// # Errors
    /// ENOENT (as [`io::ErrorKind::NotFound`]): `roots` has no such interface, or no list of CPUs.
    pub fn read(roots: &Roots, interface: &str) -> io::Result<Self> {
        let folder = roots.interface(interface);
        let online: CpuSet =
            read(&roots.sys.join("devices/system/cpu/online"))?.parse().map_err(io::Error::other)?;
        // -1: no node.
        let numa_node = read_optional(&folder.join("device/numa_node")).and_then(|node| node.parse().ok());
        let node_cpus = numa_node.and_then(|node: u32| {
            let list = roots.sys.join(format!("devices/system/node/node{node}/cpulist"));
            read_optional(&list)?.parse::<CpuSet>().ok()
        });
        let driver = fs::read_link(folder.join("device/driver")).ok();
        let number = |setting: Setting| setting.read(roots, interface).ok()?.parse::<u32>().ok();
        let mask = |setting: Setting| CpuSet::from_mask(&setting.read(roots, interface).ok()?).ok();
        let rx = queues(&folder, "rx-")?.into_iter().map(|index| RxQueue {
            index,
            rps_cpus: mask(Setting::RpsCpus(index)),
            rps_flow_count: number(Setting::RpsFlowCount(index)),
        });
        let tx = queues(&folder, "tx-")?.into_iter().map(|index| TxQueue {
            index,
            xps_cpus: mask(Setting::XpsCpus(index)),
            xps_rxqs: read_optional(&folder.join(format!("queues/tx-{index}/xps_rxqs")))
                .and_then(|mask| CpuSet::from_mask(&mask).ok()),
        });
        Ok(Self {
            interface: interface.to_owned(),
            driver: driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())),
            numa_node,
            node_cpus,
            online,
            channels: ethtool::channels(interface).ok(),
            rps_sock_flow_entries: number(Setting::RpsSockFlowEntries),
            rx: rx.collect(),
            tx: tx.collect(),
            irqs: interrupts::of_interface(roots, interface),
        })
    }

    /// The CPUs that are best for this device: those of its NUMA node, or all that are online.
    pub fn near(&self) -> CpuSet {
        let near = self.node_cpus.as_ref().map(|node| node.intersection(&self.online));
        near.filter(|near| !near.is_empty()).unwrap_or_else(|| self.online.clone())
    }

    /// The interrupts that an RX queue has.
    pub fn irqs_of_rx(&self, index: u32) -> impl Iterator<Item = &Irq> {
        self.irqs.iter().filter(move |irq| irq.queue.is_some_and(|queue| queue.rx && queue.index == index))
    }

    /// The interrupts that a TX queue has.
    pub fn irqs_of_tx(&self, index: u32) -> impl Iterator<Item = &Irq> {
        self.irqs.iter().filter(move |irq| irq.queue.is_some_and(|queue| queue.tx && queue.index == index))
    }
}

/// Numbers of the queues of one direction, rising.
fn queues(interface: &Path, prefix: &str) -> io::Result<Vec<u32>> {
    let folder = interface.join("queues");
    let entries = fs::read_dir(&folder)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", folder.display())))?;
    let numbers =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok());
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    Ok(numbers)
}
