//! What happens to a program when its link goes away, for a while or for ever, and when it is killed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;
use wirestack_apps::testbed::{OURS_IPV4, Wire};
use wirestack_tests::runner::{Case, Outcome, veth_test};

use crate::support::{LONG, end, noise, serve};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    vec![
        veth_test("link::connections_survive_down_and_up", down_and_up),
        veth_test("link::a_removed_interface_ends_the_program", removed),
        veth_test("link::both_signals_end_in_good_order", signals),
    ]
}

fn connect(wire: &Wire) -> std::io::Result<TcpStream> {
    let stream = wire.at_peer(|| TcpStream::connect_timeout(&SocketAddr::new(OURS_IPV4.into(), 7), LONG))?;
    stream.set_read_timeout(Some(LONG))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream, seed: u64) -> std::io::Result<()> {
    let sent = noise(seed, 3000);
    stream.write_all(&sent)?;
    let mut back = vec![0; sent.len()];
    stream.read_exact(&mut back)?;
    assert!(back == sent, "exchange {seed}");
    Ok(())
}

fn down_and_up(wire: &Wire) -> Outcome {
    let server = serve(wire, &["echo"])?;
    let mut stream = connect(wire)?;
    exchange(&mut stream, 1)?;
    for round in 2..4 {
        wire.ours().set_down()?;
        // The kernel's TCP tries while the link is down, so that both ends have something to repeat.
        stream.write_all(b"while it is down")?;
        std::thread::sleep(Duration::from_millis(100));
        wire.ours().set_up()?;
        wire.ours().wait_until_up(LONG)?;
        let mut back = [0; 16];
        stream.read_exact(&mut back)?;
        assert_eq!(&back, b"while it is down");
        exchange(&mut stream, round)?;
    }
    // The other end: carrier lost. The peer's kernel forgets its address's routes, but not its address.
    wire.peer().set_down()?;
    wire.peer().set_up()?;
    wire.ours().wait_until_up(LONG)?;
    exchange(&mut stream, 9)?;
    let ended = end(server)?;
    assert!(!ended.stderr.contains("panicked"), "{ended}");
    Ok(())
}

fn removed(wire: &Wire) -> Outcome {
    let server = serve(wire, &["echo", "--json"])?;
    let mut stream = connect(wire)?;
    exchange(&mut stream, 1)?;
    wire.ours().delete()?;
    let ended = server.wait(LONG)?;
    assert_eq!(ended.status.code(), Some(1), "{ended}");
    assert!(ended.stderr.contains("the interface is gone"), "{ended}");
    assert!(ended.stdout.contains("\"accepted\":1"), "the counters are printed all the same: {ended}");
    Ok(())
}

fn signals(wire: &Wire) -> Outcome {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let server = serve(wire, &["echo"])?;
        let mut stream = connect(wire)?;
        exchange(&mut stream, 1)?;
        server.signal(signal)?;
        // The peer sees an orderly end, not a reset.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest)?;
        assert!(rest.is_empty());
        drop(stream);
        let ended = server.wait(LONG)?;
        assert_eq!(ended.status.code(), Some(0), "{signal}: {ended}");
        assert!(ended.stderr.contains("accepted=1"), "{signal}: {ended}");
    }
    Ok(())
}
