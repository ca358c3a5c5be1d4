//! A classic BPF program: instructions, and the rules by which the kernel accepts them.

use std::fmt;

/// Instructions that a program may have (BPF_MAXINSNS of `linux/bpf_common.h`).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// Words of scratch memory (BPF_MEMWORDS).
pub const SCRATCH_WORDS: usize = 16;

/// One instruction, laid out as `struct sock_filter` of `linux/filter.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Instruction {
    /// What is done: class, size, mode and operand in one number.
    pub code: u16,
    /// Instructions to skip if a condition holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// An offset, a constant, or the distance of an unconditional jump.
    pub k: u32,
}

/// A program that the kernel will take: every value of this type has passed its rules.
///
/// What a return value means is up to who runs it: a socket filter returns how many bytes of the frame
/// to keep (0 drops it), a fanout program returns a number that the kernel takes modulo the members.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Program(Vec<Instruction>);

/// Why a list of instructions is not a program. Instructions are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// There is no instruction.
    #[error("the program has no instructions; it must have at least a `ret`")]
    Empty,
    /// There are too many instructions.
    #[error("the program has {0} instructions; the kernel takes at most {INSTRUCTIONS_MAX}")]
    TooLong(usize),
    /// No such instruction exists.
    #[error("instruction {at} has the code {code:#x}, which is none of classic BPF")]
    Code {
        /// Which instruction.
        at: usize,
        /// Its code.
        code: u16,
    },
    /// A division by the constant 0.
    #[error("instruction {0} divides by 0; the divisor must be at least 1")]
    Division(usize),
    /// A shift by a constant of more than 31 bits.
    #[error("instruction {0} shifts by 32 bits or more; at most 31 are possible")]
    Shift(usize),
    /// Scratch memory beyond its end.
    #[error("instruction {0} uses scratch memory beyond word 15")]
    Scratch(usize),
    /// Scratch memory that not every way to the instruction has written.
    #[error("instruction {0} reads scratch memory that may not have been written before")]
    Unwritten(usize),
    /// A jump behind the end.
    #[error("instruction {0} jumps behind the end of the program; jumps go forward, to an instruction")]
    Jump(usize),
    /// An ancillary load that the kernel does not know.
    #[error("instruction {at} loads from {k:#x}, which is neither in the packet nor a known extension")]
    Ancillary {
        /// Which instruction.
        at: usize,
        /// Its offset.
        k: u32,
    },
    /// The end can be run over.
    #[error("the last instruction must be a `ret`")]
    NoReturn,
}

impl Program {
    /// Checks instructions by the rules of `bpf_check_classic` in the kernel's `net/core/filter.c`.
    ///
    /// # Errors
    /// [`ProgramError`]: the first rule that is broken.
    pub fn new(instructions: Vec<Instruction>) -> Result<Self, ProgramError> {
        if instructions.is_empty() {
            return Err(ProgramError::Empty);
        }
        if instructions.len() > INSTRUCTIONS_MAX {
            return Err(ProgramError::TooLong(instructions.len()));
        }
        for (at, instruction) in instructions.iter().enumerate() {
            check(at, instruction, instructions.len())?;
        }
        match instructions.last().and_then(Op::decode) {
            Some(Op::ReturnK(_) | Op::ReturnA) => {}
            _ => return Err(ProgramError::NoReturn),
        }
        check_scratch(&instructions)?;
        Ok(Self(instructions))
    }

    /// A program that returns this value for everything: `u32::MAX` keeps every frame whole, 0 drops all.
    pub fn constant(value: u32) -> Self {
        Self(vec![Instruction::new(RET | K, value)])
    }

    /// The instructions.
    pub fn instructions(&self) -> &[Instruction] {
        &self.0
    }

    /// How many instructions there are, 1 to [`INSTRUCTIONS_MAX`].
    #[allow(clippy::len_without_is_empty, reason = "no program is empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// One instruction a line, in the words of `tcpdump -d`.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, instruction) in self.0.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "({at:03}) ")?;
            match Op::decode(instruction) {
                Some(op) => op.write(at, f)?,
                None => write!(f, "{:#x}", instruction.code)?,
            }
        }
        Ok(())
    }
}

impl Instruction {
    pub(crate) const fn new(code: u16, k: u32) -> Self {
        Self { code, jt: 0, jf: 0, k }
    }
}

/// How much is loaded from a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Word,
    Half,
    Byte,
}

/// The second operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operand {
    K(u32),
    X,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alu {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    And,
    Or,
    Xor,
    Lsh,
    Rsh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Equal,
    Greater,
    GreaterOrEqual,
    Set,
}

/// What an instruction does. Jumps are distances from the instruction that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    LoadAbsolute(Size, u32),
    LoadIndirect(Size, u32),
    LoadLength,
    LoadImmediate(u32),
    LoadScratch(u32),
    LoadXImmediate(u32),
    LoadXScratch(u32),
    LoadXLength,
    LoadXHeaderLength(u32),
    Store(u32),
    StoreX(u32),
    Alu(Alu, Operand),
    Negate,
    Jump(u32),
    Branch(Condition, Operand, u8, u8),
    ReturnK(u32),
    ReturnA,
    Tax,
    Txa,
}

