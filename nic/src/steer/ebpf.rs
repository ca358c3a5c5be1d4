//! A classic program in the instructions of eBPF, one by one, as the kernel itself translates it.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use crate::filter::Program;
use crate::filter::program::{Alu, Condition, EXTENSIONS, Op, Operand, Size};
use crate::sys::bpf;

pub use crate::sys::bpf::Instruction;

/// An eBPF program of the type BPF_PROG_TYPE_SOCKET_FILTER.
///
/// Made from a classic one, it returns the same for every packet: the loads from the packet are the
/// same instructions (LD_ABS, LD_IND), with the same end of the program when they miss.
#[derive(Clone, PartialEq, Eq)]
pub struct Extended(Vec<Instruction>);

/// Why a program cannot be had as eBPF.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtendedError {
    /// The classic program asks for what an eBPF program cannot: netlink attributes, the hardware
    /// type, or the offset of the payload.
    #[error("instruction {0} loads netlink attributes, hatype or poff, which eBPF does not have")]
    Extension(usize),
    /// A jump is longer than eBPF has.
    #[error("the program is too long for the jumps of eBPF, which reach 32767 instructions")]
    TooLong,
    /// The kernel does not load it.
    #[error("the kernel does not load the eBPF program: {source}{}", hint(source))]
    Load {
        /// What the kernel said.
        source: io::Error,
    },
}

impl Extended {
    /// Translates a classic program.
    ///
    /// # Errors
    /// [`ExtendedError::Extension`] and [`ExtendedError::TooLong`].
    pub fn from_classic(program: &Program) -> Result<Self, ExtendedError> {
        let mut parts = Vec::with_capacity(program.len());
        for (at, op) in program.instructions().iter().filter_map(Op::decode).enumerate() {
            parts.push(translate(at, op).ok_or(ExtendedError::Extension(at))?);
        }
        // Where the translation of each instruction begins.
        let mut starts = Vec::with_capacity(parts.len());
        let mut len = PROLOGUE.len();
        for part in &parts {
            starts.push(len);
            len += part.len();
        }
        let mut instructions = PROLOGUE.to_vec();
        for part in parts.into_iter().flatten() {
            let mut instruction = part.instruction;
            if let Some(target) = part.target {
                let start = starts.get(target).ok_or(ExtendedError::TooLong)?;
                let distance = start.wrapping_sub(instructions.len() + 1);
                instruction.offset = i16::try_from(distance).map_err(|_| ExtendedError::TooLong)?;
            }
            instructions.push(instruction);
        }
        Ok(Self(instructions))
    }

    /// The instructions.
    pub fn instructions(&self) -> &[Instruction] {
        &self.0
    }

    /// Loads it into the kernel. The descriptor keeps it there, and so does what it is attached to.
    ///
    /// # Errors
    /// [`ExtendedError::Load`]: CAP_BPF is missing, or the kernel has no eBPF.
    pub fn load(&self) -> Result<OwnedFd, ExtendedError> {
        bpf::load_socket_filter(&self.0).map_err(|source| ExtendedError::Load { source })
    }
}

impl fmt::Debug for Extended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Extended({} instructions)", self.0.len())
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            " (it needs CAP_BPF outside of user namespaces; the classic program needs nothing)"
        }
        _ => "",
    }
}

/// An instruction, and the classic one that it jumps to.
#[derive(Clone, Copy)]
struct Part {
    instruction: Instruction,
    target: Option<usize>,
}

/// The registers: A is R0, where loads from a packet put their result; X is R7 and the context R6, which
/// such loads leave alone.
const A: u8 = 0;
const CONTEXT: u8 = 6;
const X: u8 = 7;
const SAVED: u8 = 8;
const FRAME: u8 = 10;

const PROLOGUE: [Instruction; 3] = [
    Instruction::new(MOV64_REGISTER, CONTEXT, 1, 0, 0),
    Instruction::new(MOV32, A, 0, 0, 0),
    Instruction::new(MOV32, X, 0, 0, 0),
];

