//! IP: addresses, routes, reassembly, fragments, path MTU.

pub mod address;
pub mod header;
mod keyed;
pub mod route;
pub mod select;

pub use address::{Address, AddressState, Addresses, Origin};
