//! `wirestack tune`: who serves an interface, what would be better, and setting it for a while.
//!
//! What it changes it puts back when it ends; if it is killed, its next start on the interface does.
//!
//! `/sys` shows the network namespace of whoever mounted it. The program therefore mounts an instance
//! for itself that nobody else sees, which takes CAP_SYS_ADMIN: so it shows the namespace that it is
//! in, whether it was started by `ip netns exec` (which mounts `/sys` anew) or by `nsenter` (which does
//! not). Without the capability it looks into `/sys`, and refuses if that shows another namespace.

mod pin;
mod show;
mod until;

use wirestack::nic::Interface;
use wirestack::nic::affinity::{self, AppliedGuard, CpuSet, Outcome, Plan, Report, Roots, Wishes};
use wirestack::nic::ethtool::{self, Offload, OffloadGuard, Offloads};
use wirestack::nic::restore::{JournalError, Recovery, Scope};

use crate::cli::TuneArgs;
use crate::error::AppError;
use crate::serve::{print, print_error, say};
use pin::PinGuard;
use show::View;
use until::Until;

/// Shows, and with `--apply` sets and stays.
///
/// # Errors
/// What is wrong with the flags or the machine, in one line.
pub fn run(args: &TuneArgs) -> Result<(), AppError> {
    let name = args.nic.interface()?;
    let nic_error = |problem: &dyn std::fmt::Display| AppError::flag("--nic", &args.nic, problem);
    let interface = Interface::by_name(name).map_err(|error| {
        let hint = "(`ip link` lists the interfaces of this network namespace)";
        nic_error(&format_args!("{error} {hint}"))
    })?;
    let roots = Roots::of_this_namespace();
    if !roots.shows(&interface) {
        let problem = "/sys shows another network namespace; showing this one takes CAP_SYS_ADMIN in the first \
                       user namespace, or `ip netns exec`, which mounts /sys anew";
        return Err(nic_error(&problem));
    }
    // Before anything is changed, and before a person is told what holds.
    let until = args.apply.then(|| Until::new(args.pid)).transpose()?;
    let scope = Scope::of_interface(name).map_err(|error| nic_error(&error))?;
    recover(args, &roots, &scope)?;
    let report = Report::read(&roots, name).map_err(|error| nic_error(&error))?;
    let workers = workers(args, &report)?;
    let plan = affinity::propose(&report, &Wishes { workers: workers.clone(), rfs_flows: args.rfs });
    let offloads = ethtool::offloads(name).map_err(|error| nic_error(&error))?;
    check_offloads(args, offloads)?;
    let threads = affinity::pinned_threads(&roots, &report.online, show::THREADS_MAX);
    let mut view =
        View { report: &report, plan: &plan, offloads, wanted: &args.offloads, threads, applied: None };
    let Some(until) = until else {
        show(&view, args.json);
        return Ok(());
    };
    let set = Set::new(args, &plan, &roots, &scope, &workers)?;
    view.applied = Some(&set.queues.outcomes);
    show(&view, args.json);
    say(&format!("ready tune {name}"), args.json);
    until.wait(&interface)
    // `set` goes away here, and puts everything back.
}

/// Everything that is set, and put back by the drop of this.
#[derive(Debug)]
struct Set {
    queues: AppliedGuard,
    _offloads: OffloadGuard,
    _pins: PinGuard,
}

impl Set {
    fn new(
        args: &TuneArgs,
        plan: &Plan,
        roots: &Roots,
        scope: &Scope,
        workers: &CpuSet,
    ) -> Result<Self, AppError> {
        let failed = |error: &dyn std::fmt::Display| AppError::usage(format_args!("--apply: {error}"));
        let mut offloads = OffloadGuard::new(&plan.interface).map_err(|error| failed(&error))?;
        for &(offload, on) in &args.offloads {
            let switched = show::switch(offload, on);
            offloads.set(offload, on).map_err(|error| AppError::flag("--offload", &switched, error))?;
            let found = ethtool::offloads(&plan.interface).map_err(|error| failed(&error))?;
            if found.has(offload) != on {
                print_error(format_args!(
                    "wirestack: --offload {switched}: the kernel took it, and it does not hold: another one \
                     depends on it or it on another one"
                ));
            }
        }
        let queues = plan.apply(roots, scope).map_err(|error| failed(&error))?;
        if let Some(denied) = denied(&queues) {
            let problem = format_args!("{denied}; root of the first user namespace is right");
            return Err(failed(&problem));
        }
        let pins = match args.pid.filter(|_| args.pin) {
            Some(pid) => PinGuard::of_process(pid, workers)?,
            None => PinGuard::default(),
        };
        Ok(Self { queues, _offloads: offloads, _pins: pins })
    }
}

/// Why nothing at all was set, if it was for want of privilege.
fn denied(queues: &AppliedGuard) -> Option<&std::io::Error> {
    let refused = queues.outcomes.iter().map(|(_, outcome)| match outcome {
        Outcome::Refused(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Some(error),
        _ => None,
    });
    refused.collect::<Option<Vec<_>>>()?.into_iter().next()
}

/// Puts back what a process that was killed has left, and tells so.
fn recover(args: &TuneArgs, roots: &Roots, scope: &Scope) -> Result<(), AppError> {
    let name = args.nic.interface()?;
    let results: [Result<Recovery, JournalError>; 2] =
        [affinity::recover(roots, name, scope), ethtool::recover(name)];
    for result in results {
        match result {
            Ok(recovery) => {
                for line in recovery.lines() {
                    print_error(format_args!("wirestack: {name}: {line}"));
                }
            }
            // Whoever only looks is told what is there.
            Err(error) if !args.apply => print_error(format_args!("wirestack: {name}: {error}")),
            Err(error) => return Err(AppError::usage(format_args!("--apply: {error}"))),
        }
    }
    Ok(())
}

/// The CPUs of `--cpus`, which must be online, or those near the device.
fn workers(args: &TuneArgs, report: &Report) -> Result<CpuSet, AppError> {
    let Some(cpus) = &args.cpus else { return Ok(report.near()) };
    let offline = cpus.difference(&report.online);
    if offline.is_empty() {
        return Ok(cpus.clone());
    }
    let problem = format_args!("CPU {offline} is not online; {} are accepted", report.online);
    Err(AppError::flag("--cpus", cpus, problem))
}

fn check_offloads(args: &TuneArgs, offloads: Offloads) -> Result<(), AppError> {
    let missing = |&&(offload, on): &&(Offload, bool)| on && !offloads.is_available(offload);
    let Some(&(offload, on)) = args.offloads.iter().find(missing) else { return Ok(()) };
    let accepted = Offload::ALL.into_iter().filter(|&known| offloads.is_available(known));
    let names: Vec<_> = accepted.map(|known| known.to_string()).collect();
    let problem = format_args!("this interface does not have it; it has {}", names.join(", "));
    Err(AppError::flag("--offload", show::switch(offload, on), problem))
}

fn show(view: &View<'_>, json: bool) {
    if json { print(view.to_json()) } else { print(view.to_string().trim_end()) }
}
