//! Running a program in user space, with the results that the kernel has.

use super::program::{
    Alu, Condition, EXTENSIONS, LINK_OFFSET, NETWORK_OFFSET, Op, Operand, Program, SCRATCH_WORDS, Size,
};

/// A packet as a program sees it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// The bytes, from the link header if there is one.
    pub bytes: &'a [u8],
    /// Where in `bytes` a program's offset 0 is.
    pub zero_at: usize,
    /// Where in `bytes` the network header is.
    pub network_at: usize,
    /// What the kernel knows beside the bytes.
    pub extensions: Extensions,
}

/// What the kernel tells a program of a packet beside its bytes: the SKF_AD_* loads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extensions {
    /// EtherType of the payload, behind a VLAN tag that the kernel has stripped.
    pub protocol: u16,
    /// PACKET_HOST (0) to PACKET_OUTGOING (4).
    pub packet_type: u32,
    /// Index of the interface.
    pub interface_index: u32,
    /// The mark that netfilter or a socket has set.
    pub mark: u32,
    /// The receive queue.
    pub queue: u32,
    /// ARPHRD_* of the interface: 1 for Ethernet.
    pub hardware_type: u32,
    /// The hash that the card or the kernel has computed.
    pub rx_hash: u32,
    /// The processor that runs the program.
    pub cpu: u32,
    /// What a load of a random number gives.
    pub random: u32,
    /// Tag control information and tag protocol of the VLAN tag that the kernel has stripped.
    pub vlan: Option<(u16, u16)>,
    /// Where the payload behind the transport header begins.
    pub payload_offset: u32,
}

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// What the program returned; 0 if it loaded from behind the end of the packet.
    pub value: u32,
    /// Instructions that were executed: at most as many as the program has, since jumps go forward.
    pub instructions: usize,
}

impl<'a> Context<'a> {
    /// A frame as a socket filter sees it: offset 0 is the link header. The kernel would have stripped an
    /// outer VLAN tag; here the tags stay in the bytes.
    pub fn link(frame: &'a [u8]) -> Self {
        let extensions =
            Extensions { protocol: ethertype(frame, 12), hardware_type: 1, ..Default::default() };
        Self { bytes: frame, zero_at: 0, network_at: ETHERNET_HEADER_LEN, extensions }
    }

    /// A received frame as a fanout program sees it: offset 0 is the network header, the outermost
    /// VLAN tag is stripped, and the EtherType is known beside the bytes.
    pub fn fanout(frame: &'a [u8]) -> Self {
        let mut context = Self::link(frame);
        if matches!(context.extensions.protocol, 0x8100 | 0x88a8) && frame.len() >= 18 {
            context.extensions.vlan = Some((ethertype(frame, 14), context.extensions.protocol));
            context.extensions.protocol = ethertype(frame, 16);
            context.network_at += 4;
        }
        context.zero_at = context.network_at;
        context
    }
}

impl Program {
    /// What the program returns for this packet.
    ///
    /// Total: any bytes and any program get an answer, after at most as many steps as the program has
    /// instructions. A load of netlink attributes finds none.
    pub fn run(&self, context: &Context<'_>) -> u32 {
        self.run_counted(context).value
    }

    /// As [`run`](Self::run), with the cost.
    pub fn run_counted(&self, context: &Context<'_>) -> Run {
        let mut machine = Machine { a: 0, x: 0, scratch: [0; SCRATCH_WORDS] };
        let mut at = 0_usize;
        let mut instructions = 0;
        while let Some(op) = self.instructions().get(at).and_then(Op::decode) {
            instructions += 1;
            match machine.step(op, context) {
                Some(Next::Skip(distance)) => at += 1 + distance as usize,
                Some(Next::Return(value)) => return Run { value, instructions },
                None => return Run { value: 0, instructions },
            }
        }
        // Not reached: a checked program ends with a return.
        Run { value: 0, instructions }
    }
}

enum Next {
    Skip(u32),
    Return(u32),
}

struct Machine {
    a: u32,
    x: u32,
    scratch: [u32; SCRATCH_WORDS],
}

