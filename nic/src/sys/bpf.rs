//! eBPF programs: bpf(2).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// One instruction, laid out as `struct bpf_insn` of `linux/bpf.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What is done.
    pub code: u8,
    /// The destination and the source register, four bits each.
    pub registers: u8,
    /// A distance or an offset.
    pub offset: i16,
    /// A constant.
    pub constant: i32,
}

impl Instruction {
    pub(crate) const fn new(code: u8, dst: u8, src: u8, offset: i16, constant: i32) -> Self {
        // The kernel declares two bit fields, whose order is that of the bytes of a number.
        let registers = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
        Self { code, registers, offset, constant }
    }
}

/// The part of `union bpf_attr` that BPF_PROG_LOAD reads; what is not there is taken as zero.
#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// Loads a program of the type BPF_PROG_TYPE_SOCKET_FILTER.
///
/// # Errors
/// EPERM without CAP_BPF; EINVAL or EACCES: the verifier refuses it.
pub(crate) fn load_socket_filter(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let load = ProgramLoad {
        program_type: PROGRAM_TYPE_SOCKET_FILTER,
        instruction_count: u32::try_from(instructions.len()).unwrap_or(u32::MAX),
        instructions: instructions.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    let (load, size) = (&raw const load, size_of::<ProgramLoad>());
    // SAFETY: `load` is `size` initialised bytes without padding, alive for the call, as is what it points
    // to: `instructions` with its own count, and a string that ends with 0. The kernel only reads them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROGRAM_LOAD, load, size) };
    let Ok(descriptor @ 0..) = i32::try_from(result) else {
        return Err(io::Error::last_os_error());
    };
    // SAFETY: the descriptor was just opened, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// BPF_PROG_LOAD.
const PROGRAM_LOAD: libc::c_int = 5;
/// BPF_PROG_TYPE_SOCKET_FILTER.
const PROGRAM_TYPE_SOCKET_FILTER: u32 = 1;
/// Helpers for everybody are all that is called, so this need not be the kernel's licence.
const LICENSE: &std::ffi::CStr = c"MIT OR Apache-2.0";
