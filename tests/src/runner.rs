//! What a test case needs, and running all of them as `cargo test` does.
//!
//! A case that needs what this machine lacks is listed as ignored, with the reason in its name. With
//! `CI=true` a missing program is a failure instead: nothing is skipped unseen.

use std::any::Any;
use std::cell::RefCell;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use wirestack_apps::testbed::{Chain, Wire, WireOptions, is_real_root};
use wirestack_nic::affinity::{CpuSet, pin_current_thread};

use crate::programs::find_program;

pub use libtest_mimic::Failed;

/// How a test ends; anything that can be printed becomes a failure with `?` or `.into()`.
pub type Outcome = Result<(), Failed>;

/// How many tests run at a time unless `--test-threads` or RUST_TEST_THREADS says so: each has two
/// kernels and a stack to keep busy.
const TEST_THREADS: usize = 2;

/// How many run at a time with the tests that do little but wait: see [`patient`].
const PATIENT_THREADS: usize = 10;

/// How long a test may take, so that one that hangs is a failure with a name.
const TEST_TIMEOUT: Duration = Duration::from_secs(180);

/// A test that is not run yet.
pub struct Case {
    name: String,
    body: Box<dyn Fn() -> Outcome + Send + Sync>,
    root: bool,
    is_patient: bool,
    programs: Vec<&'static str>,
}

/// A test that makes what it needs.
pub fn test(name: impl Into<String>, body: fn() -> Outcome) -> Vec<Case> {
    vec![Case::new(name.into(), body)]
}

/// A test on a wire of its own, twice: with all offloads on at both ends, and with all off.
pub fn veth_test(name: &str, body: fn(&Wire) -> Outcome) -> Vec<Case> {
    veth_test_with(name, WireOptions::default, body)
}

/// As [`veth_test`], on a wire with options.
pub fn veth_test_with(name: &str, options: fn() -> WireOptions, body: fn(&Wire) -> Outcome) -> Vec<Case> {
    [("on", true), ("off", false)]
        .map(|(suffix, on)| {
            Case::new(format!("{name}::offloads_{suffix}"), move || {
                let wire = Wire::with(&options())?;
                wire.pair().set_offloads(on)?;
                body(&wire)
            })
        })
        .into()
}

/// A test on two wires, end to end, with these MTUs; twice, as [`veth_test`].
pub fn chain_test(name: &str, mtus: [u32; 2], body: fn(&Chain) -> Outcome) -> Vec<Case> {
    [("on", true), ("off", false)]
        .map(|(suffix, on)| {
            Case::new(format!("{name}::offloads_{suffix}"), move || {
                let chain = Chain::with_mtus(mtus)?;
                chain.set_offloads(on)?;
                body(&chain)
            })
        })
        .into()
}

/// A test that needs root outside of any user namespace: devices in `/dev`, older iptables.
pub fn root_test(name: impl Into<String>, body: fn() -> Outcome) -> Vec<Case> {
    let mut cases = test(name, body);
    cases.iter_mut().for_each(|case| case.root = true);
    cases
}

/// As [`test()`], of a body that knows something: one of many tests that are made from data.
pub fn test_of(name: impl Into<String>, body: impl Fn() -> Outcome + Send + Sync + 'static) -> Vec<Case> {
    vec![Case::new(name.into(), body)]
}

/// As [`test_of`], for tests that need what [`root_test`] does.
pub fn root_test_of(
    name: impl Into<String>,
    body: impl Fn() -> Outcome + Send + Sync + 'static,
) -> Vec<Case> {
    let mut cases = test_of(name, body);
    cases.iter_mut().for_each(|case| case.root = true);
    cases
}

/// Makes tests depend on an installed program of another project.
pub fn require_program(program: &'static str, mut cases: Vec<Case>) -> Vec<Case> {
    cases.iter_mut().for_each(|case| case.programs.push(program));
    cases
}

/// Says of tests that they do little but wait, so that many of them can run beside each other and beside others.
pub fn patient(mut cases: Vec<Case>) -> Vec<Case> {
    cases.iter_mut().for_each(|case| case.is_patient = true);
    cases
}

