//! IP: addresses, routes, reassembly, fragments, path MTU.

pub mod address;

pub use address::{Address, AddressState, Addresses, Origin};