impl Op {
    /// `None`: no such instruction.
    pub(crate) fn decode(instruction: &Instruction) -> Option<Self> {
        let Instruction { code, jt, jf, k } = *instruction;
        let operand = if code & X == 0 { Operand::K(k) } else { Operand::X };
        Some(match code {
            0x20 => Self::LoadAbsolute(Size::Word, k),
            0x28 => Self::LoadAbsolute(Size::Half, k),
            0x30 => Self::LoadAbsolute(Size::Byte, k),
            0x40 => Self::LoadIndirect(Size::Word, k),
            0x48 => Self::LoadIndirect(Size::Half, k),
            0x50 => Self::LoadIndirect(Size::Byte, k),
            0x80 => Self::LoadLength,
            0x00 => Self::LoadImmediate(k),
            0x60 => Self::LoadScratch(k),
            0x01 => Self::LoadXImmediate(k),
            0x61 => Self::LoadXScratch(k),
            0x81 => Self::LoadXLength,
            0xb1 => Self::LoadXHeaderLength(k),
            0x02 => Self::Store(k),
            0x03 => Self::StoreX(k),
            0x84 => Self::Negate,
            0x05 => Self::Jump(k),
            0x06 => Self::ReturnK(k),
            0x16 => Self::ReturnA,
            0x07 => Self::Tax,
            0x87 => Self::Txa,
            _ => match (code & 7, code & !0xf) {
                (ALU, 0x00) => Self::Alu(Alu::Add, operand),
                (ALU, 0x10) => Self::Alu(Alu::Sub, operand),
                (ALU, 0x20) => Self::Alu(Alu::Mul, operand),
                (ALU, 0x30) => Self::Alu(Alu::Div, operand),
                (ALU, 0x40) => Self::Alu(Alu::Or, operand),
                (ALU, 0x50) => Self::Alu(Alu::And, operand),
                (ALU, 0x60) => Self::Alu(Alu::Lsh, operand),
                (ALU, 0x70) => Self::Alu(Alu::Rsh, operand),
                (ALU, 0x90) => Self::Alu(Alu::Mod, operand),
                (ALU, 0xa0) => Self::Alu(Alu::Xor, operand),
                (JMP, 0x10) => Self::Branch(Condition::Equal, operand, jt, jf),
                (JMP, 0x20) => Self::Branch(Condition::Greater, operand, jt, jf),
                (JMP, 0x30) => Self::Branch(Condition::GreaterOrEqual, operand, jt, jf),
                (JMP, 0x40) => Self::Branch(Condition::Set, operand, jt, jf),
                _ => return None,
            },
        })
    }

    fn write(self, at: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = |distance: u32| at + 1 + distance as usize;
        match self {
            Self::LoadAbsolute(size, k) => match extension_name(k) {
                Some(name) => write!(f, "{:<8} #{name}", size.load()),
                None => write!(f, "{:<8} [{}]", size.load(), Offset(k)),
            },
            Self::LoadIndirect(size, k) => write!(f, "{:<8} [x + {}]", size.load(), Offset(k)),
            Self::LoadLength => write!(f, "{:<8} #pktlen", "ld"),
            Self::LoadImmediate(k) => write!(f, "{:<8} #{k:#x}", "ld"),
            Self::LoadScratch(k) => write!(f, "{:<8} M[{k}]", "ld"),
            Self::LoadXImmediate(k) => write!(f, "{:<8} #{k:#x}", "ldx"),
            Self::LoadXScratch(k) => write!(f, "{:<8} M[{k}]", "ldx"),
            Self::LoadXLength => write!(f, "{:<8} #pktlen", "ldx"),
            Self::LoadXHeaderLength(k) => write!(f, "{:<8} 4*([{}]&0xf)", "ldxb", Offset(k)),
            Self::Store(k) => write!(f, "{:<8} M[{k}]", "st"),
            Self::StoreX(k) => write!(f, "{:<8} M[{k}]", "stx"),
            Self::Alu(alu, operand) => write!(f, "{:<8} {operand}", alu.name()),
            Self::Negate => f.write_str("neg"),
            Self::Jump(k) => write!(f, "{:<8} {}", "ja", target(k)),
            Self::Branch(condition, operand, jt, jf) => {
                let (jt, jf) = (target(jt.into()), target(jf.into()));
                write!(f, "{:<8} {operand:<16} jt {jt}\tjf {jf}", condition.name())
            }
            Self::ReturnK(k) => write!(f, "{:<8} #{k}", "ret"),
            Self::ReturnA => f.write_str("ret      a"),
            Self::Tax => f.write_str("tax"),
            Self::Txa => f.write_str("txa"),
        }
    }
}

impl Size {
    pub(crate) fn bits(self) -> u16 {
        match self {
            Self::Word => 0x00,
            Self::Half => 0x08,
            Self::Byte => 0x10,
        }
    }