impl Machine {
    /// `None`: the program ends with 0, because of a load from nowhere or a division by 0.
    fn step(&mut self, op: Op, context: &Context<'_>) -> Option<Next> {
        match op {
            Op::LoadAbsolute(_, k) if k >= EXTENSIONS => self.a = self.extension(k, context),
            Op::LoadAbsolute(size, k) => self.a = context.load(size, k)?,
            Op::LoadIndirect(size, k) => self.a = context.load(size, self.x.wrapping_add(k))?,
            Op::LoadLength => self.a = context.len(),
            Op::LoadImmediate(k) => self.a = k,
            Op::LoadScratch(k) => self.a = self.word(k),
            Op::LoadXImmediate(k) => self.x = k,
            Op::LoadXScratch(k) => self.x = self.word(k),
            Op::LoadXLength => self.x = context.len(),
            Op::LoadXHeaderLength(k) => self.x = (context.load(Size::Byte, k)? & 0xf) * 4,
            Op::Store(k) => self.set_word(k, self.a),
            Op::StoreX(k) => self.set_word(k, self.x),
            Op::Alu(alu, operand) => self.a = alu.apply(self.a, self.value(operand))?,
            Op::Negate => self.a = self.a.wrapping_neg(),
            Op::Jump(k) => return Some(Next::Skip(k)),
            Op::Branch(condition, operand, jt, jf) => {
                let holds = condition.holds(self.a, self.value(operand));
                return Some(Next::Skip(if holds { jt } else { jf }.into()));
            }
            Op::ReturnK(k) => return Some(Next::Return(k)),
            Op::ReturnA => return Some(Next::Return(self.a)),
            Op::Tax => self.x = self.a,
            Op::Txa => self.a = self.x,
        }
        Some(Next::Skip(0))
    }

    fn value(&self, operand: Operand) -> u32 {
        match operand {
            Operand::K(k) => k,
            Operand::X => self.x,
        }
    }

    fn word(&self, k: u32) -> u32 {
        self.scratch.get(k as usize).copied().unwrap_or(0)
    }

    fn set_word(&mut self, k: u32, value: u32) {
        if let Some(word) = self.scratch.get_mut(k as usize) {
            *word = value;
        }
    }

    fn extension(&self, k: u32, context: &Context<'_>) -> u32 {
        let known = &context.extensions;
        match k - EXTENSIONS {
            0 => known.protocol.into(),
            4 => known.packet_type,
            8 => known.interface_index,
            20 => known.mark,
            24 => known.queue,
            28 => known.hardware_type,
            32 => known.rx_hash,
            36 => known.cpu,
            40 => self.a ^ self.x,
            44 => known.vlan.map_or(0, |(tci, _)| tci.into()),
            48 => known.vlan.is_some().into(),
            52 => known.payload_offset,
            56 => known.random,
            60 => known.vlan.map_or(0, |(_, tpid)| tpid.into()),
            _ => 0,
        }
    }
}

impl Context<'_> {
    fn len(&self) -> u32 {
        u32::try_from(self.bytes.len().saturating_sub(self.zero_at)).unwrap_or(u32::MAX)
    }

    fn load(&self, size: Size, k: u32) -> Option<u32> {
        let (base, offset) = match k {
            // As a signed number this is not negative.
            0..=0x7fff_ffff => (self.zero_at, k),
            NETWORK_OFFSET.. => (self.network_at, k - NETWORK_OFFSET),
            LINK_OFFSET.. => (0, k - LINK_OFFSET),
            _ => return None,
        };
        let bytes = self.bytes.get(base.checked_add(offset as usize)?..)?;
        Some(match size {
            Size::Word => u32::from_be_bytes(*bytes.first_chunk()?),
            Size::Half => u16::from_be_bytes(*bytes.first_chunk()?).into(),
            Size::Byte => (*bytes.first()?).into(),
        })
    }
}

impl Alu {
    /// `None`: a division by 0. Shifts take the low five bits of their distance.
    fn apply(self, a: u32, b: u32) -> Option<u32> {
        Some(match self {
            Self::Add => a.wrapping_add(b),
            Self::Sub => a.wrapping_sub(b),
            Self::Mul => a.wrapping_mul(b),
            Self::Div => a.checked_div(b)?,
            Self::Mod => a.checked_rem(b)?,
            Self::And => a & b,
            Self::Or => a | b,
            Self::Xor => a ^ b,
            Self::Lsh => a.wrapping_shl(b),
            Self::Rsh => a.wrapping_shr(b),
        })
    }
}

impl Condition {
    fn holds(self, a: u32, b: u32) -> bool {
        match self {
            Self::Equal => a == b,
            Self::Greater => a > b,
            Self::GreaterOrEqual => a >= b,
            Self::Set => a & b != 0,
        }
    }
}

fn ethertype(frame: &[u8], at: usize) -> u16 {
    frame.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

const ETHERNET_HEADER_LEN: usize = 14;
