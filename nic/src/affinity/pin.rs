//! Threads on CPUs of their own.

use std::io;

use nix::errno::Errno;
use nix::sched;
use nix::unistd::Pid;

use super::CpuSet;

/// Lets the calling thread run on these CPUs only, and returns those that it could run on before: hand
/// them to this function to undo it. Threads that it starts later begin with the same CPUs.
///
/// # Errors
/// EINVAL (as [`io::ErrorKind::InvalidInput`]): none of the CPUs is online and allowed to this process,
/// or one has a number that `cpu_set_t` of the C library has no bit for (1024 and above).
pub fn pin_current_thread(cpus: &CpuSet) -> io::Result<CpuSet> {
    let this = Pid::from_raw(0);
    let before = sched::sched_getaffinity(this)?;
    sched::sched_setaffinity(this, &to_system(cpus)?)?;
    Ok(from_system(&before))
}

/// The CPUs on which the calling thread may run.
///
/// # Errors
/// As the system call; none in practice.
pub fn current_thread() -> io::Result<CpuSet> {
    Ok(from_system(&sched::sched_getaffinity(Pid::from_raw(0))?))
}

/// One CPU for each of `threads` threads: round the set, so that with more threads than CPUs some share
/// one. Empty sets for an empty set: nothing to pin to.
pub fn spread(cpus: &CpuSet, threads: usize) -> Vec<CpuSet> {
    let cpus: Vec<usize> = cpus.iter().collect();
    (0..threads).map(|thread| cpus.get(thread % cpus.len().max(1)).copied().into_iter().collect()).collect()
}

pub(super) fn from_system(set: &sched::CpuSet) -> CpuSet {
    (0..sched::CpuSet::count()).filter(|&cpu| set.is_set(cpu) == Ok(true)).collect()
}

pub(super) fn to_system(cpus: &CpuSet) -> io::Result<sched::CpuSet> {
    let mut set = sched::CpuSet::new();
    for cpu in cpus.iter() {
        set.set(cpu).map_err(|_| io::Error::from(Errno::EINVAL))?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_where_it_is_put() {
        // On a thread of its own: tests share theirs.
        std::thread::spawn(|| {
            let all = current_thread().unwrap();
            let last: CpuSet = all.iter().last().into_iter().collect();
            assert_eq!(pin_current_thread(&last).unwrap(), all);
            assert_eq!(current_thread().unwrap(), last);
            let child = std::thread::spawn(|| current_thread().unwrap()).join().unwrap();
            assert_eq!(child, last);
            assert_eq!(pin_current_thread(&all).unwrap(), last);
            assert_eq!(current_thread().unwrap(), all);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn nowhere_to_go_is_an_error() {
        for wrong in ["", "1500"] {
            let error = pin_current_thread(&wrong.parse().unwrap()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{wrong:?}");
        }
    }

    #[test]
    fn threads_are_spread_round_the_cpus() {
        let lists = |cpus: &str, threads| {
            let sets = spread(&cpus.parse().unwrap(), threads);
            sets.iter().map(CpuSet::to_string).collect::<Vec<_>>()
        };
        assert_eq!(lists("2-3,7", 4), ["2", "3", "7", "2"]);
        assert_eq!(lists("", 2), ["", ""]);
    }
}
