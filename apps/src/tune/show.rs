//! What `tune` prints: tables for people, or one JSON object.

use std::fmt;

use serde_json::{Value, json};
use wirestack::nic::affinity::{Change, CpuSet, Irq, Outcome, Plan, Report, Thread};
use wirestack::nic::ethtool::{Offload, Offloads};

/// Threads that are shown.
pub(super) const THREADS_MAX: usize = 64;

/// Everything that there is to see.
pub(super) struct View<'a> {
    pub(super) report: &'a Report,
    pub(super) plan: &'a Plan,
    pub(super) offloads: Offloads,
    /// Offloads that are to be switched.
    pub(super) wanted: &'a [(Offload, bool)],
    /// Threads that may run on some CPUs only.
    pub(super) threads: Vec<Thread>,
    /// What became of the plan, if it was to be set.
    pub(super) applied: Option<&'a [(Change, Outcome)]>,
}

/// `gro=off`, but with the long name.
pub(super) fn switch(offload: Offload, on: bool) -> String {
    format!("{offload}={}", if on { "on" } else { "off" })
}

impl fmt::Display for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        self.queues(f)?;
        for irq in self.report.irqs.iter().filter(|irq| irq.queue.is_none()) {
            writeln!(f, "irq {} {}: served by CPU {}", irq.number, irq.name, served_by(irq))?;
        }
        for Thread { pid, tid, name, cpus } in &self.threads {
            writeln!(f, "thread {tid} ({name}, process {pid}): runs on CPU {cpus} only")?;
        }
        self.proposal(f)
    }
}

impl View<'_> {
    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        let driver = report.driver.as_deref().unwrap_or("no hardware");
        write!(f, "{}: {driver}, CPUs online {}", report.interface, report.online)?;
        if let (Some(node), Some(cpus)) = (report.numa_node, &report.node_cpus) {
            write!(f, ", NUMA node {node} (CPUs {cpus})")?;
        }
        if let Some(channels) = report.channels {
            let on = (channels.rx + channels.combined, channels.tx + channels.combined);
            let max = (channels.rx_max + channels.combined_max, channels.tx_max + channels.combined_max);
            write!(f, ", queues on rx {} of {}, tx {} of {}", on.0, max.0, on.1, max.1)?;
        }
        writeln!(f)?;
        match report.rps_sock_flow_entries {
            Some(0) => writeln!(f, "RFS: off (net.core.rps_sock_flow_entries is 0)")?,
            Some(flows) => writeln!(f, "RFS: {flows} flows in this network namespace")?,
            None => writeln!(f, "RFS: set in the first network namespace, not here")?,
        }
        writeln!(f, "offloads on: {}", self.offloads)
    }

    fn queues(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, cells: [&str; 5]| {
            let [queue, irq, serves, steers, flows] = cells;
            let line = format!("{queue:<7} {irq:<24} {serves:<14} {steers:<22} {flows}");
            writeln!(f, "{}", line.trim_end())
        };
        row(f, ["queue", "interrupt", "served by CPU", "handed to / sent by", "flows / rx queues"])?;
        for queue in &self.report.rx {
            let (names, cpus) = irq_cells(self.report.irqs_of_rx(queue.index));
            let rps = format!("RPS CPU {}", shown(queue.rps_cpus.as_ref()));
            let flows = queue.rps_flow_count.map_or_else(|| "-".to_owned(), |flows| flows.to_string());
            row(f, [&format!("rx-{}", queue.index), &names, &cpus, &rps, &flows])?;
        }
        for queue in &self.report.tx {
            let (names, cpus) = irq_cells(self.report.irqs_of_tx(queue.index));
            let xps = format!("XPS CPU {}", shown(queue.xps_cpus.as_ref()));
            row(f, [&format!("tx-{}", queue.index), &names, &cpus, &xps, &shown(queue.xps_rxqs.as_ref())])?;
        }
        Ok(())
    }

    fn proposal(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.applied.is_some() { "set" } else { "propose" };
        for &(offload, on) in self.wanted.iter().filter(|(offload, on)| self.offloads.has(*offload) != *on) {
            writeln!(f, "{verb} {}", switch(offload, on))?;
        }
        if let Some(applied) = self.applied {
            for (change, outcome) in applied {
                match outcome {
                    Outcome::Set => writeln!(f, "set {change}")?,
                    Outcome::Other(found) => {
                        writeln!(f, "set {change}; the kernel made {found} of it")?;
                    }
                    Outcome::Refused(error) => writeln!(f, "refused {change}: {error}")?,
                }
            }
        } else {
            for change in &self.plan.changes {
                writeln!(f, "propose {change}")?;
            }
        }
        if self.plan.changes.is_empty() {
            writeln!(f, "nothing to change in queues and interrupts")?;
        }
        Ok(())
    }

    /// The same as an object.
    pub(super) fn to_json(&self) -> Value {
        let report = self.report;
        let rx = report.rx.iter().map(|queue| {
            json!({
                "queue": queue.index,
                "irqs": numbers(report.irqs_of_rx(queue.index)),
                "rps_cpus": list(queue.rps_cpus.as_ref()),
                "rps_flow_count": queue.rps_flow_count,
            })
        });
        let tx = report.tx.iter().map(|queue| {
            json!({
                "queue": queue.index,
                "irqs": numbers(report.irqs_of_tx(queue.index)),
                "xps_cpus": list(queue.xps_cpus.as_ref()),
                "xps_rxqs": list(queue.xps_rxqs.as_ref()),
            })
        });
        let offloads = Offload::ALL.map(|offload| {
            let state = self.offloads.is_available(offload).then(|| self.offloads.has(offload));
            (offload.to_string(), json!(state))
        });
        let threads = self.threads.iter().map(|thread| {
            json!({
                "pid": thread.pid,
                "tid": thread.tid,
                "name": thread.name,
                "cpus": thread.cpus.to_string(),
            })
        });
        json!({
            "interface": report.interface,
            "driver": report.driver,
            "numa_node": report.numa_node,
            "online": report.online.to_string(),
            "channels": report.channels.map(|channels| json!({
                "rx": channels.rx,
                "tx": channels.tx,
                "combined": channels.combined,
                "rx_max": channels.rx_max,
                "tx_max": channels.tx_max,
                "combined_max": channels.combined_max,
            })),
            "rps_sock_flow_entries": report.rps_sock_flow_entries,
            "offloads": offloads.into_iter().collect::<serde_json::Map<_, _>>(),
            "rx": rx.collect::<Vec<_>>(),
            "tx": tx.collect::<Vec<_>>(),
            "irqs": report.irqs.iter().map(irq_json).collect::<Vec<_>>(),
            "threads": threads.collect::<Vec<_>>(),
            "changes": self.changes_json(),
        })
    }

    fn changes_json(&self) -> Vec<Value> {
        let object = |change: &Change, outcome: &str| {
            json!({
                "setting": change.setting.to_string(),
                "before": change.before,
                "after": change.after,
                "why": change.why,
                "outcome": outcome,
            })
        };
        let Some(applied) = self.applied else {
            return self.plan.changes.iter().map(|change| object(change, "proposed")).collect();
        };
        let outcomes = applied.iter().map(|(change, outcome)| match outcome {
            Outcome::Set => object(change, "set"),
            Outcome::Other(found) => object(change, &format!("became {found}")),
            Outcome::Refused(error) => object(change, &format!("refused: {error}")),
        });
        outcomes.collect()
    }
}

