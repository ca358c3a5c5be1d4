//! Who is behind an address of the link: ARP (RFC 826) and NDP (RFC 4861).
//!
//! [`Table`] knows the hardware addresses of neighbours, of both families in one table, and keeps frames
//! whose neighbour is not yet known. It watches whether neighbours are still there (the states of RFC 4861
//! section 7.3, for ARP as well), answers for the addresses of the interface, and finds out whether an address
//! is ours alone (RFC 5227, RFC 4862).
//!
//! ```text
//!                   park                  answer                    30 s             used
//!   (no entry) ───────────▶ INCOMPLETE ───────────▶ REACHABLE ──────────────▶ STALE ──────▶ DELAY
//!       ▲  ▲                    │ 3 requests            ▲                       ▲             │ 5 s
//!       │  └─────── FAILED ◀────┘ without answer        │ answer, or             │ somebody    ▼
//!       │   lifetime                                    └ upper layers ─────────┼─────────  PROBE
//!       └───────────────────────────────────────────────────────────────────────┴─────────────┘ 3 requests
//! ```
//!
//! PERMANENT entries are those of the configuration: nothing from the wire changes them.
//!
//! | file | what it owns |
//! |---|---|
//! | `table.rs` | what the stack calls: lookups, parked frames, timers, outputs |
//! | `state.rs` | the transitions between states that have no wire format |
//! | `arp.rs`, `ndp.rs` | the two wire formats, and what their messages do to the table |
//! | `own.rs` | our own addresses: probes, announcements, defence |
//! | `entries.rs`, `entry.rs` | the hash map of neighbours, and whom a newcomer may displace |
//! | `outbox.rs` | what is to be done, with a bound |
//!
//! What a stranger can do: take entries that nobody uses. Entries that are made because somebody else spoke
//! displace only failed ones and those which we never used; entries in use, and frames that wait, stay.

mod arp;
mod config;
mod entries;
mod entry;
mod ndp;
mod outbox;
mod own;
mod state;
mod table;
#[cfg(test)]
mod tests;

pub use config::{AddressDefence, AddressProbes, NeighborConfig};
pub use entry::{NeighborInfo, State};
pub use outbox::{NDP_MESSAGE_LEN, Output};
pub use table::{Lookup, Table};
