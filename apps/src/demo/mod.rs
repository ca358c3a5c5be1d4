//! `wirestack demo`: the whole thing in one command, without root.
//!
//! ```text
//!   user namespace ─┬─ network namespace "peer": the kernel's TCP, std::net, --exec
//!                   │        │ veth pair
//!                   └─ network namespace "ours": AF_PACKET rings, HTTP and echo on the user stack
//! ```
//!
//! Both namespaces and the pair exist only as long as this process: nothing is left, however it ends.
//! With `--host` the peer's end is in the namespace that the process was started in.

mod measure;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use nix::ifaddrs::getifaddrs;
use serde::Serialize;
use wirestack::IpCidr;
use wirestack::config::HostConfig;
use wirestack::nic::impair::ImpairSpec;
use wirestack::nic::{AfPacket, AfPacketConfig, Nic};
use wirestack::shard::Shard;

use crate::cli::{DemoArgs, PrivilegeArgs, TcpArgs};
use crate::echo::Echo;
use crate::engine::{self, Backend, InTurn};
use crate::error::AppError;
use crate::host::{Host, RunArgs};
use crate::http::{Http, Site};
use crate::net::Net;
use crate::privileges::{self, Keep, Threads};
use crate::serve::{self, Figures, Service, Stop, one, print};
use crate::setup::{NicProgram, Prepared, Wrap, open_pcap, random_seed};
use crate::stream::Listening;
use crate::testbed::{
    self, IPV4_PREFIX_LEN, IPV6_PREFIX_LEN, OURS_IPV4, OURS_IPV6, PeerKernel, Wire, WireOptions, has_ipv6,
};

use measure::Measured;

/// Runs the demo.
///
/// # Errors
/// Namespaces or the device are not to be had; what was asked for failed. One line.
pub fn run(args: &DemoArgs) -> Result<(), AppError> {
    args.tcp.check()?;
    let peer = if args.host { PeerKernel::Current } else { PeerKernel::New };
    if args.host {
        if !testbed::is_real_root() {
            return Err(AppError::usage("--host: adding an interface to this host needs root"));
        }
        check_networks_are_free()?;
    } else {
        testbed::enter_user_namespace().map_err(AppError::usage)?;
    }
    let wire = Wire::with(&WireOptions { peer, ..WireOptions::default() }).map_err(AppError::usage)?;
    let server = Server {
        interface: wire.ours().name().to_owned(),
        pcap: args.pcap.clone(),
        impair: args.impair,
        until_signal: args.host,
        tcp: args.tcp.clone(),
    };
    let (ready, is_ready) = mpsc::channel();
    let thread = wire.ours().namespace().spawn(move || server.run(ready));
    let joined = |thread: std::thread::JoinHandle<Result<Figures, AppError>>| {
        thread.join().unwrap_or_else(|_| Err(AppError::running("the server's thread panicked")))
    };
    // The other end of the channel is dropped when the server could not start.
    let Ok(stop) = is_ready.recv() else { return joined(thread).map(drop) };
    if args.host {
        return joined(thread).map(serve::print_error);
    }
    let outcome = wire.at_peer(|| match &args.exec {
        Some(command) => execute(command).map(|()| None),
        None => measure::measure(OURS_IPV4.into()).map(Some),
    });
    stop.set();
    let figures = joined(thread)?;
    if let Some(measured) = outcome? {
        report(&measured, &figures, args.json)?;
    }
    Ok(())
}

/// Refuses to put a second interface into a network that the host is on already: the kernel would reach
/// only one of them.
fn check_networks_are_free() -> Result<(), AppError> {
    let networks =
        [IpCidr::new(OURS_IPV4.into(), IPV4_PREFIX_LEN), IpCidr::new(OURS_IPV6.into(), IPV6_PREFIX_LEN)];
    for interface in getifaddrs().map_err(AppError::running)? {
        let Some(storage) = &interface.address else { continue };
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let v6 = storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
        let Some(address) = v4.or(v6) else { continue };
        if let Some(network) = networks.iter().find(|network| network.contains_addr(&address.into())) {
            let name = interface.interface_name;
            return Err(AppError::flag("--host", network, format_args!("{name} is in it, as {address}")));
        }
    }
    Ok(())
}

/// The stack's end: HTTP on port 80 and echo on port 7.
#[derive(Debug)]
struct Server {
    interface: String,
    pcap: Option<PathBuf>,
    impair: Option<ImpairSpec>,
    until_signal: bool,
    tcp: TcpArgs,
}

impl Server {
    /// Serves until the stop that it sends through `ready` is set, or a signal comes.
    fn run(self, ready: Sender<Stop>) -> Result<Figures, AppError> {
        let nic = AfPacket::open(&self.interface, AfPacketConfig::default()).map_err(AppError::usage)?;
        let mut config =
            HostConfig::new(nic.interface().mac).address(IpCidr::new(OURS_IPV4.into(), IPV4_PREFIX_LEN));
        if has_ipv6() {
            config = config.address(IpCidr::new(OURS_IPV6.into(), IPV6_PREFIX_LEN));
        }
        config.seed = random_seed();
        let pcap = self.pcap.as_deref().map(open_pcap).transpose()?;
        let wrap = Wrap { impair: self.impair, pcap, name: &self.interface, seed: config.seed };
        let stop = match self.until_signal {
            true => Stop::on_signals(nic.waker())?,
            false => Stop::new(nic.waker()),
        };
        let (figures, all_figures) = mpsc::channel();
        let program = DemoProgram { ready, figures, until_signal: self.until_signal, tcp: self.tcp };
        let net = Net::plain(config);
        let name = self.interface.clone();
        wrap.run(
            vec![nic],
            Prepared { net, stop, json: false, about: None, control: None, name, keep: Keep::Nothing },
            program,
        )?;
        all_figures.recv().map_err(AppError::running)
    }
}

