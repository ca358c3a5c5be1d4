//! IP: addresses, routes, reassembly, fragments, path MTU.

pub mod address;
pub mod fragment;
pub mod header;
mod keyed;
pub mod path_mtu;
pub mod reassembly;
pub mod route;
pub mod select;
pub mod slaac;
pub mod stable_address;
#[cfg(test)]
mod testing;

pub use address::{Address, AddressState, Addresses, Origin};
