//! What would be better, and why.

use std::fmt;

use super::{CpuSet, Report, Setting};

/// What a plan is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wishes {
    /// CPUs that are to do the work, as a rule those on which our threads run. Those that are not
    /// online are left out; none at all: see [`Report::near`].
    pub workers: CpuSet,
    /// Flows to follow to their readers (RFS), in all queues together; `None`: leave RFS as it is. It
    /// knows readers of the kernel's own sockets, and so is for programs beside a user stack.
    pub rfs_flows: Option<u32>,
}

/// One setting that would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub setting: Setting,
    /// What holds, as the report has it.
    pub before: String,
    /// What is to hold, as the kernel takes it.
    pub after: String,
    /// Why, in a line.
    pub why: String,
}

/// Everything that would change; nothing, if all is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Name of the interface.
    pub interface: String,
    /// In the order in which to set them.
    pub changes: Vec<Change>,
}

/// Proposes who does the work of an interface: an interrupt on one CPU each, round the workers; where
/// there are fewer RX queues than workers, RPS to those that have no queue; and one TX queue for each
/// worker (XPS), as far as there are queues.
///
/// It is a function of its arguments alone. What holds already is no change.
pub fn propose(report: &Report, wishes: &Wishes) -> Plan {
    let workers = wishes.workers.intersection(&report.online);
    let workers = if workers.is_empty() { report.near() } else { workers };
    let mut planner = Planner { report, workers: workers.iter().collect(), changes: Vec::new() };
    if !planner.workers.is_empty() {
        planner.interrupts();
        planner.rps();
        planner.xps();
    }
    if let Some(flows) = wishes.rfs_flows {
        planner.rfs(flows);
    }
    Plan { interface: report.interface.clone(), changes: planner.changes }
}

struct Planner<'a> {
    report: &'a Report,
    /// Rising; not empty where it is used.
    workers: Vec<usize>,
    changes: Vec<Change>,
}

