//! The interrupts of a device: which queue each is for, and which CPUs serve it.

use std::collections::BTreeSet;
use std::fs;

use super::roots::read_optional;
use super::{CpuSet, Roots};

/// What an interrupt of a device is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IrqQueue {
    /// The number of the queue.
    pub index: u32,
    /// Whether it is for frames that come in.
    pub rx: bool,
    /// Whether it is for frames that go out.
    pub tx: bool,
}

/// An interrupt of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Irq {
    /// The kernel's number.
    pub number: u32,
    /// What the driver calls it, as in `virtio2-input.0`.
    pub name: String,
    /// The queue that it is for, as far as its name tells; `None` for control and configuration.
    pub queue: Option<IrqQueue>,
    /// CPUs that may serve it (`smp_affinity_list`).
    pub affinity: CpuSet,
    /// CPUs that do, as far as the kernel tells (`effective_affinity_list`).
    pub effective: CpuSet,
    /// How often each CPU has served it since it was set up; CPUs that never did are left out.
    pub served: Vec<(usize, u64)>,
}

/// The interrupts of the device behind an interface, by number. Empty for one without hardware.
pub(super) fn of_interface(roots: &Roots, interface: &str) -> Vec<Irq> {
    let device = roots.interface(interface).join("device");
    // The last word of the link is enough: an instance of sysfs that is attached nowhere has no path
    // that `canonicalize` could find.
    let link = fs::read_link(&device).ok();
    let bus_name =
        link.as_ref().and_then(|link| link.file_name()).map(|name| name.to_string_lossy().into_owned());
    let mut numbers = BTreeSet::new();
    // A virtio device has its interrupts at its parent, which is the PCI function. The kernel takes `..`
    // from where the link leads to.
    let is_virtio = bus_name.as_ref().is_some_and(|name| name.starts_with("virtio"));
    let folders = if is_virtio { &["msi_irqs", "../msi_irqs"][..] } else { &["msi_irqs"] };
    for folder in folders {
        let entries = fs::read_dir(device.join(folder)).into_iter().flatten().flatten();
        numbers.extend(entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()));
    }
    let table = read_optional(&roots.proc.join("interrupts")).unwrap_or_default();
    let mut irqs = Vec::new();
    for row in rows(&table) {
        let is_named =
            std::iter::once(interface).chain(bus_name.as_deref()).any(|word| has_word(row.name, word));
        if numbers.contains(&row.number) || is_named {
            irqs.push(read_irq(roots, &row));
        }
    }
    irqs
}

fn read_irq(roots: &Roots, row: &Row<'_>) -> Irq {
    let folder = roots.proc.join("irq").join(row.number.to_string());
    let cpus = |file: &str| read_optional(&folder.join(file)).and_then(|list| list.parse().ok());
    Irq {
        number: row.number,
        name: row.name.to_owned(),
        queue: queue_of(row.name),
        affinity: cpus("smp_affinity_list").unwrap_or_default(),
        effective: cpus("effective_affinity_list").unwrap_or_default(),
        served: row.served.clone(),
    }
}

/// A line of `/proc/interrupts` that is about a device.
struct Row<'a> {
    number: u32,
    served: Vec<(usize, u64)>,
    name: &'a str,
}

/// The table of `/proc/interrupts`: a head that names the CPUs, and lines `NUMBER: COUNT… CHIP … NAME`.
fn rows(table: &str) -> impl Iterator<Item = Row<'_>> {
    let mut lines = table.lines();
    let head = lines.next().unwrap_or_default().split_whitespace();
    let cpus: Vec<usize> = head.map_while(|word| word.strip_prefix("CPU")?.parse().ok()).collect();
    lines.filter_map(move |line| {
        let (number, rest) = line.split_once(':')?;
        let number = number.trim().parse().ok()?;
        let counts = rest.split_whitespace().map_while(|word| word.parse::<u64>().ok());
        let served = cpus.iter().copied().zip(counts).filter(|&(_, count)| count > 0).collect();
        // The names of the drivers that share an interrupt are at the end, separated by ", ".
        Some(Row { number, served, name: line.split_whitespace().last()? })
    })
}

/// Whether `word` is in `name` and no part of a longer word: `eth1` is not in `eth10-rx`.
fn has_word(name: &str, word: &str) -> bool {
    let is_end = |char: Option<char>| char.is_none_or(|char| !char.is_ascii_alphanumeric());
    name.match_indices(word).any(|(at, _)| {
        is_end(name[..at].chars().next_back()) && is_end(name[at + word.len()..].chars().next())
    })
}

/// What the name of an interrupt tells. There is no rule for names, only what drivers do:
/// `virtio2-input.0`, `eth0-TxRx-3`, `eth0-rx-1`, `ens5-Tx-Rx-0`, `mlx5_comp2@pci:0000:01:00.0`.
fn queue_of(name: &str) -> Option<IrqQueue> {
    let name = name.split('@').next()?.to_ascii_lowercase();
    let digits = name.len() - name.trim_end_matches(|char: char| char.is_ascii_digit()).len();
    let (words, index) = name.split_at(name.len() - digits);
    let index = index.parse().ok()?;
    let has = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    let (rx, tx) = (has(&["rx", "input", "comp"]), has(&["tx", "output", "comp"]));
    (rx || tx).then_some(IrqQueue { index, rx, tx })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_drivers_tell_the_queue() {
        let told = |name| queue_of(name).map(|queue| (queue.index, queue.rx, queue.tx));
        assert_eq!(told("virtio2-input.0"), Some((0, true, false)));
        assert_eq!(told("virtio2-output.11"), Some((11, false, true)));
        assert_eq!(told("eth0-TxRx-3"), Some((3, true, true)));
        assert_eq!(told("i40e-eth0-TxRx-7"), Some((7, true, true)));
        assert_eq!(told("ens5-Tx-Rx-0"), Some((0, true, true)));
        assert_eq!(told("eth0-rx-1"), Some((1, true, false)));
        assert_eq!(told("mlx5_comp2@pci:0000:01:00.0"), Some((2, true, true)));
        for other in ["virtio2-config", "eth0", "mlx5_async0@pci:0000:01:00.0", "", "ens5-mgmnt@pci:0"] {
            assert_eq!(told(other), None, "{other}");
        }
    }

    #[test]
    fn the_table_is_read() {
        let table = "           CPU0       CPU2       \n \
             38:          5       7882 PCI-MSIX-0000:00:03.0   1-edge      virtio2-input.0\n\
             NMI:          0          0   Non-maskable interrupts\n\
             ERR:          0\n  9:\n";
        let rows: Vec<_> = rows(table).map(|row| (row.number, row.served, row.name)).collect();
        assert_eq!(rows[0], (38, vec![(0, 5), (2, 7882)], "virtio2-input.0"));
        assert!(super::rows("").next().is_none());
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("eth1-rx-0", "eth1") && has_word("i40e-eth1-TxRx-0", "eth1"));
        assert!(!has_word("eth10-rx-0", "eth1") && !has_word("veth1", "eth1"));
        assert!(has_word("virtio2-input.0", "virtio2"));
    }
}