/// Adds a line to the failure message of the test that runs on this thread: a seed, a command, a trace.
pub fn note(line: impl Into<String>) {
    NOTES.with_borrow(|notes| lock(notes).push(line.into()));
}

/// Runs the cases that the command line asks for, and prints as `cargo test` does.
pub fn run(cases: impl IntoIterator<Item = Vec<Case>>) -> ExitCode {
    let mut args = Arguments::from_args();
    if args.test_threads.is_none() {
        args.test_threads = env::var("RUST_TEST_THREADS").ok().and_then(|threads| threads.parse().ok());
    }
    let permits = Arc::new(Permits::new(args.test_threads.unwrap_or(TEST_THREADS)));
    args.test_threads.get_or_insert(PATIENT_THREADS);
    let machine = Machine::this();
    let trials = cases.into_iter().flatten().map(|case| case.into_trial(&machine, &permits)).collect();
    libtest_mimic::run(&args, trials).exit_code()
}

thread_local! {
    /// What the test on this thread has said so far; shared with the thread that waits for it.
    static NOTES: RefCell<Notes> = RefCell::default();
}

type Notes = Arc<Mutex<Vec<String>>>;

/// What tests can find here.
struct Machine {
    is_root: bool,
    is_ci: bool,
    find: fn(&str) -> bool,
}

impl Machine {
    fn this() -> Self {
        Self {
            is_root: is_real_root(),
            is_ci: env::var_os("CI").is_some_and(|ci| ci == *"true"),
            find: |program| find_program(program).is_some(),
        }
    }
}

/// What becomes of a case on a [`Machine`].
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Run,
    Ignore(String),
    Fail(String),
}

impl Case {
    fn new(name: String, body: impl Fn() -> Outcome + Send + Sync + 'static) -> Self {
        Self { name, body: Box::new(body), root: false, is_patient: false, programs: Vec::new() }
    }

    fn plan(&self, machine: &Machine) -> Plan {
        if let Some(missing) = self.programs.iter().find(|program| !(machine.find)(program)) {
            let reason = format!("{missing} is not installed");
            return if machine.is_ci { Plan::Fail(reason) } else { Plan::Ignore(reason) };
        }
        // Also with CI=true: there the suite runs as root and as somebody else.
        if self.root && !machine.is_root { Plan::Ignore("needs root".to_owned()) } else { Plan::Run }
    }

    fn into_trial(self, machine: &Machine, permits: &Arc<Permits>) -> Trial {
        match self.plan(machine) {
            Plan::Run => {
                let Self { name, body, is_patient, .. } = self;
                let permits = (!is_patient).then(|| Arc::clone(permits));
                Trial::test(name.clone(), move || {
                    let _permit = permits.as_ref().map(|permits| permits.wait());
                    with_timeout(&name, body)
                })
            }
            Plan::Ignore(reason) => {
                let name = format!("{} ({reason})", self.name);
                Trial::test(name, move || Err(reason.into())).with_ignored_flag(true)
            }
            Plan::Fail(reason) => {
                Trial::test(self.name, move || Err(format!("{reason}, and CI=true").into()))
            }
        }
    }
}

/// How many tests that keep the machine busy may run.
#[derive(Debug)]
struct Permits {
    left: Mutex<usize>,
    returned: Condvar,
}

impl Permits {
    fn new(count: usize) -> Self {
        Self { left: Mutex::new(count), returned: Condvar::new() }
    }

    /// Waits for a permit, which is given back when it is dropped.
    fn wait(&self) -> Permit<'_> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let left = self.returned.wait_while(left, |left| *left == 0);
        *left.unwrap_or_else(PoisonError::into_inner) -= 1;
        Permit { permits: self }
    }
}

/// One of [`Permits`].
#[derive(Debug)]
struct Permit<'a> {
    permits: &'a Permits,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.permits.left.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.permits.returned.notify_one();
    }
}

