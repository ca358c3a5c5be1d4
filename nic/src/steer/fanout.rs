//! Fanout groups: packet sockets on one interface that share its frames (packet(7), PACKET_FANOUT).

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::str::FromStr;

use crate::filter::{Origin, Program, ProgramError};
use crate::sys;

use super::ebpf::{Extended, ExtendedError};
use super::flow_program;

/// How a group shares frames, and which group it is. All members say the same.
///
/// In text: a mode, then `+` and a flag as often as wanted, then `:` and the number of the group, or the
/// number alone omitted for a group of its own: `flow+defrag:7`, `hash+rollover`.
///
/// | mode | a frame goes to the member |
/// |---|---|
/// | `hash` | of the kernel's flow hash (symmetric, fragments by address) |
/// | `lb` | whose turn it is |
/// | `cpu` | of the processor that received it |
/// | `rnd` | of chance |
/// | `rollover` | that is first; the next one when its queue is full |
/// | `qm` | of the receive queue |
/// | `flow`, `flow=SEED` | of [`flow_hash`](super::flow_hash), computed by a classic program |
/// | `flow-ebpf`, `flow-ebpf=SEED` | the same, by an eBPF program (CAP_BPF) |
///
/// | flag | means |
/// |---|---|
/// | `rollover` | a member whose queue is full passes its frames on to another |
/// | `defrag` | IPv4 packets are put together first, so that fragments stay with their flow |
/// | `outgoing` | frames that the host sends are shared too; the default is that they are ignored |
///
/// Members are counted in the order of joining; when one leaves, the last one takes its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fanout {
    /// Which group of this network namespace. `None`: a new one, whose number
    /// [`join`](Self::join) returns for the other members.
    pub id: Option<u16>,
    /// How a frame finds its member.
    pub mode: FanoutMode,
    /// Flags.
    pub flags: FanoutFlags,
    /// Members that the group may have. `None`: 256, the kernel's default; another number needs Linux 5.10,
    /// and the first member's counts.
    pub max_members: Option<u16>,
}

/// How a frame finds its member.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FanoutMode {
    /// The kernel's own flow hash.
    Hash,
    /// One after the other.
    LoadBalance,
    /// The processor.
    Cpu,
    /// Chance.
    Random,
    /// The first member that has room.
    Rollover,
    /// The receive queue.
    QueueMapping,
    /// Our flow hash. A group that sees outgoing frames gets a program that reads both.
    Flow {
        /// The seed of [`flow_hash`](super::flow_hash).
        seed: u32,
        /// Whether it runs as eBPF.
        ebpf: bool,
    },
    /// A classic program of one's own, with offset 0 at the network header (of outgoing frames: at the
    /// link header). Its result counts modulo the members.
    Cbpf(Program),
    /// An eBPF program of one's own.
    Ebpf(Extended),
}

/// Flags of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FanoutFlags {
    /// PACKET_FANOUT_FLAG_ROLLOVER.
    pub rollover: bool,
    /// PACKET_FANOUT_FLAG_DEFRAG.
    pub defrag: bool,
    /// Not PACKET_FANOUT_FLAG_IGNORE_OUTGOING. PACKET_IGNORE_OUTGOING of a member counts for nothing in
    /// a group.
    pub outgoing: bool,
}

