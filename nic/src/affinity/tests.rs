//! The whole way on files as the kernel has them, in a folder: report, plan, guard, crash.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;
use crate::restore::Scope;

/// A PCI network device with virtio queues, as Linux shows it.
struct Tree {
    folder: tempfile::TempDir,
    roots: Roots,
}

impl Tree {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (sys, proc) = (folder.path().join("sys"), folder.path().join("proc"));
        let tree = Self { roots: Roots::at(&sys, &proc), folder };
        let pci = "sys/devices/pci0000:00/0000:00:03.0";
        let device = format!("{pci}/virtio2");
        for (file, value) in [
            ("sys/devices/system/cpu/online", "0-3\n"),
            ("sys/devices/system/node/node0/cpulist", "0-3\n"),
            ("proc/sys/net/core/rps_sock_flow_entries", "0\n"),
            (&format!("{device}/numa_node"), "0\n"),
            (&format!("{pci}/msi_irqs/37"), "msix\n"),
            (&format!("{pci}/msi_irqs/38"), "msix\n"),
            (&format!("{device}/net/eth0/queues/rx-0/rps_cpus"), "00000000\n"),
            (&format!("{device}/net/eth0/queues/rx-0/rps_flow_cnt"), "0\n"),
            (&format!("{device}/net/eth0/queues/tx-0/xps_cpus"), "f\n"),
            (&format!("{device}/net/eth0/queues/tx-1/xps_cpus"), "00000000\n"),
            ("proc/irq/37/smp_affinity_list", "0-3\n"),
            ("proc/irq/38/smp_affinity_list", "0-3\n"),
            ("proc/irq/38/effective_affinity_list", "2\n"),
            ("proc/irq/39/smp_affinity_list", "1\n"),
            (
                "proc/interrupts",
                "      CPU0 CPU1 CPU2 CPU3\n\
                 36:  1    0    0    0  PCI-MSIX-0000:00:02.0 1-edge virtio1-req.0\n\
                 37:  0    0    0    0  PCI-MSIX-0000:00:03.0 0-edge virtio2-config\n\
                 38:  0    0    9    0  PCI-MSIX-0000:00:03.0 1-edge virtio2-input.0\n\
                 39:  0    4    0    0  PCI-MSIX-0000:00:03.0 2-edge virtio2-output.0\n",
            ),
        ] {
            tree.write(file, value);
        }
        fs::create_dir_all(sys.join("class/net")).unwrap();
        fs::create_dir_all(sys.join("bus/virtio/drivers/virtio_net")).unwrap();
        let real = tree.folder.path().join(&device);
        symlink(real.join("net/eth0"), sys.join("class/net/eth0")).unwrap();
        symlink(&real, real.join("net/eth0/device")).unwrap();
        symlink(sys.join("bus/virtio/drivers/virtio_net"), real.join("driver")).unwrap();
        tree
    }

    fn write(&self, file: &str, value: &str) {
        let path = self.folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value).unwrap();
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap().trim().to_owned()
    }

    fn queue(&self, file: &str) -> String {
        self.read(&format!("sys/class/net/eth0/queues/{file}"))
    }

    fn scope(&self) -> Scope {
        Scope::new(self.folder.path().to_owned(), "eth0", 1, 2)
    }

    fn plan(&self) -> Plan {
        let wishes = Wishes { workers: "1-2".parse().unwrap(), rfs_flows: Some(512) };
        propose(&Report::read(&self.roots, "eth0").unwrap(), &wishes)
    }
}

#[test]
fn the_report_has_what_the_files_have() {
    let tree = Tree::new();
    let report = Report::read(&tree.roots, "eth0").unwrap();
    assert_eq!((report.driver.as_deref(), report.numa_node), (Some("virtio_net"), Some(0)));
    assert_eq!(report.near().to_string(), "0-3");
    assert_eq!((report.rx.len(), report.tx.len()), (1, 2));
    assert_eq!(report.rx[0].rps_cpus, Some(CpuSet::new()));
    assert_eq!(report.tx[0].xps_cpus.as_ref().unwrap().to_string(), "0-3");
    assert_eq!(report.tx[0].xps_rxqs, None);
    // By folder and by name; not that of the disk.
    let numbers: Vec<_> = report.irqs.iter().map(|irq| irq.number).collect();
    assert_eq!(numbers, [37, 38, 39]);
    let irq = report.irqs_of_rx(0).next().unwrap();
    assert_eq!((irq.number, irq.effective.to_string(), &irq.served[..]), (38, "2".to_owned(), &[(2, 9)][..]));
    assert_eq!(report.irqs_of_tx(0).next().unwrap().number, 39);
    assert!(Report::read(&tree.roots, "eth1").is_err());
}

