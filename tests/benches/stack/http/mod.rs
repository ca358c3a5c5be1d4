//! `GET /` of 13 bytes over kept-open connections: our stack, in each of its forms, against nginx on the kernel's.
//!
//! The server has a core, and the load has the other one; it comes from our own stack for all servers. Frames are received in
//! softirq on the core of whoever sends them, which is the load's; nginx is measured with that, and with receive packet
//! steering to its own core, and the better of the two counts.
//!
//! What a request costs is measured with wrk, whose stack is the kernel's for all servers: CPU time of the whole machine by request.

mod load;
mod server;

use std::process::Command;

use wirestack_apps::testbed::{IPV4_PREFIX_LEN, PEER_IPV4, Wire, WireOptions};
use wirestack_tests::programs::{find_program, output};

use crate::table::Table;
use crate::{Outcome, median};
use server::{Running, Server};

const REPEATS: usize = 5;
const CONNECTIONS: [usize; 2] = [64, 512];
const CASES: [(&str, Server); 6] = [
    ("nginx on the kernel", Server::Nginx { steered: false }),
    ("nginx, received on its own core", Server::Nginx { steered: true }),
    ("ours, poll", Server::Poll),
    ("ours, tasks of the shard's thread", Server::Local),
    ("ours, hyper in such tasks", Server::HyperLocal),
    ("ours, hyper in tasks of tokio", Server::HyperAsync),
];
/// How often what the better nginx does.
const RATE_TARGET: f64 = 2.0;
/// CPU time of a request, as a part of nginx's.
const CPU_TARGET: f64 = 0.8;

pub(crate) fn all() -> Outcome {
    if find_program("nginx").is_none() {
        println!("  not measured: nginx is not installed (apt-get install nginx-light)");
        return Ok(());
    }
    for connections in CONNECTIONS {
        rates(connections)?;
    }
    match find_program("wrk") {
        Some(_) => costs()?,
        None => println!("  cost of a request not measured: wrk is not installed"),
    }
    Ok(())
}

/// Requests a second.
fn rates(connections: usize) -> Outcome {
    let mut all: [Vec<f64>; CASES.len()] = Default::default();
    for _ in 0..REPEATS {
        for ((_, server), rates) in CASES.into_iter().zip(&mut all) {
            // The load's end has no stack of the kernel.
            let wire = Wire::with(&WireOptions { peer_addresses: Vec::new(), ..WireOptions::default() })?;
            let running = Running::start(server, &wire)?;
            let rate = load::run(&wire, connections)?;
            running.stop()?;
            rates.push(rate);
        }
    }
    let best = best_nginx(&all);
    let mut table = Table::default();
    for ((name, server), rates) in CASES.into_iter().zip(&all) {
        let high = rates.iter().copied().fold(0.0, f64::max);
        let against = match server {
            Server::Nginx { .. } => String::new(),
            server => format!(
                "; x{:.2} of the better nginx{}",
                median(rates.clone()) / best,
                aim(server, RATE_TARGET)
            ),
        };
        let remark = format!("the best of {REPEATS} runs {:.1}{against}", high / 1e3);
        table.line(
            &format!("{name}, {connections} connections"),
            median(rates.clone()) / 1e3,
            "k/s",
            &remark,
        );
    }
    Ok(())
}

/// CPU time of the machine for a request of wrk.
fn costs() -> Outcome {
    let mut all: [Vec<f64>; CASES.len()] = Default::default();
    let mut rates: [Vec<f64>; CASES.len()] = Default::default();
    for _ in 0..REPEATS {
        for (position, (_, server)) in CASES.into_iter().enumerate() {
            let wire = Wire::with(&WireOptions {
                peer_addresses: vec![(PEER_IPV4.into(), IPV4_PREFIX_LEN)],
                ..WireOptions::default()
            })?;
            let running = Running::start(server, &wire)?;
            let (requests, seconds) = wrk(&wire)?;
            running.stop()?;
            all[position].push(seconds / requests * 1e6);
            rates[position].push(requests / WRK_SECONDS / 1e3);
        }
    }
    let best = all[..NGINX_LEN].iter().map(|costs| median(costs.clone())).fold(f64::MAX, f64::min);
    let mut table = Table::default();
    for (((name, server), costs), rates) in CASES.into_iter().zip(&all).zip(rates) {
        let against = match server {
            Server::Nginx { .. } => String::new(),
            server => format!(
                "; x{:.2} of the better nginx{}",
                median(costs.clone()) / best,
                aim(server, CPU_TARGET)
            ),
        };
        let low = costs.iter().copied().fold(f64::MAX, f64::min);
        let remark = format!("the lowest of {REPEATS} runs {low:.2}; {:.1} k/s{against}", median(rates));
        table.line(&format!("{name}, wrk"), median(costs.clone()), "CPU us", &remark);
    }
    Ok(())
}

/// Requests, and CPU time of everything on this machine meanwhile.
fn wrk(wire: &Wire) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let url = format!("http://{}/", server::address());
    let run = |seconds: f64| {
        let mut wrk = Command::new("wrk");
        wrk.args(["-t1", "-c64", &format!("-d{seconds}s"), &url]);
        let before = crate::pps::machine_cpu_seconds();
        let ended = wire.at_peer(|| output(&mut wrk, server::LONG))?;
        Ok::<_, std::io::Error>((ended.stdout, crate::pps::machine_cpu_seconds() - before))
    };
    run(1.0)?;
    let (text, seconds) = run(WRK_SECONDS)?;
    let requests = text.lines().find_map(|line| line.split_once(" requests in ")?.0.trim().parse().ok());
    Ok((requests.ok_or("wrk says nothing of requests")?, seconds))
}

/// The target is one of what is fastest; what hyper does is told as well.
fn aim(server: Server, target: f64) -> String {
    match server {
        Server::Poll | Server::Local => format!(", target x{target}"),
        _ => String::new(),
    }
}

fn best_nginx(all: &[Vec<f64>]) -> f64 {
    all[..NGINX_LEN].iter().map(|rates| median(rates.clone())).fold(0.0, f64::max)
}

/// Cases of nginx, which come first.
const NGINX_LEN: usize = 2;
const WRK_SECONDS: f64 = 3.0;
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