/// Why a socket cannot join a group.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FanoutError {
    /// The socket has not been bound, so it has no frames to share.
    #[error("the socket is not bound to an interface and a protocol; bind it before it joins a fanout group")]
    NotBound,
    /// The interface is down. Newer kernels let the socket in all the same.
    #[error("the interface is down; bring it up before a socket joins a fanout group")]
    Down,
    /// The socket is in a group already (EALREADY).
    #[error("the socket is in fanout group {0} already; a socket joins one group, once")]
    AlreadyMember(u16),
    /// There is a group of this number that is another (EINVAL).
    #[error(
        "fanout group {id} is in use with another mode, flags, size, interface or protocol than {fanout}; \
         all members must say the same, or choose another number"
    )]
    Mismatch {
        /// The number.
        id: u16,
        /// What was asked for.
        fanout: String,
    },
    /// The group is full (ENOSPC).
    #[error("fanout group {0} is full; its first member decides how many it may have (max_members)")]
    Full(u16),
    /// All numbers are taken, or the kernel is short of memory (ENOMEM).
    #[error("the kernel has no memory, or no free number, for another fanout group")]
    NoMemory,
    /// The combination does not exist.
    #[error("mode rollover has the flag rollover built in; leave the flag out")]
    RolloverTwice,
    /// A group cannot be without members.
    #[error("a fanout group must be allowed at least 1 member; max_members is 0")]
    NoMembers,
    /// SO_LOCK_FILTER is set, so a program can no longer be given to the group (EPERM).
    #[error(
        "the filter of the socket is locked, so it cannot give the group its program; lock it afterwards"
    )]
    FilterLocked,
    /// The program cannot be made.
    #[error("the flow program: {0}")]
    Program(#[from] ProgramError),
    /// The eBPF program cannot be made or loaded.
    #[error(transparent)]
    Extended(#[from] ExtendedError),
    /// The kernel does not take the program.
    #[error("the kernel does not take the program of the fanout group: {0}")]
    Refused(#[source] io::Error),
    /// The kernel has no such mode or flag, or no fanout at all.
    #[error("the kernel refuses fanout {fanout}: {source}; newer kernels have more modes and flags")]
    Unsupported {
        /// What was asked for.
        fanout: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a text is not a [`Fanout`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a fanout {what}: {accepted}")]
pub struct ParseFanoutError {
    what: &'static str,
    found: String,
    accepted: &'static str,
}

impl Fanout {
    /// A new group with this mode, without flags.
    pub fn new(mode: FanoutMode) -> Self {
        Self { id: None, mode, flags: FanoutFlags::default(), max_members: None }
    }

    /// The same for the group of this number.
    #[must_use]
    pub fn with_id(mut self, id: u16) -> Self {
        self.id = Some(id);
        self
    }

    /// Makes a bound packet socket a member, and returns the number of its group.
    ///
    /// The program of a group follows its first member: each member sets the same one. From the moment
    /// at which a group exists to the one at which its program is there, frames go to the first member.
    /// A socket leaves its group by being closed.
    ///
    /// # Errors
    /// [`FanoutError`]. After [`FanoutError::FilterLocked`], [`FanoutError::Refused`] the socket is a
    /// member without a program, and should be closed; programs are made before the socket joins.
    pub fn join(&self, socket: impl AsFd) -> Result<u16, FanoutError> {
        let socket = socket.as_fd();
        self.check()?;
        let program = self.program()?;
        sys::fanout::join(socket, self.kernel_value(), self.max_members.unwrap_or(0).into())
            .map_err(|error| self.explain(socket, error))?;
        program.give(socket)?;
        // Only a group that has just chosen its number needs to be asked.
        match self.id {
            Some(id) => Ok(id),
            None => sys::fanout::group(socket).map(|group| group as u16).map_err(FanoutError::Refused),
        }
    }

    /// What PACKET_FANOUT takes: the number in the low half, mode and flags in the high one.
    pub fn kernel_value(&self) -> u32 {
        let mode = match self.mode {
            FanoutMode::Hash => libc::PACKET_FANOUT_HASH,
            FanoutMode::LoadBalance => libc::PACKET_FANOUT_LB,
            FanoutMode::Cpu => libc::PACKET_FANOUT_CPU,
            FanoutMode::Random => libc::PACKET_FANOUT_RND,
            FanoutMode::Rollover => libc::PACKET_FANOUT_ROLLOVER,
            FanoutMode::QueueMapping => libc::PACKET_FANOUT_QM,
            FanoutMode::Flow { ebpf: false, .. } | FanoutMode::Cbpf(_) => libc::PACKET_FANOUT_CBPF,
            FanoutMode::Flow { ebpf: true, .. } | FanoutMode::Ebpf(_) => libc::PACKET_FANOUT_EBPF,
        };
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags = flag(self.flags.rollover, libc::PACKET_FANOUT_FLAG_ROLLOVER)
            | flag(self.flags.defrag, libc::PACKET_FANOUT_FLAG_DEFRAG)
            | flag(!self.flags.outgoing, libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING)
            | flag(self.id.is_none(), libc::PACKET_FANOUT_FLAG_UNIQUEID);
        (mode | flags) << 16 | u32::from(self.id.unwrap_or(0))
    }

    /// What the kernel would answer with EINVAL and no word.
    fn check(&self) -> Result<(), FanoutError> {
        if self.mode == FanoutMode::Rollover && self.flags.rollover {
            return Err(FanoutError::RolloverTwice);
        }
        if self.max_members == Some(0) {
            return Err(FanoutError::NoMembers);
        }
        Ok(())
    }

    fn program(&self) -> Result<GroupProgram, FanoutError> {
        Ok(match &self.mode {
            FanoutMode::Cbpf(program) => GroupProgram::Classic(program.clone()),
            FanoutMode::Ebpf(program) => GroupProgram::Loaded(program.load()?),
            FanoutMode::Flow { seed, ebpf } => {
                let origin = if self.flags.outgoing { Origin::Known } else { Origin::Network };
                let program = flow_program(origin, *seed)?;
                if *ebpf {
                    GroupProgram::Loaded(Extended::from_classic(&program)?.load()?)
                } else {
                    GroupProgram::Classic(program)
                }
            }
            _ => GroupProgram::None,
        })
    }

    /// What `fanout_add` of the kernel's `net/packet/af_packet.c` means by an error.
    fn explain(&self, socket: BorrowedFd<'_>, error: io::Error) -> FanoutError {
        match error.raw_os_error() {
            Some(libc::EALREADY) => {
                FanoutError::AlreadyMember(sys::fanout::group(socket).unwrap_or(0) as u16)
            }
            Some(libc::ENOSPC) => FanoutError::Full(self.id.unwrap_or(0)),
            Some(libc::ENOMEM) => FanoutError::NoMemory,
            Some(libc::EINVAL) => self.explain_invalid(socket, error),
            _ => FanoutError::Unsupported { fanout: self.to_string(), source: error },
        }
    }

    fn explain_invalid(&self, socket: BorrowedFd<'_>, error: io::Error) -> FanoutError {
        match sys::fanout::bound_to(socket) {
            Ok((0, _)) | Err(_) => return FanoutError::NotBound,
            Ok((_, interface)) if interface > 0 => {
                let flags = sys::interface::flags(socket, interface);
                if flags.is_ok_and(|flags| flags & libc::IFF_UP == 0) {
                    return FanoutError::Down;
                }
            }
            Ok(_) => {}
        }
        match self.id {
            Some(id) => FanoutError::Mismatch { id, fanout: self.to_string() },
            // A new group cannot differ from another.
            None => FanoutError::Unsupported { fanout: self.to_string(), source: error },
        }
    }
}

/// What is given to a group with PACKET_FANOUT_DATA.
enum GroupProgram {
    None,
    Classic(Program),
    Loaded(std::os::fd::OwnedFd),
}

impl GroupProgram {
    fn give(&self, socket: BorrowedFd<'_>) -> Result<(), FanoutError> {
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_FANOUT_DATA);
        let result = match self {
            Self::None => Ok(()),
            Self::Classic(program) => sys::filter::set_program(socket, level, option, program.instructions()),
            Self::Loaded(program) => sys::filter::set_int(socket, level, option, program.as_raw_fd()),
        };
        result.map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => FanoutError::FilterLocked,
            _ => FanoutError::Refused(error),
        })
    }
}

impl fmt::Display for FanoutMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flow { seed, ebpf } => {
                f.write_str(if *ebpf { "flow-ebpf" } else { "flow" })?;
                if *seed == 0 { Ok(()) } else { write!(f, "={seed}") }
            }
            Self::Cbpf(program) => write!(f, "cbpf({} instructions)", program.len()),
            Self::Ebpf(program) => write!(f, "ebpf({} instructions)", program.instructions().len()),
            simple => {
                let name = SIMPLE_MODES.iter().find(|(_, mode)| mode == simple).map(|(name, _)| *name);
                f.write_str(name.unwrap_or("unknown"))
            }
        }
    }
}