/// `None`: eBPF has no such load.
fn translate(at: usize, op: Op) -> Option<Vec<Part>> {
    let next = at + 1;
    let plain = |code, dst, src, offset, k: u32| {
        let instruction = Instruction::new(code, dst, src, offset, k as i32);
        Part { instruction, target: None }
    };
    let jump = |code, src, k: u32, distance: u32| {
        let instruction = Instruction::new(code, A, src, 0, k as i32);
        Part { instruction, target: Some(next + distance as usize) }
    };
    Some(match op {
        Op::LoadAbsolute(_, k) if k >= EXTENSIONS => {
            let loads = extension(k - EXTENSIONS)?;
            loads.into_iter().map(|instruction| Part { instruction, target: None }).collect()
        }
        Op::LoadAbsolute(size, k) => vec![plain(LD_ABS | bits(size), 0, 0, 0, k)],
        Op::LoadIndirect(size, k) => vec![plain(LD_IND | bits(size), 0, X, 0, k)],
        Op::LoadLength => vec![plain(LDX32, A, CONTEXT, 0, 0)],
        Op::LoadXLength => vec![plain(LDX32, X, CONTEXT, 0, 0)],
        Op::LoadImmediate(k) => vec![plain(MOV32, A, 0, 0, k)],
        Op::LoadXImmediate(k) => vec![plain(MOV32, X, 0, 0, k)],
        Op::LoadScratch(k) => vec![plain(LDX32, A, FRAME, slot(k), 0)],
        Op::LoadXScratch(k) => vec![plain(LDX32, X, FRAME, slot(k), 0)],
        Op::Store(k) => vec![plain(STX32, FRAME, A, slot(k), 0)],
        Op::StoreX(k) => vec![plain(STX32, FRAME, X, slot(k), 0)],
        Op::LoadXHeaderLength(k) => vec![
            plain(MOV64_REGISTER, SAVED, A, 0, 0),
            plain(LD_ABS | bits(Size::Byte), 0, 0, 0, k),
            plain(alu(Alu::And), A, 0, 0, 0xf),
            plain(alu(Alu::Lsh), A, 0, 0, 2),
            plain(MOV32_REGISTER, X, A, 0, 0),
            plain(MOV64_REGISTER, A, SAVED, 0, 0),
        ],
        Op::Alu(operation, Operand::K(k)) => vec![plain(alu(operation), A, 0, 0, k)],
        // Classic BPF ends with 0 at a division by 0; eBPF goes on.
        Op::Alu(operation @ (Alu::Div | Alu::Mod), Operand::X) => vec![
            plain(JNE32, X, 0, 2, 0),
            plain(MOV32, A, 0, 0, 0),
            plain(EXIT, 0, 0, 0, 0),
            plain(alu(operation) | REGISTER, A, X, 0, 0),
        ],
        Op::Alu(operation, Operand::X) => vec![plain(alu(operation) | REGISTER, A, X, 0, 0)],
        Op::Negate => vec![plain(NEG32, A, 0, 0, 0)],
        Op::Jump(distance) => vec![jump(JA, 0, 0, distance)],
        Op::Branch(condition, operand, jt, jf) => {
            let yes = match operand {
                Operand::K(k) => jump(branch(condition), 0, k, jt.into()),
                Operand::X => jump(branch(condition) | REGISTER, X, 0, jt.into()),
            };
            if jf == 0 { vec![yes] } else { vec![yes, jump(JA, 0, 0, jf.into())] }
        }
        Op::ReturnK(k) => vec![plain(MOV32, A, 0, 0, k), plain(EXIT, 0, 0, 0, 0)],
        Op::ReturnA => vec![plain(EXIT, 0, 0, 0, 0)],
        Op::Tax => vec![plain(MOV32_REGISTER, X, A, 0, 0)],
        Op::Txa => vec![plain(MOV32_REGISTER, A, X, 0, 0)],
    })
}

/// Loads from the fields of `struct __sk_buff` (`linux/bpf.h`), and calls of helpers.
fn extension(index: u32) -> Option<Vec<Instruction>> {
    let field = |offset| Instruction::new(LDX32, A, CONTEXT, offset, 0);
    let swapped = Instruction::new(TO_BIG_ENDIAN, A, 0, 0, 16);
    let call = |helper| Instruction::new(CALL, 0, 0, 0, helper);
    Some(match index {
        0 => vec![field(16), swapped],
        4 => vec![field(4)],
        8 => vec![field(40)],
        20 => vec![field(8)],
        24 => vec![field(12)],
        32 => vec![field(68)],
        36 => vec![call(8)],
        40 => vec![Instruction::new(alu(Alu::Xor) | REGISTER, A, X, 0, 0)],
        44 => vec![field(24)],
        48 => vec![field(20)],
        56 => vec![call(7)],
        60 => vec![field(28), swapped],
        _ => return None,
    })
}

/// Where a word of scratch memory is on the stack.
fn slot(word: u32) -> i16 {
    -64 + 4 * (word & 15) as i16
}

fn bits(size: Size) -> u8 {
    size.bits() as u8
}

const fn alu(operation: Alu) -> u8 {
    0x04 | match operation {
        Alu::Add => 0x00,
        Alu::Sub => 0x10,
        Alu::Mul => 0x20,
        Alu::Div => 0x30,
        Alu::Or => 0x40,
        Alu::And => 0x50,
        Alu::Lsh => 0x60,
        Alu::Rsh => 0x70,
        Alu::Mod => 0x90,
        Alu::Xor => 0xa0,
    }
}

/// Of the class JMP32 (Linux 5.1), whose constants are compared as 32 bits.
const fn branch(condition: Condition) -> u8 {
    0x06 | match condition {
        Condition::Equal => 0x10,
        Condition::Greater => 0x20,
        Condition::GreaterOrEqual => 0x30,
        Condition::Set => 0x40,
    }
}

// Instruction codes of `linux/bpf.h`.
const LD_ABS: u8 = 0x20;
const LD_IND: u8 = 0x40;
const LDX32: u8 = 0x61;
const STX32: u8 = 0x63;
const MOV32: u8 = 0xb4;
const MOV32_REGISTER: u8 = 0xbc;
const MOV64_REGISTER: u8 = 0xbf;
const NEG32: u8 = 0x84;
const TO_BIG_ENDIAN: u8 = 0xdc;
const JA: u8 = 0x05;
const JNE32: u8 = 0x56;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const REGISTER: u8 = 0x08;
