//! IP: addresses, routes, reassembly, fragments, path MTU.

pub mod address;
pub mod slaac;
pub mod stable_address;

pub use address::{Address, AddressState, Addresses, Origin};