impl Planner<'_> {
    fn change(&mut self, setting: Setting, before: String, after: String, why: String) {
        if !setting.same(&before, &after) {
            self.changes.push(Change { setting, before, after, why });
        }
    }

    /// The worker that serves queue `index`.
    fn worker(&self, index: u32) -> usize {
        self.workers[index as usize % self.workers.len()]
    }

    fn interrupts(&mut self) {
        for irq in &self.report.irqs {
            let Some(queue) = irq.queue else { continue };
            let cpu = self.worker(queue.index);
            let direction = match (queue.rx, queue.tx) {
                (true, true) => "rx and tx",
                (true, false) => "rx",
                _ => "tx",
            };
            let place = match (self.report.numa_node, self.is_near(cpu)) {
                (Some(node), true) => format!(", on the device's NUMA node {node}"),
                (Some(node), false) => format!(", though the device is on NUMA node {node}"),
                _ => String::new(),
            };
            let why = format!(
                "{} serves {direction} queue {}: one CPU{place}, so frames stay in its cache",
                irq.name, queue.index
            );
            let setting = Setting::IrqAffinity(irq.number);
            self.change(setting, irq.affinity.to_string(), cpu.to_string(), why);
        }
    }

    fn rps(&mut self) {
        let queues = self.report.rx.len();
        for queue in &self.report.rx {
            let Some(before) = &queue.rps_cpus else { continue };
            let served = self.report.irqs_of_rx(queue.index).next().is_some();
            // Every `queues`-th worker; if there are none left, the one whose turn it is again.
            let mut share: CpuSet =
                self.workers.iter().copied().skip(queue.index as usize).step_by(queues.max(1)).collect();
            if share.is_empty() {
                share = [self.worker(queue.index)].into_iter().collect();
            }
            let (after, why) = if !served {
                let why = format!(
                    "no interrupt of its own: the sender's CPU would go on, so hand it to CPU {share}"
                );
                (share, why)
            } else if queues < self.workers.len() {
                let own = [self.worker(queue.index)].into_iter().collect();
                let rest = share.difference(&own);
                let why = if rest.is_empty() {
                    "each CPU of its share has a queue: one more hop would only cost".to_owned()
                } else {
                    format!(
                        "{queues} queue(s) for {} CPUs: CPU {own} takes frames, CPU {rest} goes on with them",
                        self.workers.len()
                    )
                };
                (rest, why)
            } else {
                let why = "each CPU has a queue of its own: one more hop would only cost".to_owned();
                (CpuSet::new(), why)
            };
            let why = format!("rx queue {}: {why}", queue.index);
            self.change(Setting::RpsCpus(queue.index), before.to_mask(), after.to_mask(), why);
        }
    }

    fn xps(&mut self) {
        let queues: Vec<_> = self.report.tx.iter().filter(|queue| queue.xps_cpus.is_some()).collect();
        for (position, queue) in queues.iter().enumerate() {
            let Some(before) = &queue.xps_cpus else { continue };
            let share: CpuSet = self.workers.iter().copied().skip(position).step_by(queues.len()).collect();
            let why = if share.is_empty() {
                format!(
                    "tx queue {}: there are more queues than CPUs, this one is left to nobody",
                    queue.index
                )
            } else {
                format!(
                    "tx queue {}: only CPU {share} sends on it, so its lock is not fought over",
                    queue.index
                )
            };
            self.change(Setting::XpsCpus(queue.index), before.to_mask(), share.to_mask(), why);
        }
    }

    fn rfs(&mut self, flows: u32) {
        if let Some(before) = self.report.rps_sock_flow_entries.filter(|&before| before < flows) {
            let why = format!("flows are followed if the whole namespace has room for {flows} of them");
            self.change(Setting::RpsSockFlowEntries, before.to_string(), rounded(flows).to_string(), why);
        }
        let queues = u32::try_from(self.report.rx.len()).unwrap_or(u32::MAX).max(1);
        let share = rounded(flows.div_ceil(queues));
        for queue in &self.report.rx {
            let Some(before) = queue.rps_flow_count else { continue };
            let why = format!(
                "rx queue {}: its share of {flows} flows, which go to the CPU of their reader",
                queue.index
            );
            self.change(Setting::RpsFlowCount(queue.index), before.to_string(), share.to_string(), why);
        }
    }

    fn is_near(&self, cpu: usize) -> bool {
        self.report.node_cpus.as_ref().is_none_or(|node| node.contains(cpu))
    }
}

