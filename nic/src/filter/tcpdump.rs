//! Expressions of pcap-filter(7), compiled by an installed tcpdump.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use super::program::{Instruction, Program, ProgramError};

/// What an expression is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// Frames of this interface. An expression with `vlan`, `inbound` or `ifname` looks at what the kernel
    /// knows beside the bytes, as it must on a live interface. tcpdump opens it, with CAP_NET_RAW.
    Interface(&'a str),
    /// Ethernet frames of anywhere, with everything in their bytes. Needs no rights. Since the kernel
    /// strips VLAN tags, an expression with `vlan` finds none on a live interface.
    Ethernet,
    /// IP packets without a link header (TUN).
    Ip,
}

/// Why there is no program for an expression.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// tcpdump is not installed.
    #[error(
        "tcpdump is not installed, and it compiles filter expressions: install it, or give rules instead"
    )]
    Missing,
    /// tcpdump could not be run.
    #[error("cannot run tcpdump: {0}")]
    Run(#[source] io::Error),
    /// tcpdump does not take the expression.
    #[error("the filter expression {expression:?}: {message}; pcap-filter(7) has the syntax")]
    Expression {
        /// What was given.
        expression: String,
        /// The first line of its complaint.
        message: String,
    },
    /// What tcpdump printed is no program.
    #[error("the output of tcpdump -ddd: {0}")]
    Output(#[from] ParseDddError),
}

/// Why a text is not the output of `tcpdump -ddd`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseDddError {
    /// The first line is the number of instructions.
    #[error("line 1 must be the number of instructions, and it is {0:?}")]
    Count(String),
    /// Each other line is an instruction.
    #[error("line {line} must be four numbers (code, jt, jf, k), and it is {found:?}")]
    Line {
        /// Which line, from 1.
        line: usize,
        /// What is there.
        found: String,
    },
    /// There are more or fewer lines than the first one says.
    #[error("line 1 announces {announced} instructions, and {found} follow")]
    Length {
        /// What the first line says.
        announced: usize,
        /// How many there are.
        found: usize,
    },
    /// The instructions are no program.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// Compiles an expression by running `tcpdump -ddd`. The empty expression takes every frame.
///
/// # Errors
/// [`CompileError`].
pub fn compile(expression: &str, target: Target<'_>) -> Result<Program, CompileError> {
    let mut command = Command::new("tcpdump");
    command.arg("-ddd");
    // Older versions want a device or a file in any case; a file without packets needs no rights.
    let file = match target {
        Target::Interface(name) => {
            command.args(["-i", name]);
            Vec::new()
        }
        Target::Ethernet => {
            command.args(["-r", "-"]);
            empty_pcap(LINK_TYPE_ETHERNET)
        }
        Target::Ip => {
            command.args(["-r", "-"]);
            empty_pcap(LINK_TYPE_RAW)
        }
    };
    // Nothing in the expression is taken for an option.
    command.arg("--").arg(expression);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CompileError::Missing,
        _ => CompileError::Run(error),
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may have ended before it read, which its own words explain.
        let _ = stdin.write_all(&file);
    }
    let output = child.wait_with_output().map_err(CompileError::Run)?;
    if !output.status.success() {
        let message = complaint(&String::from_utf8_lossy(&output.stderr));
        return Err(CompileError::Expression { expression: expression.to_owned(), message });
    }
    Ok(parse_ddd(&String::from_utf8_lossy(&output.stdout))?)
}

/// Reads a program from the output of `tcpdump -ddd`: the number of instructions, and one a line.
///
/// # Errors
/// [`ParseDddError`], with the line.
pub fn parse_ddd(text: &str) -> Result<Program, ParseDddError> {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().trim();
    let announced: usize = first.parse().map_err(|_| ParseDddError::Count(shorten(first)))?;
    let mut instructions = Vec::new();
    for (line, text) in (2..).zip(lines).filter(|(_, text)| !text.trim().is_empty()) {
        let wrong = || ParseDddError::Line { line, found: shorten(text) };
        instructions.push(parse_instruction(text).ok_or_else(wrong)?);
    }
    if announced != instructions.len() {
        return Err(ParseDddError::Length { announced, found: instructions.len() });
    }
    Ok(Program::new(instructions)?)
}

fn parse_instruction(line: &str) -> Option<Instruction> {
    let mut numbers = line.split_ascii_whitespace();
    let code = numbers.next()?.parse().ok()?;
    let jt = numbers.next()?.parse().ok()?;
    let jf = numbers.next()?.parse().ok()?;
    let k = numbers.next()?.parse().ok()?;
    numbers.next().is_none().then_some(Instruction { code, jt, jf, k })
}

/// The first line in which tcpdump itself speaks; it also says which file it reads.
fn complaint(stderr: &str) -> String {
    let said = stderr.lines().find_map(|line| line.strip_prefix("tcpdump: "));
    shorten(said.or_else(|| stderr.lines().next()).unwrap_or("tcpdump gave no reason").trim())
}

/// What fits into a line of an error.
fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}

/// The header of a pcap file with no packet in it.
fn empty_pcap(link_type: u32) -> Vec<u8> {
    let (version, zone, accuracy) = ([2_u16, 4], 0_u32, 0_u32);
    let mut header = 0xa1b2_c3d4_u32.to_ne_bytes().to_vec();
    header.extend(version.iter().flat_map(|part| part.to_ne_bytes()));
    for word in [zone, accuracy, SNAPSHOT_LEN, link_type] {
        header.extend(word.to_ne_bytes());
    }
    header
}

const LINK_TYPE_ETHERNET: u32 = 1;
const LINK_TYPE_RAW: u32 = 101;
/// What a program returns for a frame that passes; the default of tcpdump, above any super-frame but
/// those of BIG TCP.
const SNAPSHOT_LEN: u32 = 262_144;