    fn load(self) -> &'static str {
        match self {
            Self::Word => "ld",
            Self::Half => "ldh",
            Self::Byte => "ldb",
        }
    }
}

impl Alu {
    fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Sub => "sub",
            Self::Mul => "mul",
            Self::Div => "div",
            Self::Mod => "mod",
            Self::And => "and",
            Self::Or => "or",
            Self::Xor => "xor",
            Self::Lsh => "lsh",
            Self::Rsh => "rsh",
        }
    }
}

impl Condition {
    fn name(self) -> &'static str {
        match self {
            Self::Equal => "jeq",
            Self::Greater => "jgt",
            Self::GreaterOrEqual => "jge",
            Self::Set => "jset",
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::K(k) => f.pad(&format!("#{k:#x}")),
            Self::X => f.pad("x"),
        }
    }
}

/// An offset into the packet, or one from a header that the kernel found.
struct Offset(u32);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            k if k >= NETWORK_OFFSET => write!(f, "net + {}", k - NETWORK_OFFSET),
            k if k >= LINK_OFFSET => write!(f, "link + {}", k - LINK_OFFSET),
            k => write!(f, "{k}"),
        }
    }
}

fn check(at: usize, instruction: &Instruction, len: usize) -> Result<(), ProgramError> {
    let op = Op::decode(instruction).ok_or(ProgramError::Code { at, code: instruction.code })?;
    // Instructions that follow this one.
    let follow = len - at - 1;
    match op {
        Op::Alu(Alu::Div | Alu::Mod, Operand::K(0)) => Err(ProgramError::Division(at)),
        Op::Alu(Alu::Lsh | Alu::Rsh, Operand::K(32..)) => Err(ProgramError::Shift(at)),
        Op::LoadScratch(k) | Op::LoadXScratch(k) | Op::Store(k) | Op::StoreX(k)
            if k as usize >= SCRATCH_WORDS =>
        {
            Err(ProgramError::Scratch(at))
        }
        Op::Jump(k) if k as usize >= follow => Err(ProgramError::Jump(at)),
        Op::Branch(_, _, jt, jf) if usize::from(jt.max(jf)) >= follow => Err(ProgramError::Jump(at)),
        Op::LoadAbsolute(_, k) if k >= EXTENSIONS && extension_name(k).is_none() => {
            Err(ProgramError::Ancillary { at, k })
        }
        _ => Ok(()),
    }
}

/// `check_load_and_stores`: what is read from scratch memory was written on every way to the read. One
/// pass suffices, because jumps go forward only.
fn check_scratch(instructions: &[Instruction]) -> Result<(), ProgramError> {
    let mut written_before = vec![u16::MAX; instructions.len()];
    let mut written: u16 = 0;
    for (at, instruction) in instructions.iter().enumerate() {
        written &= written_before[at];
        let mut reach = |distance: usize, written: u16| {
            if let Some(mask) = written_before.get_mut(at + 1 + distance) {
                *mask &= written;
            }
        };
        match Op::decode(instruction) {
            Some(Op::Store(k) | Op::StoreX(k)) => written |= 1 << k,
            Some(Op::LoadScratch(k) | Op::LoadXScratch(k)) if written & (1 << k) == 0 => {
                return Err(ProgramError::Unwritten(at));
            }
            Some(Op::Jump(k)) => {
                reach(k as usize, written);
                written = u16::MAX;
            }
            Some(Op::Branch(_, _, jt, jf)) => {
                reach(jt.into(), written);
                reach(jf.into(), written);
                written = u16::MAX;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The name of what the kernel knows of a packet beside its bytes (SKF_AD_* of `linux/filter.h`).
fn extension_name(k: u32) -> Option<&'static str> {
    const NAMES: [&str; 16] = [
        "proto",
        "type",
        "ifidx",
        "nla",
        "nlan",
        "mark",
        "queue",
        "hatype",
        "rxhash",
        "cpu",
        "xor_x",
        "vlan_tci",
        "vlan_avail",
        "poff",
        "rand",
        "vlan_tpid",
    ];
    let index = k.checked_sub(EXTENSIONS)?;
    if index % 4 != 0 {
        return None;
    }
    NAMES.get(index as usize / 4).copied()
}

pub(crate) const ALU: u16 = 0x04;
pub(crate) const JMP: u16 = 0x05;
pub(crate) const RET: u16 = 0x06;
pub(crate) const K: u16 = 0x00;
pub(crate) const X: u16 = 0x08;

/// SKF_AD_OFF: from here, offsets name what the kernel knows beside the bytes.
pub(crate) const EXTENSIONS: u32 = -0x1000_i32 as u32;
/// SKF_NET_OFF: from here to [`EXTENSIONS`], offsets count from the network header.
pub(crate) const NETWORK_OFFSET: u32 = -0x10_0000_i32 as u32;
/// SKF_LL_OFF: from here to [`NETWORK_OFFSET`], offsets count from the link header.
pub(crate) const LINK_OFFSET: u32 = -0x20_0000_i32 as u32;