/// Keeps the thread of a test, and what it starts from now on, on the core that it is on.
///
/// For tests that look at the order of frames: veth hands what a core sends to a queue of that core, so
/// frames of a sender that moves to another core, or of a timer that fires there, can overtake each other.
pub fn stay_on_one_core() {
    let core = nix::sched::sched_getcpu().unwrap_or(0);
    let mut cpus = CpuSet::new();
    let pinned = cpus.insert(core).map_err(|error| error.to_string());
    if let Err(error) = pinned.and_then(|()| pin_current_thread(&cpus).map_err(|error| error.to_string())) {
        note(format!("not kept on core {core}: {error}"));
    }
}

/// Runs a test on a thread of its own, and gives up on it if it takes too long.
fn with_timeout(name: &str, body: Box<dyn Fn() -> Outcome + Send + Sync>) -> Outcome {
    let notes = Notes::default();
    let (done, result) = mpsc::channel();
    let thread_notes = Arc::clone(&notes);
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        NOTES.set(thread_notes);
        let outcome = catch_unwind(AssertUnwindSafe(body));
        // Nobody listens after the timeout.
        let _ = done.send(outcome.unwrap_or_else(|panic| Err(panic_message(&*panic).into())));
    })?;
    let outcome = result.recv_timeout(TEST_TIMEOUT);
    let outcome = outcome.unwrap_or_else(|_| Err(format!("not done after {TEST_TIMEOUT:?}").into()));
    outcome.map_err(|failed| failure(name, failed.message().unwrap_or("failed"), &lock(&notes)).into())
}

fn failure(name: &str, message: &str, notes: &[String]) -> String {
    let notes: String = notes.iter().map(|note| format!("\n  {note}")).collect();
    format!("{message}{notes}\n  repeat with: cargo test -p wirestack-tests --test veth -- --exact {name}")
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "panicked with a value that is no text".to_owned())
}

fn lock(notes: &Notes) -> std::sync::MutexGuard<'_, Vec<String>> {
    // A test that panicked while it added a note has added it, or not.
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_CI: Machine = Machine { is_root: false, is_ci: true, find: |_| false };
    const EMPTY: Machine = Machine { is_ci: false, ..EMPTY_CI };
    const FULL: Machine = Machine { is_root: true, is_ci: true, find: |_| true };

    #[test]
    fn a_missing_program_is_seen() {
        let case = &require_program("curl", test("x", || Ok(())))[0];
        assert_eq!(case.plan(&EMPTY), Plan::Ignore("curl is not installed".to_owned()));
        assert_eq!(case.plan(&EMPTY_CI), Plan::Fail("curl is not installed".to_owned()));
        assert_eq!(case.plan(&FULL), Plan::Run);
    }

    #[test]
    fn missing_root_is_seen() {
        let case = root_test("x", || Ok(())).remove(0);
        assert_eq!(case.plan(&EMPTY_CI), Plan::Ignore("needs root".to_owned()));
        assert_eq!(case.plan(&FULL), Plan::Run);
        let trial = case.into_trial(&EMPTY, &Arc::new(Permits::new(1)));
        assert_eq!((trial.name(), trial.has_ignored_flag()), ("x (needs root)", true));
    }

    #[test]
    fn veth_tests_come_in_pairs() {
        let names: Vec<_> = veth_test("x", |_| Ok(())).into_iter().map(|case| case.name).collect();
        assert_eq!(names, ["x::offloads_on", "x::offloads_off"]);
    }

    #[test]
    fn a_failure_tells_all() {
        let body = || -> Outcome {
            note("seed 7");
            panic!("wrong {}", 1)
        };
        let failed = with_timeout("a::b", Box::new(body)).unwrap_err();
        let message = failed.message().unwrap();
        assert!(message.starts_with("wrong 1\n  seed 7\n  repeat with: cargo test"), "{message}");
        assert!(message.ends_with("--exact a::b"), "{message}");
        assert!(with_timeout("a", Box::new(|| Ok(()))).is_ok());
    }
}
