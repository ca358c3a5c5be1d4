//! TCP of simulated hosts: applications, what they have sent and received, and what must hold after every turn.
//!
//! | file | what it is |
//! |---|---|
//! | `pattern` | bytes that can be told from each other |
//! | `streams` | the ledger: what was sent is what came |
//! | `flow` | what an application does with one connection |
//! | `app` | an application with listeners and connections |
//! | `connections` | what must hold for a connection after a turn |

mod app;
mod connections;
mod flow;
pub mod pattern;
mod streams;

pub use app::{Dial, FlowReport, Report, Serve, SharedReport, TcpApp, stuck};
pub use connections::Connections;
pub use flow::{Gate, Plan, Reading, Writing};
pub use streams::{Entry, Side, Streams};
