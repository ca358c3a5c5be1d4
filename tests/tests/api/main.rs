//! The sockets of applications, over pairs of devices in memory: no privileges, no kernel on the way.
#![allow(clippy::duplicate_mod, reason = "the same code is run over two sets of sockets")]

mod faults;
mod happy_eyeballs;
mod hyper_and_tls;
mod local_runtime;
mod pair;
mod parity;
mod tasks;
mod types;
