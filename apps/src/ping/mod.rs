//! `wirestack ping`: echo requests by our own stack, and statistics as people know them from iputils.
//!
//! ```text
//!   addresses ready ─▶ name resolved ─▶ Session: send, receive, print ─▶ statistics ─▶ lease given back
//! ```

pub mod args;
mod resolve;
mod session;
mod statistics;
mod words;

use std::net::IpAddr;

use serde::Serialize;
use smoltcp::time::{Duration, Instant};
use wirestack::dns::ResolveError;
use wirestack::nic::claim::Protocol;
use wirestack::nic::{LinkError, Nic, wait};
use wirestack::shard::{Command, Shard};

use crate::addresses::{AddressArg, Waiting, Wanted};
use crate::cli::NicName;
use crate::control::Desk;
use crate::error::AppError;
use crate::names;
use crate::report::About;
use crate::serve::{Figures, Stop, one, print, stack_figures};
use crate::setup::{self, NicProgram, Ports, Prepared};

use args::PingArgs;
use session::Session;
use statistics::Times;

/// Pings until all is answered, or a signal.
///
/// # Errors
/// What is wrong with the flags or the machine, in one line; or nothing was answered, without a word.
pub fn run(args: &PingArgs) -> Result<(), AppError> {
    if matches!(args.host.nic, NicName::NfQueue { .. }) {
        let problem = "answers come from an interface; packet:, tap: or tun:IFNAME is accepted";
        return Err(AppError::flag("--nic", &args.host.nic, problem));
    }
    let literal = resolve::literal(args)?;
    let is_v4 = args.ipv4 || literal.is_some_and(|address| address.is_ipv4());
    if is_v4 && args.size_max() > SIZE_V4_MAX {
        let problem = format_args!("0..={SIZE_V4_MAX} is accepted with IPv4");
        let flag = if args.sweep.is_some() { "--sweep" } else { "-s" };
        return Err(AppError::flag(flag, args.size_max(), problem));
    }
    // On an address that the kernel has too, answers of name servers must be ours.
    let ports = Ports { served: Vec::new(), protocols: &[], sources: &[Protocol::Udp] };
    setup::start(&args.host, ports, PingProgram { args, literal })
}

struct PingProgram<'a> {
    args: &'a PingArgs,
    literal: Option<IpAddr>,
}

impl NicProgram for PingProgram<'_> {
    fn run<N: Nic + Send + 'static>(self, nics: Vec<N>, prepared: Prepared<'_>) -> Result<(), AppError> {
        let nic = one(nics)?;
        let Prepared { mut net, stop, control, name, .. } = prepared;
        let args = self.args;
        let is_told = args.host.wants(AddressArg::Dhcp) || args.host.wants(AddressArg::Slaac);
        let ports = net.shard.source_ports.range.clone();
        net.shard.dns = names::config(&args.dns, is_told, ports);
        // The first request may wait for its neighbour in many fragments.
        net.shard.neighbor.parked_frames_max = net.shard.neighbor.parked_frames_max.max(FRAGMENTS_MAX);
        let mut shard = Shard::new(net.shard, wait::now()).map_err(AppError::usage)?;
        net.wanted.conflicts.watch(&mut shard);
        let (desk, asker) = Desk::new(About::new("ping", name), 0, nic.waker());
        let ask = move |request| asker.ask(request);
        let _serving = control.map(|control| control.serve(ask)).transpose().map_err(AppError::running)?;
        let mut driver = Driver { shard, nic, stop, desk, is_up: true, is_busy: args.busy_poll, spins: 0 };
        let result = self.ping(&mut driver, &net.wanted);
        driver.release_lease();
        result
    }
}

