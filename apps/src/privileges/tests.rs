use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;

use super::*;

/// In a thread of its own: it cannot be undone.
fn in_thread<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> R {
    std::thread::spawn(f).join().expect("no panic")
}

fn own_status() -> String {
    status("/proc/thread-self/status").expect("/proc is mounted")
}

#[test]
fn a_thread_gives_up_what_it_does_not_keep_and_so_do_those_that_it_starts() {
    let before = own_status();
    let bounding = |status: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix("CapBnd: ")).expect("a line");
        u64::from_str_radix(line, 16).expect("hexadecimal")
    };
    let can_bind =
        rustix::thread::capabilities(None).expect("of ours").effective.contains(CapabilitySet::SETPCAP);
    for (keep, kept) in
        [(Keep::Nothing, 0_u64), (Keep::NetAdmin, 1 << 12), (Keep::Iptables, 1 << 12 | 1 << 13)]
    {
        let (own, started) = in_thread(move || {
            let had = rustix::thread::capabilities(None).expect("of ours").permitted.bits();
            drop(keep).expect("it always can be");
            // Once more does no harm.
            drop(keep).expect("it always can be");
            let expected = format!("CapInh: {0:016x}\nCapPrm: {1:016x}\nCapEff: {1:016x}", 0, had & kept);
            let own = own_status();
            assert!(own.starts_with(&expected), "{own}\n{expected}");
            (own, in_thread(own_status))
        });
        assert_eq!(own, started, "{keep:?}");
        assert!(own.contains("NoNewPrivs: 1") && own.contains("CapAmb: 0000000000000000"), "{own}");
        let bound = if can_bind { bounding(&before) & kept } else { bounding(&before) };
        assert_eq!(bounding(&own), bound, "{keep:?}");
    }
    assert_eq!(own_status(), before, "other threads keep what they have");
}

#[test]
fn a_confined_thread_reads_and_waits_and_does_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().to_owned();
    std::fs::write(path.join("old"), "old").expect("written");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    // Connected before anything is forbidden.
    let mut peer = TcpStream::connect(address).expect("somebody listens");
    in_thread(move || {
        confine(Threads::This).expect("the kernel has seccomp");
        assert!(own_status().ends_with("Seccomp: 2"), "{}", own_status());
        let forbidden = [
            TcpListener::bind("127.0.0.1:0").map(|_| ()),
            UdpSocket::bind("127.0.0.1:0").map(|_| ()),
            TcpStream::connect(address).map(|_| ()),
            std::os::unix::net::UnixStream::pair().map(|_| ()),
            File::create(path.join("new")).map(|_| ()),
            File::options().append(true).open(path.join("old")).map(|_| ()),
            std::fs::remove_file(path.join("old")),
            std::fs::rename(path.join("old"), path.join("new")),
            std::os::unix::fs::symlink("old", path.join("link")),
            Command::new("true").status().map(|_| ()),
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).map_err(Into::into),
        ];
        for (position, result) in forbidden.into_iter().enumerate() {
            let kind = result.map_err(|error| error.kind());
            assert_eq!(kind, Err(ErrorKind::PermissionDenied), "number {position}");
        }
        // What a server does.
        assert_eq!(std::fs::read_to_string(path.join("old")).expect("it may be read"), "old");
        assert_eq!(std::fs::read_dir(&path).expect("and listed").count(), 1);
        let (mut stream, _) = listener.accept().expect("it waits");
        stream.write_all(b"hello").expect("it is connected");
        in_thread(|| std::thread::sleep(std::time::Duration::from_millis(1)));
        assert!(
            in_thread(|| TcpListener::bind("127.0.0.1:0")).is_err(),
            "what it starts is confined as well"
        );
        assert_eq!(vec![1_u8; 10 << 20].len(), 10 << 20);
    });
    assert!(TcpListener::bind("127.0.0.1:0").is_ok(), "other threads are not");
    let mut greeting = [0; 5];
    std::io::Read::read_exact(&mut peer, &mut greeting).expect("it was sent");
}

/// A control socket and files, served by tasks: what the runtime does for them is allowed.
#[test]
fn a_runtime_of_tokio_works_in_a_confined_thread() {
    use tokio::io::AsyncWriteExt;

    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("file");
    std::fs::write(&path, [7; 100_000]).expect("written");
    let listener = std::os::unix::net::UnixListener::bind(dir.path().join("control")).expect("a socket");
    listener.set_nonblocking(true).expect("it can be");
    let mut peer = std::os::unix::net::UnixStream::connect(dir.path().join("control")).expect("it listens");
    in_thread(move || {
        confine(Threads::This).expect("the kernel has seccomp");
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).expect("it can be watched");
            let answer = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await?;
                let read = tokio::fs::read(path).await?;
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                stream.write_all(&read).await
            });
            answer.await.expect("no panic").expect("it is allowed");
            tokio::task::spawn_blocking(own_status).await.expect("no panic")
        })
    });
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut peer, &mut answer).expect("it was sent");
    assert_eq!(answer, vec![7; 100_000]);
}

#[test]
fn flags_that_do_not_go_together() {
    let args = PrivilegeArgs { keep_privileges: true, seccomp: true };
    let error = leave(&args, Keep::Iptables).expect_err("iptables would be started");
    assert!(error.message.starts_with("--suppress iptables: ") && error.status == 2, "{}", error.message);
    assert_eq!(leave(&args, Keep::NetAdmin), Ok(()));
}
