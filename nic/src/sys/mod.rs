//! System calls that no safe library offers. With `shm`, the only place of unsafe code.
//!
//! Each function is one call, turns -1 into an `io::Error`, and has no other logic.
#![allow(unsafe_code)]

pub(crate) mod batch;
pub(crate) mod bpf;
pub(crate) mod ethtool;
pub(crate) mod fanout;
pub(crate) mod filter;
pub(crate) mod interface;
pub(crate) mod packet_socket;
pub(crate) mod tty;
pub(crate) mod tun;

use std::io;

/// What a system call returned, or the error that it left in `errno`.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