fn irq_json(irq: &Irq) -> Value {
    json!({
        "irq": irq.number,
        "name": irq.name,
        "affinity": irq.affinity.to_string(),
        "effective": irq.effective.to_string(),
        "served": irq.served.iter().map(|&(cpu, count)| (cpu.to_string(), json!(count)))
            .collect::<serde_json::Map<_, _>>(),
    })
}

/// Names of interrupts, and who serves them.
fn irq_cells<'a>(irqs: impl Iterator<Item = &'a Irq>) -> (String, String) {
    let (names, cpus): (Vec<_>, Vec<_>) =
        irqs.map(|irq| (format!("{} {}", irq.number, irq.name), served_by(irq))).unzip();
    let join = |words: Vec<String>| if words.is_empty() { "-".to_owned() } else { words.join(";") };
    (join(names), join(cpus))
}

/// The CPUs that serve it, and in parentheses those that may.
fn served_by(irq: &Irq) -> String {
    if irq.effective.is_empty() {
        return shown(Some(&irq.affinity));
    }
    if irq.effective == irq.affinity {
        irq.effective.to_string()
    } else {
        format!("{} ({})", irq.effective, irq.affinity)
    }
}

fn numbers<'a>(irqs: impl Iterator<Item = &'a Irq>) -> Vec<u32> {
    irqs.map(|irq| irq.number).collect()
}

fn list(cpus: Option<&CpuSet>) -> Option<String> {
    cpus.map(ToString::to_string)
}

fn shown(cpus: Option<&CpuSet>) -> String {
    cpus.filter(|cpus| !cpus.is_empty()).map_or_else(|| "-".to_owned(), ToString::to_string)
}