/// As [`FromStr`] takes it, but for programs of one's own, which have no text.
impl fmt::Display for Fanout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.mode)?;
        let flags = [
            (self.flags.rollover, "rollover"),
            (self.flags.defrag, "defrag"),
            (self.flags.outgoing, "outgoing"),
        ];
        for (_, name) in flags.iter().filter(|(is_set, _)| *is_set) {
            write!(f, "+{name}")?;
        }
        match self.id {
            Some(id) => write!(f, ":{id}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Fanout {
    type Err = ParseFanoutError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            |what, found: &str, accepted| ParseFanoutError { what, found: found.to_owned(), accepted };
        let (words, id) = match text.split_once(':') {
            Some((words, id)) => {
                let number = id.parse().map_err(|_| wrong("group", id, "use a number from 0 to 65535"))?;
                (words, Some(number))
            }
            None => (text, None),
        };
        let mut words = words.split('+');
        let mode = words.next().unwrap_or_default();
        let mode = parse_mode(mode).ok_or_else(|| wrong("mode", mode, MODES))?;
        let mut flags = FanoutFlags::default();
        for word in words {
            match word {
                "rollover" if mode == FanoutMode::Rollover => {
                    return Err(wrong("flag", word, "mode rollover has it built in; leave it out"));
                }
                "rollover" => flags.rollover = true,
                "defrag" => flags.defrag = true,
                "outgoing" => flags.outgoing = true,
                _ => return Err(wrong("flag", word, "use rollover, defrag or outgoing")),
            }
        }
        Ok(Self { id, mode, flags, max_members: None })
    }
}

fn parse_mode(text: &str) -> Option<FanoutMode> {
    if let Some((_, mode)) = SIMPLE_MODES.iter().find(|(name, _)| *name == text) {
        return Some(mode.clone());
    }
    let (name, seed) = match text.split_once('=') {
        Some((name, seed)) => (name, seed.parse().ok()?),
        None => (text, 0),
    };
    match name {
        "flow" => Some(FanoutMode::Flow { seed, ebpf: false }),
        "flow-ebpf" => Some(FanoutMode::Flow { seed, ebpf: true }),
        _ => None,
    }
}

const SIMPLE_MODES: [(&str, FanoutMode); 6] = [
    ("hash", FanoutMode::Hash),
    ("lb", FanoutMode::LoadBalance),
    ("cpu", FanoutMode::Cpu),
    ("rnd", FanoutMode::Random),
    ("rollover", FanoutMode::Rollover),
    ("qm", FanoutMode::QueueMapping),
];

const MODES: &str = "use hash, lb, cpu, rnd, rollover, qm, flow, flow=SEED, flow-ebpf or flow-ebpf=SEED, \
                     then +rollover, +defrag, +outgoing, then :ID";
