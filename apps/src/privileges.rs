//! What a server needs no more once it serves, it gives up: capabilities, the right to gain privileges, and (if asked
//! for) system calls.
//!
//! Capabilities and `no_new_privs` are a thread's own, and a new thread has those of the thread that starts it. So the
//! order is: open all devices, install the rules against the kernel, [`drop()`], and only then start threads. A thread
//! that has to be there before (the one that waits for signals) gives up its own. The filter of system calls comes last,
//! for all threads at once.
//!
//! What still needs a privilege after that, seen on Linux 6.18:
//!
//! | what | needs |
//! |---|---|
//! | AF_PACKET: receive, send, join groups, statistics | nothing: it was asked for when the socket was made |
//! | TAP and TUN | nothing |
//! | rules of `--suppress nft` | nothing: they go with their socket |
//! | rules of `--suppress iptables` | CAP_NET_ADMIN and CAP_NET_RAW, of the program that removes them at the end |
//! | `serial:` | nothing, if the user may open the port as such: root without capabilities opens what is root's |
//! | `nfqueue:` | CAP_NET_ADMIN: netfilter asks for it with each verdict |
//! | files of `http --dir` | to be readable for the user as such: root without capabilities is a user like others |

use std::io;

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::BpfProgram;

use crate::cli::PrivilegeArgs;
use crate::error::AppError;

mod system_calls;

/// What a program needs to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// Nothing.
    #[default]
    Nothing,
    /// CAP_NET_ADMIN.
    NetAdmin,
    /// CAP_NET_ADMIN and CAP_NET_RAW, and to start a program: `iptables`.
    Iptables,
    /// No capability, and all system calls: the port of a serial line that was lost is opened again.
    Port,
}

impl Keep {
    fn capabilities(self) -> CapabilitySet {
        match self {
            Self::Nothing | Self::Port => CapabilitySet::empty(),
            Self::NetAdmin => CapabilitySet::NET_ADMIN,
            Self::Iptables => CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW,
        }
    }
}

/// Which threads a filter of system calls is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// All of this process.
    All,
    /// The calling one, and those that it starts.
    This,
}

/// As [`drop()`], if the flags do not forbid it. They are checked, too. In the thread that will start all others that
/// serve, when everything is open.
///
/// # Errors
/// Flags that do not go together; the system does not do it. One line.
pub fn leave(args: &PrivilegeArgs, keep: Keep) -> Result<(), AppError> {
    if args.seccomp && keep == Keep::Iptables {
        let problem =
            "its rules are removed by a program, and --seccomp lets none be started; nft is accepted";
        return Err(AppError::flag("--suppress", "iptables", problem));
    }
    if args.seccomp && keep == Keep::Port {
        let problem =
            "a serial line that was lost is opened again, and --seccomp lets nothing be opened; leave it out";
        return Err(AppError::usage(format_args!("--seccomp: {problem}")));
    }
    if args.keep_privileges { Ok(()) } else { drop(keep) }
}

/// As [`confine()`], if the flags ask for it.
///
/// # Errors
/// As for [`confine()`].
pub fn confine_if_asked(args: &PrivilegeArgs, threads: Threads) -> Result<(), AppError> {
    if args.seccomp { confine(threads) } else { Ok(()) }
}

/// Gives up, for the calling thread and those that it will start, all capabilities but these (from all sets, the bounding
/// set included), and the right to gain any by starting a program.
///
/// # Errors
/// The kernel refuses it, which none does. One line.
pub fn drop(keep: Keep) -> Result<(), AppError> {
    drop_all_but(keep.capabilities()).map_err(|error| {
        AppError::running(format_args!("capabilities cannot be dropped: {error}; try --keep-privileges"))
    })
}

fn drop_all_but(kept: CapabilitySet) -> Result<(), Errno> {
    let before = rustix::thread::capabilities(None)?;
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        // Behind the last one that the kernel knows.
        let Ok(is_bound) = rustix::thread::capability_is_in_bounding_set(capability) else { break };
        if !is_bound || kept.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // Without CAP_SETPCAP the set stays. It says what a program that is started may gain, which is nothing.
            Err(Errno::PERM) => break,
            other => other?,
        }
    }
    rustix::thread::set_no_new_privs(true)?;
    // What is not inheritable is not ambient either.
    let sets = CapabilitySets {
        effective: before.effective & kept,
        permitted: before.permitted & kept,
        inheritable: before.inheritable & kept,
    };
    rustix::thread::set_capabilities(None, sets)
}

/// Forbids all system calls but those that a server needs while it serves: who takes it over can make no sockets, start
/// no programs, and open no file to write to. What is forbidden fails with EPERM.
///
/// To be done last. It holds for what the threads start, too, and cannot be undone.
///
/// # Errors
/// The kernel has no seccomp, or the filter of a processor is not known. One line.
pub fn confine(threads: Threads) -> Result<(), AppError> {
    let failed = |error: seccompiler::Error| AppError::running(format_args!("--seccomp: {error}"));
    let program: BpfProgram = system_calls::filter().map_err(|error| failed(error.into()))?;
    match threads {
        Threads::All => seccompiler::apply_filter_all_threads(&program),
        Threads::This => seccompiler::apply_filter(&program),
    }
    .map_err(failed)
}

/// The lines of a thread's `status` that tell of privileges, for tests and for people.
///
/// # Errors
/// There is no such file.
pub fn status(path: &str) -> io::Result<String> {
    let status = std::fs::read_to_string(path)?;
    let words = ["Cap", "NoNewPrivs", "Seccomp:"];
    let lines = status.lines().filter(|line| words.iter().any(|word| line.starts_with(word)));
    Ok(lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests;