impl PingProgram<'_> {
    fn ping<N: Nic>(&self, driver: &mut Driver<N>, wanted: &Wanted) -> Result<(), AppError> {
        if !driver.wait_for_addresses(wanted)? {
            return Err(silent());
        }
        let Some(to) = self.resolve(driver)? else { return Err(silent()) };
        let mut session = Session::new(self.args, &mut driver.shard, to, wait::now())?;
        session.print_head();
        loop {
            let now = wait::now();
            if driver.stop.is_set() || session.is_over(now) {
                break;
            }
            let mut polled = Ok(());
            let due = driver.turn(now, |shard| polled = session.poll(shard, now));
            polled?;
            // What was polled may have been the last.
            if session.is_over(now) {
                break;
            }
            if let Err(error) = driver.sleep([due, session.deadline()].into_iter().flatten().min()) {
                // What was counted until then is worth as much.
                self.report(&session, driver);
                return Err(error);
            }
        }
        self.report(&session, driver);
        match session.status() {
            0 => Ok(()),
            _ => Err(silent()),
        }
    }

    /// The address of the destination. `None`: the program is to end.
    fn resolve<N: Nic>(&self, driver: &mut Driver<N>) -> Result<Option<IpAddr>, AppError> {
        if let Some(address) = self.literal {
            return Ok(Some(address));
        }
        let name = &self.args.destination;
        let question = driver.shard.resolve(name, resolve::kind(self.args)).map_err(|error| match error {
            ResolveError::NoServer => {
                resolve::failed(self.args, "no name server is known; name one with --dns")
            }
            error => AppError::flag("HOST", name, error),
        })?;
        while !driver.stop.is_set() {
            let due = driver.turn(wait::now(), |_| {});
            if let Some(event) = driver.shard.next_answer().filter(|event| event.id == question) {
                let answer = event.result.map_err(|error| resolve::failed(self.args, error))?;
                return resolve::choose(self.args, &driver.shard, &answer).map(Some);
            }
            driver.sleep(due)?;
        }
        Ok(None)
    }

    fn report<N: Nic>(&self, session: &Session<'_>, driver: &mut Driver<N>) {
        let (statistics, elapsed) = (&session.statistics, session.elapsed());
        if !self.args.host.json {
            print(format_args!("\n--- {} ping statistics ---", self.args.destination));
            print(statistics.line(elapsed));
            if let Some(times) = statistics.times() {
                print(times.line());
            }
            return;
        }
        let counters = driver.nic.counters().named().map(|(name, value)| (name.to_owned(), value.into()));
        let stack = stack_figures(driver.shard.counters(), driver.shard.drops());
        let report = Report {
            destination: &self.args.destination,
            address: session.address(),
            transmitted: statistics.transmitted,
            received: statistics.received,
            duplicates: statistics.duplicates,
            errors: statistics.errors,
            corrupted: statistics.corrupted,
            loss_percent: statistics.loss(),
            time_ms: elapsed.as_millis() as u64,
            rtt_us: statistics.times(),
            counters: serde_json::Value::Object(counters.chain(stack).collect()),
        };
        print(serde_json::to_string(&report).unwrap_or_default());
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    destination: &'a str,
    address: IpAddr,
    transmitted: u64,
    received: u64,
    duplicates: u64,
    errors: u64,
    corrupted: u64,
    loss_percent: f64,
    time_ms: u64,
    /// `null` if nothing was answered.
    rtt_us: Option<Times>,
    counters: serde_json::Value,
}

/// A shard on its device, turned and slept for.
struct Driver<N> {
    shard: Shard,
    nic: N,
    stop: Stop,
    /// Where others ask how it goes.
    desk: Desk,
    /// What the shard was told of the link.
    is_up: bool,
    is_busy: bool,
    spins: u32,
}

impl<N: Nic> Driver<N> {
    fn turn(&mut self, now: Instant, app: impl FnMut(&mut Shard)) -> Option<Instant> {
        let Self { shard, nic, desk, .. } = self;
        let due = shard.turn(now, nic, app);
        if desk.turn(shard, || Figures::of_shard(shard, nic.counters())) { Some(now) } else { due }
    }

    /// Sleeps until there may be something to do; a busy one looks now and then whether the link is there.
    fn sleep(&mut self, deadline: Option<Instant>) -> Result<(), AppError> {
        self.spins = self.spins.wrapping_add(1);
        if self.is_busy && !self.spins.is_multiple_of(SPINS_PER_LOOK) {
            std::hint::spin_loop();
            return Ok(());
        }
        let deadline = if self.is_busy { Some(Instant::ZERO) } else { deadline };
        let is_up = match self.nic.wait(deadline) {
            Ok(_) => true,
            Err(LinkError::Down) => false,
            Err(LinkError::Gone) => return Err(AppError::running(LinkError::Gone)),
        };
        if is_up != self.is_up && self.shard.push_command(Command::LinkChanged(is_up)).is_ok() {
            self.is_up = is_up;
        }
        Ok(())
    }

    /// `false`: the program is to end.
    fn wait_for_addresses(&mut self, wanted: &Wanted) -> Result<bool, AppError> {
        let waiting = Waiting::begin(wanted, wait::now());
        while !self.stop.is_set() {
            let now = wait::now();
            let due = self.turn(now, |_| {});
            if waiting.look(&self.shard, now)?.is_some() {
                return Ok(true);
            }
            self.sleep([due, Some(waiting.deadline())].into_iter().flatten().min())?;
        }
        Ok(false)
    }

    fn release_lease(&mut self) {
        if self.shard.dhcp_lease().is_none() {
            return;
        }
        self.shard.dhcp_release();
        let give_up = wait::now() + RELEASE_TIMEOUT;
        while wait::now() < give_up {
            self.turn(wait::now(), |_| {});
            if self.shard.is_quiet() || self.nic.wait(Some(give_up)).is_err() {
                return;
            }
        }
    }
}

/// Everything was said already.
fn silent() -> AppError {
    AppError { message: String::new(), status: 1 }
}

/// Data behind the headers of IPv4 and ICMP, in the longest packet.
const SIZE_V4_MAX: usize = 65_507;
/// Fragments of the longest packet on a link with the shortest MTU of IPv6.
const FRAGMENTS_MAX: usize = 64;
/// How often a busy loop looks at the link: about once a millisecond.
const SPINS_PER_LOOK: u32 = 1_024;
/// How long a lease may take to be given back.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(500);
