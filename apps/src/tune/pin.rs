//! The threads of another process, each on one CPU for a while.

use wirestack::nic::affinity::{CpuSet, Roots, pin_thread, spread, threads};

use crate::error::AppError;
use crate::serve::print_error;

/// Threads that are pinned, with the CPUs from before; the drop puts them back.
#[derive(Debug, Default)]
pub(super) struct PinGuard {
    pinned: Vec<(u32, CpuSet)>,
}

impl PinGuard {
    /// Pins the threads that a process has now, the oldest to the first CPU, and so on round.
    pub(super) fn of_process(pid: u32, cpus: &CpuSet) -> Result<Self, AppError> {
        let failed = |error| AppError::flag("--for", pid, error);
        let threads = threads(&Roots::default(), pid).map_err(failed)?;
        let mut guard = Self::default();
        for (thread, cpu) in threads.iter().zip(spread(cpus, threads.len())) {
            match pin_thread(thread.tid, &cpu) {
                Ok(before) => guard.pinned.push((thread.tid, before)),
                Err(error) if guard.pinned.is_empty() => {
                    return Err(AppError::flag("--pin", format_args!("for {pid}"), error));
                }
                Err(error) => print_error(format_args!("wirestack: --pin: {}: {error}", thread.name)),
            }
        }
        Ok(guard)
    }
}

impl Drop for PinGuard {
    fn drop(&mut self) {
        for (tid, before) in self.pinned.drain(..) {
            // As a rule it has ended, since that is what we wait for.
            let _ = pin_thread(tid, &before);
        }
    }
}
