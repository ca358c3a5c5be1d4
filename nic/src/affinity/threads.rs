//! Threads that may run on some CPUs only: who is at work where.

use std::fs;
use std::io;
use std::path::Path;

use nix::sched;
use nix::unistd::Pid;

use super::pin::{from_system, to_system};
use super::{CpuSet, Roots};

/// A thread of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// Its name, 15 bytes at most.
    pub name: String,
    /// CPUs on which it may run.
    pub cpus: CpuSet,
}

/// The threads of a process, rising by number.
///
/// # Errors
/// ENOENT (as [`io::ErrorKind::NotFound`]): no such process.
pub fn threads(roots: &Roots, pid: u32) -> io::Result<Vec<Thread>> {
    let tasks = fs::read_dir(roots.proc.join(pid.to_string()).join("task"))?;
    // Threads that end meanwhile are left out.
    let mut threads: Vec<Thread> =
        tasks.flatten().filter_map(|task| read_thread(pid, &task.path())).collect();
    threads.sort_unstable_by_key(|thread| thread.tid);
    Ok(threads)
}

/// Threads of all programs that may run on some of the CPUs `online` only, up to `len_max` of them.
/// Threads of the kernel itself, of which many are bound to a CPU, are left out.
pub fn pinned_threads(roots: &Roots, online: &CpuSet, len_max: usize) -> Vec<Thread> {
    let entries = fs::read_dir(&roots.proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let of_programs = pids.filter(|pid| {
        // A thread of the kernel has no memory of its own, and so no program.
        fs::read_to_string(roots.proc.join(pid.to_string()).join("status"))
            .is_ok_and(|status| field(&status, "VmSize:").is_some())
    });
    let all = of_programs.flat_map(|pid| threads(roots, pid).unwrap_or_default());
    all.filter(|thread| !online.difference(&thread.cpus).is_empty()).take(len_max).collect()
}

/// Lets a thread of any process run on these CPUs only, and returns those from before.
///
/// # Errors
/// ESRCH: it has ended. EPERM: it is another user's, and we lack CAP_SYS_NICE. EINVAL: none of the CPUs
/// is online and allowed to it.
pub fn pin_thread(tid: u32, cpus: &CpuSet) -> io::Result<CpuSet> {
    let thread = Pid::from_raw(i32::try_from(tid).map_err(io::Error::other)?);
    let before = sched::sched_getaffinity(thread)?;
    sched::sched_setaffinity(thread, &to_system(cpus)?)?;
    Ok(from_system(&before))
}

fn read_thread(pid: u32, task: &Path) -> Option<Thread> {
    let status = fs::read_to_string(task.join("status")).ok()?;
    Some(Thread {
        pid,
        tid: field(&status, "Pid:")?.parse().ok()?,
        name: field(&status, "Name:")?.to_owned(),
        cpus: field(&status, "Cpus_allowed_list:")?.parse().ok()?,
    })
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    Some(status.lines().find_map(|line| line.strip_prefix(name))?.trim())
}

#[cfg(test)]
mod tests {
    use super::super::{current_thread, pin_current_thread};
    use super::*;

    #[test]
    fn a_pinned_thread_is_found_and_moved() {
        let roots = Roots::default();
        let own = std::process::id();
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("wirestack-pin".into()).spawn(move || {
            let all = current_thread().unwrap();
            pin_current_thread(&all.iter().take(1).collect()).unwrap();
            tell.send(all).unwrap();
            let _ = ended.recv();
            current_thread().unwrap()
        });
        let all = told.recv().unwrap();
        let found = threads(&roots, own).unwrap();
        let found = found.iter().find(|thread| thread.name == "wirestack-pin").expect("it runs");
        assert_eq!((found.pid, found.cpus.len()), (own, 1));
        if all.len() > 1 {
            let pinned = pinned_threads(&roots, &all, usize::MAX);
            assert!(pinned.contains(found), "{pinned:?}");
        }
        assert_eq!(pin_thread(found.tid, &all).unwrap(), found.cpus);
        drop(end);
        assert_eq!(thread.unwrap().join().unwrap(), all);
        assert!(threads(&roots, u32::MAX).is_err());
    }
}