struct DemoProgram {
    ready: Sender<Stop>,
    figures: Sender<Figures>,
    until_signal: bool,
    tcp: TcpArgs,
}

impl NicProgram for DemoProgram {
    fn run<N: Nic + Send + 'static>(self, nics: Vec<N>, prepared: Prepared<'_>) -> Result<(), AppError> {
        let service = DemoService { http: Http::new(80, Site::built_in()), echo: Echo { port: 7 } };
        match self.tcp.backend {
            Backend::Wirestack => self.run_on_threads(nics, prepared, &Arc::new(service)),
            Backend::Smoltcp => self.run_smoltcp(nics, prepared, &service),
        }
    }
}

impl DemoProgram {
    fn run_on_threads<N: Nic + Send + 'static>(
        self,
        nics: Vec<N>,
        prepared: Prepared<'_>,
        service: &Arc<DemoService>,
    ) -> Result<(), AppError> {
        // This thread's, and so those of the stack; the one that talks to them still has to, and cleans up.
        privileges::leave(&self.tcp.privileges, prepared.keep)?;
        privileges::confine_if_asked(&self.tcp.privileges, Threads::This)?;
        let mut tcp = self.tcp.clone();
        tcp.privileges = PrivilegeArgs { keep_privileges: true, seccomp: false };
        let host = Host::serve(nics, prepared, "demo", service, &tcp, &RunArgs::default())?;
        host.wait_for_addresses()?;
        self.tell_ready(host.stop());
        let result = host.wait(|figures| service.observe(figures));
        let _ = self.figures.send(host.shutdown());
        result
    }

    fn run_smoltcp<N: Nic>(
        self,
        nics: Vec<N>,
        prepared: Prepared<'_>,
        service: &DemoService,
    ) -> Result<(), AppError> {
        // This thread's; the other one still has to talk to it, and to clean up.
        privileges::leave(&self.tcp.privileges, prepared.keep)?;
        let (wanted, stop) = (prepared.net.wanted.clone(), prepared.stop);
        let mut engine = engine::over(one(nics)?, prepared.net, service, &self.tcp)?;
        let engine = engine.as_mut();
        serve::wait_for_addresses(engine, &wanted, &stop)?;
        privileges::confine_if_asked(&self.tcp.privileges, Threads::This)?;
        self.tell_ready(&stop);
        let result = serve::serve(engine, service, &stop);
        let _ = self.figures.send(engine.figures());
        result
    }

    fn tell_ready(&self, stop: &Stop) {
        if self.until_signal {
            print(format_args!("ready http {OURS_IPV4}:80"));
            print(format_args!("try: curl http://{OURS_IPV4}/ — Ctrl-C ends this and removes the interface"));
        }
        // Nobody listens any more only if the program is about to end.
        let _ = self.ready.send(stop.clone());
    }
}

struct DemoService {
    http: Http,
    echo: Echo,
}

impl Service for DemoService {
    const KIND: &'static str = "demo";

    fn listeners(&self) -> Vec<Listening> {
        [self.http.listeners(), self.echo.listeners()].into_iter().flatten().collect()
    }

    fn in_turn(&self, shard: &mut Shard) -> Result<InTurn, AppError> {
        self.echo.in_turn(shard)
    }

    fn port(&self) -> u16 {
        self.http.port()
    }

    fn observe(&self, figures: &Figures) {
        self.http.observe(figures);
    }
}

/// Runs a shell command at the kernel's end; its status becomes ours.
fn execute(command: &str) -> Result<(), AppError> {
    let url = |address: IpAddr| match address {
        IpAddr::V4(v4) => format!("http://{v4}/"),
        IpAddr::V6(v6) => format!("http://[{v6}]/"),
    };
    let status = Command::new("sh")
        .args(["-c", command])
        .env("URL", url(OURS_IPV4.into()))
        .env("URL6", url(OURS_IPV6.into()))
        .env("ADDRESS", OURS_IPV4.to_string())
        .env("ADDRESS6", OURS_IPV6.to_string())
        .status()
        .map_err(|error| AppError::flag("--exec", command, error))?;
    match status.code() {
        Some(0) => Ok(()),
        code => Err(AppError {
            message: format!("--exec {command}: {status}"),
            status: code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
        }),
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    measured: &'a Measured,
    counters: serde_json::Value,
}

fn report(measured: &Measured, figures: &Figures, json: bool) -> Result<(), AppError> {
    if json {
        let report = Report { measured, counters: figures.to_json() };
        print(serde_json::to_string(&report).map_err(AppError::running)?);
        return Ok(());
    }
    print(format_args!("http://{OURS_IPV4}/ says, fetched by the kernel's TCP over a veth pair:\n"));
    for line in measured.page.lines() {
        print(format_args!("  │ {line}"));
    }
    print(format_args!("\n{measured}"));
    if let Some(tcp) = figures.tcp {
        let frames = format_args!("{} of {} frames", tcp.retransmits, tcp.frames_out);
        print(format_args!("sent again      {frames}, {} timeouts", tcp.timeouts));
    }
    print("");
    print(format_args!("counted by the stack: {figures}\n"));
    print("next:");
    print("  wirestack demo --exec 'curl -v $URL'       any program at the kernel's end");
    print("  wirestack demo --impair loss=1%,delay=5ms  the same on a worse wire");
    print("  wirestack demo --pcap demo.pcapng          and look at it in Wireshark");
    print("  sudo wirestack demo --host                 for your own curl or browser");
    print("  wirestack http --help                      on an interface of yours");
    Ok(())
}
