//! A file of rules: who is denied, rejected and accepted, with the kernel's TCP as the peer.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use wirestack_apps::testbed::{OURS_IPV4, Wire};
use wirestack_tests::programs::output;
use wirestack_tests::runner::{Case, Outcome, require_program, veth_test};

use crate::support::{ADDRESSES, LONG, counter, end, serve, url_host};
use crate::talk::wait_until;
use crate::tcp_serve::connect;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    vec![
        require_program("curl", veth_test("policy::curl_is_denied_rejected_or_served", curl)),
        require_program("nc", veth_test("policy::nc_is_counted", nc)),
        veth_test("policy::a_source_has_so_many_connections_and_no_more", per_source),
        veth_test("policy::what_is_not_allowed_to_listen_does_not_start", listen),
    ]
}

/// Starts a program under rules.
fn serve_under(wire: &Wire, rules: &str, args: &[&str]) -> std::io::Result<wirestack_tests::programs::Child> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), rules)?;
    // It is read at the start, so it may go then.
    serve(wire, &[args, &["--policy", &file.path().to_string_lossy(), "--json"]].concat())
}

fn curl(wire: &Wire) -> Outcome {
    for (rule, status, denied) in [
        // curl: 28 is a timeout, 7 a connection that was refused.
        ("deny accept tcp port 80", 28, true),
        ("reject accept tcp port 80", 7, true),
        ("allow accept tcp from any port 80 rate 100/s", 0, false),
        ("reject accept tcp from 192.0.2.0/24,2001:db8:ffff::/48\nallow accept tcp", 0, false),
    ] {
        let server = serve_under(wire, &format!("default deny\nallow listen tcp\n{rule}\n"), &["http"])?;
        for address in ADDRESSES {
            let url = format!("http://{}/bytes/1000", url_host(address));
            let patience = if status == 28 { "1" } else { "30" };
            let mut curl = Command::new("curl");
            curl.args(["-gsS", "--fail", "--connect-timeout", patience, "-o", "/dev/null", &url]);
            let ended = wire.at_peer(|| wirestack_tests::programs::Child::start(&mut curl))?.wait(LONG)?;
            assert_eq!(ended.status.code(), Some(status), "{rule} {address}: {ended}");
        }
        let ended = end(server)?;
        assert_eq!(counter(&ended, "stack_policy_accepts_denied") > 0, denied, "{rule}: {}", ended.stdout);
        assert_eq!(counter(&ended, "tcp_passive_opens"), if denied { 0 } else { 2 });
        // However often the peer tries, each address is one line.
        let lines = ended.stderr.lines().filter(|line| line.contains("policy: accept tcp from"));
        assert_eq!(lines.count(), if denied { 2 } else { 0 }, "{}", ended.stderr);
    }
    Ok(())
}

fn nc(wire: &Wire) -> Outcome {
    let rules = "allow listen any port 7\nreject accept tcp from 0.0.0.0/0\nallow accept tcp";
    let server = serve_under(wire, rules, &["echo"])?;
    let script = format!("for i in 1 2 3; do nc -w 5 {OURS_IPV4} 7 </dev/null && exit 1; done; exit 0");
    wire.at_peer(|| output(Command::new("sh").args(["-c", &script]), LONG))?;
    let mut other = connect(wire, ADDRESSES[1], 7)?;
    other.write_all(b"hello")?;
    other.read_exact(&mut [0; 5])?;
    // UDP has nobody to accept: who may listen, hears everybody.
    let socket = wire.at_peer(|| UdpSocket::bind("0.0.0.0:0"))?;
    socket.set_read_timeout(Some(LONG))?;
    socket.send_to(b"hello", SocketAddr::new(ADDRESSES[0], 7))?;
    assert_eq!(socket.recv(&mut [0; 8])?, 5);
    drop(other);
    assert_eq!(counter(&end(server)?, "stack_policy_accepts_denied"), 3);
    Ok(())
}

fn per_source(wire: &Wire) -> Outcome {
    let rules = "allow listen any\nallow accept tcp per-source 3";
    let server = serve_under(wire, rules, &["echo"])?;
    let echoes = |mut stream: &TcpStream| -> std::io::Result<()> {
        stream.write_all(b"echo")?;
        stream.read_exact(&mut [0; 4])
    };
    let mut crowd = (0..3).map(|_| connect(wire, ADDRESSES[0], 7)).collect::<Result<Vec<_>, _>>()?;
    crowd.iter().try_for_each(echoes)?;
    let at = SocketAddr::new(ADDRESSES[0], 7);
    let try_another = || wire.at_peer(|| TcpStream::connect_timeout(&at, Duration::from_millis(300)));
    assert_eq!(try_another().map_err(|error| error.kind()).err(), Some(ErrorKind::TimedOut));
    // The other IP version is another source, with its own number.
    echoes(&connect(wire, ADDRESSES[1], 7)?)?;
    // One ends as it should, one with a reset: its peer has not read what came back.
    for is_reset in [false, true] {
        let one = crowd.remove(0);
        if is_reset {
            (&one).write_all(b"unread")?;
            one.peek(&mut [0; 1])?;
        }
        drop(one);
        wait_until("there is room for another", || match try_another() {
            Ok(another) => echoes(&another).map(|()| crowd.push(another)).map(|()| true),
            Err(_) => Ok(false),
        })?;
        assert!(try_another().is_err(), "there are three again");
    }
    crowd.iter().try_for_each(echoes)?;
    end(server)?;
    Ok(())
}

fn listen(wire: &Wire) -> Outcome {
    for rules in ["", "default deny\nallow listen any port 8", "allow listen tcp port 7"] {
        let error = match serve_under(wire, rules, &["echo"]) {
            Ok(_) => return Err(format!("{rules:?}: it has started").into()),
            Err(error) => error.to_string(),
        };
        assert!(error.contains("--port 7: the policy does not allow to"), "{rules:?}: {error}");
    }
    Ok(())
}
