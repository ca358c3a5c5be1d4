//! The same code over the sockets of the kernel and over ours, with the same results.

mod kernel;
mod ours;