/// The power of two to which the kernel rounds sizes of its flow tables; 0 stays, it is off.
fn rounded(flows: u32) -> u32 {
    if flows == 0 { 0 } else { flows.checked_next_power_of_two().unwrap_or(1 << 31) }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &str| if value.is_empty() { "-".to_owned() } else { value.to_owned() };
        write!(f, "{}: {} -> {} ({})", self.setting, shown(&self.before), shown(&self.after), self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Irq, IrqQueue, RxQueue, TxQueue};
    use super::*;

    fn cpus(list: &str) -> CpuSet {
        list.parse().unwrap()
    }

    /// A device with `queues` queues in each direction, each with an interrupt if `hardware`.
    fn report(queues: u32, hardware: bool, online: &str) -> Report {
        let irq = |index| Irq {
            number: 30 + index,
            name: format!("eth0-TxRx-{index}"),
            queue: Some(IrqQueue { index, rx: true, tx: true }),
            affinity: cpus(online),
            effective: cpus("0"),
            served: Vec::new(),
        };
        Report {
            interface: "eth0".to_owned(),
            driver: None,
            numa_node: None,
            node_cpus: None,
            online: cpus(online),
            channels: None,
            rps_sock_flow_entries: Some(0),
            rx: (0..queues)
                .map(|index| RxQueue { index, rps_cpus: Some(CpuSet::new()), rps_flow_count: Some(0) })
                .collect(),
            tx: (0..queues)
                .map(|index| TxQueue {
                    index,
                    xps_cpus: (queues > 1).then(CpuSet::new),
                    xps_rxqs: (queues > 1).then(CpuSet::new),
                })
                .collect(),
            irqs: if hardware { (0..queues).map(irq).collect() } else { Vec::new() },
        }
    }

    fn changes(report: &Report, workers: &str, rfs_flows: Option<u32>) -> Vec<(String, String)> {
        let plan = propose(report, &Wishes { workers: cpus(workers), rfs_flows });
        assert!(plan.changes.iter().all(|change| !change.why.is_empty() && !change.why.contains('\n')));
        plan.changes.into_iter().map(|change| (change.setting.to_string(), change.after)).collect()
    }

    fn owned(changes: &[(&str, &str)]) -> Vec<(String, String)> {
        changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_queue_for_each_worker() {
        let expected = owned(&[
            ("irq/30/smp_affinity_list", "2"),
            ("irq/31/smp_affinity_list", "5"),
            ("tx-0/xps_cpus", "4"),
            ("tx-1/xps_cpus", "20"),
        ]);
        assert_eq!(changes(&report(2, true, "0-7"), "2,5", None), expected);
    }

    #[test]
    fn fewer_queues_than_workers_go_on_by_rps() {
        let expected = owned(&[("irq/30/smp_affinity_list", "0"), ("rx-0/rps_cpus", "e")]);
        assert_eq!(changes(&report(1, true, "0-3"), "", None), expected);
        let expected = owned(&[
            ("irq/30/smp_affinity_list", "0"),
            ("irq/31/smp_affinity_list", "1"),
            ("rx-0/rps_cpus", "4"),
            ("tx-0/xps_cpus", "5"),
            ("tx-1/xps_cpus", "2"),
        ]);
        assert_eq!(changes(&report(2, true, "0-2"), "", None), expected);
    }

    #[test]
    fn more_queues_than_workers_leave_some_idle() {
        let plan = changes(&report(3, true, "0-1"), "", None);
        assert_eq!(plan[2], ("irq/32/smp_affinity_list".to_owned(), "0".to_owned()));
        let xps: Vec<_> = plan.iter().filter(|(name, _)| name.contains("xps")).collect();
        assert_eq!(xps.len(), 2, "the third has no CPU before and after: {xps:?}");
    }

    #[test]
    fn without_interrupts_every_queue_is_handed_on() {
        let expected = owned(&[
            ("rx-0/rps_cpus", "1"),
            ("rx-1/rps_cpus", "2"),
            ("tx-0/xps_cpus", "1"),
            ("tx-1/xps_cpus", "2"),
        ]);
        assert_eq!(changes(&report(2, false, "0-1"), "0-1", None), expected);
        assert_eq!(changes(&report(2, false, "0-1"), "1", None)[1].1, "2");
    }

    #[test]
    fn flows_are_shared_among_queues() {
        let mut device = report(2, false, "0-1");
        device.tx.clear();
        let plan = changes(&device, "0-1", Some(3000));
        let expected = owned(&[
            ("rps_sock_flow_entries", "4096"),
            ("rx-0/rps_flow_cnt", "2048"),
            ("rx-1/rps_flow_cnt", "2048"),
        ]);
        assert_eq!(plan[2..], expected);
        assert_eq!((rounded(0), rounded(1), rounded(3), rounded(u32::MAX)), (0, 1, 4, 1 << 31));
    }

    #[test]
    fn the_devices_node_is_the_default_and_nothing_is_done_twice() {
        let mut device = report(1, true, "0-3");
        device.numa_node = Some(1);
        device.node_cpus = Some(cpus("2-3,8-9"));
        assert_eq!(
            changes(&device, "", None),
            owned(&[("irq/30/smp_affinity_list", "2"), ("rx-0/rps_cpus", "8")])
        );
        // CPUs that are not online are not workers.
        assert_eq!(changes(&device, "100", None)[0].1, "2");
        device.irqs[0].affinity = cpus("2");
        device.rx[0].rps_cpus = Some(cpus("3"));
        assert_eq!(changes(&device, "", None), []);
    }
}
