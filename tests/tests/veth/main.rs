//! Tests over veth pairs, with Linux as the peer.
//!
//! One binary for all of them, with a `main` of its own: it enters a user namespace while it has only
//! one thread, and it is the program under test when started with a mark as its first argument.

mod address;
mod apis;
mod bad_input;
mod bridge;
mod bridge_impaired;
mod capture;
mod demo;
mod device;
mod doctor;
mod driver;
mod echo;
mod examples_poll;
mod examples_sockets;
mod http;
mod iperf;
mod link;
mod merged;
mod modes;
mod nfqueue;
mod options;
mod perf;
mod ping;
mod policy;
mod privileges;
mod relay;
mod replay;
mod scripts;
mod segment;
mod serial;
mod serial_life;
mod serial_refused;
mod shard_dhcp;
mod shard_dns;
mod shard_end;
mod shard_group;
mod shard_icmp;
mod shard_link;
mod shard_mtu;
mod shard_neighbor;
mod shard_services;
mod shard_slaac;
mod shard_udp;
mod smoltcp_backend;
mod steer;
mod support;
mod suppress;
mod talk;
mod tap;
mod tcp_bridge;
mod tcp_kill;
mod tcp_serve;
mod tcp_trace;
mod testbed;
mod top;
mod tune;
mod watch;
mod wire;

use std::process::ExitCode;

use wirestack_apps::testbed::enter_user_namespace;
use wirestack_tests::{programs, runner};

fn main() -> ExitCode {
    if let Some(code) = programs::dispatch_program() {
        return code;
    }
    if let Some(code) = examples_sockets::dispatch() {
        return code;
    }
    if let Some(code) = examples_poll::dispatch() {
        return code;
    }
    if let Err(error) = enter_user_namespace() {
        eprintln!("these tests need network namespaces: {error}");
        return ExitCode::FAILURE;
    }
    // One line for each module of tests.
    let modules = [
        testbed::cases(),
        device::cases(),
        driver::cases(),
        merged::cases(),
        modes::cases(),
        options::cases(),
        http::cases(),
        echo::cases(),
        apis::cases(),
        examples_poll::cases(),
        examples_sockets::cases(),
        smoltcp_backend::cases(),
        tcp_serve::cases(),
        tcp_kill::cases(),
        tcp_bridge::cases(),
        tcp_trace::cases(),
        iperf::cases(),
        perf::cases(),
        ping::cases(),
        policy::cases(),
        privileges::cases(),
        address::cases(),
        link::cases(),
        segment::cases(),
        wire::cases(),
        bridge::cases(),
        bridge_impaired::cases(),
        steer::cases(),
        suppress::cases(),
        bad_input::cases(),
        capture::cases(),
        demo::cases(),
        serial::cases(),
        serial_life::cases(),
        serial_refused::cases(),
        tap::cases(),
        nfqueue::cases(),
        replay::cases(),
        scripts::cases(),
        tune::cases(),
        top::cases(),
        doctor::cases(),
        shard_neighbor::cases(),
        shard_icmp::cases(),
        shard_udp::cases(),
        shard_link::cases(),
        shard_mtu::cases(),
        shard_group::cases(),
        shard_dhcp::cases(),
        shard_dns::cases(),
        shard_slaac::cases(),
    ];
    runner::run(modules.into_iter().flatten())
}
