//! Which CPUs do the work of an interface: interrupts, RPS, RFS, XPS, and threads that stay put.
//!
//! ```text
//!   device ─ interrupt of a queue ─▶ CPU takes frames ─ RPS ─▶ CPU goes on with them ─▶ our ring
//!            irq/N/smp_affinity_list                  rx-N/rps_cpus
//!   our thread's CPU ─ XPS ─▶ queue to send on
//!                      tx-N/xps_cpus
//! ```
//!
//! [`Report`] shows what holds, [`propose`] says what would be better and why, [`Plan::apply`] sets it
//! and [`AppliedGuard`] puts it back. The kernel's account of these settings is
//! `Documentation/networking/scaling.rst`, that of interrupts `Documentation/core-api/irq/irq-affinity.rst`.
//!
//! Which network namespace is shown depends on who mounted sysfs: see [`Roots`].

mod apply;
mod cpu_set;
mod interrupts;
mod pin;
mod plan;
mod report;
mod roots;
mod setting;
mod threads;

pub use apply::{AppliedGuard, Outcome, recover};
pub use cpu_set::{CPUS_MAX, CpuSet, CpuSetError};
pub use interrupts::{Irq, IrqQueue};
pub use pin::{current_thread, pin_current_thread, spread};
pub use plan::{Change, Plan, Wishes, propose};
pub use report::{Report, RxQueue, TxQueue};
pub use roots::Roots;
pub use setting::Setting;
pub use threads::{Thread, pin_thread, pinned_threads, threads};

#[cfg(test)]
mod tests;
