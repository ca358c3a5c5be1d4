//! Lines of figures, with the ratio to the first line of a group.

use std::process::ExitCode;
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use wirestack_apps::testbed::enter_user_namespace;

/// Figures of one kind, each against the first.
#[derive(Debug, Default)]
pub(crate) struct Table {
    base: Option<f64>,
}

impl Table {
    /// Prints a line: a name, a value, the ratio to the first value of the table, and a remark.
    pub(crate) fn line(&mut self, name: &str, value: f64, unit: &str, remark: &str) {
        let base = *self.base.get_or_insert(value);
        println!("  {name:<44} {value:>9.3} {unit:<8} x{:<6.2} {remark}", value / base);
    }

    /// Says that something could not be measured, and why.
    pub(crate) fn absent(&self, name: &str, why: &str) {
        println!("  {name:<44} not measured: {why}");
    }
}

/// Prints what the figures depend on.
fn machine() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let kernel = read("/proc/sys/kernel/osrelease");
    println!("kernel {}, {cores} cores of {}", kernel.trim(), model.map_or("unknown", |(_, name)| name));
}

/// What a group may fail with.
pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;
/// A group of measurements: its heading, and what it does.
pub(crate) type Group = (&'static str, fn() -> Outcome);

/// Runs the groups that have one of the words in their heading, or all if there are no words.
pub(crate) fn run(groups: &[Group], words: &[String]) -> ExitCode {
    if let Err(error) = enter_user_namespace() {
        eprintln!("the benchmark needs network namespaces: {error}");
        return ExitCode::FAILURE;
    }
    machine();
    for (title, run) in groups {
        if !words.is_empty() && !words.iter().any(|word| title.contains(word.as_str())) {
            continue;
        }
        println!("\n{title}");
        if let Err(error) = run() {
            eprintln!("{title}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// What was asked for on the command line.
pub(crate) fn words() -> Vec<String> {
    // `cargo bench` adds `--bench`.
    std::env::args().skip(1).filter(|word| word != "--bench").collect()
}

/// Keeps the calling thread on one core.
pub(crate) fn pin(core: usize) {
    let mut set = CpuSet::new();
    // A machine with fewer cores measures less well, and still measures.
    if set.set(core).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}

/// CPU time that the calling thread has used, in seconds.
pub(crate) fn thread_cpu_seconds() -> f64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(0.0, |time| Duration::from(time).as_secs_f64())
}

/// CPU time that all ended children have used, in seconds.
pub(crate) fn children_cpu_seconds() -> f64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return 0.0 };
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}
