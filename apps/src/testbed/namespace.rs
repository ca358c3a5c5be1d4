//! Network namespaces without names, and the user namespace that lets anybody make them.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, RawFd};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::fstat;
use nix::unistd::{getegid, geteuid};

use super::{TestbedError, netlink, sysctl};

/// The namespace of the calling thread, as the kernel shows it to the thread itself.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// Bits of `CapEff`: CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN of `linux/capability.h`.
const NEEDED_CAPABILITIES: u64 = 1 << 12 | 1 << 13 | 1 << 21;

/// Makes this process able to have network namespaces: the first thing that `main` does.
///
/// Root, and whoever has CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN, is able already: nothing
/// happens. Anybody else gets a user namespace of their own, in which they are root. What they can
/// reach outside of it stays as it was; network namespaces made from here on belong to it.
///
/// # Errors
/// [`TestbedError::UserNamespace`]: the host forbids it, or a thread was started before.
pub fn enter_user_namespace() -> Result<(), TestbedError> {
    if is_privileged() {
        return Ok(());
    }
    // To be read before: inside of the new namespace nobody is mapped yet, and both read as 65534.
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(|errno| TestbedError::UserNamespace { source: errno.into(), hint: unshare_hint(errno) })?;
    // The order is the kernel's: without the right to setgroups, one's own group may be mapped.
    for (file, content) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {user} 1")),
        ("/proc/self/gid_map", format!("0 {group} 1")),
    ] {
        fs::write(file, content).map_err(|source| TestbedError::UserNamespace {
            source,
            hint: "the kernel let us have one and not map our own user into it: run as root",
        })?;
    }
    // Some hosts (AppArmor) grant the namespace and take the capabilities away.
    if is_privileged() {
        return Ok(());
    }
    Err(TestbedError::UserNamespace { source: Errno::EPERM.into(), hint: unshare_hint(Errno::EPERM) })
}

/// Whether this process is root outside of any user namespace: what `/dev/net/tun` and the older
/// iptables may want.
pub fn is_real_root() -> bool {
    // The first user namespace maps all users to themselves.
    let whole = |map: String| map.split_whitespace().eq(["0", "0", "4294967295"]);
    geteuid().is_root() && fs::read_to_string("/proc/self/uid_map").is_ok_and(whole)
}

fn is_privileged() -> bool {
    fs::read_to_string("/proc/thread-self/status")
        .ok()
        .and_then(|status| effective_capabilities(&status))
        .is_some_and(|capabilities| capabilities & NEEDED_CAPABILITIES == NEEDED_CAPABILITIES)
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn unshare_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EINVAL => "call this before any thread is started",
        Errno::ENOSPC | Errno::EUSERS => "the limit is reached: raise `sysctl user.max_user_namespaces`",
        _ => {
            "this host forbids user namespaces, as a chroot does: run as root, or look at `sysctl user.max_user_namespaces` \
             (above 0), `kernel.apparmor_restrict_unprivileged_userns` (0), and the container's seccomp"
        }
    }
}

/// A network namespace: interfaces, addresses, routes and sockets of its own.
///
/// Held by file descriptor, so there is nothing to name or to remove: the kernel removes it when the
/// last clone of this, the last thread in it and the last socket of it are gone.
#[derive(Debug, Clone)]
pub struct Namespace {
    file: Arc<File>,
}

impl Namespace {
    /// Makes a namespace: loopback is up, nothing is forwarded, there is no other interface.
    ///
    /// # Errors
    /// [`TestbedError::Namespace`]: not privileged, see [`enter_user_namespace`], or too many of them.
    pub fn new() -> Result<Self, TestbedError> {
        // By a thread of its own: `unshare` takes the calling thread along.
        let made = thread::scope(|scope| scope.spawn(make).join());
        made.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// [`TestbedError::Namespace`]: `/proc` is not mounted, or no file descriptor is left.
    pub fn current() -> Result<Self, TestbedError> {
        let file =
            File::open(OWN_NAMESPACE).map_err(|source| TestbedError::Namespace { step: "open", source })?;
        Ok(Self { file: Arc::new(file) })
    }

    /// Runs `f` on a thread in this namespace, and waits for it.
    ///
    /// Sockets that `f` opens, and programs that it starts, stay in this namespace.
    ///
    /// # Panics
    /// If `f` does, or if this process lost the privilege that it had when it made the namespace.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match self.try_run(f) {
            Ok(result) => result,
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs `f` on a thread in this namespace that lives as long as `f` needs.
    ///
    /// Joining it panics where [`run`](Namespace::run) would.
    pub fn spawn<R: Send + 'static>(&self, f: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
        let namespace = self.clone();
        thread::spawn(move || {
            if let Err(error) = namespace.enter() {
                panic!("{error}");
            }
            // The thread is inside: from here on that keeps the namespace alive.
            drop(namespace);
            f()
        })
    }

    /// Moves the calling thread into this namespace, for good. Other threads stay where they are.
    ///
    /// # Errors
    /// [`TestbedError::Namespace`]: the namespace is not ours. Staying where one is always works.
    pub fn enter(&self) -> Result<(), TestbedError> {
        // Without root the namespace that we came from may not be entered; it need not be, either.
        if self.is_current() {
            return Ok(());
        }
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| TestbedError::Namespace { step: "enter", source: errno.into() })
    }

    /// The same as [`run`](Namespace::run), with the failure to enter as a value.
    pub(super) fn try_run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> Result<R, TestbedError> {
        let body = || self.enter().map(|()| f());
        thread::scope(|scope| scope.spawn(body).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// The descriptor, for a message to the kernel that is sent while `self` is borrowed.
    pub(super) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn is_current(&self) -> bool {
        let (Ok(this), Ok(own)) = (fstat(&*self.file), nix::sys::stat::stat(OWN_NAMESPACE)) else {
            return false;
        };
        (this.st_dev, this.st_ino) == (own.st_dev, own.st_ino)
    }
}

/// Moves this thread into a new namespace and makes it the same on all hosts.
fn make() -> Result<Namespace, TestbedError> {
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|errno| TestbedError::Namespace { step: "make", source: errno.into() })?;
    let namespace = Namespace::current()?;
    netlink::set_up("lo").map_err(|source| TestbedError::Link {
        interface: "lo".to_owned(),
        step: "set up",
        source,
    })?;
    // A new namespace takes this over from the first one, where a container engine may have set it;
    // a kernel that forwards answers frames for strangers with ICMP.
    sysctl::set("ipv4/ip_forward", "0")?;
    sysctl::set_ipv6("conf/all/forwarding", "0")?;
    Ok(namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_found_in_the_status() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n";
        assert_eq!(effective_capabilities(status), Some(0x1ff_ffff_ffff));
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
        assert_eq!(effective_capabilities("CapEff:\tnonsense\n"), None);
    }

    #[test]
    fn hints_name_what_helps() {
        assert!(unshare_hint(Errno::EINVAL).contains("before any thread"));
        assert!(unshare_hint(Errno::ENOSPC).contains("max_user_namespaces"));
        assert!(unshare_hint(Errno::EPERM).contains("apparmor_restrict_unprivileged_userns"));
    }

    #[test]
    fn anybody_may_stay_where_they_are() {
        let here = Namespace::current().unwrap();
        assert!(here.is_current());
        assert_eq!(here.run(|| 7), 7);
    }
}
