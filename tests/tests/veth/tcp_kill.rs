//! Ends without a word: of clients, and of ourselves.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use wirestack_apps::testbed::{OURS_IPV4, Wire};
use wirestack_tests::programs::Child;
use wirestack_tests::runner::{Case, Outcome, require_program, veth_test};

use crate::support::{ADDRESSES, LONG, end, serve};
use crate::talk::{echo_tcp, fetch_all, rules, shell, wait_until};
use crate::tcp_serve::{connect, served};
use crate::testbed::address_ours;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let looked_at = |cases| {
        ["ip", "nft", "iptables", "ip6tables"]
            .into_iter()
            .fold(cases, |cases, program| require_program(program, cases))
    };
    vec![
        require_program("curl", veth_test("tcp::clients_that_are_killed_leave_nothing", killed_clients)),
        looked_at(veth_test("tcp::a_killed_server_leaves_nothing", killed_server)),
        looked_at(veth_test("tcp::a_killed_server_on_the_kernels_address", killed_on_shared_address)),
    ]
}

/// In the middle of a download that never ends, and of one that nobody reads.
fn killed_clients(wire: &Wire) -> Outcome {
    let server = serve(wire, &["http"])?;
    for round in 0..3 {
        let clients: io::Result<Vec<_>> = (0..4)
            .map(|number| {
                // Half of them stop to read after a while, so that the window is shut.
                let reader = if number % 2 == 0 { "cat > /dev/null" } else { "sleep 1000" };
                let line = format!(
                    "curl -sSN --max-time 60 http://{OURS_IPV4}/bytes/1099511627776 | \
                     {{ head -c 300000 > /dev/null; echo begun; exec {reader}; }}"
                );
                // All of it is one group, which is killed as a whole.
                let mut child =
                    wire.at_peer(|| Child::start(Command::new("setsid").args(["sh", "-c", &line])))?;
                child.wait_for_line("begun", LONG)?;
                Ok(child)
            })
            .collect();
        for client in clients? {
            shell(wire, &format!("kill -9 -{}", client.id()))?;
        }
        wait_until(&format!("round {round}: all have gone"), || Ok(served(wire)? <= 1))?;
        fetch_all(wire, 80)?;
    }
    end(server)?;
    Ok(())
}

/// The peer learns of it from the next one at that address, which knows nothing of its connection.
fn killed_server(wire: &Wire) -> Outcome {
    let before = (rules(wire)?, shell(wire, "ip -details address show")?);
    let server = serve(wire, &["echo"])?;
    let mut stream = echoing(wire)?;
    server.kill_hard()?;
    assert_eq!((rules(wire)?, shell(wire, "ip -details address show")?), before);
    let server = serve(wire, &["echo"])?;
    assert_eq!(error_of(&mut stream), io::ErrorKind::ConnectionReset);
    let at = SocketAddr::new(ADDRESSES[0], 7);
    assert_eq!(echo_tcp(wire.peer().namespace(), at, b"again")?, b"again");
    end(server)?;
    Ok(())
}

/// There the kernel answers, as soon as the rules have gone with us.
fn killed_on_shared_address(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let before = rules(wire)?;
    let server = serve(wire, &["echo"])?;
    let mut stream = echoing(wire)?;
    server.kill_hard()?;
    wait_until("the rules have gone", || Ok(rules(wire)? == before))?;
    assert_eq!(error_of(&mut stream), io::ErrorKind::ConnectionReset);
    Ok(())
}

fn echoing(wire: &Wire) -> io::Result<TcpStream> {
    let mut stream = connect(wire, ADDRESSES[0], 7)?;
    stream.write_all(b"echo")?;
    stream.read_exact(&mut [0; 4])?;
    Ok(stream)
}

/// What the kernel says when something is sent on a connection that its peer does not know.
fn error_of(stream: &mut TcpStream) -> io::ErrorKind {
    let _ = stream.write_all(b"are you there?");
    stream.read(&mut [0; 100]).expect_err("nobody is there").kind()
}
