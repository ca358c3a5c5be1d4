//! TCP: what comes for connections, and what an application does with them.

mod api;

pub use api::{Readiness, TcpConnect, TcpListen};