#[test]
fn a_guard_sets_and_puts_back() {
    let tree = Tree::new();
    let guard = tree.plan().apply(&tree.roots, &tree.scope()).unwrap();
    assert!(guard.outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Set)), "{guard:?}");
    let queues = ["rx-0/rps_cpus", "tx-0/xps_cpus", "tx-1/xps_cpus"].map(|file| tree.queue(file));
    assert_eq!(queues, ["4", "2", "4"]);
    assert_eq!(tree.read("proc/irq/38/smp_affinity_list"), "1");
    assert_eq!(tree.queue("rx-0/rps_flow_cnt"), "512");
    // Another one cannot be in charge at the same time.
    assert!(tree.plan().apply(&tree.roots, &tree.scope()).is_err());
    drop(guard);
    assert_eq!(tree.read("proc/irq/38/smp_affinity_list"), "0-3");
    assert_eq!(tree.queue("rx-0/rps_flow_cnt"), "0");
    assert!(recover(&tree.roots, "eth0", &tree.scope()).unwrap().is_empty());
}

#[test]
fn what_is_refused_stops_nothing() {
    let tree = Tree::new();
    let plan = tree.plan();
    // A folder is what neither root nor anybody else can write to.
    let irq = tree.folder.path().join("proc/irq/38/smp_affinity_list");
    fs::remove_file(&irq).unwrap();
    fs::create_dir(&irq).unwrap();
    let guard = plan.apply(&tree.roots, &tree.scope()).unwrap();
    let refused = guard.outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Refused(_))).count();
    assert_eq!((refused, guard.changed_len()), (1, plan.changes.len() - 1));
    drop(guard);
    assert!(records(&tree).is_empty());
}

#[test]
fn what_is_refused_is_not_on_record() {
    let tree = Tree::new();
    // Can be read and is a list of CPUs; nobody can write to it, not even root.
    let irq = tree.folder.path().join("proc/irq/38/smp_affinity_list");
    let plan = tree.plan();
    fs::remove_file(&irq).unwrap();
    std::os::unix::fs::symlink("/sys/devices/system/cpu/online", &irq).unwrap();
    let guard = plan.apply(&tree.roots, &tree.scope()).unwrap();
    let refused = guard.outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Refused(_))).count();
    assert_eq!((refused, guard.changed_len()), (1, plan.changes.len() - 1), "{guard:?}");
    let text = fs::read_to_string(records(&tree).remove(0)).unwrap();
    assert!(!text.contains("irq/38") && text.contains("xps_cpus"), "{text}");
}

#[test]
fn a_record_names_settings_and_nothing_else() {
    let tree = Tree::new();
    let guard = tree.plan().apply(&tree.roots, &tree.scope()).unwrap();
    let record = records(&tree).remove(0);
    std::mem::forget(guard);
    let text = fs::read_to_string(&record).unwrap();
    // Another process had it, and somebody has put in what is no setting and what is no value.
    let text = text.replacen(&format!("owner {} ", std::process::id()), "owner 4194305 ", 1);
    let text = text.replace("end\n", "../../etc/passwd\troot\nirq/38/smp_affinity_list\tall\nend\n");
    fs::write(&record, text).unwrap();
    let recovery = recover(&tree.roots, "eth0", &tree.scope()).unwrap();
    let wrong = recovery.entries.iter().filter(|entry| entry.error.is_some()).count();
    assert_eq!(wrong, 2, "{recovery:?}");
    assert_eq!(tree.read("proc/irq/38/smp_affinity_list"), "0-3");
    assert_eq!(tree.queue("tx-0/xps_cpus"), "f");
    assert_eq!(tree.queue("rx-0/rps_flow_cnt"), "0");
    assert!(records(&tree).is_empty());
}

/// Records in the folder of a tree.
fn records(tree: &Tree) -> Vec<PathBuf> {
    let entries = fs::read_dir(tree.folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let is_record =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("tune-"));
    entries.filter(is_record).collect()
}
